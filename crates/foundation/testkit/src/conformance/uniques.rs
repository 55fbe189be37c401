//! Unique keys.

use super::bed::{Bed, ITEM, OTHER, delete, id, item, new};
use super::refused;
use kernel::TenantId;
use kernel::changeset::{Operation, Put};
use std::sync::Arc;
use store::CommitError;
use tokio::task::JoinSet;

const NAME: &str = "name";

fn named(item_id: &str, rev: Option<u64>, key: &str) -> Operation {
    Operation::Put(Put { rev, uniques: vec![(NAME, key.into())], ..item(item_id) })
}

async fn holder(bed: &Bed, tenant: &TenantId, key: &str) -> Option<String> {
    let row = bed.store().record_unique(tenant, ITEM, NAME, key.as_bytes()).await.unwrap();
    row.map(|row| row.id.to_string())
}

/// Another record is refused, the holder itself is not.
pub async fn a_taken_key_is_a_conflict(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![named("rec_a", None, "k")]).await;
    refused!(bed.commit(&tenant, vec![named("rec_b", None, "k")]).await, CommitError::Conflict { .. });
    bed.done(&tenant, vec![named("rec_b", None, "l")]).await;
    refused!(bed.commit(&tenant, vec![named("rec_b", Some(1), "k")]).await, CommitError::Conflict { .. });
    bed.done(&tenant, vec![named("rec_a", Some(1), "k")]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_a"));
    let row = bed.store().record_unique(&tenant, ITEM, NAME, b"k").await.unwrap().unwrap();
    assert_eq!((row.rev, &*row.body), (2, &b"rec_a"[..]));
}

/// By a change of key, by a put without it, and by a delete.
pub async fn a_key_is_free_once_let_go(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![named("rec_a", None, "k")]).await;
    bed.done(&tenant, vec![named("rec_a", Some(1), "l")]).await;
    bed.done(&tenant, vec![named("rec_b", None, "k")]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_b"));
    bed.done(&tenant, vec![Operation::Put(Put { rev: Some(1), ..item("rec_b") })]).await;
    assert_eq!(holder(&bed, &tenant, "k").await, None);
    bed.done(&tenant, vec![named("rec_c", None, "k")]).await;
    bed.done(&tenant, vec![delete("rec_c", 1)]).await;
    assert_eq!(holder(&bed, &tenant, "k").await, None);
    bed.done(&tenant, vec![named("rec_d", None, "k")]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_d"));
    assert_eq!(holder(&bed, &tenant, "l").await.as_deref(), Some("rec_a"));
}

/// Two records swap their keys; a new one takes over from a deleted one. The order of operations decides nothing.
pub async fn a_key_is_handed_over_within_a_changeset(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![named("rec_a", None, "k"), named("rec_b", None, "l")]).await;
    bed.done(&tenant, vec![named("rec_a", Some(1), "l"), named("rec_b", Some(1), "k")]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_b"));
    assert_eq!(holder(&bed, &tenant, "l").await.as_deref(), Some("rec_a"));
    bed.done(&tenant, vec![named("rec_c", None, "k"), delete("rec_b", 2)]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_c"));
    let rev = bed.rev(&tenant, "rec_c").await.unwrap();
    bed.done(&tenant, vec![delete("rec_c", rev), named("rec_d", None, "k")]).await;
    assert_eq!(holder(&bed, &tenant, "k").await.as_deref(), Some("rec_d"));
    // One that merely expects the holder to stand does not make it let go.
    let stands = Operation::Expect { kind: ITEM, id: id("rec_d"), rev: bed.rev(&tenant, "rec_d").await };
    refused!(
        bed.commit(&tenant, vec![stands, named("rec_e", None, "k")]).await,
        CommitError::Conflict { .. }
    );
    // Nor does a record of the same id of another kind that goes.
    bed.done(&tenant, vec![Operation::Put(Put { kind: OTHER, ..item("rec_d") })]).await;
    let rev = bed.store().record(&tenant, OTHER, &id("rec_d")).await.unwrap().unwrap().rev;
    let gone = Operation::Delete { kind: OTHER, id: id("rec_d"), rev };
    refused!(bed.commit(&tenant, vec![gone, named("rec_e", None, "k")]).await, CommitError::Conflict { .. });
}

/// Within one changeset, new or already holding.
pub async fn two_cannot_take_one_key_at_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let both = vec![named("rec_a", None, "k"), named("rec_b", None, "k")];
    refused!(bed.commit(&tenant, both).await, CommitError::Conflict { .. });
    assert_eq!(holder(&bed, &tenant, "k").await, None);
    bed.done(&tenant, vec![named("rec_a", None, "k")]).await;
    for both in [
        vec![named("rec_a", Some(1), "k"), named("rec_b", None, "k")],
        vec![named("rec_b", None, "k"), named("rec_a", Some(1), "k")],
    ] {
        refused!(bed.commit(&tenant, both).await, CommitError::Conflict { .. });
    }
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(1));
}

/// The same key under another tenant, kind or name is another key.
pub async fn keys_are_scoped_to_tenant_kind_and_name(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    bed.done(&a, vec![named("rec_a", None, "k")]).await;
    bed.done(&b, vec![named("rec_a", None, "k")]).await;
    let uniques = vec![(NAME, b"k".to_vec())];
    bed.done(&a, vec![Operation::Put(Put { kind: OTHER, uniques, ..item("rec_a") })]).await;
    bed.done(&a, vec![Operation::Put(Put { uniques: vec![("name2", b"k".to_vec())], ..item("rec_b") })])
        .await;
    bed.done(&b, vec![delete("rec_a", 1)]).await;
    assert_eq!(holder(&bed, &a, "k").await.as_deref(), Some("rec_a"));
    assert_eq!(holder(&bed, &b, "k").await, None);
    // An index entry takes no key.
    bed.done(&b, vec![Operation::Put(Put { indexes: vec![(NAME, b"k".to_vec())], ..item("rec_b") })]).await;
    assert_eq!(holder(&bed, &b, "k").await, None);
    bed.done(&b, vec![named("rec_c", None, "k")]).await;
}

/// Without knowing the tenant; of several the first in order.
pub async fn a_key_is_found_in_any_tenant(bed: Bed) {
    let (b, a) = (bed.tenant("b").await, bed.tenant("a").await);
    bed.done(&b, vec![named("rec_b", None, "k")]).await;
    bed.done(&a, vec![new("rec_x")]).await;
    let found = async |key: &[u8]| {
        let found = bed.store().record_unique_anywhere(ITEM, NAME, key).await.unwrap();
        found.map(|(tenant, row)| (tenant, row.id.to_string(), row.rev))
    };
    assert_eq!(found(b"k").await, Some((b.clone(), "rec_b".into(), 1)));
    assert_eq!(found(b"").await, None);
    assert_eq!(found(b"kk").await, None);
    bed.done(&a, vec![named("rec_a", None, "k")]).await;
    assert_eq!(found(b"k").await, Some((a.clone(), "rec_a".into(), bed.rev(&a, "rec_a").await.unwrap())));
    bed.done(&a, vec![delete("rec_a", 1)]).await;
    assert_eq!(found(b"k").await, Some((b, "rec_b".into(), 1)));
}

/// 32 callers, one key.
pub async fn many_want_one_key_and_one_gets_it(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let bed = Arc::new(bed);
    let mut callers = JoinSet::new();
    for n in 0..32 {
        let (bed, tenant) = (bed.clone(), tenant.clone());
        callers.spawn(async move {
            match bed.commit(&tenant, vec![named(&format!("rec_{n}"), None, "k")]).await {
                Ok(_) => Some(format!("rec_{n}")),
                Err(CommitError::Conflict { .. }) => None,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    let winners: Vec<String> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(holder(&bed, &tenant, "k").await, Some(winners[0].clone()));
}
