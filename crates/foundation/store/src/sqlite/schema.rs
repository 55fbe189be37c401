//! Tables of the embedded engine, and how a database file is opened.
//!
//! Tenant is a column and the leading part of every key. `facts` and `tiles` are written once and never updated;
//! triggers say so to anybody who opens the file with another tool. Changes to this schema are expand-only: a new
//! version adds, and `user_version` counts.
//!
//! A version is a promise that somebody may forget to keep: a column is added, the number stays, and the next start reads
//! an old folder as if it were a new one. So the number is not believed. What the file itself says it is made of is
//! compared with what this program would make, and a folder in which any part is missing, different or unknown is
//! refused by that part's name before anything is read from it.
//!
//! Two tables need a word. `rev_floors` keeps the highest revision that a deleted record of a kind ever had, so that
//! a record made anew under an old id never meets a reader who still holds the old revision. `jobs.ready` says that a
//! job's time has come: due jobs are found by (ready, tenant, due), waiting ones by (ready, due), and neither search
//! ever walks over jobs that it does not want.

use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the schema, kept in `user_version`.
const VERSION: i64 = 1;

/// Oldest SQLite that is safe here: before 3.51.3 two connections could corrupt a WAL that was being reset.
const SQLITE_OLDEST: i32 = 3_051_003;

/// Prepared statements kept per connection; the writer has some forty different ones, a reader some thirty.
const STATEMENTS: usize = 64;

const SCHEMA: &str = "
CREATE TABLE records (
  n INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
  rev INTEGER NOT NULL, entries BLOB NOT NULL, body BLOB NOT NULL,
  UNIQUE (tenant, kind, id)
) STRICT;
CREATE TABLE rev_floors (
  tenant TEXT NOT NULL, kind TEXT NOT NULL, rev INTEGER NOT NULL,
  PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE record_index (
  tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY (tenant, kind, name, key, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE record_unique (
  tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL,
  PRIMARY KEY (kind, name, key, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE heads (
  tenant TEXT PRIMARY KEY, origin TEXT NOT NULL, size INTEGER NOT NULL,
  root BLOB NOT NULL, edge BLOB NOT NULL, batch_hash BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (
  tenant TEXT NOT NULL, n INTEGER NOT NULL, stream TEXT NOT NULL, stream_n INTEGER NOT NULL,
  hash BLOB NOT NULL, leaf BLOB NOT NULL,
  PRIMARY KEY (tenant, n)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX facts_stream ON facts (tenant, stream, stream_n);
CREATE TABLE intake (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL, stream TEXT NOT NULL, stream_n INTEGER NOT NULL, hash BLOB NOT NULL, leaf BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX intake_stream ON intake (tenant, stream, stream_n);
CREATE TABLE asides (
  tenant TEXT NOT NULL, fact TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, fact)
) STRICT, WITHOUT ROWID;
CREATE TABLE tiles (
  tenant TEXT NOT NULL, level INTEGER NOT NULL, n INTEGER NOT NULL, hashes BLOB NOT NULL,
  PRIMARY KEY (tenant, level, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
  tenant TEXT NOT NULL, size INTEGER NOT NULL, note TEXT NOT NULL,
  PRIMARY KEY (tenant, size)
) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
  n INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL,
  ready INTEGER NOT NULL, due_ms INTEGER NOT NULL, epoch INTEGER NOT NULL, starts INTEGER NOT NULL,
  authority BLOB NOT NULL, body BLOB NOT NULL,
  UNIQUE (tenant, id)
) STRICT;
CREATE INDEX jobs_turn ON jobs (ready, tenant, due_ms);
CREATE INDEX jobs_due ON jobs (ready, due_ms);
CREATE TABLE outcomes (
  tenant TEXT NOT NULL, principal TEXT NOT NULL, act TEXT NOT NULL, key TEXT NOT NULL,
  args_digest BLOB NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tenant, principal, act, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE blobs (
  tenant TEXT NOT NULL, digest BLOB NOT NULL, bytes BLOB NOT NULL,
  PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER facts_keep BEFORE DELETE ON facts BEGIN SELECT RAISE(ABORT, 'facts are never deleted'); END;
CREATE TRIGGER facts_fix BEFORE UPDATE ON facts BEGIN SELECT RAISE(ABORT, 'facts are never changed'); END;
CREATE TRIGGER tiles_keep BEFORE DELETE ON tiles BEGIN SELECT RAISE(ABORT, 'tiles are never deleted'); END;
CREATE TRIGGER tiles_fix BEFORE UPDATE ON tiles BEGIN SELECT RAISE(ABORT, 'tiles are never changed'); END;
";

/// Why a database file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite could not open or prepare it.
    #[error("the database cannot be opened")]
    Sqlite(#[from] rusqlite::Error),
    /// Its folder could not be made, or its lock not be taken.
    #[error("the folder of the database cannot be used")]
    Folder(#[from] std::io::Error),
    /// Another process has it open. Two writers would give out the same places in the log.
    #[error("the database is in use by another process")]
    InUse,
    /// The installation or the cell has a name that cannot stand in a log's origin.
    #[error(
        "{0:?} cannot be part of a log's origin: it must not be empty nor hold '/', '+', spaces or control characters"
    )]
    Name(String),
    /// It was written by a newer version of this program.
    #[error("the database has schema version {0}; this program knows versions up to {VERSION}")]
    Newer(i64),
    /// It was written by a build that meant another schema by the same version.
    #[error(
        "the database says schema version {VERSION}, but its {0} is not what this program means by that: another build \
         made it. Use that build, or another folder"
    )]
    Different(String),
    /// It has tables and no version: it is something else's.
    #[error("the database is not one of this program: it has a {0} and no schema version")]
    Foreign(String),
    /// The SQLite linked in has a known way to corrupt a database.
    #[error("SQLite {0} is too old to be safe; 3.51.3 or newer is needed")]
    UnsafeSqlite(String),
}

/// How far the file of the write-ahead log is cut back after it has once grown beyond its usual 16 MiB.
const WAL_BYTES_KEPT: u32 = 64 << 20;

/// What a database is made of: each table, index and trigger with its statement, however that was spaced.
fn parts(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND substr(name, 1, 7) <> 'sqlite_'",
    )?;
    let rows = statement.query_map([], |row| {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((format!("{kind} {name}"), sql.split_whitespace().collect::<Vec<_>>().join(" ")))
    })?;
    rows.collect()
}

/// Refuses a database that this program would misread. `true`: it is empty, and has yet to be made.
fn vetted(connection: &Connection) -> Result<bool, OpenError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut found = parts(connection)?;
    match version {
        0 => match found.into_keys().next() {
            None => Ok(true),
            Some(part) => Err(OpenError::Foreign(part)),
        },
        VERSION => {
            let model = Connection::open_in_memory()?;
            model.execute_batch(SCHEMA)?;
            for (part, statement) in parts(&model)? {
                if found.remove(&part) != Some(statement) {
                    return Err(OpenError::Different(part));
                }
            }
            found.into_keys().next().map_or(Ok(false), |part| Err(OpenError::Different(part)))
        }
        newer => Err(OpenError::Newer(newer)),
    }
}

/// Opens the writing connection and creates the schema, or refuses one that is not its own.
pub(super) fn open_writer(path: &Path, page_count_max: Option<u32>) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_OLDEST {
        return Err(OpenError::UnsafeSqlite(rusqlite::version().to_owned()));
    }
    let connection = Connection::open(path)?;
    let new = vetted(&connection)?;
    // WAL with synchronous=FULL: each transaction is durable when COMMIT returns, at one fsync per group of callers.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; \
         PRAGMA trusted_schema = OFF; PRAGMA busy_timeout = 5000;",
    )?;
    connection.execute_batch(&format!("PRAGMA journal_size_limit = {WAL_BYTES_KEPT};"))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if new {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    }
    if let Some(pages) = page_count_max {
        connection.execute_batch(&format!("PRAGMA max_page_count = {pages};"))?;
    }
    Ok(connection)
}

/// Opens a reading connection.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA busy_timeout = 5000;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}
