//! A house without products: people, the shipped policy with a few rules more, and the harness. Nothing runs that the
//! test does not run.

use access::bootstrap::{Bootstrap, bootstrap};
use act::{Assurance, Clock as _, Ctx, Domain, Fault, Principal, PrincipalKind, QueryCtx};
use futures::FutureExt as _;
use governor::Governor;
use governor::approval::{Approval, SETTLE};
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{Compiled, KeyRecord, KeyRing};
use harness::{Done, Harness, Terms};
use kernel::permit::{JobKind, permit_pair};
use kernel::{Id, Lease, TenantId};
use p256::ecdsa::SigningKey;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use store::sqlite::{Options, Sqlite};
use store::{Document as _, Sequencing, Store};
use tempfile::TempDir;
use testkit::{SeededIds, VirtualClock};

static KINDS: &[&JobKind] = &[&SETTLE];

/// Creating a principal waits as its name says: "one", "two" or "high". Giving a role waits for one.
const RULES: &str = r#"package writ

required := {"reason": "approval.test", "tier": 1, "approvals": 1} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "one")
}

required := {"reason": "approval.test", "tier": 1, "approvals": 2} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "two")
}

required := {"reason": "approval.test", "tier": 2, "approvals": 1} if {
	input.action == "access.principal.create"
	startswith(input.args.name, "high")
}

required := {"reason": "approval.test", "tier": 1, "approvals": 1} if input.action == "access.binding.create"
"#;

/// The house.
pub struct House {
    /// Carries out acts.
    pub harness: Harness,
    /// The time.
    pub clock: Arc<VirtualClock>,
    /// Where everything happens.
    pub tenant: TenantId,
    domains: Vec<Domain>,
    queue: Arc<Mutex<VecDeque<Lease>>>,
    keys: KeyRing,
    _folder: TempDir,
}

impl House {
    /// A house with Ann (tenant_admin, who asks), Bob (tenant_admin), Eve and Fay (approvers), Joe (operator).
    pub async fn new(seed: u64) -> House {
        House::with(seed, |_| ()).await
    }

    /// The same, with other tables of domains than the shipped ones.
    pub async fn with(seed: u64, change: impl FnOnce(&mut Vec<Domain>)) -> House {
        let folder = testkit::folder::fresh();
        let clock = Arc::new(VirtualClock::default());
        let ids = Arc::new(SeededIds::new(seed));
        let (mint, seal) = permit_pair();
        let engine = Sqlite::open(Options {
            folder: folder.path().join("store"),
            clock: clock.clone(),
            seal,
            installation: "test".into(),
            cell: "local".into(),
            sequencing: Sequencing::Immediate,
            page_count_max: None,
        })
        .unwrap();
        let store = Store::new(engine);
        let tenant = TenantId::parse("ten_acme").unwrap();
        let plan =
            Bootstrap { admin_secret_sha256: "0".repeat(64), tenant: tenant.clone(), cell: "local".into() };
        bootstrap(&store, &*ids, clock.now_ms(), &plan).await.unwrap();
        let key = *signing_key().verifying_key();
        let record = KeyRecord { scope: PLATFORM_SCOPE.into(), algorithm: Algorithm::Es256, key };
        let keys = KeyRing::from([("test".to_owned(), record)]);
        let governor = Governor::new(mint, "test", ids.clone(), keys.clone());
        let harness = Harness::new(store.clone(), governor.clone(), clock.clone(), ids, "local");
        let mut domains = vec![
            access::domain(&store, "local".into(), &governor.role_tables()),
            governor::domain(&governor, &store),
        ];
        change(&mut domains);
        harness.register(&domains);
        let queue: Arc<Mutex<VecDeque<Lease>>> = Arc::default();
        let handed = queue.clone();
        harness.workers_set(move |lease| handed.lock().unwrap().push_back(lease));
        let house = House { harness, clock, tenant, domains, queue, keys, _folder: folder };
        house.policy("package writ\n");
        let boss = house.as_if("prn_boss", PrincipalKind::Person, &["tenant_admin"]);
        for (name, roles) in [
            ("ann", &["tenant_admin"][..]),
            ("bob", &["tenant_admin"]),
            ("eve", &["approver"]),
            ("fay", &["approver"]),
            ("joe", &["operator"]),
        ] {
            let args = json!({"name": name, "kind": "person", "roles": roles});
            house.act(&boss, "access.principal.create", args).await.unwrap();
        }
        house.policy(RULES);
        house
    }

    /// Puts the shipped policy with more rules in force.
    pub fn policy(&self, rules: &str) {
        let (mut manifest, mut files) = platform_sources().unwrap();
        manifest.metadata.seq = 1;
        manifest.metadata.not_after_ms = self.clock.now_ms() + 365 * 86_400_000;
        files.insert("more.rego".into(), rules.as_bytes().to_vec());
        let bundle = bundle_build(&manifest, &files).unwrap();
        let signed = bundle_sign(&bundle, "test", PLATFORM_SCOPE, &signing_key()).unwrap();
        let opened = bundle_open(&signed, &self.keys, PLATFORM_SCOPE).unwrap();
        self.harness.governor().platform_install(Compiled::new(&opened).unwrap());
    }

    /// Now, milliseconds UTC.
    pub fn clock_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// A context for anybody.
    pub fn as_if(&self, id: &str, kind: PrincipalKind, roles: &[&str]) -> Ctx {
        Ctx {
            tenant: self.tenant.clone(),
            principal: Principal {
                id: Id::parse(id).unwrap(),
                kind,
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                home: self.tenant.clone(),
                rights: Default::default(),
            },
            on_behalf_of: Vec::new(),
            assurance: Assurance {
                method: "key".into(),
                level: 1,
                at_ms: self.clock.now_ms(),
                until_ms: None,
            },
            trace: "trc_test".into(),
            idempotency_key: None,
            requested_at_ms: self.clock.now_ms(),
        }
    }

    /// A principal as it stands in the records now, as any key of theirs would make them known.
    pub async fn person(&self, name: &str) -> Ctx {
        let key = store::key::Key::new().text(name).bytes();
        let store = self.harness.store();
        let kind = access::principal::PrincipalDoc::KIND;
        let row = store.record_unique(&self.tenant, kind, "name", &key).await.unwrap().expect("a person");
        let doc = store::decode::<access::principal::PrincipalDoc>(&row).unwrap().doc;
        let (tenant, now_ms) = (&self.tenant, self.clock.now_ms());
        let known = access::rights::resolve(store, tenant, tenant, &doc, Default::default(), now_ms).await;
        let ctx = self.as_if(doc.id.as_str(), doc.kind, &[]);
        Ctx { principal: known.unwrap(), ..ctx }
    }

    /// Somebody of the platform's own tenant, acting there.
    pub async fn of_platform(&self, name: &str) -> Ctx {
        let platform = TenantId::platform();
        let key = store::key::Key::new().text(name).bytes();
        let store = self.harness.store();
        let kind = access::principal::PrincipalDoc::KIND;
        let row = store.record_unique(&platform, kind, "name", &key).await.unwrap().expect("a person");
        let doc = store::decode::<access::principal::PrincipalDoc>(&row).unwrap().doc;
        let known = access::rights::resolve(
            store,
            &platform,
            &platform,
            &doc,
            Default::default(),
            self.clock.now_ms(),
        );
        let ctx = self.as_if(doc.id.as_str(), doc.kind, &[]);
        Ctx { tenant: platform.clone(), principal: known.await.unwrap(), ..ctx }
    }

    /// Carries out an act; what it held goes into the queue.
    pub async fn act(&self, ctx: &Ctx, act: &str, args: Value) -> Result<Value, Fault> {
        match self.harness.act(ctx, act, args, Terms::default()).await? {
            Done::Outcome { value, held, .. } => {
                self.queue.lock().unwrap().extend(held);
                Ok(value)
            }
            Done::Waiting { approval, .. } => Ok(json!({"waits": approval})),
        }
    }

    /// Ann asks for a principal of this name; the approval that it waits for.
    pub async fn asked(&self, name: &str) -> Id {
        let ann = self.person("ann").await;
        let args = json!({"name": name, "kind": "person", "roles": []});
        let answer = self.act(&ann, "access.principal.create", args).await.unwrap();
        Id::parse(answer["waits"].as_str().expect("it waits")).unwrap()
    }

    /// Somebody who administers the tenant and whom nobody can remove.
    pub fn boss(&self) -> Ctx {
        self.as_if("prn_boss", PrincipalKind::Person, &["tenant_admin"])
    }

    /// The record of a principal.
    pub async fn record(&self, id: &Id) -> access::principal::PrincipalDoc {
        let kind = access::principal::PrincipalDoc::KIND;
        let row = self.harness.store().record(&self.tenant, kind, id).await.unwrap().unwrap();
        store::decode(&row).unwrap().doc
    }

    /// Sets roles in the whole tenant past every approval, as the policy of another day would let somebody do.
    pub async fn roles(&self, name: &str, roles: &[&str]) {
        self.policy("package writ\n");
        let id = self.person(name).await.principal.id;
        let had = self.record(&id).await.bindings;
        for role in roles.iter().filter(|role| had.iter().all(|binding| binding.role != **role)) {
            let args = json!({"principal": id, "role": role});
            self.act(&self.boss(), "access.binding.create", args).await.unwrap();
        }
        for binding in had.iter().filter(|binding| !roles.contains(&binding.role.as_str())) {
            self.act(&self.boss(), "access.binding.remove", json!({"binding": binding.id})).await.unwrap();
        }
        self.policy(RULES);
    }

    /// The approval.
    pub async fn approval(&self, id: &Id) -> Approval {
        let row = self.harness.store().record(&self.tenant, Approval::KIND, id).await.unwrap().unwrap();
        store::decode::<Approval>(&row).unwrap().doc
    }

    /// Its status.
    pub async fn status(&self, id: &Id) -> &'static str {
        self.approval(id).await.status.as_str()
    }

    /// Grants what the approval shows.
    pub async fn grant(&self, who: &Ctx, id: &Id) -> Result<Value, Fault> {
        let digest = self.approval(id).await.preview_digest;
        self.act(who, "governor.approval.grant", json!({"approval": id, "preview_digest": digest})).await
    }

    /// Grants it under a delegation.
    pub async fn grant_for(&self, who: &Ctx, id: &Id, delegation: &str) -> Result<Value, Fault> {
        let digest = self.approval(id).await.preview_digest;
        let args = json!({"approval": id, "preview_digest": digest, "delegation": delegation});
        self.act(who, "governor.approval.grant", args).await
    }

    /// Denies it.
    pub async fn deny(&self, who: &Ctx, id: &Id) -> Result<Value, Fault> {
        self.act(who, "governor.approval.deny", json!({"approval": id, "reason": "no"})).await
    }

    /// Runs what is due until nothing is.
    pub async fn work(&self) {
        let spec = self.harness.jobs().remove(0);
        loop {
            let queued = self.queue.lock().unwrap().pop_front();
            let lease = match queued {
                Some(lease) => Some(lease),
                None => self.harness.store().jobs_claim(KINDS, 1).await.unwrap().pop(),
            };
            let Some(lease) = lease else { return };
            (spec.run)(lease).await;
        }
    }

    /// The facts of a stream.
    pub async fn facts(&self, stream: &Id) -> Vec<Value> {
        let leaves = self.harness.store().stream(&self.tenant, stream, 1, 200).await.unwrap();
        leaves.iter().map(|leaf| serde_json::from_slice(&leaf.leaf).unwrap()).collect()
    }

    /// The kinds of the facts of a stream.
    pub async fn kinds(&self, stream: &Id) -> Vec<String> {
        self.facts(stream).await.iter().map(|fact| fact["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether a principal of this name is there.
    pub async fn exists(&self, name: &str) -> bool {
        let key = store::key::Key::new().text(name).bytes();
        let kind = access::principal::PrincipalDoc::KIND;
        self.harness.store().record_unique(&self.tenant, kind, "name", &key).await.unwrap().is_some()
    }

    /// A project of this name, in a workspace of its own.
    pub async fn project(&self, name: &str) {
        let workspace = json!({"name": format!("for-{name}"), "environment": "production"});
        self.act(&self.boss(), "access.workspace.create", workspace).await.unwrap();
        let project = json!({"name": name, "workspace": format!("for-{name}")});
        self.act(&self.boss(), "access.project.create", project).await.unwrap();
    }

    /// What a read answers.
    pub async fn read(&self, who: &Ctx, operation: &str, params: &[(&str, &str)]) -> Result<Value, Fault> {
        self.read_in(&self.tenant, who, operation, params).await
    }

    /// What a read in this tenant answers.
    pub async fn read_in(
        &self,
        tenant: &TenantId,
        who: &Ctx,
        operation: &str,
        params: &[(&str, &str)],
    ) -> Result<Value, Fault> {
        let routes = self.domains.iter().flat_map(|domain| &domain.routes);
        let route = routes.into_iter().find(|route| route.operation == operation).expect("a route");
        let act::Call::Query(_, query) = &route.call else { panic!("{operation} is no read") };
        let params: BTreeMap<String, String> =
            params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ctx = Ctx { requested_at_ms: self.clock.now_ms(), ..who.clone() };
        let view = self.harness.store().view(tenant, ctx.requested_at_ms);
        query(QueryCtx { ctx: &ctx, view: &view, params: &params }).boxed().await
    }
}

fn signing_key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}
