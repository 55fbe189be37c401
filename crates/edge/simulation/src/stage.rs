//! The house, and how it is started again in the folder that it left.
//!
//! What every history begins with (a tenant, its connector, its workflow, a budget) is furnished once per process, and
//! the folder is copied. That is most of what a start costs.

use crate::outside::Outside;
use access::bootstrap::{Bootstrap, bootstrap};
use act::{Assurance, Call, Clock as _, Ctx, Delivery, Domain, Fault, JobRun, Principal, PrincipalKind};
use custody::{Custody, Keyring};
use egress::{Allowlist, Egress, EgressConfig, Rule, SecretHeader};
use evidence::{Disclosure, Evidence, Signing};
use futures::FutureExt as _;
use governor::Governor;
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{Compiled, KeyRecord, KeyRing};
use harness::{Harness, Terms};
use kernel::permit::{JobKind, permit_pair};
use kernel::{Id, Lease, TenantId};
use models::call::{Hosted, Models, Providers};
use models::dialect::Dialect;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store};
use tempfile::TempDir;
use testkit::around::Around;
use testkit::simulation::{Gated, Gates, Mirror};
use testkit::{SeededIds, VirtualClock};

/// The signing secret of the hook.
pub const HOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
/// The connector's manifest, as shipped.
const MANIFEST: &str = include_str!("../../../../contracts/connectors/servicenow.yaml");
/// The flagship, as shipped.
const WORKFLOW: &str = include_str!("../../../../contracts/workflows/itsm-triage.yaml");
/// The budget of the tenant, in millionths: more than all runs can spend.
const PLENTY: i64 = 1_000_000_000;

/// The tenant.
///
/// # Panics
/// Never: the id is well-formed.
pub fn tenant() -> TenantId {
    TenantId::parse("ten_acme").expect("a well-formed id")
}

/// What all histories of a process share.
pub struct Stage {
    /// The other side.
    pub outside: Outside,
    furnished: TempDir,
    policy: Compiled,
    keys: KeyRing,
}

/// One start of the house.
pub struct House {
    /// Carries out acts, through the gates.
    pub harness: Harness,
    /// The same store, past the gates: for whoever looks from outside of the history.
    pub store: Store,
    /// Signs checkpoints.
    pub evidence: Evidence,
    /// Leases that were handed over and that nobody runs yet. They die with the process.
    pub handed: Arc<Mutex<VecDeque<Lease>>>,
    domains: Vec<Domain>,
    jobs: BTreeMap<&'static str, JobRun>,
    /// Every kind of job.
    pub kinds: &'static [&'static JobKind],
}

/// What a house is started on.
pub struct Ground {
    /// Its folder.
    pub folder: TempDir,
    /// The time.
    pub clock: Arc<VirtualClock>,
    /// Where ids come from; they go on when the house is started again.
    pub ids: Arc<SeededIds>,
    /// The gates of the history.
    pub gates: Gates,
    /// The model of the store.
    pub mirror: Arc<Mutex<Mirror>>,
    /// Whether reads wait at gates as well.
    pub reads: bool,
}

/// A person of the tenant.
///
/// # Panics
/// If the name cannot stand in an id.
pub fn person(clock: &VirtualClock, name: &str, roles: &[&str]) -> Ctx {
    Ctx {
        tenant: tenant(),
        principal: Principal {
            id: Id::parse(&format!("prn_{name}")).expect("a name that fits"),
            kind: PrincipalKind::Person,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            home: tenant(),
            rights: Default::default(),
        },
        on_behalf_of: Vec::new(),
        assurance: Assurance { method: "key".into(), level: 1, at_ms: clock.now_ms(), until_ms: None },
        trace: "trc_test".into(),
        idempotency_key: None,
        requested_at_ms: clock.now_ms(),
    }
}

/// Every kind of job there is. The same in each process, so it is made once and kept for ever.
fn kinds(of: impl Iterator<Item = &'static JobKind>) -> &'static [&'static JobKind] {
    static KINDS: OnceLock<Vec<&'static JobKind>> = OnceLock::new();
    KINDS.get_or_init(|| of.collect())
}

fn signing(keyring: &Arc<Keyring>) -> Signing {
    let (log, statements) = (keyring.clone(), keyring.clone());
    Signing {
        log_key: keyring.log_key(),
        checkpoint: Arc::new(move |checkpoint| log.checkpoint_sign(checkpoint)),
        evidence_key: keyring.evidence_key(),
        statement: Arc::new(move |message| statements.evidence_sign(message)),
        since_ms: keyring.created_at_ms(),
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("the furnished folder can be read") {
        let entry = entry.expect("the furnished folder can be read");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a file can be copied");
        }
    }
}

impl Stage {
    /// Furnishes the house, once.
    ///
    /// # Panics
    /// If what is shipped does not work.
    pub async fn set() -> Stage {
        let outside = Outside::start().await.expect("a free port");
        let furnished = testkit::folder::fresh();
        let clock = Arc::new(VirtualClock::default());
        let ids = Arc::new(SeededIds::new(0));
        let keyring = Keyring::open_or_create(&furnished.path().join("keys"), &*ids, clock.now_ms())
            .expect("keys can be made");
        let record = KeyRecord {
            scope: PLATFORM_SCOPE.into(),
            algorithm: Algorithm::Es256,
            key: *keyring.policy_key().verifying_key(),
        };
        let keys = KeyRing::from([("test".to_owned(), record)]);
        let (mut manifest, files) = platform_sources().expect("the shipped policy");
        manifest.metadata.seq = 1;
        manifest.metadata.not_after_ms = clock.now_ms() + 365 * 86_400_000;
        let bundle = bundle_build(&manifest, &files).expect("the shipped policy is a bundle");
        let signed = bundle_sign(&bundle, "test", PLATFORM_SCOPE, keyring.policy_key()).expect("a key signs");
        let opened = bundle_open(&signed, &keys, PLATFORM_SCOPE).expect("what was signed opens");
        let policy = Compiled::new(&opened).expect("the shipped policy compiles");
        let mut stage = Stage { outside, furnished, policy, keys };
        let folder = testkit::folder::fresh();
        copy(stage.furnished.path(), folder.path());
        let ground =
            Ground { folder, clock, ids, gates: Gates::default(), mirror: Arc::default(), reads: false };
        let house = stage.open(&ground);
        let plan = Bootstrap { admin_secret_sha256: "0".repeat(64), tenant: tenant(), cell: "local".into() };
        bootstrap(&house.store, &*ground.ids, ground.clock.now_ms(), &plan).await.expect("a first start");
        stage.furnish(&house, &ground.clock).await;
        drop(house);
        stage.furnished = ground.folder;
        crate::world::warm(&stage).await;
        stage
    }

    async fn furnish(&self, house: &House, clock: &VirtualClock) {
        let admin = person(clock, "owner", &["tenant_admin"]);
        let url = &self.outside.url;
        let workflow = WORKFLOW.replace("baseline/tfidf-linear-1", "openai/stand-in");
        for (act, args) in [
            ("custody.secret.put", json!({"name": "desk", "purpose": "test", "value": "hunter2"})),
            ("custody.secret.put", json!({"name": "hook", "purpose": "test", "value": HOOK_SECRET})),
            (
                "flows.connector.install",
                json!({"name": "servicenow", "manifest": MANIFEST, "base_url": url, "user": "svc.writ",
                       "password": "secret:desk", "webhook_secret": "secret:hook"}),
            ),
            ("flows.workflow.publish", json!({"yaml": workflow})),
            ("billing.budget.set", json!({"level": "tenant", "amount": PLENTY, "period": "month"})),
        ] {
            let done = house.harness.act(&admin, act, args, Terms::default()).await;
            done.unwrap_or_else(|fault| panic!("{act}: {fault}"));
        }
    }

    /// A copy of the furnished house for one history.
    pub fn ground(&self, seed: u64, gates: Gates, reads: bool) -> Ground {
        let folder = testkit::folder::fresh();
        copy(self.furnished.path(), folder.path());
        let clock = Arc::new(VirtualClock::default());
        clock.advance_ms(60_000);
        Ground {
            folder,
            clock,
            // Furnishing took the ids of seed 0.
            ids: Arc::new(SeededIds::new(seed.wrapping_mul(2).wrapping_add(1))),
            gates,
            mirror: Arc::default(),
            reads,
        }
    }

    /// Starts the house.
    ///
    /// # Panics
    /// If it does not start.
    pub fn open(&self, ground: &Ground) -> House {
        let Ground { folder, clock, ids, gates, mirror, reads } = ground;
        let (mint, seal) = permit_pair();
        let engine = Sqlite::open(Options {
            folder: folder.path().join("store"),
            clock: clock.clone(),
            seal,
            installation: "test".into(),
            cell: "local".into(),
            sequencing: Sequencing::Immediate,
            page_count_max: None,
        });
        let store = Store::new(engine.expect("the store opens"));
        let gated = Store::new(Around::new(store.clone(), Gated::new(gates.clone(), mirror.clone(), *reads)));
        let keyring = Keyring::open_or_create(&folder.path().join("keys"), &**ids, clock.now_ms());
        let keyring = Arc::new(keyring.expect("the keys open"));
        let custody = Custody::new(keyring.clone());
        let governor = Governor::new(mint, "test", ids.clone(), self.keys.clone());
        governor.platform_install(self.policy.clone());
        let harness = Harness::new(gated.clone(), governor.clone(), clock.clone(), ids.clone(), "local");
        let monotonic = clock.clone();
        let egress = Egress::new(EgressConfig::new(move || monotonic.now_ms())).expect("egress is set up");
        let models = Models::new(harness.clone(), self.providers(&egress));
        let flows = flows::domain(flows::Deps {
            harness: harness.clone(),
            egress,
            custody: custody.clone(),
            models: Arc::new(models.clone()),
            private_hosts: vec!["127.0.0.1".to_owned()].into(),
        });
        let mut domains = vec![
            access::domain(&gated, "local".into(), &governor.role_tables()),
            governor::domain(&governor, &gated),
            custody::domain(&custody),
            billing::domain(),
            models.domain(),
            flows,
        ];
        let evidence = Evidence::new(evidence::Config {
            installation: "test".into(),
            folder: folder.path().join("evidence"),
            signing: signing(&keyring),
            disclosure: Disclosure::of(domains.iter().flat_map(|domain| &domain.verbs)),
        });
        domains.push(evidence::domain(&evidence));
        harness.register(&domains);
        let handed: Arc<Mutex<VecDeque<Lease>>> = Arc::default();
        let hand = handed.clone();
        harness.workers_set(move |lease| hand.lock().expect("nobody panics with it").push_back(lease));
        let specs: Vec<_> =
            domains.iter().flat_map(|domain| domain.jobs.clone()).chain(harness.jobs()).collect();
        let kinds = kinds(specs.iter().map(|spec| spec.kind));
        let jobs = specs.into_iter().map(|spec| (spec.kind.name, spec.run)).collect();
        House { harness, store, evidence, handed, domains, jobs, kinds }
    }

    fn providers(&self, egress: &Egress) -> Providers {
        let rule = Rule::parse(&self.outside.url).and_then(Rule::allow_private);
        let allow = rule.and_then(|rule| Allowlist::new(vec![rule])).expect("a loopback address");
        let hosted = Hosted {
            dialect: Dialect::OpenAi,
            base_url: format!("{}/v1", self.outside.url),
            allow,
            key: Arc::new(|_| {
                async { SecretHeader::bearer("sk-test").map_err(|_| act::internal("a key")) }.boxed()
            }),
            stream: false,
            limits: Hosted::limits(false),
        };
        Providers {
            hosted: BTreeMap::from([("openai".to_owned(), hosted)]),
            egress: Some(egress.clone()),
            ..Providers::default()
        }
    }
}

impl House {
    /// What runs a job of this lease.
    pub fn job(&self, lease: &Lease) -> JobRun {
        self.jobs[lease.kind.name].clone()
    }

    /// Believes a delivery, or does not.
    ///
    /// # Errors
    /// Whatever the hook says.
    ///
    /// # Panics
    /// If there is no hook.
    pub fn receive(
        &self,
        hook: String,
        headers: Vec<(String, String)>,
        body: String,
    ) -> impl Future<Output = Result<Delivery, Fault>> + Send + 'static {
        let routes = self.domains.iter().flat_map(|domain| &domain.routes);
        let receive = routes.into_iter().find_map(|route| match &route.call {
            Call::Receive(receive) if route.path == "/v1/hooks/{hook}" => Some(receive.clone()),
            _ => None,
        });
        let receive = receive.expect("there is a hook");
        async move {
            let params = BTreeMap::from([("hook".to_owned(), hook)]);
            receive(&params, &headers, body.as_bytes()).await
        }
    }

    /// The id of the connector's hook.
    ///
    /// # Panics
    /// If the house is not furnished.
    pub async fn hook(&self) -> String {
        let id = Id::parse("con_servicenow").expect("a well-formed id");
        let row = self.store.record(&tenant(), "flows.connector", &id).await.expect("storage works");
        let body: Value = serde_json::from_slice(&row.expect("it is installed").body).expect("a document");
        body["doc"]["hook"]["id"].as_str().expect("it has a hook").to_owned()
    }
}
