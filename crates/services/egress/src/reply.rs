//! Reading a reply without trusting it: counted, timed and cut as it arrives.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::client::Clock;
use crate::error::{EgressError, Fault, Sent};
use crate::limits::Limits;
use crate::link::{self, Link};
use crate::pool::{IdleKey, IdleLinks, Slot};

/// The largest piece that [`ReplyStream::chunk`] returns.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// A whole reply that brings less than this within `idle_ms` counts as stopped.
pub const DRIP_BYTES: usize = 1024;
/// The memory set aside at once for a reply that announces its length; more is taken as it comes.
const FIRST_ALLOCATION_BYTES: usize = 64 * 1024;

/// A whole reply, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status; a redirect that was not followed is one too.
    pub status: StatusCode,
    /// The headers, bounded in number and size. May hold secrets of the other side, such as `Set-Cookie`.
    pub headers: HeaderMap,
    /// The body as it was sent; it is never decompressed.
    pub body: Bytes,
    /// From the call to the last byte, by the injected clock.
    pub elapsed_ms: i64,
}

/// Where a connection goes once its reply has been read to the end.
pub(crate) struct Home {
    pub(crate) idle: Arc<IdleLinks>,
    pub(crate) key: IdleKey,
}

enum State {
    Open { link: Box<Link>, body: Incoming, _slot: Slot },
    Ended,
    Failed,
}

/// A reply whose body is read piece by piece. Dropping it closes the connection.
pub struct ReplyStream {
    status: StatusCode,
    headers: HeaderMap,
    state: State,
    home: Option<Home>,
    /// What is left of a frame that was larger than a chunk.
    rest: Bytes,
    received: usize,
    limits: Limits,
    deadline: Instant,
    clock: Clock,
    started_ms: i64,
}

/// What a stream needs to know besides the reply itself.
pub(crate) struct Reading {
    pub(crate) limits: Limits,
    pub(crate) deadline: Instant,
    pub(crate) clock: Clock,
    pub(crate) started_ms: i64,
    pub(crate) home: Option<Home>,
}

impl ReplyStream {
    pub(crate) fn new(reply: http::Response<Incoming>, link: Link, slot: Slot, reading: Reading) -> Self {
        let (mut head, body) = reply.into_parts();
        crate::date::complete(&mut head.headers, (reading.clock)());
        Self {
            status: head.status,
            headers: head.headers,
            state: State::Open { link: Box::new(link), body, _slot: slot },
            home: reading.home,
            rest: Bytes::new(),
            received: 0,
            limits: reading.limits,
            deadline: reading.deadline,
            clock: reading.clock,
            started_ms: reading.started_ms,
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers, bounded in number and size.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Since the call, by the injected clock.
    pub fn elapsed_ms(&self) -> i64 {
        (self.clock)().saturating_sub(self.started_ms).max(0)
    }

    /// The next piece of the body, at most [`MAX_CHUNK_BYTES`] and never empty; None at its end.
    ///
    /// Waits at most `idle_ms`. Dropping the future before it is done loses nothing. Every error has
    /// [`Sent::Maybe`]; after one, every further call fails, so that a cut body never looks like a whole one.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        let idle_end = Instant::now() + self.limits.idle();
        self.chunk_until(idle_end).await
    }

    async fn chunk_until(&mut self, idle_end: Instant) -> Result<Option<Bytes>, EgressError> {
        match self.next_frame(idle_end).await {
            Ok(chunk) => Ok(chunk),
            Err(fault) => {
                // Closes the connection and gives the slot back.
                self.state = State::Failed;
                self.rest = Bytes::new();
                Err(EgressError::new(fault, Sent::Maybe, Some(self.status)))
            }
        }
    }

    async fn next_frame(&mut self, idle_end: Instant) -> Result<Option<Bytes>, Fault> {
        loop {
            if !self.rest.is_empty() {
                let size = self.rest.len().min(MAX_CHUNK_BYTES);
                return Ok(Some(self.rest.split_to(size)));
            }
            let (link, body) = match &mut self.state {
                State::Open { link, body, .. } => (link, body),
                State::Ended => return Ok(None),
                State::Failed => return Err(Fault::ConnectionLost(None)),
            };
            let frame = link::within(link.frame(body), idle_end, Fault::IdleTimeout, self.deadline).await?;
            match frame {
                None => {
                    self.end().await;
                    return Ok(None);
                }
                Some(Err(error)) => return Err(link::body_fault(error)),
                // Trailers are dropped: nothing here needs them, and they would be headers nobody checked.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received = self.received.saturating_add(data.len());
                        if self.received > self.limits.response_bytes {
                            return Err(Fault::ResponseTooLarge { limit_bytes: self.limits.response_bytes });
                        }
                        self.rest = data;
                    }
                }
            }
        }
    }

    /// The body is complete: keeps the connection if it may be used again, and gives the slot back.
    async fn end(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        if let (State::Open { link, .. }, Some(home)) = (state, self.home.take()) {
            home.idle.put(home.key, *link, (self.clock)()).await;
        }
    }

    /// Reads the rest of the body into memory.
    pub(crate) async fn collect(mut self) -> Result<Reply, EgressError> {
        let announced = self
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
            .unwrap_or(0);
        let mut body = BytesMut::with_capacity(announced.min(FIRST_ALLOCATION_BYTES));
        // A pause is judged over a window: one byte a second never pauses, and never ends either.
        let mut window_end = Instant::now() + self.limits.idle();
        let mut in_window = 0;
        while let Some(chunk) = self.chunk_until(window_end).await? {
            body.extend_from_slice(&chunk);
            in_window += chunk.len();
            if in_window >= DRIP_BYTES {
                in_window = 0;
                window_end = Instant::now() + self.limits.idle();
            }
        }
        let elapsed_ms = self.elapsed_ms();
        Ok(Reply { status: self.status, headers: self.headers, body: body.freeze(), elapsed_ms })
    }
}
