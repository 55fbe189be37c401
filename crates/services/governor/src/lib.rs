//! The governor: what may happen, who has to approve it, and the only hand that gives out Permits.
//!
//! Every consequential act asks here before anything changes. [`policy`] answers "what do the rules say": signed bundles
//! of Rego, checked and compiled once when they are published, evaluated in microseconds afterwards. [`decide`] puts the
//! question, merges the answers, counts throttles, weighs approvals, and turns the result into a
//! [`kernel::Permit`] or a [`kernel::permit::Refusal`]. [`publish`] takes bundles in and out of force, [`signers`] says whose. [`approval`] is the record of an act that waits for people.
//!
//! There is one authorisation function, [`Governor::decide`], for every way in: API, CLI, webhook, job, approval.

pub mod approval;
mod checking;
pub mod decide;
pub mod delegation;
pub mod policy;
pub mod publish;
pub mod signers;

pub use decide::{Answer, Governor, Granted, PERMIT_MS, Question, Ruling};

use act::Domain;

/// Codes that an operator may meet beside those of [`policy::CODES`].
pub const CODES: &[(&str, &str)] = &[
    ("approval.twice", "the principal, or the person they decide for, has already granted this act"),
    ("approval.not_a_person", "a service, an integration or an agent tried to decide on a waiting act"),
    ("approval.delegation", "no delegation lets the principal decide for that person now"),
    ("delegation.invalid", "the span, the note or the delegate of a delegation make no sense"),
    ("delegation.right_missing", "somebody without a right to decide tried to delegate it"),
    ("delegation.over", "the delegation has ended already"),
    ("approval.late", "the approval has expired"),
    ("approval.closed", "the approval has been decided already"),
    ("approval.changed", "the act is not the one that the approver was shown"),
    (
        "approval.cannot_wait",
        "policy wants people to approve the act, and whoever does it is on its way and cannot wait for them",
    ),
    (
        "approval.secret",
        "policy wants people to approve the act, and its arguments are secret and may not be kept",
    ),
    ("policy.check_busy", "another policy is being checked, and only one is at a time"),
    ("policy.key_invalid", "a policy key to be registered is no P-256 public key in PEM"),
    ("policy.key_known", "a policy key is registered already, or was and has been revoked"),
    ("policy.key_limit", "the tenant has registered as many policy keys as it may"),
    ("policy.own_unusable", "the tenant's own policy is stored and cannot be used, so every act is denied"),
    ("policy.none", "no platform policy is in force, so every act is denied"),
    ("throttle.exceeded", "more acts of this kind in a minute than policy allows"),
    ("policy.route_unmet", "policy allows the act on certain routes only, and it takes none of them"),
];

/// The domain's table.
pub fn domain(governor: &Governor, store: &store::Store) -> Domain {
    Domain {
        name: "governor",
        kinds: &["governor.approval", "governor.delegation", "governor.policy", "governor.policy_key"],
        facts: &[
            "governor.decided",
            "governor.approval.requested",
            "governor.approval.granted",
            "governor.approval.denied",
            "governor.approval.reminded",
            "governor.approval.escalated",
            "governor.approval.timer_idle",
            "governor.approval.told",
            "governor.approval.closed",
            "governor.approval.used",
            "governor.delegation.created",
            "governor.delegation.ended",
            "governor.policy.published",
            "governor.policy.withdrawn",
            "governor.policy_key.registered",
            "governor.policy_key.revoked",
        ],
        verbs: [
            approval::verbs(governor),
            delegation::verbs(governor),
            publish::verbs(governor),
            signers::verbs(),
        ]
        .concat(),
        routes: [approval::routes(governor), delegation::routes(), publish::routes(), signers::routes()]
            .concat(),
        jobs: publish::jobs(governor, store),
        codes: CODES,
    }
}
