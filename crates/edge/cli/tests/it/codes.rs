//! Exit codes against a running installation: scripts branch on them.

use crate::process::{Server, run, writ};
use serde_json::Value;

#[test]
fn exit_codes_say_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let key_file = folder.path().join("admin.key");
    let writ = |args: &[&str]| {
        let mut command = writ(args);
        command.env("WRIT_URL", &server.url).env("WRIT_KEY_FILE", &key_file).env("WRIT_TENANT", "ten_main");
        run(&mut command)
    };
    let json = |args: &[&str]| -> Value {
        let (code, out, err) = writ(&[args, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).unwrap()
    };
    assert!(json(&["principal", "list"])["items"].is_array());
    let made = json(&["principal", "create", "--name", "reader", "--kind", "person", "--roles", "auditor"]);
    let reader = made["principal"].as_str().unwrap();
    let key = json(&["key", "create", "--principal", reader, "--name", "laptop"]);
    let key = key["api_key"].as_str().unwrap();

    for (args, expected) in [
        (&["principal", "show", reader][..], 0),
        (&["principal"], 2),
        (&["principal", "show"], 2),
        (&["principal", "show", "../tenants"], 2),
        (&["run", "list", "--state", "nonsense"], 2),
        (&["principal", "create", "--name", "x", "--kind", "person", "--roles", "emperor"], 2),
        (&["principal", "show", "prn_nobody"], 6),
        (&["run", "show", "run_nothing"], 6),
        (&["approval", "deny", "apr_nothing", "--reason", "x"], 6),
        (&["principal", "create", "--name", "Reader", "--kind", "person", "--roles", "auditor"], 5),
        (&["verify", "nowhere", "--trust", "nowhere"], 2),
        (&["--url", "http://127.0.0.1:1", "run", "list"], 1),
    ] {
        let (code, _, err) = writ(args);
        assert_eq!(code, expected, "{args:?}: {err}");
    }
    // The reader may read and change nothing; a stranger may not even read.
    for (key, args, expected) in [
        (key, &["principal", "list"][..], 0),
        (key, &["principal", "create", "--name", "y", "--kind", "person", "--roles", "auditor"], 3),
        ("key_none.nothing", &["principal", "list"], 3),
        ("", &["principal", "list"], 3),
    ] {
        let mut command = crate::process::writ(args);
        let (code, _, err) = run(command.env("WRIT_URL", &server.url).env("WRIT_KEY", key));
        assert_eq!(code, expected, "{key:.8} {args:?}: {err}");
    }
}

#[test]
fn the_configuration_is_shown_with_its_sources_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("writ.toml");
    std::fs::write(&file, "cell = \"north\"\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, out, err) = run(writ(&["config", "--config", file]).env("WRIT_LIMITS_JOBS", "7"));
    assert_eq!(code, 0, "{err}");
    for (name, source) in
        [("cell = \"north\"", file), ("limits.jobs = 7", "WRIT_LIMITS_JOBS"), ("environment = ", "default")]
    {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
    std::fs::write(file, "jobz = 1\n").unwrap();
    let (code, _, err) = run(&mut writ(&["config", "--config", file]));
    assert_eq!(code, 2);
    assert!(err.contains("jobz"), "{err}");
}
