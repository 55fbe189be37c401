//! Manifests say the same everywhere.
//!
//! A crate is found by its folder, inherits the workspace's lints, and takes
//! every version from the workspace. A list of members kept by hand, or a crate
//! that forgot `[lints]`, is an exception that nobody decided.

use super::{Finding, House};

const ROOT: &str = "Cargo.toml";
const MEMBERS: &str = r#"members = ["crates/*/*", "bench", "fuzz", "xtask"]"#;
/// The one exception: four lines that call `fuzz` and are compiled for libFuzzer, with all they depend on.
const EXCLUDE: &str = r#"exclude = ["fuzz/guided"]"#;

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = root(house.tree.text(ROOT).unwrap_or_default());
    for of in &house.crates {
        let place = of.manifest();
        if of.folder.rsplit('/').next() != Some(&of.name) {
            findings.push(Finding::new(
                &place,
                format!("the crate is called `{}`: a crate has the name of its folder, so that one search finds both", of.name),
            ));
        }
        let Some(text) = house.tree.text(&place) else {
            findings.push(Finding::new(
                &place,
                "cargo sees this crate and git does not: add it, or mend .gitignore",
            ));
            continue;
        };
        if !section(text, "lints").any(|(_, line)| line == "workspace = true") {
            findings.push(Finding::new(
                &place,
                "the workspace's lints do not hold here: add `[lints]` with `workspace = true`",
            ));
        }
        for (number, line) in own_versions(text) {
            findings.push(Finding::new(
                format!("{place}:{number}"),
                format!(
                    "`{line}` is a version of its own: name it in [workspace.dependencies] of the root, and here on \
                     one line as `name.workspace = true`"
                ),
            ));
        }
    }
    findings
}

fn root(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !section(text, "workspace").any(|(_, line)| line == MEMBERS) {
        findings.push(Finding::new(
            ROOT,
            format!("the members are found by their folder, not listed: `{MEMBERS}`"),
        ));
    }
    for (number, line) in section(text, "workspace") {
        if line.starts_with("default-members") || (line.starts_with("exclude") && line != EXCLUDE) {
            findings.push(Finding::new(
                format!("{ROOT}:{number}"),
                "no crate is left out by hand: one that is not built and tested with the others does not belong here",
            ));
        }
    }
    findings
}

/// Lines that depend on something other than by the workspace's word. Every kind
/// of dependencies counts: for tests, for builds, for one target.
fn own_versions(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = header.ends_with("dependencies]");
            if header.contains("dependencies.") {
                found.push((index + 1, line));
            }
        } else if inside && line.contains('=') && !line.starts_with('#') {
            let from_workspace = line.replace(' ', "").contains("workspace=true");
            if !from_workspace {
                found.push((index + 1, line));
            }
        }
    }
    found
}

/// The lines under `[name]`, trimmed, with their numbers; comments and empty
/// lines are left out.
fn section<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name);
            return None;
        }
        (inside && !line.is_empty() && !line.starts_with('#')).then_some((index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{crates, expect};
    use super::*;
    use crate::tree::Tree;

    const GOOD_ROOT: &str = "[workspace]\nmembers = [\"crates/*/*\", \"bench\", \"fuzz\", \"xtask\"]\nexclude = [\"fuzz/guided\"]\n";

    fn with(files: &[(&str, &str)]) -> House {
        let mut house = crates(&[("crates/foundation/kernel", &[])]);
        house.tree = Tree::of(files);
        house
    }

    #[test]
    fn a_plain_workspace_passes() {
        let kernel = "[package]\nname = \"kernel\"\n[lints]\nworkspace = true\n[dependencies]\n\
                      serde.workspace = true\nstore = { workspace = true }\n[[bin]]\nname = \"x\"\n";
        expect(
            &check(&with(&[("Cargo.toml", GOOD_ROOT), ("crates/foundation/kernel/Cargo.toml", kernel)])),
            &[],
        );
    }

    #[test]
    fn exceptions_are_found() {
        let root = "[workspace]\nmembers = [\"crates/edge/cli\"]\nexclude = [\"x\"]\n";
        let kernel = "[package]\nworkspace = true\n[lints.rust]\nunsafe_code = \"allow\"\n[dev-dependencies]\n\
                      # a comment = here\nserde = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc=\"1\"\n\
                      [dependencies.tokio]\nversion = \"1\"\n";
        expect(
            &check(&with(&[("Cargo.toml", root), ("crates/foundation/kernel/Cargo.toml", kernel)])),
            &[
                "the members are found by their folder",
                "Cargo.toml:3: no crate is left out",
                "the workspace's lints do not hold here",
                "kernel/Cargo.toml:7: `serde = \"1\"` is a version of its own",
                "kernel/Cargo.toml:9: `libc=\"1\"`",
                "kernel/Cargo.toml:10: `[dependencies.tokio]`",
            ],
        );
    }

    #[test]
    fn a_crate_has_the_name_of_its_folder_and_is_seen_by_git() {
        let mut house = with(&[("Cargo.toml", GOOD_ROOT)]);
        house.crates[0].name = "core".to_owned();
        expect(&check(&house), &["the crate is called `core`", "git does not"]);
    }
}
