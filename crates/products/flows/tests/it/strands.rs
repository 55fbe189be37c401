//! Branches that go at once, workflows within workflows, and waits for a time or a signal.

use crate::desk::{Desk, Fault, INCIDENT};
use crate::house::{House, contract, person};
use flows::run::{Outcome, RunDoc, Status};
use kernel::Id;
use serde_json::{Value, json};

/// Two branches, one of which asks people; `policy` is `on_failure`.
fn fork(policy: &str) -> String {
    format!(
        "
name: fork
steps:
  - id: both
    parallel:
      on_failure: {policy}
      branches:
        ask:
          - {{id: agree, approval: {{preview: {{What: 'Go on?'}}}}}}
          - {{id: said, transform: {{v: 'agreed'}}}}
        work:
          - {{id: one, transform: {{v: '{{{{ event.n }}}}'}}}}
          - {{id: two, transform: {{v: '{{{{ steps.one.v }}}}'}}}}
    on_denied: after
  - id: after
    transform: {{two: '{{{{ steps.two.v }}}}', said: \"{{{{ steps.said.v if steps.said is defined else 'no' }}}}\"}}
"
    )
}

async fn strand(house: &House, run: &Id, branch: &str) -> RunDoc {
    for id in house.run(run).await.strands {
        let strand = house.run(&id).await;
        if strand.strand.as_ref().unwrap().branch == branch {
            return strand;
        }
    }
    panic!("no branch {branch}")
}

#[tokio::test]
async fn an_approval_in_a_branch_blocks_that_branch_and_no_other() {
    let house = House::empty(1).await;
    house.publish(&fork("wait")).await.unwrap();
    let id = house.start("fork", json!({"n": 7})).await;
    house.settle().await;
    let ask = strand(&house, &id, "ask").await;
    let work = strand(&house, &id, "work").await;
    assert_eq!((house.run(&id).await.status, ask.status), (Status::Waiting, Status::Waiting));
    assert_eq!((work.status, work.outcome), (Status::Finished, Some(Outcome::Done)));
    house.clock.advance_ms(5_000);
    house.decide(&ask.approval.unwrap(), "bob", true).await.unwrap();
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.outcome), (Status::Finished, Some(Outcome::Done)), "{:?}", run.error);
    assert_eq!(run.waited_ms, 5_000);
    for name in ["steps.said", "steps.two", "steps.both", "steps.after"] {
        assert!(run.digests.contains_key(name), "{name}: {:?}", run.digests);
    }
    // The branches' content went with the run's, and the run's facts follow from theirs.
    for branch in [&ask.id, &work.id] {
        let branch = house.run(branch).await;
        assert!(branch.event.is_null() && branch.outputs.is_empty());
        let facts = house.facts(&id).await;
        let joined =
            facts.iter().filter(|fact| fact["causes"].as_array().unwrap().contains(&json!(branch.last_fact)));
        assert!(joined.count() >= 1);
    }
    // Lists of runs show what people started.
    let items = crate::looking::read(&house, "/v1/runs", &[]).await.unwrap();
    assert_eq!(items["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_branch_that_is_denied_cancels_the_others_only_where_the_workflow_says_so() {
    for (policy, cancels) in [("wait", false), ("cancel", true)] {
        let house = House::empty(2).await;
        let text = fork(policy).replace(
            "- {id: one, transform",
            "- {id: long, wait: {for_ms: 60000}}\n          - {id: one, transform",
        );
        house.publish(&text).await.unwrap();
        let id = house.start("fork", json!({"n": 7})).await;
        house.work().await;
        let (ask, work) = (strand(&house, &id, "ask").await, strand(&house, &id, "work").await);
        assert!(work.alarm.is_some());
        house.decide(&ask.approval.unwrap(), "bob", false).await.unwrap();
        house.settle().await;
        let run = house.run(&id).await;
        let work = house.run(&work.id).await;
        let expected = if cancels { Outcome::Cancelled } else { Outcome::Done };
        assert_eq!((house.run(&ask.id).await.outcome, work.outcome), (Some(Outcome::Denied), Some(expected)));
        match cancels {
            // `on_denied` goes on without what the cancelled branch would have found out: its template fails.
            true => assert_eq!(run.error.unwrap().code, "flows.template_failed"),
            false => assert_eq!(run.outcome, Some(Outcome::Done)),
        }
        assert!(
            house
                .harness
                .store()
                .jobs(&house.tenant, 10)
                .await
                .unwrap()
                .iter()
                .all(|job| job.kind != "flows.step" || job.starts == 0)
        );
    }
}

#[tokio::test]
async fn a_dead_branch_waits_for_its_operator_and_so_does_the_run() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 3).await;
    let text = format!(
        "
name: reads
steps:
  - id: both
    parallel:
      on_failure: cancel
      branches:
        read: [{{id: get, tool: {{connector: servicenow, action: incident.get, params: {{sys_id: '{INCIDENT}'}}}}, retry: {{external: 0}}}}]
        work: [{{id: one, transform: {{v: 1}}}}]
  - {{id: after, transform: {{number: '{{{{ steps.get.number }}}}'}}}}
"
    );
    house.publish(&text).await.unwrap();
    desk.look(|seen| seen.read_faults = [Fault::Status(503, None)].into());
    let id = house.start("reads", json!({})).await;
    house.settle().await;
    let read = strand(&house, &id, "read").await;
    assert_eq!((read.status, house.run(&id).await.status), (Status::Dead, Status::Waiting));
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.replay", json!({"run": read.id})).await.unwrap();
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!(run.outcome, Some(Outcome::Done), "{:?}", run.error);
    // A branch of a run that does not wait for it any more is not replayed.
    let again = house.act(&operator, "flows.run.replay", json!({"run": read.id})).await.unwrap_err();
    assert_eq!(again.code, "flows.run_state");
}

#[tokio::test]
async fn cancelling_a_run_cancels_its_branches() {
    let house = House::empty(4).await;
    house.publish(&fork("wait")).await.unwrap();
    let id = house.start("fork", json!({"n": 1})).await;
    house.settle().await;
    let ask = strand(&house, &id, "ask").await;
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
    let (run, ended) = (house.run(&id).await, house.run(&ask.id).await);
    assert_eq!((run.outcome, ended.outcome), (Some(Outcome::Cancelled), Some(Outcome::Cancelled)));
    assert!(ended.event.is_null());
    // Who agrees now agrees to nothing.
    let _ = house.decide(&ask.approval.unwrap(), "bob", true).await;
    house.settle().await;
    assert_eq!(house.run(&ask.id).await.outcome, Some(Outcome::Cancelled));
}

#[tokio::test]
async fn a_process_that_dies_anywhere_joins_every_branch_once() {
    for after in [false, true] {
        for commit in 0..12 {
            let house = House::empty(5).await;
            house
                .publish(&fork("wait").replace("- {id: agree, approval: {preview: {What: 'Go on?'}}}\n", ""))
                .await
                .unwrap();
            let id = house.start("fork", json!({"n": 1})).await;
            let mut left = commit;
            while left >= 0 {
                let Some(died) = house.work_killed(left, after, None).await else { break };
                if died {
                    break;
                }
                left -= 1;
            }
            house.clock.advance_ms(31_000);
            house.settle().await;
            let run = house.run(&id).await;
            assert_eq!(run.outcome, Some(Outcome::Done), "commit {commit}, after {after}: {:?}", run.error);
            let kinds = house.kinds(&id).await;
            assert_eq!(kinds.iter().filter(|kind| *kind == "flows.run.finished").count(), 1);
        }
    }
}

#[tokio::test]
async fn branches_stand_in_branches() {
    let house = House::empty(6).await;
    let text = "
name: deep
steps:
  - id: outer
    parallel:
      on_failure: cancel
      branches:
        a:
          - id: inner
            parallel:
              branches:
                c: [{id: ask, approval: {preview: {What: x}}}]
                d: [{id: sleep, wait: {for_ms: 1000}}, {id: one, transform: {v: 1}}]
        b: [{id: agree, approval: {preview: {What: x}}}]
";
    for deny in [false, true] {
        let house = if deny { House::empty(7).await } else { House::empty(6).await };
        house.publish(text).await.unwrap();
        let id = house.start("deep", json!({})).await;
        house.work().await;
        let (a, b) = (strand(&house, &id, "a").await, strand(&house, &id, "b").await);
        let c = strand(&house, &a.id, "c").await;
        house.decide(&b.approval.unwrap(), "bob", !deny).await.unwrap();
        house.work().await;
        if !deny {
            house.decide(&c.approval.unwrap(), "bob", true).await.unwrap();
        }
        house.settle().await;
        let run = house.run(&id).await;
        let expected = if deny { Outcome::Denied } else { Outcome::Done };
        assert_eq!(run.outcome, Some(expected), "{:?}", run.error);
        assert_eq!(house.run(&c.id).await.status, Status::Finished);
        assert_eq!(
            house.run(&a.id).await.outcome,
            Some(if deny { Outcome::Cancelled } else { Outcome::Done })
        );
    }
    drop(house);
}

#[tokio::test]
async fn a_workflow_runs_another_one_in_the_version_it_was_started_with() {
    let house = House::empty(8).await;
    let inner = |text: &str| {
        format!("name: inner\nsteps:\n  - {{id: say, transform: {{text: '{text} {{{{ event.who }}}}'}}}}\n")
    };
    house.publish(&inner("Hello")).await.unwrap();
    let outer = "
name: outer
steps:
  - {id: pause, wait: {signal: go, timeout_ms: 60000}}
  - {id: greet, workflow: {name: inner, with: {who: '{{ event.name }}'}}}
  - {id: after, transform: {text: '{{ steps.greet.steps.say.text }}!'}, next: stop}
  - {id: stop, approval: {preview: {Text: '{{ steps.after.text }}'}}}
";
    house.publish(outer).await.unwrap();
    let id = house.start("outer", json!({"name": "Ann"})).await;
    house.work().await;
    house.publish(&inner("Goodbye")).await.unwrap();
    let ctx = person(&house, "ann", &["operator"]);
    house.act(&ctx, "flows.run.signal", json!({"run": id, "signal": "go"})).await.unwrap();
    house.settle().await;
    assert_eq!(house.run(&id).await.outputs["after"]["text"], "Hello Ann!");
    // What leads back to itself, or to nothing, is not published.
    let loops = "name: inner\nsteps:\n  - {id: a, workflow: {name: outer}}\n";
    assert_eq!(house.publish(loops).await.unwrap_err().code, "flows.workflow_invalid");
    let nothing = "name: lost\nsteps:\n  - {id: a, workflow: {name: nowhere}}\n";
    assert_eq!(house.publish(nothing).await.unwrap_err().code, "flows.workflow_invalid");
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.workflow.retire", json!({"workflow": "inner"})).await.unwrap();
    let start = json!({"workflow": "outer", "event": {}});
    let fault = house.act(&ctx, "flows.run.start", start).await.unwrap_err();
    assert_eq!(fault.code, "flows.workflow_unready");
}

const WAITS: &str = "
name: waits
steps:
  - {id: time, wait: {for_ms: 5000}}
  - {id: due, wait: {until_ms: '{{ event.due_ms }}'}}
  - {id: answer, wait: {signal: answered, timeout_ms: 60000}, on_expired: late}
  - {id: thanks, transform: {text: '{{ steps.answer.payload.text }}'}, next: end}
  - {id: late, transform: {v: 1}}
";

async fn signal(house: &House, run: &Id, name: &str, payload: Value) -> Result<Value, act::Fault> {
    let ctx = person(house, "ann", &["operator"]);
    let args = json!({"run": run, "signal": name, "payload": payload});
    match house.act(&ctx, "flows.run.signal", args).await? {
        harness::Done::Outcome { value, held, .. } => {
            house.queue.lock().unwrap().extend(held);
            Ok(value)
        }
        harness::Done::Waiting { .. } => panic!("a signal waits"),
    }
}

#[tokio::test]
async fn waits_end_when_their_time_or_their_signal_comes() {
    let house = House::empty(9).await;
    house.publish(WAITS).await.unwrap();
    let began_ms = act::Clock::now_ms(&*house.clock);
    let id = house.start("waits", json!({"due_ms": began_ms + 9_000})).await;
    house.work().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.step.as_str()), (Status::Waiting, "time"));
    // Nothing wakes it before its time.
    house.clock.advance_ms(4_999);
    house.work().await;
    assert_eq!(house.run(&id).await.step, "time");
    house.clock.advance_ms(1);
    house.work().await;
    assert_eq!(house.run(&id).await.step, "due");
    house.clock.advance_ms(4_000);
    house.work().await;
    assert_eq!(house.run(&id).await.step, "answer");
    // Only what the workflow waits for can be signalled, and only within bounds.
    for (name, payload) in
        [("other", json!({})), ("answered", json!([])), ("answered", json!({"x": "y".repeat(9_000)}))]
    {
        assert_eq!(signal(&house, &id, name, payload).await.unwrap_err().class, act::Class::Invalid);
    }
    house.clock.advance_ms(1_000);
    let done = signal(&house, &id, "answered", json!({"text": "thank you"})).await.unwrap();
    assert_eq!(done["kept"], false);
    house.work().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.waited_ms), (Some(Outcome::Done), 10_000), "{:?}", run.error);
    assert!(run.digests.contains_key("steps.thanks"));
    // The alarm has gone with the wait.
    assert!(house.harness.store().jobs(&house.tenant, 10).await.unwrap().is_empty());
    assert_eq!(signal(&house, &id, "answered", json!({})).await.unwrap_err().code, "flows.run_state");
}

#[tokio::test]
async fn a_signal_that_comes_too_early_is_kept_and_one_that_never_comes_expires() {
    for early in [true, false] {
        let house = House::empty(10).await;
        house.publish(WAITS).await.unwrap();
        let id = house.start("waits", json!({"due_ms": 1})).await;
        house.work().await;
        if early {
            assert_eq!(signal(&house, &id, "answered", json!({"text": "x"})).await.unwrap()["kept"], true);
            let again = signal(&house, &id, "answered", json!({"text": "y"})).await.unwrap_err();
            assert_eq!(again.code, "flows.run_state");
        }
        house.settle().await;
        let run = house.run(&id).await;
        let last = if early { "steps.thanks" } else { "steps.late" };
        assert_eq!(run.outcome, Some(Outcome::Done));
        assert!(run.digests.contains_key(last), "{early}: {:?}", run.digests);
        assert_eq!(run.waited_ms, if early { 5_000 } else { 65_000 });
    }
}

#[tokio::test]
async fn a_signal_that_nobody_waited_for_goes_with_its_run() {
    use flows::run::signal::{Signal, signal_id};
    let text = "name: fast\nsteps:\n  - {id: nap, wait: {for_ms: 1000}}\n  - {id: over, branch: [{next: end}]}\n  - {id: hear, wait: {signal: bell, timeout_ms: 1000}}\n";
    for cancel in [true, false] {
        let house = House::empty(14).await;
        house.publish(text).await.unwrap();
        let id = house.start("fast", json!({})).await;
        house.work().await;
        signal(&house, &id, "bell", json!({"secret": "x"})).await.unwrap();
        let kept = signal_id(&id, "bell").unwrap();
        let there = || house.harness.store().record(&house.tenant, <Signal as store::Document>::KIND, &kept);
        assert!(there().await.unwrap().is_some());
        if cancel {
            let operator = person(&house, "ann", &["operator"]);
            house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
        }
        house.settle().await;
        assert_eq!(house.run(&id).await.status, Status::Finished);
        assert!(there().await.unwrap().is_none(), "cancelled: {cancel}");
    }
}

#[tokio::test]
async fn a_wait_survives_the_process_and_its_clock() {
    for commit in 0..3 {
        for after in [false, true] {
            let house = House::empty(11).await;
            house.publish("name: naps\nsteps:\n  - {id: nap, wait: {for_ms: 86400000}}\n  - {id: up, transform: {v: 1}}\n").await.unwrap();
            let id = house.start("naps", json!({})).await;
            house.work_killed(commit, after, None).await;
            house.clock.advance_ms(31_000);
            house.settle().await;
            let run = house.run(&id).await;
            assert_eq!((run.outcome, run.error), (Some(Outcome::Done), None), "{commit} {after}");
        }
    }
}

#[tokio::test]
async fn a_branch_gets_the_signal_of_its_run() {
    let house = House::empty(12).await;
    let text = "
name: ring
steps:
  - id: both
    parallel:
      branches:
        a: [{id: hear, wait: {signal: bell, timeout_ms: 60000}}]
        b: [{id: one, transform: {v: 1}}]
";
    house.publish(text).await.unwrap();
    let id = house.start("ring", json!({})).await;
    house.work().await;
    let a = strand(&house, &id, "a").await;
    assert_eq!(signal(&house, &a.id, "bell", json!({})).await.unwrap_err().code, "flows.run_state");
    assert_eq!(signal(&house, &id, "bell", json!({})).await.unwrap()["kept"], false);
    house.work().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
}

#[tokio::test]
async fn the_shipped_change_window_comes_to_its_end() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 13).await;
    for name in ["incident-note", "change-window"] {
        house.publish(&contract(&format!("workflows/{name}.yaml"))).await.unwrap();
    }
    let window_ms = act::Clock::now_ms(&*house.clock) + 600_000;
    let event = json!({"number": "INC0010001", "note": "Cable replaced.", "window_ms": window_ms});
    let id = house.start("change-window", event).await;
    house.work().await;
    let people = strand(&house, &id, "agree").await.approval.unwrap();
    house.decide(&people, "bob", true).await.unwrap();
    house.work().await;
    signal(&house, &id, "go", json!({"by": "the night shift"})).await.unwrap();
    assert_eq!(house.run(&id).await.step, "window");
    house.clock.advance_ms(600_000);
    house.work().await;
    let inner = strand(&house, &id, "incident-note").await;
    for who in ["bob", "eve"] {
        house.decide(inner.approval.as_ref().unwrap(), who, true).await.unwrap();
    }
    house.work().await;
    let write = house.run(&inner.id).await.approval.unwrap();
    house.decide(&write, "bob", true).await.unwrap();
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Done), 1), "{:?}", run.error);
    desk.look(|seen| {
        assert!(seen.notes[0].starts_with("Cable replaced. (the night shift)"), "{:?}", seen.notes)
    });
}

/// A workflow whose branches each ask a model, and may cost so much together.
fn asks(branches: usize, most_micros: i64) -> String {
    let answer =
        "{type: object, additionalProperties: false, properties: {assignment_group: {type: string}}}";
    let mut text = format!(
        "
name: asks
pins:
  models: {{small: {{model: baseline/tfidf-1}}}}
limits: {{cost_micros: {most_micros}}}
steps:
  - id: all
    parallel:
      branches:
"
    );
    for n in 0..branches {
        text.push_str(&format!(
            "        b{n}: [{{id: ask{n}, model: {{pin: small, system: Which?, user: x, answer: {answer}}}, retry: {{external: 0}}, on_error: end}}]\n"
        ));
    }
    text
}

#[tokio::test]
async fn i08_branches_share_one_brake_and_their_costs_add_up_whatever_came_of_them() {
    let house = House::empty(20).await;
    house.publish(&asks(3, 500)).await.unwrap();
    let failed = act::Fault::new(act::Class::Upstream, "model.provider_unavailable", "no");
    house.model.script.lock().unwrap().push_back(Err(failed));
    let id = house.start("asks", json!({})).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!(run.outcome, Some(Outcome::Done), "{:?}", run.error);
    // Two answers, and one failure that was paid for without a measure.
    assert_eq!((run.cost_micros, run.unmeasured_micros), (2 * 7 + 3, 50));
    let brake = contracts::models::Brake { run: id.clone(), most_micros: 500 };
    let calls = house.model.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.brakes == [brake.clone()] && call.run == id), "{calls:?}");
    // Each fact of a branch's end has what that branch has cost; the run's has all of it.
    let told = |facts: Vec<Value>| {
        let end = facts.iter().find(|fact| fact["kind"] == "flows.run.finished").unwrap().clone();
        (
            end["outcome"]["cost_micros"].as_i64().unwrap(),
            end["outcome"]["unmeasured_micros"].as_i64().unwrap(),
        )
    };
    assert_eq!(told(house.facts(&id).await), (17, 50));
    let forked = house.facts(&id).await;
    let forked = forked.iter().find(|fact| fact["kind"] == "flows.step.waiting").unwrap();
    let mut sum = (0, 0);
    for branch in forked["outcome"]["strands"].as_object().unwrap().values() {
        let branch = Id::parse(branch.as_str().unwrap()).unwrap();
        let (cost, unmeasured) = told(house.facts(&branch).await);
        sum = (sum.0 + cost, sum.1 + unmeasured);
    }
    assert_eq!(sum, (17, 50));
}

#[tokio::test]
async fn a_call_that_does_not_fit_its_run_ends_it_among_the_dead() {
    let house = House::empty(21).await;
    house.publish(&asks(2, 5).replace(", on_error: end", "")).await.unwrap();
    let limit = act::Fault::new(act::Class::Denied, "billing.run_limit", "it does not fit");
    house.model.script.lock().unwrap().extend([Err(limit), Ok(json!({"assignment_group": "x"}))]);
    let id = house.start("asks", json!({})).await;
    house.settle().await;
    let mut codes = Vec::new();
    for strand in house.run(&id).await.strands {
        codes.push(house.run(&strand).await.error.map(|error| error.code));
    }
    codes.sort();
    assert_eq!(codes, [None, Some("flows.cost_limit".to_owned())]);
    // Cancelled, the run is told what its branches have cost.
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.cost_micros, run.unmeasured_micros), (Some(Outcome::Cancelled), 10, 50));
}

#[tokio::test]
async fn a_workflow_in_a_workflow_brakes_for_both() {
    let house = House::empty(22).await;
    house.publish(&asks(2, 100)).await.unwrap();
    let outer = "name: outer\nlimits: {cost_micros: 900}\nsteps:\n  - {id: inner, workflow: {name: asks, with: {}}}\n";
    house.publish(outer).await.unwrap();
    let id = house.start("outer", json!({})).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.cost_micros), (Some(Outcome::Done), 14), "{:?}", run.error);
    for call in house.model.calls.lock().unwrap().iter() {
        let most: Vec<i64> = call.brakes.iter().map(|brake| brake.most_micros).collect();
        assert_eq!((most, &call.brakes[0].run), (vec![900, 100], &id));
        assert_ne!(call.brakes[1].run, id);
    }
}

/// Branches that each run `inner`.
fn many(branches: usize) -> String {
    let mut text = "name: many\nsteps:\n  - id: all\n    parallel:\n      branches:\n".to_owned();
    for n in 0..branches {
        text.push_str(&format!(
            "        b{n}: [{{id: s{n}, workflow: {{name: inner, with: {{n: {n}}}}}}}]\n"
        ));
    }
    text
}

fn inner(branches: usize) -> String {
    let mut text = "name: inner\nsteps:\n  - id: all\n    parallel:\n      branches:\n".to_owned();
    for n in 0..branches {
        let step = match n {
            0 => "{id: hear, when: \"event.n == 5\", wait: {signal: bell, timeout_ms: 60000}}".to_owned(),
            n => format!("{{id: rest{n}, wait: {{for_ms: 50000}}}}"),
        };
        text.push_str(&format!("        b{n}: [{step}]\n"));
    }
    text
}

#[tokio::test]
async fn i08_a_run_has_at_most_64_strands_and_a_signal_finds_every_one_of_them() {
    let house = House::empty(23).await;
    house.publish(&inner(8)).await.unwrap();
    // 6 branches, 6 inner runs, 8 branches in each of them: 60 strands at once.
    house.publish(&many(6)).await.unwrap();
    let id = house.start("many", json!({})).await;
    house.work().await;
    let (mut strands, mut next) = (0, vec![id.clone()]);
    while let Some(run) = next.pop() {
        let inside = house.run(&run).await.strands;
        strands += inside.len();
        next.extend(inside);
    }
    assert_eq!(strands, 60);
    // One of them waits for it.
    assert_eq!(signal(&house, &id, "bell", json!({})).await.unwrap()["kept"], false);
    house.settle().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
    // More than 64 are refused where the workflow is written, and where it has grown since.
    let fault = house.publish(&many(7)).await.unwrap_err();
    assert_eq!(fault.code, "flows.workflow_invalid");
    assert!(fault.details.unwrap().to_string().contains("70 branches"), "it says how many");
    house.publish(&inner(4)).await.unwrap();
    house.publish(&many(8)).await.unwrap();
    house.publish(&inner(7)).await.unwrap();
    let ctx = person(&house, "ann", &["operator"]);
    let fault =
        house.act(&ctx, "flows.run.start", json!({"workflow": "many", "event": {}})).await.unwrap_err();
    assert_eq!(fault.code, "flows.workflow_unready", "8 + 8 + 56");
    assert!(fault.message.contains("72 branches"), "{}", fault.message);
}

#[tokio::test]
async fn two_approvals_in_two_branches_are_two_questions() {
    let text = "
name: twice
steps:
  - id: both
    parallel:
      branches:
        a: [{id: ask_a, approval: {preview: {What: A}}}, {id: did_a, transform: {v: 1}}]
        b: [{id: ask_b, approval: {preview: {What: B}}}, {id: did_b, transform: {v: 1}}]
    on_denied: end
";
    let house = House::empty(24).await;
    house.publish(text).await.unwrap();
    let id = house.start("twice", json!({})).await;
    house.settle().await;
    let (a, b) = (strand(&house, &id, "a").await, strand(&house, &id, "b").await);
    let (for_a, for_b) = (a.approval.unwrap(), b.approval.unwrap());
    assert_ne!(for_a, for_b);
    // The digest of what one showed agrees to nothing in the other.
    let ctx = person(&house, "bob", &["approver", "tenant_admin"]);
    let digest = house.approval(&for_a).await.preview_digest;
    let args = json!({"approval": for_b, "preview_digest": digest});
    assert_eq!(house.act(&ctx, "governor.approval.grant", args).await.unwrap_err().code, "approval.changed");
    // Granted and denied at one moment by two people: each branch hears its own.
    let (granted, denied) =
        tokio::join!(house.decide(&for_a, "bob", true), house.decide(&for_b, "eve", false));
    granted.unwrap();
    denied.unwrap();
    house.settle().await;
    let (a, b) = (house.run(&a.id).await, house.run(&b.id).await);
    assert_eq!((a.outcome, b.outcome), (Some(Outcome::Done), Some(Outcome::Denied)));
    let run = house.run(&id).await;
    assert!(run.digests.contains_key("steps.did_a") && !run.digests.contains_key("steps.did_b"));
}
