//! The words of the house, as types: ids, facts, verdicts, permits, changesets and the transparency log.
//!
//! Everything that decides or proves something lives here as a plain synchronous function over values that are
//! already loaded. A verdict is merged, a permit is opened, a leaf is hashed and a proof is checked with no
//! database, no clock, no socket and no async: time comes in as a value, bytes come in as a slice. That is what
//! lets the offline verifier, the store and the tests run the very same code.
//!
//! What belongs here: a rule that two floors must agree on to the byte. What does not: anything that knows what
//! a particular kind of record means, and anything that can block.
//!
//! | module | what it fixes |
//! |---|---|
//! | [`id`] | names of things: `run_0192…`, tenants |
//! | [`json`] | the canonical JSON profile that is hashed and signed |
//! | [`commitment`] | salted commitments that can be opened field by field |
//! | [`fact`] | the leaf: one immutable statement that something happened |
//! | [`merkle`], [`note`] | RFC 6962 trees and proofs, C2SP signed notes and checkpoints |
//! | [`lines`] | a file of leaves, hashed by the line and as a whole |
//! | [`verdict`] | what policy says, and how two verdicts merge |
//! | [`permit`] | what the governor hands out, and that nobody else can |
//! | [`ledger`] | what a transfer does to two accounts, and when it may not |
//! | [`changeset`] | the one way to write |

pub mod calendar;
pub mod changeset;
pub mod commitment;
pub mod fact;
pub mod hex;
pub mod id;
pub mod json;
pub mod ledger;
pub mod lines;
pub mod merkle;
pub mod note;
pub mod permit;
pub mod verdict;

pub use changeset::{Changeset, Draft};
pub use fact::Fact;
pub use id::{Id, TenantId};
pub use permit::{Authority, Grant, Lease, Mint, Permit, Seal};
pub use verdict::{Effect, Verdict};

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Digest {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
