//! Stand-ins for outside systems, on loopback, with faults on demand and counted effects.
//!
//! A governed write into somebody else's system has an ugly moment: the request was sent, the connection
//! broke, and nobody knows whether it took effect. Sent again it may happen twice, left alone it may not have
//! happened at all. Whether a client handles that moment cannot be shown against the real system, which will
//! not break on cue, nor against a mock that answers whatever the test expects. It takes a stand-in that
//! keeps state, has the real system's traps, breaks where a script says, and counts what took effect.
//!
//! ```text
//! sandbox.fault_add(FaultRule::new(ServiceNow, DropAfterEffect).method("PATCH").once())
//!   client: PATCH …/incident/7c3…  {"work_notes": "Routed. [ref:af-7f3a91]"}   -> connection closed
//!   client: asks for the note by its marker, finds it, does not send again
//! sandbox.effects_duplicated() == 0
//! ```
//!
//! There are three: a ServiceNow Table API (the header of `servicenow` lists its traps), a hosted model in three
//! vendors' shapes (`model`) and, where it is configured, Slack's Web API (`slack`). All live in one HTTP server on
//! 127.0.0.1, under their usual paths (Slack's behind `/slack`), and every reply carries `x-stand-in: sandbox`.
//! Another process directs the play through `/_sandbox/` (`control`).
//!
//! Rules for those who add to it:
//!
//! - It depends on no crate of this workspace, so that a mistake in a shared type cannot cancel itself out.
//! - What the real system does decides, not what is convenient for a test. Where that is not known, the header
//!   of the module says what was assumed.
//! - It is deterministic: time comes from the configured clock, ids from counters, and nothing is random.
//! - An effect is journalled in the same critical section in which it happens.
//! - Everything has a bound, named beside it; beyond it the stand-in answers 507 and changes nothing.
//!
//! It sends nothing by itself (webhooks are handed out as parts), speaks no TLS, listens on loopback only,
//! and is not for production, for load figures, or for learning what the real systems cost.

mod config;
mod control;
mod effects;
mod exchange;
mod faults;
mod model;
mod server;
mod servicenow;
mod slack;
mod stage;
mod stamp;
mod webhook;

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub use crate::{
    config::{Clock, Config, Credentials, FIRST_NUMBER, ModelConfig, Person, ServiceNowConfig},
    effects::{Counts, Duplicates, EFFECT_VALUE_CHARS, Effect, EffectKind, MAX_EFFECTS, Service},
    faults::{Fault, FaultCount, FaultError, FaultRule, MAX_FAULT_RULES, MAX_HUGE_BODY_BYTES},
    model::{Answerer, ModelAnswer, UNKNOWN_GROUP, keyword_answer},
    server::{MAX_CONNECTIONS, MAX_REQUEST_BYTES},
    servicenow::oauth::{MAX_TOKENS, OauthConfig, TOKEN_PATH, TokenCounts},
    servicenow::world::{MAX_JOURNAL_ENTRIES, MAX_RECORDS, MAX_STATE_BYTES},
    slack::{API_PATH as SLACK_API_PATH, SlackCallback, SlackClick, SlackConfig, SlackCounts, SlackMessage},
    webhook::{Webhook, WebhookEvent},
};
use crate::{servicenow::world::table_of, stage::Stage};

/// Why a sandbox could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port could not be bound.
    #[error("cannot listen on 127.0.0.1")]
    Bind(#[source] std::io::Error),
    /// A credential is empty, or the webhook secret is not `whsec_` and base64 of 24 to 64 bytes.
    #[error("a credential is empty or the webhook secret is malformed")]
    Secret,
    /// There is no such record.
    #[error("no such record")]
    NoSuchRecord,
    /// A rule of the stand-in forbids it.
    #[error("refused: {0}")]
    Refused(String),
    /// A bound of the stand-in is reached.
    #[error("the stand-in's bound on {0} is reached")]
    Full(&'static str),
}

/// An incident to put on the instance before the play begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentSeed {
    /// One line; cut to 160 characters, as the instance does.
    pub short_description: String,
    /// The text; cut to 4,000 characters.
    #[serde(default)]
    pub description: String,
    /// The display name or `sys_id` of the person who called, if any.
    #[serde(default)]
    pub caller: Option<String>,
    /// `user_name` of who typed it in; `service.desk` where absent. Not the integration user, or a receiver
    /// that guards against its own echo ignores the webhook.
    #[serde(default)]
    pub by: Option<String>,
    /// Further fields: `impact`, `urgency`, `category`, `correlation_id`, … Names and labels are resolved.
    #[serde(default)]
    pub fields: Map<String, Value>,
}

/// An incident that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// 32 digits.
    pub sys_id: String,
    /// `INC` and seven digits.
    pub number: String,
}

/// An entry of a journal field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// `work_notes` or `comments`.
    pub element: String,
    /// The text.
    pub value: String,
    /// `user_name` of who wrote it.
    pub by: String,
    /// `YYYY-MM-DD HH:MM:SS`, UTC.
    pub at: String,
}

/// How many requests arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Authenticated requests to the ServiceNow stand-in.
    pub servicenow: u64,
    /// Authenticated requests to the model stand-in.
    pub model: u64,
    /// Requests refused with 401 by either.
    pub unauthenticated: u64,
    /// Requests that a fault struck.
    pub faulted: u64,
}

/// What the model stand-ins have answered, whether or not it arrived. It is what a provider would bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelWork {
    /// Answers made.
    pub answers: u64,
    /// Tokens of their prompts, counted as words.
    pub input_tokens: u64,
    /// Tokens of the answers, counted as words.
    pub output_tokens: u64,
}

/// A running sandbox. Dropping it stops it at once; [`shutdown`](Sandbox::shutdown) lets replies finish.
pub struct Sandbox {
    stage: Arc<Stage>,
    stop: watch::Sender<bool>,
    server: JoinSet<()>,
}

impl Sandbox {
    /// Listens on 127.0.0.1 and serves.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Secret`], and [`Error::Full`] or [`Error::Refused`] where the configured
    /// groups and people do not fit or repeat a name.
    pub async fn start(config: Config) -> Result<Sandbox, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port)).await.map_err(Error::Bind)?;
        let address = listener.local_addr().map_err(Error::Bind)?;
        let stage = Arc::new(Stage::new(config, format!("http://{address}"))?);
        let (stop, stopped) = watch::channel(false);
        let mut server = JoinSet::new();
        server.spawn(server::serve(listener, stage.clone(), stopped));
        Ok(Sandbox { stage, stop, server })
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end. The ServiceNow instance and the control interface
    /// are at this URL, as are Azure's endpoint and Anthropic's base URL; OpenAI's base URL is this and `/v1`.
    pub fn base_url(&self) -> &str {
        &self.stage.base_url
    }

    /// Stops: no new connection, replies on their way finish, what hangs is closed.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.server.join_next().await.is_some() {}
    }

    /// Adds a fault rule behind those there are.
    ///
    /// # Errors
    /// Where the rule could never strike, breaks a bound, or there are [`MAX_FAULT_RULES`] already.
    pub fn fault_add(&self, rule: FaultRule) -> Result<(), FaultError> {
        self.stage.faults.lock().add(vec![rule])
    }

    /// Removes all fault rules.
    pub fn faults_clear(&self) {
        self.stage.faults.lock().clear();
    }

    /// The fault rules in order, each with what it saw and struck.
    pub fn fault_counts(&self) -> Vec<FaultCount> {
        self.stage.faults.lock().counts()
    }

    /// Puts an incident on the instance, as a person would. Not an effect.
    ///
    /// # Errors
    /// [`Error::Full`], and [`Error::Refused`] where a rule of the instance forbids it.
    pub fn incident_seed(&self, seed: &IncidentSeed) -> Result<Incident, Error> {
        self.stage.incident_seed(seed)
    }

    /// Edits an incident as somebody else than the integration user: the human who is faster than the
    /// approval. Rules run, rights are not asked, and it is not an effect.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`], [`Error::Full`], and [`Error::Refused`] where a rule forbids it.
    pub fn incident_edit(&self, sys_id: &str, by: &str, fields: &Map<String, Value>) -> Result<(), Error> {
        self.stage.incident_edit(sys_id, by, fields)
    }

    /// The signed webhook that tells of an incident as it is now, for the caller to send. Each call is another
    /// delivery with its own id; for a duplicate, send the same parts twice.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`].
    pub fn incident_webhook(&self, sys_id: &str, event: WebhookEvent) -> Result<Webhook, Error> {
        self.stage.incident_webhook(sys_id, event)
    }

    /// Slack's messages in the order in which they were posted, as they stand now.
    pub fn slack_messages(&self) -> Vec<SlackMessage> {
        self.stage.slack.lock().messages()
    }

    /// How many calls of Slack's Web API took effect.
    pub fn slack_counts(&self) -> SlackCounts {
        self.stage.slack.lock().counts()
    }

    /// The signed callback of a click, for the caller to send; the same parts twice are a replay.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] where there is no such button, or no Slack.
    pub fn slack_click(&self, click: &SlackClick) -> Result<SlackCallback, Error> {
        self.stage.slack_click(click)
    }

    /// Adds an assignment group and returns its `sys_id`, which is a function of the name.
    ///
    /// # Errors
    /// [`Error::Full`], and [`Error::Refused`] where it exists.
    pub fn group_add(&self, name: &str) -> Result<String, Error> {
        Ok(self.stage.world.lock().group_add(name, self.stage.now_ms())?)
    }

    /// A record's stored values, or `None` where there is no such record or table.
    pub fn record(&self, table: &str, sys_id: &str) -> Option<BTreeMap<String, String>> {
        let world = self.stage.world.lock();
        let row = world.rows(table_of(table).ok()?).get(sys_id)?;
        Some(row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    /// The `sys_id`s of a table in order of insertion.
    pub fn record_ids(&self, table: &str) -> Vec<String> {
        let Ok(table) = table_of(table) else { return Vec::new() };
        self.stage.world.lock().rows(table).all().filter_map(|row| row.get("sys_id").cloned()).collect()
    }

    /// The journal entries on a record, oldest first.
    pub fn notes(&self, sys_id: &str) -> Vec<Note> {
        let world = self.stage.world.lock();
        world
            .journal_entries(sys_id)
            .map(|row| Note {
                element: row["element"].clone(),
                value: row["value"].clone(),
                by: row["sys_created_by"].clone(),
                at: row["sys_created_on"].clone(),
            })
            .collect()
    }

    /// Every applied mutation that a client caused, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.stage.world.lock().effects.all().to_vec()
    }

    /// How many mutations were applied, by kind.
    pub fn counts(&self) -> Counts {
        self.stage.world.lock().effects.counts()
    }

    /// How many mutations were applied again, by kind.
    pub fn duplicates(&self) -> Duplicates {
        self.stage.world.lock().effects.duplicates()
    }

    /// How many mutations were applied again. Zero means that nothing was executed twice.
    pub fn effects_duplicated(&self) -> u64 {
        self.duplicates().total()
    }

    /// What the model stand-ins have answered, whether or not it arrived.
    pub fn model_work(&self) -> ModelWork {
        self.stage.model_work()
    }

    /// Changes the integration user's password. With `keep_previous` the one before goes on being accepted.
    pub fn password_set(&self, password: &str, keep_previous: bool) {
        self.stage.entry.lock().password_set(password, keep_previous);
    }

    /// Changes the OAuth client's secret. Tokens that were issued stay good.
    pub fn client_secret_set(&self, secret: &str) {
        self.stage.entry.lock().client_secret_set(secret);
    }

    /// Revokes every OAuth token, whenever it would have expired.
    pub fn tokens_revoke(&self) {
        self.stage.entry.lock().tokens_revoke();
    }

    /// What the token endpoint has answered.
    pub fn token_counts(&self) -> TokenCounts {
        self.stage.token_counts()
    }

    /// How many requests arrived.
    pub fn requests(&self) -> Requests {
        self.stage.requests()
    }
}
