//! Counting what was turned away.
//!
//! A stranger who sends a million requests without a key must not write a million facts. Each refusal is counted under
//! whose door it was, what sort of caller, and why; once a minute, and at the end, each count becomes one fact
//! (`access.traffic.refused`). The map is bounded, and its keys come from our own code, never from what was sent.

use kernel::TenantId;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Most counts kept apart; beyond, refusals are counted together under [`OTHER`].
pub const COUNTS_MAX: usize = 1024;
/// The code of what is counted together.
pub const OTHER: &str = "edge.refused_otherwise";

/// What sort of caller was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody that we know.
    Stranger,
    /// The holder of a valid key.
    Key,
    /// A sender of signed deliveries.
    Signature,
}

impl Source {
    /// The spelling in facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Stranger => "stranger",
            Source::Key => "key",
            Source::Signature => "signature",
        }
    }
}

/// Who was turned away, as far as it is known: in a response's extensions until it is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    /// At whose door; the platform's as long as nobody was identified.
    pub tenant: TenantId,
    /// What sort.
    pub source: Source,
}

impl Asker {
    /// Somebody of whom nothing is known.
    pub fn stranger() -> Asker {
        Asker { tenant: TenantId::platform(), source: Source::Stranger }
    }
}

/// The counts since the last flush.
#[derive(Debug, Default)]
pub struct Refused(Mutex<BTreeMap<(Asker, String), u64>>);

impl Refused {
    /// Counts one.
    pub fn note(&self, asker: Asker, code: &str) {
        self.add(asker, code.to_owned(), 1);
    }

    /// Counts some; also to give back what could not be recorded.
    pub fn add(&self, asker: Asker, code: String, count: u64) {
        let mut counts = self.0.lock();
        let key = (asker, code);
        let key = if counts.len() < COUNTS_MAX || counts.contains_key(&key) {
            key
        } else {
            (Asker::stranger(), OTHER.to_owned())
        };
        let slot = counts.entry(key).or_insert(0);
        *slot = slot.saturating_add(count);
    }

    /// Takes everything counted so far.
    pub fn take(&self) -> BTreeMap<(Asker, String), u64> {
        std::mem::take(&mut *self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_is_bounded_and_nothing_is_lost() {
        let refused = Refused::default();
        for n in 0..COUNTS_MAX + 500 {
            refused.note(Asker::stranger(), &format!("test.code_{n}"));
        }
        refused.note(Asker::stranger(), "test.code_0");
        let counts = refused.take();
        assert_eq!(counts.len(), COUNTS_MAX + 1);
        assert_eq!(counts.values().sum::<u64>(), COUNTS_MAX as u64 + 501);
        assert_eq!(counts[&(Asker::stranger(), "test.code_0".to_owned())], 2);
        assert_eq!(counts[&(Asker::stranger(), OTHER.to_owned())], 500);
        assert!(refused.take().is_empty());
    }
}
