//! Every Python suite is run by `cargo xtask test`.
//!
//! A suite that nobody starts passes for ever. Each `test_*.py` or other script in
//! a `tests` folder of a crate is either in [`PYTHON_SUITES`] or a helper that
//! suites import, named with a leading underscore.

use super::{Finding, House};
use crate::suites::{PYTHON_SUITES, Suite};
use crate::tree::Tree;

pub(super) fn check(house: &House) -> Vec<Finding> {
    against(house, PYTHON_SUITES)
}

fn against(house: &House, suites: &[Suite]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for suite in suites {
        if house.tree.text(suite.script).is_none() {
            findings.push(Finding::new(
                suite.script,
                format!("the suite `{}` of xtask/src/suites.rs has lost its script", suite.name),
            ));
        }
    }
    for (path, _) in house.tree.texts() {
        if is_suite(path) && !suites.iter().any(|suite| suite.script == path) {
            findings.push(Finding::new(
                path,
                "no one runs this suite: add it to PYTHON_SUITES in xtask/src/suites.rs, or begin its name with _ \
                 if suites import it",
            ));
        }
    }
    findings
}

fn is_suite(path: &str) -> bool {
    let Some((_, inside)) = Tree::in_crate(path) else { return false };
    let name = inside.rsplit('/').next().unwrap_or(inside);
    inside.starts_with("tests/") && name.ends_with(".py") && !name.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{expect, files};
    use super::*;

    const SUITES: &[Suite] =
        &[Suite { name: "fidelity", script: "crates/edge/sandbox/tests/fidelity.py", args: &[] }];

    #[test]
    fn suites_and_scripts_match() {
        let house = files(&[
            ("crates/edge/sandbox/tests/fidelity.py", ""),
            ("crates/edge/sandbox/tests/_helper.py", ""),
            ("crates/services/evidence/verify.py", ""),
        ]);
        expect(&against(&house, SUITES), &[]);
    }

    #[test]
    fn a_suite_that_no_one_runs_is_found_and_so_is_a_lost_one() {
        let house = files(&[("crates/services/evidence/tests/verifier.py", "")]);
        expect(
            &against(&house, SUITES),
            &["`fidelity` of xtask/src/suites.rs has lost", "no one runs this suite"],
        );
    }
}
