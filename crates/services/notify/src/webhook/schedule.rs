//! What an answer means, and when to try again. Pure.
//!
//! Only 2xx is done. A redirect is not followed, because whoever can make a target redirect would choose where a tenant's
//! events go; it is a failure like any other status, 404 included: a target that is being replaced answers so for a
//! minute. The one answer that ends it at once is 410 Gone.

use crate::webhook::CODES;
use egress::EgressError;

/// Waits after each failure of one event, milliseconds. After the last failure it is a dead letter.
pub const WAITS_MS: [i64; 7] = [5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000, 7_200_000];
/// Attempts of one event: the first, and one after each wait.
pub const ATTEMPTS_MAX: u32 = WAITS_MS.len() as u32 + 1;
/// Longest wait that a target may ask for, milliseconds.
pub const RETRY_AFTER_MS_MAX: i64 = 6 * 60 * 60 * 1000;
/// How long an endpoint may take nothing before it is disabled, milliseconds.
pub const FAILING_MS_MAX: i64 = 3 * 24 * 60 * 60 * 1000;

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Stable code.
    pub code: &'static str,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What the target asked for, milliseconds from now.
    pub after_ms: Option<i64>,
}

/// Judges an answer by its status, its `Retry-After` and its `Date`.
pub fn judged(status: u16, retry_after: Option<&str>, date: Option<&str>) -> Result<(), Failure> {
    let code = match status {
        200..=299 => return Ok(()),
        410 => "webhook.gone",
        429 => "webhook.throttled",
        _ => "webhook.status",
    };
    let after_ms =
        retry_after.and_then(|text| asked_ms(text, date)).filter(|_| matches!(status, 429 | 500..=599));
    Err(Failure { code, status: Some(status), after_ms })
}

/// A delivery that has no answer.
pub fn unanswered(error: &EgressError) -> Failure {
    Failure { code: error.code(), status: None, after_ms: None }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date, counted from that of the answer.
fn asked_ms(text: &str, date: Option<&str>) -> Option<i64> {
    let ms = match text.trim().parse::<u32>() {
        Ok(seconds) => i64::from(seconds) * 1000,
        Err(_) => egress::date::until_ms(text, date?)?,
    };
    Some(ms.clamp(0, RETRY_AFTER_MS_MAX))
}

/// How long to wait after the failure number `attempts`, from 1: the schedule's wait and up to a quarter more, so that what
/// failed together does not come back together, and never less than the target asked for. `None`: that was the last one.
pub fn wait_ms(attempts: u32, after_ms: Option<i64>, random: u8) -> Option<i64> {
    let wait = *WAITS_MS.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
    Some((wait + wait * i64::from(random) / 1024).max(after_ms.unwrap_or(0)))
}

/// The line of a code, for people who look at a failure.
pub fn about(code: &str) -> Option<&'static str> {
    let known = CODES.iter().chain(egress::CODES).chain(custody::CODES);
    known.into_iter().find(|(name, _)| *name == code).map(|(_, line)| *line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        let date = Some("Thu, 01 Jan 2026 00:00:00 GMT");
        for (status, after, expected) in [
            (200, None, None),
            (204, Some("7"), None),
            (299, None, None),
            (199, None, Some(("webhook.status", None))),
            (302, Some("7"), Some(("webhook.status", None))),
            (404, None, Some(("webhook.status", None))),
            (410, Some("7"), Some(("webhook.gone", None))),
            (429, Some("7"), Some(("webhook.throttled", Some(7_000)))),
            (429, Some(" 7 "), Some(("webhook.throttled", Some(7_000)))),
            (429, Some("-7"), Some(("webhook.throttled", None))),
            (429, Some("soon"), Some(("webhook.throttled", None))),
            (503, Some("4294967295"), Some(("webhook.status", Some(RETRY_AFTER_MS_MAX)))),
            (503, Some("99999999999999999999"), Some(("webhook.status", None))),
            (503, Some("Thu, 01 Jan 2026 00:01:00 GMT"), Some(("webhook.status", Some(60_000)))),
            (503, Some("Wed, 31 Dec 2025 00:00:00 GMT"), Some(("webhook.status", Some(0)))),
            (503, Some("Thu, 01 Foo 2026 00:01:00 GMT"), Some(("webhook.status", None))),
        ] {
            let found = judged(status, after, date).err();
            assert_eq!(
                found.as_ref().map(|found| (found.code, found.after_ms)),
                expected,
                "{status} {after:?}"
            );
            assert!(found.is_none_or(|found| found.status == Some(status) && about(found.code).is_some()));
        }
    }

    #[test]
    fn waits_grow_are_jittered_obey_and_end() {
        let plain: Vec<_> = (1..=ATTEMPTS_MAX).map(|attempt| wait_ms(attempt, None, 0)).collect();
        let expected: Vec<_> = WAITS_MS.iter().copied().map(Some).chain([None]).collect();
        assert_eq!(plain, expected);
        assert_eq!(wait_ms(0, None, 0), None);
        assert_eq!(wait_ms(1, Some(60_000), 255), Some(60_000));
        assert_eq!(wait_ms(1, Some(1), 0), Some(5_000), "never sooner than we would ourselves");
        assert_eq!(wait_ms(3, None, 255), Some(120_000 + 120_000 * 255 / 1024));
        assert_eq!(wait_ms(ATTEMPTS_MAX, Some(60_000), 0), None);
    }
}
