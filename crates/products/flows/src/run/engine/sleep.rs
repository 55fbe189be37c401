//! Waiting for a time or a signal. The wait is a commit: the run says until when, and its next job is the alarm.

use super::*;
use crate::run::Alarm;
use crate::run::signal::{Signal, signal_id};
use crate::workflow::model::{WAIT_MS_MAX, WaitStep};

impl Engine {
    /// Begins a wait, unless what it waits for is there.
    pub(super) async fn sleep(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        wait: &WaitStep,
        scope: &Scope,
    ) -> Result<Move, Stop> {
        let now_ms = bench.now_ms;
        let begun = |run: &RunDoc| {
            (
                "flows.step.waiting",
                json!({"step": run.step, "until_ms": run.alarm.as_ref().map(|alarm| alarm.until_ms), "signal": wait.signal}),
            )
        };
        if let Some(name) = &wait.signal {
            let id = signal_id(run.root(), name)?;
            // A view of its own: what the step has read besides may move.
            let view = self.deps.harness.store().view(&bench.lease.tenant, now_ms);
            if let Some(signal) = view.get::<Signal>(&id).await? {
                let facts =
                    vec![("flows.step.finished", json!({"step": run.step, "kind": "wait", "signal": name}))];
                let then = machine::step_done(&mut run, bench.workflow, signal.output(), None, now_ms);
                let mut moved = Move::new(run, then, facts);
                moved.causes.push(signal.fact.clone());
                moved.operations.push(Operation::Delete {
                    kind: <Signal as store::Document>::KIND,
                    id,
                    rev: signal.rev,
                });
                return Ok(moved);
            }
            let until_ms = now_ms.saturating_add(wait.timeout_ms.unwrap_or(WAIT_MS_MAX));
            let then = machine::sleep(&mut run, Alarm { until_ms, signal: Some(name.clone()) }, now_ms);
            let facts = vec![begun(&run)];
            let reads = view.into_reads().map_err(act::internal)?;
            return Ok(Move { reads, ..Move::new(run, then, facts) });
        }
        let until_ms = match (&wait.for_ms, &wait.until_ms) {
            (Some(for_ms), _) => now_ms.saturating_add(*for_ms),
            (None, Some(source)) => match whole(source, scope) {
                Ok(until_ms) => until_ms.min(now_ms.saturating_add(WAIT_MS_MAX)),
                Err(error) => return Ok(self.template_failed(bench, run, &error)),
            },
            (None, None) => now_ms,
        };
        if until_ms <= now_ms {
            let facts = vec![("flows.step.finished", json!({"step": run.step, "kind": "wait"}))];
            let then = machine::step_done(&mut run, bench.workflow, json!({"at_ms": now_ms}), None, now_ms);
            return Ok(Move::new(run, then, facts));
        }
        let then = machine::sleep(&mut run, Alarm { until_ms, signal: None }, now_ms);
        let facts = vec![begun(&run)];
        Ok(Move::new(run, then, facts))
    }

    /// The alarm of a wait: its time has come, and with it the end of waiting for a signal.
    pub(super) fn awake(&self, bench: &Bench<'_>, mut run: RunDoc) -> Move {
        let now_ms = bench.now_ms;
        let signal = run.alarm.as_ref().and_then(|alarm| alarm.signal.clone());
        machine::resume(&mut run, now_ms);
        let outcome =
            json!({"step": run.step, "kind": "wait", "signal": signal, "expired": signal.is_some()});
        let then = match signal {
            None => machine::step_done(&mut run, bench.workflow, json!({"at_ms": now_ms}), None, now_ms),
            Some(_) => machine::refused(&mut run, bench.step, Outcome::Expired, now_ms),
        };
        Move::new(run, then, vec![("flows.step.finished", outcome)])
    }
}

fn whole(source: &str, scope: &Scope) -> Result<i64, TemplateError> {
    let value = template::value(source, scope)?;
    let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    number.ok_or_else(|| TemplateError::Failed("until_ms is no whole number".into()))
}
