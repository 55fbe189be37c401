//! Canonical JSON, fact leaves, and what opens a commitment.

use crate::{Taken, Target, of_kind};
use kernel::fact::{self, Place};
use kernel::permit::{Authority, Decision};
use kernel::{Effect, Fact, Id, commitment, hex, json, lines, merkle, sha256};
use serde_json::{Map, Value, json};

pub(crate) const LEAF: Target = Target {
    name: "leaf",
    run: leaf,
    seeds: leaf_seeds,
    words: &[
        "null",
        "true",
        "\\u0000",
        "\\u001f",
        "\\ud83d",
        "\\n",
        "-0",
        "1.0",
        "1e1",
        "{}",
        "[]",
        "[[",
        "\"\"",
        ",\"v\":1}",
        "\"act\":",
        "\u{7f}",
        "\u{2028}",
        "9007199254740991",
    ],
    runs: 100_000,
};

/// A fact's kind is one that the program declares.
const KIND: &str = "flows.step.finished";
const EFFECTS: [Effect; 6] =
    [Effect::Allow, Effect::Route, Effect::Throttle, Effect::Hitl, Effect::StepUp, Effect::Deny];
/// Deepest value that is made here; the profile's own limit is reached by what is nested in bytes.
const DEPTH: usize = 6;

/// 0: bytes as a leaf, as JSON and as the opening of a commitment; 1: a value made of the bytes.
fn leaf(data: &[u8]) {
    let mut taken = Taken::of(data);
    if taken.byte().is_multiple_of(2) {
        let bytes = taken.rest();
        json_check(bytes);
        leaf_check(bytes);
        lines_check(bytes);
        opening_check(bytes);
    } else {
        let value = value(&mut taken, 0);
        value_check(&value);
    }
}

/// Two readers say the same: the scanner, and a parser with the writer behind it.
fn json_check(bytes: &[u8]) {
    let parsed: Result<Value, _> = serde_json::from_slice(bytes);
    let written = parsed.as_ref().ok().and_then(|value| json::canonical(value).ok());
    let one_spelling = written.as_deref() == Some(bytes);
    assert_eq!(json::check(bytes).is_ok(), one_spelling, "{:?}", String::from_utf8_lossy(bytes));
    if let Some(written) = written {
        assert_eq!(json::check(&written), Ok(()), "what is written canonically is canonical");
        let again: Value = serde_json::from_slice(&written).expect("canonical JSON is JSON");
        assert_eq!(Some(&again), parsed.as_ref().ok());
    }
}

/// What was read, written again, is the same bytes.
/// Hashed in turns, a file and its lines have the hashes that they have one by one.
fn lines_check(bytes: &[u8]) {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    lines.pop();
    let plainly = (sha256(bytes), lines.into_iter().map(merkle::leaf_hash).collect::<Vec<_>>());
    assert_eq!(lines::hash(bytes, usize::MAX), plainly);
}

fn leaf_check(bytes: &[u8]) {
    let Some(read) = fact::read(bytes) else { return };
    assert_eq!(json::check(bytes), Ok(()), "a leaf is canonical");
    if read.kind != KIND {
        return;
    }
    let id = |text: &str| Id::parse(text).expect("ids of a leaf are ids");
    let ids = |texts: &[&str]| texts.iter().map(|text| id(text)).collect::<Vec<_>>();
    let effect = |text: &str| *EFFECTS.iter().find(|effect| effect.as_str() == text).expect("an effect");
    let fact = Fact {
        id: id(read.id),
        kind: KIND,
        stream: id(read.stream),
        resource: read.resource.to_string(),
        causes: ids(&read.causes),
        outcome: serde_json::from_str(read.outcome.get()).expect("canonical JSON is JSON"),
        aside: None,
    };
    let authority = Authority {
        actor: id(read.actor),
        on_behalf_of: ids(&read.on_behalf_of),
        act: read.act.to_string(),
        decision: read
            .decision
            .map(|decision| Decision { id: id(decision.id), effect: effect(decision.effect) }),
        policy: read.policy.map(|policy| policy.to_string()),
        assurance: read.assurance.map(|assurance| assurance.to_string()),
        trace: read.trace.to_string(),
    };
    let place = Place { origin: &read.origin, stream_n: read.stream_n, at_ms: read.at_ms };
    let args = read.args_commitment.map(|text| hex::decode32(text).expect("64 digits"));
    let written = fact.leaf(place, &authority, args.as_ref());
    assert_eq!(written.as_deref(), Ok(bytes), "a leaf that is read is a leaf that can be written");
}

fn opening_check(bytes: &[u8]) {
    let Ok(disclosure) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = commitment::open(&[0; 32], &disclosure);
}

fn value_check(value: &Value) {
    let Ok(written) = json::canonical(value) else { return };
    json_check(&written);
    assert_eq!(serde_json::from_slice::<Value>(&written).ok().as_ref(), Some(value));
    let seed = [5; 32];
    let Ok(committed) = commitment::commit(&seed, value) else { return };
    for shown in [0, 1, 2] {
        let opened = commitment::disclose(&seed, value, |path| path.len() % 2 < shown).expect("committed to");
        assert_eq!(commitment::open(&committed, &opened), Ok(()), "our own opening opens");
        let mut other = opened.clone();
        if let Some(item) = other.as_array_mut().and_then(|items| items.first_mut()) {
            *item = json!({"hidden": hex::encode(&[0; 32])});
            assert_ne!(commitment::open(&committed, &other), Ok(()), "another opening opens");
        }
    }
}

fn value(taken: &mut Taken<'_>, depth: usize) -> Value {
    let text = |taken: &mut Taken<'_>| {
        let bytes: Vec<u8> = (0..taken.byte() % 8).map(|_| taken.byte()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    match taken.byte() % if depth < DEPTH { 8 } else { 6 } {
        0 => Value::Null,
        1 => Value::Bool(true),
        2 => Value::Bool(false),
        3 => Value::from(i64::from(taken.byte()) - 128),
        4 => Value::from((taken.u64() >> 10) as i64 - (1 << 53)),
        5 => Value::from(text(taken)),
        6 => (0..taken.byte() % 5).map(|_| value(taken, depth + 1)).collect(),
        _ => Value::Object(
            (0..taken.byte() % 5).map(|_| (text(taken), value(taken, depth + 1))).collect::<Map<_, _>>(),
        ),
    }
}

/// A leaf with something in every member.
pub(crate) fn example(n: u64) -> Vec<u8> {
    let id = |text: String| Id::parse(&text).expect("an id of this file");
    let fact = Fact {
        id: id(format!("fct_{n:06}")),
        kind: KIND,
        stream: id("run_a".into()),
        resource: "local/ten_a/flows.run/run_a".into(),
        causes: vec![id("fct_z".into())],
        outcome: json!({"step": n, "text": "naïve \u{1} \" \\ \u{1f600}", "list": [1, null, true, {"a": -1}]}),
        aside: None,
    };
    let authority = Authority {
        actor: id("prn_a".into()),
        on_behalf_of: vec![id("prn_b".into())],
        act: "flows.step.finish".into(),
        decision: Some(Decision { id: id("dec_a".into()), effect: Effect::Allow }),
        policy: None,
        assurance: Some("key".into()),
        trace: "trc_a".into(),
    };
    let place =
        Place { origin: "writ.test/local/ten_a/1", stream_n: n + 1, at_ms: 1_760_000_000_000 + n as i64 };
    fact.leaf(place, &authority, Some(&[3; 32])).expect("a small fact")
}

fn leaf_seeds() -> Vec<Vec<u8>> {
    let args = json!({"number": "INC1", "n": 3});
    let opened = commitment::disclose(&[5; 32], &args, |path| path == "n").expect("two fields");
    vec![
        of_kind(0, &example(0)),
        of_kind(0, br#"{"a":[1,-1,9007199254740991],"b":{"c":"\u0000\n\"\\"}}"#),
        of_kind(0, "[\"\u{7f}é\u{2028}\u{1f600}\",null,true,false,0]".as_bytes()),
        of_kind(0, &serde_json::to_vec(&opened).expect("plain data")),
        of_kind(
            1,
            b"\x07\x03\x02ab\x05\x03xyz\x01c\x06\x02\x03\x10\x04\x80\0\0\0\0\0\0\0\x02de\x07\x01\x01f\0",
        ),
    ]
}
