//! What the binary `writ` shares with the tests that start it as a process: how a tenant is furnished for the triage of
//! incidents. Everything else of the command line is the binary's own.

pub mod furnish;
