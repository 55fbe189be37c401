//! The offline part of `workflow`: whether a file is a workflow at all, before anybody is asked to publish it.
//!
//! It reads the file as publication does. What only an installation knows (which connectors are there, which workflows it
//! runs, whether the pins hold) is checked when it is published.

use crate::exit::Failure;
use crate::output::{self, Format, clean, say};
use clap::{Arg, ArgMatches, Command, value_parser};
use flows::workflow::parse;
use serde_json::json;
use std::path::PathBuf;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The commands.
pub fn commands() -> Vec<Command> {
    let file = Arg::new("file").required(true).value_name("FILE").value_parser(value_parser!(PathBuf));
    vec![
        Command::new("check")
            .about("Look a workflow over without an installation; what only that knows is checked when it is published")
            .arg(file.help("The workflow, YAML")),
    ]
}

/// Runs one of them; `None` if it is none.
pub fn run(verb: &str, matches: &ArgMatches, format: Format) -> Option<Result<(), Failure>> {
    (verb == "check").then(|| check(matches, format))
}

fn check(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let file = matches.get_one::<PathBuf>("file").ok_or_else(|| Failure::Usage("name a file".into()))?;
    let unreadable = |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", file.display()));
    if std::fs::metadata(file).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{} has more than {FILE_BYTES_MAX} bytes", file.display())));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    match parse::parse(&text) {
        Ok(workflow) if format == Format::Table => {
            let version = workflow.version.as_deref().unwrap_or("without a version");
            say(&format!("{} {}: {} steps", clean(&workflow.name), clean(version), workflow.steps.len()))
        }
        Ok(workflow) => say(&output::render(
            &json!({"workflow": workflow.name, "version": workflow.version, "steps": workflow.steps.len()}),
            format,
        )?),
        Err(problems) => {
            let mut text = format!("{} is no workflow", file.display());
            for problem in &problems {
                text.push_str(&format!("\n      {}: {}", clean(&problem.place), clean(&problem.message)));
            }
            Err(Failure::Other(text))
        }
    }
}
