//! Tenants. Creating one is an act of the platform; its log is opened by a job, because a log begins with a genesis in
//! the tenant itself and one commit never spans two tenants.

use crate::binding::Scope;
use crate::guard::{Guard, guard_id};
use crate::principal::{PrincipalDoc, fold, name_check};
use act::{Draw as _, Fault, JobRun, Plan, Route, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::changeset::{Changeset, Draft};
use kernel::permit::{Authority, JobKind};
use kernel::{Fact, Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::key::Key;
use store::{CommitError, Document, Store};

/// A tenant, as the platform knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantDoc {
    /// `ten_…`
    pub id: Id,
    /// Its name, unique in the installation.
    pub name: String,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
}

impl Document for TenantDoc {
    const KIND: &'static str = "access.tenant";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(&self.name).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(&fold(&self.name)).bytes())]
    }
}

/// The job that opens a tenant's log.
pub static OPEN: JobKind = JobKind {
    name: "access.tenant.open",
    writes: &[],
    facts: &["access.tenant.opened"],
    lease_ms: 30_000,
    starts_max: 20,
};

/// Arguments of `access.tenant.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The tenant's name: letters, digits and dashes; it becomes part of its id and of its log's origin.
    pub name: String,
    /// Name of its first administrator.
    pub admin: String,
}

#[derive(Serialize, Deserialize)]
struct Open {
    tenant: TenantId,
    admin: Id,
    admin_name: String,
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "access.tenant.create",
        summary: "Creates a tenant with its first administrator",
        args: || schemars::schema_for!(Create).into(),
        writes: &["access.tenant"],
        facts: &["access.tenant.created"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, args, ctx| {
            async move {
                let args: Create = parse(args)?;
                name_check(&args.admin)?;
                let mut target = Target::of("access.tenant", ctx.tenant.id());
                target.preview = vec![("New tenant".into(), args.name), ("Administrator".into(), args.admin)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: Create = parse(args)?;
                if stamp.ctx.tenant != TenantId::platform() {
                    return Err(Fault::not_found(
                        "tenant registry in this tenant; the platform's own tenant has it",
                    ));
                }
                let tenant = TenantId::parse(&format!("ten_{}", args.name)).map_err(|_| {
                    Fault::invalid(
                        "request.invalid",
                        "a tenant's name has lower-case letters, digits and dashes",
                    )
                })?;
                let doc = TenantDoc { id: tenant.id().clone(), name: args.name, created_at_ms: stamp.at_ms };
                if view.get::<TenantDoc>(&doc.id).await?.is_some() || tenant == TenantId::platform() {
                    return Err(Fault::conflict("access.name_taken", "a tenant of this name exists"));
                }
                let admin = stamp.id("prn");
                let mut plan =
                    Plan { draft: stamp.draft(), outcome: json!({"tenant": tenant, "admin": admin}) };
                let open = Open { tenant: tenant.clone(), admin, admin_name: args.admin };
                plan.draft
                    .put_new(&doc)
                    .fact(stamp.fact("access.tenant.created", &doc.id, (TenantDoc::KIND, &doc.id), json!({})))
                    .job(
                        stamp.id("job"),
                        &OPEN,
                        stamp.at_ms,
                        true,
                        &serde_json::to_value(open).unwrap_or_default(),
                    );
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// The genesis of a tenant: its first administrator.
pub(crate) fn genesis(at_ms: i64, cell: &str, tenant: &TenantId, admin: PrincipalDoc, fact_id: Id) -> Draft {
    let mut draft = Draft::at(at_ms);
    let fact = Fact {
        id: fact_id,
        kind: "access.tenant.opened",
        stream: tenant.id().clone(),
        resource: format!("{cell}/{tenant}/access.tenant/{tenant}"),
        causes: Vec::new(),
        outcome: json!({"admin": admin.id}),
        aside: None,
    };
    draft.put_new(&admin).put_new(&Guard { id: guard_id(), admins: 1 }).fact(fact);
    draft
}

/// Runs the opening: genesis in the new tenant, then the job's own end in the platform's log.
pub fn open_run(store: Store, cell: Arc<str>) -> JobRun {
    Arc::new(move |lease| {
        let (store, cell) = (store.clone(), cell.clone());
        async move {
            let Ok(open) = serde_json::from_slice::<Open>(&lease.body) else {
                tracing::error!(job = %lease.id, "a tenant opening has an unreadable body");
                return;
            };
            // Times and ids come from the job itself, so that a second run after a crash does exactly the same.
            let at_ms = lease.lease_until_ms - OPEN.lease_ms;
            let suffix = lease.id.as_str().trim_start_matches("job_").to_owned();
            let (Ok(opened), Ok(noted)) = (Id::parse(&format!("fct_{suffix}")), Id::parse(&format!("fct_{suffix}-n"))) else {
                return;
            };
            let admin = PrincipalDoc::first(open.admin, &open.admin_name, "tenant_admin", Scope::Tenant, at_ms);
            let authority: Authority = lease.authority.clone();
            let draft = genesis(at_ms, &cell, &open.tenant, admin, opened);
            let committed = match Changeset::genesis(open.tenant.clone(), authority, draft) {
                Ok(changeset) => store.commit(changeset).await,
                Err(error) => {
                    tracing::error!(%error, "a tenant cannot be opened");
                    return;
                }
            };
            match committed {
                // It exists: an earlier run of this job got that far.
                Ok(_) | Err(CommitError::Log) => {}
                Err(error) => {
                    tracing::warn!(%error, tenant = %open.tenant, "a tenant could not be opened; it will be tried again");
                    return;
                }
            }
            let mut draft = Draft::at(at_ms);
            draft.fact(Fact {
                id: noted,
                kind: "access.tenant.opened",
                stream: open.tenant.id().clone(),
                resource: format!("{cell}/{}/access.tenant/{}", TenantId::platform(), open.tenant),
                causes: Vec::new(),
                outcome: json!({}),
                aside: None,
            });
            if let Ok(changeset) = Changeset::continuing(lease, draft)
                && let Err(error) = store.commit(changeset).await
            {
                tracing::warn!(%error, "the end of a tenant opening was not recorded; it will be tried again");
            }
        }
        .boxed()
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/tenants", "tenant_create", "Create a tenant", "access.tenant.create"),
        Route::get(
            "/v1/tenants/{tenant}",
            "tenant_show",
            "Show a tenant (of the platform)",
            "access.tenant.read",
            |query| {
                async move {
                    let id = query.id("tenant", "tenant")?;
                    let doc = query.view.peek::<TenantDoc>(&id).await?;
                    let doc = doc.ok_or_else(|| Fault::not_found("tenant"))?.doc;
                    Ok(json!({"id": doc.id, "name": doc.name, "created_at_ms": doc.created_at_ms}))
                }
                .boxed()
            },
        ),
        Route::get(
            "/v1/tenants",
            "tenant_list",
            "List tenants (of the platform)",
            "access.tenant.read",
            |query| {
                async move {
                    let shown = |doc: &TenantDoc| json!({"id": doc.id, "name": doc.name, "created_at_ms": doc.created_at_ms});
                    page::list(&query, "name", Vec::new(), false, shown).await
                }
                .boxed()
            },
        )
        .taking(&page::PARAMS),
    ]
}
