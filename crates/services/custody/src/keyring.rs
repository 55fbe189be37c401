//! The installation's own keys.
//!
//! Four keys, because they are trusted for four different things and stolen in different ways:
//!
//! | file | kind | what it is for |
//! |---|---|---|
//! | `log.key` | Ed25519 | signs checkpoints of the tenants' logs |
//! | `evidence.key` | Ed25519 | signs evidence bundles; never the log's key, so that whoever can export cannot rewrite history |
//! | `policy.key` | ECDSA P-256 | signs the policy bundles that ship with the installation |
//! | `seal.key` | 32 random bytes | the key-encryption key of secrets |
//!
//! `keyring.json` beside them is public: it says when the keys were made and what their public halves are, and every start
//! compares. So a key file that was swapped or restored from somewhere else is found before it signs anything.
//!
//! All of them come into being together: they are written to a folder of another name, flushed, and the folder is renamed.
//! A crash leaves either no keys or all of them; two processes that start at once end up with the same ones. A folder that
//! exists and lacks a file is refused: a fresh log key in an old installation would look like tampering to every verifier.
//!
//! Files are readable by their owner alone (0600, the folder 0700), and any that others can read is refused, because by
//! then others may have read it. Nothing here prints a key; errors name the file and not its content.

use crate::seal::{Place, SealKey, Unsealable};
use crate::secret::Secret;
use act::{Class, Coded, Ids};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use kernel::note::{Checkpoint, NoteError, VerifierKey};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use store::files;
use zeroize::Zeroizing;

/// Largest key file read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// How many candidates for a P-256 scalar are tried; one in 2³² fails.
const SCALAR_TRIES_MAX: usize = 8;

const LOG: &str = "log.key";
const EVIDENCE: &str = "evidence.key";
const POLICY: &str = "policy.key";
const SEAL: &str = "seal.key";
const PUBLIC: &str = "keyring.json";
/// All of them, in the order of their names.
pub(crate) const FILES: &[&str] = &[EVIDENCE, PUBLIC, LOG, POLICY, SEAL];

/// Why the keys cannot be used. Messages name files of the keys folder and never hold their content.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Others than the owner can read a file.
    #[error("{file} can be read by others than its owner")]
    Exposed {
        /// The file.
        file: &'static str,
    },
    /// The folder is there and a file is not.
    #[error("the keys folder lacks {file}")]
    Missing {
        /// The file.
        file: &'static str,
    },
    /// A file is malformed, or not the one that belongs to this keyring.
    #[error("{file} is damaged or does not belong to this keyring")]
    Damaged {
        /// The file.
        file: &'static str,
    },
    /// The folder cannot be read or written.
    #[error("{file} cannot be read or written")]
    Storage {
        /// The file, or what was being done.
        file: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Coded for KeyringError {
    fn code(&self) -> &'static str {
        match self {
            KeyringError::Exposed { .. } => "custody.key_exposed",
            KeyringError::Missing { .. } => "custody.key_missing",
            KeyringError::Damaged { .. } => "custody.key_damaged",
            KeyringError::Storage { .. } => "custody.key_storage",
        }
    }
    fn class(&self) -> Class {
        Class::Unavailable
    }
}

/// The public description of the keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Public {
    version: u32,
    created_at_ms: i64,
    /// Ed25519 public keys and the SEC1 point of the P-256 key, base64.
    log: String,
    evidence: String,
    policy: String,
    /// Id of the key-encryption key.
    seal: String,
}

/// The installation's keys.
pub struct Keyring {
    log: SigningKey,
    evidence: SigningKey,
    policy: p256::ecdsa::SigningKey,
    seal: SealKey,
    created_at_ms: i64,
}

impl Keyring {
    /// Opens the keys in `folder`, which nothing else lives in; makes them if the folder does not exist. `ids` is the
    /// source of randomness, `now_ms` is kept as the time of creation.
    ///
    /// # Errors
    /// If a file is missing, damaged, readable by others, or the folder cannot be read or written.
    pub fn open_or_create(folder: &Path, ids: &dyn Ids, now_ms: i64) -> Result<Keyring, KeyringError> {
        if !folder.exists() {
            create(folder, ids, now_ms)?;
        }
        Keyring::open(folder)
    }

    /// Opens the keys in `folder`.
    ///
    /// # Errors
    /// As [`Keyring::open_or_create`].
    pub fn open(folder: &Path) -> Result<Keyring, KeyringError> {
        let public = read(folder, PUBLIC)?;
        let public: Public =
            serde_json::from_slice(&public).map_err(|_| KeyringError::Damaged { file: PUBLIC })?;
        if public.version != 1 {
            return Err(KeyringError::Damaged { file: PUBLIC });
        }
        let keyring = Keyring {
            log: SigningKey::from_bytes(&*key(folder, LOG)?),
            evidence: SigningKey::from_bytes(&*key(folder, EVIDENCE)?),
            policy: p256::ecdsa::SigningKey::from_slice(&*key(folder, POLICY)?)
                .map_err(|_| KeyringError::Damaged { file: POLICY })?,
            seal: SealKey::new(key(folder, SEAL)?),
            created_at_ms: public.created_at_ms,
        };
        let found = keyring.public();
        for (file, said, is) in [
            (LOG, &public.log, &found.log),
            (EVIDENCE, &public.evidence, &found.evidence),
            (POLICY, &public.policy, &found.policy),
            (SEAL, &public.seal, &found.seal),
        ] {
            if said != is {
                return Err(KeyringError::Damaged { file });
            }
        }
        Ok(keyring)
    }

    fn public(&self) -> Public {
        Public {
            version: 1,
            created_at_ms: self.created_at_ms,
            log: BASE64.encode(self.log.verifying_key().as_bytes()),
            evidence: BASE64.encode(self.evidence.verifying_key().as_bytes()),
            policy: BASE64.encode(self.policy.verifying_key().to_sec1_bytes()),
            seal: self.seal.id().to_owned(),
        }
    }

    /// When the keys were made, milliseconds UTC.
    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// The public key of the log.
    pub fn log_key(&self) -> VerifyingKey {
        self.log.verifying_key()
    }

    /// The key that verifies checkpoints of the log `origin`.
    ///
    /// # Errors
    /// If `origin` cannot name a key.
    pub fn log_verifier(&self, origin: &str) -> Result<VerifierKey, NoteError> {
        VerifierKey::new(origin, self.log.verifying_key())
    }

    /// Signs a checkpoint under the name of its origin.
    ///
    /// # Errors
    /// If the origin cannot name a key.
    pub fn checkpoint_sign(&self, checkpoint: &Checkpoint) -> Result<String, NoteError> {
        checkpoint.sign(&self.log)
    }

    /// The public key of evidence bundles.
    pub fn evidence_key(&self) -> VerifyingKey {
        self.evidence.verifying_key()
    }

    /// Signs the pre-authentication encoding of an evidence bundle's envelope.
    pub fn evidence_sign(&self, message: &[u8]) -> [u8; 64] {
        self.evidence.sign(message).to_bytes()
    }

    /// The key that signs policy bundles. Raw, because the signature is made deep inside the bundle's format.
    pub fn policy_key(&self) -> &p256::ecdsa::SigningKey {
        &self.policy
    }

    /// Seals a secret; see [`crate::seal`]. Returns the key's id and the sealed bytes.
    pub(crate) fn seal(&self, place: Place<'_>, value: &Secret, entropy: &[u8; 32]) -> (String, Vec<u8>) {
        (self.seal.id().to_owned(), self.seal.seal(place, value, entropy))
    }

    /// Opens a sealed secret.
    pub(crate) fn unseal(&self, place: Place<'_>, key_id: &str, sealed: &[u8]) -> Result<Secret, Unsealable> {
        self.seal.open(place, key_id, sealed)
    }
}

fn storage(file: &'static str) -> impl Fn(io::Error) -> KeyringError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => KeyringError::Missing { file },
        _ => KeyringError::Storage { file, source },
    }
}

/// Makes all keys in a folder beside `folder` and renames it.
fn create(folder: &Path, ids: &dyn Ids, now_ms: i64) -> Result<(), KeyringError> {
    const WHAT: &str = "the keys folder";
    let failed = |source| KeyringError::Storage { file: WHAT, source };
    let parent = files::above(folder);
    fs::create_dir_all(parent).map_err(failed)?;
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", ids.uuid(now_ms).simple()));
    let staging = parent.join(name);
    DirBuilder::new().mode(0o700).create(&staging).map_err(failed)?;

    let scalar = (0..SCALAR_TRIES_MAX)
        .map(|_| Zeroizing::new(ids.entropy()))
        .find(|bytes| p256::ecdsa::SigningKey::from_slice(&**bytes).is_ok())
        .ok_or(KeyringError::Damaged { file: POLICY })?;
    let (log, evidence, seal) =
        (Zeroizing::new(ids.entropy()), Zeroizing::new(ids.entropy()), Zeroizing::new(ids.entropy()));
    for (file, bytes) in [(LOG, &log), (EVIDENCE, &evidence), (POLICY, &scalar), (SEAL, &seal)] {
        let mut line = Zeroizing::new(String::with_capacity(128));
        line.push_str(label(file));
        BASE64.encode_string(**bytes, &mut line);
        line.push('\n');
        write(&staging, file, line.as_bytes())?;
    }
    let keyring = Keyring {
        log: SigningKey::from_bytes(&log),
        evidence: SigningKey::from_bytes(&evidence),
        // Chosen above so that it is a scalar.
        policy: p256::ecdsa::SigningKey::from_slice(&*scalar)
            .map_err(|_| KeyringError::Damaged { file: POLICY })?,
        seal: SealKey::new(seal),
        created_at_ms: now_ms,
    };
    let mut public = serde_json::to_vec_pretty(&keyring.public()).unwrap_or_default();
    public.push(b'\n');
    write(&staging, PUBLIC, &public)?;
    files::folder_flush(&staging).map_err(failed)?;
    match fs::rename(&staging, folder) {
        Ok(()) => files::folder_flush(parent).map_err(failed),
        // Somebody else was first: theirs are the keys, ours have signed nothing.
        Err(_) if folder.join(PUBLIC).exists() => fs::remove_dir_all(&staging).map_err(failed),
        Err(source) => {
            let _ = fs::remove_dir_all(&staging);
            Err(failed(source))
        }
    }
}

pub(crate) fn write(folder: &Path, file: &'static str, bytes: &[u8]) -> Result<(), KeyringError> {
    files::create(&folder.join(file), bytes).map_err(storage(file))
}

/// What a key file begins with: a file that was copied over another is found out.
fn label(file: &str) -> &'static str {
    match file {
        LOG => "writ-log-ed25519-v1 ",
        EVIDENCE => "writ-evidence-ed25519-v1 ",
        POLICY => "writ-policy-p256-v1 ",
        _ => "writ-seal-aes256-v1 ",
    }
}

pub(crate) fn read(folder: &Path, file: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    let opened = File::open(folder.join(file)).map_err(storage(file))?;
    // Asked of the open file, not of the path, so that nothing can change in between.
    let metadata = opened.metadata().map_err(storage(file))?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(KeyringError::Damaged { file });
    }
    if file != PUBLIC && metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyringError::Exposed { file });
    }
    // Room for the whole file from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize + 1));
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(storage(file))?;
    Ok(bytes)
}

fn key(folder: &Path, file: &'static str) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
    let damaged = || KeyringError::Damaged { file };
    let bytes = read(folder, file)?;
    let text = bytes.strip_prefix(label(file).as_bytes()).and_then(|rest| rest.strip_suffix(b"\n"));
    // A decoder may write whole groups before it knows the length.
    let mut key = Zeroizing::new([0u8; 48]);
    match BASE64.decode_slice(text.ok_or_else(damaged)?, key.as_mut_slice()) {
        Ok(32) => key.first_chunk().map(|key| Zeroizing::new(*key)).ok_or_else(damaged),
        _ => Err(damaged()),
    }
}
