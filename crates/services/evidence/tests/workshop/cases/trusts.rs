//! Other trust files, and checkpoints held from before.

use super::*;

/// Other trust files.
pub(super) fn trusts(cases: &mut Cases, run: &[u8]) {
    let with = |change: &dyn Fn(&mut Trust)| {
        let mut trust = trust();
        change(&mut trust);
        trust
    };
    let theirs = signing(5, 6).trust("writ.test", &[ORIGIN.to_owned()]);
    let other = |cases: &mut Cases, name: &str, trust: Trust, expect: Option<&'static str>| {
        cases.trusting(&format!("trust-{name}"), run, &trust, expect);
    };
    other(cases, "strangers", theirs.clone(), Some("evidence.evidence_key_unknown"));
    other(cases, "no-keys", with(&|t| t.evidence_keys.clear()), Some("evidence.evidence_key_unknown"));
    other(cases, "no-logs", with(&|t| t.logs.clear()), Some("evidence.log_unknown"));
    let elsewhere = ours().trust(
        "writ.test",
        &["writ.test/local/ten_other/1".to_owned(), "writ.test/local/ten_acme/2".to_owned()],
    );
    other(cases, "other-logs", elsewhere, Some("evidence.log_unknown"));
    other(
        cases,
        "other-log-key",
        with(&|t| t.logs = theirs.logs.clone()),
        Some("evidence.checkpoint_key_unknown"),
    );
    other(cases, "both-log-keys", with(&|t| t.logs.extend(theirs.logs.clone())), None);
    other(
        cases,
        "log-key-ended",
        with(&|t| t.logs[0].until_ms = Some(CREATED_MS)),
        Some("evidence.log_key_expired"),
    );
    other(cases, "log-key-ends-later", with(&|t| t.logs[0].until_ms = Some(CREATED_MS + 1)), None);
    other(
        cases,
        "log-key-not-yet",
        with(&|t| t.logs[0].from_ms = CREATED_MS + 1),
        Some("evidence.log_key_expired"),
    );
    other(cases, "log-key-just-now", with(&|t| t.logs[0].from_ms = CREATED_MS), None);
    let ended_and_other = with(&|t| {
        t.logs[0].until_ms = Some(CREATED_MS);
        t.logs.extend(theirs.logs.clone());
    });
    other(cases, "log-key-ended-and-other", ended_and_other, Some("evidence.log_key_expired"));
    other(
        cases,
        "evidence-key-ended",
        with(&|t| t.evidence_keys[0].until_ms = Some(CREATED_MS)),
        Some("evidence.evidence_key_expired"),
    );
    other(
        cases,
        "evidence-key-not-yet",
        with(&|t| t.evidence_keys[0].from_ms = CREATED_MS + 1),
        Some("evidence.evidence_key_expired"),
    );
    other(
        cases,
        "evidence-key-ends-later",
        with(&|t| t.evidence_keys[0].until_ms = Some(CREATED_MS + 1)),
        None,
    );
    other(
        cases,
        "more-evidence-keys",
        with(&|t| t.evidence_keys.insert(0, theirs.evidence_keys[0].clone())),
        None,
    );
    other(cases, "witness", with(&|t| t.witnesses.quorum = 1), Some("evidence.witness_quorum"));
    let text = trust().to_json();
    let value: Value = serde_json::from_str(&text).expect("json");
    let edited = |change: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        change(&mut value);
        value.to_string()
    };
    for (name, file) in [
        ("empty", String::new()),
        ("list", "[]".into()),
        ("version", edited(&|t| t["version"] = json!(2))),
        ("version-float", edited(&|t| t["version"] = json!(1.0))),
        ("member", edited(&|t| t["extra"] = json!(1))),
        (
            "duplicate",
            String::from_utf8(swap(&text, "\"version\": 1", "\"version\": 1, \"version\": 1"))
                .expect("UTF-8"),
        ),
        ("no-end", edited(&|t| drop(t["logs"][0].as_object_mut().map(|log| log.remove("until_ms"))))),
        ("ends-first", edited(&|t| t["logs"][0]["until_ms"] = t["logs"][0]["from_ms"].clone())),
        ("huge", edited(&|t| t["logs"][0]["from_ms"] = json!(1i64 << 53))),
        ("epoch", edited(&|t| t["logs"][0]["epoch"] = json!(2))),
        ("installation", edited(&|t| t["installation"] = json!("other"))),
        ("vkey-hash", edited(&|t| t["logs"][0]["key"] = json!(format!("{ORIGIN}+00000000+AQ==")))),
        ("vkey-name", edited(&|t| t["logs"][0]["origin"] = json!("writ.test/local/ten_b/1"))),
        ("key-id", edited(&|t| t["evidence_keys"][0]["id"] = json!("evk_0000000000000000"))),
        ("key-short", edited(&|t| t["evidence_keys"][0]["key"] = json!("AA=="))),
        (
            "key-twice",
            edited(&|t| t["evidence_keys"] = json!([t["evidence_keys"][0], t["evidence_keys"][0]])),
        ),
        ("witnesses-list", edited(&|t| t["witnesses"] = json!([0, []]))),
        ("quorum-negative", edited(&|t| t["witnesses"]["quorum"] = json!(-1))),
    ] {
        cases.bad(&format!("trust-malformed-{name}"), run.to_vec(), "evidence.trust_malformed");
        if let Some(case) = cases.rows.last_mut() {
            case.trust = file.into_bytes();
        }
    }
}

/// A checkpoint that the verifier held from before.
pub(super) fn helds(cases: &mut Cases, log: &Log, whole: &[u8], run: &[u8]) {
    for (n, (size, note)) in log.notes.iter().enumerate() {
        cases.held(&format!("held-{n}-whole"), whole, note, None);
        // The run's bundle begins with the second checkpoint, and has no proof for the first.
        let expect = (n == 0).then_some("evidence.held_unproven");
        cases.held(&format!("held-{n}-run"), run, note, expect);
        let forked = (ours().checkpoint)(&Checkpoint { origin: ORIGIN.into(), size: *size, root: [7; 32] })
            .expect("a name");
        let expect = if n == 0 { "evidence.held_unproven" } else { "evidence.held_conflict" };
        cases.held(&format!("held-{n}-fork-whole"), whole, &forked, Some("evidence.held_conflict"));
        cases.held(&format!("held-{n}-fork-run"), run, &forked, Some(expect));
    }
    let at = |size: u64, root: Digest| {
        (ours().checkpoint)(&Checkpoint { origin: ORIGIN.into(), size, root }).expect("a name")
    };
    let root = |size: usize| merkle::root_of(&log.hashes[..size]);
    cases.held("held-between", whole, &at(11, root(11)), None);
    cases.held("held-between-fork", whole, &at(11, root(12)), Some("evidence.held_conflict"));
    cases.held("held-empty", whole, &at(0, kernel::sha256(b"")), None);
    cases.held("held-empty-fork", whole, &at(0, [7; 32]), Some("evidence.held_conflict"));
    cases.held("held-empty-run", run, &at(0, kernel::sha256(b"")), None);
    cases.held("held-between-run", run, &at(11, root(11)), Some("evidence.held_unproven"));
    let mut longer = log.clone();
    longer.fact("run_9", Says::default());
    cases.held("held-newer", whole, &longer.checkpoint(&ours()), Some("evidence.held_newer"));
    let stranger = (signing(5, 6).checkpoint)(&log.head()).expect("a name");
    let other = (ours().checkpoint)(&Checkpoint { origin: "writ.test/local/ten_b/1".into(), ..log.head() })
        .expect("a name");
    for (name, note) in
        [("garbage", "garbage"), ("nothing", ""), ("stranger", &stranger), ("other-log", &other)]
    {
        cases.held(&format!("held-{name}"), whole, note, Some("evidence.held_invalid"));
    }
}

/// A log that was put back and went on in another epoch, and checkpoints of either that somebody held.
pub(super) fn epochs(cases: &mut Cases) {
    const NEXT: &str = "writ.test/local/ten_acme/20251009080910";
    let signing = ours();
    let mut log = Log::new(ORIGIN);
    for _ in 0..4 {
        log.fact("run_1", Says::default());
    }
    let shared = log.checkpoint(&signing);
    // What was put back and lost: two facts more, and a head of them that somebody took home.
    let mut lost = log.clone();
    lost.fact("run_1", Says::default());
    lost.fact("run_1", Says::default());
    let taken = lost.checkpoint(&signing);
    log.origin = NEXT.to_owned();
    log.notes.clear();
    for n in 0..3 {
        log.fact("run_1", Says { outcome: Some(json!({"n": n})), ..Says::default() });
    }
    let early = log.checkpoint(&signing);
    log.fact("run_2", Says::default());
    log.checkpoint(&signing);
    let whole = bundle(&log.whole());
    let run = bundle(&log.parts("run_2", &["run_2"], |_, stream| stream == "run_2"));
    let mut both = ours().trust("writ.test", &[ORIGIN.to_owned(), NEXT.to_owned()]);
    both.logs[0].until_ms = Some(START_MS + 50);
    let mut only_next = both.clone();
    only_next.logs.remove(0);
    const APART: &str = "evidence.held_epoch";
    cases.trusting("epoch-whole", &whole, &both, None);
    cases.trusting("epoch-run", &run, &both, None);
    cases.trusting("epoch-not-trusted", &whole, &trust(), Some("evidence.log_unknown"));
    cases.trusting("epoch-alone", &whole, &only_next, None);
    for (name, bundle, held, trust, expect) in [
        ("shared", &whole, &shared, &both, None),
        ("shared-run", &run, &shared, &both, Some(APART)),
        ("lost", &whole, &taken, &both, Some(APART)),
        ("lost-run", &run, &taken, &both, Some(APART)),
        ("early", &whole, &early, &both, None),
        ("shared-unknown", &whole, &shared, &only_next, Some("evidence.held_invalid")),
    ] {
        cases.trusting(&format!("epoch-held-{name}"), bundle, trust, expect);
        cases.rows.last_mut().expect("a row").held = Some(held.clone());
    }
    // A bundle from before, and a head of the epoch after.
    let before = bundle_of_before(&lost);
    cases.trusting("epoch-before", &before, &both, None);
    cases.rows.last_mut().expect("a row").trust = trust().to_json().into_bytes();
    cases.trusting("epoch-before-held-after", &before, &both, Some(APART));
    cases.rows.last_mut().expect("a row").held = Some(early);
}

fn bundle_of_before(lost: &Log) -> Vec<u8> {
    let mut parts = lost.whole();
    // Made while the earlier epoch was the log's.
    parts.created_at_ms = START_MS + 40;
    bundle(&parts)
}
