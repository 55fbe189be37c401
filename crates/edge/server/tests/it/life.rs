//! Starting, ending, starting again.

use crate::desk::Desk;
use crate::support::{World, config};
use act::{Method, SystemIds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evidence::Trust;
use kernel::TenantId;
use sandbox::{Fault, FaultRule, Service};
use serde_json::json;
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
    // The other system fails once: the run tries again a moment later, which the first server may not live to see.
    let fault = FaultRule::new(Service::ServiceNow, Fault::ServerError { status: 503 }).method("GET").once();
    desk.sandbox.fault_add(fault).unwrap();
    let (_, answer) = desk.incident("Locked out: my password expired and the VPN refuses my account").await;
    let retried = answer.ok()["run"].as_str().unwrap().to_owned();
    let failed = |leaves: Vec<serde_json::Value>| {
        leaves
            .iter()
            .any(|leaf| leaf["kind"] == "flows.tool.finished" && leaf["outcome"]["outcome"] == "failed")
    };
    let mut facts = world.house().store.hints().facts;
    while !failed(world.leaves(&world.tenant(), 0).await) {
        facts.changed().await.unwrap();
    }
    let world = world.restart().await;
    let desk = Desk::open(&world).await;
    // A policy is in force before the first job runs: nothing is denied for want of one.
    desk.decide(&retried, true, 1).await;
    desk.decide(&waiting, true, 1).await;
    for run in [&retried, &waiting] {
        let finished = desk.until(run, |run| run["status"] == "finished").await;
        assert_eq!(finished["outcome"], "done", "{finished}");
    }
    assert_eq!(desk.sandbox.effects_duplicated(), 0);
    let (tenant, house) = (world.tenant(), world.house().clone());
    world.running.shutdown().await;
    // The last thing a server does is to sign what it has recorded.
    let checkpoint = house.store.checkpoint_last(&tenant).await.unwrap().unwrap();
    assert_eq!(checkpoint.size, house.store.head(&tenant).await.unwrap().unwrap().size);
}

/// Larger than any room that is left in the pages there are.
const LARGE: usize = 20_000;

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_is_over_when_there_is_room() {
    let world = World::start_with(|config| config.limits.storage_bytes = 4 << 20).await;
    let desk = Desk::open(&world).await;
    let waiting = desk.waiting_write().await;
    let secret = async |world: &World, n: usize, bytes: usize| {
        let body = json!({"name": format!("filler-{n}"), "purpose": "a test", "value": "x".repeat(bytes)});
        world.admin(Method::Post, "/v1/secrets").json(&body).send().await
    };
    // First what needs many pages, then what needs few, until not even that goes in.
    let (mut n, mut kept) = (0, Vec::new());
    for bytes in [4_000, 1] {
        let mut refused = 0;
        while refused < 5 {
            n += 1;
            let answer = secret(&world, n, bytes).await;
            if answer.status == 200 {
                kept.push(n);
            } else {
                answer.refused(503, "store.full");
                assert_eq!(
                    (answer.header("retry-after"), &answer.json()["retryable"]),
                    (Some("1"), &json!(true))
                );
                refused += 1;
            }
        }
    }
    assert!(kept.len() > 20, "{}", kept.len());
    // Whatever else would be written is refused as well, a delivery among it; nothing of it is half there.
    let size = world.size(&world.tenant()).await;
    let start = json!({"workflow": "writes", "event": {"sys_id": "x", "note": "y".repeat(LARGE)}});
    world.admin(Method::Post, "/v1/runs").json(&start).send().await.refused(503, "store.full");
    let (incident, answer) = desk.incident(&"z ".repeat(LARGE)).await;
    answer.refused(503, "store.full");
    assert_eq!(world.size(&world.tenant()).await, size);
    // Reads go on.
    assert_eq!(world.ask(Method::Get, "/readyz").send().await.status, 200);
    let shown = world.admin(Method::Get, &format!("/v1/runs/{waiting}")).send().await.ok();
    assert_eq!(shown["status"], "waiting");
    let checked = async |world: &World, kept: &[usize]| {
        for n in 1..=n {
            let shown = world.admin(Method::Get, &format!("/v1/secrets/filler-{n}")).send().await;
            assert_eq!(shown.status, if kept.contains(&n) { 200 } else { 404 }, "{n}");
        }
    };
    checked(&world, &kept).await;
    // A restart finds it as full, and serves; with more room everything goes on.
    let world = world.restart().await;
    checked(&world, &kept).await;
    secret(&world, n, 4_000).await.refused(503, "store.full");
    let world = world.restart_with(|config| config.limits.storage_bytes = 0).await;
    let desk = Desk::open(&world).await;
    checked(&world, &kept).await;
    secret(&world, n, 4_000).await.ok();
    desk.decide(&waiting, true, 1).await;
    let finished = desk.until(&waiting, |run| run["status"] == "finished").await;
    assert_eq!(finished["outcome"], "done", "{finished}");
    // The delivery that was refused is made again.
    let again = desk.deliver(&incident.sys_id).await.ok();
    assert!(again["run"].is_string(), "{again}");
    assert_eq!(desk.sandbox.effects_duplicated(), 0);
    let trust = world.admin(Method::Get, "/v1/trust").send().await.ok();
    let trust = Trust::parse(trust["trust"].to_string().as_bytes()).unwrap();
    let exported = world.admin(Method::Post, "/v1/evidence").json(&json!({"all": true})).send().await.ok();
    let path = format!("/v1/evidence/{}", exported["bundle"].as_str().unwrap());
    let bundle = world.admin(Method::Get, &path).send().await.ok();
    let bytes = BASE64.decode(bundle["bundle_base64"].as_str().unwrap()).unwrap();
    let report = evidence::verify(&bytes, &trust, None);
    assert!(report.ok(), "{report:?}");
    world.running.shutdown().await;
}

/// Where SQLite keeps the version of a schema in the head of its file (four bytes, the highest first).
const USER_VERSION_AT: std::ops::Range<usize> = 60..64;

#[tokio::test]
async fn a_folder_of_another_schema_is_refused_and_not_misread() {
    let world = World::start().await;
    let config = (*world.house().config).clone();
    let World { running, folder, .. } = world;
    running.shutdown().await;
    let file = config.folder.join("writ.db");
    let good = std::fs::read(&file).unwrap();
    let mut other = good.clone();
    other[USER_VERSION_AT].copy_from_slice(&99u32.to_be_bytes());
    std::fs::write(&file, &other).unwrap();
    let start = || server::serve(config.clone(), Arc::new(SystemClock), Arc::new(SystemIds));
    let error = start().await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "edge.store_unusable");
    let StartError::Store(why) = &error else { panic!("{error}") };
    assert!(why.to_string().contains("schema version 99"), "{why}");
    assert_eq!(std::fs::read(&file).unwrap(), other, "it was touched");
    std::fs::write(&file, &good).unwrap();
    start().await.unwrap().shutdown().await;
    drop(folder);
}
