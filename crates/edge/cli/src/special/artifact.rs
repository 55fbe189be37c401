//! The offline half of `writ artifact`: keys, signatures, and looking at them without an installation.
//!
//! Signing is not a call to the installation, and the private key never comes near one. `verify` asks the very code that
//! installing asks, with keys from a trust file or a key's public half, and never with keys from the artifact.

use super::keyfile::{self, Drawn};
use super::verify::trust_read;
use super::{printed, required};
use crate::exit::Failure;
use crate::output::{self, Format};
use act::{Ids as _, SystemIds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Arg, ArgGroup, ArgMatches, Command, value_parser};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use flows::artifact::{self, ARTIFACT_BYTES_MAX, Kind, installation_id, key};
use flows::connector::manifest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use store::files;
use zeroize::Zeroizing;

/// What a key file begins with.
const LABEL: &str = "writ-artifact-ed25519-v1 ";
/// Largest key file, in bytes.
const KEY_BYTES_MAX: usize = 4_096;

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
}

/// The commands that join the noun `artifact`.
pub fn commands() -> Vec<Command> {
    let file =
        |help: &'static str| Arg::new("file").required(true).value_parser(value_parser!(PathBuf)).help(help);
    vec![
        Command::new("keygen")
            .about("Make a key that signs artifacts: FILE, and FILE.pub to register")
            .arg(path("out", "Where the private key goes; it must not exist").required(true)),
        Command::new("sign")
            .about("Check a connector's manifest and sign it, for `writ artifact publish` and `writ connector install`")
            .arg(file("The manifest, YAML"))
            .arg(path("key", "The private key, as keygen wrote it").required(true))
            .arg(path("out", "Where the artifact goes; it must not exist").required(true)),
        Command::new("verify")
            .about("Verify a signed artifact offline")
            .arg(file("The artifact, as `sign` wrote it or `writ --output json artifact show` printed it"))
            .arg(path("trust", "The trust file of the installation that signed it"))
            .arg(path("key", "The public key of whoever signed it, as keygen wrote it"))
            .group(ArgGroup::new("whom").args(["trust", "key"]).required(true).multiple(true)),
    ]
}

/// Runs one of [`commands`]; `None` if `verb` is none of them.
pub fn run(verb: &str, matches: &ArgMatches, format: Format) -> Option<Result<(), Failure>> {
    Some(match verb {
        "keygen" => keygen(matches, format),
        "sign" => sign(matches, format),
        "verify" => verify(matches, format),
        _ => return None,
    })
}

fn read(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    // A usize fits a u64 on every machine that this runs on.
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() > bytes_max {
        return Err(Failure::Usage(format!("{} has more than {bytes_max} bytes", path.display())));
    }
    Ok(text)
}

fn keygen(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let secret = Zeroizing::new(SystemIds.entropy());
    let verifying = SigningKey::from_bytes(&secret).verifying_key();
    let drawn = Drawn {
        member: "artifact_key",
        id: &key::id(&verifying),
        key: &Zeroizing::new(format!("{LABEL}{}\n", BASE64.encode(*secret)).into_bytes()),
        public: &format!("{}\n", BASE64.encode(verifying.as_bytes())).into_bytes(),
        register: "writ artifact-key register",
    };
    keyfile::keygen(required(matches, "out")?, &drawn, format)
}

fn signing_key(path: &Path) -> Result<SigningKey, Failure> {
    let wrong = || Failure::Usage(format!("{} is no key that `writ artifact keygen` wrote", path.display()));
    keyfile::private(path)?;
    let text = Zeroizing::new(read(path, KEY_BYTES_MAX)?);
    let encoded = text.trim().strip_prefix(LABEL.trim_end()).ok_or_else(wrong)?.trim();
    let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| wrong())?);
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| wrong())?);
    Ok(SigningKey::from_bytes(&bytes))
}

fn sign(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let (file, out) = (required(matches, "file")?, required(matches, "out")?);
    let signing = signing_key(required(matches, "key")?)?;
    let manifest = manifest::parse(&read(file, ARTIFACT_BYTES_MAX)?).map_err(|problems| {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("{} {}", problem.place, problem.message)).collect();
        Failure::Usage(format!("{} is no manifest: {}", file.display(), lines.join("; ")))
    })?;
    let payload = manifest.canonical().map_err(|error| Failure::Other(error.to_string()))?;
    let keyid = key::id(&signing.verifying_key());
    let text = artifact::seal(Kind::Connector, &payload, &keyid, |message| signing.sign(message).to_bytes());
    keyfile::made(out, files::create_public(out, format!("{text}\n").as_bytes()))?;
    let digest = kernel::hex::encode(&kernel::sha256(&payload));
    let lines = format!(
        "{}@{}\n  digest: {digest}\n  key:    {keyid}\n  file:   {}",
        manifest.name,
        manifest.version,
        out.display()
    );
    let value = json!({"name": manifest.name, "version": manifest.version, "digest": digest, "key": keyid, "file": out});
    printed(&value, &lines, format)
}

fn verify(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let mut keys: BTreeMap<String, VerifyingKey> = BTreeMap::new();
    if let Some(path) = matches.get_one::<PathBuf>("trust") {
        for row in trust_read(path)?.evidence_keys {
            // A trust file is read with its keys checked.
            let verifying = key::parse(&row.key).map_err(|fault| Failure::Usage(fault.message))?;
            keys.insert(installation_id(&verifying), verifying);
        }
    }
    if let Some(path) = matches.get_one::<PathBuf>("key") {
        let verifying = key::parse(&read(path, KEY_BYTES_MAX)?)
            .map_err(|fault| Failure::Usage(format!("{}: {}", path.display(), fault.message)))?;
        keys.insert(key::id(&verifying), verifying);
    }
    // Envelope, or the reply that holds one.
    let text = read(required(matches, "file")?, 2 * ARTIFACT_BYTES_MAX)?;
    let shown: Option<Value> = serde_json::from_str(&text).ok();
    let inner = shown.as_ref().and_then(|shown| shown["envelope"].as_str()).map(str::to_owned);
    let opened = artifact::open(inner.as_deref().unwrap_or(text.trim()), &keys)
        .map_err(|error| Failure::Evidence(format!("{}: {error}", act::Coded::code(&error))))?;
    let payload: Value =
        serde_json::from_slice(&opened.payload).map_err(|error| Failure::Other(error.to_string()))?;
    let body = if opened.kind == Kind::Workflow { &payload["workflow"] } else { &payload };
    let text = |name: &str| body[name].as_str().map_or_else(String::new, output::clean);
    let (name, version) = (text("name"), text("version"));
    let lines = format!(
        "Valid: {} {name} {version}\n  digest: {}\n  key:    {}\n\nNot proven by it: that the text is good, or that nobody has yanked it.",
        opened.kind.as_str(),
        opened.digest,
        opened.keyid
    );
    let value = json!({"kind": opened.kind, "name": name, "version": version, "digest": opened.digest, "key": opened.keyid,
                       "connectors": payload["connectors"]});
    printed(&value, &lines, format)
}
