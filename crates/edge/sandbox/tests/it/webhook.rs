//! Outgoing webhooks: the parts, and what they say.

use sandbox::{Error, WebhookEvent};
use serde_json::{Value, json};

use crate::play::{Play, START_MS};

#[tokio::test]
async fn a_webhook_tells_of_the_incident_as_it_is() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let created = play.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created).expect("a webhook");
    let body: Value = serde_json::from_str(&created.body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "event": "incident.created",
            "instance": "stand-in",
            "sys_id": incident.sys_id,
            "number": "INC0010001",
            "sys_mod_count": "0",
            "sys_updated_on": "2026-11-21 03:41:12",
            "sys_updated_by": "service.desk",
        })
    );
    assert_eq!(created.header("webhook-id"), Some(created.id.as_str()));
    assert_eq!(created.header("webhook-timestamp"), Some((START_MS / 1_000).to_string().as_str()));
    assert!(created.header("webhook-signature").is_some_and(|signature| signature.starts_with("v1,")));

    // The business rule also fires on the integration's own write: the body says who it was.
    play.patch(&incident, json!({"work_notes": "x"})).await;
    let echo = play.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Updated).expect("a webhook");
    let body: Value = serde_json::from_str(&echo.body).expect("JSON");
    assert_eq!(
        [&body["event"], &body["sys_updated_by"], &body["sys_mod_count"]],
        ["incident.updated", "integration", "1"]
    );
    assert_ne!(echo.id, created.id);
    assert!(matches!(play.sandbox.incident_webhook("none", WebhookEvent::Created), Err(Error::NoSuchRecord)));
}

#[tokio::test]
async fn the_same_play_gives_the_same_bytes() {
    let mut webhooks = Vec::new();
    for _ in 0..2 {
        let play = Play::start().await;
        let incident = play.seed("one");
        webhooks
            .push(play.sandbox.incident_webhook(&incident.sys_id, WebhookEvent::Created).expect("a webhook"));
    }
    assert_eq!(webhooks[0], webhooks[1]);
}
