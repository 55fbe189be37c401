//! Faults: what each does to the reply and to the state, and when it strikes.

use sandbox::{Fault, FaultError, FaultRule, MAX_FAULT_RULES, Service};
use serde_json::json;

use crate::play::{Play, path};

fn on_patch(fault: Fault) -> FaultRule {
    FaultRule::new(Service::ServiceNow, fault).method("PATCH").path_contains("/incident/").once()
}

/// For each fault: the status (`None`: closed without a reply) and whether the write took effect.
#[tokio::test]
async fn a_fault_is_before_or_after_the_effect() {
    for (fault, status, applied) in [
        (Fault::RateLimited { retry_after_s: 7 }, Some(429), false),
        (Fault::ServerError { status: 503 }, Some(503), false),
        (Fault::ServerErrorAfterEffect { status: 504 }, Some(504), true),
        (Fault::DropBeforeEffect, None, false),
        (Fault::DropAfterEffect, None, true),
        (Fault::MalformedJson, Some(200), true),
        (Fault::HugeBody { bytes: 1_000 }, Some(200), true),
        (Fault::Redirect { location: "http://127.0.0.1:9/elsewhere".into() }, Some(307), false),
        (Fault::SlowDrip { chunk_bytes: 200 }, Some(200), true),
        (Fault::DroppedFields { fields: vec!["urgency".into(), "work_notes".into()] }, Some(200), false),
    ] {
        let play = Play::start().await;
        let incident = play.seed("one");
        play.sandbox.fault_add(on_patch(fault.clone())).expect("a rule");
        let body = json!({"urgency": "1", "work_notes": "[ref:a]"}).to_string();
        let answer = play.try_instance("PATCH", &path(&incident), &body).await;
        assert_eq!(answer.as_ref().map(|answer| answer.status), status, "{fault:?}");
        let notes = play.sandbox.notes(&incident.sys_id).len();
        assert_eq!((play.stored(&incident, "urgency") == "1", notes == 1), (applied, applied), "{fault:?}");
        match &fault {
            Fault::RateLimited { .. } => {
                let answer = answer.expect("a reply");
                assert_eq!(answer.header("retry-after"), Some("7"));
                assert_eq!(answer.json()["status"], "failure");
            }
            Fault::Redirect { location } => {
                assert_eq!(answer.expect("a reply").header("location"), Some(location.as_str()));
            }
            Fault::MalformedJson => {
                let body = answer.expect("a reply").body;
                assert!(!body.is_empty() && serde_json::from_slice::<serde_json::Value>(&body).is_err());
            }
            Fault::HugeBody { bytes } => {
                let answer = answer.expect("a reply");
                assert_eq!(answer.body.len() as u64, *bytes);
                assert!(answer.json()["result"].is_string());
            }
            Fault::SlowDrip { .. } => assert_eq!(answer.expect("a reply").result()["urgency"], "1"),
            _ => {}
        }
        // Once only, and the record can be written as ever.
        assert_eq!(play.patch(&incident, json!({"impact": "1"})).await.status, 200);
        let count = &play.sandbox.fault_counts()[0];
        assert_eq!((count.seen, count.fired, play.sandbox.requests().faulted), (2, 1, 1), "{fault:?}");
    }
}

/// A hanging request gets no reply while the sandbox runs; shutting down closes it.
#[tokio::test]
async fn a_hang_ends_with_the_sandbox() {
    for (fault, notes) in [(Fault::Hang, 0), (Fault::HangAfterEffect, 1)] {
        let play = Play::start().await;
        let incident = play.seed("one");
        play.sandbox.fault_add(on_patch(fault)).expect("a rule");
        let url = play.sandbox.base_url().to_owned();
        let target = path(&incident);
        let mut clients = tokio::task::JoinSet::new();
        clients.spawn(async move {
            let headers = [("authorization", crate::play::TOKEN)];
            crate::client::send(&url, "PATCH", &target, &headers, br#"{"work_notes": "x"}"#).await
        });
        while play.sandbox.requests().faulted == 0 {
            tokio::task::yield_now().await;
        }
        // The effect comes before the count of the next request; ask for the state through the socket.
        assert_eq!(play.instance("GET", "/api/now/table/incident", "").await.status, 200);
        while play.sandbox.counts().notes < notes {
            tokio::task::yield_now().await;
        }
        play.sandbox.shutdown().await;
        let answer = clients.join_next().await.expect("a client").expect("no panic");
        assert!(answer.is_none());
    }
}

#[tokio::test]
async fn rules_strike_in_their_window_and_in_order() {
    let error = |status| Fault::ServerError { status };
    let rule = |status| FaultRule::new(Service::ServiceNow, error(status)).method("GET");
    for (name, rules, statuses) in [
        ("the second", vec![rule(500).nth(2).once()], [200, 500, 200, 200]),
        ("from the third on", vec![rule(500).nth(3)], [200, 200, 500, 500]),
        ("twice", vec![rule(500).times(2)], [500, 500, 200, 200]),
        ("one after the other", vec![rule(500).once(), rule(503).once()], [500, 503, 200, 200]),
        ("another method", vec![rule(500).method("PATCH")], [200, 200, 200, 200]),
        ("another path", vec![rule(500).path_contains("/sys_user/")], [200, 200, 200, 200]),
        ("another service", vec![FaultRule::new(Service::Model, error(500))], [200, 200, 200, 200]),
        ("no such body", vec![rule(500).body_contains("x")], [200, 200, 200, 200]),
        ("any service", vec![FaultRule { service: None, ..rule(500) }], [500, 500, 500, 500]),
    ] {
        let play = Play::start().await;
        for rule in rules {
            play.sandbox.fault_add(rule).expect("a rule");
        }
        let mut seen = Vec::new();
        for _ in 0..statuses.len() {
            seen.push(play.get("incident").await.status);
        }
        assert_eq!(seen, statuses, "{name}");
    }
}

#[tokio::test]
async fn a_body_picks_its_fault_and_a_stranger_uses_none_up() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let rule =
        FaultRule::new(Service::ServiceNow, Fault::ServerError { status: 500 }).body_contains("af-2").once();
    play.sandbox.fault_add(rule).expect("a rule");
    let url = play.sandbox.base_url();
    let stranger = crate::client::send(url, "PATCH", &path(&incident), &[], b"af-2").await.expect("a reply");
    assert_eq!(stranger.status, 401);
    assert_eq!(play.patch(&incident, json!({"work_notes": "[ref:af-1]"})).await.status, 200);
    assert_eq!(play.patch(&incident, json!({"work_notes": "[ref:af-2]"})).await.status, 500);
    assert_eq!(play.patch(&incident, json!({"work_notes": "[ref:af-2]"})).await.status, 200);
    play.sandbox.fault_add(FaultRule::new(Service::ServiceNow, Fault::DropBeforeEffect)).expect("a rule");
    play.sandbox.faults_clear();
    assert_eq!(play.get("incident").await.status, 200);
}

#[tokio::test]
async fn rules_that_could_never_strike_are_refused() {
    let play = Play::start().await;
    let now = |fault| FaultRule::new(Service::ServiceNow, fault);
    for rule in [
        now(Fault::WrongModel),
        now(Fault::SchemaViolation),
        now(Fault::UnknownGroup),
        FaultRule::new(Service::Model, Fault::DroppedFields { fields: vec![] }),
        now(Fault::ServerError { status: 200 }),
        now(Fault::ServerErrorAfterEffect { status: 600 }),
        now(Fault::HugeBody { bytes: u64::MAX }),
        now(Fault::SlowDrip { chunk_bytes: 0 }),
        now(Fault::Redirect { location: "http://x\r\nset-cookie: a=b".into() }),
        now(Fault::Hang).method("patch"),
        now(Fault::Hang).nth(0),
        now(Fault::Hang).times(0),
        now(Fault::Hang).path_contains(&"x".repeat(10_000)),
    ] {
        assert!(matches!(play.sandbox.fault_add(rule.clone()), Err(FaultError::Invalid(_))), "{rule:?}");
    }
    for _ in 0..MAX_FAULT_RULES {
        play.sandbox.fault_add(now(Fault::Hang)).expect("a rule");
    }
    assert_eq!(play.sandbox.fault_add(now(Fault::Hang)), Err(FaultError::Full));
}
