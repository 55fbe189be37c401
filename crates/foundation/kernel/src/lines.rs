//! A file of leaves, hashed by the line and as a whole, in one pass.
//!
//! Whoever verifies a bundle needs both: each leaf's hash for the tree, and the file's for the manifest that lists it. SHA-256
//! waits for itself, because each round needs the one before, while a processor with instructions for it could do two
//! at once. So the two take turns here, a block each: what one waits for, the other uses. That is half as fast again as
//! one after the other. Rounds are those of `sha2`; only the cutting into blocks and the padding (FIPS 180-4, 5.1.1) are
//! here, and the tests hold them against it.

use crate::Digest;
use sha2::block_api::compress256;
use std::slice;

const BLOCK: usize = 64;
/// The eight words that every SHA-256 begins with (FIPS 180-4, 5.3.3).
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 of `bytes`, and the leaf hash ([`crate::merkle::leaf_hash`]) of each line in it, without its end, of the first
/// `lines_max`. What stands behind the last line end is in no line.
pub fn hash(bytes: &[u8], lines_max: usize) -> (Digest, Vec<Digest>) {
    let mut whole = Whole::of(bytes);
    let mut leaves = Vec::new();
    let mut from = 0;
    for end in memchr::memchr_iter(b'\n', bytes).take(lines_max) {
        let line = bytes.get(from..end).unwrap_or_default();
        leaves.push(leaf(line, || whole.step(end)));
        from = end + 1;
    }
    (whole.finish(), leaves)
}

/// SHA-256(0x00 ‖ line), with something else to do after each block.
fn leaf(line: &[u8], mut meanwhile: impl FnMut()) -> Digest {
    let mut state = BEGIN;
    let length = line.len() + 1;
    for from in (0..padded(length)).step_by(BLOCK) {
        // Blocks in the middle are a part of the line as it is; the first begins with the zero, the last ends with padding.
        let inside = from.checked_sub(1).and_then(|from| line.get(from..)?.first_chunk::<BLOCK>());
        match inside {
            Some(block) => compress256(&mut state, slice::from_ref(block)),
            None => {
                let mut block = [0; BLOCK];
                let (at, rest) = match from.checked_sub(1) {
                    None => (1, line),
                    Some(from) => (0, line.get(from..).unwrap_or_default()),
                };
                let taken = rest.len().min(BLOCK - at);
                block[at..at + taken].copy_from_slice(&rest[..taken]);
                pad(&mut block, from, length);
                compress256(&mut state, slice::from_ref(&block));
            }
        }
        meanwhile();
    }
    digest(&state)
}

/// The hash of all bytes, as far as it has come.
struct Whole<'a> {
    state: [u32; 8],
    blocks: &'a [[u8; BLOCK]],
    /// Blocks that are in `state`.
    done: usize,
    rest: &'a [u8],
}

impl<'a> Whole<'a> {
    fn of(bytes: &'a [u8]) -> Whole<'a> {
        let (blocks, rest) = bytes.as_chunks();
        Whole { state: BEGIN, blocks, done: 0, rest }
    }

    /// Takes one more block, if it ends before `end`: not further than somebody else is, so that it is in the cache.
    fn step(&mut self, end: usize) {
        if (self.done + 1) * BLOCK <= end
            && let Some(block) = self.blocks.get(self.done)
        {
            compress256(&mut self.state, slice::from_ref(block));
            self.done += 1;
        }
    }

    fn finish(mut self) -> Digest {
        compress256(&mut self.state, self.blocks.get(self.done..).unwrap_or_default());
        let before = self.blocks.len() * BLOCK;
        let length = before + self.rest.len();
        for from in (before..padded(length)).step_by(BLOCK) {
            let mut block = [0; BLOCK];
            if from == before {
                block[..self.rest.len()].copy_from_slice(self.rest);
            }
            pad(&mut block, from, length);
            compress256(&mut self.state, slice::from_ref(&block));
        }
        digest(&self.state)
    }
}

/// Length of a message of `length` bytes with its padding: a bit, zeros, and eight bytes of length.
fn padded(length: usize) -> usize {
    (length + 9).next_multiple_of(BLOCK)
}

/// Writes what of the padding belongs into the block at `from` of a message of `length` bytes.
fn pad(block: &mut [u8; BLOCK], from: usize, length: usize) {
    if let Some(mark) = length.checked_sub(from).and_then(|at| block.get_mut(at)) {
        *mark = 0x80;
    }
    if from + BLOCK == padded(length) {
        block[BLOCK - 8..].copy_from_slice(&(length as u64 * 8).to_be_bytes());
    }
}

fn digest(state: &[u32; 8]) -> Digest {
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;
    use crate::sha256;

    fn plainly(bytes: &[u8], lines_max: usize) -> (Digest, Vec<Digest>) {
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        lines.pop();
        (sha256(bytes), lines.into_iter().take(lines_max).map(leaf_hash).collect())
    }

    #[test]
    fn lines_of_every_length_wherever_they_begin() {
        for length in 0..260 {
            for before in [0, 1, 7, 8, 54, 55, 56, 62, 63, 64, 119, 128] {
                let mut bytes = vec![b'b'; before];
                bytes.push(b'\n');
                bytes.extend(vec![b'l'; length]);
                assert_eq!(hash(&bytes, 9), plainly(&bytes, 9), "{before}, {length} unended");
                bytes.push(b'\n');
                assert_eq!(hash(&bytes, 9), plainly(&bytes, 9), "{before}, {length}");
            }
        }
    }

    #[test]
    fn no_more_lines_than_were_asked_for() {
        let bytes = [b'\n'; 1000];
        for lines_max in [0, 1, 999, 1000, 1001] {
            assert_eq!(hash(&bytes, lines_max), plainly(&bytes, lines_max), "{lines_max}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_file(lines in proptest::collection::vec("[a-z]{0,300}", 0..40), lines_max in 0usize..50) {
            let bytes = lines.join("\n").into_bytes();
            proptest::prop_assert_eq!(hash(&bytes, lines_max), plainly(&bytes, lines_max));
        }
    }
}
