//! What acts cost: budgets, holds, prices, usage, and reports.
//!
//! Usage is measured once and never changed; a price book turns it into money. The book has versions, the version stands
//! in every rated row, and so an invoice can be explained, and rated again, years later. A model without a price is
//! refused before it is called: an unpriced call is not a free one.
//!
//! What is going to be spent is held first, in the ledger of the store, against every budget that it falls under; a call
//! that does not fit is not made. Products do that through [`spend`] and know nothing else of this room.
//!
//! Money is integers, in millionths of the book's currency. Each row is rounded up to a whole millionth, once.
//!
//! | module | what it holds |
//! |---|---|
//! | [`price`] | versions of the price book and rating, pure |
//! | [`budget`] | budgets, the chart of accounts, and the views of the ledger |
//! | [`period`] | the hours, days and months that budgets last |
//! | [`spend`] | hold, settle, and why something does not fit: the seam for products |
//! | [`usage`] | the rows, and the verb that records one |
//! | [`report`] | costs by ticket, run, model, workflow, project: table, CSV, chart |

pub mod budget;
pub mod period;
pub mod price;
pub mod report;
pub mod spend;
pub mod usage;

use act::Domain;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("billing.unpriced", "the price book has no price for this model"),
    ("billing.prices_invalid", "the price book does not follow its format"),
    ("billing.run_limit", "the call can come to more than its run may still cost"),
    ("budget.currency", "a budget counts another currency than the price book in force"),
    ("budget.exhausted", "a budget has not enough left for the call, which was not made"),
    ("budget.invalid", "what was asked for makes no budget"),
];

/// The domain's table.
pub fn domain() -> Domain {
    Domain {
        name: "billing",
        kinds: &[
            "billing.budget",
            "billing.budget_index",
            "billing.price_schedule",
            "billing.prices",
            "billing.usage",
        ],
        facts: &[
            "billing.budget.exhausted",
            "billing.budget.removed",
            "billing.budget.set",
            "billing.budget.warned",
            "billing.prices.published",
            "billing.usage.rated",
        ],
        verbs: [usage::verbs(), price::verbs(), budget::verbs::verbs()].concat(),
        routes: [usage::routes(), price::routes(), budget::routes::routes()].concat(),
        jobs: Vec::new(),
        codes: CODES,
    }
}
