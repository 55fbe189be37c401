//! The pass over the leaves: most of the work of a verification, so it borrows everything and allocates next to nothing.

use super::report::{Failure, Reason};
use super::{SKEW_MS, fail};
use crate::manifest::{Predicate, WHOLE_LOG};
use crate::trust::earlier_epoch;
use kernel::{Digest, fact, hex};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What the leaves say, as far as later checks need it.
pub(super) struct Facts<'a> {
    /// Index and hash of each, in order.
    pub leaves: Vec<(u64, Digest)>,
    /// The commitment of each fact in hexadecimal, by id.
    pub commitments: HashMap<&'a str, Option<&'a str>>,
    /// How many have one.
    pub committed: u64,
    /// The last number seen in each stream.
    pub streams: HashMap<&'a str, u64>,
    /// Digests of the policies that decided.
    pub policies: BTreeSet<String>,
}

impl<'a> Facts<'a> {
    /// Reads `facts.jsonl`, whose lines have these leaf hashes.
    pub fn read(bytes: &'a [u8], hashed: &[Digest], predicate: &Predicate) -> Result<Facts<'a>, Failure> {
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            return fail(Reason::FactMalformed, "the last line has no end");
        }
        let lines = memchr::memchr_iter(b'\n', bytes).count();
        let claimed = predicate.facts();
        if claimed != Some(lines) || hashed.len() != lines {
            return fail(
                Reason::RangeGap,
                format!("{lines} facts for ranges of {}", claimed.unwrap_or(usize::MAX)),
            );
        }
        // Complete streams are gapless from their first fact; the others only ascend.
        let complete: HashSet<&str> = predicate.streams.iter().map(|claim| claim.stream.as_str()).collect();
        let whole = predicate.subject == WHOLE_LOG;
        let mut facts = Facts {
            leaves: Vec::with_capacity(lines),
            commitments: HashMap::with_capacity(lines),
            committed: 0,
            streams: HashMap::new(),
            policies: BTreeSet::new(),
        };
        let mut newest_ms = i64::MIN;
        let mut last_origin: Cow<'_, str> = Cow::Borrowed("");
        let mut last_policy: Cow<'_, str> = Cow::Borrowed("");
        let indices = predicate.ranges.iter().flat_map(|(from, to)| *from..*to);
        for ((index, line), hash) in indices.zip(Lines(bytes)).zip(hashed) {
            let at = || format!("fact at index {index}");
            let Some(leaf) = fact::read(line) else { return fail(Reason::FactMalformed, at()) };
            if leaf.origin != last_origin {
                // A log that was moved to another epoch keeps its leaves: earlier epochs come first, and none comes back.
                let onward = !earlier_epoch(&leaf.origin, &last_origin);
                let of_this_log =
                    leaf.origin == predicate.origin || earlier_epoch(&leaf.origin, &predicate.origin);
                if !onward || !of_this_log {
                    return fail(Reason::FactOrigin, at());
                }
                last_origin = leaf.origin;
            }
            if leaf.at_ms < newest_ms.saturating_sub(SKEW_MS)
                || leaf.at_ms > predicate.created_at_ms.saturating_add(SKEW_MS)
            {
                return fail(Reason::FactTime, at());
            }
            newest_ms = newest_ms.max(leaf.at_ms);
            facts.committed += u64::from(leaf.args_commitment.is_some());
            if facts.commitments.insert(leaf.id, leaf.args_commitment).is_some() {
                return fail(Reason::FactTwice, at());
            }
            let last = facts.streams.insert(leaf.stream, leaf.stream_n).unwrap_or(0);
            let gapless = whole || complete.contains(leaf.stream);
            let follows = if gapless { leaf.stream_n == last + 1 } else { leaf.stream_n > last };
            if !follows {
                return fail(
                    Reason::StreamGap,
                    format!("{} after {last} in {}, {}", leaf.stream_n, leaf.stream, at()),
                );
            }
            if let Some(policy) = leaf.policy
                && policy != last_policy
            {
                let digests = policy.split('+').filter(|digest| hex::is32(digest));
                facts.policies.extend(digests.map(str::to_owned));
                last_policy = policy;
            }
            facts.leaves.push((index, *hash));
        }
        Ok(facts)
    }

    /// Checks that the streams claimed to be complete end where the manifest says; returns how many are complete.
    pub fn claims_check(&self, predicate: &Predicate) -> Result<usize, Failure> {
        for claim in &predicate.streams {
            let last = self.streams.get(claim.stream.as_str()).copied().unwrap_or(0);
            if last != claim.last {
                return fail(
                    Reason::StreamGap,
                    format!("{} ends at {last}, not at {}", claim.stream, claim.last),
                );
            }
        }
        Ok(if predicate.subject == WHOLE_LOG { self.streams.len() } else { predicate.streams.len() })
    }
}

/// Lines without their ends. `slice::split` looks at one byte at a time.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (line, rest) = self.0.split_at(memchr::memchr(b'\n', self.0)?);
        self.0 = &rest[1..];
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_of_every_length() {
        let lengths = [0, 1, 127, 128, 129, 255, 256, 0, 4096, 3];
        let text: Vec<u8> = lengths.iter().flat_map(|n| [vec![b'x'; *n], vec![b'\n']].concat()).collect();
        assert_eq!(Lines(&text).map(<[u8]>::len).collect::<Vec<_>>(), lengths);
        assert_eq!(Lines(b"unended").next(), None);
    }
}
