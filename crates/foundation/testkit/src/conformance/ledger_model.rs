//! The ledger against a model of it that keeps no balance: every sum is added up anew from the list of what was done.
//!
//! Accounts, holds and amounts are drawn from small pools, so that transfers meet bounds and one another all the time. The
//! model says whether a changeset must succeed and, if not, why; after every few steps all that can be read is compared.
//! A failure names the seed.

use super::bed::{Bed, id};
use super::ledger::{changeset, hold, open, post, settle, spec, void};
use crate::Random;
use kernel::TenantId;
use kernel::changeset::Operation;
use kernel::ledger::{AccountSpec, Exceed, Kind, Refused, Step};
use std::collections::BTreeMap;
use store::{CommitError, PAGE_MAX};

const STEPS: usize = 60;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TRANSFERS: usize = 14;

/// A row as the model keeps it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    id: String,
    kind: Kind,
    from: String,
    to: String,
    amount: i64,
    hold: Option<String>,
    expires_at_ms: Option<i64>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    accounts: BTreeMap<String, AccountSpec>,
    rows: Vec<Row>,
}

/// Why a changeset must fail, as far as the model tells.
#[derive(Debug, PartialEq)]
enum Why {
    Short(String),
    Ledger,
}

impl Model {
    fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }

    fn ended(&self, hold: &str) -> Vec<Kind> {
        self.rows.iter().filter(|row| row.hold.as_deref() == Some(hold)).map(|row| row.kind).collect()
    }

    fn pending(&self, row: &Row) -> bool {
        row.kind == Kind::Held && self.ended(&row.id).is_empty()
    }

    /// Debits posted and pending, credits posted and pending.
    fn sums(&self, account: &str) -> [i64; 4] {
        let mut sums = [0; 4];
        for row in &self.rows {
            let pending = self.pending(row);
            let counts = pending || matches!(row.kind, Kind::Posted | Kind::Settled);
            if counts && row.from == account {
                sums[usize::from(pending)] += row.amount;
            }
            if counts && row.to == account {
                sums[2 + usize::from(pending)] += row.amount;
            }
        }
        sums
    }

    fn low(&self, account: &str) -> bool {
        let [out, held, into, _] = self.sums(account);
        self.accounts[account].floor.is_some_and(|floor| into - out - held < floor)
    }

    fn high(&self, account: &str) -> bool {
        let [out, _, into, held] = self.sums(account);
        self.accounts[account].ceiling.is_some_and(|ceiling| into + held - out > ceiling)
    }

    /// Does all operations or none.
    fn apply(&mut self, operations: &[Operation]) -> Result<(), Why> {
        let mut next = self.clone();
        for operation in operations {
            if let Operation::Account(spec) = operation {
                next.accounts.insert(spec.id.to_string(), spec.clone());
            }
        }
        for operation in operations {
            let Operation::Transfer(transfer) = operation else { continue };
            next.one(transfer.id.as_str(), &transfer.step)?;
        }
        *self = next;
        Ok(())
    }

    fn one(&mut self, name: &str, step: &Step) -> Result<(), Why> {
        let new = |kind, from: &str, to: &str, amount, hold: Option<&str>, expires_at_ms| Row {
            id: name.into(),
            kind,
            from: from.into(),
            to: to.into(),
            amount,
            hold: hold.map(str::to_owned),
            expires_at_ms,
        };
        let (row, bounds) = match step {
            Step::Post { debit, credit, amount } => {
                (new(Kind::Posted, debit.as_str(), credit.as_str(), *amount, None, None), (true, true))
            }
            Step::Hold { debit, credit, amount, expires_at_ms } => {
                let row =
                    new(Kind::Held, debit.as_str(), credit.as_str(), *amount, None, Some(*expires_at_ms));
                (row, (true, true))
            }
            Step::Settle { hold, amount } => {
                let held = self.row(hold.as_str()).filter(|row| row.kind == Kind::Held).cloned();
                let held = held.ok_or(Why::Ledger)?;
                let row = new(Kind::Settled, &held.from, &held.to, *amount, Some(hold.as_str()), None);
                let left = match self.ended(hold.as_str())[..] {
                    [] => held.amount,
                    [Kind::Expired] => 0,
                    _ if self.row(name).is_some() => 0,
                    _ => return Err(Why::Ledger),
                };
                let exceeds = *amount > left && self.row(name).is_none();
                let (from, to) = (self.accounts[&held.from].exceed, self.accounts[&held.to].exceed);
                if exceeds && (from == Exceed::Never || to == Exceed::Never) {
                    return Err(Why::Ledger);
                }
                (row, (exceeds && from == Exceed::Within, exceeds && to == Exceed::Within))
            }
            Step::Void { hold } => {
                let held = self.row(hold.as_str()).filter(|row| row.kind == Kind::Held).cloned();
                let held = held.ok_or(Why::Ledger)?;
                if !self.ended(hold.as_str()).is_empty() && self.row(name).is_none() {
                    return Err(Why::Ledger);
                }
                (
                    new(Kind::Voided, &held.from, &held.to, held.amount, Some(hold.as_str()), None),
                    (false, false),
                )
            }
        };
        if let Some(stored) = self.row(name) {
            return if *stored == row { Ok(()) } else { Err(Why::Ledger) };
        }
        let positive = row.amount > 0 || (row.kind == Kind::Settled && row.amount == 0);
        let known = self.accounts.contains_key(&row.from) && self.accounts.contains_key(&row.to);
        if row.from == row.to || !positive || !known {
            return Err(Why::Ledger);
        }
        let (from, to) = (row.from.clone(), row.to.clone());
        self.rows.push(row);
        if bounds.0 && self.low(&from) {
            return Err(Why::Short(from));
        }
        if bounds.1 && self.high(&to) {
            return Err(Why::Short(to));
        }
        Ok(())
    }

    fn expire(&mut self, now_ms: i64, limit: usize) -> usize {
        let mut due: Vec<Row> = self.rows.iter().filter(|row| self.pending(row)).cloned().collect();
        due.retain(|row| row.expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms));
        due.sort_by_key(|row| row.expires_at_ms);
        due.truncate(limit);
        for row in &due {
            let id = row.id.replacen("xfr_", "xpr_", 1);
            self.rows.push(Row {
                id,
                kind: Kind::Expired,
                hold: Some(row.id.clone()),
                expires_at_ms: None,
                ..row.clone()
            });
        }
        due.len()
    }
}

/// Names the seed if the test fails while it lives.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the ledger left its model with seed {}", self.0);
        }
    }
}

/// Bounds and policy at random; the floor is never above the ceiling.
fn account(random: &mut Random) -> AccountSpec {
    let exceed = *random.pick(&[Exceed::Never, Exceed::Within, Exceed::Always]);
    let name = *random.pick(&NAMES);
    let floor = random.chance(60).then(|| -(random.below(40) as i64));
    let ceiling = random.chance(40).then(|| random.below(40) as i64);
    AccountSpec { floor, ceiling, exceed, ..spec(name) }
}

fn operation(random: &mut Random, now_ms: i64, used: &mut [i64; TRANSFERS]) -> Operation {
    let slot = random.below(TRANSFERS);
    // Mostly an id that is new; sometimes one that has been used.
    used[slot] += i64::from(!random.chance(15));
    let name = format!("{slot}x{}", used[slot]);
    let (from, to) = (*random.pick(&NAMES), *random.pick(&NAMES));
    let amount = random.below(25) as i64 - 1;
    let held = {
        let slot = random.below(TRANSFERS);
        format!("{slot}x{}", used[slot])
    };
    match random.below(10) {
        0 => open(account(random)),
        1 | 2 => post(&name, from, to, amount),
        3..6 => hold(&name, from, to, amount, now_ms + random.below(50) as i64),
        6..8 => settle(&name, &held, amount),
        _ => void(&name, &held),
    }
}

async fn compare(bed: &Bed, tenant: &TenantId, model: &Model) {
    let mut totals = [0i128; 4];
    for account in bed.store().accounts(tenant, None, PAGE_MAX).await.unwrap() {
        let name = account.spec.id.to_string();
        assert_eq!(account.spec, model.accounts[&name]);
        let b = account.balance;
        let sums = [b.debits_posted, b.debits_pending, b.credits_posted, b.credits_pending];
        assert_eq!(sums, model.sums(&name), "{name}");
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total += i128::from(sum);
        }
        let statement =
            bed.store().statement(tenant, &account.spec.id, None, PAGE_MAX).await.unwrap().unwrap();
        let rows: Vec<(String, Kind, i64)> =
            statement.rows.iter().rev().map(|row| (row.id.to_string(), row.kind, row.amount)).collect();
        let own = model.rows.iter().filter(|row| row.from == name || row.to == name);
        assert_eq!(rows, own.map(|row| (row.id.clone(), row.kind, row.amount)).collect::<Vec<_>>());
    }
    assert_eq!((totals[0], totals[1]), (totals[2], totals[3]), "debits are credits");
}

async fn seed_run(bed: &mut Bed, seed: u64) {
    let _named = Seed(seed);
    let mut random = Random::seeded(seed);
    let tenant = bed.tenant(&format!("l{seed}")).await;
    let mut model = Model::default();
    let mut used = [0i64; TRANSFERS];
    let opened: Vec<Operation> = NAMES.iter().map(|name| open(spec(name))).collect();
    model.apply(&opened).unwrap();
    bed.store().commit(changeset(bed, &tenant, opened)).await.unwrap();
    for step in 0..STEPS {
        match random.below(12) {
            0 => bed.clock.advance_ms(random.below(40) as i64),
            1 => {
                let limit = random.below(4);
                let count = bed.store().holds_expire(limit).await.unwrap();
                assert_eq!(count, model.expire(bed.now_ms(), limit));
            }
            2 if random.chance(10) => bed.restart().await,
            _ => {
                let count = 1 + random.below(4);
                let operations: Vec<_> =
                    (0..count).map(|_| operation(&mut random, bed.now_ms(), &mut used)).collect();
                let expected = model.apply(&operations);
                let result = bed.store().commit(changeset(bed, &tenant, operations.clone())).await;
                let found = match &result {
                    Ok(_) => Ok(()),
                    Err(CommitError::Insufficient { account }) => Err(Why::Short(account.to_string())),
                    Err(CommitError::Ledger(_)) => Err(Why::Ledger),
                    Err(error) => panic!("{error:?} for {operations:?}"),
                };
                assert_eq!(found, expected, "{operations:?}");
            }
        }
        if step % 6 == 0 {
            compare(bed, &tenant, &model).await;
        }
    }
    compare(bed, &tenant, &model).await;
    // The next seed finds no holds.
    bed.clock.advance_ms(1_000);
    while bed.store().holds_expire(PAGE_MAX).await.unwrap() > 0 {}
    let unknown = bed.store().commit(changeset(bed, &tenant, vec![void("end", "none")])).await;
    assert!(
        matches!(unknown, Err(CommitError::Ledger(Refused::HoldUnknown(hold))) if hold == id("xfr_none"))
    );
}

async fn seeds(mut bed: Bed, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        seed_run(&mut bed, seed).await;
    }
}

/// Twenty-five runs of sixty steps.
pub async fn seeds_0_to_24(bed: Bed) {
    seeds(bed, 0..25).await;
}

/// Twenty-five runs of sixty steps.
pub async fn seeds_25_to_49(bed: Bed) {
    seeds(bed, 25..50).await;
}

/// Twenty-five runs of sixty steps.
pub async fn seeds_50_to_74(bed: Bed) {
    seeds(bed, 50..75).await;
}
