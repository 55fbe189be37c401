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
//! | [`gate`] | the acts `flows.tool.call`, `flows.tool.reconcile`, `flows.tool.close`, `flows.approval.pass` |
//! | [`verbs`] | the acts `flows.run.start`, `.cancel`, `.replay` |
//! | [`routes`] | looking at runs |
//!
//! What a run knows of the world (the event, the outputs of its steps) is kept only while it is needed: the commit that
//! finishes it leaves digests. A dead run keeps its content, because it may be replayed.

pub mod call;
pub mod engine;
pub mod gate;
pub mod machine;
pub mod routes;
pub mod verbs;

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
    writes: &["flows.run"],
    facts: &[
        "flows.step.finished",
        "flows.step.waiting",
        "flows.step.retried",
        "flows.step.dropped",
        "flows.tool.finished",
        "flows.run.finished",
        "flows.run.dead",
    ],
    lease_ms: 30_000,
    starts_max: 8,
};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its job is waiting or working.
    Running,
    /// It waits for people; it has no job.
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
    /// How long people took in all.
    pub waited_ms: i64,
    /// When its last write took effect.
    pub written_back_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// What its calls have cost, in millionths.
    pub cost_micros: i64,
    /// The last thing that went wrong.
    pub error: Option<RunError>,
    /// How often it was taken out of the dead letters.
    pub replays: u32,
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
        let state = self.outcome.map_or(self.status.as_str(), Outcome::as_str);
        vec![
            ("status", created(Key::new().text(state))),
            ("time", created(Key::new())),
            ("workflow", created(Key::new().text(&self.workflow))),
        ]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.source.iter().map(|source| ("source", source_key(&self.workflow, source))).collect()
    }
}

/// The unique key of an event within a workflow.
pub fn source_key(workflow: &str, source: &str) -> Vec<u8> {
    Key::new().text(workflow).text(source).bytes()
}

impl RunDoc {
    /// What templates see.
    pub fn names(&self) -> Map<String, Value> {
        let run = serde_json::json!({"id": self.id, "workflow": self.workflow, "created_at_ms": self.created_at_ms});
        Map::from_iter([
            ("event".to_owned(), self.event.clone()),
            ("steps".to_owned(), Value::Object(self.outputs.clone())),
            ("run".to_owned(), run),
        ])
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
