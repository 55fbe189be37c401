//! Golden files of the wire: `tests/golden/<direction>/<case>.in.json` in, `<case>.out.json` out.
//!
//! `UPDATE_GOLDEN=1` writes the outputs anew; read the difference before committing it.

use std::{fs, path::Path};

use models::{contract::Ask, openai};
use serde_json::{Value, json};

/// Runs `run` over every input of `direction` and compares with the outputs on disk.
fn check(direction: &str, run: impl Fn(Value) -> Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(direction);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let input = entry.unwrap().path();
        let Some(case) =
            input.file_name().unwrap().to_str().unwrap().strip_suffix(".in.json").map(str::to_owned)
        else {
            continue;
        };
        cases += 1;
        let got = run(serde_json::from_slice(&fs::read(&input).unwrap()).unwrap());
        let output = folder.join(format!("{case}.out.json"));
        if update {
            fs::write(&output, format!("{}\n", serde_json::to_string_pretty(&got).unwrap())).unwrap();
        }
        let want: Value = serde_json::from_slice(&fs::read(&output).unwrap_or_default())
            .unwrap_or_else(|_| panic!("{direction}/{case}: no output yet, run with UPDATE_GOLDEN=1"));
        assert_eq!(got, want, "{direction}/{case}");
    }
    let outputs = fs::read_dir(&folder).unwrap().count() - cases;
    assert!(cases > 0 && outputs == cases, "{direction}: {cases} inputs, {outputs} outputs");
}

#[test]
fn requests() {
    check("request", |input| {
        let ask: Ask = serde_json::from_value(input).unwrap();
        models::check::Checker::new(&ask).unwrap();
        let request = serde_json::to_value(openai::request(&ask)).unwrap();
        assert_eq!(serde_json::to_value(openai::request(&ask)).unwrap(), request, "not the same bytes twice");
        request
    });
}

#[test]
fn replies() {
    // An input is {status, headers, body}; a body that is a string stands for those bytes, anything else for its
    // JSON.
    check("reply", |input| {
        let status = u16::try_from(input["status"].as_u64().unwrap()).unwrap();
        let headers: Vec<(String, String)> = input["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let body = match &input["body"] {
            Value::String(text) => text.clone(),
            body => body.to_string(),
        };
        match openai::reply(status, &headers, body.as_bytes()) {
            Ok(answer) => json!({"answer": answer}),
            Err(error) => json!({"error": error, "display": error.to_string()}),
        }
    });
}
