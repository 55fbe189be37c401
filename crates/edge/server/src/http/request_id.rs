//! Which request this is, and of which trace: said by the caller if it says it well, else by us.
//!
//! A caller that has an id for what it does sends it as `X-Request-Id`, and one that traces as `traceparent` (W3C Trace
//! Context). Both come back in the answer, the second as `traceresponse`, with the span in which it was answered. Both are
//! only names: they are bounded, of a closed alphabet, decide nothing, and a malformed one is replaced, not refused,
//! because nobody's work should fail for its tracing. `tracestate` is not read.

use super::App;
use act::Trace;
use act::trace::{SpanId, traceparent};
use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use std::sync::Arc;

/// The request's id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The trace and the span in which the request was answered (W3C Trace Context, response header).
pub const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The id of a request and its place in a trace.
#[derive(Debug, Clone)]
pub struct RequestId {
    /// The id: the caller's if it has the form of one, else our own.
    pub id: Arc<str>,
    /// What joins it with facts, logs and spans.
    pub trace: Trace,
    /// The caller's span.
    pub parent: Option<SpanId>,
}

impl RequestId {
    /// Of a request's head.
    pub fn of(app: &App, headers: &HeaderMap) -> RequestId {
        let ids = app.house.harness.ids();
        let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|text| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        });
        let id: Arc<str> = match given {
            Some(text) => text.into(),
            None => ids.id("req", app.house.harness.now_ms()).as_str().into(),
        };
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(one), None) => one.to_str().ok().and_then(traceparent),
            _ => None,
        };
        let random = ids.entropy();
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&random[..16]);
        span_id.copy_from_slice(&random[16..24]);
        let trace = Trace {
            trace_id: parent.map_or(trace_id, |(trace_id, _)| trace_id),
            span_id: Some(span_id),
            request_id: Some(id.to_string()),
        };
        RequestId { id, trace, parent: parent.map(|(_, span)| span) }
    }
}
