//! Where everything is kept, and the only room that knows SQL.
//!
//! The store speaks bytes: records with revisions and index keys, leaves of logs, jobs with epochs, outcomes under
//! idempotency keys. It knows nothing of what a kind means. Above the [`Engine`] trait sits a thin typed layer,
//! [`Document`] and [`View`], and that is all that domains see.
//!
//! Two engines stand behind one trait and one conformance suite (in `testkit`): the embedded one ([`sqlite`]) and, for
//! many machines, Postgres. A rule that one engine could keep and the other not does not belong in the trait.
//!
//! Three words for an acknowledgement, and what the store promises by them:
//!
//! - **durable**: [`Store::commit`] has returned; a crash or power loss does not take it back;
//! - **sequenced**: the facts have an index in the tenant's log. The embedded engine does it in the same commit unless
//!   it runs in [`Sequencing::Deferred`] mode, which exists so that nobody comes to rely on the former;
//! - **published**: a signed checkpoint covers them.
//!
//! Writes without a fact are the store's own mechanics and a closed set: claim, renew, sequence, checkpoint, tile, and
//! letting go of holds whose time has run out.

mod clock;
pub mod crash;
mod document;
pub mod files;
pub mod key;
pub mod ledger;
pub mod sqlite;
mod view;

pub use clock::{Clock, SystemClock};
pub use document::{Document, Found, Stored, decode};
pub use view::{Read, View, put_if, put_new};

use futures::future::BoxFuture;
use kernel::changeset::Changeset;
use kernel::permit::JobKind;
use kernel::{Digest, Id, Lease, TenantId};
use std::sync::Arc;

/// Most rows that a list returns; asking for more is asking for this many. Leaves have their own limit.
pub const PAGE_MAX: usize = 200;
/// Most leaves returned at once.
pub const LEAVES_MAX: usize = 10_000;
/// Most jobs claimed at once.
pub const CLAIM_MAX: usize = 256;
/// Most facts sequenced at once.
pub const SEQUENCE_MAX: usize = 4_096;
/// Most holds let go of at once.
pub const EXPIRE_MAX: usize = 1_000;
/// How long what is due and cannot be dealt with is left alone: a job of a kind that the claimer does not know, a job or
/// a hold whose row is damaged.
pub const PUT_OFF_MS: i64 = 60_000;

/// When facts get their place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sequencing {
    /// In the commit that states them.
    #[default]
    Immediate,
    /// Later, by [`Store::sequence`]; what an engine with many writers has to do.
    Deferred,
}

/// Why a commit did not happen. Whatever the variant, nothing of the changeset is visible.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Something it read or writes has moved, or exists already, or its idempotency key has been used meanwhile.
    /// Reading again and deciding again may succeed.
    #[error("{kind} {id} has changed meanwhile")]
    Conflict {
        /// Kind of the record in the way.
        kind: String,
        /// Its id.
        id: String,
    },
    /// The job's lease has been lost to a later claim; the work belongs to somebody else now.
    #[error("the job is no longer leased under this epoch")]
    Fenced,
    /// The permit, refusal or lease is not this store's or is past its time.
    #[error(transparent)]
    Permit(#[from] kernel::permit::PermitError),
    /// A record or fact of a kind that the origin does not cover.
    #[error("{0} is outside what was permitted")]
    OutsidePermit(String),
    /// There is no such tenant, or genesis was asked for a tenant whose log is not empty.
    #[error("the tenant's log is not in the state that the changeset needs")]
    Log,
    /// An account has not enough left for what is to be moved or held, or no room for it. Nothing of the changeset was
    /// done; others in the same group commit were not touched.
    #[error("account {account} has not enough left")]
    Insufficient {
        /// The account.
        account: Id,
    },
    /// The ledger does not do it: the transfer contradicts what stands there, or itself.
    #[error("a transfer is refused: {0}")]
    Ledger(kernel::ledger::Refused),
    /// A fact does not fit its format.
    #[error(transparent)]
    Leaf(#[from] kernel::fact::LeafError),
    /// There is more in it than a changeset holds, or something in it is larger than its limit.
    #[error(
        "a change holds at most {} operations and facts, of at most {} bytes each",
        kernel::changeset::OPERATIONS_MAX,
        kernel::changeset::BODY_BYTES_MAX
    )]
    TooLarge,
    /// The tenant has too many commits waiting; later may succeed.
    #[error("too many commits of this tenant are waiting")]
    Overloaded,
    /// There is no room left on the device; nothing was written.
    #[error("the storage device is full")]
    Full,
    /// The engine has stopped or failed and takes no more writes.
    #[error("storage has failed: {0}")]
    Failed(String),
}

/// Why a read did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error("storage has failed: {0}")]
    Failed(String),
    /// A stored document cannot be understood by this version.
    #[error("{kind} {id} is stored in a form that this version cannot read")]
    Unreadable {
        /// Kind of the record.
        kind: String,
        /// Its id.
        id: String,
    },
}

/// What a commit returned.
#[derive(Debug, Default)]
pub struct Committed {
    /// Index in the log of the first fact; `None` while it waits to be sequenced.
    pub first_index: Option<u64>,
    /// Leases on the jobs that were enqueued as held, in the order of the changeset.
    pub held: Vec<Lease>,
}

/// A record as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: Id,
    /// Its revision, raised by every write. The first record of a kind begins at 1; one made under the id of a deleted
    /// record begins above whatever that one had, so an old revision never fits a new record.
    pub rev: u64,
    /// The document.
    pub body: Vec<u8>,
}

/// A record found by an index, with the key that it was found under.
pub type IndexedRow = (Vec<u8>, Row);

/// The outcome kept under an idempotency key: the digest of the arguments, and the body.
pub type KeptOutcome = (Digest, Vec<u8>);

/// A range of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Name of the index.
    pub index: &'static str,
    /// Keys that start with this.
    pub prefix: Vec<u8>,
    /// Only what comes after this (key, id); for paging.
    pub after: Option<(Vec<u8>, Id)>,
    /// Largest keys first.
    pub descending: bool,
    /// At most so many rows; capped at [`PAGE_MAX`].
    pub limit: usize,
}

impl Range {
    /// The first page of everything under `prefix`.
    pub fn of(index: &'static str, prefix: Vec<u8>) -> Range {
        Range { index, prefix, after: None, descending: false, limit: PAGE_MAX }
    }
}

/// A leaf with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRow {
    /// Its index in the log.
    pub index: u64,
    /// The bytes that were hashed.
    pub leaf: Vec<u8>,
}

/// The head of a tenant's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log's origin line.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
    /// Chain over the batches: SHA-256(previous ‖ size ‖ root). A cut or rewritten tail shows in plain SQL.
    pub batch_hash: Digest,
}

/// A signed checkpoint, as kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Number of leaves it covers.
    pub size: u64,
    /// The signed note.
    pub note: String,
}

/// Where the installation's history stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The epoch that every log is to be in; 1 until somebody opens another.
    pub epoch: u64,
    /// How many checkpoints were ever kept, of all logs.
    pub generation: u64,
    /// Why nothing may be signed until another epoch is opened: this folder was restored, or is older than what stood in
    /// its place before. `None`: nothing is known against it.
    pub put_back: Option<String>,
}

/// Where a log went from one epoch to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// The epoch that began.
    pub epoch: u64,
    /// The origin under which the log was signed before.
    pub previous: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
    /// How many leaves it took over.
    pub size: u64,
    /// Root over them.
    pub root: Digest,
}

/// The epoch in an origin: its last part. `None`: the text names no log.
pub fn epoch_of(origin: &str) -> Option<u64> {
    origin.rsplit_once('/')?.1.parse().ok()
}

/// A waiting or running job, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// `job_…`
    pub id: Id,
    /// Its kind.
    pub kind: String,
    /// When it may be claimed, or until when it is leased; milliseconds UTC.
    pub due_ms: i64,
    /// How often it has been started.
    pub starts: u32,
}

/// What an engine returns later.
pub type Pending<'a, T> = BoxFuture<'a, T>;

/// An engine: embedded or a database server. Object-safe, so that nothing above is generic over it.
pub trait Engine: Send + Sync + 'static {
    /// Commits a changeset; returns when it is durable. A caller who stops waiting does not stop the commit.
    ///
    /// Ids of jobs are minted and not used again once the job has been claimed: the epoch that fences a job counts
    /// its own claims alone.
    fn commit(&self, changeset: Changeset) -> Pending<'_, Result<Committed, CommitError>>;
    /// Reads a record.
    fn record<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>>;
    /// Lists records by an index, each with its index key.
    fn record_list<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>>;
    /// Finds a record by a unique key.
    fn record_unique<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>>;
    /// Finds a record by a unique key in any tenant: for credentials, which arrive before the tenant is known. Of
    /// several tenants that use the same key the first in order is returned, so such keys have to be unguessable.
    fn record_unique_anywhere<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<(TenantId, Row)>, ReadError>>;
    /// Reads the outcome under an idempotency key.
    fn outcome<'a>(
        &'a self,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>>;
    /// Reads bytes by their digest.
    fn blob<'a>(
        &'a self,
        tenant: &'a TenantId,
        digest: &'a Digest,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>>;
    /// Claims due jobs, round robin over tenants; at most [`CLAIM_MAX`].
    ///
    /// `kinds` are *all* kinds that this process can carry out: a due job of any other kind is put off by
    /// [`PUT_OFF_MS`], so that work which only a newer version knows does not stand in the way. So is one that is damaged.
    fn jobs_claim(
        &self,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'_, Result<Vec<Lease>, CommitError>>;
    /// Prolongs a lease by its kind's time. `false`: it has been lost.
    fn job_renew<'a>(&'a self, lease: &'a Lease) -> Pending<'a, Result<bool, CommitError>>;
    /// When the next job is due; `None` without jobs.
    fn jobs_next_due_ms(&self) -> Pending<'_, Result<Option<i64>, ReadError>>;
    /// A tenant's jobs in order of their due time.
    fn jobs<'a>(&'a self, tenant: &'a TenantId, limit: usize) -> Pending<'a, Result<Vec<JobRow>, ReadError>>;
    /// Every tenant with a log, in order.
    fn tenants(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>>;
    /// The head of a tenant's log.
    fn head<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Option<Head>, ReadError>>;
    /// Leaves from an index on; at most [`LEAVES_MAX`].
    fn leaves<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>>;
    /// Leaves of one stream, from its number `from` on; at most [`LEAVES_MAX`]. Facts that wait to be sequenced are
    /// not among them.
    fn stream<'a>(
        &'a self,
        tenant: &'a TenantId,
        stream: &'a Id,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>>;
    /// The erasable side row of a fact.
    fn aside<'a>(
        &'a self,
        tenant: &'a TenantId,
        fact: &'a Id,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>>;
    /// A multi-proof for leaves of the tree of `size` ([`kernel::merkle::multi`]); `indices` in any order. An error if
    /// the log has not that many leaves.
    fn proof<'a>(
        &'a self,
        tenant: &'a TenantId,
        size: u64,
        indices: Vec<u64>,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>>;
    /// A consistency proof ([`kernel::merkle::consistency`]). An error if the log has not that many leaves.
    fn consistency<'a>(
        &'a self,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>>;
    /// Gives waiting facts their place, in the order of their commits; returns how many got one, at most
    /// [`SEQUENCE_MAX`].
    fn sequence(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>>;
    /// Keeps a signed checkpoint. Refused (`false`) unless its origin is the log's, its root is the log's at its size,
    /// it covers a larger tree than the last one kept, and the note is a note about it. Whether the signature holds is
    /// for its readers to verify.
    fn checkpoint_put<'a>(
        &'a self,
        tenant: &'a TenantId,
        checkpoint: kernel::note::Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>>;
    /// Checkpoints that cover more than `after` leaves, smallest first.
    fn checkpoints<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<CheckpointRow>, ReadError>>;
    /// The newest checkpoint.
    fn checkpoint_last<'a>(
        &'a self,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<CheckpointRow>, ReadError>>;
    /// An account of the ledger with its balance.
    fn account<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
    ) -> Pending<'a, Result<Option<kernel::ledger::Account>, ReadError>>;
    /// A tenant's accounts after an id, in order of their ids; at most [`PAGE_MAX`].
    fn accounts<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: Option<&'a Id>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<kernel::ledger::Account>, ReadError>>;
    /// A row of the ledger.
    fn transfer<'a>(
        &'a self,
        tenant: &'a TenantId,
        transfer: &'a Id,
    ) -> Pending<'a, Result<Option<ledger::TransferRow>, ReadError>>;
    /// An account and its rows before a number, newest first; at most [`PAGE_MAX`].
    fn statement<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<'a, Result<Option<ledger::Statement>, ReadError>>;
    /// Lets go of holds, of any tenant, whose time has run out by the engine's clock, oldest first; returns how many, at
    /// most [`EXPIRE_MAX`]. Each leaves a row [`kernel::ledger::Kind::Expired`]. Until then they count, and can be
    /// settled in full. One that is damaged is put off by [`PUT_OFF_MS`] and keeps what it holds.
    fn holds_expire(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>>;
    /// Where the installation's history stands.
    fn standing(&self) -> Pending<'_, Result<Standing, ReadError>>;
    /// The epochs that a log was moved to, first to last; none for a log that is in the one it was born in.
    fn epochs<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Vec<EpochRow>, ReadError>>;
    /// Tenants whose logs are not in the installation's epoch yet.
    fn tenants_behind(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>>;
    /// A counter that moves whenever facts were committed, and one that moves whenever jobs became due.
    fn hints(&self) -> Hints;
}

/// Coalesced wake-ups. They carry no data and may be missed without harm: whoever waits on one also looks by itself
/// now and then.
#[derive(Debug, Clone)]
pub struct Hints {
    /// Facts were committed.
    pub facts: tokio::sync::watch::Receiver<u64>,
    /// Jobs were enqueued.
    pub jobs: tokio::sync::watch::Receiver<u64>,
}

/// A store: an engine behind a shared handle.
#[derive(Clone)]
pub struct Store(Arc<dyn Engine>);

impl Store {
    /// Wraps an engine.
    pub fn new(engine: impl Engine) -> Store {
        Store(Arc::new(engine))
    }

    /// A view of one tenant's records as of `at_ms`.
    pub fn view(&self, tenant: &TenantId, at_ms: i64) -> View {
        View::new(self.clone(), tenant.clone(), at_ms)
    }
}

impl std::ops::Deref for Store {
    type Target = dyn Engine;
    fn deref(&self) -> &(dyn Engine + 'static) {
        &*self.0
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}
