//! Proving who we are: the header of a request, out of a secret or a token that was fetched for it.
//!
//! Two things go wrong with credentials at night. A password is changed in two places and for a while they disagree. And a
//! token that should have lasted half an hour was revoked after five minutes, which nobody is told: the next call gets a
//! 401. Neither is a reason for a run to fail, so there is one rule for both: **a call that was turned away with 401 had
//! no effect and is made once more, with other proof**; if that is turned away too, the 401 is what is heard.
//!
//! - With a password or a bearer token, other proof is the version of the secret before, as long as custody's overlap
//!   lasts ([`custody::credential`]). Which of the two the system takes is remembered for [`PREFER_MS`], so that a change
//!   costs a refused call every few seconds and not every call: many refused passwords lock a user out.
//! - With `client_credentials` (RFC 6749 §4.4) it is a new token. A token is fetched through egress from the connector's
//!   own address, kept in memory only, and fetched anew a while before it expires. Of many calls that want one, one
//!   fetches and the others wait for what it gets, be that a token or a failure.
//!
//! A failure to get a token is one of two kinds. The client is not accepted (a 4xx): the same request fails again, so it
//! is not made again until the secret has another version or [`REFUSED_MS`] have passed, and the step fails. Or nobody can
//! tell (5xx, 429, no answer, an answer that is no token): the step tries again later, under its own retries, and until
//! [`FAILED_MS`] have passed all calls hear of the same failure.
//!
//! A token is a [`custody::Secret`]: it cannot be printed, serialised or copied, stands in no record, fact or log, and is
//! wiped when it is dropped. It is gone with the process; there is nothing to clean up.

use super::placeholder::percent_encode;
use super::record::{Login, Version};
use crate::Deps;
use crate::run::call;
use act::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use custody::Secret;
use egress::{Request, SecretHeader};
use kernel::TenantId;
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Longest wait for one answer of a token endpoint, in milliseconds.
pub const TOKEN_MS_MAX: u64 = 4_000;
/// Longest that it takes to have a proof: two versions of a secret are tried, or somebody else is waited for who tries them.
pub const PROOF_MS_MAX: u64 = 2 * TOKEN_MS_MAX;
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// Largest answer of a token endpoint.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a token is kept whose endpoint does not say how long it lives (RFC 6749 §5.1 only recommends it).
const LIFETIME_MS: i64 = 300_000;
/// Longest that a token is kept, whatever its endpoint says: a day.
const LIFETIME_MS_MAX: i64 = 86_400_000;
/// How long before its end a token is not used any more, at most; a tenth of a short life.
const EARLY_MS_MAX: i64 = 60_000;
/// How long it is remembered that the system takes the version before, in milliseconds.
pub const PREFER_MS: i64 = 5_000;
/// How long it is remembered that the client was not accepted.
pub const REFUSED_MS: i64 = 60_000;
/// How long it is remembered that no token could be had.
pub const FAILED_MS: i64 = 1_000;
/// Most connector versions whose tokens are held; beyond it all are forgotten.
const SLOTS_MAX: usize = 4_096;
/// Where ServiceNow grants tokens.
pub const TOKEN_PATH: &str = "/oauth_token.do";

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unproven {
    /// The same call fails again.
    Refused(&'static str),
    /// It may succeed later; in so many milliseconds, if the other side said so.
    Later(&'static str, Option<i64>),
    /// There is nothing left that has not been turned away.
    Exhausted,
}

/// What a proof was made of: tells it from others, and says nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The secret's version.
    secret: u64,
    /// Which of the tokens fetched with it.
    token: u64,
}

/// A header, and what it was made of. None of either where there is nothing to prove.
pub struct Proof {
    /// The header.
    pub header: Option<SecretHeader>,
    /// What it was made of.
    pub made: Option<Made>,
}

/// A token that is held.
struct Token {
    value: Secret,
    made: Made,
    /// Not used from then on.
    until_ms: i64,
}

/// What is known of one connector version's way in.
#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Tokens fetched so far.
    fetched: u64,
    /// The last failure: with which versions of the secret, and until when it stands.
    failed: Option<(Vec<u64>, Unproven, i64)>,
}

#[derive(Default)]
struct Slot {
    /// Held while a token is fetched: that is how others wait for it.
    held: tokio::sync::Mutex<Held>,
    /// The version of the secret that the system takes, and until when that is taken for granted.
    preferred: Mutex<Option<(u64, i64)>>,
}

/// Makes proofs, and keeps the tokens.
#[derive(Default)]
pub struct Logins {
    slots: Mutex<HashMap<(TenantId, String), Arc<Slot>>>,
}

/// A good answer of a token endpoint (RFC 6749 §5.1). What else it says is of no interest.
#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "secret")]
    access_token: Secret,
    token_type: String,
    #[serde(default)]
    expires_in: Option<i64>,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    let text = String::deserialize(from).map_err(|_| serde::de::Error::custom("a token is a text"))?;
    Ok(Secret::new(text.into_bytes()))
}

impl Logins {
    fn slot(&self, tenant: &TenantId, version: &Version) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= SLOTS_MAX {
            slots.clear();
        }
        slots.entry((tenant.clone(), version.digest().to_owned())).or_default().clone()
    }

    /// Proof for one request by this version; none that was made as one of `not`, which have been turned away.
    pub async fn prove(
        &self,
        deps: &Deps,
        tenant: &TenantId,
        version: &Version,
        not: &[Made],
    ) -> Result<Proof, Unproven> {
        let Some(reference) = version.login.credential() else {
            return Ok(Proof { header: None, made: None });
        };
        let now_ms = deps.harness.now_ms();
        let opened = deps.custody.open_versions(deps.harness.store(), tenant, reference, now_ms).await;
        let opened = opened.map_err(|error| match Fault::from(error) {
            fault if fault.class.retryable() => Unproven::Later("flows.credential", None),
            _ => Unproven::Refused("flows.credential"),
        })?;
        let mut secrets = vec![(opened.version, opened.secret)];
        secrets.extend(opened.previous);
        let slot = self.slot(tenant, version);
        let preferred = slot.preferred.lock().filter(|(_, until_ms)| now_ms < *until_ms);
        if let Some((taken, _)) = preferred {
            secrets.sort_by_key(|(number, _)| *number != taken);
        }
        let unusable = |_| Unproven::Refused("flows.credential");
        let text = |secret: &Secret| secret.expose_text().map(|text| Zeroizing::new(text.to_owned()));
        match &version.login {
            Login::Nothing => Err(Unproven::Exhausted),
            Login::Basic { .. } | Login::Bearer { .. } => {
                let made = |number: u64| Made { secret: number, token: 0 };
                let left = secrets.into_iter().find(|(number, _)| !not.contains(&made(*number)));
                let (number, secret) = left.ok_or(Unproven::Exhausted)?;
                let value = text(&secret).ok_or(Unproven::Refused("flows.credential"))?;
                let header = match &version.login {
                    Login::Basic { user, .. } => {
                        let pair = Zeroizing::new(format!("{user}:{}", *value));
                        let value = Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
                        SecretHeader::new("authorization", value.as_bytes().to_vec())
                    }
                    _ => SecretHeader::bearer(&value),
                };
                Ok(Proof { header: Some(header.map_err(unusable)?), made: Some(made(number)) })
            }
            Login::OauthClientCredentials(_) => {
                let mut held = slot.held.lock().await;
                let known: Vec<u64> = secrets.iter().map(|(number, _)| *number).collect();
                // A token of a version that may not be used any more goes with it.
                held.token.take_if(|token| {
                    now_ms >= token.until_ms
                        || not.contains(&token.made)
                        || !known.contains(&token.made.secret)
                });
                // Stored anew means: calls from here on show the new one. The token of the old one is good for those under way.
                held.token.take_if(|token| preferred.is_none() && Some(&token.made.secret) != known.first());
                if held.token.is_none() {
                    held.token = Some(self.fetch(deps, tenant, version, &mut held, secrets, &slot).await?);
                }
                let token = held.token.as_ref().ok_or(Unproven::Exhausted)?;
                let value = token.value.expose_text().ok_or(Unproven::Refused("flows.credential"))?;
                let header = SecretHeader::bearer(value).map_err(unusable)?;
                Ok(Proof { header: Some(header), made: Some(token.made.clone()) })
            }
        }
    }

    /// Other proof was taken where the first was turned away: what it was made of comes first for a while.
    pub fn taken(&self, deps: &Deps, tenant: &TenantId, version: &Version, made: &Made) {
        let until_ms = deps.harness.now_ms().saturating_add(PREFER_MS);
        *self.slot(tenant, version).preferred.lock() = Some((made.secret, until_ms));
    }

    async fn fetch(
        &self,
        deps: &Deps,
        tenant: &TenantId,
        version: &Version,
        held: &mut Held,
        secrets: Vec<(u64, Secret)>,
        slot: &Slot,
    ) -> Result<Token, Unproven> {
        let known: Vec<u64> = secrets.iter().map(|(number, _)| *number).collect();
        if let Some((with, failure, until_ms)) = &held.failed
            && *with == known
            && deps.harness.now_ms() < *until_ms
        {
            return Err(failure.clone());
        }
        let mut failure = Unproven::Refused("flows.credential");
        for (nth, (number, secret)) in secrets.into_iter().enumerate() {
            match ask(deps, version, &secret).await {
                Ok((value, lifetime_ms)) => {
                    held.failed = None;
                    held.fetched += 1;
                    let now_ms = deps.harness.now_ms();
                    if nth > 0 {
                        // The system does not know the newest yet.
                        *slot.preferred.lock() = Some((number, now_ms.saturating_add(PREFER_MS)));
                    }
                    let early_ms = EARLY_MS_MAX.min(lifetime_ms / 10);
                    let made = Made { secret: number, token: held.fetched };
                    return Ok(Token {
                        value,
                        made,
                        until_ms: now_ms.saturating_add(lifetime_ms - early_ms),
                    });
                }
                // Another version of the secret may be the one that is accepted.
                Err(Unproven::Refused(code)) => failure = Unproven::Refused(code),
                Err(later) => {
                    failure = later;
                    break;
                }
            }
        }
        tracing::warn!(%tenant, ?failure, "no token could be had");
        let stands_ms = match &failure {
            Unproven::Refused(_) | Unproven::Exhausted => REFUSED_MS,
            Unproven::Later(_, asked_ms) => {
                asked_ms.unwrap_or(FAILED_MS).clamp(FAILED_MS, crate::effect::RETRY_AFTER_MS_MAX)
            }
        };
        held.failed = Some((known, failure.clone(), deps.harness.now_ms().saturating_add(stands_ms)));
        Err(failure)
    }
}

/// Asks for a token once. The token, and how long it lives in milliseconds.
async fn ask(deps: &Deps, version: &Version, secret: &Secret) -> Result<(Secret, i64), Unproven> {
    let Login::OauthClientCredentials(client) = &version.login else { return Err(Unproven::Exhausted) };
    let allow = call::allowlist(version, &deps.private_hosts).ok_or(Unproven::Refused("flows.base_url"))?;
    let value = secret.expose_text().ok_or(Unproven::Refused("flows.credential"))?;
    // Room for all of it from the start: growing would leave copies behind. A byte becomes three at most.
    let scope = client.scope.as_deref().unwrap_or_default();
    let room = 128 + 3 * (client.client_id.len() + value.len() + scope.len());
    let mut form = Zeroizing::new(String::with_capacity(room));
    form.push_str("grant_type=client_credentials&client_id=");
    percent_encode(&client.client_id, &mut form);
    form.push_str("&client_secret=");
    percent_encode(value, &mut form);
    if !scope.is_empty() {
        form.push_str("&scope=");
        percent_encode(scope, &mut form);
    }
    let url = format!("{}{}", version.base_url, client.token_path);
    let mut request = Request::new(egress::Method::POST, url, allow);
    request.headers = vec![
        ("accept".to_owned(), "application/json".to_owned()),
        ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
    ];
    request.body = Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *form).into_bytes()));
    request.limits.response_bytes = ANSWER_BYTES_MAX;
    request.limits.deadline_ms = TOKEN_MS_MAX;
    request.limits.first_byte_ms = TOKEN_MS_MAX;
    let unavailable = |asked_ms| Unproven::Later("flows.token_unavailable", asked_ms);
    let reply = match deps.egress.send(request).await {
        Ok(reply) => reply,
        Err(error) if error.is_refusal() => return Err(Unproven::Refused(error.code())),
        Err(_) => return Err(unavailable(None)),
    };
    match reply.status.as_u16() {
        200 => {}
        408 | 425 | 429 | 500..=599 => return Err(unavailable(crate::effect::retry_after_ms(&reply))),
        // The client, the grant or the scope is not accepted (RFC 6749 §5.2), or there is no such endpoint.
        _ => return Err(Unproven::Refused("flows.token_refused")),
    }
    // An instance that sleeps answers 200 with a page: that is no token, and says nothing about the client.
    let granted: Granted = serde_json::from_slice(&reply.body).map_err(|_| unavailable(None))?;
    let token = granted.access_token;
    let fits = (1..=TOKEN_BYTES_MAX).contains(&token.expose().len())
        && token.expose().iter().all(u8::is_ascii_graphic)
        && granted.token_type.eq_ignore_ascii_case("bearer");
    let lifetime_ms = granted.expires_in.map_or(LIFETIME_MS, |seconds| seconds.saturating_mul(1_000));
    if !fits || lifetime_ms <= 0 {
        return Err(unavailable(None));
    }
    Ok((token, lifetime_ms.min(LIFETIME_MS_MAX)))
}
