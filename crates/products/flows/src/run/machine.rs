//! What follows from what: a run's transitions as pure functions.
//!
//! Each takes a run as it was read and makes it what it shall be. None reads a clock. Whether a job may move a run at all
//! is asked first, in one place ([`holds`]): a run that has ended, or whose job is another one by now, is let go of, and
//! nothing here is called. A property test holds all of it against a model that knows none of this code.

use super::{Alarm, Attempts, CONTENT_BYTES_MAX, Outcome, RunDoc, RunError, Status};
use crate::effect;
use crate::workflow::model::{DEAD, END, NEEDS_HUMAN, Step, Workflow};
use serde_json::Value;

/// What the engine does after a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Goes on at once.
    GoOn,
    /// Goes on at this time, milliseconds UTC.
    At(i64),
    /// Nothing: it has ended, or waits for people.
    Rest,
}

/// What decides how long to wait before the next attempt.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// What the other side asked for, in milliseconds.
    pub asked_ms: Option<i64>,
    /// Any number, for jitter.
    pub random: u64,
}

/// Whether this job may move the run: it goes on or waits for its alarm, and no other job has taken it over.
pub fn holds(run: &RunDoc, job: &kernel::Id) -> bool {
    let goes_on = match run.status {
        Status::Running => true,
        Status::Waiting => run.alarm.is_some(),
        Status::Finished | Status::Dead => false,
    };
    goes_on && run.job.as_ref().is_none_or(|owner| owner == job)
}

/// How long before its job is due a run that rests is left alone: an act takes time from its look to its commit.
pub const REST_MARGIN_MS: i64 = 5_000;

/// Whether somebody may be making the run's call at this moment, or may have made it. A call that is not in doubt and waits
/// for a job that is not due yet (behind a breaker, or before the next attempt) has certainly not been made since.
pub fn in_flight(run: &RunDoc, now_ms: i64) -> bool {
    let rests = run.due_ms.is_some_and(|due_ms| now_ms.saturating_add(REST_MARGIN_MS) < due_ms);
    run.status == Status::Running && run.pending.as_ref().is_some_and(|pending| pending.unknown || !rests)
}

/// Ends the current step with `output` and moves to `to`, or to the ordinary successor. A step without an output, one
/// that was passed over, leaves its name undefined.
pub fn step_done(
    run: &mut RunDoc,
    workflow: &Workflow,
    output: Value,
    to: Option<&str>,
    now_ms: i64,
) -> Then {
    if !output.is_null() {
        run.outputs.insert(run.step.clone(), output);
    }
    if run.content_bytes() > CONTENT_BYTES_MAX {
        run.outputs.remove(&run.step);
        run.pending = None;
        return match workflow.step(&run.step) {
            Some((_, step)) => step_failed(run, step, "flows.output_too_large", now_ms),
            None => die(run, "flows.output_too_large", now_ms),
        };
    }
    run.error = None;
    let to = to.unwrap_or_else(|| workflow.successor(&run.step)).to_owned();
    move_to(run, &to, now_ms)
}

/// Moves to a step, or to one of the ends.
pub fn move_to(run: &mut RunDoc, to: &str, now_ms: i64) -> Then {
    run.attempts = Attempts::default();
    run.pending = None;
    run.alarm = None;
    match to {
        END => finish(run, Outcome::Done, now_ms),
        NEEDS_HUMAN => finish(run, Outcome::NeedsHuman, now_ms),
        DEAD => die(run, "flows.step_failed", now_ms),
        step => {
            run.step = step.to_owned();
            run.step_at_ms = now_ms;
            run.status = Status::Running;
            Then::GoOn
        }
    }
}

/// Ends the run.
pub fn finish(run: &mut RunDoc, outcome: Outcome, now_ms: i64) -> Then {
    run.status = Status::Finished;
    run.outcome = Some(outcome);
    run.finished_at_ms = Some(now_ms);
    run.pending = None;
    run.approval = None;
    run.alarm = None;
    run.held = None;
    run.job = None;
    END.clone_into(&mut run.step);
    if run.strand.is_none() {
        // What a strand has found out belongs to the run it is a part of, which takes it over and scrubs both.
        run.scrub();
    }
    Then::Rest
}

/// Puts the run among the dead letters. Content, step and what was in flight are kept for whoever looks at it.
pub fn die(run: &mut RunDoc, code: &str, now_ms: i64) -> Then {
    run.status = Status::Dead;
    run.finished_at_ms = Some(now_ms);
    run.job = None;
    run.alarm = None;
    run.held = None;
    run.error = Some(RunError { code: code.to_owned(), step: run.step.clone(), at_ms: now_ms });
    Then::Rest
}

/// The current step failed for good: its `on_error` says what follows.
pub fn step_failed(run: &mut RunDoc, step: &Step, code: &str, now_ms: i64) -> Then {
    run.error = Some(RunError { code: code.to_owned(), step: step.id.clone(), at_ms: now_ms });
    if step.on_error == DEAD { die(run, code, now_ms) } else { move_to(run, &step.on_error.clone(), now_ms) }
}

/// A system outside failed, and the call has certainly had no effect or may be repeated: again later, or for good. A call
/// that was permitted stays permitted: it is the same effect, and people who agreed to it need not agree twice.
pub fn external_failed(run: &mut RunDoc, step: &Step, code: &str, wait: Wait, now_ms: i64) -> Then {
    run.attempts.external += 1;
    if let Some(pending) = &mut run.pending {
        pending.unknown = false;
        pending.reconciled = 0;
        // Looks at what became of the next attempt are asked for under keys of their own.
        run.attempts.calls += 1;
    }
    let wait_ms = effect::wait_ms(wait.asked_ms, run.attempts.external, wait.random);
    run.error = Some(RunError { code: code.to_owned(), step: step.id.clone(), at_ms: now_ms });
    if run.attempts.external > step.retry.external || late(run, step, now_ms.saturating_add(wait_ms)) {
        run.pending = None;
        return step_failed(run, step, code, now_ms);
    }
    Then::At(now_ms.saturating_add(wait_ms))
}

/// This system failed: again later, or the dead letters. Never `on_error`: the workflow did nothing wrong.
pub fn engine_failed(run: &mut RunDoc, step: &Step, code: &str, wait: Wait, now_ms: i64) -> Then {
    run.attempts.engine += 1;
    run.error = Some(RunError { code: code.to_owned(), step: step.id.clone(), at_ms: now_ms });
    if run.attempts.engine > step.retry.engine {
        return die(run, code, now_ms);
    }
    Then::At(now_ms.saturating_add(effect::wait_ms(wait.asked_ms, run.attempts.engine, wait.random)))
}

/// Nobody knows whether the call had an effect.
pub fn call_unknown(run: &mut RunDoc, code: &str, now_ms: i64) -> Then {
    let step = run.step.clone();
    run.error = Some(RunError { code: code.to_owned(), step, at_ms: now_ms });
    if let Some(pending) = &mut run.pending {
        pending.unknown = true;
    }
    Then::GoOn
}

/// It waits for people.
pub fn wait(run: &mut RunDoc, approval: kernel::Id, now_ms: i64) -> Then {
    run.status = Status::Waiting;
    run.job = None;
    run.approval = Some(approval);
    run.waiting_since_ms = Some(now_ms);
    Then::Rest
}

/// It waits for a time or a signal, and its job is the alarm.
pub fn sleep(run: &mut RunDoc, alarm: Alarm, now_ms: i64) -> Then {
    run.status = Status::Waiting;
    run.waiting_since_ms = Some(now_ms);
    let until_ms = alarm.until_ms;
    run.alarm = Some(alarm);
    Then::At(until_ms)
}

/// It waits for runs that are parts of it. Each of them has a job of its own and says when it ends.
pub fn fork(run: &mut RunDoc, strands: Vec<kernel::Id>) -> Then {
    run.status = Status::Waiting;
    run.job = None;
    run.strands = strands;
    run.halting = false;
    Then::Rest
}

/// What it waited for is there: what that took does not count against any deadline.
pub fn resume(run: &mut RunDoc, now_ms: i64) {
    if let Some(since_ms) = run.waiting_since_ms.take() {
        let waited_ms = (now_ms - since_ms).max(0);
        run.waited_ms += waited_ms;
        run.step_at_ms += waited_ms;
    }
    run.status = Status::Running;
    run.approval = None;
    run.alarm = None;
}

/// Policy or a person said no, or nobody said anything.
pub fn refused(run: &mut RunDoc, step: &Step, outcome: Outcome, now_ms: i64) -> Then {
    let to = match outcome {
        Outcome::Expired => &step.on_expired,
        Outcome::Denied | Outcome::Void => &step.on_denied,
        Outcome::Done | Outcome::NeedsHuman | Outcome::Cancelled => &None,
    };
    match to {
        Some(to) => move_to(run, &to.clone(), now_ms),
        None => finish(run, outcome, now_ms),
    }
}

/// Whether the step has used up its time.
pub fn late(run: &RunDoc, step: &Step, now_ms: i64) -> bool {
    now_ms - run.step_at_ms > step.deadline_ms
}

/// Whether the run has. A strand has no more time than what it is a part of.
pub fn run_late(run: &RunDoc, workflow: &Workflow, now_ms: i64) -> bool {
    let base_ms = run.strand.as_ref().map_or(run.created_at_ms, |strand| strand.base_ms);
    now_ms - base_ms - run.waited_ms > workflow.limits.deadline_ms
}
