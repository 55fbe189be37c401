//! Logs whose signatures and proofs are right and whose facts are wrong.

use super::*;

/// A log of three facts of one run, the second of which says something else, signed and proven.
fn signed(second: Says<'_>) -> Vec<u8> {
    let mut log = Log::new(ORIGIN);
    log.fact("run_1", Says::default());
    log.fact("run_1", second);
    log.fact("run_1", Says { stream_n: Some(3), ..Says::default() });
    log.checkpoint(&ours());
    bundle(&log.whole())
}

/// The log's key's holder: every signature and proof is right, and what was logged is wrong.
pub(super) fn logs_signed(cases: &mut Cases) {
    const TIME: &str = "evidence.fact_time";
    const STREAM: &str = "evidence.stream_gap";
    const ORIGIN_BAD: &str = "evidence.fact_origin";
    let plain = Says::default;
    for (name, says, code) in [
        ("in-order", plain(), ""),
        ("stream-gap", Says { stream_n: Some(3), ..plain() }, STREAM),
        ("stream-again", Says { stream_n: Some(1), ..plain() }, STREAM),
        ("twice", Says { id: Some(id("fct_000000")), ..plain() }, "evidence.fact_twice"),
        ("back-in-time", Says { late_ms: -300_011, ..plain() }, TIME),
        ("back-within-skew", Says { late_ms: -300_010, ..plain() }, ""),
        ("from-the-future", Says { late_ms: 3_600_000 + 300_000 - 9, ..plain() }, TIME),
        ("other-origin", Says { origin: Some("writ.test/local/ten_b/1"), ..plain() }, ORIGIN_BAD),
        ("other-epoch", Says { origin: Some("writ.test/local/ten_acme/2"), ..plain() }, ORIGIN_BAD),
        ("epoch-leading-zero", Says { origin: Some("writ.test/local/ten_acme/01"), ..plain() }, ORIGIN_BAD),
        // Each other fact is of epoch 1, and epochs do not come back.
        ("epoch-back", Says { origin: Some("writ.test/local/ten_acme/0"), ..plain() }, ORIGIN_BAD),
        ("policy-any-text", Says { policy: Some("not a digest \"\u{1}é".into()), ..plain() }, ""),
    ] {
        cases.add(&format!("log-{name}"), signed(says), Some(code).filter(|code| !code.is_empty()));
    }
    let nested = |depth: usize| format!("\"step\":{}{}", "[".repeat(depth), "]".repeat(depth));
    let (deep, deeper) = (nested(15), nested(16));
    let long = format!("\"trace\":\"{}", "x".repeat(4096));
    let long_id = format!("\"run_{}\"", "1".repeat(80));
    let upper = format!("\"args_commitment\":\"{}\"", "AB".repeat(32));
    let outcome = "{\"cost_micros\":7,\"step\":1}";
    let decision = "{\"effect\":\"ALLOW\",\"id\":\"dec_0192f6c1a7b27d3e8a14c0ffee000003\"}";
    for (name, from, to, good) in [
        ("version-2", "\"v\":1}", "\"v\":2}", false),
        ("trailing-space", "\"v\":1}", "\"v\":1} ", false),
        ("inner-space", "{\"act\"", "{ \"act\"", false),
        ("member-missing", "\"assurance\":\"key\",", "", false),
        ("member-null", "\"trace\":\"4bf92f3577b34da6a3ce929d0e0e4736\"", "\"trace\":null", false),
        ("member-number", "\"trace\":\"4bf92f3577b34da6a3ce929d0e0e4736\"", "\"trace\":4", false),
        ("assurance-null", "\"assurance\":\"key\"", "\"assurance\":null", true),
        ("text-empty", "\"trace\":\"4bf92f3577b34da6a3ce929d0e0e4736\"", "\"trace\":\"\"", true),
        ("text-escaped", "\"key\"", "\"\\\"\\\\\\b\\t\\n\\f\\r\\u0000\\u001f\"", true),
        ("text-unicode", "\"key\"", "\"é漢😀\u{7f}\u{80}\u{2028}\"", true),
        ("escaped-letter", "\"key\"", "\"k\\u0065y\"", false),
        ("escaped-slash", "local/", "local\\/", false),
        ("escaped-upper", "\"key\"", "\"\\u001F\"", false),
        ("escaped-newline", "\"key\"", "\"\\u000a\"", false),
        ("escaped-surrogate", "\"key\"", "\"\\ud83d\\ude00\"", false),
        ("escape-unknown", "\"key\"", "\"\\x\"", false),
        ("escape-cut", "\"key\"", "\"\\u00\"", false),
        ("tab", "\"key\"", "\"\t\"", false),
        ("float", "\"step\":1", "\"step\":1.0", false),
        ("exponent", "\"step\":1", "\"step\":1e0", false),
        ("minus-zero", "\"step\":1", "\"step\":-0", false),
        ("plus", "\"step\":1", "\"step\":+1", false),
        ("leading-zero", "\"step\":1", "\"step\":01", false),
        ("other-digits", "\"step\":1", "\"step\":１", false),
        ("nan", "\"step\":1", "\"step\":NaN", false),
        ("just-2-53", "\"step\":1", "\"step\":9007199254740991", true),
        ("beyond-2-53", "\"step\":1", "\"step\":9007199254740992", false),
        ("below-minus-2-53", "\"step\":1", "\"step\":-9007199254740992", false),
        ("far-beyond", "\"step\":1", "\"step\":99999999999999999999999999", false),
        ("keys-unsorted", "\"step\":1", "\"step\":1,\"a\":1", false),
        ("key-twice", "\"step\":1", "\"step\":1,\"step\":1", false),
        ("key-not-ascii", "\"step\"", "\"é\"", false),
        ("key-empty", "\"cost_micros\"", "\"\"", false),
        ("key-with-backslash", "\"step\"", "\"s\\\\\"", false),
        ("key-with-delete", "\"step\"", "\"s\u{7f}\"", false),
        ("key-with-space", "\"step\"", "\"s t\"", true),
        ("deep", "\"step\":1", deep.as_str(), true),
        ("too-deep", "\"step\":1", &deeper, false),
        ("too-long", "\"trace\":\"", &long, false),
        ("outcome-list", outcome, "[1]", false),
        ("outcome-null", outcome, "null", false),
        ("outcome-empty", outcome, "{}", true),
        ("outcome-literals", outcome, "{\"a\":true,\"b\":false,\"c\":null,\"d\":[],\"e\":{}}", true),
        ("literal-cut", outcome, "{\"a\":tru}", false),
        ("comma-hanging", outcome, "{\"a\":1,}", false),
        ("comma-in-list", outcome, "{\"a\":[1,]}", false),
        ("id-no-id", "fct_000001", "fct 000001", false),
        ("actor-no-id", "\"actor\":\"prn_", "\"actor\":\"PRN_", false),
        ("actor-null", "\"actor\":\"prn_0192f6c1a7b27d3e8a14c0ffee000001\"", "\"actor\":null", false),
        ("stream-too-long", "\"run_1\"", &long_id, false),
        ("effect-unknown", "ALLOW", "MAYBE", false),
        ("effect-other", "ALLOW", "STEP_UP", true),
        ("decision-null", decision, "null", true),
        ("decision-list", decision, "[]", false),
        ("decision-member", "\"ALLOW\",", "\"ALLOW\",\"extra\":1,", false),
        ("commitment-short", "\"args_commitment\":null", "\"args_commitment\":\"ab\"", false),
        ("commitment-upper", "\"args_commitment\":null", &upper, false),
        ("time-negative", "\"at_ms\":1760000000010", "\"at_ms\":-1", false),
        ("time-text", "\"at_ms\":1760000000010", "\"at_ms\":\"1760000000010\"", false),
        ("stream-n-zero", "\"stream_n\":2", "\"stream_n\":0", false),
        ("stream-n-negative", "\"stream_n\":2", "\"stream_n\":-2", false),
        ("stream-n-text", "\"stream_n\":2", "\"stream_n\":\"2\"", false),
        ("stream-n-true", "\"stream_n\":2", "\"stream_n\":true", false),
        ("causes-null", "\"causes\":[]", "\"causes\":null", false),
        ("causes-numbers", "\"causes\":[]", "\"causes\":[1]", false),
        ("causes-one", "\"causes\":[]", "\"causes\":[\"fct_000000\"]", true),
        ("causes-twice", "\"causes\":[]", "\"causes\":[\"fct_000000\",\"fct_000000\"]", true),
        ("causes-hanging", "\"causes\":[]", "\"causes\":[\"fct_000000\",]", false),
    ] {
        let code = match (good, name) {
            (true, _) => None,
            (false, "time-negative") => Some(TIME),
            (false, _) => Some("evidence.fact_malformed"),
        };
        cases.add(&format!("leaf-{name}"), signed(Says { edit: Some((from, to)), ..plain() }), code);
    }
}
