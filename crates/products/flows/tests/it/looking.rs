//! Looking at runs: pages, facts, dead letters.

use crate::house::{House, contract, person};
use act::{Call, Class, Ctx, Fault, Method, QueryCtx};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Reads a route.
pub async fn read(house: &House, path: &str, params: &[(&str, &str)]) -> Result<Value, Fault> {
    read_as(&person(house, "ann", &["operator"]), house, path, params).await
}

/// Reads a route as somebody.
pub async fn read_as(ctx: &Ctx, house: &House, path: &str, params: &[(&str, &str)]) -> Result<Value, Fault> {
    let routes = &house.domain.routes;
    let route = routes.iter().find(|route| route.path == path && route.method == Method::Get).unwrap();
    let Call::Query(_, query) = &route.call else { panic!("{path} is no read") };
    let params: BTreeMap<String, String> =
        params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let view = house.harness.store().view(&house.tenant, ctx.requested_at_ms);
    query(QueryCtx { ctx, view: &view, params: &params }).await
}

/// Every item of a list, page by page of `limit` rows.
async fn all(house: &House, path: &str, params: &[(&str, &str)], limit: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut params = params.to_vec();
        params.push(("limit", limit));
        if let Some(after) = &after {
            params.push(("after", after));
        }
        let page = read(house, path, &params).await.unwrap();
        let rows = page["items"].as_array().unwrap();
        assert!(rows.len() <= limit.parse().unwrap());
        items.extend(rows.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return items,
        }
    }
}

#[tokio::test]
async fn facts_come_in_pages_and_every_fact_once() {
    let house = House::empty(1).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let id = house.start("three-steps", json!({"amount": 1})).await;
    house.work().await;
    let whole = house.facts(&id).await;
    for limit in ["1", "2", "3", "200"] {
        let items = all(&house, "/v1/runs/{run}/facts", &[("run", id.as_str())], limit).await;
        let facts: Vec<&Value> = items.iter().map(|item| &item["fact"]).collect();
        assert_eq!(facts, whole.iter().collect::<Vec<_>>(), "pages of {limit}");
    }
    for (name, value) in [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "x"),
        ("after", "x"),
        ("after", "-1"),
        ("after", "18446744073709551615"),
    ] {
        let params = [("run", id.as_str()), (name, value)];
        let fault = read(&house, "/v1/runs/{run}/facts", &params).await.unwrap_err();
        assert_eq!(fault.class, Class::Invalid, "{name}={value}");
    }
}

#[tokio::test]
async fn runs_come_in_pages() {
    let house = House::empty(2).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    for amount in 0..5 {
        house.start("three-steps", json!({"amount": amount})).await;
        house.clock.advance_ms(1);
    }
    house.work().await;
    for params in [&[][..], &[("state", "done")][..]] {
        let ids: Vec<Value> =
            all(&house, "/v1/runs", params, "2").await.iter().map(|run| run["id"].clone()).collect();
        let mut unique = ids.clone();
        unique.dedup();
        assert_eq!((ids.len(), unique.len()), (5, 5), "{params:?}");
    }
}

#[tokio::test]
async fn a_dead_letter_says_why_and_is_replayed() {
    let house = House::empty(3).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let dead = house.start("three-steps", json!({"wrong": 1})).await;
    let fine = house.start("three-steps", json!({"amount": 1})).await;
    house.work().await;
    let letters = all(&house, "/v1/dead-letters", &[], "50").await;
    assert_eq!(letters.iter().map(|run| run["id"].as_str().unwrap()).collect::<Vec<_>>(), [dead.as_str()]);
    let letter = read(&house, "/v1/dead-letters/{run}", &[("run", dead.as_str())]).await.unwrap();
    assert_eq!((&letter["step"], &letter["error"]["code"]), (&json!("one"), &json!("flows.template_failed")));
    assert_eq!(letter["cause"], "a template of the workflow failed on this run's data");
    assert_eq!((&letter["in_doubt"], &letter["event"]), (&json!(false), &json!({"wrong": 1})));
    assert_eq!(letter["input_digest"].as_str().unwrap().len(), 64);
    for absent in [fine.as_str(), "run_nope", "../.."] {
        let fault = read(&house, "/v1/dead-letters/{run}", &[("run", absent)]).await.unwrap_err();
        assert_eq!(fault.class, Class::NotFound, "{absent}");
    }
    let replay = house.domain.routes.iter().find(|route| route.operation == "dead_letter_replay").unwrap();
    let Call::Verb(act) = replay.call else { panic!("a replay is an act") };
    let operator = person(&house, "ann", &["operator"]);
    // Nothing is in doubt, so there is nothing to say about it.
    for applied in [true, false] {
        let fault = house.act(&operator, act, json!({"run": dead, "applied": applied})).await.unwrap_err();
        assert_eq!(fault.code, "flows.run_state");
    }
    house.act(&operator, act, json!({"run": dead})).await.unwrap();
    house.settle().await;
    let letter = read(&house, "/v1/dead-letters/{run}", &[("run", dead.as_str())]).await.unwrap();
    assert_eq!(letter["replays"], 1);
}

#[tokio::test]
async fn two_versions_of_a_workflow_are_compared() {
    let house = House::empty(4).await;
    for v in 1..=3 {
        house.publish(&format!("name: a\nsteps:\n  - {{id: x, transform: {{v: {v}}}}}\n")).await.unwrap();
    }
    let diff = read(&house, "/v1/workflows/{workflow}/diff", &[("workflow", "a")]).await.unwrap();
    let expected = json!([{"place": "steps.x.transform.v", "before": 2, "after": 3}]);
    assert_eq!(diff["changes"], expected);
    let shown = read(&house, "/v1/workflows/{workflow}", &[("workflow", "a")]).await.unwrap();
    let first = shown["versions"][2]["digest"].as_str().unwrap();
    let params = [("workflow", "a"), ("from", first)];
    let diff = read(&house, "/v1/workflows/{workflow}/diff", &params).await.unwrap();
    assert_eq!(diff["changes"][0]["before"], 1);
    let params = [("workflow", "a"), ("from", "0")];
    let fault = read(&house, "/v1/workflows/{workflow}/diff", &params).await.unwrap_err();
    assert_eq!(fault.class, Class::NotFound);
}
