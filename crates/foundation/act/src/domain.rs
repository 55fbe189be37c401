//! The registration table: what a domain is, as rows.

use crate::{Route, Verb};
use futures::future::BoxFuture;
use kernel::Lease;
use kernel::permit::JobKind;
use std::sync::Arc;

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
