//! What keeps runs from doing harm: breakers, budgets, the count of crashes, and dry runs.

use crate::desk::{Desk, Fault, INCIDENT};
use crate::house::{House, contract, person};
use crate::looking::read;
use crate::runs::event;
use act::Clock as _;
use flows::run::breaker::{FAILURES_MAX, OPEN_MS};
use flows::run::{CRASHES_MAX, Outcome, STEP, Status};
use kernel::Id;
use serde_json::{Value, json};

async fn reader(house: &House) {
    reader_with(house, "").await;
}

/// A workflow that reads, with one more line for its step.
async fn reader_with(house: &House, line: &str) {
    let text = format!(
        "
name: reader
steps:
  - id: get
    tool: {{connector: servicenow, action: incident.get, params: {{sys_id: '{INCIDENT}'}}}}
    retry: {{external: 12}}
    deadline_ms: 86400000
    {line}
"
    );
    house.publish(&text).await.unwrap();
}

async fn breaker(house: &House) -> Value {
    read(house, "/v1/breakers/{connector}", &[("connector", "servicenow")]).await.unwrap()
}

/// Works until the breaker has opened so often.
async fn until_open(house: &House, opens: u32) {
    for _ in 0..50 {
        house.work().await;
        if breaker(house).await["opens"] == opens {
            return;
        }
        assert!(house.wait().await, "it comes to rest without opening {opens} times");
    }
    panic!("it never opens {opens} times");
}

#[tokio::test]
async fn a_system_that_is_down_is_left_alone_and_tried_by_one_run() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 1).await;
    reader(&house).await;
    assert_eq!(breaker(&house).await["state"], "closed");
    desk.look(|seen| seen.read_faults = vec![Fault::Status(503, None); 6].into());
    let first = house.start("reader", json!({})).await;
    until_open(&house, 1).await;
    let asked = |desk: &Desk| desk.look(|seen| seen.requests.len());
    assert_eq!(asked(&desk), usize::try_from(FAILURES_MAX).unwrap());
    // While it is open nobody asks, and nobody loses an attempt by that.
    let opened_ms = house.clock.now_ms();
    let others = [house.start("reader", json!({})).await, house.start("reader", json!({})).await];
    house.work().await;
    house.clock.advance_ms(OPEN_MS - 1);
    house.work().await;
    assert_eq!(asked(&desk), usize::try_from(FAILURES_MAX).unwrap());
    for id in &others {
        let run = house.run(id).await;
        assert_eq!((run.error.unwrap().code.as_str(), run.attempts.external), ("flows.breaker_open", 0));
    }
    // People see them wait, and for what.
    let until_ms = breaker(&house).await["until_ms"].clone();
    let waiting = read(&house, "/v1/runs", &[("state", "waiting")]).await.unwrap();
    let listed: Vec<&Value> = waiting["items"].as_array().unwrap().iter().map(|run| &run["id"]).collect();
    assert_eq!(listed, [&json!(first), &json!(others[0]), &json!(others[1])]);
    for id in &others {
        let shown = read(&house, "/v1/runs/{run}", &[("run", id.as_str())]).await.unwrap();
        assert_eq!(shown["status"], "waiting");
        assert_eq!(shown["waits"], json!({"breaker": "servicenow", "until_ms": until_ms}));
    }
    assert_eq!(read(&house, "/v1/runs", &[("state", "running")]).await.unwrap()["items"], json!([]));
    // One run tries, the sixth failure: the breaker opens again, for longer.
    until_open(&house, 2).await;
    assert_eq!(asked(&desk), usize::try_from(FAILURES_MAX).unwrap() + 1);
    let shown = breaker(&house).await;
    assert_eq!(shown["opens"], 2);
    assert_eq!(shown["until_ms"].as_i64().unwrap() - shown["since_ms"].as_i64().unwrap(), 2 * OPEN_MS);
    // The next one succeeds, and everybody goes on.
    house.settle().await;
    assert!(house.clock.now_ms() - opened_ms >= 3 * OPEN_MS);
    assert_eq!(breaker(&house).await["state"], "closed");
    for id in others.iter().chain([&first]) {
        let run = house.run(id).await;
        assert_eq!((run.outcome, run.held), (Some(Outcome::Done), None));
    }
    assert_eq!(read(&house, "/v1/runs", &[("state", "waiting")]).await.unwrap()["items"], json!([]));
    let kinds = house.kinds(&Id::parse("brk_servicenow").unwrap()).await;
    let turns: Vec<&str> = kinds.iter().map(|kind| kind.trim_start_matches("flows.breaker.")).collect();
    assert_eq!(turns, ["opened", "probed", "opened", "probed", "closed"]);
    let listed = read(&house, "/v1/breakers", &[]).await.unwrap();
    assert_eq!(listed["items"][0]["connector"], "servicenow");
}

#[tokio::test]
async fn an_operator_closes_a_breaker_and_a_system_that_says_no_opens_none() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 2).await;
    reader(&house).await;
    let operator = person(&house, "ann", &["operator"]);
    let close = json!({"connector": "servicenow"});
    let fault = house.act(&operator, "flows.breaker.close", close.clone()).await.unwrap_err();
    assert_eq!(fault.code, "request.state");
    desk.look(|seen| seen.read_faults = vec![Fault::Status(503, None); 5].into());
    let id = house.start("reader", json!({})).await;
    until_open(&house, 1).await;
    house.act(&operator, "flows.breaker.close", close.clone()).await.unwrap();
    let other = house.start("reader", json!({})).await;
    house.work().await;
    assert_eq!(house.run(&other).await.outcome, Some(Outcome::Done));
    // Whoever turns calls away is well: 429 and 401, however often.
    desk.look(|seen| {
        seen.read_faults = [Fault::Status(429, Some(1)), Fault::Status(401, None)].repeat(3).into()
    });
    house.settle().await;
    assert_eq!(breaker(&house).await["state"], "closed");
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
    // Nobody but this installation opens one, and nobody turns what is not there.
    let open = json!({"connector": "servicenow", "to": "open", "run": id, "code": null});
    assert_eq!(house.act(&operator, "flows.breaker.turn", open).await.unwrap_err().class, act::Class::Denied);
    for connector in ["nope", "../x", ""] {
        let fault =
            house.act(&operator, "flows.breaker.close", json!({"connector": connector})).await.unwrap_err();
        assert_eq!(fault.class, act::Class::NotFound, "{connector}");
    }
}

#[tokio::test]
async fn a_run_that_kills_its_workers_step_after_step_ends_among_the_dead() {
    let house = House::empty(3).await;
    let mut text = "name: long\nsteps:\n".to_owned();
    for n in 0..40 {
        text.push_str(&format!("  - {{id: s{n}, transform: {{v: {n}}}}}\n"));
    }
    house.publish(&text).await.unwrap();
    let id = house.start("long", json!({})).await;
    // Each process takes one step and dies in the next.
    for _ in 0..CRASHES_MAX {
        assert_eq!(house.work_killed(1, false, None).await, Some(true));
        house.clock.advance_ms(STEP.lease_ms + 1);
    }
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "flows.poison"));
    assert!(run.crashes >= CRASHES_MAX);
    let facts = house.facts(&id).await;
    assert!(facts.last().unwrap()["outcome"]["crashes"].as_u64().unwrap() >= u64::from(CRASHES_MAX));
    // Replayed, it counts anew.
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.replay", json!({"run": id})).await.unwrap();
    house.settle().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_write_and_writes_nothing() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 4).await;
    let operator = person(&house, "ann", &["operator"]);
    let start = async |dry: bool| {
        let args = json!({"connector": "servicenow", "event_name": "incident.created", "event": event(), "dry_run": dry});
        let done = house.act(&operator, "flows.run.start", args).await.unwrap();
        let harness::Done::Outcome { value, held, .. } = done else { panic!("a start waits") };
        house.queue.lock().unwrap().extend(held);
        house.settle().await;
        Id::parse(value["run"].as_str().unwrap()).unwrap()
    };
    let dry = start(true).await;
    let run = house.run(&dry).await;
    assert_eq!(
        (run.outcome, desk.notes(), run.written_back_at_ms),
        (Some(Outcome::Done), 0, None),
        "{:?}",
        run.error
    );
    assert!(desk.look(|seen| seen.requests.iter().all(|line| line.starts_with("GET "))));
    let [write] = &run.rehearsed[..] else { panic!("{:?}", run.rehearsed) };
    assert_eq!((write.method.as_str(), &write.policy["effect"]), ("PATCH", &json!("ALLOW")));
    let body = write.body.clone().unwrap();
    assert!(body["work_notes"].as_str().unwrap().starts_with("Routed to Network."), "{body}");
    let kinds = house.kinds(&dry).await;
    assert!(kinds.contains(&"flows.tool.rehearsed".to_owned()));
    // The real one is no duplicate of it, and sends just what was shown.
    let real = start(false).await;
    assert_ne!(real, dry);
    assert_eq!(desk.notes(), 1);
    let noted = desk.look(|seen| seen.notes[0].clone());
    let without_marker = |text: &str| text.split(" [ref:").next().unwrap().to_owned();
    assert_eq!(without_marker(&noted), without_marker(body["work_notes"].as_str().unwrap()));
    let shown = read(&house, "/v1/runs/{run}", &[("run", dry.as_str())]).await.unwrap();
    assert_eq!(
        (&shown["dry_run"], &shown["rehearsed"][0]["action"]),
        (&json!(true), &json!("incident.update"))
    );
}

#[tokio::test]
async fn a_dry_run_asks_nobody_and_says_that_it_would_have() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 5).await;
    house.publish(&contract("workflows/incident-note.yaml")).await.unwrap();
    let operator = person(&house, "ann", &["operator"]);
    let args =
        json!({"workflow": "incident-note", "event": {"number": "INC0010001", "note": "x"}, "dry_run": true});
    let done = house.act(&operator, "flows.run.start", args).await.unwrap();
    let harness::Done::Outcome { value, held, .. } = done else { panic!("a start waits") };
    house.queue.lock().unwrap().extend(held);
    house.settle().await;
    let id = Id::parse(value["run"].as_str().unwrap()).unwrap();
    let run = house.run(&id).await;
    assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Done), 0), "{:?}", run.error);
    assert!(house.approvals_of(&id).await.is_empty());
    assert_eq!(run.rehearsed[0].policy["effect"], "HITL");
    assert_eq!(run.rehearsed[0].policy["approvals"], 1);
    // What policy would refuse is refused here too.
    let text = format!(
        "name: bump\nsteps:\n  - id: write\n    tool:\n      connector: servicenow\n      action: incident.update\n      \
         params: {{sys_id: '{INCIDENT}', work_note: x, impact: '1'}}\n"
    );
    house.publish(&text).await.unwrap();
    let args = json!({"workflow": "bump", "event": {}, "dry_run": true});
    let done = house.act(&operator, "flows.run.start", args).await.unwrap();
    let harness::Done::Outcome { value, held, .. } = done else { panic!("a start waits") };
    house.queue.lock().unwrap().extend(held);
    house.settle().await;
    let run = house.run(&Id::parse(value["run"].as_str().unwrap()).unwrap()).await;
    assert_eq!((run.outcome, desk.notes()), (Some(Outcome::Denied), 0));
}

/// A run that rests behind an open breaker with a call that was permitted.
async fn resting(house: &House, desk: &Desk) -> Id {
    reader(house).await;
    comes_to_rest(house, desk).await
}

async fn comes_to_rest(house: &House, desk: &Desk) -> Id {
    desk.look(|seen| seen.read_faults = vec![Fault::Status(503, None); 5].into());
    let id = house.start("reader", json!({})).await;
    until_open(house, 1).await;
    let behind =
        |run: &flows::run::RunDoc| run.error.as_ref().is_some_and(|error| error.code == "flows.breaker_open");
    while !behind(&house.run(&id).await) {
        assert!(house.wait().await);
        house.work().await;
    }
    let run = house.run(&id).await;
    assert!(run.status == Status::Running && run.pending.is_some_and(|pending| !pending.unknown));
    id
}

#[tokio::test]
async fn a_call_that_was_permitted_goes_out_in_its_steps_time_or_never() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 6).await;
    let id = resting(&house, &desk).await;
    let asked = |desk: &Desk| desk.look(|seen| seen.requests.len());
    let before = asked(&desk);
    // Nothing runs here for two days; the breaker would let it through by then.
    house.clock.advance_ms(2 * 86_400_000);
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "flows.step_deadline"));
    assert_eq!((run.pending, asked(&desk)), (None, before));
    let facts = house.facts(&id).await;
    let told = facts.iter().rfind(|fact| fact["kind"] == "flows.tool.finished").unwrap();
    assert_eq!(
        (&told["outcome"]["outcome"], &told["outcome"]["code"]),
        (&json!("refused"), &json!("flows.step_deadline"))
    );
}

/// The connector is removed while a call waits: the run does not go where `on_error` says and forget it, because then
/// nobody would ever say what became of the call.
#[tokio::test]
async fn a_call_that_waits_is_not_forgotten_when_its_connector_goes() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 26).await;
    reader_with(&house, "on_error: needs_human").await;
    let id = comes_to_rest(&house, &desk).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.connector.remove", json!({"connector": "servicenow"})).await.unwrap();
    while house.run(&id).await.status == Status::Running {
        assert!(house.wait().await);
        house.work().await;
    }
    let run = house.run(&id).await;
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "flows.connector_removed"));
    assert!(run.pending.is_some_and(|pending| pending.unknown), "a replay looks first");
    let facts = house.facts(&id).await;
    let told = facts.iter().rfind(|fact| fact["kind"] == "flows.tool.finished").unwrap();
    assert_eq!(told["outcome"]["outcome"], "unknown", "{told}");
}

#[tokio::test]
async fn a_run_that_rests_behind_a_breaker_can_be_cancelled() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 7).await;
    let id = resting(&house, &desk).await;
    let asked = |desk: &Desk| desk.look(|seen| seen.requests.len());
    let before = asked(&desk);
    let operator = person(&house, "ann", &["operator"]);
    // Close to its time somebody may be at it already.
    let due_ms = house.run(&id).await.due_ms.unwrap();
    let now_ms = house.clock.now_ms();
    assert!(now_ms + flows::run::machine::REST_MARGIN_MS < due_ms, "{now_ms} {due_ms}");
    house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.outcome, run.pending, asked(&desk)), (Some(Outcome::Cancelled), None, before));
    let kinds = house.kinds(&id).await;
    assert_eq!(
        &kinds[kinds.len() - 3..],
        ["flows.tool.finished", "flows.run.finished", "flows.step.dropped"]
    );
}

#[tokio::test]
async fn close_to_its_time_a_call_counts_as_being_made() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 8).await;
    let id = resting(&house, &desk).await;
    let due_ms = house.run(&id).await.due_ms.unwrap();
    house.clock.advance_ms(due_ms - flows::run::machine::REST_MARGIN_MS - house.clock.now_ms());
    let operator = person(&house, "ann", &["operator"]);
    let fault = house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap_err();
    assert_eq!(fault.code, "flows.run_state");
}

#[tokio::test]
async fn a_run_whose_budget_has_run_out_is_replayed_and_asks_anew() {
    let house = House::empty(9).await;
    house.publish(ASKS).await.unwrap();
    let spent = || act::Fault::new(act::Class::Denied, "budget.exhausted", "not enough left");
    house.model.script.lock().unwrap().push_back(Err(spent()));
    let id = house.start("asks", json!({"number": "INC1"})).await;
    house.settle().await;
    let run = house.run(&id).await;
    assert_eq!((run.status, run.error.unwrap().code.as_str()), (Status::Dead, "budget.exhausted"));
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.replay", json!({"run": id})).await.unwrap();
    house.settle().await;
    assert_eq!(house.run(&id).await.outcome, Some(Outcome::Done));
    let keys = house.model.keys();
    assert_eq!(keys, [format!("{id}:ask:0"), format!("{id}:ask:1.0")]);
}

const ASKS: &str = "
name: asks
pins:
  models: {small: {model: baseline/tfidf-1}}
steps:
  - id: ask
    model:
      pin: small
      system: Which group?
      user: '{{ event.number }}'
      answer: {type: object, additionalProperties: false, properties: {assignment_group: {type: string}}}
      max_output_tokens: 50
";

#[tokio::test]
async fn a_run_that_a_breaker_holds_can_be_cancelled_and_waits_for_nothing_then() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 20).await;
    reader(&house).await;
    desk.look(|seen| seen.read_faults = vec![Fault::Status(503, None); 5].into());
    house.start("reader", json!({})).await;
    until_open(&house, 1).await;
    let held = house.start("reader", json!({})).await;
    house.work().await;
    assert!(house.run(&held).await.held.is_some());
    let operator = person(&house, "ann", &["operator"]);
    house.act(&operator, "flows.run.cancel", json!({"run": held})).await.unwrap();
    let shown = read(&house, "/v1/runs/{run}", &[("run", held.as_str())]).await.unwrap();
    assert_eq!(
        (&shown["status"], &shown["outcome"], &shown["waits"]),
        (&json!("finished"), &json!("cancelled"), &Value::Null)
    );
}

#[tokio::test]
async fn a_date_to_come_back_at_is_kept_to_within_an_hour() {
    // The reply says no date of its own, so it counts from when it came: the clock of this house says 2026-11-21 06:31:25.
    let desk = Desk::start().await;
    let house = House::with(&desk, 21).await;
    reader(&house).await;
    let (start_ms, hour_ms) = (1_795_242_685_000, 3_600_000);
    house.clock.advance_ms(start_ms - house.clock.now_ms());
    for (date, wait_ms) in [
        ("Sat, 21 Nov 2026 06:33:25 GMT", 120_000),
        ("Sat Nov 21 06:33:25 2026", 120_000),
        ("Sat, 28 Nov 2026 06:31:25 GMT", hour_ms),
    ] {
        desk.look(|seen| seen.read_faults = vec![Fault::Until(date)].into());
        house.clock.advance_ms(start_ms - house.clock.now_ms());
        let id = house.start("reader", json!({})).await;
        house.work().await;
        let due_ms = house.run(&id).await.due_ms.unwrap();
        // A little is added, so that not all come back at once.
        assert!((wait_ms..wait_ms + 10_000).contains(&(due_ms - start_ms)), "{date}: {}", due_ms - start_ms);
        let operator = person(&house, "ann", &["operator"]);
        house.act(&operator, "flows.run.cancel", json!({"run": id})).await.unwrap();
    }
}
