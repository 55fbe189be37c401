//! A store whose every call waits at a gate, and whose every answer is compared with the model.

use super::{Gates, Mirror, Verdict};
use crate::around::Hook;
use kernel::changeset::{Changeset, Origin};
use kernel::permit::JobKind;
use kernel::{Id, Lease, TenantId};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{CommitError, Committed, Engine, Head, IndexedRow, KeptOutcome, Pending, Range, ReadError, Row};

/// To be put [`Around`](crate::around::Around) an engine.
///
/// Each write has two gates: before it, where it may be refused or carried out and called failed, and after it, where its
/// caller may be kept from hearing of it for as long as the schedule likes. A read has one.
#[derive(Debug, Clone)]
pub struct Gated {
    gates: Gates,
    mirror: Arc<Mutex<Mirror>>,
    reads: bool,
}

fn failed() -> CommitError {
    CommitError::Failed("as the simulation wants it".into())
}

impl Gated {
    /// Gates of a schedule; `reads` says whether reads wait as well.
    pub fn new(gates: Gates, mirror: Arc<Mutex<Mirror>>, reads: bool) -> Gated {
        Gated { gates, mirror, reads }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        // Whoever panicked while holding it has found what was looked for.
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a changeset apart and puts two together: one to be committed, one to tell the mirror of.
fn copied(changeset: Changeset) -> (Changeset, TenantId, kernel::Draft, Option<(Id, u64)>) {
    let (tenant, origin, draft) = changeset.into_parts();
    let copy = draft.clone();
    let mut completes = None;
    let whole = match origin {
        Origin::Under(permits) => Changeset::under(permits, draft),
        Origin::Refused(refusal) => Changeset::refused(refusal, draft),
        Origin::Continuing(lease) => {
            completes = Some((lease.id.clone(), lease.epoch));
            Changeset::continuing(lease, draft)
        }
        Origin::Genesis { authority } => Changeset::genesis(tenant.clone(), authority, draft),
    };
    (whole.expect("it was whole before"), tenant, copy, completes)
}

impl Hook for Gated {
    fn read<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        answer: Pending<'a, Result<T, ReadError>>,
    ) -> Pending<'a, Result<T, ReadError>> {
        Box::pin(async move {
            let verdict = if self.reads { self.gates.before(what).await } else { Verdict::Go };
            match verdict {
                Verdict::Go => answer.await,
                // Of a read there is nothing to lose but its answer.
                Verdict::Refuse | Verdict::Lose => {
                    Err(ReadError::Failed("as the simulation wants it".into()))
                }
            }
        })
    }

    fn write<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        answer: Pending<'a, Result<T, CommitError>>,
    ) -> Pending<'a, Result<T, CommitError>> {
        Box::pin(async move {
            let verdict = self.gates.before(what).await;
            if verdict == Verdict::Refuse {
                return Err(failed());
            }
            let underway = self.gates.begin();
            let answer = answer.await;
            drop(underway);
            let answer = answer?;
            match (verdict, self.gates.after(what).await) {
                (Verdict::Go, Verdict::Go) => Ok(answer),
                _ => Err(failed()),
            }
        })
    }

    fn commit<'a>(
        &'a self,
        inner: &'a dyn Engine,
        changeset: Changeset,
    ) -> Pending<'a, Result<Committed, CommitError>> {
        let (changeset, tenant, draft, completes) = copied(changeset);
        let told = Box::pin(async move {
            let answer = inner.commit(changeset).await;
            self.mirror().commit(&tenant, &draft, completes, &answer);
            answer
        });
        self.write("commit", told)
    }

    fn jobs_claim<'a>(
        &'a self,
        inner: &'a dyn Engine,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'a, Result<Vec<Lease>, CommitError>> {
        let told = Box::pin(async move {
            let answer = inner.jobs_claim(kinds, limit).await;
            self.mirror().claimed(answer.as_deref().unwrap_or_default());
            answer
        });
        self.write("jobs_claim", told)
    }

    fn record<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        let told = Box::pin(async move {
            let row = inner.record(tenant, kind, id).await?;
            self.mirror().record(tenant, kind, id, row.as_ref());
            Ok(row)
        });
        self.read("record", told)
    }

    fn record_list<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        let told = Box::pin(async move {
            let rows = inner.record_list(tenant, kind, range.clone()).await?;
            self.mirror().list(tenant, kind, &range, &rows);
            Ok(rows)
        });
        self.read("record_list", told)
    }

    fn record_unique<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        let told = Box::pin(async move {
            let row = inner.record_unique(tenant, kind, name, key).await?;
            self.mirror().unique(tenant, kind, (name, key), row.as_ref());
            Ok(row)
        });
        self.read("record_unique", told)
    }

    fn outcome<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        let told = Box::pin(async move {
            let kept = inner.outcome(tenant, principal, act, key).await?;
            self.mirror().outcome(tenant, (principal, act, key), kept.as_ref());
            Ok(kept)
        });
        self.read("outcome", told)
    }

    fn head<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<Head>, ReadError>> {
        let told = Box::pin(async move {
            let head = inner.head(tenant).await?;
            self.mirror().head(tenant, head.as_ref());
            Ok(head)
        });
        self.read("head", told)
    }
}
