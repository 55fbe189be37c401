//! One connection, and what may be said about it.
//!
//! The dialler takes addresses, never names, so the address that was judged is the address that is connected
//! to; there is no code path on which a name reaches a socket. Over it runs hyper's HTTP/1.1, without its
//! client, its pool, its proxies or its retries.
//!
//! Two things are watched between hyper and the socket (inside TLS, where the bytes are the request itself):
//!
//! - whether a byte of the request was ever handed down: the ground of [`crate::Sent`];
//! - how many bytes came before the head of the reply was complete, since a server may send informational
//!   replies (1xx) without end.
//!
//! A connection is driven by whoever uses it, inside the same future. No task is spawned; dropping the future
//! closes the socket.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::error::Fault;
use crate::limits::Limits;
use crate::target::{Host, Scheme, Target};

/// How many of a name's addresses are tried before giving up.
const MAX_ATTEMPTS: usize = 3;
/// The read buffer of a connection may grow to this; a longer head needs a longer buffer.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Awaits a future until a stage or the whole request runs out of time, whichever is first.
pub(crate) async fn within<T>(
    future: impl Future<Output = T>,
    stage_end: Instant,
    stage_fault: Fault,
    deadline: Instant,
) -> Result<T, Fault> {
    let (end, fault) =
        if deadline <= stage_end { (deadline, Fault::DeadlineExceeded) } else { (stage_end, stage_fault) };
    tokio::time::timeout_at(end, future).await.map_err(|_| fault)
}

/// What passed between HTTP and the socket during one exchange.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    written: AtomicBool,
    /// Bytes that may still be read before the head of the reply must be complete.
    head_budget: AtomicUsize,
    overrun: AtomicBool,
}

impl Meter {
    fn begin(&self, head_budget: usize) {
        self.written.store(false, Ordering::Release);
        self.overrun.store(false, Ordering::Release);
        self.head_budget.store(head_budget, Ordering::Release);
    }

    /// The head has come: from here on the body's own limit counts.
    fn head_complete(&self) {
        self.head_budget.store(usize::MAX, Ordering::Release);
    }

    /// Whether any byte of the request was handed to the socket or to TLS.
    pub(crate) fn written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    fn note_read(&self, bytes: usize) -> io::Result<()> {
        let budget = self.head_budget.load(Ordering::Acquire);
        if budget == usize::MAX {
            return Ok(());
        }
        if bytes > budget {
            self.overrun.store(true, Ordering::Release);
            return Err(io::Error::other("the head of the reply has no end"));
        }
        self.head_budget.store(budget - bytes, Ordering::Release);
        Ok(())
    }
}

/// A byte stream: TCP, or TLS over TCP.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A byte stream under watch.
struct Metered {
    wire: Box<dyn Wire>,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.wire).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(this.meter.note_read(buf.filled().len() - before)),
            other => other,
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Before the attempt, not after its success: TLS may put bytes on the wire and still report an error.
        if !buf.is_empty() {
            this.meter.written.store(true, Ordering::Release);
        }
        Pin::new(&mut this.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bufs.iter().any(|buf| !buf.is_empty()) {
            this.meter.written.store(true, Ordering::Release);
        }
        Pin::new(&mut this.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(cx)
    }
}

type Connection = http1::Connection<TokioIo<Metered>, Full<Bytes>>;

/// A connection that speaks HTTP/1.1.
pub(crate) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// None once the connection has ended.
    connection: Option<Pin<Box<Connection>>>,
    meter: Arc<Meter>,
    peer: IpAddr,
    head_budget: usize,
}

impl Link {
    /// Connects to one of these addresses, which the caller has judged, in their order.
    pub(crate) async fn dial(
        tls: &TlsConnector,
        target: &Target,
        addresses: &[IpAddr],
        limits: &Limits,
        stage_end: Instant,
        deadline: Instant,
    ) -> Result<Self, Fault> {
        let (tcp, peer) = connect(addresses, target.port(), stage_end, deadline).await?;
        // A request is one small write and then a wait; waiting for more to send would only delay it.
        tcp.set_nodelay(true).map_err(Fault::ConnectFailed)?;
        let wire: Box<dyn Wire> = match target.scheme() {
            Scheme::Http => Box::new(tcp),
            Scheme::Https => {
                let name = server_name(target.host())?;
                let handshake = tls.connect(name, tcp);
                let stream = within(handshake, stage_end, Fault::ConnectTimeout, deadline).await?;
                Box::new(stream.map_err(Fault::TlsFailed)?)
            }
        };
        Self::over(wire, peer, limits).await
    }

    /// Prepares to speak HTTP over an open stream; nothing is sent or received yet.
    async fn over(wire: Box<dyn Wire>, peer: IpAddr, limits: &Limits) -> Result<Self, Fault> {
        let meter = Arc::new(Meter::default());
        let metered = Metered { wire, meter: Arc::clone(&meter) };
        let mut builder = http1::Builder::new();
        builder
            .max_headers(limits.response_headers)
            .max_header_size(limits.response_header_bytes)
            .max_buf_size(READ_BUFFER_BYTES.max(limits.response_header_bytes));
        let (sender, connection) = builder
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| Fault::ConnectionLost(Some(error)))?;
        // The reader may take a buffer full of body along with the head.
        let head_budget = 4 * limits.response_header_bytes + READ_BUFFER_BYTES;
        Ok(Self { sender, connection: Some(Box::pin(connection)), meter, peer, head_budget })
    }

    /// The address that this connection leads to.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// What passed during the current exchange.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sends a request and awaits the head of its reply.
    pub(crate) async fn exchange(
        &mut self,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, Fault> {
        self.meter.begin(self.head_budget);
        let reply = self.sender.send_request(request);
        let reply = drive(&mut self.connection, reply).await.map_err(|error| self.head_fault(error))?;
        self.meter.head_complete();
        Ok(reply)
    }

    /// The next frame of a reply's body; None at its end. Dropping the future loses nothing.
    pub(crate) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        drive(&mut self.connection, http_body_util::BodyExt::frame(body)).await
    }

    /// Whether another request may be sent: the last reply is over, nothing unasked-for came, and neither side
    /// has closed. Looks at the socket once and does not wait.
    pub(crate) async fn is_reusable(&mut self) -> bool {
        let connection = &mut self.connection;
        poll_fn(|cx| {
            poll_connection(connection, cx);
            Poll::Ready(())
        })
        .await;
        self.connection.is_some() && self.sender.is_ready()
    }

    fn head_fault(&self, error: hyper::Error) -> Fault {
        if self.meter.overrun.load(Ordering::Acquire) || error.is_parse_too_large() {
            Fault::ResponseHeadersTooLarge
        } else if error.is_parse() {
            Fault::ResponseInvalid { reason: "its head is not HTTP/1.1", source: Some(error) }
        } else {
            Fault::ConnectionLost(Some(error))
        }
    }
}

/// The fault that a failed body stands for.
pub(crate) fn body_fault(error: hyper::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            // hyper reports malformed chunks with these kinds; a lost connection never has them.
            if matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) {
                return Fault::ResponseInvalid { reason: "its body is malformed", source: Some(error) };
            }
        }
        cause = current.source();
    }
    Fault::ConnectionLost(Some(error))
}

fn poll_connection(connection: &mut Option<Pin<Box<Connection>>>, cx: &mut Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(cx).is_ready()
    {
        // How it ended is told through the exchange that was under way, if one was.
        *connection = None;
    }
}

/// Awaits a future while keeping the connection going, which the future depends on.
async fn drive<F: Future>(connection: &mut Option<Pin<Box<Connection>>>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        poll_connection(connection, cx);
        future.as_mut().poll(cx)
    })
    .await
}

async fn connect(
    addresses: &[IpAddr],
    port: u16,
    stage_end: Instant,
    deadline: Instant,
) -> Result<(TcpStream, IpAddr), Fault> {
    let attempts = addresses.len().min(MAX_ATTEMPTS);
    let mut last = Fault::ConnectFailed(io::Error::new(io::ErrorKind::AddrNotAvailable, "no address"));
    for (index, ip) in addresses.iter().take(attempts).enumerate() {
        // What is left of the time is shared evenly, so that one dead address cannot use up all of it.
        let now = Instant::now();
        let share = stage_end.saturating_duration_since(now) / (attempts - index) as u32;
        let connecting = TcpStream::connect(SocketAddr::new(*ip, port));
        last = match within(connecting, now + share, Fault::ConnectTimeout, deadline).await {
            Ok(Ok(tcp)) => return Ok((tcp, *ip)),
            Ok(Err(error)) => Fault::ConnectFailed(error),
            Err(Fault::DeadlineExceeded) => return Err(Fault::DeadlineExceeded),
            Err(fault) => fault,
        };
    }
    Err(last)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Fault> {
    match host {
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|error| Fault::TlsFailed(io::Error::new(io::ErrorKind::InvalidInput, error))),
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn message() -> http::Request<Full<Bytes>> {
        http::Request::post("/x").header("host", "h.example").body(Full::from("body")).unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_ended_before_the_request_was_not_written_to() {
        let (near, far) = tokio::io::duplex(1024);
        let mut link = Link::over(Box::new(near), PEER, &Limits::default()).await.unwrap();
        drop(far);
        assert!(matches!(link.exchange(message()).await, Err(Fault::ConnectionLost(_))));
        assert!(!link.meter().written());
        assert!(!link.is_reusable().await);
    }

    #[tokio::test]
    async fn one_byte_taken_is_written_even_if_it_fails_later() {
        // The stream has room for one byte, which is as far as the request gets.
        let (near, far) = tokio::io::duplex(1);
        let mut link = Link::over(Box::new(near), PEER, &Limits::default()).await.unwrap();
        let soon = Instant::now() + std::time::Duration::from_millis(20);
        assert!(!link.meter().written());
        assert!(tokio::time::timeout_at(soon, link.exchange(message())).await.is_err());
        assert!(link.meter().written());
        drop(far);
    }

    /// A stream that reports an error although bytes may have gone out, as TLS may.
    struct Failing;

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Failing {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_failed_write_counts_as_written() {
        let mut link = Link::over(Box::new(Failing), PEER, &Limits::default()).await.unwrap();
        assert!(matches!(link.exchange(message()).await, Err(Fault::ConnectionLost(_))));
        assert!(link.meter().written());
    }
}
