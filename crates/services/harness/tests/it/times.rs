//! Reminder, escalation, expiry: what time does to an approval, and what it never does.

use crate::house::House;
use act::PrincipalKind;
use governor::PERMIT_MS;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use testkit::VirtualClock;

const HOUR_MS: i64 = 60 * 60 * 1000;

#[tokio::test]
async fn people_are_reminded_then_more_are_asked_then_it_is_over() {
    let house = House::new(1).await;
    let id = house.asked("one forgotten").await;
    let steps = [
        (4, "governor.approval.reminded", "pending", 1),
        (4, "governor.approval.escalated", "pending", 2),
        (16, "governor.approval.told", "expired", 2),
    ];
    for (hours, kind, status, asked_tier) in steps {
        house.clock.advance_ms(hours * HOUR_MS - 1);
        house.work().await;
        assert!(!house.kinds(&id).await.contains(&kind.to_owned()), "{kind} came too early");
        house.clock.advance_ms(1);
        house.work().await;
        let approval = house.approval(&id).await;
        assert_eq!(house.kinds(&id).await.last().map(String::as_str), Some(kind));
        assert_eq!((approval.status.as_str(), approval.asked_tier, approval.tier), (status, asked_tier, 1));
    }
    let facts = house.facts(&id).await;
    assert_eq!(facts.last().unwrap()["outcome"]["status"], "expired");
    assert!(!house.exists("one forgotten").await, "time grants nothing");
    assert!(house.harness.store().jobs(&house.tenant, 10).await.unwrap().is_empty());
    // Expired is not denied, and neither can be decided any more.
    let eve = house.person("eve").await;
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.late");
    assert_eq!(house.deny(&eve, &id).await.unwrap_err().code, "approval.late");
}

#[tokio::test]
async fn after_a_night_without_the_system_only_what_matters_now_is_done() {
    let house = House::new(2).await;
    let id = house.asked("one overnight").await;
    house.clock.advance_ms(10 * HOUR_MS);
    house.work().await;
    assert_eq!(house.kinds(&id).await, ["governor.approval.escalated"]);
    let lost = house.asked("one for the weekend").await;
    house.clock.advance_ms(60 * HOUR_MS);
    house.work().await;
    assert_eq!(house.kinds(&lost).await, ["governor.approval.closed", "governor.approval.told"]);
    assert_eq!(house.status(&lost).await, "expired");
}

#[tokio::test]
async fn after_its_time_it_is_late_even_before_anybody_has_looked() {
    let house = House::new(3).await;
    let id = house.asked("one late").await;
    house.clock.advance_ms(24 * HOUR_MS);
    let eve = house.person("eve").await;
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.late");
    assert_eq!(house.status(&id).await, "pending");
    house.work().await;
    assert_eq!(house.status(&id).await, "expired");
}

#[tokio::test]
async fn a_decision_after_an_escalation_ends_all_timers() {
    let house = House::new(4).await;
    let id = house.asked("one widened").await;
    house.clock.advance_ms(8 * HOUR_MS);
    house.work().await;
    // Widening asked more people; those of the tier may still decide.
    house.grant(&house.person("eve").await, &id).await.unwrap();
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
    assert!(house.harness.store().jobs(&house.tenant, 10).await.unwrap().is_empty());
    house.clock.advance_ms(48 * HOUR_MS);
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
}

#[tokio::test]
async fn the_times_are_policys() {
    let house = House::new(5).await;
    let approval = house.approval(&house.asked("one timed").await).await;
    let rules = house.harness.governor().approval_rules();
    assert_eq!(approval.expires_at_ms - approval.requested_at_ms, rules.expire_ms);
    assert_eq!(approval.remind_at_ms, Some(approval.requested_at_ms + rules.remind_ms));
    assert_eq!(approval.escalate_at_ms, Some(approval.requested_at_ms + rules.escalate_ms));
}

/// An act that takes longer to plan than a permit lasts, as a backup does, is decided once more, and is recorded at the
/// time at which it was done: not in front of what others did meanwhile.
#[tokio::test]
async fn what_takes_long_to_plan_is_decided_again_and_recorded_when_it_was_done() {
    let clock: Arc<OnceLock<Arc<VirtualClock>>> = Arc::default();
    let slow = clock.clone();
    let house = House::with(9, |domains| {
        let create = domains[0].verbs.iter_mut().find(|verb| verb.act == "access.principal.create").unwrap();
        let plan = create.plan.clone();
        create.plan = Arc::new(move |view, args, stamp| {
            if let Some(clock) = slow.get() {
                clock.advance_ms(2 * PERMIT_MS);
            }
            plan(view, args, stamp)
        });
    })
    .await;
    house.policy("package writ\n");
    let store = house.harness.store();
    let from = store.head(&house.tenant).await.unwrap().unwrap().size;
    clock.set(house.clock.clone()).unwrap();
    let before_ms = house.clock_ms();
    let boss = house.as_if("prn_boss", PrincipalKind::Person, &["tenant_admin"]);
    let args = json!({"name": "slow", "kind": "person", "roles": []});
    house.act(&boss, "access.principal.create", args).await.unwrap();
    assert_eq!(house.clock_ms(), before_ms + 2 * PERMIT_MS);
    let leaves = store.leaves(&house.tenant, from, 10).await.unwrap();
    let leaf: Value = serde_json::from_slice(&leaves[0].leaf).unwrap();
    assert_eq!(leaf["at_ms"], house.clock_ms(), "{leaf}");
    // It is decided by the policy that holds then.
    let ending = 3 * PERMIT_MS / 2;
    let denying = format!(
        "package writ\n\ndeny contains \"test.late\" if input.now_ms > {}\n",
        house.clock_ms() + ending
    );
    house.policy(&denying);
    let args = json!({"name": "slower", "kind": "person", "roles": []});
    let fault = house.act(&boss, "access.principal.create", args).await.unwrap_err();
    assert_eq!(fault.code, "test.late", "{fault:?}");
}
