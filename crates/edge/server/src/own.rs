//! The edge's own rows of the table: whether it lives, whether it can work, what it has done, what it offers.
//!
//! Three of them answer anybody, and so hold nothing of any tenant. The contract of events answers whoever has a role: it
//! holds nothing either, and the list of what answers anybody only shrinks. The counts are the installation's and not a tenant's:
//! only principals of the platform read them.

use crate::backup::{self, Backups};
use crate::counts::Counts;
use crate::gate::Gate;
use crate::policy;
use act::{Class, Domain, Fault, QueryCtx, Route};
use futures::FutureExt as _;
use futures::future::ready;
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
    let (lives, works, counts) = (own.clone(), own.clone(), own.clone());
    let (contract, events) = (own.contract.clone(), own.events.clone());
    Domain {
        name: "edge",
        facts: &["edge.backup.created"],
        verbs: backup::verbs(&own.backups),
        routes: vec![
            backup::route(),
            Route::public("/healthz", "health_show", "Say whether the server lives", move |_| {
                ready(Ok(alive(&lives))).boxed()
            }),
            Route::public("/readyz", "readiness_show", "Say whether the server can work", move |_| {
                let own = works.clone();
                async move { fit(&own).await }.boxed()
            }),
            Route::public("/openapi.json", "contract_show", "Show this contract", move |_| {
                ready(written(&contract)).boxed()
            }),
            Route::get(
                "/asyncapi.json",
                "events_contract_show",
                "Show the contract of events",
                "edge.contract.read",
                move |_| ready(written(&events)).boxed(),
            ),
            Route::get(
                "/metrics",
                "metrics_show",
                "Show counts of this process as Prometheus text",
                "edge.metrics.read",
                move |query| ready(metrics(&counts, &query)).boxed(),
            ),
        ],
        codes: crate::CODES,
        ..Domain::default()
    }
}

/// Alive: with its version and its clock, by which `writ doctor` finds a client that is another version or whose clock is
/// wrong. Neither is a secret: the contract says the version too, and every response its date.
fn alive(own: &Own) -> Value {
    json!({"status": "alive", "version": env!("CARGO_PKG_VERSION"), "now_ms": own.harness.now_ms()})
}

/// Ready: storage can be read and a policy is in force. Without either every act would be refused.
async fn fit(own: &Own) -> Result<Value, Fault> {
    let mut reasons = Vec::new();
    if !matches!(own.harness.store().head(&TenantId::platform()).await, Ok(Some(_))) {
        reasons.push("storage cannot be read");
    }
    if !policy::in_force(&own.harness) {
        reasons.push("no policy is in force");
    }
    let put_back = own.gate.pass().err();
    if let Some(fault) = &put_back {
        reasons.push(&fault.message);
    }
    if reasons.is_empty() {
        return Ok(json!({"status": "ready"}));
    }
    Err(Fault::new(Class::Unavailable, "edge.not_ready", reasons.join("; ")))
}

fn written(contract: &OnceLock<Value>) -> Result<Value, Fault> {
    let starting = || Fault::new(Class::Unavailable, "edge.not_ready", "the server is starting");
    contract.get().cloned().ok_or_else(starting)
}

fn metrics(own: &Own, query: &QueryCtx<'_>) -> Result<Value, Fault> {
    if query.ctx.principal.home == TenantId::platform() {
        return Ok(Value::String(own.counts.render()));
    }
    Err(Fault::new(Class::Denied, "access.read_denied", "only principals of the platform may read this"))
}
