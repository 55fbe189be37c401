//! What came of it: counted from the records, scored against the labels, proven by a bundle.
//!
//! Nothing here is believed because the demo saw it happen: outcomes, times and costs are read from the runs, what changed
//! in ServiceNow from the stand-in's journal, and the evidence is verified by the same function as `writ verify`.

use super::data::{Part, Tickets};
use super::drive::{IN_WORK, Played};
use super::second::SecondSummary;
use super::stage::{Stage, WORKFLOW_NAME, call, write_private};
use crate::exit::Failure;
use crate::special::{local, verify};
use client::{Client, ClientError};
use comfy_table::{CellAlignment, Table, presets};
use evidence::trust::Trust;
use http::Method;
use models::score;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Most pages of runs read.
const PAGES_MAX: usize = 100;
/// What stands in every fact; the byte after it is flipped to show that it is noticed.
const IN_A_FACT: &[u8] = b"\"kind\":\"";

/// The last line of an unattended demo. Its members are part of the interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Runs that the incidents started.
    pub runs: usize,
    /// Runs whose write took effect in ServiceNow.
    pub written_back: usize,
    /// Runs that policy or a person denied.
    pub denied: usize,
    /// Runs that wait for a person.
    pub waiting: usize,
    /// Runs that cannot go on.
    pub dead_lettered: usize,
    /// Median from event to write-back, less the time that people took, milliseconds.
    pub p50_ms: Option<i64>,
    /// The same for 95 of 100.
    pub p95_ms: Option<i64>,
    /// What all runs cost, in millionths.
    pub cost_micros: i64,
    /// Macro-F1 of the classification against the labels.
    pub macro_f1: f64,
    /// What "always the most frequent group" scores.
    pub majority_f1: f64,
    /// Whether the bundle verifies.
    pub evidence_verified: bool,
    /// Writes that took effect more than once.
    pub effects_duplicated: u64,
    /// The bundle.
    pub bundle: PathBuf,
    /// The trust file.
    pub trust: PathBuf,
    /// The second tenant.
    pub second: SecondSummary,
}

/// Everything there is to say.
pub struct Report {
    /// The summary.
    pub summary: Summary,
    /// Runs by how they ended.
    outcomes: BTreeMap<String, usize>,
    accuracy_milli: u32,
    abstained: u64,
    asked: u64,
    writes: u64,
    repeated: usize,
    verification: String,
    tampered: String,
    tampered_file: PathBuf,
}

/// A run, as lists show it.
struct Run {
    id: String,
    state: String,
    written_back_at_ms: Option<i64>,
    waited_ms: i64,
    cost_micros: i64,
}

/// Every run of the workflow.
async fn runs(stage: &Stage) -> Result<Vec<Run>, Failure> {
    let mut runs = Vec::new();
    let mut query = vec![("limit".to_owned(), "200".to_owned())];
    for _ in 0..PAGES_MAX {
        let page = stage.operator.client.call(Method::GET, "/v1/runs", &query, None, None).await?.body;
        for run in page["items"].as_array().ok_or(ClientError::Reply)? {
            let text = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
            if text("workflow") == WORKFLOW_NAME {
                runs.push(Run {
                    id: text("id"),
                    state: run["outcome"].as_str().or(run["status"].as_str()).unwrap_or_default().to_owned(),
                    written_back_at_ms: run["written_back_at_ms"].as_i64(),
                    waited_ms: run["waited_ms"].as_i64().unwrap_or(0),
                    cost_micros: run["cost_micros"].as_i64().unwrap_or(0),
                });
            }
        }
        let Some(next) = page["next"].as_str() else { return Ok(runs) };
        query.truncate(1);
        query.push(("after".to_owned(), next.to_owned()));
    }
    Err(Failure::Other("there are more runs than the demo counts".into()))
}

/// The least value that so many of a hundred do not exceed.
fn percentile(sorted: &[i64], of_100: usize) -> Option<i64> {
    let at = (sorted.len() * of_100).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}

/// Thousandths as a number with three decimals.
fn decimal(milli: u32) -> f64 {
    f64::from(milli) / 1000.0
}

/// Counts, scores, exports and verifies.
pub async fn report(
    stage: &Stage,
    played: &Played,
    tickets: &Tickets,
    second: SecondSummary,
) -> Result<Report, Failure> {
    let runs = runs(stage).await?;
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut times = Vec::new();
    let mut written = std::collections::BTreeSet::new();
    for run in &runs {
        *outcomes.entry(run.state.clone()).or_default() += 1;
        let Some(at) = played.runs.get(&run.id) else { continue };
        if let (Some(written_at_ms), Some(sent_at_ms)) = (run.written_back_at_ms, played.sent_at_ms.get(at)) {
            written.insert(*at);
            times.push((written_at_ms - sent_at_ms - run.waited_ms).max(0));
        }
    }
    times.sort_unstable();
    let guesses: Vec<(String, Option<String>)> = played
        .incidents
        .iter()
        .enumerate()
        .filter(|(_, incident)| incident.part != Part::Confidential)
        .map(|(at, incident)| {
            (incident.row.topic_group.clone(), group(stage, played, at, written.contains(&at)))
        })
        .collect();
    let scores = score::score(guesses.iter().map(|(truth, guess)| (truth.as_str(), guess.as_deref())));
    let majority = score::majority(
        tickets.training.iter().map(|row| row.topic_group.as_str()),
        guesses.iter().map(|(truth, _)| truth.as_str()),
    );
    let proof = prove(stage, &stage.operator.client, "demo").await?;
    let of = |state: &str| outcomes.get(state).copied().unwrap_or(0);
    let summary = Summary {
        runs: runs.len(),
        written_back: runs.iter().filter(|run| run.written_back_at_ms.is_some()).count(),
        denied: of("denied"),
        waiting: of("waiting"),
        dead_lettered: of("dead"),
        p50_ms: percentile(&times, 50),
        p95_ms: percentile(&times, 95),
        cost_micros: runs.iter().map(|run| run.cost_micros).sum(),
        macro_f1: decimal(scores.macro_f1_milli),
        majority_f1: decimal(majority.macro_f1_milli),
        evidence_verified: proof.verified && second.evidence_verified,
        effects_duplicated: stage.sandbox.effects_duplicated(),
        bundle: proof.bundle,
        trust: proof.trust,
        second,
    };
    Ok(Report {
        summary,
        outcomes,
        accuracy_milli: scores.accuracy_milli,
        abstained: scores.abstained,
        asked: scores.asked,
        writes: stage.sandbox.counts().notes,
        repeated: played.repeated,
        verification: proof.verification,
        tampered: proof.tampered,
        tampered_file: proof.tampered_file,
    })
}

/// The group that the model named: what a person was shown, or what was written. Nothing, if it was left to people.
fn group(stage: &Stage, played: &Played, at: usize, written: bool) -> Option<String> {
    let id = match played.named.get(&at) {
        Some(id) => id.clone(),
        None if written => stage
            .sandbox
            .record("incident", &played.incidents.get(at)?.sys_id)?
            .get("assignment_group")?
            .clone(),
        None => return None,
    };
    stage.sandbox.record("sys_user_group", &id)?.get("name").cloned()
}

/// The evidence on disk.
pub struct Proof {
    /// The bundle.
    pub bundle: PathBuf,
    trust: PathBuf,
    /// Whether it verifies.
    pub verified: bool,
    verification: String,
    tampered: String,
    tampered_file: PathBuf,
}

/// Exports a tenant's whole log through the API, writes it down, verifies it, and verifies it with one byte flipped.
pub async fn prove(stage: &Stage, client: &Client, name: &str) -> Result<Proof, Failure> {
    let exported = call(client, Method::POST, "/v1/evidence", Some(&json!({"all": true}))).await?.body;
    let id = exported["bundle"].as_str().ok_or(ClientError::Reply)?;
    let shown = call(client, Method::GET, &format!("/v1/evidence/{id}"), None).await?.body;
    let encoded = shown["bundle_base64"].as_str().ok_or(ClientError::Reply)?;
    let bytes = local::base64_decode(encoded).ok_or(ClientError::Reply)?;
    let shown = call(client, Method::GET, "/v1/trust", None).await?.body;
    let trust: Trust = serde_json::from_value(shown["trust"].clone()).map_err(|_| ClientError::Reply)?;
    let (bundle_file, trust_file) =
        (stage.folder.join(format!("{name}.evidence.tar")), stage.folder.join(format!("{name}.trust.json")));
    write_private(&bundle_file, &bytes)?;
    write_private(&trust_file, trust.to_json().as_bytes())?;
    // From the files, as a stranger would.
    let trust = verify::trust_read(&trust_file)?;
    let (report, tampered, flipped) = tokio::task::spawn_blocking(move || {
        let report = evidence::verify::verify_named(&bytes, &trust, None);
        let flipped = flip(bytes);
        (report, evidence::verify::verify(&flipped, &trust, None), flipped)
    })
    .await
    .map_err(|error| Failure::Other(error.to_string()))?;
    let tampered_file = stage.folder.join(format!("{name}-tampered.evidence.tar"));
    write_private(&tampered_file, &flipped)?;
    let Some(failure) = &tampered.failure else {
        return Err(Failure::Evidence("a bundle with a flipped byte was taken for valid".into()));
    };
    Ok(Proof {
        bundle: bundle_file,
        trust: trust_file,
        verified: report.ok(),
        verification: verify::lines(&report),
        tampered: format!("{}: {failure}", failure.reason.code()),
        tampered_file,
    })
}

/// Changes one letter of one fact.
fn flip(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    let find = |from: usize| {
        bytes.get(from..)?.windows(IN_A_FACT.len()).position(|part| part == IN_A_FACT).map(|at| from + at)
    };
    let at = find(middle).or_else(|| find(0)).map_or(middle, |at| at + IN_A_FACT.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1;
    }
    bytes
}

impl Report {
    /// The table and the proof, for people.
    pub fn text(&self, stage: &Stage) -> String {
        let summary = &self.summary;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut row = |name: String, value: String, note: String| {
            table.add_row([name, value, note]);
        };
        let meaning = |state: &str| match state {
            "done" => "written back",
            "denied" => "denied by policy or by a person",
            "waiting" => "left for you",
            "needs_human" => "the model gave no sure answer; a person routes it",
            "dead" => "cannot go on; see `writ run list --state dead`",
            "expired" | "void" | "cancelled" | "running" => "",
            _ => "",
        };
        for (state, count) in &self.outcomes {
            row(format!("runs {state}"), count.to_string(), meaning(state).to_owned());
        }
        let time = |value: Option<i64>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
        row(
            "event → write-back, p50".into(),
            time(summary.p50_ms),
            format!(
                "webhook sent to write known to be there, less the time people took; at most {IN_WORK} in work"
            ),
        );
        row("event → write-back, p95".into(), time(summary.p95_ms), String::new());
        let per_ticket =
            summary.cost_micros.checked_div(i64::try_from(summary.runs).unwrap_or(0)).unwrap_or(0);
        row(
            "cost per ticket".into(),
            format!("{} µ$", per_ticket),
            format!("millionths of a dollar; {} in all", summary.cost_micros),
        );
        row(
            "macro-F1".into(),
            format!("{:.3}", summary.macro_f1),
            format!(
                "{} against {} labels; {} left unanswered, accuracy {:.3}",
                stage.model,
                self.asked,
                self.abstained,
                decimal(self.accuracy_milli)
            ),
        );
        row(
            "  always the largest group".into(),
            format!("{:.3}", summary.majority_f1),
            "the majority baseline, learned from the same examples".into(),
        );
        row(
            "writes in ServiceNow".into(),
            self.writes.to_string(),
            format!(
                "by both tenants; {} of them twice, though {} deliveries came again",
                summary.effects_duplicated, self.repeated
            ),
        );
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("\n{}\n", table.trim_fmt());
        if let Some(note) = &stage.price_note {
            text.push_str(&format!("  {note}\n"));
        }
        text.push_str(&format!(
            "\nEvidence: {}\n\n{}\n",
            summary.bundle.display(),
            indented(&self.verification)
        ));
        text.push_str(&format!(
            "\nThe same with one byte flipped: {}\n\n  FAILED  {}\n",
            self.tampered_file.display(),
            self.tampered
        ));
        text
    }

    /// What to try next.
    pub fn next(&self, stage: &Stage, played: &Played) -> String {
        let writ = std::env::current_exe().map_or("writ".to_owned(), |path| path.display().to_string());
        let mut text = format!(
            "\nIt goes on serving {} until Ctrl-C. In another terminal:\n\n  alias writ={}\n  export WRIT_URL={} WRIT_KEY_FILE={}\n",
            stage.url,
            quoted(&writ),
            stage.url,
            quoted(&stage.you.key_file.display().to_string()),
        );
        if !played.left.is_empty() {
            text.push_str("\n  writ approval list                      # these wait for you:\n");
        }
        for (n, (at, approval)) in played.left.iter().enumerate() {
            let number = played.incidents.get(*at).map_or("", |incident| incident.number.as_str());
            text.push_str(&format!("  writ approval show {approval}   # {number}\n"));
            let decide = if n == 0 { "grant".to_owned() } else { "deny".to_owned() };
            let reason = if n == 0 { String::new() } else { " --reason \"not this group\"".to_owned() };
            text.push_str(&format!("  writ approval {decide} {approval}{reason}\n"));
        }
        text.push_str("\n  writ run list --state done\n");
        if let Some(run) = played.runs.iter().min_by_key(|(_, at)| **at).map(|(run, _)| run) {
            text.push_str(&format!("  writ run facts {run}\n"));
        }
        text.push_str(&format!(
            "\n  WRIT_KEY_FILE={} writ run list    # the second tenant's\n",
            quoted(&stage.folder.join("clinic-operator.key").display().to_string()),
        ));
        text.push_str(&format!(
            "\n  writ events --after 0\n  writ cost report\n  writ verify {} --trust {}\n  writ verify {} --trust {}; echo $?\n",
            quoted(&self.summary.bundle.display().to_string()),
            quoted(&self.summary.trust.display().to_string()),
            quoted(&self.tampered_file.display().to_string()),
            quoted(&self.summary.trust.display().to_string()),
        ));
        text
    }
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("  {line}") })
        .collect::<Vec<_>>()
        .join("\n")
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:=".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<i64> = (1..=100).collect();
        assert_eq!(
            (percentile(&times, 50), percentile(&times, 95), percentile(&times, 100)),
            (Some(50), Some(95), Some(100))
        );
        assert_eq!(
            (percentile(&[7], 50), percentile(&[7], 95), percentile(&[], 50)),
            (Some(7), Some(7), None)
        );
        assert_eq!(percentile(&[1, 2, 3], 50), Some(2));
    }

    #[test]
    fn one_bit_of_one_fact_is_flipped() {
        let before = b"head {\"kind\":\"flows.run.created\"} {\"kind\":\"x\"} tail".to_vec();
        let after = flip(before.clone());
        let differ: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(differ.len(), 1);
        assert_eq!(before[differ[0]], b'x');
        assert_ne!(flip(vec![0; 8]), vec![0; 8]);
    }

    #[test]
    fn the_summary_has_exactly_the_members_of_the_interface() {
        let summary = Summary {
            runs: 1,
            written_back: 1,
            denied: 0,
            waiting: 0,
            dead_lettered: 0,
            p50_ms: Some(1),
            p95_ms: None,
            cost_micros: 0,
            macro_f1: decimal(512),
            majority_f1: decimal(50),
            evidence_verified: true,
            effects_duplicated: 0,
            bundle: "b".into(),
            trust: "t".into(),
            second: SecondSummary {
                tenant: "ten_b".into(),
                policy: "00".into(),
                default_effect: "ALLOW".into(),
                own_effect: "HITL".into(),
                written_back: 1,
                clicks: 2,
                clicks_refused: 3,
                calls_that_fit: 4,
                calls_refused: 5,
                budget_left: 0,
                replayed: 5,
                evidence_verified: true,
            },
        };
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(
            text,
            r#"{"runs":1,"written_back":1,"denied":0,"waiting":0,"dead_lettered":0,"p50_ms":1,"p95_ms":null,"cost_micros":0,"macro_f1":0.512,"majority_f1":0.05,"evidence_verified":true,"effects_duplicated":0,"bundle":"b","trust":"t","second":{"tenant":"ten_b","policy":"00","default_effect":"ALLOW","own_effect":"HITL","written_back":1,"clicks":2,"clicks_refused":3,"calls_that_fit":4,"calls_refused":5,"budget_left":0,"replayed":5,"evidence_verified":true}}"#
        );
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("/tmp/a-b.key"), "/tmp/a-b.key");
        assert_eq!(quoted("/tmp/it's here"), "'/tmp/it'\\''s here'");
    }
}
