//! Every abuse case that the product holds against has a test that bears its id, and a page says which.
//!
//! `docs/abuse-cases.tsv` lists the cases: id, state, what is tried, what is answered. A test bears the ids of the cases
//! that it tries at the front of its name: `b01_the_ids_of_another_tenant_do_not_exist`, `e01_e02_…`. The state is `held`
//! (there is such a test), `due` (what it is about is built, the test is not), or what has to be built before the case can
//! be tried. From the list and the tests `cargo xtask abuse` writes `docs/abuse-cases.md`; this rule fails when a case that
//! was held loses its test, when a test bears an id that nobody listed, and when the page is not what the tests say.

use std::collections::BTreeMap;

use super::{Finding, House};
use crate::tree::Tree;

/// The list.
const LIST: &str = "docs/abuse-cases.tsv";
/// The page.
pub(crate) const PAGE: &str = "docs/abuse-cases.md";
/// The first letter of an id, and what such cases are about.
const AREAS: [(char, &str); 9] = [
    ('A', "Keys, tokens and sessions"),
    ('B', "Tenants and rights"),
    ('C', "Policy and parsers"),
    ('D', "The edge"),
    ('E', "Connectors, webhooks and what goes out"),
    ('F', "Bundles and archives"),
    ('G', "The log, the ledger and acting once"),
    ('H', "Keys, secrets and nodes"),
    ('I', "Agents, tools and models"),
];

struct Case<'a> {
    id: &'a str,
    state: &'a str,
    input: &'a str,
    answer: &'a str,
}

/// A test and where it stands.
struct Test<'a> {
    name: &'a str,
    path: &'a str,
}

pub(super) fn check(house: &House) -> Vec<Finding> {
    let tree = &house.tree;
    if !tree.exists(LIST) {
        return Vec::new();
    }
    let cases = match cases(tree) {
        Ok(cases) => cases,
        Err(finding) => return vec![finding],
    };
    let tests = tests(tree);
    let mut findings = Vec::new();
    for (id, borne_by) in &tests {
        if !cases.iter().any(|case| case.id == id) {
            let message = format!("`{}` bears the id {id}, which {LIST} does not list", borne_by[0].name);
            findings.push(Finding::new(borne_by[0].path, message));
        }
    }
    for case in &cases {
        match (case.state, tests.contains_key(case.id)) {
            ("held", false) => {
                let bears = test_prefix(case.id);
                let message = format!("{} is held, and no test's name begins with `{bears}`", case.id);
                findings.push(Finding::new(LIST, message));
            }
            ("held", true) | (_, false) => {}
            (_, true) => findings.push(Finding::new(LIST, format!("{} has a test: say `held`", case.id))),
        }
    }
    if tree.text(PAGE) != Some(&page(&cases, &tests)) {
        findings.push(Finding::new(PAGE, "it is not what the tests say; write it with `cargo xtask abuse`"));
    }
    findings
}

/// The page as the tests say it.
pub(crate) fn written(tree: &Tree) -> Result<String, String> {
    let cases = cases(tree).map_err(|finding| format!("{}: {}", finding.place, finding.message))?;
    Ok(page(&cases, &tests(tree)))
}

fn cases(tree: &Tree) -> Result<Vec<Case<'_>>, Finding> {
    let lines = tree.text(LIST).unwrap_or_default().lines().enumerate().skip(1);
    let cases = lines.map(|(at, line)| {
        let cells: Vec<&str> = line.split('\t').collect();
        match cells[..] {
            [id, state, input, answer] if is_id(id) && !state.is_empty() => {
                Ok(Case { id, state, input, answer })
            }
            _ => Err(Finding::new(
                format!("{LIST}:{}", at + 1),
                "a line is id, state, input and answer, with tabs between them",
            )),
        }
    });
    cases.collect()
}

fn is_id(text: &str) -> bool {
    let area = text.chars().next().is_some_and(|first| AREAS.iter().any(|(letter, _)| *letter == first));
    area && text.get(1..).is_some_and(|rest| rest.parse::<u8>().is_ok_and(|n| rest == n.to_string()))
}

/// What the names of a case's tests begin with, or continue with after another case's.
fn test_prefix(id: &str) -> String {
    let (letter, number) = id.split_at(1);
    format!("{}{number:0>2}_", letter.to_lowercase())
}

/// The ids that a test's name bears.
fn ids(name: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for part in name.split('_') {
        let bytes = part.as_bytes();
        let [letter @ b'a'..=b'i', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = bytes else { break };
        let number = (tens - b'0') * 10 + (ones - b'0');
        ids.push(format!("{}{number}", letter.to_ascii_uppercase() as char));
    }
    ids
}

/// Tests by the id that they bear.
fn tests(tree: &Tree) -> BTreeMap<String, Vec<Test<'_>>> {
    let mut found: BTreeMap<String, Vec<Test<'_>>> = BTreeMap::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.starts_with("crates/") && path.ends_with(".rs"))
    {
        let mut marked = false;
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[") {
                marked |= line.contains("test");
                continue;
            }
            let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = declared.and_then(|rest| rest.split('(').next())
                && marked
            {
                for id in ids(name) {
                    found.entry(id).or_default().push(Test { name, path });
                }
            }
            marked &= line.starts_with("//");
        }
    }
    found
}

fn page(cases: &[Case<'_>], tests: &BTreeMap<String, Vec<Test<'_>>>) -> String {
    let count = |wanted: fn(&str) -> bool| cases.iter().filter(|case| wanted(case.state)).count();
    let mut page = format!(
        "# Abuse cases\n\nWhat somebody may try, what is answered, and the test that tries it. Written by `cargo xtask abuse` from \
         [the list](abuse-cases.tsv)\nand the names of the tests; a case that loses its test fails the build.\n\n\
         {} cases: {} held by a test, {} due, {} that wait for something not built yet.\n",
        cases.len(),
        count(|state| state == "held"),
        count(|state| state == "due"),
        count(|state| state != "held" && state != "due"),
    );
    for (letter, about) in AREAS {
        page.push_str(&format!(
            "\n## {letter}: {about}\n\n| id | tried | answered | by |\n|---|---|---|---|\n"
        ));
        for case in cases.iter().filter(|case| case.id.starts_with(letter)) {
            let by = match (case.state, tests.get(case.id)) {
                (_, Some(tests)) => {
                    let links = tests.iter().map(|test| format!("[`{}`](../{})", test.name, test.path));
                    links.collect::<Vec<_>>().join("<br>")
                }
                ("due", None) => "**due**".to_owned(),
                (waits, None) => format!("waits for {waits}"),
            };
            page.push_str(&format!("| {} | {} | {} | {by} |\n", case.id, case.input, case.answer));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(list: &str, code: &str, page: Option<&str>) -> House {
        let list = format!("id\tstate\tinput\tanswer\n{list}");
        let mut files = vec![(LIST, list.as_str()), ("crates/x/y/tests/it/z.rs", code)];
        let written = written(&Tree::of(&files)).unwrap_or_default();
        files.push((PAGE, page.unwrap_or(&written)));
        House { tree: Tree::of(&files), crates: Vec::new(), long_files_before: Vec::new() }
    }

    #[test]
    fn a_case_has_the_test_that_its_state_says() {
        let both = "#[tokio::test]\n/// Why.\nasync fn a01_b12_it_is_refused() {}\n";
        for (list, code, expected) in [
            ("A1\theld\tx\ty\nB12\theld\tx\ty\n", both, &[][..]),
            ("A1\theld\tx\ty\nB12\tdue\tx\ty\n", both, &["B12 has a test: say `held`"]),
            ("A1\theld\tx\ty\n", both, &["`a01_b12_it_is_refused` bears the id B12, which"]),
            ("A1\theld\tx\ty\n", "fn a01_no_test() {}", &["no test's name begins with `a01_`"]),
            ("A1\tdue\tx\ty\nB12\tPostgres\tx\ty\n", "", &[]),
            ("A1\tx\ty\n", "", &["a line is id, state, input and answer"]),
            ("Z1\tdue\tx\ty\n", "", &["a line is id, state, input and answer"]),
        ] {
            let found = check(&house(list, code, None));
            assert_eq!(found.len(), expected.len(), "{list}: {found:?}");
            for (finding, expected) in found.iter().zip(expected) {
                assert!(finding.message.contains(expected), "{list}: {found:?}");
            }
        }
        assert_eq!(check(&house("A1\tdue\tx\ty\n", "", Some("old")))[0].place, PAGE);
    }

    #[test]
    fn names_bear_ids_at_their_front() {
        for (name, expected) in [
            ("a01_x", &["A1"][..]),
            ("e01_e02_e13_x", &["E1", "E2", "E13"]),
            ("a1_x", &[]),
            ("x_a01", &[]),
            ("b64_of_text", &["B64"]),
            ("i03", &["I3"]),
        ] {
            assert_eq!(ids(name), expected, "{name}");
        }
    }
}
