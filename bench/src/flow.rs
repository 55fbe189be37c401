//! `flow_seq` and `flow_32`: a workflow of three transforms, durable at every step, from the act that starts it to the
//! commit that finishes it. The caller runs the job that it holds, so this is the engine and the write path without HTTP.

use crate::commit::{fsync_p50_us, percentile};
use crate::row;
use act::{Assurance, Ctx, Principal, PrincipalKind, SystemIds};
use harness::{Done, Terms};
use kernel::{Id, TenantId};
use serde_json::{Value, json};
use server::House;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{Clock as _, SystemClock};
use tokio::task::JoinSet;

const WORKFLOW: &str = include_str!("../../contracts/workflows/three-steps.yaml");
/// Runs one after another.
const SEQUENTIAL: usize = 400;
/// Callers at once.
const CALLERS: usize = 32;
/// How long they run.
const ROUND: Duration = Duration::from_secs(4);

fn ctx(tenant: &TenantId) -> Ctx {
    Ctx {
        tenant: tenant.clone(),
        principal: Principal {
            id: Id::parse("prn_bench").expect("a constant id"),
            kind: PrincipalKind::Person,
            roles: vec!["builder".into()],
            home: tenant.clone(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "key".into(), level: 0, at_ms: 0, until_ms: None },
        trace: "trc_bench".into(),
        idempotency_key: None,
        requested_at_ms: 0,
    }
}

/// Starts a run and drives it to its end.
async fn once(house: &House, ctx: &Ctx) {
    let args = json!({"workflow": "three-steps", "event": {"amount": 3}});
    match house.harness.act(ctx, "flows.run.start", args, Terms::default()).await {
        Ok(Done::Outcome { held, .. }) => {
            for lease in held {
                let spec = house
                    .jobs()
                    .into_iter()
                    .find(|spec| spec.kind.name == "flows.step")
                    .expect("flows has a job");
                (spec.run)(lease).await;
            }
        }
        other => panic!("a run did not start: {other:?}"),
    }
}

async fn finished(house: &House, tenant: &TenantId) -> Value {
    let view = house.store.view(tenant, SystemClock.now_ms());
    let done = store::key::Key::new().text("done").bytes();
    let found =
        view.list::<flows::run::RunDoc>(store::Range::of("status", done)).await.expect("runs are listed");
    json!(found.len())
}

pub async fn rows() -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let fsync = fsync_p50_us(folder.path());
    let mut config = server::Config::parse("", []).expect("the default configuration");
    config.folder = folder.path().join("house");
    let house = server::assemble::assemble(config, Arc::new(SystemClock), Arc::new(SystemIds))
        .await
        .expect("a house")
        .house;
    server::policy::boot(&house.harness, house.custody.keyring(), house.config.policy_ttl_ms, false)
        .await
        .expect("a policy");
    let tenant = house.config.first_tenant.clone();
    let ctx = ctx(&tenant);
    house
        .harness
        .act(&ctx, "flows.workflow.publish", json!({"yaml": WORKFLOW}), Terms::default())
        .await
        .expect("the workflow is published");
    let mut waits = Vec::new();
    for _ in 0..SEQUENTIAL {
        let from_us = SystemClock.monotonic_us();
        once(&house, &ctx).await;
        waits.push(SystemClock.monotonic_us() - from_us);
    }
    assert_eq!(finished(&house, &tenant).await, json!(store::PAGE_MAX), "runs end");
    let (p50, p99) = (percentile(waits.clone(), 0.5), percentile(waits, 0.99));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let from_us = SystemClock.monotonic_us();
    for _ in 0..CALLERS {
        let (house, ctx, stop) = (house.clone(), ctx.clone(), stop.clone());
        tasks.spawn(async move {
            let mut runs = 0u64;
            while !stop.load(Ordering::Relaxed) {
                once(&house, &ctx).await;
                runs += 1;
            }
            runs
        });
    }
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let runs: u64 = tasks.join_all().await.into_iter().sum();
    let per_second = runs as f64 / ((SystemClock.monotonic_us() - from_us) as f64 / 1e6);
    vec![
        row(
            "flow_seq_p50",
            p50 as f64 / 1000.0,
            "ms",
            Some(fsync as f64 / 1000.0),
            fsync,
            "<= 8 at fdatasync p50 <= 600 us",
        ),
        row("flow_seq_p99", p99 as f64 / 1000.0, "ms", Some(fsync as f64 / 1000.0), fsync, ""),
        row(
            "flow_32",
            per_second,
            "runs/s",
            Some(1e6 / fsync.max(1) as f64),
            fsync,
            ">= 1000 at fdatasync p50 <= 600 us",
        ),
    ]
}
