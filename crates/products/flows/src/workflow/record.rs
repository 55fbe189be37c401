//! How workflows are kept: a name that points to a version, the versions by digest, and what each event starts.

use crate::connector::manifest::name_ok;
use kernel::{Id, hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Document;
use store::key::Key;

/// Most versions that a workflow remembers; older ones stay readable by their digest.
pub const VERSIONS_MAX: usize = 50;
/// Most workflows that one event starts.
pub const STARTS_MAX: usize = 16;

/// A published workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// `wfl_<name>`
    pub id: Id,
    /// Digest of the current version, in hexadecimal.
    pub digest: String,
    /// The label of the current version.
    pub label: Option<String>,
    /// What it is for.
    pub description: String,
    /// Connector and event that start it.
    pub trigger: Option<(String, String)>,
    /// Versions, newest first.
    pub versions: Vec<VersionRow>,
    /// When it was retired: no run starts any more, running ones go on.
    pub retired_at_ms: Option<i64>,
    /// Name of the project that it belongs to.
    #[serde(default)]
    pub project: Option<String>,
}

/// A version in the list of versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Digest, in hexadecimal.
    pub digest: String,
    /// Label.
    pub label: Option<String>,
    /// When it was published, milliseconds UTC.
    pub at_ms: i64,
    /// Who published it.
    pub by: Id,
    /// Digest of the signed artifact that it is, in hexadecimal; none where it was published before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

impl Document for Published {
    const KIND: &'static str = "flows.workflow";
    const VERSION: u32 = 2;
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
    /// Version 1 knew no projects.
    fn upcast(version: u32, doc: Value) -> Option<Value> {
        (version == 1).then_some(doc)
    }
}

impl Published {
    /// Its name.
    pub fn name(&self) -> &str {
        self.id.as_str().split_once('_').map_or("", |(_, name)| name)
    }

    /// As shown in lists.
    pub fn shown(&self) -> Value {
        json!({
            "workflow": self.name(), "digest": self.digest, "version": self.label, "description": self.description, "project": self.project,
            "trigger": self.trigger.as_ref().map(|(connector, event)| json!({"connector": connector, "event": event})),
            "published_at_ms": self.versions.first().map(|version| version.at_ms),
            "published_by": self.versions.first().map(|version| &version.by),
            "retired_at_ms": self.retired_at_ms,
        })
    }
}

/// The text of a version. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// `wfv_<digest>`
    pub id: Id,
    /// The text as it was published, with its comments.
    pub text: String,
}

impl Document for Source {
    const KIND: &'static str = "flows.workflow_version";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// What an event starts. Written by whoever publishes or retires, read by whoever starts: a start cannot miss a
/// publication that it should have seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Starts {
    /// `trg_<connector>.<event>`
    pub id: Id,
    /// Names of workflows, sorted.
    pub workflows: Vec<String>,
}

impl Document for Starts {
    const KIND: &'static str = "flows.trigger";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// The id of the workflow of this name; `None` for a text that cannot be one.
pub fn workflow_id(name: &str) -> Option<Id> {
    if name_ok(name) && !name.contains(['.', '_']) { Id::parse(&format!("wfl_{name}")).ok() } else { None }
}

/// The id of the text of this digest; `None` for a text that is no digest in hexadecimal.
pub fn source_id(digest: &str) -> Option<Id> {
    hex::decode32(digest)?;
    Id::parse(&format!("wfv_{digest}")).ok()
}

/// The id of what an event starts.
pub fn starts_id(connector: &str, event: &str) -> Option<Id> {
    // Underscores are in event names and not in ids.
    Id::parse(&format!("trg_{connector}.{}", event.replace('_', "-"))).ok()
}
