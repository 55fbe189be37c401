//! What a machine does to a server: its clock is set, its folder cannot be written.

use crate::support::{World, config};
use act::{Clock as _, Method, SystemIds};
use kernel::TenantId;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use store::SystemClock;
use testkit::VirtualClock;

const TTL_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A clock that is set a day back, and two days forward: acts go on by themselves, no policy is in force for longer than it
/// was given, keys end by the clock that is, and the log takes no notice.
#[tokio::test]
async fn a_clock_that_jumps_stops_nothing_and_prolongs_nothing() {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |config| config.policy_ttl_ms = TTL_MS).await;
    let (_, key) = world.principal("someone", &["builder"]).await;
    let mine = async || world.ask(Method::Get, "/v1/runs").key(&key).send().await.status;
    let body = json!({"name": "short", "kind": "person", "roles": ["auditor"]});
    let principal = world.admin(Method::Post, "/v1/principals").json(&body).send().await.ok();
    let secret = kernel::hex::encode(&kernel::sha256(b"short"));
    let ends = json!({
        "principal": principal["principal"], "name": "short", "expires_at_ms": clock.now_ms() + DAY_MS / 2,
        "secret_sha256": kernel::hex::encode(&kernel::sha256(secret.as_bytes())),
    });
    let short = world.admin(Method::Post, "/v1/keys").json(&ends).send().await.ok();
    let short = format!("{}.{secret}", short["key"].as_str().unwrap());
    let lasting = async || world.ask(Method::Get, "/v1/runs").key(&short).send().await.status;
    assert_eq!((mine().await, lasting().await), (200, 200));
    let platform = TenantId::platform();
    for (by_ms, still) in [(-DAY_MS, 200), (2 * DAY_MS, 401), (-DAY_MS, 200)] {
        let mut facts = world.house().store.hints().facts;
        clock.set_ms(clock.now_ms() + by_ms);
        loop {
            let shown = world.ask(Method::Get, "/v1/policy").key(&world.admin).send().await.ok();
            let left_ms = shown["not_after_ms"].as_i64().unwrap() - clock.now_ms();
            if left_ms > 0 && left_ms <= TTL_MS && server::policy::in_force(&world.house().harness) {
                break;
            }
            facts.changed().await.unwrap();
        }
        assert_eq!(mine().await, 200, "a key without an end");
        assert_eq!(lasting().await, still, "by {by_ms}");
        let name = world.unused("other");
        let body = json!({"name": name, "kind": "person", "roles": ["auditor"]});
        world.admin(Method::Post, "/v1/principals").json(&body).send().await.ok();
        let house = world.house();
        for tenant in [&world.tenant(), &platform] {
            house.evidence.seal(&house.store, tenant).await.unwrap();
        }
    }
    world.running.shutdown().await;
}

/// A place that cannot be written is said at the start, by name.
#[tokio::test]
async fn a_place_that_cannot_be_written_is_named_at_the_start() {
    type Change = fn(&mut server::Config);
    let cases: [(Change, &str); 2] = [
        (|config| config.folder = PathBuf::from("/proc/writ"), "edge.folder_unusable"),
        (|config| config.high_water_file = PathBuf::from("/proc/writ.high-water"), "edge.mark_unusable"),
    ];
    for (change, code) in cases {
        let folder = testkit::folder::fresh();
        let mut config = config(&folder);
        change(&mut config);
        let started = server::serve(config, Arc::new(SystemClock), Arc::new(SystemIds)).await;
        assert_eq!(started.map(|_| ()).map_err(|error| error.code()), Err(code));
    }
}
