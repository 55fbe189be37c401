//! Telemetry: traces, logs and counts for an OpenTelemetry collector, as OTLP over HTTP (protobuf).
//!
//! An operator sees in their own tools why a triage took forty seconds: the delivery, the act it became, what policy said,
//! the commit, each step of the run, each call outside, on one line of time, with the log lines of each. The trace's id
//! stands in the facts as well ([`act::trace`]), so what is measured and what is proven are found from one another.
//!
//! ```text
//! tracing::span!, event! ─▶ Tap ─ bounded queue ─▶ Exporter ─ egress ─▶ collector   /v1/traces, /v1/logs
//!                           (never waits)          Counts ─┘                        /v1/metrics
//! ```
//!
//! What holds whatever the collector does:
//!
//! * **Nothing waits for it.** A piece that finds the queue full is lost and counted (`writ_telemetry_lost_total`). A
//!   collector that hangs holds one connection of the way out, and no act.
//! * **It is off** unless `[telemetry] otlp` names a collector.
//! * **It says nothing of content.** A span carries names of acts, kinds of jobs, routes, codes, hosts, statuses: no
//!   argument, no path with its parameters, no query, no header. What a log line says goes out as it goes to standard error.
//!   Those who add a span: a field is an attribute, so think what it may hold. Names are OpenTelemetry's where it has one,
//!   else `writ.…`; `http.route` stands in place of `url.path` and `url.full`, which would be arguments.
//! * **It does not hear itself**: what happens under a span of the target [`MUTED`] is not exported.
//!
//! It is made of `tracing`, which the house speaks anyway, and of OpenTelemetry's own protobuf types; why not of its SDK
//! stands in `docs/decisions/0017-wire-contract.md`.

mod exporter;
mod otlp;
mod tap;

pub(crate) use exporter::rule;
pub use exporter::{Exporter, METRICS_EVERY_DEFAULT_MS};
pub use otlp::Resource;
pub use tap::{Outlet, QUEUE_MAX, Tap, pair};

/// Target of spans under which nothing is exported.
pub const MUTED: &str = "writ::telemetry";
