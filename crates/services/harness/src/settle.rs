//! Settling approvals: what happens after people have decided, or have not.
//!
//! One job kind, one step per run, each step safe to repeat:
//!
//! - granted: the act is carried out, through the same path as the first time. If policy says no by now, or what it was
//!   about has changed, the approval becomes void;
//! - pending past its time: it expires;
//! - denied, expired or void: the act named by the verb's `on_closed` is carried out, so that nobody waits for ever;
//! - used: nothing is left to do.

use crate::{Done, Harness, Terms};
use access::principal::PrincipalDoc;
use act::{Class, Ctx, Draw as _, Fault, JobSpec, PrincipalKind};
use futures::FutureExt as _;
use governor::approval::{Approval, Closed, SETTLE, Status};
use kernel::{Id, Lease};
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
    match approval.status {
        Status::Pending if harness.now_ms() < approval.expires_at_ms => {
            Err(Later("it is not time yet".into()))
        }
        Status::Pending => close(harness, lease, &approval, Status::Expired, "nobody decided in time").await,
        Status::Granted => {
            crash::point("approval.decided");
            granted(harness, lease, &approval).await
        }
        Status::Used => conclude(harness, lease, &approval, approval.doc.clone(), false).await,
        Status::Denied | Status::Expired | Status::Void => {
            crash::point("approval.decided");
            tell(harness, &approval).await?;
            crash::point("approval.settled");
            conclude(harness, lease, &approval, approval.doc.clone(), false).await
        }
    }
}

/// Carries the act out, under the roles that its requester has now.
async fn granted(harness: &Harness, lease: Lease, approval: &Stored<Approval>) -> Result<(), Later> {
    if lease.starts > SETTLE.starts_max {
        return close(harness, lease, approval, Status::Void, "carrying it out failed too often").await;
    }
    let mut ctx = Ctx { idempotency_key: None, ..approval.requester.clone() };
    if ctx.principal.kind != PrincipalKind::Service {
        let row = harness.store().record(&ctx.principal.home, PrincipalDoc::KIND, &ctx.principal.id).await?;
        ctx.principal.roles = match row {
            Some(row) => store::decode::<PrincipalDoc>(&row)?.doc.roles,
            None => Vec::new(),
        };
    }
    match harness.carry_out(&ctx, &approval.act, &approval.args, &Terms::default(), Some(approval)).await {
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
    let mut fact = stamp.fact(
        "governor.approval.closed",
        &after.id,
        (Approval::KIND, &after.id),
        json!({"act": after.act, "status": after.status, "reason": if after.status == Status::Denied { None } else { reason }}),
    );
    fact.causes.push(after.requested_fact.clone());
    draft.fact(fact);
    if tell {
        draft.job(stamp.id("job"), &SETTLE, stamp.at_ms, true, &json!({"approval": after.id}));
    }
    let committed = harness.conclude(lease, draft, Vec::new()).await?;
    harness.hand_over(committed.held);
    Ok(())
}

/// Tells whoever waits that there is nothing to wait for any more. Once: the key is the approval's.
async fn tell(harness: &Harness, approval: &Approval) -> Result<(), Later> {
    let Some(on_closed) = harness.verb(&approval.act).and_then(|verb| verb.on_closed) else { return Ok(()) };
    let ctx = Ctx { idempotency_key: Some(format!("closed:{}", approval.id)), ..approval.requester.clone() };
    let args = json!({"approval": approval.id, "status": approval.status, "args": approval.args});
    match harness.act(&ctx, on_closed, args, Terms::default()).await {
        Ok(Done::Outcome { held, .. }) => {
            harness.hand_over(held);
            Ok(())
        }
        Ok(Done::Waiting { .. }) => Ok(()),
        Err(fault) if passing(&fault) => Err(Later(fault.to_string())),
        Err(fault) => {
            tracing::warn!(%fault, approval = %approval.id, on_closed, "nobody could be told that an approval is closed");
            Ok(())
        }
    }
}
