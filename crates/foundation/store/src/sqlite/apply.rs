//! Applying one changeset inside the writer's transaction: all checks, then all writes.
//!
//! [`check`] reads and decides; it returns a refusal or a [`Checked`] with everything the writes need, down to the
//! encoded leaves. [`write`] then cannot be refused: if it fails, SQLite itself has failed and the whole batch goes back.
//! That split is what lets one transaction carry many changesets without savepoints.

use super::entries;
use super::epochs;
use super::jobs;
use super::ledger::{self, Staged};
use super::log::{self, Log};
use super::reads::{digest as read_digest, signed, tenant as read_tenant, unsigned};
use crate::{CommitError, Committed, SEQUENCE_MAX};
use kernel::changeset::{Draft, NewJob, Operation, Origin, Outcome, Put, REFUSAL_KINDS};
use kernel::fact::Place;
use kernel::merkle;
use kernel::permit::{Authority, Seal};
use kernel::{Digest, Fact, Id, TenantId};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::{HashMap, HashSet};

/// What the writer knows of a tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    pub log: Log,
    /// The last number given out per stream, for streams touched lately.
    pub streams: HashMap<Id, u64>,
}

/// What the writer has at hand.
pub(super) struct Bench<'a> {
    pub db: &'a Connection,
    pub seal: &'a Seal,
    pub now_ms: i64,
    /// `<installation>/<cell>`
    pub home: &'a str,
    pub deferred: bool,
    pub tenants: &'a mut HashMap<TenantId, Tenant>,
    /// Tenants whose logs the batch has touched: those whose heads have to be written.
    pub touched: &'a mut Vec<TenantId>,
    /// Streams remembered, over all tenants.
    pub streams: &'a mut usize,
}

impl Bench<'_> {
    /// Takes a tenant's log up into memory as changed.
    fn touch(&mut self, tenant: &TenantId) {
        if self.touched.last() != Some(tenant) {
            self.touched.push(tenant.clone());
        }
    }
}

/// A changeset that has passed every check.
pub(super) struct Checked {
    newborn: Option<Log>,
    streams: HashMap<Id, u64>,
    tenant: TenantId,
    authority: Authority,
    at_ms: i64,
    /// Records to write, each with the entries that its stored form has.
    puts: Vec<(Put, Vec<u8>)>,
    deletes: Vec<Delete>,
    jobs: Vec<NewJob>,
    cancels: Vec<Id>,
    outcomes: Vec<Outcome>,
    blobs: Vec<(Digest, Vec<u8>)>,
    leaves: Vec<Leaf>,
    completed: Option<Id>,
    /// What changes in the ledger; most changesets have nothing to do with it.
    ledger: Option<Box<Staged>>,
    /// The epoch that the log is moved to, and the origin that it then has.
    moved: Option<(u64, String)>,
}

impl Checked {
    /// Whether it enqueues work for somebody else than the committer.
    pub fn enqueues(&self) -> bool {
        self.jobs.iter().any(|job| !job.held)
    }

    /// Whether it moves a log to another epoch.
    pub fn moves(&self) -> bool {
        self.moved.is_some()
    }
}

struct Delete {
    kind: &'static str,
    id: Id,
    rev: u64,
    entries: Vec<u8>,
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

/// What a changeset's origin allows.
#[derive(Default)]
struct Scope {
    commitment: Option<Digest>,
    writes: Vec<&'static [&'static str]>,
    facts: Vec<&'static [&'static str]>,
    any_kind: bool,
    /// The job that it completes, and the epoch of the lease.
    completed: Option<(Id, u64)>,
    genesis: bool,
}

/// Facts that a refusal may state.
const REFUSAL_FACTS: &[&str] = &["governor.decided", "governor.approval.requested", "access.traffic.refused"];

fn open(bench: &Bench<'_>, origin: Origin) -> Result<(Authority, Scope), CommitError> {
    let mut scope = Scope::default();
    let authority = match origin {
        Origin::Under(permits) => {
            let mut first = None;
            for permit in permits {
                let grant = bench.seal.open(permit, bench.now_ms)?;
                scope.writes.push(grant.writes);
                scope.facts.push(grant.facts);
                if first.is_none() {
                    first = Some(grant.authority);
                    scope.commitment = grant.args_commitment;
                }
            }
            first.ok_or_else(|| CommitError::OutsidePermit("an act without a permit".to_owned()))?
        }
        Origin::Refused(refusal) => {
            let (_, authority, commitment) = bench.seal.open_refusal(refusal)?;
            scope.commitment = commitment;
            scope.writes.push(REFUSAL_KINDS);
            scope.facts.push(REFUSAL_FACTS);
            authority
        }
        Origin::Continuing(lease) => {
            let job = bench.seal.open_lease(lease)?;
            scope.writes.push(job.kind.writes);
            scope.facts.push(job.kind.facts);
            scope.completed = Some((job.id, job.epoch));
            job.authority
        }
        Origin::Genesis { authority } => {
            scope.any_kind = true;
            scope.genesis = true;
            authority
        }
    };
    Ok((authority, scope))
}

fn record_rev(
    db: &Connection,
    tenant: &TenantId,
    kind: &str,
    id: &Id,
) -> rusqlite::Result<Option<(u64, Vec<u8>)>> {
    db.prepare_cached("SELECT rev, entries FROM records WHERE tenant = ? AND kind = ? AND id = ?")?
        .query_row(params![tenant.as_str(), kind, id.as_str()], |row| {
            Ok((unsigned(row.get(0)?, 0)?, row.get(1)?))
        })
        .optional()
}

fn outcome_exists(db: &Connection, tenant: &TenantId, outcome: &Outcome) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM outcomes WHERE tenant = ? AND principal = ? AND act = ? AND key = ?")?
        .exists(params![tenant.as_str(), outcome.principal.as_str(), outcome.act, outcome.key])
}

fn aside_exists(db: &Connection, tenant: &TenantId, fact: &Id) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM asides WHERE tenant = ? AND fact = ?")?
        .exists(params![tenant.as_str(), fact.as_str()])
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

/// Checks a changeset against everything it depends on. It changes nothing, so a refusal leaves no trace.
pub(super) fn check(
    bench: &mut Bench<'_>,
    tenant_id: TenantId,
    origin: Origin,
    draft: Draft,
) -> Result<Checked, Stop> {
    let db = bench.db;
    let (authority, scope) = open(bench, origin)?;
    let known = tenant(db, bench.tenants, &tenant_id)?;
    let newborn = match (known.is_some(), scope.genesis) {
        (true, false) => None,
        // A log that is born after an epoch was opened is born in that one: one of the same name may have been lost.
        (false, true) => {
            let epoch = epochs::standing(db)?.epoch;
            Some(Log::empty(format!("{}/{tenant_id}/{epoch}", bench.home)))
        }
        (false, false) | (true, true) => return Err(CommitError::Log.into()),
    };
    if let Some((job, epoch)) = &scope.completed
        && jobs::epoch(db, &tenant_id, job)? != Some(*epoch)
    {
        return Err(CommitError::Fenced.into());
    }
    let mut checked = Checked {
        newborn,
        streams: HashMap::new(),
        at_ms: draft.at_ms,
        puts: Vec::new(),
        deletes: Vec::new(),
        jobs: Vec::new(),
        cancels: Vec::new(),
        outcomes: Vec::new(),
        blobs: Vec::new(),
        leaves: Vec::with_capacity(draft.facts.len()),
        completed: scope.completed.as_ref().map(|(job, _)| job.clone()),
        ledger: None,
        moved: None,
        tenant: tenant_id,
        authority,
    };
    check_operations(db, &scope, draft.operations, &mut checked)?;
    if let Some((epoch, _)) = checked.moved {
        let origin = epochs::check(bench, &checked.tenant, epoch)?;
        checked.moved = Some((epoch, origin));
    }
    check_uniques(db, &checked)?;
    check_jobs(db, &checked)?;
    for outcome in &checked.outcomes {
        if outcome_exists(db, &checked.tenant, outcome)? {
            return Err(conflict("outcome", &outcome.key));
        }
    }
    let names = |outcome: &Outcome| (outcome.principal.clone(), outcome.act.clone(), outcome.key.clone());
    if let Some(twice) = doubled(checked.outcomes.iter().map(names)) {
        return Err(conflict("outcome", &twice.2));
    }
    check_facts(bench, &scope, draft.facts, &mut checked)?;
    if let Some(staged) = &mut checked.ledger {
        ledger::check(db, &checked.tenant, staged)?;
    }
    Ok(checked)
}

fn may(scope: &Scope, lists: &[&[&str]], kind: &str) -> Result<(), CommitError> {
    if scope.any_kind || lists.iter().any(|list| list.contains(&kind)) {
        Ok(())
    } else {
        Err(CommitError::OutsidePermit(kind.to_owned()))
    }
}

/// The first item that comes twice.
fn doubled<T: std::hash::Hash + Eq + Clone>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|item| !seen.insert(item.clone()))
}

/// Sorts operations into what to write, after checking each against what is stored.
fn check_operations(
    db: &Connection,
    scope: &Scope,
    operations: Vec<Operation>,
    checked: &mut Checked,
) -> Result<(), Stop> {
    for operation in operations {
        match operation {
            Operation::Put(put) => {
                may(scope, &scope.writes, put.kind)?;
                let stored = record_rev(db, &checked.tenant, put.kind, &put.id)?;
                if stored.as_ref().map(|(rev, _)| *rev) != put.rev {
                    return Err(conflict(put.kind, put.id.as_str()));
                }
                checked.puts.push((put, stored.map(|(_, entries)| entries).unwrap_or_default()));
            }
            Operation::Delete { kind, id, rev } => {
                may(scope, &scope.writes, kind)?;
                match record_rev(db, &checked.tenant, kind, &id)? {
                    Some((stored, entries)) if stored == rev => {
                        checked.deletes.push(Delete { kind, id, rev, entries });
                    }
                    Some(_) | None => return Err(conflict(kind, id.as_str())),
                }
            }
            Operation::Expect { kind, id, rev } => {
                if record_rev(db, &checked.tenant, kind, &id)?.map(|(rev, _)| rev) != rev {
                    return Err(conflict(kind, id.as_str()));
                }
            }
            Operation::Fence { job, epoch } => {
                if jobs::epoch(db, &checked.tenant, &job)? != Some(epoch) {
                    return Err(CommitError::Fenced.into());
                }
            }
            Operation::Job(job) => checked.jobs.push(job),
            Operation::JobCancel { job } => checked.cancels.push(job),
            Operation::Outcome(outcome) => checked.outcomes.push(outcome),
            Operation::Blob { digest, bytes } => checked.blobs.push((digest, bytes)),
            Operation::Account(spec) => {
                may(scope, &scope.writes, kernel::ledger::WRITES_ACCOUNT)?;
                checked.ledger.get_or_insert_default().wanted_accounts.push(spec);
            }
            Operation::Transfer(transfer) => {
                may(scope, &scope.writes, kernel::ledger::WRITES_TRANSFER)?;
                checked.ledger.get_or_insert_default().wanted.push(transfer);
            }
            Operation::Epoch { epoch } => {
                may(scope, &scope.writes, kernel::changeset::WRITES_EPOCH)?;
                if checked.moved.replace((epoch, String::new())).is_some() {
                    return Err(conflict("epoch", checked.tenant.as_str()));
                }
            }
        }
    }
    let written = checked.puts.iter().map(|(put, _)| (put.kind, &put.id));
    let deleted = checked.deletes.iter().map(|delete| (delete.kind, &delete.id));
    match doubled(written.chain(deleted)) {
        Some((kind, id)) => Err(conflict(kind, id.as_str())),
        None => Ok(()),
    }
}

/// A unique key must be free, or held by a record that this changeset writes or deletes: whoever of those still wants
/// the key says so in its own put, and two that want it are in each other's way.
fn check_uniques(db: &Connection, checked: &Checked) -> Result<(), Stop> {
    let mut wanted: HashMap<(&str, &str, &[u8]), &Id> = HashMap::new();
    for (put, _) in &checked.puts {
        for (name, key) in &put.uniques {
            if wanted.insert((put.kind, name, key), &put.id).is_some_and(|other| *other != put.id) {
                return Err(conflict(put.kind, name));
            }
            let holder: Option<String> = db
                .prepare_cached(
                    "SELECT id FROM record_unique WHERE kind = ? AND name = ? AND key = ? AND tenant = ?",
                )?
                .query_row(params![put.kind, name, key, checked.tenant.as_str()], |row| row.get(0))
                .optional()?;
            let lets_go = |holder: &str| {
                let same = |kind: &str, id: &Id| kind == put.kind && id.as_str() == holder;
                checked.puts.iter().any(|(put, _)| same(put.kind, &put.id))
                    || checked.deletes.iter().any(|delete| same(delete.kind, &delete.id))
            };
            if holder.is_some_and(|holder| !lets_go(&holder)) {
                return Err(conflict(put.kind, name));
            }
        }
    }
    Ok(())
}

/// A job's id must be free, or held by an unclaimed job that this changeset cancels: a timer that is set anew.
fn check_jobs(db: &Connection, checked: &Checked) -> Result<(), Stop> {
    if let Some(twice) = doubled(checked.jobs.iter().map(|job| &job.id)) {
        return Err(conflict("job", twice.as_str()));
    }
    for job in &checked.jobs {
        match jobs::epoch(db, &checked.tenant, &job.id)? {
            None => {}
            Some(0) if checked.cancels.contains(&job.id) => {}
            Some(_) => return Err(conflict("job", job.id.as_str())),
        }
    }
    Ok(())
}

/// Numbers the facts in their streams and encodes the leaves.
fn check_facts(
    bench: &mut Bench<'_>,
    scope: &Scope,
    facts: Vec<Fact>,
    checked: &mut Checked,
) -> Result<(), Stop> {
    let db = bench.db;
    let state = bench.tenants.get(&checked.tenant);
    let origin = match (&checked.moved, &checked.newborn, state) {
        (Some((_, origin)), ..) | (None, Some(Log { origin, .. }), _) => origin,
        (None, None, Some(state)) => &state.log.origin,
        (None, None, None) => return Err(CommitError::Log.into()),
    };
    if let Some(twice) = doubled(facts.iter().map(|fact| &fact.id)) {
        return Err(conflict("fact", twice.as_str()));
    }
    for fact in facts {
        may(scope, &scope.facts, fact.kind)?;
        let last = match checked.streams.get(&fact.stream).or_else(|| state?.streams.get(&fact.stream)) {
            Some(last) => *last,
            None => log::stream_last(db, &checked.tenant, fact.stream.as_str(), bench.deferred)?,
        };
        let place = Place { origin, stream_n: last + 1, at_ms: checked.at_ms };
        let bytes =
            fact.leaf(place, &checked.authority, scope.commitment.as_ref()).map_err(CommitError::Leaf)?;
        if fact.aside.is_some() && aside_exists(db, &checked.tenant, &fact.id)? {
            return Err(conflict("fact", fact.id.as_str()));
        }
        checked.streams.insert(fact.stream.clone(), last + 1);
        checked.leaves.push(Leaf {
            fact: fact.id,
            stream: fact.stream,
            stream_n: last + 1,
            hash: merkle::leaf_hash(&bytes),
            bytes,
            aside: fact.aside,
        });
    }
    Ok(())
}

/// Writes a checked changeset. Whatever gives way (old entries, deleted records, cancelled and completed jobs) goes
/// first, so that what comes in its place finds it gone.
pub(super) fn write(bench: &mut Bench<'_>, checked: Checked) -> rusqlite::Result<Committed> {
    let db = bench.db;
    let tenant = checked.tenant.as_str();
    bench.touch(&checked.tenant);
    if let Some(log) = checked.newborn {
        bench.tenants.insert(checked.tenant.clone(), Tenant { log, streams: HashMap::new() });
    }
    for delete in &checked.deletes {
        db.prepare_cached("DELETE FROM records WHERE tenant = ? AND kind = ? AND id = ?")?
            .execute(params![tenant, delete.kind, delete.id.as_str()])?;
        db.prepare_cached(
            "INSERT INTO rev_floors (tenant, kind, rev) VALUES (?, ?, ?) \
             ON CONFLICT DO UPDATE SET rev = max(rev, excluded.rev)",
        )?
        .execute(params![tenant, delete.kind, signed(delete.rev)])?;
        entries::remove(db, tenant, delete.kind, &delete.id, &delete.entries, &[])?;
    }
    let encoded: Vec<Vec<u8>> = checked.puts.iter().map(|(put, _)| entries::encode(put)).collect();
    for ((put, old), new) in checked.puts.iter().zip(&encoded) {
        entries::remove(db, tenant, put.kind, &put.id, old, new)?;
    }
    for ((put, old), new) in checked.puts.iter().zip(&encoded) {
        match put.rev {
            None => db
                .prepare_cached(
                    "INSERT INTO records (tenant, kind, id, rev, entries, body) VALUES (?1, ?2, ?3, \
                     1 + coalesce((SELECT rev FROM rev_floors WHERE tenant = ?1 AND kind = ?2), 0), ?4, ?5)",
                )?
                .execute(params![tenant, put.kind, put.id.as_str(), new, put.body])?,
            Some(rev) => db
                .prepare_cached(
                    "UPDATE records SET rev = ?, entries = ?, body = ? WHERE tenant = ? AND kind = ? AND id = ?",
                )?
                .execute(params![signed(rev + 1), new, put.body, tenant, put.kind, put.id.as_str()])?,
        };
        entries::add(db, tenant, put.kind, &put.id, old, new)?;
    }
    for job in checked.completed.iter() {
        jobs::complete(db, &checked.tenant, job)?;
    }
    for job in &checked.cancels {
        jobs::cancel(db, &checked.tenant, job)?;
    }
    let mut committed = Committed::default();
    for job in checked.jobs {
        committed.held.extend(jobs::insert(bench, &checked.tenant, job, &checked.authority)?);
    }
    for outcome in &checked.outcomes {
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
    for (digest, bytes) in &checked.blobs {
        db.prepare_cached(
            "INSERT INTO blobs (tenant, digest, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute(params![tenant, digest.as_slice(), bytes])?;
    }
    if let Some(staged) = &checked.ledger {
        let fact = checked.leaves.first().map(|leaf| &leaf.fact);
        ledger::write(db, &checked.tenant, staged, fact, bench.now_ms)?;
    }
    // A commit that came this far has a tenant: check loaded it, or it was born above.
    let state = tenant_loaded(bench.tenants, &checked.tenant)?;
    let streams_before = state.streams.len();
    state.streams.extend(checked.streams);
    if let Some((epoch, origin)) = checked.moved {
        epochs::write(db, &checked.tenant, &mut state.log, epoch, origin, checked.at_ms)?;
    }
    *bench.streams += state.streams.len() - streams_before;
    for leaf in checked.leaves {
        if let Some(aside) = &leaf.aside {
            db.prepare_cached("INSERT INTO asides (tenant, fact, body) VALUES (?, ?, ?)")?
                .execute(params![tenant, leaf.fact.as_str(), aside])?;
        }
        let stream = leaf.stream.as_str();
        if bench.deferred {
            db.prepare_cached(
                "INSERT INTO intake (tenant, stream, stream_n, hash, leaf) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![
                tenant,
                stream,
                signed(leaf.stream_n),
                leaf.hash.as_slice(),
                leaf.bytes
            ])?;
        } else {
            let index =
                state.log.append(db, &checked.tenant, stream, leaf.stream_n, leaf.hash, &leaf.bytes)?;
            committed.first_index.get_or_insert(index);
        }
    }
    Ok(committed)
}

fn tenant_loaded<'t>(
    tenants: &'t mut HashMap<TenantId, Tenant>,
    tenant: &TenantId,
) -> rusqlite::Result<&'t mut Tenant> {
    tenants.get_mut(tenant).ok_or_else(|| rusqlite::Error::InvalidColumnName("heads".into()))
}

/// A fact that has no place yet.
struct Waiting {
    n: i64,
    tenant: TenantId,
    stream: String,
    stream_n: u64,
    hash: Digest,
    leaf: Vec<u8>,
}

/// Moves waiting facts into their logs, in the order in which they were committed.
pub(super) fn sequence(bench: &mut Bench<'_>, limit: usize) -> rusqlite::Result<usize> {
    let db = bench.db;
    let waiting: Vec<Waiting> = db
        .prepare_cached("SELECT n, tenant, stream, stream_n, hash, leaf FROM intake ORDER BY n LIMIT ?")?
        .query_map([limit.min(SEQUENCE_MAX) as i64], |row| {
            Ok(Waiting {
                n: row.get(0)?,
                tenant: read_tenant(row.get_ref(1)?.as_str()?, 1)?,
                stream: row.get(2)?,
                stream_n: unsigned(row.get(3)?, 3)?,
                hash: read_digest(row.get_ref(4)?.as_blob()?, 4)?,
                leaf: row.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    // Before anything is written: until then a damaged log concerns nobody else in the batch.
    for Waiting { tenant: of, .. } in &waiting {
        tenant(db, bench.tenants, of)?;
        tenant_loaded(bench.tenants, of)?;
    }
    for Waiting { n, tenant: of, stream, stream_n, hash, leaf } in &waiting {
        bench.touch(of);
        // Facts were taken in only for tenants with a head row.
        let state = tenant_loaded(bench.tenants, of)?;
        state.log.append(db, of, stream, *stream_n, *hash, leaf)?;
        db.prepare_cached("DELETE FROM intake WHERE n = ?")?.execute([n])?;
    }
    Ok(waiting.len())
}
