//! Sealing: the step of the checkpoint worker that signs the head of a tenant's log.
//!
//! A checkpoint says "this log has so many leaves and this root", once and for ever. Signing two that contradict each
//! other cannot be taken back, so before it signs, this step looks at what was signed last and stops loudly if the log
//! that it sees is not a continuation: smaller (a restored backup), another root at the same size, or no consistency proof
//! from the one to the other (a rewritten row). An operator then has to open a new epoch; nothing here does that by itself.
//!
//! The order is: read the head, which is durable; sign exactly that; keep the note; only then may anybody see it. A crash
//! between signing and keeping loses a note that nobody saw.
//!
//! A backup restored *with* its checkpoints looks whole from here. The store knows of it by its mark, or because whoever
//! restored it said so ([`store::Standing::put_back`]); then nothing is signed at all until an epoch is opened
//! ([`crate::epoch`]). What it cannot see is a copy put back together with its mark. That is found by whoever outside
//! still holds a newer checkpoint.
//!
//! A log is signed only in the installation's epoch. Its last checkpoint may be of an earlier one: it is verified under
//! the origin that it names, and what is signed now has to continue it all the same.

use crate::signing::Signing;
use crate::trust;
use act::{Class, Coded};
use kernel::TenantId;
use kernel::merkle;
use kernel::note::{Checkpoint, VerifierKey};
use store::{CheckpointRow, CommitError, ReadError, Store};

/// Why a head was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The log is smaller than the last checkpoint, or has another root at its size.
    #[error("the log of {tenant} has {size} facts and its last checkpoint {kept}: it went back")]
    Regressed {
        /// Whose log.
        tenant: TenantId,
        /// Its size.
        size: u64,
        /// Size of the last checkpoint.
        kept: u64,
    },
    /// The log is larger and does not continue the last checkpoint.
    #[error("the log of {tenant} does not continue its last checkpoint at {kept} facts: it was rewritten")]
    Rewritten {
        /// Whose log.
        tenant: TenantId,
        /// Size of the last checkpoint.
        kept: u64,
    },
    /// The last checkpoint is not one that the installation's key signed for this log.
    #[error("the last checkpoint of {tenant} is not signed by this installation's key for its log")]
    Foreign {
        /// Whose log.
        tenant: TenantId,
    },
    /// The installation was put back, and no epoch has been opened since.
    #[error("nothing is signed until an epoch is opened: {why}")]
    PutBack {
        /// How it is known.
        why: String,
    },
    /// The log has not followed the installation into its epoch yet.
    #[error("the log of {tenant} is not in the installation's epoch yet")]
    Behind {
        /// Whose log.
        tenant: TenantId,
    },
    /// The store did not keep the checkpoint.
    #[error("the checkpoint of {tenant} was refused by the store")]
    Refused {
        /// Whose log.
        tenant: TenantId,
    },
    /// Storage cannot be read.
    #[error("storage cannot be read")]
    Read(#[from] ReadError),
    /// Storage cannot be written.
    #[error("storage cannot be written")]
    Commit(#[from] CommitError),
}

impl Coded for SealError {
    fn code(&self) -> &'static str {
        match self {
            SealError::Regressed { .. } => "evidence.log_regressed",
            SealError::Rewritten { .. } => "evidence.log_rewritten",
            SealError::Foreign { .. } => "evidence.checkpoint_foreign",
            SealError::PutBack { .. } => "evidence.put_back",
            SealError::Behind { .. } => "evidence.epoch_behind",
            SealError::Refused { .. } => "evidence.checkpoint_refused",
            SealError::Read(error) => error.code(),
            SealError::Commit(error) => error.code(),
        }
    }
    fn class(&self) -> Class {
        match self {
            SealError::Regressed { .. } | SealError::Rewritten { .. } | SealError::Foreign { .. } => {
                Class::Internal
            }
            SealError::PutBack { .. } | SealError::Behind { .. } => Class::Unavailable,
            SealError::Refused { .. } => Class::Contention,
            SealError::Read(error) => error.class(),
            SealError::Commit(error) => error.class(),
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// The tenant has no log, or an empty one.
    Nothing,
    /// The last checkpoint covers everything.
    Unchanged(CheckpointRow),
    /// A new checkpoint.
    New(CheckpointRow),
}

impl Sealed {
    /// The newest checkpoint, if there is one.
    pub fn newest(self) -> Option<CheckpointRow> {
        match self {
            Sealed::Nothing => None,
            Sealed::Unchanged(row) | Sealed::New(row) => Some(row),
        }
    }
}

/// How often the step is repeated when somebody else kept a checkpoint meanwhile.
const TRIES_MAX: u32 = 3;

/// Signs the head of a tenant's log if it has grown since the last checkpoint.
///
/// # Errors
/// See [`SealError`]. The first three mean that the worker stops for this tenant and somebody is called.
pub async fn checkpoint_seal(
    store: &Store,
    signing: &Signing,
    tenant: &TenantId,
) -> Result<Sealed, SealError> {
    let mut outcome = step(store, signing, tenant).await;
    for _ in 1..TRIES_MAX {
        if !matches!(outcome, Err(SealError::Refused { .. })) {
            break;
        }
        outcome = step(store, signing, tenant).await;
    }
    outcome
}

async fn step(store: &Store, signing: &Signing, tenant: &TenantId) -> Result<Sealed, SealError> {
    let foreign = || SealError::Foreign { tenant: tenant.clone() };
    let standing = store.standing().await?;
    if let Some(why) = standing.put_back {
        return Err(SealError::PutBack { why });
    }
    // The last checkpoint first: a head that is read later cannot be smaller by a race.
    let last = store.checkpoint_last(tenant).await?;
    let head = store.head(tenant).await?;
    let Some(head) = head.filter(|head| head.size > 0) else {
        return match last {
            None => Ok(Sealed::Nothing),
            Some(last) => Err(SealError::Regressed { tenant: tenant.clone(), size: 0, kept: last.size }),
        };
    };
    if store::epoch_of(&head.origin) != Some(standing.epoch) {
        return Err(SealError::Behind { tenant: tenant.clone() });
    }
    if let Some(last) = last {
        let signed_as = last.note.lines().next().unwrap_or_default();
        if signed_as != head.origin && !trust::earlier_epoch(signed_as, &head.origin) {
            return Err(foreign());
        }
        let key = VerifierKey::new(signed_as, signing.log_key).map_err(|_| foreign())?;
        let kept = Checkpoint::open(&last.note, &key).map_err(|_| foreign())?;
        if head.size < kept.size || (head.size == kept.size && head.root != kept.root) {
            return Err(SealError::Regressed { tenant: tenant.clone(), size: head.size, kept: kept.size });
        }
        if head.size == kept.size && head.origin == kept.origin {
            return Ok(Sealed::Unchanged(last));
        }
        let proof = store.consistency(tenant, kept.size, head.size).await?;
        if !merkle::consistency_verify(kept.size, &kept.root, head.size, &head.root, &proof) {
            return Err(SealError::Rewritten { tenant: tenant.clone(), kept: kept.size });
        }
    }
    let checkpoint = Checkpoint { origin: head.origin, size: head.size, root: head.root };
    let note = (signing.checkpoint)(&checkpoint).map_err(|_| foreign())?;
    store::crash::point("checkpoint.signed");
    let size = checkpoint.size;
    if !store.checkpoint_put(tenant, checkpoint, note.clone()).await? {
        return Err(SealError::Refused { tenant: tenant.clone() });
    }
    store::crash::point("checkpoint.kept");
    Ok(Sealed::New(CheckpointRow { size, note }))
}
