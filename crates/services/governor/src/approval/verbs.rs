//! Granting and denying.

use super::separation::{Absent, grant_check, say_check};
use super::{Approval, Closed, SETTLE, Status, settle_body};
use crate::Governor;
use crate::delegation::{self, Delegation};
use act::{Draw as _, Fault, Plan, Stamp, Target, Verb, parse};
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

/// Arguments of `governor.approval.grant`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantArgs {
    /// The approval.
    pub approval: String,
    /// `preview_digest` of what the approver was shown.
    pub preview_digest: String,
    /// A delegation, to decide in the place of the person who gave it.
    pub delegation: Option<String>,
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

async fn aimed(view: &View, approval: &Approval) -> Result<Target, Fault> {
    let place = match &approval.project {
        Some(project) => access::project::place(view, project).await?,
        None => None,
    };
    let mut target = Target::of(Approval::KIND, &approval.id).at(place);
    target.attributes = json!({
        "requester": approval.requester.principal.id,
        "on_behalf_of": approval.requester.on_behalf_of,
        "act": approval.act,
        "approver_tier": approval.tier,
    });
    Ok(target)
}

/// What a decision sets off: the approval is settled now, and its timer is not needed any more.
fn settle(plan: &mut Plan, stamp: &Stamp, approval: &Approval) {
    plan.draft.push(Operation::JobCancel { job: approval.timer.clone() });
    plan.draft.job(stamp.id("job"), &SETTLE, stamp.at_ms, true, &settle_body(&approval.id, false));
}

/// The delegation that is named, with what its giver's roles are now.
async fn absent(
    view: &View,
    args: &GrantArgs,
    delegate: &Id,
) -> Result<Option<(Delegation, Vec<String>)>, Fault> {
    match &args.delegation {
        None => Ok(None),
        Some(text) => delegation::read_for(view, text, delegate).await.map(Some),
    }
}

fn fact(stamp: &Stamp, kind: &'static str, approval: &Approval, outcome: Value) -> kernel::Fact {
    let mut fact = stamp.fact(kind, &approval.id, (Approval::KIND, &approval.id), outcome);
    fact.causes.push(approval.requested_fact.clone());
    fact
}

/// The verbs.
pub fn verbs(governor: &Governor) -> Vec<Verb> {
    let governor = governor.clone();
    vec![
        Verb {
            act: "governor.approval.grant",
            summary: "Grants an act that waits for approval",
            args: || schemars::schema_for!(GrantArgs).into(),
            writes: &["governor.approval"],
            facts: &["governor.approval.granted"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: GrantArgs = parse(args)?;
                    let mut target = aimed(view, &*read(view, &args.approval).await?).await?;
                    if let Some((delegation, roles)) = absent(view, &args, &ctx.principal.id).await?
                        && let Value::Object(attributes) = &mut target.attributes
                    {
                        attributes.insert("delegator".into(), json!(delegation.from));
                        attributes.insert("delegator_roles".into(), json!(roles));
                    }
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let rules = governor.approval_rules();
                async move {
                    let args: GrantArgs = parse(args)?;
                    let stored = read(view, &args.approval).await?;
                    let absent = absent(view, &args, &stamp.ctx.principal.id).await?;
                    let absent = absent.as_ref().map(|(delegation, roles)| Absent { delegation, roles });
                    let shown = args.preview_digest.as_str();
                    let by = grant_check(&stored, &stamp.ctx, shown, absent, &rules, stamp.at_ms)?;
                    let mut approval = stored.doc.clone();
                    approval.grants.push(by.clone());
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
                            "tier": by.tier, "grants": approval.grants.len(), "needed": approval.needed,
                            "approver": by.approver, "delegator": by.delegator, "delegation": by.delegation,
                        }),
                    ));
                    if enough {
                        settle(&mut plan, stamp, &approval);
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
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: DenyArgs = parse(args)?;
                    aimed(view, &*read(view, &args.approval).await?).await
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
                    say_check(&stored, &stamp.ctx, None, stamp.at_ms)?;
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
                    settle(&mut plan, stamp, &approval);
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}
