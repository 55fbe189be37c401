//! Receiving events: signed deliveries from outside systems.
//!
//! A delivery is believed because of its signature and nothing else. The scheme is Standard Webhooks: HMAC-SHA256 over
//! `id.timestamp.body`, the raw bytes of the body, with the secret of the connector whose URL it came to. So a delivery of
//! one tenant's system on another tenant's URL fails, a connector without a secret receives nothing at all, and a delivery
//! that comes again has the same id and gets the same outcome, because the id is the act's idempotency key. The time of a
//! delivery is no argument of the act: a repetition has another one.
//!
//! Nothing here touches storage but to find the connector and its secret, and nothing is recorded before the signature
//! holds: unsigned traffic is counted by the edge.

use crate::Deps;
use crate::connector::record::{Connector, Version, hook_key, version_id};
use crate::template::whole_numbers;
use act::{Assurance, Class, Coded, Ctx, Delivery, Fault, Principal, PrincipalKind, Route};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::CustodyError;
use futures::FutureExt as _;
use hmac::{KeyInit as _, Mac as _};
use kernel::{Id, TenantId};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Document as _;
use subtle::ConstantTimeEq as _;

/// How far a delivery's time may be off, in milliseconds.
pub const SKEW_MS: i64 = 5 * 60 * 1000;
/// Largest delivery, in bytes.
pub const DELIVERY_BYTES_MAX: usize = 64 * 1024;
/// Most signatures looked at, while a sender changes its secret.
const SIGNATURES_MAX: usize = 8;
const SECRET_PREFIX: &str = "whsec_";

/// Why a delivery is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// There is no such hook, or it has no secret.
    #[error("there is no such hook")]
    Unknown,
    /// A header is missing, doubled or malformed.
    #[error("the delivery needs exactly one webhook-id, webhook-timestamp and webhook-signature")]
    Headers,
    /// Its time is too far off.
    #[error("the delivery's timestamp is more than five minutes off")]
    Stale,
    /// No signature fits.
    #[error("the delivery's signature does not fit")]
    Signature,
    /// It is signed and no event.
    #[error("the delivery's body is no event of this connector")]
    Body,
    /// It is too large.
    #[error("a delivery has at most 64 KiB")]
    TooLarge,
}

impl Coded for HookError {
    fn code(&self) -> &'static str {
        match self {
            HookError::Unknown => "hook.unknown",
            HookError::Headers => "hook.headers",
            HookError::Stale => "hook.stale",
            HookError::Signature => "hook.signature",
            HookError::Body => "hook.body",
            HookError::TooLarge => "hook.too_large",
        }
    }
    fn class(&self) -> Class {
        match self {
            HookError::Unknown | HookError::Headers | HookError::Stale | HookError::Signature => {
                Class::Unauthenticated
            }
            HookError::Body => Class::Invalid,
            HookError::TooLarge => Class::TooLarge,
        }
    }
}

/// The headers of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// `webhook-id`: what it is known by when it comes again.
    pub id: &'a str,
    /// `webhook-timestamp`: seconds since 1970, as text.
    pub timestamp: &'a str,
    /// `webhook-signature`: `v1,…`, separated by spaces.
    pub signatures: &'a str,
}

/// Reads the headers, each of which stands exactly once.
///
/// # Errors
/// [`HookError::Headers`].
pub fn headers(headers: &[(String, String)]) -> Result<Signed<'_>, HookError> {
    let one = |name: &str| {
        let mut values = headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (Some(value), None) if !value.is_empty() && value.len() <= 1024 => Ok(value),
            _ => Err(HookError::Headers),
        }
    };
    let signed = Signed {
        id: one("webhook-id")?,
        timestamp: one("webhook-timestamp")?,
        signatures: one("webhook-signature")?,
    };
    let id_ok =
        signed.id.len() <= 100 && signed.id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    if id_ok { Ok(signed) } else { Err(HookError::Headers) }
}

/// Checks a delivery's signature, by a secret as it is written, and its time.
///
/// # Errors
/// All of [`HookError`] but those of the body.
pub fn verify(secret: &str, signed: &Signed<'_>, body: &[u8], now_ms: i64) -> Result<(), HookError> {
    let digits = signed.timestamp.len() <= 12 && signed.timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let at_s: i64 = signed.timestamp.parse().ok().filter(|_| digits).ok_or(HookError::Headers)?;
    let key = secret
        .strip_prefix(SECRET_PREFIX)
        .and_then(|text| BASE64.decode(text).ok())
        .filter(|key| key.len() >= 24);
    let key = key.ok_or(HookError::Unknown)?;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).map_err(|_| HookError::Unknown)?;
    mac.update(signed.id.as_bytes());
    mac.update(b".");
    mac.update(signed.timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let expected = mac.finalize().into_bytes();
    let fits = signed
        .signatures
        .split(' ')
        .take(SIGNATURES_MAX)
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|signature| BASE64.decode(signature).ok())
        .fold(false, |fits, signature| fits | bool::from(signature.ct_eq(expected.as_slice())));
    if !fits {
        return Err(HookError::Signature);
    }
    // After the signature: an unsigned sender learns nothing about the clock.
    if (now_ms - at_s.saturating_mul(1000)).abs() > SKEW_MS { Err(HookError::Stale) } else { Ok(()) }
}

/// The event's name: where the manifest says it stands, or the only event there is.
fn event_name(version: &Version, body: &Value) -> Option<String> {
    let named = version.manifest.events.iter().find(|(name, event)| {
        event
            .name_at
            .as_ref()
            .is_some_and(|pointer| body.pointer(pointer).and_then(Value::as_str) == Some(name.as_str()))
    });
    let only = || {
        version
            .manifest
            .events
            .iter()
            .next()
            .filter(|(_, event)| version.manifest.events.len() == 1 && event.name_at.is_none())
    };
    named.or_else(only).map(|(name, _)| name.clone())
}

async fn receive(deps: &Deps, hook: &str, raw: &[(String, String)], body: &[u8]) -> Result<Delivery, Fault> {
    if body.len() > DELIVERY_BYTES_MAX {
        return Err(HookError::TooLarge.into());
    }
    let signed = headers(raw)?;
    let hook_id = Id::parse(hook).map_err(|_| HookError::Unknown)?;
    let store = deps.harness.store();
    let found = store.record_unique_anywhere(Connector::KIND, "hook", &hook_key(&hook_id)).await?;
    let Some((tenant, row)) = found else { return Err(HookError::Unknown.into()) };
    let connector = store::decode::<Connector>(&row)?.doc;
    let usable = connector.removed_at_ms.is_none();
    let Some(receiving) = connector.hook.as_ref().filter(|_| usable) else {
        return Err(HookError::Unknown.into());
    };
    let now_ms = deps.harness.now_ms();
    // No usable secret, no deliveries: whoever sends learns no more than that.
    let opened = deps.custody.open_versions(store, &tenant, &receiving.secret, now_ms).await;
    let opened = opened.map_err(|error| match error {
        CustodyError::Read(error) => Fault::from(error),
        CustodyError::Missing | CustodyError::Revoked | CustodyError::Damaged => HookError::Unknown.into(),
    })?;
    // While a secret is being changed, the sender may still sign with the one before.
    let with =
        |secret: &custody::Secret| verify(secret.expose_text().unwrap_or_default(), &signed, body, now_ms);
    match (with(&opened.secret), &opened.previous) {
        (Err(HookError::Signature), Some((_, before))) => with(before)?,
        (judged, _) => judged?,
    }
    // Arguments of acts know no fractions; here they become text.
    let event = serde_json::from_slice(body).map(whole_numbers).map_err(|_| HookError::Body)?;
    let version_id = version_id(&connector.version).ok_or(HookError::Unknown)?;
    let row = store.record(&tenant, Version::KIND, &version_id).await?.ok_or(HookError::Unknown)?;
    let version = store::decode::<Version>(&row)?.doc;
    let name = event_name(&version, &event).filter(|_| event.is_object()).ok_or(HookError::Body)?;
    let trace = deps.harness.ids().id("trc", now_ms).to_string();
    Ok(Delivery {
        ctx: ctx(&tenant, &connector, signed.id, &trace, now_ms),
        act: "flows.run.start",
        args: json!({"connector": connector.name(), "event_name": name, "event": event}),
    })
}

/// A delivery acts as the connector's integration, and once per id.
fn ctx(tenant: &TenantId, connector: &Connector, delivery: &str, trace: &str, now_ms: i64) -> Ctx {
    let suffix = connector.name();
    Ctx {
        tenant: tenant.clone(),
        principal: Principal {
            id: harness::service_id(&format!("hook-{suffix}")),
            kind: PrincipalKind::Integration,
            roles: vec!["integration".into()],
            home: tenant.clone(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "signature".into(), level: 0, at_ms: now_ms, until_ms: None },
        trace: trace.to_owned(),
        idempotency_key: Some(format!("hook:{delivery}")),
        requested_at_ms: now_ms,
    }
}

/// The routes.
pub fn routes(deps: &Deps) -> Vec<Route> {
    let deps = deps.clone();
    let receive: act::Receive = Arc::new(move |params, headers, body| {
        let deps = deps.clone();
        async move { receive(&deps, params.get("hook").map_or("", String::as_str), headers, body).await }
            .boxed()
    });
    vec![Route::receive(
        "/v1/hooks/{hook}",
        "hook_receive",
        "Receive a signed delivery of an outside system (Standard Webhooks)",
        receive,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
        let key = BASE64.decode(secret.trim_start_matches(SECRET_PREFIX)).unwrap();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }

    fn check(
        secret: &str,
        id: &str,
        timestamp: &str,
        signatures: &str,
        now_ms: i64,
    ) -> Result<(), HookError> {
        verify(secret, &Signed { id, timestamp, signatures }, b"{}", now_ms)
    }

    #[test]
    fn signatures() {
        let good = sign(SECRET, "msg_1", "1000", b"{}");
        let other = sign("whsec_eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=", "msg_1", "1000", b"{}");
        assert!(check(SECRET, "msg_1", "1000", &good, 1_000_000).is_ok());
        assert!(check(SECRET, "msg_1", "1000", &format!("{other} {good}"), 1_000_000).is_ok());
        for (secret, id, timestamp, signatures, now_ms) in [
            (SECRET, "msg_2", "1000", good.as_str(), 1_000_000),
            (SECRET, "msg_1", "1001", &good, 1_000_000),
            (SECRET, "msg_1", "1000", &other, 1_000_000),
            (SECRET, "msg_1", "1000", "", 1_000_000),
            (SECRET, "msg_1", "1000", "v1,", 1_000_000),
            (SECRET, "msg_1", "1000", &good[..20], 1_000_000),
            (SECRET, "msg_1", "1000", &good.replace("v1,", "v1a,"), 1_000_000),
            (SECRET, "msg_1", "1000", &good, 1_000_000 + SKEW_MS + 1),
            (SECRET, "msg_1", "1000", &good, 1_000_000 - SKEW_MS - 1),
            (SECRET, "msg_1", "+1000", &good, 1_000_000),
            ("", "msg_1", "1000", &good, 1_000_000),
            ("whsec_", "msg_1", "1000", &good, 1_000_000),
            ("whsec_c2hvcnQ=", "msg_1", "1000", &good, 1_000_000),
        ] {
            assert!(
                check(secret, id, timestamp, signatures, now_ms).is_err(),
                "{id} {timestamp} {signatures} {now_ms}"
            );
        }
    }

    #[test]
    fn each_header_once() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let all = vec![
            header("Webhook-Id", "a"),
            header("webhook-timestamp", "1"),
            header("webhook-signature", "v1,x"),
        ];
        assert!(headers(&all).is_ok());
        for n in 0..3 {
            let mut missing = all.clone();
            missing.remove(n);
            assert!(headers(&missing).is_err());
            let mut doubled = all.clone();
            doubled.push(all[n].clone());
            assert!(headers(&doubled).is_err());
        }
        assert!(headers(&[header("webhook-id", "a.b"), all[1].clone(), all[2].clone()]).is_err());
    }
}
