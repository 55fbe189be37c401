//! Publishing a policy bundle: checked as an act like any other, kept by its digest, taken into use by a job.
//!
//! The record remembers the sequence number, so that an older bundle is refused even after a restart; the bytes are kept
//! as a blob under the digest that facts name, so that an evidence bundle can hold the very policy that decided.
//!
//! The platform and every tenant publish in the same way, each in its own scope and under its own keys ([`crate::signers`]).
//! A tenant's policy can lock the tenant out: it may deny everything, or end. Taking it out of force again is the act
//! [`WITHDRAW`]; when the platform does it, the tenant's policy is not asked. The sequence number stays, so that
//! withdrawing is no way to bring an older bundle back.

use crate::Governor;
use crate::policy::bundle::{self, KeyRing, Seen};
use crate::policy::defaults::PLATFORM_SCOPE;
use crate::policy::{Compiled, publish_check};
use crate::signers;
use act::{Draw as _, Fault, JobSpec, Plan, Route, Target, Verb, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::FutureExt as _;
use kernel::changeset::{Changeset, Draft, Operation};
use kernel::permit::JobKind;
use kernel::{Fact, Id, TenantId, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::{Document, Store};

/// Largest bundle that can be published, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 512 * 1024;
/// Largest arguments of a publication: the largest bundle in base64 (RFC 4648), which makes four characters of three bytes,
/// and what stands around it.
pub const ARGS_BYTES_MAX: usize = BUNDLE_BYTES_MAX.div_ceil(3) * 4 + 1024;
/// The act that takes a tenant's own policy out of force.
pub const WITHDRAW: &str = "governor.policy.withdraw";

/// The policy in force in one scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyDoc {
    /// `pol_current`, in the platform's tenant or in the tenant's own.
    pub id: Id,
    /// Sequence number of the bundle.
    pub seq: u64,
    /// SHA-256 of the archive, in hexadecimal.
    pub digest: String,
    /// What its author calls this version.
    pub revision: String,
    /// From when on it denies everything, milliseconds UTC.
    pub not_after_ms: i64,
    /// When it was published.
    pub published_at_ms: i64,
    /// The key that signed it; empty in records from before it was kept.
    #[serde(default)]
    pub keyid: String,
    /// When it was taken out of force. The record stays, for the sequence number.
    #[serde(default)]
    pub withdrawn_at_ms: Option<i64>,
}

impl Document for PolicyDoc {
    const KIND: &'static str = "governor.policy";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Takes a published bundle into use.
pub static INSTALL: JobKind = JobKind {
    name: "governor.policy.install",
    writes: &[],
    facts: &["governor.policy.published", "governor.policy.withdrawn"],
    lease_ms: 30_000,
    starts_max: 20,
};

/// Arguments of `governor.policy.publish`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-args-bytes-max" = ARGS_BYTES_MAX))]
pub struct Publish {
    /// The signed bundle in OPA's format, base64.
    pub bundle_base64: String,
}

/// Arguments of `governor.policy.withdraw`: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {}

fn current() -> Id {
    // A constant of the grammar.
    Id::parse("pol_current").expect("a constant id")
}

/// The scope that a tenant's bundle is signed for.
pub fn scope(tenant: &TenantId) -> &str {
    if *tenant == TenantId::platform() { PLATFORM_SCOPE } else { tenant.as_str() }
}

fn bytes(args: &serde_json::Value) -> Result<Vec<u8>, Fault> {
    let args: Publish = parse(args)?;
    let bytes = BASE64
        .decode(args.bundle_base64)
        .map_err(|_| Fault::invalid("policy.bundle_malformed", "bundle_base64 is not base64"))?;
    if bytes.len() > BUNDLE_BYTES_MAX {
        return Err(Fault::new(
            act::Class::TooLarge,
            "policy.bundle_too_large",
            "the bundle is over 512 KiB",
        ));
    }
    Ok(bytes)
}

/// The verbs.
pub fn verbs(governor: &Governor) -> Vec<Verb> {
    let governor = governor.clone();
    vec![
        withdraw(),
        Verb {
            act: "governor.policy.publish",
            summary: "Publishes a signed policy bundle",
            args: || schemars::schema_for!(Publish).into(),
            writes: &["governor.policy"],
            facts: &["governor.policy.published"],
            // The bundle is kept as a blob; the side row of the decision need not repeat it.
            secret_args: &["bundle_base64"],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let bytes = bytes(args)?;
                    let mut target = Target::of(PolicyDoc::KIND, &current());
                    target.attributes =
                        json!({"scope": scope(&ctx.tenant), "digest": hex::encode(&kernel::sha256(&bytes))});
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let governor = governor.clone();
                async move {
                    let bytes = bytes(args)?;
                    let stored = view.get::<PolicyDoc>(&current()).await?;
                    let last = stored.as_ref().map(|stored| Seen {
                        seq: stored.seq,
                        digest: hex::decode32(&stored.digest).unwrap_or_default(),
                    });
                    let keys = signers::ring_now(&governor, view).await?;
                    let (tenant, at_ms) = (stamp.ctx.tenant.clone(), stamp.at_ms);
                    let check = move || {
                        let published = publish_check(&bytes, &keys, scope(&tenant), last.as_ref(), at_ms);
                        (published, bytes)
                    };
                    let (published, bytes) = governor.checking().run(check).await?;
                    let published = published.map_err(|problems| {
                        let code = problems.first().map_or("policy.lint", |problem| problem.code).to_owned();
                        let lines: Vec<String> = problems.iter().take(20).map(ToString::to_string).collect();
                        Fault::invalid(&code, lines.join("; ")).with(json!({"problems": lines}))
                    })?;
                    let doc = PolicyDoc {
                        id: current(),
                        seq: published.bundle.seq(),
                        digest: hex::encode(&published.bundle.digest),
                        revision: published.bundle.manifest.revision.clone(),
                        not_after_ms: published.bundle.not_after_ms(),
                        published_at_ms: stamp.at_ms,
                        keyid: published.bundle.keyid.clone(),
                        withdrawn_at_ms: None,
                    };
                    let outcome = json!({
                        "digest": doc.digest, "seq": doc.seq, "revision": doc.revision, "keyid": doc.keyid,
                        "scope": published.bundle.scope,
                    });
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft
                        .push(Operation::Blob { digest: published.bundle.digest, bytes })
                        .fact(stamp.fact(
                            "governor.policy.published",
                            &doc.id,
                            (PolicyDoc::KIND, &doc.id),
                            outcome,
                        ))
                        .job(stamp.id("job"), &INSTALL, stamp.at_ms, true, &json!({}));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// Takes the tenant's own policy out of force.
fn withdraw() -> Verb {
    Verb {
        act: WITHDRAW,
        summary: "Takes the tenant's own policy out of force; the platform's alone speaks about its acts",
        args: || schemars::schema_for!(Withdraw).into(),
        writes: &["governor.policy"],
        facts: &["governor.policy.withdrawn"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, ctx| {
            async move {
                let Withdraw {} = parse(args)?;
                let absent = || Fault::not_found("policy of the tenant's own");
                let doc = view.get::<PolicyDoc>(&current()).await?.ok_or_else(absent)?;
                let mut target = Target::of(PolicyDoc::KIND, &current());
                target.attributes = json!({"scope": scope(&ctx.tenant), "digest": doc.digest});
                target.preview = vec![
                    ("Withdraw policy of".into(), scope(&ctx.tenant).into()),
                    ("Revision".into(), doc.revision.clone()),
                ];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let Withdraw {} = parse(args)?;
                if stamp.ctx.tenant == TenantId::platform() {
                    let why =
                        "the platform's policy is replaced, not withdrawn: without one everything is denied";
                    return Err(Fault::conflict("request.state", why));
                }
                let absent = || Fault::not_found("policy of the tenant's own");
                let stored = view.get::<PolicyDoc>(&current()).await?.ok_or_else(absent)?;
                if stored.withdrawn_at_ms.is_some() {
                    return Err(Fault::conflict("request.state", "the policy is already withdrawn"));
                }
                let doc = PolicyDoc { withdrawn_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                let outcome = json!({"digest": doc.digest, "seq": doc.seq, "withdrawn_at_ms": stamp.at_ms});
                let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                plan.draft
                    .put_if(&stored, &doc)
                    .fact(stamp.fact(
                        "governor.policy.withdrawn",
                        &doc.id,
                        (PolicyDoc::KIND, &doc.id),
                        outcome,
                    ))
                    .job(stamp.id("job"), &INSTALL, stamp.at_ms, true, &json!({}));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

/// What is in force in a scope after [`load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing was ever published.
    Nothing,
    /// What was published last.
    InForce,
    /// It was withdrawn.
    Withdrawn,
    /// What was published last no longer opens. A tenant's acts are all denied then; the platform keeps what it had.
    Unusable,
}

/// How often [`load`] begins again because something else was published meanwhile.
const LOADS_MAX: u32 = 8;

/// Reads the policy of a scope and takes it into use, or out of it.
///
/// Compiling takes a while, and two loads may overlap; the one that began first could then put back what the other has
/// just replaced. So a load ends only when what it installed is still what is on record.
///
/// # Errors
/// If storage cannot be read.
pub async fn load(governor: &Governor, store: &Store, tenant: &TenantId) -> Result<Loaded, store::ReadError> {
    let mut doc = on_record(store, tenant).await?;
    let mut loads = 0;
    loop {
        let loaded = take_up(governor, store, tenant, doc.as_ref()).await?;
        let now = on_record(store, tenant).await?;
        loads += 1;
        if now == doc || loads == LOADS_MAX {
            return Ok(loaded);
        }
        doc = now;
    }
}

async fn on_record(store: &Store, tenant: &TenantId) -> Result<Option<PolicyDoc>, store::ReadError> {
    let row = store.record(tenant, PolicyDoc::KIND, &current()).await?;
    Ok(row.map(|row| store::decode::<PolicyDoc>(&row)).transpose()?.map(|stored| stored.doc))
}

async fn take_up(
    governor: &Governor,
    store: &Store,
    tenant: &TenantId,
    doc: Option<&PolicyDoc>,
) -> Result<Loaded, store::ReadError> {
    let Some(doc) = doc else { return Ok(Loaded::Nothing) };
    if doc.withdrawn_at_ms.is_some() {
        governor.tenant_withdraw(tenant);
        return Ok(Loaded::Withdrawn);
    }
    let keys = signers::ring_ever(governor, store, tenant).await?;
    let bytes = match hex::decode32(&doc.digest) {
        Some(digest) => store.blob(tenant, &digest).await?,
        None => None,
    };
    if let Some(bytes) = bytes {
        // Compiling takes the processor for a while, which the runtime's own threads cannot spare.
        let (governor, tenant) = (governor.clone(), tenant.clone());
        let install = move || install_under(&governor, &tenant, &bytes, &keys);
        if tokio::task::spawn_blocking(install).await.unwrap_or(false) {
            return Ok(Loaded::InForce);
        }
    }
    if *tenant != TenantId::platform() {
        governor.tenant_block(tenant);
    }
    Ok(Loaded::Unusable)
}

/// Opens, compiles and installs a bundle that the installation itself has signed.
pub fn install(governor: &Governor, tenant: &TenantId, bytes: &[u8]) -> bool {
    install_under(governor, tenant, bytes, governor.keys())
}

/// Opens, compiles and installs a bundle. Its end is checked at each decision.
fn install_under(governor: &Governor, tenant: &TenantId, bytes: &[u8], keys: &KeyRing) -> bool {
    let opened = bundle::bundle_open(bytes, keys, scope(tenant)).map_err(|error| error.to_string());
    match opened.and_then(|bundle| Compiled::new(&bundle).map_err(|error| error.to_string())) {
        Ok(compiled) if *tenant == TenantId::platform() => governor.platform_install(compiled),
        Ok(compiled) => governor.tenant_install(tenant, compiled),
        Err(error) => {
            tracing::error!(error, %tenant, "a stored policy does not open");
            return false;
        }
    }
    true
}

/// The job that takes a published bundle into use.
pub fn jobs(governor: &Governor, store: &Store) -> Vec<JobSpec> {
    let (governor, store) = (governor.clone(), store.clone());
    vec![JobSpec {
        kind: &INSTALL,
        run: Arc::new(move |lease| {
            let (governor, store) = (governor.clone(), store.clone());
            async move {
                let tenant = lease.tenant.clone();
                let loaded = match load(&governor, &store, &tenant).await {
                    Ok(loaded) => loaded,
                    Err(error) => {
                        tracing::warn!(%error, "a published policy could not be read; it will be tried again");
                        return;
                    }
                };
                let kind = match loaded {
                    Loaded::Withdrawn => "governor.policy.withdrawn",
                    Loaded::Nothing | Loaded::InForce | Loaded::Unusable => "governor.policy.published",
                };
                let at_ms = lease.lease_until_ms - INSTALL.lease_ms;
                let Ok(fact) = Id::parse(&format!("fct_{}", lease.id.as_str().trim_start_matches("job_"))) else { return };
                let mut draft = Draft::at(at_ms);
                draft.fact(Fact {
                    id: fact,
                    kind,
                    stream: current(),
                    resource: format!("{tenant}/governor.policy/pol_current"),
                    causes: Vec::new(),
                    outcome: json!({"in_force": loaded == Loaded::InForce}),
                    aside: None,
                });
                if let Ok(changeset) = Changeset::continuing(lease, draft)
                    && let Err(error) = store.commit(changeset).await
                {
                    tracing::warn!(%error, "taking a policy into use was not recorded; it will be tried again");
                }
            }
            .boxed()
        }),
    }]
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/policy",
            "policy_publish",
            "Publish a signed policy bundle",
            "governor.policy.publish",
        ),
        Route::post(
            "/v1/policy/withdraw",
            "policy_withdraw",
            "Take the tenant's own policy out of force",
            WITHDRAW,
        ),
        Route::get(
            "/v1/policy",
            "policy_show",
            "Show the policy in force",
            "governor.policy.read",
            |query| {
                async move {
                    let doc = query
                        .view
                        .peek::<PolicyDoc>(&current())
                        .await?
                        .ok_or_else(|| Fault::not_found("policy"))?;
                    Ok(json!({
                        "scope": scope(&query.ctx.tenant), "digest": doc.digest, "seq": doc.seq,
                        "revision": doc.revision, "keyid": doc.keyid, "not_after_ms": doc.not_after_ms,
                        "published_at_ms": doc.published_at_ms, "withdrawn_at_ms": doc.withdrawn_at_ms,
                    }))
                }
                .boxed()
            },
        ),
    ]
}
