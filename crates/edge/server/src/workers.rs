//! The pool that runs jobs.
//!
//! A job comes to the pool in one of two ways. Somebody committed it as *held* and hands the lease over, because the next
//! step of a run should start now and not after a look into the database; or it became due, and the pool claims it, on the
//! store's hint or when the next due time has come. Either way it is run under its lease, at most [`Pool`]'s limit at once.
//!
//! What bounds it: running jobs by the limit, handed-over leases by a queue. A lease that finds the queue full is dropped:
//! it runs out, and the job is claimed again. Nothing is lost by that, only time. A lease that has waited in the queue for
//! more than half of its time is renewed before it is run, and dropped if it was lost meanwhile.
//!
//! A job that panics takes nothing with it: its lease runs out, it is claimed again, and each start is counted by the
//! store. Whether too many starts end a job is its own runner's to say; the pool counts them for the operator.
//!
//! At the end the pool takes no more, lets what runs finish for a while, and gives the rest up to their leases.

use crate::counts::Counts;
use crate::tasks::stopped;
use act::{Clock, JobRun, JobSpec, Trace};
use kernel::permit::JobKind;
use kernel::{Id, Lease};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{CLAIM_MAX, CommitError, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;

/// How often the pool looks for due jobs without a hint. Times of jobs are by the injected clock, which no timer knows.
pub const LOOK_MAX: Duration = Duration::from_millis(500);
/// Shortest time between two looks that found nothing to claim.
pub const LOOK_MIN: Duration = Duration::from_millis(10);
/// Rest after storage could not be read or written.
const REST: Duration = Duration::from_millis(250);

/// Where leases are handed over.
#[derive(Clone)]
pub struct Hand {
    queue: mpsc::Sender<Lease>,
    counts: Counts,
}

impl Hand {
    /// Hands a lease over; drops it if too many wait already.
    pub fn over(&self, lease: Lease) {
        if let Err(refused) = self.queue.try_send(lease) {
            let (mpsc::error::TrySendError::Full(lease) | mpsc::error::TrySendError::Closed(lease)) = refused;
            tracing::debug!(job = %lease.id, kind = lease.kind.name, "a lease was dropped; the job will be claimed again");
            self.counts.lease_dropped();
        }
    }
}

/// The pool, not yet running.
pub struct Pool {
    store: Store,
    clock: Arc<dyn Clock>,
    counts: Counts,
    runners: HashMap<&'static str, JobRun>,
    kinds: &'static [&'static JobKind],
    limit: usize,
    held: mpsc::Receiver<Lease>,
}

/// What runs at the moment.
#[derive(Default)]
struct Running {
    jobs: JoinSet<()>,
    named: HashMap<tokio::task::Id, (Id, &'static str)>,
}

impl Pool {
    /// A pool for `jobs` that runs at most `limit` at once and lets at most `held` leases wait.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        counts: Counts,
        jobs: &[JobSpec],
        limit: usize,
        held: usize,
    ) -> (Hand, Pool) {
        let (queue, inbox) = mpsc::channel(held);
        let kinds: Vec<&'static JobKind> = jobs.iter().map(|job| job.kind).collect();
        let pool = Pool {
            store,
            clock,
            counts: counts.clone(),
            runners: jobs.iter().map(|job| (job.kind.name, job.run.clone())).collect(),
            // Once per start of a house; the engine keeps the slice for as long as a claim takes.
            kinds: Box::leak(kinds.into_boxed_slice()),
            limit,
            held: inbox,
        };
        (Hand { queue, counts }, pool)
    }

    /// Runs jobs until `stopping` turns true, then waits at most `grace` for those that run.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>, grace: Duration) {
        let mut running = Running::default();
        // A claim is a task of its own: one that is dropped half-way would lose the leases it was given.
        let mut claims: JoinSet<Result<Vec<Lease>, CommitError>> = JoinSet::new();
        let mut claimed: VecDeque<Lease> = VecDeque::new();
        let mut hints = self.store.hints().jobs;
        let mut hinted = true;
        let mut look_at = Instant::now();
        loop {
            while running.jobs.len() < self.limit
                && let Some(lease) = claimed.pop_front()
            {
                self.start(&mut running, lease);
            }
            let free = running.jobs.len() < self.limit;
            // Without a room nothing is looked for: the end of a job brings us back here.
            let looks = free && claims.is_empty();
            tokio::select! {
                () = stopped(&mut stopping) => break,
                Some(ended) = running.jobs.join_next_with_id() => self.ended(&mut running, ended),
                Some(lease) = self.held.recv(), if free => self.start(&mut running, lease),
                Some(done) = claims.join_next() => match done {
                    Ok(Ok(leases)) if !leases.is_empty() => {
                        claimed.extend(leases);
                        look_at = Instant::now();
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "jobs could not be claimed");
                        look_at = Instant::now() + REST;
                    }
                    Err(_) => look_at = Instant::now() + REST,
                },
                woken = hints.changed(), if looks && hinted => {
                    hinted = woken.is_ok();
                    look_at = Instant::now();
                }
                () = tokio::time::sleep_until(look_at), if looks => {
                    let room = self.limit - running.jobs.len();
                    look_at = Instant::now() + self.look(&mut claims, room).await;
                }
            }
        }
        self.held.close();
        drop(claimed);
        let ended = tokio::time::timeout(grace, async {
            while let Some(ended) = running.jobs.join_next_with_id().await {
                self.ended(&mut running, ended);
            }
        });
        if ended.await.is_err() {
            tracing::warn!(
                left = running.jobs.len(),
                "jobs were stopped where they stood; they will be claimed again"
            );
            running.jobs.shutdown().await;
        }
    }

    /// Starts a claim if a job is due; says after how long to look again.
    async fn look(&self, claims: &mut JoinSet<Result<Vec<Lease>, CommitError>>, room: usize) -> Duration {
        match self.store.jobs_next_due_ms().await {
            Err(error) => {
                tracing::warn!(%error, "due jobs could not be looked for");
                REST
            }
            Ok(None) => LOOK_MAX,
            Ok(Some(due_ms)) => match u64::try_from(due_ms - self.clock.now_ms()) {
                Ok(wait_ms) if wait_ms > 0 => Duration::from_millis(wait_ms).clamp(LOOK_MIN, LOOK_MAX),
                _ => {
                    let (store, kinds, limit) = (self.store.clone(), self.kinds, room.min(CLAIM_MAX));
                    claims.spawn(async move { store.jobs_claim(kinds, limit).await });
                    LOOK_MIN
                }
            },
        }
    }

    fn start(&self, running: &mut Running, lease: Lease) {
        let Some(run) = self.runners.get(lease.kind.name).cloned() else {
            // Only registered kinds are claimed; a held job of another kind is a bug of its domain.
            tracing::error!(job = %lease.id, kind = lease.kind.name, "nobody runs jobs of this kind");
            return;
        };
        if lease.starts > lease.kind.starts_max {
            tracing::warn!(job = %lease.id, kind = lease.kind.name, starts = lease.starts, "a job was started too often");
            self.counts.job_poisoned();
        }
        self.counts.job_started();
        let (job, kind) = (lease.id.clone(), lease.kind.name);
        let (store, now_ms) = (self.store.clone(), self.clock.now_ms());
        // In the trace of whoever left the job behind.
        let trace = Trace::of(&lease.authority.trace);
        let span = tracing::info_span!(
            "job",
            otel.kind = "consumer",
            otel.name = format!("job {kind}"),
            trace_id = trace.trace_hex(),
            parent_id = trace.span_hex(),
            writ.job.kind = kind,
            writ.job.id = %job,
            writ.job.starts = lease.starts,
            writ.tenant = %lease.tenant,
        );
        let work = async move {
            if lease.lease_until_ms - now_ms < lease.kind.lease_ms / 2 && !renewed(&store, &lease).await {
                return;
            }
            run(lease).await;
        };
        let task = running.jobs.spawn(work.instrument(span));
        running.named.insert(task.id(), (job, kind));
    }

    fn ended(&self, running: &mut Running, ended: Result<(tokio::task::Id, ()), JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let named = running.named.remove(&task);
        if let (Err(error), Some((job, kind))) = (ended, named)
            && error.is_panic()
        {
            tracing::error!(%job, kind, "a job panicked; it will be claimed again when its lease has run out");
            self.counts.job_panicked();
        }
    }
}

async fn renewed(store: &Store, lease: &Lease) -> bool {
    match store.job_renew(lease).await {
        Ok(renewed) => renewed,
        Err(error) => {
            tracing::warn!(%error, job = %lease.id, "a lease could not be renewed");
            false
        }
    }
}
