//! The policies that the project ships: the default one, case by case, and the example for a tenant.

use crate::support::{NOW_MS, SCOPE, input, key, ring, root, signed, sources};
use governor::policy::bundle::{bundle_build, bundle_sign};
use governor::policy::cases::{Case, cases_run};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::engine::{SecondOpinion, decide};
use governor::policy::{CODES, Problem, Published, Warm, publish_check};
use kernel::verdict::Effect;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn platform() -> Published {
    let (manifest, files) = platform_sources().unwrap();
    let bytes =
        bundle_sign(&bundle_build(&manifest, &files).unwrap(), "k2", PLATFORM_SCOPE, &key(2)).unwrap();
    published(publish_check(&bytes, &ring(), PLATFORM_SCOPE, None, NOW_MS))
}

fn example(path: &str) -> Published {
    let (manifest, files) = sources(path);
    published(publish_check(&signed(&manifest, &files), &ring(), SCOPE, None, NOW_MS))
}

fn published(result: Result<Published, Vec<Problem>>) -> Published {
    result.unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Runs the cases on the machine, and asks the interpreter about each.
fn answers(Published { bundle, compiled, .. }: &Published, cases: &[Case]) {
    assert_eq!(cases_run(compiled, cases), Vec::<String>::new());
    let (mut second, mut warm) = (SecondOpinion::new(bundle).unwrap(), Warm::new());
    for case in cases {
        let prepared = case.input.prepare().unwrap();
        let verdict = compiled.explain(&prepared, &mut warm);
        assert_eq!(second.objection(&prepared, &verdict), None, "{}", case.name);
    }
}

fn cases(path: &str) -> Vec<Case> {
    let text = std::fs::read(root().join("contracts/policies").join(path).join("cases.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn the_default_policy_answers_every_case() {
    answers(&platform(), &cases("platform"));
}

#[test]
fn every_example_of_a_tenants_policy_answers_every_case() {
    let folders = std::fs::read_dir(root().join("contracts/policies/examples")).unwrap();
    let names: Vec<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name == "tenant-strict"));
    for name in names {
        let path = format!("examples/{name}");
        answers(&example(&path), &cases(&path));
    }
}

#[test]
fn the_sources_in_the_binary_are_the_ones_in_the_tree() {
    assert_eq!(platform_sources().unwrap(), sources("platform"));
}

#[test]
fn the_cases_reach_every_reason_and_the_reasons_are_all_known() {
    let known: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    let reached: BTreeSet<String> =
        cases("platform").into_iter().filter_map(|case| case.expect.reasons).flatten().collect();
    for code in known.iter().filter(|code| !code.starts_with("policy.")) {
        assert!(reached.contains(*code), "no case of the default policy ends in {code}");
    }
    for reason in &reached {
        assert!(known.contains(reason.as_str()), "{reason} stands in no table of codes");
    }
}

fn write(now_ms: i64) -> Value {
    json!({
        "action": "flows.tool.call",
        "principal": {"roles": ["service"]},
        "resource": {"attributes": {
            "effect_class": "IDEMPOTENT", "host": "a.example", "hosts_allowed": ["a.example"], "fields": ["state"],
        }},
        "now_ms": now_ms,
    })
}

#[test]
fn a_tenant_can_only_be_stricter_than_the_platform() {
    let (platform, tenant) = (platform().compiled, example("examples/tenant-strict").compiled);
    // Monday 18 January 2027, 10:00 and 03:00 UTC.
    let (day, night) = (1_800_266_400_000, 1_800_241_200_000);
    let both = [&platform, &tenant];
    let waits = decide(&both, &input(write(day)));
    assert_eq!((waits.effect, waits.obligations.approvals), (Effect::Hitl, 1));
    let denied = decide(&both, &input(write(night)));
    assert_eq!(denied.effect, Effect::Deny);
    // The platform would have waited for somebody; that is no reason for the denial.
    assert_eq!(denied.reasons, BTreeSet::from(["hours.outside_working_hours".to_owned()]));
    assert_eq!(waits.reasons, BTreeSet::from(["approval.write_effect".to_owned()]));
    assert_eq!(decide(&[&tenant, &platform], &input(write(night))), denied);
    // The tenant's ALLOW does not lift the platform's DENY.
    let nobody = decide(&both, &input(json!({"principal": {"roles": []}})));
    assert_eq!(nobody.effect, Effect::Deny);
}

#[test]
fn no_policy_at_all_denies() {
    let verdict = decide(&[], &input(json!({})));
    assert_eq!((verdict.effect, verdict.reasons.contains("policy.undefined")), (Effect::Deny, true));
}

#[test]
fn a_policy_past_its_end_denies_everything() {
    let platform = platform().compiled;
    let allowed = input(json!({}));
    assert_eq!(decide(&[&platform], &allowed).effect, Effect::Allow);
    let verdict = decide(&[&platform], &input(json!({"now_ms": platform.not_after_ms()})));
    assert_eq!(
        (verdict.effect, verdict.reasons),
        (Effect::Deny, BTreeSet::from(["policy.stale".to_owned()]))
    );
}
