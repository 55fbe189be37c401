//! Policy: signed bundles of Rego in, verdicts out.
//!
//! A policy is code that other people wrote and that can stop everything we do, or let everything through. Think
//! of a tenant's administrator who uploads forty lines of Rego: they may hold a typing error that makes the rule
//! undefined for one act in a hundred, a loop that takes a minute, a call that reaches for the network, or last
//! month's rules served again by somebody who sits on the line. Each of those has to end in a refusal at upload
//! or in a denial at decision time, never in an allowed act and never in a stopped house.
//!
//! The way of a policy:
//!
//! | step | module | what it promises |
//! |---|---|---|
//! | archive and signature | [`bundle`] | an OPA bundle, complete and unaltered, signed for this scope, not older than the last |
//! | shape | [`lint`] | only deterministic builtins, only its own packages and data, bounded in size, depth and recursion |
//! | compile | [`engine`] | one program for regorus' virtual machine, or a refusal with file and line |
//! | publish | [`publish`] | all of the above, then a set of probes: a policy that has no answer is not published |
//! | decide | [`engine`] | a verdict from a closed input ([`input`]); no answer, a slow one or a panic is DENY |
//!
//! Rules for those who add to it:
//! - Nothing here reads a clock, a file or the network. Time is in the input, or comes in as a value.
//! - A builtin joins the allowlist only if it is deterministic, has no effect and cannot turn a small argument
//!   into unbounded work in one call: the virtual machine counts instructions, not what happens inside one.
//! - A new input field is a new version of [`input::PolicyInput`]. Unknown fields are refused, so that a typing
//!   error cannot switch a rule off.
//! - Every code that an operator can see stands in [`codes::CODES`] and has a page in `docs/errors/`.
//!
//! What it does not do: it does not store bundles, resolve roles, count throttles or collect approvals. And it
//! does not make one builtin call or one comparison interruptible: a published policy that compares two values
//! built to share their parts a billion times over holds its worker thread until it is done. Lint and probes make
//! that hard, the fact log says who published it; only a separate process could make it impossible.

mod archive;
pub mod bundle;
mod canonical;
pub mod cases;
pub mod codes;
pub mod defaults;
pub mod engine;
pub mod input;
mod isolate;
mod jws;
pub mod lint;
pub mod publish;
pub mod signer;
pub mod source;

pub use bundle::{Bundle, BundleError, Files, KeyRecord, KeyRing, Manifest, Metadata, Seen};
pub use codes::CODES;
pub use engine::{Compiled, PolicyError, Warm};
pub use input::{PolicyInput, PreparedInput};
pub use lint::Problem;
pub use publish::{Published, publish_check};

/// The version of the rules that a bundle may ask for in `metadata.min_engine`: the input's shape, the allowlist
/// of builtins and the verdict's shape. Raised when any of them changes in a way that a policy can notice.
pub const ENGINE: u32 = 1;
