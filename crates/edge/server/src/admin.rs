//! The administrator's key: made at the first start, written to one file, shown once.
//!
//! The key has to exist in two places at once, as a hash in the store and as text for the operator, and a crash must not
//! leave one without the other: an installation whose only key nobody has is lost. So the secret is written first, to
//! `admin.secret`; then the store is given its hash; then `admin.key` is written and the first file removed. Whatever step
//! a crash falls into, the next start finds the secret and goes on from there.
//!
//! Both files are readable by their owner alone.

use access::bootstrap::{Bootstrap, bootstrap};
use access::key::KeyDoc;
use act::{Clock, Ids};
use kernel::{TenantId, hex, sha256};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use store::{CommitError, Range, Store, files};

/// The file with the administrator's key.
pub const KEY_FILE: &str = "admin.key";
/// The file with a secret whose key is still being made.
pub(crate) const SECRET_FILE: &str = "admin.secret";
/// Largest secret file read, in bytes.
const FILE_BYTES_MAX: u64 = 256;

/// Why the installation could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A file of the folder cannot be read or written.
    #[error("the administrator's key cannot be kept in {0}")]
    File(&'static str, #[source] io::Error),
    /// The store refused.
    #[error("the installation could not be set up")]
    Commit(#[from] CommitError),
    /// The store cannot be read.
    #[error("the installation cannot be read")]
    Read(#[from] store::ReadError),
}

/// Sets the installation up, unless it is. Returns the administrator's key if it was made, or its making completed, now.
pub async fn first_start(
    folder: &Path,
    store: &Store,
    clock: &dyn Clock,
    ids: &dyn Ids,
    tenant: &TenantId,
    cell: &str,
) -> Result<Option<String>, AdminError> {
    let exists = store.head(&TenantId::platform()).await?.is_some();
    let secret = match read(folder, SECRET_FILE)? {
        Some(secret) => Some(secret),
        None if exists => None,
        None => {
            let secret = hex::encode(&ids.entropy());
            write(folder, SECRET_FILE, &secret)?;
            Some(secret)
        }
    };
    let hash = secret.as_ref().map(|secret| hex::encode(&sha256(secret.as_bytes())));
    let plan = Bootstrap {
        // Where there is no secret the installation exists, and its bootstrap changes nothing but a missing first tenant.
        admin_secret_sha256: hash.clone().unwrap_or_default(),
        tenant: tenant.clone(),
        cell: cell.to_owned(),
    };
    let created = bootstrap(store, ids, clock.now_ms(), &plan).await?;
    let (Some(secret), Some(hash)) = (secret, hash) else { return Ok(None) };
    let id = match created {
        Some(created) => Some(created.key),
        None => made_before(store, clock.now_ms(), &hash).await?,
    };
    let Some(id) = id else {
        // A secret that the store does not know opens nothing.
        remove(folder, SECRET_FILE)?;
        return Ok(None);
    };
    let key = format!("{id}.{secret}");
    if read(folder, KEY_FILE)?.is_none() {
        write(folder, KEY_FILE, &key)?;
    }
    remove(folder, SECRET_FILE)?;
    Ok(Some(key))
}

/// The key that an interrupted first start made.
async fn made_before(store: &Store, now_ms: i64, hash: &str) -> Result<Option<kernel::Id>, AdminError> {
    let view = store.view(&TenantId::platform(), now_ms);
    let found = view.list::<KeyDoc>(Range::of("principal", Vec::new())).await?;
    Ok(found.into_iter().find(|found| found.stored.secret_sha256 == hash).map(|found| found.stored.doc.id))
}

fn read(folder: &Path, file: &'static str) -> Result<Option<String>, AdminError> {
    let mut text = String::new();
    match File::open(folder.join(file)).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AdminError::File(file, error)),
    }
}

fn write(folder: &Path, file: &'static str, text: &str) -> Result<(), AdminError> {
    let written = files::replace(&folder.join(file), format!("{text}\n").as_bytes());
    written.map_err(|error| AdminError::File(file, error))
}

fn remove(folder: &Path, file: &'static str) -> Result<(), AdminError> {
    match fs::remove_file(folder.join(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(AdminError::File(file, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
