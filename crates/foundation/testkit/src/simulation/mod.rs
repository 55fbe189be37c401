//! Deterministic simulation: many things at once, in an order that a seed decides.
//!
//! The hard faults of a system that acts on the outside need three things to come together: a worker falls asleep between
//! its write and its commit, its lease runs out, and somebody else takes the work up. A test that starts threads and hopes
//! meets that once a month. So here nothing happens at once, and everything may happen next:
//!
//! - An **actor** is a future: a job under its lease, a delivery at the door, a decision. Only one of them runs at a time.
//! - A **gate** stands before and after whatever an actor shares with others: each call of the store ([`Gated`]), each
//!   request and each reply on the network. Who comes to one waits there, with a [`Ticket`].
//! - The **schedule** ([`Schedule`]) shows all tickets. The test draws one from its seed, says what becomes of it (a
//!   [`Verdict`]), and the actor runs on to its next gate or its end. Meanwhile everything else stands still.
//!
//! Because everything else stands still, what lies behind a gate may be as real as it likes: the embedded engine with its
//! writer thread, a socket, a thread that computes. It may take a millisecond or ten; no order depends on it. Time of day
//! is a [`VirtualClock`](crate::VirtualClock), which moves only when the test moves it. So one seed is one history, and
//! that is tested by running seeds twice.
//!
//! A crash is [`Schedule::kill`]: every future is dropped where it stands. What it had handed to the store before its gate
//! is there, what it would have heard after it is not.
//!
//! [`Mirror`] is the reference model of the store's contract: a few maps that are told every changeset that was accepted,
//! and that know what every later read has to answer.
//!
//! Not simulated: threads that race within the engine (its conformance suite and the crash matrix do that), and timers
//! of the runtime, which nothing waits for long enough.

mod gated;
mod mirror;
mod schedule;

pub use gated::Gated;
pub use mirror::Mirror;
pub use schedule::{Gates, Pass, Place, Schedule, Ticket, Underway, Verdict};
