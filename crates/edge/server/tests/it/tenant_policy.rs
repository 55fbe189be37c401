//! A tenant's own policy beside the platform's, and the keys of assurance level 1 without which nobody publishes one.

use crate::support::{Answer, World};
use act::{Clock as _, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use governor::policy::bundle::bundle_build;
use governor::policy::signer::Signer;
use governor::policy::{Files, Manifest, Metadata};
use governor::publish::BUNDLE_BYTES_MAX;
use kernel::{TenantId, hex, sha256};
use serde_json::{Value, json};
use std::sync::Arc;
use testkit::VirtualClock;

const HOUR_MS: i64 = 3_600_000;

fn now_ms(world: &World) -> i64 {
    world.house().harness.now_ms()
}

fn signer(seed: u8) -> Signer {
    Signer::from_entropy(&[seed; 32]).unwrap()
}

/// A policy that is about principals of certain names, and allows everything else.
fn rules(text: &str) -> String {
    format!("package writ\n\ndefault verdict := {{\"effect\": \"ALLOW\"}}\n\n{text}\n")
}

fn on_name(prefix: &str, verdict: &str) -> String {
    rules(&format!(
        "verdict := {verdict} if {{\n\tinput.action == \"access.principal.create\"\n\tstartswith(input.args.name, \"{prefix}\")\n}}"
    ))
}

fn blocks() -> String {
    on_name("blocked", "{\"effect\": \"DENY\", \"reasons\": [\"tenant.blocked\"]}")
}

struct Draft {
    seq: u64,
    not_after_ms: i64,
    files: Files,
}

impl Draft {
    fn of(world: &World, seq: u64, rego: &str) -> Draft {
        let files = Files::from([("rules.rego".to_owned(), rego.as_bytes().to_vec())]);
        Draft { seq, not_after_ms: now_ms(world) + HOUR_MS, files }
    }

    fn unsigned(&self) -> Vec<u8> {
        let metadata = Metadata { seq: self.seq, not_after_ms: self.not_after_ms, min_engine: 1 };
        let roots = vec!["writ".to_owned()];
        bundle_build(&Manifest { revision: "test".into(), roots, rego_version: 1, metadata }, &self.files)
            .unwrap()
    }

    fn signed(&self, signer: &Signer, scope: &str) -> Vec<u8> {
        signer.sign(&self.unsigned(), scope).unwrap()
    }
}

/// A tenant with an administrator who holds an ordinary key and a strong one.
struct Tenant<'a> {
    world: &'a World,
    id: TenantId,
    principal: String,
    ordinary: String,
    strong: String,
}

impl<'a> Tenant<'a> {
    async fn of(world: &'a World, id: &TenantId) -> Tenant<'a> {
        let (principal, ordinary) = world.principal_in(id, "owner of policy", &["tenant_admin"]).await;
        let end_ms = now_ms(world) + HOUR_MS;
        let strong = key(world, &world.admin, id, &principal, Some(1), Some(end_ms)).await.unwrap();
        Tenant { world, id: id.clone(), principal, ordinary, strong }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.ask(method, path).key(&self.strong).json(&body).send().await
    }

    async fn register(&self, signer: &Signer) -> Answer {
        let body = json!({"name": "policy", "public_key": signer.public_pem().unwrap()});
        self.call(Method::Post, "/v1/policy-keys", body).await
    }

    async fn publish(&self, bundle: &[u8]) -> Answer {
        self.call(Method::Post, "/v1/policy", json!({"bundle_base64": BASE64.encode(bundle)})).await
    }

    /// Publishes and waits until it is in force.
    async fn enforce(&self, bundle: &[u8]) {
        self.publish(bundle).await.ok();
        self.until(Some(sha256(bundle))).await;
    }

    async fn until(&self, digest: Option<kernel::Digest>) {
        let mut facts = self.world.house().store.hints().facts;
        while self.world.house().harness.governor().tenant_policy(&self.id) != digest {
            facts.changed().await.unwrap();
        }
    }

    async fn create(&self, name: &str) -> Answer {
        let body = json!({"name": self.world.unused(name), "kind": "person", "roles": []});
        self.world.ask(Method::Post, "/v1/principals").key(&self.ordinary).json(&body).send().await
    }
}

/// Asks for a key; its text, or the answer that refuses it.
async fn key(
    world: &World,
    maker: &str,
    tenant: &TenantId,
    principal: &str,
    assurance: Option<u8>,
    expires_at_ms: Option<i64>,
) -> Result<String, Answer> {
    let secret = hex::encode(&sha256(world.unused(principal).as_bytes()));
    let mut body = json!({"principal": principal, "name": "test", "secret_sha256": hex::encode(&sha256(secret.as_bytes()))});
    if let Some(level) = assurance {
        body["assurance"] = json!(level);
    }
    if let Some(at_ms) = expires_at_ms {
        body["expires_at_ms"] = json!(at_ms);
    }
    let ask = world.ask(Method::Post, "/v1/keys").key(maker).header("Writ-Tenant", tenant.as_str());
    let answer = ask.json(&body).send().await;
    if answer.status == 200 {
        Ok(format!("{}.{secret}", answer.json()["key"].as_str().unwrap()))
    } else {
        Err(answer)
    }
}

#[tokio::test]
async fn assurance_is_given_by_those_who_have_it_and_no_longer_than_they_do() {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |_| ()).await;
    let (home, other) = (world.tenant(), world.second_tenant().await);
    let tenant = Tenant::of(&world, &home).await;
    let (person, operator) = world.principal("operator of keys", &["operator"]).await;
    let now_ms = clock.now_ms();
    let service = world.admin(Method::Post, "/v1/principals");
    let service = service.json(&json!({"name": "robot", "kind": "service", "roles": []})).send().await.ok();
    let service = service["principal"].as_str().unwrap();
    let (foreigner, _) = world.principal_in(&other, "foreigner", &["tenant_admin"]).await;
    for (what, maker, whose, assurance, end_ms, expected) in [
        ("an ordinary key for oneself", &tenant.ordinary, &*tenant.principal, None, None, None),
        (
            "an ordinary key for somebody else by an ordinary one",
            &tenant.ordinary,
            &*person,
            None,
            None,
            Some((403, "assurance.too_low")),
        ),
        ("an ordinary key for somebody else by a strong one", &tenant.strong, &*person, None, None, None),
        (
            "a strong key by an ordinary one",
            &tenant.ordinary,
            &*person,
            Some(1),
            Some(HOUR_MS),
            Some((403, "assurance.too_low")),
        ),
        (
            "a strong key for oneself by an ordinary one",
            &operator,
            &*person,
            Some(1),
            Some(HOUR_MS),
            Some((403, "access.role_missing")),
        ),
        ("a strong key by the installation's", &world.admin, &*person, Some(1), Some(12 * HOUR_MS), None),
        (
            "a strong key for a day",
            &world.admin,
            &*person,
            Some(1),
            Some(24 * HOUR_MS),
            Some((422, "request.invalid")),
        ),
        ("a strong key for ever", &world.admin, &*person, Some(1), None, Some((422, "request.invalid"))),
        (
            "a strong key that has ended",
            &world.admin,
            &*person,
            Some(1),
            Some(0),
            Some((422, "request.invalid")),
        ),
        (
            "a strong key for a service",
            &world.admin,
            service,
            Some(1),
            Some(HOUR_MS),
            Some((403, "access.assurance_exceeded")),
        ),
        ("a strong key by a strong one", &tenant.strong, &*person, Some(1), Some(HOUR_MS), None),
        (
            "a strong key that outlives it",
            &tenant.strong,
            &*person,
            Some(1),
            Some(HOUR_MS + 1),
            Some((403, "access.assurance_exceeded")),
        ),
        (
            "a level that there is not",
            &world.admin,
            &*person,
            Some(2),
            Some(HOUR_MS),
            Some((403, "assurance.too_low")),
        ),
        (
            "somebody of another tenant",
            &tenant.strong,
            &*foreigner,
            Some(1),
            Some(HOUR_MS),
            Some((404, "not_found")),
        ),
    ] {
        let made = key(&world, maker, &home, whose, assurance, end_ms.map(|ms| now_ms + ms)).await;
        match (made, expected) {
            (Ok(_), None) => {}
            (Err(answer), Some((status, code))) => {
                assert_eq!(
                    (answer.status, answer.code().as_str()),
                    (status, code),
                    "{what}: {}",
                    answer.text()
                );
            }
            (made, _) => panic!("{what}: {made:?}"),
        }
    }
    // What a strong key opens, an ordinary one does not, and neither does the strong one once it has ended.
    let secret = json!({"name": "snow", "purpose": "a test", "value": "canary-value-4711"});
    let put = |key: &str| world.ask(Method::Post, "/v1/secrets").key(key).json(&secret);
    put(&tenant.ordinary).send().await.refused(403, "assurance.too_low");
    put(&tenant.strong).send().await.ok();
    let listed = world.admin(Method::Get, "/v1/keys").send().await.ok();
    let strong = listed["items"].as_array().unwrap().iter().filter(|key| key["assurance"] == 1).count();
    assert_eq!(strong, 3, "{listed}");
    clock.advance_ms(HOUR_MS);
    put(&tenant.strong).send().await.refused(401, "access.key_invalid");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_tenant_is_stricter_than_the_platform_and_nobody_else_is_touched() {
    let world = World::start().await;
    let (home, other) = (world.tenant(), world.second_tenant().await);
    let (tenant, neighbour) = (Tenant::of(&world, &home).await, Tenant::of(&world, &other).await);
    tenant.create("blocked").await.ok();
    let body = json!({"name": "policy", "public_key": signer(7).public_pem().unwrap()});
    let ask = world.ask(Method::Post, "/v1/policy-keys").key(&tenant.ordinary).json(&body);
    ask.send().await.refused(403, "assurance.too_low");
    tenant.register(&signer(7)).await.ok();
    tenant.register(&signer(7)).await.refused(409, "policy.key_known");
    tenant
        .call(Method::Post, "/v1/policy-keys", json!({"name": "x", "public_key": "hunter2"}))
        .await
        .refused(422, "policy.key_invalid");
    tenant.enforce(&Draft::of(&world, 1, &blocks()).signed(&signer(7), home.as_str())).await;

    tenant.create("blocked").await.refused(403, "tenant.blocked");
    tenant.create("other").await.ok();
    neighbour.create("blocked").await.ok();
    let shown = world.ask(Method::Get, "/v1/policy").key(&tenant.ordinary).send().await.ok();
    assert_eq!(
        (shown["scope"].as_str(), shown["keyid"].as_str()),
        (Some(home.as_str()), Some(&*signer(7).id()))
    );
    // The fact names both policies that decided.
    let leaves = world.leaves(&home, 0).await;
    let decided = leaves.iter().rfind(|leaf| leaf["kind"] == "governor.decided").unwrap();
    assert_eq!(decided["outcome"]["reasons"], json!(["tenant.blocked"]));
    assert!(
        decided["policy"].as_str().unwrap().ends_with(&format!("+{}", shown["digest"].as_str().unwrap()))
    );

    // What the tenant asks for on top is asked for: two people of the second tier.
    let waits = on_name(
        "waits",
        "{\"effect\": \"HITL\", \"reasons\": [\"tenant.two\"], \"approver_tier\": 2, \"approvals\": 2}",
    );
    tenant.enforce(&Draft::of(&world, 2, &waits).signed(&signer(7), home.as_str())).await;
    let waiting = tenant.create("waits").await;
    assert_eq!(waiting.status, 202, "{}", waiting.text());
    let approval = waiting.json()["approval"].as_str().unwrap().to_owned();
    let approval = world.admin(Method::Get, &format!("/v1/approvals/{approval}")).send().await.ok();
    assert_eq!((&approval["tier"], &approval["needed"]), (&json!(2), &json!(2)), "{approval}");

    // A policy that allows everything to everybody, under the platform's own names, lifts nothing of the platform's.
    let shadow = "package writ\n\ndefault verdict := {\"effect\": \"ALLOW\"}\n\ndeny := set()\n\nrole_grants := true\n";
    let mut draft = Draft::of(&world, 3, shadow);
    let config = json!({"writ": {"config": {"roles": {"operator": ["custody.secret.put"]}, "step_up": {}}}});
    draft.files.insert("data.json".into(), config.to_string().into_bytes());
    tenant.enforce(&draft.signed(&signer(7), home.as_str())).await;
    let (_, operator) = world.principal("operator under a shadow", &["operator"]).await;
    let secret = json!({"name": "a", "purpose": "a test", "value": "v"});
    let put = |key: &str| world.ask(Method::Post, "/v1/secrets").key(key).json(&secret);
    put(&operator).send().await.refused(403, "access.role_missing");
    put(&tenant.ordinary).send().await.refused(403, "assurance.too_low");

    // It outlives a restart, and so does what a key signed that has been revoked since.
    tenant.enforce(&Draft::of(&world, 4, &blocks()).signed(&signer(7), home.as_str())).await;
    tenant.call(Method::Post, &format!("/v1/policy-keys/{}/revoke", signer(7).id()), json!({})).await.ok();
    let Tenant { principal, ordinary, strong, .. } = tenant;
    let world = world.restart().await;
    let tenant = Tenant { world: &world, id: home.clone(), principal, ordinary, strong };
    tenant.create("blocked").await.refused(403, "tenant.blocked");
    let next = Draft::of(&world, 5, &rules("")).signed(&signer(7), home.as_str());
    tenant.publish(&next).await.refused(422, "policy.bundle_signature");
    tenant.create("blocked").await.refused(403, "tenant.blocked");
    world.running.shutdown().await;
}

#[tokio::test]
async fn hostile_bundles_are_refused_or_deny() {
    let world = World::start().await;
    let (home, other) = (world.tenant(), world.second_tenant().await);
    let (tenant, neighbour) = (Tenant::of(&world, &home).await, Tenant::of(&world, &other).await);
    tenant.register(&signer(1)).await.ok();
    neighbour.register(&signer(2)).await.ok();
    let scope = home.as_str();
    let in_force = Draft::of(&world, 10, &blocks()).signed(&signer(1), scope);
    tenant.enforce(&in_force).await;

    let draft = |seq, rego: &str| Draft::of(&world, seq, rego);
    let good = rules("");
    let with = |text: &str| draft(11, &rules(text)).signed(&signer(1), scope);
    let ended = Draft { not_after_ms: now_ms(&world), ..draft(11, &good) };
    for (what, bundle, code) in [
        ("not signed", draft(11, &good).unsigned(), "policy.bundle_signature"),
        ("signed by nobody we know", draft(11, &good).signed(&signer(3), scope), "policy.bundle_signature"),
        (
            "signed by another tenant's key",
            draft(11, &good).signed(&signer(2), scope),
            "policy.bundle_signature",
        ),
        (
            "another tenant's bundle",
            draft(11, &good).signed(&signer(2), other.as_str()),
            "policy.bundle_signature",
        ),
        (
            "for another tenant",
            draft(11, &good).signed(&signer(1), other.as_str()),
            "policy.bundle_signature",
        ),
        ("for the platform", draft(11, &good).signed(&signer(1), "platform"), "policy.bundle_signature"),
        (
            "by the installation's key",
            governor::policy::bundle::bundle_sign(
                &draft(11, &good).unsigned(),
                server::policy::KEY_ID,
                scope,
                world.house().custody.keyring().policy_key(),
            )
            .unwrap(),
            "policy.bundle_signature",
        ),
        ("older", draft(9, &good).signed(&signer(1), scope), "policy.bundle_rollback"),
        ("of the same number", draft(10, &good).signed(&signer(1), scope), "policy.bundle_rollback"),
        ("past its end", ended.signed(&signer(1), scope), "policy.bundle_expired"),
        ("a loop", with("a if b\n\nb if a"), "policy.lint"),
        ("the network", with("a if http.send({})"), "policy.lint"),
        ("the clock", with("a if time.now_ns() > 0"), "policy.lint"),
        ("a builtin of its own", with("count(x) := 0"), "policy.lint"),
        ("others' data", with("a if data.platform.roles"), "policy.lint"),
        (
            "the platform's package",
            draft(11, "package system.authz\n\nallow := true\n").signed(&signer(1), scope),
            "policy.lint",
        ),
        ("no Rego", draft(11, "<html>").signed(&signer(1), scope), "policy.syntax"),
        ("no verdict", draft(11, "package writ\n\na := 1\n").signed(&signer(1), scope), "policy.compile"),
        (
            "an answer to some only",
            draft(11, "package writ\n\nverdict := {\"effect\": \"ALLOW\"} if input.action == \"a\"\n")
                .signed(&signer(1), scope),
            "policy.undefined",
        ),
        ("nothing", Vec::new(), "policy.bundle_malformed"),
        ("a bomb", vec![0; 1000], "policy.bundle_malformed"),
        ("cut", in_force[..in_force.len() - 9].to_vec(), "policy.bundle_malformed"),
    ] {
        let answer = tenant.publish(&bundle).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, code), "{what}: {}", answer.text());
    }
    assert_eq!(
        world.house().harness.governor().tenant_policy(&home),
        Some(sha256(&in_force)),
        "what was in force stays"
    );
    tenant.create("blocked").await.refused(403, "tenant.blocked");
    tenant.publish(&in_force).await.ok();

    // A key that two tenants have registered signs for each in its own name only.
    neighbour.register(&signer(1)).await.ok();
    neighbour.publish(&in_force).await.refused(422, "policy.bundle_signature");

    // What the probes let through and an act then drives too far is denied, and the next act is judged as ever.
    let slow = "verdict := {\"effect\": \"DENY\"} if {\n\tinput.action == \"access.principal.create\"\n\tcount({[a, b] | some a in input.args.roles; some b in input.args.roles}) < 0\n}";
    tenant.enforce(&with(slow)).await;
    let many: Vec<String> = (0..1_500).map(|n| format!("role{n}")).collect();
    let mut roles: Vec<&str> = vec!["operator"; 1_500];
    roles.truncate(many.len());
    let distinct = json!({"name": "slow", "kind": "person", "roles": many});
    let ask = world.ask(Method::Post, "/v1/principals").key(&tenant.ordinary);
    ask.clone().json(&distinct).send().await.refused(422, "access.role_unknown");
    let same = json!({"name": "slow", "kind": "person", "roles": roles});
    ask.json(&same).send().await.refused(403, "policy.too_slow");
    tenant.create("quick").await.ok();
    neighbour.create("quick").await.ok();
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_tenant_that_locked_itself_out_is_let_in_by_the_platform() {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |_| ()).await;
    let home = world.tenant();
    let tenant = Tenant::of(&world, &home).await;
    let withdraw = |key: &str| {
        world
            .ask(Method::Post, "/v1/policy/withdraw")
            .key(key)
            .header("Writ-Tenant", home.as_str())
            .json(&json!({}))
    };
    withdraw(&tenant.strong).send().await.refused(404, "not_found");
    tenant.register(&signer(1)).await.ok();
    let shut = "package writ\n\ndefault verdict := {\"effect\": \"DENY\", \"reasons\": [\"tenant.shut\"]}\n";
    tenant.enforce(&Draft::of(&world, 5, shut).signed(&signer(1), home.as_str())).await;
    let open = Draft::of(&world, 6, &rules("")).signed(&signer(1), home.as_str());
    tenant.publish(&open).await.refused(403, "tenant.shut");
    withdraw(&tenant.strong).send().await.refused(403, "tenant.shut");
    // The platform is held to it like anybody else, but for this one act.
    let create = json!({"name": "by the platform", "kind": "person", "roles": []});
    world.admin(Method::Post, "/v1/principals").json(&create).send().await.refused(403, "tenant.shut");
    withdraw(&world.admin).send().await.ok();
    tenant.until(None).await;
    withdraw(&world.admin).send().await.refused(409, "request.state");
    tenant.create("let in").await.ok();
    // Withdrawn is not forgotten: nothing older comes back.
    let older = Draft::of(&world, 4, &rules("")).signed(&signer(1), home.as_str());
    tenant.publish(&older).await.refused(422, "policy.bundle_rollback");
    tenant.enforce(&open).await;
    withdraw(&tenant.ordinary).send().await.refused(403, "assurance.too_low");
    withdraw(&tenant.strong).send().await.ok();
    tenant.until(None).await;

    // A policy that nobody renewed denies everything, in its own tenant only.
    let mut short = Draft::of(&world, 7, &rules(""));
    short.not_after_ms = clock.now_ms() + 60_000;
    tenant.enforce(&short.signed(&signer(1), home.as_str())).await;
    tenant.create("in time").await.ok();
    clock.advance_ms(60_000);
    tenant.create("late").await.refused(403, "policy.stale");
    let platform = world.ask(Method::Post, "/v1/tenants").key(&world.admin);
    platform.json(&json!({"name": "elsewhere", "admin": "owner"})).send().await.ok();
    withdraw(&world.admin).send().await.ok();
    tenant.until(None).await;
    tenant.create("on time again").await.ok();

    // One that is on record and cannot be used denies too.
    world.house().harness.governor().tenant_block(&home);
    tenant.create("unusable").await.refused(403, "policy.own_unusable");
    // The platform's own policy is never withdrawn.
    let platform =
        world.ask(Method::Post, "/v1/policy/withdraw").key(&world.admin).json(&json!({})).send().await;
    platform.refused(409, "request.state");
    world.running.shutdown().await;
}

#[tokio::test]
async fn an_operator_signs_the_platforms_policy_with_a_key_of_their_own() {
    let world = World::start().await;
    let register = world.ask(Method::Post, "/v1/policy-keys").key(&world.admin);
    register
        .json(&json!({"name": "operator", "public_key": signer(4).public_pem().unwrap()}))
        .send()
        .await
        .ok();
    let (mut manifest, mut files) = governor::policy::defaults::platform_sources().unwrap();
    manifest.revision = "operator's".into();
    manifest.metadata.seq = u64::try_from(now_ms(&world)).unwrap() + 1_000_000;
    files.insert("more.rego".into(), b"package writ\n\ndeny contains \"operator.blocked\" if {\n\tinput.action == \"access.principal.create\"\n\tstartswith(input.args.name, \"blocked\")\n}\n".to_vec());
    let bundle = signer(4).sign(&bundle_build(&manifest, &files).unwrap(), "platform").unwrap();
    let publish = world.ask(Method::Post, "/v1/policy").key(&world.admin);
    publish.json(&json!({"bundle_base64": BASE64.encode(&bundle)})).send().await.ok();
    let mut facts = world.house().store.hints().facts;
    while world.house().harness.governor().platform_policy().unwrap().digest() != sha256(&bundle) {
        facts.changed().await.unwrap();
    }
    let create = json!({"name": "blocked", "kind": "person", "roles": []});
    world.admin(Method::Post, "/v1/principals").json(&create).send().await.refused(403, "operator.blocked");
    let world = world.restart().await;
    world.admin(Method::Post, "/v1/principals").json(&create).send().await.refused(403, "operator.blocked");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_bundle_may_be_as_large_as_it_says_and_nothing_else_may() {
    let world = World::start().await;
    let home = world.tenant();
    let tenant = Tenant::of(&world, &home).await;
    tenant.register(&signer(1)).await.ok();
    // Hexadecimal digits of hashes: half of it is left when it is packed.
    let noise = |seed: usize, lines: usize| {
        let lines: Vec<String> = (0..lines)
            .map(|n| {
                format!(
                    "# {}",
                    (0..7)
                        .map(|m| hex::encode(&sha256(format!("{seed} {n} {m}").as_bytes())))
                        .collect::<String>()
                )
            })
            .collect();
        format!("package writ\n\n{}\n", lines.join("\n"))
    };
    let bundle = |files: usize, lines: usize, seq: u64| {
        let mut draft = Draft::of(&world, seq, &rules(""));
        for n in 0..files {
            draft.files.insert(format!("noise{n}.rego"), noise(n, lines).into_bytes());
        }
        draft.signed(&signer(1), home.as_str())
    };
    let large = bundle(4, 500, 1);
    assert!(large.len() > 400 * 1024 && large.len() <= BUNDLE_BYTES_MAX, "{}", large.len());
    tenant.enforce(&large).await;
    let over = bundle(5, 540, 2);
    assert!(over.len() > BUNDLE_BYTES_MAX, "{}", over.len());
    tenant.publish(&over).await.refused(413, "edge.body_too_large");
    tenant.publish(&vec![0; BUNDLE_BYTES_MAX + 1]).await.refused(413, "policy.bundle_too_large");
    tenant.publish(&vec![0; 600 * 1024]).await.refused(413, "edge.body_too_large");
    // The larger bound is this act's alone.
    let long = json!({"name": "a", "purpose": "x".repeat(300 * 1024), "value": "v"});
    tenant.call(Method::Post, "/v1/secrets", long).await.refused(413, "edge.body_too_large");
    let contract = world.ask(Method::Get, "/openapi.json").send().await.ok();
    let schema =
        &contract["paths"]["/v1/policy"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["x-args-bytes-max"], governor::publish::ARGS_BYTES_MAX);
    world.running.shutdown().await;
}
