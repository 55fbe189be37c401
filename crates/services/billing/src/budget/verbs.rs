//! Setting and removing budgets; stating that one has run out, or is about to.

use super::{
    AMOUNT_MAX, BUDGETS_MAX, BudgetDoc, BudgetError, IndexDoc, Level, Measure, NAME_BYTES_MAX, Period,
    WARNINGS_MAX, budget_id, index_id, spent_account,
};
use crate::price;
use act::{Draw as _, Fault, Plan, Stamp, Target, Verb};
use futures::FutureExt as _;
use kernel::Id;
use kernel::changeset::Operation;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Document as _, View};

/// Arguments of `billing.budget.set`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Where it stands.
    pub level: Level,
    /// Which project, workflow or model (`provider/model`); nothing for the tenant.
    #[serde(default)]
    pub name: Option<String>,
    /// What it counts: what calls cost, how many there are, or their tokens.
    #[serde(default)]
    pub measure: Measure,
    /// How much, per period: millionths of the price book's currency, or a number of calls or tokens.
    pub amount: i64,
    /// Per what, in UTC.
    pub period: Period,
    /// Whether what does not fit is stopped. If not, the budget only warns.
    #[serde(default = "yes")]
    pub stop: bool,
    /// At which percentages spent a fact is stated.
    #[serde(default = "usual")]
    #[schemars(schema_with = "percentages")]
    pub warn_percent: Vec<u32>,
}

fn yes() -> bool {
    true
}

fn usual() -> Vec<u32> {
    vec![80, 100]
}

fn percentages(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 1000},
        "maxItems": WARNINGS_MAX, "default": [80, 100],
    })
}

impl Set {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn check(&self) -> Result<(), BudgetError> {
        let plain = self.name().chars().all(|char| !char.is_control());
        if self.name().is_empty() != (self.level == Level::Tenant) {
            Err(BudgetError::Invalid("a tenant's budget has no name, any other has one"))
        } else if self.name().len() > NAME_BYTES_MAX || !plain {
            Err(BudgetError::Invalid("a name has at most 200 bytes and no control characters"))
        } else if !(0..=AMOUNT_MAX).contains(&self.amount) {
            Err(BudgetError::Invalid(
                "an amount is from 0 to 1000000000000000, in millionths, calls or tokens",
            ))
        } else if self.warn_percent.len() > WARNINGS_MAX
            || self.warn_percent.iter().any(|percent| !(1..=1000).contains(percent))
        {
            Err(BudgetError::Invalid("at most 8 warnings, from 1 to 1000 percent"))
        } else {
            Ok(())
        }
    }
}

/// Arguments of `billing.budget.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// The budget.
    pub budget: String,
}

/// Arguments of `billing.budget.warn`: a threshold that has been reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warn {
    /// The budget.
    pub budget: String,
    /// The account of its period.
    pub account: String,
    /// The threshold.
    pub percent: u32,
    /// The amount that it is a part of.
    pub amount: i64,
}

/// Arguments of `billing.budget.exhaust`: a call that was not made because a budget has not enough left.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exhaust {
    /// The budget.
    pub budget: String,
    /// The account of its period.
    pub account: String,
    /// The run that stops.
    pub run: String,
    /// The model that was to be called.
    pub model: String,
    /// What the call would have been held at.
    pub needed: i64,
}

async fn budget(view: &View, text: &str) -> Result<store::Stored<BudgetDoc>, Fault> {
    let id = Id::parse(text).map_err(|_| Fault::not_found("budget"))?;
    view.get::<BudgetDoc>(&id).await?.ok_or_else(|| Fault::not_found("budget"))
}

async fn target(view: &View, budget: &BudgetDoc) -> Result<Target, Fault> {
    let place = place(view, budget.level, &budget.name).await?;
    let mut target = Target::of(BudgetDoc::KIND, &budget.id).at(place);
    target.attributes = attributes(budget.level, &budget.name, budget.measure, budget.amount);
    Ok(target)
}

/// Where a budget stands: one of a project, in that project.
async fn place(view: &View, level: Level, name: &str) -> Result<Option<act::Place>, Fault> {
    match level {
        Level::Project => access::project::place_of(view, Some(name)).await,
        Level::Tenant | Level::Workflow | Level::Model => Ok(None),
    }
}

fn attributes(level: Level, name: &str, measure: Measure, amount: i64) -> Value {
    json!({"level": level, "name": name, "measure": measure, "amount": amount})
}

/// Adds to or takes from the index.
async fn indexed(
    view: &View,
    plan: &mut Plan,
    change: impl FnOnce(&mut Vec<Id>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let stored = view.get::<IndexDoc>(&index_id()).await?;
    let mut index = stored
        .as_ref()
        .map_or_else(|| IndexDoc { id: index_id(), budgets: Vec::new() }, |stored| stored.doc.clone());
    change(&mut index.budgets)?;
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &index),
        None => plan.draft.put_new(&index),
    };
    Ok(())
}

async fn set(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: Set = act::parse(args)?;
    args.check()?;
    if args.level == Level::Project {
        // A budget of nobody would stop nothing, and whoever set it would rely on it.
        let place = access::project::place_live(view, args.name()).await?;
        // Spending is looked up under the name alone.
        if access::project::project_name(&place.project) != args.name() {
            return Err(BudgetError::Invalid("a project is named without its prefix").into());
        }
    }
    let id = budget_id(args.level, args.name(), args.measure);
    let currency = price::book(view).await?.currency;
    let mut warn_percent = args.warn_percent.clone();
    warn_percent.sort_unstable();
    warn_percent.dedup();
    let doc = BudgetDoc {
        id: id.clone(),
        level: args.level,
        name: args.name().to_owned(),
        measure: args.measure,
        unit: args.measure.unit(&currency),
        amount: args.amount,
        period: args.period,
        stop: args.stop,
        warn_percent,
        set_at_ms: stamp.at_ms,
    };
    let account = doc.account(stamp.at_ms);
    let stored = view.get::<BudgetDoc>(&id).await?;
    let outcome = json!({"budget": id, "account": account.id});
    let mut plan = Plan { draft: stamp.draft(), outcome };
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &doc),
        None => plan.draft.put_new(&doc),
    };
    indexed(view, &mut plan, |budgets| {
        if let Err(at) = budgets.binary_search(&id) {
            if budgets.len() >= BUDGETS_MAX {
                return Err(BudgetError::Invalid("a tenant has at most 200 budgets").into());
            }
            budgets.insert(at, id.clone());
        }
        Ok(())
    })
    .await?;
    plan.draft
        .push(Operation::Account(account.clone()))
        .push(Operation::Account(spent_account(doc.level, &doc.unit)))
        .fact(stamp.fact(
            "billing.budget.set",
            &id,
            (BudgetDoc::KIND, &id),
            json!({
                "level": doc.level, "name": doc.name, "measure": doc.measure, "amount": doc.amount, "unit": doc.unit,
                "period": doc.period, "stop": doc.stop, "account": account.id,
            }),
        ));
    Ok(plan)
}

async fn remove(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: Remove = act::parse(args)?;
    let stored = budget(view, &args.budget).await?;
    let id = stored.id.clone();
    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"budget": id}) };
    plan.draft.push(Operation::Delete { kind: BudgetDoc::KIND, id: id.clone(), rev: stored.rev });
    indexed(view, &mut plan, |budgets| {
        budgets.retain(|budget| *budget != id);
        Ok(())
    })
    .await?;
    let told = json!({"level": stored.level, "name": stored.name, "measure": stored.measure, "amount": stored.amount});
    plan.draft.fact(stamp.fact("billing.budget.removed", &id, (BudgetDoc::KIND, &id), told));
    Ok(plan)
}

async fn warn(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: Warn = act::parse(args)?;
    let stored = budget(view, &args.budget).await?;
    let account = Id::parse(&args.account).map_err(|_| Fault::not_found("account"))?;
    let spent = match view.store().account(view.tenant(), &account).await? {
        Some(account) => -account.balance.posted(),
        None => return Err(Fault::not_found("account")),
    };
    let told = json!({
        "level": stored.level, "name": stored.name, "measure": stored.measure, "unit": stored.unit, "account": account,
        "percent": args.percent, "amount": args.amount, "spent": spent,
    });
    let mut plan =
        Plan { draft: stamp.draft(), outcome: json!({"budget": stored.id, "percent": args.percent}) };
    plan.draft.fact(stamp.fact("billing.budget.warned", &stored.id, (BudgetDoc::KIND, &stored.id), told));
    Ok(plan)
}

async fn exhaust(view: &View, args: &Value, stamp: &Stamp) -> Result<Plan, Fault> {
    let args: Exhaust = act::parse(args)?;
    let stored = budget(view, &args.budget).await?;
    let run = Id::parse(&args.run).map_err(|_| Fault::not_found("run"))?;
    let told = json!({
        "budget": stored.id, "level": stored.level, "name": stored.name, "measure": stored.measure, "unit": stored.unit,
        "account": args.account, "amount": stored.amount, "needed": args.needed, "model": args.model,
    });
    let mut plan = Plan { draft: stamp.draft(), outcome: json!({"budget": stored.id}) };
    plan.draft.fact(stamp.fact("billing.budget.exhausted", &run, (BudgetDoc::KIND, &stored.id), told));
    Ok(plan)
}

/// A verb on a budget that its arguments name.
fn on_budget(
    act: &'static str,
    summary: &'static str,
    args: fn() -> Value,
    writes: &'static [&'static str],
    facts: &'static [&'static str],
    plan: act::PlanFn,
) -> Verb {
    Verb {
        act,
        summary,
        args,
        writes,
        facts,
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                let named = args["budget"].as_str().unwrap_or_default();
                target(view, &budget(view, named).await?.doc).await
            }
            .boxed()
        }),
        plan,
    }
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "billing.budget.set",
            summary: "Sets a budget",
            args: || schemars::schema_for!(Set).into(),
            writes: &["billing.budget", "billing.budget_index", kernel::ledger::WRITES_ACCOUNT],
            facts: &["billing.budget.set"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Set = act::parse(args)?;
                    args.check()?;
                    let id = budget_id(args.level, args.name(), args.measure);
                    let mut target =
                        Target::of(BudgetDoc::KIND, &id).at(place(view, args.level, args.name()).await?);
                    target.attributes = attributes(args.level, args.name(), args.measure, args.amount);
                    target.preview = vec![
                        ("Budget".into(), format!("{} {}", args.level.as_str(), args.name())),
                        ("Amount".into(), args.amount.to_string()),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| set(view, args, stamp).boxed()),
        },
        on_budget(
            "billing.budget.remove",
            "Removes a budget; what was spent under it stays in the ledger",
            || schemars::schema_for!(Remove).into(),
            &["billing.budget", "billing.budget_index"],
            &["billing.budget.removed"],
            Arc::new(|view, args, stamp| remove(view, args, stamp).boxed()),
        ),
        Verb {
            can_wait: false,
            ..on_budget(
                "billing.budget.warn",
                "States that a threshold of a budget has been reached",
                || schemars::schema_for!(Warn).into(),
                &[],
                &["billing.budget.warned"],
                Arc::new(|view, args, stamp| warn(view, args, stamp).boxed()),
            )
        },
        Verb {
            can_wait: false,
            ..on_budget(
                "billing.budget.exhaust",
                "States that a call was not made because a budget has not enough left",
                || schemars::schema_for!(Exhaust).into(),
                &[],
                &["billing.budget.exhausted"],
                Arc::new(|view, args, stamp| exhaust(view, args, stamp).boxed()),
            )
        },
    ]
}
