//! What no client should send, and what comes back.

use crate::support::{Answer, Ask, World, exchange};
use act::Method;
use serde_json::json;
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn create(world: &World) -> Ask {
    world.admin(Method::Post, "/v1/principals")
}

#[tokio::test]
async fn c07_d11_bodies_that_are_not_one_json_object() {
    let world = World::start().await;
    let before = world.size(&world.tenant()).await;
    let deep = format!("{{\"name\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    let json = "application/json";
    for (content_type, body, status, code) in [
        (
            json,
            r#"{"name":"a","kind":"person","roles":[],"roles":["tenant_admin"]}"#,
            400,
            "edge.body_refused",
        ),
        (
            json,
            r#"{"name":"a","kind":"person","roles":[],"\u0072oles":["tenant_admin"]}"#,
            400,
            "edge.body_refused",
        ),
        (json, deep.as_str(), 400, "edge.body_refused"),
        (json, r#"{"name":"a\u0000","kind":"person","roles":[]}"#, 400, "edge.body_refused"),
        (json, r#"{"name":1e400,"kind":"person","roles":[]}"#, 400, "edge.body_refused"),
        (json, r#"{"name":"\ud800","kind":"person","roles":[]}"#, 400, "edge.body_refused"),
        (json, "\u{feff}{}", 400, "edge.body_refused"),
        (json, "[]", 400, "edge.body_refused"),
        (json, "null", 400, "edge.body_refused"),
        (json, "{}{}", 400, "edge.body_refused"),
        (json, "{\"name\":", 400, "edge.body_refused"),
        (json, " ", 400, "edge.body_refused"),
        (json, "{}", 422, "request.invalid"),
        (json, "", 422, "request.invalid"),
        ("text/plain", "{}", 415, "edge.content_type_refused"),
        ("application/x-www-form-urlencoded", "name=a", 415, "edge.content_type_refused"),
        ("application/json; charset=utf-16", "{}", 415, "edge.content_type_refused"),
    ] {
        let answer = create(&world).body(content_type, body.as_bytes()).send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{content_type} {}",
            &body[..body.len().min(60)]
        );
    }
    let squeezed = create(&world).json(&json!({})).header("Content-Encoding", "gzip").send().await;
    squeezed.refused(415, "edge.content_type_refused");
    let reading = world.admin(Method::Get, "/v1/principals").json(&json!({})).send().await;
    reading.refused(400, "edge.body_refused");
    assert_eq!(world.size(&world.tenant()).await, before, "nothing was done");
    world.running.shutdown().await;
}

#[tokio::test]
async fn d12_bodies_that_are_too_large_or_too_slow() {
    let world = World::start_with(|config| {
        config.limits.body_bytes = 1024;
        config.limits.body_read_ms = 200;
    })
    .await;
    let large = json!({"name": "x".repeat(2000)});
    create(&world).json(&large).send().await.refused(413, "edge.body_too_large");
    // Announced and never sent: refused without waiting for it.
    let announced =
        create(&world).header("Content-Type", "application/json").header("Content-Length", "99999999999");
    announced.send().await.refused(413, "edge.body_too_large");
    // Not announced: cut where the limit is.
    let head =
        create(&world).header("Content-Type", "application/json").header("Transfer-Encoding", "chunked");
    let mut stream = head.open().await;
    let mut answer = Vec::new();
    for _ in 0..8 {
        let _ = stream.write_all(format!("100\r\n{}\r\n", "x".repeat(256)).as_bytes()).await;
    }
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    // Announced, begun, and never finished.
    let slow = create(&world).body("application/json", b"{\"name\":").header("Connection", "close");
    let mut stream = TcpStream::connect(world.running.addr).await.unwrap();
    let mut bytes = format!(
        "POST /v1/principals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n",
        world.admin
    )
    .into_bytes();
    bytes.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"name\":");
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    drop(slow);
    world.running.shutdown().await;
}

#[tokio::test]
async fn d01_d03_heads_that_two_programs_could_read_differently() {
    let world = World::start().await;
    let key = &world.admin;
    for (what, head) in [
        ("length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("a signed length", "Content-Length: +5\r\n"),
        ("a folded header", "X-A: b\r\n c\r\nContent-Length: 5\r\n"),
        ("space before the colon", "Content-Length : 5\r\n"),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n"),
        ("NUL in a header", "X-A: a\0b\r\nContent-Length: 5\r\n"),
    ] {
        let request = format!(
            "POST /v1/principals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{head}\r\n{{\"a\"}}\
             GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(world.running.addr, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(!answer.text().contains("alive"), "{what}: what follows was taken for a second request");
    }
    for (what, request, status) in [
        ("no host", "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        (
            "two hosts",
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                .to_owned(),
            400,
        ),
        ("nonsense", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400),
        (
            "many headers",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(500)),
            431,
        ),
        (
            "a long header",
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "b".repeat(100_000)),
            431,
        ),
        (
            "a long query",
            format!(
                "GET /healthz?{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                "b".repeat(9_000)
            ),
            400,
        ),
    ] {
        let answer = exchange(world.running.addr, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    // A refused request's unread body is not the next request.
    let inner = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let outer = format!(
        "POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let mut stream = TcpStream::connect(world.running.addr).await.unwrap();
    stream.write_all(outer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut read = String::new();
    let _ = stream.read_to_string(&mut read).await;
    assert!(read.starts_with("HTTP/1.1 401") && !read.contains("alive"), "{read}");
    world.running.shutdown().await;
}

#[tokio::test]
async fn d05_d06_d07_d09_hosts_and_origins_that_are_not_ours() {
    let world = World::start().await;
    let port = world.running.addr.port();
    let ask = || world.ask(Method::Get, "/v1/principals").key(&world.admin);
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "",
    ] {
        ask().header("Host", host).send().await.refused(403, "edge.host_refused");
    }
    for origin in [
        "null",
        "http://evil.example",
        "https://localhost.evil.example",
        "file://localhost",
        "http://localhost@evil.example",
    ] {
        let answer = ask().header("Origin", origin).send().await;
        answer.refused(403, "edge.host_refused");
    }
    for ok in [ask().header("Host", "localhost"), ask().header("Origin", &format!("http://127.0.0.1:{port}"))]
    {
        let answer = ok.send().await;
        answer.ok();
        assert!(
            answer.headers.iter().all(|(name, _)| !name.starts_with("access-control")),
            "{:?}",
            answer.headers
        );
    }
    // What a proxy could say about the caller changes nothing.
    let forged = ask()
        .header("X-Forwarded-For", "10.0.0.1")
        .header("X-Forwarded-Host", "evil.example")
        .header("X-User", "root");
    assert_eq!(forged.send().await.json(), ask().send().await.json());
    world.running.shutdown().await;
}

#[tokio::test]
async fn a15_keys_are_read_from_one_place() {
    let world = World::start().await;
    let ask = |target: &str| world.ask(Method::Get, target);
    ask(&format!("/v1/keys?key={}", world.admin)).send().await.refused(401, "edge.credentials_missing");
    ask(&format!("/v1/keys?access_token={}", world.admin))
        .key(&world.admin)
        .send()
        .await
        .refused(400, "edge.query_refused");
    ask("/v1/keys").key(&world.admin).key(&world.admin).send().await.refused(401, "edge.credentials_missing");
    ask("/v1/keys").header("Authorization", &format!("bearer {}", world.admin)).send().await.ok();
    let (id, secret) = world.admin.split_once('.').unwrap();
    for wrong in [
        id.to_owned(),
        format!("{id}."),
        format!("{id}.{}", &secret[1..]),
        format!("{id}.{secret}x"),
        "x".repeat(5000),
    ] {
        ask("/v1/keys").key(&wrong).send().await.refused(401, "access.key_invalid");
    }
    let answer = ask("/v1/keys").send().await;
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    // A revoked key is refused by the next request.
    let (_, key) = world.principal("leaver", &["auditor"]).await;
    ask("/v1/keys").key(&key).send().await.ok();
    let revoke = format!("/v1/keys/{}/revoke", key.split('.').next().unwrap());
    world.admin(Method::Post, &revoke).send().await.ok();
    ask("/v1/keys").key(&key).send().await.refused(401, "access.key_invalid");
    world.running.shutdown().await;
}

#[tokio::test]
async fn g06_an_idempotency_key_makes_an_act_once_only() {
    let world = World::start().await;
    let (_, second) = world.principal("second admin", &["tenant_admin"]).await;
    let ask = |name: &str| create(&world).json(&json!({"name": name, "kind": "person", "roles": []}));
    let first = ask("once").header("Idempotency-Key", "k1").send().await;
    let size = world.size(&world.tenant()).await;
    let again = ask("once").header("Idempotency-Key", "k1").send().await;
    assert_eq!((first.status, &first.body), (200, &again.body), "byte for byte");
    assert_eq!(world.size(&world.tenant()).await, size, "and nothing was done twice");
    ask("twice").header("Idempotency-Key", "k1").send().await.refused(409, "idempotency.mismatch");
    // Another caller's key of the same name is another key.
    let other = world.ask(Method::Post, "/v1/principals").key(&second).header("Idempotency-Key", "k1");
    let other = other.json(&json!({"name": "thrice", "kind": "person", "roles": []})).send().await.ok();
    assert_ne!(other, first.json());
    // So is one in another tenant, and one of another act. However much later: there is no time after which it is forgotten.
    let elsewhere = world.second_tenant().await;
    let there = world.ask(Method::Post, "/v1/principals").key(&world.admin);
    let there = there.header("Writ-Tenant", elsewhere.as_str()).header("Idempotency-Key", "k1");
    let there = there.json(&json!({"name": "once", "kind": "person", "roles": []})).send().await.ok();
    assert_ne!(there, first.json());
    let workspace = json!({"name": "once", "environment": "staging"});
    let route = world.admin(Method::Post, "/v1/workspaces").json(&workspace).header("Idempotency-Key", "k1");
    assert_eq!(route.send().await.ok()["name"], "once");
    // Arguments are compared as what they say: another order of members is the same, another value of any is not.
    let same = create(&world).body("application/json", br#"{"roles":[],  "kind":"person","name":"once"}"#);
    assert_eq!(same.header("Idempotency-Key", "k1").send().await.body, first.body);
    for other in [
        json!({"name": "once", "kind": "service", "roles": []}),
        json!({"name": "once", "kind": "person", "roles": ["auditor"]}),
        json!({"name": "Once", "kind": "person", "roles": []}),
    ] {
        let answer = create(&world).json(&other).header("Idempotency-Key", "k1").send().await;
        answer.refused(409, "idempotency.mismatch");
    }
    for wrong in ["", "a b", "\u{e9}", &"k".repeat(129)] {
        ask("once").header("Idempotency-Key", wrong).send().await.refused(400, "edge.header_refused");
    }
    let twice = ask("once").header("Idempotency-Key", "k1").header("Idempotency-Key", "k2").send().await;
    twice.refused(400, "edge.header_refused");
    // A hundred at once: one effect, one answer, or a wish to try again.
    let before = world.size(&world.tenant()).await;
    let many = (0..100).map(|_| {
        let ask = ask("storm").header("Idempotency-Key", "k3");
        async move { ask.send().await }
    });
    let answers: Vec<Answer> = futures::future::join_all(many).await;
    let bodies: BTreeSet<String> =
        answers.iter().filter(|answer| answer.status == 200).map(Answer::text).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.json()["retryable"], true, "{}", answer.text());
    }
    let created = world.leaves(&world.tenant(), before).await;
    assert_eq!(created.iter().filter(|leaf| leaf["kind"] == "access.principal.created").count(), 1);
    world.running.shutdown().await;
}

#[tokio::test]
async fn many_who_change_one_thing_get_in_one_after_the_other_or_are_told_to_come_back() {
    let world = World::start().await;
    let (id, _) = world.principal("contended", &["operator"]).await;
    let many = (0..32).map(|n: usize| {
        let role = ["auditor", "builder", "approver", "integration"][n % 4];
        let binding = json!({"principal": id, "role": role});
        let ask = world.admin(Method::Post, "/v1/bindings").json(&binding);
        async move { ask.send().await }
    });
    let answers: Vec<Answer> = futures::future::join_all(many).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    let bound = answers
        .iter()
        .filter(|answer| answer.status == 409 && answer.json()["code"] == "request.state")
        .count();
    assert!(bound <= 28, "each of the four roles is bound once");
    for answer in
        answers.iter().filter(|answer| answer.status != 200 && answer.json()["code"] != "request.state")
    {
        answer.refused(409, "contention");
        assert_eq!(
            (answer.json()["retryable"].clone(), answer.header("retry-after")),
            (json!(true), Some("1"))
        );
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn d12_a_client_that_dawdles_is_let_go() {
    let world = World::start_with(|config| config.limits.header_read_ms = 200).await;
    for begun in ["", "GET /healthz HTTP/1.1\r\nHost: loc"] {
        let mut stream = TcpStream::connect(world.running.addr).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        // Ends because the server closes, not because the client does.
        let _ = stream.read_to_end(&mut read).await;
        assert!(!read.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&read));
    }
    world.running.shutdown().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let world = World::start_with(|config| config.limits.connections = 2).await;
    let held: Vec<TcpStream> = futures::future::join_all(
        (0..2).map(|_| async { TcpStream::connect(world.running.addr).await.unwrap() }),
    )
    .await;
    let waiting = world.ask(Method::Get, "/healthz");
    let mut waiting = std::pin::pin!(waiting.send());
    // It may be answered before both others were accepted; it is answered for certain once they are gone.
    let early = futures::poll!(waiting.as_mut());
    drop(held);
    let answer = match early {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => waiting.await,
    };
    assert_eq!(answer.status, 200);
    world.running.shutdown().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests_and_every_answer_its_id() {
    let world = World::start().await;
    let ask = world
        .admin(Method::Get, "/v1/principals")
        .header("Connection", "keep-alive")
        .header("X-Request-Id", "my-id.1");
    let mut stream = ask.open().await;
    let first = head(&mut stream).await;
    assert!(first.contains("x-request-id: my-id.1"), "{first}");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: <script>\r\n\r\n")
        .await
        .unwrap();
    let second = head(&mut stream).await;
    assert!(second.starts_with("HTTP/1.1 200") && second.contains("x-request-id: req_"), "{second}");
    for header in [
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "content-security-policy: default-src 'none'",
    ] {
        assert!(second.contains(header), "{second}");
    }
    drop(stream);
    // The request's id is the trace of its facts.
    let before = world.size(&world.tenant()).await;
    let made = create(&world).json(&json!({"name": "traced", "kind": "person", "roles": []}));
    made.header("X-Request-Id", "trace-me").send().await.ok();
    let leaves = world.leaves(&world.tenant(), before).await;
    let traced =
        |leaf: &serde_json::Value| leaf["trace"].as_str().is_some_and(|trace| trace.ends_with("/trace-me"));
    assert!(leaves.iter().any(traced), "{leaves:?}");
    world.running.shutdown().await;
}

/// Reads one answer with a length, and returns its head.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(read).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    head
}

#[tokio::test]
async fn refused_traffic_is_one_fact_however_much_it_is() {
    let world = World::start().await;
    let platform = kernel::TenantId::platform();
    let (_, key) = world.principal("nobody", &[]).await;
    server::rounds::refused(world.house().clone()).await;
    let (before, before_tenant) = (world.size(&platform).await, world.size(&world.tenant()).await);
    for _ in 0..25 {
        world.ask(Method::Get, "/v1/keys").send().await.refused(401, "edge.credentials_missing");
        world.ask(Method::Get, "/v1/keys").key(&key).send().await.refused(403, "access.read_denied");
    }
    // The policy of the start may still be put in force, which is a fact of its own, at any moment of this.
    let outcome = |leaves: Vec<serde_json::Value>| {
        let refused = leaves.into_iter().filter(|leaf| leaf["kind"] == "access.traffic.refused");
        refused.map(|leaf| leaf["outcome"].clone()).collect::<Vec<_>>()
    };
    let written = outcome(world.leaves(&platform, before).await);
    assert_eq!(written, Vec::<serde_json::Value>::new(), "nothing is written per request");
    server::rounds::refused(world.house().clone()).await;
    let strangers = outcome(world.leaves(&platform, before).await);
    assert_eq!(strangers, [json!({"source": "stranger", "code": "edge.credentials_missing", "count": 25})]);
    let known = outcome(world.leaves(&world.tenant(), before_tenant).await);
    assert_eq!(known, [json!({"source": "key", "code": "access.read_denied", "count": 25})]);
    // What is counted when the server stops is recorded on the way out.
    world.ask(Method::Get, "/v1/keys").send().await.refused(401, "edge.credentials_missing");
    let (house, size) = (world.house().clone(), world.size(&platform).await);
    world.running.shutdown().await;
    let last = house.store.leaves(&platform, size, 10).await.unwrap();
    let last = outcome(last.iter().map(|leaf| serde_json::from_slice(&leaf.leaf).unwrap()).collect());
    assert_eq!(last, [json!({"source": "stranger", "code": "edge.credentials_missing", "count": 1})]);
}

#[tokio::test]
async fn the_edges_own_rows() {
    let world = World::start().await;
    let alive = world.ask(Method::Get, "/healthz").send().await.ok();
    let now_ms = world.house().harness.now_ms();
    assert!(alive["now_ms"].as_i64().is_some_and(|at_ms| at_ms <= now_ms && at_ms > 0), "{alive}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(alive, json!({"status": "alive", "version": version, "now_ms": alive["now_ms"]}));
    assert_eq!(world.ask(Method::Get, "/readyz").send().await.ok(), json!({"status": "ready"}));
    assert_eq!(world.ask(Method::Get, "/openapi.json").send().await.ok()["openapi"], "3.1.0");
    let metrics = world.ask(Method::Get, "/metrics").key(&world.admin).send().await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(metrics.text().contains("writ_requests_total{status=\"2xx\"}"), "{}", metrics.text());
    let (_, tenant_admin) = world.principal("tenant admin", &["tenant_admin"]).await;
    world.ask(Method::Get, "/metrics").key(&tenant_admin).send().await.refused(403, "access.read_denied");
    world.running.shutdown().await;
}

/// A request that asks for another protocol, with a second request behind it that somebody between us may have passed on
/// unread: there is no other protocol, and nobody looks at the second.
#[tokio::test]
async fn d02_what_stands_behind_an_upgrade_is_never_looked_at() {
    let world = World::start().await;
    let before = world.size(&world.tenant()).await;
    let body = json!({"name": "smuggled", "kind": "person", "roles": ["tenant_admin"]}).to_string();
    let second = format!(
        "POST /v1/principals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nWrit-Tenant: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        world.admin,
        world.tenant(),
        body.len()
    );
    for upgrade in ["x", "websocket", "h2c", "TLS/1.0", "HTTP/2.0, websocket", ""] {
        for (connection, status) in [("Upgrade", 200), ("keep-alive, Upgrade", 200), ("upgrade, close", 200)]
        {
            let first = format!(
                "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{second}"
            );
            let answer = exchange(world.running.addr, first.as_bytes()).await;
            assert_eq!(answer.status, status, "{upgrade}: {}", answer.text());
            assert!(!answer.text().contains("HTTP/1.1"), "{upgrade}: two answers: {}", answer.text());
            assert_eq!(answer.header("connection"), Some("close"), "{upgrade}");
        }
    }
    assert_eq!(world.size(&world.tenant()).await, before, "nothing was done");
    // Whoever asks plainly keeps the connection.
    let plain = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{}",
        second.replace("\r\nHost", "\r\nConnection: close\r\nHost")
    );
    let answer = exchange(world.running.addr, plain.as_bytes()).await;
    assert!(answer.text().contains("HTTP/1.1 200"), "{}", answer.text());
    world.running.shutdown().await;
}
