//! `triage_p95`: from an incident's event to its write-back, at 50 runs a second.
//!
//! The real server, over HTTP, with everything switched on that a new installation has; outside it ServiceNow's stand-in on
//! loopback, and the built-in classifier. Deliveries come at a fixed pace, whether or not the ones before are done: a
//! server that falls behind is not given time. The clock runs from the sending of the event until the stand-in applied the
//! write, so the three calls to the stand-in are in it; beside it stands, as the baseline, what three such calls take when
//! they are made straight to it. Incidents that policy puts before a person would measure the person, so the texts are those
//! of which the classifier is sure enough for policy.

use crate::commit::{fsync_p50_us, percentile};
use crate::row;
use act::SystemIds;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cli::furnish::{self, MANIFEST, WORKFLOW};
use client::Client;
use sandbox::{Credentials, Incident, IncidentSeed, Sandbox, WebhookEvent};
use serde_json::Value;
use server::Config;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use store::{Clock as _, SystemClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const TRAINING: &str = include_str!("../../contracts/samples/training.csv");
/// Between two deliveries: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Deliveries before it counts, and deliveries that do.
const WARM: usize = 50;
const COUNTED: usize = 500;
/// How often it is looked whether the last write has come, and how long between two looks.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(50);
/// How sure the classifier has to be for the default policy to let a write through, in thousandths.
const SURE_MILLI: u32 = 850;
/// Calls to the stand-in for the baseline.
const CALLS: usize = 300;

/// Texts and groups of the tickets that the classifier learns.
fn tickets() -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_reader(TRAINING.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.expect("the samples are well-formed");
        (row.get(1).unwrap_or_default().to_owned(), row.get(2).unwrap_or_default().to_owned())
    });
    rows.collect()
}

/// One request to the stand-in, straight, on a connection of its own.
async fn call(address: &str, secrets: &Credentials, method: &str, path: &str, body: &str) {
    let login = BASE64.encode(format!("{}:{}", secrets.user_name, secrets.password));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Basic {login}\r\naccept: application/json\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("the stand-in listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.expect("it answers");
    assert!(reply.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&reply));
}

/// 95th percentile of what the three calls of a run take when nobody is in between, in milliseconds.
async fn straight_ms(sandbox: &Sandbox, secrets: &Credentials, incidents: &[Incident]) -> f64 {
    let address = sandbox.base_url().trim_start_matches("http://");
    let mut waits = Vec::new();
    for (n, incident) in incidents.iter().cycle().take(CALLS).enumerate() {
        let path = format!("/api/now/table/incident/{}", incident.sys_id);
        let from_us = SystemClock.monotonic_us();
        call(address, secrets, "GET", &path, "").await;
        call(address, secrets, "GET", "/api/now/table/sys_user_group?sysparm_limit=100", "").await;
        call(address, secrets, "PATCH", &path, &format!("{{\"work_notes\":\"straight {n}\"}}")).await;
        waits.push(SystemClock.monotonic_us() - from_us);
    }
    percentile(waits, 0.95) as f64 / 1000.0
}

/// The row.
#[expect(clippy::print_stdout, reason = "figures are printed")]
pub async fn rows() -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let fsync = fsync_p50_us(folder.path());
    let tickets = tickets();
    let groups: BTreeSet<String> = tickets.iter().map(|(_, group)| group.clone()).collect();
    let secrets = furnish::credentials();
    let mut stage = sandbox::Config::new(furnish::sandbox_clock(), secrets.clone());
    stage.servicenow.groups = groups.into_iter().collect();
    let sandbox = Sandbox::start(stage).await.expect("the stand-ins start");
    let training = folder.path().join("training.csv");
    std::fs::write(&training, TRAINING).expect("a file");
    let mut config = Config {
        folder: folder.path().join("house"),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        private_hosts: vec![sandbox.base_url().trim_start_matches("http://").to_owned()],
        ..Config::default()
    };
    config.models.baseline_training = Some(training);
    let running = server::serve(config, std::sync::Arc::new(SystemClock), std::sync::Arc::new(SystemIds))
        .await
        .expect("the server starts");
    let key = running.admin_key.clone().expect("a first start makes the administrator's key");
    let tenant = running.house.config.first_tenant.as_str().to_owned();
    let url = format!("http://{}", running.addr);
    let platform = Client::new(&url, key, None, furnish::monotonic_ms).expect("a client");
    let admin = platform.in_tenant(&tenant);
    let builder =
        furnish::person(&admin, "builder", &["builder", "operator"], None).await.expect("a builder");
    let builder = admin.with_key(builder);
    let hook =
        furnish::servicenow(&admin, MANIFEST, sandbox.base_url(), &secrets).await.expect("a connector");
    furnish::workflow(&builder, WORKFLOW).await.expect("a workflow");

    let seed = |text: &str| IncidentSeed { short_description: text.to_owned(), ..IncidentSeed::default() };
    let pairs = tickets.iter().map(|(text, group)| (text.as_str(), group.as_str()));
    let classifier = models::baseline::Baseline::train(pairs, Default::default()).expect("good samples");
    let incidents: Vec<Incident> = tickets
        .iter()
        .map(|(text, _)| text)
        .filter(|text| classifier.classify(text).confidence_milli >= SURE_MILLI)
        .cycle()
        .take(WARM + COUNTED)
        .map(|text| sandbox.incident_seed(&seed(text)).expect("it fits"))
        .collect();
    let mut pace = tokio::time::interval(PACE);
    let mut sending = JoinSet::new();
    for (at, incident) in incidents.iter().enumerate() {
        pace.tick().await;
        let webhook = sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created).expect("it is there");
        let (client, hook, sys_id) = (builder.clone(), hook.clone(), incident.sys_id.clone());
        sending.spawn(async move {
            let from_ms = SystemClock.now_ms();
            let sent = client.deliver(&hook, &webhook.headers, Bytes::from(webhook.body)).await;
            sent.expect("a delivery is taken");
            (at, sys_id, from_ms)
        });
    }
    let sent = sending.join_all().await;
    let written = || -> HashMap<String, i64> {
        let effects = sandbox.effects();
        let mut first = HashMap::new();
        for effect in effects.into_iter().filter(|effect| !effect.markers.is_empty()) {
            first.entry(effect.sys_id).or_insert(effect.at_ms);
        }
        first
    };
    // Until nothing more comes: what waits for a person never does.
    let (mut done, mut still) = (written(), 0);
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = written();
        still = if now.len() == done.len() { still + 1 } else { 0 };
        done = now;
        if done.len() == incidents.len() || still == LOOKS / 4 {
            break;
        }
    }
    let counted = sent.iter().filter(|(at, ..)| *at >= WARM);
    let waits: Vec<u64> =
        counted.filter_map(|(_, sys_id, from_ms)| u64::try_from(done.get(sys_id)? - from_ms).ok()).collect();
    let (p50, p95) = (percentile(waits.clone(), 0.5), percentile(waits.clone(), 0.95));
    println!(
        "triage: {} of {COUNTED} incidents were written back without a person; p50 {p50} ms, p95 {p95} ms",
        waits.len()
    );
    assert_eq!(waits.len(), COUNTED, "all of them go through without a person");
    assert_eq!(sandbox.effects_duplicated(), 0, "nothing is written twice");
    let straight = straight_ms(&sandbox, &secrets, &incidents).await;
    running.shutdown().await;
    sandbox.shutdown().await;
    vec![row("triage_p95", p95 as f64, "ms", Some(straight), fsync, "<= 250 at 50 runs/s")]
}
