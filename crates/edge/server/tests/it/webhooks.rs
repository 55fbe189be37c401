//! Webhooks against real targets on loopback, good ones and all the others.

use crate::support::{Answer, World};
use act::{Clock as _, Method};
use custody::Secret;
use notify::webhook::post::SAVE_MS;
use notify::webhook::schedule::{ATTEMPTS_MAX, FAILING_MS_MAX};
use notify::webhook::signature;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use testkit::VirtualClock;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const OTHER: &str = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=";
/// A day: the built-in policy outlives most jumps of these tests' clocks.
const LONG_MS: i64 = 24 * 60 * 60 * 1000;

/// What a target says.
#[derive(Clone)]
enum Say {
    Status(u16),
    /// With one more line in the head.
    With(u16, String),
    /// Nothing, as long as the test lasts.
    Hang,
    /// A head, and then a body that never ends.
    Endless,
}

/// A delivery.
#[derive(Debug, Clone, PartialEq)]
struct Taken {
    path: String,
    id: String,
    timestamp: i64,
    signature: String,
    body: Vec<u8>,
}

impl Taken {
    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.event()["type"].as_str().unwrap().to_owned()
    }
}

/// A target: says what it is told to, and then `otherwise`.
struct Target {
    url: String,
    says: Arc<Mutex<VecDeque<Say>>>,
    otherwise: Arc<Mutex<Say>>,
    taken: watch::Receiver<Vec<Taken>>,
    _set: JoinSet<()>,
}

impl Target {
    async fn start(otherwise: Say) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in/secret-path", listener.local_addr().unwrap());
        let (says, otherwise) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Mutex::new(otherwise)));
        let (tell, taken) = watch::channel(Vec::new());
        let tell = Arc::new(tell);
        let mut set = JoinSet::new();
        let (s, o) = (says.clone(), otherwise.clone());
        set.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, s.clone(), o.clone(), tell.clone()));
            }
        });
        Target { url, says, otherwise, taken, _set: set }
    }

    /// Waits until so many deliveries came; all of them.
    async fn until(&self, count: usize) -> Vec<Taken> {
        self.taken.clone().wait_for(|taken| taken.len() >= count).await.unwrap().clone()
    }

    fn so_far(&self) -> Vec<Taken> {
        self.taken.borrow().clone()
    }

    fn says(&self, says: impl IntoIterator<Item = Say>) {
        self.says.lock().extend(says);
    }
}

async fn serve(
    stream: TcpStream,
    says: Arc<Mutex<VecDeque<Say>>>,
    otherwise: Arc<Mutex<Say>>,
    tell: Arc<watch::Sender<Vec<Taken>>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let header =
            |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let mut body = vec![0; header("content-length").map_or(0, |text| text.parse().unwrap())];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let say = says.lock().pop_front().unwrap_or_else(|| otherwise.lock().clone());
        let taken = Taken {
            path,
            id: header("webhook-id").unwrap(),
            timestamp: header("webhook-timestamp").unwrap().parse().unwrap(),
            signature: header("webhook-signature").unwrap(),
            body,
        };
        tell.send_modify(|all| all.push(taken));
        let answer = match say {
            Say::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
            Say::With(status, line) => format!("HTTP/1.1 {status} X\r\n{line}\r\nContent-Length: 0\r\n\r\n"),
            Say::Hang => std::future::pending().await,
            Say::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                while stream.write_all(format!("400\r\n{}\r\n", "x".repeat(1024)).as_bytes()).await.is_ok() {}
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A server whose clock stands still until it is moved.
async fn still() -> (World, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::default());
    let world = World::start_at(clock.clone(), |config| config.policy_ttl_ms = LONG_MS).await;
    (world, clock)
}

async fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.admin(Method::Post, path).json(body).send().await
}

async fn subscribe(world: &World, target: &Target, kinds: &[&str]) -> String {
    let body = json!({"target": target.url, "secret": SECRET, "kinds": kinds});
    post(world, "/v1/webhooks", &body).await.ok()["webhook"].as_str().unwrap().to_owned()
}

async fn shown(world: &World, webhook: &str) -> Value {
    world.admin(Method::Get, &format!("/v1/webhooks/{webhook}")).send().await.ok()
}

async fn does(world: &World, webhook: &str, verb: &str, body: &Value) -> Answer {
    post(world, &format!("/v1/webhooks/{webhook}/{verb}"), body).await
}

async fn letters(world: &World, webhook: &str) -> Vec<Value> {
    let list = world.admin(Method::Get, &format!("/v1/webhook-letters?webhook={webhook}")).send().await.ok();
    list["items"].as_array().unwrap().clone()
}

/// Looks whenever something was recorded, until the webhook is as wanted.
async fn until(world: &World, webhook: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut facts = world.house().store.hints().facts;
    loop {
        facts.mark_unchanged();
        let shown = shown(world, webhook).await;
        if wanted(&shown) {
            return shown;
        }
        facts.changed().await.unwrap();
    }
}

/// Something happens: a principal is made.
async fn happens(world: &World, name: &str) {
    post(world, "/v1/principals", &json!({"name": name, "kind": "person", "roles": []})).await.ok();
}

fn signed_by(secret: &str, taken: &Taken) -> bool {
    let key = signature::key(&Secret::new(secret.as_bytes().to_vec())).unwrap();
    let made = signature::signatures(&[key], &taken.id, taken.timestamp, &taken.body);
    taken.signature.split(' ').any(|signature| signature == made)
}

const MADE: &str = "access.principal.created";

#[tokio::test]
async fn facts_come_in_order_signed_and_no_others() {
    let (world, clock) = still().await;
    let target = Target::start(Say::Status(204)).await;
    let webhook = subscribe(&world, &target, &["access.principal.*"]).await;
    for name in ["one", "two", "three"] {
        happens(&world, name).await;
    }
    does(&world, &webhook, "test", &json!({})).await.ok();
    let taken = target.until(4).await;
    let log = world.leaves(&world.tenant(), 0).await;
    for one in &taken {
        assert!(signed_by(SECRET, one) && !signed_by(OTHER, one));
        assert_eq!(one.timestamp, clock.now_ms() / 1000);
        let event = one.event();
        let index: usize = event["logindex"].as_str().unwrap().parse().unwrap();
        // The same shape as the feed, the very words of the log.
        assert_eq!(event, notify::event::cloud(index as u64, log[index].clone()));
        assert_eq!((&event["id"], one.path.as_str()), (&json!(one.id), "/in/secret-path"));
    }
    let kinds: Vec<String> = taken.iter().map(Taken::kind).collect();
    assert_eq!(kinds, [MADE, MADE, MADE, "notify.webhook.tested"]);
    let facts = format!("{:?}", world.leaves(&world.tenant(), 0).await);
    assert!(!facts.contains("secret-path") && !facts.contains("whsec_"), "neither stands in a fact");
    let text = shown(&world, &webhook).await.to_string();
    assert!(!text.contains("whsec_") && !text.contains("sealed"), "{text}");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_repeats_nothing_that_was_ended_in_order() {
    let world = World::start().await;
    let target = Target::start(Say::Status(200)).await;
    let webhook = subscribe(&world, &target, &["access.principal.*"]).await;
    happens(&world, "one").await;
    target.until(1).await;
    let world = world.restart().await;
    assert_eq!(shown(&world, &webhook).await["sent"], 1, "what was taken is written down at the end");
    happens(&world, "two").await;
    let taken = target.until(2).await;
    assert_eq!(taken.len(), 2);
    assert_ne!(taken[0].id, taken[1].id);
    world.running.shutdown().await;
}

#[tokio::test]
async fn what_fails_comes_again_later_and_nothing_overtakes_it() {
    let (world, clock) = still().await;
    let target = Target::start(Say::Status(200)).await;
    let elsewhere = Target::start(Say::Status(200)).await;
    target.says([
        Say::Status(500),
        Say::With(429, "Retry-After: 90".into()),
        Say::With(302, format!("Location: {}", elsewhere.url)),
        Say::Status(404),
    ]);
    let webhook = subscribe(&world, &target, &["access.principal.*"]).await;
    happens(&world, "one").await;
    happens(&world, "two").await;
    for (attempt, (code, status, least_ms)) in [
        ("webhook.status", 500, 5_000),
        ("webhook.throttled", 429, 90_000),
        ("webhook.status", 302, 120_000),
        ("webhook.status", 404, 600_000),
    ]
    .into_iter()
    .enumerate()
    {
        let shown = until(&world, &webhook, |shown| shown["failing"]["attempts"] == attempt + 1).await;
        let failing = &shown["failing"];
        assert_eq!((&failing["code"], &failing["status"]), (&json!(code), &json!(status)));
        let wait_ms = failing["next_at_ms"].as_i64().unwrap() - clock.now_ms();
        assert!((least_ms..=least_ms * 5 / 4).contains(&wait_ms), "{code} {status}: {wait_ms}");
        clock.advance_ms(wait_ms);
    }
    let taken = target.until(6).await;
    assert!(taken[..5].iter().all(|one| one.id == taken[0].id), "one event, one id");
    assert!(taken[4].timestamp > taken[0].timestamp, "each attempt is signed anew");
    assert!(taken.iter().all(|one| signed_by(SECRET, one)));
    assert_ne!(taken[5].id, taken[0].id);
    assert!(elsewhere.so_far().is_empty(), "a redirect is not followed");
    let shown = until(&world, &webhook, |shown| shown["failing"].is_null()).await;
    assert_eq!(shown["letters"], 0);
    world.running.shutdown().await;
}

/// Lets the clock run from attempt to attempt until the webhook is as wanted.
async fn attempts(
    world: &World,
    clock: &VirtualClock,
    webhook: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let mut before = i64::MIN;
    loop {
        let shown = until(world, webhook, |shown| {
            wanted(shown) || shown["failing"]["next_at_ms"].as_i64().is_some_and(|next_ms| next_ms != before)
        })
        .await;
        if wanted(&shown) {
            return shown;
        }
        before = shown["failing"]["next_at_ms"].as_i64().unwrap();
        clock.advance_ms((before - clock.now_ms()).max(0));
    }
}

#[tokio::test]
async fn what_is_never_taken_is_a_dead_letter_that_can_be_replayed_or_thrown_away() {
    let (world, clock) = still().await;
    let target = Target::start(Say::Status(200)).await;
    target.says((0..ATTEMPTS_MAX).map(|_| Say::Status(500)));
    let webhook = subscribe(&world, &target, &["access.principal.*"]).await;
    happens(&world, "one").await;
    happens(&world, "two").await;
    attempts(&world, &clock, &webhook, |shown| shown["letters"] == 1).await;
    // The next one is not held up by it.
    let taken = target.until(ATTEMPTS_MAX as usize + 1).await;
    let dead_id = taken[0].id.clone();
    assert_ne!(taken.last().unwrap().id, dead_id);
    let letter = letters(&world, &webhook).await.remove(0);
    assert_eq!((&letter["webhook_id"], &letter["kind"]), (&json!(dead_id), &json!(MADE)));
    assert_eq!(
        (&letter["attempts"], &letter["error"]["code"]),
        (&json!(ATTEMPTS_MAX), &json!("webhook.status"))
    );
    assert!(letter["cause"].is_string() && letter["page"] == "docs/errors/webhook.status.md");
    let path = format!("/v1/webhook-letters/{webhook}/{}", letter["letter"].as_str().unwrap());
    let whole = world.admin(Method::Get, &path).send().await.ok();
    assert_eq!(whole["event"], taken[0].event(), "what is sent again is what was not taken");
    // Not taken again: it stays, with the new cause.
    target.says([Say::Status(503)]);
    post(&world, &format!("{path}/replay"), &json!({})).await.ok();
    let mut facts = world.house().store.hints().facts;
    while letters(&world, &webhook).await[0]["attempts"] != ATTEMPTS_MAX + 1 {
        facts.changed().await.unwrap();
    }
    assert_eq!(letters(&world, &webhook).await[0]["error"]["status"], 503);
    // Taken: it is gone.
    post(&world, &format!("{path}/replay"), &json!({})).await.ok();
    until(&world, &webhook, |shown| shown["letters"] == 0).await;
    assert!(letters(&world, &webhook).await.is_empty());
    assert_eq!(target.so_far().last().unwrap().id, dead_id, "under the same id");
    post(&world, &format!("{path}/replay"), &json!({})).await.refused(404, "not_found");
    // Another one is thrown away.
    target.says((0..ATTEMPTS_MAX).map(|_| Say::Status(500)));
    happens(&world, "three").await;
    attempts(&world, &clock, &webhook, |shown| shown["letters"] == 1).await;
    let letter = letters(&world, &webhook).await[0]["letter"].as_str().unwrap().to_owned();
    let path = format!("/v1/webhook-letters/{webhook}/{letter}/discard");
    post(&world, &path, &json!({})).await.ok();
    assert_eq!(shown(&world, &webhook).await["letters"], 0);
    post(&world, &path, &json!({})).await.refused(404, "not_found");
    world.running.shutdown().await;
}

#[tokio::test]
async fn e14_who_is_gone_or_fails_for_days_is_disabled_and_others_hear_of_it() {
    let (world, clock) = still().await;
    let (target, watcher) = (Target::start(Say::Status(410)).await, Target::start(Say::Status(200)).await);
    let webhook = subscribe(&world, &target, &["access.principal.*"]).await;
    subscribe(&world, &watcher, &["notify.webhook.disabled"]).await;
    happens(&world, "one").await;
    let gone = until(&world, &webhook, |shown| shown["state"] == "disabled").await;
    assert_eq!((&gone["why"], &gone["letters"]), (&json!("webhook.gone"), &json!(0)));
    assert!(gone["cause"].is_string());
    let told = watcher.until(1).await.remove(0).event();
    assert_eq!(told["data"]["outcome"]["why"], "webhook.gone");
    does(&world, &webhook, "test", &json!({})).await.refused(409, "webhook.state");
    happens(&world, "meanwhile").await;
    // From where it stopped: what was refused and what happened since.
    *target.otherwise.lock() = Say::Status(200);
    does(&world, &webhook, "resume", &json!({})).await.ok();
    let taken = target.until(3).await;
    assert_eq!(taken[0].id, taken[1].id);
    // For days: the clock moves on between two attempts.
    *target.otherwise.lock() = Say::Status(500);
    happens(&world, "three").await;
    until(&world, &webhook, |shown| shown["failing"]["attempts"] == 1).await;
    clock.advance_ms(FAILING_MS_MAX);
    // Beyond the life of the built-in policy; the next round renews it.
    let failing = until_allowed(&world, &clock, &webhook).await;
    assert_eq!(failing["why"], "webhook.failing");
    let told = watcher.until(2).await.remove(1).event();
    assert_eq!(told["data"]["outcome"]["why"], "webhook.failing");
    // From now on: what happened meanwhile is left out.
    happens(&world, "left out").await;
    *target.otherwise.lock() = Say::Status(200);
    let before = target.so_far().len();
    does(&world, &webhook, "resume", &json!({"from": "now"})).await.ok();
    happens(&world, "last").await;
    let taken = target.until(before + 1).await;
    let newest =
        world.leaves(&world.tenant(), 0).await.into_iter().rfind(|leaf| leaf["kind"] == MADE).unwrap();
    assert_eq!(taken.last().unwrap().id, newest["id"].as_str().unwrap());
    world.running.shutdown().await;
}

/// Waits until the webhook is disabled, over the renewal of a policy that a jump of the clock has outrun.
async fn until_allowed(world: &World, clock: &VirtualClock, webhook: &str) -> Value {
    let mut facts = world.house().store.hints().facts;
    loop {
        facts.mark_unchanged();
        let answer = world.admin(Method::Get, &format!("/v1/webhooks/{webhook}")).send().await;
        if answer.status == 200 && answer.json()["state"] == "disabled" {
            return answer.json();
        }
        facts.changed().await.unwrap();
        // Whoever was refused under the old policy rests for a minute.
        clock.advance_ms(60_000);
    }
}

#[tokio::test]
async fn targets_that_hang_delay_neither_others_nor_jobs() {
    let world = World::start_with(|config| config.limits.webhook_call_ms = 600_000).await;
    let (hanging, good) = (Target::start(Say::Hang).await, Target::start(Say::Status(200)).await);
    // As many as there may be, but for one, and all of them hang.
    for _ in 1..notify::webhook::endpoint::ENDPOINTS_MAX {
        subscribe(&world, &hanging, &[MADE]).await;
    }
    subscribe(&world, &good, &[MADE]).await;
    let more = json!({"target": good.url, "secret": SECRET});
    post(&world, "/v1/webhooks", &more).await.refused(409, "webhook.limit");
    happens(&world, "one").await;
    hanging.until(notify::webhook::endpoint::ENDPOINTS_MAX as usize - 1).await;
    // All hold a connection now, for ten minutes; the good one goes on, and so do jobs.
    happens(&world, "two").await;
    assert_eq!(good.until(2).await.len(), 2);
    world.second_tenant().await;
    crate::acts::policy_publish(&world, "").await;
    happens(&world, "three").await;
    good.until(3).await;
    // And the end does not wait for them.
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_target_that_is_too_slow_has_failed_and_one_that_never_stops_talking_has_not() {
    let world = World::start_with(|config| config.limits.webhook_call_ms = 250).await;
    let (slow, endless) = (Target::start(Say::Hang).await, Target::start(Say::Endless).await);
    let silent = subscribe(&world, &slow, &[MADE]).await;
    let talking = subscribe(&world, &endless, &[MADE]).await;
    happens(&world, "one").await;
    let failing = until(&world, &silent, |shown| !shown["failing"].is_null()).await;
    let code = failing["failing"]["code"].as_str().unwrap().to_owned();
    assert!(["egress.first_byte_timeout", "egress.deadline_exceeded"].contains(&code.as_str()), "{code}");
    assert!(world.house().config.limits.webhook_call_ms < 1000);
    happens(&world, "two").await;
    let taken = endless.until(2).await;
    assert_ne!(taken[0].id, taken[1].id, "a head is an answer");
    assert!(shown(&world, &talking).await["failing"].is_null());
    world.running.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_that_wants_everything_makes_nothing_that_it_wants() {
    let (world, clock) = still().await;
    let target = Target::start(Say::Status(200)).await;
    let webhook = subscribe(&world, &target, &[]).await;
    let own = |taken: &[Taken]| {
        taken.iter().filter(|one| one.event()["data"]["act"] == "notify.webhook.record").count()
    };
    for round in 1..=3_usize {
        // Two: when the second has come, the first is known to be taken, and since when.
        happens(&world, &format!("first of round {round}")).await;
        happens(&world, &format!("second of round {round}")).await;
        target.until(1 + 2 * round).await;
        clock.advance_ms(SAVE_MS);
        until(&world, &webhook, |shown| shown["sent"] == 1 + 2 * round).await;
    }
    let count = |leaves: &[Value], kind: &str| leaves.iter().filter(|leaf| leaf["kind"] == kind).count();
    let leaves = world.leaves(&world.tenant(), 0).await;
    // One for each round, and none for having written one down.
    assert_eq!(count(&leaves, "notify.webhook.advanced"), 3);
    let taken = target.so_far();
    // Its own creation is the first.
    assert_eq!((taken.len(), own(&taken)), (7, 0));
    assert_eq!(taken[0].kind(), "notify.webhook.created");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_secret_is_changed_without_a_gap() {
    let (world, clock) = still().await;
    let target = Target::start(Say::Status(200)).await;
    let webhook = subscribe(&world, &target, &[MADE]).await;
    let by = async |name: &str, count: usize| {
        happens(&world, name).await;
        let taken = target.until(count).await.pop().unwrap();
        (signed_by(SECRET, &taken), signed_by(OTHER, &taken))
    };
    assert_eq!(by("one", 1).await, (true, false));
    does(&world, &webhook, "rotate", &json!({"secret": OTHER, "overlap_ms": 60_000})).await.ok();
    assert_eq!(by("two", 2).await, (true, true));
    clock.advance_ms(60_000);
    assert_eq!(by("three", 3).await, (false, true));
    does(&world, &webhook, "rotate", &json!({"secret": SECRET, "overlap_ms": 0})).await.ok();
    assert_eq!(by("four", 4).await, (true, false));
    world.running.shutdown().await;
}

#[tokio::test]
async fn pausing_keeps_the_place_and_deleting_forgets() {
    let world = World::start().await;
    let target = Target::start(Say::Status(200)).await;
    let webhook = subscribe(&world, &target, &[MADE]).await;
    happens(&world, "one").await;
    target.until(1).await;
    does(&world, &webhook, "pause", &json!({})).await.ok();
    does(&world, &webhook, "pause", &json!({})).await.refused(409, "webhook.state");
    happens(&world, "two").await;
    does(&world, &webhook, "resume", &json!({"from": "cursor"})).await.ok();
    does(&world, &webhook, "resume", &json!({})).await.refused(409, "webhook.state");
    let newest =
        world.leaves(&world.tenant(), 0).await.into_iter().rfind(|leaf| leaf["kind"] == MADE).unwrap();
    let id = newest["id"].as_str().unwrap().to_owned();
    target.taken.clone().wait_for(|taken| taken.iter().any(|one| one.id == id)).await.unwrap();
    does(&world, &webhook, "delete", &json!({})).await.ok();
    does(&world, &webhook, "test", &json!({})).await.refused(404, "not_found");
    assert_eq!(world.admin(Method::Get, "/v1/webhooks").send().await.ok()["items"], json!([]));
    world.running.shutdown().await;
}

#[tokio::test]
async fn e14_what_no_webhook_may_be() {
    let world = World::start_with(|config| config.private_hosts = vec!["127.0.0.1:7".into()]).await;
    let good = json!({"target": "https://hooks.example/in", "secret": SECRET});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, code) in [
        (with("target", json!("http://hooks.example/in")), "webhook.invalid"),
        (with("target", json!("http://127.0.0.1:9/in")), "webhook.invalid"),
        (with("target", json!("https://user:word@hooks.example/in")), "webhook.invalid"),
        (with("target", json!("ftp://hooks.example/in")), "webhook.invalid"),
        (with("target", json!(format!("https://hooks.example/{}", "x".repeat(1024)))), "webhook.invalid"),
        (with("secret", json!("hunter2")), "webhook.invalid"),
        (with("secret", json!("whsec_c2hvcnQ=")), "webhook.invalid"),
        (with("secret", json!(7)), "request.invalid"),
        (with("kinds", json!(["*"])), "webhook.invalid"),
        (with("kinds", json!(["flows.run.finishd"])), "webhook.invalid"),
        (with("kinds", json!(["flows.*", "flow.*"])), "webhook.invalid"),
        (with("note", json!("two\nlines")), "webhook.invalid"),
        (with("after", json!(1_000_000)), "webhook.invalid"),
        (with("more", json!(1)), "request.invalid"),
    ] {
        let answer = post(&world, "/v1/webhooks", &body).await;
        assert!([400, 422].contains(&answer.status), "{} {body}", answer.text());
        assert_eq!(answer.code(), code, "{body}");
        assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    }
    post(&world, "/v1/webhooks", &with("target", json!("http://127.0.0.1:7/in"))).await.ok();
    // A private address behind https is refused where every address is judged: when it is to be connected to.
    let private = post(&world, "/v1/webhooks", &with("target", json!("https://127.0.0.1:9/in"))).await.ok();
    let private = private["webhook"].as_str().unwrap();
    let failing = until(&world, private, |shown| !shown["failing"].is_null()).await;
    assert_eq!(failing["failing"]["code"], "egress.address_refused");
    // Nobody but an administrator makes one, and nobody sees another tenant's.
    let (_, operator) = world.principal("operator", &["operator"]).await;
    let asked = world.ask(Method::Post, "/v1/webhooks").key(&operator).json(&good).send().await;
    asked.refused(403, "access.role_missing");
    let other = world.second_tenant().await;
    let path = format!("/v1/webhooks/{private}");
    let ask = world.ask(Method::Get, &path).key(&world.admin).header("Writ-Tenant", other.as_str());
    ask.send().await.refused(404, "not_found");
    world.running.shutdown().await;
}
