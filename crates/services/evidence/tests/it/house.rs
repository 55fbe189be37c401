//! A store with tenants whose facts a test states, and a stand-in for the harness that runs a verb's plan and commits it.

use crate::workshop::{ours, signing};
use act::{Assurance, Ctx, Ids as _, Plan, Principal, PrincipalKind, QueryCtx, Stamp, Verb};
use evidence::{Config, Disclosure, Evidence};
use kernel::changeset::Operation;
use kernel::permit::{Authority, Decision, Mint, permit_pair};
use kernel::{Changeset, Draft, Effect, Fact, Grant, Id, TenantId, commitment, hex};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store};
use testkit::{SeededIds, VirtualClock};

pub use crate::workshop::id;

pub fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

pub struct House {
    pub folder: tempfile::TempDir,
    pub store: Store,
    pub evidence: Evidence,
    pub clock: Arc<VirtualClock>,
    ids: Arc<SeededIds>,
    mint: Mint,
}

/// A fact that a test states.
#[derive(Default)]
pub struct Says {
    pub causes: Vec<Id>,
    pub args: Option<Value>,
    /// Without the side row that would open it.
    pub erased: bool,
    pub policies: Vec<&'static [u8]>,
}

/// An act as a product would declare it.
fn verb() -> Verb {
    Verb {
        act: "test.thing.do",
        summary: "Does a thing",
        args: || {
            json!({"type": "object", "properties": {
                "number": {"type": "string"},
                "caller": {"type": "string", "x-data": "personal"},
                "text": {"anyOf": [{"type": "string", "x-data": "content"}, {"type": "null"}]},
            }})
        },
        writes: &[],
        facts: &["test.done"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|_, _, _| unreachable!("only its schema is looked at")),
        plan: Arc::new(|_, _, _| unreachable!("only its schema is looked at")),
    }
}

impl House {
    /// A store with the tenants `ten_platform`, `ten_a` and `ten_b`.
    pub async fn new() -> House {
        House::of(Sequencing::Immediate).await
    }

    /// A house whose facts get their places in the log at once, or later.
    pub async fn of(sequencing: Sequencing) -> House {
        let folder = testkit::folder::fresh();
        let (mint, seal) = permit_pair();
        let clock = Arc::new(VirtualClock::default());
        let engine = Sqlite::open(Options {
            folder: folder.path().join("db"),
            clock: clock.clone(),
            seal,
            installation: "writ.test".into(),
            cell: "local".into(),
            sequencing,
            page_count_max: None,
        });
        let store = Store::new(engine.unwrap());
        let evidence = Evidence::new(Config {
            installation: "writ.test".into(),
            folder: folder.path().join("evidence"),
            signing: ours(),
            disclosure: Disclosure::of([&verb()]),
        });
        let house = House { folder, store, evidence, clock, ids: Arc::new(SeededIds::new(1)), mint };
        for name in ["ten_platform", "ten_a", "ten_b"] {
            let mut draft = Draft::at(house.now_ms());
            draft.fact(house.plain(name, &[]));
            let genesis = Changeset::genesis(tenant(name), authority("test.genesis", None), draft);
            house.store.commit(genesis.unwrap()).await.unwrap();
        }
        house
    }

    pub fn now_ms(&self) -> i64 {
        store::Clock::now_ms(&*self.clock)
    }

    /// Evidence of somebody with other keys.
    pub fn stranger(&self) -> Evidence {
        Evidence::new(Config {
            installation: "writ.test".into(),
            folder: self.folder.path().join("evidence"),
            signing: signing(5, 6),
            disclosure: Disclosure::nothing(),
        })
    }

    fn plain(&self, stream: &str, causes: &[Id]) -> Fact {
        Fact {
            id: self.ids.id("fct", self.now_ms()),
            kind: "test.done",
            stream: id(stream),
            resource: "local/ten_a/test.thing/x".into(),
            causes: causes.to_vec(),
            outcome: json!({"cost_micros": 5}),
            aside: None,
        }
    }

    /// States a fact a millisecond later and returns its id.
    pub async fn fact(&self, name: &str, stream: &str, says: Says) -> Id {
        self.clock.advance_ms(1);
        let mut fact = self.plain(stream, &says.causes);
        let seed = self.ids.entropy();
        let commitment = says.args.as_ref().map(|args| commitment::commit(&seed, args).unwrap());
        if let Some(args) = says.args.filter(|_| !says.erased) {
            fact.aside = Some(json!({"seed": hex::encode(&seed), "args": args}).to_string().into_bytes());
        }
        let digests: Vec<String> =
            says.policies.iter().map(|bytes| hex::encode(&kernel::sha256(bytes))).collect();
        let policy = (!digests.is_empty()).then(|| digests.join("+"));
        let fact_id = fact.id.clone();
        let mut draft = Draft::at(self.now_ms());
        draft.fact(fact);
        let permit = self.permit(name, authority("test.thing.do", policy), commitment, &[], &["test.done"]);
        self.store.commit(Changeset::under(vec![permit], draft).unwrap()).await.unwrap();
        fact_id
    }

    /// Keeps bytes as a blob of a tenant.
    pub async fn blob(&self, name: &str, bytes: &[u8]) {
        let mut draft = Draft::at(self.now_ms());
        draft.fact(self.plain("pol_current", &[]));
        draft.push(Operation::Blob { digest: kernel::sha256(bytes), bytes: bytes.to_vec() });
        let permit = self.permit(name, authority("test.thing.do", None), None, &[], &["test.done"]);
        self.store.commit(Changeset::under(vec![permit], draft).unwrap()).await.unwrap();
    }

    fn permit(
        &self,
        name: &str,
        authority: Authority,
        args_commitment: Option<kernel::Digest>,
        writes: &'static [&'static str],
        facts: &'static [&'static str],
    ) -> kernel::Permit {
        self.mint.permit(Grant {
            tenant: tenant(name),
            authority,
            args_digest: [0; 32],
            args_commitment,
            approvals: vec![],
            writes,
            facts,
            expires_at_ms: i64::MAX,
        })
    }

    fn ctx(&self, name: &str) -> Ctx {
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

    /// Runs `evidence.bundle.export` as the harness would once it was allowed.
    pub async fn export(&self, name: &str, args: Value) -> Result<Value, act::Fault> {
        self.clock.advance_ms(1);
        let domain = evidence::domain(&self.evidence);
        let verb = domain.verbs.iter().find(|verb| verb.act == "evidence.bundle.export").unwrap();
        let view = self.store.view(&tenant(name), self.now_ms());
        (verb.aim)(&view, &args, &self.ctx(name)).await?;
        let stamp = Stamp {
            ctx: self.ctx(name),
            at_ms: self.now_ms(),
            cell: "local".into(),
            ids: self.ids.clone(),
            approvals: vec![],
        };
        let Plan { draft, outcome } = (verb.plan)(&view, &args, &stamp).await?;
        let permit = self.permit(name, authority(verb.act, None), None, verb.writes, verb.facts);
        self.store.commit(Changeset::under(vec![permit], draft).unwrap()).await?;
        Ok(outcome)
    }

    /// Runs the query behind an operation.
    pub async fn query(
        &self,
        name: &str,
        operation: &str,
        params: &[(&str, &str)],
    ) -> Result<Value, act::Fault> {
        let domain = evidence::domain(&self.evidence);
        let route = domain.routes.iter().find(|route| route.operation == operation).unwrap();
        let act::Call::Query(_, query) = &route.call else { panic!("{operation} is no query") };
        let params: BTreeMap<String, String> =
            params.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let view = self.store.view(&tenant(name), self.now_ms());
        query(QueryCtx { ctx: &self.ctx(name), view: &view, params: &params }).await
    }

    /// The file of an exported bundle.
    pub fn file(&self, digest: &str) -> PathBuf {
        self.evidence.path(&hex::decode32(digest).unwrap())
    }
}

fn authority(act: &str, policy: Option<String>) -> Authority {
    Authority {
        actor: id("prn_a"),
        on_behalf_of: vec![],
        act: act.into(),
        decision: Some(Decision { id: id("dec_a"), effect: Effect::Allow }),
        policy,
        assurance: None,
        trace: "t".into(),
    }
}
