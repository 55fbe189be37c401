//! Commands that are no single API call, and the few calls that need something done before or after.

mod artifact;
mod backup;
pub mod demo;
mod doctor;
mod events;
mod keyfile;
mod local;
mod policy;
mod verify;
mod workflow;

use crate::contract::Operation;
use crate::exit::Failure;
use crate::output::{self, Format, clean, note, say};
use crate::session::Session;
use act::Ids as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use client::Client;
use http::Method;
use kernel::{hex, sha256};
use serde_json::{Value, json};
use std::path::PathBuf;
use store::{Clock as _, SystemClock};

/// The commands that are no API call.
pub fn commands() -> Vec<Command> {
    let config = || {
        Arg::new("config")
            .long("config")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file (TOML)")
    };
    vec![
        Command::new("init")
            .about(
                "Make the installation's folder, signing keys and first key, and print the trust fingerprint",
            )
            .arg(config()),
        Command::new("serve")
            .about("Run the installation: API, engine, workers; makes it if it is not there")
            .arg(config()),
        Command::new("doctor")
            .about("Look at configuration, folder, installation, key and clocks, and say what to do")
            .arg(config()),
        Command::new("config")
            .about("Print the configuration in force, with every value and where it came from")
            .arg(config()),
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
        events::command(),
        Command::new("completions")
            .about("Print a completion script for your shell")
            .arg(Arg::new("shell").required(true).value_parser(value_parser!(clap_complete::Shell))),
    ]
}

/// Commands that join a noun of the contract and are no API call.
pub fn joining(noun: &str) -> Vec<Command> {
    match noun {
        "policy" => policy::commands(),
        "workflow" => workflow::commands(),
        "artifact" => artifact::commands(),
        "backup" => backup::commands(),
        _ => Vec::new(),
    }
}

/// Runs one of [`joining`]; `None` if it is none.
pub fn joined(noun: &str, verb: &str, matches: &ArgMatches, format: Format) -> Option<Result<(), Failure>> {
    match noun {
        "policy" => policy::run(verb, matches, format),
        "workflow" => workflow::run(verb, matches, format),
        "artifact" => artifact::run(verb, matches, format),
        "backup" => backup::run(verb, matches, format),
        _ => None,
    }
}

/// Runs a special command; `None` if `noun` is none.
pub async fn run(
    noun: &str,
    matches: &ArgMatches,
    session: &Session,
    format: Format,
) -> Option<Result<(), Failure>> {
    Some(match noun {
        "init" => local::init(matches.get_one::<PathBuf>("config"), format).await,
        "doctor" => doctor::run(matches.get_one::<PathBuf>("config"), session, format).await,
        "serve" => local::serve(matches.get_one::<PathBuf>("config")).await,
        "config" => local::config(matches.get_one::<PathBuf>("config"), format),
        "demo" => demo::run(matches).await,
        "sandbox" => local::sandbox(*matches.get_one::<u16>("port").unwrap_or(&0)).await,
        "verify" => verify::run(matches, format),
        "events" => events::run(matches, session).await,
        _ => return None,
    })
}

/// Prints a completion script.
pub fn completions(matches: &ArgMatches, mut command: Command) -> Result<(), Failure> {
    let shell = matches.get_one::<clap_complete::Shell>("shell").copied();
    let shell = shell.ok_or_else(|| Failure::Usage("no shell".into()))?;
    // Not straight to the terminal: the generator panics when its reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "writ", &mut script);
    let script = String::from_utf8(script).map_err(|_| Failure::Other("the script is no text".into()))?;
    say(script.trim_end())
}

/// Changes the options of calls that do more than call.
pub fn amend(operation: &Operation, command: Command) -> Command {
    match (operation.noun.as_str(), operation.verb.as_str()) {
        ("backup", "create") => backup::amend(command),
        // The secret is made here and only its hash is sent.
        ("key", "create") => command.mut_arg("secret_sha256", |arg| arg.required(false).hide(true)).arg(
            Arg::new("expires-in")
                .long("expires-in")
                .value_name("30m|8h|7d")
                .value_parser(span_ms)
                .conflicts_with("expires_at_ms")
                .help("When it ends, counted from now"),
        ),
        // The secret is made here, unless there is one already.
        ("webhook", "create" | "rotate") => command.mut_arg("secret", |arg| {
            arg.required(false).help("What events are signed with (whsec_…); made and shown once, if absent")
        }),
        ("key", "rotate") => command.mut_arg("secret_sha256", |arg| arg.required(false).hide(true)).arg(
            Arg::new("overlap")
                .long("overlap")
                .value_name("30m|8h|7d")
                .value_parser(span_ms)
                .conflicts_with("overlap_ms")
                .help("How long the old secret goes on; --overlap-ms 0 ends it at once"),
        ),
        ("binding", "create") => command.arg(
            Arg::new("ends-in")
                .long("ends-in")
                .value_name("30m|8h|7d")
                .value_parser(span_ms)
                .conflicts_with("ends_at_ms")
                .help("When it ends, counted from now"),
        ),
        // A bundle is a file; its base64 is for those who have it already.
        ("policy", "publish") => command
            .mut_arg("bundle_base64", |arg| arg.required(false).hide(true).conflicts_with("bundle"))
            .arg(
                Arg::new("bundle")
                    .long("bundle")
                    .value_name("FILE")
                    .required_unless_present("bundle_base64")
                    .value_parser(value_parser!(PathBuf))
                    .help("The bundle, as `writ policy sign` wrote it"),
            ),
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
                .help("Write the bundle here; BUNDLE.evidence.tar if not given and nothing asks for JSON"),
        ),
        ("trust", "show") => command.arg(
            Arg::new("file")
                .long("file")
                .action(ArgAction::Set)
                .value_parser(value_parser!(PathBuf))
                .help("Write the trust file here, as `writ verify --trust` takes it"),
        ),
        _ => command,
    }
}

/// Reads a span of time: a number and `m`, `h` or `d`. In milliseconds.
fn span_ms(text: &str) -> Result<i64, String> {
    let wrong = || "a span is a number and m, h or d, such as 30m, 8h or 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let unit_ms: i64 = match unit {
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: u32 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    // 2³² days are less than 2⁶³ milliseconds.
    if number == 0 { Err(wrong()) } else { Ok(i64::from(number) * unit_ms) }
}

/// Does what has to happen before a call. Returns a secret that has to be shown with its result.
pub async fn prepare(
    operation: &Operation,
    matches: &ArgMatches,
    client: &Client,
    path: &str,
    body: Option<&mut Value>,
) -> Result<Option<String>, Failure> {
    let Some(Value::Object(body)) = body else { return Ok(None) };
    // Asked for by name only where the command has it: another command does not know the option.
    let (option, member) = match (operation.noun.as_str(), operation.verb.as_str()) {
        ("key", "create") => (Some("expires-in"), "expires_at_ms"),
        ("binding", "create") => (Some("ends-in"), "ends_at_ms"),
        ("key", "rotate") => (Some("overlap"), "overlap_ms"),
        _ => (None, ""),
    };
    if let Some(span_ms) = option.and_then(|option| matches.get_one::<i64>(option)) {
        // An overlap is a span; the others are times.
        let from_ms = if member == "overlap_ms" { 0 } else { SystemClock.now_ms() };
        body.insert(member.into(), json!(from_ms.saturating_add(*span_ms)));
    }
    match (operation.noun.as_str(), operation.verb.as_str()) {
        ("key", "create" | "rotate") if !body.contains_key("secret_sha256") => {
            let secret = hex::encode(&act::SystemIds.entropy());
            body.insert("secret_sha256".into(), json!(hex::encode(&sha256(secret.as_bytes()))));
            Ok(Some(secret))
        }
        ("webhook", "create" | "rotate") if !body.contains_key("secret") => {
            let secret = format!("whsec_{}", BASE64.encode(act::SystemIds.entropy()));
            body.insert("secret".into(), json!(secret));
            Ok(Some(secret))
        }
        ("policy", "publish") => {
            if let Some(file) = matches.get_one::<PathBuf>("bundle") {
                body.insert("bundle_base64".into(), json!(BASE64.encode(policy::bundle_read(file)?)));
            }
            Ok(None)
        }
        ("approval", "grant") if !body.contains_key("preview_digest") => {
            let shown =
                client.call(Method::GET, path.trim_end_matches("/grant"), &[], None, None).await?.body;
            note(&format!("You grant {}:", clean(shown["act"].as_str().unwrap_or_default())));
            for line in shown["preview"].as_array().into_iter().flatten() {
                let part = |name: &str| clean(line[name].as_str().unwrap_or_default());
                note(&format!("  {}: {}", part("label"), part("text")));
            }
            body.insert("preview_digest".into(), shown["preview_digest"].clone());
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Puts a secret that was made before the call into its result, which is where it is shown once.
pub fn keep(operation: &Operation, kept: &str, result: &mut serde_json::Map<String, Value>) {
    if operation.noun == "key" {
        let id = result.get("key").and_then(Value::as_str).unwrap_or_default().to_owned();
        result.insert("api_key".into(), json!(format!("{id}.{kept}")));
    } else {
        result.insert("secret".into(), json!(kept));
    }
}

/// Does what has to happen with a result before it is printed.
pub fn finish(
    operation: &Operation,
    matches: &ArgMatches,
    value: &mut Value,
    format: Format,
) -> Result<(), Failure> {
    if (operation.noun.as_str(), operation.verb.as_str()) == ("backup", "create") {
        backup::advise(value);
    }
    let (member, bytes) = match (operation.noun.as_str(), operation.verb.as_str()) {
        ("evidence", "download") => {
            ("bundle_base64", value["bundle_base64"].as_str().and_then(local::base64_decode))
        }
        ("trust", "show") => {
            let trust = value["trust"].is_object().then(|| output::render(&value["trust"], Format::Json));
            ("trust", trust.transpose()?.map(|text| (text + "\n").into_bytes()))
        }
        _ => return Ok(()),
    };
    let named = matches.get_one::<PathBuf>("file").cloned();
    // Nobody reads base64; programs that ask for JSON may.
    let unnamed = (member == "bundle_base64" && format == Format::Table)
        .then(|| matches.get_one::<String>("bundle").map(|id| PathBuf::from(format!("{id}.evidence.tar"))));
    let Some(file) = named.or(unnamed.flatten()) else { return Ok(()) };
    let bytes = bytes.ok_or_else(|| Failure::Other(format!("the server sent no {member}")))?;
    std::fs::write(&file, bytes)
        .map_err(|error| Failure::Other(format!("{} cannot be written: {error}", file.display())))?;
    value[member] = json!(format!("(written to {})", file.display()));
    Ok(())
}

fn required<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a PathBuf, Failure> {
    matches.get_one::<PathBuf>(name).ok_or_else(|| Failure::Usage(format!("name a {name}")))
}

/// What a command of its own came to: lines for people, the value for programs.
fn printed(value: &Value, lines: &str, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => say(lines),
        Format::Json | Format::Yaml => say(&output::render(value, format)?),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn spans_of_time() {
        for (text, expected) in [
            ("30m", Some(1_800_000)),
            ("8h", Some(28_800_000)),
            ("7d", Some(604_800_000)),
            ("0h", None),
            ("h", None),
            ("", None),
            ("8", None),
            ("-8h", None),
            ("8hh", None),
            ("99999999999d", None),
        ] {
            assert_eq!(super::span_ms(text).ok(), expected, "{text}");
        }
    }
}
