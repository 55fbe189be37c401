//! The one way out: every outbound HTTP request of the system is made here.
//!
//! A connector's URL comes from a tenant, the address behind its name from a stranger's DNS server, the reply
//! from a machine that may be hostile. Say a ticket system is configured as `https://tickets.example`: without
//! care that name may resolve to `169.254.169.254` (the cloud's credentials), may resolve to a public address
//! when it is checked and to `127.0.0.1` when it is connected to, may answer with a redirect to our database,
//! with ten gigabytes, with one byte per second, or not at all after it has closed the ticket.
//!
//! So a request passes these gates in this order, and the first that refuses ends it:
//!
//! 1. **Text**: [`Target::parse`] accepts only URLs that everybody reads alike; headers obey the rules of
//!    [`SecretHeader`] and its module.
//! 2. **Permission**: the [`Allowlist`] that came with this request covers scheme, host and port. An empty list
//!    refuses everything.
//! 3. **Address**: the name is resolved once; *all* of its addresses must be public ([`classify_ip`]), or
//!    private where the operator said so for this very host. The socket is then given an address that was
//!    judged, never the name.
//! 4. **Connection**: TLS with verification, always; HTTP/1.1; no proxy, no cookie jar, no decompression.
//! 5. **Reply**: head and body are cut at their [`Limits`] while they stream.
//! 6. **Redirect**: off unless asked for; each hop passes all gates again and loses the credentials when it
//!    leaves the origin.
//!
//! An [`EgressError`] says whether the request may have taken effect ([`Sent`]). That is what lets a caller keep
//! its promise to act at most once, so it is taken from the wire and not guessed.
//!
//! Rules for those who add to it: no second HTTP client, no "just this once" path around a gate, no option that
//! turns a gate off; a new limit gets a ceiling; a new fault gets a code and an answer to "may it have taken
//! effect?".
//!
//! What it does not do: retry (the caller knows what may happen twice), decide who may call what (that is
//! policy), interpret replies, wait as `Retry-After` says (what it says is read by [`date`]), speak HTTP/2, or keep a body that is not framed apart from
//! a truncated one: over plain HTTP a reply that ends by closing cannot be told from a cut one.

mod address;
mod allowlist;
mod client;
pub mod date;
mod error;
mod header;
mod limits;
mod link;
mod pool;
mod reply;
mod request;
mod resolve;
pub mod sse;
mod target;
mod tls;

pub use address::{IpClass, classify_ip};
pub use allowlist::{Allowlist, MAX_RULES, Rule, RuleError};
pub use bytes::Bytes;
pub use client::{Clock, Egress, EgressConfig, SetupError};
pub use error::{CODES, EgressError, Fault, Sent};
pub use header::{MAX_HEADER_VALUE_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, SecretHeader};
pub use http::{HeaderMap, Method, StatusCode};
pub use limits::{
    Limits, MAX_DEADLINE_MS, MAX_REDIRECTS, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_RESPONSE_HEADER_BYTES,
    MAX_RESPONSE_HEADERS,
};
pub use pool::PoolLimits;
pub use reply::{DRIP_BYTES, MAX_CHUNK_BYTES, Reply, ReplyStream};
pub use request::{Request, Reuse};
pub use resolve::{MAX_ADDRESSES, Resolve, Resolving, SystemResolver};
pub use target::{Host, MAX_URL_BYTES, Scheme, Target};
pub use tls::Roots;
