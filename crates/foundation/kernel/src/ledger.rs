//! The ledger's arithmetic: what a transfer does to two accounts, and when it may not.
//!
//! A budget that is checked in one place and spent in another is passed by the second of two callers who looked at the
//! same moment. So money here is never a number in a document. It moves by *transfers*, one row each, from one account
//! (debited) to another (credited), the same amount on both sides: whatever happens, the sum of all debits is the sum of
//! all credits. And what is going to be spent is *held* first:
//!
//! ```text
//!           hold 300           settle 180 (what it really cost)
//! budget  ───────────▶ pending ───────────▶ posted            the other 120 are free again
//!                         │ void, or time ran out
//!                         └──────────────────────▶ free again
//! ```
//!
//! An account says how far it may go down ([`AccountSpec::floor`]) and up ([`AccountSpec::ceiling`]). Holds count against
//! those bounds as if they were spent, in the direction that is worse for the account: pending debits as if all of them
//! will be settled, pending credits as if none were for the floor and all were for the ceiling. So a hold that was
//! granted can always be settled, and two holds that do not fit together are never both granted. A bound stops only what
//! pushes against it: an account that is beyond its floor, because that was raised, can still be credited.
//!
//! Amounts are integers in the smallest step of the account's unit: millionths for currencies (`USD`), ones for what is
//! counted (`calls`, `tokens`). There are no floats, and a sum that does not fit is refused, not wrapped.
//!
//! Everything is a function from balances to balances. Which accounts exist, which transfer ids have been used and which
//! holds are open is the store's to know; it asks here and writes what comes back, or nothing.

use crate::Id;
use serde::{Deserialize, Serialize};

/// What a permit must cover for a changeset to open an account or to change its bounds.
pub const WRITES_ACCOUNT: &str = "ledger.account";
/// What a permit must cover for a changeset to move, hold, settle or void.
pub const WRITES_TRANSFER: &str = "ledger.transfer";
/// Both: no domain owns them, every domain that declares them may use them on its own tenant's accounts.
pub const WRITES: &[&str] = &[WRITES_ACCOUNT, WRITES_TRANSFER];

/// Longest account code, in bytes.
pub const CODE_BYTES_MAX: usize = 64;
/// Longest unit, in bytes.
pub const UNIT_BYTES_MAX: usize = 16;
/// Prefix of the ids of transfers.
pub const TRANSFER_PREFIX: &str = "xfr";
/// Prefix of the ids of the rows that the store itself writes when the time of a hold has run out.
pub const EXPIRY_PREFIX: &str = "xpr";

/// Whether a settlement may be larger than what was held.
///
/// A provider may bill more than the most that was expected. Whoever owns the account says whether that is then written
/// down: refusing to record a cost does not undo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Exceed {
    /// Never: what is settled is at most what was held.
    #[default]
    Never,
    /// As far as the bounds go.
    Within,
    /// Always, beyond the bounds too; then nothing fits any more until the account is made good.
    Always,
}

/// What an account is, apart from its balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSpec {
    /// `acc_…`
    pub id: Id,
    /// What sort of account, in the chart of those who keep it: `billing.budget`. Fixed.
    pub code: String,
    /// What it counts: an ISO 4217 code, `calls`, `tokens`. Fixed; transfers join accounts of one unit.
    pub unit: String,
    /// The least that credits minus debits may be; `None`: no bound.
    pub floor: Option<i64>,
    /// The most that credits minus debits may be; `None`: no bound.
    pub ceiling: Option<i64>,
    /// Whether a settlement may exceed its hold.
    pub exceed: Exceed,
}

/// The four sums of an account. None is ever negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Debits that are final.
    pub debits_posted: i64,
    /// Credits that are final.
    pub credits_posted: i64,
    /// Debits that are held.
    pub debits_pending: i64,
    /// Credits that are held.
    pub credits_pending: i64,
}

/// An account with its balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What it is.
    pub spec: AccountSpec,
    /// Its sums.
    pub balance: Balance,
}

/// Why the ledger does not do it. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It would take an account beyond its floor or its ceiling.
    #[error("account {0} has not enough left")]
    Insufficient(Id),
    /// An amount that is zero or negative.
    #[error("an amount must be positive")]
    Amount,
    /// From an account to itself.
    #[error("a transfer needs two accounts")]
    SameAccount,
    /// Accounts of different units.
    #[error("the accounts count different things")]
    Unit,
    /// There is no such account.
    #[error("there is no account {0}")]
    AccountUnknown(Id),
    /// There is no such hold.
    #[error("there is no hold {0}")]
    HoldUnknown(Id),
    /// The hold has been settled or voided already, or has run out and is to be voided.
    #[error("hold {0} is closed")]
    HoldClosed(Id),
    /// More than was held, and an account does not permit that.
    #[error("the settlement exceeds its hold, which account {0} does not permit")]
    Exceeds(Id),
    /// The id stands for another transfer, or the account for another sort or unit.
    #[error("{0} is something else already")]
    Taken(Id),
    /// An id, code, unit or bound outside its grammar.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A sum beyond what an account can count.
    #[error("a sum of account {0} would not fit")]
    Overflow(Id),
}

/// A change that the ledger is asked for: one immutable row once it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// `xfr_…`, chosen by the caller: the same id with the same content is done once, with other content refused.
    pub id: Id,
    /// What it is for: a call, a run, an invoice.
    pub reference: Id,
    /// What to do.
    pub step: Step,
}

/// The four things that can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Moves at once.
    Post {
        /// Account that is debited.
        debit: Id,
        /// Account that is credited.
        credit: Id,
        /// How much; positive.
        amount: i64,
    },
    /// Sets aside until it is settled, voided, or its time has run out.
    Hold {
        /// Account that is debited.
        debit: Id,
        /// Account that is credited.
        credit: Id,
        /// How much; positive.
        amount: i64,
        /// From when on the store may let go of it, milliseconds UTC by the engine's clock.
        expires_at_ms: i64,
    },
    /// Ends a hold with what it came to. Nothing (0) is a settlement too.
    Settle {
        /// The hold.
        hold: Id,
        /// How much; not negative.
        amount: i64,
    },
    /// Ends a hold with nothing.
    Void {
        /// The hold.
        hold: Id,
    },
}

/// What became of a transfer, as it stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Moved at once.
    Posted,
    /// Set aside.
    Held,
    /// A hold that came to an amount.
    Settled,
    /// A hold that came to nothing.
    Voided,
    /// A hold whose time ran out; written by the store itself.
    Expired,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Posted, Kind::Held, Kind::Settled, Kind::Voided, Kind::Expired];

    /// Its name, as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Posted => "posted",
            Kind::Held => "held",
            Kind::Settled => "settled",
            Kind::Voided => "voided",
            Kind::Expired => "expired",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a hold stands. Open holds end in exactly one way; one that has run out can still be settled late, as an amount
/// for which nothing was held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Counted as pending.
    Open,
    /// Its time ran out; nothing of it is pending.
    Expired,
    /// Settled or voided.
    Closed,
}

impl AccountSpec {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn check(&self) -> Result<(), Refused> {
        let unit = self.unit.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let code = self
            .code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'_');
        if self.id.prefix() != "acc" {
            Err(Refused::Malformed("the id of an account"))
        } else if self.unit.is_empty() || self.unit.len() > UNIT_BYTES_MAX || !unit {
            Err(Refused::Malformed("the unit of an account"))
        } else if self.code.is_empty() || self.code.len() > CODE_BYTES_MAX || !code {
            Err(Refused::Malformed("the code of an account"))
        } else if self.floor.zip(self.ceiling).is_some_and(|(floor, ceiling)| floor > ceiling) {
            Err(Refused::Malformed("a floor above its ceiling"))
        } else {
            Ok(())
        }
    }

    /// Whether `other` may take this one's place: bounds may move, sort and unit may not.
    ///
    /// # Errors
    /// [`Refused::Taken`].
    pub fn admits(&self, other: &AccountSpec) -> Result<(), Refused> {
        if self.code == other.code && self.unit == other.unit {
            Ok(())
        } else {
            Err(Refused::Taken(self.id.clone()))
        }
    }
}

impl Transfer {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`Refused::Malformed`], [`Refused::Amount`], [`Refused::SameAccount`].
    pub fn check(&self) -> Result<(), Refused> {
        if self.id.prefix() != TRANSFER_PREFIX {
            return Err(Refused::Malformed("the id of a transfer"));
        }
        match &self.step {
            Step::Post { debit, credit, amount } | Step::Hold { debit, credit, amount, .. } => {
                if debit == credit {
                    Err(Refused::SameAccount)
                } else if *amount <= 0 {
                    Err(Refused::Amount)
                } else {
                    Ok(())
                }
            }
            Step::Settle { amount, .. } if *amount < 0 => Err(Refused::Amount),
            Step::Settle { .. } | Step::Void { .. } => Ok(()),
        }
    }
}

/// The id of the row that the store writes when `hold` runs out.
pub fn expiry_id(hold: &Id) -> Option<Id> {
    let body = hold.as_str().strip_prefix(TRANSFER_PREFIX)?;
    Id::parse(&format!("{EXPIRY_PREFIX}{body}")).ok()
}

impl Balance {
    /// What is final: credits minus debits. Both are at least 0, so their difference fits.
    pub fn posted(&self) -> i64 {
        self.credits_posted - self.debits_posted
    }

    /// The least that it can come to: every debit that is held is settled and no credit.
    pub fn lowest(&self) -> i128 {
        i128::from(self.posted()) - i128::from(self.debits_pending)
    }

    /// The most that it can come to: every credit that is held is settled and no debit.
    pub fn highest(&self) -> i128 {
        i128::from(self.posted()) + i128::from(self.credits_pending)
    }
}

impl Account {
    /// An account that nothing has moved on.
    pub fn new(spec: AccountSpec) -> Account {
        Account { spec, balance: Balance::default() }
    }

    /// How much can still be debited, at least 0; `None`: there is no floor.
    pub fn available(&self) -> Option<i64> {
        let room = self.balance.lowest() - i128::from(self.spec.floor?);
        Some(i64::try_from(room.max(0)).unwrap_or(i64::MAX))
    }

    fn changed(&self, change: impl FnOnce(&mut Balance) -> Option<()>) -> Result<Balance, Refused> {
        let mut balance = self.balance;
        change(&mut balance).ok_or_else(|| Refused::Overflow(self.spec.id.clone()))?;
        Ok(balance)
    }

    /// A balance that went down may not be below the floor.
    fn floored(&self, balance: Balance) -> Result<Balance, Refused> {
        match self.spec.floor {
            Some(floor) if balance.lowest() < i128::from(floor) => {
                Err(Refused::Insufficient(self.spec.id.clone()))
            }
            Some(_) | None => Ok(balance),
        }
    }

    /// A balance that went up may not be above the ceiling.
    fn capped(&self, balance: Balance) -> Result<Balance, Refused> {
        match self.spec.ceiling {
            Some(ceiling) if balance.highest() > i128::from(ceiling) => {
                Err(Refused::Insufficient(self.spec.id.clone()))
            }
            Some(_) | None => Ok(balance),
        }
    }

    /// May `amount` be settled where `held` was set aside? Says whether bounds have to be looked at.
    fn exceeded(&self, held: i64, amount: i64) -> Result<bool, Refused> {
        match self.spec.exceed {
            _ if amount <= held => Ok(false),
            Exceed::Never => Err(Refused::Exceeds(self.spec.id.clone())),
            Exceed::Within => Ok(true),
            Exceed::Always => Ok(false),
        }
    }
}

/// The balances of a debited and of a credited account, in this order.
pub type Pair = (Balance, Balance);

fn raise(sum: &mut i64, by: i64) -> Option<()> {
    *sum = sum.checked_add(by)?;
    Some(())
}

/// Takes back what was raised before. Less than nothing would mean that a hold is released twice.
fn lower(sum: &mut i64, by: i64) -> Option<()> {
    *sum = sum.checked_sub(by).filter(|left| *left >= 0)?;
    Some(())
}

fn joined(debit: &Account, credit: &Account) -> Result<(), Refused> {
    if debit.spec.id == credit.spec.id {
        Err(Refused::SameAccount)
    } else if debit.spec.unit != credit.spec.unit {
        Err(Refused::Unit)
    } else {
        Ok(())
    }
}

/// Moves `amount` at once.
///
/// # Errors
/// [`Refused`], with nothing changed.
pub fn post(debit: &Account, credit: &Account, amount: i64) -> Result<Pair, Refused> {
    joined(debit, credit)?;
    if amount <= 0 {
        return Err(Refused::Amount);
    }
    let from = debit.changed(|balance| raise(&mut balance.debits_posted, amount))?;
    let to = credit.changed(|balance| raise(&mut balance.credits_posted, amount))?;
    Ok((debit.floored(from)?, credit.capped(to)?))
}

/// Sets `amount` aside.
///
/// # Errors
/// [`Refused`], with nothing changed.
pub fn hold(debit: &Account, credit: &Account, amount: i64) -> Result<Pair, Refused> {
    joined(debit, credit)?;
    if amount <= 0 {
        return Err(Refused::Amount);
    }
    let from = debit.changed(|balance| raise(&mut balance.debits_pending, amount))?;
    let to = credit.changed(|balance| raise(&mut balance.credits_pending, amount))?;
    Ok((debit.floored(from)?, credit.capped(to)?))
}

/// Ends a hold of `held` with `amount`. A hold that has run out has nothing set aside any more: `held` is 0.
///
/// # Errors
/// [`Refused`], with nothing changed.
pub fn settle(debit: &Account, credit: &Account, held: i64, amount: i64) -> Result<Pair, Refused> {
    joined(debit, credit)?;
    if amount < 0 {
        return Err(Refused::Amount);
    }
    let (bounded_from, bounded_to) = (debit.exceeded(held, amount)?, credit.exceeded(held, amount)?);
    let from = debit.changed(|balance| {
        lower(&mut balance.debits_pending, held)?;
        raise(&mut balance.debits_posted, amount)
    })?;
    let to = credit.changed(|balance| {
        lower(&mut balance.credits_pending, held)?;
        raise(&mut balance.credits_posted, amount)
    })?;
    Ok((
        if bounded_from { debit.floored(from)? } else { from },
        if bounded_to { credit.capped(to)? } else { to },
    ))
}

/// Ends a hold of `held` with nothing: voided, or run out. No bound can stand in the way of that.
///
/// # Errors
/// [`Refused::Overflow`] if the accounts do not hold that much, which they do.
pub fn release(debit: &Account, credit: &Account, held: i64) -> Result<Pair, Refused> {
    Ok((
        debit.changed(|balance| lower(&mut balance.debits_pending, held))?,
        credit.changed(|balance| lower(&mut balance.credits_pending, held))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    fn account(name: &str, floor: Option<i64>, ceiling: Option<i64>, exceed: Exceed) -> Account {
        let spec = AccountSpec {
            id: id(&format!("acc_{name}")),
            code: "test.purse".into(),
            unit: "USD".into(),
            floor,
            ceiling,
            exceed,
        };
        spec.check().unwrap();
        Account::new(spec)
    }

    fn short(name: &str) -> Refused {
        Refused::Insufficient(id(&format!("acc_{name}")))
    }

    #[test]
    fn a_hold_is_spent_as_far_as_bounds_are_concerned() {
        let mut purse = account("purse", Some(-100), None, Exceed::Never);
        let mut shop = account("shop", None, Some(90), Exceed::Never);
        assert_eq!(purse.available(), Some(100));
        (purse.balance, shop.balance) = hold(&purse, &shop, 60).unwrap();
        assert_eq!((purse.available(), purse.balance.posted()), (Some(40), 0));
        assert_eq!(hold(&purse, &shop, 41).unwrap_err(), short("purse"));
        assert_eq!(post(&purse, &shop, 41).unwrap_err(), short("purse"));
        // It would fit into the purse; into the shop it does not.
        assert_eq!(hold(&purse, &shop, 31).unwrap_err(), short("shop"));
        assert!(hold(&purse, &shop, 30).is_ok());
        (purse.balance, shop.balance) = settle(&purse, &shop, 60, 10).unwrap();
        assert_eq!((purse.available(), purse.balance.posted(), shop.balance.posted()), (Some(90), -10, 10));
        assert_eq!((purse.balance.debits_pending, shop.balance.credits_pending), (0, 0));
    }

    #[test]
    fn a_bound_stops_only_what_pushes_against_it() {
        let mut purse = account("purse", Some(-100), Some(0), Exceed::Never);
        let bank = account("bank", None, None, Exceed::Never);
        purse.balance.debits_posted = 80;
        // The floor is raised above what has been spent: no debit, any credit.
        purse.spec.floor = Some(-50);
        assert_eq!(purse.available(), Some(0));
        assert_eq!(post(&purse, &bank, 1).unwrap_err(), short("purse"));
        assert!(post(&bank, &purse, 1).is_ok());
        assert_eq!(post(&bank, &purse, 81).unwrap_err(), short("purse"));
    }

    #[test]
    fn a_settlement_beyond_its_hold_is_the_accounts_to_permit() {
        let settled = |from: Exceed, to: Exceed, amount| {
            let mut purse = account("purse", Some(-100), None, from);
            let mut shop = account("shop", None, Some(100), to);
            (purse.balance, shop.balance) = hold(&purse, &shop, 60).unwrap();
            settle(&purse, &shop, 60, amount).map(|(from, to)| (from.posted(), to.posted()))
        };
        let exceeds = |name: &str| Err(Refused::Exceeds(id(&format!("acc_{name}"))));
        for (from, to, amount, expected) in [
            (Exceed::Never, Exceed::Never, 60, Ok((-60, 60))),
            (Exceed::Never, Exceed::Never, 0, Ok((0, 0))),
            (Exceed::Never, Exceed::Always, 61, exceeds("purse")),
            (Exceed::Always, Exceed::Never, 61, exceeds("shop")),
            (Exceed::Within, Exceed::Within, 100, Ok((-100, 100))),
            (Exceed::Within, Exceed::Always, 101, Err(short("purse"))),
            (Exceed::Always, Exceed::Within, 101, Err(short("shop"))),
            (Exceed::Always, Exceed::Always, 500, Ok((-500, 500))),
            (Exceed::Always, Exceed::Always, -1, Err(Refused::Amount)),
        ] {
            assert_eq!(settled(from, to, amount), expected, "{from:?} {to:?} {amount}");
        }
    }

    #[test]
    fn g08_what_makes_no_sense_is_refused() {
        let purse = account("purse", None, None, Exceed::Never);
        let mut other = account("other", None, None, Exceed::Never);
        for amount in [0, -1, i64::MIN] {
            assert_eq!(post(&purse, &other, amount), Err(Refused::Amount));
            assert_eq!(hold(&purse, &other, amount), Err(Refused::Amount));
        }
        assert_eq!(post(&purse, &purse.clone(), 1), Err(Refused::SameAccount));
        assert!(matches!(release(&purse, &other, 1), Err(Refused::Overflow(_))), "nothing is held");
        other.balance.credits_posted = i64::MAX;
        assert_eq!(post(&purse, &other, 1), Err(Refused::Overflow(id("acc_other"))));
        other.balance.credits_pending = i64::MAX;
        assert_eq!(hold(&purse, &other, 1), Err(Refused::Overflow(id("acc_other"))));
        assert_eq!(other.balance.highest(), 2 * i128::from(i64::MAX));
        other.spec.unit = "EUR".into();
        assert_eq!(hold(&purse, &other, 1), Err(Refused::Unit));
    }

    #[test]
    fn specs_and_transfers_have_a_grammar() {
        let good = account("a", Some(0), Some(0), Exceed::Never).spec;
        for bad in [
            AccountSpec { id: id("bud_a"), ..good.clone() },
            AccountSpec { unit: String::new(), ..good.clone() },
            AccountSpec { unit: "U$".into(), ..good.clone() },
            AccountSpec { unit: "U".repeat(UNIT_BYTES_MAX + 1), ..good.clone() },
            AccountSpec { code: "Budget".into(), ..good.clone() },
            AccountSpec { code: "b".repeat(CODE_BYTES_MAX + 1), ..good.clone() },
            AccountSpec { floor: Some(1), ..good.clone() },
        ] {
            assert!(matches!(bad.check(), Err(Refused::Malformed(_))), "{bad:?}");
        }
        assert!(
            good.admits(&AccountSpec { floor: Some(-9), exceed: Exceed::Always, ..good.clone() }).is_ok()
        );
        assert!(good.admits(&AccountSpec { unit: "EUR".into(), ..good.clone() }).is_err());
        let transfer = |id_: &str, step| Transfer { id: id(id_), reference: id("cal_1"), step };
        let step = Step::Settle { hold: id("xfr_1"), amount: 0 };
        assert_eq!(transfer("xfr_2", step.clone()).check(), Ok(()));
        assert!(transfer("xpr_2", step).check().is_err(), "rows of the store's own have ids of their own");
        assert_eq!(expiry_id(&id("xfr_1")), Some(id("xpr_1")));
        assert_eq!(expiry_id(&id("cal_1")), None);
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
    }

    /// Every combination of small bounds, balances and amounts: what is granted keeps every promise, and what is refused
    /// for want of room would have broken one.
    #[test]
    fn bounds_hold_exactly_for_all_small_numbers() {
        let exceeds = [Exceed::Never, Exceed::Within, Exceed::Always];
        for (floor, ceiling, held, amount) in (-3i64..=0)
            .flat_map(|floor| (0i64..=3).map(move |ceiling| (floor, ceiling)))
            .flat_map(|(floor, ceiling)| (1i64..=4).map(move |held| (floor, ceiling, held)))
            .flat_map(|(floor, ceiling, held)| (0i64..=5).map(move |amount| (floor, ceiling, held, amount)))
        {
            for exceed in exceeds {
                let mut from = account("from", Some(floor), None, exceed);
                let mut to = account("to", None, Some(ceiling), exceed);
                let held_pair = hold(&from, &to, held);
                let fits = held <= -floor && held <= ceiling;
                assert_eq!(held_pair.is_ok(), fits, "{floor} {ceiling} {held}");
                let Ok(pair) = held_pair else { continue };
                (from.balance, to.balance) = pair;
                let within = amount <= -floor && amount <= ceiling;
                let expected = match exceed {
                    _ if amount <= held => true,
                    Exceed::Never => false,
                    Exceed::Within => within,
                    Exceed::Always => true,
                };
                let settled = settle(&from, &to, held, amount);
                assert_eq!(settled.is_ok(), expected, "{floor} {ceiling} {held} {amount} {exceed:?}");
                assert_eq!(release(&from, &to, held), Ok((Balance::default(), Balance::default())));
            }
        }
    }

    proptest! {
        /// Any row of steps over a few accounts, with any amounts: debits are credits, no sum is negative, a bound is
        /// never passed by a hold or a transfer, and pending is what the open holds say.
        #[test]
        fn debits_are_credits(steps in prop::collection::vec((0usize..4, 0usize..4, 0u8..4, any::<i64>(), 0usize..8), 1..60)) {
            let mut accounts: Vec<Account> = [(Some(-1_000_000), None), (None, Some(500_000)), (None, None), (Some(-10), Some(10))]
                .into_iter()
                .enumerate()
                .map(|(n, (floor, ceiling))| account(&n.to_string(), floor, ceiling, Exceed::Within))
                .collect();
            let mut holds: Vec<(usize, usize, i64)> = Vec::new();
            for (from, to, what, amount, pick) in steps {
                // Small amounts meet the bounds, huge ones the limits of the type.
                let amount = if pick % 2 == 0 { amount % 400_000 } else { amount };
                let (from, to, held) = match what {
                    0 | 1 => (from, to, None),
                    _ if holds.is_empty() => continue,
                    _ => { let (from, to, held) = holds[pick % holds.len()]; (from, to, Some(held)) }
                };
                let done = match (what, held) {
                    (0, _) => post(&accounts[from], &accounts[to], amount),
                    (1, _) => hold(&accounts[from], &accounts[to], amount),
                    (2, Some(held)) => settle(&accounts[from], &accounts[to], held, amount),
                    (_, held) => release(&accounts[from], &accounts[to], held.unwrap_or(0)),
                };
                let Ok((debited, credited)) = done else { continue };
                (accounts[from].balance, accounts[to].balance) = (debited, credited);
                match held {
                    None if what == 1 => holds.push((from, to, amount)),
                    None => {}
                    Some(_) => { holds.remove(pick % holds.len()); }
                }
                let sum = |of: fn(&Balance) -> i64| accounts.iter().map(|account| i128::from(of(&account.balance))).sum::<i128>();
                prop_assert_eq!(sum(|b| b.debits_posted), sum(|b| b.credits_posted));
                prop_assert_eq!(sum(|b| b.debits_pending), sum(|b| b.credits_pending));
                for (n, account) in accounts.iter().enumerate() {
                    let b = account.balance;
                    prop_assert!([b.debits_posted, b.credits_posted, b.debits_pending, b.credits_pending].iter().all(|sum| *sum >= 0));
                    prop_assert!(account.spec.floor.is_none_or(|floor| b.lowest() >= i128::from(floor)));
                    prop_assert!(account.spec.ceiling.is_none_or(|ceiling| b.highest() <= i128::from(ceiling)));
                    let pending: i128 = holds.iter().filter(|hold| hold.0 == n).map(|hold| i128::from(hold.2)).sum();
                    prop_assert_eq!(i128::from(b.debits_pending), pending);
                }
            }
        }
    }
}
