//! The verb: an act as data plus two functions.
//!
//! [`Verb::aim`] reads what policy may see: the resource, its attributes, nothing that the caller could forge.
//! [`Verb::plan`] reads again and decides, purely, what to change. Neither has effects: the harness runs them, possibly
//! several times, and commits at most one plan. What a verb writes and states is declared, and the store refuses the rest.

use crate::{Ctx, Fault, Ids};
use futures::future::BoxFuture;
use kernel::changeset::{Draft, NewJob, Operation};
use kernel::permit::JobKind;
use kernel::{Fact, Id};
use serde_json::Value;
use std::sync::Arc;
use store::View;

/// Largest arguments of an act, in bytes of canonical JSON, unless its verb says more.
pub const ARGS_BYTES_MAX: usize = 256 * 1024;
/// The member of an argument schema by which a verb takes larger ones, in bytes. It stands in the schema so that the
/// harness, the edge and the contract read one number.
pub const ARGS_BYTES_MEMBER: &str = "x-args-bytes-max";

/// What policy sees of an act's target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Kind of the resource, `flows.run`.
    pub kind: &'static str,
    /// Its id; for something that does not exist yet, the id of what it will stand in.
    pub id: Id,
    /// Attributes for policy: an object of integers, texts, booleans, lists.
    pub attributes: Value,
    /// What an approver is shown, as (label, text) lines. Its digest is bound to the approval.
    pub preview: Vec<(String, String)>,
    /// The project it stands in. What stands in none is reached by roles in the whole tenant only.
    pub place: Option<Place>,
}

/// Where in a tenant a thing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `prj_…`
    pub project: Id,
    /// The project's workspace, `wks_…`.
    pub workspace: Id,
    /// The workspace's class: `development`, `staging` or `production`.
    pub environment: &'static str,
}

impl Target {
    /// A target without attributes.
    pub fn of(kind: &'static str, id: &Id) -> Target {
        let attributes = Value::Object(Default::default());
        Target { kind, id: id.clone(), attributes, preview: Vec::new(), place: None }
    }

    /// The same, standing in a project.
    pub fn at(self, place: Option<Place>) -> Target {
        Target { place, ..self }
    }
}

/// What a plan comes to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What changes.
    pub draft: Draft,
    /// What the caller is told; kept under the idempotency key.
    pub outcome: Value,
}

/// Where a fact, an id or a time comes from while planning: everything that would otherwise be impure.
#[derive(Clone)]
pub struct Stamp {
    /// Who asks.
    pub ctx: Ctx,
    /// Now, milliseconds UTC; the same for the whole plan.
    pub at_ms: i64,
    /// The cell, for full names.
    pub cell: Arc<str>,
    /// The source of ids.
    pub ids: Arc<dyn Ids>,
    /// Approvals that are used up by this commit.
    pub approvals: Vec<Id>,
}

impl Stamp {
    /// A fresh id.
    pub fn id(&self, prefix: &str) -> Id {
        self.ids.id(prefix, self.at_ms)
    }

    /// Full name of a resource: `cell/tenant/kind/id`.
    pub fn name(&self, kind: &str, id: &Id) -> String {
        format!("{}/{}/{kind}/{id}", self.cell, self.ctx.tenant)
    }

    /// A fact about `id`, counted in `stream`.
    pub fn fact(&self, kind: &'static str, stream: &Id, resource: (&str, &Id), outcome: Value) -> Fact {
        Fact {
            id: self.id("fct"),
            kind,
            stream: stream.clone(),
            resource: self.name(resource.0, resource.1),
            causes: Vec::new(),
            outcome,
            aside: None,
        }
    }

    /// An empty draft at this time.
    pub fn draft(&self) -> Draft {
        Draft::at(self.at_ms)
    }
}

/// Helpers for drafts that are written all the time.
pub trait Draw {
    /// Puts a new document.
    fn put_new<T: store::Document>(&mut self, doc: &T) -> &mut Self;
    /// Replaces a document that was read.
    fn put_if<T: store::Document>(&mut self, stored: &store::Stored<T>, doc: &T) -> &mut Self;
    /// Enqueues a job with a JSON body.
    fn job(
        &mut self,
        id: Id,
        kind: &'static JobKind,
        ready_at_ms: i64,
        held: bool,
        body: &Value,
    ) -> &mut Self;
}

impl Draw for Draft {
    fn put_new<T: store::Document>(&mut self, doc: &T) -> &mut Draft {
        self.push(store::put_new(doc))
    }

    fn put_if<T: store::Document>(&mut self, stored: &store::Stored<T>, doc: &T) -> &mut Draft {
        self.push(store::put_if(stored, doc))
    }

    fn job(
        &mut self,
        id: Id,
        kind: &'static JobKind,
        ready_at_ms: i64,
        held: bool,
        body: &Value,
    ) -> &mut Draft {
        // A JSON value always serialises.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.push(Operation::Job(NewJob { id, kind, ready_at_ms, body, held }))
    }
}

/// Reads what policy may see.
pub type AimFn =
    Arc<dyn for<'a> Fn(&'a View, &'a Value, &'a Ctx) -> BoxFuture<'a, Result<Target, Fault>> + Send + Sync>;
/// Reads and decides what to change.
pub type PlanFn =
    Arc<dyn for<'a> Fn(&'a View, &'a Value, &'a Stamp) -> BoxFuture<'a, Result<Plan, Fault>> + Send + Sync>;

/// What becomes of those who wait when an approval is closed without being used.
pub type Resume = &'static str;

/// An act.
#[derive(Clone)]
pub struct Verb {
    /// `<domain>.<noun>.<verb>`, the name in policies, facts and the API.
    pub act: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// JSON Schema of the arguments.
    pub args: fn() -> Value,
    /// Kinds it may write.
    pub writes: &'static [&'static str],
    /// Facts it may state.
    pub facts: &'static [&'static str],
    /// Arguments that are never put into policy input, side rows, approvals or logs.
    pub secret_args: &'static [&'static str],
    /// The act to call when an approval for this one is refused or expires; its arguments are
    /// `{"approval", "status", "args"}`.
    pub on_closed: Option<Resume>,
    /// Whether it can wait for people. `false` for what a running step does on its way and cannot come back to: carried
    /// out later, it would reserve and promise what nobody takes up. Where policy wants people for such an act it is
    /// denied, and no approval is opened.
    pub can_wait: bool,
    /// Reads what policy may see.
    pub aim: AimFn,
    /// Decides what to change.
    pub plan: PlanFn,
}

impl Verb {
    /// Largest arguments of this act, in bytes of canonical JSON: [`ARGS_BYTES_MAX`], or what its schema says.
    pub fn args_bytes_max(&self) -> usize {
        let said = (self.args)()[ARGS_BYTES_MEMBER].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        said.unwrap_or(ARGS_BYTES_MAX)
    }
}

impl std::fmt::Debug for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.act)
    }
}
