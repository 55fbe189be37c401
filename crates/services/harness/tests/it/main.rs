//! Waiting acts through governor, harness and a real store, on a clock that the test moves.

mod access;
mod decisions;
mod delegations;
mod house;
mod keys;
mod queue;
mod table;
mod times;
mod told;
