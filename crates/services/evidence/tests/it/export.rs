//! Bundles of a real store: gathered, exported, given out, verified.

use crate::house::{House, Says, id, tenant};
use crate::workshop::files;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use evidence::{Report, Trust};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use store::Sequencing;

const CANARY: &str = "CANARY-Ann-of-Accounts";

async fn trust(house: &House, name: &str) -> Trust {
    let shown = house.query(name, "trust_show", &[]).await.unwrap();
    let trust = Trust::parse(shown["trust"].to_string().as_bytes()).unwrap();
    assert_eq!(shown["fingerprint"], trust.fingerprint().as_str());
    trust
}

async fn exported(house: &House, name: &str, args: Value) -> (Vec<u8>, Report) {
    let outcome = house.export(name, args).await.unwrap();
    let bundle = std::fs::read(house.file(outcome["digest"].as_str().unwrap())).unwrap();
    assert_eq!(bundle.len() as u64, outcome["bytes"].as_u64().unwrap());
    let report = evidence::verify(&bundle, &trust(house, name).await, None);
    assert_eq!(report.failure, None);
    (bundle, report)
}

fn streams(bundle: &[u8]) -> BTreeSet<String> {
    let facts = files(bundle)["facts.jsonl"].clone();
    let lines = facts.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| kernel::fact::read(line).unwrap().stream.to_owned()).collect()
}

#[tokio::test]
async fn a_run_comes_with_what_led_to_it() {
    let house = House::new().await;
    house.blob("ten_platform", b"platform policy").await;
    house.blob("ten_a", b"own policy").await;
    for n in 0..40 {
        house.fact("ten_a", &format!("prn_{}", n % 3), Says::default()).await;
        if n == 30 {
            house.evidence.seal(&house.store, &tenant("ten_a")).await.unwrap();
        }
    }
    let far = house.fact("ten_a", "con_1", Says::default()).await;
    house.fact("ten_a", "con_1", Says { causes: vec![far], ..Says::default() }).await;
    let near = house.fact("ten_a", "con_1", Says::default()).await;
    let args = json!({"number": "INC1", "caller": CANARY, "text": CANARY});
    let policies: Vec<&[u8]> = vec![b"platform policy", b"own policy"];
    let created =
        Says { causes: vec![near], args: Some(args.clone()), policies: policies.clone(), ..Says::default() };
    let created = house.fact("ten_a", "run_1", created).await;
    let erased = Says { args: Some(args), erased: true, policies: vec![b"never kept"], ..Says::default() };
    house.fact("ten_a", "run_1", erased).await;
    let asked = house.fact("ten_a", "apr_1", Says { causes: vec![created], ..Says::default() }).await;
    house.fact("ten_a", "run_2", Says::default()).await;
    let granted = house.fact("ten_a", "apr_1", Says { causes: vec![asked], ..Says::default() }).await;
    let unknown = id("fct_0192f6c1a7b27d3e8a14c0ffee000001");
    house.fact("ten_a", "run_1", Says { causes: vec![granted, unknown.clone()], ..Says::default() }).await;

    let (bundle, report) = exported(&house, "ten_a", json!({"run": "run_1"})).await;
    assert_eq!(streams(&bundle), ["apr_1", "con_1", "run_1"].map(str::to_owned).into());
    assert_eq!((report.subject.as_str(), report.facts, report.streams), ("run_1", 8, 3));
    assert_eq!(report.disclosed, 1, "one was erased");
    assert_eq!(report.policies_absent, [kernel::hex::encode(&kernel::sha256(b"never kept"))]);
    let all = files(&bundle);
    let policies: Vec<&Vec<u8>> =
        all.iter().filter(|(name, _)| name.starts_with("policy/")).map(|(_, bytes)| bytes).collect();
    assert!(policies.contains(&&b"own policy".to_vec()) && policies.contains(&&b"platform policy".to_vec()));
    let disclosed = String::from_utf8(all["disclosures.json"].clone()).unwrap();
    assert!(disclosed.contains("INC1"), "{disclosed}");
    assert!(
        !bundle.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()),
        "personal data left the house"
    );
    let summary: Value = serde_json::from_slice(&all["summary.json"]).unwrap();
    assert_eq!(summary["causes_absent"], json!([unknown]));
    assert_eq!(summary["streams"]["run_1"]["cost_micros"]["test.done"], 15);
    let history: Value = serde_json::from_slice(&all["history.json"]).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 1, "from the checkpoint before the first fact");

    // The export is a fact of the run, and the next bundle tells of it.
    let (again, report) = exported(&house, "ten_a", json!({"stream": "run_1"})).await;
    assert_eq!(report.facts, 9);
    let facts = String::from_utf8(files(&again)["facts.jsonl"].clone()).unwrap();
    let sealed = facts.lines().last().unwrap();
    assert!(
        sealed.contains("evidence.sealed") && sealed.contains(&kernel::hex::encode(&kernel::sha256(&bundle)))
    );
}

#[tokio::test]
async fn a_whole_log_comes_with_its_history() {
    let house = House::new().await;
    let mut notes = Vec::new();
    for n in 0..300 {
        house.fact("ten_a", &format!("run_{}", n % 7), Says::default()).await;
        if n % 3 == 0 {
            let sealed = house.evidence.seal(&house.store, &tenant("ten_a")).await.unwrap();
            notes.push(sealed.newest().unwrap().note);
        }
    }
    let (bundle, report) = exported(&house, "ten_a", json!({"all": true})).await;
    assert_eq!((report.facts, report.size, report.streams, report.subject.as_str()), (301, 301, 8, "log"));
    let history: Value = serde_json::from_slice(&files(&bundle)["history.json"]).unwrap();
    let rows = history.as_array().unwrap().len();
    assert!((32..=64).contains(&rows), "{rows} of 100 checkpoints, spread evenly");
    let trust = trust(&house, "ten_a").await;
    for note in &notes {
        assert_eq!(evidence::verify(&bundle, &trust, Some(note)).failure, None);
    }
    // A run in the middle begins with the last checkpoint before it.
    house.fact("ten_a", "run_late", Says::default()).await;
    let (late, _) = exported(&house, "ten_a", json!({"run": "run_late"})).await;
    let history: Value = serde_json::from_slice(&files(&late)["history.json"]).unwrap();
    let first = history[0]["checkpoint"].as_str().unwrap();
    assert_eq!(first.lines().nth(1), Some("301"), "{first}");
}

#[tokio::test]
async fn many_unrelated_facts_do_not_hide_a_cause_and_long_streams_are_not_taken_along() {
    let house = House::new().await;
    for _ in 0..300 {
        house.fact("ten_a", "con_busy", Says::default()).await;
    }
    let cause = house.fact("ten_a", "con_busy", Says::default()).await;
    for _ in 0..50 {
        house.fact("ten_a", "con_busy", Says::default()).await;
    }
    house.fact("ten_a", "run_1", Says { causes: vec![cause.clone()], ..Says::default() }).await;
    let (bundle, report) = exported(&house, "ten_a", json!({"run": "run_1"})).await;
    assert_eq!((report.facts, report.streams), (2, 2), "the run's fact and the one that led to it");
    let facts = String::from_utf8(files(&bundle)["facts.jsonl"].clone()).unwrap();
    assert!(facts.contains(cause.as_str()));
}

#[tokio::test]
async fn what_was_exported_can_be_listed_and_downloaded_until_somebody_touches_it() {
    let house = House::new().await;
    house.fact("ten_a", "run_1", Says::default()).await;
    let outcome = house.export("ten_a", json!({"all": true})).await.unwrap();
    let bundle = outcome["bundle"].as_str().unwrap();
    let list = house.query("ten_a", "evidence_list", &[]).await.unwrap();
    assert_eq!(list["items"][0]["id"], outcome["bundle"]);
    let which = [("bundle", bundle)];
    let download = |name: &'static str| house.query(name, "evidence_download", &which);
    let reply = download("ten_a").await.unwrap();
    let bytes = BASE64.decode(reply["bundle_base64"].as_str().unwrap()).unwrap();
    assert_eq!(kernel::hex::encode(&kernel::sha256(&bytes)), outcome["digest"].as_str().unwrap());
    assert_eq!(download("ten_b").await.unwrap_err().code, "not_found", "another tenant's is absent");

    let path = house.file(outcome["digest"].as_str().unwrap());
    for touched in [[&bytes[..bytes.len() - 1], b"x"].concat(), bytes[1..].to_vec(), vec![]] {
        std::fs::write(&path, &touched).unwrap();
        assert_eq!(download("ten_a").await.unwrap_err().code, "evidence.bundle_lost");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(download("ten_a").await.unwrap_err().code, "evidence.bundle_lost");
    let left: Vec<_> = std::fs::read_dir(house.folder.path().join("evidence")).unwrap().collect();
    assert!(left.is_empty(), "no half-written file");
}

/// What was acknowledged is in the evidence that is asked for next, although nobody has given it a place in the log yet.
#[tokio::test]
async fn what_was_acknowledged_is_exported() {
    let house = House::of(Sequencing::Deferred).await;
    house.fact("ten_a", "run_1", Says::default()).await;
    assert_eq!(house.store.head(&tenant("ten_a")).await.unwrap().map_or(0, |head| head.size), 0);
    let outcome = house.export("ten_a", json!({"run": "run_1"})).await.unwrap();
    assert!(outcome["facts"].as_u64().unwrap() > 0, "{outcome}");
}

#[tokio::test]
async fn what_cannot_be_exported_leaves_no_fact() {
    let house = House::new().await;
    house.fact("ten_a", "run_1", Says::default()).await;
    let size = house.store.head(&tenant("ten_a")).await.unwrap().unwrap().size;
    for (name, args, code) in [
        ("ten_a", json!({}), "request.invalid"),
        ("ten_a", json!({"run": "run_1", "all": true}), "request.invalid"),
        ("ten_a", json!({"run": "run_1", "stream": "run_1"}), "request.invalid"),
        ("ten_a", json!({"all": false}), "request.invalid"),
        ("ten_a", json!({"all": true, "tenant": "ten_b"}), "request.invalid"),
        ("ten_a", json!({"run": 1}), "request.invalid"),
        ("ten_a", json!({"run": "../run"}), "not_found"),
        ("ten_a", json!({"run": "apr_1"}), "not_found"),
        ("ten_a", json!({"stream": "Run"}), "not_found"),
        ("ten_a", json!({"run": "run_9"}), "evidence.nothing_to_export"),
        ("ten_b", json!({"run": "run_1"}), "evidence.nothing_to_export"),
    ] {
        let fault = house.export(name, args.clone()).await.unwrap_err();
        assert_eq!(fault.code, code, "{args}");
    }
    std::fs::write(house.folder.path().join("evidence"), b"a file where the folder should be").unwrap();
    let fault = house.export("ten_a", json!({"all": true})).await.unwrap_err();
    assert_eq!(fault.code, "evidence.folder_unwritable");
    assert_eq!(house.store.head(&tenant("ten_a")).await.unwrap().unwrap().size, size);
}

#[tokio::test]
async fn the_table_points_nowhere_else() {
    let house = House::new().await;
    assert_eq!(evidence::domain(&house.evidence).misfits(), Vec::<String>::new());
}
