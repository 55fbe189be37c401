//! Providers: who answers, and how a failure is told apart.

use crate::baseline::Baseline;
use crate::contract::{Answer, Ask, Usage};
use crate::dialect::Dialect;
use crate::stream::STREAM_BYTES_MAX;
use crate::wire::{self, ProviderError, REPLY_BYTES_MAX};
use act::{Class, Fault};
use bytes::Bytes;
use egress::{Allowlist, Egress, EgressError, Limits, ReplyStream, Request, SecretHeader, Sent, sse};
use futures::future::BoxFuture;
use http::Method;
use kernel::{TenantId, hex};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// From the request to the last byte of the answer. Below the lease of the call's job, or the call would be closed as
/// lost while it is under way.
const DEADLINE_MS: u64 = 100_000;
/// Until a whole reply begins, which is when it is finished.
const WHOLE_FIRST_BYTE_MS: u64 = 90_000;
/// Until a stream begins.
const STREAM_FIRST_BYTE_MS: u64 = 45_000;
/// The longest pause of a stream. Providers send heartbeats more often than that.
const STREAM_IDLE_MS: u64 = 20_000;
/// Most models that are asked instead of one.
pub const FALLBACKS_MAX: usize = 3;

/// Opens the key of a provider for a tenant. It is asked for at each call and forgotten after it.
pub type OpenKey =
    Arc<dyn for<'a> Fn(&'a TenantId) -> BoxFuture<'a, Result<SecretHeader, Fault>> + Send + Sync>;

/// A provider that is reached over the network.
#[derive(Clone)]
pub struct Hosted {
    /// What it speaks.
    pub dialect: Dialect,
    /// Base address, without the dialect's path: `https://api.example.com/v1`.
    pub base_url: String,
    /// Where connections may go; made by the operator.
    pub allow: Allowlist,
    /// Opens the tenant's key, in the header that the dialect wants it in.
    pub key: OpenKey,
    /// Whether replies are streamed.
    pub stream: bool,
    /// Bounds of a call in time and size.
    pub limits: Limits,
}

impl Hosted {
    /// Bounds that suit a model.
    pub fn limits(stream: bool) -> Limits {
        let limits = Limits { deadline_ms: DEADLINE_MS, ..Limits::default() };
        if stream {
            Limits {
                first_byte_ms: STREAM_FIRST_BYTE_MS,
                idle_ms: STREAM_IDLE_MS,
                response_bytes: STREAM_BYTES_MAX,
                ..limits
            }
        } else {
            // One byte more than is read, so that what is too large can be told from what fits exactly.
            Limits { first_byte_ms: WHOLE_FIRST_BYTE_MS, response_bytes: REPLY_BYTES_MAX + 1, ..limits }
        }
    }
}

/// A model that may be asked where another one cannot answer, if policy allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// `provider/model`.
    pub pin: String,
    /// Names that the provider may report for it.
    pub accepts: Vec<String>,
}

/// The providers of an installation.
#[derive(Clone, Default)]
pub struct Providers {
    /// The built-in baseline, pinned as `baseline/<anything>`.
    pub baseline: Option<Arc<Baseline>>,
    /// Hosted providers by the name that pins give them: `openai/<model>`.
    pub hosted: BTreeMap<String, Hosted>,
    /// The way out.
    pub egress: Option<Egress>,
    /// By pin, who may be asked instead, in this order; at most [`FALLBACKS_MAX`] of them are.
    pub fallbacks: BTreeMap<String, Vec<Fallback>>,
}

/// A call without an answer.
pub(super) struct Failed {
    pub fault: Fault,
    pub usage: Usage,
}

impl From<Fault> for Failed {
    /// For what failed before anything was sent.
    fn from(fault: Fault) -> Failed {
        Failed { fault, usage: Usage::Unmetered }
    }
}

impl Providers {
    pub(super) fn knows(&self, provider: &str) -> bool {
        match provider {
            "baseline" => self.baseline.is_some(),
            name => self.hosted.contains_key(name) && self.egress.is_some(),
        }
    }

    /// How many bytes a provider is sent for an ask.
    pub(super) fn request_bytes(&self, provider: &str, ask: &Ask) -> usize {
        match self.hosted.get(provider) {
            Some(hosted) => hosted.dialect.request(ask, hosted.stream).bytes(),
            // In this process nothing is sent; what it reads is what it is asked.
            None => ask.system.len() + ask.user.len() + ask.answer_schema().to_string().len(),
        }
    }

    pub(super) async fn ask(&self, provider: &str, tenant: &TenantId, ask: &Ask) -> Result<Answer, Failed> {
        match (&self.baseline, self.hosted.get(provider), &self.egress) {
            (Some(baseline), _, _) if provider == "baseline" => Ok(baseline.answer(ask)),
            (_, Some(hosted), Some(egress)) => hosted.ask(egress, tenant, ask).await,
            _ => {
                Err(Fault::invalid("model.provider_unknown", "no provider of this name is configured").into())
            }
        }
    }
}

impl Hosted {
    async fn ask(&self, egress: &Egress, tenant: &TenantId, ask: &Ask) -> Result<Answer, Failed> {
        let parts = self.dialect.request(ask, self.stream);
        let url = format!("{}{}", self.base_url.trim_end_matches('/'), parts.path);
        let mut request = Request::new(Method::POST, url, self.allow.clone());
        request.limits = self.limits.clone();
        for (name, value) in parts.headers {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        request.secrets.push((self.key)(tenant).await?);
        // A JSON value always serialises.
        request.body = Bytes::from(serde_json::to_vec(&parts.body).unwrap_or_default());
        if !self.stream {
            let reply = egress.send(request).await.map_err(|error| unreached(&error, Usage::Unknown))?;
            let headers = texts(&reply.headers);
            return self.dialect.reply(reply.status.as_u16(), &headers, &reply.body).map_err(failed);
        }
        let reply = egress.stream(request).await.map_err(|error| unreached(&error, Usage::Unknown))?;
        self.read(reply).await
    }

    /// Reads a reply that was asked for as a stream. Errors come whole, and so do the answers of servers that do not
    /// stream.
    async fn read(&self, mut reply: ReplyStream) -> Result<Answer, Failed> {
        let (status, headers) = (reply.status().as_u16(), texts(reply.headers()));
        let is_stream =
            wire::header(&headers, "content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if status != 200 || !is_stream {
            let mut body = Vec::new();
            while let Some(chunk) = reply.chunk().await.map_err(|error| unreached(&error, Usage::Unknown))? {
                body.extend_from_slice(&chunk);
                if body.len() > REPLY_BYTES_MAX {
                    break;
                }
            }
            return self.dialect.reply(status, &headers, &body).map_err(failed);
        }
        let (mut decoder, mut assembly, mut digest) =
            (sse::Decoder::new(), self.dialect.assembly(), Sha256::new());
        while !assembly.is_over() {
            let chunk = match reply.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(unreached(&error, assembly.usage())),
            };
            digest.update(&chunk);
            let Ok(events) = decoder.push(&chunk) else {
                return Err(Failed {
                    fault: Fault::new(
                        Class::Upstream,
                        "model.provider_malformed",
                        "the model provider's stream is none",
                    ),
                    usage: assembly.usage(),
                });
            };
            events.iter().for_each(|event| assembly.push(event));
        }
        assembly.finish(&headers, hex::encode(digest.finalize().as_slice())).map_err(failed)
    }
}

fn texts(headers: &egress::HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// No reply, or not all of it. Where nothing was sent, nothing was used.
fn unreached(error: &EgressError, usage: Usage) -> Failed {
    let class = if error.is_refusal() { Class::Denied } else { Class::Upstream };
    let usage = match error.sent() {
        Sent::NotSent => Usage::Unmetered,
        Sent::Maybe => usage,
    };
    Failed { fault: Fault::new(class, error.code(), "the model provider did not answer"), usage }
}

fn failed(error: ProviderError) -> Failed {
    let (class, retry_after_ms) = match error.class {
        wire::Class::Retryable { retry_after_ms } => (Class::Upstream, retry_after_ms),
        wire::Class::Malformed => (Class::Upstream, None),
        wire::Class::Refused | wire::Class::Auth | wire::Class::Misconfigured => (Class::Invalid, None),
    };
    let mut fault = Fault::new(class, error.code, error.to_string());
    fault.retry_after_ms = retry_after_ms.and_then(|ms| i64::try_from(ms).ok());
    Failed { fault, usage: error.usage }
}
