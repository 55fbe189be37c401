//! Closing and opening again.

use super::bed::{Bed, DONE, ITEM, WORK, delete, id, item, job, new, outcome, update};
use super::refused;
use kernel::changeset::{Draft, NewJob, Operation, Put};
use kernel::note::Checkpoint;
use kernel::permit::PermitError;
use kernel::{Fact, merkle, sha256};
use store::{CommitError, Range, Sequencing};

/// Records, entries, outcomes, blobs, asides, jobs, the log and its checkpoints.
pub async fn everything_is_still_there(mut bed: Bed) {
    let tenant = bed.tenant("a").await;
    let put = Put {
        indexes: vec![("by_x", b"k".to_vec())],
        uniques: vec![("name", b"n".to_vec())],
        ..item("rec_a")
    };
    let operations = vec![
        Operation::Put(put),
        Operation::Outcome(outcome("key")),
        Operation::Blob { digest: sha256(b"blob"), bytes: b"blob".to_vec() },
        Operation::Job(job("job_a", 0)),
    ];
    let fact = Fact { aside: Some(b"aside".to_vec()), ..bed.fact("run_s") };
    let draft = Draft { facts: vec![fact.clone()], ..bed.draft(operations, "run_s") };
    bed.draft_commit(&tenant, draft).await.unwrap();
    bed.settle().await;
    let head = bed.store().head(&tenant).await.unwrap().unwrap();
    let checkpoint = Checkpoint { origin: head.origin.clone(), size: head.size, root: head.root };
    let note = format!("{}\n— x AAAAAAA=\n", checkpoint.text());
    assert!(bed.store().checkpoint_put(&tenant, checkpoint, note.clone()).await.unwrap());
    let leaves = bed.leaves(&tenant).await;
    for _ in 0..3 {
        bed.restart().await;
        let store = bed.store();
        assert_eq!(bed.body(&tenant, "rec_a").await.unwrap(), b"rec_a");
        assert_eq!(store.record_list(&tenant, ITEM, Range::of("by_x", vec![])).await.unwrap().len(), 1);
        assert!(store.record_unique(&tenant, ITEM, "name", b"n").await.unwrap().is_some());
        let kept = store.outcome(&tenant, &id("prn_alice"), "test.item.change", "key").await.unwrap();
        assert_eq!(kept, Some(([5; 32], b"done".to_vec())));
        assert_eq!(store.blob(&tenant, &sha256(b"blob")).await.unwrap().unwrap(), b"blob");
        assert_eq!(store.aside(&tenant, &fact.id).await.unwrap().unwrap(), b"aside");
        assert_eq!(store.jobs(&tenant, 10).await.unwrap().len(), 1);
        assert_eq!(store.head(&tenant).await.unwrap().unwrap(), head);
        assert_eq!(bed.log_checked(&tenant).await, leaves);
        assert_eq!(store.checkpoint_last(&tenant).await.unwrap().unwrap().note, note);
        assert_eq!(store.tenants().await.unwrap(), std::slice::from_ref(&tenant));
    }
    refused!(
        bed.commit(&tenant, vec![Operation::Outcome(outcome("key"))]).await,
        CommitError::Conflict { .. }
    );
    refused!(bed.genesis(&tenant, vec![]).await, CommitError::Log);
    assert_eq!(bed.claim(10).await.len(), 1);
}

/// Revisions, streams, indexes and the tree, restart after restart, across a tile's edge.
pub async fn counting_goes_on(mut bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a"), new("rec_gone")]).await;
    bed.done(&tenant, vec![delete("rec_gone", 1)]).await;
    let mut heads = Vec::new();
    for round in 0..8u64 {
        bed.settle().await;
        let head = bed.store().head(&tenant).await.unwrap().unwrap();
        heads.push((head.size, head.root));
        bed.restart().await;
        let facts = (0..40).map(|n| bed.fact(&format!("run_{}", n % 3))).collect();
        let draft = Draft { facts, ..bed.draft(vec![update("rec_a", 1 + round, "x")], "run_s") };
        let committed = bed.draft_commit(&tenant, draft).await.unwrap();
        assert_eq!(committed.first_index, (!bed.deferred()).then_some(head.size));
    }
    bed.settle().await;
    let leaves = bed.log_checked(&tenant).await;
    assert_eq!(leaves.len(), 3 + 8 * 40);
    let last = bed.store().head(&tenant).await.unwrap().unwrap();
    for (size, root) in heads {
        let proof = bed.store().consistency(&tenant, size, last.size).await.unwrap();
        assert!(
            merkle::consistency_verify(size, &root, last.size, &last.root, &proof),
            "{size} in {}",
            last.size
        );
    }
    bed.done(&tenant, vec![new("rec_gone")]).await;
    assert!(bed.rev(&tenant, "rec_gone").await.unwrap() > 1, "an old revision is not given again");
}

/// The old process's lease completes nothing; the job comes again when the lease is over, or before that where the engine
/// knows that the process is dead.
pub async fn a_lease_ends_with_the_process_that_held_it(mut bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![Operation::Job(job("job_a", 0))]).await;
    let claimed = bed.claim(1).await.remove(0);
    let held = Operation::Job(NewJob { held: true, ..job("job_b", 0) });
    let held = bed.done(&tenant, vec![held]).await.held.remove(0);
    bed.restart().await;
    for lease in [claimed, held] {
        refused!(bed.complete(lease, vec![new("rec_a")]).await, CommitError::Permit(PermitError::Foreign));
    }
    bed.clock.advance_ms(WORK.lease_ms);
    let leases = bed.claim(10).await;
    assert_eq!(leases.len(), 2);
    for lease in leases {
        assert_eq!((lease.epoch, lease.starts), (2, 2));
        bed.complete(lease, vec![]).await.unwrap();
    }
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
}

/// Facts without a place are as durable as those with one.
pub async fn waiting_facts_survive_and_keep_their_order(mut bed: Bed) {
    let tenant = bed.tenant("a").await;
    let mut expected = Vec::new();
    for n in 0..12 {
        let draft = bed.draft(vec![], "run_s");
        expected.push(draft.facts[0].id.to_string());
        bed.draft_commit(&tenant, draft).await.unwrap();
        if n % 3 == 0 {
            bed.restart().await;
        }
        if n == 7 {
            bed.store().sequence(5).await.unwrap();
        }
    }
    bed.restart().await;
    bed.settle().await;
    let leaves = bed.log_checked(&tenant).await;
    let found: Vec<_> =
        leaves[1..].iter().map(|row| kernel::fact::read(&row.leaf).unwrap().id.to_string()).collect();
    assert_eq!(found, expected);
}

/// From deferred to immediate and back: what waits is placed before anything that comes later.
pub async fn the_mode_can_change_between_runs(mut bed: Bed) {
    let tenant = bed.tenant("a").await;
    let mut expected = Vec::new();
    for n in 0..9 {
        let mode = if n % 2 == 0 { Sequencing::Deferred } else { Sequencing::Immediate };
        bed.restart_as(mode).await;
        for _ in 0..3 {
            let draft = bed.draft(vec![], "run_s");
            expected.push(draft.facts[0].id.to_string());
            assert_eq!(draft.facts[0].kind, DONE);
            bed.draft_commit(&tenant, draft).await.unwrap();
        }
    }
    bed.settle().await;
    let leaves = bed.log_checked(&tenant).await;
    let found: Vec<_> =
        leaves[1..].iter().map(|row| kernel::fact::read(&row.leaf).unwrap().id.to_string()).collect();
    assert_eq!(found, expected);
}
