//! The test bed: an engine, the governor's half of the permits, a clock, ids, and short ways to say common things.

use crate::{SeededIds, VirtualClock};
use futures::future::BoxFuture;
use kernel::changeset::{Changeset, Draft, NewJob, Operation, Outcome, Put};
use kernel::permit::{Authority, Decision, Grant, JobKind, Mint, Permit, Seal, permit_pair};
use kernel::{Effect, Fact, Id, Lease, TenantId, merkle};
use std::sync::Arc;
use store::{Clock, CommitError, Committed, LeafRow, Sequencing, Store};

/// Where an engine under test keeps its data. It outlives the engine, so that the engine can be opened again.
pub trait Home: Send + Sync + 'static {
    /// Opens the engine, creating it the first time.
    fn open(&self, opening: Opening) -> BoxFuture<'_, Store>;
}

/// How an engine under test is opened.
pub struct Opening {
    /// The clock of leases and permits.
    pub clock: Arc<dyn Clock>,
    /// Opens the permits of this run.
    pub seal: Seal,
    /// Name of the installation.
    pub installation: String,
    /// Name of the cell.
    pub cell: String,
    /// When facts get their place.
    pub sequencing: Sequencing,
}

/// Kind of the records that cases write.
pub(crate) const ITEM: &str = "test.item";
/// Another kind, also permitted.
pub(crate) const OTHER: &str = "test.other";
/// Kind of the facts that cases state.
pub(crate) const DONE: &str = "test.item.done";
/// Another kind of facts, also permitted.
pub(crate) const NOTED: &str = "test.item.noted";
/// A kind of job with a lease of ten seconds; its completion may write items.
pub(crate) static WORK: JobKind =
    JobKind { name: "test.work", writes: &[ITEM], facts: &[DONE], lease_ms: 10_000, starts_max: 3 };
/// A kind of job with a lease of one minute; its completion may write nothing.
pub(crate) static IDLE: JobKind =
    JobKind { name: "test.idle", writes: &[], facts: &[DONE, NOTED], lease_ms: 60_000, starts_max: 3 };
/// Both kinds.
pub(crate) static KINDS: &[&JobKind] = &[&WORK, &IDLE];

/// An engine with all that is needed to write to it.
pub struct Bed {
    home: Box<dyn Home>,
    store: Option<Store>,
    /// The clock of the engine.
    pub clock: Arc<VirtualClock>,
    /// The governor's half.
    pub mint: Mint,
    /// Ids of facts and jobs.
    pub ids: SeededIds,
    /// The mode in which the engine runs.
    pub sequencing: Sequencing,
}

impl Bed {
    /// Opens a fresh engine.
    pub async fn start(home: impl Home, sequencing: Sequencing) -> Bed {
        let (mint, seal) = permit_pair();
        let clock = Arc::new(VirtualClock::default());
        let mut bed =
            Bed { home: Box::new(home), store: None, clock, mint, ids: SeededIds::new(1), sequencing };
        bed.open(seal).await;
        bed
    }

    async fn open(&mut self, seal: Seal) {
        let opening = Opening {
            clock: self.clock.clone(),
            seal,
            installation: "writ.test".into(),
            cell: "local".into(),
            sequencing: self.sequencing,
        };
        self.store = Some(self.home.open(opening).await);
    }

    /// Closes the engine and opens it again, as a restart of the process does: with a new pair of mint and seal.
    pub async fn restart(&mut self) {
        self.store = None;
        let (mint, seal) = permit_pair();
        self.mint = mint;
        self.open(seal).await;
    }

    /// Restarts in another mode.
    pub async fn restart_as(&mut self, sequencing: Sequencing) {
        self.sequencing = sequencing;
        self.restart().await;
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("the bed is open between its own calls")
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn deferred(&self) -> bool {
        self.sequencing == Sequencing::Deferred
    }

    /// Creates a tenant, `ten_<name>`; its log has one fact.
    pub async fn tenant(&self, name: &str) -> TenantId {
        let tenant = tenant_id(name);
        self.genesis(&tenant, vec![]).await.expect("the tenant is new");
        self.settle().await;
        tenant
    }

    /// Creates a tenant with these operations and one fact.
    pub async fn genesis(
        &self,
        tenant: &TenantId,
        operations: Vec<Operation>,
    ) -> Result<Committed, CommitError> {
        let draft = self.draft(operations, "run_genesis");
        let changeset = Changeset::genesis(tenant.clone(), authority(), draft).expect("within limits");
        self.store().commit(changeset).await
    }

    pub(crate) fn fact(&self, stream: &str) -> Fact {
        Fact {
            id: Id::mint("fct", self.ids.uuid_at(self.now_ms())),
            kind: DONE,
            stream: id(stream),
            resource: "local/ten_a/test.item/rec_a".into(),
            causes: vec![],
            outcome: serde_json::json!({"n": 1}),
            aside: None,
        }
    }

    /// A draft with one fact of `stream`.
    pub(crate) fn draft(&self, operations: Vec<Operation>, stream: &str) -> Draft {
        Draft { at_ms: self.now_ms(), operations, facts: vec![self.fact(stream)] }
    }

    pub(crate) fn grant(&self, tenant: &TenantId) -> Grant {
        Grant {
            tenant: tenant.clone(),
            authority: authority(),
            args_digest: [1; 32],
            args_commitment: Some([2; 32]),
            approvals: vec![],
            writes: &[ITEM, OTHER],
            facts: &[DONE, NOTED],
            expires_at_ms: self.now_ms() + 60_000,
        }
    }

    pub(crate) fn permit(&self, tenant: &TenantId) -> Permit {
        self.mint.permit(self.grant(tenant))
    }

    /// A permitted changeset with one fact.
    pub(crate) fn changeset(&self, tenant: &TenantId, operations: Vec<Operation>) -> Changeset {
        self.changeset_of(tenant, self.draft(operations, "run_a"))
    }

    pub(crate) fn changeset_of(&self, tenant: &TenantId, draft: Draft) -> Changeset {
        Changeset::under(vec![self.permit(tenant)], draft).expect("within limits")
    }

    /// Commits operations under a permit, with one fact.
    pub async fn commit(
        &self,
        tenant: &TenantId,
        operations: Vec<Operation>,
    ) -> Result<Committed, CommitError> {
        self.store().commit(self.changeset(tenant, operations)).await
    }

    /// Commits what has to succeed.
    pub(crate) async fn done(&self, tenant: &TenantId, operations: Vec<Operation>) -> Committed {
        self.commit(tenant, operations).await.expect("nothing stands in the way")
    }

    pub(crate) async fn draft_commit(
        &self,
        tenant: &TenantId,
        draft: Draft,
    ) -> Result<Committed, CommitError> {
        self.store().commit(self.changeset_of(tenant, draft)).await
    }

    /// Completes a job with one fact.
    pub(crate) async fn complete(
        &self,
        lease: Lease,
        operations: Vec<Operation>,
    ) -> Result<Committed, CommitError> {
        let draft = self.draft(operations, "run_a");
        self.store().commit(Changeset::continuing(lease, draft).expect("within limits")).await
    }

    pub(crate) async fn claim(&self, limit: usize) -> Vec<Lease> {
        self.store().jobs_claim(KINDS, limit).await.expect("storage works")
    }

    /// Gives every waiting fact its place.
    pub async fn settle(&self) {
        while self.store().sequence(usize::MAX).await.expect("storage works") > 0 {}
    }

    /// The revision of an item.
    pub async fn rev(&self, tenant: &TenantId, item: &str) -> Option<u64> {
        let row = self.store().record(tenant, ITEM, &id(item)).await.expect("storage works");
        row.map(|row| row.rev)
    }

    /// The body of an item.
    pub async fn body(&self, tenant: &TenantId, item: &str) -> Option<Vec<u8>> {
        let row = self.store().record(tenant, ITEM, &id(item)).await.expect("storage works");
        row.map(|row| row.body)
    }

    /// The size of a tenant's log, which it must have.
    pub async fn size(&self, tenant: &TenantId) -> u64 {
        self.store().head(tenant).await.expect("storage works").expect("the tenant has a log").size
    }

    /// Every leaf of a tenant's log.
    pub async fn leaves(&self, tenant: &TenantId) -> Vec<LeafRow> {
        let mut leaves: Vec<LeafRow> = Vec::new();
        loop {
            let from = leaves.len() as u64;
            let page = self.store().leaves(tenant, from, usize::MAX).await.expect("storage works");
            if page.is_empty() {
                return leaves;
            }
            leaves.extend(page);
        }
    }

    /// Checks all that must hold of a log at any time, and returns its leaves: indexes without a gap, a root that is
    /// that of the leaves, leaves in canonical form that belong here, streams that count 1, 2, 3 in order.
    pub async fn log_checked(&self, tenant: &TenantId) -> Vec<LeafRow> {
        let leaves = self.leaves(tenant).await;
        let head = self.store().head(tenant).await.expect("storage works").expect("the tenant has a log");
        assert_eq!(head.size, leaves.len() as u64, "the head counts the leaves");
        let hashes: Vec<_> = leaves.iter().map(|row| merkle::leaf_hash(&row.leaf)).collect();
        assert_eq!(head.root, merkle::root_of(&hashes), "the head's root is that of the leaves");
        let mut streams = std::collections::HashMap::new();
        for (n, row) in leaves.iter().enumerate() {
            assert_eq!(row.index, n as u64, "indexes have no gap");
            let leaf = kernel::fact::read(&row.leaf).expect("a leaf is canonical and complete");
            assert_eq!(leaf.origin, head.origin);
            let last = streams.entry(leaf.stream.to_string()).or_insert(0);
            *last += 1;
            assert_eq!(leaf.stream_n, *last, "stream {} has no gap and is in order", leaf.stream);
        }
        leaves
    }
}

/// An id that is well formed.
pub fn id(text: &str) -> Id {
    Id::parse(text).expect("ids in tests are well formed")
}

/// The tenant `ten_<name>`.
pub fn tenant_id(name: &str) -> TenantId {
    TenantId::parse(&format!("ten_{name}")).expect("ids in tests are well formed")
}

pub(crate) fn authority() -> Authority {
    Authority {
        actor: id("prn_alice"),
        on_behalf_of: vec![id("prn_bob")],
        act: "test.item.change".into(),
        decision: Some(Decision { id: id("dec_1"), effect: Effect::Allow }),
        policy: Some("ab12".into()),
        assurance: Some("key".into()),
        trace: "trace-1".into(),
    }
}

/// A new item; say what differs with the update syntax.
pub fn item(item: &str) -> Put {
    Put { kind: ITEM, id: id(item), rev: None, body: item.into(), indexes: vec![], uniques: vec![] }
}

/// Puts a new item.
pub fn new(name: &str) -> Operation {
    Operation::Put(item(name))
}

/// Puts an item over revision `rev`.
pub(crate) fn update(name: &str, rev: u64, body: &str) -> Operation {
    Operation::Put(Put { rev: Some(rev), body: body.into(), ..item(name) })
}

pub(crate) fn delete(name: &str, rev: u64) -> Operation {
    Operation::Delete { kind: ITEM, id: id(name), rev }
}

pub(crate) fn expect(name: &str, rev: Option<u64>) -> Operation {
    Operation::Expect { kind: ITEM, id: id(name), rev }
}

/// A job of kind [`WORK`], to be claimed from `ready_at_ms` on.
pub(crate) fn job(name: &str, ready_at_ms: i64) -> NewJob {
    NewJob { id: id(name), kind: &WORK, ready_at_ms, body: name.into(), held: false }
}

pub(crate) fn outcome(key: &str) -> Outcome {
    Outcome {
        principal: id("prn_alice"),
        act: "test.item.change".into(),
        key: key.into(),
        args_digest: [5; 32],
        body: b"done".to_vec(),
    }
}
