//! `cargo xtask soak`: builds the simulated house as the tests do and becomes `soak`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use crate::Failure;
use crate::stage::{Call, built};

/// What is built: with the simulation's tests, because cargo unites the features of what is selected, and a selection
/// without tests would compile the same dependencies a second time.
const BUILD: &[&str] = &["build", "--workspace", "--test", "simulation", "--bin", "soak"];

/// Replaces this process, so that Ctrl-C, the exit code and the terminal belong
/// to `soak` alone. Returns only if that was not possible.
pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let build = Call::new("cargo", BUILD);
    build.run().map_err(|failure| Failure::new(format!("`{}`: {failure}", build.line())))?;
    let soak = built("debug/soak");
    let error = Call::new(&soak, [] as [&str; 0]).command().args(args).exec();
    Err(Failure::new(format!("cannot start {}: {error}", soak.display())))
}
