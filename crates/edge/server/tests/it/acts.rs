//! One example of every act: what the two tests that walk the table carry out, or try to.
//!
//! A new verb needs a row here; without one those tests fail and name it.

use crate::desk::Desk;
use crate::support::{Ask, World};
use act::{Call, Method, Route};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::policy::Files;
use governor::policy::bundle::{bundle_build, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::signer::Signer;
use kernel::{TenantId, hex, sha256};
use serde_json::{Value, json};

/// An act that can be carried out.
pub struct Example {
    /// By whom.
    pub key: String,
    /// In which tenant.
    pub tenant: TenantId,
    /// With which arguments.
    pub args: Value,
}

/// Prepares an example.
pub type Prepare = for<'a> fn(&'a World) -> BoxFuture<'a, Example>;
/// Lets something happen of which the act is a part.
pub type Story = for<'a> fn(&'a World) -> BoxFuture<'a, ()>;

/// Acts that nobody asks for by themselves: they happen in the middle of something.
pub const STORIES: &[(&str, Story)] = &[
    ("models.model.call", |world| triage(world).boxed()),
    ("billing.usage.record", |world| triage(world).boxed()),
    ("billing.budget.warn", |world| {
        async {
            let budget = json!({"level": "tenant", "amount": 1, "period": "total", "stop": false, "warn_percent": [1]});
            carry_out(world, "billing.budget.set", &by_admin(world, budget)).send().await.ok();
            triage(world).await;
        }
        .boxed()
    }),
    ("flows.tool.call", |world| async { drop(Desk::open(world).await.waiting_write().await) }.boxed()),
    ("flows.tool.close", |world| {
        async {
            let desk = Desk::open(world).await;
            let run = desk.waiting_write().await;
            desk.decide(&run, false, 1).await;
            desk.until(&run, |run| run["outcome"] == "denied").await;
        }
        .boxed()
    }),
    ("flows.tool.reconcile", |world| {
        async {
            let desk = Desk::open(world).await;
            let run = desk.waiting_write().await;
            desk.write_breaks();
            desk.decide(&run, true, 1).await;
            desk.until(&run, |run| run["outcome"] == "done").await;
            assert_eq!(desk.sandbox.effects_duplicated(), 0);
        }
        .boxed()
    }),
    ("flows.breaker.turn", |world| {
        async {
            opened(world, "turned").await;
        }
        .boxed()
    }),
    ("flows.connector.poll", |world| {
        async {
            let name = polled(world).await;
            let house = world.house();
            let stream = kernel::Id::parse(&format!("con_{name}")).unwrap();
            let mut facts = house.store.hints().facts;
            loop {
                let leaves = house.store.stream(&world.tenant(), &stream, 1, 200).await.unwrap();
                let asked =
                    |leaf: &store::LeafRow| String::from_utf8_lossy(&leaf.leaf).contains("flows.poll.asked");
                if leaves.iter().any(asked) {
                    return;
                }
                facts.changed().await.unwrap();
            }
        }
        .boxed()
    }),
    ("notify.card.refresh", |world| async { drop(crate::slack::link_code(world).await) }.boxed()),
    ("notify.click.receive", |world| async { drop(crate::slack::link_code(world).await) }.boxed()),
    ("notify.webhook.record", |world| async { drop(dead_letter(world).await) }.boxed()),
    ("flows.approval.pass", |world| {
        async {
            let desk = Desk::open(world).await;
            let (incident, _) = desk.incident("a printer jams").await;
            let run = desk.start("incident-note", json!({"number": incident.number, "note": "agreed"})).await;
            desk.decide(&run, true, 2).await;
            desk.until(&run, |run| run["step"] == "write").await;
        }
        .boxed()
    }),
    ("access.key.note_use", |world| {
        async {
            server::rounds::keys_seen(world.house().clone()).await;
        }
        .boxed()
    }),
    ("evidence.epoch.enter", |world| {
        async {
            let open = by_platform(world, json!({"reason": "an example"}));
            carry_out(world, "evidence.epoch.open", &open).send().await.ok();
        }
        .boxed()
    }),
    // The last one: after it no model is called any more.
    ("billing.budget.exhaust", |world| {
        async {
            let budget =
                json!({"level": "model", "name": models::baseline::MODEL, "amount": 0, "period": "hour"});
            carry_out(world, "billing.budget.set", &by_admin(world, budget)).send().await.ok();
            let desk = Desk::open(world).await;
            let (_, answer) = desk.incident("my password expired and the VPN refuses my account").await;
            let run = answer.ok()["run"].as_str().unwrap().to_owned();
            desk.until(&run, |run| run["error"]["code"] == "budget.exhausted").await;
        }
        .boxed()
    }),
];

async fn triage(world: &World) {
    let desk = Desk::open(world).await;
    let (_, answer) = desk.incident("my password expired and the VPN refuses my account").await;
    let run = answer.ok()["run"].as_str().unwrap().to_owned();
    desk.until(&run, |run| run["step"] != "fetch" && run["step"] != "groups" && run["step"] != "classify")
        .await;
}

/// Every other act with its example.
pub const EXAMPLES: &[(&str, Prepare)] = &[
    ("access.principal.create", |world| {
        async {
            by_admin(world, json!({"name": world.unused("example"), "kind": "person", "roles": ["operator"]}))
        }
        .boxed()
    }),
    ("access.principal.suspend", |world| {
        async {
            let (principal, _) = world.principal(&world.unused("suspend example"), &["operator"]).await;
            by_admin(world, json!({"principal": principal}))
        }
        .boxed()
    }),
    ("access.principal.resume", |world| {
        async {
            let (principal, _) = world.principal(&world.unused("resume example"), &["operator"]).await;
            let suspend = by_admin(world, json!({"principal": principal}));
            carry_out(world, "access.principal.suspend", &suspend).send().await.ok();
            suspend
        }
        .boxed()
    }),
    ("access.binding.create", |world| {
        async {
            let (principal, _) = world.principal(&world.unused("binding example"), &["operator"]).await;
            by_admin(world, json!({"principal": principal, "role": "auditor"}))
        }
        .boxed()
    }),
    ("access.binding.remove", |world| {
        async {
            let (principal, _) = world.principal(&world.unused("unbinding example"), &["operator"]).await;
            by_admin(world, json!({"binding": principal.replace("prn_", "bnd_") + ".1"}))
        }
        .boxed()
    }),
    ("access.role.create", |world| async { by_admin(world, role(world)) }.boxed()),
    ("access.role.set", |world| {
        async {
            let role = made(world, "access.role.create", role(world)).await;
            by_admin(world, json!({"role": role, "acts": ["flows.run.start"]}))
        }
        .boxed()
    }),
    ("access.role.retire", |world| {
        async {
            let role = made(world, "access.role.create", role(world)).await;
            by_admin(world, json!({"role": role}))
        }
        .boxed()
    }),
    ("access.workspace.create", |world| async { by_admin(world, workspace(world)) }.boxed()),
    ("access.workspace.archive", |world| {
        async {
            let workspace = made(world, "access.workspace.create", workspace(world)).await;
            by_admin(world, json!({"workspace": workspace}))
        }
        .boxed()
    }),
    ("access.project.create", |world| {
        async {
            let workspace = made(world, "access.workspace.create", workspace(world)).await;
            by_admin(world, json!({"name": plain(world), "workspace": workspace}))
        }
        .boxed()
    }),
    ("access.project.archive", |world| {
        async {
            let project = project(world).await;
            by_admin(world, json!({"project": project}))
        }
        .boxed()
    }),
    ("access.key.rotate", |world| {
        async {
            let (_, key) = world.principal(&world.unused("rotate example"), &["operator"]).await;
            let hash = hex::encode(&sha256(b"a secret after that"));
            by_admin(world, json!({"key": key.split('.').next().unwrap(), "secret_sha256": hash}))
        }
        .boxed()
    }),
    ("access.key.create", |world| {
        async {
            let (principal, _) = world.principal(&world.unused("key example"), &["operator"]).await;
            let hash = hex::encode(&sha256(b"another secret"));
            by_admin(world, json!({"principal": principal, "name": "second", "secret_sha256": hash}))
        }
        .boxed()
    }),
    ("access.key.revoke", |world| {
        async {
            let (_, key) = world.principal(&world.unused("revoke example"), &["operator"]).await;
            by_admin(world, json!({"key": key.split('.').next().unwrap()}))
        }
        .boxed()
    }),
    ("edge.backup.create", |world| async { by_platform(world, json!({})) }.boxed()),
    ("evidence.epoch.open", |world| async { by_platform(world, json!({"reason": "an example"})) }.boxed()),
    ("access.tenant.create", |world| {
        async {
            by_platform(world, json!({"name": world.unused("example").replace(' ', "-"), "admin": "owner"}))
        }
        .boxed()
    }),
    ("governor.approval.grant", |world| async { decided(world, "grants").await }.boxed()),
    ("governor.delegation.create", |world| {
        async {
            let (_, key) = world.principal(&world.unused("away"), &["approver"]).await;
            let (delegate, _) = world.principal(&world.unused("delegate"), &["approver"]).await;
            let ends_at_ms = world.house().harness.now_ms() + 3_600_000;
            let args = json!({"delegate": delegate, "ends_at_ms": ends_at_ms});
            Example { key, tenant: world.tenant(), args }
        }
        .boxed()
    }),
    ("governor.delegation.end", |world| {
        async {
            let (_, key) = world.principal(&world.unused("back"), &["approver"]).await;
            let (delegate, _) = world.principal(&world.unused("stand in"), &["approver"]).await;
            let ends_at_ms = world.house().harness.now_ms() + 3_600_000;
            let args = json!({"delegate": delegate, "ends_at_ms": ends_at_ms});
            let example = Example { key, tenant: world.tenant(), args };
            let done = carry_out(world, "governor.delegation.create", &example).send().await.ok();
            Example { args: json!({"delegation": done["delegation"]}), ..example }
        }
        .boxed()
    }),
    ("notify.slack.connect", |world| async { by_admin(world, slack(world)) }.boxed()),
    ("notify.slack.disconnect", |world| {
        async {
            carry_out(world, "notify.slack.connect", &by_admin(world, slack(world))).send().await.ok();
            by_admin(world, json!({}))
        }
        .boxed()
    }),
    ("notify.card.retry", |world| {
        async {
            carry_out(world, "notify.slack.connect", &by_admin(world, slack(world))).send().await.ok();
            decided(world, "in a card").await;
            let dead = dead_card(world).await;
            carry_out(world, "notify.slack.disconnect", &by_admin(world, json!({}))).send().await.ok();
            by_admin(world, json!({"card": dead}))
        }
        .boxed()
    }),
    ("notify.link.create", |world| {
        async {
            let (_, key) = world.principal(&world.unused("links"), &["approver"]).await;
            let code = crate::slack::link_code(world).await;
            Example { key, tenant: world.tenant(), args: json!({"code": code}) }
        }
        .boxed()
    }),
    ("notify.link.remove", |world| {
        async {
            let (_, key) = world.principal(&world.unused("unlinks"), &["approver"]).await;
            let code = crate::slack::link_code(world).await;
            let example = Example { key, tenant: world.tenant(), args: json!({"code": code}) };
            let done = carry_out(world, "notify.link.create", &example).send().await.ok();
            Example { args: json!({"link": done["link"]}), ..example }
        }
        .boxed()
    }),
    ("notify.webhook.create", |world| {
        async {
            make_room(world).await;
            by_admin(world, webhook(world))
        }
        .boxed()
    }),
    ("notify.webhook.pause", |world| {
        async { by_admin(world, json!({"webhook": subscribed(world).await})) }.boxed()
    }),
    ("notify.webhook.resume", |world| {
        async {
            let one = by_admin(world, json!({"webhook": subscribed(world).await}));
            carry_out(world, "notify.webhook.pause", &one).send().await.ok();
            one
        }
        .boxed()
    }),
    ("notify.webhook.rotate", |world| {
        async {
            let secret = webhook(world)["secret"].clone();
            by_admin(world, json!({"webhook": subscribed(world).await, "secret": secret}))
        }
        .boxed()
    }),
    ("notify.webhook.test", |world| {
        async { by_admin(world, json!({"webhook": subscribed(world).await})) }.boxed()
    }),
    ("notify.webhook.delete", |world| {
        async { by_admin(world, json!({"webhook": subscribed(world).await})) }.boxed()
    }),
    ("notify.letter.replay", |world| async { dead_letter(world).await }.boxed()),
    ("notify.letter.discard", |world| async { dead_letter(world).await }.boxed()),
    ("governor.approval.deny", |world| {
        async {
            let mut example = decided(world, "denies").await;
            example.args = json!({"approval": example.args["approval"], "reason": "as the test wants it"});
            example
        }
        .boxed()
    }),
    ("governor.policy.publish", |world| {
        async { by_platform(world, json!({"bundle_base64": policy(world, "")})) }.boxed()
    }),
    ("governor.policy.withdraw", |world| {
        async {
            let signer = signer(world, &[9; 32]).await;
            let files = Files::from([("a.rego".to_owned(), ALLOWS.as_bytes().to_vec())]);
            let (mut manifest, _) = platform_sources().unwrap();
            let now_ms = world.house().harness.now_ms();
            // Each example is later than the one before it.
            let later: u64 = world.unused("").trim().parse().unwrap();
            manifest.metadata.seq = u64::try_from(now_ms).unwrap() + 1_000_000 * later;
            manifest.metadata.not_after_ms = now_ms + 3_600_000;
            let bundle =
                signer.sign(&bundle_build(&manifest, &files).unwrap(), world.tenant().as_str()).unwrap();
            let publish = by_admin(world, json!({"bundle_base64": BASE64.encode(bundle)}));
            let (mut facts, before) = (world.house().store.hints().facts, world.size(&world.tenant()).await);
            carry_out(world, "governor.policy.publish", &publish).send().await.ok();
            // The job that takes it into use leaves a fact as well; nothing else shall be going on when the act comes.
            while !world
                .leaves(&world.tenant(), before)
                .await
                .iter()
                .any(|leaf| leaf["outcome"]["in_force"] == true)
            {
                facts.changed().await.unwrap();
            }
            by_admin(world, json!({}))
        }
        .boxed()
    }),
    ("governor.policy_key.register", |world| {
        async {
            let entropy = sha256(world.unused("registered").as_bytes());
            let key = Signer::from_entropy(&entropy).unwrap().public_pem().unwrap();
            by_admin(world, json!({"name": "example", "public_key": key}))
        }
        .boxed()
    }),
    ("governor.policy_key.revoke", |world| {
        async {
            let entropy = sha256(world.unused("revoked").as_bytes());
            by_admin(world, json!({"policy_key": signer(world, &entropy).await.id()}))
        }
        .boxed()
    }),
    ("custody.secret.put", |world| {
        async {
            by_admin(world, json!({"name": "example", "purpose": "a test", "value": "canary-value-4711"}))
        }
        .boxed()
    }),
    ("custody.secret.retire", |world| {
        async {
            let name = world.unused("turned").replace(' ', "-");
            for value in ["canary-value-4711", "canary-value-4712"] {
                let put = json!({"name": name, "purpose": "a test", "value": value});
                carry_out(world, "custody.secret.put", &by_admin(world, put)).send().await.ok();
            }
            by_admin(world, json!({"name": name}))
        }
        .boxed()
    }),
    ("custody.secret.revoke", |world| {
        async {
            let put = json!({"name": "old", "purpose": "a test", "value": "canary-value-4711"});
            carry_out(world, "custody.secret.put", &by_admin(world, put)).send().await.ok();
            by_admin(world, json!({"name": "old"}))
        }
        .boxed()
    }),
    ("billing.price.publish", |world| {
        async {
            let row = json!({
                "model": "baseline/*", "input_micros_per_million": 1, "cached_input_micros_per_million": 1,
                "cache_write_micros_per_million": 1, "output_micros_per_million": 1, "call_micros": 1,
            });
            let book = json!({"version": world.unused("example"), "currency": "EUR", "models": [row], "connector_call_micros": 0});
            by_admin(world, book)
        }
        .boxed()
    }),
    ("billing.budget.set", |world| async { by_admin(world, budget(world)) }.boxed()),
    ("billing.budget.remove", |world| {
        async {
            let set = by_admin(world, budget(world));
            let done = carry_out(world, "billing.budget.set", &set).send().await.ok();
            by_admin(world, json!({"budget": done["budget"]}))
        }
        .boxed()
    }),
    ("evidence.bundle.export", |world| async { by_admin(world, json!({"all": true})) }.boxed()),
    ("flows.connector.install", |world| {
        async {
            let name = world.unused("example").replace(' ', "-");
            let manifest = include_str!("../../../../../contracts/connectors/http.yaml");
            by_admin(world, json!({"name": name, "manifest": manifest, "base_url": "https://api.example"}))
        }
        .boxed()
    }),
    ("flows.artifact.publish", |world| {
        async { by_admin(world, json!({"manifest": offered(world)})) }.boxed()
    }),
    ("flows.artifact.yank", |world| {
        async {
            let publish = by_admin(world, json!({"manifest": offered(world)}));
            let done = carry_out(world, "flows.artifact.publish", &publish).send().await.ok();
            by_admin(world, json!({"artifact": done["artifact"], "reason": "an example"}))
        }
        .boxed()
    }),
    ("flows.artifact_key.register", |world| {
        async { by_admin(world, json!({"name": "example", "public_key": artifact_key()})) }.boxed()
    }),
    ("flows.artifact_key.revoke", |world| {
        async {
            let register = by_admin(world, json!({"name": "example", "public_key": artifact_key()}));
            let done = carry_out(world, "flows.artifact_key.register", &register).send().await.ok();
            by_admin(world, json!({"artifact_key": done["artifact_key"]}))
        }
        .boxed()
    }),
    ("flows.tool.approve", |world| {
        async {
            let name = world.unused("retold").replace(' ', "-");
            let manifest = include_str!("../../../../../contracts/connectors/http.yaml");
            let told =
                manifest.replace("Read a resource", "Read any resource").replace("\"1.0.0\"", "\"1.0.1\"");
            for manifest in [manifest, &told] {
                let install = json!({"name": name, "manifest": manifest, "base_url": "https://api.example"});
                carry_out(world, "flows.connector.install", &by_admin(world, install)).send().await.ok();
            }
            let shown = world.admin(Method::Get, &format!("/v1/connectors/{name}")).send().await.ok();
            let changed =
                shown["tools"].as_array().unwrap().iter().find(|tool| tool["state"] == "changed").unwrap();
            by_admin(world, json!({"connector": name, "action": "get", "definition": changed["definition"]}))
        }
        .boxed()
    }),
    ("flows.breaker.close", |world| {
        async { by_admin(world, json!({"connector": opened(world, "closed").await})) }.boxed()
    }),
    ("flows.connector.remove", |world| {
        async {
            let name = world.unused("removed").replace(' ', "-");
            let manifest = include_str!("../../../../../contracts/connectors/http.yaml");
            let install = json!({"name": name, "manifest": manifest, "base_url": "https://api.example"});
            carry_out(world, "flows.connector.install", &by_admin(world, install)).send().await.ok();
            by_admin(world, json!({"connector": name}))
        }
        .boxed()
    }),
    ("flows.workflow.publish", |world| async { by_admin(world, json!({"yaml": workflow(world).1})) }.boxed()),
    ("flows.workflow.retire", |world| {
        async {
            let (name, yaml) = workflow(world);
            carry_out(world, "flows.workflow.publish", &by_admin(world, json!({"yaml": yaml})))
                .send()
                .await
                .ok();
            by_admin(world, json!({"workflow": name}))
        }
        .boxed()
    }),
    ("flows.run.start", |world| {
        async {
            Desk::open(world).await;
            by_admin(world, json!({"workflow": "fails", "event": {"a": 1}}))
        }
        .boxed()
    }),
    ("flows.run.signal", |world| {
        async {
            let name = world.unused("signalled").replace(' ', "-");
            let yaml =
                format!("name: {name}\nsteps:\n  - {{id: hear, wait: {{signal: go, timeout_ms: 60000}}}}\n");
            let publish = by_admin(world, json!({"yaml": yaml}));
            carry_out(world, "flows.workflow.publish", &publish).send().await.ok();
            let start = by_admin(world, json!({"workflow": name, "event": {}}));
            let started = carry_out(world, "flows.run.start", &start).send().await.ok();
            let run = started["run"].as_str().unwrap();
            Desk::open(world).await.until(run, |run| run["status"] == "waiting").await;
            by_admin(world, json!({"run": run, "signal": "go"}))
        }
        .boxed()
    }),
    ("flows.run.cancel", |world| {
        async { by_admin(world, json!({"run": Desk::open(world).await.waiting_write().await})) }.boxed()
    }),
    ("flows.run.replay", |world| {
        async {
            let desk = Desk::open(world).await;
            let run = desk.start("fails", json!({})).await;
            desk.until(&run, |run| run["status"] == "dead").await;
            by_admin(world, json!({"run": run}))
        }
        .boxed()
    }),
];

/// A tenant's policy that adds nothing to the platform's.
const ALLOWS: &str = "package writ\n\ndefault verdict := {\"effect\": \"ALLOW\"}\n";

/// A key that the first tenant has registered.
async fn signer(world: &World, entropy: &[u8; 32]) -> Signer {
    let signer = Signer::from_entropy(entropy).unwrap();
    let register = by_admin(world, json!({"name": "example", "public_key": signer.public_pem().unwrap()}));
    let answer = carry_out(world, "governor.policy_key.register", &register).send().await;
    assert!([200, 409].contains(&answer.status), "{}", answer.text());
    signer
}

/// A manifest that nobody has published.
fn offered(world: &World) -> String {
    let version = world.unused("v").replace(' ', "");
    include_str!("../../../../../contracts/connectors/http.yaml")
        .replace("\"1.0.0\"", &format!("\"{version}\""))
}

/// A public key that signs artifacts, made for this once.
fn artifact_key() -> String {
    let folder = tempfile::tempdir().unwrap();
    let keys = custody::Keyring::open_or_create(&folder.path().join("keys"), &act::SystemIds, 1).unwrap();
    BASE64.encode(keys.evidence_key().as_bytes())
}

/// A connector whose breaker is open.
async fn opened(world: &World, name: &str) -> String {
    let name = world.unused(name).replace(' ', "-");
    let manifest = include_str!("../../../../../contracts/connectors/http.yaml");
    let install = json!({"name": name, "manifest": manifest, "base_url": "https://api.example"});
    carry_out(world, "flows.connector.install", &by_admin(world, install)).send().await.ok();
    let harness = &world.house().harness;
    let ctx = harness.service("flows", &world.tenant(), Vec::new(), "trc_test");
    let args = json!({"connector": name, "to": "open", "run": "run_a", "code": "flows.upstream_failed"});
    harness.act(&ctx, "flows.breaker.turn", args, harness::Terms::default()).await.unwrap();
    name
}

/// A connector that is asked for what has changed; nobody answers.
async fn polled(world: &World) -> String {
    let name = world.unused("polled").replace(' ', "-");
    let manifest = include_str!("../../../../../contracts/connectors/servicenow.yaml");
    let install = json!({"name": name, "manifest": manifest, "base_url": "https://api.example",
                         "user": "svc.writ", "password": "secret:nobodys", "poll_every_ms": 86_400_000});
    carry_out(world, "flows.connector.install", &by_admin(world, install)).send().await.ok();
    name
}

/// A budget that nobody has set.
fn budget(world: &World) -> Value {
    json!({"level": "workflow", "name": world.unused("example"), "amount": 1_000_000, "period": "month"})
}

/// A name that nothing has.
fn plain(world: &World) -> String {
    world.unused("example").replace(' ', "-")
}

/// A role that nobody has made.
fn role(world: &World) -> Value {
    json!({"name": plain(world), "acts": ["flows.run.*"]})
}

/// A workspace that nobody has made.
fn workspace(world: &World) -> Value {
    json!({"name": plain(world), "environment": "staging"})
}

/// Makes a named thing; its name.
async fn made(world: &World, act: &str, args: Value) -> Value {
    carry_out(world, act, &by_admin(world, args)).send().await.ok()["name"].clone()
}

/// The name of a project.
async fn project(world: &World) -> Value {
    let workspace = made(world, "access.workspace.create", workspace(world)).await;
    made(world, "access.project.create", json!({"name": plain(world), "workspace": workspace})).await
}

/// A connection to a Slack that nobody is behind.
fn slack(_: &World) -> Value {
    json!({
        "team": "T0", "app": "A0", "bot_token": "secret:nobodys", "signing_secret": "secret:nobodys",
        "channels": {"1": "C0"}, "base_url": "http://127.0.0.1:9",
    })
}

/// A card that was given up, because there is no such token.
async fn dead_card(world: &World) -> Value {
    let mut facts = world.house().store.hints().facts;
    loop {
        facts.mark_unchanged();
        let list = world.admin(Method::Get, "/v1/slack/cards?state=dead").send().await.ok();
        if let Some(card) = list["items"].as_array().and_then(|cards| cards.first()) {
            return card["id"].clone();
        }
        facts.changed().await.unwrap();
    }
}

/// A webhook at an address that nobody listens on; it wants nothing that happens.
fn webhook(_: &World) -> Value {
    json!({
        "target": "http://127.0.0.1:9/canary-target-4711", "kinds": ["flows.connector.removed"],
        "secret": "whsec_Y2FuYXJ5LXZhbHVlLTQ3MTEtY2FuYXJ5LXZhbHVlLTQ3MTE=",
    })
}

/// Deletes the webhooks that nobody needs any more: a tenant may have only so many, and the tests ask for more.
async fn make_room(world: &World) {
    let list = world.admin(Method::Get, "/v1/webhooks").send().await.ok();
    let webhooks = list["items"].as_array().unwrap();
    if webhooks.len() < notify::webhook::endpoint::ENDPOINTS_MAX as usize / 2 {
        return;
    }
    for webhook in webhooks {
        let path = format!("/v1/webhooks/{}/delete", webhook["webhook"].as_str().unwrap());
        world.admin(Method::Post, &path).json(&json!({})).send().await.ok();
    }
}

/// Makes one.
async fn subscribed(world: &World) -> Value {
    make_room(world).await;
    carry_out(world, "notify.webhook.create", &by_admin(world, webhook(world))).send().await.ok()["webhook"]
        .clone()
}

/// A dead letter: its webhook's last attempt is written down as this installation would.
async fn dead_letter(world: &World) -> Example {
    let webhook = subscribed(world).await;
    let harness = &world.house().harness;
    let ctx = harness.service("notify", &world.tenant(), Vec::new(), "trc_test");
    for _ in 0..notify::webhook::schedule::ATTEMPTS_MAX {
        let path = format!("/v1/webhooks/{}", webhook.as_str().unwrap());
        let shown = world.admin(Method::Get, &path).send().await.ok();
        let args = json!({
            "webhook": webhook, "from": shown["cursor"], "to": shown["cursor"], "sent": 0,
            "failure": {"code": "webhook.status", "status": 500},
        });
        harness.act(&ctx, "notify.webhook.record", args, harness::Terms::default()).await.unwrap();
    }
    let path = format!("/v1/webhook-letters?webhook={}", webhook.as_str().unwrap());
    let list = world.admin(Method::Get, &path).send().await.ok();
    by_admin(world, json!({"webhook": webhook, "letter": list["items"][0]["letter"]}))
}

/// A workflow that nobody has published.
fn workflow(world: &World) -> (String, String) {
    let name = world.unused("example").replace(' ', "-");
    let yaml = include_str!("../../../../../contracts/workflows/three-steps.yaml");
    (name.clone(), yaml.replace("name: three-steps", &format!("name: {name}")))
}

/// An example by the administrator in the first tenant.
pub fn by_admin(world: &World, args: Value) -> Example {
    Example { key: world.admin.clone(), tenant: world.tenant(), args }
}

/// An example by the administrator in the platform's own tenant.
fn by_platform(world: &World, args: Value) -> Example {
    Example { key: world.admin.clone(), tenant: TenantId::platform(), args }
}

/// An approval that waits for its decision, and somebody who may decide it.
async fn decided(world: &World, name: &str) -> Example {
    policy_publish(world, WAITS).await;
    let waiting = json!({"name": world.unused(&format!("waits {name}")), "kind": "person", "roles": []});
    let waiting = world.admin(Method::Post, "/v1/principals").json(&waiting).send().await;
    assert_eq!(waiting.status, 202, "{}", waiting.text());
    let (_, key) = world.principal(&world.unused("approver"), &["approver"]).await;
    let args =
        json!({"approval": waiting.json()["approval"], "preview_digest": waiting.json()["preview_digest"]});
    Example { key, tenant: world.tenant(), args }
}

/// A rule under which creating a principal whose name begins with "waits" waits for an approver.
pub const WAITS: &str = r#"
required := {"reason": "approval.test", "tier": 1, "approvals": 1} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "waits")
}
"#;

/// The built-in policy with more rules, signed by the installation, as an operator would publish it.
pub fn policy(world: &World, rules: &str) -> String {
    let house = world.house();
    let (mut manifest, mut files) = platform_sources().unwrap();
    manifest.revision = "operator's own".into();
    let now_ms = house.harness.now_ms();
    // Later than any built-in one of the same moment.
    manifest.metadata.seq = u64::try_from(now_ms).unwrap() + 1000;
    manifest.metadata.not_after_ms = now_ms + 3_600_000;
    files.insert("more.rego".into(), format!("package writ\n{rules}").into_bytes());
    let built = bundle_build(&manifest, &files).unwrap();
    let key = house.custody.keyring().policy_key();
    BASE64.encode(bundle_sign(&built, server::policy::KEY_ID, PLATFORM_SCOPE, key).unwrap())
}

/// Publishes it and waits until it is in force.
pub async fn policy_publish(world: &World, rules: &str) {
    let publish = world.ask(Method::Post, "/v1/policy").key(&world.admin);
    let done = publish.json(&json!({"bundle_base64": policy(world, rules)})).send().await.ok();
    let mut facts = world.house().store.hints().facts;
    loop {
        let in_force = world.house().harness.governor().platform_policy().unwrap().digest();
        if done["digest"] == hex::encode(&in_force) {
            return;
        }
        facts.changed().await.unwrap();
    }
}

/// The route that carries an act out.
pub fn route_of<'a>(world: &'a World, act: &str) -> Option<&'a Route> {
    let mut routes = world.house().domains.iter().flat_map(|domain| &domain.routes);
    routes.find(|route| matches!(route.call, Call::Verb(name) if name == act))
}

/// The request that carries an example out, ready to be sent.
pub fn carry_out(world: &World, act: &str, example: &Example) -> Ask {
    let route = route_of(world, act).unwrap_or_else(|| panic!("{act} has no route"));
    let (path, body) = split(route.path, &example.args);
    world
        .ask(route.method, &path)
        .key(&example.key)
        .header("Writ-Tenant", example.tenant.as_str())
        .json(&body)
}

/// A path with its parameters filled from the arguments, and what is left of those.
pub fn split(template: &str, args: &Value) -> (String, Value) {
    let mut body = args.clone();
    let mut path = template.to_owned();
    for name in server::openapi::path_params(template) {
        let value =
            body.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("{template} needs {name}"));
        path = path.replace(&format!("{{{name}}}"), value.as_str().unwrap());
    }
    (path, body)
}
