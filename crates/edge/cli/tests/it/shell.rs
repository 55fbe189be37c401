//! What a shell relies on: a closed pipe, a folder made ahead, a check-up that says what is wrong.

use crate::process::{Server, run, writ};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

/// Runs a command whose reader leaves after the first line, as `head -1` does.
fn one_line(mut command: std::process::Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "it prints something");
    drop(reader);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let keyed = |args: &[&str]| {
        let mut command = writ(args);
        command.env("WRIT_URL", &server.url).env("WRIT_KEY_FILE", folder.path().join("admin.key"));
        command
    };
    for args in [
        &["principal", "list", "-o", "json"][..],
        &["config"],
        &["completions", "bash"],
        &["doctor"],
        &["--help"],
        &["trust", "show", "-o", "yaml", "--tenant", "ten_main"],
    ] {
        let (code, err) = one_line(keyed(args));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
    }
    // A stream that would go on for ever ends when nobody reads it: the next fact is the first that nobody gets.
    let mut events = keyed(&["events", "--after", "0", "--tenant", "ten_main"]);
    let mut child = events.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let made = keyed(&[
        "principal",
        "create",
        "--name",
        "one",
        "--kind",
        "person",
        "--roles",
        "auditor",
        "--tenant",
        "ten_main",
    ])
    .output()
    .unwrap();
    assert!(made.status.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.is_empty()), (Some(0), true));
    // A failure stays one, also when nobody reads why.
    let mut refused = keyed(&["principal", "show", "prn_nobody"]);
    let mut child = refused.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn events_go_on_over_a_restart_and_end_when_the_installation_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = server.url.clone();
    let keyed = |args: &[&str]| {
        let mut command = writ(args);
        command.env("WRIT_URL", &url).env("WRIT_TENANT", "ten_main");
        command.env("WRIT_KEY_FILE", folder.path().join("admin.key"));
        command
    };
    let make = |name: &str| {
        let args = ["principal", "create", "--name", name, "--kind", "person", "--roles", "auditor"];
        let (code, _, err) = run(&mut keyed(&args));
        assert_eq!(code, 0, "{err}");
    };
    let mut follow = keyed(&["events", "--kind", "access.principal.created", "--after", "0", "--tries", "4"]);
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut noted = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&told.next().unwrap().unwrap()).unwrap() };
    make("one");
    // The first start has made principals as well.
    let mut first = next();
    while first["data"]["act"] != "access.principal.create" {
        first = next();
    }
    // It is away, without a word to its callers.
    drop(server);
    assert!(noted.next().unwrap().unwrap().contains("the stream has ended; coming back in 1 s (1 of 4)"));
    let server = Server::start_with(folder.path(), &[("WRIT_LISTEN", url.trim_start_matches("http://"))]);
    make("two");
    let second = next();
    assert_eq!(second["type"], "access.principal.created");
    assert_ne!(second["id"], first["id"], "neither a gap nor a repetition");
    drop(server);
    let code = child.wait().unwrap().code();
    let rest: Vec<String> = noted.map(Result::unwrap).collect();
    assert_eq!(code, Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.starts_with("writ: back; going on after ")), "{rest:?}");
    let go_on = format!("go on with --after {}", second["logindex"].as_str().unwrap());
    assert!(rest.iter().any(|line| line.ends_with(&go_on)), "{rest:?}");
    // Nobody waits for an installation that was never there.
    let (code, _, err) = run(&mut keyed(&["events"]));
    assert!(code == 1 && !err.contains("coming back"), "{err}");
}

#[test]
fn a_folder_is_made_ahead_and_looked_over() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let here = |args: &[&str]| {
        let mut command = writ(args);
        command.env("WRIT_FOLDER", &folder).env("WRIT_URL", "http://127.0.0.1:1");
        command
    };
    let rows = |output: &str| -> Vec<Value> {
        serde_json::from_str::<Value>(output).unwrap()["items"].as_array().unwrap().clone()
    };
    let state = |rows: &[Value], what: &str| {
        let found = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {rows:?}"));
        found["state"].as_str().unwrap().to_owned()
    };
    let (code, out, _) = run(&mut here(&["doctor", "-o", "json"]));
    assert_eq!(code, 1);
    assert_eq!(state(&rows(&out), "folder"), "note");
    assert_eq!(state(&rows(&out), "installation"), "bad");

    let (code, out, err) = run(&mut here(&["init", "-o", "json"]));
    assert_eq!(code, 0, "{err}");
    let first: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(first["created"], true);
    let key = std::fs::read_to_string(folder.join("admin.key")).unwrap();
    assert!(!out.contains(key.trim()), "the key stands in its file only");
    let (code, out, _) = run(&mut here(&["init", "-o", "json"]));
    let again: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &again["created"]), (0, &Value::Bool(false)));
    assert_eq!(again["trust_fingerprint"], first["trust_fingerprint"]);
    assert_eq!(std::fs::read_to_string(folder.join("admin.key")).unwrap(), key);

    // What was made ahead is what is served.
    let server = Server::start(&folder);
    let (code, _, err) = run(&mut here(&["init"]));
    assert_eq!(code, 1, "a folder that is served is not opened twice");
    assert!(err.contains("edge.store_unusable"), "{err}");
    let mut doctor = writ(&["doctor", "-o", "json"]);
    doctor
        .env("WRIT_FOLDER", &folder)
        .env("WRIT_URL", &server.url)
        .env("WRIT_KEY_FILE", folder.join("admin.key"));
    let (code, out, err) = run(&mut doctor);
    assert_eq!(code, 0, "{out}{err}");
    for what in ["configuration", "folder", "keys", "installation", "version", "clock", "readiness", "key"] {
        assert_eq!(state(&rows(&out), what), "good", "{what}: {out}");
    }
    assert!(!out.contains(key.trim()), "{out}");
    std::fs::set_permissions(folder.join("admin.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, _) = run(&mut doctor);
    assert_eq!(
        (code, state(&rows(&out), "admin key").as_str(), state(&rows(&out), "key file").as_str()),
        (1, "bad", "bad")
    );
    let (code, out, _) =
        run(doctor.env_remove("WRIT_KEY_FILE").env("WRIT_KEY", "key_none.00000000000000000000000000000000"));
    assert_eq!((code, state(&rows(&out), "key").as_str()), (1, "bad"), "{out}");
}

/// A list that goes on says how, for people; and programs find it in the answer.
#[test]
fn a_list_that_goes_on_says_how() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let server = Server::start(&folder);
    let keyed = |args: &[&str]| {
        let mut command = writ(&[&["--tenant", "ten_main", "principal"], args].concat());
        command.env("WRIT_URL", &server.url).env("WRIT_KEY_FILE", folder.join("admin.key"));
        let (code, out, err) = run(&mut command);
        assert_eq!(code, 0, "{args:?}: {err}");
        (out, err)
    };
    for name in ["zoe-1", "zoe-2", "zoe-3"] {
        keyed(&["create", "--name", name, "--kind", "person", "--roles", "auditor"]);
    }
    let (mut seen, mut option) = (String::new(), Vec::new());
    loop {
        let (out, err) = keyed(&[&["list", "--limit", "2"][..], &option].concat());
        assert!(out.lines().count() <= 3, "{out}");
        seen.push_str(&out);
        let Some(more) = err.trim().strip_prefix("There are more: ").map(str::to_owned) else { break };
        option = more.leak().split(' ').collect();
        assert_eq!(option[0], "--after");
    }
    assert!(["zoe-1", "zoe-2", "zoe-3"].iter().all(|name| seen.matches(name).count() == 1), "{seen}");
    let (out, err) = keyed(&["list", "--limit", "2", "-o", "json"]);
    assert!(err.is_empty() && out.contains("\"next\""), "{out}{err}");
}

#[test]
fn who_is_new_here_is_told_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let server = Server::start(&folder);
    let keyed = |args: &[&str]| {
        let mut command = writ(args);
        command.env("WRIT_URL", &server.url).env("WRIT_KEY_FILE", folder.join("admin.key"));
        command.current_dir(place.path());
        command
    };
    // An empty list of the platform's tenant is not an empty installation.
    let (code, out, err) = run(&mut keyed(&["run", "list"]));
    assert!(code == 0 && out.contains("(none)") && err.contains("--tenant or WRIT_TENANT"), "{out}{err}");
    let (_, _, err) = run(&mut keyed(&["run", "list", "--tenant", "ten_main"]));
    assert_eq!(err, "");
    // Two keys in the environment: nobody guesses who acts.
    let (code, _, err) = run(keyed(&["run", "list"]).env("WRIT_KEY", "key_x.00"));
    assert!(code == 2 && err.contains("both set"), "{err}");
    let file = folder.join("admin.key");
    let (code, _, err) =
        run(keyed(&["run", "list", "--key-file", file.to_str().unwrap()]).env("WRIT_KEY", "key_x.00"));
    assert_eq!(code, 0, "{err}");
    // A file's name where its content is meant.
    std::fs::write(place.path().join("greet.yaml"), "name: greet\n").unwrap();
    let mut publish = keyed(&["workflow", "publish", "--yaml", "greet.yaml", "--tenant", "ten_main"]);
    let (_, _, err) = run(&mut publish);
    assert!(err.contains("@greet.yaml reads the file"), "{err}");
    // Evidence is a file, not a screen of base64.
    let (_, out, err) =
        run(&mut keyed(&["evidence", "export", "--all", "--tenant", "ten_main", "-o", "json"]));
    let exported: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let bundle = exported["bundle"].as_str().unwrap();
    let (code, out, err) = run(&mut keyed(&["evidence", "download", bundle, "--tenant", "ten_main"]));
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("written to") && place.path().join(format!("{bundle}.evidence.tar")).is_file(),
        "{out}"
    );
    // A port that is taken.
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut second = writ(&["serve"]);
    let (code, _, err) =
        run(second.env("WRIT_FOLDER", place.path().join("other")).env("WRIT_LISTEN", address));
    assert!(code == 1 && err.contains("edge.listen_failed") && err.contains("WRIT_LISTEN"), "{err}");
}

#[test]
fn a_workflow_is_looked_over_without_an_installation() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("w.yaml");
    let check = || run(&mut writ(&["workflow", "check", file.to_str().unwrap(), "-o", "json"]));
    std::fs::write(&file, include_str!("../../../../../contracts/workflows/three-steps.yaml")).unwrap();
    let (code, out, err) = check();
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &said["workflow"], &said["steps"]), (0, &"three-steps".into(), &3.into()), "{err}");
    std::fs::write(&file, "name: x\nsteps:\n  - id: one\n    does: nothing\n").unwrap();
    let (code, out, err) = check();
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("is no workflow") && err.lines().count() > 1, "{err}");
}

#[test]
fn the_configuration_is_shown_with_where_it_came_from() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("writ.toml");
    std::fs::write(
        &file,
        "cell = \"north\"\n[telemetry]\notlp = \"http://127.0.0.1:4318\"\ncredential = \"env:OTLP_TOKEN\"\n",
    )
    .unwrap();
    let mut command = writ(&["config", "--config", file.to_str().unwrap(), "-o", "json"]);
    let (code, out, err) = run(command.env("WRIT_LIMITS_JOBS", "7").env("OTLP_TOKEN", "canary-token"));
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("canary-token"), "a secret is named, and not shown");
    let rows: Value = serde_json::from_str(&out).unwrap();
    let row = |name: &str| {
        let found = rows["items"].as_array().unwrap().iter().find(|row| row["name"] == name);
        found.map(|row| (row["value"].clone(), row["from"].as_str().unwrap().to_owned()))
    };
    let path = file.to_str().unwrap().to_owned();
    assert_eq!(row("cell"), Some(("north".into(), path.clone())));
    assert_eq!(row("telemetry.credential"), Some(("env:OTLP_TOKEN".into(), path)));
    assert_eq!(row("limits.jobs"), Some((7.into(), "WRIT_LIMITS_JOBS".to_owned())));
    assert_eq!(row("limits.streams"), Some((256.into(), "default".to_owned())));
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = run(&mut writ(&["completions", shell]));
        assert_eq!(code, 0, "{err}");
        for word in ["if-match", "workflow", "completions"] {
            assert!(out.contains(word), "{shell} completes no {word}");
        }
    }
}
