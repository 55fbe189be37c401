//! The dialects behind one face: which one a provider speaks is a matter of configuration, not of code that calls it.

use crate::{
    anthropic, azure,
    contract::{Answer, Ask},
    openai,
    stream::Assembly,
    wire::{ProviderError, RequestParts},
};

/// What a hosted provider speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions, spoken by many.
    OpenAi,
    /// The same on Azure: deployments, versions, another key.
    AzureOpenAi {
        /// `api-version`, as [`azure::is_api_version`] has it; `None` for the version-less API.
        api_version: Option<String>,
    },
    /// Anthropic's messages.
    Anthropic,
}

impl Dialect {
    /// The header that carries the key; `None` is `Authorization: Bearer`.
    pub fn key_header(&self) -> Option<&'static str> {
        match self {
            Dialect::OpenAi => None,
            Dialect::AzureOpenAi { .. } => Some("api-key"),
            Dialect::Anthropic => Some("x-api-key"),
        }
    }

    /// Writes the request for `ask`, which the caller has put through [`crate::check::Checker::new`].
    pub fn request(&self, ask: &Ask, stream: bool) -> RequestParts {
        match self {
            Dialect::OpenAi => openai::request(ask, stream),
            Dialect::AzureOpenAi { api_version } => azure::request(ask, api_version.as_deref(), stream),
            Dialect::Anthropic => anthropic::request(ask, stream),
        }
    }

    /// Reads a whole reply.
    #[expect(clippy::result_large_err, reason = "one per network call, and no larger than the answer")]
    pub fn reply(
        &self,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Answer, ProviderError> {
        match self {
            Dialect::OpenAi | Dialect::AzureOpenAi { .. } => openai::reply(status, headers, body),
            Dialect::Anthropic => anthropic::reply(status, headers, body),
        }
    }

    /// Begins to read a streamed reply.
    pub fn assembly(&self) -> Assembly {
        match self {
            Dialect::OpenAi | Dialect::AzureOpenAi { .. } => Assembly::openai(),
            Dialect::Anthropic => Assembly::anthropic(),
        }
    }
}
