//! The act of calling a model, and the end of calls that nobody came back from.

use super::{CallDoc, pay};
use crate::contract::Usage;
use act::{Draw as _, Fault, JobSpec, Param, Plan, Route, Target, Verb, page};
use billing::spend::{self, Charge};
use futures::FutureExt as _;
use harness::Harness;
use kernel::permit::JobKind;
use kernel::{Id, Lease};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::Document as _;
use store::key::Key;

/// Closes a call whose caller has gone.
pub static CALL: JobKind = JobKind {
    name: "models.call",
    writes: &["models.call", kernel::ledger::WRITES_TRANSFER],
    facts: &["models.call.finished"],
    lease_ms: 120_000,
    starts_max: 20,
};

/// Arguments of `models.model.call`. The prompt is not among them: policy sees what is called, not what is said.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallArgs {
    /// The run it is for.
    pub run: String,
    /// The workflow of the run.
    pub workflow: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The model that is pinned.
    pub model: String,
    /// SHA-256 of the prompt and the schema.
    pub prompt_digest: String,
    /// The project of the run.
    #[serde(default)]
    pub project: Option<String>,
    /// What the run is about, as its source names it.
    #[serde(default)]
    pub ticket: Option<String>,
    /// Most tokens of input.
    pub input_tokens_max: u64,
    /// Most tokens of output.
    pub max_output_tokens: u32,
    /// How the data is classified.
    pub sensitivity: String,
    /// Facts that led to it.
    #[serde(default)]
    pub causes: Vec<String>,
    /// The key under which its caller asked.
    #[serde(default)]
    pub asked: String,
    /// What the runs that it is a part of may cost.
    #[serde(default)]
    pub brakes: Vec<BrakeArgs>,
    /// Which attempt it is: `first`, `repair` of an answer that broke its schema, or `fallback`.
    #[serde(default = "first")]
    pub attempt: String,
    /// The `provider/model` that was asked for, where this one stands in for it.
    #[serde(default)]
    pub instead_of: Option<String>,
}

/// What a run may cost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrakeArgs {
    /// The run.
    pub run: String,
    /// In millionths of the currency.
    pub most_micros: i64,
}

/// What a call is that says nothing else.
pub(super) fn first() -> String {
    "first".to_owned()
}

fn run(args: &CallArgs) -> Result<Id, Fault> {
    Id::parse(&args.run).map_err(|_| Fault::not_found("run"))
}

/// The verbs.
pub(super) fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "models.model.call",
        summary: "Calls a model",
        args: || schemars::schema_for!(CallArgs).into(),
        writes: &["models.call", kernel::ledger::WRITES_ACCOUNT, kernel::ledger::WRITES_TRANSFER],
        facts: &["models.call.intended"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: CallArgs = act::parse(args)?;
                let place = access::project::place_of(view, args.project.as_deref()).await?;
                let mut target = Target::of("flows.run", &run(&args)?).at(place);
                target.attributes = json!({
                    "provider": args.provider, "model": args.model, "sensitivity": args.sensitivity,
                    "max_output_tokens": args.max_output_tokens,
                    "route": format!("{}/{}", args.provider, args.model), "attempt": args.attempt,
                });
                // Absent where nobody stands in: policy asks whether it is there.
                if let Some(instead_of) = args.instead_of {
                    target.attributes["instead_of"] = json!(instead_of);
                }
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: CallArgs = act::parse(args)?;
                let run = run(&args)?;
                let id = stamp.id("cal");
                // Held in this very commit: a call that does not fit is never intended.
                let taken = spend::take(view, &pay::spend(&id, &args)).await?;
                let mut fact = stamp.fact(
                    "models.call.intended",
                    &run,
                    (CallDoc::KIND, &id),
                    json!({
                        "call": id, "provider": args.provider, "model": args.model, "prompt": args.prompt_digest,
                        "held_micros": taken.terms.most_micros, "currency": taken.terms.currency,
                        "price_version": taken.terms.price_version, "holds": taken.terms.holds.len(),
                        "attempt": args.attempt, "instead_of": args.instead_of,
                    }),
                );
                fact.causes = args.causes.iter().filter_map(|cause| Id::parse(cause).ok()).take(8).collect();
                let doc = CallDoc {
                    id: id.clone(),
                    run,
                    workflow: args.workflow,
                    project: args.project,
                    ticket: args.ticket,
                    provider: args.provider,
                    model: args.model,
                    prompt_digest: args.prompt_digest,
                    asked: args.asked,
                    attempt: args.attempt,
                    instead_of: args.instead_of,
                    status: "intended".into(),
                    reported: None,
                    intended: fact.id.clone(),
                    intended_at_ms: stamp.at_ms,
                    finished_at_ms: None,
                    cost_micros: 0,
                    unmeasured_micros: 0,
                    terms: Some(taken.terms),
                };
                let outcome = json!({"call": id, "held_micros": doc.cost().unmeasured_micros});
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.operations.extend(taken.operations);
                plan.draft.put_new(&doc).fact(fact).job(stamp.id("job"), &CALL, stamp.at_ms, true, &json!({"call": id}));
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// Usage as facts carry it.
pub(super) fn tokens(usage: Usage) -> Value {
    match usage {
        Usage::Unknown | Usage::Unmetered => Value::Null,
        Usage::Reported(tokens) => {
            let bounded = |count: u64| count.min((1 << 53) - 1);
            json!({
                "input": bounded(tokens.input_tokens), "cached_input": bounded(tokens.cached_input_tokens),
                "cache_write": bounded(tokens.cache_write_tokens), "output": bounded(tokens.output_tokens),
                "reasoning": bounded(tokens.reasoning_tokens),
            })
        }
    }
}

/// Closes a call that was intended and never ended as unknown.
pub(super) fn orphan(harness: Harness) -> JobSpec {
    JobSpec {
        kind: &CALL,
        run: Arc::new(move |lease| {
            let harness = harness.clone();
            async move {
                let job = lease.id.clone();
                if let Err(error) = close(&harness, lease).await {
                    tracing::warn!(%job, %error, "a lost model call could not be closed; it will be tried again");
                }
            }
            .boxed()
        }),
    }
}

async fn close(harness: &Harness, lease: Lease) -> Result<(), Fault> {
    let body: Value = serde_json::from_slice(&lease.body).map_err(act::internal)?;
    let id = Id::parse(body["call"].as_str().unwrap_or_default()).map_err(act::internal)?;
    let ctx = harness.service(
        "models",
        &lease.tenant,
        lease.authority.on_behalf_of.clone(),
        &lease.authority.trace,
    );
    let stamp = harness.stamp(&ctx);
    let view = harness.store().view(&lease.tenant, stamp.at_ms);
    let stored = view.get::<CallDoc>(&id).await?.ok_or_else(|| Fault::not_found("call"))?;
    // The provider may have answered, and may bill it.
    let settled = pay::settle(&stored, Charge::Unknown);
    let doc = CallDoc {
        status: "unknown".into(),
        finished_at_ms: Some(stamp.at_ms),
        cost_micros: settled.cost_micros,
        unmeasured_micros: settled.unmeasured_micros,
        ..stored.doc.clone()
    };
    let mut fact = stamp.fact(
        "models.call.finished",
        &doc.run,
        (CallDoc::KIND, &id),
        json!({"call": id, "status": "unknown", "model": null, "tokens": null, "answer": null,
               "cost_micros": settled.cost_micros, "unmeasured_micros": settled.unmeasured_micros}),
    );
    fact.causes.push(stored.intended.clone());
    let mut draft = stamp.draft();
    draft.operations.extend(settled.operations.iter().cloned());
    pay::bill_later(&mut draft, &stamp, &stored, &fact.id, Charge::Unknown, &settled);
    draft.put_if(&stored, &doc).fact(fact);
    let committed = harness.conclude(lease, draft, Vec::new()).await?;
    pay::bill(harness, committed.held).await;
    Ok(())
}

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/model-calls",
            "model_call_list",
            "List model calls: those of a run, oldest first, or all, those of the newest run first",
            "models.call.read",
            |query| {
                async move {
                    // Ids of runs begin with their time, so the index by run is one by time as well.
                    let (prefix, all) = match query.param("run") {
                        Some(_) => (Key::new().text(query.id("run", "run")?.as_str()).bytes(), false),
                        None => (Vec::new(), true),
                    };
                    page::list(&query, "run", prefix, all, |call: &CallDoc| json!(call)).await
                }
                .boxed()
            },
        )
        .taking(&[
            Param { name: "run", summary: "Only those of this run" },
            page::AFTER,
            page::LIMIT,
        ]),
    ]
}
