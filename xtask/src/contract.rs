//! `cargo xtask contract`: what was promised is still so.
//!
//! Programs of others are written against `contracts/openapi.json`. A field that is gone, an option that has become
//! mandatory, a value that nobody expected: each breaks one of them, and nothing in this repository would notice, because
//! the contract is written from the table and every test follows it. So the last contract that was released stands in
//! `contracts/released/`, and this compares: whatever breaks a program that follows the released one fails, unless the
//! version says that it may. `cargo xtask contract release` makes the present contract the released one.
//!
//! May break: a higher first component of the version, or of a version `0.y` a higher second one, as Cargo and SemVer read
//! it. Which changes break whom is in [`compare`].

mod compare;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Failure;

/// Contract and its released form.
const CONTRACTS: &[(&str, &str)] = &[
    ("contracts/openapi.json", "contracts/released/openapi.json"),
    ("contracts/asyncapi.json", "contracts/released/asyncapi.json"),
];

/// Compares every contract with the released one.
pub(crate) fn check() -> Result<(), Failure> {
    let mut broken = Vec::new();
    for (now, released) in present() {
        let (now_value, released_value) = (read(now)?, read(released)?);
        let breaks = compare::breaks(&released_value, &now_value);
        if !breaks.is_empty() && !may_break(&version(&released_value), &version(&now_value)) {
            broken.push(format!("{now} breaks who follows {released}:"));
            broken.extend(breaks.iter().map(|text| format!("  {text}")));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    broken.push("Keep the promise, or raise the version and run `cargo xtask contract release`.".into());
    Err(Failure::new(broken.join("\n")))
}

/// Makes the present contracts the released ones.
pub(crate) fn release() -> Result<(), Failure> {
    check()?;
    for (now, released) in present() {
        let copied = fs::copy(now, released);
        copied.map_err(|error| Failure::new(format!("{released} cannot be written: {error}")))?;
    }
    Ok(())
}

fn present() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    // A contract that is not there yet has promised nothing; one that was released and is gone fails when it is read.
    CONTRACTS.iter().filter(|(now, released)| Path::new(now).exists() || Path::new(released).exists())
}

fn read(path: &str) -> Result<Value, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{path} cannot be read: {error}\n(a first release: copy the contract there)"))
    })?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("{path} is no JSON: {error}")))
}

fn version(contract: &Value) -> Vec<u64> {
    let text = contract["info"]["version"].as_str().unwrap_or_default();
    text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// Whether the component that is for breaking changes has been raised.
fn may_break(released: &[u64], now: &[u64]) -> bool {
    let leading = released.iter().take_while(|part| **part == 0).count();
    let part = leading.min(1);
    now.get(..part) > released.get(..part) || {
        let at = |version: &[u64]| version.get(part).copied().unwrap_or(0);
        now.get(..part) == released.get(..part) && at(now) > at(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_versions_may_break() {
        for (released, now, may) in [
            ("1.4.2", "2.0.0", true),
            ("1.4.2", "1.5.0", false),
            ("1.4.2", "0.9.0", false),
            ("0.1.0", "0.2.0", true),
            ("0.1.0", "0.1.9", false),
            ("0.2.0", "0.1.0", false),
            ("0.1.0", "1.0.0", true),
            ("2.0.0", "1.9.0", false),
            ("0.1.0", "0.1.0", false),
            ("", "", false),
        ] {
            let of = |text: &str| version(&serde_json::json!({"info": {"version": text}}));
            assert_eq!(may_break(&of(released), &of(now)), may, "{released} → {now}");
        }
    }
}
