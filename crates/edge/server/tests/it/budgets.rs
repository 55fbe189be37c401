//! Budgets as people meet them: over the API, with a run that stops, and reports as files.

use crate::acts::{EXAMPLES, STORIES, carry_out};
use crate::support::World;
use act::Method;
use serde_json::json;

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
