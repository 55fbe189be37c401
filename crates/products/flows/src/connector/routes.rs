//! Looking at connectors and the tools they bring.

use super::record::{Connector, Version, connector_id, version_id};
use super::tool::{self, State, Tool};
use act::{Fault, Param, QueryCtx, Route, page};
use futures::FutureExt as _;
use serde_json::{Value, json};
use store::PAGE_MAX;

const READ: &str = "flows.connector.read";

async fn version(query: &QueryCtx<'_>, connector: &Connector) -> Result<Version, Fault> {
    let id =
        version_id(&connector.version).ok_or_else(|| act::internal("an installation names no version"))?;
    let version = query.view.peek::<Version>(&id).await?;
    version.map(|version| version.doc).ok_or_else(|| act::internal("an installed version is gone"))
}

async fn list(query: QueryCtx<'_>) -> Result<Value, Fault> {
    page::list(&query, "name", Vec::new(), false, Connector::shown).await
}

async fn show(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let id = query.param("connector").and_then(connector_id).ok_or_else(|| Fault::not_found("connector"))?;
    let connector = query.view.peek::<Connector>(&id).await?.ok_or_else(|| Fault::not_found("connector"))?;
    let version = version(&query, &connector).await?;
    let mut shown = connector.shown();
    shown["login"] = json!(version.login);
    let mut tools = tools_of(&connector, &version);
    for tool in tools.iter_mut().filter(|tool| tool["state"] == json!(State::Changed)) {
        let name = tool["action"].as_str().unwrap_or_default().to_owned();
        tool["changes"] = json!(tool::changes(query.view, &connector, &name).await?);
    }
    shown["tools"] = tools.into();
    Ok(shown)
}

fn tools_of(connector: &Connector, version: &Version) -> Vec<Value> {
    let tool = |(name, action): (&String, &super::manifest::Action)| {
        let known = connector.tools.as_ref().and_then(|tools| tools.get(name));
        json!({
            "definition": tool::digest(&version.manifest, name, action),
            "state": known.map_or(State::Approved, Tool::state),
            "tool": format!("{}.{name}", connector.name()), "connector": connector.name(), "action": name,
            "summary": action.summary, "effect": action.effect, "params": action.params, "writes": action.writes,
        })
    };
    version.manifest.actions.iter().map(tool).collect()
}

/// Tools of all connectors, a page of connectors at a time. A connector has at most 64 actions, so whatever the limit, a page
/// of 200 tools holds one connector at least.
async fn tools(query: QueryCtx<'_>) -> Result<Value, Fault> {
    let range = page::range(&query, "name", Vec::new(), false)?;
    let (limit, found) = (range.limit, query.view.list::<Connector>(range).await?);
    let (mut items, mut looked_at) = (Vec::new(), 0);
    for found in &found {
        let connector = &found.stored.doc;
        if connector.removed_at_ms.is_none() {
            let tools = tools_of(connector, &version(&query, connector).await?);
            if items.len() + tools.len() > PAGE_MAX {
                break;
            }
            items.extend(tools);
        }
        looked_at += 1;
    }
    let more = looked_at < found.len() || found.len() == limit;
    let last = looked_at.checked_sub(1).and_then(|at| found.get(at)).filter(|_| more);
    let next = last.map(|last| page::encode(&last.key, &last.stored.id));
    Ok(json!({"items": items, "next": next}))
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/v1/connectors",
            "connector_install",
            "Install a connector, or a new version of one",
            "flows.connector.install",
        ),
        Route::post(
            "/v1/connectors/{connector}/remove",
            "connector_remove",
            "Remove a connector: every run stops at its next call of it",
            "flows.connector.remove",
        ),
        Route::post(
            "/v1/connectors/{connector}/tools/{action}/approve",
            "tool_approve",
            "Agree to the changed definition of a tool, so that it may be called again",
            "flows.tool.approve",
        ),
        Route::get("/v1/connectors", "connector_list", "List connectors by name", READ, |query| {
            list(query).boxed()
        })
        .taking(&page::PARAMS),
        Route::get(
            "/v1/connectors/{connector}",
            "connector_show",
            "Show a connector with its tools",
            READ,
            |query| show(query).boxed(),
        ),
        Route::get("/v1/tools", "tool_list", "List the tools of all installed connectors", READ, |query| {
            tools(query).boxed()
        })
        .taking(&[
            page::AFTER,
            Param { name: "limit", summary: "the tools of so many connectors, at most 200" },
        ]),
    ]
}
