//! Acts that wait for people, and events as they happen: through the whole house, over sockets.

use crate::acts::{WAITS, policy_publish};
use crate::support::{World, exchange};
use act::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;

/// Reads events from a stream of server-sent events.
struct Events(Lines<BufReader<TcpStream>>);

impl Events {
    async fn open(world: &World, key: &str, target: &str, headers: &[(&str, &str)]) -> Events {
        let mut ask = world.ask(Method::Get, target).key(key).header("Connection", "keep-alive");
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let mut lines = BufReader::new(ask.open().await).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK");
        Events(lines)
    }

    /// The next event's id, name and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            // Headers, comments and the sizes of chunks are passed over, but for the last chunk's.
            let line = self.0.next_line().await.ok()??;
            if line == "0" {
                return None;
            }
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("event: ") {
                name = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some((id, name, serde_json::from_str(text).unwrap()));
            }
        }
    }

    async fn until(&mut self, name: &str) -> (String, Value) {
        loop {
            let (id, found, data) = self.next().await.expect("the stream goes on");
            if found == name {
                return (id, data);
            }
        }
    }
}

#[tokio::test]
async fn an_act_waits_is_granted_and_is_carried_out() {
    let world = World::start().await;
    policy_publish(&world, WAITS).await;
    let (_, approver) = world.principal("approver", &["approver"]).await;
    let mut events = Events::open(
        &world,
        &world.admin,
        "/v1/events?kind=access.principal.",
        &[("Writ-Tenant", "ten_main")],
    )
    .await;
    let waiting = world
        .admin(Method::Post, "/v1/principals")
        .json(&json!({"name": "waits", "kind": "person", "roles": []}));
    let waiting = waiting.header("Idempotency-Key", "w1");
    let answer = waiting.send().await;
    assert_eq!((answer.status, answer.json()["status"].clone()), (202, json!("waiting")));
    assert_eq!(waiting.send().await.body, answer.body, "asking again is the same waiting act");
    let location = answer.header("location").unwrap().to_owned();
    let shown = world.ask(Method::Get, &location).key(&approver).send().await.ok();
    assert_eq!((&shown["status"], &shown["act"]), (&json!("pending"), &json!("access.principal.create")));
    // Nobody grants what they asked for, whatever their role.
    let grant = |key: &str| {
        world.ask(Method::Post, &format!("{location}/grant")).key(key).header("Writ-Tenant", "ten_main")
    };
    let digest = json!({"preview_digest": shown["preview_digest"]});
    grant(&world.admin).json(&digest).send().await.refused(403, "approval.self");
    grant(&approver)
        .json(&json!({"preview_digest": "0".repeat(64)}))
        .send()
        .await
        .refused(409, "approval.changed");
    grant(&approver).json(&digest).send().await.ok();
    let (_, created) = events.until("access.principal.created").await;
    assert_eq!(created["data"]["act"], "access.principal.create");
    grant(&approver).json(&digest).send().await.refused(409, "approval.closed");
    world.running.shutdown().await;
}

#[tokio::test]
async fn a16_events_go_on_where_they_stopped_and_end_with_the_key() {
    let world = World::start().await;
    let (_, key) = world.principal("watcher", &["operator"]).await;
    let make = async |name: &str| {
        let body = json!({"name": name, "kind": "person", "roles": []});
        world.admin(Method::Post, "/v1/principals").json(&body).send().await.ok();
    };
    let mut events = Events::open(&world, &key, "/v1/events?kind=access.principal.created", &[]).await;
    make("first").await;
    let (id, _) = events.until("access.principal.created").await;
    drop(events);
    make("second").await;
    make("third").await;
    let mut events =
        Events::open(&world, &key, "/v1/events?kind=access.principal.created", &[("Last-Event-ID", &id)])
            .await;
    let second = events.next().await.unwrap();
    let third = events.next().await.unwrap();
    let index = |id: &str| id.parse::<u64>().unwrap();
    assert!(index(&id) < index(&second.0) && index(&second.0) < index(&third.0));
    let revoke = format!("/v1/keys/{}/revoke", key.split('.').next().unwrap());
    world.admin(Method::Post, &revoke).send().await.ok();
    assert_eq!(
        events.next().await.map(|(_, name, data)| (name, data)),
        Some(("closed".into(), json!({"code": "access.key_invalid"})))
    );
    assert_eq!(events.next().await, None);
    world.running.shutdown().await;
}

#[tokio::test]
async fn a_stream_goes_on_over_a_restart_without_a_gap_or_a_repetition() {
    let world = World::start().await;
    let make = async |world: &World, name: &str| {
        let body = json!({"name": name, "kind": "person", "roles": []});
        world.admin(Method::Post, "/v1/principals").json(&body).send().await.ok();
    };
    let tenant = world.tenant();
    let target = "/v1/events?kind=access.principal.created";
    let headers = [("Writ-Tenant", tenant.as_str())];
    // Before the first event there is a place to come back to.
    let mut events = Events::open(&world, &world.admin, target, &headers).await;
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let line = events.0.next_line().await.unwrap().unwrap();
        if line.starts_with("retry: ") || line.starts_with("id: ") {
            lines.push(line);
        }
    }
    assert_eq!(lines[0], format!("retry: {}", server::http::stream::RETRY_MS));
    let place = lines[1].strip_prefix("id: ").unwrap().to_owned();
    assert_eq!(place, (world.size(&tenant).await - 1).to_string());
    make(&world, "unseen").await;
    drop(events);
    let world = world.restart().await;
    make(&world, "after").await;
    let back = [("Writ-Tenant", tenant.as_str()), ("Last-Event-ID", place.as_str())];
    let mut events = Events::open(&world, &world.admin, target, &back).await;
    let unseen = events.next().await.unwrap();
    let after = events.next().await.unwrap();
    let made: Vec<Value> = world.leaves(&tenant, place.parse::<u64>().unwrap() + 1).await;
    let made: Vec<&Value> = made.iter().filter(|leaf| leaf["kind"] == "access.principal.created").collect();
    assert_eq!([&unseen.2["data"], &after.2["data"]], [made[0], made[1]]);
    assert_eq!((&unseen.0, &unseen.2["logindex"]), (&unseen.0, &json!(unseen.0)));
    // A place that no event of this log can have had is not taken for now.
    let ahead = world.size(&tenant).await.to_string();
    for (id, status, code) in [
        (ahead.as_str(), 409, "events.cursor_ahead"),
        ("18446744073709551615", 409, "events.cursor_ahead"),
        ("x", 422, "events.cursor_invalid"),
    ] {
        let ask = world.admin(Method::Get, "/v1/events").header("Last-Event-ID", id);
        ask.send().await.refused(status, code);
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn d08_a_client_that_never_reads_is_dropped_and_harms_no_one() {
    let world = World::start_with(|config| config.limits.streams = 2).await;
    // More than the buffers of two sockets and of the stream hold.
    let (tenant, source) = (world.tenant(), "x".repeat(3_000));
    for _ in 0..40 {
        let each = (0..100).map(|_| world.house().harness.traffic_refused(&tenant, &source, "test", 1));
        futures::future::try_join_all(each).await.unwrap();
    }
    let deaf = world.admin(Method::Get, "/v1/events?after=0").header("Connection", "keep-alive").open().await;
    // Another one, meanwhile, is told everything.
    let headers = [("Writ-Tenant", tenant.as_str())];
    let mut events = Events::open(&world, &world.admin, "/v1/events?after=0", &headers).await;
    let mut last = 0;
    while last + 1 < 4_000 {
        let (id, ..) = events.next().await.unwrap();
        last = id.parse::<u64>().unwrap();
    }
    // Its place is free once it has been dropped: both are taken until then.
    loop {
        let ask = world.admin(Method::Get, "/v1/events").header("Connection", "keep-alive");
        let mut lines = BufReader::new(ask.open().await).lines();
        if lines.next_line().await.unwrap().unwrap() == "HTTP/1.1 200 OK" {
            break;
        }
    }
    drop((deaf, events));
    world.running.shutdown().await;
}

#[tokio::test]
async fn d08_streams_are_bounded_and_end_with_the_server() {
    let world = World::start_with(|config| config.limits.streams = 1).await;
    let mut events = Events::open(&world, &world.admin, "/v1/events", &[]).await;
    let second = world.ask(Method::Get, "/v1/events").key(&world.admin).send().await;
    second.refused(503, "edge.overloaded");
    let addr = world.running.addr;
    world.running.shutdown().await;
    while events.next().await.is_some() {}
    let gone =
        std::panic::AssertUnwindSafe(exchange(addr, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(futures::FutureExt::catch_unwind(gone).await.is_err(), "nobody listens any more");
}
