//! Live events over server-sent events (the HTML standard, §9.2).
//!
//! A stream may stay open for days, so what was checked when it was opened is checked again every [`REVIEW`]: a key that
//! was revoked, a role that was taken away, end it. Between source and socket stands a buffer of [`BUFFER`] events; a
//! client that leaves it full for [`PATIENCE`] is disconnected. It comes back with `Last-Event-ID` and has missed nothing.
//!
//! A stream begins with how long to wait before coming back (`retry`), and with the id to come back with if it ends before
//! the first event: without that, a client that saw nothing would begin anew, and miss what happened in between.

use super::identify::Presented;
use super::problem::{Problem, Refusal};
use super::router::readable;
use super::{App, RequestId, header_once, input};
use crate::tasks::stopped;
use act::{Events, Fault};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events between source and socket.
pub const BUFFER: usize = 256;
/// How long the buffer may be full.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often the caller is identified again; each time also keeps the connection alive.
pub const REVIEW: Duration = Duration::from_secs(2);
/// After how long a client comes back whose stream has ended, as the stream tells it, milliseconds.
pub const RETRY_MS: u64 = 2_000;
/// Longest id of an event that is taken back, in bytes.
const EVENT_ID_BYTES_MAX: usize = 128;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An event's id, name and data.
pub type Event = (String, String, Value);

/// The parameters, with the event after which a client goes on.
pub fn resumed(headers: &HeaderMap, mut params: input::Params) -> Result<input::Params, Problem> {
    if let Some(id) = header_once(headers, &LAST_EVENT_ID)? {
        if id.len() > EVENT_ID_BYTES_MAX {
            return Err(Refusal::Header.because("the header last-event-id is too long"));
        }
        params.insert("last_event_id".to_owned(), id.to_owned());
    }
    Ok(params)
}

/// Opens a stream for a caller who has just been identified.
pub fn open(
    app: &Arc<App>,
    id: &RequestId,
    presented: Presented,
    permission: &'static str,
    events: Events,
) -> Result<Response, Problem> {
    let (pieces, socket) = mpsc::channel(BUFFER);
    let pump = Pump { app: app.clone(), id: id.clone(), presented, permission, pieces };
    app.streams
        .start(pump.run(events))
        .map_err(|_| Refusal::Overloaded.because("as many event streams are open as there may be"))?;
    let body = stream::unfold(socket, |mut socket| async {
        let piece: Bytes = socket.recv().await?;
        Some((Ok::<_, Infallible>(piece), socket))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

struct Pump {
    app: Arc<App>,
    id: RequestId,
    presented: Presented,
    permission: &'static str,
    pieces: mpsc::Sender<Bytes>,
}

impl Pump {
    async fn run(self, mut events: Events) {
        // The buffer is empty: this cannot fail, and if the client is gone the loop sees it.
        let _ = self.pieces.try_send(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
        let mut stopping = self.app.stopping.clone();
        let mut review = tokio::time::interval(REVIEW);
        loop {
            // In this order: a long backlog must not keep the review from coming up.
            let piece = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                () = self.pieces.closed() => break,
                _ = review.tick() => match self.review().await {
                    Ok(()) => Bytes::from_static(b": alive\n\n"),
                    Err(fault) => {
                        let closed = (String::new(), "closed".to_owned(), json!({"code": fault.code}));
                        // The last thing that is said; a client that does not listen is gone all the same.
                        let _ = self.pieces.send_timeout(rendered(&closed), PATIENCE).await;
                        break;
                    }
                },
                event = events.next() => match event {
                    Some(event) => rendered(&event),
                    None => break,
                },
            };
            if self.pieces.send_timeout(piece, PATIENCE).await.is_err() {
                tracing::info!(
                    request_id = &*self.id.0,
                    "an event stream was closed: its client does not read"
                );
                break;
            }
        }
    }

    /// Whether the caller would still be let in.
    async fn review(&self) -> Result<(), Fault> {
        let ctx = self.presented.identify(&self.app, &self.id).await?;
        readable(&ctx, self.permission)
    }
}

/// One event on the wire. A line break would end a field, so ids and names lose theirs; JSON has none.
fn rendered((id, name, data): &Event) -> Bytes {
    let line = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut out = String::new();
    if !id.is_empty() {
        out.push_str(&format!("id: {}\n", line(id)));
    }
    if name.is_empty() && data.is_null() {
        // A mark: without data there is no event, and the id counts all the same.
        out.push('\n');
        return Bytes::from(out);
    }
    out.push_str(&format!("event: {}\ndata: {data}\n\n", line(name)));
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i11_an_event_cannot_forge_another() {
        let event = ("7\nid: 8".to_owned(), "a\r\ndata: x".to_owned(), json!({"text": "b\n\ndata: c"}));
        assert_eq!(rendered(&event), "id: 7id: 8\nevent: adata: x\ndata: {\"text\":\"b\\n\\ndata: c\"}\n\n");
        assert_eq!(rendered(&("7".to_owned(), String::new(), Value::Null)), "id: 7\n\n");
    }
}
