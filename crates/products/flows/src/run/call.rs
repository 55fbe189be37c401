//! One call of a connector over the wire, and what may be believed about it afterwards.
//!
//! Whatever happens comes down to one of four things: it is done, it certainly had no effect and may be tried again, it
//! will never succeed, or nobody knows. [`crate::effect`] judges which; here the request gets its address, its credential
//! and its limits.

use crate::Deps;
use crate::connector::manifest::Action;
use crate::connector::record::{self, Login, Version};
use crate::connector::request::Prepared;
use crate::effect::{self, Attempted, Retry};
use crate::run::gate::Hints;
use crate::template::{self, Scope, TemplateError};
use crate::workflow::model::ToolStep;
use act::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use egress::{Allowlist, Egress, Request, Rule, SecretHeader};
use kernel::TenantId;
use serde_json::{Map, Value};

/// What became of a call.
#[derive(Debug)]
pub enum Heard {
    /// It is done; the output.
    Done(Map<String, Value>),
    /// It certainly had no effect, and may succeed later.
    Failed {
        /// Stable code.
        code: String,
        /// When the other side asks to try again, in milliseconds.
        retry_after_ms: Option<i64>,
    },
    /// It will not succeed.
    Refused {
        /// Stable code.
        code: String,
    },
    /// Nobody knows whether it had an effect.
    Unknown {
        /// Stable code.
        code: String,
    },
}

impl From<Attempted> for Heard {
    fn from(attempted: Attempted) -> Heard {
        match attempted {
            Attempted::Done(output) => Heard::Done(output),
            Attempted::Failed { code, retry: Retry::Later(retry_after_ms), .. } => {
                Heard::Failed { code: code.to_owned(), retry_after_ms }
            }
            Attempted::Failed { code, retry: Retry::Never, .. } => Heard::Refused { code: code.to_owned() },
            Attempted::Unknown { code } => Heard::Unknown { code: code.to_owned() },
        }
    }
}

/// Where calls of this version may go: its own origin, private only where the installation's configuration says so.
pub fn allowlist(version: &Version, private_hosts: &[String]) -> Option<Allowlist> {
    let target = egress::Target::parse(&format!("{}/", version.base_url)).ok()?;
    let mut rule = Rule::parse(&target.origin()).ok()?;
    if record::private_allowed(&target.host().to_string(), target.port(), private_hosts) {
        rule = rule.allow_private().ok()?;
    }
    Allowlist::new(vec![rule]).ok()
}

/// Opens the credential of a version, for one request.
pub async fn credential(deps: &Deps, tenant: &TenantId, version: &Version) -> Result<Option<SecretHeader>, Fault> {
    let Some(reference) = version.login.credential() else { return Ok(None) };
    let secret = deps.custody.open(deps.harness.store(), tenant, reference).await?;
    let text = secret.expose_text().ok_or_else(|| Fault::invalid("flows.credential", "the credential is no text"))?;
    let header = match &version.login {
        Login::Nothing => return Ok(None),
        Login::Basic { user, .. } => {
            let pair = zeroize::Zeroizing::new(format!("{user}:{text}"));
            let value = zeroize::Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
            SecretHeader::new("authorization", value.as_bytes().to_vec())
        }
        Login::Bearer { .. } => SecretHeader::bearer(text),
    };
    header.map(Some).map_err(|_| Fault::invalid("flows.credential", "the credential cannot stand in a header"))
}

/// Sends a prepared request and makes sense of what comes back.
pub async fn send(
    egress: &Egress,
    allow: Allowlist,
    credential: Result<Option<SecretHeader>, Fault>,
    action: &Action,
    params: &Map<String, Value>,
    prepared: Prepared,
) -> Heard {
    let secret = match credential {
        Ok(secret) => secret,
        Err(fault) if fault.class.retryable() => return Heard::Failed { code: "flows.credential".into(), retry_after_ms: None },
        Err(_) => return Heard::Refused { code: "flows.credential".into() },
    };
    let mut request = Request::new(prepared.method, prepared.url, allow);
    request.headers = prepared.headers;
    request.secrets.extend(secret);
    request.body = Bytes::from(prepared.body);
    request.limits.response_bytes = action.response.bytes_max;
    let attempted = match egress.send(request).await {
        Err(error) => effect::of_error(action.effect, &error),
        Ok(reply) => effect::of_reply(action, params, &reply),
    };
    attempted.into()
}

/// What a step tells policy and approvers, rendered.
pub fn hints(step: &ToolStep, scope: &Scope) -> Result<Hints, TemplateError> {
    let number = |source: &Option<String>| -> Result<Option<i64>, TemplateError> {
        let Some(source) = source else { return Ok(None) };
        let value = template::value(source, scope)?;
        Ok(value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok())))
    };
    let preview = step
        .preview
        .iter()
        .map(|(label, source)| Ok((label.clone(), template::text(source, scope)?)))
        .collect::<Result<_, TemplateError>>()?;
    Ok(Hints {
        auto_approve: step.policy.auto_approve,
        confidence_milli: number(&step.policy.confidence_milli)?,
        priority: number(&step.policy.priority)?,
        sensitivity: step.policy.sensitivity.as_deref().map(|source| template::text(source, scope)).transpose()?,
        preview,
    })
}
