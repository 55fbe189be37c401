//! A stand-in for an OpenAI-shaped model: `/v1/chat/completions` (not streaming) and `/v1/models`.
//!
//! It is no model. An answer comes from a function that the sandbox was configured with; the default,
//! [`keyword_answer`], picks a group by keywords so that a ticket gets *some* deterministic answer. What is
//! faithful is the wire: the shape of replies and errors, the dated version that a reply names under an alias,
//! the content cut at the token limit with `finish_reason: "length"`, and content that keeps to a JSON schema
//! where the request asks for one ([`shape`]).
//!
//! Tokens are counted as words between white space. That is an estimate and no tokenizer: sums add up, but
//! they are not what a provider would bill.

mod shape;

use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    config::ModelConfig,
    effects::Service,
    exchange::{self, Call, Reply},
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

/// Whether the caller holds the key.
pub(crate) fn authenticated(call: &Call, key: &str) -> bool {
    call.authorization("bearer").is_some_and(|given| given == key)
}

/// 401, in the provider's shape. The given key is not echoed.
pub(crate) fn unauthenticated() -> Reply {
    exchange::error(Service::Model, 401, "Incorrect API key provided.", "")
}

/// Answers an authenticated request. `nth` counts requests and makes ids; `fault` may bend the content.
pub(crate) fn handle(
    config: &ModelConfig,
    call: &Call,
    at_ms: i64,
    nth: u64,
    fault: Option<&Fault>,
) -> Reply {
    let path = call.path.trim_end_matches('/');
    let reply = match (&call.method, path) {
        (&Method::GET, "/v1/models") => models(config, at_ms),
        (&Method::POST, "/v1/chat/completions") => {
            completion(config, call, at_ms, nth, fault).unwrap_or_else(|problem| problem.reply())
        }
        _ => Problem::new(404, format!("Invalid URL ({} {path})", call.method)).reply(),
    };
    reply.header("x-request-id", format!("req_{}", stamp::id_of("request", &nth.to_string())))
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

    fn reply(self) -> Reply {
        let (message, param, code) = (self.message, self.param, self.code);
        let error =
            json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
        Reply::json(self.status, &json!({"error": error}))
    }
}

fn models(config: &ModelConfig, at_ms: i64) -> Reply {
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": at_ms / 1_000, "owned_by": "stand-in"});
    Reply::json(200, &json!({"object": "list", "data": [model(&config.name), model(&config.version)]}))
}

fn completion(
    config: &ModelConfig,
    call: &Call,
    at_ms: i64,
    nth: u64,
    fault: Option<&Fault>,
) -> Result<Reply, Problem> {
    let body: Value = serde_json::from_slice(&call.body)
        .map_err(|_| Problem::new(400, "We could not parse the JSON body of your request.".into()))?;
    let model = body["model"].as_str().ok_or_else(|| Problem::bad("model", "a string is required"))?;
    if model != config.name && model != config.version {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        return Err(Problem { code: Some("model_not_found"), ..Problem::new(404, message) });
    }
    if body["stream"] == json!(true) {
        let message = "this stand-in does not stream";
        return Err(Problem { code: Some("unsupported_value"), ..Problem::bad("stream", message) });
    }
    if body.get("n").is_some_and(|n| *n != json!(1) && !n.is_null()) {
        return Err(Problem::bad("n", "this stand-in makes one choice"));
    }
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(Problem::bad("messages", "between 1 and 256 messages are required"));
    }
    let texts: Vec<(&str, String)> = messages
        .iter()
        .map(|message| Some((message["role"].as_str()?, text_of(&message["content"])?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::bad("messages", "each needs a role and text content"))?;
    let prompt = texts.iter().rev().find(|(role, _)| *role == "user").map_or("", |(_, text)| text);

    let content = content(config, &body["response_format"], prompt, fault)?;
    let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[name].as_u64());
    let (content, cut) = cut_to(content, limit);
    let version = if fault == Some(&Fault::WrongModel) { &config.wrong_version } else { &config.version };
    let prompt_tokens: usize = texts.iter().map(|(_, text)| words(text)).sum();
    let completion_tokens = words(&content);
    Ok(Reply::json(
        200,
        &json!({
            "id": format!("chatcmpl-{}", stamp::id_of("completion", &nth.to_string())),
            "object": "chat.completion",
            "created": at_ms / 1_000,
            "model": version,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": null, "annotations": []},
                "logprobs": null,
                "finish_reason": if cut { "length" } else { "stop" },
            }],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            },
            "service_tier": "default",
            "system_fingerprint": format!("fp_{}", &stamp::id_of("fingerprint", version)[..10]),
        }),
    ))
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

/// The message content in the format that the request asks for.
fn content(
    config: &ModelConfig,
    format: &Value,
    prompt: &str,
    fault: Option<&Fault>,
) -> Result<String, Problem> {
    let answer = (config.answer)(prompt);
    let object = |answer: &ModelAnswer| match answer {
        ModelAnswer::Object(object) => object.clone(),
        ModelAnswer::Text(text) => Map::from_iter([("text".to_owned(), json!(text))]),
    };
    let schema = match format["type"].as_str() {
        None if format.is_null() => None,
        Some("text") => None,
        Some("json_object") => Some(Value::Null),
        Some("json_schema") => {
            let named = format["json_schema"]["name"].is_string();
            match format["json_schema"].get("schema") {
                Some(schema @ Value::Object(_)) if named => Some(schema.clone()),
                _ => return Err(Problem::bad("response_format.json_schema", "name and schema are required")),
            }
        }
        _ => return Err(Problem::bad("response_format", "text, json_object or json_schema is required")),
    };
    let Some(schema) = schema else {
        let bend = matches!(fault, Some(Fault::UnknownGroup | Fault::SchemaViolation));
        return Ok(match answer {
            ModelAnswer::Text(text) if !bend => text,
            answer => Value::Object(bent(config, object(&answer), &Value::Null, fault)).to_string(),
        });
    };
    let fitted = match shape::fit(Value::Object(object(&answer)), &schema) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Ok(other.to_string()),
        Err(shape::TooDeep) => {
            return Err(Problem::bad("response_format.json_schema", "the schema is nested too deep"));
        }
    };
    Ok(Value::Object(bent(config, fitted, &schema, fault)).to_string())
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
