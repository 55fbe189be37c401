//! Usage rows: measured once, rated once, never changed.
//!
//! A call is rated at the price that its hold was taken at ([`crate::spend::Terms`]), whatever book is in force by the
//! time it ends. The same terms settled the holds, so the rows and the ledger agree to the millionth.

use crate::price::{ModelPrice, Tokens};
use crate::report;
use act::{Draw as _, Fault, Param, Plan, Route, Target, Verb, page};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Document;
use store::key::Key;

/// Longest name of a ticket or project, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// One rated call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageDoc {
    /// `use_…`, derived from the call, so that a call is rated once.
    pub id: Id,
    /// The run it was made for.
    pub run: Id,
    /// The workflow of the run.
    pub workflow: String,
    /// The project of the run, if it has one.
    #[serde(default)]
    pub project: Option<String>,
    /// What the run was about, as its source names it.
    #[serde(default)]
    pub ticket: Option<String>,
    /// `provider/model`, as it was pinned.
    pub model: String,
    /// What was measured.
    pub tokens: Tokens,
    /// Whether it could be measured. If not, nothing is in the cost, and somebody has to look at it.
    pub measured: bool,
    /// What it cost, in millionths of the currency.
    pub cost_micros: i64,
    /// What was charged to budgets although nobody measured it: the most that the call can have cost.
    #[serde(default)]
    pub unmeasured_micros: i64,
    /// The price book that rated it.
    pub price_version: String,
    /// Its currency.
    pub currency: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

impl Document for UsageDoc {
    const KIND: &'static str = "billing.usage";
    const VERSION: u32 = 2;
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("run", Key::new().text(self.run.as_str()).integer(self.at_ms).bytes()),
            ("time", Key::new().integer(self.at_ms).bytes()),
        ]
    }
    fn upcast(version: u32, doc: Value) -> Option<Value> {
        // Version 1 knew neither project nor ticket, and charged nothing that was not measured.
        (version == 1).then_some(doc)
    }
}

/// Arguments of `billing.usage.record`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The call, `cal_…`; a call is rated once.
    pub call: String,
    /// The run it was made for.
    pub run: String,
    /// The workflow of the run.
    pub workflow: String,
    /// The project of the run.
    #[serde(default)]
    pub project: Option<String>,
    /// What the run was about.
    #[serde(default)]
    pub ticket: Option<String>,
    /// `provider/model`.
    pub model: String,
    /// What was measured.
    pub tokens: Tokens,
    /// Whether it could be measured.
    pub measured: bool,
    /// The price it was held at.
    pub price: ModelPrice,
    /// The version of the book that the price is from.
    pub price_version: String,
    /// Its currency.
    pub currency: String,
    /// What was charged to budgets although nobody measured it, in millionths.
    #[serde(default)]
    pub unmeasured_micros: i64,
}

/// A name that is short enough to be kept; what is longer is cut.
fn name(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|mut text| {
        let end =
            (0..=NAME_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text
    })
}

fn ids(args: &Record) -> Result<(Id, Id), Fault> {
    let run = Id::parse(&args.run).map_err(|_| Fault::not_found("run"))?;
    let suffix = args.call.strip_prefix("cal_").ok_or_else(|| Fault::not_found("call"))?;
    let usage = Id::parse(&format!("use_{suffix}")).map_err(|_| Fault::not_found("call"))?;
    Ok((run, usage))
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "billing.usage.record",
        summary: "Rates the usage of a call and records what it cost",
        args: || schemars::schema_for!(Record).into(),
        writes: &["billing.usage"],
        facts: &["billing.usage.rated"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|_, args, _| {
            async move {
                let args: Record = act::parse(args)?;
                let (run, _) = ids(&args)?;
                Ok(Target::of("flows.run", &run))
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: Record = act::parse(args)?;
                let (run, id) = ids(&args)?;
                // What nobody measured is not a cost; what it may have been stands beside it.
                let cost_micros = if args.measured { args.price.rate(&args.tokens)? } else { 0 };
                if view.get::<UsageDoc>(&id).await?.is_some() {
                    return Err(Fault::conflict("request.state", "this call has been rated already"));
                }
                let doc = UsageDoc {
                    id: id.clone(),
                    run: run.clone(),
                    workflow: args.workflow,
                    project: name(args.project),
                    ticket: name(args.ticket),
                    model: args.model,
                    tokens: args.tokens,
                    measured: args.measured,
                    cost_micros,
                    unmeasured_micros: args.unmeasured_micros,
                    price_version: args.price_version,
                    currency: args.currency,
                    at_ms: stamp.at_ms,
                };
                let outcome = json!({"usage": id, "cost_micros": cost_micros, "price_version": doc.price_version});
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.put_new(&doc).fact(stamp.fact(
                    "billing.usage.rated",
                    &run,
                    (UsageDoc::KIND, &id),
                    json!({
                        "model": doc.model, "cost_micros": cost_micros, "currency": doc.currency,
                        "price_version": doc.price_version, "measured": doc.measured,
                        "unmeasured_micros": doc.unmeasured_micros,
                        "tokens": {"input": bounded(doc.tokens.input), "cached_input": bounded(doc.tokens.cached_input),
                                   "cache_write": bounded(doc.tokens.cache_write), "output": bounded(doc.tokens.output)},
                    }),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

/// A count as a fact can carry it.
fn bounded(count: u64) -> u64 {
    count.min((1 << 53) - 1)
}

fn shown(doc: &UsageDoc) -> Value {
    json!({
        "id": doc.id, "run": doc.run, "workflow": doc.workflow, "project": doc.project, "ticket": doc.ticket,
        "model": doc.model, "tokens": doc.tokens, "measured": doc.measured, "unmeasured_micros": doc.unmeasured_micros,
        "cost_micros": doc.cost_micros, "currency": doc.currency, "price_version": doc.price_version, "at_ms": doc.at_ms,
    })
}

const REPORT: &[Param] = &[
    Param { name: "by", summary: "ticket, run, model, workflow or project; without it workflow and model" },
    Param { name: "from_ms", summary: "Only usage from this moment on, milliseconds UTC" },
    Param { name: "to_ms", summary: "Only usage before this moment, milliseconds UTC" },
];

fn report_route(
    path: &'static str,
    operation: &'static str,
    summary: &'static str,
    shown: fn(&report::Report) -> Value,
) -> Route {
    Route::get(path, operation, summary, "billing.usage.read", move |query| {
        async move { Ok(shown(&report::report(&query).await?)) }.boxed()
    })
    .taking(REPORT)
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/usage",
            "usage_list",
            "List rated calls, of one run or the newest first",
            "billing.usage.read",
            |query| {
                async move {
                    let (index, prefix) = match query.param("run") {
                        Some(_) => ("run", Key::new().text(query.id("run", "run")?.as_str()).bytes()),
                        None => ("time", Vec::new()),
                    };
                    page::list(&query, index, prefix, index == "time", shown).await
                }
                .boxed()
            },
        )
        .taking(&[
            Param { name: "run", summary: "only calls of this run" },
            page::AFTER,
            page::LIMIT,
        ]),
        report_route("/v1/costs", "cost_report", "Add up costs", report::Report::json),
        report_route("/v1/costs/csv", "cost_csv", "Add up costs, as CSV", |report| {
            Value::String(report.csv())
        }),
        report_route("/v1/costs/chart", "cost_chart", "Add up costs, as a page with a chart", |report| {
            Value::String(report.html())
        }),
    ]
}
