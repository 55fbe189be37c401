//! Spending: held before, settled after, at the price of the moment of the hold.
//!
//! A product that is about to spend goes through three calls, and knows nothing else of billing:
//!
//! ```text
//! take(view, spend)          the operations that hold the most the call can cost, and the terms it is held at;
//!    │                       they go into the commit that records the intent, all or none
//!    ▼
//! the call is made           (if a budget has not enough left, the commit is refused, and it is not)
//!    ▼
//! settle(terms, charge)      the operations that end the holds; they go into the commit that records the outcome
//!    ▼
//! crossed(view, terms)       thresholds that have been reached meanwhile
//! ```
//!
//! The terms are kept in the product's own record of the call. They hold the price itself and not the name of a version,
//! so a book that is published while the call is under way changes nothing, and whoever closes a call that got lost can
//! settle it without looking anything up.
//!
//! What is held is an upper bound: every byte of the prompt counts as a token (tokens of byte-level vocabularies are at
//! least a byte long), and all the output that was allowed counts as produced. What nobody measured is settled at that
//! bound, because a provider that does not say what it used may bill it all; the usage row says so.
//!
//! A *brake* is the same for one run: what its workflow allows it to cost, with everything that is a part of it. Its account
//! is the run's own, so branches that ask at once cannot each take what is left once.
//!
//! Ids of transfers are made from the call's id, so a hold or a settlement that is tried again is the same one.

use crate::budget::{
    BudgetDoc, BudgetError, Level, Measure, brake_account, matching, runs_account, spent_account,
    tenant_account,
};
use crate::price::{ModelPrice, Tokens, book};
use act::{Class, Fault};
use kernel::Id;
use kernel::changeset::Operation;
use kernel::ledger::{AccountSpec, Step, TRANSFER_PREFIX, Transfer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::View;

/// How long a hold lasts if nobody ends it. Whoever makes a call ends it long before, or closes it as lost; this is for
/// what nobody comes back to at all.
pub const HOLD_MS: i64 = 3_600_000;

/// How many times the tokens that were held for a provider's count may be and still be taken for a measurement. What is
/// held is an upper bound already; this leaves room for what providers add to a prompt by themselves.
pub const BELIEF_TIMES_MAX: u64 = 16;
/// Most brakes of one call: runs stand in one another a few deep.
pub const BRAKES_MAX: usize = 16;
/// Largest count that is taken for a measurement: the largest integer that every reader of JSON keeps (RFC 8259, section 6).
pub const COUNT_MAX: u64 = (1 << 53) - 1;

/// What is about to be spent.
#[derive(Debug, Clone, PartialEq)]
pub struct Spend {
    /// The call, `cal_…`: names its transfers.
    pub call: Id,
    /// The project, if the run belongs to one.
    pub project: Option<String>,
    /// The workflow of the run.
    pub workflow: String,
    /// `provider/model`, as it is pinned.
    pub model: String,
    /// Most tokens of input.
    pub input_tokens: u64,
    /// Most tokens of output.
    pub output_tokens: u64,
    /// What the runs that it is for may cost; at most [`BRAKES_MAX`].
    pub brakes: Vec<Brake>,
}

/// What a run may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brake {
    /// The run.
    pub run: Id,
    /// In millionths of the currency.
    pub most_micros: i64,
}

/// What a call is held at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The price book's version that was in force.
    pub price_version: String,
    /// Its currency.
    pub currency: String,
    /// The price of the model in it.
    pub price: ModelPrice,
    /// The most that the call can cost, in millionths.
    pub most_micros: i64,
    /// The most tokens that it can take. Terms from before this was kept have none.
    #[serde(default)]
    pub tokens_max: Option<u64>,
    /// What is held.
    pub holds: Vec<Held>,
}

/// One of its holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The hold, `xfr_…`.
    pub hold: Id,
    /// The account that it is held against.
    pub account: Id,
    /// The budget of that account; none for the tenant's own costs and for brakes.
    pub budget: Option<Id>,
    /// The run that a brake is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Id>,
    /// What it counts.
    pub measure: Measure,
    /// How much is held.
    pub amount: i64,
}

/// What is to be committed with the intent, and remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Opens the accounts and takes the holds.
    pub operations: Vec<Operation>,
    /// What the call is held at.
    pub terms: Terms,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It was measured, or there is nothing to measure and it is charged by the call.
    Measured(Tokens),
    /// Nobody knows: it may have cost all that was held.
    Unknown,
    /// It cost nothing: it was refused before any work was done.
    Nothing,
}

/// What a settlement comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// Ends the holds.
    pub operations: Vec<Operation>,
    /// What was measured, in millionths.
    pub cost_micros: i64,
    /// What was charged although nobody measured it, in millionths: an upper bound.
    pub unmeasured_micros: i64,
}

/// A threshold of a budget that has been reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    /// The budget.
    pub budget: Id,
    /// The account of its period.
    pub account: Id,
    /// The threshold.
    pub percent: u32,
    /// The amount that it is a part of.
    pub amount: i64,
}

/// A call that does not fit.
#[derive(Debug, Clone)]
pub struct Exhausted {
    /// The budget that has not enough left.
    pub budget: Id,
    /// The account of its period.
    pub account: Id,
    /// What the call would have been held at.
    pub needed: i64,
    /// What the caller is told: `budget.exhausted`.
    pub fault: Fault,
}

fn transfer_id(call: &Id, n: usize, end: &str) -> Id {
    let body = call.as_str().split_once('_').map_or("", |(_, body)| body);
    // An id's body with a number is one.
    Id::parse(&format!("{TRANSFER_PREFIX}_{body}.{n}{end}")).unwrap_or_else(|_| call.clone())
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An account to be held against, and for which budget.
struct Line {
    account: AccountSpec,
    /// The other side.
    credit: AccountSpec,
    measure: Measure,
    budget: Option<Id>,
    run: Option<Id>,
}

/// What a spend is held against: every budget that it falls under, and the tenant's own costs in any case.
async fn lines(view: &View, spend: &Spend, currency: &str) -> Result<Vec<Line>, Fault> {
    let mut levels = vec![
        (Level::Tenant, ""),
        (Level::Workflow, spend.workflow.as_str()),
        (Level::Model, spend.model.as_str()),
    ];
    levels.extend(spend.project.as_deref().map(|project| (Level::Project, project)));
    let budgets: Vec<BudgetDoc> = matching(view, &levels).await?;
    let mut lines = Vec::new();
    for budget in &budgets {
        if budget.measure == Measure::Cost && budget.unit != currency {
            let error = BudgetError::Currency { budget: budget.unit.clone(), prices: currency.to_owned() };
            return Err(Fault::from(error).with(json!({"budget": budget.id})));
        }
        let account = budget.account(view.at_ms());
        lines.push(Line {
            credit: spent_account(budget.level, &account.unit),
            account,
            measure: budget.measure,
            budget: Some(budget.id.clone()),
            run: None,
        });
    }
    if !budgets.iter().any(|budget| (budget.level, budget.measure) == (Level::Tenant, Measure::Cost)) {
        let account = tenant_account(currency, view.at_ms());
        let credit = spent_account(Level::Tenant, &account.unit);
        lines.push(Line { account, credit, measure: Measure::Cost, budget: None, run: None });
    }
    if spend.brakes.len() > BRAKES_MAX {
        return Err(act::internal("a call with too many brakes"));
    }
    for brake in &spend.brakes {
        let account = brake_account(&brake.run, currency, brake.most_micros)
            .ok_or_else(|| act::internal("a run's id makes no account"))?;
        let run = Some(brake.run.clone());
        lines.push(Line {
            account,
            credit: runs_account(currency),
            measure: Measure::Cost,
            budget: None,
            run,
        });
    }
    Ok(lines)
}

/// What holds the most that a call can cost. Refused before anything is held: a model without a price, a budget in
/// another currency than the price.
///
/// # Errors
/// `billing.unpriced`, `budget.currency`, storage. Whether it fits is said by the commit.
pub async fn take(view: &View, spend: &Spend) -> Result<Taken, Fault> {
    let book = book(view).await?;
    let price = ModelPrice { note: None, ..book.model(&spend.model)?.clone() };
    let most_micros = price.most(spend.input_tokens, spend.output_tokens)?;
    let tokens = number(spend.input_tokens.saturating_add(spend.output_tokens));
    let mut operations = Vec::new();
    let mut holds = Vec::new();
    for (n, line) in lines(view, spend, &book.currency).await?.into_iter().enumerate() {
        let amount = match line.measure {
            Measure::Cost => most_micros,
            Measure::Calls => 1,
            Measure::Tokens => tokens,
        };
        if amount == 0 {
            // What costs nothing needs nothing held.
            continue;
        }
        let hold = transfer_id(&spend.call, n, "");
        operations.push(Operation::Transfer(Transfer {
            id: hold.clone(),
            reference: spend.call.clone(),
            step: Step::Hold {
                debit: line.account.id.clone(),
                credit: line.credit.id.clone(),
                amount,
                expires_at_ms: view.at_ms().saturating_add(HOLD_MS),
            },
        }));
        holds.push(Held {
            hold,
            account: line.account.id.clone(),
            budget: line.budget,
            run: line.run,
            measure: line.measure,
            amount,
        });
        operations.push(Operation::Account(line.account));
        operations.push(Operation::Account(line.credit));
    }
    let tokens_max = Some(spend.input_tokens.saturating_add(spend.output_tokens));
    let (price_version, currency) = (book.version, book.currency);
    let terms = Terms { price_version, currency, price, most_micros, tokens_max, holds };
    Ok(Taken { operations, terms })
}

/// A charge as it is settled and rated. A provider's count beyond all reason is no measurement: nobody knows what the call
/// took, and it is charged at what was held.
pub fn believed(terms: &Terms, charge: Charge) -> Charge {
    let Charge::Measured(tokens) = charge else { return charge };
    let most =
        terms.tokens_max.map_or(COUNT_MAX, |most| most.saturating_mul(BELIEF_TIMES_MAX).min(COUNT_MAX));
    let sums = tokens.total() <= most && terms.price.rate(&tokens).is_ok();
    if sums { charge } else { Charge::Unknown }
}

/// What ends the holds of a call. Pure: the terms say all that is needed.
pub fn settle(terms: &Terms, call: &Id, charge: Charge) -> Settled {
    let charge = believed(terms, charge);
    let rated = match charge {
        Charge::Measured(tokens) => terms.price.rate(&tokens).ok().map(|cost| (cost, tokens)),
        Charge::Unknown | Charge::Nothing => None,
    };
    let nothing = charge == Charge::Nothing;
    let operations = terms
        .holds
        .iter()
        .enumerate()
        .map(|(n, held)| {
            let amount = match (&rated, held.measure) {
                (Some((cost, _)), Measure::Cost) => *cost,
                (Some((_, tokens)), Measure::Tokens) => number(tokens.total()),
                (None, Measure::Cost | Measure::Tokens) | (_, Measure::Calls) => held.amount,
            };
            let hold = held.hold.clone();
            let step = if nothing { Step::Void { hold } } else { Step::Settle { hold, amount } };
            Operation::Transfer(Transfer { id: transfer_id(call, n, ".s"), reference: call.clone(), step })
        })
        .collect();
    let (cost_micros, unmeasured_micros) = match rated {
        Some((cost, _)) => (cost, 0),
        None if nothing => (0, 0),
        None => (0, terms.most_micros),
    };
    Settled { operations, cost_micros, unmeasured_micros }
}

/// The thresholds that have been reached by what is posted now, whoever posted it. Stating them once is the caller's:
/// under a key of account, percentage and amount.
pub async fn crossed(view: &View, terms: &Terms) -> Result<Vec<Crossed>, Fault> {
    let mut crossed = Vec::new();
    for held in &terms.holds {
        let Some(id) = &held.budget else { continue };
        let Some(budget) = view.peek::<BudgetDoc>(id).await? else { continue };
        let Some(account) = view.store().account(view.tenant(), &held.account).await? else { continue };
        let percent = budget.percent(-account.balance.posted());
        crossed.extend(budget.warn_percent.iter().filter(|threshold| **threshold <= percent).map(
            |threshold| Crossed {
                budget: id.clone(),
                account: held.account.clone(),
                percent: *threshold,
                amount: budget.amount,
            },
        ));
    }
    Ok(crossed)
}

/// The fault of a spend that does not fit a brake, after its commit was refused for want of `account`. `None`: that account is
/// no brake of this spend.
pub async fn braked(view: &View, spend: &Spend, account: &Id) -> Result<Option<Fault>, Fault> {
    let taken = take(view, spend).await?;
    let Some(held) = taken.terms.holds.into_iter().find(|held| held.account == *account) else {
        return Ok(None);
    };
    let Some(run) = held.run else { return Ok(None) };
    let available = available(view, account).await?;
    let message = "the run may not cost as much as this call can come to";
    let details = json!({"run": run, "needed": held.amount, "available": available});
    Ok(Some(Fault::new(Class::Denied, "billing.run_limit", message).with(details)))
}

async fn available(view: &View, account: &Id) -> Result<i64, Fault> {
    let account = view.store().account(view.tenant(), account).await?;
    Ok(account.and_then(|account| account.available()).unwrap_or(0))
}

/// Why a spend does not fit, after its commit was refused for want of `account`. `None`: that account is no budget's of
/// this spend any more; reading and deciding again may succeed.
pub async fn exhausted(view: &View, spend: &Spend, account: &Id) -> Result<Option<Exhausted>, Fault> {
    let taken = take(view, spend).await?;
    let Some(held) = taken.terms.holds.into_iter().find(|held| held.account == *account) else {
        return Ok(None);
    };
    let Some(id) = held.budget else { return Ok(None) };
    let Some(budget) = view.peek::<BudgetDoc>(&id).await? else { return Ok(None) };
    let available = available(view, account).await?;
    let whose = match budget.level {
        Level::Tenant => "the tenant".to_owned(),
        level => format!("{} {}", level.as_str(), budget.name),
    };
    let message = format!("the budget of {whose} has not enough left for this call");
    let fault = Fault::new(Class::Denied, "budget.exhausted", message).with(json!({
        "budget": id, "level": budget.level, "name": budget.name, "measure": budget.measure, "unit": budget.unit,
        "period": budget.period, "needed": held.amount, "available": available,
        "ends_ms": budget.period.ends_ms(view.at_ms()),
    }));
    Ok(Some(Exhausted { budget: id, account: account.clone(), needed: held.amount, fault }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let price = ModelPrice {
            model: "a/big".into(),
            note: None,
            input_micros_per_million: 1_000_000,
            cached_input_micros_per_million: 500_000,
            cache_write_micros_per_million: 1_000_000,
            output_micros_per_million: 4_000_000,
            call_micros: 3,
        };
        let held = |n: usize, measure, amount| Held {
            hold: transfer_id(&Id::parse("cal_1").unwrap(), n, ""),
            account: Id::parse(&format!("acc_{n}")).unwrap(),
            budget: None,
            run: None,
            measure,
            amount,
        };
        let most_micros = price.most(100, 50).unwrap();
        let holds = vec![
            held(0, Measure::Cost, most_micros),
            held(1, Measure::Calls, 1),
            held(2, Measure::Tokens, 150),
        ];
        let tokens_max = Some(150);
        Terms { price_version: "1".into(), currency: "USD".into(), price, most_micros, tokens_max, holds }
    }

    #[test]
    fn a_charge_is_settled_in_every_measure() {
        let amounts = |charge| {
            let settled = settle(&terms(), &Id::parse("cal_1").unwrap(), charge);
            let amount = |operation: &Operation| match operation {
                Operation::Transfer(Transfer { step: Step::Settle { amount, .. }, .. }) => Some(*amount),
                _ => None,
            };
            let amounts: Vec<Option<i64>> = settled.operations.iter().map(amount).collect();
            (amounts, settled.cost_micros, settled.unmeasured_micros)
        };
        let tokens = Tokens { input: 40, cached_input: 20, cache_write: 0, output: 10 };
        assert_eq!(amounts(Charge::Measured(tokens)), (vec![Some(93), Some(1), Some(70)], 93, 0));
        // A call that has no tokens is charged by the call.
        assert_eq!(amounts(Charge::Measured(Tokens::default())), (vec![Some(3), Some(1), Some(0)], 3, 0));
        assert_eq!(amounts(Charge::Unknown), (vec![Some(303), Some(1), Some(150)], 0, 303));
        assert_eq!(amounts(Charge::Nothing), (vec![None, None, None], 0, 0));
        // A provider that claims more tokens than there are is not believed, and not got rid of either.
        let absurd = Tokens { input: u64::MAX, output: u64::MAX, ..Tokens::default() };
        assert_eq!(amounts(Charge::Measured(absurd)), (vec![Some(303), Some(1), Some(150)], 0, 303));
        // More than was held is paid for; a multiple of it that no call comes to is not believed.
        let input = |input| Charge::Measured(Tokens { input, ..Tokens::default() });
        let most = 150 * BELIEF_TIMES_MAX;
        let paid = most as i64 + 3;
        assert_eq!(amounts(input(most)), (vec![Some(paid), Some(1), Some(most as i64)], paid, 0));
        assert_eq!(amounts(input(most + 1)), (vec![Some(303), Some(1), Some(150)], 0, 303));
        // Also where it would cost nothing.
        let mut free = Terms { tokens_max: None, ..terms() };
        free.price = ModelPrice { input_micros_per_million: 0, call_micros: 0, ..free.price };
        assert_eq!(believed(&free, input(COUNT_MAX)), input(COUNT_MAX));
        assert_eq!(believed(&free, input(COUNT_MAX + 1)), Charge::Unknown);
    }

    #[test]
    fn transfers_are_named_by_their_call() {
        let call = Id::parse("cal_0192f6c1a7b27d3e8a14c0ffee000001").unwrap();
        assert_eq!(transfer_id(&call, 2, "").as_str(), "xfr_0192f6c1a7b27d3e8a14c0ffee000001.2");
        assert_eq!(transfer_id(&call, 2, ".s").as_str(), "xfr_0192f6c1a7b27d3e8a14c0ffee000001.2.s");
    }
}
