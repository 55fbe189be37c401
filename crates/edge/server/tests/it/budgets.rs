//! Budgets as people meet them: over the API, with a run that stops, and reports as files.

use crate::acts::{EXAMPLES, STORIES, carry_out};
use crate::desk::Desk;
use crate::support::World;
use act::Method;
use serde_json::{Value, json};

/// The acts of billing, in the order of the table: a run that warns, and one that cannot pay.
#[tokio::test]
async fn budgets_are_set_warn_and_stop() {
    let world = World::start().await;
    let tenant = world.tenant();
    let of_budgets = |act: &&str| act.starts_with("billing.");
    for (act, prepare) in EXAMPLES.iter().filter(|(act, _)| of_budgets(act)) {
        carry_out(&world, act, &prepare(&world).await).send().await.ok();
    }
    for (_, story) in STORIES.iter().filter(|(act, _)| of_budgets(act)) {
        story(&world).await;
    }
    let leaves = world.leaves(&tenant, 0).await;
    for kind in
        ["billing.budget.set", "billing.budget.removed", "billing.budget.warned", "billing.budget.exhausted"]
    {
        assert!(leaves.iter().any(|leaf| leaf["kind"] == kind), "{kind}");
    }
    let budgets = world.admin(Method::Get, "/v1/budgets").send().await.ok();
    let lax = budgets["items"].as_array().unwrap().iter().find(|budget| budget["level"] == "tenant").unwrap();
    assert!(lax["spent"].as_i64().unwrap() > 0 && lax["held"] == 0 && lax["stop"] == false, "{lax}");
    let statement = format!("/v1/accounts/{}/statement", lax["account"].as_str().unwrap());
    let statement = world.admin(Method::Get, &statement).send().await.ok();
    assert!(statement["items"].as_array().unwrap().iter().any(|row| row["kind"] == "settled"), "{statement}");
    for (path, begins) in
        [("/v1/costs/csv?by=ticket", "ticket,currency,"), ("/v1/costs/chart", "<!doctype html>")]
    {
        let reply = world.admin(Method::Get, path).send().await;
        assert!(reply.status == 200 && reply.text().starts_with(begins), "{}", reply.text());
        // Never a page of this origin: whatever a ticket is called, nothing of it runs here.
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    // Another tenant's are absent.
    let other = world.second_tenant().await;
    for path in [
        format!("/v1/budgets/{}", lax["id"].as_str().unwrap()),
        format!("/v1/accounts/{}", lax["account"].as_str().unwrap()),
    ] {
        let reply = world
            .ask(Method::Get, &path)
            .key(&world.admin)
            .header("Writ-Tenant", other.as_str())
            .send()
            .await;
        assert_eq!(reply.status, 404, "{path}");
    }
    let listed =
        world.ask(Method::Get, "/v1/accounts").key(&world.admin).header("Writ-Tenant", other.as_str());
    assert_eq!(listed.send().await.ok()["items"], json!([]));
    world.running.shutdown().await;
}

const ASKS: &str = "
name: asks-at-once
pins:
  models: {small: {model: baseline/tfidf-linear-1}}
limits: {cost_micros: 79}
steps:
  - id: all
    parallel:
      branches:
        a: [{id: ask_a, model: ASK}]
        b: [{id: ask_b, model: ASK}]
        c: [{id: ask_c, model: ASK}]
        d: [{id: ask_d, model: ASK}]
";

/// Four branches ask at once, and their run may cost three calls and a little: exactly three are made, and the run, its facts
/// and the bill say the same.
#[tokio::test(flavor = "multi_thread")]
async fn branches_that_ask_at_once_cost_no_more_than_their_run_may() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    let answer = "{type: object, additionalProperties: false, required: [assignment_group, summary, confidence], \
                  properties: {assignment_group: {type: string}, summary: {type: string}, confidence: {type: integer}, category: {type: string}}}";
    let ask = "{pin: small, system: 'Which group?', user: 'the laptop does not charge', answer: ANSWER, allowed: {assignment_group: '{{ event.groups }}'}}";
    let yaml = ASKS.replace("ASK}", &format!("{ask}}}")).replace("ANSWER", answer);
    world.admin(Method::Post, "/v1/workflows").json(&json!({"yaml": yaml})).send().await.ok();
    let run = desk.start("asks-at-once", json!({"groups": ["Access", "Hardware"]})).await;
    let forked = desk
        .until(&run, |run| run["waits"]["runs"].as_array().is_some_and(|strands| strands.len() == 4))
        .await;
    let mut ends = Vec::new();
    for strand in forked["waits"]["runs"].as_array().unwrap() {
        let ended = |run: &Value| run["status"] == "finished" || run["status"] == "dead";
        let strand = desk.until(strand.as_str().unwrap(), ended).await;
        ends.push((strand["status"].clone(), strand["error"]["code"].clone(), strand["cost_micros"].clone()));
    }
    ends.sort_by_key(|(status, ..)| status.to_string());
    let dead = (json!("dead"), json!("flows.cost_limit"), json!(0));
    let done = (json!("finished"), Value::Null, json!(20));
    assert_eq!(ends, [dead, done.clone(), done.clone(), done]);
    let cancel = world.admin(Method::Post, &format!("/v1/runs/{run}/cancel")).json(&json!({}));
    cancel.send().await.ok();
    let leaves = world.leaves(&world.tenant(), 0).await;
    let finished = leaves
        .iter()
        .find(|leaf| leaf["kind"] == "flows.run.finished" && leaf["stream"] == run.as_str())
        .unwrap();
    assert_eq!(finished["outcome"]["cost_micros"], 60);
    let usage = world.admin(Method::Get, &format!("/v1/usage?run={run}")).send().await.ok();
    let billed: i64 =
        usage["items"].as_array().unwrap().iter().map(|row| row["cost_micros"].as_i64().unwrap()).sum();
    assert_eq!(billed, 60, "{usage}");
    world.running.shutdown().await;
}
