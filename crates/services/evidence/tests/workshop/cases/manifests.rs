//! Tampering with the manifest, by whoever holds the evidence key or none.

use super::*;

/// The evidence key's holder, or nobody, on the manifest.
pub(super) fn manifests(cases: &mut Cases, run: &[u8]) {
    let with = |bytes: Vec<u8>| changed(run, |files| drop(files.insert(MANIFEST.into(), bytes)));
    let good: Value = serde_json::from_slice(&files(run)[MANIFEST]).expect("an envelope");
    let edited = |change: &dyn Fn(&mut Value)| {
        let mut envelope = good.clone();
        change(&mut envelope);
        with(canonical(&envelope))
    };
    let statement = listing(&files(run));
    let stated = |change: &dyn Fn(&mut Value)| {
        let mut statement = statement.clone();
        change(&mut statement);
        changed(run, |files| seal(files, &statement))
    };
    let raw =
        |payload: Vec<u8>| with(canonical(&envelope(&payload, evidence::manifest::PAYLOAD_TYPE, &key(2))));
    let text = String::from_utf8(canonical(&good)).expect("UTF-8");
    let payload = String::from_utf8(canonical(&statement)).expect("UTF-8");
    const MALFORMED: &str = "evidence.manifest_malformed";
    const TYPE: &str = "evidence.manifest_type";
    const SIGNATURE: &str = "evidence.manifest_signature";
    for (name, bundle, code) in [
        ("no-json", with(b"not json".to_vec()), MALFORMED),
        ("a-list", with(b"[]".to_vec()), MALFORMED),
        ("pretty", with(serde_json::to_vec_pretty(&good).expect("json")), MALFORMED),
        ("newline", with(format!("{text}\n").into_bytes()), MALFORMED),
        ("bom", with(format!("\u{feff}{text}").into_bytes()), MALFORMED),
        ("duplicate-key", with(swap(&text, "{\"payload\"", "{\"payload\":\"\",\"payload\"")), MALFORMED),
        ("unknown-member", edited(&|e| e["extra"] = json!(1)), MALFORMED),
        ("no-signature", edited(&|e| e["signatures"] = json!([])), MALFORMED),
        (
            "two-signatures",
            edited(&|e| e["signatures"] = json!([e["signatures"][0], e["signatures"][0]])),
            MALFORMED,
        ),
        (
            "signature-list",
            edited(&|e| e["signatures"] = json!([[e["signatures"][0]["keyid"], e["signatures"][0]["sig"]]])),
            MALFORMED,
        ),
        ("signature-not-base64", edited(&|e| e["signatures"][0]["sig"] = json!("*")), MALFORMED),
        (
            "signature-url-base64",
            edited(&|e| {
                e["signatures"][0]["sig"] =
                    json!(e["signatures"][0]["sig"].as_str().unwrap_or_default().replace('=', ""))
            }),
            MALFORMED,
        ),
        (
            "signature-short",
            edited(&|e| e["signatures"][0]["sig"] = json!(BASE64.encode([1; 63]))),
            MALFORMED,
        ),
        ("signature-zero", edited(&|e| e["signatures"][0]["sig"] = json!(BASE64.encode([0; 64]))), SIGNATURE),
        ("payload-not-base64", edited(&|e| e["payload"] = json!("e30")), MALFORMED),
        ("payload-null", edited(&|e| e["payload"] = json!(null)), MALFORMED),
        ("another-payload", edited(&|e| e["payload"] = json!("e30=")), SIGNATURE),
        ("payload-type", edited(&|e| e["payloadType"] = json!("application/json")), TYPE),
        ("payload-type-signed", with(canonical(&envelope(payload.as_bytes(), "text/plain", &key(2)))), TYPE),
        (
            "keyid-unknown",
            edited(&|e| e["signatures"][0]["keyid"] = json!("evk_0000000000000000")),
            "evidence.evidence_key_unknown",
        ),
        (
            "stranger",
            with(canonical(&envelope(payload.as_bytes(), evidence::manifest::PAYLOAD_TYPE, &key(8)))),
            "evidence.evidence_key_unknown",
        ),
        (
            "log-key-for-evidence",
            with(canonical(&envelope(payload.as_bytes(), evidence::manifest::PAYLOAD_TYPE, &key(1)))),
            "evidence.evidence_key_unknown",
        ),
        ("payload-empty", raw(vec![]), MALFORMED),
        ("payload-text", raw(b"\"text\"".to_vec()), MALFORMED),
        ("payload-pretty", raw(serde_json::to_vec_pretty(&statement).expect("json")), MALFORMED),
        ("payload-not-utf8", raw(b"{\"\xff\":1}".to_vec()), MALFORMED),
        ("payload-float", raw(swap(&payload, "\"size\":18", "\"size\":18.0")), MALFORMED),
        ("payload-huge-integer", raw(swap(&payload, "\"size\":18", "\"size\":9007199254740992")), MALFORMED),
        (
            "payload-surrogate",
            raw(swap(&payload, "\"subject\":\"run_1\"", "\"subject\":\"\\ud800\"")),
            MALFORMED,
        ),
        ("statement-type", stated(&|s| s["_type"] = json!("https://in-toto.io/Statement/v0.1")), TYPE),
        ("predicate-type", stated(&|s| s["predicateType"] = json!("https://writ.example/evidence/v2")), TYPE),
        ("statement-member", stated(&|s| s["extra"] = json!(1)), MALFORMED),
        ("predicate-member", stated(&|s| s["predicate"]["extra"] = json!(1)), MALFORMED),
        (
            "predicate-lacks",
            stated(&|s| drop(s["predicate"].as_object_mut().map(|p| p.remove("streams")))),
            MALFORMED,
        ),
        ("predicate-a-list", stated(&|s| s["predicate"] = json!([1])), MALFORMED),
        ("created-as-text", stated(&|s| s["predicate"]["created_at_ms"] = json!("1")), MALFORMED),
        ("created-as-bool", stated(&|s| s["predicate"]["created_at_ms"] = json!(true)), MALFORMED),
        ("size-negative", stated(&|s| s["predicate"]["size"] = json!(-1)), MALFORMED),
        ("size-as-bool", stated(&|s| s["predicate"]["size"] = json!(true)), MALFORMED),
        ("range-of-three", stated(&|s| s["predicate"]["ranges"][0] = json!([0, 1, 2])), MALFORMED),
        ("range-empty", stated(&|s| s["predicate"]["ranges"] = json!([[3, 3]])), MALFORMED),
        ("range-backwards", stated(&|s| s["predicate"]["ranges"] = json!([[3, 2]])), MALFORMED),
        ("ranges-touch", stated(&|s| s["predicate"]["ranges"] = json!([[1, 2], [2, 3]])), MALFORMED),
        ("ranges-overlap", stated(&|s| s["predicate"]["ranges"] = json!([[1, 4], [2, 6]])), MALFORMED),
        ("range-beyond", stated(&|s| s["predicate"]["ranges"] = json!([[1, 19]])), MALFORMED),
        (
            "streams-unsorted",
            stated(&|s| {
                s["predicate"]["streams"] =
                    json!([{"stream": "run_1", "last": 1}, {"stream": "apr_1", "last": 1}])
            }),
            MALFORMED,
        ),
        (
            "streams-twice",
            stated(&|s| {
                s["predicate"]["streams"] =
                    json!([{"stream": "run_1", "last": 3}, {"stream": "run_1", "last": 3}])
            }),
            MALFORMED,
        ),
        ("stream-empty", stated(&|s| s["predicate"]["streams"][0]["last"] = json!(0)), MALFORMED),
        ("stream-no-id", stated(&|s| s["predicate"]["streams"][0]["stream"] = json!("APR")), MALFORMED),
        (
            "files-unsorted",
            stated(&|s| s["subject"].as_array_mut().into_iter().for_each(|list| list.reverse())),
            MALFORMED,
        ),
        ("files-twice", stated(&|s| s["subject"][1] = s["subject"][0].clone()), MALFORMED),
        (
            "file-digest-upper",
            stated(&|s| s["subject"][0]["digest"]["sha256"] = json!("A".repeat(64))),
            MALFORMED,
        ),
        (
            "file-digest-other",
            stated(&|s| s["subject"][0]["digest"] = json!({"sha512": "0".repeat(128)})),
            MALFORMED,
        ),
        ("lists-itself", stated(&|s| s["subject"][4]["name"] = json!(MANIFEST)), MALFORMED),
        (
            "unlisted",
            stated(&|s| drop(s["subject"].as_array_mut().map(|list| list.remove(0)))),
            "evidence.file_unlisted",
        ),
        (
            "lists-absent",
            stated(&|s| {
                if let Some(list) = s["subject"].as_array_mut() {
                    list.push(json!({"name": "zz", "digest": {"sha256": "0".repeat(64)}}))
                }
            }),
            "evidence.file_missing",
        ),
        (
            "lists-other-digest",
            stated(&|s| s["subject"][2]["digest"]["sha256"] = json!("0".repeat(64))),
            "evidence.file_digest",
        ),
        (
            "another-origin",
            stated(&|s| s["predicate"]["origin"] = json!("writ.test/local/ten_other/1")),
            "evidence.manifest_mismatch",
        ),
        (
            "another-tenant",
            stated(&|s| s["predicate"]["tenant"] = json!("ten_other")),
            "evidence.manifest_mismatch",
        ),
        ("another-size", stated(&|s| s["predicate"]["size"] = json!(19)), "evidence.manifest_mismatch"),
        (
            "other-ranges",
            stated(&|s| s["predicate"]["ranges"] = json!([[0, 2]])),
            "evidence.manifest_mismatch",
        ),
        ("subject-unclaimed", stated(&|s| s["predicate"]["subject"] = json!("run_2")), "evidence.overclaim"),
        ("subject-all", stated(&|s| s["predicate"]["subject"] = json!("log")), "evidence.overclaim"),
        ("admits-nothing", stated(&|s| s["predicate"]["not_proven"] = json!([])), "evidence.overclaim"),
        (
            "admits-less",
            stated(&|s| drop(s["predicate"]["not_proven"].as_array_mut().map(|list| list.remove(2)))),
            "evidence.overclaim",
        ),
        (
            "admits-more",
            stated(&|s| {
                if let Some(list) = s["predicate"]["not_proven"].as_array_mut() {
                    list.push(json!("more"))
                }
            }),
            "",
        ),
    ] {
        let expect = Some(code).filter(|code| !code.is_empty());
        cases.add(&format!("manifest-{name}"), bundle, expect);
    }
}
