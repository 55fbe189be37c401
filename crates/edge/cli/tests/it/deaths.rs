//! `writ serve`, killed: at every crash point, and at moments that nobody chose.
//!
//! The promise is about the whole way of an incident and not about a commit: whatever was acknowledged to anybody outside
//! (a delivery, a decision, a bundle) is there after a restart, every run comes to its end, no write takes effect twice, no
//! intent is left open, and the log continues every head that anybody has seen. So the real process is started on a folder,
//! against stand-ins that outlive it, and dies; another is started on the same folder and has to finish. One folder goes
//! through many deaths, because what one death leaves behind is what the next one meets.
//!
//! Who does what outside is one future, [`Trial::work`]: deliveries that were not acknowledged are sent again, as ServiceNow
//! would; a person decides on whatever waits; an auditor takes evidence of every run that has ended. It follows the live
//! facts and nothing else, so it knows neither times nor pauses. It is cut off when the process dies.
//!
//! Those who add a crash point add a row to [`CASES`]. Bringing an older folder up to date happens once and to nobody's run:
//! its points are those of [`crate::upgrade`].

use crate::process::{run, writ};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cli::furnish::{self, MANIFEST, WORKFLOW, monotonic_ms};
use client::{Client, ClientError};
use evidence::trust::Trust;
use evidence::{archive, manifest, verify};
use futures::future::{Either, try_join_all};
use http::Method;
use parking_lot::Mutex;
use sandbox::{Fault, FaultRule, IncidentSeed, Sandbox, Service, Webhook, WebhookEvent};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use tempfile::TempDir;
use testkit::Random;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// The model is sure and the incident not urgent: it goes through.
    Sure,
    /// A person is asked and agrees.
    Granted,
    /// A person is asked and does not.
    Denied,
    /// Like the first, and the reply to the write is lost.
    Lost,
}
use Comes::{Denied, Granted, Lost, Sure};

/// A crash point, at which pass of it, and what is under way.
type Case = (&'static str, u32, &'static [Comes]);

/// The points of every commit, whatever it is for.
const COMMITS: &[Case] = &[
    ("commit.received", 8, &[Sure, Granted]),
    ("commit.applied", 9, &[Sure, Granted]),
    ("commit.durable", 10, &[Sure, Granted]),
    ("commit.replied", 11, &[Sure, Granted]),
    ("commit.received", 31, &[Granted, Denied]),
    ("commit.applied", 30, &[Granted, Denied]),
    ("commit.durable", 29, &[Granted, Denied]),
    ("commit.replied", 28, &[Granted, Denied]),
];

/// Deliveries and calls outside. A run calls three times: it reads twice and writes once.
const CALLS: &[Case] = &[
    ("webhook.received", 2, &[Sure, Granted]),
    ("webhook.recorded", 2, &[Sure, Granted]),
    ("tool.intended", 1, &[Sure]),
    ("tool.intended", 3, &[Sure]),
    ("tool.sent", 2, &[Sure]),
    ("tool.sent", 3, &[Sure]),
    ("tool.sent", 3, &[Granted]),
    ("tool.finished", 3, &[Sure]),
    ("tool.finished", 4, &[Granted, Sure]),
    ("tool.looked", 1, &[Lost]),
];

/// The model, the people, and what is given out.
const OTHERS: &[Case] = &[
    ("model.intended", 1, &[Sure, Granted]),
    ("model.sent", 2, &[Sure, Granted]),
    ("model.finished", 1, &[Sure, Granted]),
    ("approval.decided", 1, &[Granted, Sure]),
    ("approval.decided", 1, &[Denied]),
    ("approval.settled", 1, &[Granted, Sure]),
    ("approval.settled", 1, &[Denied]),
    ("checkpoint.signed", 2, &[Sure, Granted]),
    ("checkpoint.kept", 2, &[Sure, Granted]),
    ("mark.due", 2, &[Sure, Granted]),
    ("mark.moved", 2, &[Sure, Granted]),
    ("evidence.written", 1, &[Sure, Granted]),
];

/// Events on their way to a webhook.
const EVENTS: &[Case] = &[
    ("event.sent", 1, &[Sure]),
    ("event.sent", 20, &[Sure, Granted]),
    ("event.recorded", 1, &[Sure, Granted, Denied]),
];

/// Cards on their way to Slack.
const CARDS: &[Case] = &[
    ("card.sent", 1, &[Granted]),
    ("card.sent", 2, &[Denied]),
    ("card.recorded", 1, &[Granted, Sure]),
    ("card.recorded", 2, &[Granted, Denied]),
];

const CASES: [&[Case]; 5] = [COMMITS, CALLS, OTHERS, EVENTS, CARDS];

/// How often more comes in before a point that nobody passes is given up.
const BATCHES_MAX: u32 = 20;

#[test]
fn every_crash_point_has_a_case() {
    let tried = CASES.iter().copied().flatten().map(|(point, ..)| *point);
    let tried: BTreeSet<&str> = tried.chain(crate::upgrade::POINTS.iter().copied()).collect();
    assert_eq!(tried, store::crash::POINTS.iter().copied().collect());
}

#[test]
fn a_crash_point_that_does_not_exist_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (point, expected) in
        [("commit.dreamt", "commit.applied"), ("commit.applied:0", "passes"), ("", "no crash point")]
    {
        let mut command = writ(&["serve"]);
        command.env("WRIT_FOLDER", folder.path().join("data")).env("WRIT_CRASH_POINT", point);
        let (code, out, err) = run(&mut command);
        assert_eq!((code, out.as_str()), (2, ""), "{point:?}: {err}");
        assert!(err.contains("WRIT_CRASH_POINT") && err.contains(expected), "{point:?}: {err}");
        assert!(!folder.path().join("data").exists(), "nothing was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_dies_at_every_step_of_a_commit() {
    let _ = dies(COMMITS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_dies_around_every_delivery_and_call() {
    let (facts, _) = dies(CALLS).await;
    // Three of these deaths, and the lost reply, certainly leave a write in doubt; each was looked for first.
    let looked: BTreeSet<_> =
        of(&facts, "flows.tool.reconciling").iter().map(|fact| fact["stream"].to_string()).collect();
    assert!(looked.len() >= 4, "{looked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_dies_around_models_people_and_proofs() {
    let _ = dies(OTHERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_dies_around_events_that_are_sent() {
    let (_, heard) = dies(EVENTS).await;
    // Whatever was taken and not yet written down came again, under the id that it had.
    let once: BTreeSet<&String> = heard.iter().collect();
    assert!(once.len() < heard.len(), "{} events, {} deliveries", once.len(), heard.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_dies_around_cards_that_are_shown() {
    let _ = dies(CARDS).await;
}

/// Dies in each of these ways; returns all facts in the end, and what the webhook's target heard.
async fn dies(cases: &[Case]) -> (Vec<Value>, Vec<String>) {
    let mut trial = Trial::set().await;
    let mut facts = Vec::new();
    for (point, pass, comes) in cases {
        let armed = format!("{point}:{pass}");
        let mut life = trial.born(Some(&armed)).await;
        let mut status = None;
        for _ in 0..BATCHES_MAX {
            status = trial.live(&mut life, comes, usize::MAX).await;
            if status.is_some() {
                break;
            }
        }
        let status = status.unwrap_or_else(|| panic!("{armed} is never passed"));
        // SIGABRT: it was its own doing.
        assert_eq!(status.signal(), Some(6), "{armed}: {status}");
        facts = trial.judged(&armed).await;
    }
    let heard = trial.target.heard.borrow().clone();
    (facts, heard)
}

/// Several times in a row, without a moment to recover in between: what the second death meets is a half-done recovery.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_killed_again_and_again() {
    for seed in 1..=2 {
        let mut random = Random::seeded(seed);
        let mut trial = Trial::set().await;
        for death in 0..6 {
            let mut life = trial.born(None).await;
            let comes: &[Comes] = if death < 4 { &[Sure, Granted, Denied] } else { &[] };
            let facts = 1 + random.below(40);
            match trial.live(&mut life, comes, facts).await {
                Some(status) => assert_eq!(status.signal(), Some(9), "seed {seed}, death {death}: {status}"),
                None => {
                    // It was quicker than the killer.
                    life.child.kill().await.unwrap();
                }
            }
        }
        trial.judged(&format!("seed {seed}")).await;
    }
}

/// The facts of one kind.
fn of<'a>(facts: &'a [Value], kind: &str) -> Vec<&'a Value> {
    facts.iter().filter(|fact| fact["kind"] == kind).collect()
}

/// A process.
struct Life {
    child: Child,
    /// Where it listens; nothing if it died before it did.
    url: Option<String>,
    /// The pipe holds the few lines that it says besides.
    _out: Lines<BufReader<ChildStdout>>,
}

/// An incident and what its sender knows of it.
struct Told {
    comes: Comes,
    sys_id: String,
    webhook: Webhook,
    /// The run that the server acknowledged.
    run: Option<String>,
}

/// What everybody outside was told, and so must be true for ever.
#[derive(Default)]
struct Acknowledged {
    told: Vec<Told>,
    /// Decisions.
    decided: BTreeSet<String>,
    /// Bundles: run to the bundle's id and digest.
    bundles: BTreeMap<String, (String, String)>,
    /// Checkpoints that an auditor holds.
    held: Vec<String>,
    /// Facts of the log that have been seen.
    facts: usize,
}

/// A webhook's target: takes everything, and remembers under which ids.
struct Target {
    addr: SocketAddr,
    heard: watch::Receiver<Vec<String>>,
    _set: JoinSet<()>,
}

impl Target {
    async fn start() -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, heard) = watch::channel(Vec::new());
        let mut set = JoinSet::new();
        set.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever dies half-way through a delivery has not delivered it.
                if let Some(id) = taken(stream).await {
                    tell.send_modify(|heard| heard.push(id));
                }
            }
        });
        Target { addr, heard, _set: set }
    }
}

/// Takes one delivery; its id.
async fn taken(stream: TcpStream) -> Option<String> {
    let mut stream = BufReader::new(stream);
    let (mut id, mut bytes) = (None, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some(("webhook-id", value)) => id = Some(value.to_owned()),
            Some(("content-length", value)) => bytes = value.parse().ok()?,
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    stream.read_exact(&mut vec![0; bytes]).await.ok()?;
    let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    // Whether that arrives is for the sender to know.
    let _ = stream.write_all(answer).await;
    id
}

/// One installation through many deaths.
struct Trial {
    folder: TempDir,
    sandbox: Sandbox,
    target: Target,
    hook: String,
    operator: String,
    approver: String,
    trust: Trust,
    acknowledged: Mutex<Acknowledged>,
}

/// Why work outside was cut off.
enum Cut {
    /// The server cannot be reached any more.
    Off,
    /// As many facts were seen as were asked for.
    Enough,
}

impl From<ClientError> for Cut {
    fn from(error: ClientError) -> Cut {
        match error {
            ClientError::Transport { .. } | ClientError::Reply => Cut::Off,
            error @ (ClientError::Problem(_) | ClientError::Setup(_)) => panic!("{error}"),
        }
    }
}

/// What the live facts have told in one life.
#[derive(Default)]
struct Seen {
    runs: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// Calls outside that were intended and have not ended.
    open: BTreeSet<String>,
    /// Approvals that were asked for and are not closed.
    asked: BTreeSet<String>,
    /// Approvals that a run waits for, and approvals that people are shown in Slack: who is both is decided.
    waited: BTreeSet<String>,
    shown: BTreeSet<String>,
}

impl Seen {
    /// Takes a fact in. Says which approval wants a decision, or which run has ended.
    fn take(&mut self, fact: &Value) -> (Option<String>, Option<String>) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (run, outcome) = (text(&fact["stream"]), &fact["outcome"]);
        match fact["kind"].as_str().unwrap_or_default() {
            "flows.run.created" => {
                self.runs.insert(run);
            }
            "flows.run.finished" | "flows.run.dead" => {
                self.ended.insert(run.clone());
                return (None, Some(run));
            }
            "models.call.intended" => {
                self.open.insert(text(&outcome["call"]));
            }
            "models.call.finished" => {
                self.open.remove(&text(&outcome["call"]));
            }
            "governor.approval.requested" => {
                self.asked.insert(text(&outcome["approval"]));
            }
            kind @ ("flows.step.waiting" | "notify.card.sent") => {
                let approval = text(&outcome["approval"]);
                let (here, there) = match kind {
                    "flows.step.waiting" => (&mut self.waited, &self.shown),
                    _ => (&mut self.shown, &self.waited),
                };
                let first = here.insert(approval.clone());
                return ((first && there.contains(&approval)).then_some(approval), None);
            }
            "governor.approval.closed" => {
                self.asked.remove(&run);
            }
            _ => {}
        }
        (None, None)
    }
}

impl Trial {
    /// A fresh folder, furnished as the demo furnishes its own.
    async fn set() -> Trial {
        let secrets = furnish::credentials();
        let mut config = sandbox::Config::new(furnish::sandbox_clock(), secrets.clone());
        config.servicenow.groups = groups();
        let workspace = furnish::workspace(&["approver"]);
        config.slack = Some(workspace.clone());
        let sandbox = Sandbox::start(config).await.unwrap();
        // The stand-in's journal shows a note at once; a real one may take a while.
        let manifest = MANIFEST.replace("settle_ms: [3000, 30000]", "settle_ms: [10, 10]");
        assert_ne!(manifest, MANIFEST);
        // Other bytes are another version.
        let hasty = |text: &str| {
            text.replace("version: \"1.0.0\"\ndescription: Inc", "version: \"1.0.0-hasty\"\ndescription: Inc")
        };
        let manifest = hasty(&manifest);
        let pinned = "servicenow: {manifest: servicenow, version: \"1.0.0\"}";
        let workflow =
            WORKFLOW.replace(pinned, "servicenow: {manifest: servicenow, version: \"1.0.0-hasty\"}");
        assert_ne!(workflow, WORKFLOW);
        let mut trial = Trial {
            folder: testkit::folder::fresh(),
            sandbox,
            target: Target::start().await,
            hook: String::new(),
            operator: String::new(),
            approver: String::new(),
            trust: Trust {
                version: 1,
                installation: String::new(),
                logs: Vec::new(),
                evidence_keys: Vec::new(),
                witnesses: Default::default(),
            },
            acknowledged: Mutex::default(),
        };
        let mut life = trial.born(None).await;
        let url = life.url.as_deref().expect("it starts");
        let key = fs::read_to_string(trial.folder.path().join("data/admin.key")).unwrap();
        let admin = Client::new(url, key.trim().to_owned(), Some("ten_main".into()), monotonic_ms).unwrap();
        let webhook = json!({
            "target": format!("http://{}/in", trial.target.addr),
            "secret": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        });
        furnish::call(&admin, Method::POST, "/v1/webhooks", Some(&webhook)).await.unwrap();
        trial.operator = furnish::person(&admin, "operator", &["builder", "operator"], None).await.unwrap();
        trial.approver = furnish::person(&admin, "approver", &["approver"], None).await.unwrap();
        let base_url = trial.sandbox.base_url().to_owned();
        trial.hook = furnish::servicenow(&admin, &manifest, &base_url, &secrets).await.unwrap();
        furnish::workflow(&admin.with_key(trial.operator.clone()), &workflow).await.unwrap();
        let slack = format!("{base_url}/slack/api");
        furnish::slack(&admin, &workspace, &slack).await.unwrap();
        let shown = furnish::call(&admin, Method::GET, "/v1/trust", None).await.unwrap().body;
        trial.trust = serde_json::from_value(shown["trust"].clone()).unwrap();
        fs::write(trial.folder.path().join("trust.json"), trial.trust.to_json()).unwrap();
        // Until it is gone, the folder is its own.
        life.child.kill().await.unwrap();
        trial
    }

    /// Starts the process.
    async fn born(&self, point: Option<&str>) -> Life {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = writ(&["serve"]);
        command
            .env("WRIT_FOLDER", self.folder.path().join("data"))
            .env("WRIT_LISTEN", "127.0.0.1:0")
            .env(
                "WRIT_PRIVATE_HOSTS",
                format!("{},{}", self.sandbox.base_url().trim_start_matches("http://"), self.target.addr),
            )
            .env("WRIT_LOG", "warn,store=info")
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(point) = point {
            command.env("WRIT_CRASH_POINT", point);
        }
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap();
        let url = first.map(|line| line.strip_prefix("writ serves ").expect("an address").to_owned());
        Life { child, url, _out: lines }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("writ.log")
    }

    /// Lets more come in and works until all of it has ended (`None`), or the process has: by itself, or by our hand after
    /// so many new facts.
    async fn live(&self, life: &mut Life, comes: &[Comes], facts: usize) -> Option<ExitStatus> {
        for comes in comes {
            self.happens(*comes);
        }
        let until = self.acknowledged.lock().facts.saturating_add(facts);
        let Some(url) = life.url.clone() else { return Some(life.child.wait().await.unwrap()) };
        loop {
            tokio::select! {
                status = life.child.wait() => return Some(status.unwrap()),
                worked = self.work(&url, until) => match worked {
                    Ok(()) => return None,
                    // Either it is about to be seen that the process has ended, or a connection was lost in passing.
                    Err(Cut::Off) => tokio::task::yield_now().await,
                    Err(Cut::Enough) => life.child.start_kill().unwrap(),
                },
            }
        }
    }

    /// An incident happens; its sender has a webhook to deliver.
    fn happens(&self, comes: Comes) {
        let level = json!("2");
        let fields = match comes {
            Sure | Lost => Map::new(),
            Granted | Denied => {
                Map::from_iter([("impact".to_owned(), level.clone()), ("urgency".to_owned(), level)])
            }
        };
        let seed = IncidentSeed {
            short_description: surest(),
            description: String::new(),
            fields,
            ..IncidentSeed::default()
        };
        let incident = self.sandbox.incident_seed(&seed).unwrap();
        if comes == Lost {
            let lost = FaultRule::new(Service::ServiceNow, Fault::DropAfterEffect).method("PATCH").once();
            self.sandbox.fault_add(lost).unwrap();
        }
        let webhook = self.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created).unwrap();
        let told = Told { comes, sys_id: incident.sys_id, webhook, run: None };
        self.acknowledged.lock().told.push(told);
    }

    fn client(&self, url: &str, key: &str) -> Client {
        Client::new(url, key.to_owned(), None, monotonic_ms).unwrap()
    }

    /// What goes on outside, until every incident has come to its end and evidence of it was taken.
    async fn work(&self, url: &str, until: usize) -> Result<(), Cut> {
        let (operator, approver) = (self.client(url, &self.operator), self.client(url, &self.approver));
        let mut events = operator.events(None, Some(0)).await?;
        let mut delivering = Either::Left(Box::pin(self.deliver(&operator)));
        let (mut seen, mut count, mut delivered) = (Seen::default(), 0, false);
        loop {
            tokio::select! {
                done = &mut delivering, if !delivered => {
                    done?;
                    delivered = true;
                    delivering = Either::Right(futures::future::pending());
                }
                event = events.next() => {
                    let fact = event?.ok_or(ClientError::Reply)?["data"].take();
                    count += 1;
                    let (asked, ended) = seen.take(&fact);
                    if let Some(approval) = asked {
                        self.decide(&approver, &approval).await?;
                    }
                    if let Some(run) = ended {
                        self.prove(&operator, &run).await?;
                    }
                    let mut acknowledged = self.acknowledged.lock();
                    acknowledged.facts = acknowledged.facts.max(count);
                    if count >= until {
                        return Err(Cut::Enough);
                    }
                }
            }
            let told = self.acknowledged.lock().told.iter().filter(|told| told.run.is_some()).count();
            let quiet = seen.open.is_empty() && seen.asked.is_empty();
            if delivered && quiet && seen.runs.len() == told && seen.ended.len() == told {
                return Ok(());
            }
        }
    }

    /// Sends every delivery that was not acknowledged.
    async fn deliver(&self, client: &Client) -> Result<(), Cut> {
        let waiting: Vec<(usize, Webhook)> = {
            let acknowledged = self.acknowledged.lock();
            let told = acknowledged.told.iter().enumerate().filter(|(_, told)| told.run.is_none());
            told.map(|(at, told)| (at, told.webhook.clone())).collect()
        };
        let each = waiting.into_iter().map(async |(at, webhook)| {
            let reply = client.deliver(&self.hook, &webhook.headers, Bytes::from(webhook.body)).await?;
            let run = reply.body["run"].as_str().unwrap_or_else(|| panic!("no run: {}", reply.body));
            self.acknowledged.lock().told[at].run = Some(run.to_owned());
            Ok::<_, Cut>(())
        });
        try_join_all(each).await.map(|_| ())
    }

    /// Decides on an approval, unless that was acknowledged before.
    async fn decide(&self, client: &Client, approval: &str) -> Result<(), Cut> {
        if self.acknowledged.lock().decided.contains(approval) {
            return Ok(());
        }
        let path = format!("/v1/approvals/{approval}");
        let shown = client.call(Method::GET, &path, &[], None, None).await?.body;
        let about = shown["args"]["params"]["sys_id"].as_str().expect("it is about an incident");
        let comes = {
            let acknowledged = self.acknowledged.lock();
            acknowledged.told.iter().find(|told| told.sys_id == about).expect("an incident of ours").comes
        };
        let (verb, body) = match comes {
            Denied => ("deny", json!({"reason": "as the test wants it"})),
            Granted => ("grant", json!({"preview_digest": shown["preview_digest"]})),
            Sure | Lost => panic!("a person is asked about what policy lets through: {shown}"),
        };
        match client.call(Method::POST, &format!("{path}/{verb}"), &[], Some(&body), None).await {
            Ok(_) => {}
            // It was taken before, and its acknowledgement was lost.
            Err(ClientError::Problem(problem)) if problem.code.starts_with("approval.") => {}
            Err(error) => return Err(error.into()),
        }
        self.acknowledged.lock().decided.insert(approval.to_owned());
        Ok(())
    }

    /// Takes evidence of a run, unless that was acknowledged before, and holds its checkpoint.
    async fn prove(&self, client: &Client, run: &str) -> Result<(), Cut> {
        if self.acknowledged.lock().bundles.contains_key(run) {
            return Ok(());
        }
        let body = json!({"run": run});
        let exported = client.call(Method::POST, "/v1/evidence", &[], Some(&body), Some(run)).await?.body;
        let id = exported["bundle"].as_str().expect("a bundle").to_owned();
        let (bytes, digest) = self.bundle(client, &id).await?;
        let files = archive::read(&bytes).unwrap();
        let checkpoint = String::from_utf8(files[manifest::CHECKPOINT].to_vec()).unwrap();
        let mut acknowledged = self.acknowledged.lock();
        acknowledged.held.push(checkpoint);
        acknowledged.bundles.insert(run.to_owned(), (id, digest));
        Ok(())
    }

    async fn bundle(&self, client: &Client, id: &str) -> Result<(Vec<u8>, String), ClientError> {
        let path = format!("/v1/evidence/{id}");
        let shown = client.call(Method::GET, &path, &[], None, None).await?.body;
        let bytes = BASE64.decode(shown["bundle_base64"].as_str().expect("bytes")).unwrap();
        let digest = kernel::hex::encode(&kernel::sha256(&bytes));
        Ok((bytes, digest))
    }

    /// Starts it unarmed, lets everything end, and judges what there is.
    async fn judged(&mut self, what: &str) -> Vec<Value> {
        let mut life = self.born(None).await;
        let status = self.live(&mut life, &[], usize::MAX).await;
        assert!(status.is_none(), "{what}: it died unarmed, {}", status.unwrap());
        let operator = self.client(life.url.as_deref().unwrap(), &self.operator);
        let exported = furnish::call(&operator, Method::POST, "/v1/evidence", Some(&json!({"all": true})))
            .await
            .unwrap();
        let (bytes, _) = self.bundle(&operator, exported.body["bundle"].as_str().unwrap()).await.unwrap();
        // What was given out is still given out, byte for byte.
        let bundles: Vec<_> = self.acknowledged.lock().bundles.values().cloned().collect();
        for (id, digest) in bundles {
            assert_eq!(self.bundle(&operator, &id).await.unwrap().1, digest, "{what}: {id}");
        }
        let files = archive::read(&bytes).unwrap();
        let text = std::str::from_utf8(files[manifest::FACTS]).unwrap();
        let facts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.told(what, &facts).await;
        self.shown(what, &operator, &facts).await;
        life.child.kill().await.unwrap();
        self.believed(what, &bytes);
        self.ended(what, &facts);
        facts
    }

    /// The webhook's target hears of every fact since it was made, each for the first time in the order of the log, and of
    /// none about that itself.
    async fn told(&self, what: &str, facts: &[Value]) {
        let made = facts.iter().position(|fact| fact["kind"] == "notify.webhook.created").unwrap();
        let own = |fact: &&Value| fact["act"] == "notify.webhook.record";
        let ids = |facts: Vec<&Value>| -> Vec<String> {
            facts.iter().map(|fact| fact["id"].as_str().unwrap().to_owned()).collect()
        };
        let expected = ids(facts[made..].iter().filter(|fact| !own(fact)).collect());
        let mut heard = self.target.heard.clone();
        let heard =
            heard.wait_for(|heard| expected.iter().all(|id| heard.contains(id))).await.unwrap().clone();
        let mut seen = BTreeSet::new();
        let first: Vec<String> = heard.into_iter().filter(|id| seen.insert(id.clone())).collect();
        assert_eq!(first[..expected.len()], expected, "{what}: in order");
        assert!(
            ids(facts.iter().filter(own).collect()).iter().all(|id| !seen.contains(id)),
            "{what}: no loop"
        );
    }

    /// Every approval's card comes to show its end, whatever death left it at.
    async fn shown(&self, what: &str, client: &Client, facts: &[Value]) {
        let asked = of(facts, "governor.approval.requested");
        let mut open: BTreeSet<&str> =
            asked.iter().filter_map(|fact| fact["outcome"]["approval"].as_str()).collect();
        let mut cards: BTreeMap<String, String> = BTreeMap::new();
        let mut events = client.events(None, Some(0)).await.unwrap();
        while !open.is_empty() {
            let fact = events.next().await.unwrap().expect("more to come")["data"].take();
            let text = |name: &str| fact["outcome"][name].as_str().unwrap_or_default();
            if fact["kind"] == "notify.card.sent" {
                if ["used", "denied"].contains(&text("face").split(':').next().unwrap()) {
                    open.remove(text("approval"));
                }
                cards.insert(text("ts").to_owned(), text("face").to_owned());
            }
        }
        let posted: BTreeSet<String> =
            self.sandbox.slack_messages().into_iter().map(|card| card.ts).collect();
        assert!(cards.keys().all(|ts| posted.contains(ts)), "{what}: {cards:?}");
    }

    /// The whole log verifies, and continues every checkpoint that was ever given out.
    fn believed(&self, what: &str, bytes: &[u8]) {
        let held = self.acknowledged.lock().held.clone();
        for checkpoint in &held {
            let report = verify::verify(bytes, &self.trust, Some(checkpoint));
            assert!(report.ok(), "{what}: {:?} with {checkpoint}", report.failure);
        }
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("all.tar"), bytes).unwrap();
        fs::write(path("held"), held.last().expect("a checkpoint is held")).unwrap();
        let (code, _, err) = run(&mut writ(&[
            "verify",
            &path("all.tar"),
            "--trust",
            &path("trust.json"),
            "--held",
            &path("held"),
        ]));
        assert_eq!(code, 0, "{what}: {err}");
    }

    /// Everything acknowledged is there, once, and has ended as it should; no intent is open.
    fn ended(&self, what: &str, facts: &[Value]) {
        let acknowledged = self.acknowledged.lock();
        let of = |kind: &str| of(facts, kind);
        assert_eq!(of("flows.run.created").len(), acknowledged.told.len(), "{what}: a run for each incident");
        let mut runs = BTreeSet::new();
        for told in &acknowledged.told {
            let run = told.run.as_deref().expect("each was acknowledged in the end");
            assert!(runs.insert(run), "{what}: two incidents became one run");
            let ends: Vec<_> =
                of("flows.run.finished").into_iter().filter(|fact| fact["stream"] == run).collect();
            let (outcome, notes) = if told.comes == Denied { ("denied", 0) } else { ("done", 1) };
            assert_eq!(ends.len(), 1, "{what}: {run} ended so often");
            assert_eq!(ends[0]["outcome"]["outcome"], outcome, "{what}: {run}, {:?}", told.comes);
            assert_eq!(self.sandbox.notes(&told.sys_id).len(), notes, "{what}: {run}, {:?}", told.comes);
        }
        assert_eq!(self.sandbox.effects_duplicated(), 0, "{what}: a write took effect twice");
        for approval in &acknowledged.decided {
            let times =
                |kind: &str| of(kind).iter().filter(|fact| fact["stream"] == approval.as_str()).count();
            let decided = times("governor.approval.granted") + times("governor.approval.denied");
            assert_eq!((decided, times("governor.approval.closed")), (1, 1), "{what}: {approval}");
        }
        let decisions = of("governor.approval.granted").len() + of("governor.approval.denied").len();
        assert_eq!(decisions, acknowledged.decided.len(), "{what}: decisions that nobody made");
        for (intended, finished, name) in [
            ("flows.tool.intended", "flows.tool.finished", "effect_key"),
            ("models.call.intended", "models.call.finished", "call"),
        ] {
            let mut open = BTreeMap::new();
            for fact in facts {
                let key = fact["outcome"][name].as_str().unwrap_or_default();
                match fact["kind"].as_str() {
                    Some(kind) if kind == intended => {
                        assert!(open.insert(key, fact).is_none(), "{what}: {fact}")
                    }
                    // A call that failed is made again under the same intent: the last word counts.
                    Some(kind) if kind == finished => {
                        open.remove(key);
                    }
                    _ => {}
                }
            }
            assert!(open.is_empty(), "{what}: intents without an outcome: {open:?}");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("What the servers said:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// The examples that the built-in classifier has learned from: text and group.
fn examples() -> Vec<(String, String)> {
    let samples = include_bytes!("../../../../../contracts/samples/training.csv");
    let rows = csv::Reader::from_reader(samples.as_slice()).into_records();
    rows.map(|row| row.map(|row| (row[1].to_owned(), row[2].to_owned())).unwrap()).collect()
}

/// Every group that the examples name.
fn groups() -> Vec<String> {
    examples().into_iter().map(|(_, group)| group).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A ticket that the built-in classifier is so sure about that nobody has to be asked.
fn surest() -> String {
    let examples = examples();
    let pairs = examples.iter().map(|(text, group)| (text.as_str(), group.as_str()));
    let baseline = models::baseline::Baseline::train(pairs, Default::default()).unwrap();
    let surest = examples.iter().max_by_key(|(text, _)| baseline.classify(text).confidence_milli);
    surest.unwrap().0.clone()
}
