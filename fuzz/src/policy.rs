//! Policy bundles as tenants upload them.

use crate::{Taken, Target, of_kind};
use flate2::Compression;
use flate2::write::GzEncoder;
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open};
use governor::policy::defaults::platform_sources;
use governor::policy::signer::Signer;
use governor::policy::source::source_check;
use governor::policy::{Files, KeyRecord, KeyRing, Manifest, Metadata};
use std::io::Write as _;

const SCOPE: &str = "ten_a";
const NOW_MS: i64 = 1_760_000_000_000;
const RULES: &str = "package tenant\n\nimport rego.v1\n\ndefault verdict := {\"effect\": \"DENY\", \"reasons\": [\"tenant.default\"]}\n\nverdict := {\"effect\": \"ALLOW\", \"reasons\": [\"tenant.reads\"]} if {\n\tinput.action in data.tenant.allowed\n\tnot input.args.text == \"no\"\n}\n";
const DATA: &str = "{\"tenant\": {\"allowed\": [\"flows.run.start\"]}}";

pub(crate) const POLICY: Target = Target {
    name: "policy",
    run: policy,
    seeds: policy_seeds,
    words: &[
        "package tenant\n",
        "import rego.v1\n",
        " if {",
        "}\n",
        ":= ",
        "== ",
        "some x in ",
        "every ",
        "not ",
        "with input as ",
        "contains ",
        "else := ",
        "default ",
        "data.tenant",
        "input.",
        "[x | ",
        "http.send(",
        "regex.match(",
        "\"",
        "`",
        "{",
        "[",
        "1e400",
        "numbers.range(0, 1000000)",
        "ustar\u{0}00",
        ".manifest",
        ".signatures.json",
        "\"seq\":",
        "\"roots\": [\"\"]",
    ],
    runs: 1_200,
};

fn manifest() -> Manifest {
    Manifest {
        revision: "r-1".into(),
        roots: vec!["tenant".into()],
        rego_version: 1,
        metadata: Metadata { seq: 1, not_after_ms: i64::MAX, min_engine: 1 },
    }
}

fn files(rules: &[u8], data: &[u8]) -> Files {
    Files::from([("rules.rego".to_owned(), rules.to_vec()), ("data.json".to_owned(), data.to_vec())])
}

/// 0: an upload as it comes; 1: a tar that is compressed here; 2: rules; 3: data; 4: a manifest. The last three are
/// built and signed, so that they get past the signature.
fn policy(data: &[u8]) {
    let mut taken = Taken::of(data);
    let (kind, rest) = (taken.byte() % 5, taken.rest());
    match kind {
        0 => opened(rest),
        1 => opened(&gzip(rest)),
        2 => published(&manifest(), &files(rest, DATA.as_bytes())),
        3 => published(&manifest(), &files(RULES.as_bytes(), rest)),
        _ => {
            if let Ok(manifest) = serde_json::from_slice::<Manifest>(rest) {
                published(&manifest, &files(RULES.as_bytes(), DATA.as_bytes()));
            }
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}

fn signer() -> Signer {
    Signer::from_entropy(&[1; 32]).expect("a scalar")
}

fn keys() -> KeyRing {
    let record =
        KeyRecord { scope: SCOPE.into(), algorithm: Algorithm::Es256, key: signer().verifying_key() };
    KeyRing::from([(signer().id(), record)])
}

fn opened(bytes: &[u8]) {
    // Nobody here holds the key, so all that opens is what was signed below, compressed in whatever way.
    if let Ok(bundle) = bundle_open(bytes, &keys(), SCOPE) {
        let signed = (manifest(), files(RULES.as_bytes(), DATA.as_bytes()));
        assert_eq!((bundle.manifest, bundle.files), signed, "an upload that nobody signed is opened");
    }
    // Signed by a key of the sender's own.
    let stranger = Signer::from_entropy(&[2; 32]).expect("a scalar");
    if let Ok(signed) = stranger.sign(bytes, SCOPE) {
        assert!(bundle_open(&signed, &keys(), SCOPE).is_err(), "an upload that a stranger signed is opened");
    }
}

fn published(manifest: &Manifest, files: &Files) {
    let Ok(unsigned) = bundle_build(manifest, files) else { return };
    assert_eq!(bundle_build(manifest, files).as_ref(), Ok(&unsigned), "a bundle has one spelling");
    let signed = signer().sign(&unsigned, SCOPE).expect("what is built can be signed");
    if let Ok(bundle) = bundle_open(&signed, &keys(), SCOPE) {
        assert_eq!((&bundle.manifest, &bundle.files), (manifest, files), "what is opened is what was built");
    }
    assert!(bundle_open(&signed, &keys(), "ten_b").is_err(), "opened for another tenant");
    // Lint, compiler, and an answer to every probe that two evaluators agree on.
    let _ = source_check(manifest, files, NOW_MS);
}

fn good() -> Vec<u8> {
    let unsigned =
        bundle_build(&manifest(), &files(RULES.as_bytes(), DATA.as_bytes())).expect("a small bundle");
    signer().sign(&unsigned, SCOPE).expect("what is built can be signed")
}

fn policy_seeds() -> Vec<Vec<u8>> {
    let good = good();
    let mut tar = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&good[..]), &mut tar).expect("our own gzip");
    let mut seeds = vec![
        of_kind(0, &good),
        of_kind(1, &tar),
        of_kind(2, RULES.as_bytes()),
        of_kind(3, DATA.as_bytes()),
        of_kind(4, &serde_json::to_vec(&manifest()).expect("plain data")),
    ];
    let (_, platform) = platform_sources().expect("constants");
    for (name, content) in platform.iter().filter(|(_, content)| content.len() < 6_000) {
        seeds.push(of_kind(if name.ends_with(".rego") { 2 } else { 3 }, content));
    }
    seeds
}
