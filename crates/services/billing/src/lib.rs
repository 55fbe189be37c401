//! What acts cost: usage, prices, and the cost of a run.
//!
//! Usage is measured once and never changed; a price book turns it into money. The book has a version, the version
//! stands in every rated row, and so an invoice can be explained, and rated again, years later. A model without a price is
//! refused before it is called: an unpriced call is not a free one.
//!
//! Money is integers, in millionths of the book's currency. Each row is rounded up to a whole millionth, once.
//!
//! | module | what it holds |
//! |---|---|
//! | [`price`] | the price book and rating, pure |
//! | [`usage`] | the rows, and the verb that records one |
//!
//! There is no ledger yet: nothing is held before it is spent. See `docs/decisions/`.

pub mod price;
pub mod usage;

use act::Domain;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("billing.unpriced", "the price book has no price for this model"),
    ("billing.prices_invalid", "the price book does not follow its format"),
];

/// The domain's table.
pub fn domain() -> Domain {
    Domain {
        name: "billing",
        kinds: &["billing.usage", "billing.prices"],
        facts: &["billing.usage.rated", "billing.prices.published"],
        verbs: [usage::verbs(), price::verbs()].concat(),
        routes: [usage::routes(), price::routes()].concat(),
        jobs: Vec::new(),
        codes: CODES,
    }
}
