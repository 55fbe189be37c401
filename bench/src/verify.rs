//! `verify`: how many facts a second one core verifies offline, and where the time goes.
//!
//! The bundle holds a whole log of facts as a workflow engine states them. The baseline is what no verifier can do
//! without: hashing every leaf once for the tree and every byte once for the manifest. Each figure is the best of five
//! rounds: other work on the machine is not the verifier's. The digest by which people name the bundle is no part of it;
//! `writ verify` takes it on another core.

// The place where evidence's own tests make their bundles.
#[path = "../../crates/services/evidence/tests/workshop/mod.rs"]
#[expect(dead_code, reason = "the workshop serves the tests; this needs a part of it")]
mod workshop;

use crate::row;
use kernel::{fact, lines, merkle, sha256};
use serde_json::{Value, json};
use std::hint::black_box;
use store::{Clock as _, SystemClock};
use workshop::{Log, ORIGIN, Says, id, ours, trust};

/// Facts in the bundle.
const FACTS: usize = 200_000;
const ROUNDS: usize = 5;
/// Runs that are under way at once.
const RUNS: usize = 32;
/// Facts of one run.
const STEPS: usize = 8;

fn log() -> Log {
    let mut log = Log::new(ORIGIN);
    let policy = kernel::hex::encode(&sha256(b"policy"));
    let mut previous = None;
    for n in 0..FACTS {
        let run = n / (RUNS * STEPS) * RUNS + n % RUNS;
        let fact = id(&format!("fct_0192f6c1a7b27d3e{n:016x}"));
        let outcome = json!({"step": "write_back", "status": "done", "cost_micros": 1234, "attempt": 1});
        log.fact(
            &format!("run_0192f6c1a7b27d3e{run:016x}"),
            Says {
                id: Some(fact.clone()),
                causes: previous.replace(fact).into_iter().collect(),
                args: n.is_multiple_of(2).then(|| json!({"step": n})),
                policy: Some(policy.clone()),
                outcome: Some(outcome),
                // The engine's clock stands still for it, so that a large log needs no future.
                late_ms: -(n as i64 * 10),
                ..Says::default()
            },
        );
    }
    log.checkpoint(&ours());
    log
}

/// Facts per second of the best round, on one core.
fn rate(mut work: impl FnMut()) -> f64 {
    let mut best_us = u64::MAX;
    for _ in 0..ROUNDS {
        let from_us = SystemClock.monotonic_us();
        work();
        best_us = best_us.min(SystemClock.monotonic_us() - from_us);
    }
    FACTS as f64 / best_us.max(1) as f64 * 1e6
}

/// The row, after a breakdown on standard output.
#[expect(clippy::print_stdout, reason = "figures are printed")]
pub fn rows() -> Vec<Value> {
    let log = log();
    let mut parts = log.whole();
    parts.disclosures.clear();
    let bundle = workshop::bundle(&parts);
    let trust = trust();
    let files = workshop::files(&bundle);
    let baseline = rate(|| {
        let hashes: Vec<_> = log.leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
        black_box((merkle::root_of(&hashes), sha256(&bundle)));
    });
    let verified = rate(|| {
        let report = evidence::verify(&bundle, &trust, None);
        assert!(report.ok(), "{:?}", report.failure);
    });
    let parts: [(&str, f64); 6] = [
        ("reading leaves", rate(|| log.leaves.iter().for_each(|leaf| drop(black_box(fact::read(leaf)))))),
        ("hashes, both at once", rate(|| _ = black_box(lines::hash(&files["facts.jsonl"], usize::MAX)))),
        (
            "alone: leaf hashes",
            rate(|| log.leaves.iter().for_each(|leaf| _ = black_box(merkle::leaf_hash(leaf)))),
        ),
        ("root", rate(|| _ = black_box(merkle::root_of(&log.hashes)))),
        ("alone: facts.jsonl", rate(|| _ = black_box(sha256(&files["facts.jsonl"])))),
        ("beside it: the bundle's", rate(|| _ = black_box(sha256(&bundle)))),
    ];
    for (name, rate) in parts {
        println!("verify, of it {name:<24} {:>5.0} ns a fact", 1e9 / rate);
    }
    vec![row("verify", verified, "facts/s", Some(baseline), 0, ">= 500000 on one core")]
}
