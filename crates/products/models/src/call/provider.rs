//! Providers: who answers, and how a failure is told apart.

use crate::baseline::Baseline;
use crate::contract::{Answer, Ask, Usage};
use crate::openai;
use act::{Class, Fault};
use bytes::Bytes;
use egress::{Allowlist, Egress, Request, SecretHeader};
use futures::future::BoxFuture;
use http::Method;
use kernel::TenantId;
use std::sync::Arc;

/// Opens the key of a provider for a tenant. It is asked for at each call and forgotten after it.
pub type OpenKey =
    Arc<dyn for<'a> Fn(&'a TenantId) -> BoxFuture<'a, Result<SecretHeader, Fault>> + Send + Sync>;

/// A provider that speaks the OpenAI dialect.
#[derive(Clone)]
pub struct OpenAi {
    /// Base address, without the dialect's path: `https://api.example.com/v1`.
    pub base_url: String,
    /// Where connections may go; made by the operator.
    pub allow: Allowlist,
    /// Opens the tenant's key.
    pub key: OpenKey,
}

/// The providers of an installation.
#[derive(Clone, Default)]
pub struct Providers {
    /// The built-in baseline, pinned as `baseline/<anything>`.
    pub baseline: Option<Arc<Baseline>>,
    /// An OpenAI-shaped provider, pinned as `openai/<model>`.
    pub openai: Option<OpenAi>,
    /// The way out.
    pub egress: Option<Egress>,
}

/// A call without an answer.
pub(super) struct Failed {
    pub fault: Fault,
    pub usage: Usage,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed { fault, usage: Usage::Unknown }
    }
}

impl Providers {
    pub(super) fn knows(&self, provider: &str) -> bool {
        match provider {
            "baseline" => self.baseline.is_some(),
            "openai" => self.openai.is_some() && self.egress.is_some(),
            _ => false,
        }
    }

    pub(super) async fn ask(&self, provider: &str, tenant: &TenantId, ask: &Ask) -> Result<Answer, Failed> {
        match (provider, &self.baseline, &self.openai, &self.egress) {
            ("baseline", Some(baseline), _, _) => Ok(baseline.answer(ask)),
            ("openai", _, Some(openai), Some(egress)) => openai.ask(egress, tenant, ask).await,
            _ => {
                Err(Fault::invalid("model.provider_unknown", "no provider of this name is configured").into())
            }
        }
    }
}

impl OpenAi {
    async fn ask(&self, egress: &Egress, tenant: &TenantId, ask: &Ask) -> Result<Answer, Failed> {
        let parts = openai::request(ask);
        let url = format!("{}{}", self.base_url.trim_end_matches('/'), parts.path);
        let mut request = Request::new(Method::POST, url, self.allow.clone());
        for (name, value) in parts.headers {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        request.secrets.push((self.key)(tenant).await?);
        // A JSON value always serialises.
        request.body = Bytes::from(serde_json::to_vec(&parts.body).unwrap_or_default());
        let reply = egress.send(request).await.map_err(|error| {
            let class = if error.is_refusal() { Class::Denied } else { Class::Upstream };
            Fault::new(class, error.code(), "the model provider could not be reached")
        })?;
        let headers: Vec<(String, String)> = reply
            .headers
            .iter()
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        openai::reply(reply.status.as_u16(), &headers, &reply.body).map_err(|error| {
            let (class, retry_after_ms) = match error.class {
                openai::Class::Retryable { retry_after_ms } => (Class::Upstream, retry_after_ms),
                openai::Class::Malformed => (Class::Upstream, None),
                openai::Class::Refused => (Class::Invalid, None),
                openai::Class::Auth | openai::Class::Misconfigured => (Class::Invalid, None),
            };
            let mut fault = Fault::new(class, error.code, error.to_string());
            fault.retry_after_ms = retry_after_ms.and_then(|ms| i64::try_from(ms).ok());
            Failed { fault, usage: error.usage }
        })
    }
}
