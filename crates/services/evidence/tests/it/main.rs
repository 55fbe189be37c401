//! Bundles from outside: made in memory and tampered with, and made from a real store.

mod export;
mod house;
mod offline;
mod seal;
#[path = "../workshop/mod.rs"]
mod workshop;
