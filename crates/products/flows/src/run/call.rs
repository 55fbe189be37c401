//! One call of a connector over the wire, and what may be believed about it afterwards.
//!
//! Whatever happens comes down to one of four things: it is done, it certainly had no effect and may be tried again, it
//! will never succeed, or nobody knows. [`crate::effect`] judges which; here the request gets its address, its credential
//! and its limits.

use super::RunDoc;
use super::gate::{CallArgs, Hints};
use crate::Deps;
use crate::connector::login::{Logins, PROOF_MS_MAX, Proof, Unproven};
use crate::connector::manifest::Action;
use crate::connector::record::{self, Version};
use crate::connector::request::{self, Prepared};
use crate::effect::{self, Attempted, Retry};
use crate::template::{self, Scope, TemplateError};
use crate::workflow::model::ToolStep;
use bytes::Bytes;
use egress::{Allowlist, Request, Reuse, Rule, SecretHeader};
use kernel::{TenantId, hex, sha256};
use serde_json::{Map, Value, json};

/// Longest duration of one request, in milliseconds: well within a lease, which is renewed just before.
const REQUEST_MS_MAX: u64 = 20_000;
/// Shortest time that is worth a second request.
const REQUEST_MS_MIN: u64 = 1_000;
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
    let mut unchanged = Map::new();
    for (field, source) in &tool.unchanged {
        unchanged.insert(field.clone(), template::value(source, scope)?);
    }
    Ok(CallArgs {
        run: run.id.to_string(),
        step: step.to_owned(),
        connector: tool.connector.clone(),
        action: tool.action.clone(),
        params: Value::Object(params),
        effect_key,
        hints: hints(tool, scope)?,
        unchanged,
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

/// From whom a call goes out, and where to.
pub struct Caller<'a> {
    /// What is needed of the house.
    pub deps: &'a Deps,
    /// Proves who we are.
    pub logins: &'a Logins,
    /// For whom.
    pub tenant: &'a TenantId,
    /// Where to.
    pub version: &'a Version,
}

impl Caller<'_> {
    /// Proof of who we are, for [`Caller::send`]. Made before, because it may take a while.
    pub async fn prove(&self) -> Result<Proof, Unproven> {
        self.logins.prove(self.deps, self.tenant, self.version, &[]).await
    }

    /// Sends a prepared request and makes sense of what comes back. What is turned away for its proof is sent once more
    /// with other proof, if there is any and there is time.
    pub async fn send(
        &self,
        proof: Result<Proof, Unproven>,
        action: &Action,
        params: &Map<String, Value>,
        prepared: Prepared,
    ) -> (Heard, Transcript) {
        let Some(allow) = allowlist(self.version, &self.deps.private_hosts) else {
            return (Heard::Refused { code: "flows.base_url".to_owned() }, Transcript::default());
        };
        let Proof { header, made } = match proof {
            Ok(proof) => proof,
            Err(unproven) => return (unproven.into(), Transcript::default()),
        };
        let again = prepared.clone();
        let first = (header, REQUEST_MS_MAX);
        let (heard, mut said, took_ms) = self.once(allow.clone(), first, action, params, prepared).await;
        let turned_away = matches!(&heard, Heard::Failed { code, .. } if code == "flows.unauthenticated");
        let left_ms = REQUEST_MS_MAX.saturating_sub(took_ms).saturating_sub(PROOF_MS_MAX);
        let Some(made) = made.filter(|_| turned_away && left_ms >= REQUEST_MS_MIN) else {
            return (heard, Transcript(said));
        };
        // It had no effect: what is turned away at the door has not been looked at.
        match self.logins.prove(self.deps, self.tenant, self.version, std::slice::from_ref(&made)).await {
            Ok(Proof { header, made }) => {
                let (heard, second, _) = self.once(allow, (header, left_ms), action, params, again).await;
                let taken = !matches!(&heard, Heard::Failed { code, .. } if code == "flows.unauthenticated");
                if let (Some(made), true) = (&made, taken) {
                    self.logins.taken(self.deps, self.tenant, self.version, made);
                }
                said["again"] = second;
                (heard, Transcript(said))
            }
            Err(Unproven::Exhausted) => (heard, Transcript(said)),
            Err(unproven) => (unproven.into(), Transcript(said)),
        }
    }

    /// One request. What was heard, what is kept of it, and how long it took in milliseconds.
    async fn once(
        &self,
        allow: Allowlist,
        (secret, deadline_ms): (Option<SecretHeader>, u64),
        action: &Action,
        params: &Map<String, Value>,
        prepared: Prepared,
    ) -> (Heard, Value, u64) {
        let asked = [prepared.url.as_bytes(), b"\n", &prepared.body].concat();
        let mut said = json!({
            "method": prepared.method.as_str(), "request": hex::encode(&sha256(&asked)), "request_bytes": prepared.body.len(),
        });
        let mut request = Request::new(prepared.method, prepared.url, allow);
        request.headers = prepared.headers;
        request.secrets.extend(secret);
        request.body = Bytes::from(prepared.body);
        request.limits.response_bytes = action.response.bytes_max;
        request.limits.deadline_ms = deadline_ms;
        request.limits.first_byte_ms = FIRST_BYTE_MS_MAX.min(deadline_ms);
        // A write has a connection of its own: one that is closed under our hands would leave it in doubt for nothing.
        if action.effect == crate::connector::manifest::Effect::Read {
            request.reuse = Reuse::Within(self.tenant.as_str().to_owned());
        }
        let (attempted, took_ms) = match self.deps.egress.send(request).await {
            Err(error) => {
                said["error"] = error.code().into();
                (effect::of_error(action.effect, &error), deadline_ms)
            }
            Ok(reply) => {
                said["status"] = reply.status.as_u16().into();
                said["reply"] = hex::encode(&sha256(&reply.body)).into();
                said["reply_bytes"] = reply.body.len().into();
                said["took_ms"] = reply.elapsed_ms.into();
                let took_ms = u64::try_from(reply.elapsed_ms).unwrap_or(0);
                (effect::of_reply(action, params, &reply), took_ms)
            }
        };
        (attempted.into(), said, took_ms)
    }
}

impl From<Unproven> for Heard {
    fn from(unproven: Unproven) -> Heard {
        match unproven {
            Unproven::Later(code, retry_after_ms) => Heard::Failed { code: code.to_owned(), retry_after_ms },
            Unproven::Refused(code) => Heard::Refused { code: code.to_owned() },
            Unproven::Exhausted => Heard::Refused { code: "flows.credential".to_owned() },
        }
    }
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
