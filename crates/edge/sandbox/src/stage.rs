//! Everything that a running sandbox holds, and the synchronous half of answering a request: authenticate,
//! see whether a fault strikes, apply, say what shall be sent. The other half, sockets and pauses, is in
//! [`crate::server`].

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::{
    Error, Incident, IncidentSeed, ModelWork, Requests, WebhookEvent,
    config::Config,
    effects::Service,
    exchange::{self, Call, Reply},
    faults::{Fault, FaultTable},
    model,
    servicenow::{
        self,
        oauth::{Entry, TOKEN_PATH, TokenCounts},
        schema::INCIDENT,
        world::{Refusal, World, Write, table_of},
    },
    slack::{self, SlackCallback, SlackClick, SlackWorld},
    webhook::{Signer, Webhook},
};

/// How a body that comes in pieces ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    Whole,
    /// The connection breaks.
    Cut,
    /// It does not, until the client goes away.
    Stall,
}

/// What is sent, or not.
pub(crate) enum Sending {
    /// The reply.
    Reply(Reply),
    /// The head of the reply, then these pieces of a body, then the end.
    Pieces(Reply, Vec<Bytes>, Ending),
    /// The reply, in pieces of this many bytes.
    Drip(Reply, usize),
    /// A JSON string of this many bytes.
    Huge(u64),
    /// Nothing, until the client goes away.
    Hang,
    /// Nothing: the connection is closed.
    Drop,
}

pub(crate) struct Stage {
    pub config: Config,
    pub base_url: String,
    pub world: Mutex<World>,
    pub entry: Mutex<Entry>,
    pub slack: Mutex<SlackWorld>,
    pub faults: Mutex<FaultTable>,
    signer: Signer,
    servicenow: AtomicU64,
    model: AtomicU64,
    model_work: Mutex<ModelWork>,
    slack_calls: AtomicU64,
    unauthenticated: AtomicU64,
    faulted: AtomicU64,
}

impl Stage {
    pub fn new(config: Config, base_url: String) -> Result<Stage, Error> {
        let secrets = &config.credentials;
        let oauth = config.servicenow.oauth.as_ref();
        let empty = [
            &secrets.user_name,
            &secrets.password,
            &secrets.bearer_token,
            &secrets.model_key,
            &secrets.control_token,
        ]
        .into_iter()
        .any(|secret| secret.is_empty())
            || oauth.is_some_and(|oauth| oauth.client_id.is_empty() || oauth.client_secret.is_empty());
        let entry = Mutex::new(Entry::new(secrets.password.clone(), oauth));
        let signer = Signer::parse(&secrets.webhook_secret).filter(|_| !empty).ok_or(Error::Secret)?;
        let world = World::new(&config, (config.clock)())?;
        Ok(Stage {
            config,
            base_url,
            world: Mutex::new(world),
            entry,
            slack: Mutex::default(),
            faults: Mutex::new(FaultTable::default()),
            signer,
            servicenow: AtomicU64::new(0),
            model: AtomicU64::new(0),
            model_work: Mutex::new(ModelWork::default()),
            slack_calls: AtomicU64::new(0),
            unauthenticated: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
        })
    }

    pub fn now_ms(&self) -> i64 {
        (self.config.clock)()
    }

    pub fn requests(&self) -> Requests {
        Requests {
            servicenow: self.servicenow.load(Ordering::Relaxed),
            model: self.model.load(Ordering::Relaxed),
            unauthenticated: self.unauthenticated.load(Ordering::Relaxed),
            faulted: self.faulted.load(Ordering::Relaxed),
        }
    }

    /// What the token endpoint has answered.
    pub fn token_counts(&self) -> TokenCounts {
        self.entry.lock().counts()
    }

    /// What the models have answered, whether or not it arrived.
    pub fn model_work(&self) -> ModelWork {
        *self.model_work.lock()
    }

    /// Answers a request to one of the services.
    pub fn perform(&self, service: Service, call: &Call) -> Sending {
        let secrets = &self.config.credentials;
        if service == Service::Slack {
            let Some(config) = &self.config.slack else { return Sending::Reply(Reply::empty(404)) };
            if let Err(word) = slack::authenticated(call, config) {
                self.unauthenticated.fetch_add(1, Ordering::Relaxed);
                return Sending::Reply(slack::refused(word));
            }
        }
        let tokens = service == Service::ServiceNow && call.path == TOKEN_PATH;
        let (known, counter) = match service {
            // Whoever fetches a token says in the form who they are.
            Service::ServiceNow if tokens => (true, &self.servicenow),
            Service::ServiceNow => {
                let known = servicenow::authenticated(call, secrets, &self.entry.lock(), self.now_ms());
                (known, &self.servicenow)
            }
            Service::Model => (model::authenticated(call, &secrets.model_key), &self.model),
            // Looked at above: what it answers depends on what was wrong.
            Service::Slack => (true, &self.slack_calls),
        };
        if !known {
            self.unauthenticated.fetch_add(1, Ordering::Relaxed);
            return Sending::Reply(match service {
                Service::ServiceNow => servicenow::unauthenticated(),
                Service::Model => model::unauthenticated(call),
                Service::Slack => slack::refused("invalid_auth"),
            });
        }
        let nth = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let fault = self.faults.lock().strike(service, call);
        let apply = || match service {
            Service::ServiceNow if tokens => {
                self.entry.lock().issue(self.config.servicenow.oauth.as_ref(), call, self.now_ms())
            }
            Service::ServiceNow => self.servicenow(call, fault.as_ref()),
            Service::Model => self.model(call, nth, fault.as_ref()),
            Service::Slack => match &self.config.slack {
                Some(config) => slack::handle(&mut self.slack.lock(), config, call, self.now_ms()),
                None => Reply::empty(404),
            },
        };
        let Some(fault) = &fault else { return sent(apply()) };
        self.faulted.fetch_add(1, Ordering::Relaxed);
        let server_error =
            |status| Sending::Reply(self.error(service, call, status, "The server had an error"));
        match fault {
            Fault::RateLimited { retry_after_s } => {
                Sending::Reply(self.rate_limited(service, call, *retry_after_s))
            }
            Fault::ServerError { status } => server_error(*status),
            Fault::ServerErrorAfterEffect { status } => {
                apply();
                server_error(*status)
            }
            Fault::DropBeforeEffect => Sending::Drop,
            Fault::DropAfterEffect => {
                apply();
                Sending::Drop
            }
            Fault::Hang => Sending::Hang,
            Fault::HangAfterEffect => {
                apply();
                Sending::Hang
            }
            // These bend what `apply` does.
            Fault::DroppedFields { .. }
            | Fault::WrongModel
            | Fault::SchemaViolation
            | Fault::UnknownGroup
            | Fault::ContentFiltered => sent(apply()),
            Fault::ExpiredToken => Sending::Reply(match service {
                Service::ServiceNow => servicenow::unauthenticated(),
                Service::Model => model::expired(call),
                Service::Slack => slack::refused("token_expired"),
            }),
            Fault::Overloaded => Sending::Reply(model::overloaded(call)),
            Fault::ContextExceeded => Sending::Reply(model::context_exceeded(call)),
            Fault::CutReply { bytes } => {
                let reply = apply();
                let kept = reply.body.slice(..reply.body.len().min(*bytes));
                Sending::Pieces(reply, vec![kept], Ending::Cut)
            }
            Fault::ShortStream { events } => cut(apply(), *events, None, Ending::Whole),
            Fault::StreamError { events } => {
                cut(apply(), *events, Some(model::error_event(call)), Ending::Whole)
            }
            Fault::StreamStall { events } => cut(apply(), *events, None, Ending::Stall),
            Fault::MalformedJson => Sending::Reply(malformed(apply())),
            Fault::HugeBody { bytes } => {
                apply();
                Sending::Huge(*bytes)
            }
            Fault::Redirect { location } => {
                Sending::Reply(Reply::empty(307).header("location", location.clone()))
            }
            Fault::SlowDrip { chunk_bytes } => Sending::Drip(apply(), *chunk_bytes),
        }
    }

    fn servicenow(&self, call: &Call, fault: Option<&Fault>) -> Reply {
        let dropped = match fault {
            Some(Fault::DroppedFields { fields }) => fields.as_slice(),
            _ => &[],
        };
        let context = servicenow::Context {
            config: &self.config.servicenow,
            credentials: &self.config.credentials,
            base_url: &self.base_url,
            at_ms: self.now_ms(),
            dropped,
        };
        servicenow::handle(&mut self.world.lock(), &context, call)
    }

    fn model(&self, call: &Call, nth: u64, fault: Option<&Fault>) -> Reply {
        let (reply, work) = model::handle(&self.config.model, call, self.now_ms(), nth, fault);
        if let Some(work) = work {
            let mut all = self.model_work.lock();
            all.answers += 1;
            all.input_tokens += work.input_tokens;
            all.output_tokens += work.output_tokens;
        }
        reply
    }

    fn error(&self, service: Service, call: &Call, status: u16, message: &str) -> Reply {
        match service {
            Service::ServiceNow => exchange::error(status, message, "injected by the stand-in"),
            Service::Model => model::error(call, status, message),
            Service::Slack => slack::failed(status),
        }
    }

    fn rate_limited(&self, service: Service, call: &Call, retry_after_s: u32) -> Reply {
        let reply = self
            .error(service, call, 429, "Rate limit exceeded")
            .header("retry-after", retry_after_s.to_string());
        match service {
            Service::ServiceNow => {
                let reset_s = self.now_ms().div_euclid(1_000) + i64::from(retry_after_s);
                reply.header("x-ratelimit-limit", "100").header("x-ratelimit-reset", reset_s.to_string())
            }
            Service::Slack => reply,
            Service::Model if model::wire_of(call) == model::Wire::Anthropic => {
                reply.header("anthropic-ratelimit-requests-remaining", "0")
            }
            Service::Model => reply.header("retry-after-ms", (u64::from(retry_after_s) * 1_000).to_string()),
        }
    }

    /// The signed callback of a click. Nothing is sent.
    pub fn slack_click(&self, click: &SlackClick) -> Result<SlackCallback, Error> {
        let config = self.config.slack.as_ref().ok_or(Error::NoSuchRecord)?;
        self.slack.lock().click(config, click, self.now_ms())
    }

    /// Puts an incident on the instance, as a person would. Not an effect.
    pub fn incident_seed(&self, seed: &IncidentSeed) -> Result<Incident, Error> {
        let mut input = seed.fields.clone();
        input.insert("short_description".into(), json!(seed.short_description));
        input.insert("description".into(), json!(seed.description));
        if let Some(caller) = &seed.caller {
            input.insert("caller_id".into(), json!(caller));
        }
        let by = seed.by.as_deref().unwrap_or("service.desk");
        let table = table_of(INCIDENT)?;
        let mut world = self.world.lock();
        let sys_id = world.record_create(table, &person(by, self.now_ms(), &input))?;
        let row = world.rows(table).get(&sys_id);
        let number = row.and_then(|row| row.get("number")).cloned().unwrap_or_default();
        Ok(Incident { sys_id, number })
    }

    /// Edits an incident as somebody else than the integration user. Not an effect.
    pub fn incident_edit(&self, sys_id: &str, by: &str, fields: &Map<String, Value>) -> Result<(), Error> {
        let write = person(by, self.now_ms(), fields);
        Ok(self.world.lock().record_update(table_of(INCIDENT)?, sys_id, &write)?)
    }

    /// The webhook of an incident as it is now. Each call is another delivery with its own id.
    pub fn incident_webhook(&self, sys_id: &str, event: WebhookEvent) -> Result<Webhook, Error> {
        let mut world = self.world.lock();
        let row = world.rows(table_of(INCIDENT)?).get(sys_id).ok_or(Error::NoSuchRecord)?;
        let body = json!({
            "event": event.name(),
            "instance": self.config.servicenow.instance,
            "sys_id": sys_id,
            "number": row["number"],
            "sys_mod_count": row["sys_mod_count"],
            "sys_updated_on": row["sys_updated_on"],
            "sys_updated_by": row["sys_updated_by"],
        });
        let id = format!("msg_{}", world.next_id("webhook"));
        Ok(self.signer.webhook(id, self.now_ms(), body.to_string()))
    }
}

/// A write by a person: names are resolved, rights are not asked.
fn person<'a>(by: &'a str, at_ms: i64, input: &'a Map<String, Value>) -> Write<'a> {
    Write { by, at_ms, input, display_input: true, dropped: &[], from_client: false }
}

/// The reply; a stream goes out event by event.
fn sent(reply: Reply) -> Sending {
    match exchange::events_of(&reply) {
        Some(events) => Sending::Pieces(reply, events, Ending::Whole),
        None => Sending::Reply(reply),
    }
}

/// A stream's first events and what follows them instead of the rest. What is no stream is sent as it is.
fn cut(reply: Reply, events: usize, then: Option<String>, ending: Ending) -> Sending {
    match exchange::events_of(&reply) {
        Some(mut all) => {
            all.truncate(events);
            all.extend(then.map(Bytes::from));
            Sending::Pieces(reply, all, ending)
        }
        None => Sending::Reply(reply),
    }
}

/// The reply with its body cut in the middle.
fn malformed(mut reply: Reply) -> Reply {
    reply.body = match reply.body.len() {
        0 => Bytes::from_static(b"{\"result\":"),
        length => reply.body.slice(..length.div_ceil(2)),
    };
    if reply.status == 204 {
        reply.status = 200;
    }
    reply
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NotFound => Error::NoSuchRecord,
            Refusal::Full(bound) => Error::Full(bound),
            Refusal::InvalidTable(text) | Refusal::Unreadable(text) | Refusal::Forbidden(text) => {
                Error::Refused(text)
            }
        }
    }
}
