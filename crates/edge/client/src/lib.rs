//! The API, from the outside: one call, typed errors, live events.
//!
//! The contract is `contracts/openapi.json`; this client is thin on purpose. A call names method, path, query and body and
//! returns the outcome, the approval it waits for, or the problem (RFC 9457) with its stable code. It goes through the same
//! guarded way out as everything else: the one address it may reach is the one it was given, and the key travels as a
//! secret that cannot be printed.

use bytes::Bytes;
use egress::{Allowlist, Egress, EgressConfig, ReplyStream, Request, Reuse, Rule, SecretHeader};
use http::Method;
use serde_json::Value;

/// Largest reply read, in bytes: evidence bundles travel in replies.
pub const REPLY_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Largest refusal of a stream that is read, in bytes.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

/// A client of one installation.
#[derive(Clone)]
pub struct Client {
    egress: Egress,
    base_url: String,
    allow: Allowlist,
    key: std::sync::Arc<zeroize::Zeroizing<String>>,
    tenant: Option<String>,
}

/// What a call returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl Reply {
    /// The approval that the act waits for, if it does.
    pub fn approval(&self) -> Option<&str> {
        (self.status == 202).then(|| self.body["approval"].as_str()).flatten()
    }
}

/// A problem, as RFC 9457 spells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What happened.
    pub detail: String,
    /// The whole document.
    pub body: Value,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or the key cannot be used.
    #[error("{0}")]
    Setup(String),
    /// The server could not be reached, or its reply was cut off.
    #[error("the server at {url} cannot be reached ({code})")]
    Transport {
        /// The address.
        url: String,
        /// Code of the way out.
        code: &'static str,
    },
    /// The server refused.
    #[error("{} ({}): {}", .0.code, .0.status, .0.detail)]
    Problem(Box<Problem>),
    /// The reply is not what the contract says.
    #[error("the server's reply is not understood")]
    Reply,
}

impl Client {
    /// A client of the installation at `base_url`, acting with `key`, in `tenant` if it is not the key's own.
    ///
    /// `monotonic_ms` tells time for measuring; the address may be a private one, because a person or an operator chose it.
    pub fn new(
        base_url: &str,
        key: String,
        tenant: Option<String>,
        monotonic_ms: impl Fn() -> i64 + Send + Sync + 'static,
    ) -> Result<Client, ClientError> {
        let setup = |error: &dyn std::fmt::Display| ClientError::Setup(error.to_string());
        let base_url = base_url.trim_end_matches('/').to_owned();
        let origin: String = base_url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let rule = Rule::parse(&origin).and_then(Rule::allow_private).map_err(|error| setup(&error))?;
        let allow = Allowlist::new(vec![rule]).map_err(|error| setup(&error))?;
        let egress = Egress::new(EgressConfig::new(monotonic_ms)).map_err(|error| setup(&error))?;
        Ok(Client { egress, base_url, allow, key: std::sync::Arc::new(zeroize::Zeroizing::new(key)), tenant })
    }

    /// The same client acting in another tenant.
    pub fn in_tenant(&self, tenant: &str) -> Client {
        Client { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    /// The same client acting with another key.
    pub fn with_key(&self, key: String) -> Client {
        Client { key: std::sync::Arc::new(zeroize::Zeroizing::new(key)), ..self.clone() }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Request, ClientError> {
        let mut url = format!("{}{path}", self.base_url);
        if !query.is_empty() {
            let pairs: String =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            url = format!("{url}?{pairs}");
        }
        let mut request = Request::new(method, url, self.allow.clone());
        request.headers.push(("accept".into(), "application/json".into()));
        if let Some(tenant) = &self.tenant {
            request.headers.push(("writ-tenant".into(), tenant.clone()));
        }
        if !self.key.is_empty() {
            let key = SecretHeader::bearer(&self.key)
                .map_err(|_| ClientError::Setup("the API key has characters that no key has".into()))?;
            request.secrets.push(key);
        }
        request.limits.response_bytes = REPLY_BYTES_MAX;
        Ok(request)
    }

    /// Makes a call. `idempotency_key` makes an act happen once however often it is sent.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(String, String)],
        body: Option<&Value>,
        idempotency_key: Option<&str>,
    ) -> Result<Reply, ClientError> {
        let mut request = self.request(method, path, query)?;
        if let Some(body) = body {
            request.headers.push(("content-type".into(), "application/json".into()));
            // A JSON value always serialises.
            request.body = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
        }
        if let Some(key) = idempotency_key {
            request.headers.push(("idempotency-key".into(), key.to_owned()));
        }
        // Reads may share a connection; an act gets its own, so that a connection that died cannot make it ambiguous.
        if request.method == Method::GET {
            request.reuse = Reuse::Within("client".into());
        }
        self.send(request).await
    }

    /// Delivers a raw, signed body, as an outside system does.
    pub async fn deliver(
        &self,
        path: &str,
        headers: &[(String, String)],
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        let mut request = Request::new(Method::POST, format!("{}{path}", self.base_url), self.allow.clone());
        request.headers.extend(headers.iter().cloned());
        request.body = body;
        self.send(request).await
    }

    async fn send(&self, request: Request) -> Result<Reply, ClientError> {
        let reply = self.egress.send(request).await.map_err(|error| self.unreachable(error.code()))?;
        let status = reply.status.as_u16();
        let plain =
            reply.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let body: Value = if reply.body.is_empty() {
            Value::Null
        } else if plain {
            Value::String(String::from_utf8(reply.body.to_vec()).map_err(|_| ClientError::Reply)?)
        } else {
            serde_json::from_slice(&reply.body).map_err(|_| ClientError::Reply)?
        };
        if reply.status.is_success() {
            return Ok(Reply { status, body });
        }
        Err(problem(status, body))
    }

    fn unreachable(&self, code: &'static str) -> ClientError {
        ClientError::Transport { url: self.base_url.clone(), code }
    }

    /// Follows the tenant's facts. `after` is the index of the last one seen.
    pub async fn events(&self, kind: Option<&str>, after: Option<u64>) -> Result<Events, ClientError> {
        let mut query = Vec::new();
        if let Some(kind) = kind {
            query.push(("kind".to_owned(), kind.to_owned()));
        }
        if let Some(after) = after {
            query.push(("after".to_owned(), after.to_string()));
        }
        let mut request = self.request(Method::GET, "/v1/events", &query)?;
        request.limits.deadline_ms = 60 * 60 * 1000;
        request.limits.idle_ms = 60_000;
        let mut stream = self.egress.stream(request).await.map_err(|error| self.unreachable(error.code()))?;
        if !stream.status().is_success() {
            let (status, mut body) = (stream.status().as_u16(), Vec::new());
            while let Ok(Some(chunk)) = stream.chunk().await
                && body.len() < PROBLEM_BYTES_MAX
            {
                body.extend_from_slice(&chunk);
            }
            return Err(problem(status, serde_json::from_slice(&body).unwrap_or_default()));
        }
        Ok(Events { stream, decoder: egress::sse::Decoder::new(), ready: Default::default(), returned: None })
    }
}

/// A refusal, from its body.
fn problem(status: u16, body: Value) -> ClientError {
    let text = |name: &str, other: &str| body[name].as_str().unwrap_or(other).to_owned();
    let (code, detail) = (text("code", "unknown"), text("detail", "the server gave no reason"));
    ClientError::Problem(Box::new(Problem { status, code, detail, body }))
}

/// A live stream of facts, each as a CloudEvent.
pub struct Events {
    stream: ReplyStream,
    decoder: egress::sse::Decoder,
    ready: std::collections::VecDeque<egress::sse::Event>,
    returned: Option<u64>,
}

/// What a server says that ends a stream because its caller may no longer read.
fn closed(said: serde_json::Map<String, Value>) -> ClientError {
    let code = said.get("code").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let detail = "the stream was closed: the caller may no longer read".to_owned();
    ClientError::Problem(Box::new(Problem { status: 403, code, detail, body: Value::Object(said) }))
}

impl Events {
    /// The index to come back with: whatever is before or at it has been returned, or was not asked for.
    pub fn last(&self) -> Option<u64> {
        if self.ready.is_empty() { self.decoder.last_id()?.parse().ok() } else { self.returned }
    }

    /// The next event, whose `data` is the fact; `None` when the server ends the stream.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(id) = event.id.as_deref().and_then(|id| id.parse().ok()) {
                    self.returned = Some(id);
                }
                match serde_json::from_str(&event.data) {
                    // Said before the stream is ended for good.
                    Ok(Value::Object(said)) if event.name == "closed" => return Err(closed(said)),
                    Ok(event) => return Ok(Some(event)),
                    Err(_) => continue,
                }
            }
            let chunk = self.stream.chunk().await.map_err(|_| ClientError::Reply)?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.ready.extend(self.decoder.push(&chunk).map_err(|_| ClientError::Reply)?);
        }
    }
}
