//! Who is let in: passwords that can be changed while the play goes on, and `/oauth_token.do`.
//!
//! A real instance grants `client_credentials` (RFC 6749 §4.4) where
//! `glide.oauth.inbound.client.credential.grant_type.enabled` is set. The client sends a form with `client_id`
//! and `client_secret` and gets an opaque token with `expires_in` in seconds; whoever has that token is the
//! integration user until it expires or somebody revokes it, and nobody is told when that happens: the next
//! call simply gets a 401. That is what clients get wrong, so it can be brought about here:
//!
//! - tokens live as long as [`OauthConfig::token_lifetime_s`] says, by the injected clock;
//! - [`crate::Sandbox::tokens_revoke`] kills all of them at once, long before they expire;
//! - a fault rule with `path_contains: "oauth_token"` makes the endpoint slow, silent or wrong.
//!
//! Assumed, and not checked against a live instance: the texts of `error_description`, 401 for a wrong client and
//! for a wrong grant, that a scope which is asked for is given. Taken from what clients of real instances expect:
//! the path, the form, the members of the answer.
//!
//! A changed password takes effect at once, as in the real system. With `keep_previous` the one before goes on
//! being accepted: a system with two slots, as API keys often have. Tokens outlive a changed client secret.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde::Serialize;
use serde_json::json;
use sha2::Sha256;
use url::form_urlencoded;

use crate::exchange::{Call, Reply};

/// Where tokens are fetched.
pub const TOKEN_PATH: &str = "/oauth_token.do";
/// Most tokens that are remembered; beyond it the endpoint answers 507.
pub const MAX_TOKENS: usize = 10_000;

/// A client that may fetch tokens.
#[derive(Clone)]
pub struct OauthConfig {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub client_secret: String,
    /// How long a token lives, in seconds; 1,799 on a fresh instance.
    pub token_lifetime_s: u32,
}

/// What the token endpoint was asked, and what it answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Tokens issued.
    pub issued: u64,
    /// Requests turned away: a wrong client, grant or form.
    pub refused: u64,
}

/// What lets the integration user in, now.
pub(crate) struct Entry {
    passwords: Vec<String>,
    client_secret: String,
    tokens: BTreeMap<String, i64>,
    counts: TokenCounts,
}

impl Entry {
    pub fn new(password: String, oauth: Option<&OauthConfig>) -> Entry {
        let client_secret = oauth.map(|oauth| oauth.client_secret.clone()).unwrap_or_default();
        Entry {
            passwords: vec![password],
            client_secret,
            tokens: BTreeMap::new(),
            counts: TokenCounts::default(),
        }
    }

    pub fn password_known(&self, password: &str) -> bool {
        self.passwords.iter().any(|known| known == password)
    }

    pub fn token_known(&self, token: &str, at_ms: i64) -> bool {
        self.tokens.get(token).is_some_and(|until_ms| at_ms < *until_ms)
    }

    pub fn password_set(&mut self, password: &str, keep_previous: bool) {
        self.passwords.truncate(usize::from(keep_previous));
        self.passwords.insert(0, password.to_owned());
    }

    pub fn client_secret_set(&mut self, secret: &str) {
        secret.clone_into(&mut self.client_secret);
    }

    pub fn tokens_revoke(&mut self) {
        self.tokens.clear();
    }

    pub fn counts(&self) -> TokenCounts {
        self.counts
    }

    /// Answers a request to [`TOKEN_PATH`].
    pub fn issue(&mut self, oauth: Option<&OauthConfig>, call: &Call, at_ms: i64) -> Reply {
        let refused = |entry: &mut Entry, status, error: &str, description: &str| {
            entry.counts.refused += 1;
            Reply::json(status, &json!({"error": error, "error_description": description}))
        };
        let Some(oauth) = oauth else { return refused(self, 401, "server_error", "access_denied") };
        if call.method != Method::POST {
            return refused(self, 405, "invalid_request", "Method not supported");
        }
        let form: Vec<(String, String)> = form_urlencoded::parse(&call.body).into_owned().collect();
        let field = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if field("client_id") != Some(&oauth.client_id) || field("client_secret") != Some(&self.client_secret)
        {
            return refused(self, 401, "invalid_client", "Invalid client");
        }
        if field("grant_type") != Some("client_credentials") {
            return refused(self, 401, "unsupported_grant_type", "The grant type is not enabled");
        }
        self.tokens.retain(|_, until_ms| at_ms < *until_ms);
        if self.tokens.len() >= MAX_TOKENS {
            return refused(self, 507, "server_error", "this stand-in's bound on tokens is reached");
        }
        self.counts.issued += 1;
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(oauth.client_secret.as_bytes()) else {
            return refused(self, 500, "server_error", "no token can be made");
        };
        // Never the same twice, and nobody without the secret can say what the next one is.
        mac.update(format!("{} {at_ms}", self.counts.issued).as_bytes());
        let token = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        self.tokens.insert(token.clone(), at_ms + i64::from(oauth.token_lifetime_s) * 1_000);
        let scope = field("scope").unwrap_or("useraccount");
        Reply::json(
            200,
            &json!({
                "access_token": token, "scope": scope, "token_type": "Bearer", "expires_in": oauth.token_lifetime_s,
            }),
        )
        .header("cache-control", "no-store")
    }
}
