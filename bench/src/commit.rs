//! `commit_64`: governed commits by 64 callers, against a raw SQLite group commit of the same rows.

use crate::house;
use harness::Terms;
use rusqlite::{Connection, params};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::{Clock as _, SystemClock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Callers at once.
const CALLERS: usize = 64;
/// How long each side runs.
const ROUND: Duration = Duration::from_secs(3);
/// Sizes of what a governed commit of this verb writes, read off a store after a run (see [`sizes`]).
struct Sizes {
    record: usize,
    leaf: usize,
    aside: usize,
}

/// One side's figures.
pub struct Side {
    /// Commits acknowledged per second.
    pub per_second: f64,
    /// 99th percentile of the wait for an acknowledgement, in microseconds.
    pub p99_us: u64,
}

pub fn percentile(mut waits: Vec<u64>, part: f64) -> u64 {
    waits.sort_unstable();
    let at = ((waits.len() as f64 - 1.0) * part).round().max(0.0) as usize;
    waits.get(at).copied().unwrap_or(0)
}

/// Runs 64 callers of `once` for a round.
async fn callers<F, Fut>(once: F) -> Side
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let once = Arc::new(once);
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let start_us = SystemClock.monotonic_us();
    for _ in 0..CALLERS {
        let (once, stop, count) = (once.clone(), stop.clone(), count.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let from_us = SystemClock.monotonic_us();
                once().await;
                waits.push(SystemClock.monotonic_us() - from_us);
                count.fetch_add(1, Ordering::Relaxed);
            }
            waits
        });
    }
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let waits: Vec<u64> = tasks.join_all().await.concat();
    let seconds = (SystemClock.monotonic_us() - start_us) as f64 / 1e6;
    Side { per_second: count.load(Ordering::Relaxed) as f64 / seconds, p99_us: percentile(waits, 0.99) }
}

/// Governed commits: idempotency off, policy, aim, plan, record, fact, side row, log.
pub async fn governed(folder: &Path) -> Side {
    let (harness, tenant) = house::harness(folder).await;
    callers(move || {
        let (harness, ctx) = (harness.clone(), house::ctx(&tenant));
        async move {
            let args = json!({"note": "a note of about the length that notes have in tickets and changes"});
            harness.act(&ctx, "flows.run.start", args, Terms::default()).await.expect("the act is allowed");
        }
    })
    .await
}

fn sizes(folder: &Path) -> Sizes {
    let db = Connection::open(folder.join("writ.db")).expect("the store of the governed side");
    let average =
        |sql: &str| db.query_row(sql, [], |row| row.get::<_, f64>(0)).map_or(0, |size| size as usize);
    Sizes {
        record: average("SELECT avg(length(body)) FROM records"),
        leaf: average("SELECT avg(length(leaf)) FROM facts"),
        aside: average("SELECT avg(length(body)) FROM asides"),
    }
}

/// The same rows, with nothing around them: one writer thread, one transaction per group, fsync on.
pub async fn raw(folder: &Path, governed: &Path) -> Side {
    let sizes = sizes(governed);
    let db = Connection::open(folder.join("raw.db")).expect("a fresh database");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE records (n INTEGER PRIMARY KEY, tenant TEXT, kind TEXT, id TEXT, rev INTEGER, entries BLOB, body BLOB,
           UNIQUE (tenant, kind, id)) STRICT;
         CREATE TABLE facts (tenant TEXT, n INTEGER, stream TEXT, stream_n INTEGER, hash BLOB, leaf BLOB,
           PRIMARY KEY (tenant, n)) STRICT, WITHOUT ROWID;
         CREATE UNIQUE INDEX facts_stream ON facts (tenant, stream, stream_n);
         CREATE TABLE asides (tenant TEXT, fact TEXT, body BLOB, PRIMARY KEY (tenant, fact)) STRICT, WITHOUT ROWID;
         CREATE TABLE heads (tenant TEXT PRIMARY KEY, size INTEGER, root BLOB, edge BLOB) STRICT, WITHOUT ROWID;",
    )
    .expect("the schema");
    let (requests, mut inbox) = mpsc::channel::<oneshot::Sender<()>>(4096);
    let writer = std::thread::spawn(move || {
        let (body, leaf, aside) = (vec![b'x'; sizes.record], vec![b'x'; sizes.leaf], vec![b'x'; sizes.aside]);
        let mut n: i64 = 0;
        while let Some(first) = inbox.blocking_recv() {
            let mut group = vec![first];
            while let Ok(next) = inbox.try_recv() {
                group.push(next);
            }
            db.execute_batch("BEGIN IMMEDIATE").expect("begin");
            for _ in &group {
                n += 1;
                let id = format!("itm_{n:032x}");
                let statement = |sql: &str| db.prepare_cached(sql).expect("a statement");
                statement("INSERT INTO records (tenant, kind, id, rev, entries, body) VALUES ('ten_bench', 'flows.item', ?, 1, x'', ?)")
                    .execute(params![id, body])
                    .expect("a record");
                statement("INSERT INTO asides VALUES ('ten_bench', ?, ?)")
                    .execute(params![id, aside])
                    .expect("an aside");
                statement("INSERT INTO facts VALUES ('ten_bench', ?, ?, 1, ?, ?)")
                    .execute(params![n, id, [0u8; 32], leaf])
                    .expect("a fact");
            }
            db.prepare_cached("INSERT OR REPLACE INTO heads VALUES ('ten_bench', ?, ?, ?)")
                .and_then(|mut statement| statement.execute(params![n, [0u8; 32], [0u8; 512]]))
                .expect("a head");
            db.execute_batch("COMMIT").expect("commit");
            for reply in group {
                let _ = reply.send(());
            }
        }
    });
    let side = callers(move || {
        let requests = requests.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            requests.send(reply).await.expect("the writer lives");
            answer.await.expect("the writer answers");
        }
    })
    .await;
    writer.join().expect("the writer ends");
    side
}

/// Median of an append of 4 KiB and fdatasync, in microseconds.
pub fn fsync_p50_us(folder: &Path) -> u64 {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("fsync")).expect("a file");
    let waits = (0..200)
        .map(|_| {
            let from_us = SystemClock.monotonic_us();
            file.write_all(&[7; 4096]).and_then(|()| file.sync_data()).expect("a write");
            SystemClock.monotonic_us() - from_us
        })
        .collect();
    percentile(waits, 0.5)
}

/// Decisions under the default policy: median and 99th percentile, in microseconds.
pub fn decide_us() -> (u64, u64) {
    let policy = house::policy();
    let tenant = kernel::TenantId::parse("ten_bench").expect("a constant id");
    let (mint, _) = kernel::permit::permit_pair();
    let governor = governor::Governor::new(mint, "bench", Arc::new(act::SystemIds), Default::default());
    governor.platform_install(policy);
    let (ctx, verb) = (house::ctx(&tenant), house::verb());
    let target = act::Target::of("flows.item", tenant.id());
    let args = json!({"note": "a note"});
    let question = governor::Question {
        ctx: &ctx,
        verb: &verb,
        target: &target,
        args: &args,
        args_digest: [0; 32],
        granted: None,
        closing: false,
        now_ms: SystemClock.now_ms(),
    };
    let mut waits = Vec::new();
    for n in 0..30_000u32 {
        let from_us = SystemClock.monotonic_us();
        let ruling = governor.decide(&question);
        let wait = SystemClock.monotonic_us() - from_us;
        assert_eq!(ruling.decision.effect, kernel::Effect::Allow);
        if n >= 1000 {
            waits.push(wait);
        }
    }
    (percentile(waits.clone(), 0.5), percentile(waits, 0.99))
}
