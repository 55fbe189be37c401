//! What the stand-ins promise, seen through their sockets.

mod client;
mod control;
mod effects;
mod faults;
mod model;
mod oauth;
mod play;
mod servicenow;
mod slack;
mod traps;
mod webhook;
