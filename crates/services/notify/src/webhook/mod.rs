//! Webhooks: a tenant's facts, sent to an address of its own, signed after Standard Webhooks.
//!
//! Somebody else's server is slow, down, moved, or gone, for a minute or for a week, and none of that may cost a fact, hold
//! up another endpoint, or fill our disk. So there is no queue of deliveries. The log is the queue; what an endpoint has is
//! a *cursor*, the index of the next leaf to look at, and a few numbers about its failures:
//!
//! ```text
//! fact → log ──▶ post (a round) ──▶ egress ──▶ 2xx: the cursor moves on
//!                  │                      └──▶ anything else: the same event again, later and later
//!                  └─ notify.webhook.record (an act): cursor, failure, dead letter, disabled
//! ```
//!
//! Rules for those who add to it:
//!
//! - **In order.** An endpoint is sent one event at a time, in the order of the log. What fails is tried again until it is
//!   done or is a dead letter ([`letter`]); only then comes the next.
//! - **At least once.** The cursor is written after the answer, several answers at a time. Who dies in between sends those
//!   again, under the same `webhook-id`: it is the fact's own id, so it needs no memory of ours.
//! - **No loop.** What the post itself records is never posted: every fact of the act [`record::ACT`] is passed over, but
//!   for the one that says that an endpoint was disabled, which only a person can undo. And a cursor that passes over
//!   leaves is written down only with something sent, or after [`post::SKIP_MAX`] of them. So an endpoint that wants
//!   everything makes no fact of its own that it wants.
//! - **Everything out goes through egress**, which judges the address at every delivery, and not when the endpoint was made.
//! - **An endpoint is small.** Its size does not depend on how far it is behind; dead letters are counted and bounded.
//!
//! | module | what it holds |
//! |---|---|
//! | [`endpoint`] | the record, its secrets, and what people do with it |
//! | [`signature`] | what is signed, and how |
//! | [`schedule`] | what an answer means, and when to try again |
//! | [`record`] | what came of deliveries, as an act of this installation |
//! | [`letter`] | dead letters: seen, sent again, thrown away |
//! | [`post`] | who sends |

pub mod endpoint;
pub mod letter;
pub mod post;
pub mod record;
pub mod schedule;
pub mod signature;

use crate::Deps;
use act::{Route, Verb};

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("webhook.invalid", "an argument of a webhook is malformed"),
    ("webhook.limit", "the tenant has as many webhooks as there may be"),
    ("webhook.state", "the webhook or its dead letter is not in a state in which this can be done"),
    ("webhook.moved", "what came of a delivery was recorded by somebody else meanwhile"),
    ("webhook.status", "the target of a webhook answered with another status than 2xx"),
    ("webhook.throttled", "the target of a webhook wants to be asked later"),
    ("webhook.gone", "the target of a webhook wants no more events"),
    ("webhook.failing", "the target of a webhook has taken nothing for days"),
    ("webhook.letters_full", "a webhook has as many dead letters as there may be"),
];

/// Kinds of records.
pub const KINDS: &[&str] = &["notify.webhook", "notify.webhook_set", "notify.letter"];

/// Facts.
pub const FACTS: &[&str] = &[
    "notify.webhook.created",
    "notify.webhook.paused",
    "notify.webhook.resumed",
    "notify.webhook.rotated",
    "notify.webhook.tested",
    "notify.webhook.deleted",
    "notify.webhook.advanced",
    "notify.webhook.failed",
    "notify.webhook.disabled",
    "notify.letter.dead",
    "notify.letter.sent",
    "notify.letter.queued",
    "notify.letter.discarded",
];

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    [endpoint::verbs(deps), letter::verbs(), vec![record::verb()]].concat()
}

/// The routes.
pub fn routes() -> Vec<Route> {
    [endpoint::routes(), letter::routes()].concat()
}
