//! Slack's Web API: one POST with JSON, and what its answer means.
//!
//! Slack answers 200 with `"ok": false` and a word for most failures, 429 with `Retry-After` when it is asked too often,
//! and what any gateway answers in between. Two things follow from an answer: whether it is done, and whether the same
//! call may succeed later. What is not known to be passing is taken as final, so that a mistake of ours ends in a dead
//! letter that somebody reads and not in a call every minute for a week.

use super::Deps;
use super::connection::Connection;
use act::Fault;
use bytes::Bytes;
use egress::{Allowlist, Method, Reply, Request, Rule, SecretHeader, Target};
use kernel::TenantId;
use serde_json::Value;

/// Longest duration of a call, milliseconds.
const CALL_MS_MAX: u64 = 10_000;
/// Largest answer, bytes.
const REPLY_BYTES_MAX: usize = 256 * 1024;
/// Longest wait that is taken from `Retry-After`, milliseconds.
const RETRY_AFTER_MS_MAX: i64 = 60 * 60 * 1000;
/// Words for failures that pass.
const PASSING: &[&str] = &[
    "fatal_error",
    "internal_error",
    "ratelimited",
    "rate_limited",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
];

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// It is done; the answer.
    Done(Value),
    /// It may succeed later, not before so many milliseconds if Slack said so.
    Later {
        /// Stable code.
        code: &'static str,
        /// What Slack asked for.
        after_ms: Option<i64>,
    },
    /// It will not succeed.
    Never {
        /// Stable code.
        code: String,
        /// Slack's word for it, or ours.
        word: String,
    },
}

/// Slack's word for a failure, if it is one.
fn word(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if plain && text.len() <= 60 { text.to_owned() } else { "unreadable".to_owned() }
}

/// Judges an answer.
pub fn judged(status: u16, retry_after: Option<&str>, body: &[u8]) -> Said {
    let after_ms = retry_after
        .and_then(|text| text.trim().parse::<i64>().ok())
        .and_then(|seconds| seconds.checked_mul(1000))
        .map(|ms| ms.clamp(0, RETRY_AFTER_MS_MAX));
    let never = |word: String| Said::Never { code: "slack.refused".into(), word };
    match status {
        429 => Said::Later { code: "slack.rate_limited", after_ms },
        408 | 500..=599 => Said::Later { code: "slack.unavailable", after_ms },
        200 => match serde_json::from_slice::<Value>(body) {
            Ok(answer) if answer["ok"] == true => Said::Done(answer),
            Ok(answer) => match answer["error"].as_str() {
                Some("ratelimited" | "rate_limited") => Said::Later { code: "slack.rate_limited", after_ms },
                Some(error) if PASSING.contains(&error) => {
                    Said::Later { code: "slack.unavailable", after_ms }
                }
                error => never(word(error.unwrap_or("unreadable"))),
            },
            // A page of somebody in between; the call may have been made.
            Err(_) => Said::Later { code: "slack.unavailable", after_ms },
        },
        other => never(format!("status_{other}")),
    }
}

fn of_reply(reply: &Reply) -> Said {
    let after = reply.headers.get("retry-after").and_then(|value| value.to_str().ok());
    judged(reply.status.as_u16(), after, &reply.body)
}

/// Where calls of this connection may go: its own origin, private only where the operator says so.
fn allowlist(deps: &Deps, connection: &Connection) -> Option<Allowlist> {
    let target = Target::parse(&format!("{}/", connection.base_url)).ok()?;
    let mut rule = Rule::parse(&target.origin()).ok()?;
    if deps.private(&target.host().to_string(), target.port()) {
        rule = rule.allow_private().ok()?;
    }
    Allowlist::new(vec![rule]).ok()
}

/// Calls a method, such as `chat.postMessage`. The token is opened for this one request.
pub async fn call(
    deps: &Deps,
    tenant: &TenantId,
    connection: &Connection,
    method: &str,
    body: &Value,
) -> Said {
    let never = |code: &str, word: &str| Said::Never { code: code.to_owned(), word: word.to_owned() };
    let Some(allow) = allowlist(deps, connection) else { return never("slack.refused", "base_url") };
    let token = match deps.custody.open(deps.harness.store(), tenant, &connection.bot_token).await {
        Ok(token) => token,
        Err(error) => {
            let fault: Fault = super::custody_fault(error);
            return if fault.class.retryable() {
                Said::Later { code: "slack.unavailable", after_ms: None }
            } else {
                Said::Never { code: fault.code, word: "token".to_owned() }
            };
        }
    };
    let Some(header) = token.expose_text().and_then(|text| SecretHeader::bearer(text).ok()) else {
        return never("slack.refused", "token");
    };
    let mut request = Request::new(Method::POST, format!("{}/{method}", connection.base_url), allow);
    request.headers = vec![("content-type".into(), "application/json; charset=utf-8".into())];
    request.secrets.push(header);
    request.body = Bytes::from(body.to_string());
    request.limits.deadline_ms = CALL_MS_MAX;
    request.limits.first_byte_ms = CALL_MS_MAX;
    request.limits.response_bytes = REPLY_BYTES_MAX;
    match deps.egress.send(request).await {
        Ok(reply) => of_reply(&reply),
        Err(error) if error.is_refusal() => {
            Said::Never { code: error.code().to_owned(), word: "egress".to_owned() }
        }
        Err(_) => Said::Later { code: "slack.unavailable", after_ms: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        let later = |code, after_ms| Said::Later { code, after_ms };
        let never = |word: &str| Said::Never { code: "slack.refused".into(), word: word.into() };
        let limited = "slack.rate_limited";
        let away = "slack.unavailable";
        for (status, after, body, expected) in [
            (
                200,
                None,
                r#"{"ok":true,"ts":"1.2"}"#,
                Said::Done(serde_json::json!({"ok": true, "ts": "1.2"})),
            ),
            (429, Some("30"), "", later(limited, Some(30_000))),
            (429, Some("soon"), "", later(limited, None)),
            (429, Some("99999999999"), "", later(limited, Some(RETRY_AFTER_MS_MAX))),
            (429, Some("-5"), "", later(limited, Some(0))),
            (200, Some("7"), r#"{"ok":false,"error":"ratelimited"}"#, later(limited, Some(7_000))),
            (503, None, "<html>", later(away, None)),
            (200, None, "<html>", later(away, None)),
            (200, None, r#"{"ok":false,"error":"internal_error"}"#, later(away, None)),
            (200, None, r#"{"ok":false,"error":"invalid_auth"}"#, never("invalid_auth")),
            (200, None, r#"{"ok":false,"error":"channel_not_found"}"#, never("channel_not_found")),
            (200, None, r#"{"ok":false,"error":"Bad <b> word"}"#, never("unreadable")),
            (200, None, r#"{"ok":"true"}"#, never("unreadable")),
            (200, None, "[]", never("unreadable")),
            (302, None, "", never("status_302")),
            (404, None, "", never("status_404")),
        ] {
            assert_eq!(judged(status, after, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
