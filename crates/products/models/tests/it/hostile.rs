//! Bytes from outside that are not what they should be: nothing panics, nothing leaks.

use models::{
    contract::Usage,
    hygiene,
    openai::{self, Class, REPLY_BYTES_MAX},
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

#[test]
fn an_error_never_carries_what_the_provider_wrote() {
    let canary = "sk-canary-19af0c77d2";
    for error in [
        json!({"error": {"message": canary, "type": canary, "code": canary, "param": canary}}),
        json!({"error": canary}),
        json!({"error": {"code": [canary], "type": {canary: 1}}}),
        json!({"model": canary, "choices": [{"message": {"content": canary, "refusal": canary}}]}),
        json!(canary),
    ] {
        for status in [200, 302, 400, 401, 404, 429, 500] {
            let headers = [("Retry-After".to_owned(), canary.to_owned())];
            let error = openai::reply(status, &headers, error.to_string().as_bytes()).unwrap_err();
            let written = format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap());
            assert!(!written.contains("canary"), "{status}: {written}");
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

proptest! {
    #[test]
    fn no_reply_panics(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = openai::reply(status, &[], &body);
        let _ = openai::reply(200, &[], &body);
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
