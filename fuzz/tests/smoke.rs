//! Each target, many times, the same way every time: its seeds, its corpus, and mutations of both.
//!
//! This finds what is near to what is known. What is far is looked for by `make fuzz`, whose finds are then in the corpus.

use fuzz::{INPUT_BYTES_MAX, Mutator, TARGETS, Target, target};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Chance's seed. Another one is tried by changing it here or with `WRIT_FUZZ_SEED`.
const SEED: u64 = 1;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).expect("a corpus for each target");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a readable file"))).collect()
}

/// Runs the input; says which it was if the target panics, in a form that can be put into the corpus.
fn one(target: &Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        panic!("{}: {what} fails: {:?}\n{input:?}", target.name, String::from_utf8_lossy(input));
    }
}

fn smoke(name: &str) {
    let target = target(name);
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "corpus/{name} is empty");
    let mut pool = (target.seeds)();
    for seed in &pool {
        one(target, seed, "a seed");
    }
    for (path, input) in corpus {
        assert!(input.len() <= INPUT_BYTES_MAX, "{} is too long", path.display());
        one(target, &input, &path.display().to_string());
        pool.push(input);
    }
    let seed = std::env::var("WRIT_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let mut mutator = Mutator::new(target, pool, seed);
    for run in 0..target.runs {
        one(target, &mutator.input(), &format!("run {run} of seed {seed}"));
    }
}

macro_rules! smoke {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            smoke(stringify!($name));
        })*

        /// The names for which there is a test.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

smoke! {
    bundle checkpoint connector cursor leaf model policy proof request slack template tile trust url webhook workflow
}

#[test]
fn every_target_has_a_test_a_corpus_and_a_program() {
    let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(targets, TESTED.iter().copied().collect());
    let corpora = std::fs::read_dir(root().join("corpus")).expect("the corpus");
    let corpora: BTreeSet<String> = corpora
        .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(targets, corpora.iter().map(String::as_str).collect());
    let manifest = std::fs::read_to_string(root().join("guided/Cargo.toml")).expect("the programs");
    let programs: BTreeSet<&str> = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|bin| bin.split_once("name = \"")?.1.split('"').next())
        .collect();
    assert_eq!(targets, programs);
}

/// A target that cannot fail finds nothing: what is wrong is seen, and named.
#[test]
fn what_panics_is_named_with_its_input() {
    let broken = Target { run: |input| assert!(input != b"bad", "as it should"), ..TARGETS[0] };
    one(&broken, b"good", "x");
    let panic = catch_unwind(|| one(&broken, b"bad", "run 7")).expect_err("it panics");
    let said = panic.downcast_ref::<String>().expect("a message");
    assert!(said.contains("run 7 fails: \"bad\"\n[98, 97, 100]"), "{said}");
}
