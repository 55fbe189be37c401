//! What the server does by itself, again and again: place facts, sign checkpoints, renew the policy, record what was
//! turned away.
//!
//! Each round takes no input: it looks at what is there and does what is due, so a round that was missed or failed is made
//! up by the next. A round that panics is logged and its successor runs all the same.

use crate::assemble::House;
use crate::policy;
use crate::tasks::stopped;
use act::Coded as _;
use evidence::{SealError, Sealed};
use futures::FutureExt as _;
use harness::Terms;
use kernel::TenantId;
use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use store::{EXPIRE_MAX, SEQUENCE_MAX, Sequencing};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// How often checkpoints are signed, at most.
pub const SEAL_EVERY: Duration = Duration::from_secs(1);
/// How often refused traffic is recorded.
pub const REFUSED_EVERY: Duration = Duration::from_secs(60);
/// How often uses of keys are recorded; each key at most once an hour.
pub const SEEN_EVERY: Duration = Duration::from_secs(60);
/// How often holds whose time has run out are let go, at most.
pub const HOLDS_EVERY: Duration = Duration::from_secs(1);
/// How often facts get their place in deferred mode, at most.
pub const SEQUENCE_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked again why the gate is closed.
pub const GATE_EVERY: Duration = Duration::from_secs(1);
/// How often Slack's cards are compared with the approvals they show, at most.
pub const CARDS_EVERY: Duration = Duration::from_millis(250);

/// Starts every round on `set`; they end when `stopping` turns true.
pub fn start(house: &House, set: &mut JoinSet<()>, stopping: &watch::Receiver<bool>) {
    set.spawn(sealing(house.clone(), stopping.clone()));
    set.spawn(behind_gate(house, stopping, cards(house.clone(), stopping.clone())));
    let post = notify::webhook::post::run(house.notify.clone(), stopping.clone());
    set.spawn(behind_gate(house, stopping, post));
    let traffic = every("refused traffic", REFUSED_EVERY, stopping.clone(), house.clone(), refused);
    set.spawn(behind_gate(house, stopping, traffic));
    let uses = every("uses of keys", SEEN_EVERY, stopping.clone(), house.clone(), keys_seen);
    set.spawn(behind_gate(house, stopping, uses));
    let holds = every("holds", HOLDS_EVERY, stopping.clone(), house.clone(), holds_expired);
    set.spawn(behind_gate(house, stopping, holds));
    set.spawn(every("gate", GATE_EVERY, stopping.clone(), house.clone(), looked));
    // By the injected clock, which no timer knows: looked at often, done when due.
    let look_ms = u64::try_from(house.config.policy_ttl_ms / 60).unwrap_or(0).clamp(100, 10_000);
    set.spawn(every("policy", Duration::from_millis(look_ms), stopping.clone(), house.clone(), renewed));
    if Sequencing::from(house.config.sequencing) == Sequencing::Deferred {
        set.spawn(every("sequencing", SEQUENCE_EVERY, stopping.clone(), house.clone(), sequenced));
    }
}

/// Does `work` once the gate is open; what is sent outside waits for that.
pub fn behind_gate(
    house: &House,
    stopping: &watch::Receiver<bool>,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let (gate, mut stopping) = (house.gate.clone(), stopping.clone());
    async move {
        tokio::select! {
            () = stopped(&mut stopping) => {}
            () = gate.opened() => work.await,
        }
    }
}

/// Closes the gate while the installation is put back. Otherwise lets every log that is behind follow into the
/// installation's epoch, and opens it. What fails in passing leaves it closed, for the next look. A log that is not let
/// follow (its tenant's own policy may say so) is tried again at the next start, and is not signed until then.
pub async fn settle(house: &House) {
    let _turn = house.gate.turn().await;
    let standing = match house.store.standing().await {
        Ok(standing) => standing,
        Err(error) => {
            tracing::warn!(%error, "where the installation stands cannot be read; it will be tried again");
            return;
        }
    };
    if let Some(why) = standing.put_back {
        house.gate.close(why);
        return;
    }
    if house.gate.settled() != standing.epoch {
        let behind = match house.store.tenants_behind().await {
            Ok(behind) => behind,
            Err(error) => {
                tracing::warn!(%error, "logs that are behind cannot be listed; it will be tried again");
                return;
            }
        };
        let now_ms = house.harness.now_ms();
        for tenant in behind {
            let trace = house.harness.ids().id("trc", now_ms).to_string();
            let ctx = house.harness.service("evidence", &tenant, Vec::new(), &trace);
            let entered =
                house.harness.act(&ctx, evidence::epoch::ENTER, serde_json::json!({}), Terms::default());
            if let Err(fault) = entered.await {
                if fault.class.retryable() {
                    tracing::warn!(%fault, %tenant, "a log could not follow into the epoch; it will be tried again");
                    return;
                }
                tracing::error!(%fault, %tenant, "a log could not follow into the epoch; it is not signed");
                house.counts.log_given_up();
            }
        }
        house.gate.settle(standing.epoch);
    }
    house.gate.open();
}

/// Looks again while the gate is closed: what closed it may have been a storage that could not be read.
async fn looked(house: House) {
    if house.gate.why().is_some() {
        settle(&house).await;
    }
}

/// What is still due when everything else has ended.
pub async fn last(house: &House) {
    if house.gate.why().is_none() {
        refused(house.clone()).await;
    }
    sequenced(house.clone()).await;
    seal(house, &mut BTreeSet::new()).await;
}

/// Signs checkpoints while there is news.
async fn sealing(house: House, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(SEAL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut facts = house.store.hints().facts;
    // What the last run left unsigned is news.
    facts.mark_changed();
    let mut given_up = BTreeSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            _ = ticks.tick() => {}
        }
        if facts.has_changed().unwrap_or(true) {
            facts.mark_unchanged();
            if AssertUnwindSafe(seal(&house, &mut given_up)).catch_unwind().await.is_err() {
                tracing::error!("signing checkpoints panicked; the next round will try again");
                facts.mark_changed();
            }
        }
    }
}

/// Keeps Slack's cards true while there is news.
async fn cards(house: House, mut stopping: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(CARDS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut facts = house.store.hints().facts;
    // What was not shown before the last end is news.
    facts.mark_changed();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            _ = ticks.tick() => {}
        }
        if facts.has_changed().unwrap_or(true) {
            facts.mark_unchanged();
            match AssertUnwindSafe(notify::slack::card::round(&house.notify)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "Slack's cards could not be compared; the next round will try again");
                    facts.mark_changed();
                }
                Err(_) => tracing::error!("comparing Slack's cards panicked; the next round will try again"),
            }
        }
    }
}

/// Signs the head of every log that has grown. A log that went back or was rewritten is never signed again: somebody has to
/// look at it, and until then its facts stay without a checkpoint for all to see.
async fn seal(house: &House, given_up: &mut BTreeSet<TenantId>) {
    if house.gate.why().is_some() {
        return;
    }
    let tenants = match house.store.tenants().await {
        Ok(tenants) => tenants,
        Err(error) => {
            tracing::warn!(%error, "tenants could not be listed; checkpoints wait");
            return;
        }
    };
    let mut signed = 0;
    for tenant in tenants.into_iter().filter(|tenant| !given_up.contains(tenant)).collect::<Vec<_>>() {
        match house.evidence.seal(&house.store, &tenant).await {
            Ok(Sealed::New(_)) => signed += 1,
            Ok(Sealed::Nothing | Sealed::Unchanged(_)) => {}
            Err(
                error @ (SealError::Regressed { .. }
                | SealError::Rewritten { .. }
                | SealError::Foreign { .. }),
            ) => {
                tracing::error!(%error, code = error.code(), "a log is not signed any more; see the page of this code");
                house.counts.log_given_up();
                given_up.insert(tenant);
            }
            Err(
                error @ (SealError::Refused { .. }
                | SealError::PutBack { .. }
                | SealError::Behind { .. }
                | SealError::Read(_)
                | SealError::Commit(_)),
            ) => {
                tracing::warn!(%error, %tenant, "a checkpoint could not be signed; the next round will try again");
            }
        }
    }
    house.counts.checkpoints(signed);
}

async fn every<F, R>(
    what: &'static str,
    every: Duration,
    mut stopping: watch::Receiver<bool>,
    house: House,
    round: F,
) where
    F: Fn(House) -> R + Send,
    R: Future<Output = ()> + Send,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Starting has done what was due then; what comes in while the first callers are served is for a period later.
    ticks.reset();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            _ = ticks.tick() => {
                if AssertUnwindSafe(round(house.clone())).catch_unwind().await.is_err() {
                    tracing::error!(what, "a round panicked; the next will try again");
                }
            }
        }
    }
}

/// Lets go of holds whose time has run out, of whatever tenant.
pub async fn holds_expired(house: House) {
    loop {
        match house.store.holds_expire(EXPIRE_MAX).await {
            Ok(EXPIRE_MAX) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "holds could not be let go; the next round will try again");
                return;
            }
        }
    }
}

/// Records what was turned away since the last time; what cannot be recorded is counted again.
pub async fn refused(house: House) {
    for ((asker, code), count) in house.refused.take() {
        let recorded =
            house.harness.traffic_refused(&asker.tenant, asker.source.as_str(), &code, count).await;
        if let Err(error) = recorded {
            tracing::warn!(%error, code, count, "refused traffic could not be recorded; it will be tried again");
            house.refused.add(asker, code, count);
        }
    }
}

/// Records which keys were used; what cannot be recorded is tried again.
pub async fn keys_seen(house: House) {
    let now_ms = house.harness.now_ms();
    for (tenant, keys) in house.seen.take(now_ms) {
        let trace = house.harness.ids().id("trc", now_ms).to_string();
        let ctx = house.harness.service("edge", &tenant, Vec::new(), &trace);
        let args = serde_json::json!({"keys": keys});
        match house.harness.act(&ctx, "access.key.note_use", args, Terms::default()).await {
            Ok(_) => {}
            // Recorded before the last start.
            Err(fault) if fault.code == "request.state" => {}
            Err(fault) => {
                tracing::warn!(%fault, %tenant, "uses of keys could not be recorded; it will be tried again");
                house.seen.put_back(&tenant, &keys);
            }
        }
    }
}

async fn renewed(house: House) {
    match policy::renew(&house.harness, house.custody.keyring(), house.config.policy_ttl_ms).await {
        Ok(true) => house.counts.policy_renewed(),
        Ok(false) => {}
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "the built-in policy could not be renewed"
        ),
    }
}

async fn sequenced(house: House) {
    loop {
        match house.store.sequence(SEQUENCE_MAX).await {
            Ok(SEQUENCE_MAX..) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "facts could not be given their place; it will be tried again");
                return;
            }
        }
    }
}
