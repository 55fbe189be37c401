//! Cards: what of an approval stands in which channel, and whether that is still true.
//!
//! A card is wanted in the channel of each tier that has been asked, from the one that is needed up. Its *face* names what
//! it should show; where the face of the approval is another than the card's, the card is refreshed. So nobody has to tell
//! a card anything: [`round`] compares what is with what should be, and a round that was missed is made up by the next.

use super::connection::{Connection, connection_id, not_connected};
use super::deliver::DELIVER;
use super::{Deps, passing};
use act::{Draw as _, Fault, Param, Plan, Route, Stamp, Target, Verb, page, parse};
use futures::FutureExt as _;
use governor::approval::{Approval, Status};
use harness::{Done, Terms};
use kernel::{Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range, Stored, View};

/// Most approvals, and most cards, that one round looks at in one tenant.
pub const ROUND_ROWS_MAX: usize = 1000;
const STATES: &[&str] = &["due", "sent", "final", "dead"];

/// Where a card stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is to be sent or changed; a job does that.
    Due,
    /// It shows what was last to be shown.
    Sent,
    /// It shows the end of its approval.
    Final,
    /// It was given up.
    Dead,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Due => "due",
            State::Sent => "sent",
            State::Final => "final",
            State::Dead => "dead",
        }
    }
}

/// A card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// `crd_…`, the only thing that its buttons carry.
    pub id: Id,
    /// What it shows.
    pub approval: Id,
    /// In which channel.
    pub channel: String,
    /// Slack's name of the message, once it was posted.
    pub ts: Option<String>,
    /// The digest of the preview on it: what somebody who clicks was shown.
    pub preview_digest: String,
    /// Where it stands.
    pub state: State,
    /// What it shows now.
    pub face: String,
    /// Failed attempts in a row.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was last to be shown otherwise, milliseconds UTC.
    pub queued_at_ms: i64,
}

impl Document for Card {
    const KIND: &'static str = "notify.card";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("state", Key::new().text(self.state.as_str()).integer(self.queued_at_ms).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("place", place(&self.approval, &self.channel))]
    }
}

/// The unique key of a card.
pub fn place(approval: &Id, channel: &str) -> Vec<u8> {
    Key::new().text(approval.as_str()).text(channel).bytes()
}

/// What a card of this approval should show, as a short name that changes whenever it should.
pub fn face(approval: &Approval) -> String {
    let reminded = if approval.reminded_at_ms.is_some() { "+reminded" } else { "" };
    format!("{}:{}:{}{reminded}", approval.status.as_str(), approval.grants.len(), approval.asked_tier)
}

/// Whether nothing will change any more.
pub fn ended(approval: &Approval) -> bool {
    match approval.status {
        Status::Pending | Status::Granted => false,
        Status::Used | Status::Denied | Status::Expired | Status::Void => true,
    }
}

/// The channels in which an approval is to be shown.
pub fn channels<'a>(connection: &'a Connection, approval: &Approval) -> BTreeSet<&'a str> {
    (approval.tier..=approval.asked_tier.max(approval.tier))
        .filter_map(|tier| connection.channel(tier))
        .collect()
}

/// Arguments of `notify.card.refresh`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshArgs {
    /// The approval.
    pub approval: String,
    /// The channel.
    pub channel: String,
    /// What it is to show.
    pub face: String,
}

/// Arguments of `notify.card.retry`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryArgs {
    /// The card.
    pub card: String,
}

fn state(message: &str) -> Fault {
    Fault::conflict("slack.card_state", message)
}

async fn approval_read(view: &View, text: &str) -> Result<Stored<Approval>, Fault> {
    let missing = || Fault::not_found("approval");
    let id = Id::parse(text).map_err(|_| missing())?;
    // Only shown: the job reads it again, and a card that is behind is refreshed.
    view.peek::<Approval>(&id).await?.ok_or_else(missing)
}

async fn card_read(view: &View, text: &str) -> Result<Stored<Card>, Fault> {
    let missing = || Fault::not_found("card");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<Card>(&id).await?.ok_or_else(missing)
}

fn queue(plan: &mut Plan, stamp: &Stamp, card: &Card, face: &str) {
    let mut fact = stamp.fact(
        "notify.card.queued",
        &card.approval,
        (Card::KIND, &card.id),
        json!({"approval": card.approval, "card": card.id, "channel": card.channel, "face": face}),
    );
    fact.causes.clear();
    plan.draft.fact(fact).job(stamp.id("job"), &DELIVER, stamp.at_ms, true, &json!({"card": card.id}));
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "notify.card.refresh",
            summary: "Brings the Slack card of an approval up to date",
            args: || schemars::schema_for!(RefreshArgs).into(),
            writes: &["notify.card"],
            facts: &["notify.card.queued"],
            secret_args: &[],
            on_closed: None,
            can_wait: false,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: RefreshArgs = parse(args)?;
                    let approval = approval_read(view, &args.approval).await?;
                    let mut target = Target::of(Approval::KIND, &approval.id);
                    target.attributes =
                        json!({"act": approval.act, "approver_tier": approval.tier, "channel": args.channel});
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RefreshArgs = parse(args)?;
                    let approval = approval_read(view, &args.approval).await?;
                    let connection = view.peek::<Connection>(&connection_id()).await?;
                    let connection = connection.filter(|connection| connection.disconnected_at_ms.is_none());
                    let connection = connection.ok_or_else(not_connected)?;
                    let stored = view.find::<Card>("place", &place(&approval.id, &args.channel)).await?;
                    let doc = match &stored {
                        None => {
                            let wanted = channels(&connection, &approval).contains(args.channel.as_str());
                            if approval.status != Status::Pending || !wanted {
                                return Err(state("the approval is not to be shown in this channel"));
                            }
                            Card {
                                id: stamp.id("crd"),
                                approval: approval.id.clone(),
                                channel: args.channel,
                                ts: None,
                                preview_digest: approval.preview_digest.clone(),
                                state: State::Due,
                                face: String::new(),
                                attempts: 0,
                                error: None,
                                queued_at_ms: stamp.at_ms,
                            }
                        }
                        Some(stored) if stored.state == State::Sent && stored.face != face(&approval) => {
                            Card {
                                state: State::Due,
                                attempts: 0,
                                error: None,
                                queued_at_ms: stamp.at_ms,
                                ..stored.doc.clone()
                            }
                        }
                        Some(_) => return Err(state("the card is up to date, or on its way")),
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"card": doc.id}) };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    queue(&mut plan, stamp, &doc, &face(&approval));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "notify.card.retry",
            summary: "Sends a card again that was given up",
            args: || schemars::schema_for!(RetryArgs).into(),
            writes: &["notify.card"],
            facts: &["notify.card.queued"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: RetryArgs = parse(args)?;
                    let card = card_read(view, &args.card).await?;
                    let mut target = Target::of(Card::KIND, &card.id);
                    target.attributes = json!({"channel": card.channel});
                    target.preview = vec![("Send card again".into(), card.channel.clone())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RetryArgs = parse(args)?;
                    let stored = card_read(view, &args.card).await?;
                    if stored.state != State::Dead {
                        return Err(state("only a card that was given up is sent again"));
                    }
                    let approval = approval_read(view, stored.approval.as_str()).await?;
                    let doc = Card {
                        state: State::Due,
                        attempts: 0,
                        error: None,
                        queued_at_ms: stamp.at_ms,
                        ..stored.doc.clone()
                    };
                    let mut plan =
                        Plan { draft: stamp.draft(), outcome: json!({"card": doc.id, "state": "due"}) };
                    plan.draft.put_if(&stored, &doc);
                    queue(&mut plan, stamp, &doc, &face(&approval));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(card: &Card) -> Value {
    json!({
        "id": card.id, "approval": card.approval, "channel": card.channel, "ts": card.ts, "state": card.state,
        "face": card.face, "attempts": card.attempts, "error": card.error, "queued_at_ms": card.queued_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/slack/cards",
            "card_list",
            "List Slack cards of one state, oldest first",
            "notify.card.read",
            |query| {
                async move {
                    let state = query.param("state").unwrap_or("dead");
                    if !STATES.contains(&state) {
                        let message = format!("state is one of {}", STATES.join(", "));
                        return Err(Fault::invalid("request.invalid", message));
                    }
                    page::list(&query, "state", Key::new().text(state).bytes(), false, shown).await
                }
                .boxed()
            },
        )
        .taking(&[
            Param { name: "state", summary: "dead (default), due, sent or final" },
            page::AFTER,
            page::LIMIT,
        ]),
        Route::post(
            "/v1/slack/cards/{card}/retry",
            "card_retry",
            "Send a card again that was given up",
            "notify.card.retry",
        ),
    ]
}

/// Compares, in every tenant with a connection, what stands in Slack with what should stand there, and asks for what is
/// missing. Takes no input, so a round that was missed or failed is made up by the next.
pub async fn round(deps: &Deps) -> Result<(), Fault> {
    for tenant in deps.harness.store().tenants().await? {
        if let Some(connection) = deps.connection(&tenant).await? {
            for due in due(deps, &tenant, &connection).await? {
                refresh(deps, &tenant, due).await;
            }
        }
    }
    Ok(())
}

async fn rows<T: Document>(view: &View, index: &'static str, prefix: &str) -> Result<Vec<T>, Fault> {
    let range = Range::of(index, Key::new().text(prefix).bytes());
    let found = view.list_through::<T>(range, ROUND_ROWS_MAX).await?;
    Ok(found.into_iter().map(|found| found.stored.doc).collect())
}

/// What is missing in one tenant.
async fn due(deps: &Deps, tenant: &TenantId, connection: &Connection) -> Result<Vec<RefreshArgs>, Fault> {
    let store = deps.harness.store();
    let view = store.view(tenant, deps.harness.now_ms());
    let mut due = Vec::new();
    let mut ask = |approval: &Approval, channel: &str| {
        due.push(RefreshArgs {
            approval: approval.id.to_string(),
            channel: channel.to_owned(),
            face: face(approval),
        });
    };
    for approval in rows::<Approval>(&view, "status", Status::Pending.as_str()).await? {
        for channel in channels(connection, &approval) {
            let found =
                store.record_unique(tenant, Card::KIND, "place", &place(&approval.id, channel)).await?;
            if found.is_none() {
                ask(&approval, channel);
            }
        }
    }
    for card in rows::<Card>(&view, "state", State::Sent.as_str()).await? {
        match view.peek::<Approval>(&card.approval).await? {
            Some(approval) if face(&approval) != card.face => ask(&approval, &card.channel),
            Some(_) | None => {}
        }
    }
    Ok(due)
}

async fn refresh(deps: &Deps, tenant: &TenantId, due: RefreshArgs) {
    let trace = deps.harness.ids().id("trc", deps.harness.now_ms()).to_string();
    let ctx = deps.harness.service("notify", tenant, Vec::new(), &trace);
    let args = json!(due);
    match deps.harness.act(&ctx, "notify.card.refresh", args, Terms::default()).await {
        Ok(Done::Outcome { held, .. }) => deps.harness.hand_over(held),
        Ok(Done::Waiting { .. }) => {}
        // Another replica was faster.
        Err(fault) if fault.code == "slack.card_state" => {}
        Err(fault) if passing(&fault) => tracing::debug!(%fault, "a card waits for the next round"),
        Err(fault) => tracing::warn!(%fault, approval = due.approval, "an approval cannot be shown in Slack"),
    }
}
