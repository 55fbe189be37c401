//! Which role may read what.
//!
//! Reads are decided here, by a table, and not by policy: they are many, they leave no fact, and their scope (one tenant)
//! is enforced by the store's keys in any case. A permission is `<domain>.<noun>.read`; a row grants a prefix of it.

/// Every role, with what it is for.
pub const ROLES: &[(&str, &str)] = &[
    ("platform_admin", "runs the installation; may act in every tenant"),
    ("tenant_admin", "runs one tenant: people, keys, secrets, connectors"),
    ("builder", "writes workflows and connectors"),
    ("operator", "watches runs, replays and cancels them"),
    ("approver", "decides on waiting acts"),
    ("auditor", "reads everything, changes nothing"),
    ("service", "a part of this installation"),
    ("integration", "an outside system that sends events"),
];

const READS: &[(&str, &[&str])] = &[
    ("platform_admin", &[""]),
    ("tenant_admin", &[""]),
    ("auditor", &[""]),
    (
        "builder",
        &["flows.", "models.", "governor.approval.", "billing.", "evidence.", "notify.", "edge.contract."],
    ),
    (
        "operator",
        &["flows.", "models.", "governor.approval.", "billing.", "evidence.", "notify.", "edge.contract."],
    ),
    ("approver", &["flows.run.", "governor.approval.", "evidence.", "notify.", "edge.contract."]),
    ("service", &["flows."]),
    ("integration", &["edge.contract."]),
];

/// Whether `role` exists.
pub fn role_exists(role: &str) -> bool {
    ROLES.iter().any(|(name, _)| *name == role)
}

/// Whether any of `roles` may read under `permission`. Unknown roles and permissions read nothing.
pub fn may_read(roles: &[String], permission: &str) -> bool {
    !permission.is_empty()
        && roles.iter().any(|role| {
            READS
                .iter()
                .filter(|(name, _)| name == role)
                .any(|(_, prefixes)| prefixes.iter().any(|prefix| permission.starts_with(prefix)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_row_and_nobody_else_reads() {
        for (role, _) in ROLES {
            assert!(READS.iter().any(|(name, _)| name == role), "{role}");
        }
        for (role, permission, may) in [
            ("auditor", "access.key.read", true),
            ("approver", "governor.approval.read", true),
            ("approver", "custody.secret.read", false),
            ("integration", "flows.run.read", false),
            ("root", "flows.run.read", false),
            ("", "flows.run.read", false),
            ("auditor", "", false),
        ] {
            assert_eq!(may_read(&[role.to_owned()], permission), may, "{role} {permission}");
        }
        assert!(!may_read(&[], "flows.run.read"));
    }
}
