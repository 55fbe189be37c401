//! The two files for people: a summary and a read-me. Neither is looked at by a verifier beyond its digest, and both say so.

use crate::bundle::Parts;
use crate::manifest::{NOT_PROVEN, Predicate, WHOLE_LOG};
use kernel::fact;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most streams listed one by one.
const STREAMS_MAX: usize = 10_000;
/// Most causes listed that are not in the bundle.
const CAUSES_MAX: usize = 1_000;

#[derive(Default)]
struct Stream {
    facts: u64,
    first_at_ms: i64,
    last_at_ms: i64,
    last_kind: String,
    costs: BTreeMap<String, i64>,
}

/// The summary: counts by kind, and per stream its times, its last fact and what it cost.
///
/// A cost is the integer member `cost_micros` of a fact's outcome. Sums are kept apart by kind of fact, because one cost may
/// be stated twice: by the call that caused it and by the bill.
pub(crate) fn summary(predicate: &Predicate, parts: &Parts) -> Vec<u8> {
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut costs: BTreeMap<String, i64> = BTreeMap::new();
    let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
    for row in &parts.facts {
        let Some(leaf) = fact::read(&row.leaf) else { continue };
        *kinds.entry(leaf.kind.to_string()).or_default() += 1;
        let stream = streams.entry(leaf.stream.to_string()).or_default();
        if stream.facts == 0 {
            stream.first_at_ms = leaf.at_ms;
        }
        stream.facts += 1;
        stream.last_at_ms = leaf.at_ms;
        stream.last_kind = leaf.kind.to_string();
        if let Some(cost) = cost(leaf.outcome.get()) {
            for sums in [&mut costs, &mut stream.costs] {
                let sum = sums.entry(leaf.kind.to_string()).or_default();
                *sum = sum.saturating_add(cost);
            }
        }
    }
    let omitted = streams.len().saturating_sub(STREAMS_MAX);
    let streams: Map<String, Value> = streams
        .into_iter()
        .take(STREAMS_MAX)
        .map(|(id, stream)| {
            let value = json!({
                "facts": stream.facts, "first_at_ms": stream.first_at_ms, "last_at_ms": stream.last_at_ms,
                "last_kind": stream.last_kind, "cost_micros": stream.costs,
            });
            (id, value)
        })
        .collect();
    let summary = json!({
        "note": "Computed from facts.jsonl for people to read. Nothing here is proven; the facts are.",
        "subject": predicate.subject, "origin": predicate.origin, "created_at_ms": predicate.created_at_ms,
        "facts": parts.facts.len(), "kinds": kinds, "cost_micros": costs,
        "streams": streams, "streams_omitted": omitted,
        "causes_absent": parts.causes_absent.iter().take(CAUSES_MAX).collect::<Vec<_>>(),
    });
    // A JSON value always serialises.
    let mut bytes = serde_json::to_vec_pretty(&summary).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn cost(outcome: &str) -> Option<i64> {
    // Most outcomes have no cost; a search is cheaper than a parse.
    if !outcome.contains("\"cost_micros\"") {
        return None;
    }
    serde_json::from_str::<Value>(outcome).ok()?.get("cost_micros")?.as_i64()
}

/// How to verify, for whoever finds the file in ten years.
pub(crate) fn readme(predicate: &Predicate) -> String {
    let about = if predicate.subject == WHOLE_LOG {
        format!("the whole log {}", predicate.origin)
    } else {
        format!("{} in the log {}", predicate.subject, predicate.origin)
    };
    let mut not_proven = String::new();
    for (claim, meaning) in NOT_PROVEN {
        not_proven.push_str(&format!("  {claim}: {meaning}\n"));
    }
    format!(
        "EVIDENCE\n\
         \n\
         This archive is about {about}, {size} facts long when it was made.\n\
         \n\
         To verify it you need the trust file of the installation, from somebody you believe and not from whoever\n\
         gave you this archive. Compare its fingerprint with them.\n\
         \n\
         With writ:     writ verify THIS.evidence.tar --trust TRUST.json\n\
         With Python 3: python3 verify.py THIS.evidence.tar --trust TRUST.json\n\
         \n\
         Without either, with tools for DSSE, C2SP signed notes and RFC 6962:\n\
         \n\
         1. manifest.dsse.json is a DSSE v1 envelope around an in-toto v1 statement. Its Ed25519 key is in the trust\n\
         \x20  file under the keyid. It lists the SHA-256 of every other file.\n\
         2. checkpoint is a C2SP tlog-checkpoint: origin, size, root; signed by the log's key in the trust file.\n\
         3. Each line of facts.jsonl, without its line end, is a leaf: SHA-256(0x00, leaf). proof.json gives their\n\
         \x20  indices as ranges [from, to) and the hashes of the largest subtrees that hold none of them, left to\n\
         \x20  right. Together they hash (SHA-256(0x01, left, right)) to the root of the checkpoint.\n\
         4. history.json holds earlier checkpoints; each proof is the RFC 6962 consistency proof to the next one,\n\
         \x20  the last one's to the checkpoint.\n\
         5. Each entry of disclosures.json opens the args_commitment of a fact. The hash of a field is\n\
         \x20  SHA-256(0x02, salt, length of path as two bytes, path, canonical JSON of the value); a hidden field\n\
         \x20  is its hash. The RFC 6962 root over these hashes, in the order given, is the commitment.\n\
         6. policy/X.bundle has the SHA-256 X and is the policy, or part of it, that facts name.\n\
         \n\
         Not proven by any of this:\n\
         \n\
         {not_proven}",
        size = predicate.size,
    )
}
