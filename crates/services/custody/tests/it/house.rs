//! A store with one tenant, and a stand-in for the harness that runs a verb's plan and commits it.

use act::{Assurance, Ctx, Ids, Plan, Principal, PrincipalKind, QueryCtx, Stamp};
use custody::{Custody, Keyring};
use kernel::permit::{Authority, Mint, permit_pair};
use kernel::{Changeset, Draft, Fact, Grant, Id, TenantId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store, SystemClock};

/// Ids and entropy that never repeat and are the same in every run.
#[derive(Default)]
pub struct Counting(AtomicU8);

impl Ids for Counting {
    fn uuid(&self, at_ms: i64) -> uuid::Uuid {
        let [random @ .., _] = self.entropy();
        let mut ten = [0; 10];
        ten.copy_from_slice(&random[..10]);
        uuid::Builder::from_unix_timestamp_millis(at_ms as u64, &ten).into_uuid()
    }
    fn entropy(&self) -> [u8; 32] {
        [self.0.fetch_add(1, Ordering::Relaxed) + 1; 32]
    }
}

pub fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

pub fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

pub struct House {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub custody: Custody,
    ids: Arc<Counting>,
    mint: Mint,
}

impl House {
    /// A store with the tenants `ten_a` and `ten_b`.
    pub async fn new() -> House {
        let folder = tempfile::tempdir().unwrap();
        let (mint, seal) = permit_pair();
        let ids = Arc::new(Counting::default());
        let store = Store::new(
            Sqlite::open(Options {
                folder: folder.path().join("db"),
                clock: Arc::new(SystemClock),
                seal,
                installation: "writ.test".into(),
                cell: "local".into(),
                sequencing: Sequencing::Immediate,
                page_count_max: None,
            })
            .unwrap(),
        );
        for name in ["ten_a", "ten_b"] {
            let mut draft = Draft::at(1);
            draft.fact(Fact {
                id: ids.id("fct", 1),
                kind: "test.opened",
                stream: id(name),
                resource: "r".into(),
                causes: vec![],
                outcome: json!({}),
                aside: None,
            });
            store.commit(Changeset::genesis(tenant(name), authority("test"), draft).unwrap()).await.unwrap();
        }
        let keyring = Keyring::open_or_create(&folder.path().join("keys"), &*ids, 1).unwrap();
        House { custody: Custody::new(Arc::new(keyring)), folder, store, ids, mint }
    }

    pub fn ctx(&self, name: &str) -> Ctx {
        Ctx {
            tenant: tenant(name),
            principal: Principal {
                id: id("prn_a"),
                kind: PrincipalKind::Person,
                roles: vec![],
                home: tenant(name),
                rights: Default::default(),
            },
            on_behalf_of: vec![],
            assurance: Assurance { method: "key".into(), level: 0, at_ms: 1, until_ms: None },
            trace: "t".into(),
            idempotency_key: None,
            requested_at_ms: 1,
        }
    }

    /// Runs a verb as the harness would once it was allowed, and returns what the caller is told.
    pub async fn act(&self, name: &str, act: &str, args: Value) -> Result<Value, act::Fault> {
        let domain = custody::domain(&self.custody);
        let verb = domain.verbs.iter().find(|verb| verb.act == act).unwrap();
        let view = self.store.view(&tenant(name), 1);
        (verb.aim)(&view, &args, &self.ctx(name)).await?;
        let stamp = Stamp {
            ctx: self.ctx(name),
            at_ms: 7,
            cell: "local".into(),
            ids: self.ids.clone(),
            approvals: vec![],
        };
        let Plan { draft, outcome } = (verb.plan)(&view, &args, &stamp).await?;
        let permit = self.permit(name, act, verb.writes, verb.facts);
        self.store.commit(Changeset::under(vec![permit], draft).unwrap()).await?;
        Ok(outcome)
    }

    /// Overwrites a secret's record as somebody would who can write to the database.
    pub async fn forge(&self, name: &str, doc: &Value) {
        let record = id(doc["id"].as_str().unwrap());
        let rev = self.store.record(&tenant(name), "custody.secret", &record).await.unwrap().unwrap().rev;
        let mut draft = Draft::at(1);
        draft.push(kernel::changeset::Operation::Put(kernel::changeset::Put {
            kind: "custody.secret",
            id: record.clone(),
            rev: Some(rev),
            body: serde_json::to_vec(&json!({"v": 1, "doc": doc})).unwrap(),
            indexes: vec![],
            uniques: vec![],
        }));
        draft.fact(self.fact("custody.secret.stored", &record));
        let permit = self.permit(name, "custody.secret.put", &["custody.secret"], &["custody.secret.stored"]);
        self.store.commit(Changeset::under(vec![permit], draft).unwrap()).await.unwrap();
    }

    fn fact(&self, kind: &'static str, stream: &Id) -> Fact {
        Fact {
            id: self.ids.id("fct", 1),
            kind,
            stream: stream.clone(),
            resource: "r".into(),
            causes: vec![],
            outcome: json!({}),
            aside: None,
        }
    }

    fn permit(
        &self,
        name: &str,
        act: &str,
        writes: &'static [&'static str],
        facts: &'static [&'static str],
    ) -> kernel::Permit {
        self.mint.permit(Grant {
            tenant: tenant(name),
            authority: authority(act),
            args_digest: [0; 32],
            args_commitment: None,
            approvals: vec![],
            writes,
            facts,
            expires_at_ms: i64::MAX,
        })
    }

    /// Runs the query behind an operation.
    pub async fn query(
        &self,
        name: &str,
        operation: &str,
        params: &[(&str, &str)],
    ) -> Result<Value, act::Fault> {
        let domain = custody::domain(&self.custody);
        let route = domain.routes.iter().find(|route| route.operation == operation).unwrap();
        let act::Call::Query(_, query) = &route.call else { panic!("{operation} is no query") };
        let params: BTreeMap<String, String> =
            params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let view = self.store.view(&tenant(name), 1);
        query(QueryCtx { ctx: &self.ctx(name), view: &view, params: &params }).await
    }
}

fn authority(act: &str) -> Authority {
    Authority {
        actor: id("prn_a"),
        on_behalf_of: vec![],
        act: act.into(),
        decision: None,
        policy: None,
        assurance: None,
        trace: "t".into(),
    }
}
