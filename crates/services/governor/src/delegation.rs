//! Delegations: a person names somebody who decides in their place for a span of time.
//!
//! Bob is away for two weeks, and acts of his tier would wait for those two weeks. So he writes down that Eve decides for
//! him from then until then. What that is worth is looked at when Eve decides and not when Bob wrote it:
//!
//! - it conveys Bob's own tier, by the roles that he has *then*, and nothing that somebody delegated to him: delegations do
//!   not chain;
//! - Eve still needs a role that may grant, and a tier of her own at least as high as policy asks of delegates
//!   (`writ.config.delegates`);
//! - for separation of duties both stand behind the decision, and both are named in its fact
//!   ([`crate::approval::separation`]).
//!
//! Nobody can delegate for somebody else. A delegation is never changed, only ended: early, by its giver or an
//! administrator, or by its time.

use crate::Governor;
use access::principal::PrincipalDoc;
use act::{Class, Coded, Draw as _, Fault, Param, Plan, PrincipalKind, Route, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range, View};

/// Longest span, 92 days.
pub const SPAN_MS_MAX: i64 = 92 * 24 * 60 * 60 * 1000;
/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 200;
/// How far a start may lie in the past, for clocks that differ.
const PAST_MS_MAX: i64 = 5 * 60 * 1000;

/// A delegation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// `dlg_…`
    pub id: Id,
    /// In whose place.
    pub from: Id,
    /// Who decides.
    pub to: Id,
    /// From when on, milliseconds UTC.
    pub starts_at_ms: i64,
    /// Until when; at this moment it is over.
    pub ends_at_ms: i64,
    /// Why, in the words of its giver.
    pub note: String,
    /// When it was written down.
    pub created_at_ms: i64,
    /// When it was ended early.
    pub ended_at_ms: Option<i64>,
}

impl Document for Delegation {
    const KIND: &'static str = "governor.delegation";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        let key = |person: &Id| Key::new().text(person.as_str()).integer(self.ends_at_ms).bytes();
        vec![
            ("from", key(&self.from)),
            ("to", key(&self.to)),
            ("end", Key::new().integer(self.ends_at_ms).bytes()),
        ]
    }
}

impl Delegation {
    /// Whether it holds at this moment.
    pub fn covers(&self, at_ms: i64) -> bool {
        self.ended_at_ms.is_none() && (self.starts_at_ms..self.ends_at_ms).contains(&at_ms)
    }
}

/// Why a delegation is refused.
#[derive(Debug, thiserror::Error)]
pub enum DelegationError {
    /// The span, the note or the delegate make no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// There is nothing to delegate.
    #[error("you have no right to decide on approvals in this tenant, so there is nothing to delegate")]
    RightMissing,
    /// It is over.
    #[error("the delegation is over already")]
    Over,
}

impl Coded for DelegationError {
    fn code(&self) -> &'static str {
        match self {
            DelegationError::Invalid(_) => "delegation.invalid",
            DelegationError::RightMissing => "delegation.right_missing",
            DelegationError::Over => "delegation.over",
        }
    }
    fn class(&self) -> Class {
        match self {
            DelegationError::Invalid(_) => Class::Invalid,
            DelegationError::RightMissing => Class::Denied,
            DelegationError::Over => Class::Conflict,
        }
    }
}

/// Arguments of `governor.delegation.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateArgs {
    /// Who decides in your place.
    pub delegate: String,
    /// From when on, milliseconds UTC; now, if absent.
    pub starts_at_ms: Option<i64>,
    /// Until when, milliseconds UTC; at most 92 days after the start.
    pub ends_at_ms: i64,
    /// Why; one line.
    pub note: Option<String>,
}

/// Arguments of `governor.delegation.end`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndArgs {
    /// The delegation.
    pub delegation: String,
}

/// The span of a delegation, checked.
fn span(args: &CreateArgs, now_ms: i64) -> Result<(i64, i64), DelegationError> {
    let starts_at_ms = args.starts_at_ms.unwrap_or(now_ms);
    let invalid = |message| Err(DelegationError::Invalid(message));
    if starts_at_ms < now_ms.saturating_sub(PAST_MS_MAX) {
        return invalid("a delegation does not begin in the past");
    }
    if args.ends_at_ms <= starts_at_ms.max(now_ms) {
        return invalid("a delegation ends after it begins, and in the future");
    }
    if args.ends_at_ms.saturating_sub(starts_at_ms) > SPAN_MS_MAX {
        return invalid("a delegation holds for at most 92 days");
    }
    Ok((starts_at_ms, args.ends_at_ms))
}

/// Reads a delegation for the one who decides under it, with the roles that its giver has now. Anybody else's does not
/// exist for them.
pub(crate) async fn read_for(
    view: &View,
    text: &str,
    delegate: &Id,
) -> Result<(Delegation, Vec<String>), Fault> {
    let missing = || Fault::not_found("delegation");
    let id = Id::parse(text).map_err(|_| missing())?;
    let stored = view.get::<Delegation>(&id).await?.ok_or_else(missing)?;
    if stored.to != *delegate {
        return Err(missing());
    }
    let giver = view.get::<PrincipalDoc>(&stored.from).await?.ok_or_else(missing)?;
    let giver = access::rights::resolve_in(view, &giver, Default::default()).await?;
    Ok((stored.doc.clone(), giver.roles))
}

/// The roles that somebody has in the whole tenant now, to be shown: what is delegated is decided with those. `None`: there
/// is no such person.
pub(crate) async fn roles_of(view: &View, person: &Id) -> Result<Option<Vec<String>>, Fault> {
    let Some(doc) = view.peek::<PrincipalDoc>(person).await? else { return Ok(None) };
    let tenant = view.tenant();
    let known =
        access::rights::resolve(view.store(), tenant, tenant, &doc, Default::default(), view.at_ms()).await?;
    Ok(Some(known.roles))
}

/// The verbs.
pub fn verbs(governor: &Governor) -> Vec<Verb> {
    let governor = governor.clone();
    vec![
        Verb {
            act: "governor.delegation.create",
            summary: "Names somebody who decides on approvals in your place for a while",
            args: || schemars::schema_for!(CreateArgs).into(),
            writes: &["governor.delegation"],
            facts: &["governor.delegation.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: CreateArgs = parse(args)?;
                    let (delegate, name, _) = delegate(view, &args).await?;
                    let mut target = Target::of(PrincipalDoc::KIND, &delegate);
                    target.attributes = json!({"own": delegate == ctx.principal.id});
                    target.preview = vec![("Decides in your place".into(), name)];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let rules = governor.approval_rules();
                async move {
                    let args: CreateArgs = parse(args)?;
                    let giver = &stamp.ctx.principal;
                    let at_home = giver.home == stamp.ctx.tenant && giver.kind == PrincipalKind::Person;
                    if !at_home || rules.tier(&giver.roles).is_none() {
                        return Err(DelegationError::RightMissing.into());
                    }
                    let (to, _, person) = delegate(view, &args).await?;
                    if to == giver.id || !person {
                        return Err(DelegationError::Invalid("a delegate is another person of the tenant").into());
                    }
                    let (starts_at_ms, ends_at_ms) = span(&args, stamp.at_ms)?;
                    let note = args.note.unwrap_or_default();
                    if note.len() > NOTE_BYTES_MAX || note.chars().any(char::is_control) {
                        return Err(DelegationError::Invalid("a note is one line of at most 200 bytes").into());
                    }
                    let doc = Delegation {
                        id: stamp.id("dlg"),
                        from: giver.id.clone(),
                        to,
                        starts_at_ms,
                        ends_at_ms,
                        note,
                        created_at_ms: stamp.at_ms,
                        ended_at_ms: None,
                    };
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"delegation": doc.id, "starts_at_ms": starts_at_ms, "ends_at_ms": ends_at_ms}),
                    };
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "governor.delegation.created",
                        &doc.id,
                        (Delegation::KIND, &doc.id),
                        json!({"from": doc.from, "to": doc.to, "starts_at_ms": starts_at_ms, "ends_at_ms": ends_at_ms}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "governor.delegation.end",
            summary: "Ends a delegation before its time",
            args: || schemars::schema_for!(EndArgs).into(),
            writes: &["governor.delegation"],
            facts: &["governor.delegation.ended"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: EndArgs = parse(args)?;
                    let doc = find(view, &args.delegation).await?;
                    let mut target = Target::of(Delegation::KIND, &doc.id);
                    target.attributes = json!({"own": doc.from == ctx.principal.id});
                    target.preview = vec![("End delegation of".into(), doc.from.to_string())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: EndArgs = parse(args)?;
                    let stored = find(view, &args.delegation).await?;
                    if stored.ended_at_ms.is_some() || stored.ends_at_ms <= stamp.at_ms {
                        return Err(DelegationError::Over.into());
                    }
                    let doc = Delegation { ended_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"delegation": doc.id, "ended_at_ms": stamp.at_ms}),
                    };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "governor.delegation.ended",
                        &doc.id,
                        (Delegation::KIND, &doc.id),
                        json!({"from": doc.from, "to": doc.to}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// The delegate: id, name, and whether it is a person.
async fn delegate(view: &View, args: &CreateArgs) -> Result<(Id, String, bool), Fault> {
    let missing = || Fault::not_found("principal");
    let id = Id::parse(&args.delegate).map_err(|_| missing())?;
    let doc = view.get::<PrincipalDoc>(&id).await?.ok_or_else(missing)?;
    Ok((id, doc.name.clone(), doc.kind == PrincipalKind::Person))
}

async fn find(view: &View, text: &str) -> Result<store::Stored<Delegation>, Fault> {
    let missing = || Fault::not_found("delegation");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<Delegation>(&id).await?.ok_or_else(missing)
}

fn shown(doc: &Delegation, now_ms: i64) -> Value {
    json!({
        "id": doc.id, "from": doc.from, "to": doc.to, "active": doc.covers(now_ms), "starts_at_ms": doc.starts_at_ms,
        "ends_at_ms": doc.ends_at_ms, "ended_at_ms": doc.ended_at_ms, "note": doc.note, "created_at_ms": doc.created_at_ms,
    })
}

/// The delegations to `person` that hold at `at_ms`; at most a page of them.
pub(crate) async fn held_by(view: &View, person: &Id, at_ms: i64) -> Result<Vec<Delegation>, Fault> {
    let prefix = Key::new().text(person.as_str()).bytes();
    let found = view.list::<Delegation>(Range { descending: true, ..Range::of("to", prefix) }).await?;
    Ok(found.into_iter().map(|found| found.stored.doc).filter(|doc| doc.covers(at_ms)).collect())
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/delegations",
            "delegation_create",
            "Name somebody who decides on approvals in your place for a while",
            "governor.delegation.create",
        ),
        Route::post(
            "/v1/delegations/{delegation}/end",
            "delegation_end",
            "End a delegation before its time",
            "governor.delegation.end",
        ),
        Route::get(
            "/v1/delegations",
            "delegation_list",
            "List delegations, those that end last first",
            "governor.approval.read",
            |query| {
                async move {
                    let me = &query.ctx.principal.id;
                    let mine = |person: &Id| Key::new().text(person.as_str()).bytes();
                    let (index, prefix) = match query.param("side") {
                        None => ("end", Vec::new()),
                        Some("from") => ("from", mine(me)),
                        Some("to") => ("to", mine(me)),
                        Some(_) => return Err(Fault::invalid("request.invalid", "side is from or to")),
                    };
                    let now_ms = query.ctx.requested_at_ms;
                    let shown = |doc: &Delegation| shown(doc, now_ms);
                    page::list(&query, index, prefix, true, shown).await
                }
                .boxed()
            },
        )
        .taking(&[
            Param {
                name: "side",
                summary: "from: those you gave; to: those you decide under; all by default",
            },
            page::AFTER,
            page::LIMIT,
        ]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let day_ms = 24 * 60 * 60 * 1000;
        let now_ms = 1_000 * day_ms;
        for (starts, ends, ok) in [
            (None, now_ms + 1, true),
            (None, now_ms + SPAN_MS_MAX, true),
            (None, now_ms + SPAN_MS_MAX + 1, false),
            (None, now_ms, false),
            (None, now_ms - 1, false),
            (None, i64::MIN, false),
            (Some(now_ms + day_ms), now_ms + 2 * day_ms, true),
            (Some(now_ms + day_ms), now_ms + day_ms, false),
            (Some(now_ms - PAST_MS_MAX), now_ms + 1, true),
            (Some(now_ms - PAST_MS_MAX), now_ms - 1, false),
            (Some(now_ms - PAST_MS_MAX - 1), now_ms + 1, false),
            (Some(i64::MIN), i64::MAX, false),
            (Some(i64::MAX), i64::MAX, false),
        ] {
            let args =
                CreateArgs { delegate: "prn_a".into(), starts_at_ms: starts, ends_at_ms: ends, note: None };
            assert_eq!(span(&args, now_ms).is_ok(), ok, "{starts:?} {ends}");
        }
    }

    #[test]
    fn it_holds_from_its_start_up_to_its_end() {
        let id = |text: &str| Id::parse(text).unwrap();
        let doc = Delegation {
            id: id("dlg_a"),
            from: id("prn_a"),
            to: id("prn_b"),
            starts_at_ms: 10,
            ends_at_ms: 20,
            note: String::new(),
            created_at_ms: 1,
            ended_at_ms: None,
        };
        assert_eq!([9, 10, 19, 20].map(|at_ms| doc.covers(at_ms)), [false, true, true, false]);
        assert!(!Delegation { ended_at_ms: Some(12), ..doc }.covers(11), "an ended one holds no more");
    }
}
