//! The tap: a layer of `tracing` that turns spans and events into pieces and never waits.
//!
//! A span's place in a trace comes from its fields, because ids are made where a request comes in, whether or not anybody
//! traces: facts carry them. `trace_id`, `span_id` and `parent_id` are taken for that, `otel.name`, `otel.kind` and
//! `otel.status_code` for what they say; every other field is an attribute. A span without a trace is its parent's child;
//! one that names another trace than its parent's begins there and links back; one without either is not exported.

use super::MUTED;
use act::trace::{SpanId, TraceId, span_id, trace_id};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::Clock;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Most pieces that wait to be exported.
pub const QUEUE_MAX: usize = 16_384;
/// Most attributes of a piece.
const ATTRIBUTES_MAX: usize = 32;
/// Longest text of an attribute or a log line, in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// Something to be exported.
#[derive(Debug)]
pub(super) enum Piece {
    /// A span that has ended.
    Span(Box<Span>),
    /// A log line.
    Log(Box<Log>),
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

pub(super) type Pairs = Vec<(&'static str, Value)>;

/// A span.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    /// The span that it was begun in, where that is of another trace.
    pub(super) link: Option<(TraceId, SpanId)>,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) failed: bool,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Pairs,
    start_us: u64,
}

/// A log line.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) place: Option<(TraceId, SpanId)>,
    pub(super) at_ns: u64,
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) body: String,
    pub(super) attributes: Pairs,
}

/// What was lost before it was sent.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) spans: AtomicU64,
    pub(super) logs: AtomicU64,
}

/// A layer for a subscriber of `tracing`. One for a process, and one [`Outlet`].
pub struct Tap {
    queue: mpsc::Sender<Piece>,
    lost: Arc<Lost>,
    clock: Arc<dyn Clock>,
    spans: AtomicU64,
    seed: u64,
}

/// The other end of a tap: what a server exports.
pub struct Outlet {
    pub(super) queue: mpsc::Receiver<Piece>,
    pub(super) lost: Arc<Lost>,
}

/// A tap and its outlet. `seed` is unpredictable, so that spans of two processes never have one id.
pub fn pair(clock: Arc<dyn Clock>, seed: u64) -> (Tap, Outlet) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let lost = Arc::new(Lost::default());
    let tap = Tap { queue: sender, lost: lost.clone(), clock, spans: AtomicU64::new(1), seed };
    (tap, Outlet { queue: receiver, lost })
}

/// A span that is open, or one that is not exported and whose children are not either.
#[derive(Clone)]
enum Open {
    Muted,
    Span(Span),
}

impl Tap {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.now_ms()).unwrap_or(0).saturating_mul(1_000_000)
    }

    /// A span's id: a counter, mixed so that it does not look like one (the finaliser of SplitMix64, a bijection).
    fn span_id(&self) -> SpanId {
        let n = self.spans.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = n.wrapping_add(self.seed);
        let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // All zero is no id; one number in 2⁶⁴ leads there.
        (n ^ (n >> 31)).max(1).to_be_bytes()
    }

    fn send(&self, piece: Piece) {
        if let Err(refused) = self.queue.try_send(piece) {
            let (mpsc::error::TrySendError::Full(piece) | mpsc::error::TrySendError::Closed(piece)) = refused;
            let count = match piece {
                Piece::Span(_) => &self.lost.spans,
                Piece::Log(_) => &self.lost.logs,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tap {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let parent = span.parent().and_then(|parent| parent.extensions().get::<Open>().cloned());
        if attributes.metadata().target() == MUTED || matches!(parent, Some(Open::Muted)) {
            span.extensions_mut().insert(Open::Muted);
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = match parent {
            Some(Open::Span(parent)) => Some((parent.trace, parent.id)),
            _ => None,
        };
        let Some(trace) = fields.trace.or(above.map(|(trace, _)| trace)) else { return };
        let own = above.filter(|(other, _)| *other == trace);
        let mut made = Span {
            trace,
            id: fields.span.unwrap_or_else(|| self.span_id()),
            parent: own.map(|(_, id)| id),
            link: above.filter(|(other, _)| *other != trace),
            name: attributes.metadata().name().to_owned(),
            kind: String::new(),
            failed: false,
            start_ns: self.now_ns(),
            end_ns: 0,
            attributes: Vec::new(),
            start_us: self.clock.monotonic_us(),
        };
        fields.put(&mut made);
        span.extensions_mut().insert(Open::Span(made));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(Open::Span(open)) = span.extensions_mut().get_mut::<Open>() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            fields.put(open);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let around = ctx.event_span(event).and_then(|span| span.extensions().get::<Open>().cloned());
        let place = match around {
            Some(Open::Muted) => return,
            Some(Open::Span(span)) => Some((span.trace, span.id)),
            None => None,
        };
        if event.metadata().target() == MUTED {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.send(Piece::Log(Box::new(Log {
            place,
            at_ns: self.now_ns(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            body: fields.message.unwrap_or_default(),
            attributes: fields.attributes,
        })));
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let open = span.extensions_mut().remove::<Open>();
        if let Some(Open::Span(mut span)) = open {
            let took_us = self.clock.monotonic_us().saturating_sub(span.start_us);
            span.end_ns = span.start_ns.saturating_add(took_us.saturating_mul(1000));
            self.send(Piece::Span(Box::new(span)));
        }
    }
}

/// Fields on their way from `tracing`.
#[derive(Default)]
struct Fields {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    parent: Option<SpanId>,
    name: Option<String>,
    kind: Option<String>,
    failed: bool,
    message: Option<String>,
    attributes: Pairs,
}

impl Fields {
    fn take(&mut self, name: &'static str, value: Value) {
        let text = match &value {
            Value::Text(text) => text.as_str(),
            Value::Integer(_) | Value::Boolean(_) => "",
        };
        match name {
            "trace_id" => self.trace = trace_id(text),
            "span_id" => self.span = span_id(text),
            "parent_id" => self.parent = span_id(text),
            "otel.name" => self.name = Some(text.to_owned()),
            "otel.kind" => self.kind = Some(text.to_owned()),
            "otel.status_code" => self.failed = text == "ERROR",
            "message" => self.message = Some(text.to_owned()),
            _ if self.attributes.len() < ATTRIBUTES_MAX => self.attributes.push((name, value)),
            _ => {}
        }
    }

    /// Adds to an open span what has become known.
    fn put(self, span: &mut Span) {
        let Fields { name, kind, failed, parent, attributes, .. } = self;
        span.parent = parent.or(span.parent);
        span.name = name.unwrap_or(std::mem::take(&mut span.name));
        span.kind = kind.unwrap_or(std::mem::take(&mut span.kind));
        span.failed |= failed;
        for (name, value) in attributes {
            match span.attributes.iter().position(|(other, _)| *other == name) {
                Some(at) => span.attributes[at].1 = value,
                None if span.attributes.len() < ATTRIBUTES_MAX => span.attributes.push((name, value)),
                None => {}
            }
        }
    }
}

/// At most [`TEXT_BYTES_MAX`] bytes of a text, whole characters.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), Value::Text(cut(value.to_owned())));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field.name(), Value::Boolean(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field.name(), Value::Integer(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field.name(), Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), Value::Text(cut(format!("{value:?}"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::SystemClock;
    use tracing_subscriber::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const OTHER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn heard(work: impl FnOnce()) -> (Vec<Span>, Vec<Log>, Arc<Lost>) {
        let (tap, mut outlet) = pair(Arc::new(SystemClock), 7);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(tap), work);
        let (mut spans, mut logs) = (Vec::new(), Vec::new());
        while let Ok(piece) = outlet.queue.try_recv() {
            match piece {
                Piece::Span(span) => spans.push(*span),
                Piece::Log(log) => logs.push(*log),
            }
        }
        (spans, logs, outlet.lost)
    }

    #[test]
    fn spans_stand_in_their_trace_and_log_lines_in_their_span() {
        let (spans, logs, _) = heard(|| {
            let span_id = "00f067aa0ba902b7";
            let outer = tracing::info_span!(
                "request",
                trace_id = TRACE,
                span_id,
                parent_id = "00000000000000aa",
                otel.name = "GET /x",
                otel.kind = "server",
                http.response.status_code = tracing::field::Empty,
                otel.status_code = tracing::field::Empty,
            );
            outer.in_scope(|| {
                tracing::info_span!("inner").in_scope(|| tracing::warn!(count = 3, "odd"));
                tracing::info_span!("other", trace_id = OTHER).in_scope(|| ());
                tracing::info_span!(target: MUTED, "export").in_scope(|| {
                    tracing::info_span!("below").in_scope(|| tracing::error!("not heard"));
                });
            });
            outer.record("http.response.status_code", 500_u16).record("otel.status_code", "ERROR");
            drop(outer);
            tracing::info!("outside");
            tracing::info_span!("of no trace").in_scope(|| ());
        });
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["inner", "other", "GET /x"]);
        let (inner, other, outer) = (&spans[0], &spans[1], &spans[2]);
        assert_eq!(outer.trace, trace_id(TRACE).unwrap());
        assert_eq!(
            (outer.parent, outer.kind.as_str(), outer.failed),
            (span_id("00000000000000aa"), "server", true)
        );
        assert_eq!(outer.attributes, [("http.response.status_code", Value::Integer(500))]);
        assert_eq!((inner.trace, inner.parent), (outer.trace, Some(outer.id)));
        assert_eq!((other.parent, other.link), (None, Some((outer.trace, outer.id))));
        assert!(outer.end_ns >= outer.start_ns);
        let heard: Vec<(&str, Option<SpanId>)> =
            logs.iter().map(|log| (log.body.as_str(), log.place.map(|(_, id)| id))).collect();
        assert_eq!(heard, [("odd", Some(inner.id)), ("outside", None)]);
        assert_eq!(logs[0].attributes, [("count", Value::Integer(3))]);
    }

    #[test]
    fn what_finds_no_place_is_lost_and_counted_and_nobody_waits() {
        let (spans, logs, lost) = heard(|| {
            for n in 0..QUEUE_MAX + 100 {
                tracing::info!(n, "line");
            }
            drop(tracing::info_span!("request", trace_id = TRACE));
        });
        assert_eq!((spans.len(), logs.len()), (0, QUEUE_MAX));
        assert_eq!((lost.spans.load(Ordering::Relaxed), lost.logs.load(Ordering::Relaxed)), (1, 100));
    }

    #[test]
    fn pieces_are_bounded_and_ids_differ() {
        let (_, logs, _) = heard(|| tracing::info!("{}", "é".repeat(TEXT_BYTES_MAX)));
        assert!(logs[0].body.len() <= TEXT_BYTES_MAX && logs[0].body.len() > TEXT_BYTES_MAX - 4);
        let (tap, _outlet) = pair(Arc::new(SystemClock), 0);
        let ids: std::collections::BTreeSet<SpanId> = (0..1000).map(|_| tap.span_id()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
