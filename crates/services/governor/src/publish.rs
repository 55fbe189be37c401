//! Publishing a policy bundle: checked as an act like any other, kept by its digest, taken into use by a job.
//!
//! The record remembers the sequence number, so that an older bundle is refused even after a restart; the bytes are kept
//! as a blob under the digest that facts name, so that an evidence bundle can hold the very policy that decided.

use crate::Governor;
use crate::policy::bundle::{self, Seen};
use crate::policy::defaults::PLATFORM_SCOPE;
use crate::policy::{Compiled, publish_check};
use act::{Auth, Call, Draw as _, Fault, JobSpec, Method, Plan, Route, Target, Verb, parse};
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
    facts: &["governor.policy.published"],
    lease_ms: 30_000,
    starts_max: 20,
};

/// Arguments of `governor.policy.publish`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The signed bundle in OPA's format, base64.
    pub bundle_base64: String,
}

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
    vec![Verb {
        act: "governor.policy.publish",
        summary: "Publishes a signed policy bundle",
        args: || schemars::schema_for!(Publish).into(),
        writes: &["governor.policy"],
        facts: &["governor.policy.published"],
        // The bundle is kept as a blob; the side row of the decision need not repeat it.
        secret_args: &["bundle_base64"],
        on_closed: None,
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
                let published = publish_check(
                    &bytes,
                    governor.keys(),
                    scope(&stamp.ctx.tenant),
                    last.as_ref(),
                    stamp.at_ms,
                )
                .map_err(|problems| {
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
                };
                let outcome = json!({"digest": doc.digest, "seq": doc.seq, "revision": doc.revision});
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
    }]
}

/// Reads the policy in force of a scope and takes it into use. `false`: there is none, or it no longer opens.
pub async fn load(governor: &Governor, store: &Store, tenant: &TenantId) -> Result<bool, store::ReadError> {
    let Some(row) = store.record(tenant, PolicyDoc::KIND, &current()).await? else { return Ok(false) };
    let doc = store::decode::<PolicyDoc>(&row)?;
    let Some(digest) = hex::decode32(&doc.digest) else { return Ok(false) };
    let Some(bytes) = store.blob(tenant, &digest).await? else { return Ok(false) };
    Ok(install(governor, tenant, &bytes))
}

/// Opens, compiles and installs a bundle. Its end is checked at each decision.
pub fn install(governor: &Governor, tenant: &TenantId, bytes: &[u8]) -> bool {
    let opened =
        bundle::bundle_open(bytes, governor.keys(), scope(tenant)).map_err(|error| error.to_string());
    match opened.and_then(|bundle| Compiled::new(&bundle).map_err(|error| error.to_string())) {
        Ok(compiled) if *tenant == TenantId::platform() => governor.platform_install(compiled),
        Ok(compiled) => governor.tenant_install(tenant, compiled),
        Err(error) => {
            tracing::error!(error, %tenant, "a stored policy does not open; what was in force stays");
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
                if let Err(error) = load(&governor, &store, &tenant).await {
                    tracing::warn!(%error, "a published policy could not be read; it will be tried again");
                    return;
                }
                let at_ms = lease.lease_until_ms - INSTALL.lease_ms;
                let Ok(fact) = Id::parse(&format!("fct_{}", lease.id.as_str().trim_start_matches("job_"))) else { return };
                let mut draft = Draft::at(at_ms);
                draft.fact(Fact {
                    id: fact,
                    kind: "governor.policy.published",
                    stream: current(),
                    resource: format!("{tenant}/governor.policy/pol_current"),
                    causes: Vec::new(),
                    outcome: json!({"in_force": true}),
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
        Route {
            method: Method::Post,
            path: "/v1/policy",
            operation: "policy_publish",
            summary: "Publish a signed policy bundle",
            auth: Auth::Principal,
            call: Call::Verb("governor.policy.publish"),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/policy",
            operation: "policy_show",
            summary: "Show the policy in force",
            auth: Auth::Principal,
            call: Call::Query(
                "governor.policy.read",
                Arc::new(|query| {
                    async move {
                        let doc = query
                            .view
                            .peek::<PolicyDoc>(&current())
                            .await?
                            .ok_or_else(|| Fault::not_found("policy"))?;
                        Ok(json!({
                            "digest": doc.digest, "seq": doc.seq, "revision": doc.revision,
                            "not_after_ms": doc.not_after_ms, "published_at_ms": doc.published_at_ms,
                        }))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
    ]
}
