//! Keys are a way to act as somebody else: who may make one, and who may take one away.

use crate::house::House;
use access::authenticate::authenticate;
use act::Ctx;
use kernel::{hex, sha256};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use store::{Pending, ReadError, Store};
use testkit::around::{Around, Hook};

/// What `access.key.create` for this principal comes to: the key, or the code of the refusal.
async fn made(house: &House, maker: &Ctx, owner: &Ctx, n: u8) -> Result<Value, String> {
    let secret = format!("{n:064x}");
    let args = json!({"principal": owner.principal.id, "name": "test", "secret_sha256": secret});
    let made = house.act(maker, "access.key.create", args).await;
    made.map(|outcome| outcome["key"].clone()).map_err(|fault| fault.code)
}

async fn rotated(house: &House, who: &Ctx, key: &Value, n: u8) -> Result<(), String> {
    let args = json!({"key": key, "secret_sha256": format!("{n:064x}")});
    house.act(who, "access.key.rotate", args).await.map(|_| ()).map_err(|fault| fault.code)
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
    let chief = house.of_platform("admin").await;
    for (name, role) in [("root", "platform_admin"), ("local", "tenant_admin")] {
        let args = json!({"name": name, "kind": "person", "roles": [role]});
        house.act(&chief, "access.principal.create", args).await.unwrap();
    }
    // An administrator of the platform's tenant, and of nothing else.
    let (local, root) = (house.of_platform("local").await, house.of_platform("root").await);
    assert_eq!(made(&house, &local, &root, 1).await, Err("access.escalation".into()));
    let key = made(&house, &chief, &root, 2).await.unwrap();
    assert_eq!(revoked(&house, &local, &key).await, Err("access.escalation".into()));
    assert_eq!(rotated(&house, &local, &key, 3).await, Err("access.escalation".into()));
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

#[tokio::test]
async fn a_key_is_rotated_by_whoever_could_make_it() {
    let house = House::new(43).await;
    let (ann, bob, joe) = (house.person("ann").await, house.person("bob").await, house.person("joe").await);
    let bobs = made(&house, &ann, &bob, 1).await.unwrap();
    for (what, who, expected) in [
        ("one's own, with an ordinary key", ordinary(bob.clone()), None),
        ("another's, with an ordinary key", ordinary(ann.clone()), Some("assurance.too_low")),
        ("another's, with a strong one", ann.clone(), None),
        ("an operator", joe, Some("access.role_missing")),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, (what, who, expected))| ((n, what), who, expected))
    {
        let secret = u8::try_from(what.0).unwrap() + 10;
        assert_eq!(rotated(&house, &who, &bobs, secret).await.err().as_deref(), expected, "{}", what.1);
    }
    assert_eq!(
        rotated(&house, &ann, &bobs, 12).await,
        Err("request.state".into()),
        "it has this secret already"
    );
    let rotate = |overlap_ms: i64| json!({"key": bobs, "secret_sha256": format!("{:064x}", 99), "overlap_ms": overlap_ms});
    for overlap_ms in [-1, 604_800_001, i64::MAX, i64::MIN] {
        let fault = house.act(&ann, "access.key.rotate", rotate(overlap_ms)).await.unwrap_err();
        assert_eq!(fault.code, "request.invalid", "{overlap_ms}");
    }
    assert_eq!(revoked(&house, &ann, &bobs).await, Ok(()));
    assert_eq!(
        rotated(&house, &ann, &bobs, 20).await,
        Err("request.state".into()),
        "what is revoked stays so"
    );
}

#[tokio::test]
async fn the_platforms_root_of_assurance_is_rotated_and_never_revoked() {
    let house = House::new(44).await;
    let admin = house.of_platform("admin").await;
    let keys = house.read_in(&kernel::TenantId::platform(), &admin, "key_list", &[]).await.unwrap();
    let root = keys["items"][0]["id"].clone();
    assert_eq!(revoked(&house, &admin, &root).await, Err("access.last_key".into()));
    // Nor does whoever holds it lose the role, although there is a second administrator.
    let args = json!({"name": "second", "kind": "person", "roles": ["platform_admin"]});
    house.act(&admin, "access.principal.create", args).await.unwrap();
    let second = house.of_platform("second").await;
    let binding = json!({"binding": admin.principal.id.as_str().replace("prn_", "bnd_") + ".1"});
    let fault = house.act(&second, "access.binding.remove", binding).await.unwrap_err();
    assert_eq!(fault.code, "access.last_key");
    let fault =
        house.act(&second, "access.principal.suspend", json!({"principal": admin.principal.id})).await;
    assert_eq!(fault.unwrap_err().code, "access.last_key");
    // What was lent from it does not replace it.
    let mut lent = admin.clone();
    lent.assurance.until_ms = Some(lent.assurance.at_ms + 1);
    assert_eq!(rotated(&house, &lent, &root, 7).await, Err("access.assurance_exceeded".into()));
    assert_eq!(rotated(&house, &admin, &root, 7).await, Ok(()));
}

#[tokio::test]
async fn a_key_is_good_for_what_it_is_limited_to() {
    let house = House::new(45).await;
    let ann = house.person("ann").await;
    house.project("desk").await;
    let mut limited = ann.clone();
    limited.principal.rights.key.acts = Some(vec!["access.key.*".into(), "access.principal.create".into()]);
    let create = |name: &str, roles: &[&str]| json!({"name": name, "kind": "person", "roles": roles});
    house.policy("package writ\n");
    for (what, who, act, args, expected) in [
        ("within it", &limited, "access.principal.create", create("plain", &[]), None),
        (
            "outside it",
            &limited,
            "access.workspace.create",
            json!({"name": "x", "environment": "staging"}),
            Some("access.key_scope"),
        ),
        // What the key cannot do, it does not give to anybody either.
        (
            "by a role",
            &limited,
            "access.principal.create",
            create("more", &["operator"]),
            Some("access.escalation"),
        ),
    ] {
        let done = house.act(who, act, args).await;
        assert_eq!(done.err().map(|fault| fault.code).as_deref(), expected, "{what}");
    }
    let key = |n: u8, more: Value| {
        let mut args =
            json!({"principal": ann.principal.id, "name": "k", "secret_sha256": format!("{n:064x}")});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    let mut in_desk = ann.clone();
    in_desk.principal.rights.key.project = Some(kernel::Id::parse("prj_desk").unwrap());
    for (n, (what, who, more, expected)) in [
        ("all of one's own", &ann, json!({}), None),
        ("a part", &ann, json!({"acts": ["flows.run.*", "access.key.read"]}), None),
        ("in a project", &ann, json!({"project": "desk"}), None),
        ("in one that is not there", &ann, json!({"project": "attic"}), Some("access.project_unknown")),
        ("what there is not", &ann, json!({"acts": ["flows.rum.*"]}), Some("access.act_unknown")),
        (
            "what its owner may not",
            &ann,
            json!({"acts": ["access.tenant.create"]}),
            Some("access.act_unknown"),
        ),
        ("no pattern", &ann, json!({"acts": ["flows.*"]}), Some("request.invalid")),
        ("nothing", &ann, json!({"acts": []}), Some("request.invalid")),
        ("more than the key that makes it", &limited, json!({}), Some("access.escalation")),
        ("other acts than that", &limited, json!({"acts": ["flows.run.*"]}), Some("access.escalation")),
        ("fewer acts than that", &limited, json!({"acts": ["access.key.*"]}), None),
        (
            "a key of a project makes none, which are the tenant's",
            &in_desk,
            json!({"project": "desk"}),
            Some("access.key_scope"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let done = house.act(who, "access.key.create", key(u8::try_from(n).unwrap(), more)).await;
        assert_eq!(done.err().map(|fault| fault.code).as_deref(), expected, "{what}");
    }
}

/// How keys are looked up.
#[derive(Clone, Default)]
struct Reads(Arc<Mutex<Vec<&'static str>>>);

impl Hook for Reads {
    fn read<'a, T: Send + 'a>(
        &'a self,
        way: &'static str,
        answer: Pending<'a, Result<T, ReadError>>,
    ) -> Pending<'a, Result<T, ReadError>> {
        self.0.lock().unwrap().push(way);
        answer
    }
}

/// The time that a refusal takes tells nobody whether the key exists, because the way there is the same: one search, one
/// hash, one comparison.
#[tokio::test]
async fn a19_a_wrong_secret_of_a_key_and_no_key_at_all_take_the_same_way() {
    let house = House::new(44).await;
    let (ann, secret) = (house.person("ann").await, "s".repeat(32));
    let args = json!({
        "principal": ann.principal.id, "name": "test", "secret_sha256": hex::encode(&sha256(secret.as_bytes())),
    });
    let key = house.act(&ann, "access.key.create", args).await.unwrap()["key"].as_str().unwrap().to_owned();
    let reads = Reads::default();
    let store = Store::new(Around::new(house.harness.store().clone(), reads.clone()));
    let mut ways = Vec::new();
    for text in [
        format!("{key}.{}", "f".repeat(32)),
        format!("key_nobody.{}", "f".repeat(32)),
        format!("key_nobody.{secret}"),
        format!("{key}0.{secret}"),
    ] {
        let refused = authenticate(&store, &text, None, house.clock_ms()).await.unwrap_err().to_string();
        ways.push((refused, std::mem::take(&mut *reads.0.lock().unwrap())));
    }
    assert_eq!(ways[0].1, ["record_unique_anywhere"]);
    assert!(ways.iter().all(|way| *way == ways[0]), "{ways:?}");
    // What is searched for more than that comes after the secret.
    authenticate(&store, &format!("{key}.{secret}"), None, house.clock_ms()).await.unwrap();
    assert!(reads.0.lock().unwrap().len() > 1);
}
