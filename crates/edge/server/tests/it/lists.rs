//! Lists that go in and lists that come out: with one foreign row among many, with a cursor of another list, and names that
//! somebody else has.

use crate::acts::{EXAMPLES, carry_out, route_of};
use crate::desk::Desk;
use crate::support::World;
use crate::tokens::told;
use act::{Auth, Call, Method};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every argument of every act that is a list of names, as `act member`.
fn lists(world: &World) -> BTreeSet<String> {
    let mut lists = BTreeSet::new();
    for verb in world.house().domains.iter().flat_map(|domain| &domain.verbs) {
        if route_of(world, verb.act).is_none() {
            continue;
        }
        let schema = (verb.args)();
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let is_list = member["type"] == "array"
                || member["type"].as_array().is_some_and(|types| types.iter().any(|of| of == "array"));
            if is_list && member["items"]["type"] == "string" {
                lists.insert(format!("{} {name}", verb.act));
            }
        }
    }
    lists
}

/// One row among many that is not the caller's to name, wherever it stands: none of it is done. Every act that takes a list
/// of names is tried, so a new one needs a row here.
#[tokio::test]
async fn b04_one_foreign_row_among_many_and_none_of_it_is_done() {
    let world = World::start().await;
    let other = world.second_tenant().await;
    // A role that only the other tenant has.
    let foreign = json!({"name": "foreign", "acts": ["flows.run.start"]});
    let create = world.ask(Method::Post, "/v1/roles").key(&world.admin).header("Writ-Tenant", other.as_str());
    create.json(&foreign).send().await.ok();
    for n in 0..20 {
        let own = json!({"name": format!("own-{n}"), "acts": ["flows.run.start"]});
        world.admin(Method::Post, "/v1/roles").json(&own).send().await.ok();
    }
    let (principal, _) = world.principal("holder", &["operator"]).await;
    let set = json!({"name": "to-set", "acts": ["flows.run.start"]});
    world.admin(Method::Post, "/v1/roles").json(&set).send().await.ok();
    let acts: Vec<&str> = vec![
        "flows.run.start",
        "flows.run.cancel",
        "flows.run.replay",
        "flows.run.signal",
        "flows.run.read",
        "flows.workflow.publish",
        "flows.workflow.retire",
        "flows.workflow.read",
        "governor.approval.read",
    ];
    let own_roles: Vec<String> = (0..20).map(|n| format!("own-{n}")).collect();
    let mut tried = BTreeSet::new();
    let base = |value: Value| value;
    for (act, member, args, good, bad) in [
        (
            "access.principal.create",
            "roles",
            base(json!({"name": "many roles", "kind": "person"})),
            json!(own_roles),
            json!("foreign"),
        ),
        (
            "access.role.create",
            "acts",
            base(json!({"name": "many-acts"})),
            json!(acts),
            json!("flows.rum.start"),
        ),
        (
            "access.role.set",
            "acts",
            base(json!({"role": "to-set"})),
            json!(acts),
            json!("access.tenant.create"),
        ),
        (
            "access.key.create",
            "acts",
            base(json!({"principal": principal, "name": "k", "secret_sha256": "0".repeat(64)})),
            json!(["flows.run.start", "flows.run.cancel"]),
            json!("access.tenant.create"),
        ),
        (
            "notify.webhook.create",
            "kinds",
            base(
                json!({"target": "http://127.0.0.1:9/x", "secret": "whsec_Y2FuYXJ5LXZhbHVlLTQ3MTEtY2FuYXJ5LXZhbHVlLTQ3MTE="}),
            ),
            json!(["flows.run.finished", "flows.run.created", "governor.approval.requested"]),
            json!("flows.run.finishd"),
        ),
    ] {
        tried.insert(format!("{act} {member}"));
        let good = good.as_array().unwrap();
        for at in [0, good.len() / 2, good.len()] {
            let mut list = good.clone();
            list.insert(at, bad.clone());
            let mut args = args.clone();
            args[member] = json!(list);
            let before = world.size(&world.tenant()).await;
            let answer = carry_out(&world, act, &crate::acts::by_admin(&world, args)).send().await;
            assert!(
                [403, 409, 422].contains(&answer.status),
                "{act} at {at}: {} {}",
                answer.status,
                answer.text()
            );
            let leaves = world.leaves(&world.tenant(), before).await;
            let done = leaves.iter().find(|leaf| leaf["act"] == act && leaf["kind"] != "governor.decided");
            assert!(done.is_none(), "{act} at {at} did something: {done:?}");
        }
        // Without it all of it is done, so it was that row alone.
        let mut args = args.clone();
        args[member] = json!(good);
        let answer = carry_out(&world, act, &crate::acts::by_admin(&world, args)).send().await;
        assert_eq!(answer.status, 200, "{act}: {}", answer.text());
    }
    assert_eq!(tried, lists(&world), "every list of names that an act takes is tried");
    world.running.shutdown().await;
}

/// Lists that are whole in one answer, and why none of them gets long.
const WHOLE: &[(&str, &str)] = &[
    ("/v1/artifact-keys", "a tenant has at most 32"),
    ("/v1/budgets", "a tenant has at most 200"),
    ("/v1/costs", "sums, and it says if they are not complete"),
    ("/v1/epochs", "each was opened by hand"),
    ("/v1/policy-keys", "a tenant has at most 32"),
    ("/v1/prices/versions", "a table has at most 200"),
    ("/v1/webhooks", "a tenant has at most 20"),
];

/// No list is cut without a word: each leads on, row by row, to all that it has, or is short by its nature.
#[tokio::test]
async fn every_list_leads_on_to_all_that_it_has() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    for n in 0..3 {
        desk.waiting_write().await;
        world.principal(&format!("person {n}"), &["auditor"]).await;
        for (path, body) in [
            ("/v1/roles", json!({"name": format!("role-{n}"), "acts": ["flows.run.start"]})),
            ("/v1/secrets", json!({"name": format!("secret-{n}"), "purpose": "test", "value": "s3cret"})),
            ("/v1/workspaces", json!({"name": format!("place-{n}"), "environment": "development"})),
        ] {
            world.admin(Method::Post, path).json(&body).send().await.ok();
        }
    }
    let routes = world.house().domains.iter().flat_map(|domain| &domain.routes);
    let reads = routes.filter(|route| {
        route.auth == Auth::Principal && matches!(route.call, Call::Query(..)) && !route.path.contains('{')
    });
    let (mut whole, mut walked) = (BTreeSet::new(), 0);
    for route in reads {
        let answer = world.admin(Method::Get, route.path).send().await;
        if answer.status != 200 || !answer.text().starts_with('{') || !answer.json()["items"].is_array() {
            continue;
        }
        if !route.query.iter().any(|param| param.name == "after") {
            whole.insert(route.path);
            continue;
        }
        let page = async |query: &str| {
            let mut page = world.admin(Method::Get, &format!("{}?{query}", route.path)).send().await.ok();
            assert!(page.get("next").is_some(), "{}: {page}", route.path);
            let items: Vec<Value> = page["items"].as_array_mut().unwrap().drain(..).collect();
            // Asking is a use of a key, and takes time.
            let stable = items.into_iter().map(|mut item| {
                for name in ["used_at_ms", "age_ms"] {
                    item[name].take();
                }
                item
            });
            (stable.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
        };
        let (all, end) = page("limit=200").await;
        assert_eq!(end, None, "{}", route.path);
        let (mut found, mut next) = page("limit=1").await;
        while let Some(cursor) = next {
            let (more, then) = page(&format!("limit=1&after={cursor}")).await;
            found.extend(more);
            next = then;
        }
        assert!(found == all, "{}: {} one by one, {} at once", route.path, found.len(), all.len());
        walked += usize::from(all.len() > 2);
    }
    assert_eq!(whole, WHOLE.iter().map(|(path, _)| *path).collect());
    assert!(walked > 9, "most lists have something in them: {walked}");
    world.running.shutdown().await;
}

/// A cursor leads back into the list that gave it out and into no other: not into another tenant's, not into another
/// route's, not under another filter. Every list of the table is asked.
#[tokio::test]
async fn b05_a_cursor_is_of_one_list_of_one_tenant() {
    let world = World::start().await;
    let other = world.second_tenant().await;
    let desk = Desk::open(&world).await;
    for n in 0..2 {
        desk.waiting_write().await;
        world.principal(&format!("person {n}"), &["auditor"]).await;
    }
    let routes: Vec<&str> = world
        .house()
        .domains
        .iter()
        .flat_map(|domain| &domain.routes)
        .filter(|route| route.auth == Auth::Principal && matches!(route.call, Call::Query(..)))
        .filter(|route| route.query.iter().any(|param| param.name == "after") && !route.path.contains('{'))
        .map(|route| route.path)
        .collect();
    assert!(routes.len() > 8, "{routes:?}");
    let ask = async |path: &str, query: &str, tenant: &str| {
        world
            .ask(Method::Get, &format!("{path}?{query}"))
            .key(&world.admin)
            .header("Writ-Tenant", tenant)
            .send()
            .await
    };
    let (main, foreign) = (world.tenant().to_string(), other.to_string());
    let mut cursors = Vec::new();
    for path in &routes {
        let page = ask(path, "limit=1", &main).await.ok();
        if let Some(next) = page["next"].as_str() {
            cursors.push((*path, next.to_owned()));
        }
    }
    assert!(cursors.len() >= 5, "most lists have something in them: {cursors:?}");
    for (path, cursor) in &cursors {
        ask(path, &format!("limit=1&after={cursor}"), &main).await.ok();
        let elsewhere = ask(path, &format!("limit=1&after={cursor}"), &foreign).await;
        elsewhere.refused(422, "request.invalid");
        // Whether it was ever given out cannot be heard either.
        let made_up = ask(path, &format!("limit=1&after={}", "0".repeat(cursor.len())), &foreign).await;
        assert_eq!(told(&elsewhere), told(&made_up), "{path}");
        for place in
            [cursor.rsplit_once('.').unwrap().0.to_owned(), format!("0{cursor}"), format!("{cursor}0")]
        {
            ask(path, &format!("after={place}"), &main).await.refused(422, "request.invalid");
        }
        for route in &routes {
            if route != path {
                ask(route, &format!("after={cursor}"), &main).await.refused(422, "request.invalid");
            }
        }
    }
    // Under another filter it is another list.
    let waiting = ask("/v1/runs", "limit=1&state=waiting", &main).await.ok();
    let cursor = waiting["next"].as_str().unwrap();
    ask("/v1/runs", &format!("limit=2&state=waiting&after={cursor}"), &main).await.ok();
    for filter in ["", "&state=dead"] {
        let answer = ask("/v1/runs", &format!("after={cursor}{filter}"), &main).await;
        answer.refused(422, "request.invalid");
    }
    world.running.shutdown().await;
}

/// Acts that give something a name or a place that can be taken.
const NAMING: &[&str] = &[
    "access.principal.create",
    "access.role.create",
    "access.workspace.create",
    "custody.secret.put",
    "billing.budget.set",
    "flows.connector.install",
    "flows.artifact.publish",
    "flows.artifact_key.register",
    "flows.workflow.publish",
    "governor.policy_key.register",
    "notify.slack.connect",
    "notify.webhook.create",
];

/// What is taken in one tenant is free in another, with the same answer as if nobody had it; and taken there a second time
/// it is answered as it was here.
#[tokio::test]
async fn b06_a_name_that_another_tenant_has_is_free() {
    let world = World::start().await;
    let other = world.second_tenant().await;
    // An answer without the ids and times in it, which differ each time.
    let shape = |status: u16, body: Value| -> (u16, Value) {
        let members = body.as_object().unwrap().iter().map(|(name, value)| match value {
            Value::String(_) if name != "code" && name != "title" && name != "detail" => {
                (name.clone(), json!("…"))
            }
            value => (name.clone(), value.clone()),
        });
        (status, members.filter(|(name, _)| name != "request_id" && !name.ends_with("_ms")).collect())
    };
    for act in NAMING {
        let (_, prepare) = EXAMPLES.iter().find(|(name, _)| name == act).unwrap();
        let mut example = prepare(&world).await;
        let mut answers = Vec::new();
        for tenant in [world.tenant(), other.clone()] {
            example.tenant = tenant;
            for _ in 0..2 {
                let answer = carry_out(&world, act, &example).send().await;
                answers.push(shape(answer.status, answer.json()));
            }
        }
        assert_eq!(answers[0].0, 200, "{act}: {}", answers[0].1);
        assert_eq!(answers[0], answers[2], "{act}: the first time");
        assert_eq!(answers[1], answers[3], "{act}: the second time");
    }
    world.running.shutdown().await;
}
