//! Settling approvals: what happens after people have decided, or have not.
//!
//! One job kind, one step per run, each step safe to repeat:
//!
//! - granted: the act is carried out, through the same path as the first time. If policy says no by now, or what it was
//!   about has changed, the approval becomes void;
//! - pending: what its timer finds due, by [`governor::approval::timeline`]: people are reminded, more of them are asked,
//!   or it expires;
//! - denied, expired or void: the act named by the verb's `on_closed` is carried out, so that nobody waits for ever;
//! - used: nothing is left to do.
//!
//! A timer only ever does the middle one. If people were faster than it, it says so and ends.

use crate::{Done, Harness, Terms, Why};
use access::principal::PrincipalDoc;
use access::rights;
use act::{Class, Ctx, Draw as _, Fault, JobSpec, PrincipalKind};
use futures::FutureExt as _;
use governor::approval::timeline::{self, Due};
use governor::approval::{Approval, Closed, SETTLE, Status, settle_body};
use kernel::changeset::Draft;
use kernel::{Fact, Id, Lease};
use serde_json::json;
use std::sync::Arc;
use store::{Document as _, Stored, crash};

/// Settling could not go on for now; the lease runs out and it is tried again.
struct Later(String);

impl<E: std::fmt::Display> From<E> for Later {
    fn from(error: E) -> Later {
        Later(error.to_string())
    }
}

pub(crate) fn spec(harness: Harness) -> JobSpec {
    JobSpec {
        kind: &SETTLE,
        run: Arc::new(move |lease| {
            let harness = harness.clone();
            async move {
                let job = lease.id.clone();
                if let Err(Later(why)) = settle(&harness, lease).await {
                    tracing::warn!(%job, why, "an approval could not be settled; it will be tried again");
                }
            }
            .boxed()
        }),
    }
}

async fn settle(harness: &Harness, lease: Lease) -> Result<(), Later> {
    let body: serde_json::Value = serde_json::from_slice(&lease.body)?;
    let id = Id::parse(body["approval"].as_str().unwrap_or_default())?;
    let row = harness.store().record(&lease.tenant, Approval::KIND, &id).await?;
    let approval = store::decode::<Approval>(&row.ok_or("the approval is gone")?)?;
    if body["timer"] == true || lease.id == approval.timer {
        return timed(harness, lease, &approval).await;
    }
    match approval.status {
        Status::Pending => timed(harness, lease, &approval).await,
        Status::Granted => {
            crash::point("approval.decided");
            granted(harness, lease, &approval).await
        }
        Status::Used => conclude(harness, lease, &approval, approval.doc.clone(), false).await,
        Status::Denied => {
            crash::point("approval.decided");
            tell(harness, &lease, &approval).await?;
            crash::point("approval.settled");
            conclude(harness, lease, &approval, approval.doc.clone(), false).await
        }
        Status::Expired | Status::Void => {
            crash::point("approval.decided");
            let told = tell(harness, &lease, &approval).await?;
            crash::point("approval.settled");
            let stamp = harness.stamp(&approval.requester);
            let outcome = json!({"act": approval.act, "status": approval.status, "told": told});
            let mut draft = stamp.draft();
            draft.fact(fact(&stamp, "governor.approval.told", &approval, outcome));
            finish(harness, lease, draft).await
        }
    }
}

/// Does what is due by the clock.
async fn timed(harness: &Harness, lease: Lease, approval: &Stored<Approval>) -> Result<(), Later> {
    let rules = harness.governor().approval_rules();
    let stamp = harness.stamp(&approval.requester);
    let now_ms = stamp.at_ms;
    let (mut after, kind, outcome) = match timeline::due(approval, &rules, now_ms) {
        Due::Later(_) => return Err(Later("it is not time yet".into())),
        Due::Expire => {
            return close(harness, lease, approval, Status::Expired, "nobody decided in time").await;
        }
        Due::Nothing => {
            let fact =
                fact(&stamp, "governor.approval.timer_idle", approval, json!({"status": approval.status}));
            let mut draft = stamp.draft();
            draft.fact(fact);
            return finish(harness, lease, draft).await;
        }
        Due::Remind => (
            timeline::reminded(approval, now_ms),
            "governor.approval.reminded",
            json!({"act": approval.act, "asked_tier": approval.asked_tier, "expires_at_ms": approval.expires_at_ms}),
        ),
        Due::Escalate(tier) => (
            timeline::escalated(approval, tier, &rules, now_ms),
            "governor.approval.escalated",
            json!({"act": approval.act, "from_tier": approval.asked_tier, "to_tier": tier, "expires_at_ms": approval.expires_at_ms}),
        ),
    };
    after.timer = stamp.id("job");
    let mut draft = stamp.draft();
    let next_ms = timeline::next_ms(&after, &rules);
    draft.put_if(approval, &after).fact(fact(&stamp, kind, approval, outcome)).job(
        after.timer.clone(),
        &SETTLE,
        next_ms,
        false,
        &settle_body(&after.id, true),
    );
    finish(harness, lease, draft).await
}

/// A fact in the approval's stream.
fn fact(stamp: &act::Stamp, kind: &'static str, approval: &Approval, outcome: serde_json::Value) -> Fact {
    let mut fact = stamp.fact(kind, &approval.id, (Approval::KIND, &approval.id), outcome);
    fact.causes.push(approval.requested_fact.clone());
    fact
}

async fn finish(harness: &Harness, lease: Lease, draft: Draft) -> Result<(), Later> {
    let committed = harness.conclude(lease, draft, Vec::new()).await?;
    harness.hand_over(committed.held);
    Ok(())
}

/// Carries the act out, under the roles that its requester has now.
async fn granted(harness: &Harness, lease: Lease, approval: &Stored<Approval>) -> Result<(), Later> {
    if lease.starts > SETTLE.starts_max {
        return close(harness, lease, approval, Status::Void, "carrying it out failed too often").await;
    }
    let mut ctx = Ctx { idempotency_key: None, ..approval.requester.clone() };
    if ctx.principal.kind != PrincipalKind::Service {
        let row = harness.store().record(&ctx.principal.home, PrincipalDoc::KIND, &ctx.principal.id).await?;
        let key = ctx.principal.rights.key.clone();
        match row.map(|row| store::decode::<PrincipalDoc>(&row)).transpose()? {
            Some(doc) => {
                let (store, home, now_ms) = (harness.store(), ctx.principal.home.clone(), harness.now_ms());
                ctx.principal = rights::resolve(store, &home, &ctx.tenant, &doc, key, now_ms).await?;
            }
            None => {
                ctx.principal.roles = Vec::new();
                ctx.principal.rights = act::Rights { key, ..act::Rights::default() };
            }
        }
    }
    match harness
        .carry_out(&ctx, &approval.act, &approval.args, &Terms::default(), Why::Approved(approval))
        .await
    {
        Ok(Done::Outcome { held, .. }) => {
            crash::point("approval.settled");
            harness.hand_over(held);
            // The commit has moved the approval to `used`; what is left is the end of this job.
            let row = harness.store().record(&ctx.tenant, Approval::KIND, &approval.id).await?;
            let used = store::decode::<Approval>(&row.ok_or("the approval is gone")?)?;
            conclude(harness, lease, &used, used.doc.clone(), false).await
        }
        Ok(Done::Waiting { .. }) => Err(Later("an approved act waits again".into())),
        Err(fault) if passing(&fault) => Err(Later(fault.to_string())),
        Err(fault) => close(harness, lease, approval, Status::Void, &fault.code).await,
    }
}

/// Whether trying again later may help.
fn passing(fault: &Fault) -> bool {
    fault.class.retryable() || fault.class == Class::Internal
}

/// Closes the approval and leaves telling those who wait to a job of its own.
async fn close(
    harness: &Harness,
    lease: Lease,
    approval: &Stored<Approval>,
    status: Status,
    why: &str,
) -> Result<(), Later> {
    let closed = Closed { at_ms: harness.now_ms(), by: None, reason: why.to_owned() };
    let doc = Approval { status, closed: Some(closed), ..approval.doc.clone() };
    conclude(harness, lease, approval, doc, true).await
}

async fn conclude(
    harness: &Harness,
    lease: Lease,
    before: &Stored<Approval>,
    after: Approval,
    tell: bool,
) -> Result<(), Later> {
    let stamp = harness.stamp(&before.requester);
    let mut draft = stamp.draft();
    if before.doc != after {
        draft.put_if(before, &after);
    }
    let reason = after.closed.as_ref().map(|closed| closed.reason.clone());
    draft.fact(fact(
        &stamp,
        "governor.approval.closed",
        &after,
        json!({"act": after.act, "status": after.status, "reason": if after.status == Status::Denied { None } else { reason }}),
    ));
    if tell {
        draft.job(stamp.id("job"), &SETTLE, stamp.at_ms, true, &settle_body(&after.id, false));
    }
    finish(harness, lease, draft).await
}

/// Tells whoever waits that there is nothing to wait for any more. Once: the key is the approval's. `false` if that has been
/// refused so often that it is given up.
///
/// What a service waits for it is told past the tenant's own policy, which may have ended or deny everything by now. Where
/// the act is refused all the same, a policy may be put right: until the job has been started too often, it is tried again.
async fn tell(harness: &Harness, lease: &Lease, approval: &Approval) -> Result<bool, Later> {
    let Some(on_closed) = harness.verb(&approval.act).and_then(|verb| verb.on_closed) else {
        return Ok(true);
    };
    let ctx = Ctx { idempotency_key: Some(format!("closed:{}", approval.id)), ..approval.requester.clone() };
    let args = json!({"approval": approval.id, "status": approval.status, "args": approval.args});
    match harness.carry_out(&ctx, on_closed, &args, &Terms::default(), Why::Closing).await {
        Ok(Done::Outcome { held, .. }) => {
            harness.hand_over(held);
            Ok(true)
        }
        // It is told once people have let it be told.
        Ok(Done::Waiting { .. }) => Ok(true),
        Err(fault) if passing(&fault) => Err(Later(fault.to_string())),
        Err(fault) if refused(&fault) && lease.starts <= SETTLE.starts_max => Err(Later(fault.to_string())),
        Err(fault) if refused(&fault) => {
            tracing::error!(%fault, approval = %approval.id, on_closed, "whoever waits for a closed approval is not told: policy refuses it");
            Ok(false)
        }
        // Nobody waits any more, as a rule: a run was cancelled meanwhile.
        Err(fault) => {
            tracing::warn!(%fault, approval = %approval.id, on_closed, "nobody could be told that an approval is closed");
            Ok(true)
        }
    }
}

/// Whether policy says no.
fn refused(fault: &Fault) -> bool {
    matches!(fault.class, Class::Denied | Class::StepUp)
}
