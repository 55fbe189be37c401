//! The writer thread: takes what is waiting, applies it in one transaction, answers after the one fsync.

use super::apply::{self, Bench, Stop, Tenant};
use super::mark::{Mark, MarkError};
use super::reads::signed;
use super::schema::{BUSY, WAL_FRAMES};
use super::{BATCH_MAX, Options, Place, jobs, ledger, log};
use crate::{CLAIM_MAX, Clock, CommitError, Committed, EXPIRE_MAX, SEQUENCE_MAX, Sequencing, crash};
use kernel::changeset::{Draft, Origin};
use kernel::note::{Checkpoint, NOTE_BYTES_MAX};
use kernel::permit::{JobKind, Seal};
use kernel::{Id, Lease, TenantId};
use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
use rusqlite::{Connection, ErrorCode, params};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Most tenants whose logs are kept in memory; beyond, the memory starts afresh.
const TENANTS_MAX: usize = 10_000;
/// Most streams whose last number is kept in memory, over all tenants; beyond, the memory starts afresh.
const STREAMS_MAX: usize = 200_000;

type Reply<T> = oneshot::Sender<Result<T, CommitError>>;

/// What the writer can be asked to do.
pub(super) enum Request {
    Commit { commit: Box<Commit>, reply: Reply<Committed> },
    Claim { kinds: &'static [&'static JobKind], limit: usize, reply: Reply<Vec<Lease>> },
    Renew { tenant: TenantId, job: Id, epoch: u64, kind: &'static JobKind, reply: Reply<bool> },
    Sequence { limit: usize, reply: Reply<usize> },
    Checkpoint { tenant: TenantId, checkpoint: Checkpoint, note: String, reply: Reply<bool> },
    Expire { limit: usize, reply: Reply<usize> },
    Mark { path: PathBuf, key: String, reply: Reply<Result<(), MarkError>> },
}

/// A changeset on its way to the writer.
pub(super) struct Commit {
    pub tenant: TenantId,
    pub origin: Origin,
    pub draft: Draft,
    /// Its place in the queue, given up when the writer has dealt with it.
    pub place: Place,
}

/// A reply that waits for the transaction to become durable.
type Answer = Box<dyn FnOnce(Option<CommitError>) + Send>;

fn answer<T: Send + 'static>(reply: Reply<T>, value: Result<T, CommitError>) -> Answer {
    Box::new(move |failure| {
        // Whoever asked may have stopped waiting; the outcome stands all the same.
        let _ = reply.send(match failure {
            None => value,
            Some(failure) => Err(failure),
        });
    })
}

pub(super) struct Writer {
    db: Connection,
    clock: Arc<dyn Clock>,
    seal: Seal,
    home: String,
    deferred: bool,
    tenants: HashMap<TenantId, Tenant>,
    touched: Vec<TenantId>,
    streams: usize,
    served_last: String,
    facts_hint: watch::Sender<u64>,
    jobs_hint: watch::Sender<u64>,
    /// What is told of every checkpoint before anybody else is.
    mark: Option<Mark>,
    /// Why no writes are taken, if they are not.
    failed: Option<Failed>,
}

/// Why no writes are taken.
struct Failed {
    why: String,
    /// Until the next start; otherwise it may be over.
    for_good: bool,
}

/// What a checkpoint of the write-ahead log says.
struct Moved {
    /// Somebody's reading or writing stood in the way.
    busy: bool,
    /// Frames in the log, and how many of them are in the database.
    frames: i64,
    done: i64,
}

/// What a batch brought, for the hints.
#[derive(Default)]
struct News {
    facts: bool,
    jobs: bool,
    /// The installation's standing has changed.
    standing: bool,
}

impl Writer {
    pub fn new(
        db: Connection,
        options: Options,
        facts_hint: watch::Sender<u64>,
        jobs_hint: watch::Sender<u64>,
    ) -> Writer {
        Writer {
            db,
            clock: options.clock,
            seal: options.seal,
            home: format!("{}/{}", options.installation, options.cell),
            deferred: options.sequencing == Sequencing::Deferred,
            tenants: HashMap::new(),
            touched: Vec::new(),
            streams: 0,
            served_last: String::new(),
            facts_hint,
            jobs_hint,
            mark: None,
            failed: None,
        }
    }

    /// Brings the log up to date when the last run was deferred and this one is not: what is committed from now on
    /// must stand behind what was committed then.
    pub fn settle(&mut self) -> Result<(), CommitError> {
        while !self.deferred {
            let mut moved = 0;
            self.execute("BEGIN IMMEDIATE")?;
            let done = apply::sequence(&mut self.bench(), SEQUENCE_MAX).map(|count| moved = count);
            let done = done.map_err(|error| self.broken(&error)).and_then(|()| self.flush());
            self.finish(done)?;
            if moved == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Ends the leases of the process that had the folder before. On a full disk they run out by themselves.
    pub fn release(&mut self) -> Result<(), CommitError> {
        self.execute("BEGIN IMMEDIATE")?;
        let released = jobs::release(&self.bench()).map_err(|error| self.broken(&error));
        let jobs = *released.as_ref().unwrap_or(&0);
        match self.finish(released.map(|_| ())) {
            Ok(()) if jobs > 0 => tracing::info!(jobs, "the last run left jobs under way; they go on"),
            Ok(()) => {}
            Err(CommitError::Full) => {
                tracing::warn!("the disk is full: jobs that were under way wait for their leases to run out");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Works until every handle on the engine is gone.
    pub fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(first) = inbox.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_MAX {
                match inbox.try_recv() {
                    Ok(request) => batch.push(request),
                    Err(_) => break,
                }
            }
            self.batch(&mut batch);
        }
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn batch(&mut self, requests: &mut Vec<Request>) {
        let mut answers: Vec<Answer> = Vec::with_capacity(requests.len());
        let mut news = News::default();
        let mut done = self.revived();
        if done.is_ok() {
            done = self.execute("BEGIN IMMEDIATE");
        }
        for request in requests.drain(..) {
            let outcome = match &done {
                Ok(()) => self.request(request, &mut answers, &mut news),
                Err(_) => {
                    answers.push(unanswered(request));
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                done = Err(self.broken(&error));
            }
        }
        if done.is_ok() {
            done = self.flush();
        }
        if done.is_ok() {
            crash::point("commit.applied");
        }
        match self.finish(done) {
            Ok(()) => {
                crash::point("commit.durable");
                if news.standing {
                    crash::point("mark.due");
                    self.mark_advance();
                    crash::point("mark.moved");
                }
                for answer in answers {
                    answer(None);
                }
                if news.facts {
                    self.facts_hint.send_modify(|count| *count += 1);
                }
                if news.jobs {
                    self.jobs_hint.send_modify(|count| *count += 1);
                }
                self.checkpoint();
            }
            Err(error) => {
                for answer in answers {
                    answer(Some(repeat(&error)));
                }
            }
        }
    }

    /// Brings the mark up to what is durable, before anybody is told of it. A failure is said and made up by the next one:
    /// a mark that lags behind sees less, and nothing wrongly.
    fn mark_advance(&self) {
        let advanced = self.mark.as_ref().map(|mark| mark.advance(&self.db));
        match advanced {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => tracing::error!(%error, "the high-water mark could not be moved on"),
            Some(Err(error)) => tracing::error!(%error, "the high-water mark could not be moved on"),
        }
    }

    /// Whether writes can be taken. After an I/O error only once the write-ahead log has gone into the database and that has
    /// reached the disk.
    fn revived(&mut self) -> Result<(), CommitError> {
        let Some(failed) = &self.failed else { return Ok(()) };
        let why = failed.why.clone();
        if !failed.for_good
            && matches!(self.moved("PRAGMA wal_checkpoint(FULL)"), Ok(Moved { busy: false, .. }))
        {
            tracing::warn!("storage takes writes again");
            self.failed = None;
            return Ok(());
        }
        Err(CommitError::Failed(why))
    }

    /// Moves the write-ahead log into the database once it has grown. SQLite would do that by itself, in the commit, and
    /// would tell nobody if it fails.
    fn checkpoint(&mut self) {
        let grown = self.moved("PRAGMA wal_checkpoint(NOOP)").and_then(|moved| {
            if moved.frames < WAL_FRAMES || moved.done >= moved.frames {
                return Ok(moved);
            }
            self.moved("PRAGMA wal_checkpoint(PASSIVE)")
        });
        if let Err(error) = grown {
            self.broken(&error);
        }
    }

    fn moved(&self, pragma: &str) -> rusqlite::Result<Moved> {
        // Whoever reads is not waited for: every caller would wait as well.
        self.db.busy_timeout(Duration::ZERO)?;
        let moved = self.db.prepare_cached(pragma).and_then(|mut statement| {
            statement.query_row([], |row| {
                let busy: i64 = row.get(0)?;
                Ok(Moved { busy: busy != 0, frames: row.get(1)?, done: row.get(2)? })
            })
        });
        self.db.busy_timeout(BUSY)?;
        moved
    }

    /// Ends the transaction: commits it if all went well so far, and takes it back otherwise.
    fn finish(&mut self, done: Result<(), CommitError>) -> Result<(), CommitError> {
        let done = done.and_then(|()| self.execute("COMMIT"));
        if done.is_err() && !self.db.is_autocommit() {
            let _ = self.db.execute_batch("ROLLBACK");
        }
        // After a failure nothing of the batch happened, so nothing remembered about it holds.
        if done.is_err() || self.tenants.len() > TENANTS_MAX || self.streams > STREAMS_MAX {
            self.tenants.clear();
            self.streams = 0;
        }
        self.touched.clear();
        done
    }

    fn execute(&mut self, sql: &str) -> Result<(), CommitError> {
        let result = self.db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        result.map(|_| ()).map_err(|error| self.broken(&error))
    }

    fn flush(&mut self) -> Result<(), CommitError> {
        let result = self.touched.iter().try_for_each(|tenant| match self.tenants.get_mut(tenant) {
            Some(state) => state.log.flush(&self.db, tenant),
            None => Ok(()),
        });
        result.map_err(|error| self.broken(&error))
    }

    /// Takes note of a failure of SQLite. A full disk passes, and so may a disk that takes no writes: see
    /// [`Writer::revived`]. Damage is final for this process, and so is a flush that failed: it may be told once and
    /// succeed the next time, with pages that are in memory alone. The next start writes out what the log holds.
    fn broken(&mut self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CommitError::Full,
            Some(
                code @ (ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase),
            ) => {
                let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
                let for_good = matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                    || matches!(extended, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC);
                tracing::error!(%error, for_good, "storage has failed and takes no writes");
                self.failed = Some(Failed { why: error.to_string(), for_good });
                CommitError::Failed(error.to_string())
            }
            _ => {
                tracing::error!(%error, "a batch of writes was taken back");
                CommitError::Failed(error.to_string())
            }
        }
    }

    fn bench(&mut self) -> Bench<'_> {
        Bench {
            db: &self.db,
            seal: &self.seal,
            now_ms: self.clock.now_ms(),
            home: &self.home,
            deferred: self.deferred,
            tenants: &mut self.tenants,
            touched: &mut self.touched,
            streams: &mut self.streams,
        }
    }

    fn request(
        &mut self,
        request: Request,
        answers: &mut Vec<Answer>,
        news: &mut News,
    ) -> rusqlite::Result<()> {
        let before = self.db.total_changes();
        match request {
            Request::Commit { commit, reply } => {
                let Commit { tenant, origin, draft, place: _place } = *commit;
                let mut bench = self.bench();
                let checked = match apply::check(&mut bench, tenant, origin, draft) {
                    Ok(checked) => checked,
                    Err(Stop::Refused(refused)) => {
                        answers.push(answer(reply, Err(refused)));
                        return Ok(());
                    }
                    // A stored value that cannot be read, not SQLite: it concerns this changeset alone, which has
                    // written nothing yet.
                    Err(Stop::Broken(error)) if error.sqlite_error_code().is_none() => {
                        answers.push(unreadable(reply, &error));
                        return Ok(());
                    }
                    Err(Stop::Broken(error)) => return settled(answers, reply, Err(error)),
                };
                let (jobs, moves) = (checked.enqueues(), checked.moves());
                let written = apply::write(&mut bench, checked);
                if written.is_ok() {
                    news.facts = true;
                    news.jobs |= jobs;
                    news.standing |= moves;
                }
                settled(answers, reply, written)
            }
            Request::Claim { kinds, limit, reply } => {
                // Taken out while the rest of the writer is lent to the bench.
                let mut served_last = std::mem::take(&mut self.served_last);
                let leases = jobs::claim(&self.bench(), kinds, limit.min(CLAIM_MAX), &mut served_last);
                self.served_last = served_last;
                self.alone(before, answers, reply, leases)
            }
            Request::Renew { tenant, job, epoch, kind, reply } => {
                let renewed = jobs::renew(&self.bench(), &tenant, &job, epoch, kind);
                self.alone(before, answers, reply, renewed)
            }
            Request::Sequence { limit, reply } => {
                let count = apply::sequence(&mut self.bench(), limit);
                news.facts |= matches!(count, Ok(count) if count > 0);
                self.alone(before, answers, reply, count)
            }
            Request::Checkpoint { tenant, checkpoint, note, reply } => {
                let kept = checkpoint_keep(&mut self.bench(), &tenant, &checkpoint, &note);
                news.standing |= matches!(kept, Ok(true));
                self.alone(before, answers, reply, kept)
            }
            Request::Expire { limit, reply } => {
                let released = ledger::expire(&self.db, self.clock.now_ms(), limit.min(EXPIRE_MAX));
                self.alone(before, answers, reply, released)
            }
            Request::Mark { path, key, reply } => match Mark::begin(&self.db, path, key) {
                Ok(Ok(mark)) => {
                    self.mark = Some(mark);
                    answers.push(answer(reply, Ok(Ok(()))));
                    Ok(())
                }
                Ok(Err(error)) => {
                    answers.push(answer(reply, Ok(Err(error))));
                    Ok(())
                }
                Err(error) => {
                    answers.push(answer(reply, Ok(Ok(()))));
                    Err(error)
                }
            },
        }
    }

    /// As [`settled`], but a stored value that cannot be read concerns whoever asked alone, as long as nothing was written
    /// for them: `before` is how much had been when their turn came.
    fn alone<T: Default + Send + 'static>(
        &self,
        before: u64,
        answers: &mut Vec<Answer>,
        reply: Reply<T>,
        result: rusqlite::Result<T>,
    ) -> rusqlite::Result<()> {
        match result {
            Err(error) if error.sqlite_error_code().is_none() && self.db.total_changes() == before => {
                answers.push(unreadable(reply, &error));
                Ok(())
            }
            result => settled(answers, reply, result),
        }
    }
}

/// Queues the answer to a request; a failure goes to everybody in the batch, this caller among them.
fn settled<T: Default + Send + 'static>(
    answers: &mut Vec<Answer>,
    reply: Reply<T>,
    result: rusqlite::Result<T>,
) -> rusqlite::Result<()> {
    let (value, outcome) = match result {
        Ok(value) => (value, Ok(())),
        Err(error) => (T::default(), Err(error)),
    };
    answers.push(answer(reply, Ok(value)));
    outcome
}

fn unreadable<T: Send + 'static>(reply: Reply<T>, error: &rusqlite::Error) -> Answer {
    tracing::error!(%error, "a stored value cannot be read");
    answer(reply, Err(CommitError::Failed(error.to_string())))
}

/// The same failure, for one more caller.
fn repeat(error: &CommitError) -> CommitError {
    match error {
        CommitError::Full => CommitError::Full,
        CommitError::Failed(why) => CommitError::Failed(why.clone()),
        other => CommitError::Failed(other.to_string()),
    }
}

/// Keeps a checkpoint if it says what the log says, and more than the last one said.
fn checkpoint_keep(
    bench: &mut Bench<'_>,
    tenant: &TenantId,
    checkpoint: &Checkpoint,
    note: &str,
) -> rusqlite::Result<bool> {
    let db = bench.db;
    // The note is what will be shown, so it has to be a note about this very checkpoint.
    let rest = note.strip_prefix(&checkpoint.text());
    if note.len() > NOTE_BYTES_MAX || rest.is_none_or(|signatures| !signatures.starts_with('\n')) {
        return Ok(false);
    }
    let last = log::checkpoint_last(db, tenant)?.map_or(0, |last| last.size);
    let Some(state) = apply::tenant(db, bench.tenants, tenant)? else { return Ok(false) };
    let size = checkpoint.size;
    if state.log.origin != checkpoint.origin || size <= last || size > state.log.size() {
        return Ok(false);
    }
    let root = if size == state.log.size() { state.log.root() } else { log::root_at(db, tenant, size)? };
    if root != checkpoint.root {
        return Ok(false);
    }
    db.prepare_cached("INSERT INTO checkpoints (tenant, size, note) VALUES (?, ?, ?)")?.execute(params![
        tenant.as_str(),
        signed(size),
        note
    ])?;
    db.prepare_cached("UPDATE standing SET generation = generation + 1")?.execute([])?;
    Ok(true)
}

/// The answer to a request that was not looked at because the batch had already failed.
fn unanswered(request: Request) -> Answer {
    match request {
        Request::Commit { reply, .. } => answer(reply, Ok(Committed::default())),
        Request::Claim { reply, .. } => answer(reply, Ok(Vec::new())),
        Request::Renew { reply, .. } => answer(reply, Ok(false)),
        Request::Sequence { reply, .. } | Request::Expire { reply, .. } => answer(reply, Ok(0)),
        Request::Checkpoint { reply, .. } => answer(reply, Ok(false)),
        Request::Mark { reply, .. } => answer(reply, Ok(Ok(()))),
    }
}
