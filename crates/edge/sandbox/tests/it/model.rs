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
        (with("stream", json!("yes")), 400, Value::Null, json!("stream")),
        (with("stream_options", json!({"include_usage": true})), 400, Value::Null, json!("stream_options")),
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

/// The data of a stream's events, `[DONE]` as a string.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let text = std::str::from_utf8(&answer.body).expect("text");
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect()
}

async fn ask_as(play: &Play, headers: &[(&str, &str)], target: &str, body: &Value) -> Answer {
    client::send(play.sandbox.base_url(), "POST", target, headers, body.to_string().as_bytes())
        .await
        .expect("a reply")
}

const AZURE: &str = "/openai/deployments/stand-in/chat/completions?api-version=2024-10-21";
const AZURE_KEY: [(&str, &str); 1] = [("api-key", "model-key")];
const ANTHROPIC: &str = "/v1/messages";
const ANTHROPIC_KEY: [(&str, &str); 2] = [("x-api-key", "model-key"), ("anthropic-version", "2023-06-01")];

fn message(text: &str) -> Value {
    let schema = with_schema("")["response_format"]["json_schema"]["schema"].take();
    json!({
        "model": "stand-in", "max_tokens": 100, "system": "Classify the ticket.",
        "messages": [{"role": "user", "content": text}],
        "tools": [{"name": "answer", "input_schema": schema}],
        "tool_choice": {"type": "tool", "name": "answer"},
    })
}

/// The same question in three shapes: the same answer, and the work is counted once for each.
#[tokio::test]
async fn three_shapes_of_one_answer() {
    let play = Play::start().await;
    let text = "my laptop screen is broken";
    let expected = json!({"assignment_group": "Hardware", "confidence": 0.8});
    assert_eq!(content(&ask(&play, "POST", COMPLETIONS, &with_schema(text)).await), expected);
    let azure = ask_as(&play, &AZURE_KEY, AZURE, &with_schema(text)).await;
    assert_eq!(content(&azure), expected);
    assert_eq!(azure.json()["model"], "stand-in-2026-11-01", "the deployment's name is not the model's");
    assert!(azure.json()["prompt_filter_results"].is_array());
    let anthropic = ask_as(&play, &ANTHROPIC_KEY, ANTHROPIC, &message(text)).await.json();
    assert_eq!(
        (&anthropic["content"][0]["input"], &anthropic["stop_reason"]),
        (&expected, &json!("tool_use"))
    );
    assert_eq!([&anthropic["usage"]["input_tokens"], &anthropic["usage"]["output_tokens"]], [8, 1]);
    let work = play.sandbox.model_work();
    assert_eq!((work.answers, work.input_tokens, work.output_tokens), (3, 24, 3));
    assert_eq!(play.sandbox.requests().model, 3);
    let versionless = ask_as(&play, &AZURE_KEY, "/openai/v1/chat/completions", &with_schema(text)).await;
    assert_eq!(content(&versionless), expected);
}

/// A stream holds what the whole reply holds, in the order of its vendor.
#[tokio::test]
async fn streams_are_the_same_in_pieces() {
    let play = Play::start().await;
    let expected = json!({"assignment_group": "Access", "confidence": 0.8});
    let mut body = with_schema("vpn access");
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    for (headers, target) in [(&[("authorization", MODEL_KEY)][..], COMPLETIONS), (&AZURE_KEY[..], AZURE)] {
        let chunks = events(&ask_as(&play, headers, target, &body).await);
        let text: String =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "{target}");
        let [.., finish, usage, done] = chunks.as_slice() else { panic!("{chunks:?}") };
        assert_eq!((&finish["choices"][0]["finish_reason"], done), (&json!("stop"), &json!("[DONE]")));
        assert_eq!(
            (usage["choices"].as_array().unwrap().len(), &usage["usage"]["total_tokens"]),
            (0, &json!(6))
        );
        assert_eq!(chunks[0]["prompt_filter_results"].is_array(), target == AZURE);
        assert!(chunks.len() > 5, "in more than one piece");
    }
    let mut body = message("vpn access");
    body["stream"] = json!(true);
    let found = events(&ask_as(&play, &ANTHROPIC_KEY, ANTHROPIC, &body).await);
    let kinds: Vec<&str> = found.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["message_start", "ping", "content_block_start"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let text: String = found.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    let usage = |at: usize, path: &str| found[at].pointer(path).cloned().unwrap();
    assert_eq!(usage(0, "/message/usage/input_tokens"), 5);
    assert_eq!(usage(found.len() - 2, "/usage/output_tokens"), 1);
}

#[tokio::test]
async fn each_shape_refuses_in_its_own_words() {
    let play = Play::start().await;
    let question = with_schema("x");
    let without = |name: &str| {
        let mut body = message("x");
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let developer =
        json!({"model": "stand-in", "max_tokens": 1, "messages": [{"role": "developer", "content": "x"}]});
    let mut sampled = message("x");
    sampled["temperature"] = json!(1.0);
    let newer = [ANTHROPIC_KEY[0], ("anthropic-version", "2026-10-21")];
    let other = "/openai/deployments/other/chat/completions?api-version=2024-10-21";
    let unversioned = "/openai/deployments/stand-in/chat/completions";
    let key = [("x-api-key", "model-key")];
    let wrong = [("x-api-key", "other"), ANTHROPIC_KEY[1]];
    let bearer = [("authorization", MODEL_KEY)];
    for (headers, target, body, status, path, wanted) in [
        (&[("api-key", "other")][..], AZURE, &question, 401, "/error/code", "401"),
        (&AZURE_KEY, other, &question, 404, "/error/code", "DeploymentNotFound"),
        (&AZURE_KEY, unversioned, &question, 404, "/error/code", "404"),
        (&bearer, AZURE, &json!({"messages": []}), 400, "/error/param", "messages"),
        (&wrong, ANTHROPIC, &message("x"), 401, "/error/type", "authentication_error"),
        (&key, ANTHROPIC, &message("x"), 400, "/error/type", "invalid_request_error"),
        (&ANTHROPIC_KEY, ANTHROPIC, &without("max_tokens"), 400, "/type", "error"),
        (&ANTHROPIC_KEY, ANTHROPIC, &without("messages"), 400, "/error/type", "invalid_request_error"),
        (&ANTHROPIC_KEY, ANTHROPIC, &without("tools"), 400, "/error/type", "invalid_request_error"),
        (&newer, ANTHROPIC, &sampled, 400, "/error/message", "temperature: Extra inputs are not permitted"),
        (&ANTHROPIC_KEY, ANTHROPIC, &developer, 400, "/error/type", "invalid_request_error"),
        (&ANTHROPIC_KEY, "/v1/messages/batches", &message("x"), 404, "/error/type", "not_found_error"),
    ] {
        let answer = ask_as(&play, headers, target, body).await;
        let found = answer.json();
        assert_eq!((answer.status, found.pointer(path)), (status, Some(&json!(wanted))), "{target} {found}");
    }
    assert_eq!(play.sandbox.model_work().answers, 0, "nothing was answered");
}

/// Faults of hosted models: status, the shape of the error, and whether the model had worked for it.
#[tokio::test]
async fn faults_keep_to_the_shape_and_count_the_work() {
    let (openai, azure, anthropic) = (COMPLETIONS, AZURE, ANTHROPIC);
    for (target, fault, status, path, wanted, answers) in [
        (openai, Fault::ExpiredToken, 401, "/error/code", "token_expired", 0),
        (azure, Fault::ExpiredToken, 401, "/error/code", "401", 0),
        (anthropic, Fault::ExpiredToken, 401, "/error/type", "authentication_error", 0),
        (openai, Fault::Overloaded, 503, "/error/type", "server_error", 0),
        (azure, Fault::Overloaded, 503, "/error/code", "NoCapacity", 0),
        (anthropic, Fault::Overloaded, 529, "/error/type", "overloaded_error", 0),
        (openai, Fault::ContextExceeded, 400, "/error/code", "context_length_exceeded", 0),
        (anthropic, Fault::ContextExceeded, 400, "/error/type", "invalid_request_error", 0),
        (openai, Fault::ContentFiltered, 200, "/choices/0/finish_reason", "content_filter", 1),
        (azure, Fault::ContentFiltered, 400, "/error/innererror/code", "ResponsibleAIPolicyViolation", 0),
        (anthropic, Fault::ContentFiltered, 200, "/stop_reason", "refusal", 1),
        (azure, Fault::RateLimited { retry_after_s: 3 }, 429, "/error/code", "rate_limit_exceeded", 0),
        (anthropic, Fault::RateLimited { retry_after_s: 3 }, 429, "/error/type", "rate_limit_error", 0),
        (anthropic, Fault::ServerErrorAfterEffect { status: 504 }, 504, "/error/type", "timeout_error", 1),
    ] {
        let play = Play::start().await;
        play.sandbox.fault_add(FaultRule::new(Service::Model, fault.clone()).once()).expect("a rule");
        let answer = three(&play, target, false).await.expect("a reply");
        let found = answer.json();
        assert_eq!(
            (answer.status, found.pointer(path)),
            (status, Some(&json!(wanted))),
            "{target} {fault:?}"
        );
        assert_eq!(play.sandbox.model_work().answers, answers, "{target} {fault:?}");
        if status == 429 {
            assert_eq!(answer.header("retry-after"), Some("3"));
        }
        assert_eq!(three(&play, target, false).await.expect("a reply").status, 200);
    }
}

async fn three(play: &Play, target: &str, stream: bool) -> Option<Answer> {
    let (headers, mut body) = match target {
        ANTHROPIC => (&ANTHROPIC_KEY[..], message("vpn access")),
        AZURE => (&AZURE_KEY[..], with_schema("vpn access")),
        _ => (&[("authorization", MODEL_KEY)][..], with_schema("vpn access")),
    };
    body["stream"] = json!(stream);
    client::send(play.sandbox.base_url(), "POST", target, headers, body.to_string().as_bytes()).await
}

/// Streams that end otherwise than they should. The model has worked for each of them.
#[tokio::test]
async fn streams_break_where_the_script_says() {
    for target in [COMPLETIONS, AZURE, ANTHROPIC] {
        let whole = three(&Play::start().await, target, true).await.expect("a stream");
        for fault in [
            Fault::ShortStream { events: 3 },
            Fault::StreamError { events: 2 },
            Fault::CutReply { bytes: 300 },
            Fault::SlowDrip { chunk_bytes: 400 },
        ] {
            let play = Play::start().await;
            play.sandbox.fault_add(FaultRule::new(Service::Model, fault.clone()).once()).expect("a rule");
            let answer = three(&play, target, true).await.expect("a head");
            assert_eq!((answer.status, play.sandbox.model_work().answers), (200, 1), "{target} {fault:?}");
            match fault {
                Fault::ShortStream { .. } => assert_eq!(events(&answer).len(), 3, "{target}"),
                Fault::StreamError { .. } => {
                    let found = events(&answer);
                    assert!(
                        found.len() == 3 && found[2]["error"]["message"].is_string(),
                        "{target} {found:?}"
                    );
                }
                Fault::CutReply { bytes } => assert_eq!(answer.body.len(), bytes, "{target}"),
                _ => assert_eq!(answer.body, whole.body, "{target}"),
            }
        }
    }
}

/// A stream that stops and stays open ends when the sandbox does.
#[tokio::test]
async fn a_stall_ends_with_the_sandbox() {
    let play = Play::start().await;
    play.sandbox.fault_add(FaultRule::new(Service::Model, Fault::StreamStall { events: 2 })).expect("a rule");
    let url = play.sandbox.base_url().to_owned();
    let mut clients = tokio::task::JoinSet::new();
    clients.spawn(async move {
        let mut body = message("vpn");
        body["stream"] = json!(true);
        client::send(&url, "POST", ANTHROPIC, &ANTHROPIC_KEY, body.to_string().as_bytes()).await
    });
    while play.sandbox.model_work().answers == 0 {
        tokio::task::yield_now().await;
    }
    play.sandbox.shutdown().await;
    let answer = clients.join_next().await.expect("a client").expect("no panic").expect("a head");
    assert!(events(&answer).len() <= 2);
}
