//! A process made to be killed, and the judge of what it left.
//!
//! The promise under test: what was acknowledged is there after a crash, what was not is there whole or not at all, and
//! the log goes on without a gap, consistent with every head anybody has seen. The process (the `survivor` binary)
//! commits numbered changesets from several tasks at once and prints each number as soon as its commit is acknowledged.
//! The test kills it, at a named crash point or by signal, opens the folder itself and asks [`judge`].
//!
//! Every numbered changeset writes a record, an outcome, a job, a blob, a hold and a fact with an aside, so that a
//! changeset torn in half is seen whichever half is missing. It also settles the hold that its task took before. The
//! deaths leave holds that nobody will ever settle; their time has run out, and the judge demands that all of them are
//! let go of and that debits are credits to the unit.

use kernel::changeset::{Changeset, Draft, NewJob, Operation, Outcome, Put};
use kernel::ledger::{AccountSpec, Exceed, Kind, Step, Transfer, WRITES_ACCOUNT, WRITES_TRANSFER};
use kernel::permit::{Authority, Grant, JobKind, Mint};
use kernel::{Digest, Fact, Id, TenantId, hex, merkle, sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Clock, CommitError, Store, SystemClock};

/// The binary's environment variable that names a crash point.
pub const CRASH_POINT: &str = store::crash::VARIABLE;
/// Tasks that commit at the same time.
pub const TASKS: u64 = 4;
/// Most changesets one process commits if nobody kills it.
pub const CHANGESETS_MAX: u64 = 20_000;

const RECORD: &str = "test.numbered";
const FACT: &str = "test.numbered.done";
const STREAMS: u64 = 3;
/// What each changeset holds.
const HELD: i64 = 10;
/// What it settles of the hold before.
const SETTLED: i64 = 7;
static LATER: JobKind =
    JobKind { name: "test.later", writes: &[], facts: &[FACT], lease_ms: 1_000, starts_max: 1 };

/// The tenant that is written to.
pub fn tenant() -> TenantId {
    TenantId::parse("ten_survivor").expect("a well-formed id")
}

fn id(prefix: &str, n: u64) -> Id {
    Id::parse(&format!("{prefix}_{n}")).expect("a well-formed id")
}

fn authority() -> Authority {
    Authority {
        actor: id("prn", 1),
        on_behalf_of: vec![],
        act: "test.numbered.commit".into(),
        decision: None,
        policy: None,
        assurance: None,
        trace: String::new(),
    }
}

fn body(n: u64) -> Vec<u8> {
    format!("{n} ").repeat(200).into_bytes()
}

fn fact(n: u64) -> Fact {
    Fact {
        id: id("fct", n),
        kind: FACT,
        stream: id("run", n % STREAMS),
        resource: format!("numbered/{n}"),
        causes: vec![],
        outcome: serde_json::json!({"n": n}),
        aside: Some(n.to_string().into_bytes()),
    }
}

/// Creates the tenant unless it is there.
///
/// # Errors
/// If the engine refuses.
pub async fn prepare(store: &Store) -> Result<(), CommitError> {
    let draft = Draft { at_ms: SystemClock.now_ms(), operations: vec![], facts: vec![fact(0)] };
    let genesis = Changeset::genesis(tenant(), authority(), draft).expect("within limits");
    match store.commit(genesis).await {
        Ok(_) | Err(CommitError::Log) => Ok(()),
        Err(error) => Err(error),
    }
}

fn account(name: &str) -> AccountSpec {
    AccountSpec {
        id: Id::parse(&format!("acc_{name}")).expect("a well-formed id"),
        code: "test.purse".into(),
        unit: "USD".into(),
        floor: None,
        ceiling: None,
        exceed: Exceed::Never,
    }
}

/// The hold of changeset `n`, which has run out as soon as it is taken.
fn hold(n: u64, now_ms: i64) -> Operation {
    let step = Step::Hold {
        debit: account("purse").id,
        credit: account("shop").id,
        amount: HELD,
        expires_at_ms: now_ms,
    };
    Operation::Transfer(Transfer { id: id("xfr", n), reference: id("rec", n), step })
}

/// The settlement of the hold of changeset `n`.
fn settlement(n: u64) -> Operation {
    let step = Step::Settle { hold: id("xfr", n), amount: SETTLED };
    Operation::Transfer(Transfer { id: settlement_id(n), reference: id("rec", n), step })
}

fn settlement_id(n: u64) -> Id {
    Id::parse(&format!("xfr_{n}.s")).expect("a well-formed id")
}

/// Changeset `n`, which also settles the hold of changeset `before`.
fn numbered(mint: &Mint, n: u64, before: Option<u64>) -> Changeset {
    let now_ms = SystemClock.now_ms();
    let body = body(n);
    let put = Put {
        kind: RECORD,
        id: id("rec", n),
        rev: None,
        body: body.clone(),
        indexes: vec![("by_n", n.to_be_bytes().to_vec())],
        uniques: vec![("n", n.to_be_bytes().to_vec())],
    };
    let outcome = Outcome {
        principal: id("prn", 1),
        act: "test.numbered.commit".into(),
        key: n.to_string(),
        args_digest: [0; 32],
        body: body.clone(),
    };
    let job = NewJob { id: id("job", n), kind: &LATER, ready_at_ms: i64::MAX, body: vec![], held: false };
    let mut operations = vec![
        Operation::Put(put),
        Operation::Outcome(outcome),
        Operation::Job(job),
        Operation::Blob { digest: sha256(&body), bytes: body },
        Operation::Account(account("purse")),
        Operation::Account(account("shop")),
        hold(n, now_ms),
    ];
    operations.extend(before.map(settlement));
    let permit = mint.permit(Grant {
        tenant: tenant(),
        authority: authority(),
        args_digest: [0; 32],
        args_commitment: None,
        approvals: vec![],
        writes: &[RECORD, WRITES_ACCOUNT, WRITES_TRANSFER],
        facts: &[FACT],
        expires_at_ms: i64::MAX,
    });
    let draft = Draft { at_ms: now_ms, operations, facts: vec![fact(n)] };
    Changeset::under(vec![permit], draft).expect("within limits")
}

/// Commits numbered changesets from `from` on, several at a time, and reports each once it is acknowledged. Between
/// commits it sequences what waits, which in immediate mode is nothing.
///
/// # Errors
/// The first refusal.
pub async fn commit_on(
    store: Store,
    mint: Mint,
    from: u64,
    acknowledged: impl Fn(u64) + Send + Sync + 'static,
) -> Result<(), CommitError> {
    let next = Arc::new(AtomicU64::new(from));
    let (mint, acknowledged) = (Arc::new(mint), Arc::new(acknowledged));
    let mut tasks: tokio::task::JoinSet<Result<(), CommitError>> = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, mint, next) = (store.clone(), mint.clone(), next.clone());
        let acknowledged = acknowledged.clone();
        tasks.spawn(async move {
            let mut before = None;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= from + CHANGESETS_MAX {
                    return Ok(());
                }
                store.commit(numbered(&mint, n, before)).await?;
                acknowledged(n);
                before = Some(n);
                if task == 0 {
                    store.sequence(5).await?;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task panics")?;
    }
    Ok(())
}

/// The head of the log as somebody has seen it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

/// What was found after a crash.
#[derive(Debug)]
pub struct Found {
    /// Numbers of the changesets that are there.
    pub numbers: BTreeSet<u64>,
    /// The head, once everything that waited had its place.
    pub head: Seen,
}

/// Judges what is in the store after a crash.
///
/// # Panics
/// If something acknowledged is missing, something is there in part, the log has a gap or contradicts itself or a head
/// seen before.
pub async fn judge(store: &Store, acknowledged: &BTreeSet<u64>, seen: &[Seen]) -> Found {
    let tenant = tenant();
    while store.sequence(usize::MAX).await.expect("storage works") > 0 {}
    let head = store.head(&tenant).await.expect("storage works").expect("the tenant is there");
    let (mut hashes, mut in_log) = (Vec::new(), BTreeSet::new());
    let mut last = vec![0; STREAMS as usize];
    while hashes.len() as u64 != head.size {
        let page = store.leaves(&tenant, hashes.len() as u64, usize::MAX).await.expect("storage works");
        assert!(!page.is_empty(), "the log has fewer leaves than its head says");
        for row in page {
            assert_eq!(row.index, hashes.len() as u64, "the log has a gap");
            let leaf = kernel::fact::read(&row.leaf).expect("a whole leaf");
            let n: u64 = leaf.id.trim_start_matches("fct_").parse().expect("a numbered fact");
            let stream = &mut last[(n % STREAMS) as usize];
            *stream += 1;
            assert_eq!(leaf.stream_n, *stream, "stream {} has a gap", leaf.stream);
            assert!(in_log.insert(n), "fact {n} is there twice");
            hashes.push(merkle::leaf_hash(&row.leaf));
        }
    }
    let root = merkle::root_of(&hashes);
    assert_eq!(hex::encode(&head.root), hex::encode(&root), "the head's root is not that of the leaves");
    for seen in seen {
        assert!(seen.size <= head.size, "the log is shorter than it has been seen");
        let proof = store.consistency(&tenant, seen.size, head.size).await.expect("both sizes are there");
        assert!(
            merkle::consistency_verify(seen.size, &seen.root, head.size, &root, &proof),
            "the log was rewritten since it had {} leaves",
            seen.size
        );
    }
    assert!(in_log.remove(&0), "the first fact");
    let lost: Vec<_> = acknowledged.difference(&in_log).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let highest = in_log.last().copied().unwrap_or(0);
    for n in 1..=highest + 2 * TASKS {
        let parts = parts(store, &tenant, n).await;
        let whole = in_log.contains(&n);
        assert_eq!(
            parts, [whole; 7],
            "changeset {n} (record, index, unique, outcome, blob, aside, hold) beside its fact"
        );
    }
    ledger_judge(store, &tenant, &in_log).await;
    let jobs = store.jobs(&tenant, store::PAGE_MAX).await.expect("storage works");
    assert_eq!(jobs.len(), in_log.len().min(store::PAGE_MAX), "a job each");
    Found { numbers: in_log, head: Seen { size: head.size, root } }
}

/// Every hold has ended, by a settlement or because its time ran out; the sums are those of the rows, and alike.
async fn ledger_judge(store: &Store, tenant: &TenantId, numbers: &BTreeSet<u64>) {
    while store.holds_expire(usize::MAX).await.expect("storage works") > 0 {}
    let (mut settled, mut expired) = (0i64, 0i64);
    for n in numbers {
        let hold = id("xfr", *n);
        let row = store.transfer(tenant, &settlement_id(*n)).await.expect("storage works");
        settled +=
            i64::from(row.is_some_and(|row| row.hold.as_ref() == Some(&hold) && row.amount == SETTLED));
        let row = kernel::ledger::expiry_id(&hold).expect("the id of a transfer");
        let row = store.transfer(tenant, &row).await.expect("storage works");
        expired += i64::from(row.is_some_and(|row| row.hold == Some(hold) && row.kind == Kind::Expired));
    }
    assert_eq!(settled + expired, numbers.len() as i64, "a hold ends once, and none is lost for ever");
    for name in ["purse", "shop"] {
        let account = store.account(tenant, &account(name).id).await.expect("storage works");
        let Some(account) = account else {
            assert!(numbers.is_empty(), "{name} is there as soon as anything was held");
            continue;
        };
        let b = account.balance;
        let (out, into) = if name == "purse" { (settled * SETTLED, 0) } else { (0, settled * SETTLED) };
        let found = [b.debits_posted, b.credits_posted, b.debits_pending, b.credits_pending];
        assert_eq!(found, [out, into, 0, 0], "{name}: debits are credits, and nothing is held any more");
    }
}

async fn parts(store: &Store, tenant: &TenantId, n: u64) -> [bool; 7] {
    let body = body(n);
    let record = store.record(tenant, RECORD, &id("rec", n)).await.expect("storage works");
    let range = store::Range::of("by_n", n.to_be_bytes().to_vec());
    let listed = store.record_list(tenant, RECORD, range).await.expect("storage works");
    let unique = store.record_unique(tenant, RECORD, "n", &n.to_be_bytes()).await.expect("storage works");
    let (principal, act, key) = (id("prn", 1), "test.numbered.commit", n.to_string());
    let outcome = store.outcome(tenant, &principal, act, &key).await.expect("storage works");
    let blob = store.blob(tenant, &sha256(&body)).await.expect("storage works");
    let aside = store.aside(tenant, &id("fct", n)).await.expect("storage works");
    let held = store.transfer(tenant, &id("xfr", n)).await.expect("storage works");
    [
        record.is_some_and(|row| row.body == body),
        listed.len() == 1,
        unique.is_some(),
        outcome.is_some_and(|(_, kept)| kept == body),
        blob.is_some_and(|bytes| bytes == body),
        aside.is_some_and(|aside| aside == n.to_string().into_bytes()),
        held.is_some_and(|row| row.amount == HELD && row.kind == Kind::Held),
    ]
}
