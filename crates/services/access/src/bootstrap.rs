//! The first tenants and their administrators, before there is anybody who could permit anything.

use crate::binding::Scope;
use crate::key::KeyDoc;
use crate::principal::PrincipalDoc;
use crate::tenant::{TenantDoc, genesis};
use act::{Draw as _, Ids, KeyLimits};
use kernel::changeset::Changeset;
use kernel::permit::Authority;
use kernel::{Id, TenantId};
use store::{CommitError, Store};

/// What a new installation starts with.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Hash of the administrator's secret, in hexadecimal.
    pub admin_secret_sha256: String,
    /// The first tenant beside the platform.
    pub tenant: TenantId,
    /// The cell.
    pub cell: String,
}

/// What was created.
#[derive(Debug, Clone)]
pub struct Created {
    /// The administrator of the platform.
    pub admin: Id,
    /// Its key's id; the key is `<id>.<secret>`.
    pub key: Id,
}

/// Creates the platform's tenant with its administrator, and the first tenant. `None`: the installation exists already
/// and nothing was changed.
pub async fn bootstrap(
    store: &Store,
    ids: &dyn Ids,
    at_ms: i64,
    plan: &Bootstrap,
) -> Result<Option<Created>, CommitError> {
    let platform = TenantId::platform();
    let admin = ids.id("prn", at_ms);
    let key = ids.id("key", at_ms);
    let authority = Authority {
        actor: admin.clone(),
        on_behalf_of: Vec::new(),
        act: "access.tenant.create".into(),
        decision: None,
        policy: None,
        assurance: Some("bootstrap".into()),
        trace: ids.id("trc", at_ms).to_string(),
    };
    let doc = PrincipalDoc::first(admin.clone(), "admin", "platform_admin", Scope::Platform, at_ms);
    let mut draft = genesis(at_ms, &plan.cell, &platform, doc, ids.id("fct", at_ms));
    draft.put_new(&KeyDoc {
        id: key.clone(),
        principal: admin.clone(),
        name: "bootstrap".into(),
        secret_sha256: plan.admin_secret_sha256.clone(),
        level: 1,
        created_at_ms: at_ms,
        expires_at_ms: None,
        revoked_at_ms: None,
        limits: KeyLimits::default(),
        before: None,
        rotated_at_ms: None,
    });
    let name = plan.tenant.as_str().trim_start_matches("ten_").to_owned();
    draft.put_new(&TenantDoc { id: plan.tenant.id().clone(), name, created_at_ms: at_ms });
    // Drafts of this size always fit.
    let fits = |changeset: Result<Changeset, _>| {
        changeset.map_err(|_: kernel::changeset::ChangesetError| CommitError::Log)
    };
    let created = match store.commit(fits(Changeset::genesis(platform, authority.clone(), draft))?).await {
        Ok(_) => Some(Created { admin, key }),
        Err(CommitError::Log) => None,
        Err(error) => return Err(error),
    };
    // A crash between the two leaves a platform without its first tenant; the next start completes it.
    let owner = PrincipalDoc::first(ids.id("prn", at_ms), "owner", "tenant_admin", Scope::Tenant, at_ms);
    let draft = genesis(at_ms, &plan.cell, &plan.tenant, owner, ids.id("fct", at_ms));
    match store.commit(fits(Changeset::genesis(plan.tenant.clone(), authority, draft))?).await {
        Ok(_) | Err(CommitError::Log) => Ok(created),
        Err(error) => Err(error),
    }
}
