//! The queue as people ask for it.

use crate::house::House;
use act::{Clock as _, Ctx};
use serde_json::{Value, json};

async fn ids(house: &House, who: &Ctx, params: &[(&str, &str)]) -> Vec<String> {
    let page = house.read(who, "approval_list", params).await.unwrap();
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn by_state_by_tier_by_age_and_mine() {
    let house = House::new(1).await;
    let (ann, bob, eve) = (house.person("ann").await, house.person("bob").await, house.person("eve").await);
    let old = house.asked("one old").await;
    house.clock.advance_ms(5_000);
    let high = house.asked("high new").await;
    let twice = house.asked("two new").await;
    house.grant(&eve, &twice).await.unwrap();
    let denied = house.asked("one denied").await;
    house.deny(&bob, &denied).await.unwrap();
    let text = |ids: &[&kernel::Id]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&house, &ann, &[]).await, text(&[&old, &high, &twice]));
    assert_eq!(ids(&house, &ann, &[("status", "denied")]).await, text(&[&denied]));
    assert_eq!(ids(&house, &ann, &[("tier", "2")]).await, text(&[&high]));
    assert_eq!(ids(&house, &ann, &[("older_than_ms", "5000")]).await, text(&[&old]));
    assert_eq!(
        ids(&house, &ann, &[("mine", "true")]).await,
        text(&[]),
        "her own requests are not hers to decide"
    );
    assert_eq!(ids(&house, &bob, &[("mine", "true")]).await, text(&[&old, &high, &twice]));
    assert_eq!(ids(&house, &eve, &[("mine", "true")]).await, text(&[&old]), "too high, and granted already");
    let away = json!({"delegate": eve.principal.id, "ends_at_ms": house.clock.now_ms() + 1_000});
    house.act(&bob, "governor.delegation.create", away).await.unwrap();
    assert_eq!(ids(&house, &eve, &[("mine", "true")]).await, text(&[&old, &high]), "and what is bob's");
    let shown = house.read(&eve, "approval_show", &[("approval", old.as_str())]).await.unwrap();
    assert_eq!((&shown["age_ms"], &shown["mine"]), (&json!(5_000), &json!(true)));
    assert_eq!(shown["may_decide"], json!(["approver", "platform_admin", "tenant_admin"]));
    for (name, value) in [
        ("status", "lost"),
        ("mine", "yes"),
        ("tier", "high"),
        ("older_than_ms", "1h"),
        ("limit", "0"),
        ("limit", "201"),
        ("after", "zz"),
    ] {
        let fault = house.read(&eve, "approval_list", &[(name, value)]).await.unwrap_err();
        assert_eq!(fault.code, "request.invalid", "{name}={value}");
    }
}

#[tokio::test]
async fn page_by_page() {
    let house = House::new(2).await;
    let bob = house.person("bob").await;
    let mut asked = Vec::new();
    for n in 0..7 {
        house.clock.advance_ms(1);
        let kind = if n % 2 == 0 { "one" } else { "high" };
        asked.push(house.asked(&format!("{kind} {n}")).await.to_string());
    }
    for (tier, expected) in
        [(None, asked.clone()), (Some("2"), asked.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>())]
    {
        let (mut seen, mut after) = (Vec::new(), Value::Null);
        loop {
            let cursor = after.as_str().map(str::to_owned);
            let mut params = vec![("limit", "2")];
            params.extend(tier.map(|tier| ("tier", tier)));
            params.extend(cursor.as_deref().map(|cursor| ("after", cursor)));
            let page = house.read(&bob, "approval_list", &params).await.unwrap();
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!(seen, expected);
    }
}
