//! Bundles from outside: what opens, and everything that must not.

use crate::support::*;
use governor::policy::bundle::{BundleError, bundle_build, bundle_open, bundle_sign, rollback_check};
use governor::policy::{Files, Metadata, Seen, publish_check};
use serde_json::{Value, json};

const REGO: &str = "package writ\n\ndefault verdict := {\"effect\": \"DENY\"}\n";
const DATA: &str = r#"{"writ": {"config": {"b": [1, 1.0, true], "a": "é<&"}}}"#;

fn sources() -> Files {
    files(&[("a.rego", REGO), ("data.json", DATA)])
}

fn good() -> Vec<u8> {
    signed(&manifest(), &sources())
}

fn refusal(bytes: &[u8]) -> &'static str {
    bundle_open(bytes, &ring(), SCOPE).map(|_| ()).unwrap_err().code()
}

#[test]
fn what_is_built_and_signed_opens() {
    let bytes = good();
    assert_eq!(bytes, good(), "the same sources and key are the same bytes");
    let bundle = bundle_open(&bytes, &ring(), SCOPE).unwrap();
    assert_eq!((bundle.manifest.clone(), bundle.files.clone()), (manifest(), sources()));
    assert_eq!((bundle.scope.as_str(), bundle.keyid.as_str()), (SCOPE, "k1"));
    assert_eq!(bundle.digest, kernel::sha256(&bytes));
    assert_eq!((bundle.seq(), bundle.not_after_ms()), (7, NOW_MS + 1_000));
}

#[test]
fn structured_files_are_hashed_by_their_walk() {
    let (_, payload) = signature_of(&unpack(&good()));
    let hash_of = |name: &str| {
        let file = payload["files"].as_array().unwrap().iter().find(|file| file["name"] == name).unwrap();
        (file["hash"].as_str().unwrap().to_owned(), file["algorithm"].as_str().unwrap().to_owned())
    };
    // Computed independently: `sha256sum` over the walk, and over the file.
    let walk = r#"{"writ":{"config":{"a":"é<&","b":[1,1.0,true]}}}"#;
    assert_eq!(hash_of("data.json").0, "64b4363c3415505e6b55de0a2066c6d9eec222a11a61852886461541ec6d62c7");
    assert_eq!(hash_of("data.json").0, kernel::hex::encode(&kernel::sha256(walk.as_bytes())));
    assert_eq!(
        hash_of("a.rego"),
        ("5b30cb3b11c8b01fbfa0cf2438213235fe17d15d9bb36b63d3a893768d9a4474".to_owned(), "SHA-256".to_owned())
    );
    // White space is no change of a document, and is one of a module.
    let mut files = unpack(&good());
    files.insert("data.json".into(), DATA.replace(' ', "\n").into_bytes());
    assert!(bundle_open(&archive(&files), &ring(), SCOPE).is_ok());
    files.insert("a.rego".into(), format!("{REGO}\n").into_bytes());
    assert_eq!(refusal(&archive(&files)), "policy.bundle_files");
}

#[test]
fn the_signed_set_and_the_files_are_equal() {
    type Change = fn(&mut Files);
    let changes: [(&str, Change, &str); 12] = [
        ("a changed rule", |files| files.get_mut("a.rego").unwrap()[0] ^= 1, "policy.bundle_files"),
        (
            "changed data",
            |files| *files.get_mut("data.json").unwrap() = br#"{"writ":{}}"#.to_vec(),
            "policy.bundle_files",
        ),
        (
            "a number in another spelling",
            |files| *files.get_mut("data.json").unwrap() = DATA.replace("1.0", "1.00").into(),
            "policy.bundle_files",
        ),
        (
            "a changed manifest",
            |files| {
                *files.get_mut(".manifest").unwrap() = serde_json::to_vec(&{
                    let mut m = manifest();
                    m.metadata.seq = 8;
                    m
                })
                .unwrap()
            },
            "policy.bundle_files",
        ),
        ("a missing rule", |files| _ = files.remove("a.rego"), "policy.bundle_files"),
        ("missing data", |files| _ = files.remove("data.json"), "policy.bundle_files"),
        ("a missing manifest", |files| _ = files.remove(".manifest"), "policy.bundle_files"),
        (
            "an added rule",
            |files| _ = files.insert("b.rego".into(), b"package writ\n".to_vec()),
            "policy.bundle_files",
        ),
        (
            "an added file of another kind",
            |files| _ = files.insert("README".into(), b"x".to_vec()),
            "policy.bundle_files",
        ),
        (
            "a rule under another name",
            |files| {
                let rule = files.remove("a.rego").unwrap();
                files.insert("b.rego".into(), rule);
            },
            "policy.bundle_files",
        ),
        (
            "data that is not JSON",
            |files| *files.get_mut("data.json").unwrap() = b"{".to_vec(),
            "policy.bundle_malformed",
        ),
        (
            "data with a key twice",
            |files| *files.get_mut("data.json").unwrap() = br#"{"writ":1,"writ":2}"#.to_vec(),
            "policy.bundle_malformed",
        ),
    ];
    for (what, change, code) in changes {
        let mut files = unpack(&good());
        change(&mut files);
        assert_eq!(refusal(&archive(&files)), code, "{what}");
    }
    assert!(bundle_open(&archive(&unpack(&good())), &ring(), SCOPE).is_ok(), "unchanged, it opens");
}

#[test]
fn only_a_trusted_key_in_its_own_scope_signs() {
    let base = unpack(&good());
    let (header, payload) = signature_of(&base);
    let with = |tokens: Value| {
        let mut files = base.clone();
        files.insert(".signatures.json".into(), json!({ "signatures": tokens }).to_string().into_bytes());
        archive(&files)
    };
    let token = jws(&header, &payload, 1);
    assert!(bundle_open(&with(json!([token])), &ring(), SCOPE).is_ok(), "the same by hand opens");

    let head = |change: Value| {
        let mut header = header.clone();
        header.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        jws(&header, &payload, 1)
    };
    let body = |pointer: &str, value: Value| {
        let mut payload = payload.clone();
        *payload.pointer_mut(pointer).unwrap() = value;
        jws(&header, &payload, 1)
    };
    let without_signature = |alg: &str| {
        format!(
            "{}.{}.",
            URL.encode(json!({"alg": alg, "kid": "k1"}).to_string()),
            URL.encode(payload.to_string())
        )
    };
    // RFC 7515's HS256 with the public key as the secret: the attack that an algorithm taken from the header allows.
    let confused = {
        use base64::Engine as _;
        let signed =
            format!("{}.{}", URL.encode(r#"{"alg":"HS256","kid":"k1"}"#), URL.encode(payload.to_string()));
        let tag =
            kernel::sha256(&[key(1).verifying_key().to_sec1_bytes().as_ref(), signed.as_bytes()].concat());
        format!("{signed}.{}", URL.encode(tag))
    };
    use base64::Engine as _;
    let twice = {
        let mut files = payload["files"].as_array().unwrap().clone();
        files.push(files[0].clone());
        body("/files", json!(files))
    };
    let (signed_part, signature) = token.rsplit_once('.').unwrap();
    let mut flipped = URL.decode(signature).unwrap();
    flipped[40] ^= 1;
    for (what, tokens, code) in [
        ("no signature", json!([]), "policy.bundle_signature"),
        ("two signatures", json!([token, token]), "policy.bundle_signature"),
        (
            "one good and one of another key",
            json!([token, jws(&header, &payload, 9)]),
            "policy.bundle_signature",
        ),
        ("a signature that is no text", json!([7]), "policy.bundle_malformed"),
        ("alg none", json!([without_signature("none")]), "policy.bundle_signature"),
        ("alg nOnE", json!([without_signature("nOnE")]), "policy.bundle_signature"),
        ("alg ES256 without a signature", json!([without_signature("ES256")]), "policy.bundle_signature"),
        ("HS256 under the public key", json!([confused]), "policy.bundle_signature"),
        ("ES256 that says RS256", json!([head(json!({"alg": "RS256"}))]), "policy.bundle_signature"),
        ("a key in the header", json!([head(json!({"jwk": {"kty": "EC"}}))]), "policy.bundle_signature"),
        (
            "an address of a key in the header",
            json!([head(json!({"jku": "https://keys.example"}))]),
            "policy.bundle_signature",
        ),
        (
            "a critical extension",
            json!([head(json!({"crit": ["b64"], "b64": false}))]),
            "policy.bundle_signature",
        ),
        ("an unknown key", json!([head(json!({"kid": "k9"}))]), "policy.bundle_signature"),
        ("a key that is a path", json!([head(json!({"kid": "../../dev/null"}))]), "policy.bundle_signature"),
        ("no key", json!([jws(&json!({"alg": "ES256"}), &payload, 1)]), "policy.bundle_signature"),
        ("another key's signature", json!([jws(&header, &payload, 2)]), "policy.bundle_signature"),
        (
            "a flipped bit",
            json!([format!("{signed_part}.{}", URL.encode(flipped))]),
            "policy.bundle_signature",
        ),
        ("two parts", json!([signed_part]), "policy.bundle_signature"),
        ("four parts", json!([format!("{token}.e30")]), "policy.bundle_signature"),
        ("padding", json!([format!("{token}=")]), "policy.bundle_signature"),
        ("a huge token", json!(["a".repeat(40_000)]), "policy.bundle_signature"),
        ("another scope", json!([body("/scope", json!("ten_other"))]), "policy.bundle_signature"),
        ("the platform's scope", json!([body("/scope", json!("platform"))]), "policy.bundle_signature"),
        ("an empty scope", json!([body("/scope", json!(""))]), "policy.bundle_signature"),
        ("another key id in the payload", json!([body("/keyid", json!("k2"))]), "policy.bundle_signature"),
        ("MD5", json!([body("/files/0/algorithm", json!("MD5"))]), "policy.bundle_signature"),
        ("SHA-1", json!([body("/files/0/algorithm", json!("SHA-1"))]), "policy.bundle_signature"),
        ("a file twice", json!([twice]), "policy.bundle_files"),
        (
            "a hash in upper case",
            json!([body(
                "/files/0/hash",
                json!(payload["files"][0]["hash"].as_str().unwrap().to_uppercase())
            )]),
            "policy.bundle_files",
        ),
        ("a payload that is a list", json!([jws(&header, &json!([]), 1)]), "policy.bundle_malformed"),
    ] {
        assert_eq!(refusal(&with(tokens)), code, "{what}");
    }

    let mut plugin = base.clone();
    plugin.insert(
        ".signatures.json".into(),
        json!({"signatures": [token], "plugin": "mine"}).to_string().into_bytes(),
    );
    assert_eq!(refusal(&archive(&plugin)), "policy.bundle_malformed");
    assert_eq!(
        refusal(&bundle_build(&manifest(), &sources()).unwrap()),
        "policy.bundle_signature",
        "unsigned"
    );
    // A tenant's key signs for the platform, properly in every other way.
    let unsigned = bundle_build(&manifest(), &sources()).unwrap();
    let foreign = bundle_sign(&unsigned, "k1", "platform", &key(1)).unwrap();
    assert_eq!(bundle_open(&foreign, &ring(), "platform").unwrap_err().code(), "policy.bundle_signature");
    assert_eq!(bundle_open(&good(), &ring(), "platform").unwrap_err().code(), "policy.bundle_signature");
    assert!(bundle_sign(&good(), "k1", SCOPE, &key(1)).is_err(), "signed already");
}

#[test]
fn the_manifest_and_the_files_keep_to_the_format() {
    let base = serde_json::to_value(manifest()).unwrap();
    let manifest_with = |pointer: &str, value: Value| {
        let mut manifest = base.clone();
        match pointer.rsplit_once('/') {
            Some((parent, key)) => {
                _ = manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.into(), value)
            }
            None => manifest = value,
        }
        manifest.to_string()
    };
    let long = "a".repeat(200);
    let nested = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    for (what, name, content) in [
        ("no roots", ".manifest", manifest_with("/roots", json!([]))),
        ("the root of everything", ".manifest", manifest_with("/roots", json!([""]))),
        ("system", ".manifest", manifest_with("/roots", json!(["writ", "system/authz"]))),
        ("roots that overlap", ".manifest", manifest_with("/roots", json!(["writ", "writ/a"]))),
        ("a root twice", ".manifest", manifest_with("/roots", json!(["writ", "writ"]))),
        ("a root with dots", ".manifest", manifest_with("/roots", json!(["writ/../a"]))),
        ("a root in upper case", ".manifest", manifest_with("/roots", json!(["Writ"]))),
        ("Rego v0", ".manifest", manifest_with("/rego_version", json!(0))),
        ("no revision", ".manifest", manifest_with("/revision", json!(""))),
        ("a long revision", ".manifest", manifest_with("/revision", json!(long))),
        ("a revision with a line break", ".manifest", manifest_with("/revision", json!("a\nb"))),
        ("a negative sequence number", ".manifest", manifest_with("/metadata/seq", json!(-1))),
        ("a sequence number that is a text", ".manifest", manifest_with("/metadata/seq", json!("7"))),
        ("an unknown statement about age", ".manifest", manifest_with("/metadata/ttl", json!(1))),
        ("WebAssembly", ".manifest", manifest_with("/wasm", json!([]))),
        ("a manifest that is a list", ".manifest", "[]".into()),
        ("a deep manifest", ".manifest", nested.clone()),
        ("deep data", "data.json", format!(r#"{{"writ":{nested}}}"#)),
        ("data outside the roots", "data.json", r#"{"writ":{},"other":1}"#.into()),
        ("data that is a list", "data.json", "[]".into()),
        ("data that is no JSON", "data.json", "{".into()),
        ("a number of a million digits", "data.json", r#"{"writ":{"a":1e1000000}}"#.into()),
        ("a delta bundle", "patch.json", r#"{"data":[]}"#.into()),
        ("data in a folder", "other/data.json", r#"{"a":1}"#.into()),
        ("YAML data", "data.yaml", "a: 1".into()),
        ("a program", "policy.wasm", "\0asm".into()),
    ] {
        let mut files = sources();
        files.insert(".manifest".into(), base.to_string().into_bytes());
        files.insert(name.into(), content.into_bytes());
        let unsigned = archive(&files);
        let refused = bundle_sign(&unsigned, "k1", SCOPE, &key(1)).map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), "policy.bundle_malformed", "{what}");
    }
    assert_eq!(
        bundle_build(&manifest(), &Files::new()).unwrap_err().code(),
        "policy.bundle_malformed",
        "no rules"
    );
}

#[test]
fn a_bundle_is_not_older_than_the_last() {
    let with = |seq: u64, text: &str| {
        let metadata = Metadata { seq, ..manifest().metadata };
        let manifest = governor::policy::Manifest { metadata, ..manifest() };
        bundle_open(&signed(&manifest, &files(&[("a.rego", text)])), &ring(), SCOPE).unwrap()
    };
    let last = with(7, REGO).seen();
    let other = format!("{REGO}# changed\n");
    for (what, bundle, ok) in [
        ("later", with(8, &other), true),
        ("the same again", with(7, REGO), true),
        ("another of the same number", with(7, &other), false),
        ("earlier", with(6, REGO), false),
    ] {
        assert_eq!(rollback_check(Some(&last), &bundle).is_ok(), ok, "{what}");
        assert_eq!(rollback_check(None, &bundle), Ok(()));
    }
    assert_eq!(rollback_check(Some(&last), &with(6, REGO)), Err(BundleError::Rollback { seq: 6, last: 7 }));
}

#[test]
fn publishing_judges_age() {
    let publish = |last: Option<&Seen>, now_ms| {
        publish_check(&good(), &ring(), SCOPE, last, now_ms).map(|_| ()).map_err(|problems| problems[0].code)
    };
    assert_eq!(publish(None, NOW_MS), Ok(()));
    assert_eq!(publish(None, NOW_MS + 1_000), Err("policy.bundle_expired"));
    assert_eq!(publish(Some(&Seen { seq: 8, digest: [0; 32] }), NOW_MS), Err("policy.bundle_rollback"));
    let mut later = manifest();
    later.metadata.min_engine = governor::policy::ENGINE + 1;
    assert_eq!(refusal(&signed(&later, &sources())), "policy.bundle_engine");
}

#[test]
fn what_is_cut_or_flipped_is_an_answer_not_a_panic() {
    let good = good();
    for at in 0..good.len() {
        assert!(bundle_open(&good[..at], &ring(), SCOPE).is_err(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        // Some bytes of a gzip header carry no meaning; what opens is what was signed.
        if let Ok(bundle) = bundle_open(&bad, &ring(), SCOPE) {
            assert_eq!(bundle.files, sources(), "flipped at {at}");
        }
    }
}
