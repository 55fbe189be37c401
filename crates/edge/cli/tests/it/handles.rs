//! `writ serve` with few file handles.

use crate::process::writ;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Handles that the process may have.
const HANDLES: usize = 96;

fn ask(stream: &mut TcpStream, method: &str, path: &str, key: &str, body: &str) -> String {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nWrit-Tenant: ten_main\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let head = if body.is_empty() {
        head.replace("Content-Type: application/json\r\nContent-Length: 0\r\n", "")
    } else {
        head
    };
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut answer, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = bytes.trim().parse().unwrap();
        }
        answer.push_str(&line);
        if line == "\r\n" || line.is_empty() {
            break;
        }
    }
    let mut rest = vec![0; length];
    reader.read_exact(&mut rest).unwrap();
    answer + &String::from_utf8(rest).unwrap()
}

/// More idle clients than there are handles: whoever is in can still have a bundle written, and when the crowd has gone
/// everybody can, without anybody's help.
#[test]
fn a_crowd_of_idle_clients_takes_no_handle_that_work_needs() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let program = writ(&["serve"]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {HANDLES}; exec \"$0\" serve")]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("WRIT_FOLDER", &folder).env("WRIT_LISTEN", "127.0.0.1:0").env("WRIT_LOG", "warn");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let address = first.strip_prefix("writ serves http://").unwrap().to_owned();
    std::thread::spawn(move || lines.for_each(drop));
    let key = std::fs::read_to_string(folder.join("admin.key")).unwrap().trim().to_owned();

    let mut early = TcpStream::connect(&address).unwrap();
    let alive = ask(&mut early, "GET", "/readyz", &key, "");
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    // The system takes them all (it queues 128 and more); the server does not.
    let crowd: Vec<TcpStream> = (0..HANDLES + 8).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..3 {
        let made = ask(&mut early, "POST", "/v1/evidence", &key, "{\"all\":true}");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    }
    drop(crowd);
    let mut late = TcpStream::connect(&address).unwrap();
    let made = ask(&mut late, "POST", "/v1/evidence", &key, "{\"all\":true}");
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    // By its own handle.
    let _ = child.kill();
    let _ = child.wait();
}
