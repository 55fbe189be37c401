//! Dry runs: what a run would do outside, without doing it.
//!
//! A dry run reads for real, asks models for real, and asks policy about every write; it sends none. Each write that it
//! would have made is kept with the run, request and verdict, and stated as a fact. Its output stands in for what the
//! other system would have said: the names that later steps may refer to, with a text that nobody takes for an answer.
//! People are not asked and times are not waited for; that they would be is recorded.

use super::*;
use crate::run::Rehearsed;

/// Most bytes of requests that a dry run keeps; of further ones it keeps the digest.
pub const REHEARSED_BYTES_MAX: usize = 64 * 1024;
/// What a dry run puts where another system's answer would stand.
const STAND_IN: &str = "(dry run)";

impl Engine {
    /// Records a write that a dry run does not make.
    pub(super) async fn rehearse(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        version: &Version,
        action: &Action,
        args: &CallArgs,
    ) -> Result<Move, Stop> {
        let now_ms = bench.now_ms;
        let value = serde_json::to_value(args).map_err(act::internal)?;
        let weighed = match self.deps.harness.weigh(bench.ctx, "flows.tool.call", &value).await {
            Ok(weighed) => weighed,
            Err(fault) if fault.class.retryable() => return Err(fault.into()),
            Err(fault) => {
                let then = machine::step_failed(&mut run, bench.step, &fault.code, now_ms);
                return Ok(Move::new(run, then, Vec::new()));
            }
        };
        let marker = effect::marker(&args.effect_key);
        let params = args.params.as_object().cloned().unwrap_or_default();
        let prepared = request::prepare(
            &version.manifest,
            action,
            &version.base_url,
            &params,
            &marker,
            &args.effect_key,
        );
        let Ok(prepared) = prepared else {
            let then = machine::step_failed(&mut run, bench.step, "flows.params_invalid", now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        };
        let asked = [prepared.url.as_bytes(), b"\n", &prepared.body].concat();
        let kept: usize = run.rehearsed.iter().map(|write| write.bytes).sum();
        // What the manifest keeps out of previews is kept out here too, and with it the whole request.
        let shown = action.redact.is_empty() && kept + asked.len() <= REHEARSED_BYTES_MAX;
        let write = Rehearsed {
            step: bench.step.id.clone(),
            connector: args.connector.clone(),
            action: args.action.clone(),
            effect: action.effect,
            effect_key: args.effect_key.clone(),
            method: prepared.method.to_string(),
            digest: hex::encode(&sha256(&asked)),
            bytes: if shown { asked.len() } else { 0 },
            url: shown.then(|| prepared.url.clone()),
            body: shown.then(|| serde_json::from_slice(&prepared.body).ok()).flatten(),
            policy: json!({"effect": weighed.effect, "reasons": weighed.reasons, "tier": weighed.tier,
                           "approvals": weighed.approvals}),
            at_ms: now_ms,
        };
        let facts = vec![(
            "flows.tool.rehearsed",
            json!({"step": write.step, "connector": write.connector, "action": write.action,
                   "effect_class": action.effect.as_str(), "effect_key": write.effect_key, "request": write.digest,
                   "policy": weighed.effect}),
        )];
        run.rehearsed.push(write);
        if weighed.refused {
            let code = weighed.reasons.first().cloned().unwrap_or_else(|| "policy.denied".into());
            run.error = Some(RunError { code, step: bench.step.id.clone(), at_ms: now_ms });
            let then = machine::refused(&mut run, bench.step, Outcome::Denied, now_ms);
            return Ok(Move::new(run, then, facts));
        }
        let mut output = Map::from_iter([("dry_run".to_owned(), Value::Bool(true))]);
        output.extend(action.response.extract.keys().map(|name| {
            // What was sent under the same name is the best guess; else nobody knows.
            (name.clone(), params.get(name).cloned().unwrap_or_else(|| STAND_IN.into()))
        }));
        let then = machine::step_done(&mut run, bench.workflow, Value::Object(output), None, now_ms);
        Ok(Move::new(run, then, facts))
    }

    /// Passes a step at which a real run would wait: for people, a time or a signal.
    pub(super) fn passed(&self, bench: &Bench<'_>, mut run: RunDoc) -> Move {
        let outcome = json!({"step": bench.step.id, "kind": bench.step.kind.name(), "dry_run": true});
        let output = json!({"dry_run": true, "approved": true, "payload": {}, "at_ms": bench.now_ms});
        let then = machine::step_done(&mut run, bench.workflow, output, None, bench.now_ms);
        Move::new(run, then, vec![("flows.step.finished", outcome)])
    }
}
