//! Looking at workflows.

use super::record::{Published, Source, source_id, workflow_id};
use super::{diff, parse};
use access::project::project_id;
use access::rights;
use act::{Fault, Param, QueryCtx, Route, page};
use futures::FutureExt as _;
use serde_json::{Value, json};
use store::Stored;

const READ: &str = "flows.workflow.read";

async fn published(query: &QueryCtx<'_>) -> Result<Stored<Published>, Fault> {
    let id = query.param("workflow").and_then(workflow_id).ok_or_else(|| Fault::not_found("workflow"))?;
    let stored = query.view.peek::<Published>(&id).await?.ok_or_else(|| Fault::not_found("workflow"))?;
    let project = stored.project.as_deref().and_then(project_id);
    if rights::reach(&query.ctx.principal, READ).covers(project.as_ref()) {
        Ok(stored)
    } else {
        Err(Fault::not_found("workflow"))
    }
}

/// The text of a version. Only one of the workflow's own: digests of others are as absent as wrong ones.
async fn text(query: &QueryCtx<'_>, workflow: &Published, digest: &str) -> Result<String, Fault> {
    let own = workflow.versions.iter().any(|version| version.digest == digest);
    let id = source_id(digest).filter(|_| own).ok_or_else(|| Fault::not_found("workflow version"))?;
    let source = query.view.peek::<Source>(&id).await?.ok_or_else(|| Fault::not_found("workflow version"))?;
    Ok(source.doc.text)
}

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let reach = rights::reach(&query.ctx.principal, READ);
    let shown = |doc: &Published| {
        let project = doc.project.as_deref().and_then(project_id);
        reach.covers(project.as_ref()).then(|| doc.shown())
    };
    page::list(&query, "name", Vec::new(), false, shown).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let workflow = published(&query).await?;
    let digest = query.param("digest").unwrap_or(&workflow.digest).to_owned();
    let mut shown = workflow.shown();
    shown["text"] = text(&query, &workflow, &digest).await?.into();
    shown["shown_digest"] = digest.into();
    shown["versions"] = json!(workflow.versions);
    Ok(shown)
}

async fn compare(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let workflow = published(&query).await?;
    let previous = workflow.versions.get(1).map(|version| version.digest.clone());
    let from = query.param("from").map(str::to_owned).or(previous);
    let to = query.param("to").unwrap_or(&workflow.digest).to_owned();
    let read =
        |text: String| parse::parse(&text).map_err(|_| act::internal("a published workflow cannot be read"));
    let after = read(text(&query, &workflow, &to).await?)?;
    // The first version has none before it: everything in it is new.
    let changes = match &from {
        Some(from) => diff::diff(&read(text(&query, &workflow, from).await?)?, &after),
        None => diff::first(&after),
    };
    Ok(json!({"workflow": workflow.name(), "from": from, "to": to, "changes": changes}))
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/workflows", "workflow_publish", "Publish a version of a workflow", "flows.workflow.publish"),
        Route::post("/v1/workflows/{workflow}/retire", "workflow_retire", "Retire a workflow: no further run starts", "flows.workflow.retire"),
        Route::get("/v1/workflows", "workflow_list", "List workflows by name", READ, |query| list(query).boxed()).taking(&page::PARAMS),
        Route::get("/v1/workflows/{workflow}", "workflow_show", "Show a workflow with its text and its versions", READ, |query| show(query).boxed()).taking(&[Param { name: "digest", summary: "The version to show; the current one if not given" }]),
        Route::get("/v1/workflows/{workflow}/diff", "workflow_diff", "Show what changed between two versions", READ, |query| compare(query).boxed()).taking(&[
                Param {
                    name: "from",
                    summary: "Digest of the older version; the one before the current if not given, or nothing if there is none",
                },
                Param { name: "to", summary: "Digest of the newer version; the current one if not given" },
            ]),
    ]
}
