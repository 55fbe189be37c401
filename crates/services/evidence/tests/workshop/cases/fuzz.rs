//! Small random changes, each signed by whoever could have made it, so that what judges them is the grammar and not a
//! signature. What this crate's verifier says of one is what the other one has to say.

use super::*;

/// Changes of each sort.
const ROUNDS: u64 = 120;
/// Bytes that mean something to one grammar or another.
const BYTES: &[u8] = b"\x00\x01\t\n\r \"+-./0159:=AZ[\\]_az{}\x7f\x80\xc2\xe2\xff";

/// A small generator with a fixed start: the same changes in every run (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n as u64) as usize
    }

    /// One to three bytes replaced, inserted, removed or doubled.
    fn change(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let (at, byte) = (self.below(out.len()), BYTES[self.below(BYTES.len())]);
            match self.below(5) {
                0 => out[at] = byte,
                1 => out.insert(at, byte),
                2 if out.len() > 1 => drop(out.remove(at)),
                3 => out.insert(at, out[at]),
                _ => {
                    let other = self.below(out.len());
                    out.swap(at, other);
                }
            }
        }
        out
    }
}

pub(super) fn changes(cases: &mut Cases, run: &[u8]) {
    let mut chance = Chance(2026);
    let mut add = |name: String, bundle: Vec<u8>, trust_file: Option<Vec<u8>>| {
        let trust_file = trust_file.unwrap_or_else(|| trust().to_json().into_bytes());
        let expect = match Trust::parse(&trust_file) {
            Err(_) => Some("evidence.trust_malformed"),
            Ok(trust) => evidence::verify(&bundle, &trust, None).failure.map(|failure| failure.reason.code()),
        };
        cases.add(&name, bundle, expect);
        if let Some(case) = cases.rows.last_mut() {
            case.trust = trust_file;
        }
    };
    let mut log = Log::new(ORIGIN);
    log.fact("run_1", Says::default());
    let args = json!({"a": [1, {"b": "é\n"}], "c": -1});
    log.fact("run_1", Says { args: Some(args), policy: Some("p\"".into()), ..Says::default() });
    let statement = canonical(&listing(&files(run)));
    let note = String::from_utf8(files(run)[CHECKPOINT].clone()).expect("UTF-8");
    let (text, _) = note.split_once("\n\n").expect("a signed note");
    for n in 0..ROUNDS {
        let mut touched = log.clone();
        touched.leaves[1] = chance.change(&log.leaves[1]);
        touched.hashes[1] = merkle::leaf_hash(&touched.leaves[1]);
        touched.checkpoint(&ours());
        add(format!("fuzz-leaf-{n}"), bundle(&touched.whole()), None);

        let payload = chance.change(&statement);
        let sealed = canonical(&envelope(&payload, evidence::manifest::PAYLOAD_TYPE, &key(2)));
        let file = |sealed: Vec<u8>| changed(run, |files| drop(files.insert(MANIFEST.into(), sealed)));
        add(format!("fuzz-statement-{n}"), file(sealed), None);
        add(format!("fuzz-envelope-{n}"), file(chance.change(&files(run)[MANIFEST])), None);

        for (sort, of) in [("history", HISTORY), ("proof", PROOF), ("disclosure", DISCLOSURES)] {
            let content = chance.change(&files(run)[of]);
            add(
                format!("fuzz-{sort}-{n}"),
                resigned(run, |files, _| drop(files.insert(of.into(), content))),
                None,
            );
        }

        let noted = |note: Vec<u8>| resigned(run, |files, _| drop(files.insert(CHECKPOINT.into(), note)));
        add(format!("fuzz-note-{n}"), noted(chance.change(note.as_bytes())), None);
        // The text changed and signed by the log's own key.
        if let Ok(text) = String::from_utf8(chance.change(format!("{text}\n").as_bytes()))
            && let Ok(note) = kernel::note::sign(&text, ORIGIN, &key(1))
        {
            add(format!("fuzz-checkpoint-{n}"), noted(note.into_bytes()), None);
        }

        add(format!("fuzz-archive-{n}"), chance.change(run), None);
        let trust_file = chance.change(trust().to_json().as_bytes());
        add(format!("fuzz-trust-{n}"), run.to_vec(), Some(trust_file));
    }
}
