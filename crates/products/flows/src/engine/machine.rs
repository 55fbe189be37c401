//! What is to do, and what follows from what: a synchronous planner without a clock, a store or a choice left open.
//!
//! [`todo`] says what the holder of a job does with a run as it stands. [`next`] takes a run and something that happened
//! and returns the run as it shall be, what becomes of the job, and what is stated. What does not fit the run's state (a
//! completion that comes twice, late, or after somebody cancelled) is a [`Misfit`] and changes nothing.
//!
//! Three budgets end a run that gets nowhere: faults of systems outside, faults of this system, and starts of a job that
//! never ended (a step that kills its worker reports no fault). What fails the same way every time has no budget at all.

use super::record::{Cursor, Failure, Intent, Outcome, Passed, Phase, Run, State, digest_of};
use crate::effect::{self, AfterUnknown};
use crate::workflow::model::{
    ApprovalStep, DEAD, END, ModelStep, NEEDS_HUMAN, Step, StepKind, ToolStep, Way, Workflow,
};
use kernel::Id;
use serde_json::{Map, Value, json};

/// How often a job may be started before it is taken for one that kills its workers.
pub const STARTS_MAX: u32 = 8;

/// What the holder of a job does now.
#[derive(Debug, PartialEq)]
pub enum Todo<'a> {
    /// Nothing: the run belongs to another job, or to nobody.
    Yield(&'static str),
    /// States what ends it: no attempt is made.
    State(Event),
    /// Passes the step over if its condition does not hold, else does it.
    Do {
        /// The step.
        step: &'a Step,
        /// What it does.
        action: Action<'a>,
    },
}

/// What a step needs.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    /// Make values.
    Transform(&'a Map<String, Value>),
    /// Choose a way.
    Branch(&'a [Way]),
    /// Ask for leave to call.
    AskCall(&'a ToolStep),
    /// Make the call that was permitted.
    Send(&'a ToolStep),
    /// The call may have been made by somebody who is gone.
    Lost(&'a ToolStep),
    /// Find out whether the call had its effect.
    Look(&'a ToolStep, u32),
    /// Ask people.
    AskPass(&'a ApprovalStep),
    /// Ask a model.
    AskModel(&'a ModelStep),
}

/// Something that happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The step's condition does not hold.
    Skipped,
    /// The step gave this.
    Output {
        /// What.
        output: Map<String, Value>,
        /// What it cost, in micro-units.
        cost_micros: i64,
        /// What is stated of it.
        said: Value,
    },
    /// The branch chose.
    Chosen(String),
    /// A call was permitted, and its maker sends it.
    Intended(Intent),
    /// A call was permitted after people agreed; the next job sends it.
    Granted(Intent),
    /// People agreed to an approval step.
    Passed {
        /// The approval that was used.
        approval: Id,
    },
    /// Policy wants people first.
    Waits {
        /// For which approval.
        approval: Id,
        /// Until when, milliseconds UTC.
        expires_at_ms: i64,
    },
    /// Policy said no.
    Refused(String),
    /// The approval was closed without being used.
    Closed {
        /// Which.
        approval: Id,
        /// For which attempt at which step.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// It certainly had no effect, or the wrong one for good.
    Failed {
        /// Stable code.
        code: String,
        /// For people.
        detail: String,
        /// Whether trying again may help, and when at the earliest.
        retry: effect::Retry,
    },
    /// This system failed.
    Broke {
        /// Stable code.
        code: String,
        /// For people.
        detail: String,
    },
    /// It may have had its effect.
    Unknown {
        /// Stable code of what went wrong.
        code: String,
    },
    /// It was looked for and is not there; look again after this time, or, if there is none, it is not there for good.
    Absent {
        /// In milliseconds.
        again_ms: Option<i64>,
    },
    /// It could not be looked for.
    LookFailed {
        /// Stable code.
        code: String,
        /// When at the earliest, if the other side said so.
        after_ms: Option<i64>,
    },
    /// Only people can go on.
    NeedsHuman(String),
    /// The job was started too often.
    Poisoned,
    /// The step's or the run's time is over.
    Overdue,
    /// Somebody cancels it.
    Cancelled,
    /// Somebody takes it out of the dead letters, and says what became of an effect that only people can tell of.
    Replayed {
        /// Whether the effect took place; none where nobody needs to say.
        applied: Option<bool>,
    },
}

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next one goes on at once.
    GoOn,
    /// The next one is due then, milliseconds UTC.
    At(i64),
    /// There is none.
    Rest,
    /// The one there is goes on.
    Stay,
}

/// What a transition comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// The run as it shall be.
    pub run: Run,
    /// What becomes of the job.
    pub then: Then,
    /// What is stated: kind and outcome, in order.
    pub said: Vec<(&'static str, Value)>,
}

/// It does not fit the run's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the run is not in a state in which this can happen")]
pub struct Misfit;

/// Everything that is not in the run: when, chance, and the id that a next job would have.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Milliseconds UTC.
    pub at_ms: i64,
    /// Any number, for jitter.
    pub random: u64,
    /// The next job's id.
    pub next_job: Id,
}

/// What the holder of `job`, started for the `starts`th time, does.
pub fn todo<'a>(run: &Run, workflow: &'a Workflow, job: &Id, starts: u32, at_ms: i64) -> Todo<'a> {
    match run.state {
        State::Running => {}
        State::Waiting { .. } | State::Finished { .. } | State::Dead { .. } => return Todo::Yield("not_running"),
    }
    if run.job.as_ref() != Some(job) {
        return Todo::Yield("another_job");
    }
    if starts > STARTS_MAX {
        return Todo::State(Event::Poisoned);
    }
    let Some((_, step)) = workflow.step(&run.cursor.step) else {
        let detail = "the pinned version has no such step".to_owned();
        return Todo::State(Event::Broke { code: "flows.engine".into(), detail });
    };
    let late = at_ms - run.cursor.began_at_ms > step.deadline_ms
        || at_ms - run.created_at_ms - run.waited_ms > workflow.limits.deadline_ms;
    if late {
        return Todo::State(Event::Overdue);
    }
    if run.cancelling && run.cursor.phase == Phase::Ready {
        return Todo::State(Event::Cancelled);
    }
    let action = match (&step.kind, &run.cursor.phase) {
        (StepKind::Transform(fields), _) => Action::Transform(fields),
        (StepKind::Branch(ways), _) => Action::Branch(ways),
        (StepKind::Model(model), _) => Action::AskModel(model),
        (StepKind::Approval(approval), _) => Action::AskPass(approval),
        (StepKind::Tool(tool), Phase::Ready) => Action::AskCall(tool),
        (StepKind::Tool(tool), Phase::Intended { ticket, .. }) if ticket.as_ref() == Some(job) && starts == 1 => {
            Action::Send(tool)
        }
        (StepKind::Tool(tool), Phase::Intended { .. }) => Action::Lost(tool),
        (StepKind::Tool(tool), Phase::Unknown { looks, .. }) => Action::Look(tool, *looks),
    };
    Todo::Do { step, action }
}

/// The run after `event`.
pub fn next(run: &Run, workflow: &Workflow, event: Event, moment: &Moment) -> Result<Moved, Misfit> {
    let mut moving = Moving { run: run.clone(), workflow, moment, said: Vec::new() };
    let then = moving.apply(event)?;
    let Moving { mut run, said, .. } = moving;
    match then {
        Then::GoOn | Then::At(_) => run.job = Some(moment.next_job.clone()),
        Then::Rest => run.job = None,
        Then::Stay => {}
    }
    Ok(Moved { run, then, said })
}

struct Moving<'a> {
    run: Run,
    workflow: &'a Workflow,
    moment: &'a Moment,
    said: Vec<(&'static str, Value)>,
}

impl<'a> Moving<'a> {
    fn apply(&mut self, event: Event) -> Result<Then, Misfit> {
        match event {
            Event::Cancelled => return self.cancelled(),
            Event::Replayed { applied } => return self.replayed(applied),
            Event::Closed { approval, step, attempt, outcome } => return self.closed(&approval, &step, attempt, outcome),
            Event::Granted(intent) => {
                self.resume();
                self.need(self.run.state == State::Running && self.run.cursor.phase == Phase::Ready)?;
                let ticket = Some(self.moment.next_job.clone());
                self.run.cursor.phase = Phase::Intended { intent, ticket };
                return Ok(Then::GoOn);
            }
            Event::Passed { approval } => {
                self.resume();
                self.need(self.run.state == State::Running && self.run.cursor.phase == Phase::Ready)?;
                let output = Map::from_iter([("approval".to_owned(), json!(approval))]);
                return self.done(output, "flows.step.finished", json!({"approval": approval}));
            }
            _ => {}
        }
        self.need(self.run.state == State::Running)?;
        let ready = self.run.cursor.phase == Phase::Ready;
        match event {
            Event::Skipped => {
                self.need(ready)?;
                self.pass("skipped", None);
                self.say("flows.step.finished", json!({"result": "skipped"}));
                self.go_on()
            }
            Event::Output { output, cost_micros, said } => {
                self.run.cost_micros = self.run.cost_micros.saturating_add(cost_micros.max(0));
                let kind = match self.step().map(|step| &step.kind) {
                    Some(StepKind::Tool(_)) => "flows.tool.finished",
                    Some(StepKind::Model(_)) => "flows.model.finished",
                    _ => "flows.step.finished",
                };
                let wrote = self.run.intent().is_some_and(|intent| intent.effect != crate::connector::manifest::Effect::Read);
                // A call's output belongs to an intent; what has none belongs to another kind of step.
                self.need(kind == "flows.tool.finished" || ready)?;
                self.need(kind != "flows.tool.finished" || !ready)?;
                if wrote {
                    self.run.written_back_at_ms = Some(self.moment.at_ms);
                }
                self.done(output, kind, said)
            }
            Event::Chosen(target) => {
                self.need(ready)?;
                self.pass("done", None);
                self.say("flows.step.finished", json!({"result": "done", "next": target}));
                self.to(&target)
            }
            Event::Intended(intent) => {
                self.need(ready)?;
                self.run.cursor.phase = Phase::Intended { intent, ticket: None };
                Ok(Then::Stay)
            }
            Event::Waits { approval, expires_at_ms } => {
                self.need(ready)?;
                self.say("flows.step.waiting", json!({"approval": approval, "expires_at_ms": expires_at_ms}));
                self.run.state = State::Waiting { approval, since_ms: self.moment.at_ms, expires_at_ms };
                Ok(Then::Rest)
            }
            Event::Refused(code) => {
                self.need(ready)?;
                self.fault(&code, "policy refused it");
                self.refused(Outcome::Denied, &code)
            }
            Event::Failed { code, detail, retry } => {
                self.fault(&code, &detail);
                match retry {
                    effect::Retry::Never => self.failed(&code),
                    effect::Retry::Later(after_ms) => self.again(&code, after_ms),
                }
            }
            Event::Broke { code, detail } => {
                self.fault(&code, &detail);
                self.run.cursor.engine += 1;
                if self.run.cursor.engine > self.step().map_or(0, |step| step.retry.engine) {
                    return self.die("flows.engine");
                }
                // Nothing was sent: what may have been is reported as unknown, not as broken.
                self.later(&code, "engine", effect::wait_ms(None, self.run.cursor.engine, self.moment.random))
            }
            Event::Unknown { code } => {
                self.fault(&code, "it may have taken effect");
                let intent = self.run.intent().cloned().ok_or(Misfit)?;
                self.say("flows.tool.unknown", json!({"code": code, "effect_key": intent.effect_key}));
                match effect::after_unknown(intent.effect) {
                    AfterUnknown::Repeat => self.again(&code, None),
                    AfterUnknown::Reconcile => {
                        self.run.cursor.phase = Phase::Unknown { intent, looks: 0 };
                        Ok(Then::GoOn)
                    }
                    AfterUnknown::Park => {
                        self.run.cursor.phase = Phase::Unknown { intent, looks: 0 };
                        self.die("flows.effect_unknown")
                    }
                }
            }
            Event::Absent { again_ms } => {
                let Phase::Unknown { intent, looks } = self.run.cursor.phase.clone() else { return Err(Misfit) };
                match again_ms {
                    Some(again_ms) => {
                        self.run.cursor.phase = Phase::Unknown { intent, looks: looks + 1 };
                        self.later("flows.effect_unknown", "look", again_ms)
                    }
                    None => {
                        self.say("flows.tool.reconciled", json!({"found": false, "effect_key": intent.effect_key}));
                        // Known not to be there: the call may be made again, and only by the next job.
                        self.run.cursor.phase = Phase::Intended { intent, ticket: None };
                        self.again("flows.effect_absent", None)
                    }
                }
            }
            Event::LookFailed { code, after_ms } => {
                self.need(matches!(self.run.cursor.phase, Phase::Unknown { .. }))?;
                self.fault(&code, "whether it took effect could not be found out");
                self.run.cursor.external += 1;
                if self.run.cursor.external > self.step().map_or(0, |step| step.retry.external) {
                    return self.die("flows.effect_unknown");
                }
                self.later(&code, "look", effect::wait_ms(after_ms, self.run.cursor.external, self.moment.random))
            }
            Event::NeedsHuman(code) => {
                self.need(ready)?;
                self.fault(&code, "only people can go on");
                self.pass("failed", None);
                self.say("flows.model.finished", json!({"result": "refused", "code": code}));
                self.to(NEEDS_HUMAN)
            }
            Event::Poisoned => {
                self.fault("flows.poison", "the step was started too often without ever ending");
                self.die("flows.poison")
            }
            Event::Overdue => {
                if ready {
                    self.fault("flows.deadline", "it took longer than the workflow allows");
                    return self.failed("flows.deadline");
                }
                // Something is in flight or may be there: that must not be forgotten for a deadline.
                self.fault("flows.effect_unknown", "its time ran out while a call was in flight");
                let harmless = self.run.intent().is_some_and(|i| effect::after_unknown(i.effect) == AfterUnknown::Repeat);
                if harmless { self.failed("flows.deadline") } else { self.die("flows.effect_unknown") }
            }
            Event::Cancelled
            | Event::Replayed { .. }
            | Event::Closed { .. }
            | Event::Granted(_)
            | Event::Passed { .. } => Err(Misfit),
        }
    }

    fn need(&self, holds: bool) -> Result<(), Misfit> {
        if holds { Ok(()) } else { Err(Misfit) }
    }

    fn step(&self) -> Option<&'a Step> {
        self.workflow.step(&self.run.cursor.step).map(|(_, step)| step)
    }

    fn say(&mut self, kind: &'static str, mut outcome: Value) {
        if let Value::Object(members) = &mut outcome {
            members.entry("step").or_insert_with(|| Value::from(self.run.cursor.step.as_str()));
            members.entry("attempt").or_insert_with(|| Value::from(self.run.cursor.attempt));
        }
        self.said.push((kind, outcome));
    }

    fn fault(&mut self, code: &str, detail: &str) {
        self.run.error = Some(Failure {
            code: code.to_owned(),
            detail: detail.to_owned(),
            step: self.run.cursor.step.clone(),
            at_ms: self.moment.at_ms,
        });
    }

    /// Notes the step as passed.
    fn pass(&mut self, result: &str, output: Option<String>) {
        let cursor = &self.run.cursor;
        self.run.passed.push(Passed {
            step: cursor.step.clone(),
            result: result.to_owned(),
            attempts: 1 + cursor.external + cursor.engine,
            at_ms: self.moment.at_ms,
            took_ms: (self.moment.at_ms - cursor.began_at_ms).max(0),
            output,
        });
    }

    fn done(&mut self, output: Map<String, Value>, kind: &'static str, mut said: Value) -> Result<Then, Misfit> {
        let output = Value::Object(output);
        let digest = digest_of(&output);
        let bytes = serde_json::to_vec(&output).map_or(usize::MAX, |bytes| bytes.len());
        if self.run.context.bytes.saturating_add(bytes) > super::record::CONTEXT_BYTES_MAX {
            self.fault("flows.output_too_large", "the run would hold too much");
            return self.failed("flows.output_too_large");
        }
        self.run.context.bytes += bytes;
        self.run.context.steps.insert(self.run.cursor.step.clone(), output);
        self.run.error = None;
        if let Value::Object(members) = &mut said {
            members.insert("result".into(), "done".into());
            members.insert("output".into(), digest.as_str().into());
        }
        self.pass("done", Some(digest));
        self.say(kind, said);
        if self.workflow.limits.cost_micros.is_some_and(|limit| self.run.cost_micros > limit) {
            self.fault("flows.cost_exceeded", "the run cost more than the workflow allows");
            // The step itself is done: what is kept is its successor, so that a replay goes on there.
            let then = self.go_on()?;
            return if matches!(self.run.state, State::Finished { .. }) { Ok(then) } else { self.die("flows.cost_exceeded") };
        }
        self.go_on()
    }

    /// To the ordinary successor.
    fn go_on(&mut self) -> Result<Then, Misfit> {
        let at = self.workflow.step(&self.run.cursor.step).map(|(at, _)| at).ok_or(Misfit)?;
        let successor = self.workflow.successor(at).to_owned();
        self.to(&successor)
    }

    fn to(&mut self, target: &str) -> Result<Then, Misfit> {
        if self.run.cancelling {
            return Ok(self.finish(Outcome::Cancelled));
        }
        match target {
            END => Ok(self.finish(Outcome::Completed)),
            NEEDS_HUMAN => Ok(self.finish(Outcome::NeedsHuman)),
            DEAD => self.die("flows.step_failed"),
            step => {
                self.run.cursor = Cursor {
                    step: step.to_owned(),
                    phase: Phase::Ready,
                    attempt: 1,
                    external: 0,
                    engine: 0,
                    began_at_ms: self.moment.at_ms,
                };
                Ok(Then::GoOn)
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) -> Then {
        let run = &mut self.run;
        run.state = State::Finished { outcome };
        run.ended_at_ms = Some(self.moment.at_ms);
        run.context = super::record::Context::default();
        run.cursor.phase = Phase::Ready;
        let said = json!({
            "outcome": outcome.as_str(), "waited_ms": run.waited_ms, "cost_micros": run.cost_micros,
            "took_ms": self.moment.at_ms - run.created_at_ms, "written_back_at_ms": run.written_back_at_ms,
            "steps": run.passed.len(), "code": run.error.as_ref().map(|error| error.code.clone()),
        });
        self.said.push(("flows.run.finished", said));
        Then::Rest
    }

    fn die(&mut self, code: &str) -> Result<Then, Misfit> {
        let run = &mut self.run;
        run.state = State::Dead { code: code.to_owned() };
        run.ended_at_ms = Some(self.moment.at_ms);
        if let Phase::Intended { ticket, .. } = &mut run.cursor.phase {
            // Whoever takes it out again does not know whether it was sent.
            *ticket = None;
        }
        let error = run.error.as_ref();
        let said = json!({
            "code": code, "cause": error.map(|error| &error.code), "external": run.cursor.external,
            "engine": run.cursor.engine, "digest": run.digest, "event": run.source.digest,
        });
        self.say("flows.run.dead", said);
        Ok(Then::Rest)
    }

    /// The step failed for good: where to is the workflow's to say.
    fn failed(&mut self, code: &str) -> Result<Then, Misfit> {
        if self.run.cancelling {
            return Ok(self.finish(Outcome::Cancelled));
        }
        let target = self.step().map_or(DEAD, |step| step.on_error.as_str());
        if target == DEAD {
            // A call that certainly had no effect is asked for anew by a replay.
            self.run.cursor.phase = Phase::Ready;
            return self.die(code);
        }
        let output = json!({"error": {"code": code}});
        self.run.context.steps.insert(self.run.cursor.step.clone(), output);
        self.pass("failed", None);
        self.say("flows.step.finished", json!({"result": "failed", "code": code, "next": target}));
        self.to(target)
    }

    /// It failed and certainly had no effect, or may be repeated: again, as long as the budget lasts.
    fn again(&mut self, code: &str, after_ms: Option<i64>) -> Result<Then, Misfit> {
        if self.run.cancelling {
            return Ok(self.finish(Outcome::Cancelled));
        }
        self.run.cursor.external += 1;
        if self.run.cursor.external > self.step().map_or(0, |step| step.retry.external) {
            return self.failed(code);
        }
        match &mut self.run.cursor.phase {
            // The intent stands: the same effect, by the next job.
            Phase::Intended { ticket, .. } => *ticket = Some(self.moment.next_job.clone()),
            Phase::Ready => self.run.cursor.attempt += 1,
            Phase::Unknown { .. } => return Err(Misfit),
        }
        self.later(code, "external", effect::wait_ms(after_ms, self.run.cursor.external, self.moment.random))
    }

    fn later(&mut self, code: &str, fault: &str, wait_ms: i64) -> Result<Then, Misfit> {
        let at_ms = self.moment.at_ms.saturating_add(wait_ms);
        if fault == "engine"
            && let Phase::Intended { ticket, .. } = &mut self.run.cursor.phase
        {
            *ticket = Some(self.moment.next_job.clone());
        }
        self.say("flows.step.retried", json!({"code": code, "fault": fault, "due_at_ms": at_ms}));
        Ok(Then::At(at_ms))
    }

    /// Policy or people said no, or nobody said anything.
    fn refused(&mut self, outcome: Outcome, code: &str) -> Result<Then, Misfit> {
        let target = self.step().and_then(|step| match outcome {
            Outcome::Expired => step.on_expired.as_deref(),
            _ => step.on_denied.as_deref(),
        });
        let result = outcome.as_str();
        self.pass(result, None);
        self.say("flows.step.finished", json!({"result": result, "code": code, "next": target}));
        match target {
            Some(target) if !self.run.cancelling => {
                let output = json!({"error": {"code": code}});
                self.run.context.steps.insert(self.run.cursor.step.clone(), output);
                self.to(target)
            }
            Some(_) => Ok(self.finish(Outcome::Cancelled)),
            None => Ok(self.finish(outcome)),
        }
    }

    /// Ends a wait: what people took counts against no deadline.
    fn resume(&mut self) {
        if let State::Waiting { since_ms, .. } = self.run.state {
            let waited_ms = (self.moment.at_ms - since_ms).max(0);
            self.run.waited_ms += waited_ms;
            self.run.cursor.began_at_ms += waited_ms;
            self.run.state = State::Running;
            self.say("flows.step.resumed", json!({"waited_ms": waited_ms}));
        }
    }

    fn closed(&mut self, approval: &Id, step: &str, attempt: u32, outcome: Outcome) -> Result<Then, Misfit> {
        self.need(self.run.cursor.step == step && self.run.cursor.attempt == attempt)?;
        self.need(self.run.cursor.phase == Phase::Ready)?;
        match &self.run.state {
            State::Waiting { approval: own, .. } => self.need(own == approval)?,
            // It was decided before the wait was recorded.
            State::Running => {}
            State::Finished { .. } | State::Dead { .. } => return Err(Misfit),
        }
        self.resume();
        let code = match outcome {
            Outcome::Expired => "approval.expired",
            Outcome::Void => "approval.void",
            _ => "approval.denied",
        };
        self.fault(code, "the approval was closed without being used");
        self.refused(outcome, code)
    }

    fn cancelled(&mut self) -> Result<Then, Misfit> {
        match (&self.run.state, &self.run.cursor.phase) {
            (State::Finished { .. }, _) => Err(Misfit),
            (State::Running, Phase::Intended { .. } | Phase::Unknown { .. }) => {
                // First it has to be known what became of the call.
                self.need(!self.run.cancelling)?;
                self.run.cancelling = true;
                self.say("flows.run.cancelling", json!({}));
                Ok(Then::Stay)
            }
            (State::Running | State::Waiting { .. } | State::Dead { .. }, _) => {
                self.resume();
                self.pass("cancelled", None);
                Ok(self.finish(Outcome::Cancelled))
            }
        }
    }

    fn replayed(&mut self, applied: Option<bool>) -> Result<Then, Misfit> {
        let State::Dead { code } = self.run.state.clone() else { return Err(Misfit) };
        let dead_ms = self.run.ended_at_ms.map_or(0, |ended_at_ms| (self.moment.at_ms - ended_at_ms).max(0));
        let run = &mut self.run;
        run.state = State::Running;
        run.ended_at_ms = None;
        run.replays += 1;
        run.waited_ms += dead_ms;
        run.cursor.began_at_ms = self.moment.at_ms;
        (run.cursor.external, run.cursor.engine) = (0, 0);
        let intent = run.intent().cloned();
        self.say("flows.run.replayed", json!({"code": code, "replays": self.run.replays, "applied": applied}));
        match (intent, applied) {
            (Some(intent), None) => match effect::after_unknown(intent.effect) {
                AfterUnknown::Repeat => {
                    self.run.cursor.phase = Phase::Intended { intent, ticket: Some(self.moment.next_job.clone()) };
                    Ok(Then::GoOn)
                }
                AfterUnknown::Reconcile => {
                    self.run.cursor.phase = Phase::Unknown { intent, looks: 0 };
                    Ok(Then::GoOn)
                }
                // Only the person who replays can say what became of it.
                AfterUnknown::Park => Err(Misfit),
            },
            (Some(intent), Some(true)) => {
                self.run.written_back_at_ms = Some(self.moment.at_ms);
                self.done(Map::new(), "flows.tool.finished", json!({"effect_key": intent.effect_key, "by_hand": true}))
            }
            (Some(_), Some(false)) | (None, None) => {
                self.run.cursor.phase = Phase::Ready;
                self.run.cursor.attempt += 1;
                Ok(Then::GoOn)
            }
            (None, Some(_)) => Err(Misfit),
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
