//! A service desk: the server with a stand-in for ServiceNow, a connector to it and workflows, for acts that only happen in
//! the middle of something.

use crate::support::{Answer, World};
use act::{Clock as _, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evidence::Trust;
use sandbox::{Credentials, Fault, FaultRule, IncidentSeed, Sandbox, Service, WebhookEvent};
use serde_json::{Value, json};
use server::config::SequencingMode;
use std::sync::Arc;
use store::SystemClock;

/// The secret that deliveries are signed with.
pub const WEBHOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// A workflow whose only step fails for good.
const FAILS: &str = "
name: fails
version: \"1.0.0\"
description: A step that cannot succeed.
steps:
  - id: broken
    transform: {text: \"{{ event.absent.member }}\"}
";
/// A write that no model has a say in.
const WRITES: &str = "
name: writes
version: \"1.0.0\"
description: Adds a note to an incident.
pins:
  connectors:
    servicenow: {manifest: servicenow, version: \"1.0.0\"}
steps:
  - id: write
    tool:
      connector: servicenow
      action: incident.update
      params: {sys_id: \"{{ event.sys_id }}\", work_note: \"{{ event.note }}\"}
";

/// What a desk has.
pub struct Room {
    sandbox: Sandbox,
    hook: String,
    approvers: [String; 2],
}

/// The desk of a world, set up when it is first asked for.
pub struct Desk<'a> {
    world: &'a World,
    /// The stand-in.
    pub sandbox: &'a Sandbox,
    hook: &'a str,
    approvers: &'a [String; 2],
}

impl<'a> Desk<'a> {
    /// The desk of this world.
    pub async fn open(world: &'a World) -> Desk<'a> {
        let room = world.room.get_or_init(|| Room::new(world)).await;
        Desk { world, sandbox: &room.sandbox, hook: &room.hook, approvers: &room.approvers }
    }
}

impl Room {
    /// Sets everything up.
    async fn new(world: &World) -> Room {
        let credentials = Credentials {
            user_name: "writ.integration".into(),
            password: "canary-value-4711".into(),
            bearer_token: "bearer".into(),
            model_key: "model".into(),
            webhook_secret: WEBHOOK_SECRET.into(),
            control_token: "control".into(),
        };
        let sandbox = Sandbox::start(sandbox::Config::new(Arc::new(|| SystemClock.now_ms()), credentials))
            .await
            .unwrap();
        for (name, value) in [("snow-password", "canary-value-4711"), ("snow-hook", WEBHOOK_SECRET)] {
            let put = json!({"name": name, "purpose": "a test", "value": value});
            crate::acts::carry_out(world, "custody.secret.put", &crate::acts::by_admin(world, put))
                .send()
                .await
                .ok();
        }
        let install = json!({
            "name": "servicenow", "manifest": include_str!("../../../../../contracts/connectors/servicenow.yaml"),
            "base_url": sandbox.base_url(), "user": "writ.integration", "password": "secret:snow-password",
            "webhook_secret": "secret:snow-hook",
        });
        let connector = world.admin(Method::Post, "/v1/connectors").json(&install).send().await.ok();
        for yaml in [
            include_str!("../../../../../contracts/workflows/itsm-triage.yaml"),
            include_str!("../../../../../contracts/workflows/incident-note.yaml"),
            FAILS,
            WRITES,
        ] {
            world.admin(Method::Post, "/v1/workflows").json(&json!({"yaml": yaml})).send().await.ok();
        }
        let first = world.principal(&world.unused("first approver"), &["tenant_admin"]).await.1;
        let second = world.principal(&world.unused("second approver"), &["tenant_admin"]).await.1;
        let hook = connector["hook"].as_str().unwrap().to_owned();
        Room { sandbox, hook, approvers: [first, second] }
    }
}

impl Desk<'_> {
    /// The path that deliveries come to.
    pub fn hook(&self) -> &str {
        self.hook
    }

    /// Starts a run by hand; returns its id.
    pub async fn start(&self, workflow: &str, event: Value) -> String {
        let start = json!({"workflow": workflow, "event": event});
        let started = self.world.admin(Method::Post, "/v1/runs").json(&start).send().await.ok();
        started["run"].as_str().unwrap().to_owned()
    }

    /// A run that waits for leave to write a note onto a new incident.
    pub async fn waiting_write(&self) -> String {
        let incident = self
            .sandbox
            .incident_seed(&IncidentSeed { short_description: "x".into(), ..IncidentSeed::default() });
        let run = self.start("writes", json!({"sys_id": incident.unwrap().sys_id, "note": "hello"})).await;
        self.until(&run, |run| run["status"] == "waiting").await;
        run
    }

    /// The run as it is once `done` holds.
    pub async fn until(&self, run: &str, done: impl Fn(&Value) -> bool) -> Value {
        let mut facts = self.world.house().store.hints().facts;
        loop {
            let shown = self.world.admin(Method::Get, &format!("/v1/runs/{run}")).send().await.ok();
            if done(&shown) {
                return shown;
            }
            assert!(
                shown["status"] != "finished" && shown["status"] != "dead",
                "it ended otherwise: {shown}"
            );
            facts.changed().await.unwrap();
        }
    }

    /// Lets people decide on what a run waits for.
    pub async fn decide(&self, run: &str, grant: bool, people: usize) {
        let waiting = self.until(run, |run| run["approval"].is_string()).await;
        let path = format!("/v1/approvals/{}", waiting["approval"].as_str().unwrap());
        let shown = self.world.ask(Method::Get, &path).key(&self.approvers[0]).send().await.ok();
        for approver in self.approvers.iter().take(people) {
            let (verb, body) = match grant {
                true => ("grant", json!({"preview_digest": shown["preview_digest"]})),
                false => ("deny", json!({"reason": "as the test wants it"})),
            };
            self.world
                .ask(Method::Post, &format!("{path}/{verb}"))
                .key(approver)
                .json(&body)
                .send()
                .await
                .ok();
        }
    }

    /// A new incident, told of by a signed delivery.
    pub async fn incident(&self, text: &str) -> (sandbox::Incident, Answer) {
        let seed = IncidentSeed {
            short_description: text.into(),
            description: text.into(),
            ..IncidentSeed::default()
        };
        let incident = self.sandbox.incident_seed(&seed).unwrap();
        let answer = self.deliver(&incident.sys_id).await;
        (incident, answer)
    }

    /// Delivers the webhook of an incident as it is now.
    pub async fn deliver(&self, sys_id: &str) -> Answer {
        let webhook = self.sandbox.incident_webhook(sys_id, WebhookEvent::Created).unwrap();
        let mut ask = self.world.ask(Method::Post, self.hook);
        for (name, value) in &webhook.headers {
            if name != "content-type" {
                ask = ask.header(name, value);
            }
        }
        ask.body("application/json", webhook.body.as_bytes()).send().await
    }

    /// The next write is applied, and then the connection breaks.
    pub fn write_breaks(&self) {
        self.sandbox
            .fault_add(FaultRule::new(Service::ServiceNow, Fault::DropAfterEffect).method("PATCH").once())
            .unwrap();
    }
}

/// From the signed delivery of an incident to the note in the other system, with a person in between, and to evidence that
/// verifies. In both modes of the log: nobody may rely on facts having their place at once.
#[tokio::test]
async fn an_incident_goes_all_the_way() {
    for sequencing in [SequencingMode::Immediate, SequencingMode::Deferred] {
        let world = World::start_with(|config| config.sequencing = sequencing).await;
        all_the_way(&world).await;
        world.running.shutdown().await;
    }
}

async fn all_the_way(world: &World) {
    let desk = Desk::open(world).await;
    let (incident, answer) =
        desk.incident("Locked out: my password expired and the VPN refuses my account").await;
    let run = answer.ok()["run"].as_str().unwrap().to_owned();
    desk.write_breaks();
    desk.decide(&run, true, 1).await;
    let finished = desk.until(&run, |run| run["status"] == "finished").await;
    assert_eq!(finished["outcome"], "done", "{finished}");
    // The write took effect, its answer was lost, and it was found instead of repeated.
    assert_eq!((desk.sandbox.effects_duplicated(), desk.sandbox.notes(&incident.sys_id).len()), (0, 1));
    // The same delivery again starts nothing.
    let again = desk.deliver(&incident.sys_id).await.ok();
    assert_eq!((&again["runs"], &again["ignored"]), (&json!([]), &json!("own_write")));
    // What has happened is in the log a moment later.
    let mut facts = world.house().store.hints().facts;
    loop {
        facts.mark_unchanged();
        let leaves = world.leaves(&world.tenant(), 0).await;
        if leaves.iter().any(|leaf| leaf["kind"] == "flows.run.finished" && leaf["stream"] == run.as_str()) {
            break;
        }
        facts.changed().await.unwrap();
    }
    // Nothing of the content or the credentials is in the log.
    let log = format!("{:?}", world.leaves(&world.tenant(), 0).await);
    assert!(!log.contains("VPN") && !log.contains("canary-value-4711"));
    // An auditor who compared the fingerprint believes the bundle, and does not once a byte of it has changed.
    let trust = world.admin(Method::Get, "/v1/trust").send().await.ok();
    assert_eq!(trust["fingerprint"], world.running.trust_fingerprint);
    let trust = Trust::parse(trust["trust"].to_string().as_bytes()).unwrap();
    let exported = world.admin(Method::Post, "/v1/evidence").json(&json!({"run": run})).send().await.ok();
    let path = format!("/v1/evidence/{}", exported["bundle"].as_str().unwrap());
    let bundle = world.admin(Method::Get, &path).send().await.ok();
    let mut bytes = BASE64.decode(bundle["bundle_base64"].as_str().unwrap()).unwrap();
    let report = evidence::verify(&bytes, &trust, None);
    assert!(report.ok(), "{report:?}");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(!evidence::verify(&bytes, &trust, None).ok());
}

/// Deliveries that are not believed start nothing.
#[tokio::test]
async fn a_delivery_is_believed_for_its_signature_alone() {
    let world = World::start().await;
    let desk = Desk::open(&world).await;
    let seed = IncidentSeed { short_description: "x".into(), ..IncidentSeed::default() };
    let incident = desk.sandbox.incident_seed(&seed).unwrap();
    let webhook = desk.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created).unwrap();
    let before = world.size(&world.tenant()).await;
    let send = async |hook: &str, without: &str, body: &str, twice: &str| {
        let mut ask = world.ask(Method::Post, hook);
        for (name, value) in
            webhook.headers.iter().filter(|(name, _)| name != "content-type" && name != without)
        {
            ask = ask.header(name, value);
            if name == twice {
                ask = ask.header(name, value);
            }
        }
        ask.body("application/json", body.as_bytes()).send().await
    };
    let body = webhook.body.as_str();
    send(desk.hook, "webhook-signature", body, "").await.refused(401, "hook.headers");
    send(desk.hook, "", body, "webhook-signature").await.refused(401, "hook.headers");
    send(desk.hook, "", &body.replacen('{', "{ ", 1), "").await.refused(401, "hook.signature");
    send("/v1/hooks/hok_00000000000000000000000000000000", "", body, "").await.refused(401, "hook.unknown");
    let large = send(desk.hook, "", &"x".repeat(70_000), "").await;
    assert!([401, 413].contains(&large.status), "{}", large.text());
    assert_eq!(world.size(&world.tenant()).await, before, "nothing was recorded per delivery");
    send(desk.hook, "", body, "").await.ok();
    let replayed = send(desk.hook, "", body, "").await.ok();
    assert!(replayed["run"].is_string());
    let created = world.leaves(&world.tenant(), before).await;
    assert_eq!(created.iter().filter(|leaf| leaf["kind"] == "flows.run.created").count(), 1);
    world.running.shutdown().await;
}
