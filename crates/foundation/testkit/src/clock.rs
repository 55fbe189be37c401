//! A clock that the test moves.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use store::Clock;

/// Where a virtual clock begins unless told otherwise: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// A clock that stands still until it is moved. Share it in an `Arc`.
#[derive(Debug)]
pub struct VirtualClock {
    now_ms: AtomicI64,
    monotonic_us: AtomicU64,
}

impl Default for VirtualClock {
    fn default() -> VirtualClock {
        VirtualClock::at(START_MS)
    }
}

impl VirtualClock {
    /// A clock that shows `now_ms`.
    pub fn at(now_ms: i64) -> VirtualClock {
        VirtualClock { now_ms: AtomicI64::new(now_ms), monotonic_us: AtomicU64::new(0) }
    }

    /// Moves both time of day and the monotonic clock on.
    ///
    /// # Panics
    /// If `by_ms` is negative: time does not pass backwards. To turn the time of day back, [`VirtualClock::set_ms`].
    pub fn advance_ms(&self, by_ms: i64) {
        let by_us = u64::try_from(by_ms).expect("time passes forwards").saturating_mul(1_000);
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.monotonic_us.fetch_add(by_us, Ordering::SeqCst);
    }

    /// Sets the time of day, as an operator or a time server would: to any value, back included. No time passes by
    /// it, so the monotonic clock stays where it is.
    pub fn set_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_day_can_be_turned_back() {
        let clock = VirtualClock::at(1_000);
        clock.advance_ms(5);
        assert_eq!((clock.now_ms(), clock.monotonic_us()), (1_005, 5_000));
        clock.set_ms(3);
        assert_eq!((clock.now_ms(), clock.monotonic_us()), (3, 5_000));
    }
}
