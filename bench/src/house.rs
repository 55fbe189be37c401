//! A house as small as a governed commit allows: store, governor with the default platform policy, harness, one verb.

use act::{Assurance, Ctx, Domain, Draw as _, Ids, Plan, Principal, PrincipalKind, SystemIds, Target, Verb};
use futures::FutureExt as _;
use governor::Governor;
use governor::policy::{Compiled, bundle, defaults};
use harness::Harness;
use kernel::changeset::{Changeset, Draft};
use kernel::permit::Authority;
use kernel::{Fact, Id, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use store::sqlite::{Options, Sqlite};
use store::{Document, Store, SystemClock};

/// The record that the verb writes: about as large as a small document.
#[derive(Serialize, Deserialize)]
pub struct Item {
    /// Its id.
    pub id: Id,
    /// Some text.
    pub note: String,
    /// Where it stands, for [`crate::growth`]; the items of the other figures stand nowhere and have no index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shelf: Option<u64>,
}

/// The index of items by shelf.
pub const SHELF: &str = "shelf";
/// How many shelves there are.
const SHELVES: u64 = 100;

/// The index key of a shelf; any number is one of them.
pub fn shelf_key(n: u64) -> Vec<u8> {
    store::key::Key::new().integer((n % SHELVES) as i64).bytes()
}

impl Document for Item {
    const KIND: &'static str = "flows.item";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        self.shelf.map(|shelf| (SHELF, shelf_key(shelf))).into_iter().collect()
    }
}

/// The default platform policy, signed with a key of this run.
pub fn policy() -> Compiled {
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a valid scalar");
    let (manifest, files) = defaults::platform_sources().expect("constants of the build");
    let unsigned = bundle::bundle_build(&manifest, &files).expect("the sources fit");
    let signed = bundle::bundle_sign(&unsigned, "bench", defaults::PLATFORM_SCOPE, &key).expect("it signs");
    let record = governor::policy::KeyRecord {
        scope: defaults::PLATFORM_SCOPE.to_owned(),
        algorithm: bundle::Algorithm::Es256,
        key: *key.verifying_key(),
    };
    let keys = governor::policy::KeyRing::from([("bench".to_owned(), record)]);
    let opened = bundle::bundle_open(&signed, &keys, defaults::PLATFORM_SCOPE).expect("it opens");
    Compiled::new(&opened).expect("it compiles")
}

/// A builder's context.
pub fn ctx(tenant: &TenantId) -> Ctx {
    Ctx {
        tenant: tenant.clone(),
        principal: Principal {
            id: Id::parse("prn_bench").expect("a constant id"),
            kind: PrincipalKind::Person,
            roles: vec!["builder".into()],
            home: tenant.clone(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "key".into(), level: 0, at_ms: 0, until_ms: None },
        trace: "trc_bench".into(),
        idempotency_key: None,
        requested_at_ms: 0,
    }
}

/// The verb: one new record, one fact, or `count` of each on shelves. It bears the name of an act that the default policy knows.
pub fn verb() -> Verb {
    Verb {
        act: "flows.run.start",
        summary: "Puts an item",
        args: || json!({}),
        writes: &["flows.item"],
        facts: &["flows.item.put"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, _, ctx| async move { Ok(Target::of("flows.item", ctx.tenant.id())) }.boxed()),
        plan: Arc::new(|_, args, stamp| {
            async move {
                let count = args["count"].as_u64();
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({}) };
                for n in 0..count.unwrap_or(1) {
                    let note = args["note"].as_str().unwrap_or_default().to_owned();
                    let id = stamp.id("itm");
                    let shelf = count.map(|_| n + stamp.at_ms.unsigned_abs());
                    let item = Item { id, note, shelf };
                    plan.outcome["item"] = json!(item.id);
                    plan.draft.put_new(&item).fact(stamp.fact(
                        "flows.item.put",
                        &item.id,
                        ("flows.item", &item.id),
                        json!({"bytes": item.note.len()}),
                    ));
                }
                Ok(plan)
            }
            .boxed()
        }),
    }
}

/// A harness on a fresh store in `folder`, and its tenant.
pub async fn harness(folder: &Path) -> (Harness, TenantId) {
    let (mint, seal) = kernel::permit::permit_pair();
    let engine = Sqlite::open(options(folder, seal)).expect("a fresh store opens");
    let store = Store::new(engine);
    let ids: Arc<dyn Ids> = Arc::new(SystemIds);
    let governor = Governor::new(mint, "bench", ids.clone(), Default::default());
    governor.platform_install(policy());
    let tenant = TenantId::parse("ten_bench").expect("a constant id");
    let authority = Authority {
        actor: Id::parse("prn_bench").expect("a constant id"),
        on_behalf_of: Vec::new(),
        act: "access.tenant.create".into(),
        decision: None,
        policy: None,
        assurance: None,
        trace: String::new(),
    };
    let mut draft = Draft::at(1);
    draft.fact(Fact {
        id: Id::parse("fct_genesis").expect("a constant id"),
        kind: "access.tenant.opened",
        stream: tenant.id().clone(),
        resource: "bench".into(),
        causes: Vec::new(),
        outcome: json!({}),
        aside: None,
    });
    let genesis = Changeset::genesis(tenant.clone(), authority, draft).expect("it fits");
    store.commit(genesis).await.expect("a fresh store takes a genesis");
    let harness = Harness::new(store, governor, Arc::new(SystemClock), ids, "bench");
    harness.register(&[Domain { name: "flows", verbs: vec![verb()], ..Domain::default() }]);
    (harness, tenant)
}

fn options(folder: &Path, seal: kernel::Seal) -> Options {
    Options {
        folder: folder.to_owned(),
        clock: Arc::new(SystemClock),
        seal,
        installation: "bench.example".into(),
        cell: "bench".into(),
        sequencing: store::Sequencing::Immediate,
        page_count_max: None,
    }
}
