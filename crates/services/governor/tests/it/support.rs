//! Keys, bundles and inputs for the tests of this binary.

use base64::Engine as _;
pub use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use flate2::read::GzDecoder;
use flate2::{Compression, write::GzEncoder};
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::{
    Bundle, Compiled, Files, KeyRecord, KeyRing, Manifest, Metadata, PolicyInput, Problem,
};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
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
            let record = KeyRecord {
                scope: scope.into(),
                algorithm: Algorithm::Es256,
                key: *key(seed).verifying_key(),
            };
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
    compiled_with_bundle(rego).1
}

pub fn compiled_with_bundle(rego: &str) -> (Bundle, Result<Compiled, Vec<Problem>>) {
    let bundle = bundle(rego);
    let compiled = Compiled::new(&bundle).map_err(|error| error.problems);
    (bundle, compiled)
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

/// An archive of any files at all, made without the product's checks.
pub fn archive(files: &Files) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000600\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar).unwrap();
    gzip.finish().unwrap()
}

/// The files of an archive, `.manifest` and `.signatures.json` among them.
pub fn unpack(bytes: &[u8]) -> Files {
    let mut tar = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    let mut files = Files::new();
    let mut rest = &tar[..];
    while rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            String::from_utf8(rest[range].iter().copied().take_while(|byte| *byte != 0).collect()).unwrap()
        };
        let size = usize::from_str_radix(&text(124..135), 8).unwrap();
        files.insert(text(0..100), rest[512..512 + size].to_vec());
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    files
}

/// A compact JWS of any header and payload, signed with key `seed`.
pub fn jws(header: &Value, payload: &Value, seed: u8) -> String {
    let signed = format!("{}.{}", URL.encode(header.to_string()), URL.encode(payload.to_string()));
    let signature: Signature = key(seed).sign(signed.as_bytes());
    format!("{signed}.{}", URL.encode(signature.to_bytes()))
}

/// Header and payload of the signature of a bundle.
pub fn signature_of(files: &Files) -> (Value, Value) {
    let signatures: Value = serde_json::from_slice(&files[".signatures.json"]).unwrap();
    let token = signatures["signatures"][0].as_str().unwrap();
    let mut parts = token.split('.').map(|part| serde_json::from_slice(&URL.decode(part).unwrap()).ok());
    (parts.next().flatten().unwrap(), parts.next().flatten().unwrap())
}
