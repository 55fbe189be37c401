//! The transparency log: heads, inclusion, consistency, tiles.

use super::bed::{Bed, tenant_id};
use crate::Random;
use kernel::changeset::{Draft, OPERATIONS_MAX};
use kernel::merkle::{self, Frontier};
use kernel::{Digest, TenantId, sha256};
use std::collections::BTreeSet;

/// Grows a log by `facts` facts in one commit and gives them their places.
async fn grow(bed: &Bed, tenant: &TenantId, facts: usize) {
    let facts = (0..facts).map(|n| bed.fact(&format!("run_{}", n % 5))).collect();
    bed.draft_commit(tenant, Draft { facts, ..bed.draft(vec![], "run_a") }).await.unwrap();
    bed.settle().await;
}

/// A log of `size` leaves and their hashes.
async fn grown(bed: &Bed, name: &str, size: usize) -> (TenantId, Vec<Digest>) {
    let tenant = bed.tenant(name).await;
    let mut missing = size - 1;
    while missing > 0 {
        let facts = missing.min(OPERATIONS_MAX);
        grow(bed, &tenant, facts).await;
        missing -= facts;
    }
    let hashes = bed.leaves(&tenant).await.iter().map(|row| merkle::leaf_hash(&row.leaf)).collect();
    (tenant, hashes)
}

/// Sizes at which something about tiles or powers of two changes, up to `max`.
fn sizes(max: u64) -> Vec<u64> {
    let edges = [1, 2, 3, 64, 128, 255, 256, 257, 384, 511, 512, 513, 640, 699, 700];
    edges.into_iter().filter(|size| *size <= max).collect()
}

/// Head by head to 300 leaves, in steps of one to seven, across the first tile.
pub async fn the_root_is_that_of_the_leaves_at_every_size(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let mut frontier = Frontier::default();
    for n in 0..75 {
        for row in bed.store().leaves(&tenant, frontier.size(), usize::MAX).await.unwrap() {
            assert_eq!(row.index, frontier.size());
            frontier.append(merkle::leaf_hash(&row.leaf));
        }
        let head = bed.store().head(&tenant).await.unwrap().unwrap();
        assert_eq!((head.size, head.root), (frontier.size(), frontier.root()), "after {n} commits");
        grow(&bed, &tenant, 1 + n % 7).await;
    }
    bed.log_checked(&tenant).await;
}

/// SHA-256(previous ‖ size ‖ root) from batch to batch, and no batch without news.
pub async fn the_batch_chain_covers_every_head(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let other = bed.store().head(&b).await.unwrap();
    let mut previous: Digest = [0; 32];
    for n in 0..10 {
        let head = bed.store().head(&a).await.unwrap().unwrap();
        let chain = [&previous[..], &head.size.to_be_bytes(), &head.root].concat();
        assert_eq!(head.batch_hash, sha256(&chain), "batch {n}");
        previous = head.batch_hash;
        // Neither a refusal nor a commit of another tenant is news.
        let _ = bed.commit(&a, vec![super::bed::delete("rec_none", 1)]).await;
        grow(&bed, &a, 2).await;
    }
    assert_eq!(bed.store().head(&b).await.unwrap(), other);
}

/// Every leaf by itself at 15 sizes, and random sets of leaves, in any order and named twice.
pub async fn any_leaves_are_proven_at_any_size(bed: Bed) {
    let (tenant, hashes) = grown(&bed, "a", 700).await;
    let mut random = Random::seeded(11);
    for size in sizes(700) {
        let root = merkle::root_of(&hashes[..size as usize]);
        let mut sets: Vec<BTreeSet<u64>> = vec![BTreeSet::new(), (0..size).collect()];
        sets.extend((0..size).step_by(1 + size as usize / 60).map(|index| BTreeSet::from([index])));
        sets.push(BTreeSet::from([size - 1]));
        for _ in 0..20 {
            let count = 1 + random.below(40);
            sets.push((0..count).map(|_| random.below(size as usize) as u64).collect());
        }
        for set in sets {
            let mut asked: Vec<u64> = set.iter().copied().collect();
            asked.reverse();
            asked.extend(set.first());
            let proof = bed.store().proof(&tenant, size, asked).await.unwrap();
            let leaves: Vec<_> = set.iter().map(|index| (*index, hashes[*index as usize])).collect();
            assert_eq!(merkle::multi_root(size, &leaves, &proof), Some(root), "{set:?} of {size}");
        }
    }
}

/// All pairs of 15 sizes around tile edges, and 300 random pairs.
pub async fn any_two_sizes_are_consistent(bed: Bed) {
    let (tenant, hashes) = grown(&bed, "a", 700).await;
    let roots: Vec<Digest> = (0..=700).map(|size| merkle::root_of(&hashes[..size])).collect();
    let mut random = Random::seeded(12);
    let edges = sizes(700);
    let mut pairs: Vec<(u64, u64)> = edges
        .iter()
        .flat_map(|new| edges.iter().filter(move |old| *old <= new).map(move |old| (*old, *new)))
        .collect();
    pairs.extend([(0, 0), (0, 1), (0, 700)]);
    pairs.extend((0..300).map(|_| {
        let (a, b) = (random.below(701) as u64, random.below(701) as u64);
        (a.min(b), a.max(b))
    }));
    for (old, new) in pairs {
        let proof = bed.store().consistency(&tenant, old, new).await.unwrap();
        let (old_root, new_root) = (&roots[old as usize], &roots[new as usize]);
        assert!(merkle::consistency_verify(old, old_root, new, new_root, &proof), "{old} in {new}");
        assert!(old == new || !merkle::consistency_verify(old, &[7; 32], new, new_root, &proof));
    }
}

/// Beyond the end, backwards, or of a tenant without a log: an error, not a proof of something else.
pub async fn what_is_not_in_the_log_is_not_proven(bed: Bed) {
    let (tenant, _) = grown(&bed, "a", 10).await;
    for (size, indices) in [
        (11, vec![0]),
        (u64::MAX, vec![0]),
        (10, vec![10]),
        (10, vec![3, u64::MAX]),
        (0, vec![0]),
        (11, vec![]),
    ] {
        assert!(bed.store().proof(&tenant, size, indices.clone()).await.is_err(), "{indices:?} of {size}");
    }
    for (old, new) in [(0, 11), (10, 11), (11, 10), (10, 9), (u64::MAX, u64::MAX)] {
        assert!(bed.store().consistency(&tenant, old, new).await.is_err(), "{old} in {new}");
    }
    let nobody = tenant_id("nobody");
    assert!(bed.store().proof(&nobody, 1, vec![0]).await.is_err());
    assert!(bed.store().consistency(&nobody, 0, 1).await.is_err());
    assert_eq!(bed.store().proof(&tenant, 10, (0..10).collect()).await.unwrap(), Vec::<Digest>::new());
}

/// Two logs that grow in the same batches have each their own leaves, tiles and origin.
pub async fn logs_of_tenants_are_apart(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    for n in 0..60 {
        let commit = async |tenant: &TenantId, facts: usize| {
            let facts = (0..facts).map(|_| bed.fact("run_s")).collect();
            bed.draft_commit(tenant, Draft { facts, ..bed.draft(vec![], "run_a") }).await.unwrap();
        };
        tokio::join!(commit(&a, 5), commit(&b, 1 + n % 10));
    }
    bed.settle().await;
    for (tenant, size) in [(&a, 301), (&b, 331)] {
        let leaves = bed.log_checked(tenant).await;
        assert_eq!(leaves.len(), size);
        let head = bed.store().head(tenant).await.unwrap().unwrap();
        assert_eq!(head.origin, format!("writ.test/local/{tenant}/1"));
        let proof = bed.store().proof(tenant, head.size, vec![258]).await.unwrap();
        let leaf = (258, merkle::leaf_hash(&leaves[258].leaf));
        assert_eq!(merkle::multi_root(head.size, &[leaf], &proof), Some(head.root));
    }
}

/// 66,000 leaves: 257 tiles of the lowest level, so the first of the next one is complete and in use.
pub async fn a_large_log_proves_across_levels_of_tiles(bed: Bed) {
    const SIZE: usize = 66_000;
    let (tenant, hashes) = grown(&bed, "a", SIZE).await;
    assert_eq!(hashes.len(), SIZE);
    let head = bed.store().head(&tenant).await.unwrap().unwrap();
    let size = SIZE as u64;
    assert_eq!((head.size, head.root), (size, merkle::root_of(&hashes)));
    for old in [1, 255, 256, 65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_792, size] {
        let proof = bed.store().consistency(&tenant, old, size).await.unwrap();
        let old_root = merkle::root_of(&hashes[..old as usize]);
        assert!(merkle::consistency_verify(old, &old_root, size, &head.root, &proof), "{old} in {size}");
        for index in [0, old / 2, old - 1] {
            let proof = bed.store().proof(&tenant, old, vec![index]).await.unwrap();
            let leaf = (index, hashes[index as usize]);
            assert_eq!(merkle::multi_root(old, &[leaf], &proof), Some(old_root), "{index} of {old}");
        }
    }
    let set: Vec<u64> = (0..size).step_by(997).collect();
    let leaves: Vec<_> = set.iter().map(|index| (*index, hashes[*index as usize])).collect();
    let proof = bed.store().proof(&tenant, size, set).await.unwrap();
    assert_eq!(merkle::multi_root(size, &leaves, &proof), Some(head.root));
}
