//! A whole house in one thread, whose history a seed decides.
//!
//! One seed is one history: incidents are delivered, twice and out of order; a workflow reads, asks a model, asks people,
//! and writes; the process dies and is started again; the store refuses, or carries out and says it failed; the other side
//! turns away, hangs up before and after it has acted; workers fall asleep and come back when their work is somebody else's;
//! time passes by jumps. Then it all calms down, and whatever was under way has to come to its end. What must hold then
//! stands in [`judge`], and is said without the code that it judges:
//!
//! - what was acknowledged (a delivery, a decision, a cancellation) is there, once;
//! - every run has ended, as its incident and its people allow, and no note was written twice, or by a run that was denied;
//! - every intent is closed as done, failed or unknown;
//! - the sum of all debits is the sum of all credits, holds are gone, and what was charged is at least what was served;
//! - the log has no gap, and continues every checkpoint that was ever kept.
//!
//! And at every moment the store answers what the model of it says ([`testkit::simulation::Mirror`]), and a run that has
//! been read as ended never reads otherwise.
//!
//! | module | what it is |
//! |---|---|
//! | [`stage`] | the house, put together from the same rooms as the server's, and how it is started again |
//! | [`outside`] | a ticket system and a model on a socket, whose requests and replies wait at gates |
//! | [`world`] | the seed at work: who goes next, and what becomes of it |
//! | [`weather`] | how much goes wrong |
//! | [`judge`] | what must hold in the end |
//!
//! A failure says which seed it was; `make soak ARGS="--seed N"` shows that history again, step by step. Those who add an
//! effect outside, a kind of job or a promise to callers add it to the world and to the judge.
//!
//! What it is not: a test of the engine against itself (its conformance suite), of `kill -9` (the crash matrix in `cli`), or
//! of HTTP. It is there for the order of things.

pub mod judge;
pub mod outside;
pub mod stage;
pub mod weather;
pub mod world;

pub use stage::Stage;
pub use world::{Seeded, Sweep, Told};
