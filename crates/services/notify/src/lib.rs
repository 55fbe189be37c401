//! Telling people and programs that something happened: live events, and approvals as cards in Slack ([`slack`]).
//!
//! A tenant's facts *are* its events: the stream reads the log from an index on, sends each leaf as it stands, and then
//! waits for the store's hint or looks by itself once a second. The event's id is the leaf's index, so a client that lost
//! its connection sends it back (`Last-Event-ID`) and misses nothing and gets nothing twice. There is no second queue that
//! could disagree with the log.
//!
//! What it does not do: it keeps nothing per client. A client that does not read is disconnected by the edge.

pub mod slack;

use act::{Auth, Call, Ctx, Domain, Method, Param, Route};
use futures::stream::{self, BoxStream, StreamExt as _};
use kernel::TenantId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::watch;

/// Leaves read from the log at once.
const PAGE: usize = 100;
/// How often the log is looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);

struct Feed {
    store: Store,
    tenant: TenantId,
    next: u64,
    hints: watch::Receiver<u64>,
    kinds: Option<String>,
    ready: VecDeque<(String, String, Value)>,
}

impl Feed {
    async fn next(mut self) -> Option<((String, String, Value), Feed)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            self.hints.borrow_and_update();
            let leaves = match self.store.leaves(&self.tenant, self.next, PAGE).await {
                Ok(leaves) => leaves,
                Err(error) => {
                    tracing::warn!(%error, "a live feed ends because the log cannot be read");
                    return None;
                }
            };
            if leaves.is_empty() {
                // A hint may be missed without harm, because of the time-out; the store's end closes the feed.
                if let Ok(Err(_)) = tokio::time::timeout(LOOK, self.hints.changed()).await {
                    return None;
                }
                continue;
            }
            for leaf in leaves {
                self.next = leaf.index + 1;
                let Ok(body) = serde_json::from_slice::<Value>(&leaf.leaf) else { continue };
                let kind = body["kind"].as_str().unwrap_or_default().to_owned();
                if self.kinds.as_ref().is_none_or(|prefix| kind.starts_with(prefix.as_str())) {
                    self.ready.push_back((leaf.index.to_string(), kind, body));
                }
            }
        }
    }
}

/// A tenant's facts from now on, or from after `last_event_id`; `kind` keeps only kinds with that prefix.
pub fn feed(
    store: &Store,
    ctx: &Ctx,
    params: &BTreeMap<String, String>,
) -> BoxStream<'static, (String, String, Value)> {
    let store = store.clone();
    let tenant = ctx.tenant.clone();
    let kinds = params.get("kind").cloned();
    let after =
        params.get("last_event_id").or_else(|| params.get("after")).and_then(|text| text.parse::<u64>().ok());
    stream::once(async move {
        let next = match after {
            Some(after) => after.saturating_add(1),
            None => store.head(&tenant).await.ok().flatten().map_or(0, |head| head.size),
        };
        let hints = store.hints().facts;
        let feed = Feed { store, tenant, next, hints, kinds, ready: VecDeque::new() };
        stream::unfold(feed, Feed::next)
    })
    .flatten()
    .boxed()
}

/// The domain's table.
pub fn domain(deps: &slack::Deps) -> Domain {
    let store = deps.harness.store().clone();
    let events = Route {
        method: Method::Get,
        path: "/v1/events",
        operation: "event_stream",
        summary: "Follow the tenant's facts as server-sent events",
        auth: Auth::Principal,
        call: Call::Stream("notify.event.read", Arc::new(move |ctx, params| feed(&store, &ctx, &params))),
        query: &[
            Param { name: "after", summary: "begin after this index of the log; by default, now" },
            Param { name: "kind", summary: "only kinds that start with this" },
        ],
    };
    Domain {
        name: "notify",
        kinds: slack::KINDS,
        facts: slack::FACTS,
        verbs: slack::verbs(),
        routes: [vec![events], slack::routes(deps)].concat(),
        jobs: slack::jobs(deps),
        codes: slack::CODES,
    }
}
