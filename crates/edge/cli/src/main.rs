//! `writ`: the one binary. Its nouns and verbs are the API's ([`contract`]); beside them stand the few commands that are
//! no API call: `init`, `serve`, `doctor`, `demo`, `sandbox`, `verify`, `config`, `events`, `completions`, and the offline half of
//! `policy`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod contract;
#[cfg(test)]
mod docs;
mod exit;
mod output;
mod session;
mod special;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use contract::Operation;
use exit::Failure;
use http::Method;
use output::Format;
use serde_json::Value;
use session::Session;
use std::path::PathBuf;
use std::process::ExitCode;

/// A third of what a decision does is asking for memory and giving it back; this one answers faster than the system's, and
/// gives back to the system what is not used any more. SQLite keeps to the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn command(operations: &[Operation]) -> Command {
    let mut command = Command::new("writ")
        .about("A governed AI factory: every consequential act identified, decided, approved, executed once, recorded, paid for.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(
            Arg::new("url").long("url").env("WRIT_URL").default_value("http://127.0.0.1:8787").global(true)
                .help("Address of the installation"),
        )
        .arg(
            Arg::new("key-file").long("key-file").env("WRIT_KEY_FILE").global(true).value_parser(value_parser!(PathBuf))
                .help("File with the API key; without it, WRIT_KEY"),
        )
        .arg(Arg::new("tenant").long("tenant").env("WRIT_TENANT").global(true).help("Tenant to act in, if not the key's own"))
        .arg(
            Arg::new("output").short('o').long("output").global(true).default_value("table")
                .value_parser(value_parser!(Format)).help("How to print"),
        )
        .after_help(
            "Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 needs approval, 5 conflict, 6 not found, 7 invalid evidence.",
        );
    command = special::commands().into_iter().fold(command, Command::subcommand);
    let mut nouns: Vec<&str> = operations.iter().map(|operation| operation.noun.as_str()).collect();
    nouns.sort_unstable();
    nouns.dedup();
    for noun in nouns {
        let mut group = Command::new(noun.to_owned())
            .about(format!("{} commands", noun.replace('-', " ")))
            .subcommand_required(true)
            .arg_required_else_help(true);
        for operation in operations.iter().filter(|operation| operation.noun == noun) {
            let mut verb = contract::command(operation);
            if operation.method != Method::GET {
                verb = verb.arg(
                    Arg::new("idempotency-key")
                        .long("idempotency-key")
                        .help("Do it once, however often this is sent"),
                );
            }
            group = group.subcommand(special::amend(operation, verb));
        }
        group = special::joining(noun).into_iter().fold(group, Command::subcommand);
        command = command.subcommand(group);
    }
    command
}

fn main() -> ExitCode {
    let operations = contract::operations();
    let matches = command(&operations).get_matches();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("writ: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&operations, &matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&format!("writ: {failure}"));
            if let Some(advice) = failure.advice() {
                output::note(&format!("      {advice}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn run(operations: &[Operation], matches: &ArgMatches) -> Result<(), Failure> {
    let session = Session {
        url: matches.get_one::<String>("url").cloned().unwrap_or_default(),
        key_file: matches.get_one::<PathBuf>("key-file").cloned(),
        key_file_named: matches.value_source("key-file") == Some(ValueSource::CommandLine),
        tenant: matches.get_one::<String>("tenant").cloned(),
    };
    let format = matches.get_one::<Format>("output").copied().unwrap_or(Format::Table);
    let Some((noun, rest)) = matches.subcommand() else { return Err(Failure::Usage("no command".into())) };
    if noun == "completions" {
        return special::completions(rest, command(operations));
    }
    if let Some(result) = special::run(noun, rest, &session, format).await {
        return result;
    }
    let Some((verb, rest)) = rest.subcommand() else { return Err(Failure::Usage("no verb".into())) };
    if let Some(result) = special::joined(noun, verb, rest, format) {
        return result;
    }
    let operation = operations
        .iter()
        .find(|operation| operation.noun == noun && operation.verb == verb)
        .ok_or_else(|| Failure::Usage(format!("there is no command {noun} {verb}")))?;
    let client = session.client()?;
    let (path, query, mut body) = contract::fill(operation, rest).map_err(Failure::Usage)?;
    let kept = special::prepare(operation, rest, &client, &path, body.as_mut()).await?;
    let key = (operation.method != Method::GET)
        .then(|| rest.get_one::<String>("idempotency-key").cloned())
        .flatten();
    let if_match = operation.conditional.then(|| rest.get_one::<String>(contract::IF_MATCH)).flatten();
    let terms = client::Terms { idempotency_key: key.as_deref(), if_match: if_match.map(String::as_str) };
    let reply = client.call_under(operation.method.clone(), &path, &query, body.as_ref(), terms).await?;
    if operation.tagged && rest.get_flag(contract::ETAG) {
        let tag = reply.etag.ok_or_else(|| Failure::Other("the server sent no entity tag".into()))?;
        return output::say(&tag);
    }
    if let Some(approval) = reply.approval() {
        output::say(&output::render(&reply.body, format)?)?;
        return Err(Failure::Waiting(approval.to_owned()));
    }
    let mut value = reply.body;
    if let (Some(kept), Value::Object(map)) = (kept, &mut value) {
        special::keep(operation, &kept, map);
    }
    special::finish(operation, rest, &mut value, format)?;
    output::say(&output::render(&value, format)?)?;
    if format == Format::Table
        && let Some(option) = operation.leads_on(&value)
    {
        output::note(&format!("There are more: {option}"));
    }
    let empty = value["items"].as_array().is_some_and(Vec::is_empty);
    if empty && format == Format::Table && session.tenant.is_none() {
        output::note("This is the key's own tenant; --tenant or WRIT_TENANT names another.");
    }
    Ok(())
}
