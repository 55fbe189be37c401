//! The OpenAI chat-completions dialect, as two pure functions.
//!
//! [`request`] turns an [`Ask`] into a path, headers and a body; [`reply`] turns a status, headers and bytes into an
//! [`Answer`] or a [`ProviderError`]. Neither opens a connection or sees a key: the caller adds the credential and
//! the base address and sends it through the one outbound client. Many servers speak this dialect more or less;
//! what is written here is what the vendor's reference and its own client do, and where servers differ the strict
//! reading wins.
//!
//! Things easy to get wrong, and what is done here:
//!
//! - `usage.prompt_tokens` *includes* cached tokens and `usage.completion_tokens` *includes* reasoning tokens. Priced
//!   as they stand, both are paid twice. [`Usage`] gets disjoint buckets, and counts that contradict each other
//!   (more cached than prompted, a total that is not the sum) are [`Usage::Unknown`], not a guess.
//! - A refusal, a filtered or a cut-off answer comes with status 200 and has used tokens. The error carries them.
//! - A 429 is not always a reason to come back: `insufficient_quota` lasts until somebody pays. Neither is it when
//!   the reply says `x-should-retry: false`.
//! - Error messages repeat keys ("Incorrect API key provided: sk-…") and prompts. No message is kept; the codes are.
//! - `tool_calls` in a step that offered no tools is a malformed answer, not a request to be served.
//!
//! Not here: streaming (the answer is needed whole, and checked whole), Azure paths, the Responses API.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    contract::{Answer, Ask, MODEL_NAME_BYTES_MAX, Tokens, Usage},
    digest, prompt, strict_json,
};

/// Largest reply that is read, in bytes. The outbound client is given the same bound.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait that is reported, in milliseconds: a day. A caller with less patience gives up earlier.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Path below the provider's base address (`https://host/v1`).
pub const PATH: &str = "/chat/completions";

/// A request without its destination and credential.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestParts {
    /// Path below the base address.
    pub path: &'static str,
    /// Header names in lower case, and values. No secret among them.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The JSON body.
    pub body: Value,
}

/// What the caller should make of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "class", rename_all = "snake_case")]
pub enum Class {
    /// The same request may succeed later.
    Retryable {
        /// How long the provider asks to wait, in milliseconds, at most [`RETRY_AFTER_MS_MAX`]. `None` if it does
        /// not say, or says it as a date.
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
    /// The provider's `error.code`, if it is a plain word or an HTTP status. Never its message.
    pub provider_code: Option<String>,
    /// The provider's `error.type`, under the same condition.
    pub provider_type: Option<String>,
    /// What the failed call used.
    pub usage: Usage,
    /// SHA-256 of the reply's bytes as received.
    pub raw_digest: String,
}

/// Writes the request for `ask`, which the caller has put through [`crate::check::Checker::new`].
///
/// A temperature of 1000 thousandths is the provider's default and is not sent: reasoning models refuse the
/// parameter.
pub fn request(ask: &Ask) -> RequestParts {
    let messages = prompt::messages(ask);
    let mut body = json!({
        "model": ask.model.model,
        "messages": [
            {"role": "system", "content": messages.system},
            {"role": "user", "content": messages.user},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": true, "schema": ask.answer_schema()},
        },
        "max_completion_tokens": ask.max_output_tokens,
        "stream": false,
        // New accounts keep chat completions unless told not to.
        "store": false,
    });
    if ask.temperature_milli != 1_000 {
        body["temperature"] = match ask.temperature_milli {
            whole if whole % 1_000 == 0 => Value::from(whole / 1_000),
            milli => Value::from(f64::from(milli) / 1_000.0),
        };
    }
    RequestParts {
        path: PATH,
        headers: vec![("accept", "application/json"), ("content-type", "application/json")],
        body,
    }
}

/// Reads the reply to a [`request`]. Header names are compared without regard to case; of repeated headers the
/// first counts.
#[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
pub fn reply(status: u16, headers: &[(String, String)], body: &[u8]) -> Result<Answer, ProviderError> {
    let raw_digest = digest::hex(body);
    let fail = |class, code, usage, error: Option<&Value>| {
        let word = |field| error.and_then(|error| error.get(field)).and_then(provider_word);
        let (provider_code, provider_type) = (word("code"), word("type"));
        Err(ProviderError {
            class,
            code,
            status,
            provider_code,
            provider_type,
            usage,
            raw_digest: raw_digest.clone(),
        })
    };
    let parsed = if body.len() > REPLY_BYTES_MAX {
        None
    } else {
        strict_json::parse(body).ok().filter(Value::is_object)
    };
    if status != 200 {
        let error = parsed.as_ref().map(|parsed| error_of(parsed).unwrap_or(&Value::Null));
        let (class, code) = status_class(status, headers, error);
        return fail(class, code, usage_of_refusal(status), error);
    }
    if body.len() > REPLY_BYTES_MAX {
        return fail(Class::Malformed, "model.provider_oversized", Usage::Unknown, None);
    }
    let Some(parsed) = parsed else {
        return fail(Class::Malformed, "model.provider_malformed", Usage::Unknown, None);
    };
    if let Some(error) = error_of(&parsed) {
        // Some gateways report a failure inside a 200. Their code, if it is a status, says which.
        let inner = match error.get("code") {
            Some(Value::Number(code)) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
            Some(Value::String(code)) => code.parse().ok(),
            _ => None,
        };
        let (class, code) =
            status_class(inner.filter(|inner| *inner >= 400).unwrap_or(500), headers, Some(error));
        return fail(class, code, usage_of(&parsed), Some(error));
    }
    let usage = usage_of(&parsed);
    match content_of(&parsed) {
        Ok((body, model)) => Ok(Answer {
            body,
            model,
            fingerprint: parsed
                .get("system_fingerprint")
                .and_then(Value::as_str)
                .filter(|text| {
                    text.len() <= MODEL_NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
                })
                .map(str::to_owned),
            usage,
            raw_digest,
        }),
        Err((class, code)) => fail(class, code, usage, None),
    }
}

const MALFORMED: (Class, &str) = (Class::Malformed, "model.provider_malformed");
const REFUSED: (Class, &str) = (Class::Refused, "model.provider_refused");

/// The answer's body and the model's name out of a completion.
fn content_of(reply: &Value) -> Result<(Value, String), (Class, &'static str)> {
    let model = reply
        .get("model")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX)
        .ok_or(MALFORMED)?;
    // One answer was asked for; two cannot be told apart.
    let Some([choice]) = reply.get("choices").and_then(Value::as_array).map(Vec::as_slice) else {
        return Err(MALFORMED);
    };
    let message = choice.get("message").and_then(Value::as_object).ok_or(MALFORMED)?;
    if message.get("refusal").is_some_and(|refusal| !refusal.is_null()) {
        return Err(REFUSED);
    }
    let calls = |field| match message.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(calls)) => !calls.is_empty(),
        Some(_) => true,
    };
    match choice.get("finish_reason").and_then(Value::as_str) {
        _ if calls("tool_calls") || calls("function_call") => {
            return Err((Class::Malformed, "model.provider_tool_call"));
        }
        Some("stop") => {}
        Some("length") => return Err((Class::Malformed, "model.provider_truncated")),
        Some("content_filter") => return Err((Class::Refused, "model.provider_content_filtered")),
        Some(_) | None => return Err(MALFORMED),
    }
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts_join(parts)?,
        Some(_) | None => return Err(MALFORMED),
    };
    let body = strict_json::parse(text.as_bytes()).map_err(|_| MALFORMED)?;
    if body.is_object() { Ok((body, model.to_owned())) } else { Err(MALFORMED) }
}

/// Content given as parts: text parts in order, nothing else.
fn parts_join(parts: &[Value]) -> Result<String, (Class, &'static str)> {
    let mut out = String::new();
    for part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text") => out.push_str(part.get("text").and_then(Value::as_str).ok_or(MALFORMED)?),
            Some("refusal") => return Err(REFUSED),
            Some(_) | None => return Err(MALFORMED),
        }
    }
    Ok(out)
}

/// `usage` with its overlaps taken apart. Missing details mean that the provider prices no such tokens apart;
/// missing or contradicting totals mean that nothing is known.
fn usage_of(reply: &Value) -> Usage {
    let Some(usage) = reply.get("usage").and_then(Value::as_object) else { return Usage::Unknown };
    let tokens = || {
        let prompt = usage.get("prompt_tokens")?.as_u64()?;
        let completion = usage.get("completion_tokens")?.as_u64()?;
        let total = usage.get("total_tokens").filter(|total| !total.is_null());
        let sum = prompt.checked_add(completion)?;
        if total.is_some_and(|total| total.as_u64() != Some(sum)) {
            return None;
        }
        let cached = detail(usage, "prompt_tokens_details", "cached_tokens")?;
        let written = detail(usage, "prompt_tokens_details", "cache_write_tokens")?;
        let reasoning = detail(usage, "completion_tokens_details", "reasoning_tokens")?;
        Some(Tokens {
            input_tokens: prompt.checked_sub(cached)?.checked_sub(written)?,
            cached_input_tokens: cached,
            cache_write_tokens: written,
            output_tokens: completion.checked_sub(reasoning)?,
            reasoning_tokens: reasoning,
        })
    };
    tokens().map_or(Usage::Unknown, Usage::Reported)
}

/// A detail count: 0 if it or its group is absent or null, nothing if it is there and not a count.
fn detail(usage: &Map<String, Value>, group: &str, field: &str) -> Option<u64> {
    match usage.get(group) {
        None | Some(Value::Null) => Some(0),
        Some(Value::Object(group)) => match group.get(field) {
            None | Some(Value::Null) => Some(0),
            Some(count) => count.as_u64(),
        },
        Some(_) => None,
    }
}

/// What a reply other than 200 has used: nothing where the request was turned away, unknown where the provider
/// may have broken down while working.
fn usage_of_refusal(status: u16) -> Usage {
    match status {
        408 => Usage::Unknown,
        400..=499 => Usage::Unmetered,
        _ => Usage::Unknown,
    }
}

/// A truthy `error`, which is what the vendor's own client takes for one.
fn error_of(reply: &Value) -> Option<&Value> {
    reply.get("error").filter(|error| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Array(_) => true,
    })
}

fn status_class(status: u16, headers: &[(String, String)], error: Option<&Value>) -> (Class, &'static str) {
    let names = |word: &str| {
        ["code", "type"]
            .iter()
            .any(|field| error.and_then(|error| error.get(field)) == Some(&Value::from(word)))
    };
    let header = |name: &str| {
        headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let retryable = |code| {
        if header("x-should-retry") == Some("false") {
            (Class::Misconfigured, code)
        } else {
            (
                Class::Retryable {
                    retry_after_ms: retry_after_ms(header("retry-after-ms"), header("retry-after")),
                },
                code,
            )
        }
    };
    if names("content_filter") || names("content_policy_violation") {
        return (Class::Refused, "model.provider_content_filtered");
    }
    match status {
        401 | 403 => (Class::Auth, "model.provider_auth"),
        402 => (Class::Misconfigured, "model.provider_quota"),
        404 => (Class::Misconfigured, "model.provider_model_unknown"),
        429 if names("insufficient_quota") || names("billing_hard_limit_reached") => {
            (Class::Misconfigured, "model.provider_quota")
        }
        429 => retryable("model.provider_rate_limited"),
        408 | 409 | 425 => retryable("model.provider_unavailable"),
        400..=499 => (Class::Misconfigured, "model.provider_request_invalid"),
        501 | 505 => (Class::Misconfigured, "model.provider_request_invalid"),
        500..=599 => retryable("model.provider_unavailable"),
        // 1xx, other 2xx, redirects (the outbound client follows none for a POST) and what is no HTTP status.
        _ => (Class::Malformed, "model.provider_malformed"),
    }
}

/// `retry-after-ms` before `retry-after`, as the vendor's client has it; both may have a fraction. A date needs a
/// clock and is left to the caller's own back-off.
fn retry_after_ms(milliseconds: Option<&str>, seconds: Option<&str>) -> Option<u64> {
    let number =
        |text: Option<&str>| text?.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let wait = number(milliseconds).or_else(|| number(seconds).map(|seconds| seconds * 1_000.0))?;
    // A float that is too large saturates when it is cast.
    Some((wait.ceil() as u64).min(RETRY_AFTER_MS_MAX))
}

/// A provider's code as it may be kept: letters and underscores, or three digits. A key or a sentence is neither.
fn provider_word(value: &Value) -> Option<String> {
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
