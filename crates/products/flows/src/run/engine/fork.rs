//! Forking a run into strands, and joining them again.

use super::*;
use crate::run::JOIN;
use crate::run::strand::{JoinJob, Way, begun, depth_left, failed, halt, joined, strands_of};
use crate::run::verbs::EVENT_BYTES_MAX;
use crate::workflow::model::{OnFailure, ParallelStep, SubStep};

impl Engine {
    /// Begins the branches of a parallel step.
    pub(super) fn fork(&self, bench: &Bench<'_>, run: RunDoc, parallel: &ParallelStep) -> Move {
        let ways = parallel.branches.iter().filter_map(|(name, steps)| {
            let first = steps.first()?;
            Some(Way { branch: name, first: &first.id, sub: None, brake_micros: None })
        });
        self.forked(bench, run, ways.collect())
    }

    /// Begins another workflow as a strand.
    pub(super) async fn fork_workflow(
        &self,
        bench: &Bench<'_>,
        run: RunDoc,
        sub: &SubStep,
        scope: &Scope,
    ) -> Result<Move, Stop> {
        let with = match template::tree(&Value::Object(sub.with.clone()), scope) {
            Ok(with) => with,
            Err(error) => return Ok(self.template_failed(bench, run, &error)),
        };
        let refused = |mut run: RunDoc, code: &str| {
            let then = machine::step_failed(&mut run, bench.step, code, bench.now_ms);
            Ok(Move::new(run, then, Vec::new()))
        };
        if serde_json::to_vec(&with).map_or(usize::MAX, |bytes| bytes.len()) > EVENT_BYTES_MAX {
            return refused(run, "flows.output_too_large");
        }
        let Some(digest) = run.workflows.get(&sub.name).cloned() else {
            return refused(run, "flows.workflow_unready");
        };
        let (workflow, name) = (workflow_read(bench.view, &digest).await?, sub.name.as_str());
        let Some(first) = workflow.steps.first() else { return refused(run, "flows.workflow_unready") };
        let sub = Some((sub.name.as_str(), digest.as_str(), with));
        let brake_micros = workflow.limits.cost_micros;
        let way = Way { branch: name, first: &first.id, sub, brake_micros };
        Ok(self.forked(bench, run, vec![way]))
    }

    fn forked(&self, bench: &Bench<'_>, mut run: RunDoc, ways: Vec<Way<'_>>) -> Move {
        if !depth_left(&run) {
            let then = machine::step_failed(&mut run, bench.step, "flows.strand_depth", bench.now_ms);
            return Move::new(run, then, Vec::new());
        }
        let now_ms = bench.now_ms;
        let ids = self.deps.harness.ids();
        let strands: Vec<RunDoc> =
            ways.iter().map(|way| begun(&run, ids.id("run", now_ms), way, now_ms)).collect();
        let named: Map<String, Value> = ways
            .iter()
            .zip(&strands)
            .map(|(way, strand)| (way.branch.to_owned(), json!(strand.id)))
            .collect();
        let facts = vec![("flows.step.waiting", json!({"step": run.step, "strands": named}))];
        let then = machine::fork(&mut run, strands.iter().map(|strand| strand.id.clone()).collect());
        Move { begun: strands, ..Move::new(run, then, facts) }
    }

    /// Whether the run is a strand that is to stop: its parent says so, or does not wait for it any more.
    pub(super) async fn halted(&self, bench: &Bench<'_>, run: &RunDoc) -> Result<bool, Stop> {
        let Some(strand) = &run.strand else { return Ok(false) };
        let parent = bench.view.peek::<RunDoc>(&strand.parent).await?;
        Ok(parent.is_none_or(|parent| parent.halting || parent.status != Status::Waiting))
    }

    /// Carries out a `flows.join` job.
    pub async fn join(&self, lease: Lease) {
        let job = lease.id.clone();
        match self.strand_ended(lease).await {
            Ok(next) => self.deps.harness.hand_over(next.into_iter().collect()),
            Err(Stop::Lost) => tracing::info!(%job, "a run has been joined by somebody else"),
            Err(Stop::Engine(fault)) => {
                tracing::warn!(%job, %fault, "a run could not be joined; its lease runs out and it is tried again");
            }
        }
    }

    async fn strand_ended(&self, lease: Lease) -> Result<Option<Lease>, Stop> {
        let harness = &self.deps.harness;
        let job: JoinJob = serde_json::from_slice(&lease.body).map_err(act::internal)?;
        let now_ms = harness.now_ms();
        let view = harness.store().view(&lease.tenant, now_ms);
        let stored = view.get::<RunDoc>(&job.run).await?.ok_or_else(|| Fault::not_found("run"))?;
        let strand = view.get::<RunDoc>(&job.strand).await?.ok_or_else(|| Fault::not_found("run"))?;
        let ctx = harness.service("flows", &lease.tenant, vec![stored.started_by.clone()], &stored.trace);
        let name = strand.strand.as_ref().map_or("", |strand| strand.branch.as_str());
        let said = (
            "flows.branch.ended",
            json!({"step": stored.step, "branch": name, "strand": strand.id,
                                                 "outcome": strand.outcome}),
        );
        if stored.status != Status::Waiting || !stored.strands.contains(&job.strand) {
            return self.noted(lease, &stored, said, &strand, &ctx).await;
        }
        let workflow = workflow_read(&view, &stored.workflow_digest).await?;
        let Some((_, step)) = workflow.step(&stored.step) else {
            let mut run = stored.doc.clone();
            let then = machine::die(&mut run, "flows.step_missing", now_ms);
            return self.commit(lease, &stored, Move::new(run, then, vec![said]), &ctx).await;
        };
        if lease.starts > JOIN.starts_max {
            let mut run = stored.doc.clone();
            let then = machine::die(&mut run, "flows.poison", now_ms);
            return self.commit(lease, &stored, Move::new(run, then, vec![said]), &ctx).await;
        }
        let mut strands = strands_of(&view, &stored).await?;
        let cancels =
            matches!(&step.kind, StepKind::Parallel(parallel) if parallel.on_failure == OnFailure::Cancel);
        let mut changed = Vec::new();
        if cancels && !stored.halting && strands.iter().any(|strand| failed(strand).is_some()) {
            changed = halt(&view, &strands, now_ms).await?;
            for (_, halted) in &changed {
                if let Some(strand) = strands.iter_mut().find(|strand| strand.id == halted.id) {
                    strand.doc = halted.clone();
                }
            }
        }
        let mut run = stored.doc.clone();
        if strands.iter().any(|strand| strand.status != Status::Finished) {
            if changed.is_empty() && (stored.halting || !cancels || failed(&strand).is_none()) {
                return self.noted(lease, &stored, said, &strand, &ctx).await;
            }
            run.halting = true;
            let mut moved = Move::new(run, Then::Rest, vec![said]);
            (moved.strands, moved.causes) = (changed, vec![strand.last_fact.clone()]);
            return self.commit(lease, &stored, moved, &ctx).await;
        }
        let docs: Vec<RunDoc> = strands.iter().map(|strand| strand.doc.clone()).collect();
        let then = joined(&mut run, &workflow, step, &docs, now_ms);
        let finished = json!({"step": step.id, "kind": step.kind.name(), "next": run.step,
                              "strands": docs.iter().map(|strand| json!({"strand": strand.id, "outcome": strand.outcome})).collect::<Vec<_>>()});
        let mut moved = Move::new(run, then, vec![said, ("flows.step.finished", finished)]);
        moved.causes = docs.iter().map(|strand| strand.last_fact.clone()).collect();
        if moved.run.status != Status::Dead {
            // What they knew is the run's now.
            for stored in strands {
                let before = changed.iter().position(|(_, halted)| halted.id == stored.id);
                let (before, mut strand) = match before {
                    Some(at) => changed.swap_remove(at),
                    None => (stored.clone(), stored.doc),
                };
                strand.scrub();
                moved.strands.push((before, strand));
            }
        }
        moved.strands.extend(changed);
        self.commit(lease, &stored, moved, &ctx).await
    }

    /// Records the end of a strand that changes nothing yet, or any more.
    async fn noted(
        &self,
        lease: Lease,
        stored: &Stored<RunDoc>,
        (kind, outcome): (&'static str, Value),
        strand: &RunDoc,
        ctx: &Ctx,
    ) -> Result<Option<Lease>, Stop> {
        let stamp = self.deps.harness.stamp(ctx);
        let mut draft = stamp.draft();
        let mut run = stored.doc.clone();
        state(&mut draft, &stamp, kind, outcome, &mut run, vec![strand.last_fact.clone()]);
        match self.deps.harness.conclude(lease, draft, Vec::new()).await {
            Ok(_) => Ok(None),
            Err(CommitError::Fenced) => Err(Stop::Lost),
            Err(error) => Err(error.into()),
        }
    }
}
