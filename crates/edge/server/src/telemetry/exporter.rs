//! The exporter: one task that empties the queue, says how much was lost, and sends.
//!
//! OTLP/HTTP with binary protobuf: a POST to `<collector>/v1/{traces,logs,metrics}`. 429, 502, 503, 504 and a connection
//! that fails are tried again a few times, as the protocol has it, later each time or when `Retry-After` says; anything else
//! is final. What is given up is counted. While it tries again the queue goes on filling, and what finds it full is lost:
//! memory is bounded whatever the collector does.

use super::otlp::{self, Resource};
use super::tap::{Log, Outlet, Piece, Span};
use super::{MUTED, QUEUE_MAX};
use crate::counts::Counts;
use crate::tasks::stopped;
use egress::{Allowlist, Egress, Limits, Method, Reply, Request, Reuse, Rule, SecretHeader};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Clock;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::Instrument as _;
use zeroize::Zeroizing;

/// How often counts are sent unless the configuration says otherwise, milliseconds.
pub const METRICS_EVERY_DEFAULT_MS: u64 = 60_000;
/// How often the queue is emptied.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Most pieces in one request.
const BATCH_MAX: usize = 512;
/// How often a request is sent before it is given up.
const TRIES_MAX: u32 = 3;
/// Rest before the second try; before the third twice that.
const REST: Duration = Duration::from_secs(1);
/// Longest rest that a collector can ask for.
const REST_MAX: Duration = Duration::from_secs(30);
/// How long a collector may take for one request.
const DEADLINE_MS: u64 = 5_000;
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long the last pieces may take at the end.
const LAST: Duration = Duration::from_secs(3);

/// Sends what the tap heard, and what is counted.
pub struct Exporter {
    egress: Egress,
    base_url: String,
    allow: Allowlist,
    credential: Option<Zeroizing<String>>,
    outlet: Option<Outlet>,
    counts: Counts,
    resource: Resource,
    clock: Arc<dyn Clock>,
    start_ns: u64,
    metrics_every: Duration,
    reachable: bool,
}

/// What a request came to.
enum Sent {
    /// The collector has it, but for so many pieces that it refused.
    Taken(u64),
    /// Trying again may help, after this long if the collector says so.
    Later(Option<Duration>),
    /// It will not.
    Never,
}

impl Exporter {
    /// An exporter to the collector at `base_url`, which the operator chose and which may therefore be a private address.
    /// `outlet` is absent where nobody listens to spans, as in a process that has a subscriber of its own.
    ///
    /// # Errors
    /// An address that the way out does not take.
    #[expect(clippy::too_many_arguments, reason = "the parts of one thing, put together in one place")]
    pub fn new(
        egress: Egress,
        base_url: &str,
        credential: Option<Zeroizing<String>>,
        outlet: Option<Outlet>,
        counts: Counts,
        resource: Resource,
        clock: Arc<dyn Clock>,
        metrics_every: Duration,
    ) -> Result<Exporter, egress::RuleError> {
        let base_url = base_url.trim_end_matches('/').to_owned();
        let allow = Allowlist::new(vec![rule(&base_url)?])?;
        let start_ns = nanos(&*clock);
        Ok(Exporter {
            egress,
            base_url,
            allow,
            credential,
            outlet,
            counts,
            resource,
            clock,
            start_ns,
            metrics_every,
            reachable: true,
        })
    }

    /// Sends until `stopping` turns true, then once more what is there.
    pub async fn run(self, stopping: watch::Receiver<bool>) {
        // What happens while exporting is not exported: it would never end.
        let span = tracing::info_span!(target: MUTED, "export");
        self.work(stopping).instrument(span).await;
    }

    async fn work(mut self, mut stopping: watch::Receiver<bool>) {
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = tokio::time::interval(self.metrics_every);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ends = stopping.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut ends) => break,
                _ = count.tick() => self.metrics(&mut stopping).await,
                _ = flush.tick() => self.flush(&mut stopping).await,
            }
        }
        // Nothing waits for a collector that does not answer, the end of the process least of all.
        let last = async {
            self.flush(&mut stopping).await;
            self.metrics(&mut stopping).await;
        };
        if tokio::time::timeout(LAST, last).await.is_err() {
            tracing::warn!(target: MUTED, "the collector did not take the last pieces in time");
        }
    }

    /// Sends what is in the queue, at most a queue full of it at a time.
    async fn flush(&mut self, stopping: &mut watch::Receiver<bool>) {
        for _ in 0..QUEUE_MAX.div_ceil(BATCH_MAX) {
            let (spans, logs) = self.batch();
            let whole = spans.len() + logs.len() == BATCH_MAX;
            if !spans.is_empty() {
                let body = otlp::traces(&self.resource, &spans).encode_to_vec();
                let lost = self.deliver("traces", body, spans.len(), stopping).await;
                self.counts.telemetry_lost("spans", lost);
            }
            if !logs.is_empty() {
                let body = otlp::logs(&self.resource, &logs).encode_to_vec();
                let lost = self.deliver("logs", body, logs.len(), stopping).await;
                self.counts.telemetry_lost("logs", lost);
            }
            if !whole {
                return;
            }
        }
    }

    /// Takes a batch out of the queue, and counts what did not find a place in it.
    fn batch(&mut self) -> (Vec<Span>, Vec<Log>) {
        let (mut spans, mut logs) = (Vec::new(), Vec::new());
        let Some(outlet) = &mut self.outlet else { return (spans, logs) };
        self.counts.telemetry_lost("spans", outlet.lost.spans.swap(0, Ordering::Relaxed));
        self.counts.telemetry_lost("logs", outlet.lost.logs.swap(0, Ordering::Relaxed));
        while spans.len() + logs.len() < BATCH_MAX
            && let Ok(piece) = outlet.queue.try_recv()
        {
            match piece {
                Piece::Span(span) => spans.push(*span),
                Piece::Log(log) => logs.push(*log),
            }
        }
        (spans, logs)
    }

    async fn metrics(&mut self, stopping: &mut watch::Receiver<bool>) {
        let samples = self.counts.samples();
        let now_ns = nanos(&*self.clock);
        let body = otlp::metrics(&self.resource, &samples, self.start_ns, now_ns).encode_to_vec();
        let lost = self.deliver("metrics", body, samples.len(), stopping).await;
        self.counts.telemetry_lost("metrics", lost);
    }

    /// Sends one request, several times if need be; how many of its pieces are lost.
    async fn deliver(
        &mut self,
        signal: &'static str,
        body: Vec<u8>,
        pieces: usize,
        stopping: &mut watch::Receiver<bool>,
    ) -> u64 {
        let body = egress::Bytes::from(body);
        for tries in 0..TRIES_MAX {
            let rest = match self.send(signal, body.clone()).await {
                Sent::Taken(refused) => return refused,
                Sent::Never => break,
                Sent::Later(rest) => rest.unwrap_or(REST * 2_u32.pow(tries)).min(REST_MAX),
            };
            // Who is stopping tries each batch once.
            if tries + 1 == TRIES_MAX || tokio::time::timeout(rest, stopped(stopping)).await.is_ok() {
                break;
            }
        }
        u64::try_from(pieces).unwrap_or(u64::MAX)
    }

    async fn send(&mut self, signal: &'static str, body: egress::Bytes) -> Sent {
        let url = format!("{}/v1/{signal}", self.base_url);
        let mut request = Request::new(Method::POST, url, self.allow.clone());
        request.headers.push(("content-type".into(), "application/x-protobuf".into()));
        if let Some(token) = &self.credential {
            match SecretHeader::bearer(token) {
                Ok(header) => request.secrets.push(header),
                Err(_) => return Sent::Never,
            }
        }
        request.limits = Limits {
            deadline_ms: DEADLINE_MS,
            connect_ms: DEADLINE_MS,
            first_byte_ms: DEADLINE_MS,
            idle_ms: DEADLINE_MS,
            request_bytes: egress::MAX_REQUEST_BYTES,
            response_bytes: ANSWER_BYTES_MAX,
            ..Limits::default()
        };
        request.body = body;
        // A batch that is sent twice by a connection that closed is shown twice at worst.
        request.reuse = Reuse::Within("telemetry".into());
        let reply = self.egress.send(request).await;
        let said = reply.as_ref().map(|reply| reply.status.as_u16());
        match (&said, self.reachable) {
            (Ok(200..=299), false) => {
                tracing::info!(target: MUTED, "the collector takes telemetry again");
                self.reachable = true;
            }
            (Ok(200..=299), true) | (_, false) => {}
            (Ok(status), true) => {
                tracing::warn!(target: MUTED, status, signal, "the collector refuses telemetry; what is lost is counted");
                self.reachable = false;
            }
            (Err(error), true) => {
                let code = error.code();
                tracing::warn!(target: MUTED, code, signal, "the collector is not reached; what is lost is counted");
                self.reachable = false;
            }
        }
        match reply {
            Ok(reply) if reply.status.is_success() => Sent::Taken(refused(signal, &reply)),
            Ok(reply) if matches!(reply.status.as_u16(), 429 | 502 | 503 | 504) => Sent::Later(rest(&reply)),
            Ok(_) => Sent::Never,
            Err(error) if error.is_refusal() => Sent::Never,
            Err(_) => Sent::Later(None),
        }
    }
}

/// Scheme, host and port of an address, as the one place to go.
pub(crate) fn rule(base_url: &str) -> Result<Rule, egress::RuleError> {
    let origin: String = base_url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    Rule::parse(&origin).and_then(Rule::allow_private)
}

fn nanos(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now_ms()).unwrap_or(0).saturating_mul(1_000_000)
}

fn rest(reply: &Reply) -> Option<Duration> {
    let seconds = reply.headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How many pieces of a request a collector says that it did not take (partial success). An answer that is not understood
/// says nothing.
fn refused(signal: &str, reply: &Reply) -> u64 {
    let body = reply.body.clone();
    let refused = match signal {
        "traces" => ExportTraceServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_spans),
        "logs" => ExportLogsServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_log_records),
        _ => ExportMetricsServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_data_points),
    };
    refused.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}
