//! Approvals in Slack's stand-in: cards, clicks, and everything that is no click.

use crate::acts::policy_publish;
use crate::support::{Answer, World};
use act::{Clock as _, Method};
use sandbox::{
    Credentials, Fault, FaultRule, Sandbox, Service, SlackCallback, SlackClick, SlackConfig, SlackMessage,
};
use serde_json::{Value, json};
use std::sync::Arc;
use store::SystemClock;

/// "waits" needs one person of the first tier, "pair" two, "high" one of the second.
const RULES: &str = r#"
required := {"reason": "approval.test", "tier": 1, "approvals": 1} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "waits")
}

required := {"reason": "approval.test", "tier": 1, "approvals": 2} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "pair")
}

required := {"reason": "approval.test", "tier": 2, "approvals": 1} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "high")
}
"#;

/// A server that is connected to Slack's stand-in.
struct Room<'a> {
    world: &'a World,
    slack: Sandbox,
    callback: String,
}

/// A code that a Slack user of a stand-in was offered, for a link; for the tests that walk the table.
pub async fn link_code(world: &World) -> String {
    let room = Room::open(world).await;
    let approval = room.asked(&world.unused("waits for a code")).await;
    // Somebody whom no example has linked.
    let user = world.unused("U0NEW").replace(' ', "");
    let code = room.code(&approval, &user).await;
    world.admin(Method::Post, "/v1/slack/disconnect").json(&json!({})).send().await.ok();
    code
}

impl<'a> Room<'a> {
    async fn open(world: &'a World) -> Room<'a> {
        policy_publish(world, RULES).await;
        let secret = |text: &str| text.to_owned();
        let credentials = Credentials {
            user_name: secret("unused"),
            password: secret("unused"),
            bearer_token: secret("unused"),
            model_key: secret("unused"),
            webhook_secret: secret("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
            control_token: secret("unused"),
        };
        let mut config = sandbox::Config::new(Arc::new(|| SystemClock.now_ms()), credentials);
        let user = |id: &str| (id.to_owned(), id.to_lowercase());
        let strangers = (0..200).map(|n| (format!("U0NEW{n}"), format!("stranger {n}")));
        config.slack = Some(SlackConfig {
            team: "T0ACME".into(),
            app: "A0WRIT".into(),
            bot_user: "U0BOT".into(),
            bot_token: "canary-value-4711-token".into(),
            signing_secret: "canary-value-4711-signing".into(),
            channels: vec!["C0ONE".into(), "C0TWO".into()],
            users: ["U0EVE", "U0FAY", "U0JOE"].map(user).into_iter().chain(strangers).collect(),
        });
        let slack = Sandbox::start(config).await.unwrap();
        for (name, value) in [("bot", "canary-value-4711-token"), ("signing", "canary-value-4711-signing")] {
            let put = json!({"name": name, "purpose": "a test", "value": value});
            world.admin(Method::Post, "/v1/secrets").json(&put).send().await.ok();
        }
        let mut room = Room { world, slack, callback: String::new() };
        room.callback = room.connect("C0ONE").await;
        room
    }

    /// Connects; what needs the second tier is shown in C0TWO.
    async fn connect(&self, first: &str) -> String {
        let connect = json!({
            "team": "T0ACME", "app": "A0WRIT", "bot_token": "secret:bot", "signing_secret": "secret:signing",
            "channels": {"1": first, "2": "C0TWO"}, "base_url": format!("{}/slack/api", self.slack.base_url()),
            "link_base": "https://writ.example",
        });
        let done = self.world.admin(Method::Put, "/v1/slack").json(&connect).send().await.ok();
        done["callback"].as_str().unwrap().to_owned()
    }

    /// Asks for something that waits; its approval.
    async fn asked(&self, name: &str) -> String {
        let body = json!({"name": name, "kind": "person", "roles": []});
        let answer = self.world.admin(Method::Post, "/v1/principals").json(&body).send().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json()["approval"].as_str().unwrap().to_owned()
    }

    async fn shown(&self, approval: &str) -> Value {
        self.world.admin(Method::Get, &format!("/v1/approvals/{approval}")).send().await.ok()
    }

    async fn status(&self, approval: &str) -> String {
        self.shown(approval).await["status"].as_str().unwrap().to_owned()
    }

    /// Looks whenever something was recorded, until it is there.
    async fn until<T>(&self, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let mut facts = self.world.house().store.hints().facts;
        loop {
            facts.mark_unchanged();
            if let Some(found) = look().await {
                return found;
            }
            facts.changed().await.unwrap();
        }
    }

    /// The fact of this kind about an approval whose outcome has members that begin like these, once it is there.
    async fn fact(&self, kind: &str, approval: &str, with: &[(&str, &str)]) -> Value {
        let mut facts = self.world.house().store.hints().facts;
        loop {
            facts.mark_unchanged();
            for fact in self.world.leaves(&self.world.tenant(), 0).await {
                let outcome = &fact["outcome"];
                let mut fits = fact["kind"] == kind && outcome["approval"] == approval;
                for (name, start) in with {
                    fits &= outcome[*name].as_str().unwrap_or_default().starts_with(start);
                }
                if fits {
                    return fact;
                }
            }
            facts.changed().await.unwrap();
        }
    }

    /// The card of an approval, once it is sent and recorded as sent.
    async fn card(&self, approval: &str) -> SlackMessage {
        let sent = self.fact("notify.card.sent", approval, &[]).await;
        let ts = sent["outcome"]["ts"].as_str().unwrap().to_owned();
        self.slack.slack_messages().into_iter().find(|message| message.ts == ts).unwrap()
    }

    fn callback(&self, card: &SlackMessage, user: &str, action: &str) -> SlackCallback {
        self.slack.slack_click(&click(card, user, action)).unwrap()
    }

    async fn send(&self, callback: &SlackCallback) -> Answer {
        self.send_to(&self.callback, callback).await
    }

    async fn send_to(&self, path: &str, callback: &SlackCallback) -> Answer {
        let mut ask = self.world.ask(Method::Post, path).raw(callback.body.as_bytes());
        for (name, value) in &callback.headers {
            ask = ask.header(name, value);
        }
        ask.send().await
    }

    /// Clicks and waits for the answer; its fact.
    async fn clicked(&self, approval: &str, user: &str, action: &str) -> Value {
        let card = self.card(approval).await;
        self.send(&self.callback(&card, user, action)).await.ok();
        self.fact("notify.click.answered", approval, &[("user", user)]).await["outcome"].clone()
    }

    /// What only this user sees, newest last.
    fn told(&self, user: &str) -> Vec<String> {
        let messages = self.slack.slack_messages().into_iter();
        messages
            .filter(|message| message.only_for.as_deref() == Some(user))
            .map(|message| message.text)
            .collect()
    }

    /// The code that a Slack user is offered by clicking.
    async fn code(&self, approval: &str, user: &str) -> String {
        let card = self.card(approval).await;
        self.send(&self.callback(&card, user, "approval_grant")).await.ok();
        self.fact("notify.link.offered", approval, &[("user", user)]).await;
        let told = self.told(user).pop().unwrap();
        told.split("--code ").nth(1).unwrap().split('`').next().unwrap().to_owned()
    }

    async fn link(&self, key: &str, code: &str) -> Answer {
        self.world.ask(Method::Post, "/v1/slack/links").key(key).json(&json!({"code": code})).send().await
    }

    /// A person with these roles who is linked to a Slack user: id and key.
    async fn linked(&self, user: &str, roles: &[&str]) -> (String, String) {
        let (id, key) = self.world.principal(&user.to_lowercase(), roles).await;
        let approval = self.asked(&format!("waits to link {}", user.to_lowercase())).await;
        let code = self.code(&approval, user).await;
        self.link(&key, &code).await.ok();
        (id, key)
    }
}

fn click(card: &SlackMessage, user: &str, action: &str) -> SlackClick {
    SlackClick {
        user: user.into(),
        channel: card.channel.clone(),
        ts: card.ts.clone(),
        action_id: action.into(),
        ..SlackClick::default()
    }
}

#[tokio::test]
async fn a_click_by_a_linked_person_grants_and_the_card_says_so() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    let (eve, _) = room.linked("U0EVE", &["approver"]).await;
    let approval = room.asked("waits for eve").await;
    let card = room.card(&approval).await;
    assert_eq!(card.channel, "C0ONE");
    assert_eq!(card.buttons().len(), 2);
    let answered = room.clicked(&approval, "U0EVE", "approval_grant").await;
    assert_eq!((&answered["decided"], &answered["principal"]), (&json!(true), &json!(eve)));
    room.fact("notify.card.sent", &approval, &[("face", "used")]).await;
    let shown = room.shown(&approval).await;
    assert_eq!((&shown["status"], &shown["grants"][0]["approver"]), (&json!("used"), &json!(eve)));
    let now = room.slack.slack_messages().into_iter().find(|message| message.ts == card.ts).unwrap();
    assert!(now.text.starts_with("Granted and carried out") && now.buttons().is_empty(), "{now:?}");
    // The fact says how sure we were of who it was.
    let leaves = room.world.leaves(&room.world.tenant(), 0).await;
    let granted = leaves.iter().find(|leaf| leaf["kind"] == "governor.approval.granted").unwrap();
    assert_eq!((&granted["actor"], &granted["assurance"]), (&json!(eve), &json!("slack")));
    // A second card: declined, and one that nobody clicks: denied through the API.
    let second = room.asked("waits and is declined").await;
    room.clicked(&second, "U0EVE", "approval_deny").await;
    room.fact("notify.card.sent", &second, &[("face", "denied")]).await;
    assert_eq!(room.status(&second).await, "denied");
    let text =
        format!("{:?} {:?}", room.world.leaves(&room.world.tenant(), 0).await, room.slack.slack_messages());
    assert!(!text.contains("canary-value-4711"), "a secret got out: {text}");
    world.running.shutdown().await;
}

#[tokio::test]
async fn what_is_no_click_changes_nothing_and_is_counted_once() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    room.linked("U0EVE", &["approver"]).await;
    let approval = room.asked("waits").await;
    let card = room.card(&approval).await;
    server::rounds::refused(room.world.house().clone()).await;
    let before = room.world.leaves(&room.world.tenant(), 0).await.len() as u64;
    let good = click(&card, "U0EVE", "approval_grant");
    let now_ms = SystemClock.now_ms();
    let made = |click: SlackClick| room.slack.slack_click(&click).unwrap();
    let fresh = || made(good.clone());
    let mut forged = fresh();
    forged.body = forged.body.replace("approval_grant", "approval_deny");
    let mut unsigned = fresh();
    unsigned.headers.retain(|(name, _)| name != "x-slack-signature");
    let mut doubled = fresh();
    doubled.headers.push(("x-slack-signature".into(), "v0=00".into()));
    let mut guessed = fresh();
    guessed.headers.retain(|(name, _)| name != "x-slack-signature");
    guessed.headers.push(("x-slack-signature".into(), format!("v0={}", "0".repeat(64))));
    let elsewhere = SlackMessage { ts: "1.000001".into(), ..card.clone() };
    let with = |change: fn(&mut SlackClick)| {
        let mut click = SlackClick { value: Some(card.buttons()[0].1.clone()), ..good.clone() };
        change(&mut click);
        made(click)
    };
    let late = made(SlackClick { at_ms: Some(now_ms - 301_000), ..good.clone() });
    let early = made(SlackClick { at_ms: Some(now_ms + 302_000), ..good.clone() });
    for (what, callback, status, code) in [
        ("forged", forged, 401, "slack.signature"),
        ("unsigned", unsigned, 401, "slack.headers"),
        ("doubled", doubled, 401, "slack.headers"),
        ("guessed", guessed, 401, "slack.signature"),
        ("late", late, 401, "slack.stale"),
        ("early", early, 401, "slack.stale"),
        ("another workspace", with(|click| click.team = Some("T0OTHER".into())), 403, "slack.workspace"),
        (
            "a guest of another",
            with(|click| click.user_team = Some("T0OTHER".into())),
            403,
            "slack.workspace",
        ),
        ("another app", with(|click| click.app = Some("A0OTHER".into())), 403, "slack.workspace"),
        ("another button", with(|click| click.action_id = "approve_all".into()), 422, "slack.body"),
        ("no card", with(|click| click.value = Some("crd_none".into())), 409, "slack.card"),
        ("an approval for a card", with(|click| click.value = Some("apr_x<y".into())), 422, "slack.body"),
        (
            "elsewhere",
            made(SlackClick {
                value: Some(card.buttons()[0].1.clone()),
                ..click(&elsewhere, "U0EVE", "approval_grant")
            }),
            409,
            "slack.card",
        ),
    ] {
        let answer = room.send(&callback).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {}", answer.text());
    }
    let nowhere = room.send_to("/v1/slack-hooks/slh_nobody", &fresh()).await;
    nowhere.refused(401, "slack.hook_unknown");
    assert_eq!(room.world.size(&room.world.tenant()).await, before, "nothing was recorded for any of them");
    assert_eq!(room.status(&approval).await, "pending");
    // A click that was taken is not taken again, however often it is sent.
    let callback = fresh();
    room.send(&callback).await.ok();
    room.fact("notify.click.answered", &approval, &[]).await;
    for _ in 0..3 {
        room.send(&callback).await.refused(409, "slack.replayed");
    }
    let leaves = room.world.leaves(&room.world.tenant(), 0).await;
    let received = leaves.iter().filter(|leaf| {
        leaf["kind"] == "notify.click.received" && leaf["outcome"]["approval"] == approval.as_str()
    });
    assert_eq!(received.count(), 1);
    // One fact per reason, with a count.
    server::rounds::refused(room.world.house().clone()).await;
    let platform = kernel::TenantId::platform();
    let leaves =
        [room.world.leaves(&room.world.tenant(), before).await, room.world.leaves(&platform, 0).await]
            .concat();
    let counted = |code: &str| {
        let facts = leaves
            .iter()
            .filter(|leaf| leaf["kind"] == "access.traffic.refused" && leaf["outcome"]["code"] == code);
        facts.map(|leaf| leaf["outcome"]["count"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    for (code, count) in [
        ("slack.signature", 2),
        ("slack.headers", 2),
        ("slack.stale", 2),
        ("slack.workspace", 3),
        ("slack.replayed", 3),
    ] {
        assert_eq!(counted(code), [count], "{code}");
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn a08_whoever_is_not_linked_decides_nothing_whatever_their_name() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    let (_, key) = room.world.principal("eve", &["approver"]).await;
    let (_, other) = room.world.principal("fay", &["approver"]).await;
    // People whom this installation and Slack call by the same name, or by the id, are not one for that.
    for name in ["u0eve", "T0ACME U0EVE", "u0eve@acme.example"] {
        room.world.principal(name, &["approver", "tenant_admin"]).await;
    }
    let approval = room.asked("waits").await;
    let code = room.code(&approval, "U0EVE").await;
    assert_eq!(room.status(&approval).await, "pending");
    let leaves = format!("{:?}", room.world.leaves(&room.world.tenant(), 0).await);
    assert!(!leaves.contains(&code), "a code stands in no fact");
    room.link(&key, "00000-00000").await.refused(422, "slack.code_invalid");
    room.link(&key, &code.to_lowercase()).await.ok();
    room.link(&other, &code).await.refused(422, "slack.code_invalid");
    // Linked once is linked; taking it back is one's own affair.
    let links = room.world.ask(Method::Get, "/v1/slack/links").key(&key).send().await.ok();
    let link = links["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((links["items"].as_array().unwrap().len(), &links["items"][0]["user"]), (1, &json!("U0EVE")));
    let remove = |key: &str| {
        room.world.ask(Method::Post, &format!("/v1/slack/links/{link}/remove")).key(key).json(&json!({}))
    };
    remove(&other).send().await.refused(403, "access.not_own");
    remove(&key).send().await.ok();
    let card = room.card(&approval).await;
    room.send(&room.callback(&card, "U0EVE", "approval_grant")).await.ok();
    room.until(async || (room.told("U0EVE").len() == 2).then_some(())).await;
    assert_eq!(room.status(&approval).await, "pending");
    world.running.shutdown().await;
}

#[tokio::test]
async fn two_people_click_at_once_and_one_decides() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    room.linked("U0EVE", &["approver"]).await;
    room.linked("U0FAY", &["approver"]).await;
    let approval = room.asked("waits").await;
    let card = room.card(&approval).await;
    let (eve, fay) =
        (room.callback(&card, "U0EVE", "approval_grant"), room.callback(&card, "U0FAY", "approval_deny"));
    let (first, second) = futures::join!(room.send(&eve), room.send(&fay));
    first.ok();
    second.ok();
    let mut decided = Vec::new();
    for user in ["U0EVE", "U0FAY"] {
        let answered = room.fact("notify.click.answered", &approval, &[("user", user)]).await;
        decided.push((answered["outcome"]["decided"] == true, answered["outcome"]["code"].clone()));
    }
    let won = decided.iter().position(|(decided, _)| *decided).expect("one of them decided");
    assert_eq!(decided[1 - won], (false, json!("approval.closed")));
    let ended = room
        .until(async || {
            let status = room.status(&approval).await;
            ["used", "denied"].contains(&status.as_str()).then_some(status)
        })
        .await;
    assert_eq!(ended, if won == 0 { "used" } else { "denied" });
    let told = room.told(["U0EVE", "U0FAY"][1 - won]).pop().unwrap();
    assert!(told.contains("approval.closed"), "{told}");
    // Two people where two are needed.
    let pair = room.asked("pair").await;
    room.clicked(&pair, "U0EVE", "approval_grant").await;
    assert_eq!(room.status(&pair).await, "pending");
    room.clicked(&pair, "U0FAY", "approval_grant").await;
    room.until(async || (room.status(&pair).await == "used").then_some(())).await;
    world.running.shutdown().await;
}

#[tokio::test]
async fn rights_are_looked_at_when_somebody_clicks() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    let (joe, _) = room.linked("U0JOE", &["approver"]).await;
    let (_, _) = room.linked("U0EVE", &["approver", "tenant_admin"]).await;
    let binding = joe.replace("prn_", "bnd_") + ".1";
    room.world.admin(Method::Delete, &format!("/v1/bindings/{binding}")).json(&json!({})).send().await.ok();
    let approval = room.asked("waits").await;
    let answered = room.clicked(&approval, "U0JOE", "approval_grant").await;
    assert_eq!((&answered["decided"], &answered["code"]), (&json!(false), &json!("access.role_missing")));
    // More than a click may decide: the way to do it instead is said, and nothing has happened.
    let high = room.asked("high").await;
    assert_eq!(room.card(&high).await.channel, "C0TWO");
    let answered = room.clicked(&high, "U0EVE", "approval_grant").await;
    assert_eq!((&answered["decided"], &answered["code"]), (&json!(false), &json!("approval.click_too_weak")));
    let told = room.told("U0EVE").pop().unwrap();
    for expected in
        [format!("writ approval grant {high}"), format!("https://writ.example/v1/approvals/{high}")]
    {
        assert!(told.contains(&expected), "{told}");
    }
    assert_eq!(room.status(&high).await, "pending");
    world.running.shutdown().await;
}

#[tokio::test]
async fn slack_may_be_busy_broken_or_wrong() {
    let world = World::start().await;
    let room = Room::open(&world).await;
    let busy = FaultRule::new(Service::Slack, Fault::RateLimited { retry_after_s: 1 });
    room.slack.fault_add(busy.path_contains("chat.postMessage").once()).unwrap();
    let approval = room.asked("waits while slack is busy").await;
    let failed = room.fact("notify.card.failed", &approval, &[]).await;
    assert_eq!(failed["outcome"]["code"], "slack.rate_limited");
    let waited = failed["outcome"]["retry_at_ms"].as_i64().unwrap() - failed["at_ms"].as_i64().unwrap();
    assert!(waited >= 1_000, "Retry-After was not obeyed: {waited}");
    room.card(&approval).await;
    assert_eq!(room.slack.slack_counts().posts, 1);
    // A channel that is not there is not there tomorrow either.
    room.connect("C0GONE").await;
    let lost = room.asked("waits in a channel that is gone").await;
    let dead = room.fact("notify.card.dead", &lost, &[]).await;
    assert_eq!(dead["outcome"]["word"], "channel_not_found");
    let list = room.world.admin(Method::Get, "/v1/slack/cards").send().await.ok();
    // What waited before is wanted in the new channel too, and is among them.
    let cards = list["items"].as_array().unwrap();
    let card = cards.iter().find(|card| card["approval"] == lost.as_str()).expect("it is given up");
    let card = card["id"].as_str().unwrap().to_owned();
    let retry = async |card: &str| {
        room.world.admin(Method::Post, &format!("/v1/slack/cards/{card}/retry")).json(&json!({})).send().await
    };
    retry(&card).await.ok();
    let sent = room.world.admin(Method::Get, "/v1/slack/cards?state=sent").send().await.ok();
    retry(sent["items"][0]["id"].as_str().unwrap()).await.refused(409, "slack.card_state");
    world.running.shutdown().await;
}
