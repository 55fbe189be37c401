//! Epochs: where the installation's history stands, and where each log went from one epoch to another.
//!
//! A log that was put back (yesterday's backup, today) continues differently from the one that others may hold heads of.
//! Signed under the same origin, the two would be one log that contradicts itself, for ever. So nothing is signed until an
//! operator opens an epoch: the log goes on under an origin that nobody has seen, and what it took over stands here.
//!
//! The platform's log goes first and takes the installation with it; each other log follows in a commit of its own, with a
//! fact of its own. In between it is *behind*, and whoever signs looks.

use super::apply::{Bench, Stop};
use super::log::Log;
use super::reads::{digest, signed, tenant as read_tenant, unsigned};
use crate::{CommitError, EpochRow, Standing, epoch_of};
use kernel::TenantId;
use rusqlite::{Connection, params};

/// Largest epoch: integers in a trust file's canonical form end here.
const EPOCH_MAX: u64 = (1 << 53) - 1;

pub(super) fn standing(db: &Connection) -> rusqlite::Result<Standing> {
    db.prepare_cached("SELECT epoch, generation, put_back FROM standing WHERE only = 1")?.query_row(
        [],
        |row| {
            Ok(Standing {
                epoch: unsigned(row.get(0)?, 0)?,
                generation: unsigned(row.get(1)?, 1)?,
                put_back: row.get(2)?,
            })
        },
    )
}

pub(super) fn list(db: &Connection, tenant: &TenantId) -> rusqlite::Result<Vec<EpochRow>> {
    db.prepare_cached(
        "SELECT epoch, previous, at_ms, size, root FROM epochs WHERE tenant = ? ORDER BY epoch",
    )?
    .query_map([tenant.as_str()], |row| {
        Ok(EpochRow {
            epoch: unsigned(row.get(0)?, 0)?,
            previous: row.get(1)?,
            at_ms: row.get(2)?,
            size: unsigned(row.get(3)?, 3)?,
            root: digest(row.get_ref(4)?.as_blob()?, 4)?,
        })
    })?
    .collect()
}

/// Whether the installation has ever been in `epoch`.
pub(super) fn known(db: &Connection, epoch: u64) -> rusqlite::Result<bool> {
    let born = 1;
    Ok(epoch == born
        || db
            .prepare_cached("SELECT 1 FROM epochs WHERE tenant = ? AND epoch = ?")?
            .exists(params![TenantId::platform().as_str(), signed(epoch)])?)
}

pub(super) fn behind(db: &Connection) -> rusqlite::Result<Vec<TenantId>> {
    let ending = format!("/{}", standing(db)?.epoch);
    db.prepare_cached("SELECT tenant FROM heads WHERE substr(origin, -length(?1)) <> ?1 ORDER BY tenant")?
        .query_map([ending], |row| read_tenant(row.get_ref(0)?.as_str()?, 0))?
        .collect()
}

/// Whether a log may go to `epoch`; returns the origin that it then has.
pub(super) fn check(bench: &Bench<'_>, tenant: &TenantId, epoch: u64) -> Result<String, Stop> {
    let refused = |id: &str| CommitError::Conflict { kind: "epoch".to_owned(), id: id.to_owned() };
    let Some(state) = bench.tenants.get(tenant) else { return Err(CommitError::Log.into()) };
    let (home, now) = match (state.log.origin.rsplit_once('/'), epoch_of(&state.log.origin)) {
        (Some((home, _)), Some(now)) => (home, now),
        _ => return Err(CommitError::Log.into()),
    };
    let installation = standing(bench.db)?.epoch;
    let leads = *tenant == TenantId::platform();
    let fits = if leads { epoch > installation } else { epoch == installation };
    if !fits || epoch <= now || epoch > EPOCH_MAX {
        return Err(refused(tenant.as_str()).into());
    }
    // Facts that wait for their place were stated under the old origin, and what is taken over is counted here.
    let waiting = bench
        .db
        .prepare_cached("SELECT 1 FROM intake WHERE tenant = ? LIMIT 1")?
        .exists([tenant.as_str()])?;
    if waiting {
        return Err(refused("facts that wait to be sequenced").into());
    }
    Ok(format!("{home}/{epoch}"))
}

/// Moves a log; `origin` is what [`check`] returned.
pub(super) fn write(
    db: &Connection,
    tenant: &TenantId,
    log: &mut Log,
    epoch: u64,
    origin: String,
    at_ms: i64,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO epochs (tenant, epoch, previous, at_ms, size, root) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        tenant.as_str(),
        signed(epoch),
        log.origin,
        at_ms,
        signed(log.size()),
        log.root().as_slice()
    ])?;
    if *tenant == TenantId::platform() {
        db.prepare_cached("UPDATE standing SET epoch = ?, put_back = NULL")?.execute([signed(epoch)])?;
    }
    log.rename(origin);
    Ok(())
}

/// Writes down that this database is not to be signed; the first reason stays.
pub(super) fn put_back(db: &Connection, why: &str) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE standing SET put_back = coalesce(put_back, ?)")?.execute([why])?;
    Ok(())
}
