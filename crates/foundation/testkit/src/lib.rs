//! What tests are made of: a clock that stands still, ids that repeat, engines under one suite, and ways to die.
//!
//! A test that waits, guesses or draws at random fails once a month and is then switched off. So time is a value that
//! the test moves ([`VirtualClock`]), ids and random bytes come from a seed ([`SeededIds`], [`Random`]), and where
//! chance is wanted the seed stands in the failure's message.
//!
//! | module | what it offers |
//! |---|---|
//! | [`clock`], [`ids`], [`random`] | time, identity and chance as the test wants them |
//! | [`folder`] | a folder that goes away, on the fastest file system there is |
//! | [`around`] | a real store with one answer changed |
//! | [`simulation`] | many things at once in the order that a seed decides, and a model of what the store owes |
//! | [`conformance`] | what every storage engine must do, one named test per rule |
//! | [`survivor`] | a process made to be killed in the middle of a commit, and the judge of what it left |
//!
//! Those who add an engine write one [`conformance::Home`] and one line of macro. Those who add a promise to the
//! store's contract add a case to the suite, in words that no engine's name appears in.

pub mod around;
pub mod clock;
pub mod conformance;
pub mod folder;
pub mod ids;
pub mod random;
pub mod simulation;
pub mod survivor;

pub use clock::VirtualClock;
pub use ids::SeededIds;
pub use random::Random;
