//! Bundles from outside: made in memory and tampered with, and made from a real store.

mod offline;
#[path = "../workshop/mod.rs"]
mod workshop;
