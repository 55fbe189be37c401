//! The table of jobs: enqueuing, claiming in turn, prolonging, completing.
//!
//! A job is *ready* once its time has come. Claiming first makes ready what has become due, oldest first, then takes
//! one job per tenant in turn, beginning after the tenant served last. Each step is one probe of an index, so a claim
//! costs what it returns: neither a tenant with a million timers nor ten thousand tenants with nothing to do are
//! walked over.
//!
//! Safety is the epoch alone: every claim raises it, and a completion under another one is refused. The lease's time
//! only says when somebody else may try. An epoch belongs to one job, so the id of a finished job is not used again.

use super::apply::Bench;
use super::reads::{capped, id as read_id, signed, tenant as read_tenant, unsigned};
use crate::{JobRow, PUT_OFF_MS};
use kernel::changeset::NewJob;
use kernel::permit::{Authority, JobKind, LeasedJob};
use kernel::{Id, Lease, TenantId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// Most jobs made ready by one claim.
const READIED_MAX: i64 = 1_000;
/// Most jobs put off by one claim.
const PUT_OFF_MAX: usize = 256;

/// A job's epoch; `None`: there is no such job.
pub(super) fn epoch(db: &Connection, tenant: &TenantId, job: &Id) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT epoch FROM jobs WHERE tenant = ? AND id = ?")?
        .query_row(params![tenant.as_str(), job.as_str()], |row| unsigned(row.get(0)?, 0))
        .optional()
}

/// Enqueues a job; one that is held is claimed at once and its lease returned.
pub(super) fn insert(
    bench: &Bench<'_>,
    tenant: &TenantId,
    job: NewJob,
    authority: &Authority,
) -> rusqlite::Result<Option<Lease>> {
    let held = i64::from(job.held);
    let due_ms = if job.held { bench.now_ms.saturating_add(job.kind.lease_ms) } else { job.ready_at_ms };
    let ready = due_ms <= bench.now_ms;
    // An authority is plain data with text keys; serialising it cannot fail.
    let encoded = serde_json::to_vec(authority).unwrap_or_default();
    bench
        .db
        .prepare_cached(
            "INSERT INTO jobs (tenant, id, kind, ready, due_ms, epoch, starts, authority, body) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            tenant.as_str(),
            job.id.as_str(),
            job.kind.name,
            ready,
            due_ms,
            held,
            held,
            encoded,
            job.body
        ])?;
    Ok(job.held.then(|| {
        bench.seal.lease(LeasedJob {
            id: job.id,
            tenant: tenant.clone(),
            kind: job.kind,
            epoch: 1,
            starts: 1,
            authority: authority.clone(),
            body: job.body,
            lease_until_ms: due_ms,
        })
    }))
}

/// Removes a job that was never claimed.
pub(super) fn cancel(db: &Connection, tenant: &TenantId, job: &Id) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM jobs WHERE tenant = ? AND id = ? AND epoch = 0")?
        .execute(params![tenant.as_str(), job.as_str()])
        .map(|_| ())
}

/// Removes a completed job.
pub(super) fn complete(db: &Connection, tenant: &TenantId, job: &Id) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM jobs WHERE tenant = ? AND id = ?")?
        .execute(params![tenant.as_str(), job.as_str()])
        .map(|_| ())
}

/// Prolongs a lease; `false`: somebody else has claimed the job, or it is gone.
pub(super) fn renew(
    bench: &Bench<'_>,
    tenant: &TenantId,
    job: &Id,
    epoch: u64,
    kind: &JobKind,
) -> rusqlite::Result<bool> {
    bench
        .db
        .prepare_cached("UPDATE jobs SET ready = 0, due_ms = ? WHERE tenant = ? AND id = ? AND epoch = ?")?
        .execute(params![
            bench.now_ms.saturating_add(kind.lease_ms),
            tenant.as_str(),
            job.as_str(),
            signed(epoch)
        ])
        .map(|changed| changed == 1)
}

/// Ends every lease there is; returns how many. For the start of the one process that may have the folder: whoever held
/// them is dead, so nobody need wait for their time to pass. Epochs stay, so nothing that the dead began counts twice.
///
/// Every job that was ever claimed has an epoch, and every one that was not has none: one look over the table.
pub(super) fn release(bench: &Bench<'_>) -> rusqlite::Result<usize> {
    bench
        .db
        .prepare_cached("UPDATE jobs SET ready = 0, due_ms = ?1 WHERE epoch > 0 AND due_ms > ?1")?
        .execute([bench.now_ms])
}

pub(super) const READY_SQL: &str = "UPDATE jobs SET ready = 1 WHERE n IN \
     (SELECT n FROM jobs WHERE ready = 0 AND due_ms <= ? ORDER BY due_ms LIMIT ?)";
pub(super) const NEXT_SQL: &str = "SELECT n, tenant, id, kind, epoch, starts, authority, body FROM jobs \
     WHERE ready = 1 AND tenant > ? ORDER BY tenant, due_ms, n LIMIT 1";

/// A row of the table as a lease needs it.
struct Due {
    tenant: TenantId,
    id: Id,
    kind: &'static JobKind,
    epoch: u64,
    starts: u32,
    authority: Authority,
    body: Vec<u8>,
}

impl Due {
    /// `Err`: why nobody can be given this job.
    fn of(row: &Row<'_>, kinds: &[&'static JobKind]) -> Result<Due, String> {
        let damaged = |error: rusqlite::Error| error.to_string();
        let text = |column| row.get_ref(column).and_then(|text| Ok(text.as_str()?)).map_err(damaged);
        let name = text(3)?;
        let kind = kinds.iter().find(|known| known.name == name);
        Ok(Due {
            tenant: read_tenant(text(1)?, 1).map_err(damaged)?,
            id: read_id(text(2)?, 2).map_err(damaged)?,
            kind: kind.ok_or_else(|| format!("its kind {name} is not known here"))?,
            epoch: unsigned(row.get(4).map_err(damaged)?, 4).map_err(damaged)?,
            starts: row.get(5).map_err(damaged)?,
            authority: serde_json::from_slice(&row.get::<_, Vec<u8>>(6).map_err(damaged)?)
                .map_err(|error| format!("its authority cannot be read: {error}"))?,
            body: row.get(7).map_err(damaged)?,
        })
    }
}

/// Claims due jobs, one per tenant in turn, beginning after the tenant served last.
pub(super) fn claim(
    bench: &Bench<'_>,
    kinds: &'static [&'static JobKind],
    limit: usize,
    served_last: &mut String,
) -> rusqlite::Result<Vec<Lease>> {
    let db = bench.db;
    db.prepare_cached(READY_SQL)?.execute(params![bench.now_ms, READIED_MAX])?;
    let mut leases = Vec::new();
    let mut put_off = 0;
    let mut next = db.prepare_cached(NEXT_SQL)?;
    while leases.len() < limit && put_off < PUT_OFF_MAX {
        let due = next
            .query_row([&*served_last], |row| {
                let tenant = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?).into_owned();
                Ok((row.get::<_, i64>(0)?, tenant, Due::of(row, kinds)))
            })
            .optional()?;
        let Some((n, tenant, due)) = due else {
            if served_last.is_empty() {
                break;
            }
            // Past the last tenant: round again from the first.
            served_last.clear();
            continue;
        };
        *served_last = tenant;
        let due = match due {
            Ok(due) => due,
            Err(why) => {
                // Work that this version does not know stays for one that does, out of the way for a while. What is
                // damaged is left to somebody who looks.
                tracing::error!(
                    tenant = served_last,
                    row = n,
                    why,
                    "a job that cannot be given out is put off"
                );
                db.prepare_cached("UPDATE jobs SET ready = 0, due_ms = ? WHERE n = ?")?
                    .execute(params![bench.now_ms.saturating_add(PUT_OFF_MS), n])?;
                put_off += 1;
                continue;
            }
        };
        let lease_until_ms = bench.now_ms.saturating_add(due.kind.lease_ms);
        let (epoch, starts) = (due.epoch + 1, due.starts.saturating_add(1));
        db.prepare_cached("UPDATE jobs SET ready = 0, due_ms = ?, epoch = ?, starts = ? WHERE n = ?")?
            .execute(params![lease_until_ms, signed(epoch), starts, n])?;
        leases.push(bench.seal.lease(LeasedJob {
            id: due.id,
            tenant: due.tenant,
            kind: due.kind,
            epoch,
            starts,
            authority: due.authority,
            body: due.body,
            lease_until_ms,
        }));
    }
    Ok(leases)
}

pub(super) const NEXT_DUE_SQL: &str = "SELECT min(due_ms) FROM \
     (SELECT * FROM (SELECT due_ms FROM jobs WHERE ready = 1 ORDER BY due_ms LIMIT 1) UNION ALL \
      SELECT * FROM (SELECT due_ms FROM jobs WHERE ready = 0 ORDER BY due_ms LIMIT 1))";

/// When the next job is due.
pub(super) fn next_due_ms(db: &Connection) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached(NEXT_DUE_SQL)?.query_row([], |row| row.get(0))
}

pub(super) const LIST_SQL: &str = "SELECT * FROM (SELECT id, kind, due_ms, starts, n FROM jobs \
      WHERE ready = 1 AND tenant = ?1 ORDER BY due_ms, n LIMIT ?2) \
     UNION ALL SELECT * FROM (SELECT id, kind, due_ms, starts, n FROM jobs \
      WHERE ready = 0 AND tenant = ?1 ORDER BY due_ms, n LIMIT ?2)";

/// A tenant's jobs in order of their due time.
pub(super) fn list(db: &Connection, tenant: &TenantId, limit: usize) -> rusqlite::Result<Vec<JobRow>> {
    let mut rows: Vec<(JobRow, i64)> = db
        .prepare_cached(LIST_SQL)?
        .query_map(params![tenant.as_str(), capped(limit)], |row| {
            let text: String = row.get(0)?;
            let job = JobRow {
                id: read_id(&text, 0)?,
                kind: row.get(1)?,
                due_ms: row.get(2)?,
                starts: row.get(3)?,
            };
            Ok((job, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    rows.sort_by_key(|(job, n)| (job.due_ms, *n));
    rows.truncate(capped(limit) as usize);
    Ok(rows.into_iter().map(|(job, _)| job).collect())
}
