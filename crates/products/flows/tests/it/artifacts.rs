//! The registry: what is taken in, what is refused, and what a run and its evidence name.

use crate::desk::{Desk, INCIDENT};
use crate::house::{House, contract, person};
use crate::looking::read;
use act::{Class, Fault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use flows::artifact::{ARTIFACT_BYTES_MAX, Kind, key, seal};
use flows::connector::manifest;
use flows::run::Outcome;
use harness::Done;
use serde_json::{Value, json};

fn text(version: &str) -> String {
    contract("connectors/http.yaml").replace("version: \"1.0.0\"", &format!("version: \"{version}\""))
}

fn sealed(text: &str, seed: u8) -> String {
    let signing = SigningKey::from_bytes(&[seed; 32]);
    let payload = manifest::parse(text).unwrap().canonical().unwrap();
    seal(Kind::Connector, &payload, &key::id(&signing.verifying_key()), |message| {
        signing.sign(message).to_bytes()
    })
}

/// Bytes that nobody parsed, signed.
fn seal_of(payload: &[u8], seed: u8) -> String {
    let signing = SigningKey::from_bytes(&[seed; 32]);
    seal(Kind::Connector, payload, &key::id(&signing.verifying_key()), |message| {
        signing.sign(message).to_bytes()
    })
}

async fn act(house: &House, act: &str, args: Value) -> Result<Value, Fault> {
    let admin = person(house, "owner", &["tenant_admin"]);
    match house.act(&admin, act, args).await? {
        Done::Outcome { value, .. } => Ok(value),
        Done::Waiting { .. } => panic!("it waits"),
    }
}

async fn install(house: &House, manifest: &str) -> Result<Value, Fault> {
    let args = json!({"name": "x", "manifest": manifest, "base_url": "https://x.example"});
    act(house, "flows.connector.install", args).await
}

async fn code(house: &House, manifest: &str) -> String {
    install(house, manifest).await.map_or_else(|fault| fault.code, |_| "taken".into())
}

async fn register(house: &House, seed: u8) -> Value {
    let public = BASE64.encode(SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes());
    act(house, "flows.artifact_key.register", json!({"name": "team", "public_key": public})).await.unwrap()
}

#[tokio::test]
async fn f07_what_is_signed_is_believed_for_its_signature_alone() {
    let house = House::empty(1).await;
    let signed = sealed(&text("2"), 1);
    assert_eq!(code(&house, &signed).await, "artifact.key_unknown");
    let registered = register(&house, 1).await;
    let other = BASE64.encode(manifest::parse(&text("3")).unwrap().canonical().unwrap());
    let envelope: Value = serde_json::from_str(&signed).unwrap();
    let with = |name: &str, value: Value| {
        let mut envelope = envelope.clone();
        envelope[name] = value;
        envelope.to_string()
    };
    for (what, text, expected) in [
        ("nobody's", with("signatures", json!([])), "artifact.unsigned"),
        ("a stranger's", sealed(&text("2"), 2), "artifact.key_unknown"),
        ("altered", with("payload", json!(other)), "artifact.signature"),
        ("another kind", with("payloadType", json!(Kind::Workflow.payload_type())), "artifact.signature"),
        ("no kind", with("payloadType", json!("text/plain")), "artifact.malformed"),
        (
            "two signatures",
            with("signatures", json!([envelope["signatures"][0], envelope["signatures"][0]])),
            "artifact.malformed",
        ),
        ("not in the registry", "http@2".to_owned(), "not_found"),
    ] {
        assert_eq!(code(&house, &text).await, expected, "{what}");
    }
    // One that is too large, signed by the very key that is trusted, or plain: refused before any of it is kept.
    let large = format!("{}# {}\n", text("2"), "x".repeat(ARTIFACT_BYTES_MAX));
    for (what, text) in [("plain", large.clone()), ("signed", seal_of(large.as_bytes(), 1))] {
        for (by, args) in [
            ("flows.artifact.publish", json!({"manifest": text})),
            (
                "flows.connector.install",
                json!({"name": "x", "manifest": text, "base_url": "https://x.example"}),
            ),
        ] {
            let fault = act(&house, by, args).await.unwrap_err();
            assert!(matches!(fault.class, Class::Invalid | Class::TooLarge), "{what} {by}: {fault:?}");
        }
    }
    let none = read(&house, "/v1/artifacts", &[]).await.unwrap();
    assert_eq!(none["items"], json!([]), "nothing of what was refused was kept");
    let installed = install(&house, &signed).await.unwrap();
    let list = read(&house, "/v1/artifacts", &[]).await.unwrap();
    let row = &list["items"][0];
    assert_eq!((&row["digest"], &row["key"]), (&installed["artifact"], &registered["artifact_key"]));
    // A key that has been revoked opens nothing any more, in the registry neither.
    assert_eq!(code(&house, "http@2").await, "taken");
    act(&house, "flows.artifact_key.revoke", registered).await.unwrap();
    for text in [signed.as_str(), "http@2"] {
        assert_eq!(code(&house, text).await, "artifact.key_unknown");
    }
    for bad in ["", "AAAA", "not base64", &BASE64.encode([0; 32])] {
        let args = json!({"name": "team", "public_key": bad});
        let fault = act(&house, "flows.artifact_key.register", args).await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_str()), (Class::Invalid, "artifact.key_invalid"), "{bad}");
    }
}

#[tokio::test]
async fn a_version_stays_what_it_is_and_goes_forward() {
    let house = House::empty(2).await;
    // One that comes with the program, by its own name and with other bytes.
    let shipped = text("1.0.0");
    assert_eq!(code(&house, &shipped.replace("Read a resource", "Read it")).await, "artifact.altered");
    assert_eq!(code(&house, &shipped).await, "taken");
    assert_eq!(code(&house, &text("1.10.0")).await, "taken");
    assert_eq!(code(&house, &text("1.10.0").replace("Read a resource", "Read it")).await, "artifact.altered");
    // Text is what it says, not how it is written.
    assert_eq!(code(&house, &format!("# again\n{}", text("1.10.0"))).await, "taken");
    for older in ["1.9.0", "1.10.0-rc.1", "1.0.0"] {
        assert_eq!(code(&house, &text(older)).await, "artifact.older", "{older}");
    }
    let back =
        json!({"name": "x", "manifest": "http@1.0.0", "base_url": "https://x.example", "allow_older": true});
    act(&house, "flows.connector.install", back).await.unwrap();
    // Yanked, it is not installed anew; what is installed stays.
    let published = act(&house, "flows.artifact.publish", json!({"manifest": text("2.0.0")})).await.unwrap();
    let again = act(&house, "flows.artifact.publish", json!({"manifest": text("2.0.0")})).await.unwrap_err();
    assert_eq!(again.code, "request.state");
    assert_eq!(code(&house, "http@2.0.0").await, "taken");
    let yank = json!({"artifact": published["artifact"], "reason": "sends notes twice"});
    act(&house, "flows.artifact.yank", yank.clone()).await.unwrap();
    assert_eq!(act(&house, "flows.artifact.yank", yank).await.unwrap_err().code, "request.state");
    let refused = install(&house, "http@2.0.0").await.unwrap_err();
    assert_eq!(refused.code, "artifact.yanked");
    assert!(refused.message.contains("sends notes twice"), "{}", refused.message);
    assert_eq!(code(&house, &text("2.0.0")).await, "artifact.yanked");
    let shown = read(&house, "/v1/connectors/{connector}", &[("connector", "x")]).await.unwrap();
    assert_eq!(shown["manifest_version"], "2.0.0");
}

#[tokio::test]
async fn f07_a_pin_is_met_exactly_and_the_digests_stand_in_the_log() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 3).await;
    let shown = read(&house, "/v1/connectors/{connector}", &[("connector", "servicenow")]).await.unwrap();
    let digest = shown["artifact"].as_str().unwrap().to_owned();
    let workflow = |digest: &str| {
        format!(
            "name: pinned\npins: {{connectors: {{servicenow: {{manifest: servicenow, version: \"1.0.0\", digest: \"{digest}\"}}}}}}\n\
             steps:\n  - id: a\n    tool: {{connector: servicenow, action: incident.get, params: {{sys_id: '{INCIDENT}'}}}}\n"
        )
    };
    house.publish(&workflow(&digest)).await.unwrap();
    let id = house.start("pinned", json!({})).await;
    house.settle().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
    let facts = house.facts(&id).await;
    assert_eq!(facts[0]["outcome"]["artifacts"], json!({"servicenow": digest}));
    // The published workflow is an artifact that names what it was checked against.
    let list = read(&house, "/v1/artifacts", &[]).await.unwrap();
    let row = list["items"].as_array().unwrap().iter().find(|row| row["name"] == "pinned").unwrap().clone();
    let id = row["artifact"].as_str().unwrap();
    let artifact = read(&house, "/v1/artifacts/{artifact}", &[("artifact", id)]).await.unwrap();
    let envelope: Value = serde_json::from_str(artifact["envelope"].as_str().unwrap()).unwrap();
    let payload: Value =
        serde_json::from_slice(&BASE64.decode(envelope["payload"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(payload["connectors"]["servicenow"]["digest"], json!(digest));
    // Other bytes than pinned start nothing.
    house.publish(&workflow(&"0".repeat(64))).await.unwrap();
    let fault = act(&house, "flows.run.start", json!({"workflow": "pinned", "event": {}})).await.unwrap_err();
    assert_eq!(fault.code, "flows.connector_unready");
}
