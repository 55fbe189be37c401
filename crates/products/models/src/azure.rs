//! The Azure OpenAI dialect: OpenAI's chat completions behind another path, another key and a filter.
//!
//! The body is [`crate::openai`]'s; what differs is small and each of it has bitten somebody:
//!
//! - The path names a *deployment*, not a model: `/openai/deployments/{deployment}/chat/completions?api-version=…`. A
//!   deployment is called what its owner likes, and what it serves can be changed under that name. So the pin names
//!   the deployment, the reply names the model, and the pin has to list that model among what it `accepts`: a
//!   deployment called `triage` that answers as `gpt-4o-mini-2024-07-18` is refused until somebody has said that this
//!   is meant. The version-less API (`/openai/v1/chat/completions`, no `api-version`) takes the deployment in `model`.
//! - The key goes into `api-key`, not into `Authorization`.
//! - Every prompt passes a filter. What it stops is a 400 with `code: content_filter` and an `innererror`; what it
//!   stops on the way out is a 200 with `finish_reason: content_filter`, tokens paid.
//! - A reply carries `prompt_filter_results` and `content_filter_results`. They are the filter's opinion of the
//!   customer's text, and are not kept.
//! - A stream begins with a chunk that has no choices and an empty `model` (the prompt's filter results), and may hold
//!   choices without a `delta`. Neither is the usage chunk, and neither names the model.
//! - Not every version of the API knows `store`; it is not sent.
//!
//! Follows the vendor's data-plane reference; deployments and versions are those of the vendor's own Python client.

use crate::{contract::Ask, openai, wire::RequestParts};

/// Longest `api-version`, in bytes: `2024-10-21`, `2025-04-01-preview`.
pub const API_VERSION_BYTES_MAX: usize = 32;

/// Whether a text can stand as `api-version`.
pub fn is_api_version(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= API_VERSION_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Writes the request for `ask`, whose model is the deployment. `api_version` of `None` is the version-less API.
pub fn request(ask: &Ask, api_version: Option<&str>, stream: bool) -> RequestParts {
    let mut parts = openai::request(ask, stream);
    if let Some(body) = parts.body.as_object_mut() {
        body.remove("store");
    }
    parts.path = match api_version {
        Some(version) => {
            format!(
                "/openai/deployments/{}{}?api-version={version}",
                path_segment(&ask.model.model),
                openai::PATH
            )
        }
        None => format!("/openai/v1{}", openai::PATH),
    };
    parts
}

/// A deployment's name as one segment of a path (RFC 3986 section 3.3): nothing in it ends the segment.
fn path_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || byte == b'.' && name.len() > 2 {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_stays_within_its_segment() {
        for (name, segment) in [
            ("gpt-4o.mini_1", "gpt-4o.mini_1"),
            ("a/../b?c#d", "a%2F..%2Fb%3Fc%23d"),
            ("..", "%2E%2E"),
            ("%2e", "%252e"),
        ] {
            assert_eq!(path_segment(name), segment);
        }
    }

    #[test]
    fn an_api_version_cannot_carry_a_second_parameter() {
        assert!(is_api_version("2024-10-21") && is_api_version("2025-04-01-preview"));
        for text in ["", "2024&x=1", "2024 10", &"1".repeat(33)] {
            assert!(!is_api_version(text), "{text}");
        }
    }
}
