//! Tampering with checkpoints and their history.

use super::*;

/// The evidence key's holder, on the checkpoint.
pub(super) fn notes(cases: &mut Cases, run: &[u8], log: &Log) {
    let note = |note: Vec<u8>| resigned(run, |files, _| drop(files.insert(CHECKPOINT.into(), note)));
    let good = log.notes.last().expect("a checkpoint").1.clone();
    let head = log.head();
    let root = BASE64.encode(head.root);
    let signed = |text: String| kernel::note::sign(&text, ORIGIN, &key(1)).expect("a name").into_bytes();
    let edit = |from: &str, to: &str| swap(&good, from, to);
    let (_, signature) = good.trim_end().rsplit_once(' ').expect("a signature");
    let mut bytes = BASE64.decode(signature).expect("base64");
    bytes[20] ^= 1;
    let forged = good.replace(signature, &BASE64.encode(&bytes));
    bytes.truncate(40);
    let short = good.replace(signature, &BASE64.encode(&bytes));
    const MALFORMED: &str = "evidence.checkpoint_malformed";
    const SIGNATURE: &str = "evidence.checkpoint_signature";
    for (name, bytes, code) in [
        ("not-utf8", b"\xff\n".to_vec(), MALFORMED),
        ("no-final-newline", good.trim_end().as_bytes().to_vec(), MALFORMED),
        ("crlf", good.replace('\n', "\r\n").into_bytes(), "evidence.log_unknown"),
        ("hyphen-for-dash", edit("— ", "- "), MALFORMED),
        ("tab", edit("— ", "—\t"), MALFORMED),
        ("signature-cut", good.replace(&signature[signature.len() - 4..], "").into_bytes(), SIGNATURE),
        (
            "signature-unpadded",
            good.replace(signature, signature.trim_end_matches('=')).into_bytes(),
            MALFORMED,
        ),
        ("signature-missing", format!("{}\n\n", head.text().trim_end()).into_bytes(), MALFORMED),
        ("no-blank-line", good.replacen("\n\n", "\n", 1).into_bytes(), MALFORMED),
        ("size-changed", edit("\n18\n", "\n17\n"), SIGNATURE),
        ("root-changed", edit(&root, &BASE64.encode([1; 32])), SIGNATURE),
        ("signature-changed", forged.into_bytes(), SIGNATURE),
        ("signature-short", short.into_bytes(), SIGNATURE),
        ("leading-zero", signed(format!("{ORIGIN}\n018\n{root}\n")), MALFORMED),
        ("plus-sign", signed(format!("{ORIGIN}\n+18\n{root}\n")), MALFORMED),
        ("no-size", signed(format!("{ORIGIN}\n\n{root}\n")), MALFORMED),
        ("size-beyond-64-bits", signed(format!("{ORIGIN}\n18446744073709551616\n{root}\n")), MALFORMED),
        ("other-digits", signed(format!("{ORIGIN}\n１８\n{root}\n")), MALFORMED),
        ("extension-line", signed(format!("{ORIGIN}\n18\n{root}\nextension\n")), MALFORMED),
        ("root-short", signed(format!("{ORIGIN}\n18\n{}\n", BASE64.encode([1; 31]))), MALFORMED),
        (
            "root-not-canonical",
            signed(format!("{ORIGIN}\n18\n{}\n", root.replace("=", "").to_owned() + "==")),
            MALFORMED,
        ),
        ("root-url-base64", signed(format!("{ORIGIN}\n18\n{}\n", "-_".repeat(21) + "A=")), MALFORMED),
        ("two-lines", signed(format!("{ORIGIN}\n18\n")), MALFORMED),
        ("trailing-space", signed(format!("{ORIGIN}\n18 \n{root}\n")), MALFORMED),
        (
            "many-signatures",
            format!("{good}{}", format!("— w {signature}\n").repeat(16)).into_bytes(),
            MALFORMED,
        ),
        ("signature-name-with-plus", format!("{good}— a+b {signature}\n").into_bytes(), MALFORMED),
        ("empty-signature", format!("{good}— w AAAAAA==\n").into_bytes(), MALFORMED),
        ("control-character", format!("{good}— w\u{85} {signature}\n").into_bytes(), MALFORMED),
        ("huge", signed(format!("{ORIGIN}\n18\n{}\n", "A".repeat(20_000))), MALFORMED),
        (
            "other-origin",
            (ours().checkpoint)(&Checkpoint { origin: "writ.test/local/ten_other/1".into(), ..head.clone() })
                .expect("a name")
                .into_bytes(),
            "evidence.log_unknown",
        ),
        (
            "other-key",
            (signing(5, 2).checkpoint)(&head).expect("a name").into_bytes(),
            "evidence.checkpoint_key_unknown",
        ),
        (
            "evidence-key-for-log",
            (signing(2, 2).checkpoint)(&head).expect("a name").into_bytes(),
            "evidence.checkpoint_key_unknown",
        ),
        ("earlier-one", log.notes[0].1.clone().into_bytes(), "evidence.manifest_mismatch"),
    ] {
        cases.bad(&format!("checkpoint-{name}"), note(bytes), code);
    }
    // Signed under the name of the log, but the text is another log's: a key signs for one log.
    let text = Checkpoint { origin: "writ.test/local/ten_other/1".into(), ..head }.text();
    let crossed = resigned(run, |files, statement| {
        files.insert(CHECKPOINT.into(), signed(text.clone()));
        statement["predicate"]["origin"] = json!("writ.test/local/ten_other/1");
    });
    cases.bad("checkpoint-signed-by-another-logs-key", crossed, "evidence.log_unknown");
}

/// The evidence key's holder, on the history; and the log's key's, who rewrote it.
pub(super) fn histories(cases: &mut Cases, whole: &[u8], log: &Log) {
    let rows: Value = serde_json::from_slice(&files(whole)[HISTORY]).expect("json");
    let history = |change: &dyn Fn(&mut Value)| {
        let mut rows = rows.clone();
        change(&mut rows);
        resigned(whole, |files, _| drop(files.insert(HISTORY.into(), canonical(&rows))))
    };
    let list =
        |rows: &mut Value, change: &dyn Fn(&mut Vec<Value>)| rows.as_array_mut().into_iter().for_each(change);
    const MALFORMED: &str = "evidence.history_malformed";
    const INCONSISTENT: &str = "evidence.history_inconsistent";
    let mut other = Log::new("writ.test/local/ten_other/1");
    other.fact("run_1", Says::default());
    let foreign = other.checkpoint(&ours());
    for (name, bundle, code) in [
        ("object", history(&|rows| *rows = json!({})), MALFORMED),
        ("member", history(&|rows| rows[0]["extra"] = json!(1)), MALFORMED),
        ("not-base64", history(&|rows| rows[0]["proof"] = json!(["x"])), MALFORMED),
        ("short-hash", history(&|rows| rows[0]["proof"] = json!(["AA=="])), MALFORMED),
        (
            "huge-proof",
            history(&|rows| rows[0]["proof"] = vec![json!(BASE64.encode([1; 32])); 129].into()),
            MALFORMED,
        ),
        ("proof-dropped", history(&|rows| rows[0]["proof"] = json!([])), INCONSISTENT),
        (
            "proof-longer",
            history(&|rows| list(&mut rows[0]["proof"], &|proof| proof.push(json!(BASE64.encode([1; 32]))))),
            INCONSISTENT,
        ),
        ("reversed", history(&|rows| list(rows, &|rows| rows.reverse())), INCONSISTENT),
        ("one-dropped", history(&|rows| list(rows, &|rows| drop(rows.remove(1)))), INCONSISTENT),
        ("one-twice", history(&|rows| list(rows, &|rows| rows.insert(1, rows[0].clone()))), INCONSISTENT),
        (
            "newest-again",
            history(&|rows| {
                list(rows, &|rows| {
                    rows.push(json!({"checkpoint": log.notes.last().map(|note| &note.1), "proof": []}))
                })
            }),
            INCONSISTENT,
        ),
        ("note-malformed", history(&|rows| rows[0]["checkpoint"] = json!("x")), "evidence.log_unknown"),
        (
            "note-unsigned",
            history(&|rows| {
                rows[0]["checkpoint"] = json!(
                    String::from_utf8(swap(
                        rows[0]["checkpoint"].as_str().unwrap_or_default(),
                        "\n3\n",
                        "\n4\n"
                    ))
                    .expect("UTF-8")
                )
            }),
            "evidence.checkpoint_signature",
        ),
        (
            "note-by-stranger",
            history(&|rows| {
                rows[0]["checkpoint"] = json!((signing(5, 2).checkpoint)(&log.head()).expect("a name"))
            }),
            "evidence.checkpoint_key_unknown",
        ),
        ("other-log", history(&|rows| rows[0]["checkpoint"] = json!(foreign)), MALFORMED),
        ("begun-later", history(&|rows| list(rows, &|rows| drop(rows.remove(0)))), ""),
        ("of-too-many", history(&|rows| *rows = vec![rows[0].clone(); 257].into()), MALFORMED),
    ] {
        cases.add(&format!("history-{name}"), bundle, Some(code).filter(|code| !code.is_empty()));
    }
    if let Some(case) = cases.rows.iter_mut().find(|case| case.name == "history-other-log") {
        case.trust = ours().trust("writ.test", &[ORIGIN.into(), other.origin.clone()]).to_json().into_bytes();
    }
    // A rewritten log: the checkpoints of the first history, the facts of a second.
    let mut rewritten = Log::new(ORIGIN);
    for n in 0..log.size() {
        rewritten.fact("run_1", Says { outcome: Some(json!({"rewritten": n})), ..Says::default() });
    }
    rewritten.notes.push(log.notes[0].clone());
    rewritten.checkpoint(&ours());
    cases.bad("history-rewritten", bundle(&rewritten.whole()), INCONSISTENT);
    // An empty log is a prefix of every log, if it is the empty log.
    for (name, root, expect) in
        [("zero", kernel::sha256(b""), None), ("zero-forged", [7; 32], Some(INCONSISTENT))]
    {
        let zero = (ours().checkpoint)(&Checkpoint { origin: ORIGIN.into(), size: 0, root }).expect("a name");
        let bundle =
            history(&|rows| list(rows, &|rows| rows.insert(0, json!({"checkpoint": zero, "proof": []}))));
        cases.add(&format!("history-from-{name}"), bundle, expect);
    }
}
