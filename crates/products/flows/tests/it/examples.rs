//! Every shipped manifest and workflow fits its published schema, and the schemas agree with the code.

use flows::connector::manifest::{self, Manifest};
use flows::workflow::{check, parse};
use flows::yaml;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn contracts(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contracts").join(folder)
}

fn texts(folder: &str) -> BTreeMap<String, String> {
    std::fs::read_dir(contracts(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn published(name: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(contracts("schemas").join(name)).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema).unwrap()
}

fn manifests() -> BTreeMap<String, Manifest> {
    texts("connectors").into_iter().map(|(name, text)| (name, manifest::parse(&text).unwrap())).collect()
}

#[test]
fn every_manifest_is_accepted_by_schema_and_code() {
    let schema = published("connector.schema.json");
    let texts = texts("connectors");
    assert!(texts.contains_key("servicenow") && texts.contains_key("http"));
    for (name, text) in texts {
        if let Err(error) = schema.validate(&yaml::parse(&text).unwrap()) {
            panic!("{name}: {error} at {}", error.instance_path());
        }
        let manifest = manifest::parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert_eq!(manifest.name, name, "a manifest lies under its name");
    }
}

#[test]
fn every_workflow_is_accepted_by_schema_and_code() {
    let schema = published("workflow.schema.json");
    let manifests = manifests();
    let installed: check::Installed<'_> =
        manifests.iter().map(|(name, manifest)| (name.as_str(), manifest)).collect();
    let texts = texts("workflows");
    assert!(texts.contains_key("itsm-triage") && texts.len() >= 3);
    for (name, text) in texts {
        if let Err(error) = schema.validate(&yaml::parse(&text).unwrap()) {
            panic!("{name}: {error} at {}", error.instance_path());
        }
        let workflow = parse::parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        assert_eq!(check::problems(&workflow, &installed), vec![], "{name}");
        assert_eq!(workflow.name, name, "a workflow lies under its name");
        // The canonical form is a workflow again, and the same one.
        let again = serde_json::from_slice(&workflow.canonical().unwrap()).unwrap();
        assert_eq!(workflow, again, "{name}");
    }
}

/// Changes one place of an example; `null` removes it.
fn changed(value: &Value, pointer: &str, to: &Value) -> Value {
    let mut value = value.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap();
    match (parent, to) {
        (Value::Object(members), Value::Null) => {
            members.remove(key).unwrap();
        }
        (Value::Object(members), to) => {
            members.insert(key.to_owned(), to.clone());
        }
        (Value::Array(items), to) => items[key.parse::<usize>().unwrap()] = to.clone(),
        (other, _) => panic!("{pointer} leads to {other}"),
    }
    value
}

#[test]
fn schema_and_code_refuse_the_same_workflows() {
    let schema = published("workflow.schema.json");
    let manifests = manifests();
    let installed: check::Installed<'_> =
        manifests.iter().map(|(name, manifest)| (name.as_str(), manifest)).collect();
    let good = yaml::parse(&texts("workflows")["itsm-triage"]).unwrap();
    for (pointer, to) in [
        ("/name", json!("Not A Name")),
        ("/name", Value::Null),
        ("/steps", json!([])),
        ("/steps", Value::Null),
        ("/unknown", json!(1)),
        ("/limits/deadline_ms", json!(0)),
        ("/limits/deadline_ms", json!(86_400_001)),
        ("/limits/cost_micros", json!(-1)),
        ("/trigger/event", Value::Null),
        ("/trigger/matches", json!("true")),
        ("/pins/models/classifier/model", json!("has a space")),
        ("/pins/models/classifier/model", Value::Null),
        ("/steps/0/id", json!("dead")),
        ("/steps/0/id", json!("1st")),
        ("/steps/0/tool", Value::Null),
        ("/steps/0/transform", json!({"v": 1})),
        ("/steps/0/retry", json!({"external": 13})),
        ("/steps/0/retry", json!({"internal": 1})),
        ("/steps/0/deadline_ms", json!(-1)),
        ("/steps/0/on_deny", json!("end")),
        ("/steps/0/tool/action", Value::Null),
        ("/steps/0/tool/headers", json!({})),
        ("/steps/2/model/answer", json!({"type": "string"})),
        ("/steps/2/model/max_output_tokens", json!(0)),
        ("/steps/2/model/allowed/assignment_group", json!([])),
        ("/steps/2/model/allowed/assignment_group", json!([1])),
        ("/steps/3/branch", json!([])),
        ("/steps/3/branch/0/then", json!("end")),
        ("/steps/4/tool/policy/auto_approve", json!("yes")),
        ("/steps/4/tool/policy/allow", json!(true)),
    ] {
        let bad = changed(&good, pointer, &to);
        assert!(schema.validate(&bad).is_err(), "the schema takes {pointer} = {to}");
        // JSON is YAML: the value is read the way a text is.
        let refused = match parse::parse(&bad.to_string()) {
            Ok(workflow) => !check::problems(&workflow, &installed).is_empty(),
            Err(_) => true,
        };
        assert!(refused, "the code takes {pointer} = {to}");
    }
}

#[test]
fn schema_and_code_refuse_the_same_waits_and_branches() {
    let schema = published("workflow.schema.json");
    let manifests = manifests();
    let installed: check::Installed<'_> =
        manifests.iter().map(|(name, manifest)| (name.as_str(), manifest)).collect();
    let good = yaml::parse(&texts("workflows")["change-window"]).unwrap();
    let branches = "/steps/0/parallel/branches";
    for (pointer, to) in [
        ("/steps/1/wait".to_owned(), json!({})),
        ("/steps/1/wait".to_owned(), json!({"for_ms": 0})),
        ("/steps/1/wait".to_owned(), json!({"for_ms": 1, "until_ms": "1"})),
        ("/steps/1/wait".to_owned(), json!({"for_ms": 1, "timeout_ms": 1})),
        ("/steps/2/wait/timeout_ms".to_owned(), Value::Null),
        ("/steps/2/wait/timeout_ms".to_owned(), json!(2_592_000_001_i64)),
        ("/steps/2/wait/signal".to_owned(), json!("Go")),
        ("/steps/2/wait/for".to_owned(), json!(1)),
        ("/steps/0/parallel/on_failure".to_owned(), json!("ignore")),
        ("/steps/0/parallel/join".to_owned(), json!("any")),
        (format!("{branches}/agree"), json!([])),
        (format!("{branches}/agree"), Value::Null),
        (format!("{branches}/A"), json!([{"id": "x", "transform": {"v": 1}}])),
        (format!("{branches}/agree/0/approval/preview"), json!({})),
        ("/steps/3/workflow/name".to_owned(), Value::Null),
        ("/steps/3/workflow/name".to_owned(), json!("X Y")),
        ("/steps/3/workflow/version".to_owned(), json!("1")),
    ] {
        let bad = changed(&good, &pointer, &to);
        assert!(schema.validate(&bad).is_err(), "the schema takes {pointer} = {to}");
        let refused = match parse::parse(&bad.to_string()) {
            Ok(workflow) => !check::problems(&workflow, &installed).is_empty(),
            Err(_) => true,
        };
        assert!(refused, "the code takes {pointer} = {to}");
    }
}

#[test]
fn schema_and_code_refuse_the_same_manifests() {
    let schema = published("connector.schema.json");
    let good = yaml::parse(&texts("connectors")["servicenow"]).unwrap();
    let update = "/actions/incident.update";
    for (pointer, to) in [
        ("/name".to_owned(), json!("A")),
        ("/version".to_owned(), Value::Null),
        ("/actions".to_owned(), json!({})),
        ("/base_url".to_owned(), json!("https://evil.example")),
        ("/events/incident.created/author".to_owned(), json!("sys_updated_by")),
        (format!("{update}/effect"), json!("SAFE")),
        (format!("{update}/effect"), json!("READ")),
        (format!("{update}/effect"), json!("UNSAFE")),
        (format!("{update}/effect"), json!("KEYED")),
        (format!("{update}/method"), json!("TRACE")),
        (format!("{update}/method"), json!("GET")),
        (format!("{update}/path"), json!("no-slash")),
        (format!("{update}/url"), json!("https://evil.example")),
        (format!("{update}/reconcile"), Value::Null),
        (format!("{update}/reconcile/found"), json!("entries")),
        (format!("{update}/reconcile/settle_ms"), json!([-1])),
        (format!("{update}/params/additionalProperties"), json!(true)),
        (format!("{update}/response/status"), json!([])),
        (format!("{update}/response/status"), json!([404])),
        (format!("{update}/response/bytes_max"), json!(0)),
        (format!("{update}/response/extract"), json!({"a.b": "/a"})),
    ] {
        let bad = changed(&good, &pointer, &to);
        assert!(schema.validate(&bad).is_err(), "the schema takes {pointer} = {to}");
        assert!(manifest::parse(&bad.to_string()).is_err(), "the code takes {pointer} = {to}");
    }
}

#[test]
fn the_flagship_writes_only_what_a_person_would_expect() {
    let manifests = manifests();
    let update = manifests["servicenow"].action("incident.update").unwrap();
    let params =
        json!({"sys_id": "0".repeat(32), "work_note": "Routed.", "assignment_group": "1".repeat(32)});
    let params = params.as_object().unwrap();
    let key = "7f3a91".repeat(11);
    let marker = flows::effect::marker(&key);
    let request = flows::connector::request::prepare(
        &manifests["servicenow"],
        update,
        "https://acme.example",
        params,
        &marker,
        &key,
    )
    .unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        json!({"assignment_group": "1".repeat(32), "work_notes": "Routed. [ref:af-7f3a917f3a917f3a]"})
    );
    assert!(request.url.starts_with("https://acme.example/api/now/table/incident/000"), "{}", request.url);
    assert_eq!(
        flows::connector::request::fields_written(update, params, &marker),
        ["assignment_group", "work_notes"]
    );
    for injected in ["INC0010001^ORactive=true", "INC1&sysparm_limit=9", ""] {
        let find = manifests["servicenow"].action("incident.find").unwrap();
        let params = json!({"number": injected});
        let result = flows::connector::request::prepare(
            &manifests["servicenow"],
            find,
            "https://acme.example",
            params.as_object().unwrap(),
            "",
            "",
        );
        assert!(result.is_err(), "{injected}");
    }
}
