//! Sockets, framing and pauses.
//!
//! This serves HTTP/1.1 with hyper itself and not with a web framework, because a stand-in must be able to do
//! what a framework will not: close a connection without a reply after the request took effect. A service
//! that returns an error makes hyper do just that.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::HeaderName};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time,
};

use crate::{
    control,
    effects::Service,
    exchange::{Call, Reply},
    faults::{DRIP_INTERVAL_MS, MAX_DRIPS},
    servicenow::oauth::TOKEN_PATH,
    slack,
    stage::{Ending, Sending, Stage},
};

/// Most connections at once; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1_024;
/// Largest request body; larger is refused with 413.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// A request's head must arrive within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A request's body must arrive within this time; slower is refused with 408.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// At shutdown, replies on their way get this long.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Rest after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Pause before a reply is cut off.
const CUT_REST: Duration = Duration::from_millis(20);
/// Size of a piece of a huge body.
const HUGE_PIECE_BYTES: u64 = 64 << 10;

type Body = UnsyncBoxBody<Bytes, Dropped>;

/// The connection ends without a reply, or in the middle of one.
#[derive(Debug, thiserror::Error)]
#[error("closed, as the script says")]
struct Dropped;

/// Serves until `stop` turns true, then lets replies on their way finish and closes what hangs.
pub(crate) async fn serve(listener: TcpListener, stage: Arc<Stage>, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &slots) => match accepted {
                Some((stream, slot)) => {
                    connections.spawn(connection(stream, slot, stage.clone(), stop.clone()));
                }
                None => time::sleep(ACCEPT_REST).await,
            },
        }
    }
    drop(listener);
    let drained = time::timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        connections.shutdown().await;
    }
}

/// Waits for the stop. That the sandbox is gone, an error here, is a stop as well.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for a slot, then for a connection.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, slot))
}

async fn connection(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    stage: Arc<Stage>,
    mut stop: watch::Receiver<bool>,
) {
    // Without this, small replies wait for the client's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = {
        let stop = stop.clone();
        service_fn(move |request| respond(stage.clone(), stop.clone(), request))
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // How a connection ends is the client's affair or the script's: there is nobody to tell.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stopped(&mut stop) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn respond(
    stage: Arc<Stage>,
    mut stop: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let call = match read(request).await {
        Ok(call) => call,
        Err(reply) => return Ok(framed(reply)),
    };
    let sending = match service_of(&call.path) {
        Some(service) => stage.perform(service, &call),
        None if call.path.starts_with("/_sandbox/") => Sending::Reply(control::handle(&stage, &call)),
        None if call.method == Method::GET && call.path == "/" => Sending::Reply(Reply::json(
            200,
            &json!({"stand_in_for": [
                "ServiceNow Table API", "OpenAI chat completions", "Azure OpenAI chat completions",
                "Anthropic messages", "Slack Web API",
            ]}),
        )),
        None => Sending::Reply(Reply::json(404, &json!({"error": "no such resource"}))),
    };
    match sending {
        Sending::Reply(reply) => Ok(framed(reply)),
        Sending::Pieces(reply, pieces, ending) => Ok(pieced(&reply, pieces, ending, stop)),
        Sending::Drip(reply, chunk_bytes) => Ok(dripped(reply, chunk_bytes, stop)),
        Sending::Huge(bytes) => Ok(huge(bytes)),
        Sending::Drop => Err(Dropped),
        Sending::Hang => {
            // hyper drops this future when the client closes its side.
            stopped(&mut stop).await;
            Err(Dropped)
        }
    }
}

fn service_of(path: &str) -> Option<Service> {
    if path.starts_with("/api/now/") || path == TOKEN_PATH {
        Some(Service::ServiceNow)
    } else if path.starts_with("/v1/") || path.starts_with("/openai/") {
        Some(Service::Model)
    } else if path.starts_with(slack::API_PATH) {
        Some(Service::Slack)
    } else {
        None
    }
}

/// Reads a request to its end, within bounds of size and time.
async fn read(request: Request<Incoming>) -> Result<Call, Reply> {
    let (head, body) = request.into_parts();
    let refuse = |status, text: &str| Err(Reply::json(status, &json!({"error": text})));
    let body = match time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_REQUEST_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return refuse(413, "the body is too large"),
        Ok(Err(_)) => return refuse(400, "the body cannot be read"),
        Err(_) => return refuse(408, "the body is too slow"),
    };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    Ok(Call::new(head.method, target, head.headers, body))
}

fn head(reply: &Reply) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    // So that nobody takes a stand-in for the real thing.
    headers.insert("x-stand-in", HeaderValue::from_static("sandbox"));
    for (name, value) in &reply.headers {
        // A value made from a request may hold what a header may not; it is then left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

fn framed(reply: Reply) -> Response<Body> {
    head(&reply).map(|()| Full::new(reply.body).map_err(never).boxed_unsync())
}

fn streamed(
    response: Response<()>,
    pieces: impl futures::Stream<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let frames = pieces.map(|piece| Ok::<_, Dropped>(Frame::data(piece)));
    response.map(|()| StreamBody::new(frames).boxed_unsync())
}

fn never(never: Infallible) -> Dropped {
    match never {}
}

/// The pieces one by one, and then the end that the script wants.
fn pieced(
    reply: &Reply,
    pieces: Vec<Bytes>,
    ending: Ending,
    mut stop: watch::Receiver<bool>,
) -> Response<Body> {
    let frames = stream::iter(pieces.into_iter().filter(|piece| !piece.is_empty()))
        .map(|piece| Ok(Frame::data(piece)));
    let end = stream::once(async move {
        match ending {
            Ending::Whole => None,
            Ending::Cut => {
                // hyper holds small pieces back until it is asked again. Let it write them: a reply that breaks off
                // before its head says nothing about a reader of half ones.
                time::sleep(CUT_REST).await;
                Some(Err(Dropped))
            }
            Ending::Stall => {
                stopped(&mut stop).await;
                Some(Err(Dropped))
            }
        }
    })
    .filter_map(|end| async move { end });
    head(reply).map(|()| StreamBody::new(frames.chain(end)).boxed_unsync())
}

/// The reply in pieces with pauses. At shutdown, and after [`MAX_DRIPS`] pieces, the rest comes at once.
fn dripped(reply: Reply, chunk_bytes: usize, stop: watch::Receiver<bool>) -> Response<Body> {
    let pieces =
        stream::unfold((reply.body.clone(), 0, stop), move |(mut rest, sent, mut stop)| async move {
            if rest.is_empty() {
                return None;
            }
            let pause = time::sleep(Duration::from_millis(DRIP_INTERVAL_MS));
            let hurry = tokio::select! {
                () = stopped(&mut stop) => true,
                () = pause => false,
            };
            let whole = hurry || sent >= MAX_DRIPS;
            let piece = rest.split_to(if whole { rest.len() } else { chunk_bytes.min(rest.len()) });
            Some((piece, (rest, sent + 1, stop)))
        });
    streamed(head(&reply), pieces)
}

/// `{"result":"xxx…"}` of the given size, made as it is sent.
fn huge(bytes: u64) -> Response<Body> {
    const OPENING: &[u8] = b"{\"result\":\"";
    const CLOSING: &[u8] = b"\"}";
    let filler = bytes.saturating_sub((OPENING.len() + CLOSING.len()) as u64);
    let piece = Bytes::from(vec![b'x'; HUGE_PIECE_BYTES as usize]);
    let middle = stream::unfold(filler, move |left| {
        let piece = piece.clone();
        async move {
            let length = left.min(HUGE_PIECE_BYTES);
            // At most HUGE_PIECE_BYTES, so it fits.
            (length > 0).then(|| (piece.slice(..length as usize), left - length))
        }
    });
    let once = |bytes: &'static [u8]| stream::iter([Bytes::from_static(bytes)]);
    let pieces = once(OPENING).chain(middle).chain(once(CLOSING));
    let reply = Reply::empty(200).header("content-type", "application/json");
    streamed(head(&reply), pieces)
}
