//! A governed call of a model: permitted, recorded before it is made, checked after, and paid for.
//!
//! ```text
//! priced? → models.model.call (policy, intent, holds, held job) → provider → check → models.call.finished (holds settled, job)
//!                                                                          → billing.usage.record → models.call.billed
//! ```
//!
//! The intent is durable before the provider hears of it, and the job that comes with it is held by the caller: if the
//! process dies in between, the job's lease runs out and the call is closed as *unknown*, never silently repeated. A
//! model call changes nothing outside but the bill, so whoever still needs the answer may ask again, under another key.
//!
//! The most that the call can cost is held against its budgets in the commit of the intent, so a call that does not fit
//! is not made (`budget.exhausted`), and what it did cost is settled in the commit of the outcome ([`pay`]).
//!
//! What is rated is rated by a job that the commit of the outcome begins: an answer that was paid for is handed on whether or
//! not the usage row can be written at that moment, and a process that dies in between leaves the job to others.
//!
//! Facts carry digests and counts. The prompt and the answer are in none of them.

mod attempts;
mod model;
mod pay;
mod provider;
mod verbs;

pub use model::CallDoc;
pub use pay::{PROVIDER_TOKENS, input_tokens_max};
pub use provider::{FALLBACKS_MAX, Fallback, Hosted, OpenKey, Providers};

use crate::check::{Checker, Violation};
use crate::contract::{Ask, Pin, Usage};
use act::{Class, Ctx, Domain, Draw as _, Fault};
use attempts::{Attempt, Ended};
use billing::price;
use contracts::models::{Cost, ModelCall, ModelCalls, ModelFault, ModelReply};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use harness::{Done, Harness, Terms};
use kernel::{Id, Lease, hex, sha256};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Range;
use store::crash;
use store::key::Key;

/// How often one key may stand for a new call after the former got lost.
const LOST_MAX: u32 = 5;

/// Most calls of one run that are looked through for those that got lost.
const CALLS_MAX: usize = 10_000;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("model.provider_unknown", "no provider of this name is configured"),
    ("model.credential", "the provider's key could not be opened"),
    ("model.lost", "earlier calls under this key got lost too often"),
    ("model.schema_violation", "the answer does not follow the schema asked for"),
    ("model.value_not_allowed", "the answer names a value that is not on the list"),
    ("model.pin_mismatch", "the provider answered with another model than the one pinned"),
    ("model.oversized", "the answer is larger than allowed"),
    ("model.not_plain", "the answer is not plain JSON"),
    ("model.ask_invalid", "the call itself is out of its limits"),
    ("model.schema_invalid", "the answer schema of the workflow cannot be used"),
    ("model.needs_approval", "policy wants a person to approve the call, and a model call does not wait"),
    ("model.provider_auth", "the provider does not accept the key"),
    ("model.provider_context_exceeded", "the document is longer than the model reads"),
    ("model.provider_content_filtered", "the provider's content filter stopped the prompt or the answer"),
    ("model.provider_malformed", "the provider's reply is not one of its dialect"),
    ("model.provider_model_unknown", "the provider has no such model, or no such path"),
    ("model.provider_oversized", "the provider's reply is larger than is read"),
    ("model.provider_overloaded", "the provider has no capacity for anybody at the moment"),
    ("model.provider_quota", "the account at the provider is out of credit or quota"),
    ("model.provider_rate_limited", "the provider asks to be called more slowly"),
    ("model.provider_refused", "the model refused to answer"),
    ("model.provider_request_invalid", "the provider does not accept the form of the request"),
    ("model.provider_stream_cut", "the streamed answer ended before the provider said so"),
    ("model.provider_tool_call", "the model asked for a tool although it was offered none"),
    ("model.provider_truncated", "the answer ended at its token limit"),
    ("model.provider_unavailable", "the provider failed, or took too long"),
];

/// Calls models. Cheap to clone.
#[derive(Clone)]
pub struct Models(Arc<Inner>);

struct Inner {
    harness: Harness,
    providers: Providers,
}

fn needs_approval() -> Fault {
    Fault::new(Class::NeedsApproval, "model.needs_approval", "policy wants a person to approve this call")
}

impl Models {
    /// A caller of these providers.
    pub fn new(harness: Harness, providers: Providers) -> Models {
        Models(Arc::new(Inner { harness, providers }))
    }

    /// The domain's table.
    pub fn domain(&self) -> Domain {
        Domain {
            name: "models",
            kinds: &["models.call"],
            facts: &["models.call.intended", "models.call.finished", "models.call.billed"],
            verbs: verbs::verbs(),
            routes: verbs::routes(),
            jobs: vec![verbs::orphan(self.0.harness.clone()), pay::biller(self.0.harness.clone())],
            codes: CODES,
        }
    }

    /// One attempt. An error is a call that was not made, or whose end could not be recorded; what came of one that was is
    /// in [`Ended`].
    async fn once(&self, ctx: &Ctx, call: &ModelCall, attempt: Attempt<'_>) -> Result<Ended, ModelFault> {
        let (provider, model) = call.pin.split_once('/').ok_or_else(|| unknown(&call.pin))?;
        // A provider names its own models; the baseline is named as a whole, so that no answer can pass for its.
        let named = if provider == "baseline" { call.pin.as_str() } else { model };
        let ask = Ask {
            model: Pin { model: named.to_owned(), accepts: call.accepts.clone() },
            system: call.system.clone(),
            user: call.user.clone(),
            schema: call.schema.clone(),
            allowed: call.allowed.clone(),
            max_output_tokens: call.max_output_tokens,
            temperature_milli: 0,
        };
        let checker = Checker::new(&ask).map_err(|violation| violated(&violation))?;
        if !self.0.providers.knows(provider) {
            return Err(unknown(&call.pin).into());
        }
        // An unpriced model is refused before it is called.
        let view = self.0.harness.store().view(&ctx.tenant, self.0.harness.now_ms());
        price::book(&view).await?.model(&call.pin)?;
        let prompt = format!("{}\u{0}{}\u{0}{}", ask.system, ask.user, ask.schema);
        let prompt_digest = hex::encode(&sha256(prompt.as_bytes()));
        let input_tokens_max = input_tokens_max(self.0.providers.request_bytes(provider, &ask));
        let (id, lease, held_micros) =
            self.intend(ctx, call, attempt, provider, model, &prompt_digest, input_tokens_max).await?;
        crash::point("model.intended");
        let answered = self.0.providers.ask(provider, &ctx.tenant, &ask).await;
        crash::point("model.sent");
        let (outcome, usage, model_reported) = match answered {
            Err(failed) => (Err(failed.fault), failed.usage, None),
            Ok(answer) => {
                let reported = answer.model.clone();
                let usage = answer.usage;
                match checker.check(&answer) {
                    Ok(checked) => (Ok(checked.into_body()), usage, Some(reported)),
                    Err(violation) => (Err(violated(&violation)), usage, Some(reported)),
                }
            }
        };
        let finished = self.finish(ctx, lease, &id, call, &outcome, usage, model_reported.as_deref()).await;
        let (fact, cost) = finished.map_err(|fault| {
            // Its job closes it as unknown, at what is held.
            ModelFault { fault, cost: Cost { cost_micros: 0, unmeasured_micros: held_micros } }
        })?;
        let (input_tokens, output_tokens) = match usage {
            Usage::Unknown | Usage::Unmetered => (None, None),
            Usage::Reported(tokens) => (Some(tokens.input()), Some(tokens.output())),
        };
        let reply = |body| ModelReply {
            body,
            model: model_reported.unwrap_or_default(),
            fact: fact.clone(),
            cost,
            input_tokens,
            output_tokens,
        };
        Ok(Ended { outcome: outcome.map(reply), fact: fact.clone(), cost })
    }

    /// Commits the intent. An earlier call under the same key that got lost is followed by a new one.
    #[expect(clippy::too_many_arguments, reason = "what a call is, said once, in one place")]
    async fn intend(
        &self,
        ctx: &Ctx,
        call: &ModelCall,
        attempt: Attempt<'_>,
        provider: &str,
        model: &str,
        prompt_digest: &str,
        input_tokens_max: u64,
    ) -> Result<(Id, Lease, i64), Fault> {
        let own = key(call);
        let brakes: Vec<_> = call
            .brakes
            .iter()
            .map(|brake| json!({"run": brake.run, "most_micros": brake.most_micros}))
            .collect();
        for n in 0..LOST_MAX {
            let key = if n == 0 { own.clone() } else { format!("{own}#{n}") };
            let ctx = Ctx { idempotency_key: Some(key), ..ctx.clone() };
            let args = json!({
                "run": call.run, "workflow": call.workflow, "provider": provider, "model": model,
                "project": call.project, "ticket": call.ticket, "input_tokens_max": input_tokens_max,
                "prompt_digest": prompt_digest, "max_output_tokens": call.max_output_tokens,
                "sensitivity": call.sensitivity, "causes": call.causes, "attempt": attempt.name,
                "instead_of": attempt.instead_of, "asked": attempt.asked, "brakes": brakes,
            });
            let done = self.0.harness.act(&ctx, "models.model.call", args.clone(), Terms::default()).await;
            let done = match done {
                Err(fault) if fault.code == "store.insufficient" => {
                    return Err(self.exhausted(&ctx, &act::parse(&args)?, fault).await);
                }
                Err(fault) if fault.code == "approval.cannot_wait" => return Err(needs_approval()),
                done => done?,
            };
            match done {
                Done::Outcome { replayed: true, .. } => attempt.lost.store(true, Ordering::Relaxed),
                Done::Outcome { value, held, .. } => {
                    let id = value["call"].as_str().and_then(|text| Id::parse(text).ok());
                    if let (Some(id), Some(lease)) = (id, held.into_iter().next()) {
                        return Ok((id, lease, value["held_micros"].as_i64().unwrap_or(0)));
                    }
                    return Err(act::internal("a model call was intended without a job"));
                }
                Done::Waiting { approval, .. } => {
                    return Err(needs_approval().with(json!({"approval": approval})));
                }
            }
        }
        Err(Fault::new(Class::Upstream, "model.lost", "earlier calls under this key got lost too often"))
    }

    #[expect(clippy::too_many_arguments, reason = "what a call came to, said once, in one place")]
    async fn finish(
        &self,
        ctx: &Ctx,
        lease: Lease,
        id: &Id,
        call: &ModelCall,
        outcome: &Result<serde_json::Value, Fault>,
        usage: Usage,
        reported: Option<&str>,
    ) -> Result<(Id, Cost), Fault> {
        let harness = &self.0.harness;
        let stamp = harness.stamp(ctx);
        let view = harness.store().view(&ctx.tenant, stamp.at_ms);
        let stored = view.get::<CallDoc>(id).await?.ok_or_else(|| Fault::not_found("call"))?;
        let status = outcome.as_ref().map_or_else(|fault| fault.code.clone(), |_| "answered".to_owned());
        let tokens = verbs::tokens(usage);
        let charge = pay::believed(&stored, pay::charge(usage, outcome.is_ok()));
        let settled = pay::settle(&stored, charge);
        let doc = CallDoc {
            status: status.clone(),
            reported: reported.map(str::to_owned),
            finished_at_ms: Some(stamp.at_ms),
            cost_micros: settled.cost_micros,
            unmeasured_micros: settled.unmeasured_micros,
            ..stored.doc.clone()
        };
        let mut fact = stamp.fact(
            "models.call.finished",
            &call.run,
            (<CallDoc as store::Document>::KIND, id),
            json!({"call": id, "status": status, "model": reported, "tokens": tokens,
                   "cost_micros": settled.cost_micros, "unmeasured_micros": settled.unmeasured_micros,
                   "answer": outcome.as_ref().ok().map(|body| hex::encode(&sha256(body.to_string().as_bytes())))}),
        );
        fact.causes.push(stored.intended.clone());
        let fact_id = fact.id.clone();
        let mut draft = stamp.draft();
        draft.operations.extend(settled.operations.iter().cloned());
        pay::bill_later(&mut draft, &stamp, &stored, &fact_id, charge, &settled);
        draft.put_if(&stored, &doc).fact(fact);
        let committed = harness.conclude(lease, draft, Vec::new()).await?;
        crash::point("model.finished");
        pay::bill(harness, committed.held).await;
        Ok((fact_id, doc.cost()))
    }

    /// Calls, and says what that cost: also what was paid for calls that got lost on the way to the same answer.
    async fn asked(&self, ctx: &Ctx, call: ModelCall) -> Result<ModelReply, ModelFault> {
        let lost = AtomicBool::new(false);
        let outcome = self.attempts(ctx, &call, &lost).await;
        if !lost.load(Ordering::Relaxed) {
            return outcome;
        }
        let cost = match self.spent(ctx, &call).await {
            Ok(cost) => cost,
            Err(fault) => {
                tracing::warn!(%fault, key = call.key, "what lost calls have cost could not be read");
                return outcome;
            }
        };
        match outcome {
            Ok(reply) => Ok(ModelReply { cost, ..reply }),
            Err(missed) => Err(ModelFault { cost, ..missed }),
        }
    }

    /// What all calls that were made for one question have cost.
    async fn spent(&self, ctx: &Ctx, call: &ModelCall) -> Result<Cost, Fault> {
        let view = self.0.harness.store().view(&ctx.tenant, self.0.harness.now_ms());
        let range = Range::of("run", Key::new().text(call.run.as_str()).bytes());
        let calls = view.list_through::<CallDoc>(range, CALLS_MAX).await?;
        let own = calls.iter().filter(|found| found.stored.asked == call.key);
        Ok(own.fold(Cost::default(), |cost, found| cost.and(found.stored.cost())))
    }
}

impl ModelCalls for Models {
    fn model_call<'a>(
        &'a self,
        ctx: &'a Ctx,
        call: ModelCall,
    ) -> BoxFuture<'a, Result<ModelReply, ModelFault>> {
        self.asked(ctx, call).boxed()
    }
}

/// The key of an attempt: its caller's, and what the attempt follows from. A repair or a fallback after a crash follows
/// from another call than the one before the crash did, and is a call of its own; under the bare key it would be the old
/// one with other arguments, and be refused.
fn key(call: &ModelCall) -> String {
    if call.causes.is_empty() {
        return call.key.clone();
    }
    let causes: Vec<&str> = call.causes.iter().map(Id::as_str).collect();
    let digest = hex::encode(&sha256(causes.join("\0").as_bytes()));
    format!("{}~{}", call.key, digest.get(..8).unwrap_or_default())
}

fn unknown(pin: &str) -> Fault {
    Fault::invalid("model.provider_unknown", format!("no provider is configured for {pin}"))
}

fn violated(violation: &Violation) -> Fault {
    let class = match violation {
        Violation::AskInvalid(_) | Violation::SchemaInvalid(_) => Class::Invalid,
        _ => Class::Upstream,
    };
    Fault::new(class, violation.code(), violation.to_string())
}
