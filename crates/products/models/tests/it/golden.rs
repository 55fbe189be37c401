//! Golden files of the wire, a matrix of dialects.
//!
//! | inputs | run through | outputs |
//! |---|---|---|
//! | `golden/request/<case>.in.json`: an ask | every dialect, whole and streamed | `<case>.<variant>.out.json` |
//! | `golden/reply/<dialect>/<case>.in.json`: status, headers, body | the dialect's `reply` | `<case>.out.json` |
//! | `golden/stream/<dialect>/<case>.in.json`: lines of an event stream | its assembly, in pieces of every size | `<case>.out.json` |
//!
//! `UPDATE_GOLDEN=1` writes the outputs anew; read the difference before committing it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use egress::sse::Decoder;
use models::{
    contract::{Answer, Ask},
    dialect::Dialect,
    wire::ProviderError,
};
use serde_json::{Value, json};

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Runs `run` over every input of a folder and compares what it gives, by name, with the outputs on disk. An output that
/// nothing gives any more is an error too.
fn check(folder: &str, run: impl Fn(Value) -> Vec<(&'static str, Value)>) {
    let path = golden(folder);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let (mut found, mut made) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(&path).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(case) = name.strip_suffix(".in.json") else {
            found.insert(name);
            continue;
        };
        for (variant, got) in run(serde_json::from_slice(&fs::read(path.join(&name)).unwrap()).unwrap()) {
            let output = if variant.is_empty() {
                format!("{case}.out.json")
            } else {
                format!("{case}.{variant}.out.json")
            };
            if update {
                fs::write(path.join(&output), format!("{}\n", serde_json::to_string_pretty(&got).unwrap()))
                    .unwrap();
            }
            let want: Value = serde_json::from_slice(&fs::read(path.join(&output)).unwrap_or_default())
                .unwrap_or_else(|_| panic!("{folder}/{output}: no output yet, run with UPDATE_GOLDEN=1"));
            assert_eq!(got, want, "{folder}/{output}");
            made.insert(output);
        }
    }
    assert!(!made.is_empty(), "{folder}: no inputs");
    if !update {
        assert_eq!(found, made, "{folder}: outputs without an input, or the other way round");
    }
}

fn dialects() -> [(&'static str, Dialect); 3] {
    [
        ("openai", Dialect::OpenAi),
        ("azure", Dialect::AzureOpenAi { api_version: Some("2024-10-21".to_owned()) }),
        ("anthropic", Dialect::Anthropic),
    ]
}

fn outcome(result: Result<Answer, ProviderError>) -> Value {
    match result {
        Ok(answer) => json!({"answer": answer}),
        Err(error) => json!({"error": error, "display": error.to_string()}),
    }
}

fn headers(input: &Value) -> Vec<(String, String)> {
    input["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn requests() {
    let [openai, azure, anthropic] = dialects().map(|(_, dialect)| dialect);
    let variants = [
        ("openai", &openai, false),
        ("openai_stream", &openai, true),
        ("azure", &azure, false),
        ("azure_versionless", &Dialect::AzureOpenAi { api_version: None }, true),
        ("anthropic", &anthropic, false),
        ("anthropic_stream", &anthropic, true),
    ];
    check("request", |input| {
        let ask: Ask = serde_json::from_value(input).unwrap();
        models::check::Checker::new(&ask).unwrap();
        variants
            .map(|(name, dialect, stream)| {
                let request = serde_json::to_value(dialect.request(&ask, stream)).unwrap();
                let again = serde_json::to_value(dialect.request(&ask, stream)).unwrap();
                assert_eq!(again, request, "not the same bytes twice");
                (name, request)
            })
            .into()
    });
}

#[test]
fn replies() {
    // An input is {status, headers, body}; a body that is a string stands for those bytes, anything else for its
    // JSON.
    for (name, dialect) in dialects() {
        check(&format!("reply/{name}"), |input| {
            let status = u16::try_from(input["status"].as_u64().unwrap()).unwrap();
            let body = match &input["body"] {
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            vec![("", outcome(dialect.reply(status, &headers(&input), body.as_bytes())))]
        });
    }
}

#[test]
fn streams() {
    // An input is {headers, lines}; each line ends with a line feed. A line that is not a string is `data: ` and its JSON.
    for (name, dialect) in dialects() {
        check(&format!("stream/{name}"), |input| {
            let mut text = String::new();
            for line in input["lines"].as_array().unwrap() {
                match line {
                    Value::String(line) => text.push_str(line),
                    data => text.push_str(&format!("data: {data}\n")),
                }
                text.push('\n');
            }
            let mut results = [1, 3, 1000].map(|size| {
                let (mut decoder, mut assembly) = (Decoder::new(), dialect.assembly());
                for chunk in text.as_bytes().chunks(size) {
                    decoder.push(chunk).unwrap().iter().for_each(|event| assembly.push(event));
                }
                outcome(assembly.finish(&headers(&input), "digest of the bytes".to_owned()))
            });
            assert!(
                results.iter().all(|result| *result == results[0]),
                "{name}: not the same in other pieces"
            );
            vec![("", results[0].take())]
        });
    }
}

/// A whole reply and the stream of the same reply say the same.
#[test]
fn whole_and_streamed_agree() {
    for (name, _) in dialects() {
        let read =
            |path: &str| -> Value { serde_json::from_slice(&fs::read(golden(path)).unwrap()).unwrap() };
        let mut whole = read(&format!("reply/{name}/ok.out.json"));
        let mut streamed = read(&format!("stream/{name}/ok.out.json"));
        for out in [&mut whole, &mut streamed] {
            out["answer"]["raw_digest"] = Value::Null;
        }
        assert_eq!(whole, streamed, "{name}");
    }
}
