//! The acts by which a run reaches outside, each decided by policy with the arguments of that very call.
//!
//! `flows.tool.call` commits an *intent*: what will be sent, under which effect key. Only after it is durable is anything
//! sent. When policy wants people first, the act waits; it is this act, with these arguments, that is approved, and when
//! it is finally carried out the same plan commits the intent and begins the job that sends.

use super::{Outcome, Pending, RunDoc, STEP, Status, call, machine, signal, strand};
use crate::connector::manifest::{Action, Effect};
use crate::connector::record::{Connector, Version, connector_id, version_id};
use crate::connector::{request, tool};
use crate::template::Scope;
use crate::workflow::model::{StepKind, Workflow};
use crate::workflow::record::{Source, source_id};
use act::{Class, Draw as _, Fault, Plan, Stamp, Target, Verb};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use store::{Document as _, Stored, View};

/// Most workflow versions kept parsed.
const VERSIONS_MAX: usize = 512;

/// Arguments of `flows.tool.call` and `flows.tool.reconcile`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallArgs {
    /// The run.
    pub run: String,
    /// Its current step.
    pub step: String,
    /// The installed connector.
    pub connector: String,
    /// The action.
    pub action: String,
    /// The action's parameters.
    pub params: Value,
    /// Stable over retries of the same call.
    pub effect_key: String,
    /// What policy and approvers are told besides; rendered by the engine from the workflow.
    pub hints: Hints,
    /// What has to be as it was seen right before a write: part of what approvers agree to.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub unchanged: Map<String, Value>,
}

/// What a workflow tells policy and approvers about a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// Whether the workflow asks for it to happen without a person.
    pub auto_approve: bool,
    /// How sure a model was, in thousandths.
    pub confidence_milli: Option<i64>,
    /// How urgent it is, 1 the most.
    pub priority: Option<i64>,
    /// How sensitive the content is.
    pub sensitivity: Option<String>,
    /// What approvers are shown besides: label and text.
    pub preview: Vec<(String, String)>,
}

/// Arguments of `flows.tool.close`, given by the harness.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseArgs {
    /// The approval that was closed.
    pub approval: String,
    /// How: `denied`, `expired` or `void`.
    pub status: String,
    /// The arguments of the act that waited.
    pub args: Value,
}

/// Arguments of `flows.approval.pass`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassArgs {
    /// The run.
    pub run: String,
    /// Its current step.
    pub step: String,
    /// Least tier of an approver.
    pub tier: u8,
    /// How many different people.
    pub approvals: u8,
    /// What they are shown.
    pub preview: Vec<(String, String)>,
}

pub(super) async fn run_read(view: &View, text: &str) -> Result<Stored<RunDoc>, Fault> {
    let id = Id::parse(text).map_err(|_| Fault::not_found("run"))?;
    view.get::<RunDoc>(&id).await?.ok_or_else(|| Fault::not_found("run"))
}

/// The workflow version that a run is pinned to. Versions never change, so what was read once is kept; by tenant, so that
/// a digest learned elsewhere opens nothing.
pub(super) async fn workflow_read(view: &View, digest: &str) -> Result<Arc<Workflow>, Fault> {
    static VERSIONS: OnceLock<Mutex<HashMap<(TenantId, String), Arc<Workflow>>>> = OnceLock::new();
    let versions = VERSIONS.get_or_init(Mutex::default);
    let key = (view.tenant().clone(), digest.to_owned());
    if let Some(known) = versions.lock().get(&key) {
        return Ok(known.clone());
    }
    let id = source_id(digest).ok_or_else(|| Fault::not_found("workflow version"))?;
    let source = view.peek::<Source>(&id).await?.ok_or_else(|| Fault::not_found("workflow version"))?;
    let workflow = crate::workflow::parse::parse(&source.text)
        .map_err(|_| act::internal("a published workflow no longer parses"))?;
    let workflow = Arc::new(workflow);
    let mut versions = versions.lock();
    if versions.len() >= VERSIONS_MAX {
        versions.clear();
    }
    versions.insert(key, workflow.clone());
    Ok(workflow)
}

/// The connector version that a run is pinned to, as long as the connector is installed at all.
pub(super) async fn connector_read(view: &View, run: &RunDoc, name: &str) -> Result<Version, Fault> {
    let missing = || Fault::not_found("connector");
    let installed =
        view.get::<Connector>(&connector_id(name).ok_or_else(missing)?).await?.ok_or_else(missing)?;
    if installed.removed_at_ms.is_some() {
        return Err(Fault::conflict("flows.connector_removed", "the connector has been removed"));
    }
    let pinned = run.connectors.get(name).and_then(|digest| version_id(digest)).ok_or_else(missing)?;
    Ok(view.peek::<Version>(&pinned).await?.ok_or_else(missing)?.doc)
}

fn action_of<'v>(version: &'v Version, name: &str) -> Result<&'v Action, Fault> {
    version.manifest.action(name).ok_or_else(|| Fault::not_found("action"))
}

/// Whether the run is at this step, and whether people have agreed to what it does there. They may be faster than the
/// commit that records the wait: then the run still counts as running.
fn in_step(run: &RunDoc, step: &str, stamp: &Stamp) -> Result<bool, Fault> {
    let granted = match (run.status, &run.approval) {
        (Status::Running, _) => !stamp.approvals.is_empty(),
        (Status::Waiting, Some(approval)) if stamp.approvals.contains(approval) => true,
        _ => {
            return Err(Fault::conflict(
                "flows.run_state",
                "the run is not in a state in which it could do this",
            ));
        }
    };
    if run.step != step {
        return Err(Fault::conflict("flows.run_state", "the run is at another step"));
    }
    Ok(granted)
}

/// Begins the job that takes the run on from here; any other lets go of it. Before the run is put.
pub(super) fn begin(plan: &mut Plan, stamp: &Stamp, run: &mut RunDoc, send: bool) {
    let job = stamp.id("job");
    run.job = Some(job.clone());
    run.due_ms = None;
    run.held = None;
    plan.draft.job(job, &STEP, stamp.at_ms, true, &json!({"run": run.id, "send": send}));
}

/// Whether the tool is what people have agreed to. Asked before every call that would have an effect or read something, and
/// not before a look at what became of one.
async fn agreed(view: &View, args: &Value) -> Result<(), Fault> {
    let args: CallArgs = act::parse(args)?;
    let run = run_read(view, &args.run).await?;
    let version = connector_read(view, &run, &args.connector).await?;
    let action = action_of(&version, &args.action)?;
    let missing = || Fault::not_found("connector");
    let id = connector_id(&args.connector).ok_or_else(missing)?;
    let installed = view.get::<Connector>(&id).await?.ok_or_else(missing)?;
    tool::check(&installed, &version.manifest, &args.action, action)
}

async fn aim(view: &View, args: &Value) -> Result<Target, Fault> {
    let args: CallArgs = act::parse(args)?;
    let run = run_read(view, &args.run).await?;
    let version = connector_read(view, &run, &args.connector).await?;
    let action = action_of(&version, &args.action)?;
    let marker = crate::effect::marker(&args.effect_key);
    let params = args.params.as_object().cloned().unwrap_or_default();
    request::params_check(action, &params)
        .map_err(|error| Fault::invalid("flows.params_invalid", error.to_string()))?;
    let host = version.host().unwrap_or_default();
    let mut target = run.target(view).await?;
    target.attributes = json!({
        "connector": args.connector, "action": args.action, "effect_class": action.effect.as_str(),
        "host": host, "hosts_allowed": [host], "fields": request::fields_written(action, &params, &marker),
        "auto_approve": args.hints.auto_approve, "workflow": run.workflow,
    });
    let mut attribute = |name: &str, value: Option<Value>| {
        if let (Some(value), Value::Object(map)) = (value, &mut target.attributes) {
            map.insert(name.to_owned(), value);
        }
    };
    attribute("confidence_milli", args.hints.confidence_milli.map(Value::from));
    attribute("priority", args.hints.priority.map(Value::from));
    attribute("sensitivity", args.hints.sensitivity.clone().map(Value::from));
    target.preview = vec![
        ("Call".into(), format!("{}.{} on {host}", args.connector, args.action)),
        ("For".into(), format!("{} {}", run.workflow, run.id)),
    ];
    target.preview.extend(args.hints.preview.iter().cloned());
    for (name, value) in &params {
        if action.redact.contains(name) {
            target.preview.push((name.clone(), "(not shown)".into()));
            continue;
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        target.preview.push((name.clone(), text.chars().take(400).collect()));
    }
    Ok(target)
}

fn tool_call() -> Verb {
    Verb {
        act: "flows.tool.call",
        summary: "Calls an action of a connector for a run",
        args: || schemars::schema_for!(CallArgs).into(),
        writes: &["flows.run"],
        facts: &["flows.tool.intended"],
        secret_args: &[],
        on_closed: Some("flows.tool.close"),
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                agreed(view, args).await?;
                aim(view, args).await
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: CallArgs = act::parse(args)?;
                let stored = run_read(view, &args.run).await?;
                let mut run = stored.doc.clone();
                let granted = in_step(&run, &args.step, stamp)?;
                if run.pending.is_some() {
                    return Err(Fault::conflict("flows.run_state", "a call of this run is in flight"));
                }
                let version = connector_read(view, &run, &args.connector).await?;
                let action = action_of(&version, &args.action)?;
                if run.dry_run && action.effect != Effect::Read {
                    return Err(Fault::conflict("flows.call_mismatch", "a dry run writes nothing"));
                }
                let workflow = workflow_read(view, &run.workflow_digest).await?;
                let due = match workflow.step(&args.step).map(|(_, step)| &step.kind) {
                    Some(StepKind::Tool(tool)) => {
                        call::due(&run, &version, &args.step, tool, &Scope::new(&run.names())).ok()
                    }
                    _ => None,
                };
                if due.as_ref() != Some(&args) {
                    let message = "this is not the call that the run is about to make";
                    return Err(Fault::conflict("flows.call_mismatch", message));
                }
                let mut fact = stamp.fact(
                    "flows.tool.intended",
                    &run.id,
                    (RunDoc::KIND, &run.id),
                    json!({
                        "step": args.step, "connector": args.connector, "action": args.action,
                        "effect_class": action.effect.as_str(), "effect_key": args.effect_key,
                        "connector_digest": run.connectors.get(&args.connector),
                    }),
                );
                fact.causes.push(run.last_fact.clone());
                if granted {
                    machine::resume(&mut run, stamp.at_ms);
                }
                run.last_fact = fact.id.clone();
                run.attempts.calls += 1;
                run.pending = Some(Pending {
                    connector: args.connector,
                    action: args.action,
                    params: args.params,
                    unchanged: args.unchanged,
                    effect_key: args.effect_key,
                    intended: fact.id.clone(),
                    intended_at_ms: stamp.at_ms,
                    unknown: false,
                    reconciled: 0,
                });
                let mut plan =
                    Plan { draft: stamp.draft(), outcome: json!({"run": run.id, "intended": fact.id}) };
                if granted {
                    begin(&mut plan, stamp, &mut run, true);
                }
                plan.draft.put_if(&stored, &run).fact(fact);
                Ok(plan)
            }
            .boxed()
        }),
    }
}

fn tool_reconcile() -> Verb {
    Verb {
        act: "flows.tool.reconcile",
        summary: "Looks whether a call whose outcome is unknown had an effect",
        args: || schemars::schema_for!(CallArgs).into(),
        writes: &["flows.run"],
        facts: &["flows.tool.reconciling"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|view, args, _| aim(view, args).boxed()),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: CallArgs = act::parse(args)?;
                let stored = run_read(view, &args.run).await?;
                let mut run = stored.doc.clone();
                in_step(&run, &args.step, stamp)?;
                let version = connector_read(view, &run, &args.connector).await?;
                let reads = action_of(&version, &args.action)?.effect == Effect::Read;
                let own = run.pending.as_ref().is_some_and(|pending| {
                    pending.connector == args.connector && pending.effect_key == args.effect_key
                });
                if !reads || !own {
                    return Err(Fault::conflict("flows.call_mismatch", "this does not look at the call that is in doubt"));
                }
                let state = || Fault::conflict("flows.run_state", "no call of this run is in doubt");
                let reconciled = {
                    let pending = run.pending.as_mut().filter(|pending| pending.unknown).ok_or_else(state)?;
                    pending.reconciled += 1;
                    pending.reconciled
                };
                let mut fact = stamp.fact(
                    "flows.tool.reconciling",
                    &run.id,
                    (RunDoc::KIND, &run.id),
                    json!({"step": args.step, "action": args.action, "effect_key": args.effect_key, "try": reconciled}),
                );
                fact.causes.push(run.last_fact.clone());
                run.last_fact = fact.id.clone();
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({"run": run.id}) };
                plan.draft.put_if(&stored, &run).fact(fact);
                Ok(plan)
            }
            .boxed()
        }),
    }
}

fn tool_close() -> Verb {
    Verb {
        act: "flows.tool.close",
        summary: "Tells a run that what it waited for will not happen",
        args: || schemars::schema_for!(CloseArgs).into(),
        writes: &["flows.run", "flows.signal"],
        facts: &["flows.step.resumed", "flows.run.finished"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: CloseArgs = act::parse(args)?;
                let run = run_read(view, args.args["run"].as_str().unwrap_or_default()).await?;
                run.target(view).await
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: CloseArgs = act::parse(args)?;
                let stored = run_read(view, args.args["run"].as_str().unwrap_or_default()).await?;
                let mut run = stored.doc.clone();
                let waits = match run.status {
                    Status::Waiting => {
                        run.approval.as_ref().is_some_and(|approval| approval.as_str() == args.approval)
                    }
                    // Decided before the wait was recorded. If nobody says so now, it would wait for ever.
                    Status::Running => {
                        run.pending.is_none() && args.args["step"].as_str() == Some(run.step.as_str())
                    }
                    Status::Finished | Status::Dead => false,
                };
                if !waits {
                    return Err(Fault::conflict(
                        "flows.run_state",
                        "the run does not wait for this approval",
                    ));
                }
                let outcome = match args.status.as_str() {
                    "denied" => Outcome::Denied,
                    "expired" => Outcome::Expired,
                    "void" => Outcome::Void,
                    _ => return Err(Fault::invalid("request.invalid", "status is denied, expired or void")),
                };
                let workflow = workflow_read(view, &run.workflow_digest).await?;
                machine::resume(&mut run, stamp.at_ms);
                let step_id = run.step.clone();
                let then = match workflow.step(&step_id) {
                    Some((_, step)) => machine::refused(&mut run, step, outcome, stamp.at_ms),
                    None => machine::finish(&mut run, outcome, stamp.at_ms),
                };
                let mut fact = stamp.fact(
                    if run.status == Status::Finished { "flows.run.finished" } else { "flows.step.resumed" },
                    &run.id,
                    (RunDoc::KIND, &run.id),
                    run.told(json!({"step": step_id, "approval": args.approval, "status": args.status,
                                    "outcome": run.outcome, "next": run.step})),
                );
                fact.causes.push(run.last_fact.clone());
                run.last_fact = fact.id.clone();
                let mut plan =
                    Plan { draft: stamp.draft(), outcome: json!({"run": run.id, "status": run.status}) };
                if then == machine::Then::GoOn {
                    begin(&mut plan, stamp, &mut run, false);
                }
                strand::tell(&mut plan.draft, stamp, &run);
                plan.draft.operations.extend(signal::leftovers(view, &run).await?);
                plan.draft.put_if(&stored, &run).fact(fact);
                Ok(plan)
            }
            .boxed()
        }),
    }
}

fn approval_pass() -> Verb {
    Verb {
        act: "flows.approval.pass",
        summary: "Passes a checkpoint at which a workflow waits for people",
        args: || schemars::schema_for!(PassArgs).into(),
        writes: &["flows.run", "flows.signal"],
        facts: &["flows.step.resumed", "flows.run.finished"],
        secret_args: &[],
        on_closed: Some("flows.tool.close"),
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: PassArgs = act::parse(args)?;
                let run = run_read(view, &args.run).await?;
                let mut target = run.target(view).await?;
                target.attributes =
                    json!({"workflow": run.workflow, "tier": args.tier, "approvals": args.approvals});
                target.preview = vec![("Checkpoint".into(), format!("{} of {}", args.step, run.workflow))];
                target.preview.extend(args.preview);
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: PassArgs = act::parse(args)?;
                let stored = run_read(view, &args.run).await?;
                let mut run = stored.doc.clone();
                if !in_step(&run, &args.step, stamp)? {
                    return Err(Fault::new(Class::Denied, "flows.checkpoint_open", "a checkpoint is passed by people, never by itself"));
                }
                let workflow = workflow_read(view, &run.workflow_digest).await?;
                let checkpoint = workflow.step(&args.step).is_some_and(|(_, step)| matches!(step.kind, StepKind::Approval(_)));
                if !checkpoint {
                    return Err(Fault::conflict("flows.run_state", "the step is no checkpoint"));
                }
                machine::resume(&mut run, stamp.at_ms);
                let then = machine::step_done(&mut run, &workflow, json!({"approved": true}), None, stamp.at_ms);
                let mut fact = stamp.fact(
                    if run.status == Status::Finished { "flows.run.finished" } else { "flows.step.resumed" },
                    &run.id,
                    (RunDoc::KIND, &run.id),
                    run.told(json!({"step": args.step, "approvals": stamp.approvals, "outcome": run.outcome, "next": run.step})),
                );
                fact.causes.push(run.last_fact.clone());
                run.last_fact = fact.id.clone();
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({"run": run.id, "status": run.status}) };
                if then == machine::Then::GoOn {
                    begin(&mut plan, stamp, &mut run, false);
                }
                strand::tell(&mut plan.draft, stamp, &run);
                plan.draft.operations.extend(signal::leftovers(view, &run).await?);
                plan.draft.put_if(&stored, &run).fact(fact);
                Ok(plan)
            }
            .boxed()
        }),
    }
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![tool_call(), tool_reconcile(), tool_close(), approval_pass()]
}
