//! Runs a list of stages one after another and shows where it is.
//!
//! A stage is a command, or a check in this process. Its output goes straight
//! to the terminal, framed by a numbered heading and the time it took. The first
//! failure ends the run with the one command that shows it again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::Failure;

/// One program with its arguments, as a person could type it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    program: OsString,
    args: Vec<OsString>,
}

impl Call {
    pub(crate) fn new<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Call {
            program: program.as_ref().to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command
    }

    /// The call as one line of shell; an argument with anything but plain
    /// characters is put in single quotes.
    pub(crate) fn line(&self) -> String {
        let mut words = vec![quoted(&self.program)];
        words.extend(self.args.iter().map(|arg| quoted(arg)));
        words.join(" ")
    }

    /// Runs it to its end with this process's own input and output.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self.command().status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("{status}"))),
            Err(error) => Err(Failure::new(format!("cannot start it: {error}"))),
        }
    }
}

/// The path of something that cargo built, as in `built("release/writ")`.
pub(crate) fn built(path: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    if path.is_empty() { target } else { target.join(path) }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a stage does.
pub(crate) enum Work {
    /// Commands in order; the first that fails ends the stage.
    Calls(Vec<Call>),
    /// A check in this process, and the command that runs it alone.
    Check { run: fn() -> Result<(), Failure>, again: &'static str },
}

/// A named piece of a run.
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) work: Work,
}

impl Stage {
    pub(crate) fn calls(name: impl Into<String>, calls: impl IntoIterator<Item = Call>) -> Self {
        Stage { name: name.into(), work: Work::Calls(calls.into_iter().collect()) }
    }

    pub(crate) fn cargo(name: impl Into<String>, args: &[&str]) -> Self {
        Stage::calls(name, [Call::new("cargo", args)])
    }

    pub(crate) fn check(
        name: impl Into<String>,
        again: &'static str,
        run: fn() -> Result<(), Failure>,
    ) -> Self {
        Stage { name: name.into(), work: Work::Check { run, again } }
    }
}

/// Runs all stages; stops at the first that fails.
pub(crate) fn run_all(title: &str, stages: &[Stage]) -> Result<(), Failure> {
    let total = stages.len();
    let started = now();
    for (index, stage) in stages.iter().enumerate() {
        let place = format!("[{}/{total}] {}", index + 1, stage.name);
        println!("\n{place}");
        let stage_started = now();
        run_one(stage).map_err(|(failure, again)| {
            let seconds = stage_started.elapsed().as_secs_f64();
            Failure::new(format!(
                "{place}: failed after {seconds:.1} s: {failure}\nto see it again:\n\n    {again}\n"
            ))
        })?;
        println!("{place}: ok, {:.1} s", stage_started.elapsed().as_secs_f64());
    }
    println!("\n{title}: all {total} stages ok, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn run_one(stage: &Stage) -> Result<(), (Failure, String)> {
    match &stage.work {
        Work::Check { run, again } => run().map_err(|failure| (failure, (*again).to_owned())),
        Work::Calls(calls) => {
            for (done, call) in calls.iter().enumerate() {
                call.run().map_err(|failure| {
                    // A later call may need what the earlier ones built.
                    let lines: Vec<String> = calls.iter().take(done + 1).map(Call::line).collect();
                    (failure, lines.join(" && "))
                })?;
            }
            Ok(())
        }
    }
}

/// The one place where this tool reads a clock.
#[expect(clippy::disallowed_methods, reason = "elapsed time shown to a person; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_printed_as_a_shell_reads_it() {
        let cases: &[(&[&str], &str)] = &[
            (&["fmt", "--all", "--", "--check"], "cargo fmt --all -- --check"),
            (&["x", "two words"], "cargo x 'two words'"),
            (&["it's", ""], r"cargo 'it'\''s' ''"),
        ];
        for (args, expected) in cases {
            assert_eq!(Call::new("cargo", *args).line(), *expected);
        }
    }

    #[test]
    fn the_first_failure_ends_the_run_and_names_its_command() {
        let stages = [
            Stage::calls("first", [Call::new("true", ["x"])]),
            Stage::calls("second", [Call::new("true", ["built"]), Call::new("false", ["a b"])]),
            Stage::calls("third", [Call::new("/nonexistent/program", ["never"])]),
        ];
        let failure = run_all("t", &stages).expect_err("the second stage fails").to_string();
        assert!(failure.contains("[2/3] second"), "{failure}");
        assert!(failure.contains("true built && false 'a b'"), "{failure}");
    }

    #[test]
    fn a_program_that_cannot_start_is_a_failure() {
        let stages = [Stage::calls("only", [Call::new("/nonexistent/program", ["x"])])];
        let failure = run_all("t", &stages).expect_err("nothing to start").to_string();
        assert!(failure.contains("cannot start it"), "{failure}");
    }
}
