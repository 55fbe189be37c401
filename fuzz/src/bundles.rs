//! Evidence bundles and trust files.

use crate::leaves::example;
use crate::{Taken, Target, of_kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use evidence::manifest::{self, MANIFEST, PAYLOAD_TYPE};
use evidence::{Parts, Signing, Trust, archive, verify};
use kernel::note::Checkpoint;
use kernel::{Digest, hex, json, merkle, sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use store::LeafRow;

const ORIGIN: &str = "writ.test/local/ten_a/1";
const SINCE_MS: i64 = 1_760_000_000_000;
/// Facts in the log, and which of them are shown.
const FACTS: u64 = 7;
const SHOWN: [u64; 3] = [0, 1, 2];

pub(crate) const BUNDLE: Target = Target {
    name: "bundle",
    run: bundle,
    seeds: bundle_seeds,
    words: &[
        "ustar\u{0}00",
        "0000644\0",
        "checkpoint",
        "facts.jsonl",
        "\"hidden\":",
        "\"ranges\":[[0,3]]",
        "[0,1],",
        "\"size\":7",
        "\"payload\":",
        "\"not_proven\":[]",
        "policy/",
        "\n",
        "null",
        "[]",
    ],
    runs: 8_000,
};

pub(crate) const TRUST: Target = Target {
    name: "trust",
    run: trust,
    seeds: || vec![GOOD.trust.to_json().into_bytes()],
    words: &[
        "\"until_ms\": ",
        "null",
        "\"epoch\": ",
        "[]",
        "{}",
        "\"quorum\": 1",
        "evk_",
        "+",
        "\"version\": 2",
        "writ.test",
    ],
    runs: 40_000,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

struct Good {
    trust: Trust,
    bytes: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
}

/// A small bundle: three facts of a log of seven, an earlier checkpoint, and nothing to disclose.
static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let leaves: Vec<Vec<u8>> = (0..FACTS).map(example).collect();
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
    let head = |size: u64| Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: merkle::root_of(&hashes[..size as usize]),
    };
    let signing = Signing {
        log_key: key(1).verifying_key(),
        evidence_key: key(2).verifying_key(),
        checkpoint: Arc::new(|checkpoint| checkpoint.sign(&key(1))),
        statement: Arc::new(|bytes| key(2).sign(bytes).to_bytes()),
        since_ms: SINCE_MS - 1,
    };
    let mut nodes = |level: u8, index: u64| {
        let width = 1usize << level;
        Ok::<_, Infallible>(merkle::root_of(&hashes[index as usize * width..][..width]))
    };
    let Ok(proof) = merkle::multi(FACTS, &SHOWN, &mut nodes);
    let Ok(consistency) = merkle::consistency(4, FACTS, &mut nodes);
    let signed = |size| (signing.checkpoint)(&head(size)).expect("the origin is a name");
    let parts = Parts {
        subject: "run_a".into(),
        created_at_ms: SINCE_MS + 1_000,
        checkpoint: head(FACTS),
        note: signed(FACTS),
        history: vec![(signed(4), consistency)],
        facts: SHOWN.iter().map(|n| LeafRow { index: *n, leaf: leaves[*n as usize].clone() }).collect(),
        streams: vec![manifest::Claim { last: 3, stream: "run_a".into() }],
        hashes: proof,
        disclosures: Vec::new(),
        policies: BTreeMap::new(),
        causes_absent: Vec::new(),
    };
    let bytes = evidence::assemble(&parts, &signing).expect("a small bundle").bytes;
    let files = archive::read(&bytes).expect("an archive of our own");
    let files = files.into_iter().map(|(name, content)| (name.to_owned(), content.to_vec())).collect();
    Good { trust: signing.trust("writ.test", &[ORIGIN.to_owned()]), bytes, files }
});

/// 0: an archive as it comes; 1: one file of the good bundle is another; 2: the same, by somebody who holds the evidence
/// key and signs it; 3: a statement that this somebody signs.
fn bundle(data: &[u8]) {
    let good = &*GOOD;
    let mut taken = Taken::of(data);
    let kind = taken.byte() % 4;
    if kind == 0 {
        let bytes = taken.rest();
        if let Ok(files) = archive::read(bytes) {
            let files =
                files.into_iter().map(|(name, content)| (name.to_owned(), content.to_vec())).collect();
            assert_eq!(archive::write(&files).as_deref(), Ok(bytes), "an archive has one spelling");
        }
        let valid = valid(bytes, None);
        assert!(!valid || bytes == good.bytes, "another archive than the one that was signed");
        return;
    }
    let mut files = good.files.clone();
    if kind == 3 {
        let Ok(statement) = serde_json::from_slice::<Value>(taken.rest()) else { return };
        sealed(&mut files, &statement);
        let _ = packed_valid(&files, None);
        return;
    }
    let names: Vec<&String> = good.files.keys().collect();
    let name = names[taken.below(names.len())].as_str();
    let content = taken.rest();
    let same = good.files[name] == content;
    files.insert(name.to_owned(), content.to_vec());
    if kind == 2 && name != MANIFEST {
        let statement = listing(&files);
        sealed(&mut files, &statement);
    }
    let valid = packed_valid(&files, std::str::from_utf8(content).ok().filter(|_| name == "checkpoint"));
    match (kind, name) {
        _ if same => assert!(valid, "the good bundle is refused"),
        // The envelope and the statement have one spelling each, and one signature.
        (1, _) | (_, MANIFEST) => assert!(!valid, "another {name} than the one that was signed"),
        // Who holds the evidence key chooses what to show; they cannot change the log, nor show it in another form.
        (_, "facts.jsonl" | "proof.json") => assert!(!valid, "another {name} is in the log"),
        _ => {}
    }
}

fn packed_valid(files: &BTreeMap<String, Vec<u8>>, held: Option<&str>) -> bool {
    archive::write(files).is_ok_and(|bytes| {
        let plain = valid(&bytes, None);
        let with_held = held.is_none_or(|held| valid(&bytes, Some(held)));
        assert!(plain || held.is_none() || !with_held, "a held checkpoint makes a bundle valid");
        plain
    })
}

fn valid(bytes: &[u8], held: Option<&str>) -> bool {
    verify(bytes, &GOOD.trust, held).failure.is_none()
}

/// The good statement over these files.
fn listing(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let envelope: Value = serde_json::from_slice(&GOOD.files[MANIFEST]).expect("an envelope");
    let payload = BASE64.decode(envelope["payload"].as_str().expect("a payload")).expect("base64");
    let mut statement: Value = serde_json::from_slice(&payload).expect("a statement");
    let listed = files.iter().filter(|(name, _)| *name != MANIFEST);
    statement["subject"] = listed
        .map(|(name, content)| json!({"name": name, "digest": {"sha256": hex::encode(&sha256(content))}}))
        .collect();
    statement
}

/// Signs a statement with the evidence key, as DSSE wants it.
fn sealed(files: &mut BTreeMap<String, Vec<u8>>, statement: &Value) {
    let Ok(payload) = json::canonical(statement) else { return };
    let mut signed = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    signed.extend_from_slice(&payload);
    let envelope = json!({
        "payload": BASE64.encode(&payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{
            "keyid": evidence::trust::key_id(&key(2).verifying_key()),
            "sig": BASE64.encode(key(2).sign(&signed).to_bytes()),
        }],
    });
    files.insert(MANIFEST.to_owned(), json::canonical(&envelope).expect("texts alone"));
}

fn bundle_seeds() -> Vec<Vec<u8>> {
    let good = &*GOOD;
    let mut seeds = vec![
        of_kind(0, &good.bytes),
        of_kind(3, &json::canonical(&listing(&good.files)).expect("texts and small numbers")),
    ];
    for (n, content) in good.files.values().enumerate() {
        for kind in [1, 2] {
            seeds.push([&[kind, 0, n as u8], content.as_slice()].concat());
        }
    }
    seeds
}

/// A trust file that is read is printed and read again, with the same fingerprint.
fn trust(data: &[u8]) {
    let Ok(trust) = Trust::parse(data) else { return };
    let again = Trust::parse(trust.to_json().as_bytes());
    assert_eq!(again.as_ref(), Ok(&trust));
    assert_eq!(again.map(|again| again.fingerprint()), Ok(trust.fingerprint()));
    let _ = verify(&GOOD.bytes, &trust, None);
}
