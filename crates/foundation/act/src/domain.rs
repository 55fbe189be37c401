//! The registration table: what a domain is, as rows.

use crate::{Ctx, Fault, Verb};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kernel::Lease;
use kernel::permit::JobKind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;

/// HTTP methods that routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Acts, or creates.
    Post,
    /// Replaces.
    Put,
    /// Removes.
    Delete,
}

/// Who may call a route at all, before policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// An identified principal.
    Principal,
    /// Anybody: health and the public description. Only reads that hold no tenant's data.
    Public,
    /// A sender that signs its raw body; the route's call verifies it.
    Signature,
}

/// What a read is given.
pub struct QueryCtx<'a> {
    /// Who asks.
    pub ctx: &'a Ctx,
    /// The tenant's records.
    pub view: &'a View,
    /// Path and query parameters, already checked against the route's declaration.
    pub params: &'a BTreeMap<String, String>,
}

impl QueryCtx<'_> {
    /// A parameter, if given.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// A path parameter that is an id of a thing named `what`; anything else is not found.
    pub fn id(&self, name: &str, what: &str) -> Result<kernel::Id, Fault> {
        self.param(name).and_then(|text| kernel::Id::parse(text).ok()).ok_or_else(|| Fault::not_found(what))
    }
}

/// A read.
pub type Query = Arc<dyn for<'a> Fn(QueryCtx<'a>) -> BoxFuture<'a, Result<Value, Fault>> + Send + Sync>;
/// Live JSON events: id, name, data. One without name and data is a mark: it says no more than that a client which comes
/// back goes on after its id.
pub type Events = BoxStream<'static, (String, String, Value)>;
/// Opens a live stream, resumed after an event id; a fault if it cannot begin where it was asked to.
pub type StreamSource =
    Arc<dyn Fn(Ctx, BTreeMap<String, String>) -> BoxFuture<'static, Result<Events, Fault>> + Send + Sync>;

/// What a route does.
#[derive(Clone)]
pub enum Call {
    /// Carries out the verb of this name; path parameters join the JSON body as arguments.
    Verb(&'static str),
    /// Reads. The text names the permission that a role must carry, `<domain>.<noun>.read`.
    Query(&'static str, Query),
    /// Streams server-sent events under the same kind of permission.
    Stream(&'static str, StreamSource),
    /// Receives a signed delivery: raw headers and body in, the verb and its arguments out.
    Receive(Receive),
}

/// Verifies a signed delivery and says which act it asks for.
pub type Receive = Arc<
    dyn for<'a> Fn(
            &'a BTreeMap<String, String>,
            &'a [(String, String)],
            &'a [u8],
        ) -> BoxFuture<'a, Result<Delivery, Fault>>
        + Send
        + Sync,
>;

/// A verified delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// On whose authority it is carried out.
    pub ctx: Ctx,
    /// The act.
    pub act: &'static str,
    /// Its arguments.
    pub args: Value,
}

/// A parameter of a route.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name, as in the path template or the query string.
    pub name: &'static str,
    /// What it is, for the contract.
    pub summary: &'static str,
}

/// A column of a list in the command line's tables.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// JSON pointer into an item.
    pub pointer: &'static str,
    /// Heading.
    pub title: &'static str,
}

/// A row of the API.
#[derive(Clone)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path template, `/v1/runs/{run}/cancel`.
    pub path: &'static str,
    /// `run_cancel`: the operation id in the contract, noun first.
    pub operation: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Who may call it at all.
    pub auth: Auth,
    /// What it does.
    pub call: Call,
    /// Query parameters; path parameters are in the template.
    pub query: &'static [Param],
}

/// Runs a claimed job. It ends by committing a continuation, or lets the lease run out.
pub type JobRun = Arc<dyn Fn(Lease) -> BoxFuture<'static, ()> + Send + Sync>;

/// A kind of job and who runs it.
#[derive(Clone)]
pub struct JobSpec {
    /// The kind.
    pub kind: &'static JobKind,
    /// The runner.
    pub run: JobRun,
}

/// Everything a domain registers.
#[derive(Clone, Default)]
pub struct Domain {
    /// `flows`: the first part of its kinds, facts, acts and permissions.
    pub name: &'static str,
    /// Kinds of records it owns.
    pub kinds: &'static [&'static str],
    /// Kinds of facts it states.
    pub facts: &'static [&'static str],
    /// Its acts.
    pub verbs: Vec<Verb>,
    /// Its part of the API.
    pub routes: Vec<Route>,
    /// Its later work.
    pub jobs: Vec<JobSpec>,
    /// Error codes that an operator may meet: (code, one line).
    pub codes: &'static [(&'static str, &'static str)],
}

impl Domain {
    /// Everything about this domain that points outside it; a test demands that there is nothing.
    pub fn misfits(&self) -> Vec<String> {
        let own = |name: &str| name.split('.').next() == Some(self.name);
        let mut misfits: Vec<String> = Vec::new();
        for name in self.kinds.iter().chain(self.facts) {
            if !own(name) {
                misfits.push(format!("{} registers {name}", self.name));
            }
        }
        for verb in &self.verbs {
            for written in verb.writes {
                if !self.kinds.contains(written)
                    && !kernel::ledger::WRITES.contains(written)
                    && *written != kernel::changeset::WRITES_EPOCH
                {
                    misfits.push(format!("{} writes {written}, which {} does not own", verb.act, self.name));
                }
            }
            for stated in verb.facts {
                if !self.facts.contains(stated) {
                    misfits.push(format!("{} states {stated}, which {} does not own", verb.act, self.name));
                }
            }
            if verb.facts.is_empty() || !own(verb.act) {
                misfits.push(format!("{} has no fact or a foreign name", verb.act));
            }
        }
        for job in &self.jobs {
            let foreign =
                |kind: &&&str| !self.kinds.contains(*kind) && !kernel::ledger::WRITES.contains(*kind);
            for name in job.kind.writes.iter().filter(foreign) {
                misfits
                    .push(format!("job {} writes {name}, which {} does not own", job.kind.name, self.name));
            }
            for name in job.kind.facts.iter().filter(|kind| !self.facts.contains(kind)) {
                misfits
                    .push(format!("job {} states {name}, which {} does not own", job.kind.name, self.name));
            }
        }
        misfits
    }
}
