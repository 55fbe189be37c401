//! The stand-in for Slack: messages, refusals in its words, and callbacks that are signed.

use sandbox::{Error, Fault, FaultRule, SLACK_API_PATH, Sandbox, Service, SlackClick, SlackConfig};
use serde_json::{Value, json};

use crate::{
    client::send,
    play::{START_MS, config},
};

async fn start() -> Sandbox {
    let (mut config, _) = config();
    config.slack = Some(SlackConfig {
        team: "T1".into(),
        app: "A1".into(),
        bot_user: "UBOT".into(),
        bot_token: "token".into(),
        signing_secret: "secret-of-the-app".into(),
        channels: vec!["C1".into()],
        users: vec![("U1".into(), "ann".into())],
    });
    Sandbox::start(config).await.expect("a sandbox")
}

async fn call(sandbox: &Sandbox, token: &str, method: &str, body: &Value) -> Value {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let target = format!("{SLACK_API_PATH}{method}");
    let answer = send(sandbox.base_url(), "POST", &target, &headers, body.to_string().as_bytes()).await;
    answer.expect("a reply").json()
}

fn card() -> Value {
    let button = json!({"type": "button", "action_id": "go", "text": {"type": "plain_text", "text": "Go"}, "value": "v1"});
    json!({"channel": "C1", "text": "card", "blocks": [{"type": "actions", "elements": [button]}]})
}

#[tokio::test]
async fn messages_are_counted_and_refusals_have_slacks_words() {
    let sandbox = start().await;
    let posted = call(&sandbox, "token", "chat.postMessage", &card()).await;
    assert_eq!((&posted["ok"], &posted["channel"]), (&json!(true), &json!("C1")));
    let update = json!({"channel": "C1", "ts": posted["ts"], "text": "done"});
    assert_eq!(call(&sandbox, "token", "chat.update", &update).await["ok"], true);
    let told = json!({"channel": "C1", "user": "U1", "text": "psst"});
    assert_eq!(call(&sandbox, "token", "chat.postEphemeral", &told).await["ok"], true);
    for (token, method, body, word) in [
        ("other", "chat.postMessage", card(), "invalid_auth"),
        ("token", "chat.postMessage", json!({"channel": "C2", "text": "x"}), "channel_not_found"),
        ("token", "chat.postMessage", json!({"channel": "C1"}), "no_text"),
        (
            "token",
            "chat.postMessage",
            json!({"channel": "C1", "text": "x", "blocks": "[]"}),
            "invalid_blocks_format",
        ),
        (
            "token",
            "chat.postMessage",
            json!({"channel": "C1", "text": "x", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "x".repeat(3001)}}]}),
            "invalid_blocks",
        ),
        ("token", "chat.update", json!({"channel": "C1", "ts": "1.2", "text": "x"}), "message_not_found"),
        (
            "token",
            "chat.postEphemeral",
            json!({"channel": "C1", "user": "U2", "text": "x"}),
            "user_not_in_channel",
        ),
        ("token", "views.open", json!({"trigger_id": "1", "view": {"type": "modal"}}), "invalid_trigger_id"),
        ("token", "chat.explode", json!({}), "unknown_method"),
    ] {
        let answer = call(&sandbox, token, method, &body).await;
        assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(word)), "{method} {body}");
    }
    let counts = sandbox.slack_counts();
    assert_eq!((counts.posts, counts.updates, counts.ephemerals), (1, 1, 1));
    let messages = sandbox.slack_messages();
    assert_eq!((messages.len(), messages[0].text.as_str(), messages[0].updates), (2, "done", 1));
}

#[tokio::test]
async fn a_rate_limit_says_for_how_long() {
    let sandbox = start().await;
    let rule = FaultRule::new(Service::Slack, Fault::RateLimited { retry_after_s: 7 }).once();
    sandbox.fault_add(rule).expect("a rule");
    let headers = [("authorization", "Bearer token"), ("content-type", "application/json")];
    let target = format!("{SLACK_API_PATH}auth.test");
    let answer = send(sandbox.base_url(), "POST", &target, &headers, b"{}").await.expect("a reply");
    assert_eq!(
        (answer.status, answer.header("retry-after"), &answer.json()["error"]),
        (429, Some("7"), &json!("ratelimited"))
    );
    let again = send(sandbox.base_url(), "POST", &target, &headers, b"{}").await.expect("a reply");
    assert_eq!((again.status, &again.json()["team_id"]), (200, &json!("T1")));
}

#[tokio::test]
async fn only_a_button_that_is_there_is_clicked() {
    let sandbox = start().await;
    let posted = call(&sandbox, "token", "chat.postMessage", &card()).await;
    let click = |action: &str| SlackClick {
        user: "U1".into(),
        channel: "C1".into(),
        ts: posted["ts"].as_str().unwrap_or_default().into(),
        action_id: action.into(),
        ..SlackClick::default()
    };
    let callback = sandbox.slack_click(&click("go")).expect("a callback");
    assert!(callback.body.starts_with("payload=%7B"), "{}", callback.body);
    let header =
        |name: &str| callback.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!(header("x-slack-request-timestamp"), Some((START_MS / 1_000).to_string()));
    assert!(
        header("x-slack-signature")
            .is_some_and(|signature| signature.starts_with("v0=") && signature.len() == 67)
    );
    assert!(matches!(sandbox.slack_click(&click("stop")), Err(Error::NoSuchRecord)));
    let elsewhere = SlackClick { ts: "1.2".into(), ..click("go") };
    assert!(matches!(sandbox.slack_click(&elsewhere), Err(Error::NoSuchRecord)));
}
