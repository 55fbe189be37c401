//! The governor: what may happen, who has to approve it, and the only hand that gives out Permits.
//!
//! Every consequential act asks here before anything changes. [`policy`] is the half that answers "what do the
//! rules say": signed bundles of Rego, checked and compiled once when they are published, evaluated in
//! microseconds afterwards.

pub mod policy;
