//! How many facts a second one core verifies, and where the time goes.
//!
//! ```text
//! cargo run --release --example verify_bench -p evidence -- [FACTS]
//! ```
//!
//! The bundle holds a whole log of facts as a workflow engine states them. The baseline is what no verifier can do
//! without: hashing every leaf once for the tree and every byte once for the manifest. Each row is the best of five
//! rounds: other work on the machine is not the verifier's.

#[path = "../tests/workshop/mod.rs"]
#[expect(dead_code, reason = "the workshop serves the tests; the bench needs a part of it")]
mod workshop;

use kernel::{fact, merkle, sha256};
use serde_json::json;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use store::{Clock as _, SystemClock};
use workshop::{Log, ORIGIN, Says, id, ours, trust};

const ROUNDS: usize = 5;
/// Runs that are under way at once.
const RUNS: usize = 32;
/// Facts of one run.
const STEPS: usize = 8;

fn main() {
    let size: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let mut log = Log::new(ORIGIN);
    let policy = kernel::hex::encode(&sha256(b"policy"));
    let mut previous = None;
    for n in 0..size {
        let run = n / (RUNS * STEPS) * RUNS + n % RUNS;
        let fact = id(&format!("fct_0192f6c1a7b27d3e{n:016x}"));
        log.fact(
            &format!("run_0192f6c1a7b27d3e{run:016x}"),
            Says {
                id: Some(fact.clone()),
                causes: previous.replace(fact).into_iter().collect(),
                args: n.is_multiple_of(2).then(|| json!({"step": n})),
                policy: Some(policy.clone()),
                outcome: Some(
                    json!({"step": "write_back", "status": "done", "cost_micros": 1234, "attempt": 1}),
                ),
                // The engine's clock stands still for it, so that a large log needs no future.
                late_ms: -(n as i64 * 10),
                ..Says::default()
            },
        );
    }
    log.checkpoint(&ours());
    let mut parts = log.whole();
    parts.disclosures.clear();
    let bundle = workshop::bundle(&parts);
    let trust = trust();
    let leaves = &log.leaves;
    let bytes: usize = leaves.iter().map(Vec::len).sum();
    say(&format!("{size} facts, {} bytes each, bundle of {} bytes", bytes / size, bundle.len()));

    let baseline = best(|| {
        let hashes: Vec<_> = leaves.iter().map(|leaf| merkle::leaf_hash(leaf)).collect();
        black_box((merkle::root_of(&hashes), sha256(&bundle)));
    });
    let files = workshop::files(&bundle);
    let rows = BTreeMap::from([
        ("1 baseline: leaf hashes, root, one digest of the bundle", baseline),
        ("2 verify", best(|| assert!(evidence::verify(&bundle, &trust, None).ok()))),
        (
            "3   of it: reading leaves",
            best(|| leaves.iter().for_each(|leaf| drop(black_box(fact::read(leaf))))),
        ),
        (
            "4   of it: leaf hashes",
            best(|| {
                leaves.iter().for_each(|leaf| {
                    black_box(merkle::leaf_hash(leaf));
                })
            }),
        ),
        (
            "5   of it: root",
            best(|| {
                black_box(merkle::root_of(&log.hashes));
            }),
        ),
        (
            "6   of it: digest of facts.jsonl",
            best(|| {
                black_box(sha256(&files["facts.jsonl"]));
            }),
        ),
    ]);
    for (name, micros) in rows {
        let rate = size as f64 / micros as f64 * 1e6;
        say(&format!("{name:<60} {:>8.1} ms  {rate:>12.0} facts/s", micros as f64 / 1000.0));
    }
}

fn best(mut work: impl FnMut()) -> u64 {
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let from = SystemClock.monotonic_us();
        work();
        best = best.min(SystemClock.monotonic_us() - from);
    }
    best.max(1)
}

fn say(text: &str) {
    // Nobody to tell if there is no standard output.
    let _ = writeln!(std::io::stdout(), "{text}");
}
