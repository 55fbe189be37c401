//! The ledger at commit: bounds, holds, ids that stand for one transfer, and neighbours that notice nothing.

use super::bed::{Bed, ITEM, id, item, new, tenant_id};
use super::refused;
use kernel::changeset::{Changeset, Operation};
use kernel::ledger::{AccountSpec, Exceed, Kind, Refused, Step, Transfer, WRITES_ACCOUNT, WRITES_TRANSFER};
use kernel::permit::Grant;
use kernel::{Id, TenantId};
use store::{CommitError, Committed, PAGE_MAX};

/// An account `acc_<name>` without bounds; say what differs with the update syntax.
pub(crate) fn spec(name: &str) -> AccountSpec {
    AccountSpec {
        id: id(&format!("acc_{name}")),
        code: "test.purse".into(),
        unit: "USD".into(),
        floor: None,
        ceiling: None,
        exceed: Exceed::Never,
    }
}

/// An account that can spend so much.
pub(crate) fn purse(name: &str, most: i64) -> AccountSpec {
    AccountSpec { floor: Some(-most), ..spec(name) }
}

pub(crate) fn open(spec: AccountSpec) -> Operation {
    Operation::Account(spec)
}

fn transfer(name: &str, step: Step) -> Operation {
    Operation::Transfer(Transfer { id: id(&format!("xfr_{name}")), reference: id("cal_1"), step })
}

fn acc(name: &str) -> Id {
    id(&format!("acc_{name}"))
}

pub(crate) fn post(name: &str, from: &str, to: &str, amount: i64) -> Operation {
    transfer(name, Step::Post { debit: acc(from), credit: acc(to), amount })
}

pub(crate) fn hold(name: &str, from: &str, to: &str, amount: i64, expires_at_ms: i64) -> Operation {
    transfer(name, Step::Hold { debit: acc(from), credit: acc(to), amount, expires_at_ms })
}

pub(crate) fn settle(name: &str, held: &str, amount: i64) -> Operation {
    transfer(name, Step::Settle { hold: id(&format!("xfr_{held}")), amount })
}

pub(crate) fn void(name: &str, held: &str) -> Operation {
    transfer(name, Step::Void { hold: id(&format!("xfr_{held}")) })
}

/// A changeset that may move money, with one fact.
pub(crate) fn changeset(bed: &Bed, tenant: &TenantId, operations: Vec<Operation>) -> Changeset {
    let grant = Grant { writes: &[ITEM, WRITES_ACCOUNT, WRITES_TRANSFER], ..bed.grant(tenant) };
    Changeset::under(vec![bed.mint.permit(grant)], bed.draft(operations, "run_a")).expect("within limits")
}

pub(crate) async fn commit(
    bed: &Bed,
    tenant: &TenantId,
    operations: Vec<Operation>,
) -> Result<Committed, CommitError> {
    bed.store().commit(changeset(bed, tenant, operations)).await
}

async fn done(bed: &Bed, tenant: &TenantId, operations: Vec<Operation>) {
    commit(bed, tenant, operations).await.expect("nothing stands in the way");
}

/// Posted and pending debits of an account, then posted and pending credits.
async fn sums(bed: &Bed, tenant: &TenantId, name: &str) -> [i64; 4] {
    let account = bed.store().account(tenant, &acc(name)).await.unwrap().expect("the account is open");
    let b = account.balance;
    [b.debits_posted, b.debits_pending, b.credits_posted, b.credits_pending]
}

async fn kinds(bed: &Bed, tenant: &TenantId, name: &str) -> Vec<Kind> {
    let statement = bed.store().statement(tenant, &acc(name), None, PAGE_MAX).await.unwrap().unwrap();
    statement.rows.iter().rev().map(|row| row.kind).collect()
}

fn short(result: &Result<Committed, CommitError>, name: &str) -> bool {
    matches!(result, Err(CommitError::Insufficient { account }) if *account == acc(name))
}

/// A purse of 100, a shop, and a tenant that has them.
async fn shopping(bed: &Bed) -> TenantId {
    let tenant = bed.tenant("a").await;
    done(bed, &tenant, vec![open(purse("purse", 100)), open(spec("shop"))]).await;
    tenant
}

/// Bounds move, below what is spent too; code and unit do not.
pub async fn an_account_keeps_its_sort_and_moves_its_bounds(bed: Bed) {
    let tenant = shopping(&bed).await;
    done(&bed, &tenant, vec![post("1", "purse", "shop", 60)]).await;
    for other in [
        AccountSpec { unit: "EUR".into(), ..purse("purse", 100) },
        AccountSpec { code: "test.bag".into(), ..purse("purse", 100) },
    ] {
        refused!(commit(&bed, &tenant, vec![open(other)]).await, CommitError::Ledger(Refused::Taken(_)));
    }
    // Lower than what is spent: no more goes out, and what was spent stands.
    done(&bed, &tenant, vec![open(purse("purse", 50))]).await;
    let account = bed.store().account(&tenant, &acc("purse")).await.unwrap().unwrap();
    assert_eq!((account.spec.floor, account.available()), (Some(-50), Some(0)));
    assert_eq!(sums(&bed, &tenant, "purse").await, [60, 0, 0, 0]);
    assert!(short(&commit(&bed, &tenant, vec![post("2", "purse", "shop", 1)]).await, "purse"));
    // Opened and used in one changeset, whatever the order.
    done(&bed, &tenant, vec![post("3", "new", "shop", 5), open(purse("new", 5))]).await;
    assert_eq!(sums(&bed, &tenant, "new").await, [5, 0, 0, 0]);
}

/// Asked for three times, done once; and the row names the fact beside it.
pub async fn a_transfer_is_done_once_by_its_id(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    let all = || {
        vec![
            post("1", "purse", "shop", 10),
            hold("2", "purse", "shop", 20, far),
            hold("3", "purse", "shop", 30, far),
            settle("4", "2", 15),
            void("5", "3"),
        ]
    };
    for _ in 0..3 {
        done(&bed, &tenant, all()).await;
        assert_eq!(sums(&bed, &tenant, "purse").await, [25, 0, 0, 0]);
        assert_eq!(sums(&bed, &tenant, "shop").await, [0, 0, 25, 0]);
    }
    done(&bed, &tenant, vec![post("6", "purse", "shop", 1), post("6", "purse", "shop", 1)]).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [26, 0, 0, 0]);
    let row = bed.store().transfer(&tenant, &id("xfr_4")).await.unwrap().unwrap();
    let leaf_ids: Vec<String> = {
        bed.settle().await;
        let leaves = bed.log_checked(&tenant).await;
        leaves.iter().map(|row| kernel::fact::read(&row.leaf).unwrap().id.to_string()).collect()
    };
    assert_eq!((row.kind, row.amount, row.hold), (Kind::Settled, 15, Some(id("xfr_2"))));
    assert!(
        leaf_ids.contains(&row.fact.expect("a changeset did it").to_string()),
        "a row names the fact beside it"
    );
}

/// The same id with anything else in it is refused, and the changeset with it.
pub async fn an_id_stands_for_one_transfer(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    done(&bed, &tenant, vec![open(spec("other")), post("1", "purse", "shop", 10)]).await;
    done(&bed, &tenant, vec![hold("2", "purse", "shop", 10, far), settle("3", "2", 5)]).await;
    done(&bed, &tenant, vec![hold("4", "purse", "shop", 10, far)]).await;
    let reference = Transfer {
        id: id("xfr_1"),
        reference: id("cal_2"),
        step: Step::Post { debit: acc("purse"), credit: acc("shop"), amount: 10 },
    };
    for other in [
        post("1", "purse", "shop", 11),
        post("1", "purse", "other", 10),
        post("1", "other", "shop", 10),
        Operation::Transfer(reference),
        hold("1", "purse", "shop", 10, far),
        hold("2", "purse", "shop", 10, far + 1),
        settle("3", "2", 6),
        void("3", "2"),
        settle("3", "4", 5),
    ] {
        let result = commit(&bed, &tenant, vec![new("rec_x"), other]).await;
        refused!(result, CommitError::Ledger(Refused::Taken(_)));
    }
    assert_eq!(bed.rev(&tenant, "rec_x").await, None);
    assert_eq!(sums(&bed, &tenant, "purse").await, [15, 10, 0, 0]);
}

/// Zero, negative and overflowing amounts, one account on both sides, two units, nobody's accounts and holds.
pub async fn what_makes_no_sense_is_refused(bed: Bed) {
    let tenant = shopping(&bed).await;
    let euros = AccountSpec { unit: "EUR".into(), ..spec("euros") };
    done(&bed, &tenant, vec![open(euros), open(spec("bank")), post("1", "bank", "shop", i64::MAX)]).await;
    let own = Transfer {
        id: id("xpr_1"),
        reference: id("cal_1"),
        step: Step::Post { debit: acc("bank"), credit: acc("purse"), amount: 1 },
    };
    for (operation, why) in [
        (post("2", "purse", "shop", 0), Refused::Amount),
        (post("2", "purse", "shop", -1), Refused::Amount),
        (post("2", "purse", "shop", i64::MIN), Refused::Amount),
        (hold("2", "purse", "shop", 0, 1), Refused::Amount),
        (post("2", "purse", "purse", 1), Refused::SameAccount),
        (post("2", "purse", "euros", 1), Refused::Unit),
        (post("2", "purse", "nobody", 1), Refused::AccountUnknown(acc("nobody"))),
        (post("2", "nobody", "purse", 1), Refused::AccountUnknown(acc("nobody"))),
        (post("2", "purse", "shop", 1), Refused::Overflow(acc("shop"))),
        (settle("2", "none", 1), Refused::HoldUnknown(id("xfr_none"))),
        (settle("2", "1", 1), Refused::HoldUnknown(id("xfr_1"))),
        (void("2", "1"), Refused::HoldUnknown(id("xfr_1"))),
        (Operation::Transfer(own), Refused::Malformed("the id of a transfer")),
        (open(AccountSpec { id: id("bud_1"), ..spec("x") }), Refused::Malformed("the id of an account")),
        (
            open(AccountSpec { floor: Some(1), ceiling: Some(0), ..spec("x") }),
            Refused::Malformed("a floor above its ceiling"),
        ),
    ] {
        let result = commit(&bed, &tenant, vec![operation.clone()]).await;
        assert!(
            matches!(&result, Err(CommitError::Ledger(refused)) if *refused == why),
            "{operation:?}: {result:?}"
        );
    }
    assert_eq!(sums(&bed, &tenant, "purse").await, [0; 4]);
    assert_eq!(bed.store().transfer(&tenant, &id("xfr_2")).await.unwrap(), None);
}

/// Neither below its floor nor above its ceiling; what comes back can be spent again.
pub async fn no_account_goes_beyond_its_bounds(bed: Bed) {
    let tenant = shopping(&bed).await;
    done(&bed, &tenant, vec![open(AccountSpec { ceiling: Some(70), ..spec("jar") })]).await;
    assert!(short(&commit(&bed, &tenant, vec![post("1", "purse", "shop", 101)]).await, "purse"));
    assert!(short(&commit(&bed, &tenant, vec![post("1", "shop", "jar", 71)]).await, "jar"));
    done(&bed, &tenant, vec![post("1", "shop", "jar", 70), post("2", "purse", "shop", 100)]).await;
    assert!(short(&commit(&bed, &tenant, vec![post("3", "purse", "shop", 1)]).await, "purse"));
    assert!(short(&commit(&bed, &tenant, vec![post("3", "shop", "jar", 1)]).await, "jar"));
    // What comes back can be spent again.
    done(&bed, &tenant, vec![post("4", "shop", "purse", 30)]).await;
    done(&bed, &tenant, vec![post("6", "purse", "shop", 30)]).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [130, 0, 30, 0]);
}

/// What is held cannot be held again; what a settlement leaves can.
pub async fn holds_count_as_spent_until_they_end(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    done(&bed, &tenant, vec![hold("1", "purse", "shop", 70, far)]).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [0, 70, 0, 0]);
    assert_eq!(sums(&bed, &tenant, "shop").await, [0, 0, 0, 70]);
    assert!(short(&commit(&bed, &tenant, vec![hold("2", "purse", "shop", 31, far)]).await, "purse"));
    done(&bed, &tenant, vec![hold("2", "purse", "shop", 30, far)]).await;
    // Settled for less: the rest is free. Voided: all of it.
    done(&bed, &tenant, vec![settle("3", "1", 20)]).await;
    done(&bed, &tenant, vec![hold("4", "purse", "shop", 50, far)]).await;
    assert!(short(&commit(&bed, &tenant, vec![hold("5", "purse", "shop", 1, far)]).await, "purse"));
    done(&bed, &tenant, vec![void("6", "2"), void("7", "4"), post("8", "purse", "shop", 80)]).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [100, 0, 0, 0]);
    assert_eq!(sums(&bed, &tenant, "shop").await, [0, 0, 100, 0]);
}

/// In one way, however many want to end it at once.
pub async fn a_hold_ends_once(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    done(&bed, &tenant, vec![hold("1", "purse", "shop", 10, far), hold("2", "purse", "shop", 10, far)]).await;
    done(&bed, &tenant, vec![settle("3", "1", 4), void("4", "2")]).await;
    for again in [settle("5", "1", 4), void("5", "1"), settle("5", "2", 1), void("5", "2")] {
        refused!(commit(&bed, &tenant, vec![again]).await, CommitError::Ledger(Refused::HoldClosed(_)));
    }
    // Many want to end one hold, each in its own way.
    done(&bed, &tenant, vec![hold("6", "purse", "shop", 10, far)]).await;
    let ends: Vec<_> = (0..20)
        .map(|n| {
            let name = format!("e{n}");
            let end = if n % 2 == 0 { settle(&name, "6", n) } else { void(&name, "6") };
            bed.store().commit(changeset(&bed, &tenant, vec![end]))
        })
        .collect();
    let ended = futures::future::join_all(ends).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(ended, 1);
    let [_, pending, ..] = sums(&bed, &tenant, "purse").await;
    assert_eq!(pending, 0);
}

/// Never, within the bounds, or always.
pub async fn a_settlement_beyond_its_hold_is_the_accounts_to_permit(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let far = bed.now_ms() + 1_000_000;
    for (name, exceed) in [("never", Exceed::Never), ("within", Exceed::Within), ("always", Exceed::Always)] {
        done(&bed, &tenant, vec![open(AccountSpec { exceed, ..purse(name, 100) })]).await;
    }
    done(&bed, &tenant, vec![open(AccountSpec { exceed: Exceed::Always, ..spec("shop") })]).await;
    for name in ["never", "within", "always"] {
        done(&bed, &tenant, vec![hold(name, name, "shop", 60, far)]).await;
    }
    refused!(
        commit(&bed, &tenant, vec![settle("1", "never", 61)]).await,
        CommitError::Ledger(Refused::Exceeds(_))
    );
    assert!(short(&commit(&bed, &tenant, vec![settle("1", "within", 101)]).await, "within"));
    done(&bed, &tenant, vec![settle("1", "within", 100), settle("2", "always", 250)]).await;
    assert_eq!(sums(&bed, &tenant, "always").await, [250, 0, 0, 0]);
    // Written down, and now nothing fits any more.
    assert!(short(&commit(&bed, &tenant, vec![hold("3", "always", "shop", 1, far)]).await, "always"));
}

/// Oldest first, by the engine's clock, each with a row of its own.
pub async fn holds_run_out_and_are_let_go(bed: Bed) {
    let tenant = shopping(&bed).await;
    let now_ms = bed.now_ms();
    let held = vec![
        hold("1", "purse", "shop", 10, now_ms + 100),
        hold("2", "purse", "shop", 20, now_ms + 200),
        hold("3", "purse", "shop", 30, now_ms + 300),
        hold("4", "purse", "shop", 40, now_ms + 100),
    ];
    done(&bed, &tenant, held).await;
    done(&bed, &tenant, vec![settle("5", "4", 40)]).await;
    assert_eq!(bed.store().holds_expire(10).await.unwrap(), 0);
    bed.clock.advance_ms(200);
    // Until they are let go they count, and they can be settled in full.
    assert!(short(&commit(&bed, &tenant, vec![post("6", "purse", "shop", 1)]).await, "purse"));
    assert_eq!(bed.store().holds_expire(1).await.unwrap(), 1);
    assert_eq!(sums(&bed, &tenant, "purse").await, [40, 50, 0, 0]);
    assert_eq!(bed.store().holds_expire(10).await.unwrap(), 1);
    assert_eq!(bed.store().holds_expire(10).await.unwrap(), 0);
    assert_eq!(sums(&bed, &tenant, "purse").await, [40, 30, 0, 0]);
    assert_eq!(sums(&bed, &tenant, "shop").await, [0, 0, 40, 30]);
    let row = bed.store().transfer(&tenant, &id("xpr_1")).await.unwrap().unwrap();
    assert_eq!((row.kind, row.amount, row.hold, row.fact), (Kind::Expired, 10, Some(id("xfr_1")), None));
    refused!(commit(&bed, &tenant, vec![void("7", "1")]).await, CommitError::Ledger(Refused::HoldClosed(_)));
}

/// Only where the accounts permit what nothing is held for any more.
pub async fn a_hold_that_ran_out_may_be_settled_late(bed: Bed) {
    let tenant = shopping(&bed).await;
    let soon = bed.now_ms() + 10;
    let lax = |name: &str| AccountSpec { exceed: Exceed::Always, ..purse(name, 100) };
    done(&bed, &tenant, vec![open(lax("lax")), open(AccountSpec { exceed: Exceed::Always, ..spec("sink") })])
        .await;
    done(&bed, &tenant, vec![hold("1", "purse", "shop", 10, soon), hold("2", "lax", "sink", 10, soon)]).await;
    bed.clock.advance_ms(10);
    assert_eq!(bed.store().holds_expire(10).await.unwrap(), 2);
    // Nothing is set aside any more, so it exceeds what is.
    refused!(
        commit(&bed, &tenant, vec![settle("3", "1", 5)]).await,
        CommitError::Ledger(Refused::Exceeds(_))
    );
    done(&bed, &tenant, vec![settle("3", "1", 0)]).await;
    done(&bed, &tenant, vec![settle("4", "2", 5)]).await;
    done(&bed, &tenant, vec![settle("4", "2", 5)]).await;
    refused!(
        commit(&bed, &tenant, vec![settle("5", "2", 5)]).await,
        CommitError::Ledger(Refused::HoldClosed(_))
    );
    assert_eq!(sums(&bed, &tenant, "lax").await, [5, 0, 0, 0]);
    assert_eq!(kinds(&bed, &tenant, "lax").await, [Kind::Held, Kind::Expired, Kind::Settled]);
}

/// And with the records and facts beside them.
pub async fn several_holds_are_taken_together_or_not_at_all(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    done(&bed, &tenant, vec![open(purse("small", 5)), open(purse("big", 1000))]).await;
    let both = vec![
        new("rec_a"),
        hold("1", "big", "shop", 10, far),
        hold("2", "purse", "shop", 10, far),
        hold("3", "small", "shop", 10, far),
    ];
    assert!(short(&commit(&bed, &tenant, both).await, "small"));
    for name in ["big", "purse", "small", "shop"] {
        assert_eq!(sums(&bed, &tenant, name).await, [0; 4], "{name}");
    }
    assert_eq!(bed.rev(&tenant, "rec_a").await, None);
    // A conflict elsewhere takes them back too, and a transfer that cannot be done takes the record back.
    let conflict = vec![hold("1", "big", "shop", 10, far), super::bed::update("rec_a", 7, "x")];
    refused!(commit(&bed, &tenant, conflict).await, CommitError::Conflict { .. });
    assert_eq!(sums(&bed, &tenant, "big").await, [0; 4]);
}

/// In one group commit, every third cannot.
pub async fn one_that_cannot_pay_leaves_its_neighbours_untouched(bed: Bed) {
    let tenant = shopping(&bed).await;
    let waiting: Vec<_> = (0..60)
        .map(|n| {
            let amount = if n % 3 == 0 { 1_000 } else { 1 };
            let operations = vec![new(&format!("rec_{n}")), post(&n.to_string(), "purse", "shop", amount)];
            bed.store().commit(changeset(&bed, &tenant, operations))
        })
        .collect();
    for (n, result) in futures::future::join_all(waiting).await.iter().enumerate() {
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
        assert_eq!(bed.rev(&tenant, &format!("rec_{n}")).await.is_some(), n % 3 != 0);
        assert!(result.is_ok() || short(result, "purse"));
    }
    assert_eq!(sums(&bed, &tenant, "purse").await, [40, 0, 0, 0]);
}

/// Sixty-four at once, budgets for so many, in one group commit or in several.
pub async fn exactly_as_many_as_fit(bed: Bed) {
    let far = bed.now_ms() + 1_000_000;
    for fits in [0, 1, 7, 63, 64] {
        let tenant = bed.tenant(&format!("n{fits}")).await;
        // One unit less than one more would take.
        done(&bed, &tenant, vec![open(purse("purse", 10 * fits + 9)), open(spec("shop"))]).await;
        let callers: Vec<_> = (0..64)
            .map(|n| {
                let operations =
                    vec![new(&format!("rec_{n}")), hold(&n.to_string(), "purse", "shop", 10, far)];
                bed.store().commit(changeset(&bed, &tenant, operations))
            })
            .collect();
        let results = futures::future::join_all(callers).await;
        let granted: Vec<usize> = (0..64).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(granted.len() as i64, fits);
        assert!(results.iter().all(|result| result.is_ok() || short(result, "purse")));
        for n in &granted {
            done(&bed, &tenant, vec![settle(&format!("s{n}"), &n.to_string(), 10)]).await;
        }
        assert_eq!(sums(&bed, &tenant, "purse").await, [10 * fits, 0, 0, 0]);
        assert_eq!(sums(&bed, &tenant, "shop").await, [0, 0, 10 * fits, 0]);
    }
}

/// Each sees what the ones before it leave.
pub async fn transfers_of_one_changeset_build_on_one_another(bed: Bed) {
    let tenant = shopping(&bed).await;
    let far = bed.now_ms() + 1_000_000;
    // The second fits only because the first is settled for less; the last has nothing left.
    let chain = |last: i64| {
        vec![
            hold("1", "purse", "shop", 100, far),
            settle("2", "1", 40),
            hold("3", "purse", "shop", 60, far),
            void("4", "3"),
            post("5", "purse", "shop", last),
        ]
    };
    assert!(short(&commit(&bed, &tenant, chain(61)).await, "purse"));
    assert_eq!(sums(&bed, &tenant, "purse").await, [0; 4]);
    done(&bed, &tenant, chain(60)).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [100, 0, 0, 0]);
}

/// Another tenant's accounts, transfers and holds do not exist.
pub async fn ledgers_of_tenants_are_apart(bed: Bed) {
    let tenant = shopping(&bed).await;
    let other = bed.tenant("b").await;
    let far = bed.now_ms() + 1_000_000;
    done(&bed, &tenant, vec![hold("1", "purse", "shop", 10, far)]).await;
    let store = bed.store();
    assert_eq!(store.account(&other, &acc("purse")).await.unwrap(), None);
    assert_eq!(store.accounts(&other, None, 10).await.unwrap(), vec![]);
    assert_eq!(store.transfer(&other, &id("xfr_1")).await.unwrap(), None);
    assert_eq!(store.statement(&other, &acc("purse"), None, 10).await.unwrap(), None);
    refused!(
        commit(&bed, &other, vec![post("2", "purse", "shop", 1)]).await,
        CommitError::Ledger(Refused::AccountUnknown(_))
    );
    refused!(commit(&bed, &other, vec![void("2", "1")]).await, CommitError::Ledger(Refused::HoldUnknown(_)));
    // The same names are other accounts and other transfers there.
    done(&bed, &other, vec![open(purse("purse", 1)), open(spec("shop")), post("1", "purse", "shop", 1)])
        .await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [0, 10, 0, 0]);
    assert_eq!(sums(&bed, &other, "purse").await, [1, 0, 0, 0]);
    refused!(commit(&bed, &tenant_id("nobody"), vec![void("2", "1")]).await, CommitError::Log);
}

/// A permit, or a kind of job, that does not name the ledger does not touch it.
pub async fn only_who_may_moves_money(bed: Bed) {
    let tenant = shopping(&bed).await;
    // The bed's own permits name records only.
    let result = bed.commit(&tenant, vec![post("1", "purse", "shop", 1)]).await;
    refused!(result, CommitError::OutsidePermit(what) if what == WRITES_TRANSFER);
    let result = bed.commit(&tenant, vec![open(purse("purse", 1_000_000))]).await;
    refused!(result, CommitError::OutsidePermit(what) if what == WRITES_ACCOUNT);
    let grant = Grant { writes: &[WRITES_TRANSFER], ..bed.grant(&tenant) };
    let draft = bed.draft(vec![open(purse("purse", 1_000_000))], "run_a");
    let result = bed.store().commit(Changeset::under(vec![bed.mint.permit(grant)], draft).unwrap()).await;
    refused!(result, CommitError::OutsidePermit(what) if what == WRITES_ACCOUNT);
    // A refusal moves nothing, and neither does a job whose kind does not say so.
    let refusal = bed.mint.refusal(tenant.clone(), super::bed::authority(), None);
    assert!(Changeset::refused(refusal, bed.draft(vec![post("1", "purse", "shop", 1)], "run_a")).is_err());
    bed.done(&tenant, vec![Operation::Job(super::bed::job("job_1", bed.now_ms()))]).await;
    let lease = bed.claim(1).await.pop().unwrap();
    let result =
        bed.complete(lease, vec![post("1", "purse", "shop", 1), Operation::Put(item("rec_a"))]).await;
    refused!(result, CommitError::OutsidePermit(what) if what == WRITES_TRANSFER);
    assert_eq!(sums(&bed, &tenant, "purse").await, [0; 4]);
}

/// Both sides of an account in one order, with the balance of that moment.
pub async fn statements_come_newest_first_in_pages(bed: Bed) {
    let tenant = shopping(&bed).await;
    done(&bed, &tenant, vec![open(spec("bank"))]).await;
    for n in 0..7 {
        let (from, to) = if n % 2 == 0 { ("purse", "shop") } else { ("bank", "purse") };
        done(
            &bed,
            &tenant,
            vec![post(&n.to_string(), from, to, n + 1), post(&format!("x{n}"), "bank", "shop", 1)],
        )
        .await;
        bed.clock.advance_ms(1);
    }
    let store = bed.store();
    let mut names = Vec::new();
    let mut before = None;
    loop {
        let page = store.statement(&tenant, &acc("purse"), before, 3).await.unwrap().unwrap();
        assert_eq!(page.account.balance.posted(), -(1 + 3 + 5 + 7) + 2 + 4 + 6);
        let Some(last) = page.rows.last() else { break };
        before = Some(last.n);
        names.extend(page.rows.iter().map(|row| (row.id.to_string(), row.amount, row.at_ms)));
    }
    let start_ms = names.last().unwrap().2;
    let expected: Vec<_> = (0..7i64).rev().map(|n| (format!("xfr_{n}"), n + 1, start_ms + n)).collect();
    assert_eq!(names, expected);
    assert_eq!(store.statement(&tenant, &acc("purse"), Some(0), 3).await.unwrap().unwrap().rows, vec![]);
    assert_eq!(store.statement(&tenant, &acc("nobody"), None, 3).await.unwrap(), None);
}

/// By their ids, in pages.
pub async fn accounts_are_listed_in_order(bed: Bed) {
    let tenant = bed.tenant("a").await;
    let names = ["b", "a", "d", "c"];
    done(&bed, &tenant, names.iter().map(|name| open(spec(name))).collect()).await;
    let first = bed.store().accounts(&tenant, None, 3).await.unwrap();
    let ids = |accounts: &[kernel::ledger::Account]| -> Vec<String> {
        accounts.iter().map(|account| account.spec.id.to_string()).collect()
    };
    assert_eq!(ids(&first), ["acc_a", "acc_b", "acc_c"]);
    let rest = bed.store().accounts(&tenant, Some(&first[2].spec.id), 3).await.unwrap();
    assert_eq!(ids(&rest), ["acc_d"]);
    assert_eq!(bed.store().accounts(&tenant, None, 0).await.unwrap(), vec![]);
}

/// Balances, open holds, ids that have been used.
pub async fn everything_survives_a_restart(mut bed: Bed) {
    let tenant = shopping(&bed).await;
    let soon = bed.now_ms() + 10;
    done(&bed, &tenant, vec![post("1", "purse", "shop", 10), hold("2", "purse", "shop", 20, soon)]).await;
    done(&bed, &tenant, vec![hold("3", "purse", "shop", 30, soon + 1_000)]).await;
    bed.restart().await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [10, 50, 0, 0]);
    bed.clock.advance_ms(10);
    assert_eq!(bed.store().holds_expire(10).await.unwrap(), 1);
    bed.restart().await;
    done(&bed, &tenant, vec![settle("4", "3", 30), post("1", "purse", "shop", 10)]).await;
    assert_eq!(sums(&bed, &tenant, "purse").await, [40, 0, 0, 0]);
    let expected = [Kind::Posted, Kind::Held, Kind::Held, Kind::Expired, Kind::Settled];
    assert_eq!(kinds(&bed, &tenant, "purse").await, expected);
}
