//! What a caller reads when something was refused: RFC 9457, `application/problem+json`.
//!
//! This is the only place where an error class becomes a status. Below, a [`Fault`] has a stable code, a class and a text
//! that is safe to show; here it gets a number, and the members below. What went wrong inside ([`Class::Internal`]) is
//! logged under the request's id and never sent: a person who has the id can find it, a stranger learns nothing.
//!
//! | member | meaning |
//! |---|---|
//! | `type` | `/errors/<code>`, relative to this server; `docs/errors/<code>.md` is its page |
//! | `title` | the class, in words |
//! | `status` | the HTTP status again |
//! | `detail` | what happened here, for people |
//! | `code` | the stable code, for programs |
//! | `class` | the class, for programs: it decides exit codes and retries |
//! | `request_id` | the id under which logs and facts have it |
//! | `retryable` | whether the same request may succeed later |
//! | `details` | machine-readable particulars, if there are any |

use act::{Class, Fault};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

/// The status of a class.
pub fn status(class: Class) -> StatusCode {
    match class {
        Class::Invalid | Class::Evidence => StatusCode::UNPROCESSABLE_ENTITY,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Unauthenticated => StatusCode::UNAUTHORIZED,
        Class::Denied | Class::StepUp => StatusCode::FORBIDDEN,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::NeedsApproval | Class::Conflict | Class::Contention => StatusCode::CONFLICT,
        Class::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Class::Upstream => StatusCode::BAD_GATEWAY,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The name and the title of a class.
fn name(class: Class) -> (&'static str, &'static str) {
    match class {
        Class::Invalid => ("invalid", "The request is wrong"),
        Class::TooLarge => ("too_large", "The request is too large"),
        Class::Unauthenticated => ("unauthenticated", "No valid credentials"),
        Class::Denied => ("denied", "Not allowed"),
        Class::StepUp => ("step_up", "A stronger proof of identity is needed"),
        Class::NeedsApproval => ("needs_approval", "It waits for a person"),
        Class::NotFound => ("not_found", "There is no such thing"),
        Class::Conflict => ("conflict", "It contradicts what is there"),
        Class::Contention => ("contention", "Too many changed the same thing at once"),
        Class::Throttled => ("throttled", "Too many requests"),
        Class::Upstream => ("upstream", "A system outside failed"),
        Class::Unavailable => ("unavailable", "It cannot be done right now"),
        Class::Evidence => ("evidence", "Evidence does not verify"),
        Class::Internal => ("internal", "Something went wrong on our side"),
    }
}

/// What HTTP itself has to say and no class has a word for. The code stands in [`crate::CODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The path is not in its one canonical form.
    Path,
    /// No route has this path.
    Route,
    /// The route exists, not with this method.
    Method,
    /// The Host or Origin is not one that this server answers to.
    Host,
    /// A header that is missing, repeated or malformed.
    Header,
    /// A query parameter that is unknown, repeated or malformed.
    Query,
    /// The body is not the JSON that is expected.
    Body,
    /// The body is of another content type.
    ContentType,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTooSlow,
    /// No credentials, or not in the one form that is read.
    Credentials,
    /// More requests than this caller may send.
    Rate,
    /// More at once than this server takes on.
    Overloaded,
}

impl Refusal {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Path => "edge.path_refused",
            Refusal::Route => "edge.route_unknown",
            Refusal::Method => "edge.method_refused",
            Refusal::Host => "edge.host_refused",
            Refusal::Header => "edge.header_refused",
            Refusal::Query => "edge.query_refused",
            Refusal::Body => "edge.body_refused",
            Refusal::ContentType => "edge.content_type_refused",
            Refusal::BodyTooLarge => "edge.body_too_large",
            Refusal::BodyTooSlow => "edge.body_too_slow",
            Refusal::Credentials => "edge.credentials_missing",
            Refusal::Rate => "edge.rate_exceeded",
            Refusal::Overloaded => "edge.overloaded",
        }
    }

    fn class(self) -> Class {
        match self {
            Refusal::Path
            | Refusal::Method
            | Refusal::Header
            | Refusal::Query
            | Refusal::Body
            | Refusal::ContentType
            | Refusal::BodyTooSlow => Class::Invalid,
            Refusal::Route => Class::NotFound,
            Refusal::Host => Class::Denied,
            Refusal::BodyTooLarge => Class::TooLarge,
            Refusal::Credentials => Class::Unauthenticated,
            Refusal::Rate => Class::Throttled,
            Refusal::Overloaded => Class::Unavailable,
        }
    }

    /// What HTTP calls it more exactly than its class does.
    fn status(self) -> StatusCode {
        match self {
            Refusal::Path | Refusal::Header | Refusal::Query | Refusal::Body => StatusCode::BAD_REQUEST,
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Route
            | Refusal::Host
            | Refusal::BodyTooLarge
            | Refusal::Credentials
            | Refusal::Rate
            | Refusal::Overloaded => status(self.class()),
        }
    }

    /// The problem, with a text for people. The text never repeats what was sent.
    pub fn because(self, detail: impl Into<String>) -> Problem {
        Problem { status: self.status(), fault: Fault::new(self.class(), self.code(), detail) }
    }
}

/// A refused request on its way out. It travels in a response's extensions until the request's id is known.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// What it is.
    pub fault: Fault,
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem { status: status(fault.class), fault }
    }
}

impl Problem {
    /// The record that the caller named is in another state than the caller says: HTTP has a status of its own for this
    /// conflict. `tag` is the record's present one.
    pub fn precondition(fault: Fault, tag: Option<String>) -> Problem {
        let mut details = fault.details.as_deref().cloned().unwrap_or_else(|| json!({}));
        details["etag"] = json!(tag);
        Problem { status: StatusCode::PRECONDITION_FAILED, fault: fault.with(details) }
    }

    /// Whether the request is at fault; such refusals are counted.
    pub fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    /// Renders it. Pure but for the log line that an internal failure leaves.
    pub fn render(&self, request_id: &str) -> Response {
        let fault = &self.fault;
        if fault.class == Class::Internal {
            let cause = fault.details.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::error!(request_id, code = fault.code, cause, "a request failed on our side");
        }
        let (class, title) = name(fault.class);
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("type", json!(format!("/errors/{}", fault.code)));
        put("title", json!(title));
        put("status", json!(self.status.as_u16()));
        put("detail", json!(fault.message));
        put("code", json!(fault.code));
        put("class", json!(class));
        put("request_id", json!(request_id));
        put("retryable", json!(fault.class.retryable()));
        if let Some(details) = fault.details.as_deref().filter(|_| fault.class != Class::Internal) {
            put("details", details.clone());
        }
        // A JSON value always serialises.
        let body = serde_json::to_vec(&Value::Object(members)).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s(fault) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        match fault.class {
            Class::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"writ\""));
            }
            // RFC 9470.
            Class::StepUp => {
                let challenge = "Bearer realm=\"writ\", error=\"insufficient_user_authentication\"";
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            _ => {}
        }
        response
    }
}

/// Whole seconds, rounded up; a second where a retry makes sense and nobody said when.
fn retry_after_s(fault: &Fault) -> Option<u64> {
    match fault.retry_after_ms {
        Some(wait_ms) => Some(u64::try_from(wait_ms).unwrap_or(0).div_ceil(1000)),
        None => fault.class.retryable().then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rendered(problem: Problem) -> (Value, Response) {
        let (parts, body) = problem.render("req_1").into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        (serde_json::from_slice(&bytes).unwrap(), Response::from_parts(parts, Body::empty()))
    }

    #[tokio::test]
    async fn internal_details_stay_inside_and_others_go_out() {
        let (body, _) = rendered(act::internal("disk /var/lib/secret.db is gone").into()).await;
        assert_eq!(body["status"], 500);
        assert!(!body.to_string().contains("secret.db"), "{body}");
        assert!(body.get("details").is_none());
        let (body, _) = rendered(Fault::conflict("a.b", "no").with(json!({"n": 1})).into()).await;
        assert_eq!(
            (&body["details"]["n"], &body["type"], &body["class"]),
            (&json!(1), &json!("/errors/a.b"), &json!("conflict"))
        );
    }

    #[tokio::test]
    async fn waits_and_challenges_stand_in_headers() {
        let throttled =
            Fault { retry_after_ms: Some(1001), ..Fault::new(Class::Throttled, "a.b", "slow down") };
        assert_eq!(rendered(throttled.into()).await.1.headers()[RETRY_AFTER], "2");
        assert_eq!(
            rendered(Fault::new(Class::Contention, "a.b", "again").into()).await.1.headers()[RETRY_AFTER],
            "1"
        );
        assert!(rendered(Fault::invalid("a.b", "no").into()).await.1.headers().get(RETRY_AFTER).is_none());
        let step_up = rendered(Fault::new(Class::StepUp, "a.b", "who").into()).await.1;
        assert!(
            step_up.headers()[WWW_AUTHENTICATE]
                .to_str()
                .unwrap()
                .contains("insufficient_user_authentication")
        );
        let (_, missing) = rendered(Refusal::Credentials.because("none")).await;
        assert_eq!(
            (missing.status(), missing.headers().contains_key(WWW_AUTHENTICATE)),
            (StatusCode::UNAUTHORIZED, true)
        );
    }
}
