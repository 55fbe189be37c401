//! Governed workflows: events become runs, runs become calls, and every call is decided, recorded and executed once.
//!
//! | module | what it is |
//! |---|---|
//! | [`workflow`] | what shall happen, as data: YAML, checked, versioned, pinned |
//! | [`artifact`] | manifests and workflow versions as signed, pinned bytes |
//! | [`connector`] | what an outside system can be asked to do, as data, and one request made of it |
//! | [`effect`] | names of effects, and what may be believed about a call |
//! | [`run`] | runs, the engine, and the acts by which a run reaches outside |
//! | [`hook`] | signed deliveries that start runs |
//! | [`template`], [`schema`], [`yaml`] | the small languages, each total and bounded |
//!
//! No code of a tenant runs here: a workflow names steps, a template fills in values, a manifest says how an action looks
//! on the wire. Whether a call may happen is never said here either; that is policy's, asked at each call.

pub mod artifact;
pub mod connector;
pub mod effect;
pub mod hook;
pub mod run;
pub mod schema;
pub mod template;
pub mod workflow;
pub mod yaml;

use act::{Domain, JobSpec};
use contracts::models::ModelCalls;
use custody::Custody;
use egress::Egress;
use futures::FutureExt as _;
use harness::Harness;
use std::sync::Arc;

/// What flows needs of the house.
#[derive(Clone)]
pub struct Deps {
    /// Carries out acts.
    pub harness: Harness,
    /// The way out.
    pub egress: Egress,
    /// Opens credentials.
    pub custody: Custody,
    /// Calls models.
    pub models: Arc<dyn ModelCalls>,
    /// Hosts (`host` or `host:port`) that may stand for private addresses, from the installation's configuration.
    pub private_hosts: Arc<[String]>,
}

/// Codes that an operator may meet.
pub const CODES: &[(&str, &str)] = &[
    ("flows.run_state", "the run is not in a state in which this could be done"),
    ("flows.connector_removed", "the connector that the run is pinned to has been removed"),
    (
        "flows.connector_unready",
        "a connector that the workflow calls is not installed, or not in the version it pins",
    ),
    ("flows.workflow_unready", "a workflow that a step runs is not published, or it runs too many others"),
    ("flows.strand_depth", "branches and workflows stand in one another deeper than a run may go"),
    (
        "flows.record_changed",
        "the record is no longer as it was seen: somebody else has changed it meanwhile",
    ),
    ("flows.unchanged_unreadable", "the action says no way to look whether something has changed"),
    ("flows.params_invalid", "the parameters of a call do not fit the action's schema"),
    ("flows.template_failed", "a template of the workflow failed on this run's data"),
    ("flows.credential", "the credential of a connector could not be opened or used"),
    ("flows.tool_changed", "the definition of a tool has changed and nobody has agreed to the change"),
    ("flows.token_refused", "the system grants no token to the connector's client"),
    ("flows.token_unavailable", "the system was asked for a token and gave no answer that can be used"),
    ("flows.base_url", "the address of a connector is not allowed any more"),
    ("flows.action_missing", "the connector version has no such action"),
    ("flows.pin_missing", "the workflow names a model pin that it does not have"),
    ("flows.step_missing", "the pinned workflow version has no such step"),
    ("flows.step_failed", "a step failed and the workflow sends that to the dead letters"),
    ("flows.run_deadline", "the run has used up its time"),
    ("flows.step_deadline", "a call that was permitted could not be made in the time of its step"),
    ("flows.cost_limit", "the run has spent more than its workflow allows"),
    ("flows.poison", "the run was started too often without ever finishing a step"),
    ("flows.call_lost", "the process that made a call is gone and nobody knows what became of the call"),
    ("flows.outcome_unknown", "nobody can tell whether a call had its effect; a person has to look"),
    ("flows.effect_not_seen", "an effect was looked for and not seen yet"),
    ("flows.effect_absent", "an effect was looked for and is not there"),
    ("flows.field_dropped", "the other system said yes and did not write a field"),
    ("flows.output_too_large", "the reply of the other system is larger than a step may keep"),
    ("flows.reply_unreadable", "the reply of the other system cannot be read"),
    ("flows.breaker_open", "the connector has failed too often; nobody calls it for a while"),
    ("flows.poll_stuck", "the other system gives the same page whatever offset it is asked for"),
    ("flows.throttled", "the other system asks to be called later"),
    ("flows.unauthenticated", "the other system does not accept the credential"),
    ("flows.forbidden", "the other system does not let this user do this"),
    ("flows.not_there", "the other system has no such thing"),
    ("flows.rejected", "the other system does not accept the request"),
    ("flows.status_unexpected", "the other system answered with a status that the connector does not know"),
    ("flows.upstream_failed", "the other system failed"),
    ("flows.manifest_invalid", "the manifest of a connector is refused"),
    ("flows.workflow_invalid", "the workflow is refused"),
    ("flows.workflow_retired", "the workflow has been retired and starts no runs"),
    ("flows.login_address", "a connector's login is not kept when its address changes"),
    ("flows.trigger_full", "sixteen workflows are started by the event already"),
    ("flows.call_mismatch", "a call is not the one that its run is about to make"),
    ("flows.checkpoint_open", "a checkpoint is passed by people, never by itself"),
    ("artifact.malformed", "a text is no signed artifact"),
    ("artifact.unsigned", "an artifact bears no signature"),
    ("artifact.key_unknown", "an artifact is signed by a key that the tenant does not know, or has revoked"),
    ("artifact.signature", "an artifact's signature does not fit its bytes"),
    ("artifact.altered", "the same name and version is known with other bytes"),
    ("artifact.older", "an older version than the installed one is only installed if that is said"),
    ("artifact.yanked", "the version has been yanked and is not installed anew"),
    ("artifact.key_invalid", "a text is no Ed25519 public key"),
    ("hook.unknown", "there is no such hook, or it has no secret"),
    ("hook.headers", "a delivery lacks a header, or has one twice"),
    ("hook.stale", "a delivery's timestamp is more than five minutes off"),
    ("hook.signature", "a delivery's signature does not fit"),
    ("hook.body", "a delivery's body is no event of this connector"),
    ("hook.too_large", "a delivery is larger than 64 KiB"),
];

/// The domain's table.
pub fn domain(deps: Deps) -> Domain {
    let logins = Arc::new(connector::login::Logins::default());
    let engine = Arc::new(run::engine::Engine::new(deps.clone(), logins.clone()));
    let joins = engine.clone();
    let poller = Arc::new(connector::poll::Poller::new(deps.clone(), logins));
    Domain {
        name: "flows",
        kinds: &[
            "flows.run",
            "flows.workflow",
            "flows.workflow_version",
            "flows.trigger",
            "flows.signal",
            "flows.breaker",
            "flows.poll",
            "flows.connector",
            "flows.connector_version",
            "flows.artifact",
            "flows.artifact_key",
        ],
        facts: &[
            "flows.workflow.published",
            "flows.workflow.retired",
            "flows.connector.installed",
            "flows.connector.removed",
            "flows.tool.approved",
            "flows.artifact.published",
            "flows.artifact.yanked",
            "flows.artifact_key.registered",
            "flows.artifact_key.revoked",
            "flows.event.ignored",
            "flows.poll.asked",
            "flows.poll.finished",
            "flows.run.created",
            "flows.run.finished",
            "flows.run.dead",
            "flows.run.replayed",
            "flows.run.signalled",
            "flows.branch.ended",
            "flows.breaker.opened",
            "flows.breaker.probed",
            "flows.breaker.closed",
            "flows.step.finished",
            "flows.step.waiting",
            "flows.step.resumed",
            "flows.step.retried",
            "flows.step.dropped",
            "flows.tool.intended",
            "flows.tool.reconciling",
            "flows.tool.finished",
            "flows.tool.rehearsed",
        ],
        verbs: [
            run::verbs::verbs(),
            run::gate::verbs(),
            run::breaker::verbs(),
            workflow::verbs::verbs(&deps),
            artifact::verbs::verbs(&deps),
            connector::verbs::verbs(&deps),
        ]
        .concat(),
        routes: [
            run::routes::routes(),
            run::letters::routes(),
            run::breaker::routes(),
            hook::routes(&deps),
            workflow::routes::routes(),
            connector::routes::routes(),
            artifact::routes::routes(),
        ]
        .concat(),
        jobs: vec![
            JobSpec {
                kind: &run::STEP,
                run: Arc::new(move |lease| {
                    let engine = engine.clone();
                    async move { engine.drive(lease).await }.boxed()
                }),
            },
            JobSpec {
                kind: &connector::poll::POLL,
                run: Arc::new(move |lease| {
                    let poller = poller.clone();
                    async move { poller.poll(lease).await }.boxed()
                }),
            },
            JobSpec {
                kind: &run::JOIN,
                run: Arc::new(move |lease| {
                    let engine = joins.clone();
                    async move { engine.join(lease).await }.boxed()
                }),
            },
        ],
        codes: CODES,
    }
}
