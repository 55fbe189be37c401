//! The offline half of `writ backup`: copying a folder without its server, looking through a backup, putting it back.
//!
//! `create` is a call to the installation, and so an act that is decided and recorded. With `--folder` it is not: then
//! whoever can read the folder copies it, which they could do anyhow, and whether a server works there makes no difference.

use super::local::chain;
use crate::exit::Failure;
use crate::output::{self, Format, say};
use act::{Coded as _, SystemIds};
use clap::{Arg, ArgMatches, Command, value_parser};
use server::backup::{self, BackupError, RECOVERY_FILE, Verified};
use std::path::PathBuf;
use store::{Clock as _, SystemClock};

fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
}

fn backup_arg() -> Arg {
    Arg::new("backup").required(true).value_parser(value_parser!(PathBuf)).help("The backup's folder")
}

/// The commands that join the noun `backup`.
pub fn commands() -> Vec<Command> {
    vec![
        Command::new("verify")
            .about("Verify a backup: every file, every log, every checkpoint, the signature on its manifest")
            .arg(backup_arg())
            .arg(path("folder", "FOLDER", "The installation that it has to be of")),
        Command::new("restore")
            .about("Put a backup into a new folder; nothing is done there until `writ epoch open`")
            .arg(backup_arg())
            .arg(path("key", "FILE", "The recovery key (backup.key)").required(true))
            .arg(path("to", "FOLDER", "Where the installation goes; new or empty").required(true)),
    ]
}

/// What `backup create` takes besides: a folder of this machine instead of a server.
pub fn amend(command: Command) -> Command {
    command
        .arg(
            path("folder", "FOLDER", "Copy this folder without asking a server; nothing is recorded")
                .requires("to"),
        )
        .arg(path("to", "FOLDER", "Where the backup goes, with --folder; new or empty").requires("folder"))
}

/// Runs one of [`commands`], or `create` on a folder; `None` if it is neither.
pub fn run(verb: &str, matches: &ArgMatches, format: Format) -> Option<Result<(), Failure>> {
    Some(match verb {
        "create" if matches.get_one::<PathBuf>("folder").is_some() => create(matches, format),
        "verify" => verify(matches, format),
        "restore" => restore(matches, format),
        _ => return None,
    })
}

fn named<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a PathBuf, Failure> {
    matches.get_one::<PathBuf>(name).ok_or_else(|| Failure::Usage(format!("name a {name}")))
}

/// What is not whole ends like evidence that does not verify.
fn failed(error: BackupError) -> Failure {
    let text = format!("{} ({})", chain(&error), error.code());
    match error {
        BackupError::Invalid(_) | BackupError::Audit(_) => Failure::Evidence(text),
        BackupError::Taken(_) => Failure::Usage(text),
        BackupError::File(..) | BackupError::Store(_) | BackupError::Keys(_) | BackupError::Running => {
            Failure::Other(text)
        }
    }
}

fn show(made: &Verified, lines: &[String], format: Format) -> Result<(), Failure> {
    let manifest = &made.manifest;
    if format != Format::Table {
        // A manifest is plain data.
        let mut value = serde_json::to_value(manifest).unwrap_or_default();
        value["digest"] = made.digest.clone().into();
        return say(&output::render(&value, format)?);
    }
    let facts: u64 = manifest.logs.iter().map(|log| log.size).sum();
    let checkpoints: u64 = manifest.logs.iter().map(|log| log.checkpoints).sum();
    say(&format!(
        "  made         {} UTC by writ {}",
        kernel::calendar::text(manifest.created_at_ms),
        manifest.writ
    ))?;
    say(&format!("  holds        {} files, {} bytes", manifest.files.len(), made.bytes()))?;
    say(&format!(
        "  logs         {}, {facts} facts, {checkpoints} checkpoints, all of them fit",
        manifest.logs.len()
    ))?;
    say(&format!("  digest       {}", made.digest))?;
    say(&format!("  recovery key {}", manifest.recovery_key))?;
    lines.iter().try_for_each(|line| say(line))
}

fn create(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let (folder, to) = (named(matches, "folder")?, named(matches, "to")?);
    let made = backup::create_of(folder, to, &SystemIds, SystemClock.now_ms()).map_err(failed)?;
    let key = folder.join(RECOVERY_FILE);
    let line = format!("Keep {} somewhere else: without it this backup cannot be restored.", key.display());
    show(&made, &[line], format)
}

fn verify(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let backup = named(matches, "backup")?;
    let (made, whose) = match matches.get_one::<PathBuf>("folder") {
        Some(folder) => (backup::verify_of(backup, folder), "It is whole, and of that installation."),
        None => (backup::verify(backup, None), "It is whole. Whose it is, --folder or a restore says."),
    };
    let made = made.map_err(failed)?;
    show(&made, &[whose.to_owned()], format)
}

fn restore(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let to = named(matches, "to")?;
    let made = backup::restore(named(matches, "backup")?, named(matches, "key")?, to).map_err(failed)?;
    let lines = [
        format!("Restored to {}. Start it, look at what is missing, and then:", to.display()),
        "  writ epoch open --reason \"what was put back, and why\"".to_owned(),
        "Until then nothing is done there and nothing is signed.".to_owned(),
    ];
    show(&made, &lines, format)
}

/// Advice after a backup that a server made.
pub fn advise(value: &serde_json::Value) {
    let folder = value["folder"].as_str().unwrap_or_default();
    output::note(&format!(
        "It lies on the server, in {}. Move it to another machine, and keep backup.key of the server's folder somewhere else again: \
         without that key it cannot be restored.",
        output::clean(folder)
    ));
}
