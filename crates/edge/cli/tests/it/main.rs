//! The binary as its users meet it: a demo from the first line to the last, exit codes
//! against a running server, and servers that die.

mod again;
mod artifact;
mod backup;
mod codes;
mod deaths;
mod demo;
mod policy;
mod process;
mod shell;
mod starved;
mod telemetry;
mod upgrade;
