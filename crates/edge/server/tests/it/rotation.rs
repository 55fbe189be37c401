//! A password that is changed on both sides while runs go on: none of them fails.

use crate::desk::Desk;
use crate::support::World;
use act::Method;
use sandbox::IncidentSeed;
use serde_json::{Value, json};

/// Changes of the password.
const CHANGES: usize = 3;
/// Runs begun before, between and after the two sides of a change.
const RUNS: usize = 8;

#[tokio::test]
async fn a_password_is_changed_under_load_and_no_run_fails() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    let incident = desk
        .sandbox
        .incident_seed(&IncidentSeed { short_description: "x".into(), ..IncidentSeed::default() })
        .unwrap();
    let step = |id: &str| {
        format!(
            "  - id: {id}\n    tool: {{connector: servicenow, action: incident.get, params: {{sys_id: '{}'}}}}\n",
            incident.sys_id
        )
    };
    let yaml = format!("name: looks\nsteps:\n{}{}{}", step("a"), step("b"), step("c"));
    world.admin(Method::Post, "/v1/workflows").json(&json!({"yaml": yaml})).send().await.ok();
    let mut runs = Vec::new();
    for change in 0..CHANGES {
        let password = format!("canary-value-4711-{change}");
        for stroke in 0..3 {
            match stroke {
                // Here first, then there, each while calls are under way.
                1 => {
                    let put = json!({"name": "snow-password", "purpose": "a test", "value": password});
                    world.admin(Method::Post, "/v1/secrets").json(&put).send().await.ok();
                }
                2 => desk.sandbox.password_set(&password, false),
                _ => {}
            }
            for _ in 0..RUNS {
                runs.push(desk.start("looks", json!({})).await);
            }
        }
    }
    for run in &runs {
        let ended = desk.until(run, |run| run["status"] == "finished").await;
        assert_eq!(ended["outcome"], "done", "{ended}");
    }
    // Told that both sides agree, the one before is used no more, and it still goes on.
    let retired =
        world.admin(Method::Post, "/v1/secrets/snow-password/retire").json(&json!({})).send().await.ok();
    assert_eq!(retired["retired"], CHANGES);
    let run = desk.start("looks", json!({})).await;
    desk.until(&run, |run| run["status"] == "finished").await;
    let shown = world.admin(Method::Get, "/v1/secrets/snow-password").send().await.ok();
    assert_eq!((&shown["version"], &shown["previous_version"]), (&json!(CHANGES + 1), &Value::Null));
    world.running.shutdown().await;
}
