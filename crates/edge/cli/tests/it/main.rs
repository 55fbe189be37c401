//! The binary as its users meet it: a demo from the first line to the last, and exit codes against a running server.

mod codes;
mod demo;
mod policy;
mod process;
mod shell;
