//! What can be asked of the embedded engine alone. What every engine must do is in `testkit::conformance`.

mod abuse;

use kernel::changeset::{Changeset, Draft, NewJob, Operation, Put};
use kernel::permit::{Authority, Grant, JobKind, Mint, Permit, permit_pair};
use kernel::{Fact, Id, TenantId};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::sqlite::{OpenError, Options, Sqlite, WAITING_PER_TENANT_MAX};
use store::{CommitError, ReadError, Sequencing, Store, SystemClock};
use tempfile::TempDir;

/// A kind of job whose leases outlast the test.
static WORK: JobKind =
    JobKind { name: "test.work", writes: &[], facts: &["test.item.done"], lease_ms: 600_000, starts_max: 9 };

static KINDS: &[&JobKind] = &[&WORK];

struct Bed {
    folder: TempDir,
    store: Store,
    mint: Mint,
    facts: AtomicU64,
}

fn options(folder: &Path) -> (Mint, Options) {
    let (mint, seal) = permit_pair();
    let options = Options {
        folder: folder.to_owned(),
        clock: Arc::new(SystemClock),
        seal,
        installation: "writ.test".into(),
        cell: "local".into(),
        sequencing: Sequencing::Immediate,
        page_count_max: None,
    };
    (mint, options)
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(&format!("ten_{name}")).unwrap()
}

impl Bed {
    async fn start() -> Bed {
        Bed::start_as(Sequencing::Immediate).await
    }

    async fn start_as(sequencing: Sequencing) -> Bed {
        let folder = tempfile::tempdir().unwrap();
        let (mint, options) = options(folder.path());
        let store = Store::new(Sqlite::open(Options { sequencing, ..options }).unwrap());
        let bed = Bed { folder, store, mint, facts: AtomicU64::new(0) };
        for name in ["a", "b"] {
            let genesis = Changeset::genesis(tenant(name), bed.authority(), bed.draft(vec![])).unwrap();
            bed.store.commit(genesis).await.unwrap();
        }
        bed
    }

    fn authority(&self) -> Authority {
        Authority {
            actor: Id::parse("prn_a").unwrap(),
            on_behalf_of: vec![],
            act: "test.item.change".into(),
            decision: None,
            policy: None,
            assurance: None,
            trace: String::new(),
        }
    }

    fn draft(&self, operations: Vec<Operation>) -> Draft {
        let n = self.facts.fetch_add(1, Ordering::Relaxed);
        let fact = Fact {
            id: Id::parse(&format!("fct_{n}")).unwrap(),
            kind: "test.item.done",
            stream: Id::parse("run_a").unwrap(),
            resource: "r".into(),
            causes: vec![],
            outcome: serde_json::json!({}),
            aside: None,
        };
        Draft { at_ms: 1, operations, facts: vec![fact] }
    }

    fn put(&self, name: &str, record: &str, rev: Option<u64>) -> Changeset {
        let put = Put {
            kind: "test.item",
            id: Id::parse(record).unwrap(),
            rev,
            body: vec![],
            indexes: vec![],
            uniques: vec![],
        };
        let permit = self.permit(name, &["test.item"]);
        Changeset::under(vec![permit], self.draft(vec![Operation::Put(put)])).unwrap()
    }

    fn permit(&self, name: &str, writes: &'static [&'static str]) -> Permit {
        self.mint.permit(Grant {
            tenant: tenant(name),
            authority: self.authority(),
            args_digest: [0; 32],
            args_commitment: None,
            approvals: vec![],
            writes,
            facts: &["test.item.done"],
            expires_at_ms: i64::MAX,
        })
    }

    /// A connection beside the engine, as an operator's tool would have.
    fn beside(&self) -> Connection {
        Connection::open(self.folder.path().join("writ.db")).unwrap()
    }
}

/// The log beside the database is moved into it while work goes on, and what a process left in it at the next start: as far
/// as the disk has it, in the one place that is flushed as a whole.
#[tokio::test]
async fn the_log_moves_into_the_database() {
    let bed = Bed::start().await;
    let path = bed.folder.path().join("writ.db");
    let before = std::fs::metadata(&path).unwrap().len();
    for n in 0..24 {
        let put = Put {
            kind: "test.item",
            id: Id::parse(&format!("rec_{n}")).unwrap(),
            rev: None,
            body: vec![b'x'; 1 << 20],
            indexes: vec![],
            uniques: vec![],
        };
        let permit = bed.permit("a", &["test.item"]);
        let changeset = Changeset::under(vec![permit], bed.draft(vec![Operation::Put(put)])).unwrap();
        bed.store.commit(changeset).await.unwrap();
    }
    // 24 MiB were written; some of the last 16 may still be in the log.
    let grown = std::fs::metadata(&path).unwrap().len() - before;
    assert!(grown > 8 << 20, "{grown}");
    // Copied as a process that died leaves it, with what is in the log.
    let copy = tempfile::tempdir().unwrap();
    let at = |folder: &Path, name: &str| folder.join(name);
    bed.store.commit(bed.put("b", "rec_last", None)).await.unwrap();
    for name in ["writ.db", "writ.db-wal"] {
        std::fs::copy(at(bed.folder.path(), name), at(copy.path(), name)).unwrap();
    }
    let (_, options) = options(copy.path());
    let again = Store::new(Sqlite::open(options).unwrap());
    // Without its log the database is whole.
    let alone = tempfile::tempdir().unwrap();
    std::fs::copy(at(copy.path(), "writ.db"), at(alone.path(), "writ.db")).unwrap();
    let found: i64 = Connection::open(at(alone.path(), "writ.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM records WHERE id = 'rec_last'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(found, 1);
    drop(again);
}

/// One tenant fills its share of the queue while the writer is held up. It is told so, another is not; and whoever
/// gives up waiting does not make room, because the writer still has the work before it.
#[tokio::test]
async fn a_flood_is_refused_to_its_cause_alone() {
    let bed = Bed::start().await;
    let blocker = bed.beside();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut patient = Vec::new();
    for n in 0..WAITING_PER_TENANT_MAX {
        // Unconstrained, so that one poll is enough for it to queue up however many did so before.
        let commit = bed.store.commit(bed.put("a", &format!("rec_{n}"), None));
        let mut commit = tokio::task::unconstrained(commit);
        assert!(futures::poll!(&mut commit).is_pending());
        // Every other caller gives up.
        if n % 2 == 0 {
            patient.push(commit);
        }
    }
    let refused = bed.store.commit(bed.put("a", "rec_more", None)).await;
    assert!(matches!(refused, Err(CommitError::Overloaded)), "{refused:?}");
    let other = bed.store.commit(bed.put("b", "rec_b", None));
    let release = async { blocker.execute_batch("ROLLBACK").unwrap() };
    let (other, ()) = tokio::join!(other, release);
    other.unwrap();
    for commit in futures::future::join_all(patient).await {
        commit.unwrap();
    }
    // The given-up half was committed too, and there is room again.
    bed.store.commit(bed.put("a", "rec_more", None)).await.unwrap();
    let last = Id::parse(&format!("rec_{}", WAITING_PER_TENANT_MAX - 1)).unwrap();
    assert!(bed.store.record(&tenant("a"), "test.item", &last).await.unwrap().is_some());
    assert_eq!(bed.store.head(&tenant("a")).await.unwrap().unwrap().size, 2 + WAITING_PER_TENANT_MAX as u64);
}

#[tokio::test]
async fn g03_a_folder_has_one_process() {
    let bed = Bed::start().await;
    let (_mint, second) = options(bed.folder.path());
    assert!(matches!(Sqlite::open(second), Err(OpenError::InUse)));
    bed.store.commit(bed.put("a", "rec_a", None)).await.unwrap();
    let folder = bed.folder;
    drop(bed.store);
    let (_mint, second) = options(folder.path());
    Sqlite::open(second).unwrap();
}

#[test]
fn names_must_fit_into_an_origin() {
    let folder = tempfile::tempdir().unwrap();
    for bad in ["", "a/b", "a+b", "a b", "a\nb", "a\u{a0}b"] {
        let (_mint, good) = options(folder.path());
        let named = Sqlite::open(Options { installation: bad.into(), ..good });
        assert!(matches!(&named, Err(OpenError::Name(name)) if name == bad), "{bad:?}");
        let (_mint, good) = options(folder.path());
        assert!(
            matches!(Sqlite::open(Options { cell: bad.into(), ..good }), Err(OpenError::Name(_))),
            "{bad:?}"
        );
    }
    assert!(!folder.path().join("writ.db").exists(), "nothing was made");
    let (_mint, good) = options(&folder.path().join("not/yet/there"));
    Sqlite::open(Options { installation: "writ.example:8080".into(), ..good }).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_not_touched() {
    let bed = Bed::start().await;
    let folder = bed.folder;
    drop(bed.store);
    Connection::open(folder.path().join("writ.db"))
        .unwrap()
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    let (_mint, options) = options(folder.path());
    assert!(matches!(Sqlite::open(options), Err(OpenError::Newer(99))));
}

/// The number alone is not believed: a build that meant something else by it would be misread.
#[tokio::test]
async fn another_schema_of_the_same_version_is_refused_by_name() {
    for (change, expected) in [
        ("ALTER TABLE jobs ADD COLUMN more TEXT", Some("table jobs")),
        ("DROP INDEX jobs_due", Some("index jobs_due")),
        ("DROP TRIGGER facts_keep", Some("trigger facts_keep")),
        ("CREATE TABLE ledger (n INTEGER)", Some("table ledger")),
        ("PRAGMA user_version = 0", Some("index facts_stream and no schema version")),
        // Statistics that an operator's tool left are none of ours and change nothing.
        ("ANALYZE", None),
    ] {
        let bed = Bed::start().await;
        let folder = bed.folder;
        drop(bed.store);
        Connection::open(folder.path().join("writ.db")).unwrap().execute_batch(change).unwrap();
        let before = std::fs::read(folder.path().join("writ.db")).unwrap();
        let (_mint, options) = options(folder.path());
        match (Sqlite::open(options), expected) {
            (Ok(_), None) => {}
            (Err(error @ (OpenError::Different { .. } | OpenError::Foreign(_))), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{change}: {error}");
                assert_eq!(
                    std::fs::read(folder.path().join("writ.db")).unwrap(),
                    before,
                    "{change}: touched"
                );
            }
            (other, _) => panic!("{change}: {:?}", other.err()),
        }
    }
}

/// Whoever has the folder's lock knows that the holders of leases are dead: nobody waits for their time to pass.
#[tokio::test]
async fn leases_of_a_dead_process_are_over() {
    let job = |name: &str, held, ready_at_ms| {
        Operation::Job(NewJob { id: Id::parse(name).unwrap(), kind: &WORK, ready_at_ms, body: vec![], held })
    };
    let bed = Bed::start().await;
    let permit = bed.permit("a", &[]);
    let jobs =
        vec![job("job_held", true, 0), job("job_later", false, i64::MAX), job("job_claimed", false, 0)];
    bed.store.commit(Changeset::under(vec![permit], bed.draft(jobs)).unwrap()).await.unwrap();
    assert_eq!(bed.store.jobs_claim(KINDS, 10).await.unwrap().len(), 1);
    assert!(bed.store.jobs_claim(KINDS, 10).await.unwrap().is_empty());
    let folder = bed.folder;
    drop(bed.store);
    let (_mint, options) = options(folder.path());
    let store = Store::new(Sqlite::open(options).unwrap());
    let again = store.jobs_claim(KINDS, 10).await.unwrap();
    let mut again: Vec<_> =
        again.iter().map(|lease| (lease.id.to_string(), lease.epoch, lease.starts)).collect();
    again.sort();
    // What was never claimed keeps its time.
    assert_eq!(again, [("job_claimed".to_owned(), 2, 2), ("job_held".to_owned(), 2, 2)]);
}

/// A stored value that somebody damaged is that tenant's trouble: others in the same batch commit.
#[tokio::test]
async fn damage_stays_where_it_is() {
    let bed = Bed::start().await;
    bed.store.commit(bed.put("a", "rec_a", None)).await.unwrap();
    bed.beside().execute_batch("UPDATE records SET rev = -1 WHERE id = 'rec_a'").unwrap();
    let commits = [("a", "rec_a", Some(1)), ("b", "rec_b", None), ("a", "rec_c", None)];
    let results = futures::future::join_all(
        commits.map(|(name, record, rev)| bed.store.commit(bed.put(name, record, rev))),
    )
    .await;
    assert!(matches!(results[0], Err(CommitError::Failed(_))), "{results:?}");
    assert!(results[1].is_ok() && results[2].is_ok(), "{results:?}");
    let read = bed.store.record(&tenant("a"), "test.item", &Id::parse("rec_a").unwrap()).await;
    assert!(matches!(read, Err(ReadError::Failed(_))), "{read:?}");
}

/// A job or a hold that somebody damaged is left alone for a while, and everybody else's turn comes, in the same batch too.
#[tokio::test]
async fn what_is_damaged_and_due_is_put_off() {
    let bed = Bed::start().await;
    for (name, id) in [("a", "job_bad"), ("a", "job_worse"), ("a", "job_good"), ("b", "job_other")] {
        let id = Id::parse(id).unwrap();
        let job = Operation::Job(NewJob { id, kind: &WORK, ready_at_ms: 0, body: vec![], held: false });
        bed.store
            .commit(Changeset::under(vec![bed.permit(name, &[])], bed.draft(vec![job])).unwrap())
            .await
            .unwrap();
    }
    bed.beside()
        .execute_batch(
            "UPDATE jobs SET epoch = -1 WHERE id = 'job_bad'; UPDATE jobs SET authority = X'00' WHERE id = 'job_worse'; \
             INSERT INTO holds (tenant, id, expires_at_ms) VALUES ('ten_a', 'txn_none', 0);",
        )
        .unwrap();
    let (leases, expired, committed) = tokio::join!(
        bed.store.jobs_claim(KINDS, 10),
        bed.store.holds_expire(10),
        bed.store.commit(bed.put("b", "rec_b", None))
    );
    committed.unwrap();
    assert_eq!(expired.unwrap(), 0);
    let mut claimed: Vec<String> = leases.unwrap().iter().map(|lease| lease.id.to_string()).collect();
    claimed.sort();
    assert_eq!(claimed, ["job_good", "job_other"]);
    let put_off: i64 = bed
        .beside()
        .query_row(
            "SELECT (SELECT count(*) FROM jobs WHERE ready = 0 AND epoch < 1 AND due_ms > 0) + \
             (SELECT count(*) FROM holds WHERE expires_at_ms > 0)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(put_off, 3);
}

/// Facts whose tenant's log cannot be taken up wait, and the batch in which they are looked at commits.
#[tokio::test]
async fn a_damaged_log_takes_no_neighbour_with_it() {
    let bed = Bed::start_as(Sequencing::Deferred).await;
    bed.store.commit(bed.put("a", "rec_a", None)).await.unwrap();
    let folder = bed.folder.path().to_owned();
    drop(bed.store);
    let db = Connection::open(folder.join("writ.db")).unwrap();
    db.execute_batch("UPDATE heads SET edge = X'00' WHERE tenant = 'ten_a'").unwrap();
    drop(db);
    let (mint, options) = options(&folder);
    let store = Store::new(Sqlite::open(Options { sequencing: Sequencing::Deferred, ..options }).unwrap());
    let bed = Bed { store, mint, ..bed };
    let (moved, committed) =
        tokio::join!(bed.store.sequence(10), bed.store.commit(bed.put("b", "rec_b", None)));
    assert!(matches!(moved, Err(CommitError::Failed(_))), "{moved:?}");
    committed.unwrap();
}

/// What is found to be damaged once something was written takes all of it back: a fact is not placed by half.
#[tokio::test]
async fn a_fact_that_cannot_be_placed_is_not_placed_by_half() {
    let bed = Bed::start_as(Sequencing::Deferred).await;
    // One short of a whole tile, whose hashes the last one reads back.
    let commits = (1..256).map(|n| bed.store.commit(bed.put("a", &format!("rec_{n}"), None)));
    futures::future::join_all(commits).await.into_iter().for_each(|committed| drop(committed.unwrap()));
    // Of both tenants one is the genesis: the last in the queue is the 256th of `a`.
    assert_eq!(bed.store.sequence(256).await.unwrap(), 256);
    let beside = bed.beside();
    let fix: String = beside
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'facts_fix'", [], |row| row.get(0))
        .unwrap();
    beside
        .execute_batch(&format!(
            "DROP TRIGGER facts_fix; UPDATE facts SET hash = X'00' WHERE tenant = 'ten_a' AND n = 0; {fix}"
        ))
        .unwrap();
    for _ in 0..2 {
        let moved = bed.store.sequence(1).await;
        assert!(matches!(moved, Err(CommitError::Failed(_))), "{moved:?}");
        assert_eq!(bed.store.head(&tenant("a")).await.unwrap().unwrap().size, 255);
        let waiting: i64 = beside.query_row("SELECT count(*) FROM intake", [], |row| row.get(0)).unwrap();
        assert_eq!(waiting, 1);
    }
}

#[test]
fn crash_points_are_armed_by_name() {
    for bad in [
        "",
        "commit",
        "commit.none",
        "commit.applied:",
        "commit.applied:0",
        "commit.applied:x",
        "commit.applied:-1",
    ] {
        assert!(store::crash::arm(bad).is_err(), "{bad:?}");
    }
    let known: BTreeSet<&str> = store::crash::POINTS.iter().copied().collect();
    assert_eq!(known.len(), store::crash::POINTS.len(), "each point once");
}
