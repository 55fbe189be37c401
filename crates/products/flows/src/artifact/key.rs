//! Whom a tenant believes: Ed25519 public keys that it has registered, beside the installation's own.
//!
//! All of them stand in one record, so that their number is bounded and an artifact cannot be taken in while its key is
//! being revoked. Revoking a key closes the door: what was taken in before stays, and is not installed anew.

use super::{ArtifactError, installation_id};
use act::{Draw as _, Fault, Plan, Target, Verb};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::Keyring;
use ed25519_dalek::VerifyingKey;
use futures::FutureExt as _;
use kernel::{Id, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document, Stored, View};

/// Most keys of one tenant, revoked ones counted.
pub const KEYS_MAX: usize = 32;
/// Longest name of a key, in bytes.
pub const NAME_BYTES_MAX: usize = 80;

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// `ark_…`, a hash of the public key; the `keyid` of signatures.
    pub id: Id,
    /// What its owners call it.
    pub name: String,
    /// The public key, base64.
    pub public_key: String,
    /// When it was registered, milliseconds UTC.
    pub registered_at_ms: i64,
    /// By whom.
    pub registered_by: Id,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
}

/// All keys that a tenant has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysDoc {
    /// `ark_all`
    pub id: Id,
    /// In order of registration.
    pub keys: Vec<Key>,
}

impl Document for KeysDoc {
    const KIND: &'static str = "flows.artifact_key";
    fn id(&self) -> &Id {
        &self.id
    }
}

fn all() -> Id {
    // A constant of the grammar.
    Id::parse("ark_all").expect("a constant id")
}

/// Reads a public key: 32 bytes in base64.
///
/// # Errors
/// `artifact.key_invalid`.
pub fn parse(text: &str) -> Result<VerifyingKey, Fault> {
    let bytes: Option<[u8; 32]> = BASE64.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).filter(|key| !key.is_weak());
    key.ok_or_else(|| Fault::invalid("artifact.key_invalid", "a public key is 32 bytes of Ed25519 in base64"))
}

/// The id of a tenant's key.
pub fn id(key: &VerifyingKey) -> String {
    format!("ark_{}", &hex::encode(&sha256(key.as_bytes()))[..16])
}

/// The keys that a tenant believes now. Whatever is committed on them depends on their record.
pub async fn trusted(view: &View, keyring: &Keyring) -> Result<BTreeMap<String, VerifyingKey>, Fault> {
    let own = keyring.evidence_key();
    let mut keys = BTreeMap::from([(installation_id(&own), own)]);
    let doc = view.get::<KeysDoc>(&all()).await?;
    for row in doc.iter().flat_map(|doc| &doc.keys).filter(|row| row.revoked_at_ms.is_none()) {
        keys.insert(row.id.to_string(), parse(&row.public_key)?);
    }
    Ok(keys)
}

/// Arguments of `flows.artifact_key.register`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// What its owners call it.
    pub name: String,
    /// The public key: Ed25519 in base64, as `writ artifact keygen` writes it.
    pub public_key: String,
}

/// Arguments of `flows.artifact_key.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The key's id.
    pub artifact_key: String,
}

fn registered(args: &Value) -> Result<(String, VerifyingKey), Fault> {
    let args: Register = act::parse(args)?;
    let plain = (1..=NAME_BYTES_MAX).contains(&args.name.len()) && !args.name.chars().any(char::is_control);
    if !plain {
        return Err(Fault::invalid("request.invalid", "a name is one line of 1 to 80 bytes"));
    }
    let key = parse(&args.public_key)?;
    Ok((args.name, key))
}

async fn find(view: &View, id: &str) -> Result<(Stored<KeysDoc>, Id), Fault> {
    let absent = || Fault::not_found("artifact key");
    let id = Id::parse(id).map_err(|_| absent())?;
    let stored = view.get::<KeysDoc>(&all()).await?.ok_or_else(absent)?;
    if stored.keys.iter().all(|key| key.id != id) {
        return Err(absent());
    }
    Ok((stored, id))
}

/// The keys as shown.
pub(super) async fn shown(view: &View) -> Result<Value, Fault> {
    let doc = view.peek::<KeysDoc>(&all()).await?;
    let keys: Vec<Value> = doc.iter().flat_map(|doc| &doc.keys).map(|key| json!(key)).collect();
    Ok(json!({"items": keys}))
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "flows.artifact_key.register",
            summary: "Registers a public key whose signature on artifacts is believed",
            args: || schemars::schema_for!(Register).into(),
            writes: &["flows.artifact_key"],
            facts: &["flows.artifact_key.registered"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, _| {
                async move {
                    let (name, key) = registered(args)?;
                    let mut target = Target::of(KeysDoc::KIND, &all());
                    target.attributes = json!({"key": id(&key)});
                    target.preview = vec![("May sign artifacts".into(), id(&key)), ("Name".into(), name)];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let (name, key) = registered(args)?;
                    let id = Id::parse(&id(&key)).map_err(act::internal)?;
                    let stored = view.get::<KeysDoc>(&all()).await?;
                    let mut keys = stored.as_ref().map(|stored| stored.keys.clone()).unwrap_or_default();
                    if keys.iter().any(|known| known.id == id) {
                        return Err(Fault::conflict(
                            "request.state",
                            "this key is registered, or was and has been revoked",
                        ));
                    }
                    if keys.len() >= KEYS_MAX {
                        return Err(Fault::conflict("request.state", "a tenant registers at most 32 keys"));
                    }
                    keys.push(Key {
                        id: id.clone(),
                        name,
                        public_key: BASE64.encode(key.as_bytes()),
                        registered_at_ms: stamp.at_ms,
                        registered_by: stamp.ctx.principal.id.clone(),
                        revoked_at_ms: None,
                    });
                    let doc = KeysDoc { id: all(), keys };
                    let outcome = json!({"artifact_key": id});
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    let fact =
                        stamp.fact("flows.artifact_key.registered", &doc.id, (KeysDoc::KIND, &id), outcome);
                    plan.draft.fact(fact);
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.artifact_key.revoke",
            summary: "Revokes a key, so that nothing it signed is taken in any more",
            args: || schemars::schema_for!(Revoke).into(),
            writes: &["flows.artifact_key"],
            facts: &["flows.artifact_key.revoked"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Revoke = act::parse(args)?;
                    let (_, id) = find(view, &args.artifact_key).await?;
                    let mut target = Target::of(KeysDoc::KIND, &all());
                    target.attributes = json!({"key": id});
                    target.preview = vec![("Revoke artifact key".into(), id.to_string())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Revoke = act::parse(args)?;
                    let (stored, id) = find(view, &args.artifact_key).await?;
                    let mut doc = stored.doc.clone();
                    for key in doc.keys.iter_mut().filter(|key| key.id == id) {
                        if key.revoked_at_ms.is_some() {
                            return Err(Fault::conflict("request.state", "the key is already revoked"));
                        }
                        key.revoked_at_ms = Some(stamp.at_ms);
                    }
                    let outcome = json!({"artifact_key": id, "revoked_at_ms": stamp.at_ms});
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    let fact =
                        stamp.fact("flows.artifact_key.revoked", &doc.id, (KeysDoc::KIND, &id), outcome);
                    plan.draft.put_if(&stored, &doc).fact(fact);
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// Opens an envelope with the keys that the tenant believes now.
pub(super) async fn open(view: &View, keyring: &Keyring, text: &str) -> Result<super::Opened, Fault> {
    let keys = trusted(view, keyring).await?;
    super::open(text, &keys).map_err(ArtifactError::into)
}
