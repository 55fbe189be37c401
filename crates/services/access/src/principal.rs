//! Principals: people, services, integrations and agents of a tenant.

use crate::reads;
use act::{
    Auth, Call, Class, Coded, Draw as _, Fault, Method, Plan, PrincipalKind, Route, Stamp, Target, Verb,
    parse,
};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range, View};

/// Longest display name, in bytes.
pub const NAME_BYTES_MAX: usize = 80;

/// A principal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrincipalDoc {
    /// `prn_…`
    pub id: Id,
    /// What people call it; unique in the tenant, ignoring case.
    pub name: String,
    /// What sort.
    pub kind: PrincipalKind,
    /// Its roles, sorted.
    pub roles: Vec<String>,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
}

impl Document for PrincipalDoc {
    const KIND: &'static str = "access.principal";
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

/// The guard of the set of a tenant's administrators: whoever changes roles bumps it, so that two removals at once cannot
/// both believe that the other administrator stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Guard {
    /// `grd_admins`
    pub id: Id,
    /// How many administrators there are.
    pub admins: u32,
}

impl Document for Guard {
    const KIND: &'static str = "access.guard";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Why a change of principals is refused.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalError {
    /// A role that does not exist.
    #[error("one of the roles does not exist")]
    RoleUnknown(String),
    /// The name cannot be used.
    #[error("a name has 1 to {NAME_BYTES_MAX} printable characters and no white space at its ends")]
    Name,
    /// The tenant would be left without an administrator.
    #[error("this would leave the tenant without an administrator")]
    LastAdmin,
}

impl Coded for PrincipalError {
    fn code(&self) -> &'static str {
        match self {
            PrincipalError::RoleUnknown(_) => "access.role_unknown",
            PrincipalError::Name => "request.invalid",
            PrincipalError::LastAdmin => "access.last_admin",
        }
    }
    fn class(&self) -> Class {
        match self {
            PrincipalError::RoleUnknown(_) | PrincipalError::Name => Class::Invalid,
            PrincipalError::LastAdmin => Class::Conflict,
        }
    }
}

/// Folds a name for comparison: lower case. Names are restricted to characters for which that is enough.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Checks a display name: letters, digits, space and `._@-` only, so that no two names look alike and differ.
pub fn name_check(name: &str) -> Result<(), PrincipalError> {
    let ok = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.trim() == name
        && name.chars().all(|c| c.is_ascii_alphanumeric() || " ._@-".contains(c));
    if ok { Ok(()) } else { Err(PrincipalError::Name) }
}

/// Checks, sorts and deduplicates role names.
pub fn roles_check(mut roles: Vec<String>) -> Result<Vec<String>, PrincipalError> {
    roles.sort();
    roles.dedup();
    match roles.iter().find(|role| !reads::role_exists(role)) {
        Some(role) => Err(PrincipalError::RoleUnknown(role.clone())),
        None => Ok(roles),
    }
}

fn is_admin(tenant: &TenantId, roles: &[String]) -> bool {
    let role = if *tenant == TenantId::platform() { "platform_admin" } else { "tenant_admin" };
    roles.iter().any(|name| name == role)
}

/// The guard's id.
pub fn guard_id() -> Id {
    // A constant of the grammar.
    Id::parse("grd_admins").expect("a constant id")
}

/// Arguments of `access.principal.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What people call it.
    pub name: String,
    /// What sort it is.
    pub kind: PrincipalKind,
    /// Its roles.
    pub roles: Vec<String>,
}

/// Arguments of `access.principal.roles_set`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolesSet {
    /// Whose.
    pub principal: String,
    /// All roles it shall have.
    pub roles: Vec<String>,
}

async fn guard_moved(view: &View, stamp: &Stamp, plan: &mut Plan, by: i64) -> Result<(), Fault> {
    let stored = view.get::<Guard>(&guard_id()).await?;
    let before = stored.as_ref().map_or(0, |guard| i64::from(guard.admins));
    let after = before + by;
    if by < 0 && after < 1 {
        return Err(PrincipalError::LastAdmin.into());
    }
    let guard = Guard { id: guard_id(), admins: u32::try_from(after).unwrap_or(0) };
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &guard),
        None => plan.draft.put_new(&guard),
    };
    let _ = stamp;
    Ok(())
}

/// Whether somebody without a role of the platform reaches for one: by giving it, or by a key of somebody who has it.
pub(crate) fn escalates(ctx: &act::Ctx, roles: &[String]) -> bool {
    roles.iter().any(|role| role == "platform_admin")
        && !ctx.principal.roles.iter().any(|role| role == "platform_admin")
}

/// The refusal of what [`escalates`] finds.
pub(crate) fn escalation(why: &str) -> Fault {
    Fault::new(Class::Denied, "access.escalation", why)
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "access.principal.create",
            summary: "Creates a principal in the tenant",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.principal", "access.guard"],
            facts: &["access.principal.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    name_check(&args.name)?;
                    let roles = roles_check(args.roles)?;
                    let mut target = Target::of("access.tenant", ctx.tenant.id());
                    target.attributes = json!({"roles": roles, "escalates": escalates(ctx, &roles)});
                    target.preview =
                        vec![("Principal".into(), args.name), ("Roles".into(), roles.join(", "))];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Create = parse(args)?;
                    if escalates(&stamp.ctx, &roles_check(args.roles.clone())?) {
                        return Err(escalation("a platform role is given only by the platform"));
                    }
                    let doc = PrincipalDoc {
                        id: stamp.id("prn"),
                        name: args.name,
                        kind: args.kind,
                        roles: roles_check(args.roles)?,
                        created_at_ms: stamp.at_ms,
                    };
                    if view.find::<PrincipalDoc>("name", &doc.uniques()[0].1).await?.is_some() {
                        return Err(Fault::conflict("access.name_taken", "a principal of this name exists"));
                    }
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"principal": doc.id, "roles": doc.roles}),
                    };
                    if is_admin(&stamp.ctx.tenant, &doc.roles) {
                        guard_moved(view, stamp, &mut plan, 1).await?;
                    }
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "access.principal.created",
                        &doc.id,
                        (PrincipalDoc::KIND, &doc.id),
                        json!({"kind": doc.kind.as_str(), "roles": doc.roles}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.principal.roles_set",
            summary: "Sets the roles of a principal",
            args: || schemars::schema_for!(RolesSet).into(),
            writes: &["access.principal", "access.guard"],
            facts: &["access.principal.roles_set"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: RolesSet = parse(args)?;
                    let id = Id::parse(&args.principal).map_err(|_| Fault::not_found("principal"))?;
                    let doc =
                        view.get::<PrincipalDoc>(&id).await?.ok_or_else(|| Fault::not_found("principal"))?;
                    let roles = roles_check(args.roles)?;
                    let mut target = Target::of(PrincipalDoc::KIND, &id);
                    target.attributes =
                        json!({"roles": roles, "had": doc.roles, "escalates": escalates(ctx, &roles)});
                    target.preview = vec![
                        ("Principal".into(), doc.name.clone()),
                        ("Roles now".into(), doc.roles.join(", ")),
                        ("Roles then".into(), roles.join(", ")),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RolesSet = parse(args)?;
                    let id = Id::parse(&args.principal).map_err(|_| Fault::not_found("principal"))?;
                    let stored =
                        view.get::<PrincipalDoc>(&id).await?.ok_or_else(|| Fault::not_found("principal"))?;
                    let roles = roles_check(args.roles)?;
                    if escalates(&stamp.ctx, &roles) {
                        return Err(escalation("a platform role is given only by the platform"));
                    }
                    let doc = PrincipalDoc { roles, ..stored.doc.clone() };
                    let mut plan =
                        Plan { draft: stamp.draft(), outcome: json!({"principal": id, "roles": doc.roles}) };
                    let (was, is) =
                        (is_admin(&stamp.ctx.tenant, &stored.roles), is_admin(&stamp.ctx.tenant, &doc.roles));
                    if was != is {
                        guard_moved(view, stamp, &mut plan, if is { 1 } else { -1 }).await?;
                    }
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "access.principal.roles_set",
                        &id,
                        (PrincipalDoc::KIND, &id),
                        json!({"had": stored.roles, "roles": doc.roles}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(doc: &PrincipalDoc) -> Value {
    json!({"id": doc.id, "name": doc.name, "kind": doc.kind, "roles": doc.roles, "created_at_ms": doc.created_at_ms})
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::Post,
            path: "/v1/principals",
            operation: "principal_create",
            summary: "Create a principal",
            auth: Auth::Principal,
            call: Call::Verb("access.principal.create"),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/principals",
            operation: "principal_list",
            summary: "List the tenant's principals by name",
            auth: Auth::Principal,
            call: Call::Query(
                "access.principal.read",
                Arc::new(|query| {
                    async move {
                        let found = query.view.list::<PrincipalDoc>(Range::of("name", Vec::new())).await?;
                        Ok(json!({"items": found.iter().map(|found| shown(&found.stored)).collect::<Vec<_>>()}))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/principals/{principal}",
            operation: "principal_show",
            summary: "Show a principal",
            auth: Auth::Principal,
            call: Call::Query(
                "access.principal.read",
                Arc::new(|query| {
                    async move {
                        let id = query.id("principal", "principal")?;
                        let doc = query
                            .view
                            .peek::<PrincipalDoc>(&id)
                            .await?
                            .ok_or_else(|| Fault::not_found("principal"))?;
                        Ok(shown(&doc))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
        Route {
            method: Method::Put,
            path: "/v1/principals/{principal}/roles",
            operation: "principal_roles_set",
            summary: "Set the roles of a principal",
            auth: Auth::Principal,
            call: Call::Verb("access.principal.roles_set"),
            query: &[],
        },
    ]
}
