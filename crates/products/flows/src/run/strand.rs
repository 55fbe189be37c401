//! Strands: runs within runs.
//!
//! A `parallel` step takes several ways at once, and each way is a run of its own: a record, a job, a call in flight, an
//! approval of its own. So whatever holds for a run holds for a branch, with no second set of rules, and an approval that
//! one branch waits for blocks that branch and nothing else. A `workflow` step is the same with one strand that follows
//! another workflow.
//!
//! The run that was forked waits and has no job. What brings it back is the end of a strand: the commit that ends the
//! strand enqueues a `flows.join` job, which reads all of them, and the one that finds the last of them ended goes on. Two
//! that end at once both find that; one commits, the other finds the run gone.
//!
//! | a strand … | means for the step |
//! |---|---|
//! | reached its end | done; its outputs are there under their own ids |
//! | was denied, expired, cancelled, left to people | it failed; `on_failure` says whether the others go on |
//! | is among the dead letters | nothing yet: an operator replays or cancels it, and the step waits |
//!
//! Nobody writes to a strand that works: a commit in the middle of a call would lose what the call came to. Those that are
//! to stop find that out themselves, between two steps.

use super::{JOIN, Outcome, RunDoc, Status, Strand, machine};
use crate::workflow::Step;
use crate::workflow::model::{DEAD, NEEDS_HUMAN};
use crate::workflow::model::{STRAND_DEPTH_MAX, Workflow};
use act::{Draw as _, Fault, Stamp};
use contracts::models::Brake;
use kernel::{Draft, Id};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::{Stored, View};

/// Most strands that a run can have at one moment, over all depths. A workflow that could have more is not published, and one
/// that has come to more since, because a workflow that it runs has grown, is not started: so whoever looks through the
/// strands of a run (for the one that waits for a signal, for those that are to stop) sees all of them.
pub const STRANDS_MAX: usize = 64;

/// The body of a `flows.join` job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinJob {
    /// The run that waits.
    pub run: Id,
    /// The strand that has ended.
    pub strand: Id,
}

/// What a strand is to follow.
pub(super) struct Way<'a> {
    /// Name of the branch or workflow.
    pub branch: &'a str,
    /// Its first step.
    pub first: &'a str,
    /// The other workflow, for a sub-workflow: name, digest, event.
    pub sub: Option<(&'a str, &'a str, Value)>,
    /// What the other workflow lets it cost.
    pub brake_micros: Option<i64>,
}

/// Whether a run may have strands.
pub(super) fn depth_left(run: &RunDoc) -> bool {
    run.strand.as_ref().map_or(0, |strand| strand.depth) < STRAND_DEPTH_MAX
}

/// A new strand of a run.
pub(super) fn begun(run: &RunDoc, id: Id, way: &Way<'_>, now_ms: i64) -> RunDoc {
    let base_ms = run.strand.as_ref().map_or(run.created_at_ms, |strand| strand.base_ms);
    let own = way.sub.as_ref();
    let strand = Strand {
        parent: run.id.clone(),
        root: run.root().clone(),
        step: run.step.clone(),
        branch: way.branch.to_owned(),
        depth: run.strand.as_ref().map_or(0, |strand| strand.depth) + 1,
        // A branch shares its run's limits; another workflow has its own.
        base_ms: if own.is_some() { now_ms } else { base_ms + run.waited_ms },
        spent_micros: if own.is_some() { 0 } else { run.cost_micros },
        spent_unmeasured_micros: if own.is_some() { 0 } else { run.unmeasured_micros },
    };
    // Whatever it costs counts for all that it is a part of; another workflow may have a limit of its own besides.
    let mut brakes = run.brakes.clone();
    brakes.extend(way.brake_micros.map(|most_micros| Brake { run: id.clone(), most_micros }));
    RunDoc {
        id,
        workflow: own.map_or(&*run.workflow, |(name, _, _)| name).to_owned(),
        workflow_digest: own.map_or(&*run.workflow_digest, |(_, digest, _)| digest).to_owned(),
        status: Status::Running,
        outcome: None,
        step: way.first.to_owned(),
        attempts: super::Attempts::default(),
        job: None,
        due_ms: None,
        pending: None,
        approval: None,
        event: own.map_or_else(|| run.event.clone(), |(_, _, event)| event.clone()),
        outputs: if own.is_some() { Map::new() } else { run.outputs.clone() },
        digests: BTreeMap::new(),
        source: None,
        created_at_ms: now_ms,
        step_at_ms: now_ms,
        waiting_since_ms: None,
        waited_ms: 0,
        written_back_at_ms: None,
        finished_at_ms: None,
        cost_micros: strand.spent_micros,
        unmeasured_micros: strand.spent_unmeasured_micros,
        brakes,
        held: None,
        wrote: Vec::new(),
        error: None,
        replays: 0,
        strands: Vec::new(),
        halting: false,
        alarm: None,
        crashes: 0,
        rehearsed: Vec::new(),
        strand: Some(strand),
        ..run.clone()
    }
}

/// Tells the run that a strand is a part of, if the strand has ended. In the commit that ends it.
pub(super) fn tell(draft: &mut Draft, stamp: &Stamp, run: &RunDoc) {
    if let (Status::Finished, Some(strand)) = (run.status, &run.strand) {
        let body = json!({"run": strand.parent, "strand": run.id});
        draft.job(stamp.id("job"), &JOIN, stamp.at_ms, false, &body);
    }
}

/// Strands in the order of their names, as far as they can be read.
pub(super) async fn strands_of(view: &View, run: &RunDoc) -> Result<Vec<Stored<RunDoc>>, Fault> {
    let mut strands = Vec::with_capacity(run.strands.len());
    for id in &run.strands {
        strands.push(view.get::<RunDoc>(id).await?.ok_or_else(|| act::internal("a strand is gone"))?);
    }
    Ok(strands)
}

/// How a strand failed, if it has: it ended, and not at its end.
pub(super) fn failed(run: &RunDoc) -> Option<Outcome> {
    run.outcome.filter(|outcome| run.status == Status::Finished && *outcome != Outcome::Done)
}

/// All strands have ended: takes over what they found out, spent and waited, and goes on as they ended.
pub(super) fn joined(
    run: &mut RunDoc,
    workflow: &Workflow,
    step: &Step,
    strands: &[RunDoc],
    now_ms: i64,
) -> machine::Then {
    run.status = Status::Running;
    run.halting = false;
    // A run that dies of joining joins again when it is replayed: what it takes over must not be taken over twice.
    let alone = run.clone();
    strands.iter().for_each(|strand| run.spend(strand.own_cost()));
    // They waited beside one another.
    run.waited_ms += strands.iter().map(|strand| strand.waited_ms).max().unwrap_or(0);
    run.written_back_at_ms =
        strands.iter().filter_map(|strand| strand.written_back_at_ms).chain(run.written_back_at_ms).max();
    run.rehearsed.extend(strands.iter().flat_map(|strand| strand.rehearsed.iter().cloned()));
    let mut ends = Map::new();
    for strand in strands {
        let name = strand.strand.as_ref().map_or("", |strand| strand.branch.as_str());
        ends.insert(name.to_owned(), json!(strand.outcome));
    }
    let output = match &step.kind {
        crate::workflow::StepKind::Workflow(_) => {
            let outputs = strands.first().map(|strand| strand.outputs.clone()).unwrap_or_default();
            json!({"outcome": strands.first().and_then(|strand| strand.outcome), "steps": outputs})
        }
        _ => {
            for (id, output) in strands.iter().flat_map(|strand| &strand.outputs) {
                run.outputs.entry(id.clone()).or_insert_with(|| output.clone());
            }
            json!({"branches": ends})
        }
    };
    let worst = [Outcome::Denied, Outcome::Void, Outcome::Expired, Outcome::NeedsHuman, Outcome::Cancelled]
        .into_iter()
        .find(|outcome| strands.iter().any(|strand| failed(strand) == Some(*outcome)));
    let then = match worst {
        None => machine::step_done(run, workflow, output, None, now_ms),
        Some(outcome) => {
            run.outputs.insert(step.id.clone(), output);
            match outcome {
                Outcome::NeedsHuman => machine::move_to(run, NEEDS_HUMAN, now_ms),
                Outcome::Cancelled if step.on_error != DEAD => {
                    machine::move_to(run, &step.on_error.clone(), now_ms)
                }
                Outcome::Done | Outcome::Cancelled => machine::finish(run, outcome, now_ms),
                Outcome::Denied | Outcome::Void | Outcome::Expired => {
                    machine::refused(run, step, outcome, now_ms)
                }
            }
        }
    };
    let then = if run.content_bytes() > super::CONTENT_BYTES_MAX {
        run.outputs = alone.outputs.clone();
        machine::step_failed(run, step, "flows.output_too_large", now_ms)
    } else {
        then
    };
    if run.status == Status::Dead {
        (run.cost_micros, run.unmeasured_micros) = (alone.cost_micros, alone.unmeasured_micros);
        (run.waited_ms, run.rehearsed) = (alone.waited_ms, alone.rehearsed);
    } else {
        run.strands.clear();
    }
    then
}

/// Stops strands of a run: those that wait or are dead, at once. Those that work find `halting` and stop by themselves.
/// What has changed comes back, strands of strands among it.
pub(super) async fn halt(
    view: &View,
    strands: &[Stored<RunDoc>],
    now_ms: i64,
) -> Result<Vec<(Stored<RunDoc>, RunDoc)>, Fault> {
    let mut stopped = Vec::new();
    let mut next: Vec<Stored<RunDoc>> = strands.to_vec();
    while let Some(stored) = next.pop() {
        let mut run = stored.doc.clone();
        match run.status {
            Status::Finished | Status::Running => continue,
            Status::Waiting if !run.strands.is_empty() => {
                run.halting = true;
                next.extend(strands_of(view, &run).await?);
            }
            Status::Waiting | Status::Dead => {
                machine::finish(&mut run, Outcome::Cancelled, now_ms);
            }
        }
        stopped.push((stored, run));
        if stopped.len() + next.len() > STRANDS_MAX {
            return Err(too_many());
        }
    }
    Ok(stopped)
}

/// Ends every strand of a run that is being cancelled, and takes the content of those that have ended.
pub(super) async fn cancelled(
    view: &View,
    run: &RunDoc,
    now_ms: i64,
) -> Result<Vec<(Stored<RunDoc>, RunDoc)>, Fault> {
    let mut ended = Vec::new();
    let mut next = strands_of(view, run).await?;
    while let Some(stored) = next.pop() {
        let mut run = stored.doc.clone();
        if machine::in_flight(&run, now_ms) {
            let branch = run.strand.as_ref().map_or("", |strand| strand.branch.as_str());
            let message =
                format!("a call of the branch {branch} is in flight; cancel when its outcome is known");
            return Err(Fault::conflict("flows.run_state", message));
        }
        next.extend(strands_of(view, &run).await?);
        if run.status != Status::Finished {
            machine::finish(&mut run, Outcome::Cancelled, now_ms);
        }
        run.strands.clear();
        run.scrub();
        ended.push((stored, run));
        if ended.len() + next.len() > STRANDS_MAX {
            return Err(too_many());
        }
    }
    Ok(ended)
}

/// For a run from before workflows were held to the bound.
pub(super) fn too_many() -> Fault {
    Fault::conflict(
        "flows.run_state",
        format!("the run has more than {STRANDS_MAX} strands; cancel them first"),
    )
}
