//! `cargo xtask demo`: builds `writ` as it ships and becomes `writ demo`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use crate::Failure;
use crate::stage::{Call, built};

/// How everything that ships is built. The whole workspace is selected, whatever is wanted of it: cargo unites the
/// features of what is selected, and two selections would compile the same dependencies twice.
pub(crate) const RELEASE: &[&str] = &["build", "--release", "--workspace"];

/// Replaces this process, so that Ctrl-C, the exit code and the terminal belong
/// to `writ` alone. Returns only if that was not possible.
pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let build = Call::new("cargo", RELEASE.iter().chain(&["--bin", "writ"]));
    build.run().map_err(|failure| Failure::new(format!("`{}`: {failure}", build.line())))?;
    let writ = built("release/writ");
    let error = Call::new(&writ, ["demo"]).command().args(args).exec();
    Err(Failure::new(format!("cannot start {}: {error}", writ.display())))
}
