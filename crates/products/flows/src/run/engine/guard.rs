//! Before a call and after it: what the connector's breaker says, and what it is told.
//!
//! A run that finds the breaker open is *held*: people see it waiting, and for what. Underneath it goes on having a job, which
//! is merely not due yet, because its call may have been permitted or be in doubt already; nobody else moves such a run.

use super::*;
use crate::run::breaker::{Breaker, CloseArgs, FAILURES_MAX, Found, State, TurnArgs, breaker_id, found};

/// Jitter over runs that wait for the same breaker, in milliseconds.
const SPREAD_MS: u64 = 5_000;

/// Failures on our side of the wire: they say nothing about the system.
const OURS: [&str; 3] = ["egress.busy", "flows.credential", "flows.token_refused"];

impl Engine {
    /// A move that waits, if the connector's breaker is open. The run that may probe goes on.
    pub(super) async fn guarded(
        &self,
        bench: &Bench<'_>,
        run: &RunDoc,
        connector: &str,
    ) -> Result<Option<Move>, Stop> {
        let breaker = bench.view.peek::<Breaker>(&breaker_id(connector)?).await?;
        let now_ms = bench.now_ms;
        let until_ms = match found(breaker.as_deref(), &run.id, now_ms) {
            Found::Free => return Ok(None),
            Found::Wait(until_ms) => until_ms,
            Found::Probe => {
                let args = TurnArgs {
                    connector: connector.to_owned(),
                    to: State::HalfOpen,
                    run: run.id.to_string(),
                    code: None,
                };
                match self.turn(bench, "flows.breaker.turn", &args).await {
                    Ok(()) => return Ok(None),
                    // Somebody else was faster: it is theirs to try.
                    Err(fault) if fault.class == Class::Conflict => now_ms + 1,
                    Err(fault) => return Err(fault.into()),
                }
            }
        };
        let mut run = run.clone();
        let spread_ms = i64::try_from(self.wait(None).random % SPREAD_MS).unwrap_or(0);
        let at_ms = until_ms.saturating_add(spread_ms + 1);
        let code = "flows.breaker_open";
        if machine::late(&run, bench.step, at_ms) {
            match run.pending.clone() {
                None => {
                    let then = machine::step_failed(&mut run, bench.step, code, now_ms);
                    return Ok(Some(Move::new(run, then, Vec::new())));
                }
                // It was permitted for its step's time, and goes out in that time or never.
                Some(pending) if !pending.unknown => {
                    return Ok(Some(not_made(bench, run, &pending, code)));
                }
                // What became of it has to be found out, however long that takes.
                Some(_) => {}
            }
        }
        run.error = Some(RunError { code: code.into(), step: bench.step.id.clone(), at_ms: now_ms });
        let facts =
            vec![("flows.step.retried", json!({"step": bench.step.id, "code": code, "side": "external"}))];
        let held = Some(Held { connector: connector.to_owned(), until_ms });
        Ok(Some(Move { held, ..Move::new(run, Then::At(at_ms), facts) }))
    }

    /// Tells the breaker how a call went. What it cannot be told is logged: the call's own outcome comes first.
    pub(super) async fn heard_of(&self, bench: &Bench<'_>, connector: &str, heard: &Heard) {
        let tenant = &bench.lease.tenant;
        let code = match heard {
            Heard::Failed { code, .. } | Heard::Unknown { code } if ill(code) => Some(code.clone()),
            // It was not reached, and it is not its fault.
            Heard::Failed { code, .. } | Heard::Refused { code } if OURS.contains(&code.as_str()) => return,
            Heard::Done(_) | Heard::Failed { .. } | Heard::Refused { .. } | Heard::Unknown { .. } => None,
        };
        let told = match code {
            Some(code) => {
                let failures = self.breakers.failed(tenant, connector);
                let probing = self
                    .breaker(bench, connector)
                    .await
                    .is_some_and(|breaker| breaker.state == State::HalfOpen);
                if failures < FAILURES_MAX && !probing {
                    return;
                }
                let (connector, run) = (connector.to_owned(), bench.job.run.to_string());
                let args = TurnArgs { connector, to: State::Open, run, code: Some(code) };
                self.turn(bench, "flows.breaker.turn", &args).await
            }
            None => {
                self.breakers.well(tenant, connector);
                if self.breaker(bench, connector).await.is_none_or(|breaker| breaker.state == State::Closed) {
                    return;
                }
                self.turn(bench, "flows.breaker.close", &CloseArgs { connector: connector.to_owned() }).await
            }
        };
        match told {
            Ok(()) => self.breakers.well(tenant, connector),
            // It stands so already.
            Err(fault) if fault.class == Class::Conflict => {}
            Err(fault) => tracing::warn!(connector, %fault, "a breaker could not be turned"),
        }
    }

    async fn breaker(&self, bench: &Bench<'_>, connector: &str) -> Option<Breaker> {
        let id = breaker_id(connector).ok()?;
        Some(bench.view.peek::<Breaker>(&id).await.ok()??.doc)
    }

    async fn turn<A: serde::Serialize>(&self, bench: &Bench<'_>, act: &str, args: &A) -> Result<(), Fault> {
        let args = serde_json::to_value(args).map_err(act::internal)?;
        self.deps.harness.act(bench.ctx, act, args, Terms::default()).await.map(|_| ())
    }
}

/// Whether a failure says that the system is not well, rather than that it does not want this call.
fn ill(code: &str) -> bool {
    let theirs = code.starts_with("egress.") && !OURS.contains(&code);
    theirs || matches!(code, "flows.upstream_failed" | "flows.reply_unreadable" | "flows.token_unavailable")
}
