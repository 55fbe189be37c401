//! Role × act × scope, all of it, against the real decision.
//!
//! What is expected is worked out here a second time, from the data of the shipped policy alone: an act is granted if a role
//! that has it holds where its target stands. Other rules of the policy may refuse it all the same; what is looked at is
//! whether it is refused for want of a role, or by the limits of a key.

use crate::house::House;
use act::{KeyLimits, Place, Principal, PrincipalKind, Rights, Target, Verb};
use futures::FutureExt as _;
use governor::Question;
use kernel::Id;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SHIPPED: &str = include_str!("../../../../../contracts/policies/platform/data.json");

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

/// A verb of this name, which does nothing.
fn verb(act: &str) -> Verb {
    Verb {
        act: Box::leak(act.to_owned().into_boxed_str()),
        summary: "",
        args: || json!({}),
        writes: &[],
        facts: &["test.done"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, _, ctx| async move { Ok(Target::of("test.thing", ctx.tenant.id())) }.boxed()),
        plan: Arc::new(|_, _, stamp| {
            async move { Ok(act::Plan { draft: stamp.draft(), outcome: Value::Null }) }.boxed()
        }),
    }
}

fn place(project: Option<&str>) -> Option<Place> {
    project.map(|project| Place {
        project: id(project),
        workspace: id("wks_live"),
        environment: "production",
    })
}

/// Why the act is refused for whoever has these rights, as far as rights go.
fn refused(house: &House, verb: &Verb, roles: &[&str], rights: Rights, at: Option<&str>) -> BTreeSet<String> {
    let mut ctx = house.as_if("prn_zoe", PrincipalKind::Person, &[]);
    ctx.principal =
        Principal { roles: roles.iter().map(|role| (*role).to_owned()).collect(), rights, ..ctx.principal };
    let target = Target::of("test.thing", ctx.tenant.id()).at(place(at));
    let ruling = house.harness.governor().decide(&Question {
        ctx: &ctx,
        verb,
        target: &target,
        args: &json!({}),
        args_digest: [0; 32],
        granted: None,
        closing: false,
        now_ms: house.clock_ms(),
    });
    let mut reasons: BTreeSet<String> = ruling.verdict.reasons.into_iter().collect();
    reasons.retain(|reason| {
        ["access.role_missing", "access.key_scope", "policy.failed"].contains(&reason.as_str())
    });
    reasons
}

fn shipped() -> (BTreeMap<String, BTreeSet<String>>, Vec<String>) {
    let data: Value = serde_json::from_str(SHIPPED).unwrap();
    let config = &data["writ"]["config"];
    (
        serde_json::from_value(config["roles"].clone()).unwrap(),
        serde_json::from_value(config["tenant_roles"].clone()).unwrap(),
    )
}

#[tokio::test]
async fn every_role_and_act_and_scope() {
    let house = House::new(71).await;
    house.policy("package writ\n");
    let (table, tenant_roles) = shipped();
    let acts: BTreeSet<&String> = table.values().flatten().collect();
    assert!(acts.len() > 50, "the table is the shipped one");
    let missing = |is_missing: bool| -> BTreeSet<String> {
        is_missing.then(|| "access.role_missing".to_owned()).into_iter().collect()
    };
    let (mut granted, mut denied) = (0, 0);
    for act in acts {
        let verb = verb(act);
        let in_a_tenant = tenant_roles.iter().any(|role| table[role].contains(act));
        for at in [None, Some("prj_desk"), Some("prj_attic")] {
            for (role, of_role) in &table {
                let has = of_role.contains(act);
                // In the whole tenant.
                let found = refused(&house, &verb, &[role], Rights::default(), at);
                assert_eq!(found, missing(!has), "{role} {act} in the tenant, at {at:?}");
                // In one project.
                let rights = Rights { projects: vec![(id("prj_desk"), role.clone())], ..Rights::default() };
                let reaches = at == Some("prj_desk");
                let found = refused(&house, &verb, &[], rights, at);
                assert_eq!(found, missing(!(has && reaches)), "{role} {act} in prj_desk, at {at:?}");
                granted += usize::from(has);
                denied += usize::from(!has);
            }
            // By a role of the tenant's own, which has this very act and was made by somebody who should not have.
            let own = BTreeMap::from([("rol_own".to_owned(), vec![act.clone()])]);
            let rights = Rights { own_roles: own.clone(), ..Rights::default() };
            let found = refused(&house, &verb, &["rol_own"], rights.clone(), at);
            assert_eq!(found, missing(!in_a_tenant), "an own role with {act}, at {at:?}");
            // Its definition gives nothing to whom it is not bound, nor in another project.
            assert_eq!(refused(&house, &verb, &[], rights, at), missing(true));
            let rights = Rights {
                own_roles: own,
                projects: vec![(id("prj_desk"), "rol_own".to_owned())],
                ..Rights::default()
            };
            let found = refused(&house, &verb, &[], rights, at);
            assert_eq!(found, missing(!(in_a_tenant && at == Some("prj_desk"))), "{act} {at:?}");
            // An own role that has another act.
            let other = BTreeMap::from([("rol_own".to_owned(), vec!["flows.run.stand".to_owned()])]);
            let rights = Rights { own_roles: other, ..Rights::default() };
            assert_eq!(refused(&house, &verb, &["rol_own"], rights, at), missing(true), "{act}");
        }
    }
    assert!(granted > 100 && denied > 100, "{granted} {denied}");
}

#[tokio::test]
async fn a_key_narrows_whatever_policy_says() {
    let house = House::new(72).await;
    // A policy that allows everything to everybody.
    house.policy("package writ\n\nrole_grants if true\n");
    let noun = "flows.run.*";
    for (act, acts, project, at, good) in [
        ("flows.run.start", None, None, None, true),
        ("flows.run.start", Some(noun), None, None, true),
        ("flows.run.start", Some("flows.run.start"), None, None, true),
        ("flows.run.cancel", Some("flows.run.start"), None, None, false),
        ("flows.workflow.publish", Some(noun), None, None, false),
        ("flows.run.start", None, Some("prj_desk"), None, false),
        ("flows.run.start", None, Some("prj_desk"), Some("prj_desk"), true),
        ("flows.run.start", None, Some("prj_desk"), Some("prj_attic"), false),
        ("flows.run.start", Some(noun), Some("prj_desk"), Some("prj_desk"), true),
        ("flows.run.start", Some("flows.run.cancel"), Some("prj_desk"), Some("prj_desk"), false),
    ] {
        let key = KeyLimits { acts: acts.map(|act| vec![act.to_owned()]), project: project.map(id) };
        let rights = Rights { key, ..Rights::default() };
        let found = refused(&house, &verb(act), &["tenant_admin"], rights, at);
        let expected: BTreeSet<String> = (!good).then(|| "access.key_scope".to_owned()).into_iter().collect();
        assert_eq!(found, expected, "{act} {acts:?} {project:?} {at:?}");
    }
}
