//! Slack: approvals as cards, and clicks on them as decisions.
//!
//! A card is a view, never the record. Somebody may forward it, screenshot it, click it an hour after it was decided; two
//! people may click at once; a stranger in a shared channel may click. None of that matters if a click is nothing more
//! than a request by a person whom we know, decided like every other:
//!
//! ```text
//! approval waits → round → notify.card.refresh (an act) → job → chat.postMessage / chat.update
//! click → signature, time, replay, app, workspace, card → notify.click.receive (an act) → 200 at once
//!            └─ job: Slack user → link → principal with the roles of now → governor.approval.grant / .deny
//! ```
//!
//! Rules for those who add to it:
//!
//! - Identity is a link that the principal made with their own API key ([`link`]), never a name or a mail address.
//! - Nothing is decided here. The last line above goes through the harness, so policy, separation of duties, step-up and
//!   the digest of what was shown hold as they do for the API.
//! - What stands on a card is the approval's preview, which is what policy lets approvers see, and nothing else. It is text
//!   from strangers: it goes through [`blocks`], which escapes it.
//! - What arrives unsigned, late, twice or from elsewhere is refused before anything is recorded; the edge counts it.
//! - Slack knows no idempotency key, so a card whose post was lost half-way may stand there twice. That is untidy and
//!   harmless: both lead to the same approval, which is decided once.
//!
//! | module | what it holds |
//! |---|---|
//! | [`connection`] | one workspace per tenant: app, token, secret, channels by tier |
//! | [`card`] | a card per approval and channel, and what it shows |
//! | [`blocks`] | from an approval to Block Kit |
//! | [`api`], [`deliver`] | the Web API through egress; retries, dead letters |
//! | [`signature`], [`click`] | the callback and what follows from it |
//! | [`link`] | which Slack user is which principal |

pub mod api;
pub mod blocks;
pub mod card;
pub mod click;
pub mod connection;
pub mod deliver;
pub mod link;
pub mod signature;

pub use crate::Deps;
use act::{Class, Fault, JobSpec, Route, Verb};
use custody::CustodyError;
use kernel::TenantId;
use store::Document as _;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("slack.connection_invalid", "an argument of a Slack connection is malformed"),
    ("slack.not_connected", "the tenant has no Slack connection"),
    ("slack.hook_unknown", "there is no such callback address, or its secret cannot be had"),
    ("slack.headers", "a callback does not have exactly one timestamp and one signature"),
    ("slack.signature", "a callback's signature does not fit"),
    ("slack.stale", "a callback's timestamp is more than five minutes off"),
    ("slack.replayed", "the same callback has been received before"),
    ("slack.body", "a callback is signed and not a click on one of our cards"),
    ("slack.workspace", "a callback comes from another workspace or app than the one that is connected"),
    ("slack.card", "a click names a card that is not there, or stands elsewhere"),
    ("slack.unlinked", "the Slack user is linked to no principal"),
    ("slack.principal_gone", "the linked principal is no longer there"),
    ("slack.code_invalid", "the code is unknown, used or too old"),
    ("slack.linked", "the Slack user is linked already"),
    ("slack.link_home", "only a person of this tenant can be linked to a Slack user"),
    ("slack.rate_limited", "Slack wants to be asked later"),
    ("slack.unavailable", "Slack could not be reached, or failed"),
    ("slack.refused", "Slack refused the call for good"),
    ("slack.card_state", "the card is not in a state in which this can be done"),
];

/// Kinds of records.
pub const KINDS: &[&str] = &["notify.slack", "notify.card", "notify.link", "notify.link_code"];

/// Facts.
pub const FACTS: &[&str] = &[
    "notify.slack.connected",
    "notify.slack.disconnected",
    "notify.card.queued",
    "notify.card.sent",
    "notify.card.failed",
    "notify.card.dead",
    "notify.card.idle",
    "notify.click.received",
    "notify.click.answered",
    "notify.link.offered",
    "notify.link.created",
    "notify.link.removed",
];

impl Deps {
    /// The tenant's connection, if there is one in force.
    pub(crate) async fn connection(
        &self,
        tenant: &TenantId,
    ) -> Result<Option<connection::Connection>, Fault> {
        let row = self
            .harness
            .store()
            .record(tenant, connection::Connection::KIND, &connection::connection_id())
            .await?;
        let stored = row.map(|row| store::decode::<connection::Connection>(&row)).transpose()?;
        Ok(stored.map(|stored| stored.doc).filter(|doc| doc.disconnected_at_ms.is_none()))
    }
}

/// A secret that cannot be had, as a fault.
pub(crate) fn custody_fault(error: CustodyError) -> Fault {
    Fault::from(error)
}

/// Whether trying again later may help.
pub(crate) fn passing(fault: &Fault) -> bool {
    fault.class.retryable() || fault.class == Class::Internal
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    [connection::verbs(), card::verbs(), link::verbs(), click::verbs()].concat()
}

/// The routes.
pub fn routes(deps: &Deps) -> Vec<Route> {
    [connection::routes(), card::routes(), link::routes(), click::routes(deps)].concat()
}

/// The jobs.
pub fn jobs(deps: &Deps) -> Vec<JobSpec> {
    vec![deliver::spec(deps), click::spec(deps)]
}
