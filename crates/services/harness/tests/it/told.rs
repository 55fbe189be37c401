//! Whoever waits for an approval hears that it is closed, whatever the tenant's own policy has come to meanwhile.

use crate::house::House;
use act::{Ctx, Domain, Plan, PrincipalKind, Target, Verb};
use futures::FutureExt as _;
use governor::approval::{Approval, SETTLE};
use kernel::Id;
use serde_json::json;
use std::sync::Arc;
use store::Document as _;

/// Creating a principal waits for one person; telling may be done by anybody.
const RULES: &str = r#"package writ

required := {"reason": "approval.test", "tier": 1, "approvals": 1} if input.action == "access.principal.create"

role_grants if input.action == "test.wait.end"
"#;

/// The same, and nobody is told anything.
const SILENT: &str = r#"package writ

required := {"reason": "approval.test", "tier": 1, "approvals": 1} if input.action == "access.principal.create"
"#;

/// Ends a wait, by a fact in the approval's stream.
fn wait_end() -> Verb {
    fn approval(args: &serde_json::Value) -> Id {
        Id::parse(args["approval"].as_str().unwrap()).unwrap()
    }
    Verb {
        act: "test.wait.end",
        summary: "Ends a wait",
        args: || json!({}),
        writes: &[],
        facts: &["test.wait.ended"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|_, args, _| async move { Ok(Target::of(Approval::KIND, &approval(args))) }.boxed()),
        plan: Arc::new(|_, args, stamp| {
            async move {
                let id = approval(args);
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({}) };
                plan.draft.fact(stamp.fact("test.wait.ended", &id, (Approval::KIND, &id), json!({})));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

/// A house in which whoever asks for a principal is told how it ended.
async fn house(seed: u64) -> House {
    House::with(seed, |domains| {
        let create = domains[0].verbs.iter_mut().find(|verb| verb.act == "access.principal.create");
        create.unwrap().on_closed = Some("test.wait.end");
        domains.push(Domain {
            name: "test",
            kinds: &[],
            facts: &["test.wait.ended"],
            verbs: vec![wait_end()],
            routes: Vec::new(),
            jobs: Vec::new(),
            codes: &[],
        });
    })
    .await
}

fn service(house: &House) -> Ctx {
    house.as_if("prn_svc-test", PrincipalKind::Service, &["tenant_admin"])
}

/// A service asks for a principal, and Eve says no.
async fn denied(house: &House) -> Id {
    let args = json!({"name": "nobody", "kind": "person", "roles": []});
    let answer = house.act(&service(house), "access.principal.create", args).await.unwrap();
    let id = Id::parse(answer["waits"].as_str().unwrap()).unwrap();
    house.deny(&house.person("eve").await, &id).await.unwrap();
    id
}

async fn told(house: &House, id: &Id) -> bool {
    house.kinds(id).await.contains(&"test.wait.ended".to_owned())
}

#[tokio::test]
async fn a_tenants_own_policy_does_not_keep_a_service_waiting() {
    let house = house(51).await;
    house.policy(RULES);
    let id = denied(&house).await;
    house.harness.governor().tenant_block(&house.tenant);
    house.work().await;
    assert!(told(&house, &id).await);
    // It has its say in everything else that the service does.
    let args = json!({"name": "somebody", "kind": "person", "roles": []});
    let fault = house.act(&service(&house), "access.principal.create", args).await.unwrap_err();
    assert_eq!(fault.code, "policy.own_unusable");
    let end = house.act(&service(&house), "test.wait.end", json!({"approval": id})).await;
    assert_eq!(end.unwrap_err().code, "policy.own_unusable");
}

#[tokio::test]
async fn what_policy_refuses_to_tell_is_told_once_it_may_be() {
    let house = house(52).await;
    house.policy(SILENT);
    let id = denied(&house).await;
    house.work().await;
    assert!(!told(&house, &id).await);
    house.policy(RULES);
    house.clock.advance_ms(SETTLE.lease_ms);
    house.work().await;
    assert!(told(&house, &id).await);
}

#[tokio::test]
async fn it_is_not_tried_for_ever() {
    let house = house(53).await;
    house.policy(SILENT);
    let id = denied(&house).await;
    for _ in 0..=SETTLE.starts_max {
        house.work().await;
        house.clock.advance_ms(SETTLE.lease_ms);
    }
    assert!(!told(&house, &id).await);
    assert!(house.kinds(&id).await.contains(&"governor.approval.closed".to_owned()));
    assert_eq!(house.status(&id).await, "denied");
}

#[tokio::test]
async fn what_cannot_wait_opens_no_approval() {
    let house = house(54).await;
    house.policy("package writ\n\nrequired := {\"reason\": \"approval.test\", \"tier\": 1, \"approvals\": 1} if input.action == \"test.wait.end\"\n\nrole_grants if input.action == \"test.wait.end\"\n");
    let fault =
        house.act(&service(&house), "test.wait.end", json!({"approval": "apr_none"})).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.class), ("approval.cannot_wait", act::Class::Denied));
    let waiting = house.read(&house.person("eve").await, "approval_list", &[]).await.unwrap();
    assert_eq!(waiting["items"], json!([]));
}
