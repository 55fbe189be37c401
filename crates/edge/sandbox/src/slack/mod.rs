//! A stand-in for Slack: a few methods of the Web API under `/slack/api/`, and the signed callbacks of clicks.
//!
//! What is faithful is the wire as clients meet it: tokens in the header or the form, JSON or form bodies, `200` with
//! `"ok": false` and a word for nearly every failure, `429` with `Retry-After` (a fault rule), messages named by channel and
//! `ts`, limits of Block Kit, and callbacks whose raw form body is signed (version 0). A click is handed out as parts, like
//! every callback here, and it is made from the message as it stands: a button that is not there cannot be clicked, except
//! where the script says otherwise.
//!
//! Assumed, not known: the words for a few refusals, and that limits of Block Kit count characters. Not here: OAuth,
//! scopes, events, slash commands, files, threads, membership of channels.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use url::form_urlencoded;

use crate::{
    Error,
    exchange::{Call, Reply},
    stamp,
};

/// Where the Web API is, behind the sandbox's own address.
pub const API_PATH: &str = "/slack/api/";
/// Most messages kept.
pub const MAX_MESSAGES: usize = 10_000;
/// Most blocks of a message.
pub const MAX_BLOCKS: usize = 50;
/// How long a trigger holds, milliseconds.
const TRIGGER_MS: i64 = 3_000;
/// Most triggers kept.
const MAX_TRIGGERS: usize = 1_000;

/// How the Slack stand-in is set up.
#[derive(Clone, Debug)]
pub struct SlackConfig {
    /// The workspace, `T…`.
    pub team: String,
    /// The app, `A…`.
    pub app: String,
    /// The bot's user, `U…`.
    pub bot_user: String,
    /// The token that calls must bring.
    pub bot_token: String,
    /// The secret that signs callbacks.
    pub signing_secret: String,
    /// Channels that exist, `C…`.
    pub channels: Vec<String>,
    /// Users that exist: id (`U…`) and name.
    pub users: Vec<(String, String)>,
}

/// A message that was posted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SlackMessage {
    /// Its channel.
    pub channel: String,
    /// Its name there.
    pub ts: String,
    /// The text outside of blocks.
    pub text: String,
    /// Its blocks.
    pub blocks: Vec<Value>,
    /// Who alone sees it, for an ephemeral one.
    pub only_for: Option<String>,
    /// How often it was changed.
    pub updates: u32,
}

impl SlackMessage {
    /// The buttons on it: action and value.
    pub fn buttons(&self) -> Vec<(String, String)> {
        let elements =
            self.blocks.iter().flat_map(|block| block["elements"].as_array().into_iter().flatten());
        elements
            .filter(|element| element["type"] == "button")
            .map(|button| {
                [&button["action_id"], &button["value"]]
                    .map(|text| text.as_str().unwrap_or_default().to_owned())
            })
            .map(|[action, value]| (action, value))
            .collect()
    }
}

/// A click. The first four say which button of which message; the others are for scripts in which something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackClick {
    /// Who clicks.
    pub user: String,
    /// In which channel.
    pub channel: String,
    /// On which message.
    pub ts: String,
    /// Which button.
    pub action_id: String,
    /// The workspace that the callback names; the configured one, if absent.
    #[serde(default)]
    pub team: Option<String>,
    /// The workspace of whoever clicks, as in a shared channel; the configured one, if absent.
    #[serde(default)]
    pub user_team: Option<String>,
    /// The app; the configured one, if absent.
    #[serde(default)]
    pub app: Option<String>,
    /// What the button carries; what it really carries, if absent.
    #[serde(default)]
    pub value: Option<String>,
    /// When it is signed, milliseconds UTC; now, if absent.
    #[serde(default)]
    pub at_ms: Option<i64>,
}

/// The parts of a signed callback, for the caller to POST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlackCallback {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its raw body.
    pub body: String,
}

/// How many calls took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlackCounts {
    /// Messages posted to a channel.
    pub posts: u64,
    /// Messages changed.
    pub updates: u64,
    /// Messages that one user alone saw.
    pub ephemerals: u64,
    /// Modals opened.
    pub views: u64,
}

/// What is kept.
#[derive(Default)]
pub(crate) struct SlackWorld {
    messages: Vec<SlackMessage>,
    counts: SlackCounts,
    triggers: BTreeMap<String, i64>,
    made: u64,
}

impl SlackWorld {
    pub fn messages(&self) -> Vec<SlackMessage> {
        self.messages.clone()
    }

    pub fn counts(&self) -> SlackCounts {
        self.counts
    }

    /// The callback of a click.
    pub fn click(
        &mut self,
        config: &SlackConfig,
        click: &SlackClick,
        now_ms: i64,
    ) -> Result<SlackCallback, Error> {
        let found = self.messages.iter().find(|message| {
            message.channel == click.channel && message.ts == click.ts && message.only_for.is_none()
        });
        let value = match (&click.value, found) {
            (Some(value), _) => value.clone(),
            (None, Some(message)) => message
                .buttons()
                .into_iter()
                .find(|(action, _)| *action == click.action_id)
                .map(|(_, value)| value)
                .ok_or(Error::NoSuchRecord)?,
            (None, None) => return Err(Error::NoSuchRecord),
        };
        self.made += 1;
        let trigger = format!("{}.{}", self.made, stamp::id_of("trigger", &self.made.to_string()));
        if self.triggers.len() >= MAX_TRIGGERS {
            self.triggers.clear();
        }
        self.triggers.insert(trigger.clone(), now_ms);
        let at_ms = click.at_ms.unwrap_or(now_ms);
        let name = config.users.iter().find(|(id, _)| *id == click.user).map_or("stranger", |(_, name)| name);
        let team = click.team.as_ref().unwrap_or(&config.team);
        let payload = json!({
            "type": "block_actions",
            "user": {
                "id": click.user, "username": name, "name": name,
                "team_id": click.user_team.as_ref().unwrap_or(&config.team),
            },
            "api_app_id": click.app.as_ref().unwrap_or(&config.app),
            "token": "deprecated",
            "container": {"type": "message", "message_ts": click.ts, "channel_id": click.channel, "is_ephemeral": false},
            "trigger_id": trigger,
            "team": {"id": team, "domain": "stand-in"},
            "enterprise": null,
            "is_enterprise_install": false,
            "channel": {"id": click.channel, "name": "approvals"},
            "message": found.map(|message| json!({"type": "message", "ts": message.ts, "text": message.text})),
            "response_url": "https://hooks.slack.invalid/actions/stand-in",
            "actions": [{
                "action_id": click.action_id, "block_id": "decide", "type": "button", "value": value,
                "text": {"type": "plain_text", "text": "…"}, "action_ts": self.ts(at_ms),
            }],
        });
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload.to_string())
            .finish();
        let timestamp = at_ms.div_euclid(1_000).to_string();
        let signature = signature(&config.signing_secret, &timestamp, &body);
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-slack-request-timestamp", &timestamp),
            ("x-slack-signature", &signature),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Ok(SlackCallback { headers, body })
    }

    /// A name for a message or an action, unique here.
    fn ts(&mut self, at_ms: i64) -> String {
        self.made += 1;
        format!("{}.{:06}", at_ms.div_euclid(1_000), self.made)
    }
}

/// Version 0: HMAC-SHA256 over `v0:timestamp:body`.
fn signature(secret: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes keys of any length, so there is no error to handle (RFC 2104 §2).
    let mut mac =
        <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    for part in ["v0:", timestamp, ":", body] {
        mac.update(part.as_bytes());
    }
    format!("v0={}", stamp::hex(&mac.finalize().into_bytes()))
}

/// The arguments of a call: JSON or a form; in a form, blocks and views are JSON inside.
fn arguments(call: &Call) -> Map<String, Value> {
    let content_type =
        call.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut arguments = Map::new();
    if content_type.starts_with("application/json") {
        if let Ok(Value::Object(object)) = serde_json::from_slice(&call.body) {
            arguments = object;
        }
        return arguments;
    }
    let form = form_urlencoded::parse(&call.body).into_owned();
    for (name, value) in call.query.iter().cloned().chain(form) {
        let structured = ["blocks", "view", "metadata"].contains(&name.as_str());
        let value = match serde_json::from_str(&value) {
            Ok(parsed) if structured => parsed,
            _ => Value::String(value),
        };
        arguments.insert(name, value);
    }
    arguments
}

/// Whether the call brings the bot's token; if not, the word for it.
pub(crate) fn authenticated(call: &Call, config: &SlackConfig) -> Result<(), &'static str> {
    let in_form = arguments(call).get("token").and_then(Value::as_str).map(str::to_owned);
    match call.authorization("bearer").map(str::to_owned).or(in_form) {
        None => Err("not_authed"),
        Some(token) if token == config.bot_token => Ok(()),
        Some(_) => Err("invalid_auth"),
    }
}

/// A refusal as Slack words it.
pub(crate) fn refused(word: &str) -> Reply {
    Reply::json(200, &json!({"ok": false, "error": word}))
}

/// A failure of the server, or a limit.
pub(crate) fn failed(status: u16) -> Reply {
    let word = if status == 429 { "ratelimited" } else { "internal_error" };
    Reply::json(status, &json!({"ok": false, "error": word}))
}

/// Answers an authenticated call.
pub(crate) fn handle(world: &mut SlackWorld, config: &SlackConfig, call: &Call, now_ms: i64) -> Reply {
    if call.method != Method::POST && call.method != Method::GET {
        return refused("invalid_post_type");
    }
    let arguments = arguments(call);
    let method = call.path.strip_prefix(API_PATH).unwrap_or_default();
    answer(world, config, method, &arguments, now_ms).unwrap_or_else(|word| match word {
        "full" => Reply::json(507, &json!({"ok": false, "error": "fatal_error"})),
        word => refused(word),
    })
}

fn answer(
    world: &mut SlackWorld,
    config: &SlackConfig,
    method: &str,
    arguments: &Map<String, Value>,
    now_ms: i64,
) -> Result<Reply, &'static str> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
    let ok = |value: Value| Ok(Reply::json(200, &value));
    let user = |id: &str| config.users.iter().find(|(known, _)| known == id);
    match method {
        "auth.test" => ok(json!({
            "ok": true, "url": "https://stand-in.slack.invalid/", "team": "Stand-in", "user": "writ",
            "team_id": config.team, "user_id": config.bot_user, "bot_id": "B0STANDIN", "is_enterprise_install": false,
        })),
        "users.info" => {
            let (id, name) = user(text("user")).ok_or("user_not_found")?;
            ok(json!({"ok": true, "user": {
                "id": id, "team_id": config.team, "name": name, "real_name": name, "deleted": false, "is_bot": false,
                "profile": {"real_name": name, "display_name": name},
            }}))
        }
        "chat.postMessage" | "chat.postEphemeral" => {
            let channel = known_channel(config, text("channel"))?;
            let only_for = match method {
                "chat.postEphemeral" => Some(user(text("user")).ok_or("user_not_in_channel")?.0.clone()),
                _ => None,
            };
            let blocks = content(arguments)?;
            if world.messages.len() >= MAX_MESSAGES {
                return Err("full");
            }
            let ts = world.ts(now_ms);
            let message = SlackMessage {
                channel: channel.to_owned(),
                ts: ts.clone(),
                text: text("text").to_owned(),
                blocks,
                only_for: only_for.clone(),
                updates: 0,
            };
            let shown = shown(config, &message);
            world.messages.push(message);
            match only_for {
                Some(_) => {
                    world.counts.ephemerals += 1;
                    ok(json!({"ok": true, "message_ts": ts}))
                }
                None => {
                    world.counts.posts += 1;
                    ok(json!({"ok": true, "channel": channel, "ts": ts, "message": shown}))
                }
            }
        }
        "chat.update" => {
            let channel = known_channel(config, text("channel"))?;
            let blocks = content(arguments)?;
            let ts = text("ts");
            let found = world
                .messages
                .iter_mut()
                .find(|message| message.channel == channel && message.ts == ts && message.only_for.is_none());
            let message = found.ok_or("message_not_found")?;
            message.text = text("text").to_owned();
            message.blocks = blocks;
            message.updates += 1;
            let shown = shown(config, message);
            world.counts.updates += 1;
            ok(json!({"ok": true, "channel": channel, "ts": ts, "text": text("text"), "message": shown}))
        }
        "views.open" => {
            let opened = world.triggers.get(text("trigger_id")).ok_or("invalid_trigger_id")?;
            if now_ms - opened > TRIGGER_MS {
                return Err("expired_trigger_id");
            }
            let view =
                arguments.get("view").filter(|view| view["type"] == "modal").ok_or("invalid_arguments")?;
            world.counts.views += 1;
            ok(json!({"ok": true, "view": {
                "id": format!("V{}", world.counts.views), "team_id": config.team, "type": "modal", "title": view["title"],
            }}))
        }
        _ => Err("unknown_method"),
    }
}

fn known_channel<'a>(config: &SlackConfig, channel: &'a str) -> Result<&'a str, &'static str> {
    if config.channels.iter().any(|known| known == channel) { Ok(channel) } else { Err("channel_not_found") }
}

fn shown(config: &SlackConfig, message: &SlackMessage) -> Value {
    json!({
        "type": "message", "user": config.bot_user, "bot_id": "B0STANDIN", "app_id": config.app, "team": config.team,
        "text": message.text, "ts": message.ts, "blocks": message.blocks,
    })
}

/// The blocks of a message, within Block Kit's limits.
fn content(arguments: &Map<String, Value>) -> Result<Vec<Value>, &'static str> {
    let text = arguments.get("text").and_then(Value::as_str).unwrap_or_default();
    let blocks = match arguments.get("blocks") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(blocks)) => blocks.clone(),
        Some(_) => return Err("invalid_blocks_format"),
    };
    if text.is_empty() && blocks.is_empty() {
        return Err("no_text");
    }
    if text.chars().count() > 40_000 {
        return Err("msg_too_long");
    }
    let long = |value: &Value, most: usize| value.as_str().is_some_and(|text| text.chars().count() > most);
    let fits = |block: &Value| {
        let fields = block["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let elements = block["elements"].as_array().map(Vec::as_slice).unwrap_or_default();
        block["type"].is_string()
            && !long(&block["text"]["text"], 3_000)
            && fields.len() <= 10
            && fields.iter().all(|field| !long(&field["text"], 2_000))
            && elements.len() <= 25
            && elements.iter().all(|element| {
                !long(&element["action_id"], 255)
                    && !long(&element["value"], 2_000)
                    && !long(&element["text"]["text"], 75)
                    || element["type"] == "mrkdwn"
            })
    };
    if blocks.len() > MAX_BLOCKS || !blocks.iter().all(fits) {
        return Err("invalid_blocks");
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::signature;

    /// The example of Slack's documentation.
    #[test]
    fn signature_agrees_with_the_documentation() {
        let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
        assert_eq!(
            signature("8f742231b10e8888abcd99yyyzzz85a5", "1531420618", body),
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
        );
    }
}
