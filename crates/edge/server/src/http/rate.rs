//! How much one caller may ask of this server: a token bucket for each principal.
//!
//! A script that polls in a loop without a pause takes the place of everybody else. So a principal has a bucket of
//! `limits.requests_per_minute` requests that fills up evenly; who finds it empty is answered 429 with `Retry-After`, and
//! counted with all other refused traffic (one fact a minute, `access.traffic.refused`). How an *act* is throttled is said
//! by policy (THROTTLE) and is another matter: this bounds requests, reads and refused ones included.
//!
//! Every answer names the policy, and every answer to a known principal what is left of it, in the fields of the IETF's
//! draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651):
//!
//! ```text
//! RateLimit-Policy: "principal";q=6000;w=60
//! RateLimit: "principal";r=5998;t=1
//! ```
//!
//! `q` requests in `w` seconds; `r` are left, and in `t` seconds all of them are back.
//!
//! A bucket is one number (the generic cell rate algorithm): the time at which it will be full again. One that is full says
//! nothing and is let go, so memory is bounded by who really came within the last minute, and by [`BUCKETS_MAX`]; beyond,
//! newcomers share one bucket. Strangers have none, because names can be made up and keys cannot: what bounds them are
//! connections.

use kernel::Id;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Most buckets.
pub const BUCKETS_MAX: usize = 65_536;
/// The window in which a bucket fills up.
pub const WINDOW_S: u64 = 60;
const WINDOW_US: u64 = WINDOW_S * 1_000_000;
/// Shortest time between two searches for buckets that are full again.
const SWEEP_US: u64 = 1_000_000;
/// The policy's name in the fields.
const POLICY: &str = "principal";

/// What is left to one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests left now.
    pub left: u64,
    /// Seconds until all are back.
    pub full_s: u64,
    /// How long to wait for the next one, milliseconds, if this one came too early.
    pub wait_ms: Option<i64>,
}

impl Standing {
    /// The field `RateLimit`.
    pub fn field(&self) -> String {
        format!("\"{POLICY}\";r={};t={}", self.left, self.full_s)
    }
}

/// The buckets.
#[derive(Debug)]
pub struct Rates {
    quota: u64,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When each will be full, microseconds of the monotonic clock.
    full_at_us: HashMap<Id, u64>,
    /// The one that those share who found no room.
    shared_at_us: u64,
    swept_at_us: u64,
}

impl Rates {
    /// Buckets of `quota` requests a minute; at least one.
    pub fn new(quota: u32) -> Rates {
        Rates { quota: u64::from(quota.max(1)), buckets: Mutex::default() }
    }

    /// The field `RateLimit-Policy`.
    pub fn policy(&self) -> String {
        format!("\"{POLICY}\";q={};w={WINDOW_S}", self.quota)
    }

    /// Takes one request out of a principal's bucket.
    pub fn take(&self, principal: &Id, now_us: u64) -> Standing {
        let each_us = WINDOW_US / self.quota;
        let mut buckets = self.buckets.lock();
        let buckets = &mut *buckets;
        let room = buckets.full_at_us.len() < BUCKETS_MAX || buckets.full_at_us.contains_key(principal) || {
            if now_us.saturating_sub(buckets.swept_at_us) >= SWEEP_US {
                buckets.swept_at_us = now_us;
                buckets.full_at_us.retain(|_, full_at_us| *full_at_us > now_us);
            }
            buckets.full_at_us.len() < BUCKETS_MAX
        };
        let full_at_us = if room {
            buckets.full_at_us.entry(principal.clone()).or_insert(0)
        } else {
            &mut buckets.shared_at_us
        };
        // How much of the window has been taken, in time.
        let taken_us = full_at_us.saturating_sub(now_us);
        let over_us = (taken_us + each_us).saturating_sub(WINDOW_US);
        let taken_us = if over_us == 0 {
            *full_at_us = now_us + taken_us + each_us;
            taken_us + each_us
        } else {
            taken_us
        };
        Standing {
            left: WINDOW_US.saturating_sub(taken_us) / each_us.max(1),
            full_s: taken_us.div_ceil(1_000_000),
            // At most a window, so it fits.
            wait_ms: (over_us > 0).then(|| i64::try_from(over_us.div_ceil(1000)).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> Id {
        Id::parse(&format!("prn_{n}")).unwrap()
    }

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let rates = Rates::new(60);
        assert_eq!(rates.policy(), "\"principal\";q=60;w=60");
        let start_us = 5_000_000;
        for n in 0..60 {
            let standing = rates.take(&id(1), start_us);
            assert_eq!((standing.left, standing.wait_ms, standing.full_s), (59 - n, None, n + 1));
        }
        let refused = rates.take(&id(1), start_us);
        assert_eq!((refused.left, refused.wait_ms), (0, Some(1000)));
        assert_eq!(refused.field(), "\"principal\";r=0;t=60");
        // A refusal takes nothing; a second later one is back, and no more than one.
        assert_eq!(rates.take(&id(1), start_us + 999_999).wait_ms, Some(1));
        assert_eq!(rates.take(&id(1), start_us + 1_000_000).wait_ms, None);
        assert!(rates.take(&id(1), start_us + 1_000_000).wait_ms.is_some());
        // Others have their own.
        assert_eq!(rates.take(&id(2), start_us).left, 59);
        // However long nobody came, a bucket holds no more than its quota.
        assert_eq!(rates.take(&id(1), start_us + 3_600_000_000).left, 59);
    }

    #[test]
    fn memory_is_bounded_and_newcomers_share() {
        let rates = Rates::new(1);
        for n in 0..BUCKETS_MAX + 10 {
            let refused = rates.take(&id(n), 1_000_000_000).wait_ms.is_some();
            // The first of those without a bucket of their own takes what there is.
            assert_eq!(refused, n > BUCKETS_MAX, "{n}");
        }
        assert_eq!(rates.buckets.lock().full_at_us.len(), BUCKETS_MAX);
        // A minute later everybody's is full, and none is kept.
        assert!(rates.take(&id(BUCKETS_MAX + 5), 1_000_000_000 + WINDOW_US).wait_ms.is_none());
        assert_eq!(rates.buckets.lock().full_at_us.len(), 1);
    }
}
