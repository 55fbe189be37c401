//! A thousand histories, and every call of the store failing once.

use simulation::{Seeded, Stage, Sweep};
use std::collections::BTreeMap;
use testkit::simulation::Verdict;

/// Histories of one test; the tests share the cores.
const SEEDS: u64 = 125;
/// More calls of the store than the swept history makes.
const CALLS_MAX: u32 = 5_000;
/// Tests that share the sweep over all calls.
const SHARES: usize = 4;

async fn seeds(part: u64) {
    let stage = Stage::set().await;
    let (mut ends, mut faults, mut crashes, mut compared) = (BTreeMap::<String, u32>::new(), 0, 0, 0);
    for seed in part * SEEDS..(part + 1) * SEEDS {
        let told = Seeded { seed, aloud: false }.live(&stage).await;
        faults += told.faults;
        crashes += told.crashes;
        compared += told.compared;
        for (end, count) in told.ends {
            *ends.entry(end).or_default() += count;
        }
    }
    // Nothing is proven by histories in which nothing happens.
    for end in ["done", "denied", "expired", "needs_human", "cancelled", "dead"] {
        assert!(ends.contains_key(end), "no run ended as {end}: {ends:?}");
    }
    assert!(faults > 500 && crashes > 20 && compared > 20_000, "{faults} {crashes} {compared}");
}

#[tokio::test]
async fn seeds_0_to_124() {
    seeds(0).await;
}

#[tokio::test]
async fn seeds_125_to_249() {
    seeds(1).await;
}

#[tokio::test]
async fn seeds_250_to_374() {
    seeds(2).await;
}

#[tokio::test]
async fn seeds_375_to_499() {
    seeds(3).await;
}

#[tokio::test]
async fn seeds_500_to_624() {
    seeds(4).await;
}

#[tokio::test]
async fn seeds_625_to_749() {
    seeds(5).await;
}

#[tokio::test]
async fn seeds_750_to_874() {
    seeds(6).await;
}

#[tokio::test]
async fn seeds_875_to_999() {
    seeds(7).await;
}

/// One seed is one history: the same steps, facts and ends, in another process of the house on another port as well.
#[tokio::test]
async fn a_seed_repeats_itself() {
    let (stage, other) = (Stage::set().await, Stage::set().await);
    for seed in [0, 1, 2, 3, 5, 7, 11, 13, 17, 19] {
        let history = Seeded { seed, aloud: false };
        let told = history.live(&stage).await;
        assert_eq!(told, history.live(&stage).await, "seed {seed}");
        assert_eq!(told, history.live(&other).await, "seed {seed}, elsewhere");
    }
    let digests: Vec<_> = [1, 2].map(|seed| Seeded { seed, aloud: false }).into();
    assert_ne!(digests[0].live(&stage).await.digest, digests[1].live(&stage).await.digest);
}

/// Calls of the store fail one after the other, each in a history of its own, in this way, and the house goes on, or is
/// started again.
async fn swept(verdict: Verdict, restart: bool, calls: impl Iterator<Item = u32>, least: u32) {
    let stage = Stage::set().await;
    for nth in calls {
        if (Sweep { nth, verdict, restart }).live(&stage).await.is_none() {
            assert!(nth > least, "only {nth} calls");
            return;
        }
    }
    panic!("there is no end of calls");
}

async fn refused(restart: bool, share: u32) {
    swept(Verdict::Refuse, restart, (share..CALLS_MAX).step_by(SHARES), 200).await;
}

#[tokio::test]
async fn every_call_fails_once_0() {
    refused(false, 0).await;
}

#[tokio::test]
async fn every_call_fails_once_1() {
    refused(true, 1).await;
}

#[tokio::test]
async fn every_call_fails_once_2() {
    refused(false, 2).await;
}

#[tokio::test]
async fn every_call_fails_once_3() {
    refused(true, 3).await;
}

#[tokio::test]
async fn every_write_happens_and_fails_once() {
    swept(Verdict::Lose, false, 0..CALLS_MAX, 40).await;
}

#[tokio::test]
async fn every_write_happens_and_fails_once_and_then_it_dies() {
    swept(Verdict::Lose, true, 0..CALLS_MAX, 40).await;
}
