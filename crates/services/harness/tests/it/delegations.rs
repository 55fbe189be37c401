//! Deciding in the place of somebody who is away.

use crate::house::House;
use act::{Clock as _, Ctx, Fault};
use serde_json::{Value, json};

const HOUR_MS: i64 = 60 * 60 * 1000;

async fn delegate(house: &House, from: &Ctx, to: &Ctx, hours: (i64, i64)) -> Result<String, Fault> {
    let now_ms = house.clock.now_ms();
    let args = json!({
        "delegate": to.principal.id, "starts_at_ms": now_ms + hours.0 * HOUR_MS,
        "ends_at_ms": now_ms + hours.1 * HOUR_MS, "note": "away",
    });
    let answer = house.act(from, "governor.delegation.create", args).await?;
    Ok(answer["delegation"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_delegate_decides_and_the_fact_names_both() {
    let house = House::new(1).await;
    let (bob, eve) = (house.person("bob").await, house.person("eve").await);
    let id = house.asked("high while bob is away").await;
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.tier_too_low");
    let delegation = delegate(&house, &bob, &eve, (0, 10)).await.unwrap();
    // A delegation that is not named is not used.
    assert_eq!(house.grant(&eve, &id).await.unwrap_err().code, "approval.tier_too_low");
    house.grant_for(&eve, &id, &delegation).await.unwrap();
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
    let facts = house.facts(&id).await;
    let granted = facts.iter().find(|fact| fact["kind"] == "governor.approval.granted").unwrap();
    let outcome = &granted["outcome"];
    assert_eq!(granted["actor"], json!(eve.principal.id));
    assert_eq!(outcome["approver"], json!(eve.principal.id));
    assert_eq!(outcome["delegator"], json!(bob.principal.id));
    assert_eq!((&outcome["delegation"], &outcome["tier"]), (&json!(delegation), &json!(2)));
}

#[tokio::test]
async fn it_holds_in_its_span_until_it_is_ended() {
    let house = House::new(2).await;
    let (bob, eve) = (house.person("bob").await, house.person("eve").await);
    let delegation = delegate(&house, &bob, &eve, (2, 4)).await.unwrap();
    let refused = async |id: &kernel::Id| house.grant_for(&eve, id, &delegation).await.unwrap_err().code;
    let id = house.asked("high first").await;
    assert_eq!(refused(&id).await, "approval.delegation");
    house.clock.advance_ms(2 * HOUR_MS);
    house.grant_for(&eve, &id, &delegation).await.unwrap();
    let id = house.asked("high second").await;
    let end = json!({"delegation": delegation});
    let fault = house.act(&eve, "governor.delegation.end", end.clone()).await.unwrap_err();
    assert_eq!(fault.code, "access.not_own");
    house.act(&bob, "governor.delegation.end", end.clone()).await.unwrap();
    assert_eq!(refused(&id).await, "approval.delegation");
    assert_eq!(house.act(&bob, "governor.delegation.end", end).await.unwrap_err().code, "delegation.over");
    let short = delegate(&house, &bob, &eve, (0, 1)).await.unwrap();
    house.clock.advance_ms(HOUR_MS);
    assert_eq!(house.grant_for(&eve, &id, &short).await.unwrap_err().code, "approval.delegation");
}

#[tokio::test]
async fn it_conveys_what_its_giver_has_now_and_nothing_that_was_lent_to_them() {
    let house = House::new(3).await;
    let (bob, eve, fay) = (house.person("bob").await, house.person("eve").await, house.person("fay").await);
    let first = delegate(&house, &bob, &eve, (0, 10)).await.unwrap();
    let second = delegate(&house, &eve, &fay, (0, 10)).await.unwrap();
    let id = house.asked("high chain").await;
    assert_eq!(house.grant_for(&fay, &id, &second).await.unwrap_err().code, "approval.tier_too_low");
    // Somebody else's delegation does not exist for her.
    assert_eq!(house.grant_for(&fay, &id, &first).await.unwrap_err().code, "not_found");
    house.roles("bob", &["operator"]).await;
    assert_eq!(house.grant_for(&eve, &id, &first).await.unwrap_err().code, "approval.tier_too_low");
    house.roles("bob", &["tenant_admin"]).await;
    house.grant_for(&eve, &id, &first).await.unwrap();
}

#[tokio::test]
async fn both_stand_behind_the_decision() {
    let house = House::new(4).await;
    let (ann, bob, eve, fay) = (
        house.person("ann").await,
        house.person("bob").await,
        house.person("eve").await,
        house.person("fay").await,
    );
    let anns = delegate(&house, &ann, &eve, (0, 10)).await.unwrap();
    let bobs = delegate(&house, &bob, &eve, (0, 10)).await.unwrap();
    let bobs_other = delegate(&house, &bob, &fay, (0, 10)).await.unwrap();
    let id = house.asked("two people").await;
    // The requester does not approve through a delegate.
    assert_eq!(house.grant_for(&eve, &id, &anns).await.unwrap_err().code, "approval.self");
    house.grant(&eve, &id).await.unwrap();
    // Once for herself and once for Bob is not two people; nor is Bob through another delegate once he has granted.
    assert_eq!(house.grant_for(&eve, &id, &bobs).await.unwrap_err().code, "approval.twice");
    house.grant_for(&fay, &id, &bobs_other).await.unwrap();
    house.work().await;
    assert_eq!(house.status(&id).await, "used");
    let id = house.asked("two other people").await;
    house.grant_for(&fay, &id, &bobs_other).await.unwrap();
    assert_eq!(house.grant(&bob, &id).await.unwrap_err().code, "approval.twice");
    assert_eq!(house.grant_for(&eve, &id, &bobs).await.unwrap_err().code, "approval.twice");
}

#[tokio::test]
async fn only_a_right_that_one_has_and_only_to_another_person() {
    let house = House::new(5).await;
    let (bob, eve, joe) = (house.person("bob").await, house.person("eve").await, house.person("joe").await);
    let code = |result: Result<String, Fault>| result.unwrap_err().code;
    assert_eq!(code(delegate(&house, &joe, &eve, (0, 1)).await), "access.role_missing");
    let mut nearly = joe.clone();
    nearly.principal.roles = vec!["approver".into()];
    nearly.principal.home = kernel::TenantId::platform();
    assert_eq!(code(delegate(&house, &nearly, &eve, (0, 1)).await), "delegation.right_missing");
    assert_eq!(code(delegate(&house, &bob, &bob, (0, 1)).await), "delegation.invalid");
    assert_eq!(code(delegate(&house, &bob, &eve, (0, 0)).await), "delegation.invalid");
    assert_eq!(code(delegate(&house, &bob, &eve, (0, 93 * 24)).await), "delegation.invalid");
    // A delegate who may decide nothing themselves decides nothing for others.
    let delegation = delegate(&house, &bob, &joe, (0, 1)).await.unwrap();
    let id = house.asked("high for joe").await;
    assert_eq!(house.grant_for(&joe, &id, &delegation).await.unwrap_err().code, "access.role_missing");
    let shown = house.read(&joe, "delegation_list", &[("side", "to")]).await.unwrap();
    let shown: Vec<&Value> = shown["items"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    assert_eq!(shown, [&json!(delegation)]);
}
