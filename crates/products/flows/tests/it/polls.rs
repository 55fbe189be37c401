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
    for (name, hears, login, fits) in [
        ("polled, a token of nobody", &polled, &token, false),
        ("polled, no login", &polled, &json!({}), false),
        ("polled, a user without a login", &polled, &json!({"user": "svc.writ"}), false),
        ("polled, a token of somebody", &polled, &named, true),
        ("hooked, a token of nobody", &hooked, &token, false),
        ("hooked, a token of somebody", &hooked, &named, true),
        ("neither", &json!({}), &token, true),
    ] {
        let mut args = base.clone();
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
