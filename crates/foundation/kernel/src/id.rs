//! Names of things.
//!
//! An id is a kind prefix, an underscore and a body: `run_0192f6c1a7b27d3e8a14c0ffee000001`. Minted ids carry a
//! UUIDv7 (RFC 9562) as 32 hexadecimal digits, so they sort by the time they were made; a few things have natural
//! names (`ten_acme`, `con_servicenow`) and use those as the body. There is no cell and no tenant in an id: a
//! thing's home is a column, and its full name `cell/tenant/kind/id` stands in facts.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest id accepted, in bytes.
pub const ID_BYTES_MAX: usize = 80;
/// Longest kind prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 8;

/// A validated id: `[a-z]{2,8}_[a-z0-9][a-z0-9.-]*`, at most [`ID_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Box<str>);

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected <kind>_<name> of lower-case letters, digits, dots and dashes")]
pub struct IdError;

impl Id {
    /// Mints an id of `prefix` from a UUID that the caller took from its injected source.
    ///
    /// # Panics
    /// If `prefix` is not 2 to 8 lower-case letters; prefixes are constants of the code.
    pub fn mint(prefix: &str, uuid: uuid::Uuid) -> Id {
        assert!(prefix_ok(prefix.as_bytes()), "id prefix is a constant of 2 to 8 lower-case letters");
        Id(format!("{prefix}_{}", uuid.simple()).into_boxed_str())
    }

    /// Reads an id from outside.
    pub fn parse(text: &str) -> Result<Id, IdError> {
        if Id::valid(text) { Ok(Id(text.into())) } else { Err(IdError) }
    }

    /// Whether `text` is an id, for those who need no copy of it.
    pub fn valid(text: &str) -> bool {
        let bytes = text.as_bytes();
        // No prefix is longer than this, so an underscore beyond it is none that divides an id.
        let head = &bytes[..bytes.len().min(PREFIX_BYTES_MAX + 1)];
        let Some(split) = head.iter().position(|byte| *byte == b'_') else { return false };
        let (prefix, body) = (&bytes[..split], &bytes[split + 1..]);
        let plain = |byte: u8| byte.is_ascii_lowercase() | byte.is_ascii_digit();
        // Every byte is looked at, without a way out at the first bad one: so the compiler looks at many at once, and a
        // verifier asks this nine times a fact.
        let ok = |ok: bool, byte: &u8| ok & (plain(*byte) | (*byte == b'.') | (*byte == b'-'));
        bytes.len() <= ID_BYTES_MAX
            && prefix_ok(prefix)
            && body.first().is_some_and(|byte| plain(*byte))
            && body.iter().fold(true, ok)
    }

    /// The kind prefix, without the underscore.
    pub fn prefix(&self) -> &str {
        self.0.split_once('_').map_or("", |(prefix, _)| prefix)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn prefix_ok(prefix: &[u8]) -> bool {
    (2..=PREFIX_BYTES_MAX).contains(&prefix.len()) && prefix.iter().all(u8::is_ascii_lowercase)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = IdError;
    fn try_from(text: String) -> Result<Id, IdError> {
        Id::parse(&text)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0.into()
    }
}

/// A tenant: the owner of records, of a log and of everything in between. Its id has the prefix `ten`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Id);

impl TenantId {
    /// Reads a tenant id; any other kind of id is refused.
    pub fn parse(text: &str) -> Result<TenantId, IdError> {
        let id = Id::parse(text)?;
        if id.prefix() == "ten" { Ok(TenantId(id)) } else { Err(IdError) }
    }

    /// The tenant that owns the installation's own acts: bootstrap, policy publication, refused traffic.
    pub fn platform() -> TenantId {
        TenantId(Id("ten_platform".into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The tenant as a plain id.
    pub fn id(&self) -> &Id {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for TenantId {
    type Error = IdError;
    fn try_from(text: String) -> Result<TenantId, IdError> {
        TenantId::parse(&text)
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> String {
        id.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar() {
        let long = format!("run_{}", "a".repeat(80));
        for (text, ok) in [
            ("run_0192f6c1a7b27d3e8a14c0ffee000001", true),
            ("ten_acme", true),
            ("con_servicenow.v1-2", true),
            ("run", false),
            ("run_", false),
            ("Run_a", false),
            ("run_A", false),
            ("abcdefgh_a", true),
            ("abcdefghi_a", false),
            ("run_a_b", false),
            ("run_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{", false),
            ("run_`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("run_.a", false),
            ("r_a", false),
            ("run_a/b", false),
            ("run_a b", false),
            ("run_ä", false),
            (long.as_str(), false),
        ] {
            assert_eq!(Id::parse(text).is_ok(), ok, "{text}");
        }
        assert!(TenantId::parse("run_a").is_err());
    }
}
