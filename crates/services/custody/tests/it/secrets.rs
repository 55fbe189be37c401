//! Secrets through their verbs.

use crate::house::{House, id, tenant};
use custody::{CredentialRef, CustodyError};
use kernel::hex;
use serde_json::{Value, json};
use std::path::Path;

const CANARY: &str = "CANARY-hunter2-7f3a";

fn reference(text: &str) -> CredentialRef {
    CredentialRef::parse(text).unwrap()
}

async fn opened(house: &House, name: &str, text: &str) -> Result<String, &'static str> {
    match house.custody.open(&house.store, &tenant(name), &reference(text)).await {
        Ok(secret) => Ok(secret.expose_text().unwrap().to_owned()),
        Err(CustodyError::Missing) => Err("missing"),
        Err(CustodyError::Revoked) => Err("revoked"),
        Err(CustodyError::Damaged) => Err("damaged"),
        Err(CustodyError::Read(error)) => panic!("{error}"),
    }
}

fn put(name: &str, value: &str) -> Value {
    json!({"name": name, "purpose": "tickets", "value": value})
}

#[tokio::test]
async fn a_secret_lives_from_put_to_revoke() {
    let house = House::new().await;
    let now = "secret:snow";
    assert_eq!(opened(&house, "ten_a", now).await, Err("missing"));
    let outcome = house.act("ten_a", "custody.secret.put", put("snow", "one")).await.unwrap();
    assert_eq!(outcome, json!({"secret": "sec_snow", "credential": now, "version": 1}));
    assert_eq!(opened(&house, "ten_a", now).await.as_deref(), Ok("one"));
    assert_eq!(opened(&house, "ten_b", now).await, Err("missing"), "another tenant's is absent");

    house.act("ten_a", "custody.secret.put", put("snow", "two")).await.unwrap();
    assert_eq!(opened(&house, "ten_a", now).await.as_deref(), Ok("two"));

    house.act("ten_a", "custody.secret.revoke", json!({"name": "snow"})).await.unwrap();
    assert_eq!(opened(&house, "ten_a", now).await, Err("revoked"));
    let again = house.act("ten_a", "custody.secret.revoke", json!({"name": "snow"})).await.unwrap_err();
    assert_eq!(again.code, "custody.secret_revoked");
    let shown = house.query("ten_a", "secret_show", &[("name", "snow")]).await.unwrap();
    assert_eq!((&shown["version"], &shown["revoked_at_ms"]), (&json!(2), &json!(7)));

    house.act("ten_a", "custody.secret.put", put("snow", "three")).await.unwrap();
    assert_eq!(opened(&house, "ten_a", now).await.as_deref(), Ok("three"));

    let stream = house.store.stream(&tenant("ten_a"), &id("sec_snow"), 1, 100).await.unwrap();
    let kinds: Vec<String> =
        stream.iter().map(|row| kernel::fact::read(&row.leaf).unwrap().kind.into_owned()).collect();
    assert_eq!(
        kinds,
        ["custody.secret.stored", "custody.secret.stored", "custody.secret.revoked", "custody.secret.stored"]
    );
}

#[tokio::test]
async fn the_version_before_opens_for_a_bounded_time_or_until_it_is_retired() {
    let house = House::new().await;
    let reference = CredentialRef::parse("secret:snow").unwrap();
    // Acts are carried out at 7.
    let opened = async |now_ms| {
        let found =
            house.custody.open_versions(&house.store, &tenant("ten_a"), &reference, now_ms).await.ok()?;
        let before =
            found.previous.map(|(version, secret)| (version, secret.expose_text().unwrap().to_owned()));
        Some((found.version, found.secret.expose_text().unwrap().to_owned(), before))
    };
    let put = async |value: &str, overlap_ms: Option<i64>| {
        let mut args = put("snow", value);
        args["overlap_ms"] = json!(overlap_ms);
        house.act("ten_a", "custody.secret.put", args).await
    };
    let retire = async || house.act("ten_a", "custody.secret.retire", json!({"name": "snow"})).await;
    let one = |version, value: &str| Some((version, value.to_owned(), None));
    let two = |version, value: &str, before: &str| {
        Some((version, value.to_owned(), Some((version - 1, before.to_owned()))))
    };
    put("a", None).await.unwrap();
    assert_eq!(opened(7).await, one(1, "a"));
    assert_eq!(retire().await.unwrap_err().code, "request.state");
    put("b", None).await.unwrap();
    let until_ms = 7 + custody::credential::OVERLAP_MS;
    assert_eq!(opened(until_ms - 1).await, two(2, "b", "a"));
    assert_eq!(opened(until_ms).await, one(2, "b"));
    // Told to die, it dies at once.
    assert_eq!(retire().await.unwrap()["retired"], 1);
    assert_eq!(opened(7).await, one(2, "b"));
    // A value that others know has no overlap.
    put("c", Some(0)).await.unwrap();
    assert_eq!(opened(7).await, one(3, "c"));
    put("d", Some(60_000)).await.unwrap();
    put("e", Some(60_000)).await.unwrap();
    assert_eq!(opened(60_006).await, two(5, "e", "d"));
    assert_eq!(opened(60_007).await, one(5, "e"));
    for bad in [-1, custody::credential::OVERLAP_MS_MAX + 1] {
        assert_eq!(put("f", Some(bad)).await.unwrap_err().code, "custody.secret_invalid", "{bad}");
    }
    // Revoking takes both; the next version has none before it.
    house.act("ten_a", "custody.secret.revoke", json!({"name": "snow"})).await.unwrap();
    assert_eq!(opened(7).await, None);
    put("g", None).await.unwrap();
    assert_eq!(opened(7).await, one(6, "g"));
}

#[tokio::test]
async fn a_row_that_was_copied_or_rolled_back_does_not_open() {
    let house = House::new().await;
    for (owner, name, value) in [("ten_a", "x", "ax"), ("ten_a", "y", "ay"), ("ten_b", "x", "bx")] {
        house.act(owner, "custody.secret.put", put(name, value)).await.unwrap();
    }
    let older = document(&house, "ten_a", "sec_x").await;
    house.act("ten_a", "custody.secret.put", put("x", "newer")).await.unwrap();
    let newer = document(&house, "ten_a", "sec_x").await;
    for (what, owner, name, from) in [
        ("another tenant's", "ten_b", "sec_x", &older),
        ("another record's", "ten_a", "sec_y", &older),
        ("an older version's", "ten_a", "sec_x", &older),
        ("its own", "ten_a", "sec_x", &newer),
    ] {
        let mut doc = document(&house, owner, name).await;
        doc["sealed"] = from["sealed"].clone();
        house.forge(owner, &doc).await;
        let expected = if what == "its own" { Ok("newer".to_owned()) } else { Err("damaged") };
        assert_eq!(opened(&house, owner, &name.replace("sec_", "secret:")).await, expected, "{what}");
    }
}

async fn document(house: &House, owner: &str, name: &str) -> Value {
    let row = house.store.record(&tenant(owner), "custody.secret", &id(name)).await.unwrap().unwrap();
    serde_json::from_slice::<Value>(&row.body).unwrap()["doc"].clone()
}

#[tokio::test]
async fn h08_a_value_shows_up_nowhere() {
    let house = House::new().await;
    let mut seen = String::new();
    for args in [
        put("snow", CANARY),
        put("Bad Name", CANARY),
        json!({"name": "snow", "purpose": "p\n", "value": CANARY}),
        json!({"name": "snow", "purpose": "p", "value": CANARY, "extra": 1}),
        json!({"name": "snow", "purpose": "p", "value": [CANARY]}),
        json!({"name": "snow", "purpose": "p", "value": {CANARY: CANARY}}),
        json!({"name": "snow", "purpose": "p", "value": 7312_7312_7312i64}),
        json!({"name": "snow", "purpose": "p", "value": true}),
        json!({"name": "snow", "purpose": "p", "value": ""}),
        json!({"name": "snow", "purpose": "p", "value": CANARY.repeat(4000)}),
    ] {
        match house.act("ten_a", "custody.secret.put", args).await {
            Ok(outcome) => seen.push_str(&outcome.to_string()),
            Err(fault) => seen.push_str(&format!("{fault} {fault:?}")),
        }
    }
    seen.push_str(&house.query("ten_a", "secret_list", &[]).await.unwrap().to_string());
    seen.push_str(&house.query("ten_a", "secret_show", &[("name", "snow")]).await.unwrap().to_string());
    for row in house.store.leaves(&tenant("ten_a"), 0, 100).await.unwrap() {
        seen.push_str(&String::from_utf8(row.leaf).unwrap());
    }
    for spelling in [CANARY, "731273127312", &hex::encode(CANARY.as_bytes()), "Q0FOQVJZ"] {
        assert!(!seen.contains(spelling), "{spelling} in {seen}");
    }
    assert!(seen.contains("\"version\":1"), "the one good put went through");
    drop(house.store);
    let mut scanned = 0;
    scan(house.folder.path(), &mut |path, bytes| {
        scanned += 1;
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{}", path.display());
    });
    assert!(scanned > 5, "the database and the keys were looked at");
}

fn scan(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { scan(&path, look) } else { look(&path, &std::fs::read(&path).unwrap()) }
    }
}

#[tokio::test]
async fn bad_arguments_change_nothing() {
    let house = House::new().await;
    let long = "a".repeat(61);
    for (args, code) in [
        (put("Snow", "v"), "custody.secret_invalid"),
        (put("", "v"), "custody.secret_invalid"),
        (put("../x", "v"), "custody.secret_invalid"),
        (put(".x", "v"), "custody.secret_invalid"),
        (put("x y", "v"), "custody.secret_invalid"),
        (put("x\u{200b}", "v"), "custody.secret_invalid"),
        (put(&long, "v"), "custody.secret_invalid"),
        (put("x", ""), "custody.secret_invalid"),
        (put("x", &"v".repeat(65_537)), "custody.secret_invalid"),
        (json!({"name": "x", "purpose": "p".repeat(201), "value": "v"}), "custody.secret_invalid"),
        (json!({"name": "x", "purpose": "p"}), "request.invalid"),
        (json!({"name": "x", "purpose": "p", "value": 1}), "request.invalid"),
        (json!({"name": "x", "purpose": "p", "value": "v", "version": 9}), "request.invalid"),
        (json!({"name": "x", "purpose": "p", "value": "v", "tenant": "ten_b"}), "request.invalid"),
    ] {
        let fault = house.act("ten_a", "custody.secret.put", args.clone()).await.unwrap_err();
        assert_eq!(fault.code, code, "{args}");
    }
    for args in [json!({"name": "x"}), json!({"name": "../x"}), json!({"name": ""})] {
        let fault = house.act("ten_a", "custody.secret.revoke", args.clone()).await.unwrap_err();
        assert_eq!(fault.code, "not_found", "{args}");
    }
    for name in ["x", "../x", ""] {
        let fault = house.query("ten_a", "secret_show", &[("name", name)]).await.unwrap_err();
        assert_eq!(fault.code, "not_found", "{name}");
    }
    assert_eq!(house.query("ten_a", "secret_list", &[]).await.unwrap(), json!({"items": [], "next": null}));
    assert_eq!(
        house.store.head(&tenant("ten_a")).await.unwrap().unwrap().size,
        1,
        "the genesis and nothing else"
    );
}

#[test]
fn references() {
    for (text, name) in [
        ("secret:snow", Some("snow")),
        ("secret:snow.prod-2", Some("snow.prod-2")),
        ("secret:", None),
        ("secret:Snow", None),
        ("secret:a/b", None),
        ("secret:../a", None),
        ("secret:a:b", None),
        ("secret: a", None),
        ("Secret:a", None),
        ("env:HOME", None),
        ("snow", None),
        ("", None),
    ] {
        let parsed = CredentialRef::parse(text);
        assert_eq!(parsed.as_ref().ok().map(CredentialRef::name), name, "{text}");
        if let Ok(parsed) = parsed {
            assert_eq!((parsed.to_string().as_str(), format!("{parsed:?}").as_str()), (text, text));
            assert_eq!(serde_json::from_value::<CredentialRef>(json!(text)).unwrap(), parsed);
        }
    }
}

#[tokio::test]
async fn the_table_points_nowhere_else() {
    let house = House::new().await;
    let domain = custody::domain(&house.custody);
    assert_eq!(domain.misfits(), Vec::<String>::new());
    let put = domain.verbs.iter().find(|verb| verb.act == "custody.secret.put").unwrap();
    assert_eq!(put.secret_args, ["value"]);
    assert_eq!((put.args)()["properties"]["value"]["type"], "string");
}
