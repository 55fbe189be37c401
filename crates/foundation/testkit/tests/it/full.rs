//! The database has reached its bound: nothing half written, reads go on, and so do writes once there is room again.

use crate::{SqliteHome, sqlite_home};
use futures::future::{BoxFuture, join_all};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{CommitError, Sequencing, Store};
use testkit::conformance::bed::{Bed, item, tenant_id};
use testkit::conformance::{Home, Opening};

/// A home whose bound the test moves.
struct Bounded(Arc<SqliteHome>);

impl Home for Bounded {
    fn open(&self, opening: Opening) -> BoxFuture<'_, Store> {
        self.0.open(opening)
    }
}

fn bulky(n: usize) -> Vec<kernel::changeset::Operation> {
    let put = kernel::changeset::Put { body: vec![7; 20_000], ..item(&format!("rec_{n}")) };
    vec![kernel::changeset::Operation::Put(put)]
}

/// Records tried, at most.
const NUMBERS: usize = 200;

async fn a_full_database(sequencing: Sequencing) {
    let home = Arc::new(sqlite_home());
    home.page_count_max.store(400, Ordering::SeqCst);
    let mut bed = Bed::start(Bounded(home.clone()), sequencing).await;
    let tenant = bed.tenant("a").await;
    let mut kept = BTreeSet::new();
    let mut refused = BTreeSet::new();
    // Eight at a time, so that batches fill up in the middle; 400 pages hold some eighty such records.
    for round in 0..20 {
        let numbers = round * 8..round * 8 + 8;
        let results = join_all(numbers.clone().map(|n| bed.commit(&tenant, bulky(n)))).await;
        for (n, result) in numbers.zip(results) {
            match result {
                Ok(_) => assert!(kept.insert(n)),
                Err(CommitError::Full) => assert!(refused.insert(n)),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(kept.len() > 20 && refused.len() > 20, "{} kept, {} refused", kept.len(), refused.len());
    // A batch goes back whole, so a single commit may still have found room; in the end none does.
    let mut last = 160..NUMBERS;
    loop {
        let n = last.next().expect("room for so many is not left");
        match bed.commit(&tenant, bulky(n)).await {
            Ok(_) => assert!(kept.insert(n)),
            Err(CommitError::Full) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    for _ in 0..3 {
        assert!(matches!(bed.commit(&tenant, bulky(NUMBERS)).await, Err(CommitError::Full)));
    }
    let checked = async |bed: &Bed, kept: &BTreeSet<usize>| {
        for n in 0..=NUMBERS {
            let expected = kept.contains(&n).then_some(1);
            assert_eq!(bed.rev(&tenant, &format!("rec_{n}")).await, expected, "rec_{n}");
        }
    };
    checked(&bed, &kept).await;
    let size = bed.size(&tenant).await;
    if sequencing == Sequencing::Immediate {
        assert_eq!(bed.log_checked(&tenant).await.len(), 1 + kept.len());
    }
    // Full or not at the next start, what is there is there.
    bed.restart().await;
    checked(&bed, &kept).await;
    assert_eq!(bed.size(&tenant).await, size);
    home.page_count_max.store(0, Ordering::SeqCst);
    bed.restart().await;
    for n in &refused {
        bed.commit(&tenant, bulky(*n)).await.unwrap();
    }
    kept.append(&mut refused);
    checked(&bed, &kept).await;
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 1 + kept.len());
    bed.genesis(&tenant_id("b"), vec![]).await.unwrap();
}

#[tokio::test]
async fn a_full_database_refuses_whole_batches_and_goes_on_later() {
    a_full_database(Sequencing::Immediate).await;
}

#[tokio::test]
async fn a_full_database_refuses_whole_batches_and_goes_on_later_deferred() {
    a_full_database(Sequencing::Deferred).await;
}
