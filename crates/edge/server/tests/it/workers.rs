//! The pool: what is due is run, what panics takes nothing with it, what cannot wait is given up and comes again.

use act::{Clock, Draw as _, Ids as _, JobRun, JobSpec, SystemIds};
use futures::FutureExt as _;
use kernel::changeset::{Changeset, Draft};
use kernel::permit::{Authority, JobKind, permit_pair};
use kernel::{Fact, Id, Lease, TenantId};
use parking_lot::Mutex;
use serde_json::json;
use server::counts::Counts;
use server::workers::Pool;
use std::sync::Arc;
use std::time::Duration;
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store};
use testkit::VirtualClock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

static KIND: JobKind =
    JobKind { name: "test.work", writes: &[], facts: &["test.done"], lease_ms: 30_000, starts_max: 3 };
const GRACE: Duration = Duration::from_secs(30);

struct Bench {
    store: Store,
    clock: Arc<VirtualClock>,
    counts: Counts,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let folder = testkit::folder::fresh();
        let clock = Arc::new(VirtualClock::default());
        let (_, seal) = permit_pair();
        let engine = Sqlite::open(Options {
            folder: folder.path().to_owned(),
            clock: clock.clone(),
            seal,
            installation: "writ.test".into(),
            cell: "test".into(),
            sequencing: Sequencing::Immediate,
            page_count_max: None,
        });
        Bench { store: Store::new(engine.unwrap()), clock, counts: Counts::default(), _folder: folder }
    }

    fn fact(&self, what: &'static str) -> Fact {
        Fact {
            id: SystemIds.id("fct", self.clock.now_ms()),
            kind: what,
            stream: Id::parse("run_a").unwrap(),
            resource: "test".into(),
            causes: Vec::new(),
            outcome: json!({}),
            aside: None,
        }
    }

    /// Opens a tenant whose log begins with these jobs: their names and when they are ready. Returns held leases.
    async fn enqueue(&self, tenant: &str, jobs: &[(&str, i64, bool)]) -> Vec<Lease> {
        let mut draft = Draft::at(self.clock.now_ms());
        draft.fact(self.fact("test.begun"));
        for (name, ready_at_ms, held) in jobs {
            draft.job(
                Id::parse(&format!("job_{tenant}-{name}")).unwrap(),
                &KIND,
                *ready_at_ms,
                *held,
                &json!({"name": name}),
            );
        }
        let authority = Authority {
            actor: Id::parse("prn_test").unwrap(),
            on_behalf_of: Vec::new(),
            act: "test.work.begin".into(),
            decision: None,
            policy: None,
            assurance: None,
            trace: "trc_test".into(),
        };
        let tenant = TenantId::parse(&format!("ten_{tenant}")).unwrap();
        self.store.commit(Changeset::genesis(tenant, authority, draft).unwrap()).await.unwrap().held
    }

    /// Ends a job with a fact.
    async fn done(&self, lease: Lease) {
        let mut draft = Draft::at(self.clock.now_ms());
        draft.fact(self.fact("test.done"));
        self.store.commit(Changeset::continuing(lease, draft).unwrap()).await.unwrap();
    }

    fn pool(&self, run: JobRun, limit: usize, held: usize) -> (server::workers::Hand, Pool) {
        let jobs = [JobSpec { kind: &KIND, run }];
        Pool::new(self.store.clone(), self.clock.clone(), self.counts.clone(), &jobs, limit, held)
    }
}

/// A running pool, ended by `end`.
struct Running(watch::Sender<bool>, JoinSet<()>);

impl Running {
    fn start(pool: Pool) -> Running {
        let (stop, stopping) = watch::channel(false);
        let mut set = JoinSet::new();
        set.spawn(pool.run(stopping, GRACE));
        Running(stop, set)
    }

    async fn end(mut self) {
        self.0.send_replace(true);
        self.1.join_next().await.unwrap().unwrap();
    }
}

/// A runner that sends leases to the test.
fn to_test() -> (JobRun, mpsc::UnboundedReceiver<Lease>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let run: JobRun = Arc::new(move |lease| {
        let _ = sender.send(lease);
        async {}.boxed()
    });
    (run, receiver)
}

#[tokio::test]
async fn due_jobs_are_claimed_and_later_ones_when_their_time_has_come() {
    let bench = Bench::new();
    let now_ms = bench.clock.now_ms();
    let (run, mut leases) = to_test();
    let (_hand, pool) = bench.pool(run, 4, 4);
    let running = Running::start(pool);
    // Enqueued while the pool waits: the store's hint wakes it.
    bench.enqueue("a", &[("now", now_ms, false), ("later", now_ms + 60_000, false)]).await;
    let first = leases.recv().await.unwrap();
    assert_eq!(first.id.as_str(), "job_a-now");
    bench.done(first).await;
    assert!(leases.try_recv().is_err());
    bench.clock.advance_ms(60_000);
    assert_eq!(leases.recv().await.unwrap().id.as_str(), "job_a-later");
    running.end().await;
}

#[tokio::test]
async fn a_panic_takes_nothing_with_it_and_the_job_comes_again() {
    let bench = Bench::new();
    let (sender, mut starts) = mpsc::unbounded_channel();
    let run: JobRun = Arc::new(move |lease: Lease| {
        let sender = sender.clone();
        async move {
            let _ = sender.send((lease.id.to_string(), lease.starts));
            assert!(!lease.id.as_str().contains("bad"), "as the test wants it");
        }
        .boxed()
    });
    let (hand, pool) = bench.pool(run, 1, 4);
    let held = bench.enqueue("a", &[("bad", 0, true), ("good", 0, true)]).await;
    held.into_iter().for_each(|lease| hand.over(lease));
    let running = Running::start(pool);
    assert_eq!(starts.recv().await.unwrap(), ("job_a-bad".to_owned(), 1));
    assert_eq!(starts.recv().await.unwrap(), ("job_a-good".to_owned(), 1), "the one place is free again");
    // Both leases run out; nobody has ended either job.
    for expected in 2..=4 {
        bench.clock.advance_ms(KIND.lease_ms + 1);
        let mut again = vec![starts.recv().await.unwrap(), starts.recv().await.unwrap()];
        again.sort();
        assert_eq!(again, [("job_a-bad".to_owned(), expected), ("job_a-good".to_owned(), expected)]);
    }
    running.end().await;
    let text = bench.counts.render();
    for line in ["writ_jobs_panicked_total 4", "writ_jobs_started_total 8", "writ_jobs_poisoned_total 2"] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn at_most_so_many_run_and_the_rest_waits_or_is_given_up() {
    let bench = Bench::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (moved, mut moves) = mpsc::unbounded_channel();
    let run: JobRun = {
        let gate = gate.clone();
        Arc::new(move |_| {
            let (gate, moved) = (gate.clone(), moved.clone());
            async move {
                let _ = moved.send(1);
                gate.acquire().await.unwrap().forget();
                let _ = moved.send(-1);
            }
            .boxed()
        })
    };
    let (hand, pool) = bench.pool(run, 2, 3);
    let names: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let jobs: Vec<(&str, i64, bool)> = names.iter().map(|name| (name.as_str(), 0, true)).collect();
    for lease in bench.enqueue("a", &jobs).await {
        hand.over(lease);
    }
    assert!(bench.counts.render().contains("writ_leases_dropped_total 5\n"), "the queue holds three");
    let running = Running::start(pool);
    let (mut inside, mut most, mut begun) = (0, 0, 0);
    // Three at first; those that were given up, and the three that nobody ended, when their leases have run out.
    for expected in [3, 3 + 8] {
        while begun < expected || inside > 0 {
            if inside == 2 || begun == expected {
                gate.add_permits(1);
            }
            let move_by: i32 = moves.recv().await.unwrap();
            inside += move_by;
            begun += move_by.max(0);
            most = most.max(inside);
        }
        bench.clock.advance_ms(KIND.lease_ms + 1);
    }
    assert_eq!(most, 2, "never more than two at once");
    running.end().await;
}

#[tokio::test]
async fn a_lease_that_waited_too_long_is_renewed_or_given_up() {
    let bench = Bench::new();
    let (run, mut leases) = to_test();
    let (hand, pool) = bench.pool(run, 4, 4);
    let mut held = bench.enqueue("a", &[("kept", 0, true), ("lost", 0, true)]).await;
    let lost = held.pop().unwrap();
    let kept = held.pop().unwrap();
    let until_ms = kept.lease_until_ms;
    bench.clock.advance_ms(KIND.lease_ms - 1_000);
    hand.over(kept);
    let running = Running::start(pool);
    assert_eq!(leases.recv().await.unwrap().id.as_str(), "job_a-kept");
    // Nobody else may have it for a while, though its first time is over.
    assert!(until_ms < bench.clock.now_ms() + KIND.lease_ms);
    bench.clock.advance_ms(2_000);
    // By now the pool has claimed the other job itself; the old lease opens nothing.
    let claimed = leases.recv().await.unwrap();
    assert_eq!((claimed.id.as_str(), claimed.starts), ("job_a-lost", 2));
    hand.over(lost);
    running.end().await;
    assert!(leases.try_recv().is_err());
}

#[tokio::test]
async fn the_end_waits_for_what_runs() {
    let bench = Bench::new();
    let (started, mut starts) = mpsc::unbounded_channel();
    let gate = Arc::new(tokio::sync::Notify::new());
    let finished = Arc::new(Mutex::new(false));
    let run: JobRun = {
        let (gate, finished) = (gate.clone(), finished.clone());
        Arc::new(move |_| {
            let (gate, finished, started) = (gate.clone(), finished.clone(), started.clone());
            async move {
                let _ = started.send(());
                gate.notified().await;
                *finished.lock() = true;
            }
            .boxed()
        })
    };
    let (hand, pool) = bench.pool(run, 4, 4);
    for lease in bench.enqueue("a", &[("long", 0, true)]).await {
        hand.over(lease);
    }
    let running = Running::start(pool);
    starts.recv().await.unwrap();
    let mut end = std::pin::pin!(running.end());
    assert!(futures::poll!(end.as_mut()).is_pending());
    gate.notify_one();
    end.await;
    assert!(*finished.lock());
}
