//! The house rules: what the architecture forbids, as checks that fail.
//!
//! A rule that stands only in a document is broken by the third person who did
//! not read it. "Only `store` has SQL" holds because `fences` fails as soon as
//! another crate names `rusqlite`, and says where the call belongs instead. What
//! the compiler or clippy can check is left to them (see `clippy.toml`); here is
//! what concerns the shape of the whole tree.
//!
//! Rules for those who add one:
//!
//! * A rule is a pure function from what was read ([`House`]) to [`Finding`]s,
//!   with a test in which it fails on the smallest tree that breaks it.
//! * A finding teaches: what is wrong, why it matters, what to do instead.
//! * Exceptions stand in a table beside the rule, each with its reason, or in a
//!   file that can only shrink. There is no switch to turn a rule off.
//!
//! They read names and text, not types: a rule that needs to understand Rust is
//! a lint or a test of the crate concerned.

pub(crate) mod abuse_cases;
mod arrows;
mod error_pages;
mod fences;
mod figures;
mod links;
mod long_files;
mod machine_paths;
mod manifests;
mod python_suites;

use serde_json::Value;

use crate::Failure;
use crate::stage::Call;
use crate::tree::{self, Tree};

/// Everything that a rule may look at.
pub(crate) struct House {
    pub(crate) tree: Tree,
    pub(crate) crates: Vec<Crate>,
    /// What `xtask/house/long_files.txt` held in each earlier commit that touched it.
    pub(crate) long_files_before: Vec<String>,
}

/// A crate of this workspace, as cargo sees it.
#[derive(Clone, Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    /// Its folder, relative to the workspace root.
    pub(crate) folder: String,
    pub(crate) needs: Vec<Need>,
}

impl Crate {
    /// The floor it stands on; `None` for `bench` and this crate, which are no part
    /// of the product: they may depend on any crate, and none on them.
    pub(crate) fn floor(&self) -> Option<&str> {
        self.folder.strip_prefix("crates/")?.split('/').next()
    }

    pub(crate) fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }
}

/// One line of a crate's dependencies.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub(crate) name: String,
    /// Only its tests need it.
    pub(crate) for_tests: bool,
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// `path` or `path:line`.
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { place: place.into(), message: message.into() }
    }
}

struct Rule {
    name: &'static str,
    check: fn(&House) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule { name: "arrows point down", check: arrows::check },
    Rule { name: "fenced dependencies", check: fences::check },
    Rule { name: "manifests", check: manifests::check },
    Rule { name: "long files", check: long_files::check },
    Rule { name: "a page per error code", check: error_pages::check },
    Rule { name: "links resolve", check: links::check },
    Rule { name: "no machine's paths", check: machine_paths::check },
    Rule { name: "figures match the README", check: figures::check },
    Rule { name: "Python suites run", check: python_suites::check },
    Rule { name: "abuse cases have tests", check: abuse_cases::check },
];

/// Writes the page of abuse cases from the tests that there are.
pub(crate) fn abuse() -> Result<(), Failure> {
    let page = abuse_cases::written(&Tree::read()?).map_err(Failure::new)?;
    let written = std::fs::write(abuse_cases::PAGE, page);
    written.map_err(|error| Failure::new(format!("cannot write {}: {error}", abuse_cases::PAGE)))
}

/// Checks the working tree against every rule; prints all findings, then fails.
pub(crate) fn run() -> Result<(), Failure> {
    let house = read()?;
    let mut count = 0;
    for rule in RULES {
        for finding in (rule.check)(&house) {
            count += 1;
            println!("{}: {}\n    {}", finding.place, rule.name, finding.message.replace('\n', "\n    "));
        }
    }
    if count > 0 {
        return Err(Failure::new(format!("{count} findings against {} house rules", RULES.len())));
    }
    println!("house: {} rules hold for {} crates", RULES.len(), house.crates.len());
    Ok(())
}

fn read() -> Result<House, Failure> {
    let metadata = tree::output(&Call::new("cargo", ["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Failure::new(format!("cargo metadata printed no JSON: {error}")))?;
    Ok(House {
        tree: Tree::read()?,
        crates: crates_of(&metadata)
            .ok_or_else(|| Failure::new("cargo metadata has not the shape of format version 1"))?,
        long_files_before: long_files::history()?,
    })
}

/// The crates in what `cargo metadata` prints; `None` if it has another shape.
fn crates_of(metadata: &Value) -> Option<Vec<Crate>> {
    let root = metadata["workspace_root"].as_str()?;
    let crate_of = |package: &Value| {
        let manifest = package["manifest_path"].as_str()?;
        let folder = manifest.strip_prefix(root)?.trim_start_matches('/').strip_suffix("/Cargo.toml")?;
        let need_of = |need: &Value| {
            Some(Need { name: need["name"].as_str()?.to_owned(), for_tests: need["kind"] == "dev" })
        };
        Some(Crate {
            name: package["name"].as_str()?.to_owned(),
            folder: folder.to_owned(),
            needs: package["dependencies"].as_array()?.iter().map(need_of).collect::<Option<_>>()?,
        })
    };
    metadata["packages"].as_array()?.iter().map(crate_of).collect()
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Small trees for the tests of the rules.

    use super::{Crate, Finding, House, Need};
    use crate::tree::Tree;

    /// A house of these files and no crates.
    pub(crate) fn files(files: &[(&str, &str)]) -> House {
        House { tree: Tree::of(files), crates: Vec::new(), long_files_before: Vec::new() }
    }

    /// A house of these crates, each `(folder, needs)`, and no files. A need
    /// that begins with `dev:` is for tests.
    pub(crate) fn crates(crates: &[(&str, &[&str])]) -> House {
        let crates = crates
            .iter()
            .map(|(folder, needs)| Crate {
                name: folder.rsplit('/').next().unwrap_or(folder).to_owned(),
                folder: (*folder).to_owned(),
                needs: needs
                    .iter()
                    .map(|need| match need.strip_prefix("dev:") {
                        Some(name) => Need { name: name.to_owned(), for_tests: true },
                        None => Need { name: (*need).to_owned(), for_tests: false },
                    })
                    .collect(),
            })
            .collect();
        House { tree: Tree::default(), crates, long_files_before: Vec::new() }
    }

    /// Asserts that there is one finding per expected piece of text, in order.
    pub(crate) fn expect(findings: &[Finding], expected: &[&str]) {
        let found: Vec<String> = findings.iter().map(|f| format!("{}: {}", f.place, f.message)).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "expected {expected:?} in {found:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_read_from_what_cargo_prints() {
        let metadata = serde_json::json!({
            "workspace_root": "/somewhere/else",
            "packages": [{
                "name": "store",
                "manifest_path": "/somewhere/else/crates/foundation/store/Cargo.toml",
                "dependencies": [{"name": "kernel", "kind": null}, {"name": "testkit", "kind": "dev"}],
            }],
        });
        let crates = crates_of(&metadata).expect("the shape of format version 1");
        assert_eq!(crates.len(), 1);
        assert_eq!(crates[0].floor(), Some("foundation"));
        assert_eq!(crates[0].manifest(), "crates/foundation/store/Cargo.toml");
        let needs: Vec<_> = crates[0].needs.iter().map(|need| (need.name.as_str(), need.for_tests)).collect();
        assert_eq!(needs, [("kernel", false), ("testkit", true)]);
    }

    #[test]
    fn another_shape_is_not_an_empty_workspace() {
        assert!(
            crates_of(&serde_json::json!({"packages": [{"name": "x"}], "workspace_root": "/a"})).is_none()
        );
        assert!(crates_of(&serde_json::json!({})).is_none());
    }
}
