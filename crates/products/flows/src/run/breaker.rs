//! Circuit breakers: one per tenant and connector.
//!
//! A system that is down takes its time to say so. Without a breaker every run that needs it waits for a time-out, tries
//! again, and fills the workers that other systems' runs wait for. So after [`FAILURES_MAX`] failures in a row nobody
//! asks it any more for a while, and then one run does, alone:
//!
//! ```text
//! closed ──five failures in a row──▶ open ──its time is over──▶ half open ──the probe succeeds──▶ closed
//!                                     ▲                             │
//!                                     └────────the probe fails──────┘   twice as long each time, ten minutes at most
//! ```
//!
//! Failures are counted in the process, for they are many and mean nothing alone. What is durable is the state, and each
//! change of it is an act with a fact. A run that finds the breaker open waits without using up an attempt; only its
//! step's deadline counts on. A failure is a system that cannot be reached, does not answer, or answers 5xx: one that
//! turns a call away is well.

use crate::connector::record::{Connector, connector_id};
use act::{Draw as _, Fault, Plan, QueryCtx, Route, Stamp, Target, Verb, page};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

/// Failures in a row that open a breaker.
pub const FAILURES_MAX: u32 = 5;
/// How long it stays open the first time, in milliseconds.
pub const OPEN_MS: i64 = 30_000;
/// How long it stays open at most.
pub const OPEN_MS_MAX: i64 = 600_000;
/// How long a probe may take before another run may try.
pub const PROBE_MS: i64 = 60_000;
/// Most connectors whose failures are counted; beyond, counting starts afresh.
const COUNTED_MAX: usize = 4_096;

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls are made.
    Closed,
    /// No call is made until its time is over.
    Open,
    /// One run makes a call, to see.
    HalfOpen,
}

/// A breaker that has been open at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// `brk_<connector>`
    pub id: Id,
    /// Its state.
    pub state: State,
    /// Since when, milliseconds UTC.
    pub since_ms: i64,
    /// While open: when a probe may be made. While half open: until when the probe has.
    pub until_ms: i64,
    /// How often it has opened without closing in between.
    pub opens: u32,
    /// What the last failure was.
    pub code: Option<String>,
    /// The run that probes.
    pub probe: Option<Id>,
}

impl Document for Breaker {
    const KIND: &'static str = "flows.breaker";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
}

impl Breaker {
    fn shown(&self) -> Value {
        json!({
            "connector": self.id.as_str().split_once('_').map_or("", |(_, name)| name), "state": self.state,
            "since_ms": self.since_ms, "until_ms": (self.state != State::Closed).then_some(self.until_ms),
            "opens": self.opens, "code": self.code, "probe": self.probe,
        })
    }
}

/// The id of a connector's breaker.
pub fn breaker_id(connector: &str) -> Result<Id, Fault> {
    connector_id(connector)
        .and_then(|_| Id::parse(&format!("brk_{connector}")).ok())
        .ok_or_else(|| Fault::not_found("connector"))
}

/// What a run that wants to call finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// It may.
    Free,
    /// It may be the one that tries.
    Probe,
    /// Not before this time, milliseconds UTC.
    Wait(i64),
}

/// What a breaker says to a run.
pub fn found(breaker: Option<&Breaker>, run: &Id, now_ms: i64) -> Found {
    match breaker {
        None | Some(Breaker { state: State::Closed, .. }) => Found::Free,
        Some(breaker) if breaker.state == State::HalfOpen && breaker.probe.as_ref() == Some(run) => {
            Found::Free
        }
        Some(breaker) if now_ms < breaker.until_ms => Found::Wait(breaker.until_ms),
        Some(_) => Found::Probe,
    }
}

/// Failures in a row, by tenant and connector, of this process.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<(TenantId, String), u32>>);

impl Counts {
    /// Counts one more; the number in a row.
    pub fn failed(&self, tenant: &TenantId, connector: &str) -> u32 {
        let mut counts = self.0.lock();
        if counts.len() >= COUNTED_MAX {
            counts.clear();
        }
        let count = counts.entry((tenant.clone(), connector.to_owned())).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Forgets them.
    pub fn well(&self, tenant: &TenantId, connector: &str) {
        self.0.lock().remove(&(tenant.clone(), connector.to_owned()));
    }
}

/// Arguments of `flows.breaker.turn`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TurnArgs {
    /// The connector.
    pub connector: String,
    /// To which state: `open` or `half_open`.
    pub to: State,
    /// The run whose call failed, or that probes.
    pub run: String,
    /// What failed.
    pub code: Option<String>,
}

/// Arguments of `flows.breaker.close`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseArgs {
    /// The connector.
    pub connector: String,
}

async fn aim(view: &View, connector: &str, to: State) -> Result<Target, Fault> {
    let missing = || Fault::not_found("connector");
    let id = connector_id(connector).ok_or_else(missing)?;
    view.get::<Connector>(&id).await?.ok_or_else(missing)?;
    let mut target = Target::of(Connector::KIND, &id);
    target.attributes = json!({"connector": connector, "to": to});
    target.preview = vec![("Breaker of".into(), connector.to_owned())];
    Ok(target)
}

fn turned(stamp: &Stamp, stored: Option<&Stored<Breaker>>, breaker: &Breaker, kind: &'static str) -> Plan {
    let mut plan = Plan { draft: stamp.draft(), outcome: breaker.shown() };
    match stored {
        Some(stored) => plan.draft.put_if(stored, breaker),
        None => plan.draft.put_new(breaker),
    };
    plan.draft.fact(stamp.fact(kind, &breaker.id, (Breaker::KIND, &breaker.id), breaker.shown()));
    plan
}

fn state_fault(message: &str) -> Fault {
    Fault::conflict("request.state", message.to_owned())
}

async fn turn(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: TurnArgs = act::parse(args)?;
    let id = breaker_id(&args.connector)?;
    let run = Id::parse(&args.run).map_err(|_| Fault::not_found("run"))?;
    let stored = view.get::<Breaker>(&id).await?;
    let now_ms = stamp.at_ms;
    let (state, opens) = stored.as_ref().map_or((State::Closed, 0), |stored| (stored.state, stored.opens));
    let over = stored.as_ref().is_none_or(|stored| now_ms >= stored.until_ms);
    match args.to {
        State::Open if state != State::Open => {
            let open_ms = (OPEN_MS << opens.min(8)).min(OPEN_MS_MAX);
            let breaker = Breaker {
                id,
                state: State::Open,
                since_ms: now_ms,
                until_ms: now_ms + open_ms,
                opens: opens.saturating_add(1),
                code: args.code,
                probe: None,
            };
            Ok(turned(stamp, stored.as_ref(), &breaker, "flows.breaker.opened"))
        }
        State::HalfOpen if state != State::Closed && over => {
            let breaker = Breaker {
                id,
                state: State::HalfOpen,
                since_ms: now_ms,
                until_ms: now_ms + PROBE_MS,
                opens,
                code: stored.as_ref().and_then(|stored| stored.code.clone()),
                probe: Some(run),
            };
            Ok(turned(stamp, stored.as_ref(), &breaker, "flows.breaker.probed"))
        }
        State::Open | State::HalfOpen => {
            Err(state_fault("the breaker is not in a state in which it could turn so"))
        }
        State::Closed => Err(state_fault("a breaker is closed by flows.breaker.close")),
    }
}

async fn close(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: CloseArgs = act::parse(args)?;
    let stored = view.get::<Breaker>(&breaker_id(&args.connector)?).await?;
    let stored = stored.filter(|stored| stored.state != State::Closed);
    let stored = stored.ok_or_else(|| state_fault("the breaker is closed"))?;
    let breaker =
        Breaker { state: State::Closed, since_ms: stamp.at_ms, opens: 0, probe: None, ..stored.doc.clone() };
    Ok(turned(stamp, Some(&stored), &breaker, "flows.breaker.closed"))
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "flows.breaker.turn",
            summary: "Opens the breaker of a connector that fails, or lets one run try",
            args: || schemars::schema_for!(TurnArgs).into(),
            writes: &["flows.breaker"],
            facts: &["flows.breaker.opened", "flows.breaker.probed"],
            secret_args: &[],
            on_closed: None,
            can_wait: false,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: TurnArgs = act::parse(args)?;
                    aim(view, &args.connector, args.to).await
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| turn(view, args, stamp).boxed()),
        },
        Verb {
            act: "flows.breaker.close",
            summary: "Closes the breaker of a connector: calls are made again",
            args: || schemars::schema_for!(CloseArgs).into(),
            writes: &["flows.breaker"],
            facts: &["flows.breaker.closed"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: CloseArgs = act::parse(args)?;
                    aim(view, &args.connector, State::Closed).await
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| close(view, args, stamp).boxed()),
        },
    ]
}

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    page::list(&query, "name", Vec::new(), false, Breaker::shown).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let missing = || Fault::not_found("connector");
    let name = query.param("connector").unwrap_or_default();
    let id = connector_id(name).ok_or_else(missing)?;
    // Its own record first: that is the one whose revision a caller sees.
    let breaker = query.view.peek::<Breaker>(&breaker_id(name)?).await?;
    query.view.peek::<Connector>(&id).await?.ok_or_else(missing)?;
    match breaker {
        Some(breaker) => Ok(breaker.shown()),
        // One that never opened is closed.
        None => Ok(json!({"connector": name, "state": State::Closed, "opens": 0})),
    }
}

/// The routes.
pub fn routes() -> Vec<Route> {
    const READ: &str = "flows.connector.read";
    vec![
        Route::get(
            "/v1/breakers",
            "breaker_list",
            "List the circuit breakers that have been open",
            READ,
            |query| list(query).boxed(),
        )
        .taking(&page::PARAMS),
        Route::get(
            "/v1/breakers/{connector}",
            "breaker_show",
            "Show the circuit breaker of a connector",
            READ,
            |query| show(query).boxed(),
        ),
        Route::post(
            "/v1/breakers/{connector}/close",
            "breaker_close",
            "Close the circuit breaker of a connector",
            "flows.breaker.close",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_breaker_says() {
        let run = |name: &str| Id::parse(name).unwrap();
        let breaker = |state, until_ms, probe: Option<&str>| Breaker {
            id: run("brk_a"),
            state,
            since_ms: 0,
            until_ms,
            opens: 1,
            code: None,
            probe: probe.map(run),
        };
        for (state, until_ms, probe, expected) in [
            (State::Closed, 100, None, Found::Free),
            (State::Open, 100, None, Found::Wait(100)),
            (State::Open, 50, None, Found::Probe),
            (State::HalfOpen, 100, Some("run_a"), Found::Free),
            (State::HalfOpen, 100, Some("run_b"), Found::Wait(100)),
            // The probe has vanished with its process.
            (State::HalfOpen, 50, Some("run_b"), Found::Probe),
        ] {
            let breaker = breaker(state, until_ms, probe);
            assert_eq!(found(Some(&breaker), &run("run_a"), 50), expected, "{state:?} {until_ms} {probe:?}");
        }
        assert_eq!(found(None, &run("run_a"), 50), Found::Free);
    }

    #[test]
    fn failures_are_counted_in_a_row_and_by_tenant() {
        let counts = Counts::default();
        let (a, b) = (TenantId::platform(), TenantId::parse("ten_b").unwrap());
        assert_eq!((counts.failed(&a, "x"), counts.failed(&a, "x"), counts.failed(&a, "y")), (1, 2, 1));
        assert_eq!(counts.failed(&b, "x"), 1);
        counts.well(&a, "x");
        assert_eq!((counts.failed(&a, "x"), counts.failed(&b, "x")), (1, 2));
    }
}
