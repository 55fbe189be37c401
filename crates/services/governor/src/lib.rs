//! The governor: what may happen, who has to approve it, and the only hand that gives out Permits.
//!
//! Every consequential act asks here before anything changes. [`policy`] answers "what do the rules say": signed bundles
//! of Rego, checked and compiled once when they are published, evaluated in microseconds afterwards. [`decide`] puts the
//! question, merges the answers, counts throttles, weighs approvals, and turns the result into a
//! [`kernel::Permit`] or a [`kernel::permit::Refusal`]. [`approval`] is the record of an act that waits for people.
//!
//! There is one authorisation function, [`Governor::decide`], for every way in: API, CLI, webhook, job, approval.

pub mod approval;
pub mod decide;
pub mod policy;
pub mod publish;

pub use decide::{Answer, Governor, Granted, Question, Ruling};

use act::Domain;

/// Codes that an operator may meet beside those of [`policy::CODES`].
pub const CODES: &[(&str, &str)] = &[
    ("approval.twice", "the principal has already decided on this act"),
    ("approval.late", "the approval has expired"),
    ("approval.closed", "the approval has been decided already"),
    ("approval.changed", "the act is not the one that the approver was shown"),
    (
        "approval.secret",
        "policy wants people to approve the act, and its arguments are secret and may not be kept",
    ),
    ("policy.none", "no platform policy is in force, so every act is denied"),
    ("throttle.exceeded", "more acts of this kind in a minute than policy allows"),
    ("policy.route_unmet", "policy allows the act on certain routes only, and it takes none of them"),
];

/// The domain's table.
pub fn domain(governor: &Governor, store: &store::Store) -> Domain {
    Domain {
        name: "governor",
        kinds: &["governor.approval", "governor.policy"],
        facts: &[
            "governor.decided",
            "governor.approval.requested",
            "governor.approval.granted",
            "governor.approval.denied",
            "governor.approval.closed",
            "governor.approval.used",
            "governor.policy.published",
        ],
        verbs: [approval::verbs(), publish::verbs(governor)].concat(),
        routes: [approval::routes(), publish::routes()].concat(),
        jobs: publish::jobs(governor, store),
        codes: CODES,
    }
}
