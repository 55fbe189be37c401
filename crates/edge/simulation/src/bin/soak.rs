//! Histories one after another: for as long as it is told, from a seed on; or one of them, step by step.
//!
//! ```text
//! soak --hours 8            from a seed that nobody has tried, on every core
//! soak --seeds 50000        so many
//! soak --from 7 --seeds 10  these
//! soak --seed 7             this one, aloud
//! ```
//!
//! The first history that fails ends it, with exit code 1 and the command that shows the history again.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

use simulation::{Seeded, Stage};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Clock as _, SystemClock};

const USAGE: &str =
    "usage: soak [--hours H | --minutes M | --seeds N] [--from SEED] [--threads N] | soak --seed SEED";
/// How often it says how far it is, microseconds.
const PROGRESS_US: u64 = 10_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    seed: Option<u64>,
    from: Option<u64>,
    seeds: Option<u64>,
    minutes: Option<u64>,
    threads: Option<u64>,
}

fn asked(args: impl Iterator<Item = String>) -> Option<Asked> {
    let (mut asked, mut args) = (Asked::default(), args);
    while let Some(name) = args.next() {
        let value = args.next()?.parse::<u64>().ok()?;
        match name.as_str() {
            "--seed" => asked.seed = Some(value),
            "--from" => asked.from = Some(value),
            "--seeds" => asked.seeds = Some(value),
            "--minutes" => asked.minutes = Some(value),
            "--hours" => asked.minutes = Some(value.checked_mul(60)?),
            "--threads" => asked.threads = Some(value),
            _ => return None,
        }
    }
    Some(asked)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn main() -> ExitCode {
    let Some(asked) = asked(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if let Some(seed) = asked.seed {
        let told = runtime().map(|runtime| {
            runtime.block_on(async { Seeded { seed, aloud: true }.live(&Stage::set().await).await })
        });
        return match told {
            Ok(told) => {
                println!("{told:#?}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    soak(asked)
}

/// Counts of all threads.
#[derive(Default)]
struct Counts {
    histories: AtomicU64,
    steps: AtomicU64,
    faults: AtomicU64,
    crashes: AtomicU64,
}

fn soak(asked: Asked) -> ExitCode {
    // Seeds of another day are other seeds; the first two millions belong to the tests.
    let fresh = u64::try_from(SystemClock.now_ms()).unwrap_or(0) * 1_000;
    let from = asked.from.unwrap_or(fresh);
    let (next, counts) = (Arc::new(AtomicU64::new(from)), Arc::new(Counts::default()));
    let last = asked.seeds.map_or(u64::MAX, |seeds| from.saturating_add(seeds));
    let begun_us = SystemClock.monotonic_us();
    let until_us = asked.minutes.map_or(u64::MAX, |minutes| begun_us + minutes * 60_000_000);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let threads: Vec<_> = (0..asked.threads.unwrap_or(cores).max(1))
        .map(|thread| {
            let (next, counts) = (next.clone(), counts.clone());
            std::thread::spawn(move || {
                let Ok(runtime) = runtime() else { return };
                runtime.block_on(async {
                    let stage = Stage::set().await;
                    let mut said_us = SystemClock.monotonic_us();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last || SystemClock.monotonic_us() >= until_us {
                            return;
                        }
                        let told = Seeded { seed, aloud: false }.live(&stage).await;
                        counts.histories.fetch_add(1, Ordering::Relaxed);
                        counts.steps.fetch_add(u64::from(told.steps), Ordering::Relaxed);
                        counts.faults.fetch_add(u64::from(told.faults), Ordering::Relaxed);
                        counts.crashes.fetch_add(u64::from(told.crashes), Ordering::Relaxed);
                        let now_us = SystemClock.monotonic_us();
                        if thread == 0 && now_us - said_us >= PROGRESS_US {
                            said_us = now_us;
                            say(&counts, now_us - begun_us, seed);
                        }
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        if thread.join().is_err() {
            // The thread has said which history it was.
            say(&counts, SystemClock.monotonic_us() - begun_us, next.load(Ordering::Relaxed));
            return ExitCode::FAILURE;
        }
    }
    say(&counts, SystemClock.monotonic_us() - begun_us, next.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}

fn say(counts: &Counts, elapsed_us: u64, seed: u64) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} s: {} histories up to seed {seed}, {} steps, {} faults, {} crashes",
        elapsed_us / 1_000_000,
        of(&counts.histories),
        of(&counts.steps),
        of(&counts.faults),
        of(&counts.crashes)
    );
}
