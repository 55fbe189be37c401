//! Bindings: who has which role, where, and until when. There is no other way to have a right.
//!
//! Say Ann runs a tenant, and Zoe's team shall run its own project in it. Ann binds the role `tenant_admin` to Zoe *at the
//! project*. From then on Zoe may do there what an administrator does, bind others there among it, and nothing outside:
//! an act whose target stands in no project is not reached by her binding, and neither is one in another project.
//!
//! | scope | whose | where it holds |
//! |---|---|---|
//! | platform | people of the platform's own tenant | in every tenant |
//! | tenant | people of the tenant | everywhere in it |
//! | project | people of the tenant | for things that stand in the project |
//!
//! A binding is kept in its principal's record, so that whoever is identified is known with all their rights by one read,
//! and whoever takes a right away collides with whoever uses it to hand it on. Its id is the principal's with a number.
//!
//! What holds for whoever adds a way to hand on rights: it goes through [`crate::rights::hand_on`], which lets nobody give
//! or take what they do not have themselves, and through [`crate::guard`], which keeps the last administrator.

use crate::principal::{PrincipalDoc, named};
use crate::rights::{self, Tables};
use crate::{guard, project, role};
use act::{Class, Coded, Draw as _, Fault, Param, Plan, Route, Stamp, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{PAGE_MAX, Stored, View};

/// Most bindings of one principal.
pub const BINDINGS_MAX: usize = 64;

/// Where a binding holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// In every tenant.
    Platform,
    /// In the principal's tenant.
    Tenant,
    /// In one project of it.
    Project(Id),
}

impl Scope {
    /// As shown: `platform`, `tenant`, or the project's id.
    pub fn shown(&self) -> &str {
        match self {
            Scope::Platform => "platform",
            Scope::Tenant => "tenant",
            Scope::Project(project) => project.as_str(),
        }
    }

    /// The project, if it is one.
    pub fn project(&self) -> Option<&Id> {
        match self {
            Scope::Platform | Scope::Tenant => None,
            Scope::Project(project) => Some(project),
        }
    }
}

/// One role of one principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// `bnd_<principal>.<number>`
    pub id: Id,
    /// A built-in role's name, or the id of one of the tenant's own.
    pub role: String,
    /// Where.
    pub scope: Scope,
    /// When it ends, milliseconds UTC; at this moment it does not hold any more.
    pub ends_at_ms: Option<i64>,
    /// When it was made.
    pub created_at_ms: i64,
    /// By whom; nobody for those from before there were bindings, and for first administrators.
    pub by: Option<Id>,
}

impl Binding {
    /// Whether it holds at this moment.
    pub fn holds(&self, at_ms: i64) -> bool {
        self.ends_at_ms.is_none_or(|end_ms| at_ms < end_ms)
    }
}

/// The id of a principal's binding with this number.
pub(crate) fn binding_id(principal: &Id, number: u32) -> Id {
    let body = principal.as_str().split_once('_').map_or("", |(_, body)| body);
    // Ids of principals are minted, or constants of the code, and leave room for a number.
    Id::parse(&format!("bnd_{body}.{number}")).unwrap_or_else(|_| principal.clone())
}

/// The principal that a binding is of.
fn principal_of(binding: &str) -> Option<Id> {
    let (body, _) = binding.strip_prefix("bnd_")?.rsplit_once('.')?;
    Id::parse(&format!("prn_{body}")).ok()
}

/// Why a binding is refused.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// No such role.
    #[error("there is no such role")]
    RoleUnknown,
    /// The role does not belong there.
    #[error("{0}")]
    Scope(&'static str),
    /// Bound already.
    #[error("the principal has this role there already")]
    Bound,
    /// Too many.
    #[error("a principal has at most {BINDINGS_MAX} bindings")]
    TooMany,
    /// The end lies in the past.
    #[error("ends_at_ms is not in the future")]
    Past,
}

impl Coded for BindingError {
    fn code(&self) -> &'static str {
        match self {
            BindingError::RoleUnknown => "access.role_unknown",
            BindingError::Scope(_) => "access.role_scope",
            BindingError::Bound => "request.state",
            BindingError::TooMany | BindingError::Past => "request.invalid",
        }
    }
    fn class(&self) -> Class {
        match self {
            BindingError::RoleUnknown | BindingError::TooMany | BindingError::Past => Class::Invalid,
            BindingError::Scope(_) => Class::Denied,
            BindingError::Bound => Class::Conflict,
        }
    }
}

/// What is to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Built-in name or own role's id.
    pub role: String,
    /// Where.
    pub scope: Scope,
    /// Until when.
    pub ends_at_ms: Option<i64>,
}

/// The role that `text` names, as bindings keep it: a built-in one by its name, an own one by its id. It has to be there.
pub(crate) async fn role_named(view: &View, text: &str) -> Result<String, Fault> {
    if rights::role_kind(text).is_some() {
        return Ok(text.to_owned());
    }
    let id = role::role_id(text).ok_or(BindingError::RoleUnknown)?;
    let doc = view.get::<role::RoleDoc>(&id).await?.filter(|doc| doc.retired_at_ms.is_none());
    Ok(doc.ok_or(BindingError::RoleUnknown)?.id.to_string())
}

/// Whether this role may be bound at that scope in this tenant at all, whoever binds it.
pub(crate) fn scope_check(role: &str, scope: &Scope, tenant: &TenantId) -> Result<(), BindingError> {
    use rights::RoleKind;
    let refused = |why| Err(BindingError::Scope(why));
    if *scope == Scope::Platform && *tenant != TenantId::platform() {
        return refused("only people of the platform's own tenant have roles in every tenant");
    }
    match rights::role_kind(role) {
        Some(RoleKind::Internal) => {
            refused("this role belongs to parts of the installation and is bound to nobody")
        }
        Some(RoleKind::Platform) if *scope != Scope::Platform => {
            refused("this role is bound at the platform only, in the platform's own tenant")
        }
        None if *scope == Scope::Platform => refused("a tenant's own role holds in no other tenant"),
        Some(RoleKind::Platform | RoleKind::Tenant) | None => Ok(()),
    }
}

/// Checks and makes a binding: the role exists and belongs there, whoever makes it has all that it gives, and it is not
/// there yet. Those of the principal that have ended are dropped.
///
/// # Errors
/// `access.role_unknown`, `access.role_scope`, `access.escalation`, `request.state`, `request.invalid`.
pub(crate) async fn bind(
    view: &View,
    stamp: &Stamp,
    tables: &Tables,
    doc: &mut PrincipalDoc,
    wanted: Wanted,
) -> Result<Binding, Fault> {
    let maker = rights::maker(view, stamp).await?;
    scope_check(&wanted.role, &wanted.scope, view.tenant())?;
    let power =
        rights::power_of_role(view, &tables(), &wanted.role).await?.ok_or(BindingError::RoleUnknown)?;
    rights::hand_on(&maker, &tables(), &wanted.scope, &power)?;
    if wanted.ends_at_ms.is_some_and(|end_ms| end_ms <= stamp.at_ms) {
        return Err(BindingError::Past.into());
    }
    doc.bindings.retain(|binding| binding.holds(stamp.at_ms));
    if doc.bindings.iter().any(|binding| binding.role == wanted.role && binding.scope == wanted.scope) {
        return Err(BindingError::Bound.into());
    }
    if doc.bindings.len() >= BINDINGS_MAX {
        return Err(BindingError::TooMany.into());
    }
    doc.bindings_made = doc.bindings_made.saturating_add(1);
    let binding = Binding {
        id: binding_id(&doc.id, doc.bindings_made),
        role: wanted.role,
        scope: wanted.scope,
        ends_at_ms: wanted.ends_at_ms,
        created_at_ms: stamp.at_ms,
        by: Some(stamp.ctx.principal.id.clone()),
    };
    doc.bindings.push(binding.clone());
    Ok(binding)
}

/// Arguments of `access.binding.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Who gets it.
    pub principal: String,
    /// The role: a built-in one, or one of the tenant's own.
    pub role: String,
    /// The one project where it holds. Without it, the whole tenant.
    pub project: Option<String>,
    /// Whether it holds in every tenant; only in the platform's own tenant.
    #[serde(default)]
    pub platform: bool,
    /// When it ends, milliseconds UTC; never, if absent.
    pub ends_at_ms: Option<i64>,
}

/// Arguments of `access.binding.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// The binding.
    pub binding: String,
}

async fn wanted(view: &View, args: &Create) -> Result<(Wanted, Option<act::Place>), Fault> {
    let role = role_named(view, &args.role).await?;
    let (scope, place) = match &args.project {
        Some(_) if args.platform => {
            return Err(Fault::invalid("request.invalid", "give a project or platform, not both"));
        }
        Some(project) => {
            let place = project::place_live(view, project).await?;
            (Scope::Project(place.project.clone()), Some(place))
        }
        None if args.platform => (Scope::Platform, None),
        None => (Scope::Tenant, None),
    };
    Ok((Wanted { role, scope, ends_at_ms: args.ends_at_ms }, place))
}

/// A principal with one of its bindings.
async fn found(view: &View, text: &str) -> Result<(Stored<PrincipalDoc>, Binding), Fault> {
    let missing = || Fault::not_found("binding");
    let id = principal_of(text).ok_or_else(missing)?;
    let stored = view.get::<PrincipalDoc>(&id).await?.ok_or_else(missing)?;
    let binding = stored.bindings.iter().find(|binding| binding.id.as_str() == text).cloned();
    Ok((stored, binding.ok_or_else(missing)?))
}

fn attributes(doc: &PrincipalDoc, role: &str, scope: &Scope, ends_at_ms: Option<i64>, who: &Id) -> Value {
    json!({
        "principal": doc.id, "principal_kind": doc.kind.as_str(), "role": role, "scope": scope.shown(),
        "ends_at_ms": ends_at_ms, "own": doc.id == *who,
    })
}

/// The verbs.
pub fn verbs(tables: &Tables) -> Vec<Verb> {
    let (creating, removing) = (tables.clone(), tables.clone());
    vec![
        Verb {
            act: "access.binding.create",
            summary: "Gives a principal a role, in the tenant, in a project or in every tenant",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.principal", "access.guard"],
            facts: &["access.binding.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    let doc = named(view, &args.principal).await?;
                    let (wanted, place) = wanted(view, &args).await?;
                    let mut target = Target::of("access.principal", &doc.id).at(place);
                    let who = &ctx.principal.id;
                    target.attributes = attributes(&doc, &wanted.role, &wanted.scope, wanted.ends_at_ms, who);
                    let until =
                        wanted.ends_at_ms.map_or_else(|| "for good".into(), |end| format!("until {end}"));
                    target.preview = vec![
                        ("Principal".into(), doc.name.clone()),
                        ("Roles now".into(), held(&doc.bindings)),
                        ("Role".into(), format!("{} in {}, {until}", wanted.role, wanted.scope.shown())),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = creating.clone();
                async move {
                    let args: Create = parse(args)?;
                    let stored = named(view, &args.principal).await?;
                    let (wanted, _) = wanted(view, &args).await?;
                    let mut doc = stored.doc.clone();
                    let binding = bind(view, stamp, &tables, &mut doc, wanted).await?;
                    let outcome = json!({"binding": binding.id, "principal": doc.id, "role": binding.role, "scope": binding.scope.shown()});
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    guard::settle(view, &mut plan, Some(&stored), &doc).await?;
                    plan.draft.put_if(&stored, &doc).fact(fact(stamp, "access.binding.created", &doc, &binding));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.binding.remove",
            summary: "Takes a role from a principal",
            args: || schemars::schema_for!(Remove).into(),
            writes: &["access.principal", "access.guard"],
            facts: &["access.binding.removed"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Remove = parse(args)?;
                    let (doc, binding) = found(view, &args.binding).await?;
                    let place = match binding.scope.project() {
                        Some(project) => project::place(view, project).await?,
                        None => None,
                    };
                    let mut target = Target::of("access.principal", &doc.id).at(place);
                    let who = &ctx.principal.id;
                    target.attributes =
                        attributes(&doc, &binding.role, &binding.scope, binding.ends_at_ms, who);
                    target.preview = vec![
                        ("Principal".into(), doc.name.clone()),
                        ("Role taken away".into(), format!("{} in {}", binding.role, binding.scope.shown())),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = removing.clone();
                async move {
                    let args: Remove = parse(args)?;
                    let (stored, binding) = found(view, &args.binding).await?;
                    let maker = rights::maker(view, stamp).await?;
                    // Whoever could not have given it does not take it either. One that permits nothing any more, because
                    // its role is gone, is anybody's to tidy up.
                    let power =
                        rights::power_of_role(view, &tables(), &binding.role).await?.unwrap_or_default();
                    rights::hand_on(&maker, &tables(), &binding.scope, &power)?;
                    let mut doc = stored.doc.clone();
                    doc.bindings.retain(|other| other.id != binding.id);
                    let outcome = json!({"binding": binding.id, "principal": doc.id});
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    guard::settle(view, &mut plan, Some(&stored), &doc).await?;
                    plan.draft.put_if(&stored, &doc).fact(fact(
                        stamp,
                        "access.binding.removed",
                        &doc,
                        &binding,
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// Roles as a line for people.
pub(crate) fn held(bindings: &[Binding]) -> String {
    let shown = |binding: &Binding| match &binding.scope {
        Scope::Tenant => binding.role.clone(),
        scope => format!("{} in {}", binding.role, scope.shown()),
    };
    bindings.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn fact(stamp: &Stamp, kind: &'static str, doc: &PrincipalDoc, binding: &Binding) -> kernel::Fact {
    stamp.fact(
        kind,
        &doc.id,
        ("access.binding", &binding.id),
        json!({
            "principal": doc.id, "role": binding.role, "scope": binding.scope.shown(), "ends_at_ms": binding.ends_at_ms,
        }),
    )
}

/// A binding as the API shows it.
pub(crate) fn shown(doc: &PrincipalDoc, binding: &Binding, now_ms: i64) -> Value {
    json!({
        "id": binding.id, "principal": doc.id, "name": doc.name, "role": binding.role, "scope": binding.scope.shown(),
        "in_force": binding.holds(now_ms) && doc.suspended_at_ms.is_none(), "ends_at_ms": binding.ends_at_ms,
        "created_at_ms": binding.created_at_ms, "by": binding.by,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/bindings",
            "binding_create",
            "Give a principal a role, in the tenant, in a project or in every tenant",
            "access.binding.create",
        ),
        Route::delete(
            "/v1/bindings/{binding}",
            "binding_remove",
            "Take a role from a principal",
            "access.binding.remove",
        ),
        Route::get(
            "/v1/bindings",
            "binding_list",
            "List who has which role where",
            "access.binding.read",
            |query| {
                async move {
                    let reach = rights::reach(&query.ctx.principal, "access.binding.read");
                    let project = match query.param("project") {
                        None => None,
                        Some(text) => {
                            Some(project::project_id(text).ok_or_else(|| Fault::not_found("project"))?)
                        }
                    };
                    reach.check(project.as_ref())?;
                    let now_ms = query.ctx.requested_at_ms;
                    let of = |doc: &PrincipalDoc| -> Vec<Value> {
                        let there = |binding: &&Binding| {
                            project.is_none() || binding.scope.project() == project.as_ref()
                        };
                        let bindings = doc.bindings.iter().filter(there);
                        bindings.map(|binding| shown(doc, binding, now_ms)).collect()
                    };
                    if let Some(text) = query.param("principal") {
                        return Ok(json!({"items": of(&*named(query.view, text).await?), "next": null}));
                    }
                    let mut range = page::range(&query, "name", Vec::new(), false)?;
                    if project.is_some() {
                        // Most principals have nothing in one project: as many as a page can look at.
                        range.limit = PAGE_MAX;
                    }
                    let limit = range.limit;
                    let found = query.view.list::<PrincipalDoc>(range).await?;
                    let page = page::page(&found, limit, |doc| json!(of(doc)));
                    let lists = page["items"].as_array().into_iter().flatten();
                    let items: Vec<&Value> = lists.filter_map(Value::as_array).flatten().collect();
                    Ok(json!({"items": items, "next": page["next"]}))
                }
                .boxed()
            },
        )
        .taking(&[
            Param { name: "project", summary: "only those in this project" },
            Param { name: "principal", summary: "only those of this principal" },
            page::AFTER,
            Param { name: "limit", summary: "the bindings of so many principals, at most 200" },
        ]),
    ]
}

/// What somebody who has these roles in the whole tenant is: for tenants' first administrators.
pub(crate) fn first(principal: &Id, role: &str, scope: Scope, at_ms: i64) -> Binding {
    Binding {
        id: binding_id(principal, 1),
        role: role.to_owned(),
        scope,
        ends_at_ms: None,
        created_at_ms: at_ms,
        by: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_names_its_principal() {
        let id = |text: &str| Id::parse(text).unwrap();
        for (principal, number) in [("prn_0192f6c1a7b27d3e8a14c0ffee000001", 1), ("prn_svc-hook-a.b", 40_000)]
        {
            assert_eq!(principal_of(binding_id(&id(principal), number).as_str()), Some(id(principal)));
        }
        for text in ["", "bnd_", "bnd_a", "prn_a.1", "bnd_.1", "bnd_A.1", "bnd_a b.1"] {
            assert_eq!(principal_of(text), None, "{text}");
        }
    }

    #[test]
    fn where_a_role_can_be_bound() {
        let (platform, acme) = (TenantId::platform(), TenantId::parse("ten_acme").unwrap());
        let desk = Scope::Project(Id::parse("prj_desk").unwrap());
        let (everywhere, here) = (Scope::Platform, Scope::Tenant);
        for (role, scope, tenant, may) in [
            ("platform_admin", &everywhere, &platform, true),
            ("platform_admin", &here, &platform, false),
            ("platform_admin", &desk, &platform, false),
            ("platform_admin", &everywhere, &acme, false),
            ("platform_admin", &here, &acme, false),
            ("auditor", &everywhere, &platform, true),
            ("auditor", &here, &platform, true),
            ("auditor", &everywhere, &acme, false),
            ("tenant_admin", &here, &acme, true),
            ("tenant_admin", &desk, &acme, true),
            ("service", &here, &acme, false),
            ("slack", &desk, &acme, false),
            ("service", &everywhere, &platform, false),
            ("rol_triagers", &here, &acme, true),
            ("rol_triagers", &desk, &acme, true),
            ("rol_triagers", &everywhere, &platform, false),
        ] {
            assert_eq!(scope_check(role, scope, tenant).is_ok(), may, "{role} {scope:?} {tenant}");
        }
    }
}
