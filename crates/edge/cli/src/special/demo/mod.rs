//! `writ demo`: the product's main job, on this machine, against local stand-ins.
//!
//! It starts an installation and a sandbox, sets a tenant up as an operator would, lets incidents come in, has a second
//! person decide on what policy wants decided, and ends with figures and evidence. Some things go wrong on purpose: one
//! call is throttled, one write takes effect and its reply never comes, some deliveries come twice. Nothing of it is
//! played from a script: take a fault out and the display changes.
//!
//! | module | what it is |
//! |---|---|
//! | [`data`] | the tickets and the part each plays |
//! | [`stage`] | stand-ins, installation, people |
//! | [`drive`] | deliveries, the live feed, the second person |
//! | [`progress`] | what is on the screen meanwhile |
//! | [`second`] | another tenant: its own policy, two people in Slack, a budget that runs out |
//! | [`report`] | figures, evidence, what to try next |
//!
//! What it is not: a load test, and not a way to run an installation. The keys of everybody lie in one folder.

mod data;
mod drive;
mod progress;
mod report;
mod second;
mod stage;

pub use data::samples;

use super::local::asked_to_end;
use crate::exit::Failure;
use crate::output::{note, say};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use data::Tickets;
use stage::{Provider, Stage};
use std::path::PathBuf;

/// How many incidents an attended demo leaves for whoever watches.
const LEFT: usize = 2;

/// The command's options.
pub fn command() -> Command {
    let path = |name: &'static str| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    Command::new("demo")
        .about("Run incidents through a governed workflow on this machine, against local stand-ins")
        .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("Decide everything, report, and end"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object as the last line"))
        .arg(path("data").value_name("DIR").help("Folder to keep everything in; a new temporary one if not given"))
        .arg(
            path("tickets").value_name("FILE.csv")
                .help("Tickets with the columns id, document, topic_group; the project's own samples if not given"),
        )
        .arg(
            Arg::new("limit").long("limit").value_name("N").value_parser(value_parser!(usize))
                .help("How many tickets are asked about; the rest of FILE is learned from [default: 500 of FILE, or every sample]"),
        )
        .after_help(
            "With OPENAI_API_KEY set, that provider classifies (OPENAI_BASE_URL, OPENAI_MODEL); without, a built-in \
             baseline does.",
        )
}

/// Runs the command.
pub async fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
    let (once, json) = (matches.get_flag("once"), matches.get_flag("json"));
    let tickets = Tickets::load(path("tickets"), matches.get_one::<usize>("limit").copied())?;
    let folder = stage::folder(path("data"))?;
    let log = stage::log_to(&folder)?;
    let tell = |text: &str| if json { note(text) } else { println_lossy(text) };
    let provider = Provider::from_env();
    tell(&format!("Starting writ and the stand-ins in {}", folder.display()));
    let stage = Stage::set(&folder, &tickets, &provider).await?;
    tell(&format!("  writ        {}  tenant {}  (log: {})", stage.url, stage.tenant, log.display()));
    tell(&format!("  ServiceNow  {}  a stand-in, not the real system", stage.sandbox.base_url()));
    tell(&format!("  Slack       {}/slack/api  a stand-in, not the real system", stage.sandbox.base_url()));
    tell(&format!("  model       {}  {}", stage.model, described(&provider)));
    tell(&format!(
        "  tickets     {} come in and one that is confidential, {} others were learned from; webhook → fetch → classify → policy → approval → write-back → evidence\n",
        tickets.asked.len(),
        tickets.training.len()
    ));
    let left = if once { 0 } else { LEFT };
    let mut result = tokio::select! {
        result = show(&stage, &tickets, left, once, json) => result,
        ended = asked_to_end() => ended.map_err(Failure::from).and(Err(Failure::Other("ended before it was done".into()))),
    };
    if result.is_ok() && !once {
        result = asked_to_end().await.map_err(Failure::from);
    }
    let Stage { running, sandbox, .. } = stage;
    running.shutdown().await;
    sandbox.shutdown().await;
    if !once {
        tell(&format!("\nEverything is kept in {}", folder.display()));
    }
    result
}

/// Plays and reports.
async fn show(stage: &Stage, tickets: &Tickets, left: usize, once: bool, json: bool) -> Result<(), Failure> {
    let played = drive::play(stage, &tickets.asked, left, json).await?;
    let tell = |text: &str| if json { note(text) } else { println_lossy(text) };
    let second = second::play(stage, &played, &tell).await?;
    let report = report::report(stage, &played, tickets, second).await?;
    if json {
        note(&report.text(stage));
    } else {
        say(&report.text(stage))?;
    }
    if !once {
        let next = report.next(stage, &played);
        if json { note(&next) } else { say(&next)? }
    }
    let summary = &report.summary;
    if json {
        say(&serde_json::to_string(summary).map_err(|error| Failure::Other(error.to_string()))?)?;
    }
    if !summary.evidence_verified {
        return Err(Failure::Evidence("the evidence of the demo does not verify".into()));
    }
    if summary.effects_duplicated > 0 {
        return Err(Failure::Other(format!(
            "{} writes took effect more than once",
            summary.effects_duplicated
        )));
    }
    Ok(())
}

fn described(provider: &Provider) -> &'static str {
    match provider {
        Provider::Baseline => "built in: words and nearest neighbours over TF-IDF, no language model",
        Provider::OpenAi { .. } => "at the provider of OPENAI_BASE_URL",
    }
}

/// A line of progress for people. A reader that has gone away is noticed when the result is printed.
fn println_lossy(text: &str) {
    let _ = say(text);
}
