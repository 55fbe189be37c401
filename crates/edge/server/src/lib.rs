//! The server: mounts every domain from its table, and is the only room that speaks HTTP.
//!
//! Below, nothing knows a status, a header or a route's bytes. A domain says which acts there are and what they change;
//! the harness decides and commits; this crate lets people and programs in, runs the jobs, keeps the policy fresh, and
//! turns what comes back into answers. If a rule of the product is written here, it is in the wrong place.
//!
//! ```text
//! socket → form → route → identity → body → harness.act → answer        (http)
//!                                             └─ held jobs → pool        (workers)
//!                         clock → policy, checkpoints, refused traffic    (rounds)
//! ```
//!
//! [`serve`] starts all of it and [`Running::shutdown`] ends all of it: first nobody is let in any more, then jobs finish,
//! then the last checkpoints are signed. Everything runs on task sets that are waited for.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | what it is started with |
//! | [`assemble`] | who gets what; the one list of domains |
//! | [`admin`] | the first start |
//! | [`checkup`] | what is wrong with the folder, without starting |
//! | [`gate`] | what is not done while the installation is put back |
//! | [`backup`] | copies of the folder, and putting one back |
//! | [`policy`] | the built-in policy, signed and renewed |
//! | [`providers`] | which models there are |
//! | [`http`] | the way in |
//! | [`workers`], [`rounds`], [`tasks`] | what runs besides requests |
//! | [`telemetry`] | what a collector is told |
//! | [`own`], [`openapi`], [`asyncapi`], [`counts`] | the edge's own rows, the contracts, the numbers |

pub mod admin;
pub mod assemble;
pub mod asyncapi;
pub mod backup;
pub mod checkup;
pub mod config;
pub mod counts;
pub mod gate;
pub mod http;
pub mod openapi;
pub mod own;
pub mod policy;
pub mod providers;
pub mod rounds;
pub mod tasks;
pub mod telemetry;
pub mod workers;

pub use assemble::House;
pub use config::Config;

use act::{Clock, Coded as _, Ids};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("edge.backup_failed", "a backup could not be made"),
    ("edge.backup_invalid", "a backup is not whole, or not the one it says it is"),
    ("edge.backup_running", "another backup is being made"),
    ("edge.body_refused", "the request's body is not the JSON that is expected"),
    ("edge.body_too_large", "the request's body is larger than allowed"),
    ("edge.body_too_slow", "the request's body did not arrive in time"),
    ("edge.content_type_refused", "the request's body is of another content type"),
    ("edge.credentials_missing", "the request brings no key, or not in the one form that is read"),
    ("edge.header_refused", "a header is missing, repeated or malformed"),
    ("edge.host_refused", "the request names a host or origin that this server does not answer to"),
    ("edge.method_refused", "the route does not have this method"),
    ("edge.not_ready", "the server lives and cannot work yet"),
    ("edge.overloaded", "more is under way than the server takes on"),
    ("edge.path_refused", "the path is not in its one canonical form"),
    ("edge.query_refused", "a query parameter is unknown, repeated or malformed"),
    ("edge.rate_exceeded", "a caller has sent more requests than it may in a minute"),
    ("edge.refused_otherwise", "refused for reasons too many to be counted apart"),
    ("edge.route_unknown", "no route has this path"),
    ("edge.config_invalid", "the configuration is refused"),
    ("edge.egress_failed", "the outbound client could not be set up"),
    ("edge.folder_unusable", "the folder of the installation cannot be used"),
    ("edge.listen_failed", "the address cannot be listened on"),
    ("edge.mark_unusable", "the high-water mark cannot be kept"),
    ("edge.models_unusable", "the configured models cannot be used"),
    ("edge.policy_failed", "the built-in policy could not be put in force"),
    ("edge.setup_failed", "the installation could not be set up"),
    ("edge.store_unusable", "the store cannot be opened"),
    ("edge.table_invalid", "the table of routes and acts contradicts itself"),
];

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The folder cannot be used.
    #[error("the folder {0} cannot be used")]
    Folder(PathBuf, #[source] io::Error),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] store::sqlite::OpenError),
    /// The high-water mark cannot be kept.
    #[error(transparent)]
    Mark(#[from] store::sqlite::MarkError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] custody::KeyringError),
    /// The first start did not complete.
    #[error("the installation could not be set up")]
    Setup(#[from] admin::AdminError),
    /// The outbound client cannot be set up.
    #[error("the outbound client could not be set up")]
    Egress(#[from] egress::SetupError),
    /// The configured models cannot be used.
    #[error("the configured models cannot be used")]
    Models(#[from] providers::ProvidersError),
    /// No policy could be put in force.
    #[error("no policy could be put in force")]
    Policy(#[from] policy::PolicyError),
    /// The table contradicts itself; a bug of this build.
    #[error("the table of routes and acts contradicts itself: {}", .0.join("; "))]
    Table(Vec<String>),
    /// The address cannot be listened on.
    #[error("{0} cannot be listened on")]
    Listen(SocketAddr, #[source] io::Error),
}

impl StartError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Config(_) => "edge.config_invalid",
            StartError::Folder(..) => "edge.folder_unusable",
            StartError::Store(_) => "edge.store_unusable",
            StartError::Mark(_) => "edge.mark_unusable",
            StartError::Keys(error) => error.code(),
            StartError::Setup(_) => "edge.setup_failed",
            StartError::Egress(_) => "edge.egress_failed",
            StartError::Models(_) => "edge.models_unusable",
            StartError::Policy(_) => "edge.policy_failed",
            StartError::Table(_) => "edge.table_invalid",
            StartError::Listen(..) => "edge.listen_failed",
        }
    }
}

/// A server that serves. Dropping it stops everything where it stands; [`Running::shutdown`] ends it in order.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The administrator's key, at the first start only. It also stands in `admin.key` in the folder.
    pub admin_key: Option<String>,
    /// Fingerprint of the trust file for the first tenant's log: to be compared over another channel before anybody
    /// believes a bundle.
    pub trust_fingerprint: String,
    /// The house behind it.
    pub house: House,
    /// In the order in which they are ended.
    stages: Vec<Stage>,
    /// Ended last, so that it hears the end of all others; nothing else depends on it.
    observing: Option<Stage>,
}

/// Tasks that end together.
struct Stage {
    name: &'static str,
    stop: watch::Sender<bool>,
    set: JoinSet<()>,
}

impl Stage {
    fn new(name: &'static str) -> (Stage, watch::Receiver<bool>) {
        let (stop, stopping) = watch::channel(false);
        (Stage { name, stop, set: JoinSet::new() }, stopping)
    }

    async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.set.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!(stage = self.name, "a part of the server panicked");
            }
        }
    }
}

/// Most acts under way at once, besides what connections bound.
const ACTS_MAX: usize = 4096;

/// An installation that is there and does not serve.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Whether it was made, or its making completed, now.
    pub created: bool,
    /// Fingerprint of the trust file for the first tenant's log.
    pub trust_fingerprint: String,
}

/// Makes an installation without serving it: folder, signing keys, administrator's key, first tenant. One that exists is
/// opened and left as it is.
///
/// # Errors
/// As [`serve`], and if a server is running in the folder.
pub async fn init(config: Config, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Installed, StartError> {
    let assemble::Assembled { house, admin_key } = assemble::assemble(config, clock, ids).await?;
    let trust = house.evidence.trust(&house.store, &house.config.first_tenant).await;
    let trust_fingerprint = trust.map_err(admin::AdminError::Read)?.fingerprint();
    Ok(Installed { created: admin_key.is_some(), trust_fingerprint })
}

/// Starts a server: opens or creates the installation, puts a policy in force, listens.
pub async fn serve(config: Config, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Running, StartError> {
    serve_observed(config, clock, ids, None).await
}

/// [`serve`], with the outlet of the tap that listens to this process's spans, if there is one.
pub async fn serve_observed(
    config: Config,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    outlet: Option<telemetry::Outlet>,
) -> Result<Running, StartError> {
    config.check()?;
    // Before anything is made: who cannot listen need not begin.
    let listener =
        TcpListener::bind(config.listen).await.map_err(|error| StartError::Listen(config.listen, error))?;
    let addr = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
    let assemble::Assembled { house, admin_key } = assemble::assemble(config, clock, ids).await?;
    let limits = &house.config.limits;
    let (mut door, door_stopping) = Stage::new("http");
    let (mut pool, pool_stopping) = Stage::new("jobs");
    let (mut background, background_stopping) = Stage::new("rounds");

    let observing = observing(&house, outlet)?;
    let (hand, jobs) = workers::Pool::new(
        house.store.clone(),
        house.harness.clock().clone(),
        house.counts.clone(),
        &house.jobs(),
        limits.jobs,
        limits.jobs_held,
    );
    // A queue first, so that nothing is lost; then a policy, or the first job would find everything denied; then workers.
    house.harness.workers_set(move |lease| hand.over(lease));
    policy::boot(
        &house.harness,
        house.custody.keyring(),
        house.config.policy_ttl_ms,
        house.config.policy_reset,
    )
    .await?;
    rounds::settle(&house).await;
    if let Some(why) = house.gate.why() {
        tracing::error!(
            why,
            "this installation was put back: nothing is done until `writ epoch open`; see evidence.put_back"
        );
    }
    let run = jobs.run(pool_stopping.clone(), Duration::from_millis(limits.shutdown_ms));
    pool.set.spawn(rounds::behind_gate(&house, &pool_stopping, run));
    rounds::start(&house, &mut background.set, &background_stopping);
    let trust = house.evidence.trust(&house.store, &house.config.first_tenant).await;
    let trust_fingerprint = trust.map_err(admin::AdminError::Read)?.fingerprint();
    let app = Arc::new(http::App {
        acts: tasks::Tasks::new(ACTS_MAX),
        streams: tasks::Tasks::new(limits.streams),
        hosts: http::guard::Hosts::of(addr, &house.config.hosts),
        rates: http::rate::Rates::new(limits.requests_per_minute),
        stopping: door_stopping,
        house: house.clone(),
    });
    door.set.spawn(http::listen::serve(listener, app));
    tracing::info!(%addr, installation = house.config.installation, "serving");
    let stages = vec![door, pool, background];
    Ok(Running { addr, admin_key, trust_fingerprint, house, stages, observing })
}

/// The task that sends telemetry, if there is somebody to send it to.
fn observing(house: &House, outlet: Option<telemetry::Outlet>) -> Result<Option<Stage>, StartError> {
    let wanted = &house.config.telemetry;
    let Some(otlp) = &wanted.otlp else { return Ok(None) };
    let unusable = |why: String| StartError::Config(config::ConfigError::Refused { field: "telemetry", why });
    let credential = match &wanted.credential {
        None => None,
        Some(config::SecretRef::Env(name)) => {
            let token =
                std::env::var(name).map_err(|_| unusable(format!("the variable {name} is not set")))?;
            Some(zeroize::Zeroizing::new(token))
        }
        // Refused by the check of the configuration.
        Some(config::SecretRef::Custody(_)) => {
            return Err(unusable("a collector's token is not in custody".into()));
        }
    };
    let (harness, config) = (&house.harness, &house.config);
    let instance = harness.ids().id("ins", harness.now_ms()).to_string();
    let resource =
        telemetry::Resource::new(&config.installation, &config.cell, &config.environment, instance);
    let exporter = telemetry::Exporter::new(
        house.egress.clone(),
        otlp,
        credential,
        outlet,
        house.counts.clone(),
        resource,
        harness.clock().clone(),
        Duration::from_millis(wanted.metrics_every_ms),
    );
    let exporter = exporter.map_err(|error| unusable(error.to_string()))?;
    let (mut stage, stopping) = Stage::new("telemetry");
    stage.set.spawn(exporter.run(stopping));
    Ok(Some(stage))
}

impl Running {
    /// Waits until a part of the server has ended by itself, which none should: time to shut down and be started anew.
    pub async fn broken(&mut self) -> &'static str {
        let ends = self.stages.iter_mut().map(|stage| {
            Box::pin(async {
                // A stage without tasks ends nothing.
                if stage.set.join_next().await.is_none() {
                    std::future::pending::<()>().await;
                }
                stage.name
            })
        });
        futures::future::select_all(ends).await.0
    }

    /// Ends everything in order: lets nobody in any more and answers who is in, finishes jobs, records what is left.
    pub async fn shutdown(self) {
        for stage in self.stages {
            stage.end().await;
        }
        rounds::last(&self.house).await;
        tracing::info!("stopped");
        if let Some(observing) = self.observing {
            observing.end().await;
        }
    }
}
