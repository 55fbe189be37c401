//! The workspace's own commands: `cargo xtask demo|test|check|bench|soak|fuzz|house|abuse|contract`.
//!
//! What a person or a CI machine has to type is short (`make test`), what it
//! does is long and must be the same for both. It stands here, in Rust, where it
//! can be read, typed and tested, rather than in a shell script per machine. The
//! `Makefile` holds one line per command and runs `scripts/setup` first.
//!
//! Rules for those who add to it:
//!
//! * A step runs one command that a person could type, and prints that command
//!   when it fails.
//! * Nothing is skipped silently: a check that cannot run says so and fails.
//! * No dependency beyond a JSON reader: this crate is built before all others.
//!
//! It installs nothing (`scripts/setup` does) and knows nothing of the product
//! beyond the names of its crates.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

mod bench;
mod contract;
mod demo;
mod fuzz;
mod house;
mod soak;
mod stage;
mod suites;
mod test;
mod tree;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND [ARGS]

  demo [ARGS]     build writ and run `writ demo ARGS`
  test            formatting, house rules, lints, and every test
  check           formatting, house rules, lints, licences; runs no test
  bench [ARGS]    measure, then write the table of figures into README.md
  bench peers     only measure what other engines do beside our workflows
  bench --table   only write the table, from bench/results/latest.json
  soak [ARGS]     live through histories of the simulated house: --hours H, or
                  --seeds N, or --seed SEED to see one of them
  fuzz TARGET SECONDS
                  look for inputs that break a target of the crate `fuzz`
  fuzz TARGET keep
                  put what was found on new paths into its corpus, the small of it
  house           the house rules alone
  abuse           write docs/abuse-cases.md from the names of the tests
  contract        compare the API with the one that was released
  contract release
                  make the present one the released one";

/// Why a command did not succeed, in words for the person who typed it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<OsString> = args.collect();
    match run(&command.to_string_lossy(), &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\n{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, args: &[OsString]) -> Result<(), Failure> {
    let takes_args = matches!(command, "demo" | "bench" | "contract" | "soak" | "fuzz");
    if !takes_args && !args.is_empty() {
        return Err(Failure::new(format!("`{command}` takes no arguments\n\n{USAGE}")));
    }
    enter_root()?;
    match command {
        "demo" => demo::run(args),
        "test" => test::test(),
        "check" => test::check(),
        "bench" => bench::run(args),
        "soak" => soak::run(args),
        "fuzz" => fuzz::run(args),
        "house" => house::run(),
        "abuse" => house::abuse(),
        "contract" => match args {
            [] => contract::check(),
            [what] if what == "release" => contract::release(),
            _ => Err(Failure::new(format!("`contract` takes `release` or nothing\n\n{USAGE}"))),
        },
        "" | "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(Failure::new(format!("unknown command `{other}`\n\n{USAGE}"))),
    }
}

/// Every path in this crate is relative to the workspace root, wherever in the
/// tree the person stands.
fn enter_root() -> Result<(), Failure> {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .ok_or_else(|| Failure::new("run this through cargo: `cargo xtask ...`"))?;
    let mut root = PathBuf::from(here);
    root.pop();
    env::set_current_dir(&root)
        .map_err(|error| Failure::new(format!("cannot enter {}: {error}", root.display())))
}
