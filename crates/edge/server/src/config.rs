//! What an installation is started with.
//!
//! One TOML file, overridden field by field by `WRIT_*` variables. It is typed, unknown fields are refused (a
//! misspelled limit must not be no limit), and no field has a default that opens a door: it listens on loopback, private
//! addresses are closed to connectors, bodies and waits are bounded. Secrets stand here by reference only
//! ([`SecretRef`]), so that the file can be shown, copied and put under version control.
//!
//! Those who add a field: give it a default and a unit in [`Config`], a row in [`ENVIRONMENT`], a documented line in
//! `writ.example.toml`. Tests hold the three together.

use crate::telemetry::{self, METRICS_EVERY_DEFAULT_MS};
use custody::CredentialRef;
use kernel::TenantId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use store::Sequencing;

/// Shortest time that the built-in policy is in force; a third of it must leave time to sign and record the next.
pub const POLICY_TTL_MIN_MS: i64 = 30_000;
/// Longest; a policy that nobody renews shall not go on for days.
pub const POLICY_TTL_MAX_MS: i64 = 24 * 60 * 60 * 1000;
/// Least room that an installation can be given, in bytes.
pub const STORAGE_BYTES_MIN: u64 = 4 << 20;
/// Shortest time between two sendings of counts, milliseconds.
pub const METRICS_EVERY_MIN_MS: u64 = 100;
/// Longest.
pub const METRICS_EVERY_MAX_MS: u64 = 60 * 60 * 1000;
/// Most requests in a minute that a principal can be given.
pub const REQUESTS_PER_MINUTE_MAX: u32 = 1_000_000;
/// Largest configuration file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why a configuration is refused. Codes: `edge.config_invalid`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// It is not the TOML that is expected; the text names line and field.
    #[error("the configuration does not fit: {0}")]
    Form(String),
    /// A variable has no such value.
    #[error("the variable {0} does not fit: {1}")]
    Variable(&'static str, String),
    /// A field has a value that would not be safe or cannot work.
    #[error("the configuration's {field} is refused: {why}")]
    Refused {
        /// The field, as in the file.
        field: &'static str,
        /// Why.
        why: String,
    },
}

/// Everything an installation is started with. See `writ.example.toml` for units and defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of everything that is kept. Default `writ-data`.
    pub folder: PathBuf,
    /// File of the high-water mark, by which a start sees that an older folder was put in this one's place; better on
    /// another disk. Empty: beside the folder, with its name and `.high-water`. Default empty.
    pub high_water_file: PathBuf,
    /// Folder that `writ backup create` writes to. Empty: `backups` in the folder. Default empty.
    pub backup_folder: PathBuf,
    /// Where to listen. Default `127.0.0.1:8787`.
    pub listen: SocketAddr,
    /// A proxy in front ends TLS; without it only loopback is listened on. Default false.
    pub tls_terminated_upstream: bool,
    /// Names that a Host header may have besides the loopback ones. Default none.
    pub hosts: Vec<String>,
    /// Name of the installation, first part of every log's origin. Default `writ.local`.
    pub installation: String,
    /// Name of the cell, second part of every log's origin. Default `local`.
    pub cell: String,
    /// What policies see as `context.environment`. Default `development`.
    pub environment: String,
    /// The first tenant. Default `ten_main`.
    pub first_tenant: TenantId,
    /// When facts get their place in the log. Default immediate.
    pub sequencing: SequencingMode,
    /// How long the built-in policy is in force after it was signed, milliseconds. Default 15 minutes.
    pub policy_ttl_ms: i64,
    /// At this start, put the built-in policy in force even if another was published. Default false.
    pub policy_reset: bool,
    /// Private destinations, `host` or `host:port`, that connectors, models and webhooks may have. Default none.
    pub private_hosts: Vec<String>,
    /// Bounds of everything that a stranger could make large.
    pub limits: Limits,
    /// Where models are. Default none: models of no provider, the baseline untrained.
    pub models: Models,
    /// Where traces, logs and counts go. Default nowhere.
    pub telemetry: Telemetry,
}

/// Where telemetry goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Base address of an OpenTelemetry collector that takes OTLP over HTTP, as `http://127.0.0.1:4318`. Default none.
    pub otlp: Option<String>,
    /// Where the token is that the collector wants, `env:NAME`. Default none.
    pub credential: Option<SecretRef>,
    /// How often counts are sent, milliseconds. Default a minute.
    pub metrics_every_ms: u64,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry { otlp: None, credential: None, metrics_every_ms: METRICS_EVERY_DEFAULT_MS }
    }
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, bytes. Default 256 KiB.
    pub body_bytes: usize,
    /// Largest request head, bytes. Default 32 KiB.
    pub header_bytes: usize,
    /// Most headers of a request. Default 64.
    pub headers: usize,
    /// How long a head may take to arrive, and a connection be idle, milliseconds. Default 30 s.
    pub header_read_ms: u64,
    /// How long a body may take to arrive, milliseconds. Default 30 s.
    pub body_read_ms: u64,
    /// Most connections at once. Default 1024.
    pub connections: usize,
    /// Most requests of one principal in a minute, evenly given back. Default 6000.
    pub requests_per_minute: u32,
    /// Most event streams at once. Default 256.
    pub streams: usize,
    /// Most running jobs. Default 32.
    pub jobs: usize,
    /// Most leases waiting for a worker. Default 4096.
    pub jobs_held: usize,
    /// What is on its way at shutdown gets this long, milliseconds. Default 10 s.
    pub shutdown_ms: u64,
    /// How long a webhook's target may take for one delivery, milliseconds. Default 10 s.
    pub webhook_call_ms: u64,
    /// Most that the database file may take of its disk, bytes; 0 is as far as the disk goes. Default 0.
    pub storage_bytes: u64,
}

impl Limits {
    /// The bound of the database in pages, if there is one.
    pub fn storage_pages(&self) -> Option<u32> {
        let pages = self.storage_bytes / store::sqlite::PAGE_BYTES;
        // More than the engine can count is no bound.
        u32::try_from(pages).ok().filter(|pages| *pages > 0)
    }
}

/// When facts get their place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SequencingMode {
    /// In the commit that states them.
    #[default]
    Immediate,
    /// A moment later, by a worker.
    Deferred,
}

impl From<SequencingMode> for Sequencing {
    fn from(mode: SequencingMode) -> Sequencing {
        match mode {
            SequencingMode::Immediate => Sequencing::Immediate,
            SequencingMode::Deferred => Sequencing::Deferred,
        }
    }
}

/// Where models are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Examples that the baseline model learns from: a CSV file with the columns `id, document, topic_group`.
    pub baseline_training: Option<PathBuf>,
    /// Whether providers are asked to stream their answers: one that died is then noticed sooner. Default no.
    pub stream: bool,
    /// Models that may stand in for others, where policy allows it too. At most 32.
    pub fallback: Vec<ModelFallback>,
    /// A provider that speaks the OpenAI dialect, pinned as `openai/<model>`.
    pub openai: Option<OpenAi>,
    /// OpenAI's models on Azure, pinned as `azure-openai/<deployment>`.
    pub azure_openai: Option<AzureOpenAi>,
    /// A provider that speaks the Anthropic dialect, pinned as `anthropic/<model>`.
    pub anthropic: Option<Anthropic>,
}

/// OpenAI's models on Azure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureOpenAi {
    /// Address of the resource, as `https://triage.openai.azure.com`.
    pub base_url: String,
    /// Where its key is.
    pub credential: SecretRef,
    /// `api-version` of the dated API. Default none: the version-less API.
    #[serde(default)]
    pub api_version: Option<String>,
}

/// A provider that speaks the Anthropic dialect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anthropic {
    /// Base address, as `https://api.anthropic.com`.
    pub base_url: String,
    /// Where its key is.
    pub credential: SecretRef,
}

/// A model that may stand in for another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFallback {
    /// The `provider/model` that did not answer.
    pub of: String,
    /// The `provider/model` that is asked instead.
    pub to: String,
    /// Names that its provider may report for it.
    #[serde(default)]
    pub accepts: Vec<String>,
}

/// A provider that speaks the OpenAI dialect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAi {
    /// Base address, as `https://api.openai.com/v1`.
    pub base_url: String,
    /// Where its key is.
    pub credential: SecretRef,
}

/// Where a secret is. The secret itself never stands in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// `env:NAME`: in this variable of the process.
    Env(String),
    /// `secret:NAME`: in custody, as a secret of the tenant that acts.
    Custody(CredentialRef),
}

impl TryFrom<String> for SecretRef {
    type Error = String;
    fn try_from(text: String) -> Result<SecretRef, String> {
        let name_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= 80
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        // The text itself is not repeated: it may be the secret, put in the wrong place.
        let named = match text.split_once(':') {
            Some(("env", name)) if name_ok(name) => Some(SecretRef::Env(name.to_owned())),
            _ => CredentialRef::parse(&text).ok().map(SecretRef::Custody),
        };
        named.ok_or_else(|| "a secret is named as env:NAME or secret:NAME".to_owned())
    }
}

impl From<SecretRef> for String {
    fn from(secret: SecretRef) -> String {
        match secret {
            SecretRef::Env(name) => format!("env:{name}"),
            SecretRef::Custody(reference) => reference.to_string(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            folder: PathBuf::from("writ-data"),
            high_water_file: PathBuf::new(),
            backup_folder: PathBuf::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8787)),
            tls_terminated_upstream: false,
            hosts: Vec::new(),
            installation: "writ.local".to_owned(),
            cell: "local".to_owned(),
            environment: "development".to_owned(),
            // A constant of the grammar; a test reads it back.
            first_tenant: TenantId::parse("ten_main").unwrap_or_else(|_| TenantId::platform()),
            sequencing: SequencingMode::Immediate,
            policy_ttl_ms: 15 * 60 * 1000,
            policy_reset: false,
            private_hosts: Vec::new(),
            limits: Limits::default(),
            models: Models::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 256 * 1024,
            header_bytes: 32 * 1024,
            headers: 64,
            header_read_ms: 30_000,
            body_read_ms: 30_000,
            connections: 1024,
            requests_per_minute: 6000,
            streams: 256,
            jobs: 32,
            jobs_held: 4096,
            shutdown_ms: 10_000,
            webhook_call_ms: 10_000,
            storage_bytes: 0,
        }
    }
}

/// Sets a field from a variable's text.
type Setter = fn(&mut Config, &str) -> Result<(), String>;

/// Every variable and its field.
pub const ENVIRONMENT: &[(&str, Setter)] = &[
    ("WRIT_FOLDER", |config, text| put(&mut config.folder, Ok(PathBuf::from(text)))),
    ("WRIT_HIGH_WATER_FILE", |config, text| put(&mut config.high_water_file, Ok(PathBuf::from(text)))),
    ("WRIT_BACKUP_FOLDER", |config, text| put(&mut config.backup_folder, Ok(PathBuf::from(text)))),
    ("WRIT_LISTEN", |config, text| put(&mut config.listen, parsed(text))),
    ("WRIT_TLS_TERMINATED_UPSTREAM", |config, text| put(&mut config.tls_terminated_upstream, parsed(text))),
    ("WRIT_HOSTS", |config, text| put(&mut config.hosts, Ok(list(text)))),
    ("WRIT_INSTALLATION", |config, text| put(&mut config.installation, Ok(text.to_owned()))),
    ("WRIT_CELL", |config, text| put(&mut config.cell, Ok(text.to_owned()))),
    ("WRIT_ENVIRONMENT", |config, text| put(&mut config.environment, Ok(text.to_owned()))),
    ("WRIT_FIRST_TENANT", |config, text| {
        put(&mut config.first_tenant, TenantId::parse(text).map_err(|error| error.to_string()))
    }),
    ("WRIT_SEQUENCING", |config, text| {
        config.sequencing = match text {
            "immediate" => SequencingMode::Immediate,
            "deferred" => SequencingMode::Deferred,
            _ => return Err("it is immediate or deferred".to_owned()),
        };
        Ok(())
    }),
    ("WRIT_POLICY_TTL_MS", |config, text| put(&mut config.policy_ttl_ms, parsed(text))),
    ("WRIT_POLICY_RESET", |config, text| put(&mut config.policy_reset, parsed(text))),
    ("WRIT_PRIVATE_HOSTS", |config, text| put(&mut config.private_hosts, Ok(list(text)))),
    ("WRIT_LIMITS_BODY_BYTES", |config, text| put(&mut config.limits.body_bytes, parsed(text))),
    ("WRIT_LIMITS_HEADER_BYTES", |config, text| put(&mut config.limits.header_bytes, parsed(text))),
    ("WRIT_LIMITS_HEADERS", |config, text| put(&mut config.limits.headers, parsed(text))),
    ("WRIT_LIMITS_HEADER_READ_MS", |config, text| put(&mut config.limits.header_read_ms, parsed(text))),
    ("WRIT_LIMITS_BODY_READ_MS", |config, text| put(&mut config.limits.body_read_ms, parsed(text))),
    ("WRIT_LIMITS_CONNECTIONS", |config, text| put(&mut config.limits.connections, parsed(text))),
    ("WRIT_LIMITS_REQUESTS_PER_MINUTE", |config, text| {
        put(&mut config.limits.requests_per_minute, parsed(text))
    }),
    ("WRIT_LIMITS_STREAMS", |config, text| put(&mut config.limits.streams, parsed(text))),
    ("WRIT_LIMITS_JOBS", |config, text| put(&mut config.limits.jobs, parsed(text))),
    ("WRIT_LIMITS_JOBS_HELD", |config, text| put(&mut config.limits.jobs_held, parsed(text))),
    ("WRIT_LIMITS_WEBHOOK_CALL_MS", |config, text| put(&mut config.limits.webhook_call_ms, parsed(text))),
    ("WRIT_LIMITS_SHUTDOWN_MS", |config, text| put(&mut config.limits.shutdown_ms, parsed(text))),
    ("WRIT_LIMITS_STORAGE_BYTES", |config, text| put(&mut config.limits.storage_bytes, parsed(text))),
    ("WRIT_MODELS_BASELINE_TRAINING", |config, text| {
        put(&mut config.models.baseline_training, Ok(Some(PathBuf::from(text))))
    }),
    ("WRIT_MODELS_OPENAI_BASE_URL", |config, text| put(&mut openai(config).base_url, Ok(text.to_owned()))),
    ("WRIT_MODELS_OPENAI_CREDENTIAL", |config, text| {
        put(&mut openai(config).credential, SecretRef::try_from(text.to_owned()))
    }),
    ("WRIT_TELEMETRY_OTLP", |config, text| put(&mut config.telemetry.otlp, Ok(Some(text.to_owned())))),
    ("WRIT_TELEMETRY_CREDENTIAL", |config, text| {
        put(&mut config.telemetry.credential, SecretRef::try_from(text.to_owned()).map(Some))
    }),
    ("WRIT_TELEMETRY_METRICS_EVERY_MS", |config, text| {
        put(&mut config.telemetry.metrics_every_ms, parsed(text))
    }),
    ("WRIT_MODELS_STREAM", |config, text| put(&mut config.models.stream, parsed(text))),
];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The message with its line. Neither the line nor a value of it is shown: somebody may have put a secret there.
fn placed(error: &toml::de::Error, text: &str) -> String {
    // `invalid type: string "sk-…", expected u64`: what stands behind the last comma is ours.
    let message = match error.message().rsplit_once(", expected ") {
        Some((said, expected)) if !said.starts_with("unknown field") => format!("expected {expected}"),
        _ => error.message().to_owned(),
    };
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn openai(config: &mut Config) -> &mut OpenAi {
    config.models.openai.get_or_insert_with(|| OpenAi {
        base_url: "https://api.openai.com/v1".to_owned(),
        credential: SecretRef::Env("OPENAI_API_KEY".to_owned()),
    })
}

impl Config {
    /// The documented example: every field with its default.
    pub fn example() -> &'static str {
        include_str!("../writ.example.toml")
    }

    /// Reads a file and the variables, and checks the result. Without a file, the defaults.
    pub fn load(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let text = match path {
            None => String::new(),
            Some(path) => {
                let file = |error| ConfigError::File(path.to_owned(), error);
                if std::fs::metadata(path).map_err(file)?.len() > FILE_BYTES_MAX {
                    return Err(ConfigError::Form(format!("it has more than {FILE_BYTES_MAX} bytes")));
                }
                std::fs::read_to_string(path).map_err(file)?
            }
        };
        Config::parse(&text, variables)
    }

    /// Reads a text and the variables, and checks the result. Variables that are not of [`ENVIRONMENT`] are not looked at.
    pub fn parse(
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut config: Config =
            toml::from_str(text).map_err(|error| ConfigError::Form(placed(&error, text)))?;
        let given: BTreeMap<String, String> = variables.into_iter().collect();
        for (name, set) in ENVIRONMENT {
            if let Some(text) = given.get(*name) {
                set(&mut config, text).map_err(|why| ConfigError::Variable(name, why))?;
            }
        }
        config.check()?;
        Ok(config)
    }

    /// Where the high-water mark is, for a folder that exists.
    pub fn high_water(&self) -> PathBuf {
        if !self.high_water_file.as_os_str().is_empty() {
            return self.high_water_file.clone();
        }
        let folder = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        match (folder.parent(), folder.file_name()) {
            (Some(above), Some(name)) => {
                let mut name = name.to_owned();
                name.push(".high-water");
                above.join(name)
            }
            // The root of a file system has nothing beside it.
            _ => folder.join("high-water"),
        }
    }

    /// Where backups go.
    pub fn backups(&self) -> PathBuf {
        match self.backup_folder.as_os_str().is_empty() {
            true => self.folder.join("backups"),
            false => self.backup_folder.clone(),
        }
    }

    /// Whether the operator has said that this destination may be private.
    pub fn private_host(&self, host: &str, port: u16) -> bool {
        self.private_hosts.iter().any(|allowed| *allowed == host || *allowed == format!("{host}:{port}"))
    }

    /// Refuses what would not be safe or could not work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field, why: String| Err(ConfigError::Refused { field, why });
        if !self.listen.ip().is_loopback() {
            if !self.tls_terminated_upstream {
                let why = format!(
                    "{} is not loopback, and keys would travel in the clear; put a proxy that ends TLS in front and say \
                     tls_terminated_upstream = true",
                    self.listen
                );
                return refuse("listen", why);
            }
            if self.hosts.is_empty() {
                return refuse(
                    "hosts",
                    "a listener beyond loopback needs the names that it answers to".to_owned(),
                );
            }
        }
        let host_ok = |host: &String| {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte)
                })
        };
        if let Some(host) = self.hosts.iter().find(|host| !host_ok(host)) {
            return refuse("hosts", format!("{host:?} is not a host name in lower case, without port"));
        }
        let private_ok = |host: &&String| {
            let name = host
                .rsplit_once(':')
                .map_or(host.as_str(), |(name, port)| if port.parse::<u16>().is_ok() { name } else { "" });
            !name.is_empty() && name.len() <= 253 && host_ok(host)
        };
        if let Some(host) = self.private_hosts.iter().find(|host| !private_ok(host)) {
            return refuse("private_hosts", format!("{host:?} is not host or host:port in lower case"));
        }
        let origin_ok = |name: &str| {
            !name.is_empty()
                && name.len() <= 80
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        for (field, name) in
            [("installation", &self.installation), ("cell", &self.cell), ("environment", &self.environment)]
        {
            if !origin_ok(name) {
                return refuse(
                    field,
                    "it has 1 to 80 letters, digits, dots, dashes and underscores".to_owned(),
                );
            }
        }
        if self.first_tenant == TenantId::platform() {
            return refuse("first_tenant", "the platform is not a tenant to work in".to_owned());
        }
        if !(POLICY_TTL_MIN_MS..=POLICY_TTL_MAX_MS).contains(&self.policy_ttl_ms) {
            return refuse(
                "policy_ttl_ms",
                format!("it is between {POLICY_TTL_MIN_MS} and {POLICY_TTL_MAX_MS}"),
            );
        }
        let models = &self.models;
        let addresses = [
            ("models.openai.base_url", models.openai.as_ref().map(|provider| &provider.base_url)),
            ("models.azure_openai.base_url", models.azure_openai.as_ref().map(|provider| &provider.base_url)),
            ("models.anthropic.base_url", models.anthropic.as_ref().map(|provider| &provider.base_url)),
            ("telemetry.otlp", self.telemetry.otlp.as_ref()),
        ];
        if let Some((field, _)) =
            addresses.iter().find(|(_, url)| url.is_some_and(|url| url.contains(['@', '?', '#'])))
        {
            // Not repeated: what stands before the @ may be a password.
            let why = "it holds a name, a password, a query or a fragment; the key is named in credential"
                .to_owned();
            return refuse(field, why);
        }
        if let Some(url) = &self.telemetry.otlp
            && let Err(error) = telemetry::rule(url)
        {
            return refuse("telemetry.otlp", format!("it is no address of a collector: {error}"));
        }
        if let Some(SecretRef::Custody(_)) = &self.telemetry.credential {
            let why = "secrets in custody are of tenants; the collector's is named as env:NAME".to_owned();
            return refuse("telemetry.credential", why);
        }
        if !(METRICS_EVERY_MIN_MS..=METRICS_EVERY_MAX_MS).contains(&self.telemetry.metrics_every_ms) {
            let why = format!("it is between {METRICS_EVERY_MIN_MS} and {METRICS_EVERY_MAX_MS}");
            return refuse("telemetry.metrics_every_ms", why);
        }
        let limits = &self.limits;
        for (field, value, least, most) in [
            ("limits.body_bytes", limits.body_bytes, 1024, 8 << 20),
            // hyper keeps at least one buffer of this size for each connection.
            ("limits.header_bytes", limits.header_bytes, 8192, 1 << 20),
            ("limits.headers", limits.headers, 16, 1024),
            ("limits.connections", limits.connections, 1, 65_536),
            ("limits.streams", limits.streams, 1, 65_536),
            ("limits.jobs", limits.jobs, 1, 256),
            ("limits.jobs_held", limits.jobs_held, 1, 65_536),
        ] {
            if !(least..=most).contains(&value) {
                return refuse(field, format!("it is between {least} and {most}"));
            }
        }
        if !(1..=REQUESTS_PER_MINUTE_MAX).contains(&limits.requests_per_minute) {
            return refuse(
                "limits.requests_per_minute",
                format!("it is between 1 and {REQUESTS_PER_MINUTE_MAX}"),
            );
        }
        if limits.storage_bytes != 0 && limits.storage_bytes < STORAGE_BYTES_MIN {
            return refuse(
                "limits.storage_bytes",
                format!(
                    "it is 0, or at least {STORAGE_BYTES_MIN}: an installation needs some room to begin with"
                ),
            );
        }
        for (field, value) in [
            ("limits.header_read_ms", limits.header_read_ms),
            ("limits.body_read_ms", limits.body_read_ms),
            ("limits.shutdown_ms", limits.shutdown_ms),
            ("limits.webhook_call_ms", limits.webhook_call_ms),
        ] {
            if !(1..=600_000).contains(&value) {
                return refuse(field, "it is between 1 and 600000".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::parse(text, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_example_is_the_default_in_full() {
        assert_eq!(with(Config::example(), &[]).unwrap(), Config::default());
        assert_eq!(with("", &[]).unwrap(), Config::default());
        // Every field of the default stands in the example, and every variable.
        let example: toml::Table = toml::from_str(Config::example()).unwrap();
        let default = toml::Table::try_from(Config::default()).unwrap();
        for (name, value) in &default {
            match value {
                toml::Value::Table(fields) if name != "models" => {
                    for field in fields.keys() {
                        assert!(example[name].get(field).is_some(), "{name}.{field}");
                    }
                }
                _ => assert!(name == "models" || example.contains_key(name), "{name}"),
            }
        }
        for (name, _) in ENVIRONMENT.iter().filter(|(name, _)| !name.starts_with("WRIT_MODELS")) {
            assert!(Config::example().contains(&format!("[{name}")), "{name}");
        }
    }

    #[test]
    fn variables_win_and_reach_every_field() {
        let config = with(
            "cell = \"file\"\n[limits]\njobs = 3\n",
            &[
                ("WRIT_CELL", "variable"),
                ("WRIT_LIMITS_JOBS", "7"),
                ("WRIT_PRIVATE_HOSTS", "127.0.0.1:1, stand-in.internal"),
                ("WRIT_MODELS_OPENAI_BASE_URL", "https://models.example/v1"),
                ("WRIT_KEY", "is of the client, and not looked at here"),
            ],
        )
        .unwrap();
        assert_eq!((config.cell.as_str(), config.limits.jobs), ("variable", 7));
        assert_eq!(config.private_hosts, ["127.0.0.1:1", "stand-in.internal"]);
        assert_eq!(config.models.openai.unwrap().credential, SecretRef::Env("OPENAI_API_KEY".into()));
    }

    #[test]
    fn refuses_what_is_unknown_or_unsafe() {
        for (text, expected) in [
            ("\nlissten = \"127.0.0.1:1\"", "line 2: unknown field `lissten`"),
            ("[limits]\nbody = 1", "body"),
            ("listen = \"0.0.0.0:8787\"", "not loopback"),
            ("listen = \"0.0.0.0:8787\"\ntls_terminated_upstream = true", "hosts"),
            ("listen = \"10.0.0.1:8787\"", "not loopback"),
            ("hosts = [\"Writ.example\"]", "lower case"),
            ("private_hosts = [\"http://127.0.0.1\"]", "private_hosts"),
            ("private_hosts = [\":80\"]", "private_hosts"),
            ("private_hosts = [\"a:http\"]", "private_hosts"),
            ("installation = \"a/b\"", "installation"),
            ("first_tenant = \"ten_platform\"", "platform"),
            ("first_tenant = \"acme\"", "not an id"),
            ("policy_ttl_ms = 0", "policy_ttl_ms"),
            ("policy_ttl_ms = 999999999999", "policy_ttl_ms"),
            ("[limits]\nbody_bytes = 0", "body_bytes"),
            ("[limits]\njobs = 100000", "limits.jobs"),
            ("[limits]\nheader_read_ms = 0", "header_read_ms"),
            ("[limits]\nrequests_per_minute = 0", "requests_per_minute"),
            ("[limits]\nstorage_bytes = 4096", "storage_bytes"),
            ("[models.openai]\nbase_url = \"https://a.example\"\ncredential = \"sk-live-1234\"", "env:NAME"),
            ("[limits]\njobs = \"sk-live-1234\"", "line 2: expected usize"),
            ("sequencing = \"sk-live-1234\"", "line 1: expected"),
            (
                "[models.openai]\nbase_url = \"https://a:sk-live-1234@a.example\"\ncredential = \"env:KEY\"",
                "models.openai.base_url",
            ),
            ("[telemetry]\notlp = \"https://a:sk-live-1234@a.example\"", "telemetry.otlp"),
            ("[telemetry]\notlp = \"collector:4318\"", "telemetry.otlp"),
            ("[telemetry]\ncredential = \"secret:otlp\"", "telemetry.credential"),
            ("[telemetry]\nmetrics_every_ms = 0", "metrics_every_ms"),
            (
                "[models.anthropic]\nbase_url = \"https://a:sk-live-1234@a.example\"\ncredential = \"env:KEY\"",
                "models.anthropic.base_url",
            ),
            (
                "[models.openai]\nbase_url = \"https://a.example?key=sk-live-1\"\ncredential = \"env:KEY\"",
                "models.openai.base_url",
            ),
        ] {
            let error = with(text, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("sk-live"), "{error}");
        }
        let error = with("", &[("WRIT_LIMITS_JOBS", "many")]).unwrap_err().to_string();
        assert!(error.contains("WRIT_LIMITS_JOBS"), "{error}");
        let open = "listen = \"0.0.0.0:8787\"\ntls_terminated_upstream = true\nhosts = [\"writ.example\"]";
        assert!(with(open, &[]).is_ok());
    }
}
