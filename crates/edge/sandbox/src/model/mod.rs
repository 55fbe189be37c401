//! Stand-ins for hosted models, in three shapes that share one answer.
//!
//! | shape | paths | key |
//! |---|---|---|
//! | OpenAI | `/v1/chat/completions`, `/v1/models` | `Authorization: Bearer` |
//! | Azure OpenAI | `/openai/deployments/{deployment}/chat/completions?api-version=…`, `/openai/v1/…` | `api-key` or a bearer |
//! | Anthropic | `/v1/messages`, `/v1/messages/count_tokens`, `/v1/models` with `anthropic-version` | `x-api-key` or a bearer |
//!
//! It is no model. An answer comes from a function that the sandbox was configured with; the default,
//! [`keyword_answer`], picks a group by keywords so that a ticket gets *some* deterministic answer. What is
//! faithful is the wire: the shape of replies, streams and errors, the dated version that a reply names under an alias
//! or a deployment, the content cut at the token limit, content that keeps to a JSON schema where the request asks for
//! one ([`shape`]), and usage in each vendor's own arithmetic.
//!
//! Tokens are counted as words between white space. That is an estimate and no tokenizer: sums add up, but
//! they are not what a provider would bill. What was answered is counted ([`crate::ModelWork`]) when it is made, also
//! where a fault then keeps it from arriving: a provider bills what it has worked, not what was received.

mod anthropic;
mod openai;
mod shape;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    config::ModelConfig,
    exchange::{Call, Reply},
    faults::Fault,
    stamp,
};

/// Most messages of one request.
pub const MAX_MESSAGES: usize = 256;
/// The group that [`Fault::UnknownGroup`] names.
pub const UNKNOWN_GROUP: &str = "Department of Nonexistence";

/// What the function behind the stand-in answers.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelAnswer {
    /// An object. Where the request has a JSON schema it is fitted to it.
    Object(Map<String, Value>),
    /// Plain text. Where the request has a JSON schema, an object is made up from the schema alone.
    Text(String),
}

/// From the text of the last user message to an answer. It runs while the request waits, on the server's own
/// thread, and must not block; what it panics with closes that connection.
pub type Answerer = Arc<dyn Fn(&str) -> ModelAnswer + Send + Sync>;

/// Words and the group that they point to, first match wins. A stand-in for a model, nothing more.
const KEYWORDS: &[(&[&str], &str)] = &[
    (&["administrator", "admin rights", "elevated"], "Administrative rights"),
    (&["disk", "storage", "quota", "mailbox full", "shared folder"], "Storage"),
    (&["purchase", "order", "invoice", "supplier", "licence"], "Purchase"),
    (&["access", "password", "login", "permission", "account", "vpn"], "Access"),
    (&["laptop", "printer", "screen", "monitor", "keyboard", "phone", "hardware"], "Hardware"),
    (&["salary", "leave", "payroll", "holiday", "contract", "timesheet"], "HR Support"),
    (&["project", "sprint", "milestone"], "Internal Project"),
];

/// The default answer: a group by keyword, a fixed confidence, the first words as summary.
pub fn keyword_answer(text: &str) -> ModelAnswer {
    const SUMMARY_WORDS: usize = 20;
    let lower = text.to_lowercase();
    let hit = KEYWORDS.iter().find(|(words, _)| words.iter().any(|word| lower.contains(word)));
    let group = hit.map_or("Miscellaneous", |(_, group)| group);
    let summary: Vec<&str> = text.split_whitespace().take(SUMMARY_WORDS).collect();
    let mut answer = Map::new();
    for name in ["assignment_group", "group", "topic_group"] {
        answer.insert(name.into(), json!(group));
    }
    answer.insert("confidence".into(), json!(if hit.is_some() { 0.8 } else { 0.3 }));
    answer.insert("summary".into(), json!(summary.join(" ")));
    ModelAnswer::Object(answer)
}

/// Whose shape a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    OpenAi,
    Azure,
    Anthropic,
}

/// The shape of a request, by its path and, where two vendors share one, by its headers.
pub(crate) fn wire_of(call: &Call) -> Wire {
    if call.path.starts_with("/openai/") {
        Wire::Azure
    } else if call.path.starts_with("/v1/messages") || call.headers.contains_key("anthropic-version") {
        Wire::Anthropic
    } else {
        Wire::OpenAi
    }
}

/// Whether the caller holds the key.
pub(crate) fn authenticated(call: &Call, key: &str) -> bool {
    let header = |name| call.headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = call.authorization("bearer");
    let given = match wire_of(call) {
        Wire::OpenAi => bearer,
        Wire::Azure => header("api-key").or(bearer),
        Wire::Anthropic => header("x-api-key").or(bearer),
    };
    given == Some(key)
}

/// 401, in the provider's shape. The given key is not echoed.
pub(crate) fn unauthenticated(call: &Call) -> Reply {
    match wire_of(call) {
        Wire::OpenAi => Problem::new(401, "Incorrect API key provided.".into()).code("invalid_api_key"),
        Wire::Azure => {
            Problem::new(401, "Access denied due to invalid subscription key or wrong API endpoint.".into())
        }
        Wire::Anthropic => Problem::new(401, "invalid x-api-key".into()),
    }
    .reply(wire_of(call))
}

/// An injected failure, in the provider's shape.
pub(crate) fn error(call: &Call, status: u16, message: &str) -> Reply {
    let problem = Problem::new(status, format!("{message}: injected by the stand-in"));
    match status {
        429 => problem.code("rate_limit_exceeded"),
        _ => problem,
    }
    .reply(wire_of(call))
}

/// 401 for a token that was good once.
pub(crate) fn expired(call: &Call) -> Reply {
    match wire_of(call) {
        Wire::OpenAi => {
            Problem::new(401, "Your authentication token has expired.".into()).code("token_expired")
        }
        Wire::Azure => Problem::new(
            401,
            "Unauthorized. Access token is missing, invalid, audience is incorrect or have expired.".into(),
        ),
        Wire::Anthropic => Problem::new(401, "OAuth token has expired".into()),
    }
    .reply(wire_of(call))
}

/// No capacity: Anthropic's 529, the others' 503.
pub(crate) fn overloaded(call: &Call) -> Reply {
    match wire_of(call) {
        Wire::OpenAi => {
            Problem::new(503, "The engine is currently overloaded, please try again later".into())
        }
        Wire::Azure => {
            Problem::new(503, "The service has no capacity for this deployment.".into()).code("NoCapacity")
        }
        Wire::Anthropic => Problem::new(529, "Overloaded".into()),
    }
    .reply(wire_of(call))
}

/// The prompt does not fit.
pub(crate) fn context_exceeded(call: &Call) -> Reply {
    match wire_of(call) {
        Wire::OpenAi | Wire::Azure => Problem {
            param: Some("messages"),
            ..Problem::new(400, "This model's maximum context length is 8192 tokens.".into())
        }
        .code("context_length_exceeded"),
        Wire::Anthropic => Problem::new(400, "prompt is too long: 9001 tokens > 8192 maximum".into()),
    }
    .reply(wire_of(call))
}

/// The event by which a stream that has begun says that it failed.
pub(crate) fn error_event(call: &Call) -> String {
    match wire_of(call) {
        Wire::OpenAi | Wire::Azure => openai::error_event(),
        Wire::Anthropic => anthropic::error_event(),
    }
}

/// What a request made the model do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// Answers an authenticated request. `nth` counts requests and makes ids; `fault` may bend the content. The work is
/// none where the request was refused.
pub(crate) fn handle(
    config: &ModelConfig,
    call: &Call,
    at_ms: i64,
    nth: u64,
    fault: Option<&Fault>,
) -> (Reply, Option<Work>) {
    let wire = wire_of(call);
    let asked = Asked { config, call, at_ms, nth, fault };
    let result = match wire {
        Wire::OpenAi | Wire::Azure => openai::handle(&asked, wire),
        Wire::Anthropic => anthropic::handle(&asked),
    };
    let (reply, work) = match result {
        Ok((reply, work)) => (reply, work),
        Err(problem) => (problem.reply(wire), None),
    };
    let id = format!("req_{}", stamp::id_of("request", &nth.to_string()));
    (reply.header(if wire == Wire::Anthropic { "request-id" } else { "x-request-id" }, id), work)
}

/// A request with what it is answered from.
struct Asked<'a> {
    config: &'a ModelConfig,
    call: &'a Call,
    at_ms: i64,
    nth: u64,
    fault: Option<&'a Fault>,
}

type Handled = Result<(Reply, Option<Work>), Problem>;

impl Asked<'_> {
    fn body(&self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.call.body)
            .map_err(|_| Problem::new(400, "We could not parse the JSON body of your request.".into()))
    }

    fn id(&self, prefix: &str, kind: &str) -> String {
        format!("{prefix}{}", stamp::id_of(kind, &self.nth.to_string()))
    }

    /// The dated name that replies carry.
    fn version(&self) -> &str {
        if self.fault == Some(&Fault::WrongModel) { &self.config.wrong_version } else { &self.config.version }
    }

    fn knows(&self, model: &str) -> bool {
        model == self.config.name || model == self.config.version
    }

    /// The answer to a prompt as an object of the schema; the null schema allows anything.
    fn object(&self, prompt: &str, schema: &Value) -> Result<Value, Problem> {
        let object = match (self.config.answer)(prompt) {
            ModelAnswer::Object(object) => object,
            ModelAnswer::Text(text) => Map::from_iter([("text".to_owned(), json!(text))]),
        };
        match shape::fit(Value::Object(object), schema) {
            Ok(Value::Object(object)) => Ok(Value::Object(bent(self.config, object, schema, self.fault))),
            Ok(other) => Ok(other),
            Err(shape::TooDeep) => Err(Problem::bad("schema", "it is nested too deep")),
        }
    }

    /// The answer to a prompt as it comes.
    fn free(&self, prompt: &str) -> Result<String, Problem> {
        let bend = matches!(self.fault, Some(Fault::UnknownGroup | Fault::SchemaViolation));
        match (self.config.answer)(prompt) {
            ModelAnswer::Text(text) if !bend => Ok(text),
            _ => Ok(self.object(prompt, &Value::Null)?.to_string()),
        }
    }
}

/// A request that is refused.
struct Problem {
    status: u16,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Problem {
    fn new(status: u16, message: String) -> Problem {
        Problem { status, message, param: None, code: None }
    }

    fn bad(param: &'static str, message: &str) -> Problem {
        Problem { param: Some(param), ..Problem::new(400, format!("Invalid '{param}': {message}")) }
    }

    fn code(self, code: &'static str) -> Problem {
        Problem { code: Some(code), ..self }
    }

    fn reply(self, wire: Wire) -> Reply {
        Reply::json(self.status, &self.body(wire))
    }

    /// The error as its vendor writes it.
    fn body(&self, wire: Wire) -> Value {
        let (status, message) = (self.status, &self.message);
        match wire {
            Wire::OpenAi => {
                let kind = match status {
                    429 => "requests",
                    500.. => "server_error",
                    _ => "invalid_request_error",
                };
                json!({"error": {"message": message, "type": kind, "param": self.param, "code": self.code}})
            }
            // What its gateway refuses carries a code and nothing else; what the model's own front refuses is OpenAI's.
            Wire::Azure if status == 400 => json!({"error": {
                "message": message, "type": "invalid_request_error", "param": self.param, "code": self.code,
            }}),
            Wire::Azure => {
                let code = self.code.map_or_else(|| status.to_string(), str::to_owned);
                json!({"error": {"code": code, "message": message}})
            }
            Wire::Anthropic => {
                let kind = match status {
                    401 => "authentication_error",
                    402 => "billing_error",
                    403 => "permission_error",
                    404 => "not_found_error",
                    413 => "request_too_large",
                    429 => "rate_limit_error",
                    504 => "timeout_error",
                    529 => "overloaded_error",
                    500.. => "api_error",
                    _ => "invalid_request_error",
                };
                json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null})
            }
        }
    }
}

/// Roles and texts of a request's messages.
fn texts_of(body: &Value) -> Result<Vec<(&str, String)>, Problem> {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(Problem::bad("messages", "between 1 and 256 messages are required"));
    }
    messages
        .iter()
        .map(|message| Some((message["role"].as_str()?, text_of(&message["content"])?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::bad("messages", "each needs a role and text content"))
}

/// The text that is answered: the last one of the user.
fn prompt_of<'a>(texts: &'a [(&str, String)]) -> &'a str {
    texts.iter().rev().find(|(role, _)| *role == "user").map_or("", |(_, text)| text)
}

/// Content as it is streamed: pieces of some characters.
fn pieces(content: &str) -> Vec<String> {
    const PIECE_CHARS: usize = 16;
    let chars: Vec<char> = content.chars().collect();
    chars.chunks(PIECE_CHARS).map(|piece| piece.iter().collect()).collect()
}

/// A reply that is a stream of events.
fn event_stream(text: String) -> Reply {
    Reply { body: text.into(), ..Reply::empty(200) }
        .header("content-type", "text/event-stream; charset=utf-8")
        .header("cache-control", "no-cache")
}

/// The text of a message: a string, or the text parts of a list.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some(String::new()),
        Value::Array(parts) => {
            Some(parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Bends an object as the fault says.
fn bent(
    config: &ModelConfig,
    mut object: Map<String, Value>,
    schema: &Value,
    fault: Option<&Fault>,
) -> Map<String, Value> {
    match fault {
        Some(Fault::UnknownGroup) => {
            let listed = |name: &&String| schema["properties"][name.as_str()]["enum"].is_array();
            let property = if object.contains_key(&config.group_property) {
                Some(config.group_property.clone())
            } else {
                object.keys().find(listed).cloned()
            };
            object.insert(property.unwrap_or_else(|| config.group_property.clone()), json!(UNKNOWN_GROUP));
        }
        Some(Fault::SchemaViolation) => {
            // A wrong type, a missing property and one too many: whatever the schema says, one of these
            // breaks it.
            let names: Vec<String> = object.keys().cloned().collect();
            if let Some(first) = names.first() {
                object.insert(first.clone(), json!({"unexpected": [1, 2, 3]}));
            }
            if names.len() > 1 {
                object.remove(&names[names.len() - 1]);
            }
            object.insert("not_in_the_schema".into(), json!(true));
        }
        _ => {}
    }
    object
}

/// Cuts content to a number of words; true where something was cut. A real model stops in mid-token, so cut
/// JSON is broken JSON here too.
fn cut_to(content: String, limit: Option<u64>) -> (String, bool) {
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if words(&content) <= limit {
        return (content, false);
    }
    let kept: Vec<&str> = content.split_whitespace().take(limit).collect();
    (kept.join(" "), true)
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}
