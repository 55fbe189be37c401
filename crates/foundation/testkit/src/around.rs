//! A store around a store: what a test wants changed is changed, everything else is passed on.
//!
//! Tests of what happens when storage dies, lies or refuses need an engine that is real but for one answer. They write a
//! [`Hook`] with that one method and put it [`Around`] a real engine; the thirty methods that only pass on stand here, once.
//! A method that a new test wants to change moves from [`Around`] into [`Hook`], with passing on as its default.

use kernel::changeset::Changeset;
use kernel::note::Checkpoint;
use kernel::permit::JobKind;
use kernel::{Digest, Id, Lease, TenantId};
use store::{
    CheckpointRow, CommitError, Committed, Engine, EpochRow, Head, Hints, IndexedRow, JobRow, KeptOutcome,
    LeafRow, Pending, Range, ReadError, Row, Standing, Store,
};

/// What is different about a store. Each method is handed the real engine, and by default asks it.
pub trait Hook: Send + Sync + 'static {
    /// Hears of a record that is read, and by which way of reading.
    fn reads(&self, _way: &'static str) {}

    /// Commits.
    fn commit<'a>(
        &'a self,
        inner: &'a dyn Engine,
        changeset: Changeset,
    ) -> Pending<'a, Result<Committed, CommitError>> {
        inner.commit(changeset)
    }

    /// Reads the head of a log.
    fn head<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<Head>, ReadError>> {
        inner.head(tenant)
    }

    /// Proves that one size of a log continues another.
    fn consistency<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        inner.consistency(tenant, old, new)
    }

    /// Keeps a checkpoint.
    fn checkpoint_put<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        checkpoint: Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        inner.checkpoint_put(tenant, checkpoint, note)
    }
}

/// A real engine with a hook.
pub struct Around<H> {
    inner: Store,
    hook: H,
}

impl<H: Hook> Around<H> {
    /// Puts `hook` around `inner`.
    pub fn new(inner: Store, hook: H) -> Around<H> {
        Around { inner, hook }
    }
}

impl<H: Hook> Engine for Around<H> {
    fn commit(&self, changeset: Changeset) -> Pending<'_, Result<Committed, CommitError>> {
        self.hook.commit(&*self.inner, changeset)
    }

    fn record<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.hook.reads("record");
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
        self.hook.reads("record_unique_anywhere");
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
        self.hook.head(&*self.inner, tenant)
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
        self.hook.consistency(&*self.inner, tenant, old, new)
    }

    fn sequence(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.inner.sequence(limit)
    }

    fn checkpoint_put<'a>(
        &'a self,
        tenant: &'a TenantId,
        checkpoint: Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        self.hook.checkpoint_put(&*self.inner, tenant, checkpoint, note)
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

    fn standing(&self) -> Pending<'_, Result<Standing, ReadError>> {
        self.inner.standing()
    }

    fn epochs<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Vec<EpochRow>, ReadError>> {
        self.inner.epochs(tenant)
    }

    fn tenants_behind(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        self.inner.tenants_behind()
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }
}
