//! Our check of Slack's signatures as a program, so that Slack's own verifier can be asked the same questions.
//!
//! Each line on standard input is an object with `secret`, `timestamp`, `signature`, `body` and `now_ms`; each line on
//! standard output says `ok` or the code of the refusal.

use act::Coded as _;
use notify::slack::signature::Signed;
use serde_json::Value;
use std::io::{self, BufRead as _, Write as _};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let signed = Signed { timestamp: text("timestamp"), signature: text("signature") };
        let now_ms = asked["now_ms"].as_i64().unwrap_or_default();
        let said = signed.verify(text("secret").as_bytes(), text("body").as_bytes(), now_ms);
        writeln!(out, "{}", said.map_or_else(|error| error.code(), |()| "ok"))?;
    }
    Ok(())
}
