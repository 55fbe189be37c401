//! Offline verification: from bytes and a trust file to a report. Pure, synchronous, no clock, no network, no store.
//!
//! The checks run in one fixed order and stop at the first that fails; order, rules and codes are shared to the letter with
//! the second verifier (`verify.py`), and a suite demands that the two agree on good and on tampered bundles.
//!
//! | check | what holds afterwards |
//! |---|---|
//! | `archive` | the bytes are the one archive of their files |
//! | `files` | every file is a known one, none is missing |
//! | `manifest` | a trusted key, valid when the bundle was made, signed the digests of exactly these files |
//! | `checkpoint` | the trusted key of the log signed its size and root; the manifest speaks of this log |
//! | `witnesses` | as many witnesses as the trust file asks for (none so far, or failure) |
//! | `history` | each earlier checkpoint is a prefix of the next, the last of the newest |
//! | `facts` | each leaf is in the frozen form, of this log, once, in order of time; as many as the ranges claim |
//! | `streams` | no number is missing in a stream that is claimed to be complete |
//! | `inclusion` | all leaves are in the log, at the indices claimed |
//! | `held` | the checkpoint that the verifier held from before belongs to the same history; one of another epoch is told apart |
//! | `disclosures` | every argument shown is one that the fact committed to |
//! | `policies` | each policy bundle here is the one that its facts name |
//! | `claims` | the bundle itself says what it does not prove |

mod facts;
mod report;

pub use report::{CODES, Check, Failure, Reason, Report};

use crate::archive::{self, ArchiveError};
use crate::manifest::{
    self, CHECKPOINT, CLAIMS_MAX, DISCLOSURES, Envelope, FACTS, HISTORY, MANIFEST, NOT_PROVEN, PAYLOAD_TYPE,
    POLICY, PREDICATE_TYPE, PROOF, Predicate, REQUIRED, STATEMENT_TYPE, Statement, WHOLE_LOG,
};
use crate::trust::{Trust, earlier_epoch, epoch_parts, holds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::Signature;
use facts::Facts;
use kernel::note::{Checkpoint, NoteError, VerifierKey};
use kernel::{Digest, commitment, hex, lines, merkle, sha256};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How far clocks may step back between two facts, and how far a fact may lie after the making of the bundle.
pub const SKEW_MS: i64 = 5 * 60 * 1000;
/// Most earlier checkpoints in a bundle.
pub const HISTORY_MAX: usize = 256;
/// Most hashes in one consistency proof: twice the height of any tree.
const CONSISTENCY_MAX: usize = 128;

/// The epoch of an origin that was found good.
fn epoch_of(origin: &str) -> u64 {
    epoch_parts(origin).map_or(0, |(_, epoch)| epoch)
}

/// A file of a bundle: name and content.
type Files<'a> = BTreeMap<&'a str, &'a [u8]>;

/// An earlier checkpoint with the proof that it is a prefix of the next.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryRow {
    pub checkpoint: String,
    /// Base64 hashes.
    pub proof: Vec<String>,
}

/// Where the leaves stand.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProofFile {
    /// The multi-proof, base64.
    pub hashes: Vec<String>,
    /// As in the manifest.
    pub ranges: Vec<(u64, u64)>,
    pub size: u64,
}

/// The opening of one fact's commitment.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disclosed {
    pub fact: String,
    /// As [`commitment::disclose`] makes it.
    pub fields: serde_json::Value,
}

fn fail<T>(reason: Reason, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(reason, detail))
}

/// Verifies a bundle. `held`, if any, is a checkpoint note that the verifier kept from an earlier time.
///
/// The report does not name the bundle yet: no check needs the digest of all of it, because the archive has one spelling and
/// the manifest signs every file. [`bundle_sha256`] takes it, on another core if there is one.
pub fn verify(bundle: &[u8], trust: &Trust, held: Option<&str>) -> Report {
    let mut report = Report::default();
    if let Err(failure) = run(&mut report, bundle, trust, held) {
        report.failed(failure);
    }
    report
}

/// The digest by which people name a bundle: what `sha256sum` says of the file.
pub fn bundle_sha256(bundle: &[u8]) -> String {
    hex::encode(&sha256(bundle))
}

/// [`verify`], and the bundle named in the report. The digest is taken while the checks run.
pub fn verify_named(bundle: &[u8], trust: &Trust, held: Option<&str>) -> Report {
    std::thread::scope(|scope| {
        let digest = scope.spawn(|| bundle_sha256(bundle));
        let report = verify(bundle, trust, held);
        // Hashing bytes in memory does not panic; if it did, the report would stand without a name.
        Report { bundle_sha256: digest.join().unwrap_or_default(), ..report }
    })
}

fn run(report: &mut Report, bundle: &[u8], trust: &Trust, held: Option<&str>) -> Result<(), Failure> {
    report.begin("archive");
    let files = archive::read(bundle).map_err(|error| {
        let reason = match error {
            ArchiveError::TooLarge => Reason::ArchiveTooLarge,
            ArchiveError::Malformed(_) => Reason::ArchiveMalformed,
            ArchiveError::Entry(_) => Reason::ArchiveEntry,
            ArchiveError::Name(_) => Reason::ArchiveName,
        };
        Failure::new(reason, error.to_string())
    })?;
    report.done(format!("{} files, {} bytes", files.len(), bundle.len()));

    report.begin("files");
    for name in files.keys() {
        if !REQUIRED.contains(name) && policy_digest(name).is_none() {
            return fail(Reason::FileUnexpected, *name);
        }
    }
    let file = |name: &str| files.get(name).copied().ok_or_else(|| Failure::new(Reason::FileMissing, name));
    for name in REQUIRED {
        file(name)?;
    }
    report.done(format!("{} of them policy bundles", files.len() - REQUIRED.len()));

    report.begin("manifest");
    let (predicate, hashed) = manifest_check(&files, file(MANIFEST)?, trust)?;
    report.subject = predicate.subject.clone();
    report.created_at_ms = predicate.created_at_ms;
    report.not_proven = predicate.not_proven.clone();
    report.done(format!("signed, made at {}Z", kernel::calendar::text(predicate.created_at_ms)));

    report.begin("checkpoint");
    let checkpoint = note_open(trust, file(CHECKPOINT)?, Some(predicate.created_at_ms))?;
    if predicate.origin != checkpoint.origin
        || predicate.size != checkpoint.size
        || checkpoint.origin.rsplit('/').nth(1) != Some(&predicate.tenant)
    {
        return fail(
            Reason::ManifestMismatch,
            "the manifest speaks of another log or size than the checkpoint",
        );
    }
    report.origin = checkpoint.origin.clone();
    report.size = checkpoint.size;
    report.done(format!("{} at size {}", checkpoint.origin, checkpoint.size));

    report.begin("witnesses");
    if trust.witnesses.quorum > 0 {
        return fail(Reason::WitnessQuorum, format!("{} asked for, none counted", trust.witnesses.quorum));
    }
    report.done("none asked for".into());

    report.begin("history");
    let history = history_check(file(HISTORY)?, trust, &checkpoint)?;
    report.done(format!("{} earlier checkpoints", history.len()));

    report.begin("facts");
    let proof: ProofFile = manifest::strict(file(PROOF)?)
        .ok_or_else(|| Failure::new(Reason::ProofMalformed, "not the members of a proof"))?;
    if proof.ranges != predicate.ranges || proof.size != predicate.size {
        return fail(Reason::ManifestMismatch, "the proof is about other ranges than the manifest");
    }
    let hashes = digests(&proof.hashes)
        .ok_or_else(|| Failure::new(Reason::ProofMalformed, "a hash is not 32 bytes of base64"))?;
    let facts = Facts::read(file(FACTS)?, &hashed, &predicate)?;
    report.facts = facts.leaves.len() as u64;
    report.streams = facts.streams.len() as u64;
    report.done(format!("{} facts in {} streams", report.facts, report.streams));

    report.begin("streams");
    let complete = facts.claims_check(&predicate)?;
    report.done(format!("{complete} complete"));

    report.begin("inclusion");
    if merkle::multi_root(checkpoint.size, &facts.leaves, &hashes) != Some(checkpoint.root) {
        return fail(Reason::Inclusion, "leaves and proof do not lead to the root of the checkpoint");
    }
    report.done(format!("{} hashes lead to the root", hashes.len()));

    report.begin("held");
    let detail = held_check(held, trust, &checkpoint, &history, &facts)?;
    report.done(detail.to_owned());

    report.begin("disclosures");
    report.disclosed = disclosures_check(file(DISCLOSURES)?, &facts)?;
    report.done(format!("{} of {} commitments opened", report.disclosed, facts.committed));

    report.begin("policies");
    for (name, content) in files.iter() {
        let Some(digest) = policy_digest(name) else { continue };
        if hex::encode(&sha256(content)) != digest {
            return fail(Reason::PolicyMismatch, *name);
        }
        if !facts.policies.contains(digest) {
            return fail(Reason::PolicyUnreferenced, *name);
        }
    }
    let absent = |digest: &&String| !files.contains_key(format!("{POLICY}{digest}.bundle").as_str());
    report.policies_absent = facts.policies.iter().filter(absent).cloned().collect();
    report.done(format!("{} named, {} not here", facts.policies.len(), report.policies_absent.len()));

    report.begin("claims");
    for (claim, _) in NOT_PROVEN {
        if !predicate.not_proven.iter().any(|said| said == claim) {
            return fail(Reason::Overclaim, format!("the manifest does not admit {claim}"));
        }
    }
    report.done(format!("{} things are not proven", predicate.not_proven.len()));
    Ok(())
}

/// The digest in the name of a policy bundle's file.
fn policy_digest(name: &str) -> Option<&str> {
    let digest = name.strip_prefix(POLICY)?.strip_suffix(".bundle")?;
    hex::decode32(digest).map(|_| digest)
}

/// What the manifest says, and the leaf hash of each fact, which is a by-product of comparing the digests.
fn manifest_check(
    files: &Files<'_>,
    bytes: &[u8],
    trust: &Trust,
) -> Result<(Predicate, Vec<Digest>), Failure> {
    let malformed = |what: &str| Failure::new(Reason::ManifestMalformed, what);
    let envelope: Envelope = manifest::strict(bytes)
        .ok_or_else(|| malformed("not the members of an envelope in canonical form"))?;
    if envelope.kind != PAYLOAD_TYPE {
        return fail(Reason::ManifestType, "the payload is of another type");
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(malformed("not exactly one signature"));
    };
    let payload = BASE64.decode(&envelope.payload).map_err(|_| malformed("the payload is not base64"))?;
    let bytes: [u8; 64] = BASE64
        .decode(&signature.sig)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| malformed("the signature is not 64 bytes of base64"))?;
    let (row, key) = trust
        .evidence_keys
        .iter()
        .find(|row| row.id == signature.keyid)
        .and_then(|row| Some((row, row.verifying()?)))
        .ok_or_else(|| Failure::new(Reason::EvidenceKeyUnknown, signature.keyid.clone()))?;
    if key.verify_strict(&manifest::encoding(PAYLOAD_TYPE, &payload), &Signature::from_bytes(&bytes)).is_err()
    {
        return fail(Reason::ManifestSignature, signature.keyid.clone());
    }
    let statement: Statement = manifest::strict(&payload)
        .ok_or_else(|| malformed("not the members of a statement in canonical form"))?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_kind != PREDICATE_TYPE {
        return fail(Reason::ManifestType, "the statement is of another type");
    }
    let predicate = statement.predicate;
    predicate_check(&predicate)?;
    if !holds(row.from_ms, row.until_ms, predicate.created_at_ms) {
        return fail(Reason::EvidenceKeyExpired, row.id.clone());
    }
    let mut listed: BTreeMap<&str, Digest> = BTreeMap::new();
    for subject in &statement.subject {
        let digest =
            hex::decode32(&subject.digest.sha256).ok_or_else(|| malformed("a digest is not hexadecimal"))?;
        let ascending = listed.last_key_value().is_none_or(|(last, _)| *last < subject.name.as_str());
        if !ascending || subject.name == MANIFEST {
            return Err(malformed("the files listed are out of order, doubled, or the manifest itself"));
        }
        listed.insert(&subject.name, digest);
    }
    let mut hashed = Vec::new();
    for (name, content) in files.iter().filter(|(name, _)| **name != MANIFEST) {
        let Some(expected) = listed.get(name) else { return fail(Reason::FileUnlisted, *name) };
        let digest = if *name == FACTS {
            // Not more than were signed for: a leaf can be shorter than its hash.
            let (digest, leaves) = lines::hash(content, predicate.facts().unwrap_or(0));
            hashed = leaves;
            digest
        } else {
            sha256(content)
        };
        if digest != *expected {
            return fail(Reason::FileDigest, *name);
        }
    }
    match listed.keys().find(|name| !files.contains_key(*name)) {
        Some(name) => fail(Reason::FileMissing, *name),
        None => Ok((predicate, hashed)),
    }
}

fn predicate_check(predicate: &Predicate) -> Result<(), Failure> {
    let malformed = |what: &str| fail(Reason::ManifestMalformed, what);
    if predicate.ranges.len() > CLAIMS_MAX || predicate.streams.len() > CLAIMS_MAX {
        return malformed("more than 100,000 claims");
    }
    let mut end = None;
    for (from, to) in &predicate.ranges {
        if end.is_some_and(|end| *from <= end) || from >= to || *to > predicate.size {
            return malformed("the ranges are empty, out of order, not apart, or beyond the log");
        }
        end = Some(*to);
    }
    if !predicate.streams.is_sorted_by(|a, b| a.stream < b.stream)
        || predicate.streams.iter().any(|claim| claim.last == 0 || !kernel::Id::valid(&claim.stream))
    {
        return malformed("the streams are out of order, doubled, empty or no ids");
    }
    let whole = if predicate.size == 0 { vec![] } else { vec![(0, predicate.size)] };
    let about_it_all = predicate.subject == WHOLE_LOG && predicate.ranges == whole;
    if !about_it_all && !predicate.streams.iter().any(|claim| claim.stream == predicate.subject) {
        return fail(Reason::Overclaim, "the bundle does not claim to hold what it is about");
    }
    Ok(())
}

/// Opens a checkpoint with a trusted key of its log; with `at_ms`, a key that held then.
fn note_open(trust: &Trust, bytes: &[u8], at_ms: Option<i64>) -> Result<Checkpoint, Failure> {
    let note =
        std::str::from_utf8(bytes).map_err(|_| Failure::new(Reason::CheckpointMalformed, "not UTF-8"))?;
    let origin = note.split('\n').next().unwrap_or_default();
    let mut failure = Failure::new(Reason::LogUnknown, origin);
    for row in trust.log(origin) {
        // Parsed once when the trust file was; a key that does not parse now opens nothing.
        let Ok(key) = VerifierKey::parse(&row.key) else { continue };
        failure = match Checkpoint::open(note, &key) {
            Ok(checkpoint) if at_ms.is_none_or(|at_ms| holds(row.from_ms, row.until_ms, at_ms)) => {
                return Ok(checkpoint);
            }
            Ok(_) => Failure::new(Reason::LogKeyExpired, origin),
            Err(NoteError::Malformed | NoteError::NotACheckpoint) => {
                return fail(Reason::CheckpointMalformed, "not a signed checkpoint");
            }
            // The graver finding stays: a key that signed badly, or too early, outweighs one that did not sign.
            Err(NoteError::UnknownKey) if failure.reason == Reason::LogUnknown => {
                Failure::new(Reason::CheckpointKeyUnknown, origin)
            }
            Err(NoteError::UnknownKey) => failure,
            Err(NoteError::Signature) => return fail(Reason::CheckpointSignature, origin),
        };
    }
    Err(failure)
}

fn history_check(bytes: &[u8], trust: &Trust, newest: &Checkpoint) -> Result<Vec<Checkpoint>, Failure> {
    let malformed = |what: &str| Failure::new(Reason::HistoryMalformed, what);
    let rows: Vec<HistoryRow> =
        manifest::strict(bytes).ok_or_else(|| malformed("not a list of checkpoints"))?;
    if rows.len() > HISTORY_MAX {
        return Err(malformed("more than 256 checkpoints"));
    }
    let mut history: Vec<(Checkpoint, Vec<Digest>)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let checkpoint = note_open(trust, row.checkpoint.as_bytes(), None)?;
        let proof = digests(&row.proof).filter(|proof| proof.len() <= CONSISTENCY_MAX);
        let proof = proof.ok_or_else(|| malformed("a proof is not a list of 32-byte hashes in base64"))?;
        if checkpoint.origin != newest.origin {
            return Err(malformed("a checkpoint of another log"));
        }
        history.push((checkpoint, proof));
    }
    for (n, (old, proof)) in history.iter().enumerate() {
        let new = history.get(n + 1).map_or(newest, |(next, _)| next);
        if old.size >= new.size
            || !merkle::consistency_verify(old.size, &old.root, new.size, &new.root, proof)
        {
            return fail(Reason::HistoryInconsistent, format!("size {} against size {}", old.size, new.size));
        }
    }
    Ok(history.into_iter().map(|(checkpoint, _)| checkpoint).collect())
}

fn held_check(
    held: Option<&str>,
    trust: &Trust,
    newest: &Checkpoint,
    history: &[Checkpoint],
    facts: &Facts<'_>,
) -> Result<&'static str, Failure> {
    let Some(held) = held else { return Ok("none given") };
    let held = note_open(trust, held.as_bytes(), None)
        .map_err(|failure| Failure::new(Reason::HeldInvalid, failure.reason.code()))?;
    let apart = held.origin != newest.origin;
    if apart && !(earlier_epoch(&held.origin, &newest.origin) || earlier_epoch(&newest.origin, &held.origin))
    {
        return fail(Reason::HeldInvalid, "the checkpoint held is of another log");
    }
    if apart {
        return held_apart(&held, newest, facts);
    }
    if held.size > newest.size {
        return fail(
            Reason::HeldNewer,
            format!("held at size {}, the bundle ends at {}", held.size, newest.size),
        );
    }
    let same_size = history.iter().chain([newest]).find(|checkpoint| checkpoint.size == held.size);
    let prefix = usize::try_from(held.size).ok().and_then(|size| facts.leaves.get(..size));
    let root = match (same_size, prefix) {
        (Some(checkpoint), _) => checkpoint.root,
        // Leaves are in order of their indices: if there are `size` of them up to this index, they are all.
        (None, Some(prefix)) if prefix.last().is_none_or(|(index, _)| index + 1 == held.size) => {
            merkle::root_of(&prefix.iter().map(|(_, hash)| *hash).collect::<Vec<_>>())
        }
        _ => return fail(Reason::HeldUnproven, format!("the bundle says nothing about size {}", held.size)),
    };
    if root == held.root {
        Ok("belongs to the same history")
    } else {
        fail(Reason::HeldConflict, format!("two histories at size {}", held.size))
    }
}

/// A checkpoint of another epoch than the bundle's. It was honestly signed, whatever became of the log since: that the
/// log was put back is what the epoch says. So it is told apart from a forgery, and holds only if the bundle shows that
/// what it covers is what this history begins with.
fn held_apart(held: &Checkpoint, newest: &Checkpoint, facts: &Facts<'_>) -> Result<&'static str, Failure> {
    let (one, other) = (epoch_of(&held.origin), epoch_of(&newest.origin));
    let prefix = usize::try_from(held.size).ok().and_then(|size| facts.leaves.get(..size));
    let root = match prefix {
        _ if held.size == newest.size => Some(newest.root),
        Some(prefix) if prefix.last().is_none_or(|(index, _)| index + 1 == held.size) => {
            Some(merkle::root_of(&prefix.iter().map(|(_, hash)| *hash).collect::<Vec<_>>()))
        }
        _ => None,
    };
    let what = match root {
        Some(root) if root == held.root => return Ok("of another epoch, and belongs to the same history"),
        Some(_) => "and the two went apart before it",
        None => "and the bundle does not show what it covers",
    };
    fail(
        Reason::HeldEpoch,
        format!("held at size {} in epoch {one}, the bundle is of epoch {other}, {what}", held.size),
    )
}

fn disclosures_check(bytes: &[u8], facts: &Facts<'_>) -> Result<u64, Failure> {
    let malformed = || Failure::new(Reason::DisclosureMalformed, "not a list of disclosures");
    let rows: Vec<Disclosed> = manifest::strict(bytes).ok_or_else(malformed)?;
    let mut seen = BTreeSet::new();
    for row in &rows {
        let Some(Some(digest)) = facts.commitments.get(row.fact.as_str()) else {
            return fail(Reason::DisclosureUnknown, row.fact.clone());
        };
        if !seen.insert(row.fact.as_str()) {
            return fail(Reason::DisclosureMalformed, format!("{} twice", row.fact));
        }
        // Read from a leaf, which holds only digests there.
        let digest = hex::decode32(digest).unwrap_or_default();
        match commitment::open(&digest, &row.fields) {
            Ok(()) => {}
            Err(commitment::CommitmentError::Mismatch) => {
                return fail(Reason::DisclosureMismatch, row.fact.clone());
            }
            Err(_) => return fail(Reason::DisclosureMalformed, row.fact.clone()),
        }
    }
    Ok(rows.len() as u64)
}

/// Reads hashes in base64.
fn digests(texts: &[String]) -> Option<Vec<Digest>> {
    texts.iter().map(|text| BASE64.decode(text).ok()?.try_into().ok()).collect()
}
