//! HTTP: the one room that speaks it.
//!
//! A request passes these doors in this order, and the first that refuses ends it:
//!
//! 1. **Connection** ([`listen`]): at most so many, a head of at most so many bytes and headers, within a time.
//! 2. **Form** ([`guard`]): one Host that this server answers to, one canonical path. What two programs could read
//!    differently is refused before anything is looked up, because a check that reads a path one way and a router that
//!    reads it another is how `/v1/./admin` becomes a hole.
//! 3. **Route** ([`router`]): the table, nothing else.
//! 4. **Identity** ([`identify`]): the key, the tenant, before a byte of the body is read.
//! 5. **Body and parameters** ([`input`]): strict JSON, declared parameters only, none of them twice.
//! 6. **The act**: the harness decides; or the read, if a role may.
//!
//! Every answer leaves through [`finish`]: the request's id, security headers, and, where something was refused, the
//! problem document ([`problem`]) and one more in the count ([`refused`]).
//!
//! What it does not look at: `X-Forwarded-*` and its kin (nothing here depends on an address), method overrides, cookies,
//! credentials in a query. It sends no CORS headers: no web page of another origin may read anything here.

pub mod guard;
pub mod identify;
pub mod input;
pub mod listen;
pub mod problem;
pub mod refused;
pub mod router;
pub mod stream;
pub mod strict_json;

use crate::assemble::House;
use crate::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures::FutureExt as _;
use problem::{Problem, Refusal};
use refused::Asker;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// The request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// What every handler shares.
pub struct App {
    /// The house.
    pub house: House,
    /// Acts under way; they are carried to their end even if the caller hangs up.
    pub acts: Tasks,
    /// Pumps of event streams.
    pub streams: Tasks,
    /// Hosts that this server answers to.
    pub hosts: guard::Hosts,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// The id of a request: the caller's if it has the form of one, else our own.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    fn of(app: &App, headers: &HeaderMap) -> RequestId {
        let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|text| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        });
        RequestId(match given {
            Some(text) => text.into(),
            None => app.house.harness.ids().id("req", app.house.harness.now_ms()).as_str().into(),
        })
    }
}

/// A refusal on its way to [`finish`].
pub fn refuse(problem: Problem) -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(problem);
    response
}

/// Answers one request, whatever happens.
pub async fn answer(app: Arc<App>, router: Router, mut request: Request) -> Response {
    let id = RequestId::of(&app, request.headers());
    request.extensions_mut().insert(id.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match guard::check(&app.hosts, request.method(), request.uri(), request.headers()) {
        Err(problem) => refuse(problem),
        Ok(()) => match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            // A router's error type has no values; a panic is a bug, and this caller's alone.
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!(request_id = &*id.0, %method, path, "a handler panicked");
                refuse(act::internal("a handler panicked").into())
            }
        },
    };
    let response = finish(&app, &id, response);
    tracing::debug!(request_id = &*id.0, %method, path, status = response.status().as_u16(), "answered");
    response
}

const SECURITY_HEADERS: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// Renders what was refused, counts it, and adds what every answer has.
fn finish(app: &App, id: &RequestId, mut response: Response) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if problem.is_refusal() {
            let asker = response.extensions_mut().remove::<Asker>().unwrap_or_else(Asker::stranger);
            app.house.refused.note(asker, &problem.fault.code);
        }
        let allow = response.headers_mut().remove(ALLOW);
        response = problem.render(&id.0);
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    app.house.counts.answered(response.status());
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if app.house.config.tls_terminated_upstream {
        headers.insert("strict-transport-security", HeaderValue::from_static("max-age=31536000"));
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(REQUEST_ID, value);
    }
    response
}

/// One value of a header that may stand at most once.
pub fn header_once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::Header.because(format!("the header {name} stands more than once")));
    }
    let text = |value: &'a HeaderValue| {
        value.to_str().map_err(|_| Refusal::Header.because(format!("the header {name} is not visible ASCII")))
    };
    first.map(text).transpose()
}
