//! A real server on a free port in a folder of its own, and a client that can also send what no client should.

use crate::desk::Room;
use act::{Clock, Method, SystemIds};
use kernel::{TenantId, hex, sha256};
use serde_json::{Value, json};
use server::{Config, House, Running};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use store::SystemClock;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

/// A configuration for tests: a free port, a folder that goes away.
pub fn config(folder: &TempDir) -> Config {
    let mut config = Config { folder: folder.path().join("data"), ..Config::default() };
    // Stand-ins are on this machine.
    config.private_hosts = vec!["127.0.0.1".into()];
    config.listen.set_port(0);
    config
}

/// A server with its administrator's key.
pub struct World {
    /// The server.
    pub running: Running,
    /// The administrator's key.
    pub admin: String,
    /// Its folder.
    pub folder: TempDir,
    /// How many names were made up.
    names: AtomicU32,
    /// The service desk, for tests that need one.
    pub room: OnceCell<Room>,
}

impl World {
    /// A server as it comes.
    pub async fn start() -> World {
        World::start_with(|_| ()).await
    }

    /// A server with a changed configuration.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> World {
        World::start_at(Arc::new(SystemClock), change).await
    }

    /// A server on a clock of the test's.
    pub async fn start_at(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Config)) -> World {
        World::start_observed(clock, None, change).await
    }

    /// A server that tells a collector what the tap of this outlet hears.
    pub async fn start_observed(
        clock: Arc<dyn Clock>,
        outlet: Option<server::telemetry::Outlet>,
        change: impl FnOnce(&mut Config),
    ) -> World {
        let folder = testkit::folder::fresh();
        let mut config = config(&folder);
        change(&mut config);
        let running = server::serve_observed(config, clock, Arc::new(SystemIds), outlet);
        let running = running.await.expect("the server starts");
        let admin = running.admin_key.clone().expect("the first start makes a key");
        World { running, admin, folder, names: AtomicU32::new(0), room: OnceCell::new() }
    }

    /// A server on what is there, with the key that it had.
    pub async fn again(config: Config, folder: TempDir, admin: String) -> World {
        let running =
            server::serve(config, Arc::new(SystemClock), Arc::new(SystemIds)).await.expect("it starts again");
        World { running, admin, folder, names: AtomicU32::new(1000), room: OnceCell::new() }
    }

    /// Ends the server and starts another in its folder.
    pub async fn restart(self) -> World {
        self.restart_with(|_| ()).await
    }

    /// Ends the server and starts another in its folder, with a changed configuration.
    pub async fn restart_with(self, change: impl FnOnce(&mut Config)) -> World {
        let mut config = (*self.running.house.config).clone();
        change(&mut config);
        let World { running, admin, folder, names, room } = self;
        running.shutdown().await;
        let running =
            server::serve(config, Arc::new(SystemClock), Arc::new(SystemIds)).await.expect("it starts again");
        World { running, admin, folder, names, room }
    }

    /// A name that nobody has yet.
    pub fn unused(&self, name: &str) -> String {
        format!("{name} {}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The house behind it.
    pub fn house(&self) -> &House {
        &self.running.house
    }

    /// The first tenant.
    pub fn tenant(&self) -> TenantId {
        self.house().config.first_tenant.clone()
    }

    /// A request with the administrator's key, in the first tenant.
    pub fn admin(&self, method: Method, path: &str) -> Ask {
        self.ask(method, path).key(&self.admin).header("Writ-Tenant", self.tenant().as_str())
    }

    /// A request without a key.
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let method = match method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        };
        Ask::new(self.running.addr, method, path)
    }

    /// A principal of the first tenant with these roles: its id and its key.
    pub async fn principal(&self, name: &str, roles: &[&str]) -> (String, String) {
        self.principal_in(&self.tenant(), name, roles).await
    }

    /// A principal of a tenant with these roles: its id and its key.
    pub async fn principal_in(&self, tenant: &TenantId, name: &str, roles: &[&str]) -> (String, String) {
        let create =
            self.ask(Method::Post, "/v1/principals").key(&self.admin).header("Writ-Tenant", tenant.as_str());
        let made = create.json(&json!({"name": name, "kind": "person", "roles": roles})).send().await.ok();
        let id = made["principal"].as_str().unwrap().to_owned();
        let secret = hex::encode(&sha256(name.as_bytes()));
        let create =
            self.ask(Method::Post, "/v1/keys").key(&self.admin).header("Writ-Tenant", tenant.as_str());
        let body = json!({"principal": id, "name": "test", "secret_sha256": hex::encode(&sha256(secret.as_bytes()))});
        let key = create.json(&body).send().await.ok();
        (id, format!("{}.{secret}", key["key"].as_str().unwrap()))
    }

    /// A second tenant, once its log is open.
    pub async fn second_tenant(&self) -> TenantId {
        let create = self.ask(Method::Post, "/v1/tenants").key(&self.admin);
        let made = create.json(&json!({"name": "other", "admin": "owner"})).send().await.ok();
        let tenant = TenantId::parse(made["tenant"].as_str().unwrap()).unwrap();
        let mut facts = self.house().store.hints().facts;
        while self.house().store.head(&tenant).await.unwrap().is_none() {
            facts.changed().await.unwrap();
        }
        tenant
    }

    /// Every leaf of a tenant's log from an index on.
    pub async fn leaves(&self, tenant: &TenantId, from: u64) -> Vec<Value> {
        let rows = self.house().store.leaves(tenant, from, 10_000).await.unwrap();
        rows.iter().map(|row| serde_json::from_slice(&row.leaf).unwrap()).collect()
    }

    /// How many leaves a tenant's log has.
    pub async fn size(&self, tenant: &TenantId) -> u64 {
        self.house().store.head(tenant).await.unwrap().map_or(0, |head| head.size)
    }
}

/// A request in the making.
#[derive(Clone)]
pub struct Ask {
    addr: SocketAddr,
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    /// A request; Host and Connection are added when it is sent, unless they are there.
    pub fn new(addr: SocketAddr, method: &str, target: &str) -> Ask {
        Ask { addr, line: format!("{method} {target} HTTP/1.1"), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a key.
    pub fn key(self, key: &str) -> Ask {
        self.header("Authorization", &format!("Bearer {key}"))
    }

    /// Adds a JSON body.
    pub fn json(self, body: &Value) -> Ask {
        self.body("application/json", body.to_string().as_bytes())
    }

    /// Adds a body whose type another header says.
    pub fn raw(mut self, body: &[u8]) -> Ask {
        self.body = body.to_vec();
        self.header("Content-Length", &body.len().to_string())
    }

    /// Adds a body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Ask {
        self.body = body.to_vec();
        self.header("Content-Type", content_type).header("Content-Length", &body.len().to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        let has = |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut out = format!("{}\r\n", self.line);
        if !has("host") {
            out.push_str(&format!("Host: {}\r\n", self.addr));
        }
        if !has("connection") {
            out.push_str("Connection: close\r\n");
        }
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }

    /// Sends it and reads the answer to its end.
    pub async fn send(&self) -> Answer {
        exchange(self.addr, &self.bytes()).await
    }

    /// Sends it and leaves the connection open.
    pub async fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(&self.bytes()).await.unwrap();
        stream
    }
}

/// Every answer as it came, where a test wants to look through all of them.
pub static ANSWERED: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();

/// Sends bytes as they are and reads until the server closes.
pub async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    if let Some(answered) = ANSWERED.get() {
        answered.lock().unwrap().extend_from_slice(&read);
    }
    Answer::parse(&read)
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status; 0 if the connection ended without an answer.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Answer { status: 0, headers: Vec::new(), body: bytes.to_vec() };
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Answer { status, headers, body: bytes[end + 4..].to_vec() }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The body of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self.json()
    }

    /// The code of a problem, after checking that it is a whole one.
    #[track_caller]
    pub fn code(&self) -> String {
        assert!(self.status >= 400, "{} {}", self.status, self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{} {}",
            self.status,
            self.text()
        );
        let body = self.json();
        for member in ["type", "title", "detail", "code", "class", "request_id"] {
            assert!(body[member].is_string(), "{member}: {body}");
        }
        assert_eq!(body["status"], self.status);
        assert_eq!(body["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(body["type"], format!("/errors/{}", body["code"].as_str().unwrap()));
        body["code"].as_str().unwrap().to_owned()
    }

    /// Demands a problem of this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
    }
}
