//! The files of the working tree as a map, so that every check is a pure function.
//!
//! What git tracks and what it would track (new files that it does not ignore)
//! are read once. A check gets the map, and its test gets one with three files.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::Failure;
use crate::stage::Call;

/// Path, relative to the workspace root with `/` between its parts, to content.
/// Files that are not UTF-8 text are listed with no content.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, Option<String>>,
}

impl Tree {
    /// Reads the working tree of the current directory.
    pub(crate) fn read() -> Result<Self, Failure> {
        let listing = git(&["ls-files", "--cached", "--others", "--exclude-standard", "-z"])?;
        let mut files = BTreeMap::new();
        for path in listing.split('\0').filter(|path| !path.is_empty()) {
            match fs::read(path) {
                Ok(bytes) => {
                    files.insert(path.to_owned(), String::from_utf8(bytes).ok());
                }
                // Deleted, and the deletion not staged yet; or a link to a folder.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
                Err(error) => return Err(Failure::new(format!("cannot read {path}: {error}"))),
            }
        }
        Ok(Tree { files })
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), Some((*text).to_owned()))).collect();
        Tree { files }
    }

    /// The content of a text file; `None` if there is no such file or it is not text.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// All text files with their content, in order of path.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// Whether there is a file at `path`, or a folder with a file in it.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let folder = if path.is_empty() { String::new() } else { format!("{}/", path.trim_end_matches('/')) };
        self.files.contains_key(path)
            || self.files.range(folder.clone()..).next().is_some_and(|(first, _)| first.starts_with(&folder))
    }

    /// The rest of the path after `crates/<floor>/<crate>/` for a file of a crate,
    /// with the crate's folder.
    pub(crate) fn in_crate(path: &str) -> Option<(&str, &str)> {
        let mut slashes = path.match_indices('/').map(|(at, _)| at);
        let third = slashes.nth(2)?;
        path.starts_with("crates/").then(|| (&path[..third], &path[third + 1..]))
    }
}

/// What a git command prints; a failure says what git said.
pub(crate) fn git(args: &[&str]) -> Result<String, Failure> {
    output(&Call::new("git", args))
}

/// Runs a call and returns what it prints on its standard output.
pub(crate) fn output(call: &Call) -> Result<String, Failure> {
    let line = call.line();
    let output =
        call.command().output().map_err(|error| Failure::new(format!("cannot run `{line}`: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("`{line}`: {}\n{}", output.status, said.trim())));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("`{line}` printed something that is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_exists_where_a_file_is_in_it() {
        let tree = Tree::of(&[("docs/errors/a.b.md", ""), ("docs.md", "")]);
        for (path, expected) in [
            ("docs/errors/a.b.md", true),
            ("docs/errors", true),
            ("docs/", true),
            ("doc", false),
            ("docs/x", false),
        ] {
            assert_eq!(tree.exists(path), expected, "{path}");
        }
    }

    #[test]
    fn a_crate_s_files_are_told_from_others() {
        let cases = [
            ("crates/edge/cli/src/a/b.rs", Some(("crates/edge/cli", "src/a/b.rs"))),
            ("crates/edge/README.md", None),
            ("xtask/src/a/b.rs", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Tree::in_crate(path), expected, "{path}");
        }
    }
}
