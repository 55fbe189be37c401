//! What this process has done so far, in numbers: for `/metrics`, and for a collector if there is one
//! ([`crate::telemetry`]).
//!
//! Counts are of this process and start at zero with it. No count carries a tenant, a principal or a path: who may read
//! them may read nothing else by them. The text follows the Prometheus exposition format 0.0.4.

use axum::http::StatusCode;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    answered: [AtomicU64; 5],
    connections: AtomicU64,
    jobs_started: AtomicU64,
    jobs_panicked: AtomicU64,
    jobs_poisoned: AtomicU64,
    leases_dropped: AtomicU64,
    checkpoints: AtomicU64,
    logs_given_up: AtomicU64,
    policies: AtomicU64,
    telemetry_lost: [AtomicU64; SIGNALS.len()],
}

/// What telemetry is made of.
const SIGNALS: [&str; 3] = ["spans", "logs", "metrics"];

/// What sort of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// One that only grows while the process lives.
    Counter,
    /// One that is so now.
    Gauge,
}

/// A number with its name.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its name, without the product's.
    pub name: &'static str,
    /// What sort it is.
    pub sort: Sort,
    /// One line for people.
    pub help: &'static str,
    /// By label, if it has one.
    pub values: Vec<(Option<(&'static str, String)>, u64)>,
}

/// Counts a connection as open for as long as it lives.
pub struct Open(Counts);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    /// A request was answered.
    pub fn answered(&self, status: StatusCode) {
        // Statuses are 100 to 999; the server sends none above 599.
        if let Some(count) = self.0.answered.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection is open until the result is dropped.
    pub fn connection(&self) -> Open {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// A job was started.
    pub fn job_started(&self) {
        self.0.jobs_started.fetch_add(1, Ordering::Relaxed);
    }

    /// A job panicked.
    pub fn job_panicked(&self) {
        self.0.jobs_panicked.fetch_add(1, Ordering::Relaxed);
    }

    /// A job was started more often than its kind allows.
    pub fn job_poisoned(&self) {
        self.0.jobs_poisoned.fetch_add(1, Ordering::Relaxed);
    }

    /// A lease was given up before anybody ran it.
    pub fn lease_dropped(&self) {
        self.0.leases_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Checkpoints were signed.
    pub fn checkpoints(&self, count: u64) {
        self.0.checkpoints.fetch_add(count, Ordering::Relaxed);
    }

    /// A log went back or was rewritten and is not signed any more.
    pub fn log_given_up(&self) {
        self.0.logs_given_up.fetch_add(1, Ordering::Relaxed);
    }

    /// The built-in policy was signed anew.
    pub fn policy_renewed(&self) {
        self.0.policies.fetch_add(1, Ordering::Relaxed);
    }

    /// Telemetry was lost: pieces of a signal that found no place, or that nobody took.
    pub fn telemetry_lost(&self, signal: &str, count: u64) {
        if let Some(at) = SIGNALS.iter().position(|known| *known == signal) {
            self.0.telemetry_lost[at].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Everything.
    pub fn samples(&self) -> Vec<Sample> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let numbers = &*self.0;
        let one = |name, sort, help, count: &AtomicU64| Sample {
            name,
            sort,
            help,
            values: vec![(None, read(count))],
        };
        let answered = (1..=5).zip(&numbers.answered);
        let lost = SIGNALS.iter().zip(&numbers.telemetry_lost);
        vec![
            Sample {
                name: "requests_total",
                sort: Sort::Counter,
                help: "Requests answered, by class of status.",
                values: answered
                    .map(|(class, count)| (Some(("status", format!("{class}xx"))), read(count)))
                    .collect(),
            },
            one("connections", Sort::Gauge, "Connections open now.", &numbers.connections),
            one("jobs_started_total", Sort::Counter, "Jobs started.", &numbers.jobs_started),
            one("jobs_panicked_total", Sort::Counter, "Jobs that panicked.", &numbers.jobs_panicked),
            one(
                "jobs_poisoned_total",
                Sort::Counter,
                "Jobs started more often than their kind allows.",
                &numbers.jobs_poisoned,
            ),
            one(
                "leases_dropped_total",
                Sort::Counter,
                "Leases given up before anybody ran them.",
                &numbers.leases_dropped,
            ),
            one("checkpoints_total", Sort::Counter, "Checkpoints signed.", &numbers.checkpoints),
            one(
                "logs_given_up_total",
                Sort::Counter,
                "Logs that are not signed any more; look at once.",
                &numbers.logs_given_up,
            ),
            one(
                "policies_total",
                Sort::Counter,
                "Times the built-in policy was signed anew.",
                &numbers.policies,
            ),
            Sample {
                name: "telemetry_lost_total",
                sort: Sort::Counter,
                help: "Pieces of telemetry that were lost on their way to the collector.",
                values: lost
                    .map(|(signal, count)| (Some(("signal", (*signal).to_owned())), read(count)))
                    .collect(),
            },
        ]
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for Sample { name, sort, help, values } in self.samples() {
            let sort = match sort {
                Sort::Counter => "counter",
                Sort::Gauge => "gauge",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP writ_{name} {help}\n# TYPE writ_{name} {sort}");
            for (label, value) in values {
                let label = label.map(|(name, value)| format!("{{{name}=\"{value}\"}}")).unwrap_or_default();
                let _ = writeln!(out, "writ_{name}{label} {value}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class_and_forgets_closed_connections() {
        let counts = Counts::default();
        counts.answered(StatusCode::OK);
        counts.answered(StatusCode::NOT_FOUND);
        counts.answered(StatusCode::CONFLICT);
        let open = counts.connection();
        assert!(counts.render().contains("writ_connections 1\n"));
        drop(open);
        counts.telemetry_lost("logs", 3);
        counts.telemetry_lost("nothing of ours", 4);
        let text = counts.render();
        for line in [
            "writ_requests_total{status=\"2xx\"} 1",
            "writ_requests_total{status=\"4xx\"} 2",
            "writ_connections 0",
            "writ_telemetry_lost_total{signal=\"logs\"} 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
