//! A secret of every sort that this system takes, everything that it does, and a look into every place where one could come
//! to light.
//!
//! Each secret is a canary: a text that stands nowhere else. They are planted where such secrets belong, every act of the
//! table is carried out with good input and tried with bad, integrations call out with them, and meanwhile everything is
//! kept that leaves the process or stays behind it: answers, log lines down to the last level, what a collector is sent,
//! facts, bundles, metrics, the files of the folder. Then it is all searched, for each canary in every spelling that a
//! careless line would have it in.
//!
//! A new act is covered by its row in `acts.rs`. A new sort of secret needs a row in [`planted`].

use crate::acts::{EXAMPLES, STORIES, carry_out, route_of, split};
use crate::desk::{Desk, WEBHOOK_SECRET};
use crate::support::{ANSWERED, World};
use act::{Call, Method};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use contracts::models::{ModelCall, ModelCalls as _};
use egress::{Egress, EgressConfig};
use kernel::{Id, TenantId, hex};
use models::call::Models;
use sandbox::{Credentials, OauthConfig, Sandbox};
use serde_json::{Value, json};
use server::config::{OpenAi, SecretRef};
use server::openapi::path_params;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::SystemClock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

const MODEL_KEY: &str = "canary-model-key-4711";
const OAUTH_SECRET: &str = "canary-oauth-client-4711";
const HOOK_SECRET: &str = "whsec_Y2FuYXJ5LW91dGdvaW5nLXdlYmhvb2stNDcxMS1zZWNyZXQ=";
const MISPLACED: &str = "canary-misplaced-4711";
/// Where the examples of `acts.rs` put a secret: passwords of connectors, Slack's token and signing secret, a webhook's.
const OF_EXAMPLES: &str = "canary-value-471";

/// Bytes that come in from many sides.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A collector that takes everything; it ends with the test.
async fn collector(kept: Kept) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut set = JoinSet::new();
    set.spawn(async move {
        let mut each = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut kept = kept.clone();
            each.spawn(async move {
                let (mut read, mut piece) = (Vec::new(), vec![0; 65_536]);
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    let _ = kept.write(&piece[..count]);
                    read.extend_from_slice(&piece[..count]);
                    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
                    if read.len() >= end + 4 + length {
                        read.drain(..end + 4 + length);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    (url, set)
}

/// What is looked for: what it is, and the bytes that must not stand anywhere.
fn planted(keys: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let secrets = [
        ("a secret of the examples", OF_EXAMPLES),
        ("a model provider's key", MODEL_KEY),
        ("an OAuth client's secret", OAUTH_SECRET),
        ("a webhook's secret of ours", HOOK_SECRET),
        ("an inbound webhook's secret", WEBHOOK_SECRET),
        ("a secret in the wrong place", MISPLACED),
    ];
    let mut needles = Vec::new();
    for (what, secret) in secrets.iter().chain(keys) {
        let bytes = secret.as_bytes();
        let listed = bytes.iter().map(u8::to_string).collect::<Vec<_>>();
        let core = secret.strip_prefix("whsec_").unwrap_or(secret).trim_end_matches('=');
        let mut spellings = vec![
            ("as text", core.as_bytes().to_vec()),
            ("in hexadecimal", hex::encode(bytes).into_bytes()),
            ("as a list of numbers", listed.join(", ").into_bytes()),
            ("as a compact list", listed.join(",").into_bytes()),
            ("backwards", bytes.iter().rev().copied().collect()),
            ("as 16-bit characters", bytes.iter().flat_map(|byte| [*byte, 0]).collect()),
        ];
        // At each of the three offsets at which a text may begin within base64.
        for skip in 0..3 {
            let from = &bytes[skip..];
            let whole = &from[..from.len() / 3 * 3];
            spellings.push(("in base64", BASE64.encode(whole).into_bytes()));
            spellings.push(("in base64 for addresses", BASE64_URL.encode(whole).into_bytes()));
        }
        if let Ok(inner) = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or("-")) {
            spellings.push(("as the bytes that sign", inner));
        }
        needles.extend(spellings.into_iter().map(|(how, bytes)| (format!("{what}, {how}"), bytes)));
    }
    needles
}

/// Every place where one of these stands, with what stands around it.
fn found(place: &str, hay: &[u8], needles: &[(String, Vec<u8>)]) -> Vec<String> {
    // Every needle is ASCII, which survives this, and texts are searched quickly.
    let hay = String::from_utf8_lossy(hay);
    let mut found = Vec::new();
    for (what, needle) in needles {
        let needle = std::str::from_utf8(needle).expect("a canary is ASCII");
        if let Some(at) = hay.find(needle) {
            let around = hay.as_bytes();
            let around = &around[at.saturating_sub(160)..around.len().min(at + needle.len() + 80)];
            found.push(format!("{place}: {what}: …{}…", String::from_utf8_lossy(around)));
        }
    }
    found
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { files(&entry.path(), all) } else { all.push(entry.path()) }
    }
}

/// Every act with what is good, and with what is not: secrets where they do not belong, cut short, of other types.
async fn every_act(world: &World) {
    let wrong = [json!({MISPLACED: MISPLACED}), json!([MISPLACED]), json!(-4711), Value::Null];
    for (act, prepare) in EXAMPLES {
        let example = prepare(world).await;
        let Some(route) = route_of(world, act) else {
            continue;
        };
        let (path, body) = split(route.path, &example.args);
        let send = |path: &str| {
            let ask = world.ask(route.method, path).key(&example.key);
            ask.header("Writ-Tenant", example.tenant.as_str())
        };
        for name in body.as_object().unwrap().keys() {
            // An event is an object of whatever its sender wants kept: there is no wrong place in it.
            for wrong in wrong.iter().filter(|wrong| name != "event" || !wrong.is_object()) {
                let mut body = body.clone();
                body[name] = wrong.clone();
                send(&path).json(&body).send().await;
            }
        }
        let mut more = body.clone();
        more[MISPLACED] = json!(MISPLACED);
        send(&path).json(&more).send().await;
        let cut = format!("{{\"{MISPLACED}\": \"{MISPLACED}");
        send(&path).body("application/json", cut.as_bytes()).send().await;
        send(&path).body(&format!("text/{MISPLACED}"), MISPLACED.as_bytes()).send().await;
        send(&format!("{path}?key={MISPLACED}")).json(&body).send().await;
        // Some of that may have been good after all.
        let example = prepare(world).await;
        carry_out(world, act, &example).header("X-Request-Id", "good").send().await.ok();
    }
    for (_, story) in STORIES {
        story(world).await;
    }
}

/// Every other route, by who may and who may not, with secrets in all the wrong places of a request.
async fn every_read(world: &World) {
    for route in world.house().domains.iter().flat_map(|domain| &domain.routes) {
        if matches!(route.call, Call::Stream(..)) {
            continue;
        }
        let names = path_params(route.path);
        let path = names
            .iter()
            .fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), MISPLACED));
        let ask = |path: &str| world.ask(route.method, path);
        ask(&path).key(MISPLACED).send().await;
        ask(&path).key(&format!("key_a.{MISPLACED}{MISPLACED}")).send().await;
        ask(&path).header("Authorization", &format!("Basic {MISPLACED}")).send().await;
        ask(&path).key(&world.admin).header("Cookie", MISPLACED).send().await;
        ask(&path).key(&world.admin).header("Writ-Tenant", MISPLACED).send().await;
        ask(&path).key(&world.admin).header("webhook-signature", MISPLACED).send().await;
        ask(&format!("{path}?access_token={MISPLACED}")).key(&world.admin).send().await;
        for param in route.query {
            ask(&format!("{path}?{}={MISPLACED}", param.name)).key(&world.admin).send().await;
        }
        if names.is_empty() && route.method == Method::Get {
            world.admin(Method::Get, route.path).send().await;
        }
    }
}

/// Calls outside with each sort of secret: to a model, as an OAuth client, to a webhook that nobody answers.
async fn calls_outside(world: &World, sandbox: &Sandbox) {
    let house = world.house();
    let egress = Egress::new(EgressConfig::new(|| 0)).unwrap();
    let providers =
        server::providers::providers(&house.config, &egress, &house.custody, &house.store).unwrap();
    let models = Models::new(house.harness.clone(), providers);
    for (n, key) in [MODEL_KEY, "canary-model-key-4711-that-is-wrong"].into_iter().enumerate() {
        let put = json!({"name": "models", "purpose": "a test", "value": key});
        world.admin(Method::Post, "/v1/secrets").json(&put).send().await.ok();
        let run = Id::parse(&format!("run_secret{n}")).unwrap();
        let ctx = house.harness.service("flows", &world.tenant(), Vec::new(), "trc_test");
        let call = ModelCall {
            key: format!("{run}:classify:0"),
            run,
            workflow: "triage".into(),
            project: None,
            ticket: None,
            pin: "openai/stand-in".into(),
            accepts: vec!["stand-in-2026-11-01".into()],
            system: "Classify the ticket.".into(),
            user: "My laptop screen is broken".into(),
            schema: json!({"type": "object", "additionalProperties": false, "required": ["summary"],
                           "properties": {"summary": {"type": "string"}}}),
            allowed: BTreeMap::new(),
            max_output_tokens: 200,
            sensitivity: "internal".into(),
            causes: Vec::new(),
            brakes: Vec::new(),
        };
        let reply = models.model_call(&ctx, call).await;
        assert_eq!(reply.is_ok(), n == 0, "the right key opens and the wrong one does not");
    }
    let put = json!({"name": "client", "purpose": "a test", "value": OAUTH_SECRET});
    world.admin(Method::Post, "/v1/secrets").json(&put).send().await.ok();
    let install = json!({
        "name": "by-oauth", "manifest": include_str!("../../../../../contracts/connectors/servicenow.yaml"),
        "base_url": sandbox.base_url(), "user": "writ.integration", "oauth_client_id": "writ",
        "oauth_client_secret": "secret:client",
    });
    world.admin(Method::Post, "/v1/connectors").json(&install).send().await.ok();
    let yaml = "name: by-oauth\nsteps:\n  - id: a\n    tool: {connector: by-oauth, action: group.list}\n";
    world.admin(Method::Post, "/v1/workflows").json(&json!({"yaml": yaml})).send().await.ok();
    let desk = Desk::open(world).await;
    let run = desk.start("by-oauth", json!({})).await;
    desk.until(&run, |run| run["status"] == "finished").await;
    assert!(sandbox.token_counts().issued > 0, "a token was fetched with it");
    let webhook = json!({"target": "http://127.0.0.1:9/in", "secret": HOOK_SECRET, "kinds": ["access.*"]});
    let webhook = world.admin(Method::Post, "/v1/webhooks").json(&webhook).send().await.ok();
    let path = format!("/v1/webhooks/{}/test", webhook["webhook"].as_str().unwrap());
    world.admin(Method::Post, &path).json(&json!({})).send().await.ok();
}

#[tokio::test]
async fn h08_a_secret_is_found_nowhere() {
    let (lines, exported) = (Kept::default(), Kept::default());
    let (url, _collecting) = collector(exported.clone()).await;
    let (tap, outlet) = server::telemetry::pair(Arc::new(SystemClock), 7);
    let writer = lines.clone();
    let printed = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    let all = tracing_subscriber::registry()
        .with(printed.with_filter(LevelFilter::TRACE))
        .with(tap.with_filter(LevelFilter::TRACE));
    tracing::subscriber::set_global_default(all).expect("this test has a process of its own");
    let answered = ANSWERED.get_or_init(Mutex::default);

    let credentials = Credentials {
        user_name: "writ.integration".into(),
        password: "unused".into(),
        bearer_token: "unused".into(),
        model_key: MODEL_KEY.into(),
        webhook_secret: WEBHOOK_SECRET.into(),
        control_token: "unused".into(),
    };
    let mut config = sandbox::Config::new(Arc::new(|| act::Clock::now_ms(&SystemClock)), credentials);
    config.servicenow.oauth = Some(OauthConfig {
        client_id: "writ".into(),
        client_secret: OAUTH_SECRET.into(),
        token_lifetime_s: 600,
    });
    let sandbox = Sandbox::start(config).await.unwrap();
    let base_url = format!("{}/v1", sandbox.base_url());
    let world = World::start_observed(Arc::new(SystemClock), Some(outlet), |config| {
        config.telemetry.otlp = Some(url);
        let credential = SecretRef::try_from("secret:models".to_owned()).unwrap();
        config.models.openai = Some(OpenAi { base_url, credential });
        config.limits.requests_per_minute = 1_000_000;
    })
    .await;
    let (_, key) = world.principal("of a person", &["auditor"]).await;
    calls_outside(&world, &sandbox).await;
    every_read(&world).await;
    every_act(&world).await;
    let exports = world.admin(Method::Post, "/v1/evidence").json(&json!({"all": true})).send().await.ok();
    let bundle = format!("/v1/evidence/{}", exports["bundle"].as_str().unwrap());
    let bundle = world.admin(Method::Get, &bundle).send().await.ok();
    let bundle = BASE64.decode(bundle["bundle_base64"].as_str().unwrap()).unwrap();
    let metrics = world.ask(Method::Get, "/metrics").key(&world.admin).send().await.body;

    let secret = |key: &str| key.split_once('.').unwrap().1.to_owned();
    let (admin, key) = (secret(&world.admin), secret(&key));
    let needles = planted(&[("the administrator's key", &admin), ("an API key", &key)]);
    let mut facts = Vec::new();
    for tenant in world.house().store.tenants().await.unwrap() {
        facts.extend(serde_json::to_vec(&world.leaves(&tenant, 0).await).unwrap());
    }
    assert!(facts.len() > 100_000 && world.size(&TenantId::platform()).await > 0);
    let World { running, folder, .. } = world;
    running.shutdown().await;
    let mut hits = Vec::new();
    let arguments = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let told = answered.lock().unwrap().clone();
    for (place, hay, least) in [
        ("answers", &told, 1_000_000),
        ("log lines", &lines.bytes(), 300_000),
        ("telemetry", &exported.bytes(), 100_000),
        ("facts", &facts, 100_000),
        ("a bundle", &bundle, 100_000),
        ("metrics", &metrics, 1_000),
        ("the arguments of the process", &arguments, 1),
    ] {
        assert!(hay.len() >= least, "{place}: {} bytes are too few to mean something", hay.len());
        hits.extend(found(place, hay, &needles));
    }
    let mut paths = Vec::new();
    files(folder.path(), &mut paths);
    assert!(paths.len() > 3, "{paths:?}");
    for path in paths {
        let hay = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The one file that is there to hold the administrator's key, readable by its owner alone.
        let own: Vec<_> = match name == server::admin::KEY_FILE {
            true => {
                needles.iter().filter(|(what, _)| !what.starts_with("the administrator's")).cloned().collect()
            }
            false => needles.clone(),
        };
        hits.extend(found(&name, &hay, &own));
    }
    assert!(hits.is_empty(), "{} places:\n{}", hits.len(), hits.join("\n"));
    // The search finds what is there.
    let bait = format!("x {} y", BASE64.encode(format!("ab{MODEL_KEY}")));
    assert_eq!(found("bait", bait.as_bytes(), &needles).len(), 2, "in base64, both alphabets");
    assert_eq!(found("bait", format!("{:?}", OAUTH_SECRET.as_bytes()).as_bytes(), &needles).len(), 1);
}
