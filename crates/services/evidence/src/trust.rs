//! The trust file: whom a verifier believes, decided before the bundle is looked at.
//!
//! A bundle that brings its own keys proves that it agrees with itself. So the keys come from another file, which the
//! auditor got once, from `init` or from `GET /v1/trust`, and whose fingerprint they compared over another channel. It names
//! the logs (origin, key, validity, epoch), the keys that sign bundles, and how many witnesses must have countersigned.
//!
//! ```json
//! {"version": 1, "installation": "writ.example",
//!  "logs": [{"origin": "writ.example/local/ten_acme/1", "key": "writ.example/local/ten_acme/1+0b1c2d3e+Aa…",
//!            "from_ms": 1760000000000, "until_ms": null, "epoch": 1}],
//!  "evidence_keys": [{"id": "evk_…", "key": "…", "from_ms": 1760000000000, "until_ms": null}],
//!  "witnesses": {"quorum": 0, "keys": []}}
//! ```
//!
//! Validity is judged at the time the bundle says it was made, `from_ms` inclusive, `until_ms` exclusive. A log whose key
//! was changed has two rows of one origin; one that was moved to another epoch has a row for each of them, the earlier
//! ones with an end. The fingerprint is taken over the canonical form, so that the file may be
//! printed, indented and mailed about.
//!
//! Witnesses are a row of the format and nothing more yet: a file that asks for some makes every verification fail, because
//! a verifier that cannot count them must not act as if it had.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::VerifyingKey;
use kernel::note::VerifierKey;
use kernel::{hex, json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Largest trust file, in bytes.
pub const TRUST_BYTES_MAX: usize = 4 << 20;
/// Most logs, and most keys of each sort.
pub const ROWS_MAX: usize = 10_000;

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Version of the format, 1.
    pub version: u32,
    /// Name of the installation, the first part of every origin.
    pub installation: String,
    /// Logs and the keys that sign their checkpoints.
    pub logs: Vec<TrustedLog>,
    /// Keys that sign bundles.
    pub evidence_keys: Vec<EvidenceKey>,
    /// Who else must have seen a checkpoint.
    pub witnesses: Witnesses,
}

/// A log and a key of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedLog {
    /// `<installation>/<cell>/<tenant>/<epoch>`
    pub origin: String,
    /// The key, as a C2SP verifier key whose name is the origin.
    pub key: String,
    /// From when on, milliseconds UTC, inclusive.
    pub from_ms: i64,
    /// Until when, exclusive; `None`: still.
    #[serde(deserialize_with = "present")]
    pub until_ms: Option<i64>,
    /// The last part of the origin.
    pub epoch: u64,
}

/// A key that signs bundles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceKey {
    /// [`key_id`] of the key.
    pub id: String,
    /// The Ed25519 public key, base64.
    pub key: String,
    /// From when on, milliseconds UTC, inclusive.
    pub from_ms: i64,
    /// Until when, exclusive; `None`: still.
    #[serde(deserialize_with = "present")]
    pub until_ms: Option<i64>,
}

/// Countersigners of checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witnesses {
    /// How many must have countersigned. Only 0 can be satisfied so far.
    pub quorum: u32,
    /// Their verifier keys.
    pub keys: Vec<String>,
}

/// A member that may be null and must be there.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(from)
}

/// The text is no trust file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a trust file: {0}")]
pub struct TrustError(pub(crate) &'static str);

impl act::Coded for TrustError {
    fn code(&self) -> &'static str {
        "evidence.trust_malformed"
    }
    fn class(&self) -> act::Class {
        act::Class::Invalid
    }
}

/// The id of a key that signs bundles: `evk_` and the first 16 hexadecimal digits of its SHA-256.
pub fn key_id(key: &VerifyingKey) -> String {
    format!("evk_{}", &hex::encode(&kernel::sha256(key.as_bytes()))[..16])
}

/// Whether a key that holds from `from_ms` until `until_ms` holds at `at_ms`.
pub fn holds(from_ms: i64, until_ms: Option<i64>, at_ms: i64) -> bool {
    from_ms <= at_ms && until_ms.is_none_or(|until_ms| at_ms < until_ms)
}

/// Whether `origin` is the same log as `newest`, in an earlier epoch.
pub fn earlier_epoch(origin: &str, newest: &str) -> bool {
    match (epoch_parts(origin), epoch_parts(newest)) {
        (Some((home, epoch)), Some((same, last))) => home == same && epoch < last,
        _ => false,
    }
}

/// An origin without its epoch, and that. `None`: it does not end in a number in its one spelling.
pub(crate) fn epoch_parts(origin: &str) -> Option<(&str, u64)> {
    let (home, text) = origin.rsplit_once('/')?;
    let epoch: u64 = text.parse().ok()?;
    (epoch.to_string() == text).then_some((home, epoch))
}

impl Trust {
    /// Reads a trust file.
    ///
    /// # Errors
    /// If it is too large, has other members than these, or a key or origin that does not fit.
    pub fn parse(bytes: &[u8]) -> Result<Trust, TrustError> {
        if bytes.len() > TRUST_BYTES_MAX {
            return Err(TrustError("larger than 4 MiB"));
        }
        let other = TrustError("its members are other ones");
        let trust: Trust = serde_json::from_slice(bytes).map_err(|_| other.clone())?;
        // A deserialiser takes an array for an object; a trust file has one form.
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| other.clone())?;
        if serde_json::to_value(&trust).ok() != Some(value) {
            return Err(other);
        }
        if trust.version != 1 {
            return Err(TrustError("of another version"));
        }
        if [trust.logs.len(), trust.evidence_keys.len(), trust.witnesses.keys.len()]
            .iter()
            .any(|n| *n > ROWS_MAX)
        {
            return Err(TrustError("more than 10,000 rows"));
        }
        for log in &trust.logs {
            let key = VerifierKey::parse(&log.key).map_err(|_| TrustError("a log's key is malformed"))?;
            let mut parts = log.origin.rsplitn(2, '/');
            let epoch_ok = parts.next() == Some(log.epoch.to_string().as_str());
            let home_ok =
                parts.next().is_some_and(|home| home.split('/').next() == Some(&trust.installation));
            if key.name() != log.origin || !epoch_ok || !home_ok {
                return Err(TrustError("a log's origin, key and epoch do not fit together"));
            }
        }
        let mut ids = BTreeSet::new();
        for row in &trust.evidence_keys {
            let key = row.verifying().ok_or(TrustError("an evidence key is malformed"))?;
            if key_id(&key) != row.id || !ids.insert(&row.id) {
                return Err(TrustError("an evidence key's id is not its own, or twice there"));
            }
        }
        let spans = trust.logs.iter().map(|log| (log.from_ms, log.until_ms));
        let spans = spans.chain(trust.evidence_keys.iter().map(|key| (key.from_ms, key.until_ms)));
        if spans.into_iter().any(|(from, until)| until.is_some_and(|until| until <= from)) {
            return Err(TrustError("a key ends before it begins"));
        }
        trust
            .canonical()
            .map_err(|_| TrustError("a number or name is outside the canonical JSON profile"))?;
        Ok(trust)
    }

    fn canonical(&self) -> Result<Vec<u8>, json::JsonError> {
        // Plain data with text keys always becomes a value.
        json::canonical(&serde_json::to_value(self).unwrap_or_default())
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// SHA-256 of the canonical form in hexadecimal, in groups of four to be read aloud.
    pub fn fingerprint(&self) -> String {
        // What was parsed or built from a keyring is inside the profile; anything else has a fingerprint nobody expects.
        let digest = hex::encode(&kernel::sha256(&self.canonical().unwrap_or_default()));
        let groups: Vec<&str> = (0..16).map(|n| &digest[n * 4..n * 4 + 4]).collect();
        groups.join(" ")
    }

    /// The rows of one log.
    pub(crate) fn log(&self, origin: &str) -> impl Iterator<Item = &TrustedLog> {
        self.logs.iter().filter(move |log| log.origin == origin)
    }
}

impl TrustedLog {
    /// A row for the key that signs the log `origin`. `None` if the origin names no log.
    pub fn of(origin: &str, key: &VerifyingKey, from_ms: i64) -> Option<TrustedLog> {
        let epoch = origin.rsplit('/').next()?.parse().ok()?;
        let key = VerifierKey::new(origin, *key).ok()?.to_string();
        Some(TrustedLog { origin: origin.to_owned(), key, from_ms, until_ms: None, epoch })
    }
}

impl EvidenceKey {
    /// A row for `key`.
    pub fn of(key: &VerifyingKey, from_ms: i64) -> EvidenceKey {
        EvidenceKey { id: key_id(key), key: BASE64.encode(key.as_bytes()), from_ms, until_ms: None }
    }

    pub(crate) fn verifying(&self) -> Option<VerifyingKey> {
        let bytes: [u8; 32] = BASE64.decode(&self.key).ok()?.try_into().ok()?;
        VerifyingKey::from_bytes(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use serde_json::{Value, json};

    fn trust() -> Trust {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        Trust {
            version: 1,
            installation: "writ.test".into(),
            logs: vec![TrustedLog::of("writ.test/local/ten_a/1", &key, 5).unwrap()],
            evidence_keys: vec![EvidenceKey::of(&key, 5)],
            witnesses: Witnesses::default(),
        }
    }

    #[test]
    fn comes_back_with_one_fingerprint() {
        let parsed = Trust::parse(trust().to_json().as_bytes()).unwrap();
        assert_eq!(parsed, trust());
        assert_eq!(parsed.fingerprint(), trust().fingerprint());
        assert_eq!(trust().fingerprint().len(), 16 * 5 - 1);
        let mut other = trust();
        other.logs[0].until_ms = Some(9);
        assert_ne!(other.fingerprint(), trust().fingerprint());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let good = serde_json::to_value(trust()).unwrap();
        let other_key =
            serde_json::to_value(EvidenceKey::of(&SigningKey::from_bytes(&[8; 32]).verifying_key(), 5))
                .unwrap();
        let second = good["evidence_keys"][0].clone();
        let cases: Vec<(&str, Box<dyn Fn(&mut Value)>)> = vec![
            ("version", Box::new(|t| t["version"] = json!(2))),
            ("unknown member", Box::new(|t| t["extra"] = json!(1))),
            ("origin", Box::new(|t| t["logs"][0]["origin"] = json!("writ.test/local/ten_b/1"))),
            ("installation", Box::new(|t| t["installation"] = json!("writ"))),
            ("epoch", Box::new(|t| t["logs"][0]["epoch"] = json!(2))),
            ("log key", Box::new(|t| t["logs"][0]["key"] = json!("writ.test/local/ten_a/1+00000000+AQ=="))),
            ("no end", Box::new(|t| drop(t["logs"][0].as_object_mut().unwrap().remove("until_ms")))),
            ("ends first", Box::new(|t| t["logs"][0]["until_ms"] = json!(5))),
            ("evidence key", Box::new(|t| t["evidence_keys"][0]["key"] = json!("AA=="))),
            ("evidence id", Box::new(move |t| t["evidence_keys"][0]["id"] = other_key["id"].clone())),
            ("twice", Box::new(move |t| t["evidence_keys"].as_array_mut().unwrap().push(second.clone()))),
            ("float", Box::new(|t| t["logs"][0]["from_ms"] = json!(5.0))),
            ("beyond 2^53", Box::new(|t| t["logs"][0]["from_ms"] = json!(1i64 << 53))),
            ("an array for an object", Box::new(|t| t["witnesses"] = json!([0, []]))),
            ("negative quorum", Box::new(|t| t["witnesses"]["quorum"] = json!(-1))),
        ];
        for (what, change) in cases {
            let mut touched = good.clone();
            change(&mut touched);
            assert!(Trust::parse(touched.to_string().as_bytes()).is_err(), "{what}");
        }
        for bad in ["", "[]", "{}", "null", "{\"version\":1,\"version\":1}"] {
            assert!(Trust::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
