//! Why a request failed, and whether it may have taken effect.
//!
//! The caller of a ticket system that gets "connection reset" must know one thing before it may try again:
//! could the server have acted? [`EgressError::sent`] answers it. The answer is not guessed from the kind of
//! failure but taken from the wire: it is [`Sent::NotSent`] only while not one byte of any request (this one,
//! or an earlier hop of its redirects) had been handed to a socket. Everything after that is
//! [`Sent::Maybe`], including failures to read the answer: only the caller's own reconciliation can tell more.
//!
//! To add a fault: a variant only if some caller acts differently on it, a code that is never reused, and a row
//! in [`CODES`].

use std::{fmt, io};

use http::StatusCode;

use crate::address::IpClass;

/// Every code of this crate with what it says, in order.
pub const CODES: &[(&str, &str)] = &[
    (
        "egress.address_refused",
        "the destination's address is private, reserved or otherwise not to be connected to",
    ),
    ("egress.busy", "all outbound connections are in use and too many callers wait for one"),
    ("egress.connect_failed", "no vetted address of the destination accepted a connection"),
    ("egress.connect_timeout", "connecting to the destination took too long"),
    ("egress.connection_lost", "the connection broke after it was made"),
    ("egress.deadline_exceeded", "the deadline of the whole request passed"),
    ("egress.destination_refused", "no rule of the allowlist covers scheme, host and port"),
    ("egress.dns_failed", "the destination's name could not be resolved"),
    ("egress.encoding_refused", "the reply is compressed although none was accepted"),
    ("egress.first_byte_timeout", "the head of the reply did not come in time"),
    ("egress.header_refused", "a header of the request is not allowed"),
    ("egress.idle_timeout", "the reply stopped before its end, or dripped"),
    ("egress.limit_invalid", "a limit of the request lies outside what the client permits"),
    ("egress.method_refused", "the request's method is not one that is sent"),
    ("egress.redirect_refused", "the destination redirected to where requests do not go"),
    ("egress.request_too_large", "the request's body is over its limit"),
    ("egress.response_headers_too_large", "the head of the reply has too many headers or bytes"),
    ("egress.response_invalid", "the reply is not HTTP/1.1 that can be trusted"),
    ("egress.response_too_large", "the reply's body is over its limit"),
    ("egress.tls_failed", "the destination could not prove to be the host, or does not speak TLS"),
    ("egress.url_invalid", "the URL is outside the strict grammar of targets"),
];

/// Whether the other side may have acted on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Certainly not: no byte of it left this process. Safe to repeat.
    NotSent,
    /// Perhaps: at least one byte was written. Repeat only what may happen twice.
    Maybe,
}

/// A request that did not end in a whole, acceptable reply.
///
/// Neither this nor its sources hold the path, the query, a header value or a body.
#[derive(Debug)]
pub struct EgressError {
    pub(crate) fault: Fault,
    pub(crate) sent: Sent,
    pub(crate) status: Option<StatusCode>,
}

impl EgressError {
    pub(crate) fn new(fault: Fault, sent: Sent, status: Option<StatusCode>) -> Self {
        Self { fault, sent, status }
    }

    pub(crate) fn not_sent(fault: Fault) -> Self {
        Self::new(fault, Sent::NotSent, None)
    }

    /// Whether the request may have taken effect.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// A stable code such as `egress.address_refused`; codes are never reused for another meaning.
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// What went wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The status of the reply, where its head had arrived before the failure.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Whether our own rules refused the request, so that the same request will be refused again.
    pub fn is_refusal(&self) -> bool {
        match self.fault {
            Fault::UrlInvalid { .. }
            | Fault::MethodRefused
            | Fault::DestinationRefused { .. }
            | Fault::AddressRefused { .. }
            | Fault::HeaderRefused { .. }
            | Fault::RequestTooLarge { .. }
            | Fault::LimitInvalid { .. }
            | Fault::RedirectRefused { .. } => true,
            Fault::DnsFailed(_)
            | Fault::Busy
            | Fault::ConnectFailed(_)
            | Fault::ConnectTimeout
            | Fault::TlsFailed(_)
            | Fault::FirstByteTimeout
            | Fault::IdleTimeout
            | Fault::DeadlineExceeded
            | Fault::ConnectionLost(_)
            | Fault::ResponseInvalid { .. }
            | Fault::ResponseHeadersTooLarge
            | Fault::ResponseTooLarge { .. }
            | Fault::EncodingRefused => false,
        }
    }
}

impl fmt::Display for EgressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl std::error::Error for EgressError {
    // The fault's text is this error's text, so the chain goes on with what lies below the fault.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.fault.source()
    }
}

/// The kinds of failure.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The URL is outside the strict grammar of [`crate::Target::parse`].
    #[error("the URL is refused: {reason}")]
    UrlInvalid {
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The method is not one of GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE.
    #[error("the method is refused")]
    MethodRefused,
    /// No rule of the allowlist covers scheme, host and port.
    #[error("{scheme}://{host}:{port} is not on the allowlist")]
    DestinationRefused {
        /// `http` or `https`.
        scheme: &'static str,
        /// The host as it would be connected to.
        host: String,
        /// The port.
        port: u16,
    },
    /// The name stands for an address that must not be connected to. One such address among many is enough.
    #[error("the destination's address is {class}")]
    AddressRefused {
        /// What the address is.
        class: IpClass,
    },
    /// A header of the request is refused.
    #[error("header `{name}` is refused: {reason}")]
    HeaderRefused {
        /// The header's name, lower-cased and cut to printable ASCII.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The body of the request is over its limit.
    #[error("the request body is over {limit_bytes} bytes")]
    RequestTooLarge {
        /// The limit that was passed.
        limit_bytes: usize,
    },
    /// A limit of the request lies outside what this client permits.
    #[error("limit `{name}` is out of range")]
    LimitInvalid {
        /// The field of [`crate::Limits`].
        name: &'static str,
    },
    /// The name could not be resolved in time, or stands for no address, or for absurdly many.
    #[error("the name could not be resolved")]
    DnsFailed(#[source] io::Error),
    /// Too many connections are open and too many callers wait for one.
    #[error("all outbound connections are in use")]
    Busy,
    /// No vetted address accepted a connection.
    #[error("no connection could be made")]
    ConnectFailed(#[source] io::Error),
    /// Connecting, including the TLS handshake, took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The server could not prove to be the host, or does not speak TLS.
    #[error("the TLS handshake failed")]
    TlsFailed(#[source] io::Error),
    /// The head of the reply did not come in time.
    #[error("no reply came in time")]
    FirstByteTimeout,
    /// The body of the reply stopped, or dripped.
    #[error("the reply stopped before its end")]
    IdleTimeout,
    /// The deadline of the whole request passed.
    #[error("the deadline of the request passed")]
    DeadlineExceeded,
    /// The connection broke after it was made.
    #[error("the connection was lost")]
    ConnectionLost(#[source] Option<hyper::Error>),
    /// What came back is not an HTTP/1.1 reply that can be trusted.
    #[error("the reply is not valid: {reason}")]
    ResponseInvalid {
        /// What is wrong with it.
        reason: &'static str,
        /// The parser's own error, where there is one.
        #[source]
        source: Option<hyper::Error>,
    },
    /// The head of the reply has too many headers or too many bytes.
    #[error("the head of the reply is too large")]
    ResponseHeadersTooLarge,
    /// The body of the reply is over its limit; it was cut there.
    #[error("the reply is over {limit_bytes} bytes")]
    ResponseTooLarge {
        /// The limit that was passed.
        limit_bytes: usize,
    },
    /// The reply is compressed although we asked for `identity`.
    #[error("the reply is encoded although none was accepted")]
    EncodingRefused,
    /// The server redirected to where we do not go.
    #[error("the redirect is refused: {reason}")]
    RedirectRefused {
        /// The rule that it breaks.
        reason: &'static str,
        /// The refusal of the new destination, where that is the reason.
        #[source]
        cause: Option<Box<Fault>>,
    },
}

impl Fault {
    /// The stable code of this fault.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UrlInvalid { .. } => "egress.url_invalid",
            Self::MethodRefused => "egress.method_refused",
            Self::DestinationRefused { .. } => "egress.destination_refused",
            Self::AddressRefused { .. } => "egress.address_refused",
            Self::HeaderRefused { .. } => "egress.header_refused",
            Self::RequestTooLarge { .. } => "egress.request_too_large",
            Self::LimitInvalid { .. } => "egress.limit_invalid",
            Self::DnsFailed(_) => "egress.dns_failed",
            Self::Busy => "egress.busy",
            Self::ConnectFailed(_) => "egress.connect_failed",
            Self::ConnectTimeout => "egress.connect_timeout",
            Self::TlsFailed(_) => "egress.tls_failed",
            Self::FirstByteTimeout => "egress.first_byte_timeout",
            Self::IdleTimeout => "egress.idle_timeout",
            Self::DeadlineExceeded => "egress.deadline_exceeded",
            Self::ConnectionLost(_) => "egress.connection_lost",
            Self::ResponseInvalid { .. } => "egress.response_invalid",
            Self::ResponseHeadersTooLarge => "egress.response_headers_too_large",
            Self::ResponseTooLarge { .. } => "egress.response_too_large",
            Self::EncodingRefused => "egress.encoding_refused",
            Self::RedirectRefused { .. } => "egress.redirect_refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_codes_is_the_codes() {
        let io = || io::Error::from(io::ErrorKind::Other);
        let faults = [
            Fault::UrlInvalid { reason: "" },
            Fault::MethodRefused,
            Fault::DestinationRefused { scheme: "https", host: String::new(), port: 1 },
            Fault::AddressRefused { class: IpClass::Loopback },
            Fault::HeaderRefused { name: String::new(), reason: "" },
            Fault::RequestTooLarge { limit_bytes: 0 },
            Fault::LimitInvalid { name: "" },
            Fault::DnsFailed(io()),
            Fault::Busy,
            Fault::ConnectFailed(io()),
            Fault::ConnectTimeout,
            Fault::TlsFailed(io()),
            Fault::FirstByteTimeout,
            Fault::IdleTimeout,
            Fault::DeadlineExceeded,
            Fault::ConnectionLost(None),
            Fault::ResponseInvalid { reason: "", source: None },
            Fault::ResponseHeadersTooLarge,
            Fault::ResponseTooLarge { limit_bytes: 0 },
            Fault::EncodingRefused,
            Fault::RedirectRefused { reason: "", cause: None },
        ];
        let mut codes: Vec<&str> = faults.iter().map(Fault::code).collect();
        codes.sort_unstable();
        assert_eq!(codes, CODES.iter().map(|(code, _)| *code).collect::<Vec<_>>());
    }
}
