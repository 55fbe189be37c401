//! Starting, cancelling and replaying runs.

use super::gate::{begin, run_read};
use super::machine;
use super::{Attempts, Outcome, Pending, RunDoc, Status, source_key};
use crate::connector::record::{Connector, Version, connector_id, version_id};
use crate::template::{self, Scope};
use crate::workflow::model::Workflow;
use crate::workflow::record::{Published, Starts, starts_id, workflow_id};
use act::{Draw as _, Fault, Plan, Stamp, Target, Verb};
use futures::FutureExt as _;
use kernel::{Id, hex, sha256};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Largest event, in bytes.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

/// Arguments of `flows.run.start`: a workflow by name, or an event of a connector.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartArgs {
    /// The workflow, when started by hand.
    pub workflow: Option<String>,
    /// The installed connector that the event came from.
    pub connector: Option<String>,
    /// The event's name in the connector's manifest.
    pub event_name: Option<String>,
    /// The event.
    pub event: Value,
    /// When it happened, milliseconds UTC; now, if it is not known.
    pub event_at_ms: Option<i64>,
}

/// Arguments of `flows.run.replay`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayArgs {
    /// The run.
    pub run: String,
    /// What became of a call of which only people can tell: whether it had its effect. Whoever says so has looked.
    #[serde(default)]
    pub applied: Option<bool>,
}

/// Arguments of `flows.run.cancel`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunArgs {
    /// The run.
    pub run: String,
}

/// The workflow in force under a name.
async fn published(view: &View, name: &str) -> Result<(String, Arc<Workflow>), Fault> {
    let missing = || Fault::not_found("workflow");
    let id = workflow_id(name).ok_or_else(missing)?;
    let published =
        view.get::<Published>(&id).await?.filter(|doc| doc.retired_at_ms.is_none()).ok_or_else(missing)?;
    let workflow = super::gate::workflow_read(view, &published.digest).await?;
    Ok((published.digest.clone(), workflow))
}

/// The versions of the connectors that a workflow calls, as they are installed now.
async fn pins(view: &View, workflow: &Workflow) -> Result<BTreeMap<String, String>, Fault> {
    let mut pins = BTreeMap::new();
    for name in workflow.connectors() {
        let unready = |message: String| Fault::conflict("flows.connector_unready", message);
        let id = connector_id(name).ok_or_else(|| unready(format!("there is no connector {name}")))?;
        let installed = view.get::<Connector>(&id).await?.filter(|doc| doc.removed_at_ms.is_none());
        let installed = installed.ok_or_else(|| unready(format!("the connector {name} is not installed")))?;
        if let Some(pin) = workflow.pins.connectors.get(name)
            && (pin.manifest != installed.manifest.0 || pin.version != installed.manifest.1)
        {
            return Err(unready(format!("the workflow pins another version of the connector {name}")));
        }
        pins.insert(name.to_owned(), installed.version.clone());
    }
    Ok(pins)
}

/// Why an event starts nothing, or what identifies it.
enum Sorted {
    Ignored(&'static str),
    Source(Option<String>),
}

/// Sorts an event of a connector: our own echo, or one with this identity.
async fn sorted(view: &View, args: &StartArgs) -> Result<Sorted, Fault> {
    let (Some(connector), Some(name)) = (&args.connector, &args.event_name) else {
        return Ok(Sorted::Source(None));
    };
    let missing = || Fault::not_found("connector");
    let installed =
        view.get::<Connector>(&connector_id(connector).ok_or_else(missing)?).await?.ok_or_else(missing)?;
    let version = view
        .peek::<Version>(&version_id(&installed.version).ok_or_else(missing)?)
        .await?
        .ok_or_else(missing)?;
    let event = version.manifest.events.get(name).ok_or_else(|| Fault::not_found("event"))?;
    let text = |pointer: &String| {
        args.event
            .pointer(pointer)
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    if let (Some(author), Some(own)) = (event.author.as_ref().and_then(text), version.login.user())
        && author == own
    {
        return Ok(Sorted::Ignored("own_write"));
    }
    let identity: Option<Vec<String>> = event.identity.iter().map(text).collect();
    Ok(Sorted::Source(identity.filter(|parts| !parts.is_empty()).map(|parts| {
        // Values come from outside and may be of any length; the key has a bound.
        hex::encode(&sha256(format!("{connector}\0{name}\0{}", parts.join("\0")).as_bytes()))
    })))
}

async fn start(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: StartArgs = act::parse(args)?;
    let size = serde_json::to_vec(&args.event).map_or(usize::MAX, |bytes| bytes.len());
    if size > EVENT_BYTES_MAX || !args.event.is_object() {
        return Err(Fault::invalid("request.invalid", "an event is an object of at most 64 KiB"));
    }
    let mut plan = Plan { draft: stamp.draft(), outcome: Value::Null };
    let names = match (&args.workflow, &args.connector, &args.event_name) {
        (Some(name), None, None) => vec![name.clone()],
        (None, Some(connector), Some(event)) => {
            let id = starts_id(connector, event).ok_or_else(|| Fault::not_found("event"))?;
            view.get::<Starts>(&id).await?.map(|starts| starts.doc.workflows).unwrap_or_default()
        }
        _ => {
            return Err(Fault::invalid(
                "request.invalid",
                "give a workflow, or a connector and an event_name",
            ));
        }
    };
    let source = match sorted(view, &args).await? {
        Sorted::Source(source) => source,
        Sorted::Ignored(reason) => return Ok(ignored(plan, stamp, reason, None)),
    };
    let mut runs = Vec::new();
    let mut passed_over = None;
    for name in names {
        let (digest, workflow) = published(view, &name).await?;
        if let Some(condition) = workflow
            .trigger
            .as_ref()
            .and_then(|trigger| trigger.matches.as_ref())
            .filter(|_| args.connector.is_some())
        {
            let scope = Scope::new(&Map::from_iter([("event".to_owned(), args.event.clone())]));
            if !template::condition(condition, &scope).unwrap_or(false) {
                passed_over = Some(("no_match", None));
                continue;
            }
        }
        if let Some(source) = &source
            && let Some(earlier) = view.find::<RunDoc>("source", &source_key(&name, source)).await?
        {
            passed_over = Some(("duplicate", Some(earlier.id.clone())));
            continue;
        }
        let id = stamp.id("run");
        let first = workflow.steps.first().map(|step| step.id.clone()).unwrap_or_default();
        let fact = stamp.fact(
            "flows.run.created",
            &id,
            (RunDoc::KIND, &id),
            json!({"workflow": name, "workflow_digest": digest, "source": source, "connector": args.connector, "event": args.event_name}),
        );
        let mut run = RunDoc {
            id: id.clone(),
            workflow: name,
            workflow_digest: digest,
            connectors: pins(view, &workflow).await?,
            status: Status::Running,
            outcome: None,
            step: first,
            attempts: Attempts::default(),
            job: None,
            pending: None,
            approval: None,
            event: args.event.clone(),
            outputs: Map::new(),
            digests: BTreeMap::new(),
            started_by: stamp.ctx.principal.id.clone(),
            trace: stamp.ctx.trace.clone(),
            source: source.clone(),
            last_fact: fact.id.clone(),
            event_at_ms: args.event_at_ms.unwrap_or(stamp.at_ms).min(stamp.at_ms),
            created_at_ms: stamp.at_ms,
            step_at_ms: stamp.at_ms,
            waiting_since_ms: None,
            waited_ms: 0,
            written_back_at_ms: None,
            finished_at_ms: None,
            cost_micros: 0,
            error: None,
            replays: 0,
        };
        begin(&mut plan, stamp, &mut run, false);
        plan.draft.put_new(&run).fact(fact);
        runs.push(id);
    }
    match (runs.first(), passed_over) {
        (Some(first), _) => {
            plan.outcome = json!({"run": first, "runs": runs});
            Ok(plan)
        }
        (None, Some((reason, earlier))) => Ok(ignored(plan, stamp, reason, earlier)),
        (None, None) => Ok(ignored(plan, stamp, "no_workflow", None)),
    }
}

/// An event that starts nothing is recorded all the same: somebody will ask where it went.
fn ignored(mut plan: Plan, stamp: &Stamp, reason: &str, earlier: Option<Id>) -> Plan {
    let tenant = stamp.ctx.tenant.id().clone();
    plan.draft.fact(stamp.fact(
        "flows.event.ignored",
        &tenant,
        ("access.tenant", &tenant),
        json!({"reason": reason, "run": earlier}),
    ));
    plan.outcome = json!({"run": earlier, "runs": [], "ignored": reason});
    plan
}

async fn aim_run(view: &View, run: &str) -> Result<Target, Fault> {
    let run = run_read(view, run).await?;
    let mut target = Target::of(RunDoc::KIND, &run.id);
    target.attributes = json!({"workflow": run.workflow, "status": run.status});
    target.preview = vec![("Run".into(), run.id.to_string()), ("Workflow".into(), run.workflow.clone())];
    Ok(target)
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "flows.run.start",
            summary: "Starts runs for an event, or a run by hand",
            args: || schemars::schema_for!(StartArgs).into(),
            writes: &["flows.run"],
            facts: &["flows.run.created", "flows.event.ignored"],
            secret_args: &["event"],
            on_closed: None,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let args: StartArgs = act::parse(args)?;
                    let mut target = Target::of("access.tenant", ctx.tenant.id());
                    target.attributes = json!({"workflow": args.workflow, "connector": args.connector, "event": args.event_name});
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| start(view, args, stamp).boxed()),
        },
        Verb {
            act: "flows.run.cancel",
            summary: "Cancels a run",
            args: || schemars::schema_for!(RunArgs).into(),
            writes: &["flows.run"],
            facts: &["flows.run.finished"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, _| {
                async move { aim_run(view, &act::parse::<RunArgs>(args)?.run).await }.boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RunArgs = act::parse(args)?;
                    let stored = run_read(view, &args.run).await?;
                    if stored.status == Status::Finished {
                        return Err(Fault::conflict("flows.run_state", "the run has ended"));
                    }
                    if stored.pending.as_ref().is_some_and(|_| stored.status == Status::Running) {
                        let message = "a call of this run is in flight; cancel when its outcome is known";
                        return Err(Fault::conflict("flows.run_state", message));
                    }
                    let mut run = stored.doc.clone();
                    machine::finish(&mut run, Outcome::Cancelled, stamp.at_ms);
                    let mut fact = stamp.fact(
                        "flows.run.finished",
                        &run.id,
                        (RunDoc::KIND, &run.id),
                        json!({"outcome": "cancelled"}),
                    );
                    fact.causes.push(run.last_fact.clone());
                    run.last_fact = fact.id.clone();
                    let mut plan =
                        Plan { draft: stamp.draft(), outcome: json!({"run": run.id, "status": run.status}) };
                    plan.draft.put_if(&stored, &run).fact(fact);
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.run.replay",
            summary: "Takes a run out of the dead letters and tries its step again",
            args: || schemars::schema_for!(ReplayArgs).into(),
            writes: &["flows.run"],
            facts: &["flows.run.replayed", "flows.tool.finished", "flows.run.finished"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: ReplayArgs = act::parse(args)?;
                    let mut target = aim_run(view, &args.run).await?;
                    if let (Some(applied), Value::Object(map)) = (args.applied, &mut target.attributes) {
                        map.insert("applied".into(), applied.into());
                        target.preview.push(("The call in doubt had its effect".into(), applied.to_string()));
                    }
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: ReplayArgs = act::parse(args)?;
                    let stored = run_read(view, &args.run).await?;
                    if stored.status != Status::Dead {
                        return Err(Fault::conflict("flows.run_state", "only a dead run is replayed"));
                    }
                    replayed(view, stored, args.applied, stamp).await
                }
                .boxed()
            }),
        },
    ]
}

/// Takes a run out of the dead letters. A call in doubt stays in doubt and is looked into first, under the same effect key
/// as before, unless whoever replays it says what became of it.
async fn replayed(
    view: &View,
    stored: Stored<RunDoc>,
    applied: Option<bool>,
    stamp: &Stamp,
) -> Result<Plan, Fault> {
    let mut run = stored.doc.clone();
    if applied.is_some() && run.pending.is_none() {
        return Err(Fault::conflict("flows.run_state", "no call of this run is in doubt"));
    }
    run.status = Status::Running;
    // `calls` goes on counting: it is part of keys that have been used.
    run.attempts = Attempts { calls: run.attempts.calls + 1, ..Attempts::default() };
    run.finished_at_ms = None;
    run.replays += 1;
    // The time among the dead letters is people's, not the run's.
    let died_ms = stored.finished_at_ms.unwrap_or(stamp.at_ms);
    run.waited_ms += (stamp.at_ms - died_ms).max(0);
    run.step_at_ms = stamp.at_ms;
    let mut plan = Plan { draft: stamp.draft(), outcome: Value::Null };
    let mut state = |kind: &'static str, outcome: Value, run: &mut RunDoc| {
        let mut fact = stamp.fact(kind, &run.id, (RunDoc::KIND, &run.id), outcome);
        fact.causes.push(run.last_fact.clone());
        run.last_fact = fact.id.clone();
        plan.draft.fact(fact);
    };
    let outcome = json!({"step": run.step, "replays": run.replays, "applied": applied});
    state("flows.run.replayed", outcome, &mut run);
    let then = match (applied, run.pending.take()) {
        (Some(true), Some(pending)) => {
            let workflow = super::gate::workflow_read(view, &run.workflow_digest).await?;
            let outcome = json!({
                "step": run.step, "connector": pending.connector, "action": pending.action,
                "effect_key": pending.effect_key, "outcome": "done", "by_hand": true,
            });
            state("flows.tool.finished", outcome, &mut run);
            run.written_back_at_ms = Some(stamp.at_ms);
            machine::step_done(&mut run, &workflow, json!({"by_hand": true}), None, stamp.at_ms)
        }
        // It had no effect: it is asked for anew.
        (Some(false), Some(_)) | (_, None) => machine::Then::GoOn,
        (None, Some(pending)) => {
            run.pending = Some(Pending { unknown: true, reconciled: 0, ..pending });
            machine::Then::GoOn
        }
    };
    if run.status == Status::Finished {
        state("flows.run.finished", json!({"outcome": run.outcome, "waited_ms": run.waited_ms}), &mut run);
    }
    plan.outcome = json!({"run": run.id, "status": run.status});
    if then == machine::Then::GoOn {
        begin(&mut plan, stamp, &mut run, false);
    }
    plan.draft.put_if(&stored, &run);
    Ok(plan)
}
