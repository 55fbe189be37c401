//! What tenants write: workflows and manifests in YAML, and the templates in them.

use crate::{Taken, Target, of_kind};
use flows::connector::manifest;
use flows::template::{self, Scope};
use flows::workflow::parse::PROBLEMS_MAX;
use flows::{artifact, workflow, yaml};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

const YAML_WORDS: &[&str] = &[
    ": ",
    "- ",
    "\n",
    "  ",
    "&a",
    "*a",
    "<<: ",
    "!!str ",
    "---\n",
    "...\n",
    "? ",
    "| ",
    ">-\n",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "yes",
    "null",
    "~",
    "0x10",
    "1_000",
    ".inf",
    "#",
    "\t",
    "\u{85}",
    "\u{feff}",
    "{{ event.x }}",
    "{% if %}",
    "%YAML 1.1\n",
];

pub(crate) const WORKFLOW: Target =
    Target { name: "workflow", run: workflow, seeds: workflow_seeds, words: YAML_WORDS, runs: 6_000 };

pub(crate) const CONNECTOR: Target =
    Target { name: "connector", run: connector, seeds: connector_seeds, words: YAML_WORDS, runs: 6_000 };

pub(crate) const TEMPLATE: Target = Target {
    name: "template",
    run: template,
    seeds: template_seeds,
    words: &[
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        " if ",
        " else ",
        "elif",
        "endif",
        "raw",
        "set",
        "for",
        "~",
        "+",
        "*",
        "**",
        "|",
        "upper",
        "default",
        "event.text",
        "event.list",
        "steps.a",
        "is defined",
        "not ",
        " in ",
        "[0]",
        "(",
        ")",
        "''",
        "-%}",
        "{{-",
        "none",
        "true",
        "99999999999999999999",
    ],
    runs: 20_000,
};

/// A value as YAML that any reader takes: JSON, with everything that is not plain ASCII escaped.
fn printed(value: &Value) -> String {
    let json = serde_json::to_string(value).expect("plain data");
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match u32::from(c) {
            // Outside a text JSON has no such characters, and inside both know these escapes.
            0x20..=0x7e => out.push(c),
            code @ ..=0xffff => _ = write!(out, "\\u{code:04x}"),
            code => _ = write!(out, "\\U{code:08x}"),
        }
    }
    out
}

/// The value that a text stands for is the value that it stands for when printed.
fn yaml_check(text: &str) {
    let Ok(value) = yaml::parse(text) else { return };
    let printed = printed(&value);
    if printed.len() <= yaml::TEXT_BYTES_MAX {
        assert_eq!(yaml::parse(&printed), Ok(value), "{printed}");
    }
}

fn workflow(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    yaml_check(text);
    match workflow::parse::parse(text) {
        Ok(read) => {
            let printed = printed(&serde_json::to_value(&read).expect("plain data"));
            if printed.len() <= yaml::TEXT_BYTES_MAX {
                assert_eq!(workflow::parse::parse(&printed), Ok(read), "{printed}");
            }
        }
        Err(problems) => assert!((1..=PROBLEMS_MAX).contains(&problems.len())),
    }
}

/// Even: a manifest's text; odd: an artifact's envelope.
fn connector(data: &[u8]) {
    let mut taken = Taken::of(data);
    let even = taken.byte().is_multiple_of(2);
    let Some(text) = taken.text() else { return };
    if !even {
        let key = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
        let keys = BTreeMap::from([("evk_a".to_owned(), key.verifying_key())]);
        let sign = |bytes: &[u8]| ed25519_dalek::Signer::sign(&key, bytes).to_bytes();
        let _ = artifact::enveloped(text);
        let _ = artifact::open(text, &keys);
        let sealed = artifact::seal(artifact::Kind::Workflow, text.as_bytes(), "evk_a", sign);
        match artifact::open(&sealed, &keys) {
            Ok(opened) => assert_eq!(opened.payload, text.as_bytes()),
            // Signed or not, there is one spelling.
            Err(error) => assert!(kernel::json::check(text.as_bytes()).is_err(), "our own artifact: {error}"),
        }
        return;
    }
    yaml_check(text);
    match manifest::parse(text) {
        Ok(read) => {
            let canonical = read.canonical().expect("what is accepted has a digest");
            let again: Value = serde_json::from_slice(&canonical).expect("canonical JSON is JSON");
            let printed = printed(&again);
            if printed.len() <= yaml::TEXT_BYTES_MAX {
                let again = manifest::parse(&printed).map(|again| again.canonical());
                assert_eq!(again, Ok(Ok(canonical)), "{printed}");
            }
        }
        Err(problems) => assert!((1..=PROBLEMS_MAX).contains(&problems.len())),
    }
}

static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    let names = json!({
        "event": {"text": "naïve {{ x }}", "list": [1, 2, {"a": null}], "n": -7, "yes": true},
        "steps": {"a": {"category": "Access", "long": "x".repeat(2_000)}},
    });
    Scope::new(names.as_object().unwrap_or(&Map::new()))
});

/// A template ends, with a value of bounded size or an error; what its check refuses does not run.
fn template(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let scope = &*SCOPE;
    let shape = template::shape(source);
    let value = template::value(source, scope);
    let text = template::text(source, scope);
    if shape.is_err() && source.contains('{') {
        assert!(text.is_err() && value.is_err(), "it was refused, and ran");
    }
    if let Ok(text) = &text {
        assert!(text.len() <= template::OUTPUT_BYTES_MAX.max(source.len()));
        assert_eq!(template::text(source, scope).as_deref(), Ok(text.as_str()), "it says something else now");
    }
    match (&value, &text) {
        // A whole expression and the text around it go two ways, and have to mean the same.
        (Ok(Value::Number(number)), Ok(text)) => assert_eq!(number.to_string(), text.trim(), "{source}"),
        (Ok(Value::String(whole)), Ok(text)) if whole.parse::<f64>().is_err() => {
            assert_eq!(whole.trim(), text.trim(), "{source}");
        }
        _ => {}
    }
    if let Ok(value) = value {
        assert!(serde_json::to_string(&value).is_ok_and(|text| text.len() <= 2 * template::OUTPUT_BYTES_MAX));
    }
    if template::condition_shape(source).is_err() {
        assert!(template::condition(source, scope).is_err(), "a condition was refused, and ran");
    } else {
        let _ = template::condition(source, scope);
    }
}

fn workflow_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../contracts/workflows/three-steps.yaml").to_vec(),
        include_bytes!("../../contracts/workflows/incident-note.yaml").to_vec(),
        include_bytes!("../../contracts/workflows/change-window.yaml").to_vec(),
        include_bytes!("../../contracts/workflows/itsm-triage.yaml").to_vec(),
        b"{a: [1, 'two', \"th\\u00e9\\U0001f600\", null, true], \"b c\": {d: -3}}".to_vec(),
    ]
}

fn connector_seeds() -> Vec<Vec<u8>> {
    let key = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
    let sign = |bytes: &[u8]| ed25519_dalek::Signer::sign(&key, bytes).to_bytes();
    let sealed = artifact::seal(artifact::Kind::Connector, b"{\"name\":\"a\"}", "evk_a", sign);
    vec![
        of_kind(0, include_bytes!("../../contracts/connectors/http.yaml")),
        of_kind(0, include_bytes!("../../contracts/connectors/servicenow.yaml")),
        of_kind(1, sealed.as_bytes()),
        of_kind(1, b"{\"a\":1}"),
    ]
}

fn template_seeds() -> Vec<Vec<u8>> {
    [
        "{{ event.text }}",
        "Routed to {{ steps.a.category | upper }}.",
        "{% if event.n < 0 and event.yes %}a{% elif event.list %}b{% else %}c{% endif %}",
        "event.n + 1 == -6 or 'Acc' in steps.a.category",
        "{{ event.list }}",
        "{{ steps.a.long ~ steps.a.long }}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
