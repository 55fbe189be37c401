//! Tables of the embedded engine, and how a database file is opened.
//!
//! Tenant is a column and the leading part of every key. `facts` and `tiles` are written once and never updated;
//! triggers say so to anybody who opens the file with another tool.
//!
//! How it changes: *expand*, then *contract*. A step adds (a table, a column with a default, an index) and fills what it
//! adds from what is there; nothing that the version before reads is moved, renamed or dropped in the same step. What
//! nobody reads any more is dropped by a step of a later release, when no version that reads it is supported. All steps
//! that a file has yet to take, and the number `user_version` that counts them, are one transaction, so that a death in
//! the middle leaves the file as it was. An older program refuses a newer file by its number. Each released version has
//! a folder in `crates/edge/cli/tests/installations`, made by the program of that version, which today's opens in a test.
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

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What each version adds to the one before; the first makes the tables. A step that has been released is never edited.
const STEPS: &[&str] = &[SCHEMA, LEDGER, EPOCHS];

/// Version of the schema, kept in `user_version`: how many steps it has taken.
const VERSION: i64 = STEPS.len() as i64;

/// Oldest SQLite that is safe here: before 3.51.3 two connections could corrupt a WAL that was being reset.
const SQLITE_OLDEST: i32 = 3_051_003;

/// Prepared statements kept per connection; the writer has some fifty different ones, a reader some forty.
const STATEMENTS: usize = 96;

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

/// What version 2 adds: the ledger. `transfers` is written once; `holds` has a row per hold that is open, so that what
/// runs out is found without walking over what has ended. A balance is kept beside the rows it follows from.
const LEDGER: &str = "
CREATE TABLE accounts (
  tenant TEXT NOT NULL, id TEXT NOT NULL, code TEXT NOT NULL, unit TEXT NOT NULL,
  floor INTEGER, ceiling INTEGER, exceed INTEGER NOT NULL,
  debits_posted INTEGER NOT NULL CHECK (debits_posted >= 0),
  credits_posted INTEGER NOT NULL CHECK (credits_posted >= 0),
  debits_pending INTEGER NOT NULL CHECK (debits_pending >= 0),
  credits_pending INTEGER NOT NULL CHECK (credits_pending >= 0),
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE transfers (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, debit TEXT NOT NULL, credit TEXT NOT NULL,
  unit TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount >= 0), hold TEXT, expires_at_ms INTEGER,
  reference TEXT NOT NULL, fact TEXT, at_ms INTEGER NOT NULL,
  UNIQUE (tenant, id), CHECK (debit <> credit)
) STRICT;
CREATE INDEX transfers_debit ON transfers (tenant, debit, n);
CREATE INDEX transfers_credit ON transfers (tenant, credit, n);
CREATE UNIQUE INDEX transfers_hold ON transfers (tenant, hold, kind) WHERE hold IS NOT NULL;
CREATE TABLE holds (
  tenant TEXT NOT NULL, id TEXT NOT NULL, expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_due ON holds (expires_at_ms);
CREATE TRIGGER transfers_keep BEFORE DELETE ON transfers
  BEGIN SELECT RAISE(ABORT, 'transfers are never deleted'); END;
CREATE TRIGGER transfers_fix BEFORE UPDATE ON transfers
  BEGIN SELECT RAISE(ABORT, 'transfers are never changed'); END;
CREATE TRIGGER accounts_keep BEFORE DELETE ON accounts
  BEGIN SELECT RAISE(ABORT, 'accounts are never deleted'); END;
";

/// What version 3 adds: which epoch the installation is in, how many checkpoints it has kept, whether it was put back,
/// and where each log went from one epoch to another.
const EPOCHS: &str = "
CREATE TABLE standing (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  epoch INTEGER NOT NULL, generation INTEGER NOT NULL, put_back TEXT
) STRICT;
INSERT INTO standing (only, epoch, generation) VALUES (1, 1, 0);
CREATE TABLE epochs (
  tenant TEXT NOT NULL, epoch INTEGER NOT NULL, previous TEXT NOT NULL, at_ms INTEGER NOT NULL,
  size INTEGER NOT NULL, root BLOB NOT NULL,
  PRIMARY KEY (tenant, epoch)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER epochs_keep BEFORE DELETE ON epochs BEGIN SELECT RAISE(ABORT, 'epochs are never deleted'); END;
CREATE TRIGGER epochs_fix BEFORE UPDATE ON epochs BEGIN SELECT RAISE(ABORT, 'epochs are never changed'); END;
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
        "the database says schema version {version}, but its {part} is not what this program means by that: another \
         build made it. Use that build, or another folder"
    )]
    Different {
        /// The version it says.
        version: i64,
        /// What is missing, different or unknown.
        part: String,
    },
    /// It has tables and no version: it is something else's.
    #[error("the database is not one of this program: it has a {0} and no schema version")]
    Foreign(String),
    /// The SQLite linked in has a known way to corrupt a database.
    #[error("SQLite {0} is too old to be safe; 3.51.3 or newer is needed")]
    UnsafeSqlite(String),
}

/// How long a connection waits for another one.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// From how many frames (of a page each) on the write-ahead log is moved into the database.
pub(super) const WAL_FRAMES: i64 = 4000;
/// How far the file of the write-ahead log is cut back after it has once grown beyond its usual 16 MiB.
const WAL_BYTES_KEPT: u32 = 64 << 20;

/// One plan per statement, whatever is bound to it.
///
/// SQLite as bundled may look at bound values when it plans a statement, to see whether a constraint singles out few rows;
/// once it has looked at one, binding another throws the plan away, and the next step parses and plans anew. This store
/// keeps no statistics of values, so each plan came out as it was, and a quarter of the writer's time went into making it.
fn plans_keep(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

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

/// Refuses a database that this program would misread. Returns the steps that it has yet to take: all if it is empty.
pub(super) fn vetted(connection: &Connection) -> Result<&'static [&'static str], OpenError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let taken = usize::try_from(version).ok().filter(|taken| *taken <= STEPS.len());
    let (taken, ahead) = STEPS.split_at(taken.ok_or(OpenError::Newer(version))?);
    let model = Connection::open_in_memory()?;
    for step in taken {
        model.execute_batch(step)?;
    }
    let mut found = parts(connection)?;
    for (part, statement) in parts(&model)? {
        if found.remove(&part) != Some(statement) {
            return Err(OpenError::Different { version, part });
        }
    }
    match found.into_keys().next() {
        None => Ok(ahead),
        Some(part) if version == 0 => Err(OpenError::Foreign(part)),
        Some(part) => Err(OpenError::Different { version, part }),
    }
}

/// Writes what the write-ahead log holds into the database, and flushes that. The process before may have died after a flush
/// that failed: its log can be read from memory and still have a hole on the disk, behind which nothing would survive.
fn written_out(connection: &Connection) -> Result<(), OpenError> {
    let busy = connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get::<_, i64>(0));
    match busy {
        Ok(0) => {}
        Ok(_) => tracing::warn!("somebody reads the database: its log is written out later"),
        // What is there can be served, and there is no room for more.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!("the disk is full: the log of the database is written out later");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Opens the writing connection and creates or upgrades the schema, or refuses one that is not its own.
pub(super) fn open_writer(path: &Path, page_count_max: Option<u32>) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_OLDEST {
        return Err(OpenError::UnsafeSqlite(rusqlite::version().to_owned()));
    }
    let connection = Connection::open(path)?;
    plans_keep(&connection)?;
    let ahead = vetted(&connection)?;
    // Recursive triggers, because without them a row that REPLACE takes away is not asked for by the triggers that keep it.
    // WAL with synchronous=FULL: each transaction is durable when COMMIT returns, at one fsync per group of callers.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
         PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; \
         PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = ON;",
    )?;
    connection.busy_timeout(BUSY)?;
    written_out(&connection)?;
    connection.execute_batch(&format!("PRAGMA journal_size_limit = {WAL_BYTES_KEPT};"))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if !ahead.is_empty() {
        let steps = ahead.concat();
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION};"))?;
        // All steps and the number are one transaction: a death here leaves the old schema, whole.
        crate::crash::point("schema.applied");
        connection.execute_batch("COMMIT;")?;
        crate::crash::point("schema.durable");
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
    plans_keep(&connection)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA busy_timeout = 5000;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_the_first_version_gets_a_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("writ.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&format!("{SCHEMA} PRAGMA user_version = 1;")).unwrap();
        old.execute("INSERT INTO rev_floors VALUES ('ten_a', 'a.b', 7)", []).unwrap();
        drop(old);
        let tables = |db: &Connection| -> Vec<String> {
            let mut names = db
                .prepare(
                    "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema ORDER BY 1",
                )
                .unwrap();
            names.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
        };
        let upgraded = open_writer(&path, None).unwrap();
        let kept: i64 = upgraded.query_row("SELECT rev FROM rev_floors", [], |row| row.get(0)).unwrap();
        let fresh = open_writer(&folder.path().join("fresh.db"), None).unwrap();
        assert_eq!((kept, tables(&upgraded)), (7, tables(&fresh)));
        let next = VERSION + 1;
        fresh.execute_batch(&format!("PRAGMA user_version = {next};")).unwrap();
        drop(fresh);
        let newer = open_writer(&folder.path().join("fresh.db"), None);
        assert!(matches!(newer, Err(OpenError::Newer(version)) if version == next));
    }

    #[test]
    fn g10_the_writers_own_connection_changes_no_history() {
        let folder = tempfile::tempdir().unwrap();
        let db = open_writer(&folder.path().join("writ.db"), None).unwrap();
        db.execute_batch(
            "INSERT INTO transfers (tenant, id, kind, debit, credit, unit, amount, reference, at_ms)
               VALUES ('ten_a', 'xfr_1', 'posted', 'acc_a', 'acc_b', 'USD', 5, 'cal_1', 1);
             INSERT INTO accounts VALUES ('ten_a', 'acc_a', 'test.purse', 'USD', NULL, NULL, 0, 5, 0, 0, 0);
             INSERT INTO facts VALUES ('ten_a', 0, 'run_a', 1, x'00', x'01');
             INSERT INTO tiles VALUES ('ten_a', 0, 0, x'00');",
        )
        .unwrap();
        for sql in [
            "UPDATE transfers SET amount = 6",
            "DELETE FROM transfers",
            "DELETE FROM accounts",
            "UPDATE accounts SET debits_posted = -1",
            "INSERT INTO transfers (tenant, id, kind, debit, credit, unit, amount, reference, at_ms)
               VALUES ('ten_a', 'xfr_1', 'posted', 'acc_a', 'acc_b', 'USD', 5, 'cal_1', 1)",
            "REPLACE INTO transfers (tenant, id, kind, debit, credit, unit, amount, reference, at_ms)
               VALUES ('ten_a', 'xfr_1', 'posted', 'acc_a', 'acc_b', 'USD', 6, 'cal_1', 1)",
            "REPLACE INTO accounts VALUES ('ten_a', 'acc_a', 'test.purse', 'USD', NULL, NULL, 0, 0, 0, 0, 0)",
            "UPDATE facts SET leaf = x'02'",
            "DELETE FROM facts",
            "REPLACE INTO facts VALUES ('ten_a', 0, 'run_a', 1, x'00', x'02')",
            "REPLACE INTO facts VALUES ('ten_a', 1, 'run_a', 1, x'00', x'02')",
            "UPDATE tiles SET hashes = x'02'",
            "DELETE FROM tiles",
            "REPLACE INTO tiles VALUES ('ten_a', 0, 0, x'02')",
        ] {
            assert!(db.execute(sql, []).is_err(), "{sql}");
        }
    }
}
