//! Proving who we are: tokens, passwords that change, and what is kept when a connector is installed again.

use crate::desk::{Desk, INCIDENT, Tokens};
use crate::house::{House, contract, person};
use crate::looking::read;
use act::Class;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flows::connector::login::{FAILED_MS, PREFER_MS, REFUSED_MS};
use flows::run::{Outcome, RunDoc, Status};
use harness::Done;
use serde_json::{Value, json};

const SECRET: &str = "canary-client-secret";

async fn install(house: &House, desk: &Desk, args: Value) -> Result<Value, act::Fault> {
    let admin = person(house, "owner", &["tenant_admin"]);
    let mut all = json!({"name": "servicenow", "manifest": contract("connectors/servicenow.yaml"), "base_url": desk.url});
    for (name, value) in args.as_object().unwrap() {
        all[name] = value.clone();
    }
    match house.act(&admin, "flows.connector.install", all).await? {
        Done::Outcome { value, .. } => Ok(value),
        Done::Waiting { .. } => panic!("an installation waits"),
    }
}

async fn put(house: &House, name: &str, value: &str, overlap_ms: Option<i64>) {
    let admin = person(house, "owner", &["tenant_admin"]);
    let args = json!({"name": name, "purpose": "test", "value": value, "overlap_ms": overlap_ms});
    house.act(&admin, "custody.secret.put", args).await.unwrap();
}

async fn reader(house: &House) {
    let text = format!(
        "name: reader\nsteps:\n  - id: get\n    tool: {{connector: servicenow, action: incident.get, params: {{sys_id: '{INCIDENT}'}}}}\n    retry: {{external: 2}}\n"
    );
    house.publish(&text).await.unwrap();
}

/// A desk that grants tokens, and a house with a client that fetches them.
async fn by_token(seed: u64, lifetime_s: i64) -> (Desk, House) {
    let desk = Desk::start().await;
    desk.look(|seen| {
        seen.tokens = Some(Tokens { secret: SECRET.into(), lifetime_s, ..Tokens::default() });
        seen.doors = vec!["nobody".into()];
    });
    let house = House::with(&desk, seed).await;
    put(&house, "client", SECRET, None).await;
    let args = json!({"oauth_client_id": "writ", "oauth_client_secret": "secret:client", "user": "svc.writ"});
    let shown = install(&house, &desk, args).await.unwrap();
    assert_eq!(shown["login"]["oauth_client_credentials"]["token_path"], "/oauth_token.do");
    reader(&house).await;
    (desk, house)
}

async fn run(house: &House) -> RunDoc {
    let id = house.start("reader", json!({})).await;
    house.settle().await;
    house.run(&id).await
}

fn tokens(desk: &Desk) -> (usize, usize) {
    desk.look(|seen| {
        let tokens = seen.tokens.as_ref().unwrap();
        (tokens.issued, tokens.forms.len())
    })
}

fn code(run: &RunDoc) -> Option<&str> {
    run.error.as_ref().map(|error| error.code.as_str())
}

#[tokio::test]
async fn many_calls_share_one_token_and_fetch_the_next_before_it_ends() {
    let (desk, house) = by_token(1, 1_000).await;
    for _ in 0..20 {
        house.start("reader", json!({})).await;
    }
    // All at once, as many workers would.
    let mut leases = Vec::new();
    while let Some(lease) = house.lease().await {
        leases.push(lease);
    }
    assert_eq!(leases.len(), 20);
    futures::future::join_all(leases.into_iter().map(|lease| house.job(&lease)(lease))).await;
    house.settle().await;
    assert_eq!(tokens(&desk), (1, 1));
    assert_eq!(desk.look(|seen| seen.requests.len()), 20);
    // A minute before its end it is not used any more.
    house.clock.advance_ms(939_000);
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    assert_eq!(tokens(&desk), (1, 1));
    house.clock.advance_ms(1_000);
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    assert_eq!((tokens(&desk), desk.look(|seen| seen.turned_away)), ((2, 2), 0));
}

#[tokio::test]
async fn a_token_that_died_early_is_replaced_once_and_the_call_made_again() {
    let (desk, house) = by_token(2, 1_000).await;
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    desk.look(|seen| seen.doors = vec!["nobody".into()]);
    let revived = run(&house).await;
    assert_eq!((revived.outcome, revived.attempts.external), (Some(Outcome::Done), 0));
    assert_eq!((tokens(&desk), desk.look(|seen| seen.turned_away)), ((2, 2), 1));
    // A write too: what was turned away had no effect, so there is one note.
    house.publish(&contract("workflows/itsm-triage.yaml")).await.ok();
    desk.look(|seen| seen.doors = vec!["nobody".into()]);
    let id = house.event(crate::runs::event()).await;
    house.settle().await;
    assert_eq!((house.run(&id).await.outcome, desk.notes()), (Some(Outcome::Done), 1));
    // A system that takes no token is heard as such: each attempt has one more token, and no more.
    let instead = (200, "", r#"{"access_token":"useless","token_type":"bearer","expires_in":900}"#);
    desk.look(|seen| {
        seen.tokens.as_mut().unwrap().instead = vec![instead; 20].into();
        seen.doors = vec!["nobody".into()];
        seen.turned_away = 0;
    });
    let lost = run(&house).await;
    assert_eq!((lost.status, code(&lost)), (Status::Dead, Some("flows.unauthenticated")));
    let left = desk.look(|seen| (seen.tokens.as_ref().unwrap().instead.len(), seen.turned_away));
    assert_eq!(left, (20 - 3, 6), "three attempts, two requests each");
}

#[tokio::test]
async fn a_client_that_is_not_accepted_is_not_asked_for_again_and_a_failing_endpoint_is() {
    let (desk, house) = by_token(3, 1_000).await;
    desk.look(|seen| seen.tokens.as_mut().unwrap().secret = "changed".into());
    for _ in 0..3 {
        let refused = run(&house).await;
        assert_eq!((refused.status, code(&refused)), (Status::Dead, Some("flows.token_refused")));
        assert_eq!((refused.attempts.external, tokens(&desk)), (0, (0, 1)), "asked for once");
    }
    assert_eq!(
        read(&house, "/v1/breakers/{connector}", &[("connector", "servicenow")]).await.unwrap()["state"],
        "closed"
    );
    house.clock.advance_ms(REFUSED_MS);
    run(&house).await;
    assert_eq!(tokens(&desk), (0, 2));
    // Stored anew, it is asked at once.
    put(&house, "client", "changed", Some(0)).await;
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    assert_eq!(tokens(&desk), (1, 3));
    // What says nothing about the client is tried again, by the step's own retries.
    for (instead, what) in [
        ((503, "", "{}"), "a server error"),
        ((429, "retry-after: 7\r\n", "{}"), "a limit"),
        ((200, "", "<html>Your instance is asleep</html>"), "a page"),
        ((200, "", r#"{"token_type":"Bearer"}"#), "no token"),
        ((200, "", r#"{"access_token":"a b","token_type":"Bearer"}"#), "a token with a space"),
        ((200, "", r#"{"access_token":"x","token_type":"mac"}"#), "another kind of token"),
        (
            (200, "", r#"{"access_token":"x","token_type":"Bearer","expires_in":-1}"#),
            "a token that has ended",
        ),
    ] {
        house.clock.advance_ms(1_000_000);
        desk.look(|seen| seen.tokens.as_mut().unwrap().instead = vec![instead].into());
        let id = house.start("reader", json!({})).await;
        house.work().await;
        let waiting = house.run(&id).await;
        assert_eq!(
            (waiting.status, code(&waiting)),
            (Status::Running, Some("flows.token_unavailable")),
            "{what}"
        );
        // Others hear of the same failure and do not ask for it again.
        let (_, asked) = tokens(&desk);
        house.start("reader", json!({})).await;
        house.work().await;
        assert_eq!(tokens(&desk).1, asked, "{what}");
        house.clock.advance_ms(if what == "a limit" { 7_000 } else { FAILED_MS });
        house.settle().await;
        assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done), "{what}");
    }
}

#[tokio::test]
async fn h08_no_token_and_no_client_secret_stands_anywhere() {
    let (desk, house) = by_token(4, 1_000).await;
    let id = run(&house).await.id;
    let mut seen = format!("{:?}", house.run(&id).await);
    let shown = read(&house, "/v1/connectors/{connector}", &[("connector", "servicenow")]).await.unwrap();
    seen.push_str(&shown.to_string());
    for leaf in house.harness.store().leaves(&house.tenant, 0, 500).await.unwrap() {
        seen.push_str(&String::from_utf8(leaf.leaf).unwrap());
    }
    for canary in [SECRET, "tok-1", "canary"] {
        assert!(!seen.contains(canary), "{canary}");
    }
    assert!(seen.contains("secret:client") && seen.contains("oauth_client_credentials"));
    assert_eq!(tokens(&desk), (1, 1));
}

fn basic(password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("svc.writ:{password}")))
}

#[tokio::test]
async fn a_password_is_changed_in_either_order_and_no_run_fails() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 5).await;
    reader(&house).await;
    let doors =
        |values: &[&str]| desk.look(|seen| seen.doors = values.iter().map(|value| basic(value)).collect());
    let away = || desk.look(|seen| seen.turned_away);
    doors(&["hunter2"]);
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    // Here first: the other system takes only the one before, and is not bothered with the new one at every call.
    put(&house, "desk", "hunter3", None).await;
    for _ in 0..5 {
        let done = run(&house).await;
        assert_eq!((done.outcome, done.attempts.external), (Some(Outcome::Done), 0));
    }
    assert_eq!(away(), 1);
    house.clock.advance_ms(PREFER_MS);
    run(&house).await;
    assert_eq!(away(), 2);
    // The other system follows: the one before is turned away, the new one taken, and kept to.
    doors(&["hunter3"]);
    for _ in 0..3 {
        assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    }
    assert_eq!(away(), 3);
    // While both are taken, new calls show the new one.
    put(&house, "desk", "hunter4", None).await;
    doors(&["hunter3", "hunter4"]);
    house.clock.advance_ms(PREFER_MS);
    run(&house).await;
    doors(&["hunter4"]);
    run(&house).await;
    assert_eq!(away(), 3);
    // Told to die, the one before is not shown any more.
    put(&house, "desk", "hunter5", None).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "custody.secret.retire", json!({"name": "desk"})).await.unwrap();
    let dead = run(&house).await;
    assert_eq!((dead.status, code(&dead)), (Status::Dead, Some("flows.unauthenticated")));
    // Nor after its overlap.
    doors(&["hunter5"]);
    put(&house, "desk", "hunter6", Some(60_000)).await;
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    house.clock.advance_ms(60_000);
    assert_eq!(code(&run(&house).await), Some("flows.unauthenticated"));
}

#[tokio::test]
async fn a_clients_secret_and_a_hooks_are_changed_likewise() {
    let (desk, house) = by_token(6, 1_000).await;
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    put(&house, "client", "next", None).await;
    // The endpoint knows only the old one yet.
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    desk.look(|seen| seen.tokens.as_mut().unwrap().secret = "next".into());
    house.clock.advance_ms(PREFER_MS);
    assert_eq!(run(&house).await.outcome, Some(Outcome::Done));
    let forms = desk.look(|seen| seen.tokens.as_ref().unwrap().forms.clone());
    let last: Vec<&str> = forms.iter().map(|form| form.rsplit('=').next().unwrap()).collect();
    assert_eq!(last, [SECRET, "next", SECRET, "next"]);
    // A revoked one ends the token that it fetched.
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "custody.secret.revoke", json!({"name": "client"})).await.unwrap();
    assert_eq!(code(&run(&house).await), Some("flows.credential"));

    let (body, now_s) = (crate::runs::event().to_string(), act::Clock::now_ms(&*house.clock) / 1000);
    let other = format!("whsec_{}", BASE64.encode([7; 32]));
    put(&house, "hook", &other, None).await;
    for (n, secret) in [other.as_str(), crate::house::HOOK_SECRET].into_iter().enumerate() {
        let headers = crate::deliveries::sign(secret, &format!("msg_{n}"), now_s, &body);
        crate::deliveries::deliver(&house, &headers, &body).await.unwrap();
    }
    house.act(&admin, "custody.secret.retire", json!({"name": "hook"})).await.unwrap();
    let headers = crate::deliveries::sign(crate::house::HOOK_SECRET, "msg_3", now_s, &body);
    assert_eq!(crate::deliveries::deliver(&house, &headers, &body).await.unwrap_err().code, "hook.signature");
}

#[tokio::test]
async fn what_is_not_said_again_is_kept_and_what_is_missing_is_said() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 7).await;
    let shown =
        async || read(&house, "/v1/connectors/{connector}", &[("connector", "servicenow")]).await.unwrap();
    let before = shown().await;
    let again = install(&house, &desk, json!({})).await.unwrap();
    assert_eq!((&again["kept"], &again["warnings"]), (&json!(["login", "hook"]), &json!([])));
    assert_eq!((&shown().await["login"], &shown().await["hook"]), (&before["login"], &before["hook"]));
    // Told otherwise, neither is; each alone too.
    let other = install(&house, &desk, json!({"no_hook": true})).await.unwrap();
    assert_eq!((&other["kept"], &other["hook"]), (&json!(["login"]), &Value::Null));
    let none = install(&house, &desk, json!({"no_login": true})).await.unwrap();
    assert_eq!((&none["kept"], &none["login"]), (&json!([]), &json!("nothing")));
    assert_eq!(install(&house, &desk, json!({})).await.unwrap()["kept"], json!([]));
    // A password is not taken along to another address.
    install(&house, &desk, json!({"user": "svc.writ", "password": "secret:desk"})).await.unwrap();
    let elsewhere = json!({"base_url": "https://elsewhere.example"});
    assert_eq!(install(&house, &desk, elsewhere).await.unwrap_err().code, "flows.login_address");
    // Nor out of a removal.
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "servicenow"})).await.unwrap();
    assert_eq!(install(&house, &desk, json!({})).await.unwrap()["kept"], json!([]));
    // A secret that is not there is no error, because it may come later; it is said.
    let missing =
        install(&house, &desk, json!({"user": "svc.writ", "password": "secret:nothere"})).await.unwrap();
    let warnings = missing["warnings"].as_array().unwrap();
    assert!(warnings[0].as_str().unwrap().starts_with("secret:nothere is not stored"), "{missing}");
    put(&house, "gone", "x", None).await;
    house.act(&admin, "custody.secret.revoke", json!({"name": "gone"})).await.unwrap();
    let revoked = install(&house, &desk, json!({"token": "secret:gone", "user": "a"})).await.unwrap();
    assert!(revoked["warnings"][0].as_str().unwrap().contains("has been revoked"), "{revoked}");
}

#[tokio::test]
async fn logins_that_are_none_are_refused() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 8).await;
    let client = json!({"oauth_client_id": "a", "oauth_client_secret": "secret:client", "user": "u"});
    let with = |name: &str, value: Value| {
        let mut args = client.clone();
        args[name] = value;
        args
    };
    for args in [
        json!({"oauth_client_id": "a"}),
        json!({"oauth_client_secret": "secret:client"}),
        json!({"oauth_scope": "x"}),
        with("oauth_client_secret", json!("hunter2")),
        with("password", json!("secret:desk")),
        with("token", json!("secret:desk")),
        with("no_login", json!(true)),
        with("oauth_token_path", json!("oauth_token.do")),
        with("oauth_token_path", json!("/a/../b")),
        with("oauth_token_path", json!("//evil.example/token")),
        with("oauth_token_path", json!("/token?x=1")),
        with("oauth_token_path", json!("/token#x")),
        with("oauth_token_path", json!("/@evil.example")),
        with("oauth_client_id", json!("")),
        with("oauth_client_id", json!("a\nb")),
        with("oauth_scope", json!("x".repeat(257))),
        json!({"user": "u"}),
        json!({"password": "secret:desk"}),
        json!({"no_hook": true, "webhook_secret": "secret:hook"}),
    ] {
        assert_eq!(install(&house, &desk, args.clone()).await.unwrap_err().class, Class::Invalid, "{args}");
    }
}

#[tokio::test]
async fn a_retired_workflow_says_so_and_a_first_version_differs_from_nothing() {
    let house = House::empty(9).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let name = [("workflow", "three-steps")];
    let diff = read(&house, "/v1/workflows/{workflow}/diff", &name).await.unwrap();
    assert_eq!(diff["from"], Value::Null);
    assert!(diff["changes"].as_array().unwrap().iter().any(|change| change["place"] == "name"), "{diff}");
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.workflow.retire", json!({"workflow": "three-steps"})).await.unwrap();
    let start = json!({"workflow": "three-steps", "event": {}});
    let fault = house.act(&admin, "flows.run.start", start).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_str()), (Class::Conflict, "flows.workflow_retired"));
    // What is wrong with the whole text has no place to name.
    let fault = house.act(&admin, "flows.workflow.publish", json!({"yaml": "- a"})).await.unwrap_err();
    assert!(!fault.message.starts_with(':'), "{}", fault.message);
    let fault = house.act(&admin, "flows.workflow.publish", json!({"yaml": "steps: []"})).await.unwrap_err();
    assert!(fault.message.starts_with("It cannot be read"), "{}", fault.message);
}
