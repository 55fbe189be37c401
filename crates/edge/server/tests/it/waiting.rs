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
    assert_eq!(created["act"], "access.principal.create");
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
