//! Who there is, how they prove it, and who has which role where.
//!
//! A principal belongs to one tenant and is bound to roles: there, in one of its projects, or, in the platform's own
//! tenant, everywhere. It proves itself with an API key, `key_<id>.<secret>`: the id finds the record, the secret is
//! compared with a stored SHA-256 in constant time (a random 256-bit secret needs no slow hash). The secret is made by
//! whoever will use it and only its hash is sent here, so this system never holds one.
//!
//! This crate resolves identity and rights and stops there. Whether somebody may do a thing is policy's to say for acts,
//! from the roles that hold for that thing ([`rights::roles_at`]); for plain reads [`rights::reach`] answers from a table.
//! Three things hold whatever policy says: nobody hands on what they do not have ([`rights::hand_on`]), nobody removes the
//! last administrator ([`guard`]), and a key is good for no more than it is limited to ([`rights::key_covers`]).
//!
//! | module | what it holds |
//! |---|---|
//! | [`tenant`], [`workspace`], [`project`] | where things stand |
//! | [`principal`], [`key`] | who there is, and how they prove it |
//! | [`binding`], [`role`], [`rights`] | who has which role where; a tenant's own roles; what follows |
//! | [`guard`] | the last administrator |
//! | [`authenticate`] | from the text of a key to a principal |
//! | [`bootstrap`] | the first tenant and its administrator, before anybody could permit anything |
//! | [`reads`] | the built-in roles, and which of them may read what |

pub mod authenticate;
pub mod binding;
pub mod bootstrap;
pub mod guard;
pub mod key;
mod name;
pub mod principal;
pub mod project;
pub mod reads;
pub mod rights;
pub mod role;
mod tally;
pub mod tenant;
pub mod workspace;

use act::{Domain, JobSpec};

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    (
        "access.key_invalid",
        "the API key is unknown, malformed, revoked or expired, or its principal is suspended",
    ),
    ("access.tenant_denied", "the principal does not belong to the tenant it named"),
    ("access.escalation", "somebody was about to give, take or use more than they may do there themselves"),
    (
        "access.assurance_exceeded",
        "a key was to prove more, or for longer, than whoever makes it has proven, or is not a person's",
    ),
    ("access.act_unknown", "an act was named that there is not, or that the owner of the key may not do"),
    ("access.key_scope", "the key is limited to other acts, or to another project"),
    ("access.role_unknown", "a role that does not exist was named"),
    ("access.role_scope", "the role cannot be bound there"),
    ("access.project_unknown", "a project was named that is not there, or is archived"),
    ("access.last_admin", "the change would leave a tenant without an administrator for good"),
    ("access.last_key", "the installation's first key, or whoever holds it, was to be taken away"),
    ("access.read_denied", "none of the principal's roles may read this"),
    ("access.name_taken", "the name is in use"),
];

/// The domain's table. `tables` says what built-in roles permit now.
pub fn domain(store: &store::Store, cell: std::sync::Arc<str>, tables: &rights::Tables) -> Domain {
    let open_store = store.clone();
    Domain {
        name: "access",
        kinds: &[
            "access.principal",
            "access.key",
            "access.key_use",
            "access.tenant",
            "access.workspace",
            "access.project",
            "access.role",
            "access.guard",
            "access.tally",
        ],
        facts: &[
            "access.principal.created",
            "access.principal.suspended",
            "access.principal.resumed",
            "access.binding.created",
            "access.binding.removed",
            "access.role.created",
            "access.role.set",
            "access.role.retired",
            "access.key.created",
            "access.key.rotated",
            "access.key.revoked",
            "access.key.used",
            "access.tenant.created",
            "access.tenant.opened",
            "access.workspace.created",
            "access.workspace.archived",
            "access.project.created",
            "access.project.archived",
            "access.traffic.refused",
        ],
        verbs: [
            principal::verbs(tables),
            binding::verbs(tables),
            role::verbs(tables),
            key::verbs(tables),
            tenant::verbs(),
            workspace::verbs(),
            project::verbs(),
        ]
        .concat(),
        routes: [
            principal::routes(),
            binding::routes(),
            role::routes(tables),
            key::routes(),
            tenant::routes(),
            workspace::routes(),
            project::routes(),
        ]
        .concat(),
        jobs: vec![JobSpec { kind: &tenant::OPEN, run: tenant::open_run(open_store, cell) }],
        codes: CODES,
    }
}
