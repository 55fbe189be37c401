//! The job that posts a card, or changes one that is there.
//!
//! It reads the approval as it is now, so what it shows is never older than its own start. A failure that passes puts it
//! off, longer each time and at least as long as Slack asked; after [`ATTEMPTS_MAX`] in a row, or a failure that will not
//! pass, the card is dead: it stays in the list with its cause until somebody sends it again.

use super::card::{Card, State, ended, face};
use super::{Deps, api, blocks};
use act::{Draw as _, Fault, JobSpec, Stamp};
use futures::FutureExt as _;
use governor::approval::Approval;
use harness::Harness;
use kernel::permit::JobKind;
use kernel::{Id, Lease, TenantId, hex, sha256};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, Stored, crash};

/// Most attempts in a row.
pub const ATTEMPTS_MAX: u32 = 8;
/// First wait after a failure, milliseconds; doubled each time.
pub const BACKOFF_MS: i64 = 1_000;
/// Longest wait of our own.
pub const BACKOFF_MS_MAX: i64 = 5 * 60 * 1000;
/// Longest word of Slack's for a message, in bytes.
const TS_BYTES_MAX: usize = 40;

/// The kind.
pub static DELIVER: JobKind = JobKind {
    name: "notify.card.deliver",
    writes: &["notify.card"],
    facts: &["notify.card.sent", "notify.card.failed", "notify.card.dead", "notify.card.idle"],
    lease_ms: 30_000,
    starts_max: 20,
};

pub(super) fn spec(deps: &Deps) -> JobSpec {
    let deps = deps.clone();
    JobSpec {
        kind: &DELIVER,
        run: Arc::new(move |lease| {
            let deps = deps.clone();
            async move {
                let job = lease.id.clone();
                if let Err(fault) = deliver(&deps, lease).await {
                    tracing::warn!(%job, %fault, "a card could not be delivered; it will be tried again");
                }
            }
            .boxed()
        }),
    }
}

/// Reads a document of a tenant.
pub(super) async fn read<T: Document>(
    harness: &Harness,
    tenant: &TenantId,
    id: &Id,
) -> Result<Option<Stored<T>>, Fault> {
    let row = harness.store().record(tenant, T::KIND, id).await?;
    Ok(row.map(|row| store::decode::<T>(&row)).transpose()?)
}

/// How long to wait after the failure number `attempts`.
pub fn wait_ms(asked_ms: Option<i64>, attempts: u32, random: u8) -> i64 {
    let doubled = BACKOFF_MS.saturating_mul(1_i64 << attempts.saturating_sub(1).min(20)).min(BACKOFF_MS_MAX);
    // Up to a quarter more, so that cards that failed together do not come back together.
    let jittered = doubled + doubled * i64::from(random) / 1024;
    asked_ms.unwrap_or(0).max(jittered)
}

async fn deliver(deps: &Deps, lease: Lease) -> Result<(), Fault> {
    let body: Value = serde_json::from_slice(&lease.body).map_err(act::internal)?;
    let id = Id::parse(body["card"].as_str().unwrap_or_default()).map_err(act::internal)?;
    let tenant = lease.tenant.clone();
    let ctx = deps.harness.service("notify", &tenant, Vec::new(), &lease.authority.trace.clone());
    let Some(stored) = read::<Card>(&deps.harness, &tenant, &id).await? else {
        return Err(act::internal("the card is gone"));
    };
    let said = match (stored.state, deps.connection(&tenant).await?) {
        (State::Sent | State::Final | State::Dead, _) => {
            let stamp = deps.harness.stamp(&ctx);
            let mut draft = stamp.draft();
            draft.fact(fact(&stamp, "notify.card.idle", &stored, json!({"card": stored.id})));
            deps.harness.conclude(lease, draft, Vec::new()).await?;
            return Ok(());
        }
        (State::Due, None) => {
            (api::Said::Never { code: "slack.not_connected".into(), word: String::new() }, None)
        }
        (State::Due, Some(connection)) => {
            let approval = read::<Approval>(&deps.harness, &tenant, &stored.approval).await?;
            let approval = approval.ok_or_else(|| act::internal("the approval is gone"))?.doc;
            let mut message = blocks::message(&connection, &stored, &approval);
            message["channel"] = json!(stored.channel);
            let method = match &stored.ts {
                None => "chat.postMessage",
                Some(ts) => {
                    message["ts"] = json!(ts);
                    "chat.update"
                }
            };
            let said = api::call(deps, &tenant, &connection, method, &message).await;
            crash::point("card.sent");
            (said, Some((approval, message)))
        }
    };
    conclude(deps, lease, &ctx, &stored, said).await?;
    crash::point("card.recorded");
    Ok(())
}

async fn conclude(
    deps: &Deps,
    lease: Lease,
    ctx: &act::Ctx,
    stored: &Stored<Card>,
    said: (api::Said, Option<(Approval, Value)>),
) -> Result<(), Fault> {
    let stamp = deps.harness.stamp(ctx);
    let mut card = stored.doc.clone();
    let mut draft = stamp.draft();
    let (kind, mut outcome) = match said {
        (api::Said::Done(answer), Some((approval, message))) => {
            let posted = card.ts.is_none();
            if posted {
                let ts = answer["ts"].as_str().filter(|ts| {
                    ts.len() <= TS_BYTES_MAX && ts.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                });
                card.ts = ts.map(str::to_owned);
            }
            card.state = if ended(&approval) { State::Final } else { State::Sent };
            card.face = face(&approval);
            card.attempts = 0;
            card.error = None;
            let digest = hex::encode(&sha256(message.to_string().as_bytes()));
            (
                "notify.card.sent",
                json!({"ts": card.ts, "face": card.face, "posted": posted, "message": digest}),
            )
        }
        (api::Said::Later { code, after_ms }, _) if card.attempts + 1 < ATTEMPTS_MAX => {
            card.attempts += 1;
            card.error = Some(code.to_owned());
            let at_ms = stamp.at_ms + wait_ms(after_ms, card.attempts, stamp.ids.entropy()[0]);
            draft.job(stamp.id("job"), &DELIVER, at_ms, false, &json!({"card": card.id}));
            ("notify.card.failed", json!({"code": code, "attempt": card.attempts, "retry_at_ms": at_ms}))
        }
        (api::Said::Later { code, .. }, _) => {
            card.state = State::Dead;
            card.attempts += 1;
            card.error = Some(code.to_owned());
            ("notify.card.dead", json!({"code": code, "attempt": card.attempts}))
        }
        (api::Said::Never { code, word }, _) => {
            card.state = State::Dead;
            card.error = Some(format!("{code} {word}").trim().to_owned());
            ("notify.card.dead", json!({"code": code, "word": word, "attempt": card.attempts + 1}))
        }
        (api::Said::Done(_), None) => return Err(act::internal("a card was sent without being made")),
    };
    for (name, value) in
        [("approval", json!(card.approval)), ("card", json!(card.id)), ("channel", json!(card.channel))]
    {
        outcome[name] = value;
    }
    draft.put_if(stored, &card).fact(fact(&stamp, kind, &card, outcome));
    let committed = deps.harness.conclude(lease, draft, Vec::new()).await?;
    deps.harness.hand_over(committed.held);
    Ok(())
}

fn fact(stamp: &Stamp, kind: &'static str, card: &Card, outcome: Value) -> kernel::Fact {
    stamp.fact(kind, &card.approval, (Card::KIND, &card.id), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_bounded_and_obey() {
        let plain: Vec<i64> = (1..=ATTEMPTS_MAX).map(|attempt| wait_ms(None, attempt, 0)).collect();
        assert_eq!(plain, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000]);
        assert_eq!(wait_ms(Some(30_000), 1, 255), 30_000);
        assert_eq!(wait_ms(Some(500), 1, 0), 1_000, "never sooner than we would ourselves");
        assert!(wait_ms(None, u32::MAX, 255) <= BACKOFF_MS_MAX + BACKOFF_MS_MAX / 4);
        assert!(wait_ms(None, 1, 255) > wait_ms(None, 1, 0));
    }
}
