//! Usage rows: measured once, rated once, never changed.

use crate::price::{Tokens, book};
use act::{Auth, Call, Draw as _, Fault, Method, Param, Plan, Route, Target, Verb};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::key::Key;
use store::{Document, PAGE_MAX, Range, View};

/// Most rows that a report adds up.
pub const REPORT_ROWS_MAX: usize = 20_000;

/// One rated call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UsageDoc {
    /// `use_…`, derived from the call, so that a call is rated once.
    pub id: Id,
    /// The run it was made for.
    pub run: Id,
    /// The workflow of the run.
    pub workflow: String,
    /// `provider/model`, as it was pinned.
    pub model: String,
    /// What was measured.
    pub tokens: Tokens,
    /// Whether it could be measured. If not, only the price per call is in the cost, and somebody has to look at it.
    pub measured: bool,
    /// What it cost, in millionths of the currency.
    pub cost_micros: i64,
    /// The price book that rated it.
    pub price_version: String,
    /// Its currency.
    pub currency: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

impl Document for UsageDoc {
    const KIND: &'static str = "billing.usage";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("run", Key::new().text(self.run.as_str()).integer(self.at_ms).bytes()),
            ("time", Key::new().integer(self.at_ms).bytes()),
        ]
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
    /// `provider/model`.
    pub model: String,
    /// What was measured.
    pub tokens: Tokens,
    /// Whether it could be measured.
    pub measured: bool,
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
                let book = book(view).await?;
                let cost_micros = book.rate(&args.model, &args.tokens)?;
                if view.get::<UsageDoc>(&id).await?.is_some() {
                    return Err(Fault::conflict("request.state", "this call has been rated already"));
                }
                let doc = UsageDoc {
                    id: id.clone(),
                    run: run.clone(),
                    workflow: args.workflow,
                    model: args.model,
                    tokens: args.tokens,
                    measured: args.measured,
                    cost_micros,
                    price_version: book.version,
                    currency: book.currency,
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

/// What a run has cost so far, in millionths, and in how many calls.
pub async fn run_cost(view: &View, run: &Id) -> Result<(i64, usize), store::ReadError> {
    let found = view.list::<UsageDoc>(Range::of("run", Key::new().text(run.as_str()).bytes())).await?;
    Ok((found.iter().map(|found| found.stored.cost_micros).sum(), found.len()))
}

fn shown(doc: &UsageDoc) -> Value {
    json!({
        "id": doc.id, "run": doc.run, "workflow": doc.workflow, "model": doc.model, "tokens": doc.tokens,
        "measured": doc.measured, "cost_micros": doc.cost_micros, "currency": doc.currency, "price_version": doc.price_version, "at_ms": doc.at_ms,
    })
}

/// Adds up all rows by model and by workflow; `complete` says whether the report reached the end.
async fn report(view: &View) -> Result<Value, Fault> {
    #[derive(Default, Serialize)]
    struct Sum {
        calls: u64,
        runs: usize,
        cost_micros: i64,
        input_tokens: u64,
        output_tokens: u64,
        cost_per_run_micros: i64,
    }
    let mut sums: BTreeMap<(String, String), Sum> = BTreeMap::new();
    let mut runs: std::collections::BTreeSet<(String, String, Id)> = Default::default();
    let mut range = Range::of("time", Vec::new());
    let mut rows = 0;
    let complete = loop {
        let found = view.list::<UsageDoc>(range.clone()).await?;
        rows += found.len();
        for row in &found {
            let doc = &row.stored.doc;
            let key = (doc.workflow.clone(), doc.model.clone());
            runs.insert((key.0.clone(), key.1.clone(), doc.run.clone()));
            let sum = sums.entry(key).or_default();
            sum.calls += 1;
            sum.cost_micros += doc.cost_micros;
            sum.input_tokens += doc.tokens.input + doc.tokens.cached_input + doc.tokens.cache_write;
            sum.output_tokens += doc.tokens.output;
        }
        match found.last() {
            Some(last) if found.len() == PAGE_MAX => {
                range.after = Some((last.key.clone(), last.stored.id.clone()))
            }
            _ => break true,
        }
        if rows >= REPORT_ROWS_MAX {
            break false;
        }
    };
    for (workflow, model, _) in runs {
        if let Some(sum) = sums.get_mut(&(workflow, model)) {
            sum.runs += 1;
        }
    }
    let items: Vec<Value> = sums
        .into_iter()
        .map(|((workflow, model), mut sum)| {
            sum.cost_per_run_micros = sum.cost_micros / i64::try_from(sum.runs.max(1)).unwrap_or(1);
            let mut item = json!(sum);
            item["workflow"] = json!(workflow);
            item["model"] = json!(model);
            item
        })
        .collect();
    Ok(json!({"items": items, "rows": rows, "complete": complete}))
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::Get,
            path: "/v1/usage",
            operation: "usage_list",
            summary: "List rated calls, of one run or the newest first",
            auth: Auth::Principal,
            call: Call::Query(
                "billing.usage.read",
                Arc::new(|query| {
                    async move {
                        let range = match query.param("run") {
                            Some(_) => Range::of("run", Key::new().text(query.id("run", "run")?.as_str()).bytes()),
                            None => Range { descending: true, ..Range::of("time", Vec::new()) },
                        };
                        let found = query.view.list::<UsageDoc>(range).await?;
                        Ok(json!({"items": found.iter().map(|found| shown(&found.stored)).collect::<Vec<_>>()}))
                    }
                    .boxed()
                }),
            ),
            query: &[Param { name: "run", summary: "only calls of this run" }],
        },
        Route {
            method: Method::Get,
            path: "/v1/costs",
            operation: "cost_report",
            summary: "Add up costs by workflow and model",
            auth: Auth::Principal,
            call: Call::Query(
                "billing.usage.read",
                Arc::new(|query| async move { report(query.view).await }.boxed()),
            ),
            query: &[],
        },
    ]
}
