//! Granting and denying.

use super::{Approval, Closed, GrantedBy, SETTLE, Status, expiry_job, tier};
use act::{Class, Coded, Draw as _, Fault, Plan, Stamp, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::Id;
use kernel::changeset::Operation;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Why a decision on an approval is refused.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// By the requester, or somebody the act is for.
    #[error("nobody decides on an act that was asked for by or on behalf of themselves")]
    Own,
    /// A second grant by the same person.
    #[error("you have already granted this act")]
    Twice,
    /// After its time.
    #[error("the approval has expired")]
    Late,
    /// After it was decided.
    #[error("the approval is {0} already")]
    Closed(&'static str),
    /// For something else than was shown.
    #[error("the act is not the one that you were shown; look at it again")]
    Changed,
    /// By somebody of too low a tier.
    #[error("this act needs an approver of tier {0}")]
    Tier(u8),
}

impl Coded for ApprovalError {
    fn code(&self) -> &'static str {
        match self {
            ApprovalError::Own => "approval.self",
            ApprovalError::Twice => "approval.twice",
            ApprovalError::Late => "approval.late",
            ApprovalError::Closed(_) => "approval.closed",
            ApprovalError::Changed => "approval.changed",
            ApprovalError::Tier(_) => "approval.tier_too_low",
        }
    }
    fn class(&self) -> Class {
        match self {
            ApprovalError::Own | ApprovalError::Tier(_) => Class::Denied,
            ApprovalError::Twice
            | ApprovalError::Late
            | ApprovalError::Closed(_)
            | ApprovalError::Changed => Class::Conflict,
        }
    }
}

/// Arguments of `governor.approval.grant`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantArgs {
    /// The approval.
    pub approval: String,
    /// `preview_digest` of what the approver was shown.
    pub preview_digest: String,
}

/// Arguments of `governor.approval.deny`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyArgs {
    /// The approval.
    pub approval: String,
    /// Why; kept in the record, shown to the requester.
    pub reason: String,
}

async fn read(view: &View, text: &str) -> Result<Stored<Approval>, Fault> {
    let id = Id::parse(text).map_err(|_| Fault::not_found("approval"))?;
    view.get::<Approval>(&id).await?.ok_or_else(|| Fault::not_found("approval"))
}

fn aimed(approval: &Approval) -> Target {
    let mut target = Target::of(Approval::KIND, &approval.id);
    target.attributes = json!({
        "requester": approval.requester.principal.id,
        "on_behalf_of": approval.requester.on_behalf_of,
        "act": approval.act,
        "approver_tier": approval.tier,
    });
    target
}

fn open(approval: &Approval, stamp: &Stamp) -> Result<(), ApprovalError> {
    if approval.is_for(&stamp.ctx.principal.id) {
        return Err(ApprovalError::Own);
    }
    match approval.status {
        Status::Pending if stamp.at_ms >= approval.expires_at_ms => Err(ApprovalError::Late),
        Status::Pending => Ok(()),
        Status::Expired => Err(ApprovalError::Late),
        closed @ (Status::Granted | Status::Used | Status::Denied | Status::Void) => {
            Err(ApprovalError::Closed(closed.as_str()))
        }
    }
}

fn settle(plan: &mut Plan, stamp: &Stamp, approval: &Id) {
    plan.draft.push(Operation::JobCancel { job: expiry_job(approval) });
    plan.draft.job(stamp.id("job"), &SETTLE, stamp.at_ms, true, &json!({"approval": approval}));
}

fn fact(stamp: &Stamp, kind: &'static str, approval: &Approval, outcome: Value) -> kernel::Fact {
    let mut fact = stamp.fact(kind, &approval.id, (Approval::KIND, &approval.id), outcome);
    fact.causes.push(approval.requested_fact.clone());
    fact
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "governor.approval.grant",
            summary: "Grants an act that waits for approval",
            args: || schemars::schema_for!(GrantArgs).into(),
            writes: &["governor.approval"],
            facts: &["governor.approval.granted"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: GrantArgs = parse(args)?;
                    Ok(aimed(&*read(view, &args.approval).await?))
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: GrantArgs = parse(args)?;
                    let stored = read(view, &args.approval).await?;
                    open(&stored, stamp)?;
                    let approver = &stamp.ctx.principal;
                    if args.preview_digest != stored.preview_digest {
                        return Err(ApprovalError::Changed.into());
                    }
                    if stored.grants.iter().any(|grant| grant.approver == approver.id) {
                        return Err(ApprovalError::Twice.into());
                    }
                    let tier = tier(&approver.roles);
                    if tier < stored.tier {
                        return Err(ApprovalError::Tier(stored.tier).into());
                    }
                    let mut approval = stored.doc.clone();
                    approval.grants.push(GrantedBy { approver: approver.id.clone(), tier, at_ms: stamp.at_ms });
                    let enough = approval.grants.len() >= usize::from(approval.needed.max(1));
                    if enough {
                        approval.status = Status::Granted;
                    }
                    let outcome = json!({
                        "approval": approval.id, "status": approval.status,
                        "grants": approval.grants.len(), "needed": approval.needed,
                    });
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    plan.draft.put_if(&stored, &approval).fact(fact(
                        stamp,
                        "governor.approval.granted",
                        &approval,
                        json!({
                            "act": approval.act, "args": approval.args_digest, "preview": approval.preview_digest,
                            "tier": tier, "grants": approval.grants.len(), "needed": approval.needed,
                        }),
                    ));
                    if enough {
                        settle(&mut plan, stamp, &approval.id);
                    }
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "governor.approval.deny",
            summary: "Denies an act that waits for approval",
            args: || schemars::schema_for!(DenyArgs).into(),
            writes: &["governor.approval"],
            facts: &["governor.approval.denied"],
            secret_args: &[],
            on_closed: None,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: DenyArgs = parse(args)?;
                    Ok(aimed(&*read(view, &args.approval).await?))
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: DenyArgs = parse(args)?;
                    if args.reason.len() > REASON_BYTES_MAX {
                        return Err(Fault::invalid("request.invalid", "a reason has at most 500 bytes"));
                    }
                    let stored = read(view, &args.approval).await?;
                    open(&stored, stamp)?;
                    let mut approval = stored.doc.clone();
                    approval.status = Status::Denied;
                    approval.closed = Some(Closed {
                        at_ms: stamp.at_ms,
                        by: Some(stamp.ctx.principal.id.clone()),
                        reason: args.reason,
                    });
                    let outcome = json!({"approval": approval.id, "status": approval.status});
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    plan.draft.put_if(&stored, &approval).fact(fact(
                        stamp,
                        "governor.approval.denied",
                        &approval,
                        json!({"act": approval.act, "args": approval.args_digest, "preview": approval.preview_digest}),
                    ));
                    settle(&mut plan, stamp, &approval.id);
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}
