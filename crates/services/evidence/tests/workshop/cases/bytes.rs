//! Tampering without any key: bytes, archives, files.

use super::*;

/// Nobody's keys, one byte at a time.
pub(super) fn bytes(cases: &mut Cases, whole: &[u8]) {
    let flipped = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let mut at = 0;
    for (name, content) in files(whole) {
        let manifest = name == MANIFEST;
        let header = [
            ("name", 0, "evidence.archive_"),
            ("mode", 103, "evidence.archive_malformed"),
            ("size", 134, "evidence.archive_malformed"),
            ("sum", 150, "evidence.archive_malformed"),
            ("type", 156, "evidence.archive_entry"),
            ("link", 160, "evidence.archive_malformed"),
            ("magic", 260, "evidence.archive_malformed"),
            ("prefix", 400, "evidence.archive_malformed"),
        ];
        for (what, offset, code) in header {
            // A flipped letter of the name may break the order first, or only the sum.
            let code = match (what, evidence::verify(&flipped(at + offset), &trust(), None).failure) {
                ("name", Some(failure)) if failure.reason.code().starts_with(code) => failure.reason.code(),
                ("name", _) => "a name that went unnoticed",
                _ => code,
            };
            cases.bad(&format!("flip-{name}-header-{what}").replace('/', "-"), flipped(at + offset), code);
        }
        let from = at + 512;
        for (what, offset) in [("first", 0), ("middle", content.len() / 2), ("last", content.len() - 1)] {
            let code = match (manifest, what) {
                (false, _) => "evidence.file_digest",
                // A flipped base64 letter of the payload breaks the signature before anything is parsed.
                (true, "middle") => "evidence.manifest_signature",
                (true, _) => "evidence.manifest_malformed",
            };
            cases.bad(&format!("flip-{name}-{what}").replace('/', "-"), flipped(from + offset), code);
        }
        let end = from + content.len().next_multiple_of(512);
        if end > from + content.len() {
            cases.bad(
                &format!("flip-{name}-padding").replace('/', "-"),
                flipped(end - 1),
                "evidence.archive_malformed",
            );
        }
        at = end;
    }
    for (what, cut) in [
        ("all", 0),
        ("header", 100),
        ("first-file", 700),
        ("half", whole.len() / 2),
        ("end", whole.len() - 1024),
        ("last-block", whole.len() - 512),
        ("last-byte", whole.len() - 1),
    ] {
        cases.bad(&format!("cut-{what}"), whole[..cut].to_vec(), "evidence.archive_malformed");
    }
    cases.bad("flip-end", flipped(whole.len() - 1), "evidence.archive_malformed");
    for (what, more) in
        [("zero", vec![0]), ("block", vec![0; 512]), ("bytes", b"more".to_vec()), ("itself", whole.to_vec())]
    {
        cases.bad(&format!("appended-{what}"), [whole, &more].concat(), "evidence.archive_malformed");
    }
    cases.bad("prepended", [b"\n", whole].concat(), "evidence.archive_malformed");
    cases.bad("no-archive", b"PK\x03\x04 this is a zip".repeat(100), "evidence.archive_malformed");
}

/// Nobody's keys, another archive of the same or other files.
pub(super) fn archives(cases: &mut Cases, run: &[u8]) {
    let forged = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut all = entries(run);
        change(&mut all);
        tar(&all)
    };
    let entry = |name: &str, kind: u8| Entry { name: name.into(), kind, content: vec![], link: vec![] };
    cases.add("archive-unchanged", forged(&|_| ()), None);
    for (name, text) in [
        ("parent", "../x"),
        ("absolute", "/etc/passwd"),
        ("inner-parent", "policy/../x"),
        ("dot", "./x"),
        ("upper", "X"),
        ("drive", "c:x"),
        ("space", "a b"),
        ("empty-part", "a//b"),
        ("trailing-slash", "a/"),
        ("unicode", "a\u{301}"),
        ("control", "a\u{1}"),
        ("backslash", "a\\b"),
    ] {
        cases.bad(
            &format!("name-{name}"),
            forged(&|all| all.push(entry(text, b'0'))),
            "evidence.archive_name",
        );
    }
    for (name, kind) in [
        ("hard-link", b'1'),
        ("symlink", b'2'),
        ("device", b'3'),
        ("block-device", b'4'),
        ("folder", b'5'),
        ("fifo", b'6'),
        ("contiguous", b'7'),
        ("pax", b'x'),
        ("pax-global", b'g'),
        ("gnu-long-name", b'L'),
        ("gnu-long-link", b'K'),
        ("sparse", b'S'),
        ("old", 0),
    ] {
        cases.bad(
            &format!("entry-{name}"),
            forged(&|all| all.push(entry("zz", kind))),
            "evidence.archive_entry",
        );
    }
    let symlink = forged(&|all| {
        all[0].kind = b'2';
        all[0].link = b"/etc/passwd".to_vec();
        all[0].content.clear();
    });
    cases.bad("symlink-for-a-file", symlink, "evidence.archive_entry");
    cases.bad(
        "link-name-on-a-file",
        forged(&|all| all[0].link = b"x".to_vec()),
        "evidence.archive_malformed",
    );
    cases.bad("reversed", forged(&|all| all.reverse()), "evidence.archive_name");
    let twice = |name: &'static str| {
        forged(&move |all: &mut Vec<Entry>| {
            let at = all.iter().position(|entry| entry.name == name.as_bytes()).unwrap_or_default();
            let content = all[at].content.clone();
            all.insert(at, Entry { name: name.into(), kind: b'0', content, link: vec![] });
        })
    };
    cases.bad("two-manifests", twice(MANIFEST), "evidence.archive_name");
    cases.bad("two-facts", twice(FACTS), "evidence.archive_name");
    cases.bad(
        "hidden-behind-the-name",
        forged(&|all| all[0].name = b"checkpoint\0x".to_vec()),
        "evidence.archive_malformed",
    );
    let many: Vec<Entry> = (0..300).map(|n| entry(&format!("f{n:03}"), b'0')).collect();
    cases.bad("many-files", tar(&many), "evidence.archive_too_large");
    cases.bad("no-files", tar(&[]), "evidence.file_missing");
}

/// Nobody's keys, other files under the old manifest.
pub(super) fn files_changed(cases: &mut Cases, run: &[u8]) {
    for name in [CHECKPOINT, DISCLOSURES, FACTS, HISTORY, PROOF, README, SUMMARY, MANIFEST] {
        cases.bad(
            &format!("without-{name}"),
            changed(run, |files| drop(files.remove(name))),
            "evidence.file_missing",
        );
        let code = if name == MANIFEST { "evidence.manifest_malformed" } else { "evidence.file_digest" };
        cases.bad(
            &format!("emptied-{name}"),
            changed(run, |files| drop(files.insert(name.into(), vec![]))),
            code,
        );
    }
    let policy =
        |files: &Files| files.keys().find(|name| name.starts_with("policy/")).cloned().unwrap_or_default();
    cases.bad(
        "without-the-policy",
        changed(run, |files| drop(files.remove(&policy(files)))),
        "evidence.file_missing",
    );
    cases.bad(
        "extra-file",
        changed(run, |files| drop(files.insert("extra".into(), vec![1]))),
        "evidence.file_unexpected",
    );
    cases.bad(
        "extra-policy",
        changed(run, |files| drop(files.insert(format!("policy/{}.bundle", "0".repeat(64)), vec![1]))),
        "evidence.file_unlisted",
    );
    for name in ["policy/x.bundle", "policy/policy", "policy/ABCD.bundle", "manifest.json", "facts.jsonl.bak"]
    {
        let bundle = changed(run, |files| drop(files.insert(name.to_lowercase(), vec![1])));
        cases.bad(
            &format!("extra-{}", name.replace('/', "-").to_lowercase()),
            bundle,
            "evidence.file_unexpected",
        );
    }
    let lines = |change: &dyn Fn(&mut Vec<String>)| changed(run, |files| edit_lines(files, change));
    cases.bad("fact-dropped", lines(&|lines| drop(lines.remove(1))), "evidence.file_digest");
    cases.bad("fact-tail-dropped", lines(&|lines| drop(lines.pop())), "evidence.file_digest");
    cases.bad("file-facts-swapped", lines(&|lines| lines.swap(0, 1)), "evidence.file_digest");
    cases.bad("fact-doubled", lines(&|lines| lines.insert(1, lines[0].clone())), "evidence.file_digest");
    cases.bad("fact-edited", lines(&|lines| swap_line(lines, 0, "ALLOW", "DENY")), "evidence.file_digest");
}
