//! Keys are a way to act as somebody else: who may make one, and who may take one away.

use crate::house::House;
use act::{Ctx, PrincipalKind};
use serde_json::{Value, json};

/// What `access.key.create` for this principal comes to: the key, or the code of the refusal.
async fn made(house: &House, maker: &Ctx, owner: &Ctx, n: u8) -> Result<Value, String> {
    let secret = format!("{n:064x}");
    let args = json!({"principal": owner.principal.id, "name": "test", "secret_sha256": secret});
    let made = house.act(maker, "access.key.create", args).await;
    made.map(|outcome| outcome["key"].clone()).map_err(|fault| fault.code)
}

async fn revoked(house: &House, who: &Ctx, key: &Value) -> Result<(), String> {
    let revoked = house.act(who, "access.key.revoke", json!({"key": key})).await;
    revoked.map(|_| ()).map_err(|fault| fault.code)
}

fn ordinary(mut ctx: Ctx) -> Ctx {
    ctx.assurance.level = 0;
    ctx
}

#[tokio::test]
async fn nobody_acts_as_the_platform_by_a_key_of_its_people() {
    let house = House::new(41).await;
    let chief = house.as_if("prn_chief", PrincipalKind::Person, &["platform_admin"]);
    let args = json!({"name": "root", "kind": "person", "roles": ["platform_admin"]});
    house.act(&chief, "access.principal.create", args).await.unwrap();
    let (ann, root) = (house.person("ann").await, house.person("root").await);
    assert_eq!(made(&house, &ann, &root, 1).await, Err("access.escalation".into()));
    let key = made(&house, &chief, &root, 2).await.unwrap();
    assert_eq!(revoked(&house, &ann, &key).await, Err("access.escalation".into()));
    assert_eq!(revoked(&house, &chief, &key).await, Ok(()));
}

#[tokio::test]
async fn an_ordinary_key_makes_keys_for_oneself_only() {
    let house = House::new(42).await;
    let (ann, bob, joe) = (house.person("ann").await, house.person("bob").await, house.person("joe").await);
    let mut keys = Vec::new();
    for (n, (what, maker, owner, expected)) in [
        ("another administrator's", ordinary(ann.clone()), &bob, Some("assurance.too_low")),
        (
            "of somebody who may be made an approver later",
            ordinary(ann.clone()),
            &joe,
            Some("assurance.too_low"),
        ),
        ("one's own", ordinary(ann.clone()), &ann, None),
        ("another's with a strong key", ann.clone(), &bob, None),
    ]
    .into_iter()
    .enumerate()
    {
        let made = made(&house, &maker, owner, u8::try_from(n).unwrap()).await;
        assert_eq!(made.as_ref().err().map(String::as_str), expected, "{what}");
        keys.extend(made.ok());
    }
    // A lost key cannot wait for a strong one.
    for key in keys {
        assert_eq!(revoked(&house, &ordinary(ann.clone()), &key).await, Ok(()));
    }
}
