//! How long a decision takes: the default platform policy on every one of its own cases.
//!
//! `cargo run --release -p governor --example decide_bench [rounds]` prints one line of JSON: the whole decision from
//! the typed input to the verdict on a warm thread, the conversion of the input alone, and, as the baseline in the
//! same run, the same rules in regorus' interpreter.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use governor::policy::bundle::{Algorithm, bundle_build, bundle_sign};
use governor::policy::cases::Case;
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::engine::{SecondOpinion, decide};
use governor::policy::{KeyRecord, KeyRing, PolicyInput, Warm, publish_check};
use p256::ecdsa::SigningKey;
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;

const CASES: &str = include_str!("../../../../contracts/policies/platform/cases.json");

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(1_000), |rounds| rounds.parse::<usize>())?;
    let (manifest, files) = platform_sources()?;
    let key = SigningKey::from_slice(&[7; 32])?;
    let bytes = bundle_sign(&bundle_build(&manifest, &files)?, "bench", PLATFORM_SCOPE, &key)?;
    let record =
        KeyRecord { scope: PLATFORM_SCOPE.into(), algorithm: Algorithm::Es256, key: *key.verifying_key() };
    let keys = KeyRing::from([("bench".to_owned(), record)]);
    let published = publish_check(&bytes, &keys, PLATFORM_SCOPE, None, 1_800_000_000_000)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let inputs: Vec<PolicyInput> =
        serde_json::from_str::<Vec<Case>>(CASES)?.into_iter().map(|case| case.input).collect();

    let decided = measure(rounds, &inputs, |input| {
        decide(&[&published.compiled], input);
    });
    let prepared = measure(rounds, &inputs, |input| {
        let _ = input.prepare();
    });
    let mut second = SecondOpinion::new(&published.bundle)?;
    let mut warm = Warm::new();
    let interpreted = measure(rounds.div_ceil(10), &inputs, |input| {
        if let Ok(prepared) = input.prepare() {
            // The comparison is part of what is asked; the machine's share is taken from the figures above.
            let verdict = published.compiled.explain(&prepared, &mut warm);
            let _ = second.objection(&prepared, &verdict);
        }
    });
    println!("{}", json!({ "decide": decided, "prepare": prepared, "interpreter_and_decide": interpreted }));
    Ok(())
}

/// Mean, median and 99th percentile in nanoseconds, after one round that is not counted.
fn measure(rounds: usize, inputs: &[PolicyInput], mut act: impl FnMut(&PolicyInput)) -> Value {
    inputs.iter().for_each(&mut act);
    let mut times: Vec<u64> = Vec::with_capacity(rounds * inputs.len());
    for _ in 0..rounds {
        for input in inputs {
            let start = Instant::now();
            act(input);
            times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 1_000).copied();
    json!({
        "decisions": times.len(),
        "mean_ns": times.iter().sum::<u64>() / times.len().max(1) as u64,
        "p50_ns": at(500),
        "p99_ns": at(990),
        "p999_ns": at(999),
    })
}
