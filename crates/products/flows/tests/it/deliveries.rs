//! Deliveries at the door: what is believed, what is turned away, and what a repetition comes to.

use crate::desk::Desk;
use crate::house::{HOOK_SECRET, House, person};
use crate::runs::event;
use act::{Call, Class, Clock as _, Delivery, Fault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use harness::{Done, Terms};
use hmac::{KeyInit as _, Mac as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub type Headers = Vec<(String, String)>;

pub fn sign(secret: &str, id: &str, timestamp: i64, body: &str) -> Headers {
    let key = BASE64.decode(secret.trim_start_matches("whsec_")).unwrap();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()));
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

async fn hook(house: &House) -> String {
    let id = kernel::Id::parse("con_servicenow").unwrap();
    let row = house.harness.store().record(&house.tenant, "flows.connector", &id).await.unwrap().unwrap();
    let connector = store::decode::<flows::connector::record::Connector>(&row).unwrap();
    connector.hook.as_ref().unwrap().id.to_string()
}

async fn receive(house: &House, hook: &str, headers: &Headers, body: &str) -> Result<Delivery, Fault> {
    let route = house.domain.routes.iter().find(|route| route.path == "/v1/hooks/{hook}").unwrap();
    let Call::Receive(receive) = &route.call else { panic!("a hook receives") };
    let params = BTreeMap::from([("hook".to_owned(), hook.to_owned())]);
    receive(&params, headers, body.as_bytes()).await
}

pub async fn deliver(house: &House, headers: &Headers, body: &str) -> Result<(Value, bool), Fault> {
    let delivery = receive(house, &hook(house).await, headers, body).await?;
    match house.harness.act(&delivery.ctx, delivery.act, delivery.args, Terms::default()).await? {
        Done::Outcome { value, replayed, held } => {
            house.queue.lock().unwrap().extend(held);
            Ok((value, replayed))
        }
        Done::Waiting { .. } => panic!("a delivery waits"),
    }
}

#[tokio::test]
async fn a_delivery_starts_one_run_however_often_it_comes() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 1).await;
    let now_s = house.clock.now_ms() / 1000;
    let body = event().to_string();
    let (first, replayed) = deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s, &body), &body).await.unwrap();
    assert!(!replayed && first["run"].is_string(), "{first}");
    // The sender tries again a minute later: another time, another signature, the same delivery.
    house.clock.advance_ms(60_000);
    let (again, replayed) =
        deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s + 60, &body), &body).await.unwrap();
    assert_eq!((again, replayed), (first.clone(), true));
    // The same id with another body is somebody's mistake, and starts nothing.
    let mut other = event();
    other["number"] = "INC0099999".into();
    let other = other.to_string();
    let fault = deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s, &other), &other).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.class), ("idempotency.mismatch", Class::Conflict));
    // Another delivery about the same change of the same record.
    let (duplicate, _) =
        deliver(&house, &sign(HOOK_SECRET, "msg_2", now_s + 60, &body), &body).await.unwrap();
    assert_eq!((&duplicate["ignored"], &duplicate["run"]), (&json!("duplicate"), &first["run"]));
    // Our own write, told back to us.
    let mut own = event();
    own["sys_mod_count"] = "1".into();
    own["sys_updated_by"] = "svc.writ".into();
    let own = own.to_string();
    let (own, _) = deliver(&house, &sign(HOOK_SECRET, "msg_3", now_s + 60, &own), &own).await.unwrap();
    assert_eq!(own["ignored"], "own_write");
    // A later change of the record is another event; fractions in it do no harm.
    let mut later = event();
    later["sys_mod_count"] = "2".into();
    later["score"] = 0.5.into();
    let later = later.to_string();
    let (later, _) = deliver(&house, &sign(HOOK_SECRET, "msg_4", now_s + 60, &later), &later).await.unwrap();
    assert!(later["run"].is_string() && later["run"] != first["run"]);
    house.settle().await;
    assert_eq!(desk.notes(), 2);
}

#[tokio::test]
async fn e09_e10_e11_e13_what_is_not_signed_now_by_the_hooks_own_secret_is_turned_away() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 2).await;
    let now_s = house.clock.now_ms() / 1000;
    let body = event().to_string();
    let own = hook(&house).await;
    let good = sign(HOOK_SECRET, "msg_1", now_s, &body);
    let change = |n: usize, value: &str| {
        let mut headers = good.clone();
        headers[n].1 = value.to_owned();
        headers
    };
    let twice = [good.clone(), vec![good[2].clone()]].concat();
    let foreign = sign("whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=", "msg_1", now_s, &body);
    let spaced = format!("{body} ");
    for (name, hook, headers, body, code) in [
        ("no headers", own.as_str(), Headers::new(), body.as_str(), "hook.headers"),
        ("no signature", &own, good[..2].to_vec(), &body, "hook.headers"),
        ("an empty signature", &own, change(2, ""), &body, "hook.headers"),
        ("two signature headers", &own, twice, &body, "hook.headers"),
        ("another scheme", &own, change(2, "sha1=0123"), &body, "hook.signature"),
        ("a cut signature", &own, change(2, &good[2].1[..20]), &body, "hook.signature"),
        ("another id", &own, change(0, "msg_2"), &body, "hook.signature"),
        ("another time", &own, change(1, &(now_s + 1).to_string()), &body, "hook.signature"),
        ("a time that is no number", &own, change(1, "now"), &body, "hook.headers"),
        ("another body", &own, good.clone(), spaced.as_str(), "hook.signature"),
        ("somebody else's secret", &own, foreign, &body, "hook.signature"),
        ("six minutes ago", &own, sign(HOOK_SECRET, "msg_1", now_s - 360, &body), &body, "hook.stale"),
        ("in six minutes", &own, sign(HOOK_SECRET, "msg_1", now_s + 360, &body), &body, "hook.stale"),
        ("another hook", "hok_00000000000000000000000000000000", good.clone(), &body, "hook.unknown"),
        ("no hook at all", "../runs", good.clone(), &body, "hook.unknown"),
    ] {
        let fault = receive(&house, hook, &headers, body).await.unwrap_err();
        assert_eq!((fault.code.as_str(), fault.class), (code, Class::Unauthenticated), "{name}");
    }
    for (name, body, class) in [
        ("no JSON", "{".to_owned(), Class::Invalid),
        ("no object", "[]".to_owned(), Class::Invalid),
        ("an event nobody knows", json!({"event": "incident.eaten"}).to_string(), Class::Invalid),
        ("too large", " ".repeat(64 * 1024 + 1), Class::TooLarge),
    ] {
        let fault =
            receive(&house, &own, &sign(HOOK_SECRET, "msg_1", now_s, &body), &body).await.unwrap_err();
        assert_eq!(fault.class, class, "{name}: {fault}");
    }
    // A hook whose secret is gone takes nothing, and says no more than that.
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "custody.secret.revoke", json!({"name": "hook"})).await.unwrap();
    let fault = receive(&house, &own, &good, &body).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.class), ("hook.unknown", Class::Unauthenticated));
    assert!(desk.look(|seen| seen.requests.is_empty()));
}

#[tokio::test]
async fn a_removed_connector_takes_no_deliveries() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 3).await;
    let (own, body) = (hook(&house).await, event().to_string());
    let headers = sign(HOOK_SECRET, "msg_1", house.clock.now_ms() / 1000, &body);
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "servicenow"})).await.unwrap();
    let fault = receive(&house, &own, &headers, &body).await.unwrap_err();
    assert_eq!(fault.class, Class::Unauthenticated);
}

#[tokio::test]
async fn one_workflow_that_cannot_start_keeps_no_other_from_it() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 4).await;
    let other = "
name: other
trigger: {connector: servicenow, event: incident.created}
steps:
  - {id: get, tool: {connector: http, action: get, params: {path: things}}}
";
    house.publish(other).await.unwrap();
    let picky = "
name: picky
trigger: {connector: servicenow, event: incident.created, match: \"event.number == 'INC1'\"}
steps:
  - {id: a, transform: {v: 1}}
";
    house.publish(picky).await.unwrap();
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "http"})).await.unwrap();
    let now_s = house.clock.now_ms() / 1000;
    let body = event().to_string();
    let (outcome, _) = deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s, &body), &body).await.unwrap();
    assert_eq!(outcome["runs"].as_array().unwrap().len(), 1, "{outcome}");
    let why = |name: &str| {
        let passed = outcome["passed_over"].as_array().unwrap();
        passed.iter().find(|passed| passed["workflow"] == name).unwrap()["reason"].clone()
    };
    assert_eq!((why("other"), why("picky")), (json!("connector_unready"), json!("no_match")));
    let facts = house.facts(house.tenant.id()).await;
    let ignored = facts.iter().find(|fact| fact["kind"] == "flows.event.ignored").unwrap();
    assert_eq!(ignored["outcome"]["passed_over"], outcome["passed_over"]);
    // The same change comes again when the connector is back: only the run that is missing starts.
    let install = json!({
        "name": "http", "manifest": crate::house::contract("connectors/http.yaml"), "base_url": desk.url,
        "user": "svc.writ", "password": "secret:desk",
    });
    house.act(&admin, "flows.connector.install", install).await.unwrap();
    let (again, _) = deliver(&house, &sign(HOOK_SECRET, "msg_2", now_s, &body), &body).await.unwrap();
    assert_eq!(again["runs"].as_array().unwrap().len(), 1, "{again}");
    assert_ne!(again["run"], outcome["run"]);
    // By hand there is one workflow, and whoever asks for it is told.
    house.act(&admin, "flows.connector.remove", json!({"connector": "http"})).await.unwrap();
    let start = json!({"workflow": "other", "event": {}});
    let fault = house.act(&admin, "flows.run.start", start).await.unwrap_err();
    assert_eq!(fault.code, "flows.connector_unready");
}
