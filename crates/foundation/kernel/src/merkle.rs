//! RFC 6962 trees (as restated in RFC 9162 §2.1): hashing, appending, proving and verifying.
//!
//! A tenant's log is one such tree over its fact leaves. Three proofs come out of it:
//!
//! - **inclusion**: this leaf is at this index of the tree with this root;
//! - **consistency**: the tree of size *m* is a prefix of the tree of size *n*, so nothing was rewritten;
//! - **multi**: these leaves, wherever they lie, are all in the tree. A run's forty facts among a million share most
//!   of their path, so one multi-proof is a fraction of forty inclusion proofs, and a whole log needs no hashes at all.
//!
//! Verification is total: any list of hashes is an answer, never a panic, and unused hashes are a refusal.

use crate::Digest;
use sha2::{Digest as _, Sha256};

/// Hash of a leaf: SHA-256(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// Hash of an interior node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut block = [1u8; 65];
    block[1..33].copy_from_slice(left);
    block[33..].copy_from_slice(right);
    Sha256::digest(block).into()
}

/// Root of the tree over leaf hashes; of no leaves, SHA-256 of nothing.
pub fn root_of(leaves: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(*leaf);
    }
    frontier.root()
}

/// The right edge of a growing tree: roots of its perfect subtrees, largest first. Enough to append and to know the
/// root, in O(log n) space.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    edge: Vec<Digest>,
}

impl Frontier {
    /// Takes up a tree of `size` whose edge was kept as concatenated hashes. `None` if they do not fit together.
    pub fn resume(size: u64, edge: &[u8]) -> Option<Frontier> {
        let (hashes, rest) = edge.as_chunks::<32>();
        (rest.is_empty() && hashes.len() == size.count_ones() as usize)
            .then(|| Frontier { size, edge: hashes.to_vec() })
    }

    /// The edge as concatenated hashes.
    pub fn edge(&self) -> Vec<u8> {
        self.edge.concat()
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash.
    pub fn append(&mut self, leaf: Digest) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            // One perfect subtree on the edge per set bit of the size.
            let left = self.edge.pop().expect("the edge has one hash per set bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Digest {
        let mut hashes = self.edge.iter().rev();
        match hashes.next() {
            None => crate::sha256(b""),
            Some(last) => hashes.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// Largest power of two below `n`; `n` ≥ 2.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Reads the hash of the perfect subtree of height `level` that starts at leaf `index << level`.
pub type Nodes<'a, E> = &'a mut dyn FnMut(u8, u64) -> Result<Digest, E>;

fn range_root<E>(from: u64, to: u64, nodes: Nodes<'_, E>) -> Result<Digest, E> {
    let width = to - from;
    if width.is_power_of_two() && from.is_multiple_of(width) {
        let level = width.trailing_zeros() as u8;
        return nodes(level, from >> level);
    }
    let middle = from + split(width);
    let left = range_root(from, middle, nodes)?;
    Ok(node_hash(&left, &range_root(middle, to, nodes)?))
}

/// Root of the first `size` leaves, read from `nodes`.
pub fn root_at<E>(size: u64, nodes: Nodes<'_, E>) -> Result<Digest, E> {
    if size == 0 { Ok(crate::sha256(b"")) } else { range_root(0, size, nodes) }
}

/// Proof that the tree of `old` leaves is a prefix of the tree of `new` leaves; `old` ≤ `new`.
pub fn consistency<E>(old: u64, new: u64, nodes: Nodes<'_, E>) -> Result<Vec<Digest>, E> {
    let mut proof = Vec::new();
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let (mut from, mut to, mut old_to, mut whole) = (0, new, old, true);
    // SUBPROOF of RFC 9162 §2.1.4.1, outermost first; the proof is read innermost first.
    while old_to != to {
        let middle = from + split(to - from);
        if old_to <= middle {
            proof.push(range_root(middle, to, nodes)?);
            to = middle;
        } else {
            proof.push(range_root(from, middle, nodes)?);
            from = middle;
            whole = false;
        }
        old_to = old_to.min(to);
    }
    if !whole {
        proof.push(range_root(from, to, nodes)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks a consistency proof (RFC 9162 §2.1.4.2).
pub fn consistency_verify(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == crate::sha256(b"");
    }
    let mut hashes = proof.iter();
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let first = if node == 0 {
        *old_root
    } else {
        match hashes.next() {
            Some(hash) => *hash,
            None => return false,
        }
    };
    let (mut old_hash, mut new_hash) = (first, first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// Proof that leaf `index` is in the tree of `size` leaves; `index` < `size`.
pub fn inclusion<E>(size: u64, index: u64, nodes: Nodes<'_, E>) -> Result<Vec<Digest>, E> {
    multi(size, &[index], nodes).map(|mut proof| {
        // A multi-proof lists hashes left to right, an inclusion proof from the leaf upwards. Hashes left of the leaf
        // come outermost first, those right of it innermost first, so merging by height gives the RFC's order.
        let left = left_hashes(size, index);
        let mut right = proof.split_off(left.iter().filter(|is_left| **is_left).count());
        right.reverse();
        left.iter()
            .map(|is_left| if *is_left { proof.pop() } else { right.pop() })
            .map(Option::unwrap_or_default)
            .collect()
    })
}

/// For each hash of an inclusion proof, from the leaf upwards, whether it is the left neighbour.
fn left_hashes(size: u64, index: u64) -> Vec<bool> {
    let mut sides = Vec::new();
    let (mut from, mut to) = (0, size);
    while to - from > 1 {
        let middle = from + split(to - from);
        let is_left = index >= middle;
        sides.push(is_left);
        if is_left { from = middle } else { to = middle }
    }
    sides.reverse();
    sides
}

/// Checks an inclusion proof (RFC 9162 §2.1.3.2).
pub fn inclusion_verify(size: u64, index: u64, leaf: &Digest, proof: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let sides = left_hashes(size, index);
    sides.len() == proof.len()
        && sides.iter().zip(proof).fold(*leaf, |hash, (is_left, other)| {
            if *is_left { node_hash(other, &hash) } else { node_hash(&hash, other) }
        }) == *root
}

/// Proof that the leaves at `indices` (sorted, unique, below `size`) are in the tree of `size` leaves: the roots of the
/// largest subtrees that hold none of them, left to right.
pub fn multi<E>(size: u64, indices: &[u64], nodes: Nodes<'_, E>) -> Result<Vec<Digest>, E> {
    fn walk<E>(
        from: u64,
        to: u64,
        indices: &[u64],
        nodes: Nodes<'_, E>,
        out: &mut Vec<Digest>,
    ) -> Result<(), E> {
        if indices.is_empty() {
            out.push(range_root(from, to, nodes)?);
        } else if to - from > 1 {
            let middle = from + split(to - from);
            let (left, right) = indices.split_at(indices.partition_point(|index| *index < middle));
            walk(from, middle, left, nodes, out)?;
            walk(middle, to, right, nodes, out)?;
        }
        Ok(())
    }
    let mut proof = Vec::new();
    if size > 0 {
        walk(0, size, indices, nodes, &mut proof)?;
    }
    Ok(proof)
}

/// The root that a multi-proof leads to. `None` if indices are unsorted, doubled or out of range, or if hashes are
/// missing or left over.
pub fn multi_root(size: u64, leaves: &[(u64, Digest)], proof: &[Digest]) -> Option<Digest> {
    fn walk(
        from: u64,
        to: u64,
        leaves: &[(u64, Digest)],
        proof: &mut std::slice::Iter<'_, Digest>,
    ) -> Option<Digest> {
        match leaves {
            [] => proof.next().copied(),
            [(_, leaf)] if to - from == 1 => Some(*leaf),
            _ => {
                let middle = from + split(to - from);
                // Where every leaf is shown there is nothing to search for.
                let cut = if leaves.len() as u64 == to - from {
                    (middle - from) as usize
                } else {
                    leaves.partition_point(|(index, _)| *index < middle)
                };
                let (left, right) = leaves.split_at(cut);
                let left = walk(from, middle, left, proof)?;
                Some(node_hash(&left, &walk(middle, to, right, proof)?))
            }
        }
    }
    if !leaves.is_sorted_by(|(a, _), (b, _)| a < b) || leaves.last().is_some_and(|(index, _)| *index >= size)
    {
        return None;
    }
    if size == 0 {
        return proof.is_empty().then(|| crate::sha256(b""));
    }
    let mut hashes = proof.iter();
    let root = walk(0, size, leaves, &mut hashes)?;
    hashes.next().is_none().then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn leaves(n: u64) -> Vec<Digest> {
        (0..n).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    /// The definition of RFC 9162 §2.1.1, written down as it stands there.
    fn mth(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => crate::sha256(b""),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    fn nodes(leaves: &[Digest]) -> impl FnMut(u8, u64) -> Result<Digest, Infallible> {
        move |level, index| {
            let width = 1usize << level;
            Ok(mth(&leaves[index as usize * width..][..width]))
        }
    }

    #[test]
    fn known_answers() {
        // The empty tree and a one-leaf tree of RFC 6962's own test vectors.
        assert_eq!(
            crate::hex::encode(&root_of(&[])),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            crate::hex::encode(&root_of(&[leaf_hash(b"")])),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
    }

    #[test]
    fn frontier_agrees_with_the_definition_and_resumes() {
        let all = leaves(70);
        let mut frontier = Frontier::default();
        for n in 0..70usize {
            assert_eq!(frontier.root(), mth(&all[..n]));
            frontier = Frontier::resume(frontier.size(), &frontier.edge()).unwrap();
            frontier.append(all[n]);
        }
        assert!(Frontier::resume(3, &[0; 32]).is_none());
        assert!(Frontier::resume(1, &[0; 31]).is_none());
    }

    #[test]
    fn every_small_proof_verifies_and_none_for_something_else() {
        let all = leaves(40);
        for size in 1..=33u64 {
            let root = mth(&all[..size as usize]);
            assert_eq!(root_at(size, &mut nodes(&all)).unwrap(), root);
            for index in 0..size {
                let proof = inclusion(size, index, &mut nodes(&all)).unwrap();
                let leaf = &all[index as usize];
                assert!(inclusion_verify(size, index, leaf, &proof, &root), "{index}/{size}");
                assert!(!inclusion_verify(size, index, &all[39], &proof, &root));
                assert!(!inclusion_verify(size, (index + 1) % size, leaf, &proof, &root) || size == 1);
                assert!(!inclusion_verify(size, size, leaf, &proof, &root));
            }
            for old in 0..=size {
                let old_root = mth(&all[..old as usize]);
                let proof = consistency(old, size, &mut nodes(&all)).unwrap();
                assert!(consistency_verify(old, &old_root, size, &root, &proof), "{old}/{size}");
                if old > 0 && old < size {
                    assert!(!consistency_verify(old, &all[39], size, &root, &proof));
                    assert!(!consistency_verify(old, &old_root, size, &all[39], &proof));
                    let mut longer = proof.clone();
                    longer.push([0; 32]);
                    assert!(!consistency_verify(old, &old_root, size, &root, &longer));
                }
            }
        }
    }

    #[test]
    fn multi_proofs() {
        let all = leaves(40);
        for size in [1u64, 2, 7, 8, 21, 40] {
            let root = mth(&all[..size as usize]);
            for mask in [0u64, 1, 0b1010, 0x11, 0xff_ffff_ffff, 0x80_0000_0001] {
                let indices: Vec<u64> = (0..size).filter(|index| mask >> index & 1 == 1).collect();
                let proof = multi(size, &indices, &mut nodes(&all)).unwrap();
                let mut shown: Vec<_> = indices.iter().map(|index| (*index, all[*index as usize])).collect();
                assert_eq!(multi_root(size, &shown, &proof), Some(root), "{size} {mask:b}");
                let mut longer = proof.clone();
                longer.push([0; 32]);
                assert_eq!(multi_root(size, &shown, &longer), None);
                if let Some(first) = shown.first_mut() {
                    first.1 = [9; 32];
                    assert_ne!(multi_root(size, &shown, &proof), Some(root));
                }
            }
        }
        assert_eq!(multi_root(4, &[(1, [0; 32]), (1, [0; 32])], &[]), None);
        assert_eq!(multi_root(4, &[(4, [0; 32])], &[]), None);
        assert_eq!(multi_root(u64::MAX, &[(0, [0; 32])], &[]), None);
    }

    /// Proofs as a stranger may send them: too long, of no tree, of a tree of another size, with numbers read from the
    /// wrong end. Each is a no.
    #[test]
    fn g05_what_is_no_proof_proves_nothing() {
        let all = leaves(40);
        let size = 37u64;
        let (root, leaf) = (mth(&all[..37]), all[5]);
        let good = inclusion(size, 5, &mut nodes(&all)).unwrap();
        assert!(inclusion_verify(size, 5, &leaf, &good, &root));
        for extra in [1, 58, 59, 64, 65, 1000] {
            let longer = [good.clone(), vec![[0; 32]; extra]].concat();
            assert!(!inclusion_verify(size, 5, &leaf, &longer, &root), "{extra} hashes more");
            assert!(!consistency_verify(5, &mth(&all[..5]), size, &root, &longer));
            assert_eq!(multi_root(size, &[(5, leaf)], &longer), None);
        }
        for (size, index) in [
            (0, 0),
            (0, u64::MAX),
            (size, size),
            (size, u64::MAX),
            (5, 5),
            (u64::MAX, 5),
            (size.swap_bytes(), 5),
            (size, 5u64.swap_bytes()),
            (size.swap_bytes(), 5u64.swap_bytes()),
            (size, 4),
        ] {
            assert!(!inclusion_verify(size, index, &leaf, &good, &root), "{index} of {size}");
            let multi = multi_root(size, &[(index, leaf)], &good);
            assert!(multi.is_none_or(|other| other != root), "{index} of {size}");
        }
        let of = |old: u64| mth(&all[..old as usize]);
        let proof = consistency(5, size, &mut nodes(&all)).unwrap();
        assert!(consistency_verify(5, &of(5), size, &root, &proof));
        for (old, new) in [
            (size, 5),
            (0, size),
            (5, 0),
            (0, 0),
            (5, u64::MAX),
            (u64::MAX, u64::MAX),
            (5, size.swap_bytes()),
            (6, size),
        ] {
            assert!(!consistency_verify(old, &of(5), new, &root, &proof), "{old} of {new}");
        }
        let turned: Vec<Digest> = proof.iter().rev().copied().collect();
        assert!(!consistency_verify(5, &of(5), size, &root, &turned));
        assert_eq!(multi_root(size, &[(5, leaf), (4, leaf)], &[]), None, "out of order");
        let every: Vec<(u64, Digest)> = (0..65).map(|index| (index, leaf)).collect();
        assert_eq!(multi_root(size, &every, &[]), None, "more leaves than the tree has");
        assert_eq!(multi_root(0, &[], &[[0; 32]]), None);
    }

    proptest::proptest! {
        /// Whatever numbers and hashes there are, the answer is no, and it is an answer.
        #[test]
        fn g05_no_proof_that_is_made_up_is_believed_and_none_panics(
            size in proptest::prop_oneof![0u64..70, proptest::num::u64::ANY],
            other in proptest::prop_oneof![0u64..70, proptest::num::u64::ANY],
            indices in proptest::collection::vec(proptest::prop_oneof![0u64..70, proptest::num::u64::ANY], 0..5),
            proof in proptest::collection::vec(proptest::array::uniform32(1u8..), 0..130),
            root in proptest::array::uniform32(1u8..),
        ) {
            let leaf = leaf_hash(b"a leaf");
            for index in indices.iter().chain([&other]) {
                proptest::prop_assert!(!inclusion_verify(size, *index, &leaf, &proof, &root));
            }
            if size != other {
                proptest::prop_assert!(!consistency_verify(size, &leaf, other, &root, &proof));
            }
            let shown: Vec<(u64, Digest)> = indices.iter().map(|index| (*index, leaf)).collect();
            let led_to = multi_root(size, &shown, &proof);
            // With no leaf shown and one hash, a proof is its own root: it proves nothing about any leaf.
            proptest::prop_assert!(shown.is_empty() || led_to != Some(root));
        }
    }
}
