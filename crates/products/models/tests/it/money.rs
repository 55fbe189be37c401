//! Budgets that hold: calls through the harness, with the shipped policy, the built-in model and a clock that stands still.

use access::bootstrap::{Bootstrap, bootstrap};
use act::{Assurance, Call, Class, Ctx, Domain, Fault, Principal, PrincipalKind, QueryCtx};
use contracts::models::{ModelCall, ModelCalls as _, ModelReply};
use custody::Keyring;
use governor::Governor;
use governor::policy::bundle::{Algorithm, bundle_build, bundle_open, bundle_sign};
use governor::policy::defaults::{PLATFORM_SCOPE, platform_sources};
use governor::policy::{Compiled, KeyRecord, KeyRing};
use harness::{Done, Harness, Terms};
use kernel::permit::{JobKind, permit_pair};
use kernel::{Id, Lease, TenantId};
use models::baseline::{Baseline, Config};
use models::call::{Models, Providers};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::sqlite::{Options, Sqlite};
use store::{Sequencing, Store};
use tempfile::TempDir;
use testkit::{SeededIds, VirtualClock};

/// What a call of the built-in model costs by the built-in prices, in millionths.
pub const CALL: i64 = 20;
const MODEL: &str = models::baseline::MODEL;
const HOUR_MS: i64 = 3_600_000;

/// A house around the models: store, governor, billing.
pub struct House {
    harness: Harness,
    governor: Governor,
    ids: Arc<SeededIds>,
    clock: Arc<VirtualClock>,
    /// The caller of models.
    pub models: Models,
    domains: Vec<Domain>,
    /// Whose calls they are.
    pub tenant: TenantId,
    keyring: Keyring,
    _folder: TempDir,
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(&format!("ten_{name}")).unwrap()
}

impl House {
    pub async fn new() -> House {
        House::knowing(true).await
    }

    /// A house whose harness knows billing's acts, or does not.
    async fn knowing(billing: bool) -> House {
        let folder = testkit::folder::fresh();
        let clock = Arc::new(VirtualClock::default());
        let ids = Arc::new(SeededIds::new(7));
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
        let tenant = tenant("acme");
        let plan =
            Bootstrap { admin_secret_sha256: "0".repeat(64), tenant: tenant.clone(), cell: "local".into() };
        bootstrap(&store, &*ids, now_ms(&clock), &plan).await.unwrap();
        let keyring = Keyring::open_or_create(&folder.path().join("keys"), &*ids, now_ms(&clock)).unwrap();
        let record = KeyRecord {
            scope: PLATFORM_SCOPE.into(),
            algorithm: Algorithm::Es256,
            key: *keyring.policy_key().verifying_key(),
        };
        let keys = KeyRing::from([("test".to_owned(), record)]);
        let governor = Governor::new(mint, "test", ids.clone(), keys);
        let harness = Harness::new(store, governor.clone(), clock.clone(), ids.clone(), "local");
        let rows = [
            ("the printer jams", "Hardware"),
            ("no network at all", "Network"),
            ("vpn network down", "Network"),
        ];
        let baseline = Baseline::train(rows.into_iter(), Config::default()).unwrap();
        let providers = Providers { baseline: Some(Arc::new(baseline)), ..Providers::default() };
        let models = Models::new(harness.clone(), providers);
        let access = access::domain(harness.store(), "local".into(), &governor.role_tables());
        let domains = vec![billing::domain(), models.domain(), access];
        for domain in &domains {
            assert_eq!(domain.misfits(), Vec::<String>::new());
        }
        harness.register(if billing { &domains } else { &domains[1..] });
        let house =
            House { harness, governor, ids, clock, models, domains, tenant, keyring, _folder: folder };
        house.policy("package writ\n");
        house
    }

    /// Puts the shipped policy with more rules in force.
    fn policy(&self, rules: &str) {
        let (mut manifest, mut files) = platform_sources().unwrap();
        manifest.metadata.seq = 1;
        manifest.metadata.not_after_ms = now_ms(&self.clock) + 3650 * 24 * HOUR_MS;
        files.insert("more.rego".into(), rules.as_bytes().to_vec());
        let bundle = bundle_build(&manifest, &files).unwrap();
        let signed = bundle_sign(&bundle, "test", PLATFORM_SCOPE, self.keyring.policy_key()).unwrap();
        let governor = self.harness.governor();
        let opened = bundle_open(&signed, governor.keys(), PLATFORM_SCOPE).unwrap();
        governor.platform_install(Compiled::new(&opened).unwrap());
    }

    fn store(&self) -> &Store {
        self.harness.store()
    }

    fn admin(&self) -> Ctx {
        Ctx {
            tenant: self.tenant.clone(),
            principal: Principal {
                id: Id::parse("prn_owner").unwrap(),
                kind: PrincipalKind::Person,
                roles: vec!["tenant_admin".into()],
                home: self.tenant.clone(),
                rights: Default::default(),
            },
            on_behalf_of: Vec::new(),
            assurance: Assurance {
                method: "key".into(),
                level: 1,
                at_ms: now_ms(&self.clock),
                until_ms: None,
            },
            trace: "trc_test".into(),
            idempotency_key: None,
            requested_at_ms: now_ms(&self.clock),
        }
    }

    async fn act(&self, act: &str, args: Value) -> Result<Value, Fault> {
        match self.harness.act(&self.admin(), act, args, Terms::default()).await? {
            Done::Outcome { value, .. } => Ok(value),
            Done::Waiting { .. } => panic!("{act} waits"),
        }
    }

    /// Sets a budget; the id of its present account.
    pub async fn budget(&self, args: Value) -> Id {
        Id::parse(self.act("billing.budget.set", args).await.unwrap()["account"].as_str().unwrap()).unwrap()
    }

    /// A project of this name, in a workspace of its own.
    async fn project(&self, name: &str) {
        let workspace = json!({"name": format!("for-{name}"), "environment": "production"});
        self.act("access.workspace.create", workspace).await.unwrap();
        let project = json!({"name": name, "workspace": format!("for-{name}")});
        self.act("access.project.create", project).await.unwrap();
    }

    pub fn service(&self, tenant: &TenantId) -> Ctx {
        self.harness.service("flows", tenant, vec![], "trc_test")
    }

    /// Run number `n` asks the model.
    pub async fn call(&self, n: usize) -> Result<ModelReply, Fault> {
        self.call_of(&self.tenant, n, "triage", None).await
    }

    async fn call_of(
        &self,
        tenant: &TenantId,
        n: usize,
        workflow: &str,
        project: Option<&str>,
    ) -> Result<ModelReply, Fault> {
        self.asked(tenant, House::asks(n, workflow, project)).await
    }

    async fn asked(&self, tenant: &TenantId, call: ModelCall) -> Result<ModelReply, Fault> {
        self.models.model_call(&self.service(tenant), call).await.map_err(|missed| missed.fault)
    }

    /// What run number `n` asks.
    pub fn asks(n: usize, workflow: &str, project: Option<&str>) -> ModelCall {
        ModelCall {
            key: format!("run_{n}:classify:0"),
            run: run(n),
            workflow: workflow.into(),
            project: project.map(str::to_owned),
            ticket: Some(format!("INC{}", n % 3)),
            pin: MODEL.into(),
            accepts: vec![],
            system: "Which group?".into(),
            user: "the printer jams".into(),
            schema: json!({"type": "object", "properties": {"assignment_group": {"type": "string"}, "summary": {"type": "string"}, "confidence": {"type": "integer"}}, "required": ["assignment_group"],
                           "additionalProperties": false}),
            allowed: BTreeMap::from([("assignment_group".into(), vec!["Hardware".into(), "Network".into()])]),
            max_output_tokens: 100,
            sensitivity: "internal".into(),
            causes: vec![],
            brakes: vec![],
        }
    }

    /// Intends a call, as a process does that dies before it hears of it.
    async fn intended(&self, n: usize) -> Id {
        let args = json!({
            "run": run(n), "workflow": "triage", "provider": "baseline", "model": MODEL.trim_start_matches("baseline/"), "prompt_digest": "ab",
            "input_tokens_max": 10, "max_output_tokens": 10, "sensitivity": "internal",
        });
        let done =
            self.harness.act(&self.service(&self.tenant), "models.model.call", args, Terms::default()).await;
        match done.unwrap() {
            Done::Outcome { value, .. } => Id::parse(value["call"].as_str().unwrap()).unwrap(),
            Done::Waiting { .. } => panic!("a call waits"),
        }
    }

    /// Intends the first attempt at a call of the built-in model, as a process does that dies while it waits for the answer.
    pub async fn intended_as(&self, call: &ModelCall) {
        let ask = models::contract::Ask {
            model: models::contract::Pin::exact(MODEL),
            system: call.system.clone(),
            user: call.user.clone(),
            schema: call.schema.clone(),
            allowed: call.allowed.clone(),
            max_output_tokens: call.max_output_tokens,
            temperature_milli: 0,
        };
        let prompt = format!("{}\u{0}{}\u{0}{}", ask.system, ask.user, ask.schema);
        let bytes = ask.system.len() + ask.user.len() + ask.answer_schema().to_string().len();
        let args = json!({
            "run": call.run, "workflow": call.workflow, "provider": "baseline", "model": MODEL.trim_start_matches("baseline/"),
            "project": call.project, "ticket": call.ticket, "input_tokens_max": models::call::input_tokens_max(bytes),
            "prompt_digest": kernel::hex::encode(&kernel::sha256(prompt.as_bytes())),
            "max_output_tokens": call.max_output_tokens, "sensitivity": call.sensitivity, "causes": call.causes,
            "attempt": "first", "instead_of": null, "asked": call.key, "brakes": [],
        });
        let ctx = Ctx { idempotency_key: Some(call.key.clone()), ..self.service(&self.tenant) };
        self.harness.act(&ctx, "models.model.call", args, Terms::default()).await.unwrap();
    }

    /// Lets another process close what got lost, once the leases have run out.
    async fn orphans(&self) {
        let kinds: Vec<&'static JobKind> =
            self.domains.iter().flat_map(|domain| &domain.jobs).map(|spec| spec.kind).collect();
        self.clock.advance_ms(kinds.iter().map(|kind| kind.lease_ms).max().unwrap());
        let leases: Vec<Lease> = self.store().jobs_claim(kinds.leak(), 100).await.unwrap();
        for lease in leases {
            let spec = self
                .domains
                .iter()
                .flat_map(|domain| &domain.jobs)
                .find(|spec| spec.kind.name == lease.kind.name);
            (spec.unwrap().run)(lease).await;
        }
    }

    /// Spent and held of an account.
    pub async fn spent(&self, account: &Id) -> (i64, i64) {
        let account =
            self.store().account(&self.tenant, account).await.unwrap().expect("the account is open");
        (-account.balance.posted(), account.balance.debits_pending)
    }

    /// The outcomes of all facts of a kind.
    pub async fn facts(&self, kind: &str) -> Vec<Value> {
        let leaves = self.store().leaves(&self.tenant, 0, 10_000).await.unwrap();
        let all = leaves.iter().map(|row| serde_json::from_slice::<Value>(&row.leaf).unwrap());
        all.filter(|fact| fact["kind"] == kind).map(|fact| fact["outcome"].clone()).collect()
    }

    /// What a route of this operation shows.
    pub async fn shown(&self, operation: &str, params: &[(&str, &str)]) -> Result<Value, Fault> {
        let route =
            self.domains.iter().flat_map(|domain| &domain.routes).find(|route| route.operation == operation);
        let Call::Query(_, query) = &route.unwrap().call else { panic!("{operation} does not read") };
        let view = self.store().view(&self.tenant, now_ms(&self.clock));
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        query(QueryCtx { ctx: &self.admin(), view: &view, params: &params }).await
    }

    /// Debits are credits, over all accounts.
    pub async fn balanced(&self) {
        let (mut posted, mut pending) = (0, 0);
        for account in self.store().accounts(&self.tenant, None, 200).await.unwrap() {
            let b = account.balance;
            posted += b.debits_posted - b.credits_posted;
            pending += b.debits_pending - b.credits_pending;
        }
        assert_eq!((posted, pending), (0, 0));
    }
}

fn now_ms(clock: &VirtualClock) -> i64 {
    act::Clock::now_ms(clock)
}

/// The id of run number `n`.
pub fn run(n: usize) -> Id {
    Id::parse(&format!("run_{n}")).unwrap()
}

fn exhausted(result: &Result<ModelReply, Fault>, level: &str) -> bool {
    matches!(result, Err(fault) if fault.code == "budget.exhausted" && fault.class == Class::Denied
        && fault.details.as_ref().is_some_and(|details| details["level"] == level))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_runs_exactly_as_many_go_ahead_as_fit() {
    for fits in [0usize, 1, 10, 63, 64] {
        let house = Arc::new(House::new().await);
        // A millionth short of one more.
        let amount = CALL * fits as i64 + CALL - 1;
        let account = house
            .budget(json!({"level": "workflow", "name": "triage", "amount": amount, "period": "day"}))
            .await;
        let tasks = (0..64).map(|n| {
            let house = house.clone();
            async move { house.call(n).await }
        });
        let results = tasks.collect::<tokio::task::JoinSet<_>>().join_all().await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), fits, "{results:?}");
        assert!(results.iter().all(|result| result.is_ok() || exhausted(result, "workflow")));
        assert_eq!(house.spent(&account).await, (CALL * fits as i64, 0));
        // Who does not pay has no call, and is recorded once; who does has a row that says the same as the ledger.
        assert_eq!(house.facts("models.call.intended").await.len(), fits);
        assert_eq!(house.facts("billing.budget.exhausted").await.len(), 64 - fits);
        let rated: i64 = house
            .facts("billing.usage.rated")
            .await
            .iter()
            .map(|fact| fact["cost_micros"].as_i64().unwrap())
            .sum();
        assert_eq!(rated, CALL * fits as i64);
        house.balanced().await;
    }
}

#[tokio::test]
async fn a_run_that_cannot_pay_is_recorded_once() {
    let house = House::new().await;
    house.budget(json!({"level": "tenant", "amount": CALL - 1, "period": "month"})).await;
    for _ in 0..3 {
        let result = house.call(1).await;
        assert!(exhausted(&result, "tenant"), "{result:?}");
        let details = result.unwrap_err().details.unwrap();
        assert_eq!((&details["needed"], &details["available"]), (&json!(CALL), &json!(CALL - 1)));
    }
    let facts = house.facts("billing.budget.exhausted").await;
    assert_eq!(facts.len(), 1);
    assert_eq!((&facts[0]["needed"], &facts[0]["model"]), (&json!(CALL), &json!(MODEL)));
    // Raised, the very same call goes ahead.
    house.budget(json!({"level": "tenant", "amount": CALL, "period": "month"})).await;
    assert_eq!(house.call(1).await.unwrap().cost.cost_micros, CALL);
}

#[tokio::test]
async fn a_call_that_people_should_approve_opens_no_approval_and_holds_nothing() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": 1_000, "period": "month"})).await;
    house.policy(
        "package writ\n\nrequired := {\"reason\": \"approval.test\", \"tier\": 1, \"approvals\": 1} if input.action == \"models.model.call\"\n",
    );
    let fault = house.call(1).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.class), ("model.needs_approval", Class::NeedsApproval));
    assert_eq!(fault.details, None, "there is no approval to grant");
    assert_eq!(house.facts("governor.approval.requested").await, Vec::<Value>::new());
    let decided = house.facts("governor.decided").await;
    assert_eq!(
        (&decided[0]["effect"], &decided[0]["code"]),
        (&json!("DENY"), &json!("approval.cannot_wait"))
    );
    assert_eq!(house.spent(&account).await, (0, 0));
    let never: Vec<&str> = house
        .domains
        .iter()
        .flat_map(|domain| &domain.verbs)
        .filter(|verb| !verb.can_wait)
        .map(|verb| verb.act)
        .collect();
    assert_eq!(
        never,
        [
            "billing.usage.record",
            "billing.budget.warn",
            "billing.budget.exhaust",
            "models.model.call",
            "access.key.note_use"
        ]
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_rated_yet_is_kept_and_rated_later() {
    // A process that cannot rate anything: its harness does not know the act.
    let mut house = House::knowing(false).await;
    assert_eq!(house.call(1).await.unwrap().cost.cost_micros, CALL);
    assert_eq!(house.facts("billing.usage.rated").await.len(), 0);
    assert_eq!(house.facts("models.call.intended").await.len(), 1);
    // Another one, on the same store, that can.
    let (store, governor) = (house.store().clone(), house.governor.clone());
    house.harness = Harness::new(store, governor, house.clock.clone(), house.ids.clone(), "local");
    house.models = Models::new(house.harness.clone(), Providers::default());
    house.domains = vec![billing::domain(), house.models.domain()];
    house.harness.register(&house.domains);
    for _ in 0..2 {
        house.orphans().await;
        let rated = house.facts("billing.usage.rated").await;
        assert_eq!(rated.iter().map(|fact| &fact["cost_micros"]).collect::<Vec<_>>(), [&json!(CALL)]);
    }
    assert_eq!(house.facts("models.call.billed").await.len(), 1);
    house.balanced().await;
}

#[tokio::test]
async fn a_call_that_follows_from_something_else_is_another_call() {
    let house = House::new().await;
    let mut call = House::asks(1, "triage", None);
    // What was paid for the first one is part of what the second one cost: they follow from the same.
    for (cause, cost) in [("fct_a", CALL), ("fct_a", 2 * CALL), ("fct_b", CALL)] {
        call.causes = vec![Id::parse(cause).unwrap()];
        let answered = house.asked(&house.tenant, call.clone()).await;
        assert_eq!(answered.unwrap().cost.cost_micros, cost, "{cause}");
    }
}

#[tokio::test]
async fn every_budget_is_held_against_or_none() {
    let house = House::new().await;
    let tenant = house.budget(json!({"level": "tenant", "amount": 1_000, "period": "month"})).await;
    let model = house.budget(json!({"level": "model", "name": MODEL, "amount": 900, "period": "day"})).await;
    let workflow =
        house.budget(json!({"level": "workflow", "name": "triage", "amount": CALL, "period": "total"})).await;
    let args = json!({"level": "project", "name": "desk", "amount": CALL, "period": "hour"});
    // A budget of a project that is not there would stop nothing.
    assert_eq!(
        house.act("billing.budget.set", args.clone()).await.unwrap_err().code,
        "access.project_unknown"
    );
    house.project("desk").await;
    let project = house.budget(args).await;
    house.call_of(&house.tenant, 1, "triage", None).await.unwrap();
    assert!(exhausted(&house.call_of(&house.tenant, 2, "triage", None).await, "workflow"));
    house.call_of(&house.tenant, 3, "other", Some("desk")).await.unwrap();
    assert!(exhausted(&house.call_of(&house.tenant, 4, "other", Some("desk")).await, "project"));
    house.call_of(&house.tenant, 5, "other", Some("another")).await.unwrap();
    for (account, spent) in [(tenant, 3 * CALL), (model, 3 * CALL), (workflow, CALL), (project, CALL)] {
        assert_eq!(house.spent(&account).await, (spent, 0), "{account}");
    }
    house.balanced().await;
    // A period later the project has its budget again, the workflow's total does not come back.
    house.clock.advance_ms(HOUR_MS);
    house.call_of(&house.tenant, 6, "other", Some("desk")).await.unwrap();
    assert!(exhausted(&house.call_of(&house.tenant, 7, "triage", None).await, "workflow"));
}

#[tokio::test]
async fn a_call_that_got_lost_is_charged_at_what_was_held() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": 2 * CALL, "period": "month"})).await;
    house.intended(1).await;
    assert_eq!(house.spent(&account).await, (0, CALL));
    house.orphans().await;
    // The provider may have answered and may bill it: not measured, and not given back.
    assert_eq!(house.spent(&account).await, (CALL, 0));
    let rated = house.facts("billing.usage.rated").await;
    assert_eq!(
        (&rated[0]["measured"], &rated[0]["cost_micros"], &rated[0]["unmeasured_micros"]),
        (&json!(false), &json!(0), &json!(CALL))
    );
    house.call(2).await.unwrap();
    assert!(exhausted(&house.call(3).await, "tenant"));
    house.balanced().await;
}

#[tokio::test]
async fn a_hold_that_nobody_ends_runs_out() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": CALL, "period": "total"})).await;
    house.intended(1).await;
    assert!(exhausted(&house.call(2).await, "tenant"));
    house.clock.advance_ms(billing::spend::HOLD_MS - 1);
    assert_eq!(house.store().holds_expire(100).await.unwrap(), 0);
    house.clock.advance_ms(1);
    // The tenant's own account is the budget's here, so there is one hold.
    assert_eq!(house.store().holds_expire(100).await.unwrap(), 1);
    assert_eq!(house.spent(&account).await, (0, 0));
    house.call(3).await.unwrap();
    // Closed at last: what it may have cost is written down, though the budget is spent.
    house.orphans().await;
    assert_eq!(house.spent(&account).await, (2 * CALL, 0));
    house.balanced().await;
}

#[tokio::test]
async fn a_price_that_changes_while_a_call_is_under_way_changes_nothing_about_it() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": 1_000, "period": "month"})).await;
    house.intended(1).await;
    let begins_ms = now_ms(&house.clock) + 1_000;
    publish(&house, "dearer", "USD", 300, None).await.unwrap();
    publish(&house, "cheaper", "USD", 5, Some(begins_ms)).await.unwrap();
    assert_eq!(house.call(2).await.unwrap().cost.cost_micros, 300);
    house.clock.advance_ms(999);
    assert_eq!(house.call(3).await.unwrap().cost.cost_micros, 300);
    house.clock.advance_ms(1);
    assert_eq!(house.call(4).await.unwrap().cost.cost_micros, 5);
    house.orphans().await;
    let versions: Vec<Value> =
        house.facts("billing.usage.rated").await.iter().map(|fact| fact["price_version"].clone()).collect();
    assert_eq!(versions, [json!("dearer"), json!("dearer"), json!("cheaper"), json!("2026-11-01")]);
    assert_eq!(house.spent(&account).await, (300 + 300 + 5 + CALL, 0));
    // A version keeps its name and never begins in the past.
    assert!(publish(&house, "dearer", "USD", 1, None).await.is_err());
    let past = publish(&house, "past", "USD", 1, Some(begins_ms - 1)).await.unwrap_err();
    assert_eq!(past.code, "billing.prices_invalid");
    let listed = house.shown("price_list", &[]).await.unwrap();
    let listed: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|row| (&row["version"], &row["in_force"])).collect();
    assert_eq!(listed, [(&json!("cheaper"), &json!(true)), (&json!("dearer"), &json!(false))]);
}

/// Publishes a price per call of the built-in model.
pub async fn publish(
    house: &House,
    version: &str,
    currency: &str,
    call_micros: i64,
    effective_from_ms: Option<i64>,
) -> Result<Value, Fault> {
    let row = json!({
        "model": "baseline/*", "input_micros_per_million": 0, "cached_input_micros_per_million": 0,
        "cache_write_micros_per_million": 0, "output_micros_per_million": 0, "call_micros": call_micros,
    });
    let mut book =
        json!({"version": version, "currency": currency, "models": [row], "connector_call_micros": 0});
    if let Some(from_ms) = effective_from_ms {
        book["effective_from_ms"] = json!(from_ms);
    }
    house.act("billing.price.publish", book).await
}

#[tokio::test]
async fn what_has_no_price_or_another_currency_is_not_called() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": 1_000, "period": "month"})).await;
    publish(&house, "euros", "EUR", 20, None).await.unwrap();
    let refused = house.call(1).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.class), ("budget.currency", Class::Denied));
    let book = json!({"version": "none", "currency": "USD", "models": [], "connector_call_micros": 0});
    house.act("billing.price.publish", book).await.unwrap();
    let refused = house.call(2).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.class), ("billing.unpriced", Class::Denied));
    assert_eq!(house.facts("models.call.intended").await.len(), 0);
    assert_eq!(house.spent(&account).await, (0, 0));
    // Set again, the budget has the book's currency, and an account of its own for that.
    publish(&house, "euros again", "EUR", 20, None).await.unwrap();
    let euros = house.budget(json!({"level": "tenant", "amount": 20, "period": "month"})).await;
    assert_ne!(euros, account);
    house.call(3).await.unwrap();
    assert!(exhausted(&house.call(4).await, "tenant"));
}

#[tokio::test]
async fn another_tenants_budgets_and_accounts_do_not_exist() {
    let house = House::new().await;
    let account = house.budget(json!({"level": "tenant", "amount": 0, "period": "month"})).await;
    assert!(exhausted(&house.call(1).await, "tenant"));
    let platform = TenantId::platform();
    house.call_of(&platform, 2, "triage", None).await.unwrap();
    assert_eq!(house.store().account(&platform, &account).await.unwrap(), None);
    assert_eq!(house.spent(&account).await, (0, 0));
    let theirs = house.store().accounts(&platform, None, 200).await.unwrap();
    assert_eq!(theirs.len(), 2, "its own costs and their other side: {theirs:?}");
    for other in &theirs {
        let statement = house.shown("account_statement", &[("account", other.spec.id.as_str())]).await;
        let own = house.store().account(&house.tenant, &other.spec.id).await.unwrap();
        assert_eq!(statement.is_ok(), own.is_some(), "{}", other.spec.id);
        assert!(statement.is_err() || statement.unwrap()["items"] == json!([]));
    }
    assert_eq!(
        house.shown("account_show", &[("account", "acc_nobody")]).await.unwrap_err().code,
        "not_found"
    );
}

#[tokio::test]
async fn thresholds_are_stated_once() {
    let house = House::new().await;
    let set =
        json!({"level": "tenant", "amount": 100, "period": "month", "warn_percent": [100, 50, 50, 150]});
    house.budget(set.clone()).await;
    let mut warned = Vec::new();
    for n in 0..6 {
        let ok = house.call(n).await.is_ok();
        warned.push((ok, house.facts("billing.budget.warned").await.len()));
    }
    assert_eq!(warned, [(true, 0), (true, 0), (true, 1), (true, 1), (true, 2), (false, 2)]);
    let percents: Vec<Value> =
        house.facts("billing.budget.warned").await.iter().map(|fact| fact["percent"].clone()).collect();
    assert_eq!(percents, [json!(50), json!(100)]);
    // A budget that only warns stops nothing, and says so beyond its amount.
    let mut lax = set;
    lax["stop"] = json!(false);
    house.budget(lax).await;
    for n in 6..10 {
        house.call(n).await.unwrap();
    }
    assert_eq!(house.facts("billing.budget.warned").await.len(), 3);
}

#[tokio::test]
async fn quotas_count_calls_and_tokens() {
    let house = House::new().await;
    let calls = json!({"level": "tenant", "measure": "calls", "amount": 3, "period": "hour"});
    let account = house.budget(calls).await;
    for n in 0..3 {
        house.call(n).await.unwrap();
    }
    let refused = house.call(3).await.unwrap_err();
    assert_eq!(refused.details.unwrap()["measure"], "calls");
    assert_eq!(house.spent(&account).await, (3, 0));
    house.clock.advance_ms(HOUR_MS);
    let tokens = json!({"level": "model", "name": MODEL, "measure": "tokens", "amount": 99, "period": "day"});
    house.budget(tokens).await;
    // It may produce a hundred, and has a prompt besides.
    assert_eq!(house.call(4).await.unwrap_err().details.unwrap()["measure"], "tokens");
    let removed = house.shown("budget_list", &[]).await.unwrap();
    for budget in removed["items"].as_array().unwrap() {
        house.act("billing.budget.remove", json!({"budget": budget["id"]})).await.unwrap();
    }
    house.call(5).await.unwrap();
    assert_eq!(house.shown("budget_list", &[]).await.unwrap()["items"], json!([]));
}

#[tokio::test]
async fn budgets_are_refused_that_make_no_sense() {
    let house = House::new().await;
    for args in [
        json!({"level": "tenant", "name": "x", "amount": 1, "period": "month"}),
        json!({"level": "workflow", "amount": 1, "period": "month"}),
        json!({"level": "workflow", "name": "", "amount": 1, "period": "month"}),
        json!({"level": "workflow", "name": "a\u{1b}b", "amount": 1, "period": "month"}),
        json!({"level": "tenant", "amount": -1, "period": "month"}),
        json!({"level": "tenant", "amount": 1_000_000_000_000_001i64, "period": "month"}),
        json!({"level": "tenant", "amount": 1, "period": "month", "warn_percent": [0]}),
        json!({"level": "tenant", "amount": 1, "period": "month", "warn_percent": [1, 2, 3, 4, 5, 6, 7, 8, 9]}),
    ] {
        assert_eq!(
            house.act("billing.budget.set", args.clone()).await.unwrap_err().code,
            "budget.invalid",
            "{args}"
        );
    }
    for args in [
        json!({"level": "planet", "amount": 1, "period": "month"}),
        json!({"level": "tenant", "amount": 1.5, "period": "month"}),
        json!({"level": "tenant", "amount": 1, "period": "fortnight"}),
        json!({"level": "tenant", "amount": 1, "period": "month", "free": true}),
    ] {
        assert_eq!(
            house.act("billing.budget.set", args.clone()).await.unwrap_err().code,
            "request.invalid",
            "{args}"
        );
    }
    let gone = house.act("billing.budget.remove", json!({"budget": "bud_none"})).await.unwrap_err();
    assert_eq!(gone.code, "not_found");
    let service = house.service(&house.tenant);
    let args = json!({"level": "tenant", "amount": 1, "period": "month"});
    let refused =
        house.harness.act(&service, "billing.budget.set", args, Terms::default()).await.unwrap_err();
    assert_eq!(refused.class, Class::Denied, "a run does not raise its own budget");
}

#[tokio::test]
async fn costs_are_added_up_by_what_they_were_for() {
    let house = House::new().await;
    for n in 0..7 {
        house.clock.advance_ms(10);
        let project = if n < 2 { Some("desk") } else { None };
        let workflow = if n % 2 == 0 { "triage" } else { "=other" };
        house.call_of(&house.tenant, n, workflow, project).await.unwrap();
    }
    let sums = |report: &Value, column: &str| -> Vec<(String, i64, i64)> {
        let items = report["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                let number = |name: &str| item[name].as_i64().unwrap();
                (item[column].as_str().unwrap().to_owned(), number("calls"), number("cost_micros"))
            })
            .collect()
    };
    for (by, expected) in [
        ("ticket", vec![("INC0", 3), ("INC1", 2), ("INC2", 2)]),
        ("workflow", vec![("triage", 4), ("=other", 3)]),
        ("project", vec![("", 5), ("desk", 2)]),
        ("model", vec![(MODEL, 7)]),
    ] {
        let report = house.shown("cost_report", &[("by", by)]).await.unwrap();
        let expected: Vec<_> =
            expected.iter().map(|(name, calls)| ((*name).to_owned(), *calls, calls * CALL)).collect();
        assert_eq!(sums(&report, by), expected, "{by}");
    }
    let from_ms = (now_ms(&house.clock) - 20).to_string();
    let to_ms = now_ms(&house.clock).to_string();
    let window = [("by", "model"), ("from_ms", from_ms.as_str()), ("to_ms", to_ms.as_str())];
    assert_eq!(
        sums(&house.shown("cost_report", &window).await.unwrap(), "model"),
        [(MODEL.into(), 2, 2 * CALL)]
    );
    let csv = house.shown("cost_csv", &[("by", "workflow")]).await.unwrap();
    assert!(csv.as_str().unwrap().contains("\r\n'=other,USD,3,3,0.000060,0.000000,0.000020,"), "{csv}");
    let chart = house.shown("cost_chart", &[("by", "ticket")]).await.unwrap();
    assert!(chart.as_str().unwrap().contains(">INC0<"), "{chart}");
    assert_eq!(house.shown("cost_report", &[("by", "mood")]).await.unwrap_err().code, "request.invalid");
    // The ledger says the same.
    let accounts = house.shown("account_list", &[]).await.unwrap();
    let costs =
        accounts["items"].as_array().unwrap().iter().find(|account| account["code"] == "billing.cost");
    assert_eq!(costs.unwrap()["posted"], json!(-7 * CALL));
    let statement = house
        .shown("account_statement", &[("account", costs.unwrap()["id"].as_str().unwrap()), ("limit", "3")])
        .await;
    let statement = statement.unwrap();
    assert_eq!(statement["items"].as_array().unwrap().len(), 3);
    let next = statement["next"].as_str().unwrap();
    let params = [("account", costs.unwrap()["id"].as_str().unwrap()), ("before", next), ("limit", "200")];
    assert_eq!(
        house.shown("account_statement", &params).await.unwrap()["items"].as_array().unwrap().len(),
        11
    );
}
