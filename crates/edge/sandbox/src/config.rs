//! What a stand-in is started with. Nothing here has a default that is a credential: whoever starts a
//! sandbox chooses every secret, so that no publicly known key opens a listening port.

use std::sync::Arc;

use crate::{model::Answerer, servicenow::oauth::OauthConfig, slack::SlackConfig};

/// The time, in milliseconds UTC. Injected, so that a test's records carry the times that the test chose.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The first incident number, as on a fresh instance: `INC0010001`.
pub const FIRST_NUMBER: u64 = 10_001;

/// The secrets that callers must present, and the one that signs webhooks.
#[derive(Clone)]
pub struct Credentials {
    /// User name of the integration user (HTTP Basic), also what `sys_updated_by` shows for its writes.
    pub user_name: String,
    /// Password of the integration user (HTTP Basic).
    pub password: String,
    /// The token accepted as `Authorization: Bearer` by the ServiceNow stand-in.
    pub bearer_token: String,
    /// The key accepted by the model stand-ins: as `Authorization: Bearer`, `api-key` or `x-api-key`, as the vendor has it.
    pub model_key: String,
    /// Signing secret of outgoing webhooks, `whsec_<base64>` (Standard Webhooks; 24 to 64 bytes once decoded).
    pub webhook_secret: String,
    /// The token that guards `/_sandbox/`.
    pub control_token: String,
}

/// A person of the stand-in instance (`sys_user`).
#[derive(Clone, Debug)]
pub struct Person {
    /// `user_name`, the login.
    pub user_name: String,
    /// `name`, the display value.
    pub name: String,
}

/// How the ServiceNow stand-in is set up.
#[derive(Clone)]
pub struct ServiceNowConfig {
    /// The instance name that webhooks carry.
    pub instance: String,
    /// Display name of the integration user.
    pub integration_name: String,
    /// What ids are made from beside their number. The same text gives the same ids, for fixtures; a stand-in that is started
    /// again for the same installation needs another one, or its new records are taken for those it had before.
    pub ids: String,
    /// Assignment groups that exist (`sys_user_group.name`).
    pub groups: Vec<String>,
    /// Further people; the integration user is added by itself.
    pub people: Vec<Person>,
    /// Fields that the integration user may not write, as `table.field`. Such a value is dropped without a
    /// word and the reply is a 200, as an ACL of a real instance does.
    pub protected_fields: Vec<String>,
    /// The system property `glide.invalid_query.returns_no_rows`. False, the vendor's default: a condition
    /// on an unknown field is ignored, and the query may return every row.
    pub invalid_query_returns_no_rows: bool,
    /// A client that may fetch tokens; without one the instance grants none.
    pub oauth: Option<OauthConfig>,
}

/// How the model stand-in is set up.
#[derive(Clone)]
pub struct ModelConfig {
    /// The alias that callers ask for; on Azure, the deployment.
    pub name: String,
    /// The dated version that the reply names, e.g. `stand-in-2026-11-01`. Callers may ask for it as well.
    pub version: String,
    /// The version that the reply names under [`crate::Fault::WrongModel`].
    pub wrong_version: String,
    /// The property that [`crate::Fault::UnknownGroup`] overwrites.
    pub group_property: String,
    /// Where answers come from. The default is [`crate::keyword_answer`], a keyword rule and no model.
    pub answer: Answerer,
}

/// All of a sandbox's configuration.
#[derive(Clone)]
pub struct Config {
    /// Port on 127.0.0.1; 0 lets the system choose one.
    pub port: u16,
    /// Where the time comes from.
    pub clock: Clock,
    /// Secrets.
    pub credentials: Credentials,
    /// The ServiceNow stand-in.
    pub servicenow: ServiceNowConfig,
    /// The model stand-in.
    pub model: ModelConfig,
    /// The Slack stand-in; without it there is none.
    pub slack: Option<SlackConfig>,
}

impl Config {
    /// A sandbox with the given clock and secrets, a free port, eight assignment groups and two people.
    pub fn new(clock: Clock, credentials: Credentials) -> Config {
        let groups = [
            "Access",
            "Administrative rights",
            "HR Support",
            "Hardware",
            "Internal Project",
            "Miscellaneous",
            "Purchase",
            "Storage",
        ];
        let person = |user_name: &str, name: &str| Person { user_name: user_name.into(), name: name.into() };
        Config {
            port: 0,
            clock,
            credentials,
            servicenow: ServiceNowConfig {
                instance: "stand-in".into(),
                integration_name: "Integration User".into(),
                ids: String::new(),
                groups: groups.map(String::from).to_vec(),
                people: vec![person("beth.anglin", "Beth Anglin"), person("service.desk", "Service Desk")],
                protected_fields: Vec::new(),
                invalid_query_returns_no_rows: false,
                oauth: None,
            },
            model: ModelConfig {
                name: "stand-in".into(),
                version: "stand-in-2026-11-01".into(),
                wrong_version: "stand-in-2025-01-01".into(),
                group_property: "assignment_group".into(),
                answer: Arc::new(crate::model::keyword_answer),
            },
            slack: None,
        }
    }
}
