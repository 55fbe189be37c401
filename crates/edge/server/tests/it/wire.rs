//! What every answer carries, and what a caller may make an act depend on: tags, rates, ids. Where it can be, generated
//! from the table.

use crate::acts::{EXAMPLES, route_of, split};
use crate::support::{Answer, Ask, World};
use act::{Call, Method, Route, Trace};
use serde_json::{Value, json};
use server::http::etag;
use server::openapi::path_params;
use std::collections::BTreeSet;
use std::sync::Arc;
use testkit::VirtualClock;

const NOT_MINE: &str = "\"999999-0000000000000000\"";

/// A read of the record that an example's act names.
fn look(world: &World, record: &Route, key: &str, tenant: &str, args: &Value) -> Ask {
    let path = path_params(record.path).iter().fold(record.path.to_owned(), |path, name| {
        path.replace(&format!("{{{name}}}"), args[*name].as_str().unwrap())
    });
    world.ask(Method::Get, &path).key(key).header("Writ-Tenant", tenant)
}

fn tag_of(answer: &Answer) -> String {
    answer.ok();
    answer.header("etag").unwrap_or_else(|| panic!("no tag: {}", answer.text())).to_owned()
}

#[tokio::test]
async fn an_act_on_a_record_can_depend_on_what_its_caller_saw() {
    let world = World::start().await;
    let house = world.house();
    let mut seen = BTreeSet::new();
    for (act, prepare) in EXAMPLES {
        let routes: Vec<Route> = house.domains.iter().flat_map(|domain| domain.routes.clone()).collect();
        for route in routes.iter().filter(|route| matches!(route.call, Call::Verb(name) if name == *act)) {
            let Some(record) = etag::record_of(&house.domains, route) else { continue };
            seen.insert(record.operation);
            let example = prepare(&world).await;
            let looked = look(&world, record, &example.key, example.tenant.as_str(), &example.args);
            let tag = tag_of(&looked.send().await);
            let (path, body) = split(route.path, &example.args);
            let ask = world.ask(route.method, &path).key(&example.key).json(&body);
            let ask = ask.header("Writ-Tenant", example.tenant.as_str());
            for malformed in ["7", "\"7", "\"a\" \"b\"", "*, \"a\"", ""] {
                ask.clone().header("If-Match", malformed).send().await.refused(400, "edge.header_refused");
            }
            ask.clone().header("If-None-Match", "*").send().await.refused(400, "edge.header_refused");
            let before = world.size(&example.tenant).await;
            for stale in [NOT_MINE, &format!("W/{tag}"), "\"another server's\"", "\"\""] {
                let answer = ask.clone().header("If-Match", &stale.replace(' ', "_")).send().await;
                answer.refused(412, "request.precondition");
                let now = answer.json()["details"]["etag"].as_str().unwrap().to_owned();
                assert_eq!(now.split('-').next(), tag.split('-').next(), "{act} names the present state");
            }
            let leaves = world.leaves(&example.tenant, before).await;
            assert!(!leaves.iter().any(|leaf| leaf["act"] == *act), "{act} did something: {leaves:?}");
            let both = format!("{NOT_MINE}, {tag}");
            let done = ask.clone().header("If-Match", &both).send().await;
            done.ok();
            if done.status == 200 {
                // What was seen is not what is there now, unless the act leaves the record as it is.
                let now = looked.send().await;
                let gone = now.status == 404;
                if !gone && tag_of(&now).split('-').next() == tag.split('-').next() {
                    assert_eq!(*act, "notify.webhook.test", "{act} changes its record");
                    continue;
                }
                let again = ask.clone().header("If-Match", &tag).send().await;
                let stale = (412, "request.precondition");
                let expected: &[_] = match (gone, *act) {
                    // It runs, and is no dead letter; but it fails again, perhaps before it is asked for again.
                    (_, "flows.run.replay") => &[(404, "not_found"), stale],
                    (true, _) => &[(404, "not_found")],
                    // What was agreed to is no longer there to be agreed to, whoever asks and on what condition.
                    (false, "flows.tool.approve") => &[(409, "request.state")],
                    (false, _) => &[stale],
                };
                let found = (again.status, again.code());
                assert!(expected.contains(&(found.0, found.1.as_str())), "{act}: {}", again.text());
            }
        }
    }
    let acted_on = [
        "approval_show",
        "budget_show",
        "connector_show",
        "dead_letter_show",
        "principal_show",
        "run_show",
        "secret_show",
        "workflow_show",
    ];
    for operation in acted_on {
        assert!(seen.contains(operation), "{operation}: {seen:?}");
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn whoever_has_a_representation_is_not_sent_it_again() {
    let world = World::start().await;
    let house = world.house();
    let mut seen = BTreeSet::new();
    let tagged: Vec<Route> = house.domains.iter().flat_map(|domain| domain.routes.clone()).collect();
    for (act, prepare) in EXAMPLES {
        let Some(row) = route_of(&world, act) else { continue };
        for read in
            tagged.iter().filter(|read| etag::tagged(read) && path_params(read.path) == path_params(row.path))
        {
            let example = prepare(&world).await;
            let looked = look(&world, read, &example.key, example.tenant.as_str(), &example.args);
            let answer = looked.send().await;
            if answer.status == 404 {
                continue;
            }
            let tag = tag_of(&answer);
            let have = |tags: &str| looked.clone().header("If-None-Match", tags);
            for tags in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
                let answer = have(&tags).send().await;
                // An approval shows its age, so its next representation may be another, and has another tag.
                let same = answer.header("etag") == Some(&tag) || tags == "*";
                let expected = if same { (304, true) } else { (200, false) };
                assert_eq!((answer.status, answer.body.is_empty()), expected, "{}", read.path);
                assert!(answer.header("etag").is_some() && answer.header("x-request-id").is_some());
                if same {
                    seen.insert(read.operation);
                }
            }
            assert_eq!(have(NOT_MINE).send().await.status, 200);
            have("nonsense").send().await.refused(400, "edge.header_refused");
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
    // Lists have none, and neither has what is counted.
    for path in ["/v1/principals", "/v1/runs", "/v1/accounts", "/v1/prices"] {
        let answer = world.admin(Method::Get, path).header("If-None-Match", "*").send().await;
        assert_eq!((answer.status, answer.header("etag")), (200, None), "{path}");
    }
    // A condition that cannot be held to is no condition to be ignored.
    let create = world.admin(Method::Post, "/v1/principals").header("If-Match", "*");
    create
        .json(&json!({"name": "x", "kind": "person", "roles": []}))
        .send()
        .await
        .refused(400, "edge.header_refused");
    world.running.shutdown().await;
}

/// Makes an own role of the tenant, whose set of acts can be changed; its path.
async fn own_role(world: &World) -> String {
    let create = world.admin(Method::Post, "/v1/roles");
    let made = create.json(&json!({"name": "triagers", "acts": ["flows.run.start"]})).send().await.ok();
    format!("/v1/roles/{}", made["id"].as_str().unwrap())
}

#[tokio::test]
async fn a_condition_shows_nothing_to_whoever_may_not_look() {
    let world = World::start().await;
    let path = own_role(&world).await;
    let (_, key) = world.principal("nobody", &[]).await;
    let acts = json!({"acts": ["flows.run.cancel"]});
    let ask = world.ask(Method::Put, &path).key(&key).json(&acts);
    ask.clone().header("If-Match", NOT_MINE).send().await.refused(403, "access.read_denied");
    ask.header("If-Match", "*").send().await.refused(403, "access.read_denied");
    // Who may look and not act hears of policy, not of revisions.
    let (_, auditor) = world.principal("auditor", &["auditor"]).await;
    let ask = world.ask(Method::Put, &path).key(&auditor).json(&acts);
    assert_eq!(ask.header("If-Match", NOT_MINE).send().await.status, 403);
    world.running.shutdown().await;
}

#[tokio::test]
async fn of_two_who_saw_the_same_one_acts() {
    let world = World::start().await;
    let path = own_role(&world).await;
    let tag = tag_of(&world.admin(Method::Get, &path).send().await);
    let set = |act: &str| {
        let ask = world.admin(Method::Put, &path);
        ask.json(&json!({"acts": [act]})).header("If-Match", &tag)
    };
    let all: Vec<Ask> =
        (0..16).map(|n| set(if n % 2 == 0 { "flows.run.cancel" } else { "flows.run.replay" })).collect();
    let answers = futures::future::join_all(all.iter().map(Ask::send)).await;
    let done = answers.iter().filter(|answer| answer.status == 200).count();
    let late = answers.iter().filter(|answer| answer.status == 412).count();
    assert_eq!((done, late), (1, 15), "{answers:?}");
    // The same act again under its key has been done, whatever the record is by now.
    let tag = tag_of(&world.admin(Method::Get, &path).send().await);
    let ask = world.admin(Method::Put, &path).json(&json!({"acts": ["flows.run.signal"]}));
    let ask = ask.header("If-Match", &tag).header("Idempotency-Key", "once");
    let first = ask.send().await;
    assert_eq!((first.status, ask.send().await.body), (200, first.body.clone()));
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_caller_in_a_loop_is_slowed_down_and_nobody_else_is() {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |config| config.limits.requests_per_minute = 10).await;
    let other = kernel::TenantId::platform();
    // The administrator's requests count too, so it makes one principal and no more.
    let (_, key) = world.principal("loop", &["auditor"]).await;
    let ask = world.ask(Method::Get, "/v1/principals").key(&key);
    for left in (0..10).rev() {
        let answer = ask.send().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"principal\";q=10;w=60"));
        let standing = format!("\"principal\";r={left};t={}", (10 - left) * 6);
        assert_eq!(answer.header("ratelimit"), Some(standing.as_str()));
    }
    let refused = ask.send().await;
    refused.refused(429, "edge.rate_exceeded");
    assert_eq!(refused.json()["retryable"], true);
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit")),
        (Some("6"), Some("\"principal\";r=0;t=60"))
    );
    assert_eq!(world.admin(Method::Get, "/v1/principals").send().await.status, 200, "others go on");
    // A stranger has no bucket, and learns the policy all the same.
    let stranger = world.ask(Method::Get, "/healthz").send().await;
    assert_eq!(stranger.header("ratelimit"), None);
    assert!(stranger.header("ratelimit-policy").is_some());
    // It is refused traffic like any other: one fact, however much it was.
    ask.send().await.refused(429, "edge.rate_exceeded");
    let before = world.size(&world.tenant()).await;
    server::rounds::refused(world.house().clone()).await;
    let leaves = world.leaves(&world.tenant(), before).await;
    let counted: Vec<&Value> =
        leaves.iter().filter(|leaf| leaf["outcome"]["code"] == "edge.rate_exceeded").collect();
    assert_eq!((counted.len(), &counted[0]["outcome"]["count"]), (1, &json!(2)), "{leaves:?} {other}");
    clock.advance_ms(6_000);
    assert_eq!(ask.send().await.status, 200, "one is back after a tenth of the minute");
    ask.send().await.refused(429, "edge.rate_exceeded");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_trace_goes_through_to_the_fact_and_back_to_the_caller() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let world = World::start().await;
    let create = |name: &str| {
        world
            .admin(Method::Post, "/v1/principals")
            .json(&json!({"name": name, "kind": "person", "roles": []}))
    };
    let before = world.size(&world.tenant()).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer =
        create("traced").header("traceparent", &parent).header("X-Request-Id", "mine-1").send().await;
    answer.ok();
    let said = answer.header("traceresponse").unwrap();
    assert!(said.starts_with(&format!("00-{TRACE}-")) && said != parent, "{said}");
    let leaf = world.leaves(&world.tenant(), before).await.pop().unwrap();
    let trace = Trace::of(leaf["trace"].as_str().unwrap());
    assert_eq!((trace.trace_hex().as_str(), trace.request_id.as_deref()), (TRACE, Some("mine-1")));
    assert_eq!(trace.traceparent(), said);
    // What is malformed, or said twice, is replaced and breaks nothing.
    for odd in [
        &[("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")][..],
        &[("traceparent", "<script>")],
        &[("traceparent", parent.as_str()), ("traceparent", parent.as_str())],
        &[],
    ] {
        let ask =
            odd.iter().fold(world.ask(Method::Get, "/healthz"), |ask, (name, value)| ask.header(name, value));
        let answer = ask.send().await;
        let said = answer.header("traceresponse").unwrap_or_else(|| panic!("{odd:?}"));
        assert!(
            answer.status == 200 && !said.contains(TRACE) && act::trace::traceparent(said).is_some(),
            "{said}"
        );
    }
    // A refused request has one as well.
    let refused = world.ask(Method::Get, "/v1/keys").header("traceparent", &parent).send().await;
    assert!(refused.header("traceresponse").unwrap().contains(TRACE));
    world.running.shutdown().await;
}

#[tokio::test]
async fn the_contract_says_which_routes_take_conditions() {
    let world = World::start().await;
    let contract = world.ask(Method::Get, "/openapi.json").send().await.ok();
    let house = world.house();
    for route in house.domains.iter().flat_map(|domain| &domain.routes) {
        let operation = &contract["paths"][route.path][format!("{:?}", route.method).to_lowercase()];
        let header = |name: &str| {
            operation["parameters"].as_array().unwrap().iter().any(|parameter| parameter["name"] == name)
        };
        let named = etag::record_of(&house.domains, route).is_some();
        assert_eq!(
            (header("If-Match"), operation["responses"]["412"].is_object()),
            (named, named),
            "{}",
            route.operation
        );
        let tagged = etag::tagged(route);
        let says = operation["responses"]["200"]["headers"]["ETag"].is_object();
        assert_eq!((header("If-None-Match"), says), (tagged, tagged), "{}", route.operation);
    }
    world.running.shutdown().await;
}
