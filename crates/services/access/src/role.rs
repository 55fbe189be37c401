//! A tenant's own roles: a named set of acts and reads.
//!
//! Say a tenant wants people who start and watch runs and nothing else. It makes the role `triagers` with `flows.run.start`
//! and `flows.run.read`, and binds it like a built-in one, in the tenant or in a project. Four rules keep this from being a
//! way around everything else:
//!
//! - whoever writes a role could do all of it themselves, in the whole tenant ([`crate::rights::hand_on`]);
//! - it permits nothing that no role of a tenant's people has: no act of the platform, whoever writes it. Policy holds it
//!   against the same table again at each decision, so a table that is made narrower later narrows it too;
//! - a pattern such as `flows.run.*` is read when it is written. An act that a later release brings is in no role until
//!   somebody sets the role again;
//! - it has no tier: who decides on approvals is said by built-in roles alone.
//!
//! Setting a role makes its next version; what each version permitted stands in the facts.

use crate::binding::Scope;
use crate::rights::{self, Power, Table, Tables, is_pattern};
use crate::workspace::description_check;
use crate::{name, tally};
use act::{Class, Coded, Draw as _, Fault, Param, Plan, Route, Stamp, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::{Id, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

/// Most roles of a tenant, retired ones counted.
pub const ROLES_MAX: u32 = 100;
/// Most patterns of a role.
pub const PATTERNS_MAX: usize = 32;
/// Most acts and reads of a role.
pub const ACTS_MAX: usize = 128;
const READ: &str = "access.role.read";

/// A tenant's own role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoleDoc {
    /// `rol_<name>`
    pub id: Id,
    /// What it is for.
    pub description: String,
    /// As it was written: acts and reads, exact or as `<domain>.<noun>.*`.
    pub patterns: Vec<String>,
    /// What that was when it was written: exact acts and reads, sorted.
    pub acts: Vec<String>,
    /// Counts from 1.
    pub version: u32,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// When this version was written.
    pub set_at_ms: i64,
    /// Who wrote it.
    pub set_by: Id,
    /// When it was retired: it permits nothing any more.
    pub retired_at_ms: Option<i64>,
}

impl Document for RoleDoc {
    const KIND: &'static str = "access.role";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
}

/// The id of the own role that `text`, its name or its id, names.
pub fn role_id(text: &str) -> Option<Id> {
    name::id("rol", text)
}

/// Why a role is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// Not a pattern, or one that names nothing that there is.
    #[error("one of the acts is no act or read that there is, exact or as <domain>.<noun>.*")]
    ActUnknown(String),
    /// Only the platform's people do this.
    #[error("a tenant's own role permits nothing that is the platform's alone")]
    Platform(String),
    /// None or too many.
    #[error("a role has 1 to {PATTERNS_MAX} patterns that come to at most {ACTS_MAX} acts and reads")]
    Number,
}

impl Coded for RoleError {
    fn code(&self) -> &'static str {
        match self {
            RoleError::ActUnknown(_) => "access.act_unknown",
            RoleError::Platform(_) => "access.escalation",
            RoleError::Number => "request.invalid",
        }
    }
    fn class(&self) -> Class {
        match self {
            RoleError::ActUnknown(_) | RoleError::Number => Class::Invalid,
            RoleError::Platform(_) => Class::Denied,
        }
    }
}

/// What patterns come to now: exact acts and reads, sorted.
///
/// # Errors
/// The first rule that is broken.
pub fn expand(patterns: &[String], table: &Table) -> Result<Vec<String>, RoleError> {
    let (known, tenants) = (table.known(), table.of_tenants());
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        return Err(RoleError::Number);
    }
    let mut acts = BTreeSet::new();
    for pattern in patterns {
        let covered: Vec<&str> = known
            .iter()
            .copied()
            .filter(|right| is_pattern(pattern) && rights::covers(pattern, right))
            .collect();
        if covered.is_empty() {
            return Err(RoleError::ActUnknown(pattern.clone()));
        }
        // A pattern means what a tenant's people can have of it; an exact act has to be one of them.
        let within: Vec<&str> = covered.into_iter().filter(|right| tenants.contains(*right)).collect();
        if within.is_empty() {
            return Err(RoleError::Platform(pattern.clone()));
        }
        acts.extend(within.into_iter().map(str::to_owned));
    }
    if acts.len() > ACTS_MAX {
        return Err(RoleError::Number);
    }
    Ok(acts.into_iter().collect())
}

/// Arguments of `access.role.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name: lower-case letters, digits and dashes. It is taken for good.
    pub name: String,
    /// What it permits: acts and reads, exact (flows.run.start, flows.run.read) or as <domain>.<noun>.*
    pub acts: Vec<String>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// Arguments of `access.role.set`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Its name.
    pub role: String,
    /// All that it permits from now on.
    pub acts: Vec<String>,
    /// What it is for; as before, if absent.
    pub description: Option<String>,
}

/// Arguments of `access.role.retire`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    /// Its name.
    pub role: String,
}

async fn find(view: &View, text: &str) -> Result<Stored<RoleDoc>, Fault> {
    let missing = || Fault::not_found("role");
    view.get::<RoleDoc>(&role_id(text).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// Checks that whoever acts could do all of this everywhere in the tenant.
async fn may_write(view: &View, stamp: &Stamp, tables: &Tables, acts: &[String]) -> Result<(), Fault> {
    let power = Power { rights: acts.iter().cloned().collect(), tier: None };
    rights::hand_on(&rights::maker(view, stamp).await?, &tables(), &Scope::Tenant, &power)
}

fn fact(stamp: &Stamp, kind: &'static str, doc: &RoleDoc) -> kernel::Fact {
    let digest = hex::encode(&sha256(doc.acts.join("\n").as_bytes()));
    let told = json!({"version": doc.version, "patterns": doc.patterns, "acts": doc.acts.len(), "acts_digest": digest});
    stamp.fact(kind, &doc.id, (RoleDoc::KIND, &doc.id), told)
}

/// The verbs.
pub fn verbs(tables: &Tables) -> Vec<Verb> {
    let (creating, setting, retiring) = (tables.clone(), tables.clone(), tables.clone());
    vec![
        Verb {
            act: "access.role.create",
            summary: "Creates a role of the tenant's own",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.role", "access.tally"],
            facts: &["access.role.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    let id = name::new("rol", &args.name)?;
                    let mut target = Target::of("access.tenant", ctx.tenant.id());
                    target.attributes = json!({"role": id, "acts": args.acts});
                    target.preview = vec![
                        ("New role".into(), name::of(&id).to_owned()),
                        ("Permits".into(), args.acts.join(", ")),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = creating.clone();
                async move {
                    let args: Create = parse(args)?;
                    description_check(&args.description)?;
                    let acts = expand(&args.acts, &tables())?;
                    may_write(view, stamp, &tables, &acts).await?;
                    let doc = RoleDoc {
                        id: name::new("rol", &args.name)?,
                        description: args.description,
                        patterns: args.acts,
                        acts,
                        version: 1,
                        created_at_ms: stamp.at_ms,
                        set_at_ms: stamp.at_ms,
                        set_by: stamp.ctx.principal.id.clone(),
                        retired_at_ms: None,
                    };
                    // People read a role's name and not where it came from.
                    let built_in = rights::role_kind(name::of(&doc.id)).is_some();
                    if built_in || view.get::<RoleDoc>(&doc.id).await?.is_some() {
                        return Err(Fault::conflict("access.name_taken", "a role of this name exists"));
                    }
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    tally::one_more(view, &mut plan, "roles", ROLES_MAX).await?;
                    plan.draft.put_new(&doc).fact(fact(stamp, "access.role.created", &doc));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.role.set",
            summary: "Sets what a role of the tenant's own permits: its next version",
            args: || schemars::schema_for!(Set).into(),
            writes: &["access.role"],
            facts: &["access.role.set"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Set = parse(args)?;
                    let doc = find(view, &args.role).await?;
                    let mut target = Target::of(RoleDoc::KIND, &doc.id);
                    target.attributes = json!({"role": doc.id, "acts": args.acts, "had": doc.patterns});
                    target.preview = vec![
                        ("Role".into(), name::of(&doc.id).to_owned()),
                        ("Permits now".into(), doc.patterns.join(", ")),
                        ("Permits then".into(), args.acts.join(", ")),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = setting.clone();
                async move {
                    let args: Set = parse(args)?;
                    let stored = find(view, &args.role).await?;
                    if stored.retired_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the role is retired"));
                    }
                    let acts = expand(&args.acts, &tables())?;
                    // What it permitted before is taken from people, and that is for somebody who could have given it.
                    may_write(view, stamp, &tables, &stored.acts).await?;
                    may_write(view, stamp, &tables, &acts).await?;
                    let description = args.description.unwrap_or_else(|| stored.description.clone());
                    description_check(&description)?;
                    let doc = RoleDoc {
                        description,
                        patterns: args.acts,
                        acts,
                        version: stored.version.saturating_add(1),
                        set_at_ms: stamp.at_ms,
                        set_by: stamp.ctx.principal.id.clone(),
                        ..stored.doc.clone()
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    plan.draft.put_if(&stored, &doc).fact(fact(stamp, "access.role.set", &doc));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.role.retire",
            summary: "Retires a role of the tenant's own: it permits nothing any more",
            args: || schemars::schema_for!(Retire).into(),
            writes: &["access.role"],
            facts: &["access.role.retired"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Retire = parse(args)?;
                    let doc = find(view, &args.role).await?;
                    let mut target = Target::of(RoleDoc::KIND, &doc.id);
                    target.preview = vec![
                        ("Retire role".into(), name::of(&doc.id).to_owned()),
                        ("Permits now".into(), doc.patterns.join(", ")),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = retiring.clone();
                async move {
                    let args: Retire = parse(args)?;
                    let stored = find(view, &args.role).await?;
                    if stored.retired_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the role is retired already"));
                    }
                    may_write(view, stamp, &tables, &stored.acts).await?;
                    let doc = RoleDoc { retired_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    plan.draft.put_if(&stored, &doc).fact(fact(stamp, "access.role.retired", &doc));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(doc: &RoleDoc) -> Value {
    json!({
        "id": doc.id, "name": name::of(&doc.id), "kind": "own", "description": doc.description, "patterns": doc.patterns,
        "acts": doc.acts, "version": doc.version, "created_at_ms": doc.created_at_ms, "set_at_ms": doc.set_at_ms,
        "set_by": doc.set_by, "retired_at_ms": doc.retired_at_ms,
    })
}

/// A built-in role, in the same form.
fn built_in(table: &Table, name: &str, description: &str) -> Value {
    let power = table.power(name);
    json!({
        "id": name, "name": name, "kind": "built-in", "description": description, "acts": power.rights,
        "approver_tier": power.tier,
    })
}

/// The routes.
pub fn routes(tables: &Tables) -> Vec<Route> {
    let (lists, shows) = (tables.clone(), tables.clone());
    vec![
        Route::post("/v1/roles", "role_create", "Create a role of the tenant's own", "access.role.create"),
        Route::get(
            "/v1/roles",
            "role_list",
            "List roles: the built-in ones, then the tenant's own",
            READ,
            move |query| {
                let table = lists();
                async move {
                    // A list says how many acts; `writ role show` says which.
                    let counted = |mut role: Value| {
                        role["acts"] = json!(role["acts"].as_array().map_or(0, Vec::len));
                        role
                    };
                    let own = |role: &RoleDoc| counted(shown(role));
                    let mut page = page::list(&query, "name", Vec::new(), false, own).await?;
                    if let (None, Some(items)) = (query.param("after"), page["items"].as_array_mut()) {
                        let shipped = crate::reads::ROLES.iter();
                        let shipped = shipped.map(|(name, _, what)| counted(built_in(&table, name, what)));
                        items.splice(0..0, shipped);
                    }
                    Ok(page)
                }
                .boxed()
            },
        )
        .taking(&[page::AFTER, Param { name: "limit", summary: "Roles of the tenant's own, at most 200" }]),
        Route::get(
            "/v1/roles/{role}",
            "role_show",
            "Show a role with all that it permits",
            READ,
            move |query| {
                let table = shows();
                async move {
                    let text = query.param("role").unwrap_or_default();
                    if let Some((name, _, what)) =
                        crate::reads::ROLES.iter().find(|(name, _, _)| *name == text)
                    {
                        return Ok(built_in(&table, name, what));
                    }
                    Ok(shown(&*find(query.view, text).await?))
                }
                .boxed()
            },
        ),
        Route::put(
            "/v1/roles/{role}",
            "role_set",
            "Set what a role of the tenant's own permits",
            "access.role.set",
        ),
        Route::post(
            "/v1/roles/{role}/retire",
            "role_retire",
            "Retire a role of the tenant's own",
            "access.role.retire",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_a_role_may_say() {
        let acts = |acts: &[&str]| acts.iter().map(|act| (*act).to_owned()).collect::<BTreeSet<_>>();
        let table = Table {
            acts: BTreeMap::from([
                (
                    "platform_admin".to_owned(),
                    acts(&["access.tenant.create", "flows.run.start", "flows.run.crash"]),
                ),
                ("operator".to_owned(), acts(&["flows.run.start", "flows.run.cancel"])),
                ("service".to_owned(), acts(&["billing.usage.record"])),
            ]),
            tiers: BTreeMap::new(),
        };
        let unknown = |text: &str| Err(RoleError::ActUnknown(text.to_owned()));
        let platform = |text: &str| Err(RoleError::Platform(text.to_owned()));
        let ok = |acts: &[&str]| Ok(acts.iter().map(|act| (*act).to_owned()).collect::<Vec<_>>());
        for (patterns, expected) in [
            (&["flows.run.start"][..], ok(&["flows.run.start"])),
            (&["flows.run.start", "flows.run.start"], ok(&["flows.run.start"])),
            // `flows.run.crash` is nobody's in a tenant.
            (&["flows.run.*"], ok(&["flows.run.cancel", "flows.run.read", "flows.run.start"])),
            (&["flows.workflow.read"], ok(&["flows.workflow.read"])),
            (&["flows.run.crash"], platform("flows.run.crash")),
            (&["access.tenant.create"], platform("access.tenant.create")),
            (&["billing.usage.record"], platform("billing.usage.record")),
            (&["flows.run.fly"], unknown("flows.run.fly")),
            (&["flows.run.start", "flows.rum.*"], unknown("flows.rum.*")),
            (&["flows.*"], unknown("flows.*")),
            (&["*"], unknown("*")),
            (&["*.*.*"], unknown("*.*.*")),
            (&[""], unknown("")),
            (&["flows.run.start "], unknown("flows.run.start ")),
            (&[], Err(RoleError::Number)),
        ] {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            assert_eq!(expand(&patterns, &table), expected, "{patterns:?}");
        }
        let many = vec!["flows.run.start".to_owned(); PATTERNS_MAX + 1];
        assert_eq!(expand(&many, &table), Err(RoleError::Number));
    }
}
