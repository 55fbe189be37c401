//! Checkpoints, proofs, and the arithmetic of tiles.

use crate::{Taken, Target, of_kind};
use ed25519_dalek::SigningKey;
use kernel::merkle::{self, Frontier};
use kernel::note::{self, Checkpoint, NOTE_BYTES_MAX, VerifierKey};
use kernel::{Digest, sha256};
use std::convert::Infallible;

const ORIGIN: &str = "writ.test/local/ten_a/1";
/// Most leaves of a tree that is built here.
const LEAVES_MAX: usize = 600;
/// Leaves under one tile of the lowest level.
const TILE_WIDTH: u64 = 256;

pub(crate) const CHECKPOINT: Target = Target {
    name: "checkpoint",
    run: checkpoint,
    seeds: checkpoint_seeds,
    words: &["\n\n", "— ", "+", "=", ORIGIN, "\u{2003}", "\n0\n", "\n18446744073709551615\n"],
    runs: 20_000,
};

pub(crate) const PROOF: Target =
    Target { name: "proof", run: proof, seeds: proof_seeds, words: &["\0\0\0\0\0\0\0\u{1}"], runs: 20_000 };

pub(crate) const TILE: Target =
    Target { name: "tile", run: tile, seeds: tile_seeds, words: &["\u{1}\0", "\0\u{7f}"], runs: 4_000 };

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn verifier() -> VerifierKey {
    VerifierKey::new(ORIGIN, key().verifying_key()).expect("the name is one")
}

/// 0: a verifier key; 1: a note as it comes; 2: a text that the log's key signs.
fn checkpoint(data: &[u8]) {
    let mut taken = Taken::of(data);
    let kind = taken.byte() % 3;
    let Some(text) = taken.text() else { return };
    match kind {
        0 => {
            if let Ok(key) = VerifierKey::parse(text) {
                assert_eq!(key.to_string(), text, "a key has one spelling");
            }
        }
        1 => {
            if let Ok(read) = Checkpoint::open(text, &verifier()) {
                assert_eq!(text.rsplit_once("\n\n").map(|(text, _)| format!("{text}\n")), Some(read.text()));
            }
        }
        _ => {
            let Ok(note) = note::sign(text, ORIGIN, &key()) else { return };
            let readable = note.len() <= NOTE_BYTES_MAX && !text.chars().any(|c| c != '\n' && c.is_control());
            match verifier().open(&note) {
                Ok(read) => assert_eq!(read, text, "what is signed is what is read"),
                Err(error) => assert!(!readable, "our own note is refused: {error}"),
            }
            if let Ok(read) = Checkpoint::open(&note, &verifier()) {
                assert_eq!(read.text(), text, "a checkpoint has one spelling");
                let again = read.sign(&key()).expect("the origin is a name");
                assert_eq!(Checkpoint::open(&again, &verifier()), Ok(read));
            }
        }
    }
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: 42, root: [9; 32] };
    let note = checkpoint.sign(&key()).expect("the origin is a name");
    let witnessed = format!("{note}— witness.example {}\n", "A".repeat(96));
    let empty = Checkpoint { size: 0, root: sha256(b""), ..checkpoint.clone() };
    vec![
        of_kind(0, verifier().to_string().as_bytes()),
        of_kind(1, note.as_bytes()),
        of_kind(1, witnessed.as_bytes()),
        of_kind(2, checkpoint.text().as_bytes()),
        of_kind(2, empty.text().as_bytes()),
    ]
}

fn leaves(n: usize) -> Vec<Digest> {
    (0..n as u64).map(|n| merkle::leaf_hash(&n.to_be_bytes())).collect()
}

/// RFC 6962 section 2.1, as it stands there.
fn root_as_specified(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => sha256(b""),
        [leaf] => *leaf,
        _ => {
            let half = 1 << (leaves.len() - 1).ilog2();
            merkle::node_hash(&root_as_specified(&leaves[..half]), &root_as_specified(&leaves[half..]))
        }
    }
}

fn nodes(leaves: &[Digest]) -> impl FnMut(u8, u64) -> Result<Digest, Infallible> {
    move |level, index| {
        let width = 1usize << level;
        Ok(merkle::root_of(&leaves[index as usize * width..][..width]))
    }
}

/// 0: numbers and hashes as they come; 1: proofs of a real tree, and each of them with a byte turned.
fn proof(data: &[u8]) {
    let mut taken = Taken::of(data);
    if taken.byte().is_multiple_of(2) {
        let (size, index, old) = (taken.u64(), taken.u64(), taken.u64());
        let (root, leaf) = (taken.digest(), taken.digest());
        let shown: Vec<(u64, Digest)> = (0..taken.below(5)).map(|_| (taken.u64(), taken.digest())).collect();
        let mut hashes = Vec::new();
        while !taken.is_empty() {
            hashes.push(taken.digest());
        }
        // A hash that nobody knows the leaves of: whatever is claimed about it does not hold.
        assert!(
            !merkle::inclusion_verify(size, index, &leaf, &hashes, &root)
                || leaf == root
                || !hashes.is_empty()
        );
        let _ = merkle::consistency_verify(old, &leaf, size, &root, &hashes);
        if let Some(found) = merkle::multi_root(size, &shown, &hashes) {
            assert!(
                shown.iter().all(|(index, _)| *index < size),
                "a leaf beyond the tree leads to {found:?}"
            );
        }
        return;
    }
    let leaves = leaves(1 + taken.below(200));
    let size = leaves.len() as u64;
    let root = root_as_specified(&leaves);
    assert_eq!(merkle::root_of(&leaves), root);
    let (index, old) = (taken.below(leaves.len()) as u64, taken.below(leaves.len() + 1));
    let old_root = root_as_specified(&leaves[..old]);
    let turn = (taken.below(usize::MAX), 1u8 << (taken.byte() % 8));
    let mut indices: Vec<u64> = (0..taken.below(9)).map(|_| taken.below(leaves.len()) as u64).collect();
    indices.sort_unstable();
    indices.dedup();

    let Ok(inclusion) = merkle::inclusion(size, index, &mut nodes(&leaves));
    let leaf = leaves[index as usize];
    each(&inclusion, turn, |proof| merkle::inclusion_verify(size, index, &leaf, proof, &root));
    let Ok(consistency) = merkle::consistency(old as u64, size, &mut nodes(&leaves));
    each(&consistency, turn, |proof| merkle::consistency_verify(old as u64, &old_root, size, &root, proof));
    let Ok(multi) = merkle::multi(size, &indices, &mut nodes(&leaves));
    let shown: Vec<(u64, Digest)> = indices.iter().map(|index| (*index, leaves[*index as usize])).collect();
    each(&multi, turn, |proof| merkle::multi_root(size, &shown, proof) == Some(root));
}

/// The proof holds; with a bit turned, a hash fewer or a hash more it does not.
fn each(proof: &[Digest], (at, bit): (usize, u8), holds: impl Fn(&[Digest]) -> bool) {
    assert!(holds(proof), "a proof of our own does not hold");
    let longer = [proof, &[[0; 32]]].concat();
    assert!(!holds(&longer), "a hash more is taken");
    if let Some((_, shorter)) = proof.split_last() {
        assert!(!holds(shorter), "a hash fewer is taken");
        let mut turned = proof.to_vec();
        turned[at % proof.len()][at / proof.len() % 32] ^= bit;
        assert!(!holds(&turned), "another hash is taken");
    }
}

fn proof_seeds() -> Vec<Vec<u8>> {
    let mut raw = of_kind(0, &7u64.to_be_bytes());
    raw.extend_from_slice(&[0; 200]);
    vec![
        raw,
        of_kind(1, &[0, 6, 0, 3, 0, 4, 0, 1, 2, 0, 3, 0, 1, 0, 4, 0, 6]),
        of_kind(1, &[0, 199, 0, 100, 0, 128, 5, 5, 5, 0, 8, 0, 0, 0, 7, 0, 90]),
        of_kind(1, &[0, 0, 0, 0, 0, 0]),
    ]
}

/// A growing tree, its edge kept and taken up again, and its root read from complete tiles.
fn tile(data: &[u8]) {
    let mut taken = Taken::of(data);
    let (count, stop) = (taken.below(LEAVES_MAX + 1), taken.below(LEAVES_MAX + 1));
    let leaves = leaves(count);
    let mut frontier = Frontier::default();
    for (n, leaf) in leaves.iter().enumerate() {
        if n == stop {
            frontier =
                Frontier::resume(n as u64, &frontier.edge()).expect("an edge of our own fits its size");
        }
        frontier.append(*leaf);
    }
    let root = root_as_specified(&leaves);
    assert_eq!((frontier.size(), frontier.root()), (count as u64, root));
    let tiles: Vec<Digest> = leaves.chunks_exact(TILE_WIDTH as usize).map(merkle::root_of).collect();
    let mut read = |level: u8, index: u64| {
        let height = TILE_WIDTH.ilog2() as u8;
        let (hashes, level) = if level < height { (&leaves, level) } else { (&tiles, level - height) };
        let width = 1usize << level;
        Ok::<_, Infallible>(merkle::root_of(&hashes[index as usize * width..][..width]))
    };
    assert_eq!(merkle::root_at(count as u64, &mut read), Ok(root));
    let (size, edge) = (taken.u64(), taken.rest());
    if let Some(resumed) = Frontier::resume(size, edge) {
        assert_eq!((resumed.size(), resumed.edge()), (size, edge.to_vec()));
        let _ = resumed.root();
    }
}

fn tile_seeds() -> Vec<Vec<u8>> {
    let edge = [&[2, 0, 1, 0][..], &5u64.to_be_bytes(), &[3; 64]].concat();
    vec![vec![0, 0, 0, 0], vec![1, 0, 0, 200], vec![2, 88, 1, 1], vec![1, 1, 1, 0], edge]
}
