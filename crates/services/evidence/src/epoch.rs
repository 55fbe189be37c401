//! Epochs: saying in the log itself that it was put back, and going on under another name.
//!
//! Yesterday's backup is put back at noon. Between the backup and noon the log had grown, and an auditor has a signed head
//! of it. If the installation now signed again, there would be two histories of one log, each with a good signature: what
//! a forger would make. So nothing is signed, and nothing is done either (what was done since yesterday would be done
//! again), until somebody who answers for it opens an *epoch*: each log goes on under an origin that ends in another
//! number, and its next fact says which head it took over. A verifier who holds an old head is then told that it is of
//! another epoch, and not that somebody lied.
//!
//! An epoch is named by the second in which it was opened, `20261121154500`, and not by counting: who puts the same backup
//! back twice, or on two machines, would count to 2 twice.
//!
//! Two acts. [`OPEN`] is a person's, in the platform's own log, with a reason; it moves the installation. [`ENTER`] is the
//! installation's own, in each other log, and moves that one after it. The server does it whenever a log is behind.
//!
//! What this does not do: find out that it was put back. The store's mark does, or whoever restores says so.

use act::{Auth, Call, Class, Draw as _, Fault, Method, Plan, Route, Stamp, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::changeset::{Operation, WRITES_EPOCH};
use kernel::{Id, TenantId, calendar, hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document, View};

/// Opens an epoch.
pub const OPEN: &str = "evidence.epoch.open";
/// Lets a log follow.
pub const ENTER: &str = "evidence.epoch.enter";

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 400;

/// An epoch that somebody opened; in the platform's tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochDoc {
    /// `epo_` and the epoch.
    pub id: Id,
    /// The last part of every origin from then on.
    pub epoch: u64,
    /// Why, in the words of whoever opened it.
    pub reason: String,
    /// How the installation knew that it was put back; `None`: it did not.
    pub put_back: Option<String>,
    /// When, milliseconds UTC.
    pub opened_at_ms: i64,
    /// Who.
    pub opened_by: Id,
}

impl Document for EpochDoc {
    const KIND: &'static str = "evidence.epoch";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Arguments of [`OPEN`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Why: what was put back, from when, and what is known to be lost. One line of at most 400 bytes.
    pub reason: String,
}

/// Arguments of [`ENTER`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Enter {}

/// The epoch that is opened at `at_ms`: the second as a number, and always more than the last one.
fn epoch_at(at_ms: i64, last: u64) -> u64 {
    let digits: String = calendar::text(at_ms).chars().filter(char::is_ascii_digit).take(14).collect();
    digits.parse().unwrap_or(0).max(last.saturating_add(1))
}

/// The id of an epoch's record.
fn record_id(epoch: u64) -> Result<Id, Fault> {
    Id::parse(&format!("epo_{epoch}")).map_err(act::internal)
}

/// Moves the acting tenant's log: the operation and the fact, which is the first of the new epoch.
async fn moved(view: &View, stamp: &Stamp, epoch: u64) -> Result<Plan, Fault> {
    let store = view.store();
    let tenant = &stamp.ctx.tenant;
    let head = store.head(tenant).await?.ok_or_else(|| Fault::not_found("log"))?;
    // The commit takes over whatever stands there then; this is what was seen, and says so by its size.
    let outcome = json!({
        "epoch": epoch, "previous": head.origin, "size": head.size, "root": hex::encode(&head.root),
    });
    let id = record_id(epoch)?;
    let mut plan = Plan { draft: stamp.draft(), outcome: outcome.clone() };
    plan.draft.push(Operation::Epoch { epoch }).fact(stamp.fact(
        "evidence.epoch.opened",
        &id,
        (EpochDoc::KIND, &id),
        outcome,
    ));
    Ok(plan)
}

/// The verbs.
pub(crate) fn verbs() -> Vec<Verb> {
    let plain = Verb {
        act: OPEN,
        summary: "Opens an epoch: every log goes on under another origin, and is signed again",
        args: || schemars::schema_for!(Open).into(),
        writes: &["evidence.epoch", WRITES_EPOCH],
        facts: &["evidence.epoch.opened"],
        secret_args: &[],
        on_closed: None,
        // Whoever would approve it cannot: nothing else is done meanwhile.
        can_wait: false,
        aim: Arc::new(|view, args, ctx| {
            async move {
                let args: Open = parse(args)?;
                let standing = view.store().standing().await?;
                let mut target = Target::of(EpochDoc::KIND, ctx.tenant.id());
                target.attributes = json!({"put_back": standing.put_back.is_some()});
                target.preview = vec![
                    ("Open an epoch after".into(), standing.epoch.to_string()),
                    ("Reason".into(), args.reason),
                ];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| open(view, args, stamp).boxed()),
    };
    let enter = Verb {
        act: ENTER,
        summary: "Lets a log follow the installation into its epoch",
        args: || schemars::schema_for!(Enter).into(),
        writes: &[WRITES_EPOCH],
        aim: Arc::new(|_, args, ctx| {
            async move {
                let Enter {} = parse(args)?;
                Ok(Target::of(EpochDoc::KIND, ctx.tenant.id()))
            }
            .boxed()
        }),
        plan: Arc::new(|view, _, stamp| {
            async move {
                let epoch = view.store().standing().await?.epoch;
                moved(view, stamp, epoch).await
            }
            .boxed()
        }),
        ..plain.clone()
    };
    vec![plain, enter]
}

async fn open(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: Open = parse(args)?;
    let tenant = &stamp.ctx.tenant;
    if *tenant != TenantId::platform() {
        return Err(Fault::not_found("installation in this tenant; the platform's own tenant has it"));
    }
    let plain =
        (1..=REASON_BYTES_MAX).contains(&args.reason.len()) && !args.reason.chars().any(char::is_control);
    if !plain {
        return Err(Fault::invalid("request.invalid", "a reason is one line of 1 to 400 bytes"));
    }
    let standing = view.store().standing().await?;
    let epoch = epoch_at(stamp.at_ms, standing.epoch);
    let mut plan = moved(view, stamp, epoch).await?;
    plan.draft.put_new(&EpochDoc {
        id: record_id(epoch)?,
        epoch,
        reason: args.reason,
        put_back: standing.put_back,
        opened_at_ms: stamp.at_ms,
        opened_by: stamp.ctx.principal.id.clone(),
    });
    Ok(plan)
}

/// The routes.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::Post,
            path: "/v1/epochs",
            operation: "epoch_open",
            summary: "Open an epoch after the installation was put back (of the platform)",
            auth: Auth::Principal,
            call: Call::Verb(OPEN),
            query: &[],
        },
        Route {
            method: Method::Get,
            path: "/v1/epochs",
            operation: "epoch_list",
            summary: "List the epochs that the tenant's log went through, first to last",
            auth: Auth::Principal,
            call: Call::Query(
                "evidence.epoch.read",
                Arc::new(|query| {
                    async move {
                        let (store, tenant) = (query.view.store(), query.view.tenant());
                        let mut items = Vec::new();
                        for row in store.epochs(tenant).await? {
                            let doc = query.view.peek::<EpochDoc>(&record_id(row.epoch)?).await?;
                            items.push(json!({
                                "epoch": row.epoch, "opened_at_ms": row.at_ms, "size": row.size,
                                "root": hex::encode(&row.root), "previous": row.previous,
                                "reason": doc.as_ref().map(|doc| &doc.reason),
                                "opened_by": doc.as_ref().map(|doc| &doc.opened_by),
                            }));
                        }
                        Ok(json!({"items": items}))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
    ]
}

/// What whoever wants an act is told while the installation is put back.
pub fn closed(why: &str) -> Fault {
    Fault::new(
        Class::Unavailable,
        "evidence.put_back",
        format!("nothing is done until an operator opens an epoch: {why}"),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_epoch_is_named_by_its_second_and_always_the_largest() {
        // 2026-11-21 15:45:00 UTC.
        let at_ms = 1_795_275_900_000;
        for (last, expected) in [
            (1, 20_261_121_154_500),
            (20_261_121_154_459, 20_261_121_154_500),
            (20_261_121_154_500, 20_261_121_154_501),
            (90_000_101_000_000, 90_000_101_000_001),
        ] {
            assert_eq!(super::epoch_at(at_ms, last), expected);
        }
        assert_eq!(super::epoch_at(at_ms + 999, 1), 20_261_121_154_500);
    }
}
