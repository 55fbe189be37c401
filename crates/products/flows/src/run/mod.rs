//! Runs: one event on its way through one version of a workflow.
//!
//! A run is a record and, while it lives, one job. Whoever holds the job's lease takes the run from step to step; each
//! step ends in one commit that moves the record, states the fact, ends the job and begins the next one. So a run can be
//! picked up by anybody at any commit, and nobody can move it under an old lease.
//!
//! | module | what it is |
//! |---|---|
//! | [`machine`] | what follows from what: the transitions, pure |
//! | [`engine`] | the job: reads, does, commits |
//! | [`call`] | one governed call of a connector, and what may be believed about it |
//! | [`breaker`] | which connectors nobody calls for a while, because they fail |
//! | [`gate`] | the acts `flows.tool.call`, `flows.tool.reconcile`, `flows.tool.close`, `flows.approval.pass` |
//! | [`strand`] | runs within runs: branches that go at once, and workflows within workflows |
//! | [`signal`] | the act `flows.run.signal`, and waits for it |
//! | [`verbs`] | the acts `flows.run.start`, `.cancel`, `.replay` |
//! | [`routes`], [`letters`] | looking at runs, and at those that could not go on |
//!
//! What a run knows of the world (the event, the outputs of its steps) is kept only while it is needed: the commit that
//! finishes it leaves digests. A dead run keeps its content, because it may be replayed.

pub mod breaker;
pub mod call;
pub mod engine;
pub mod gate;
pub mod letters;
pub mod machine;
pub mod routes;
pub mod signal;
pub mod strand;
pub mod verbs;

use contracts::models::{Brake, Cost};
use kernel::permit::JobKind;
use kernel::{Id, hex, json, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use store::Document;
use store::key::Key;

/// Most bytes of content, event and outputs together, that a run holds.
pub const CONTENT_BYTES_MAX: usize = 256 * 1024;

/// Takes a run on. One per live run.
pub static STEP: JobKind = JobKind {
    name: "flows.step",
    writes: &["flows.run", "flows.signal"],
    facts: &[
        "flows.run.created",
        "flows.step.finished",
        "flows.step.waiting",
        "flows.step.retried",
        "flows.step.dropped",
        "flows.tool.finished",
        "flows.tool.rehearsed",
        "flows.run.finished",
        "flows.run.dead",
    ],
    lease_ms: 30_000,
    starts_max: 8,
};

/// Tells a run that a strand of it has ended. The commit that ends the strand enqueues it, so that none is forgotten.
pub static JOIN: JobKind = JobKind {
    name: "flows.join",
    writes: &["flows.run", "flows.signal"],
    facts: &["flows.branch.ended", "flows.step.finished", "flows.run.finished", "flows.run.dead"],
    lease_ms: 30_000,
    starts_max: 8,
};

/// Most starts of a run's jobs that never reported anything, over the whole run: each is a worker that died or slept.
pub const CRASHES_MAX: u32 = 16;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its job is waiting or working.
    Running,
    /// It waits: for people, for its strands, or for a time or a signal. Only then does it have a job, its alarm.
    Waiting,
    /// It has ended; see the outcome.
    Finished,
    /// It could not go on and waits for an operator.
    Dead,
}

impl Status {
    /// The spelling in indexes and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Waiting => "waiting",
            Status::Finished => "finished",
            Status::Dead => "dead",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It reached its end.
    Done,
    /// Policy or a person said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// An approval became void.
    Void,
    /// It was left to people.
    NeedsHuman,
    /// Somebody cancelled it.
    Cancelled,
}

impl Outcome {
    /// The spelling in facts and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Denied => "denied",
            Outcome::Expired => "expired",
            Outcome::Void => "void",
            Outcome::NeedsHuman => "needs_human",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// A call whose intent is durable and whose outcome is not known yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The installed connector.
    pub connector: String,
    /// The action.
    pub action: String,
    /// Its parameters, exactly as decided on.
    pub params: Value,
    /// What has to be as it was seen right before it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub unchanged: Map<String, Value>,
    /// Stable over retries of the same call.
    pub effect_key: String,
    /// The fact of the intent.
    pub intended: Id,
    /// When it was intended, milliseconds UTC.
    pub intended_at_ms: i64,
    /// Whether it has to be found out what became of it before anything else.
    pub unknown: bool,
    /// How often that has been tried.
    pub reconciled: u32,
}

/// A write that a dry run did not make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// The step.
    pub step: String,
    /// The installed connector.
    pub connector: String,
    /// The action.
    pub action: String,
    /// What a repetition of it would do.
    pub effect: crate::connector::manifest::Effect,
    /// The key it would have gone under.
    pub effect_key: String,
    /// HTTP method.
    pub method: String,
    /// SHA-256 of address and body, in hexadecimal.
    pub digest: String,
    /// Size of what is kept of the request.
    pub bytes: usize,
    /// The address; absent if the action keeps parameters from view, or too much was kept already.
    pub url: Option<String>,
    /// The body, likewise.
    pub body: Option<Value>,
    /// What policy says about it now: effect, reasons, and how many people of which tier it would ask.
    pub policy: Value,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

/// What a `wait` step waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Until when at the latest, milliseconds UTC.
    pub until_ms: i64,
    /// The signal; without one it waits for the time alone.
    pub signal: Option<String>,
}

/// What makes a run a part of another one: a branch of it, or a workflow within it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strand {
    /// The run that waits for it.
    pub parent: Id,
    /// The outermost run: what people started, signal and pay for.
    pub root: Id,
    /// The parent's step.
    pub step: String,
    /// Name of the branch, or of the workflow.
    pub branch: String,
    /// How many runs stand around it.
    pub depth: u32,
    /// From when the deadline of the run counts: the outermost run's beginning, moved by what it has waited.
    pub base_ms: i64,
    /// What the parent had spent when it began; what it has spent itself is the rest.
    pub spent_micros: i64,
    /// The same of what nobody measured.
    #[serde(default)]
    pub spent_unmeasured_micros: i64,
}

/// Why nobody works on a run that could go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The connector whose breaker is open.
    pub connector: String,
    /// Until when it is, at the earliest, milliseconds UTC.
    pub until_ms: i64,
}

/// A change that a write of a run made to a thing outside whose changes are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrote {
    /// Digest of connector and thing.
    pub object: String,
    /// The number of the change.
    pub count: i64,
    /// The number of the change that the run answers, if it is one of this thing.
    pub base: Option<i64>,
    /// Whether that change was itself found beneath a write of ours.
    pub overlaid: bool,
}

impl Pending {
    /// What a fact says of it when it is dropped without ever having been sent.
    pub(crate) fn not_made(&self, step: &str, code: Option<&str>) -> Value {
        serde_json::json!({
            "step": step, "connector": self.connector, "action": self.action, "effect_key": self.effect_key,
            "outcome": "refused", "code": code, "transcript": null, "output": null, "fields": null,
        })
    }

    /// What a fact says of it when nobody has come back from it.
    pub(crate) fn lost(&self, step: &str) -> Value {
        serde_json::json!({
            "step": step, "connector": self.connector, "action": self.action, "effect_key": self.effect_key,
            "outcome": "unknown", "code": "flows.call_lost",
        })
    }

    /// What it goes through and what names it: connector and effect key.
    pub fn call(&self) -> (&str, &str) {
        (&self.connector, &self.effect_key)
    }
}

/// Attempts at the current step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempts {
    /// Calls of any kind so far; part of idempotency keys.
    pub calls: u32,
    /// Failures of systems outside.
    pub external: u32,
    /// Failures of this system.
    pub engine: u32,
}

/// Longest name of what a run is about, in characters.
const TICKET_CHARS_MAX: usize = 60;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDoc {
    /// `run_…`
    pub id: Id,
    /// Name of the workflow.
    pub workflow: String,
    /// The pinned version: digest of its canonical form, in hexadecimal; also the blob that holds it.
    pub workflow_digest: String,
    /// Pinned connectors: installed name to digest of the manifest.
    pub connectors: BTreeMap<String, String>,
    /// Where it stands.
    pub status: Status,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The current step; `end` when it has none.
    pub step: String,
    /// Attempts at it.
    pub attempts: Attempts,
    /// The job that may move it; none while it waits and once it has ended. A job that comes late, because its lease ran
    /// out while somebody else took the run on, finds another one here and lets go.
    #[serde(default)]
    pub job: Option<Id>,
    /// When that job is due, where it begins later: until then nobody works on the run. Milliseconds UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<i64>,
    /// A call in flight.
    pub pending: Option<Pending>,
    /// What it waits for.
    pub approval: Option<Id>,
    /// The event that started it; content.
    pub event: Value,
    /// Outputs of its steps; content.
    pub outputs: Map<String, Value>,
    /// Digests of event and outputs, once the content is gone.
    pub digests: BTreeMap<String, String>,
    /// Who started it.
    pub started_by: Id,
    /// Joins its facts with logs.
    pub trace: String,
    /// Digest of the event's own identity, if it has one: what makes a second run for it a duplicate.
    pub source: Option<String>,
    /// Its last fact: the cause of the next.
    pub last_fact: Id,
    /// When the event happened, milliseconds UTC.
    pub event_at_ms: i64,
    /// When the run was created.
    pub created_at_ms: i64,
    /// When the current step began, waiting for people not counted.
    pub step_at_ms: i64,
    /// Since when it waits for people.
    pub waiting_since_ms: Option<i64>,
    /// How long it waited in all: for people, for times and for signals.
    pub waited_ms: i64,
    /// When its last write took effect.
    pub written_back_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// What its calls have cost as far as that was measured, in millionths; calls that brought no answer among them.
    pub cost_micros: i64,
    /// What is charged for its calls although nobody measured it, in millionths.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unmeasured_micros: i64,
    /// What it may cost, and what the runs that it is a part of may cost, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brakes: Vec<Brake>,
    /// Why it does not go on before its job is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What its writes changed. Kept when it has ended: it is how our own writes are told from those of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrote: Vec<Wrote>,
    /// The last thing that went wrong.
    pub error: Option<RunError>,
    /// How often it was taken out of the dead letters.
    pub replays: u32,
    /// What it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strand: Option<Strand>,
    /// The runs it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strands: Vec<Id>,
    /// Whether its strands are to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub halting: bool,
    /// What it waits for besides people and strands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
    /// Starts of its jobs that never reported anything.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub crashes: u32,
    /// Whether it sends nothing and only records what it would send.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What a dry run would have sent. Kept when it has ended: it is what a dry run is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rehearsed: Vec<Rehearsed>,
    /// Pinned versions of the workflows that its steps run: name to digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workflows: BTreeMap<String, String>,
    /// Name of the project that its workflow belonged to when it started: who pays, and whose roles reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn is_none(micros: &i64) -> bool {
    *micros == 0
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// Stable code.
    pub code: String,
    /// In which step.
    pub step: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

impl Document for RunDoc {
    const KIND: &'static str = "flows.run";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        let created = |key: Key| key.integer(self.created_at_ms).bytes();
        let state = self.outcome.map_or(self.state().as_str(), Outcome::as_str);
        let mut indexes = vec![("status", created(Key::new().text(state)))];
        if self.strand.is_none() {
            // A strand is found by its state, or through its run; lists of runs show what people started.
            indexes.push(("time", created(Key::new())));
            if let Some(project) = &self.project {
                indexes.push(("project", created(Key::new().text(project))));
            }
        }
        indexes.extend(
            self.wrote.iter().map(|wrote| ("wrote", wrote_key(&wrote.object).integer(wrote.count).bytes())),
        );
        indexes
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.source.iter().map(|source| ("source", source_key(&self.workflow, source))).collect()
    }
}

/// Where the runs that changed a thing stand in their index.
pub(crate) fn wrote_key(object: &str) -> Key {
    Key::new().text(object)
}

/// The unique key of an event within a workflow.
pub fn source_key(workflow: &str, source: &str) -> Vec<u8> {
    Key::new().text(workflow).text(source).bytes()
}

impl RunDoc {
    /// The outermost run that this one is a part of: itself, mostly.
    pub fn root(&self) -> &Id {
        self.strand.as_ref().map_or(&self.id, |strand| &strand.root)
    }

    /// Where it stands, as people see it: one that is held waits, although it has a job.
    pub fn state(&self) -> Status {
        if self.status == Status::Running && self.held.is_some() { Status::Waiting } else { self.status }
    }

    /// Adds what calls have cost.
    pub fn spend(&mut self, cost: Cost) {
        self.cost_micros = self.cost_micros.saturating_add(cost.cost_micros);
        self.unmeasured_micros = self.unmeasured_micros.saturating_add(cost.unmeasured_micros);
    }

    /// What it has cost itself: a strand begins with what its parent had spent.
    pub fn own_cost(&self) -> Cost {
        let (cost, unmeasured) = self
            .strand
            .as_ref()
            .map_or((0, 0), |strand| (strand.spent_micros, strand.spent_unmeasured_micros));
        Cost {
            cost_micros: self.cost_micros.saturating_sub(cost),
            unmeasured_micros: self.unmeasured_micros.saturating_sub(unmeasured),
        }
    }

    /// What a fact of it says, with what it has cost once it has ended: the same as its bill.
    pub(crate) fn told(&self, mut outcome: Value) -> Value {
        if let (Status::Finished | Status::Dead, Some(members)) = (self.status, outcome.as_object_mut()) {
            members.insert("cost_micros".into(), self.cost_micros.into());
            members.insert("unmeasured_micros".into(), self.unmeasured_micros.into());
        }
        outcome
    }

    /// Where it stands: in the project of its workflow, if that has one.
    pub(crate) async fn target(&self, view: &store::View) -> Result<act::Target, act::Fault> {
        let place = access::project::place_of(view, self.project.as_deref()).await?;
        Ok(act::Target::of(RunDoc::KIND, &self.id).at(place))
    }

    /// What templates see.
    pub fn names(&self) -> Map<String, Value> {
        let run = serde_json::json!({"id": self.id, "workflow": self.workflow, "created_at_ms": self.created_at_ms});
        Map::from_iter([
            ("event".to_owned(), self.event.clone()),
            ("steps".to_owned(), Value::Object(self.outputs.clone())),
            ("run".to_owned(), run),
        ])
    }

    /// What it is about, for people: the number that the event gives its subject, or its id.
    pub fn ticket(&self) -> Option<String> {
        ["number", "key", "id", "sys_id"].iter().find_map(|name| match self.event.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.chars().take(TICKET_CHARS_MAX).collect()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// Size of its content, in bytes.
    pub fn content_bytes(&self) -> usize {
        // Plain data always serialises.
        let bytes = |value: &Value| serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len());
        self.outputs.values().map(bytes).fold(bytes(&self.event), usize::saturating_add)
    }

    /// Replaces content by digests.
    pub fn scrub(&mut self) {
        let digest = |value: &Value| {
            hex::encode(&sha256(&json::canonical(value).unwrap_or_else(|_| value.to_string().into())))
        };
        if !self.event.is_null() {
            self.digests.insert("event".into(), digest(&self.event));
        }
        for (step, output) in &self.outputs {
            self.digests.insert(format!("steps.{step}"), digest(output));
        }
        self.event = Value::Null;
        self.outputs = Map::new();
    }
}

/// The body of the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepJob {
    /// The run.
    pub run: Id,
    /// Whether the commit that began this job left a call that is known not to have been made, or that may be made
    /// again: its first start sends it. Whoever starts later cannot know what the first one did.
    #[serde(default)]
    pub send: bool,
}
