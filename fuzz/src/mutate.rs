//! Mutations without coverage: what the smoke test tries between the corpus and the random.
//!
//! libFuzzer decides by the paths that an input took. Here nothing is known of paths, so the changes are those that break
//! readers most often: a bit, a border value, a word of the format in another place, a piece doubled, moved or gone, two
//! inputs joined, a number made huge. The sequence depends on the seed alone, so that whoever runs it again sees the same.

use crate::{INPUT_BYTES_MAX, Target};
use testkit::Random;

/// Bytes at which something often changes.
const BORDERS: &[u8] =
    &[0, 1, 9, b'\n', b'\r', b' ', b'"', b'0', b'9', b'A', b'\\', 0x7f, 0x80, 0xc3, 0xed, 0xff];
/// Most changes to one input.
const CHANGES_MAX: usize = 4;

/// A sequence of inputs.
#[derive(Debug)]
pub struct Mutator {
    random: Random,
    pool: Vec<Vec<u8>>,
    words: &'static [&'static str],
}

impl Mutator {
    /// Mutations of `pool` for a target; the same seed, pool and target give the same inputs.
    pub fn new(target: &Target, pool: Vec<Vec<u8>>, seed: u64) -> Mutator {
        let pool = if pool.is_empty() { vec![Vec::new()] } else { pool };
        Mutator { random: Random::seeded(seed), pool, words: target.words }
    }

    /// The next input, of at most [`INPUT_BYTES_MAX`] bytes.
    pub fn input(&mut self) -> Vec<u8> {
        let mut input = self.random.pick(&self.pool).clone();
        for _ in 0..=self.random.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let (from, to) = piece(random, input.len());
        match random.below(10) {
            0 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] ^= 1 << random.below(8);
            }
            1 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] = *random.pick(BORDERS);
            }
            2 => input.insert(from, *random.pick(BORDERS)),
            3 => drop(input.drain(from..to)),
            4 => {
                let piece = input[from..to].to_vec();
                let at = random.below(input.len() + 1);
                input.splice(at..at, piece);
            }
            5 => input.truncate(from),
            6 | 7 if !self.words.is_empty() => {
                let word = random.pick(self.words).as_bytes();
                let to = if random.chance(50) { from } else { to };
                input.splice(from..to, word.iter().copied());
            }
            8 => {
                let other = random.pick(&self.pool);
                let (begin, end) = piece(random, other.len());
                input.splice(from..to, other[begin..end].iter().copied());
            }
            _ => {
                // A number in the text, if there is one behind here, becomes another.
                let Some(at) = input[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else {
                    return;
                };
                let end = input[at..]
                    .iter()
                    .position(|byte| !byte.is_ascii_digit())
                    .map_or(input.len(), |n| at + n);
                let other = ["0", "1", "-1", "007", "9007199254740992", "18446744073709551616", "1e9", "0.5"];
                input.splice(at..end, random.pick(&other).bytes());
            }
        }
    }
}

/// The borders of a piece, more often short than long.
fn piece(random: &mut Random, len: usize) -> (usize, usize) {
    let from = random.below(len + 1);
    let most = if random.chance(75) { (len - from).min(32) } else { len - from };
    (from, from + random.below(most + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_they_are_many() {
        let target = crate::target("url");
        let inputs = |seed| {
            let mut mutator = Mutator::new(target, (target.seeds)(), seed);
            (0..2_000).map(|_| mutator.input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        let mut distinct = inputs(1);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 1_500, "{} of 2,000 differ", distinct.len());
        assert!(distinct.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
    }
}
