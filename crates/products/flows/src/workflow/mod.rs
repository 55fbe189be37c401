//! Workflows: what happens to an event, as data.
//!
//! A workflow is a list of steps in YAML. It holds no code: a step calls an action of an installed connector, asks a
//! model, waits for people, makes values of values, or chooses a way. Whether a call may happen is not said here; that
//! is policy's, asked at every call with the arguments of that call.
//!
//! ```yaml
//! name: greet
//! trigger: {connector: servicenow, event: incident.created}
//! steps:
//!   - id: fetch
//!     tool: {connector: servicenow, action: incident.get, params: {sys_id: "{{ event.sys_id }}"}}
//!   - id: note
//!     transform: {text: "Seen {{ steps.fetch.number }}."}
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`model`] | the typed form |
//! | [`parse`] | YAML in, typed form or a list of problems out |
//! | [`check`] | what can be known before it runs: names, order, templates, parameters |
//! | [`diff`] | what changed between two versions |
//! | [`record`] | how it is kept |
//!
//! A version is the digest of the canonical typed form. A run pins the digest it started with; publishing a new version
//! never touches a run. Ways lead forward only, so a workflow ends after at most as many steps as it has.

pub mod check;
pub mod diff;
pub mod model;
pub mod parse;
pub mod record;
pub mod routes;
pub mod verbs;

pub use model::{Step, StepKind, Workflow};
