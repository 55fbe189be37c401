//! The built-in policy of the platform: signed here, put into force before the first request, renewed while the server
//! runs.
//!
//! A policy that nobody renews ends, and then it denies everything: that is what makes a server that was cut off from its
//! operators harmless. The built-in policy is no exception. Each installation signs the sources that come with the program
//! with its own key, for [`crate::config::Config::policy_ttl_ms`], and every third of that time again. Signing is an act
//! like any other (`governor.policy.publish`), so the log says which policy was in force when.
//!
//! The first one has to be in force before it can be recorded, because recording it is itself decided by policy. So it is
//! installed in memory, published under itself, and from then on each is published under its predecessor.
//!
//! A platform policy that an operator published stays: it is neither renewed nor replaced, even when it has ended. Who has
//! locked themselves out says `policy_reset = true` for one start, on the machine itself.

use act::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::Keyring;
use governor::policy::bundle::{Algorithm, BundleError, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{KeyRecord, KeyRing};
use governor::publish::{self, Loaded, PolicyDoc};
use harness::{Harness, Terms};
use kernel::{Id, TenantId, hex};
use serde_json::json;
use store::Document as _;

/// Name of the installation's own policy key.
pub const KEY_ID: &str = "installation";
/// How the revision of a built-in policy begins.
const BUILT_IN: &str = "built-in ";

/// Why the platform is without a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The built-in sources do not make a bundle; a bug of this build.
    #[error("the built-in policy cannot be signed")]
    Bundle(#[from] BundleError),
    /// It was signed and does not compile; a bug of this build.
    #[error("the built-in policy does not compile; the log says why")]
    Compile,
    /// It could not be recorded.
    #[error("the built-in policy could not be published: {0}")]
    Publish(#[from] Fault),
    /// Storage cannot be read.
    #[error("the policy in force cannot be read")]
    Read(#[from] store::ReadError),
}

/// The keys that may sign policy in this installation.
pub fn keys(keyring: &Keyring) -> KeyRing {
    let key = *keyring.policy_key().verifying_key();
    KeyRing::from([(
        KEY_ID.to_owned(),
        KeyRecord { scope: PLATFORM_SCOPE.to_owned(), algorithm: Algorithm::Es256, key },
    )])
}

/// The built-in sources, signed, in force from now on for `ttl_ms`.
pub fn sign(keyring: &Keyring, seq: u64, not_after_ms: i64) -> Result<Vec<u8>, BundleError> {
    let (mut manifest, files) = platform_sources()?;
    manifest.revision = format!("{BUILT_IN}{}", manifest.revision);
    manifest.metadata.seq = seq;
    manifest.metadata.not_after_ms = not_after_ms;
    bundle_sign(&bundle_build(&manifest, &files)?, KEY_ID, PLATFORM_SCOPE, keyring.policy_key())
}

/// What is stored as the platform's policy.
enum Stored {
    /// Nothing.
    Nothing,
    /// A built-in one; its sequence number, and whether its sources are those of this program.
    BuiltIn { seq: u64, current: bool },
    /// One that an operator published.
    Foreign { seq: u64 },
}

impl Stored {
    fn seq(&self) -> u64 {
        match self {
            Stored::Nothing => 0,
            Stored::BuiltIn { seq, .. } | Stored::Foreign { seq } => *seq,
        }
    }
}

/// The record of a tenant's policy, or of the platform's.
async fn record_of(harness: &Harness, tenant: &TenantId) -> Result<Option<PolicyDoc>, PolicyError> {
    let Ok(id) = Id::parse("pol_current") else { return Ok(None) };
    let row = harness.store().record(tenant, PolicyDoc::KIND, &id).await?;
    Ok(row.map(|row| store::decode::<PolicyDoc>(&row)).transpose()?.map(|stored| stored.doc))
}

async fn stored(harness: &Harness) -> Result<Stored, PolicyError> {
    let (store, platform) = (harness.store(), TenantId::platform());
    let Some(doc) = record_of(harness, &platform).await? else { return Ok(Stored::Nothing) };
    let foreign = Stored::Foreign { seq: doc.seq };
    if !doc.revision.starts_with(BUILT_IN) {
        return Ok(foreign);
    }
    let Some(digest) = hex::decode32(&doc.digest) else { return Ok(foreign) };
    let Some(bytes) = store.blob(&platform, &digest).await? else { return Ok(foreign) };
    let (manifest, files) = platform_sources()?;
    Ok(match bundle_open(&bytes, harness.governor().keys(), PLATFORM_SCOPE) {
        Ok(bundle) if bundle.keyid == KEY_ID => {
            let current = bundle.files == files
                && bundle.manifest.revision == format!("{BUILT_IN}{}", manifest.revision);
            Stored::BuiltIn { seq: doc.seq, current }
        }
        // Signed by a key that is no longer ours: whoever replaced the keys decides what is in force.
        Ok(_) | Err(_) => foreign,
    })
}

/// Puts policies in force at the start: every tenant's own, and the platform's. `reset`: the built-in one, whatever was
/// published.
pub async fn boot(harness: &Harness, keyring: &Keyring, ttl_ms: i64, reset: bool) -> Result<(), PolicyError> {
    let governor = harness.governor();
    let platform = TenantId::platform();
    for tenant in harness.store().tenants().await?.into_iter().filter(|tenant| *tenant != platform) {
        if publish::load(governor, harness.store(), &tenant).await? == Loaded::Unusable {
            // One tenant's policy is no reason to keep the others out; its own acts are denied until it is replaced.
            tracing::error!(%tenant, "the tenant's own policy does not open; every act of the tenant is denied");
        }
    }
    let loaded = publish::load(governor, harness.store(), &platform).await? == Loaded::InForce;
    let stored = stored(harness).await?;
    match &stored {
        Stored::Foreign { .. } if !reset => {
            if !loaded {
                tracing::error!(
                    "the published platform policy does not open; every act is denied until policy_reset is set"
                );
            }
            return Ok(());
        }
        Stored::BuiltIn { current: true, .. } if loaded && !due(harness, ttl_ms) => return Ok(()),
        Stored::Nothing | Stored::BuiltIn { .. } | Stored::Foreign { .. } => {}
    }
    let bytes = sign(keyring, next_seq(&stored, harness.now_ms()), harness.now_ms() + ttl_ms)?;
    if !publish::install(governor, &platform, &bytes) {
        return Err(PolicyError::Compile);
    }
    record(harness, &bytes).await
}

/// Renews the built-in policy if it is the one in force and a third of its time has passed. `true`: it was renewed.
pub async fn renew(harness: &Harness, keyring: &Keyring, ttl_ms: i64) -> Result<bool, PolicyError> {
    if !due(harness, ttl_ms) {
        return Ok(false);
    }
    let stored = stored(harness).await?;
    if !matches!(stored, Stored::BuiltIn { .. }) {
        return Ok(false);
    }
    let bytes = sign(keyring, next_seq(&stored, harness.now_ms()), harness.now_ms() + ttl_ms)?;
    // If it has ended already, its successor could not be published under it.
    if ended(harness) && !publish::install(harness.governor(), &TenantId::platform(), &bytes) {
        return Err(PolicyError::Compile);
    }
    record(harness, &bytes).await?;
    // The job that follows from publishing does the same; this does not wait for it.
    publish::load(harness.governor(), harness.store(), &TenantId::platform()).await?;
    Ok(true)
}

/// Whether a policy is in force that has not ended.
pub fn in_force(harness: &Harness) -> bool {
    harness.governor().platform_policy().is_some() && !ended(harness)
}

fn ended(harness: &Harness) -> bool {
    harness.governor().platform_policy().is_none_or(|policy| policy.not_after_ms() <= harness.now_ms())
}

fn due(harness: &Harness, ttl_ms: i64) -> bool {
    let left =
        harness.governor().platform_policy().map_or(0, |policy| policy.not_after_ms() - harness.now_ms());
    // More than it was given: the clock was set back, and it would stay in force for that much longer.
    left <= ttl_ms - ttl_ms / 3 || left > ttl_ms
}

/// The clock, or one more than the last if the clock was set back.
fn next_seq(stored: &Stored, now_ms: i64) -> u64 {
    u64::try_from(now_ms).unwrap_or(0).max(stored.seq().saturating_add(1))
}

async fn record(harness: &Harness, bytes: &[u8]) -> Result<(), PolicyError> {
    let trace = harness.ids().id("trc", harness.now_ms()).to_string();
    let mut ctx = harness.service("policy", &TenantId::platform(), Vec::new(), &trace);
    // Services in general may not publish policy; this one acts for the platform itself.
    ctx.principal.roles = vec!["platform_admin".to_owned()];
    let args = json!({"bundle_base64": BASE64.encode(bytes)});
    if let harness::Done::Outcome { held, .. } =
        harness.act(&ctx, "governor.policy.publish", args, Terms::default()).await?
    {
        harness.hand_over(held);
    }
    Ok(())
}
