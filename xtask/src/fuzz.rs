//! `cargo xtask fuzz`: libFuzzer on one target of the crate `fuzz`.
//!
//! The smoke test of that crate runs in every `make test` and stays near what is known. This looks for what is new: with
//! coverage, for as long as somebody has time. It works on the toolchain that everything else is built with; the only
//! thing that would need another is a sanitizer, and there is no unsafe code to watch.
//!
//! Finds lie under the target directory, in `fuzz/<target>/found`, until `keep` puts the small ones into the repository,
//! where the smoke test runs them from then on. An input that breaks the target is printed by libFuzzer together with
//! its path; it belongs into the corpus as well, with the change that mends the code.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::Failure;
use crate::stage::{Call, built};

const GUIDED: &str = "fuzz/guided";
/// Longest input that is tried, and the longest that is kept, in bytes.
const TRIED_BYTES_MAX: u32 = 4096;
const KEPT_BYTES_MAX: u64 = 512;
/// Most inputs that a corpus gets from here.
const KEPT_MAX: usize = 48;
/// Longest that one input may take, in seconds.
const INPUT_SECONDS_MAX: u32 = 10;

pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let words: Vec<&str> = args.iter().filter_map(|word| word.to_str()).collect();
    let [target, what] = words[..] else {
        return Err(Failure::new("`fuzz` takes the name of a target, and seconds or `keep`"));
    };
    let corpus = Path::new("fuzz/corpus").join(target);
    if !corpus.is_dir() {
        return Err(Failure::new(format!(
            "there is no {}: the targets are the folders beside it",
            corpus.display()
        )));
    }
    let found = built("fuzz").join(target).join("found");
    fs::create_dir_all(&found).map_err(|error| Failure::new(format!("{}: {error}", found.display())))?;
    let options: Vec<String> = match what {
        "keep" => return keep(target, &corpus, &found),
        seconds if seconds.parse::<u32>().is_ok() => vec![
            format!("-max_total_time={seconds}"),
            format!("-max_len={TRIED_BYTES_MAX}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            format!("-artifact_prefix={}/", built("fuzz").join(target).display()),
        ],
        other => return Err(Failure::new(format!("`{other}` is no number of seconds"))),
    };
    guided(target, &[&found, &corpus], &options)
}

/// The smallest set of inputs that takes every path the finds take, in the corpus as far as they are small.
fn keep(target: &str, corpus: &Path, found: &Path) -> Result<(), Failure> {
    let merged = built("fuzz").join(target).join("merged");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", merged.display()));
    if merged.exists() {
        fs::remove_dir_all(&merged).map_err(failed)?;
    }
    fs::create_dir_all(&merged).map_err(failed)?;
    let options = ["-merge=1".to_owned(), format!("-max_len={KEPT_BYTES_MAX}")];
    guided(target, &[&merged, corpus, found], &options)?;
    let mut kept = Vec::new();
    for entry in fs::read_dir(&merged).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        kept.push((entry.metadata().map_err(failed)?.len(), entry.path()));
    }
    kept.sort();
    let small = kept.iter().filter(|(bytes, _)| *bytes <= KEPT_BYTES_MAX);
    for (_, path) in small.take(KEPT_MAX) {
        let Some(name) = path.file_name() else { continue };
        fs::copy(path, corpus.join(name)).map_err(failed)?;
    }
    println!("{} of {} inputs are in {}", kept.len().min(KEPT_MAX), kept.len(), corpus.display());
    Ok(())
}

fn guided(target: &str, folders: &[&Path], options: &[String]) -> Result<(), Failure> {
    // The same versions of every package as everywhere else; libFuzzer's own is added to them.
    fs::copy("Cargo.lock", Path::new(GUIDED).join("Cargo.lock"))
        .map_err(|error| Failure::new(format!("cannot copy Cargo.lock: {error}")))?;
    let place = built("fuzz");
    let mut args: Vec<OsString> =
        ["fuzz", "run", "--fuzz-dir", GUIDED, "--sanitizer", "none", "--target-dir"]
            .map(OsString::from)
            .into();
    args.push(place.into_os_string());
    args.push(target.into());
    args.extend(folders.iter().map(|folder| folder.as_os_str().to_owned()));
    args.push("--".into());
    args.extend(options.iter().map(OsString::from));
    let call = Call::new("cargo", args);
    call.run().map_err(|failure| Failure::new(format!("`{}`: {failure}", call.line())))
}
