//! `writ doctor`: what stands between this shell and a working installation.
//!
//! Each line is one thing that was looked at, whether it is as it should be, and if not what to do. It changes nothing and
//! shows no secret. It looks from where the user stands: the configuration and the folder of this machine, and the
//! installation that `--url` and the key lead to, which may be another one. Exit code 1 if anything is bad.

use super::local::{chain, load};
use crate::exit::Failure;
use crate::output::{self, Format, say};
use crate::session::Session;
use client::{Client, ClientError};
use http::Method;
use serde_json::{Value, json};
use server::checkup::{self, Finding, State};
use std::path::{Path, PathBuf};
use store::{Clock as _, SystemClock};

/// A client's clock may be this far off before deliveries and permits suffer, in milliseconds.
const SKEW_MAX_MS: i64 = 60_000;
/// Programs that the journeys use, and for what.
const TOOLS: &[(&str, &str)] = &[
    ("python3", "the second evidence verifier and the fidelity suites"),
    ("jq", "taking the trust file out of `writ trust show -o json`"),
];

/// Runs the command.
pub async fn run(config: Option<&PathBuf>, session: &Session, format: Format) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match load(config) {
        Ok(config) => {
            findings.push(Finding::new("configuration", State::Good, "it is accepted", ""));
            findings.extend(checkup::folder(&config));
        }
        Err(error) => {
            let advice = "Mend it; `writ config` prints what is in force.";
            findings.push(Finding::new("configuration", State::Bad, error.to_string(), advice));
        }
    }
    findings.extend(installation(session).await);
    findings
        .extend(TOOLS.iter().map(|(name, purpose)| tool(name, purpose, std::env::var_os("PATH").as_deref())));
    match format {
        Format::Table => findings.iter().try_for_each(|finding| say(&line(finding)))?,
        Format::Json | Format::Yaml => say(&output::render(&json!({"items": findings}), format)?)?,
    }
    match findings.iter().filter(|finding| finding.state == State::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::Other(format!("{bad} of {} checks found something bad", findings.len()))),
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.state {
        State::Good => "ok  ",
        State::Note => "note",
        State::Bad => "BAD ",
    };
    let says = output::clean(&finding.says);
    let advice =
        if finding.advice.is_empty() { String::new() } else { format!("\n      → {}", finding.advice) };
    format!("{mark}  {:<13}  {says}{advice}", finding.what)
}

/// What the address and the key lead to.
async fn installation(session: &Session) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (client, keyed) = match session.client() {
        Ok(client) => (client, true),
        Err(error) => {
            findings.push(Finding::new(
                "key",
                State::Bad,
                error.to_string(),
                "Check --key-file, WRIT_KEY_FILE and --url.",
            ));
            // The rest can be asked without a key.
            match session.keyless() {
                Ok(client) => (client, false),
                Err(_) => return findings,
            }
        }
    };
    let before_ms = SystemClock.now_ms();
    let alive = match get(&client, "/healthz").await {
        Ok(alive) => alive,
        Err(error) => {
            let advice = "Start one with `writ serve`, or name another with --url or WRIT_URL.";
            findings.push(Finding::new("installation", State::Bad, chain(&error), advice));
            return findings;
        }
    };
    let after_ms = SystemClock.now_ms();
    findings.push(Finding::new("installation", State::Good, format!("{} answers", session.url), ""));
    findings.push(version(alive["version"].as_str()));
    findings.push(clock(before_ms, alive["now_ms"].as_i64(), after_ms));
    findings.push(match get(&client, "/readyz").await {
        Ok(_) => Finding::new("readiness", State::Good, "storage can be read and a policy is in force", ""),
        Err(error) => Finding::new("readiness", State::Bad, chain(&error), "Look into the server's log."),
    });
    if let Some(file) = &session.key_file
        && keyed
    {
        findings.push(checkup::private("key file", file, "chmod 600, and replace the key"));
    }
    if keyed {
        findings.push(key(get(&client, "/v1/approvals").await, session.has_key()));
    }
    findings
}

async fn get(client: &Client, path: &str) -> Result<Value, ClientError> {
    client.call(Method::GET, path, &[], None, None).await.map(|reply| reply.body)
}

fn version(theirs: Option<&str>) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    match theirs {
        Some(theirs) if theirs == ours => {
            Finding::new("version", State::Good, format!("{ours}, here and there"), "")
        }
        Some(theirs) => Finding::new(
            "version",
            State::Note,
            format!("this is {ours}, the installation is {theirs}"),
            "Commands are those of this version; use the same one for both.",
        ),
        None => Finding::new(
            "version",
            State::Note,
            "the installation does not say which it is",
            "Is it writ that answers there?",
        ),
    }
}

/// The installation's clock, asked for between two looks at ours.
fn clock(before_ms: i64, theirs_ms: Option<i64>, after_ms: i64) -> Finding {
    let Some(theirs_ms) = theirs_ms else {
        return Finding::new("clock", State::Note, "the installation does not say what time it is", "");
    };
    let skew_ms = if theirs_ms < before_ms { before_ms - theirs_ms } else { (theirs_ms - after_ms).max(0) };
    if skew_ms > SKEW_MAX_MS {
        let says = format!("{} seconds apart from the installation's", skew_ms / 1000);
        let advice =
            "Set the clocks by NTP: deliveries five minutes off are refused, and facts tell the time.";
        return Finding::new("clock", State::Bad, says, advice);
    }
    Finding::new(
        "clock",
        State::Good,
        format!("within {} ms of the installation's", skew_ms + after_ms - before_ms),
        "",
    )
}

fn key(answer: Result<Value, ClientError>, has_key: bool) -> Finding {
    if !has_key {
        return Finding::new(
            "key",
            State::Note,
            "no key is given, so nothing but health can be asked",
            "Give one with WRIT_KEY or --key-file; the first one stands in admin.key in the server's folder.",
        );
    }
    match answer {
        Ok(_) => Finding::new("key", State::Good, "it is accepted", ""),
        Err(ClientError::Problem(problem)) if problem.code == "access.read_denied" => {
            Finding::new("key", State::Good, "it is accepted; its roles read no approvals", "")
        }
        Err(ClientError::Problem(problem)) if problem.status == 401 => Finding::new(
            "key",
            State::Bad,
            format!("it is refused ({})", problem.code),
            "It is of another installation, revoked or past its end; have another made with `writ key create`.",
        ),
        Err(ClientError::Problem(problem)) if problem.code == "access.tenant_denied" => Finding::new(
            "key",
            State::Bad,
            "it does not belong to the tenant that is named",
            "Leave --tenant and WRIT_TENANT away, or name the key's own.",
        ),
        Err(error) => Finding::new("key", State::Bad, error.to_string(), "Look into the server's log."),
    }
}

fn tool(name: &str, purpose: &str, path: Option<&std::ffi::OsStr>) -> Finding {
    let found = path
        .map(|path| {
            std::env::split_paths(path).any(|folder: PathBuf| Path::new(&folder).join(name).is_file())
        })
        .unwrap_or_default();
    if found {
        Finding::new("tools", State::Good, name, "")
    } else {
        Finding::new(
            "tools",
            State::Note,
            format!("{name} is not installed"),
            &format!("It is for {purpose}; nothing else needs it."),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Problem;

    #[test]
    fn each_finding_is_told_from_its_neighbours() {
        for (before, theirs, after, state) in [
            (1_000, Some(1_005), 1_010, State::Good),
            (100_000, Some(40_000), 100_010, State::Good),
            (100_000, Some(39_999), 100_010, State::Bad),
            (1_000, Some(61_010), 1_010, State::Good),
            (1_000, Some(61_011), 1_010, State::Bad),
            (1_000, None, 1_010, State::Note),
        ] {
            assert_eq!(clock(before, theirs, after).state, state, "{before} {theirs:?} {after}");
        }
        for (theirs, state) in [
            (Some(env!("CARGO_PKG_VERSION")), State::Good),
            (Some("9.9.9"), State::Note),
            (None, State::Note),
        ] {
            assert_eq!(version(theirs).state, state, "{theirs:?}");
        }
        let problem = |status, code: &str| {
            let problem = Problem { status, code: code.into(), detail: String::new(), body: Value::Null };
            Err(ClientError::Problem(Box::new(problem)))
        };
        for (answer, has_key, state) in [
            (Ok(Value::Null), true, State::Good),
            (problem(401, "access.key_invalid"), false, State::Note),
            (problem(401, "access.key_invalid"), true, State::Bad),
            (problem(403, "access.tenant_denied"), true, State::Bad),
            (problem(403, "access.read_denied"), true, State::Good),
            (problem(503, "store.failed"), true, State::Bad),
        ] {
            let found = key(answer, has_key);
            assert_eq!(found.state, state, "{found:?}");
        }
        assert_eq!(
            tool("no-such-program", "nothing", std::env::var_os("PATH").as_deref()).state,
            State::Note
        );
        assert_eq!(tool("ls", "everything", Some(std::ffi::OsStr::new("/bin"))).state, State::Good);
        assert!(line(&version(None)).contains("\n      → "));
    }
}
