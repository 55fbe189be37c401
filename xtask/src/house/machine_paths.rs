//! No file names a folder of the machine that it was written on.
//!
//! Such a path works for its author and for nobody else, and tells the world how
//! the author's machine is laid out. Relative paths, `$HOME` and temporary folders
//! serve everywhere.

use super::{Finding, House};

/// Put together here, so that this file does not find itself.
const FOLDERS: &[&str] = &[concat!("/", "work/"), concat!("/", "root/")];

pub(super) fn check(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in house.tree.texts() {
        for (index, line) in text.lines().enumerate() {
            if let Some(folder) = FOLDERS.iter().find(|folder| names(line, folder)) {
                findings.push(Finding::new(
                    format!("{path}:{}", index + 1),
                    format!("`{folder}` is a folder of one machine: write a relative path, or take it from the environment"),
                ));
            }
        }
    }
    findings
}

/// Whether `folder` stands in the line as the beginning of an absolute path, not
/// as a part in the middle of another.
fn names(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}~".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    #[test]
    fn only_absolute_paths_count() {
        let house = files(&[
            ("a.md", concat!("net/", "work/x ./", "work/y https://example.org/", "work/z ", "/workshop")),
            ("b.md", concat!("fine\nsee `/", "work/main`\n")),
            ("c.rs", concat!("\"/", "root/.cargo\"")),
        ]);
        expect(&check(&house), &["b.md:2: ", "c.rs:1: "]);
    }
}
