//! `cargo xtask bench`: measures, and writes the figures into the README.
//!
//! The measuring is the crate `bench`'s: it runs each case beside its baseline and
//! leaves `bench/results/latest.json`, a list of
//!
//! ```text
//! {"name", "value", "unit", "baseline", "ratio", "fsync_p50_us", "at", "bar"}
//! ```
//!
//! `baseline` (in the same unit), `ratio`, `fsync_p50_us` and `bar` may be null or
//! absent; `at` is in milliseconds UTC, `bar` is the promise in words (`≥ 0.5`). The
//! table in the README is made from that file and from nothing else; the house
//! rules compare the two.
//!
//! What other workflow engines do on the same machine is measured by
//! `bench/peers/run.mjs`, and its rows take their places behind our own. They are
//! no promise of ours: a machine without node has no such rows, and says so.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use time::OffsetDateTime;

use crate::Failure;
use crate::demo::RELEASE;
use crate::stage::{Call, built};

pub(crate) const RESULTS: &str = "bench/results/latest.json";
pub(crate) const README: &str = "README.md";
pub(crate) const BEGIN: &str = "<!-- bench:begin -->";
pub(crate) const END: &str = "<!-- bench:end -->";

/// What stands where a figure has no value.
const NONE: &str = "–";

/// Measures the peers and prints their rows. It bounds its own time.
const PEERS: &str = "bench/peers/run.mjs";
/// How the rows begin behind which those of the peers stand.
const FLOW: &str = "flow_";

/// Runs what of the benchmarks is wanted, then writes the table.
pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let (ours, peers) = wanted(args);
    if ours {
        let build = Call::new("cargo", RELEASE.iter().chain(&["--bin", "bench", "--bin", "writ"]));
        let measure = Call::new(built("release/bench"), args);
        for call in [build, measure] {
            call.run().map_err(|failure| Failure::new(format!("`{}`: {failure}", call.line())))?;
        }
    }
    // Our own figures get their table whatever becomes of the peers.
    let beside = if peers { beside() } else { Ok(()) };
    write_table()?;
    beside
}

/// Whether our own figures are wanted, and whether those of the peers.
fn wanted(args: &[OsString]) -> (bool, bool) {
    match args {
        [] => (true, true),
        [only] if only == "--table" => (false, false),
        [only] if only == "peers" => (false, true),
        [only, ..] => (true, only == "flow"),
    }
}

/// Measures the peers and puts their rows among the results.
fn beside() -> Result<(), Failure> {
    let call = Call::new("node", [PathBuf::from(PEERS), built("peers")]);
    if Call::new("node", ["--version"]).command().output().is_err() {
        println!("the peers are not measured: there is no node to run `{}`", call.line());
        return Ok(());
    }
    let failed = |why: &dyn fmt::Display| Failure::new(format!("`{}`: {why}", call.line()));
    let output = call.command().stderr(Stdio::inherit()).output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&output.status));
    }
    let merged = merged(&read(RESULTS)?, &String::from_utf8_lossy(&output.stdout))?;
    fs::write(RESULTS, merged).map_err(|error| Failure::new(format!("cannot write {RESULTS}: {error}")))
}

/// The results with the rows of the peers: in the places of those of the same
/// name, and else behind our own figures of the same work.
fn merged(results: &str, peers: &str) -> Result<String, Failure> {
    let list = |name: &str, text: &str| {
        serde_json::from_str::<Vec<Value>>(text)
            .map_err(|error| Failure::new(format!("{name} is no JSON list: {error}")))
    };
    let mut rows = list(RESULTS, results)?;
    for peer in list(PEERS, peers)? {
        println!(
            "{:<16} {:>9} {:<6} {}",
            text(&peer["name"]),
            peer["value"].to_string(),
            text(&peer["unit"]),
            text(&peer["bar"])
        );
        let flow = |row: &Value| text(&row["name"]).starts_with(FLOW);
        match rows.iter().position(|row| row["name"] == peer["name"]) {
            Some(at) => rows[at] = peer,
            None => {
                let behind = rows.iter().rposition(flow).map_or(rows.len(), |at| at + 1);
                rows.insert(behind, peer);
            }
        }
    }
    serde_json::to_string_pretty(&rows)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new(format!("cannot write {RESULTS}: {error}")))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn write_table() -> Result<(), Failure> {
    let results = read(RESULTS)?;
    let readme = read(README)?;
    let with_table = with_table(&readme, &results)?;
    fs::write(README, with_table).map_err(|error| Failure::new(format!("cannot write {README}: {error}")))?;
    println!("the table of {README} is that of {RESULTS}");
    Ok(())
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {path}: {error}")))
}

/// The README with the table of `results` between its markers.
pub(crate) fn with_table(readme: &str, results: &str) -> Result<String, Failure> {
    let table = table(results)?;
    readme
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)))
        .map(|(before, after)| format!("{before}{BEGIN}\n{table}{END}{after}"))
        .ok_or_else(|| {
            Failure::new(format!("{README} has no place for the figures: add `{BEGIN}` and `{END}`"))
        })
}

/// A Markdown table of the results.
fn table(results: &str) -> Result<String, Failure> {
    let results: Value = serde_json::from_str(results)
        .map_err(|error| Failure::new(format!("{RESULTS} is no JSON: {error}")))?;
    let rows = results.as_array().ok_or_else(|| Failure::new(format!("{RESULTS} is no list")))?;
    let mut table = String::from(
        "| figure | measured | baseline | ratio | bar | fsync p50 | on |\n|---|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let cells = cells(row).ok_or_else(|| {
            Failure::new(format!("{RESULTS}: a row needs name, value, unit and at, and has {row}"))
        })?;
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    Ok(table)
}

/// `None` if something that every row has is not there, or is of another type.
fn cells(row: &Value) -> Option<[String; 7]> {
    let unit = row["unit"].as_str()?;
    let in_unit = |value: &Value| Some(format!("{} {unit}", number(value)?).trim_end().to_owned());
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    Some([
        format!("`{}`", row["name"].as_str()?),
        in_unit(&row["value"])?,
        or_none(in_unit(&row["baseline"])),
        or_none(number(&row["ratio"])),
        or_none(row["bar"].as_str().map(|bar| bar.replace('|', "\\|"))),
        or_none(number(&row["fsync_p50_us"]).map(|us| format!("{us} µs"))),
        date(row["at"].as_i64()?),
    ])
}

/// Three digits that count, thousands apart; `None` if it is no number.
fn number(value: &Value) -> Option<String> {
    let value = value.as_f64()?;
    let size = value.abs();
    if size < 99.95 {
        let decimals = if size >= 9.995 { 1 } else { 2 };
        let decimals = if size < 0.0995 && size > 0.0 { 4 } else { decimals };
        let text = format!("{value:.decimals$}");
        // 3.00 is 3, but 30 stays 30.
        return Some(text.trim_end_matches('0').trim_end_matches('.').to_owned());
    }
    let digits = format!("{size:.0}");
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    Some(text)
}

/// The day of a time in milliseconds UTC, as `YYYY-MM-DD`.
fn date(at_ms: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000));
    moment.map_or_else(|_| NONE.to_owned(), |moment| moment.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULTS_JSON: &str = r#"[
        {"name": "commit_64", "value": 6123.4, "unit": "commits/s", "baseline": 9000, "ratio": 0.6804,
         "fsync_p50_us": 310.2, "at": 1709164800000, "bar": "≥ 0.5"},
        {"name": "flow_seq", "value": 7.25, "unit": "ms", "baseline": null, "ratio": null, "at": 1709251200000}
    ]"#;

    #[test]
    fn the_table_replaces_only_what_is_between_the_markers() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let expected = format!(
            "before\n{BEGIN}\n\
             | figure | measured | baseline | ratio | bar | fsync p50 | on |\n\
             |---|--:|--:|--:|--:|--:|---|\n\
             | `commit_64` | 6,123 commits/s | 9,000 commits/s | 0.68 | ≥ 0.5 | 310 µs | 2024-02-29 |\n\
             | `flow_seq` | 7.25 ms | – | – | – | – | 2024-03-01 |\n\
             {END}\nafter\n"
        );
        let once = with_table(&readme, RESULTS_JSON).expect("markers and figures are there");
        assert_eq!(once, expected);
        assert_eq!(
            with_table(&once, RESULTS_JSON).expect("still there"),
            expected,
            "writing twice changes nothing"
        );
    }

    #[test]
    fn peers_are_measured_beside_our_workflows() {
        let cases: &[(&[&str], (bool, bool))] = &[
            (&[], (true, true)),
            (&["flow"], (true, true)),
            (&["peers"], (false, true)),
            (&["verify"], (true, false)),
            (&["--table"], (false, false)),
        ];
        for (args, expected) in cases {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(wanted(&args), *expected, "{args:?}");
        }
    }

    #[test]
    fn a_peer_s_row_replaces_its_older_one_or_stands_behind_ours() {
        let ours = r#"[{"name": "verify"}, {"name": "flow_32"}, {"name": "triage"}]"#;
        let names = |list: &str| {
            let rows: Vec<Value> = serde_json::from_str(list).expect("a list");
            rows.iter().map(|row| format!("{} {}", text(&row["name"]), row["value"])).collect::<Vec<_>>()
        };
        let peers = r#"[{"name": "flow_seq_x", "value": 1}, {"name": "flow_32_x", "value": 2}]"#;
        let once = merged(ours, peers).expect("two lists");
        assert_eq!(
            names(&once),
            ["verify null", "flow_32 null", "flow_seq_x 1", "flow_32_x 2", "triage null"]
        );
        let again = merged(&once, r#"[{"name": "flow_seq_x", "value": 3}]"#).expect("two lists");
        assert_eq!(
            names(&again),
            ["verify null", "flow_32 null", "flow_seq_x 3", "flow_32_x 2", "triage null"]
        );
        assert_eq!(merged(&again, "[]").expect("nothing could be started"), again);
        assert_eq!(names(&merged("[]", peers).expect("no figures of ours")), ["flow_seq_x 1", "flow_32_x 2"]);
        for (results, peers, bad) in [("{", "[]", RESULTS), ("[]", "", PEERS), ("[]", "{}", PEERS)] {
            let failure = merged(results, peers).expect_err("no list").to_string();
            assert!(failure.contains(&format!("{bad} is no JSON list")), "{failure}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let readme = format!("{BEGIN}{END}");
        let bad = [
            ("no markers", RESULTS_JSON, "no place for the figures"),
            (&readme, "{", "is no JSON"),
            (&readme, "{}", "is no list"),
            (&readme, r#"[{"name": "x", "value": "fast", "unit": "ms", "at": 0}]"#, "a row needs"),
            (&readme, r#"[{"name": "x", "value": 1, "unit": "ms"}]"#, "a row needs"),
        ];
        for (readme, results, expected) in bad {
            let failure = with_table(readme, results).expect_err(expected).to_string();
            assert!(failure.contains(expected), "{failure}");
        }
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        let cases = [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.5, "0.5"),
            (3.0, "3"),
            (7.256, "7.26"),
            (30.0, "30"),
            (99.94, "99.9"),
            (100.0, "100"),
            (612_345.6, "612,346"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(&serde_json::json!(value)).as_deref(), Some(expected));
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400_000, "2000-02-29"),
            (4_107_542_400_000, "2100-03-01"),
        ];
        for (at_ms, expected) in cases {
            assert_eq!(date(at_ms), expected);
        }
    }
}
