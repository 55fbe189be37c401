//! Replies that are read piece by piece.

use egress::{Reuse, Sent, sse};
use tokio::io::AsyncWriteExt;

use crate::house::{Names, Server, client, get, hang, parts};

#[tokio::test]
async fn events_arrive_while_the_reply_is_still_open() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(b"f\r\ndata: one\n\ndata\r\n").await.unwrap();
        stream.write_all(b"7\r\n: two\n\n\r\n").await.unwrap();
        hang().await;
    })
    .await;
    let mut reply = client(Names::house()).stream(get(&server, "/events")).await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let mut decoder = sse::Decoder::new();
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(decoder.push(&reply.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!([&events[0].data, &events[1].data], ["one", "two"]);
}

#[tokio::test]
async fn chunks_are_bounded_and_lose_nothing() {
    let size = 5 * egress::MAX_CHUNK_BYTES + 3;
    let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let mut raw = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
    raw.extend_from_slice(&body);
    let server = Server::answering(raw).await;
    let mut request = get(&server, "/");
    // A larger head makes a larger read buffer, and so larger frames.
    request.limits.response_header_bytes = egress::MAX_RESPONSE_HEADER_BYTES;
    let mut reply = client(Names::house()).stream(request).await.unwrap();
    let mut found = Vec::new();
    while let Some(chunk) = reply.chunk().await.unwrap() {
        assert!(!chunk.is_empty() && chunk.len() <= egress::MAX_CHUNK_BYTES);
        found.extend_from_slice(&chunk);
    }
    assert!(found == body);
    assert!(reply.chunk().await.unwrap().is_none(), "the end stays the end");
}

#[tokio::test]
async fn a_cut_stream_never_looks_whole() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf.").await;
    let mut reply = client(Names::house()).stream(get(&server, "/")).await.unwrap();
    let mut found = Vec::new();
    let error = loop {
        match reply.chunk().await {
            Ok(chunk) => found.extend_from_slice(&chunk.expect("not the end")),
            Err(error) => break error,
        }
    };
    assert_eq!(found, b"half.");
    assert_eq!((error.code(), error.sent()), ("egress.connection_lost", Sent::Maybe));
    assert_eq!(parts(reply.chunk().await), ("egress.connection_lost", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn a_stream_is_cut_at_its_limit_and_when_it_falls_silent() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await
            .unwrap();
        hang().await;
    })
    .await;
    let egress = client(Names::house());
    let mut request = get(&server, "/");
    request.limits.response_bytes = 4;
    let mut reply = egress.stream(request).await.unwrap();
    assert_eq!(parts(reply.chunk().await), ("egress.response_too_large", Sent::Maybe, Some(200)));
    let mut request = get(&server, "/");
    request.limits.idle_ms = 50;
    let mut reply = egress.stream(request).await.unwrap();
    assert_eq!(&reply.chunk().await.unwrap().unwrap()[..], b"hello");
    assert_eq!(parts(reply.chunk().await), ("egress.idle_timeout", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n").await.unwrap();
        for _ in 0..200 {
            stream.write_all(b"0123456789").await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut request = get(&server, "/");
    request.reuse = Reuse::Within("a".into());
    let mut reply = client(Names::house()).stream(request).await.unwrap();
    let mut found = Vec::new();
    loop {
        // Every wait is given up after one look, as a `select!` in a caller may do.
        let looked = tokio::select! {
            biased;
            chunk = reply.chunk() => Some(chunk.unwrap()),
            () = tokio::task::yield_now() => None,
        };
        match looked {
            Some(Some(chunk)) => found.extend_from_slice(&chunk),
            Some(None) => break,
            None => {}
        }
    }
    assert_eq!(found, b"0123456789".repeat(200));
}
