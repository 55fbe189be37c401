//! Effects outside: what names one, what a reply says about it, and what may be done next.
//!
//! The ugly moment of every integration is the write that timed out. It may have happened. Sent again it may happen
//! twice, reported as failed it may have happened all the same. So there are three outcomes and not two: done, failed and
//! certainly not applied, and *unknown*. What may follow an unknown outcome is decided by the class of the action, in one
//! place, [`after_unknown`], and never by the code that happens to hold the error.
//!
//! The effect key names the effect: the same run, step, connector version and parameters are the same effect, however
//! often it is tried and whoever tries it. Its short form goes along with the write where a write can carry text, so
//! that the other system can be asked about it.

use crate::connector::manifest::{Action, Effect};
use crate::connector::response::{self, ResponseError};
use egress::{EgressError, Reply, Sent};
use kernel::{Id, hex, json, sha256};
use serde_json::{Map, Value};

/// Longest wait that a `Retry-After` may ask for, in milliseconds: an hour.
pub const RETRY_AFTER_MS_MAX: i64 = 3_600_000;
/// First wait after an external fault.
pub const BACKOFF_MS: i64 = 1_000;
/// Longest wait after an external fault.
pub const BACKOFF_MS_MAX: i64 = 60_000;

/// The key of an effect: SHA-256 over run, step, connector version and canonical parameters, in hexadecimal.
///
/// # Errors
/// If the parameters are outside the canonical profile.
pub fn key(
    run: &Id,
    step: &str,
    connector_version: &str,
    params: &Map<String, Value>,
) -> Result<String, json::JsonError> {
    let named = serde_json::json!({
        "run": run, "step": step, "connector": connector_version, "params": params,
    });
    Ok(hex::encode(&sha256(&json::canonical(&named)?)))
}

/// The marker that a write carries: `[ref:af-` and 64 bits of the key.
pub fn marker(key: &str) -> String {
    format!("[ref:af-{}]", key.get(..16).unwrap_or(key))
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempted {
    /// It took effect, and everything that was written is there.
    Done(Map<String, Value>),
    /// It certainly did not take effect, or did so wrongly for good.
    Failed {
        /// Stable code.
        code: &'static str,
        /// Whether the same call may succeed later, and when at the earliest.
        retry: Retry,
        /// For people; holds no content of the reply.
        detail: String,
    },
    /// It may have taken effect.
    Unknown {
        /// Stable code of what went wrong.
        code: &'static str,
    },
}

/// Whether a failed call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call fails again.
    Never,
    /// Later, in so many milliseconds if the other side said so.
    Later(Option<i64>),
}

/// Judges a failure to get a reply.
pub fn of_error(effect: Effect, error: &EgressError) -> Attempted {
    let detail = error.fault().to_string();
    if error.is_refusal() {
        // A refusal after a redirect was followed comes after bytes were sent.
        return match (error.sent(), effect) {
            (Sent::NotSent, _) | (Sent::Maybe, Effect::Read) => {
                Attempted::Failed { code: error.code(), retry: Retry::Never, detail }
            }
            (Sent::Maybe, _) => Attempted::Unknown { code: error.code() },
        };
    }
    match (error.sent(), effect) {
        (Sent::NotSent, _) | (Sent::Maybe, Effect::Read) => {
            Attempted::Failed { code: error.code(), retry: Retry::Later(None), detail }
        }
        (Sent::Maybe, _) => Attempted::Unknown { code: error.code() },
    }
}

/// Judges a reply.
pub fn of_reply(action: &Action, params: &Map<String, Value>, reply: &Reply) -> Attempted {
    let status = reply.status.as_u16();
    let failed = |code, retry, detail: String| Attempted::Failed { code, retry, detail };
    if action.response.status.contains(&status) {
        return match response::read(action, params, &reply.body) {
            Ok(output) => Attempted::Done(output),
            Err(ResponseError::Dropped(fields)) => {
                failed("flows.field_dropped", Retry::Never, format!("not written: {}", fields.join(", ")))
            }
            Err(ResponseError::TooLarge) if action.effect == Effect::Read => {
                failed("flows.output_too_large", Retry::Never, String::new())
            }
            // The status says yes and the body cannot be read: for a write nobody knows what was written.
            Err(ResponseError::Unreadable) if action.effect == Effect::Read => {
                failed("flows.reply_unreadable", Retry::Later(None), String::new())
            }
            Err(ResponseError::Unreadable | ResponseError::TooLarge) => {
                Attempted::Unknown { code: "flows.reply_unreadable" }
            }
        };
    }
    let said = format!("status {status}");
    match status {
        // The other side turned it away before it looked at it.
        429 => failed("flows.throttled", Retry::Later(retry_after_ms(reply)), said),
        401 | 407 => failed("flows.unauthenticated", Retry::Later(None), said),
        // Answers of a gateway in front: it may or may not have passed the request on.
        408 | 500..=599 if action.effect == Effect::Read => {
            failed("flows.upstream_failed", Retry::Later(retry_after_ms(reply)), said)
        }
        408 | 500..=599 => Attempted::Unknown { code: "flows.upstream_failed" },
        403 => failed("flows.forbidden", Retry::Never, said),
        404 | 410 => failed("flows.not_there", Retry::Never, said),
        400..=499 => failed("flows.rejected", Retry::Never, said),
        // A success that the manifest does not know, or a redirect: it may have done something.
        _ if action.effect == Effect::Read => failed("flows.status_unexpected", Retry::Never, said),
        _ => Attempted::Unknown { code: "flows.status_unexpected" },
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), capped. A date is taken against the reply's own, so that it
/// does not matter whose clock is right.
pub(crate) fn retry_after_ms(reply: &Reply) -> Option<i64> {
    let header = |name: &str| Some(reply.headers.get(name)?.to_str().ok()?.trim());
    let asked = header("retry-after")?;
    let wait_ms = match asked.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1000)?,
        Err(_) => egress::date::until_ms(asked, header("date")?)?,
    };
    Some(wait_ms.clamp(0, RETRY_AFTER_MS_MAX))
}

/// What may follow an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterUnknown {
    /// Try again: a repetition is the same as once.
    Repeat,
    /// Find out first.
    Reconcile,
    /// Nothing: only people can tell.
    Park,
}

/// The one place that says when an effect that may have happened may be caused again.
pub fn after_unknown(effect: Effect) -> AfterUnknown {
    match effect {
        Effect::Read | Effect::Idempotent | Effect::Keyed => AfterUnknown::Repeat,
        Effect::Reconcilable => AfterUnknown::Reconcile,
        Effect::Unsafe => AfterUnknown::Park,
    }
}

/// How long to wait before the next attempt: what the other side asked for, or full jitter over a doubling bound.
/// `random` is any number; `failures` counts from 1.
pub fn wait_ms(asked_ms: Option<i64>, failures: u32, random: u64) -> i64 {
    let bound = (BACKOFF_MS << failures.saturating_sub(1).min(16)).min(BACKOFF_MS_MAX);
    // The bound is positive and small, so both conversions hold.
    let jitter = i64::try_from(random % u64::try_from(bound).unwrap_or(1)).unwrap_or(0);
    match asked_ms {
        // Whoever asks, for however long: nobody parks a run for longer than this.
        Some(asked_ms) => asked_ms.clamp(0, RETRY_AFTER_MS_MAX) + jitter / 8,
        None => jitter + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress::{Bytes, HeaderMap, StatusCode};
    use serde_json::json;

    const CLASSES: [Effect; 5] =
        [Effect::Read, Effect::Idempotent, Effect::Keyed, Effect::Reconcilable, Effect::Unsafe];

    fn action(effect: Effect) -> Action {
        serde_json::from_value(json!({
            "effect": effect, "method": "PATCH", "path": "/t", "params": {"type": "object"},
            "response": {"status": [200], "check": {"a": "{a}"}, "extract": {"a": "/a"}},
        }))
        .unwrap()
    }

    fn reply(status: u16, retry_after: Option<&str>, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        headers.insert("date", "Thu, 01 Jan 1970 00:00:10 GMT".parse().unwrap());
        if let Some(text) = retry_after {
            headers.insert("retry-after", text.parse().unwrap());
        }
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            elapsed_ms: 1,
        }
    }

    fn judged(effect: Effect, reply: &Reply) -> Attempted {
        of_reply(&action(effect), json!({"a": "x"}).as_object().unwrap(), reply)
    }

    #[test]
    fn a_write_that_may_have_happened_is_unknown_and_a_read_is_not() {
        for status in [200u16, 202, 302, 408, 500, 502, 503, 504] {
            let body = if status == 200 { "{\"a\":" } else { "" };
            for effect in CLASSES {
                let unknown = matches!(judged(effect, &reply(status, None, body)), Attempted::Unknown { .. });
                assert_eq!(unknown, effect != Effect::Read, "{status} {effect:?}");
            }
        }
    }

    #[test]
    fn what_was_turned_away_is_known_not_to_have_happened() {
        for (status, retry_after, retry) in [
            (429, Some("7"), Retry::Later(Some(7_000))),
            (429, None, Retry::Later(None)),
            (429, Some("99999999"), Retry::Later(Some(RETRY_AFTER_MS_MAX))),
            (429, Some("-5"), Retry::Later(Some(0))),
            (429, Some("9223372036854775807"), Retry::Later(None)),
            // The reply says that it is Thu, 01 Jan 1970 00:00:10.
            (429, Some("Thu, 01 Jan 1970 00:00:47 GMT"), Retry::Later(Some(37_000))),
            (429, Some("Thu, 01 Jan 1970 00:00:00 GMT"), Retry::Later(Some(0))),
            (429, Some("Fri, 31 Dec 1999 23:59:59 GMT"), Retry::Later(Some(RETRY_AFTER_MS_MAX))),
            (429, Some("Someday, 31 Dec 1999 23:59:59 GMT"), Retry::Later(None)),
            (401, None, Retry::Later(None)),
            (400, None, Retry::Never),
            (403, None, Retry::Never),
            (404, None, Retry::Never),
            (422, None, Retry::Never),
        ] {
            for effect in CLASSES {
                match judged(effect, &reply(status, retry_after, "")) {
                    Attempted::Failed { retry: found, .. } => assert_eq!(found, retry, "{status} {effect:?}"),
                    other => panic!("{status} {effect:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_dropped_field_fails_for_good() {
        let done = judged(Effect::Reconcilable, &reply(200, None, r#"{"a":"x"}"#));
        assert!(matches!(done, Attempted::Done(_)), "{done:?}");
        let dropped = judged(Effect::Reconcilable, &reply(200, None, r#"{"a":"secret-old-value"}"#));
        match dropped {
            Attempted::Failed { code: "flows.field_dropped", retry: Retry::Never, detail } => {
                assert!(!detail.contains("secret"), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_harmless_classes_repeat_an_unknown_effect() {
        let repeats: Vec<Effect> =
            CLASSES.into_iter().filter(|effect| after_unknown(*effect) == AfterUnknown::Repeat).collect();
        assert_eq!(repeats, [Effect::Read, Effect::Idempotent, Effect::Keyed]);
        assert_eq!(after_unknown(Effect::Unsafe), AfterUnknown::Park);
    }

    #[test]
    fn the_key_names_the_effect_and_nothing_else() {
        let run = Id::parse("run_a").unwrap();
        let params = |value: Value| value.as_object().unwrap().clone();
        let base = key(&run, "s", "v", &params(json!({"a": 1, "b": "x"}))).unwrap();
        assert_eq!(base, key(&run, "s", "v", &params(json!({"b": "x", "a": 1}))).unwrap());
        for other in [
            key(&Id::parse("run_b").unwrap(), "s", "v", &params(json!({"a": 1, "b": "x"}))),
            key(&run, "t", "v", &params(json!({"a": 1, "b": "x"}))),
            key(&run, "s", "w", &params(json!({"a": 1, "b": "x"}))),
            key(&run, "s", "v", &params(json!({"a": 2, "b": "x"}))),
        ] {
            assert_ne!(base, other.unwrap());
        }
        assert!(key(&run, "s", "v", &params(json!({"a": 0.5}))).is_err());
        assert_eq!(marker(&base).len(), "[ref:af-]".len() + 16);
    }

    #[test]
    fn waits_grow_are_bounded_and_obey_the_other_side() {
        for failures in 1..40 {
            for random in [0, 1, u64::MAX] {
                let wait = wait_ms(None, failures, random);
                assert!((1..=BACKOFF_MS_MAX).contains(&wait), "{failures} {random} {wait}");
                assert!(wait_ms(Some(5_000), failures, random) >= 5_000);
                let longest = wait_ms(Some(i64::MAX), failures, random);
                assert!((RETRY_AFTER_MS_MAX..=RETRY_AFTER_MS_MAX + BACKOFF_MS_MAX).contains(&longest));
                assert!(wait_ms(Some(-1), failures, random) >= 0);
            }
        }
    }
}
