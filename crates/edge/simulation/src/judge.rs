//! What must hold in the end, said without the code that it judges.

use crate::outside::TOKENS;
use crate::stage::tenant;
use crate::world::{Case, Comes, Known};
use flows::run::{Outcome, RunDoc, Status};
use kernel::ledger::{Account, Kind};
use kernel::note::Checkpoint;
use kernel::{Id, merkle};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use store::{Document as _, Store};

/// What a token costs, in millionths: in, out.
const PRICE: (i64, i64) = (1, 4);

/// A history at its end.
pub struct End<'a> {
    /// What is kept.
    pub store: &'a Store,
    /// The incidents.
    pub cases: &'a [Case],
    /// How many notes each of them has.
    pub notes: &'a [usize],
    /// What was acknowledged.
    pub known: &'a Known,
    /// How often the model answered.
    pub served: i64,
    /// Whether nothing failed.
    pub fair: bool,
    /// Whether so little failed that every run has to end as it would have without.
    pub strict: bool,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl End<'_> {
    /// Judges it. Returns how many runs ended in which way.
    ///
    /// # Panics
    /// If something does not hold.
    pub async fn judge(&self) -> BTreeMap<String, u32> {
        let facts = self.log().await;
        let ends = self.runs(&facts).await;
        intents(&facts);
        self.approvals(&facts);
        self.money(&facts).await;
        for bundle in &self.known.bundles {
            let exported = |fact: &Value| fact["outcome"]["bundle"] == *bundle.as_str();
            assert_eq!(facts.iter().filter(|fact| exported(fact)).count(), 1, "bundle {bundle}");
        }
        ends
    }

    /// The log: no gap, no fact twice, its root that of its leaves, and every checkpoint that was kept a checkpoint of it.
    async fn log(&self) -> Vec<Value> {
        let head = self.store.head(&tenant()).await.expect("storage works").expect("the tenant is there");
        let (mut facts, mut hashes, mut streams, mut ids) =
            (Vec::new(), Vec::new(), BTreeMap::new(), BTreeSet::new());
        while (hashes.len() as u64) < head.size {
            let page = self.store.leaves(&tenant(), hashes.len() as u64, 1_000).await.expect("storage works");
            assert!(!page.is_empty(), "the log has fewer leaves than its head says");
            for row in page {
                assert_eq!(row.index, hashes.len() as u64, "the log has a gap");
                hashes.push(merkle::leaf_hash(&row.leaf));
                let fact: Value = serde_json::from_slice(&row.leaf).expect("a leaf is JSON");
                assert!(ids.insert(text(&fact["id"]).to_owned()), "a fact is stated twice: {fact}");
                let last: &mut u64 = streams.entry(text(&fact["stream"]).to_owned()).or_default();
                *last += 1;
                assert_eq!(fact["stream_n"], *last, "a stream has a gap: {fact}");
                facts.push(fact);
            }
        }
        assert_eq!(head.root, merkle::root_of(&hashes), "the head's root is not that of the leaves");
        for (size, note) in &self.known.held {
            let leaves = usize::try_from(*size).expect("a size that fits");
            assert!(leaves <= hashes.len(), "the log is shorter than a checkpoint of it");
            let root = merkle::root_of(&hashes[..leaves]);
            let checkpoint = Checkpoint { origin: head.origin.clone(), size: *size, root };
            assert!(note.starts_with(&checkpoint.text()), "the log was rewritten since it had {size} leaves");
        }
        facts
    }

    /// Every run has ended as it may, and nothing took effect twice.
    async fn runs(&self, facts: &[Value]) -> BTreeMap<String, u32> {
        let created = facts.iter().filter(|fact| fact["kind"] == "flows.run.created").count();
        assert_eq!(created, self.cases.len(), "a run for each incident");
        let mut ends = BTreeMap::new();
        let mut runs = BTreeSet::new();
        for (at, case) in self.cases.iter().enumerate() {
            let id = self.known.runs.get(&at).expect("each delivery was acknowledged in the end");
            assert!(runs.insert(id), "two incidents became one run");
            let parsed = Id::parse(id).expect("the id of a run");
            let row = self.store.record(&tenant(), RunDoc::KIND, &parsed).await.expect("storage works");
            let run = store::decode::<RunDoc>(&row.expect("an acknowledged run is there"));
            let run = run.expect("a run can be read");
            let ended = |kind: &str| {
                facts.iter().filter(|fact| fact["kind"] == kind && fact["stream"] == id.as_str()).count()
            };
            let what = format!("{id}, {:?}: {:?} {:?} {:?}", case.comes, run.status, run.outcome, run.error);
            let notes = self.notes[at];
            assert!(notes <= 1, "{what}: {notes} notes");
            let expected = match case.comes {
                Comes::Sure | Comes::Asked(Some(true)) => (Outcome::Done, 1),
                Comes::Asked(Some(false)) => (Outcome::Denied, 0),
                Comes::Asked(None) => (Outcome::Expired, 0),
                Comes::Doubtful => (Outcome::NeedsHuman, 0),
            };
            match (run.status, run.outcome) {
                (Status::Finished, Some(outcome)) => {
                    assert_eq!(ended("flows.run.finished"), 1, "{what}");
                    // One that has given up can still be cancelled.
                    let dead = ended("flows.run.dead");
                    assert!(
                        dead == 0 || (dead == 1 && outcome == Outcome::Cancelled && !self.fair),
                        "{what}"
                    );
                    if outcome == Outcome::Cancelled {
                        assert_eq!(notes, 0, "{what}: cancelled after it was written");
                    } else if outcome == Outcome::NeedsHuman && !self.strict {
                        // A model that cannot be reached is a matter for people as well.
                        assert_eq!(notes, 0, "{what}");
                    } else if outcome == Outcome::Expired && !self.strict {
                        // People were too late; nobody wrote.
                        assert!(matches!(case.comes, Comes::Asked(_)) && notes == 0, "{what}");
                    } else {
                        assert_eq!((outcome, notes), expected, "{what}");
                    }
                    if let Some(before) = self.known.ended.get(id) {
                        assert_eq!(*before, serde_json::json!(outcome), "{what}: it read otherwise before");
                    }
                    *ends.entry(outcome.as_str().to_owned()).or_default() += 1;
                }
                // It gave up, as its budgets say, and waits for an operator. Nothing of that is there in fair weather.
                (Status::Dead, None) => {
                    assert!(!self.strict, "{what}");
                    assert!(notes <= expected.1, "{what}: {notes} notes");
                    assert_eq!((ended("flows.run.finished"), ended("flows.run.dead")), (0, 1), "{what}");
                    *ends.entry("dead".to_owned()).or_default() += 1;
                }
                _ => panic!("{what}: it has not ended"),
            }
            if self.known.cancelled.contains(id) {
                assert_eq!(
                    run.outcome,
                    Some(Outcome::Cancelled),
                    "{what}: its cancellation was acknowledged"
                );
            }
        }
        ends
    }

    /// Every decision that was acknowledged stands, once, and every approval is closed.
    fn approvals(&self, facts: &[Value]) {
        let of = |kind: &str, approval: &str| {
            let about = |fact: &&Value| fact["kind"] == kind && fact["stream"] == approval;
            facts.iter().filter(about).count()
        };
        for fact in facts.iter().filter(|fact| fact["kind"] == "governor.approval.requested") {
            let approval = text(&fact["outcome"]["approval"]);
            let decided =
                of("governor.approval.granted", approval) + of("governor.approval.denied", approval);
            assert!(decided <= 1, "{approval} was decided {decided} times");
            assert_eq!(of("governor.approval.closed", approval), 1, "{approval} is closed once");
            assert!(of("governor.approval.used", approval) <= of("governor.approval.granted", approval));
            if let Some(grant) = self.known.decided.get(approval)
                && self.fair
            {
                let kind = if *grant { "governor.approval.granted" } else { "governor.approval.denied" };
                assert_eq!(of(kind, approval), 1, "{approval}: its decision was acknowledged");
            }
        }
    }

    /// Debits are credits, nothing is held, the rows make the sums, and what was charged covers what was served.
    async fn money(&self, facts: &[Value]) {
        let accounts: Vec<Account> =
            self.store.accounts(&tenant(), None, usize::MAX).await.expect("storage works");
        let sum = |of: fn(&Account) -> i64| accounts.iter().map(of).sum::<i64>();
        assert_eq!(
            sum(|account| account.balance.debits_posted),
            sum(|account| account.balance.credits_posted),
            "debits are credits"
        );
        for account in &accounts {
            let (balance, id) = (account.balance, &account.spec.id);
            assert_eq!((balance.debits_pending, balance.credits_pending), (0, 0), "{id} holds something");
            let rows = self.store.statement(&tenant(), id, None, usize::MAX).await.expect("storage works");
            let rows = rows.expect("the account is there").rows;
            if rows.len() == store::PAGE_MAX {
                continue;
            }
            let (mut debits, mut credits, mut ended) = (0, 0, BTreeSet::new());
            for row in rows {
                if let Some(hold) = row.hold.filter(|_| row.kind != Kind::Expired) {
                    assert!(ended.insert(hold.clone()), "{hold} has ended twice");
                }
                if matches!(row.kind, Kind::Posted | Kind::Settled) {
                    debits += if row.debit == *id { row.amount } else { 0 };
                    credits += if row.credit == *id { row.amount } else { 0 };
                }
            }
            let found = (balance.debits_posted, balance.credits_posted);
            assert_eq!(found, (debits, credits), "the rows of {id}");
        }
        let cost = |fact: &Value, name: &str| fact["outcome"][name].as_i64().unwrap_or_default();
        let finished = facts.iter().filter(|fact| fact["kind"] == "models.call.finished");
        let charged: i64 =
            finished.map(|fact| cost(fact, "cost_micros") + cost(fact, "unmeasured_micros")).sum();
        let served = self.served * (TOKENS.0 * PRICE.0 + TOKENS.1 * PRICE.1);
        assert!(charged >= served, "{charged} was charged, and {served} was served");
        if self.fair {
            assert_eq!(charged, served, "nothing was lost, so nothing is charged that was not served");
        }
        let budget = accounts.iter().filter(|account| account.spec.code.contains("budget"));
        let spent: i64 = budget.map(|account| account.balance.debits_posted).sum();
        assert_eq!(spent, charged, "the budget has paid what calls were charged");
        let mut rated = BTreeSet::new();
        for fact in facts.iter().filter(|fact| fact["kind"] == "models.call.billed") {
            let call = text(&fact["outcome"]["call"]);
            assert!(rated.insert(call), "{call} was rated twice");
        }
    }
}

/// Every intent is closed: the last word about it is done, failed, refused or unknown, and is there.
fn intents(facts: &[Value]) {
    for (intended, finished, name) in [
        ("flows.tool.intended", "flows.tool.finished", "effect_key"),
        ("models.call.intended", "models.call.finished", "call"),
    ] {
        let mut open = BTreeMap::new();
        for fact in facts {
            let key = text(&fact["outcome"][name]);
            let kind = text(&fact["kind"]);
            if kind == intended {
                assert!(open.insert(key, fact).is_none(), "an effect is intended twice at once: {fact}");
            } else if kind == finished {
                open.remove(key);
            }
        }
        assert!(open.is_empty(), "intents without an outcome: {open:?}");
    }
}
