//! Processes that die anywhere, people who are faster than commits, and workers that come back from the dead.
//!
//! A killed process is a future that is dropped between two polls: what it had in memory is gone, what it had committed or
//! sent is not. Seeds and poll counts stand in the messages, so that a failure can be run again.

use crate::desk::{Desk, Fault};
use crate::house::House;
use crate::runs::event;
use flows::run::{Outcome, RunDoc, STEP, Status};
use serde_json::json;
use store::Document as _;
use testkit::Random;

/// Longer than a lease.
const LEASE_OVER_MS: i64 = 31_000;
/// More commits than a run takes.
const COMMITS_MAX: i64 = 40;

/// Whether the model is sure enough that no person is asked.
async fn house(desk: &Desk, seed: u64, sure: bool) -> House {
    let house = House::with(desk, seed).await;
    if !sure {
        let unsure = json!({"assignment_group": "Network", "summary": "No network.", "confidence": 600});
        house.model.script.lock().unwrap().extend(std::iter::repeat_n(Ok(unsure), 20));
    }
    house
}

/// Lets people agree to whatever waits, then everything run to its end.
async fn to_the_end(house: &House, run: &kernel::Id) -> RunDoc {
    for _ in 0..5 {
        house.settle().await;
        let now = house.run(run).await;
        match (now.status, now.approval) {
            (Status::Waiting, Some(approval)) => {
                house.decide(&approval, "bob", true).await.unwrap();
            }
            _ => break,
        }
    }
    house.run(run).await
}

#[tokio::test]
async fn killed_once_at_every_commit_nothing_is_lost_and_nothing_is_doubled() {
    for (sure, after) in [(true, false), (true, true), (false, false), (false, true)] {
        for commit in 0..COMMITS_MAX {
            let desk = Desk::start().await;
            let house = house(&desk, u64::try_from(commit).unwrap(), sure).await;
            let run = house.event(event()).await;
            // The run's own job first, then those by which people's decision comes back to it.
            let mut left = commit;
            let mut killed = house.work_killed(left, after, None).await.unwrap();
            if !killed && !sure {
                left -= 8;
                let approval = house.run(&run).await.approval.unwrap();
                house.decide(&approval, "bob", true).await.unwrap();
                while !killed && left >= 0 {
                    let Some(died) = house.work_killed(left, after, None).await else { break };
                    (killed, left) = (died, left - 2);
                }
            }
            house.clock.advance_ms(LEASE_OVER_MS);
            let ended = to_the_end(&house, &run).await;
            let what = format!("commit {commit}, after {after}, sure {sure}: {:?}", ended.error);
            assert_eq!((ended.status, ended.outcome), (Status::Finished, Some(Outcome::Done)), "{what}");
            assert_eq!(desk.notes(), 1, "{what}");
            if !killed {
                assert!(commit >= 8, "only {commit} commits");
                break;
            }
            assert!(commit + 1 < COMMITS_MAX, "the jobs never end");
        }
    }
}

#[tokio::test]
async fn killed_while_it_waits_for_the_other_side() {
    for polls in 1.. {
        let desk = Desk::start().await;
        let house = house(&desk, 7, true).await;
        let run = house.event(event()).await;
        let killed = house.work_killed(-1, false, Some(polls)).await.unwrap();
        house.clock.advance_ms(LEASE_OVER_MS);
        let ended = to_the_end(&house, &run).await;
        assert_eq!(
            (ended.outcome, desk.notes()),
            (Some(Outcome::Done), 1),
            "{polls} polls: {:?}",
            ended.error
        );
        if !killed {
            break;
        }
        assert!(polls < 200, "the job never ends");
    }
}

#[tokio::test]
async fn killed_while_it_waits_and_taken_up_behind_an_open_breaker() {
    for polls in 1.. {
        let desk = Desk::start().await;
        let house = house(&desk, 8, true).await;
        let run = house.event(event()).await;
        let killed = house.work_killed(-1, false, Some(polls)).await.unwrap();
        // Whoever takes the run up may not call: what may have been sent stays in doubt meanwhile.
        let ctx = house.harness.service("flows", &house.tenant, Vec::new(), "trc_test");
        let open =
            json!({"connector": "servicenow", "to": "open", "run": run, "code": "flows.upstream_failed"});
        house.clock.advance_ms(LEASE_OVER_MS);
        house.act(&ctx, "flows.breaker.turn", open).await.unwrap();
        house.work().await;
        let ended = to_the_end(&house, &run).await;
        assert_eq!(
            (ended.outcome, desk.notes()),
            (Some(Outcome::Done), 1),
            "{polls} polls: {:?}",
            ended.error
        );
        if !killed {
            break;
        }
        assert!(polls < 200, "the job never ends");
    }
}

#[tokio::test]
async fn killed_at_random_among_faults_of_the_other_side() {
    for seed in 0..60 {
        let mut random = Random::seeded(seed);
        let mut draw = |bound: usize| random.below(bound);
        let desk = Desk::start().await;
        let sure = draw(2) == 0;
        let house = house(&desk, seed, sure).await;
        let faults =
            [Fault::DropBefore, Fault::DropAfter, Fault::ErrorAfter, Fault::Cut, Fault::Status(429, Some(2))];
        desk.look(|seen| {
            for _ in 0..draw(3) {
                seen.write_faults.push_back(faults[draw(5)]);
            }
            for _ in 0..draw(3) {
                seen.read_faults.push_back([Fault::DropAfter, Fault::Status(503, None)][draw(2)]);
            }
        });
        let run = house.event(event()).await;
        let mut kills = 0;
        for _ in 0..40 {
            if draw(3) == 0 && kills < 6 {
                let (commit, polls) = match draw(2) {
                    0 => (i64::try_from(draw(8)).unwrap(), None),
                    _ => (-1, Some(1 + draw(12))),
                };
                match house.work_killed(commit, draw(2) == 0, polls).await {
                    Some(true) => {
                        kills += 1;
                        house.clock.advance_ms(LEASE_OVER_MS);
                    }
                    Some(false) => {}
                    None => {
                        let _ = house.wait().await;
                    }
                }
            } else {
                house.work().await;
                house.wait().await;
            }
            let now = house.run(&run).await;
            if let (Status::Waiting, Some(approval)) = (now.status, now.approval) {
                // People may be slower than a lease, and their job may be killed like any other.
                let _ = house.decide(&approval, "bob", true).await;
            }
        }
        let after = to_the_end(&house, &run).await;
        let what =
            format!("seed {seed}, {kills} kills: {:?} {:?} {:?}", after.status, after.outcome, after.error);
        match after.status {
            Status::Finished => assert_eq!((after.outcome, desk.notes()), (Some(Outcome::Done), 1), "{what}"),
            // A budget may end; what is in doubt then is said to be in doubt, and still not doubled.
            Status::Dead => assert!(desk.notes() <= 1, "{what}"),
            Status::Running | Status::Waiting => panic!("{what}"),
        }
        // Whatever happened, the run's stream has no gap and each fact but the first names its cause.
        let facts = house.facts(&run).await;
        for (n, fact) in facts.iter().enumerate() {
            assert_eq!(fact["stream_n"], n + 1, "{what}");
        }
        assert_eq!(
            facts.iter().filter(|fact| fact["kind"] == "flows.run.finished").count(),
            usize::from(after.status == Status::Finished),
            "{what}"
        );
    }
}

/// Takes a run to where its approval is recorded and its wait is not, and kills the process there.
async fn asked_but_not_waiting(desk: &Desk) -> (House, kernel::Id, kernel::Id) {
    for commit in 0..COMMITS_MAX {
        let house = house(desk, 1, false).await;
        let run = house.event(event()).await;
        let killed = house.work_killed(commit, true, None).await.unwrap();
        if let Some(approval) = house.approvals_of(&run).await.pop() {
            assert_eq!((killed, house.run(&run).await.status), (true, Status::Running));
            return (house, run, approval);
        }
    }
    panic!("nobody is ever asked");
}

#[tokio::test]
async fn people_who_are_faster_than_the_commit_that_records_the_wait() {
    for (grant, late_ms) in [(true, 0), (false, 0), (true, LEASE_OVER_MS), (false, LEASE_OVER_MS)] {
        let desk = Desk::start().await;
        let (house, run, approval) = asked_but_not_waiting(&desk).await;
        if late_ms == 0 {
            // They decide while the old lease still runs; whoever held it is gone.
            house.decide(&approval, "bob", grant).await.unwrap();
            house.work().await;
            house.clock.advance_ms(LEASE_OVER_MS);
        } else {
            // The job is taken up again first, and asks for the same approval under the same key.
            house.clock.advance_ms(late_ms);
            house.work().await;
            assert_eq!(house.run(&run).await.approval, Some(approval.clone()));
            house.decide(&approval, "bob", grant).await.unwrap();
        }
        house.settle().await;
        let after = house.run(&run).await;
        let expected = if grant { (Some(Outcome::Done), 1) } else { (Some(Outcome::Denied), 0) };
        assert_eq!(
            (after.outcome, desk.notes()),
            expected,
            "grant {grant}, late {late_ms}: {:?}",
            after.error
        );
        assert_eq!(house.approvals_of(&run).await.len(), 1);
    }
}

#[tokio::test]
async fn a_worker_that_comes_back_finds_the_run_taken() {
    let desk = Desk::start().await;
    let house = house(&desk, 1, true).await;
    let run = house.event(event()).await;
    let lease = house.lease().await.unwrap();
    let mut zombie = house.job(&lease)(lease);
    // It falls asleep while it waits for the model.
    std::future::poll_fn(|context| {
        let _ = zombie.as_mut().poll(context);
        let asked = !house.model.keys().is_empty();
        if asked { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    house.clock.advance_ms(LEASE_OVER_MS);
    house.settle().await;
    assert_eq!((house.run(&run).await.outcome, desk.notes()), (Some(Outcome::Done), 1));
    let before = house.facts(&run).await.len();
    zombie.await;
    assert_eq!((house.facts(&run).await.len(), desk.notes()), (before, 1));
    // The question was the same one, under the same key: it is paid once.
    let keys = house.model.keys();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_step_that_kills_its_worker_ends_among_the_dead() {
    let desk = Desk::start().await;
    let house = house(&desk, 2, true).await;
    let run = house.event(event()).await;
    for _ in 0..STEP.starts_max {
        assert_eq!(house.work_killed(0, false, Some(0)).await, Some(true));
        house.clock.advance_ms(LEASE_OVER_MS);
    }
    house.settle().await;
    let after = house.run(&run).await;
    assert_eq!((after.status, after.error.unwrap().code.as_str()), (Status::Dead, "flows.poison"));
    assert_eq!((desk.notes(), house.harness.store().jobs(&house.tenant, 10).await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_cancelled_run_is_left_alone_by_the_job_that_was_on_its_way() {
    let desk = Desk::start().await;
    let house = house(&desk, 3, true).await;
    desk.look(|seen| seen.read_faults = [Fault::Status(503, None)].into());
    let run = house.event(event()).await;
    house.work().await;
    // The call failed and will be repeated: until it is known not to be in flight, it cannot be cancelled.
    let operator = crate::house::person(&house, "ann", &["operator"]);
    let cancelled = house.act(&operator, "flows.run.cancel", json!({"run": run})).await;
    house.settle().await;
    let after = house.run(&run).await;
    match cancelled {
        Ok(_) => assert_eq!((after.outcome, desk.notes()), (Some(Outcome::Cancelled), 0)),
        Err(fault) => {
            assert_eq!(fault.code, "flows.run_state");
            assert_eq!((after.outcome, desk.notes()), (Some(Outcome::Done), 1));
        }
    }
}

#[tokio::test]
async fn documents_of_an_older_shape_are_still_read() {
    // Written before runs knew which job moves them.
    let text = r#"{"v":1,"doc":{"id":"run_a","workflow":"w","workflow_digest":"d","connectors":{},"status":"running",
        "outcome":null,"step":"s","attempts":{"calls":0,"external":0,"engine":0},"pending":null,"approval":null,
        "event":{},"outputs":{},"digests":{},"started_by":"prn_a","trace":"t","source":null,"last_fact":"fct_a",
        "event_at_ms":1,"created_at_ms":1,"step_at_ms":1,"waiting_since_ms":null,"waited_ms":0,"written_back_at_ms":null,
        "finished_at_ms":null,"cost_micros":0,"error":null,"replays":0}}"#;
    let row = store::Row { id: kernel::Id::parse("run_a").unwrap(), rev: 1, body: text.as_bytes().to_vec() };
    let run = store::decode::<RunDoc>(&row).unwrap();
    assert_eq!((run.job.clone(), run.id.as_str(), RunDoc::KIND), (None, "run_a", "flows.run"));
}
