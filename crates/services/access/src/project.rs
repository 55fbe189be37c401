//! Projects: what roles, budgets and bills are about, below a tenant.
//!
//! A project stands in a workspace. A workflow is published into it, a run of that workflow carries it, and so does every
//! model call of the run: a budget of the project stops it, a report shows what it cost, and a role that somebody has in
//! the project reaches it. Nothing crosses tenants: a project is looked up in the tenant of whoever asks, so another
//! tenant's is not there.
//!
//! For those who add an act: what its target stands in is said by [`Target::at`], with a [`Place`] from [`place`] (what
//! is there already) or [`place_live`] (what is to be put there).

use crate::workspace::{WorkspaceDoc, description_check, find as workspace_find};
use crate::{name, rights};
use act::{Class, Draw as _, Fault, Param, Place, Plan, Route, Target, Verb, page, parse};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::key::Key;
use store::{Document, Range, Stored, View};

/// Most projects of a workspace that are not archived.
pub const PROJECTS_MAX: u32 = 200;
const READ: &str = "access.project.read";

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectDoc {
    /// `prj_<name>`
    pub id: Id,
    /// The workspace it stands in.
    pub workspace: Id,
    /// What it is for.
    pub description: String,
    /// When it was created, milliseconds UTC.
    pub created_at_ms: i64,
    /// When it was archived: nothing new is put into it.
    pub archived_at_ms: Option<i64>,
}

impl Document for ProjectDoc {
    const KIND: &'static str = "access.project";
    fn id(&self) -> &Id {
        &self.id
    }
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        let key = Key::new().text(self.workspace.as_str()).text(self.id.as_str());
        vec![("name", Key::new().text(self.id.as_str()).bytes()), ("workspace", key.bytes())]
    }
}

/// The id of the project that `text`, its name or its id, names. Whether it is there is another question.
pub fn project_id(text: &str) -> Option<Id> {
    name::id("prj", text)
}

/// The name of a project, as bills, budgets and runs have it.
pub fn project_name(id: &Id) -> &str {
    name::of(id)
}

async fn placed(view: &View, doc: &ProjectDoc) -> Result<Option<Place>, Fault> {
    let workspace = view.get::<WorkspaceDoc>(&doc.workspace).await?;
    Ok(workspace.map(|workspace| Place {
        project: doc.id.clone(),
        workspace: workspace.id.clone(),
        environment: workspace.environment.as_str(),
    }))
}

/// Where the project stands, archived or not. `None`: it is not there, and what names it stands in none.
///
/// # Errors
/// Storage that cannot be read.
pub async fn place(view: &View, id: &Id) -> Result<Option<Place>, Fault> {
    match view.get::<ProjectDoc>(id).await? {
        Some(doc) => placed(view, &doc).await,
        None => Ok(None),
    }
}

/// The same by a name that a record keeps; no name is no project.
///
/// # Errors
/// Storage that cannot be read.
pub async fn place_of(view: &View, name: Option<&str>) -> Result<Option<Place>, Fault> {
    match name.and_then(project_id) {
        Some(id) => place(view, &id).await,
        None => Ok(None),
    }
}

/// Where something new is to be put: in a project that is there and not archived.
///
/// # Errors
/// `access.project_unknown`.
pub async fn place_live(view: &View, text: &str) -> Result<Place, Fault> {
    let unknown = || {
        Fault::new(
            Class::Invalid,
            "access.project_unknown",
            "no project of this name is there, or it is archived",
        )
    };
    let id = project_id(text).ok_or_else(unknown)?;
    let doc = view.get::<ProjectDoc>(&id).await?.filter(|doc| doc.archived_at_ms.is_none());
    let doc = doc.ok_or_else(unknown)?;
    placed(view, &doc).await?.ok_or_else(unknown)
}

async fn find(view: &View, text: &str) -> Result<Stored<ProjectDoc>, Fault> {
    let missing = || Fault::not_found("project");
    view.get::<ProjectDoc>(&project_id(text).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// From how many projects of a workspace on its answer names no more; the list of projects has them all.
const PROJECTS_SHOWN_MAX: usize = 1_000;

/// The ids of a workspace's projects, as far as somebody may read them.
pub(crate) async fn ids_in(view: &View, workspace: &Id, reach: &rights::Reach) -> Result<Vec<Id>, Fault> {
    let range = Range::of("workspace", Key::new().text(workspace.as_str()).bytes());
    let found = view.list_through::<ProjectDoc>(range, PROJECTS_SHOWN_MAX).await?;
    let ids = found.into_iter().map(|found| found.stored.doc.id);
    Ok(ids.filter(|id| reach.covers(Some(id))).collect())
}

/// Arguments of `access.project.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Its name: lower-case letters, digits and dashes. It is taken for good.
    pub name: String,
    /// The workspace it stands in.
    pub workspace: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// Arguments of `access.project.archive`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its name.
    pub project: String,
}

/// The verbs.
pub fn verbs() -> Vec<Verb> {
    vec![
        Verb {
            act: "access.project.create",
            summary: "Creates a project in a workspace",
            args: || schemars::schema_for!(Create).into(),
            writes: &["access.project", "access.workspace"],
            facts: &["access.project.created"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Create = parse(args)?;
                    let workspace = workspace_find(view, &args.workspace).await?;
                    let mut target = Target::of(WorkspaceDoc::KIND, &workspace.id);
                    target.attributes = json!({"environment": workspace.environment.as_str()});
                    target.preview = vec![
                        ("New project".into(), name::of(&name::new("prj", &args.name)?).to_owned()),
                        ("Workspace".into(), name::of(&workspace.id).to_owned()),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Create = parse(args)?;
                    description_check(&args.description)?;
                    let stored = workspace_find(view, &args.workspace).await?;
                    if stored.archived_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the workspace is archived"));
                    }
                    let workspace =
                        WorkspaceDoc { projects: stored.projects.saturating_add(1), ..stored.doc.clone() };
                    if workspace.projects > PROJECTS_MAX {
                        let message = format!("a workspace has at most {PROJECTS_MAX} projects");
                        return Err(Fault::conflict("request.state", message));
                    }
                    let doc = ProjectDoc {
                        id: name::new("prj", &args.name)?,
                        workspace: workspace.id.clone(),
                        description: args.description,
                        created_at_ms: stamp.at_ms,
                        archived_at_ms: None,
                    };
                    if view.get::<ProjectDoc>(&doc.id).await?.is_some() {
                        return Err(Fault::conflict("access.name_taken", "a project of this name exists"));
                    }
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    plan.draft.put_new(&doc).put_if(&stored, &workspace).fact(stamp.fact(
                        "access.project.created",
                        &doc.id,
                        (ProjectDoc::KIND, &doc.id),
                        json!({"workspace": doc.workspace}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "access.project.archive",
            summary: "Archives a project: nothing new is put into it, what runs goes on",
            args: || schemars::schema_for!(Archive).into(),
            writes: &["access.project", "access.workspace"],
            facts: &["access.project.archived"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: Archive = parse(args)?;
                    let doc = find(view, &args.project).await?;
                    let mut target = Target::of(ProjectDoc::KIND, &doc.id).at(placed(view, &doc).await?);
                    target.preview = vec![("Archive project".into(), name::of(&doc.id).to_owned())];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: Archive = parse(args)?;
                    let stored = find(view, &args.project).await?;
                    if stored.archived_at_ms.is_some() {
                        return Err(Fault::conflict("request.state", "the project is archived already"));
                    }
                    let doc = ProjectDoc { archived_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: shown(&doc) };
                    if let Some(stored) = view.get::<WorkspaceDoc>(&doc.workspace).await? {
                        let projects = stored.projects.saturating_sub(1);
                        plan.draft.put_if(&stored, &WorkspaceDoc { projects, ..stored.doc.clone() });
                    }
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "access.project.archived",
                        &doc.id,
                        (ProjectDoc::KIND, &doc.id),
                        json!({"workspace": doc.workspace}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}

fn shown(doc: &ProjectDoc) -> Value {
    json!({
        "id": doc.id, "name": name::of(&doc.id), "workspace": name::of(&doc.workspace), "description": doc.description,
        "created_at_ms": doc.created_at_ms, "archived_at_ms": doc.archived_at_ms,
    })
}

/// The routes.
pub fn routes() -> Vec<Route> {
    const LISTED: &[Param] =
        &[Param { name: "workspace", summary: "only those of this workspace" }, page::AFTER, page::LIMIT];
    vec![
        Route::post(
            "/v1/projects",
            "project_create",
            "Create a project in a workspace",
            "access.project.create",
        ),
        Route::get("/v1/projects", "project_list", "List projects by name", READ, |query| {
            async move {
                let (index, prefix) = match query.param("workspace") {
                    None => ("name", Vec::new()),
                    Some(text) => {
                        let id = name::id("wks", text).ok_or_else(|| Fault::not_found("workspace"))?;
                        ("workspace", Key::new().text(id.as_str()).bytes())
                    }
                };
                let reach = rights::reach(&query.ctx.principal, READ);
                let readable = |doc: &ProjectDoc| reach.covers(Some(&doc.id)).then(|| shown(doc));
                page::list(&query, index, prefix, false, readable).await
            }
            .boxed()
        })
        .taking(LISTED),
        Route::get("/v1/projects/{project}", "project_show", "Show a project", READ, |query| {
            async move {
                let doc = find(query.view, query.param("project").unwrap_or_default()).await?;
                if !rights::reach(&query.ctx.principal, READ).covers(Some(&doc.id)) {
                    return Err(Fault::not_found("project"));
                }
                let mut value = shown(&doc);
                if let Some(place) = placed(query.view, &doc).await? {
                    value["environment"] = json!(place.environment);
                }
                Ok(value)
            }
            .boxed()
        }),
        Route::post(
            "/v1/projects/{project}/archive",
            "project_archive",
            "Archive a project",
            "access.project.archive",
        ),
    ]
}
