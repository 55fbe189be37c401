//! The tables of the ledger: checking transfers at commit, writing them, letting go of what has run out.
//!
//! [`check`] runs inside the writer's transaction and sees everything that was written before it, the changesets earlier
//! in the same batch included. So of two holds that do not fit together exactly one is granted, without a lock and
//! without a retry: there is one writer. It works on copies of the accounts it touches, and [`write`] puts them back;
//! a changeset that is refused half way has changed nothing.

use super::apply::Stop;
use super::reads::{capped, id as read_id, signed, tenant as read_tenant, unsigned};
use crate::ledger::{Statement, TransferRow};
use crate::{CommitError, PUT_OFF_MS};
use kernel::ledger::{self, Account, AccountSpec, Balance, Exceed, HoldState, Kind, Refused, Step, Transfer};
use kernel::{Id, TenantId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::HashMap;

/// What a changeset wants of the ledger, and, once checked, what it comes to.
#[derive(Default)]
pub(super) struct Staged {
    pub wanted_accounts: Vec<AccountSpec>,
    pub wanted: Vec<Transfer>,
    /// Accounts as they will be, with whether anything about them changed.
    accounts: HashMap<Id, (Account, bool)>,
    /// Rows that are new, in order.
    rows: Vec<TransferRow>,
}

fn refused(refused: Refused) -> Stop {
    Stop::Refused(match refused {
        Refused::Insufficient(account) => CommitError::Insufficient { account },
        other => CommitError::Ledger(other),
    })
}

fn exceed(number: i64) -> Option<Exceed> {
    match number {
        0 => Some(Exceed::Never),
        1 => Some(Exceed::Within),
        2 => Some(Exceed::Always),
        _ => None,
    }
}

fn exceed_number(exceed: Exceed) -> i64 {
    match exceed {
        Exceed::Never => 0,
        Exceed::Within => 1,
        Exceed::Always => 2,
    }
}

fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "damaged".into())
}

const ACCOUNT_COLUMNS: &str = "id, code, unit, floor, ceiling, exceed, debits_posted, credits_posted, debits_pending, \
     credits_pending";

fn account_of(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        spec: AccountSpec {
            id: read_id(row.get_ref(0)?.as_str()?, 0)?,
            code: row.get(1)?,
            unit: row.get(2)?,
            floor: row.get(3)?,
            ceiling: row.get(4)?,
            exceed: exceed(row.get(5)?).ok_or_else(|| damaged(5))?,
        },
        balance: Balance {
            debits_posted: row.get(6)?,
            credits_posted: row.get(7)?,
            debits_pending: row.get(8)?,
            credits_pending: row.get(9)?,
        },
    })
}

/// Reads an account.
pub(super) fn account(db: &Connection, tenant: &TenantId, id: &Id) -> rusqlite::Result<Option<Account>> {
    db.prepare_cached(&format!("SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE tenant = ? AND id = ?"))?
        .query_row(params![tenant.as_str(), id.as_str()], account_of)
        .optional()
}

/// A tenant's accounts after an id.
pub(super) fn accounts(
    db: &Connection,
    tenant: &TenantId,
    after: Option<&Id>,
    limit: usize,
) -> rusqlite::Result<Vec<Account>> {
    let sql =
        format!("SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?");
    db.prepare_cached(&sql)?
        .query_map(params![tenant.as_str(), after.map_or("", Id::as_str), capped(limit)], account_of)?
        .collect()
}

const ROW_COLUMNS: &str =
    "n, id, kind, debit, credit, unit, amount, hold, expires_at_ms, reference, fact, at_ms";

fn row_of(row: &Row<'_>) -> rusqlite::Result<TransferRow> {
    let id = |column: usize| read_id(row.get_ref(column)?.as_str()?, column);
    let maybe = |column: usize| match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => read_id(text, column).map(Some),
    };
    Ok(TransferRow {
        n: unsigned(row.get(0)?, 0)?,
        id: id(1)?,
        kind: Kind::parse(row.get_ref(2)?.as_str()?).ok_or_else(|| damaged(2))?,
        debit: id(3)?,
        credit: id(4)?,
        unit: row.get(5)?,
        amount: row.get(6)?,
        hold: maybe(7)?,
        expires_at_ms: row.get(8)?,
        reference: id(9)?,
        fact: maybe(10)?,
        at_ms: row.get(11)?,
    })
}

/// Reads a row.
pub(super) fn transfer(db: &Connection, tenant: &TenantId, id: &Id) -> rusqlite::Result<Option<TransferRow>> {
    db.prepare_cached(&format!("SELECT {ROW_COLUMNS} FROM transfers WHERE tenant = ? AND id = ?"))?
        .query_row(params![tenant.as_str(), id.as_str()], row_of)
        .optional()
}

/// One seek for each side, each as long as the page: a transfer has an account on one side only.
pub(super) const STATEMENT_SQL: &str = "SELECT * FROM (SELECT n, id, kind, debit, credit, unit, amount, hold, \
       expires_at_ms, reference, fact, at_ms FROM transfers WHERE tenant = ?1 AND debit = ?2 AND n < ?3 \
       ORDER BY n DESC LIMIT ?4) \
     UNION ALL SELECT * FROM (SELECT n, id, kind, debit, credit, unit, amount, hold, \
       expires_at_ms, reference, fact, at_ms FROM transfers WHERE tenant = ?1 AND credit = ?2 AND n < ?3 \
       ORDER BY n DESC LIMIT ?4)";

/// An account and its rows before a number, newest first, both as of one moment.
pub(super) fn statement(
    db: &Connection,
    tenant: &TenantId,
    id: &Id,
    before: Option<u64>,
    limit: usize,
) -> rusqlite::Result<Option<Statement>> {
    // One read transaction, so that the balance is that of the rows. A reader's connection commits nothing.
    let moment = db.unchecked_transaction()?;
    let Some(account) = account(&moment, tenant, id)? else { return Ok(None) };
    let before = before.map_or(i64::MAX, signed);
    let mut rows: Vec<TransferRow> = moment
        .prepare_cached(STATEMENT_SQL)?
        .query_map(params![tenant.as_str(), id.as_str(), before, capped(limit)], row_of)?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.n));
    rows.truncate(capped(limit) as usize);
    Ok(Some(Statement { account, rows }))
}

pub(super) const ENDS_SQL: &str = "SELECT kind FROM transfers WHERE tenant = ? AND hold = ?";

/// Debit, credit, amount, kind, the hold that is ended, what it holds, and when a new one runs out.
type Parts = (Id, Id, i64, Kind, Option<Id>, i64, Option<i64>);

impl Staged {
    fn account(&mut self, db: &Connection, tenant: &TenantId, id: &Id) -> Result<Account, Stop> {
        if let Some((account, _)) = self.accounts.get(id) {
            return Ok(account.clone());
        }
        let found = account(db, tenant, id)?.ok_or_else(|| refused(Refused::AccountUnknown(id.clone())))?;
        self.accounts.insert(id.clone(), (found.clone(), false));
        Ok(found)
    }

    fn row(&self, db: &Connection, tenant: &TenantId, id: &Id) -> Result<Option<TransferRow>, Stop> {
        match self.rows.iter().find(|row| row.id == *id) {
            Some(row) => Ok(Some(row.clone())),
            None => Ok(transfer(db, tenant, id)?),
        }
    }

    /// The hold of this id, and where it stands.
    fn hold(&self, db: &Connection, tenant: &TenantId, id: &Id) -> Result<(TransferRow, HoldState), Stop> {
        let held = self.row(db, tenant, id)?.filter(|row| row.kind == Kind::Held);
        let held = held.ok_or_else(|| refused(Refused::HoldUnknown(id.clone())))?;
        let mut ends: Vec<Kind> =
            self.rows.iter().filter(|row| row.hold.as_ref() == Some(id)).map(|row| row.kind).collect();
        let mut stored = db.prepare_cached(ENDS_SQL)?;
        let stored = stored.query_map(params![tenant.as_str(), id.as_str()], |row| {
            Kind::parse(row.get_ref(0)?.as_str()?).ok_or_else(|| damaged(0))
        })?;
        for kind in stored {
            ends.push(kind?);
        }
        let state = ends.into_iter().fold(HoldState::Open, |state, kind| match (state, kind) {
            (HoldState::Closed, _) | (_, Kind::Settled | Kind::Voided) => HoldState::Closed,
            (_, Kind::Expired) => HoldState::Expired,
            (state, Kind::Posted | Kind::Held) => state,
        });
        Ok((held, state))
    }

    /// The parts of a settlement, or of a voiding.
    fn ending(
        &self,
        db: &Connection,
        tenant: &TenantId,
        done_before: bool,
        hold: Id,
        settled: Option<i64>,
    ) -> Result<Parts, Stop> {
        let (row, state) = self.hold(db, tenant, &hold)?;
        let held = match (state, settled) {
            // Asked for again: it has been done, and is only compared.
            _ if done_before => row.amount,
            (HoldState::Open, _) => row.amount,
            (HoldState::Expired, Some(_)) => 0,
            (HoldState::Expired, None) | (HoldState::Closed, _) => {
                return Err(refused(Refused::HoldClosed(hold)));
            }
        };
        let kind = if settled.is_some() { Kind::Settled } else { Kind::Voided };
        Ok((row.debit, row.credit, settled.unwrap_or(row.amount), kind, Some(hold), held, None))
    }

    fn one(&mut self, db: &Connection, tenant: &TenantId, wanted: Transfer) -> Result<(), Stop> {
        wanted.check().map_err(refused)?;
        let stored = self.row(db, tenant, &wanted.id)?;
        let (debit, credit, amount, kind, hold, held, expires_at_ms): Parts = match wanted.step {
            Step::Post { debit, credit, amount } => (debit, credit, amount, Kind::Posted, None, 0, None),
            Step::Hold { debit, credit, amount, expires_at_ms } => {
                (debit, credit, amount, Kind::Held, None, 0, Some(expires_at_ms))
            }
            Step::Settle { hold, amount } => self.ending(db, tenant, stored.is_some(), hold, Some(amount))?,
            Step::Void { hold } => self.ending(db, tenant, stored.is_some(), hold, None)?,
        };
        if let Some(stored) = stored {
            let same = stored.kind == kind
                && stored.debit == debit
                && stored.credit == credit
                && stored.amount == amount
                && stored.hold == hold
                && stored.expires_at_ms == expires_at_ms
                && stored.reference == wanted.reference;
            return if same { Ok(()) } else { Err(refused(Refused::Taken(wanted.id))) };
        }
        let (from, to) = (self.account(db, tenant, &debit)?, self.account(db, tenant, &credit)?);
        let pair = match kind {
            Kind::Posted => ledger::post(&from, &to, amount),
            Kind::Held => ledger::hold(&from, &to, amount),
            Kind::Settled => ledger::settle(&from, &to, held, amount),
            Kind::Voided | Kind::Expired => ledger::release(&from, &to, held),
        };
        let (debited, credited) = pair.map_err(refused)?;
        let unit = from.spec.unit.clone();
        self.accounts.insert(debit.clone(), (Account { balance: debited, ..from }, true));
        self.accounts.insert(credit.clone(), (Account { balance: credited, ..to }, true));
        self.rows.push(TransferRow {
            n: 0,
            id: wanted.id,
            kind,
            debit,
            credit,
            unit,
            amount,
            hold,
            expires_at_ms,
            reference: wanted.reference,
            fact: None,
            at_ms: 0,
        });
        Ok(())
    }
}

/// Checks what a changeset wants, in order, each on what the ones before it leave.
pub(super) fn check(db: &Connection, tenant: &TenantId, staged: &mut Staged) -> Result<(), Stop> {
    for spec in std::mem::take(&mut staged.wanted_accounts) {
        spec.check().map_err(refused)?;
        let known = match staged.accounts.get(&spec.id) {
            Some((account, _)) => Some(account.clone()),
            None => account(db, tenant, &spec.id)?,
        };
        let (account, changed) = match known {
            None => (Account::new(spec), true),
            Some(account) => {
                account.spec.admits(&spec).map_err(refused)?;
                let changed = account.spec != spec;
                (Account { spec, ..account }, changed)
            }
        };
        let changed = changed || staged.accounts.get(&account.spec.id).is_some_and(|(_, changed)| *changed);
        staged.accounts.insert(account.spec.id.clone(), (account, changed));
    }
    for wanted in std::mem::take(&mut staged.wanted) {
        staged.one(db, tenant, wanted)?;
    }
    Ok(())
}

fn account_write(db: &Connection, tenant: &TenantId, account: &Account) -> rusqlite::Result<()> {
    let Account { spec, balance } = account;
    db.prepare_cached(
        "INSERT INTO accounts (tenant, id, code, unit, floor, ceiling, exceed, debits_posted, credits_posted, \
           debits_pending, credits_pending) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (tenant, id) DO UPDATE SET floor = excluded.floor, ceiling = excluded.ceiling, \
           exceed = excluded.exceed, debits_posted = excluded.debits_posted, \
           credits_posted = excluded.credits_posted, debits_pending = excluded.debits_pending, \
           credits_pending = excluded.credits_pending",
    )?
    .execute(params![
        tenant.as_str(),
        spec.id.as_str(),
        spec.code,
        spec.unit,
        spec.floor,
        spec.ceiling,
        exceed_number(spec.exceed),
        balance.debits_posted,
        balance.credits_posted,
        balance.debits_pending,
        balance.credits_pending
    ])
    .map(|_| ())
}

fn row_write(db: &Connection, tenant: &TenantId, row: &TransferRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO transfers (tenant, id, kind, debit, credit, unit, amount, hold, expires_at_ms, reference, fact, \
           at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        tenant.as_str(),
        row.id.as_str(),
        row.kind.as_str(),
        row.debit.as_str(),
        row.credit.as_str(),
        row.unit,
        row.amount,
        row.hold.as_ref().map(Id::as_str),
        row.expires_at_ms,
        row.reference.as_str(),
        row.fact.as_ref().map(Id::as_str),
        row.at_ms
    ])?;
    match (&row.hold, row.expires_at_ms) {
        (Some(hold), _) => db
            .prepare_cached("DELETE FROM holds WHERE tenant = ? AND id = ?")?
            .execute(params![tenant.as_str(), hold.as_str()])?,
        (None, Some(expires_at_ms)) => db
            .prepare_cached("INSERT INTO holds (tenant, id, expires_at_ms) VALUES (?, ?, ?)")?
            .execute(params![tenant.as_str(), row.id.as_str(), expires_at_ms])?,
        (None, None) => 0,
    };
    Ok(())
}

/// Writes what was checked.
pub(super) fn write(
    db: &Connection,
    tenant: &TenantId,
    staged: &Staged,
    fact: Option<&Id>,
    at_ms: i64,
) -> rusqlite::Result<()> {
    for (account, _) in staged.accounts.values().filter(|(_, changed)| *changed) {
        account_write(db, tenant, account)?;
    }
    for row in &staged.rows {
        row_write(db, tenant, &TransferRow { fact: fact.cloned(), at_ms, ..row.clone() })?;
    }
    Ok(())
}

pub(super) const DUE_SQL: &str = "SELECT tenant, id FROM holds INDEXED BY holds_due WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?";

/// Lets go of holds whose time has run out. One that is damaged holds on to what it has, and is asked again later: those of
/// everybody else would otherwise wait for somebody to mend it.
pub(super) fn expire(db: &Connection, now_ms: i64, limit: usize) -> rusqlite::Result<usize> {
    let due: Vec<(String, String)> = db
        .prepare_cached(DUE_SQL)?
        .query_map(params![now_ms, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut released = 0;
    for (tenant, id) in &due {
        match expired(db, now_ms, tenant, id) {
            Ok(Expired { tenant, debited, credited, row }) => {
                account_write(db, &tenant, &debited)?;
                account_write(db, &tenant, &credited)?;
                row_write(db, &tenant, &row)?;
                released += 1;
            }
            Err(error) if error.sqlite_error_code().is_none() => {
                tracing::error!(tenant, hold = id, %error, "a damaged hold is put off");
                db.prepare_cached("UPDATE holds SET expires_at_ms = ? WHERE tenant = ? AND id = ?")?
                    .execute(params![now_ms.saturating_add(PUT_OFF_MS), tenant, id])?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(released)
}

/// What becomes of a hold whose time has run out.
struct Expired {
    tenant: TenantId,
    debited: Account,
    credited: Account,
    row: TransferRow,
}

/// Works it out; nothing is written.
fn expired(db: &Connection, now_ms: i64, tenant: &str, id: &str) -> rusqlite::Result<Expired> {
    let (tenant, id) = (read_tenant(tenant, 0)?, read_id(id, 1)?);
    let held = transfer(db, &tenant, &id)?.ok_or_else(|| damaged(1))?;
    let from = account(db, &tenant, &held.debit)?.ok_or_else(|| damaged(1))?;
    let to = account(db, &tenant, &held.credit)?.ok_or_else(|| damaged(1))?;
    let (debited, credited) = ledger::release(&from, &to, held.amount).map_err(|_| damaged(1))?;
    // Ids of transfers have the prefix that this one replaces: checked when the hold was taken.
    let id = ledger::expiry_id(&held.id).ok_or_else(|| damaged(1))?;
    let row = TransferRow {
        id,
        kind: Kind::Expired,
        hold: Some(held.id.clone()),
        expires_at_ms: None,
        fact: None,
        at_ms: now_ms,
        ..held
    };
    Ok(Expired {
        tenant,
        debited: Account { balance: debited, ..from },
        credited: Account { balance: credited, ..to },
        row,
    })
}
