//! One call of a connector over the wire, and what may be believed about it afterwards.
//!
//! Whatever happens comes down to one of four things: it is done, it certainly had no effect and may be tried again, it
//! will never succeed, or nobody knows. [`crate::effect`] judges which; here the request gets its address, its credential
//! and its limits.

use super::RunDoc;
use super::gate::{CallArgs, Hints};
use crate::Deps;
use crate::connector::manifest::Action;
use crate::connector::record::{self, Login, Version};
use crate::connector::request::{self, Prepared};
use crate::effect::{self, Attempted, Retry};
use crate::template::{self, Scope, TemplateError};
use crate::workflow::model::ToolStep;
use act::Fault;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use egress::{Allowlist, Egress, Request, Reuse, Rule, SecretHeader};
use kernel::{TenantId, hex, sha256};
use serde_json::{Map, Value, json};

/// Longest duration of one request, in milliseconds: well within a lease, which is renewed just before.
const REQUEST_MS_MAX: u64 = 20_000;
/// Longest wait for the head of a reply.
const FIRST_BYTE_MS_MAX: u64 = 15_000;

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

/// What was said on the wire, as digests: enough to hold against the other side's log, nothing of the content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript(Value);

impl Transcript {
    /// Digest of the transcript, in hexadecimal.
    pub fn digest(&self) -> String {
        hex::encode(&sha256(&self.bytes()))
    }

    /// The transcript, as it is kept beside its fact.
    pub fn bytes(&self) -> Vec<u8> {
        // Plain data always serialises.
        serde_json::to_vec(&json!({"transcript": self.0})).unwrap_or_default()
    }
}

/// Why a step's call cannot be made of what its run knows. The same run fails again.
#[derive(Debug, thiserror::Error)]
pub enum DueError {
    /// A template failed.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The parameters are outside the canonical profile.
    #[error("the parameters have no canonical form")]
    Params,
}

/// The call that a run at this step is about to make: parameters, key and hints follow from the run and its pinned
/// versions alone. The engine asks for exactly this, and the act refuses anything else.
pub fn due(
    run: &RunDoc,
    version: &Version,
    step: &str,
    tool: &ToolStep,
    scope: &Scope,
) -> Result<CallArgs, DueError> {
    let params = template::tree(&Value::Object(tool.params.clone()), scope)?;
    let params = request::given(params.as_object().unwrap_or(&Map::new()));
    let effect_key = effect::key(&run.id, step, version.digest(), &params).map_err(|_| DueError::Params)?;
    Ok(CallArgs {
        run: run.id.to_string(),
        step: step.to_owned(),
        connector: tool.connector.clone(),
        action: tool.action.clone(),
        params: Value::Object(params),
        effect_key,
        hints: hints(tool, scope)?,
    })
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
pub async fn credential(
    deps: &Deps,
    tenant: &TenantId,
    version: &Version,
) -> Result<Option<SecretHeader>, Fault> {
    let Some(reference) = version.login.credential() else { return Ok(None) };
    let secret = deps.custody.open(deps.harness.store(), tenant, reference).await?;
    let text = secret
        .expose_text()
        .ok_or_else(|| Fault::invalid("flows.credential", "the credential is no text"))?;
    let header = match &version.login {
        Login::Nothing => return Ok(None),
        Login::Basic { user, .. } => {
            let pair = zeroize::Zeroizing::new(format!("{user}:{text}"));
            let value = zeroize::Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())));
            SecretHeader::new("authorization", value.as_bytes().to_vec())
        }
        Login::Bearer { .. } => SecretHeader::bearer(text),
    };
    header
        .map(Some)
        .map_err(|_| Fault::invalid("flows.credential", "the credential cannot stand in a header"))
}

/// Sends a prepared request and makes sense of what comes back.
pub async fn send(
    egress: &Egress,
    allow: Allowlist,
    credential: Result<Option<SecretHeader>, Fault>,
    action: &Action,
    params: &Map<String, Value>,
    prepared: Prepared,
    tenant: &TenantId,
) -> (Heard, Transcript) {
    let code = || "flows.credential".to_owned();
    let secret = match credential {
        Ok(secret) => secret,
        Err(fault) if fault.class.retryable() => {
            return (Heard::Failed { code: code(), retry_after_ms: None }, Transcript::default());
        }
        Err(_) => return (Heard::Refused { code: code() }, Transcript::default()),
    };
    let asked = [prepared.url.as_bytes(), b"\n", &prepared.body].concat();
    let mut said = json!({
        "method": prepared.method.as_str(), "request": hex::encode(&sha256(&asked)), "request_bytes": prepared.body.len(),
    });
    let mut request = Request::new(prepared.method, prepared.url, allow);
    request.headers = prepared.headers;
    request.secrets.extend(secret);
    request.body = Bytes::from(prepared.body);
    request.limits.response_bytes = action.response.bytes_max;
    request.limits.deadline_ms = REQUEST_MS_MAX;
    request.limits.first_byte_ms = FIRST_BYTE_MS_MAX;
    // A write has a connection of its own: one that is closed under our hands would leave it in doubt for nothing.
    if action.effect == crate::connector::manifest::Effect::Read {
        request.reuse = Reuse::Within(tenant.as_str().to_owned());
    }
    let attempted = match egress.send(request).await {
        Err(error) => {
            said["error"] = error.code().into();
            effect::of_error(action.effect, &error)
        }
        Ok(reply) => {
            said["status"] = reply.status.as_u16().into();
            said["reply"] = hex::encode(&sha256(&reply.body)).into();
            said["reply_bytes"] = reply.body.len().into();
            said["took_ms"] = reply.elapsed_ms.into();
            effect::of_reply(action, params, &reply)
        }
    };
    (attempted.into(), Transcript(said))
}

/// What a step tells policy and approvers, rendered.
fn hints(step: &ToolStep, scope: &Scope) -> Result<Hints, TemplateError> {
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
        sensitivity: step
            .policy
            .sensitivity
            .as_deref()
            .map(|source| template::text(source, scope))
            .transpose()?,
        preview,
    })
}
