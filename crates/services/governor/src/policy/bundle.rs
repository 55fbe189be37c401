//! Bundles: how rules travel, and how we know that they are the rules somebody meant.
//!
//! The format is OPA's: a gzipped tar of `.manifest`, `*.rego`, `data.json` and `.signatures.json`, which holds
//! exactly one JWS over the hash of every other file. A bundle made here can be read by other tools, and what
//! they sign can be read here if it keeps to the rules below.
//!
//! A signature alone leaves four doors open. A file added next to the signed ones is used though nobody signed
//! it: so the signed set and the files must be equal, both ways. A tenant's key signs a bundle for the platform:
//! so a key is trusted for one scope, and the scope stands in the signed payload. Last month's bundle, properly
//! signed, is served again: so the manifest carries a sequence number, and [`rollback_check`] refuses to go back.
//! And a bundle that nobody renews goes on for ever: so it carries its own end, after which it denies everything.
//! OPA's format has no place for the last two; they stand under `.manifest.metadata`, which is signed.
//!
//! A [`Bundle`] exists only verified: [`bundle_open`] is the one way to get one.
//!
//! Not supported, on purpose: delta bundles (unsigned in OPA), WebAssembly modules, YAML data, data files in
//! folders, several signatures, Rego v0.

use super::{ENGINE, archive, canonical, jws};
use kernel::{Digest, hex};
use p256::ecdsa::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MANIFEST: &str = ".manifest";
const SIGNATURES: &str = ".signatures.json";
/// The data document of a bundle.
pub const DATA: &str = "data.json";
const HASH: &str = "SHA-256";
const NAME_BYTES_MAX: usize = 128;
const ROOTS_MAX: usize = 8;

/// The files of a bundle by name, without `.manifest` and `.signatures.json`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// `.manifest`: what the bundle is and what it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// A name of this version for people: at most 128 printable ASCII characters.
    pub revision: String,
    /// The paths in `data` that this bundle owns, such as `writ`. Every package and all data lie under one; none
    /// lies under another. The first one holds the rule `verdict`.
    pub roots: Vec<String>,
    /// The version of the language: 1.
    pub rego_version: u8,
    /// What OPA's format has no field for.
    pub metadata: Metadata,
}

/// `.manifest.metadata`: signed statements about age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Grows with every publication in one scope.
    pub seq: u64,
    /// From this moment on the bundle denies everything (milliseconds UTC).
    pub not_after_ms: i64,
    /// The least [`ENGINE`] that understands the bundle.
    pub min_engine: u32,
}

/// Signature algorithms that a key record can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
}

impl Algorithm {
    /// The name in a JOSE header.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
        }
    }
}

/// A key that may sign bundles of one scope.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// The only scope this key is trusted for: `platform`, or a tenant's id.
    pub scope: String,
    /// How its signatures are made.
    pub algorithm: Algorithm,
    /// The public key.
    pub key: VerifyingKey,
}

/// The keys that are trusted here, by key id.
pub type KeyRing = BTreeMap<String, KeyRecord>;

/// What was last accepted in a scope; the caller keeps it where a restart does not lose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The sequence number.
    pub seq: u64,
    /// The archive's SHA-256.
    pub digest: Digest,
}

/// A verified bundle.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bundle {
    /// What the manifest says.
    pub manifest: Manifest,
    /// The scope it was signed for.
    pub scope: String,
    /// The key that signed it.
    pub keyid: String,
    /// Rego modules and the data document.
    pub files: Files,
    /// SHA-256 of the whole archive: the name of this policy in facts.
    pub digest: Digest,
}

impl Bundle {
    /// The sequence number.
    pub fn seq(&self) -> u64 {
        self.manifest.metadata.seq
    }

    /// The moment from which on the bundle denies everything (milliseconds UTC).
    pub fn not_after_ms(&self) -> i64 {
        self.manifest.metadata.not_after_ms
    }

    /// What to remember of this bundle for the next [`rollback_check`].
    pub fn seen(&self) -> Seen {
        Seen { seq: self.seq(), digest: self.digest }
    }
}

/// Why a bundle was refused. The text is for the person who made the bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Over a limit; the limit.
    #[error("the bundle is larger than allowed: {0}")]
    TooLarge(&'static str),
    /// Not a bundle of this format.
    #[error("the bundle is malformed: {0}")]
    Malformed(String),
    /// Not signed by a key that is trusted for the scope.
    #[error("the bundle's signature is not accepted: {0}")]
    Signature(&'static str),
    /// The files are not the ones that were signed.
    #[error("the bundle's files are not the ones that were signed: {0}")]
    Files(String),
    /// Made for a later engine.
    #[error("the bundle needs engine {0}, this is engine {ENGINE}")]
    Engine(u32),
    /// Older than what was accepted before.
    #[error("the bundle has sequence number {seq}, but {last} was accepted before")]
    Rollback {
        /// The bundle's sequence number.
        seq: u64,
        /// The one accepted before.
        last: u64,
    },
    /// Past its end.
    #[error("the bundle ended at {0} ms")]
    Expired(i64),
}

impl BundleError {
    /// The stable code (see [`super::codes`]).
    pub fn code(&self) -> &'static str {
        match self {
            BundleError::TooLarge(_) => "policy.bundle_too_large",
            BundleError::Malformed(_) => "policy.bundle_malformed",
            BundleError::Signature(_) => "policy.bundle_signature",
            BundleError::Files(_) => "policy.bundle_files",
            BundleError::Engine(_) => "policy.bundle_engine",
            BundleError::Rollback { .. } => "policy.bundle_rollback",
            BundleError::Expired(_) => "policy.bundle_expired",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    signatures: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    files: Vec<FileHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    scope: String,
    // OPA writes these two and reads neither.
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "accepted for the format's sake; age is a matter of the manifest")]
    iat: Option<i64>,
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "accepted for the format's sake; the key says who signed")]
    iss: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileHash {
    name: String,
    hash: String,
    algorithm: String,
}

/// Builds the unsigned archive of a bundle. The same manifest and files are the same bytes.
///
/// # Errors
/// If the manifest, a name or a document would not be accepted by [`bundle_open`].
pub fn bundle_build(manifest: &Manifest, files: &Files) -> Result<Vec<u8>, BundleError> {
    let mut all = files.clone();
    let manifest = serde_json::to_vec(manifest).map_err(|error| BundleError::Malformed(error.to_string()))?;
    all.insert(MANIFEST.to_owned(), manifest);
    contents_check(&all)?;
    archive::write(&all)
}

/// Signs an unsigned archive for `scope`, so that [`bundle_open`] accepts it where `keyid` is trusted for that
/// scope. The signature is deterministic (RFC 6979).
///
/// # Errors
/// If `unsigned` is no archive of a bundle, or is signed already.
pub fn bundle_sign(
    unsigned: &[u8],
    keyid: &str,
    scope: &str,
    key: &SigningKey,
) -> Result<Vec<u8>, BundleError> {
    let mut all = archive::read(unsigned)?;
    if all.contains_key(SIGNATURES) {
        return Err(BundleError::Signature("the bundle is signed already"));
    }
    contents_check(&all)?;
    let files = all
        .iter()
        .map(|(name, content)| {
            Ok(FileHash {
                name: name.clone(),
                hash: hex::encode(&file_hash(name, content)?),
                algorithm: HASH.into(),
            })
        })
        .collect::<Result<_, BundleError>>()?;
    let payload = Payload { files, keyid: Some(keyid.into()), scope: scope.into(), iat: None, iss: None };
    let json = |error: serde_json::Error| BundleError::Malformed(error.to_string());
    let token = jws::sign(&serde_json::to_vec(&payload).map_err(json)?, keyid, key)?;
    let signatures = serde_json::to_vec(&Signatures { signatures: vec![token] }).map_err(json)?;
    all.insert(SIGNATURES.to_owned(), signatures);
    archive::write(&all)
}

/// Opens a signed bundle for `scope`: limits, archive, signature, file set, hashes, manifest, data; in this order.
///
/// Age is not judged here, because it needs a clock and a memory: see [`rollback_check`] and [`expiry_check`].
pub fn bundle_open(bytes: &[u8], keys: &KeyRing, scope: &str) -> Result<Bundle, BundleError> {
    let mut all = archive::read(bytes)?;
    let signatures = all.remove(SIGNATURES).ok_or(BundleError::Signature("the bundle is not signed"))?;
    let signatures: Signatures = serde_json::from_slice(&signatures)
        .map_err(|error| BundleError::Malformed(format!("{SIGNATURES}: {error}")))?;
    let [token] = &signatures.signatures[..] else {
        return Err(BundleError::Signature("there must be exactly one signature"));
    };
    let (payload, keyid, record) = jws::verify(token, keys)?;
    let payload: Payload = serde_json::from_slice(&payload)
        .map_err(|error| BundleError::Malformed(format!("the signed payload: {error}")))?;
    if payload.keyid.as_ref().is_some_and(|claimed| claimed != keyid) {
        return Err(BundleError::Signature("the header and the payload name different keys"));
    }
    if payload.scope != scope || record.scope != scope {
        return Err(BundleError::Signature("the bundle or its key is for another scope"));
    }
    files_check(&payload.files, &all)?;
    let manifest = contents_check(&all)?;
    if manifest.metadata.min_engine > ENGINE {
        return Err(BundleError::Engine(manifest.metadata.min_engine));
    }
    all.remove(MANIFEST);
    Ok(Bundle {
        manifest,
        scope: scope.to_owned(),
        keyid: keyid.to_owned(),
        files: all,
        digest: kernel::sha256(bytes),
    })
}

/// Refuses to go back: a lower sequence number than the last, or the same one with other contents.
pub fn rollback_check(last: Option<&Seen>, bundle: &Bundle) -> Result<(), BundleError> {
    match last {
        Some(last)
            if bundle.seq() < last.seq || (bundle.seq() == last.seq && bundle.digest != last.digest) =>
        {
            Err(BundleError::Rollback { seq: bundle.seq(), last: last.seq })
        }
        _ => Ok(()),
    }
}

/// Refuses a bundle that is past its end at `now_ms`.
pub fn expiry_check(bundle: &Bundle, now_ms: i64) -> Result<(), BundleError> {
    if now_ms >= bundle.not_after_ms() { Err(BundleError::Expired(bundle.not_after_ms())) } else { Ok(()) }
}

/// The signed set and the files, equal in both directions and hash by hash.
fn files_check(signed: &[FileHash], files: &Files) -> Result<(), BundleError> {
    let mut expected = BTreeMap::new();
    for file in signed {
        if file.algorithm != HASH {
            return Err(BundleError::Signature("a file is hashed with something else than SHA-256"));
        }
        if expected.insert(file.name.as_str(), file.hash.as_str()).is_some() {
            return Err(BundleError::Files(format!("{} is signed twice", file.name)));
        }
    }
    for (name, content) in files {
        let hash = expected
            .remove(name.as_str())
            .ok_or_else(|| BundleError::Files(format!("{name} is not signed")))?;
        if hex::decode32(hash) != Some(file_hash(name, content)?) {
            return Err(BundleError::Files(format!("{name} was changed")));
        }
    }
    match expected.keys().next() {
        Some(name) => Err(BundleError::Files(format!("{name} is missing"))),
        None => Ok(()),
    }
}

/// The hash of one file as OPA makes it: structured documents by their walk, everything else by its bytes.
fn file_hash(name: &str, content: &[u8]) -> Result<Digest, BundleError> {
    if matches!(name, MANIFEST | DATA) {
        Ok(kernel::sha256(&document(name, content)?))
    } else {
        Ok(kernel::sha256(content))
    }
}

fn document(name: &str, content: &[u8]) -> Result<Vec<u8>, BundleError> {
    let malformed = |what: String| BundleError::Malformed(format!("{name}: {what}"));
    let text = std::str::from_utf8(content).map_err(|error| malformed(error.to_string()))?;
    canonical::walk(text).map_err(malformed)
}

/// What a bundle may consist of, signed or not. Returns its manifest.
fn contents_check(all: &Files) -> Result<Manifest, BundleError> {
    let malformed = |what: String| Err(BundleError::Malformed(what));
    let Some(manifest) = all.get(MANIFEST) else { return malformed("there is no .manifest".into()) };
    document(MANIFEST, manifest)?;
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| BundleError::Malformed(format!("{MANIFEST}: {error}")))?;
    manifest_check(&manifest)?;
    let mut modules = 0;
    for (name, content) in all {
        match name.as_str() {
            MANIFEST => (),
            DATA => {
                document(DATA, content)?;
                data_check(content, &manifest.roots)?;
            }
            _ if name.ends_with(".rego") => modules += 1,
            _ => return malformed(format!("{name} is neither Rego, nor {DATA}, nor {MANIFEST}")),
        }
    }
    if modules == 0 {
        return malformed("there is no Rego in it".into());
    }
    Ok(manifest)
}

fn manifest_check(manifest: &Manifest) -> Result<(), BundleError> {
    let printable = manifest.revision.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let root_ok = |root: &String| {
        root.len() <= NAME_BYTES_MAX
            && root.split('/').all(|part| {
                part.starts_with(|ch: char| ch.is_ascii_lowercase())
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            })
            && root.split('/').next() != Some("system")
    };
    let overlap = manifest
        .roots
        .iter()
        .enumerate()
        .any(|(at, a)| manifest.roots.iter().skip(at + 1).any(|b| under(a, b) || under(b, a)));
    let wrong = if manifest.revision.is_empty() || manifest.revision.len() > NAME_BYTES_MAX || !printable {
        "revision is 1 to 128 printable ASCII characters"
    } else if manifest.roots.is_empty() || manifest.roots.len() > ROOTS_MAX {
        "roots names 1 to 8 paths"
    } else if !manifest.roots.iter().all(root_ok) {
        "a root is a path of lower-case names, and not under system"
    } else if overlap {
        "no root lies under another"
    } else if manifest.rego_version != 1 {
        "rego_version is 1"
    } else {
        return Ok(());
    };
    Err(BundleError::Malformed(format!("{MANIFEST}: {wrong}")))
}

/// Whether the path `path` is `root` or lies under it.
fn under(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All data lies under a root: along the way to a root an object may hold nothing but the way.
fn data_check(content: &[u8], roots: &[String]) -> Result<(), BundleError> {
    fn descend(value: &serde_json::Value, at: &str, roots: &[String]) -> Result<(), String> {
        if roots.iter().any(|root| under(at, root)) {
            return Ok(());
        }
        let outside = || format!("{DATA}: {at:?} lies under no root");
        if !at.is_empty() && !roots.iter().any(|root| under(root, at)) {
            return Err(outside());
        }
        // Depth is bounded by the roots' own.
        value.as_object().ok_or_else(outside)?.iter().try_for_each(|(key, value)| {
            if key.contains('/') {
                return Err(outside());
            }
            let at = if at.is_empty() { key.clone() } else { format!("{at}/{key}") };
            descend(value, &at, roots)
        })
    }
    let value = serde_json::from_slice(content)
        .map_err(|error| BundleError::Malformed(format!("{DATA}: {error}")))?;
    descend(&value, "", roots).map_err(BundleError::Malformed)
}
