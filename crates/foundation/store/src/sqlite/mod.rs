//! The embedded engine: SQLite in WAL mode, one writer thread, group commit.
//!
//! Callers hand their changesets to one writer thread over a bounded queue. It takes whatever is waiting (up to
//! [`BATCH_MAX`]), applies all of it in one transaction, and answers everybody after the one fsync. With 64 callers
//! that is one fsync for 64 commits; alone, a caller pays exactly one.
//!
//! Within a batch every changeset is on its own: all its checks run before its first write ([`apply`]), so a conflict
//! leaves its neighbours untouched and needs no savepoint. Only a failure of SQLite itself, a full disk say, takes the
//! whole batch back, and everybody is told.
//!
//! Reads go to a few read-only connections and see what has been committed. They run where they are called: a point
//! read is some ten microseconds, less than handing it to another thread.
//!
//! Fairness: one tenant may have at most [`WAITING_PER_TENANT_MAX`] commits in the queue; the one that floods it is
//! told `Overloaded`, and only that one. A caller who stops waiting keeps its place until the writer has come to it.
//!
//! One process at a time: the folder is locked, because a second writer would give out the same places in the log. So
//! whoever opens it knows that every lease it finds is a dead process's, and ends it: after a crash, work goes on at once.

mod apply;
mod copy;
mod entries;
mod epochs;
mod jobs;
mod ledger;
mod log;
mod mark;
#[cfg(test)]
mod plans;
mod reads;
mod schema;
mod writer;

pub use copy::{AuditError, Audited, audit, copy, put_back};
pub use mark::MarkError;
pub use schema::OpenError;

use crate::ledger::{Statement, TransferRow};
use crate::{
    CheckpointRow, Clock, CommitError, Committed, Engine, EpochRow, Head, Hints, IndexedRow, JobRow,
    KeptOutcome, LeafRow, Pending, Range, ReadError, Row, Sequencing, Standing, files,
};
use futures::FutureExt as _;
use kernel::changeset::{Changeset, Operation};
use kernel::ledger::Account;
use kernel::permit::{JobKind, Seal};
use kernel::{Digest, Id, Lease, TenantId, hex, sha256};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Most requests answered by one transaction.
pub const BATCH_MAX: usize = 256;
/// Most requests waiting for the writer.
pub const WAITING_MAX: usize = 4096;
/// Most commits of one tenant waiting for the writer.
pub const WAITING_PER_TENANT_MAX: usize = 1024;
/// Size of a page of the database file.
pub const PAGE_BYTES: u64 = 4096;
/// Read-only connections.
const READERS: usize = 4;

/// Name of the database's file in its folder.
pub const DATABASE: &str = "writ.db";

/// How the embedded engine is opened.
pub struct Options {
    /// Folder of the database; created if missing.
    pub folder: PathBuf,
    /// The clock of leases, and of permits' expiry.
    pub clock: Arc<dyn Clock>,
    /// Opens permits; from [`kernel::permit::permit_pair`].
    pub seal: Seal,
    /// Name of the installation, the first part of every log's origin.
    pub installation: String,
    /// Name of the cell, the second part.
    pub cell: String,
    /// When facts get their place in the log.
    pub sequencing: Sequencing,
    /// Most pages (of [`PAGE_BYTES`]) that the database file may have: an operator's bound on what this installation takes
    /// of a shared disk. Commits beyond it are refused as [`CommitError::Full`] while reads go on; the log beside the
    /// file comes on top, usually 16 MiB. `None`: as far as the disk goes.
    pub page_count_max: Option<u32>,
}

/// Whether a name can stand in a log's origin, which is a line of a signed note and the name of its key.
fn name_ok(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c != '/' && c != '+' && !c.is_whitespace() && !c.is_control())
}

/// The embedded engine.
pub struct Sqlite {
    requests: Option<mpsc::Sender<writer::Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
    waiting: Arc<Mutex<HashMap<TenantId, usize>>>,
    readers: Vec<Mutex<Connection>>,
    hints: Hints,
    /// Held for as long as the database is open. Declared last, so that everything else is closed before it.
    _lock: File,
}

/// Makes the folder, lastingly, and takes its lock. The operating system lets go of it when the process ends, however
/// it ends.
fn folder_lock(folder: &Path) -> Result<File, OpenError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::create_dir_all(folder)?;
    // A new folder outlives a power loss only once the one above it has been written out. A relative path ends in an empty
    // one, which is no name in anything.
    for made in missing.into_iter().filter(|made| !made.as_os_str().is_empty()) {
        files::folder_flush(files::above(made))?;
    }
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("writ.lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(OpenError::Folder(error)),
    }
}

impl Sqlite {
    /// Opens or creates the database and starts its writer.
    ///
    /// # Errors
    /// If the folder, the file or the names in the options cannot be used, or another process is using the folder.
    pub fn open(options: Options) -> Result<Sqlite, OpenError> {
        for name in [&options.installation, &options.cell] {
            if !name_ok(name) {
                return Err(OpenError::Name(name.clone()));
            }
        }
        let lock = folder_lock(&options.folder)?;
        let path = options.folder.join(DATABASE);
        let connection = schema::open_writer(&path, options.page_count_max)?;
        let readers =
            (0..READERS).map(|_| schema::open_reader(&path).map(Mutex::new)).collect::<Result<_, _>>()?;
        let (requests, inbox) = mpsc::channel(WAITING_MAX);
        let (facts_hint, facts) = watch::channel(0);
        let (jobs_hint, jobs) = watch::channel(0);
        let mut writer = writer::Writer::new(connection, options, facts_hint, jobs_hint);
        let settled = writer.settle().and_then(|()| writer.release());
        settled.map_err(|error| std::io::Error::other(error.to_string()))?;
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(inbox))
            .map_err(OpenError::Folder)?;
        Ok(Sqlite {
            requests: Some(requests),
            writer: Some(writer),
            waiting: Arc::default(),
            readers,
            hints: Hints { facts, jobs },
            _lock: lock,
        })
    }

    /// Compares the database with the mark in `path`, and keeps the mark from now on; see [`mark`]. `key` is the public key
    /// of the installation's logs in hexadecimal. What does not fit is written down as [`Standing::put_back`].
    ///
    /// # Errors
    /// If the mark cannot be read or written, or the writer has failed.
    pub async fn mark_keep(&self, path: PathBuf, key: String) -> Result<(), MarkError> {
        let asked = self.ask(|reply| writer::Request::Mark { path, key, reply });
        asked.await.map_err(MarkError::Commit)?
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        let free = self.readers.iter().find_map(|reader| reader.try_lock());
        let connection = free.unwrap_or_else(|| self.readers[0].lock());
        read(&connection).map_err(|error| ReadError::Failed(error.to_string()))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, CommitError>>) -> writer::Request,
    ) -> Result<T, CommitError> {
        let stopped = || CommitError::Failed("the writer has stopped".into());
        let (reply, answer) = oneshot::channel();
        // `requests` is taken only in `drop`, when nobody can be asking.
        let requests = self.requests.as_ref().ok_or_else(stopped)?;
        requests.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Sqlite {
    /// Lets the writer finish what is waiting, then closes the database.
    fn drop(&mut self) {
        self.requests.take();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Counts a tenant's waiting commits for as long as it lives. It travels with the request, so that a caller who gives
/// up does not make room for another while the writer still has the work before it.
struct Place {
    waiting: Arc<Mutex<HashMap<TenantId, usize>>>,
    tenant: TenantId,
}

impl Place {
    fn take(waiting: &Arc<Mutex<HashMap<TenantId, usize>>>, tenant: &TenantId) -> Result<Place, CommitError> {
        let mut counts = waiting.lock();
        let count = counts.entry(tenant.clone()).or_insert(0);
        if *count >= WAITING_PER_TENANT_MAX {
            return Err(CommitError::Overloaded);
        }
        *count += 1;
        Ok(Place { waiting: waiting.clone(), tenant: tenant.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.waiting.lock();
        if let Some(count) = counts.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.tenant);
            }
        }
    }
}

impl Engine for Sqlite {
    fn commit(&self, changeset: Changeset) -> Pending<'_, Result<Committed, CommitError>> {
        async move {
            let place = Place::take(&self.waiting, changeset.tenant())?;
            let (tenant, origin, draft) = changeset.into_parts();
            for operation in &draft.operations {
                if let Operation::Blob { digest, bytes } = operation
                    && sha256(bytes) != *digest
                {
                    let name = format!("blob {} with bytes of another digest", hex::encode(digest));
                    return Err(CommitError::OutsidePermit(name));
                }
            }
            crate::crash::point("commit.received");
            let commit = Box::new(writer::Commit { tenant, origin, draft, place });
            let committed = self.ask(|reply| writer::Request::Commit { commit, reply }).await?;
            crate::crash::point("commit.replied");
            Ok(committed)
        }
        .boxed()
    }

    fn record<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        async move { self.read(|db| reads::record(db, tenant, kind, id)) }.boxed()
    }

    fn record_list<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        async move { self.read(|db| reads::record_list(db, tenant, kind, &range)) }.boxed()
    }

    fn record_unique<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        async move { self.read(|db| reads::record_unique(db, tenant, kind, name, key)) }.boxed()
    }

    fn record_unique_anywhere<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<(TenantId, Row)>, ReadError>> {
        async move { self.read(|db| reads::record_unique_anywhere(db, kind, name, key)) }.boxed()
    }

    fn outcome<'a>(
        &'a self,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        async move { self.read(|db| reads::outcome(db, tenant, principal, act, key)) }.boxed()
    }

    fn blob<'a>(
        &'a self,
        tenant: &'a TenantId,
        digest: &'a Digest,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        async move { self.read(|db| reads::blob(db, tenant, digest)) }.boxed()
    }

    fn jobs_claim(
        &self,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'_, Result<Vec<Lease>, CommitError>> {
        self.ask(move |reply| writer::Request::Claim { kinds, limit, reply }).boxed()
    }

    fn job_renew<'a>(&'a self, lease: &'a Lease) -> Pending<'a, Result<bool, CommitError>> {
        let (tenant, job, epoch, kind) = (lease.tenant.clone(), lease.id.clone(), lease.epoch, lease.kind);
        self.ask(move |reply| writer::Request::Renew { tenant, job, epoch, kind, reply }).boxed()
    }

    fn jobs_next_due_ms(&self) -> Pending<'_, Result<Option<i64>, ReadError>> {
        async move { self.read(jobs::next_due_ms) }.boxed()
    }

    fn jobs<'a>(&'a self, tenant: &'a TenantId, limit: usize) -> Pending<'a, Result<Vec<JobRow>, ReadError>> {
        async move { self.read(|db| jobs::list(db, tenant, limit)) }.boxed()
    }

    fn tenants(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        async move { self.read(reads::tenants) }.boxed()
    }

    fn head<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Option<Head>, ReadError>> {
        async move { self.read(|db| log::head(db, tenant)) }.boxed()
    }

    fn leaves<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        async move { self.read(|db| log::leaves(db, tenant, from, limit)) }.boxed()
    }

    fn stream<'a>(
        &'a self,
        tenant: &'a TenantId,
        stream: &'a Id,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        async move { self.read(|db| log::stream(db, tenant, stream, from, limit)) }.boxed()
    }

    fn aside<'a>(
        &'a self,
        tenant: &'a TenantId,
        fact: &'a Id,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        async move { self.read(|db| reads::aside(db, tenant, fact)) }.boxed()
    }

    fn proof<'a>(
        &'a self,
        tenant: &'a TenantId,
        size: u64,
        indices: Vec<u64>,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        async move { self.read(|db| log::proof(db, tenant, size, indices)) }.boxed()
    }

    fn consistency<'a>(
        &'a self,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        async move { self.read(|db| log::consistency(db, tenant, old, new)) }.boxed()
    }

    fn sequence(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.ask(move |reply| writer::Request::Sequence { limit, reply }).boxed()
    }

    fn checkpoint_put<'a>(
        &'a self,
        tenant: &'a TenantId,
        checkpoint: kernel::note::Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        let tenant = tenant.clone();
        self.ask(move |reply| writer::Request::Checkpoint { tenant, checkpoint, note, reply }).boxed()
    }

    fn checkpoints<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<CheckpointRow>, ReadError>> {
        async move { self.read(|db| log::checkpoints(db, tenant, after, limit)) }.boxed()
    }

    fn checkpoint_last<'a>(
        &'a self,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<CheckpointRow>, ReadError>> {
        async move { self.read(|db| log::checkpoint_last(db, tenant)) }.boxed()
    }

    fn account<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
    ) -> Pending<'a, Result<Option<Account>, ReadError>> {
        async move { self.read(|db| ledger::account(db, tenant, account)) }.boxed()
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: Option<&'a Id>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<Account>, ReadError>> {
        async move { self.read(|db| ledger::accounts(db, tenant, after, limit)) }.boxed()
    }

    fn transfer<'a>(
        &'a self,
        tenant: &'a TenantId,
        transfer: &'a Id,
    ) -> Pending<'a, Result<Option<TransferRow>, ReadError>> {
        async move { self.read(|db| ledger::transfer(db, tenant, transfer)) }.boxed()
    }

    fn statement<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<'a, Result<Option<Statement>, ReadError>> {
        async move { self.read(|db| ledger::statement(db, tenant, account, before, limit)) }.boxed()
    }

    fn standing(&self) -> Pending<'_, Result<Standing, ReadError>> {
        async move { self.read(epochs::standing) }.boxed()
    }

    fn epochs<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Vec<EpochRow>, ReadError>> {
        async move { self.read(|db| epochs::list(db, tenant)) }.boxed()
    }

    fn tenants_behind(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        async move { self.read(epochs::behind) }.boxed()
    }

    fn holds_expire(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.ask(move |reply| writer::Request::Expire { limit, reply }).boxed()
    }

    fn hints(&self) -> Hints {
        self.hints.clone()
    }
}
