//! When facts get their place. Cases hold in both modes and say where the modes differ.

use super::bed::{Bed, id, new};
use kernel::TenantId;
use kernel::changeset::Draft;
use store::SEQUENCE_MAX;

async fn ids(bed: &Bed, tenant: &TenantId) -> Vec<String> {
    let leaves = bed.log_checked(tenant).await;
    leaves.iter().map(|row| kernel::fact::read(&row.leaf).unwrap().id.to_string()).collect()
}

/// The index of the first fact at once, or none yet; and a wake-up for those who follow the log when it gets one.
pub async fn a_commit_says_whether_its_facts_have_a_place(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for expected in [1, 3, 5] {
        let facts = vec![bed.fact("run_s"), bed.fact("run_s")];
        let committed =
            bed.draft_commit(&tenant, Draft { facts, ..bed.draft(vec![], "run_s") }).await.unwrap();
        assert_eq!(committed.first_index, (!bed.deferred()).then_some(expected));
    }
    let mut hints = bed.store().hints();
    let sequenced = bed.store().sequence(100).await.unwrap();
    assert_eq!(sequenced, if bed.deferred() { 6 } else { 0 });
    if bed.deferred() {
        hints.facts.changed().await.unwrap();
    }
    assert_eq!(bed.log_checked(&tenant).await.len(), 7);
    assert_eq!(bed.store().sequence(100).await.unwrap(), 0);
}

/// Of several tenants' facts each tenant's stay in order, even if they are placed one at a time.
pub async fn places_are_given_in_the_order_of_commits(bed: Bed) {
    let tenants = [bed.tenant("a").await, bed.tenant("b").await];
    let mut expected = [ids(&bed, &tenants[0]).await, ids(&bed, &tenants[1]).await];
    for n in 0..20 {
        let which = usize::from(n % 3 == 0);
        let facts: Vec<_> = (0..1 + n % 2).map(|_| bed.fact("run_s")).collect();
        expected[which].extend(facts.iter().map(|fact| fact.id.to_string()));
        bed.draft_commit(&tenants[which], Draft { facts, ..bed.draft(vec![], "run_s") }).await.unwrap();
    }
    let mut rounds = 0;
    while bed.store().sequence(1).await.unwrap() == 1 {
        rounds += 1;
        for (tenant, expected) in tenants.iter().zip(&expected) {
            let placed = ids(&bed, tenant).await;
            assert!(expected.starts_with(&placed), "{placed:?}");
        }
    }
    assert_eq!(rounds, if bed.deferred() { 30 } else { 0 });
    for (tenant, expected) in tenants.iter().zip(&expected) {
        assert_eq!(ids(&bed, tenant).await, *expected);
    }
}

/// A stream's next number counts what has a place and what waits for one.
pub async fn streams_count_on_over_what_waits(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for n in 0..12 {
        bed.draft_commit(&tenant, bed.draft(vec![], "run_s")).await.unwrap();
        if n % 4 == 0 {
            bed.store().sequence(1 + n).await.unwrap();
        }
    }
    bed.settle().await;
    let stream = bed.store().stream(&tenant, &id("run_s"), 0, 100).await.unwrap();
    assert_eq!(stream.len(), 12);
    bed.log_checked(&tenant).await;
}

/// Nothing for nothing, and never more than the limit of one call.
pub async fn sequencing_keeps_to_its_limit(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for _ in 0..17 {
        let facts = (0..250).map(|_| bed.fact("run_s")).collect();
        bed.draft_commit(&tenant, Draft { facts, ..bed.draft(vec![], "run_s") }).await.unwrap();
    }
    let total = if bed.deferred() { 17 * 250 } else { 0 };
    assert_eq!(bed.store().sequence(0).await.unwrap(), 0);
    assert_eq!(bed.store().sequence(7).await.unwrap(), total.min(7));
    assert_eq!(bed.store().sequence(usize::MAX).await.unwrap(), total.saturating_sub(7).min(SEQUENCE_MAX));
    bed.settle().await;
    assert_eq!(bed.size(&tenant).await, 17 * 250 + 1);
}

/// A fact without a place is durable and counted, but no list, head or proof shows it; its record and aside are there.
pub async fn what_waits_is_not_in_the_log(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let before = bed.store().head(&tenant).await.unwrap();
    let mut draft = bed.draft(vec![new("rec_a")], "run_s");
    draft.facts[0].aside = Some(b"aside".to_vec());
    let fact = draft.facts[0].id.clone();
    bed.draft_commit(&tenant, draft).await.unwrap();
    if bed.deferred() {
        assert_eq!(bed.store().head(&tenant).await.unwrap(), before);
        assert_eq!(bed.leaves(&tenant).await.len(), 1);
        assert_eq!(bed.store().stream(&tenant, &id("run_s"), 0, 10).await.unwrap(), []);
        assert!(bed.store().proof(&tenant, 2, vec![1]).await.is_err());
    }
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(1));
    assert_eq!(bed.store().aside(&tenant, &fact).await.unwrap().unwrap(), b"aside");
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 2);
}
