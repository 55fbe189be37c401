//! Starting, cancelling and replaying runs.

use super::gate::{begin, run_read};
use super::strand::{self, STRANDS_MAX};
use super::{Attempts, JOIN, Outcome, Pending, RunDoc, Status, source_key};
use super::{machine, signal};
use crate::connector::record::{Connector, Version, connector_id, version_id};
use crate::template::{self, Scope};
use crate::workflow::model::Workflow;
use crate::workflow::record::{Published, Starts, starts_id, workflow_id};
use act::{Class, Draw as _, Fault, Plan, Stamp, Target, Verb};
use contracts::models::Brake;
use futures::FutureExt as _;
use kernel::{Id, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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
    /// Whether the run only shows what it would send. It reads, asks models and policy, and writes nothing outside.
    #[serde(default)]
    pub dry_run: bool,
}

/// Arguments of `flows.run.replay`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayArgs {
    /// The run.
    pub run: String,
    /// What became of the call in doubt, said by somebody who has looked into the other system. `true`: it had its effect;
    /// the run goes on behind it. `false`: it had none; the call is made again, decided on anew. Not given: the run finds
    /// out by itself if the action lets it, and else stays dead. Only for a run with a call in doubt.
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

/// The workflow in force under a name: record and version.
async fn published(view: &View, name: &str) -> Result<(Published, Arc<Workflow>), Fault> {
    let missing = || Fault::not_found("workflow");
    let id = workflow_id(name).ok_or_else(missing)?;
    let published = view.get::<Published>(&id).await?.ok_or_else(missing)?;
    if published.retired_at_ms.is_some() {
        return Err(Fault::conflict(
            "flows.workflow_retired",
            "the workflow has been retired: it starts no runs",
        ));
    }
    let workflow = super::gate::workflow_read(view, &published.digest).await?;
    Ok((published.doc, workflow))
}

/// Whether nobody can start a workflow any more, or ever could.
fn absent(fault: &Fault) -> bool {
    fault.class == Class::NotFound || fault.code == "flows.workflow_retired"
}

/// Most workflows that a run may take in, over all depths.
pub const WORKFLOWS_MAX: usize = 16;

/// Most connectors whose manifests' digests stand in the fact of a run's beginning; each intent names its own anyway.
const ARTIFACTS_STATED_MAX: usize = 16;

/// What a run is pinned to: name to digest.
#[derive(Default)]
struct Pins {
    connectors: BTreeMap<String, String>,
    /// Digests of the manifests, for the record.
    artifacts: BTreeMap<String, Option<String>>,
    workflows: BTreeMap<String, String>,
}

/// The versions of the connectors that a workflow calls as they are installed now, and of the workflows that it runs as
/// they are published now; those of these too.
async fn pins(view: &View, workflow: Arc<Workflow>) -> Result<Pins, Fault> {
    let unready = |message: String| Fault::conflict("flows.workflow_unready", message);
    let mut pins = Pins::default();
    let mut inner = BTreeMap::new();
    let mut next = vec![workflow.clone()];
    while let Some(workflow) = next.pop() {
        connectors(view, &workflow, &mut pins).await?;
        for name in workflow.workflows() {
            if pins.workflows.contains_key(name) {
                continue;
            }
            let (inner_doc, found) = match published(view, name).await {
                Err(fault) if absent(&fault) => {
                    return Err(unready(format!("the workflow {name} is not published")));
                }
                found => found?,
            };
            pins.workflows.insert(name.to_owned(), inner_doc.digest);
            if pins.workflows.len() > WORKFLOWS_MAX {
                return Err(unready(format!("it runs more than {WORKFLOWS_MAX} other workflows")));
            }
            inner.insert(name.to_owned(), found.clone());
            next.push(found);
        }
    }
    let strands = workflow.strands_most(&inner);
    if strands > STRANDS_MAX {
        let message =
            format!("it could have {strands} branches and inner runs at once; at most {STRANDS_MAX}");
        return Err(unready(message));
    }
    Ok(pins)
}

async fn connectors(view: &View, workflow: &Workflow, pins: &mut Pins) -> Result<(), Fault> {
    for name in workflow.connectors() {
        let unready = |message: String| Fault::conflict("flows.connector_unready", message);
        let id = connector_id(name).ok_or_else(|| unready(format!("there is no connector {name}")))?;
        let installed = view.get::<Connector>(&id).await?.filter(|doc| doc.removed_at_ms.is_none());
        let installed = installed.ok_or_else(|| unready(format!("the connector {name} is not installed")))?;
        if let Some(pin) = workflow.pins.connectors.get(name)
            && (pin.manifest != installed.manifest.0
                || pin.version != installed.manifest.1
                || (pin.digest.is_some() && pin.digest != installed.artifact))
        {
            return Err(unready(format!("the workflow pins another version of the connector {name}")));
        }
        pins.artifacts.insert(name.to_owned(), installed.artifact.clone());
        pins.connectors.insert(name.to_owned(), installed.version.clone());
    }
    Ok(())
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
        // A dry run is no run of its event: it neither is a duplicate nor makes the real one a duplicate.
        Sorted::Source(source) => source.filter(|_| !args.dry_run),
        Sorted::Ignored(reason) => return Ok(ignored(plan, stamp, reason, &[])),
    };
    let by_event = args.connector.is_some();
    let mut runs = Vec::new();
    let mut passed_over = Vec::new();
    for name in names {
        // One workflow that cannot start keeps no other from it. By hand there is only one, and whoever asks is told.
        let (Published { digest, project, .. }, workflow) = match published(view, &name).await {
            Ok(found) => found,
            Err(fault) if by_event && absent(&fault) => {
                passed_over.push(PassedOver { workflow: name, reason: "workflow_retired", run: None });
                continue;
            }
            Err(fault) => return Err(fault),
        };
        if let Some(condition) =
            workflow.trigger.as_ref().and_then(|trigger| trigger.matches.as_ref()).filter(|_| by_event)
        {
            let scope = Scope::new(&Map::from_iter([("event".to_owned(), args.event.clone())]));
            if !template::condition(condition, &scope).unwrap_or(false) {
                passed_over.push(PassedOver { workflow: name, reason: "no_match", run: None });
                continue;
            }
        }
        if let Some(source) = &source
            && let Some(earlier) = view.find::<RunDoc>("source", &source_key(&name, source)).await?
        {
            let run = Some(earlier.id.clone());
            passed_over.push(PassedOver { workflow: name, reason: "duplicate", run });
            continue;
        }
        if let Some(project) = &project
            && let Err(fault) = access::project::place_live(view, project).await
        {
            if !by_event {
                return Err(fault);
            }
            passed_over.push(PassedOver { workflow: name, reason: "project_archived", run: None });
            continue;
        }
        let pins = match pins(view, workflow.clone()).await {
            Ok(pins) => pins,
            Err(fault) => {
                let reason = match fault.code.as_str() {
                    "flows.connector_unready" => "connector_unready",
                    "flows.workflow_unready" => "workflow_unready",
                    _ => return Err(fault),
                };
                if !by_event {
                    return Err(fault);
                }
                tracing::warn!(workflow = name, %fault, "an event starts no run of a workflow");
                passed_over.push(PassedOver { workflow: name, reason, run: None });
                continue;
            }
        };
        let id = stamp.id("run");
        let first = workflow.steps.first().map(|step| step.id.clone()).unwrap_or_default();
        let fact = stamp.fact(
            "flows.run.created",
            &id,
            (RunDoc::KIND, &id),
            json!({"workflow": name, "workflow_digest": digest, "source": source, "connector": args.connector, "event": args.event_name,
                   "dry_run": args.dry_run, "project": project, "artifacts": pins.artifacts.iter().take(ARTIFACTS_STATED_MAX).collect::<BTreeMap<_, _>>()}),
        );
        let mut run = RunDoc {
            id: id.clone(),
            workflow: name,
            workflow_digest: digest,
            connectors: pins.connectors,
            status: Status::Running,
            outcome: None,
            step: first,
            attempts: Attempts::default(),
            job: None,
            due_ms: None,
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
            unmeasured_micros: 0,
            brakes: workflow
                .limits
                .cost_micros
                .map(|most_micros| Brake { run: id.clone(), most_micros })
                .into_iter()
                .collect(),
            held: None,
            wrote: Vec::new(),
            error: None,
            replays: 0,
            strand: None,
            strands: Vec::new(),
            halting: false,
            alarm: None,
            crashes: 0,
            dry_run: args.dry_run,
            rehearsed: Vec::new(),
            workflows: pins.workflows,
            project,
        };
        begin(&mut plan, stamp, &mut run, false);
        plan.draft.put_new(&run).fact(fact);
        runs.push(id);
    }
    match (runs.first(), passed_over.last()) {
        (Some(first), None) => plan.outcome = json!({"run": first, "runs": runs}),
        (Some(first), Some(_)) => {
            // Those that did not start are recorded beside those that did: somebody will ask where theirs is.
            plan.draft.fact(ignored_fact(stamp, "some", &passed_over));
            plan.outcome = json!({"run": first, "runs": runs, "passed_over": passed_over});
        }
        (None, Some(last)) => return Ok(ignored(plan, stamp, last.reason, &passed_over)),
        (None, None) => return Ok(ignored(plan, stamp, "no_workflow", &[])),
    }
    Ok(plan)
}

/// A workflow that an event did not start.
#[derive(Debug, Clone, Serialize)]
struct PassedOver {
    workflow: String,
    /// `no_match`, `duplicate`, `connector_unready`, `workflow_unready`, `workflow_retired` or `project_archived`.
    reason: &'static str,
    /// The earlier run, of a duplicate.
    run: Option<Id>,
}

/// An event that starts nothing is recorded all the same: somebody will ask where it went.
fn ignored(mut plan: Plan, stamp: &Stamp, reason: &str, passed_over: &[PassedOver]) -> Plan {
    plan.draft.fact(ignored_fact(stamp, reason, passed_over));
    let earlier = passed_over.iter().rev().find_map(|passed| passed.run.clone());
    plan.outcome = json!({"run": earlier, "runs": [], "ignored": reason, "passed_over": passed_over});
    plan
}

fn ignored_fact(stamp: &Stamp, reason: &str, passed_over: &[PassedOver]) -> kernel::Fact {
    let tenant = stamp.ctx.tenant.id();
    let earlier = passed_over.iter().rev().find_map(|passed| passed.run.clone());
    stamp.fact(
        "flows.event.ignored",
        tenant,
        ("access.tenant", tenant),
        json!({"reason": reason, "run": earlier, "passed_over": passed_over}),
    )
}

async fn aim_run(view: &View, run: &str) -> Result<Target, Fault> {
    let run = run_read(view, run).await?;
    let mut target = run.target(view).await?;
    target.attributes = json!({"workflow": run.workflow, "status": run.status});
    target.preview = vec![("Run".into(), run.id.to_string()), ("Workflow".into(), run.workflow.clone())];
    Ok(target)
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        super::signal::verb(),
        Verb {
            act: "flows.run.start",
            summary: "Starts runs for an event, or a run by hand",
            args: || schemars::schema_for!(StartArgs).into(),
            writes: &["flows.run"],
            facts: &["flows.run.created", "flows.event.ignored"],
            secret_args: &["event"],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: StartArgs = act::parse(args)?;
                    // An event may start several workflows, of several projects: it is the tenant's.
                    let named = args.workflow.as_deref().filter(|_| args.connector.is_none()).and_then(workflow_id);
                    let project = match named {
                        Some(id) => view.get::<Published>(&id).await?.and_then(|stored| stored.doc.project),
                        None => None,
                    };
                    let place = access::project::place_of(view, project.as_deref()).await?;
                    let mut target = Target::of("access.tenant", ctx.tenant.id()).at(place);
                    target.attributes = json!({"workflow": args.workflow, "connector": args.connector, "event": args.event_name, "dry_run": args.dry_run});
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
            writes: &["flows.run", "flows.signal"],
            facts: &["flows.tool.finished", "flows.run.finished"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
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
                    if machine::in_flight(&stored, stamp.at_ms) {
                        let message = "a call of this run is in flight; cancel when its outcome is known";
                        return Err(Fault::conflict("flows.run_state", message));
                    }
                    let mut run = stored.doc.clone();
                    let mut plan = Plan { draft: stamp.draft(), outcome: Value::Null };
                    let strands = strand::cancelled(view, &run, stamp.at_ms).await?;
                    drop_call(&mut plan, stamp, &mut run);
                    // Those that have not been joined are paid for all the same.
                    strands.iter().for_each(|(before, _)| run.spend(before.own_cost()));
                    machine::finish(&mut run, Outcome::Cancelled, stamp.at_ms);
                    let branches: Vec<&Id> = run.strands.iter().collect();
                    let mut fact = stamp.fact(
                        "flows.run.finished",
                        &run.id,
                        (RunDoc::KIND, &run.id),
                        run.told(json!({"outcome": "cancelled", "strands": branches})),
                    );
                    fact.causes.push(run.last_fact.clone());
                    run.last_fact = fact.id.clone();
                    run.strands.clear();
                    plan.outcome = json!({"run": run.id, "status": run.status});
                    plan.draft.fact(fact);
                    for (before, mut ended) in strands {
                        if before.status != Status::Finished {
                            let mut then = before.doc.clone();
                            drop_call(&mut plan, stamp, &mut then);
                            ended.last_fact = then.last_fact;
                            let outcome = ended.told(json!({"outcome": ended.outcome}));
                            let mut fact = stamp.fact(
                                "flows.run.finished",
                                &ended.id,
                                (RunDoc::KIND, &ended.id),
                                outcome,
                            );
                            fact.causes = vec![ended.last_fact.clone(), run.last_fact.clone()];
                            ended.last_fact = fact.id.clone();
                            plan.draft.fact(fact);
                        }
                        plan.draft.put_if(&before, &ended);
                    }
                    strand::tell(&mut plan.draft, stamp, &run);
                    plan.draft.operations.extend(signal::leftovers(view, &run).await?);
                    plan.draft.put_if(&stored, &run);
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.run.replay",
            summary: "Takes a run out of the dead letters and tries its step again",
            args: || schemars::schema_for!(ReplayArgs).into(),
            writes: &["flows.run", "flows.signal"],
            facts: &["flows.run.replayed", "flows.tool.finished", "flows.run.finished"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
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

/// States of a call that rests, and that a cancelled run does not make any more, that it was not made. What is in doubt
/// stays so: only a dead run has such a call when it is cancelled.
fn drop_call(plan: &mut Plan, stamp: &Stamp, run: &mut RunDoc) {
    let dropped = run.pending.as_ref().filter(|pending| !pending.unknown && run.status == Status::Running);
    let Some(outcome) = dropped.map(|pending| pending.not_made(&run.step, None)) else { return };
    let mut fact = stamp.fact("flows.tool.finished", &run.id, (RunDoc::KIND, &run.id), outcome);
    fact.causes.push(run.last_fact.clone());
    run.last_fact = fact.id.clone();
    plan.draft.fact(fact);
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
        let message = "no call of this run is in doubt, so there is nothing to say `applied` about";
        return Err(Fault::conflict("flows.run_state", message));
    }
    if let Some(strand) = &run.strand {
        let parent = view.get::<RunDoc>(&strand.parent).await?;
        if parent.is_none_or(|parent| parent.status != Status::Waiting) {
            let message = "the run that this branch is a part of does not wait for it any more";
            return Err(Fault::conflict("flows.run_state", message));
        }
    }
    run.crashes = 0;
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
        let outcome = run.told(json!({"outcome": run.outcome, "waited_ms": run.waited_ms}));
        state("flows.run.finished", outcome, &mut run);
    }
    match run.strands.last() {
        // It died while it waited for its strands: it waits for them again, and looks at them now.
        Some(last) if then == machine::Then::GoOn => {
            run.status = Status::Waiting;
            let body = json!({"run": run.id, "strand": last});
            plan.draft.job(stamp.id("job"), &JOIN, stamp.at_ms, false, &body);
        }
        _ if then == machine::Then::GoOn => begin(&mut plan, stamp, &mut run, false),
        _ => {}
    }
    plan.outcome = json!({"run": run.id, "status": run.status});
    strand::tell(&mut plan.draft, stamp, &run);
    plan.draft.operations.extend(signal::leftovers(view, &run).await?);
    plan.draft.put_if(&stored, &run);
    Ok(plan)
}
