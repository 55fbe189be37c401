//! Folders that earlier versions wrote, opened by today's binary.
//!
//! What an upgrade must not do is written on the outside: a bundle and a head of the log that an auditor took home before
//! it. So each stored installation comes with both, and after the upgrade a bundle of the whole log has to hold together
//! with the head from before, under the trust file from before. Deaths in the middle are real ones.

use crate::process::{Server, run, writ};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

/// The crash points of an upgrade.
pub const POINTS: &[&str] = &["schema.applied", "schema.durable"];

/// Where SQLite keeps `user_version` in a database's first page.
const VERSION_AT: usize = 60;

fn stored(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/installations").join(version)
}

/// Copies files, each readable by its owner alone, as the program that made them had them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn version(folder: &Path) -> u32 {
    let page = fs::read(folder.join("writ.db")).unwrap();
    u32::from_be_bytes(page[VERSION_AT..VERSION_AT + 4].try_into().unwrap())
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        copy(&stored("v2"), &folder.path().join("data"));
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a server that is to die at a point.
    fn die(&self, point: &str) {
        let mut command = writ(&["serve"]);
        command.env("WRIT_FOLDER", self.path("data")).env("WRIT_LISTEN", "127.0.0.1:0");
        command.env("WRIT_HIGH_WATER_FILE", self.path("data/high-water")).env("WRIT_CRASH_POINT", point);
        let died = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(died.signal(), Some(6), "{point}: {died}");
    }

    /// Starts a server on the folder and holds everything from before against it.
    fn goes_on(&self) {
        let server = Server::start(&self.path("data"));
        let ask = |args: &[&str]| {
            let mut command = writ(args);
            command
                .current_dir(self.folder.path())
                .env("WRIT_URL", &server.url)
                .env("WRIT_TENANT", "ten_main");
            run(command.env("WRIT_KEY_FILE", self.path("data/admin.key")).args(["-o", "json"]))
        };
        let ok = |args: &[&str]| -> Value {
            let (code, out, err) = ask(args);
            assert_eq!(code, 0, "{args:?}: {err}");
            serde_json::from_str(&out).unwrap()
        };
        let people = ok(&["principal", "list"]);
        assert!(
            people["items"].as_array().unwrap().iter().any(|one| one["name"] == "Bob Example"),
            "{people}"
        );
        assert_eq!(ok(&["budget", "list"])["items"][0]["amount"], 5_000_000);
        assert_eq!(ok(&["epoch", "list"])["items"], serde_json::json!([]));
        // The log grows and is signed, and continues the head that was taken home.
        ok(&["principal", "create", "--name", "Cid Example", "--kind", "person", "--roles", "auditor"]);
        let made = ok(&["evidence", "export", "--all", "true"]);
        let bundle = made["bundle"].as_str().unwrap();
        ok(&["evidence", "download", bundle, "--file", "after.evidence.tar"]);
        let (trust, held) = (stored("v2").join("trust.json"), stored("v2").join("held.checkpoint"));
        let before = fs::read_dir(stored("v2").join("evidence")).unwrap().next().unwrap().unwrap().path();
        for bundle in [&before, &self.path("after.evidence.tar")] {
            let mut command = writ(&["verify", bundle.to_str().unwrap(), "--trust", trust.to_str().unwrap()]);
            if *bundle != before {
                command.args(["--held", held.to_str().unwrap()]);
            }
            let (code, out, err) = run(&mut command);
            assert_eq!(code, 0, "{out}{err}");
        }
        // A secret that was sealed then is one that opens now: its next version needs the old one's record.
        let put =
            ok(&["secret", "put", "--name", "desk.password", "--purpose", "connector", "--value", "another"]);
        assert_eq!(put["version"], 2);
        drop(server);
    }
}

#[test]
fn the_folder_of_the_version_before_goes_on() {
    assert_eq!(version(&stored("v2")), 2);
    let place = Place::new();
    place.goes_on();
    // And once more, as today's own.
    let server = Server::start(&place.path("data"));
    drop(server);
}

/// A death in the middle leaves the old schema or the new one, and the next start makes it the new one.
#[test]
fn an_upgrade_that_is_interrupted_leaves_it_whole() {
    for point in POINTS {
        let place = Place::new();
        place.die(point);
        if *point == "schema.applied" {
            assert_eq!(version(&place.path("data")), 2, "nothing of it was committed");
        }
        // It may die there again and again.
        if *point == "schema.applied" {
            place.die(point);
        }
        place.goes_on();
    }
}

/// What a later version wrote is refused by its number, before anything of it is touched.
#[test]
fn the_folder_of_a_later_version_is_refused_by_name() {
    let place = Place::new();
    let path = place.path("data/writ.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[VERSION_AT..VERSION_AT + 4].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let mut command = writ(&["serve"]);
    command.env("WRIT_FOLDER", place.path("data")).env("WRIT_LISTEN", "127.0.0.1:0");
    let (code, _, err) = run(&mut command);
    assert_eq!(code, 1);
    assert!(err.contains("schema version 99") && err.contains("edge.store_unusable"), "{err}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "it was touched");
}
