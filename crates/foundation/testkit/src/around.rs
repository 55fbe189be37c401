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
    /// Commits.
    fn commit<'a>(
        &'a self,
        inner: &'a dyn Engine,
        changeset: Changeset,
    ) -> Pending<'a, Result<Committed, CommitError>> {
        self.write("commit", inner.commit(changeset))
    }

    /// Reads the head of a log.
    fn head<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<Head>, ReadError>> {
        self.read("head", inner.head(tenant))
    }

    /// Proves that one size of a log continues another.
    fn consistency<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        self.read("consistency", inner.consistency(tenant, old, new))
    }

    /// Keeps a checkpoint.
    fn checkpoint_put<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        checkpoint: Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        self.write("checkpoint_put", inner.checkpoint_put(tenant, checkpoint, note))
    }

    /// Around every read that has no method of its own here; `what` is the name of the engine's method.
    fn read<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        answer: Pending<'a, Result<T, ReadError>>,
    ) -> Pending<'a, Result<T, ReadError>> {
        let _ = what;
        answer
    }

    /// Around every write that has no method of its own here.
    fn write<'a, T: Send + 'a>(
        &'a self,
        what: &'static str,
        answer: Pending<'a, Result<T, CommitError>>,
    ) -> Pending<'a, Result<T, CommitError>> {
        let _ = what;
        answer
    }

    /// Reads a record.
    fn record<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.read("record", inner.record(tenant, kind, id))
    }

    /// Lists records.
    fn record_list<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        self.read("record_list", inner.record_list(tenant, kind, range))
    }

    /// Finds a record by a unique key.
    fn record_unique<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.read("record_unique", inner.record_unique(tenant, kind, name, key))
    }

    /// Reads an outcome.
    fn outcome<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        self.read("outcome", inner.outcome(tenant, principal, act, key))
    }

    /// Claims jobs.
    fn jobs_claim<'a>(
        &'a self,
        inner: &'a dyn Engine,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'a, Result<Vec<Lease>, CommitError>> {
        self.write("jobs_claim", inner.jobs_claim(kinds, limit))
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
        self.hook.record(&*self.inner, tenant, kind, id)
    }

    fn record_list<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        self.hook.record_list(&*self.inner, tenant, kind, range)
    }

    fn record_unique<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.hook.record_unique(&*self.inner, tenant, kind, name, key)
    }

    fn record_unique_anywhere<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<(TenantId, Row)>, ReadError>> {
        self.hook.read("record_unique_anywhere", self.inner.record_unique_anywhere(kind, name, key))
    }

    fn outcome<'a>(
        &'a self,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        self.hook.outcome(&*self.inner, tenant, principal, act, key)
    }

    fn blob<'a>(
        &'a self,
        tenant: &'a TenantId,
        digest: &'a Digest,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.hook.read("blob", self.inner.blob(tenant, digest))
    }

    fn jobs_claim(
        &self,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'_, Result<Vec<Lease>, CommitError>> {
        self.hook.jobs_claim(&*self.inner, kinds, limit)
    }

    fn job_renew<'a>(&'a self, lease: &'a Lease) -> Pending<'a, Result<bool, CommitError>> {
        self.hook.write("job_renew", self.inner.job_renew(lease))
    }

    fn jobs_next_due_ms(&self) -> Pending<'_, Result<Option<i64>, ReadError>> {
        self.hook.read("jobs_next_due_ms", self.inner.jobs_next_due_ms())
    }

    fn jobs<'a>(&'a self, tenant: &'a TenantId, limit: usize) -> Pending<'a, Result<Vec<JobRow>, ReadError>> {
        self.hook.read("jobs", self.inner.jobs(tenant, limit))
    }

    fn tenants(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        self.hook.read("tenants", self.inner.tenants())
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
        self.hook.read("leaves", self.inner.leaves(tenant, from, limit))
    }

    fn stream<'a>(
        &'a self,
        tenant: &'a TenantId,
        stream: &'a Id,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        self.hook.read("stream", self.inner.stream(tenant, stream, from, limit))
    }

    fn aside<'a>(
        &'a self,
        tenant: &'a TenantId,
        fact: &'a Id,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.hook.read("aside", self.inner.aside(tenant, fact))
    }

    fn proof<'a>(
        &'a self,
        tenant: &'a TenantId,
        size: u64,
        indices: Vec<u64>,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        self.hook.read("proof", self.inner.proof(tenant, size, indices))
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
        self.hook.write("sequence", self.inner.sequence(limit))
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
        self.hook.read("checkpoints", self.inner.checkpoints(tenant, after, limit))
    }

    fn checkpoint_last<'a>(
        &'a self,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<CheckpointRow>, ReadError>> {
        self.hook.read("checkpoint_last", self.inner.checkpoint_last(tenant))
    }

    fn account<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
    ) -> Pending<'a, Result<Option<kernel::ledger::Account>, ReadError>> {
        self.hook.read("account", self.inner.account(tenant, account))
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: Option<&'a Id>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<kernel::ledger::Account>, ReadError>> {
        self.hook.read("accounts", self.inner.accounts(tenant, after, limit))
    }

    fn transfer<'a>(
        &'a self,
        tenant: &'a TenantId,
        transfer: &'a Id,
    ) -> Pending<'a, Result<Option<store::ledger::TransferRow>, ReadError>> {
        self.hook.read("transfer", self.inner.transfer(tenant, transfer))
    }

    fn statement<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<'a, Result<Option<store::ledger::Statement>, ReadError>> {
        self.hook.read("statement", self.inner.statement(tenant, account, before, limit))
    }

    fn holds_expire(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.hook.write("holds_expire", self.inner.holds_expire(limit))
    }

    fn standing(&self) -> Pending<'_, Result<Standing, ReadError>> {
        self.hook.read("standing", self.inner.standing())
    }

    fn epochs<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Vec<EpochRow>, ReadError>> {
        self.hook.read("epochs", self.inner.epochs(tenant))
    }

    fn tenants_behind(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        self.hook.read("tenants_behind", self.inner.tenants_behind())
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }
}
