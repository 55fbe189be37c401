//! The resource `custody.secret`: a named, versioned, sealed value that connectors refer to.
//!
//! Others hold a [`CredentialRef`], `secret:<name>`, in their own records and facts; the value stays here. Putting a value
//! under a name that exists makes a new version. Revoking wipes the bytes and keeps the metadata, so that a fact that names
//! the secret still leads somewhere.
//!
//! A password is changed in two places, here and in the other system, and never at the same instant. Whichever is first,
//! for a while the one that is newest here is not the one that is accepted there. So the version before goes on being
//! openable for a bounded overlap, [`OVERLAP_MS`] unless the put says otherwise, or until somebody retires it: whoever
//! makes calls tries the newest, and if it is turned away the one before, once. A value that is known to have leaked is
//! put with an overlap of nothing. A version whose overlap is over does not open any more; its sealed bytes go with the
//! next change of the secret.
//!
//! The value is a secret argument of its verb: it enters no policy input, no side row, no approval and no fact. An act with
//! secret arguments cannot wait for approval, because it would have to be stored while it waits.

use crate::seal::Place;
use crate::secret::{SECRET_BYTES_MAX, Secret};
use crate::{Custody, Keyring};
use act::{Class, Coded, Draw as _, Fault, Plan, Route, Target, Verb, page, parse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use store::key::Key;
use store::{Document, ReadError, Store};
use zeroize::Zeroize as _;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 60;
/// Longest purpose, in bytes.
pub const PURPOSE_BYTES_MAX: usize = 200;

/// How long the version before stays openable, in milliseconds, where the put does not say.
pub const OVERLAP_MS: i64 = 600_000;
/// Longest overlap that a put may ask for: a day.
pub const OVERLAP_MS_MAX: i64 = 86_400_000;

/// The version before the newest, at rest.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Previous {
    /// Its number.
    pub version: u64,
    /// The sealed value, base64.
    pub sealed: String,
    /// The key-encryption key it was sealed under.
    pub key_id: String,
    /// Until when it opens, milliseconds UTC, exclusive.
    pub until_ms: i64,
}

/// A secret at rest.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretDoc {
    /// `sec_<name>`
    pub id: Id,
    /// Raised by every put, from 1; part of what is authenticated.
    pub version: u64,
    /// The sealed value, base64; empty once revoked.
    pub sealed: String,
    /// The key-encryption key it was sealed under.
    pub key_id: String,
    /// What it is for, in the words of whoever stored it.
    pub purpose: String,
    /// When the first version was stored, milliseconds UTC.
    pub created_at_ms: i64,
    /// When this version was stored.
    pub stored_at_ms: i64,
    /// Who stored this version.
    pub stored_by: Id,
    /// When it was revoked.
    pub revoked_at_ms: Option<i64>,
    /// The version before, while both may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

impl Document for SecretDoc {
    const KIND: &'static str = "custody.secret";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
}

/// Names a secret of the same tenant: `secret:<name>`. Safe to store, print and state in facts.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialRef(Id);

/// The text is no reference to a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a credential: expected secret:<name> of lower-case letters, digits, dots and dashes")]
pub struct CredentialRefError;

impl CredentialRef {
    /// Reads `secret:<name>`.
    ///
    /// # Errors
    /// If the scheme is another one or the name outside its grammar.
    pub fn parse(text: &str) -> Result<CredentialRef, CredentialRefError> {
        let name = text.strip_prefix("secret:").ok_or(CredentialRefError)?;
        secret_id(name).map(CredentialRef).ok_or(CredentialRefError)
    }

    /// The secret's record, `sec_<name>`.
    pub fn record(&self) -> &Id {
        &self.0
    }

    /// The secret's name.
    pub fn name(&self) -> &str {
        secret_name(&self.0)
    }
}

impl fmt::Display for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret:{}", self.name())
    }
}

impl fmt::Debug for CredentialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for CredentialRef {
    type Error = CredentialRefError;
    fn try_from(text: String) -> Result<CredentialRef, CredentialRefError> {
        CredentialRef::parse(&text)
    }
}

impl From<CredentialRef> for String {
    fn from(reference: CredentialRef) -> String {
        reference.to_string()
    }
}

fn secret_id(name: &str) -> Option<Id> {
    if name.len() > NAME_BYTES_MAX { None } else { Id::parse(&format!("sec_{name}")).ok() }
}

fn secret_name(id: &Id) -> &str {
    id.as_str().split_once('_').map_or("", |(_, name)| name)
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// There is none of this name in the tenant.
    #[error("there is no secret of this name")]
    Missing,
    /// It was revoked.
    #[error("the secret has been revoked")]
    Revoked,
    /// It does not open.
    #[error("the secret does not open under the installation's key")]
    Damaged,
    /// Storage failed.
    #[error("storage cannot be read")]
    Read(#[from] ReadError),
}

impl Coded for CustodyError {
    fn code(&self) -> &'static str {
        match self {
            CustodyError::Missing => "custody.secret_missing",
            CustodyError::Revoked => "custody.secret_revoked",
            CustodyError::Damaged => "custody.secret_damaged",
            CustodyError::Read(error) => error.code(),
        }
    }
    fn class(&self) -> Class {
        match self {
            CustodyError::Missing | CustodyError::Revoked => Class::Conflict,
            CustodyError::Damaged => Class::Unavailable,
            CustodyError::Read(error) => error.class(),
        }
    }
}

/// The versions of a secret that may be used now.
pub struct Opened {
    /// Number of the newest version.
    pub version: u64,
    /// Its value.
    pub secret: Secret,
    /// The version before and its value, during an overlap.
    pub previous: Option<(u64, Secret)>,
}

/// Opens the secret that `reference` names: the newest version, and the one before if its overlap is not over.
pub(crate) async fn open(
    keyring: &Keyring,
    store: &Store,
    tenant: &TenantId,
    reference: &CredentialRef,
    now_ms: Option<i64>,
) -> Result<Opened, CustodyError> {
    let row =
        store.record(tenant, SecretDoc::KIND, reference.record()).await?.ok_or(CustodyError::Missing)?;
    let doc = store::decode::<SecretDoc>(&row)?.doc;
    if doc.revoked_at_ms.is_some() {
        return Err(CustodyError::Revoked);
    }
    let unseal = |version: u64, key_id: &str, sealed: &str| {
        let sealed = BASE64.decode(sealed).map_err(|_| CustodyError::Damaged)?;
        let place = Place { tenant, record: reference.record(), version };
        keyring.unseal(place, key_id, &sealed).map_err(|_| CustodyError::Damaged)
    };
    let secret = unseal(doc.version, &doc.key_id, &doc.sealed)?;
    let before = doc.previous.filter(|before| now_ms.is_some_and(|now_ms| now_ms < before.until_ms));
    // One before that does not open is no reason to withhold the newest.
    let previous = before.and_then(|before| {
        Some((before.version, unseal(before.version, &before.key_id, &before.sealed).ok()?))
    });
    Ok(Opened { version: doc.version, secret, previous })
}

/// Arguments of `custody.secret.put`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// The secret's name: lower-case letters, digits, dots and dashes.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// The value. It is sealed at once and never returned.
    #[serde(deserialize_with = "value")]
    #[schemars(with = "String", extend("writeOnly" = true))]
    pub value: Secret,
    /// How long the version before may still be used, in milliseconds, at most a day; ten minutes if not given. 0: not at
    /// all, for a value that is known to others.
    pub overlap_ms: Option<i64>,
}

/// Reads a secret value. Anything but a text is refused in words of our own: the deserialiser's error would quote it.
fn value<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(Secret::new(text.into_bytes())),
        _ => Err(serde::de::Error::custom("value is a text")),
    }
}

/// Arguments of `custody.secret.retire`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    /// The secret's name.
    pub name: String,
}

/// Arguments of `custody.secret.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The secret's name.
    pub name: String,
}

fn invalid(message: &str) -> Fault {
    Fault::invalid("custody.secret_invalid", message)
}

fn put_args(args: &Value) -> Result<(Id, Put), Fault> {
    let args: Put = parse(args)?;
    let id = secret_id(&args.name).ok_or_else(|| {
        invalid("a secret's name is at most 60 lower-case letters, digits, dots and dashes, and begins with a letter or digit")
    })?;
    if args.purpose.len() > PURPOSE_BYTES_MAX || args.purpose.chars().any(char::is_control) {
        return Err(invalid("a purpose is one line of at most 200 bytes"));
    }
    if args.value.expose().is_empty() || args.value.expose().len() > SECRET_BYTES_MAX {
        return Err(invalid("a value has 1 byte to 64 KiB"));
    }
    if args.overlap_ms.is_some_and(|overlap_ms| !(0..=OVERLAP_MS_MAX).contains(&overlap_ms)) {
        return Err(invalid("an overlap is 0 to 86400000 milliseconds"));
    }
    Ok((id, args))
}

fn revoke_args(args: &Value) -> Result<Id, Fault> {
    let args: Revoke = parse(args)?;
    secret_id(&args.name).ok_or_else(|| Fault::not_found("secret"))
}

fn retire_args(args: &Value) -> Result<Id, Fault> {
    let args: Retire = parse(args)?;
    secret_id(&args.name).ok_or_else(|| Fault::not_found("secret"))
}

/// The verbs.
pub(crate) fn verbs(custody: &Custody) -> Vec<Verb> {
    let keyring = custody.keyring().clone();
    vec![
        Verb {
            act: "custody.secret.put",
            summary: "Stores a secret, or a new version of one",
            args: || schemars::schema_for!(Put).into(),
            writes: &["custody.secret"],
            facts: &["custody.secret.stored"],
            secret_args: &["value"],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let (id, args) = put_args(args)?;
                    let version = view.get::<SecretDoc>(&id).await?.map_or(0, |stored| stored.version) + 1;
                    let mut target = Target::of(SecretDoc::KIND, &id);
                    target.attributes = json!({"name": secret_name(&id), "version": version});
                    target.preview = vec![
                        ("Store secret".into(), secret_name(&id).to_owned()),
                        ("Version".into(), version.to_string()),
                        ("Purpose".into(), args.purpose),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let keyring = keyring.clone();
                async move {
                    let (id, args) = put_args(args)?;
                    let stored = view.get::<SecretDoc>(&id).await?;
                    let version = stored.as_ref().map_or(0, |stored| stored.version) + 1;
                    let place = Place { tenant: &stamp.ctx.tenant, record: &id, version };
                    let mut entropy = stamp.ids.entropy();
                    let (key_id, sealed) = keyring.seal(place, &args.value, &entropy);
                    entropy.zeroize();
                    let overlap_ms = args.overlap_ms.unwrap_or(OVERLAP_MS);
                    let before = stored.as_ref().filter(|before| before.revoked_at_ms.is_none() && overlap_ms > 0);
                    let previous = before.map(|before| Previous {
                        version: before.version,
                        sealed: before.sealed.clone(),
                        key_id: before.key_id.clone(),
                        until_ms: stamp.at_ms.saturating_add(overlap_ms),
                    });
                    let until_ms = previous.as_ref().map(|previous| previous.until_ms);
                    let doc = SecretDoc {
                        id: id.clone(),
                        version,
                        sealed: BASE64.encode(sealed),
                        key_id: key_id.clone(),
                        purpose: args.purpose,
                        created_at_ms: stored.as_ref().map_or(stamp.at_ms, |stored| stored.created_at_ms),
                        stored_at_ms: stamp.at_ms,
                        stored_by: stamp.ctx.principal.id.clone(),
                        revoked_at_ms: None,
                        previous,
                    };
                    let mut outcome = json!({"secret": id, "credential": format!("secret:{}", secret_name(&id)), "version": version});
                    if let Some(until_ms) = until_ms {
                        outcome["previous_until_ms"] = until_ms.into();
                    }
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft.fact(stamp.fact(
                        "custody.secret.stored",
                        &id,
                        (SecretDoc::KIND, &id),
                        json!({"version": version, "key": key_id, "previous_until_ms": until_ms}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "custody.secret.retire",
            summary: "Ends the overlap of a secret: its version before is used no more, and wiped",
            args: || schemars::schema_for!(Retire).into(),
            writes: &["custody.secret"],
            facts: &["custody.secret.retired"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let id = retire_args(args)?;
                    let doc = view.get::<SecretDoc>(&id).await?.ok_or_else(|| Fault::not_found("secret"))?;
                    let mut target = Target::of(SecretDoc::KIND, &id);
                    target.attributes = json!({"name": secret_name(&id), "version": doc.version});
                    target.preview =
                        vec![("Retire the version before of".into(), secret_name(&id).to_owned())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let id = retire_args(args)?;
                    let stored =
                        view.get::<SecretDoc>(&id).await?.ok_or_else(|| Fault::not_found("secret"))?;
                    let Some(before) = &stored.previous else {
                        return Err(Fault::conflict(
                            "request.state",
                            "the secret has no version before that is kept",
                        ));
                    };
                    let doc = SecretDoc { previous: None, ..stored.doc.clone() };
                    let outcome = json!({"secret": id, "version": doc.version, "retired": before.version});
                    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "custody.secret.retired",
                        &id,
                        (SecretDoc::KIND, &id),
                        json!({"version": doc.version, "retired": before.version}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "custody.secret.revoke",
            summary: "Revokes a secret and wipes its value",
            args: || schemars::schema_for!(Revoke).into(),
            writes: &["custody.secret"],
            facts: &["custody.secret.revoked"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let id = revoke_args(args)?;
                    let doc = view.get::<SecretDoc>(&id).await?.ok_or_else(|| Fault::not_found("secret"))?;
                    let mut target = Target::of(SecretDoc::KIND, &id);
                    target.attributes = json!({"name": secret_name(&id), "version": doc.version});
                    target.preview = vec![("Revoke secret".into(), secret_name(&id).to_owned())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let id = revoke_args(args)?;
                    let stored =
                        view.get::<SecretDoc>(&id).await?.ok_or_else(|| Fault::not_found("secret"))?;
                    if stored.revoked_at_ms.is_some() {
                        return Err(Fault::conflict("custody.secret_revoked", "the secret has been revoked"));
                    }
                    let doc = SecretDoc {
                        sealed: String::new(),
                        previous: None,
                        revoked_at_ms: Some(stamp.at_ms),
                        ..stored.doc.clone()
                    };
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"secret": id, "revoked_at_ms": stamp.at_ms}),
                    };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "custody.secret.revoked",
                        &id,
                        (SecretDoc::KIND, &id),
                        json!({"version": doc.version}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// The metadata of a secret: everything but the sealed bytes.
fn shown(doc: &SecretDoc) -> Value {
    json!({
        "name": secret_name(&doc.id), "credential": format!("secret:{}", secret_name(&doc.id)),
        "version": doc.version, "purpose": doc.purpose, "key": doc.key_id, "created_at_ms": doc.created_at_ms,
        "stored_at_ms": doc.stored_at_ms, "stored_by": doc.stored_by, "revoked_at_ms": doc.revoked_at_ms,
        "previous_version": doc.previous.as_ref().map(|before| before.version),
        "previous_until_ms": doc.previous.as_ref().map(|before| before.until_ms),
    })
}

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/secrets",
            "secret_put",
            "Store a secret, or a new version of one",
            "custody.secret.put",
        ),
        Route::post(
            "/v1/secrets/{name}/retire",
            "secret_retire",
            "End a secret's overlap: its version before is used no more",
            "custody.secret.retire",
        ),
        Route::post(
            "/v1/secrets/{name}/revoke",
            "secret_revoke",
            "Revoke a secret and wipe its value",
            "custody.secret.revoke",
        ),
        Route::get(
            "/v1/secrets",
            "secret_list",
            "List the tenant's secrets by name, without their values",
            "custody.secret.read",
            |query| async move { page::list(&query, "name", Vec::new(), false, shown).await }.boxed(),
        )
        .taking(&page::PARAMS),
        Route::get(
            "/v1/secrets/{name}",
            "secret_show",
            "Show a secret's metadata",
            "custody.secret.read",
            |query| {
                async move {
                    let id =
                        query.param("name").and_then(secret_id).ok_or_else(|| Fault::not_found("secret"))?;
                    let doc =
                        query.view.peek::<SecretDoc>(&id).await?.ok_or_else(|| Fault::not_found("secret"))?;
                    Ok(shown(&doc))
                }
                .boxed()
            },
        ),
    ]
}
