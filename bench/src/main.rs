//! `make bench`: the figures that decide how the write path is built, each with its baseline from the same run.
//!
//! Writes `bench/results/latest.json`, a list of `{name, value, unit, baseline, ratio, fsync_p50_us, at}`; `bar` says what
//! the figure has to reach. These machines are shared: quote ratios, and the fsync beside them.
//!
//! With an argument, only the figures whose names begin with it are measured, and take their places among the others.

mod commit;
mod flow;
mod growth;
mod house;
mod process;
mod triage;
mod verify;

use serde_json::{Value, json};
use store::{Clock as _, SystemClock};

/// As in the binary that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the figures are kept.
const RESULTS: &str = "bench/results/latest.json";

/// One figure. `fsync_p50_us` is 0 where no disk is involved.
fn row(name: &str, value: f64, unit: &str, baseline: Option<f64>, fsync_p50_us: u64, bar: &str) -> Value {
    let round = |number: f64| (number * 100.0).round() / 100.0;
    let ratio = baseline.map(|baseline| (value / baseline * 1000.0).round() / 1000.0);
    json!({
        "name": name, "value": round(value), "unit": unit, "baseline": baseline.map(round), "ratio": ratio,
        "fsync_p50_us": (fsync_p50_us > 0).then_some(fsync_p50_us), "at": SystemClock.now_ms(), "bar": bar,
    })
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "figures are printed")]
async fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| {
        only.as_ref().is_none_or(|only| name.starts_with(only.as_str()) || only.starts_with(name))
    };
    let mut rows = Vec::new();
    if ["start", "rss", "binary"].into_iter().any(wanted) {
        rows.extend(process::rows().await);
    }
    if wanted("commit") {
        let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let fsync = commit::fsync_p50_us(a.path());
        println!("fdatasync p50 {fsync} µs");
        let governed = commit::governed(a.path()).await;
        let raw = commit::raw(b.path(), a.path()).await;
        rows.push(row(
            "commit_64",
            governed.per_second,
            "commits/s",
            Some(raw.per_second),
            fsync,
            "ratio >= 0.5",
        ));
        rows.push(row(
            "commit_64_p99",
            governed.p99_us as f64,
            "us",
            Some(raw.p99_us as f64),
            fsync,
            "ratio <= 3",
        ));
    }
    if wanted("decide") {
        let (p50, p99) = commit::decide_us();
        rows.push(row("decide_p50", p50 as f64, "us", None, 0, ""));
        rows.push(row("decide_p99", p99 as f64, "us", None, 0, "<= 100"));
    }
    if wanted("verify") {
        rows.extend(verify::rows());
    }
    if wanted("flow") {
        rows.extend(flow::rows().await);
    }
    if wanted("triage") {
        rows.extend(triage::rows().await);
    }
    if wanted("growth") {
        rows.extend(growth::rows().await);
    }
    for row in &rows {
        println!(
            "{:<14} {:>12} {:<10} baseline {:>10} ratio {:>7}  {}",
            row["name"].as_str().unwrap_or_default(),
            row["value"].to_string(),
            row["unit"].as_str().unwrap_or_default(),
            row["baseline"].to_string(),
            row["ratio"].to_string(),
            row["bar"].as_str().unwrap_or_default(),
        );
    }
    let kept = match only {
        None => rows,
        Some(_) => placed(std::fs::read_to_string(RESULTS).ok(), rows),
    };
    let text = serde_json::to_string_pretty(&kept).expect("plain data") + "\n";
    std::fs::create_dir_all("bench/results").expect("this runs at the workspace's root");
    std::fs::write(RESULTS, text).expect("the folder is there");
}

/// The figures there were, with new ones in the places of those of the same name and the others behind them.
fn placed(before: Option<String>, rows: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    for row in rows {
        match kept.iter_mut().find(|old| old["name"] == row["name"]) {
            Some(old) => *old = row,
            None => kept.push(row),
        }
    }
    kept
}
