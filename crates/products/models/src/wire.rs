//! What every hosted dialect shares: the parts of a request, the classes of failure, and how little is kept of a
//! provider's words.
//!
//! A dialect is two pure functions, `request` and `reply`, and where the provider streams a third thing, an
//! [`crate::stream::Assembly`]. They differ in names and shapes. They do not differ in what follows from a failure:
//! a caller that waits, gives up or asks another model decides by [`Class`], whoever answered. Nor do they differ in the
//! order in which a reply is doubted: too large, not JSON, an error inside a 200, and only then an answer. That order
//! stands in one place, [`reply_of`]; a dialect says where its things stand ([`Shape`]).
//!
//! Rules for those who add a dialect: a provider's message is never kept, because messages repeat keys ("Incorrect API
//! key provided: sk-…") and prompts; its codes are, if they are plain words ([`provider_word`]). A reply that used
//! tokens and failed carries its [`Usage`]. What is not understood is malformed, not guessed.

use serde::Serialize;
use serde_json::Value;

use crate::contract::{Answer, MODEL_NAME_BYTES_MAX, Usage};
use crate::strict_json;

/// Largest whole reply that is read, in bytes. The outbound client is given the same bound.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait that is reported, in milliseconds: a day. A caller with less patience gives up earlier.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A request without its destination and credential.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestParts {
    /// Path and query below the base address.
    pub path: String,
    /// Header names in lower case, and values. No secret among them.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The JSON body.
    pub body: Value,
}

impl RequestParts {
    /// Size of the body as it is sent.
    pub fn bytes(&self) -> usize {
        // A JSON value always serialises.
        serde_json::to_vec(&self.body).map_or(usize::MAX, |body| body.len())
    }
}

/// What the caller should make of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "class", rename_all = "snake_case")]
pub enum Class {
    /// The same request may succeed later.
    Retryable {
        /// How long the provider asks to wait, in milliseconds, at most [`RETRY_AFTER_MS_MAX`]. `None` if it does
        /// not say.
        retry_after_ms: Option<u64>,
    },
    /// The model or the provider's filter declined this text. Asking again changes nothing.
    Refused,
    /// The reply cannot be understood, or is not a whole answer.
    Malformed,
    /// The credential was not accepted, or may not do this.
    Auth,
    /// The request, the model's name or the account has to be changed by a person first.
    Misconfigured,
}

/// A class with our stable code.
pub(crate) type Failure = (Class, &'static str);

pub(crate) const MALFORMED: Failure = (Class::Malformed, "model.provider_malformed");
pub(crate) const OVERSIZED: Failure = (Class::Malformed, "model.provider_oversized");
pub(crate) const REFUSED: Failure = (Class::Refused, "model.provider_refused");
pub(crate) const FILTERED: Failure = (Class::Refused, "model.provider_content_filtered");
pub(crate) const TRUNCATED: Failure = (Class::Malformed, "model.provider_truncated");
pub(crate) const TOOL_CALL: Failure = (Class::Malformed, "model.provider_tool_call");
pub(crate) const CONTEXT: Failure = (Class::Misconfigured, "model.provider_context_exceeded");
pub(crate) const AUTH: Failure = (Class::Auth, "model.provider_auth");
pub(crate) const QUOTA: Failure = (Class::Misconfigured, "model.provider_quota");
pub(crate) const UNKNOWN_MODEL: Failure = (Class::Misconfigured, "model.provider_model_unknown");
pub(crate) const INVALID: Failure = (Class::Misconfigured, "model.provider_request_invalid");

/// A call that brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the model provider answered {status}: {code}")]
pub struct ProviderError {
    /// What to do about it.
    #[serde(flatten)]
    pub class: Class,
    /// Our stable code.
    pub code: &'static str,
    /// HTTP status of the reply.
    pub status: u16,
    /// The provider's code, if it is a plain word or an HTTP status. Never its message.
    pub provider_code: Option<String>,
    /// The provider's type of the error, under the same condition.
    pub provider_type: Option<String>,
    /// What the failed call used.
    pub usage: Usage,
    /// SHA-256 of the reply's bytes as received.
    pub raw_digest: String,
}

/// The headers of a reply, by name without regard to case; of repeated headers the first counts.
pub(crate) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Whether the same request may succeed later, and when. `x-should-retry: false` is the provider saying no.
pub(crate) fn retryable(headers: &[(String, String)], code: &'static str) -> Failure {
    if header(headers, "x-should-retry") == Some("false") {
        return (Class::Misconfigured, code);
    }
    let retry_after_ms = retry_after_ms(headers);
    (Class::Retryable { retry_after_ms }, code)
}

/// `retry-after-ms` before `retry-after`, as the vendors' clients have it; both may have a fraction. A date
/// (RFC 9110 §10.2.3) is taken against the reply's own.
fn retry_after_ms(headers: &[(String, String)]) -> Option<u64> {
    let number =
        |text: Option<&str>| text?.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let (milliseconds, seconds) = (header(headers, "retry-after-ms"), header(headers, "retry-after"));
    if let Some(wait) = number(milliseconds).or_else(|| number(seconds).map(|seconds| seconds * 1_000.0)) {
        // A float that is too large saturates when it is cast.
        return Some((wait.ceil() as u64).min(RETRY_AFTER_MS_MAX));
    }
    let wait_ms = egress::date::until_ms(seconds?, header(headers, "date")?)?;
    Some(u64::try_from(wait_ms).unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

/// Where a dialect's replies have their things.
pub(crate) struct Shape {
    /// What a reply says went wrong, if anything.
    pub error: fn(&Value) -> Option<&Value>,
    /// An error's code and type.
    pub words: fn(&Value) -> (Option<&Value>, Option<&Value>),
    /// What a status other than 200 means.
    pub status: fn(u16, &[(String, String)], Option<&Value>) -> Failure,
    /// What an error inside a 200 means.
    pub inner: fn(&[(String, String)], &Value) -> Failure,
    /// What a reply says it used.
    pub usage: fn(&Value) -> Usage,
    /// The answer's body and the model's name.
    pub content: fn(&Value) -> Result<(Value, String), Failure>,
    /// The fingerprint of what served it.
    pub fingerprint: fn(&Value) -> Option<String>,
}

/// Reads a whole reply, or what a stream was put together to; `raw_digest` is of the bytes that were received. Whatever is
/// not understood is a failure, and a failure carries what is known to have been used.
#[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
pub(crate) fn reply_of(
    shape: &Shape,
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    raw_digest: String,
) -> Result<Answer, ProviderError> {
    let fail = |(class, code): Failure, usage, error: Option<&Value>| {
        let (provider_code, provider_type) = error.map_or((None, None), shape.words);
        Err(ProviderError {
            class,
            code,
            status,
            provider_code: provider_code.and_then(provider_word),
            provider_type: provider_type.and_then(provider_word),
            usage,
            raw_digest: raw_digest.clone(),
        })
    };
    let oversized = body.len() > REPLY_BYTES_MAX;
    let parsed = if oversized { None } else { strict_json::parse(body).ok().filter(Value::is_object) };
    if status != 200 {
        let error = parsed.as_ref().and_then(shape.error);
        return fail((shape.status)(status, headers, error), usage_of_refusal(status), error);
    }
    if oversized {
        return fail(OVERSIZED, Usage::Unknown, None);
    }
    let Some(parsed) = parsed else { return fail(MALFORMED, Usage::Unknown, None) };
    let usage = (shape.usage)(&parsed);
    if let Some(error) = (shape.error)(&parsed) {
        // A gateway's, or the error of a stream that had begun.
        return fail((shape.inner)(headers, error), usage, Some(error));
    }
    match (shape.content)(&parsed) {
        Ok((body, model)) => {
            Ok(Answer { body, model, fingerprint: (shape.fingerprint)(&parsed), usage, raw_digest })
        }
        Err(failure) => fail(failure, usage, None),
    }
}

/// What a reply other than 200 has used: nothing where the request was turned away, unknown where the provider
/// may have broken down while working.
pub(crate) fn usage_of_refusal(status: u16) -> Usage {
    match status {
        408 => Usage::Unknown,
        // 529 says that there was no room for the request.
        400..=499 | 529 => Usage::Unmetered,
        _ => Usage::Unknown,
    }
}

/// A provider's code as it may be kept: letters and underscores, or three digits. A key or a sentence is neither.
pub(crate) fn provider_word(value: &Value) -> Option<String> {
    match value {
        Value::String(word) => {
            let plain = !word.is_empty()
                && word.len() <= 48
                && word.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
            let status = word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit());
            (plain || status).then(|| word.clone())
        }
        Value::Number(code) => {
            code.as_u64().filter(|code| (100..=999).contains(code)).map(|code| code.to_string())
        }
        _ => None,
    }
}

/// The model's name as a reply may carry it.
pub(crate) fn model_name(reply: &Value) -> Result<String, Failure> {
    let name = reply.get("model").and_then(Value::as_str);
    name.filter(|name| !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX)
        .map(str::to_owned)
        .ok_or(MALFORMED)
}

/// A count that may be absent: 0 if it is missing or null, nothing if it is there and not a count.
pub(crate) fn count(value: Option<&Value>) -> Option<u64> {
    match value {
        None | Some(Value::Null) => Some(0),
        Some(count) => count.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_every_form_and_has_a_bound() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (headers, expected) in [
            (vec![("retry-after", "7")], Some(7_000)),
            (vec![("retry-after", "0.5")], Some(500)),
            (vec![("retry-after-ms", "250"), ("retry-after", "7")], Some(250)),
            (vec![("Retry-After", "Sun, 06 Nov 1994 08:50:07 GMT"), ("Date", date)], Some(30_000)),
            (vec![("retry-after", "Sunday, 06-Nov-94 08:50:07 GMT"), ("date", date)], Some(30_000)),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT"), ("date", date)], Some(0)),
            (
                vec![("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"), ("date", date)],
                Some(RETRY_AFTER_MS_MAX),
            ),
            (vec![("retry-after", "1e300")], Some(RETRY_AFTER_MS_MAX)),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None),
            (vec![("retry-after", "soon"), ("date", date)], None),
            (vec![("retry-after", "-7")], None),
            (vec![], None),
        ] {
            let headers: Vec<(String, String)> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let expected = (Class::Retryable { retry_after_ms: expected }, "c");
            assert_eq!(retryable(&headers, "c"), expected, "{headers:?}");
        }
    }
}
