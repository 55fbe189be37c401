//! The decision: one question, one ruling.
//!
//! The question is closed: who, which act, on what with which attributes, with which arguments. Platform policy and
//! tenant policy both answer, the stricter wins, and what comes out is turned into one of three things that nobody else
//! can make: a permit, a refusal, or a refusal that waits for people.
//!
//! Approvals are weighed here and not only in policy: a verdict of HITL is lifted exactly if enough different people of
//! the right tier have granted *this* act, same principal, same resource, same arguments. The policy says how many and
//! who; this code makes sure that it cannot be talked out of it.

use crate::approval::separation::people_counted;
use crate::approval::{GrantedBy, Rules};
use crate::checking::Checking;
use crate::policy::{Compiled, KeyRing, PolicyInput, engine, input};
use access::rights;
use act::{Class, Ctx, Fault, Ids, PrincipalKind, Target, Verb};
use kernel::permit::{Authority, Decision, Mint, Refusal};
use kernel::{Digest, Effect, Grant, Id, Permit, TenantId, Verdict, commitment, hex};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How long a permit can be used.
pub const PERMIT_MS: i64 = 30_000;
/// Most (tenant, principal, act) combinations whose rate is remembered; beyond, the oldest minute is forgotten.
const THROTTLES_MAX: usize = 100_000;
const MINUTE_MS: i64 = 60_000;

/// Decides. Cheap to clone; one per installation.
#[derive(Clone)]
pub struct Governor(Arc<Inner>);

/// Per tenant, principal and act: the minute, and how many acts it has seen.
type Throttles = HashMap<(TenantId, Id, &'static str), (i64, u32)>;

struct Inner {
    mint: Mint,
    environment: String,
    ids: Arc<dyn Ids>,
    keys: KeyRing,
    platform: RwLock<Option<Compiled>>,
    rules: RwLock<Arc<Rules>>,
    tenants: RwLock<HashMap<TenantId, Own>>,
    throttles: Mutex<Throttles>,
    checking: Checking,
}

/// A tenant's own policy.
#[derive(Clone)]
enum Own {
    /// It is in force beside the platform's.
    InForce(Compiled),
    /// There is one, and it cannot be used. Leaving it out would judge the tenant's acts too mildly, so each is denied.
    Unusable,
}

/// What is asked.
pub struct Question<'a> {
    /// Who asks, for whom.
    pub ctx: &'a Ctx,
    /// The act.
    pub verb: &'a Verb,
    /// On what.
    pub target: &'a Target,
    /// With which arguments, without the secret ones.
    pub args: &'a Value,
    /// SHA-256 of all the arguments in canonical form.
    pub args_digest: Digest,
    /// Approvals that were granted for exactly this act.
    pub granted: Option<&'a Granted>,
    /// Whether the act only tells somebody that the approval they wait for is closed: the harness does this with the act
    /// that a verb names as `on_closed`.
    pub closing: bool,
    /// Now, milliseconds UTC.
    pub now_ms: i64,
}

/// Approvals of one waiting act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The approval record.
    pub approval: Id,
    /// Digest of the arguments that were approved.
    pub args_digest: Digest,
    /// Who granted.
    pub by: Vec<GrantedBy>,
}

/// What was decided, and the proof of it.
pub struct Ruling {
    /// Identity and effect.
    pub decision: Decision,
    /// The merged verdict, before approvals were weighed.
    pub verdict: Verdict,
    /// The erasable side row of the fact: seed and arguments of the commitment, and the decision log entry.
    pub aside: Vec<u8>,
    /// What follows.
    pub answer: Answer,
}

/// What follows from a decision.
pub enum Answer {
    /// It may go ahead.
    Permit(Permit),
    /// It may not; the fault for the caller, and the leave to record it.
    Refused(Refusal, Fault),
    /// It waits for people.
    Waiting(Refusal),
}

impl Governor {
    /// A governor without any policy: it denies everything until one is installed.
    pub fn new(mint: Mint, environment: &str, ids: Arc<dyn Ids>, keys: KeyRing) -> Governor {
        Governor(Arc::new(Inner {
            mint,
            environment: environment.to_owned(),
            ids,
            keys,
            platform: RwLock::default(),
            rules: RwLock::default(),
            tenants: RwLock::default(),
            throttles: Mutex::default(),
            checking: Checking::default(),
        }))
    }

    /// The keys that may sign policy here.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    /// Where bundles are checked.
    pub(crate) fn checking(&self) -> &Checking {
        &self.0.checking
    }

    /// Takes a compiled platform policy into use.
    pub fn platform_install(&self, policy: Compiled) {
        *self.0.rules.write() = Arc::new(Rules::read(&policy.data()));
        *self.0.platform.write() = Some(policy);
    }

    /// Takes a compiled tenant policy into use, beside the platform's.
    pub fn tenant_install(&self, tenant: &TenantId, policy: Compiled) {
        self.0.tenants.write().insert(tenant.clone(), Own::InForce(policy));
    }

    /// Denies every act of a tenant whose own policy is there and cannot be used.
    pub fn tenant_block(&self, tenant: &TenantId) {
        self.0.tenants.write().insert(tenant.clone(), Own::Unusable);
    }

    /// Takes a tenant's own policy out of use; the platform's alone speaks about its acts.
    pub fn tenant_withdraw(&self, tenant: &TenantId) {
        self.0.tenants.write().remove(tenant);
    }

    /// Digest of the tenant's own policy in use.
    pub fn tenant_policy(&self, tenant: &TenantId) -> Option<Digest> {
        match self.0.tenants.read().get(tenant)? {
            Own::InForce(policy) => Some(policy.digest()),
            Own::Unusable => None,
        }
    }

    /// The platform policy in use.
    pub fn platform_policy(&self) -> Option<Compiled> {
        self.0.platform.read().clone()
    }

    /// The tables of the platform policy in use that code shares: tiers and times of approvals.
    pub fn approval_rules(&self) -> Arc<Rules> {
        self.0.rules.read().clone()
    }

    /// A look at what built-in roles permit, as the platform's policy in force says: for `access`.
    pub fn role_tables(&self) -> rights::Tables {
        let governor = self.clone();
        Arc::new(move || governor.0.rules.read().table())
    }

    /// Decides on an act.
    pub fn decide(&self, question: &Question<'_>) -> Ruling {
        let ctx = question.ctx;
        let platform = self.0.platform.read().clone();
        let own = self.0.tenants.read().get(&ctx.tenant).filter(|_| !rescues(question)).cloned();
        let granted = question.granted.filter(|granted| granted.args_digest == question.args_digest);
        let input = self.input(question, granted);
        let verdict = match &platform {
            None => Verdict::deny("policy.none"),
            Some(platform) => match &own {
                None => engine::decide(&[platform], &input),
                Some(Own::InForce(own)) => engine::decide(&[platform, own], &input),
                Some(Own::Unusable) => {
                    engine::decide(&[platform], &input).merge(Verdict::deny("policy.own_unusable"))
                }
            },
        };
        // A key is good for what it is limited to, whatever any policy says.
        let project = question.target.place.as_ref().map(|place| &place.project);
        let verdict = if rights::key_covers(&ctx.principal.rights.key, project, question.verb.act) {
            verdict
        } else {
            verdict.merge(Verdict::deny("access.key_scope"))
        };
        let policy = platform.map(|platform| match &own {
            None | Some(Own::Unusable) => hex::encode(&platform.digest()),
            Some(Own::InForce(own)) => {
                format!("{}+{}", hex::encode(&platform.digest()), hex::encode(&own.digest()))
            }
        });
        let (effect, fault) = self.weigh(question, &verdict, granted);
        let decision = Decision { id: self.0.ids.id("dec", question.now_ms), effect };
        let seed = self.0.ids.entropy();
        let args_commitment = commitment::commit(&seed, question.args).ok();
        let aside = aside(question, &seed, &input, &verdict, &decision, policy.as_deref());
        let authority = Authority {
            actor: ctx.principal.id.clone(),
            on_behalf_of: ctx.on_behalf_of.clone(),
            act: question.verb.act.to_owned(),
            decision: Some(decision.clone()),
            policy,
            assurance: Some(ctx.assurance.method.clone()),
            trace: ctx.trace.clone(),
        };
        let refusal = |authority| self.0.mint.refusal(ctx.tenant.clone(), authority, args_commitment);
        let answer = match (effect, fault) {
            (Effect::Hitl, None) => Answer::Waiting(refusal(authority)),
            (_, Some(fault)) => Answer::Refused(refusal(authority), fault),
            (_, None) => Answer::Permit(self.0.mint.permit(Grant {
                tenant: ctx.tenant.clone(),
                authority,
                args_digest: question.args_digest,
                args_commitment,
                approvals: granted.map(|granted| granted.approval.clone()).into_iter().collect(),
                writes: question.verb.writes,
                facts: question.verb.facts,
                expires_at_ms: question.now_ms + PERMIT_MS,
            })),
        };
        Ruling { decision, verdict, aside, answer }
    }

    /// A permit to mark an approval as used, beside the permit of the act it was used for.
    pub fn approval_use(&self, permit: &Permit, now_ms: i64) -> Permit {
        self.0.mint.permit(Grant {
            tenant: permit.tenant().clone(),
            authority: permit.authority().clone(),
            args_digest: *permit.args_digest(),
            args_commitment: None,
            approvals: Vec::new(),
            writes: &["governor.approval"],
            facts: &["governor.approval.used"],
            expires_at_ms: now_ms + PERMIT_MS,
        })
    }

    /// Leave to record traffic that was turned away before anybody could be asked: counts, never content.
    pub fn traffic_refusal(&self, tenant: &TenantId, actor: &Id, trace: &str) -> Refusal {
        let authority = Authority {
            actor: actor.clone(),
            on_behalf_of: Vec::new(),
            act: "access.traffic.refuse".into(),
            decision: None,
            policy: None,
            assurance: Some("internal".into()),
            trace: trace.to_owned(),
        };
        self.0.mint.refusal(tenant.clone(), authority, None)
    }

    fn input(&self, question: &Question<'_>, granted: Option<&Granted>) -> PolicyInput {
        let ctx = question.ctx;
        let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let place = question.target.place.as_ref();
        let project = place.map(|place| &place.project);
        PolicyInput {
            version: input::InputVersion,
            principal: input::Principal {
                id: ctx.principal.id.to_string(),
                kind: ctx.principal.kind.as_str().to_owned(),
                roles: rights::roles_at(&ctx.principal, project),
                permitting: rights::permitting(&ctx.principal, project, question.verb.act),
                tenant: ctx.tenant.to_string(),
            },
            action: question.verb.act.to_owned(),
            resource: input::Resource {
                kind: question.target.kind.to_owned(),
                id: question.target.id.to_string(),
                attributes: object(&question.target.attributes),
                project: place.map(|place| place.project.to_string()),
                workspace: place.map(|place| place.workspace.to_string()),
                environment: place.map(|place| place.environment.to_owned()),
            },
            args: object(question.args),
            context: input::Context {
                environment: self.0.environment.clone(),
                assurance: input::Assurance {
                    level: ctx.assurance.level,
                    method: ctx.assurance.method.clone(),
                    proven_at_ms: ctx.assurance.at_ms,
                },
                approved: granted.is_some(),
                approvals: granted
                    .into_iter()
                    .flat_map(|granted| &granted.by)
                    .map(|grant| input::Approval {
                        id: granted.map_or_else(String::new, |granted| granted.approval.to_string()),
                        approver: grant.approver.to_string(),
                        tier: grant.tier,
                        granted_at_ms: grant.at_ms,
                    })
                    .collect(),
            },
            now_ms: question.now_ms,
        }
    }

    /// The effect after approvals and throttles, with the fault if the act may not go ahead at all.
    fn weigh(
        &self,
        question: &Question<'_>,
        verdict: &Verdict,
        granted: Option<&Granted>,
    ) -> (Effect, Option<Fault>) {
        let reason = || verdict.reasons.first().cloned().unwrap_or_else(|| "policy.denied".to_owned());
        let refused = |effect, class, code: &str, message: &str| {
            let fault = Fault::new(class, code, message).with(json!({"reasons": verdict.reasons}));
            (effect, Some(fault))
        };
        match verdict.effect {
            Effect::Deny => refused(Effect::Deny, Class::Denied, &reason(), "policy does not allow this act"),
            Effect::StepUp => refused(
                Effect::StepUp,
                Class::StepUp,
                &reason(),
                "this act needs a stronger proof of who you are",
            ),
            Effect::Hitl => {
                if !question.verb.can_wait {
                    refused(
                        Effect::Deny,
                        Class::Denied,
                        "approval.cannot_wait",
                        "a running step does this on its way and cannot wait for people",
                    )
                } else if granted.is_some_and(|granted| suffices(granted, verdict, question.ctx)) {
                    (Effect::Allow, None)
                } else if question.verb.secret_args.is_empty() {
                    (Effect::Hitl, None)
                } else {
                    refused(
                        Effect::Deny,
                        Class::Denied,
                        "approval.secret",
                        "an act with secret arguments cannot wait",
                    )
                }
            }
            Effect::Throttle | Effect::Route | Effect::Allow => {
                let obligations = &verdict.obligations;
                if let Some(routes) = &obligations.routes
                    && !question.target.attributes["route"]
                        .as_str()
                        .is_some_and(|route| routes.contains(route))
                {
                    return refused(
                        Effect::Deny,
                        Class::Denied,
                        "policy.route_unmet",
                        "policy allows this act on other routes only",
                    );
                }
                match obligations.per_minute {
                    Some(limit) if !self.count(question, limit) => {
                        let (effect, fault) = refused(
                            Effect::Throttle,
                            Class::Throttled,
                            "throttle.exceeded",
                            "too many acts of this kind in a minute",
                        );
                        let wait_ms = MINUTE_MS - question.now_ms.rem_euclid(MINUTE_MS);
                        (effect, fault.map(|fault| Fault { retry_after_ms: Some(wait_ms), ..fault }))
                    }
                    _ => (verdict.effect, None),
                }
            }
        }
    }

    /// Counts the act in its minute; `false` if that is one too many.
    fn count(&self, question: &Question<'_>, limit: u32) -> bool {
        let minute = question.now_ms.div_euclid(MINUTE_MS);
        let key = (question.ctx.tenant.clone(), question.ctx.principal.id.clone(), question.verb.act);
        let mut counts = self.0.throttles.lock();
        if counts.len() >= THROTTLES_MAX {
            counts.retain(|_, (at, _)| *at == minute);
        }
        if counts.len() >= THROTTLES_MAX && !counts.contains_key(&key) {
            return false;
        }
        let slot = counts.entry(key).or_insert((minute, 0));
        if slot.0 != minute {
            *slot = (minute, 0);
        }
        slot.1 = slot.1.saturating_add(1);
        slot.1 <= limit
    }
}

/// Whether the tenant's own policy has no say in it, because one that denies everything, has ended or cannot be used would
/// otherwise keep things as they are for ever. That is the platform taking this very policy out of force, and a service
/// telling a run that the approval it waits for is closed.
fn rescues(question: &Question<'_>) -> bool {
    let principal = &question.ctx.principal;
    let withdraws = question.verb.act == crate::publish::WITHDRAW && principal.home == TenantId::platform();
    withdraws || (question.closing && principal.kind == PrincipalKind::Service)
}

/// Whether the approvals are as many, as different and as high as the verdict asks, and none by those it is for.
fn suffices(granted: &Granted, verdict: &Verdict, ctx: &Ctx) -> bool {
    let obligations = &verdict.obligations;
    people_counted(&granted.by, obligations.approver_tier, ctx) >= usize::from(obligations.approvals.max(1))
}

/// What the side row holds. It borrows: it is written once an act, and a value made of it first would copy all of it.
#[derive(Serialize)]
struct Aside<'a> {
    args: &'a Value,
    decision: Event<'a>,
    seed: String,
}

#[derive(Serialize)]
struct Event<'a> {
    bundles: Value,
    decision_id: &'a Id,
    input: &'a PolicyInput,
    labels: Value,
    path: &'static str,
    req_id: &'a str,
    result: EventResult<'a>,
    timestamp_ms: i64,
}

#[derive(Serialize)]
struct EventResult<'a> {
    effect: Effect,
    obligations: &'a kernel::verdict::Obligations,
    reasons: &'a BTreeSet<String>,
}

/// The side row. Its `decision` has the fields of an OPA decision log event (EventV1), so that tools that read those
/// read these.
fn aside(
    question: &Question<'_>,
    seed: &[u8; 32],
    input: &PolicyInput,
    verdict: &Verdict,
    decision: &Decision,
    policy: Option<&str>,
) -> Vec<u8> {
    let event = Aside {
        args: question.args,
        decision: Event {
            bundles: json!({"platform": {"revision": policy}}),
            decision_id: &decision.id,
            input,
            labels: json!({"app": "writ"}),
            path: "writ/verdict",
            req_id: &question.ctx.trace,
            result: EventResult {
                effect: verdict.effect,
                obligations: &verdict.obligations,
                reasons: &verdict.reasons,
            },
            timestamp_ms: question.now_ms,
        },
        seed: hex::encode(seed),
    };
    // Plain data always serialises.
    serde_json::to_vec(&event).unwrap_or_default()
}
