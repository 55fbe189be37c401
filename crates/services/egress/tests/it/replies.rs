//! Replies that must not be believed, or not be read to their end.

use egress::Sent;
use tokio::io::AsyncWriteExt;

use crate::house::{Names, Server, client, get, parts, post};

#[tokio::test]
async fn heads_and_framings_that_are_refused() {
    let many = "x-a: 1\r\n".repeat(1_000_000);
    let long = format!("x-a: {}\r\n", "a".repeat(70_000));
    let dense = "a:b\r\n".repeat(101);
    let large = "egress.response_headers_too_large";
    let invalid = "egress.response_invalid";
    let encoded = "egress.encoding_refused";
    let table: &[(&str, &str, &str, Option<u16>)] = &[
        ("a million headers", &format!("HTTP/1.1 200 OK\r\n{many}\r\n"), large, None),
        ("one more header than allowed", &format!("HTTP/1.1 200 OK\r\n{dense}\r\n"), large, None),
        ("one long header", &format!("HTTP/1.1 200 OK\r\n{long}\r\n"), large, None),
        ("a head without end", &"HTTP/1.1 200 OK\r\n".repeat(20_000), invalid, None),
        (
            "informational replies without end",
            &"HTTP/1.1 103 Early\r\nx: y\r\n\r\n".repeat(200_000),
            large,
            None,
        ),
        ("no HTTP", "SSH-2.0-OpenSSH_9.2p1\r\n", invalid, None),
        ("HTTP/0.9", "<html>hello</html>", invalid, None),
        ("HTTP/2 preface", "HTTP/2 200 OK\r\n\r\n", invalid, None),
        ("status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", invalid, None),
        ("folded header", "HTTP/1.1 200 OK\r\nx-a: 1\r\n  2\r\ncontent-length: 0\r\n\r\n", invalid, None),
        ("space before the colon", "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n", invalid, None),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nx-a: \0\r\ncontent-length: 0\r\n\r\n", invalid, None),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", invalid, None),
        ("signed length", "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello", invalid, None),
        (
            "length past all numbers",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            invalid,
            None,
        ),
        (
            "length and chunks",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            invalid,
            Some(200),
        ),
        (
            "compressed chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            invalid,
            Some(200),
        ),
        (
            "compressed without chunks",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx",
            invalid,
            Some(200),
        ),
        (
            "two transfer codings",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            invalid,
            Some(200),
        ),
        (
            "chunks in HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            invalid,
            None,
        ),
        (
            "chunk size that is no number",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            invalid,
            Some(200),
        ),
        (
            "chunk longer than it says",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            invalid,
            Some(200),
        ),
        (
            "chunk size past all numbers",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            invalid,
            Some(200),
        ),
        (
            "chunk extension without end",
            &format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\n\r\n",
                "x".repeat(100_000)
            ),
            invalid,
            Some(200),
        ),
        (
            "switch of protocols",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            invalid,
            Some(101),
        ),
        (
            "gzip",
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
            encoded,
            Some(200),
        ),
        (
            "Brotli",
            "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\ncontent-length: 2\r\n\r\nxx",
            encoded,
            Some(200),
        ),
        (
            "gzip behind identity",
            "HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
            encoded,
            Some(200),
        ),
        (
            "a length over the limit",
            "HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\nx",
            "egress.response_too_large",
            Some(200),
        ),
    ];
    let egress = client(Names::house());
    for (name, reply, code, status) in table {
        let server = Server::answering(*reply).await;
        let found = parts(egress.send(post(&server, "/", "x")).await);
        assert_eq!(found, (*code, Sent::Maybe, *status), "{name}");
    }
}

#[tokio::test]
async fn replies_that_are_fine() {
    let table: &[(&str, &str, u16, &str)] = &[
        (
            "identity said aloud",
            "HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        ("nothing to say", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ("ended by closing", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        (
            "early hints",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        (
            "chunks with extension and trailer",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nx-trailer: y\r\n\r\n",
            200,
            "ok",
        ),
        (
            "a hundred headers",
            &format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a:b\r\n".repeat(99)),
            200,
            "",
        ),
    ];
    let egress = client(Names::house());
    for (name, reply, status, body) in table {
        let server = Server::answering(*reply).await;
        let reply = egress.send(get(&server, "/")).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (*status, body.as_bytes()), "{name}");
        assert!(!reply.headers.contains_key("x-trailer"), "{name}");
    }
}

#[tokio::test]
async fn e07_a_body_without_end_is_cut_at_its_limit() {
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(8_192)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            format!("2000\r\n{}\r\n", "x".repeat(8_192)),
        ),
    ] {
        let server = Server::start(move |mut stream, seen| {
            let piece = piece.clone();
            async move {
                seen.read(&mut stream).await;
                let _ = stream.write_all(head.as_bytes()).await;
                // Ends when the client hangs up.
                while stream.write_all(piece.as_bytes()).await.is_ok() {}
            }
        })
        .await;
        let mut request = get(&server, "/");
        request.limits.response_bytes = 100_000;
        let found = parts(client(Names::house()).send(request).await);
        assert_eq!(found, ("egress.response_too_large", Sent::Maybe, Some(200)));
    }
}

#[tokio::test]
async fn the_limits_on_the_head_are_the_callers() {
    // headers, bytes of one of them, limits on both, whether it fits
    let table = [
        (10, 1, 10, 512, true),
        (11, 1, 10, 512, false),
        (200, 1, 256, 4_096, true),
        (2, 600, 10, 512, false),
    ];
    for (headers, bytes, most, most_bytes, fits) in table {
        let filler = format!("a:{}\r\n", "b".repeat(bytes)).repeat(headers - 1);
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{filler}content-length: 0\r\n\r\n")).await;
        let mut request = get(&server, "/");
        request.limits.response_headers = most;
        request.limits.response_header_bytes = most_bytes;
        let found = client(Names::house()).send(request).await.map_err(|error| error.code());
        let expected = if fits { None } else { Some("egress.response_headers_too_large") };
        assert_eq!(found.err(), expected, "{headers} headers of {bytes} bytes");
    }
}

#[tokio::test]
async fn the_limit_itself_is_allowed() {
    let server = Server::answering(crate::house::ok("12345")).await;
    for (limit, fits) in [(5, true), (4, false)] {
        let mut request = get(&server, "/");
        request.limits.response_bytes = limit;
        assert_eq!(client(Names::house()).send(request).await.is_ok(), fits, "{limit}");
    }
}

#[tokio::test]
async fn a_reply_to_head_has_no_body_whatever_it_announces() {
    let server = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n").await;
    let mut request = get(&server, "/");
    request.method = egress::Method::HEAD;
    assert!(client(Names::house()).send(request).await.unwrap().body.is_empty());
}
