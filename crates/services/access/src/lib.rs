//! Who there is, how they prove it, and which roles they have.
//!
//! A principal belongs to one tenant and has roles there. It proves itself with an API key, `key_<id>.<secret>`: the id
//! finds the record, the secret is compared with a stored SHA-256 in constant time (a random 256-bit secret needs no slow
//! hash). The secret is made by whoever will use it and only its hash is sent here, so this system never holds one.
//!
//! This crate resolves identity and roles and stops there. Whether a role may do a thing is policy's to say for acts, and
//! for plain reads [`reads::may_read`] answers from a table.
//!
//! | module | what it holds |
//! |---|---|
//! | [`principal`], [`key`], [`tenant`] | the resources, each with its document and verbs |
//! | [`authenticate`] | from the text of a key to a principal |
//! | [`bootstrap`] | the first tenant and its administrator, before anybody could permit anything |
//! | [`reads`] | which role may read what |

pub mod authenticate;
pub mod bootstrap;
pub mod key;
pub mod principal;
pub mod reads;
pub mod tenant;

use act::{Domain, JobSpec};

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("access.key_invalid", "the API key is unknown, malformed, revoked or expired"),
    ("access.tenant_denied", "the principal does not belong to the tenant it named"),
    (
        "access.escalation",
        "a role of the platform, or a key of somebody who has one, was in the hands of somebody without",
    ),
    (
        "access.assurance_exceeded",
        "a key was to prove more, or for longer, than whoever makes it has proven, or is not a person's",
    ),
    ("access.role_unknown", "a role that does not exist was named"),
    ("access.last_admin", "the change would leave a tenant without an administrator"),
    ("access.read_denied", "none of the principal's roles may read this"),
    ("access.name_taken", "the name is in use"),
];

/// The domain's table.
pub fn domain(store: &store::Store, cell: std::sync::Arc<str>) -> Domain {
    let open_store = store.clone();
    Domain {
        name: "access",
        kinds: &["access.principal", "access.key", "access.tenant", "access.guard"],
        facts: &[
            "access.principal.created",
            "access.principal.roles_set",
            "access.key.created",
            "access.key.revoked",
            "access.tenant.created",
            "access.tenant.opened",
            "access.traffic.refused",
        ],
        verbs: [principal::verbs(), key::verbs(), tenant::verbs()].concat(),
        routes: [principal::routes(), key::routes(), tenant::routes()].concat(),
        jobs: vec![JobSpec { kind: &tenant::OPEN, run: tenant::open_run(open_store, cell) }],
        codes: CODES,
    }
}
