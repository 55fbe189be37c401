//! The client: takes a request through the gates in their order, hop by hop.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::allowlist::Permission;
use crate::error::{EgressError, Fault, Sent};
use crate::header::RequestHeaders;
use crate::link::{Link, within};
use crate::pool::{IdleKey, IdleLinks, PoolLimits, Slots};
use crate::reply::{Home, Reading, Reply, ReplyStream};
use crate::request::{Checked, Request, Reuse};
use crate::resolve::{MAX_ADDRESSES, Resolve, SystemResolver};
use crate::target::{Host, Scheme, Target};
use crate::tls::{self, Roots};

/// A source of monotonic time in milliseconds; only differences are used.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How to build an [`Egress`].
pub struct EgressConfig {
    /// For elapsed times and the age of idle connections. Time limits use the runtime's timer.
    pub clock: Clock,
    /// Resolves names.
    pub resolver: Arc<dyn Resolve>,
    /// Which certificate authorities are believed.
    pub roots: Roots,
    /// Bounds on connections.
    pub pool: PoolLimits,
    /// `User-Agent` of requests that bring none; printable ASCII.
    pub user_agent: Option<String>,
}

impl EgressConfig {
    /// The system's resolver and roots, default bounds, no user agent.
    pub fn new(clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            resolver: Arc::new(SystemResolver),
            roots: Roots::default(),
            pool: PoolLimits::default(),
            user_agent: None,
        }
    }
}

/// Why the client could not be built. All of these are mistakes in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The extra root certificates are not readable PEM.
    #[error("the extra root certificates cannot be read: {0}")]
    RootsUnreadable(String),
    /// rustls refused a certificate or its own configuration.
    #[error("TLS cannot be configured")]
    Tls(#[source] rustls::Error),
    /// A bound of the pool is zero or absurd.
    #[error("pool limit `{0}` is out of range")]
    LimitInvalid(&'static str),
    /// The user agent cannot be sent as a header.
    #[error("the user agent cannot be sent as a header")]
    UserAgent,
}

/// The outbound client. Cheap to clone; clones share connections and bounds.
#[derive(Clone)]
pub struct Egress {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    slots: Slots,
    idle: Arc<IdleLinks>,
    user_agent: Option<HeaderValue>,
}

/// What stays the same over all hops of one call.
struct Call<'a> {
    request: &'a Request,
    headers: RequestHeaders,
    started_ms: i64,
    deadline: Instant,
}

/// One hop of a call.
struct Hop {
    target: Target,
    permission: Permission,
    /// Whether every hop so far stayed on the origin that the caller named; if not, credentials are gone for good.
    own_origin: bool,
}

/// The span of a call. It names where the call goes, never the path, the query or a header: those are arguments.
fn span(request: &Request) -> Span {
    let span = tracing::info_span!(
        "outbound",
        otel.kind = "client",
        otel.name = request.method.as_str(),
        otel.status_code = Empty,
        http.request.method = request.method.as_str(),
        server.address = Empty,
        server.port = Empty,
        http.response.status_code = Empty,
        error.type = Empty,
    );
    if !span.is_disabled()
        && let Ok(target) = Target::parse(&request.url)
    {
        span.record("server.address", target.host().to_string()).record("server.port", target.port());
    }
    span
}

/// Says in the call's span how it failed.
fn noted(error: &EgressError) {
    Span::current().record("error.type", error.code()).record("otel.status_code", "ERROR");
}

impl Egress {
    /// Builds the client. Reads the system's root certificates; connects to nothing.
    pub fn new(config: EgressConfig) -> Result<Self, SetupError> {
        config.pool.check()?;
        let user_agent = match config.user_agent {
            None => None,
            Some(text) => Some(HeaderValue::from_str(&text).map_err(|_| SetupError::UserAgent)?),
        };
        let inner = Inner {
            clock: config.clock,
            resolver: config.resolver,
            tls: TlsConnector::from(tls::client_config(&config.roots)?),
            slots: Slots::new(config.pool.clone()),
            idle: Arc::new(IdleLinks::new(config.pool)),
            user_agent,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sends a request and reads the whole reply, whatever its status.
    ///
    /// A body that drips (see [`crate::Limits::idle_ms`]) is cut.
    pub async fn send(&self, request: Request) -> Result<Reply, EgressError> {
        let span = span(&request);
        let reply = async {
            let reply = self.answered(request).await?.collect().await;
            reply.inspect_err(noted)
        };
        reply.instrument(span).await
    }

    /// Sends a request and returns once the head of the reply is here; the body is read by the caller.
    ///
    /// The deadline holds until the last byte, so a stream that is meant to last needs a long one.
    pub async fn stream(&self, request: Request) -> Result<ReplyStream, EgressError> {
        let span = span(&request);
        self.answered(request).instrument(span).await
    }

    async fn answered(&self, request: Request) -> Result<ReplyStream, EgressError> {
        let started_ms = (self.inner.clock)();
        let result = self.run(&request, started_ms).await;
        let method = &request.method;
        match &result {
            Ok(reply) => {
                let status = reply.status().as_u16();
                Span::current().record("http.response.status_code", status);
                tracing::debug!(%method, status, "outbound request answered")
            }
            Err(error) => {
                noted(error);
                tracing::debug!(%method, code = error.code(), sent = ?error.sent(), "outbound request failed");
            }
        }
        result
    }

    async fn run(&self, request: &Request, started_ms: i64) -> Result<ReplyStream, EgressError> {
        let Checked { target, permission, headers } = request.checked().map_err(EgressError::not_sent)?;
        // The deadline is checked to be at most an hour, so the sum exists.
        let call =
            Call { request, headers, started_ms, deadline: Instant::now() + request.limits.deadline() };
        let mut hop = Hop { target, permission, own_origin: true };
        let mut followed = 0;
        loop {
            let reply = match self.hop(&call, &hop).await {
                Ok(reply) => reply,
                Err(error) if followed == 0 => return Err(error),
                // An earlier hop was sent in any case.
                Err(error) => {
                    return Err(EgressError::new(of_redirect(error.fault), Sent::Maybe, error.status));
                }
            };
            match next_hop(&call, &hop, &reply, followed) {
                Ok(None) => return Ok(reply),
                Ok(Some(next)) => hop = next,
                Err(fault) => return Err(EgressError::new(fault, Sent::Maybe, Some(reply.status()))),
            }
            // The reply is dropped here and its connection with it: its body is of no use.
            followed += 1;
        }
    }

    async fn hop(&self, call: &Call<'_>, hop: &Hop) -> Result<ReplyStream, EgressError> {
        let Inner { slots, idle, clock, .. } = &*self.inner;
        let limits = &call.request.limits;
        let place = format!("{}:{}", hop.target.host(), hop.target.port());
        let slot = slots.acquire(&place, call.deadline).await.map_err(EgressError::not_sent)?;
        let connect_end = Instant::now() + limits.connect();
        let addresses = self.addresses(call, hop, connect_end).await.map_err(EgressError::not_sent)?;

        let key = match &call.request.reuse {
            Reuse::Never => None,
            Reuse::Within(partition) => Some(IdleKey {
                partition: partition.clone(),
                origin: hop.target.origin(),
                response_headers: limits.response_headers,
                response_header_bytes: limits.response_header_bytes,
            }),
        };
        let pooled = match &key {
            Some(key) => idle.take(key, &addresses, clock()).await,
            None => None,
        };
        let (reply, link) = match pooled {
            Some(link) => match self.exchange(call, hop, link).await {
                // It was closed under our hands before a byte was written: a fresh one is no repetition.
                Err(error)
                    if error.sent == Sent::NotSent && matches!(error.fault, Fault::ConnectionLost(_)) =>
                {
                    self.exchange_fresh(call, hop, &addresses, connect_end).await?
                }
                other => other?,
            },
            None => self.exchange_fresh(call, hop, &addresses, connect_end).await?,
        };
        check_head(&reply, limits.response_bytes)
            .map_err(|fault| EgressError::new(fault, Sent::Maybe, Some(reply.status())))?;
        let reading = Reading {
            limits: limits.clone(),
            deadline: call.deadline,
            clock: Arc::clone(clock),
            started_ms: call.started_ms,
            home: key.map(|key| Home { idle: Arc::clone(idle), key }),
        };
        Ok(ReplyStream::new(reply, link, slot, reading))
    }

    /// Resolves the host, once, and judges everything it stands for.
    async fn addresses(
        &self,
        call: &Call<'_>,
        hop: &Hop,
        connect_end: Instant,
    ) -> Result<Vec<IpAddr>, Fault> {
        let addresses = match hop.target.host() {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => {
                let late = Fault::DnsFailed(io::ErrorKind::TimedOut.into());
                within(self.inner.resolver.resolve(name), connect_end, late, call.deadline)
                    .await?
                    .map_err(Fault::DnsFailed)?
            }
        };
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            let kind = io::ErrorKind::InvalidData;
            return Err(Fault::DnsFailed(io::Error::new(kind, "the name has no address, or too many")));
        }
        hop.permission.vet(&addresses)?;
        Ok(addresses)
    }

    async fn exchange_fresh(
        &self,
        call: &Call<'_>,
        hop: &Hop,
        addresses: &[IpAddr],
        connect_end: Instant,
    ) -> Result<(http::Response<Incoming>, Link), EgressError> {
        let limits = &call.request.limits;
        let link = Link::dial(&self.inner.tls, &hop.target, addresses, limits, connect_end, call.deadline)
            .await
            .map_err(EgressError::not_sent)?;
        self.exchange(call, hop, link).await
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        hop: &Hop,
        mut link: Link,
    ) -> Result<(http::Response<Incoming>, Link), EgressError> {
        let message = self.message(call, hop).map_err(EgressError::not_sent)?;
        let stage_end = Instant::now() + call.request.limits.first_byte();
        let outcome = within(link.exchange(message), stage_end, Fault::FirstByteTimeout, call.deadline).await;
        match outcome {
            Ok(Ok(reply)) => Ok((reply, link)),
            Ok(Err(fault)) | Err(fault) => {
                let sent = if link.meter().written() { Sent::Maybe } else { Sent::NotSent };
                Err(EgressError::new(fault, sent, None))
            }
        }
    }

    /// The request as it goes on the wire of this hop.
    fn message(&self, call: &Call<'_>, hop: &Hop) -> Result<http::Request<Full<Bytes>>, Fault> {
        let (mut headers, body) = if hop.own_origin {
            (call.headers.for_own_origin(&call.request.secrets)?, call.request.body.clone())
        } else {
            (call.headers.for_other_origin(), Bytes::new())
        };
        let authority = HeaderValue::from_str(&hop.target.authority())
            .map_err(|_| Fault::UrlInvalid { reason: "the host cannot be sent" })?;
        headers.insert(header::HOST, authority);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if call.request.reuse == Reuse::Never {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(agent) = &self.inner.user_agent {
            headers.entry(header::USER_AGENT).or_insert_with(|| agent.clone());
        }
        let mut message = http::Request::new(Full::new(body));
        *message.method_mut() = call.request.method.clone();
        *message.uri_mut() = hop.target.path().clone().into();
        *message.version_mut() = Version::HTTP_11;
        *message.headers_mut() = headers;
        Ok(message)
    }
}

/// Refuses a reply whose head says that its body cannot be read as it is.
fn check_head(reply: &http::Response<Incoming>, response_bytes: usize) -> Result<(), Fault> {
    let headers = reply.headers();
    let invalid = |reason| Err(Fault::ResponseInvalid { reason, source: None });
    if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
        return invalid("it switches protocols unasked");
    }
    let codings: Vec<&HeaderValue> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
    if !codings.is_empty() {
        // Two ways to tell the length are how replies get smuggled (RFC 9112, section 6.3).
        if headers.contains_key(header::CONTENT_LENGTH) {
            return invalid("it has both a length and a transfer coding");
        }
        if codings.len() > 1 || !codings[0].as_bytes().eq_ignore_ascii_case(b"chunked") {
            return invalid("its transfer coding is not chunked alone");
        }
    }
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.is_empty() && !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Err(Fault::EncodingRefused);
    }
    // The body of a reply to HEAD has a length but never comes; the count while reading decides then.
    let announced = hyper::body::Body::size_hint(reply.body()).lower();
    if announced > response_bytes as u64 {
        return Err(Fault::ResponseTooLarge { limit_bytes: response_bytes });
    }
    Ok(())
}

/// Where the reply leads, if it is a redirect that is to be followed.
fn next_hop(call: &Call<'_>, hop: &Hop, reply: &ReplyStream, followed: u8) -> Result<Option<Hop>, Fault> {
    let limits = &call.request.limits;
    let redirect = matches!(reply.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if limits.redirects == 0 || !redirect || !reply.headers().contains_key(header::LOCATION) {
        return Ok(None);
    }
    let refused = |reason| Err(Fault::RedirectRefused { reason, cause: None });
    if followed >= limits.redirects {
        return refused("there are too many");
    }
    let location = single_location(reply.headers())
        .ok_or(Fault::RedirectRefused { reason: "its location is not one plain text", cause: None })?;
    let target = hop.target.follow(location).map_err(of_redirect)?;
    if hop.target.scheme() == Scheme::Https && target.scheme() == Scheme::Http {
        return refused("it leads from https to http");
    }
    let same_origin = target.same_origin(&hop.target);
    let safe = matches!(call.request.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !safe {
        if !same_origin {
            return refused("a request that may change something does not leave its origin");
        }
        if !matches!(reply.status().as_u16(), 307 | 308) {
            // 301 to 303 turn such a request into a GET: the act is done, and a different one would follow.
            return refused("it changes the method");
        }
    }
    if !same_origin && !call.request.body.is_empty() {
        return refused("a body does not leave its origin");
    }
    let permission = call.request.allow.permission(&target).map_err(of_redirect)?;
    Ok(Some(Hop { target, permission, own_origin: hop.own_origin && same_origin }))
}

fn single_location(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::LOCATION).iter();
    let first = all.next()?;
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// A refusal of our own rules that a redirect ran into, told as the redirect's fault.
fn of_redirect(fault: Fault) -> Fault {
    match fault {
        Fault::UrlInvalid { .. } | Fault::DestinationRefused { .. } | Fault::AddressRefused { .. } => {
            Fault::RedirectRefused { reason: "its destination is refused", cause: Some(Box::new(fault)) }
        }
        other => other,
    }
}
