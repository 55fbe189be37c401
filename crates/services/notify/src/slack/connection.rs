//! The connection of a tenant to its Slack workspace: one app in one workspace.
//!
//! It names workspace and app, because a signature alone does not: an app that is installed in two workspaces signs with
//! one secret. The token and the secret are references; their values stay in custody. Channels are by tier, so that what
//! needs a second-tier approver is shown to people of the second tier.

use act::{Draw as _, Fault, Plan, Route, Target, Verb, parse};
use custody::CredentialRef;
use futures::FutureExt as _;
use kernel::{Id, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Document;
use store::key::Key;

/// Slack's own address of the Web API.
pub const BASE_URL: &str = "https://slack.com/api";
/// Most channels.
const CHANNELS_MAX: usize = 10;
/// Longest id of Slack's that is taken.
const SLACK_ID_BYTES_MAX: usize = 32;

/// The connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// `slk_main`
    pub id: Id,
    /// The workspace, `T…`.
    pub team: String,
    /// The app, `A…`.
    pub app: String,
    /// Where the bot's token is.
    pub bot_token: CredentialRef,
    /// Where the app's signing secret is.
    pub signing_secret: CredentialRef,
    /// Base of the Web API's address, without a slash at its end.
    pub base_url: String,
    /// Channel by tier, `C…`.
    pub channels: BTreeMap<u8, String>,
    /// Where this installation is reached, for links on cards.
    pub link_base: Option<String>,
    /// The unguessable part of the callback's address.
    pub hook: Id,
    /// When it was made, milliseconds UTC.
    pub connected_at_ms: i64,
    /// When it was ended.
    pub disconnected_at_ms: Option<i64>,
}

impl Document for Connection {
    const KIND: &'static str = "notify.slack";
    fn id(&self) -> &Id {
        &self.id
    }
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("hook", hook_key(&self.hook))]
    }
}

impl Connection {
    /// The channel where people of `tier` are asked: that of the highest tier not above it, else the lowest there is.
    pub fn channel(&self, tier: u8) -> Option<&str> {
        let below = self.channels.range(..=tier).next_back();
        below.or_else(|| self.channels.iter().next()).map(|(_, channel)| channel.as_str())
    }

    /// The address that Slack sends clicks to, behind the installation's own.
    pub fn callback(&self) -> String {
        format!("/v1/slack-hooks/{}", self.hook)
    }
}

/// The id of every tenant's connection.
pub fn connection_id() -> Id {
    // A constant of the grammar.
    Id::parse("slk_main").expect("a constant id")
}

/// The unique key of a hook.
pub fn hook_key(hook: &Id) -> Vec<u8> {
    Key::new().text(hook.as_str()).bytes()
}

/// Arguments of `notify.slack.connect`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectArgs {
    /// The workspace's id, `T…`.
    pub team: String,
    /// The app's id, `A…`.
    pub app: String,
    /// Where the bot's token is, `secret:<name>`.
    pub bot_token: String,
    /// Where the app's signing secret is, `secret:<name>`.
    pub signing_secret: String,
    /// Channel ids (`C…`) by the tier whose people are asked there: `{"1": "C…", "2": "C…"}`.
    pub channels: BTreeMap<String, String>,
    /// Base of the Web API's address; Slack's own, if absent.
    pub base_url: Option<String>,
    /// Where this installation is reached, for links on cards: `https://host`.
    pub link_base: Option<String>,
}

/// Arguments of `notify.slack.disconnect`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisconnectArgs {}

fn invalid(message: &str) -> Fault {
    Fault::invalid("slack.connection_invalid", message)
}

/// Whether `text` is an id of Slack's that begins with one of `first`.
pub fn slack_id(text: &str, first: &str) -> bool {
    (2..=SLACK_ID_BYTES_MAX).contains(&text.len())
        && text.starts_with(|c| first.contains(c))
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn origin(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let target = egress::Target::parse(&format!("{text}/")).ok()?;
    // It stands in mrkdwn between < and |.
    (text.starts_with(&target.origin()) && !text.contains(['<', '>', '|', '?', '&'])).then(|| text.to_owned())
}

/// The connection that arguments ask for.
fn read(args: ConnectArgs, hook: Id, at_ms: i64) -> Result<Connection, Fault> {
    let credential = |text: &str| {
        CredentialRef::parse(text).map_err(|_| invalid("a credential is named as secret:<name>"))
    };
    if !slack_id(&args.team, "T") || !slack_id(&args.app, "A") {
        return Err(invalid("team is a workspace's id (T…) and app an app's (A…)"));
    }
    let mut channels = BTreeMap::new();
    for (tier, channel) in args.channels {
        let tier: u8 =
            tier.parse().map_err(|_| invalid("channels are named by tier, a number from 0 to 255"))?;
        if !slack_id(&channel, "CG") {
            return Err(invalid("a channel is named by its id (C…)"));
        }
        channels.insert(tier, channel);
    }
    if channels.is_empty() || channels.len() > CHANNELS_MAX {
        return Err(invalid("there are 1 to 10 channels"));
    }
    let address = |text: Option<&str>| {
        text.map(|text| {
            origin(text).ok_or_else(|| invalid("an address is https://host, with a path at most"))
        })
        .transpose()
    };
    Ok(Connection {
        id: connection_id(),
        team: args.team,
        app: args.app,
        bot_token: credential(&args.bot_token)?,
        signing_secret: credential(&args.signing_secret)?,
        base_url: address(args.base_url.as_deref())?.unwrap_or_else(|| BASE_URL.to_owned()),
        channels,
        link_base: address(args.link_base.as_deref())?,
        hook,
        connected_at_ms: at_ms,
        disconnected_at_ms: None,
    })
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "notify.slack.connect",
            summary: "Connects the tenant to its Slack workspace, or changes the connection",
            args: || schemars::schema_for!(ConnectArgs).into(),
            writes: &["notify.slack"],
            facts: &["notify.slack.connected"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, _| {
                async move {
                    let args: ConnectArgs = parse(args)?;
                    let checked = read(args, connection_id(), 0)?;
                    let mut target = Target::of(Connection::KIND, &connection_id());
                    target.attributes =
                        json!({"team": checked.team, "app": checked.app, "base_url": checked.base_url});
                    target.preview = vec![
                        ("Workspace".into(), checked.team),
                        ("App".into(), checked.app),
                        ("Address".into(), checked.base_url),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: ConnectArgs = parse(args)?;
                    let stored = view.get::<Connection>(&connection_id()).await?;
                    // The address stays over changes: it is written down at Slack's.
                    let hook = match &stored {
                        Some(stored) => stored.hook.clone(),
                        None => Id::parse(&format!("slh_{}", hex::encode(&stamp.ids.entropy())))
                            .map_err(act::internal)?,
                    };
                    let doc = read(args, hook, stamp.at_ms)?;
                    let mut plan = Plan {
                        draft: stamp.draft(),
                        outcome: json!({"slack": doc.id, "callback": doc.callback()}),
                    };
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft.fact(stamp.fact(
                        "notify.slack.connected",
                        &doc.id,
                        (Connection::KIND, &doc.id),
                        json!({
                            "team": doc.team, "app": doc.app, "base_url": doc.base_url,
                            "bot_token": doc.bot_token, "signing_secret": doc.signing_secret,
                        }),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "notify.slack.disconnect",
            summary: "Ends the tenant's connection to Slack; cards that are there stay as they are",
            args: || schemars::schema_for!(DisconnectArgs).into(),
            writes: &["notify.slack"],
            facts: &["notify.slack.disconnected"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, _| {
                async move {
                    let _: DisconnectArgs = parse(args)?;
                    let mut target = Target::of(Connection::KIND, &connection_id());
                    target.preview = vec![("Disconnect".into(), "Slack".into())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let _: DisconnectArgs = parse(args)?;
                    let stored = view.get::<Connection>(&connection_id()).await?;
                    let stored = stored.filter(|stored| stored.disconnected_at_ms.is_none());
                    let stored = stored.ok_or_else(not_connected)?;
                    let doc = Connection { disconnected_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan =
                        Plan { draft: stamp.draft(), outcome: json!({"slack": doc.id, "connected": false}) };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "notify.slack.disconnected",
                        &doc.id,
                        (Connection::KIND, &doc.id),
                        json!({"team": doc.team, "app": doc.app}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

/// There is no connection.
pub(crate) fn not_connected() -> Fault {
    Fault::conflict("slack.not_connected", "this tenant is not connected to Slack")
}

fn shown(doc: &Connection) -> Value {
    json!({
        "team": doc.team, "app": doc.app, "bot_token": doc.bot_token, "signing_secret": doc.signing_secret,
        "channels": doc.channels, "base_url": doc.base_url, "link_base": doc.link_base, "callback": doc.callback(),
        "connected": doc.disconnected_at_ms.is_none(), "connected_at_ms": doc.connected_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::put(
            "/v1/slack",
            "slack_connect",
            "Connect the tenant to its Slack workspace",
            "notify.slack.connect",
        ),
        Route::get(
            "/v1/slack",
            "slack_show",
            "Show the connection to Slack, with the address for clicks",
            "notify.slack.read",
            |query| {
                async move {
                    let stored = query.view.peek::<Connection>(&connection_id()).await?;
                    let stored = stored.ok_or_else(|| Fault::not_found("connection"))?;
                    Ok(shown(&stored))
                }
                .boxed()
            },
        ),
        Route::post(
            "/v1/slack/disconnect",
            "slack_disconnect",
            "End the connection to Slack",
            "notify.slack.disconnect",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ConnectArgs {
        ConnectArgs {
            team: "T0123".into(),
            app: "A0123".into(),
            bot_token: "secret:slack-bot".into(),
            signing_secret: "secret:slack-signing".into(),
            channels: BTreeMap::from([("1".into(), "C1".into()), ("3".into(), "C3".into())]),
            base_url: None,
            link_base: Some("https://writ.example/".into()),
        }
    }

    #[test]
    fn what_a_connection_may_say() {
        let good = read(args(), connection_id(), 1).unwrap();
        assert_eq!(
            (good.base_url.as_str(), good.link_base.as_deref()),
            (BASE_URL, Some("https://writ.example"))
        );
        let tiers = [0, 1, 2, 3, 9].map(|tier| good.channel(tier).unwrap());
        assert_eq!(tiers, ["C1", "C1", "C1", "C3", "C3"]);
        type Change = fn(&mut ConnectArgs);
        let bad: [Change; 11] = [
            |args| args.team = "U0123".into(),
            |args| args.team = "T".into(),
            |args| args.team = "T0123<".into(),
            |args| args.app = "a0123".into(),
            |args| args.bot_token = "xoxb-1".into(),
            |args| args.signing_secret = "hunter2".into(),
            |args| args.channels.clear(),
            |args| drop(args.channels.insert("first".into(), "C2".into())),
            |args| drop(args.channels.insert("2".into(), "#general".into())),
            |args| args.base_url = Some("https://user@slack.example".into()),
            |args| args.link_base = Some("https://writ.example/|x".into()),
        ];
        for (n, change) in bad.into_iter().enumerate() {
            let mut args = args();
            change(&mut args);
            assert_eq!(read(args, connection_id(), 1).unwrap_err().code, "slack.connection_invalid", "{n}");
        }
    }
}
