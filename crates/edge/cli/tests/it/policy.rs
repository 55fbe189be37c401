//! docs/journeys/policy.md, walked by its own commands: a tenant writes, signs and publishes a policy.

use crate::process::{Server, run, writ};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const JOURNEY: &str = include_str!("../../../../../docs/journeys/policy.md");

/// The rules that the journey writes into its folder.
fn journey_rules() -> &'static str {
    let (_, rest) = JOURNEY.split_once("<<'END'\n").unwrap();
    rest.split_once("END\n").unwrap().0
}

struct Place {
    folder: tempfile::TempDir,
    server: Server,
}

impl Place {
    fn command(&self, key: &str, args: &[&str]) -> Command {
        let mut command = writ(args);
        command.current_dir(self.folder.path()).env("WRIT_URL", &self.server.url).env("WRIT_KEY", key);
        command
    }

    fn ok(&self, key: &str, args: &[&str]) -> Value {
        let (code, out, err) = run(&mut self.command(key, &[args, &["-o", "json"]].concat()));
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap()
    }

    fn fails(&self, key: &str, args: &[&str], expected: i32, says: &str) {
        let (code, out, err) = run(&mut self.command(key, args));
        assert_eq!(code, expected, "{args:?}: {out}{err}");
        assert!(err.contains(says) || out.contains(says), "{args:?}: {out}{err}");
    }
}

#[test]
fn a_tenant_writes_signs_and_publishes_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"));
    let admin = fs::read_to_string(folder.path().join("data/admin.key")).unwrap().trim().to_owned();
    let place = Place { folder, server };
    let path = |name: &str| place.folder.path().join(name);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contracts/policies");
    let example = policies.join("examples/tenant-strict");
    let (example, platform) = (example.to_str().unwrap(), policies.join("platform"));
    let platform = platform.to_str().unwrap();

    // A tenant with an administrator, who has an ordinary key and is lent a strong one.
    let made = place.ok(
        &admin,
        &[
            "principal",
            "create",
            "--tenant",
            "ten_main",
            "--name",
            "ann",
            "--kind",
            "person",
            "--roles",
            "tenant_admin",
        ],
    );
    let ann = made["principal"].as_str().unwrap();
    let key = |more: &[&str]| {
        let args = ["key", "create", "--tenant", "ten_main", "--principal", ann, "--name", "x"];
        place.ok(&admin, &[&args[..], more].concat())["api_key"].as_str().unwrap().to_owned()
    };
    let ordinary = key(&[]);
    let strong = key(&["--assurance", "1", "--expires-in", "8h"]);
    place.fails(
        &ordinary,
        &["key", "create", "--principal", ann, "--name", "y", "--assurance", "1", "--expires-in", "1h"],
        3,
        "assurance.too_low",
    );
    place.fails(
        &strong,
        &["key", "create", "--principal", ann, "--name", "y", "--assurance", "1", "--expires-in", "9h"],
        3,
        "access.assurance_exceeded",
    );

    // Written, checked and tested where it is written.
    fs::create_dir(path("ours")).unwrap();
    fs::write(path("ours/names.rego"), journey_rules()).unwrap();
    fs::write(path("ours/NOTES.md"), "not part of it").unwrap();
    assert_eq!(place.ok("", &["policy", "check", "ours"])["left_out"], serde_json::json!(["NOTES.md"]));
    for folder in [example, platform] {
        let tested = place.ok("", &["policy", "test", folder]);
        assert!(
            tested["cases"].as_u64().unwrap() > 5 && tested["failures"] == serde_json::json!([]),
            "{tested}"
        );
    }
    fs::create_dir(path("bad")).unwrap();
    fs::write(path("bad/a.rego"), format!("{}\na if b\n\nb if a\n", journey_rules())).unwrap();
    place.fails("", &["policy", "check", "bad"], 2, "policy.lint");
    place.fails("", &["policy", "check", "nowhere"], 2, "nowhere");
    fs::write(
        path("cases.json"),
        fs::read_to_string(policies.join("examples/tenant-strict/cases.json"))
            .unwrap()
            .replace("\"DENY\"", "\"HITL\""),
    )
    .unwrap();
    place.fails("", &["policy", "test", example, "--cases", "cases.json"], 1, "FAILED");

    // A key of one's own.
    place.ok("", &["policy", "keygen", "--out", "acme.key"]);
    assert_eq!(fs::metadata(path("acme.key")).unwrap().permissions().mode() & 0o777, 0o600);
    place.fails("", &["policy", "keygen", "--out", "acme.key"], 2, "acme.key");
    let sign = ["policy", "sign", "ours", "--key", "acme.key", "--scope", "ten_main", "--out", "ours.tar.gz"];
    fs::set_permissions(path("acme.key"), fs::Permissions::from_mode(0o644)).unwrap();
    place.fails("", &sign, 2, "others");
    fs::set_permissions(path("acme.key"), fs::Permissions::from_mode(0o600)).unwrap();
    place.fails("", &[&sign[..], &["--seq", "first"]].concat(), 2, "seq");
    place.fails(
        "",
        &["policy", "sign", "bad", "--key", "acme.key", "--scope", "ten_main", "--out", "x"],
        2,
        "policy.lint",
    );
    place.fails(
        "",
        &["policy", "sign", "ours", "--key", "acme.key", "--scope", "acme", "--out", "x"],
        2,
        "--scope",
    );
    let signed = place.ok("", &sign);
    place.fails(&strong, &["policy", "publish", "--bundle", "ours.tar.gz"], 2, "policy.bundle_signature");
    let registered =
        place.ok(&strong, &["policy-key", "register", "--name", "acme", "--public-key", "@acme.key.pub"]);
    assert_eq!(registered["policy_key"], signed["policy_key"]);
    place.fails(&ordinary, &["policy", "publish", "--bundle", "ours.tar.gz"], 3, "assurance.too_low");
    let published = place.ok(&strong, &["policy", "publish", "--bundle", "ours.tar.gz"]);
    assert_eq!((&published["digest"], &published["keyid"]), (&signed["digest"], &signed["policy_key"]));

    // It holds; the moment at which it does is a matter of a job, so the first refusal is waited for.
    let robot = |name: &str| {
        place
            .command(
                &ordinary,
                &["principal", "create", "--name", name, "--kind", "agent", "--roles", "operator"],
            )
            .output()
            .unwrap()
    };
    let refused =
        (0..1_000).map(|n| robot(&format!("robot {n}"))).find(|output| !output.status.success()).unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ours.no_robots"));
    assert!(
        place.ok(
            &ordinary,
            &["principal", "create", "--name", "bob", "--kind", "person", "--roles", "operator"]
        )["principal"]
            .is_string()
    );
    let shown = place.ok(&ordinary, &["policy", "show"]);
    assert_eq!((&shown["digest"], &shown["scope"]), (&signed["digest"], &serde_json::json!("ten_main")));

    // Nothing older; nothing under a key that was revoked; and the way out.
    place.ok("", &[&sign[..], &["--seq", "1"]].concat());
    place.fails(&strong, &["policy", "publish", "--bundle", "ours.tar.gz"], 2, "policy.bundle_rollback");
    place.ok(&strong, &["policy-key", "revoke", signed["policy_key"].as_str().unwrap()]);
    place.ok("", &sign);
    place.fails(&strong, &["policy", "publish", "--bundle", "ours.tar.gz"], 2, "policy.bundle_signature");
    place.ok(&admin, &["policy", "withdraw", "--tenant", "ten_main"]);
    (0..1_000).map(|n| robot(&format!("robot again {n}"))).find(|output| output.status.success()).unwrap();

    // The operator's own, for the platform.
    place.ok("", &["policy", "keygen", "--out", "operator.key"]);
    place.ok(&admin, &["policy-key", "register", "--name", "operator", "--public-key", "@operator.key.pub"]);
    place.ok(
        "",
        &[
            "policy",
            "sign",
            platform,
            "--key",
            "operator.key",
            "--scope",
            "platform",
            "--seq",
            "now",
            "--out",
            "platform.tar.gz",
        ],
    );
    place.ok(&admin, &["policy", "publish", "--bundle", "platform.tar.gz"]);
}
