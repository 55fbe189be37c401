//! The checkpoint worker's step, before an honest store and before one that lies.

use crate::house::{House, Says, tenant};
use crate::workshop::ours;
use act::Coded as _;
use evidence::{SealError, Sealed, checkpoint_seal};
use futures::FutureExt as _;
use kernel::note::{Checkpoint, VerifierKey};
use kernel::{Digest, TenantId, merkle};
use store::{CommitError, Engine, Head, Pending, ReadError, Store};
use testkit::around::{Around, Hook};

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

/// Many who seal at once, while the log grows under them: every checkpoint that is kept is of another size than all others,
/// says what the log says at that size, and continues the one before. There are never two roots of one size.
#[tokio::test]
async fn g03_many_at_once_never_sign_two_roots_of_one_size() {
    let house = House::new().await;
    let a = tenant("ten_a");
    let all = futures::future::join_all((0..16).map(|_| house.evidence.seal(&house.store, &a))).await;
    let rows: Vec<_> = all.into_iter().map(|sealed| sealed.unwrap().newest().unwrap()).collect();
    assert!(rows.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(house.store.checkpoints(&a, 0, 10).await.unwrap().len(), 1);
    let grows = async {
        for _ in 0..40 {
            house.fact("ten_a", "run_1", Says::default()).await;
        }
    };
    let seals = futures::future::join_all((0..8).map(|_| async {
        let mut given = Vec::new();
        for _ in 0..20 {
            match house.evidence.seal(&house.store, &a).await {
                Ok(sealed) => given.extend(sealed.newest()),
                // Others were faster, as often as it tries.
                Err(error) => assert_eq!(error.code(), "evidence.checkpoint_refused"),
            }
            tokio::task::yield_now().await;
        }
        given
    }));
    let ((), given) = tokio::join!(grows, seals);
    house.evidence.seal(&house.store, &a).await.unwrap();
    let kept = house.store.checkpoints(&a, 0, 200).await.unwrap();
    assert!(kept.windows(2).all(|pair| pair[0].size < pair[1].size));
    assert!(given.concat().iter().all(|row| kept.contains(row)), "nobody holds one that was not kept");
    let head = house.store.head(&a).await.unwrap().unwrap();
    let key = VerifierKey::new(&head.origin, ours().log_key).unwrap();
    let opened: Vec<Checkpoint> = kept.iter().map(|row| Checkpoint::open(&row.note, &key).unwrap()).collect();
    for checkpoint in &opened {
        let proof = house.store.consistency(&a, checkpoint.size, head.size).await.unwrap();
        let continues =
            merkle::consistency_verify(checkpoint.size, &checkpoint.root, head.size, &head.root, &proof);
        assert!(continues, "{checkpoint:?}");
    }
    // Whoever comes late with another root for a size that is signed is refused by the store itself.
    let late = Checkpoint { root: [7; 32], ..opened[0].clone() };
    for late in [late.clone(), Checkpoint { size: head.size, ..late }] {
        let note = (ours().checkpoint)(&late).unwrap();
        assert!(!house.store.checkpoint_put(&a, late, note).await.unwrap());
    }
    assert_eq!(house.store.checkpoints(&a, 0, 200).await.unwrap(), kept);
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
        let store = Store::new(Around::new(house.store.clone(), lies));
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

/// A store that lies.
impl Hook for Lies {
    fn head<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
    ) -> Pending<'a, Result<Option<Head>, ReadError>> {
        match &self.head {
            Some(head) => std::future::ready(Ok(head.clone())).boxed(),
            None => inner.head(tenant),
        }
    }

    fn consistency<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        old: u64,
        new: u64,
    ) -> Pending<'a, Result<Vec<Digest>, ReadError>> {
        match &self.consistency {
            Some(proof) => std::future::ready(Ok(proof.clone())).boxed(),
            None => inner.consistency(tenant, old, new),
        }
    }

    fn checkpoint_put<'a>(
        &'a self,
        inner: &'a dyn Engine,
        tenant: &'a TenantId,
        checkpoint: Checkpoint,
        note: String,
    ) -> Pending<'a, Result<bool, CommitError>> {
        match self.refuses {
            true => std::future::ready(Ok(false)).boxed(),
            false => inner.checkpoint_put(tenant, checkpoint, note),
        }
    }
}
