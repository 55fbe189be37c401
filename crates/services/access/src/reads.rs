//! The built-in roles, and which of them may read what.
//!
//! Reads are decided here, by a table, and not by policy: they are many, they leave no fact, and their scope (one tenant)
//! is enforced by the store's keys in any case. A permission is `<domain>.<noun>.read`; a row grants a prefix of it.
//! [`crate::rights::reach`] answers from these tables.

use crate::rights::RoleKind::{self, Internal, Platform, Tenant};

/// Every built-in role, with its sort and what it is for. The name of one never looks like the id of a tenant's own role.
pub const ROLES: &[(&str, RoleKind, &str)] = &[
    ("platform_admin", Platform, "runs the installation; may act in every tenant"),
    ("tenant_admin", Tenant, "runs one tenant, or one project: people, keys, secrets, connectors"),
    ("builder", Tenant, "writes workflows and connectors"),
    ("operator", Tenant, "watches runs, replays and cancels them"),
    ("approver", Tenant, "decides on waiting acts"),
    ("auditor", Tenant, "reads everything, changes nothing"),
    ("integration", Tenant, "an outside system that sends events"),
    ("service", Internal, "a part of this installation"),
    ("slack", Internal, "what comes from Slack, once its signature is checked"),
];

/// Every permission that a read asks for. A test holds it against the routes.
pub const PERMISSIONS: &[&str] = &[
    "access.binding.read",
    "access.key.read",
    "access.principal.read",
    "access.project.read",
    "access.role.read",
    "access.tenant.read",
    "access.workspace.read",
    "billing.account.read",
    "billing.budget.read",
    "billing.price.read",
    "billing.usage.read",
    "custody.secret.read",
    "edge.contract.read",
    "edge.metrics.read",
    "evidence.bundle.read",
    "evidence.epoch.read",
    "evidence.trust.read",
    "flows.artifact.read",
    "flows.connector.read",
    "flows.run.read",
    "flows.workflow.read",
    "governor.approval.read",
    "governor.policy.read",
    "models.call.read",
    "notify.card.read",
    "notify.event.read",
    "notify.link.read",
    "notify.slack.read",
    "notify.webhook.read",
];

/// Those under which every route shows a caller whose roles hold in projects no more than what stands there.
pub const PROJECT_READS: &[&str] =
    &["access.binding.read", "access.project.read", "flows.run.read", "flows.workflow.read"];

const WORK: &[&str] = &[
    "access.project.",
    "access.workspace.",
    "flows.",
    "models.",
    "governor.approval.",
    "billing.",
    "evidence.",
    "notify.",
    "edge.contract.",
];

/// What each built-in role may read, as prefixes of permissions.
pub const READS: &[(&str, &[&str])] = &[
    ("platform_admin", &[""]),
    ("tenant_admin", &[""]),
    ("auditor", &[""]),
    ("builder", WORK),
    ("operator", WORK),
    ("approver", &["flows.run.", "governor.approval.", "evidence.", "notify.", "edge.contract."]),
    ("service", &["flows."]),
    ("integration", &["edge.contract."]),
    ("slack", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::is_pattern;

    #[test]
    fn the_tables_fit_together() {
        for (role, _, _) in ROLES {
            assert!(READS.iter().any(|(name, _)| name == role), "{role}");
            assert!(!role.starts_with("rol_"), "{role} looks like the id of a tenant's own role");
        }
        for permission in PERMISSIONS {
            assert!(is_pattern(permission) && permission.ends_with(".read"), "{permission}");
        }
        assert!(PROJECT_READS.iter().all(|permission| PERMISSIONS.contains(permission)));
    }
}
