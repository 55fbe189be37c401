//! Budgets: how much may be spent, of what, by whom, in which time.
//!
//! A budget stands at a level (the tenant, a project, a workflow, a model) and counts one thing there: what calls cost,
//! how many there are, or their tokens. A call is held against every budget that it falls under, all or none, in the commit
//! that records its intent ([`crate::spend`]); where one has not enough left the call is not made.
//!
//! The record says what the budget is. What is left of it is the balance of an account of the ledger, one per budget and
//! period, bounded below by minus the amount. The record is not written when something is spent, so spenders do not meet
//! there; it is read by each of them, so a budget that is changed or removed holds for the very next commit.
//!
//! | account | code | what it is |
//! |---|---|---|
//! | `acc_<budget>.<unit>.<period>` | `billing.budget` | what is spent from; its floor is minus the budget |
//! | `acc_tenant.<unit>.<month>` | `billing.cost` | the same for the tenant's costs as long as no such budget is set: no floor |
//! | `acc_spent.<level>.<unit>` | `billing.spent` | the other side: all that was ever spent at a level |
//! | `acc_run.<run>.<unit>` | `billing.brake` | what one run may cost, by its workflow; its floor is minus that |
//! | `acc_spent.run.<unit>` | `billing.spent` | its other side |
//!
//! One level's accounts say nothing about another's: a call that falls under three budgets has three transfers, and the
//! tenant's own is the one that adds up to the bill.

pub mod routes;
pub mod verbs;

pub use crate::period::Period;
use act::{Class, Coded};
use kernel::ledger::{AccountSpec, Exceed};
use kernel::{Id, hex, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Document, View};

/// Most budgets of a tenant.
pub const BUDGETS_MAX: usize = 200;
/// Longest name of what a budget is for, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Most warning thresholds of a budget.
pub const WARNINGS_MAX: usize = 8;
/// Largest amount: a thousand million of a currency, in millionths.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// Where a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Everything that the tenant spends.
    Tenant,
    /// One project.
    Project,
    /// One workflow.
    Workflow,
    /// One model, `provider/model`.
    Model,
}

impl Level {
    /// Its name in ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Tenant => "tenant",
            Level::Project => "project",
            Level::Workflow => "workflow",
            Level::Model => "model",
        }
    }
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Money, in millionths of the price book's currency.
    #[default]
    Cost,
    /// Calls: a quota.
    Calls,
    /// Tokens, in and out: a quota.
    Tokens,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Measure; 3] = [Measure::Cost, Measure::Calls, Measure::Tokens];

    fn as_str(self) -> &'static str {
        match self {
            Measure::Cost => "cost",
            Measure::Calls => "calls",
            Measure::Tokens => "tokens",
        }
    }

    /// The unit of its accounts.
    pub fn unit(self, currency: &str) -> String {
        match self {
            Measure::Cost => currency.to_owned(),
            Measure::Calls | Measure::Tokens => self.as_str().to_owned(),
        }
    }
}

/// A budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetDoc {
    /// `bud_…`, from level, name and measure: there is at most one budget for each.
    pub id: Id,
    /// Where it stands.
    pub level: Level,
    /// Which project, workflow or model; empty for the tenant.
    pub name: String,
    /// What it counts.
    pub measure: Measure,
    /// The unit of that: the currency, `calls` or `tokens`.
    pub unit: String,
    /// How much, per period: millionths of the currency, or a number.
    pub amount: i64,
    /// Per what.
    pub period: Period,
    /// Whether it stops what does not fit. If not it only warns.
    pub stop: bool,
    /// At which percentages spent a fact is stated, ascending.
    pub warn_percent: Vec<u32>,
    /// When it was set, milliseconds UTC.
    pub set_at_ms: i64,
}

impl Document for BudgetDoc {
    const KIND: &'static str = "billing.budget";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Which budgets there are: the one record that setting and removing changes, and that every spender reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexDoc {
    /// `bud_index`
    pub id: Id,
    /// Ids of budgets, sorted.
    pub budgets: Vec<Id>,
}

impl Document for IndexDoc {
    const KIND: &'static str = "billing.budget_index";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Why a budget cannot be set or kept to.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// What was asked for makes no budget.
    #[error("the budget is refused: {0}")]
    Invalid(&'static str),
    /// The price book has another currency than the budget.
    #[error("a budget counts {budget}, the price book in force has {prices}")]
    Currency {
        /// The budget's.
        budget: String,
        /// The book's.
        prices: String,
    },
}

impl Coded for BudgetError {
    fn code(&self) -> &'static str {
        match self {
            BudgetError::Invalid(_) => "budget.invalid",
            BudgetError::Currency { .. } => "budget.currency",
        }
    }
    fn class(&self) -> Class {
        match self {
            BudgetError::Invalid(_) => Class::Invalid,
            // What cannot be compared does not fit.
            BudgetError::Currency { .. } => Class::Denied,
        }
    }
}

fn constant(text: &str) -> Id {
    // Callers put together constants, hexadecimal digits, names of periods and checked units.
    Id::parse(text).expect("a constant id")
}

/// The id of the index.
pub fn index_id() -> Id {
    constant("bud_index")
}

/// The id of the budget at a level for a name and a measure.
pub fn budget_id(level: Level, name: &str, measure: Measure) -> Id {
    let text = format!("{}\u{0}{name}\u{0}{}", level.as_str(), measure.as_str());
    constant(&format!("bud_{}", &hex::encode(&sha256(text.as_bytes()))[..32]))
}

impl BudgetDoc {
    /// The account of the period that holds `at_ms`.
    pub fn account(&self, at_ms: i64) -> AccountSpec {
        let body = self.id.as_str().trim_start_matches("bud_");
        AccountSpec {
            id: constant(&format!(
                "acc_{body}.{}.{}",
                self.unit.to_ascii_lowercase(),
                self.period.key(at_ms)
            )),
            code: "billing.budget".into(),
            unit: self.unit.clone(),
            floor: self.stop.then_some(-self.amount),
            ceiling: None,
            // A provider that bills more than was expected has billed it.
            exceed: Exceed::Always,
        }
    }

    /// How many whole percent of it `spent` is.
    pub fn percent(&self, spent: i64) -> u32 {
        let percent = i128::from(spent.max(0)) * 100 / i128::from(self.amount.max(1));
        u32::try_from(percent).unwrap_or(u32::MAX)
    }
}

/// The tenant's costs of a month while no budget is set on them.
pub fn tenant_account(currency: &str, at_ms: i64) -> AccountSpec {
    let unit = currency.to_ascii_lowercase();
    AccountSpec {
        id: constant(&format!("acc_tenant.{unit}.{}", Period::Month.key(at_ms))),
        code: "billing.cost".into(),
        unit: currency.to_owned(),
        floor: None,
        ceiling: None,
        exceed: Exceed::Always,
    }
}

/// The other side of everything that is spent at a level.
pub fn spent_account(level: Level, unit: &str) -> AccountSpec {
    AccountSpec {
        id: constant(&format!("acc_spent.{}.{}", level.as_str(), unit.to_ascii_lowercase())),
        code: "billing.spent".into(),
        unit: unit.to_owned(),
        floor: None,
        ceiling: None,
        exceed: Exceed::Always,
    }
}

/// What a run may cost: `None` if its id makes no account's.
pub fn brake_account(run: &Id, currency: &str, most_micros: i64) -> Option<AccountSpec> {
    let body = run.as_str().split_once('_').map(|(_, body)| body)?;
    let id = Id::parse(&format!("acc_run.{body}.{}", currency.to_ascii_lowercase())).ok()?;
    Some(AccountSpec {
        id,
        code: "billing.brake".into(),
        unit: currency.to_owned(),
        floor: Some(-most_micros.clamp(0, AMOUNT_MAX)),
        ceiling: None,
        exceed: Exceed::Always,
    })
}

/// The other side of everything that runs with a brake have cost.
pub fn runs_account(currency: &str) -> AccountSpec {
    AccountSpec {
        id: constant(&format!("acc_spent.run.{}", currency.to_ascii_lowercase())),
        code: "billing.spent".into(),
        unit: currency.to_owned(),
        floor: None,
        ceiling: None,
        exceed: Exceed::Always,
    }
}

/// The budgets of these levels and names. The commit depends on each of them, and on there being no other.
pub async fn matching(view: &View, levels: &[(Level, &str)]) -> Result<Vec<BudgetDoc>, store::ReadError> {
    let Some(index) = view.get::<IndexDoc>(&index_id()).await? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (level, name) in levels {
        for measure in Measure::ALL {
            let id = budget_id(*level, name, measure);
            if index.budgets.binary_search(&id).is_ok()
                && let Some(stored) = view.get::<BudgetDoc>(&id).await?
            {
                found.push(stored.doc);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_name_and_measure_is_another_budget() {
        let mut ids = std::collections::BTreeSet::new();
        for level in [Level::Tenant, Level::Project, Level::Workflow, Level::Model] {
            for name in ["", "a", "openai/gpt-4o", "Ä b\n"] {
                for measure in Measure::ALL {
                    assert!(ids.insert(budget_id(level, name, measure)));
                }
            }
        }
    }

    #[test]
    fn an_account_per_period_and_no_floor_where_nothing_stops() {
        let mut budget = BudgetDoc {
            id: budget_id(Level::Tenant, "", Measure::Cost),
            level: Level::Tenant,
            name: String::new(),
            measure: Measure::Cost,
            unit: "USD".into(),
            amount: 300,
            period: Period::Month,
            stop: true,
            warn_percent: vec![],
            set_at_ms: 0,
        };
        let (november, december) = (budget.account(1_764_547_199_999), budget.account(1_764_547_200_000));
        assert_ne!(november.id, december.id);
        assert_eq!((november.floor, november.check()), (Some(-300), Ok(())));
        budget.stop = false;
        assert_eq!(budget.account(0).floor, None);
        for (spent, percent) in [(-5, 0), (0, 0), (2, 0), (3, 1), (299, 99), (300, 100), (i64::MAX, u32::MAX)]
        {
            assert_eq!(budget.percent(spent), percent);
        }
        assert_eq!(tenant_account("USD", 0).check(), Ok(()));
        assert_eq!(spent_account(Level::Model, "tokens").check(), Ok(()));
    }
}
