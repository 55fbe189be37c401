//! Who sends: a round that gives each endpoint its turn.
//!
//! It looks at every tenant's endpoints when facts were committed, or something is due, and starts a turn for each that has
//! something to do. A turn sends one endpoint's events one after the other, until there are no more, one fails, or the turn
//! is over. Turns run beside one another and beside all jobs: they take none of the workers' places.
//!
//! **Slowness stays where it is.** Turns run in two lanes. An endpoint that failed last, or took long, is in the slow lane
//! and waits only for its like; one in the quick lane that begins to hang is counted to the slow lane after [`SLOW`], long
//! before its call ends. In the slow lane a tenant has at most [`TENANT_MAX`] places, and all turns together are less than
//! what egress sends at once, so connectors and models go on whatever webhooks do.
//!
//! **What is in memory may be lost.** That is how far the log was looked through, and how much was taken since the cursor
//! was last written ([`SAVE_MAX`], [`SAVE_MS`]). The next process looks again, and sends that much again under the same ids.

use super::endpoint::{Endpoint, State, checked_url};
use super::letter::{self, Letter};
use super::record::{self, ACT, FailureArgs, LetterArgs, MOVED, RecordArgs};
use super::schedule::{self, Failure};
use crate::Deps;
use crate::event;
use act::Fault;
use bytes::Bytes;
use egress::{Allowlist, Method, Request, Reuse, Rule, Target};
use futures::FutureExt as _;
use harness::{Done, Terms};
use kernel::{Id, TenantId};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::key::Key;
use store::{Range, crash};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use zeroize::Zeroizing;

/// How often there is a look at most.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Turns at once.
pub const TURNS_MAX: usize = 128;
/// Turns that may be in a lane for another to begin in it.
pub const LANE_MAX: usize = 48;
/// Turns of one tenant that may be in the slow lane for another of it to begin there. In the quick lane there are no more
/// than it has endpoints.
pub const TENANT_MAX: usize = 8;
/// Most events sent in one turn.
pub const TURN_MAX: u32 = 100;
/// After how long a turn ends.
const TURN: Duration = Duration::from_secs(10);
/// A delivery that takes longer is slow.
pub const SLOW: Duration = Duration::from_secs(2);
/// How many taken events may not be written down yet.
pub const SAVE_MAX: u64 = 50;
/// For how long, milliseconds.
pub const SAVE_MS: i64 = 10_000;
/// After how many leaves that an endpoint does not want its cursor is written down all the same.
pub const SKIP_MAX: u64 = 10_000;
/// Leaves read from the log at once.
const PAGE: usize = 64;
/// Largest answer that is read, in bytes. Nothing is done with it; a connection is used again only after its answer.
const REPLY_BYTES_MAX: usize = 4096;
/// Rest after storage could not be read or written, milliseconds.
const REST_MS: i64 = 1_000;
/// Rest after a record was refused, milliseconds: policy does not change its mind in a second, and each refusal is a fact.
const REFUSED_REST_MS: i64 = 60_000;

/// Whose turn: tenant and endpoint.
type Whose = (TenantId, Id);

/// How far an endpoint has come, as far as this process knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Spot {
    /// The cursor that this is built upon; if the endpoint's is another, this is nothing.
    base: u64,
    /// Index of the next leaf to look at.
    scan: u64,
    /// Events taken since `base`.
    sent: u64,
    /// When the first of them was taken, milliseconds UTC.
    sent_at_ms: i64,
    /// Whether the last delivery took long.
    slow: bool,
    /// Not before, milliseconds UTC.
    rest_until_ms: i64,
}

impl Spot {
    fn at(cursor: u64) -> Spot {
        Spot { base: cursor, scan: cursor, ..Spot::default() }
    }

    /// When the endpoint has something to do, with a log of `size` leaves and so many letters to be sent; `None`: when
    /// something happens.
    fn due_ms(&self, failing_until_ms: i64, size: u64, letters: usize) -> Option<i64> {
        if size > self.scan || letters > 0 {
            return Some(self.rest_until_ms.max(failing_until_ms));
        }
        (self.sent > 0).then(|| self.rest_until_ms.max(self.sent_at_ms.saturating_add(SAVE_MS)))
    }
}

/// Sends until `stopping` turns true, then writes down how far it is.
pub async fn run(deps: Deps, mut stopping: watch::Receiver<bool>) {
    let mut facts = deps.harness.store().hints().facts;
    // What was not sent before the last end is news.
    facts.mark_changed();
    let mut post = Post {
        deps,
        stopping: stopping.clone(),
        spots: HashMap::new(),
        busy: HashMap::new(),
        turns: JoinSet::new(),
        tasks: HashMap::new(),
        look_at_ms: i64::MAX,
    };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(ended) = post.turns.join_next_with_id() => post.ended(ended),
            _ = ticks.tick() => {
                if facts.has_changed().unwrap_or(true) || post.deps.harness.now_ms() >= post.look_at_ms {
                    facts.mark_unchanged();
                    match AssertUnwindSafe(post.look()).catch_unwind().await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "webhooks could not be looked at; it will be tried again");
                            facts.mark_changed();
                        }
                        Err(_) => tracing::error!("looking at webhooks panicked; the next look will try again"),
                    }
                }
            }
        }
    }
    // They see that it is over as well, and end between two deliveries, or drop the one they are at.
    while let Some(ended) = post.turns.join_next_with_id().await {
        post.ended(ended);
    }
    for (whose, spot) in std::mem::take(&mut post.spots) {
        post.save(&whose, &spot).await;
    }
}

/// A turn's place in a lane.
#[derive(Clone)]
struct Place {
    /// Whether it began in the slow lane.
    slow: bool,
    /// When it began.
    since: Instant,
    /// When its delivery under way began, milliseconds after `since`, plus one; 0: none is.
    call: Arc<AtomicU64>,
}

impl Place {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn call_begins(&self, elapsed_ms: u64) {
        self.call.store(elapsed_ms + 1, Ordering::Relaxed);
    }

    fn call_ends(&self) {
        self.call.store(0, Ordering::Relaxed);
    }

    /// Whether it is in the slow lane, from the beginning or because its delivery under way takes long.
    fn slow(&self, elapsed_ms: u64) -> bool {
        let call = self.call.load(Ordering::Relaxed);
        self.slow || (call > 0 && u128::from(elapsed_ms.saturating_sub(call - 1)) > SLOW.as_millis())
    }
}

struct Post {
    deps: Deps,
    stopping: watch::Receiver<bool>,
    /// Of endpoints that have no turn at the moment.
    spots: HashMap<Whose, Spot>,
    /// Whose turn it is.
    busy: HashMap<Whose, Place>,
    turns: JoinSet<Spot>,
    tasks: HashMap<tokio::task::Id, Whose>,
    /// When something is due.
    look_at_ms: i64,
}

impl Post {
    fn ended(&mut self, ended: Result<(tokio::task::Id, Spot), JoinError>) {
        let task = match &ended {
            Ok((task, _)) => *task,
            Err(error) => error.id(),
        };
        let Some(whose) = self.tasks.remove(&task) else { return };
        self.busy.remove(&whose);
        match ended {
            Ok((_, spot)) => {
                self.spots.insert(whose, spot);
            }
            Err(_) => {
                tracing::error!(tenant = %whose.0, webhook = %whose.1, "a delivery panicked; it will be tried again");
                let rest_until_ms = self.deps.harness.now_ms() + REFUSED_REST_MS;
                // Built upon no cursor that there is, so it is begun anew; the rest is kept.
                self.spots.insert(whose, Spot { base: u64::MAX, rest_until_ms, ..Spot::default() });
            }
        }
        // There may be more.
        self.look_at_ms = i64::MIN;
    }

    /// Whether a tenant has room for one more turn.
    fn room(&self, tenant: &TenantId, slow: bool) -> bool {
        let lane = self.busy.iter().filter(|(_, place)| place.slow(place.elapsed_ms()) == slow);
        let (all, own) =
            lane.fold((0, 0), |(all, own), ((other, _), _)| (all + 1, own + usize::from(other == tenant)));
        self.busy.len() < TURNS_MAX && all < LANE_MAX && (!slow || own < TENANT_MAX)
    }

    /// Starts a turn for every endpoint that has something to do.
    async fn look(&mut self) -> Result<(), Fault> {
        let store = self.deps.harness.store().clone();
        let now_ms = self.deps.harness.now_ms();
        let mut next_ms = i64::MAX;
        let mut active = BTreeSet::new();
        for tenant in store.tenants().await? {
            let view = store.view(&tenant, now_ms);
            let range = |index, state| Range::of(index, Key::new().text(state).bytes());
            let endpoints = view.list::<Endpoint>(range("state", State::Active.as_str())).await?;
            if endpoints.is_empty() {
                continue;
            }
            let size = store.head(&tenant).await?.map_or(0, |head| head.size);
            let letters = view.list::<Letter>(range("state", letter::State::Due.as_str())).await?;
            for endpoint in endpoints.into_iter().map(|found| found.stored.doc) {
                let whose = (tenant.clone(), endpoint.id.clone());
                active.insert(whose.clone());
                if self.busy.contains_key(&whose) {
                    continue;
                }
                let known = self.spots.remove(&whose).unwrap_or_else(|| Spot::at(endpoint.cursor));
                let spot = if known.base == endpoint.cursor {
                    known
                } else {
                    Spot { slow: known.slow, rest_until_ms: known.rest_until_ms, ..Spot::at(endpoint.cursor) }
                };
                let letters: Vec<Letter> = letters
                    .iter()
                    .filter(|letter| letter.stored.webhook == endpoint.id)
                    .map(|letter| letter.stored.doc.clone())
                    .collect();
                let failing_until_ms =
                    endpoint.failing.as_ref().map_or(i64::MIN, |failing| failing.next_at_ms);
                match spot.due_ms(failing_until_ms, size, letters.len()) {
                    Some(due_ms) if due_ms <= now_ms => {
                        let slow = spot.slow || endpoint.failing.is_some();
                        if self.room(&tenant, slow) {
                            self.start(whose, slow, endpoint, spot, letters);
                            continue;
                        }
                        next_ms = i64::MIN;
                    }
                    Some(due_ms) => next_ms = next_ms.min(due_ms),
                    None => {}
                }
                self.spots.insert(whose, spot);
            }
        }
        self.look_at_ms = next_ms;
        // Paused, disabled, deleted: what was taken is written down, and no more is known of it.
        let gone: Vec<Whose> = self.spots.keys().filter(|whose| !active.contains(*whose)).cloned().collect();
        for whose in gone {
            if let Some(spot) = self.spots.remove(&whose) {
                self.save(&whose, &spot).await;
            }
        }
        Ok(())
    }

    fn start(&mut self, whose: Whose, slow: bool, endpoint: Endpoint, spot: Spot, letters: Vec<Letter>) {
        let (deps, stopping) = (self.deps.clone(), self.stopping.clone());
        let place = Place { slow, since: Instant::now(), call: Arc::default() };
        let turn = Turn { deps, stopping, tenant: whose.0.clone(), endpoint, spot, place: place.clone() };
        let task = self.turns.spawn(turn.run(letters));
        self.tasks.insert(task.id(), whose.clone());
        self.busy.insert(whose, place);
    }

    /// Writes down what was taken by an endpoint that has no turn any more. Not being able to costs a repetition.
    async fn save(&self, (tenant, webhook): &Whose, spot: &Spot) {
        if spot.sent > 0
            && let Err(fault) = recorded(&self.deps, tenant, args(webhook, spot)).await
            && fault.code != MOVED
            && fault.code != "not_found"
        {
            tracing::warn!(%fault, %webhook, "how far a webhook is could not be written down; some of it will be sent again");
        }
    }
}

fn args(webhook: &Id, spot: &Spot) -> RecordArgs {
    RecordArgs {
        webhook: webhook.to_string(),
        from: spot.base,
        to: spot.scan,
        sent: spot.sent,
        failure: None,
        letter: None,
    }
}

async fn recorded(deps: &Deps, tenant: &TenantId, args: RecordArgs) -> Result<Value, Fault> {
    let trace = deps.harness.ids().id("trc", deps.harness.now_ms()).to_string();
    let ctx = deps.harness.service("notify", tenant, Vec::new(), &trace);
    match deps.harness.act(&ctx, ACT, json!(args), Terms::default()).await? {
        Done::Outcome { value, .. } => Ok(value),
        // The act cannot wait.
        Done::Waiting { .. } => Err(act::internal("a record waits for people")),
    }
}

/// Waits until the process stops. That whoever says so is gone is a stop as well.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// What came of a delivery.
enum Sent {
    Taken,
    Failed(Failure),
    /// The process ends; nobody knows whether it was taken.
    Stopped,
}

/// One endpoint's turn.
struct Turn {
    deps: Deps,
    stopping: watch::Receiver<bool>,
    tenant: TenantId,
    endpoint: Endpoint,
    spot: Spot,
    place: Place,
}

impl Turn {
    async fn run(mut self, letters: Vec<Letter>) -> Spot {
        if let Err(fault) = self.work(letters).await {
            let now_ms = self.deps.harness.now_ms();
            let passing = fault.class.retryable();
            if fault.code == MOVED || fault.code == "not_found" {
                // Somebody has set it anew; what is there now is read by the next look.
                self.spot = Spot { base: u64::MAX, slow: self.spot.slow, ..Spot::default() };
            } else {
                tracing::warn!(%fault, webhook = %self.endpoint.id, "a webhook's deliveries rest for a while");
                self.spot.rest_until_ms = now_ms + if passing { REST_MS } else { REFUSED_REST_MS };
            }
        }
        self.spot
    }

    async fn work(&mut self, letters: Vec<Letter>) -> Result<(), Fault> {
        let deps = self.deps.clone();
        let (store, custody) = (deps.harness.store(), &deps.custody);
        let keys = match self.endpoint.keys(custody, &self.tenant, deps.harness.now_ms()) {
            Ok(keys) => keys,
            Err(code) => return self.save(Some(Failure { code, status: None, after_ms: None }), None).await,
        };
        for letter in letters {
            let leaves = store.leaves(&self.tenant, letter.index, 1).await?;
            let fact = leaves.first().and_then(|leaf| event::fact(&leaf.leaf)).unwrap_or_default();
            let failure = match self.send(&keys, letter.index, fact).await {
                Sent::Stopped => return Ok(()),
                Sent::Taken => None,
                Sent::Failed(failure) => Some(failed(failure)),
            };
            self.save(None, Some(LetterArgs { letter: letter.id.to_string(), failure })).await?;
        }
        let (began, mut left) = (Instant::now(), TURN_MAX);
        'turn: while left > 0 && began.elapsed() < TURN {
            let leaves = store.leaves(&self.tenant, self.spot.scan, PAGE).await?;
            if leaves.is_empty() {
                break;
            }
            for leaf in leaves {
                let fact =
                    event::fact(&leaf.leaf).filter(|fact| record::told(fact) && self.endpoint.wants(fact));
                let Some(fact) = fact else {
                    self.spot.scan = leaf.index + 1;
                    continue;
                };
                match self.send(&keys, leaf.index, fact).await {
                    Sent::Taken => self.taken(leaf.index).await?,
                    Sent::Failed(failure) => return self.save(Some(failure), None).await,
                    Sent::Stopped => break 'turn,
                }
                left -= 1;
                if left == 0 || began.elapsed() >= TURN {
                    break 'turn;
                }
            }
        }
        let waited = deps.harness.now_ms() >= self.spot.sent_at_ms.saturating_add(SAVE_MS);
        let passed = self.spot.scan.saturating_sub(self.spot.base);
        if (self.spot.sent > 0 && waited) || passed >= SKIP_MAX {
            self.save(None, None).await
        } else {
            Ok(())
        }
    }

    async fn taken(&mut self, index: u64) -> Result<(), Fault> {
        self.spot.scan = index + 1;
        self.spot.sent += 1;
        if self.spot.sent == 1 {
            self.spot.sent_at_ms = self.deps.harness.now_ms();
        }
        crash::point("event.sent");
        // That it works again is news; the rest can wait.
        if self.endpoint.failing.is_some() || self.spot.sent >= SAVE_MAX {
            self.save(None, None).await
        } else {
            Ok(())
        }
    }

    async fn save(&mut self, failure: Option<Failure>, letter: Option<LetterArgs>) -> Result<(), Fault> {
        let args = RecordArgs { failure: failure.map(failed), letter, ..args(&self.endpoint.id, &self.spot) };
        let said = recorded(&self.deps, &self.tenant, args).await?;
        crash::point("event.recorded");
        let cursor = said["cursor"].as_u64().ok_or_else(|| act::internal("a record says no cursor"))?;
        self.spot = Spot { slow: self.spot.slow, ..Spot::at(cursor) };
        if said["failing"] == false {
            self.endpoint.failing = None;
        }
        Ok(())
    }

    async fn send(&mut self, keys: &[Zeroizing<Vec<u8>>], index: u64, fact: Value) -> Sent {
        let began = Instant::now();
        let mut stopping = self.stopping.clone();
        self.place.call_begins(self.place.elapsed_ms());
        let sent = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return Sent::Stopped,
            sent = deliver(&self.deps, &self.tenant, &self.endpoint, keys, index, fact) => sent,
        };
        self.place.call_ends();
        self.spot.slow = began.elapsed() > SLOW;
        match sent {
            Ok(()) => Sent::Taken,
            Err(failure) => Sent::Failed(failure),
        }
    }
}

fn failed(failure: Failure) -> FailureArgs {
    FailureArgs { code: failure.code.to_owned(), status: failure.status, after_ms: failure.after_ms }
}

/// One delivery: what the target said to it.
async fn deliver(
    deps: &Deps,
    tenant: &TenantId,
    endpoint: &Endpoint,
    keys: &[Zeroizing<Vec<u8>>],
    index: u64,
    fact: Value,
) -> Result<(), Failure> {
    let refused = |code| Failure { code, status: None, after_ms: None };
    // What the operator allows may have changed since the endpoint was made.
    checked_url(&deps.private_hosts, &endpoint.target).map_err(|_| refused("webhook.invalid"))?;
    let allow = allowlist(deps, &endpoint.target).ok_or_else(|| refused("webhook.invalid"))?;
    let id = fact["id"].as_str().unwrap_or_default().to_owned();
    let timestamp_s = deps.harness.now_ms().div_euclid(1000);
    let body = event::cloud(index, fact).to_string();
    let mut request = Request::new(Method::POST, endpoint.target.clone(), allow);
    request.headers = vec![
        ("content-type".into(), event::MEDIA_TYPE.into()),
        ("webhook-signature".into(), super::signature::signatures(keys, &id, timestamp_s, body.as_bytes())),
        ("webhook-id".into(), id),
        ("webhook-timestamp".into(), timestamp_s.to_string()),
    ];
    request.body = Bytes::from(body);
    request.reuse = Reuse::Within(format!("webhook {tenant}"));
    request.limits.deadline_ms = deps.webhook_call_ms;
    request.limits.first_byte_ms = deps.webhook_call_ms;
    request.limits.connect_ms = request.limits.connect_ms.min(deps.webhook_call_ms);
    request.limits.idle_ms = request.limits.idle_ms.min(deps.webhook_call_ms);
    request.limits.response_bytes = REPLY_BYTES_MAX;
    let mut reply = deps.egress.stream(request).await.map_err(|error| schedule::unanswered(&error))?;
    let headers = reply.headers().clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (after, date) = (header("retry-after"), header("date"));
    let said = schedule::judged(reply.status().as_u16(), after, date);
    // The status has said it all. A body that is too long or too slow costs the connection and nothing else.
    while let Ok(Some(_)) = reply.chunk().await {}
    said
}

/// Where deliveries may go: the endpoint's own origin, private only where the operator says so.
fn allowlist(deps: &Deps, url: &str) -> Option<Allowlist> {
    let target = Target::parse(url).ok()?;
    let mut rule = Rule::parse(&target.origin()).ok()?;
    if deps.private(&target.host().to_string(), target.port()) {
        rule = rule.allow_private().ok()?;
    }
    Allowlist::new(vec![rule]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_delivery_that_takes_long_is_counted_to_the_slow_lane() {
        let place = Place { slow: false, since: Instant::now(), call: Arc::default() };
        assert!(!place.slow(60_000), "a long turn of quick deliveries is quick");
        place.call_begins(60_000);
        assert!(!place.slow(62_000));
        assert!(place.slow(62_001));
        place.call_ends();
        assert!(!place.slow(62_001));
        assert!(Place { slow: true, ..place }.slow(0));
    }

    #[test]
    fn when_an_endpoint_has_something_to_do() {
        let rested = Spot { rest_until_ms: 50, ..Spot::at(7) };
        let unsaved = Spot { sent: 1, sent_at_ms: 40, ..Spot::at(7) };
        for (spot, failing_until_ms, size, letters, expected) in [
            (Spot::at(7), i64::MIN, 7, 0, None),
            (Spot::at(7), i64::MIN, 8, 0, Some(0)),
            (Spot::at(7), 90, 8, 0, Some(90)),
            (Spot::at(7), 90, 7, 0, None),
            (Spot::at(7), i64::MIN, 7, 1, Some(0)),
            (rested.clone(), i64::MIN, 8, 0, Some(50)),
            (rested, i64::MIN, 7, 0, None),
            (unsaved.clone(), i64::MIN, 7, 0, Some(40 + SAVE_MS)),
            (unsaved, i64::MIN, 8, 0, Some(0)),
        ] {
            assert_eq!(spot.due_ms(failing_until_ms, size, letters), expected, "{spot:?} {size}");
        }
    }
}
