//! The stage: the stand-ins, the installation, and the people who act on it.
//!
//! Both run in this process and are spoken to over HTTP on loopback, as anybody would. What is set up here is what an
//! operator sets up for a real instance, in the same order and with the same calls: the administrator stores secrets and
//! installs the connector, a builder publishes the workflow, and somebody else may approve.

use super::data::Tickets;
use crate::exit::Failure;
use crate::special::local::{chain, log_filter};
use act::SystemIds;
pub use cli::furnish::passing;
use cli::furnish::{self, MANIFEST, WORKFLOW, credentials, monotonic_ms, sandbox_clock};
use client::{Client, ClientError, Reply};
use http::Method;
use kernel::TenantId;
use sandbox::{Credentials, Fault, FaultRule, Sandbox, Service, SlackConfig};
use serde_json::{Value, json};
use server::{Config, Running};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::SystemClock;
use url::Url;

/// Asks a provider for one word, to learn under which name its model answers.
const PROBE: &str = include_str!("probe.yaml");

/// Name of the workflow that the demo runs.
pub const WORKFLOW_NAME: &str = "itsm-triage";
/// The first tenant of a new installation; later demos in the same folder get a tenant of their own.
const TENANT: &str = "demo";
/// The people of the stand-in's Slack workspace: two who may approve, and one whom nobody here knows.
pub const SLACK_PEOPLE: [&str; 3] = ["dana", "ravi", "guest"];
/// Most demos in one folder.
const TENANTS_MAX: u32 = 1_000;
/// How often something that is about to happen is looked for, and how long between two looks.
const LOOKS: u32 = 400;
const LOOK: Duration = Duration::from_millis(50);

/// Who classifies.
#[derive(Clone)]
pub enum Provider {
    /// The built-in baseline.
    Baseline,
    /// A provider that speaks the OpenAI dialect.
    OpenAi {
        /// As `https://api.openai.com/v1`.
        base_url: String,
        /// The API key.
        key: String,
        /// The model's name.
        model: String,
    },
}

impl Provider {
    /// From `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `OPENAI_MODEL`.
    pub fn from_env() -> Provider {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match var("OPENAI_API_KEY") {
            None => Provider::Baseline,
            Some(key) => Provider::OpenAi {
                base_url: var("OPENAI_BASE_URL").unwrap_or_else(|| "https://api.openai.com/v1".into()),
                key,
                model: var("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".into()),
            },
        }
    }
}

/// A person with a key.
pub struct Person {
    /// Their client.
    pub client: Client,
    /// The file with their key.
    pub key_file: PathBuf,
}

/// Everything that runs, and everybody who acts.
pub struct Stage {
    /// The stand-ins.
    pub sandbox: Sandbox,
    /// The installation.
    pub running: Running,
    /// Where everything is kept.
    pub folder: PathBuf,
    /// The installation's address.
    pub url: String,
    /// The tenant.
    pub tenant: String,
    /// Where ServiceNow delivers to.
    pub hook: String,
    /// Publishes, watches, exports.
    pub operator: Person,
    /// Approves.
    pub approver: Person,
    /// For whoever watches.
    pub you: Person,
    /// The pinned model.
    pub model: String,
    /// The published workflow.
    pub workflow: String,
    /// What has to be said about prices.
    pub price_note: Option<String>,
    /// The installation's administrator, who opens tenants.
    pub platform: Client,
    /// Who classifies.
    pub provider: Provider,
    /// What the stand-ins want to see.
    pub secrets: Credentials,
    /// The stand-in's Slack workspace.
    pub workspace: SlackConfig,
}

/// The demo's folder: the caller's, or a new one.
pub fn folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    match given {
        Some(path) => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            Ok(path.canonicalize()?)
        }
        None => Ok(tempfile::Builder::new().prefix("writ-demo-").tempdir()?.keep()),
    }
}

/// Sends the log to a file, so that the terminal shows the demo.
pub fn log_to(folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join("writ.log");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(log_filter())
        .with_ansi(false)
        .with_writer(Mutex::new(file));
    log.try_init().map_err(|error| Failure::Other(error.to_string()))?;
    Ok(path)
}

/// Writes a file that its owner alone may read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file: File = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}

impl Stage {
    /// Sets the stage.
    pub async fn set(folder: &Path, tickets: &Tickets, provider: &Provider) -> Result<Stage, Failure> {
        let (secrets, workspace) = (credentials(), furnish::workspace(&SLACK_PEOPLE));
        let sandbox = sandbox(&secrets, &workspace, tickets).await?;
        let training = folder.join("training.csv");
        write_private(&training, &tickets.training_csv()?)?;
        let home = folder.join("installation");
        let config = config(&home, &training, sandbox.base_url(), provider)?;
        let running =
            server::serve(config, Arc::new(SystemClock), Arc::new(SystemIds)).await.map_err(|error| {
                Failure::Other(format!(
                    "the installation does not start: {} ({})",
                    chain(&error),
                    error.code()
                ))
            })?;
        let url = format!("http://{}", running.addr);
        let admin_key = match &running.admin_key {
            Some(key) => key.clone(),
            None => fs::read_to_string(home.join(server::admin::KEY_FILE))?.trim().to_owned(),
        };
        let platform = Client::new(&url, admin_key, None, monotonic_ms)?;
        let tenant = match running.admin_key.is_some() {
            true => format!("ten_{TENANT}"),
            // The stand-ins start from nothing each time, so what they say must not meet what an earlier demo remembers.
            false => tenant(&platform, TENANT, 2).await?,
        };
        let admin = platform.in_tenant(&tenant);
        let person = |name: &'static str, roles: &'static [&'static str]| {
            person(&admin, &url, folder, name, roles, None)
        };
        let operator = person("operator", &["builder", "operator"]).await?;
        let approver = person("approver", &["approver"]).await?;
        let you = person("you", &["approver", "auditor", "operator"]).await?;
        let hook = furnish::servicenow(&admin, MANIFEST, sandbox.base_url(), &secrets).await?;
        let mut workflow: Value = yaml(WORKFLOW)?;
        let mut price_note = None;
        if let Provider::OpenAi { key, model, .. } = provider {
            price_note = provide(&admin, key, model).await?;
            let reported = probe(&operator.client, model).await?;
            workflow["pins"]["models"]["classifier"] =
                json!({"model": format!("openai/{model}"), "accepts": [reported]});
        }
        let model = workflow["pins"]["models"]["classifier"]["model"].as_str().unwrap_or_default().to_owned();
        // JSON is YAML, too.
        let text =
            if matches!(provider, Provider::Baseline) { WORKFLOW.to_owned() } else { workflow.to_string() };
        furnish::workflow(&operator.client, &text).await?;
        Ok(Stage {
            sandbox,
            running,
            folder: folder.to_owned(),
            url,
            tenant,
            hook,
            operator,
            approver,
            you,
            model,
            workflow: text,
            price_note,
            platform,
            provider: provider.clone(),
            secrets,
            workspace,
        })
    }

    /// A person of another tenant, whose administrator is `admin`.
    pub async fn person(
        &self,
        admin: &Client,
        name: &str,
        roles: &[&str],
        strong_until_ms: Option<i64>,
    ) -> Result<Person, Failure> {
        person(admin, &self.url, &self.folder, name, roles, strong_until_ms).await
    }
}

/// Gives a tenant the key and the price of the provider's model; what has to be said about the price.
pub async fn provide(admin: &Client, key: &str, model: &str) -> Result<Option<String>, Failure> {
    furnish::secret(admin, "model-key", "the model provider's API key", key).await?;
    price(admin, model).await
}

/// The stand-ins, with everything scripted that shall go wrong.
async fn sandbox(
    secrets: &Credentials,
    workspace: &SlackConfig,
    tickets: &Tickets,
) -> Result<Sandbox, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::Other(format!("the stand-ins do not start: {}", chain(error)))
    };
    let mut config = sandbox::Config::new(sandbox_clock(), secrets.clone());
    config.servicenow.groups.clone_from(&tickets.groups);
    config.slack = Some(workspace.clone());
    let sandbox = Sandbox::start(config).await.map_err(|error| failed(&error))?;
    let faults = [
        FaultRule::new(Service::ServiceNow, Fault::RateLimited { retry_after_s: 1 })
            .method("GET")
            .path_contains("/incident/")
            .nth(2)
            .once(),
        // The write takes effect and the reply never comes: sent again, the note would stand there twice.
        FaultRule::new(Service::ServiceNow, Fault::DropAfterEffect).method("PATCH").once(),
    ];
    for fault in faults {
        sandbox.fault_add(fault).map_err(|error| failed(&error))?;
    }
    Ok(sandbox)
}

fn config(home: &Path, training: &Path, sandbox: &str, provider: &Provider) -> Result<Config, Failure> {
    let mut config = Config {
        folder: home.to_owned(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        installation: "writ.demo".into(),
        first_tenant: TenantId::parse(&format!("ten_{TENANT}"))
            .map_err(|error| Failure::Other(error.to_string()))?,
        private_hosts: vec![host(sandbox)?],
        ..Config::default()
    };
    config.models.baseline_training = Some(training.to_owned());
    if let Provider::OpenAi { base_url, .. } = provider {
        // Whoever set the variable chose the address, wherever it is.
        config.private_hosts.push(host(base_url)?);
        let credential =
            server::config::SecretRef::try_from("secret:model-key".to_owned()).map_err(Failure::Other)?;
        config.models.openai = Some(server::config::OpenAi { base_url: base_url.clone(), credential });
    }
    Ok(config)
}

/// Host and port of an address.
fn host(url: &str) -> Result<String, Failure> {
    let parsed = Url::parse(url).ok();
    let parts = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    let (host, port) = parts.ok_or_else(|| Failure::Usage(format!("{url} is no address of a server")))?;
    Ok(format!("{host}:{port}"))
}

fn yaml(text: &str) -> Result<Value, Failure> {
    serde_saphyr::from_str(text).map_err(|error| Failure::Other(error.to_string()))
}

/// Opens a tenant of this name, or of this name and a number from `first` on, whichever is not taken.
pub async fn tenant(platform: &Client, name: &str, first: u32) -> Result<String, Failure> {
    for n in first..TENANTS_MAX {
        let name = if n == 1 { name.to_owned() } else { format!("{name}-{n}") };
        let body = json!({"name": name, "admin": "owner"});
        match call(platform, Method::POST, "/v1/tenants", Some(&body)).await {
            Ok(reply) => {
                let tenant = reply.body["tenant"].as_str().ok_or(ClientError::Reply)?.to_owned();
                opened(&platform.in_tenant(&tenant)).await?;
                return Ok(tenant);
            }
            Err(Failure::Client(ClientError::Problem(problem))) if problem.code == "access.name_taken" => {}
            Err(other) => return Err(other),
        }
    }
    Err(Failure::Usage(format!("this folder holds {TENANTS_MAX} demos; take another with --data")))
}

/// Waits until a tenant's log is open and somebody is in it.
async fn opened(admin: &Client) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        let found = call(admin, Method::GET, "/v1/principals", None).await;
        if found.is_ok_and(|reply| reply.body["items"].as_array().is_some_and(|items| !items.is_empty())) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Other("the tenant was not opened in time".into()))
}

/// A person of the tenant, with a key of their own in a file. The key is of the tenant itself, so whoever acts with it need
/// not name it.
async fn person(
    admin: &Client,
    url: &str,
    folder: &Path,
    name: &str,
    roles: &[&str],
    strong_until_ms: Option<i64>,
) -> Result<Person, Failure> {
    let key = furnish::person(admin, name, roles, strong_until_ms).await?;
    let key_file = folder.join(format!("{name}.key"));
    write_private(&key_file, format!("{key}\n").as_bytes())?;
    Ok(Person { client: Client::new(url, key, None, monotonic_ms)?, key_file })
}

/// Prices a model that the book does not know. A price that nobody knows is not zero: that of another model is taken, and
/// the demo says so.
async fn price(admin: &Client, model: &str) -> Result<Option<String>, Failure> {
    const LIKE: &str = "openai/gpt-4o-mini";
    let mut book = call(admin, Method::GET, "/v1/prices", None).await?.body;
    let pin = format!("openai/{model}");
    let rows = book["models"].as_array_mut().ok_or(ClientError::Reply)?;
    if rows.iter().any(|row| row["model"] == pin.as_str() || row["model"] == "openai/*") {
        return Ok(None);
    }
    let mut row = rows.iter().find(|row| row["model"] == LIKE).cloned().ok_or(ClientError::Reply)?;
    let note = format!(
        "The price of {pin} is not known here; it is reckoned as {LIKE}. Publish your own with `writ price publish`."
    );
    row["model"] = json!(pin);
    row["note"] = json!("Assumed by the demo.");
    rows.push(row);
    book["version"] = json!(format!("{}-demo", book["version"].as_str().unwrap_or("book")));
    call(admin, Method::PUT, "/v1/prices", Some(&book)).await?;
    Ok(Some(note))
}

/// The name under which the model answers, learned from one governed call. Providers answer an alias under a dated name,
/// and a pin accepts no name that nobody looked at.
async fn probe(operator: &Client, model: &str) -> Result<String, Failure> {
    let mut workflow = yaml(PROBE)?;
    workflow["pins"]["models"]["probe"]["model"] = json!(format!("openai/{model}"));
    let name = workflow["name"].clone();
    call(operator, Method::POST, "/v1/workflows", Some(&json!({"yaml": workflow.to_string()}))).await?;
    let started =
        call(operator, Method::POST, "/v1/runs", Some(&json!({"workflow": name, "event": {}}))).await?;
    let run = started.body["run"].as_str().ok_or(ClientError::Reply)?.to_owned();
    let query = [("run".to_owned(), run)];
    let mut last = "no answer".to_owned();
    for _ in 0..LOOKS {
        let calls = operator.call(Method::GET, "/v1/model-calls", &query, None, None).await?;
        if let Some(answered) = calls.body["items"].as_array().and_then(|items| items.last()) {
            if let Some(reported) = answered["reported"].as_str() {
                return Ok(reported.to_owned());
            }
            last = answered["status"].as_str().unwrap_or("no answer").to_owned();
            if last.starts_with("model.") && last != "model.lost" {
                break;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Other(format!("the model provider does not answer as {model}: {last}")))
}

/// A call, repeated where that is harmless and may help ([`furnish::call`]).
pub async fn call(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Reply, Failure> {
    Ok(furnish::call(client, method, path, body).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_workflows_are_what_the_stage_expects() {
        let workflow = yaml(WORKFLOW).unwrap();
        assert_eq!(workflow["name"], WORKFLOW_NAME);
        assert!(workflow["pins"]["models"]["classifier"]["model"].as_str().unwrap().starts_with("baseline/"));
        assert!(yaml(PROBE).unwrap()["pins"]["models"]["probe"]["model"].is_string());
    }

    #[test]
    fn hosts() {
        assert_eq!(host("http://127.0.0.1:8081").unwrap(), "127.0.0.1:8081");
        assert_eq!(host("https://models.example/v1").unwrap(), "models.example:443");
        assert_eq!(host("nonsense").unwrap_err().code(), 2);
    }
}
