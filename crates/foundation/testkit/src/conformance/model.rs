//! The engine against a model of it: a few maps, random operations, and every answer compared.
//!
//! The model knows nothing of batches, SQL or files. It says for each changeset whether it must succeed and what is
//! visible afterwards, and for each claim which jobs may be handed out. Identifiers and keys are drawn from small
//! pools, so that operations meet each other all the time. A failure names the seed, and the seed repeats it.

use super::bed::{Bed, ITEM, OTHER, WORK, id, job};
use crate::Random;
use kernel::changeset::{Changeset, Draft, NewJob, Operation, Outcome, Put};
use kernel::{Id, Lease, TenantId};
use std::collections::{BTreeMap, BTreeSet};
use store::{CommitError, Range};

const STEPS: usize = 40;
const COMPARED_EVERY: usize = 2;
const KINDS: [&str; 2] = [ITEM, OTHER];
const RECORDS: usize = 5;
const JOBS: usize = 5;
const INDEXES: [&str; 2] = ["by_x", "by_y"];
const KEYS: [&[u8]; 6] = [b"", b"a", b"a\0", b"ab", b"b", b"\xff"];
const UNIQUE: &str = "name";
const OUTCOMES: [&str; 3] = ["k1", "k2", "k3"];

type Entries = BTreeSet<(&'static str, Vec<u8>)>;

#[derive(Debug, Clone, Default)]
struct Record {
    rev: u64,
    body: Vec<u8>,
    indexes: Entries,
    uniques: Entries,
}

#[derive(Debug, Clone)]
struct Job {
    due_ms: i64,
    epoch: u64,
    /// Order of enqueuing.
    n: usize,
}

/// What one tenant must look like.
#[derive(Debug, Default)]
struct Model {
    records: BTreeMap<(&'static str, Id), Record>,
    /// The highest revision that an id ever had.
    revs: BTreeMap<(&'static str, Id), u64>,
    jobs: BTreeMap<Id, Job>,
    enqueued: usize,
    /// How often the id of each slot has been used up: ids of claimed jobs are not used again.
    generations: [usize; JOBS],
    outcomes: BTreeMap<&'static str, Vec<u8>>,
    facts: u64,
}

/// In which ways a changeset may be refused; in none: it must succeed.
#[derive(Debug, Default, PartialEq)]
struct Faults {
    conflict: bool,
    fenced: bool,
}

impl Model {
    /// Judges a changeset that completes `completed` by its lease's epoch, if any.
    fn judge(&self, operations: &[Operation], completed: Option<(&Id, u64)>) -> Faults {
        let mut faults = Faults::default();
        let rev_of =
            |kind: &'static str, id: &Id| self.records.get(&(kind, id.clone())).map(|record| record.rev);
        let mut written = BTreeSet::new();
        let mut jobs = BTreeSet::new();
        let mut outcomes = BTreeSet::new();
        let mut wanted: BTreeMap<_, &Id> = BTreeMap::new();
        let epoch_of = |job: &Id| self.jobs.get(job).map(|job| job.epoch);
        if let Some((job, epoch)) = completed {
            faults.fenced |= epoch_of(job) != Some(epoch);
        }
        for operation in operations {
            match operation {
                Operation::Put(put) => {
                    faults.conflict |=
                        !written.insert((put.kind, &put.id)) || rev_of(put.kind, &put.id) != put.rev;
                    for (name, key) in &put.uniques {
                        let other = wanted.insert((put.kind, *name, key), &put.id);
                        faults.conflict |= other.is_some_and(|other| *other != put.id);
                    }
                }
                Operation::Delete { kind, id, rev } => {
                    faults.conflict |= !written.insert((*kind, id)) || rev_of(kind, id) != Some(*rev);
                }
                Operation::Expect { kind, id, rev } => faults.conflict |= rev_of(kind, id) != *rev,
                Operation::Fence { job, epoch } => faults.fenced |= epoch_of(job) != Some(*epoch),
                Operation::Job(job) => {
                    let cancelled = operations.contains(&Operation::JobCancel { job: job.id.clone() });
                    let free = epoch_of(&job.id).is_none_or(|epoch| epoch == 0 && cancelled);
                    faults.conflict |= !jobs.insert(&job.id) || !free;
                }
                Operation::Outcome(outcome) => {
                    faults.conflict |=
                        !outcomes.insert(&outcome.key) || self.outcomes.contains_key(outcome.key.as_str());
                }
                // The ledger has a model of its own, in `ledger_model`.
                Operation::JobCancel { .. }
                | Operation::Blob { .. }
                | Operation::Account(_)
                | Operation::Transfer(_)
                | Operation::Epoch { .. } => {}
            }
        }
        for (kind, name, key) in wanted.keys() {
            let entry = (*name, (*key).clone());
            let holder =
                self.records.iter().find(|((of, _), record)| of == kind && record.uniques.contains(&entry));
            faults.conflict |= holder.is_some_and(|((kind, id), _)| !written.contains(&(*kind, id)));
        }
        faults
    }

    /// Does what a successful changeset does. Revisions of new records are the engine's choice; 0 until it is asked.
    fn apply(&mut self, operations: &[Operation], completed: Option<&Id>, now_ms: i64) {
        self.facts += 1;
        if let Some(job) = completed {
            self.jobs.remove(job);
        }
        for operation in operations {
            match operation {
                Operation::Delete { kind, id, .. } => {
                    self.records.remove(&(*kind, id.clone()));
                }
                Operation::JobCancel { job } if self.jobs.get(job).is_some_and(|job| job.epoch == 0) => {
                    self.jobs.remove(job);
                }
                _ => {}
            }
        }
        for operation in operations {
            match operation {
                Operation::Put(put) => {
                    let record = Record {
                        rev: put.rev.map_or(0, |rev| rev + 1),
                        body: put.body.clone(),
                        indexes: put.indexes.iter().cloned().collect(),
                        uniques: put.uniques.iter().cloned().collect(),
                    };
                    self.records.insert((put.kind, put.id.clone()), record);
                }
                Operation::Job(job) => {
                    self.enqueued += 1;
                    let due_ms = if job.held { now_ms + WORK.lease_ms } else { job.ready_at_ms };
                    let model = Job { due_ms, epoch: u64::from(job.held), n: self.enqueued };
                    self.jobs.insert(job.id.clone(), model);
                }
                Operation::Outcome(outcome) => {
                    let key = OUTCOMES.into_iter().find(|key| *key == outcome.key).unwrap();
                    self.outcomes.insert(key, outcome.body.clone());
                }
                _ => {}
            }
        }
    }

    fn job_id(&self, slot: usize) -> Id {
        id(&format!("job_{slot}x{}", self.generations[slot]))
    }

    /// The ids of due jobs in the order in which they have to be handed out.
    fn due(&self, now_ms: i64) -> Vec<Id> {
        let mut due: Vec<_> = self.jobs.iter().filter(|(_, job)| job.due_ms <= now_ms).collect();
        due.sort_by_key(|(_, job)| (job.due_ms, job.n));
        due.into_iter().map(|(id, _)| id.clone()).collect()
    }
}

/// Names the seed if the test fails while it lives.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the engine left its model with seed {}", self.0);
        }
    }
}

struct Run<'a> {
    bed: &'a mut Bed,
    random: Random,
    tenants: [TenantId; 2],
    models: [Model; 2],
    leases: Vec<Lease>,
}

impl Run<'_> {
    fn operation(&mut self, which: usize) -> Operation {
        let random = &mut self.random;
        let model = &self.models[which];
        let kind = *random.pick(&KINDS);
        let record = id(&format!("rec_{}", random.below(RECORDS)));
        let rev = model.records.get(&(kind, record.clone())).map(|record| record.rev);
        // Mostly right; sometimes a little or entirely wrong.
        let rev = match random.below(12) {
            0 => None,
            1 => rev.map(|rev| rev + 1),
            2 => Some(rev.unwrap_or(1).saturating_sub(1)),
            _ => rev,
        };
        let slot = random.below(JOBS);
        let job_id = model.job_id(slot);
        match random.below(20) {
            0..9 => {
                let entries = |random: &mut Random, names: &[&'static str]| {
                    let count = random.below(3);
                    (0..count).map(|_| (*random.pick(names), random.pick(&KEYS).to_vec())).collect()
                };
                Operation::Put(Put {
                    kind,
                    id: record,
                    rev,
                    body: random.bytes32()[..random.below(32)].to_vec(),
                    indexes: entries(random, &INDEXES),
                    uniques: if random.chance(40) { entries(random, &[UNIQUE]) } else { vec![] },
                })
            }
            9..12 => Operation::Delete { kind, id: record, rev: rev.unwrap_or(1) },
            12 | 13 => Operation::Expect { kind, id: record, rev },
            14 => {
                let epoch = model.jobs.get(&job_id).map_or(0, |job| job.epoch) + u64::from(random.chance(20));
                Operation::Fence { job: job_id, epoch }
            }
            15 => Operation::JobCancel { job: job_id },
            16 => {
                let key = *random.pick(&OUTCOMES);
                Operation::Outcome(Outcome { body: random.bytes32().to_vec(), ..super::bed::outcome(key) })
            }
            _ => {
                let ready_at_ms = self.bed.now_ms() + random.below(12_000) as i64 - 4_000;
                Operation::Job(NewJob { id: job_id, held: random.chance(30), ..job("job_a", ready_at_ms) })
            }
        }
    }

    async fn commit(&mut self) {
        let which = self.random.below(2);
        let count = 1 + self.random.below(4);
        let operations: Vec<_> = (0..count).map(|_| self.operation(which)).collect();
        let tenant = self.tenants[which].clone();
        let draft = Draft { operations: operations.clone(), ..self.bed.draft(vec![], "run_m") };
        let mine = self.leases.iter().position(|lease| lease.tenant == tenant);
        let completing = mine.filter(|_| self.random.chance(40)).map(|at| self.leases.remove(at));
        let completed = completing.as_ref().map(|lease| (lease.id.clone(), lease.epoch));
        let job = completed.as_ref().map(|(job, epoch)| (job, *epoch));
        let faults = self.models[which].judge(&operations, job);
        let changeset = match completing {
            None => self.bed.changeset_of(&tenant, draft),
            Some(lease) => Changeset::continuing(lease, draft).unwrap(),
        };
        // A completion of this kind of job may not write the other kind of records.
        let outside = |operation: &Operation| matches!(operation, Operation::Put(Put { kind, .. }) | Operation::Delete { kind, .. } if *kind == OTHER);
        let outside = completed.is_some() && operations.iter().any(outside);
        let now_ms = self.bed.now_ms();
        match self.bed.store().commit(changeset).await {
            Ok(committed) => {
                assert_eq!((faults, outside), (Faults::default(), false), "{operations:?}");
                let model = &mut self.models[which];
                model.apply(&operations, completed.as_ref().map(|(job, _)| job), now_ms);
                if let Some((job, _)) = &completed {
                    Run::used_up(model, job);
                }
                self.leases.extend(committed.held);
                self.learn(which).await;
            }
            Err(error) => {
                let right = match &error {
                    CommitError::Conflict { .. } => faults.conflict,
                    CommitError::Fenced => faults.fenced,
                    CommitError::OutsidePermit(_) => outside,
                    _ => false,
                };
                assert!(right, "{error:?} for {operations:?}");
            }
        }
    }

    fn used_up(model: &mut Model, job: &Id) {
        for slot in 0..JOBS {
            if model.job_id(slot) == *job {
                model.generations[slot] += 1;
            }
        }
    }

    /// Asks for the revisions of new records: above all that their ids ever had.
    async fn learn(&mut self, which: usize) {
        let Model { records, revs, .. } = &mut self.models[which];
        for (name, record) in records {
            if record.rev == 0 {
                let row =
                    self.bed.store().record(&self.tenants[which], name.0, &name.1).await.unwrap().unwrap();
                assert!(row.rev > revs.get(name).copied().unwrap_or(0), "{name:?} at {}", row.rev);
                record.rev = row.rev;
            }
            revs.insert(name.clone(), record.rev);
        }
    }

    async fn claim(&mut self) {
        let limit = self.random.below(5);
        let now_ms = self.bed.now_ms();
        let due = self.models.each_ref().map(|model| model.due(now_ms));
        let leases = self.bed.claim(limit).await;
        assert_eq!(leases.len(), limit.min(due[0].len() + due[1].len()));
        let mut counts = [0, 0];
        for lease in &leases {
            let which = usize::from(lease.tenant == self.tenants[1]);
            assert_eq!(lease.id, due[which][counts[which]], "a tenant's jobs come in order");
            counts[which] += 1;
            let job = self.models[which].jobs.get_mut(&lease.id).unwrap();
            job.epoch += 1;
            job.due_ms = now_ms + WORK.lease_ms;
            assert_eq!((lease.epoch, lease.lease_until_ms), (job.epoch, job.due_ms));
        }
        for (more, less) in [(0, 1), (1, 0)] {
            assert!(
                counts[more] <= counts[less] + 1 || counts[less] == due[less].len(),
                "{counts:?} of {due:?}"
            );
        }
        self.leases.extend(leases);
    }

    async fn renew(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let lease = &self.leases[self.random.below(self.leases.len())];
        let which = usize::from(lease.tenant == self.tenants[1]);
        let job = self.models[which].jobs.get_mut(&lease.id).filter(|job| job.epoch == lease.epoch);
        assert_eq!(self.bed.store().job_renew(lease).await.unwrap(), job.is_some());
        if let Some(job) = job {
            job.due_ms = self.bed.now_ms() + WORK.lease_ms;
        }
    }

    /// Compares everything that can be seen.
    async fn compare(&mut self) {
        let store = self.bed.store().clone();
        let mut next_ms = None;
        for (tenant, model) in self.tenants.iter().zip(&self.models) {
            for kind in KINDS {
                for n in 0..RECORDS {
                    let name = (kind, id(&format!("rec_{n}")));
                    let row = store.record(tenant, kind, &name.1).await.unwrap();
                    let found = row.as_ref().map(|row| (row.rev, &row.body));
                    assert_eq!(
                        found,
                        model.records.get(&name).map(|record| (record.rev, &record.body)),
                        "{name:?}"
                    );
                }
                for key in KEYS {
                    let row = store.record_unique(tenant, kind, UNIQUE, key).await.unwrap();
                    let entry = (UNIQUE, key.to_vec());
                    let mut holders = model
                        .records
                        .iter()
                        .filter(|((of, _), record)| *of == kind && record.uniques.contains(&entry));
                    let holder = holders.next();
                    assert!(holders.next().is_none());
                    assert_eq!(
                        row.map(|row| (row.id, row.rev)),
                        holder.map(|((_, id), record)| (id.clone(), record.rev))
                    );
                }
                compare_list(&store, &mut self.random, tenant, kind, model).await;
            }
            for key in OUTCOMES {
                let kept = store.outcome(tenant, &id("prn_alice"), "test.item.change", key).await.unwrap();
                assert_eq!(kept.map(|(_, body)| body), model.outcomes.get(key).cloned());
            }
            let mut jobs: Vec<_> =
                model.jobs.iter().map(|(id, job)| (job.due_ms, job.n, id.clone())).collect();
            jobs.sort();
            let listed = store.jobs(tenant, 100).await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|row| (row.due_ms, row.id)).collect();
            assert_eq!(listed, jobs.into_iter().map(|(due_ms, _, id)| (due_ms, id)).collect::<Vec<_>>());
            for job in model.jobs.values() {
                next_ms = Some(next_ms.map_or(job.due_ms, |next_ms: i64| next_ms.min(job.due_ms)));
            }
        }
        assert_eq!(store.jobs_next_due_ms().await.unwrap(), next_ms);
    }
}

/// Compares one random range of one index.
async fn compare_list(
    store: &store::Store,
    random: &mut Random,
    tenant: &TenantId,
    kind: &'static str,
    model: &Model,
) {
    let index = *random.pick(&INDEXES);
    let prefix = random.pick(&KEYS).to_vec();
    let descending = random.chance(50);
    let limit = random.below(4) * random.below(4);
    let after = random
        .chance(50)
        .then(|| (random.pick(&KEYS).to_vec(), id(&format!("rec_{}", random.below(RECORDS)))));
    let mut expected = Vec::new();
    for ((of, id), record) in model.records.iter().filter(|((of, _), _)| *of == kind) {
        assert_eq!(*of, kind);
        let entries = record.indexes.iter().filter(|(name, key)| *name == index && key.starts_with(&prefix));
        expected.extend(entries.map(|(_, key)| (key.clone(), id.clone(), record.rev)));
    }
    expected.sort();
    if let Some((key, id)) = &after {
        expected.retain(
            |(at_key, at_id, _)| {
                if descending { (at_key, at_id) < (key, id) } else { (at_key, at_id) > (key, id) }
            },
        );
    }
    if descending {
        expected.reverse();
    }
    expected.truncate(limit);
    let range = Range { index, prefix, after, descending, limit };
    let rows = store.record_list(tenant, kind, range.clone()).await.unwrap();
    let found: Vec<_> = rows.into_iter().map(|(key, row)| (key, row.id, row.rev)).collect();
    assert_eq!(found, expected, "{range:?}");
}

async fn seed_run(bed: &mut Bed, seed: u64) {
    let _named = Seed(seed);
    let tenants = [bed.tenant(&format!("s{seed}a")).await, bed.tenant(&format!("s{seed}b")).await];
    let mut run =
        Run { bed, random: Random::seeded(seed), tenants, models: Default::default(), leases: Vec::new() };
    for step in 1..=STEPS {
        match run.random.below(20) {
            0..13 => run.commit().await,
            13..16 => run.claim().await,
            16 => run.renew().await,
            17 | 18 => run.bed.clock.advance_ms(run.random.below(9_000) as i64),
            _ if run.random.chance(20) => {
                // Leases of the process before are worth nothing.
                run.leases.clear();
                // Whether an engine ends a dead process's leases at once or lets them run out is its own matter.
                run.bed.clock.advance_ms(WORK.lease_ms);
                run.bed.restart().await;
            }
            _ => {
                run.bed.store().sequence(run.random.below(4)).await.unwrap();
            }
        }
        if step % COMPARED_EVERY == 0 {
            run.compare().await;
        }
    }
    run.bed.settle().await;
    for (tenant, model) in run.tenants.iter().zip(&run.models) {
        assert_eq!(run.bed.log_checked(tenant).await.len() as u64, 1 + model.facts);
    }
    // The next seed finds no jobs.
    run.bed.clock.advance_ms(1_000_000);
    for lease in run.bed.claim(100).await {
        run.bed.complete(lease, vec![]).await.unwrap();
    }
    run.bed.settle().await;
}

async fn seeds(mut bed: Bed, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        seed_run(&mut bed, seed).await;
    }
}

/// Fifty runs of forty steps.
pub async fn seeds_0_to_49(bed: Bed) {
    seeds(bed, 0..50).await;
}

/// Fifty runs of forty steps.
pub async fn seeds_50_to_99(bed: Bed) {
    seeds(bed, 50..100).await;
}

/// Fifty runs of forty steps.
pub async fn seeds_100_to_149(bed: Bed) {
    seeds(bed, 100..150).await;
}

/// Fifty runs of forty steps.
pub async fn seeds_150_to_199(bed: Bed) {
    seeds(bed, 150..200).await;
}

/// Fifty runs of forty steps.
pub async fn seeds_200_to_249(bed: Bed) {
    seeds(bed, 200..250).await;
}
