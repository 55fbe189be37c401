//! The offline half of `writ policy`: keys, checks, tests and signatures, where the policy is written.
//!
//! Signing is not a call to the installation, and the private key never comes near one: it is made here, stays in a file
//! that its owner alone reads, and what travels is a bundle. `check` and `test` ask the very code that publication asks, so
//! that an author learns here, with file and line, what would be refused there.
//!
//! A policy's folder holds `*.rego`, `data.json` and `.manifest`, as OPA has them, and `cases.json` for `test`. Everything
//! else in it is left out of the bundle, and said so.

use super::keyfile::{self, Drawn};
use super::local::chain;
use super::{printed, required};
use crate::exit::Failure;
use crate::output::{self, Format, note};
use act::{Ids as _, SystemIds};
use clap::{Arg, ArgMatches, Command, value_parser};
use governor::policy::bundle::{DATA, bundle_build};
use governor::policy::cases::Case;
use governor::policy::signer::{PEM_BYTES_MAX, Signer};
use governor::policy::source::{source_check, source_test};
use governor::policy::{ENGINE, Files, Manifest, Metadata, Problem, Published};
use governor::publish::BUNDLE_BYTES_MAX;
use kernel::{TenantId, hex, sha256};
use serde_json::json;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use store::{Clock as _, SystemClock};
use zeroize::Zeroizing;

/// Largest file of a policy's folder that is read, in bytes; the bundle's own limits are below it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most files of a folder that are looked at.
const FILES_MAX: usize = 256;
/// How long a bundle is in force unless its author says otherwise, in days.
const DAYS: &str = "90";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The commands that join the noun `policy`.
pub fn commands() -> Vec<Command> {
    let folder = || {
        Arg::new("folder")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("Folder with *.rego, data.json and .manifest")
    };
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .required(true)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    vec![
        Command::new("keygen")
            .about("Make a key that signs policy: FILE, and FILE.pub to register")
            .arg(path("out", "Where the private key goes; it must not exist")),
        Command::new("check").about("Look a policy over as publication would, without publishing it").arg(folder()),
        Command::new("test").about("Check a policy and run its cases").arg(folder()).arg(
            Arg::new("cases")
                .long("cases")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The cases; cases.json in the folder if not given"),
        ),
        Command::new("sign")
            .about("Check a policy and make the signed bundle that `writ policy publish` takes")
            .arg(folder())
            .arg(path("key", "The private key, as keygen wrote it"))
            .arg(Arg::new("scope").long("scope").required(true).help("Whose policy it is: a tenant's id, or `platform`"))
            .arg(path("out", "Where the bundle goes"))
            .arg(
                Arg::new("seq").long("seq").value_name("N|now").value_parser(seq_parse).help(
                    "Sequence number, higher than that of the last bundle; `now` is the time in milliseconds; without it \
                     that of .manifest, or the time",
                ),
            )
            .arg(Arg::new("revision").long("revision").help("Name of this version; that of .manifest, or the folder's"))
            .arg(
                Arg::new("days")
                    .long("days")
                    .value_name("N")
                    .default_value(DAYS)
                    .value_parser(value_parser!(i64).range(1..=3650))
                    .help("From so many days on it denies everything; an earlier end in .manifest stays"),
            ),
    ]
}

/// Runs one of [`commands`]; `None` if `verb` is none of them.
pub fn run(verb: &str, matches: &ArgMatches, format: Format) -> Option<Result<(), Failure>> {
    Some(match verb {
        "keygen" => keygen(matches, format),
        "check" => check(matches, format),
        "test" => test(matches, format),
        "sign" => sign(matches, format),
        _ => return None,
    })
}

/// A sequence number: a number, or the time, which only goes on.
fn seq_parse(text: &str) -> Result<u64, String> {
    if text == "now" {
        return u64::try_from(SystemClock.now_ms()).map_err(|_| "the clock is before 1970".to_owned());
    }
    text.parse().map_err(|_| "a sequence number is a whole number, or now".to_owned())
}

/// The bytes of a bundle, for publication.
pub fn bundle_read(path: &Path) -> Result<Vec<u8>, Failure> {
    // A constant that fits.
    let bytes = read(path, BUNDLE_BYTES_MAX as u64)?;
    if bytes.is_empty() { Err(Failure::Usage(format!("{} is empty", path.display()))) } else { Ok(bytes) }
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let unreadable = |error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > bytes_max) {
        return Err(Failure::Usage(format!("{} has more than {bytes_max} bytes", path.display())));
    }
    Ok(bytes)
}

fn keygen(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let failed = |error: governor::policy::signer::SignerError| Failure::Other(error.to_string());
    // One draw in 2³² is no key.
    let signer =
        Signer::from_entropy(&SystemIds.entropy()).or_else(|| Signer::from_entropy(&SystemIds.entropy()));
    let signer = signer.ok_or_else(|| Failure::Other("no key could be drawn; try again".into()))?;
    let key = signer.to_pem().map_err(failed)?;
    let drawn = Drawn {
        member: "policy_key",
        id: &signer.id(),
        key: key.as_ref(),
        public: &signer.public_pem().map_err(failed)?.into_bytes(),
        register: "writ --tenant TENANT policy-key register",
    };
    keyfile::keygen(required(matches, "out")?, &drawn, format)
}

/// What a folder holds, and which of its files stay out of the bundle.
struct Sources {
    manifest: Option<Manifest>,
    files: Files,
    left_out: Vec<String>,
}

fn sources(folder: &Path) -> Result<Sources, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", folder.display()));
    let mut found = Sources { manifest: None, files: Files::new(), left_out: Vec::new() };
    for (at, entry) in fs::read_dir(folder).map_err(unreadable)?.enumerate() {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if at == FILES_MAX {
            return Err(Failure::Usage(format!("{} holds more than {FILES_MAX} files", folder.display())));
        }
        if name == ".manifest" {
            let bytes = read(&entry.path(), FILE_BYTES_MAX)?;
            let manifest = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::Usage(format!("{}: {error}", entry.path().display())))?;
            found.manifest = Some(manifest);
        } else if name == DATA || name.ends_with(".rego") {
            found.files.insert(name, read(&entry.path(), FILE_BYTES_MAX)?);
        } else if name != "cases.json" {
            found.left_out.push(name);
        }
    }
    found.left_out.sort();
    Ok(found)
}

impl Sources {
    /// The manifest in the folder, or what stands in for it.
    fn manifest(&self, folder: &Path, now_ms: i64) -> Manifest {
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        self.manifest.clone().unwrap_or_else(|| Manifest {
            revision: name.unwrap_or_else(|| "policy".to_owned()),
            roots: vec!["writ".to_owned()],
            rego_version: 1,
            metadata: Metadata {
                seq: u64::try_from(now_ms).unwrap_or_default(),
                not_after_ms: i64::MAX,
                min_engine: ENGINE,
            },
        })
    }
}

fn problems(folder: &Path, problems: &[Problem]) -> Failure {
    for problem in problems {
        note(&format!("{}/{}", folder.display(), output::clean(&problem.to_string())));
    }
    let code = problems.first().map_or("policy.lint", |problem| problem.code);
    Failure::Usage(format!("{} problems; see docs/errors/{code}.md", problems.len()))
}

fn checked(folder: &Path, manifest: &Manifest, files: &Files) -> Result<Published, Failure> {
    source_check(manifest, files, SystemClock.now_ms()).map_err(|found| problems(folder, &found))
}

fn check(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let folder = required(matches, "folder")?;
    let sources = sources(folder)?;
    let manifest = sources.manifest(folder, SystemClock.now_ms());
    checked(folder, &manifest, &sources.files)?;
    let value = json!({
        "folder": folder, "revision": manifest.revision, "files": sources.files.keys().collect::<Vec<_>>(),
        "left_out": sources.left_out,
    });
    let mut lines = format!("{} would be taken: {} files", folder.display(), sources.files.len());
    if !sources.left_out.is_empty() {
        lines.push_str(&format!("; not part of it: {}", output::clean(&sources.left_out.join(", "))));
    }
    printed(&value, &lines, format)
}

fn test(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let folder = required(matches, "folder")?;
    let sources = sources(folder)?;
    let manifest = sources.manifest(folder, SystemClock.now_ms());
    let published = checked(folder, &manifest, &sources.files)?;
    let file = matches.get_one::<PathBuf>("cases").cloned().unwrap_or_else(|| folder.join("cases.json"));
    let cases: Vec<Case> = serde_json::from_slice(&read(&file, FILE_BYTES_MAX)?)
        .map_err(|error| Failure::Usage(format!("{} holds no cases: {}", file.display(), chain(&error))))?;
    let failures = source_test(&published, &cases);
    let value = json!({"cases": cases.len(), "failures": failures});
    let mut lines: Vec<String> =
        failures.iter().map(|failure| format!("FAILED  {}", output::clean(failure))).collect();
    lines.push(format!("{} cases, {} failed", cases.len(), failures.len()));
    printed(&value, &lines.join("\n"), format)?;
    if failures.is_empty() { Ok(()) } else { Err(Failure::Other(format!("{} cases failed", failures.len()))) }
}

fn sign(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let (folder, key, out) =
        (required(matches, "folder")?, required(matches, "key")?, required(matches, "out")?);
    let scope = matches.get_one::<String>("scope").map(String::as_str).unwrap_or_default();
    let platform = scope == governor::policy::defaults::PLATFORM_SCOPE;
    if !platform && TenantId::parse(scope).ok().is_none_or(|tenant| tenant == TenantId::platform()) {
        return Err(Failure::Usage("--scope is a tenant's id, such as ten_acme, or `platform`".into()));
    }
    keyfile::private(key)?;
    // A constant that fits.
    let text = Zeroizing::new(String::from_utf8(read(key, PEM_BYTES_MAX as u64)?).unwrap_or_default());
    let signer =
        Signer::from_pem(&text).map_err(|error| Failure::Usage(format!("{}: {error}", key.display())))?;
    let now_ms = SystemClock.now_ms();
    let sources = sources(folder)?;
    let mut manifest = sources.manifest(folder, now_ms);
    if let Some(seq) = matches.get_one::<u64>("seq") {
        manifest.metadata.seq = *seq;
    }
    if let Some(revision) = matches.get_one::<String>("revision") {
        manifest.revision.clone_from(revision);
    }
    let days = matches.get_one::<i64>("days").copied().unwrap_or(1);
    manifest.metadata.not_after_ms = manifest.metadata.not_after_ms.min(now_ms + days * DAY_MS);
    checked(folder, &manifest, &sources.files)?;
    let refused =
        |error: governor::policy::BundleError| Failure::Usage(format!("{error} ({})", error.code()));
    let bytes =
        signer.sign(&bundle_build(&manifest, &sources.files).map_err(refused)?, scope).map_err(refused)?;
    if bytes.len() > BUNDLE_BYTES_MAX {
        let why = format!("the bundle has {} bytes, and {BUNDLE_BYTES_MAX} are taken", bytes.len());
        return Err(Failure::Usage(format!("{why} (policy.bundle_too_large)")));
    }
    fs::write(out, &bytes)
        .map_err(|error| Failure::Usage(format!("{} cannot be written: {error}", out.display())))?;
    let digest = hex::encode(&sha256(&bytes));
    let Metadata { seq, not_after_ms, .. } = manifest.metadata;
    let value = json!({
        "bundle": out, "scope": scope, "policy_key": signer.id(), "revision": manifest.revision, "seq": seq,
        "not_after_ms": not_after_ms, "digest": digest, "left_out": sources.left_out,
    });
    let lines = format!(
        "{}\n  scope     {scope}\n  key       {}\n  revision  {}\n  seq       {seq}\n  until     {not_after_ms} ms\n  digest    {digest}\nPublish it: writ policy publish --bundle {}",
        out.display(),
        signer.id(),
        output::clean(&manifest.revision),
        out.display()
    );
    printed(&value, &lines, format)
}
