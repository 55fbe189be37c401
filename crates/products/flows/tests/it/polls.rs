//! Asking for what has changed: what webhooks lost is found, and nothing is started twice.

use crate::deliveries::{deliver, sign};
use crate::desk::{Desk, Fault};
use crate::house::{HOOK_SECRET, House, contract, person};
use act::Clock as _;
use flows::connector::poll::{OVERLAP_MS, Polling, TimeForm, written};
use kernel::Id;
use serde_json::{Value, json};
use store::Document as _;

const EVERY_MS: i64 = 60_000;

const WATCH: &str = "
name: watch
trigger: {connector: servicenow, event: incident.created}
steps:
  - {id: a, transform: {number: '{{ event.number }}'}}
";
const FOLLOW: &str = "
name: follow
trigger: {connector: servicenow, event: incident.updated}
steps:
  - {id: a, transform: {number: '{{ event.number }}'}}
";

async fn polling(desk: &Desk, seed: u64) -> House {
    let house = House::with(desk, seed).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    // The flagship calls the desk about one incident; these look at events alone.
    house.act(&admin, "flows.workflow.retire", json!({"workflow": "itsm-triage"})).await.unwrap();
    house.publish(WATCH).await.unwrap();
    house.publish(FOLLOW).await.unwrap();
    install(&house, desk, Some(EVERY_MS)).await.unwrap();
    house
}

async fn install(house: &House, desk: &Desk, every_ms: Option<i64>) -> Result<harness::Done, act::Fault> {
    let admin = person(house, "owner", &["tenant_admin"]);
    let args = json!({
        "name": "servicenow", "manifest": contract("connectors/servicenow.yaml"), "base_url": desk.url,
        "user": "svc.writ", "password": "secret:desk", "webhook_secret": "secret:hook", "poll_every_ms": every_ms,
    });
    house.act(&admin, "flows.connector.install", args).await
}

fn incident(n: u32, at_ms: i64, changes: u32, by: &str) -> Value {
    let at = written(at_ms, TimeForm::UtcSeconds);
    json!({
        "sys_id": format!("{n:032}"), "number": format!("INC{n:07}"), "sys_mod_count": changes.to_string(),
        "sys_created_on": at, "sys_updated_on": at, "sys_created_by": "ann", "sys_updated_by": by,
    })
}

async fn look(house: &House) {
    house.clock.advance_ms(EVERY_MS);
    house.work().await;
}

/// Runs of a workflow, as the list shows them.
async fn runs(house: &House, workflow: &str) -> usize {
    let page = crate::looking::read(house, "/v1/runs", &[("limit", "200")]).await.unwrap();
    page["items"].as_array().unwrap().iter().filter(|run| run["workflow"] == workflow).count()
}

async fn state(house: &House) -> Polling {
    let id = Id::parse("pol_servicenow").unwrap();
    let row = house.harness.store().record(&house.tenant, Polling::KIND, &id).await.unwrap().unwrap();
    store::decode::<Polling>(&row).unwrap().doc
}

#[tokio::test]
async fn what_no_webhook_said_is_found_once_whichever_way_it_comes() {
    let desk = Desk::start().await;
    let house = polling(&desk, 1).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.others = vec![incident(1, now_ms + 1_000, 0, "ann"), incident(2, now_ms + 2_000, 3, "bob")]
    });
    look(&house).await;
    // Two were created, and one of them has changed since.
    assert_eq!((runs(&house, "watch").await, runs(&house, "follow").await), (2, 1));
    // What is within the overlap is seen again and again, and is the same.
    for _ in 0..3 {
        look(&house).await;
    }
    assert_eq!((runs(&house, "watch").await, runs(&house, "follow").await), (2, 1));
    // The webhook about the creation comes late: it is the same event.
    let body = json!({"event": "incident.created", "sys_id": format!("{:032}", 2), "number": "INC0000002",
                      "sys_mod_count": "0", "sys_updated_by": "ann"})
    .to_string();
    let now_s = house.clock.now_ms() / 1000;
    let (late, _) = deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s, &body), &body).await.unwrap();
    assert_eq!(late["ignored"], "duplicate");
    // And one that came first is not polled into a second run.
    let body = body.replace(&format!("{:032}", 2), &format!("{:032}", 3));
    deliver(&house, &sign(HOOK_SECRET, "msg_2", now_s, &body), &body).await.unwrap();
    let at_ms = house.clock.now_ms();
    desk.look(|seen| seen.others.push(incident(3, at_ms, 0, "ann")));
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 3);
    // A further change is a further event.
    desk.look(|seen| seen.others[0] = incident(1, at_ms, 1, "bob"));
    look(&house).await;
    assert_eq!((runs(&house, "watch").await, runs(&house, "follow").await), (3, 2));
    // Our own write-back is none.
    desk.look(|seen| seen.others[0] = incident(1, at_ms, 2, "svc.writ"));
    look(&house).await;
    assert_eq!((runs(&house, "watch").await, runs(&house, "follow").await), (3, 2));
    let facts = house.facts(house.tenant.id()).await;
    assert!(
        facts
            .iter()
            .any(|fact| fact["kind"] == "flows.event.ignored" && fact["outcome"]["reason"] == "own_write")
    );
}

#[tokio::test]
async fn many_changes_come_in_pages_even_where_all_have_one_time() {
    let desk = Desk::start().await;
    let house = polling(&desk, 2).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.others = (1..=70).map(|n| incident(n, now_ms + 1_000, 0, "ann")).collect();
        seen.others.extend((71..=130).map(|n| incident(n, now_ms + 2_000 + i64::from(n) * 10, 0, "ann")));
    });
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 130);
}

#[tokio::test]
async fn a_look_that_fails_loses_nothing_and_asks_less_often() {
    let desk = Desk::start().await;
    let house = polling(&desk, 3).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.others = vec![incident(1, now_ms + 1_000, 0, "ann")];
        seen.read_faults = [Fault::Status(503, None), Fault::Status(429, Some(600))].into();
    });
    look(&house).await;
    assert_eq!((state(&house).await.failures, runs(&house, "watch").await), (1, 0));
    // After one failure it waits for two turns.
    look(&house).await;
    assert_eq!(state(&house).await.failures, 1);
    look(&house).await;
    assert_eq!(state(&house).await.failures, 2);
    // The other side asked for ten minutes; what happened before that is still found.
    house.clock.advance_ms(599_000);
    house.work().await;
    assert_eq!((state(&house).await.failures, runs(&house, "watch").await), (2, 0));
    house.clock.advance_ms(1_000 + OVERLAP_MS);
    house.work().await;
    assert_eq!((state(&house).await.failures, runs(&house, "watch").await), (0, 1));
}

#[tokio::test]
async fn a_process_that_dies_while_it_looks_starts_nothing_twice() {
    for commit in 0..8 {
        for after in [false, true] {
            let desk = Desk::start().await;
            let house = polling(&desk, 4).await;
            house.work().await;
            let now_ms = house.clock.now_ms();
            desk.look(|seen| seen.others = (1..=3).map(|n| incident(n, now_ms, 0, "ann")).collect());
            house.clock.advance_ms(EVERY_MS);
            house.work_killed(commit, after, None).await;
            for _ in 0..4 {
                house.clock.advance_ms(121_000);
                house.work().await;
            }
            assert_eq!(runs(&house, "watch").await, 3, "commit {commit}, after {after}");
        }
    }
}

#[tokio::test]
async fn polling_ends_and_begins_again_with_the_installation() {
    let desk = Desk::start().await;
    let house = polling(&desk, 5).await;
    look(&house).await;
    let asked = |desk: &Desk| desk.look(|seen| seen.requests.len());
    // Installed anew, there is one look at a time and not two.
    install(&house, &desk, Some(EVERY_MS)).await.unwrap();
    house.work().await;
    let before = asked(&desk);
    look(&house).await;
    assert_eq!(asked(&desk), before + 2, "two kinds of events, once each");
    install(&house, &desk, None).await.unwrap();
    let before = asked(&desk);
    look(&house).await;
    look(&house).await;
    assert_eq!(asked(&desk), before);
    assert!(house.harness.store().jobs(&house.tenant, 10).await.unwrap().is_empty());
    for bad in [0, 9_999, 86_400_001] {
        assert_eq!(install(&house, &desk, Some(bad)).await.unwrap_err().class, act::Class::Invalid, "{bad}");
    }
    // What cannot be polled is not.
    let admin = person(&house, "owner", &["tenant_admin"]);
    let args = json!({"name": "http", "manifest": contract("connectors/http.yaml"), "base_url": desk.url, "poll_every_ms": EVERY_MS});
    assert_eq!(
        house.act(&admin, "flows.connector.install", args).await.unwrap_err().class,
        act::Class::Invalid
    );
}

#[tokio::test]
async fn whoever_could_not_recognise_its_own_writes_hears_of_no_changes() {
    let desk = Desk::start().await;
    let house = House::with(&desk, 6).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    let base = json!({"name": "servicenow", "manifest": contract("connectors/servicenow.yaml"), "base_url": desk.url});
    let polled = json!({"poll_every_ms": EVERY_MS});
    let hooked = json!({"webhook_secret": "secret:hook"});
    let token = json!({"token": "secret:desk"});
    let named = json!({"token": "secret:desk", "user": "svc.writ"});
    // Each under a name of its own: what is not said again is kept from before.
    for (n, (name, hears, login, fits)) in [
        ("polled, a token of nobody", &polled, &token, false),
        ("polled, no login", &polled, &json!({}), false),
        ("polled, a user without a login", &polled, &json!({"user": "svc.writ"}), false),
        ("polled, a token of somebody", &polled, &named, true),
        ("hooked, a token of nobody", &hooked, &token, false),
        ("hooked, a token of somebody", &hooked, &named, true),
        ("neither", &json!({}), &token, true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut args = base.clone();
        args["name"] = format!("desk-{n}").into();
        for more in [hears, login] {
            args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        }
        let installed = house.act(&admin, "flows.connector.install", args).await;
        assert_eq!(installed.is_ok(), fits, "{name}: {installed:?}");
    }
}

#[tokio::test]
async fn a_row_that_does_not_say_who_changed_it_starts_nothing() {
    let desk = Desk::start().await;
    let house = polling(&desk, 7).await;
    let now_ms = house.clock.now_ms();
    let mut nobodys = incident(1, now_ms + 1_000, 1, "ann");
    nobodys.as_object_mut().unwrap().remove("sys_updated_by");
    desk.look(|seen| seen.others = vec![nobodys, incident(2, now_ms + 1_000, 1, "ann")]);
    look(&house).await;
    assert_eq!(runs(&house, "follow").await, 1);
}

/// The shipped manifest with one part of its first poll changed.
fn manifest(change: impl Fn(String) -> String) -> Vec<String> {
    let text = change(contract("connectors/servicenow.yaml"));
    match flows::connector::manifest::parse(&text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| problem.message.clone()).collect(),
    }
}

#[test]
fn a_manifest_that_polls_says_who_changed_what() {
    assert_eq!(manifest(|text| text), Vec::<String>::new());
    for (what, with) in [
        ("    author: /sys_updated_by\n", ""),
        ("    author: /sys_updated_by\n", "    author: /nowhere\n"),
        ("        sys_updated_by: \"{sys_created_by}\"\n", ""),
    ] {
        let problems = manifest(|text| {
            assert!(text.contains(what), "{what}");
            text.replacen(what, with, 1)
        });
        assert!(problems.len() == 1 && problems[0].contains("author"), "{what}: {problems:?}");
    }
}

#[tokio::test]
async fn a_system_that_gives_the_same_page_again_is_not_asked_for_ever() {
    let desk = Desk::start().await;
    let house = polling(&desk, 8).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.offset_ignored = true;
        seen.others = (1..=50).map(|n| incident(n, now_ms + 1_000, 0, "ann")).collect();
    });
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 50);
    let stuck = state(&house).await;
    assert_eq!((stuck.code.as_deref(), stuck.failures), (Some("flows.poll_stuck"), 1));
    // There is one job, and it is as far off as after any look that failed.
    let jobs = house.harness.store().jobs(&house.tenant, 200).await.unwrap();
    let polls: Vec<i64> = jobs.iter().filter(|job| job.kind == "flows.poll").map(|job| job.due_ms).collect();
    assert_eq!(polls, [house.clock.now_ms() + 2 * EVERY_MS]);
    // Mended, it is found that nothing was skipped.
    desk.look(|seen| {
        seen.offset_ignored = false;
        seen.others.extend((51..=60).map(|n| incident(n, now_ms + 1_000, 0, "ann")));
    });
    house.clock.advance_ms(2 * EVERY_MS);
    house.work().await;
    assert_eq!((runs(&house, "watch").await, state(&house).await.code), (60, None));
}

#[test]
fn a_manifest_that_polls_asks_for_the_page_behind() {
    let problems = manifest(|text| text.replacen(", offset: \"{offset}\"}", "}", 1));
    assert!(problems.len() == 1 && problems[0].contains("{offset}"), "{problems:?}");
}

/// Answers every change of the incident with a note, by itself.
const ANSWER: &str = "
name: answer
trigger: {connector: servicenow, event: incident.updated}
steps:
  - id: note
    tool:
      connector: servicenow
      action: incident.update
      params: {sys_id: '{{ event.sys_id }}', work_note: 'Seen {{ event.sys_mod_count }} of {{ event.sys_updated_by }}.'}
      policy: {auto_approve: true, confidence_milli: '1000', priority: '5'}
    retry: {external: 3}
";

/// A desk whose incident is polled, and whose changes are counted `times` for each write of ours.
async fn answering(desk: &Desk, seed: u64, times: i64) -> House {
    let house = House::with(desk, seed).await;
    let admin = person(&house, "owner", &["tenant_admin"]);
    house.act(&admin, "flows.workflow.retire", json!({"workflow": "itsm-triage"})).await.unwrap();
    house.publish(ANSWER).await.unwrap();
    house
        .publish(&ANSWER.replace(
            "name: answer\ntrigger: {connector: servicenow, event: incident.updated}",
            "name: by-hand",
        ))
        .await
        .unwrap();
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.counts = times;
        seen.now = text(now_ms);
        for (field, value) in [
            ("sys_created_on", text(now_ms - 1_000)),
            ("sys_created_by", "ann".into()),
            ("sys_updated_on", text(now_ms - 1_000)),
        ] {
            seen.incident.insert(field.into(), value.into());
        }
    });
    install(&house, desk, Some(EVERY_MS)).await.unwrap();
    house
}

fn text(at_ms: i64) -> String {
    written(at_ms, TimeForm::UtcSeconds).as_str().unwrap().to_owned()
}

/// A minute passes, in both places, and whatever is due is done.
async fn minute(house: &House, desk: &Desk) {
    house.clock.advance_ms(EVERY_MS);
    let now_ms = house.clock.now_ms();
    desk.look(|seen| seen.now = text(now_ms));
    house.work().await;
}

/// Somebody changes the incident, now.
fn changes(desk: &Desk, who: &str) {
    desk.look(|seen| seen.changed_by(who, 1));
}

/// We change the incident, for a run that knows of no change.
async fn write(house: &House) {
    house
        .start(
            "by-hand",
            json!({"sys_id": crate::desk::INCIDENT, "sys_mod_count": "", "sys_updated_by": "hand"}),
        )
        .await;
    house.work().await;
}

/// What was answered so far.
fn answered(desk: &Desk) -> Vec<String> {
    let notes = desk.look(|seen| seen.notes.clone());
    let told = |note: &String| note.split(" [ref").next().unwrap().to_owned();
    notes.iter().map(told).filter(|note| !note.ends_with("hand.")).collect()
}

#[tokio::test]
async fn a_change_beneath_our_own_write_is_heard_of_and_our_own_is_not() {
    let desk = Desk::start().await;
    let house = answering(&desk, 30, 1).await;
    minute(&house, &desk).await;
    changes(&desk, "ann");
    minute(&house, &desk).await;
    assert_eq!(answered(&desk), ["Seen 1 of ann."]);
    // Change 2 was ours.
    for _ in 0..3 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk).len(), 1);
    // In one window Bob's is 3 and ours is 4: his is found, and nobody knows any more whose it was.
    changes(&desk, "bob");
    write(&house).await;
    minute(&house, &desk).await;
    assert_eq!(answered(&desk)[1..], ["Seen 3 of ."]);
    // 5 was the answer. In one window ours is 6 and Eve's is 7.
    minute(&house, &desk).await;
    write(&house).await;
    changes(&desk, "eve");
    minute(&house, &desk).await;
    assert_eq!(answered(&desk)[2..], ["Seen 7 of eve."]);
    // 8 was the answer; 9 and 10 are both ours, and 11 is Bob's beneath our 12.
    minute(&house, &desk).await;
    write(&house).await;
    write(&house).await;
    minute(&house, &desk).await;
    assert_eq!(answered(&desk).len(), 3);
    changes(&desk, "bob");
    write(&house).await;
    minute(&house, &desk).await;
    assert_eq!(answered(&desk)[3..], ["Seen 11 of ."]);
    for _ in 0..10 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk).len(), 4, "nothing answers itself");
    // The webhook about Bob's change comes late: it is the same event.
    let body = json!({"event": "incident.updated", "sys_id": crate::desk::INCIDENT, "number": "INC0010001",
                      "sys_mod_count": "11", "sys_updated_by": "bob"})
    .to_string();
    let now_s = house.clock.now_ms() / 1000;
    let (late, _) = deliver(&house, &sign(HOOK_SECRET, "msg_9", now_s, &body), &body).await.unwrap();
    assert_eq!(late["ignored"], "duplicate");
}

#[tokio::test]
async fn a_change_beneath_the_answer_to_an_event_is_heard_of() {
    // The run was started by a webhook about change 1; by the time it writes, Bob has made change 2. Ours is 3.
    let desk = Desk::start().await;
    let house = answering(&desk, 31, 1).await;
    changes(&desk, "ann");
    let body = json!({"event": "incident.updated", "sys_id": crate::desk::INCIDENT, "number": "INC0010001",
                      "sys_mod_count": "1", "sys_updated_by": "ann"})
    .to_string();
    let now_s = house.clock.now_ms() / 1000;
    deliver(&house, &sign(HOOK_SECRET, "msg_1", now_s, &body), &body).await.unwrap();
    changes(&desk, "bob");
    for _ in 0..5 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk), ["Seen 1 of ann.", "Seen 2 of ."]);
}

#[tokio::test]
async fn i08_a_system_that_counts_more_than_we_wrote_never_makes_us_answer_ourselves_for_ever() {
    // A rule over there changes the ticket once more for each write of ours. One run too many, and that is all.
    let desk = Desk::start().await;
    let house = answering(&desk, 32, 2).await;
    minute(&house, &desk).await;
    changes(&desk, "ann");
    for _ in 0..20 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk), ["Seen 1 of ann.", "Seen 2 of ."]);
}

#[tokio::test]
async fn a_write_whose_reply_was_lost_is_ours_all_the_same() {
    let desk = Desk::start().await;
    let house = answering(&desk, 33, 1).await;
    minute(&house, &desk).await;
    changes(&desk, "ann");
    desk.look(|seen| seen.write_faults = vec![Fault::DropAfter].into());
    for _ in 0..20 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk), ["Seen 1 of ann."]);
}

#[tokio::test]
async fn a_change_beneath_a_write_whose_reply_is_still_to_come_is_not_forgotten() {
    let desk = Desk::start().await;
    let house = answering(&desk, 39, 1).await;
    minute(&house, &desk).await;
    changes(&desk, "ann");
    minute(&house, &desk).await;
    minute(&house, &desk).await;
    // The write is made, its reply is lost, and what became of it cannot be asked before the next look.
    changes(&desk, "bob");
    house.clock.advance_ms(EVERY_MS - 1);
    desk.look(|seen| {
        seen.write_faults = vec![Fault::DropAfter].into();
        seen.read_faults = vec![Fault::Status(503, None)].into();
    });
    write(&house).await;
    house.clock.advance_ms(1);
    house.work().await;
    for _ in 0..5 {
        minute(&house, &desk).await;
    }
    assert_eq!(answered(&desk), ["Seen 1 of ann.", "Seen 3 of ."]);
}

#[tokio::test]
async fn a_process_that_dies_hears_of_a_change_beneath_its_write_once() {
    for commit in 0..10 {
        for after in [false, true] {
            let desk = Desk::start().await;
            let house = answering(&desk, 34, 1).await;
            minute(&house, &desk).await;
            changes(&desk, "ann");
            minute(&house, &desk).await;
            changes(&desk, "bob");
            write(&house).await;
            house.clock.advance_ms(EVERY_MS);
            house.work_killed(commit, after, None).await;
            for _ in 0..4 {
                house.clock.advance_ms(61_000);
                minute(&house, &desk).await;
            }
            assert_eq!(answered(&desk), ["Seen 1 of ann.", "Seen 3 of ."], "commit {commit}, after {after}");
        }
    }
}

#[tokio::test]
async fn the_clock_over_there_may_be_wrong_by_hours() {
    for skew_ms in [-5 * 3_600_000, -1_200_000, -60_000, 0, 60_000, 1_200_000, 5 * 3_600_000] {
        let desk = Desk::start().await;
        let house = polling(&desk, 35).await;
        // Where it is behind, what happens in the first `skew` after polling was switched on is taken for older.
        house.clock.advance_ms((-skew_ms).max(0));
        house.work().await;
        for n in 1..=20 {
            // Seen half a minute after it happened.
            house.clock.advance_ms(30_000);
            let there_ms = house.clock.now_ms() + skew_ms;
            desk.look(|seen| seen.others.push(incident(n, there_ms, 0, "ann")));
            house.clock.advance_ms(30_000);
            house.work().await;
            assert_eq!(runs(&house, "watch").await, n as usize, "{skew_ms}");
        }
    }
}

#[tokio::test]
async fn a_time_that_is_none_hides_nothing() {
    let desk = Desk::start().await;
    let house = polling(&desk, 36).await;
    let now_ms = house.clock.now_ms();
    // One row says that it changes in seventy years.
    desk.look(|seen| seen.others = vec![incident(1, now_ms + 70 * 365 * 86_400_000, 0, "ann")]);
    look(&house).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| seen.others.push(incident(2, now_ms, 0, "ann")));
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 2);
}

#[tokio::test]
async fn what_has_been_read_is_not_read_for_ever() {
    let desk = Desk::start().await;
    let house = polling(&desk, 37).await;
    let now_ms = house.clock.now_ms();
    desk.look(|seen| {
        seen.others = (1..=120).map(|n| incident(n, now_ms + 1_000 + i64::from(n) * 100, 0, "ann")).collect();
    });
    for _ in 0..3 {
        look(&house).await;
    }
    assert_eq!(runs(&house, "watch").await, 120);
    house.clock.advance_ms(OVERLAP_MS);
    look(&house).await;
    look(&house).await;
    let facts = house.facts(&Id::parse("pol_servicenow").unwrap()).await;
    let rows = &facts.iter().rfind(|fact| fact["kind"] == "flows.poll.finished").unwrap()["outcome"]["rows"];
    assert!(rows.as_i64().unwrap() <= 10, "the rows of the last second: {rows}");
    // What comes a little late is found.
    let now_ms = house.clock.now_ms();
    desk.look(|seen| seen.others.push(incident(121, now_ms, 0, "ann")));
    look(&house).await;
    desk.look(|seen| seen.others.push(incident(122, now_ms - 240_000, 0, "ann")));
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 122);
}

#[tokio::test]
async fn a_process_that_was_down_for_a_day_catches_up_and_one_that_was_switched_off_does_not() {
    let (desk, other) = (Desk::start().await, Desk::start().await);
    let house = polling(&desk, 38).await;
    look(&house).await;
    let day = |desk: &Desk, first: u32, now_ms: i64| {
        desk.look(|seen| {
            for hour in 0..24 {
                seen.others.push(incident(
                    first + hour,
                    now_ms + 1_000 + i64::from(hour) * 3_600_000,
                    0,
                    "ann",
                ));
            }
        });
    };
    // Nobody works for a day.
    day(&desk, 1, house.clock.now_ms());
    house.clock.advance_ms(86_400_000);
    house.work().await;
    assert_eq!(runs(&house, "watch").await, 24);
    // Switched off for a day: it begins where things stand.
    install(&house, &desk, None).await.unwrap();
    day(&desk, 101, house.clock.now_ms());
    house.clock.advance_ms(86_400_000);
    house.work().await;
    install(&house, &desk, Some(EVERY_MS)).await.unwrap();
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 24);
    let now_ms = house.clock.now_ms();
    desk.look(|seen| seen.others.push(incident(200, now_ms, 0, "ann")));
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 25);
    // At another pace it goes on.
    house.clock.advance_ms(30_000);
    let now_ms = house.clock.now_ms();
    desk.look(|seen| seen.others.push(incident(201, now_ms, 0, "ann")));
    install(&house, &desk, Some(2 * EVERY_MS)).await.unwrap();
    house.work().await;
    assert_eq!(runs(&house, "watch").await, 26);
    // Another system has another past.
    day(&other, 301, house.clock.now_ms() - 86_400_000);
    install(&house, &other, Some(EVERY_MS)).await.unwrap();
    look(&house).await;
    assert_eq!(runs(&house, "watch").await, 26);
}
