//! The transitions of a run against a model that knows none of their code: random workflows, and completions that come
//! twice, late and out of order.
//!
//! The driver stands for the store and the gates: it hands out a job per commit, keeps every job it ever handed out, and
//! lets any of them try to move the run. The model is a handful of numbers. What must hold, whatever comes: a step is
//! done at most once, a run that has ended never changes, budgets hold, and every state is one that the model reached too.

use flows::connector::{change, manifest};
use flows::run::machine::{self, Then, Wait};
use flows::run::{Alarm, Outcome, Pending, RunDoc, Status};
use flows::workflow::Workflow;
use kernel::Id;
use kernel::changeset::INDEXES_MAX;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use store::Document as _;

/// A step as numbers: where it leads, and its budgets.
#[derive(Debug, Clone, Copy)]
struct Spec {
    next: u8,
    on_error: u8,
    on_denied: u8,
    external: u32,
    engine: u32,
}

/// Where a way leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Step(usize),
    End,
    Human,
    Dead,
}

/// What the model knows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    AsksPeople,
    Sleeps,
    Forked,
    Ended(Outcome),
    Dead,
}

impl Spec {
    fn way(choice: u8, at: usize, steps: usize) -> Option<To> {
        let ahead = steps - at - 1;
        match usize::from(choice) {
            0 => None,
            1 => Some(To::End),
            2 => Some(To::Human),
            other if ahead > 0 => Some(To::Step(at + 1 + other % ahead)),
            _ => Some(To::End),
        }
    }
}

fn name(to: To) -> String {
    match to {
        To::Step(at) => format!("s{at}"),
        To::End => "end".into(),
        To::Human => "needs_human".into(),
        To::Dead => "dead".into(),
    }
}

fn workflow(specs: &[Spec]) -> Workflow {
    let steps: Vec<Value> = specs
        .iter()
        .enumerate()
        .map(|(at, spec)| {
            let mut step = json!({"id": format!("s{at}"), "transform": {"v": 1}, "deadline_ms": 86_400_000,
                                  "retry": {"external": spec.external, "engine": spec.engine}});
            for (member, choice) in
                [("next", spec.next), ("on_error", spec.on_error), ("on_denied", spec.on_denied)]
            {
                if let Some(to) = Spec::way(choice, at, specs.len()) {
                    step[member] = name(to).into();
                }
            }
            step
        })
        .collect();
    serde_json::from_value(json!({"name": "x", "steps": steps})).unwrap()
}

fn fresh() -> RunDoc {
    serde_json::from_value(json!({
        "id": "run_a", "workflow": "x", "workflow_digest": "d", "connectors": {}, "status": "running", "outcome": null,
        "step": "s0", "attempts": {"calls": 0, "external": 0, "engine": 0}, "job": "job_0", "pending": null,
        "approval": null, "event": {"a": 1}, "outputs": {}, "digests": {}, "started_by": "prn_a", "trace": "t",
        "source": null, "last_fact": "fct_a", "event_at_ms": 1, "created_at_ms": 1, "step_at_ms": 1,
        "waiting_since_ms": null, "waited_ms": 0, "written_back_at_ms": null, "finished_at_ms": null, "cost_micros": 0,
        "error": null, "replays": 0,
    }))
    .unwrap()
}

fn pending(n: usize) -> Pending {
    Pending {
        unchanged: Default::default(),
        connector: "c".into(),
        action: "a".into(),
        params: Value::Object(Map::new()),
        effect_key: format!("{n:064}"),
        intended: Id::parse("fct_i").unwrap(),
        intended_at_ms: 1,
        unknown: false,
        reconciled: 0,
    }
}

/// The run, everything around it, and the model beside it.
struct World {
    specs: Vec<Spec>,
    workflow: Workflow,
    run: RunDoc,
    jobs: usize,
    approvals: usize,
    now_ms: i64,
    state: State,
    step: usize,
    job: Option<usize>,
    done: Vec<u32>,
    external: u32,
    engine: u32,
}

impl World {
    fn new(specs: &[Spec]) -> World {
        World {
            specs: specs.to_vec(),
            workflow: workflow(specs),
            run: fresh(),
            jobs: 1,
            approvals: 0,
            now_ms: 1,
            state: State::Works,
            step: 0,
            job: Some(0),
            done: vec![0; specs.len()],
            external: 0,
            engine: 0,
        }
    }

    /// What the commit of a transition does: the next job, if there is one.
    fn committed(&mut self, then: Then) {
        match then {
            Then::Rest => self.run.job = None,
            Then::GoOn | Then::At(_) => {
                if let Then::At(at_ms) = then {
                    assert!(at_ms > self.now_ms, "a wait into the past");
                    self.now_ms = at_ms;
                }
                self.run.job = Some(job(self.jobs));
                self.job = Some(self.jobs);
                self.jobs += 1;
            }
        }
    }

    /// The model goes where a way leads.
    fn goes(&mut self, to: To) {
        (self.external, self.engine) = (0, 0);
        match to {
            To::Step(at) => {
                assert!(at > self.step, "a way back");
                (self.step, self.state) = (at, State::Works);
            }
            To::End => self.ends(State::Ended(Outcome::Done)),
            To::Human => self.ends(State::Ended(Outcome::NeedsHuman)),
            To::Dead => self.ends(State::Dead),
        }
    }

    fn ends(&mut self, state: State) {
        (self.state, self.job) = (state, None);
    }

    fn next(&self) -> To {
        let last = self.step + 1 == self.specs.len();
        Spec::way(self.specs[self.step].next, self.step, self.specs.len()).unwrap_or(if last {
            To::End
        } else {
            To::Step(self.step + 1)
        })
    }

    fn on_error(&self) -> To {
        Spec::way(self.specs[self.step].on_error, self.step, self.specs.len()).unwrap_or(To::Dead)
    }

    fn refused(&mut self, outcome: Outcome) {
        match Spec::way(self.specs[self.step].on_denied, self.step, self.specs.len()) {
            Some(to) if outcome == Outcome::Denied => self.goes(to),
            _ => self.ends(State::Ended(outcome)),
        }
    }

    /// A job tries to move the run: the current one, or one that somebody still holds.
    fn job_tries(&mut self, which: u8, what: u8) {
        let tried = usize::from(which) % self.jobs;
        let holds = machine::holds(&self.run, &job(tried));
        let may = self.job == Some(tried) && matches!(self.state, State::Works | State::Sleeps);
        assert_eq!(holds, may, "job {tried} of {}, {:?}", self.jobs, self.state);
        if !holds {
            return;
        }
        let (workflow, now_ms) = (self.workflow.clone(), self.now_ms);
        let (_, step) = workflow.step(&self.run.step).expect("a run that works is at a step");
        let wait = Wait {
            asked_ms: what.is_multiple_of(2).then_some(i64::from(what) * 100),
            random: u64::from(which),
        };
        if self.state == State::Sleeps {
            machine::resume(&mut self.run, now_ms);
            let then = machine::step_done(&mut self.run, &workflow, json!({"n": 1}), None, now_ms);
            self.done[self.step] += 1;
            let to = self.next();
            self.goes(to);
            return self.committed(then);
        }
        let then = match what % 9 {
            0 | 1 => {
                self.run.pending = None;
                let then = machine::step_done(&mut self.run, &workflow, json!({"n": 1}), None, now_ms);
                self.done[self.step] += 1;
                let to = self.next();
                self.goes(to);
                then
            }
            2 => {
                self.external += 1;
                let over = self.external > self.specs[self.step].external;
                let then =
                    machine::external_failed(&mut self.run, step, "flows.upstream_failed", wait, now_ms);
                if over {
                    let to = self.on_error();
                    self.goes(to);
                }
                then
            }
            3 => {
                self.engine += 1;
                let over = self.engine > self.specs[self.step].engine;
                let then = machine::engine_failed(&mut self.run, step, "store.failed", wait, now_ms);
                if over {
                    self.ends(State::Dead);
                }
                then
            }
            4 => {
                let then = machine::step_failed(&mut self.run, step, "flows.rejected", now_ms);
                let to = self.on_error();
                self.goes(to);
                then
            }
            5 => {
                self.run.pending = Some(pending(self.jobs));
                let then = machine::call_unknown(&mut self.run, "flows.call_lost", now_ms);
                assert!(self.run.pending.as_ref().unwrap().unknown);
                then
            }
            6 => {
                self.approvals += 1;
                self.state = State::AsksPeople;
                machine::wait(&mut self.run, approval(self.approvals), now_ms)
            }
            7 => {
                self.state = State::Sleeps;
                machine::sleep(&mut self.run, Alarm { until_ms: now_ms + 1_000, signal: None }, now_ms)
            }
            _ => {
                self.state = State::Forked;
                machine::fork(&mut self.run, vec![Id::parse("run_b").unwrap()])
            }
        };
        self.committed(then);
    }

    /// People decide on an approval: the one that is waited for, or an older one.
    fn people(&mut self, which: u8, grant: bool) {
        let decided = approval(usize::from(which) % (self.approvals + 1));
        let waits = self.run.status == Status::Waiting && self.run.approval.as_ref() == Some(&decided);
        let current = usize::from(which) % (self.approvals + 1) == self.approvals && self.approvals > 0;
        assert_eq!(waits, self.state == State::AsksPeople && current);
        if !waits {
            return;
        }
        self.now_ms += 500;
        let (workflow, before_ms) = (self.workflow.clone(), self.run.waited_ms);
        let (_, step) = workflow.step(&self.run.step).expect("a run that waits is at a step");
        machine::resume(&mut self.run, self.now_ms);
        assert!(self.run.waited_ms > before_ms);
        let then = if grant {
            self.done[self.step] += 1;
            let to = self.next();
            self.goes(to);
            machine::step_done(&mut self.run, &workflow, json!({"approved": true}), None, self.now_ms)
        } else {
            let outcome = if which.is_multiple_of(2) { Outcome::Denied } else { Outcome::Expired };
            self.refused(outcome);
            machine::refused(&mut self.run, step, outcome, self.now_ms)
        };
        self.committed(then);
    }

    /// What must hold after everything.
    fn holds(&self) {
        let (run, state) = (&self.run, self.state);
        let seen = match (run.status, run.outcome) {
            (Status::Running, None) => State::Works,
            (Status::Waiting, None) if run.approval.is_some() => State::AsksPeople,
            (Status::Waiting, None) if run.alarm.is_some() => State::Sleeps,
            (Status::Waiting, None) => State::Forked,
            (Status::Finished, Some(outcome)) => State::Ended(outcome),
            (Status::Dead, None) => State::Dead,
            other => panic!("no such state: {other:?}"),
        };
        assert_eq!(seen, state);
        assert!(self.done.iter().all(|count| *count <= 1), "a step was done twice: {:?}", self.done);
        match state {
            State::Ended(_) => {
                assert!(
                    run.step == "end" && run.pending.is_none() && run.event.is_null() && run.job.is_none()
                );
            }
            State::Works | State::AsksPeople | State::Sleeps | State::Forked | State::Dead => {
                assert_eq!(run.step, format!("s{}", self.step));
                let spec = self.specs[self.step];
                assert!(run.attempts.external <= spec.external + 1 && run.attempts.engine <= spec.engine + 1);
                if state != State::Dead {
                    assert_eq!((run.attempts.external, run.attempts.engine), (self.external, self.engine));
                }
            }
        }
        // Exactly those that work or sleep have a job.
        assert_eq!(run.job.is_some(), matches!(state, State::Works | State::Sleeps), "{state:?}");
        assert_eq!(run.finished_at_ms.is_some(), matches!(state, State::Ended(_) | State::Dead), "{state:?}");
    }
}

fn job(n: usize) -> Id {
    Id::parse(&format!("job_{n}")).unwrap()
}

fn approval(n: usize) -> Id {
    Id::parse(&format!("apr_{n}")).unwrap()
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let spec = (0u8..8, 0u8..8, 0u8..8, 0u32..4, 0u32..4).prop_map(
        |(next, on_error, on_denied, external, engine)| Spec { next, on_error, on_denied, external, engine },
    );
    prop::collection::vec(spec, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_completion_however_late_moves_a_run_where_it_must_not_go(
        specs in specs(),
        moves in prop::collection::vec((any::<u8>(), any::<u8>(), 0u8..10), 1..80),
    ) {
        let mut world = World::new(&specs);
        world.holds();
        for (which, what, who) in moves {
            let before = (world.run.clone(), world.state);
            match who {
                // Mostly the job that has the run, sometimes any that ever had it.
                0..=5 => {
                    let latest = u8::try_from(world.jobs - 1).unwrap_or(u8::MAX);
                    world.job_tries(if who < 4 { latest } else { which }, what);
                }
                6 => world.people(which, true),
                7 => world.people(which, false),
                8 if what.is_multiple_of(16) && !matches!(world.state, State::Ended(_)) => {
                    machine::finish(&mut world.run, Outcome::Cancelled, world.now_ms);
                    world.ends(State::Ended(Outcome::Cancelled));
                }
                _ => {}
            }
            world.holds();
            if let State::Ended(_) = before.1 {
                prop_assert_eq!(&world.run, &before.0, "a run that had ended was moved");
            }
        }
    }
}

/// A run in a project that writes and writes: its record stays one that can be committed, and the latest writes are the
/// ones that it remembers.
#[test]
fn a_run_that_writes_often_remembers_as_much_as_a_record_holds() {
    let manifest = manifest::parse(&crate::house::contract("connectors/servicenow.yaml")).unwrap();
    let mut run = fresh();
    run.project = Some("prj_a".into());
    for count in 1..=100 {
        let written = json!({"sys_id": "a", "sys_mod_count": count.to_string()});
        change::note(&mut run, "servicenow", &manifest, written.as_object().unwrap());
        assert!(run.indexes().len() <= INDEXES_MAX, "{count}");
    }
    assert_eq!((run.wrote.len(), run.wrote.last().unwrap().count), (change::WROTE_MAX, 100));
}
