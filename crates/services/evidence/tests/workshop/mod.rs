//! Where good bundles are made, and bad ones: a log in memory, keys with known seeds, and the tools of a forger.
//!
//! The examples and the tests of this crate share it. The forger's tools write archives, envelopes and notes by themselves
//! and not with the crate's code, so that they can make what the crate would refuse to.

pub mod cases;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use evidence::manifest::{Claim, MANIFEST, WHOLE_LOG};
use evidence::{Parts, Signing, Trust, archive};
use kernel::fact::Place;
use kernel::note::Checkpoint;
use kernel::permit::{Authority, Decision};
use kernel::{Digest, Effect, Fact, Id, commitment, hex, merkle};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use store::LeafRow;

pub const ORIGIN: &str = "writ.test/local/ten_acme/1";
pub const START_MS: i64 = 1_760_000_000_000;
pub const CREATED_MS: i64 = START_MS + 3_600_000;

pub type Files = BTreeMap<String, Vec<u8>>;

pub fn id(text: &str) -> Id {
    Id::parse(text).expect("an id of this file")
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Signers with the log's key of one seed and the evidence key of another.
pub fn signing(log: u8, evidence: u8) -> Signing {
    let (log, evidence) = (key(log), key(evidence));
    Signing {
        log_key: log.verifying_key(),
        evidence_key: evidence.verifying_key(),
        checkpoint: Arc::new(move |checkpoint| checkpoint.sign(&log)),
        statement: Arc::new(move |bytes| evidence.sign(bytes).to_bytes()),
        since_ms: START_MS - 1_000,
    }
}

/// The installation's own signers.
pub fn ours() -> Signing {
    signing(1, 2)
}

pub fn trust() -> Trust {
    ours().trust("writ.test", &[ORIGIN.to_owned()])
}

/// How a fact differs from an ordinary one.
#[derive(Default)]
pub struct Says<'a> {
    pub kind: Option<&'static str>,
    pub causes: Vec<Id>,
    pub args: Option<Value>,
    pub policy: Option<String>,
    pub outcome: Option<Value>,
    /// Another id than the next one.
    pub id: Option<Id>,
    /// Another number than the stream's next one.
    pub stream_n: Option<u64>,
    /// Milliseconds beyond the expected time.
    pub late_ms: i64,
    pub origin: Option<&'a str>,
    /// Another leaf than the one made: a text in it, and what stands there instead.
    pub edit: Option<(&'a str, &'a str)>,
}

/// A log in memory, with the checkpoints that were signed of it.
#[derive(Clone)]
pub struct Log {
    pub origin: String,
    pub leaves: Vec<Vec<u8>>,
    pub hashes: Vec<Digest>,
    pub notes: Vec<(u64, String)>,
    pub disclosures: Vec<(String, Value)>,
    counts: HashMap<Id, u64>,
}

impl Log {
    pub fn new(origin: &str) -> Log {
        Log {
            origin: origin.to_owned(),
            leaves: vec![],
            hashes: vec![],
            notes: vec![],
            disclosures: vec![],
            counts: HashMap::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Appends a fact and returns its id.
    pub fn fact(&mut self, stream: &str, says: Says<'_>) -> Id {
        let index = self.leaves.len();
        let stream = id(stream);
        let count = self.counts.entry(stream.clone()).or_default();
        *count += 1;
        let fact_id = says.id.unwrap_or_else(|| id(&format!("fct_{index:06}")));
        let seed = kernel::sha256(fact_id.as_str().as_bytes());
        let args_commitment =
            says.args.as_ref().map(|args| commitment::commit(&seed, args).expect("canonical"));
        if let Some(args) = &says.args {
            let opened = commitment::disclose(&seed, args, |field| field != "caller").expect("canonical");
            self.disclosures.push((fact_id.to_string(), opened));
        }
        let fact = Fact {
            id: fact_id.clone(),
            kind: says.kind.unwrap_or("flows.step.finished"),
            resource: format!("local/ten_acme/flows.run/{stream}"),
            causes: says.causes,
            outcome: says.outcome.unwrap_or_else(|| json!({"step": index, "cost_micros": 7})),
            aside: None,
            stream,
        };
        let authority = Authority {
            actor: id("prn_0192f6c1a7b27d3e8a14c0ffee000001"),
            on_behalf_of: vec![id("prn_0192f6c1a7b27d3e8a14c0ffee000002")],
            act: "flows.step.finish".into(),
            decision: Some(Decision {
                id: id("dec_0192f6c1a7b27d3e8a14c0ffee000003"),
                effect: Effect::Allow,
            }),
            policy: says.policy,
            assurance: Some("key".into()),
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        };
        let place = Place {
            origin: says.origin.unwrap_or(&self.origin),
            stream_n: says.stream_n.unwrap_or(*count),
            at_ms: START_MS + index as i64 * 10 + says.late_ms,
        };
        let mut leaf = fact.leaf(place, &authority, args_commitment.as_ref()).expect("a leaf");
        if let Some((from, to)) = says.edit {
            let text = String::from_utf8(leaf).expect("UTF-8");
            assert!(text.contains(from), "a change that changes nothing shows nothing: {from}");
            leaf = text.replacen(from, to, 1).into_bytes();
        }
        self.hashes.push(merkle::leaf_hash(&leaf));
        self.leaves.push(leaf);
        fact_id
    }

    /// The head as a checkpoint.
    pub fn head(&self) -> Checkpoint {
        Checkpoint { origin: self.origin.clone(), size: self.size(), root: merkle::root_of(&self.hashes) }
    }

    /// Signs the head and keeps it.
    pub fn checkpoint(&mut self, signing: &Signing) -> String {
        let note = (signing.checkpoint)(&self.head()).expect("an origin of this file");
        self.notes.push((self.size(), note.clone()));
        note
    }

    fn nodes(&self) -> impl FnMut(u8, u64) -> Result<Digest, Infallible> {
        move |level, index| {
            let width = 1usize << level;
            Ok(merkle::root_of(&self.hashes[index as usize * width..][..width]))
        }
    }

    /// The parts of a bundle under the newest checkpoint, of the leaves that `take` takes.
    pub fn parts(&self, subject: &str, streams: &[&str], take: impl Fn(u64, &str) -> bool) -> Parts {
        let (size, note) = self.notes.last().expect("a checkpoint").clone();
        let rows = self.leaves.iter().take(size as usize).enumerate();
        let facts: Vec<LeafRow> = rows
            .map(|(index, leaf)| LeafRow { index: index as u64, leaf: leaf.clone() })
            .filter(|row| take(row.index, kernel::fact::read(&row.leaf).map_or("", |leaf| leaf.stream)))
            .collect();
        let indices: Vec<u64> = facts.iter().map(|row| row.index).collect();
        let history = self.notes.windows(2).map(|pair| {
            let Ok(proof) = merkle::consistency(pair[0].0, pair[1].0, &mut self.nodes());
            (pair[0].1.clone(), proof)
        });
        let Ok(hashes) = merkle::multi(size, &indices, &mut self.nodes());
        let ids = facts.iter().filter_map(|row| kernel::fact::read(&row.leaf)).map(|leaf| leaf.id);
        let here: HashSet<&str> = ids.collect();
        let disclosures =
            self.disclosures.iter().filter(|(fact, _)| here.contains(fact.as_str())).cloned().collect();
        Parts {
            subject: subject.to_owned(),
            created_at_ms: CREATED_MS,
            checkpoint: Checkpoint {
                size,
                root: merkle::root_of(&self.hashes[..size as usize]),
                ..self.head()
            },
            note,
            history: history.collect(),
            hashes,
            disclosures,
            policies: BTreeMap::new(),
            streams: streams
                .iter()
                .map(|stream| Claim { stream: (*stream).to_owned(), last: self.counts[&id(stream)] })
                .collect(),
            causes_absent: vec![],
            facts,
        }
    }

    /// The parts of a bundle of everything under the newest checkpoint.
    pub fn whole(&self) -> Parts {
        self.parts(WHOLE_LOG, &[], |_, _| true)
    }
}

/// The bytes of a bundle of `parts`, signed by us.
pub fn bundle(parts: &Parts) -> Vec<u8> {
    evidence::assemble(parts, &ours()).expect("small parts").bytes
}

/// A bundle's files.
pub fn files(bundle: &[u8]) -> Files {
    let files = archive::read(bundle).expect("a good archive");
    files.into_iter().map(|(name, content)| (name.to_owned(), content.to_vec())).collect()
}

/// The archive of files as they are, whatever the manifest says of them.
pub fn pack(files: &Files) -> Vec<u8> {
    archive::write(files).expect("names of this file")
}

/// The statement inside a bundle's manifest.
pub fn statement(files: &Files) -> Value {
    let envelope: Value = serde_json::from_slice(&files[MANIFEST]).expect("an envelope");
    let payload = BASE64.decode(envelope["payload"].as_str().expect("a payload")).expect("base64");
    serde_json::from_slice(&payload).expect("a statement")
}

/// The statement with its subjects made those of `files`.
pub fn listing(files: &Files) -> Value {
    let mut statement = statement(files);
    statement["subject"] = files
        .iter()
        .filter(|(name, _)| *name != MANIFEST)
        .map(|(name, content)| json!({"name": name, "digest": {"sha256": hex::encode(&kernel::sha256(content))}}))
        .collect();
    statement
}

/// An envelope around any payload.
pub fn envelope(payload: &[u8], kind: &str, signer: &SigningKey) -> Value {
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend_from_slice(payload);
    json!({
        "payload": BASE64.encode(payload),
        "payloadType": kind,
        "signatures": [{
            "keyid": evidence::trust::key_id(&signer.verifying_key()),
            "sig": BASE64.encode(signer.sign(&signed).to_bytes()),
        }],
    })
}

pub fn canonical(value: &Value) -> Vec<u8> {
    kernel::json::canonical(value).expect("canonical")
}

/// Puts a statement into the bundle, signed with the real evidence key.
pub fn seal(files: &mut Files, statement: &Value) {
    let envelope = envelope(&canonical(statement), evidence::manifest::PAYLOAD_TYPE, &key(2));
    files.insert(MANIFEST.to_owned(), canonical(&envelope));
}

/// What somebody makes who holds the evidence key: files and statement changed, listed and signed again.
pub fn resigned(bundle: &[u8], change: impl FnOnce(&mut Files, &mut Value)) -> Vec<u8> {
    let mut files = files(bundle);
    let mut statement = statement(&files);
    change(&mut files, &mut statement);
    let mut listed = listing(&files);
    listed["predicate"] = statement["predicate"].take();
    seal(&mut files, &listed);
    pack(&files)
}

/// What somebody makes who holds no key: files changed, the manifest left as it is.
pub fn changed(bundle: &[u8], change: impl FnOnce(&mut Files)) -> Vec<u8> {
    let mut files = files(bundle);
    change(&mut files);
    pack(&files)
}

/// An entry as a forger writes it.
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub content: Vec<u8>,
    pub link: Vec<u8>,
}

/// An archive of any entries, right in everything that is not said.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut header = [0u8; 512];
        header[..entry.name.len()].copy_from_slice(&entry.name);
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", entry.content.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = entry.kind;
        header[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        // The canonical header ends its sum with one zero byte and a space that stays.
        out.extend_from_slice(&header);
        out.extend_from_slice(&entry.content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A bundle's entries, to be tampered with.
pub fn entries(bundle: &[u8]) -> Vec<Entry> {
    let plain = |(name, content): (String, Vec<u8>)| Entry {
        name: name.into_bytes(),
        kind: b'0',
        content,
        link: vec![],
    };
    files(bundle).into_iter().map(plain).collect()
}
