//! Bytes from outside that are not what they should be: nothing panics, nothing leaks.

use egress::sse::Event;
use models::{
    contract::Usage,
    dialect::Dialect,
    hygiene,
    openai::{self, Class, REPLY_BYTES_MAX},
    stream::Assembly,
};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn a_reply_beyond_the_bound_is_not_parsed() {
    let body = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "y".repeat(REPLY_BYTES_MAX));
    let error = openai::reply(200, &[], body.as_bytes()).unwrap_err();
    assert_eq!((error.class, error.code), (Class::Malformed, "model.provider_oversized"));
    assert_eq!(error.usage, Usage::Unknown, "somebody may have to pay for it");
    assert_eq!(openai::reply(401, &[], body.as_bytes()).unwrap_err().class, Class::Auth);
}

fn dialects() -> [Dialect; 3] {
    [Dialect::OpenAi, Dialect::AzureOpenAi { api_version: None }, Dialect::Anthropic]
}

#[test]
fn an_error_never_carries_what_the_provider_wrote() {
    let canary = "sk-canary-19af0c77d2";
    for error in [
        json!({"error": {"message": canary, "type": canary, "code": canary, "param": canary}}),
        json!({"error": canary}),
        json!({"type": "error", "error": {"type": canary, "message": canary, "details": {"error_code": canary}}}),
        json!({"model": canary, "content": [{"type": "text", "text": canary}], "stop_reason": canary}),
        json!({"error": {"code": [canary], "type": {canary: 1}}}),
        json!({"model": canary, "choices": [{"message": {"content": canary, "refusal": canary}}]}),
        json!(canary),
    ] {
        for status in [200, 302, 400, 401, 404, 429, 500] {
            let headers = [("Retry-After".to_owned(), canary.to_owned())];
            for dialect in dialects() {
                let error = dialect.reply(status, &headers, error.to_string().as_bytes()).unwrap_err();
                let written = format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap());
                assert!(!written.contains("canary"), "{dialect:?} {status}: {written}");
            }
        }
    }
}

#[test]
fn waits_are_read_and_bounded() {
    let wait = |headers: &[(&str, &str)]| {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        openai::reply(429, &headers, b"").unwrap_err().class
    };
    for (headers, ms) in [
        (&[("Retry-After", "7")][..], Some(7_000)),
        (&[("retry-after", "0.25")], Some(250)),
        (&[("retry-after", "7"), ("Retry-After-Ms", "1500")], Some(1_500)),
        (&[("retry-after-ms", "soon"), ("retry-after", "2")], Some(2_000)),
        (&[("retry-after", "1e300")], Some(openai::RETRY_AFTER_MS_MAX)),
        (&[("retry-after", "-5")], None),
        (&[("retry-after", "NaN")], None),
        (&[("retry-after", "inf")], None),
        (&[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")], None),
        (&[], None),
    ] {
        assert_eq!(wait(headers), Class::Retryable { retry_after_ms: ms }, "{headers:?}");
    }
    assert_eq!(wait(&[("x-should-retry", "false"), ("retry-after", "1")]), Class::Misconfigured);
}

/// Pieces of streams of both kinds.
const EVENTS: [&str; 16] = [
    r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":INDEX,"content_block":{"type":"tool_use","name":"answer","input":{}}}"#,
    r#"{"type":"content_block_delta","index":INDEX,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
    r#"{"type":"content_block_delta","index":INDEX,"delta":{"type":"input_json_delta"}}"#,
    r#"{"type":"content_block_stop","index":INDEX}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":INDEX}}"#,
    r#"{"type":"message_stop"}"#,
    r#"{"type":"error"}"#,
    r#"{"type":7}"#,
    r#"{"model":"m","choices":[{"index":0,"delta":{"content":"{}"}}]}"#,
    r#"{"model":"m","choices":[{"index":INDEX,"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
    r#"{"model":"","choices":[{}]}"#,
    r#"{"choices":null,"usage":{"prompt_tokens":INDEX,"completion_tokens":2}}"#,
    r#"{"error":{"code":429}}"#,
    "[DONE]",
    "[",
];

proptest! {
    #[test]
    fn no_reply_panics(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        for dialect in dialects() {
            let _ = dialect.reply(status, &[], &body);
            let _ = dialect.reply(200, &[], &body);
        }
    }

    /// Whatever events come in whatever order: no panic, and no answer without an end.
    #[test]
    fn no_stream_panics(picks in prop::collection::vec((0..EVENTS.len(), any::<u8>()), 0..12)) {
        for mut assembly in [Assembly::openai(), Assembly::anthropic()] {
            let mut ended = false;
            for (pick, index) in &picks {
                let data = EVENTS[*pick].replace("INDEX", &(index % 3).to_string());
                ended |= data.contains("message_stop") || data == "[DONE]";
                assembly.push(&Event { data, ..Event::default() });
            }
            let result = assembly.finish(&[], String::new());
            prop_assert!(ended || result.is_err());
        }
    }

    #[test]
    fn no_content_panics(content in any::<String>(), reason in any::<String>(), tokens in any::<(u64, u64, u64)>()) {
        let body = json!({
            "model": "m",
            "choices": [{"message": {"content": content}, "finish_reason": reason}],
            "usage": {"prompt_tokens": tokens.0, "completion_tokens": tokens.1,
                "prompt_tokens_details": {"cached_tokens": tokens.2}},
        });
        let _ = openai::reply(200, &[], body.to_string().as_bytes());
    }

    #[test]
    fn hygiene_is_idempotent(text in r"(\PC|[\[\]()<!/:.@\\ \u{202e}\u{200b}]|https?://|www\.|[a-z]{1,3}){0,40}") {
        let once = hygiene::line(&text);
        let twice = hygiene::line(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!((twice.hidden, twice.links), (0, 0));
        prop_assert!(!once.text.contains("](") && !once.text.contains("://"));
    }
}
