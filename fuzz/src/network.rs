//! What goes out and what comes back: URLs and addresses, and the answers of models.

use crate::{Taken, Target, of_kind};
use egress::sse::Decoder;
use egress::{Allowlist, Host, IpClass, classify_ip};
use models::dialect::Dialect;
use std::net::IpAddr;

pub(crate) const URL: Target = Target {
    name: "url",
    run: url,
    seeds: url_seeds,
    words: &[
        "https://",
        "http://",
        "//",
        "[::1]",
        "[::ffff:7f00:1]",
        "127.1",
        "0x7f.0.0.1",
        "2130706433",
        "%2e%2e",
        "/../",
        "@",
        ":443",
        ":0",
        "*.",
        "?",
        "#",
        "\\",
        "xn--",
        "。",
        "a.example",
        "169.254.169.254",
        "%00",
        "64:ff9b::7f00:1",
        ".",
    ],
    runs: 200_000,
};

pub(crate) const MODEL: Target = Target {
    name: "model",
    run: model,
    seeds: model_seeds,
    words: &[
        "data: ",
        "event: ",
        "\n\n",
        "\r\n",
        "[DONE]",
        "message_start",
        "content_block_delta",
        "\"usage\":",
        "\"choices\":[]",
        "\"content\":null",
        "-1",
        "18446744073709551615",
        "\"finish_reason\":\"length\"",
        "\u{feff}",
        ":",
        "retry: ",
        "id: \0",
    ],
    runs: 40_000,
};

/// 0: an address of four bytes; 1: one of sixteen; 2: a text as an address; else: a text as URL and as rule.
fn url(data: &[u8]) {
    let mut taken = Taken::of(data);
    match taken.byte() {
        0 => address(IpAddr::from(std::array::from_fn::<u8, 4, _>(|_| taken.byte()))),
        1 => address(IpAddr::from(std::array::from_fn::<u8, 16, _>(|_| taken.byte()))),
        2 => {
            if let Some(ip) = taken.text().and_then(|text| text.parse().ok()) {
                address(ip);
            }
        }
        _ => {
            if let Some(text) = taken.text() {
                location(text);
            }
        }
    }
}

/// Public is only what the standard library, too, knows nothing particular about.
fn address(ip: IpAddr) {
    let class = classify_ip(ip);
    let particular = match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.to_ipv4().is_some()
        }
    };
    assert!(!(particular && class == IpClass::Public), "{ip} is public");
    assert_eq!(classify_ip(ip.to_string().parse().expect("an address as it is printed")), class);
}

fn location(text: &str) {
    if let Ok(target) = egress::Target::parse(text) {
        let printed = format!("{}{}", target.origin(), target.path());
        let again = egress::Target::parse(&printed).expect("a URL that was read, printed");
        assert!(again.same_origin(&target), "{printed} is another place");
        assert_eq!(again.path(), target.path(), "{printed}");
        assert_eq!((again.origin(), again.authority()), (target.origin(), target.authority()));
        let host = target.host().to_string();
        assert!(
            !host.contains(['@', '/', '?', '#', '%', ' ', '\\']) && host == host.to_ascii_lowercase(),
            "{host}"
        );
        match target.host() {
            Host::Ip(ip) => address(*ip),
            Host::Name(name) => {
                // A resolver that sees an address in a name would go where no rule was asked about.
                assert!(name.parse::<IpAddr>().is_err(), "{name} is an address");
            }
        }
        assert!(
            Allowlist::parse([target.origin().as_str()]).is_ok(),
            "the origin {} is no rule",
            target.origin()
        );
    }
    let _ = Allowlist::parse(text.split('\n'));
}

fn url_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        of_kind(0, &[127, 0, 0, 1]),
        of_kind(0, &[8, 8, 8, 8]),
        of_kind(1, &[0x20, 1, 0x48, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        of_kind(2, b"64:ff9b::7f00:1"),
    ];
    for text in [
        "https://api.example.com/v1/x?y=1&z=%20a",
        "http://127.0.0.1:8080/",
        "https://[2001:4860::1]:8443/a/b",
        "https://a.example",
        "https://*.example.com:444",
        "https://a-b.example./p;q=1?//",
    ] {
        seeds.push(of_kind(3, text.as_bytes()));
    }
    seeds
}

const DIALECTS: [Dialect; 2] = [Dialect::OpenAi, Dialect::Anthropic];

/// The reply of a provider: whole, and as a stream in two ways of cutting it.
fn model(data: &[u8]) {
    let mut taken = Taken::of(data);
    let dialect = &DIALECTS[usize::from(taken.byte() % 2)];
    let (status, cut) = (200 + 100 * u16::from(taken.byte() % 4), 1 + taken.below(64));
    let body = taken.rest();
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let _ = dialect.reply(status, &headers, body);

    let mut whole = Decoder::new();
    let mut pieces = Decoder::new();
    let at_once = whole.push(body);
    let mut one_by_one = Ok(Vec::new());
    for piece in body.chunks(cut) {
        match (pieces.push(piece), &mut one_by_one) {
            (Ok(more), Ok(events)) => events.extend(more),
            (Err(error), _) => one_by_one = Err(error),
            (Ok(_), Err(_)) => panic!("a failed stream goes on"),
        }
    }
    // Events before a failure are told only where they came in a piece of their own.
    assert_eq!(at_once.is_err(), one_by_one.is_err());
    if let (Ok(at_once), Ok(one_by_one)) = (at_once, one_by_one) {
        assert_eq!(at_once, one_by_one, "what is read depends on how it was cut");
        assert_eq!(whole.last_id(), pieces.last_id());
        let mut assembly = dialect.assembly();
        for event in &at_once {
            assembly.push(event);
        }
        let over = assembly.is_over();
        let answer = assembly.finish(&headers, "0".repeat(64));
        assert!(over || answer.is_err(), "a stream that did not end is an answer");
    }
}

fn model_seeds() -> Vec<Vec<u8>> {
    const COMPLETION: &str = r#"{"id":"c","model":"m-1","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"{\"a\":1}"}}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;
    const MESSAGE: &str = r#"{"id":"m","type":"message","role":"assistant","model":"m-1","stop_reason":"tool_use","content":[{"type":"tool_use","id":"t","name":"answer","input":{"a":1}}],"usage":{"input_tokens":3,"output_tokens":4}}"#;
    const FAILED: &str = r#"{"error":{"type":"overloaded_error","code":"x","message":"later"}}"#;
    const CHUNKS: &str = "data: {\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"{\\\"a\\\"\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\":1}\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";
    const EVENTS: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m-1\",\"usage\":{\"input_tokens\":3}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"name\":\"answer\",\"input\":{}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":4}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let seed = |dialect: u8, status: u8, body: &str| [&[dialect, status, 0, 7], body.as_bytes()].concat();
    vec![
        seed(0, 0, COMPLETION),
        seed(1, 0, MESSAGE),
        seed(0, 3, FAILED),
        seed(1, 3, FAILED),
        seed(0, 0, CHUNKS),
        seed(1, 0, EVENTS),
    ]
}
