//! Paying for a call: held with its intent, settled with its outcome, rated, and watched by its budgets.
//!
//! All that is known here of billing is its seam, [`billing::spend`]: what to commit beside the intent, what to commit
//! beside the outcome, and why something did not fit.

use super::Models;
use super::model::CallDoc;
use super::verbs::CallArgs;
use crate::contract::Usage;
use act::{Class, Ctx, Draw as _, Fault, JobSpec, Stamp};
use billing::price::Tokens;
use billing::spend::{self, Charge, Settled, Spend};
use futures::FutureExt as _;
use harness::{Done, Harness, Terms};
use kernel::permit::JobKind;
use kernel::{Draft, Id, Lease, hex, sha256};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Tokens that a provider may add to a prompt and that stand nowhere in the request: markers of roles and turns, the
/// instructions by which it explains tools and schemas to its model. Vendors that say how many it is name some hundreds for
/// a forced tool; this is several times that.
pub const PROVIDER_TOKENS: u64 = 4_096;

/// The most tokens that the input of a request can be: a token of a byte-level vocabulary is at least a byte of text, and
/// every text that the provider sees stands in the request's body, which escapes only make longer.
pub fn input_tokens_max(request_bytes: usize) -> u64 {
    (request_bytes as u64).saturating_add(PROVIDER_TOKENS)
}

/// What a call with these arguments is going to spend.
pub(super) fn spend(id: &Id, args: &CallArgs) -> Spend {
    Spend {
        call: id.clone(),
        project: args.project.clone(),
        workflow: args.workflow.clone(),
        model: format!("{}/{}", args.provider, args.model),
        input_tokens: args.input_tokens_max,
        output_tokens: u64::from(args.max_output_tokens),
        brakes: args
            .brakes
            .iter()
            .filter_map(|brake| {
                Some(spend::Brake { run: Id::parse(&brake.run).ok()?, most_micros: brake.most_micros })
            })
            .collect(),
    }
}

/// Usage as billing counts it.
pub(super) fn charge(usage: Usage, answered: bool) -> Charge {
    match usage {
        Usage::Reported(tokens) => Charge::Measured(Tokens {
            input: tokens.input_tokens,
            cached_input: tokens.cached_input_tokens,
            cache_write: tokens.cache_write_tokens,
            output: tokens.output(),
        }),
        Usage::Unmetered if answered => Charge::Measured(Tokens::default()),
        Usage::Unmetered => Charge::Nothing,
        Usage::Unknown => Charge::Unknown,
    }
}

/// A charge, as far as the call's terms let it be believed.
pub(super) fn believed(call: &CallDoc, charge: Charge) -> Charge {
    call.terms.as_ref().map_or(charge, |terms| spend::believed(terms, charge))
}

/// What ends the holds of a call. A call that was intended before there were holds has none.
pub(super) fn settle(call: &CallDoc, charge: Charge) -> Settled {
    match &call.terms {
        Some(terms) => spend::settle(terms, &call.id, charge),
        None => Settled { operations: Vec::new(), cost_micros: 0, unmeasured_micros: 0 },
    }
}

/// Puts what a call came to into the usage rows. The commit of the outcome begins it, and whoever made the call carries it
/// out; if that fails, or the process dies first, its lease runs out and another worker does it.
pub(super) static BILL: JobKind = JobKind {
    name: "models.bill",
    writes: &[],
    facts: &["models.call.billed"],
    lease_ms: 60_000,
    starts_max: 1_000,
};

/// The body of [`BILL`].
#[derive(Debug, Serialize, Deserialize)]
struct BillJob {
    call: Id,
    /// The fact of the call's end.
    finished: Id,
    tokens: Tokens,
    measured: bool,
    unmeasured_micros: i64,
}

/// Begins the rating of a call, in the commit of its outcome. A call that cost nothing has no row.
pub(super) fn bill_later(
    draft: &mut Draft,
    stamp: &Stamp,
    call: &CallDoc,
    finished: &Id,
    charge: Charge,
    settled: &Settled,
) {
    if call.terms.is_none() || charge == Charge::Nothing {
        return;
    }
    let (tokens, measured) = match charge {
        Charge::Measured(tokens) => (tokens, true),
        Charge::Unknown | Charge::Nothing => (Tokens::default(), false),
    };
    let unmeasured_micros = settled.unmeasured_micros;
    let body =
        BillJob { call: call.id.clone(), finished: finished.clone(), tokens, measured, unmeasured_micros };
    draft.job(stamp.id("job"), &BILL, stamp.at_ms, true, &json!(body));
}

/// The runner of [`BILL`].
pub(super) fn biller(harness: Harness) -> JobSpec {
    JobSpec {
        kind: &BILL,
        run: Arc::new(move |lease| {
            let harness = harness.clone();
            async move { bill(&harness, vec![lease]).await }.boxed()
        }),
    }
}

/// Rates calls that have ended. The answer is there and paid for, so nothing that fails here is a failure of the call.
pub(super) async fn bill(harness: &Harness, leases: Vec<Lease>) {
    for lease in leases {
        let job = lease.id.clone();
        if let Err(fault) = billed(harness, lease).await {
            tracing::warn!(%job, %fault, "a model call is in the ledger, and not in the usage rows yet; it will be tried again");
        }
    }
}

async fn billed(harness: &Harness, lease: Lease) -> Result<(), Fault> {
    let body: BillJob = serde_json::from_slice(&lease.body).map_err(act::internal)?;
    let view = harness.store().view(&lease.tenant, harness.now_ms());
    let call = view.get::<CallDoc>(&body.call).await?.ok_or_else(|| Fault::not_found("call"))?;
    let terms = call.terms.as_ref().ok_or_else(|| act::internal("a call without terms is not rated"))?;
    let actor = lease.authority.actor.clone();
    let mut service = harness.service("billing", &lease.tenant, vec![actor], &lease.authority.trace);
    service.idempotency_key = Some(call.id.to_string());
    let args = json!({
        "call": call.id, "run": call.run, "workflow": call.workflow, "project": call.project, "ticket": call.ticket,
        "model": format!("{}/{}", call.provider, call.model), "tokens": body.tokens, "measured": body.measured,
        "price": terms.price, "price_version": terms.price_version, "currency": terms.currency,
        "unmeasured_micros": body.unmeasured_micros,
    });
    let rated = match harness.act(&service, "billing.usage.record", args, Terms::default()).await? {
        Done::Outcome { value, .. } => value,
        Done::Waiting { .. } => return Err(act::internal("billing waits for an approval")),
    };
    warn(harness, service.clone(), terms).await?;
    let stamp = harness.stamp(&service);
    let mut draft = stamp.draft();
    let kind = (<CallDoc as store::Document>::KIND, &call.id);
    let mut fact =
        stamp.fact("models.call.billed", &call.id, kind, json!({"call": call.id, "usage": rated["usage"]}));
    fact.causes.push(body.finished);
    draft.fact(fact);
    harness.conclude(lease, draft, Vec::new()).await?;
    Ok(())
}

/// States what thresholds the budgets of a call have reached.
async fn warn(harness: &Harness, mut service: Ctx, terms: &spend::Terms) -> Result<(), Fault> {
    let view = harness.store().view(&service.tenant, harness.now_ms());
    for crossed in spend::crossed(&view, terms).await? {
        let key = format!("warn:{}:{}:{}", crossed.account, crossed.percent, crossed.amount);
        service.idempotency_key = Some(key);
        let args = json!({
            "budget": crossed.budget, "account": crossed.account, "percent": crossed.percent, "amount": crossed.amount,
        });
        if let Err(fault) = harness.act(&service, "billing.budget.warn", args, Terms::default()).await {
            // The call is paid for either way; the next one that is settled tries again.
            tracing::warn!(%fault, budget = %crossed.budget, "a threshold could not be stated");
        }
    }
    Ok(())
}

impl Models {
    /// Turns "an account has not enough left" into the budget that it is, and records once that the call was not made.
    pub(super) async fn exhausted(&self, ctx: &Ctx, args: &CallArgs, refused: Fault) -> Fault {
        match self.exhausted_recorded(ctx, args, &refused).await {
            Ok(Some(fault)) | Err(fault) => fault,
            Ok(None) => {
                Fault::new(Class::Contention, "contention", "the budgets have changed meanwhile; try again")
            }
        }
    }

    async fn exhausted_recorded(
        &self,
        ctx: &Ctx,
        args: &CallArgs,
        refused: &Fault,
    ) -> Result<Option<Fault>, Fault> {
        let harness = &self.0.harness;
        let account =
            refused.details.as_ref().and_then(|details| Id::parse(details["account"].as_str()?).ok());
        let Some(account) = account else { return Ok(Some(refused.clone())) };
        let run = Id::parse(&args.run).map_err(|_| Fault::not_found("run"))?;
        let view = harness.store().view(&ctx.tenant, harness.now_ms());
        // A run that may not cost more is stopped by its workflow, and says so itself.
        if let Some(braked) = spend::braked(&view, &spend(&run, args), &account).await? {
            return Ok(Some(braked));
        }
        let Some(exhausted) = spend::exhausted(&view, &spend(&run, args), &account).await? else {
            return Ok(None);
        };
        let mut service = harness.service("billing", &ctx.tenant, vec![ctx.principal.id.clone()], &ctx.trace);
        let key = ctx.idempotency_key.as_deref().unwrap_or(args.run.as_str());
        service.idempotency_key = Some(format!("exhausted:{}", &hex::encode(&sha256(key.as_bytes()))[..32]));
        let told = json!({
            "budget": exhausted.budget, "account": exhausted.account, "run": args.run, "needed": exhausted.needed,
            "model": format!("{}/{}", args.provider, args.model),
        });
        // A refusal that cannot be recorded is refused all the same, as what stood in the way of that.
        harness.act(&service, "billing.budget.exhaust", told, Terms::default()).await?;
        Ok(Some(exhausted.fault))
    }
}
