//! Leases: who may complete a job, for how long nobody else is given it, and that the epoch alone decides.

use super::bed::{Bed, KINDS, WORK, id, job, new};
use super::refused;
use kernel::changeset::{Changeset, Operation};
use kernel::{Lease, TenantId};
use std::collections::HashMap;
use std::sync::Arc;
use store::CommitError;
use tokio::task::JoinSet;

async fn leased(bed: &Bed, tenant: &TenantId) -> Lease {
    bed.done(tenant, vec![Operation::Job(job("job_a", 0))]).await;
    bed.claim(1).await.remove(0)
}

/// Until its very end; then the next claim has a higher epoch and one more start.
pub async fn a_lease_keeps_others_away_until_it_ends(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    bed.clock.advance_ms(WORK.lease_ms - 1);
    assert!(bed.claim(10).await.is_empty());
    bed.clock.advance_ms(1);
    let second = bed.claim(10).await.remove(0);
    assert_eq!((&second.id, second.epoch, second.starts), (&lease.id, 2, 2));
    assert_eq!((&second.body, &second.authority), (&lease.body, &lease.authority));
    bed.clock.advance_ms(WORK.lease_ms);
    let third = bed.claim(10).await.remove(0);
    assert_eq!((third.epoch, third.starts), (3, 3));
}

/// By its kind's time from the moment of renewing.
pub async fn a_renewed_lease_lasts_longer(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    for _ in 0..5 {
        bed.clock.advance_ms(WORK.lease_ms - 1);
        assert!(bed.store().job_renew(&lease).await.unwrap());
        assert!(bed.claim(10).await.is_empty());
    }
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), Some(bed.now_ms() + WORK.lease_ms));
    // A little late, and somebody has looked for work, but took none.
    bed.clock.advance_ms(WORK.lease_ms + 1);
    assert!(bed.claim(0).await.is_empty());
    assert!(bed.store().job_renew(&lease).await.unwrap());
    assert!(bed.claim(10).await.is_empty());
    bed.complete(lease, vec![]).await.unwrap();
}

/// Neither after a later claim nor after completion, and trying does not disturb the new holder.
pub async fn a_lost_lease_is_not_renewed(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    bed.clock.advance_ms(WORK.lease_ms);
    let second = bed.claim(1).await.remove(0);
    let until_ms = bed.store().jobs_next_due_ms().await.unwrap();
    bed.clock.advance_ms(10);
    assert!(!bed.store().job_renew(&lease).await.unwrap());
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), until_ms);
    assert!(bed.store().job_renew(&second).await.unwrap());
    bed.complete(second, vec![]).await.unwrap();
    assert!(!bed.store().job_renew(&lease).await.unwrap());
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), None);
}

/// With its writes and its fact, and nothing of it comes again.
pub async fn a_completion_deletes_the_job(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    bed.complete(lease, vec![new("rec_a")]).await.unwrap();
    assert_eq!(bed.store().jobs(&tenant, 10).await.unwrap(), []);
    bed.clock.advance_ms(WORK.lease_ms * 10);
    assert!(bed.claim(10).await.is_empty());
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(1));
}

/// A worker that was away too long: nothing of its completion is written, and the new holder's stands.
pub async fn a_stale_epoch_completes_nothing(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let stale = leased(&bed, &tenant).await;
    bed.clock.advance_ms(WORK.lease_ms);
    let second = bed.claim(1).await.remove(0);
    refused!(bed.complete(stale, vec![new("rec_stale")]).await, CommitError::Fenced);
    assert_eq!(bed.store().jobs(&tenant, 10).await.unwrap().len(), 1);
    bed.clock.advance_ms(WORK.lease_ms);
    let third = bed.claim(1).await.remove(0);
    bed.complete(third, vec![new("rec_a")]).await.unwrap();
    refused!(bed.complete(second, vec![new("rec_stale")]).await, CommitError::Fenced);
    assert_eq!((bed.rev(&tenant, "rec_stale").await, bed.rev(&tenant, "rec_a").await), (None, Some(1)));
    bed.settle().await;
    assert_eq!(bed.log_checked(&tenant).await.len(), 3);
}

/// Time says when others may try, not whether the work counts.
pub async fn a_late_completion_counts_if_nobody_else_came(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    bed.clock.advance_ms(WORK.lease_ms * 100);
    bed.complete(lease, vec![new("rec_a")]).await.unwrap();
    assert_eq!(bed.rev(&tenant, "rec_a").await, Some(1));
}

/// A step that writes under a fresh permit demands that its job is still its own.
pub async fn a_fence_holds_for_its_epoch_alone(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let lease = leased(&bed, &a).await;
    let fence = |epoch| Operation::Fence { job: id("job_a"), epoch };
    bed.done(&a, vec![fence(1), new("rec_a")]).await;
    for wrong in [0, 2, u64::MAX] {
        refused!(bed.commit(&a, vec![new("rec_b"), fence(wrong)]).await, CommitError::Fenced);
    }
    refused!(bed.commit(&b, vec![fence(1)]).await, CommitError::Fenced);
    bed.clock.advance_ms(WORK.lease_ms);
    bed.done(&a, vec![fence(1), new("rec_c")]).await;
    let second = bed.claim(1).await.remove(0);
    refused!(bed.commit(&a, vec![new("rec_b"), fence(1)]).await, CommitError::Fenced);
    bed.complete(second, vec![fence(2)]).await.unwrap();
    refused!(bed.commit(&a, vec![new("rec_b"), fence(2)]).await, CommitError::Fenced);
    assert_eq!(bed.rev(&a, "rec_b").await, None);
    drop(lease);
}

/// Eight workers, 120 jobs of three tenants, leases lost on the way: each job's effect is there once.
pub async fn many_workers_and_each_job_done_once(bed: Bed) {
    const JOBS: usize = 40;
    let tenants = [bed.tenant("a").await, bed.tenant("b").await, bed.tenant("c").await];
    for tenant in &tenants {
        let jobs = (0..JOBS).map(|n| Operation::Job(job(&format!("job_{n}"), 0))).collect();
        bed.done(tenant, jobs).await;
    }
    let bed = Arc::new(bed);
    let mut workers = JoinSet::new();
    for worker in 0..8 {
        let bed = bed.clone();
        workers.spawn(async move {
            let mut done = Vec::new();
            let mut round = worker;
            while bed.store().jobs_next_due_ms().await.unwrap().is_some() {
                round += 1;
                for lease in bed.store().jobs_claim(KINDS, 3).await.unwrap() {
                    if round % 5 == 0 {
                        // This worker dawdles: the lease ends, and somebody else may claim the job meanwhile.
                        bed.clock.advance_ms(WORK.lease_ms);
                    }
                    let name = (lease.tenant.clone(), lease.id.to_string());
                    let draft = bed.draft(vec![new(&name.1.replace("job", "rec"))], "run_a");
                    match bed.store().commit(Changeset::continuing(lease, draft).unwrap()).await {
                        Ok(_) => done.push(name),
                        Err(CommitError::Fenced) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            done
        });
    }
    let mut done: HashMap<TenantId, Vec<String>> = HashMap::new();
    for (tenant, job) in workers.join_all().await.concat() {
        done.entry(tenant).or_default().push(job);
    }
    bed.settle().await;
    for tenant in &tenants {
        let mut jobs = done.remove(tenant).unwrap();
        jobs.sort();
        let mut expected: Vec<_> = (0..JOBS).map(|n| format!("job_{n}")).collect();
        expected.sort();
        assert_eq!(jobs, expected, "{tenant}");
        assert_eq!(bed.log_checked(tenant).await.len(), 2 + JOBS);
    }
}

/// The time of day is set back: what is leased stays leased, what was due stays due or waits, nothing is lost.
pub async fn clocks_that_go_back_hand_out_nothing_twice(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let lease = leased(&bed, &tenant).await;
    let now_ms = bed.now_ms();
    bed.clock.set_ms(now_ms - 1_000_000);
    assert!(bed.claim(10).await.is_empty());
    assert!(bed.store().job_renew(&lease).await.unwrap());
    bed.complete(lease, vec![new("rec_a")]).await.unwrap();
    bed.done(&tenant, vec![Operation::Job(job("job_b", now_ms))]).await;
    assert!(bed.claim(10).await.is_empty());
    bed.clock.set_ms(now_ms);
    assert_eq!(bed.claim(10).await.len(), 1);
    // The end of time is no special moment.
    bed.clock.set_ms(i64::MAX);
    let lease = bed.claim(10).await.remove(0);
    assert_eq!(lease.lease_until_ms, i64::MAX);
    assert!(bed.store().job_renew(&lease).await.unwrap());
}
