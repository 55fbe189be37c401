//! The policy half of the governor from outside: what an upload accepts, and what a policy decides.

mod agreement;
mod bundles;
mod documents;
mod hostile;
mod platform;
mod support;
