//! What services and products are made of: plain data that describes acts, with no web framework and no domain.
//!
//! A domain exports one [`Domain`]: its kinds, facts, verbs, routes and jobs. Everything that has to be true of *every*
//! act is driven by that table: authorisation, audit, OpenAPI, rate limits, and the tests that walk it. A domain never
//! decides permission, never commits and never speaks HTTP. It says what policy may see ([`Verb::aim`]) and, purely,
//! what would change ([`Verb::plan`]); the harness does the rest.
//!
//! ```text
//! route → verb.aim → governor decides → verb.plan → one changeset → outcome → reply
//! ```
//!
//! To add an act: a verb (name `<domain>.<noun>.<verb>`, the kinds it writes, the facts it states), a route for it, a
//! line for the act in the platform policy's role table. Nothing else knows that it exists.

mod args;
mod ctx;
mod domain;
mod fault;
mod ids;
pub mod page;
mod route;
pub mod trace;
mod verb;

pub use args::parse;
pub use ctx::{Assurance, Ctx, KeyLimits, Principal, PrincipalKind, Rights};
pub use domain::{Domain, JobRun, JobSpec};
pub use fault::{CODES, Class, Coded, Fault, internal};
pub use ids::{Ids, SystemIds};
pub use route::{Auth, Call, Delivery, Events, Method, Param, Query, QueryCtx, Receive, Route, StreamSource};
pub use store::Clock;
pub use trace::Trace;
pub use verb::{
    ARGS_BYTES_MAX, ARGS_BYTES_MEMBER, AimFn, Draw, Place, Plan, PlanFn, Resume, Stamp, Target, Verb,
};
