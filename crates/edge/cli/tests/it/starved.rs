//! `writ serve` where the system gives it less than it needs.

use crate::process::Server;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

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

fn key(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("admin.key")).unwrap().trim().to_owned()
}

/// More idle clients than there are handles: whoever is in can still have a bundle written, and when the crowd has gone
/// everybody can, without anybody's help.
#[test]
fn a_crowd_of_idle_clients_takes_no_handle_that_work_needs() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let server = Server::start_after(&folder, &format!("ulimit -n {HANDLES}"));
    let address = server.url.strip_prefix("http://").unwrap();
    let key = key(&folder);
    let mut early = TcpStream::connect(address).unwrap();
    let alive = ask(&mut early, "GET", "/readyz", &key, "");
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    // The system takes them all (it queues 128 and more); the server does not.
    let crowd: Vec<TcpStream> = (0..HANDLES + 8).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..3 {
        let made = ask(&mut early, "POST", "/v1/evidence", &key, "{\"all\":true}");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    }
    drop(crowd);
    let mut late = TcpStream::connect(address).unwrap();
    let made = ask(&mut late, "POST", "/v1/evidence", &key, "{\"all\":true}");
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
}

/// A disk that takes nothing more, in the middle of work, and then does again: no write is believed in between, reads go
/// on, and nobody has to start the server again. Every `write` of the process fails, as on a disk that has become
/// read-only.
#[test]
fn a_disk_that_takes_no_writes_is_over_when_it_takes_them_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    // What would be a signal is an error of the call.
    let server = Server::start_after(&folder, "trap '' XFSZ");
    let key = key(&folder);
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let (mut n, mut kept) = (0, Vec::new());
    let mut create = |stream: &mut TcpStream| {
        n += 1;
        let body = format!("{{\"name\":\"person-{n}\",\"kind\":\"person\",\"roles\":[]}}");
        let answer = ask(stream, "POST", "/v1/principals", &key, &body);
        (format!("person-{n}"), answer)
    };
    for round in 0..3 {
        let (name, answer) = create(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{round}: {answer}");
        kept.push(name);
        limit(&server, "0:unlimited");
        for _ in 0..4 {
            let (_, answer) = create(&mut stream);
            assert!(
                answer.starts_with("HTTP/1.1 503") && answer.contains("store.failed"),
                "{round}: {answer}"
            );
            let listed = ask(&mut stream, "GET", "/v1/principals", &key, "");
            assert!(kept.iter().all(|name| listed.contains(&format!("\"{name}\""))), "{round}: {listed}");
        }
        limit(&server, "unlimited");
        let (name, answer) = create(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{round}: {answer}");
        kept.push(name);
    }
    let made = ask(&mut stream, "POST", "/v1/evidence", &key, "{\"all\":true}");
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    // What is there is what was acknowledged, before and after a death.
    drop((stream, server));
    let server = Server::start(&folder);
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    let listed = ask(&mut stream, "GET", "/v1/principals", &key, "");
    for at in 1..=n {
        let name = format!("person-{at}");
        assert_eq!(listed.contains(&format!("\"{name}\"")), kept.contains(&name), "{name}: {listed}");
    }
}

/// A flush that fails is told once, and the next one may succeed with pages that are in memory alone. So it is final: no
/// write is taken until the next start, which finds everything that was acknowledged. `flush.c` is the disk.
#[test]
fn a_flush_that_fails_is_final_until_the_next_start() {
    let place = tempfile::tempdir().unwrap();
    let (library, flag) = (place.path().join("flush.so"), place.path().join("fails"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/flush.c");
    let made =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(made.success(), "{made}");
    // The log that each commit flushes; and the database, into which the log goes once it has grown.
    for (failing, acknowledged_min) in [("writ.db-wal", 1), ("writ.db", 100)] {
        let folder = place.path().join(failing);
        let disk = [("LD_PRELOAD", library.to_str().unwrap()), ("FLUSH_FAILS", flag.to_str().unwrap())];
        let server = Server::start_with(&folder, &disk);
        let key = key(&folder);
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        let create = |stream: &mut TcpStream, n: usize| {
            let body = format!("{{\"name\":\"person-{n:05}\",\"kind\":\"person\",\"roles\":[]}}");
            ask(stream, "POST", "/v1/principals", &key, &body)
        };
        // Which of them the server knows.
        let known = |stream: &mut TcpStream| -> BTreeSet<usize> {
            let (mut known, mut page) = (BTreeSet::new(), "/v1/principals?limit=200".to_owned());
            loop {
                let listed = ask(stream, "GET", &page, &key, "");
                let names = listed.split("\"name\":\"person-").skip(1);
                known.extend(names.map(|rest| rest[..5].parse::<usize>().unwrap()));
                let Some((_, next)) = listed.split_once("\"next\":\"") else { return known };
                page = format!("/v1/principals?limit=200&after={}", next.split_once('"').unwrap().0);
            }
        };
        let first = create(&mut stream, 1);
        assert!(first.starts_with("HTTP/1.1 200"), "{first}");
        std::fs::write(&flag, failing).unwrap();
        let mut acknowledged = 1;
        let refused = loop {
            let answer = create(&mut stream, acknowledged + 1);
            if !answer.starts_with("HTTP/1.1 200") {
                break answer;
            }
            acknowledged += 1;
        };
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("store.failed"), "{refused}");
        assert!(acknowledged >= acknowledged_min, "{failing}: {acknowledged}");
        std::fs::remove_file(&flag).unwrap();
        // The disk works again, and nothing is written all the same. What is there can be read.
        let late = acknowledged + 2;
        let answer = create(&mut stream, late);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("store.failed"), "{answer}");
        assert_eq!(known(&mut stream), (1..=acknowledged).collect(), "{failing}");
        drop((stream, server));
        let server = Server::start(&folder);
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        // Of the one whose flush failed, nobody knows.
        let mut after = known(&mut stream);
        after.remove(&(acknowledged + 1));
        assert_eq!(after, (1..=acknowledged).collect(), "{failing}");
        let answer = create(&mut stream, late);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Sets how large the files may become that a running server writes.
fn limit(server: &Server, bytes: &str) {
    let pid = server.id().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}")]).status().unwrap();
    assert!(status.success(), "{status}");
}
