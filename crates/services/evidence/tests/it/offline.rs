//! The verifier over every case of the workshop.

use crate::workshop::cases::{Case, cases, story, story_run, story_whole};
use crate::workshop::{bundle, trust};
use evidence::{Report, Trust};
use std::collections::BTreeSet;

fn run(case: &Case) -> Result<Report, &'static str> {
    let trust = Trust::parse(&case.trust).map_err(|error| act::Coded::code(&error))?;
    Ok(evidence::verify(&case.bundle, &trust, case.held.as_deref()))
}

#[test]
fn f05_f06_g02_g05_every_case_comes_to_its_verdict() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (code, detail) = match run(&case) {
            Err(code) => (Some(code), String::new()),
            Ok(report) => match &report.failure {
                None => (None, String::new()),
                Some(failure) => (Some(failure.reason.code()), failure.to_string()),
            },
        };
        if code != case.expect {
            wrong.push(format!("{}: {code:?} instead of {:?}; {detail}", case.name, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_is_the_verdict_of_some_case() {
    let cases = cases();
    let seen: BTreeSet<&str> = cases.iter().filter_map(|case| case.expect).collect();
    let unseen: Vec<&str> =
        evidence::verify::CODES.iter().map(|(code, _)| *code).filter(|code| !seen.contains(code)).collect();
    assert_eq!(unseen, Vec::<&str>::new());
    let mut names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let twice: Vec<&str> = cases
        .iter()
        .filter(|case| !names.remove(case.name.as_str()))
        .map(|case| case.name.as_str())
        .collect();
    assert_eq!(twice, Vec::<&str>::new(), "names are files, so they are unique");
}

#[test]
fn g01_whatever_byte_is_flipped_or_cut_the_bundle_is_refused() {
    let log = story();
    let good = bundle(&story_run(&log));
    let trust = trust();
    assert!(evidence::verify(&good, &trust, None).ok());
    for at in 0..good.len() {
        let mut touched = good.clone();
        touched[at] ^= 1 << (at % 8);
        assert!(!evidence::verify(&touched, &trust, None).ok(), "byte {at}");
    }
    for at in (0..good.len()).step_by(7) {
        assert!(!evidence::verify(&good[..at], &trust, None).ok(), "cut to {at}");
    }
}

#[test]
fn a_report_says_what_was_seen() {
    let log = story();
    let report = evidence::verify(&bundle(&story_whole(&log)), &trust(), None);
    assert_eq!((report.facts, report.streams, report.size, report.disclosed), (18, 4, 18, 2));
    assert_eq!(report.subject, "log");
    assert!(report.checks.iter().all(|check| check.ok) && report.checks.len() == 13, "{:?}", report.checks);
    assert_eq!(report.policies_absent, Vec::<String>::new());
    assert!(report.not_proven.contains(&"truth_of_content".to_owned()));
    let report = evidence::verify(&bundle(&story_run(&log)), &trust(), None);
    assert_eq!((report.facts, report.streams, report.policies_absent.len()), (5, 2, 1));
}
