//! Telling people and programs that something happened: live events ([`feed`]), webhooks ([`webhook`]), and approvals as
//! cards in Slack ([`slack`]).
//!
//! A tenant's facts *are* its events. Whoever follows them reads the log from an index on, so there is no second queue that
//! could disagree with it, and a reader that was away goes on where it stopped. On the way out every fact has one shape, a
//! CloudEvent ([`event`]), whether it goes into a live stream or to a webhook; `contracts/asyncapi.json` describes it.

pub mod event;
pub mod feed;
pub mod slack;
pub mod webhook;

use act::{Domain, Param, Route};
use custody::Custody;
use egress::Egress;
use harness::Harness;
use std::sync::{Arc, OnceLock};

/// What this domain uses.
#[derive(Clone)]
pub struct Deps {
    /// Carries out acts; the store, the clock.
    pub harness: Harness,
    /// The one way out.
    pub egress: Egress,
    /// Opens tokens and signing secrets.
    pub custody: Custody,
    /// Private destinations, `host` or `host:port`, that the operator allows.
    pub private_hosts: Arc<[String]>,
    /// How long a webhook's target may take for one delivery, milliseconds.
    pub webhook_call_ms: u64,
    /// Kinds of all facts that any domain states, set once when the domains are put together. A filter names some of
    /// them; until they are known none can be named.
    pub facts: Arc<OnceLock<Vec<&'static str>>>,
}

impl Deps {
    /// Whether a private destination is allowed.
    pub(crate) fn private(&self, host: &str, port: u16) -> bool {
        private(&self.private_hosts, host, port)
    }
}

/// Whether a destination stands among those that the operator allows to be private.
fn private(private_hosts: &[String], host: &str, port: u16) -> bool {
    private_hosts.iter().any(|allowed| *allowed == host || *allowed == format!("{host}:{port}"))
}

/// Two tables as one.
const fn both<T: Copy, const N: usize>(left: &[T], right: &[T]) -> [T; N] {
    let mut all = [left[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < left.len() { left[at] } else { right[at - left.len()] };
        at += 1;
    }
    all
}

const KINDS: &[&str] =
    &both::<_, { slack::KINDS.len() + webhook::KINDS.len() }>(slack::KINDS, webhook::KINDS);
const FACTS: &[&str] =
    &both::<_, { slack::FACTS.len() + webhook::FACTS.len() }>(slack::FACTS, webhook::FACTS);
const ALL_CODES: &[(&str, &str)] =
    &both::<_, { slack::CODES.len() + webhook::CODES.len() + feed::CODES.len() }>(
        slack::CODES,
        &both::<_, { webhook::CODES.len() + feed::CODES.len() }>(webhook::CODES, feed::CODES),
    );

/// The domain's table.
pub fn domain(deps: &Deps) -> Domain {
    let store = deps.harness.store().clone();
    let events = Route::stream(
        "/v1/events",
        "event_stream",
        "Follow the tenant's facts as server-sent events",
        "notify.event.read",
        feed::source(store),
    )
    .taking(&[
        Param { name: "after", summary: "begin after this index of the log; by default, now" },
        Param { name: "kind", summary: "only kinds that start with this" },
    ]);
    Domain {
        name: "notify",
        kinds: KINDS,
        facts: FACTS,
        verbs: [slack::verbs(), webhook::verbs(deps)].concat(),
        routes: [vec![events], slack::routes(deps), webhook::routes()].concat(),
        jobs: slack::jobs(deps),
        codes: ALL_CODES,
    }
}
