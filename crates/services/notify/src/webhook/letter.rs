//! Dead letters: events that an endpoint did not take, each with what somebody needs to decide what becomes of it.
//!
//! A letter holds no event. It names the leaf of the log, which is kept anyway, so a letter is small, and what is sent again
//! is what was not taken, under the same `webhook-id`. Sent again, it goes out of its turn: what came after it has been
//! delivered long since. A letter that is taken, or thrown away, is gone; the facts say which.

use super::endpoint::{Endpoint, on_endpoint, read, state};
use super::schedule;
use act::{Draw as _, Fault, Param, Plan, QueryCtx, Route, Verb, page, parse};
use futures::FutureExt as _;
use kernel::Id;
use kernel::changeset::Operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

/// Most dead letters of one endpoint. One more, and it is disabled: what nobody looks at must not grow.
pub const LETTERS_MAX: u32 = 100;

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was given up.
    Dead,
    /// It is to be sent again.
    Due,
}

impl State {
    /// The spelling in indexes.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Dead => "dead",
            State::Due => "due",
        }
    }
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// `whl_…`
    pub id: Id,
    /// The endpoint.
    pub webhook: Id,
    /// Index of the leaf.
    pub index: u64,
    /// Id of the fact, which is the `webhook-id`.
    pub fact: String,
    /// What happened.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// Code of the last failure.
    pub code: String,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// How often it was sent.
    pub attempts: u32,
    /// How often somebody asked for it to be sent again.
    pub replays: u32,
    /// When it was given up, milliseconds UTC.
    pub died_at_ms: i64,
}

impl Document for Letter {
    const KIND: &'static str = "notify.letter";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        let index = i64::try_from(self.index).unwrap_or(i64::MAX);
        vec![
            ("webhook", Key::new().text(self.webhook.as_str()).integer(index).bytes()),
            ("state", Key::new().text(self.state.as_str()).integer(self.died_at_ms).bytes()),
        ]
    }
}

/// Arguments of acts on one letter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OneArgs {
    /// The webhook.
    pub webhook: String,
    /// The dead letter.
    pub letter: String,
}

/// Reads a letter of an endpoint.
pub(super) async fn letter(view: &View, webhook: &Id, text: &str) -> Result<Stored<Letter>, Fault> {
    let missing = || Fault::not_found("dead letter");
    let id = Id::parse(text).map_err(|_| missing())?;
    view.get::<Letter>(&id).await?.filter(|letter| letter.webhook == *webhook).ok_or_else(missing)
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    let replay = on_endpoint(
        "notify.letter.replay",
        "Sends a dead letter again",
        || schemars::schema_for!(OneArgs).into(),
        &["notify.letter.queued"],
        Arc::new(|view, args, stamp| {
            async move {
                let args: OneArgs = parse(args)?;
                let endpoint = read(view, &args.webhook).await?;
                if endpoint.state != super::endpoint::State::Active {
                    return Err(state("the webhook is not active; resume it first"));
                }
                let stored = letter(view, &endpoint.id, &args.letter).await?;
                if stored.state != State::Dead {
                    return Err(state("the letter is being sent already"));
                }
                let doc = Letter {
                    state: State::Due,
                    replays: stored.replays.saturating_add(1),
                    ..stored.doc.clone()
                };
                let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                    "notify.letter.queued",
                    &endpoint.id,
                    (Letter::KIND, &doc.id),
                    json!({"index": doc.index, "fact": doc.fact, "replays": doc.replays}),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    );
    let discard = on_endpoint(
        "notify.letter.discard",
        "Throws a dead letter away",
        || schemars::schema_for!(OneArgs).into(),
        &["notify.letter.discarded"],
        Arc::new(|view, args, stamp| {
            async move {
                let args: OneArgs = parse(args)?;
                let endpoint = read(view, &args.webhook).await?;
                let stored = letter(view, &endpoint.id, &args.letter).await?;
                let doc = Endpoint { letters: endpoint.letters.saturating_sub(1), ..endpoint.doc.clone() };
                let mut plan =
                    Plan { draft: stamp.draft(), outcome: json!({"letter": stored.id, "discarded": true}) };
                let (kind, id, rev) = (Letter::KIND, stored.id.clone(), stored.rev);
                plan.draft.put_if(&endpoint, &doc).push(Operation::Delete { kind, id, rev }).fact(
                    stamp.fact(
                        "notify.letter.discarded",
                        &endpoint.id,
                        (Letter::KIND, &stored.id),
                        json!({"index": stored.index, "fact": stored.fact, "code": stored.code}),
                    ),
                );
                Ok(plan)
            }
            .boxed()
        }),
    );
    vec![
        Verb { writes: &["notify.letter"], ..replay },
        Verb { writes: &["notify.webhook", "notify.letter"], ..discard },
    ]
}

/// A letter as it is shown; the members that the dead letters of runs have too are spelled as there.
fn shown(doc: &Letter) -> Value {
    json!({
        "letter": doc.id, "webhook": doc.webhook, "webhook_id": doc.fact, "kind": doc.kind, "index": doc.index,
        "state": doc.state, "error": {"code": doc.code, "status": doc.status}, "cause": schedule::about(&doc.code),
        "page": format!("docs/errors/{}.md", doc.code), "attempts": doc.attempts, "replays": doc.replays,
        "died_at_ms": doc.died_at_ms,
    })
}

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let (index, prefix) = match query.param("webhook") {
        Some(webhook) => ("webhook", Key::new().text(webhook)),
        None => ("state", Key::new().text(State::Dead.as_str())),
    };
    page::list(&query, index, prefix.bytes(), false, shown).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let missing = || Fault::not_found("dead letter");
    let webhook = query.id("webhook", "dead letter")?;
    let id = query.id("letter", "dead letter")?;
    let stored = query.view.peek::<Letter>(&id).await?.filter(|letter| letter.webhook == webhook);
    let stored = stored.ok_or_else(missing)?;
    let leaves = query.view.store().leaves(query.view.tenant(), stored.index, 1).await?;
    let mut shown = shown(&stored);
    let fact = leaves.first().and_then(|leaf| crate::event::fact(&leaf.leaf));
    shown["event"] = fact.map_or(Value::Null, |fact| crate::event::cloud(stored.index, fact));
    Ok(shown)
}

/// The routes.
pub fn routes() -> Vec<Route> {
    const READ: &str = "notify.webhook.read";
    vec![
        Route::get(
            "/v1/webhook-letters",
            "webhook_letter_list",
            "List events that webhooks did not take, oldest first",
            READ,
            |query| list(query).boxed(),
        )
        .taking(&[
            Param { name: "webhook", summary: "only those of this webhook" },
            page::AFTER,
            page::LIMIT,
        ]),
        Route::get(
            "/v1/webhook-letters/{webhook}/{letter}",
            "webhook_letter_show",
            "Show a dead letter with its cause and its event",
            READ,
            |query| show(query).boxed(),
        ),
        Route::post(
            "/v1/webhook-letters/{webhook}/{letter}/replay",
            "webhook_letter_replay",
            "Send a dead letter again",
            "notify.letter.replay",
        ),
        Route::post(
            "/v1/webhook-letters/{webhook}/{letter}/discard",
            "webhook_letter_discard",
            "Throw a dead letter away",
            "notify.letter.discard",
        ),
    ]
}
