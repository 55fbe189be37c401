//! The changeset: the one way to write.
//!
//! A [`Draft`] is what a planner decides: checks on everything it read, records to put or delete, jobs to enqueue,
//! money to move or to hold, and at least one fact. A [`Changeset`] is a draft with an origin, and there are exactly four: under permits,
//! recording a refusal, continuing a leased job, and the genesis of an empty log. The store commits a changeset
//! whole or not at all. There is no fifth way, so there is no write without somebody who answers for it.
//!
//! Limits are constants here, because both engines and every planner must agree on them.

use crate::ledger::{AccountSpec, Transfer};
use crate::permit::{Authority, JobKind, Lease, Permit, Refusal};
use crate::{Digest, Fact, Id, TenantId};

/// Most operations (puts, deletes, expectations, jobs, facts) in one changeset.
pub const OPERATIONS_MAX: usize = 256;
/// Largest record body, job body, outcome or aside, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Most index entries of one record.
pub const INDEXES_MAX: usize = 20;
/// Largest index or unique key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// What a permit must cover for a changeset to move a log to another epoch. No domain owns it; one has use for it.
pub const WRITES_EPOCH: &str = "log.epoch";

/// A record as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Kind of the record, `flows.run`.
    pub kind: &'static str,
    /// Its id, unique within tenant and kind.
    pub id: Id,
    /// The revision it must have now; `None` means that it must not exist.
    pub rev: Option<u64>,
    /// The document.
    pub body: Vec<u8>,
    /// Index entries (name, order-preserving key); they replace the record's former ones.
    pub indexes: Vec<(&'static str, Vec<u8>)>,
    /// Unique entries (name, folded key): the changeset conflicts if another record holds one.
    pub uniques: Vec<(&'static str, Vec<u8>)>,
}

/// One change or check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a record.
    Put(Put),
    /// Deletes a record of the given revision.
    Delete {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: Id,
        /// The revision it must have.
        rev: u64,
    },
    /// Demands that a record still has a revision, or still does not exist.
    Expect {
        /// Kind of the record.
        kind: &'static str,
        /// Its id.
        id: Id,
        /// The revision it must have; `None`: it must not exist.
        rev: Option<u64>,
    },
    /// Demands that a job is still leased under this epoch: the fence of a step that writes under a fresh permit.
    Fence {
        /// The job.
        job: Id,
        /// Its epoch.
        epoch: u64,
    },
    /// Enqueues later work under this changeset's authority.
    Job(NewJob),
    /// Removes a job that has not been claimed (a timer that is no longer wanted); absent is fine.
    JobCancel {
        /// The job.
        job: Id,
    },
    /// Stores the outcome of the act under its idempotency key.
    Outcome(Outcome),
    /// Stores bytes under their SHA-256; storing the same bytes again is no change.
    Blob {
        /// SHA-256 of the bytes.
        digest: Digest,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Opens an account of the ledger, or moves the bounds of one that is open. Comes before every transfer.
    Account(AccountSpec),
    /// Moves, holds, settles or voids, in the order in which they stand. An account that has not enough left stops the
    /// whole changeset, so what belongs together is done together or not at all.
    Transfer(Transfer),
    /// Moves the tenant's log to another epoch: its origin names that from now on, and the facts of this changeset are
    /// the first under it. In the platform's tenant this opens an epoch for the whole installation and ends its being
    /// put back; every other log can then be moved to that one, and to no other.
    Epoch {
        /// The last part of the log's origin; larger than what it was.
        epoch: u64,
    },
}

/// Durable later work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// `job_…`
    pub id: Id,
    /// Its kind, as registered.
    pub kind: &'static JobKind,
    /// Not before, milliseconds UTC.
    pub ready_at_ms: i64,
    /// What to do.
    pub body: Vec<u8>,
    /// Whether the committer goes on with it at once: enqueued and claimed in the same commit.
    pub held: bool,
}

/// What an act came to, kept so that a retry gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Who asked.
    pub principal: Id,
    /// For which act.
    pub act: String,
    /// The caller's idempotency key.
    pub key: String,
    /// SHA-256 of the canonical arguments: the same key with other arguments is a conflict.
    pub args_digest: Digest,
    /// The outcome, from which the reply is rendered.
    pub body: Vec<u8>,
}

/// What a planner decides to change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    /// When, milliseconds UTC; every fact of the changeset carries it.
    pub at_ms: i64,
    /// Changes and checks. Checks come before writes whatever their order here.
    pub operations: Vec<Operation>,
    /// What happened; at least one.
    pub facts: Vec<Fact>,
}

impl Draft {
    /// An empty draft at `at_ms`.
    pub fn at(at_ms: i64) -> Draft {
        Draft { at_ms, ..Draft::default() }
    }

    /// Adds an operation.
    pub fn push(&mut self, operation: Operation) -> &mut Draft {
        self.operations.push(operation);
        self
    }

    /// Adds a fact.
    pub fn fact(&mut self, fact: Fact) -> &mut Draft {
        self.facts.push(fact);
        self
    }
}

/// Who answers for a changeset.
#[derive(Debug)]
pub enum Origin {
    /// Acts that the governor permitted. The first permit's authority stands in the facts.
    Under(Vec<Permit>),
    /// An act that was refused or has to wait: its fact, decision and approval record only.
    Refused(Refusal),
    /// A job's own completion, under the authority it was enqueued with.
    Continuing(Lease),
    /// The first facts of a tenant whose log is empty.
    Genesis {
        /// Who creates it.
        authority: Authority,
    },
}

/// A draft with an origin.
#[derive(Debug)]
pub struct Changeset {
    tenant: TenantId,
    origin: Origin,
    draft: Draft,
}

/// Why a changeset cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangesetError {
    /// No permit, or permits of several tenants.
    #[error("a changeset needs permits of one tenant")]
    Permits,
    /// No fact.
    #[error("a changeset without a fact")]
    NoFact,
    /// More than [`OPERATIONS_MAX`] operations or facts, or something larger than its limit.
    #[error("a changeset is larger than its limits")]
    TooLarge,
    /// A refusal that writes something else than its own record.
    #[error("a refusal may only record itself")]
    Overreach,
}

/// Records that a refusal may write: what waits for approval, and the decision on it.
pub const REFUSAL_KINDS: &[&str] = &["governor.approval"];

impl Changeset {
    /// A changeset under permits, all of one tenant.
    pub fn under(permits: Vec<Permit>, draft: Draft) -> Result<Changeset, ChangesetError> {
        let tenant = permits.first().ok_or(ChangesetError::Permits)?.tenant().clone();
        if permits.iter().any(|permit| *permit.tenant() != tenant) {
            return Err(ChangesetError::Permits);
        }
        Changeset::sized(tenant, Origin::Under(permits), draft)
    }

    /// A changeset that records a refused or waiting act.
    pub fn refused(refusal: Refusal, draft: Draft) -> Result<Changeset, ChangesetError> {
        let own = |operation: &Operation| match operation {
            Operation::Put(put) => REFUSAL_KINDS.contains(&put.kind) && put.rev.is_none(),
            Operation::Expect { .. } | Operation::Outcome(_) => true,
            Operation::Job(job) => job.kind.name.starts_with("governor."),
            Operation::Delete { .. }
            | Operation::Fence { .. }
            | Operation::JobCancel { .. }
            | Operation::Blob { .. }
            | Operation::Account(_)
            | Operation::Transfer(_)
            | Operation::Epoch { .. } => false,
        };
        if !draft.operations.iter().all(own) {
            return Err(ChangesetError::Overreach);
        }
        Changeset::sized(refusal.tenant().clone(), Origin::Refused(refusal), draft)
    }

    /// A job's completion.
    pub fn continuing(lease: Lease, draft: Draft) -> Result<Changeset, ChangesetError> {
        Changeset::sized(lease.tenant.clone(), Origin::Continuing(lease), draft)
    }

    /// The first facts of a tenant.
    pub fn genesis(
        tenant: TenantId,
        authority: Authority,
        draft: Draft,
    ) -> Result<Changeset, ChangesetError> {
        Changeset::sized(tenant, Origin::Genesis { authority }, draft)
    }

    fn sized(tenant: TenantId, origin: Origin, draft: Draft) -> Result<Changeset, ChangesetError> {
        if draft.facts.is_empty() {
            return Err(ChangesetError::NoFact);
        }
        let fits = |operation: &Operation| match operation {
            Operation::Put(put) => {
                put.body.len() <= BODY_BYTES_MAX
                    && put.indexes.len() <= INDEXES_MAX
                    && put.uniques.len() <= INDEXES_MAX
                    && put.indexes.iter().chain(&put.uniques).all(|(_, key)| key.len() <= KEY_BYTES_MAX)
            }
            Operation::Job(job) => job.body.len() <= BODY_BYTES_MAX,
            Operation::Outcome(outcome) => {
                outcome.body.len() <= BODY_BYTES_MAX && outcome.key.len() <= KEY_BYTES_MAX
            }
            Operation::Blob { bytes, .. } => bytes.len() <= BODY_BYTES_MAX,
            Operation::Delete { .. }
            | Operation::Expect { .. }
            | Operation::Fence { .. }
            | Operation::JobCancel { .. }
            | Operation::Account(_)
            | Operation::Transfer(_)
            | Operation::Epoch { .. } => true,
        };
        let asides_fit = draft
            .facts
            .iter()
            .all(|fact| fact.aside.as_ref().is_none_or(|aside| aside.len() <= BODY_BYTES_MAX));
        if draft.operations.len() + draft.facts.len() > OPERATIONS_MAX
            || !draft.operations.iter().all(fits)
            || !asides_fit
        {
            return Err(ChangesetError::TooLarge);
        }
        Ok(Changeset { tenant, origin, draft })
    }

    /// The tenant it writes to.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Takes it apart; only an engine has use for the parts.
    pub fn into_parts(self) -> (TenantId, Origin, Draft) {
        (self.tenant, self.origin, self.draft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permit::permit_pair;

    fn authority() -> Authority {
        Authority {
            actor: Id::parse("prn_a").unwrap(),
            on_behalf_of: vec![],
            act: "a.b.c".into(),
            decision: None,
            policy: None,
            assurance: None,
            trace: String::new(),
        }
    }

    fn fact() -> Fact {
        Fact {
            id: Id::parse("fct_a").unwrap(),
            kind: "a.b.done",
            stream: Id::parse("run_a").unwrap(),
            resource: "r".into(),
            causes: vec![],
            outcome: serde_json::json!({}),
            aside: None,
        }
    }

    fn put(kind: &'static str, rev: Option<u64>) -> Operation {
        Operation::Put(Put {
            kind,
            id: Id::parse("rec_a").unwrap(),
            rev,
            body: vec![],
            indexes: vec![],
            uniques: vec![],
        })
    }

    #[test]
    fn no_write_without_a_fact_or_beyond_the_limits() {
        let genesis = |draft| Changeset::genesis(TenantId::platform(), authority(), draft).map(|_| ());
        assert_eq!(genesis(Draft::at(1)), Err(ChangesetError::NoFact));
        let mut draft = Draft::at(1);
        draft.fact(fact());
        assert_eq!(genesis(draft.clone()), Ok(()));
        draft.operations = vec![put("a.b", None); OPERATIONS_MAX];
        assert_eq!(genesis(draft), Err(ChangesetError::TooLarge));
        assert_eq!(Changeset::under(vec![], Draft::at(1)).map(|_| ()), Err(ChangesetError::Permits));
    }

    #[test]
    fn a_refusal_records_only_itself() {
        let (mint, _) = permit_pair();
        for (operation, ok) in [
            (put("governor.approval", None), true),
            (put("governor.approval", Some(1)), false),
            (put("flows.run", None), false),
            (Operation::JobCancel { job: Id::parse("job_a").unwrap() }, false),
            (Operation::Epoch { epoch: 2 }, false),
        ] {
            let mut draft = Draft::at(1);
            draft.fact(fact()).push(operation.clone());
            let refusal = mint.refusal(TenantId::platform(), authority(), None);
            assert_eq!(Changeset::refused(refusal, draft).is_ok(), ok, "{operation:?}");
        }
    }
}
