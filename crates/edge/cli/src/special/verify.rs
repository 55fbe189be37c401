//! `writ verify`: is this evidence what it says, given what I already hold?
//!
//! It needs no server and no network. What it is told to trust comes from the caller's own file; a bundle that brought its
//! own keys would only prove that somebody has keys.

use crate::exit::Failure;
use crate::output::{self, Format, say};
use act::Coded as _;
use clap::ArgMatches;
use evidence::archive::BUNDLE_BYTES_MAX;
use evidence::manifest::NOT_PROVEN;
use evidence::trust::{TRUST_BYTES_MAX, Trust};
use evidence::verify::{Reason, Report, verify_named};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest checkpoint file read, in bytes.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Runs the command. Evidence that does not verify ends with exit code 7.
pub fn run(matches: &ArgMatches, format: Format) -> Result<(), Failure> {
    let path = |name: &str| matches.get_one::<PathBuf>(name);
    let (Some(bundle), Some(trust)) = (path("bundle"), path("trust")) else {
        return Err(Failure::Usage("name a bundle and a trust file".into()));
    };
    let bundle = read(bundle, BUNDLE_BYTES_MAX)?;
    let held = path("held").map(|path| read(path, HELD_BYTES_MAX)).transpose()?;
    let held = held.map(|bytes| {
        String::from_utf8(bytes).map_err(|_| Failure::Usage("the checkpoint held is no text".into()))
    });
    let held = held.transpose()?;
    let bytes = read(trust, TRUST_BYTES_MAX)?;
    let trust = match Trust::parse(&bytes) {
        Ok(trust) => trust,
        // Who cannot say what they trust is told that the evidence proves nothing to them, in the form of a report.
        Err(error) => {
            if format != Format::Table {
                let failure = json!({"check": "trust", "code": error.code(), "detail": error.to_string()});
                let report = json!({"checks": [], "facts": 0, "failure": failure});
                say(&output::render(&report, format)?)?;
            }
            let file = trust.display();
            let shown =
                serde_json::from_slice::<Value>(&bytes).is_ok_and(|shown| shown.get("trust").is_some());
            if shown {
                return Err(Failure::Usage(format!(
                    "{file} is what `writ trust show -o json` prints; `writ trust show --file {file}` writes the trust file"
                )));
            }
            return Err(Failure::Evidence(format!(
                "{} at `trust`: {file} is no trust file: {error}",
                error.code()
            )));
        }
    };
    let report = verify_named(&bundle, &trust, held.as_deref());
    match format {
        Format::Table => say(&lines(&report))?,
        Format::Json | Format::Yaml => {
            let value = serde_json::to_value(&report).map_err(|error| Failure::Other(error.to_string()))?;
            say(&output::render(&value, format)?)?;
        }
    }
    judge(&report)
}

/// Success, or the failure that ends the process with code 7.
pub fn judge(report: &Report) -> Result<(), Failure> {
    match &report.failure {
        None => Ok(()),
        Some(failure) => {
            Err(Failure::Evidence(format!("{} at `{}`: {failure}", failure.reason.code(), failure.check)))
        }
    }
}

/// Reads a trust file.
pub fn trust_read(path: &Path) -> Result<Trust, Failure> {
    let bytes = read(path, TRUST_BYTES_MAX)?;
    Trust::parse(&bytes)
        .map_err(|error| Failure::Usage(format!("{} is no trust file: {error}", path.display())))
}

/// Reads a file of at most so many bytes.
fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    // A usize fits a u64 on every machine that this runs on.
    let limit = bytes_max as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() > bytes_max {
        return Err(Failure::Usage(format!("{} has more than {bytes_max} bytes", path.display())));
    }
    Ok(bytes)
}

/// The report for people.
pub fn lines(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = if check.ok { "ok    " } else { "FAILED" };
        text.push_str(&format!("{mark}  {:<12}  {}\n", check.name, plain(&check.detail)));
    }
    if report.ok() {
        text.push_str(&format!(
            "\nValid: {} facts in {} streams of {} at size {}; {} opened.\nSHA-256 of the bundle: {}\n",
            report.facts,
            report.streams,
            plain(&report.origin),
            report.size,
            report.disclosed,
            report.bundle_sha256
        ));
        for policy in &report.policies_absent {
            text.push_str(&format!("Policy {} decided and is not in the bundle.\n", plain(policy)));
        }
        text.push_str("\nNot proven by it:\n");
        for name in &report.not_proven {
            let says =
                NOT_PROVEN.iter().find(|(known, _)| known == name).map_or(name.as_str(), |(_, says)| says);
            text.push_str(&format!("  - {}\n", plain(says)));
        }
    } else if report.failure.as_ref().is_some_and(|failure| failure.reason == Reason::HeldInvalid) {
        text.push_str("\nNot judged. What was given as held (--held) is no checkpoint of this log, signed by a key that you trust.\n");
    } else {
        text.push_str("\nNot valid. Nothing in this bundle is to be believed.\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// A bundle may say anything of itself; a terminal gets no control characters from it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evidence::verify::Check;

    #[test]
    fn a_report_names_every_check_and_what_it_does_not_prove() {
        let check = |name, ok, detail: &str| Check { name, ok, detail: detail.into() };
        let mut report = Report {
            checks: vec![check("archive", true, "9 files"), check("files", true, "a\u{1b}[2Jb")],
            not_proven: vec!["truth_of_content".into()],
            ..Report::default()
        };
        let text = lines(&report);
        assert!(
            text.contains("ok      archive") && text.contains("- that what a fact says is true"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(judge(&report).is_ok());
        report.failure = evidence::verify(b"no bundle", &trust(), None).failure;
        report.checks.push(check("manifest", false, "x"));
        let text = lines(&report);
        assert!(text.contains("FAILED  manifest") && !text.contains("Valid"), "{text}");
        assert_eq!(judge(&report).unwrap_err().code(), 7);
    }

    #[test]
    fn files_that_are_not_there_are_a_matter_of_usage() {
        assert_eq!(read(Path::new("/nowhere/at/all"), 10).unwrap_err().code(), 2);
        assert_eq!(trust_read(Path::new("/nowhere/at/all")).unwrap_err().code(), 2);
    }

    fn trust() -> Trust {
        Trust {
            version: 1,
            installation: "test".into(),
            logs: Vec::new(),
            evidence_keys: Vec::new(),
            witnesses: Default::default(),
        }
    }
}
