//! The reference model of the store's contract: what was accepted, and what every later read has to answer.
//!
//! It holds what it has been shown. What stood in the store before anybody looked is learned from the first read of it, and
//! is held to from then on. It shares no code with any engine, and knows neither indexes as trees nor SQL: a list is a walk
//! over everything.

use kernel::changeset::{Draft, Operation};
use kernel::{Id, Lease, TenantId};
use std::collections::{BTreeMap, BTreeSet};
use store::{CommitError, Committed, Head, IndexedRow, KeptOutcome, Range, Row};

type Name = (TenantId, String, Id);
type OutcomeName = (TenantId, Id, String, String);

/// A record that was written since the model looks on, or read.
#[derive(Debug, Clone)]
struct Record {
    /// `None`: new, and the engine has not said yet which revision it gave.
    rev: Option<u64>,
    body: Vec<u8>,
    /// `None`: never seen to be written.
    entries: Option<Entries>,
}

#[derive(Debug, Clone, Default)]
struct Entries {
    indexes: BTreeSet<(&'static str, Vec<u8>)>,
    uniques: BTreeSet<(&'static str, Vec<u8>)>,
}

/// The model.
#[derive(Debug, Default)]
pub struct Mirror {
    /// `None`: known to be absent.
    records: BTreeMap<Name, Option<Record>>,
    outcomes: BTreeMap<OutcomeName, KeptOutcome>,
    /// The epoch under which a job was claimed last, 0: never.
    jobs: BTreeMap<Id, u64>,
    /// Jobs that have ended.
    ended: BTreeSet<Id>,
    /// Leaves of each log.
    leaves: BTreeMap<TenantId, u64>,
    compared: u64,
}

impl Mirror {
    /// How many answers were compared.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// A changeset was answered; `completes` is the job that it ends, and the epoch of its lease.
    ///
    /// # Panics
    /// If it was accepted against the contract, or called a conflict without one.
    pub fn commit(
        &mut self,
        tenant: &TenantId,
        draft: &Draft,
        completes: Option<(Id, u64)>,
        answer: &Result<Committed, CommitError>,
    ) {
        self.compared += 1;
        let objection = self.objection(tenant, draft, completes.as_ref());
        match answer {
            Ok(committed) => {
                assert_eq!(objection, None, "a changeset was accepted all the same");
                self.apply(tenant, draft, completes);
                for lease in &committed.held {
                    self.jobs.insert(lease.id.clone(), lease.epoch);
                }
            }
            Err(CommitError::Conflict { kind, id }) => {
                let conflict = self.may_conflict(tenant, draft, kind, id);
                assert!(
                    objection.is_some() || conflict,
                    "{kind} {id} is called changed, and is not: {draft:?}"
                );
            }
            // Whatever else it is, nothing has happened.
            Err(_) => {}
        }
    }

    /// What speaks against a changeset, as far as the model knows.
    fn objection(&self, tenant: &TenantId, draft: &Draft, completes: Option<&(Id, u64)>) -> Option<String> {
        let stale = |job: &Id, epoch: u64| {
            self.ended.contains(job) || self.jobs.get(job).is_some_and(|known| *known != epoch)
        };
        if let Some((job, epoch)) = completes
            && stale(job, *epoch)
        {
            return Some(format!("{job} is not leased under epoch {epoch}"));
        }
        let moved = |kind: &str, id: &Id, rev: Option<u64>| match self.known(tenant, kind, id) {
            None => false,
            Some(None) => rev.is_some(),
            Some(Some(record)) => match (record.rev, rev) {
                (_, None) => true,
                (Some(known), Some(rev)) => known != rev,
                (None, Some(_)) => false,
            },
        };
        draft.operations.iter().find_map(|operation| match operation {
            Operation::Put(put) => {
                moved(put.kind, &put.id, put.rev).then(|| format!("{} {} has moved", put.kind, put.id))
            }
            Operation::Delete { kind, id, rev } => {
                moved(kind, id, Some(*rev)).then(|| format!("{kind} {id} has moved"))
            }
            Operation::Expect { kind, id, rev } => {
                moved(kind, id, *rev).then(|| format!("{kind} {id} is not as expected"))
            }
            Operation::Fence { job, epoch } => stale(job, *epoch).then(|| format!("{job} is fenced")),
            Operation::Outcome(outcome) => {
                let name =
                    (tenant.clone(), outcome.principal.clone(), outcome.act.clone(), outcome.key.clone());
                self.outcomes.contains_key(&name).then(|| format!("key {} is used", outcome.key))
            }
            Operation::Job(_)
            | Operation::JobCancel { .. }
            | Operation::Blob { .. }
            | Operation::Account(_)
            | Operation::Transfer(_)
            | Operation::Epoch { .. } => None,
        })
    }

    /// Whether the model knows too little to deny a conflict.
    fn may_conflict(&self, tenant: &TenantId, draft: &Draft, kind: &str, id: &str) -> bool {
        let about = |of: &str, which: &Id| of == kind && which.as_str() == id;
        let parsed = Id::parse(id).ok();
        let known = parsed
            .and_then(|id| self.known(tenant, kind, &id))
            .is_some_and(|record| record.is_none_or(|record| record.rev.is_some()));
        let mut operations = draft.operations.iter();
        let plain = operations.any(|operation| match operation {
            Operation::Put(put) => about(put.kind, &put.id) && put.uniques.is_empty(),
            Operation::Delete { kind, id, .. } | Operation::Expect { kind, id, .. } => about(kind, id),
            _ => false,
        });
        !(known && plain)
    }

    fn known(&self, tenant: &TenantId, kind: &str, id: &Id) -> Option<Option<&Record>> {
        self.records.get(&(tenant.clone(), kind.to_owned(), id.clone())).map(Option::as_ref)
    }

    fn apply(&mut self, tenant: &TenantId, draft: &Draft, completes: Option<(Id, u64)>) {
        if let Some(leaves) = self.leaves.get_mut(tenant) {
            *leaves += draft.facts.len() as u64;
        }
        if let Some((job, _)) = completes {
            self.jobs.remove(&job);
            self.ended.insert(job);
        }
        for operation in &draft.operations {
            match operation {
                Operation::Put(put) => {
                    let entries = Entries {
                        indexes: put.indexes.iter().cloned().collect(),
                        uniques: put.uniques.iter().cloned().collect(),
                    };
                    let record = Record {
                        rev: put.rev.map(|rev| rev + 1),
                        body: put.body.clone(),
                        entries: Some(entries),
                    };
                    self.records.insert((tenant.clone(), put.kind.to_owned(), put.id.clone()), Some(record));
                }
                Operation::Delete { kind, id, .. } => {
                    self.records.insert((tenant.clone(), (*kind).to_owned(), id.clone()), None);
                }
                Operation::Outcome(outcome) => {
                    let name =
                        (tenant.clone(), outcome.principal.clone(), outcome.act.clone(), outcome.key.clone());
                    self.outcomes.insert(name, (outcome.args_digest, outcome.body.clone()));
                }
                Operation::Job(job) => {
                    self.ended.remove(&job.id);
                    self.jobs.insert(job.id.clone(), 0);
                }
                Operation::JobCancel { job } if self.jobs.get(job) == Some(&0) => {
                    self.jobs.remove(job);
                }
                Operation::JobCancel { .. }
                | Operation::Expect { .. }
                | Operation::Fence { .. }
                | Operation::Blob { .. }
                | Operation::Account(_)
                | Operation::Transfer(_)
                | Operation::Epoch { .. } => {}
            }
        }
    }

    /// Jobs were claimed.
    ///
    /// # Panics
    /// If one of them has ended, or was claimed under an epoch that is not a new one.
    pub fn claimed(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.compared += 1;
            assert!(!self.ended.contains(&lease.id), "{} was handed out after its end", lease.id);
            let before = self.jobs.insert(lease.id.clone(), lease.epoch);
            assert!(
                before.is_none_or(|before| before < lease.epoch),
                "{} was handed out twice under epoch {}",
                lease.id,
                lease.epoch
            );
        }
    }

    /// A record was read.
    ///
    /// # Panics
    /// If it is not what was written last.
    pub fn record(&mut self, tenant: &TenantId, kind: &str, id: &Id, row: Option<&Row>) {
        self.compared += 1;
        let known = self.records.entry((tenant.clone(), kind.to_owned(), id.clone())).or_insert_with(|| {
            row.map(|row| Record { rev: Some(row.rev), body: row.body.clone(), entries: None })
        });
        match (known, row) {
            (None, None) => {}
            (Some(known), Some(row)) => {
                let rev = *known.rev.get_or_insert(row.rev);
                assert_eq!((rev, &known.body), (row.rev, &row.body), "{kind} {id} is not what was written");
            }
            (None, Some(_)) => panic!("{kind} {id} is there, and nobody wrote it"),
            (Some(_), None) => panic!("{kind} {id} was written, and is not there"),
        }
    }

    /// Records were listed.
    ///
    /// # Panics
    /// If one is not what was written last, stands under a key that it has not, or is missing.
    pub fn list(&mut self, tenant: &TenantId, kind: &str, range: &Range, rows: &[IndexedRow]) {
        for (key, row) in rows {
            self.record(tenant, kind, &row.id, Some(row));
            if let Some(Some(Record { entries: Some(entries), .. })) = self.known(tenant, kind, &row.id) {
                assert!(
                    entries.indexes.contains(&(range.index, key.clone())),
                    "{kind} {} stands in {} under a key that it has not",
                    row.id,
                    range.index
                );
            }
        }
        if range.after.is_some() || rows.len() >= range.limit.min(store::PAGE_MAX) {
            return;
        }
        for ((of, name, id), record) in &self.records {
            let Some(Record { entries: Some(entries), .. }) = record else { continue };
            if of != tenant || name != kind {
                continue;
            }
            for (index, key) in &entries.indexes {
                if *index == range.index && key.starts_with(&range.prefix) {
                    let there = rows.iter().any(|(at, row)| at == key && row.id == *id);
                    assert!(there, "{kind} {id} is missing in {}", range.index);
                }
            }
        }
    }

    /// A record was looked for by a unique key.
    ///
    /// # Panics
    /// If another one has that key, or the one that has it was not found.
    pub fn unique(&mut self, tenant: &TenantId, kind: &str, (name, key): (&str, &[u8]), row: Option<&Row>) {
        if let Some(row) = row {
            self.record(tenant, kind, &row.id, Some(row));
        }
        let holder = self.records.iter().find(|((of, kind_of, _), record)| {
            let entries = record.as_ref().and_then(|record| record.entries.as_ref());
            of == tenant
                && kind_of == kind
                && entries.is_some_and(|entries| entries.uniques.iter().any(|(n, k)| *n == name && k == key))
        });
        if let Some(((_, _, id), _)) = holder {
            let found = row.map(|row| &row.id);
            assert_eq!(found, Some(id), "{kind} by its {name}");
        }
    }

    /// An outcome was looked for.
    ///
    /// # Panics
    /// If it is not the first that was kept.
    pub fn outcome(
        &mut self,
        tenant: &TenantId,
        (principal, act, key): (&Id, &str, &str),
        kept: Option<&KeptOutcome>,
    ) {
        self.compared += 1;
        let name = (tenant.clone(), principal.clone(), act.to_owned(), key.to_owned());
        match (self.outcomes.get(&name), kept) {
            (None, None) => {}
            (None, Some(kept)) => {
                self.outcomes.insert(name, kept.clone());
            }
            (known, kept) => assert_eq!(known, kept, "the outcome of {act} under {key}"),
        }
    }

    /// The head of a log was read.
    ///
    /// # Panics
    /// If it has more or fewer leaves than facts were committed.
    pub fn head(&mut self, tenant: &TenantId, head: Option<&Head>) {
        self.compared += 1;
        let size = head.map_or(0, |head| head.size);
        let known = *self.leaves.entry(tenant.clone()).or_insert(size);
        assert_eq!(known, size, "leaves in the log of {tenant}");
    }
}
