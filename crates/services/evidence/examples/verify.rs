//! Verifies one bundle and prints the report as one line of JSON: what `writ verify` does, without the rest of writ.
//!
//! ```text
//! verify BUNDLE TRUST [HELD]
//! ```
//!
//! Exits with 0 if the bundle is valid and with 7 if it is not.

use act::Coded as _;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bundle, trust, held) = match args.as_slice() {
        [bundle, trust] => (bundle, trust, None),
        [bundle, trust, held] => (bundle, trust, Some(held)),
        _ => return say("usage: verify BUNDLE TRUST [HELD]", 2),
    };
    let read = |path: &String| std::fs::read(path).ok();
    let (Some(bundle), Some(trust)) = (read(bundle), read(trust)) else {
        return say("cannot read the files", 2);
    };
    let held = match held.map(|path| read(path).and_then(|bytes| String::from_utf8(bytes).ok())) {
        None => None,
        Some(Some(held)) => Some(held),
        Some(None) => return say("cannot read the checkpoint held", 2),
    };
    let trust = match evidence::Trust::parse(&trust) {
        Ok(trust) => trust,
        Err(error) => {
            let report = serde_json::json!({"checks": [], "facts": 0, "failure": {"code": error.code()}});
            return say(&report.to_string(), 7);
        }
    };
    let report = evidence::verify(&bundle, &trust, held.as_deref());
    // Plain data always serialises.
    say(&serde_json::to_string(&report).unwrap_or_default(), if report.ok() { 0 } else { 7 })
}

fn say(text: &str, code: u8) -> ExitCode {
    // Nobody to tell if there is no standard output.
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(code)
}
