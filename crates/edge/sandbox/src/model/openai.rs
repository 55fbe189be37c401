//! The OpenAI shape, and the Azure one, which is the same behind other paths.
//!
//! Azure's own: a deployment in the path, an `api-version` that is required there and ignored under `/openai/v1/`, the
//! filter's results in replies, and a first chunk of a stream that has them and no choices.

use http::Method;
use serde_json::{Value, json};

use super::{Asked, Handled, Problem, Wire, Work, cut_to, event_stream, pieces, prompt_of, texts_of, words};
use crate::{exchange::Reply, faults::Fault, stamp};

/// Answers a request in the OpenAI or the Azure shape.
pub(super) fn handle(asked: &Asked<'_>, wire: Wire) -> Handled {
    let path = asked.call.path.trim_end_matches('/');
    let below = match wire {
        Wire::Azure => match path.strip_prefix("/openai/deployments/") {
            Some(rest) => {
                let (deployment, below) = rest.split_once('/').unwrap_or((rest, ""));
                if asked.call.parameter("api-version").is_none_or(|version| version.is_empty()) {
                    return Err(Problem::new(404, "Resource not found".into()));
                }
                if deployment != asked.config.name {
                    let message = "The API deployment for this resource does not exist.";
                    return Err(Problem::new(404, message.into()).code("DeploymentNotFound"));
                }
                below
            }
            None => path.strip_prefix("/openai/v1/").unwrap_or_default(),
        },
        Wire::OpenAi | Wire::Anthropic => path.strip_prefix("/v1/").unwrap_or_default(),
    };
    match (&asked.call.method, below) {
        (&Method::GET, "models") => Ok((models(asked), None)),
        (&Method::POST, "chat/completions") => completion(asked, wire),
        _ => Err(Problem::new(404, format!("Invalid URL ({} {path})", asked.call.method))),
    }
}

fn models(asked: &Asked<'_>) -> Reply {
    let model = |id: &str| json!({"id": id, "object": "model", "created": asked.at_ms / 1_000, "owned_by": "stand-in"});
    let data = [model(&asked.config.name), model(&asked.config.version)];
    Reply::json(200, &json!({"object": "list", "data": data}))
}

fn completion(asked: &Asked<'_>, wire: Wire) -> Handled {
    let body = asked.body()?;
    // A deployment in the path is checked already; the client still sends it as the model.
    if !asked.call.path.starts_with("/openai/deployments/") {
        let model = body["model"].as_str().ok_or_else(|| Problem::bad("model", "a string is required"))?;
        if !asked.knows(model) {
            let message = format!("The model `{model}` does not exist or you do not have access to it.");
            return Err(Problem::new(404, message).code("model_not_found"));
        }
    }
    if body.get("n").is_some_and(|n| *n != json!(1) && !n.is_null()) {
        return Err(Problem::bad("n", "this stand-in makes one choice"));
    }
    let stream = match body.get("stream") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(Problem::bad("stream", "a boolean is required")),
    };
    if !stream && !body["stream_options"].is_null() {
        return Err(Problem::bad("stream_options", "only with `stream`"));
    }
    let texts = texts_of(&body)?;
    let prompt = prompt_of(&texts);
    if asked.fault == Some(&Fault::ContentFiltered) && wire == Wire::Azure {
        return Ok((prompt_filtered(), None));
    }
    let content = content(asked, &body["response_format"], prompt)?;
    let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[*name].as_u64());
    let (content, cut) = cut_to(content, limit);
    let (content, finish) = match asked.fault {
        Some(Fault::ContentFiltered) => (String::new(), "content_filter"),
        _ if cut => (content, "length"),
        _ => (content, "stop"),
    };
    let work = Work {
        input_tokens: texts.iter().map(|(_, text)| words(text) as u64).sum(),
        output_tokens: words(&content) as u64,
    };
    let said = Said { asked, wire, content: &content, finish, work };
    let reply = if stream { said.streamed(&body["stream_options"]) } else { said.whole() };
    Ok((reply, Some(work)))
}

/// The refusal of Azure's filter before the model sees the prompt.
fn prompt_filtered() -> Reply {
    let result = json!({"jailbreak": {"filtered": true, "detected": true}, "hate": {"filtered": false, "severity": "safe"}});
    Reply::json(
        400,
        &json!({"error": {
            "message": "The response was filtered due to the prompt triggering the content management policy.",
            "type": null, "param": "prompt", "code": "content_filter", "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": result},
        }}),
    )
}

/// The message content in the format that the request asks for.
fn content(asked: &Asked<'_>, format: &Value, prompt: &str) -> Result<String, Problem> {
    match format["type"].as_str() {
        None if format.is_null() => asked.free(prompt),
        Some("text") => asked.free(prompt),
        Some("json_object") => Ok(asked.object(prompt, &Value::Null)?.to_string()),
        Some("json_schema") => {
            let named = format["json_schema"]["name"].is_string();
            match format["json_schema"].get("schema") {
                Some(schema @ Value::Object(_)) if named => Ok(asked.object(prompt, schema)?.to_string()),
                _ => Err(Problem::bad("response_format.json_schema", "name and schema are required")),
            }
        }
        _ => Err(Problem::bad("response_format", "text, json_object or json_schema is required")),
    }
}

/// An answer on its way out.
struct Said<'a> {
    asked: &'a Asked<'a>,
    wire: Wire,
    content: &'a str,
    finish: &'static str,
    work: Work,
}

/// What Azure's filter thinks of a text that is fine.
fn safe() -> Value {
    let category = json!({"filtered": false, "severity": "safe"});
    json!({"hate": category, "self_harm": category, "sexual": category, "violence": category})
}

impl Said<'_> {
    fn usage(&self) -> Value {
        let Work { input_tokens, output_tokens } = self.work;
        json!({
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        })
    }

    fn envelope(&self, object: &str) -> Value {
        let version = self.asked.version();
        json!({
            "id": self.asked.id("chatcmpl-", "completion"),
            "object": object,
            "created": self.asked.at_ms / 1_000,
            "model": version,
            "system_fingerprint": format!("fp_{}", &stamp::id_of("fingerprint", version)[..10]),
        })
    }

    fn whole(&self) -> Reply {
        let mut reply = self.envelope("chat.completion");
        reply["choices"] = json!([{
            "index": 0,
            "message": {"role": "assistant", "content": self.content, "refusal": null, "annotations": []},
            "logprobs": null,
            "finish_reason": self.finish,
        }]);
        reply["usage"] = self.usage();
        reply["service_tier"] = json!("default");
        if self.wire == Wire::Azure {
            reply["prompt_filter_results"] = json!([{"prompt_index": 0, "content_filter_results": safe()}]);
            reply["choices"][0]["content_filter_results"] = safe();
        }
        Reply::json(200, &reply)
    }

    /// Chunks: the role, pieces of content, the reason of the end, usage if it was asked for, and the end.
    fn streamed(&self, options: &Value) -> Reply {
        let with_usage = options["include_usage"] == json!(true);
        let chunk = |delta: Value, finish: Value| {
            let mut chunk = self.envelope("chat.completion.chunk");
            chunk["choices"] =
                json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
            if with_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        let mut chunks = Vec::new();
        if self.wire == Wire::Azure {
            chunks.push(json!({
                "choices": [], "created": 0, "id": "", "model": "", "object": "",
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe()}],
            }));
        }
        chunks.push(chunk(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null));
        chunks.extend(
            pieces(self.content).into_iter().map(|piece| chunk(json!({"content": piece}), Value::Null)),
        );
        chunks.push(chunk(json!({}), json!(self.finish)));
        if with_usage {
            let mut last = self.envelope("chat.completion.chunk");
            last["choices"] = json!([]);
            last["usage"] = self.usage();
            chunks.push(last);
        }
        let mut text = String::new();
        for chunk in chunks {
            text += &format!("data: {chunk}\n\n");
        }
        event_stream(text + "data: [DONE]\n\n")
    }
}

/// The frame by which a stream that has begun says that it failed.
pub(super) fn error_event() -> String {
    let problem = Problem::new(500, "The server had an error while processing your request".into());
    format!("data: {}\n\n", problem.body(Wire::OpenAi))
}
