//! Two tests that walk the table: nobody gets in who should not, and no act goes unrecorded.
//!
//! They read the same rows that the router and the harness read, so a route or a verb is covered on the day it is added.

use crate::acts::{EXAMPLES, STORIES, carry_out};
use crate::support::{Ask, World};
use act::{Call, Method, Route};
use kernel::TenantId;
use server::openapi::path_params;
use std::collections::BTreeSet;

/// Routes that a caller without a key may use. The file can only shrink.
const OPEN_ROUTES: &str = include_str!("open_routes.txt");

fn named(route: &Route) -> String {
    format!("{:?} {}", route.method, route.path)
        .to_uppercase()
        .replace(&route.path.to_uppercase(), route.path)
}

/// The route's path with an id in each place that looks like one and is none.
fn somewhere(route: &Route) -> String {
    path_params(route.path).iter().fold(route.path.to_owned(), |path, name| {
        path.replace(&format!("{{{name}}}"), "run_00000000000000000000000000000000")
    })
}

fn body_for(ask: Ask, route: &Route) -> Ask {
    if route.method == Method::Get { ask } else { ask.json(&serde_json::json!({})) }
}

#[tokio::test]
async fn h10_every_route_refuses_whoever_is_unknown() {
    let world = World::start().await;
    let open: BTreeSet<&str> =
        OPEN_ROUTES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let mut found_open = BTreeSet::new();
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        let name = named(route);
        let bare = body_for(world.ask(route.method, &somewhere(route)), route);
        let signed = matches!(route.call, Call::Receive(_));
        for ask in [
            bare.clone(),
            bare.clone()
                .header("Authorization", "Bearer key_unknown.0123456789012345678901234567890123456789"),
            bare.clone().header("Authorization", "Basic YWRtaW46YWRtaW4="),
            bare.clone().header("Cookie", "key=1"),
            // A valid id with a wrong secret.
            bare.clone().key(&format!("{}.{}", world.admin.split('.').next().unwrap(), "0".repeat(64))),
        ] {
            let answer = ask.send().await;
            match answer.status {
                401 => {}
                // Who sends signed deliveries to an address that nobody has learns no more than that.
                404 if signed => {}
                200 if open.contains(name.as_str()) => {
                    found_open.insert(name.clone());
                }
                status => panic!("{name} answers {status} to a stranger: {}", answer.text()),
            }
        }
    }
    let found: BTreeSet<&str> = found_open.iter().map(String::as_str).collect();
    assert_eq!(found, open, "open_routes.txt names exactly the routes that are open");
    world.running.shutdown().await;
}

#[tokio::test]
async fn every_route_refuses_a_principal_without_a_role() {
    let world = World::start().await;
    let (_, key) = world.principal("nobody", &[]).await;
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        let answer = match route.call {
            Call::Verb(act) => {
                let prepare = EXAMPLES
                    .iter()
                    .find(|(name, _)| *name == act)
                    .unwrap_or_else(|| panic!("no example of {act}"));
                let mut example = (prepare.1)(&world).await;
                example.key.clone_from(&key);
                example.tenant = world.tenant();
                carry_out(&world, act, &example).send().await
            }
            Call::Query(..) | Call::Stream(..) if route.auth == act::Auth::Principal => {
                world.ask(route.method, &somewhere(route)).key(&key).send().await
            }
            Call::Query(..) | Call::Stream(..) | Call::Receive(_) => continue,
        };
        assert!([403, 404].contains(&answer.status), "{}: {} {}", named(route), answer.status, answer.text());
        answer.code();
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn every_verb_leaves_a_fact() {
    let world = World::start().await;
    let house = world.house();
    let verbs: BTreeSet<&str> =
        house.domains.iter().flat_map(|domain| &domain.verbs).map(|verb| verb.act).collect();
    let shown = EXAMPLES.iter().map(|(act, _)| *act).chain(STORIES.iter().map(|(act, _)| *act)).collect();
    assert_eq!(verbs, shown, "acts.rs has one example of every act");
    for (act, prepare) in EXAMPLES {
        let example = prepare(&world).await;
        let before = world.size(&example.tenant).await;
        carry_out(&world, act, &example).send().await.ok();
        recorded(&world, act, &example.tenant, before).await;
    }
    for (act, story) in STORIES {
        let before = world.size(&world.tenant()).await;
        story(&world).await;
        recorded(&world, act, &world.tenant(), before).await;
    }
    every_fact_is_declared(&world).await;
    world.running.shutdown().await;
}

/// What all those acts have stated is in the table, of the right domain, and in the contract of events.
async fn every_fact_is_declared(world: &World) {
    let contract = world.admin(Method::Get, "/asyncapi.json").send().await.ok();
    let declared: BTreeSet<&str> =
        world.house().domains.iter().flat_map(|domain| domain.facts).copied().collect();
    let mut stated = BTreeSet::new();
    let schema = crate::contract::event_schema(&contract);
    for tenant in world.house().store.tenants().await.unwrap() {
        for (index, leaf) in world.leaves(&tenant, 0).await.into_iter().enumerate() {
            stated.insert(leaf["kind"].as_str().unwrap().to_owned());
            let event = notify::event::cloud(index as u64, leaf);
            let message = &contract["components"]["messages"][event["type"].as_str().unwrap()];
            assert!(message.is_object(), "{} is in no domain's table", event["type"]);
            assert!(schema.is_valid(&event), "{event}");
        }
    }
    assert!(stated.iter().all(|kind| declared.contains(kind.as_str())));
    // So many of them that the test means something.
    assert!(stated.len() > declared.len() / 2, "{} of {}", stated.len(), declared.len());
}

async fn recorded(world: &World, act: &str, tenant: &TenantId, from: u64) {
    let leaves = world.leaves(tenant, from).await;
    assert!(leaves.iter().any(|leaf| leaf["act"] == act), "{act} left no fact: {leaves:?}");
    let text = format!("{leaves:?}");
    assert!(!text.contains("canary-value-4711"), "{act} put a secret into a fact: {text}");
    assert!(
        !text.contains("canary-target-4711"),
        "{act} put an address, which can be a secret, into a fact: {text}"
    );
}

#[tokio::test]
async fn every_permission_of_a_read_is_one_that_roles_can_name() {
    let world = World::start().await;
    let asked: BTreeSet<&str> = world
        .house()
        .domains
        .iter()
        .flat_map(|domain| &domain.routes)
        .filter(|route| route.auth == act::Auth::Principal)
        .filter_map(|route| match &route.call {
            Call::Query(permission, _) | Call::Stream(permission, _) => Some(*permission),
            Call::Verb(_) | Call::Receive(_) => None,
        })
        .collect();
    let known: BTreeSet<&str> = access::reads::PERMISSIONS.iter().copied().collect();
    assert_eq!(asked, known);
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_table_that_contradicts_itself_is_found() {
    let world = World::start().await;
    assert_eq!(server::assemble::table_misfits(&world.house().domains), Vec::<String>::new());
    let twice: Vec<act::Domain> =
        world.house().domains.iter().chain(world.house().domains.iter()).cloned().collect();
    assert!(server::assemble::table_misfits(&twice).iter().any(|misfit| misfit.contains("twice")));
    let mut open = world.house().domains.to_vec();
    open[0].routes[0].auth = act::Auth::Public;
    let misfits = server::assemble::table_misfits(&open);
    assert!(misfits.iter().any(|misfit| misfit.starts_with("principal_create")), "{misfits:?}");
    world.running.shutdown().await;
}
