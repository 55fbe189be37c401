//! The writer thread: takes what is waiting, applies it in one transaction, answers after the one fsync.

use super::apply::{self, Bench, Stop, Tenant};
use super::{BATCH_MAX, Options, log};
use crate::{Clock, CommitError, Committed, Sequencing, crash};
use kernel::changeset::Changeset;
use kernel::note::Checkpoint;
use kernel::permit::{JobKind, Seal};
use kernel::{Id, Lease, TenantId, merkle};
use rusqlite::{Connection, ErrorCode, params};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Most tenants whose logs are kept in memory; beyond, the memory starts afresh.
const TENANTS_MAX: usize = 10_000;

type Reply<T> = oneshot::Sender<Result<T, CommitError>>;

/// What the writer can be asked to do.
pub(super) enum Request {
    Commit { changeset: Box<Changeset>, reply: Reply<Committed> },
    Claim { kinds: &'static [&'static JobKind], limit: usize, reply: Reply<Vec<Lease>> },
    Renew { tenant: TenantId, job: Id, epoch: u64, kind: &'static JobKind, reply: Reply<bool> },
    Sequence { limit: usize, reply: Reply<usize> },
    Checkpoint { tenant: TenantId, checkpoint: Checkpoint, note: String, reply: Reply<bool> },
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
    served_last: String,
    facts_hint: watch::Sender<u64>,
    jobs_hint: watch::Sender<u64>,
    /// Why no more writes are taken: after an I/O error nobody knows what reached the disk.
    failed: Option<String>,
}

/// What a batch brought, for the hints.
#[derive(Default)]
struct News {
    facts: bool,
    jobs: bool,
}

impl Writer {
    pub fn new(db: Connection, options: Options, facts_hint: watch::Sender<u64>, jobs_hint: watch::Sender<u64>) -> Writer {
        Writer {
            db,
            clock: options.clock,
            seal: options.seal,
            home: format!("{}/{}", options.installation, options.cell),
            deferred: options.sequencing == Sequencing::Deferred,
            tenants: HashMap::new(),
            served_last: String::new(),
            facts_hint,
            jobs_hint,
            failed: None,
        }
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
        let mut done = match &self.failed {
            Some(why) => Err(CommitError::Failed(why.clone())),
            None => Ok(()),
        };
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
            done = self.execute("COMMIT");
        }
        match done {
            Ok(()) => {
                crash::point("commit.durable");
                for answer in answers {
                    answer(None);
                }
                if news.facts {
                    self.facts_hint.send_modify(|count| *count += 1);
                }
                if news.jobs {
                    self.jobs_hint.send_modify(|count| *count += 1);
                }
            }
            Err(error) => {
                // Nothing of the batch happened, so nothing remembered about it holds.
                if !self.db.is_autocommit() {
                    let _ = self.db.execute_batch("ROLLBACK");
                }
                self.tenants.clear();
                for answer in answers {
                    answer(Some(match &error {
                        CommitError::Full => CommitError::Full,
                        other => CommitError::Failed(other.to_string()),
                    }));
                }
            }
        }
        if self.tenants.len() > TENANTS_MAX {
            self.tenants.clear();
        }
    }

    fn execute(&mut self, sql: &str) -> Result<(), CommitError> {
        let result = self.db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        result.map(|_| ()).map_err(|error| self.broken(&error))
    }

    fn flush(&mut self) -> Result<(), CommitError> {
        let result = self.tenants.iter_mut().try_for_each(|(tenant, state)| state.log.flush(&self.db, tenant));
        result.map_err(|error| self.broken(&error))
    }

    /// Takes note of a failure of SQLite. A full disk passes; an I/O error or damage is final for this process,
    /// because after a failed fsync the page cache may hold what the disk does not.
    fn broken(&mut self, error: &rusqlite::Error) -> CommitError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CommitError::Full,
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                tracing::error!(%error, "storage has failed; no more writes are taken until a restart");
                self.failed = Some(error.to_string());
                CommitError::Failed(error.to_string())
            }
            _ => {
                tracing::error!(%error, "a batch of writes was taken back");
                CommitError::Failed(error.to_string())
            }
        }
    }

    fn request(&mut self, request: Request, answers: &mut Vec<Answer>, news: &mut News) -> rusqlite::Result<()> {
        let mut bench = Bench {
            db: &self.db,
            seal: &self.seal,
            now_ms: self.clock.now_ms(),
            home: &self.home,
            deferred: self.deferred,
            tenants: &mut self.tenants,
        };
        match request {
            Request::Commit { changeset, reply } => match apply::check(&mut bench, *changeset) {
                Err(Stop::Refused(refused)) => answers.push(answer(reply, Err(refused))),
                Err(Stop::Broken(error)) => {
                    answers.push(answer(reply, Ok(Committed::default())));
                    return Err(error);
                }
                Ok(checked) => match apply::write(&mut bench, checked) {
                    Ok(committed) => {
                        news.facts = true;
                        news.jobs = true;
                        answers.push(answer(reply, Ok(committed)));
                    }
                    Err(error) => {
                        answers.push(answer(reply, Ok(Committed::default())));
                        return Err(error);
                    }
                },
            },
            Request::Claim { kinds, limit, reply } => match apply::claim(&bench, kinds, limit, &mut self.served_last) {
                Ok(leases) => answers.push(answer(reply, Ok(leases))),
                Err(error) => {
                    answers.push(answer(reply, Ok(Vec::new())));
                    return Err(error);
                }
            },
            Request::Renew { tenant, job, epoch, kind, reply } => {
                let renewed = self
                    .db
                    .prepare_cached("UPDATE jobs SET due_ms = ? WHERE tenant = ? AND id = ? AND epoch = ?")?
                    .execute(params![
                        bench.now_ms + kind.lease_ms,
                        tenant.as_str(),
                        job.as_str(),
                        i64::try_from(epoch).unwrap_or(i64::MAX)
                    ])?;
                answers.push(answer(reply, Ok(renewed == 1)));
            }
            Request::Sequence { limit, reply } => match apply::sequence(&mut bench, limit) {
                Ok(count) => {
                    news.facts |= count > 0;
                    answers.push(answer(reply, Ok(count)));
                }
                Err(error) => {
                    answers.push(answer(reply, Ok(0)));
                    return Err(error);
                }
            },
            Request::Checkpoint { tenant, checkpoint, note, reply } => {
                let kept = checkpoint_keep(&mut bench, &tenant, &checkpoint, &note)?;
                answers.push(answer(reply, Ok(kept)));
            }
        }
        Ok(())
    }
}

/// Keeps a checkpoint if it says what the log says, and more than the last one said.
fn checkpoint_keep(bench: &mut Bench<'_>, tenant: &TenantId, checkpoint: &Checkpoint, note: &str) -> rusqlite::Result<bool> {
    let db = bench.db;
    let last = log::checkpoint_last(db, tenant)?.map_or(0, |last| last.size);
    let Some(state) = apply::tenant(db, bench.tenants, tenant)? else { return Ok(false) };
    if state.log.origin != checkpoint.origin || checkpoint.size <= last || checkpoint.size > state.log.size() {
        return Ok(false);
    }
    let root = merkle::root_at(checkpoint.size, &mut |level, n| log::node(db, tenant, level, n))?;
    if root != checkpoint.root {
        return Ok(false);
    }
    db.prepare_cached("INSERT INTO checkpoints (tenant, size, note) VALUES (?, ?, ?)")?
        .execute(params![tenant.as_str(), i64::try_from(checkpoint.size).unwrap_or(i64::MAX), note])?;
    Ok(true)
}

/// The answer to a request that was not looked at because the batch had already failed.
fn unanswered(request: Request) -> Answer {
    match request {
        Request::Commit { reply, .. } => answer(reply, Ok(Committed::default())),
        Request::Claim { reply, .. } => answer(reply, Ok(Vec::new())),
        Request::Renew { reply, .. } => answer(reply, Ok(false)),
        Request::Sequence { reply, .. } => answer(reply, Ok(0)),
        Request::Checkpoint { reply, .. } => answer(reply, Ok(false)),
    }
}
