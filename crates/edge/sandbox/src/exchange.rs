//! One request and one reply, already out of HTTP's hands: everything behind this is a function from a
//! [`Call`] to a [`Reply`].

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use url::form_urlencoded;

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

/// An error of the ServiceNow stand-in. The models' errors are in `model`, a shape each.
pub(crate) fn error(status: u16, message: &str, detail: &str) -> Reply {
    Reply::json(status, &json!({"error": {"message": message, "detail": detail}, "status": "failure"}))
}

/// A reply that is a stream, event by event.
pub(crate) fn events_of(reply: &Reply) -> Option<Vec<Bytes>> {
    let is_stream =
        |(name, value): &(&str, String)| *name == "content-type" && value.starts_with("text/event-stream");
    reply.headers.iter().any(is_stream).then(|| {
        let (mut rest, mut events) = (reply.body.clone(), Vec::new());
        while !rest.is_empty() {
            let end = rest.windows(2).position(|two| two == b"\n\n").map_or(rest.len(), |at| at + 2);
            events.push(rest.split_to(end));
        }
        events
    })
}
