//! Connections that are used again, and those that must not be.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use egress::{Request, Reuse, Sent};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::house::{HOUSE, Names, Server, client, client_with, get, hang, ok, parts, post};

/// A server that answers request after request on one connection.
async fn keeping() -> Server {
    Server::start(|mut stream, seen| async move {
        while seen.read(&mut stream).await.is_some() {
            if stream.write_all(ok("x").as_bytes()).await.is_err() {
                break;
            }
        }
    })
    .await
}

fn shared(mut request: Request, partition: &str) -> Request {
    request.reuse = Reuse::Within(partition.into());
    request
}

#[tokio::test]
async fn one_partition_shares_a_connection_and_others_do_not() {
    let server = keeping().await;
    let egress = client(Names::house());
    // partition, connections after it
    for (partition, connections) in [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 2)] {
        egress.send(shared(get(&server, "/"), partition)).await.unwrap();
        assert_eq!(server.seen.connections(), connections, "{partition}");
    }
    egress.send(get(&server, "/")).await.unwrap();
    egress.send(get(&server, "/")).await.unwrap();
    assert_eq!(server.seen.connections(), 4, "without a partition each request has its own");
    assert!(
        server.seen.requests()[0].contains("\r\n\r\n") && !server.seen.requests()[0].contains("connection:")
    );
}

#[tokio::test]
async fn an_old_connection_is_not_used() {
    let server = keeping().await;
    let house = client_with(Names::house(), |config| config.pool.idle_ms = 1_000);
    for (step_ms, connections) in [(0, 1), (1_000, 1), (1_001, 2), (-5_000, 3)] {
        house.clock_ms.fetch_add(step_ms, Ordering::SeqCst);
        house.egress.send(shared(get(&server, "/"), "a")).await.unwrap();
        assert_eq!(server.seen.connections(), connections, "{step_ms}");
    }
}

#[tokio::test]
async fn the_number_of_idle_connections_is_bounded() {
    let server = keeping().await;
    let house = client_with(Names::house(), |config| config.pool.idle = 1);
    for (partition, connections) in [("a", 1), ("b", 2), ("b", 2), ("a", 3)] {
        house.egress.send(shared(get(&server, "/"), partition)).await.unwrap();
        assert_eq!(server.seen.connections(), connections, "{partition}");
    }
}

#[tokio::test]
async fn an_open_connection_does_not_outlive_its_permission() {
    let server = keeping().await;
    let names = Names::new(&[(HOUSE, &[&["127.0.0.1"], &["169.254.169.254"], &["127.0.0.1"]])]);
    let egress = client(names);
    egress.send(shared(get(&server, "/"), "a")).await.unwrap();
    // The name has moved: the connection is still open and leads to where the name no longer is.
    let found = parts(egress.send(shared(get(&server, "/"), "a")).await);
    assert_eq!(found, ("egress.address_refused", Sent::NotSent, None));
    // The rule is gone: the connection does not help either.
    let mut request = shared(get(&server, "/"), "a");
    request.allow = egress::Allowlist::default();
    assert_eq!(parts(egress.send(request).await).0, "egress.destination_refused");
    // And the rule is there, but private addresses are no longer granted.
    let mut request = shared(get(&server, "/"), "a");
    let rule = format!("http://{HOUSE}:{}", server.port);
    request.allow = egress::Allowlist::parse([rule.as_str()]).unwrap();
    assert_eq!(parts(egress.send(request).await).0, "egress.address_refused");
    assert_eq!(server.seen.requests().len(), 1);
}

#[tokio::test]
async fn a_moved_name_gets_a_new_connection() {
    let server = keeping().await;
    let second = Server::start_at(&format!("127.0.0.2:{}", server.port), |mut stream, seen| async move {
        seen.read(&mut stream).await;
        let _ = stream.write_all(ok("second").as_bytes()).await;
    })
    .await;
    let names = Names::new(&[(HOUSE, &[&["127.0.0.1"], &["127.0.0.2"]])]);
    let egress = client(names);
    egress.send(shared(get(&server, "/"), "a")).await.unwrap();
    let reply = egress.send(shared(get(&server, "/"), "a")).await.unwrap();
    assert_eq!(&reply.body[..], b"second");
    assert_eq!((server.seen.requests().len(), second.seen.requests().len()), (1, 1));
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_connection() {
    // A reply to the next request, laid into the connection before that request exists.
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        let two = format!("{}{}", ok("mine"), ok("poison"));
        stream.write_all(two.as_bytes()).await.unwrap();
        hang().await;
    })
    .await;
    let egress = client(Names::house());
    for turn in 1..=3 {
        let reply = egress.send(shared(get(&server, "/"), "a")).await.unwrap();
        assert_eq!(&reply.body[..], b"mine");
        assert_eq!(server.seen.connections(), turn);
    }
}

#[tokio::test]
async fn so_do_bytes_that_come_while_it_is_idle() {
    let (go, said) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let theirs = (Arc::clone(&go), Arc::clone(&said));
    let server = Server::start(move |mut stream, seen| {
        let (go, said) = theirs.clone();
        async move {
            seen.read(&mut stream).await;
            stream.write_all(ok("mine").as_bytes()).await.unwrap();
            go.notified().await;
            stream.write_all(ok("poison").as_bytes()).await.unwrap();
            said.notify_one();
            hang().await;
        }
    })
    .await;
    let egress = client(Names::house());
    for turn in 1..=3 {
        let reply = egress.send(shared(get(&server, "/"), "a")).await.unwrap();
        assert_eq!(&reply.body[..], b"mine");
        assert_eq!(server.seen.connections(), turn);
        go.notify_one();
        said.notified().await;
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_costs_nothing() {
    let server = Server::start(|mut stream, seen| async move {
        // Reads once more, so that a request sent into the closing connection would be counted.
        while seen.read(&mut stream).await.is_some() {
            let _ = stream.write_all(ok("x").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let egress = client(Names::house());
    for turn in 1..=5 {
        // Either the closing is noticed when the connection is laid aside, or when it is taken up again.
        egress.send(shared(post(&server, "/", "once"), "a")).await.ok();
        assert!(server.seen.requests().len() <= turn, "no request arrives twice");
    }
}

#[tokio::test]
async fn a_connection_with_an_unread_body_is_not_kept() {
    let server = keeping().await;
    let egress = client(Names::house());
    let stream = egress.stream(shared(get(&server, "/"), "a")).await.unwrap();
    drop(stream);
    egress.send(shared(get(&server, "/"), "a")).await.unwrap();
    assert_eq!(server.seen.connections(), 2);
}

#[tokio::test]
async fn a_server_that_says_close_is_taken_at_its_word() {
    let server = Server::start(|mut stream, seen| async move {
        while seen.read(&mut stream).await.is_some() {
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let egress = client(Names::house());
    for turn in 1..=3 {
        egress.send(shared(get(&server, "/"), "a")).await.unwrap();
        assert_eq!(server.seen.connections(), turn);
    }
}
