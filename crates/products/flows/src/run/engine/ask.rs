//! Asking a model: what it is asked follows from the workflow and the run, and its answer is the step's output.

use super::*;
use contracts::models::ModelFault;

/// Answers that break their contract, or that never came. What can be mended of them has been asked for once more by whoever calls models.
const BROKEN: [&str; 6] = [
    "model.schema_violation",
    "model.value_not_allowed",
    "model.not_plain",
    "model.oversized",
    "model.pin_mismatch",
    // Nor is there a point in asking where every process that asks dies of it.
    "model.lost",
];

impl Engine {
    /// Asks the model of a step.
    pub(super) async fn model(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        model: &ModelStep,
        scope: &Scope,
    ) -> Result<Move, Stop> {
        let Some(pin) = bench.workflow.pins.models.get(&model.pin) else {
            let then = machine::step_failed(&mut run, bench.step, "flows.pin_missing", bench.now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        };
        let rendered =
            || -> Result<(String, String, Option<String>, BTreeMap<String, Vec<String>>), TemplateError> {
                let mut allowed = BTreeMap::new();
                for (field, list) in &model.allowed {
                    let list = template::tree(list, scope)?;
                    let texts = list
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect();
                    allowed.insert(field.clone(), texts);
                }
                let sensitivity =
                    model.sensitivity.as_deref().map(|source| template::text(source, scope)).transpose()?;
                Ok((
                    template::text(&model.system, scope)?,
                    template::text(&model.user, scope)?,
                    sensitivity,
                    allowed,
                ))
            };
        let (system, user, sensitivity, allowed) = match rendered() {
            Ok(rendered) => rendered,
            Err(error) => return Ok(self.template_failed(bench, run, &error)),
        };
        let tries = run.attempts.external + run.attempts.engine;
        // A replay begins its attempts anew and asks anew: a key of the time before stands for a question that is over.
        let tries = match run.replays {
            0 => tries.to_string(),
            replays => format!("{replays}.{tries}"),
        };
        let call = ModelCall {
            key: format!("{}:{}:{tries}", run.id, bench.step.id),
            run: run.root().clone(),
            workflow: run.workflow.clone(),
            project: run.project.clone(),
            ticket: run.ticket(),
            pin: pin.model.clone(),
            accepts: pin.accepts.clone(),
            system,
            user,
            schema: model.answer.clone(),
            allowed,
            max_output_tokens: model.max_output_tokens,
            sensitivity: sensitivity.unwrap_or_else(|| "internal".into()),
            causes: vec![run.last_fact.clone()],
            brakes: run.brakes.clone(),
        };
        match self.while_leased(bench.lease, self.deps.models.model_call(bench.ctx, call)).await? {
            Ok(reply) => {
                run.spend(reply.cost);
                run.last_fact = reply.fact;
                let facts = vec![(
                    "flows.step.finished",
                    json!({
                        "step": bench.step.id, "kind": "model", "model": reply.model,
                        "cost_micros": reply.cost.cost_micros, "unmeasured_micros": reply.cost.unmeasured_micros,
                        "output": digest(&reply.body),
                    }),
                )];
                let then = machine::step_done(
                    &mut run,
                    bench.workflow,
                    reply.body,
                    None,
                    self.deps.harness.now_ms(),
                );
                Ok(Move::new(run, then, facts))
            }
            Err(missed) => {
                run.spend(missed.cost);
                self.unanswered(bench, run, missed).await
            }
        }
    }

    /// The model did not answer, or not as it should.
    async fn unanswered(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        ModelFault { fault, cost }: ModelFault,
    ) -> Result<Move, Stop> {
        let code = fault.code.as_str();
        let facts = vec![(
            "flows.step.retried",
            json!({"step": bench.step.id, "code": code, "side": "external", "cost_micros": cost.cost_micros,
                   "unmeasured_micros": cost.unmeasured_micros}),
        )];
        let then = match fault.class {
            // Its workflow says what it may cost, and no replay changes that; nobody has said no to what it is about.
            Class::Denied if code == "billing.run_limit" => {
                machine::die(&mut run, "flows.cost_limit", bench.now_ms)
            }
            // Nobody has said no to what the run is about. Unless its workflow says otherwise it waits for people
            // who raise the budget, with all that it knows, and is replayed.
            Class::Denied if code == "budget.exhausted" && bench.step.on_denied.is_none() => {
                machine::die(&mut run, code, bench.now_ms)
            }
            Class::Denied | Class::StepUp | Class::NeedsApproval => {
                return self.decided_against(bench, run, Fault { class: Class::Denied, ..fault });
            }
            // What asking once more could mend has been asked once more, within the call; asking again is paid for again.
            Class::Upstream if BROKEN.contains(&code) => {
                run.error = Some(RunError {
                    code: code.to_owned(),
                    step: bench.step.id.clone(),
                    at_ms: bench.now_ms,
                });
                machine::finish(&mut run, Outcome::NeedsHuman, bench.now_ms)
            }
            Class::Upstream => machine::external_failed(
                &mut run,
                bench.step,
                code,
                self.wait(fault.retry_after_ms),
                bench.now_ms,
            ),
            _ if fault.class.retryable() || fault.class == Class::Internal => {
                let mut moved = self.engine_failed(bench, &fault).await?;
                moved.run.spend(cost);
                return Ok(moved);
            }
            _ => machine::step_failed(&mut run, bench.step, code, bench.now_ms),
        };
        Ok(Move::new(run, then, if matches!(then, Then::At(_)) { facts } else { Vec::new() }))
    }
}
