//! Calling a model.

use act::{Ctx, Fault};
use futures::future::BoxFuture;
use kernel::Id;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A call as a workflow asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    /// Names this attempt: the same key never pays twice for one answer that arrived.
    pub key: String,
    /// The run it is for; its facts are counted in the run's stream.
    pub run: Id,
    /// The workflow of the run, for the bill.
    pub workflow: String,
    /// The project of the run, for the bill, if it belongs to one.
    pub project: Option<String>,
    /// What the run is about, as its source names it (a ticket's number), for the bill.
    pub ticket: Option<String>,
    /// `provider/model`, as the workflow version pins it.
    pub pin: String,
    /// Dated names that the provider may report for the pin.
    pub accepts: Vec<String>,
    /// What the model is told to do; from the workflow.
    pub system: String,
    /// What it is to do it with; from outside, and hostile.
    pub user: String,
    /// JSON Schema of the answer.
    pub schema: Value,
    /// The only values that these fields of the answer may have.
    pub allowed: BTreeMap<String, Vec<String>>,
    /// Most tokens of output.
    pub max_output_tokens: u32,
    /// How the data is classified, for policy: `internal`, `restricted`.
    pub sensitivity: String,
    /// Facts that led to it.
    pub causes: Vec<Id>,
    /// What the runs that it is a part of may cost, outermost first. All calls under one brake count together.
    pub brakes: Vec<Brake>,
}

/// What a run may cost, with everything that is a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// The run whose workflow says so.
    pub run: Id,
    /// How much, in millionths of the price book's currency.
    pub most_micros: i64,
}

/// What calls have cost, whatever came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// What was measured, in millionths of the price book's currency.
    pub cost_micros: i64,
    /// What is charged although nobody measured it: an upper bound, in millionths.
    pub unmeasured_micros: i64,
}

impl Cost {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Cost) -> Cost {
        Cost {
            cost_micros: self.cost_micros.saturating_add(other.cost_micros),
            unmeasured_micros: self.unmeasured_micros.saturating_add(other.unmeasured_micros),
        }
    }
}

/// A call that brought no answer that could be used. It may have been paid for all the same.
#[derive(Debug, Clone)]
pub struct ModelFault {
    /// What went wrong.
    pub fault: Fault,
    /// What its attempts have cost.
    pub cost: Cost,
}

impl<F: Into<Fault>> From<F> for ModelFault {
    /// For what failed before anything was paid for.
    fn from(fault: F) -> ModelFault {
        ModelFault { fault: fault.into(), cost: Cost::default() }
    }
}

/// An answer that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReply {
    /// The answer.
    pub body: Value,
    /// The model as the provider reported it.
    pub model: String,
    /// The fact that recorded the end of the call.
    pub fact: Id,
    /// What it cost, with the attempts before it that brought none.
    pub cost: Cost,
    /// Input tokens of all kinds; `None` if the provider did not say.
    pub input_tokens: Option<u64>,
    /// Output tokens, reasoning included.
    pub output_tokens: Option<u64>,
}

/// Calls models under policy, with a record, a pin and a price.
pub trait ModelCalls: Send + Sync + 'static {
    /// Calls a model.
    ///
    /// # Errors
    /// Refusals of policy; `billing.unpriced`; `budget.exhausted` (class Denied: the call was not made and its refusal is
    /// recorded); `billing.run_limit` (class Denied: it does not fit a brake, and was not made); answers that break their
    /// contract (`model.*`, class Upstream: what could be mended by asking again has been tried); failures of the provider
    /// with their `Retry-After`.
    fn model_call<'a>(
        &'a self,
        ctx: &'a Ctx,
        call: ModelCall,
    ) -> BoxFuture<'a, Result<ModelReply, ModelFault>>;
}
