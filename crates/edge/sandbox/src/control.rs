//! `/_sandbox/`: the way in for whoever directs the play from another process. Guarded by the control token
//! (`Authorization: Bearer`), never struck by faults, and its writes are not effects.
//!
//! | method and path | does |
//! |---|---|
//! | `GET /_sandbox/faults` | the rules with what they saw and struck |
//! | `POST /_sandbox/faults` | adds one rule, or a list of them, all or none: 201 |
//! | `DELETE /_sandbox/faults` | clears them: 204 |
//! | `GET /_sandbox/effects` | counts, duplicates, requests, the models' work; with `list=true` also effects, 500 from `offset` |
//! | `POST /_sandbox/incidents` | seeds an incident: 201 with `sys_id` and `number` |
//! | `PATCH /_sandbox/incidents/{sys_id}` | edits it as a person: 204 |
//! | `POST /_sandbox/credentials` | another `password` (with `keep_previous` beside the old one) or `client_secret`: 204 |
//! | `DELETE /_sandbox/tokens` | revokes every OAuth token: 204 |
//! | `POST /_sandbox/webhooks` | the parts of a signed webhook, for the caller to send |
//! | `GET /_sandbox/slack` | Slack's messages and counts |
//! | `POST /_sandbox/slack/clicks` | the parts of a signed callback, for the caller to send |

use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Error, IncidentSeed, WebhookEvent,
    exchange::{Call, Reply},
    faults::FaultRule,
    slack::SlackClick,
    stage::Stage,
};

/// Most effects in one reply.
pub const EFFECTS_PAGE: usize = 500;

#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Many(Vec<FaultRule>),
    One(Box<FaultRule>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookAsk {
    sys_id: String,
    event: WebhookEvent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    by: String,
    fields: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCredentials {
    password: Option<String>,
    #[serde(default)]
    keep_previous: bool,
    client_secret: Option<String>,
}

/// Answers a request to `/_sandbox/`.
pub(crate) fn handle(stage: &Stage, call: &Call) -> Reply {
    if call.authorization("bearer") != Some(&stage.config.credentials.control_token) {
        return problem(401, "the control token is required");
    }
    let path = call.path.trim_end_matches('/');
    let result = match (&call.method, path.strip_prefix("/_sandbox").unwrap_or_default()) {
        (&Method::GET, "/faults") => Ok(Reply::json(200, &json!(stage.faults.lock().counts()))),
        (&Method::DELETE, "/faults") => {
            stage.faults.lock().clear();
            Ok(Reply::empty(204))
        }
        (&Method::POST, "/faults") => faults_add(stage, call),
        (&Method::GET, "/effects") => Ok(effects(stage, call)),
        (&Method::POST, "/incidents") => read::<IncidentSeed>(call).and_then(|seed| {
            let incident = stage.incident_seed(&seed).map_err(refused)?;
            Ok(Reply::json(201, &json!(incident)))
        }),
        (&Method::POST, "/credentials") => read::<NewCredentials>(call).and_then(|new| {
            if [&new.password, &new.client_secret].into_iter().flatten().any(|secret| secret.is_empty()) {
                return Err(problem(400, "a credential is not empty"));
            }
            let mut entry = stage.entry.lock();
            if let Some(password) = &new.password {
                entry.password_set(password, new.keep_previous);
            }
            if let Some(secret) = &new.client_secret {
                entry.client_secret_set(secret);
            }
            Ok(Reply::empty(204))
        }),
        (&Method::DELETE, "/tokens") => {
            stage.entry.lock().tokens_revoke();
            Ok(Reply::empty(204))
        }
        (&Method::POST, "/webhooks") => read::<WebhookAsk>(call).and_then(|ask| {
            let webhook = stage.incident_webhook(&ask.sys_id, ask.event).map_err(refused)?;
            Ok(Reply::json(200, &json!(webhook)))
        }),
        (&Method::GET, "/slack") => {
            let world = stage.slack.lock();
            Ok(Reply::json(200, &json!({"counts": world.counts(), "messages": world.messages()})))
        }
        (&Method::POST, "/slack/clicks") => read::<SlackClick>(call).and_then(|click| {
            let callback = stage.slack_click(&click).map_err(refused)?;
            Ok(Reply::json(200, &json!(callback)))
        }),
        (&Method::PATCH, path) => match path.strip_prefix("/incidents/") {
            Some(sys_id) => read::<Edit>(call).and_then(|edit| {
                stage.incident_edit(sys_id, &edit.by, &edit.fields).map_err(refused)?;
                Ok(Reply::empty(204))
            }),
            None => Err(problem(404, "no such resource")),
        },
        _ => Err(problem(404, "no such resource")),
    };
    result.unwrap_or_else(|problem| problem)
}

fn faults_add(stage: &Stage, call: &Call) -> Result<Reply, Reply> {
    let rules = match read::<Rules>(call)? {
        Rules::Many(rules) => rules,
        Rules::One(rule) => vec![*rule],
    };
    stage.faults.lock().add(rules).map_err(|error| problem(400, &error.to_string()))?;
    Ok(Reply::json(201, &json!(stage.faults.lock().counts())))
}

fn effects(stage: &Stage, call: &Call) -> Reply {
    let world = stage.world.lock();
    let duplicates = world.effects.duplicates();
    let mut reply = json!({
        "counts": world.effects.counts(),
        "duplicates": duplicates,
        "effects_duplicated": duplicates.total(),
        "requests": stage.requests(),
        "tokens": stage.token_counts(),
        "model_work": stage.model_work(),
    });
    if call.flag("list") {
        let offset = call.parameter("offset").and_then(|offset| offset.parse().ok()).unwrap_or(0);
        let page: Vec<_> = world.effects.all().iter().skip(offset).take(EFFECTS_PAGE).collect();
        reply["effects"] = json!(page);
    }
    Reply::json(200, &reply)
}

fn read<'a, T: Deserialize<'a>>(call: &'a Call) -> Result<T, Reply> {
    serde_json::from_slice(&call.body).map_err(|error| problem(400, &error.to_string()))
}

fn refused(error: Error) -> Reply {
    match error {
        Error::NoSuchRecord => problem(404, &error.to_string()),
        Error::Refused(_) => problem(400, &error.to_string()),
        Error::Full(_) => problem(507, &error.to_string()),
        Error::Bind(_) | Error::Secret => problem(500, &error.to_string()),
    }
}

fn problem(status: u16, message: &str) -> Reply {
    Reply::json(status, &json!({"error": message}))
}
