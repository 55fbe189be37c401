//! The keys in a backup: sealed under a key of their own, which no backup holds.
//!
//! A backup is carried about: to another disk, another host, a bucket. With the keys of the installation in it, whoever
//! reads it could sign in its name and open every secret. Without them it could not be put back. So they are in it, sealed
//! under the *recovery key*: 32 random bytes in one file, made with the first backup, readable by its owner alone, and kept
//! by people somewhere else. Nothing can be restored without it, on purpose.
//!
//! ```text
//! sealed = "writ-keys-sealed-v1\n" ‖ nonce (12 bytes) ‖ AES-256-GCM(JSON of file name → base64) ‖ tag (16 bytes)
//! aad    = the first line ‖ id of the recovery key
//! ```

use crate::keyring::{self, KeyringError};
use act::Ids;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kernel::hex;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use store::files;
use zeroize::Zeroizing;

/// Name of the recovery key's file in errors.
const FILE: &str = "the recovery key";
/// Name of the sealed keys in errors.
const SEALED: &str = "the sealed keys";
const MAGIC: &[u8] = b"writ-keys-sealed-v1\n";
const LABEL: &str = "writ-recovery-aes256-v1 ";
const NONCE_BYTES: usize = 12;
/// Largest file of either sort, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Seals and opens the keys in backups.
pub struct RecoveryKey {
    key: Zeroizing<[u8; 32]>,
    id: String,
}

impl RecoveryKey {
    fn new(key: Zeroizing<[u8; 32]>) -> RecoveryKey {
        let digest = kernel::sha256(&[LABEL.as_bytes(), key.as_slice()].concat());
        RecoveryKey { key, id: format!("rck_{}", &hex::encode(&digest)[..16]) }
    }

    /// Opens the key in `path`, and makes it there if there is none.
    ///
    /// # Errors
    /// If the file is damaged, can be read by others, or cannot be read or written.
    pub fn open_or_create(path: &Path, ids: &dyn Ids) -> Result<RecoveryKey, KeyringError> {
        if !path.exists() {
            let key = Zeroizing::new(ids.entropy());
            let line = Zeroizing::new(format!("{LABEL}{}\n", BASE64.encode(*key)));
            match files::create_whole(path, line.as_bytes()) {
                Ok(()) => {}
                // Somebody else was first: theirs it is.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(KeyringError::Storage { file: FILE, source }),
            }
        }
        RecoveryKey::open(path)
    }

    /// Opens the key in `path`.
    ///
    /// # Errors
    /// As [`RecoveryKey::open_or_create`], and if there is none.
    pub fn open(path: &Path) -> Result<RecoveryKey, KeyringError> {
        let damaged = || KeyringError::Damaged { file: FILE };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => KeyringError::Missing { file: FILE },
            _ => KeyringError::Storage { file: FILE, source },
        };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(KeyringError::Exposed { file: FILE });
        }
        let mut text = Zeroizing::new(String::with_capacity(256));
        file.take(256).read_to_string(&mut text).map_err(failed)?;
        let encoded = text.trim_end().strip_prefix(LABEL).ok_or_else(damaged)?;
        // A decoder may write whole groups before it knows the length.
        let mut key = Zeroizing::new([0u8; 48]);
        match BASE64.decode_slice(encoded, key.as_mut_slice()) {
            Ok(32) => key.first_chunk().map(|key| RecoveryKey::new(Zeroizing::new(*key))).ok_or_else(damaged),
            _ => Err(damaged()),
        }
    }

    /// Identity of the key, which stands in what it sealed.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn aad(&self) -> Vec<u8> {
        [MAGIC, self.id.as_bytes()].concat()
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.key).into())
    }

    /// Seals the keys in `folder`, after checking that they belong together.
    ///
    /// # Errors
    /// As opening them.
    pub fn seal(&self, folder: &Path, ids: &dyn Ids) -> Result<Vec<u8>, KeyringError> {
        keyring::Keyring::open(folder)?;
        let mut files = BTreeMap::new();
        for file in keyring::FILES {
            let bytes = keyring::read(folder, file)?;
            files.insert(*file, Zeroizing::new(BASE64.encode(&*bytes)));
        }
        let plain: BTreeMap<&str, &str> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        // Names and base64 always serialise.
        let plain = Zeroizing::new(serde_json::to_vec(&plain).unwrap_or_default());
        let nonce = ids.entropy();
        let nonce: &[u8; NONCE_BYTES] = nonce.first_chunk().unwrap_or(&[0; NONCE_BYTES]);
        let payload = Payload { msg: &plain, aad: &self.aad() };
        let sealed = self.cipher().encrypt(nonce.into(), payload);
        let sealed = sealed.map_err(|_| KeyringError::Damaged { file: SEALED })?;
        Ok([MAGIC, nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`RecoveryKey::seal`] made and writes it to the new folder `folder`.
    ///
    /// # Errors
    /// If the bytes are not sealed under this key, do not belong together, or the folder cannot be written.
    pub fn unseal(&self, sealed: &[u8], folder: &Path) -> Result<(), KeyringError> {
        let damaged = || KeyringError::Damaged { file: SEALED };
        let failed = |source| KeyringError::Storage { file: "the keys folder", source };
        let rest =
            sealed.strip_prefix(MAGIC).filter(|rest| rest.len() as u64 <= BYTES_MAX).ok_or_else(damaged)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let plain = self.cipher().decrypt(nonce.into(), Payload { msg: rest, aad: &self.aad() });
        let plain = Zeroizing::new(plain.map_err(|_| damaged())?);
        let files: BTreeMap<String, String> = serde_json::from_slice(&plain).map_err(|_| damaged())?;
        if !files.keys().map(String::as_str).eq(keyring::FILES.iter().copied()) {
            return Err(damaged());
        }
        DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
        for (file, text) in keyring::FILES.iter().zip(files.into_values().map(Zeroizing::new)) {
            let bytes = Zeroizing::new(BASE64.decode(&*text).map_err(|_| damaged())?);
            keyring::write(folder, file, &bytes)?;
        }
        files::folder_flush(folder).map_err(failed)?;
        keyring::Keyring::open(folder).map(|_| ())
    }

    /// Copies the key to the new file `path`, for an installation that goes on with it.
    ///
    /// # Errors
    /// If the file exists or cannot be written.
    pub fn keep(&self, path: &Path) -> Result<(), KeyringError> {
        let line = Zeroizing::new(format!("{LABEL}{}\n", BASE64.encode(*self.key)));
        files::create(path, line.as_bytes()).map_err(|source| KeyringError::Storage { file: FILE, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::SystemIds;

    #[test]
    fn keys_come_back_under_their_recovery_key_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let keyring = keyring::Keyring::open_or_create(&path("keys"), &SystemIds, 5).unwrap();
        let key = RecoveryKey::open_or_create(&path("backup.key"), &SystemIds).unwrap();
        assert_eq!(RecoveryKey::open_or_create(&path("backup.key"), &SystemIds).unwrap().id(), key.id());
        let sealed = key.seal(&path("keys"), &SystemIds).unwrap();
        for file in keyring::FILES {
            let line = std::fs::read_to_string(path("keys").join(file)).unwrap();
            let text = String::from_utf8_lossy(&sealed).into_owned();
            assert!(!text.contains(line.trim_end()), "{file} stands there in clear");
        }
        key.unseal(&sealed, &path("again")).unwrap();
        let again = keyring::Keyring::open(&path("again")).unwrap();
        assert_eq!(again.log_key(), keyring.log_key());
        let other = RecoveryKey::open_or_create(&path("other.key"), &SystemIds).unwrap();
        assert!(matches!(other.unseal(&sealed, &path("x")), Err(KeyringError::Damaged { .. })));
        for at in [0, 25, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(matches!(key.unseal(&changed, &path("x")), Err(KeyringError::Damaged { .. })), "{at}");
        }
        assert!(matches!(key.unseal(&sealed[..30], &path("x")), Err(KeyringError::Damaged { .. })));
        assert!(!path("x").exists());
        std::fs::set_permissions(path("backup.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(RecoveryKey::open(&path("backup.key")), Err(KeyringError::Exposed { .. })));
    }
}
