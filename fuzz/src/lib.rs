//! What reads bytes that nobody vouches for, each as one function from bytes to nothing.
//!
//! A checkpoint comes from a stranger's file, a workflow from a tenant's editor, a delivery from whoever knows the URL. A
//! target hands such bytes to the code that reads them in earnest and panics when something is wrong: when the code itself
//! panics, and when what was read does not mean the same after it was written and read again. "It did not crash" finds a
//! reader that indexes too far; "it comes back the same" finds one that believes two things about one text.
//!
//! The functions are called by two programs, and know neither:
//!
//! - `tests/smoke.rs`, a part of `make test`: the seeds, the corpus, and a fixed number of seeded mutations of them, so
//!   that each run does the same;
//! - `guided`, a workspace of its own for cargo-fuzz, which looks for new paths with libFuzzer: `make fuzz ARGS="url 600"`.
//!
//! Rules for those who add one. It is pure, takes at most milliseconds for an input of a few kibibytes, and asserts an
//! equality wherever there is one. It makes its own signatures and digests: what stands behind a signature is reached
//! only by input that is signed. It gets a row in [`TARGETS`], a line in `tests/smoke.rs`, a program in
//! `guided/Cargo.toml` (a test compares the three), and a few small inputs in `corpus/`.
//!
//! Why it is built so: docs/decisions/0023-fuzzing.md.

mod bundles;
mod leaves;
mod logs;
mod mutate;
mod network;
mod policy;
mod requests;
mod tenants;

pub use mutate::Mutator;

/// Longest input in bytes. What is found in a longer one is found in a shorter one, and sooner.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;

/// One reader of untrusted bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its corpus and of its program.
    pub name: &'static str,
    /// Reads the bytes, and panics if that goes wrong.
    pub run: fn(&[u8]),
    /// Inputs that are good, made by the code itself so that they do not grow stale.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, for mutations.
    pub words: &'static [&'static str],
    /// Mutations tried by the smoke test: fewer where one costs more.
    pub runs: u32,
}

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    bundles::BUNDLE,
    logs::CHECKPOINT,
    tenants::CONNECTOR,
    requests::CURSOR,
    leaves::LEAF,
    network::MODEL,
    policy::POLICY,
    logs::PROOF,
    requests::REQUEST,
    requests::SLACK,
    tenants::TEMPLATE,
    logs::TILE,
    bundles::TRUST,
    network::URL,
    requests::WEBHOOK,
    tenants::WORKFLOW,
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Takes an input apart from its front. Where it ends, zeros follow.
pub(crate) struct Taken<'a>(&'a [u8]);

impl<'a> Taken<'a> {
    pub(crate) fn of(data: &'a [u8]) -> Taken<'a> {
        Taken(data)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, or 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound.max(1)
    }

    pub(crate) fn u64(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    pub(crate) fn digest(&mut self) -> kernel::Digest {
        std::array::from_fn(|_| self.byte())
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An input that begins with `kind`, for targets that read more than one thing.
pub(crate) fn of_kind(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind], rest].concat()
}
