//! A sandbox on a clock that the test turns, and the two clients that know its secrets.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sandbox::{Config, Credentials, Incident, IncidentSeed, Sandbox};
use serde_json::Value;

use crate::client::{self, Answer};

/// 2026-11-21 03:41:12.123 UTC.
pub const START_MS: i64 = 1_795_232_472_123;
pub const TOKEN: &str = "Bearer instance-token";
pub const MODEL_KEY: &str = "Bearer model-key";
pub const CONTROL: &str = "Bearer control-token";
/// `integration:pass:word`
pub const BASIC: &str = "Basic aW50ZWdyYXRpb246cGFzczp3b3Jk";

pub struct Play {
    pub sandbox: Sandbox,
    clock: Arc<AtomicI64>,
}

pub fn config() -> (Config, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(START_MS));
    let credentials = Credentials {
        user_name: "integration".into(),
        password: "pass:word".into(),
        bearer_token: "instance-token".into(),
        model_key: "model-key".into(),
        webhook_secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
        control_token: "control-token".into(),
    };
    let time = clock.clone();
    (Config::new(Arc::new(move || time.load(Ordering::Relaxed)), credentials), clock)
}

impl Play {
    pub async fn start() -> Play {
        Play::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Play {
        let (mut config, clock) = config();
        adjust(&mut config);
        Play { sandbox: Sandbox::start(config).await.expect("a sandbox"), clock }
    }

    pub fn advance_s(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    pub fn seed(&self, short_description: &str) -> Incident {
        let seed = IncidentSeed { short_description: short_description.into(), ..IncidentSeed::default() };
        self.sandbox.incident_seed(&seed).expect("a seeded incident")
    }

    /// A request to the instance; `None` where the connection closed without a reply.
    pub async fn try_instance(&self, method: &str, target: &str, body: &str) -> Option<Answer> {
        let headers = [("authorization", TOKEN)];
        client::send(self.sandbox.base_url(), method, target, &headers, body.as_bytes()).await
    }

    pub async fn instance(&self, method: &str, target: &str, body: &str) -> Answer {
        self.try_instance(method, target, body).await.expect("a reply")
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.instance("GET", &format!("/api/now/table/{target}"), "").await
    }

    pub async fn patch(&self, incident: &Incident, body: Value) -> Answer {
        self.instance("PATCH", &path(incident), &body.to_string()).await
    }

    pub async fn control(&self, method: &str, target: &str, body: &str) -> Answer {
        let headers = [("authorization", CONTROL)];
        client::send(self.sandbox.base_url(), method, target, &headers, body.as_bytes())
            .await
            .expect("a reply")
    }

    /// A stored value of an incident.
    pub fn stored(&self, incident: &Incident, field: &str) -> String {
        self.sandbox.record("incident", &incident.sys_id).expect("the incident")[field].clone()
    }
}

pub fn path(incident: &Incident) -> String {
    format!("/api/now/table/incident/{}", incident.sys_id)
}
