//! Signals: somebody outside tells a run that what it waits for has happened.
//!
//! A signal may be faster than the run: the customer answers while the question is still being written. So a signal that
//! nobody waits for yet is kept, and a wait looks for one before it begins. Between that look and the commit of the wait
//! nothing is lost, because the commit demands that there is still none.
//!
//! A signal is given to the outermost run, by the name that a `wait` step of its workflow has; a branch that waits for it
//! gets it. What it brings is data from outside, like an event: bounded, and never a template.

use super::gate::{begin, run_read, workflow_read};
use super::strand::{STRANDS_MAX, strands_of, tell, too_many};
use super::{RunDoc, Status, machine};
use crate::workflow::StepKind;
use act::{Draw as _, Fault, Plan, Stamp, Verb};
use futures::FutureExt as _;
use kernel::changeset::Operation;
use kernel::{Id, hex, json as canonical, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::{Document, Stored, View};

/// Largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024;

/// Arguments of `flows.run.signal`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalArgs {
    /// The run; for a branch, the run that it is a part of.
    pub run: String,
    /// The signal, as a `wait` step of its workflow names it.
    pub signal: String,
    /// What it brings: an object of at most 8 KiB, the output of the wait.
    #[serde(default)]
    pub payload: Option<Value>,
}

/// A signal that came before anybody waited for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// `sig_<digest of run and name>`
    pub id: Id,
    /// The outermost run.
    pub run: Id,
    /// Its name.
    pub name: String,
    /// What it brings.
    pub payload: Value,
    /// Who gave it.
    pub by: Id,
    /// When, milliseconds UTC.
    pub at_ms: i64,
    /// The fact of it.
    pub fact: Id,
}

impl Document for Signal {
    const KIND: &'static str = "flows.signal";
    fn id(&self) -> &Id {
        &self.id
    }
}

impl Signal {
    /// What a wait for it comes to.
    pub fn output(&self) -> Value {
        output(&self.name, &self.payload, &self.by, self.at_ms)
    }
}

fn output(name: &str, payload: &Value, by: &Id, at_ms: i64) -> Value {
    json!({"signal": name, "payload": payload, "by": by, "at_ms": at_ms})
}

/// The id of the signal of this name to a run.
pub fn signal_id(root: &Id, name: &str) -> Result<Id, Fault> {
    let digest = hex::encode(&sha256(format!("{root}\0{name}").as_bytes()));
    Id::parse(&format!("sig_{digest}")).map_err(act::internal)
}

/// The strand that waits for a signal, or the run itself.
async fn waiting(view: &View, root: &Stored<RunDoc>, name: &str) -> Result<Option<Stored<RunDoc>>, Fault> {
    let mut next = vec![root.clone()];
    let mut strands = 0;
    while let Some(run) = next.pop() {
        let waits = run.alarm.as_ref().is_some_and(|alarm| alarm.signal.as_deref() == Some(name));
        if run.status == Status::Waiting && waits {
            return Ok(Some(run));
        }
        strands += run.strands.len();
        if strands > STRANDS_MAX {
            // Keeping the signal would be to lose it: whoever waits for it waits already.
            return Err(too_many());
        }
        next.extend(strands_of(view, &run).await?);
    }
    Ok(None)
}

/// Names of the signals that a step of the workflow, or of one that it runs, waits for.
async fn names(view: &View, run: &RunDoc) -> Result<BTreeSet<String>, Fault> {
    let mut names = BTreeSet::new();
    for digest in std::iter::once(&run.workflow_digest).chain(run.workflows.values()) {
        let workflow = workflow_read(view, digest).await?;
        names.extend(workflow.all_steps().filter_map(|step| match &step.kind {
            StepKind::Wait(wait) => wait.signal.clone(),
            _ => None,
        }));
    }
    Ok(names)
}

/// Takes away the signals that nobody came to wait for, with what they bring, when the run they were given to has ended.
pub(super) async fn leftovers(view: &View, run: &RunDoc) -> Result<Vec<Operation>, Fault> {
    let mut gone = Vec::new();
    if run.status != Status::Finished || run.strand.is_some() {
        return Ok(gone);
    }
    for name in names(view, run).await? {
        let id = signal_id(&run.id, &name)?;
        if let Some(signal) = view.get::<Signal>(&id).await? {
            gone.push(Operation::Delete { kind: Signal::KIND, id, rev: signal.rev });
        }
    }
    Ok(gone)
}

async fn plan(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: SignalArgs = act::parse(args)?;
    let payload = args.payload.unwrap_or_else(|| json!({}));
    let bytes = canonical::canonical(&payload)
        .map_err(|error| Fault::invalid("request.invalid", format!("the payload is refused: {error}")))?;
    if bytes.len() > PAYLOAD_BYTES_MAX || !payload.is_object() {
        return Err(Fault::invalid("request.invalid", "a payload is an object of at most 8 KiB"));
    }
    let root = run_read(view, &args.run).await?;
    if root.strand.is_some() {
        return Err(Fault::conflict(
            "flows.run_state",
            "a branch is signalled through the run that it is a part of",
        ));
    }
    if matches!(root.status, Status::Finished | Status::Dead) {
        return Err(Fault::conflict("flows.run_state", "the run does not go on, so it waits for nothing"));
    }
    if !names(view, &root).await?.contains(&args.signal) {
        return Err(Fault::invalid("request.invalid", "no step of the workflow waits for this signal"));
    }
    let by = stamp.ctx.principal.id.clone();
    let mut fact = stamp.fact(
        "flows.run.signalled",
        &root.id,
        (RunDoc::KIND, &root.id),
        json!({"signal": args.signal, "payload": hex::encode(&sha256(&bytes))}),
    );
    let mut plan = Plan { draft: stamp.draft(), outcome: Value::Null };
    match waiting(view, &root, &args.signal).await? {
        Some(stored) => {
            let mut run = stored.doc.clone();
            let workflow = workflow_read(view, &run.workflow_digest).await?;
            if let Some(alarm) = run.job.take() {
                plan.draft.push(Operation::JobCancel { job: alarm });
            }
            machine::resume(&mut run, stamp.at_ms);
            let output = output(&args.signal, &payload, &by, stamp.at_ms);
            let then = machine::step_done(&mut run, &workflow, output, None, stamp.at_ms);
            fact.causes.push(run.last_fact.clone());
            run.last_fact = fact.id.clone();
            plan.draft.fact(fact);
            if run.status == Status::Finished {
                let outcome = run.told(json!({"outcome": run.outcome, "waited_ms": run.waited_ms}));
                let mut finished =
                    stamp.fact("flows.run.finished", &run.id, (RunDoc::KIND, &run.id), outcome);
                finished.causes.push(run.last_fact.clone());
                run.last_fact = finished.id.clone();
                plan.draft.fact(finished);
            }
            if then == machine::Then::GoOn {
                begin(&mut plan, stamp, &mut run, false);
            }
            tell(&mut plan.draft, stamp, &run);
            plan.draft.operations.extend(leftovers(view, &run).await?);
            plan.draft.put_if(&stored, &run);
            plan.outcome = json!({"run": root.id, "signal": args.signal, "kept": false});
        }
        None => {
            let id = signal_id(&root.id, &args.signal)?;
            if view.get::<Signal>(&id).await?.is_some() {
                let message = "this signal has been given already and is still waited for by nobody";
                return Err(Fault::conflict("flows.run_state", message));
            }
            fact.causes.push(root.last_fact.clone());
            let (run, fact_id) = (root.id.clone(), fact.id.clone());
            let (name, at_ms) = (args.signal.clone(), stamp.at_ms);
            plan.draft.put_new(&Signal { id, run, name, payload, by, at_ms, fact: fact_id }).fact(fact);
            plan.outcome = json!({"run": root.id, "signal": args.signal, "kept": true});
        }
    }
    Ok(plan)
}

/// The verb.
pub fn verb() -> Verb {
    Verb {
        act: "flows.run.signal",
        summary: "Tells a run that what it waits for has happened",
        args: || schemars::schema_for!(SignalArgs).into(),
        writes: &["flows.run", "flows.signal"],
        facts: &["flows.run.signalled", "flows.run.finished"],
        secret_args: &["payload"],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: SignalArgs = act::parse(args)?;
                let run = run_read(view, &args.run).await?;
                let mut target = run.target(view).await?;
                target.attributes = json!({"workflow": run.workflow, "signal": args.signal});
                target.preview = vec![("Run".into(), run.id.to_string()), ("Signal".into(), args.signal)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| plan(view, args, stamp).boxed()),
    }
}
