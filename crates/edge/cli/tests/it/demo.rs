//! The demo, unattended, on the project's own samples; and its evidence, checked by a process that knows nothing of it.

use crate::process::{run, writ};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const MEMBERS: [&str; 15] = [
    "runs",
    "written_back",
    "denied",
    "waiting",
    "dead_lettered",
    "p50_ms",
    "p95_ms",
    "cost_micros",
    "macro_f1",
    "majority_f1",
    "evidence_verified",
    "effects_duplicated",
    "bundle",
    "trust",
    "second",
];

fn demo(folder: &str, more: &[&str]) -> Value {
    let (code, out, err) = run(&mut writ(&[&["demo", "--once", "--json", "--data", folder], more].concat()));
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(out.lines().last().expect("a last line")).expect("the last line is JSON")
}

#[test]
fn the_demo_does_the_main_job_and_proves_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let summary = demo(path, &[]);
    let members: BTreeSet<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, MEMBERS.into_iter().collect());
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    // Every incident is one run, however often it was delivered, and every one came to an end.
    assert_eq!(number("runs"), 12, "{summary}");
    assert_eq!(
        (number("waiting"), number("dead_lettered"), number("effects_duplicated")),
        (0, 0, 0),
        "{summary}"
    );
    assert_eq!(number("denied"), 1, "the second person denies the one urgent incident: {summary}");
    assert!(number("written_back") >= 6, "{summary}");
    assert!(number("p50_ms") <= number("p95_ms"), "{summary}");
    assert!(number("cost_micros") > 0, "{summary}");
    assert!(summary["macro_f1"].as_f64() > summary["majority_f1"].as_f64(), "{summary}");
    assert_eq!(summary["evidence_verified"], true);

    let (bundle, trust) = (summary["bundle"].as_str().unwrap(), summary["trust"].as_str().unwrap());
    let (code, out, err) = run(&mut writ(&["verify", bundle, "--trust", trust]));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("ok      inclusion") && out.contains("Not proven"), "{out}");
    let (code, out, _) = run(&mut writ(&["verify", bundle, "--trust", trust, "-o", "json"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["failure"]), (0, &Value::Null));
    let (code, out, err) =
        run(&mut writ(&["verify", &format!("{path}/demo-tampered.evidence.tar"), "--trust", trust]));
    assert_eq!(code, 7, "{out}");
    assert!(out.contains("FAILED") && err.contains("evidence."), "{out}{err}");
    let (code, ..) = run(&mut writ(&["verify", bundle, "--trust", &format!("{path}/nothing.json")]));
    assert_eq!(code, 2);

    // The second tenant: the same ticket under a policy of its own, and a budget of five calls before nine tickets.
    let second = &summary["second"];
    assert_eq!(
        (&second["default_effect"], &second["own_effect"]),
        (&json!("ALLOW"), &json!("HITL")),
        "{second}"
    );
    assert_eq!((&second["calls_that_fit"], &second["calls_refused"]), (&json!(5), &json!(4)), "{second}");
    assert_eq!((&second["budget_left"], &second["replayed"]), (&json!(0), &json!(4)), "{second}");
    assert_eq!(
        (&second["written_back"], &second["clicks"]),
        (&json!(10), &json!(20)),
        "two for each: {second}"
    );
    assert_eq!(second["clicks_refused"], 4, "a stranger, two not linked yet, one person twice: {second}");
    let (code, out, err) = run(&mut writ(&[
        "verify",
        &format!("{path}/clinic.evidence.tar"),
        "--trust",
        &format!("{path}/clinic.trust.json"),
        "-o",
        "json",
    ]));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["failure"]), (0, &Value::Null), "{err}");

    // The bundle holds no ticket text and no secret.
    let text = String::from_utf8_lossy(&fs::read(bundle).unwrap()).into_owned();
    for name in ["operator.key", "approver.key"] {
        let key = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(!text.contains(key.trim().split_once('.').unwrap().1), "{name}");
    }

    // Again in the same folder: another tenant, nothing taken for a repetition.
    let again = demo(path, &["--limit", "3"]);
    assert_eq!(
        (again["runs"].as_u64(), again["evidence_verified"].as_bool()),
        (Some(3), Some(true)),
        "{again}"
    );
}

#[test]
fn a_callers_tickets_are_split_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tickets.csv");
    let mut text = String::from("id,document,topic_group\n");
    for n in 0..30 {
        let (word, group) =
            [("printer jams on floor", "Printers"), ("mail password expired for user", "Accounts")][n % 2];
        text.push_str(&format!("{n},{word} {n},{group}\n"));
    }
    fs::write(&file, text).unwrap();
    let data = folder.path().join("data");
    let summary = demo(data.to_str().unwrap(), &["--tickets", file.to_str().unwrap(), "--limit", "8"]);
    assert_eq!((summary["runs"].as_u64(), summary["macro_f1"].as_f64()), (Some(8), Some(1.0)), "{summary}");
    for (args, expected) in [
        (&["--limit", "30"][..], "left to learn from"),
        (&["--limit", "0"], "--limit"),
        (&["--unknown"], "--unknown"),
    ] {
        let mut command = writ(&["demo", "--once", "--json", "--tickets", file.to_str().unwrap()]);
        let (code, out, err) = run(command.args(args));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(expected), "{err}");
    }
}
