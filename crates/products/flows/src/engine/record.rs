//! The run, as kept.
//!
//! What a run knows of the world, the event and the outputs of its steps, is kept while it is needed and no longer: the
//! commit that finishes a run leaves digests. A dead run keeps its content, because it may be replayed; cancelling it
//! scrubs it.

use crate::connector::manifest::Effect;
use kernel::{Id, hex, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::Document;
use store::key::Key;

/// Most bytes of content that a run holds.
pub const CONTEXT_BYTES_MAX: usize = 256 * 1024;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `run_…`
    pub id: Id,
    /// Name of the workflow.
    pub workflow: String,
    /// The pinned version, in hexadecimal.
    pub digest: String,
    /// The pinned versions of connectors, by installed name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connectors: BTreeMap<String, String>,
    /// Where it stands.
    pub state: State,
    /// The step it is at.
    pub cursor: Cursor,
    /// The job that may move it; none while it waits and once it has ended.
    pub job: Option<Id>,
    /// Whether it ends as cancelled as soon as nothing is in flight.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelling: bool,
    /// Where it came from.
    pub source: Source,
    /// For whom it acts: whoever started it, nearest first.
    pub on_behalf_of: Vec<Id>,
    /// Id that joins its facts with logs.
    pub trace: String,
    /// What it knows.
    pub context: Context,
    /// Steps it has passed, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
    /// The fact that the next one follows from.
    pub last_fact: Option<Id>,
    /// When the event was taken in, milliseconds UTC.
    pub event_at_ms: i64,
    /// When it was created.
    pub created_at_ms: i64,
    /// When its last write was known to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_back_at_ms: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// How long people took in all, in milliseconds.
    #[serde(default)]
    pub waited_ms: i64,
    /// What its model calls cost, in micro-units.
    #[serde(default)]
    pub cost_micros: i64,
    /// Raised by every replay.
    #[serde(default)]
    pub replays: u32,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum State {
    /// Its job is due or at work.
    Running,
    /// It waits for people. The approval ends the wait, one way or another, at the latest when it expires.
    Waiting {
        /// For which approval.
        approval: Id,
        /// Since when, milliseconds UTC.
        since_ms: i64,
        /// Until when.
        expires_at_ms: i64,
    },
    /// It has ended, for ever.
    Finished {
        /// How.
        outcome: Outcome,
    },
    /// It could not go on; an operator replays or cancels it.
    Dead {
        /// Why: a stable code.
        code: String,
    },
}

impl State {
    /// The word for it in indexes and the API.
    pub fn name(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Waiting { .. } => "waiting",
            State::Finished { .. } => "finished",
            State::Dead { .. } => "dead",
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It reached its end.
    Completed,
    /// Policy or a person said no.
    Denied,
    /// Nobody decided in time. Not the same as no.
    Expired,
    /// An approval was granted and could not be used any more.
    Void,
    /// The rest was left to people; nothing further was written.
    NeedsHuman,
    /// Somebody cancelled it.
    Cancelled,
}

impl Outcome {
    /// The spelling in facts and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Denied => "denied",
            Outcome::Expired => "expired",
            Outcome::Void => "void",
            Outcome::NeedsHuman => "needs_human",
            Outcome::Cancelled => "cancelled",
        }
    }
}

/// The step a run is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Its id.
    pub step: String,
    /// How far it has got.
    pub phase: Phase,
    /// Counts what was asked of others for this step, from 1: part of idempotency keys.
    pub attempt: u32,
    /// Faults of systems outside so far.
    #[serde(default)]
    pub external: u32,
    /// Faults of this system so far.
    #[serde(default)]
    pub engine: u32,
    /// When it began; moved on by the time that people took.
    pub began_at_ms: i64,
}

/// How far a step has got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing has been asked or sent, or what was has certainly had no effect.
    Ready,
    /// A call may be made. Who comes upon this without holding the ticket must assume that it was.
    Intended {
        /// Which.
        intent: Intent,
        /// The job whose first start may send it. None: the commit's own maker sends it.
        ticket: Option<Id>,
    },
    /// A call may have had its effect; it has to be found out.
    Unknown {
        /// Which.
        intent: Intent,
        /// How often it was looked for.
        looks: u32,
    },
}

/// A call that was permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Names the effect; the same over all attempts.
    pub effect_key: String,
    /// What a repetition would do.
    pub effect: Effect,
    /// The fact that states the intent.
    pub fact: Id,
}

/// Where a run came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Who started it.
    pub principal: Id,
    /// The connector whose event it is; none if somebody started it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// The sender's id of the delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// SHA-256 of the event as it was taken in, in hexadecimal.
    pub digest: String,
    /// What identifies the event within its workflow: a second run for it is a duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// What a run knows: content while it lives, digests afterwards.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Context {
    /// The event.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub event: Value,
    /// Outputs of steps.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub steps: Map<String, Value>,
    /// Size of both, in bytes.
    #[serde(default)]
    pub bytes: usize,
}

/// A step that was passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its id.
    pub step: String,
    /// `done`, `skipped`, `failed`, `denied`, `expired`, `void`.
    pub result: String,
    /// Attempts of all kinds.
    pub attempts: u32,
    /// When it ended, milliseconds UTC.
    pub at_ms: i64,
    /// How long it took, without people, in milliseconds.
    pub took_ms: i64,
    /// SHA-256 of its output, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// For people; holds no content.
    pub detail: String,
    /// In which step.
    pub step: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

impl Document for Run {
    const KIND: &'static str = "flows.run";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("time", Key::new().integer(self.created_at_ms).bytes()),
            ("status", Key::new().text(self.state.name()).integer(self.created_at_ms).bytes()),
            ("workflow", Key::new().text(&self.workflow).integer(self.created_at_ms).bytes()),
        ]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.source.identity.iter().map(|identity| ("event", identity_key(&self.workflow, identity))).collect()
    }
}

/// The unique key of an event within a workflow.
pub fn identity_key(workflow: &str, identity: &str) -> Vec<u8> {
    Key::new().text(workflow).text(identity).bytes()
}

/// SHA-256 of a value as this program writes it, in hexadecimal.
pub fn digest_of(value: &Value) -> String {
    // Plain data always serialises, and a map's members are sorted.
    hex::encode(&sha256(&serde_json::to_vec(value).unwrap_or_default()))
}

impl Run {
    /// The names that templates see.
    pub fn names(&self) -> Map<String, Value> {
        Map::from_iter([
            ("event".to_owned(), self.context.event.clone()),
            ("steps".to_owned(), Value::Object(self.context.steps.clone())),
            ("run".to_owned(), json!({"id": self.id, "workflow": self.workflow})),
        ])
    }

    /// The intent of the current step, if there is one.
    pub fn intent(&self) -> Option<&Intent> {
        match &self.cursor.phase {
            Phase::Ready => None,
            Phase::Intended { intent, .. } | Phase::Unknown { intent, .. } => Some(intent),
        }
    }

    /// The key under which something is asked once for the current attempt.
    pub fn key(&self) -> String {
        format!("{}:{}:{}", self.id, self.cursor.step, self.cursor.attempt)
    }

    /// As shown. Content is never shown here: it is the outside systems'.
    pub fn shown(&self) -> Value {
        let (outcome, approval, expires_at_ms, code) = match &self.state {
            State::Running => (None, None, None, None),
            State::Waiting { approval, expires_at_ms, .. } => (None, Some(approval), Some(expires_at_ms), None),
            State::Finished { outcome } => (Some(outcome.as_str()), None, None, None),
            State::Dead { code } => (None, None, None, Some(code)),
        };
        json!({
            "run": self.id, "workflow": self.workflow, "digest": self.digest, "status": self.state.name(),
            "outcome": outcome, "approval": approval, "approval_expires_at_ms": expires_at_ms, "code": code,
            "step": match &self.state { State::Finished { .. } => None, _ => Some(&self.cursor.step) },
            "started_by": self.source.principal, "delivery": self.source.delivery, "event_digest": self.source.digest,
            "event_at_ms": self.event_at_ms, "created_at_ms": self.created_at_ms,
            "written_back_at_ms": self.written_back_at_ms, "ended_at_ms": self.ended_at_ms, "waited_ms": self.waited_ms,
            "cost_micros": self.cost_micros, "replays": self.replays, "error": self.error, "trace": self.trace,
        })
    }

    /// As shown alone, with its steps.
    pub fn shown_whole(&self) -> Value {
        let mut shown = self.shown();
        shown["steps"] = json!(self.passed);
        shown["connectors"] = json!(self.connectors);
        shown["attempt"] = json!({
            "attempt": self.cursor.attempt, "external": self.cursor.external, "engine": self.cursor.engine,
            "began_at_ms": self.cursor.began_at_ms,
            "phase": match self.cursor.phase {
                Phase::Ready => "ready",
                Phase::Intended { .. } => "intended",
                Phase::Unknown { .. } => "unknown",
            },
            "effect_key": self.intent().map(|intent| &intent.effect_key),
        });
        shown
    }
}
