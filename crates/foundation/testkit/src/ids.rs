//! Ids and random bytes from a seed.

use crate::clock::START_MS;
use crate::random::Random;
use std::sync::Mutex;
use uuid::Uuid;

/// A deterministic source of ids: the same seed and the same calls give the same ids. Each is a UUIDv7 (RFC 9562), and
/// those made for the same or a later millisecond sort after those made before.
#[derive(Debug)]
pub struct SeededIds {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    /// Counts the ids made and stands right after the time, so that order within a millisecond is order of making.
    made: u32,
    /// What [`SeededIds::next_uuid`] takes for the time.
    at_ms: i64,
}

impl SeededIds {
    /// The ids of `seed`.
    pub fn new(seed: u64) -> SeededIds {
        SeededIds { state: Mutex::new(State { random: Random::seeded(seed), made: 0, at_ms: START_MS }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A test that panicked while holding it has left it whole: every change is a single assignment.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An id for a moment of virtual time that moves on by a millisecond with every call.
    pub fn next_uuid(&self) -> Uuid {
        let at_ms = {
            let mut state = self.state();
            state.at_ms += 1;
            state.at_ms
        };
        self.uuid_at(at_ms)
    }

    /// An id for `at_ms`.
    pub fn uuid_at(&self, at_ms: i64) -> Uuid {
        let mut state = self.state();
        state.made = state.made.wrapping_add(1);
        let mut random = [0; 10];
        random.copy_from_slice(&state.random.bytes32()[..10]);
        // The builder overwrites the upper four bits of the first byte (version) and the upper two of the third
        // (variant); the 26 bits that it leaves of the first four bytes hold the count.
        let made = state.made;
        random[..4].copy_from_slice(&[
            (made >> 22) as u8,
            (made >> 14) as u8,
            (made >> 8) as u8 & 0x3f,
            made as u8,
        ]);
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(at_ms).unwrap_or(0), &random).into_uuid()
    }

    /// 32 bytes that repeat with the seed.
    pub fn entropy(&self) -> [u8; 32] {
        self.state().random.bytes32()
    }
}

impl act::Ids for SeededIds {
    fn uuid(&self, at_ms: i64) -> Uuid {
        self.uuid_at(at_ms)
    }

    fn entropy(&self) -> [u8; 32] {
        SeededIds::entropy(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeat_with_the_seed_and_sort_by_making() {
        let (ids, again, other) = (SeededIds::new(7), SeededIds::new(7), SeededIds::new(8));
        let mut last = Uuid::nil();
        for n in 0..100_000 {
            let id = ids.uuid_at(5);
            assert!(id > last, "{n}: {id} after {last}");
            last = id;
        }
        assert_eq!((last.get_version_num(), last.get_variant()), (7, uuid::Variant::RFC4122));
        let ids = SeededIds::new(7);
        assert_eq!(ids.next_uuid(), again.next_uuid());
        assert_eq!(ids.entropy(), again.entropy());
        assert!(ids.next_uuid() < ids.next_uuid());
        assert_ne!(ids.entropy(), other.entropy());
    }
}
