//! Runs from event to end: through policy, people, faults of the other side, and back.

use crate::desk::{Desk, Fault, INCIDENT, NETWORK};
use crate::house::{House, contract, person};
use act::{Class, Fault as ActFault};
use flows::run::{Outcome, Status};
use serde_json::{Value, json};

/// An event about the incident.
pub fn event() -> Value {
    json!({"event": "incident.created", "sys_id": INCIDENT, "number": "INC0010001", "sys_mod_count": "0", "sys_updated_by": "service.desk"})
}

/// Starts the flagship and takes it to where it waits for people: the model is not sure enough to go on alone.
async fn waiting(desk: &Desk, seed: u64) -> (House, kernel::Id) {
    let house = House::with(desk, seed).await;
    let unsure = json!({"assignment_group": "Network", "summary": "No network.", "confidence": 600});
    house.model.script.lock().unwrap().push_back(Ok(unsure));
    let run = house.event(event()).await;
    house.settle().await;
    (house, run)
}

#[tokio::test]
async fn an_event_becomes_a_write_that_a_person_agreed_to() {
    let desk = Desk::start().await;
    let (house, id) = waiting(&desk, 1).await;
    let run = house.run(&id).await;
    assert_eq!((run.status, desk.notes()), (Status::Waiting, 0));
    let approval = house.approval(&run.approval.clone().unwrap()).await;
    let preview: Vec<&str> = approval.preview.iter().map(|(label, _)| label.as_str()).collect();
    assert!(preview.contains(&"Group") && preview.contains(&"work_note"), "{preview:?}");
    house.clock.advance_ms(60_000);
    house.decide(&approval.id, "bob", true).await.unwrap();
    house.settle().await;

    let run = house.run(&id).await;
    assert_eq!((run.status, run.outcome), (Status::Finished, Some(Outcome::Done)));
    assert_eq!(run.waited_ms, 60_000);
    assert!(run.written_back_at_ms.is_some() && run.cost_micros == 7);
    // Content is gone, digests are left.
    assert!(run.event.is_null() && run.outputs.is_empty() && run.digests.contains_key("steps.classify"));
    desk.look(|seen| {
        assert_eq!(seen.incident["assignment_group"], NETWORK);
        assert_eq!(seen.notes.len(), 1);
        assert!(seen.notes[0].starts_with("Routed to Network. No network. [ref:af-"), "{}", seen.notes[0]);
    });
    let kinds = house.kinds(&id).await;
    let expected = [
        "flows.run.created",
        "flows.tool.intended",
        "flows.tool.finished",
        "flows.tool.intended",
        "flows.tool.finished",
        "flows.step.finished",
        "flows.step.finished",
        "governor.decided",
        "governor.approval.requested",
        "flows.step.waiting",
        "flows.tool.intended",
        "flows.tool.finished",
        "flows.run.finished",
    ];
    assert_eq!(kinds, expected);
    // Each fact follows from the one before it, and the write from the approval.
    let facts = house.facts(&id).await;
    for (n, fact) in facts
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, fact)| fact["kind"].as_str().unwrap().starts_with("flows."))
    {
        assert!(!fact["causes"].as_array().unwrap().is_empty(), "{n} {}", fact["kind"]);
    }
    assert!(facts[10]["causes"].as_array().unwrap().contains(&facts[8]["id"]));
    let text = serde_json::to_string(&facts).unwrap();
    assert!(
        !text.contains("hunter2") && !text.contains("cable is fine") && !text.contains("No network"),
        "content in a fact"
    );
}

#[tokio::test]
async fn a_sure_model_needs_no_person_where_policy_says_so() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 2).await;
    let id = house.event(event()).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, desk.notes(), run.waited_ms), (Some(Outcome::Done), 1, 0));
    assert!(house.approvals_of(&id).await.is_empty());
}

#[tokio::test]
async fn no_and_silence_are_two_things_and_write_nothing() {
    for (deny, outcome) in [(true, Outcome::Denied), (false, Outcome::Expired)] {
        let desk = Desk::start().await;
        let (house, id) = waiting(&desk, 3).await;
        let approval = house.run(&id).await.approval.unwrap();
        if deny {
            house.decide(&approval, "bob", false).await.unwrap();
        } else {
            house.clock.advance_ms(25 * 3_600_000);
        }
        house.settle().await;
        let run = house.run(&id).await;
        assert_eq!((run.status, run.outcome, desk.notes()), (Status::Finished, Some(outcome), 0));
    }
}

#[tokio::test]
async fn whoever_started_a_run_cannot_approve_its_write() {
    let desk = Desk::start().await;
    let (house, id) = waiting(&desk, 4).await;
    let approval = house.run(&id).await.approval.unwrap();
    let fault = house.decide(&approval, "ann", true).await.unwrap_err();
    assert!(fault.code.starts_with("approval."), "{fault}");
    assert_eq!(house.run(&id).await.status, Status::Waiting);
}

#[tokio::test]
async fn a_write_that_may_have_happened_is_looked_for_and_never_doubled() {
    for (name, faults) in [
        ("after the effect", vec![Fault::DropAfter]),
        ("before the effect", vec![Fault::DropBefore]),
        ("a gateway's error after the effect", vec![Fault::ErrorAfter]),
        ("a cut reply", vec![Fault::Cut]),
        ("several times", vec![Fault::DropBefore, Fault::DropBefore, Fault::DropAfter]),
    ] {
        let desk = Desk::start().await;
        let house = House::with(&desk, 5).await;
        desk.look(|seen| seen.write_faults = faults.into());
        let id = house.event(event()).await;
        house.settle().await;
        let run = house.run(&id).await;
        assert_eq!(
            (run.status, run.outcome, desk.notes()),
            (Status::Finished, Some(Outcome::Done), 1),
            "{name}: {:?}",
            run.error
        );
        assert!(house.kinds(&id).await.contains(&"flows.tool.reconciling".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn what_was_approved_is_not_asked_again_because_the_other_side_was_busy() {
    let desk = Desk::start().await;
    let (house, id) = waiting(&desk, 6).await;
    desk.look(|seen| seen.write_faults = [Fault::Status(429, Some(40)), Fault::Status(401, None)].into());
    let approval = house.run(&id).await.approval.unwrap();
    house.decide(&approval, "bob", true).await.unwrap();
    house.work().await;
    let before_ms = act::Clock::now_ms(&*house.clock);
    assert_eq!(house.run(&id).await.status, Status::Running);
    house.settle().await;
    assert_eq!((house.run(&id).await.outcome, desk.notes()), (Some(Outcome::Done), 1));
    assert_eq!(house.approvals_of(&id).await.len(), 1);
    assert!(act::Clock::now_ms(&*house.clock) - before_ms >= 40_000, "Retry-After was not obeyed");
}

#[tokio::test]
async fn a_200_that_dropped_a_field_is_a_failure_found_at_once_or_later() {
    for faults in [vec![Fault::Swallow("assignment_group")]] {
        let desk = Desk::start().await;
        let house = House::with(&desk, 7).await;
        desk.look(|seen| seen.write_faults = faults.into());
        let id = house.event(event()).await;
        house.settle().await;
        let run = house.run(&id).await;
        assert_eq!(run.status, Status::Dead);
        assert_eq!(run.error.unwrap().code, "flows.field_dropped");
        assert_eq!(
            desk.look(|seen| seen.requests.iter().filter(|line| line.starts_with("PATCH")).count()),
            1
        );
        // A dead letter keeps what a replay needs.
        assert!(!run.outputs.is_empty());
        let operator = person(&house, "ann", &["operator"]);
        house.act(&operator, "flows.run.replay", json!({"run": id})).await.unwrap();
    }
}

#[tokio::test]
async fn errors_that_repeat_themselves_are_not_repeated() {
    for (status, code) in [(400, "flows.rejected"), (403, "flows.forbidden"), (404, "flows.not_there")] {
        let desk = Desk::start().await;
        let house = House::with(&desk, 8).await;
        desk.look(|seen| seen.write_faults = [Fault::Status(status, None)].into());
        let id = house.event(event()).await;
        house.settle().await;
        let run = house.run(&id).await;
        assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, code));
    }
}

#[tokio::test]
async fn an_external_budget_ends() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 9).await;
    desk.look(|seen| seen.read_faults = vec![Fault::Status(503, None); 50].into());
    let id = house.event(event()).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!(
        (run.status, run.error.unwrap().code.as_str(), run.attempts.external),
        (Status::Dead, "flows.upstream_failed", 5)
    );
    // Replayed when the other side is back, it goes on where it stood.
    desk.look(|seen| seen.read_faults.clear());
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.replay", json!({"run": id})).await.unwrap();
    house.clock.advance_ms(60_000);
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.replays, desk.notes()), (Some(Outcome::Done), 1, 1));
}

const POST: &str = "
name: post
steps:
  - id: send
    tool: {connector: http, action: post, params: {path: things, body: {state: '2'}}}
";

#[tokio::test]
async fn an_unsafe_call_in_doubt_is_for_people_alone() {
    for (applied, things) in [(true, 1), (false, 2)] {
        let desk = Desk::start().await;
        let house = House::with(&desk, 10).await;
        house.publish(POST).await.unwrap();
        desk.look(|seen| seen.write_faults = [Fault::DropAfter].into());
        let id = house.start("post", json!({})).await;
        house.settle().await;
        let approve = async || {
            let approval = house.run(&id).await.approval.expect("it waits");
            house.decide(&approval, "bob", true).await.unwrap();
            house.decide(&approval, "eve", true).await.unwrap();
            house.settle().await;
        };
        approve().await;
        let run = house.run(&id).await;
        assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "flows.outcome_unknown"));
        let operator = person(&house, "ann", &["operator"]);
        // Replayed without a word about the call, it stays where it is.
        house.act(&operator, "flows.run.replay", json!({"run": id})).await.unwrap();
        house.clock.advance_ms(60_000);
        house.settle().await;
        assert_eq!((house.run(&id).await.status, desk.look(|seen| seen.things.len())), (Status::Dead, 1));
        let done = house.act(&operator, "flows.run.replay", json!({"run": id, "applied": applied})).await;
        assert!(done.is_ok(), "{done:?}");
        house.clock.advance_ms(60_000);
        house.settle().await;
        if !applied {
            // Sent again it is another call, and people are asked again.
            approve().await;
        }
        assert_eq!(
            (house.run(&id).await.outcome, desk.look(|seen| seen.things.len())),
            (Some(Outcome::Done), things)
        );
    }
}

#[tokio::test]
async fn a_model_that_breaks_its_contract_leaves_it_to_people() {
    let desk = Desk::start().await;
    // Whoever calls the model has asked for a repair where that helps; the step asks no second time, and pays none.
    for code in [
        "model.schema_violation",
        "model.value_not_allowed",
        "model.not_plain",
        "model.oversized",
        "model.pin_mismatch",
    ] {
        let house = House::with(&desk, 11).await;
        house.model.script.lock().unwrap().push_back(Err(ActFault::new(Class::Upstream, code, "no")));
        let id = house.event(event()).await;
        house.settle().await;
        let run = house.run(&id).await;
        assert_eq!((run.outcome, desk.notes()), (Some(Outcome::NeedsHuman), 0), "{code}");
        assert_eq!(house.model.keys().len(), 1, "{code}");
        assert_eq!(run.error.unwrap().code, code);
        // It was paid for all the same, and the fact of the end says so.
        assert_eq!((run.cost_micros, run.unmeasured_micros), (3, 50));
        let facts = house.facts(&id).await;
        let finished = facts.iter().find(|fact| fact["kind"] == "flows.run.finished").unwrap();
        assert_eq!(
            (&finished["outcome"]["cost_micros"], &finished["outcome"]["unmeasured_micros"]),
            (&json!(3), &json!(50))
        );
    }

    // What a provider sent that is no answer at all may be better next time; both are paid for.
    let house = House::with(&desk, 12).await;
    let malformed = ActFault::new(Class::Upstream, "model.provider_malformed", "no");
    house.model.script.lock().unwrap().push_back(Err(malformed));
    let id = house.event(event()).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Done), 1));
    assert_eq!((run.cost_micros, run.unmeasured_micros), (10, 50));
    let keys = house.model.keys();
    assert!(keys.len() == 2 && keys[0] != keys[1], "another attempt is another question: {keys:?}");

    // So does a failure on our own side that comes after the call.
    let house = House::with(&desk, 16).await;
    house.model.script.lock().unwrap().push_back(Err(act::internal("a full disk")));
    let id = house.event(event()).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.cost_micros, run.unmeasured_micros, run.outcome), (10, 50, Some(Outcome::Done)));

    // A model that is not sure at all is left to people too.
    let house = House::with(&desk, 13).await;
    let unsure = json!({"assignment_group": "Network", "summary": "?", "confidence": 100});
    house.model.script.lock().unwrap().push_back(Ok(unsure));
    let id = house.event(event()).await;
    house.settle().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::NeedsHuman));
}

#[tokio::test]
async fn policy_says_no_to_fields_that_nobody_listed() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 14).await;
    let text = format!(
        "name: bump\nsteps:\n  - id: write\n    tool:\n      connector: servicenow\n      action: incident.update\n      \
         params: {{sys_id: '{INCIDENT}', work_note: x, impact: '1'}}\n"
    );
    house.publish(&text).await.unwrap();
    let id = house.start("bump", json!({})).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Denied), 0));
    assert!(house.kinds(&id).await.contains(&"governor.decided".to_owned()));
}

#[tokio::test]
async fn a_checkpoint_is_passed_by_as_many_people_as_it_says() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 15).await;
    house.publish(&contract("workflows/incident-note.yaml")).await.unwrap();
    let id = house.start("incident-note", json!({"number": "INC0010001", "note": "Agreed."})).await;
    house.settle().await;
    let checkpoint = house.run(&id).await.approval.unwrap();
    house.decide(&checkpoint, "bob", true).await.unwrap();
    house.settle().await;
    assert_eq!(house.run(&id).await.step, "agree", "one of two is not enough");
    assert!(house.decide(&checkpoint, "bob", true).await.is_err(), "the same person twice is one person");
    house.decide(&checkpoint, "eve", true).await.unwrap();
    house.settle().await;
    let write = house.run(&id).await.approval.unwrap();
    assert_ne!(write, checkpoint, "the write itself is policy's to decide");
    house.decide(&write, "bob", true).await.unwrap();
    house.settle().await;
    assert_eq!((house.run(&id).await.outcome, desk.notes()), (Some(Outcome::Done), 1));
}

#[tokio::test]
async fn what_was_agreed_to_is_not_written_over_what_somebody_changed_meanwhile() {
    for (seed, changed) in [(17, false), (18, true)] {
        let desk = Desk::start().await;
        let house = House::with(&desk, seed).await;
        house.publish(&contract("workflows/incident-note.yaml")).await.unwrap();
        let id = house.start("incident-note", json!({"number": "INC0010001", "note": "Agreed."})).await;
        house.settle().await;
        let checkpoint = house.run(&id).await.approval.unwrap();
        for who in ["bob", "eve"] {
            house.decide(&checkpoint, who, true).await.unwrap();
        }
        house.settle().await;
        let write = house.run(&id).await.approval.unwrap();
        if changed {
            desk.look(|seen| seen.changed_by("beth.anglin", 1));
        }
        house.decide(&write, "bob", true).await.unwrap();
        house.settle().await;
        let run = house.run(&id).await;
        let code = run.error.as_ref().map(|error| error.code.as_str());
        match changed {
            false => assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Done), 1)),
            true => {
                assert_eq!((run.status, code), (Status::Dead, Some("flows.record_changed")));
                desk.look(|seen| assert!(!seen.requests.iter().any(|request| request.starts_with("PATCH"))));
            }
        }
    }
}

#[tokio::test]
async fn three_transforms_take_four_commits() {
    let house = House::empty(16).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let commits = house.harness.store().hints().facts;
    house.hints_drained().await;
    let before = *commits.borrow();
    let id = house.start("three-steps", json!({"amount": 12})).await;
    house.work().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
    house.hints_drained().await;
    assert_eq!(*commits.borrow() - before, 4);
}

#[tokio::test]
async fn a_template_that_fails_goes_straight_to_the_dead_letters() {
    let house = House::empty(17).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let id = house.start("three-steps", json!({"wrong": 1})).await;
    house.work().await;
    let run = house.run(&id).await;
    assert_eq!(
        (run.status, run.error.unwrap().code.as_str(), run.attempts.engine),
        (Status::Dead, "flows.template_failed", 0)
    );
    // Cancelling a dead run takes its content away.
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.event.is_null()), (Some(Outcome::Cancelled), true));
    let again = house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap_err();
    assert_eq!(again.code, "flows.run_state");
}

#[tokio::test]
async fn a_failed_step_may_lead_somewhere_and_what_was_passed_over_is_undefined() {
    let house = House::empty(18).await;
    let text = "
name: ways
steps:
  - {id: a, when: 'event.go', transform: {v: 1}}
  - {id: b, transform: {v: '{{ steps.a.v }}'}, on_error: d}
  - {id: c, transform: {v: 1}, next: end}
  - {id: d, transform: {seen: '{{ steps.a is defined }}'}}
";
    house.publish(text).await.unwrap();
    for (go, last) in [(true, "steps.c"), (false, "steps.d")] {
        let id = house.start("ways", json!({"go": go})).await;
        house.work().await;
        let run = house.run(&id).await;
        assert_eq!(run.outcome, Some(Outcome::Done), "{:?}", run.error);
        assert!(run.digests.contains_key(last), "{:?}", run.digests);
    }
}

#[tokio::test]
async fn a_run_holds_only_so_much() {
    let house = House::empty(19).await;
    let mut text = String::from("name: big\nsteps:\n");
    for n in 0..6 {
        text.push_str(&format!("  - {{id: s{n}, transform: {{v: '{{{{ event.text }}}}'}}}}\n"));
    }
    house.publish(&text).await.unwrap();
    let id = house.start("big", json!({"text": "x".repeat(60_000)})).await;
    house.work().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "flows.output_too_large"));
}

#[tokio::test]
async fn another_tenants_run_is_not_there() {
    let house = House::empty(20).await;
    house.publish(&contract("workflows/three-steps.yaml")).await.unwrap();
    let id = house.start("three-steps", json!({"amount": 1})).await;
    let mut stranger = person(&house, "mal", &["platform_admin"]);
    stranger.tenant = kernel::TenantId::platform();
    stranger.principal.home = kernel::TenantId::platform();
    for act in ["flows.run.cancel", "flows.run.replay"] {
        let fault = house.act(&stranger, act, json!({"run": id})).await.unwrap_err();
        assert_eq!(fault.class, Class::NotFound, "{act}");
    }
    let fault = house
        .act(&stranger, "flows.run.start", json!({"workflow": "three-steps", "event": {}}))
        .await
        .unwrap_err();
    assert_eq!(fault.class, Class::NotFound);
}

#[tokio::test]
async fn a_call_that_the_run_is_not_about_to_make_is_refused() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 21).await;
    let id = house.event(event()).await;
    // The engine's own principal, with other parameters than the workflow's.
    let ctx = house.harness.service("flows", &house.tenant, Vec::new(), "trc_test");
    for (action, params) in [
        ("incident.get", json!({"sys_id": "0".repeat(32)})),
        ("incident.find", json!({"number": "INC0010001"})),
    ] {
        let args = json!({
            "run": id, "step": "fetch", "connector": "servicenow", "action": action, "params": params,
            "effect_key": "0".repeat(64),
            "hints": {"auto_approve": false, "confidence_milli": null, "priority": null, "sensitivity": null, "preview": []},
        });
        let fault = house.act(&ctx, "flows.tool.call", args).await.unwrap_err();
        assert_eq!(fault.code, "flows.call_mismatch");
    }
    assert!(desk.look(|seen| seen.requests.is_empty()));
}

#[tokio::test]
async fn a_removed_connector_stops_every_run_at_its_next_call() {
    let desk = Desk::start().await;
    let (house, id) = waiting(&desk, 22).await;
    let approval = house.run(&id).await.approval.unwrap();
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "servicenow"})).await.unwrap();
    house.decide(&approval, "bob", true).await.unwrap();
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.outcome, desk.notes()), (Status::Finished, Some(Outcome::Void), 0));
}
