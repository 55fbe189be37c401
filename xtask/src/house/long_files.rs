//! No file of Rust is longer than 800 lines.
//!
//! A file that nobody can hold in mind is where the second copy of a helper gets
//! written. Tests do not count if they stand in files of their own (`tests/` or
//! `tests.rs`).
//!
//! Exceptions stand in `xtask/house/long_files.txt` as `path lines`, and that list
//! can only shrink: a file on it may not grow, one that is short again leaves it,
//! and an entry that any earlier commit of the list did not have is refused.

use std::collections::BTreeMap;

use super::{Finding, House};
use crate::Failure;
use crate::tree::git;

const LINES_MAX: usize = 800;
const LIST: &str = "xtask/house/long_files.txt";
/// Commits of the list that are compared; it changes only when a file gets shorter.
const HISTORY_MAX: &str = "--max-count=100";

/// The list as it was in each commit that touched it, newest first.
pub(super) fn history() -> Result<Vec<String>, Failure> {
    // Before the first commit there is no history to ask for.
    if git(&["rev-parse", "--verify", "--quiet", "HEAD"]).is_err() {
        return Ok(Vec::new());
    }
    let commits = git(&["log", "--format=%H", HISTORY_MAX, "--diff-filter=AM", "--", LIST])?;
    commits.lines().map(|commit| git(&["show", &format!("{commit}:{LIST}")])).collect()
}

pub(super) fn check(house: &House) -> Vec<Finding> {
    let (mut list, mut findings) = match house.tree.text(LIST) {
        Some(text) => entries(text),
        None => return vec![Finding::new(LIST, "the list of long files is missing; an empty file will do")],
    };
    for before in &house.long_files_before {
        let (before, _) = entries(before);
        for (path, &lines) in &list {
            if before.get(path).is_none_or(|&most| lines > most) {
                let had = before
                    .get(path)
                    .map_or("did not have it".to_owned(), |most| format!("had it with {most}"));
                findings.push(Finding::new(
                    LIST,
                    format!("this list only shrinks: `{path} {lines}` is new, an earlier commit {had}"),
                ));
            }
        }
    }
    for (path, text) in house.tree.texts() {
        let listed = list.remove(path);
        if !path.ends_with(".rs") || is_test(path) {
            continue;
        }
        let lines = text.lines().count();
        match listed {
            Some(_) if lines <= LINES_MAX => findings.push(Finding::new(
                LIST,
                format!("{path} has {lines} lines, which is short enough: remove it from this list"),
            )),
            Some(most) if lines > most => findings.push(Finding::new(
                path,
                format!("{lines} lines, and {most} were too many already: split it by concept before adding to it"),
            )),
            None if lines > LINES_MAX => findings.push(Finding::new(
                path,
                format!(
                    "{lines} lines, more than {LINES_MAX}: give each concept a file (long tests go into a tests.rs \
                     of their own)"
                ),
            )),
            Some(_) | None => {}
        }
    }
    findings.extend(
        list.into_keys().map(|path| Finding::new(LIST, format!("{path} is gone: remove it from this list"))),
    );
    findings
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// The entries of a list, and a finding for each line that is none.
fn entries(text: &str) -> (BTreeMap<String, usize>, Vec<Finding>) {
    let mut list = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.rsplit_once(' ').and_then(|(path, lines)| Some((path.trim(), lines.parse().ok()?))) {
            Some((path, lines)) => {
                list.insert(path.to_owned(), lines);
            }
            None => findings.push(Finding::new(
                format!("{LIST}:{}", index + 1),
                format!("a line is `path lines`, not `{line}`"),
            )),
        }
    }
    (list, findings)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    fn lines(count: usize) -> String {
        "x\n".repeat(count)
    }

    #[test]
    fn short_files_and_tests_pass() {
        let house = files(&[
            (LIST, "# none\n"),
            ("crates/a/b/src/lib.rs", &lines(800)),
            ("crates/a/b/src/x/tests.rs", &lines(801)),
            ("crates/a/b/tests/it/main.rs", &lines(801)),
            ("contracts/openapi.json", &lines(801)),
        ]);
        expect(&check(&house), &[]);
    }

    #[test]
    fn a_long_file_is_found_unless_listed() {
        let house = files(&[
            (LIST, "crates/a/b/src/listed.rs 900\ncrates/a/b/src/grown.rs 900\n"),
            ("crates/a/b/src/grown.rs", &lines(901)),
            ("crates/a/b/src/listed.rs", &lines(900)),
            ("crates/a/b/src/new.rs", &lines(801)),
        ]);
        expect(
            &check(&house),
            &["grown.rs: 901 lines, and 900 were too many", "new.rs: 801 lines, more than 800"],
        );
    }

    #[test]
    fn the_list_only_shrinks() {
        let mut house = files(&[
            (LIST, "a.rs 900\nb.rs 850\nshort.rs 900\ngone.rs 900\nnonsense\n"),
            ("a.rs", &lines(900)),
            ("b.rs", &lines(850)),
            ("short.rs", &lines(10)),
        ]);
        house.long_files_before = vec!["a.rs 890\nshort.rs 900\ngone.rs 900\n".to_owned()];
        expect(
            &check(&house),
            &[
                "long_files.txt:5: a line is `path lines`",
                "`a.rs 900` is new, an earlier commit had it with 890",
                "`b.rs 850` is new, an earlier commit did not have it",
                "short.rs has 10 lines, which is short enough",
                "gone.rs is gone",
            ],
        );
        expect(&check(&files(&[])), &["the list of long files is missing"]);
    }
}
