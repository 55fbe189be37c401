//! Keys, bundles and inputs for the tests of this binary.

use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::{Bundle, Compiled, Files, KeyRecord, KeyRing, Manifest, Metadata, PolicyInput, Problem};
use p256::ecdsa::SigningKey;
use serde_json::{Value, json};
use std::path::PathBuf;

pub const NOW_MS: i64 = 1_800_000_000_000;
pub const SCOPE: &str = "ten_acme";

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// Trusts key 1 as `k1` for the tenant, and key 2 as `k2` for the platform.
pub fn ring() -> KeyRing {
    [("k1", 1, SCOPE), ("k2", 2, "platform")]
        .map(|(keyid, seed, scope)| {
            let record =
                KeyRecord { scope: scope.into(), algorithm: Algorithm::Es256, key: *key(seed).verifying_key() };
            (keyid.to_owned(), record)
        })
        .into()
}

pub fn manifest() -> Manifest {
    let metadata = Metadata { seq: 7, not_after_ms: NOW_MS + 1_000, min_engine: 1 };
    Manifest { revision: "test".into(), roots: vec!["writ".into()], rego_version: 1, metadata }
}

pub fn files(texts: &[(&str, &str)]) -> Files {
    texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

pub fn signed(manifest: &Manifest, files: &Files) -> Vec<u8> {
    bundle_sign(&bundle_build(manifest, files).unwrap(), "k1", SCOPE, &key(1)).unwrap()
}

/// A verified bundle of one module, with data that other rules may look up.
pub fn bundle(rego: &str) -> Bundle {
    let files = files(&[("a.rego", rego), ("data.json", r#"{"writ":{"config":{"a":[1,2,3]}}}"#)]);
    bundle_open(&signed(&manifest(), &files), &ring(), SCOPE).unwrap()
}

pub fn compiled(rego: &str) -> Result<Compiled, Vec<Problem>> {
    Compiled::new(&bundle(rego)).map_err(|error| error.problems)
}

/// An ordinary act; `change` is merged over it, objects member by member.
pub fn input(change: Value) -> PolicyInput {
    fn merge(base: &mut Value, change: Value) {
        match (base, change) {
            (Value::Object(base), Value::Object(change)) => {
                for (key, value) in change {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, change) => *base = change,
        }
    }
    let mut document = json!({
        "version": 1,
        "principal": {"id": "pri_ann", "kind": "person", "roles": ["operator"], "tenant": "ten_acme"},
        "action": "flows.run.start",
        "resource": {"kind": "workflow", "id": "wfl_a", "attributes": {}},
        "args": {},
        "context": {
            "environment": "test",
            "assurance": {"level": 0, "method": "api_key", "proven_at_ms": NOW_MS},
            "approved": false,
            "approvals": [],
        },
        "now_ms": NOW_MS,
    });
    merge(&mut document, change);
    serde_json::from_value(document).unwrap()
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// The sources of a policy in `contracts/policies`, read from the tree.
pub fn sources(path: &str) -> (Manifest, Files) {
    let folder = root().join("contracts/policies").join(path);
    let manifest = serde_json::from_slice(&std::fs::read(folder.join(".manifest")).unwrap()).unwrap();
    let files = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".rego") || name == "data.json")
        .map(|name| (name.clone(), std::fs::read(folder.join(&name)).unwrap()))
        .collect();
    (manifest, files)
}
