//! Installations and their versions, as kept.
//!
//! An installation is a name that workflows use (`servicenow`) and points to a version. A version is everything that a
//! call depends on but the secret itself: manifest, address, which secret. It is immutable and named by its digest, so a
//! run that pinned it makes the calls that were approved, whatever is installed meanwhile. Removing the installation
//! stops every run at its next call.

use super::manifest::{Manifest, name_ok};
use super::tool::Tool;
use crate::workflow::parse::Problem;
use custody::CredentialRef;
use kernel::{Id, hex, json, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use store::Document;
use store::key::Key;

/// Longest base URL, in bytes.
pub const URL_BYTES_MAX: usize = 512;

/// How a connector proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Login {
    /// It does not.
    Nothing,
    /// HTTP Basic (RFC 7617).
    Basic {
        /// The user. Its own changes come back as events and are recognised by this name.
        user: String,
        /// The password.
        password: CredentialRef,
    },
    /// A bearer token (RFC 6750).
    Bearer {
        /// The token.
        token: CredentialRef,
        /// The user that the token belongs to, to recognise its own changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// A bearer token that is fetched with a client's secret (RFC 6749 §4.4).
    OauthClientCredentials(OauthClient),
}

/// A client that fetches tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// Where tokens are fetched, below the base URL.
    pub token_path: String,
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: CredentialRef,
    /// The scope that is asked for, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The user that the client acts as, to recognise its own changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Login {
    /// The name under which the other system knows us.
    pub fn user(&self) -> Option<&str> {
        match self {
            Login::Nothing => None,
            Login::Basic { user, .. } => Some(user),
            Login::Bearer { user, .. } => user.as_deref(),
            Login::OauthClientCredentials(client) => client.user.as_deref(),
        }
    }

    /// How it proves who it is, in a word.
    pub fn method(&self) -> &'static str {
        match self {
            Login::Nothing => "nothing",
            Login::Basic { .. } => "basic",
            Login::Bearer { .. } => "bearer",
            Login::OauthClientCredentials(_) => "oauth_client_credentials",
        }
    }

    /// The secret, if there is one.
    pub fn credential(&self) -> Option<&CredentialRef> {
        match self {
            Login::Nothing => None,
            Login::Basic { password, .. } => Some(password),
            Login::Bearer { token, .. } => Some(token),
            Login::OauthClientCredentials(client) => Some(&client.client_secret),
        }
    }
}

/// Everything that a call depends on but the secret itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// `cnv_<digest>`
    pub id: Id,
    /// The manifest.
    pub manifest: Manifest,
    /// Where the system is, without a slash at the end.
    pub base_url: String,
    /// How to prove who we are.
    pub login: Login,
}

impl Document for Version {
    const KIND: &'static str = "flows.connector_version";
    fn id(&self) -> &Id {
        &self.id
    }
}

impl Version {
    /// A version, named by the digest of its content.
    pub fn new(manifest: Manifest, base_url: String, login: Login) -> Result<Version, json::JsonError> {
        let content = object!({
            "manifest": serde_json::to_value(&manifest).unwrap_or_default(),
            "base_url": base_url,
            "login": serde_json::to_value(&login).unwrap_or_default(),
        });
        let digest = hex::encode(&sha256(&json::canonical(&content)?));
        // A digest in hexadecimal always makes an id.
        let id = version_id(&digest).ok_or(json::JsonError::Key)?;
        Ok(Version { id, manifest, base_url, login })
    }

    /// The digest, in hexadecimal.
    pub fn digest(&self) -> &str {
        self.id.as_str().split_once('_').map_or("", |(_, digest)| digest)
    }

    /// Scheme, host and port, as an allowlist has them.
    pub fn origin(&self) -> Option<String> {
        egress::Target::parse(&format!("{}/", self.base_url)).ok().map(|target| target.origin())
    }

    /// The host, as policy sees it.
    pub fn host(&self) -> Option<String> {
        egress::Target::parse(&format!("{}/", self.base_url)).ok().map(|target| target.host().to_string())
    }
}

/// The id of the version of this digest; `None` for a text that is no digest in hexadecimal.
pub fn version_id(digest: &str) -> Option<Id> {
    hex::decode32(digest)?;
    Id::parse(&format!("cnv_{digest}")).ok()
}

/// An installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connector {
    /// `con_<name>`
    pub id: Id,
    /// Digest of the current version, in hexadecimal.
    pub version: String,
    /// Name and version of its manifest, for lists.
    pub manifest: (String, String),
    /// Where the system is, for lists.
    pub base_url: String,
    /// Where its events come in, if it sends any.
    pub hook: Option<Hook>,
    /// How often it is asked for its events, in milliseconds, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_every_ms: Option<i64>,
    /// When this version was installed, milliseconds UTC.
    pub installed_at_ms: i64,
    /// Who installed it.
    pub installed_by: Id,
    /// When it was removed; removed ones are kept for what they were.
    pub removed_at_ms: Option<i64>,
    /// Digest of its manifest, as the registry has it; none where it was installed before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Its tools, as people have agreed to them; none where it was installed before that was remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<BTreeMap<String, Tool>>,
}

/// Where events come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// `hok_…`, unguessable, the last part of the URL.
    pub id: Id,
    /// The signing secret, `whsec_…`.
    pub secret: CredentialRef,
}

impl Document for Connector {
    const KIND: &'static str = "flows.connector";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.hook.iter().map(|hook| ("hook", hook_key(&hook.id))).collect()
    }
}

/// The unique key of a hook.
pub fn hook_key(hook: &Id) -> Vec<u8> {
    Key::new().text(hook.as_str()).bytes()
}

/// The id of the installation of this name; `None` for a text that cannot be one.
pub fn connector_id(name: &str) -> Option<Id> {
    if name_ok(name) && !name.contains(['.', '_']) { Id::parse(&format!("con_{name}")).ok() } else { None }
}

impl Connector {
    /// The name that workflows use.
    pub fn name(&self) -> &str {
        self.id.as_str().split_once('_').map_or("", |(_, name)| name)
    }

    /// As shown.
    pub fn shown(&self) -> Value {
        object!({
            "connector": self.name(), "version": self.version, "manifest": self.manifest.0,
            "manifest_version": self.manifest.1, "artifact": self.artifact, "base_url": self.base_url,
            "hook": self.hook.as_ref().map(|hook| format!("/v1/hooks/{}", hook.id)),
            "poll_every_ms": self.poll_every_ms, "installed_at_ms": self.installed_at_ms, "installed_by": self.installed_by,
            "removed_at_ms": self.removed_at_ms,
        })
    }
}

/// Checks an address: the outbound client's own grammar, no path that climbs, no query. Plain HTTP and private addresses
/// are for hosts that the installation's configuration names, and for no others.
pub fn base_url_check(base_url: &str, private_hosts: &[String]) -> Result<(), Problem> {
    let problem = |message: &str| Problem::at("base_url", message);
    if base_url.len() > URL_BYTES_MAX || base_url.ends_with('/') || base_url.contains(['?', '#']) {
        return Err(problem("A base URL has at most 512 bytes, no query, and no slash at its end."));
    }
    let target = egress::Target::parse(&format!("{base_url}/"))
        .map_err(|fault| Problem::at("base_url", format!("{fault}.")))?;
    if target.path().as_str().contains("..") {
        return Err(problem("A base URL does not climb."));
    }
    let host = target.host().to_string();
    let private = private_allowed(&host, target.port(), private_hosts);
    if target.scheme() == egress::Scheme::Http && !private {
        return Err(problem("Outside hosts are spoken to by https."));
    }
    if let egress::Host::Ip(ip) = target.host()
        && egress::classify_ip(*ip) != egress::IpClass::Public
        && !private
    {
        return Err(problem("The address is private, and the installation does not allow it."));
    }
    if host == "localhost" && !private {
        return Err(problem("The address is private, and the installation does not allow it."));
    }
    Ok(())
}

/// Whether the installation's configuration lets a host stand for a private address: `host` or `host:port`.
pub fn private_allowed(host: &str, port: u16, private_hosts: &[String]) -> bool {
    private_hosts.iter().any(|allowed| *allowed == host || *allowed == format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_connectors() {
        let private = ["127.0.0.1:8081".to_owned(), "standin.internal".to_owned()];
        for (url, ok) in [
            ("https://acme.service-now.com", true),
            ("https://acme.example/api/v2", true),
            ("http://127.0.0.1:8081", true),
            ("http://standin.internal", true),
            ("https://standin.internal:9000", true),
            ("http://127.0.0.1:8082", false),
            ("https://127.0.0.1", false),
            ("https://localhost", false),
            ("https://10.0.0.1", false),
            ("https://[::1]", false),
            ("https://[::ffff:127.0.0.1]", false),
            ("https://169.254.169.254", false),
            ("https://2130706433", false),
            ("http://acme.service-now.com", false),
            ("https://acme.example/", false),
            ("https://acme.example/a/../b", false),
            ("https://acme.example?x=1", false),
            ("https://user:pw@acme.example", false),
            ("file:///etc/passwd", false),
            ("gopher://acme.example", false),
            ("", false),
        ] {
            assert_eq!(base_url_check(url, &private).is_ok(), ok, "{url}");
        }
    }
}
