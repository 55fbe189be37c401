//! Backups: a copy of the folder as it was at one moment, made while the server works, and putting one back.
//!
//! A backup is a folder, so that whatever moves files moves it, and it is whole or not there: everything is written under
//! another name, flushed, and renamed.
//!
//! | file | what |
//! |---|---|
//! | `manifest.json` | what the rest is: files with digests, logs with size and root, keys, epoch, time |
//! | `manifest.sig` | the installation's evidence key on the manifest |
//! | `writ.db` | the database of one moment: records, facts, logs, jobs; secrets as they are sealed |
//! | `evidence/` | exported bundles |
//! | `keys.sealed` | the installation's keys, sealed under the recovery key ([`custody::recovery`]), which is in no backup |
//!
//! What is left out: `admin.key` and the recovery key, because they are credentials in clear; locks; the mark.
//!
//! A backup that nobody has read back is a hope. So [`create`] reads its copy as [`verify`] does before it says that there
//! is one: every fact hashed, every log built up to its head, every checkpoint held against it. [`restore`] does all of it
//! again, puts the copy into an empty place, and writes into the database that it was put back: until somebody opens an
//! epoch nothing is done and nothing signed ([`crate::gate`]).

use crate::assemble::{EVIDENCE_FOLDER, KEYS_FOLDER};
use crate::config::Config;
use act::{Class, Coded, Fault, Ids, Plan, Route, SystemIds, Target, Verb, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::{Keyring, KeyringError, RecoveryKey};
use ed25519_dalek::{Signature, VerifyingKey};
use futures::FutureExt as _;
use kernel::note::{Checkpoint, VerifierKey};
use kernel::{Id, TenantId, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::files;
use store::sqlite::{self, AuditError, Audited, DATABASE, OpenError};

/// The recovery key, in the installation's folder; in no backup.
pub const RECOVERY_FILE: &str = "backup.key";
const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "manifest.sig";
const SEALED_KEYS: &str = "keys.sealed";
/// In the name of a backup that is being made.
const PARTIAL: &str = ".partial";
/// Largest manifest read, in bytes: some hundred thousand bundles and logs.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Most files of a backup.
const FILES_MAX: usize = 200_000;
/// What is signed besides the manifest, so that the signature says nothing else anywhere.
const SIGNED_AS: &[u8] = b"writ backup manifest v1\n";

/// Why a backup cannot be made, believed or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read or written.
    #[error("{0} cannot be read or written")]
    File(PathBuf, #[source] io::Error),
    /// Something is in the place of what would be made.
    #[error("{0} is there already and not empty; nothing is ever written over")]
    Taken(PathBuf),
    /// Something in it is not what the manifest says.
    #[error("the backup is not whole: {0}")]
    Invalid(String),
    /// A log in it does not come to what it says.
    #[error("the backup's database does not hold together")]
    Audit(#[from] AuditError),
    /// The database cannot be copied or opened.
    #[error("the database cannot be used")]
    Store(#[from] OpenError),
    /// The keys or the recovery key cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// Another one is being made.
    #[error("another backup is being made")]
    Running,
}

impl Coded for BackupError {
    fn code(&self) -> &'static str {
        match self {
            BackupError::File(..) | BackupError::Taken(_) | BackupError::Store(_) => "edge.backup_failed",
            BackupError::Invalid(_) | BackupError::Audit(_) => "edge.backup_invalid",
            BackupError::Keys(error) => error.code(),
            BackupError::Running => "edge.backup_running",
        }
    }
    fn class(&self) -> Class {
        match self {
            BackupError::File(..) | BackupError::Store(_) | BackupError::Keys(_) => Class::Unavailable,
            BackupError::Taken(_) => Class::Conflict,
            BackupError::Invalid(_) | BackupError::Audit(_) => Class::Internal,
            BackupError::Running => Class::Contention,
        }
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form, 1.
    pub version: u32,
    /// The program that made it.
    pub writ: String,
    /// When it was begun, milliseconds UTC.
    pub created_at_ms: i64,
    /// Public key of the logs, hexadecimal.
    pub log_key: String,
    /// Public key of bundles, which signs the manifest, hexadecimal.
    pub evidence_key: String,
    /// Id of the recovery key that opens `keys.sealed`.
    pub recovery_key: String,
    /// Every log, in order of tenants.
    pub logs: Vec<LogRow>,
    /// Every other file, in order of names.
    pub files: Vec<FileRow>,
}

/// A log in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogRow {
    /// Its origin; the last part is its epoch.
    pub origin: String,
    /// How many facts.
    pub size: u64,
    /// Root over them, hexadecimal.
    pub root: String,
    /// How many checkpoints were held against it.
    pub checkpoints: u64,
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRow {
    /// Its name, with `/`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A backup that holds together.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it says.
    pub manifest: Manifest,
    /// SHA-256 of the manifest in hexadecimal: names the backup.
    pub digest: String,
}

impl Verified {
    /// Bytes of all files that the manifest lists.
    pub fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.bytes).sum()
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError::File(path.to_owned(), error)
}

fn folder_new(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().mode(0o700).create(path).map_err(file_error(path))
}

fn folder_flush(path: &Path) -> Result<(), BackupError> {
    files::folder_flush(path).map_err(file_error(path))
}

fn file_new(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    files::create(path, bytes).map_err(file_error(path))
}

/// Hashes what `from` gives and hands it on to `to`; returns how much it was, and its digest.
fn hashed(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<(u64, String)> {
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            let digest: [u8; 32] = hash.finalize().into();
            return Ok((bytes, hex::encode(&digest)));
        }
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

fn row(folder: &Path, name: &str) -> Result<FileRow, BackupError> {
    let path = folder.join(name);
    let hashed = File::open(&path).and_then(|mut file| hashed(&mut file, &mut io::sink()));
    let (bytes, sha256) = hashed.map_err(file_error(&path))?;
    Ok(FileRow { name: name.to_owned(), bytes, sha256 })
}

/// Copies a file to a new one, flushed.
fn copied(from: &Path, to: &Path, name: &str) -> Result<FileRow, BackupError> {
    let mut source = File::open(from).map_err(file_error(from))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut made = made.map_err(file_error(to))?;
    let (bytes, sha256) = hashed(&mut source, &mut made).map_err(file_error(to))?;
    made.sync_all().map_err(file_error(to))?;
    Ok(FileRow { name: name.to_owned(), bytes, sha256 })
}

/// A folder under another name until it is whole. The name is one that nobody else has: two copies to one target must
/// not meet in it, and nothing is removed that this one did not make.
struct Staged {
    path: PathBuf,
    kept: bool,
}

impl Staged {
    fn beside(target: &Path, ending: &str) -> Result<Staged, BackupError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!("{ending}-{}", hex::encode(&SystemIds.entropy()[..8])));
        let path = target.with_file_name(name);
        folder_new(&path)?;
        Ok(Staged { path, kept: false })
    }

    fn become_(mut self, target: &Path) -> Result<(), BackupError> {
        folder_flush(&self.path)?;
        fs::rename(&self.path, target).map_err(file_error(target))?;
        self.kept = true;
        folder_flush(files::above(target))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Looks through a database: every checkpoint is to be signed by `log_key` for its own log, and to say what the facts say.
fn audited(database: &Path, log_key: &VerifyingKey) -> Result<Vec<Audited>, BackupError> {
    let found = sqlite::audit(database, &mut |tenant, kept, root| {
        let origin = kept.note.lines().next().unwrap_or_default();
        if origin.rsplit('/').nth(1) != Some(tenant.as_str()) {
            return Err("a checkpoint of another log".to_owned());
        }
        let key = VerifierKey::new(origin, *log_key).map_err(|error| error.to_string())?;
        let checkpoint =
            Checkpoint::open(&kept.note, &key).map_err(|error| format!("its checkpoint: {error}"))?;
        if checkpoint.size == kept.size && checkpoint.root == *root {
            Ok(())
        } else {
            Err("its checkpoint says another size or root".to_owned())
        }
    })?;
    Ok(found)
}

fn logs(found: &[Audited]) -> Vec<LogRow> {
    let row = |log: &Audited| LogRow {
        origin: log.origin.clone(),
        size: log.size,
        root: hex::encode(&log.root),
        checkpoints: log.checkpoints,
    };
    found.iter().map(row).collect()
}

/// Whether nothing stands in the way of making `target`: it is not there, or is an empty folder.
fn free(target: &Path) -> Result<(), BackupError> {
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => fs::remove_dir(target).map_err(file_error(target)),
            Some(_) => Err(BackupError::Taken(target.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(BackupError::Taken(target.to_owned()))
        }
        Err(error) => Err(BackupError::File(target.to_owned(), error)),
    }
}

/// Makes a backup of the installation in `folder` as the new folder `to`, whether or not a server works there.
///
/// # Errors
/// See [`BackupError`]; then nothing is left at `to`.
pub fn create(
    folder: &Path,
    keyring: &Keyring,
    to: &Path,
    ids: &dyn Ids,
    now_ms: i64,
) -> Result<Verified, BackupError> {
    free(to)?;
    let recovery = RecoveryKey::open_or_create(&folder.join(RECOVERY_FILE), ids)?;
    let staged = Staged::beside(to, PARTIAL)?;
    let within = |name: &str| staged.path.join(name);
    // The database first: a bundle's file is written before the record that names it, so none is missed.
    sqlite::copy(folder, &within(DATABASE))?;
    fs::set_permissions(within(DATABASE), Permissions::from_mode(0o600)).map_err(file_error(to))?;
    let found = audited(&within(DATABASE), &keyring.log_key())?;
    let mut files = vec![row(&staged.path, DATABASE)?];
    folder_new(&within(EVIDENCE_FOLDER))?;
    files.extend(bundles(&folder.join(EVIDENCE_FOLDER), &within(EVIDENCE_FOLDER))?);
    folder_flush(&within(EVIDENCE_FOLDER))?;
    file_new(&within(SEALED_KEYS), &recovery.seal(&folder.join(KEYS_FOLDER), ids)?)?;
    files.push(row(&staged.path, SEALED_KEYS)?);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest {
        version: 1,
        writ: env!("CARGO_PKG_VERSION").to_owned(),
        created_at_ms: now_ms,
        log_key: hex::encode(keyring.log_key().as_bytes()),
        evidence_key: hex::encode(keyring.evidence_key().as_bytes()),
        recovery_key: recovery.id().to_owned(),
        logs: logs(&found),
        files,
    };
    // Plain data with text keys always serialises.
    let mut text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    text.push(b'\n');
    file_new(&within(MANIFEST), &text)?;
    let signature = keyring.evidence_sign(&[SIGNED_AS, &text].concat());
    file_new(&within(SIGNATURE), format!("{}\n", BASE64.encode(signature)).as_bytes())?;
    staged.become_(to)?;
    Ok(Verified { manifest, digest: hex::encode(&kernel::sha256(&text)) })
}

/// [`create`] of a folder whose server nobody asks: with the keys that lie there.
///
/// # Errors
/// See [`BackupError`].
pub fn create_of(folder: &Path, to: &Path, ids: &dyn Ids, now_ms: i64) -> Result<Verified, BackupError> {
    create(folder, &Keyring::open(&folder.join(KEYS_FOLDER))?, to, ids, now_ms)
}

/// [`verify`], and that the backup is of the installation in `folder`.
///
/// # Errors
/// See [`BackupError`].
pub fn verify_of(backup: &Path, folder: &Path) -> Result<Verified, BackupError> {
    verify(backup, Some(&Keyring::open(&folder.join(KEYS_FOLDER))?))
}

/// Copies the exported bundles; one whose bytes are not those that its name says is left out, and said.
fn bundles(from: &Path, to: &Path) -> Result<Vec<FileRow>, BackupError> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::File(from.to_owned(), error)),
    };
    let mut rows = Vec::new();
    for entry in entries {
        let name = entry.map_err(file_error(from))?.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".evidence.tar")) else { continue };
        if rows.len() == FILES_MAX {
            return Err(BackupError::Invalid(format!("there are more than {FILES_MAX} bundles")));
        }
        let row = copied(&from.join(name), &to.join(name), &format!("{EVIDENCE_FOLDER}/{name}"))?;
        if name.strip_suffix(".evidence.tar") == Some(row.sha256.as_str()) {
            rows.push(row);
        } else {
            tracing::warn!(name, "a bundle is not the one that its name says, and not in the backup");
            fs::remove_file(to.join(name)).map_err(file_error(to))?;
        }
    }
    Ok(rows)
}

/// Verifies a backup: every file, every log, every checkpoint, and the signature on the manifest. By itself this says that
/// the backup is whole and made by whoever has the keys that it names; `keyring` says that those are the installation's.
///
/// # Errors
/// See [`BackupError`].
pub fn verify(backup: &Path, keyring: Option<&Keyring>) -> Result<Verified, BackupError> {
    let invalid = |what: &str| BackupError::Invalid(what.to_owned());
    let read = |name: &str| {
        let path = backup.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes));
        read.map_err(file_error(&path))?;
        Ok::<Vec<u8>, BackupError>(bytes)
    };
    let text = read(MANIFEST)?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|_| invalid("the manifest has other members"))?;
    if manifest.version != 1 {
        return Err(invalid("the manifest is of another version"));
    }
    let key = |text: &str| {
        let bytes = hex::decode32(text).ok_or_else(|| invalid("a key is malformed"))?;
        VerifyingKey::from_bytes(&bytes).map_err(|_| invalid("a key is malformed"))
    };
    let (log_key, evidence_key) = (key(&manifest.log_key)?, key(&manifest.evidence_key)?);
    if keyring.is_some_and(|keys| keys.log_key() != log_key || keys.evidence_key() != evidence_key) {
        return Err(invalid("it was made with other keys than the ones given"));
    }
    let signature = read(SIGNATURE)?;
    let signature: Option<[u8; 64]> =
        BASE64.decode(signature.trim_ascii_end()).ok().and_then(|bytes| bytes.try_into().ok());
    let signature = signature.ok_or_else(|| invalid("the manifest's signature is malformed"))?;
    let signed = evidence_key.verify_strict(&[SIGNED_AS, &text].concat(), &Signature::from_bytes(&signature));
    signed.map_err(|_| invalid("the manifest's signature does not verify"))?;

    let here: BTreeSet<String> = names(backup)?;
    let listed: BTreeSet<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
    let own = [MANIFEST, SIGNATURE].map(str::to_owned);
    if let Some(name) = here.iter().find(|name| !listed.contains(*name) && !own.contains(name)) {
        return Err(BackupError::Invalid(format!("{name} is not in the manifest")));
    }
    for needed in [DATABASE, SEALED_KEYS] {
        if !listed.contains(needed) {
            return Err(BackupError::Invalid(format!("the manifest lacks {needed}")));
        }
    }
    for file in &manifest.files {
        // Looked up among what was found, so that a name leads nowhere else.
        if !here.contains(&file.name) || row(backup, &file.name)? != *file {
            return Err(BackupError::Invalid(format!("{} is missing or changed", file.name)));
        }
    }
    if logs(&audited(&backup.join(DATABASE), &log_key)?) != manifest.logs {
        return Err(invalid("the logs are not those of the manifest"));
    }
    Ok(Verified { digest: hex::encode(&kernel::sha256(&text)), manifest })
}

/// Names of the regular files of a backup, one folder deep.
fn names(backup: &Path) -> Result<BTreeSet<String>, BackupError> {
    let mut names = BTreeSet::new();
    for (folder, prefix) in [(backup.to_owned(), ""), (backup.join(EVIDENCE_FOLDER), "evidence/")] {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if !prefix.is_empty() && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(BackupError::File(folder, error)),
        };
        for entry in entries {
            let entry = entry.map_err(file_error(&folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(file_error(&folder))?;
            if kind.is_dir() && prefix.is_empty() && name == EVIDENCE_FOLDER {
                continue;
            }
            if !kind.is_file() || names.len() == FILES_MAX {
                return Err(BackupError::Invalid(format!("{prefix}{name} is no file, or one too many")));
            }
            names.insert(format!("{prefix}{name}"));
        }
    }
    Ok(names)
}

/// Puts a backup into the new or empty folder `to`, as an installation that does nothing until an epoch is opened.
/// `key` is the file of the recovery key.
///
/// # Errors
/// See [`BackupError`]; then nothing is left at `to`.
pub fn restore(backup: &Path, key: &Path, to: &Path) -> Result<Verified, BackupError> {
    let recovery = RecoveryKey::open(key)?;
    free(to)?;
    let staged = Staged::beside(to, ".restoring")?;
    let within = |name: &str| staged.path.join(name);
    let sealed_at = backup.join(SEALED_KEYS);
    let mut sealed = Vec::new();
    let read = File::open(&sealed_at).and_then(|file| file.take(1 << 20).read_to_end(&mut sealed));
    read.map_err(file_error(&sealed_at))?;
    recovery.unseal(&sealed, &within(KEYS_FOLDER))?;
    let keyring = Keyring::open(&within(KEYS_FOLDER))?;
    let verified = verify(backup, Some(&keyring))?;
    folder_new(&within(EVIDENCE_FOLDER))?;
    for file in verified.manifest.files.iter().filter(|file| file.name != SEALED_KEYS) {
        // What was verified is what is put there, whoever else can write to the backup.
        if copied(&backup.join(&file.name), &within(&file.name), &file.name)? != *file {
            return Err(BackupError::Invalid(format!("{} has changed meanwhile", file.name)));
        }
    }
    folder_flush(&within(EVIDENCE_FOLDER))?;
    recovery.keep(&within(RECOVERY_FILE))?;
    let made = kernel::calendar::text(verified.manifest.created_at_ms);
    sqlite::put_back(&staged.path, &format!("restored from the backup of {made} UTC"))?;
    staged.become_(to)?;
    Ok(verified)
}

/// Makes backups of this installation, one at a time.
#[derive(Clone)]
pub struct Backups {
    config: Arc<Config>,
    keyring: Arc<Keyring>,
    /// Not the harness, which holds the verbs, which hold this.
    ids: Arc<dyn Ids>,
    running: Arc<tokio::sync::Mutex<()>>,
}

impl Backups {
    /// Backups of the installation of `config`.
    pub fn new(config: &Arc<Config>, keyring: Arc<Keyring>, ids: Arc<dyn Ids>) -> Backups {
        swept(&config.backups());
        Backups { config: config.clone(), keyring, ids, running: Arc::default() }
    }

    /// Makes one, beside all other work. Returns where it is.
    async fn make(&self, id: &Id, at_ms: i64) -> Result<(PathBuf, Verified), Fault> {
        let running = self.running.clone().try_lock_owned().map_err(|_| Fault::from(BackupError::Running))?;
        let (config, keyring, ids) = (self.config.clone(), self.keyring.clone(), self.ids.clone());
        let to = config.backups().join(id.as_str());
        let made = tokio::task::spawn_blocking(move || {
            // Held by the work itself: whoever asked may stop waiting.
            let _running = running;
            let above = config.backups();
            DirBuilder::new().recursive(true).mode(0o700).create(&above).map_err(file_error(&above))?;
            let verified = create(&config.folder, &keyring, &to, &*ids, at_ms)?;
            Ok::<_, BackupError>((to, verified))
        });
        let made = made.await.map_err(act::internal)?;
        made.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a backup could not be made");
            error.into()
        })
    }
}

/// Removes what a process that died has left of backups that it was making.
fn swept(backups: &Path) {
    for entry in fs::read_dir(backups).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("bak_") && name.contains(PARTIAL)) {
            tracing::warn!(folder = ?entry.path(), "a backup was not finished; its folder is removed");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Arguments of `edge.backup.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {}

/// The verbs.
pub(crate) fn verbs(backups: &Backups) -> Vec<Verb> {
    let backups = backups.clone();
    vec![Verb {
        act: "edge.backup.create",
        summary: "Makes a backup of the installation, in the folder that the configuration names",
        args: || schemars::schema_for!(Create).into(),
        writes: &[],
        facts: &["edge.backup.created"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, args, ctx| {
            async move {
                let Create {} = parse(args)?;
                let mut target = Target::of("edge.backup", ctx.tenant.id());
                target.preview = vec![("Back up".into(), "the whole installation, with every tenant".into())];
                Ok(target)
            }
            .boxed()
        }),
        // As with exports: each part can be repeated, and one that is not committed leaves a folder that nobody names.
        plan: Arc::new(move |_, args, stamp| {
            let backups = backups.clone();
            async move {
                let Create {} = parse(args)?;
                if stamp.ctx.tenant != TenantId::platform() {
                    return Err(Fault::not_found(
                        "installation in this tenant; the platform's own tenant has it",
                    ));
                }
                let id = stamp.id("bak");
                let (folder, made) = backups.make(&id, stamp.at_ms).await?;
                let said = json!({"backup": id, "digest": made.digest, "bytes": made.bytes()});
                let mut outcome = said.clone();
                outcome["folder"] = folder.to_string_lossy().into();
                outcome["logs"] = made.manifest.logs.len().into();
                outcome["recovery_key"] = made.manifest.recovery_key.clone().into();
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.fact(stamp.fact("edge.backup.created", &id, ("edge.backup", &id), said));
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// The route.
pub(crate) fn route() -> Route {
    let summary = "Make a backup of the running installation (of the platform)";
    Route::post("/v1/backups", "backup_create", summary, "edge.backup.create")
}
