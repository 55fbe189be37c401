//! The permit: what the governor hands out when an act may go ahead, and that nobody else can make.
//!
//! [`permit_pair`] is called once per installation: the [`Mint`] goes to the governor, the [`Seal`] to the store. A
//! permit remembers the pair it came from, and the store opens only its own pair's permits. A permit is neither
//! `Clone` nor serialisable and opening it consumes it, so "one permit, one commit attempt" needs no bookkeeping:
//! the compiler keeps the count. A [`Lease`] is the same idea for later work: only the store can hand one out, and
//! it carries the authority under which the job was enqueued.

use crate::{Digest, Id, TenantId, verdict::Effect};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who acts, for whom, and by which decision: the part of a fact that the act itself cannot choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The principal that acts.
    pub actor: Id,
    /// Those it acts for, nearest first.
    pub on_behalf_of: Vec<Id>,
    /// The verb, `flows.run.start`.
    pub act: String,
    /// The decision, if a policy was asked.
    pub decision: Option<Decision>,
    /// Digest of the policy bundles that decided, in hexadecimal.
    pub policy: Option<String>,
    /// How the actor had proven who they are, such as `key` or `key+stepup`.
    pub assurance: Option<String>,
    /// Id that joins the facts of one request with its logs.
    pub trace: String,
}

/// Identity and effect of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// `dec_…`
    pub id: Id,
    /// The merged effect.
    pub effect: Effect,
}

/// What a permit says, once opened.
#[derive(Debug)]
pub struct Grant {
    /// The tenant whose records may be written.
    pub tenant: TenantId,
    /// Who and by which decision.
    pub authority: Authority,
    /// SHA-256 of the canonical arguments: what was decided is what is carried out.
    pub args_digest: Digest,
    /// The salted commitment that goes into the facts.
    pub args_commitment: Option<Digest>,
    /// Approvals that were used up for it.
    pub approvals: Vec<Id>,
    /// Kinds of records that may be written.
    pub writes: &'static [&'static str],
    /// Kinds of facts that may be stated.
    pub facts: &'static [&'static str],
    /// Until when it can be used, milliseconds UTC.
    pub expires_at_ms: i64,
}

/// Leave to commit once. Made only by [`Mint::permit`], opened only by the matching [`Seal`].
#[derive(Debug)]
pub struct Permit {
    pair: u64,
    grant: Grant,
}

/// A refused or waiting act: leave to record that and nothing else. Made only by [`Mint::refusal`].
#[derive(Debug)]
pub struct Refusal {
    pair: u64,
    tenant: TenantId,
    authority: Authority,
    args_commitment: Option<Digest>,
}

/// The right to make permits; held by the governor alone.
#[derive(Debug)]
pub struct Mint {
    pair: u64,
}

/// The right to open permits and to hand out leases; held by the store alone.
#[derive(Debug)]
pub struct Seal {
    pair: u64,
}

/// Makes the two halves. Each call makes a new pair; permits of one pair mean nothing to another.
pub fn permit_pair() -> (Mint, Seal) {
    static PAIRS: AtomicU64 = AtomicU64::new(1);
    let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
    (Mint { pair }, Seal { pair })
}

/// Why a permit, refusal or lease cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// It was made by another governor.
    #[error("the permit comes from another governor")]
    Foreign,
    /// It is past its time.
    #[error("the permit has expired")]
    Expired,
}

impl Mint {
    /// Hands out a permit.
    pub fn permit(&self, grant: Grant) -> Permit {
        Permit { pair: self.pair, grant }
    }

    /// Hands out the leave to record a refusal.
    pub fn refusal(
        &self,
        tenant: TenantId,
        authority: Authority,
        args_commitment: Option<Digest>,
    ) -> Refusal {
        Refusal { pair: self.pair, tenant, authority, args_commitment }
    }
}

impl Permit {
    /// The tenant it is for.
    pub fn tenant(&self) -> &TenantId {
        &self.grant.tenant
    }

    /// The digest of the arguments that were decided on.
    pub fn args_digest(&self) -> &Digest {
        &self.grant.args_digest
    }

    /// The authority it conveys.
    pub fn authority(&self) -> &Authority {
        &self.grant.authority
    }
}

impl Refusal {
    /// The tenant it is for.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Seal {
    /// Opens a permit, using it up.
    pub fn open(&self, permit: Permit, now_ms: i64) -> Result<Grant, PermitError> {
        if permit.pair != self.pair {
            return Err(PermitError::Foreign);
        }
        if now_ms > permit.grant.expires_at_ms {
            return Err(PermitError::Expired);
        }
        Ok(permit.grant)
    }

    /// Opens a refusal.
    pub fn open_refusal(
        &self,
        refusal: Refusal,
    ) -> Result<(TenantId, Authority, Option<Digest>), PermitError> {
        if refusal.pair != self.pair {
            return Err(PermitError::Foreign);
        }
        Ok((refusal.tenant, refusal.authority, refusal.args_commitment))
    }

    /// Hands out a lease on a job that the store just claimed.
    pub fn lease(&self, job: LeasedJob) -> Lease {
        Lease { pair: self.pair, job }
    }

    /// Opens a lease for a completion.
    pub fn open_lease(&self, lease: Lease) -> Result<LeasedJob, PermitError> {
        if lease.pair != self.pair { Err(PermitError::Foreign) } else { Ok(lease.job) }
    }
}

/// A claimed job, as the store knows it.
#[derive(Debug)]
pub struct LeasedJob {
    /// `job_…`
    pub id: Id,
    /// Whose.
    pub tenant: TenantId,
    /// What kind of work; its registration says what a completion may write.
    pub kind: &'static JobKind,
    /// Raised by every claim: a completion under an older epoch is refused.
    pub epoch: u64,
    /// How often it has been started, this time included.
    pub starts: u32,
    /// The authority it was enqueued under.
    pub authority: Authority,
    /// What to do.
    pub body: Vec<u8>,
    /// Until when nobody else will be given it, by the engine's clock.
    pub lease_until_ms: i64,
}

/// A kind of job, registered by a domain.
#[derive(Debug, PartialEq, Eq)]
pub struct JobKind {
    /// `flows.step`
    pub name: &'static str,
    /// Kinds of records that a completion may write.
    pub writes: &'static [&'static str],
    /// Kinds of facts that a completion may state.
    pub facts: &'static [&'static str],
    /// How long a claim lasts.
    pub lease_ms: i64,
    /// How often it may be started before it is taken for a poison job.
    pub starts_max: u32,
}

/// The right to complete a claimed job. Made only by the store; used up by the completion.
#[derive(Debug)]
pub struct Lease {
    pair: u64,
    job: LeasedJob,
}

impl std::ops::Deref for Lease {
    type Target = LeasedJob;
    fn deref(&self) -> &LeasedJob {
        &self.job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(expires_at_ms: i64) -> Grant {
        Grant {
            tenant: TenantId::platform(),
            authority: Authority {
                actor: Id::parse("prn_a").unwrap(),
                on_behalf_of: vec![],
                act: "a.b.c".into(),
                decision: None,
                policy: None,
                assurance: None,
                trace: String::new(),
            },
            args_digest: [0; 32],
            args_commitment: None,
            approvals: vec![],
            writes: &[],
            facts: &[],
            expires_at_ms,
        }
    }

    #[test]
    fn a_permit_opens_once_in_time_and_at_home() {
        let (mint, seal) = permit_pair();
        let (stranger, _) = permit_pair();
        assert!(seal.open(mint.permit(grant(10)), 10).is_ok());
        assert_eq!(seal.open(mint.permit(grant(10)), 11).unwrap_err(), PermitError::Expired);
        assert_eq!(seal.open(stranger.permit(grant(10)), 1).unwrap_err(), PermitError::Foreign);
    }
}
