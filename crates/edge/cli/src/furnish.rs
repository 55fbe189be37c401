//! Furnishing a tenant: people with keys, the secrets of ServiceNow, the connector, the workflow.
//!
//! These are the calls that an operator makes for a real instance, over HTTP and with an administrator's key, against an
//! installation that runs anywhere. The demo makes them against the server in its own process, and the tests that kill
//! `writ serve` make them against a process that will die. A call that failed in passing is repeated under the same
//! idempotency key, so that a tenant is furnished once however often the way to it breaks.

use act::{Clock as _, Ids as _, SystemIds};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Client, ClientError, Reply};
use http::Method;
use kernel::{hex, sha256};
use sandbox::{Credentials, SlackConfig};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::SystemClock;

/// The connector to ServiceNow that comes with the product.
pub const MANIFEST: &str = include_str!("../../../../contracts/connectors/servicenow.yaml");
/// The workflow that sorts incidents.
pub const WORKFLOW: &str = include_str!("../../../../contracts/workflows/itsm-triage.yaml");

/// How often a call that may be repeated is repeated.
const TRIES: u32 = 6;
/// Wait before the second try, in milliseconds; doubled each time.
const RETRY_MS: u64 = 50;

/// A clock for measuring, in milliseconds.
pub fn monotonic_ms() -> i64 {
    i64::try_from(SystemClock.monotonic_us() / 1000).unwrap_or(i64::MAX)
}

/// Secrets of a sandbox, made now.
pub fn credentials() -> Credentials {
    let secret = || hex::encode(&SystemIds.entropy());
    Credentials {
        user_name: "writ.integration".into(),
        password: secret(),
        bearer_token: secret(),
        model_key: secret(),
        webhook_secret: format!("whsec_{}", BASE64.encode(SystemIds.entropy())),
        control_token: secret(),
    }
}

/// A workspace of the Slack stand-in with one channel and these people, and secrets made now. Their ids are `U0` and the
/// name in capitals.
pub fn workspace(people: &[&str]) -> SlackConfig {
    SlackConfig {
        team: "T0STANDIN".into(),
        app: "A0STANDIN".into(),
        bot_user: "U0BOT".into(),
        bot_token: hex::encode(&SystemIds.entropy()),
        signing_secret: hex::encode(&SystemIds.entropy()),
        channels: vec!["C0APPROVALS".into()],
        users: people.iter().map(|name| (slack_user(name), (*name).to_owned())).collect(),
    }
}

/// The id of one of the people of [`workspace`].
pub fn slack_user(name: &str) -> String {
    format!("U0{}", name.to_uppercase())
}

/// The stand-ins' clock.
pub fn sandbox_clock() -> sandbox::Clock {
    Arc::new(|| SystemClock.now_ms())
}

/// A call, repeated where that is harmless and may help. An act is sent under one idempotency key for all its tries.
///
/// # Errors
/// The last try's.
pub async fn call(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Reply, ClientError> {
    let key = (method != Method::GET).then(|| hex::encode(&SystemIds.entropy()));
    let mut wait_ms = RETRY_MS;
    for attempt in 1.. {
        match client.call(method.clone(), path, &[], body, key.as_deref()).await {
            Err(error) if attempt < TRIES && passing(&error) => {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                wait_ms *= 2;
            }
            other => return other,
        }
    }
    Err(ClientError::Reply)
}

/// Whether the same call may succeed a moment later.
pub fn passing(error: &ClientError) -> bool {
    match error {
        ClientError::Transport { .. } => true,
        ClientError::Problem(problem) => problem.body["retryable"] == true,
        ClientError::Setup(_) | ClientError::Reply => false,
    }
}

/// Makes a person of the tenant with these roles; returns the key to act as them. With `strong_until_ms` it is a key of
/// assurance level 1 that ends then, milliseconds UTC.
///
/// # Errors
/// If a call fails for good.
pub async fn person(
    admin: &Client,
    name: &str,
    roles: &[&str],
    strong_until_ms: Option<i64>,
) -> Result<String, ClientError> {
    let body = json!({"name": name, "kind": "person", "roles": roles});
    let made = call(admin, Method::POST, "/v1/principals", Some(&body)).await?;
    let principal = made.body["principal"].as_str().ok_or(ClientError::Reply)?;
    let secret = hex::encode(&SystemIds.entropy());
    let mut body = json!({"principal": principal, "name": "demo", "secret_sha256": hex::encode(&sha256(secret.as_bytes()))});
    if let Some(until_ms) = strong_until_ms {
        body["assurance"] = json!(1);
        body["expires_at_ms"] = json!(until_ms);
    }
    let made = call(admin, Method::POST, "/v1/keys", Some(&body)).await?;
    Ok(format!("{}.{secret}", made.body["key"].as_str().ok_or(ClientError::Reply)?))
}

/// Stores a secret in custody.
///
/// # Errors
/// If the call fails for good.
pub async fn secret(admin: &Client, name: &str, purpose: &str, value: &str) -> Result<(), ClientError> {
    let body = json!({"name": name, "purpose": purpose, "value": value});
    call(admin, Method::POST, "/v1/secrets", Some(&body)).await.map(|_| ())
}

/// Stores ServiceNow's secrets and installs the connector `manifest` at `base_url`; returns the path of its hook.
///
/// # Errors
/// If a call fails for good.
pub async fn servicenow(
    admin: &Client,
    manifest: &str,
    base_url: &str,
    secrets: &Credentials,
) -> Result<String, ClientError> {
    secret(admin, "servicenow-password", "ServiceNow's integration user", &secrets.password).await?;
    secret(admin, "servicenow-webhook", "signs ServiceNow's deliveries", &secrets.webhook_secret).await?;
    let install = json!({
        "name": "servicenow", "manifest": manifest, "base_url": base_url, "user": secrets.user_name,
        "password": "secret:servicenow-password", "webhook_secret": "secret:servicenow-webhook",
    });
    let installed = call(admin, Method::POST, "/v1/connectors", Some(&install)).await?;
    Ok(installed.body["hook"].as_str().ok_or(ClientError::Reply)?.to_owned())
}

/// Stores Slack's secrets and connects the tenant to the workspace at `base_url`; returns the path that clicks go to.
///
/// # Errors
/// If a call fails for good.
pub async fn slack(admin: &Client, workspace: &SlackConfig, base_url: &str) -> Result<String, ClientError> {
    secret(admin, "slack-bot", "Slack's bot token", &workspace.bot_token).await?;
    secret(admin, "slack-signing", "signs Slack's callbacks", &workspace.signing_secret).await?;
    let connect = json!({
        "team": workspace.team, "app": workspace.app, "bot_token": "secret:slack-bot",
        "signing_secret": "secret:slack-signing", "channels": {"1": workspace.channels.first()}, "base_url": base_url,
    });
    let connected = call(admin, Method::PUT, "/v1/slack", Some(&connect)).await?;
    Ok(connected.body["callback"].as_str().ok_or(ClientError::Reply)?.to_owned())
}

/// Publishes a workflow.
///
/// # Errors
/// If the call fails for good.
pub async fn workflow(builder: &Client, yaml: &str) -> Result<(), ClientError> {
    call(builder, Method::POST, "/v1/workflows", Some(&json!({"yaml": yaml}))).await.map(|_| ())
}
