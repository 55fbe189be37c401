//! Good and tampered bundles, each with the verdict that both verifiers must come to.

mod bytes;
mod facts;
mod fuzz;
mod logs;
mod manifests;
mod notes;
mod trusts;

use super::*;
use evidence::manifest::{CHECKPOINT, DISCLOSURES, FACTS, HISTORY, PROOF, README, SUMMARY};

/// A bundle, what it is verified against, and what has to come out.
pub struct Case {
    pub name: String,
    pub bundle: Vec<u8>,
    pub trust: Vec<u8>,
    pub held: Option<String>,
    /// The code of the failure; `None`: valid.
    pub expect: Option<&'static str>,
}

const POLICY: &[u8] = b"a policy bundle, as far as evidence is concerned";
const TENANT_POLICY: &[u8] = b"the tenant's own";

struct Cases {
    rows: Vec<Case>,
    trust: Vec<u8>,
}

impl Cases {
    fn add(&mut self, name: &str, bundle: Vec<u8>, expect: Option<&'static str>) {
        let trust = self.trust.clone();
        self.rows.push(Case { name: name.to_owned(), bundle, trust, held: None, expect });
    }

    fn bad(&mut self, name: &str, bundle: Vec<u8>, code: &'static str) {
        self.add(name, bundle, Some(code));
    }

    fn held(&mut self, name: &str, bundle: &[u8], held: &str, expect: Option<&'static str>) {
        self.add(name, bundle.to_vec(), expect);
        if let Some(case) = self.rows.last_mut() {
            case.held = Some(held.to_owned());
        }
    }

    fn trusting(&mut self, name: &str, bundle: &[u8], trust: &Trust, expect: Option<&'static str>) {
        self.add(name, bundle.to_vec(), expect);
        if let Some(case) = self.rows.last_mut() {
            case.trust = trust.to_json().into_bytes();
        }
    }
}

/// A log of two runs, their approvals and some traffic beside, with a checkpoint now and then.
pub fn story() -> Log {
    let mut log = Log::new(ORIGIN);
    let signing = ours();
    let platform = hex::encode(&kernel::sha256(POLICY));
    let both = format!("{platform}+{}", hex::encode(&kernel::sha256(TENANT_POLICY)));
    for n in 0..5 {
        log.fact("prn_traffic", Says { kind: Some("access.traffic.refused"), ..Says::default() });
        if n == 2 {
            log.checkpoint(&signing);
        }
    }
    log.checkpoint(&signing);
    let args = json!({"number": "INC1", "caller": "Ann", "n": -3, "list": [1, "é\n", null, {"a": true}]});
    let created =
        log.fact("run_1", Says { args: Some(args), policy: Some(platform.clone()), ..Says::default() });
    let asked = log.fact(
        "apr_1",
        Says { causes: vec![created], args: Some(json!({"run": "run_1"})), ..Says::default() },
    );
    log.fact("run_2", Says::default());
    log.checkpoint(&signing);
    let granted = log.fact("apr_1", Says { causes: vec![asked], policy: Some(platform), ..Says::default() });
    log.fact("run_1", Says { causes: vec![granted], policy: Some(both), ..Says::default() });
    for n in 0..7 {
        log.fact("run_2", Says { late_ms: if n == 3 { -200_000 } else { 0 }, ..Says::default() });
    }
    let outcome = json!({"note": "quote \" backslash \\ tab \t bell \u{7} é 漢 😀 \u{7f}", "deep": [[[[[[]]]]]], "n": 9007199254740991i64});
    log.fact("run_1", Says { outcome: Some(outcome), ..Says::default() });
    log.checkpoint(&signing);
    log
}

pub fn story_whole(log: &Log) -> Parts {
    let mut parts = log.whole();
    parts.policies = [POLICY, TENANT_POLICY].map(|bytes| (kernel::sha256(bytes), bytes.to_vec())).into();
    parts
}

pub fn story_run(log: &Log) -> Parts {
    let mut parts =
        log.parts("run_1", &["apr_1", "run_1"], |_, stream| stream == "run_1" || stream == "apr_1");
    // From the last checkpoint before the run's first fact.
    parts.history.remove(0);
    parts.policies = BTreeMap::from([(kernel::sha256(POLICY), POLICY.to_vec())]);
    parts
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Cases { rows: Vec::new(), trust: trust().to_json().into_bytes() };
    let log = story();
    let (whole, run) = (bundle(&story_whole(&log)), bundle(&story_run(&log)));
    good(&mut cases, &log, &whole, &run);
    bytes::bytes(&mut cases, &whole);
    bytes::archives(&mut cases, &run);
    bytes::files_changed(&mut cases, &run);
    manifests::manifests(&mut cases, &run);
    trusts::trusts(&mut cases, &run);
    notes::notes(&mut cases, &run, &log);
    notes::histories(&mut cases, &whole, &log);
    facts::facts_resigned(&mut cases, &whole, &run);
    logs::logs_signed(&mut cases);
    facts::side_files(&mut cases, &whole);
    trusts::helds(&mut cases, &log, &whole, &run);
    trusts::epochs(&mut cases);
    fuzz::changes(&mut cases, &run);
    cases.rows
}

fn good(cases: &mut Cases, log: &Log, whole: &[u8], run: &[u8]) {
    cases.add("good-whole", whole.to_vec(), None);
    cases.add("good-run", run.to_vec(), None);
    let empty = {
        let mut log = Log::new(ORIGIN);
        log.checkpoint(&ours());
        log
    };
    cases.add("good-empty-log", bundle(&empty.whole()), None);
    for size in [1, 2, 3, 8, 31] {
        let mut log = Log::new(ORIGIN);
        for n in 0..size {
            if n == size / 2 {
                log.checkpoint(&ours());
            }
            log.fact(&format!("run_{}", n % 3), Says::default());
        }
        log.checkpoint(&ours());
        cases.add(&format!("good-size-{size}"), bundle(&log.whole()), None);
        let alone = log.parts("run_0", &["run_0"], |_, stream| stream == "run_0");
        cases.add(&format!("good-one-of-{size}"), bundle(&alone), None);
    }
    let bare = Parts { history: vec![], disclosures: vec![], policies: BTreeMap::new(), ..story_run(log) };
    cases.add("good-without-extras", bundle(&bare), None);
    let mut hidden = story_run(log);
    for (_, fields) in &mut hidden.disclosures {
        for field in fields.as_array_mut().into_iter().flatten() {
            if let Some(path) = field["path"].as_str() {
                let (salt, value) =
                    (hex::decode32(field["salt"].as_str().unwrap_or_default()), &field["value"]);
                let mut bytes =
                    [&[2u8][..], &salt.unwrap_or_default(), &(path.len() as u16).to_be_bytes()].concat();
                bytes.extend_from_slice(path.as_bytes());
                bytes.extend_from_slice(&canonical(value));
                *field = json!({"hidden": hex::encode(&kernel::sha256(&bytes))});
            }
        }
    }
    cases.add("good-all-hidden", bundle(&hidden), None);
    // A changed log key: the history by the old one, the newest checkpoint by the new one.
    let mut rotated = log.clone();
    rotated.fact("run_3", Says::default());
    rotated.checkpoint(&signing(9, 2));
    let mut both = trust();
    both.logs[0].until_ms = Some(START_MS + 100);
    both.logs.extend(signing(9, 2).trust("writ.test", &[ORIGIN.to_owned()]).logs);
    both.logs[1].from_ms = START_MS + 100;
    cases.trusting("good-rotated-key", &bundle(&rotated.whole()), &both, None);
    // A checkpoint that others have countersigned: unknown signature lines are passed over.
    let cosigned = resigned(run, |files, _| {
        let note = String::from_utf8(files[CHECKPOINT].clone()).expect("UTF-8");
        let other = kernel::note::sign("x\n", "witness.example", &key(7)).expect("a name");
        let line = other.lines().last().unwrap_or_default();
        files.insert(CHECKPOINT.into(), format!("{note}{line}\n").into_bytes());
    });
    cases.add("good-cosigned", cosigned, None);
}

/// `text` with its first `from` replaced, which must be there: a case that changes nothing shows nothing.
fn swap(text: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

fn swap_line(lines: &mut [String], n: usize, from: &str, to: &str) {
    lines[n] = String::from_utf8(swap(&lines[n], from, to)).expect("UTF-8");
}

pub fn edit_lines(files: &mut Files, change: &dyn Fn(&mut Vec<String>)) {
    let text = String::from_utf8(files[FACTS].clone()).expect("UTF-8");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    files.insert(FACTS.into(), text.into_bytes());
}
