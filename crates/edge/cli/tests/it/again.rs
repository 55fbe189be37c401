//! A caller that heard nothing: the process died after the commit and before its answer, and the same is asked again.

use crate::process::writ;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

/// A process of its own, which may die by itself.
struct Life {
    child: Child,
    host: Option<String>,
}

impl Life {
    fn start(folder: &Path, crash_point: Option<&str>) -> Life {
        let mut command = writ(&["serve"]);
        command.env("WRIT_FOLDER", folder).env("WRIT_LISTEN", "127.0.0.1:0").env("WRIT_LOG", "error");
        command.envs(crash_point.map(|point| ("WRIT_CRASH_POINT", point)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("writ starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // It may die before it says where it listens.
        let first = lines.next().and_then(Result::ok);
        let host = first.and_then(|line| Some(line.strip_prefix("writ serves http://")?.to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        Life { child, host }
    }

    /// The answer to a request, whole; nothing if the process died before or in the middle of it.
    fn ask(
        &self,
        folder: &Path,
        method: &str,
        path: &str,
        idempotency_key: &str,
        body: &Value,
    ) -> Option<String> {
        let key = std::fs::read_to_string(folder.join("admin.key")).ok()?;
        let (host, key, body) = (self.host.as_ref()?, key.trim(), body.to_string());
        let mut stream = TcpStream::connect(host).ok()?;
        let content = match method {
            "GET" => String::new(),
            _ => format!(
                "idempotency-key: {idempotency_key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        let end = if content.is_empty() { "\r\n" } else { "" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
             writ-tenant: ten_main\r\n{content}{end}"
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        Some(body.to_owned())
    }

    /// Ids of the principals of this name.
    fn named(&self, folder: &Path, name: &str) -> Vec<Value> {
        let list = self.ask(folder, "GET", "/v1/principals?limit=200", "", &Value::Null).expect("it lives");
        let list: Value = serde_json::from_str(&list).expect("json");
        assert_eq!(list["next"], Value::Null, "one page holds all that this test makes");
        let items = list["items"].as_array().expect("a list").iter();
        items.filter(|item| item["name"] == name).map(|item| item["id"].clone()).collect()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // By its own handle; it may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Killed at each step of a commit, at several commits each; whoever asks again under the same key gets one answer, the
/// same every time byte for byte, and the act was done once. Where the commit was durable before the death, the answer is
/// that of the act that nobody heard of.
#[test]
fn g07_who_heard_nothing_asks_again_and_gets_the_answer_of_the_first_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = &folder.path().join("data");
    drop(Life::start(folder, None));
    let (mut asked, mut heard_of_later) = (0, 0);
    for point in ["commit.applied", "commit.durable", "commit.replied"] {
        for pass in [9, 14] {
            let life = Life::start(folder, Some(&format!("{point}:{pass}")));
            let (name, body) = loop {
                asked += 1;
                assert!(asked < 300, "{point}:{pass} is never passed");
                let name = format!("person {asked}");
                let body = json!({"name": name, "kind": "person", "roles": ["auditor"]});
                if life.ask(folder, "POST", "/v1/principals", &name.replace(' ', "-"), &body).is_none() {
                    break (name, body);
                }
            };
            drop(life);
            let life = Life::start(folder, None);
            let before = life.named(folder, &name);
            let again = || {
                life.ask(folder, "POST", "/v1/principals", &name.replace(' ', "-"), &body).expect("it lives")
            };
            let first = again();
            assert_eq!((again(), again()), (first.clone(), first.clone()), "{point}:{pass}");
            let first: Value = serde_json::from_str(&first).unwrap();
            assert_eq!(
                life.named(folder, &name),
                [first["principal"].clone()],
                "{point}:{pass}: it was done once"
            );
            if let [made] = &before[..] {
                assert_eq!(first["principal"], *made, "{point}:{pass}");
                heard_of_later += 1;
            }
        }
    }
    assert!(heard_of_later >= 2, "some had been done before anybody asked again: {heard_of_later}");
}
