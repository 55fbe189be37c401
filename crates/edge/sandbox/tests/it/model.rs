//! The model stand-in.

use std::sync::Arc;

use sandbox::{Fault, FaultRule, ModelAnswer, Service, UNKNOWN_GROUP};
use serde_json::{Value, json};

use crate::{
    client::{self, Answer},
    play::{MODEL_KEY, Play, START_MS},
};

const COMPLETIONS: &str = "/v1/chat/completions";

async fn ask(play: &Play, method: &str, target: &str, body: &Value) -> Answer {
    let headers = [("authorization", MODEL_KEY), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client::send(play.sandbox.base_url(), method, target, &headers, body.as_bytes()).await.expect("a reply")
}

fn question(text: &str) -> Value {
    json!({"model": "stand-in", "messages": [
        {"role": "system", "content": "Classify the ticket."},
        {"role": "user", "content": text},
    ]})
}

fn with_schema(text: &str) -> Value {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["assignment_group", "confidence"],
        "properties": {
            "assignment_group": {"type": "string", "enum": ["Access", "Hardware"]},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        },
    });
    let mut question = question(text);
    question["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "triage", "strict": true, "schema": schema}});
    question
}

fn content(answer: &Answer) -> Value {
    let text = answer.json()["choices"][0]["message"]["content"].take();
    serde_json::from_str(text.as_str().expect("text")).expect("JSON content")
}

#[tokio::test]
async fn a_reply_has_the_providers_shape() {
    let play = Play::start().await;
    let mut ids = Vec::new();
    for model in ["stand-in", "stand-in-2026-11-01"] {
        let mut body = with_schema("my laptop screen is broken");
        body["model"] = json!(model);
        let answer = ask(&play, "POST", COMPLETIONS, &body).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("x-request-id").is_some());
        let reply = answer.json();
        // Asked by alias, answered by version.
        assert_eq!(reply["model"], "stand-in-2026-11-01");
        assert_eq!(reply["object"], "chat.completion");
        assert_eq!(reply["created"], START_MS / 1_000);
        assert!(reply["system_fingerprint"].as_str().is_some_and(|text| text.starts_with("fp_")));
        let choice = &reply["choices"][0];
        assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("stop")));
        assert_eq!(choice["message"]["role"], "assistant");
        // Words: 3 + 5 in, 1 out.
        assert_eq!(
            [
                &reply["usage"]["prompt_tokens"],
                &reply["usage"]["completion_tokens"],
                &reply["usage"]["total_tokens"]
            ],
            [8, 1, 9]
        );
        assert_eq!(content(&answer), json!({"assignment_group": "Hardware", "confidence": 0.8}));
        ids.push(reply["id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
    let models = ask(&play, "GET", "/v1/models", &Value::Null).await.json();
    assert_eq!(models["data"][0]["id"], "stand-in");
    assert_eq!(play.sandbox.requests().model, 3);
}

#[tokio::test]
async fn bad_requests_get_the_providers_errors() {
    let play = Play::start().await;
    let with = |name: &str, value: Value| {
        let mut body = question("x");
        body[name] = value;
        body
    };
    for (body, status, code, param) in [
        (json!({"messages": []}), 400, Value::Null, json!("model")),
        (with("model", json!("gpt-none")), 404, json!("model_not_found"), Value::Null),
        (with("messages", json!([])), 400, Value::Null, json!("messages")),
        (with("messages", json!([{"role": "user", "content": 7}])), 400, Value::Null, json!("messages")),
        (with("messages", json!([{"content": "x"}])), 400, Value::Null, json!("messages")),
        (with("stream", json!(true)), 400, json!("unsupported_value"), json!("stream")),
        (with("n", json!(2)), 400, Value::Null, json!("n")),
        (with("response_format", json!({"type": "xml"})), 400, Value::Null, json!("response_format")),
        (
            with("response_format", json!({"type": "json_schema", "json_schema": {"name": "x"}})),
            400,
            Value::Null,
            json!("response_format.json_schema"),
        ),
        (json!("text"), 400, Value::Null, json!("model")),
    ] {
        let answer = ask(&play, "POST", COMPLETIONS, &body).await;
        let error = answer.json();
        assert_eq!(
            (answer.status, &error["error"]["code"], &error["error"]["param"]),
            (status, &code, &param),
            "{body}"
        );
        assert_eq!(error["error"]["type"], "invalid_request_error", "{body}");
        assert!(error["error"]["message"].is_string(), "{body}");
    }
    assert_eq!(ask(&play, "GET", COMPLETIONS, &Value::Null).await.status, 404);
    for authorization in ["Bearer other-key-1", "Basic x", ""] {
        let headers = [("authorization", authorization)];
        let answer =
            client::send(play.sandbox.base_url(), "GET", "/v1/models", &headers, b"").await.expect("a reply");
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("invalid_api_key")));
        // The key that was tried is not echoed.
        assert!(!String::from_utf8_lossy(&answer.body).contains("other-key-1"));
    }
}

#[tokio::test]
async fn content_keeps_to_the_requested_format() {
    let play = Play::with(|config| {
        config.model.answer = Arc::new(|prompt| match prompt {
            "object" => {
                let object = json!({"assignment_group": "Printers", "confidence": 7, "extra": true});
                ModelAnswer::Object(object.as_object().expect("an object").clone())
            }
            text => ModelAnswer::Text(format!("you said {text}")),
        });
    })
    .await;
    // Outside the list and the range, the decoder is forced back into the schema.
    let forced = ask(&play, "POST", COMPLETIONS, &with_schema("object")).await;
    assert_eq!(content(&forced), json!({"assignment_group": "Access", "confidence": 1.0}));
    let made_up = ask(&play, "POST", COMPLETIONS, &with_schema("hello")).await;
    assert_eq!(content(&made_up), json!({"assignment_group": "Access", "confidence": 0.0}));
    let mut body = question("hello");
    body["response_format"] = json!({"type": "json_object"});
    assert_eq!(content(&ask(&play, "POST", COMPLETIONS, &body).await), json!({"text": "you said hello"}));
    // Parts of text are joined, and only the last user message is the prompt.
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    let body = json!({"model": "stand-in", "messages": [{"role": "user", "content": "first"}, {"role": "user", "content": parts}]});
    let plain = ask(&play, "POST", COMPLETIONS, &body).await.json();
    assert_eq!(plain["choices"][0]["message"]["content"], "you said a\nb");
}

#[tokio::test]
async fn the_token_limit_cuts_in_the_middle() {
    let play = Play::start().await;
    let mut body = question("the printer in the hall is on fire again");
    body["max_completion_tokens"] = json!(3);
    let reply = ask(&play, "POST", COMPLETIONS, &body).await.json();
    assert_eq!(
        (&reply["choices"][0]["finish_reason"], &reply["usage"]["completion_tokens"]),
        (&json!("length"), &json!(3))
    );
    let text = reply["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
}

#[tokio::test]
async fn the_models_faults() {
    for fault in [
        Fault::WrongModel,
        Fault::SchemaViolation,
        Fault::UnknownGroup,
        Fault::RateLimited { retry_after_s: 2 },
    ] {
        let play = Play::start().await;
        play.sandbox.fault_add(FaultRule::new(Service::Model, fault.clone()).once()).expect("a rule");
        let bent = ask(&play, "POST", COMPLETIONS, &with_schema("vpn access")).await;
        match fault {
            Fault::WrongModel => {
                assert_eq!(bent.json()["model"], "stand-in-2025-01-01");
                assert_eq!(content(&bent)["assignment_group"], "Access");
            }
            Fault::SchemaViolation => {
                let content = content(&bent);
                assert!(!content["assignment_group"].is_string() && content.get("confidence").is_none());
                assert_eq!(content["not_in_the_schema"], true);
            }
            Fault::UnknownGroup => {
                assert_eq!(content(&bent), json!({"assignment_group": UNKNOWN_GROUP, "confidence": 0.8}));
            }
            _ => {
                assert_eq!((bent.status, bent.header("retry-after")), (429, Some("2")));
                assert_eq!(bent.json()["error"]["code"], "rate_limit_exceeded");
            }
        }
        let straight = ask(&play, "POST", COMPLETIONS, &with_schema("vpn access")).await;
        assert_eq!(straight.json()["model"], "stand-in-2026-11-01");
        assert_eq!(content(&straight), json!({"assignment_group": "Access", "confidence": 0.8}));
    }
}
