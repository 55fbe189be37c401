//! Who may decide, what two at once come to, and what a grant is worth later.

use crate::house::House;
use act::PrincipalKind;
use serde_json::json;

#[tokio::test]
async fn one_person_of_the_tier_is_enough_for_an_ordinary_act() {
    let house = House::new(1).await;
    let id = house.asked("one thing").await;
    let eve = house.person("eve").await;
    house.grant(&eve, &id).await.unwrap();
    house.work().await;
    assert_eq!((house.status(&id).await, house.exists("one thing").await), ("used", true));
    let facts = house.facts(&id).await;
    let granted = facts.iter().find(|fact| fact["kind"] == "governor.approval.granted").unwrap();
    assert_eq!(granted["actor"], json!(eve.principal.id));
    assert_eq!(granted["outcome"]["approver"], json!(eve.principal.id));
    assert_eq!(granted["outcome"]["preview"], json!(house.approval(&id).await.preview_digest));
    let jobs = house.harness.store().jobs(&house.tenant, 10).await.unwrap();
    assert!(jobs.is_empty(), "the timer went with the decision: {jobs:?}");
}

#[tokio::test]
async fn b14_a_risky_act_needs_two_people_and_keys_are_not_people() {
    let house = House::new(2).await;
    let id = house.asked("two keys").await;
    let eve = house.person("eve").await;
    assert_eq!(house.grant(&eve, &id).await.unwrap()["status"], "pending");
    // The same person with another key, proven otherwise, at another time.
    let mut again = house.person("eve").await;
    again.assurance.method = "signature".into();
    again.trace = "trc_other".into();
    assert_eq!(house.grant(&again, &id).await.unwrap_err().code, "approval.twice");
    // The one who asked, with whatever key.
    let ann = house.person("ann").await;
    assert_eq!(house.grant(&ann, &id).await.unwrap_err().code, "approval.self");
    assert_eq!(house.deny(&ann, &id).await.unwrap_err().code, "approval.self");
    // A program of theirs.
    let mut program = house.as_if("prn_bot", PrincipalKind::Agent, &["approver"]);
    assert_eq!(house.grant(&program, &id).await.unwrap_err().code, "approval.not_a_person");
    program.principal.kind = PrincipalKind::Person;
    program.on_behalf_of = vec![ann.principal.id.clone()];
    assert_eq!(house.grant(&program, &id).await.unwrap_err().code, "approval.self");
    house.work().await;
    assert_eq!((house.status(&id).await, house.exists("two keys").await), ("pending", false));
    let fay = house.person("fay").await;
    assert_eq!(house.grant(&fay, &id).await.unwrap()["status"], "granted");
    house.work().await;
    assert_eq!((house.status(&id).await, house.exists("two keys").await), ("used", true));
}

#[tokio::test]
async fn whoever_an_act_is_done_for_stands_behind_it() {
    let house = House::new(3).await;
    let eve = house.person("eve").await;
    let mut service = house.as_if("prn_svc-engine", PrincipalKind::Service, &["tenant_admin"]);
    service.on_behalf_of = vec![house.person("joe").await.principal.id, eve.principal.id.clone()];
    let args = json!({"name": "one for eve", "kind": "person", "roles": []});
    let answer = house.act(&service, "access.principal.create", args).await.unwrap();
    let id = kernel::Id::parse(answer["waits"].as_str().unwrap()).unwrap();
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.self");
    house.grant(&house.person("fay").await, &id).await.unwrap();
}

#[tokio::test]
async fn a_tier_is_a_tier() {
    let house = House::new(4).await;
    let id = house.asked("high thing").await;
    for (name, code) in [("eve", "approval.tier_too_low"), ("joe", "access.role_missing")] {
        let who = house.person(name).await;
        assert_eq!(house.grant(&who, &id).await.unwrap_err().code, code, "{name}");
    }
    house.grant(&house.person("bob").await, &id).await.unwrap();
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
}

#[tokio::test]
async fn two_at_once_come_to_one_outcome() {
    for round in 0..6 {
        let house = House::new(10 + round).await;
        let id = house.asked("one race").await;
        let (eve, fay) = (house.person("eve").await, house.person("fay").await);
        let denies = round % 2 == 1;
        let other = async { if denies { house.deny(&fay, &id).await } else { house.grant(&fay, &id).await } };
        let (first, second) = futures::join!(house.grant(&eve, &id), other);
        let (won, lost) = match (first, second) {
            (Ok(_), Err(lost)) => ("granted", lost),
            (Err(lost), Ok(_)) => (if denies { "denied" } else { "granted" }, lost),
            (first, second) => panic!("round {round}: {first:?} {second:?}"),
        };
        assert_eq!(
            (lost.code.as_str(), lost.class),
            ("approval.closed", act::Class::Conflict),
            "round {round}"
        );
        house.work().await;
        let carried_out = won == "granted";
        assert_eq!(house.exists("one race").await, carried_out, "round {round}");
        assert_eq!(house.status(&id).await, if carried_out { "used" } else { "denied" }, "round {round}");
        let kinds = house.kinds(&id).await;
        let decisions = kinds.iter().filter(|kind| kind.ends_with(".granted") || kind.ends_with(".denied"));
        assert_eq!(decisions.count(), 1, "round {round}: {kinds:?}");
    }
}

#[tokio::test]
async fn a_decision_is_final_and_says_so() {
    let house = House::new(20).await;
    let (eve, fay) = (house.person("eve").await, house.person("fay").await);
    let id = house.asked("one final").await;
    house.deny(&fay, &id).await.unwrap();
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.closed");
    assert_eq!(house.deny(&fay, &id).await.unwrap_err().code, "approval.closed");
    let wrong = json!({"approval": house.asked("one seen").await, "preview_digest": "0".repeat(64)});
    let fault = house.act(&eve, "governor.approval.grant", wrong).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.class), ("approval.changed", act::Class::Conflict));
    house.work().await;
    let closed = house.facts(&id).await;
    let closed = closed.iter().find(|fact| fact["kind"] == "governor.approval.closed").unwrap();
    assert_eq!(closed["outcome"]["status"], "denied");
}

#[tokio::test]
async fn i06_what_has_changed_since_people_saw_it_is_not_done() {
    let house = House::new(21).await;
    let ann = house.person("ann").await;
    let joe = house.person("joe").await.principal.id;
    let args = json!({"principal": joe, "role": "builder"});
    let answer = house.act(&ann, "access.binding.create", args).await.unwrap();
    let id = kernel::Id::parse(answer["waits"].as_str().unwrap()).unwrap();
    // They were shown that Joe is an operator now.
    house.grant(&house.person("eve").await, &id).await.unwrap();
    house.roles("joe", &["auditor"]).await;
    house.work().await;
    let approval = house.approval(&id).await;
    assert_eq!(approval.status.as_str(), "void");
    assert_eq!(approval.closed.unwrap().reason, "approval.changed");
    assert_eq!(house.person("joe").await.principal.roles, ["auditor"], "nothing was done");
}

#[tokio::test]
async fn a_grant_does_not_outlive_the_policy_that_it_was_given_under() {
    let house = House::new(22).await;
    for (rules, code) in [
        (
            "package writ\ndeny contains \"test.closed\" if input.action == \"access.principal.create\"\n",
            "test.closed",
        ),
        (
            "package writ\nrequired := {\"reason\": \"approval.test\", \"tier\": 2, \"approvals\": 2} if input.action == \"access.principal.create\"\n",
            "approval.insufficient",
        ),
    ] {
        house.policy(RULES_ONE);
        let id = house.asked("one late rule").await;
        house.grant(&house.person("eve").await, &id).await.unwrap();
        house.policy(rules);
        house.work().await;
        let approval = house.approval(&id).await;
        assert_eq!((approval.status.as_str(), approval.closed.unwrap().reason.as_str()), ("void", code));
        assert!(!house.exists("one late rule").await);
    }
}

const RULES_ONE: &str = "package writ\nrequired := {\"reason\": \"approval.test\", \"tier\": 1, \"approvals\": 1} if input.action == \"access.principal.create\"\n";

#[tokio::test]
async fn a_requester_who_has_lost_the_right_gets_nothing_by_an_old_grant() {
    let house = House::new(23).await;
    let id = house.asked("one demoted").await;
    house.grant(&house.person("eve").await, &id).await.unwrap();
    house.roles("ann", &["operator"]).await;
    house.work().await;
    assert_eq!((house.status(&id).await, house.exists("one demoted").await), ("void", false));
}
