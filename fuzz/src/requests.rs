//! What comes in over HTTP before anybody is known: headers, queries, bodies, signed deliveries and callbacks.

use crate::{Taken, Target, of_kind};
use act::{Param, page, trace};
use custody::credential::CredentialRef;
use flows::hook::{self, HookError};
use http::{HeaderMap, HeaderName, HeaderValue};
use kernel::{Id, TenantId};
use notify::feed;
use notify::slack::click;
use notify::slack::connection::Connection;
use notify::slack::signature::{self, Signed};
use serde_json::{Value, json};
use server::http::{etag, identify, input, strict_json};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const NOW_MS: i64 = 1_760_000_000_000;
/// Where the lines of headers end and the body begins.
const BLANK: &[u8] = b"\n\n";

pub(crate) const CURSOR: Target = Target {
    name: "cursor",
    run: cursor,
    seeds: || {
        let key = page::encode(b"k\0\xff", &Id::parse("run_0192f6c1").expect("an id"));
        [
            key.as_str(),
            "18446744073709551615",
            "17",
            "run_0192f6c1",
            "ten_a",
            "secret:a.b-c",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7/req_a",
            "trc_4bf92f3577b34da6a3ce929d0e0e4736",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    },
    words: &[
        ".",
        "_",
        "-",
        "/",
        "+1",
        "00",
        "6b",
        "6B",
        "+f",
        "run_",
        "secret:",
        "é",
        "%",
        "18446744073709551615",
    ],
    runs: 100_000,
};

pub(crate) const REQUEST: Target = Target {
    name: "request",
    run: request,
    seeds: request_seeds,
    words: &[
        "\"1-0123456789abcdef\"",
        "W/",
        "*",
        ", ",
        "\"",
        "Bearer ",
        "key_a.",
        "after=",
        "&",
        "%41",
        "%zz",
        "+",
        "{\"a\":1}",
        "\\u0000",
        "\\ud800",
        "[[[[",
        "1e400",
        "-0",
        "\n\n",
        "if-match: ",
        "if-none-match: ",
        "authorization: ",
        "idempotency-key: ",
    ],
    runs: 60_000,
};

pub(crate) const WEBHOOK: Target = Target {
    name: "webhook",
    run: webhook,
    seeds: webhook_seeds,
    words: &[
        "webhook-id: ",
        "webhook-timestamp: ",
        "webhook-signature: ",
        "v1,",
        "v1a,",
        " ",
        ".",
        "\n",
        "1760000000",
        "+1760000000",
        "-1",
        "999999999999",
        "whsec_",
        "=",
    ],
    runs: 60_000,
};

pub(crate) const SLACK: Target = Target {
    name: "slack",
    run: slack,
    seeds: slack_seeds,
    words: &[
        "X-Slack-Request-Timestamp: ",
        "X-Slack-Signature: ",
        "v0=",
        "payload=",
        "&",
        "%7B",
        "block_actions",
        "\"actions\":[]",
        "\"value\":\"crd_a\"",
        "\"team_id\":",
        "null",
        "\n\n",
        "+",
        "1760000000",
    ],
    runs: 60_000,
};

/// Cursors of lists and of the feed, traces, ids and references: each has one spelling.
fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for prefix in [&b""[..], b"k"] {
        if let Some((key, id)) = page::decode(text, prefix) {
            assert!(key.starts_with(prefix));
            assert_eq!(page::encode(&key, &id), text, "a cursor has one spelling");
        }
    }
    for size in [0, 1, 18, u64::MAX] {
        if let Ok(next) = feed::begin(Some(text), size) {
            assert!(next <= size, "{text:?} leads to {next} of {size}");
        }
    }
    if let Ok(id) = Id::parse(text) {
        assert!(id.as_str() == text && Id::valid(text));
        assert_eq!(format!("{}_{}", id.prefix(), &text[id.prefix().len() + 1..]), text);
    }
    if let Ok(tenant) = TenantId::parse(text) {
        assert_eq!(tenant.as_str(), text);
    }
    if let Ok(reference) = CredentialRef::parse(text) {
        assert_eq!(reference.to_string(), text);
    }
    let read = trace::Trace::of(text);
    assert_eq!(trace::Trace::of(&read.text()), read, "a trace is written as it is read");
    if let Some((trace, span)) = trace::traceparent(text) {
        let header = trace::Trace { trace_id: trace, span_id: Some(span), request_id: None }.traceparent();
        assert_eq!(trace::traceparent(&header), Some((trace, span)));
    }
}

/// Lines of `name: value`, and the body behind the first empty one.
fn split(data: &[u8]) -> (Vec<(String, String)>, &[u8]) {
    let at = data.windows(BLANK.len()).position(|two| two == BLANK);
    let (head, body) = at.map_or((data, &[][..]), |at| (&data[..at], &data[at + BLANK.len()..]));
    let head = String::from_utf8_lossy(head);
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    (lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), body)
}

/// 0: headers and a body; 1: a query.
fn request(data: &[u8]) {
    const DECLARED: [Param; 3] = [page::AFTER, page::LIMIT, Param { name: "kind", summary: "" }];
    let mut taken = Taken::of(data);
    if !taken.byte().is_multiple_of(2) {
        let Some(text) = taken.text() else { return };
        if let Ok(params) = input::query(Some(text), &DECLARED) {
            let pair = |(name, value): (&String, &String)| {
                let value: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
                format!("{name}={value}")
            };
            let printed = params.iter().map(pair).collect::<Vec<_>>().join("&");
            assert_eq!(input::query(Some(&printed), &DECLARED).ok(), Some(params), "{printed}");
        }
        return;
    }
    let (lines, body) = split(taken.rest());
    let mut headers = HeaderMap::new();
    for (name, value) in &lines {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    if let Ok(Some(tags)) = etag::if_match(&headers, true) {
        let revs = tags.revs().unwrap_or_default();
        assert!(revs.len() <= etag::TAGS_MAX);
        let etag::Tags::These(tags) = tags else { return };
        let named = |rev: &u64| tags.iter().any(|(weak, tag)| !weak && tag.starts_with(&format!("\"{rev}-")));
        assert!(revs.iter().all(named), "{revs:?} of {tags:?}");
    }
    if let Ok(Some(tags)) = etag::if_none_match(&headers) {
        let _ = tags.has("\"1-0123456789abcdef\"");
    }
    let _ = identify::Presented::read(&headers);
    let _ = identify::idempotency_key(&headers);
    if let Ok(value) = strict_json::parse(body) {
        let again = serde_json::to_vec(&value).expect("plain data");
        assert_eq!(strict_json::parse(&again).as_ref(), Ok(&value), "a body is written as it is read");
        // What two readers could understand differently is refused, so another reader understands the same.
        assert_eq!(serde_json::from_slice::<Value>(body).ok().as_ref(), Some(&value));
    }
    let params = BTreeMap::from([("after".to_owned(), "x".to_owned())]);
    if let Ok(args) = input::arguments(&headers, body, params) {
        assert_eq!(args["after"], "x", "a parameter is what the path says");
    }
}

fn request_seeds() -> Vec<Vec<u8>> {
    vec![
        of_kind(0, b"content-type: application/json\nif-match: \"3-0123456789abcdef\", W/\"4-0123456789abcdef\"\nauthorization: Bearer key_a.0123456789abcdef0123456789abcdef\nidempotency-key: a-1\n\n{\"name\":\"na\xc3\xafve\",\"n\":-3,\"list\":[1.5,null,{\"x\":\"\\ud83d\\ude00\"}]}"),
        of_kind(0, b"if-none-match: *\n\n[1,2]"),
        of_kind(1, b"after=6b.run_a&limit=50&kind=flows.%2A+x"),
    ]
}

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const KEY: &[u8] = b"01234567890123456789012345678901";

/// 0: headers as they come; 1: what our own sender signs, taken by our own receiver, and nothing near it.
fn webhook(data: &[u8]) {
    let mut taken = Taken::of(data);
    if taken.byte().is_multiple_of(2) {
        let (lines, body) = split(taken.rest());
        if let Ok(signed) = hook::headers(&lines) {
            assert!(signed.id.len() <= 100 && !signed.id.contains('.'));
            let _ = hook::verify(SECRET, &signed, body, NOW_MS);
            let _ = hook::verify(signed.signatures, &signed, body, NOW_MS);
        }
        return;
    }
    let (skew_s, turn) = (i64::from(taken.byte()) * 4 - 510, taken.below(usize::MAX));
    let at_s = NOW_MS / 1000 + skew_s;
    let id = format!("msg_{}", taken.byte());
    let body = taken.rest();
    let signatures = notify::webhook::signature::signatures(&[Zeroizing::new(KEY.to_vec())], &id, at_s, body);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let lines = vec![
        header("Webhook-Id", &id),
        header("webhook-timestamp", &at_s.to_string()),
        header("WEBHOOK-SIGNATURE", &signatures),
    ];
    let signed = hook::headers(&lines).expect("headers of our own");
    let said = hook::verify(SECRET, &signed, body, NOW_MS);
    assert_eq!(said.is_ok(), skew_s.abs() * 1000 <= hook::SKEW_MS, "{said:?}");
    let mut other = body.to_vec();
    match other.len() {
        0 => other.push(0),
        len => other[turn % len] ^= 1,
    }
    let said = hook::verify(SECRET, &signed, &other, NOW_MS);
    assert!(matches!(said, Err(HookError::Signature)), "another body: {said:?}");
    let renamed = hook::Signed { id: "msg_other", ..signed };
    assert!(hook::verify(SECRET, &renamed, body, NOW_MS).is_err(), "another id");
}

fn webhook_seeds() -> Vec<Vec<u8>> {
    let body = br#"{"event":"created","number":"INC1","n":1.5}"#;
    let at_s = NOW_MS / 1000;
    let signature =
        notify::webhook::signature::signatures(&[Zeroizing::new(KEY.to_vec())], "msg_1", at_s, body);
    let head =
        format!("webhook-id: msg_1\nwebhook-timestamp: {at_s}\nwebhook-signature: v1,AAAA {signature}\n\n");
    vec![
        of_kind(0, &[head.as_bytes(), body].concat()),
        of_kind(1, &[&[128, 0, 7, 1][..], body].concat()),
        of_kind(1, &[255, 0, 0, 0]),
    ]
}

const SLACK_SECRET: &[u8] = b"8f742231b10e8888abcd99yyyzzz85a5";

fn connection() -> Connection {
    let id = |text| Id::parse(text).expect("an id of this file");
    Connection {
        id: id("slk_main"),
        team: "T0WRIT".into(),
        app: "A0WRIT".into(),
        bot_token: CredentialRef::parse("secret:slack.token").expect("a reference"),
        signing_secret: CredentialRef::parse("secret:slack.signing").expect("a reference"),
        base_url: "https://slack.example/api".into(),
        channels: BTreeMap::new(),
        link_base: None,
        hook: id("hok_a"),
        connected_at_ms: 0,
        disconnected_at_ms: None,
    }
}

/// Headers and body of a callback: as they come, and signed as Slack signs.
fn slack(data: &[u8]) {
    let (lines, body) = split(data);
    if let Ok(signed) = Signed::read(&lines) {
        let _ = signed.verify(SLACK_SECRET, body, NOW_MS);
    }
    let stamp = (NOW_MS / 1000).to_string();
    let signature = signature::sign(SLACK_SECRET, &stamp, body).expect("a secret of its length");
    let signed = Signed { timestamp: &stamp, signature: &signature };
    assert_eq!(
        signed.verify(SLACK_SECRET, body, NOW_MS).ok(),
        Some(()),
        "what is signed as Slack does is refused"
    );
    assert!(signed.verify(SLACK_SECRET, &[body, b"x"].concat(), NOW_MS).is_err(), "another body");
    let Some(payload) = click::payload(body) else { return };
    if let Ok(args) = click::click(&payload, &connection()) {
        assert!(args.team == "T0WRIT" && Id::valid(&args.card), "{args:?}");
        let again = click::click(&payload, &connection()).ok();
        assert_eq!(again, Some(args));
    }
}

fn slack_seeds() -> Vec<Vec<u8>> {
    let payload = json!({
        "type": "block_actions", "team": {"id": "T0WRIT"}, "api_app_id": "A0WRIT",
        "user": {"id": "U0ANN", "team_id": "T0WRIT"},
        "actions": [{"action_id": "approval_grant", "value": "crd_a"}],
        "container": {"channel_id": "C0A", "message_ts": "1.000001"},
    });
    let escaped: String = payload.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = format!("payload={escaped}");
    let stamp = (NOW_MS / 1000).to_string();
    let signature = signature::sign(SLACK_SECRET, &stamp, body.as_bytes()).expect("a secret of its length");
    let head = format!("X-Slack-Request-Timestamp: {stamp}\nX-Slack-Signature: {signature}\n\n");
    let plain = format!("{head}payload={payload}");
    vec![format!("{head}{body}").into_bytes(), plain.into_bytes(), b"a: b\n\npayload=%7B%7D&x=1".to_vec()]
}
