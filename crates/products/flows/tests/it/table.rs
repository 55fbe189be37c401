//! The domain's table: it points nowhere but home, and what it refuses, it refuses by name.

use crate::desk::Desk;
use crate::house::{House, contract, person};
use act::{Call, Class};
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn the_table_is_whole() {
    let house = House::empty(1).await;
    assert_eq!(house.domain.misfits(), Vec::<String>::new());
    let acts: BTreeSet<&str> = house.domain.verbs.iter().map(|verb| verb.act).collect();
    assert_eq!(acts.len(), house.domain.verbs.len(), "an act stands in the table twice");
    for verb in &house.domain.verbs {
        let schema = (verb.args)();
        assert_eq!(schema["type"], "object", "{}", verb.act);
        assert_eq!(schema["additionalProperties"], false, "{} takes unknown arguments", verb.act);
        assert!(verb.on_closed.is_none_or(|closed| acts.contains(closed)), "{}", verb.act);
    }
    let mut operations = BTreeSet::new();
    for route in &house.domain.routes {
        assert!(operations.insert(route.operation), "{} stands in the table twice", route.operation);
        match &route.call {
            Call::Verb(act) => assert!(acts.contains(act), "{}", route.operation),
            Call::Query(permission, _) | Call::Stream(permission, _) => {
                assert!(
                    permission.starts_with("flows.") && permission.ends_with(".read"),
                    "{}",
                    route.operation
                );
            }
            Call::Receive(_) => {}
        }
    }
    let codes: BTreeSet<&str> = house.domain.codes.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), house.domain.codes.len());
}

#[tokio::test]
async fn hostile_uploads_change_nothing() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 2).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    let size = || async { house.harness.store().head(&house.tenant).await.unwrap().unwrap().size };
    let before = size().await;
    let manifest = contract("connectors/http.yaml");
    let install = |name: &str, manifest: &str, base_url: &str| json!({"name": name, "manifest": manifest, "base_url": base_url});
    for (name, act, args) in [
        ("a bomb", "flows.workflow.publish", json!({"yaml": "a: &a [x]\nb: [*a, *a]\n"})),
        ("no workflow", "flows.workflow.publish", json!({"yaml": "[]"})),
        ("nothing", "flows.workflow.publish", json!({"yaml": ""})),
        ("an unknown member", "flows.workflow.publish", json!({"yaml": "x: 1", "force": true})),
        (
            "an unknown connector",
            "flows.workflow.publish",
            json!({"yaml": "name: x\nsteps:\n  - {id: a, tool: {connector: nope, action: get}}\n"}),
        ),
        (
            "a loop",
            "flows.workflow.publish",
            json!({"yaml": "name: x\nsteps:\n  - {id: a, transform: {v: 1}, next: a}\n"}),
        ),
        (
            "code in a template",
            "flows.workflow.publish",
            json!({"yaml": "name: x\nsteps:\n  - {id: a, transform: {v: '{% set x = 1 %}'}}\n"}),
        ),
        ("too large", "flows.workflow.publish", json!({"yaml": "#".repeat(65 * 1024)})),
        ("a private address", "flows.connector.install", install("x", &manifest, "https://10.0.0.1")),
        ("the cloud's secrets", "flows.connector.install", install("x", &manifest, "http://169.254.169.254")),
        ("plain http", "flows.connector.install", install("x", &manifest, "http://tickets.example")),
        ("a file", "flows.connector.install", install("x", &manifest, "file:///etc/passwd")),
        (
            "a hostile manifest",
            "flows.connector.install",
            install("x", "name: !!python/x 1", "https://tickets.example"),
        ),
        (
            "a manifest with a way out",
            "flows.connector.install",
            install("x", &manifest.replace("/{+path}", "//evil.example/{+path}"), "https://tickets.example"),
        ),
        ("a bad name", "flows.connector.install", install("../x", &manifest, "https://tickets.example")),
        ("no workflow of this name", "flows.run.start", json!({"workflow": "nope", "event": {}})),
        ("an event that is no object", "flows.run.start", json!({"workflow": "itsm-triage", "event": 1})),
        (
            "a huge event",
            "flows.run.start",
            json!({"workflow": "itsm-triage", "event": {"x": "y".repeat(70_000)}}),
        ),
        ("neither workflow nor event", "flows.run.start", json!({"event": {}})),
        ("no run", "flows.run.cancel", json!({"run": "run_nope"})),
        ("no id", "flows.run.replay", json!({"run": "../../etc"})),
    ] {
        let fault = house.act(&admin, act, args).await.unwrap_err();
        assert!(
            matches!(fault.class, Class::Invalid | Class::NotFound | Class::Denied | Class::TooLarge),
            "{name}: {fault}"
        );
    }
    // Refusals of policy leave a fact; what is malformed leaves none, and nothing of either exists.
    assert_eq!(size().await - before, 0);
    let ids = ["wfl_x", "con_x"].map(|id| kernel::Id::parse(id).unwrap());
    for (kind, id) in [("flows.workflow", &ids[0]), ("flows.connector", &ids[1])] {
        assert_eq!(house.harness.store().record(&house.tenant, kind, id).await.unwrap(), None::<store::Row>);
    }
}

#[tokio::test]
async fn a_stranger_to_the_role_table_publishes_nothing() {
    let house = House::empty(3).await;
    for role in ["auditor", "approver", "operator", "integration"] {
        let ctx = person(&house, "mal", &[role]);
        for (act, args) in [
            ("flows.workflow.publish", json!({"yaml": contract("workflows/three-steps.yaml")})),
            (
                "flows.connector.install",
                json!({"name": "x", "manifest": contract("connectors/http.yaml"), "base_url": "https://x.example"}),
            ),
        ] {
            let fault = house.act(&ctx, act, args).await.unwrap_err();
            assert_eq!(
                (fault.class, fault.code.as_str()),
                (Class::Denied, "access.role_missing"),
                "{role} {act}"
            );
        }
    }
}
