//! What the tests share: a scripted server, a scripted resolver, and a client that knows both.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use egress::{
    Allowlist, Egress, EgressConfig, EgressError, Method, PoolLimits, Request, Resolve, Resolving, Roots,
    Rule,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The name under which loopback servers are reached; it may stand for a private address.
pub const HOUSE: &str = "house.test";

/// A server that runs a script for each connection, and is stopped when dropped.
pub struct Server {
    pub port: u16,
    pub seen: Seen,
    _tasks: JoinSet<()>,
}

/// What reached a server.
#[derive(Clone, Default)]
pub struct Seen {
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Heads and bodies of the requests that were read, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Reads one request to its end. None once the client has closed.
    pub async fn read<S: AsyncReadExt + Unpin>(&self, stream: &mut S) -> Option<String> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).await.ok()? == 0 {
                return None;
            }
            text.push(byte[0]);
        }
        let head = String::from_utf8(text).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let request = head + &String::from_utf8(body).unwrap();
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }
}

impl Server {
    pub async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(TcpStream, Seen) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_at("127.0.0.1:0", script).await
    }

    pub async fn start_at<F, Fut>(address: &str, script: F) -> Self
    where
        F: Fn(TcpStream, Seen) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let mut tasks = JoinSet::new();
        let theirs = seen.clone();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                theirs.connections.fetch_add(1, Ordering::SeqCst);
                open.spawn(script(stream, theirs.clone()));
            }
        });
        Self { port, seen, _tasks: tasks }
    }

    /// Reads a request, answers these bytes, closes.
    pub async fn answering(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::start(move |mut stream, seen| {
            let reply = Arc::clone(&reply);
            async move {
                if seen.read(&mut stream).await.is_some() {
                    say(&mut stream, &reply).await;
                }
            }
        })
        .await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{HOUSE}:{}{path}", self.port)
    }
}

/// Writes all of it and closes the sending side; a client that hung up is no failure of the server.
pub async fn say<S: AsyncWriteExt + Unpin>(stream: &mut S, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
}

/// Does nothing, for ever.
pub async fn hang() {
    std::future::pending::<()>().await;
}

/// A whole reply with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A resolver that answers from a script. The last answer for a name is repeated.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub fn new(script: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let names = Self::default();
        for (name, answers) in script {
            let answers = answers.iter().map(|a| a.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
            names.answers.lock().unwrap().insert((*name).to_owned(), answers);
        }
        Arc::new(names)
    }

    /// `house.test` is loopback, and nothing else exists.
    pub fn house() -> Arc<Self> {
        Self::new(&[(HOUSE, &[&["127.0.0.1"]])])
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(host.to_owned());
            let mut answers = self.answers.lock().unwrap();
            let queue = answers.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
            let next = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
            next.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
}

/// A client and the clock that it reads.
pub struct House {
    pub egress: Egress,
    pub clock_ms: Arc<AtomicI64>,
}

pub fn client_with(names: Arc<Names>, change: impl FnOnce(&mut EgressConfig)) -> House {
    let clock_ms = Arc::new(AtomicI64::new(1_000));
    let theirs = Arc::clone(&clock_ms);
    let mut config = EgressConfig::new(move || theirs.load(Ordering::SeqCst));
    config.resolver = names;
    config.roots = Roots { system: false, extra_pem: Vec::new() };
    config.pool = PoolLimits::default();
    change(&mut config);
    House { egress: Egress::new(config).unwrap(), clock_ms }
}

pub fn client(names: Arc<Names>) -> Egress {
    client_with(names, |_| {}).egress
}

/// A rule for a host of the house, as an operator would write it.
pub fn private(rule: &str) -> Rule {
    Rule::parse(rule).unwrap().allow_private().unwrap()
}

pub fn house_list(port: u16) -> Allowlist {
    Allowlist::new(vec![private(&format!("http://{HOUSE}:{port}"))]).unwrap()
}

pub fn get(server: &Server, path: &str) -> Request {
    Request::new(Method::GET, server.url(path), house_list(server.port))
}

pub fn post(server: &Server, path: &str, body: &'static str) -> Request {
    let mut request = Request::new(Method::POST, server.url(path), house_list(server.port));
    request.body = egress::Bytes::from_static(body.as_bytes());
    request
}

/// The parts of an error that callers act on.
pub fn parts<T>(result: Result<T, EgressError>) -> (&'static str, egress::Sent, Option<u16>) {
    match result {
        Ok(_) => panic!("it went through"),
        Err(error) => (error.code(), error.sent(), error.status().map(|status| status.as_u16())),
    }
}
