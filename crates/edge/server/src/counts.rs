//! What this process has done so far, in numbers: for `/metrics` and for nothing else.
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

    /// Everything, as text.
    pub fn render(&self) -> String {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let numbers = &*self.0;
        let mut out = String::new();
        let mut rows = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP writ_{name} {help}\n# TYPE writ_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(out, "writ_{name}{labels} {value}");
            }
        };
        let answered: Vec<(String, u64)> = (1..=5)
            .zip(&numbers.answered)
            .map(|(class, count)| (format!("{{status=\"{class}xx\"}}"), read(count)))
            .collect();
        rows("requests_total", "counter", "Requests answered, by class of status.", &answered);
        for (name, kind, help, count) in [
            ("connections", "gauge", "Connections open now.", &numbers.connections),
            ("jobs_started_total", "counter", "Jobs started.", &numbers.jobs_started),
            ("jobs_panicked_total", "counter", "Jobs that panicked.", &numbers.jobs_panicked),
            (
                "jobs_poisoned_total",
                "counter",
                "Jobs started more often than their kind allows.",
                &numbers.jobs_poisoned,
            ),
            (
                "leases_dropped_total",
                "counter",
                "Leases given up before anybody ran them.",
                &numbers.leases_dropped,
            ),
            ("checkpoints_total", "counter", "Checkpoints signed.", &numbers.checkpoints),
            (
                "logs_given_up_total",
                "counter",
                "Logs that are not signed any more; look at once.",
                &numbers.logs_given_up,
            ),
            ("policies_total", "counter", "Times the built-in policy was signed anew.", &numbers.policies),
        ] {
            rows(name, kind, help, &[(String::new(), read(count))]);
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
        let text = counts.render();
        for line in [
            "writ_requests_total{status=\"2xx\"} 1",
            "writ_requests_total{status=\"4xx\"} 2",
            "writ_connections 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
