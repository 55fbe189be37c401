//! May the request have taken effect? Every way in which a connection can fail, with a real socket.

use std::io;
use std::sync::Arc;

use egress::{Resolve, Resolving, Sent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::house::{Names, Server, client, client_with, get, hang, house_list, ok, parts, post, say};

#[tokio::test]
async fn a_whole_exchange() {
    let server = Server::answering(ok("hello")).await;
    let mut request = post(&server, "/a/b?c=d", "question");
    request.headers = vec![("Content-Type".into(), "text/plain".into())];
    request.secrets = vec![egress::SecretHeader::bearer("canary").unwrap()];
    let house = client_with(Names::house(), |config| config.user_agent = Some("house/1".into()));
    let reply = house.egress.send(request).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..], reply.elapsed_ms), (200, &b"hello"[..], 0));
    let seen = server.seen.requests().remove(0);
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head.lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.remove(0), "POST /a/b?c=d HTTP/1.1");
    lines.sort();
    let host = format!("host: house.test:{}", server.port);
    let expected = [
        "accept-encoding: identity",
        "authorization: Bearer canary",
        "connection: close",
        "content-length: 8",
        "content-type: text/plain",
        &host,
        "user-agent: house/1",
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, "question");
}

#[tokio::test]
async fn elapsed_time_is_the_injected_clocks() {
    let house = client_with(Names::house(), |_| {});
    let clock_ms = Arc::clone(&house.clock_ms);
    let server = Server::start(move |mut stream, seen| {
        let clock_ms = Arc::clone(&clock_ms);
        async move {
            seen.read(&mut stream).await;
            clock_ms.fetch_add(1_234, std::sync::atomic::Ordering::SeqCst);
            say(&mut stream, ok("x").as_bytes()).await;
        }
    })
    .await;
    assert_eq!(house.egress.send(get(&server, "/")).await.unwrap().elapsed_ms, 1_234);
}

#[tokio::test]
async fn a_status_is_no_error() {
    for status in [301, 400, 401, 404, 429, 500, 503] {
        let server = Server::answering(format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nno")).await;
        let reply = client(Names::house()).send(get(&server, "/")).await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, &b"no"[..]));
    }
}

#[tokio::test]
async fn nobody_listens() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let request =
        egress::Request::new(egress::Method::POST, format!("http://house.test:{port}/"), house_list(port));
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.connect_failed", Sent::NotSent, None));
}

#[tokio::test]
async fn the_second_address_serves_when_the_first_refuses() {
    let server = Server::answering(ok("x")).await;
    // Nothing listens on this port of 127.0.0.2.
    let names = Names::new(&[("house.test", &[&["127.0.0.2", "127.0.0.1"]])]);
    assert_eq!(&client(names).send(get(&server, "/")).await.unwrap().body[..], b"x");
}

#[tokio::test]
async fn the_name_cannot_be_resolved() {
    let server = Server::answering(ok("x")).await;
    let nothing: &[&[&str]] = &[&[]];
    let many: Vec<String> = (0..=egress::MAX_ADDRESSES).map(|n| format!("127.0.0.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let many: &[&[&str]] = &[&many];
    for names in
        [Names::new(&[]), Names::new(&[("house.test", nothing)]), Names::new(&[("house.test", many)])]
    {
        let found = parts(client(names).send(get(&server, "/")).await);
        assert_eq!(found, ("egress.dns_failed", Sent::NotSent, None));
    }
    assert_eq!(server.seen.connections(), 0);
}

struct NoAnswer;

impl Resolve for NoAnswer {
    fn resolve<'a>(&'a self, _host: &'a str) -> Resolving<'a> {
        Box::pin(async {
            hang().await;
            Err(io::ErrorKind::Other.into())
        })
    }
}

#[tokio::test]
async fn the_resolver_hangs() {
    let server = Server::answering(ok("x")).await;
    let house = client_with(Names::house(), |config| config.resolver = Arc::new(NoAnswer));
    let mut request = get(&server, "/");
    request.limits.connect_ms = 30;
    assert_eq!(parts(house.egress.send(request).await), ("egress.dns_failed", Sent::NotSent, None));
    let mut request = get(&server, "/");
    request.limits.deadline_ms = 30;
    assert_eq!(parts(house.egress.send(request).await), ("egress.deadline_exceeded", Sent::NotSent, None));
}

#[tokio::test]
async fn closed_before_the_request_was_read() {
    let server = Server::start(|stream, _| async move {
        // Wait for the first byte, leave it unread and close: the kernel resets the connection.
        stream.readable().await.unwrap();
    })
    .await;
    let found = parts(client(Names::house()).send(post(&server, "/", "x")).await);
    assert_eq!(found, ("egress.connection_lost", Sent::Maybe, None));
}

#[tokio::test]
async fn closed_at_once() {
    // Whether the reset or our first write comes first is chance; either answer is right, a reply is not.
    let server = Server::start(|stream, _| async move { drop(stream) }).await;
    let (code, _, status) = parts(client(Names::house()).send(post(&server, "/", "x")).await);
    assert_eq!((code, status), ("egress.connection_lost", None));
}

#[tokio::test]
async fn closed_after_the_request_was_read() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
    })
    .await;
    let found = parts(client(Names::house()).send(post(&server, "/", "x")).await);
    assert_eq!(found, ("egress.connection_lost", Sent::Maybe, None));
    assert_eq!(server.seen.requests().len(), 1, "it is never sent a second time");
    assert_eq!(server.seen.connections(), 1);
}

#[tokio::test]
async fn closed_in_the_middle_of_the_head() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-le").await;
    let found = parts(client(Names::house()).send(post(&server, "/", "x")).await);
    assert_eq!(found, ("egress.connection_lost", Sent::Maybe, None));
}

#[tokio::test]
async fn half_a_body() {
    for reply in [
        "HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nhalf.",
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf.\r\n",
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf.",
    ] {
        let server = Server::answering(reply).await;
        let found = parts(client(Names::house()).send(post(&server, "/", "x")).await);
        assert_eq!(found, ("egress.connection_lost", Sent::Maybe, Some(201)), "{reply:?}");
    }
}

#[tokio::test]
async fn reset_in_the_middle_of_the_body() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.").await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (code, sent, _) = parts(client(Names::house()).send(get(&server, "/")).await);
    assert_eq!((code, sent), ("egress.connection_lost", Sent::Maybe));
}

#[tokio::test]
async fn silence_after_the_request() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        hang().await;
    })
    .await;
    let mut request = post(&server, "/", "x");
    request.limits.first_byte_ms = 50;
    let egress = client(Names::house());
    assert_eq!(parts(egress.send(request).await), ("egress.first_byte_timeout", Sent::Maybe, None));
    let mut request = post(&server, "/", "x");
    request.limits.deadline_ms = 50;
    assert_eq!(parts(egress.send(request).await), ("egress.deadline_exceeded", Sent::Maybe, None));
}

#[tokio::test]
async fn a_listener_that_never_accepts() {
    // The kernel completes the connection and takes the request; nobody will read it, but we cannot know.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("http://house.test:{port}/");
    let mut request = egress::Request::new(egress::Method::POST, url, house_list(port));
    request.limits.first_byte_ms = 50;
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.first_byte_timeout", Sent::Maybe, None));
}

#[tokio::test]
async fn a_body_that_nobody_takes() {
    let server = Server::start(|stream, _| async move {
        hang().await;
        drop(stream);
    })
    .await;
    let mut request = post(&server, "/", "");
    request.body = vec![b'x'; 32 * 1024 * 1024].into();
    request.limits.request_bytes = request.body.len();
    request.limits.first_byte_ms = 200;
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.first_byte_timeout", Sent::Maybe, None));
}

#[tokio::test]
async fn an_answer_before_the_body_was_taken() {
    let server = Server::start(|mut stream, _| async move {
        let mut some = [0; 1024];
        let _ = stream.read(&mut some).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await;
        hang().await;
    })
    .await;
    let mut request = post(&server, "/", "");
    request.body = vec![b'x'; 32 * 1024 * 1024].into();
    request.limits.request_bytes = request.body.len();
    assert_eq!(client(Names::house()).send(request).await.unwrap().status.as_u16(), 413);
}

#[tokio::test]
async fn the_body_stops() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.").await.unwrap();
        hang().await;
    })
    .await;
    let mut request = get(&server, "/");
    request.limits.idle_ms = 50;
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.idle_timeout", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn e07_the_body_drips() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(5));
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let mut request = get(&server, "/");
    // No pause is ever this long, but what comes in this time is too little.
    request.limits.idle_ms = 250;
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.idle_timeout", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn the_deadline_cuts_a_body_that_never_pauses() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 200000000\r\n\r\n").await.unwrap();
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(2));
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let mut request = get(&server, "/");
    request.limits.response_bytes = egress::MAX_RESPONSE_BYTES;
    request.limits.deadline_ms = 150;
    let found = parts(client(Names::house()).send(request).await);
    assert_eq!(found, ("egress.deadline_exceeded", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn a_full_client_turns_the_next_caller_away() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        say(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.").await;
        hang().await;
    })
    .await;
    let house = client_with(Names::house(), |config| {
        config.pool.in_flight_per_host = 1;
        config.pool.waiting = 0;
    });
    let open = house.egress.stream(get(&server, "/")).await.unwrap();
    assert_eq!(parts(house.egress.send(get(&server, "/")).await), ("egress.busy", Sent::NotSent, None));
    drop(open);
    assert!(house.egress.stream(get(&server, "/")).await.is_ok(), "a dropped stream gives its slot back");
}

#[tokio::test]
async fn no_error_repeats_its_source_or_tells_a_secret() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
    })
    .await;
    let mut request = post(&server, "/canary-path?canary=query", "canary-body");
    request.secrets = vec![egress::SecretHeader::bearer("canary-token").unwrap()];
    request.headers = vec![("x-a".into(), "canary-plain".into())];
    let error = client(Names::house()).send(request).await.unwrap_err();
    let mut text = format!("{error:?}\n{error}");
    let mut source = std::error::Error::source(&error);
    let first = source.map(ToString::to_string);
    while let Some(cause) = source {
        text.push_str(&format!("\n{cause:?}\n{cause}"));
        source = cause.source();
    }
    assert!(!text.contains("canary"), "{text}");
    assert!(first.is_some_and(|first| !error.to_string().contains(&first)), "{text}");
}

#[tokio::test]
async fn a_server_that_talks_first_is_no_http_server() {
    let server = Server::start(|mut stream, _| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        hang().await;
    })
    .await;
    // Which of the two it is depends on whether the greeting or our request was first.
    let error = client(Names::house()).send(get(&server, "/")).await.unwrap_err();
    assert!(matches!(error.code(), "egress.connection_lost" | "egress.response_invalid"), "{error:?}");
}

#[test]
fn a_request_may_be_sent_from_any_task() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let egress = sendable(client(Names::house()));
    let request = || egress::Request::new(egress::Method::GET, "https://h.example/", Default::default());
    drop(sendable(egress.send(request())));
    drop(sendable(egress.stream(request())));
}
