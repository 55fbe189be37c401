//! The contract in the repository is the contract that the table makes.

use crate::support::World;
use act::Method;
use serde_json::Value;
use std::collections::BTreeSet;

const EVENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../contracts/asyncapi.json");
const CONTRACT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../contracts/openapi.json");

/// Run with `UPDATE=1` to write the file anew.
#[tokio::test]
async fn the_contract_is_the_tables() {
    let world = World::start().await;
    let made = world.ask(Method::Get, "/openapi.json").send().await.ok();
    kept(CONTRACT, &made);
    check(&made);
    world.running.shutdown().await;
}

/// Run with `UPDATE=1` to write the file anew.
#[tokio::test]
async fn the_contract_of_events_is_the_tables() {
    let world = World::start().await;
    world.ask(Method::Get, "/asyncapi.json").send().await.refused(401, "edge.credentials_missing");
    let (_, auditor) = world.principal("auditor", &["auditor"]).await;
    let made = world.ask(Method::Get, "/asyncapi.json").key(&auditor).send().await.ok();
    kept(EVENTS, &made);
    refs(&made, &made);
    assert_eq!(made["asyncapi"], "3.0.0");
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let facts: BTreeSet<String> =
        world.house().domains.iter().flat_map(|domain| domain.facts).map(|kind| (*kind).to_owned()).collect();
    assert_eq!(names(&made["components"]["messages"]), facts);
    assert_eq!(names(&made["channels"]["events"]["messages"]), facts);
    let posted = names(&made["channels"]["webhook"]["messages"]);
    let unposted: BTreeSet<_> = facts.difference(&posted).map(String::as_str).collect();
    let expected =
        ["notify.letter.dead", "notify.letter.sent", "notify.webhook.advanced", "notify.webhook.failed"];
    assert_eq!(unposted, BTreeSet::from(expected));
    let pattern =
        |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    for component in ["messages", "schemas"] {
        assert!(names(&made["components"][component]).iter().all(pattern), "{component}");
    }
    for (name, operation) in made["operations"].as_object().unwrap() {
        assert_eq!(operation["action"], "send", "{name}");
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        assert!(
            channel.starts_with("#/channels/") && operation["bindings"]["http"]["method"].is_string(),
            "{name}"
        );
    }
    let schema = event_schema(&made);
    let mut event = notify::event::cloud(7, serde_json::json!({}));
    assert!(!schema.is_valid(&event));
    event["data"] = world.leaves(&world.tenant(), 0).await.remove(0);
    assert!(!schema.is_valid(&event), "what names no fact is no event");
    world.running.shutdown().await;
}

/// The schema of an event, as the contract has it.
pub fn event_schema(contract: &Value) -> jsonschema::Validator {
    let schema =
        serde_json::json!({"$ref": "#/components/schemas/Event", "components": contract["components"]});
    jsonschema::draft7::new(&schema).unwrap()
}

fn kept(file: &str, made: &Value) {
    let text = format!("{:#}\n", sorted(made));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &text).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == text, "{file} is not what the table makes: run this test with UPDATE=1");
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
