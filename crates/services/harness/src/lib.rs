//! The harness: the one path that every act takes.
//!
//! ```text
//! idempotency → aim → decide → plan → one commit     (at most TRIES_MAX times, with jitter)
//!                       ├─ refused → its fact
//!                       └─ waiting → its approval record, until people have decided: then in again from the top
//! ```
//!
//! It is the only caller of `governor.decide` and, for acts, of `store.commit`. It knows no domain: verbs come from the
//! registration table. An act that is carried out twice under one idempotency key gets one outcome; an act whose reads
//! moved is read and decided again; an act that waits is carried out later by [`settle`] under the policy of that moment.

mod settle;
mod try_once;

use act::{Class, Clock, Ctx, Domain, Fault, Ids, JobSpec, Principal, PrincipalKind, Stamp, Trace, Verb};
use governor::Governor;
use kernel::changeset::{Changeset, ChangesetError, Draft};
use kernel::{Id, Lease, TenantId, json, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{CommitError, Committed, Store};
use tracing::Instrument as _;
use tracing::field::Empty;

/// How often an act is read and decided anew when what it read has moved.
pub const TRIES_MAX: u32 = 5;
/// Longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("approval.insufficient", "policy now asks for more, or for other people, than approved the act"),
    ("contention", "too many changed the same thing at once; the act was given up after several tries"),
    ("idempotency.mismatch", "the idempotency key was used before with other arguments"),
    ("request.precondition", "the record has changed since the caller looked at it, so nothing was done"),
];

/// The code of an act that found a record in another state than its caller named.
pub const PRECONDITION: &str = "request.precondition";

/// Carries out acts. Cheap to clone.
#[derive(Clone)]
pub struct Harness(Arc<Inner>);

struct Inner {
    store: Store,
    governor: Governor,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    cell: Arc<str>,
    verbs: OnceLock<HashMap<&'static str, Known>>,
    workers: OnceLock<Box<dyn Fn(Lease) + Send + Sync>>,
}

/// A registered verb.
struct Known {
    verb: Verb,
    /// Largest arguments, in bytes; asked of the schema once.
    args_bytes_max: usize,
}

/// What else has to hold for an act.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// A job and the epoch under which it must still be leased.
    pub fence: Option<(Id, u64)>,
    /// A record and the state that it must have.
    pub matching: Option<Matching>,
}

/// A record, and the revisions that its caller has seen and would act on. It is checked by the commit itself: between a
/// look and the write there is no moment in which somebody else could come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// Kind of the record.
    pub kind: &'static str,
    /// Its id.
    pub id: Id,
    /// The revisions that will do; `None`: any, as long as the record is there.
    pub revs: Option<Vec<u64>>,
}

/// Why an act is carried out.
#[derive(Clone, Copy)]
enum Why<'a> {
    /// Somebody asks for it.
    Asked,
    /// It has waited, and this approval of it is granted.
    Approved(&'a store::Stored<governor::approval::Approval>),
    /// It tells somebody that the approval they wait for is closed.
    Closing,
}

impl<'a> Why<'a> {
    fn approval(self) -> Option<&'a store::Stored<governor::approval::Approval>> {
        match self {
            Why::Approved(approval) => Some(approval),
            Why::Asked | Why::Closing => None,
        }
    }
}

/// What an act came to.
#[derive(Debug)]
pub enum Done {
    /// It was carried out.
    Outcome {
        /// What the caller is told.
        value: Value,
        /// Whether this is the answer to an earlier call under the same key.
        replayed: bool,
        /// Leases on jobs that the plan enqueued as held; the caller runs them or hands them over.
        held: Vec<Lease>,
    },
    /// It waits for people.
    Waiting {
        /// The approval record.
        approval: Id,
        /// Until when, milliseconds UTC.
        expires_at_ms: i64,
        /// Digest of what approvers are shown.
        preview_digest: String,
    },
}

/// What policy says about an act that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// The effect.
    pub effect: kernel::Effect,
    /// Whether it would be refused, and not only wait for people.
    pub refused: bool,
    /// Why.
    pub reasons: Vec<String>,
    /// Of which tier approvers would have to be.
    pub tier: u8,
    /// How many of them.
    pub approvals: u8,
}

/// What is kept under an idempotency key.
#[derive(Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
enum Kept {
    Outcome { value: Value },
    Waiting { approval: Id, expires_at_ms: i64, preview_digest: String },
}

impl From<Kept> for Done {
    fn from(kept: Kept) -> Done {
        match kept {
            Kept::Outcome { value } => Done::Outcome { value, replayed: true, held: Vec::new() },
            Kept::Waiting { approval, expires_at_ms, preview_digest } => {
                Done::Waiting { approval, expires_at_ms, preview_digest }
            }
        }
    }
}

impl Harness {
    /// A harness that knows no verbs yet; [`Harness::register`] teaches it.
    pub fn new(
        store: Store,
        governor: Governor,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        cell: &str,
    ) -> Harness {
        Harness(Arc::new(Inner {
            store,
            governor,
            clock,
            ids,
            cell: cell.into(),
            verbs: OnceLock::new(),
            workers: OnceLock::new(),
        }))
    }

    /// Takes the verbs of all domains. Counts once; domains need the harness before it can know them.
    pub fn register(&self, domains: &[Domain]) {
        let known =
            |verb: &Verb| (verb.act, Known { verb: verb.clone(), args_bytes_max: verb.args_bytes_max() });
        let _ = self.0.verbs.set(domains.iter().flat_map(|domain| &domain.verbs).map(known).collect());
    }

    /// Where leases on jobs go that somebody holds but does not run.
    pub fn workers_set(&self, workers: impl Fn(Lease) + Send + Sync + 'static) {
        let _ = self.0.workers.set(Box::new(workers));
    }

    /// Hands leases to the workers. Without workers they run out and the jobs are claimed again.
    pub fn hand_over(&self, leases: Vec<Lease>) {
        if let Some(workers) = self.0.workers.get() {
            leases.into_iter().for_each(workers);
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The governor.
    pub fn governor(&self) -> &Governor {
        &self.0.governor
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    /// The source of ids.
    pub fn ids(&self) -> &Arc<dyn Ids> {
        &self.0.ids
    }

    /// Now, milliseconds UTC.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// The cell.
    pub fn cell(&self) -> &Arc<str> {
        &self.0.cell
    }

    /// The verb of this name.
    pub fn verb(&self, act: &str) -> Option<&Verb> {
        Some(&self.0.verbs.get()?.get(act)?.verb)
    }

    /// Largest arguments of an act, in bytes of canonical JSON. They are bounded in depth by the canonical profile.
    pub fn args_bytes_max(&self, act: &str) -> usize {
        let known = self.0.verbs.get().and_then(|verbs| verbs.get(act));
        known.map_or(act::ARGS_BYTES_MAX, |known| known.args_bytes_max)
    }

    /// The context of a service of this installation.
    pub fn service(&self, name: &str, tenant: &TenantId, on_behalf_of: Vec<Id>, trace: &str) -> Ctx {
        let now_ms = self.now_ms();
        Ctx {
            tenant: tenant.clone(),
            principal: Principal {
                id: service_id(name),
                kind: PrincipalKind::Service,
                roles: vec!["service".into()],
                home: tenant.clone(),
                rights: Default::default(),
            },
            on_behalf_of,
            assurance: act::Assurance { method: "internal".into(), level: 1, at_ms: now_ms, until_ms: None },
            trace: trace.to_owned(),
            idempotency_key: None,
            requested_at_ms: now_ms,
        }
    }

    /// The stamp for drafts of continuations.
    pub fn stamp(&self, ctx: &Ctx) -> Stamp {
        self.stamp_at(ctx, self.now_ms(), Vec::new())
    }

    fn stamp_at(&self, ctx: &Ctx, at_ms: i64, approvals: Vec<Id>) -> Stamp {
        Stamp { ctx: ctx.clone(), at_ms, cell: self.0.cell.clone(), ids: self.0.ids.clone(), approvals }
    }

    /// What policy says about an act, without carrying it out, recording it or asking anybody: for what only shows what
    /// would happen. What comes out permits nothing.
    ///
    /// # Errors
    /// Faults of the verb and of storage.
    pub async fn weigh(&self, ctx: &Ctx, act: &str, args: &Value) -> Result<Weighed, Fault> {
        let verb = self.verb(act).ok_or_else(|| Fault::not_found("act"))?;
        let canonical = json::canonical(args).map_err(|error| {
            Fault::invalid("request.invalid", format!("the arguments are refused: {error}"))
        })?;
        let now_ms = self.now_ms();
        let view = self.0.store.view(&ctx.tenant, now_ms);
        let target = (verb.aim)(&view, args, ctx).await?;
        let mut open = args.clone();
        if let Value::Object(map) = &mut open {
            map.retain(|name, _| !verb.secret_args.contains(&name.as_str()));
        }
        let ruling = self.0.governor.decide(&governor::Question {
            ctx,
            verb,
            target: &target,
            args: &open,
            args_digest: sha256(&canonical),
            granted: None,
            closing: false,
            now_ms,
        });
        Ok(Weighed {
            effect: ruling.decision.effect,
            refused: matches!(ruling.answer, governor::Answer::Refused(..)),
            reasons: ruling.verdict.reasons.iter().cloned().collect(),
            tier: ruling.verdict.obligations.approver_tier,
            approvals: ruling.verdict.obligations.approvals,
        })
    }

    /// Carries out an act by name.
    ///
    /// # Errors
    /// Refusals of policy (recorded as facts), faults of the verb, `contention`, `idempotency.mismatch`, and storage.
    pub async fn act(&self, ctx: &Ctx, act: &str, args: Value, terms: Terms) -> Result<Done, Fault> {
        self.carry_out(ctx, act, &args, &terms, Why::Asked).await
    }

    /// In a span of its own, in the trace that its facts will name.
    async fn carry_out(
        &self,
        ctx: &Ctx,
        act: &str,
        args: &Value,
        terms: &Terms,
        why: Why<'_>,
    ) -> Result<Done, Fault> {
        let span = tracing::info_span!(
            "act",
            otel.name = act,
            otel.status_code = Empty,
            trace_id = Trace::of(&ctx.trace).trace_hex(),
            writ.act = act,
            writ.tenant = %ctx.tenant,
            writ.outcome = Empty,
            writ.code = Empty,
            error.type = Empty,
        );
        let done = self.tried(ctx, act, args, terms, why).instrument(span.clone()).await;
        match &done {
            Ok(Done::Outcome { replayed, .. }) => {
                span.record("writ.outcome", if *replayed { "replayed" } else { "done" });
            }
            Ok(Done::Waiting { .. }) => {
                span.record("writ.outcome", "waiting");
            }
            Err(fault) => {
                span.record("writ.outcome", "refused").record("writ.code", &*fault.code);
                if fault.class == Class::Internal {
                    span.record("error.type", &*fault.code).record("otel.status_code", "ERROR");
                }
            }
        }
        done
    }

    async fn tried(
        &self,
        ctx: &Ctx,
        act: &str,
        args: &Value,
        terms: &Terms,
        why: Why<'_>,
    ) -> Result<Done, Fault> {
        let approval = why.approval();
        let verb = self.verb(act).ok_or_else(|| Fault::not_found("act"))?;
        let canonical = json::canonical(args).map_err(|error| {
            Fault::invalid("request.invalid", format!("the arguments are refused: {error}"))
        })?;
        let most = self.args_bytes_max(act);
        if canonical.len() > most {
            return Err(Fault::new(
                Class::TooLarge,
                "request.too_large",
                format!("the arguments have {} bytes, and this act takes {most}", canonical.len()),
            ));
        }
        if ctx.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Fault::invalid("request.invalid", "an idempotency key has 1 to 128 bytes"));
        }
        let args_digest = sha256(&canonical);
        for tries in 0..TRIES_MAX {
            if let Some(key) = ctx.idempotency_key.as_deref().filter(|_| approval.is_none())
                && let Some(done) = self.kept(ctx, act, key, &args_digest).await?
            {
                return Ok(done);
            }
            let attempt = try_once::Attempt {
                harness: self,
                ctx,
                verb,
                args,
                args_digest,
                terms,
                approval,
                closing: matches!(why, Why::Closing),
            };
            match attempt.run().await {
                Ok(done) => return Ok(done),
                Err(try_once::Failure::Moved) => self.pause(tries).await,
                Err(try_once::Failure::Final(fault)) => {
                    // A twin under the same key may have committed between our look and our plan, and what it wrote may
                    // be what we now stumble over: then its outcome is ours.
                    if let Some(key) = ctx.idempotency_key.as_deref().filter(|_| approval.is_none())
                        && let Some(done) = self.kept(ctx, act, key, &args_digest).await?
                    {
                        return Ok(done);
                    }
                    return Err(fault);
                }
            }
        }
        Err(Fault::new(Class::Contention, "contention", "too many changed the same thing at once; try again"))
    }

    async fn kept(
        &self,
        ctx: &Ctx,
        act: &str,
        key: &str,
        args_digest: &kernel::Digest,
    ) -> Result<Option<Done>, Fault> {
        let Some((digest, body)) = self.0.store.outcome(&ctx.tenant, &ctx.principal.id, act, key).await?
        else {
            return Ok(None);
        };
        if digest != *args_digest {
            return Err(Fault::conflict(
                "idempotency.mismatch",
                "this idempotency key was used with other arguments",
            ));
        }
        let kept: Kept = serde_json::from_slice(&body).map_err(act::internal)?;
        Ok(Some(kept.into()))
    }

    /// Waits a little, longer each time and never the same for two.
    async fn pause(&self, tries: u32) {
        let jitter = u64::from(self.0.ids.entropy()[0]);
        tokio::time::sleep(Duration::from_micros((500 << tries) + jitter * 8)).await;
    }

    /// Commits a job's own completion.
    pub async fn conclude(
        &self,
        lease: Lease,
        mut draft: Draft,
        reads: Vec<store::Read>,
    ) -> Result<Committed, CommitError> {
        try_once::expect(&mut draft, reads);
        let changeset = Changeset::continuing(lease, draft).map_err(|error| misdrafted(&error))?;
        self.0.store.commit(changeset).await
    }

    /// Records traffic that was turned away, as one fact for `count` requests of one source and reason.
    pub async fn traffic_refused(
        &self,
        tenant: &TenantId,
        source: &str,
        code: &str,
        count: u64,
    ) -> Result<(), CommitError> {
        let now_ms = self.now_ms();
        let trace = self.0.ids.id("trc", now_ms).to_string();
        let ctx = self.service("edge", tenant, Vec::new(), &trace);
        let stamp = self.stamp(&ctx);
        let mut draft = stamp.draft();
        draft.fact(stamp.fact(
            "access.traffic.refused",
            tenant.id(),
            ("access.tenant", tenant.id()),
            json!({"source": source, "code": code, "count": i64::try_from(count).unwrap_or(i64::MAX)}),
        ));
        let refusal = self.0.governor.traffic_refusal(tenant, &ctx.principal.id, &trace);
        let changeset = Changeset::refused(refusal, draft).map_err(|error| misdrafted(&error))?;
        self.0.store.commit(changeset).await.map(|_| ())
    }

    /// The jobs that the harness itself runs.
    pub fn jobs(&self) -> Vec<JobSpec> {
        vec![settle::spec(self.clone())]
    }
}

/// The principal of a service.
pub fn service_id(name: &str) -> Id {
    // Services are named by constants of the code; a name outside the grammar would be the anonymous service.
    Id::parse(&format!("prn_svc-{name}")).unwrap_or_else(|_| TenantId::platform().id().clone())
}

fn misdrafted(error: &ChangesetError) -> CommitError {
    match error {
        ChangesetError::TooLarge => CommitError::TooLarge,
        ChangesetError::Permits | ChangesetError::NoFact | ChangesetError::Overreach => {
            CommitError::OutsidePermit(error.to_string())
        }
    }
}
