//! Pieces and counts as OTLP messages (opentelemetry-proto 1.x, the stable signals).

use super::tap::{Log, Pairs, Span, Value};
use crate::counts::{Sample, Sort};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, status};
use tracing::Level;

/// W3C flags of what is exported: sampled.
const SAMPLED: u32 = 1;

/// Who says it: attributes by OpenTelemetry's names.
#[derive(Debug, Clone)]
pub struct Resource(Vec<(&'static str, String)>);

impl Resource {
    /// One process of an installation; `instance` is of this process alone.
    pub fn new(installation: &str, cell: &str, environment: &str, instance: String) -> Resource {
        Resource(vec![
            ("service.name", "writ".to_owned()),
            ("service.namespace", installation.to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", instance),
            ("deployment.environment.name", environment.to_owned()),
            ("writ.cell", cell.to_owned()),
        ])
    }

    fn message(&self) -> Option<OtlpResource> {
        let attributes = self.0.iter().map(|(key, value)| text(key, value.clone())).collect();
        Some(OtlpResource { attributes, ..OtlpResource::default() })
    }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "writ".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    pair(key, any_value::Value::StringValue(value))
}

fn pairs(attributes: &Pairs) -> Vec<KeyValue> {
    let value = |value: &Value| match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Integer(number) => any_value::Value::IntValue(*number),
        Value::Boolean(yes) => any_value::Value::BoolValue(*yes),
    };
    attributes.iter().map(|(key, of)| pair(key, value(of))).collect()
}

fn span(span: &Span) -> OtlpSpan {
    let kind = match span.kind.as_str() {
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "consumer" => SpanKind::Consumer,
        "producer" => SpanKind::Producer,
        _ => SpanKind::Internal,
    };
    let links = span.link.iter().map(|(trace, id)| Link {
        trace_id: trace.to_vec(),
        span_id: id.to_vec(),
        flags: SAMPLED,
        ..Link::default()
    });
    OtlpSpan {
        trace_id: span.trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: pairs(&span.attributes),
        links: links.collect(),
        status: span
            .failed
            .then(|| Status { code: status::StatusCode::Error.into(), message: String::new() }),
        ..OtlpSpan::default()
    }
}

/// Spans.
pub(super) fn traces(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let scope_spans =
        ScopeSpans { scope: scope(), spans: spans.iter().map(span).collect(), ..ScopeSpans::default() };
    let resource = resource.message();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource,
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

fn record(log: &Log) -> LogRecord {
    let (number, name) = match log.level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    };
    let mut attributes = pairs(&log.attributes);
    attributes.push(text("code.namespace", log.target.to_owned()));
    LogRecord {
        time_unix_nano: log.at_ns,
        observed_time_unix_nano: log.at_ns,
        severity_number: number.into(),
        severity_text: name.to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(log.body.clone())) }),
        attributes,
        flags: SAMPLED,
        trace_id: log.place.map(|(trace, _)| trace.to_vec()).unwrap_or_default(),
        span_id: log.place.map(|(_, id)| id.to_vec()).unwrap_or_default(),
        ..LogRecord::default()
    }
}

/// Log lines.
pub(super) fn logs(resource: &Resource, logs: &[Log]) -> ExportLogsServiceRequest {
    let log_records = logs.iter().map(record).collect();
    let scope_logs = ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() };
    let resource = resource.message();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource,
            scope_logs: vec![scope_logs],
            ..ResourceLogs::default()
        }],
    }
}

/// Counts since `start_ns`, when the process began to count.
pub(super) fn metrics(
    resource: &Resource,
    samples: &[Sample],
    start_ns: u64,
    now_ns: u64,
) -> ExportMetricsServiceRequest {
    let metric = |sample: &Sample| {
        let points: Vec<NumberDataPoint> = sample
            .values
            .iter()
            .map(|(label, value)| NumberDataPoint {
                attributes: label.iter().map(|(key, value)| text(key, value.clone())).collect(),
                start_time_unix_nano: start_ns,
                time_unix_nano: now_ns,
                value: Some(number_data_point::Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX))),
                ..NumberDataPoint::default()
            })
            .collect();
        let data = match sample.sort {
            Sort::Counter => metric::Data::Sum(Sum {
                data_points: points,
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            Sort::Gauge => metric::Data::Gauge(Gauge { data_points: points }),
        };
        Metric {
            // `_total` is Prometheus' way to say what `is_monotonic` says.
            name: format!("writ.{}", sample.name.trim_end_matches("_total")),
            description: sample.help.to_owned(),
            unit: "1".to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    };
    let scope_metrics = ScopeMetrics {
        scope: scope(),
        metrics: samples.iter().map(metric).collect(),
        ..ScopeMetrics::default()
    };
    let resource = resource.message();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource,
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }],
    }
}
