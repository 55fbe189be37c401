//! Finding out what became of a call before anything else is done.
//!
//! A call whose outcome nobody knows is *in doubt*: it is never simply made again. What may follow depends on what a
//! repetition would do; where the other system can be asked, it is asked by the marker that the call carried.

use super::*;

/// What stands in the way of a write whose record has to be as it was seen.
pub(super) type Changed = (Heard, Option<Transcript>);

impl Engine {
    /// Looks whether what a write depends on is as it was seen, right before it is made. What stands in its way, if anything
    /// does: nothing has been sent then.
    ///
    /// Between this look and the write somebody may still be faster, where the other system has no conditional writes. Hours
    /// pass while people decide, and milliseconds here.
    pub(super) async fn unchanged(
        &self,
        bench: &Bench<'_>,
        pending: &Pending,
        version: &Version,
        action: &Action,
    ) -> Result<Option<Changed>, Stop> {
        if pending.unchanged.is_empty() {
            return Ok(None);
        }
        let refused = |code: &str| Ok(Some((Heard::Refused { code: code.to_owned() }, None)));
        let read_back = action.reconcile.as_ref().and_then(|reconcile| reconcile.read_back.as_ref());
        let reading =
            read_back.and_then(|read_back| Some((read_back, version.manifest.action(&read_back.action)?)));
        let Some((read_back, reading)) = reading else { return refused("flows.unchanged_unreadable") };
        let original = pending.params.as_object().cloned().unwrap_or_default();
        let marker = effect::marker(&pending.effect_key);
        let values = Values { params: &original, marker: &marker };
        let filled =
            placeholder::fill(&Value::Object(read_back.params.clone()), values).map_err(act::internal)?;
        let params = filled.and_then(|params| params.as_object().cloned()).unwrap_or_default();
        let heard = self.wire(bench, version, (reading, reading), (&params, &params), pending.call()).await?;
        match heard {
            (Heard::Done(seen), transcript) => {
                let same = pending
                    .unchanged
                    .iter()
                    .all(|(field, value)| seen.get(field).is_some_and(|now| now == value));
                let code = "flows.record_changed".to_owned();
                Ok((!same).then_some((Heard::Refused { code }, transcript)))
            }
            // A look that nobody can make sense of is no look.
            (Heard::Unknown { code }, transcript) => {
                Ok(Some((Heard::Failed { code, retry_after_ms: None }, transcript)))
            }
            in_the_way @ (Heard::Failed { .. } | Heard::Refused { .. }, _) => Ok(Some(in_the_way)),
        }
    }

    /// Finds out what became of a call before anything else is done.
    pub(super) async fn reconcile(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        pending: &Pending,
    ) -> Result<Move, Stop> {
        if !pending.unknown {
            // Found by somebody who did not make it: in doubt from here on, and durably so, before anything can fail.
            let then = machine::call_unknown(&mut run, "flows.call_lost", bench.now_ms);
            return Ok(Move::new(run, then, vec![("flows.tool.finished", pending.lost(&bench.step.id))]));
        }
        let version = self.connector(bench, &run, &pending.connector).await?;
        let Some(action) = version.manifest.action(&pending.action) else {
            let then = machine::die(&mut run, "flows.outcome_unknown", bench.now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        };
        match (action.effect, &action.reconcile) {
            // Doing it again does no harm, and the effect key is the same.
            (Effect::Read | Effect::Idempotent | Effect::Keyed, _) => {
                let heard = Heard::Failed { code: "flows.call_lost".into(), retry_after_ms: None };
                self.heard(bench, run, pending, Some(action), (heard, None))
            }
            (Effect::Reconcilable, Some(_)) => self.look(bench, run, pending, &version, action).await,
            (Effect::Reconcilable | Effect::Unsafe, _) => {
                let then = machine::die(&mut run, "flows.outcome_unknown", bench.now_ms);
                Ok(Move::new(run, then, Vec::new()))
            }
        }
    }

    /// Looks whether the effect is there, by its marker.
    async fn look(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        pending: &Pending,
        version: &Version,
        action: &Action,
    ) -> Result<Move, Stop> {
        let Some(reconcile) = &action.reconcile else {
            return Err(act::internal("nothing to reconcile by").into());
        };
        let Some(looking) = version.manifest.action(&reconcile.action) else {
            return Err(act::internal("no action to look by").into());
        };
        let original = pending.params.as_object().cloned().unwrap_or_default();
        let marker = effect::marker(&pending.effect_key);
        let values = Values { params: &original, marker: &marker };
        let filled =
            placeholder::fill(&Value::Object(reconcile.params.clone()), values).map_err(act::internal)?;
        let params = filled.unwrap_or_else(|| json!({}));
        let args = CallArgs {
            run: run.id.to_string(),
            step: bench.step.id.clone(),
            connector: pending.connector.clone(),
            action: reconcile.action.clone(),
            params: params.clone(),
            effect_key: pending.effect_key.clone(),
            hints: Hints::default(),
            unchanged: Map::new(),
        };
        let key = format!("{}:{}:{}:look:{}", run.id, bench.step.id, run.attempts.calls, pending.reconciled);
        match self.act(bench, "flows.tool.reconcile", &args, key).await {
            Ok(Done::Outcome { .. }) => {}
            Ok(Done::Waiting { .. }) => return Err(act::internal("policy wants people for a look").into()),
            Err(fault) => return Err(fault.into()),
        }
        let tries = usize::try_from(pending.reconciled).unwrap_or(usize::MAX);
        run = self.fresh(bench).await?.doc;
        let params = params.as_object().cloned().unwrap_or_default();
        let (heard, _) =
            self.wire(bench, version, (looking, looking), (&params, &params), pending.call()).await?;
        crash::point("tool.looked");
        let output = match heard {
            Heard::Done(output) => Value::Object(output),
            Heard::Failed { code, retry_after_ms } => {
                // The look failed, the call is as unknown as before; it is none of the looks that settle it.
                run.attempts.external += 1;
                run.attempts.calls += 1;
                if let Some(pending) = &mut run.pending {
                    pending.reconciled = pending.reconciled.saturating_sub(1);
                }
                let wait = self.wait(retry_after_ms);
                let wait_ms = effect::wait_ms(wait.asked_ms, run.attempts.external, wait.random);
                let facts = vec![(
                    "flows.step.retried",
                    json!({"step": bench.step.id, "code": code, "side": "external"}),
                )];
                if run.attempts.external > bench.step.retry.external {
                    let then = machine::die(&mut run, "flows.outcome_unknown", bench.now_ms);
                    return Ok(Move::new(run, then, facts));
                }
                return Ok(Move::new(run, Then::At(bench.now_ms + wait_ms), facts));
            }
            Heard::Refused { .. } | Heard::Unknown { .. } => {
                let then = machine::die(&mut run, "flows.outcome_unknown", bench.now_ms);
                return Ok(Move::new(run, then, Vec::new()));
            }
        };
        let found = output.pointer(&reconcile.found).is_some_and(|found| match found {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Bool(flag) => *flag,
            Value::Number(_) | Value::Object(_) => true,
        });
        if found {
            return self.found(bench, run, pending, version, action, values).await;
        }
        if let Some(wait_ms) = reconcile.settle_ms.get(tries) {
            let facts = vec![(
                "flows.step.retried",
                json!({"step": bench.step.id, "code": "flows.effect_not_seen", "side": "external"}),
            )];
            return Ok(Move::new(run, Then::At(bench.now_ms + wait_ms), facts));
        }
        // It is not there, and has had time to appear: the call may be made again, under the same key.
        let heard = Heard::Failed { code: "flows.effect_absent".into(), retry_after_ms: None };
        self.heard(bench, run, pending, Some(action), (heard, None))
    }

    /// The effect is there. What was written is read back, as it would have been from the reply that was lost.
    async fn found(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        pending: &Pending,
        version: &Version,
        action: &Action,
        values: Values<'_>,
    ) -> Result<Move, Stop> {
        let mut output = Map::from_iter([("reconciled".to_owned(), Value::Bool(true))]);
        let read_back = action.reconcile.as_ref().and_then(|reconcile| reconcile.read_back.as_ref());
        let reading =
            read_back.and_then(|read_back| Some((read_back, version.manifest.action(&read_back.action)?)));
        let Some((read_back, reading)) = reading else {
            let heard = Heard::Done(output);
            let run = self.learned(run, pending, version, action, &heard);
            return self.heard(bench, run, pending, Some(action), (heard, None));
        };
        let filled =
            placeholder::fill(&Value::Object(read_back.params.clone()), values).map_err(act::internal)?;
        let params = filled.and_then(|params| params.as_object().cloned()).unwrap_or_default();
        // Read in the reading action's own shape, checked against what the lost call wrote.
        let mut judge = reading.clone();
        judge.response.check.clone_from(&action.response.check);
        judge.response.extract.clone_from(&action.response.extract);
        match self.wire(bench, version, (reading, &judge), (&params, values.params), pending.call()).await? {
            (Heard::Done(read), transcript) => {
                output.extend(read);
                let heard = Heard::Done(output);
                let run = self.learned(run, pending, version, action, &heard);
                self.heard(bench, run, pending, Some(action), (heard, transcript))
            }
            (Heard::Failed { code, retry_after_ms }, _) => {
                // It is there; whether all of it is there is looked at again later.
                run.attempts.external += 1;
                if run.attempts.external > bench.step.retry.external {
                    let then = machine::die(&mut run, "flows.outcome_unknown", bench.now_ms);
                    return Ok(Move::new(run, then, Vec::new()));
                }
                let wait = self.wait(retry_after_ms);
                let wait_ms = effect::wait_ms(wait.asked_ms, run.attempts.external, wait.random);
                let facts = vec![(
                    "flows.step.retried",
                    json!({"step": bench.step.id, "code": code, "side": "external"}),
                )];
                Ok(Move::new(run, Then::At(bench.now_ms + wait_ms), facts))
            }
            (heard @ (Heard::Refused { .. } | Heard::Unknown { .. }), transcript) => {
                self.heard(bench, run, pending, Some(action), (heard, transcript))
            }
        }
    }
}
