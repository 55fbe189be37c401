//! A sandbox on its own, for clients in other languages: `cargo run -p sandbox --example serve [PORT]`.
//!
//! The first line on standard output is the URL, the second a JSON object with the credentials. It serves until
//! standard input ends, so it cannot outlive the process that started it through a pipe.
//!
//! The credentials are in this file, for all to read. The sandbox listens on loopback only and holds nothing
//! but what its client put there; do not copy them anywhere that matters.

use std::{
    io::{self, Write},
    sync::Arc,
};

use sandbox::{Config, Credentials, IncidentSeed, OauthConfig, Sandbox, SlackConfig};

#[expect(clippy::disallowed_methods, reason = "a program of its own: this is where its clock is implemented")]
fn system_now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let credentials = Credentials {
        user_name: "integration".into(),
        password: "stand-in-password".into(),
        bearer_token: "stand-in-instance-token".into(),
        model_key: "stand-in-model-key".into(),
        webhook_secret: "whsec_c3RhbmQtaW4tc2VjcmV0LW9mLTMyLWJ5dGVzISEhISE=".into(),
        control_token: "stand-in-control-token".into(),
    };
    let mut printed = serde_json::json!({
        "user_name": credentials.user_name,
        "password": credentials.password,
        "bearer_token": credentials.bearer_token,
        "model_key": credentials.model_key,
        "webhook_secret": credentials.webhook_secret,
        "control_token": credentials.control_token,
    });
    let mut config = Config::new(Arc::new(system_now_ms), credentials);
    let slack = SlackConfig {
        team: "T0STANDIN".into(),
        app: "A0STANDIN".into(),
        bot_user: "U0BOT".into(),
        bot_token: "stand-in-bot-token".into(),
        signing_secret: "stand-in-signing-secret-of-slack".into(),
        channels: vec!["C0APPROVALS".into()],
        users: vec![("U0ANN".into(), "ann".into()), ("U0BOB".into(), "bob".into())],
    };
    printed["slack"] = serde_json::json!({
        "bot_token": slack.bot_token, "signing_secret": slack.signing_secret, "team": slack.team, "app": slack.app,
    });
    config.slack = Some(slack);
    let oauth = OauthConfig {
        client_id: "stand-in-client".into(),
        client_secret: "stand-in-client-secret".into(),
        token_lifetime_s: 1_799,
    };
    printed["oauth"] =
        serde_json::json!({"client_id": oauth.client_id, "client_secret": oauth.client_secret});
    config.servicenow.oauth = Some(oauth);
    if let Some(port) = std::env::args().nth(1) {
        config.port = port.parse()?;
    }
    let sandbox = Sandbox::start(config).await?;
    for text in ["Cannot log in to the VPN", "Laptop screen is black", "Shared folder is full"] {
        let seed = IncidentSeed {
            short_description: text.into(),
            description: format!("{text}. Please help."),
            ..IncidentSeed::default()
        };
        sandbox.incident_seed(&seed)?;
    }
    let mut out = io::stdout();
    writeln!(out, "{}\n{printed}", sandbox.base_url())?;
    out.flush()?;
    // What is typed is of no interest, only that it ends.
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    sandbox.shutdown().await;
    Ok(())
}
