//! Reading records, outcomes, blobs and asides, and the conversions that every read needs.

use crate::{IndexedRow, KeptOutcome, PAGE_MAX, Range, Row, key};
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

/// A page's length as SQLite wants it.
pub(super) fn capped(limit: usize) -> i64 {
    limit.min(PAGE_MAX) as i64
}

pub(super) fn record(
    db: &Connection,
    tenant: &TenantId,
    kind: &str,
    record: &Id,
) -> rusqlite::Result<Option<Row>> {
    db.prepare_cached("SELECT rev, body FROM records WHERE tenant = ? AND kind = ? AND id = ?")?
        .query_row(params![tenant.as_str(), kind, record.as_str()], |row| {
            Ok(Row { id: record.clone(), rev: unsigned(row.get(0)?, 0)?, body: row.get(1)? })
        })
        .optional()
}

/// The statement of a listing and its bounds: the (key, id) after which it starts or the least key, and the end.
///
/// Only one lower and one upper bound are ever given, because SQLite seeks by one and *filters* by the other: with both
/// `key >= prefix` and `(key, id) > cursor` it would walk every earlier page to reach a late one. `CROSS JOIN` keeps
/// the index outermost, so rows come out in order and a page costs what it shows.
pub(super) fn list_sql(range: &Range) -> (String, ListBounds<'_>) {
    let mut sql = String::from(
        "SELECT x.key, r.id, r.rev, r.body FROM record_index x \
         CROSS JOIN records r ON r.tenant = x.tenant AND r.kind = x.kind AND r.id = x.id \
         WHERE x.tenant = ?1 AND x.kind = ?2 AND x.name = ?3",
    );
    let end = key::prefix_end(&range.prefix);
    // A cursor outside the range (before its start, or beyond its end) has nothing to add to the bound it is beyond.
    let after = range.after.as_ref().filter(|(key, _)| {
        if range.descending { end.as_ref().is_none_or(|end| key < end) } else { *key >= range.prefix }
    });
    let after = after.map(|(key, id)| (key.as_slice(), id.as_str()));
    let beyond = if range.descending { "<" } else { ">" };
    let seek = format!(" AND (x.key, x.id) {beyond} (?4, ?5)");
    let from = " AND x.key >= ?6";
    let to = if end.is_some() { " AND x.key < ?7" } else { "" };
    match (after.is_some(), range.descending) {
        (false, _) => sql.extend([from, to]),
        (true, false) => sql.extend([&seek, to]),
        (true, true) => sql.extend([from, &seek]),
    }
    let order = if range.descending { "DESC" } else { "ASC" };
    sql.push_str(&format!(" ORDER BY x.key {order}, x.id {order} LIMIT ?8"));
    (sql, ListBounds { after, end })
}

pub(super) struct ListBounds<'a> {
    after: Option<(&'a [u8], &'a str)>,
    end: Option<Vec<u8>>,
}

pub(super) fn record_list(
    db: &Connection,
    tenant: &TenantId,
    kind: &str,
    range: &Range,
) -> rusqlite::Result<Vec<IndexedRow>> {
    let (sql, ListBounds { after, end }) = list_sql(range);
    let (after_key, after_id) = after.unzip();
    let mut statement = db.prepare_cached(&sql)?;
    // Every shape of the statement has a ?8; those in between that it does not name are bound all the same.
    statement
        .query_map(
            params![
                tenant.as_str(),
                kind,
                range.index,
                after_key,
                after_id,
                range.prefix,
                end,
                capped(range.limit)
            ],
            |row| {
                let text: String = row.get(1)?;
                Ok((
                    row.get(0)?,
                    Row { id: id(&text, 1)?, rev: unsigned(row.get(2)?, 2)?, body: row.get(3)? },
                ))
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
         WHERE u.kind = ? AND u.name = ? AND u.key = ? ORDER BY u.tenant LIMIT 1",
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
) -> rusqlite::Result<Option<KeptOutcome>> {
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

pub(super) fn tenants(db: &Connection) -> rusqlite::Result<Vec<TenantId>> {
    db.prepare_cached("SELECT tenant FROM heads ORDER BY tenant")?
        .query_map([], |row| tenant(&row.get::<_, String>(0)?, 0))?
        .collect()
}
