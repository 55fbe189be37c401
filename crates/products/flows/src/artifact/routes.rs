//! Looking at the registry.

use super::key;
use super::record::Artifact;
use crate::page;
use act::{Auth, Call, Fault, Method, QueryCtx, Route};
use futures::FutureExt as _;
use kernel::Id;
use serde_json::Value;
use std::sync::Arc;

const READ: &str = "flows.artifact.read";

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let range = page::range(&query, "name", Vec::new(), false)?;
    let limit = range.limit;
    let found = query.view.list::<Artifact>(range).await?;
    Ok(page::page(&found, limit, |doc| &doc.id, Artifact::shown))
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
    let row = |method, path, operation, summary, call, query| Route {
        method,
        path,
        operation,
        summary,
        auth: Auth::Principal,
        call,
        query,
    };
    vec![
        row(
            Method::Post,
            "/v1/artifacts",
            "artifact_publish",
            "Take a connector's manifest into the registry, without installing it",
            Call::Verb("flows.artifact.publish"),
            &[],
        ),
        row(
            Method::Post,
            "/v1/artifacts/{artifact}/yank",
            "artifact_yank",
            "Say that a version should not be used any more",
            Call::Verb("flows.artifact.yank"),
            &[],
        ),
        row(
            Method::Get,
            "/v1/artifacts",
            "artifact_list",
            "List the registry: versions of connectors and workflows, with digests and keys",
            Call::Query(READ, Arc::new(|query| list(query).boxed())),
            &page::PARAMS,
        ),
        row(
            Method::Get,
            "/v1/artifacts/{artifact}",
            "artifact_show",
            "Show an artifact with its envelope",
            Call::Query(READ, Arc::new(|query| show(query).boxed())),
            &[],
        ),
        row(
            Method::Post,
            "/v1/artifact-keys",
            "artifact_key_register",
            "Register a public key whose signature on artifacts is believed",
            Call::Verb("flows.artifact_key.register"),
            &[],
        ),
        row(
            Method::Post,
            "/v1/artifact-keys/{artifact_key}/revoke",
            "artifact_key_revoke",
            "Revoke a key that signs artifacts",
            Call::Verb("flows.artifact_key.revoke"),
            &[],
        ),
        row(
            Method::Get,
            "/v1/artifact-keys",
            "artifact_key_list",
            "List the keys that may sign artifacts",
            Call::Query(READ, Arc::new(|query| async move { key::shown(query.view).await }.boxed())),
            &[],
        ),
    ]
}
