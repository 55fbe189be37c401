//! What somebody with other tools, or a thousand callers at once, may do to the log and the ledger.

use crate::{Bed, tenant};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use kernel::changeset::{Changeset, Operation, Put};
use kernel::fact;
use kernel::ledger::{AccountSpec, Exceed, Kind, Step, Transfer, WRITES_ACCOUNT, WRITES_TRANSFER};
use kernel::permit::Grant;
use kernel::{Id, TenantId};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{CommitError, Committed, PAGE_MAX, Sequencing};

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// An account that can spend so much.
fn purse(name: &str, unit: &str, most: Option<i64>) -> Operation {
    Operation::Account(AccountSpec {
        id: id(&format!("acc_{name}")),
        code: "test.purse".into(),
        unit: unit.into(),
        floor: most.map(|most| -most),
        ceiling: None,
        exceed: Exceed::Never,
    })
}

fn transfer(name: &str, step: Step) -> Operation {
    Operation::Transfer(Transfer { id: id(&format!("xfr_{name}")), reference: id("cal_1"), step })
}

fn post(name: &str, from: &str, to: &str, amount: i64) -> Operation {
    let (debit, credit) = (id(&format!("acc_{from}")), id(&format!("acc_{to}")));
    transfer(name, Step::Post { debit, credit, amount })
}

impl Bed {
    /// A changeset that may move money.
    fn moves(&self, operations: Vec<Operation>) -> Changeset {
        let permit = self.mint.permit(Grant {
            tenant: tenant("a"),
            authority: self.authority(),
            args_digest: [0; 32],
            args_commitment: None,
            approvals: vec![],
            writes: &[WRITES_ACCOUNT, WRITES_TRANSFER],
            facts: &["test.item.done"],
            expires_at_ms: i64::MAX,
        });
        Changeset::under(vec![permit], self.draft(operations)).unwrap()
    }

    /// Commits it, however often the queue is full.
    async fn moved(&self, operations: Vec<Operation>) -> Result<Committed, CommitError> {
        loop {
            match self.store.commit(self.moves(operations.clone())).await {
                Err(CommitError::Overloaded) => tokio::task::yield_now().await,
                done => return done,
            }
        }
    }

    async fn done(&self, operations: Vec<Operation>) {
        self.moved(operations).await.expect("nothing stands in the way");
    }

    /// What every unit's accounts hold together: debits posted and pending, credits posted and pending.
    async fn sums(&self, of: &TenantId) -> BTreeMap<String, [i64; 4]> {
        let mut sums: BTreeMap<String, [i64; 4]> = BTreeMap::new();
        for account in self.store.accounts(of, None, PAGE_MAX).await.unwrap() {
            let b = account.balance;
            let sum = sums.entry(account.spec.unit).or_default();
            for (sum, part) in
                sum.iter_mut().zip([b.debits_posted, b.debits_pending, b.credits_posted, b.credits_pending])
            {
                *sum += part;
            }
        }
        sums
    }
}

/// A thousand callers spend from three purses at once: one that has been used before, one that never was, and one with
/// nothing in it. Each pays out to the last micro-unit and not one more.
#[tokio::test(flavor = "multi_thread")]
async fn g09_a_thousand_spend_one_balance_and_none_goes_below_its_floor() {
    const CALLERS: i64 = 1_000;
    let bed = Bed::start().await;
    bed.done(vec![
        purse("used", "USD", Some(700)),
        purse("fresh", "USD", Some(301)),
        purse("empty", "EUR", Some(0)),
        purse("shop", "USD", None),
        purse("markt", "EUR", None),
    ])
    .await;
    bed.done(vec![post("before", "used", "shop", 1)]).await;
    let spends: FuturesUnordered<_> = (0..CALLERS)
        .map(|n| {
            let (from, to) = [("used", "shop"), ("fresh", "shop"), ("empty", "markt")][n as usize % 3];
            let amount = 1 + n / 3 % 5;
            let bed = &bed;
            async move { (from, amount, bed.moved(vec![post(&n.to_string(), from, to, amount)]).await) }
        })
        .collect();
    let mut spent = BTreeMap::from([("used", 1), ("fresh", 0), ("empty", 0)]);
    let mut refused = 0;
    for (from, amount, result) in spends.collect::<Vec<_>>().await {
        match result {
            Ok(_) => *spent.get_mut(from).unwrap() += amount,
            Err(CommitError::Insufficient { account }) => {
                assert_eq!(account, id(&format!("acc_{from}")));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > CALLERS / 3, "most had to be told no: {refused}");
    // Amounts of one are among them, so what fits is spent to the end.
    assert_eq!(spent, BTreeMap::from([("used", 700), ("fresh", 301), ("empty", 0)]));
    for (name, spent) in spent {
        let account = bed.store.account(&tenant("a"), &id(&format!("acc_{name}"))).await.unwrap().unwrap();
        assert_eq!((account.balance.debits_posted, account.available()), (spent, Some(0)), "{name}");
    }
    for (unit, [debits, held, credits, owed]) in bed.sums(&tenant("a")).await {
        assert_eq!((debits, held), (credits, owed), "{unit}: every debit has its credit");
    }
}

/// A hold is settled, voided and let run out at the same moment, by many: it has one end, and what it held is counted
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn g12_a_hold_has_one_end_whoever_comes_first() {
    const HOLDS: i64 = 60;
    let bed = Bed::start().await;
    bed.done(vec![purse("purse", "USD", Some(10 * HOLDS)), purse("shop", "USD", None)]).await;
    for n in 0..HOLDS {
        // It has run out already, so that every way of ending it is open.
        let hold =
            Step::Hold { debit: id("acc_purse"), credit: id("acc_shop"), amount: 10, expires_at_ms: 1 };
        bed.done(vec![transfer(&format!("h{n}"), hold)]).await;
    }
    let ends: FuturesUnordered<_> = (0..HOLDS)
        .flat_map(|n| {
            let hold = id(&format!("xfr_h{n}"));
            let settle =
                |name: &str| transfer(&format!("{name}{n}"), Step::Settle { hold: hold.clone(), amount: 7 });
            let void = transfer(&format!("v{n}"), Step::Void { hold: hold.clone() });
            [settle("s"), void, settle("t")]
        })
        .map(|end| {
            let bed = &bed;
            async move {
                let ended = bed.moved(vec![end]).await;
                // In between the store lets some go by itself.
                bed.store.holds_expire(1).await.unwrap();
                ended
            }
        })
        .collect();
    let ended = ends.collect::<Vec<_>>().await;
    let (mut by_us, mut late) = (0, 0);
    for result in &ended {
        match result {
            Ok(_) => by_us += 1,
            Err(CommitError::Ledger(_) | CommitError::Insufficient { .. }) => late += 1,
            Err(error) => panic!("{error}"),
        }
    }
    while bed.store.holds_expire(PAGE_MAX).await.unwrap() > 0 {}
    assert_eq!(by_us + late, 3 * HOLDS);
    let mut ends: BTreeMap<Id, Vec<Kind>> = BTreeMap::new();
    let mut settled = 0;
    let mut before = None;
    loop {
        let page =
            bed.store.statement(&tenant("a"), &id("acc_purse"), before, PAGE_MAX).await.unwrap().unwrap();
        let Some(last) = page.rows.last() else { break };
        before = Some(last.n);
        for row in page.rows {
            settled += if row.kind == Kind::Settled { row.amount } else { 0 };
            if let Some(hold) = row.hold {
                ends.entry(hold).or_default().push(row.kind);
            }
        }
    }
    assert_eq!(ends.len(), HOLDS as usize, "each has ended");
    assert!(ends.values().all(|kinds| kinds.len() == 1), "and once: {ends:?}");
    let by_store = ends.values().filter(|kinds| kinds[0] == Kind::Expired).count() as i64;
    assert_eq!(by_us + by_store, HOLDS);
    let account = bed.store.account(&tenant("a"), &id("acc_purse")).await.unwrap().unwrap();
    assert_eq!((account.balance.debits_pending, account.balance.debits_posted), (0, settled));
}

/// Facts are numbered when they are made and get their place when they are committed, in whatever order that is. Whoever
/// follows the log meanwhile, from an index on, gets every one of them once.
#[tokio::test(flavor = "multi_thread")]
async fn g13_who_follows_the_log_misses_nothing_that_commits_out_of_order() {
    const FACTS: usize = 400;
    for sequencing in [Sequencing::Immediate, Sequencing::Deferred] {
        let bed = Bed::start_as(sequencing).await;
        // Numbered first; committed from the last to the first, many at once.
        let changesets: Vec<Changeset> =
            (0..FACTS).map(|n| bed.put("a", &format!("rec_{n}"), None)).collect();
        let over = AtomicBool::new(false);
        let writes = async {
            let commits = changesets.into_iter().rev().map(|changeset| bed.store.commit(changeset));
            let mut commits = futures::stream::iter(commits).buffer_unordered(32);
            let mut done = 0;
            while let Some(committed) = commits.next().await {
                committed.unwrap();
                done += 1;
                if done % 50 == 0 {
                    bed.store.sequence(17).await.unwrap();
                }
            }
            while bed.store.sequence(usize::MAX).await.unwrap() > 0 {}
            over.store(true, Ordering::Release);
        };
        let follows = async {
            let mut heard: Vec<String> = Vec::new();
            loop {
                let last = over.load(Ordering::Acquire);
                let page = bed.store.leaves(&tenant("a"), heard.len() as u64, 7).await.unwrap();
                if page.is_empty() && last {
                    return heard;
                }
                for row in page {
                    assert_eq!(row.index, heard.len() as u64, "no place is passed over");
                    heard.push(fact::read(&row.leaf).unwrap().id.to_owned());
                }
                tokio::task::yield_now().await;
            }
        };
        let ((), heard) = tokio::join!(writes, follows);
        let ordered = heard.windows(2).all(|pair| pair[0].len() <= pair[1].len() && pair[0] < pair[1]);
        assert!(!ordered, "the order of commits was another than that of the numbers");
        let mut once = heard.clone();
        once.sort();
        once.dedup();
        assert_eq!((heard.len(), once.len()), (FACTS + 1, FACTS + 1), "{sequencing:?}");
    }
}

/// A fact that was taken in and is deleted before it has a place: the facts around it keep the numbers that they were
/// given, so its stream has a hole that every verification of it names (`evidence.stream_gap`). Nothing closes up.
#[tokio::test]
async fn g02_a_fact_that_is_lost_before_it_has_a_place_leaves_a_gap() {
    for (lost, expected) in [(1, vec![1, 3, 4, 5]), (2, vec![1, 2, 4, 5]), (3, vec![1, 2, 3, 5])] {
        let bed = Bed::start_as(Sequencing::Deferred).await;
        while bed.store.sequence(usize::MAX).await.unwrap() > 0 {}
        for n in 1..=3 {
            bed.store.commit(bed.put("a", &format!("rec_{n}"), None)).await.unwrap();
        }
        // The first of the stream is the tenant's genesis, which has its place.
        let sql = "DELETE FROM intake WHERE n = (SELECT n FROM intake ORDER BY n LIMIT 1 OFFSET ?)";
        assert_eq!(bed.beside().execute(sql, [lost - 1]).unwrap(), 1);
        bed.store.commit(bed.put("a", "rec_4", None)).await.unwrap();
        while bed.store.sequence(usize::MAX).await.unwrap() > 0 {}
        let leaves = bed.store.leaves(&tenant("a"), 0, 100).await.unwrap();
        let numbers: Vec<u64> = leaves.iter().map(|row| fact::read(&row.leaf).unwrap().stream_n).collect();
        assert_eq!(numbers, expected, "the fact {lost} was lost");
    }
}

/// The program's own way to the file, with every right that it has, and any other tool's: neither rewrites history by
/// any statement that SQLite has for it.
#[tokio::test]
async fn g10_history_resists_every_statement() {
    let bed = Bed::start().await;
    bed.done(vec![purse("purse", "USD", None), purse("shop", "USD", None)]).await;
    bed.done(vec![post("1", "purse", "shop", 5)]).await;
    for n in 0..256 {
        bed.store.commit(bed.put("a", &format!("rec_{n}"), None)).await.unwrap();
    }
    let dump = |db: &Connection| -> Vec<String> {
        ["facts", "tiles", "transfers"]
            .into_iter()
            .flat_map(|table| {
                let columns = match table {
                    "facts" => "tenant || n || stream || stream_n || hex(hash) || hex(leaf)",
                    "tiles" => "tenant || level || n || hex(hashes)",
                    _ => "tenant || id || kind || debit || credit || amount",
                };
                let mut rows = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY 1")).unwrap();
                let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
                rows.collect::<rusqlite::Result<Vec<_>>>().unwrap()
            })
            .collect()
    };
    let before = dump(&bed.beside());
    assert!(before.len() > 256);
    let beside = bed.beside();
    for sql in [
        "DELETE FROM facts",
        "DELETE FROM facts WHERE n = 0",
        "UPDATE facts SET leaf = x'00' WHERE n = 0",
        "UPDATE OR REPLACE facts SET n = 1 WHERE n = 0",
        "INSERT INTO facts SELECT * FROM facts WHERE true ON CONFLICT DO UPDATE SET leaf = x'00'",
        "DELETE FROM tiles",
        "UPDATE tiles SET hashes = x'00'",
        "DELETE FROM transfers",
        "UPDATE transfers SET amount = 6",
        "UPDATE transfers SET amount = amount",
        "DELETE FROM accounts",
        "UPDATE accounts SET debits_posted = -1",
    ] {
        let error = beside.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains("never") || error.contains("CHECK"), "{sql}: {error}");
    }
    assert_eq!(dump(&beside), before);
}

/// A changeset of a hundred, one of which is somebody else's already: none of them is done.
#[tokio::test]
async fn b04_of_a_hundred_with_one_that_is_not_ours_none_is_done() {
    let bed = Bed::start().await;
    bed.store.commit(bed.put("a", "rec_50", None)).await.unwrap();
    let size = bed.store.head(&tenant("a")).await.unwrap().unwrap().size;
    for at in [0, 50, 99] {
        let puts = (0..100).map(|n| {
            let name = if n == at { "rec_50".to_owned() } else { format!("rec_new{at}-{n}") };
            let put = Put {
                kind: "test.item",
                id: id(&name),
                rev: None,
                body: vec![],
                indexes: vec![],
                uniques: vec![],
            };
            Operation::Put(put)
        });
        let permit = bed.permit("a", &["test.item"]);
        let changeset = Changeset::under(vec![permit], bed.draft(puts.collect())).unwrap();
        let refused = bed.store.commit(changeset).await;
        assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
        for n in 0..100 {
            let record = id(&format!("rec_new{at}-{n}"));
            assert!(
                bed.store.record(&tenant("a"), "test.item", &record).await.unwrap().is_none(),
                "{record}"
            );
        }
    }
    assert_eq!(bed.store.head(&tenant("a")).await.unwrap().unwrap().size, size, "and nothing is stated");
}
