//! Tokens: fetched as from a real instance, expired, revoked, refused; and passwords that change.

use crate::client::{self, Answer};
use crate::play::{CONTROL, Play};
use sandbox::{Fault, FaultRule, OauthConfig, Service, TOKEN_PATH, TokenCounts};
use serde_json::json;

const FORM: &str = "grant_type=client_credentials&client_id=writ&client_secret=s%2Bcret";

async fn play() -> Play {
    Play::with(|config| {
        config.servicenow.oauth = Some(OauthConfig {
            client_id: "writ".into(),
            client_secret: "s+cret".into(),
            token_lifetime_s: 60,
        });
    })
    .await
}

async fn fetch(play: &Play, form: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    client::send(play.sandbox.base_url(), "POST", TOKEN_PATH, &headers, form.as_bytes())
        .await
        .expect("a reply")
}

async fn read(play: &Play, authorization: &str) -> u16 {
    let headers = [("authorization", authorization)];
    let url = play.sandbox.base_url();
    client::send(url, "GET", "/api/now/table/incident", &headers, b"").await.expect("a reply").status
}

async fn token(play: &Play) -> String {
    let answer = fetch(play, FORM).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let body = answer.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(60)));
    format!("Bearer {}", body["access_token"].as_str().expect("a token"))
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_or_is_revoked() {
    let play = play().await;
    let (first, second) = (token(&play).await, token(&play).await);
    assert_ne!(first, second);
    assert_eq!((read(&play, &first).await, read(&play, &second).await), (200, 200));
    play.advance_s(59);
    let third = token(&play).await;
    play.advance_s(1);
    assert_eq!((read(&play, &first).await, read(&play, &third).await), (401, 200));
    play.control("DELETE", "/_sandbox/tokens", "").await;
    assert_eq!(read(&play, &third).await, 401);
    // A changed client secret ends no token, and lets the old secret fetch no more.
    let fourth = token(&play).await;
    play.sandbox.client_secret_set("other");
    assert_eq!((read(&play, &fourth).await, fetch(&play, FORM).await.status), (200, 401));
    assert_eq!(play.sandbox.token_counts(), TokenCounts { issued: 4, refused: 1 });
}

#[tokio::test]
async fn whoever_is_no_client_gets_none() {
    let play = play().await;
    for (form, error) in [
        ("", "invalid_client"),
        ("grant_type=client_credentials&client_id=writ&client_secret=wrong", "invalid_client"),
        ("grant_type=client_credentials&client_id=other&client_secret=s%2Bcret", "invalid_client"),
        ("grant_type=password&client_id=writ&client_secret=s%2Bcret", "unsupported_grant_type"),
    ] {
        let answer = fetch(&play, form).await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!(error)), "{form}");
    }
    let none = Play::start().await;
    assert_eq!(fetch(&none, FORM).await.json()["error_description"], "access_denied");
    // The endpoint breaks on demand like any other resource.
    let rule = FaultRule::new(Service::ServiceNow, Fault::ServerError { status: 503 });
    play.sandbox.fault_add(rule.path_contains("oauth_token").once()).expect("a rule");
    assert_eq!((fetch(&play, FORM).await.status, fetch(&play, FORM).await.status), (503, 200));
}

#[tokio::test]
async fn a_password_is_changed_while_the_play_goes_on() {
    let play = play().await;
    // integration:pass:word, integration:next
    let (old, new) = (crate::play::BASIC, "Basic aW50ZWdyYXRpb246bmV4dA==");
    let mut seen = vec![(read(&play, old).await, read(&play, new).await)];
    for body in [json!({"password": "next", "keep_previous": true}), json!({"password": "next"})] {
        assert_eq!(play.control("POST", "/_sandbox/credentials", &body.to_string()).await.status, 204);
        seen.push((read(&play, old).await, read(&play, new).await));
    }
    assert_eq!(seen, [(200, 401), (200, 200), (401, 200)]);
    let url = play.sandbox.base_url();
    for (authorization, body, status) in [(CONTROL, r#"{"password": ""}"#, 400), ("", "{}", 401)] {
        let headers = [("authorization", authorization)];
        let answer = client::send(url, "POST", "/_sandbox/credentials", &headers, body.as_bytes()).await;
        assert_eq!(answer.expect("a reply").status, status);
    }
}
