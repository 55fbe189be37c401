//! Signed checkpoints, as kept.

use super::bed::{Bed, tenant_id};
use kernel::note::{Checkpoint, NOTE_BYTES_MAX};
use kernel::{TenantId, merkle};
use store::CheckpointRow;

async fn head(bed: &Bed, tenant: &TenantId) -> Checkpoint {
    let head = bed.store().head(tenant).await.unwrap().unwrap();
    Checkpoint { origin: head.origin, size: head.size, root: head.root }
}

/// A note about a checkpoint. The store does not verify signatures, so any will do.
fn note(checkpoint: &Checkpoint) -> String {
    format!("{}\n— {} AAAAAAA=\n", checkpoint.text(), checkpoint.origin)
}

async fn keep(bed: &Bed, tenant: &TenantId, checkpoint: &Checkpoint) -> bool {
    bed.store().checkpoint_put(tenant, checkpoint.clone(), note(checkpoint)).await.unwrap()
}

async fn grow(bed: &Bed, tenant: &TenantId, commits: usize) {
    for _ in 0..commits {
        bed.done(tenant, vec![]).await;
    }
    bed.settle().await;
}

/// The head's, and the next head's.
pub async fn a_true_checkpoint_is_kept(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let first = head(&bed, &tenant).await;
    assert!(keep(&bed, &tenant, &first).await);
    let kept =
        |checkpoint: &Checkpoint| Some(CheckpointRow { size: checkpoint.size, note: note(checkpoint) });
    assert_eq!(bed.store().checkpoint_last(&tenant).await.unwrap(), kept(&first));
    grow(&bed, &tenant, 3).await;
    let second = head(&bed, &tenant).await;
    assert!(keep(&bed, &tenant, &second).await);
    assert_eq!(bed.store().checkpoint_last(&tenant).await.unwrap(), kept(&second));
}

/// Whatever is wrong with it: root, size, origin, tenant, note, or that it says nothing new.
pub async fn a_false_checkpoint_is_not_kept(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    grow(&bed, &a, 4).await;
    let good = head(&bed, &a).await;
    assert_eq!(good.size, 5);
    let mut root = good.root;
    root[31] ^= 1;
    for bad in [
        Checkpoint { root, ..good.clone() },
        Checkpoint { size: 6, ..good.clone() },
        Checkpoint { size: 4, ..good.clone() },
        Checkpoint { size: u64::MAX, ..good.clone() },
        Checkpoint { size: 0, root: kernel::sha256(b""), ..good.clone() },
        Checkpoint { origin: "writ.test/local/ten_b/1".into(), ..good.clone() },
        Checkpoint { origin: "writ.test/local/ten_a/2".into(), ..good.clone() },
    ] {
        assert!(!keep(&bed, &a, &bad).await, "{bad:?}");
    }
    assert!(!keep(&bed, &b, &good).await);
    assert!(!keep(&bed, &tenant_id("nobody"), &good).await);
    let other = Checkpoint { size: 4, ..good.clone() };
    for bad in [
        note(&other),
        good.text(),
        String::new(),
        format!("{}more\n\n", good.text()),
        note(&good) + &"x".repeat(NOTE_BYTES_MAX),
    ] {
        assert!(!bed.store().checkpoint_put(&a, good.clone(), bad.clone()).await.unwrap(), "{bad:?}");
    }
    assert_eq!(bed.store().checkpoint_last(&a).await.unwrap(), None);
    assert!(keep(&bed, &a, &good).await);
    assert!(!keep(&bed, &a, &good).await, "the same size again");
    assert_eq!(bed.store().checkpoints(&a, 0, 10).await.unwrap().len(), 1);
    assert_eq!(bed.store().checkpoints(&b, 0, 10).await.unwrap().len(), 0);
}

/// A signer that was slow: the log has grown meanwhile, and what it signed is still true.
pub async fn an_earlier_size_may_be_kept_if_it_is_news(bed: Bed) {
    let tenant = bed.tenant("a").await;
    grow(&bed, &tenant, 9).await;
    let earlier = head(&bed, &tenant).await;
    grow(&bed, &tenant, 300).await;
    let hashes: Vec<_> = bed.leaves(&tenant).await.iter().map(|row| merkle::leaf_hash(&row.leaf)).collect();
    assert!(keep(&bed, &tenant, &earlier).await);
    for (size, kept) in [(257, true), (256, false), (10, false), (309, true)] {
        let root = merkle::root_of(&hashes[..size as usize]);
        let checkpoint = Checkpoint { size, root, ..earlier.clone() };
        assert_eq!(keep(&bed, &tenant, &checkpoint).await, kept, "{size}");
    }
}

/// By size, as many as asked.
pub async fn checkpoints_are_listed_from_a_size_on(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for _ in 0..5 {
        grow(&bed, &tenant, 2).await;
        let checkpoint = head(&bed, &tenant).await;
        assert!(keep(&bed, &tenant, &checkpoint).await);
    }
    let sizes = async |after, limit| {
        let rows = bed.store().checkpoints(&tenant, after, limit).await.unwrap();
        rows.into_iter().map(|row| row.size).collect::<Vec<_>>()
    };
    assert_eq!(sizes(0, 10).await, [3, 5, 7, 9, 11]);
    assert_eq!(sizes(5, 2).await, [7, 9]);
    assert_eq!(sizes(4, 1).await, [5]);
    assert_eq!(sizes(11, 10).await, [0u64; 0]);
    assert_eq!(sizes(u64::MAX, 10).await, [0u64; 0]);
    assert_eq!(sizes(0, 0).await, [0u64; 0]);
}
