//! Starting, ending, starting again.

use crate::support::{World, config};
use act::{Method, SystemIds};
use kernel::TenantId;
use server::StartError;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use store::SystemClock;
use testkit::VirtualClock;

#[tokio::test]
async fn the_first_start_makes_a_key_and_later_ones_keep_it() {
    let world = World::start().await;
    let file = world.house().config.folder.join("admin.key");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), world.admin);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&world.house().config.folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!world.house().config.folder.join("admin.secret").exists());
    world.admin(Method::Get, "/v1/principals").send().await.ok();
    // The same folder opens again in the same process: nothing of the first house is left behind.
    let world = world.restart().await;
    assert_eq!(world.running.admin_key, None);
    let answer = world.ask(Method::Get, "/v1/principals").key(&world.admin).send().await;
    assert_eq!(answer.ok()["items"][0]["name"], "admin");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_goes_on() {
    let world = World::start().await;
    let folder = world.house().config.folder.clone();
    let (id, secret) = world.admin.split_once('.').unwrap();
    // As a crash leaves it between the commit and the file: the secret is there, the key's file is not.
    std::fs::remove_file(folder.join("admin.key")).unwrap();
    std::fs::write(folder.join("admin.secret"), secret).unwrap();
    let expected = format!("{id}.{secret}");
    let world = world.restart().await;
    assert_eq!((world.running.admin_key.as_deref(), &world.admin), (Some(expected.as_str()), &expected));
    assert_eq!(std::fs::read_to_string(folder.join("admin.key")).unwrap().trim(), expected);
    assert!(!folder.join("admin.secret").exists());
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_safe_does_not_start() {
    let world = World::start().await;
    let start = |change: fn(&mut server::Config)| {
        let mut config = config(&world.folder);
        change(&mut config);
        server::serve(config, Arc::new(SystemClock), Arc::new(SystemIds))
    };
    let code =
        |started: Result<server::Running, StartError>| started.map(|_| ()).map_err(|error| error.code());
    assert_eq!(code(start(|_| ()).await), Err("edge.store_unusable"), "two servers in one folder");
    assert_eq!(
        code(start(|config| config.listen = "0.0.0.0:0".parse().unwrap()).await),
        Err("edge.config_invalid")
    );
    assert_eq!(
        code(start(|config| config.folder = "/dev/null/writ".into()).await),
        Err("edge.folder_unusable")
    );
    let mut taken = config(&world.folder);
    taken.listen = world.running.addr;
    let started = server::serve(taken, Arc::new(SystemClock), Arc::new(SystemIds)).await;
    assert_eq!(code(started), Err("edge.listen_failed"));
    world.running.shutdown().await;
}

#[tokio::test]
async fn the_policy_is_recorded_and_renewed_and_ends_when_nobody_renews_it() {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |config| config.policy_ttl_ms = 60_000).await;
    let house = world.house().clone();
    let platform = TenantId::platform();
    let seq = async || {
        let answer = world.ask(Method::Get, "/v1/policy").key(&world.admin).send().await.ok();
        (answer["seq"].as_u64().unwrap(), answer["not_after_ms"].as_i64().unwrap())
    };
    let published = |leaves: Vec<serde_json::Value>| {
        leaves
            .iter()
            .filter(|leaf| leaf["kind"] == "governor.policy.published" && leaf["outcome"]["seq"].is_u64())
            .count()
    };
    let first = seq().await;
    assert_eq!(published(world.leaves(&platform, 0).await), 1, "the first policy is a recorded act");
    // A third of its time passes, and then all of it at once, as if the machine had slept.
    for (by_ms, expected) in [(21_000, 2), (600_000, 3)] {
        let mut facts = house.store.hints().facts;
        clock.advance_ms(by_ms);
        while published(world.leaves(&platform, 0).await) < expected {
            facts.changed().await.unwrap();
        }
        // Recorded and in force are two steps.
        while !server::policy::in_force(&house.harness) {
            tokio::task::yield_now().await;
        }
    }
    assert!(seq().await > first);
    assert_eq!(world.ask(Method::Get, "/readyz").send().await.status, 200);
    world.running.shutdown().await;
    // Nobody renews it any more.
    clock.advance_ms(60_000);
    assert!(!server::policy::in_force(&house.harness));
}
