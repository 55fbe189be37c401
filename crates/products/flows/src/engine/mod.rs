//! Runs, and what takes them on: one event on its way through one version of a workflow.
//!
//! A run is a record and, while it lives, exactly one job. Whoever holds the job's lease does what the run's state says is
//! to do next, and ends in one commit that moves the record, states what happened, ends the job and begins the next one.
//! So a run can be picked up by anybody after any commit, and nobody moves it under an old lease.
//!
//! ```text
//! create ─ job ─▶ fetch: intent │ call │ outcome ─ job ─▶ classify │ outcome ─ job ─▶ route: waits for people
//!                       commit           commit                      commit             (no job: the approval wakes it)
//! ```
//!
//! A call of an outside system is three strokes: the intent is committed, then the call is made, then its outcome is
//! committed. Who finds an intent without an outcome does not know whether the call was made, and what may be done then is
//! decided by the action's class alone ([`crate::effect::after_unknown`]).
//!
//! | module | what it is |
//! |---|---|
//! | [`record`] | the run, as kept |
//! | [`machine`] | what is to do, and what follows from what: pure |
//! | [`library`] | the immutable versions that runs are pinned to |
//! | [`call`] | one call: what it is exactly, computed the same by policy's aim, the plan and the sender |
//! | [`job`] | the job: reads, does, commits |
//! | [`verbs`], [`tools`] | the acts on runs, and the acts of runs |
//! | [`routes`] | looking at runs |

pub mod call;
pub mod job;
pub mod library;
pub mod machine;
pub mod record;
pub mod routes;
pub mod tools;
pub mod verbs;
