//! The checkpoint worker's step, before an honest store and before one that lies.

use crate::house::{House, Says, tenant};
use crate::workshop::ours;
use act::Coded as _;
use evidence::{SealError, Sealed, checkpoint_seal};
use futures::FutureExt as _;
use kernel::changeset::Changeset;
use kernel::note::{Checkpoint, VerifierKey};
use kernel::permit::JobKind;
use kernel::{Digest, Id, Lease, TenantId};
use store::{
    CheckpointRow, CommitError, Committed, Engine, Head, Hints, IndexedRow, JobRow, KeptOutcome, LeafRow,
    Pending, Range, ReadError, Row, Store,
};

#[tokio::test]
async fn signs_what_is_new_and_nothing_twice() {
    let house = House::new().await;
    let a = tenant("ten_a");
    let seal = || house.evidence.seal(&house.store, &a);
    assert_eq!(house.evidence.seal(&house.store, &tenant("ten_none")).await.unwrap(), Sealed::Nothing);
    let Sealed::New(first) = seal().await.unwrap() else { panic!("a log that was never signed") };
    assert_eq!(seal().await.unwrap(), Sealed::Unchanged(first.clone()));
    house.fact("ten_a", "run_1", Says::default()).await;
    let Sealed::New(second) = seal().await.unwrap() else { panic!("a log that has grown") };
    assert_eq!((first.size, second.size), (1, 2));
    assert_eq!(house.store.checkpoint_last(&a).await.unwrap(), Some(second.clone()));
    let head = house.store.head(&a).await.unwrap().unwrap();
    let key = VerifierKey::new(&head.origin, ours().log_key).unwrap();
    let checkpoint = Checkpoint { origin: head.origin, size: 2, root: head.root };
    assert_eq!(Checkpoint::open(&second.note, &key), Ok(checkpoint));
}

#[tokio::test]
async fn many_at_once_come_to_the_same_checkpoint() {
    let house = House::new().await;
    let a = tenant("ten_a");
    let all = futures::future::join_all((0..16).map(|_| house.evidence.seal(&house.store, &a))).await;
    let rows: Vec<_> = all.into_iter().map(|sealed| sealed.unwrap().newest().unwrap()).collect();
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(house.store.checkpoints(&a, 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn somebody_elses_checkpoint_stops_it() {
    let house = House::new().await;
    let a = tenant("ten_a");
    house.stranger().seal(&house.store, &a).await.unwrap();
    house.fact("ten_a", "run_1", Says::default()).await;
    let error = house.evidence.seal(&house.store, &a).await.unwrap_err();
    assert_eq!(error.code(), "evidence.checkpoint_foreign");
}

/// What a store may say that is not so.
#[derive(Clone, Default)]
struct Lies {
    head: Option<Option<Head>>,
    consistency: Option<Vec<Digest>>,
    refuses: bool,
}

#[tokio::test]
async fn a_log_that_went_back_or_was_rewritten_is_not_signed() {
    let house = House::new().await;
    let a = tenant("ten_a");
    for _ in 0..5 {
        house.fact("ten_a", "run_1", Says::default()).await;
    }
    let early = house.store.head(&a).await.unwrap().unwrap();
    house.fact("ten_a", "run_1", Says::default()).await;
    house.evidence.seal(&house.store, &a).await.unwrap();
    let signed = house.store.head(&a).await.unwrap().unwrap();
    house.fact("ten_a", "run_1", Says::default()).await;
    let grown = house.store.head(&a).await.unwrap().unwrap();
    let other_root = |head: &Head| Head { root: [7; 32], ..head.clone() };
    let proof = house.store.consistency(&a, signed.size, grown.size).await.unwrap();
    let cases: Vec<(&str, Lies, &str)> = vec![
        ("the truth", Lies { head: Some(Some(signed.clone())), ..Lies::default() }, "unchanged"),
        (
            "yesterday's backup",
            Lies { head: Some(Some(early.clone())), ..Lies::default() },
            "evidence.log_regressed",
        ),
        ("no log at all", Lies { head: Some(None), ..Lies::default() }, "evidence.log_regressed"),
        (
            "an empty log",
            Lies { head: Some(Some(Head { size: 0, ..early })), ..Lies::default() },
            "evidence.log_regressed",
        ),
        (
            "another root",
            Lies { head: Some(Some(other_root(&signed))), ..Lies::default() },
            "evidence.log_regressed",
        ),
        (
            "a rewritten row",
            Lies { head: Some(Some(other_root(&grown))), ..Lies::default() },
            "evidence.log_rewritten",
        ),
        ("no proof", Lies { consistency: Some(vec![]), ..Lies::default() }, "evidence.log_rewritten"),
        (
            "a wrong proof",
            Lies { consistency: Some(vec![[1; 32]; proof.len()]), ..Lies::default() },
            "evidence.log_rewritten",
        ),
        (
            "a renamed log",
            Lies {
                head: Some(Some(Head { origin: "writ.test/local/ten_b/1".into(), ..grown })),
                ..Lies::default()
            },
            "evidence.checkpoint_foreign",
        ),
        ("a store that refuses", Lies { refuses: true, ..Lies::default() }, "evidence.checkpoint_refused"),
    ];
    for (what, lies, expected) in cases {
        let store = Store::new(Liar { inner: house.store.clone(), lies });
        let said = match checkpoint_seal(&store, &ours(), &a).await {
            Ok(Sealed::Unchanged(_)) => "unchanged",
            Ok(_) => "signed",
            Err(error @ (SealError::Read(_) | SealError::Commit(_))) => panic!("{error}"),
            Err(error) => error.code(),
        };
        assert_eq!(said, expected, "{what}");
    }
    let kept = house.store.checkpoint_last(&a).await.unwrap().unwrap();
    assert_eq!(kept.size, signed.size, "nothing was kept meanwhile");
}

/// A store that passes everything on but what it lies about.
struct Liar {
    inner: Store,
    lies: Lies,
}

impl Engine for Liar {
    fn head<'a>(&'a self, tenant: &'a TenantId) -> Pending<'a, Result<Option<Head>, ReadError>> {
        match &self.lies.head {
            Some(head) => std::future::ready(Ok(head.clone())).boxed(),
            None => self.inner.head(tenant),
        }
    }
    fn consistency<'a>(
        &'a self,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        match &self.lies.consistency {
            Some(proof) => std::future::ready(Ok(proof.clone())).boxed(),
            None => self.inner.consistency(tenant, old, new),
        }
    }
    fn checkpoint_put<'a>(
        &'a self,
        tenant: &'a TenantId,
        checkpoint: Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        if self.lies.refuses {
            std::future::ready(Ok(false)).boxed()
        } else {
            self.inner.checkpoint_put(tenant, checkpoint, note)
        }
    }
    fn commit(&self, changeset: Changeset) -> Pending<'_, Result<Committed, CommitError>> {
        self.inner.commit(changeset)
    }
    fn record<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        id: &'a Id,
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.inner.record(tenant, kind, id)
    }
    fn record_list<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        range: Range,
    ) -> Pending<'a, Result<Vec<IndexedRow>, ReadError>> {
        self.inner.record_list(tenant, kind, range)
    }
    fn record_unique<'a>(
        &'a self,
        tenant: &'a TenantId,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<Row>, ReadError>> {
        self.inner.record_unique(tenant, kind, name, key)
    }
    fn record_unique_anywhere<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        key: &'a [u8],
    ) -> Pending<'a, Result<Option<(TenantId, Row)>, ReadError>> {
        self.inner.record_unique_anywhere(kind, name, key)
    }
    fn outcome<'a>(
        &'a self,
        tenant: &'a TenantId,
        principal: &'a Id,
        act: &'a str,
        key: &'a str,
    ) -> Pending<'a, Result<Option<KeptOutcome>, ReadError>> {
        self.inner.outcome(tenant, principal, act, key)
    }
    fn blob<'a>(
        &'a self,
        tenant: &'a TenantId,
        digest: &'a Digest,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.inner.blob(tenant, digest)
    }
    fn jobs_claim(
        &self,
        kinds: &'static [&'static JobKind],
        limit: usize,
    ) -> Pending<'_, Result<Vec<Lease>, CommitError>> {
        self.inner.jobs_claim(kinds, limit)
    }
    fn job_renew<'a>(&'a self, lease: &'a Lease) -> Pending<'a, Result<bool, CommitError>> {
        self.inner.job_renew(lease)
    }
    fn jobs_next_due_ms(&self) -> Pending<'_, Result<Option<i64>, ReadError>> {
        self.inner.jobs_next_due_ms()
    }
    fn jobs<'a>(&'a self, tenant: &'a TenantId, limit: usize) -> Pending<'a, Result<Vec<JobRow>, ReadError>> {
        self.inner.jobs(tenant, limit)
    }
    fn tenants(&self) -> Pending<'_, Result<Vec<TenantId>, ReadError>> {
        self.inner.tenants()
    }
    fn leaves<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        self.inner.leaves(tenant, from, limit)
    }
    fn stream<'a>(
        &'a self,
        tenant: &'a TenantId,
        stream: &'a Id,
        from: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<LeafRow>, ReadError>> {
        self.inner.stream(tenant, stream, from, limit)
    }
    fn aside<'a>(
        &'a self,
        tenant: &'a TenantId,
        fact: &'a Id,
    ) -> Pending<'a, Result<Option<Vec<u8>>, ReadError>> {
        self.inner.aside(tenant, fact)
    }
    fn proof<'a>(
        &'a self,
        tenant: &'a TenantId,
        size: u64,
        indices: Vec<u64>,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        self.inner.proof(tenant, size, indices)
    }
    fn sequence(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.inner.sequence(limit)
    }
    fn checkpoints<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: u64,
        limit: usize,
    ) -> Pending<'a, Result<Vec<CheckpointRow>, ReadError>> {
        self.inner.checkpoints(tenant, after, limit)
    }
    fn checkpoint_last<'a>(
        &'a self,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<CheckpointRow>, ReadError>> {
        self.inner.checkpoint_last(tenant)
    }
    fn account<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
    ) -> Pending<'a, Result<Option<kernel::ledger::Account>, ReadError>> {
        self.inner.account(tenant, account)
    }

    fn accounts<'a>(
        &'a self,
        tenant: &'a TenantId,
        after: Option<&'a Id>,
        limit: usize,
    ) -> Pending<'a, Result<Vec<kernel::ledger::Account>, ReadError>> {
        self.inner.accounts(tenant, after, limit)
    }

    fn transfer<'a>(
        &'a self,
        tenant: &'a TenantId,
        transfer: &'a Id,
    ) -> Pending<'a, Result<Option<store::ledger::TransferRow>, ReadError>> {
        self.inner.transfer(tenant, transfer)
    }

    fn statement<'a>(
        &'a self,
        tenant: &'a TenantId,
        account: &'a Id,
        before: Option<u64>,
        limit: usize,
    ) -> Pending<'a, Result<Option<store::ledger::Statement>, ReadError>> {
        self.inner.statement(tenant, account, before, limit)
    }

    fn holds_expire(&self, limit: usize) -> Pending<'_, Result<usize, CommitError>> {
        self.inner.holds_expire(limit)
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }
}
