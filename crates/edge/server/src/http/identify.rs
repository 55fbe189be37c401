//! From headers to the context of a request.
//!
//! There is one way to say who one is: `Authorization: Bearer key_<id>.<secret>`. Not a query parameter, which would stand
//! in the logs of every proxy on the way; not a cookie, which a browser would add to a request that its user never made.
//! Which tenant is meant, if not the key's own, stands in `Writ-Tenant`.

use super::problem::{Problem, Refusal};
use super::request_id::RequestId;
use super::{App, header_once};
use access::authenticate::authenticate;
use act::{Ctx, Fault};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderName};
use kernel::TenantId;

/// Names the tenant, where it is not the key's own.
pub const TENANT: HeaderName = HeaderName::from_static("writ-tenant");
/// Makes an act once-only.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a caller presented. Not printable: it holds the key.
pub struct Presented {
    key: String,
    tenant: Option<TenantId>,
}

impl Presented {
    /// Reads the headers, without checking the key.
    pub fn read(headers: &HeaderMap) -> Result<Presented, Problem> {
        let missing =
            || Refusal::Credentials.because("the header authorization has to be: Bearer key_<id>.<secret>");
        if headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(missing());
        }
        let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
        let (scheme, key) = text.split_once(' ').ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() {
            return Err(missing());
        }
        let tenant = header_once(headers, &TENANT)?
            .map(|text| {
                TenantId::parse(text)
                    .map_err(|_| Refusal::Header.because("the header writ-tenant is no tenant's id"))
            })
            .transpose()?;
        Ok(Presented { key: key.to_owned(), tenant })
    }

    /// Checks the key now. A stream asks again and again with the same words.
    pub async fn identify(&self, app: &App, id: &RequestId) -> Result<Ctx, Fault> {
        let now_ms = app.house.harness.now_ms();
        let known = authenticate(&app.house.store, &self.key, self.tenant.as_ref(), now_ms).await?;
        app.house.seen.note(&known.principal.home, &known.key, now_ms);
        Ok(Ctx {
            tenant: known.tenant,
            principal: known.principal,
            on_behalf_of: Vec::new(),
            assurance: known.assurance,
            trace: id.trace.text(),
            idempotency_key: None,
            requested_at_ms: now_ms,
        })
    }
}

/// The caller's idempotency key, if it sent one: visible ASCII; the harness bounds its length.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match header_once(headers, &IDEMPOTENCY_KEY)? {
        None => Ok(None),
        Some(key)
            if key.bytes().all(|byte| byte.is_ascii_graphic())
                && (1..=harness::KEY_BYTES_MAX).contains(&key.len()) =>
        {
            Ok(Some(key.to_owned()))
        }
        Some(_) => {
            let most = harness::KEY_BYTES_MAX;
            Err(Refusal::Header
                .because(format!("the header idempotency-key has 1 to {most} visible ASCII characters")))
        }
    }
}
