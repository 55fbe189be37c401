//! API keys: `key_<id>.<secret>`.
//!
//! A key has an assurance level. Level 0 is the ordinary bearer secret that lies in a file for months. Level 1 is for acts
//! that change the rules or the secrets themselves, and nobody has it by lying around: it is given by somebody who has it,
//! to a person, for hours. So what a tenant's administrator needs on the day they store a credential is made for that day,
//! and a key that was found a week later opens nothing of the kind ([`grant_check`]; docs/decisions/0010).
//!
//! Whoever makes a key can act as the one whose key it is: with their roles, and past the rule that nobody approves what
//! they asked for themselves. So a key for somebody else takes level 1, for which the platform's policy asks by the
//! attribute `own`; nobody makes a key of somebody who may do more than they ([`crate::rights::act_as`]); and nobody
//! without a role of the platform revokes a key of somebody who has one.
//!
//! A key may be good for less than its owner: for some acts and reads, for one project, until a time. What it is limited
//! to goes with whoever uses it, also into keys that are made with it, and holds whatever policy says.
//!
//! | module | what it holds |
//! |---|---|
//! | `rotate` | a new secret for a key, while the old one goes on for a while |
//! | [`seen`] | when a key was last used, to the hour |

pub mod rotate;
pub mod seen;

use crate::binding::Scope;
use crate::principal::{PrincipalDoc, named};
use crate::rights::{self, Tables, is_pattern};
use crate::{guard, project};
use act::{
    Assurance, Class, Coded, Draw as _, Fault, KeyLimits, Plan, Principal, PrincipalKind, Route, Target,
    Verb, page, parse,
};
use futures::FutureExt as _;
use kernel::{Id, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

/// The highest assurance level of a key.
pub const LEVEL_MAX: u8 = 1;
/// Longest life of a key of level 1 that was made by another key: 12 hours, in milliseconds.
pub const ASSURED_MS_MAX: i64 = 12 * 60 * 60 * 1000;
/// Most acts and patterns that a key is limited to.
pub const ACTS_MAX: usize = 32;

/// Why a key is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such level.
    #[error("assurance is 0 or {LEVEL_MAX}")]
    Level,
    /// It would have ended before it began.
    #[error("expires_at_ms is not in the future")]
    Past,
    /// A key of level 1 without an end, or with a late one.
    #[error("a key of assurance level 1 has an end at most 12 hours away, in expires_at_ms")]
    Lifetime,
    /// Not a person's.
    #[error("only a person's key has assurance level 1")]
    NotAPerson,
    /// More than the maker has proven.
    #[error("nobody gives more assurance than they have proven themselves")]
    Level1,
    /// For longer than the maker's own.
    #[error("nobody gives assurance for longer than their own lasts")]
    Outlives,
}

impl Coded for KeyError {
    fn code(&self) -> &'static str {
        match self {
            KeyError::Level | KeyError::Past | KeyError::Lifetime => "request.invalid",
            KeyError::NotAPerson | KeyError::Level1 | KeyError::Outlives => "access.assurance_exceeded",
        }
    }
    fn class(&self) -> Class {
        match self {
            KeyError::Level | KeyError::Past | KeyError::Lifetime => Class::Invalid,
            KeyError::NotAPerson | KeyError::Level1 | KeyError::Outlives => Class::Denied,
        }
    }
}

/// Who may give what: a key of `level` until `expires_at_ms`, for a principal of `kind`, made at `now_ms` by somebody who
/// has proven `own`. Holds whatever policy says; policy may ask for more.
///
/// # Errors
/// The rule that is broken.
pub fn grant_check(
    level: u8,
    expires_at_ms: Option<i64>,
    kind: PrincipalKind,
    own: &Assurance,
    now_ms: i64,
) -> Result<(), KeyError> {
    if level > LEVEL_MAX {
        return Err(KeyError::Level);
    }
    if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return Err(KeyError::Past);
    }
    if level == 0 {
        return Ok(());
    }
    if level > own.level {
        return Err(KeyError::Level1);
    }
    if kind != PrincipalKind::Person {
        return Err(KeyError::NotAPerson);
    }
    let end_ms = expires_at_ms.filter(|at_ms| at_ms.saturating_sub(now_ms) <= ASSURED_MS_MAX);
    let end_ms = end_ms.ok_or(KeyError::Lifetime)?;
    if own.until_ms.is_some_and(|until_ms| end_ms > until_ms) {
        return Err(KeyError::Outlives);
    }
    Ok(())
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyDoc {
    /// `key_…`, the part before the dot.
    pub id: Id,
    /// Whose.
    pub principal: Id,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret's text, in hexadecimal.
    pub secret_sha256: String,
    /// Strength of the proof: 1 for the administrator's key made on the installation's own machine, and for keys that
    /// [`grant_check`] let through.
    pub level: u8,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// From when on it is refused.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
    /// What it is limited to.
    #[serde(default)]
    pub limits: KeyLimits,
    /// The secret before the present one, as long as it is still good.
    #[serde(default)]
    pub before: Option<Before>,
    /// When it was given its present secret, if not at its creation.
    #[serde(default)]
    pub rotated_at_ms: Option<i64>,
}

/// The secret that a rotation has replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// SHA-256 of its text, in hexadecimal.
    pub secret_sha256: String,
    /// From when on it is refused, milliseconds UTC.
    pub until_ms: i64,
}

impl Document for KeyDoc {
    const KIND: &'static str = "access.key";
    const VERSION: u32 = 2;
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("principal", Key::new().text(self.principal.as_str()).integer(self.created_at_ms).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("id", Key::new().text(self.id.as_str()).bytes())]
    }
    /// Version 1 knew neither limits nor rotation: a key was good for all that its owner may, with one secret.
    fn upcast(version: u32, doc: Value) -> Option<Value> {
        (version == 1).then_some(doc)
    }
}

/// Arguments of `access.key.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Whose key it shall be.
    pub principal: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the secret's text in lower-case hexadecimal. The secret itself stays with whoever made it.
    pub secret_sha256: String,
    /// From when on it is refused, milliseconds UTC.
    pub expires_at_ms: Option<i64>,
    /// Assurance level: 0 (the default), or 1 for acts that change rules or secrets. 1 is given by somebody who has it, to
    /// a person, for at most 12 hours.
    pub assurance: Option<u8>,
    /// The only acts and reads it is good for, of those that its owner may: exact, or as <domain>.<noun>.*. All, if absent.
    pub acts: Option<Vec<String>>,
    /// The only project it is good in. Everywhere, if absent.
    pub project: Option<String>,
}

/// Arguments of `access.key.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The key's id.
    pub key: String,
}

/// Whose key it is. Principals are never removed, so somebody is always there.
async fn owner_of(view: &View, key: &KeyDoc) -> Result<PrincipalDoc, Fault> {
    let owner = view.get::<PrincipalDoc>(&key.principal).await?;
    Ok(owner.ok_or_else(|| Fault::not_found("principal"))?.doc)
}

/// Reads the key that `text` names.
async fn find(view: &View, text: &str) -> Result<Stored<KeyDoc>, Fault> {
    let missing = || Fault::not_found("key");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<KeyDoc>(&id).await?.ok_or_else(missing)
}

fn secret_check(secret_sha256: &str) -> Result<(), Fault> {
    match hex::decode32(secret_sha256) {
        Some(_) => Ok(()),
        None => Err(Fault::invalid("request.invalid", "secret_sha256 is 64 lower-case hexadecimal digits")),
    }
}

/// What a new key is limited to.
async fn limits(view: &View, args: &Create) -> Result<KeyLimits, Fault> {
    if let Some(acts) = &args.acts {
        let message = "acts are 1 to 32 acts or reads, exact or as <domain>.<noun>.*";
        if acts.is_empty() || acts.len() > ACTS_MAX || !acts.iter().all(|act| is_pattern(act)) {
            return Err(Fault::invalid("request.invalid", message));
        }
    }
    let project = match &args.project {
        Some(project) => Some(project::place_live(view, project).await?.project),
        None => None,
    };
    Ok(KeyLimits { acts: args.acts.clone(), project })
}

/// Checks that each of the acts that a key is limited to is one that its owner may do: a slip of the pen is told.
fn acts_check(owner: &Principal, table: &rights::Table, limits: &KeyLimits) -> Result<(), Fault> {
    let mut power = rights::power_at(owner, table, &Scope::Tenant).rights;
    for (project, _) in &owner.rights.projects {
        power.extend(rights::power_at(owner, table, &Scope::Project(project.clone())).rights);
    }
    for pattern in limits.acts.iter().flatten() {
        if !power.iter().any(|right| rights::covers(pattern, right)) {
            let message = "the owner of the key may do nothing of one of the acts it is to be limited to";
            return Err(Fault::invalid("access.act_unknown", message));
        }
    }
    Ok(())
}

/// Whether somebody without the rights of a principal of the platform reaches for them.
fn above(maker: &Principal, table: &rights::Table, owner: &Principal) -> Result<(), Fault> {
    rights::hand_on(maker, table, &Scope::Platform, &rights::power_at(owner, table, &Scope::Platform))
}

/// The verbs.
pub fn verbs(tables: &Tables) -> Vec<Verb> {
    let (creating, revoking) = (tables.clone(), tables.clone());
    vec![
        Verb {
            act: "access.key.create",
            summary: "Registers an API key for a principal",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.key"],
            facts: &["access.key.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    let owner = named(view, &args.principal).await?;
                    let mut target = Target::of(PrincipalDoc::KIND, &owner.id);
                    let level = args.assurance.unwrap_or_default();
                    let roles: Vec<&str> =
                        owner.bindings.iter().map(|binding| binding.role.as_str()).collect();
                    target.attributes = json!({
                        "own": owner.id == ctx.principal.id, "roles": roles, "kind": owner.kind.as_str(),
                        "assurance": level, "acts": args.acts, "project": args.project,
                    });
                    target.preview = vec![
                        ("Key for".into(), owner.name.clone()),
                        ("Name".into(), args.name),
                        ("Assurance".into(), level.to_string()),
                    ];
                    if let Some(acts) = args.acts {
                        target.preview.push(("Only for".into(), acts.join(", ")));
                    }
                    if let Some(project) = args.project {
                        target.preview.push(("Only in".into(), project));
                    }
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = creating.clone();
                async move {
                    let args: Create = parse(args)?;
                    crate::principal::name_check(&args.name)?;
                    secret_check(&args.secret_sha256)?;
                    let owner = named(view, &args.principal).await?;
                    let limits = limits(view, &args).await?;
                    let whole = rights::resolve_in(view, &owner, KeyLimits::default()).await?;
                    acts_check(&whole, &tables(), &limits)?;
                    let maker = rights::maker(view, stamp).await?;
                    rights::act_as(&maker, &tables(), &whole, &limits)?;
                    let level = args.assurance.unwrap_or_default();
                    let own = &stamp.ctx.assurance;
                    grant_check(level, args.expires_at_ms, owner.kind, own, stamp.at_ms)?;
                    let doc = KeyDoc {
                        id: stamp.id("key"),
                        principal: owner.id.clone(),
                        name: args.name,
                        secret_sha256: args.secret_sha256,
                        level,
                        created_at_ms: stamp.at_ms,
                        expires_at_ms: args.expires_at_ms,
                        revoked_at_ms: None,
                        limits,
                        before: None,
                        rotated_at_ms: None,
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"key": doc.id}) };
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "access.key.created",
                        &doc.principal,
                        (KeyDoc::KIND, &doc.id),
                        json!({
                            "principal": doc.principal, "expires_at_ms": doc.expires_at_ms, "assurance": level,
                            "acts": doc.limits.acts, "project": doc.limits.project,
                        }),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        rotate::verb(tables),
        Verb {
            act: "access.key.revoke",
            summary: "Revokes an API key",
            args: || schemars::schema_for!(Revoke).into(),
            writes: &["access.key"],
            facts: &["access.key.revoked"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Revoke = parse(args)?;
                    let doc = find(view, &args.key).await?;
                    let mut target = Target::of(KeyDoc::KIND, &doc.id);
                    target.attributes = json!({"own": doc.principal == ctx.principal.id});
                    target.preview = vec![("Revoke key".into(), doc.name.clone())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let tables = revoking.clone();
                async move {
                    let args: Revoke = parse(args)?;
                    let stored = find(view, &args.key).await?;
                    let owner = owner_of(view, &stored).await?;
                    let owner = rights::resolve_in(view, &owner, KeyLimits::default()).await?;
                    above(&rights::maker(view, stamp).await?, &tables(), &owner)?;
                    if stored.revoked_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the key is already revoked"));
                    }
                    if guard::is_root(view.tenant(), &stored) {
                        return Err(guard::GuardError::LastKey.into());
                    }
                    let doc = KeyDoc { revoked_at_ms: Some(stamp.at_ms), before: None, ..stored.doc.clone() };
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"key": doc.id, "revoked_at_ms": stamp.at_ms}),
                    };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "access.key.revoked",
                        &doc.principal,
                        (KeyDoc::KIND, &doc.id),
                        json!({"principal": doc.principal}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        seen::verb(),
    ]
}

fn shown(doc: &KeyDoc, used_at_ms: Option<i64>, now_ms: i64) -> Value {
    let before = doc.before.as_ref().filter(|before| before.until_ms > now_ms);
    json!({
        "id": doc.id, "principal": doc.principal, "name": doc.name, "assurance": doc.level,
        "acts": doc.limits.acts, "project": doc.limits.project, "created_at_ms": doc.created_at_ms,
        "expires_at_ms": doc.expires_at_ms, "rotated_at_ms": doc.rotated_at_ms,
        "before_until_ms": before.map(|before| before.until_ms), "revoked_at_ms": doc.revoked_at_ms,
        "used_at_ms": used_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/keys", "key_create", "Register an API key", "access.key.create"),
        Route::post("/v1/keys/{key}/revoke", "key_revoke", "Revoke an API key", "access.key.revoke"),
        Route::post(
            "/v1/keys/{key}/rotate",
            "key_rotate",
            "Give an API key a new secret; the old one goes on for a while",
            "access.key.rotate",
        ),
        Route::get(
            "/v1/keys",
            "key_list",
            "List the tenant's API keys by principal, with when each was last used",
            "access.key.read",
            |query| {
                async move {
                    let range = page::range(&query, "principal", Vec::new(), false)?;
                    let limit = range.limit;
                    let found = query.view.list::<KeyDoc>(range).await?;
                    let mut used = BTreeMap::new();
                    for found in &found {
                        let seen = query.view.peek::<seen::SeenDoc>(&found.stored.id).await?;
                        used.extend(seen.map(|seen| (found.stored.id.clone(), seen.used_at_ms)));
                    }
                    let now_ms = query.ctx.requested_at_ms;
                    Ok(page::page(&found, limit, |key| shown(key, used.get(&key.id).copied(), now_ms)))
                }
                .boxed()
            },
        )
        .taking(&page::PARAMS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_from_before_there_were_limits() {
        let body = r#"{"v":1,"doc":{"id":"key_a","principal":"prn_a","name":"a","secret_sha256":"00","level":1,
            "created_at_ms":1,"expires_at_ms":null,"revoked_at_ms":null}}"#;
        let row = store::Row { id: Id::parse("key_a").unwrap(), rev: 1, body: body.as_bytes().to_vec() };
        let doc = store::decode::<KeyDoc>(&row).unwrap().doc;
        assert_eq!(
            (doc.limits, doc.before, doc.rotated_at_ms, doc.level),
            (KeyLimits::default(), None, None, 1)
        );
    }

    #[test]
    fn who_may_give_what() {
        use KeyError as E;
        use PrincipalKind::{Agent, Integration, Person, Service};
        const NOW: i64 = 1_800_000_000_000;
        const HOUR: i64 = 3_600_000;
        let own = |level, until_ms| Assurance { method: "key".into(), level, at_ms: NOW, until_ms };
        let (ordinary, lasting, short) = (own(0, None), own(1, None), own(1, Some(NOW + 2 * HOUR)));
        for (what, level, end_ms, kind, maker, expected) in [
            ("anybody gives an ordinary key", 0, None, Person, &ordinary, Ok(())),
            ("with an end", 0, Some(NOW + 1), Service, &ordinary, Ok(())),
            ("far away", 0, Some(NOW + 9_000 * HOUR), Agent, &ordinary, Ok(())),
            ("one that has ended", 0, Some(NOW), Person, &ordinary, Err(E::Past)),
            ("an ordinary key outlives a strong maker", 0, None, Person, &short, Ok(())),
            ("what one does not have", 1, Some(NOW + HOUR), Person, &ordinary, Err(E::Level1)),
            ("what one has", 1, Some(NOW + HOUR), Person, &lasting, Ok(())),
            ("for the whole time", 1, Some(NOW + ASSURED_MS_MAX), Person, &lasting, Ok(())),
            ("for longer", 1, Some(NOW + ASSURED_MS_MAX + 1), Person, &lasting, Err(E::Lifetime)),
            ("for ever", 1, None, Person, &lasting, Err(E::Lifetime)),
            ("for the largest number", 1, Some(i64::MAX), Person, &lasting, Err(E::Lifetime)),
            ("that has ended", 1, Some(NOW - 1), Person, &lasting, Err(E::Past)),
            ("to a service", 1, Some(NOW + HOUR), Service, &lasting, Err(E::NotAPerson)),
            ("to an integration", 1, Some(NOW + HOUR), Integration, &lasting, Err(E::NotAPerson)),
            ("to an agent", 1, Some(NOW + HOUR), Agent, &lasting, Err(E::NotAPerson)),
            ("as long as one's own", 1, Some(NOW + 2 * HOUR), Person, &short, Ok(())),
            ("a moment longer", 1, Some(NOW + 2 * HOUR + 1), Person, &short, Err(E::Outlives)),
            ("a level that there is not", 2, Some(NOW + HOUR), Person, &own(2, None), Err(E::Level)),
            ("the highest number", u8::MAX, Some(NOW + HOUR), Person, &lasting, Err(E::Level)),
        ] {
            assert_eq!(grant_check(level, end_ms, kind, maker, NOW), expected, "{what}");
        }
    }
}
