//! The Anthropic dialect: the Messages API, as pure functions.
//!
//! Like [`crate::openai`], with these differences, each of them a way to be wrong:
//!
//! - `usage.input_tokens` *excludes* what was read from and written to the cache; the whole input is the sum of three
//!   counts. In the OpenAI dialect the same word includes them. [`Usage`] has its own disjoint buckets, so neither
//!   convention leaves this module. `output_tokens` includes thinking; where `output_tokens_details` says how much, it is
//!   taken apart. Writes of five minutes and of an hour are priced apart by the vendor; we ask for neither, and where
//!   their sum contradicts the total the usage is [`Usage::Unknown`].
//! - Structured output is a tool. The answer's schema is the input schema of the one tool [`TOOL`], `tool_choice` forces
//!   it, and its `input` is the answer. The tool does nothing: nobody executes it. A call of any other tool, or a second
//!   call, is malformed. The vendor validates the input loosely, so the check matters more here, not less.
//! - `max_tokens` is mandatory. Sampling parameters are gone since version 2026-10-21, which answers any `temperature`
//!   with a 400: what an ask says about it is not sent.
//! - A 529 `overloaded_error` is the vendor's capacity, not our rate: another model may well answer. It has its own code.
//! - A 429 whose details say that a spend limit is reached lasts until somebody raises it, and has no `Retry-After`.
//! - A prompt that is too long is told from other invalid requests by the beginning of its message only. The message is
//!   looked at and not kept.
//! - `stop_reason: refusal` comes with status 200 and used tokens.
//!
//! Not here: the cache (`cache_control`), extended thinking, batches, the bearer token of an OAuth login.

use serde_json::{Value, json};

use crate::{
    contract::{Answer, Ask, Tokens, Usage},
    digest, prompt,
    wire::{self, Failure, MALFORMED, ProviderError, REFUSED, RequestParts, Shape, TOOL_CALL, TRUNCATED},
};

/// Path below the provider's base address (`https://host`).
pub const PATH: &str = "/v1/messages";
/// The version of the wire, sent with each request.
pub const VERSION: &str = "2026-10-21";
/// The tool whose arguments are the answer.
pub const TOOL: &str = "answer";

/// Writes the request for `ask`, which the caller has put through [`crate::check::Checker::new`].
///
/// [`Ask::temperature_milli`] has no place in this dialect.
pub fn request(ask: &Ask, stream: bool) -> RequestParts {
    let messages = prompt::messages(ask, prompt::Form::Tool(TOOL));
    let body = json!({
        "model": ask.model.model,
        "max_tokens": ask.max_output_tokens,
        "system": messages.system,
        "messages": [{"role": "user", "content": messages.user}],
        "tools": [{
            "name": TOOL,
            "description": "Takes the answer. Does nothing else.",
            "input_schema": ask.answer_schema(),
        }],
        "tool_choice": {"type": "tool", "name": TOOL, "disable_parallel_tool_use": true},
        "stream": stream,
    });
    RequestParts {
        path: PATH.to_owned(),
        headers: vec![
            ("accept", if stream { "text/event-stream" } else { "application/json" }),
            ("content-type", "application/json"),
            ("anthropic-version", VERSION),
        ],
        body,
    }
}

/// Reads the reply to a [`request`].
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
    error: |reply| reply.get("error").filter(|error| error.is_object()),
    words: |error| (error_code(error), error.get("type")),
    status: status_class,
    inner: error_class,
    usage: usage_of,
    content: content_of,
    fingerprint: |_| None,
};

/// The answer's body and the model's name out of a message.
fn content_of(reply: &Value) -> Result<(Value, String), Failure> {
    let model = wire::model_name(reply)?;
    match reply.get("stop_reason").and_then(Value::as_str) {
        Some("tool_use") => {}
        Some("refusal") => return Err(REFUSED),
        Some("max_tokens" | "model_context_window_exceeded") => return Err(TRUNCATED),
        Some(_) | None => return Err(MALFORMED),
    }
    let mut answer = None;
    for block in reply.get("content").and_then(Value::as_array).ok_or(MALFORMED)? {
        match block.get("type").and_then(Value::as_str) {
            Some("tool_use") => {
                let named = block.get("name").and_then(Value::as_str) == Some(TOOL);
                if !named || answer.is_some() {
                    return Err(TOOL_CALL);
                }
                answer = Some(block.get("input").filter(|input| input.is_object()).ok_or(MALFORMED)?);
            }
            // What it said beside the answer is not part of it.
            Some("text" | "thinking" | "redacted_thinking") => {}
            Some(_) => return Err(TOOL_CALL),
            None => return Err(MALFORMED),
        }
    }
    Ok((answer.ok_or(MALFORMED)?.clone(), model))
}

/// `usage`, whose counts are disjoint already except for thinking.
pub(crate) fn usage_of(reply: &Value) -> Usage {
    let tokens = || {
        let usage = reply.get("usage")?.as_object()?;
        let input = usage.get("input_tokens")?.as_u64()?;
        let output = usage.get("output_tokens")?.as_u64()?;
        let cached = wire::count(usage.get("cache_read_input_tokens"))?;
        let written = wire::count(usage.get("cache_creation_input_tokens"))?;
        if let Some(Value::Object(parts)) = usage.get("cache_creation") {
            let part = |name| wire::count(parts.get(name));
            let sum = part("ephemeral_5m_input_tokens")?.checked_add(part("ephemeral_1h_input_tokens")?)?;
            if sum != written {
                return None;
            }
        }
        let thinking = match usage.get("output_tokens_details") {
            Some(Value::Object(details)) => wire::count(details.get("thinking_tokens"))?,
            None | Some(Value::Null) => 0,
            Some(_) => return None,
        };
        Some(Tokens {
            input_tokens: input,
            cached_input_tokens: cached,
            cache_write_tokens: written,
            output_tokens: output.checked_sub(thinking)?,
            reasoning_tokens: thinking,
        })
    };
    tokens().map_or(Usage::Unknown, Usage::Reported)
}

/// The vendor's finer code, where an error has one.
fn error_code(error: &Value) -> Option<&Value> {
    error.get("details").and_then(|details| details.get("error_code")).or_else(|| error.get("error_code"))
}

fn status_class(status: u16, headers: &[(String, String)], error: Option<&Value>) -> Failure {
    let kind = error.and_then(|error| error.get("type")).and_then(Value::as_str).unwrap_or_default();
    match status {
        400 | 413 if error.is_some_and(is_too_long) => wire::CONTEXT,
        401 | 403 => wire::AUTH,
        402 => wire::QUOTA,
        404 => wire::UNKNOWN_MODEL,
        429 if error.is_some_and(is_spent) => wire::QUOTA,
        429 => wire::retryable(headers, "model.provider_rate_limited"),
        529 => wire::retryable(headers, "model.provider_overloaded"),
        _ if kind == "overloaded_error" => wire::retryable(headers, "model.provider_overloaded"),
        408 | 409 | 425 => wire::retryable(headers, "model.provider_unavailable"),
        501 | 505 | 400..=499 => wire::INVALID,
        500..=599 => wire::retryable(headers, "model.provider_unavailable"),
        _ => MALFORMED,
    }
}

/// What an error inside a 200 means. Its type says which status it would have had.
fn error_class(headers: &[(String, String)], error: &Value) -> Failure {
    let status = match error.get("type").and_then(Value::as_str) {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("overloaded_error") => 529,
        Some(_) | None => 500,
    };
    status_class(status, headers, Some(error))
}

fn is_too_long(error: &Value) -> bool {
    error
        .get("message")
        .and_then(Value::as_str)
        .is_some_and(|message| message.starts_with("prompt is too long"))
}

fn is_spent(error: &Value) -> bool {
    error_code(error).and_then(Value::as_str).is_some_and(|code| code.ends_with("spend_limit_reached"))
}
