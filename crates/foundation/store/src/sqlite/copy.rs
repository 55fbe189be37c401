//! Copying a database that is in use, and looking through a copy.
//!
//! [`copy`] reads in one transaction of its own: what it writes is the state of one moment, whatever is committed while it
//! works, and the writer never waits for it. It needs no lock and no server, so it works beside a running one.
//!
//! [`audit`] believes nothing that can be computed. Each log's leaves are read from the first to the last, hashed, and
//! built up to the root that its head says; every checkpoint is held against the root at its size, and handed to whoever
//! can judge its signature. What it does not look at are records: they are no part of any log, and are as good as the
//! digest of the file they are in.

use super::reads::{digest, signed, tenant as read_tenant, unsigned};
use super::schema::{self, OpenError};
use super::{epochs, folder_lock};
use crate::CheckpointRow;
use kernel::merkle::{self, Frontier};
use kernel::{Digest, TenantId};
use rusqlite::{Connection, OpenFlags, params};
use std::fs::File;
use std::path::Path;

/// A log that was looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Whose.
    pub tenant: TenantId,
    /// Its origin.
    pub origin: String,
    /// How many leaves there are.
    pub size: u64,
    /// The root that they come to.
    pub root: Digest,
    /// How many checkpoints fit.
    pub checkpoints: u64,
}

/// Why a database is not whole.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is no database of this program.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read to its end.
    #[error("the database cannot be read")]
    Read(#[from] rusqlite::Error),
    /// SQLite says what is wrong with the file.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A log does not come to what it says.
    #[error("the log of {tenant} at index {index}: {what}")]
    Log {
        /// Whose.
        tenant: TenantId,
        /// Where.
        index: u64,
        /// What is wrong there.
        what: String,
    },
}

fn opened(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -16384;")?;
    // An older version is read as it is: nothing that this reads has ever been moved.
    schema::vetted(&connection)?;
    Ok(connection)
}

/// Writes the state of this moment of the database in `folder` to the new file `to`, flushed.
///
/// # Errors
/// If there is no database of this program in `folder`, or `to` exists or cannot be written.
pub fn copy(folder: &Path, to: &Path) -> Result<(), OpenError> {
    let connection = opened(&folder.join(super::DATABASE))?;
    // SQLite would take an empty file for a new database.
    drop(File::options().write(true).create_new(true).open(to)?);
    std::fs::remove_file(to)?;
    connection.execute("VACUUM INTO ?", params![to.to_string_lossy()])?;
    File::open(to)?.sync_all()?;
    Ok(())
}

/// Writes down that the database in `folder` was put back: nothing of it is signed until an epoch is opened.
///
/// # Errors
/// As opening it for writing.
pub fn put_back(folder: &Path, why: &str) -> Result<(), OpenError> {
    let _lock = folder_lock(folder)?;
    let connection = schema::open_writer(&folder.join(super::DATABASE), None)?;
    epochs::put_back(&connection, why)?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// Looks through the database at `path`; `judge` is given every checkpoint and the root that the leaves come to at its
/// size, and says what is wrong with it.
///
/// # Errors
/// See [`AuditError`].
pub fn audit(
    path: &Path,
    judge: &mut dyn FnMut(&TenantId, &CheckpointRow, &Digest) -> Result<(), String>,
) -> Result<Vec<Audited>, AuditError> {
    let db = opened(path)?;
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(AuditError::Damaged(found));
    }
    let mut heads = db.prepare("SELECT tenant, origin, size, root FROM heads ORDER BY tenant")?;
    let heads = heads.query_map([], |row| {
        Ok(Audited {
            tenant: read_tenant(row.get_ref(0)?.as_str()?, 0)?,
            origin: row.get(1)?,
            size: unsigned(row.get(2)?, 2)?,
            root: digest(row.get_ref(3)?.as_blob()?, 3)?,
            checkpoints: 0,
        })
    })?;
    heads.map(|head| log(&db, head?, judge)).collect()
}

fn log(
    db: &Connection,
    mut head: Audited,
    judge: &mut dyn FnMut(&TenantId, &CheckpointRow, &Digest) -> Result<(), String>,
) -> Result<Audited, AuditError> {
    let wrong =
        |tenant: &TenantId, index, what: String| AuditError::Log { tenant: tenant.clone(), index, what };
    let mut notes = db.prepare("SELECT size, note FROM checkpoints WHERE tenant = ? ORDER BY size")?;
    let mut notes = notes.query_map([head.tenant.as_str()], |row| {
        Ok(CheckpointRow { size: unsigned(row.get(0)?, 0)?, note: row.get(1)? })
    })?;
    let mut next = notes.next().transpose()?;
    let mut frontier = Frontier::default();
    let mut leaves = db.prepare("SELECT n, hash, leaf FROM facts WHERE tenant = ? ORDER BY n")?;
    let mut rows = leaves.query([head.tenant.as_str()])?;
    while let Some(row) = rows.next()? {
        let index = frontier.size();
        if row.get::<_, i64>(0)? != signed(index) {
            return Err(wrong(&head.tenant, index, "a fact is missing".to_owned()));
        }
        let hash = merkle::leaf_hash(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
        if digest(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, 1)? != hash {
            return Err(wrong(&head.tenant, index, "the fact is not the one that was hashed".to_owned()));
        }
        frontier.append(hash);
        if let Some(note) = next.take_if(|note| note.size == frontier.size()) {
            judge(&head.tenant, &note, &frontier.root()).map_err(|what| wrong(&head.tenant, index, what))?;
            head.checkpoints += 1;
            next = notes.next().transpose()?;
        }
    }
    if frontier.size() != head.size || frontier.root() != head.root {
        let what =
            format!("there are {} facts and the head says {}, or another root", frontier.size(), head.size);
        return Err(wrong(&head.tenant, frontier.size(), what));
    }
    match next {
        None => Ok(head),
        Some(note) => {
            Err(wrong(&head.tenant, note.size, "a checkpoint covers more facts than there are".to_owned()))
        }
    }
}
