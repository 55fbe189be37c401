//! `writ backup`, as an operator types it, beside a server that works.

use crate::process::{Server, run, writ};
use serde_json::Value;
use std::fs;

#[test]
fn a_drill_from_backup_to_the_next_epoch() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let server = Server::start(&place.path().join("data"));
    let key = path("data/admin.key");
    let ask = |url: &str, args: &[&str]| {
        let mut command = writ(args);
        command.current_dir(place.path()).env("WRIT_URL", url).env("WRIT_KEY_FILE", &key);
        run(&mut command)
    };
    let ok = |url: &str, args: &[&str]| {
        let (code, out, err) = ask(url, args);
        assert_eq!(code, 0, "{args:?}: {err}");
        (out, err)
    };
    let person =
        ["--tenant", "ten_main", "principal", "create", "--kind", "person", "--roles", "builder", "--name"];
    ok(&server.url, &[&person[..], &["Ann"]].concat());

    // By the server, and without one.
    let (made, advice) = ok(&server.url, &["backup", "create", "-o", "json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let folder = made["folder"].as_str().unwrap();
    assert!(advice.contains("backup.key"), "{advice}");
    let (copied, _) =
        ok(&server.url, &["backup", "create", "--folder", &path("data"), "--to", &path("copy")]);
    assert!(copied.contains("all of them fit") && copied.contains("backup.key"), "{copied}");
    let (code, _, err) =
        ask(&server.url, &["backup", "create", "--folder", &path("data"), "--to", &path("copy")]);
    assert_eq!((code, err.contains("edge.backup_failed")), (2, true), "{err}");
    ok(&server.url, &["backup", "verify", folder]);
    let (verified, _) =
        ok(&server.url, &["backup", "verify", &path("copy"), "--folder", &path("data"), "-o", "json"]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["logs"].as_array().unwrap().len(), 2);

    // What happens afterwards is lost with the disk.
    ok(&server.url, &[&person[..], &["Bob"]].concat());
    drop(server);
    let to = path("restored/data");
    let (code, _, err) = ask(
        "",
        &["backup", "restore", &path("copy"), "--key", &path("data/backup.key"), "--to", &path("data")],
    );
    assert_eq!(code, 2, "a folder with something in it is left alone: {err}");
    fs::create_dir(place.path().join("restored")).unwrap();
    let (said, _) =
        ok("", &["backup", "restore", &path("copy"), "--key", &path("data/backup.key"), "--to", &to]);
    assert!(said.contains("writ epoch open"), "{said}");

    let server = Server::start(&place.path().join("restored/data"));
    let (code, _, err) = ask(&server.url, &[&person[..], &["Cid"]].concat());
    assert_eq!((code, err.contains("evidence.put_back")), (1, true), "{err}");
    let (_, found, _) = ask(&server.url, &["doctor"]);
    assert!(found.contains("opens an epoch"), "{found}");
    let (people, _) = ok(&server.url, &["--tenant", "ten_main", "principal", "list"]);
    assert!(people.contains("Ann") && !people.contains("Bob"), "{people}");
    ok(&server.url, &["epoch", "open", "--reason", "the disk of host one died at noon"]);
    ok(&server.url, &[&person[..], &["Cid"]].concat());
    let (listed, _) = ok(&server.url, &["epoch", "list"]);
    assert!(listed.contains("the disk of host one"), "{listed}");
    ok(&server.url, &["--tenant", "ten_main", "trust", "show", "--file", &path("trust.json")]);
    ok(&server.url, &["--tenant", "ten_main", "evidence", "export", "--all", "true"]);
    let evidence =
        fs::read_dir(place.path().join("restored/data/evidence")).unwrap().next().unwrap().unwrap();
    let evidence = evidence.path().to_str().unwrap().to_owned();
    ok("", &["verify", &evidence, "--trust", &path("trust.json")]);

    // A byte of it, and it is believed no more.
    let sealed = place.path().join("copy/keys.sealed");
    let mut bytes = fs::read(&sealed).unwrap();
    bytes[40] ^= 1;
    fs::write(&sealed, bytes).unwrap();
    let (code, _, err) = ask("", &["backup", "verify", &path("copy")]);
    assert_eq!((code, err.contains("edge.backup_invalid")), (7, true), "{err}");
}
