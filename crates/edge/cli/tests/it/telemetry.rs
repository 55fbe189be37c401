//! What an OpenTelemetry collector hears of a real server, and what a server does whose collector hears nothing.

use crate::process::{Server, writ};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::{Condvar, Mutex};
use prost::Message as _;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// A value that is an argument, and so must stand in nothing that is exported.
const CANARY: &str = "canary-argument-4711";

/// What a collector has heard.
#[derive(Default)]
struct Heard {
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    metrics: Vec<Metric>,
    bytes: Vec<u8>,
}

/// How a collector answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    Refuses,
    Hangs,
}

/// A stand-in for a collector: it decodes what it is sent.
struct Collector {
    url: String,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

impl Collector {
    fn start(manner: Manner) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new((Mutex::default(), Condvar::new()));
        let ears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let ears = ears.clone();
                std::thread::spawn(move || serve(&stream, manner, &ears));
            }
        });
        Collector { url, heard }
    }

    /// Waits until what was heard is enough, and looks at it.
    fn until<T>(&self, enough: impl Fn(&Heard) -> Option<T>) -> T {
        let (heard, news) = &*self.heard;
        let mut heard = heard.lock();
        loop {
            if let Some(found) = enough(&heard) {
                return found;
            }
            news.wait(&mut heard);
        }
    }
}

fn serve(mut stream: &TcpStream, manner: Manner, ears: &(Mutex<Heard>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-type: ") {
                assert_eq!(value, "application/x-protobuf");
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (heard, news) = ears;
        if manner == Manner::Takes {
            heard.lock().take(&path, &body);
        }
        news.notify_all();
        let status = match manner {
            Manner::Hangs => continue,
            Manner::Takes => "200 OK",
            Manner::Refuses => "400 Bad Request",
        };
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

impl Heard {
    fn take(&mut self, path: &str, body: &[u8]) {
        self.bytes.extend_from_slice(body);
        match path {
            "/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(body).expect("traces");
                for resource in request.resource_spans {
                    let named = resource.resource.expect("a resource").attributes;
                    assert!(named.iter().any(|pair| pair.key == "service.name"));
                    self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(body).expect("logs");
                let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
                self.logs.extend(scopes.flat_map(|scope| scope.log_records));
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body).expect("metrics");
                let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
                self.metrics.extend(scopes.flat_map(|scope| scope.metrics));
            }
            other => panic!("nobody sends to {other}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    kernel::hex::encode(bytes)
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A request as the administrator, in the first tenant.
fn ask(server: &Server, folder: &Path, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let key = std::fs::read_to_string(folder.join("admin.key")).unwrap();
    let host = server.url.strip_prefix("http://").unwrap();
    let tenant = if path == "/metrics" { "" } else { "writ-tenant: ten_main\r\n" };
    let body = body.map(Value::to_string).unwrap_or_default();
    let content = match body.len() {
        0 => String::new(),
        length => format!("content-type: application/json\r\ncontent-length: {length}\r\n"),
    };
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {}\r\n{tenant}\
         traceparent: 00-{TRACE}-{PARENT}-01\r\nx-request-id: mine-1\r\n{content}\r\n{body}",
        key.trim()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn one_trace_id_stands_in_spans_log_lines_and_facts() {
    let collector = Collector::start(Manner::Takes);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(
        folder.path(),
        &[
            ("WRIT_TELEMETRY_OTLP", &collector.url),
            ("WRIT_TELEMETRY_METRICS_EVERY_MS", "100"),
            ("WRIT_LOG", "info,server::http=debug"),
        ],
    );
    let act = |path, body: Value| {
        let (status, answer) = ask(&server, folder.path(), "POST", path, Some(&body));
        assert_eq!(status, 200, "{path}: {answer}");
    };
    let yaml = include_str!("../../../../../contracts/workflows/three-steps.yaml");
    act("/v1/workflows", json!({"yaml": yaml}));
    act("/v1/runs", json!({"workflow": "three-steps", "event": {"amount": 3, "text": CANARY}}));

    // Spans: the request under its caller's, the act under it, decision and commit under that, and the job that it left.
    let spans = collector.until(|heard| {
        let job =
            heard.spans.iter().any(|span| span.name == "job flows.step" && hex(&span.trace_id) == TRACE);
        job.then(|| heard.spans.clone())
    });
    let find = |name: &str, parent: Option<&[u8]>| {
        let found = spans.iter().find(|span| {
            span.name == name
                && hex(&span.trace_id) == TRACE
                && parent.is_none_or(|parent| span.parent_span_id == parent)
        });
        found.unwrap_or_else(|| {
            panic!("{name}: {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>())
        })
    };
    let request = find("POST /v1/runs", None);
    assert_eq!((hex(&request.parent_span_id).as_str(), request.kind()), (PARENT, SpanKind::Server));
    assert_eq!(
        (text(request, "http.route"), text(request, "request_id")),
        (Some("/v1/runs"), Some("mine-1"))
    );
    let started = find("flows.run.start", Some(&request.span_id));
    assert_eq!(
        (text(started, "writ.outcome"), text(started, "writ.tenant")),
        (Some("done"), Some("ten_main"))
    );
    let decided = find("decide", Some(&started.span_id));
    assert_eq!(text(decided, "writ.effect"), Some("ALLOW"));
    find("commit", Some(&started.span_id));
    let job = find("job flows.step", Some(&request.span_id));
    assert_eq!((text(job, "writ.job.kind"), job.kind()), (Some("flows.step"), SpanKind::Consumer));
    assert!(spans.iter().all(|span| span.end_time_unix_nano >= span.start_time_unix_nano));

    // Log lines, in the very span.
    let line = collector.until(|heard| {
        heard.logs.iter().find(|log| log.span_id == request.span_id && hex(&log.trace_id) == TRACE).cloned()
    });
    assert_eq!(line.body.unwrap().value, Some(any_value::Value::StringValue("answered".into())));

    // Counts.
    let answered = collector.until(|heard| {
        let of = |metric: &Metric| match &metric.data {
            Some(metric::Data::Sum(sum)) if metric.name == "writ.requests" => {
                assert!(sum.is_monotonic);
                let points = sum.data_points.iter().filter_map(|point| match point.value {
                    Some(number_data_point::Value::AsInt(count)) => Some(count),
                    _ => None,
                });
                Some(points.sum::<i64>()).filter(|count| *count >= 2)
            }
            _ => None,
        };
        heard.metrics.iter().find_map(of)
    });
    assert!(answered >= 2);

    // And the fact.
    let mut events = writ(&["events", "--after", "0", "--tenant", "ten_main"]);
    events.env("WRIT_URL", &server.url).env("WRIT_KEY_FILE", folder.path().join("admin.key"));
    let mut child = events.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let fact =
        lines.into_iter().find(|line| line.contains("flows.run.created")).expect("the run's first fact");
    let (_kill, _wait) = (child.kill(), child.wait());
    assert!(fact.contains(&format!("{TRACE}-{}/mine-1", hex(&request.span_id))), "{fact}");

    // What was an argument, and the key, are nowhere.
    let key = std::fs::read_to_string(folder.path().join("admin.key")).unwrap();
    let secret = key.trim().split_once('.').unwrap().1.to_owned();
    drop(server);
    let said = String::from_utf8_lossy(&collector.heard.0.lock().bytes).into_owned();
    assert!(said.contains("flows.run.start") && !said.contains(CANARY) && !said.contains(&secret));
}

#[test]
fn acts_do_not_wait_for_a_collector_and_what_is_lost_is_counted() {
    for manner in [Manner::Hangs, Manner::Refuses] {
        let collector = Collector::start(manner);
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_with(folder.path(), &[("WRIT_TELEMETRY_OTLP", &collector.url)]);
        for n in 0..50 {
            let body = json!({"name": format!("person {n}"), "kind": "person", "roles": []});
            let (status, answer) = ask(&server, folder.path(), "POST", "/v1/principals", Some(&body));
            assert_eq!(status, 200, "{answer}");
        }
        if manner == Manner::Refuses {
            loop {
                let (status, metrics) = ask(&server, folder.path(), "GET", "/metrics", None);
                assert_eq!(status, 200, "nothing was lost after thousands of requests: {metrics}");
                let lost = metrics
                    .lines()
                    .find_map(|line| line.strip_prefix("writ_telemetry_lost_total{signal=\"spans\"} "));
                if lost.unwrap().parse::<u64>().unwrap() > 0 {
                    break;
                }
            }
        }
    }
}
