//! The registry of a tenant: what it has taken in, and what it refuses.
//!
//! A row is written once and changed only by yanking. Its id is a hash of kind, name and version, so that a second text of the
//! same name and version meets the first one. A workflow's version is the digest of its bytes: it cannot meet another.

use super::{Kind, enveloped, installation_id, key, seal};
use crate::connector::manifest::{self, Manifest};
use crate::connector::verbs::refused;
use act::{Fault, Stamp};
use custody::Keyring;
use kernel::{Id, hex, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Ordering;
use store::key::Key;
use store::{Document, Stored, View};

/// The connectors that come with the program.
const BUILT_IN: [&str; 2] = [
    include_str!("../../../../../contracts/connectors/http.yaml"),
    include_str!("../../../../../contracts/connectors/servicenow.yaml"),
];

/// A signed version of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `art_…`
    pub id: Id,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its canonical bytes, in hexadecimal.
    pub digest: String,
    /// The envelope, as it came or was made.
    pub envelope: String,
    /// Whose signature it bears.
    pub keyid: String,
    /// When it was taken in, milliseconds UTC.
    pub published_at_ms: i64,
    /// Who took it in.
    pub published_by: Id,
    /// Why it should not be used any more, if that was said.
    pub yanked: Option<Yanked>,
}

/// That a version should not be used any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yanked {
    /// Why.
    pub reason: String,
    /// Since when, milliseconds UTC.
    pub at_ms: i64,
    /// Who said so.
    pub by: Id,
}

impl Document for Artifact {
    const KIND: &'static str = "flows.artifact";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.kind.as_str()).text(&self.name).text(&self.version).bytes())]
    }
}

impl Artifact {
    /// As shown in lists.
    pub fn shown(&self) -> Value {
        json!({
            "artifact": self.id, "kind": self.kind, "name": self.name, "version": self.version, "digest": self.digest,
            "key": self.keyid, "published_at_ms": self.published_at_ms, "published_by": self.published_by,
            "yanked": self.yanked,
        })
    }
}

/// The id of a version.
pub fn artifact_id(kind: Kind, name: &str, version: &str) -> Result<Id, Fault> {
    let named = format!("{}\0{name}\0{version}", kind.as_str());
    Id::parse(&format!("art_{}", &hex::encode(&sha256(named.as_bytes()))[..32])).map_err(act::internal)
}

/// The version in the registry, if there is one.
pub async fn find(
    view: &View,
    kind: Kind,
    name: &str,
    version: &str,
) -> Result<Option<Stored<Artifact>>, Fault> {
    Ok(view.get::<Artifact>(&artifact_id(kind, name, version)?).await?)
}

/// A manifest that somebody offers, and may.
pub struct Offer {
    /// The manifest.
    pub manifest: Manifest,
    /// Digest of its canonical bytes, in hexadecimal.
    pub digest: String,
    /// The envelope that it came in; none if it came as text.
    envelope: Option<(String, String)>,
    /// Whether it is in the registry already.
    pub known: bool,
}

impl Offer {
    /// Whose signature it bears or will bear.
    pub fn keyid(&self, keyring: &Keyring) -> String {
        self.envelope
            .as_ref()
            .map_or_else(|| installation_id(&keyring.evidence_key()), |(_, keyid)| keyid.clone())
    }

    /// The row to take in.
    pub fn artifact(&self, keyring: &Keyring, stamp: &Stamp) -> Result<Artifact, Fault> {
        let canonical = self.manifest.canonical().map_err(act::internal)?;
        let (envelope, keyid) =
            self.envelope.clone().unwrap_or_else(|| signed(Kind::Connector, &canonical, keyring));
        let (name, version) = (&self.manifest.name, &self.manifest.version);
        row(Kind::Connector, (name, version), &self.digest, (envelope, keyid), stamp)
    }
}

/// Bytes under the installation's signature, and the key's id.
pub fn signed(kind: Kind, payload: &[u8], keyring: &Keyring) -> (String, String) {
    let keyid = installation_id(&keyring.evidence_key());
    (seal(kind, payload, &keyid, |message| keyring.evidence_sign(message)), keyid)
}

/// A new row.
pub fn row(
    kind: Kind,
    (name, version): (&str, &str),
    digest: &str,
    (envelope, keyid): (String, String),
    stamp: &Stamp,
) -> Result<Artifact, Fault> {
    Ok(Artifact {
        id: artifact_id(kind, name, version)?,
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        digest: digest.to_owned(),
        envelope,
        keyid,
        published_at_ms: stamp.at_ms,
        published_by: stamp.ctx.principal.id.clone(),
        yanked: None,
    })
}

/// The fact that a version was taken in.
pub fn published(artifact: &Artifact, stamp: &Stamp) -> kernel::Fact {
    let outcome = json!({
        "kind": artifact.kind, "name": artifact.name, "version": artifact.version, "digest": artifact.digest,
        "key": artifact.keyid,
    });
    stamp.fact("flows.artifact.published", &artifact.id, (Artifact::KIND, &artifact.id), outcome)
}

/// `name@version`, where a text is just that.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, version) = text.trim().split_once('@')?;
    (manifest::name_ok(name) && !version.contains(char::is_whitespace)).then_some((name, version))
}

fn from_payload(payload: &[u8]) -> Result<Manifest, Fault> {
    let unreadable = |why: String| Fault::invalid("flows.manifest_invalid", why);
    let manifest: Manifest = serde_json::from_slice(payload)
        .map_err(|error| unreadable(format!("It cannot be read: {error}.")))?;
    let problems = manifest.problems();
    if !problems.is_empty() {
        return Err(refused("flows.manifest_invalid", &problems));
    }
    // What was signed and what is used are the same bytes.
    if manifest.canonical().ok().as_deref() != Some(payload) {
        return Err(unreadable("It is not in its canonical form.".into()));
    }
    Ok(manifest)
}

/// Reads what somebody offers as a manifest: its text, a signed artifact, or `name@version` of one in the registry.
///
/// # Errors
/// The manifest's problems; why an artifact is not believed; `artifact.altered` where the same name and version is known
/// with other bytes, `artifact.yanked` where it should not be used any more.
pub async fn offer(view: &View, keyring: &Keyring, text: &str) -> Result<Offer, Fault> {
    let (manifest, envelope) = if let Some((name, version)) = reference(text) {
        let known = find(view, Kind::Connector, name, version).await?;
        let known = known.ok_or_else(|| Fault::not_found("artifact"))?;
        // Looked at again: the key may have been revoked, the row changed by somebody who can write to the disk.
        let opened = key::open(view, keyring, &known.envelope).await?;
        (from_payload(&opened.payload)?, Some((known.envelope.clone(), opened.keyid)))
    } else if enveloped(text) {
        let opened = key::open(view, keyring, text).await?;
        if opened.kind != Kind::Connector {
            return Err(Fault::invalid("artifact.malformed", "it is no connector"));
        }
        (from_payload(&opened.payload)?, Some((text.to_owned(), opened.keyid)))
    } else {
        (manifest::parse(text).map_err(|problems| refused("flows.manifest_invalid", &problems))?, None)
    };
    let digest = hex::encode(&sha256(&manifest.canonical().map_err(act::internal)?));
    let (name, version) = (&manifest.name, &manifest.version);
    let altered = || {
        let message =
            format!("{name}@{version} is known with other bytes: give what has changed another version");
        Fault::conflict("artifact.altered", message)
    };
    let built_in = BUILT_IN.iter().filter_map(|text| manifest::parse(text).ok());
    for shipped in built_in.filter(|shipped| shipped.name == *name && shipped.version == *version) {
        if shipped != manifest {
            return Err(altered());
        }
    }
    let known = find(view, Kind::Connector, name, version).await?;
    if let Some(known) = &known {
        if known.digest != digest {
            return Err(altered());
        }
        if let Some(yanked) = &known.yanked {
            let message = format!("{name}@{version} has been yanked: {}", yanked.reason);
            return Err(Fault::conflict("artifact.yanked", message));
        }
    }
    Ok(Offer { manifest, digest, envelope, known: known.is_some() })
}

/// Compares versions piece by piece, numbers as numbers (`1.10.0` is newer than `1.9.0`); what is more is newer, but for a
/// part behind a `-`, which comes before (`1.0.0-rc.1` is older than `1.0.0`).
pub fn compare(a: &str, b: &str) -> Ordering {
    let halves = |text: &str| {
        let text = text.split('+').next().unwrap_or_default();
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        (core.to_owned(), pre.map(str::to_owned))
    };
    let pieces = |a: &str, b: &str| {
        let mut sides = (a.split('.'), b.split('.'));
        loop {
            let ordering = match (sides.0.next(), sides.1.next()) {
                (None, None) => return Ordering::Equal,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    (Err(_), Err(_)) => a.cmp(b),
                },
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
    };
    let ((core_a, pre_a), (core_b, pre_b)) = (halves(a), halves(b));
    pieces(&core_a, &core_b).then_with(|| match (pre_a, pre_b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => pieces(&a, &b),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order() {
        let ascending =
            ["1", "1.0.0-alpha", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.0.1", "1.9.0", "1.10.0", "2", "x"];
        for (n, a) in ascending.iter().enumerate() {
            for (m, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), n.cmp(&m), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0.0+a", "1.0.0+b"), Ordering::Equal);
    }

    #[test]
    fn what_comes_with_the_program_can_be_read() {
        let names: Vec<String> = BUILT_IN.iter().map(|text| manifest::parse(text).unwrap().name).collect();
        assert_eq!(names, ["http", "servicenow"]);
    }
}
