//! Sockets: accepted up to a bound, served with limits on size and patience, let go in an orderly way.
//!
//! A client that sends one byte a minute, sends a megabyte of headers, or never reads its answer must cost nothing but
//! its own connection. The head's size, number of headers and time are bounded by hyper; the time a write may stand still
//! by [`Patient`]. Request bodies are bounded where they are read.

use super::{App, answer, router};
use crate::tasks::stopped;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

/// How long a write may make no progress before the connection is given up.
pub const WRITE_STALL: Duration = Duration::from_secs(30);
/// Rest after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// File handles that connections never take: the database with its log, the mark, bundles, calls to the outside.
pub const HANDLES_RESERVED: u64 = 64;

/// How many connections there may be at once: as many as are configured, and as the process's file handles leave. If
/// connections could take the last handle, a crowd of idle clients would be enough to stop a bundle from being written.
fn connections_max(configured: usize) -> usize {
    let Some(handles) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current else {
        return configured;
    };
    // With fewer than the reserve there is no good number; a few callers at least are told what is wrong.
    let left = usize::try_from(handles.saturating_sub(HANDLES_RESERVED)).unwrap_or(usize::MAX).max(4);
    if left < configured {
        tracing::warn!(
            handles,
            connections = left,
            configured,
            "file handles are short: fewer connections are taken"
        );
    }
    configured.min(left)
}

/// Serves until `stopping` turns true, then lets requests on their way finish.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    let router = router::mount(&app);
    let limits = app.house.config.limits.clone();
    let slots = Arc::new(Semaphore::new(connections_max(limits.connections)));
    let mut stopping = app.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &slots) => match accepted {
                Some((stream, slot)) => {
                    connections.spawn(connection(stream, slot, app.clone(), router.clone()));
                }
                None => tokio::time::sleep(ACCEPT_REST).await,
            },
        }
    }
    drop(listener);
    let within = Duration::from_millis(limits.shutdown_ms);
    let ended = tokio::time::timeout(within, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        connections.shutdown().await;
    }
    app.acts.drain(within).await;
    app.streams.drain(within).await;
}

/// Waits for a slot, then for a connection.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, slot))
}

async fn connection(stream: TcpStream, _slot: OwnedSemaphorePermit, app: Arc<App>, router: Router) {
    // Without this, small answers wait for the client's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let _open = app.house.counts.connection();
    let limits = &app.house.config.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_read_ms))
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(64 * 1024));
    let mut stopping: watch::Receiver<bool> = app.stopping.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let (app, router) = (app.clone(), router.clone());
        async move { Ok::<_, Infallible>(answer(app, router, request.map(Body::new)).await) }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(Patient::new(stream)), service));
    // How a connection ends is its client's affair; there is nobody to tell.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = stopped(&mut stopping) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// A socket that gives up when a write stands still for [`WRITE_STALL`].
struct Patient {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    stalled: bool,
}

impl Patient {
    fn new(stream: TcpStream) -> Patient {
        Patient { stream, until: Box::pin(tokio::time::sleep(WRITE_STALL)), stalled: false }
    }

    fn judged<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = false;
            return poll;
        }
        if !self.stalled {
            self.stalled = true;
            self.until.as_mut().reset(Instant::now() + WRITE_STALL);
        }
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judged(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judged(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.judged(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judged(cx, poll)
    }
}
