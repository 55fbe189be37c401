//! Clicks: the callback, and the decision that follows from one.
//!
//! Slack waits three seconds for an answer, and a decision may take longer (policy, people racing, a busy disk). So the
//! callback only checks and writes down, in one commit, that somebody clicked; a job does the rest. What it checks, in
//! this order, and what is refused leaves nothing but a count:
//!
//! 1. the address leads to a connection whose secret can be had;
//! 2. signature, then time ([`super::signature`]), over the raw bytes;
//! 3. it is one form field `payload`, a `block_actions` with one of our two buttons;
//! 4. workspace of the message, workspace of the *user* (in shared channels they differ), and app are the connected ones;
//! 5. the card is there, in that channel, under that message;
//! 6. it has not been received before: the signature is the idempotency key.
//!
//! Then the job: Slack user → link → principal, with the roles it has at that moment → the same act as through the API,
//! under the digest of what the card showed. Whatever comes out, the user is told, where only they see it.

use super::card::Card;
use super::connection::{Connection, hook_key, slack_id};
use super::deliver::read;
use super::link::{CODE_MS, Link, LinkCode, code, code_digest, code_id, user_key};
use super::signature::Signed;
use super::{Deps, api, blocks, passing};
use access::principal::PrincipalDoc;
use act::{
    Assurance, Class, Coded, Ctx, Delivery, Draw as _, Fault, JobSpec, KeyLimits, Plan, Principal,
    PrincipalKind, Route, Target, Verb, parse,
};
use custody::CustodyError;
use futures::FutureExt as _;
use harness::{Done, Terms};
use kernel::permit::JobKind;
use kernel::{Id, Lease, TenantId, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document as _, Stored};

/// Largest callback, in bytes.
pub const CALLBACK_BYTES_MAX: usize = 128 * 1024;
/// How often a decision is tried while something passes.
const STARTS_MAX: u32 = 6;

/// The kind of the job behind a click.
pub static ANSWER: JobKind = JobKind {
    name: "notify.click.answer",
    writes: &["notify.link_code"],
    facts: &["notify.click.answered", "notify.link.offered"],
    lease_ms: 30_000,
    starts_max: 20,
};

/// Why a callback is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ClickError {
    /// There is no such address.
    #[error("there is no such address")]
    Hook,
    /// It is signed and no click of ours.
    #[error("the callback is not a click on one of our cards")]
    Body,
    /// It comes from elsewhere.
    #[error("the callback comes from another workspace or app")]
    Workspace,
    /// Its card is not there.
    #[error("the click names a card that is not there")]
    Card,
    /// It was received before.
    #[error("this callback has been received before")]
    Replayed,
}

impl Coded for ClickError {
    fn code(&self) -> &'static str {
        match self {
            ClickError::Hook => "slack.hook_unknown",
            ClickError::Body => "slack.body",
            ClickError::Workspace => "slack.workspace",
            ClickError::Card => "slack.card",
            ClickError::Replayed => "slack.replayed",
        }
    }
    fn class(&self) -> Class {
        match self {
            ClickError::Hook => Class::Unauthenticated,
            ClickError::Body => Class::Invalid,
            ClickError::Workspace => Class::Denied,
            ClickError::Card | ClickError::Replayed => Class::Conflict,
        }
    }
}

/// What was clicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The first button.
    Grant,
    /// The second.
    Deny,
}

/// Arguments of `notify.click.receive`, made from a verified callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClickArgs {
    /// The card.
    pub card: String,
    /// What was clicked.
    pub choice: Choice,
    /// The workspace.
    pub team: String,
    /// The Slack user.
    #[schemars(extend("x-data" = "personal"))]
    pub user: String,
    /// The channel.
    pub channel: String,
    /// Slack's name of the message.
    pub ts: String,
}

/// Reads the body of a callback that is signed. `api.slack.com`, "block_actions payloads".
pub fn payload(body: &[u8]) -> Option<Value> {
    let mut fields = url::form_urlencoded::parse(body);
    let (name, value) = fields.next()?;
    (name == "payload" && fields.next().is_none()).then(|| serde_json::from_str(&value).ok())?
}

/// The click in a payload, if it is one of ours, from the workspace and app that are connected.
pub fn click(payload: &Value, connection: &Connection) -> Result<ClickArgs, ClickError> {
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str);
    let needed = |pointer: &str| text(pointer).ok_or(ClickError::Body);
    if text("/type") != Some("block_actions") {
        return Err(ClickError::Body);
    }
    let (team, app, user) = (needed("/team/id")?, needed("/api_app_id")?, needed("/user/id")?);
    // In a shared channel the message is of this workspace and the user is not. Without a team of theirs nobody knows.
    let home = needed("/user/team_id")?;
    if team != connection.team || home != connection.team || app != connection.app {
        return Err(ClickError::Workspace);
    }
    let actions = payload["actions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [action] = actions else { return Err(ClickError::Body) };
    let choice = match action["action_id"].as_str() {
        Some(blocks::GRANT) => Choice::Grant,
        Some(blocks::DENY) => Choice::Deny,
        _ => return Err(ClickError::Body),
    };
    let card = action["value"].as_str().filter(|card| Id::valid(card)).ok_or(ClickError::Body)?;
    if !slack_id(user, "UW") {
        return Err(ClickError::Body);
    }
    Ok(ClickArgs {
        card: card.to_owned(),
        choice,
        team: team.to_owned(),
        user: user.to_owned(),
        channel: needed("/container/channel_id")?.to_owned(),
        ts: needed("/container/message_ts")?.to_owned(),
    })
}

async fn receive(deps: &Deps, hook: &str, raw: &[(String, String)], body: &[u8]) -> Result<Delivery, Fault> {
    if body.len() > CALLBACK_BYTES_MAX {
        return Err(ClickError::Body.into());
    }
    let signed = Signed::read(raw)?;
    let hook = Id::parse(hook).map_err(|_| ClickError::Hook)?;
    let store = deps.harness.store();
    let found = store.record_unique_anywhere(Connection::KIND, "hook", &hook_key(&hook)).await?;
    let (tenant, row) = found.ok_or(ClickError::Hook)?;
    let connection = store::decode::<Connection>(&row)?.doc;
    if connection.disconnected_at_ms.is_some() {
        return Err(ClickError::Hook.into());
    }
    // No usable secret, no callbacks: whoever sends learns no more than that.
    let secret = deps.custody.open(store, &tenant, &connection.signing_secret).await;
    let secret = secret.map_err(|error| match error {
        CustodyError::Read(error) => Fault::from(error),
        CustodyError::Missing | CustodyError::Revoked | CustodyError::Damaged => ClickError::Hook.into(),
    })?;
    let now_ms = deps.harness.now_ms();
    signed.verify(secret.expose(), body, now_ms)?;
    let args = click(&payload(body).ok_or(ClickError::Body)?, &connection)?;
    let card = Id::parse(&args.card).map_err(|_| ClickError::Card)?;
    let card = read::<Card>(&deps.harness, &tenant, &card).await?.ok_or(ClickError::Card)?;
    if card.channel != args.channel || card.ts.as_deref() != Some(args.ts.as_str()) {
        return Err(ClickError::Card.into());
    }
    let trace = deps.harness.ids().id("trc", now_ms).to_string();
    let key = format!("slack:{}", hex::encode(&sha256(signed.signature.as_bytes())));
    let ctx = ctx(&tenant, &trace, &key, now_ms);
    // Two that come at the very same time pass this and meet in the commit, where one of them gets the other's outcome.
    if store.outcome(&tenant, &ctx.principal.id, "notify.click.receive", &key).await?.is_some() {
        return Err(ClickError::Replayed.into());
    }
    Ok(Delivery { ctx, act: "notify.click.receive", args: json!(args) })
}

/// A callback acts as the integration that Slack is; who clicked is found out later.
fn ctx(tenant: &TenantId, trace: &str, key: &str, now_ms: i64) -> Ctx {
    Ctx {
        tenant: tenant.clone(),
        principal: Principal {
            id: harness::service_id("slack"),
            kind: PrincipalKind::Integration,
            roles: vec!["slack".into()],
            home: tenant.clone(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "signature".into(), level: 0, at_ms: now_ms, until_ms: None },
        trace: trace.to_owned(),
        idempotency_key: Some(key.to_owned()),
        requested_at_ms: now_ms,
    }
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![Verb {
        act: "notify.click.receive",
        summary: "Takes a click on a card, to be decided as whoever clicked",
        args: || schemars::schema_for!(ClickArgs).into(),
        writes: &[],
        facts: &["notify.click.received"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: ClickArgs = parse(args)?;
                let card = card(view, &args.card).await?;
                let mut target = Target::of(Card::KIND, &card.id);
                target.attributes = json!({"choice": args.choice, "team": args.team});
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: ClickArgs = parse(args)?;
                let card = card(view, &args.card).await?;
                let outcome = json!({
                    "approval": card.approval, "card": card.id, "choice": args.choice, "team": args.team, "user": args.user,
                });
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({"received": true}) };
                let fact = stamp.fact("notify.click.received", &card.approval, (Card::KIND, &card.id), outcome);
                let body = json!({"click": args, "at_ms": stamp.at_ms, "fact": fact.id});
                plan.draft.fact(fact).job(stamp.id("job"), &ANSWER, stamp.at_ms, true, &body);
                Ok(plan)
            }
            .boxed()
        }),
    }]
}

async fn card(view: &store::View, text: &str) -> Result<Stored<Card>, Fault> {
    let id = Id::parse(text).map_err(|_| ClickError::Card)?;
    // It may be refreshed at any time; a click does not depend on what it shows now but on what it showed.
    Ok(view.peek::<Card>(&id).await?.ok_or(ClickError::Card)?)
}

/// The routes.
pub fn routes(deps: &Deps) -> Vec<Route> {
    let deps = deps.clone();
    let receive: act::Receive = Arc::new(move |params, headers, body| {
        let deps = deps.clone();
        async move { receive(&deps, params.get("hook").map_or("", String::as_str), headers, body).await }
            .boxed()
    });
    vec![Route::receive(
        "/v1/slack-hooks/{hook}",
        "slack_receive",
        "Receive a signed click of Slack's on a card",
        receive,
    )]
}

pub(super) fn spec(deps: &Deps) -> JobSpec {
    let deps = deps.clone();
    JobSpec {
        kind: &ANSWER,
        run: Arc::new(move |lease| {
            let deps = deps.clone();
            async move {
                let job = lease.id.clone();
                if let Err(fault) = answer(&deps, lease).await {
                    tracing::warn!(%job, %fault, "a click could not be answered; it will be tried again");
                }
            }
            .boxed()
        }),
    }
}

/// What the job was given.
#[derive(Deserialize)]
struct Body {
    click: ClickArgs,
    at_ms: i64,
    fact: Id,
}

async fn answer(deps: &Deps, lease: Lease) -> Result<(), Fault> {
    let body: Body = serde_json::from_slice(&lease.body).map_err(act::internal)?;
    let tenant = lease.tenant.clone();
    let store = deps.harness.store();
    let id = Id::parse(&body.click.card).map_err(act::internal)?;
    let card = read::<Card>(&deps.harness, &tenant, &id).await?;
    let card = card.ok_or_else(|| act::internal("the card is gone"))?.doc;
    let key = user_key(&body.click.team, &body.click.user);
    let link = store.record_unique(&tenant, Link::KIND, "user", &key).await?;
    let Some(link) = link.map(|row| store::decode::<Link>(&row)).transpose()? else {
        return offer(deps, lease, &body, &card).await;
    };
    let decided = decide(deps, &lease, &body, &card, &link).await;
    if let Err(fault) = &decided
        && passing(fault)
        && lease.starts < STARTS_MAX
    {
        return Err(fault.clone());
    }
    let told = match &decided {
        // The card itself says so, to everybody.
        Ok(()) => false,
        Err(fault) => tell(deps, &tenant, &body, &explained(deps, &tenant, &card, fault).await).await,
    };
    let outcome = json!({
        "approval": card.approval, "card": card.id, "choice": body.click.choice, "user": body.click.user,
        "principal": link.principal, "decided": decided.is_ok(), "code": decided.err().map(|fault| fault.code), "told": told,
    });
    conclude(deps, lease, &body, &card, "notify.click.answered", outcome, None).await
}

/// Decides as the principal that is linked, through the same act as the API.
async fn decide(deps: &Deps, lease: &Lease, body: &Body, card: &Card, link: &Link) -> Result<(), Fault> {
    let tenant = &lease.tenant;
    let gone =
        || Fault::new(Class::Denied, "slack.principal_gone", "the linked principal is no longer there");
    let doc = read::<PrincipalDoc>(&deps.harness, tenant, &link.principal).await?.ok_or_else(gone)?.doc;
    let limits = KeyLimits::default();
    let principal =
        access::rights::resolve(deps.harness.store(), tenant, tenant, &doc, limits, deps.harness.now_ms());
    let ctx = Ctx {
        tenant: tenant.clone(),
        principal: principal.await?,
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "slack".into(), level: 0, at_ms: body.at_ms, until_ms: None },
        trace: lease.authority.trace.clone(),
        idempotency_key: Some(format!("click:{}", lease.id)),
        requested_at_ms: body.at_ms,
    };
    let (act, args) = match body.click.choice {
        Choice::Grant => (
            "governor.approval.grant",
            json!({"approval": card.approval, "preview_digest": card.preview_digest}),
        ),
        Choice::Deny => {
            ("governor.approval.deny", json!({"approval": card.approval, "reason": "declined in Slack"}))
        }
    };
    match deps.harness.act(&ctx, act, args, Terms::default()).await? {
        Done::Outcome { held, .. } => {
            deps.harness.hand_over(held);
            Ok(())
        }
        Done::Waiting { approval, .. } => {
            let message = format!("the decision itself waits for approval {approval}");
            Err(Fault::new(Class::NeedsApproval, "slack.refused", message))
        }
    }
}

/// Why nothing was decided, and what to do now.
async fn explained(deps: &Deps, tenant: &TenantId, card: &Card, fault: &Fault) -> String {
    let what = blocks::escaped(&fault.message, 300);
    let mut text =
        format!("Nothing was decided by your click: {what} (`{}`).", blocks::escaped(&fault.code, 80));
    if fault.class == Class::StepUp {
        text.push_str(&format!(
            " This needs a stronger proof of who you are than a click. Decide with your API key: `writ approval show {0}`, then `writ approval grant {0}`",
            card.approval
        ));
        let connection = deps.connection(tenant).await.ok().flatten();
        if let Some(link) = connection.and_then(|connection| blocks::link(&connection, &card.approval)) {
            text.push_str(&format!(", or <{link}|here>"));
        }
        text.push('.');
    }
    text
}

/// Tells the one who clicked, where only they see it. `false`: they could not be told, and nothing depends on it.
async fn tell(deps: &Deps, tenant: &TenantId, body: &Body, text: &str) -> bool {
    let Ok(Some(connection)) = deps.connection(tenant).await else { return false };
    let message = json!({
        "channel": body.click.channel, "user": body.click.user, "text": text,
        "parse": "none", "link_names": false, "unfurl_links": false, "unfurl_media": false,
    });
    match api::call(deps, tenant, &connection, "chat.postEphemeral", &message).await {
        api::Said::Done(_) => true,
        said => {
            tracing::info!(?said, "somebody who clicked could not be told");
            false
        }
    }
}

/// Offers a one-time code to a Slack user whom nobody has linked.
async fn offer(deps: &Deps, lease: Lease, body: &Body, card: &Card) -> Result<(), Fault> {
    let tenant = lease.tenant.clone();
    let (team, user) = (body.click.team.clone(), body.click.user.clone());
    let text = code(&deps.harness.ids().entropy());
    let told = tell(
        deps,
        &tenant,
        body,
        &format!(
            "Nothing was decided: your Slack user is not linked to anybody here. If you have an API key, link yourself within 10 minutes with `writ link create --code {text}`, then click again."
        ),
    )
    .await;
    let mut outcome = json!({
        "approval": card.approval, "card": card.id, "choice": body.click.choice, "team": team, "user": user,
        "decided": false, "code": "slack.unlinked", "told": told,
    });
    // A code that nobody was shown is none.
    let Some(id) = code_id(&team, &user).filter(|_| told) else {
        return conclude(deps, lease, body, card, "notify.click.answered", outcome, None).await;
    };
    let now_ms = deps.harness.now_ms();
    let before = read::<LinkCode>(&deps.harness, &tenant, &id).await?;
    let doc =
        LinkCode { id, team, user, digest: code_digest(&tenant, &text), expires_at_ms: now_ms + CODE_MS };
    outcome["expires_at_ms"] = json!(doc.expires_at_ms);
    conclude(deps, lease, body, card, "notify.link.offered", outcome, Some((before, doc))).await
}

async fn conclude(
    deps: &Deps,
    lease: Lease,
    body: &Body,
    card: &Card,
    kind: &'static str,
    outcome: Value,
    offered: Option<(Option<Stored<LinkCode>>, LinkCode)>,
) -> Result<(), Fault> {
    let trace = lease.authority.trace.clone();
    let ctx = deps.harness.service("slack", &lease.tenant, Vec::new(), &trace);
    let stamp = deps.harness.stamp(&ctx);
    let mut draft = stamp.draft();
    match &offered {
        None => {}
        Some((Some(before), doc)) => {
            draft.put_if(before, doc);
        }
        Some((None, doc)) => {
            draft.put_new(doc);
        }
    }
    let mut fact = stamp.fact(kind, &card.approval, (Card::KIND, &card.id), outcome);
    fact.causes.push(body.fact.clone());
    draft.fact(fact);
    deps.harness.conclude(lease, draft, Vec::new()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::connection::{BASE_URL, connection_id};
    use super::*;
    use custody::CredentialRef;

    fn connection() -> Connection {
        let secret = CredentialRef::parse("secret:a").unwrap();
        Connection {
            id: connection_id(),
            team: "T1".into(),
            app: "A1".into(),
            bot_token: secret.clone(),
            signing_secret: secret,
            base_url: BASE_URL.into(),
            channels: [(1, "C1".to_owned())].into(),
            link_base: None,
            hook: Id::parse("slh_a").unwrap(),
            connected_at_ms: 0,
            disconnected_at_ms: None,
        }
    }

    fn good() -> Value {
        json!({
            "type": "block_actions", "api_app_id": "A1", "team": {"id": "T1", "domain": "acme"},
            "user": {"id": "U1", "username": "ann", "team_id": "T1"},
            "container": {"type": "message", "message_ts": "1.2", "channel_id": "C1"},
            "actions": [{"action_id": "approval_grant", "type": "button", "value": "crd_a"}],
        })
    }

    #[test]
    fn a_click_is_one_button_of_ours_from_the_connected_workspace() {
        let connection = connection();
        assert_eq!(click(&good(), &connection).unwrap().choice, Choice::Grant);
        let change = |pointer: &str, value: Value| {
            let mut changed = good();
            *changed.pointer_mut(pointer).unwrap() = value;
            changed
        };
        for (changed, code) in [
            (change("/type", json!("view_submission")), "slack.body"),
            (change("/team/id", json!("T2")), "slack.workspace"),
            (change("/user/team_id", json!("T2")), "slack.workspace"),
            (change("/user/team_id", json!(null)), "slack.body"),
            (change("/api_app_id", json!("A2")), "slack.workspace"),
            (change("/team", json!(null)), "slack.body"),
            (change("/user/id", json!("<!here>")), "slack.body"),
            (change("/user/id", json!(7)), "slack.body"),
            (change("/actions", json!([])), "slack.body"),
            (change("/actions", json!([good()["actions"][0], good()["actions"][0]])), "slack.body"),
            (change("/actions/0/action_id", json!("approve_all")), "slack.body"),
            (change("/actions/0/value", json!("apr_a b")), "slack.body"),
            (change("/container/message_ts", json!(1.2)), "slack.body"),
            (json!([]), "slack.body"),
            (json!("block_actions"), "slack.body"),
        ] {
            assert_eq!(click(&changed, &connection).unwrap_err().code(), code, "{changed}");
        }
    }

    #[test]
    fn the_body_is_one_field() {
        let form = |pairs: &[(&str, &str)]| {
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes()
        };
        assert_eq!(payload(&form(&[("payload", r#"{"a":"b c&d"}"#)])), Some(json!({"a": "b c&d"})));
        for body in [
            form(&[]),
            form(&[("payload", "{}"), ("payload", "{}")]),
            form(&[("payload", "{}"), ("x", "")]),
            form(&[("Payload", "{}")]),
            form(&[("payload", "{")]),
            b"{}".to_vec(),
            vec![0xff, 0xfe],
        ] {
            assert_eq!(payload(&body), None, "{body:?}");
        }
    }
}
