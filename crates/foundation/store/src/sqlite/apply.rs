//! Applying one changeset inside the writer's transaction: all checks, then all writes.
//!
//! [`check`] reads and decides; it returns a refusal or a [`Checked`] with everything the writes need, down to the
//! encoded leaves. [`write`] then cannot be refused: if it fails, SQLite itself has failed and the whole batch goes back.
//! That split is what lets one transaction carry many changesets without savepoints.

use super::log::{self, Log};
use super::reads::{id as read_id, signed, tenant as read_tenant, unsigned};
use crate::{CommitError, Committed};
use kernel::changeset::{Changeset, Operation, Origin, Outcome, Put, REFUSAL_KINDS};
use kernel::fact::Place;
use kernel::merkle;
use kernel::permit::{Authority, JobKind, LeasedJob, Seal};
use kernel::{Digest, Id, Lease, TenantId};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{HashMap, HashSet};

/// What the writer knows of a tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub log: Log,
    /// The last number given out per stream, for streams touched lately.
    pub streams: HashMap<Id, u64>,
}

/// Most streams remembered per tenant; beyond, the memory starts afresh.
const STREAMS_MAX: usize = 50_000;

/// What the writer has at hand.
pub(super) struct Bench<'a> {
    pub db: &'a Connection,
    pub seal: &'a Seal,
    pub now_ms: i64,
    /// `<installation>/<cell>`
    pub home: &'a str,
    pub deferred: bool,
    pub tenants: &'a mut HashMap<TenantId, Tenant>,
}

/// A changeset that has passed every check.
pub(super) struct Checked {
    newborn: Option<Log>,
    streams: HashMap<Id, u64>,
    tenant: TenantId,
    authority: Authority,
    at_ms: i64,
    puts: Vec<(Put, Vec<u8>)>,
    others: Vec<Operation>,
    leaves: Vec<Leaf>,
    completed: Option<Id>,
}

struct Leaf {
    fact: Id,
    stream: Id,
    stream_n: u64,
    hash: Digest,
    bytes: Vec<u8>,
    aside: Option<Vec<u8>>,
}

/// A check that failed, or SQLite that did.
pub(super) enum Stop {
    Refused(CommitError),
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Broken(error)
    }
}

impl From<CommitError> for Stop {
    fn from(error: CommitError) -> Stop {
        Stop::Refused(error)
    }
}

fn conflict(kind: &str, id: &str) -> Stop {
    Stop::Refused(CommitError::Conflict { kind: kind.to_owned(), id: id.to_owned() })
}

struct Opened {
    authority: Authority,
    commitment: Option<Digest>,
    writes: Vec<&'static [&'static str]>,
    facts: Vec<&'static [&'static str]>,
    any_kind: bool,
    completed: Option<LeasedJob>,
    genesis: bool,
}

fn open(bench: &Bench<'_>, origin: Origin) -> Result<Opened, CommitError> {
    let mut opened = Opened {
        authority: Authority {
            // Replaced below by whoever answers for the changeset.
            actor: TenantId::platform().id().clone(),
            on_behalf_of: Vec::new(),
            act: String::new(),
            decision: None,
            policy: None,
            assurance: None,
            trace: String::new(),
        },
        commitment: None,
        writes: Vec::new(),
        facts: Vec::new(),
        any_kind: false,
        completed: None,
        genesis: false,
    };
    match origin {
        Origin::Under(permits) => {
            for (n, permit) in permits.into_iter().enumerate() {
                let grant = bench.seal.open(permit, bench.now_ms)?;
                opened.writes.push(grant.writes);
                opened.facts.push(grant.facts);
                if n == 0 {
                    opened.authority = grant.authority;
                    opened.commitment = grant.args_commitment;
                }
            }
        }
        Origin::Refused(refusal) => {
            let (_, authority, commitment) = bench.seal.open_refusal(refusal)?;
            opened.authority = authority;
            opened.commitment = commitment;
            opened.writes.push(REFUSAL_KINDS);
            opened.facts.push(&["governor.decided", "governor.approval.requested", "access.traffic.refused"]);
        }
        Origin::Continuing(lease) => {
            let job = bench.seal.open_lease(lease)?;
            opened.authority = job.authority.clone();
            opened.writes.push(job.kind.writes);
            opened.facts.push(job.kind.facts);
            opened.completed = Some(job);
        }
        Origin::Genesis { authority } => {
            opened.authority = authority;
            opened.any_kind = true;
            opened.genesis = true;
        }
    }
    Ok(opened)
}

fn job_epoch(db: &Connection, tenant: &TenantId, job: &Id) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT epoch FROM jobs WHERE tenant = ? AND id = ?")?
        .query_row(params![tenant.as_str(), job.as_str()], |row| unsigned(row.get(0)?, 0))
        .optional()
}

fn record_rev(db: &Connection, tenant: &TenantId, kind: &str, id: &Id) -> rusqlite::Result<Option<(u64, Vec<u8>)>> {
    db.prepare_cached("SELECT rev, entries FROM records WHERE tenant = ? AND kind = ? AND id = ?")?
        .query_row(params![tenant.as_str(), kind, id.as_str()], |row| Ok((unsigned(row.get(0)?, 0)?, row.get(1)?)))
        .optional()
}

fn outcome_exists(db: &Connection, tenant: &TenantId, outcome: &Outcome) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM outcomes WHERE tenant = ? AND principal = ? AND act = ? AND key = ?")?
        .exists(params![tenant.as_str(), outcome.principal.as_str(), outcome.act, outcome.key])
}

/// Loads a tenant's log, if it has one.
pub(super) fn tenant<'t>(
    db: &Connection,
    tenants: &'t mut HashMap<TenantId, Tenant>,
    tenant: &TenantId,
) -> rusqlite::Result<Option<&'t mut Tenant>> {
    if !tenants.contains_key(tenant) {
        match Log::load(db, tenant)? {
            None => return Ok(None),
            Some(log) => {
                tenants.insert(tenant.clone(), Tenant { log, streams: HashMap::new() });
            }
        }
    }
    Ok(tenants.get_mut(tenant))
}

/// Checks a changeset against everything it depends on.
pub(super) fn check(bench: &mut Bench<'_>, changeset: Changeset) -> Result<Checked, Stop> {
    let (tenant_id, origin, draft) = changeset.into_parts();
    let opened = open(bench, origin)?;
    let known = tenant(bench.db, bench.tenants, &tenant_id)?;
    let newborn = match (known.is_some(), opened.genesis) {
        (true, false) => None,
        (false, true) => Some(Log::empty(format!("{}/{tenant_id}/1", bench.home))),
        (false, false) | (true, true) => return Err(CommitError::Log.into()),
    };
    if let Some(job) = &opened.completed
        && job_epoch(bench.db, &tenant_id, &job.id)? != Some(job.epoch)
    {
        return Err(CommitError::Fenced.into());
    }
    let may = |lists: &[&[&str]], kind: &str| opened.any_kind || lists.iter().any(|list| list.contains(&kind));
    let mut puts = Vec::new();
    let mut others = Vec::new();
    let mut touched = HashSet::new();
    let mut uniques = HashSet::new();
    for operation in draft.operations {
        match operation {
            Operation::Put(put) => {
                if !may(&opened.writes, put.kind) {
                    return Err(CommitError::OutsidePermit(put.kind.to_owned()).into());
                }
                if !touched.insert((put.kind, put.id.clone())) {
                    return Err(conflict(put.kind, put.id.as_str()));
                }
                let stored = record_rev(bench.db, &tenant_id, put.kind, &put.id)?;
                if stored.as_ref().map(|(rev, _)| *rev) != put.rev {
                    return Err(conflict(put.kind, put.id.as_str()));
                }
                for (name, key) in &put.uniques {
                    let holder: Option<String> = bench
                        .db
                        .prepare_cached(
                            "SELECT id FROM record_unique WHERE kind = ? AND name = ? AND key = ? AND tenant = ?",
                        )?
                        .query_row(params![put.kind, name, key, tenant_id.as_str()], |row| row.get(0))
                        .optional()?;
                    let taken = holder.is_some_and(|holder| holder != put.id.as_str());
                    if taken || !uniques.insert((put.kind, *name, key.clone())) {
                        return Err(conflict(put.kind, name));
                    }
                }
                puts.push((put, stored.map(|(_, entries)| entries).unwrap_or_default()));
            }
            Operation::Delete { kind, ref id, rev } => {
                if !may(&opened.writes, kind) {
                    return Err(CommitError::OutsidePermit(kind.to_owned()).into());
                }
                let stored = record_rev(bench.db, &tenant_id, kind, id)?;
                if stored.map(|(rev, _)| rev) != Some(rev) || !touched.insert((kind, id.clone())) {
                    return Err(conflict(kind, id.as_str()));
                }
                others.push(operation);
            }
            Operation::Expect { kind, ref id, rev } => {
                if record_rev(bench.db, &tenant_id, kind, id)?.map(|(rev, _)| rev) != rev {
                    return Err(conflict(kind, id.as_str()));
                }
            }
            Operation::Fence { ref job, epoch } => {
                if job_epoch(bench.db, &tenant_id, job)? != Some(epoch) {
                    return Err(CommitError::Fenced.into());
                }
            }
            Operation::Job(ref job) => {
                if job_epoch(bench.db, &tenant_id, &job.id)?.is_some() {
                    return Err(conflict("job", job.id.as_str()));
                }
                others.push(operation);
            }
            Operation::Outcome(ref outcome) => {
                if outcome_exists(bench.db, &tenant_id, outcome)? {
                    return Err(conflict("outcome", &outcome.key));
                }
                others.push(operation);
            }
            Operation::JobCancel { .. } | Operation::Blob { .. } => others.push(operation),
        }
    }
    let state = bench.tenants.get(&tenant_id);
    let origin = match (&newborn, state) {
        (Some(log), _) => &log.origin,
        (None, Some(state)) => &state.log.origin,
        (None, None) => return Err(CommitError::Log.into()),
    };
    let mut leaves = Vec::with_capacity(draft.facts.len());
    let mut given: HashMap<Id, u64> = HashMap::new();
    for fact in draft.facts {
        if !may(&opened.facts, fact.kind) {
            return Err(CommitError::OutsidePermit(fact.kind.to_owned()).into());
        }
        let last = match given.get(&fact.stream).or_else(|| state?.streams.get(&fact.stream)) {
            Some(last) => *last,
            None => log::stream_last(bench.db, &tenant_id, fact.stream.as_str())?,
        };
        let place = Place { origin, stream_n: last + 1, at_ms: draft.at_ms };
        let bytes = fact.leaf(place, &opened.authority, opened.commitment.as_ref()).map_err(CommitError::Leaf)?;
        given.insert(fact.stream.clone(), last + 1);
        leaves.push(Leaf {
            fact: fact.id,
            stream: fact.stream,
            stream_n: last + 1,
            hash: merkle::leaf_hash(&bytes),
            bytes,
            aside: fact.aside,
        });
    }
    Ok(Checked {
        newborn,
        streams: given,
        tenant: tenant_id,
        authority: opened.authority,
        at_ms: draft.at_ms,
        puts,
        others,
        leaves,
        completed: opened.completed.map(|job| job.id),
    })
}

/// Writes a checked changeset.
pub(super) fn write(bench: &mut Bench<'_>, checked: Checked) -> rusqlite::Result<Committed> {
    let db = bench.db;
    if let Some(log) = checked.newborn {
        bench.tenants.insert(checked.tenant.clone(), Tenant { log, streams: HashMap::new() });
    }
    if let Some(state) = bench.tenants.get_mut(&checked.tenant) {
        if state.streams.len() > STREAMS_MAX {
            state.streams.clear();
        }
        state.streams.extend(checked.streams);
    }
    let tenant = checked.tenant.as_str();
    for (put, old_entries) in &checked.puts {
        let entries = entries_encode(put);
        match put.rev {
            None => db
                .prepare_cached("INSERT INTO records (tenant, kind, id, rev, entries, body) VALUES (?, ?, ?, 1, ?, ?)")?
                .execute(params![tenant, put.kind, put.id.as_str(), entries, put.body])?,
            Some(rev) => db
                .prepare_cached(
                    "UPDATE records SET rev = ?, entries = ?, body = ? WHERE tenant = ? AND kind = ? AND id = ?",
                )?
                .execute(params![signed(rev + 1), entries, put.body, tenant, put.kind, put.id.as_str()])?,
        };
        entries_replace(db, tenant, put.kind, &put.id, old_entries, &entries)?;
    }
    if let Some(job) = &checked.completed {
        db.prepare_cached("DELETE FROM jobs WHERE tenant = ? AND id = ?")?.execute(params![tenant, job.as_str()])?;
    }
    let authority = serde_json::to_vec(&checked.authority).unwrap_or_default();
    let mut committed = Committed::default();
    for operation in checked.others {
        match operation {
            Operation::Delete { kind, id, rev: _ } => {
                let entries: Option<Vec<u8>> = db
                    .prepare_cached("DELETE FROM records WHERE tenant = ? AND kind = ? AND id = ? RETURNING entries")?
                    .query_row(params![tenant, kind, id.as_str()], |row| row.get(0))
                    .optional()?;
                entries_replace(db, tenant, kind, &id, &entries.unwrap_or_default(), &[])?;
            }
            Operation::Job(job) => {
                let held = i64::from(job.held);
                let due_ms = if job.held { bench.now_ms + job.kind.lease_ms } else { job.ready_at_ms };
                db.prepare_cached(
                    "INSERT INTO jobs (tenant, id, kind, due_ms, epoch, starts, authority, body) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![tenant, job.id.as_str(), job.kind.name, due_ms, held, held, authority, job.body])?;
                if job.held {
                    committed.held.push(bench.seal.lease(LeasedJob {
                        id: job.id,
                        tenant: checked.tenant.clone(),
                        kind: job.kind,
                        epoch: 1,
                        starts: 1,
                        authority: checked.authority.clone(),
                        body: job.body,
                        lease_until_ms: due_ms,
                    }));
                }
            }
            Operation::JobCancel { job } => {
                db.prepare_cached("DELETE FROM jobs WHERE tenant = ? AND id = ? AND epoch = 0")?
                    .execute(params![tenant, job.as_str()])?;
            }
            Operation::Outcome(outcome) => {
                db.prepare_cached(
                    "INSERT INTO outcomes (tenant, principal, act, key, args_digest, at_ms, body) \
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    tenant,
                    outcome.principal.as_str(),
                    outcome.act,
                    outcome.key,
                    outcome.args_digest.as_slice(),
                    checked.at_ms,
                    outcome.body
                ])?;
            }
            Operation::Blob { digest, bytes } => {
                db.prepare_cached("INSERT INTO blobs (tenant, digest, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")?
                    .execute(params![tenant, digest.as_slice(), bytes])?;
            }
            // Checks, and puts, are done.
            Operation::Put(_) | Operation::Expect { .. } | Operation::Fence { .. } => {}
        }
    }
    for leaf in checked.leaves {
        if let Some(aside) = &leaf.aside {
            db.prepare_cached("INSERT INTO asides (tenant, fact, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")?
                .execute(params![tenant, leaf.fact.as_str(), aside])?;
        }
        if bench.deferred {
            db.prepare_cached("INSERT INTO intake (tenant, stream, stream_n, hash, leaf) VALUES (?, ?, ?, ?, ?)")?
                .execute(params![tenant, leaf.stream.as_str(), signed(leaf.stream_n), leaf.hash.as_slice(), leaf.bytes])?;
        } else if let Some(state) = bench.tenants.get_mut(&checked.tenant) {
            let index =
                state.log.append(db, &checked.tenant, leaf.stream.as_str(), leaf.stream_n, leaf.hash, &leaf.bytes)?;
            committed.first_index.get_or_insert(index);
        }
    }
    Ok(committed)
}

/// Claims due jobs, one per tenant in turn, beginning after the tenant served last.
pub(super) fn claim(
    bench: &Bench<'_>,
    kinds: &'static [&'static JobKind],
    limit: usize,
    served_last: &mut String,
) -> rusqlite::Result<Vec<Lease>> {
    let db = bench.db;
    let mut leases = Vec::new();
    let tenants = super::reads::job_tenants(db, served_last)?;
    let mut any = true;
    while any && leases.len() < limit {
        any = false;
        for name in &tenants {
            if leases.len() >= limit {
                break;
            }
            let due = db
                .prepare_cached(
                    "SELECT n, id, kind, epoch, starts, authority, body FROM jobs \
                     WHERE tenant = ? AND due_ms <= ? ORDER BY due_ms LIMIT 1",
                )?
                .query_row(params![name, bench.now_ms], |row| {
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        unsigned(row.get(3)?, 3)?,
                        row.get::<_, u32>(4)?,
                        row.get::<_, Vec<u8>>(5)?,
                        row.get::<_, Vec<u8>>(6)?,
                    ))
                })
                .optional()?;
            let Some((n, job, kind, epoch, starts, authority, body)) = due else { continue };
            any = true;
            let known = kinds.iter().find(|known| known.name == kind);
            let authority: Option<Authority> = serde_json::from_slice(&authority).ok();
            let (Some(kind), Some(authority)) = (known, authority) else {
                // Work that this version does not know stays for one that does, out of the way for a while.
                tracing::error!(job, kind, "a job of an unknown kind is put off");
                db.prepare_cached("UPDATE jobs SET due_ms = ? WHERE n = ?")?.execute(params![bench.now_ms + 60_000, n])?;
                continue;
            };
            let lease_until_ms = bench.now_ms + kind.lease_ms;
            db.prepare_cached("UPDATE jobs SET due_ms = ?, epoch = ?, starts = ? WHERE n = ?")?.execute(params![
                lease_until_ms,
                signed(epoch + 1),
                starts.saturating_add(1),
                n
            ])?;
            served_last.clone_from(name);
            leases.push(bench.seal.lease(LeasedJob {
                id: read_id(&job, 1)?,
                tenant: read_tenant(name, 0)?,
                kind,
                epoch: epoch + 1,
                starts: starts.saturating_add(1),
                authority,
                body,
                lease_until_ms,
            }));
        }
    }
    Ok(leases)
}

/// Moves waiting facts into their logs, in the order in which they were committed.
pub(super) fn sequence(bench: &mut Bench<'_>, limit: usize) -> rusqlite::Result<usize> {
    let db = bench.db;
    let waiting: Vec<(i64, String, String, u64, Vec<u8>, Vec<u8>)> = db
        .prepare_cached("SELECT n, tenant, stream, stream_n, hash, leaf FROM intake ORDER BY n LIMIT ?")?
        .query_map([limit as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, unsigned(row.get(3)?, 3)?, row.get(4)?, row.get(5)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (n, name, stream, stream_n, hash, leaf) in &waiting {
        let tenant_id = read_tenant(name, 1)?;
        let hash = super::reads::digest(hash, 4)?;
        if let Some(state) = tenant(db, bench.tenants, &tenant_id)? {
            state.log.append(db, &tenant_id, stream, *stream_n, hash, leaf)?;
        }
        db.prepare_cached("DELETE FROM intake WHERE n = ?")?.execute([n])?;
    }
    Ok(waiting.len())
}

/// Index and unique entries of a record, as kept beside it: flag, name, key.
fn entries_encode(put: &Put) -> Vec<u8> {
    let mut out = Vec::new();
    for (flag, entries) in [(0u8, &put.indexes), (1u8, &put.uniques)] {
        for (name, key) in entries {
            out.push(flag);
            // Names are short constants and keys are at most KEY_BYTES_MAX, so both lengths fit.
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(key);
        }
    }
    out
}

fn entries_decode(mut bytes: &[u8]) -> Vec<(bool, &str, &[u8])> {
    let mut entries = Vec::new();
    while let [flag, name_length, rest @ ..] = bytes {
        let Some((name, rest)) = rest.split_at_checked(usize::from(*name_length)) else { break };
        let Some((length, rest)) = rest.split_first_chunk::<2>() else { break };
        let Some((key, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
        let Ok(name) = std::str::from_utf8(name) else { break };
        entries.push((*flag == 1, name, key));
        bytes = rest;
    }
    entries
}

fn entries_replace(db: &Connection, tenant: &str, kind: &str, id: &Id, old: &[u8], new: &[u8]) -> rusqlite::Result<()> {
    if old == new {
        return Ok(());
    }
    let (old, new) = (entries_decode(old), entries_decode(new));
    for (unique, name, key) in old.iter().filter(|entry| !new.contains(entry)) {
        let sql = if *unique {
            "DELETE FROM record_unique WHERE tenant = ? AND kind = ? AND name = ? AND key = ? AND id = ?"
        } else {
            "DELETE FROM record_index WHERE tenant = ? AND kind = ? AND name = ? AND key = ? AND id = ?"
        };
        db.prepare_cached(sql)?.execute(params![tenant, kind, name, key, id.as_str()])?;
    }
    for (unique, name, key) in new.iter().filter(|entry| !old.contains(entry)) {
        let sql = if *unique {
            "INSERT INTO record_unique (tenant, kind, name, key, id) VALUES (?, ?, ?, ?, ?)"
        } else {
            "INSERT INTO record_index (tenant, kind, name, key, id) VALUES (?, ?, ?, ?, ?)"
        };
        db.prepare_cached(sql)?.execute(params![tenant, kind, name, key, id.as_str()])?;
    }
    Ok(())
}
