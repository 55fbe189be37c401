//! The Anthropic shape: messages, whole or as a stream of named events.
//!
//! Traps kept: `max_tokens` and the header `anthropic-version` are required; a reply's `input_tokens` leaves cached
//! tokens out; since version 2026-10-21 a request with `temperature`, `top_p` or `top_k` is refused; a forced tool is the only structured output here, and its input keeps to the tool's schema; a stream's
//! first usage is not its last; a failure in a stream is an event of a 200.

use http::Method;
use serde_json::{Value, json};

use super::{
    Asked, Handled, Problem, Wire, Work, cut_to, event_stream, pieces, prompt_of, text_of, texts_of, words,
};
use crate::{exchange::Reply, faults::Fault};

/// The versions of the wire that are spoken here. The newer one has no sampling parameters.
const VERSIONS: [&str; 2] = ["2026-10-21", "2023-06-01"];
/// Parameters that the newer version refuses.
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

fn version<'a>(asked: &'a Asked<'_>) -> &'a str {
    asked.call.headers.get("anthropic-version").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Answers a request in the Anthropic shape.
pub(super) fn handle(asked: &Asked<'_>) -> Handled {
    if !VERSIONS.contains(&version(asked)) {
        return Err(Problem::new(400, format!("anthropic-version: one of {VERSIONS:?} is required")));
    }
    let path = asked.call.path.trim_end_matches('/');
    match (&asked.call.method, path) {
        (&Method::GET, "/v1/models") => Ok((models(asked), None)),
        (&Method::POST, "/v1/messages") => message(asked),
        (&Method::POST, "/v1/messages/count_tokens") => {
            let (_, _, input_tokens) = read(asked, false)?;
            Ok((Reply::json(200, &json!({"input_tokens": input_tokens})), None))
        }
        _ => Err(Problem::new(404, format!("{} {path}", asked.call.method))),
    }
}

fn models(asked: &Asked<'_>) -> Reply {
    let model = |id: &str| json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-11-01T00:00:00Z"});
    let (name, version) = (&asked.config.name, &asked.config.version);
    Reply::json(
        200,
        &json!({"data": [model(version), model(name)], "has_more": false, "first_id": version, "last_id": name}),
    )
}

/// The body, the text to answer, and the tokens of all input.
fn read(asked: &Asked<'_>, makes: bool) -> Result<(Value, String, u64), Problem> {
    let body = asked.body()?;
    let model = body["model"].as_str().ok_or_else(|| Problem::new(400, "model: Field required".into()))?;
    if !asked.knows(model) {
        return Err(Problem::new(404, format!("model: {model}")));
    }
    if makes && body["max_tokens"].as_u64().is_none_or(|most| most == 0) {
        return Err(Problem::new(400, "max_tokens: Field required".into()));
    }
    if version(asked) == VERSIONS[0]
        && let Some(name) = SAMPLING.iter().find(|name| body.get(**name).is_some())
    {
        return Err(Problem::new(400, format!("{name}: Extra inputs are not permitted")));
    }
    let temperature = body["temperature"].as_f64().unwrap_or(1.0);
    if !(0.0..=1.0).contains(&temperature) {
        return Err(Problem::new(400, "temperature: range: 0..1".into()));
    }
    let texts = texts_of(&body)?;
    if texts.iter().any(|(role, _)| !["user", "assistant", "system"].contains(role)) {
        return Err(Problem::new(400, "messages: Unexpected role".into()));
    }
    let system =
        text_of(&body["system"]).ok_or_else(|| Problem::new(400, "system: text is required".into()))?;
    let prompt = prompt_of(&texts).to_owned();
    let input = words(&system) + texts.iter().map(|(_, text)| words(text)).sum::<usize>();
    drop(texts);
    Ok((body, prompt, input as u64))
}

/// The tool that the answer has to use, with its schema.
fn forced_tool(body: &Value) -> Result<Option<(String, Value)>, Problem> {
    let invalid = |message: &str| Problem::new(400, message.to_owned());
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    if tools.iter().any(|tool| !tool["name"].is_string() || !tool["input_schema"].is_object()) {
        return Err(invalid("tools: name and input_schema are required"));
    }
    let tool =
        |tool: &Value| (tool["name"].as_str().unwrap_or_default().to_owned(), tool["input_schema"].clone());
    match body["tool_choice"]["type"].as_str() {
        None | Some("auto" | "none") => Ok(None),
        Some("any") => {
            Ok(Some(tools.first().map(tool).ok_or_else(|| invalid("tool_choice: there are no tools"))?))
        }
        Some("tool") => {
            let named = tools.iter().find(|tool| tool["name"] == body["tool_choice"]["name"]);
            Ok(Some(named.map(tool).ok_or_else(|| invalid("tool_choice: no tool of this name"))?))
        }
        Some(_) => Err(invalid("tool_choice: auto, any, tool or none")),
    }
}

fn message(asked: &Asked<'_>) -> Handled {
    let (body, prompt, input_tokens) = read(asked, true)?;
    let tool = forced_tool(&body)?;
    let text = match &tool {
        Some((_, schema)) => asked.object(&prompt, schema)?.to_string(),
        None => asked.free(&prompt)?,
    };
    let (text, cut) = cut_to(text, body["max_tokens"].as_u64());
    let (text, stop) = match (asked.fault, cut, &tool) {
        (Some(Fault::ContentFiltered), ..) => (String::new(), "refusal"),
        (_, true, _) => (text, "max_tokens"),
        (_, false, Some(_)) => (text, "tool_use"),
        (_, false, None) => (text, "end_turn"),
    };
    let work = Work { input_tokens, output_tokens: words(&text) as u64 };
    let said = Said { asked, tool: tool.map(|(name, _)| name), text, stop, work };
    let reply = if body["stream"] == json!(true) { said.streamed() } else { said.whole() };
    Ok((reply, Some(work)))
}

/// An answer on its way out.
struct Said<'a> {
    asked: &'a Asked<'a>,
    /// The tool that it uses.
    tool: Option<String>,
    /// Text, or the tool's input as JSON.
    text: String,
    stop: &'static str,
    work: Work,
}

impl Said<'_> {
    fn usage(&self, output_tokens: u64) -> Value {
        json!({
            "input_tokens": self.work.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": output_tokens,
            "service_tier": "standard",
        })
    }

    fn envelope(&self, content: Value, stop: Value, usage: Value) -> Value {
        json!({
            "id": self.asked.id("msg_", "message"),
            "type": "message",
            "role": "assistant",
            "model": self.asked.version(),
            "content": content,
            "stop_reason": stop,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    /// The one block of the answer, with nothing in it yet; none if it was refused.
    fn block(&self) -> Option<Value> {
        if self.stop == "refusal" {
            return None;
        }
        Some(match &self.tool {
            Some(name) => {
                json!({"type": "tool_use", "id": self.asked.id("toolu_", "tool"), "name": name, "input": {}})
            }
            None => json!({"type": "text", "text": ""}),
        })
    }

    fn whole(&self) -> Reply {
        let content: Vec<Value> = self
            .block()
            .map(|mut block| {
                if self.tool.is_none() {
                    block["text"] = json!(self.text);
                } else if let Ok(input) = serde_json::from_str::<Value>(&self.text) {
                    // Input that was cut stays empty.
                    block["input"] = input;
                }
                block
            })
            .into_iter()
            .collect();
        let usage = self.usage(self.work.output_tokens);
        Reply::json(200, &self.envelope(json!(content), json!(self.stop), usage))
    }

    fn streamed(&self) -> Reply {
        let mut text = String::new();
        let mut event = |data: Value| {
            let kind = data["type"].as_str().unwrap_or_default().to_owned();
            text += &format!("event: {kind}\ndata: {data}\n\n");
        };
        let start = self.envelope(json!([]), Value::Null, self.usage(1));
        event(json!({"type": "message_start", "message": start}));
        event(json!({"type": "ping"}));
        if let Some(block) = self.block() {
            event(json!({"type": "content_block_start", "index": 0, "content_block": block}));
            for piece in pieces(&self.text) {
                let delta = match &self.tool {
                    Some(_) => json!({"type": "input_json_delta", "partial_json": piece}),
                    None => json!({"type": "text_delta", "text": piece}),
                };
                event(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
            }
            event(json!({"type": "content_block_stop", "index": 0}));
        }
        event(json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop, "stop_sequence": null},
            "usage": {"output_tokens": self.work.output_tokens},
        }));
        event(json!({"type": "message_stop"}));
        event_stream(text)
    }
}

/// The event by which a stream that has begun says that it failed.
pub(super) fn error_event() -> String {
    let problem = Problem::new(529, "Overloaded".into());
    format!("event: error\ndata: {}\n\n", problem.body(Wire::Anthropic))
}
