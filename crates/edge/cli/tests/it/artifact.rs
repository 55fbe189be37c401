//! The signed half of docs/journeys/connectors.md: a key, a signature, an installation, and verifying without one.

use crate::process::{Server, run, writ};
use serde_json::Value;
use std::fs;
use std::process::Command;

const MANIFEST: &str = include_str!("../../../../../contracts/connectors/http.yaml");

#[test]
fn a_connector_is_signed_taken_in_and_verified_offline() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let key = fs::read_to_string(folder.path().join("data/admin.key")).unwrap().trim().to_owned();
    let command = |args: &[&str]| -> Command {
        let mut command = writ(args);
        command.current_dir(folder.path()).env("WRIT_URL", &server.url).env("WRIT_KEY", &key);
        command.env("WRIT_TENANT", "ten_main");
        command
    };
    let ok = |args: &[&str]| -> Value {
        let (code, out, err) = run(&mut command(&[args, &["-o", "json"]].concat()));
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    };
    let fails = |args: &[&str], expected: i32, says: &str| {
        let (code, out, err) = run(&mut command(args));
        assert_eq!(code, expected, "{args:?}: {out}{err}");
        assert!(err.contains(says) || out.contains(says), "{args:?}: {out}{err}");
    };
    fs::write(folder.path().join("own.yaml"), MANIFEST.replace("\"1.0.0\"", "\"1.0.0-own\"")).unwrap();
    let made = ok(&["artifact", "keygen", "--out", "team.key"]);
    let sign = ["artifact", "sign", "own.yaml", "--key", "team.key", "--out", "own.artifact.json"];
    let signed = ok(&sign);
    fails(&sign, 2, "cannot be made");
    let install = |manifest: &'static str| -> [&'static str; 8] {
        ["connector", "install", "--name", "own", "--manifest", manifest, "--base-url", "https://own.example"]
    };
    // Nobody knows the key yet.
    let (code, out, err) = run(&mut command(&install("@own.artifact.json")));
    assert!(code != 0 && format!("{out}{err}").contains("artifact.key_unknown"), "{out}{err}");
    let registered = ok(&["artifact-key", "register", "--name", "team", "--public-key", "@team.key.pub"]);
    assert_eq!(registered["artifact_key"], made["artifact_key"]);
    let installed = ok(&install("@own.artifact.json"));
    assert_eq!(installed["artifact"], signed["digest"]);
    // What the installation signed is verified with its trust file, what the team signed with the team's key.
    ok(&["trust", "show", "--file", "trust.json"]);
    ok(&[
        "connector",
        "install",
        "--name",
        "plain",
        "--manifest",
        "@own.yaml",
        "--base-url",
        "https://own.example",
    ]);
    fs::write(folder.path().join("next.yaml"), MANIFEST.replace("\"1.0.0\"", "\"1.0.1-own\"")).unwrap();
    let published = ok(&["artifact", "publish", "--manifest", "@next.yaml"]);
    let shown = ok(&["artifact", "show", published["artifact"].as_str().unwrap()]);
    fs::write(folder.path().join("taken-in.json"), shown.to_string()).unwrap();
    let verified = ok(&["artifact", "verify", "taken-in.json", "--trust", "trust.json"]);
    assert_eq!((&verified["digest"], &verified["version"]), (&published["digest"], &"1.0.1-own".into()));
    assert_eq!(
        ok(&["artifact", "verify", "own.artifact.json", "--key", "team.key.pub"])["digest"],
        signed["digest"]
    );
    fails(&["artifact", "verify", "own.artifact.json", "--trust", "trust.json"], 7, "artifact.key_unknown");
    let text = fs::read_to_string(folder.path().join("own.artifact.json")).unwrap();
    let altered = text.replace("vnd.writ.connector", "vnd.writ.workflow");
    fs::write(folder.path().join("altered.json"), altered).unwrap();
    fails(&["artifact", "verify", "altered.json", "--key", "team.key.pub"], 7, "artifact.signature");
    fails(&["artifact", "verify", "own.artifact.json"], 2, "--trust");
    // A private key that others can read signs nothing.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(folder.path().join("team.key"), mode).unwrap();
    fails(&["artifact", "sign", "own.yaml", "--key", "team.key", "--out", "other.json"], 2, "chmod 600");
    drop(server);
}
