//! One request and one reply, already out of HTTP's hands: everything behind this is a function from a
//! [`Call`] to a [`Reply`].

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::effects::Service;

/// A request read to its end.
pub(crate) struct Call {
    pub method: Method,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    /// `target` is a path with an optional query string.
    pub fn new(method: Method, target: &str, headers: HeaderMap, body: Bytes) -> Call {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Call { method, path: path.to_owned(), query, headers, body }
    }

    /// The first query parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is `true`.
    pub fn flag(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The credentials of an `Authorization` header with the given scheme (RFC 9110 §11.4; schemes are
    /// case-insensitive).
    pub fn authorization(&self, scheme: &str) -> Option<&str> {
        let value = self.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
        let (found, rest) = value.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
    }
}

/// A reply before it is framed.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Reply {
    pub fn json(status: u16, value: &Value) -> Reply {
        let headers = vec![("content-type", "application/json;charset=UTF-8".to_owned())];
        Reply { status, headers, body: Bytes::from(value.to_string()) }
    }

    pub fn empty(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

/// An error in the shape of the service that would send it.
pub(crate) fn error(service: Service, status: u16, message: &str, detail: &str) -> Reply {
    match service {
        Service::ServiceNow => Reply::json(
            status,
            &json!({"error": {"message": message, "detail": detail}, "status": "failure"}),
        ),
        Service::Model => {
            let kind = match status {
                429 => "requests",
                500.. => "server_error",
                _ => "invalid_request_error",
            };
            let code = match status {
                401 => json!("invalid_api_key"),
                429 => json!("rate_limit_exceeded"),
                _ => Value::Null,
            };
            let text = if detail.is_empty() { message.to_owned() } else { format!("{message}: {detail}") };
            Reply::json(
                status,
                &json!({"error": {"message": text, "type": kind, "param": null, "code": code}}),
            )
        }
    }
}
