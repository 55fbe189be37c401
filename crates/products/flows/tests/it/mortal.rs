//! A store in whose commits a process can die: before the commit, or after it and before anybody hears of it.
//!
//! It stands around a real engine and passes everything on. When its time has come, a commit is carried out or not, and
//! never returns; whoever drives the process sees that it is dead and drops it.

use kernel::changeset::Changeset;
use kernel::permit::JobKind;
use kernel::{Digest, Id, Lease, TenantId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use store::sqlite::Sqlite;
use store::{
    CheckpointRow, CommitError, Committed, Engine, Head, Hints, IndexedRow, JobRow, KeptOutcome, LeafRow,
    Pending, Range, ReadError, Row,
};

/// When the process dies.
#[derive(Debug, Default)]
pub struct Fate {
    /// Commits that still go through; negative for ever.
    left: AtomicI64,
    /// Whether the last one is carried out.
    after: AtomicBool,
    /// Whether it has died.
    dead: AtomicBool,
}

impl Fate {
    /// The process dies in its commit number `commit`, from 0: before it, or right after it.
    pub fn dies_in(&self, commit: i64, after: bool) {
        self.after.store(after, Ordering::SeqCst);
        self.left.store(commit, Ordering::SeqCst);
    }

    /// It lives for ever.
    pub fn spared(&self) {
        self.left.store(-1, Ordering::SeqCst);
        self.dead.store(false, Ordering::SeqCst);
    }

    /// Whether it has died.
    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// The store.
pub struct Mortal {
    /// The real one.
    pub inner: Sqlite,
    /// When the process dies.
    pub fate: Arc<Fate>,
}

impl Engine for Mortal {
    fn commit(&self, changeset: Changeset) -> Pending<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let left = self.fate.left.load(Ordering::SeqCst);
            if left > 0 {
                self.fate.left.store(left - 1, Ordering::SeqCst);
            }
            if left == 0 {
                let committed = match self.fate.after.load(Ordering::SeqCst) {
                    true => Some(self.inner.commit(changeset).await),
                    false => None,
                };
                self.fate.dead.store(true, Ordering::SeqCst);
                tokio::task::yield_now().await;
                // What it would have said is never heard.
                drop(committed);
                return std::future::pending().await;
            }
            self.inner.commit(changeset).await
        })
    }

    fn record<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.inner.record(tenant, kind, id)
    }

    fn record_list<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        self.inner.record_list(tenant, kind, range)
    }

    fn record_unique<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.inner.record_unique(tenant, kind, name, key)
    }

    fn record_unique_anywhere<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<(TenantId, Row)>, ReadError>> {
        self.inner.record_unique_anywhere(kind, name, key)
    }

    fn outcome<'a>(
        &'a self,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        self.inner.outcome(tenant, principal, act, key)
    }

    fn blob<'a>(
        &'a self,
        tenant: &'a TenantId,
        digest: &'a Digest,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.inner.blob(tenant, digest)
    }

    fn jobs_claim(
        &self,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'_, Result<Vec<Lease>, CommitError>> {
        self.inner.jobs_claim(kinds, limit)
    }

    fn job_renew<'a>(&'a self, lease: &'a Lease) -> Pending<'a, Result<bool, CommitError>> {
        self.inner.job_renew(lease)
    }

    fn jobs_next_due_ms(&self) -> Pending<'_, Result<Option<i64>, ReadError>> {
        self.inner.jobs_next_due_ms()
    }

    fn jobs<'a>(&'a self, tenant: &'a TenantId, limit: usize) -> Pending<'a, Result<Vec<JobRow>, ReadError>> {
        self.inner.jobs(tenant, limit)
    }

    fn tenants(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        self.inner.tenants()
    }

    fn head<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Option<Head>, ReadError>> {
        self.inner.head(tenant)
    }

    fn leaves<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        self.inner.leaves(tenant, from, limit)
    }

    fn stream<'a>(
        &'a self,
        tenant: &'a TenantId,
        stream: &'a Id,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        self.inner.stream(tenant, stream, from, limit)
    }

    fn aside<'a>(
        &'a self,
        tenant: &'a TenantId,
        fact: &'a Id,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.inner.aside(tenant, fact)
    }

    fn proof<'a>(
        &'a self,
        tenant: &'a TenantId,
        size: u64,
        indices: Vec<u64>,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        self.inner.proof(tenant, size, indices)
    }

    fn consistency<'a>(
        &'a self,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        self.inner.consistency(tenant, old, new)
    }

    fn sequence(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.inner.sequence(limit)
    }

    fn checkpoint_put<'a>(
        &'a self,
        tenant: &'a TenantId,
        checkpoint: kernel::note::Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        self.inner.checkpoint_put(tenant, checkpoint, note)
    }

    fn checkpoints<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<CheckpointRow>, ReadError>> {
        self.inner.checkpoints(tenant, after, limit)
    }

    fn checkpoint_last<'a>(
        &'a self,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<CheckpointRow>, ReadError>> {
        self.inner.checkpoint_last(tenant)
    }

    fn account<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
    ) -> Pending<'a, Result<Option<kernel::ledger::Account>, ReadError>> {
        self.inner.account(tenant, account)
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: Option<&'a Id>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<kernel::ledger::Account>, ReadError>> {
        self.inner.accounts(tenant, after, limit)
    }

    fn transfer<'a>(
        &'a self,
        tenant: &'a TenantId,
        transfer: &'a Id,
    ) -> Pending<'a, Result<Option<store::ledger::TransferRow>, ReadError>> {
        self.inner.transfer(tenant, transfer)
    }

    fn statement<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<'a, Result<Option<store::ledger::Statement>, ReadError>> {
        self.inner.statement(tenant, account, before, limit)
    }

    fn holds_expire(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.inner.holds_expire(limit)
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }
}
