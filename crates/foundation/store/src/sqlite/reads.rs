//! Reading records, jobs and outcomes.

use crate::{JobRow, PAGE_MAX, Range, Row, key};
use kernel::{Digest, Id, TenantId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};

/// A stored value that is not what this engine writes.
fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, "damaged".into())
}

pub(super) fn id(text: &str, column: usize) -> rusqlite::Result<Id> {
    Id::parse(text).map_err(|_| damaged(column))
}

pub(super) fn tenant(text: &str, column: usize) -> rusqlite::Result<TenantId> {
    TenantId::parse(text).map_err(|_| damaged(column))
}

pub(super) fn unsigned(number: i64, column: usize) -> rusqlite::Result<u64> {
    u64::try_from(number).map_err(|_| damaged(column))
}

pub(super) fn digest(bytes: &[u8], column: usize) -> rusqlite::Result<Digest> {
    bytes.try_into().map_err(|_| damaged(column))
}

/// A number as SQLite keeps it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn capped(limit: usize) -> i64 {
    limit.min(PAGE_MAX) as i64
}

pub(super) fn record(db: &Connection, tenant: &TenantId, kind: &str, record: &Id) -> rusqlite::Result<Option<Row>> {
    db.prepare_cached("SELECT rev, body FROM records WHERE tenant = ? AND kind = ? AND id = ?")?
        .query_row(params![tenant.as_str(), kind, record.as_str()], |row| {
            Ok(Row { id: record.clone(), rev: unsigned(row.get(0)?, 0)?, body: row.get(1)? })
        })
        .optional()
}

pub(super) fn record_list(
    db: &Connection,
    tenant: &TenantId,
    kind: &str,
    range: &Range,
) -> rusqlite::Result<Vec<(Vec<u8>, Row)>> {
    let (order, beyond) = if range.descending { ("DESC", "<") } else { ("ASC", ">") };
    // The shape of the statement depends on two flags only; all values are bound.
    let mut sql = String::from(
        "SELECT x.key, r.id, r.rev, r.body FROM record_index x \
         JOIN records r ON r.tenant = x.tenant AND r.kind = x.kind AND r.id = x.id \
         WHERE x.tenant = ?1 AND x.kind = ?2 AND x.name = ?3 AND x.key >= ?4",
    );
    let end = key::prefix_end(&range.prefix);
    sql.push_str(if end.is_some() { " AND x.key < ?5" } else { " AND ?5 IS NULL" });
    let (after_key, after_id) = match &range.after {
        None => {
            sql.push_str(" AND ?6 IS NULL AND ?7 IS NULL");
            (None, None)
        }
        Some((key, id)) => {
            sql.push_str(&format!(" AND (x.key, x.id) {beyond} (?6, ?7)"));
            (Some(key), Some(id.as_str()))
        }
    };
    sql.push_str(&format!(" ORDER BY x.key {order}, x.id {order} LIMIT ?8"));
    db.prepare_cached(&sql)?
        .query_map(
            params![tenant.as_str(), kind, range.index, range.prefix, end, after_key, after_id, capped(range.limit)],
            |row| {
                let text: String = row.get(1)?;
                Ok((row.get(0)?, Row { id: id(&text, 1)?, rev: unsigned(row.get(2)?, 2)?, body: row.get(3)? }))
            },
        )?
        .collect()
}

pub(super) fn record_unique(
    db: &Connection,
    tenant: &TenantId,
    kind: &str,
    name: &str,
    key: &[u8],
) -> rusqlite::Result<Option<Row>> {
    db.prepare_cached(
        "SELECT r.id, r.rev, r.body FROM record_unique u \
         JOIN records r ON r.tenant = u.tenant AND r.kind = u.kind AND r.id = u.id \
         WHERE u.kind = ? AND u.name = ? AND u.key = ? AND u.tenant = ?",
    )?
    .query_row(params![kind, name, key, tenant.as_str()], |row| {
        let text: String = row.get(0)?;
        Ok(Row { id: id(&text, 0)?, rev: unsigned(row.get(1)?, 1)?, body: row.get(2)? })
    })
    .optional()
}

pub(super) fn record_unique_anywhere(
    db: &Connection,
    kind: &str,
    name: &str,
    key: &[u8],
) -> rusqlite::Result<Option<(TenantId, Row)>> {
    db.prepare_cached(
        "SELECT r.id, r.rev, r.body, r.tenant FROM record_unique u \
         JOIN records r ON r.tenant = u.tenant AND r.kind = u.kind AND r.id = u.id \
         WHERE u.kind = ? AND u.name = ? AND u.key = ? LIMIT 1",
    )?
    .query_row(params![kind, name, key], |row| {
        let (text, owner): (String, String) = (row.get(0)?, row.get(3)?);
        Ok((tenant(&owner, 3)?, Row { id: id(&text, 0)?, rev: unsigned(row.get(1)?, 1)?, body: row.get(2)? }))
    })
    .optional()
}

pub(super) fn outcome(
    db: &Connection,
    tenant: &TenantId,
    principal: &Id,
    act: &str,
    key: &str,
) -> rusqlite::Result<Option<(Digest, Vec<u8>)>> {
    db.prepare_cached(
        "SELECT args_digest, body FROM outcomes WHERE tenant = ? AND principal = ? AND act = ? AND key = ?",
    )?
    .query_row(params![tenant.as_str(), principal.as_str(), act, key], |row| {
        Ok((digest(row.get_ref(0)?.as_blob()?, 0)?, row.get(1)?))
    })
    .optional()
}

pub(super) fn blob(db: &Connection, tenant: &TenantId, digest: &Digest) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT bytes FROM blobs WHERE tenant = ? AND digest = ?")?
        .query_row(params![tenant.as_str(), digest.as_slice()], |row| row.get(0))
        .optional()
}

pub(super) fn aside(db: &Connection, tenant: &TenantId, fact: &Id) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT body FROM asides WHERE tenant = ? AND fact = ?")?
        .query_row(params![tenant.as_str(), fact.as_str()], |row| row.get(0))
        .optional()
}

pub(super) fn jobs_next_due_ms(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let mut next: Option<i64> = None;
    for tenant in job_tenants(db, "")? {
        let due: i64 = db
            .prepare_cached("SELECT due_ms FROM jobs WHERE tenant = ? ORDER BY due_ms LIMIT 1")?
            .query_row([&tenant], |row| row.get(0))?;
        next = Some(next.map_or(due, |next| next.min(due)));
    }
    Ok(next)
}

/// Tenants that have jobs, from after `after` on and round again. One index probe each.
pub(super) fn job_tenants(db: &Connection, after: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT tenant FROM jobs WHERE tenant > ? ORDER BY tenant LIMIT 1")?;
    let (mut later, mut earlier) = (Vec::new(), Vec::new());
    let mut at = String::new();
    while let Some(tenant) = statement.query_row([&at], |row| row.get::<_, String>(0)).optional()? {
        if tenant.as_str() > after { later.push(tenant.clone()) } else { earlier.push(tenant.clone()) }
        at = tenant;
    }
    later.append(&mut earlier);
    Ok(later)
}

pub(super) fn jobs(db: &Connection, tenant: &TenantId, limit: usize) -> rusqlite::Result<Vec<JobRow>> {
    db.prepare_cached("SELECT id, kind, due_ms, starts FROM jobs WHERE tenant = ? ORDER BY due_ms LIMIT ?")?
        .query_map(params![tenant.as_str(), capped(limit)], |row| {
            let text: String = row.get(0)?;
            Ok(JobRow { id: id(&text, 0)?, kind: row.get(1)?, due_ms: row.get(2)?, starts: row.get(3)? })
        })?
        .collect()
}

pub(super) fn tenants(db: &Connection) -> rusqlite::Result<Vec<TenantId>> {
    db.prepare_cached("SELECT tenant FROM heads ORDER BY tenant")?
        .query_map([], |row| tenant(&row.get::<_, String>(0)?, 0))?
        .collect()
}
