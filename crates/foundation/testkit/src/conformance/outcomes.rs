//! Outcomes under idempotency keys.

use super::bed::{Bed, id, new, outcome};
use super::refused;
use kernel::changeset::{Operation, Outcome};
use std::sync::Arc;
use store::CommitError;
use tokio::task::JoinSet;

/// The first is kept as it was; a second conflicts, with the same arguments or others, and takes its writes with it.
pub async fn the_first_outcome_stands(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a"), Operation::Outcome(outcome("key"))]).await;
    let read =
        async || bed.store().outcome(&tenant, &id("prn_alice"), "test.item.change", "key").await.unwrap();
    assert_eq!(read().await, Some(([5; 32], b"done".to_vec())));
    for second in
        [outcome("key"), Outcome { args_digest: [6; 32], body: b"other".to_vec(), ..outcome("key") }]
    {
        let result = bed.commit(&tenant, vec![new("rec_b"), Operation::Outcome(second)]).await;
        match result {
            Err(CommitError::Conflict { kind, id }) => assert_eq!((&*kind, &*id), ("outcome", "key")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(read().await, Some(([5; 32], b"done".to_vec())));
    assert_eq!(bed.rev(&tenant, "rec_b").await, None);
}

/// Tenant, principal, act and key; and no way of writing two of them that runs together.
pub async fn outcomes_are_told_apart_by_every_part_of_their_name(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let named = |principal: &str, act: &str, key: &str| Outcome {
        principal: id(principal),
        act: act.into(),
        body: format!("{principal} {act} {key}").into(),
        ..outcome(key)
    };
    let names = [
        ("prn_a", "x.y.z", "k"),
        ("prn_b", "x.y.z", "k"),
        ("prn_a", "x.y.zk", ""),
        ("prn_a", "x.y.z", ""),
        ("prn_a", "x.y.z", "K"),
        ("prn_a", "x.y.z", "k "),
        ("prn_a", "x.y.z", "ключ\n\0"),
    ];
    for tenant in [&a, &b] {
        for (principal, act, key) in names {
            bed.done(tenant, vec![Operation::Outcome(named(principal, act, key))]).await;
        }
    }
    for (principal, act, key) in names {
        let (_, body) = bed.store().outcome(&a, &id(principal), act, key).await.unwrap().unwrap();
        assert_eq!(body, format!("{principal} {act} {key}").into_bytes());
    }
}

/// Two outcomes under one name in one changeset contradict each other; a neighbour's commit is not harmed.
pub async fn one_outcome_twice_in_a_changeset_is_a_conflict(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let twice = vec![Operation::Outcome(outcome("key")), Operation::Outcome(outcome("key"))];
    let (twice, neighbour) =
        tokio::join!(bed.commit(&tenant, twice), bed.commit(&tenant, vec![new("rec_a")]));
    refused!(twice, CommitError::Conflict { .. });
    neighbour.unwrap();
    let two = vec![Operation::Outcome(outcome("key")), Operation::Outcome(outcome("key2"))];
    bed.done(&tenant, two).await;
}

/// A caller who lost its connection and asks 32 times more: the act happens once.
pub async fn many_retries_and_one_outcome(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let bed = Arc::new(bed);
    let mut callers = JoinSet::new();
    for n in 0..32 {
        let (bed, tenant) = (bed.clone(), tenant.clone());
        callers.spawn(async move {
            let body = format!("try {n}").into_bytes();
            let once = Outcome { body, ..outcome("key") };
            match bed.commit(&tenant, vec![new(&format!("rec_{n}")), Operation::Outcome(once)]).await {
                Ok(_) => Some(n),
                Err(CommitError::Conflict { .. }) => None,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    let won: Vec<usize> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(won.len(), 1);
    let kept = bed.store().outcome(&tenant, &id("prn_alice"), "test.item.change", "key").await.unwrap();
    assert_eq!(kept.unwrap().1, format!("try {}", won[0]).into_bytes());
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 2);
}
