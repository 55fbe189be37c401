//! Evidence: what happened, in a file that a stranger can check without us.
//!
//! An auditor asks "who approved this change, and would I know if you had edited the answer?". The answer is a bundle: the
//! facts of a run, or of everything, with proofs that they stand in the tenant's log, signed heads of that log, the
//! arguments that may be shown, and the policies that decided. It verifies offline, against a trust file that the auditor
//! already has, with this crate's [`verify`] or with `verify.py`, which shares no code with it.
//!
//! | module | what it does |
//! |---|---|
//! | [`archive`] | the container, with one spelling per content |
//! | [`manifest`] | names of the files, and the signed statement over them |
//! | [`trust`] | whom a verifier believes |
//! | [`mod@verify`] | the checks, pure |
//! | [`epoch`] | the acts that open an epoch and let the logs follow |
//! | [`seal`] | signing the head of a log: the checkpoint worker's step |
//! | [`gather`], [`disclosure`], [`bundle`] | what belongs into a bundle, what of it may be shown, putting it together |
//! | [`export`] | the act, the records, the routes |
//! | [`signing`] | the signers, handed in |
//!
//! Rules for those who add to it. A new check gets a code of its own, a page, a row in the table of [`mod@verify`], the same
//! check at the same place in `verify.py`, and a tampered bundle in `examples/make_bundles.rs` that only this check finds.
//! A new file in a bundle is a new version of the predicate's type: old verifiers refuse files they do not know.
//!
//! What it does not do: prove that what was never logged did not happen. Every bundle says so itself.

pub mod archive;
pub mod bundle;
pub mod disclosure;
pub mod epoch;
pub mod export;
pub mod gather;
pub mod manifest;
pub mod seal;
pub mod signing;
mod summary;
pub mod trust;
pub mod verify;

pub use bundle::{Bundle, Parts, assemble};
pub use disclosure::Disclosure;
pub use export::{Config, Evidence};
pub use gather::Scope;
pub use seal::{SealError, Sealed, checkpoint_seal};
pub use signing::Signing;
pub use trust::Trust;
pub use verify::{Report, verify};

use act::Domain;

/// Codes that an operator may meet beside those of a verification, [`verify::CODES`].
pub const CODES: &[(&str, &str)] = &[
    ("evidence.log_regressed", "a log is smaller than its last checkpoint, or has another root at that size"),
    ("evidence.log_rewritten", "a log does not continue its last checkpoint"),
    ("evidence.log_damaged", "facts of a log are missing or unreadable"),
    ("evidence.checkpoint_foreign", "the last checkpoint is not signed by this installation's key"),
    ("evidence.checkpoint_refused", "the store did not keep a checkpoint"),
    (
        "evidence.put_back",
        "the installation was put back, and nothing is done or signed until an epoch is opened",
    ),
    ("evidence.epoch_behind", "a log has not followed the installation into its epoch yet"),
    ("evidence.nothing_to_export", "there are no facts of what was asked for"),
    ("evidence.bundle_too_large", "there is more to export or download than one bundle or reply may hold"),
    ("evidence.bundle_lost", "the file of an exported bundle is gone or was changed"),
    ("evidence.folder_unwritable", "the evidence folder cannot be written"),
    ("evidence.trust_malformed", "the trust file is not one"),
];

/// The domain's table.
pub fn domain(evidence: &Evidence) -> Domain {
    Domain {
        name: "evidence",
        kinds: &["evidence.bundle", "evidence.epoch"],
        facts: &["evidence.sealed", "evidence.epoch.opened"],
        verbs: export::verbs(evidence).into_iter().chain(epoch::verbs()).collect(),
        routes: export::routes(evidence).into_iter().chain(epoch::routes()).collect(),
        jobs: Vec::new(),
        codes: CODES,
    }
}
