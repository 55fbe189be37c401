//! A streamed reply, put together to what the same reply would have been whole.
//!
//! Nothing is done with half an answer here: it is checked whole or not at all. Streaming helps for another reason. A
//! whole reply is silent until it is finished, so a provider that died looks for a minute like one that thinks; a
//! stream that stops is noticed within the idle limit, and what the provider had counted until then is known.
//!
//! [`Assembly::push`] takes events in order; [`Assembly::finish`] writes them as one reply and gives that to the
//! dialect's own `reply`, so that a stream passes exactly the gates of a whole reply and there is no second reading of
//! content, refusals and usage. Pure: bytes come from the outbound client, which bounds their number and their pauses.
//!
//! - A stream that did not say that it is over was **cut**, however well its text parses: `[DONE]` here,
//!   `message_stop` there. That is a failure which may be tried again, and its usage is what the provider reported as
//!   final before the cut, else unknown. Counts at the beginning of a stream are not its bill.
//! - Names of the model must agree from chunk to chunk. A provider that changes models in the middle answers twice.
//! - Unknown events are skipped, as both vendors ask; events out of order are malformed.

use egress::sse::Event;
use serde_json::{Map, Value, json};

use crate::{
    anthropic,
    contract::{Answer, Usage},
    openai, strict_json,
    wire::{Class, Failure, MALFORMED, OVERSIZED, ProviderError, REPLY_BYTES_MAX},
};

/// Most bytes of one streamed reply. Each token comes in an envelope of some hundred bytes.
pub const STREAM_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most content blocks of one message.
const BLOCKS_MAX: usize = 64;

/// The stream ended before it said so.
const CUT: Failure = (Class::Retryable { retry_after_ms: None }, "model.provider_stream_cut");

/// A reply that is still arriving.
pub struct Assembly {
    parts: Parts,
    failure: Option<Failure>,
    /// Bytes of text kept so far.
    size: usize,
    over: bool,
}

enum Parts {
    OpenAi(Completion),
    Anthropic(Message),
}

/// Chunks of a chat completion.
#[derive(Default)]
struct Completion {
    model: String,
    fingerprint: Option<Value>,
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: bool,
    finish: Option<Value>,
    usage: Option<Value>,
    error: Option<Value>,
}

/// Events of a message.
#[derive(Default)]
struct Message {
    started: bool,
    model: Value,
    blocks: Vec<Value>,
    /// The text of the block that is open, and whether one is.
    open: Option<String>,
    stop: Value,
    usage: Map<String, Value>,
    /// The counts are the final ones.
    counted: bool,
    error: Option<Value>,
}

impl Assembly {
    /// For the OpenAI dialect, on Azure or not.
    pub fn openai() -> Assembly {
        Assembly::of(Parts::OpenAi(Completion::default()))
    }

    /// For the Anthropic dialect.
    pub fn anthropic() -> Assembly {
        Assembly::of(Parts::Anthropic(Message::default()))
    }

    fn of(parts: Parts) -> Assembly {
        Assembly { parts, failure: None, size: 0, over: false }
    }

    /// Takes the next event. What comes after the end, or after a failure, is not looked at.
    pub fn push(&mut self, event: &Event) {
        if self.is_over() {
            return;
        }
        self.size = self.size.saturating_add(event.data.len());
        if self.size > STREAM_BYTES_MAX {
            self.failure = Some(OVERSIZED);
            return;
        }
        let taken = match &mut self.parts {
            Parts::OpenAi(completion) => completion.push(event),
            Parts::Anthropic(message) => message.push(event),
        };
        match taken {
            Ok(over) => self.over = over,
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Whether nothing more is waited for.
    pub fn is_over(&self) -> bool {
        self.over || self.failure.is_some()
    }

    /// What the provider has reported as final so far.
    pub fn usage(&self) -> Usage {
        match &self.parts {
            Parts::OpenAi(completion) => openai::usage_of(&json!({"usage": completion.usage})),
            Parts::Anthropic(message) if message.counted => {
                anthropic::usage_of(&json!({"usage": message.usage}))
            }
            Parts::Anthropic(_) => Usage::Unknown,
        }
    }

    /// The answer, once nothing more comes. `raw_digest` is of the bytes as received.
    #[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
    pub fn finish(self, headers: &[(String, String)], raw_digest: String) -> Result<Answer, ProviderError> {
        let failure = self.failure.or(if self.over { None } else { Some(CUT) });
        if let Some((class, code)) = failure {
            let usage = self.usage();
            return Err(ProviderError {
                class,
                code,
                status: 200,
                provider_code: None,
                provider_type: None,
                usage,
                raw_digest,
            });
        }
        match self.parts {
            Parts::OpenAi(completion) => {
                openai::reply_of(200, headers, completion.reply().to_string().as_bytes(), raw_digest)
            }
            Parts::Anthropic(message) => {
                anthropic::reply_of(200, headers, message.reply().to_string().as_bytes(), raw_digest)
            }
        }
    }
}

/// Appends a text, within the bound of a whole reply.
fn append(to: &mut String, text: &str) -> Result<(), Failure> {
    if to.len() + text.len() > REPLY_BYTES_MAX {
        return Err(OVERSIZED);
    }
    to.push_str(text);
    Ok(())
}

/// A member that is a string; null counts as absent, anything else is malformed.
fn text<'a>(of: &'a Value, name: &str) -> Result<Option<&'a str>, Failure> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(MALFORMED),
    }
}

fn parsed(event: &Event) -> Result<Value, Failure> {
    strict_json::parse(event.data.as_bytes()).ok().filter(Value::is_object).ok_or(MALFORMED)
}

impl Completion {
    /// Whether the stream is over.
    fn push(&mut self, event: &Event) -> Result<bool, Failure> {
        if event.data.trim() == "[DONE]" {
            return Ok(true);
        }
        let chunk = parsed(event)?;
        if let Some(error) = openai::error_of(&chunk) {
            self.error = Some(error.clone());
            return Ok(true);
        }
        // The first chunk of Azure has the prompt's filter results and an empty name.
        if let Some(model) = text(&chunk, "model")?.filter(|model| !model.is_empty()) {
            if self.model.is_empty() {
                model.clone_into(&mut self.model);
            } else if self.model != model {
                return Err(MALFORMED);
            }
        }
        if let Some(fingerprint) = chunk.get("system_fingerprint").filter(|print| print.is_string()) {
            self.fingerprint = Some(fingerprint.clone());
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        match chunk.get("choices") {
            None | Some(Value::Null) => {}
            Some(Value::Array(choices)) => {
                for choice in choices {
                    self.choice(choice)?;
                }
            }
            Some(_) => return Err(MALFORMED),
        }
        Ok(false)
    }

    fn choice(&mut self, choice: &Value) -> Result<(), Failure> {
        // One answer was asked for.
        if choice.get("index").is_some_and(|index| index.as_u64() != Some(0)) {
            return Err(MALFORMED);
        }
        // Results of an asynchronous filter come in a choice without a delta.
        if let Some(delta) = choice.get("delta").filter(|delta| delta.is_object()) {
            for (name, kept) in [("content", &mut self.content), ("refusal", &mut self.refusal)] {
                if let Some(piece) = text(delta, name)? {
                    if self.finish.is_some() && !piece.is_empty() {
                        return Err(MALFORMED);
                    }
                    append(kept.get_or_insert_default(), piece)?;
                }
            }
            let called = |name| delta.get(name).is_some_and(|calls| !calls.is_null());
            self.tool_calls |= called("tool_calls") || called("function_call");
        }
        if let Some(reason) = choice.get("finish_reason").filter(|reason| !reason.is_null()) {
            self.finish = Some(reason.clone());
        }
        Ok(())
    }

    fn reply(self) -> Value {
        let mut reply = json!({
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.content, "refusal": self.refusal},
                "finish_reason": self.finish,
            }],
        });
        if self.tool_calls {
            reply["choices"][0]["message"]["tool_calls"] = json!([{}]);
        }
        for (name, value) in
            [("system_fingerprint", self.fingerprint), ("usage", self.usage), ("error", self.error)]
        {
            if let Some(value) = value {
                reply[name] = value;
            }
        }
        reply
    }
}

impl Message {
    /// Whether the stream is over.
    fn push(&mut self, event: &Event) -> Result<bool, Failure> {
        let data = parsed(event)?;
        // The event's name and the type in its data say the same; a gateway may lose the name.
        let kind = text(&data, "type")?.ok_or(MALFORMED)?;
        match kind {
            "message_start" => {
                let message = data.get("message").filter(|_| !self.started).ok_or(MALFORMED)?;
                self.started = true;
                self.model = message.get("model").cloned().unwrap_or_default();
                self.count(message.get("usage"));
            }
            "error" => {
                self.error = Some(data.get("error").cloned().unwrap_or_else(|| json!({"type": "api_error"})));
                return Ok(true);
            }
            "content_block_start"
            | "content_block_delta"
            | "content_block_stop"
            | "message_delta"
            | "message_stop"
                if !self.started =>
            {
                return Err(MALFORMED);
            }
            "content_block_start" => {
                let block = data.get("content_block").filter(|block| block.is_object());
                if self.open.is_some()
                    || !self.is_at(&data, self.blocks.len())
                    || self.blocks.len() >= BLOCKS_MAX
                {
                    return Err(MALFORMED);
                }
                self.blocks.push(block.ok_or(MALFORMED)?.clone());
                self.open = Some(String::new());
            }
            "content_block_delta" => {
                let at = self.blocks.len().wrapping_sub(1);
                let here = self.is_at(&data, at);
                let open = self.open.as_mut().filter(|_| here).ok_or(MALFORMED)?;
                let delta = data.get("delta").ok_or(MALFORMED)?;
                // Of text and thinking nothing is needed; only the answer's arguments are kept.
                if text(delta, "type")? == Some("input_json_delta") {
                    append(open, text(delta, "partial_json")?.ok_or(MALFORMED)?)?;
                }
            }
            "content_block_stop" => {
                let at = self.blocks.len().wrapping_sub(1);
                let here = self.is_at(&data, at);
                let written = self.open.take().filter(|_| here).ok_or(MALFORMED)?;
                let block = self.blocks.last_mut().ok_or(MALFORMED)?;
                if block.get("type").and_then(Value::as_str) == Some("tool_use") && !written.is_empty() {
                    // Cut arguments do not parse. Why they were cut is said by the stop reason, so they may stand
                    // until that is read.
                    block["input"] = strict_json::parse(written.as_bytes()).unwrap_or_default();
                }
            }
            "message_delta" => {
                if let Some(reason) = data.get("delta").and_then(|delta| delta.get("stop_reason")) {
                    self.stop = reason.clone();
                }
                self.counted |= self.count(data.get("usage"));
            }
            "message_stop" => return if self.open.is_none() { Ok(true) } else { Err(MALFORMED) },
            // `ping`, and what the vendor may add.
            _ => {}
        }
        Ok(false)
    }

    fn is_at(&self, data: &Value, at: usize) -> bool {
        data.get("index").and_then(Value::as_u64) == Some(at as u64)
    }

    /// Takes counts over; they are cumulative, and a later one replaces an earlier one.
    fn count(&mut self, usage: Option<&Value>) -> bool {
        let Some(usage) = usage.and_then(Value::as_object) else { return false };
        for name in [
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "cache_creation",
            "output_tokens_details",
        ] {
            if let Some(count) = usage.get(name).filter(|count| !count.is_null()) {
                self.usage.insert(name.to_owned(), count.clone());
            }
        }
        true
    }

    fn reply(self) -> Value {
        let mut reply = json!({"model": self.model, "content": self.blocks, "stop_reason": self.stop});
        if self.counted {
            reply["usage"] = Value::Object(self.usage);
        }
        if let Some(error) = self.error {
            reply["error"] = error;
        }
        reply
    }
}
