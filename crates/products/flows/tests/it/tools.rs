//! A tool whose definition changes is called by nobody until people have agreed to the change.

use crate::desk::{Desk, INCIDENT};
use crate::house::{House, contract, person};
use crate::looking::read;
use access::principal::PrincipalDoc;
use act::{Class, Clock as _, Ctx, Fault};
use flows::run::{Outcome, Status};
use harness::Done;
use kernel::Id;
use serde_json::{Value, json};
use store::Range;

/// The manifest in another version, with a text of it replaced.
fn manifest(version: &str, from: &str, to: &str) -> String {
    let text = contract("connectors/servicenow.yaml")
        .replace("version: \"1.0.0\"", &format!("version: \"{version}\""));
    let changed = text.replace(from, to);
    assert!(from == to || changed != text, "{from} is not there");
    changed
}

async fn install(house: &House, desk: &Desk, manifest: &str) -> Result<Value, Fault> {
    let admin = person(house, "owner", &["tenant_admin"]);
    let args = json!({"name": "servicenow", "manifest": manifest, "base_url": desk.url});
    match house.act(&admin, "flows.connector.install", args).await? {
        Done::Outcome { value, .. } => Ok(value),
        Done::Waiting { .. } => panic!("an installation waits"),
    }
}

async fn approve(house: &House, who: &str, action: &str, definition: &str) -> Result<Done, Fault> {
    let ctx = person(house, who, &["tenant_admin"]);
    approve_as(house, &ctx, action, definition).await
}

async fn approve_as(house: &House, ctx: &Ctx, action: &str, definition: &str) -> Result<Done, Fault> {
    let args = json!({"connector": "servicenow", "action": action, "definition": definition});
    house.act(ctx, "flows.tool.approve", args).await
}

/// The tenant's first administrator. What waits is carried out under the roles that its requester has by then, so it has to
/// be somebody.
async fn owner(house: &House) -> Ctx {
    let view = house.harness.store().view(&house.tenant, house.clock.now_ms());
    let found = view.list::<PrincipalDoc>(Range::of("name", Vec::new())).await.unwrap();
    let mut ctx = person(house, "owner", &["tenant_admin"]);
    ctx.principal.id = found.first().unwrap().stored.id.clone();
    ctx
}

async fn tool(house: &House, action: &str) -> Value {
    let shown = read(house, "/v1/connectors/{connector}", &[("connector", "servicenow")]).await.unwrap();
    shown["tools"].as_array().unwrap().iter().find(|tool| tool["action"] == action).unwrap().clone()
}

async fn workflows(house: &House) {
    let text = |name: &str, call: &str| {
        format!("name: {name}\nsteps:\n  - id: a\n    tool: {{connector: servicenow, {call}}}\n")
    };
    let get = format!("action: incident.get, params: {{sys_id: '{INCIDENT}'}}");
    let write = format!("action: incident.update, params: {{sys_id: '{INCIDENT}', work_note: 'x'}}");
    for (name, call) in [("gets", get.as_str()), ("lists", "action: group.list"), ("writes", write.as_str())]
    {
        house.publish(&text(name, call)).await.unwrap();
    }
}

async fn run(house: &House, workflow: &str) -> (Status, Option<Outcome>, Option<String>) {
    let id = house.start(workflow, json!({})).await;
    house.settle().await;
    let run = house.run(&id).await;
    (run.status, run.outcome, run.error.map(|error| error.code))
}

fn refused() -> (Status, Option<Outcome>, Option<String>) {
    (Status::Dead, None, Some("flows.tool_changed".into()))
}

fn done() -> (Status, Option<Outcome>, Option<String>) {
    (Status::Finished, Some(Outcome::Done), None)
}

#[tokio::test]
async fn i02_a_changed_tool_stops_and_the_others_go_on() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 1).await;
    workflows(&house).await;
    assert_eq!(run(&house, "gets").await, done());
    // Begun under the version before, and not at its call yet.
    let begun = house.start("gets", json!({})).await;
    let told = install(
        &house,
        &desk,
        &manifest("1.0.1", "Read an incident by its sys_id", "Read it. Send it on, too."),
    )
    .await;
    assert_eq!(told.unwrap()["tools_changed"], json!(["incident.get"]));
    house.settle().await;
    let run_begun = house.run(&begun).await;
    assert_eq!(run_begun.error.unwrap().code, "flows.tool_changed");
    let asked = desk.look(|seen| seen.requests.len());
    assert_eq!(run(&house, "gets").await, refused());
    assert_eq!(desk.look(|seen| seen.requests.len()), asked, "nothing was sent");
    assert_eq!(run(&house, "lists").await, done());
    // What changed is shown; agreeing to something else is not agreeing.
    let shown = tool(&house, "incident.get").await;
    assert_eq!(
        (&shown["state"], &shown["changes"][0]["place"]),
        (&json!("changed"), &json!("action.summary"))
    );
    let definition = shown["definition"].as_str().unwrap().to_owned();
    let fault = approve(&house, "owner", "incident.get", &"0".repeat(64)).await.unwrap_err();
    assert_eq!(fault.code, "request.state");
    assert_eq!(approve(&house, "owner", "nope", &definition).await.unwrap_err().class, Class::NotFound);
    let builder = person(&house, "ben", &["builder", "operator", "approver"]);
    let args = json!({"connector": "servicenow", "action": "incident.get", "definition": definition});
    assert_eq!(house.act(&builder, "flows.tool.approve", args).await.unwrap_err().class, Class::Denied);
    assert_eq!(run(&house, "gets").await, refused());
    // It reads only: who has the right agrees, and the run that died goes on, as it was pinned.
    approve(&house, "owner", "incident.get", &definition).await.unwrap();
    assert_eq!(tool(&house, "incident.get").await["state"], "approved");
    assert_eq!(run(&house, "gets").await, done());
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.replay", json!({"run": begun})).await.unwrap();
    house.settle().await;
    assert_eq!(house.run(&begun).await.outcome, Some(Outcome::Done));
    assert_eq!(
        approve(&house, "owner", "incident.get", &definition).await.unwrap_err().code,
        "request.state"
    );
    let kinds = house.kinds(&Id::parse("con_servicenow").unwrap()).await;
    assert_eq!(kinds.last().unwrap(), "flows.tool.approved");
}

#[tokio::test]
async fn i02_a_changed_write_takes_another_person_and_the_very_difference() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 2).await;
    let owner = owner(&house).await;
    workflows(&house).await;
    let path =
        "path: /api/now/table/incident/{sys_id}\n    query:\n      sysparm_fields: sys_id,number,category";
    let evil = path.replace("table/incident", "table/other");
    install(&house, &desk, &manifest("1.0.1", path, &evil)).await.unwrap();
    assert_eq!(run(&house, "writes").await, refused());
    let definition = tool(&house, "incident.update").await["definition"].as_str().unwrap().to_owned();
    let Done::Waiting { approval, .. } =
        approve_as(&house, &owner, "incident.update", &definition).await.unwrap()
    else {
        panic!("a changed write is agreed to by one person")
    };
    let waiting = house.approval(&approval).await;
    assert!(
        waiting.preview.iter().any(|(label, text)| label == "action.path" && text.contains("table/other")),
        "{:?}",
        waiting.preview
    );
    // Who asked does not agree with themselves.
    let grant = json!({"approval": approval, "preview_digest": waiting.preview_digest});
    assert_eq!(house.act(&owner, "governor.approval.grant", grant).await.unwrap_err().class, Class::Denied);
    // Installed otherwise meanwhile, what was asked for is not what would be agreed to.
    install(&house, &desk, &manifest("1.0.2", path, &evil.replace("table/other", "table/third")))
        .await
        .unwrap();
    house.decide(&approval, "bob", true).await.unwrap();
    house.settle().await;
    assert_eq!(tool(&house, "incident.update").await["state"], "changed");
    let definition = tool(&house, "incident.update").await["definition"].as_str().unwrap().to_owned();
    let Done::Waiting { approval, .. } =
        approve_as(&house, &owner, "incident.update", &definition).await.unwrap()
    else {
        panic!("a changed write is agreed to by one person")
    };
    house.decide(&approval, "bob", true).await.unwrap();
    house.settle().await;
    assert_eq!(tool(&house, "incident.update").await["state"], "approved");
}

#[tokio::test]
async fn i02_neither_removal_nor_polling_is_a_way_around() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 3).await;
    workflows(&house).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "servicenow"})).await.unwrap();
    let changed = manifest("1.0.1", "sysparm_query: active=true^ORDERBYname", "sysparm_query: ORDERBYname");
    let args = json!({"name": "servicenow", "manifest": changed, "base_url": desk.url, "user": "svc.writ", "password": "secret:desk"});
    house.act(&admin, "flows.connector.install", args).await.unwrap();
    assert_eq!(run(&house, "lists").await, refused());
    let looked =
        manifest("1.0.2", "sysparm_query: sys_created_on>={since}^ORDERBY", "sysparm_query: ORDERBY");
    let args =
        json!({"name": "servicenow", "manifest": looked, "base_url": desk.url, "poll_every_ms": 60_000});
    house.act(&admin, "flows.connector.install", args).await.unwrap();
    let asked = desk.look(|seen| seen.requests.len());
    house.work().await;
    let polling = Id::parse("pol_servicenow").unwrap();
    let facts = house.facts(&polling).await;
    assert_eq!(facts.last().unwrap()["outcome"]["code"], "flows.tool_changed");
    assert_eq!(desk.look(|seen| seen.requests.len()), asked);
}
