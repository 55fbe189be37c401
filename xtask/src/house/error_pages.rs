//! Every error code has a page, and every page a code.
//!
//! A person who reads `egress.address_refused` in a reply looks for it in
//! `docs/errors/egress.address_refused.md`: what happened, whether it took
//! effect, what to do. A code without a page is a dead end, a page without a code
//! is a lie about the product.
//!
//! The convention that makes codes findable: a crate with codes has one or more
//! tables
//!
//! ```text
//! pub const CODES: &[(&str, &str)] = &[("egress.busy", "Too many requests at once to one host.")];
//! ```
//!
//! and whatever a `fn code(&self) -> &'static str` returns stands in one of them, its
//! own crate's or that of the crate that owns the code.
//! This reads text, not types: a code put together at run time is not seen, so
//! nobody does that.

use std::collections::BTreeMap;

use super::{Finding, House};
use crate::tree::Tree;

const TABLE: &str = "const CODES: &[";
const FUNCTION: &str = "fn code(&self) -> &'static str {";
const PAGES: &str = "docs/errors/";
/// The one page there that is not about a code.
const INDEX: &str = "docs/errors/README.md";
/// Its codes belong to the systems that it stands in for.
const FOREIGN: &str = "crates/edge/sandbox";

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut listed: BTreeMap<String, &str> = BTreeMap::new();
    let mut returned: Vec<(String, &str)> = Vec::new();
    for (path, text) in house.tree.texts() {
        let Some((folder, inside)) = Tree::in_crate(path) else { continue };
        if folder == FOREIGN || !inside.starts_with("src/") || !inside.ends_with(".rs") {
            continue;
        }
        for row in table_rows(text) {
            match row {
                Ok(code) => {
                    if !well_formed(&code) {
                        findings.push(Finding::new(
                            path,
                            format!("`{code}` is not the form of a code: `area.what_went_wrong`, in a-z, 0-9, _ and dots"),
                        ));
                    }
                    if let Some(other) = listed.insert(code.clone(), path) {
                        findings.push(Finding::new(
                            path,
                            format!("`{code}` stands in {other} too: a code means one thing, and one table owns it"),
                        ));
                    }
                }
                Err(row) => findings.push(Finding::new(
                    path,
                    format!(
                        "a row of CODES must begin with its code in quotes, to be found by a search: `{row}`"
                    ),
                )),
            }
        }
        returned.extend(returned_codes(text).into_iter().map(|code| (code, path)));
    }
    for (code, path) in returned {
        if !listed.contains_key(&code) {
            findings.push(Finding::new(
                path,
                format!(
                    "`{code}` is returned as a code and listed in no CODES table: add \
                     `(\"{code}\", \"one line on what it says\")` and {PAGES}{code}.md"
                ),
            ));
        }
    }
    for (code, path) in &listed {
        let page = format!("{PAGES}{code}.md");
        if house.tree.text(&page).is_none_or(|text| text.trim().is_empty()) {
            findings.push(Finding::new(
                *path,
                format!(
                    "`{code}` has no page: write {page} (what happened, whether it took effect, what to do)"
                ),
            ));
        }
    }
    for (path, _) in house.tree.texts() {
        let Some(code) = path.strip_prefix(PAGES).and_then(|name| name.strip_suffix(".md")) else { continue };
        if path != INDEX && !listed.contains_key(code) {
            findings.push(Finding::new(
                path,
                "no CODES table lists this code: delete the page, or list the code",
            ));
        }
    }
    findings
}

fn well_formed(code: &str) -> bool {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    code.split('.').all(plain)
}

/// The first string of each row of each `CODES` table; `Err` is a row that does
/// not begin with one.
fn table_rows(text: &str) -> Vec<Result<String, String>> {
    let mut rows = Vec::new();
    for (start, _) in text.match_indices(TABLE) {
        let Some((_, rest)) = text[start..].split_once("= &[") else { continue };
        let mut rest = Scan { text: rest };
        // Whether the next thing to come is the first of its row.
        let mut first = false;
        while let Some(token) = rest.next_token() {
            match token {
                Token::Text(code) if first => {
                    rows.push(Ok(code));
                    first = false;
                }
                Token::Text(_) => {}
                Token::Mark('(') => first = true,
                Token::Mark(']') => break,
                Token::Mark(',' | ')') => first = false,
                Token::Mark(other) if first => {
                    let row = rest.text.split(['\n', ',']).next().unwrap_or_default();
                    rows.push(Err(format!("{other}{row}")));
                    first = false;
                }
                Token::Mark(_) => {}
            }
        }
    }
    rows
}

/// The strings in the bodies of `fn code(&self)`, outside test modules.
fn returned_codes(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut codes = Vec::new();
    for (start, _) in text.match_indices(FUNCTION) {
        let mut rest = Scan { text: &text[start + FUNCTION.len()..] };
        let mut depth = 1_usize;
        while let Some(token) = rest.next_token() {
            match token {
                Token::Text(code) => codes.push(code),
                Token::Mark('{') => depth += 1,
                Token::Mark('}') if depth == 1 => break,
                Token::Mark('}') => depth -= 1,
                Token::Mark(_) => {}
            }
        }
    }
    codes
}

enum Token {
    /// A string literal's content, escapes as written.
    Text(String),
    /// Any other visible character.
    Mark(char),
}

/// Reads just enough of Rust to tell strings and comments from the rest.
struct Scan<'a> {
    text: &'a str,
}

impl Scan<'_> {
    fn next_token(&mut self) -> Option<Token> {
        loop {
            self.text = self.text.trim_start();
            if !self.text.starts_with("//") {
                break;
            }
            self.text = self.text.split_once('\n').map_or("", |(_, rest)| rest);
        }
        let mut chars = self.text.chars();
        let mark = chars.next()?;
        self.text = chars.as_str();
        if mark != '"' {
            return Some(Token::Mark(mark));
        }
        let mut escaped = false;
        let end = self.text.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let content = self.text[..end].to_owned();
        self.text = &self.text[end + 1..];
        Some(Token::Text(content))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    const ERRORS: &str = r#"
//! Errors.
/// What can go wrong.
pub const CODES: &[(&str, &str)] = &[
    // a comment with "quotes"
    ("egress.busy", "Too many at once (\"busy\"), see [limits]."),
    (
        "egress.address_refused",
        "The address is private.",
    ),
];
impl Fault {
    pub fn code(&self) -> &'static str {
        match self { Self::Busy => "egress.busy", Self::Address { .. } => { "egress.address_refused" } }
    }
    fn other(&self) -> &'static str { "not.a_code" }
}
#[cfg(test)]
mod tests { impl Fake { fn code(&self) -> &'static str { "fake" } } }
"#;

    #[test]
    fn codes_with_pages_pass() {
        let house = files(&[
            ("crates/services/egress/src/error.rs", ERRORS),
            (
                "crates/edge/sandbox/src/lib.rs",
                "fn code(&self) -> &'static str { \"invalid_request_error\" }",
            ),
            ("docs/errors/README.md", "index"),
            ("docs/errors/egress.busy.md", "page"),
            ("docs/errors/egress.address_refused.md", "page"),
        ]);
        expect(&check(&house), &[]);
    }

    #[test]
    fn both_directions_are_checked() {
        let house = files(&[
            ("crates/services/egress/src/error.rs", ERRORS),
            ("docs/errors/egress.busy.md", " \n"),
            ("docs/errors/egress.gone.md", "page"),
        ]);
        expect(
            &check(&house),
            &[
                "`egress.address_refused` has no page",
                "`egress.busy` has no page",
                "docs/errors/egress.gone.md: no CODES table lists this code",
            ],
        );
    }

    #[test]
    fn a_code_outside_every_table_is_found() {
        let house = files(&[
            (
                "crates/foundation/act/src/lib.rs",
                "pub const CODES: &[(&str, &str)] = &[(\"act.stale\", \"\")];",
            ),
            ("crates/services/access/src/lib.rs", "fn code(&self) -> &'static str { \"act.stale\" }"),
            ("crates/services/notify/src/lib.rs", "fn code(&self) -> &'static str {\n \"notify.full\"\n}"),
            ("docs/errors/act.stale.md", "page"),
        ]);
        expect(
            &check(&house),
            &["notify/src/lib.rs: `notify.full` is returned as a code and listed in no CODES table"],
        );
    }

    #[test]
    fn tables_are_plain_and_codes_are_unique_and_well_formed() {
        let house = files(&[
            (
                "crates/foundation/act/src/a.rs",
                "const CODES: &[(&str, &str)] = &[(\"act.x\", \"\"), (OTHER, \"\")];",
            ),
            (
                "crates/foundation/act/src/b.rs",
                "const CODES: &[(&str, &str)] = &[(\"act.x\", \"\"), (\"Act-Y\", \"\")];",
            ),
            ("docs/errors/act.x.md", "page"),
            ("docs/errors/Act-Y.md", "page"),
        ]);
        expect(
            &check(&house),
            &[
                "must begin with its code in quotes, to be found by a search: `OTHER`",
                "a.rs too",
                "`Act-Y` is not the form",
            ],
        );
    }
}
