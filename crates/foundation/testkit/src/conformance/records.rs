//! Records: revisions, expectations, and that a changeset happens whole or not at all.

use super::bed::{Bed, ITEM, OTHER, delete, expect, id, item, job, new, outcome, tenant_id, update};
use super::refused;
use kernel::changeset::{BODY_BYTES_MAX, Draft, KEY_BYTES_MAX, Operation, Put};
use kernel::sha256;
use std::sync::Arc;
use store::{CommitError, Range};
use tokio::task::JoinSet;

/// A put without a revision succeeds once.
pub async fn a_new_record_begins_at_one_and_is_new_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    let row = bed.store().record(&tenant, ITEM, &id("rec_a")).await.unwrap().unwrap();
    assert_eq!((row.rev, &*row.body, row.id.as_str()), (1, &b"rec_a"[..], "rec_a"));
    let again = Operation::Put(Put { body: b"other".to_vec(), ..item("rec_a") });
    match bed.commit(&tenant, vec![again]).await {
        Err(CommitError::Conflict { kind, id }) => assert_eq!((&*kind, &*id), (ITEM, "rec_a")),
        other => panic!("{other:?}"),
    }
    assert_eq!(bed.body(&tenant, "rec_a").await.unwrap(), b"rec_a");
}

/// A put over a revision succeeds over that revision alone.
pub async fn an_update_demands_the_exact_revision(bed: Bed) {
    let tenant = bed.tenant("a").await;
    refused!(bed.commit(&tenant, vec![update("rec_a", 1, "x")]).await, CommitError::Conflict { .. });
    bed.done(&tenant, vec![new("rec_a")]).await;
    bed.done(&tenant, vec![update("rec_a", 1, "two")]).await;
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(2));
    for wrong in [0, 1, 3, u64::MAX] {
        refused!(bed.commit(&tenant, vec![update("rec_a", wrong, "x")]).await, CommitError::Conflict { .. });
    }
    assert_eq!(bed.body(&tenant, "rec_a").await.unwrap(), b"two");
    // The same bytes again are a write all the same.
    bed.done(&tenant, vec![update("rec_a", 2, "two")]).await;
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(3));
}

/// A delete succeeds at its revision alone, once.
pub async fn a_delete_demands_the_exact_revision(bed: Bed) {
    let tenant = bed.tenant("a").await;
    refused!(bed.commit(&tenant, vec![delete("rec_a", 1)]).await, CommitError::Conflict { .. });
    bed.done(&tenant, vec![new("rec_a"), new("rec_b")]).await;
    for wrong in [0, 2, u64::MAX] {
        refused!(bed.commit(&tenant, vec![delete("rec_a", wrong)]).await, CommitError::Conflict { .. });
    }
    bed.done(&tenant, vec![delete("rec_a", 1)]).await;
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (None, Some(1)));
    refused!(bed.commit(&tenant, vec![delete("rec_a", 1)]).await, CommitError::Conflict { .. });
}

/// Expectations speak of the state before the changeset, wherever they stand in it, and write nothing.
pub async fn an_expectation_guards_without_writing(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    for wrong in [expect("rec_a", None), expect("rec_a", Some(2)), expect("rec_b", Some(1))] {
        refused!(bed.commit(&tenant, vec![new("rec_c"), wrong]).await, CommitError::Conflict { .. });
    }
    assert_eq!(bed.rev(&tenant, "rec_c").await, None);
    let around = vec![
        expect("rec_a", Some(1)),
        update("rec_a", 1, "two"),
        expect("rec_a", Some(1)),
        new("rec_c"),
        expect("rec_c", None),
        expect("rec_b", None),
    ];
    bed.done(&tenant, around).await;
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (Some(2), None));
    // Of kinds that the permit does not let one write, one may still demand that they stand.
    let foreign = Operation::Expect { kind: "test.foreign", id: id("rec_a"), rev: None };
    bed.done(&tenant, vec![foreign]).await;
}

/// Who holds a revision of a deleted record must not hit the record made anew under its id.
pub async fn a_revision_is_never_given_twice(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a"), new("rec_b")]).await;
    bed.done(&tenant, vec![update("rec_a", 1, "two")]).await;
    bed.done(&tenant, vec![delete("rec_a", 2)]).await;
    bed.done(&tenant, vec![delete("rec_b", 1)]).await;
    bed.done(&tenant, vec![new("rec_a"), new("rec_b")]).await;
    let (a, b) = (bed.rev(&tenant, "rec_a").await.unwrap(), bed.rev(&tenant, "rec_b").await.unwrap());
    assert!(a > 2 && b > 1, "{a} {b}");
    for old in [1, 2] {
        refused!(bed.commit(&tenant, vec![update("rec_a", old, "x")]).await, CommitError::Conflict { .. });
        refused!(bed.commit(&tenant, vec![delete("rec_a", old)]).await, CommitError::Conflict { .. });
        refused!(bed.commit(&tenant, vec![expect("rec_a", Some(old))]).await, CommitError::Conflict { .. });
    }
    bed.done(&tenant, vec![update("rec_a", a, "y")]).await;
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(a + 1));
}

/// One conflict, last of many operations, and nothing of the changeset is there.
pub async fn a_changeset_is_whole_or_not_at_all(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    bed.settle().await;
    let before = bed.store().head(&tenant).await.unwrap();
    let indexed = Put { indexes: vec![("by_x", b"x".to_vec())], ..item("rec_b") };
    let named = Put { uniques: vec![("name", b"n".to_vec())], ..indexed };
    let operations = vec![
        Operation::Put(named),
        update("rec_a", 1, "changed"),
        Operation::Job(job("job_a", 0)),
        Operation::Outcome(outcome("key")),
        Operation::Blob { digest: sha256(b"blob"), bytes: b"blob".to_vec() },
        delete("rec_missing", 1),
    ];
    let mut draft = bed.draft(operations, "run_a");
    draft.facts[0].aside = Some(b"aside".to_vec());
    let fact = draft.facts[0].id.clone();
    refused!(bed.draft_commit(&tenant, draft).await, CommitError::Conflict { .. });
    bed.settle().await;
    let store = bed.store();
    assert_eq!(bed.body(&tenant, "rec_a").await.unwrap(), b"rec_a");
    assert_eq!(bed.rev(&tenant, "rec_b").await, None);
    assert_eq!(store.record_list(&tenant, ITEM, Range::of("by_x", vec![])).await.unwrap(), vec![]);
    assert_eq!(store.record_unique(&tenant, ITEM, "name", b"n").await.unwrap(), None);
    assert_eq!(store.jobs(&tenant, 10).await.unwrap(), vec![]);
    assert_eq!(store.outcome(&tenant, &id("prn_alice"), "test.item.change", "key").await.unwrap(), None);
    assert_eq!(store.blob(&tenant, &sha256(b"blob")).await.unwrap(), None);
    assert_eq!(store.aside(&tenant, &fact).await.unwrap(), None);
    assert_eq!(store.head(&tenant).await.unwrap(), before, "no fact either");
}

/// What one changeset does to one record twice has no order that could be meant.
pub async fn one_record_twice_in_a_changeset_is_a_conflict(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    for twice in [
        vec![new("rec_b"), new("rec_b")],
        vec![update("rec_a", 1, "x"), update("rec_a", 1, "y")],
        vec![update("rec_a", 1, "x"), update("rec_a", 2, "y")],
        vec![update("rec_a", 1, "x"), delete("rec_a", 1)],
        vec![delete("rec_a", 1), update("rec_a", 1, "x")],
        vec![delete("rec_a", 1), delete("rec_a", 1)],
        vec![delete("rec_a", 1), new("rec_a")],
    ] {
        refused!(bed.commit(&tenant, twice).await, CommitError::Conflict { .. });
    }
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (Some(1), None));
    // The same id of another kind is another record.
    let other = Operation::Put(Put { kind: OTHER, ..item("rec_b") });
    bed.done(&tenant, vec![new("rec_b"), other]).await;
}

/// 200 commits of 64 callers; four at a time want the same record, and one of the four gets it. The losers share
/// batches with the winners and take nothing from them.
pub async fn conflicts_leave_their_neighbours_untouched(bed: Bed) {
    const COMMITS: usize = 200;
    const CALLERS: usize = 64;
    let tenant = bed.tenant("a").await;
    let bed = Arc::new(bed);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (bed, tenant) = (bed.clone(), tenant.clone());
        callers.spawn(async move {
            let mut won = Vec::new();
            for n in (caller..COMMITS).step_by(CALLERS) {
                let shared = new(&format!("rec_shared{}", n / 4));
                // The record of its own stands before and after the contended one.
                let operations = if n % 2 == 0 {
                    vec![new(&format!("rec_own{n}")), shared]
                } else {
                    vec![shared, new(&format!("rec_own{n}"))]
                };
                match bed.commit(&tenant, operations).await {
                    Ok(_) => won.push(n),
                    Err(CommitError::Conflict { id, .. }) => assert_eq!(id, format!("rec_shared{}", n / 4)),
                    Err(other) => panic!("{other:?}"),
                }
            }
            won
        });
    }
    let mut won: Vec<usize> = callers.join_all().await.concat();
    won.sort_unstable();
    let groups: Vec<usize> = won.iter().map(|n| n / 4).collect();
    assert_eq!(groups, (0..COMMITS / 4).collect::<Vec<_>>(), "one winner per contended record");
    for n in 0..COMMITS {
        let expected = won.contains(&n).then_some(1);
        assert_eq!(bed.rev(&tenant, &format!("rec_own{n}")).await, expected, "rec_own{n}");
    }
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 1 + won.len(), "one fact per winner");
}

/// Callers who read, add one and write, and begin again upon a conflict, together count right.
pub async fn no_update_is_lost(bed: Bed) {
    const CALLERS: u64 = 8;
    const EACH: u64 = 10;
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![Operation::Put(Put { body: b"0".to_vec(), ..item("rec_a") })]).await;
    let bed = Arc::new(bed);
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (bed, tenant) = (bed.clone(), tenant.clone());
        callers.spawn(async move {
            let mut left = EACH;
            while left > 0 {
                let row = bed.store().record(&tenant, ITEM, &id("rec_a")).await.unwrap().unwrap();
                let count: u64 = std::str::from_utf8(&row.body).unwrap().parse().unwrap();
                match bed.commit(&tenant, vec![update("rec_a", row.rev, &(count + 1).to_string())]).await {
                    Ok(_) => left -= 1,
                    Err(CommitError::Conflict { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }
    callers.join_all().await;
    let total = (CALLERS * EACH).to_string();
    assert_eq!(bed.body(&tenant, "rec_a").await.unwrap(), total.as_bytes());
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(1 + CALLERS * EACH));
}

/// The same kind and id in two tenants are two records.
pub async fn tenants_do_not_see_each_other(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    bed.done(&a, vec![new("rec_a"), new("rec_only")]).await;
    bed.done(&b, vec![Operation::Put(Put { body: b"b's".to_vec(), ..item("rec_a") })]).await;
    bed.done(&a, vec![update("rec_a", 1, "two")]).await;
    assert_eq!(bed.body(&b, "rec_a").await.unwrap(), b"b's");
    assert_eq!(bed.rev(&b, "rec_only").await, None);
    refused!(bed.commit(&b, vec![delete("rec_only", 1)]).await, CommitError::Conflict { .. });
    refused!(bed.commit(&b, vec![update("rec_a", 2, "x")]).await, CommitError::Conflict { .. });
    bed.done(&b, vec![delete("rec_a", 1)]).await;
    assert_eq!(bed.rev(&a, "rec_a").await, Some(2));
}

/// Any bytes, none, and as many as are allowed.
pub async fn bodies_are_kept_to_the_byte_and_to_the_limit(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let all: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..BODY_BYTES_MAX).map(|n| n as u8).collect();
    let keys = [vec![], vec![0], vec![0, 0], vec![255; KEY_BYTES_MAX]];
    for (n, (body, key)) in [vec![], all, large, vec![0]].into_iter().zip(keys).enumerate() {
        let name = format!("rec_{n}");
        let put = Put {
            body: body.clone(),
            indexes: vec![("by_x", key.clone())],
            uniques: vec![("name", key.clone())],
            ..item(&name)
        };
        bed.done(&tenant, vec![Operation::Put(put)]).await;
        assert!(bed.body(&tenant, &name).await.unwrap() == body, "body {n}");
        let found = bed.store().record_unique(&tenant, ITEM, "name", &key).await.unwrap().unwrap();
        assert_eq!(found.id, id(&name));
        let listed = bed.store().record_list(&tenant, ITEM, Range::of("by_x", key.clone())).await.unwrap();
        assert!(listed.iter().any(|(found, row)| *found == key && row.id == id(&name)), "key {n}");
    }
}

/// Nothing is found where nothing is, and asking is no error, not even for a tenant that does not exist.
pub async fn what_is_absent_is_absent(bed: Bed) {
    let known = bed.tenant("a").await;
    let store = bed.store();
    for tenant in [known.clone(), tenant_id("nobody")] {
        assert_eq!(store.record(&tenant, ITEM, &id("rec_a")).await.unwrap(), None);
        assert_eq!(store.record_list(&tenant, ITEM, Range::of("by_x", vec![])).await.unwrap(), vec![]);
        assert_eq!(store.record_unique(&tenant, ITEM, "name", b"n").await.unwrap(), None);
        assert_eq!(store.outcome(&tenant, &id("prn_a"), "a.b.c", "key").await.unwrap(), None);
        assert_eq!(store.blob(&tenant, &[0; 32]).await.unwrap(), None);
        assert_eq!(store.aside(&tenant, &id("fct_a")).await.unwrap(), None);
        assert_eq!(store.jobs(&tenant, 10).await.unwrap(), vec![]);
        assert_eq!(store.stream(&tenant, &id("run_none"), 0, 10).await.unwrap(), vec![]);
        assert_eq!(store.checkpoint_last(&tenant).await.unwrap(), None);
        assert_eq!(store.checkpoints(&tenant, 0, 10).await.unwrap(), vec![]);
    }
    assert_eq!(store.record_unique_anywhere(ITEM, "name", b"n").await.unwrap(), None);
    assert_eq!(store.head(&tenant_id("nobody")).await.unwrap(), None);
    assert_eq!(store.leaves(&tenant_id("nobody"), 0, 10).await.unwrap(), vec![]);
    assert_eq!(store.tenants().await.unwrap(), vec![known]);
    assert_eq!(store.jobs_next_due_ms().await.unwrap(), None);
    assert!(bed.claim(10).await.is_empty());
}

/// Bytes lie under their digest, once, each tenant's for itself, and never under another digest.
pub async fn blobs_are_kept_once_by_what_they_are(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let blob = |bytes: &[u8]| Operation::Blob { digest: sha256(bytes), bytes: bytes.to_vec() };
    bed.done(&a, vec![blob(b"one"), blob(b"one"), blob(b"")]).await;
    bed.done(&a, vec![blob(b"one"), blob(b"two")]).await;
    for bytes in [&b"one"[..], b"two", b""] {
        assert_eq!(bed.store().blob(&a, &sha256(bytes)).await.unwrap().unwrap(), bytes);
        assert_eq!(bed.store().blob(&b, &sha256(bytes)).await.unwrap(), None);
    }
    let forged = Operation::Blob { digest: sha256(b"three"), bytes: b"four".to_vec() };
    let draft = Draft { operations: vec![new("rec_a"), forged], ..bed.draft(vec![], "run_a") };
    refused!(bed.draft_commit(&a, draft).await, CommitError::OutsidePermit(_));
    assert_eq!(bed.store().blob(&a, &sha256(b"three")).await.unwrap(), None);
    assert_eq!(bed.rev(&a, "rec_a").await, None);
}
