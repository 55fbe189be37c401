//! Jobs: enqueuing, claiming in turn, cancelling, listing.

use super::bed::{Bed, IDLE, ITEM, KINDS, WORK, authority, id, item, job, new};
use super::refused;
use kernel::changeset::{NewJob, Operation};
use kernel::permit::JobKind;
use kernel::{Id, Lease, TenantId};
use store::{CLAIM_MAX, CommitError, PUT_OFF_MS};

fn names(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.id.as_str()).collect()
}

async fn enqueue(bed: &Bed, tenant: &TenantId, names: &[String]) {
    let jobs = names.iter().map(|name| Operation::Job(job(name, 0))).collect();
    bed.done(tenant, jobs).await;
}

/// Not a millisecond early; with kind, body, authority, count and the end of the lease.
pub async fn a_job_is_claimed_when_due_with_all_it_was_given(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let due_ms = bed.now_ms() + 1_000;
    let body: Vec<u8> = (0..=255).collect();
    bed.done(&tenant, vec![Operation::Job(NewJob { body: body.clone(), ..job("job_a", due_ms) })]).await;
    assert!(bed.claim(10).await.is_empty());
    bed.clock.advance_ms(999);
    assert!(bed.claim(10).await.is_empty());
    bed.clock.advance_ms(1);
    let leases = bed.claim(10).await;
    assert_eq!(leases.len(), 1);
    let lease = &leases[0];
    assert_eq!((&lease.id, &lease.tenant, lease.kind), (&id("job_a"), &tenant, &WORK));
    assert_eq!((lease.epoch, lease.starts, lease.lease_until_ms), (1, 1, due_ms + WORK.lease_ms));
    assert_eq!((&lease.authority, &lease.body), (&authority(), &body));
    assert!(bed.claim(10).await.is_empty(), "it is leased");
}

/// A job of a refused changeset does not exist, and a neighbour's does.
pub async fn an_enqueued_job_is_all_or_nothing(bed: Bed) {
    let tenant = bed.tenant("a").await;
    bed.done(&tenant, vec![new("rec_a")]).await;
    let (lost, kept) = tokio::join!(
        bed.commit(&tenant, vec![Operation::Job(job("job_lost", 0)), new("rec_a")]),
        bed.commit(&tenant, vec![Operation::Job(job("job_kept", 0))])
    );
    refused!(lost, CommitError::Conflict { .. });
    kept.unwrap();
    assert_eq!(names(&bed.claim(10).await), ["job_kept"]);
}

/// Twice in a changeset, or again while the first is there, is a conflict that harms nobody else. Tenants have their
/// own ids.
pub async fn one_id_is_one_job(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let twice = vec![Operation::Job(job("job_a", 0)), Operation::Job(job("job_a", 5))];
    let (twice, neighbour) = tokio::join!(bed.commit(&a, twice), bed.commit(&a, vec![new("rec_a")]));
    refused!(twice, CommitError::Conflict { .. });
    neighbour.unwrap();
    enqueue(&bed, &a, &["job_a".into()]).await;
    enqueue(&bed, &b, &["job_a".into()]).await;
    for _ in 0..2 {
        refused!(bed.commit(&a, vec![Operation::Job(job("job_a", 0))]).await, CommitError::Conflict { .. });
        // Also once it has been claimed.
        bed.claim(10).await;
    }
}

/// The committer has it before anybody can claim it; somebody can once the lease is over.
pub async fn a_held_job_is_leased_at_once(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let held = |name| Operation::Job(NewJob { held: true, ..job(name, i64::MAX) });
    let operations = vec![held("job_b"), Operation::Job(job("job_free", 0)), held("job_a")];
    let committed = bed.done(&tenant, operations).await;
    assert_eq!(names(&committed.held), ["job_b", "job_a"], "in the order of the changeset");
    let until_ms = bed.now_ms() + WORK.lease_ms;
    for lease in &committed.held {
        assert_eq!((lease.epoch, lease.starts, lease.lease_until_ms), (1, 1, until_ms));
        assert_eq!((&lease.tenant, &lease.authority), (&tenant, &authority()));
        assert_eq!(lease.body, lease.id.as_str().as_bytes());
    }
    assert_eq!(names(&bed.claim(10).await), ["job_free"]);
    for lease in committed.held {
        if lease.id == id("job_a") {
            bed.complete(lease, vec![new("rec_a")]).await.unwrap();
        }
    }
    bed.clock.advance_ms(WORK.lease_ms);
    let again = bed.claim(10).await;
    let mut expected: Vec<_> =
        again.iter().map(|lease| (lease.id.as_str(), lease.epoch, lease.starts)).collect();
    expected.sort_unstable();
    assert_eq!(expected, [("job_b", 2, 2), ("job_free", 2, 2)]);
}

/// Completing step k and holding step k + 1 is one commit, so a run is never between two steps.
pub async fn a_step_enqueues_the_next_and_holds_it(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let step = |n: usize| Operation::Job(NewJob { held: true, ..job(&format!("job_{n}"), 0) });
    let mut held = bed.done(&tenant, vec![step(0)]).await.held;
    for n in 1..5 {
        let lease = held.pop().unwrap();
        held = bed.complete(lease, vec![new(&format!("rec_{n}")), step(n)]).await.unwrap().held;
        let jobs = bed.store().jobs(&tenant, 10).await.unwrap();
        assert_eq!(jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>(), [id(&format!("job_{n}"))]);
    }
    // A completion that fails leaves the step where it was.
    let lease = held.pop().unwrap();
    refused!(bed.complete(lease, vec![new("rec_1"), step(5)]).await, CommitError::Conflict { .. });
    assert_eq!(bed.store().jobs(&tenant, 10).await.unwrap()[0].id, id("job_4"));
}

/// One that runs is not taken from under its worker; one that is not there is no longer wanted either.
pub async fn an_unclaimed_job_can_be_cancelled(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    enqueue(&bed, &a, &["job_due".into(), "job_running".into()]).await;
    bed.done(&a, vec![Operation::Job(job("job_timer", i64::MAX))]).await;
    enqueue(&bed, &b, &["job_due".into()]).await;
    let cancel = |name: &str| Operation::JobCancel { job: id(name) };
    bed.done(&a, vec![cancel("job_due"), cancel("job_timer"), cancel("job_none")]).await;
    let leases = bed.claim(10).await;
    let mut claimed: Vec<_> = leases.iter().map(|lease| (lease.tenant.as_str(), lease.id.as_str())).collect();
    claimed.sort_unstable();
    assert_eq!(claimed, [("ten_a", "job_running"), ("ten_b", "job_due")]);
    bed.done(&a, vec![cancel("job_running")]).await;
    for lease in leases {
        bed.complete(lease, vec![]).await.unwrap();
    }
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), None);
}

/// Cancelling and enqueuing under the same id in one changeset, in whatever order; unless it runs already.
pub async fn a_timer_can_be_set_anew(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let at = |due_ms| Operation::Job(job("job_timer", due_ms));
    let cancel = || Operation::JobCancel { job: id("job_timer") };
    let far_ms = bed.now_ms() + 100_000;
    bed.done(&tenant, vec![at(far_ms)]).await;
    bed.done(&tenant, vec![cancel(), at(far_ms + 1)]).await;
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), Some(far_ms + 1));
    bed.done(&tenant, vec![at(0), cancel()]).await;
    assert_eq!(names(&bed.claim(10).await), ["job_timer"]);
    refused!(bed.commit(&tenant, vec![cancel(), at(far_ms)]).await, CommitError::Conflict { .. });
}

/// One tenant's flood does not stand before another's single job.
pub async fn tenants_take_turns(bed: Bed) {
    let tenants = [bed.tenant("a").await, bed.tenant("b").await, bed.tenant("c").await];
    for (tenant, count) in tenants.iter().zip([50, 5, 1]) {
        let jobs: Vec<String> = (0..count).map(|n| format!("job_{n:02}")).collect();
        enqueue(&bed, tenant, &jobs).await;
    }
    let count =
        |leases: &[Lease]| tenants.each_ref().map(|of| leases.iter().filter(|l| l.tenant == *of).count());
    assert_eq!(count(&bed.claim(3).await), [1, 1, 1]);
    assert_eq!(count(&bed.claim(8).await), [4, 4, 0]);
    let rest = bed.claim(100).await;
    assert_eq!(count(&rest), [45, 0, 0]);
    assert!(bed.claim(100).await.is_empty());
}

/// Claims of one job each go round as one large claim would.
pub async fn turns_go_on_from_claim_to_claim(bed: Bed) {
    let tenants = [bed.tenant("a").await, bed.tenant("b").await, bed.tenant("c").await];
    for tenant in &tenants {
        enqueue(&bed, tenant, &["job_1".into(), "job_2".into(), "job_3".into()]).await;
    }
    let mut order = Vec::new();
    for _ in 0..9 {
        order.push(bed.claim(1).await.remove(0).tenant.clone());
    }
    for round in order.chunks(3) {
        let mut round = round.to_vec();
        round.sort();
        assert_eq!(round, tenants, "everybody once per round: {order:?}");
    }
}

/// Within a tenant what has waited longest comes first; of equals, what was enqueued first.
pub async fn a_tenant_is_served_in_order_of_time(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let now_ms = bed.now_ms();
    for (name, due_ms) in
        [("job_d", now_ms), ("job_b", now_ms - 5), ("job_a", now_ms), ("job_later", now_ms + 1)]
    {
        bed.done(&tenant, vec![Operation::Job(job(name, due_ms))]).await;
    }
    bed.done(&tenant, vec![Operation::Job(job("job_c", i64::MIN))]).await;
    assert_eq!(names(&bed.claim(10).await), ["job_c", "job_b", "job_d", "job_a"]);
}

/// Work for a newer version waits for it, without being lost and without standing in the way.
pub async fn an_unknown_kind_is_put_off_and_blocks_nobody(bed: Bed) {
    static ONLY_WORK: &[&JobKind] = &[&WORK];
    let tenant = bed.tenant("a").await;
    let unknown = (0..10).map(|n| Operation::Job(NewJob { kind: &IDLE, ..job(&format!("job_idle{n}"), 0) }));
    bed.done(&tenant, unknown.collect()).await;
    enqueue(&bed, &tenant, &["job_work".into()]).await;
    let claimed = bed.store().jobs_claim(ONLY_WORK, 10).await.unwrap();
    assert_eq!(names(&claimed), ["job_work"]);
    bed.complete(claimed.into_iter().next().unwrap(), vec![]).await.unwrap();
    let put_off_ms = bed.now_ms() + PUT_OFF_MS;
    assert_eq!(bed.store().jobs_next_due_ms().await.unwrap(), Some(put_off_ms), "nobody spins on it");
    assert!(bed.claim(100).await.is_empty());
    bed.clock.advance_ms(PUT_OFF_MS);
    let leases = bed.claim(100).await;
    assert_eq!(leases.len(), 10);
    assert!(leases.iter().all(|lease| (lease.epoch, lease.starts) == (1, 1)), "being put off is no start");
    assert!(bed.store().jobs_claim(&[], 100).await.unwrap().is_empty());
}

/// None asked for, none given; and never more than the limit of a claim.
pub async fn limits_of_a_claim(bed: Bed) {
    let tenant = bed.tenant("a").await;
    for batch in 0..2 {
        let jobs: Vec<String> = (0..200).map(|n| format!("job_{batch}x{n}")).collect();
        enqueue(&bed, &tenant, &jobs).await;
    }
    assert!(bed.claim(0).await.is_empty());
    assert_eq!(bed.claim(usize::MAX).await.len(), CLAIM_MAX);
    assert_eq!(bed.claim(usize::MAX).await.len(), 400 - CLAIM_MAX);
}

/// Of what waits, of what is due, and of leases that will end.
pub async fn the_next_due_time_is_known(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let next = async || bed.store().jobs_next_due_ms().await.unwrap();
    let now_ms = bed.now_ms();
    assert_eq!(next().await, None);
    bed.done(&b, vec![Operation::Job(job("job_far", now_ms + 50_000))]).await;
    assert_eq!(next().await, Some(now_ms + 50_000));
    bed.done(&a, vec![Operation::Job(job("job_near", now_ms + 30_000))]).await;
    assert_eq!(next().await, Some(now_ms + 30_000));
    bed.done(&b, vec![Operation::Job(job("job_late", now_ms - 7)), Operation::Job(job("job_now", now_ms))])
        .await;
    assert_eq!(next().await, Some(now_ms - 7));
    let leases = bed.claim(10).await;
    assert_eq!(next().await, Some(now_ms + WORK.lease_ms));
    for lease in leases {
        bed.complete(lease, vec![]).await.unwrap();
    }
    assert_eq!(next().await, Some(now_ms + 30_000));
}

/// A tenant's own, due and leased and waiting, by time.
pub async fn jobs_are_listed_by_due_time(bed: Bed) {
    let (a, b) = (bed.tenant("a").await, bed.tenant("b").await);
    let now_ms = bed.now_ms();
    for (name, due_ms) in [("job_timer", now_ms + 20_000), ("job_due", now_ms - 1), ("job_soon", now_ms + 1)]
    {
        bed.done(&a, vec![Operation::Job(job(name, due_ms))]).await;
    }
    enqueue(&bed, &b, &["job_b".into()]).await;
    let held = NewJob { held: true, kind: &IDLE, ..job("job_held", 0) };
    let _held = bed.done(&a, vec![Operation::Job(held)]).await.held;
    let list = async |limit| {
        let rows = bed.store().jobs(&a, limit).await.unwrap();
        rows.into_iter()
            .map(|row| (row.id.to_string(), row.kind, row.due_ms - now_ms, row.starts))
            .collect::<Vec<_>>()
    };
    let row =
        |name: &str, kind: &JobKind, in_ms, starts| (name.to_owned(), kind.name.to_owned(), in_ms, starts);
    let mut expected = vec![
        row("job_due", &WORK, -1, 0),
        row("job_soon", &WORK, 1, 0),
        row("job_timer", &WORK, 20_000, 0),
        row("job_held", &IDLE, IDLE.lease_ms, 1),
    ];
    assert_eq!(list(10).await, expected);
    assert_eq!(list(2).await, expected[..2]);
    assert_eq!(list(0).await, []);
    bed.claim(10).await;
    expected[0] = row("job_due", &WORK, WORK.lease_ms, 1);
    expected.swap(0, 1);
    assert_eq!(list(10).await, expected);
}

/// Wake-ups for facts and for jobs that others may claim.
pub async fn hints_move_when_something_came(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let mut hints = bed.store().hints();
    hints.facts.mark_unchanged();
    hints.jobs.mark_unchanged();
    bed.done(&tenant, vec![new("rec_a")]).await;
    // The hint follows the answer, so it may be a moment behind it.
    hints.facts.changed().await.unwrap();
    enqueue(&bed, &tenant, &["job_a".into()]).await;
    hints.jobs.changed().await.unwrap();
    hints.facts.changed().await.unwrap();
    refused!(bed.commit(&tenant, vec![new("rec_a")]).await, CommitError::Conflict { .. });
    refused!(bed.commit(&tenant, vec![Operation::Put(item("rec_a"))]).await, CommitError::Conflict { .. });
    assert!(!hints.facts.has_changed().unwrap(), "nothing was committed");
    assert!(bed.store().record(&tenant, ITEM, &Id::clone(&id("rec_a"))).await.unwrap().is_some());
    assert_eq!(bed.store().jobs_claim(KINDS, 1).await.unwrap().len(), 1);
}
