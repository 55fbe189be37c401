//! Bounds on one request. Every wait and every size has one; there is no way to ask for "no limit".
//!
//! Times are counted by the runtime's timer, sizes on the bytes as they arrive, so that a reply over its limit
//! is cut while it streams, not after it has filled the memory.

use std::time::Duration;

use crate::error::Fault;

/// The most redirects that can be asked for.
pub const MAX_REDIRECTS: u8 = 3;
/// The longest deadline that can be asked for: one hour, for streams.
pub const MAX_DEADLINE_MS: u64 = 3_600_000;
/// The largest request body that can be asked for.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;
/// The largest reply that can be asked for.
pub const MAX_RESPONSE_BYTES: usize = 256 * 1024 * 1024;
/// The most headers of a reply that can be asked for.
pub const MAX_RESPONSE_HEADERS: usize = 256;
/// The largest head of a reply that can be asked for.
pub const MAX_RESPONSE_HEADER_BYTES: usize = 256 * 1024;

/// Bounds on one request and its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the call to the last byte of the reply, waiting for a slot and all redirects included.
    pub deadline_ms: u64,
    /// Resolving, connecting and the TLS handshake together, for each hop.
    pub connect_ms: u64,
    /// From the first byte of the request to the head of the reply; the writing of the body is part of it.
    pub first_byte_ms: u64,
    /// The longest pause in the body of a reply. [`crate::Egress::send`] also counts a drip as a pause: less
    /// than [`crate::DRIP_BYTES`] in this time.
    pub idle_ms: u64,
    /// The largest request body.
    pub request_bytes: usize,
    /// The largest reply body; for a stream, all of its chunks together.
    pub response_bytes: usize,
    /// The most headers of a reply.
    pub response_headers: usize,
    /// The largest head of a reply, status line included.
    pub response_header_bytes: usize,
    /// How many redirects are followed. At 0 a redirect is a reply like any other.
    pub redirects: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            connect_ms: 5_000,
            first_byte_ms: 20_000,
            idle_ms: 10_000,
            request_bytes: 1024 * 1024,
            response_bytes: 4 * 1024 * 1024,
            response_headers: 100,
            response_header_bytes: 32 * 1024,
            redirects: 0,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let times = [
            ("deadline_ms", self.deadline_ms),
            ("connect_ms", self.connect_ms),
            ("first_byte_ms", self.first_byte_ms),
            ("idle_ms", self.idle_ms),
        ];
        for (name, value) in times {
            if value == 0 || value > MAX_DEADLINE_MS {
                return Err(Fault::LimitInvalid { name });
            }
        }
        // A body of nothing is a sensible limit; a head of nothing is not.
        let sizes = [
            ("request_bytes", self.request_bytes, 0, MAX_REQUEST_BYTES),
            ("response_bytes", self.response_bytes, 0, MAX_RESPONSE_BYTES),
            ("response_headers", self.response_headers, 1, MAX_RESPONSE_HEADERS),
            ("response_header_bytes", self.response_header_bytes, 64, MAX_RESPONSE_HEADER_BYTES),
            ("redirects", usize::from(self.redirects), 0, usize::from(MAX_REDIRECTS)),
        ];
        for (name, value, least, most) in sizes {
            if value < least || value > most {
                return Err(Fault::LimitInvalid { name });
            }
        }
        Ok(())
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    pub(crate) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(crate) fn first_byte(&self) -> Duration {
        Duration::from_millis(self.first_byte_ms)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_out_of_range() {
        type Change = fn(&mut Limits);
        let table: &[(&str, Change)] = &[
            ("deadline_ms", |l| l.deadline_ms = 0),
            ("deadline_ms", |l| l.deadline_ms = MAX_DEADLINE_MS + 1),
            ("connect_ms", |l| l.connect_ms = 0),
            ("first_byte_ms", |l| l.first_byte_ms = u64::MAX),
            ("idle_ms", |l| l.idle_ms = 0),
            ("request_bytes", |l| l.request_bytes = MAX_REQUEST_BYTES + 1),
            ("response_bytes", |l| l.response_bytes = usize::MAX),
            ("response_headers", |l| l.response_headers = 0),
            ("response_headers", |l| l.response_headers = MAX_RESPONSE_HEADERS + 1),
            ("response_header_bytes", |l| l.response_header_bytes = 0),
            ("response_header_bytes", |l| l.response_header_bytes = MAX_RESPONSE_HEADER_BYTES + 1),
            ("redirects", |l| l.redirects = MAX_REDIRECTS + 1),
        ];
        for (expected, change) in table {
            let mut limits = Limits::default();
            assert!(limits.check().is_ok());
            change(&mut limits);
            match limits.check() {
                Err(Fault::LimitInvalid { name }) => assert_eq!(name, *expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
