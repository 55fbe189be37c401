//! Polling: asking a system what has changed, beside what it says by itself.
//!
//! Outgoing webhooks are best effort: a business rule that fails, a restart, a full queue, and the event is gone with
//! nobody the wiser. So a connector may also be asked, every so often, for what has changed since the last time. Three
//! things make that safe:
//!
//! - **Overlap.** Each look reaches [`OVERLAP_MS`] behind the latest change that was seen, because changes become visible
//!   later than they say. What is seen twice is the same event. Where to begin is told by the times of the other system
//!   alone, so its clock may differ from ours; ours only keeps a time in the future from hiding what comes before it.
//! - **Identity.** An event is the same whichever way it came: the manifest says which values identify it (for ServiceNow
//!   `sys_id` and `sys_mod_count`), and a run is started once for them. What was handed on lately is remembered, so that
//!   the overlap does not fill the log with duplicates.
//! - **Author.** A change made by the connector's own user is our own write-back, and starts nothing. What somebody else
//!   changed right before it is found by the number of the change ([`super::change`]).
//!
//! Polling that is switched on begins where things stand, also after it was off: what happened meanwhile was not to be
//! heard of. A process that was down, or a system that did not answer, is another matter: there the look goes on where
//! the last one ended.
//!
//! A full page means that there is more: the next look goes on at the time of its last row, or behind it where all rows
//! have one time. A system that gives the same rows whatever the offset ends the look with a code, and is asked again at
//! the pace of looks that fail. The place moves only when everything before it was handed on, so a process that dies asks again.

use super::change;
use super::login::Logins;
use super::manifest::{Effect, Event, Manifest};
use super::placeholder::{self, Values};
use super::record::{Connector, Version, connector_id, version_id};
use super::{request, tool};
use crate::Deps;
use crate::run::breaker::{Breaker, State, breaker_id};
use crate::run::call::{self, Heard};
use crate::run::{RunDoc, Wrote, wrote_key};
use crate::template::whole_numbers;
use act::{Assurance, Class, Ctx, Draw as _, Fault, Plan, Principal, PrincipalKind, Stamp, Target, Verb};
use futures::FutureExt as _;
use harness::{Done, Terms};
use kernel::permit::JobKind;
use kernel::{Id, Lease, TenantId, calendar, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::{CommitError, Document, Range, Stored, View};

/// Shortest time between two looks, in milliseconds.
pub const EVERY_MS_MIN: i64 = 10_000;
/// Longest time between two looks.
pub const EVERY_MS_MAX: i64 = 86_400_000;
/// How far a look reaches behind the last one.
pub const OVERLAP_MS: i64 = 300_000;
/// Most rows of a page.
pub const PAGE_MAX: usize = 200;
/// Most pages of one event that one look reads.
pub const PAGES_MAX: u32 = 10;
/// Most events that are remembered as handed on, per kind of event.
pub const SEEN_MAX: usize = 1_000;
/// Longest wait after looks that failed, in times of the ordinary one.
const BACKOFF_MAX: i64 = 8;

/// Looks at a system once, and begins the next look.
pub static POLL: JobKind = JobKind {
    name: "flows.poll",
    writes: &["flows.poll"],
    facts: &["flows.poll.finished"],
    lease_ms: 120_000,
    starts_max: 1_000,
};

/// How a time is written for the other system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeForm {
    /// `2026-11-21 06:30:00`, UTC.
    #[default]
    UtcSeconds,
    /// Milliseconds since 1970, UTC.
    UnixMs,
}

/// How to look for events of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    /// A `READ` action of the same manifest, whose rows are in order of their time.
    pub action: String,
    /// Its parameters, by the placeholders `{since}` and `{offset}`.
    pub params: Map<String, Value>,
    /// Name of the output that holds the rows.
    pub items: String,
    /// Where in a row its time stands (RFC 6901).
    pub at: String,
    /// How times are written.
    #[serde(default)]
    pub time: TimeForm,
    /// Rows of a full page.
    pub page: usize,
    /// The event that a row becomes, by placeholders of the row's members: of the shape that is delivered, so that both
    /// ways are the same event.
    pub event: Map<String, Value>,
}

impl Poll {
    /// Whether the events that it makes have something at this place.
    pub(super) fn says(&self, pointer: &str) -> bool {
        Value::Object(self.event.clone()).pointer(pointer).is_some()
    }

    /// What is wrong with it.
    pub fn problems(&self, manifest: &Manifest) -> Vec<String> {
        let mut problems = Vec::new();
        match manifest.action(&self.action) {
            Some(action) if action.effect == Effect::Read => {
                let takes = super::manifest::parameters(&action.params);
                for name in self.params.keys().filter(|name| !takes.contains(name.as_str())) {
                    problems.push(format!("poll gives {} the unknown parameter {name}.", self.action));
                }
                if !action.response.extract.contains_key(&self.items) {
                    problems
                        .push(format!("poll.items names {}, which the action does not give.", self.items));
                }
            }
            _ => problems.push(format!("poll names {}, which is no action of class READ.", self.action)),
        }
        if !self.at.starts_with('/') {
            problems.push("poll.at is a JSON pointer.".into());
        }
        if !(1..=PAGE_MAX).contains(&self.page) {
            problems.push(format!("poll.page is 1 to {PAGE_MAX} rows."));
        }
        let known = |name: &String| name == "since" || name == "offset";
        match placeholder::names(&Value::Object(self.params.clone())) {
            Ok(names) if names.iter().all(known) && names.len() == 2 => {}
            Ok(_) => problems.push("poll.params refers to {since} and {offset}, and to nothing else.".into()),
            Err(error) => problems.push(format!("poll.params: {error}.")),
        }
        if let Err(error) = placeholder::names(&Value::Object(self.event.clone())) {
            problems.push(format!("poll.event: {error}."));
        }
        problems
    }
}

/// Where looking for a kind of event stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// From when to look, milliseconds UTC.
    pub since_ms: i64,
    /// Rows of that very time that have been handed on.
    pub offset: u64,
    /// Digests of the latest events that were handed on.
    pub seen: VecDeque<String>,
    /// When polling was switched on: no look reaches behind that.
    #[serde(default)]
    pub begun_ms: i64,
    /// The latest time that a row had.
    #[serde(default)]
    pub last_ms: Option<i64>,
    /// When a row was last seen for the first time, by our clock.
    #[serde(default)]
    pub fresh_ms: i64,
    /// The last changes that were heard of, by thing; of events that count them.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub known: VecDeque<(String, i64)>,
}

impl Cursor {
    /// All of it has been read. Where the next look begins.
    fn rests(&mut self, began_ms: i64) {
        if let Some(last_ms) = self.last_ms {
            // Nothing new for as long as anything may come late: what is there need not be read again and again.
            let behind_ms = if began_ms - self.fresh_ms > OVERLAP_MS { 0 } else { OVERLAP_MS };
            let since_ms = last_ms.saturating_sub(behind_ms).min(began_ms - OVERLAP_MS);
            self.since_ms = since_ms.max(self.begun_ms).max(0);
        }
        self.offset = 0;
    }

    /// The last change of a thing that was heard of.
    fn known(&self, object: &str) -> Option<i64> {
        self.known.iter().find(|(known, _)| known == object).map(|(_, count)| *count)
    }

    fn learn(&mut self, change: &change::Change) {
        let before = self.known(&change.object);
        self.known.retain(|(object, _)| *object != change.object);
        let count = before.map_or(change.count, |before| before.max(change.count));
        self.known.push_back((change.object.clone(), count));
        while self.known.len() > SEEN_MAX {
            self.known.pop_front();
        }
    }
}

/// Where polling a connector stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polling {
    /// `pol_<connector>`
    pub id: Id,
    /// The job of the next look; another one lets go.
    pub job: Id,
    /// By kind of event.
    pub cursors: BTreeMap<String, Cursor>,
    /// Looks in a row that failed.
    pub failures: u32,
    /// When the last look was made, milliseconds UTC.
    pub looked_at_ms: Option<i64>,
    /// Why the last look failed, if it did.
    pub code: Option<String>,
}

impl Document for Polling {
    const KIND: &'static str = "flows.poll";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// The id of a connector's polling.
pub fn polling_id(connector: &str) -> Option<Id> {
    connector_id(connector)?;
    Id::parse(&format!("pol_{connector}")).ok()
}

/// Begins polling. Where it `goes_on`, with another pace or in another version, from where it stood; else from now.
pub(super) async fn begin(
    view: &View,
    plan: &mut Plan,
    stamp: &Stamp,
    name: &str,
    manifest: &Manifest,
    goes_on: bool,
) -> Result<(), Fault> {
    let missing = || Fault::invalid("request.invalid", "nothing of this connector can be polled");
    let id = polling_id(name).ok_or_else(missing)?;
    let stored = view.get::<Polling>(&id).await?;
    let job = stamp.id("job");
    let mut polling = match &stored {
        Some(stored) => Polling { job: job.clone(), failures: 0, ..stored.doc.clone() },
        None => Polling {
            id,
            job: job.clone(),
            cursors: BTreeMap::new(),
            failures: 0,
            looked_at_ms: None,
            code: None,
        },
    };
    let polled: Vec<&String> =
        manifest.events.iter().filter(|(_, event)| event.poll.is_some()).map(|(name, _)| name).collect();
    if polled.is_empty() {
        return Err(missing());
    }
    polling.cursors.retain(|name, _| goes_on && polled.contains(&name));
    for name in polled {
        let at_ms = stamp.at_ms;
        let fresh = Cursor { since_ms: at_ms, begun_ms: at_ms, fresh_ms: at_ms, ..Cursor::default() };
        polling.cursors.entry(name.clone()).or_insert(fresh);
    }
    plan.draft.job(job, &POLL, stamp.at_ms, false, &json!({"connector": name}));
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &polling),
        None => plan.draft.put_new(&polling),
    };
    Ok(())
}

/// Arguments of `flows.connector.poll`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PollArgs {
    /// The connector.
    pub connector: String,
}

/// The verb by which policy is asked whether a connector may be looked at.
pub fn verb() -> Verb {
    Verb {
        act: "flows.connector.poll",
        summary: "Asks a connector for what has changed",
        args: || schemars::schema_for!(PollArgs).into(),
        writes: &[],
        facts: &["flows.poll.asked"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: PollArgs = act::parse(args)?;
                let missing = || Fault::not_found("connector");
                let id = connector_id(&args.connector).ok_or_else(missing)?;
                let connector = view.get::<Connector>(&id).await?.filter(|doc| doc.removed_at_ms.is_none());
                let connector = connector.ok_or_else(missing)?;
                let mut target = Target::of(Connector::KIND, &id);
                target.attributes = json!({"connector": args.connector, "manifest": connector.manifest.0,
                                           "base_url": connector.base_url});
                target.preview = vec![("Connector".into(), args.connector)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|_, args, stamp| {
            async move {
                let args: PollArgs = act::parse(args)?;
                let id = connector_id(&args.connector).ok_or_else(|| Fault::not_found("connector"))?;
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({}) };
                plan.draft.fact(stamp.fact("flows.poll.asked", &id, (Connector::KIND, &id), json!({})));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

/// Looks at systems.
pub struct Poller {
    deps: Deps,
    logins: Arc<Logins>,
}

/// What a look came to.
#[derive(Default)]
struct Look {
    rows: u64,
    started: u64,
    passed: u64,
    /// Whether there is more to read at once.
    more: bool,
}

/// Why a look ended early.
struct Halt {
    code: String,
    retry_after_ms: Option<i64>,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt { code: fault.code, retry_after_ms: fault.retry_after_ms }
    }
}

impl From<store::ReadError> for Halt {
    fn from(error: store::ReadError) -> Halt {
        Fault::from(error).into()
    }
}

impl Poller {
    /// A poller.
    pub fn new(deps: Deps, logins: Arc<Logins>) -> Poller {
        Poller { deps, logins }
    }

    /// Carries out a `flows.poll` job.
    pub async fn poll(&self, lease: Lease) {
        let job = lease.id.clone();
        if let Err(fault) = self.round(lease).await {
            tracing::warn!(%job, %fault, "a connector could not be polled; its lease runs out and it is tried again");
        }
    }

    async fn round(&self, lease: Lease) -> Result<(), Fault> {
        let harness = &self.deps.harness;
        let body: PollArgs = serde_json::from_slice(&lease.body).map_err(act::internal)?;
        let name = body.connector;
        let now_ms = harness.now_ms();
        let view = harness.store().view(&lease.tenant, now_ms);
        let (Some(id), Some(connector)) = (polling_id(&name), connector_id(&name)) else {
            return Err(Fault::not_found("connector"));
        };
        let stored = view.get::<Polling>(&id).await?.ok_or_else(|| Fault::not_found("polling"))?;
        let trace = harness.ids().id("trc", now_ms).to_string();
        let ctx = harness.service("poll", &lease.tenant, Vec::new(), &trace);
        let installed = view.peek::<Connector>(&connector).await?.filter(|doc| doc.removed_at_ms.is_none());
        let every_ms = installed.as_ref().and_then(|doc| doc.poll_every_ms);
        let (Some(installed), Some(every_ms), true) = (installed, every_ms, stored.job == lease.id) else {
            return self
                .conclude(lease, &stored, None, json!({"connector": name, "ended": true}), &ctx)
                .await;
        };
        let mut polling = stored.doc.clone();
        let mut look = Look::default();
        let ended = self.look(&lease, &ctx, &installed, &mut polling, &mut look).await;
        polling.looked_at_ms = Some(now_ms);
        let wait_ms = match &ended {
            Ok(()) => {
                (polling.failures, polling.code) = (0, None);
                if look.more { 1 } else { every_ms }
            }
            Err(halt) => {
                polling.failures = polling.failures.saturating_add(1);
                polling.code = Some(halt.code.clone());
                let times = 1_i64 << polling.failures.min(8);
                let asked_ms = halt.retry_after_ms.unwrap_or(0).clamp(0, crate::effect::RETRY_AFTER_MS_MAX);
                every_ms.saturating_mul(times.min(BACKOFF_MAX)).max(asked_ms)
            }
        };
        let outcome = json!({"connector": name, "rows": look.rows, "started": look.started, "passed_over": look.passed,
                             "more": look.more, "code": polling.code});
        let next = Some((polling, harness.now_ms().saturating_add(wait_ms)));
        self.conclude(lease, &stored, next, outcome, &ctx).await
    }

    async fn conclude(
        &self,
        lease: Lease,
        stored: &Stored<Polling>,
        next: Option<(Polling, i64)>,
        outcome: Value,
        ctx: &Ctx,
    ) -> Result<(), Fault> {
        let stamp = self.deps.harness.stamp(ctx);
        let mut draft = stamp.draft();
        let name = outcome["connector"].clone();
        draft.fact(stamp.fact("flows.poll.finished", &stored.id, (Polling::KIND, &stored.id), outcome));
        if let Some((mut polling, at_ms)) = next {
            polling.job = stamp.id("job");
            draft.job(polling.job.clone(), &POLL, at_ms, false, &json!({"connector": name}));
            draft.put_if(stored, &polling);
        }
        match self.deps.harness.conclude(lease, draft, Vec::new()).await {
            // Somebody has begun polling anew meanwhile: it is theirs.
            Ok(_) | Err(CommitError::Conflict { .. } | CommitError::Fenced) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn look(
        &self,
        lease: &Lease,
        ctx: &Ctx,
        connector: &Connector,
        polling: &mut Polling,
        look: &mut Look,
    ) -> Result<(), Halt> {
        let harness = &self.deps.harness;
        let store = harness.store();
        if let Some(row) = store.record(&lease.tenant, Breaker::KIND, &breaker_id(connector.name())?).await? {
            let breaker = store::decode::<Breaker>(&row)?;
            let left_ms = breaker.until_ms - harness.now_ms();
            if breaker.state != State::Closed && left_ms > 0 {
                return Err(Halt { code: "flows.breaker_open".into(), retry_after_ms: Some(left_ms) });
            }
        }
        let args = serde_json::to_value(PollArgs { connector: connector.name().to_owned() })
            .map_err(act::internal)?;
        match harness.act(ctx, "flows.connector.poll", args, Terms::default()).await? {
            Done::Outcome { .. } => {}
            Done::Waiting { .. } => return Err(act::internal("policy wants people for a look").into()),
        }
        let missing = || Fault::not_found("connector");
        let id = version_id(&connector.version).ok_or_else(missing)?;
        let row = store.record(&lease.tenant, Version::KIND, &id).await?.ok_or_else(missing)?;
        let version = store::decode::<Version>(&row)?.doc;
        for (event_name, event) in &version.manifest.events {
            let (Some(poll), Some(cursor)) = (&event.poll, polling.cursors.get_mut(event_name)) else {
                continue;
            };
            if let Some(action) = version.manifest.action(&poll.action) {
                tool::check(connector, &version.manifest, &poll.action, action)?;
            }
            let began_ms = harness.now_ms();
            // The page before, where only the offset has moved since.
            let mut before = None;
            for page in 0..PAGES_MAX {
                if !store.job_renew(lease).await.map_err(Fault::from)? {
                    return Err(Halt { code: "store.fenced".into(), retry_after_ms: None });
                }
                let rows = self.rows(&lease.tenant, &version, poll, cursor).await?;
                let mut keys = Vec::with_capacity(rows.len());
                for row in &rows {
                    look.rows += 1;
                    let event = (event_name.as_str(), event, version.login.user());
                    cursor.last_ms = time_of(row, poll).max(cursor.last_ms);
                    keys.push(self.hand_on(&lease.tenant, connector, event, row, cursor, look).await?);
                }
                keys.sort();
                if rows.len() < poll.page {
                    cursor.rests(began_ms);
                    break;
                }
                if before.as_ref() == Some(&keys) {
                    // The other side gives the same rows whatever offset it is asked for. Going on would ask for ever.
                    cursor.offset = 0;
                    return Err(Halt { code: "flows.poll_stuck".into(), retry_after_ms: None });
                }
                let last_ms = rows.last().and_then(|row| time_of(row, poll));
                match last_ms {
                    Some(last_ms) if last_ms > cursor.since_ms => {
                        (cursor.since_ms, cursor.offset) = (last_ms, 0);
                        before = None;
                    }
                    _ => {
                        cursor.offset = cursor.offset.saturating_add(rows.len() as u64);
                        before = Some(keys);
                    }
                }
                look.more |= page + 1 == PAGES_MAX;
            }
        }
        Ok(())
    }

    async fn rows(
        &self,
        tenant: &TenantId,
        version: &Version,
        poll: &Poll,
        cursor: &Cursor,
    ) -> Result<Vec<Value>, Halt> {
        let halt = |code: &str| Halt { code: code.to_owned(), retry_after_ms: None };
        let action = version.manifest.action(&poll.action).ok_or_else(|| halt("flows.action_missing"))?;
        let since = written(cursor.since_ms, poll.time);
        let place = Map::from_iter([
            ("since".to_owned(), since),
            ("offset".to_owned(), cursor.offset.to_string().into()),
        ]);
        let filled =
            placeholder::fill(&Value::Object(poll.params.clone()), Values { params: &place, marker: "" })
                .map_err(|_| halt("flows.params_invalid"))?;
        let params = filled.and_then(|params| params.as_object().cloned()).unwrap_or_default();
        let prepared = request::prepare(&version.manifest, action, &version.base_url, &params, "", "")
            .map_err(|_| halt("flows.params_invalid"))?;
        let caller = call::Caller { deps: &self.deps, logins: &self.logins, tenant, version };
        let (heard, _) = caller.send(caller.prove().await, action, &params, prepared).await;
        match heard {
            Heard::Done(output) => match output.get(&poll.items) {
                Some(Value::Array(rows)) => Ok(rows.iter().take(PAGE_MAX).cloned().collect()),
                _ => Err(halt("flows.reply_unreadable")),
            },
            Heard::Failed { code, retry_after_ms } => Err(Halt { code, retry_after_ms }),
            Heard::Refused { code } | Heard::Unknown { code } => Err(Halt { code, retry_after_ms: None }),
        }
    }

    /// Hands a row on as an event, unless that has been done. What tells it from other rows.
    async fn hand_on(
        &self,
        tenant: &TenantId,
        connector: &Connector,
        (event_name, event, own): (&str, &Event, Option<&str>),
        row: &Value,
        cursor: &mut Cursor,
        look: &mut Look,
    ) -> Result<String, Halt> {
        let row_key = || short(&hex::encode(&sha256(row.to_string().as_bytes())));
        let (Some(poll), Some(members)) = (&event.poll, row.as_object()) else { return Ok(row_key()) };
        let filled =
            placeholder::fill(&Value::Object(poll.event.clone()), Values { params: members, marker: "" });
        let Ok(Some(body)) = filled else {
            look.passed += 1;
            return Ok(row_key());
        };
        let mut body = whole_numbers(body);
        if event.author.as_ref().is_some_and(|author| body.pointer(author).is_none_or(Value::is_null)) {
            // Nobody says who made the change: it may be our own.
            look.passed += 1;
            return Ok(row_key());
        }
        let mut change = change::of(event, connector.name(), &body);
        let author = event.author.as_ref().and_then(|author| body.pointer(author)).and_then(Value::as_str);
        let mut settled = true;
        if let (Some(ours), true) = (&change, author.is_some() && author == own) {
            let writes = self.writes(tenant, &ours.object).await?;
            settled = writes.iter().any(|wrote| wrote.count == ours.count);
            if let Some(count) = change::overlaid(&writes, cursor.known(&ours.object), ours.count) {
                change::beneath(event, &mut body, count);
            }
        }
        // A write whose reply is still on its way says nothing yet about what lies beneath it. As long as it is within the
        // overlap it is looked at again.
        change = change.filter(|_| settled);
        let parts: Vec<String> = event
            .identity
            .iter()
            .filter_map(|pointer| body.pointer(pointer))
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        // Without an identity the whole event is its own.
        let named = if parts.is_empty() { body.to_string() } else { parts.join("\0") };
        let key = short(&hex::encode(&sha256(format!("{event_name}\0{named}").as_bytes())));
        if cursor.seen.contains(&key) {
            look.passed += 1;
            change.iter().for_each(|change| cursor.learn(change));
            return Ok(key);
        }
        let ctx = self.ctx(tenant, connector, &key);
        let args = json!({"connector": connector.name(), "event_name": event_name, "event": body});
        match self.deps.harness.act(&ctx, "flows.run.start", args, Terms::default()).await {
            Ok(Done::Outcome { value, held, .. }) => {
                let started = value["runs"].as_array().map_or(0, Vec::len);
                look.started += started as u64;
                look.passed += u64::from(started == 0);
                self.deps.harness.hand_over(held);
            }
            Ok(Done::Waiting { .. }) => look.passed += 1,
            Err(fault) if fault.class.retryable() || fault.class == Class::Internal => {
                return Err(fault.into());
            }
            Err(fault) => {
                // Refused for good, and recorded where policy refused it: it is not asked for again.
                tracing::warn!(connector = connector.name(), %fault, "a polled event was refused");
                look.passed += 1;
            }
        }
        if !settled {
            return Ok(key);
        }
        change.iter().for_each(|change| cursor.learn(change));
        cursor.fresh_ms = self.deps.harness.now_ms();
        cursor.seen.push_back(key.clone());
        while cursor.seen.len() > SEEN_MAX {
            cursor.seen.pop_front();
        }
        Ok(key)
    }

    /// Our own writes of a thing, the latest ones.
    async fn writes(&self, tenant: &TenantId, object: &str) -> Result<Vec<Wrote>, Halt> {
        let harness = &self.deps.harness;
        let view = harness.store().view(tenant, harness.now_ms());
        let range = Range { descending: true, ..Range::of("wrote", wrote_key(object).bytes()) };
        let runs = view.list::<RunDoc>(range).await?;
        let writes = runs.iter().flat_map(|found| &found.stored.wrote);
        Ok(writes.filter(|wrote| wrote.object == object).cloned().collect())
    }

    /// A polled event acts as the connector's integration, like a delivered one.
    fn ctx(&self, tenant: &TenantId, connector: &Connector, key: &str) -> Ctx {
        let harness = &self.deps.harness;
        let now_ms = harness.now_ms();
        Ctx {
            tenant: tenant.clone(),
            principal: Principal {
                id: harness::service_id(&format!("hook-{}", connector.name())),
                kind: PrincipalKind::Integration,
                roles: vec!["integration".into()],
                home: tenant.clone(),
                rights: Default::default(),
            },
            on_behalf_of: Vec::new(),
            assurance: Assurance { method: "poll".into(), level: 0, at_ms: now_ms, until_ms: None },
            trace: harness.ids().id("trc", now_ms).to_string(),
            idempotency_key: Some(format!("poll:{key}")),
            requested_at_ms: now_ms,
        }
    }
}

/// Half of a digest in hexadecimal: enough to tell events apart.
fn short(digest: &str) -> String {
    digest.get(..32).unwrap_or(digest).to_owned()
}

/// A time as the other system reads it.
pub fn written(at_ms: i64, form: TimeForm) -> Value {
    match form {
        TimeForm::UnixMs => at_ms.to_string().into(),
        TimeForm::UtcSeconds => calendar::text(at_ms).into(),
    }
}

/// The time of a row, in milliseconds UTC.
fn time_of(row: &Value, poll: &Poll) -> Option<i64> {
    let value = row.pointer(&poll.at)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match poll.time {
        TimeForm::UnixMs => text.parse().ok(),
        TimeForm::UtcSeconds => calendar::parse(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        let poll = |time| Poll {
            action: "a".into(),
            params: Map::new(),
            items: "i".into(),
            at: "/t".into(),
            time,
            page: 1,
            event: Map::new(),
        };
        for (at_ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_795_242_685_000, "2026-11-21 06:31:25"),
            (4_107_542_399_000, "2100-02-28 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(written(at_ms, TimeForm::UtcSeconds), text);
            assert_eq!(time_of(&json!({"t": text}), &poll(TimeForm::UtcSeconds)), Some(at_ms), "{text}");
            assert_eq!(time_of(&json!({"t": at_ms}), &poll(TimeForm::UnixMs)), Some(at_ms));
        }
        for bad in [
            json!({}),
            json!({"t": ""}),
            json!({"t": "2026-13-01 00:00:00"}),
            json!({"t": "tomorrow, perhaps"}),
            json!({"t": "2026-é1-01 00:00:00"}),
        ] {
            assert_eq!(time_of(&bad, &poll(TimeForm::UtcSeconds)), None, "{bad}");
        }
    }
}
