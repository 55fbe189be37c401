//! Nobody removes the last administrator.
//!
//! A tenant whose last administrator loses the role, is suspended, or lets it run out, can be helped only by the platform;
//! a platform whose last one does, by nobody. So each tenant counts those that are there *for good*: bound for the whole
//! tenant (for every tenant, in the platform's own) without an end, and not suspended. A binding that ends does not count,
//! and neither does one at a project, so time alone never takes the last one away. The count stands in a record that every
//! change of it writes, and two administrators who remove each other at one moment meet there: one of them finds that the
//! other is the last.
//!
//! Keys are another matter. A tenant's administrator whose last key is revoked is given a new one by the platform, and a
//! key that has leaked has to go at once; so that is let through. But the platform's own first key is the one proof of
//! assurance level 1 without an end, from which all others are lent for hours: without it no policy and no secret is ever
//! changed again. It is rotated, never revoked, and whoever holds it stays ([`root_check`]).

use crate::binding::Scope;
use crate::key::KeyDoc;
use crate::principal::PrincipalDoc;
use act::{Class, Coded, Draw as _, Fault, Plan};
use kernel::{Id, TenantId};
use serde::{Deserialize, Serialize};
use store::key::Key;
use store::{Document, Range, View};

/// How many administrators a tenant has for good: whoever changes that bumps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Guard {
    /// `grd_admins`
    pub id: Id,
    /// How many administrators there are for good.
    pub admins: u32,
}

impl Document for Guard {
    const KIND: &'static str = "access.guard";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// The guard's id.
pub fn guard_id() -> Id {
    // A constant of the grammar.
    Id::parse("grd_admins").expect("a constant id")
}

/// Why a right is not taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No administrator would be left.
    #[error("this would leave the tenant without an administrator for good")]
    LastAdmin,
    /// The platform's first key, or whoever holds it.
    #[error("this key is the only proof of assurance level 1 that does not end; rotate it instead")]
    LastKey,
}

impl Coded for GuardError {
    fn code(&self) -> &'static str {
        match self {
            GuardError::LastAdmin => "access.last_admin",
            GuardError::LastKey => "access.last_key",
        }
    }
    fn class(&self) -> Class {
        match self {
            GuardError::LastAdmin | GuardError::LastKey => Class::Conflict,
        }
    }
}

/// Whether a principal administers its tenant, or from the platform's own tenant all of them, for good.
pub fn administers(tenant: &TenantId, doc: &PrincipalDoc) -> bool {
    let (role, scope) = if *tenant == TenantId::platform() {
        ("platform_admin", Scope::Platform)
    } else {
        ("tenant_admin", Scope::Tenant)
    };
    doc.suspended_at_ms.is_none()
        && doc
            .bindings
            .iter()
            .any(|binding| binding.role == role && binding.scope == scope && binding.ends_at_ms.is_none())
}

/// Adds to the plan what the change of a principal means for the count of administrators.
///
/// # Errors
/// `access.last_admin`; `access.last_key`.
pub async fn settle(
    view: &View,
    plan: &mut Plan,
    before: Option<&PrincipalDoc>,
    after: &PrincipalDoc,
) -> Result<(), Fault> {
    let tenant = view.tenant();
    let (was, is) = (before.is_some_and(|before| administers(tenant, before)), administers(tenant, after));
    if was == is {
        return Ok(());
    }
    if was {
        root_check(view, &after.id).await?;
    }
    let stored = view.get::<Guard>(&guard_id()).await?;
    let admins = stored.as_ref().map_or(0, |guard| guard.admins);
    let admins = if is { admins.saturating_add(1) } else { admins.saturating_sub(1) };
    if was && admins == 0 {
        return Err(GuardError::LastAdmin.into());
    }
    let guard = Guard { id: guard_id(), admins };
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &guard),
        None => plan.draft.put_new(&guard),
    };
    Ok(())
}

/// Whether this key is the platform's root of assurance. No act makes a second one: what is lent has an end.
pub fn is_root(tenant: &TenantId, key: &KeyDoc) -> bool {
    *tenant == TenantId::platform()
        && key.level > 0
        && key.expires_at_ms.is_none()
        && key.revoked_at_ms.is_none()
}

/// Refuses where `principal` holds the platform's root of assurance.
///
/// # Errors
/// `access.last_key`.
pub async fn root_check(view: &View, principal: &Id) -> Result<(), Fault> {
    if *view.tenant() != TenantId::platform() {
        return Ok(());
    }
    // Oldest first: it was made before every other.
    let range = Range::of("principal", Key::new().text(principal.as_str()).bytes());
    let keys = view.list_guarded::<KeyDoc, Guard>(&guard_id(), range).await?;
    if keys.iter().any(|found| is_root(view.tenant(), &found.stored)) {
        return Err(GuardError::LastKey.into());
    }
    Ok(())
}
