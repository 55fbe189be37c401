//! TLS: who may answer, and what a failed handshake means.

use std::sync::Arc;

use base64::Engine as _;
use egress::{Allowlist, Egress, Method, Request, Roots, Sent};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::house::{HOUSE, Names, Seen, Server, client_with, hang, ok, parts, private, say};

/// An identity for a server, and the PEM that makes a client believe it.
struct Identity {
    acceptor: TlsAcceptor,
    pem: Vec<u8>,
}

fn identity(names: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let der = made.cert.der().clone();
    let text = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .unwrap();
    Identity { acceptor: TlsAcceptor::from(Arc::new(config)), pem }
}

async fn serving(acceptor: TlsAcceptor, reply: String) -> Server {
    Server::start(move |stream: TcpStream, seen: Seen| {
        let (acceptor, reply) = (acceptor.clone(), reply.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if seen.read(&mut stream).await.is_some() {
                say(&mut stream, reply.as_bytes()).await;
            }
        }
    })
    .await
}

fn believing(pem: Vec<u8>) -> Egress {
    let names = Names::new(&[(HOUSE, &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]);
    client_with(names, |config| config.roots = Roots { system: false, extra_pem: pem }).egress
}

fn post(host: &str, port: u16) -> Request {
    let origin = format!("https://{host}:{port}");
    Request::new(Method::POST, &origin, Allowlist::new(vec![private(&origin)]).unwrap())
}

#[tokio::test]
async fn a_believed_server_is_spoken_to_by_name_and_by_address() {
    let identity = identity(&[HOUSE, "127.0.0.1"]);
    let server = serving(identity.acceptor, ok("inside")).await;
    let egress = believing(identity.pem);
    for host in [HOUSE, "127.0.0.1"] {
        assert_eq!(&egress.send(post(host, server.port)).await.unwrap().body[..], b"inside");
    }
}

#[tokio::test]
async fn a_server_that_cannot_prove_itself_gets_no_request() {
    let house = identity(&[HOUSE]);
    let stranger = identity(&[HOUSE]);
    let server = serving(house.acceptor, ok("inside")).await;
    let table = [
        ("unknown authority", HOUSE, Vec::new()),
        ("another authority of the same name", HOUSE, stranger.pem),
        ("another name", "other.test", house.pem.clone()),
        ("an address that it does not vouch for", "127.0.0.1", house.pem),
    ];
    for (name, host, pem) in table {
        let found = parts(believing(pem).send(post(host, server.port)).await);
        assert_eq!(found, ("egress.tls_failed", Sent::NotSent, None), "{name}");
    }
    assert!(server.seen.requests().is_empty());
}

#[tokio::test]
async fn handshakes_that_come_to_nothing() {
    let closing = Server::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let plain = Server::start(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 16]).await;
        say(&mut stream, ok("not TLS").as_bytes()).await;
        hang().await;
    })
    .await;
    let silent = Server::start(|stream, _| async move {
        hang().await;
        drop(stream);
    })
    .await;
    let egress = believing(Vec::new());
    for (server, code) in
        [(closing, "egress.tls_failed"), (plain, "egress.tls_failed"), (silent, "egress.connect_timeout")]
    {
        let mut request = post(HOUSE, server.port);
        request.limits.connect_ms = 200;
        assert_eq!(parts(egress.send(request).await), (code, Sent::NotSent, None));
    }
}

#[tokio::test]
async fn after_the_handshake_a_lost_reply_may_have_had_an_effect() {
    let identity = identity(&[HOUSE]);
    let acceptor = identity.acceptor;
    let server = Server::start(move |stream: TcpStream, seen: Seen| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            seen.read(&mut stream).await;
        }
    })
    .await;
    let found = parts(believing(identity.pem).send(post(HOUSE, server.port)).await);
    assert_eq!(found, ("egress.connection_lost", Sent::Maybe, None));
    assert_eq!(server.seen.requests().len(), 1);
}

#[tokio::test]
async fn a_body_cut_without_a_goodbye_is_not_whole() {
    // It says no length and the connection just ends: over TLS that can be told from a proper end.
    let identity = identity(&[HOUSE]);
    let acceptor = identity.acceptor;
    let server = Server::start(move |stream: TcpStream, seen: Seen| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            seen.read(&mut stream).await;
            use tokio::io::AsyncWriteExt as _;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"amount\": 1").await.unwrap();
            stream.flush().await.unwrap();
        }
    })
    .await;
    let found = parts(believing(identity.pem).send(post(HOUSE, server.port)).await);
    assert_eq!(found, ("egress.connection_lost", Sent::Maybe, Some(200)));
}

#[tokio::test]
async fn a_redirect_does_not_leave_tls() {
    let plain = Server::answering(ok("plain")).await;
    let identity = identity(&[HOUSE]);
    let reply = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{HOUSE}:{}/\r\ncontent-length: 0\r\n\r\n",
        plain.port
    );
    let server = serving(identity.acceptor, reply).await;
    let origin = format!("https://{HOUSE}:{}", server.port);
    let rules = vec![private(&origin), private(&format!("http://{HOUSE}:{}", plain.port))];
    let mut request = Request::new(Method::GET, &origin, Allowlist::new(rules).unwrap());
    request.limits.redirects = 1;
    let error = believing(identity.pem).send(request).await.unwrap_err();
    assert_eq!((error.code(), error.sent()), ("egress.redirect_refused", Sent::Maybe));
    assert!(error.to_string().contains("from https to http"), "{error}");
    assert_eq!(plain.seen.connections(), 0);
}
