//! One try of an act: read, decide, plan, commit.

use crate::{Done, Harness, Kept, Matching, Terms, misdrafted};
use act::{Ctx, Draw as _, Fault, Target, Verb};
use governor::approval::{self, Approval, Status};
use governor::{Answer, PERMIT_MS, Question, Ruling};
use kernel::changeset::{Changeset, Draft, Operation, Outcome};
use kernel::{Digest, hex};
use serde_json::{Value, json};
use store::{CommitError, Stored, View};
use tracing::Instrument as _;

pub(crate) struct Attempt<'a> {
    pub harness: &'a Harness,
    pub ctx: &'a Ctx,
    pub verb: &'a Verb,
    pub args: &'a Value,
    pub args_digest: Digest,
    pub terms: &'a Terms,
    pub approval: Option<&'a Stored<Approval>>,
    pub closing: bool,
}

pub(crate) enum Failure {
    /// What was read has moved; trying again may succeed.
    Moved,
    /// It will not.
    Final(Fault),
}

impl<E: Into<Fault>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Final(error.into())
    }
}

fn committed<T>(result: Result<T, CommitError>) -> Result<T, Failure> {
    result.map_err(|error| match error {
        CommitError::Conflict { .. } => Failure::Moved,
        CommitError::Insufficient { account } => {
            let details = json!({"account": account});
            Failure::Final(Fault::from(CommitError::Insufficient { account }).with(details))
        }
        other => {
            if let CommitError::OutsidePermit(what) = &other {
                tracing::error!(what, "a verb writes or states what it does not declare");
            }
            Failure::Final(other.into())
        }
    })
}

/// Makes the commit depend on what was read, except where a write checks the same revision itself.
pub(crate) fn expect(draft: &mut Draft, reads: Vec<store::Read>) {
    for read in reads {
        let written = draft.operations.iter().any(|operation| match operation {
            Operation::Put(put) => put.kind == read.kind && put.id == read.id && put.rev == read.rev,
            Operation::Delete { kind, id, rev } => {
                *kind == read.kind && *id == read.id && Some(*rev) == read.rev
            }
            _ => false,
        });
        if !written {
            draft.operations.push(Operation::Expect { kind: read.kind, id: read.id, rev: read.rev });
        }
    }
}

impl Attempt<'_> {
    pub async fn run(&self) -> Result<Done, Failure> {
        let now_ms = self.harness.now_ms();
        let view = self.harness.store().view(&self.ctx.tenant, now_ms);
        let target = (self.verb.aim)(&view, self.args, self.ctx).await?;
        let args = self.open_args();
        let granted = self.approval.and_then(|approval| approval.granted());
        if let Some(approval) = self.approval {
            let now = approval::preview_digest(
                self.verb.act,
                (target.kind, &target.id),
                &self.args_digest,
                &target.preview,
            );
            if now != approval.preview_digest {
                let message = "the act is no longer the one that people were shown";
                return Err(Failure::Final(Fault::conflict("approval.changed", message)));
            }
        }
        let question = Question {
            ctx: self.ctx,
            verb: self.verb,
            target: &target,
            args: &args,
            args_digest: self.args_digest,
            granted: granted.as_ref(),
            closing: self.closing,
            now_ms,
        };
        let deciding = tracing::info_span!("decide", writ.effect = tracing::field::Empty);
        let ruling = deciding.in_scope(|| self.harness.governor().decide(&question));
        let Ruling { decision, verdict, aside, answer } = ruling;
        deciding.record("writ.effect", decision.effect.as_str());
        drop(deciding);
        match answer {
            Answer::Permit(permit) => {
                self.matched(&view).await?;
                let approvals = granted.iter().map(|granted| granted.approval.clone()).collect();
                let stamp = self.harness.stamp_at(self.ctx, now_ms, approvals);
                let plan = (self.verb.plan)(&view, self.args, &stamp).await?;
                let (mut permit, mut aside, mut draft) = (permit, aside, plan.draft);
                let planned_ms = self.harness.now_ms();
                if planned_ms.saturating_sub(now_ms) > PERMIT_MS / 2 {
                    // A plan that took long (a backup is one) would come with a permit that has run out, and with a time
                    // that lies behind what was recorded meanwhile.
                    let again = self.harness.governor().decide(&Question { now_ms: planned_ms, ..question });
                    let Answer::Permit(renewed) = again.answer else { return Err(Failure::Moved) };
                    (permit, aside, draft.at_ms) = (renewed, again.aside, planned_ms);
                }
                expect(&mut draft, reads(view)?);
                if let Some((job, epoch)) = &self.terms.fence {
                    draft.push(Operation::Fence { job: job.clone(), epoch: *epoch });
                }
                if let Some(first) = draft.facts.first_mut() {
                    first.aside = Some(aside);
                    if let Some(approval) = self.approval {
                        first.causes.push(approval.requested_fact.clone());
                    }
                }
                self.keep(&mut draft, &Kept::Outcome { value: plan.outcome.clone() });
                let mut permits = vec![permit];
                if let Some(approval) = self.approval {
                    permits.push(self.harness.governor().approval_use(&permits[0], now_ms));
                    let used = Approval { status: Status::Used, ..approval.doc.clone() };
                    draft.put_if(approval, &used).fact(stamp.fact(
                        "governor.approval.used",
                        &approval.id,
                        (<Approval as store::Document>::KIND, &approval.id),
                        json!({"act": approval.act, "args": approval.args_digest}),
                    ));
                }
                let changeset = Changeset::under(permits, draft).map_err(|error| misdrafted(&error))?;
                let done = committed(self.commit(changeset).await)?;
                Ok(Done::Outcome { value: plan.outcome, replayed: false, held: done.held })
            }
            Answer::Refused(refusal, fault) => {
                let stamp = self.harness.stamp_at(self.ctx, now_ms, Vec::new());
                let mut draft = stamp.draft();
                let mut fact = stamp.fact(
                    "governor.decided",
                    &target.id,
                    (target.kind, &target.id),
                    json!({"act": self.verb.act, "effect": decision.effect, "code": fault.code, "reasons": verdict.reasons}),
                );
                fact.aside = Some(aside);
                draft.fact(fact);
                let changeset = Changeset::refused(refusal, draft).map_err(|error| misdrafted(&error))?;
                // A refusal that cannot be recorded is refused all the same, as unavailable.
                committed(self.commit(changeset).await)?;
                Err(Failure::Final(fault))
            }
            Answer::Waiting(refusal) => {
                if self.approval.is_some() {
                    let fault = Fault::conflict(
                        "approval.insufficient",
                        "policy now asks for more than was approved",
                    );
                    return Err(Failure::Final(fault));
                }
                let seen = self.matched(&view).await?;
                let (approval, mut draft) = self.waiting(&target, &verdict, args, aside, now_ms);
                expect(&mut draft, seen.into_iter().collect());
                let kept = Kept::Waiting {
                    approval: approval.id.clone(),
                    expires_at_ms: approval.expires_at_ms,
                    preview_digest: approval.preview_digest.clone(),
                };
                self.keep(&mut draft, &kept);
                let changeset = Changeset::refused(refusal, draft).map_err(|error| misdrafted(&error))?;
                committed(self.commit(changeset).await)?;
                Ok(kept.into())
            }
        }
    }

    /// Whether the record that the caller named is in a state that the caller has seen. Policy has been asked by then: who
    /// may not act learns nothing of revisions. The view remembers what was read, so the commit is on condition of it.
    async fn matched(&self, view: &View) -> Result<Option<store::Read>, Failure> {
        let Some(Matching { kind, id, revs }) =
            self.terms.matching.as_ref().filter(|_| self.approval.is_none())
        else {
            return Ok(None);
        };
        let rev = view.rev(kind, id).await?;
        let fits = match (revs, rev) {
            (None, rev) => rev.is_some(),
            (Some(revs), rev) => revs.contains(&rev.unwrap_or(0)),
        };
        if !fits {
            let message = "the record is not in the state that If-Match names; nothing was done";
            let fault = Fault::conflict(crate::PRECONDITION, message);
            return Err(Failure::Final(fault.with(json!({"kind": kind, "id": id, "rev": rev}))));
        }
        Ok(Some(store::Read { kind, id: id.clone(), rev }))
    }

    async fn commit(&self, changeset: Changeset) -> Result<store::Committed, CommitError> {
        self.harness.store().commit(changeset).instrument(tracing::info_span!("commit")).await
    }

    /// The arguments without the secret ones.
    fn open_args(&self) -> Value {
        let mut args = self.args.clone();
        if let Value::Object(map) = &mut args {
            map.retain(|name, _| !self.verb.secret_args.contains(&name.as_str()));
        }
        args
    }

    /// Keeps what the act came to under its idempotency key, if it has one.
    fn keep(&self, draft: &mut Draft, kept: &Kept) {
        if let Some(key) = self.ctx.idempotency_key.as_ref().filter(|_| self.approval.is_none()) {
            draft.push(Operation::Outcome(Outcome {
                principal: self.ctx.principal.id.clone(),
                act: self.verb.act.to_owned(),
                key: key.clone(),
                args_digest: self.args_digest,
                // Plain data always serialises.
                body: serde_json::to_vec(kept).unwrap_or_default(),
            }));
        }
    }

    fn waiting(
        &self,
        target: &Target,
        verdict: &kernel::Verdict,
        args: Value,
        aside: Vec<u8>,
        now_ms: i64,
    ) -> (Approval, Draft) {
        let stamp = self.harness.stamp_at(self.ctx, now_ms, Vec::new());
        let id = stamp.id("apr");
        let rules = self.harness.governor().approval_rules();
        let expires_at_ms = now_ms.saturating_add(rules.expire_ms);
        let tier = verdict.obligations.approver_tier;
        let digest = approval::preview_digest(
            self.verb.act,
            (target.kind, &target.id),
            &self.args_digest,
            &target.preview,
        );
        let mut decided = stamp.fact(
            "governor.decided",
            &target.id,
            (target.kind, &target.id),
            json!({"act": self.verb.act, "effect": "HITL", "reasons": verdict.reasons}),
        );
        decided.aside = Some(aside);
        let mut requested = stamp.fact(
            "governor.approval.requested",
            &target.id,
            (<Approval as store::Document>::KIND, &id),
            json!({
                "act": self.verb.act, "approval": id, "args": hex::encode(&self.args_digest), "preview": digest,
                "tier": tier, "needed": verdict.obligations.approvals.max(1),
                "expires_at_ms": expires_at_ms,
            }),
        );
        requested.causes.push(decided.id.clone());
        let approval = Approval {
            id: id.clone(),
            status: Status::Pending,
            act: self.verb.act.to_owned(),
            args,
            args_digest: hex::encode(&self.args_digest),
            target: (target.kind.to_owned(), target.id.clone()),
            preview: target.preview.clone(),
            preview_digest: digest,
            project: target.place.as_ref().map(|place| place.project.clone()),
            requester: requester(self.ctx),
            tier,
            needed: verdict.obligations.approvals.max(1),
            grants: Vec::new(),
            reasons: verdict.reasons.iter().cloned().collect(),
            requested_at_ms: now_ms,
            expires_at_ms,
            asked_tier: tier,
            remind_at_ms: Some(now_ms.saturating_add(rules.remind_ms)),
            reminded_at_ms: None,
            escalate_at_ms: rules.tier_above(tier).map(|_| now_ms.saturating_add(rules.escalate_ms)),
            timer: stamp.id("job"),
            closed: None,
            requested_fact: requested.id.clone(),
        };
        let mut draft = stamp.draft();
        draft.put_new(&approval).fact(decided).fact(requested).job(
            approval.timer.clone(),
            &approval::SETTLE,
            approval::timeline::next_ms(&approval, &rules),
            false,
            &approval::settle_body(&id, true),
        );
        (approval, draft)
    }
}

/// Who asked, without the rights that they will be given anew when the act is carried out.
fn requester(ctx: &Ctx) -> Ctx {
    let mut ctx = ctx.clone();
    ctx.principal.rights = act::Rights { key: ctx.principal.rights.key, ..act::Rights::default() };
    ctx
}

fn reads(view: View) -> Result<Vec<store::Read>, Fault> {
    view.into_reads().map_err(|kind| act::internal(format!("a verb decides on an unguarded list of {kind}")))
}
