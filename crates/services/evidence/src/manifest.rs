//! What is signed: an in-toto statement over the bundle's files, in a DSSE envelope.
//!
//! The manifest names every other file with its SHA-256 and says what the bundle claims: whose log, which part of it, when
//! it was made, and, in so many words, what it does not prove. Both formats are used as they are specified, so that
//! existing tools read them: DSSE v1 (github.com/secure-systems-lab/dsse) with one signature, in-toto Statement v1
//! (github.com/in-toto/attestation). Envelope and statement are in the canonical JSON profile, so each has one spelling.
//!
//! The key that signs here is not the log's key. Whoever can export evidence can choose what to show; they cannot add to
//! the log or change it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kernel::json;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The manifest's file.
pub const MANIFEST: &str = "manifest.dsse.json";
/// The newest checkpoint, a C2SP signed note.
pub const CHECKPOINT: &str = "checkpoint";
/// Earlier checkpoints with consistency proofs.
pub const HISTORY: &str = "history.json";
/// One leaf per line, exactly as stored.
pub const FACTS: &str = "facts.jsonl";
/// Where the leaves stand, and the multi-proof.
pub const PROOF: &str = "proof.json";
/// Openings of argument commitments.
pub const DISCLOSURES: &str = "disclosures.json";
/// For people; not proven.
pub const SUMMARY: &str = "summary.json";
/// How to verify.
pub const README: &str = "readme.txt";
/// Folder of policy bundles, `policy/<sha256>.bundle`.
pub const POLICY: &str = "policy/";

/// Files that every bundle has, in order.
pub const REQUIRED: [&str; 8] = [CHECKPOINT, DISCLOSURES, FACTS, HISTORY, MANIFEST, PROOF, README, SUMMARY];

/// `payloadType` of the envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// `_type` of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of the statement.
pub const PREDICATE_TYPE: &str = "https://writ.example/evidence/v1";

/// The subject of a bundle that holds a whole log.
pub const WHOLE_LOG: &str = "log";
/// Most streams that a bundle claims to hold completely, and most ranges.
pub const CLAIMS_MAX: usize = 100_000;

/// What no bundle proves. Each has to stand in the predicate, so that nobody can say more than is true.
pub const NOT_PROVEN: &[(&str, &str)] = &[
    ("before_the_log", "that everything that happened was written to the log"),
    ("selection", "that no other stream of the log belongs to the same story, unless the whole log is here"),
    ("summary", "what summary.json says: it is computed from the facts for people to read"),
    ("truth_of_content", "that what a fact says is true; only that it was said then and not changed since"),
    ("unseen_history", "that the log was never rewritten before anybody outside held one of its checkpoints"),
];

/// What the bundle claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicate {
    /// When the bundle was made, milliseconds UTC.
    pub created_at_ms: i64,
    /// The first members of [`NOT_PROVEN`].
    pub not_proven: Vec<String>,
    /// The log.
    pub origin: String,
    /// Which leaves are here: ranges `[from, to)` of indices, ascending, apart from each other.
    pub ranges: Vec<(u64, u64)>,
    /// Size of the log at the checkpoint.
    pub size: u64,
    /// Streams that are here from their first fact to `last`, in order of their ids.
    pub streams: Vec<Claim>,
    /// The stream that it is about, or [`WHOLE_LOG`].
    pub subject: String,
    /// Whose log it is: the third part of the origin.
    pub tenant: String,
}

impl Predicate {
    /// How many facts are here; `None`: ranges that are none, or more than can be counted.
    pub(crate) fn facts(&self) -> Option<usize> {
        let mut lengths = self.ranges.iter().map(|(from, to)| to.checked_sub(*from));
        let facts = lengths.try_fold(0u64, |sum, length| sum.checked_add(length?));
        facts.and_then(|facts| usize::try_from(facts).ok())
    }
}

/// A stream that is here completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The number of its last fact in the log.
    pub last: u64,
    /// The stream.
    pub stream: String,
}

/// An in-toto statement.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statement {
    #[serde(rename = "_type")]
    pub kind: String,
    pub predicate: Predicate,
    #[serde(rename = "predicateType")]
    pub predicate_kind: String,
    pub subject: Vec<Subject>,
}

/// A file and its digest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub digest: Sha256,
    pub name: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sha256 {
    pub sha256: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub payload: String,
    #[serde(rename = "payloadType")]
    pub kind: String,
    pub signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvelopeSignature {
    pub keyid: String,
    pub sig: String,
}

/// The pre-authentication encoding of DSSE: what is signed.
pub(crate) fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Reads canonical JSON of exactly the members of `T`. Writing it again must give the same bytes: a deserialiser takes more
/// than one spelling, an array for an object say, and the other verifier would not.
pub(crate) fn strict<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    json::check(bytes).ok()?;
    let value: T = serde_json::from_slice(bytes).ok()?;
    canonical(&value).is_ok_and(|again| again == bytes).then_some(value)
}

/// Writes canonical JSON.
pub(crate) fn canonical(value: &impl Serialize) -> Result<Vec<u8>, json::JsonError> {
    // Plain data with text keys always becomes a value.
    json::canonical(&serde_json::to_value(value).unwrap_or_default())
}

/// Makes the manifest over `files`. `sign` signs with the key that verifiers know as `keyid`.
pub(crate) fn seal(
    predicate: Predicate,
    files: &BTreeMap<String, Vec<u8>>,
    keyid: &str,
    sign: &dyn Fn(&[u8]) -> [u8; 64],
) -> Result<Vec<u8>, json::JsonError> {
    let digest = |bytes: &[u8]| kernel::hex::encode(&kernel::sha256(bytes));
    let subject = files
        .iter()
        .map(|(name, bytes)| Subject { name: name.clone(), digest: Sha256 { sha256: digest(bytes) } })
        .collect();
    let statement = canonical(&Statement {
        kind: STATEMENT_TYPE.to_owned(),
        predicate,
        predicate_kind: PREDICATE_TYPE.to_owned(),
        subject,
    })?;
    canonical(&Envelope {
        payload: BASE64.encode(&statement),
        kind: PAYLOAD_TYPE.to_owned(),
        signatures: vec![EnvelopeSignature {
            keyid: keyid.to_owned(),
            sig: BASE64.encode(sign(&encoding(PAYLOAD_TYPE, &statement))),
        }],
    })
}
