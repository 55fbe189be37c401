//! `cargo xtask test` and `cargo xtask check`: everything that must hold.
//!
//! Both begin with what is quick and fails often. `test` ends with nextest, the
//! largest stage, so that the last thing on the screen is its count of tests.

use std::env;

use crate::Failure;
use crate::contract;
use crate::house;
use crate::stage::{self, Stage};
use crate::suites::{BUILD, PYTHON_SUITES};
use crate::tree::Tree;

/// Runs everything: static checks, doc tests, Python suites, all Rust tests.
pub(crate) fn test() -> Result<(), Failure> {
    let mut stages = static_checks();
    stages.extend(doc_tests(&Tree::read()?));
    stages.push(Stage::cargo("binaries and examples", BUILD));
    stages.extend(PYTHON_SUITES.iter().map(|suite| suite.stage()));
    // Unattended, one run shows all that is broken (.config/nextest.toml).
    let profile = if env::var_os("CI").is_some() { "ci" } else { "default" };
    stages.push(Stage::cargo("tests", &["nextest", "run", "--workspace", "--profile", profile]));
    stage::run_all("test", &stages)
}

/// Runs what says something without running the product.
pub(crate) fn check() -> Result<(), Failure> {
    stage::run_all("check", &static_checks())
}

fn static_checks() -> Vec<Stage> {
    vec![
        Stage::cargo("formatting", &["fmt", "--all", "--", "--check"]),
        Stage::check("house rules", "cargo xtask house", house::run),
        Stage::check("the released contract", "cargo xtask contract", contract::check),
        Stage::cargo(
            "licences, bans, sources (deny.toml)",
            &["deny", "--locked", "check", "licenses", "bans", "sources"],
        ),
        Stage::cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    ]
}

/// A stage for the doc tests of the crates that have some: rustdoc builds and
/// links each on its own, so crates without are not asked.
fn doc_tests(tree: &Tree) -> Option<Stage> {
    let mut crates: Vec<&str> = tree
        .texts()
        .filter(|(path, text)| path.ends_with(".rs") && has_doc_test(text))
        .filter_map(|(path, _)| Tree::in_crate(path))
        .filter(|(_, inside)| inside.starts_with("src/"))
        .filter_map(|(folder, _)| folder.rsplit('/').next())
        .collect();
    crates.dedup();
    if crates.is_empty() {
        return None;
    }
    let args = ["test", "--doc"].into_iter().chain(crates.into_iter().flat_map(|name| ["--package", name]));
    Some(Stage::cargo("doc tests", &args.collect::<Vec<_>>()))
}

/// Whether a doc comment opens a code block that rustdoc would run.
fn has_doc_test(text: &str) -> bool {
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(doc) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            inside = false;
            continue;
        };
        let Some(info) = doc.trim_start().strip_prefix("```") else { continue };
        inside = !inside;
        if inside && info.split(',').all(|word| RUN_BY_RUSTDOC.contains(&word.trim())) {
            return true;
        }
    }
    false
}

/// Words after the fence with which rustdoc takes a block for Rust and runs or
/// compiles it; any other (`text`, `json`, `ignore`) makes it prose.
const RUN_BY_RUSTDOC: &[&str] = &["", "rust", "no_run", "should_panic", "compile_fail", "edition2024"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Work;

    #[test]
    fn only_blocks_that_rustdoc_runs_are_doc_tests() {
        let cases = [
            ("/// ```\n/// assert!(true);\n/// ```", true),
            ("//! ```rust,no_run\n//! x();\n//! ```", true),
            ("    /// ```compile_fail\n", true),
            ("/// ```text\n/// ```\n/// plain", false),
            ("//! ```ignore\n//! ```", false),
            ("let s = \"```\";", false),
            ("/// ```json\n/// {}\n/// ```\n/// ```\n/// x();\n/// ```", true),
        ];
        for (text, expected) in cases {
            assert_eq!(has_doc_test(text), expected, "{text}");
        }
    }

    #[test]
    fn crates_without_doc_tests_are_not_asked() {
        let example = "/// ```\n/// x();\n/// ```\n";
        let tree = Tree::of(&[
            ("crates/a/one/src/lib.rs", example),
            ("crates/a/one/src/more.rs", example),
            ("crates/a/two/src/lib.rs", "/// none\n"),
            ("crates/a/three/tests/it/main.rs", example),
        ]);
        let Some(Stage { work: Work::Calls(calls), .. }) = doc_tests(&tree) else {
            panic!("one crate has some")
        };
        assert_eq!(calls[0].line(), "cargo test --doc --package one");
        assert!(doc_tests(&Tree::of(&[("crates/a/two/src/lib.rs", "")])).is_none());
    }
}
