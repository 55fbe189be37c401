//! Puts the house together: one store, one governor, one harness, and every domain from its table.
//!
//! Here, and nowhere else, it is decided who gets what: the mint of permits goes to the governor and the seal to the store,
//! the keys to custody, the implementations of contracts to the products that use them. Those who add a domain add a line
//! to [`domains`].

use crate::StartError;
use crate::admin;
use crate::backup::Backups;
use crate::config::Config;
use crate::counts::Counts;
use crate::gate::Gate;
use crate::http::refused::Refused;
use crate::own::{self, Own};
use crate::{asyncapi, openapi, policy, providers};
use access::key::seen::Seen;
use act::{Auth, Call, Clock, Domain, Ids, JobSpec};
use custody::{Custody, Keyring};
use egress::{Egress, EgressConfig};
use evidence::{Disclosure, Evidence, Signing};
use governor::Governor;
use harness::Harness;
use kernel::hex;
use kernel::permit::permit_pair;
use models::call::{Models, Providers};
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::{Arc, OnceLock};
use store::Store;
use store::sqlite::{Options, Sqlite};

/// Folder of the installation's keys, in the configured folder.
pub const KEYS_FOLDER: &str = "keys";
/// Folder of exported bundles, in the configured folder.
pub const EVIDENCE_FOLDER: &str = "evidence";

/// A house that stands, whether or not it serves. Cheap to clone.
#[derive(Clone)]
pub struct House {
    /// What it was started with.
    pub config: Arc<Config>,
    /// Carries out acts.
    pub harness: Harness,
    /// What is kept.
    pub store: Store,
    /// Keys and secrets.
    pub custody: Custody,
    /// Signs checkpoints and makes bundles.
    pub evidence: Evidence,
    /// Shows approvals in Slack, and sends events to webhooks.
    pub notify: notify::Deps,
    /// The one way out.
    pub egress: Egress,
    /// Every domain's table.
    pub domains: Arc<[Domain]>,
    /// Whether anything is done.
    pub gate: Arc<Gate>,
    /// What this process has done.
    pub counts: Counts,
    /// What was turned away and is not yet recorded.
    pub refused: Arc<Refused>,
    /// Uses of keys that are not recorded yet.
    pub seen: Arc<Seen>,
}

/// What domains are made of.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// Carries out acts.
    pub harness: Harness,
    /// Keys and secrets.
    pub custody: Custody,
    /// The one way out.
    pub egress: Egress,
    /// Who answers as a model.
    pub providers: Providers,
    /// The edge's own.
    pub own: Own,
}

/// Every domain of the product, and what rounds need besides: evidence, Slack, webhooks.
pub fn domains(parts: &Parts) -> (Vec<Domain>, Evidence, notify::Deps) {
    let Parts { config, harness, custody, egress, providers, own } = parts;
    let store = harness.store();
    let models = Models::new(harness.clone(), providers.clone());
    let flows = flows::Deps {
        harness: harness.clone(),
        egress: egress.clone(),
        custody: custody.clone(),
        models: Arc::new(models.clone()),
        private_hosts: config.private_hosts.clone().into(),
    };
    let notify = notify::Deps {
        harness: harness.clone(),
        egress: egress.clone(),
        custody: custody.clone(),
        private_hosts: config.private_hosts.clone().into(),
        webhook_call_ms: config.limits.webhook_call_ms,
        facts: Arc::default(),
    };
    let mut domains = vec![
        access::domain(store, harness.cell().clone(), &harness.governor().role_tables()),
        governor::domain(harness.governor(), store),
        custody::domain(custody),
        billing::domain(),
        notify::domain(&notify),
        models.domain(),
        flows::domain(flows),
        own::domain(own),
    ];
    // What bundles show of an act's arguments is said by the act's own schema, so evidence comes last.
    let evidence = Evidence::new(evidence::Config {
        installation: config.installation.clone(),
        folder: config.folder.join(EVIDENCE_FOLDER),
        signing: signing(custody.keyring()),
        disclosure: Disclosure::of(domains.iter().flat_map(|domain| &domain.verbs)),
    });
    domains.push(evidence::domain(&evidence));
    // Set once, here.
    let _ = notify.facts.set(domains.iter().flat_map(|domain| domain.facts).copied().collect());
    (domains, evidence, notify)
}

/// The installation's signers: evidence never sees a private key.
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

/// A house that has just been put together.
pub struct Assembled {
    /// The house.
    pub house: House,
    /// The administrator's key, if this was the first start.
    pub admin_key: Option<String>,
}

/// Opens or creates the installation. No policy is in force yet: every act is denied.
pub async fn assemble(
    config: Config,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
) -> Result<Assembled, StartError> {
    config.check()?;
    let config = Arc::new(config);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.folder)
        .map_err(|error| StartError::Folder(config.folder.clone(), error))?;
    let (mint, seal) = permit_pair();
    // The store takes the folder's lock; nothing of the installation is made before.
    let engine = Sqlite::open(Options {
        folder: config.folder.clone(),
        clock: clock.clone(),
        seal,
        installation: config.installation.clone(),
        cell: config.cell.clone(),
        sequencing: config.sequencing.into(),
        page_count_max: config.limits.storage_pages(),
    })?;
    let keyring = Keyring::open_or_create(&config.folder.join(KEYS_FOLDER), &*ids, clock.now_ms())?;
    // Before anything is written: what is written next may be the first of another history.
    engine.mark_keep(config.high_water(), hex::encode(keyring.log_key().as_bytes())).await?;
    let store = Store::new(engine);
    let custody = Custody::new(Arc::new(keyring));
    let admin_key =
        admin::first_start(&config.folder, &store, &*clock, &*ids, &config.first_tenant, &config.cell)
            .await?;
    let governor = Governor::new(mint, &config.environment, ids.clone(), policy::keys(custody.keyring()));
    let harness = Harness::new(store.clone(), governor, clock, ids, &config.cell);
    let counts = Counts::default();
    let (contract, events) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
    let gate = Arc::new(Gate::closed());
    let own = Own {
        gate: gate.clone(),
        backups: Backups::new(&config, custody.keyring().clone(), harness.ids().clone()),
        harness: harness.clone(),
        counts: counts.clone(),
        contract: contract.clone(),
        events: events.clone(),
    };
    let monotonic = harness.clock().clone();
    let egress = Egress::new(EgressConfig {
        user_agent: Some(concat!("writ/", env!("CARGO_PKG_VERSION")).to_owned()),
        // A monotonic clock does not reach 2⁶³ milliseconds.
        ..EgressConfig::new(move || i64::try_from(monotonic.monotonic_us() / 1000).unwrap_or(i64::MAX))
    })?;
    let providers = providers::providers(&config, &egress, &custody, &store)?;
    let (config_, harness_, custody_) = (config.clone(), harness.clone(), custody.clone());
    let way_out = egress.clone();
    let (domains, evidence, notify) =
        domains(&Parts { config: config_, harness: harness_, custody: custody_, egress, providers, own });
    let misfits = table_misfits(&domains);
    if !misfits.is_empty() {
        return Err(StartError::Table(misfits));
    }
    harness.register(&domains);
    // Set once, here.
    let _ = contract.set(openapi::document(&domains));
    let _ = events.set(asyncapi::document(&domains));
    let (refused, seen) = (Arc::new(Refused::default()), Arc::new(Seen::default()));
    let house = House {
        config,
        harness,
        store,
        custody,
        evidence,
        notify,
        egress: way_out,
        domains: domains.into(),
        gate,
        counts,
        refused,
        seen,
    };
    Ok(Assembled { house, admin_key })
}

impl House {
    /// Every job of every domain, and the harness's own.
    pub fn jobs(&self) -> Vec<JobSpec> {
        let of_domains = self.domains.iter().flat_map(|domain| domain.jobs.clone());
        of_domains.chain(self.harness.jobs()).collect()
    }
}

/// Everything in the table that contradicts itself; a server with any of it does not start.
pub fn table_misfits(domains: &[Domain]) -> Vec<String> {
    let mut misfits: Vec<String> = domains.iter().flat_map(Domain::misfits).collect();
    let acts: BTreeSet<&str> = domains.iter().flat_map(|domain| &domain.verbs).map(|verb| verb.act).collect();
    let mut seen = BTreeSet::new();
    let mut once = |what: String, misfits: &mut Vec<String>| {
        if !seen.insert(what.clone()) {
            misfits.push(format!("{what} stands in the table twice"));
        }
    };
    for domain in domains {
        once(format!("domain {}", domain.name), &mut misfits);
        domain.verbs.iter().for_each(|verb| once(format!("act {}", verb.act), &mut misfits));
        domain.jobs.iter().for_each(|job| once(format!("job {}", job.kind.name), &mut misfits));
        for verb in &domain.verbs {
            if let Some(closed) = verb.on_closed.filter(|act| !acts.contains(act)) {
                misfits.push(format!("{} names {closed}, which is no act", verb.act));
            }
        }
        for route in &domain.routes {
            once(format!("operation {}", route.operation), &mut misfits);
            once(format!("route {:?} {}", route.method, route.path), &mut misfits);
            let fits = match (&route.call, route.auth) {
                (Call::Verb(act), Auth::Principal) => acts.contains(act),
                (Call::Query(permission, _) | Call::Stream(permission, _), Auth::Principal) => {
                    permission.split('.').next() == Some(domain.name)
                }
                (Call::Query(..), Auth::Public) | (Call::Receive(_), Auth::Signature) => true,
                (Call::Verb(_) | Call::Stream(..), Auth::Public | Auth::Signature)
                | (Call::Query(..), Auth::Signature)
                | (Call::Receive(_), Auth::Principal | Auth::Public) => false,
            };
            if !fits {
                misfits.push(format!(
                    "{} has a call that does not fit its way in, or names nothing",
                    route.operation
                ));
            }
        }
    }
    misfits
}
