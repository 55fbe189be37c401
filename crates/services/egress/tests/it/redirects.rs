//! Redirects: off by default, judged like a first request, and without credentials elsewhere.

use egress::{Allowlist, Egress, Method, Request, SecretHeader, Sent};

use crate::house::{HOUSE, Names, Server, client, get, house_list, ok, parts, post, private, say};

/// A server that redirects `/` to `location` and answers everything else.
async fn redirecting(status: u16, location: &str) -> Server {
    let reply = format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    Server::start(move |mut stream, seen| {
        let reply = reply.clone();
        async move {
            let Some(request) = seen.read(&mut stream).await else { return };
            let first = request.starts_with("GET / ") || request.starts_with("POST / ");
            say(&mut stream, if first { reply.clone() } else { ok("there") }.as_bytes()).await;
        }
    })
    .await
}

fn names() -> std::sync::Arc<Names> {
    Names::new(&[
        (HOUSE, &[&["127.0.0.1"]]),
        ("second.test", &[&["127.0.0.1"]]),
        ("metadata.test", &[&["169.254.169.254"]]),
        ("private.test", &[&["10.0.0.1"]]),
    ])
}

async fn cause_of(egress: &Egress, request: Request) -> (&'static str, Sent, &'static str) {
    let error = egress.send(request).await.unwrap_err();
    let egress::Fault::RedirectRefused { reason, cause } = error.fault() else { panic!("{error:?}") };
    assert_eq!(error.code(), "egress.redirect_refused");
    (reason, error.sent(), cause.as_ref().map_or("", |cause| cause.code()))
}

#[tokio::test]
async fn by_default_a_redirect_is_a_reply() {
    let server = redirecting(302, "/elsewhere").await;
    let reply = client(names()).send(get(&server, "/")).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.headers["location"]), (302, &"/elsewhere".parse().unwrap()));
    assert_eq!(server.seen.connections(), 1);
}

#[tokio::test]
async fn within_the_origin_credentials_and_headers_stay() {
    for status in [301, 302, 303, 307, 308] {
        let server = redirecting(status, "/elsewhere?q=1").await;
        let mut request = get(&server, "/");
        request.limits.redirects = 1;
        request.secrets = vec![SecretHeader::bearer("canary").unwrap()];
        request.headers = vec![("x-a".into(), "1".into())];
        assert_eq!(&client(names()).send(request).await.unwrap().body[..], b"there");
        let second = server.seen.requests().remove(1);
        assert!(second.starts_with("GET /elsewhere?q=1 HTTP/1.1\r\n"), "{second}");
        assert!(
            second.contains("authorization: Bearer canary\r\n") && second.contains("x-a: 1\r\n"),
            "{second}"
        );
    }
}

#[tokio::test]
async fn e05_elsewhere_no_credential_arrives_and_none_comes_back() {
    // house → second → second again → house. The third hop stays on its origin and the last one is back on the
    // first; both still go without.
    let home = Server::start(|mut stream, seen| async move {
        let Some(request) = seen.read(&mut stream).await else { return };
        let port = request.lines().find_map(|line| line.strip_prefix("x-port: ")).unwrap_or("0");
        let reply = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://second.test:{port}/back\r\ncontent-length: 0\r\n\r\n"
        );
        let first = request.starts_with("GET / ");
        say(&mut stream, if first { reply } else { ok("home") }.as_bytes()).await;
    })
    .await;
    let home_port = home.port;
    let second = Server::start(move |mut stream, seen| async move {
        let Some(request) = seen.read(&mut stream).await else { return };
        let location = if request.starts_with("GET /back ") {
            "/on".to_owned()
        } else {
            format!("http://{HOUSE}:{home_port}/end")
        };
        let reply = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        say(&mut stream, reply.as_bytes()).await;
    })
    .await;

    let allow = Allowlist::new(vec![
        private(&format!("http://{HOUSE}:{}", home.port)),
        private(&format!("http://second.test:{}", second.port)),
    ])
    .unwrap();
    let mut request = Request::new(Method::GET, home.url("/"), allow);
    request.limits.redirects = 3;
    request.headers = vec![
        ("accept".into(), "text/plain".into()),
        ("x-port".into(), second.port.to_string()),
        ("x-tenant-session".into(), "canary".into()),
    ];
    request.secrets = vec![
        SecretHeader::bearer("canary").unwrap(),
        SecretHeader::new("cookie", b"a=canary".to_vec()).unwrap(),
        SecretHeader::new("x-vendor-key", b"canary".to_vec()).unwrap(),
    ];
    assert_eq!(&client(names()).send(request).await.unwrap().body[..], b"home");
    let at_home = home.seen.requests();
    assert_eq!(at_home[0].matches("canary").count(), 4);
    for request in second.seen.requests().iter().chain(&at_home[1..]) {
        assert!(!request.contains("canary"), "{request}");
        assert!(request.contains("accept: text/plain\r\n"), "{request}");
    }
    assert_eq!((at_home.len(), second.seen.requests().len()), (2, 2));
}

#[tokio::test]
async fn e05_destinations_that_are_not_followed() {
    let destination = "its destination is refused";
    let table = [
        ("http://other.test/", destination, "egress.destination_refused"),
        ("http://127.0.0.1/", destination, "egress.destination_refused"),
        ("http://house.test:22/", destination, "egress.destination_refused"),
        ("//other.test/", destination, "egress.destination_refused"),
        ("http://metadata.test/latest", destination, "egress.address_refused"),
        ("http://private.test/", destination, "egress.address_refused"),
        ("file:///etc/passwd", destination, "egress.url_invalid"),
        ("gopher://house.test/", destination, "egress.url_invalid"),
        ("http://user@house.test/", destination, "egress.url_invalid"),
        ("http://house.test\\@private.test/", destination, "egress.url_invalid"),
        ("http://2130706433/", destination, "egress.url_invalid"),
        ("http://house.test/ü", "its location is not one plain text", ""),
        ("/a\r\nlocation: /b", "its location is not one plain text", ""),
    ];
    for (location, reason, cause) in table {
        let server = redirecting(302, location).await;
        let rules = vec![
            private(&format!("http://{HOUSE}:{}", server.port)),
            private("http://metadata.test"),
            egress::Rule::parse("http://private.test").unwrap(),
        ];
        let mut request = Request::new(Method::GET, server.url("/"), Allowlist::new(rules).unwrap());
        request.limits.redirects = 3;
        let found = cause_of(&client(names()), request).await;
        assert_eq!(found, (reason, Sent::Maybe, cause), "{location:?}");
    }
}

#[tokio::test]
async fn the_number_of_hops_is_bounded() {
    let server = Server::start(|mut stream, seen| async move {
        seen.read(&mut stream).await;
        say(&mut stream, b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let mut request = get(&server, "/");
    request.limits.redirects = 3;
    let found = cause_of(&client(names()), request).await;
    assert_eq!(found, ("there are too many", Sent::Maybe, ""));
    assert_eq!(server.seen.connections(), 4);
}

#[tokio::test]
async fn a_request_that_changes_something_is_repeated_only_where_it_was_not_done() {
    let egress = client(names());
    // 307 and 308 promise that nothing was done; method and body stay.
    for status in [307, 308] {
        let server = redirecting(status, "/elsewhere").await;
        let mut request = post(&server, "/", "body");
        request.limits.redirects = 1;
        assert!(egress.send(request).await.is_ok());
        let second = server.seen.requests().remove(1);
        assert!(second.starts_with("POST /elsewhere ") && second.ends_with("\r\n\r\nbody"), "{second}");
    }
    for status in [301, 302, 303] {
        let server = redirecting(status, "/elsewhere").await;
        let mut request = post(&server, "/", "body");
        request.limits.redirects = 1;
        assert_eq!(cause_of(&egress, request).await, ("it changes the method", Sent::Maybe, ""));
        assert_eq!(server.seen.connections(), 1);
    }
}

#[tokio::test]
async fn a_request_with_an_effect_or_a_body_stays_at_its_origin() {
    let egress = client(names());
    for (method, body, reason) in [
        (Method::POST, "", "a request that may change something does not leave its origin"),
        (Method::DELETE, "", "a request that may change something does not leave its origin"),
        (Method::GET, "body", "a body does not leave its origin"),
    ] {
        let second = Server::answering(ok("there")).await;
        let reply = format!(
            "HTTP/1.1 307 Moved\r\nlocation: http://second.test:{}/\r\ncontent-length: 0\r\n\r\n",
            second.port
        );
        let server = Server::answering(reply).await;
        let rules = vec![
            private(&format!("http://{HOUSE}:{}", server.port)),
            private(&format!("http://second.test:{}", second.port)),
        ];
        let mut request = Request::new(method, server.url("/"), Allowlist::new(rules).unwrap());
        request.body = body.into();
        request.limits.redirects = 1;
        assert_eq!(cause_of(&egress, request).await, (reason, Sent::Maybe, ""));
        assert_eq!(second.seen.connections(), 0);
    }
}

#[tokio::test]
async fn after_one_hop_every_failure_may_have_had_an_effect() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let server = redirecting(302, &format!("http://second.test:{closed}/")).await;
    let rules = vec![
        private(&format!("http://{HOUSE}:{}", server.port)),
        private(&format!("http://second.test:{closed}")),
    ];
    let mut request = Request::new(Method::GET, server.url("/"), Allowlist::new(rules).unwrap());
    request.limits.redirects = 1;
    let found = parts(client(names()).send(request).await);
    assert_eq!(found, ("egress.connect_failed", Sent::Maybe, None));
}

#[tokio::test]
async fn a_redirect_without_location_is_a_reply() {
    let server = Server::answering("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
    let mut request = Request::new(Method::GET, server.url("/"), house_list(server.port));
    request.limits.redirects = 3;
    assert_eq!(client(names()).send(request).await.unwrap().status.as_u16(), 302);
}
