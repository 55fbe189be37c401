//! The contract in the repository is the contract that the table makes.

use crate::support::World;
use act::Method;
use serde_json::Value;
use std::collections::BTreeSet;

const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../contracts/openapi.json");

/// Run with `UPDATE=1` to write the file anew.
#[tokio::test]
async fn the_contract_is_the_tables() {
    let world = World::start().await;
    let made = world.ask(Method::Get, "/openapi.json").send().await.ok();
    let text = format!("{:#}\n", sorted(&made));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(CONTRACT, &text).unwrap();
    }
    let kept = std::fs::read_to_string(CONTRACT).unwrap_or_default();
    assert!(kept == text, "contracts/openapi.json is not what the table makes: run this test with UPDATE=1");
    check(&made);
    world.running.shutdown().await;
}

/// Members in order, whatever order the map type keeps.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            names.into_iter().map(|name| (name.clone(), sorted(&members[name]))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// Every reference leads somewhere, every path parameter is declared, every operation has its own id.
fn check(document: &Value) {
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(operations.insert(id.to_owned()), "{id} stands twice");
            assert!(
                operation["responses"]["default"].is_object() && operation["summary"].is_string(),
                "{method} {path}"
            );
            let declared: Vec<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            assert_eq!(declared, server::openapi::path_params(path), "{method} {path}");
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            for name in declared {
                assert!(body["properties"].get(name).is_none(), "{name} of {path} is asked for twice");
            }
            if body.is_object() {
                assert_eq!(
                    body["additionalProperties"], false,
                    "{method} {path} says that it takes anything"
                );
            }
        }
    }
    refs(document, document);
}

fn refs(value: &Value, document: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(to) = members.get("$ref").and_then(Value::as_str) {
                let target = document.pointer(to.strip_prefix('#').unwrap());
                assert!(target.is_some(), "{to} leads nowhere");
            }
            members.values().for_each(|value| refs(value, document));
        }
        Value::Array(items) => items.iter().for_each(|value| refs(value, document)),
        _ => {}
    }
}
