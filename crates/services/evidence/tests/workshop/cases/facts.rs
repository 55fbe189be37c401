//! Tampering with what is shown, by the evidence key's holder.

use super::*;

/// The evidence key's holder, on facts and proof: what is shown is chosen, the log cannot be changed.
pub(super) fn facts_resigned(cases: &mut Cases, whole: &[u8], run: &[u8]) {
    let lines =
        |of: &[u8], change: &dyn Fn(&mut Vec<String>)| resigned(of, |files, _| edit_lines(files, change));
    let proof = |of: &[u8], change: &dyn Fn(&mut Value)| {
        resigned(of, |files, statement| {
            let mut proof: Value = serde_json::from_slice(&files[PROOF]).expect("json");
            change(&mut proof);
            statement["predicate"]["ranges"] = proof["ranges"].clone();
            files.insert(PROOF.into(), canonical(&proof));
        })
    };
    const INCLUSION: &str = "evidence.inclusion";
    const GAP: &str = "evidence.range_gap";
    const STREAM: &str = "evidence.stream_gap";
    const FACT: &str = "evidence.fact_malformed";
    const PROOF_BAD: &str = "evidence.proof_malformed";
    for (name, bundle, code) in [
        ("dropped", lines(run, &|lines| drop(lines.remove(1))), GAP),
        ("added", lines(run, &|lines| lines.push(lines[0].clone())), GAP),
        ("emptied", lines(run, &|lines| lines.clear()), GAP),
        ("edited", lines(run, &|lines| swap_line(lines, 0, "ALLOW", "DENY")), INCLUSION),
        ("edited-outcome", lines(whole, &|lines| swap_line(lines, 3, "\"step\":3", "\"step\":4")), INCLUSION),
        ("swapped", lines(whole, &|lines| lines.swap(0, 1)), STREAM),
        ("swapped-across-streams", lines(whole, &|lines| lines.swap(5, 7)), INCLUSION),
        (
            "renumbered",
            lines(whole, &|lines| swap_line(lines, 1, "\"stream_n\":2", "\"stream_n\":3")),
            STREAM,
        ),
        (
            "replaced-by-its-neighbour",
            lines(whole, &|lines| lines[1] = lines[0].clone()),
            "evidence.fact_twice",
        ),
        (
            "of-another-log",
            lines(run, &|lines| swap_line(lines, 0, "ten_acme/1", "ten_b/1")),
            "evidence.fact_origin",
        ),
        ("not-canonical", lines(run, &|lines| swap_line(lines, 0, ",\"v\":1", ", \"v\":1")), FACT),
        ("extra-member", lines(run, &|lines| swap_line(lines, 0, ",\"v\":1", ",\"v\":1,\"w\":1")), FACT),
        ("no-object", lines(run, &|lines| lines[0] = "1".into()), FACT),
        ("empty-line", lines(run, &|lines| lines[0].clear()), FACT),
        (
            "no-last-newline",
            resigned(run, |files, _| {
                files.get_mut(FACTS).into_iter().for_each(|facts| facts.truncate(facts.len() - 1))
            }),
            FACT,
        ),
        ("moved", proof(run, &|proof| proof["ranges"] = json!([[0, 2], [8, 10], [16, 17]])), INCLUSION),
        ("hash-changed", proof(run, &|proof| proof["hashes"][0] = json!(BASE64.encode([1; 32]))), INCLUSION),
        ("hash-missing", proof(run, &|proof| drop(proof["hashes"].as_array_mut().map(Vec::pop))), INCLUSION),
        ("hash-added", proof(whole, &|proof| proof["hashes"] = json!([BASE64.encode([1; 32])])), INCLUSION),
        ("hash-short", proof(run, &|proof| proof["hashes"][0] = json!("AA==")), PROOF_BAD),
        (
            "hash-not-canonical",
            proof(run, &|proof| proof["hashes"][0] = json!(BASE64.encode([0; 32]).replace("A=", "B="))),
            PROOF_BAD,
        ),
        (
            "proof-a-list",
            resigned(run, |files, _| drop(files.insert(PROOF.into(), b"[]".to_vec()))),
            PROOF_BAD,
        ),
        (
            "proof-of-another-size",
            proof(run, &|proof| proof["size"] = json!(16)),
            "evidence.manifest_mismatch",
        ),
    ] {
        cases.bad(&format!("facts-{name}"), bundle, code);
    }
    // A fact left out of the middle of the run, with ranges and proof made right: only the stream's own count tells.
    let log = story();
    let mut omitting = log.parts("run_1", &["apr_1", "run_1"], |index, stream| {
        (stream == "run_1" || stream == "apr_1") && index != 9
    });
    cases.bad("facts-omitted-from-the-middle", bundle(&omitting), STREAM);
    omitting = log.parts("run_1", &["apr_1", "run_1"], |index, stream| {
        (stream == "run_1" || stream == "apr_1") && index != 5
    });
    cases.bad("facts-omitted-from-the-start", bundle(&omitting), STREAM);
    omitting = log.parts("run_1", &["apr_1", "run_1"], |index, stream| {
        (stream == "run_1" || stream == "apr_1") && index < 16
    });
    cases.bad("facts-omitted-from-the-end", bundle(&omitting), STREAM);
    omitting.streams[1].last = 9;
    cases.bad("facts-claimed-beyond", bundle(&omitting), STREAM);
    // Honest: one fact of a stream that is not claimed to be here completely.
    let some = log.parts("run_1", &["run_1"], |index, stream| stream == "run_1" || index == 8);
    cases.add("facts-some-of-an-unclaimed-stream", bundle(&some), None);
}

/// The evidence key's holder, on disclosures and policies.
pub(super) fn side_files(cases: &mut Cases, whole: &[u8]) {
    let rows: Value = serde_json::from_slice(&files(whole)[DISCLOSURES]).expect("json");
    let shown = |change: &dyn Fn(&mut Value)| {
        let mut rows = rows.clone();
        change(&mut rows);
        resigned(whole, |files, _| drop(files.insert(DISCLOSURES.into(), canonical(&rows))))
    };
    const MALFORMED: &str = "evidence.disclosure_malformed";
    const UNKNOWN: &str = "evidence.disclosure_unknown";
    const MISMATCH: &str = "evidence.disclosure_mismatch";
    for (name, bundle, code) in [
        ("object", shown(&|rows| *rows = json!({})), MALFORMED),
        ("member", shown(&|rows| rows[0]["extra"] = json!(1)), MALFORMED),
        ("fields-object", shown(&|rows| rows[0]["fields"] = json!({})), MALFORMED),
        ("field-member", shown(&|rows| rows[0]["fields"][1]["extra"] = json!(1)), MALFORMED),
        ("hidden-short", shown(&|rows| rows[0]["fields"][0]["hidden"] = json!("ab")), MALFORMED),
        ("salt-upper", shown(&|rows| rows[0]["fields"][1]["salt"] = json!("AB".repeat(32))), MALFORMED),
        ("path-number", shown(&|rows| rows[0]["fields"][1]["path"] = json!(1)), MALFORMED),
        (
            "too-many",
            shown(&|rows| rows[0]["fields"] = vec![rows[0]["fields"][0].clone(); 65].into()),
            MALFORMED,
        ),
        ("fact-twice", shown(&|rows| rows[1] = rows[0].clone()), MALFORMED),
        ("value-changed", shown(&|rows| rows[0]["fields"][2]["value"] = json!(4)), MISMATCH),
        ("value-kind", shown(&|rows| rows[0]["fields"][2]["value"] = json!("-3")), MISMATCH),
        ("path-changed", shown(&|rows| rows[0]["fields"][2]["path"] = json!("m")), MISMATCH),
        ("salt-changed", shown(&|rows| rows[0]["fields"][2]["salt"] = json!("ab".repeat(32))), MISMATCH),
        ("hidden-changed", shown(&|rows| rows[0]["fields"][0]["hidden"] = json!("ab".repeat(32))), MISMATCH),
        ("field-dropped", shown(&|rows| drop(rows[0]["fields"].as_array_mut().map(Vec::pop))), MISMATCH),
        (
            "field-swapped",
            shown(&|rows| rows[0]["fields"].as_array_mut().into_iter().for_each(|fields| fields.swap(1, 2))),
            MISMATCH,
        ),
        ("no-fields", shown(&|rows| rows[0]["fields"] = json!([])), MISMATCH),
        ("fact-absent", shown(&|rows| rows[0]["fact"] = json!("fct_999999")), UNKNOWN),
        ("fact-without-commitment", shown(&|rows| rows[0]["fact"] = json!("fct_000000")), UNKNOWN),
        ("another-facts", shown(&|rows| rows[0]["fact"] = rows[1]["fact"].clone()), MISMATCH),
        ("one-dropped", shown(&|rows| drop(rows.as_array_mut().map(Vec::pop))), ""),
        ("order-free", shown(&|rows| rows.as_array_mut().into_iter().for_each(|rows| rows.reverse())), ""),
        (
            "pretty",
            resigned(whole, |files, _| {
                drop(files.insert(DISCLOSURES.into(), serde_json::to_vec_pretty(&rows).expect("json")))
            }),
            MALFORMED,
        ),
    ] {
        cases.add(&format!("disclosure-{name}"), bundle, Some(code).filter(|code| !code.is_empty()));
    }
    let policy = |change: &dyn Fn(&mut Files, String)| {
        resigned(whole, |files, _| {
            let name = files.keys().find(|name| name.starts_with("policy/")).cloned().unwrap_or_default();
            change(files, name);
        })
    };
    cases.bad(
        "policy-changed",
        policy(&|files, name| drop(files.insert(name, b"x".to_vec()))),
        "evidence.policy_mismatch",
    );
    let stray = format!("policy/{}.bundle", hex::encode(&kernel::sha256(b"x")));
    cases.bad(
        "policy-unreferenced",
        policy(&|files, _| drop(files.insert(stray.clone(), b"x".to_vec()))),
        "evidence.policy_unreferenced",
    );
    cases.add("policy-left-out", policy(&|files, name| drop(files.remove(&name))), None);
}
