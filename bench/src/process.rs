//! `start`, `rss_idle` and `binary`: the release binary as a process of its own, on a configuration that says nothing.
//!
//! The binary stands beside this program, as `make bench` builds both. It is started on a folder that it has served before,
//! as an operator's restart does, and on an empty one, where it makes its keys and its policy first. The clock runs from
//! the start of the process until `/readyz` answers 200 over a new connection.

use crate::commit::percentile;
use crate::row;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use store::{Clock as _, SystemClock};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Starts on a folder that is there, and on an empty one.
const AGAIN: usize = 11;
const AFRESH: usize = 3;
/// How long the process is left alone before its memory is looked at: its rounds have all come by.
const IDLE: Duration = Duration::from_secs(5);
/// Most looks at `/readyz`.
const LOOKS_MAX: u32 = 10_000;

/// The binary, if it has been built.
fn binary() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join("writ");
    path.exists().then_some(path)
}

/// Whether the server at `address` says that it is ready.
async fn ready(address: &str) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(
                format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await?;
        let mut reply = Vec::new();
        stream.take(4096).read_to_end(&mut reply).await?;
        Ok::<_, std::io::Error>(reply)
    };
    asked.await.is_ok_and(|reply| reply.starts_with(b"HTTP/1.1 200"))
}

/// Starts the binary on a folder. Returns it, still running, and the microseconds until it was ready.
async fn started(binary: &Path, folder: &Path) -> (Child, u64) {
    let from_us = SystemClock.monotonic_us();
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WRIT_")) {
        command.env_remove(name);
    }
    command.arg("serve").env("WRIT_FOLDER", folder).env("WRIT_LISTEN", "127.0.0.1:0").env("WRIT_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe was asked for")).lines();
    let first = lines.next_line().await.expect("it prints text").expect("it says where it listens");
    let address = first.strip_prefix("writ serves http://").expect("an address").to_owned();
    for _ in 0..LOOKS_MAX {
        if ready(&address).await {
            return (child, SystemClock.monotonic_us() - from_us);
        }
    }
    panic!("{address} does not become ready");
}

/// Ends it as an operator does, and waits for that.
async fn ended(mut child: Child) {
    if let Some(id) = child.id() {
        let _ = Command::new("kill").arg(id.to_string()).status().await;
    }
    let _ = child.wait().await;
}

/// Resident memory of a process, in bytes.
fn resident_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// The rows; none where the binary has not been built.
#[expect(clippy::print_stdout, reason = "what is left out is said")]
pub async fn rows() -> Vec<Value> {
    let Some(binary) = binary() else {
        println!("start, rss_idle, binary: left out, for there is no `writ` beside this program");
        return Vec::new();
    };
    let mut afresh = Vec::new();
    let mut folder = None;
    for _ in 0..AFRESH {
        let fresh = tempfile::tempdir().expect("a folder");
        let (child, wait) = started(&binary, fresh.path()).await;
        ended(child).await;
        afresh.push(wait);
        folder = Some(fresh);
    }
    let folder = folder.expect("it was started at least once");
    let mut again = Vec::new();
    for _ in 0..AGAIN {
        let (child, wait) = started(&binary, folder.path()).await;
        ended(child).await;
        again.push(wait);
    }
    let (child, _) = started(&binary, folder.path()).await;
    tokio::time::sleep(IDLE).await;
    let resident = resident_bytes(child.id().expect("it runs"));
    ended(child).await;
    let size = std::fs::metadata(&binary).expect("it was started a moment ago").len();
    let ms = |waits| percentile(waits, 0.5) as f64 / 1000.0;
    vec![
        row("start", ms(again), "ms", None, 0, "<= 300"),
        row("start_first", ms(afresh), "ms", None, 0, ""),
        row("rss_idle", resident as f64 / 1e6, "MB", None, 0, "<= 80"),
        row("binary", size as f64 / 1e6, "MB", None, 0, "<= 60"),
    ]
}
