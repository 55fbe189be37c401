//! Workflows and runs of projects: who pays, whose roles reach them, and what an archived project starts.

use crate::desk::Desk;
use crate::house::{House, contract, person};
use crate::looking::read_as;
use crate::runs::event;
use act::{Ctx, Rights};
use harness::Done;
use kernel::Id;
use serde_json::{Value, json};

const TRIAGE: &str = "workflows/itsm-triage.yaml";
const STEPS: &str = "workflows/three-steps.yaml";

async fn code(house: &House, who: &Ctx, act: &str, args: Value) -> Option<String> {
    house.act(who, act, args).await.err().map(|fault| fault.code)
}

/// Somebody whose roles hold in one project.
fn in_project(house: &House, name: &str, roles: &[&str], project: &str) -> Ctx {
    let mut ctx = person(house, name, &[]);
    let project = Id::parse(project).unwrap();
    let projects = roles.iter().map(|role| (project.clone(), (*role).to_owned())).collect();
    ctx.principal.rights = Rights { projects, ..Rights::default() };
    ctx
}

/// A house with the projects `desk` and `attic`; the flagship belongs to the first.
async fn house(desk: &Desk, seed: u64) -> (House, Ctx) {
    let house = House::with(desk, seed).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    for (act, args) in [
        ("access.workspace.create", json!({"name": "live", "environment": "production"})),
        ("access.project.create", json!({"name": "desk", "workspace": "live"})),
        ("access.project.create", json!({"name": "attic", "workspace": "live"})),
        ("flows.workflow.publish", json!({"yaml": contract(TRIAGE), "project": "desk"})),
        ("flows.workflow.publish", json!({"yaml": contract(STEPS)})),
    ] {
        house.act(&admin, act, args).await.unwrap();
    }
    (house, admin)
}

#[tokio::test]
async fn a_run_belongs_to_its_workflows_project_and_so_does_what_it_costs() {
    let desk = Desk::start().await;
    let (house, admin) = house(&desk, 91).await;
    let run = house.event(event()).await;
    house.settle().await;
    assert_eq!(house.run(&run).await.project.as_deref(), Some("desk"));
    let asked: Vec<_> = house.model.calls.lock().unwrap().iter().map(|call| call.project.clone()).collect();
    assert_eq!(asked, [Some("desk".to_owned())]);
    assert_eq!(house.facts(&run).await[0]["outcome"]["project"], "desk");
    // A new version without a project stays in its own.
    let changed = contract(TRIAGE).replace("description:", "description: A new one. #");
    let done = house.act(&admin, "flows.workflow.publish", json!({"yaml": changed})).await.unwrap();
    let Done::Outcome { value, .. } = done else { panic!("it waits") };
    assert_eq!(value["project"], "desk");
    // The same version in another project is no new version.
    let moved = json!({"yaml": changed, "project": "attic"});
    assert_eq!(code(&house, &admin, "flows.workflow.publish", moved.clone()).await, None);
    assert_eq!(code(&house, &admin, "flows.workflow.publish", moved).await.as_deref(), Some("request.state"));
    let shown =
        read_as(&admin, &house, "/v1/workflows/{workflow}", &[("workflow", "itsm-triage")]).await.unwrap();
    assert_eq!((&shown["project"], shown["versions"].as_array().unwrap().len()), (&json!("attic"), 2));
    assert_eq!(house.run(&run).await.project.as_deref(), Some("desk"), "what runs stays where it began");
}

#[tokio::test]
async fn a_role_in_a_project_reaches_its_runs_and_workflows() {
    let desk = Desk::start().await;
    let (house, admin) = house(&desk, 92).await;
    let own = house.event(event()).await;
    let foreign = house.start("three-steps", json!({})).await;
    let des = in_project(&house, "des", &["operator", "builder"], "prj_desk");
    let triage = json!({"workflow": "itsm-triage", "event": event()});
    let steps = json!({"workflow": "three-steps", "event": {}});
    let changed = contract(TRIAGE).replace("description:", "description: Theirs. #");
    for (what, act, args, expected) in [
        ("start their own", "flows.run.start", triage, None),
        ("start another", "flows.run.start", steps, Some("access.role_missing")),
        (
            "an event is the tenant's",
            "flows.run.start",
            json!({"connector": "servicenow", "event_name": "incident.created", "event": event()}),
            Some("access.role_missing"),
        ),
        ("cancel their own", "flows.run.cancel", json!({"run": own}), None),
        ("cancel another", "flows.run.cancel", json!({"run": foreign}), Some("access.role_missing")),
        ("a version of their own", "flows.workflow.publish", json!({"yaml": changed}), None),
        // Into the project that it is in already, as anywhere else it would be a move.
        (
            "take one that is not theirs",
            "flows.workflow.publish",
            json!({"yaml": contract(STEPS), "project": "desk"}),
            Some("access.role_missing"),
        ),
        (
            "give theirs away",
            "flows.workflow.publish",
            json!({"yaml": contract(TRIAGE), "project": "attic"}),
            Some("access.role_missing"),
        ),
        (
            "into nothing",
            "flows.workflow.publish",
            json!({"yaml": contract(TRIAGE), "project": "cellar"}),
            Some("access.project_unknown"),
        ),
        (
            "retire another",
            "flows.workflow.retire",
            json!({"workflow": "three-steps"}),
            Some("access.role_missing"),
        ),
    ] {
        assert_eq!(code(&house, &des, act, args).await.as_deref(), expected, "{what}");
    }
    let ids = |page: Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    };
    let refused = read_as(&des, &house, "/v1/runs", &[]).await.unwrap_err();
    assert_eq!(refused.code, "access.read_denied");
    let refused = read_as(&des, &house, "/v1/runs", &[("project", "attic")]).await.unwrap_err();
    assert_eq!(refused.code, "access.read_denied");
    let theirs = ids(read_as(&des, &house, "/v1/runs", &[("project", "desk")]).await.unwrap());
    assert!(theirs.contains(&own.to_string()) && !theirs.contains(&foreign.to_string()), "{theirs:?}");
    let cancelled = [("project", "desk"), ("state", "cancelled")];
    assert_eq!(ids(read_as(&des, &house, "/v1/runs", &cancelled).await.unwrap()), [own.to_string()]);
    assert_eq!(ids(read_as(&admin, &house, "/v1/runs", &[]).await.unwrap()).len(), 3);
    for (path, run, there) in [
        ("/v1/runs/{run}", &own, true),
        ("/v1/runs/{run}/facts", &own, true),
        ("/v1/runs/{run}", &foreign, false),
        ("/v1/runs/{run}/facts", &foreign, false),
    ] {
        let read = read_as(&des, &house, path, &[("run", run.as_str())]).await;
        assert_eq!(
            read.err().map(|fault| fault.code),
            (!there).then(|| "not_found".to_owned()),
            "{path} {run}"
        );
    }
    let workflows = read_as(&des, &house, "/v1/workflows", &[]).await.unwrap();
    assert_eq!(workflows["items"].as_array().unwrap().len(), 1);
    assert!(read_as(&des, &house, "/v1/workflows/{workflow}", &[("workflow", "three-steps")]).await.is_err());
}

#[tokio::test]
async fn an_archived_project_starts_nothing() {
    let desk = Desk::start().await;
    let (house, admin) = house(&desk, 93).await;
    assert_eq!(code(&house, &admin, "access.project.archive", json!({"project": "desk"})).await, None);
    let triage = json!({"workflow": "itsm-triage", "event": event()});
    assert_eq!(
        code(&house, &admin, "flows.run.start", triage).await.as_deref(),
        Some("access.project_unknown")
    );
    let by_event = json!({"connector": "servicenow", "event_name": "incident.created", "event": event()});
    let Done::Outcome { value, .. } = house.act(&admin, "flows.run.start", by_event).await.unwrap() else {
        panic!("it waits")
    };
    assert_eq!((&value["runs"], &value["ignored"]), (&json!([]), &json!("project_archived")));
}
