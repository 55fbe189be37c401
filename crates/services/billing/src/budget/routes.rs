//! Budgets with what is left of them, and the accounts behind them.

use super::{BudgetDoc, IndexDoc, index_id};
use act::{Fault, Param, QueryCtx, Route};
use futures::FutureExt as _;
use kernel::Id;
use kernel::ledger::Account;
use serde_json::{Value, json};
use store::ledger::TransferRow;
use store::{PAGE_MAX, View};

/// Rows of a page where nobody says otherwise.
const PAGE: usize = 50;

async fn shown(view: &View, budget: &BudgetDoc) -> Result<Value, Fault> {
    let spec = budget.account(view.at_ms());
    let account = view.store().account(view.tenant(), &spec.id).await?;
    let balance = account.as_ref().map(|account| account.balance).unwrap_or_default();
    let (spent, held) = (-balance.posted(), balance.debits_pending);
    // By the budget as it is set now: the account learns of a change when it is next spent from.
    let left = budget.amount.saturating_sub(spent).saturating_sub(held).max(0);
    Ok(json!({
        "id": budget.id, "level": budget.level, "name": budget.name, "measure": budget.measure, "unit": budget.unit,
        "amount": budget.amount, "period": budget.period, "spent": spent, "held": held, "left": left,
        "percent": budget.percent(spent), "stop": budget.stop, "warn_percent": budget.warn_percent,
        "ends_ms": budget.period.ends_ms(view.at_ms()), "account": spec.id, "set_at_ms": budget.set_at_ms,
    }))
}

async fn list(view: &View) -> Result<Value, Fault> {
    let mut items = Vec::new();
    if let Some(index) = view.get::<IndexDoc>(&index_id()).await? {
        for id in &index.budgets {
            if let Some(stored) = view.get::<BudgetDoc>(id).await? {
                items.push(shown(view, &stored.doc).await?);
            }
        }
    }
    Ok(json!({"items": items}))
}

fn account_shown(account: &Account) -> Value {
    let (spec, balance) = (&account.spec, account.balance);
    json!({
        "id": spec.id, "code": spec.code, "unit": spec.unit, "posted": balance.posted(), "available": account.available(),
        "floor": spec.floor, "ceiling": spec.ceiling, "debits_posted": balance.debits_posted,
        "credits_posted": balance.credits_posted, "debits_pending": balance.debits_pending,
        "credits_pending": balance.credits_pending,
    })
}

fn row_shown(row: &TransferRow) -> Value {
    json!({
        "id": row.id, "kind": row.kind, "amount": row.amount, "unit": row.unit, "debit": row.debit, "credit": row.credit,
        "hold": row.hold, "expires_at_ms": row.expires_at_ms, "reference": row.reference, "fact": row.fact,
        "at_ms": row.at_ms,
    })
}

fn limit(query: &QueryCtx<'_>) -> Result<usize, Fault> {
    match query.param("limit") {
        None => Ok(PAGE),
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| Fault::invalid("request.invalid", "limit is a number from 1 to 200")),
    }
}

const LIMIT: Param = Param { name: "limit", summary: "Rows, at most 200" };

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/budgets",
            "budget_list",
            "List budgets with what is left of them in their present period",
            "billing.budget.read",
            |query| async move { list(query.view).await }.boxed(),
        ),
        Route::get(
            "/v1/budgets/{budget}",
            "budget_show",
            "Show a budget with what is left of it in its present period",
            "billing.budget.read",
            |query| {
                async move {
                    let stored = query.view.get::<BudgetDoc>(&query.id("budget", "budget")?).await?;
                    shown(query.view, &stored.ok_or_else(|| Fault::not_found("budget"))?.doc).await
                }
                .boxed()
            },
        ),
        Route::post("/v1/budgets", "budget_set", "Set a budget", "billing.budget.set"),
        Route::delete("/v1/budgets/{budget}", "budget_remove", "Remove a budget", "billing.budget.remove"),
        Route::get(
            "/v1/accounts",
            "account_list",
            "List accounts of the ledger with their balances",
            "billing.account.read",
            |query| {
                async move {
                    let limit = limit(&query)?;
                    let after = match query.param("after") {
                        None => None,
                        Some(text) => Some(
                            Id::parse(text)
                                .map_err(|_| Fault::invalid("request.invalid", "after is an account's id"))?,
                        ),
                    };
                    let store = query.view.store();
                    let accounts = store.accounts(query.view.tenant(), after.as_ref(), limit).await?;
                    let next = accounts.last().filter(|_| accounts.len() == limit).map(|last| &last.spec.id);
                    Ok(json!({"items": accounts.iter().map(account_shown).collect::<Vec<_>>(), "next": next}))
                }
                .boxed()
            },
        )
        .taking(&[act::page::AFTER, LIMIT]),
        Route::get(
            "/v1/accounts/{account}",
            "account_show",
            "Show an account of the ledger",
            "billing.account.read",
            |query| {
                async move {
                    let id = query.id("account", "account")?;
                    let account = query.view.store().account(query.view.tenant(), &id).await?;
                    Ok(account_shown(&account.ok_or_else(|| Fault::not_found("account"))?))
                }
                .boxed()
            },
        ),
        Route::get(
            "/v1/accounts/{account}/statement",
            "account_statement",
            "List an account's transfers, newest first",
            "billing.account.read",
            |query| {
                async move {
                    let (id, limit) = (query.id("account", "account")?, limit(&query)?);
                    let before = match query.param("before") {
                        None => None,
                        Some(text) => Some(
                            text.parse()
                                .map_err(|_| Fault::invalid("request.invalid", "before is a number"))?,
                        ),
                    };
                    let store = query.view.store();
                    let statement = store.statement(query.view.tenant(), &id, before, limit).await?;
                    let statement = statement.ok_or_else(|| Fault::not_found("account"))?;
                    let rows = &statement.rows;
                    let next = rows.last().filter(|_| rows.len() == limit).map(|last| last.n.to_string());
                    Ok(json!({
                        "account": account_shown(&statement.account),
                        "items": rows.iter().map(row_shown).collect::<Vec<_>>(), "next": next,
                    }))
                }
                .boxed()
            },
        )
        .taking(&[Param { name: "before", summary: "Only rows before this, from `next`" }, LIMIT]),
    ]
}
