//! Starting, ending, starting again.

use crate::desk::Desk;
use crate::support::{World, config};
use act::{Method, SystemIds};
use kernel::TenantId;
use sandbox::{Fault, FaultRule, Service};
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

#[tokio::test]
async fn what_was_under_way_goes_on_after_a_restart() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    let waiting = desk.waiting_write().await;
    // The other system fails once: the run tries again in half a second, which the first server does not live to see.
    desk.sandbox
        .fault_add(
            FaultRule::new(Service::ServiceNow, Fault::ServerError { status: 503 }).method("GET").once(),
        )
        .unwrap();
    let (_, answer) = desk.incident("my password expired and the VPN refuses my account").await;
    let retried = answer.ok()["run"].as_str().unwrap().to_owned();
    let fails =
        |leaves: Vec<serde_json::Value>| leaves.iter().any(|leaf| leaf["kind"] == "flows.step.retried");
    let mut facts = world.house().store.hints().facts;
    while !fails(world.leaves(&world.tenant(), 0).await) {
        if tokio::time::timeout(std::time::Duration::from_secs(3), facts.changed()).await.is_err() {
            for leaf in world.leaves(&world.tenant(), 0).await {
                eprintln!("{} {} {}", leaf["kind"], leaf["stream"], leaf["outcome"]);
            }
            panic!();
        }
    }
    eprintln!("restarting");
    let world = world.restart().await;
    eprintln!("restarted");
    let desk = Desk::open(&world).await;
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let shown = world.admin(Method::Get, &format!("/v1/runs/{retried}")).send().await.ok();
        eprintln!(
            "{} {} {} {:?}",
            shown["status"],
            shown["step"],
            shown["error"],
            world.house().store.jobs(&world.tenant(), 10).await
        );
    }
    // A policy is in force before the first job runs: nothing is denied for want of one.
    desk.until(&retried, |run| run["approval"].is_string()).await;
    desk.decide(&retried, true, 1).await;
    desk.decide(&waiting, true, 1).await;
    for run in [&retried, &waiting] {
        let finished = desk.until(run, |run| run["status"] == "finished").await;
        assert_eq!(finished["outcome"], "done", "{finished}");
    }
    assert_eq!(desk.sandbox.effects_duplicated(), 0);
    let last = world.tenant();
    let house = world.house().clone();
    world.running.shutdown().await;
    // The last thing a server does is to sign what it has recorded.
    let checkpoint = house.store.checkpoint_last(&last).await.unwrap().unwrap();
    assert_eq!(checkpoint.size, house.store.head(&last).await.unwrap().unwrap().size);
}
