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
//! - A stream ends with `data: [DONE]`. One that merely ends was cut, and what arrived is no answer
//!   ([`crate::stream`]). Usage comes in a chunk of its own and only if it is asked for.
//!
//! Not here: the paths and the filter of Azure ([`crate::azure`]), the Responses API.

use serde_json::{Map, Value, json};

pub use crate::wire::{Class, ProviderError, REPLY_BYTES_MAX, RETRY_AFTER_MS_MAX, RequestParts};
use crate::{
    contract::{Answer, Ask, MODEL_NAME_BYTES_MAX, Tokens, Usage},
    digest, prompt, strict_json,
    wire::{self, FILTERED, Failure, MALFORMED, REFUSED, Shape, TOOL_CALL, TRUNCATED},
};

/// Path below the provider's base address (`https://host/v1`).
pub const PATH: &str = "/chat/completions";

/// Writes the request for `ask`, which the caller has put through [`crate::check::Checker::new`].
///
/// A temperature of 1000 thousandths is the provider's default and is not sent: reasoning models refuse the
/// parameter.
pub fn request(ask: &Ask, stream: bool) -> RequestParts {
    let messages = prompt::messages(ask, prompt::Form::Json);
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
        "stream": stream,
        // New accounts keep chat completions unless told not to.
        "store": false,
    });
    if ask.temperature_milli != 1_000 {
        body["temperature"] = match ask.temperature_milli {
            whole if whole % 1_000 == 0 => Value::from(whole / 1_000),
            milli => Value::from(f64::from(milli) / 1_000.0),
        };
    }
    if stream {
        // Without this a stream says nothing of what it used.
        body["stream_options"] = json!({"include_usage": true});
    }
    RequestParts {
        path: PATH.to_owned(),
        headers: vec![
            ("accept", if stream { "text/event-stream" } else { "application/json" }),
            ("content-type", "application/json"),
        ],
        body,
    }
}

/// Reads the reply to a [`request`]. Header names are compared without regard to case; of repeated headers the
/// first counts.
#[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
pub fn reply(status: u16, headers: &[(String, String)], body: &[u8]) -> Result<Answer, ProviderError> {
    reply_of(status, headers, body, digest::hex(body))
}

/// [`reply`], where what was received is not `body` itself but what a stream of that digest was put together to.
#[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
pub(crate) fn reply_of(
    status: u16,
    headers: &[(String, String)],
    body: &[u8],
    raw_digest: String,
) -> Result<Answer, ProviderError> {
    wire::reply_of(&SHAPE, status, headers, body, raw_digest)
}

const SHAPE: Shape = Shape {
    error: error_of,
    words: |error| (error.get("code"), error.get("type")),
    status: status_class,
    inner: inner_class,
    usage: usage_of,
    content: content_of,
    fingerprint: fingerprint_of,
};

/// Some gateways report a failure inside a 200. Their code, if it is a status, says which.
fn inner_class(headers: &[(String, String)], error: &Value) -> Failure {
    let inner = match error.get("code") {
        Some(Value::Number(code)) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
        Some(Value::String(code)) if code == "rate_limit_exceeded" => Some(429),
        Some(Value::String(code)) => code.parse().ok(),
        _ => None,
    };
    status_class(inner.filter(|inner| *inner >= 400).unwrap_or(500), headers, Some(error))
}

fn fingerprint_of(reply: &Value) -> Option<String> {
    let text = reply.get("system_fingerprint")?.as_str()?;
    let plain = text.len() <= MODEL_NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| text.to_owned())
}

/// The answer's body and the model's name out of a completion.
fn content_of(reply: &Value) -> Result<(Value, String), Failure> {
    let model = wire::model_name(reply)?;
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
            return Err(TOOL_CALL);
        }
        Some("stop") => {}
        Some("length") => return Err(TRUNCATED),
        Some("content_filter") => return Err(FILTERED),
        Some(_) | None => return Err(MALFORMED),
    }
    let text = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts_join(parts)?,
        Some(_) | None => return Err(MALFORMED),
    };
    let body = strict_json::parse(text.as_bytes()).map_err(|_| MALFORMED)?;
    if body.is_object() { Ok((body, model)) } else { Err(MALFORMED) }
}

/// Content given as parts: text parts in order, nothing else.
fn parts_join(parts: &[Value]) -> Result<String, Failure> {
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
pub(crate) fn usage_of(reply: &Value) -> Usage {
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
        Some(Value::Object(group)) => wire::count(group.get(field)),
        Some(_) => None,
    }
}

/// A truthy `error`, which is what the vendor's own client takes for one.
pub(crate) fn error_of(reply: &Value) -> Option<&Value> {
    reply.get("error").filter(|error| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Array(_) => true,
    })
}

fn status_class(status: u16, headers: &[(String, String)], error: Option<&Value>) -> Failure {
    let names = |word: &str| {
        ["code", "type"]
            .iter()
            .any(|field| error.and_then(|error| error.get(field)) == Some(&Value::from(word)))
    };
    if names("content_filter") || names("content_policy_violation") {
        return FILTERED;
    }
    if names("context_length_exceeded") || names("string_above_max_length") {
        return wire::CONTEXT;
    }
    match status {
        401 | 403 => wire::AUTH,
        402 => wire::QUOTA,
        404 => wire::UNKNOWN_MODEL,
        429 if names("insufficient_quota") || names("billing_hard_limit_reached") => wire::QUOTA,
        429 => wire::retryable(headers, "model.provider_rate_limited"),
        408 | 409 | 425 => wire::retryable(headers, "model.provider_unavailable"),
        501 | 505 | 400..=499 => wire::INVALID,
        529 => wire::retryable(headers, "model.provider_overloaded"),
        500..=599 => wire::retryable(headers, "model.provider_unavailable"),
        // 1xx, other 2xx, redirects (the outbound client follows none for a POST) and what is no HTTP status.
        _ => MALFORMED,
    }
}
