//! The engine: the one job of a run, from lease to commit, from commit to lease.
//!
//! [`Engine::drive`] holds a lease, looks at the run, does what its step asks for, and commits the result together with
//! the end of this job and the beginning of the next, which it holds as well. It stops when the run rests, when a retry
//! has to wait, or when the lease is lost. Nothing here remembers anything between two commits, so a process that dies
//! leaves the run exactly where its last commit put it:
//!
//! - before the intent of a call is durable, nothing has been sent;
//! - after it, whoever picks the run up finds a pending call and treats it as *unknown* before anything else;
//! - the outcome ends the pending call in the same commit that moves the run.
//!
//! Every commit is made on the very revision that the step was taken on. If somebody else has moved the run meanwhile
//! (people decided, an operator cancelled it, a later claim of the job took over), the commit fails and the run is theirs.

mod ask;
mod fork;
mod guard;
mod look;
mod rehearse;
mod sleep;

use super::call::{self, Heard, Transcript};
use super::gate::{CallArgs, Hints, PassArgs, workflow_read};
use super::machine::{self, Then, Wait};
use super::{CRASHES_MAX, Held, Outcome, Pending, RunDoc, RunError, STEP, Status, StepJob};
use super::{signal, strand};
use crate::connector::change;
use crate::connector::login::Logins;
use crate::connector::manifest::{Action, Effect};
use crate::connector::placeholder::{self, Values};
use crate::connector::record::Version;
use crate::connector::request;
use crate::template::{self, Scope, TemplateError};
use crate::workflow::model::{ApprovalStep, ModelStep, Step, StepKind, ToolStep, Way, Workflow};
use crate::{Deps, effect};
use act::{Class, Ctx, Draw as _, Fault, Stamp};
use contracts::models::ModelCall;
use harness::{Done, Terms};
use kernel::changeset::Operation;
use kernel::{Draft, Id, Lease, hex, json as canonical, sha256};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{CommitError, Stored, View, crash};

/// How often a lease is renewed while something outside is waited for; a third of its time.
const RENEW_EVERY_MS: u64 = 10_000;
/// Most steps that one drive takes before it lets others have the worker.
const STEPS_PER_DRIVE_MAX: u32 = 200;

/// Takes runs on.
pub struct Engine {
    deps: Deps,
    logins: Arc<Logins>,
    breakers: super::breaker::Counts,
}

/// What a step came to.
struct Move {
    run: RunDoc,
    then: Then,
    facts: Vec<(&'static str, Value)>,
    /// What is kept beside the first fact.
    aside: Option<Vec<u8>>,
    /// What the first fact follows from, besides the run's last.
    causes: Vec<Id>,
    /// Strands that begin.
    begun: Vec<RunDoc>,
    /// Strands that change with it.
    strands: Vec<(Stored<RunDoc>, RunDoc)>,
    /// What else it writes, and what it relies on not having moved.
    operations: Vec<Operation>,
    reads: Vec<store::Read>,
    /// Why the next job is not to begin before it is due.
    held: Option<Held>,
}

impl Move {
    fn new(run: RunDoc, then: Then, facts: Vec<(&'static str, Value)>) -> Move {
        Move {
            run,
            then,
            facts,
            aside: None,
            causes: Vec::new(),
            begun: Vec::new(),
            strands: Vec::new(),
            operations: Vec::new(),
            reads: Vec::new(),
            held: None,
        }
    }
}

/// Why the engine lets go of a run without moving it.
enum Stop {
    /// The lease is lost, or the run has been moved by somebody else: it is theirs now.
    Lost,
    /// Something failed on our side; the run's step tells how often it may.
    Engine(Fault),
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Engine(error.into())
    }
}

/// What is at hand while a step is taken.
struct Bench<'a> {
    lease: &'a Lease,
    job: &'a StepJob,
    view: &'a View,
    workflow: &'a Workflow,
    step: &'a Step,
    ctx: &'a Ctx,
    now_ms: i64,
    /// The run as last read: what the step's commit is made on.
    base: Mutex<Stored<RunDoc>>,
}

impl Engine {
    /// An engine.
    pub fn new(deps: Deps, logins: Arc<Logins>) -> Engine {
        Engine { deps, logins, breakers: super::breaker::Counts::default() }
    }

    /// Drives the run of a lease until it rests.
    pub async fn drive(&self, mut lease: Lease) {
        for _ in 0..STEPS_PER_DRIVE_MAX {
            let job = lease.id.clone();
            match self.advance(lease).await {
                Ok(Some(next)) => lease = next,
                Ok(None) => return,
                Err(Stop::Lost) => {
                    tracing::info!(%job, "a run has been taken over");
                    return;
                }
                Err(Stop::Engine(fault)) => {
                    tracing::warn!(%job, %fault, "a run could not be moved; its lease runs out and it is tried again");
                    return;
                }
            }
        }
        // A long run gives way: the lease it holds goes back to the workers.
        self.deps.harness.hand_over(vec![lease]);
    }

    /// One step. The lease of the next one, if the run goes on at once.
    async fn advance(&self, lease: Lease) -> Result<Option<Lease>, Stop> {
        let harness = &self.deps.harness;
        let job: StepJob = serde_json::from_slice(&lease.body).map_err(act::internal)?;
        let now_ms = harness.now_ms();
        let view = harness.store().view(&lease.tenant, now_ms);
        let stored = view.get::<RunDoc>(&job.run).await?.ok_or_else(|| Fault::not_found("run"))?;
        let ctx = harness.service("flows", &lease.tenant, vec![stored.started_by.clone()], &stored.trace);
        if !machine::holds(&stored, &lease.id) {
            // Cancelled, closed, or taken on by another job while this one was on its way.
            return self.let_go(lease, &stored, &ctx).await;
        }
        let workflow = workflow_read(&view, &stored.workflow_digest).await?;
        let Some((_, step)) = workflow.step(&stored.step) else {
            let mut run = stored.doc.clone();
            let then = machine::die(&mut run, "flows.step_missing", now_ms);
            return self.commit(lease, &stored, Move::new(run, then, Vec::new()), &ctx).await;
        };
        let (workflow, base) = (&*workflow, Mutex::new(stored.clone()));
        let bench = Bench { lease: &lease, job: &job, view: &view, workflow, step, ctx: &ctx, now_ms, base };
        let moved = match self.take(&bench, &stored).await {
            Ok(moved) => moved,
            Err(Stop::Lost) => return Err(Stop::Lost),
            Err(Stop::Engine(fault)) if fault.code == "store.fenced" => return Err(Stop::Lost),
            Err(Stop::Engine(fault)) => self.engine_failed(&bench, &fault).await?,
        };
        let base = bench.base.into_inner();
        self.commit(lease, &base, moved, &ctx).await
    }

    /// Ends a job whose run is somebody else's.
    async fn let_go(&self, lease: Lease, stored: &Stored<RunDoc>, ctx: &Ctx) -> Result<Option<Lease>, Stop> {
        let stamp = self.deps.harness.stamp(ctx);
        let mut draft = stamp.draft();
        let mut fact = stamp.fact(
            "flows.step.dropped",
            &stored.id,
            (<RunDoc as store::Document>::KIND, &stored.id),
            json!({"status": stored.status, "job": lease.id}),
        );
        fact.causes.push(stored.last_fact.clone());
        draft.fact(fact);
        match self.deps.harness.conclude(lease, draft, Vec::new()).await {
            Ok(_) => Ok(None),
            Err(CommitError::Fenced) => Err(Stop::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Something failed on our side: counted, waited for, and given up in the end.
    async fn engine_failed(&self, bench: &Bench<'_>, fault: &Fault) -> Result<Move, Stop> {
        let mut run = self.fresh(bench).await?.doc;
        let code = fault.code.as_str();
        let then = if fault.class.retryable() || fault.class == Class::Internal {
            machine::engine_failed(&mut run, bench.step, code, self.wait(fault.retry_after_ms), bench.now_ms)
        } else if run.pending.is_some() {
            // Not where `on_error` says: a run that goes on forgets its call, and nobody would look what became of it.
            machine::die(&mut run, code, bench.now_ms)
        } else {
            machine::step_failed(&mut run, bench.step, code, bench.now_ms)
        };
        let facts =
            vec![("flows.step.retried", json!({"step": bench.step.id, "code": code, "side": "engine"}))];
        Ok(Move::new(run, then, if matches!(then, Then::At(_)) { facts } else { Vec::new() }))
    }

    fn wait(&self, asked_ms: Option<i64>) -> Wait {
        let entropy = self.deps.harness.ids().entropy();
        let random = entropy.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Wait { asked_ms, random }
    }

    /// The run as it is now, if it is still this job's to move.
    async fn fresh(&self, bench: &Bench<'_>) -> Result<Stored<RunDoc>, Stop> {
        let view = self.deps.harness.store().view(&bench.lease.tenant, bench.now_ms);
        let stored = view.get::<RunDoc>(&bench.job.run).await?.ok_or_else(|| Fault::not_found("run"))?;
        if !machine::holds(&stored, &bench.lease.id) {
            return Err(Stop::Lost);
        }
        *bench.base.lock() = stored.clone();
        Ok(stored)
    }

    /// Waits for something outside and keeps the lease meanwhile; stops waiting when it is lost.
    async fn while_leased<T>(&self, lease: &Lease, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(Duration::from_millis(RENEW_EVERY_MS)) => self.renew(lease).await?,
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<(), Stop> {
        if self.deps.harness.store().job_renew(lease).await? { Ok(()) } else { Err(Stop::Lost) }
    }

    /// Takes the current step.
    async fn take(&self, bench: &Bench<'_>, stored: &Stored<RunDoc>) -> Result<Move, Stop> {
        let mut run = stored.doc.clone();
        let (step, now_ms) = (bench.step, bench.now_ms);
        let crashes = run.crashes.saturating_add(unreported(bench.lease));
        if bench.lease.starts > STEP.starts_max || crashes >= CRASHES_MAX {
            // A step that kills its worker never reports a failure; its starts are what is counted.
            let then = machine::die(&mut run, "flows.poison", now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        }
        if let Some(pending) = run.pending.clone() {
            let fresh = bench.job.send && bench.lease.starts == 1 && !pending.unknown;
            if fresh && self.halted(bench, &run).await? {
                let facts = vec![("flows.tool.finished", pending.not_made(&step.id, None))];
                let then = machine::finish(&mut run, Outcome::Cancelled, now_ms);
                return Ok(Move::new(run, then, facts));
            }
            if fresh && machine::late(&run, step, now_ms) {
                return Ok(not_made(bench, run, &pending, "flows.step_deadline"));
            }
            // A call that somebody else may have made is in doubt before anything else, waiting among it.
            if (fresh || pending.unknown)
                && let Some(moved) = self.guarded(bench, &run, &pending.connector).await?
            {
                return Ok(moved);
            }
            return if fresh {
                self.send(bench, run, &pending).await
            } else {
                self.reconcile(bench, run, &pending).await
            };
        }
        if self.halted(bench, &run).await? {
            let then = machine::finish(&mut run, Outcome::Cancelled, now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        }
        if run.alarm.is_some() {
            return Ok(self.awake(bench, run));
        }
        if machine::run_late(&run, bench.workflow, now_ms) {
            let then = machine::die(&mut run, "flows.run_deadline", now_ms);
            return Ok(Move::new(run, then, Vec::new()));
        }
        let scope = Scope::new(&run.names());
        match self.local(bench, &mut run, &scope) {
            Ok(Some(then)) => {
                let facts = vec![("flows.step.finished", json!({"step": step.id, "kind": step.kind.name()}))];
                return Ok(Move::new(run, then, facts));
            }
            Ok(None) => {}
            Err(error) => return Ok(self.template_failed(bench, run, &error)),
        }
        match &step.kind {
            StepKind::Tool(tool) => self.tool(bench, run, tool, &scope).await,
            StepKind::Model(model) => self.model(bench, run, model, &scope).await,
            StepKind::Approval(_) | StepKind::Wait(_) if run.dry_run => Ok(self.passed(bench, run)),
            StepKind::Approval(approval) => self.checkpoint(bench, run, approval, &scope).await,
            StepKind::Wait(wait) => self.sleep(bench, run, wait, &scope).await,
            StepKind::Parallel(parallel) => Ok(self.fork(bench, run, parallel)),
            StepKind::Workflow(sub) => self.fork_workflow(bench, run, sub, &scope).await,
            // Taken above.
            StepKind::Transform(_) | StepKind::Branch(_) => {
                Err(Stop::Engine(act::internal("a local step was not taken")))
            }
        }
    }

    /// Steps that touch nothing outside: passing over, transform, branch. `None`: it is none of these.
    fn local(
        &self,
        bench: &Bench<'_>,
        run: &mut RunDoc,
        scope: &Scope,
    ) -> Result<Option<Then>, TemplateError> {
        let (step, workflow, now_ms) = (bench.step, bench.workflow, bench.now_ms);
        if let Some(when) = &step.when
            && !template::condition(when, scope)?
        {
            return Ok(Some(machine::step_done(run, workflow, Value::Null, None, now_ms)));
        }
        match &step.kind {
            StepKind::Transform(fields) => {
                let output = template::tree(&Value::Object(fields.clone()), scope)?;
                Ok(Some(machine::step_done(run, workflow, output, None, now_ms)))
            }
            StepKind::Branch(ways) => {
                let taken =
                    |way: &&Way| way.when.as_ref().map_or(Ok(true), |when| template::condition(when, scope));
                for way in ways {
                    if taken(&way)? {
                        let output = json!({"next": way.next});
                        return Ok(Some(machine::step_done(run, workflow, output, Some(&way.next), now_ms)));
                    }
                }
                Err(TemplateError::Failed("no way of the branch fits".into()))
            }
            StepKind::Tool(_)
            | StepKind::Model(_)
            | StepKind::Approval(_)
            | StepKind::Wait(_)
            | StepKind::Parallel(_)
            | StepKind::Workflow(_) => Ok(None),
        }
    }

    fn template_failed(&self, bench: &Bench<'_>, mut run: RunDoc, error: &TemplateError) -> Move {
        tracing::info!(run = %run.id, step = bench.step.id, %error, "a template failed");
        let then = machine::step_failed(&mut run, bench.step, "flows.template_failed", bench.now_ms);
        Move::new(run, then, Vec::new())
    }

    async fn connector(&self, bench: &Bench<'_>, run: &RunDoc, name: &str) -> Result<Version, Fault> {
        super::gate::connector_read(bench.view, run, name).await
    }

    /// A governed call: parameters, decision and intent, and then the wire.
    async fn tool(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        tool: &ToolStep,
        scope: &Scope,
    ) -> Result<Move, Stop> {
        let version = match self.connector(bench, &run, &tool.connector).await {
            Ok(found) => found,
            Err(fault) if fault.class.retryable() => return Err(fault.into()),
            Err(fault) => {
                let then = machine::step_failed(&mut run, bench.step, &fault.code, bench.now_ms);
                return Ok(Move::new(run, then, Vec::new()));
            }
        };
        let args = match call::due(&run, &version, &bench.step.id, tool, scope) {
            Ok(args) => args,
            Err(call::DueError::Template(error)) => return Ok(self.template_failed(bench, run, &error)),
            Err(call::DueError::Params) => {
                let then = machine::step_failed(&mut run, bench.step, "flows.params_invalid", bench.now_ms);
                return Ok(Move::new(run, then, Vec::new()));
            }
        };
        if let Some(action) = version.manifest.action(&tool.action)
            && run.dry_run
            && action.effect != Effect::Read
        {
            return self.rehearse(bench, run, &version, action, &args).await;
        }
        if let Some(moved) = self.guarded(bench, &run, &tool.connector).await? {
            return Ok(moved);
        }
        // One key per attempt: a crash between this act and our own commit finds the same decision again.
        let key = format!("{}:{}:{}", run.id, bench.step.id, run.attempts.calls);
        match self.act(bench, "flows.tool.call", &args, key).await {
            Ok(Done::Waiting { approval, .. }) => {
                let facts =
                    vec![("flows.step.waiting", json!({"step": bench.step.id, "approval": approval}))];
                let then = machine::wait(&mut run, approval, bench.now_ms);
                Ok(Move::new(run, then, facts))
            }
            Ok(Done::Outcome { replayed, .. }) => {
                crash::point("tool.intended");
                let run = self.fresh(bench).await?.doc;
                let Some(pending) = run.pending.clone() else { return Err(Stop::Lost) };
                if replayed {
                    self.reconcile(bench, run, &pending).await
                } else {
                    self.send(bench, run, &pending).await
                }
            }
            Err(fault) => self.decided_against(bench, run, fault),
        }
    }

    async fn act<A: serde::Serialize>(
        &self,
        bench: &Bench<'_>,
        act: &str,
        args: &A,
        key: String,
    ) -> Result<Done, Fault> {
        let ctx = Ctx { idempotency_key: Some(key), ..bench.ctx.clone() };
        let args = serde_json::to_value(args).map_err(act::internal)?;
        let terms = Terms { fence: Some((bench.lease.id.clone(), bench.lease.epoch)), ..Terms::default() };
        self.deps.harness.act(&ctx, act, args, terms).await
    }

    /// Policy or the verb refused the act.
    fn decided_against(&self, bench: &Bench<'_>, mut run: RunDoc, fault: Fault) -> Result<Move, Stop> {
        match fault.class {
            Class::Denied | Class::StepUp => {
                run.error =
                    Some(RunError { code: fault.code, step: bench.step.id.clone(), at_ms: bench.now_ms });
                let then = machine::refused(&mut run, bench.step, Outcome::Denied, bench.now_ms);
                Ok(Move::new(run, then, Vec::new()))
            }
            _ => Err(fault.into()),
        }
    }

    /// Sends a call whose intent is durable and that nobody can have sent before.
    async fn send(&self, bench: &Bench<'_>, run: RunDoc, pending: &Pending) -> Result<Move, Stop> {
        let version = self.connector(bench, &run, &pending.connector).await?;
        let Some(action) = version.manifest.action(&pending.action) else {
            return self.heard(
                bench,
                run,
                pending,
                None,
                (Heard::Refused { code: "flows.action_missing".into() }, None),
            );
        };
        let params = pending.params.as_object().cloned().unwrap_or_default();
        if let Some(in_the_way) = self.unchanged(bench, pending, &version, action).await? {
            return self.heard(bench, run, pending, Some(action), in_the_way);
        }
        let heard = self.wire(bench, &version, (action, action), (&params, &params), pending.call()).await?;
        crash::point("tool.sent");
        let run = self.learned(run, pending, &version, action, &heard.0);
        self.heard(bench, run, pending, Some(action), heard)
    }

    /// One request: made by `action` with `params`, its reply judged by `judge` with what `judged` says was written.
    async fn wire(
        &self,
        bench: &Bench<'_>,
        version: &Version,
        (action, judge): (&Action, &Action),
        (params, judged): (&Map<String, Value>, &Map<String, Value>),
        (connector, effect_key): (&str, &str),
    ) -> Result<(Heard, Option<Transcript>), Stop> {
        let refused = |code: &str| Ok((Heard::Refused { code: code.to_owned() }, None));
        let marker = effect::marker(effect_key);
        let prepared =
            match request::prepare(&version.manifest, action, &version.base_url, params, &marker, effect_key)
            {
                Ok(prepared) => prepared,
                Err(_) => return refused("flows.params_invalid"),
            };
        let tenant = &bench.lease.tenant;
        let caller = call::Caller { deps: &self.deps, logins: &self.logins, tenant, version };
        let proof = caller.prove().await;
        // The last look at the lease: after this the outside world is touched.
        self.renew(bench.lease).await?;
        let (heard, transcript) = caller.send(proof, judge, judged, prepared).await;
        self.heard_of(bench, connector, &heard).await;
        Ok((heard, Some(transcript)))
    }

    /// A run that knows which change its write made.
    fn learned(
        &self,
        mut run: RunDoc,
        pending: &Pending,
        version: &Version,
        action: &Action,
        heard: &Heard,
    ) -> RunDoc {
        if let (Heard::Done(output), true) = (heard, action.effect != Effect::Read) {
            change::note(&mut run, &pending.connector, &version.manifest, output);
        }
        run
    }

    /// What was heard, as a move.
    fn heard(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        pending: &Pending,
        action: Option<&Action>,
        (heard, transcript): (Heard, Option<Transcript>),
    ) -> Result<Move, Stop> {
        let (step, now_ms) = (bench.step, self.deps.harness.now_ms());
        let told = |outcome: &str, code: Option<&str>, output: Option<&Map<String, Value>>| {
            json!({
                "step": step.id, "connector": pending.connector, "action": pending.action,
                "effect_key": pending.effect_key, "outcome": outcome, "code": code,
                "transcript": transcript.as_ref().map(Transcript::digest),
                "output": output.map(|output| digest(&Value::Object(output.clone()))),
                "fields": output.map(|output| output.keys().take(32).cloned().collect::<Vec<_>>()),
            })
        };
        let mut facts = Vec::new();
        let then = match heard {
            Heard::Done(output) => {
                facts.push(("flows.tool.finished", told("done", None, Some(&output))));
                if action.is_some_and(|action| action.effect != Effect::Read) {
                    run.written_back_at_ms = Some(now_ms);
                }
                run.pending = None;
                machine::step_done(&mut run, bench.workflow, Value::Object(output), None, now_ms)
            }
            Heard::Failed { code, retry_after_ms } => {
                facts.push(("flows.tool.finished", told("failed", Some(&code), None)));
                machine::external_failed(&mut run, step, &code, self.wait(retry_after_ms), now_ms)
            }
            Heard::Refused { code } => {
                facts.push(("flows.tool.finished", told("refused", Some(&code), None)));
                run.pending = None;
                machine::step_failed(&mut run, step, &code, now_ms)
            }
            Heard::Unknown { code } => {
                facts.push(("flows.tool.finished", told("unknown", Some(&code), None)));
                machine::call_unknown(&mut run, &code, now_ms)
            }
        };
        let aside = transcript.map(|transcript| transcript.bytes());
        Ok(Move { aside, ..Move::new(run, then, facts) })
    }

    async fn checkpoint(
        &self,
        bench: &Bench<'_>,
        mut run: RunDoc,
        approval: &ApprovalStep,
        scope: &Scope,
    ) -> Result<Move, Stop> {
        let preview = approval
            .preview
            .iter()
            .map(|(label, source)| Ok((label.clone(), template::text(source, scope)?)));
        let preview = match preview.collect::<Result<Vec<_>, TemplateError>>() {
            Ok(preview) => preview,
            Err(error) => return Ok(self.template_failed(bench, run, &error)),
        };
        let args = PassArgs {
            run: run.id.to_string(),
            step: bench.step.id.clone(),
            tier: approval.tier,
            approvals: approval.approvals,
            preview,
        };
        let key = format!("{}:{}:{}", run.id, bench.step.id, run.attempts.calls);
        match self.act(bench, "flows.approval.pass", &args, key).await {
            Ok(Done::Waiting { approval, .. }) => {
                let facts =
                    vec![("flows.step.waiting", json!({"step": bench.step.id, "approval": approval}))];
                let then = machine::wait(&mut run, approval, bench.now_ms);
                Ok(Move::new(run, then, facts))
            }
            Ok(Done::Outcome { .. }) => Err(Stop::Lost),
            Err(fault) => self.decided_against(bench, run, fault),
        }
    }

    /// Commits a move: the run, its facts, the end of this job, the beginning of the next.
    async fn commit(
        &self,
        lease: Lease,
        stored: &Stored<RunDoc>,
        moved: Move,
        ctx: &Ctx,
    ) -> Result<Option<Lease>, Stop> {
        let harness = &self.deps.harness;
        let stamp = harness.stamp(ctx);
        let Move {
            mut run,
            then,
            mut facts,
            aside,
            mut causes,
            begun,
            strands,
            mut operations,
            mut reads,
            held,
        } = moved;
        run.held = held;
        if run.status == Status::Finished {
            let view = harness.store().view(&lease.tenant, stamp.at_ms);
            for gone in signal::leftovers(&view, &run).await? {
                if !operations.contains(&gone) {
                    operations.push(gone);
                }
            }
            reads.extend(view.into_reads().map_err(act::internal)?);
        }
        run.crashes = run.crashes.saturating_add(unreported(&lease));
        if run.status == Status::Dead
            && facts.iter().all(|(kind, _)| *kind != "flows.tool.finished")
            && let Some(pending) = run.pending.as_mut().filter(|pending| !pending.unknown)
        {
            // It gives up with an intent that nobody comes back to: the log says so, and a replay looks first.
            pending.unknown = true;
            facts.push(("flows.tool.finished", pending.lost(&stored.step)));
        }
        let mut draft = stamp.draft();
        let silent = facts.is_empty() && matches!(run.status, Status::Running | Status::Waiting);
        let of_call = facts.iter().any(|(kind, _)| *kind == "flows.tool.finished");
        facts.extend(ended(stored.status, &run));
        if silent {
            // The step ended without a word of its own: it failed or was refused, and the workflow says where to.
            let error = run.error.as_ref().map(|error| error.code.clone());
            let outcome = json!({"step": stored.step, "code": error, "next": run.step});
            facts.push(("flows.step.finished", outcome));
        }
        for (kind, outcome) in facts {
            state(&mut draft, &stamp, kind, outcome, &mut run, std::mem::take(&mut causes));
        }
        next_job(&mut draft, &stamp, &mut run, then);
        strand::tell(&mut draft, &stamp, &run);
        if let Some(first) = draft.facts.first_mut() {
            first.aside = aside;
        }
        for mut strand in begun {
            let outcome = json!({"workflow": strand.workflow, "workflow_digest": strand.workflow_digest,
                                 "strand": strand.strand});
            strand.last_fact = run.last_fact.clone();
            state(&mut draft, &stamp, "flows.run.created", outcome, &mut strand, Vec::new());
            next_job(&mut draft, &stamp, &mut strand, Then::At(stamp.at_ms));
            draft.put_new(&strand);
        }
        for (before, mut strand) in strands {
            if let Some((kind, outcome)) = ended(before.status, &strand) {
                state(&mut draft, &stamp, kind, outcome, &mut strand, vec![run.last_fact.clone()]);
            }
            if before.status != Status::Finished
                && strand.strand.as_ref().is_some_and(|strand| strand.parent != run.id)
            {
                strand::tell(&mut draft, &stamp, &strand);
            }
            draft.put_if(&before, &strand);
        }
        draft.operations.extend(operations);
        draft.put_if(stored, &run);
        match harness.conclude(lease, draft, reads).await {
            Ok(committed) => {
                if of_call {
                    crash::point("tool.finished");
                }
                Ok(committed.held.into_iter().next())
            }
            Err(CommitError::Conflict { .. } | CommitError::Fenced) => Err(Stop::Lost),
            Err(error) => Err(error.into()),
        }
    }
}

/// States a fact of a run: it follows from the run's last one, and the next follows from it.
fn state(
    draft: &mut Draft,
    stamp: &Stamp,
    kind: &'static str,
    outcome: Value,
    run: &mut RunDoc,
    causes: Vec<Id>,
) {
    let mut fact = stamp.fact(kind, &run.id, (<RunDoc as store::Document>::KIND, &run.id), outcome);
    fact.causes.push(run.last_fact.clone());
    fact.causes.extend(causes);
    fact.causes.dedup();
    run.last_fact = fact.id.clone();
    draft.fact(fact);
}

/// The fact of an end, if a run came to one.
fn ended(before: Status, run: &RunDoc) -> Option<(&'static str, Value)> {
    let error = run.error.as_ref().map(|error| &error.code);
    match run.status {
        Status::Finished if before != Status::Finished => Some((
            "flows.run.finished",
            run.told(json!({"outcome": run.outcome, "waited_ms": run.waited_ms, "error": error})),
        )),
        Status::Dead if before != Status::Dead => Some((
            "flows.run.dead",
            run.told(json!({"step": run.step, "code": error, "attempts": run.attempts.external, "crashes": run.crashes,
                            "engine_attempts": run.attempts.engine, "workflow": run.workflow_digest})),
        )),
        Status::Running | Status::Waiting | Status::Finished | Status::Dead => None,
    }
}

/// A call that nobody has made, and that nobody makes any more: its step failed.
fn not_made(bench: &Bench<'_>, mut run: RunDoc, pending: &Pending, code: &str) -> Move {
    let facts = vec![("flows.tool.finished", pending.not_made(&bench.step.id, Some(code)))];
    run.pending = None;
    let then = machine::step_failed(&mut run, bench.step, code, bench.now_ms);
    Move::new(run, then, facts)
}

/// Starts of this job before this one: each ended without a word.
fn unreported(lease: &Lease) -> u32 {
    lease.starts.saturating_sub(1)
}

/// Begins the job that takes the run on, if it goes on. A call that is pending and not in doubt has certainly not been made
/// since, or may be made again: the next job's first start sends it.
fn next_job(draft: &mut kernel::Draft, stamp: &Stamp, run: &mut RunDoc, then: Then) {
    let (at_ms, held) = match then {
        Then::GoOn => (stamp.at_ms, true),
        Then::At(at_ms) => (at_ms, false),
        Then::Rest => return,
    };
    let job = stamp.id("job");
    run.job = Some(job.clone());
    run.due_ms = Some(at_ms).filter(|_| !held);
    let send = run.pending.as_ref().is_some_and(|pending| !pending.unknown);
    draft.job(job, &STEP, at_ms, held, &json!({"run": run.id, "send": send}));
}

fn digest(value: &Value) -> String {
    hex::encode(&sha256(&canonical::canonical(value).unwrap_or_else(|_| value.to_string().into_bytes())))
}
