//! A whole house around the workflows: store, governor with the shipped policy, harness, secrets, the way out, and a model
//! that answers what it is told. Time stands still until the test moves it, and nothing runs that the test does not run.

use crate::desk::Desk;
use crate::mortal::{Fate, Mortal};
use access::bootstrap::{Bootstrap, bootstrap};
use act::{Assurance, Clock as _, Ctx, Domain, Fault, Principal, PrincipalKind};
use contracts::models::{Cost, ModelCall, ModelCalls, ModelFault, ModelReply};
use custody::{Custody, Keyring};
use egress::{Egress, EgressConfig};
use flows::connector::poll::POLL;
use flows::run::{JOIN, RunDoc, STEP};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use governor::Governor;
use governor::approval::{Approval, SETTLE};
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{Compiled, KeyRecord, KeyRing};
use harness::{Done, Harness, Terms};
use kernel::permit::{JobKind, permit_pair};
use kernel::{Id, Lease, TenantId};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use store::sqlite::{Options, Sqlite};
use store::{Document as _, Sequencing, Store};
use tempfile::TempDir;
use testkit::around::Around;
use testkit::{SeededIds, VirtualClock};

/// The signing secret of the hook.
pub const HOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
static KINDS: &[&JobKind] = &[&STEP, &JOIN, &POLL, &SETTLE];

/// Answers of the model: scripted ones first, then the same for ever.
pub struct Model {
    /// What it says next.
    pub script: Mutex<VecDeque<Result<Value, Fault>>>,
    /// What it was asked.
    pub calls: Mutex<Vec<ModelCall>>,
    ids: Arc<SeededIds>,
}

impl Model {
    /// The keys it was asked under.
    pub fn keys(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|call| call.key.clone()).collect()
    }
}

impl ModelCalls for Model {
    fn model_call<'a>(
        &'a self,
        _: &'a Ctx,
        call: ModelCall,
    ) -> BoxFuture<'a, Result<ModelReply, ModelFault>> {
        async move {
            self.calls.lock().unwrap().push(call);
            // Gives way once, so that a killed process can die while it waits.
            tokio::task::yield_now().await;
            let scripted = self.script.lock().unwrap().pop_front();
            let usual = json!({"assignment_group": "Network", "summary": "No network.", "confidence": 900});
            let body = scripted.unwrap_or(Ok(usual));
            // Who fails may have been paid all the same, and nobody has measured that.
            let cost = Cost { cost_micros: 3, unmeasured_micros: 50 };
            Ok(ModelReply {
                body: body.map_err(|fault| ModelFault { fault, cost })?,
                model: "tfidf-1".into(),
                fact: Id::mint("fct", self.ids.next_uuid()),
                cost: Cost { cost_micros: 7, unmeasured_micros: 0 },
                input_tokens: None,
                output_tokens: None,
            })
        }
        .boxed()
    }
}

/// The house.
pub struct House {
    pub harness: Harness,
    pub clock: Arc<VirtualClock>,
    pub model: Arc<Model>,
    pub domain: Domain,
    pub tenant: TenantId,
    pub queue: Arc<Mutex<VecDeque<Lease>>>,
    specs: Vec<act::JobSpec>,
    /// When the process dies.
    pub fate: Arc<Fate>,
    _folder: TempDir,
}

/// A person of a tenant.
pub fn person(house: &House, name: &str, roles: &[&str]) -> Ctx {
    Ctx {
        tenant: house.tenant.clone(),
        principal: Principal {
            id: Id::parse(&format!("prn_{name}")).unwrap(),
            kind: PrincipalKind::Person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            home: house.tenant.clone(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "key".into(), level: 1, at_ms: house.clock.now_ms(), until_ms: None },
        trace: "trc_test".into(),
        idempotency_key: None,
        requested_at_ms: house.clock.now_ms(),
    }
}

impl House {
    /// A house with nothing installed in it.
    pub async fn empty(seed: u64) -> House {
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
        let fate = Arc::new(Fate::default());
        fate.spared();
        let store = Store::new(Around::new(Store::new(engine), Mortal(fate.clone())));
        let tenant = TenantId::parse("ten_acme").unwrap();
        let plan =
            Bootstrap { admin_secret_sha256: "0".repeat(64), tenant: tenant.clone(), cell: "local".into() };
        bootstrap(&store, &*ids, clock.now_ms(), &plan).await.unwrap();
        let keyring =
            Arc::new(Keyring::open_or_create(&folder.path().join("keys"), &*ids, clock.now_ms()).unwrap());
        let custody = Custody::new(keyring.clone());
        let key = *keyring.policy_key().verifying_key();
        let record = KeyRecord { scope: PLATFORM_SCOPE.into(), algorithm: Algorithm::Es256, key };
        let keys = KeyRing::from([("test".to_owned(), record)]);
        let (mut manifest, files) = platform_sources().unwrap();
        manifest.metadata.seq = 1;
        manifest.metadata.not_after_ms = clock.now_ms() + 365 * 86_400_000;
        let bundle = bundle_build(&manifest, &files).unwrap();
        let signed = bundle_sign(&bundle, "test", PLATFORM_SCOPE, keyring.policy_key()).unwrap();
        let compiled = Compiled::new(&bundle_open(&signed, &keys, PLATFORM_SCOPE).unwrap()).unwrap();
        let governor = Governor::new(mint, "test", ids.clone(), keys);
        governor.platform_install(compiled);
        let harness = Harness::new(store.clone(), governor.clone(), clock.clone(), ids.clone(), "local");
        let egress_clock = clock.clone();
        let egress = Egress::new(EgressConfig::new(move || egress_clock.now_ms())).unwrap();
        let model = Arc::new(Model { script: Mutex::default(), calls: Mutex::default(), ids: ids.clone() });
        let domain = flows::domain(flows::Deps {
            harness: harness.clone(),
            egress,
            custody: custody.clone(),
            models: model.clone(),
            private_hosts: vec!["127.0.0.1".to_owned()].into(),
        });
        let domains = [
            domain.clone(),
            governor::domain(&governor, &store),
            custody::domain(&custody),
            access::domain(&store, "local".into(), &governor.role_tables()),
        ];
        harness.register(&domains);
        let queue: Arc<Mutex<VecDeque<Lease>>> = Arc::default();
        let handed = queue.clone();
        harness.workers_set(move |lease| handed.lock().unwrap().push_back(lease));
        let specs = domains.iter().flat_map(|domain| domain.jobs.clone()).chain(harness.jobs()).collect();
        House { harness, clock, model, domain, tenant, queue, specs, fate, _folder: folder }
    }

    /// A house with the ticket system's connector, the generic one, and the shipped workflows.
    pub async fn with(desk: &Desk, seed: u64) -> House {
        let house = House::empty(seed).await;
        let admin = person(&house, "owner", &["tenant_admin"]);
        for (name, value) in [("desk", "hunter2"), ("hook", HOOK_SECRET)] {
            let args = json!({"name": name, "purpose": "test", "value": value});
            house.act(&admin, "custody.secret.put", args).await.unwrap();
        }
        for (name, hook) in [("servicenow", json!("secret:hook")), ("http", Value::Null)] {
            let args = json!({
                "name": name, "manifest": contract(&format!("connectors/{name}.yaml")), "base_url": desk.url,
                "user": "svc.writ", "password": "secret:desk", "webhook_secret": hook,
            });
            house.act(&admin, "flows.connector.install", args).await.unwrap();
        }
        house.publish(&contract("workflows/itsm-triage.yaml")).await.unwrap();
        house
    }

    /// Publishes a workflow.
    pub async fn publish(&self, text: &str) -> Result<Done, Fault> {
        let admin = person(self, "owner", &["tenant_admin"]);
        self.act(&admin, "flows.workflow.publish", json!({"yaml": text})).await
    }

    /// Carries out an act.
    pub async fn act(&self, ctx: &Ctx, act: &str, args: Value) -> Result<Done, Fault> {
        self.harness.act(ctx, act, args, Terms::default()).await
    }

    /// Starts a run by hand; its job goes into the queue.
    pub async fn start(&self, workflow: &str, event: Value) -> Id {
        let ctx = person(self, "ann", &["operator"]);
        let done =
            self.act(&ctx, "flows.run.start", json!({"workflow": workflow, "event": event})).await.unwrap();
        self.queued(done)
    }

    /// Starts the runs of an event, as a delivery does.
    pub async fn event(&self, event: Value) -> Id {
        let ctx = person(self, "ann", &["operator"]);
        let args = json!({"connector": "servicenow", "event_name": "incident.created", "event": event});
        let done = self.act(&ctx, "flows.run.start", args).await.unwrap();
        self.queued(done)
    }

    fn queued(&self, done: Done) -> Id {
        let Done::Outcome { value, held, .. } = done else { panic!("a start waits") };
        self.queue.lock().unwrap().extend(held);
        Id::parse(value["run"].as_str().unwrap()).unwrap()
    }

    /// The run.
    pub async fn run(&self, id: &Id) -> RunDoc {
        let row = self.harness.store().record(&self.tenant, RunDoc::KIND, id).await.unwrap().unwrap();
        store::decode::<RunDoc>(&row).unwrap().doc
    }

    /// The approval.
    pub async fn approval(&self, id: &Id) -> Approval {
        let row = self.harness.store().record(&self.tenant, Approval::KIND, id).await.unwrap().unwrap();
        store::decode::<Approval>(&row).unwrap().doc
    }

    /// Pending approvals of a run, as its facts tell.
    pub async fn approvals_of(&self, run: &Id) -> Vec<Id> {
        self.facts(run)
            .await
            .iter()
            .filter(|fact| fact["kind"] == "governor.approval.requested")
            .map(|fact| Id::parse(fact["outcome"]["approval"].as_str().unwrap()).unwrap())
            .collect()
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

    /// Grants or denies an approval.
    pub async fn decide(&self, approval: &Id, who: &str, grant: bool) -> Result<Done, Fault> {
        let ctx = person(self, who, &["approver", "tenant_admin"]);
        let digest = self.approval(approval).await.preview_digest;
        let done = match grant {
            true => {
                self.act(
                    &ctx,
                    "governor.approval.grant",
                    json!({"approval": approval, "preview_digest": digest}),
                )
                .await?
            }
            false => {
                self.act(&ctx, "governor.approval.deny", json!({"approval": approval, "reason": "no"}))
                    .await?
            }
        };
        if let Done::Outcome { held, .. } = done {
            self.queue.lock().unwrap().extend(held);
        }
        Ok(Done::Outcome { value: Value::Null, replayed: false, held: Vec::new() })
    }

    /// What runs a lease's job.
    pub fn job(&self, lease: &Lease) -> act::JobRun {
        self.specs.iter().find(|spec| spec.kind.name == lease.kind.name).unwrap().run.clone()
    }

    /// The next lease: one in the queue, or a due job.
    pub async fn lease(&self) -> Option<Lease> {
        let queued = self.queue.lock().unwrap().pop_front();
        match queued {
            Some(lease) => Some(lease),
            None => self.harness.store().jobs_claim(KINDS, 1).await.unwrap().pop(),
        }
    }

    /// Runs what is due until nothing is.
    pub async fn work(&self) {
        while let Some(lease) = self.lease().await {
            self.job(&lease)(lease).await;
        }
    }

    /// Runs one job in a process that dies before or right after its commit number `commit`, or, with `polls`, while it
    /// waits for something. `Some(false)`: the job ended before; `None`: there was none.
    pub async fn work_killed(&self, commit: i64, after: bool, polls: Option<usize>) -> Option<bool> {
        let lease = self.lease().await?;
        let mut work = self.job(&lease)(lease);
        self.fate.dies_in(commit, after);
        let mut left = polls.unwrap_or(usize::MAX);
        let ended = std::future::poll_fn(|context| {
            if left == 0 || self.fate.dead() {
                return std::task::Poll::Ready(false);
            }
            left -= 1;
            work.as_mut().poll(context).map(|()| true)
        })
        .await;
        drop(work);
        self.fate.spared();
        if !ended {
            // What is lost with the process: everything that it only had in memory.
            self.queue.lock().unwrap().clear();
        }
        // A commit that was on its way is let through before anybody looks.
        self.hints_drained().await;
        Some(!ended)
    }

    /// Waits until every commit that was answered has been hinted at. The hint of a commit may come after its answer, but
    /// comes before the writer looks at its next request; this is one.
    pub async fn hints_drained(&self) {
        self.harness.store().jobs_claim(KINDS, 0).await.unwrap();
    }

    /// Moves time to the next job of a run, if there is one.
    pub async fn wait(&self) -> bool {
        let jobs = self.harness.store().jobs(&self.tenant, 200).await.unwrap();
        let due =
            jobs.iter().filter(|job| job.kind != SETTLE.name || job.starts > 0).map(|job| job.due_ms).min();
        let Some(due_ms) = due else { return false };
        self.clock.advance_ms((due_ms - self.clock.now_ms()).max(0));
        true
    }

    /// Runs everything, and moves time, until nothing but people can go on.
    pub async fn settle(&self) {
        for _ in 0..500 {
            self.work().await;
            if !self.wait().await {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

/// A shipped file.
pub fn contract(path: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../contracts");
    std::fs::read_to_string(folder.join(path)).unwrap()
}
