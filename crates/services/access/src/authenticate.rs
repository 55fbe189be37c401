//! From the text of a key to a principal.

use crate::key::KeyDoc;
use crate::principal::PrincipalDoc;
use crate::rights;
use act::{Assurance, Class, Coded, Principal};
use kernel::{Id, TenantId, hex, sha256};
use store::key::Key;
use store::{Document as _, Store};
use subtle::ConstantTimeEq as _;

/// Longest key text looked at, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// Why somebody is not let in. The text is the same for every reason.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Unknown, malformed, revoked, expired, rotated away, or of somebody who is suspended.
    #[error("the API key is not valid")]
    Key,
    /// The principal does not belong to the tenant it named.
    #[error("the principal does not belong to this tenant")]
    Tenant,
    /// Storage cannot be read, so nobody is let in.
    #[error("credentials cannot be checked right now")]
    Unavailable,
}

impl Coded for AuthenticateError {
    fn code(&self) -> &'static str {
        match self {
            AuthenticateError::Key => "access.key_invalid",
            AuthenticateError::Tenant => "access.tenant_denied",
            AuthenticateError::Unavailable => "store.failed",
        }
    }
    fn class(&self) -> Class {
        match self {
            AuthenticateError::Key => Class::Unauthenticated,
            AuthenticateError::Tenant => Class::Denied,
            AuthenticateError::Unavailable => Class::Unavailable,
        }
    }
}

/// An authenticated principal and the tenant it will act in.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Who.
    pub principal: Principal,
    /// Where.
    pub tenant: TenantId,
    /// How sure.
    pub assurance: Assurance,
    /// The key that was used.
    pub key: Id,
}

/// Checks a key. `wanted` is the tenant the caller names, if it names one: only somebody with a role in every tenant may
/// name another than their own.
pub async fn authenticate(
    store: &Store,
    text: &str,
    wanted: Option<&TenantId>,
    now_ms: i64,
) -> Result<Authenticated, AuthenticateError> {
    let (id, secret) = text
        .split_once('.')
        .filter(|(_, secret)| text.len() <= KEY_BYTES_MAX && secret.len() >= 32)
        .ok_or(AuthenticateError::Key)?;
    let id = Id::parse(id).ok().filter(|id| id.prefix() == "key").ok_or(AuthenticateError::Key)?;
    let unavailable = |_| AuthenticateError::Unavailable;
    let found = store
        .record_unique_anywhere(KeyDoc::KIND, "id", &Key::new().text(id.as_str()).bytes())
        .await
        .map_err(unavailable)?;
    // An unknown key is compared all the same, against something no secret hashes to, so that both take one path.
    let key = found.as_ref().map(|(_, row)| store::decode::<KeyDoc>(row)).transpose().map_err(unavailable)?;
    let hash = sha256(secret.as_bytes());
    let expected = key.as_ref().and_then(|key| hex::decode32(&key.secret_sha256)).unwrap_or_default();
    let before = key.as_ref().and_then(|key| key.before.as_ref()).filter(|before| before.until_ms > now_ms);
    let old = before.and_then(|before| hex::decode32(&before.secret_sha256)).unwrap_or_default();
    let (matches, matches_old) = (hash.ct_eq(&expected), hash.ct_eq(&old));
    let old_until_ms = before.filter(|_| !bool::from(matches)).map(|before| before.until_ms);
    let (Some((home, _)), Some(key), true) = (found, &key, bool::from(matches | matches_old)) else {
        return Err(AuthenticateError::Key);
    };
    if key.revoked_at_ms.is_some() || key.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return Err(AuthenticateError::Key);
    }
    let row = store.record(&home, PrincipalDoc::KIND, &key.principal).await.map_err(unavailable)?;
    let owner = row.map(|row| store::decode::<PrincipalDoc>(&row)).transpose().map_err(unavailable)?;
    let owner = owner.ok_or(AuthenticateError::Key)?.doc;
    if owner.suspended_at_ms.is_some() {
        return Err(AuthenticateError::Key);
    }
    let tenant = wanted.unwrap_or(&home).clone();
    let principal = rights::resolve(store, &home, &tenant, &owner, key.limits.clone(), now_ms)
        .await
        .map_err(unavailable)?;
    if tenant != home
        && (principal.rights.platform.is_empty() || store.head(&tenant).await.map_err(unavailable)?.is_none())
    {
        return Err(AuthenticateError::Tenant);
    }
    Ok(Authenticated {
        principal,
        tenant,
        assurance: Assurance {
            method: "key".into(),
            level: key.level,
            at_ms: now_ms,
            // What was proven with an old secret ends with it.
            until_ms: key.expires_at_ms.into_iter().chain(old_until_ms).min(),
        },
        key: key.id.clone(),
    })
}
