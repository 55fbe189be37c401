//! The edge's own rows of the table: whether it lives, whether it can work, what it has done, what it offers.
//!
//! Three of them answer anybody, and so hold nothing of any tenant. The contract of events answers whoever has a role: it
//! holds nothing either, and the list of what answers anybody only shrinks. The counts are the installation's and not a tenant's:
//! only principals of the platform read them.

use crate::backup::{self, Backups};
use crate::counts::Counts;
use crate::gate::Gate;
use crate::policy;
use act::{Auth, Call, Class, Domain, Fault, Method, Query, Route};
use futures::FutureExt as _;
use harness::Harness;
use kernel::TenantId;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// What the rows read.
#[derive(Clone)]
pub struct Own {
    /// Whether anything is done.
    pub gate: Arc<Gate>,
    /// Makes backups.
    pub backups: Backups,
    /// For the store, the policy in force and the time.
    pub harness: Harness,
    /// What this process has done.
    pub counts: Counts,
    /// The contract, written once all domains are known.
    pub contract: Arc<OnceLock<Value>>,
    /// The contract of events, likewise.
    pub events: Arc<OnceLock<Value>>,
}

/// The domain's table.
pub fn domain(own: &Own) -> Domain {
    let route = |path, operation, summary, auth, call| Route {
        method: Method::Get,
        path,
        operation,
        summary,
        auth,
        call,
        query: &[],
    };
    Domain {
        name: "edge",
        facts: &["edge.backup.created"],
        verbs: backup::verbs(&own.backups),
        routes: vec![
            backup::route(),
            route(
                "/healthz",
                "health_show",
                "Say whether the server lives",
                Auth::Public,
                Call::Query("", alive(own.clone())),
            ),
            route(
                "/readyz",
                "readiness_show",
                "Say whether the server can work",
                Auth::Public,
                Call::Query("", ready(own.clone())),
            ),
            route(
                "/openapi.json",
                "contract_show",
                "Show this contract",
                Auth::Public,
                Call::Query("", contract(own.contract.clone())),
            ),
            route(
                "/asyncapi.json",
                "events_contract_show",
                "Show the contract of events",
                Auth::Principal,
                Call::Query("edge.contract.read", contract(own.events.clone())),
            ),
            route(
                "/metrics",
                "metrics_show",
                "Show counts of this process as Prometheus text",
                Auth::Principal,
                Call::Query("edge.metrics.read", metrics(own.clone())),
            ),
        ],
        codes: crate::CODES,
        ..Domain::default()
    }
}

/// Alive: with its version and its clock, by which `writ doctor` finds a client that is another version or whose clock is
/// wrong. Neither is a secret: the contract says the version too, and every response its date.
fn alive(own: Own) -> Query {
    Arc::new(move |_| {
        let now_ms = own.harness.now_ms();
        let alive = json!({"status": "alive", "version": env!("CARGO_PKG_VERSION"), "now_ms": now_ms});
        async move { Ok(alive) }.boxed()
    })
}

/// Ready: storage can be read and a policy is in force. Without either every act would be refused.
fn ready(own: Own) -> Query {
    Arc::new(move |_| {
        let own = own.clone();
        async move {
            let mut reasons = Vec::new();
            if !matches!(own.harness.store().head(&TenantId::platform()).await, Ok(Some(_))) {
                reasons.push("storage cannot be read");
            }
            if !policy::in_force(&own.harness) {
                reasons.push("no policy is in force");
            }
            let put_back = own.gate.why();
            if let Some(why) = &put_back {
                reasons.push(why);
            }
            if reasons.is_empty() {
                return Ok(json!({"status": "ready"}));
            }
            Err(Fault::new(Class::Unavailable, "edge.not_ready", reasons.join("; ")))
        }
        .boxed()
    })
}

fn contract(contract: Arc<OnceLock<Value>>) -> Query {
    Arc::new(move |_| {
        let contract = contract.get().cloned();
        async move {
            contract.ok_or_else(|| Fault::new(Class::Unavailable, "edge.not_ready", "the server is starting"))
        }
        .boxed()
    })
}

fn metrics(own: Own) -> Query {
    Arc::new(move |query| {
        let of_the_platform = query.ctx.principal.home == TenantId::platform();
        let text = own.counts.render();
        async move {
            if of_the_platform {
                Ok(Value::String(text))
            } else {
                Err(Fault::new(
                    Class::Denied,
                    "access.read_denied",
                    "only principals of the platform may read this",
                ))
            }
        }
        .boxed()
    })
}
