//! A request as its caller states it, and the gates that need no network.

use bytes::Bytes;
use http::Method;

use crate::allowlist::{Allowlist, Permission};
use crate::error::{EgressError, Fault};
use crate::header::{RequestHeaders, SecretHeader};
use crate::limits::Limits;
use crate::target::Target;

/// The longest name of a partition, in bytes.
const MAX_PARTITION_BYTES: usize = 128;

/// Whether an open connection may serve this request.
///
/// A server may close an idle connection at the very moment we write to it. The request is then lost with
/// [`crate::Sent::Maybe`] although nothing happened. Where that answer is dear (an act that must not happen
/// twice and cannot be looked up), say `Never`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reuse {
    /// A connection of its own, closed afterwards.
    #[default]
    Never,
    /// Share connections with requests that name the same partition (a tenant), and no others.
    Within(String),
}

/// One request. Not `Clone`, because its secrets are not.
pub struct Request {
    /// GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// An absolute URL under the grammar of [`Target::parse`].
    pub url: String,
    /// Headers that may be seen in a log.
    pub headers: Vec<(String, String)>,
    /// Headers that may not.
    pub secrets: Vec<SecretHeader>,
    /// The body; empty for none.
    pub body: Bytes,
    /// Where this request, and its redirects, may go.
    pub allow: Allowlist,
    /// Bounds in time and size.
    pub limits: Limits,
    /// Whether an open connection may be used.
    pub reuse: Reuse,
}

impl Request {
    /// A request without headers and body, under the default limits.
    pub fn new(method: Method, url: impl Into<String>, allow: Allowlist) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            secrets: Vec::new(),
            body: Bytes::new(),
            allow,
            limits: Limits::default(),
            reuse: Reuse::default(),
        }
    }

    /// Passes the gates that need no network: for a preview, or to refuse a configuration when it is saved.
    ///
    /// Sending checks the same again, and the addresses besides.
    pub fn check(&self) -> Result<Target, EgressError> {
        self.checked().map(|checked| checked.target).map_err(EgressError::not_sent)
    }

    pub(crate) fn checked(&self) -> Result<Checked, Fault> {
        self.limits.check()?;
        if let Reuse::Within(partition) = &self.reuse
            && (partition.is_empty() || partition.len() > MAX_PARTITION_BYTES)
        {
            return Err(Fault::LimitInvalid { name: "reuse" });
        }
        // CONNECT asks for a tunnel past every gate, TRACE echoes the credentials, the rest is unknown.
        let known = matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::POST
                | Method::PUT
                | Method::PATCH
                | Method::DELETE
        );
        if !known {
            return Err(Fault::MethodRefused);
        }
        let target = Target::parse(&self.url)?;
        let permission = self.allow.permission(&target)?;
        let headers = RequestHeaders::check(&self.headers, &self.secrets)?;
        if self.body.len() > self.limits.request_bytes {
            return Err(Fault::RequestTooLarge { limit_bytes: self.limits.request_bytes });
        }
        Ok(Checked { target, permission, headers })
    }
}

/// A request that passed the gates that need no network.
pub(crate) struct Checked {
    pub(crate) target: Target,
    pub(crate) permission: Permission,
    pub(crate) headers: RequestHeaders,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_refuses_before_any_network() {
        type Change = fn(&mut Request);
        let table: &[(&str, Change)] = &[
            ("egress.limit_invalid", |r| r.limits.deadline_ms = 0),
            ("egress.limit_invalid", |r| r.reuse = Reuse::Within(String::new())),
            ("egress.limit_invalid", |r| r.reuse = Reuse::Within("p".repeat(MAX_PARTITION_BYTES + 1))),
            ("egress.method_refused", |r| r.method = Method::CONNECT),
            ("egress.method_refused", |r| r.method = Method::TRACE),
            ("egress.method_refused", |r| r.method = Method::from_bytes(b"PURGE").unwrap()),
            ("egress.url_invalid", |r| r.url = "https://a@h.example/".into()),
            ("egress.destination_refused", |r| r.url = "https://other.example/".into()),
            ("egress.destination_refused", |r| r.allow = Allowlist::default()),
            ("egress.header_refused", |r| r.headers.push(("host".into(), "x".into()))),
            ("egress.request_too_large", |r| {
                r.limits.request_bytes = 3;
                r.body = Bytes::from_static(b"four");
            }),
        ];
        for (code, change) in table {
            let allow = Allowlist::parse(["https://h.example"]).unwrap();
            let mut request = Request::new(Method::POST, "https://h.example/x", allow);
            assert_eq!(request.check().unwrap().origin(), "https://h.example");
            change(&mut request);
            let error = request.check().unwrap_err();
            assert_eq!((error.code(), error.sent()), (*code, crate::Sent::NotSent));
            assert!(error.is_refusal());
        }
    }
}
