//! Workspaces: what separates trying out from the real thing.
//!
//! A tenant has workspaces, and a workspace has projects. It names the class of its environment, and that is data for
//! policy (`input.resource.environment`): a rule may ask for two people in production and for nobody in development.

use crate::{name, project, rights, tally};
use act::{Draw as _, Fault, Plan, Route, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Stored, View};

/// Most workspaces of a tenant, archived ones counted.
pub const WORKSPACES_MAX: u32 = 100;
/// Longest description, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 200;
const READ: &str = "access.workspace.read";

/// How much depends on what happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Nobody depends on it.
    Development,
    /// Like the real thing, with nothing at stake.
    Staging,
    /// The real thing.
    Production,
}

impl Environment {
    /// The spelling in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Staging => "staging",
            Environment::Production => "production",
        }
    }
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceDoc {
    /// `wks_<name>`
    pub id: Id,
    /// Its class.
    pub environment: Environment,
    /// What it is for.
    pub description: String,
    /// How many of its projects are not archived. Whoever adds or archives one writes it.
    pub projects: u32,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// When it was archived.
    pub archived_at_ms: Option<i64>,
}

impl Document for WorkspaceDoc {
    const KIND: &'static str = "access.workspace";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![("name", Key::new().text(self.id.as_str()).bytes())]
    }
}

/// Arguments of `access.workspace.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name: lower-case letters, digits and dashes. It is taken for good.
    pub name: String,
    /// Its class: development, staging or production.
    pub environment: Environment,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// Arguments of `access.workspace.archive`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its name.
    pub workspace: String,
}

/// Checks what people write about a thing: one line.
pub(crate) fn description_check(text: &str) -> Result<(), Fault> {
    if text.len() > DESCRIPTION_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Fault::invalid("request.invalid", "a description is one line of at most 200 bytes"));
    }
    Ok(())
}

/// Reads the workspace that `text` names.
pub(crate) async fn find(view: &View, text: &str) -> Result<Stored<WorkspaceDoc>, Fault> {
    let missing = || Fault::not_found("workspace");
    view.get::<WorkspaceDoc>(&name::id("wks", text).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "access.workspace.create",
            summary: "Creates a workspace",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.workspace", "access.tally"],
            facts: &["access.workspace.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|_, args, ctx| {
                async move {
                    let args: Create = parse(args)?;
                    let mut target = Target::of("access.tenant", ctx.tenant.id());
                    target.attributes = json!({"environment": args.environment.as_str()});
                    target.preview = vec![
                        ("New workspace".into(), name::of(&name::new("wks", &args.name)?).to_owned()),
                        ("Environment".into(), args.environment.as_str().to_owned()),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Create = parse(args)?;
                    description_check(&args.description)?;
                    let doc = WorkspaceDoc {
                        id: name::new("wks", &args.name)?,
                        environment: args.environment,
                        description: args.description,
                        projects: 0,
                        created_at_ms: stamp.at_ms,
                        archived_at_ms: None,
                    };
                    if view.get::<WorkspaceDoc>(&doc.id).await?.is_some() {
                        return Err(Fault::conflict("access.name_taken", "a workspace of this name exists"));
                    }
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    tally::one_more(view, &mut plan, "workspaces", WORKSPACES_MAX).await?;
                    plan.draft.put_new(&doc).fact(stamp.fact(
                        "access.workspace.created",
                        &doc.id,
                        (WorkspaceDoc::KIND, &doc.id),
                        json!({"environment": doc.environment.as_str()}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.workspace.archive",
            summary: "Archives a workspace whose projects are all archived",
            args: || schemars::schema_for!(Archive).into(),
            writes: &["access.workspace"],
            facts: &["access.workspace.archived"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Archive = parse(args)?;
                    let doc = find(view, &args.workspace).await?;
                    let mut target = Target::of(WorkspaceDoc::KIND, &doc.id);
                    target.attributes = json!({"environment": doc.environment.as_str()});
                    target.preview = vec![("Archive workspace".into(), name::of(&doc.id).to_owned())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Archive = parse(args)?;
                    let stored = find(view, &args.workspace).await?;
                    if stored.archived_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the workspace is archived already"));
                    }
                    if stored.projects > 0 {
                        return Err(Fault::conflict(
                            "request.state",
                            "the workspace has projects; archive them first",
                        ));
                    }
                    let doc = WorkspaceDoc { archived_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "access.workspace.archived",
                        &doc.id,
                        (WorkspaceDoc::KIND, &doc.id),
                        json!({}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(doc: &WorkspaceDoc) -> Value {
    json!({
        "id": doc.id, "name": name::of(&doc.id), "environment": doc.environment.as_str(), "description": doc.description,
        "projects": doc.projects, "created_at_ms": doc.created_at_ms, "archived_at_ms": doc.archived_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/v1/workspaces", "workspace_create", "Create a workspace", "access.workspace.create"),
        Route::get("/v1/workspaces", "workspace_list", "List workspaces by name", READ, |query| {
            async move { page::list(&query, "name", Vec::new(), false, shown).await }.boxed()
        })
        .taking(&page::PARAMS),
        Route::get(
            "/v1/workspaces/{workspace}",
            "workspace_show",
            "Show a workspace with its projects",
            READ,
            |query| {
                async move {
                    let doc = find(query.view, query.param("workspace").unwrap_or_default()).await?;
                    let mut value = shown(&doc);
                    let reach = rights::reach(&query.ctx.principal, "access.project.read");
                    value["project_ids"] = json!(project::ids_in(query.view, &doc.id, &reach).await?);
                    Ok(value)
                }
                .boxed()
            },
        ),
        Route::post(
            "/v1/workspaces/{workspace}/archive",
            "workspace_archive",
            "Archive a workspace whose projects are all archived",
            "access.workspace.archive",
        ),
    ]
}
