//! Rights: what somebody may, where, worked out in one place.
//!
//! There are two questions. *May they do this here?* is policy's; what it needs to know, the roles that hold for the very
//! thing the act is about, comes from [`roles_at`] and [`permitting`]. *May they give this to somebody?* is answered here
//! and whatever policy says ([`hand_on`]): nobody gives, takes, lends by a key or writes into a role what they could not do
//! themselves, in the place where it would hold. Without that rule everybody who may create a key is an administrator.
//!
//! What a built-in role permits stands once, in the data of the platform's signed bundle; [`Tables`] is a look at it. What
//! it may read is a table of code ([`READS`]). What a tenant's own role permits is a record ([`crate::role`]).

use crate::binding::Scope;
use crate::principal::PrincipalDoc;
use crate::reads::{PERMISSIONS, PROJECT_READS, READS, ROLES};
use crate::role::RoleDoc;
use act::{Class, Fault, KeyLimits, Principal, Rights, Stamp};
use kernel::{Id, TenantId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Document as _, ReadError, Store, View};

/// What sort of role a built-in one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleKind {
    /// Of those who run the installation.
    Platform,
    /// Of a tenant's people and systems.
    Tenant,
    /// Of parts of this installation; nobody else has it.
    Internal,
}

/// The sort of a built-in role; `None`: there is no such role.
pub fn role_kind(role: &str) -> Option<RoleKind> {
    ROLES.iter().find(|(name, _, _)| *name == role).map(|(_, kind, _)| *kind)
}

/// What the platform's policy in force says about built-in roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Acts by role.
    pub acts: BTreeMap<String, BTreeSet<String>>,
    /// Tiers of approval by role.
    pub tiers: BTreeMap<String, u8>,
}

/// A look at the [`Table`] as it is now.
pub type Tables = Arc<dyn Fn() -> Arc<Table> + Send + Sync>;

/// What can be given: acts and reads, and a tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Power {
    /// Acts and reads.
    pub rights: BTreeSet<String>,
    /// Up to which tier its holder approves.
    pub tier: Option<u8>,
}

impl Power {
    fn add(&mut self, other: Power) {
        self.rights.extend(other.rights);
        self.tier = self.tier.max(other.tier);
    }

    /// What of `wanted` is not in it: the first right, or the tier.
    fn lacks(&self, wanted: &Power) -> Option<String> {
        let right = wanted.rights.iter().find(|right| !self.rights.contains(*right)).cloned();
        right.or_else(|| (wanted.tier > self.tier).then(|| "approver_tier".to_owned()))
    }

    /// The same within what a key is limited to.
    pub fn within(mut self, limits: &KeyLimits) -> Power {
        if let Some(patterns) = &limits.acts {
            self.rights.retain(|right| any_covers(patterns, right));
            if !any_covers(patterns, "governor.approval.grant") {
                self.tier = None;
            }
        }
        self
    }
}

impl Table {
    /// What a built-in role permits.
    pub fn power(&self, role: &str) -> Power {
        let mut rights = self.acts.get(role).cloned().unwrap_or_default();
        rights
            .extend(PERMISSIONS.iter().filter(|read| role_reads(role, read)).map(|read| (*read).to_owned()));
        Power { rights, tier: self.tiers.get(role).copied() }
    }

    /// Every act that some role permits, and every read.
    pub fn known(&self) -> BTreeSet<&str> {
        self.acts.values().flatten().map(String::as_str).chain(PERMISSIONS.iter().copied()).collect()
    }

    /// What a tenant's people can have at all: the most that a tenant's own role permits.
    pub fn of_tenants(&self) -> BTreeSet<String> {
        let tenants = ROLES.iter().filter(|(_, kind, _)| *kind == RoleKind::Tenant);
        tenants.flat_map(|(role, _, _)| self.power(role).rights).collect()
    }
}

fn role_reads(role: &str, permission: &str) -> bool {
    READS
        .iter()
        .filter(|(name, _)| *name == role)
        .any(|(_, prefixes)| prefixes.iter().any(|prefix| permission.starts_with(prefix)))
}

/// Whether a pattern, an exact right or `<domain>.<noun>.*`, covers this right.
pub fn covers(pattern: &str, right: &str) -> bool {
    match pattern.strip_suffix('*') {
        None => pattern == right,
        Some(stem) => right.strip_prefix(stem).is_some_and(|verb| !verb.is_empty() && !verb.contains('.')),
    }
}

fn any_covers(patterns: &[String], right: &str) -> bool {
    patterns.iter().any(|pattern| covers(pattern, right))
}

/// Whether a text is a pattern: three words of lower-case letters and underscores, the last of which may be `*`.
pub fn is_pattern(text: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let words: Vec<&str> = text.split('.').collect();
    match words[..] {
        [domain, noun, verb] => word(domain) && word(noun) && (word(verb) || verb == "*"),
        _ => false,
    }
}

/// The roles of a principal that hold for a thing in this project, or in none: sorted, each once.
pub fn roles_at(principal: &Principal, project: Option<&Id>) -> Vec<String> {
    let mut roles = principal.roles.clone();
    let there = principal.rights.projects.iter().filter(|(at, _)| Some(at) == project);
    roles.extend(there.map(|(_, role)| role.clone()));
    roles.sort();
    roles.dedup();
    roles
}

/// Those of the tenant's own roles that hold there and permit this act or read.
pub fn permitting(principal: &Principal, project: Option<&Id>, right: &str) -> Vec<String> {
    let own = &principal.rights.own_roles;
    let permits = |role: &String| own.get(role).is_some_and(|acts| acts.iter().any(|act| act == right));
    roles_at(principal, project).into_iter().filter(permits).collect()
}

/// Whether the key in use is good for this act or read, there.
pub fn key_covers(limits: &KeyLimits, project: Option<&Id>, right: &str) -> bool {
    limits.acts.as_ref().is_none_or(|patterns| any_covers(patterns, right))
        && limits.project.as_ref().is_none_or(|only| Some(only) == project)
}

/// What somebody may read under a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Everything in the tenant.
    All,
    /// What stands in these projects.
    Projects(BTreeSet<Id>),
    /// Nothing.
    None,
}

impl Reach {
    /// Whether a thing in this project, or in none, is within it.
    pub fn covers(&self, project: Option<&Id>) -> bool {
        match self {
            Reach::All => true,
            Reach::Projects(projects) => project.is_some_and(|project| projects.contains(project)),
            Reach::None => false,
        }
    }

    /// For lists: refuses whoever asks for more than a project that they may read.
    ///
    /// # Errors
    /// `access.read_denied`.
    pub fn check(&self, project: Option<&Id>) -> Result<(), Fault> {
        if self.covers(project) {
            return Ok(());
        }
        let message = "your roles hold in projects only; name one of them with `project`";
        Err(Fault::new(Class::Denied, "access.read_denied", message))
    }
}

/// What a principal may read under `permission`. Unknown roles and permissions read nothing.
pub fn reach(principal: &Principal, permission: &str) -> Reach {
    let limits = &principal.rights.key;
    if permission.is_empty() || limits.acts.as_ref().is_some_and(|patterns| !any_covers(patterns, permission))
    {
        return Reach::None;
    }
    let own = &principal.rights.own_roles;
    let reads = |role: &String| {
        role_reads(role, permission)
            || own.get(role).is_some_and(|acts| acts.iter().any(|act| act == permission))
    };
    let everywhere = principal.roles.iter().any(reads);
    let projects: BTreeSet<Id> = match &limits.project {
        Some(only) if everywhere => BTreeSet::from([only.clone()]),
        only => {
            let there = principal.rights.projects.iter().filter(|(_, role)| reads(role));
            let there = there.map(|(project, _)| project);
            there.filter(|project| only.as_ref().is_none_or(|only| only == *project)).cloned().collect()
        }
    };
    if everywhere && limits.project.is_none() {
        Reach::All
    } else if projects.is_empty() || !PROJECT_READS.contains(&permission) {
        Reach::None
    } else {
        Reach::Projects(projects)
    }
}

/// What somebody could do at a scope: the most that they can give there.
pub fn power_at(principal: &Principal, table: &Table, scope: &Scope) -> Power {
    let limits = &principal.rights.key;
    if limits.project.is_some() && limits.project.as_ref() != scope.project() {
        return Power::default();
    }
    let roles = match scope {
        Scope::Platform => principal.rights.platform.clone(),
        Scope::Tenant => principal.roles.clone(),
        Scope::Project(project) => roles_at(principal, Some(project)),
    };
    let mut power = Power::default();
    for role in &roles {
        power.add(match principal.rights.own_roles.get(role) {
            Some(acts) => Power { rights: acts.iter().cloned().collect(), tier: None },
            None => table.power(role),
        });
    }
    power.within(limits)
}

/// Whether `maker` may give or take `power` at `scope`.
///
/// # Errors
/// `access.escalation`, with what is missing.
pub fn hand_on(maker: &Principal, table: &Table, scope: &Scope, power: &Power) -> Result<(), Fault> {
    match power_at(maker, table, scope).lacks(power) {
        None => Ok(()),
        Some(missing) => Err(escalation(&missing, scope)),
    }
}

/// The refusal of what goes beyond one's own rights.
pub(crate) fn escalation(missing: &str, scope: &Scope) -> Fault {
    Fault::new(
        Class::Denied,
        "access.escalation",
        "nobody gives or takes more than they may do there themselves",
    )
    .with(json!({"missing": missing, "scope": scope.shown()}))
}

/// Whether `maker` may have a key of `owner`, or take one away: nobody acts as somebody who may do more.
///
/// # Errors
/// `access.escalation`.
pub fn act_as(maker: &Principal, table: &Table, owner: &Principal, limits: &KeyLimits) -> Result<(), Fault> {
    let whole = Principal { rights: Rights { key: limits.clone(), ..owner.rights.clone() }, ..owner.clone() };
    let mut scopes = BTreeSet::from([Scope::Tenant]);
    if !owner.rights.platform.is_empty() {
        scopes.insert(Scope::Platform);
    }
    scopes.extend(owner.rights.projects.iter().map(|(project, _)| Scope::Project(project.clone())));
    scopes.extend(limits.project.iter().cloned().map(Scope::Project));
    for scope in scopes {
        hand_on(maker, table, &scope, &power_at(&whole, table, &scope))?;
    }
    Ok(())
}

/// What a role permits: a built-in one by the table, an own one by its record. `None`: there is none, or it is retired.
pub async fn power_of_role(view: &View, table: &Table, role: &str) -> Result<Option<Power>, Fault> {
    if role_kind(role).is_some() {
        return Ok(Some(table.power(role)));
    }
    let Ok(id) = Id::parse(role) else { return Ok(None) };
    let doc = view.get::<RoleDoc>(&id).await?.filter(|doc| doc.retired_at_ms.is_none());
    Ok(doc.map(|doc| Power { rights: doc.acts.iter().cloned().collect(), tier: None }))
}

/// The own roles that a principal's bindings name.
fn own_roles_of(doc: &PrincipalDoc) -> BTreeSet<Id> {
    let own = doc.bindings.iter().filter(|binding| role_kind(&binding.role).is_none());
    own.filter_map(|binding| Id::parse(&binding.role).ok()).collect()
}

/// A principal as it stands in `tenant` at `now_ms`, from its record and the own roles that it is bound to.
fn resolved(
    doc: &PrincipalDoc,
    home: &TenantId,
    tenant: &TenantId,
    own: BTreeMap<String, Vec<String>>,
    key: KeyLimits,
    now_ms: i64,
) -> Principal {
    let known = |role: &str| role_kind(role).is_some() || own.contains_key(role);
    let holding: Vec<_> = doc
        .bindings
        .iter()
        .filter(|binding| doc.suspended_at_ms.is_none() && binding.holds(now_ms) && known(&binding.role))
        .collect();
    let names = |wanted: &dyn Fn(&Scope) -> bool| -> BTreeSet<String> {
        holding.iter().filter(|binding| wanted(&binding.scope)).map(|binding| binding.role.clone()).collect()
    };
    let mut platform = BTreeSet::new();
    if *home == TenantId::platform() {
        platform = names(&|scope| *scope == Scope::Platform);
    }
    let (mut roles, mut projects) = (platform.clone(), Vec::new());
    if home == tenant {
        roles.extend(names(&|scope| *scope == Scope::Tenant));
        let there = holding
            .iter()
            .filter_map(|binding| Some((binding.scope.project()?.clone(), binding.role.clone())));
        projects = there.collect();
        projects.sort();
        projects.dedup();
    }
    Principal {
        id: doc.id.clone(),
        kind: doc.kind,
        roles: roles.into_iter().collect(),
        home: home.clone(),
        rights: Rights { platform: platform.into_iter().collect(), projects, own_roles: own, key },
    }
}

/// A principal as it stands now, for whoever identifies somebody or acts for them later.
///
/// # Errors
/// Storage that cannot be read.
pub async fn resolve(
    store: &Store,
    home: &TenantId,
    tenant: &TenantId,
    doc: &PrincipalDoc,
    key: KeyLimits,
    now_ms: i64,
) -> Result<Principal, ReadError> {
    let mut own = BTreeMap::new();
    // An own role holds in its tenant alone.
    if home == tenant {
        for id in own_roles_of(doc) {
            let row = store.record(tenant, RoleDoc::KIND, &id).await?;
            let role = row.map(|row| store::decode::<RoleDoc>(&row)).transpose()?;
            if let Some(role) = role.filter(|role| role.retired_at_ms.is_none()) {
                own.insert(id.to_string(), role.doc.acts);
            }
        }
    }
    Ok(resolved(doc, home, tenant, own, key, now_ms))
}

/// The same within an act: the commit depends on what was read.
///
/// # Errors
/// Storage that cannot be read.
pub async fn resolve_in(view: &View, doc: &PrincipalDoc, key: KeyLimits) -> Result<Principal, Fault> {
    let mut own = BTreeMap::new();
    for id in own_roles_of(doc) {
        if let Some(role) = view.get::<RoleDoc>(&id).await?.filter(|role| role.retired_at_ms.is_none()) {
            own.insert(id.to_string(), role.doc.acts);
        }
    }
    Ok(resolved(doc, view.tenant(), view.tenant(), own, key, view.at_ms()))
}

/// Whoever acts, with the rights that they have in the very commit that hands them on: an administrator who is being
/// removed at this moment gives nothing any more. Services, and the platform's people in another tenant, have no record
/// there; they are as they were identified.
///
/// # Errors
/// Storage that cannot be read.
pub async fn maker(view: &View, stamp: &Stamp) -> Result<Principal, Fault> {
    let asked = &stamp.ctx.principal;
    let internal = |role: &String| role_kind(role) == Some(RoleKind::Internal);
    if asked.home != *view.tenant() || asked.roles.iter().any(internal) {
        return Ok(asked.clone());
    }
    match view.get::<PrincipalDoc>(&asked.id).await? {
        Some(doc) => resolve_in(view, &doc, asked.rights.key.clone()).await,
        None => Ok(asked.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::PrincipalKind;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    #[test]
    fn what_a_pattern_covers() {
        for (pattern, right, covered) in [
            ("flows.run.start", "flows.run.start", true),
            ("flows.run.start", "flows.run.stop", false),
            ("flows.run.*", "flows.run.start", true),
            ("flows.run.*", "flows.run.read", true),
            ("flows.run.*", "flows.runner.start", false),
            ("flows.run.*", "flows.run.", false),
            ("flows.run.*", "flows.run.a.b", false),
            ("flows.*", "flows.run.start", false),
            ("*", "flows.run.start", false),
        ] {
            assert_eq!(covers(pattern, right), covered, "{pattern} {right}");
        }
        for (text, pattern) in [
            ("flows.run.start", true),
            ("flows.run.*", true),
            ("billing.budget_index.set", true),
            ("flows.*.start", false),
            ("flows.*", false),
            ("*", false),
            ("*.*.*", false),
            ("flows.run", false),
            ("flows.run.start.now", false),
            ("flows.run.st*", false),
            ("Flows.run.start", false),
            ("flows..start", false),
            ("", false),
        ] {
            assert_eq!(is_pattern(text), pattern, "{text}");
        }
    }

    fn somebody(roles: &[&str], projects: &[(&str, &str)], key: KeyLimits) -> Principal {
        Principal {
            id: id("prn_a"),
            kind: PrincipalKind::Person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            home: TenantId::parse("ten_acme").unwrap(),
            rights: Rights {
                platform: Vec::new(),
                projects: projects.iter().map(|(project, role)| (id(project), (*role).to_owned())).collect(),
                own_roles: BTreeMap::from([(
                    "rol_starter".to_owned(),
                    vec!["flows.run.read".to_owned(), "flows.run.start".to_owned()],
                )]),
                key,
            },
        }
    }

    #[test]
    fn who_reads_what() {
        let all = KeyLimits::default();
        let only = |acts: Option<&[&str]>, project: Option<&str>| KeyLimits {
            acts: acts.map(|acts| acts.iter().map(|act| (*act).to_owned()).collect()),
            project: project.map(id),
        };
        let some = |projects: &[&str]| Reach::Projects(projects.iter().map(|project| id(project)).collect());
        for (what, roles, projects, key, permission, reach_) in [
            ("a reader", &["auditor"][..], &[][..], all.clone(), "access.key.read", Reach::All),
            ("nobody", &[], &[], all.clone(), "flows.run.read", Reach::None),
            ("an unknown role", &["root"], &[], all.clone(), "flows.run.read", Reach::None),
            ("no permission", &["auditor"], &[], all.clone(), "", Reach::None),
            ("in a project", &[], &[("prj_a", "operator")], all.clone(), "flows.run.read", some(&["prj_a"])),
            (
                "in two",
                &[],
                &[("prj_a", "operator"), ("prj_b", "rol_starter"), ("prj_c", "integration")],
                all.clone(),
                "flows.run.read",
                some(&["prj_a", "prj_b"]),
            ),
            (
                "what has no project",
                &[],
                &[("prj_a", "auditor")],
                all.clone(),
                "custody.secret.read",
                Reach::None,
            ),
            ("both", &["auditor"], &[("prj_a", "operator")], all.clone(), "flows.run.read", Reach::All),
            ("an own role", &["rol_starter"], &[], all.clone(), "flows.run.read", Reach::All),
            ("an own role's limits", &["rol_starter"], &[], all, "flows.workflow.read", Reach::None),
            (
                "a key for other acts",
                &["auditor"],
                &[],
                only(Some(&["flows.run.start"]), None),
                "flows.run.read",
                Reach::None,
            ),
            (
                "a key for it",
                &["auditor"],
                &[],
                only(Some(&["flows.run.*"]), None),
                "flows.run.read",
                Reach::All,
            ),
            (
                "a key of a project",
                &["auditor"],
                &[],
                only(None, Some("prj_b")),
                "flows.run.read",
                some(&["prj_b"]),
            ),
            (
                "and nothing outside it",
                &["auditor"],
                &[],
                only(None, Some("prj_b")),
                "access.key.read",
                Reach::None,
            ),
            (
                "a key of another project",
                &[],
                &[("prj_a", "operator")],
                only(None, Some("prj_b")),
                "flows.run.read",
                Reach::None,
            ),
        ] {
            assert_eq!(reach(&somebody(roles, projects, key), permission), reach_, "{what}");
        }
    }

    #[test]
    fn what_is_given_is_what_one_has_there() {
        let table = Table {
            acts: BTreeMap::from([
                ("tenant_admin".to_owned(), BTreeSet::from(["a.b.c".to_owned(), "a.b.d".to_owned()])),
                ("approver".to_owned(), BTreeSet::from(["a.b.c".to_owned()])),
            ]),
            tiers: BTreeMap::from([("tenant_admin".to_owned(), 2), ("approver".to_owned(), 1)]),
        };
        let here = |project: &str| Scope::Project(id(project));
        let act = |act: &str| Power { rights: BTreeSet::from([act.to_owned()]), tier: None };
        let none = KeyLimits::default;
        let key = |act: &str| KeyLimits { acts: Some(vec![act.to_owned()]), project: None };
        for (what, maker, scope, power, may) in [
            (
                "all of one's own",
                somebody(&["tenant_admin"], &[], none()),
                Scope::Tenant,
                table.power("tenant_admin"),
                true,
            ),
            ("less", somebody(&["tenant_admin"], &[], none()), Scope::Tenant, table.power("approver"), true),
            ("more", somebody(&["approver"], &[], none()), Scope::Tenant, act("a.b.d"), false),
            ("nothing is anybody's", somebody(&[], &[], none()), Scope::Tenant, Power::default(), true),
            (
                "a tier that an own role does not give",
                somebody(&["rol_starter"], &[], none()),
                Scope::Tenant,
                Power { rights: BTreeSet::new(), tier: Some(1) },
                false,
            ),
            (
                "at a project, from the tenant",
                somebody(&["tenant_admin"], &[], none()),
                here("prj_a"),
                act("a.b.d"),
                true,
            ),
            (
                "at one's project",
                somebody(&[], &[("prj_a", "tenant_admin")], none()),
                here("prj_a"),
                act("a.b.d"),
                true,
            ),
            (
                "at another",
                somebody(&[], &[("prj_a", "tenant_admin")], none()),
                here("prj_b"),
                act("a.b.d"),
                false,
            ),
            (
                "at the tenant, from a project",
                somebody(&[], &[("prj_a", "tenant_admin")], none()),
                Scope::Tenant,
                act("a.b.d"),
                false,
            ),
            (
                "at the platform, from a tenant",
                somebody(&["tenant_admin"], &[], none()),
                Scope::Platform,
                act("a.b.c"),
                false,
            ),
            (
                "with a key for it",
                somebody(&["tenant_admin"], &[], key("a.b.*")),
                Scope::Tenant,
                act("a.b.d"),
                true,
            ),
            (
                "with a key for less",
                somebody(&["tenant_admin"], &[], key("a.b.c")),
                Scope::Tenant,
                act("a.b.d"),
                false,
            ),
            (
                "a tier by such a key",
                somebody(&["tenant_admin"], &[], key("a.b.*")),
                Scope::Tenant,
                Power { rights: BTreeSet::new(), tier: Some(1) },
                false,
            ),
            (
                "with a key of a project, in the tenant",
                somebody(&["tenant_admin"], &[], KeyLimits { acts: None, project: Some(id("prj_a")) }),
                Scope::Tenant,
                act("a.b.d"),
                false,
            ),
            (
                "with a key of a project, there",
                somebody(&["tenant_admin"], &[], KeyLimits { acts: None, project: Some(id("prj_a")) }),
                here("prj_a"),
                act("a.b.d"),
                true,
            ),
        ] {
            assert_eq!(hand_on(&maker, &table, &scope, &power).is_ok(), may, "{what}");
        }
    }
}
