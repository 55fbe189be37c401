//! Gathering the parts of a bundle from the store.
//!
//! A bundle is about one stream or the whole log. For a stream it holds all of the stream's facts, and what led to them:
//! the facts that they name as causes, the facts those name, and so on, each with the whole of its own stream if that is
//! short. So a run's bundle also tells who approved it and which policy had been published.
//!
//! Facts name their causes by id, and the log has no index by id. But an id is a UUIDv7 that carries its time, and leaves
//! are nearly in order of time: a search by halves finds the neighbourhood, a scan of fixed length finds the fact. What it
//! does not find is listed in the summary as absent; the bundle claims nothing about it.

use crate::archive::BUNDLE_BYTES_MAX;
use crate::bundle::Parts;
use crate::disclosure::Disclosure;
use crate::manifest::{Claim, WHOLE_LOG};
use kernel::note::Checkpoint;
use kernel::{Digest, Id, TenantId, fact, hex};
use std::collections::{BTreeMap, BTreeSet};
use store::{CheckpointRow, LeafRow, ReadError, Store};

/// Most bytes of leaves in a bundle: half of what an archive may have.
pub const LEAF_BYTES_MAX: usize = BUNDLE_BYTES_MAX / 2;
/// Longest stream that is taken along because a fact of it is a cause.
const RELATED_STREAM_MAX: u64 = 256;
/// How many steps from cause to cause are followed.
const CAUSE_STEPS_MAX: usize = 8;
/// Most causes that are looked for.
const CAUSES_MAX: usize = 2_000;
/// How many leaves are looked at on either side of where a fact should be.
const SCAN: u64 = 2_048;
/// Leaves read at once.
const PAGE: usize = 4_096;
/// Earlier checkpoints in a bundle, at most, spread evenly.
const HISTORY_WANTED: u64 = 64;

/// What a bundle is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the tenant's log.
    Log,
    /// One stream, a run say, and what led to it.
    Stream(Id),
}

/// Why parts cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The stream has no facts under the checkpoint.
    #[error("there is no such stream in the log")]
    NoStream,
    /// More leaves than a bundle may hold.
    #[error("there are more facts than one bundle may hold")]
    TooLarge,
    /// What the store returned does not fit together.
    #[error("the log is damaged near index {0}")]
    Damaged(u64),
    /// Storage cannot be read.
    #[error("storage cannot be read")]
    Read(#[from] ReadError),
}

/// Gathers the parts of a bundle under `kept`, whose note opens to `checkpoint`.
///
/// # Errors
/// See [`GatherError`].
pub async fn gather(
    store: &Store,
    tenant: &TenantId,
    scope: &Scope,
    checkpoint: Checkpoint,
    kept: CheckpointRow,
    disclosure: &Disclosure,
    created_at_ms: i64,
) -> Result<Parts, GatherError> {
    let log = Log { store, tenant, size: checkpoint.size, origin: &checkpoint.origin };
    let mut found = Found::default();
    let (subject, streams) = match scope {
        Scope::Log => {
            log.range(0, log.size, &mut found).await?;
            (WHOLE_LOG.to_owned(), Vec::new())
        }
        Scope::Stream(stream) => (stream.to_string(), log.story(stream, &mut found).await?),
    };
    let facts: Vec<LeafRow> = found.leaves.into_iter().map(|(index, leaf)| LeafRow { index, leaf }).collect();
    let hashes = match scope {
        Scope::Log => Vec::new(),
        Scope::Stream(_) => {
            store.proof(tenant, log.size, facts.iter().map(|row| row.index).collect()).await?
        }
    };
    let mut disclosures = Vec::new();
    let mut digests: BTreeSet<Digest> = BTreeSet::new();
    for row in &facts {
        let leaf = fact::read(&row.leaf).ok_or(GatherError::Damaged(row.index))?;
        if let Some(policy) = &leaf.policy {
            digests.extend(policy.split('+').filter_map(hex::decode32));
        }
        let Some(commitment) = &leaf.args_commitment else { continue };
        let id = Id::parse(leaf.id).map_err(|_| GatherError::Damaged(row.index))?;
        if let Some(aside) = store.aside(tenant, &id).await?
            && let Some(fields) = disclosure.open(&leaf.act, commitment, &aside)
        {
            disclosures.push((id.to_string(), fields));
        }
    }
    let mut policies = BTreeMap::new();
    for digest in digests {
        // The platform's policy is kept in the platform's tenant, the tenant's own in its own.
        let bytes = match store.blob(&TenantId::platform(), &digest).await? {
            Some(bytes) => Some(bytes),
            None => store.blob(tenant, &digest).await?,
        };
        if let Some(bytes) = bytes.filter(|bytes| kernel::sha256(bytes) == digest) {
            policies.insert(digest, bytes);
        }
    }
    let earliest = facts.first().map_or(0, |row| row.index);
    let history = log.history(earliest).await?;
    Ok(Parts {
        subject,
        created_at_ms,
        checkpoint,
        note: kept.note,
        history,
        facts,
        streams,
        hashes,
        disclosures,
        policies,
        causes_absent: found.absent.into_iter().map(|id| id.to_string()).collect(),
    })
}

/// Leaves found so far, by index, and causes that were not.
#[derive(Default)]
struct Found {
    leaves: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
    absent: BTreeSet<Id>,
}

impl Found {
    fn take(&mut self, row: LeafRow) -> Result<(), GatherError> {
        let length = row.leaf.len();
        if self.leaves.insert(row.index, row.leaf).is_none() {
            self.bytes += length;
        }
        if self.bytes > LEAF_BYTES_MAX { Err(GatherError::TooLarge) } else { Ok(()) }
    }
}

/// A tenant's log up to a size.
struct Log<'a> {
    store: &'a Store,
    tenant: &'a TenantId,
    size: u64,
    origin: &'a str,
}

impl Log<'_> {
    async fn range(&self, from: u64, to: u64, found: &mut Found) -> Result<(), GatherError> {
        let mut next = from;
        while next < to {
            let rows = self.store.leaves(self.tenant, next, PAGE.min((to - next) as usize)).await?;
            if rows.is_empty() {
                return Err(GatherError::Damaged(next));
            }
            for row in rows {
                if row.index != next {
                    return Err(GatherError::Damaged(next));
                }
                next += 1;
                found.take(row)?;
            }
        }
        Ok(())
    }

    /// A stream's facts under the checkpoint, or `None` if they are more than `most`.
    async fn stream(&self, stream: &Id, most: Option<u64>) -> Result<Option<Vec<LeafRow>>, GatherError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let page = self.store.stream(self.tenant, stream, rows.len() as u64 + 1, PAGE).await?;
            let (whole, before) = (page.len() < PAGE, rows.len());
            rows.extend(page.into_iter().filter(|row| row.index < self.size));
            bytes += rows[before..].iter().map(|row| row.leaf.len()).sum::<usize>();
            if most.is_some_and(|most| rows.len() as u64 > most) {
                return Ok(None);
            }
            if bytes > LEAF_BYTES_MAX {
                return Err(GatherError::TooLarge);
            }
            // A page that lost rows to the checkpoint was the last one that matters.
            if whole || rows.len() - before < PAGE {
                return Ok(Some(rows));
            }
        }
    }

    /// The stream and what led to it. Returns the streams that are complete.
    async fn story(&self, subject: &Id, found: &mut Found) -> Result<Vec<Claim>, GatherError> {
        let rows = self.stream(subject, None).await?.unwrap_or_default();
        if rows.is_empty() {
            return Err(GatherError::NoStream);
        }
        let mut complete = BTreeMap::from([(subject.to_string(), rows.len() as u64)]);
        let mut looked_at: BTreeSet<Id> = BTreeSet::from([subject.clone()]);
        let mut known: BTreeSet<Id> = BTreeSet::new();
        let mut news = rows;
        let mut searches = 0;
        for _ in 0..CAUSE_STEPS_MAX {
            let mut wanted: BTreeSet<Id> = BTreeSet::new();
            for row in news.drain(..) {
                let leaf = fact::read(&row.leaf).ok_or(GatherError::Damaged(row.index))?;
                known.extend(Id::parse(leaf.id).ok());
                wanted.extend(leaf.causes.iter().filter_map(|cause| Id::parse(cause).ok()));
                found.take(row)?;
            }
            wanted.retain(|cause| !known.contains(cause) && !found.absent.contains(cause));
            for cause in wanted {
                if known.contains(&cause) || searches == CAUSES_MAX {
                    continue;
                }
                searches += 1;
                let Some(row) = self.find(&cause).await? else {
                    found.absent.insert(cause);
                    continue;
                };
                known.insert(cause);
                let leaf = fact::read(&row.leaf).ok_or(GatherError::Damaged(row.index))?;
                let stream = Id::parse(leaf.stream).map_err(|_| GatherError::Damaged(row.index))?;
                if looked_at.insert(stream.clone())
                    && let Some(rows) = self.stream(&stream, Some(RELATED_STREAM_MAX)).await?
                {
                    complete.insert(stream.to_string(), rows.len() as u64);
                    news.extend(rows);
                } else if !complete.contains_key(stream.as_str()) {
                    news.push(row);
                }
            }
            if news.is_empty() {
                break;
            }
        }
        for row in news {
            found.take(row)?;
        }
        Ok(complete.into_iter().map(|(stream, last)| Claim { stream, last }).collect())
    }

    /// Finds a fact by its id.
    async fn find(&self, id: &Id) -> Result<Option<LeafRow>, GatherError> {
        let Some(at_ms) = time_of(id) else { return Ok(None) };
        let (mut low, mut high) = (0, self.size);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.store.leaves(self.tenant, middle, 1).await?.pop();
            let row = row.ok_or(GatherError::Damaged(middle))?;
            let leaf = fact::read(&row.leaf).ok_or(GatherError::Damaged(middle))?;
            if leaf.at_ms < at_ms { low = middle + 1 } else { high = middle }
        }
        let from = low.saturating_sub(SCAN);
        let rows = self.store.leaves(self.tenant, from, 2 * SCAN as usize).await?;
        let mut rows = rows.into_iter().filter(|row| row.index < self.size);
        Ok(rows.find(|row| fact::read(&row.leaf).is_some_and(|leaf| leaf.id == id.as_str())))
    }

    async fn checkpoint_after(&self, size: u64) -> Result<Option<CheckpointRow>, ReadError> {
        Ok(self.store.checkpoints(self.tenant, size, 1).await?.pop())
    }

    /// Earlier checkpoints, from the last one that does not cover `earliest`, or the first there is, each with the proof
    /// that it is a prefix of the next.
    async fn history(&self, earliest: u64) -> Result<Vec<(String, Vec<Digest>)>, GatherError> {
        let Some(mut first) = self.checkpoint_after(0).await? else { return Ok(Vec::new()) };
        // Halving between the first checkpoint, which is below, and the earliest fact.
        let mut high = earliest;
        while first.size < high {
            let middle = first.size + (high - first.size).div_ceil(2);
            match self.checkpoint_after(middle - 1).await? {
                Some(row) if row.size <= earliest => first = row,
                _ => high = middle - 1,
            }
        }
        let mut rows = vec![first];
        let (from, span) = (rows[0].size, self.size.saturating_sub(rows[0].size));
        for n in 1..HISTORY_WANTED {
            let wanted = from + (u128::from(span) * u128::from(n) / u128::from(HISTORY_WANTED)) as u64;
            if let Some(row) = self.checkpoint_after(wanted.saturating_sub(1)).await?
                && rows.last().is_none_or(|last| last.size < row.size)
            {
                rows.push(row);
            }
        }
        // A history is of one epoch: what an earlier one signed is judged by whoever holds it.
        rows.retain(|row| row.size < self.size && row.note.lines().next() == Some(self.origin));
        let mut history = Vec::with_capacity(rows.len());
        for (n, row) in rows.iter().enumerate() {
            let next = rows.get(n + 1).map_or(self.size, |next| next.size);
            let proof = self.store.consistency(self.tenant, row.size, next).await?;
            history.push((row.note.clone(), proof));
        }
        Ok(history)
    }
}

/// The time inside an id that carries a UUIDv7 (RFC 9562), milliseconds UTC.
fn time_of(id: &Id) -> Option<i64> {
    let (_, body) = id.as_str().split_once('_')?;
    let uuid = uuid::Uuid::try_parse(body).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    i64::try_from(uuid.as_u128() >> 80).ok()
}
