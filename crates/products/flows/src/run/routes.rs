//! Looking at runs.

use super::RunDoc;
use act::{Auth, Call, Fault, Method, Param, QueryCtx, Route};
use futures::FutureExt as _;
use kernel::Id;
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Found, PAGE_MAX, Range};

const STATES: &[&str] =
    &["running", "waiting", "dead", "done", "denied", "expired", "void", "needs_human", "cancelled"];
/// Most facts of a run shown at once.
const FACTS_MAX: usize = 1000;

/// A run without its content, as lists show it.
pub fn summary(run: &RunDoc) -> Value {
    json!({
        "id": run.id, "workflow": run.workflow, "status": run.status, "outcome": run.outcome, "step": run.step,
        "approval": run.approval, "cost_micros": run.cost_micros, "error": run.error.as_ref().map(|error| &error.code),
        "created_at_ms": run.created_at_ms, "event_at_ms": run.event_at_ms, "waited_ms": run.waited_ms,
        "written_back_at_ms": run.written_back_at_ms, "finished_at_ms": run.finished_at_ms, "replays": run.replays,
    })
}

fn shown(run: &RunDoc) -> Value {
    let mut value = summary(run);
    value["workflow_digest"] = json!(run.workflow_digest);
    value["connectors"] = json!(run.connectors);
    value["attempts"] = json!(run.attempts);
    value["started_by"] = json!(run.started_by);
    value["trace"] = json!(run.trace);
    value["event"] = run.event.clone();
    value["outputs"] = Value::Object(run.outputs.clone());
    value["digests"] = json!(run.digests);
    value["error"] = json!(run.error);
    value["pending"] = json!(run.pending.as_ref().map(|pending| json!({
        "connector": pending.connector, "action": pending.action, "effect_key": pending.effect_key,
        "intended_at_ms": pending.intended_at_ms, "unknown": pending.unknown,
    })));
    value
}

fn page(query: &QueryCtx<'_>, mut range: Range) -> Result<Range, Fault> {
    let limit = query.param("limit").map_or(Ok(PAGE_MAX), str::parse);
    range.limit =
        limit.map_err(|_| Fault::invalid("request.invalid", "limit is a number"))?.clamp(1, PAGE_MAX);
    if let Some(after) = query.param("after") {
        let cursor =
            || Fault::invalid("request.invalid", "after is the id of the last run of the page before");
        let created = query.param("after_ms").and_then(|text| text.parse::<i64>().ok()).ok_or_else(cursor)?;
        let key = Key::new().integer(created).bytes();
        range.after = Some(([range.prefix.clone(), key].concat(), Id::parse(after).map_err(|_| cursor())?));
    }
    Ok(range)
}

fn listed(found: &[Found<RunDoc>], limit: usize) -> Value {
    let next = found
        .last()
        .filter(|_| found.len() == limit)
        .map(|last| json!({"after": last.stored.id, "after_ms": last.stored.created_at_ms}));
    json!({"items": found.iter().map(|found| summary(&found.stored)).collect::<Vec<_>>(), "next": next})
}

const PAGING: [Param; 3] = [
    Param { name: "limit", summary: "at most so many, 200 by default" },
    Param { name: "after", summary: "id of the last run of the page before" },
    Param { name: "after_ms", summary: "its created_at_ms" },
];

/// The routes.
pub fn routes() -> Vec<Route> {
    let act = |path, operation, summary, act| Route {
        method: Method::Post,
        path,
        operation,
        summary,
        auth: Auth::Principal,
        call: Call::Verb(act),
        query: &[],
    };
    vec![
        act("/v1/runs", "run_start", "Start a run", "flows.run.start"),
        act("/v1/runs/{run}/cancel", "run_cancel", "Cancel a run", "flows.run.cancel"),
        act("/v1/runs/{run}/replay", "run_replay", "Take a run out of the dead letters", "flows.run.replay"),
        Route {
            method: Method::Get,
            path: "/v1/runs",
            operation: "run_list",
            summary: "List runs, newest first, or of one state, oldest first",
            auth: Auth::Principal,
            call: Call::Query(
                "flows.run.read",
                Arc::new(|query| {
                    async move {
                        let range = match query.param("state") {
                            Some(state) if STATES.contains(&state) => {
                                Range::of("status", Key::new().text(state).bytes())
                            }
                            Some(_) => {
                                return Err(Fault::invalid(
                                    "request.invalid",
                                    format!("state is one of {}", STATES.join(", ")),
                                ));
                            }
                            None => Range { descending: true, ..Range::of("time", Vec::new()) },
                        };
                        let range = page(&query, range)?;
                        let limit = range.limit;
                        Ok(listed(&query.view.list::<RunDoc>(range).await?, limit))
                    }
                    .boxed()
                }),
            ),
            query: {
                const QUERY: [Param; 4] = [
                    Param {
                        name: "state",
                        summary: "running, waiting, dead, done, denied, expired, void, needs_human or cancelled",
                    },
                    PAGING[0],
                    PAGING[1],
                    PAGING[2],
                ];
                &QUERY
            },
        },
        Route {
            method: Method::Get,
            path: "/v1/runs/{run}",
            operation: "run_show",
            summary: "Show a run",
            auth: Auth::Principal,
            call: Call::Query(
                "flows.run.read",
                Arc::new(|query| {
                    async move {
                        let id = query.id("run", "run")?;
                        Ok(shown(
                            &*query.view.peek::<RunDoc>(&id).await?.ok_or_else(|| Fault::not_found("run"))?,
                        ))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/runs/{run}/facts",
            operation: "run_facts",
            summary: "Show the facts of a run, in order",
            auth: Auth::Principal,
            call: Call::Query(
                "flows.run.read",
                Arc::new(|query| {
                    async move {
                        let id = query.id("run", "run")?;
                        query.view.peek::<RunDoc>(&id).await?.ok_or_else(|| Fault::not_found("run"))?;
                        let leaves = query.view.store().stream(query.view.tenant(), &id, 1, FACTS_MAX).await?;
                        let items: Vec<Value> = leaves
                            .iter()
                            .map(|leaf| {
                                let fact: Value = serde_json::from_slice(&leaf.leaf).unwrap_or_default();
                                json!({"index": leaf.index, "kind": fact["kind"], "at_ms": fact["at_ms"], "act": fact["act"],
                                       "actor": fact["actor"], "decision": fact["decision"]["effect"], "fact": fact})
                            })
                            .collect();
                        Ok(json!({"items": items}))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
    ]
}
