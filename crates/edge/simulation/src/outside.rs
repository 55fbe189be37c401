//! A ticket system and a model behind one socket. Each request waits at a gate before it arrives, and each reply before it
//! is heard; effects are counted.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use testkit::simulation::{Gates, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The sys_id of the group that the model names.
const NETWORK: &str = "000000000000000000000000000000a1";
/// What a call of the model uses: tokens in, tokens out.
pub const TOKENS: (i64, i64) = (40, 10);

/// The gate of a request that reads.
pub const READ: &str = "outside.read";
/// The gate of a request that writes.
pub const WRITE: &str = "outside.write";
/// The gate of a request to the model.
pub const MODEL: &str = "outside.model";

/// How a request is turned away, or a reply is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The connection closes.
    HangUp,
    /// Somebody in front says that it did not work: 503 before anything happened, 502 after.
    Gateway,
    /// Asked to come back later, before anything happened; after it, a reply that is cut.
    Other,
}

/// What the other side knows, and what was done to it.
#[derive(Debug)]
pub struct Seen {
    /// Incidents by sys_id.
    pub incidents: BTreeMap<String, Map<String, Value>>,
    /// Work notes: sys_id and text.
    pub notes: Vec<(String, String)>,
    /// How sure the model is of an incident, by the mark in its text.
    pub confidence: BTreeMap<String, i64>,
    /// How often the model has answered.
    pub answered: i64,
    /// How it is turned away or lost, next.
    pub manner: Manner,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            incidents: BTreeMap::new(),
            notes: Vec::new(),
            confidence: BTreeMap::new(),
            answered: 0,
            manner: Manner::HangUp,
        }
    }
}

impl Seen {
    /// Something happens that people write a ticket about. Returns its sys_id.
    pub fn incident(&mut self, number: usize, confidence: i64) -> String {
        let sys_id = format!("{number:032x}");
        let mark = format!("case-{number}-");
        let incident = json!({
            "sys_id": sys_id, "number": format!("INC{number:07}"), "short_description": format!("No network, {mark}"),
            "description": "The cable is fine.", "category": "inquiry", "subcategory": "", "impact": "3", "urgency": "3",
            "priority": "5", "state": "1", "assignment_group": "", "sys_mod_count": "0", "sys_updated_by": "service.desk",
        });
        if let Value::Object(incident) = incident {
            self.incidents.insert(sys_id.clone(), incident);
        }
        self.confidence.insert(mark, confidence);
        sys_id
    }

    /// How many notes an incident has.
    pub fn notes_of(&self, sys_id: &str) -> usize {
        self.notes.iter().filter(|(of, _)| of == sys_id).count()
    }
}

/// The running system. It stops when it is dropped.
pub struct Outside {
    seen: Arc<Mutex<Seen>>,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    gates: Arc<Mutex<Gates>>,
    connections: Arc<Mutex<JoinSet<()>>>,
    _server: JoinSet<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> std::io::Result<Outside> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (seen, gates) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Gates>>::default());
        let connections = Arc::<Mutex<JoinSet<()>>>::default();
        let mut server = JoinSet::new();
        let shared = (seen.clone(), gates.clone(), connections.clone());
        server.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connections = locked(&shared.2);
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, shared.0.clone(), locked(&shared.1).clone()));
            }
        });
        Ok(Outside { seen, url, gates, connections, _server: server })
    }

    /// Another history begins: nothing is known, and these are its gates.
    pub fn begin(&self, gates: Gates) {
        self.hang_up();
        *locked(&self.gates) = gates;
        *self.seen() = Seen::default();
    }

    /// Whoever called is dead. What it asked for and has not arrived never does: were it answered, the reply would wait at a
    /// gate in the name of whoever runs by then.
    pub fn hang_up(&self) {
        locked(&self.connections).abort_all();
    }

    /// What it knows.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>, gates: Gates) {
    let Some((method, path, body)) = request(&mut stream).await else { return };
    let what = match (method.as_str(), path.ends_with("/chat/completions")) {
        (_, true) => MODEL,
        ("GET", _) => READ,
        _ => WRITE,
    };
    let look = || locked(&seen);
    let arrives = gates.before(what).await;
    let reply = match arrives {
        Verdict::Refuse => match look().manner {
            Manner::HangUp => return,
            Manner::Gateway => whole(503, "{}"),
            Manner::Other => whole(429, "{}"),
        },
        Verdict::Go | Verdict::Lose => answer(&mut look(), &method, &path, &body),
    };
    let told = gates.after(what).await;
    let reply = match (arrives, told) {
        (Verdict::Lose, _) | (_, Verdict::Refuse | Verdict::Lose) => match look().manner {
            Manner::HangUp => return,
            Manner::Gateway => whole(502, "<html>"),
            Manner::Other => reply[..reply.len() - reply.len().min(9)].to_owned(),
        },
        _ => reply,
    };
    // Whether that arrives is for the caller to know.
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn request(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let length = text.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
    });
    while bytes.len() < head + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = text.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned(), bytes[head..].to_vec()))
}

fn whole(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answer(seen: &mut Seen, method: &str, path: &str, body: &[u8]) -> String {
    let (route, query) = path.split_once('?').unwrap_or((path, ""));
    if route.ends_with("/chat/completions") {
        return said(seen, body);
    }
    let sys_id = route.strip_prefix("/api/now/table/incident/").unwrap_or_default();
    let result = match (method, route) {
        ("GET", "/api/now/table/sys_user_group") => json!([{"sys_id": NETWORK, "name": "Network"}]),
        ("GET", "/api/now/table/sys_journal_field") => {
            let marker = query.split("valueLIKE").nth(1).and_then(|rest| rest.split('&').next());
            let marker =
                marker.unwrap_or_default().replace("%5B", "[").replace("%5D", "]").replace("%3A", ":");
            let found = seen.notes.iter().any(|(_, note)| !marker.is_empty() && note.contains(&marker));
            if found { json!([{"sys_id": "j1"}]) } else { json!([]) }
        }
        ("GET", _) if seen.incidents.contains_key(sys_id) => Value::Object(seen.incidents[sys_id].clone()),
        ("PATCH", _) if seen.incidents.contains_key(sys_id) => {
            let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return whole(400, "{}") };
            for (field, value) in fields {
                if field == "work_notes" {
                    seen.notes.push((sys_id.to_owned(), value.as_str().unwrap_or_default().to_owned()));
                } else if let Some(incident) = seen.incidents.get_mut(sys_id) {
                    incident.insert(field, value);
                }
            }
            Value::Object(seen.incidents[sys_id].clone())
        }
        _ => return whole(404, "{}"),
    };
    whole(200, &json!({"result": result}).to_string())
}

/// The model's answer.
fn said(seen: &mut Seen, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let confidence = seen.confidence.iter().find(|(mark, _)| text.contains(mark.as_str()));
    let confidence = confidence.map_or(0, |(_, confidence)| *confidence);
    seen.answered += 1;
    let content = json!({"assignment_group": "Network", "summary": "No network.", "confidence": confidence});
    let (prompt, completion) = TOKENS;
    let reply = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "stand-in",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
                     "message": {"role": "assistant", "content": content.to_string(), "refusal": null}}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    });
    whole(200, &reply.to_string())
}
