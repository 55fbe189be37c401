//! Who may sign a tenant's policy: public keys that the tenant itself has registered.
//!
//! A tenant's policy is the tenant's own word beside the platform's. If the platform's key could sign it, it would be the
//! platform's word; so each tenant registers the public half of a key that it holds, and only bundles under such a key,
//! signed for this tenant's id, are taken. The same key registered by two tenants is two registrations: the scope in the
//! signed payload keeps their bundles apart. In the platform's own tenant a registered key signs for the scope `platform`,
//! beside the installation's key, which needs no registration.
//!
//! All keys of a tenant stand in one record, so that their number is bounded and a bundle cannot be published while its
//! key is being revoked. Revoked keys stay in it: what is in force was judged when it was published and has to open again
//! after a restart. So revoking a key closes the door; it does not put out what came in before. That takes another
//! publication, or `governor.policy.withdraw`.

use crate::policy::signer::{self, SignerError};
use crate::policy::{KeyRecord, KeyRing, bundle::Algorithm};
use crate::{Governor, publish};
use act::{Class, Coded, Draw as _, Fault, Plan, Route, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, Store, View};

/// Most keys of one tenant, revoked ones counted.
pub const SIGNERS_MAX: usize = 32;
/// Longest name of a key, in characters.
pub const NAME_MAX: usize = 80;

/// A registered key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signer {
    /// `plk_…`, a hash of the public key; the `kid` of signatures.
    pub id: Id,
    /// What its owners call it.
    pub name: String,
    /// The public key, PEM.
    pub public_key: String,
    /// When it was registered, milliseconds UTC.
    pub registered_at_ms: i64,
    /// By whom.
    pub registered_by: Id,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// All keys that a tenant has registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignersDoc {
    /// `plk_all`
    pub id: Id,
    /// In order of registration.
    pub keys: Vec<Signer>,
}

impl Document for SignersDoc {
    const KIND: &'static str = "governor.policy_key";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Why keys stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum SignersError {
    /// The text is no key.
    #[error(transparent)]
    Key(#[from] SignerError),
    /// It is registered, or was.
    #[error("this key is registered, or was and has been revoked")]
    Known,
    /// There are as many as there may be.
    #[error("a tenant registers at most {SIGNERS_MAX} keys")]
    Full,
    /// Not a name.
    #[error("a name has 1 to {NAME_MAX} letters, digits, spaces and ._@-")]
    Name,
}

impl Coded for SignersError {
    fn code(&self) -> &'static str {
        match self {
            SignersError::Key(_) => "policy.key_invalid",
            SignersError::Known => "policy.key_known",
            SignersError::Full => "policy.key_limit",
            SignersError::Name => "request.invalid",
        }
    }
    fn class(&self) -> Class {
        match self {
            SignersError::Key(_) | SignersError::Name => Class::Invalid,
            SignersError::Known | SignersError::Full => Class::Conflict,
        }
    }
}

/// Arguments of `governor.policy_key.register`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// What its owners call it.
    pub name: String,
    /// The public key: P-256 in PEM, as `writ policy keygen` writes it.
    pub public_key: String,
}

/// Arguments of `governor.policy_key.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The key's id.
    pub policy_key: String,
}

fn all() -> Id {
    // A constant of the grammar.
    Id::parse("plk_all").expect("a constant id")
}

/// Which keys count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trusted {
    /// Those that may sign what is published now.
    Live,
    /// Those that might have signed what was published before.
    Ever,
}

fn ring_of(governor: &Governor, tenant: &TenantId, doc: Option<&SignersDoc>, trusted: Trusted) -> KeyRing {
    let scope = publish::scope(tenant);
    let mut ring = if *tenant == TenantId::platform() { governor.keys().clone() } else { KeyRing::new() };
    let signers = doc.into_iter().flat_map(|doc| &doc.keys);
    for signer in signers.filter(|signer| trusted == Trusted::Ever || signer.revoked_at_ms.is_none()) {
        // It was read when it was registered.
        if let Ok(key) = signer::public_parse(&signer.public_key) {
            let record = KeyRecord { scope: scope.to_owned(), algorithm: Algorithm::Es256, key };
            ring.entry(signer.id.to_string()).or_insert(record);
        }
    }
    ring
}

/// The keys that may sign what this tenant publishes now. The commit depends on them.
pub(crate) async fn ring_now(governor: &Governor, view: &View) -> Result<KeyRing, Fault> {
    let stored = view.get::<SignersDoc>(&all()).await?;
    Ok(ring_of(governor, view.tenant(), stored.as_ref().map(|stored| &stored.doc), Trusted::Live))
}

/// The keys that may have signed what this tenant has published.
pub(crate) async fn ring_ever(
    governor: &Governor,
    store: &Store,
    tenant: &TenantId,
) -> Result<KeyRing, store::ReadError> {
    let row = store.record(tenant, SignersDoc::KIND, &all()).await?;
    let stored = row.map(|row| store::decode::<SignersDoc>(&row)).transpose()?;
    Ok(ring_of(governor, tenant, stored.as_ref().map(|stored| &stored.doc), Trusted::Ever))
}

fn name_check(name: &str) -> Result<(), SignersError> {
    let ok = (1..=NAME_MAX).contains(&name.len())
        && name.trim() == name
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" ._@-".contains(&byte));
    if ok { Ok(()) } else { Err(SignersError::Name) }
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "governor.policy_key.register",
            summary: "Registers a public key that may sign the tenant's own policy",
            args: || schemars::schema_for!(Register).into(),
            writes: &["governor.policy_key"],
            facts: &["governor.policy_key.registered"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let args: Register = parse(args)?;
                    name_check(&args.name)?;
                    let key = signer::public_parse(&args.public_key).map_err(SignersError::from)?;
                    let mut target = Target::of(SignersDoc::KIND, &all());
                    let id = signer::key_id(&key);
                    target.attributes = json!({"key": id, "scope": publish::scope(&ctx.tenant)});
                    target.preview = vec![
                        ("May sign policy of".into(), publish::scope(&ctx.tenant).into()),
                        ("Key".into(), id),
                        ("Name".into(), args.name),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Register = parse(args)?;
                    let key = signer::public_parse(&args.public_key).map_err(SignersError::from)?;
                    let id = Id::parse(&signer::key_id(&key)).map_err(act::internal)?;
                    let stored = view.get::<SignersDoc>(&all()).await?;
                    let mut keys = stored.as_ref().map(|stored| stored.keys.clone()).unwrap_or_default();
                    if keys.iter().any(|known| known.id == id) {
                        return Err(SignersError::Known.into());
                    }
                    if keys.len() >= SIGNERS_MAX {
                        return Err(SignersError::Full.into());
                    }
                    keys.push(Signer {
                        id: id.clone(),
                        name: args.name,
                        public_key: signer::public_pem(&key).map_err(SignersError::from)?,
                        registered_at_ms: stamp.at_ms,
                        registered_by: stamp.ctx.principal.id.clone(),
                        revoked_at_ms: None,
                    });
                    let doc = SignersDoc { id: all(), keys };
                    let outcome = json!({"policy_key": id, "scope": publish::scope(&stamp.ctx.tenant)});
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft.fact(stamp.fact(
                        "governor.policy_key.registered",
                        &doc.id,
                        (SignersDoc::KIND, &id),
                        outcome,
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "governor.policy_key.revoke",
            summary: "Revokes a key, so that it signs no further policy",
            args: || schemars::schema_for!(Revoke).into(),
            writes: &["governor.policy_key"],
            facts: &["governor.policy_key.revoked"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, ctx| {
                async move {
                    let args: Revoke = parse(args)?;
                    let (_, id) = find(view, &args.policy_key).await?;
                    let mut target = Target::of(SignersDoc::KIND, &all());
                    target.attributes = json!({"key": id, "scope": publish::scope(&ctx.tenant)});
                    target.preview = vec![("Revoke policy key".into(), id.to_string())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Revoke = parse(args)?;
                    let (stored, id) = find(view, &args.policy_key).await?;
                    let mut doc = stored.doc.clone();
                    for key in doc.keys.iter_mut().filter(|key| key.id == id) {
                        if key.revoked_at_ms.is_some() {
                            return Err(Fault::conflict("request.state", "the key is already revoked"));
                        }
                        key.revoked_at_ms = Some(stamp.at_ms);
                    }
                    let outcome = json!({"policy_key": id, "revoked_at_ms": stamp.at_ms});
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "governor.policy_key.revoked",
                        &doc.id,
                        (SignersDoc::KIND, &id),
                        outcome,
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

async fn find(view: &View, id: &str) -> Result<(store::Stored<SignersDoc>, Id), Fault> {
    let absent = || Fault::not_found("policy key");
    let id = Id::parse(id).map_err(|_| absent())?;
    let stored = view.get::<SignersDoc>(&all()).await?.ok_or_else(absent)?;
    if stored.keys.iter().all(|key| key.id != id) {
        return Err(absent());
    }
    Ok((stored, id))
}

fn shown(key: &Signer) -> Value {
    json!({
        "id": key.id, "name": key.name, "public_key": {"algorithm": Algorithm::Es256.name(), "pem": key.public_key},
        "registered_at_ms": key.registered_at_ms, "registered_by": key.registered_by, "revoked_at_ms": key.revoked_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/policy-keys",
            "policy_key_register",
            "Register a public key that may sign the tenant's own policy",
            "governor.policy_key.register",
        ),
        Route::post(
            "/v1/policy-keys/{policy_key}/revoke",
            "policy_key_revoke",
            "Revoke a policy signing key",
            "governor.policy_key.revoke",
        ),
        Route::get(
            "/v1/policy-keys",
            "policy_key_list",
            "List the keys that may sign the tenant's own policy",
            "governor.policy.read",
            |query| {
                async move {
                    let doc = query.view.peek::<SignersDoc>(&all()).await?;
                    let keys = doc.iter().flat_map(|doc| &doc.keys).map(shown).collect::<Vec<_>>();
                    Ok(json!({"items": keys}))
                }
                .boxed()
            },
        ),
    ]
}
