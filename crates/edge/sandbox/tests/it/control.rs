//! The control interface: everything that another process needs to direct the play.

use serde_json::json;

use crate::{
    client,
    play::{Play, TOKEN},
};

#[tokio::test]
async fn the_control_token_is_required() {
    let play = Play::start().await;
    for (method, target) in [
        ("GET", "/_sandbox/faults"),
        ("POST", "/_sandbox/faults"),
        ("DELETE", "/_sandbox/faults"),
        ("GET", "/_sandbox/effects"),
        ("POST", "/_sandbox/incidents"),
        ("PATCH", "/_sandbox/incidents/x"),
        ("POST", "/_sandbox/webhooks"),
        ("GET", "/_sandbox/other"),
    ] {
        for authorization in ["", TOKEN] {
            let headers = [("authorization", authorization)];
            let answer = client::send(play.sandbox.base_url(), method, target, &headers, b"{}")
                .await
                .expect("a reply");
            assert_eq!(answer.status, 401, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn a_play_can_be_directed_over_http() {
    let play = Play::start().await;
    let seed = json!({"short_description": "VPN", "caller": "Beth Anglin", "fields": {"impact": "1", "state": "In Progress"}});
    let answer = play.control("POST", "/_sandbox/incidents", &seed.to_string()).await;
    assert_eq!(answer.status, 201);
    let incident: sandbox::Incident = serde_json::from_slice(&answer.body).expect("an incident");
    assert_eq!((play.stored(&incident, "impact"), play.stored(&incident, "state")), ("1".into(), "2".into()));
    assert_ne!(play.stored(&incident, "caller_id"), "");

    let edit = json!({"by": "beth.anglin", "fields": {"urgency": "1"}});
    let target = format!("/_sandbox/incidents/{}", incident.sys_id);
    assert_eq!(play.control("PATCH", &target, &edit.to_string()).await.status, 204);
    assert_eq!(play.stored(&incident, "priority"), "1");

    let ask = json!({"sys_id": incident.sys_id, "event": "incident.updated"});
    let webhook = play.control("POST", "/_sandbox/webhooks", &ask.to_string()).await.json();
    assert!(webhook["headers"].as_array().is_some_and(|headers| headers.len() == 4));
    assert!(webhook["body"].as_str().is_some_and(|body| body.contains("incident.updated")));

    let rules = json!([
        {"service": "servicenow", "method": "PATCH", "nth": 2, "times": 1, "fault": {"kind": "drop_after_effect"}},
        {"path_contains": "/chat/", "fault": {"kind": "rate_limited", "retry_after_s": 3}},
    ]);
    assert_eq!(play.control("POST", "/_sandbox/faults", &rules.to_string()).await.status, 201);
    let one = json!({"fault": {"kind": "dropped_fields", "fields": ["urgency"]}});
    assert_eq!(play.control("POST", "/_sandbox/faults", &one.to_string()).await.status, 201);
    play.sandbox.fault_counts().iter().for_each(|count| assert_eq!(count.fired, 0));

    // The third rule strikes the first PATCH, the first one the second.
    let note = json!({"work_notes": "[ref:a]", "urgency": "3"});
    assert_eq!(play.patch(&incident, note.clone()).await.status, 200);
    assert_eq!(play.stored(&incident, "urgency"), "1");
    let url = crate::play::path(&incident);
    assert!(play.try_instance("PATCH", &url, &note.to_string()).await.is_none());
    let counts = play.control("GET", "/_sandbox/faults", "").await.json();
    assert_eq!(
        (&counts[0]["fired"], &counts[0]["seen"], &counts[2]["fired"]),
        (&json!(1), &json!(2), &json!(1))
    );

    let effects = play.control("GET", "/_sandbox/effects?list=true&offset=1", "").await.json();
    assert_eq!((&effects["counts"]["notes"], &effects["effects_duplicated"]), (&json!(2), &json!(1)));
    assert_eq!((&effects["effects"][0]["n"], &effects["requests"]["faulted"]), (&json!(2), &json!(2)));
    assert_eq!(play.control("DELETE", "/_sandbox/faults", "").await.status, 204);
    assert_eq!(play.control("GET", "/_sandbox/faults", "").await.json(), json!([]));
}

#[tokio::test]
async fn bad_directions_are_refused_and_change_nothing() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let edit = format!("/_sandbox/incidents/{}", incident.sys_id);
    for (method, target, body, status) in [
        ("POST", "/_sandbox/faults", "{", 400),
        ("POST", "/_sandbox/faults", r#"{"fault": {"kind": "earthquake"}}"#, 400),
        ("POST", "/_sandbox/faults", r#"{"fault": {"kind": "hang"}, "oops": 1}"#, 400),
        (
            "POST",
            "/_sandbox/faults",
            r#"[{"fault": {"kind": "hang"}}, {"nth": 0, "fault": {"kind": "hang"}}]"#,
            400,
        ),
        ("POST", "/_sandbox/incidents", "{}", 400),
        ("POST", "/_sandbox/incidents", r#"{"short_description": "x", "fields": {"state": "6"}}"#, 400),
        ("POST", "/_sandbox/webhooks", r#"{"sys_id": "none", "event": "incident.created"}"#, 404),
        ("POST", "/_sandbox/webhooks", r#"{"sys_id": "none", "event": "other"}"#, 400),
        ("PATCH", &edit, r#"{"by": "x"}"#, 400),
        ("PATCH", "/_sandbox/incidents/none", r#"{"by": "x", "fields": {}}"#, 404),
        ("PATCH", "/_sandbox/other", "{}", 404),
        ("GET", "/_sandbox/other", "", 404),
    ] {
        assert_eq!(play.control(method, target, body).await.status, status, "{method} {target} {body}");
    }
    assert_eq!(play.sandbox.fault_counts(), []);
    assert_eq!(play.sandbox.record_ids("incident"), [incident.sys_id]);
    let answer = client::send(play.sandbox.base_url(), "GET", "/elsewhere", &[], b"").await.expect("a reply");
    assert_eq!(answer.status, 404);
}
