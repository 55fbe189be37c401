//! Looking at runs.

use super::{RunDoc, Status};
use access::project::{project_id, project_name};
use access::rights;
use act::{Fault, Param, QueryCtx, Route, page};
use futures::FutureExt as _;
use serde_json::{Value, json};
use store::Range;
use store::key::Key;

const READ: &str = "flows.run.read";
/// One project.
pub(super) const PROJECT: Param = Param { name: "project", summary: "Only those of this project" };
const STATES: &[&str] =
    &["running", "waiting", "dead", "done", "denied", "expired", "void", "needs_human", "cancelled"];

/// A run without its content, as lists show it.
pub fn summary(run: &RunDoc) -> Value {
    json!({
        "id": run.id, "workflow": run.workflow, "project": run.project, "status": run.state(),
        "outcome": run.outcome, "step": run.step, "approval": run.approval, "cost_micros": run.cost_micros,
        "unmeasured_micros": run.unmeasured_micros, "error": run.error.as_ref().map(|error| &error.code),
        "created_at_ms": run.created_at_ms, "event_at_ms": run.event_at_ms, "waited_ms": run.waited_ms,
        "written_back_at_ms": run.written_back_at_ms, "finished_at_ms": run.finished_at_ms, "replays": run.replays,
        "part_of": run.strand.as_ref().map(|strand| json!({"run": strand.parent, "step": strand.step, "branch": strand.branch})),
        "waits": waits(run), "dry_run": run.dry_run,
    })
}

/// What it waits for.
fn waits(run: &RunDoc) -> Value {
    match (&run.approval, &run.alarm) {
        _ if run.state() == Status::Waiting && run.status == Status::Running => {
            json!({"breaker": run.held.as_ref().map(|held| &held.connector),
                   "until_ms": run.held.as_ref().map(|held| held.until_ms)})
        }
        _ if run.status != Status::Waiting => Value::Null,
        (Some(approval), _) => json!({"approval": approval}),
        (None, Some(alarm)) => json!({"until_ms": alarm.until_ms, "signal": alarm.signal}),
        (None, None) => json!({"runs": run.strands}),
    }
}

fn shown(run: &RunDoc) -> Value {
    let mut value = summary(run);
    value["workflow_digest"] = json!(run.workflow_digest);
    value["connectors"] = json!(run.connectors);
    value["workflows"] = json!(run.workflows);
    value["crashes"] = json!(run.crashes);
    value["rehearsed"] = json!(run.rehearsed);
    value["attempts"] = json!(run.attempts);
    value["started_by"] = json!(run.started_by);
    value["trace"] = json!(run.trace);
    value["event"] = run.event.clone();
    value["outputs"] = Value::Object(run.outputs.clone());
    value["digests"] = json!(run.digests);
    value["error"] = json!(run.error);
    value["pending"] = in_flight(run);
    value
}

/// The call in flight, without its parameters.
pub(super) fn in_flight(run: &RunDoc) -> Value {
    json!(run.pending.as_ref().map(|pending| json!({
        "connector": pending.connector, "action": pending.action, "effect_key": pending.effect_key,
        "intended_at_ms": pending.intended_at_ms, "unknown": pending.unknown,
    })))
}

/// The project that a list is narrowed to, as runs name it. Whoever reads only in projects has to name one of those.
fn project(query: &QueryCtx<'_>) -> Result<Option<String>, Fault> {
    let id = match query.param("project") {
        None => None,
        Some(text) => Some(project_id(text).ok_or_else(|| Fault::not_found("project"))?),
    };
    rights::reach(&query.ctx.principal, READ).check(id.as_ref())?;
    Ok(id.map(|id| project_name(&id).to_owned()))
}

/// Reads a run that the caller may read.
pub(super) async fn readable(query: &QueryCtx<'_>, what: &str) -> Result<RunDoc, Fault> {
    let id = query.id("run", what)?;
    let run = query.view.peek::<RunDoc>(&id).await?.ok_or_else(|| Fault::not_found(what))?.doc;
    let project = run.project.as_deref().and_then(project_id);
    if rights::reach(&query.ctx.principal, READ).covers(project.as_ref()) {
        Ok(run)
    } else {
        Err(Fault::not_found(what))
    }
}

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let project = project(&query)?;
    let range = match query.param("state") {
        Some(state) if STATES.contains(&state) => {
            page::range(&query, "status", Key::new().text(state).bytes(), false)?
        }
        Some(_) => {
            let message = format!("state is one of {}", STATES.join(", "));
            return Err(Fault::invalid("request.invalid", message));
        }
        None => match &project {
            Some(project) => page::range(&query, "project", Key::new().text(project).bytes(), true)?,
            None => page::range(&query, "time", Vec::new(), true)?,
        },
    };
    listed(&query, range, project.as_deref()).await
}

/// A page of runs, of one project only if there is one.
async fn listed(query: &QueryCtx<'_>, range: Range, project: Option<&str>) -> Result<Value, Fault> {
    let limit = range.limit;
    let found = query.view.list::<RunDoc>(range).await?;
    let there = |run: &RunDoc| project.is_none() || run.project.as_deref() == project;
    Ok(page::page(&found, limit, |run| there(run).then(|| summary(run))))
}

/// The same for dead runs.
pub(super) async fn dead(query: &QueryCtx<'_>) -> Result<Value, Fault> {
    let project = project(query)?;
    let range = page::range(query, "status", Key::new().text(Status::Dead.as_str()).bytes(), false)?;
    listed(query, range, project.as_deref()).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    Ok(shown(&readable(&query, "run").await?))
}

/// The facts of a run's stream. Their cursor is the number in the stream: facts are only ever added at its end.
async fn facts(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let id = readable(&query, "run").await?.id;
    let limit = page::limit(&query)?;
    let after = match query.param("after") {
        None => 0,
        Some(text) => text
            .parse::<u64>()
            .ok()
            .filter(|after| *after < u64::MAX)
            .ok_or_else(|| Fault::invalid("request.invalid", "after is no cursor of this list"))?,
    };
    let leaves = query.view.store().stream(query.view.tenant(), &id, after + 1, limit).await?;
    let items: Vec<Value> = leaves
        .iter()
        .map(|leaf| {
            let fact: Value = serde_json::from_slice(&leaf.leaf).unwrap_or_default();
            json!({"index": leaf.index, "kind": fact["kind"], "at_ms": fact["at_ms"], "act": fact["act"],
                   "actor": fact["actor"], "decision": fact["decision"]["effect"], "fact": fact})
        })
        .collect();
    let next = items.last().filter(|_| items.len() == limit).map(|item| item["fact"]["stream_n"].to_string());
    Ok(json!({"items": items, "next": next}))
}

/// The routes.
pub fn routes() -> Vec<Route> {
    const STATE: Param = Param {
        name: "state",
        summary: "running, waiting, dead, done, denied, expired, void, needs_human or cancelled",
    };
    vec![
        Route::post("/v1/runs", "run_start", "Start a run", "flows.run.start"),
        Route::post("/v1/runs/{run}/cancel", "run_cancel", "Cancel a run", "flows.run.cancel"),
        Route::post(
            "/v1/runs/{run}/signal",
            "run_signal",
            "Tell a run what it waits for",
            "flows.run.signal",
        ),
        Route::post(
            "/v1/runs/{run}/replay",
            "run_replay",
            "Take a run out of the dead letters",
            "flows.run.replay",
        ),
        Route::get(
            "/v1/runs",
            "run_list",
            "List runs, newest first, or of one state, oldest first",
            READ,
            |query| list(query).boxed(),
        )
        .taking(&[STATE, PROJECT, page::AFTER, page::LIMIT]),
        Route::get("/v1/runs/{run}", "run_show", "Show a run", READ, |query| show(query).boxed()),
        Route::get("/v1/runs/{run}/facts", "run_facts", "Show the facts of a run, in order", READ, |query| {
            facts(query).boxed()
        })
        .taking(&page::PARAMS),
    ]
}
