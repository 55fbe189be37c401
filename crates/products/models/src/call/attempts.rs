//! What is tried where one call brings no usable answer: one repair, and other models where policy allows them.
//!
//! Each attempt is a call like any other: permitted, intended, recorded, paid for, under a key of its own that follows from
//! the first one's, so that a repetition of the whole finds the same calls again. Policy sees which attempt it is and for
//! whom another model stands in, and the shipped policy lets none stand in that is not listed.
//!
//! | the call ended with … | what follows |
//! |---|---|
//! | an answer that breaks its schema or its lists | the same model once more, told which rule was broken |
//! | a provider that is busy, overloaded, out of reach or cut off | the configured fallbacks in order, if policy allows |
//! | anything else (a refusal, a bad key, another model than the pin) | nothing: asking again does not change it |
//!
//! The repair quotes nothing of the answer that was refused: it was written by a machine that reads hostile text, and what
//! it wrote is not carried into a system message. There is one repair in all, also after a fallback, and no fallback of a
//! fallback.

use super::Models;
use super::provider::FALLBACKS_MAX;
use act::{Class, Ctx, Fault};
use contracts::models::{ModelCall, ModelReply};
use kernel::Id;

/// Most facts that a call names as its causes.
const CAUSES_MAX: usize = 8;

/// Which attempt a call is, as records and policy have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt<'a> {
    /// `first`, `repair` or `fallback`.
    pub name: &'static str,
    /// The pin that was asked for, where another one stands in; also for the repair of a fallback.
    pub instead_of: Option<&'a str>,
}

/// A call that was made and is over.
pub(super) struct Ended {
    /// What came of it.
    pub outcome: Result<ModelReply, Fault>,
    /// The fact of its end.
    pub fact: Id,
    /// What it cost, whatever came of it.
    pub cost_micros: i64,
}

/// Whether a model that is told which rule its answer broke may do better.
fn is_mendable(fault: &Fault) -> bool {
    ["model.schema_violation", "model.value_not_allowed", "model.not_plain", "model.oversized"]
        .contains(&fault.code.as_str())
}

/// Whether another model might answer where this one did not.
fn is_unavailable(fault: &Fault) -> bool {
    let provider = [
        "model.provider_rate_limited",
        "model.provider_overloaded",
        "model.provider_unavailable",
        "model.provider_stream_cut",
    ];
    fault.class == Class::Upstream
        && (provider.contains(&fault.code.as_str()) || fault.code.starts_with("egress."))
}

impl Models {
    /// Calls, and tries what may be tried.
    pub(super) async fn attempts(&self, ctx: &Ctx, call: ModelCall) -> Result<ModelReply, Fault> {
        let first = self.mended(ctx, &call, None).await?;
        let mut spent = first.cost_micros;
        let fault = match first.outcome {
            Err(fault) if is_unavailable(&fault) => fault,
            outcome => return outcome,
        };
        let fallbacks = self.0.providers.fallbacks.get(&call.pin).into_iter().flatten().take(FALLBACKS_MAX);
        for (n, fallback) in fallbacks.enumerate() {
            let other = ModelCall {
                key: format!("{}:fallback:{n}", call.key),
                pin: fallback.pin.clone(),
                accepts: fallback.accepts.clone(),
                causes: causes(&first.fact, &call),
                ..call.clone()
            };
            let missed = match self.mended(ctx, &other, Some(&call.pin)).await {
                Ok(ended) => {
                    let before = spent;
                    spent = spent.saturating_add(ended.cost_micros);
                    match ended.outcome {
                        Ok(reply) => {
                            return Ok(ModelReply {
                                cost_micros: reply.cost_micros.saturating_add(before),
                                ..reply
                            });
                        }
                        Err(missed) if is_unavailable(&missed) => missed,
                        Err(_) => break,
                    }
                }
                // Not permitted, not priced, not configured: the next one may be.
                Err(missed) => missed,
            };
            tracing::info!(code = %missed.code, instead_of = %call.pin, "a fallback model did not answer");
        }
        // What the workflow asked for is what failed. That others failed too is on record.
        Err(fault)
    }

    /// One call, and one more if its answer can be mended.
    async fn mended(&self, ctx: &Ctx, call: &ModelCall, instead_of: Option<&str>) -> Result<Ended, Fault> {
        let name = if instead_of.is_some() { "fallback" } else { "first" };
        let ended = self.once(ctx, call, Attempt { name, instead_of }).await?;
        // The baseline says the same again.
        let rule = match &ended.outcome {
            Err(fault) if is_mendable(fault) && !call.pin.starts_with("baseline/") => fault.message.clone(),
            _ => return Ok(ended),
        };
        let again = ModelCall {
            key: format!("{}:repair", call.key),
            // The message names places in the workflow's own schema, never the answer.
            system: format!(
                "{}\n\nAn earlier answer to this document was refused: {rule}. Keep exactly to the schema.",
                call.system.trim_end()
            ),
            causes: causes(&ended.fact, call),
            ..call.clone()
        };
        let Ok(mut repaired) = self.once(ctx, &again, Attempt { name: "repair", instead_of }).await else {
            // Not permitted or not affordable: what there is, is the first answer's failure.
            return Ok(ended);
        };
        repaired.cost_micros = repaired.cost_micros.saturating_add(ended.cost_micros);
        if let Ok(reply) = &mut repaired.outcome {
            reply.cost_micros = repaired.cost_micros;
        }
        Ok(repaired)
    }
}

fn causes(fact: &Id, call: &ModelCall) -> Vec<Id> {
    std::iter::once(fact).chain(&call.causes).take(CAUSES_MAX).cloned().collect()
}
