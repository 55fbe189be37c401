//! Putting a bundle together: pure, from parts that are already loaded.
//!
//! | file | what it is |
//! |---|---|
//! | `manifest.dsse.json` | signed: the digest of every other file, and what the bundle claims |
//! | `checkpoint` | the newest checkpoint of the log, a C2SP signed note |
//! | `history.json` | earlier checkpoints, each proven to be a prefix of the next |
//! | `facts.jsonl` | one leaf per line, exactly as hashed |
//! | `proof.json` | where the leaves stand, and one multi-proof for all of them |
//! | `disclosures.json` | arguments that are shown, with the salts that open their commitments |
//! | `policy/<sha256>.bundle` | the policies that decided |
//! | `summary.json` | for people: counts, times, costs; computed, not proven |
//! | `readme.txt` | how to verify, with this project's tool and without |
//!
//! [`assemble`] does not verify: a test hands it lies, to see them found.

use crate::archive::{self, ArchiveError};
use crate::manifest::{
    self, CHECKPOINT, Claim, DISCLOSURES, FACTS, HISTORY, MANIFEST, NOT_PROVEN, POLICY, PROOF, Predicate,
    README, SUMMARY,
};
use crate::signing::Signing;
use crate::summary;
use crate::verify::{Disclosed, HistoryRow, ProofFile};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kernel::json::JsonError;
use kernel::note::Checkpoint;
use kernel::{Digest, hex};
use serde_json::Value;
use std::collections::BTreeMap;
use store::LeafRow;

/// What a bundle is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The stream that it is about, or [`manifest::WHOLE_LOG`].
    pub subject: String,
    /// When it is made, milliseconds UTC.
    pub created_at_ms: i64,
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// The same, signed.
    pub note: String,
    /// Earlier checkpoints, signed, each with the proof that it is a prefix of the next; the last one's next is the newest.
    pub history: Vec<(String, Vec<Digest>)>,
    /// Leaves in order of their indices.
    pub facts: Vec<LeafRow>,
    /// Streams that are here completely, with the number of their last fact, in order.
    pub streams: Vec<Claim>,
    /// The multi-proof for the leaves in the tree of the checkpoint.
    pub hashes: Vec<Digest>,
    /// Openings by fact, as [`kernel::commitment::disclose`] makes them, in order of the facts.
    pub disclosures: Vec<(String, Value)>,
    /// Policy bundles by their digests.
    pub policies: BTreeMap<Digest, Vec<u8>>,
    /// Ids that facts name as causes and that could not be found; for the summary.
    pub causes_absent: Vec<String>,
}

/// A finished bundle.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its SHA-256.
    pub digest: Digest,
    /// What it claims.
    pub predicate: Predicate,
    /// Facts in it.
    pub facts: u64,
}

/// Why parts make no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Larger than a bundle may be.
    #[error("the bundle would be too large")]
    TooLarge,
    /// A part is outside the canonical JSON profile.
    #[error("a part of the bundle is outside the canonical JSON profile")]
    Json(#[from] JsonError),
}

impl From<ArchiveError> for BundleError {
    fn from(_: ArchiveError) -> BundleError {
        // Every name here is one of ours, so only a limit can be in the way.
        BundleError::TooLarge
    }
}

/// Makes a bundle of `parts` and signs it.
///
/// # Errors
/// If it would be too large, or a disclosure is outside the canonical JSON profile.
pub fn assemble(parts: &Parts, signing: &Signing) -> Result<Bundle, BundleError> {
    let predicate = Predicate {
        created_at_ms: parts.created_at_ms,
        not_proven: NOT_PROVEN.iter().map(|(claim, _)| (*claim).to_owned()).collect(),
        origin: parts.checkpoint.origin.clone(),
        ranges: ranges(&parts.facts),
        size: parts.checkpoint.size,
        streams: parts.streams.clone(),
        subject: parts.subject.clone(),
        tenant: parts.checkpoint.origin.rsplit('/').nth(1).unwrap_or_default().to_owned(),
    };
    let facts = facts_file(&parts.facts);
    if facts.len() > archive::BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge);
    }
    let history: Vec<HistoryRow> = parts
        .history
        .iter()
        .map(|(note, proof)| HistoryRow { checkpoint: note.clone(), proof: base64_list(proof) })
        .collect();
    let proof = ProofFile {
        hashes: base64_list(&parts.hashes),
        ranges: predicate.ranges.clone(),
        size: predicate.size,
    };
    let disclosures: Vec<Disclosed> = parts
        .disclosures
        .iter()
        .map(|(fact, fields)| Disclosed { fact: fact.clone(), fields: fields.clone() })
        .collect();
    let mut files = BTreeMap::from([
        (CHECKPOINT.to_owned(), parts.note.clone().into_bytes()),
        (DISCLOSURES.to_owned(), manifest::canonical(&disclosures)?),
        (FACTS.to_owned(), facts),
        (HISTORY.to_owned(), manifest::canonical(&history)?),
        (PROOF.to_owned(), manifest::canonical(&proof)?),
        (README.to_owned(), summary::readme(&predicate).into_bytes()),
        (SUMMARY.to_owned(), summary::summary(&predicate, parts)),
    ]);
    for (digest, bytes) in &parts.policies {
        files.insert(format!("{POLICY}{}.bundle", hex::encode(digest)), bytes.clone());
    }
    let sealed = manifest::seal(predicate.clone(), &files, &signing.evidence_key_id(), &*signing.statement)?;
    files.insert(MANIFEST.to_owned(), sealed);
    let bytes = archive::write(&files)?;
    Ok(Bundle { digest: kernel::sha256(&bytes), facts: parts.facts.len() as u64, bytes, predicate })
}

/// The leaves' indices as ranges `[from, to)`.
pub fn ranges(facts: &[LeafRow]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for row in facts {
        match ranges.last_mut() {
            Some((_, to)) if *to == row.index => *to += 1,
            _ => ranges.push((row.index, row.index + 1)),
        }
    }
    ranges
}

fn facts_file(facts: &[LeafRow]) -> Vec<u8> {
    let mut out = Vec::with_capacity(facts.iter().map(|row| row.leaf.len() + 1).sum());
    for row in facts {
        out.extend_from_slice(&row.leaf);
        out.push(b'\n');
    }
    out
}

fn base64_list(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(|hash| BASE64.encode(hash)).collect()
}
