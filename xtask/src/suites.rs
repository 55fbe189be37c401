//! The Python suites: second opinions in another language.
//!
//! Some things prove little when the code under test also writes the test: that
//! the stand-in for ServiceNow is one to a client that others wrote, that an
//! evidence bundle can be verified by a program that shares no code with ours.
//! Those are checked by scripts in Python, with the packages that `scripts/setup`
//! pins into `.venv`.
//!
//! To add one: a row here. A script in a `tests` folder that is in no row, and a
//! row whose script is gone, fail the house rules. What suites share stands in
//! `scripts/suite.py`. A suite exits with 0 only if it ran and everything passed.

use crate::stage::{Call, Stage, built};

const PYTHON: &str = ".venv/bin/python";
/// In an argument: the folder that cargo builds into.
const TARGET: &str = "{target}";

/// What the scripts run. The whole workspace at once, as for the Rust tests: cargo unites the features of what is
/// selected, and a smaller selection would compile the dependencies a second time.
pub(crate) const BUILD: &[&str] = &["build", "--workspace", "--bins", "--examples"];

/// One script.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Relative to the workspace root.
    pub(crate) script: &'static str,
    /// Arguments of the script.
    pub(crate) args: &'static [&'static str],
}

pub(crate) const PYTHON_SUITES: &[Suite] = &[
    // pysnc, as customers use it, against the stand-in for ServiceNow.
    Suite {
        name: "sandbox fidelity (pysnc)",
        script: "crates/edge/sandbox/tests/fidelity_pysnc.py",
        args: &["{target}/debug/examples/serve"],
    },
    // The vendors' own clients against the stand-ins for hosted models.
    Suite {
        name: "sandbox fidelity (openai, anthropic)",
        script: "crates/edge/sandbox/tests/fidelity_models.py",
        args: &["{target}/debug/examples/serve"],
    },
    // Slack's own client against the stand-in for Slack, and its signature verifier against ours.
    Suite {
        name: "sandbox fidelity (slack_sdk)",
        script: "crates/edge/sandbox/tests/fidelity_slack.py",
        args: &["{target}/debug/examples/serve", "{target}/debug/examples/slack_verify"],
    },
    // Webhooks of a real server, received with the package that receivers use.
    Suite {
        name: "webhooks verify (standardwebhooks)",
        script: "crates/services/notify/tests/fidelity_webhooks.py",
        args: &["{target}/debug/writ"],
    },
    // A second verifier that shares no code with ours, over good and tampered bundles.
    Suite {
        name: "evidence verifiers agree",
        script: "crates/services/evidence/tests/agree.py",
        args: &["{target}/debug/examples/make_bundles", "{target}/debug/writ"],
    },
    // Programs for the formats that a bundle is made of, none of them ours, over bundles of a real server.
    Suite {
        name: "strangers verify evidence (securesystemslib, in-toto, metamorphic-log)",
        script: "crates/services/evidence/tests/strangers.py",
        args: &["{target}/debug/writ"],
    },
];

impl Suite {
    pub(crate) fn stage(&self) -> Stage {
        let args = self.args.iter().map(|arg| arg.replace(TARGET, &built("").to_string_lossy()));
        let script = Call::new(PYTHON, std::iter::once(self.script.to_owned()).chain(args));
        Stage::calls(format!("python: {}", self.name), [script])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Work;

    #[test]
    fn a_suite_is_its_script_with_what_was_built() {
        let suite = Suite { name: "n", script: "crates/a/b/tests/s.py", args: &["{target}/debug/b", "x"] };
        let Work::Calls(calls) = suite.stage().work else { panic!("a suite is made of calls") };
        let lines: Vec<String> = calls.iter().map(Call::line).collect();
        let binary = built("debug/b");
        assert_eq!(lines, [format!(".venv/bin/python crates/a/b/tests/s.py {} x", binary.display())]);
    }
}
