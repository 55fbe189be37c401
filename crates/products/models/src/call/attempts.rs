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
use contracts::models::{Cost, ModelCall, ModelFault, ModelReply};
use kernel::Id;
use std::sync::atomic::AtomicBool;

/// Most facts that a call names as its causes.
const CAUSES_MAX: usize = 8;

/// Which attempt a call is, as records and policy have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// `first`, `repair` or `fallback`.
    pub name: &'static str,
    /// The pin that was asked for, where another one stands in; also for the repair of a fallback.
    pub instead_of: Option<&'a str>,
    /// The key under which the caller asked.
    pub asked: &'a str,
    /// Set if a call for this question was made before and nobody came back from it.
    pub lost: &'a AtomicBool,
}

/// A call that was made and is over.
pub(super) struct Ended {
    /// What came of it.
    pub outcome: Result<ModelReply, Fault>,
    /// The fact of its end.
    pub fact: Id,
    /// What it cost, whatever came of it; with the call that it repairs.
    pub cost: Cost,
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
    pub(super) async fn attempts(
        &self,
        ctx: &Ctx,
        call: &ModelCall,
        lost: &AtomicBool,
    ) -> Result<ModelReply, ModelFault> {
        let attempt = Attempt { name: "first", instead_of: None, asked: &call.key, lost };
        let first = self.mended(ctx, call, attempt).await?;
        let mut spent = first.cost;
        let fault = match first.outcome {
            Ok(reply) => return Ok(ModelReply { cost: spent, ..reply }),
            Err(fault) if is_unavailable(&fault) => fault,
            Err(fault) => return Err(ModelFault { fault, cost: spent }),
        };
        let fallbacks = self.0.providers.fallbacks.get(&call.pin).into_iter().flatten().take(FALLBACKS_MAX);
        for (n, fallback) in fallbacks.enumerate() {
            let other = ModelCall {
                key: format!("{}:fallback:{n}", call.key),
                pin: fallback.pin.clone(),
                accepts: fallback.accepts.clone(),
                causes: causes(&first.fact, call),
                ..call.clone()
            };
            let attempt = Attempt { name: "fallback", instead_of: Some(&call.pin), ..attempt };
            let missed = match self.mended(ctx, &other, attempt).await {
                Ok(ended) => {
                    spent = spent.and(ended.cost);
                    match ended.outcome {
                        Ok(reply) => return Ok(ModelReply { cost: spent, ..reply }),
                        Err(missed) if is_unavailable(&missed) => missed,
                        Err(_) => break,
                    }
                }
                // Not permitted, not priced, not configured: the next one may be.
                Err(missed) => {
                    spent = spent.and(missed.cost);
                    missed.fault
                }
            };
            tracing::info!(code = %missed.code, instead_of = %call.pin, "a fallback model did not answer");
        }
        // What the workflow asked for is what failed. That others failed too is on record.
        Err(ModelFault { fault, cost: spent })
    }

    /// One call, and one more if its answer can be mended.
    async fn mended(&self, ctx: &Ctx, call: &ModelCall, attempt: Attempt<'_>) -> Result<Ended, ModelFault> {
        let ended = self.once(ctx, call, attempt).await?;
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
        match self.once(ctx, &again, Attempt { name: "repair", ..attempt }).await {
            Ok(repaired) => Ok(Ended { cost: ended.cost.and(repaired.cost), ..repaired }),
            // Not permitted or not affordable: what there is, is the first answer's failure.
            Err(missed) => Ok(Ended { cost: ended.cost.and(missed.cost), ..ended }),
        }
    }
}

fn causes(fact: &Id, call: &ModelCall) -> Vec<Id> {
    std::iter::once(fact).chain(&call.causes).take(CAUSES_MAX).cloned().collect()
}
