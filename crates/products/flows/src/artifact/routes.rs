//! Looking at the registry.

use super::key;
use super::record::Artifact;
use act::{Fault, QueryCtx, Route, page};
use futures::FutureExt as _;
use kernel::Id;
use serde_json::Value;

const READ: &str = "flows.artifact.read";

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    page::list(&query, "name", Vec::new(), false, Artifact::shown).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let missing = || Fault::not_found("artifact");
    let id = query.param("artifact").and_then(|text| Id::parse(text).ok()).ok_or_else(missing)?;
    let artifact = query.view.peek::<Artifact>(&id).await?.ok_or_else(missing)?;
    let mut shown = artifact.shown();
    shown["envelope"] = artifact.envelope.clone().into();
    Ok(shown)
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/artifacts",
            "artifact_publish",
            "Take a connector's manifest into the registry, without installing it",
            "flows.artifact.publish",
        ),
        Route::post(
            "/v1/artifacts/{artifact}/yank",
            "artifact_yank",
            "Say that a version should not be used any more",
            "flows.artifact.yank",
        ),
        Route::get(
            "/v1/artifacts",
            "artifact_list",
            "List the registry: versions of connectors and workflows, with digests and keys",
            READ,
            |query| list(query).boxed(),
        )
        .taking(&page::PARAMS),
        Route::get(
            "/v1/artifacts/{artifact}",
            "artifact_show",
            "Show an artifact with its envelope",
            READ,
            |query| show(query).boxed(),
        ),
        Route::post(
            "/v1/artifact-keys",
            "artifact_key_register",
            "Register a public key whose signature on artifacts is believed",
            "flows.artifact_key.register",
        ),
        Route::post(
            "/v1/artifact-keys/{artifact_key}/revoke",
            "artifact_key_revoke",
            "Revoke a key that signs artifacts",
            "flows.artifact_key.revoke",
        ),
        Route::get(
            "/v1/artifact-keys",
            "artifact_key_list",
            "List the keys that may sign artifacts",
            READ,
            |query| async move { key::shown(query.view).await }.boxed(),
        ),
    ]
}
