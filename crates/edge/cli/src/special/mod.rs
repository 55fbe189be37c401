//! Commands that are no single API call, and the few calls that need something done before or after.

pub mod demo;
mod local;
mod verify;

use crate::contract::Operation;
use crate::exit::Failure;
use crate::output::Format;
use crate::session::Session;
use act::Ids as _;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use client::Client;
use http::Method;
use kernel::{hex, sha256};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The commands that are no API call.
pub fn commands() -> Vec<Command> {
    vec![
        Command::new("serve").about("Run the installation: API, engine, workers").arg(
            Arg::new("config")
                .long("config")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file (TOML)"),
        ),
        Command::new("config")
            .about("Print the configuration in force, with every value and where it came from")
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_parser(value_parser!(PathBuf))
                    .help("Configuration file (TOML)"),
            ),
        demo::command(),
        Command::new("sandbox")
            .about(
                "Run local stand-ins for ServiceNow and a model provider (simulators, not the real systems)",
            )
            .arg(
                Arg::new("port")
                    .long("port")
                    .value_parser(value_parser!(u16))
                    .default_value("0")
                    .help("Port on 127.0.0.1"),
            ),
        Command::new("verify")
            .about("Verify an evidence bundle offline")
            .arg(Arg::new("bundle").required(true).value_parser(value_parser!(PathBuf)).help("The bundle"))
            .arg(
                Arg::new("trust")
                    .long("trust")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("The trust file you hold; it is never taken from the bundle"),
            )
            .arg(
                Arg::new("held")
                    .long("held")
                    .value_parser(value_parser!(PathBuf))
                    .help("A checkpoint you kept earlier; the bundle must be consistent with it"),
            ),
        Command::new("events")
            .about("Follow the tenant's facts as they happen")
            .arg(Arg::new("kind").long("kind").help("Only kinds that start with this"))
            .arg(
                Arg::new("after")
                    .long("after")
                    .value_parser(value_parser!(u64))
                    .help("Begin after this index of the log"),
            ),
        Command::new("completions")
            .about("Print a completion script for your shell")
            .arg(Arg::new("shell").required(true).value_parser(value_parser!(clap_complete::Shell))),
    ]
}

/// Runs a special command; `None` if `noun` is none.
pub async fn run(
    noun: &str,
    matches: &ArgMatches,
    session: &Session,
    format: Format,
) -> Option<Result<(), Failure>> {
    Some(match noun {
        "serve" => local::serve(matches.get_one::<PathBuf>("config")).await,
        "config" => local::config(matches.get_one::<PathBuf>("config")),
        "demo" => demo::run(matches).await,
        "sandbox" => local::sandbox(*matches.get_one::<u16>("port").unwrap_or(&0)).await,
        "verify" => verify::run(matches, format),
        "events" => local::events(matches, session).await,
        _ => return None,
    })
}

/// Prints a completion script.
pub fn completions(matches: &ArgMatches, mut command: Command) -> Result<(), Failure> {
    let shell = matches.get_one::<clap_complete::Shell>("shell").copied();
    let shell = shell.ok_or_else(|| Failure::Usage("no shell".into()))?;
    clap_complete::generate(shell, &mut command, "writ", &mut std::io::stdout());
    Ok(())
}

/// Changes the options of calls that do more than call.
pub fn amend(operation: &Operation, command: Command) -> Command {
    match (operation.noun.as_str(), operation.verb.as_str()) {
        // The secret is made here and only its hash is sent.
        ("key", "create") => command.mut_arg("secret_sha256", |arg| arg.required(false).hide(true)),
        // The digest of what was shown comes from what was just shown.
        ("approval", "grant") => command.mut_arg("preview_digest", |arg| {
            arg.required(false)
                .help("Digest of the preview you looked at; without it the preview is shown and taken")
        }),
        ("evidence", "download") => command.arg(
            Arg::new("file")
                .long("file")
                .action(ArgAction::Set)
                .value_parser(value_parser!(PathBuf))
                .help("Write the bundle here"),
        ),
        _ => command,
    }
}

/// Does what has to happen before a call. Returns a secret that has to be shown with its result.
pub async fn prepare(
    operation: &Operation,
    client: &Client,
    path: &str,
    body: Option<&mut Value>,
) -> Result<Option<String>, Failure> {
    let Some(Value::Object(body)) = body else { return Ok(None) };
    match (operation.noun.as_str(), operation.verb.as_str()) {
        ("key", "create") if !body.contains_key("secret_sha256") => {
            let secret = hex::encode(&act::SystemIds.entropy());
            body.insert("secret_sha256".into(), json!(hex::encode(&sha256(secret.as_bytes()))));
            Ok(Some(secret))
        }
        ("approval", "grant") if !body.contains_key("preview_digest") => {
            let shown =
                client.call(Method::GET, path.trim_end_matches("/grant"), &[], None, None).await?.body;
            eprintln!("You grant {}:", shown["act"].as_str().unwrap_or_default());
            for line in shown["preview"].as_array().into_iter().flatten() {
                eprintln!(
                    "  {}: {}",
                    line["label"].as_str().unwrap_or_default(),
                    line["text"].as_str().unwrap_or_default()
                );
            }
            body.insert("preview_digest".into(), shown["preview_digest"].clone());
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Does what has to happen with a result before it is printed.
pub fn finish(operation: &Operation, matches: &ArgMatches, value: &mut Value) -> Result<(), Failure> {
    if (operation.noun.as_str(), operation.verb.as_str()) != ("evidence", "download") {
        return Ok(());
    }
    let (Some(file), Some(bundle)) = (matches.get_one::<PathBuf>("file"), value["bundle_base64"].as_str())
    else {
        return Ok(());
    };
    let bytes =
        local::base64_decode(bundle).ok_or_else(|| Failure::Other("the server sent no bundle".into()))?;
    std::fs::write(file, bytes)?;
    value["bundle_base64"] = json!(format!("(written to {})", file.display()));
    Ok(())
}
