//! Who may write what: permits, refusals, leases and genesis.

use super::bed::{
    Bed, DONE, IDLE, ITEM, NOTED, OTHER, authority, delete, expect, id, item, job, new, outcome, tenant_id,
};
use super::refused;
use kernel::changeset::{Changeset, NewJob, Operation, Put};
use kernel::permit::{Grant, PermitError, permit_pair};
use kernel::{Authority, Fact};
use std::sync::Arc;
use store::CommitError;
use tokio::task::JoinSet;

/// Whatever it says, a permit, refusal or lease of another pair opens nothing here.
pub async fn a_permit_of_another_governor_is_refused(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let (stranger, _) = permit_pair();
    let draft = || bed.draft(vec![new("rec_a")], "run_a");
    let foreign = Changeset::under(vec![stranger.permit(bed.grant(&tenant))], draft()).unwrap();
    refused!(bed.store().commit(foreign).await, CommitError::Permit(PermitError::Foreign));
    // Neither alone nor behind a good one.
    let second = vec![bed.permit(&tenant), stranger.permit(bed.grant(&tenant))];
    let foreign = Changeset::under(second, draft()).unwrap();
    refused!(bed.store().commit(foreign).await, CommitError::Permit(PermitError::Foreign));
    let fact = Fact { kind: "governor.decided", ..bed.fact("run_a") };
    let draft = kernel::Draft { facts: vec![fact], ..bed.draft(vec![], "run_a") };
    let foreign = Changeset::refused(stranger.refusal(tenant.clone(), authority(), None), draft).unwrap();
    refused!(bed.store().commit(foreign).await, CommitError::Permit(PermitError::Foreign));
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
}

/// Up to its last millisecond by the engine's clock, whatever the draft says of the time.
pub async fn a_permit_serves_until_it_expires(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let expires_at_ms = bed.now_ms() + 10;
    let changeset = |name: &str| {
        let permit = bed.mint.permit(Grant { expires_at_ms, ..bed.grant(&tenant) });
        Changeset::under(vec![permit], bed.draft(vec![new(name)], "run_a")).unwrap()
    };
    let (last, late) = (changeset("rec_a"), changeset("rec_b"));
    bed.clock.advance_ms(10);
    bed.store().commit(last).await.unwrap();
    bed.clock.advance_ms(1);
    refused!(bed.store().commit(late).await, CommitError::Permit(PermitError::Expired));
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (Some(1), None));
}

/// Puts and deletes of other kinds are refused, whatever else the changeset holds.
pub async fn only_permitted_kinds_are_written(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    let under = |writes: &'static [&'static str], operations| {
        let permit = bed.mint.permit(Grant { writes, ..bed.grant(&tenant) });
        Changeset::under(vec![permit], bed.draft(operations, "run_a")).unwrap()
    };
    for (writes, operations) in [
        (&[OTHER][..], vec![new("rec_b")]),
        (&[OTHER], vec![delete("rec_a", 1)]),
        (&[], vec![new("rec_b")]),
        // Neither a prefix nor an extension of a kind is the kind.
        (&["test.ite"], vec![new("rec_b")]),
        (&["test.item.more"], vec![new("rec_b")]),
    ] {
        match bed.store().commit(under(writes, operations)).await {
            Err(CommitError::OutsidePermit(kind)) => assert_eq!(kind, ITEM),
            other => panic!("{writes:?}: {other:?}"),
        }
    }
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (Some(1), None));
    bed.store().commit(under(&[], vec![expect("rec_a", Some(1))])).await.unwrap();
}

/// The same for facts.
pub async fn only_permitted_facts_are_stated(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let permit = || bed.mint.permit(Grant { facts: &[DONE], ..bed.grant(&tenant) });
    let mut draft = bed.draft(vec![new("rec_a")], "run_a");
    draft.fact(Fact { kind: NOTED, ..bed.fact("run_a") });
    let changeset = Changeset::under(vec![permit()], draft).unwrap();
    match bed.store().commit(changeset).await {
        Err(CommitError::OutsidePermit(kind)) => assert_eq!(kind, NOTED),
        other => panic!("{other:?}"),
    }
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
    let changeset = Changeset::under(vec![permit()], bed.draft(vec![new("rec_a")], "run_a")).unwrap();
    bed.store().commit(changeset).await.unwrap();
}

/// A planner commits for many: what any of its permits allows is allowed, and the facts name the first one's actor.
pub async fn several_permits_add_up_and_the_first_speaks(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let by = |actor: &str, writes, facts| {
        let authority = Authority { actor: id(actor), ..authority() };
        bed.mint.permit(Grant { authority, writes, facts, ..bed.grant(&tenant) })
    };
    let permits = vec![by("prn_first", &[ITEM], &[DONE]), by("prn_second", &[OTHER], &[NOTED])];
    let other = Operation::Put(Put { kind: OTHER, ..item("rec_b") });
    let mut draft = bed.draft(vec![new("rec_a"), other], "run_a");
    draft.fact(Fact { kind: NOTED, ..bed.fact("run_a") });
    bed.store().commit(Changeset::under(permits, draft).unwrap()).await.unwrap();
    bed.settle().await;
    for row in &bed.log_checked(&tenant).await[1..] {
        assert_eq!(kernel::fact::read(&row.leaf).unwrap().actor, "prn_first");
    }
    // One expired among them and nothing happens.
    let expired = bed.mint.permit(Grant { expires_at_ms: bed.now_ms() - 1, ..bed.grant(&tenant) });
    let draft = bed.draft(vec![new("rec_c")], "run_a");
    let changeset = Changeset::under(vec![bed.permit(&tenant), expired], draft).unwrap();
    refused!(bed.store().commit(changeset).await, CommitError::Permit(PermitError::Expired));
    assert_eq!(bed.rev(&tenant, "rec_c").await, None);
}

/// It may write any kind, once per tenant, also when two try at once.
pub async fn genesis_happens_once(bed: Bed) {
    let tenant = tenant_id("a");
    let any = Operation::Put(Put { kind: "access.principal", ..item("rec_a") });
    bed.genesis(&tenant, vec![any]).await.unwrap();
    bed.settle().await;
    refused!(bed.genesis(&tenant, vec![new("rec_b")]).await, CommitError::Log);
    assert_eq!(bed.rev(&tenant, "rec_b").await, None);
    assert_eq!(bed.size(&tenant).await, 1);
    assert!(bed.store().record(&tenant, "access.principal", &id("rec_a")).await.unwrap().is_some());
    let head = bed.store().head(&tenant).await.unwrap().unwrap();
    assert_eq!(head.origin, "writ.test/local/ten_a/1");
    let bed = Arc::new(bed);
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let bed = bed.clone();
        callers.spawn(async move { bed.genesis(&tenant_id("b"), vec![]).await });
    }
    let results = callers.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(CommitError::Log))), "{results:?}");
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant_id("b")).await.len(), 1);
    assert_eq!(bed.store().tenants().await.unwrap(), [tenant_id("a"), tenant_id("b")]);
}

/// Neither a permit nor a refusal creates a tenant.
pub async fn there_is_no_log_without_genesis(bed: Bed) {
    let nobody = tenant_id("nobody");
    refused!(bed.commit(&nobody, vec![new("rec_a")]).await, CommitError::Log);
    let fact = Fact { kind: "governor.decided", ..bed.fact("run_a") };
    let draft = kernel::Draft { facts: vec![fact], ..bed.draft(vec![], "run_a") };
    let refusal = bed.mint.refusal(nobody.clone(), authority(), None);
    refused!(bed.store().commit(Changeset::refused(refusal, draft).unwrap()).await, CommitError::Log);
    // A genesis that fails creates none either.
    refused!(bed.genesis(&nobody, vec![delete("rec_a", 1)]).await, CommitError::Conflict { .. });
    bed.settle().await;
    assert_eq!(bed.store().head(&nobody).await.unwrap(), None);
    assert_eq!(bed.store().tenants().await.unwrap(), []);
    assert_eq!(bed.rev(&nobody, "rec_a").await, None);
    bed.genesis(&nobody, vec![]).await.unwrap();
}

/// Its fact, the approval it waits for, an outcome, and nothing that the act itself would have written.
pub async fn a_refusal_records_itself_alone(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let refused = |operations, facts: &[&'static str]| {
        let facts = facts.iter().map(|kind| Fact { kind, ..bed.fact("run_a") }).collect();
        let refusal = bed.mint.refusal(tenant.clone(), authority(), Some([3; 32]));
        let draft = kernel::Draft { facts, ..bed.draft(operations, "run_a") };
        Changeset::refused(refusal, draft)
    };
    let approval = Operation::Put(Put { kind: "governor.approval", ..item("apr_a") });
    let operations = vec![approval, Operation::Outcome(outcome("key")), expect("rec_a", None)];
    let facts = ["governor.decided", "governor.approval.requested", "access.traffic.refused"];
    bed.store().commit(refused(operations, &facts).unwrap()).await.unwrap();
    bed.settle().await;
    assert!(bed.store().record(&tenant, "governor.approval", &id("apr_a")).await.unwrap().is_some());
    let leaves = bed.log_checked(&tenant).await;
    let leaf = kernel::fact::read(&leaves[1].leaf).unwrap();
    assert_eq!(leaf.args_commitment, Some(&*kernel::hex::encode(&[3; 32])));
    // A fact of the act itself would say that it happened.
    for kind in [DONE, "flows.run.created", "governor.approval.granted"] {
        let changeset = refused(vec![], &["governor.decided", kind]).unwrap();
        refused!(bed.store().commit(changeset).await, CommitError::OutsidePermit(_));
    }
    assert!(refused(vec![new("rec_a")], &["governor.decided"]).is_err());
    bed.settle().await;
    assert_eq!(bed.size(&tenant).await, 4);
}

/// A completion writes what its kind of job may write, for the tenant and under the authority it was enqueued with.
pub async fn a_lease_covers_its_kind_alone(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let idle = NewJob { kind: &IDLE, ..job("job_idle", 0) };
    bed.done(&tenant, vec![Operation::Job(job("job_work", 0)), Operation::Job(idle)]).await;
    let mut leases = bed.claim(2).await;
    leases.sort_by_key(|lease| lease.kind.name);
    let (work, idle) = (leases.pop().unwrap(), leases.pop().unwrap());
    assert_eq!((work.kind.name, idle.kind.name), ("test.work", "test.idle"));
    refused!(bed.complete(idle, vec![new("rec_a")]).await, CommitError::OutsidePermit(_));
    bed.complete(work, vec![new("rec_b")]).await.unwrap();
    bed.settle().await;
    let leaves = bed.log_checked(&tenant).await;
    let leaf = kernel::fact::read(&leaves.last().unwrap().leaf).unwrap();
    assert_eq!((leaf.actor, &*leaf.act, &*leaf.trace), ("prn_alice", "test.item.change", "trace-1"));
    assert_eq!((bed.rev(&tenant, "rec_a").await, bed.rev(&tenant, "rec_b").await), (None, Some(1)));
    assert_eq!(
        bed.store().jobs(&tenant, 10).await.unwrap().len(),
        1,
        "the refused completion completed nothing"
    );
}

/// Refused for whatever reason: nothing written, no fact, no gap in a stream, and the next one goes ahead.
pub async fn a_refused_changeset_leaves_nothing(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let (stranger, _) = permit_pair();
    for round in 0..3 {
        let draft = bed.draft(vec![new("rec_x")], "run_s");
        let foreign = Changeset::under(vec![stranger.permit(bed.grant(&tenant))], draft).unwrap();
        refused!(bed.store().commit(foreign).await, CommitError::Permit(_));
        let mut draft = bed.draft(vec![new("rec_x")], "run_s");
        draft.fact(Fact { kind: "test.other.done", ..bed.fact("run_s") });
        refused!(bed.draft_commit(&tenant, draft).await, CommitError::OutsidePermit(_));
        let draft = bed.draft(vec![new("rec_x"), delete("rec_y", 9)], "run_s");
        refused!(bed.draft_commit(&tenant, draft).await, CommitError::Conflict { .. });
        let draft = bed.draft(vec![new(&format!("rec_{round}"))], "run_s");
        bed.draft_commit(&tenant, draft).await.unwrap();
    }
    bed.settle().await;
    assert_eq!(bed.rev(&tenant, "rec_x").await, None);
    let stream = bed.store().stream(&tenant, &id("run_s"), 0, 10).await.unwrap();
    let numbers: Vec<u64> =
        stream.iter().map(|row| kernel::fact::read(&row.leaf).unwrap().stream_n).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(bed.log_checked(&tenant).await.len(), 4);
}
