//! The text by which a request, its spans, its log lines, its facts and its later jobs find one another.
//!
//! A fact has one member for it (`trace`), and its form is frozen; so what joins stands in one text:
//!
//! ```text
//! 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7/req_0192f6c1…
//! └ trace id (W3C, 16 bytes) ───────┘ └ span id ─────┘ └ the request's id, ours or the caller's
//! ```
//!
//! The trace id is the caller's, if it sent a `traceparent`, else our own. The span is the one in which this server
//! answered: jobs that the request leaves behind name it as their parent, because the text travels with their authority.
//! What begins inside (a poll, a round) has no request; its text is an id such as `trc_<32 digits>`, and those digits are
//! its trace id. So every text leads to a trace id, and no two ways of working one out exist.

use kernel::{hex, sha256};

/// A W3C trace id.
pub type TraceId = [u8; 16];
/// A W3C span id, there called parent id.
pub type SpanId = [u8; 8];

/// What a text that joins says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in which the request was answered, if there was a request.
    pub span_id: Option<SpanId>,
    /// The request's id, if there was one.
    pub request_id: Option<String>,
}

impl Trace {
    /// Reads a text. One of another form has a trace id too: that of its digest.
    pub fn of(text: &str) -> Trace {
        let request = || {
            let (ids, request_id) = text.split_once('/')?;
            let (trace, span) = ids.split_once('-')?;
            let (trace_id, span_id) = (trace_id(trace)?, span_id(span)?);
            Some(Trace { trace_id, span_id: Some(span_id), request_id: Some(request_id.to_owned()) })
        };
        let inner = || {
            let (_, digits) = text.split_once('_')?;
            Some(Trace { trace_id: trace_id(digits)?, span_id: None, request_id: None })
        };
        request().or_else(inner).unwrap_or_else(|| {
            let mut digest = [0; 16];
            digest.copy_from_slice(&sha256(text.as_bytes())[..16]);
            Trace { trace_id: digest, span_id: None, request_id: None }
        })
    }

    /// The trace id as it is written.
    pub fn trace_hex(&self) -> String {
        hex::encode(&self.trace_id)
    }

    /// The span id as it is written; empty where there is none.
    pub fn span_hex(&self) -> String {
        self.span_id.map(|span| hex::encode(&span)).unwrap_or_default()
    }

    /// The text.
    pub fn text(&self) -> String {
        match (&self.span_id, &self.request_id) {
            (Some(span), Some(request)) => {
                format!("{}-{}/{request}", hex::encode(&self.trace_id), hex::encode(span))
            }
            _ => format!("trc_{}", hex::encode(&self.trace_id)),
        }
    }

    /// The header by which the next one in the chain learns of it: W3C Trace Context, version 00, sampled.
    pub fn traceparent(&self) -> String {
        let span = self.span_id.unwrap_or([0, 0, 0, 0, 0, 0, 0, 1]);
        format!("00-{}-{}-01", hex::encode(&self.trace_id), hex::encode(&span))
    }
}

/// Reads a `traceparent` (W3C Trace Context §3.2): its trace and its span. `None`: it is none, and a new trace begins.
pub fn traceparent(text: &str) -> Option<(TraceId, SpanId)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let digits = |part: &str| {
        part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    // A later version may say more behind; this one says exactly this, and ff says nothing.
    let whole = version != "00" || parts.next().is_none();
    if !digits(version) || version == "ff" || !digits(flags) || !whole {
        return None;
    }
    Some((trace_id(trace)?, span_id(span)?))
}

/// Reads 32 lower-case digits that are not all zero.
pub fn trace_id(text: &str) -> Option<TraceId> {
    id(text)
}

/// Reads 16 lower-case digits that are not all zero.
pub fn span_id(text: &str) -> Option<SpanId> {
    id(text)
}

fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (out != [0; N]).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn every_text_leads_to_one_trace_id() {
        let text = format!("{TRACE}-{SPAN}/my-id.1");
        let request = Trace::of(&text);
        assert_eq!((request.trace_hex().as_str(), request.span_hex().as_str()), (TRACE, SPAN));
        assert_eq!((request.request_id.as_deref(), request.text()), (Some("my-id.1"), text));
        assert_eq!(request.traceparent(), format!("00-{TRACE}-{SPAN}-01"));
        let inner = Trace::of(&format!("trc_{TRACE}"));
        assert_eq!((inner.trace_hex().as_str(), inner.span_id), (TRACE, None));
        assert_eq!(inner.text(), format!("trc_{TRACE}"));
        for odd in ["", "trc_test", "trc_00000000000000000000000000000000", "a-b/c", TRACE] {
            let trace = Trace::of(odd);
            assert_eq!((trace.span_id, trace.request_id.as_deref()), (None, None), "{odd}");
            assert_eq!(trace, Trace::of(odd));
            assert_ne!(trace.trace_id, [0; 16]);
        }
        assert_ne!(Trace::of("trc_a").trace_id, Trace::of("trc_b").trace_id);
    }

    #[test]
    fn a_traceparent_has_one_form() {
        for (text, fits) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-will-be"), true),
            (format!("00-{TRACE}-{SPAN}-01-more"), false),
            (format!("ff-{TRACE}-{SPAN}-01"), false),
            (format!("0-{TRACE}-{SPAN}-01"), false),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), false),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-{SPAN}-0g"), false),
            (format!("00-{TRACE}-{SPAN}"), false),
            (format!("00-{TRACE}é-{SPAN}-01"), false),
            (String::new(), false),
        ] {
            assert_eq!(traceparent(&text).is_some(), fits, "{text}");
        }
    }
}
