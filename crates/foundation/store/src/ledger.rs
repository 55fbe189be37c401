//! What can be read of a tenant's ledger: accounts with their balances, transfers as they were done.
//!
//! It is written through changesets alone ([`kernel::changeset::Operation::Account`] and `Transfer`) and checked at
//! commit, by [`kernel::ledger`], inside the writer. Nobody reads a balance to decide whether something fits: they ask
//! for it, and the commit says. What is read here is for people, reports and thresholds.

use kernel::Id;
use kernel::ledger::{Account, Kind};

/// A row of the ledger, never changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TransferRow {
    /// Its place in the ledger of the engine: later rows have greater numbers. For cursors.
    pub n: u64,
    /// `xfr_…`; `xpr_…` for a hold whose time ran out.
    pub id: Id,
    /// What was done.
    pub kind: Kind,
    /// Account that was debited.
    pub debit: Id,
    /// Account that was credited.
    pub credit: Id,
    /// The accounts' unit.
    pub unit: String,
    /// How much was moved, held, or came to stand in place of a hold; of a voided or expired hold, what was set free.
    pub amount: i64,
    /// The hold that it ends.
    pub hold: Option<Id>,
    /// When the hold runs out, milliseconds UTC.
    pub expires_at_ms: Option<i64>,
    /// What it was for.
    pub reference: Id,
    /// The first fact of the changeset that did it; none if the store itself did.
    pub fact: Option<Id>,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

/// A page of an account's transfers, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The account as it stands now.
    pub account: Account,
    /// Its rows.
    pub rows: Vec<TransferRow>,
}
