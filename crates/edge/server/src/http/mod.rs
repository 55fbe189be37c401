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
//! Between identity and body stands the caller's bucket ([`rate`]). Every answer leaves through [`finish`]: the request's
//! id and trace ([`request_id`]), what is left of the caller's rate, security headers, and, where something was refused, the
//! problem document ([`problem`]) and one more in the count ([`refused`]). One record has a tag ([`etag`]).
//!
//! What it does not look at: `X-Forwarded-*` and its kin (nothing here depends on an address), method overrides, cookies,
//! credentials in a query. It sends no CORS headers: no web page of another origin may read anything here.

mod cursor;
pub mod etag;
pub mod guard;
pub mod identify;
pub mod input;
pub mod listen;
pub mod problem;
pub mod rate;
pub mod refused;
pub mod request_id;
pub mod router;
pub mod stream;
pub mod strict_json;

use crate::assemble::House;
use crate::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONNECTION, HeaderName, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::Response;
use futures::FutureExt as _;
use problem::{Problem, Refusal};
use rate::Standing;
use refused::Asker;
use request_id::{REQUEST_ID, RequestId, TRACERESPONSE};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceExt as _;
use tracing::Instrument as _;
use tracing::field::Empty;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

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
    /// What each caller may ask.
    pub rates: rate::Rates,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// A refusal on its way to [`finish`].
pub fn refuse(problem: Problem) -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(problem);
    response
}

/// A method as spans name it; what is none of HTTP's own is not repeated.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

/// Answers one request, whatever happens.
pub async fn answer(app: Arc<App>, router: Router, mut request: Request) -> Response {
    let id = RequestId::of(&app, request.headers());
    request.extensions_mut().insert(id.clone());
    let method = method_name(request.method());
    let upgrades = request.headers().contains_key(UPGRADE);
    // The path is not among the fields: its parameters are arguments. The route is, once it is found.
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = method,
        otel.status_code = Empty,
        request_id = &*id.id,
        trace_id = id.trace.trace_hex(),
        span_id = id.trace.span_hex(),
        parent_id = Empty,
        http.request.method = method,
        http.route = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
        writ.code = Empty,
    );
    if let Some(parent) = &id.parent {
        span.record("parent_id", kernel::hex::encode(parent));
    }
    async {
        let response = match guard::check(&app.hosts, request.method(), request.uri(), request.headers()) {
            Err(problem) => refuse(problem),
            Ok(()) => match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
                Ok(Ok(response)) => response,
                // A router's error type has no values; a panic is a bug, and this caller's alone.
                Ok(Err(never)) => match never {},
                Err(_) => {
                    tracing::error!("a handler panicked");
                    refuse(act::internal("a handler panicked").into())
                }
            },
        };
        let mut response = finish(&app, &id, response);
        if upgrades {
            // There is nothing to upgrade to. Whoever asked may take what follows for another protocol, and somebody between
            // us for a second request: nobody looks at it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await
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
    let span = tracing::Span::current();
    let standing = response.extensions_mut().remove::<Standing>();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        span.record("writ.code", &*problem.fault.code);
        if problem.status.is_server_error() {
            span.record("error.type", &*problem.fault.code).record("otel.status_code", "ERROR");
        }
        if problem.is_refusal() {
            let asker = response.extensions_mut().remove::<Asker>().unwrap_or_else(Asker::stranger);
            app.house.refused.note(asker, &problem.fault.code);
        }
        let allow = response.headers_mut().remove(ALLOW);
        response = problem.render(&id.id);
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    span.record("http.response.status_code", response.status().as_u16());
    app.house.counts.answered(response.status());
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if app.house.config.tls_terminated_upstream {
        headers.insert("strict-transport-security", HeaderValue::from_static("max-age=31536000"));
    }
    let said = [
        (REQUEST_ID, Some(id.id.to_string())),
        (TRACERESPONSE, Some(id.trace.traceparent())),
        (RATELIMIT_POLICY, Some(app.rates.policy())),
        (RATELIMIT, standing.map(|standing| standing.field())),
    ];
    for (name, value) in said {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
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
