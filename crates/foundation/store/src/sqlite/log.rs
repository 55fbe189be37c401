//! The tenants' logs: appending leaves, keeping the right edge, tiles, and reading nodes back for proofs.
//!
//! The writer keeps each tenant's frontier in memory and writes its head row once per batch. Every 256 leaves the hashes
//! of a level-0 tile are complete and written, every 256 tiles one of level 1, and so on (c2sp.org/tlog-tiles uses the
//! same shape), so that a proof in a log of a million facts reads a few tiles rather than the leaves.

use super::reads::{digest, signed, unsigned};
use crate::{CheckpointRow, Head, LEAVES_MAX, LeafRow, PAGE_MAX};
use kernel::merkle::{self, Frontier};
use kernel::{Digest, Id, TenantId, sha256};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Hashes in a tile.
const TILE_WIDTH: u64 = 256;
/// Levels of the tree that one tile spans.
const TILE_HEIGHT: u8 = 8;

/// A tenant's log while the writer works on it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub origin: String,
    frontier: Frontier,
    batch_hash: Digest,
    dirty: bool,
}

impl Log {
    /// The log of a new tenant.
    pub fn empty(origin: String) -> Log {
        Log { origin, frontier: Frontier::default(), batch_hash: [0; 32], dirty: true }
    }

    /// Takes up a tenant's log. `None`: there is none.
    pub fn load(db: &Connection, tenant: &TenantId) -> rusqlite::Result<Option<Log>> {
        db.prepare_cached("SELECT origin, size, edge, batch_hash FROM heads WHERE tenant = ?")?
            .query_row([tenant.as_str()], |row| {
                let size = unsigned(row.get(1)?, 1)?;
                let frontier = Frontier::resume(size, row.get_ref(2)?.as_blob()?)
                    .ok_or_else(|| rusqlite::Error::InvalidColumnName("edge".into()))?;
                Ok(Log {
                    origin: row.get(0)?,
                    frontier,
                    batch_hash: digest(row.get_ref(3)?.as_blob()?, 3)?,
                    dirty: false,
                })
            })
            .optional()
    }

    /// Goes on under another origin.
    pub fn rename(&mut self, origin: String) {
        self.origin = origin;
        self.dirty = true;
    }

    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Appends one leaf and returns its index.
    pub fn append(
        &mut self,
        db: &Connection,
        tenant: &TenantId,
        stream: &str,
        stream_n: u64,
        hash: Digest,
        leaf: &[u8],
    ) -> rusqlite::Result<u64> {
        let index = self.frontier.size();
        db.prepare_cached(
            "INSERT INTO facts (tenant, n, stream, stream_n, hash, leaf) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            tenant.as_str(),
            signed(index),
            stream,
            signed(stream_n),
            hash.as_slice(),
            leaf
        ])?;
        self.frontier.append(hash);
        self.dirty = true;
        if self.frontier.size().is_multiple_of(TILE_WIDTH) {
            tiles_write(db, tenant, self.frontier.size())?;
        }
        Ok(index)
    }

    /// Writes the head if the batch appended anything.
    pub fn flush(&mut self, db: &Connection, tenant: &TenantId) -> rusqlite::Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let root = self.root();
        // A log that is new and still empty is no batch.
        if self.size() > 0 {
            let mut chain = self.batch_hash.to_vec();
            chain.extend_from_slice(&self.size().to_be_bytes());
            chain.extend_from_slice(&root);
            self.batch_hash = sha256(&chain);
        }
        db.prepare_cached(
            "INSERT INTO heads (tenant, origin, size, root, edge, batch_hash) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (tenant) DO UPDATE SET origin = excluded.origin, size = excluded.size, root = excluded.root, edge = excluded.edge, \
             batch_hash = excluded.batch_hash",
        )?
        .execute(params![
            tenant.as_str(),
            self.origin,
            signed(self.size()),
            root.as_slice(),
            self.frontier.edge(),
            self.batch_hash.as_slice()
        ])?;
        self.dirty = false;
        Ok(())
    }
}

/// Writes every tile that became complete when the tree reached `size`.
fn tiles_write(db: &Connection, tenant: &TenantId, size: u64) -> rusqlite::Result<()> {
    let (mut width, mut level) = (size, 0u8);
    while width > 0 && width.is_multiple_of(TILE_WIDTH) {
        let n = width / TILE_WIDTH - 1;
        let mut hashes = Vec::with_capacity(TILE_WIDTH as usize * 32);
        if level == 0 {
            let mut statement =
                db.prepare_cached("SELECT hash FROM facts WHERE tenant = ? AND n >= ? AND n < ? ORDER BY n")?;
            let mut rows = statement.query(params![
                tenant.as_str(),
                signed(n * TILE_WIDTH),
                signed((n + 1) * TILE_WIDTH)
            ])?;
            while let Some(row) = rows.next()? {
                hashes.extend_from_slice(&digest(row.get_ref(0)?.as_blob()?, 0)?);
            }
        } else {
            for entry in n * TILE_WIDTH..(n + 1) * TILE_WIDTH {
                hashes.extend_from_slice(&node(db, tenant, level * TILE_HEIGHT, entry)?);
            }
        }
        db.prepare_cached("INSERT INTO tiles (tenant, level, n, hashes) VALUES (?, ?, ?, ?)")?
            .execute(params![tenant.as_str(), level, signed(n), hashes])?;
        width /= TILE_WIDTH;
        level += 1;
    }
    Ok(())
}

/// Hash of the perfect subtree of height `level` starting at leaf `n << level`, which must be complete.
pub(super) fn node(db: &Connection, tenant: &TenantId, level: u8, n: u64) -> rusqlite::Result<Digest> {
    if level == 0 {
        return db
            .prepare_cached("SELECT hash FROM facts WHERE tenant = ? AND n = ?")?
            .query_row(params![tenant.as_str(), signed(n)], |row| digest(row.get_ref(0)?.as_blob()?, 0));
    }
    let (tile_level, depth) = (level / TILE_HEIGHT, level % TILE_HEIGHT);
    if depth == 0 {
        // The root of a complete tile one level below, if that has been written.
        let below = tile(db, tenant, tile_level - 1, n)?;
        if let Some(hashes) = below {
            return Ok(merkle::root_of(&hashes));
        }
    } else {
        let width = 1u64 << depth;
        let first = n << depth;
        if let Some(hashes) = tile(db, tenant, tile_level, first / TILE_WIDTH)? {
            let from = (first % TILE_WIDTH) as usize;
            return Ok(merkle::root_of(&hashes[from..from + width as usize]));
        }
    }
    let left = node(db, tenant, level - 1, n * 2)?;
    Ok(merkle::node_hash(&left, &node(db, tenant, level - 1, n * 2 + 1)?))
}

fn tile(db: &Connection, tenant: &TenantId, level: u8, n: u64) -> rusqlite::Result<Option<Vec<Digest>>> {
    let hashes = db
        .prepare_cached("SELECT hashes FROM tiles WHERE tenant = ? AND level = ? AND n = ?")?
        .query_row(params![tenant.as_str(), level, signed(n)], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(hashes
        .map(|hashes| hashes.as_chunks::<32>().0.to_vec())
        .filter(|hashes| hashes.len() == TILE_WIDTH as usize))
}

/// Root of the first `size` leaves.
pub(super) fn root_at(db: &Connection, tenant: &TenantId, size: u64) -> rusqlite::Result<Digest> {
    merkle::root_at(size, &mut |level, n| node(db, tenant, level, n))
}

/// Fails unless the log has `size` leaves.
fn reaches(db: &Connection, tenant: &TenantId, size: u64) -> rusqlite::Result<()> {
    let has = head(db, tenant)?.map_or(0, |head| head.size);
    if size <= has { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}

/// A multi-proof; indices may come in any order.
pub(super) fn proof(
    db: &Connection,
    tenant: &TenantId,
    size: u64,
    mut indices: Vec<u64>,
) -> rusqlite::Result<Vec<Digest>> {
    indices.sort_unstable();
    indices.dedup();
    reaches(db, tenant, size)?;
    if indices.last().is_some_and(|last| *last >= size) {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    merkle::multi(size, &indices, &mut |level, n| node(db, tenant, level, n))
}

/// A consistency proof.
pub(super) fn consistency(
    db: &Connection,
    tenant: &TenantId,
    old: u64,
    new: u64,
) -> rusqlite::Result<Vec<Digest>> {
    reaches(db, tenant, new)?;
    if old > new {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    merkle::consistency(old, new, &mut |level, n| node(db, tenant, level, n))
}

pub(super) fn head(db: &Connection, tenant: &TenantId) -> rusqlite::Result<Option<Head>> {
    db.prepare_cached("SELECT origin, size, root, batch_hash FROM heads WHERE tenant = ?")?
        .query_row([tenant.as_str()], |row| {
            Ok(Head {
                origin: row.get(0)?,
                size: unsigned(row.get(1)?, 1)?,
                root: digest(row.get_ref(2)?.as_blob()?, 2)?,
                batch_hash: digest(row.get_ref(3)?.as_blob()?, 3)?,
            })
        })
        .optional()
}

pub(super) fn leaves(
    db: &Connection,
    tenant: &TenantId,
    from: u64,
    limit: usize,
) -> rusqlite::Result<Vec<LeafRow>> {
    db.prepare_cached("SELECT n, leaf FROM facts WHERE tenant = ? AND n >= ? ORDER BY n LIMIT ?")?
        .query_map(params![tenant.as_str(), signed(from), limit.min(LEAVES_MAX) as i64], leaf_row)?
        .collect()
}

pub(super) fn stream(
    db: &Connection,
    tenant: &TenantId,
    stream: &Id,
    from: u64,
    limit: usize,
) -> rusqlite::Result<Vec<LeafRow>> {
    db.prepare_cached(
        "SELECT n, leaf FROM facts WHERE tenant = ? AND stream = ? AND stream_n >= ? ORDER BY stream_n LIMIT ?",
    )?
    .query_map(params![tenant.as_str(), stream.as_str(), signed(from), limit.min(LEAVES_MAX) as i64], leaf_row)?
    .collect()
}

fn leaf_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<LeafRow> {
    Ok(LeafRow { index: unsigned(row.get(0)?, 0)?, leaf: row.get(1)? })
}

/// The last number given out in a stream. Only where sequencing is `deferred` do facts wait in the intake: a writer that
/// places them at once has emptied it before its first commit.
pub(super) fn stream_last(
    db: &Connection,
    tenant: &TenantId,
    stream: &str,
    deferred: bool,
) -> rusqlite::Result<u64> {
    const PLACED: &str =
        "SELECT stream_n FROM facts WHERE tenant = ? AND stream = ? ORDER BY stream_n DESC LIMIT 1";
    const WAITING: &str =
        "SELECT stream_n FROM intake WHERE tenant = ? AND stream = ? ORDER BY stream_n DESC LIMIT 1";
    let mut last = 0;
    for sql in [Some(PLACED), deferred.then_some(WAITING)].into_iter().flatten() {
        let found: Option<i64> = db
            .prepare_cached(sql)?
            .query_row(params![tenant.as_str(), stream], |row| row.get(0))
            .optional()?;
        last = last.max(unsigned(found.unwrap_or(0), 0)?);
    }
    Ok(last)
}

pub(super) fn checkpoints(
    db: &Connection,
    tenant: &TenantId,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<CheckpointRow>> {
    db.prepare_cached(
        "SELECT size, note FROM checkpoints WHERE tenant = ? AND size > ? ORDER BY size LIMIT ?",
    )?
    .query_map(params![tenant.as_str(), signed(after), limit.min(PAGE_MAX) as i64], checkpoint_row)?
    .collect()
}

pub(super) fn checkpoint_last(db: &Connection, tenant: &TenantId) -> rusqlite::Result<Option<CheckpointRow>> {
    db.prepare_cached("SELECT size, note FROM checkpoints WHERE tenant = ? ORDER BY size DESC LIMIT 1")?
        .query_row([tenant.as_str()], checkpoint_row)
        .optional()
}

fn checkpoint_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<CheckpointRow> {
    Ok(CheckpointRow { size: unsigned(row.get(0)?, 0)?, note: row.get(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    /// 65,536 leaves are 256 tiles of the lowest level and one of the next, and the root over all of them is read from
    /// that one: without it a proof in a large log would read hundreds of tiles.
    #[test]
    fn every_complete_tile_is_kept_at_its_level() {
        const SIZE: u64 = TILE_WIDTH * TILE_WIDTH;
        let folder = tempfile::tempdir().unwrap();
        let db = schema::open_writer(&folder.path().join("writ.db"), None).unwrap();
        let tenant = TenantId::parse("ten_a").unwrap();
        let mut log = Log::empty("writ.test/local/ten_a/1".to_owned());
        db.execute_batch("BEGIN").unwrap();
        for n in 0..SIZE {
            log.append(&db, &tenant, "run_a", n + 1, sha256(&n.to_be_bytes()), b"").unwrap();
        }
        let mut statement =
            db.prepare("SELECT level, count(*) FROM tiles GROUP BY level ORDER BY level").unwrap();
        let levels: Vec<(i64, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap();
        assert_eq!(levels, [(0, 256), (1, 1)]);
        assert_eq!(root_at(&db, &tenant, SIZE).unwrap(), log.root());
        let tiles =
            db.prepare("SELECT hashes FROM tiles WHERE level = 1").unwrap().query_row([], |row| row.get(0));
        let tiles: Vec<u8> = tiles.unwrap();
        assert_eq!(merkle::root_of(tiles.as_chunks::<32>().0), log.root());
    }
}
