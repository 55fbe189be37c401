//! Commands that run something on this machine: the installation, the stand-ins, the configuration.

use crate::exit::Failure;
use crate::output::{self, Format, say};
use act::{Ids as _, SystemIds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cli::furnish::{self, credentials, sandbox_clock};
use kernel::hex;
use sandbox::{IncidentSeed, ModelAnswer, OauthConfig, Sandbox};
use serde_json::{Value, json};
use server::{Config, telemetry};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{SystemClock, crash};
use tracing::Level;
use tracing_subscriber::layer::Filter;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, filter};

/// Says what the log shows, as `tracing-subscriber` reads it; `info` where it is not set.
const LOG: &str = "WRIT_LOG";
/// How long the stand-in's tokens live, in seconds: as on a fresh instance.
const TOKEN_LIFETIME_S: u32 = 1_799;

/// What the log shows.
pub fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Waits until somebody asks this process to end: Ctrl-C, or the system.
pub async fn asked_to_end() -> io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

/// An error with everything that led to it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Bytes of standard base64; `None` if it is none.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// `writ init`: everything that the first `serve` would make, and nothing that listens. It can be said twice.
pub async fn init(file: Option<&PathBuf>, format: Format) -> Result<(), Failure> {
    let config = load(file)?;
    let folder = config.folder.clone();
    let installed = server::init(config, Arc::new(SystemClock), Arc::new(SystemIds))
        .await
        .map_err(|error| Failure::Other(format!("{} ({})", chain(&error), error.code())))?;
    let key_file = folder.join(server::admin::KEY_FILE);
    if format == Format::Table {
        let what = if installed.created { "made in" } else { "was there already, in" };
        say(&format!("the installation {what} {}", folder.display()))?;
        if key_file.exists() {
            say(&format!("  administrator's key: {}", key_file.display()))?;
        }
        say(&format!("  trust fingerprint:   {}", installed.trust_fingerprint))?;
        return say(
            "Write the fingerprint down; whoever verifies evidence compares it. Start with `writ serve`.",
        );
    }
    let value = json!({
        "created": installed.created, "folder": folder, "admin_key_file": key_file.exists().then_some(key_file),
        "trust_fingerprint": installed.trust_fingerprint,
    });
    say(&output::render(&value, format)?)
}

/// `writ serve`.
pub async fn serve(file: Option<&PathBuf>) -> Result<(), Failure> {
    let config = load(file)?;
    let armed = std::env::var_os(crash::VARIABLE).map(|point| point.to_string_lossy().into_owned());
    if let Some(point) = &armed {
        // A misspelled point would be a test that proves nothing.
        crash::arm(point).map_err(|why| Failure::Usage(format!("{}: {why}", crash::VARIABLE)))?;
    }
    let outlet = listen_in(&config);
    if let Some(point) = armed {
        tracing::warn!(point, "{} is set: this process dies when it passes there", crash::VARIABLE);
    }
    let folder = config.folder.clone();
    let serving = server::serve_observed(config, Arc::new(SystemClock), Arc::new(SystemIds), outlet).await;
    let mut running = serving.map_err(|error| {
        let advice = match error.code() {
            "edge.listen_failed" => {
                "\n      Name another address: listen in the configuration, or WRIT_LISTEN"
            }
            _ => "",
        };
        Failure::Other(format!("{} ({}){advice}", chain(&error), error.code()))
    })?;
    say(&format!("writ serves http://{}", running.addr))?;
    if running.admin_key.is_some() {
        say(&format!("  administrator's key: {}", folder.join(server::admin::KEY_FILE).display()))?;
    }
    say(&format!("  trust fingerprint:   {}", running.trust_fingerprint))?;
    let broken = tokio::select! {
        ended = asked_to_end() => ended.map(|()| None)?,
        part = running.broken() => Some(part),
    };
    running.shutdown().await;
    match broken {
        None => Ok(()),
        Some(part) => Err(Failure::Other(format!("the server's {part} stopped by itself; see its log"))),
    }
}

/// Where this process's spans and log lines go: to standard error, and, if there is a collector, through a tap to it. The
/// collector hears the lines that are printed, and every span.
fn listen_in(config: &Config) -> Option<telemetry::Outlet> {
    // A log that nobody reads any more is no reason to panic.
    let printed = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_filter(log_filter());
    let (tap, outlet) = config
        .telemetry
        .otlp
        .is_some()
        .then(|| {
            let mut seed = [0; 8];
            seed.copy_from_slice(&SystemIds.entropy()[..8]);
            telemetry::pair(Arc::new(SystemClock), u64::from_be_bytes(seed))
        })
        .unzip();
    let lines = log_filter();
    let heard = filter::dynamic_filter_fn(move |metadata, ctx| {
        if metadata.is_span() {
            *metadata.level() <= Level::INFO
        } else {
            Filter::enabled(&lines, metadata, ctx)
        }
    });
    tracing_subscriber::registry().with(printed).with(tap.map(|tap| tap.with_filter(heard))).init();
    outlet
}

/// The configuration in force.
pub fn load(file: Option<&PathBuf>) -> Result<Config, Failure> {
    Config::load(file.map(PathBuf::as_path), std::env::vars()).map_err(|error| Failure::Usage(chain(&error)))
}

/// `writ config`: every value with where it came from. As a table it is a configuration again, which comments name the
/// origins of; as JSON or YAML, a list for programs.
pub fn config(file: Option<&PathBuf>, format: Format) -> Result<(), Failure> {
    let config = load(file)?;
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(Failure::from);
    let written = file.map(read).transpose()?.unwrap_or_default();
    // It parsed a moment ago.
    let written: toml::Table = toml::from_str(&written).unwrap_or_default();
    let all = serde_json::to_value(&config).map_err(|error| Failure::Other(error.to_string()))?;
    let mut lines = Vec::new();
    rows("", &all, &mut lines);
    if format != Format::Table {
        let item = |(name, value): &(String, Value)| {
            let from = origin(name, &written, file.map(PathBuf::as_path));
            json!({"name": name, "value": value, "from": from})
        };
        let items: Vec<Value> = lines.iter().map(item).collect();
        return say(&output::render(&json!({"items": items}), format)?);
    }
    let lines: Vec<(String, String)> =
        lines.into_iter().map(|(name, value)| (name, as_toml(&value))).collect();
    let width = lines.iter().map(|(name, value)| name.len() + value.len()).max().unwrap_or(0).min(70);
    for (name, value) in lines {
        let from = origin(&name, &written, file.map(PathBuf::as_path));
        let pad = " ".repeat(width.saturating_sub(name.len() + value.len()));
        say(&format!("{name} = {value}{pad}  # {from}"))?;
    }
    Ok(())
}

/// A value as TOML spells it. A list of tables has its members in braces, with `=`.
fn as_toml(value: &Value) -> String {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let inline = |item: &Value| match item {
                Value::Object(members) => {
                    let members = members.iter().filter(|(_, value)| !value.is_null());
                    let members: Vec<String> =
                        members.map(|(name, value)| format!("{name} = {}", as_toml(value))).collect();
                    format!("{{ {} }}", members.join(", "))
                }
                other => other.to_string(),
            };
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        // Texts, numbers and lists of them are spelled as in JSON.
        other => other.to_string(),
    }
}

/// Each value under its dotted name.
fn rows(name: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                rows(&name, value, into);
            }
        }
        // TOML has no null: what is not set is not there.
        Value::Null => {}
        other => into.push((name.to_owned(), other.clone())),
    }
}

/// Where a value came from: a variable, the file, or nowhere.
fn origin(name: &str, written: &toml::Table, file: Option<&Path>) -> String {
    let variable = format!("WRIT_{}", name.replace('.', "_").to_uppercase());
    let known = server::config::ENVIRONMENT.iter().any(|(known, _)| *known == variable);
    if known && std::env::var_os(&variable).is_some() {
        return variable;
    }
    let mut at = written;
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        match (at.get(part), parts.peek()) {
            (Some(_), None) => {
                return file.map_or_else(|| "file".to_owned(), |file| file.display().to_string());
            }
            (Some(toml::Value::Table(inner)), Some(_)) => at = inner,
            _ => break,
        }
    }
    "default".to_owned()
}

/// `writ sandbox`.
pub async fn sandbox(port: u16) -> Result<(), Failure> {
    let (credentials, workspace) = (credentials(), furnish::workspace(&["dana", "ravi", "guest"]));
    let oauth = OauthConfig {
        client_id: "writ".into(),
        client_secret: hex::encode(&SystemIds.entropy()),
        token_lifetime_s: TOKEN_LIFETIME_S,
    };
    let printed = json!({
        "user_name": credentials.user_name, "password": credentials.password, "bearer_token": credentials.bearer_token,
        "oauth_client_id": oauth.client_id, "oauth_client_secret": oauth.client_secret,
        "model_key": credentials.model_key, "webhook_secret": credentials.webhook_secret,
        "control_token": credentials.control_token,
        "slack": {
            "team": workspace.team, "app": workspace.app, "bot_token": workspace.bot_token,
            "signing_secret": workspace.signing_secret, "channels": workspace.channels,
            "users": workspace.users.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        },
    });
    let mut config = sandbox::Config::new(sandbox_clock(), credentials);
    config.servicenow.oauth = Some(oauth);
    config.port = port;
    config.slack = Some(workspace);
    // Started again, it has other incidents, though they look the same.
    config.servicenow.ids = hex::encode(&SystemIds.entropy());
    // The workflows here ask for thousandths, which a ledger can keep; the stand-in's own answer is a fraction.
    config.model.answer = Arc::new(|text| match sandbox::keyword_answer(text) {
        ModelAnswer::Object(mut object) => {
            if let Some(fraction) = object.get("confidence").and_then(Value::as_f64) {
                // A fraction between 0 and 1.
                object.insert("confidence".into(), json!((fraction * 1000.0) as i64));
            }
            ModelAnswer::Object(object)
        }
        text @ ModelAnswer::Text(_) => text,
    });
    let sandbox = Sandbox::start(config).await.map_err(|error| Failure::Other(chain(&error)))?;
    for row in super::demo::samples()? {
        let (short_description, description) = row.texts();
        let seed = IncidentSeed { short_description, description, ..IncidentSeed::default() };
        sandbox.incident_seed(&seed).map_err(|error| Failure::Other(chain(&error)))?;
    }
    let base = sandbox.base_url().to_owned();
    say("Stand-ins, not the real systems; loopback only, secrets made for this start.\n")?;
    say(&format!("  ServiceNow Table API  {base}/api/now/table/incident"))?;
    say(&format!("  model                 {base}/v1/chat/completions"))?;
    say(&format!("  Slack Web API         {base}{}", sandbox::SLACK_API_PATH.trim_end_matches('/')))?;
    say(&format!("  faults and effects    {base}/_sandbox/faults, {base}/_sandbox/effects\n"))?;
    say(&format!("{printed:#}"))?;
    asked_to_end().await?;
    sandbox.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_knows_where_it_came_from() {
        let written: toml::Table = toml::from_str("cell = \"a\"\n[limits]\njobs = 3\n").unwrap();
        let file = Path::new("writ.toml");
        for (name, expected) in [
            ("cell", "writ.toml"),
            ("limits.jobs", "writ.toml"),
            ("limits.headers", "default"),
            ("folder", "default"),
            ("cell.x", "default"),
        ] {
            assert_eq!(origin(name, &written, Some(file)), expected, "{name}");
        }
    }

    #[test]
    fn every_value_has_a_row_and_secrets_are_named_only() {
        let mut config = Config::default();
        config.models.openai = Some(server::config::OpenAi {
            base_url: "https://models.example/v1".into(),
            credential: server::config::SecretRef::try_from("env:MODEL_KEY".to_owned()).unwrap(),
        });
        config.models.fallback = vec![server::config::ModelFallback {
            of: "openai/a".into(),
            to: "anthropic/b".into(),
            accepts: vec!["b-1".into()],
        }];
        config.telemetry.otlp = Some("http://127.0.0.1:4318".into());
        let mut lines = Vec::new();
        rows("", &serde_json::to_value(&config).unwrap(), &mut lines);
        let lines: Vec<(String, String)> =
            lines.into_iter().map(|(name, value)| (name, as_toml(&value))).collect();
        let find = |name: &str| lines.iter().find(|(row, _)| row == name).map(|(_, value)| value.as_str());
        assert_eq!(find("limits.jobs"), Some("32"));
        assert_eq!(find("listen"), Some("\"127.0.0.1:8787\""));
        assert_eq!(find("models.openai.credential"), Some("\"env:MODEL_KEY\""));
        // The printed form is a configuration again.
        let text: String = lines.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        assert_eq!(Config::parse(&text, []).unwrap(), config);
    }

    #[test]
    fn base64() {
        assert_eq!(base64_decode("AAEC").as_deref(), Some(&[0u8, 1, 2][..]));
        assert_eq!(base64_decode("AAE*"), None);
    }
}
