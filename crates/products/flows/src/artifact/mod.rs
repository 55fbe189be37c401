//! Signed, pinned artifacts: the manifests of connectors and the versions of workflows, as bytes that somebody vouches for.
//!
//! What a workflow may do outside is written in two texts, and who can change a text quietly can change what happens. So
//! each version of either is an artifact: its canonical bytes, their SHA-256, and a signature over them. Once a version is
//! in a tenant's registry it stays what it is: the same name and version with other bytes is refused for ever, and so is
//! going back to an older version, unless that is said. A version that should not be used any more is *yanked*, with a
//! reason; whoever has it goes on, nobody installs it anew.
//!
//! The signature is a DSSE envelope (github.com/secure-systems-lab/dsse, v1) with one Ed25519 signature. The payload's type
//! is part of what is signed, so that no other statement under the same key passes for an artifact. Who may sign:
//!
//! - the **installation**, with the key that also signs evidence bundles and stands in the trust file. It signs what is
//!   uploaded as text, at that moment: that says "these bytes were taken in here, by an act in the log", and no more. The
//!   connectors that come with the program are no exception: they are signed when a tenant first takes them in, after their
//!   digest was found to be the one that was compiled in;
//! - a **key that the tenant has registered** ([`key`]). That signature was made elsewhere and says whose text it is.
//!
//! An artifact that comes signed is believed for its signature alone: none, one under a key that is not known or has been
//! revoked, or one that does not fit, is refused, each with a code of its own.
//!
//! | module | what it is |
//! |---|---|
//! | here | the envelope: sealing and opening, pure |
//! | [`record`] | the registry: what is kept, and what is refused |
//! | [`key`] | whom a tenant believes |
//! | [`verbs`], [`routes`] | publishing, yanking, looking |
//!
//! What it does not do: fetch from anywhere, count more than one signature, or say that a text is good.

pub mod key;
pub mod record;
pub mod routes;
pub mod verbs;

use act::{Class, Coded};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use kernel::{hex, json, sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest artifact in its envelope, in bytes.
pub const ARTIFACT_BYTES_MAX: usize = 256 * 1024;

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A connector's manifest.
    Connector,
    /// A version of a workflow, with the connectors that it was published against.
    Workflow,
}

impl Kind {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Connector => "connector",
            Kind::Workflow => "workflow",
        }
    }

    /// `payloadType` of its envelope.
    pub fn payload_type(self) -> &'static str {
        match self {
            Kind::Connector => "application/vnd.writ.connector+json",
            Kind::Workflow => "application/vnd.writ.workflow+json",
        }
    }
}

/// Why a text is no artifact that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// It is no envelope of this form.
    #[error("it is no signed artifact: one DSSE envelope of canonical JSON is expected")]
    Malformed,
    /// Nobody has signed it.
    #[error("nobody has signed it")]
    Unsigned,
    /// Whoever signed it is not known, or not any more.
    #[error("it is signed by a key that is not known here, or has been revoked")]
    KeyUnknown,
    /// The signature does not fit.
    #[error("its signature does not fit: it has been altered, or was made for something else")]
    Signature,
}

impl Coded for ArtifactError {
    fn code(&self) -> &'static str {
        match self {
            ArtifactError::Malformed => "artifact.malformed",
            ArtifactError::Unsigned => "artifact.unsigned",
            ArtifactError::KeyUnknown => "artifact.key_unknown",
            ArtifactError::Signature => "artifact.signature",
        }
    }
    fn class(&self) -> Class {
        match self {
            ArtifactError::Malformed => Class::Invalid,
            ArtifactError::Unsigned | ArtifactError::KeyUnknown | ArtifactError::Signature => Class::Denied,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    kind: String,
    signatures: Vec<Signed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    keyid: String,
    sig: String,
}

/// An artifact whose signature fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub kind: Kind,
    /// Its canonical bytes.
    pub payload: Vec<u8>,
    /// Their SHA-256, in hexadecimal.
    pub digest: String,
    /// Whose signature it bears.
    pub keyid: String,
}

/// The pre-authentication encoding of DSSE: what is signed.
fn encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// Seals canonical bytes. `sign` signs with the key that is known as `keyid`.
pub fn seal(kind: Kind, payload: &[u8], keyid: &str, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> String {
    let envelope = Envelope {
        payload: BASE64.encode(payload),
        kind: kind.payload_type().to_owned(),
        signatures: vec![Signed {
            keyid: keyid.to_owned(),
            sig: BASE64.encode(sign(&encoding(kind.payload_type(), payload))),
        }],
    };
    // Plain data always serialises.
    serde_json::to_string(&envelope).unwrap_or_default()
}

/// Whether a text looks like an envelope, rather than like the text of a manifest.
pub fn enveloped(text: &str) -> bool {
    text.trim_start().starts_with('{') && text.contains("\"payloadType\"")
}

/// Opens an envelope whose one signature is by one of `keys`.
///
/// # Errors
/// See [`ArtifactError`].
pub fn open(text: &str, keys: &BTreeMap<String, VerifyingKey>) -> Result<Opened, ArtifactError> {
    if text.len() > ARTIFACT_BYTES_MAX {
        return Err(ArtifactError::Malformed);
    }
    let envelope: Envelope = serde_json::from_str(text).map_err(|_| ArtifactError::Malformed)?;
    let kinds = [Kind::Connector, Kind::Workflow];
    let kind = kinds
        .into_iter()
        .find(|kind| kind.payload_type() == envelope.kind)
        .ok_or(ArtifactError::Malformed)?;
    let payload = BASE64.decode(&envelope.payload).map_err(|_| ArtifactError::Malformed)?;
    let [signed] = &envelope.signatures[..] else {
        return Err(if envelope.signatures.is_empty() {
            ArtifactError::Unsigned
        } else {
            ArtifactError::Malformed
        });
    };
    let key = keys.get(&signed.keyid).ok_or(ArtifactError::KeyUnknown)?;
    let signature = BASE64.decode(&signed.sig).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or(ArtifactError::Signature)?;
    let message = encoding(kind.payload_type(), &payload);
    key.verify_strict(&message, &signature).map_err(|_| ArtifactError::Signature)?;
    // Signed or not, there is one spelling.
    json::check(&payload).map_err(|_| ArtifactError::Malformed)?;
    let digest = hex::encode(&sha256(&payload));
    Ok(Opened { kind, payload, digest, keyid: signed.keyid.clone() })
}

/// The id under which the installation's key is known, here and in trust files.
pub fn installation_id(key: &VerifyingKey) -> String {
    format!("evk_{}", &hex::encode(&sha256(key.as_bytes()))[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn sealed(kind: Kind, payload: &[u8], seed: u8, keyid: &str) -> String {
        seal(kind, payload, keyid, |message| key(seed).sign(message).to_bytes())
    }

    #[test]
    fn f07_only_what_a_known_key_signed_opens() {
        let keys = BTreeMap::from([("a".to_owned(), key(1).verifying_key())]);
        let good = sealed(Kind::Connector, b"{\"name\":\"m\"}", 1, "a");
        let opened = open(&good, &keys).unwrap();
        assert_eq!(
            (opened.kind, opened.payload.as_slice(), opened.keyid.as_str()),
            (Kind::Connector, &b"{\"name\":\"m\"}"[..], "a")
        );
        let touched = |from: &str, to: &str| {
            let other = good.replace(from, to);
            assert_ne!(other, good, "{from}");
            other
        };
        let other_payload = BASE64.encode(b"{\"name\":\"n\"}");
        let unsigned = format!(
            "{{\"payload\":\"e30=\",\"payloadType\":\"{}\",\"signatures\":[]}}",
            Kind::Connector.payload_type()
        );
        for (what, text, error) in [
            ("unsigned", unsigned, ArtifactError::Unsigned),
            ("by a stranger", sealed(Kind::Connector, b"{}", 2, "b"), ArtifactError::KeyUnknown),
            (
                "by a stranger under a known name",
                sealed(Kind::Connector, b"{}", 2, "a"),
                ArtifactError::Signature,
            ),
            (
                "altered",
                touched(&BASE64.encode(b"{\"name\":\"m\"}"), &other_payload),
                ArtifactError::Signature,
            ),
            ("of another kind", touched("vnd.writ.connector", "vnd.writ.workflow"), ArtifactError::Signature),
            ("of no kind", touched("vnd.writ.connector", "vnd.in-toto"), ArtifactError::Malformed),
            ("not canonical", sealed(Kind::Connector, b"{ }", 1, "a"), ArtifactError::Malformed),
            ("nothing", String::new(), ArtifactError::Malformed),
            ("with more", touched("{\"payload\"", "{\"extra\":1,\"payload\""), ArtifactError::Malformed),
            (
                "too large",
                sealed(Kind::Connector, &vec![b'1'; ARTIFACT_BYTES_MAX], 1, "a"),
                ArtifactError::Malformed,
            ),
        ] {
            assert_eq!(open(&text, &keys), Err(error), "{what}");
        }
    }
}
