//! Principals: people, services, integrations and agents of a tenant.

use crate::binding::{Binding, Scope, Wanted, bind, binding_id, held, role_named};
use crate::rights::{self, Tables};
use crate::{binding, guard};
use act::{
    Class, Coded, Draw as _, Fault, KeyLimits, Plan, PrincipalKind, Route, Stamp, Target, Verb, page, parse,
};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

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
    /// Its roles, each with where and until when.
    pub bindings: Vec<Binding>,
    /// How many bindings it ever had: the number of the last one.
    pub bindings_made: u32,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// Since when it may do nothing.
    pub suspended_at_ms: Option<i64>,
}

impl Document for PrincipalDoc {
    const KIND: &'static str = "access.principal";
    const VERSION: u32 = 2;
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(&self.name).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(&fold(&self.name)).bytes())]
    }
    /// Version 1 had a flat list of roles, which held in the whole tenant; the platform's administrators, everywhere.
    fn upcast(version: u32, mut doc: Value) -> Option<Value> {
        (version == 1).then_some(())?;
        let roles: Vec<String> = serde_json::from_value(doc["roles"].take()).ok()?;
        let id = Id::parse(doc["id"].as_str()?).ok()?;
        let created_at_ms = doc["created_at_ms"].as_i64()?;
        let bindings = roles.into_iter().zip(1..).map(|(role, number)| Binding {
            id: binding_id(&id, number),
            scope: if role == "platform_admin" { Scope::Platform } else { Scope::Tenant },
            role,
            ends_at_ms: None,
            created_at_ms,
            by: None,
        });
        let bindings: Vec<Binding> = bindings.collect();
        doc["bindings_made"] = json!(bindings.len());
        doc["bindings"] = json!(bindings);
        Some(doc)
    }
}

impl PrincipalDoc {
    /// A principal with one role for good: a tenant's first administrator.
    pub(crate) fn first(id: Id, name: &str, role: &str, scope: Scope, at_ms: i64) -> PrincipalDoc {
        PrincipalDoc {
            name: name.to_owned(),
            kind: PrincipalKind::Person,
            bindings: vec![binding::first(&id, role, scope, at_ms)],
            bindings_made: 1,
            created_at_ms: at_ms,
            suspended_at_ms: None,
            id,
        }
    }
}

/// Why a change of principals is refused.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalError {
    /// The name cannot be used.
    #[error("a name has 1 to {NAME_BYTES_MAX} printable characters and no white space at its ends")]
    Name,
    /// Oneself.
    #[error("nobody suspends themselves")]
    Oneself,
}

impl Coded for PrincipalError {
    fn code(&self) -> &'static str {
        match self {
            PrincipalError::Name => "request.invalid",
            PrincipalError::Oneself => "request.state",
        }
    }
    fn class(&self) -> Class {
        match self {
            PrincipalError::Name => Class::Invalid,
            PrincipalError::Oneself => Class::Conflict,
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

/// Reads the principal that `text` names.
pub(crate) async fn named(view: &View, text: &str) -> Result<Stored<PrincipalDoc>, Fault> {
    let missing = || Fault::not_found("principal");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<PrincipalDoc>(&id).await?.ok_or_else(missing)
}

/// Arguments of `access.principal.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// What people call it.
    pub name: String,
    /// What sort it is.
    pub kind: PrincipalKind,
    /// The roles it begins with, bound in the whole tenant. More are given, and these taken, by bindings.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Arguments of `access.principal.suspend` and `access.principal.resume`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct One {
    /// The principal.
    pub principal: String,
}

/// The bindings that a new principal begins with.
async fn wanted(view: &View, roles: &[String]) -> Result<Vec<Wanted>, Fault> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for role in roles.iter().collect::<BTreeSet<_>>() {
        let role = role_named(view, role).await?;
        let platform = rights::role_kind(&role) == Some(rights::RoleKind::Platform);
        let scope = if platform { Scope::Platform } else { Scope::Tenant };
        binding::scope_check(&role, &scope, view.tenant())?;
        wanted.push(Wanted { role, scope, ends_at_ms: None });
    }
    wanted.sort_by(|one, other| one.role.cmp(&other.role));
    wanted.dedup();
    Ok(wanted)
}

async fn create(view: &View, args: &Value, stamp: &Stamp, tables: &Tables) -> Result<Plan, Fault> {
    let args: Create = parse(args)?;
    let mut doc = PrincipalDoc {
        id: stamp.id("prn"),
        name: args.name,
        kind: args.kind,
        bindings: Vec::new(),
        bindings_made: 0,
        created_at_ms: stamp.at_ms,
        suspended_at_ms: None,
    };
    if view.find::<PrincipalDoc>("name", &doc.uniques()[0].1).await?.is_some() {
        return Err(Fault::conflict("access.name_taken", "a principal of this name exists"));
    }
    for wanted in wanted(view, &args.roles).await? {
        bind(view, stamp, tables, &mut doc, wanted).await?;
    }
    let roles: Vec<&str> = doc.bindings.iter().map(|binding| binding.role.as_str()).collect();
    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"principal": doc.id, "roles": roles}) };
    guard::settle(view, &mut plan, None, &doc).await?;
    plan.draft.put_new(&doc).fact(stamp.fact(
        "access.principal.created",
        &doc.id,
        (PrincipalDoc::KIND, &doc.id),
        json!({"kind": doc.kind.as_str(), "roles": roles}),
    ));
    Ok(plan)
}

/// Whether whoever acts may do to this principal what takes all its rights away, or gives them back.
async fn above(view: &View, stamp: &Stamp, tables: &Tables, doc: &PrincipalDoc) -> Result<(), Fault> {
    let awake = PrincipalDoc { suspended_at_ms: None, ..doc.clone() };
    let owner = rights::resolve_in(view, &awake, KeyLimits::default()).await?;
    rights::act_as(&rights::maker(view, stamp).await?, &tables(), &owner, &KeyLimits::default())
}

async fn suspended(
    view: &View,
    args: &Value,
    stamp: &Stamp,
    tables: &Tables,
    suspend: bool,
) -> Result<Plan, Fault> {
    let args: One = parse(args)?;
    let stored = named(view, &args.principal).await?;
    if stored.suspended_at_ms.is_some() == suspend {
        let message =
            if suspend { "the principal is suspended already" } else { "the principal is not suspended" };
        return Err(Fault::conflict("request.state", message));
    }
    if stored.id == stamp.ctx.principal.id {
        return Err(PrincipalError::Oneself.into());
    }
    above(view, stamp, tables, &stored).await?;
    let doc = PrincipalDoc { suspended_at_ms: suspend.then_some(stamp.at_ms), ..stored.doc.clone() };
    let outcome = json!({"principal": doc.id, "suspended_at_ms": doc.suspended_at_ms});
    let mut plan = Plan { draft: stamp.draft(), outcome };
    guard::settle(view, &mut plan, Some(&stored), &doc).await?;
    let kind = if suspend { "access.principal.suspended" } else { "access.principal.resumed" };
    let told = json!({"roles": held(&doc.bindings)});
    plan.draft.put_if(&stored, &doc).fact(stamp.fact(kind, &doc.id, (PrincipalDoc::KIND, &doc.id), told));
    Ok(plan)
}

/// A verb that suspends or resumes.
fn one(
    act: &'static str,
    summary: &'static str,
    facts: &'static [&'static str],
    preview: &'static str,
    plan: act::PlanFn,
) -> Verb {
    Verb {
        act,
        summary,
        args: || schemars::schema_for!(One).into(),
        writes: &["access.principal", "access.guard"],
        facts,
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(move |view, args, ctx| {
            async move {
                let args: One = parse(args)?;
                let doc = named(view, &args.principal).await?;
                let mut target = Target::of(PrincipalDoc::KIND, &doc.id);
                target.attributes = json!({"own": doc.id == ctx.principal.id, "kind": doc.kind.as_str()});
                target.preview =
                    vec![(preview.into(), doc.name.clone()), ("Roles".into(), held(&doc.bindings))];
                Ok(target)
            }
            .boxed()
        }),
        plan,
    }
}

/// The verbs.
pub fn verbs(tables: &Tables) -> Vec<Verb> {
    let (creating, suspending, resuming) = (tables.clone(), tables.clone(), tables.clone());
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
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    name_check(&args.name)?;
                    let wanted = wanted(view, &args.roles).await?;
                    let roles: Vec<&str> = wanted.iter().map(|wanted| wanted.role.as_str()).collect();
                    let mut target = Target::of("access.tenant", ctx.tenant.id());
                    target.attributes = json!({"roles": roles, "kind": args.kind.as_str()});
                    target.preview =
                        vec![("Principal".into(), args.name), ("Roles".into(), roles.join(", "))];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = creating.clone();
                async move { create(view, args, stamp, &tables).await }.boxed()
            }),
        },
        one(
            "access.principal.suspend",
            "Suspends a principal: its keys open nothing, and what it asked for is not carried out",
            &["access.principal.suspended"],
            "Suspend",
            Arc::new(move |view, args, stamp| {
                let tables = suspending.clone();
                async move { suspended(view, args, stamp, &tables, true).await }.boxed()
            }),
        ),
        one(
            "access.principal.resume",
            "Lets a suspended principal in again, with the roles it had",
            &["access.principal.resumed"],
            "Resume",
            Arc::new(move |view, args, stamp| {
                let tables = resuming.clone();
                async move { suspended(view, args, stamp, &tables, false).await }.boxed()
            }),
        ),
    ]
}

fn shown(doc: &PrincipalDoc, now_ms: i64) -> Value {
    let holding = doc.bindings.iter().filter(|binding| binding.holds(now_ms));
    let roles: Vec<String> = holding.map(|binding| held(std::slice::from_ref(binding))).collect();
    json!({
        "id": doc.id, "name": doc.name, "kind": doc.kind, "roles": roles, "created_at_ms": doc.created_at_ms,
        "suspended_at_ms": doc.suspended_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/principals", "principal_create", "Create a principal", "access.principal.create"),
        Route::get(
            "/v1/principals",
            "principal_list",
            "List the tenant's principals by name",
            "access.principal.read",
            |query| {
                async move {
                    let now_ms = query.ctx.requested_at_ms;
                    let shown = |doc: &PrincipalDoc| shown(doc, now_ms);
                    page::list(&query, "name", Vec::new(), false, shown).await
                }
                .boxed()
            },
        )
        .taking(&page::PARAMS),
        Route::get(
            "/v1/principals/{principal}",
            "principal_show",
            "Show a principal with its bindings",
            "access.principal.read",
            |query| {
                async move {
                    let now_ms = query.ctx.requested_at_ms;
                    let doc = named(query.view, query.param("principal").unwrap_or_default()).await?;
                    let mut value = shown(&doc, now_ms);
                    let bindings = doc.bindings.iter().map(|binding| binding::shown(&doc, binding, now_ms));
                    value["bindings"] = json!(bindings.collect::<Vec<_>>());
                    Ok(value)
                }
                .boxed()
            },
        ),
        Route::post(
            "/v1/principals/{principal}/suspend",
            "principal_suspend",
            "Suspend a principal",
            "access.principal.suspend",
        ),
        Route::post(
            "/v1/principals/{principal}/resume",
            "principal_resume",
            "Let a suspended principal in again",
            "access.principal.resume",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 1 wrote it.
    const OLD: &str = r#"{"v":1,"doc":{"id":"prn_0192","name":"Ann","kind":"person","roles":["operator","platform_admin"],"created_at_ms":7}}"#;

    #[test]
    fn a_flat_list_of_roles_is_read_as_bindings() {
        let row = store::Row { id: Id::parse("prn_0192").unwrap(), rev: 3, body: OLD.as_bytes().to_vec() };
        let doc = store::decode::<PrincipalDoc>(&row).unwrap().doc;
        let binding = |id: &str, role: &str, scope| Binding {
            id: Id::parse(id).unwrap(),
            role: role.to_owned(),
            scope,
            ends_at_ms: None,
            created_at_ms: 7,
            by: None,
        };
        assert_eq!(
            doc.bindings,
            [
                binding("bnd_0192.1", "operator", Scope::Tenant),
                binding("bnd_0192.2", "platform_admin", Scope::Platform)
            ]
        );
        assert_eq!((doc.bindings_made, doc.suspended_at_ms, doc.name.as_str()), (2, None, "Ann"));
    }
}
