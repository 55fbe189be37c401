//! Publishing and retiring workflows.

use super::check;
use super::parse::{self, Problem};
use super::record::{
    Published, STARTS_MAX, Source, Starts, VERSIONS_MAX, VersionRow, source_id, starts_id, workflow_id,
};
use crate::Deps;
use crate::artifact::Kind;
use crate::artifact::record::{Artifact, published as published_fact, row as record_row, signed};
use crate::connector::manifest::Manifest;
use crate::connector::record::{Connector, Version, connector_id, version_id};
use crate::connector::verbs::refused;
use crate::run::strand::STRANDS_MAX;
use crate::run::verbs::WORKFLOWS_MAX;
use crate::workflow::Workflow;
use act::{Draw as _, Fault, Plan, Stamp, Target, Verb};
use custody::Keyring;
use futures::FutureExt as _;
use kernel::{hex, sha256};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Arguments of `flows.workflow.publish`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishArgs {
    /// The workflow, YAML.
    pub yaml: String,
    /// The project that it belongs to from now on: its runs are paid for by that project. As before, if absent.
    #[serde(default)]
    pub project: Option<String>,
}

/// Arguments of `flows.workflow.retire`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireArgs {
    /// Its name.
    pub workflow: String,
}

fn parsed(yaml: &str) -> Result<Workflow, Fault> {
    parse::parse(yaml).map_err(|problems| refused("flows.workflow_invalid", &problems))
}

/// The manifests of the connectors it calls, as installed, and their digests.
async fn manifests(
    view: &View,
    workflow: &Workflow,
) -> Result<BTreeMap<String, (Manifest, Option<String>)>, Fault> {
    let mut names: Vec<String> = workflow.connectors().into_iter().map(str::to_owned).collect();
    names.extend(workflow.trigger.iter().map(|trigger| trigger.connector.clone()));
    let mut manifests = BTreeMap::new();
    for name in names {
        let Some(id) = connector_id(&name) else { continue };
        let Some(connector) = view.get::<Connector>(&id).await?.filter(|doc| doc.removed_at_ms.is_none())
        else {
            continue;
        };
        let Some(version) = version_id(&connector.version) else { continue };
        if let Some(version) = view.peek::<Version>(&version).await? {
            manifests.insert(name, (version.doc.manifest, connector.artifact.clone()));
        }
    }
    Ok(manifests)
}

async fn published(view: &View, name: &str) -> Result<Stored<Published>, Fault> {
    let missing = || Fault::not_found("workflow");
    view.get::<Published>(&workflow_id(name).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// Name of the project that a workflow shall belong to: the one that is named, which has to be there, or the one that it
/// belongs to already.
async fn project(
    view: &View,
    args: &PublishArgs,
    stored: Option<&Stored<Published>>,
) -> Result<Option<String>, Fault> {
    match &args.project {
        Some(text) => {
            let place = access::project::place_live(view, text).await?;
            Ok(Some(access::project::project_name(&place.project).to_owned()))
        }
        None => Ok(stored.and_then(|stored| stored.project.clone())),
    }
}

/// What is wrong with the workflows that it runs: each has to be published, and none may lead back to it.
async fn runs(view: &View, workflow: &Workflow) -> Result<Vec<Problem>, Fault> {
    let mut problems = Vec::new();
    let mut inner = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = workflow.workflows().into_iter().map(str::to_owned).collect();
    while let Some(name) = next.pop() {
        if name == workflow.name {
            problems.push(Problem::at("steps", "A workflow that it runs leads back to it."));
        }
        if !seen.insert(name.clone()) || seen.len() > WORKFLOWS_MAX {
            continue;
        }
        let found = match workflow_id(&name) {
            Some(id) => view.get::<Published>(&id).await?.filter(|doc| doc.retired_at_ms.is_none()),
            None => None,
        };
        let Some(found) = found else {
            problems.push(Problem::at("steps", format!("No workflow {name} is published.")));
            continue;
        };
        if let Some(source) = source_id(&found.digest)
            && let Some(source) = view.peek::<Source>(&source).await?
            && let Ok(found) = parse::parse(&source.text)
        {
            next.extend(found.workflows().into_iter().map(str::to_owned));
            inner.insert(name, Arc::new(found));
        }
    }
    let strands = workflow.strands_most(&inner);
    if strands > STRANDS_MAX {
        let message = format!(
            "It could have {strands} branches and inner runs at once, over all depths; at most {STRANDS_MAX}."
        );
        problems.push(Problem::at("steps", message));
    }
    if seen.len() > WORKFLOWS_MAX {
        problems.push(Problem::at("steps", format!("It runs more than {WORKFLOWS_MAX} other workflows.")));
    }
    Ok(problems)
}

/// Takes a workflow out of what an event starts, or puts it in.
async fn starts(
    view: &View,
    plan: &mut Plan,
    event: &(String, String),
    name: &str,
    starts: bool,
) -> Result<(), Fault> {
    let id = starts_id(&event.0, &event.1)
        .ok_or_else(|| Fault::invalid("flows.workflow_invalid", "the trigger's event has no such name"))?;
    let stored = view.get::<Starts>(&id).await?;
    let mut workflows = stored.as_ref().map(|stored| stored.workflows.clone()).unwrap_or_default();
    workflows.retain(|other| other != name);
    if starts {
        workflows.push(name.to_owned());
        workflows.sort();
    }
    if workflows.len() > STARTS_MAX {
        return Err(Fault::conflict("flows.trigger_full", "16 workflows are started by this event already"));
    }
    let doc = Starts { id, workflows };
    match &stored {
        Some(stored) if stored.doc == doc => {}
        Some(stored) => {
            plan.draft.put_if(stored, &doc);
        }
        None => {
            plan.draft.put_new(&doc);
        }
    }
    Ok(())
}

/// The signed artifact that a version is: its typed form, and name, version and digest of each connector that it was checked
/// against.
fn artifact_of(
    workflow: &Workflow,
    manifests: &BTreeMap<String, (Manifest, Option<String>)>,
    keyring: &Keyring,
    stamp: &Stamp,
) -> Result<Artifact, Fault> {
    let connectors: BTreeMap<&String, Value> = manifests
        .iter()
        .map(|(name, (manifest, digest))| {
            (name, json!({"manifest": manifest.name, "version": manifest.version, "digest": digest}))
        })
        .collect();
    // Plain data with text keys always becomes a value.
    let payload =
        json!({"connectors": connectors, "workflow": serde_json::to_value(workflow).unwrap_or_default()});
    let payload = kernel::json::canonical(&payload).map_err(act::internal)?;
    let digest = hex::encode(&sha256(&payload));
    let envelope = signed(Kind::Workflow, &payload, keyring);
    record_row(Kind::Workflow, (&workflow.name, &digest), &digest, envelope, stamp)
}

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    let keyring = deps.custody.keyring().clone();
    vec![
        Verb {
            act: "flows.workflow.publish",
            summary: "Publishes a workflow, or a new version of it",
            args: || schemars::schema_for!(PublishArgs).into(),
            writes: &["flows.workflow", "flows.workflow_version", "flows.trigger", "flows.artifact"],
            facts: &["flows.workflow.published", "flows.artifact.published"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: PublishArgs = act::parse(args)?;
                    let workflow = parsed(&args.yaml)?;
                    let id = workflow_id(&workflow.name).ok_or_else(|| {
                        Fault::invalid("flows.workflow_invalid", "the workflow's name cannot be used")
                    })?;
                    let stored = view.get::<Published>(&id).await?;
                    let project = project(view, &args, stored.as_ref()).await?;
                    // Who takes a workflow out of one project into another needs to reach both: the tenant.
                    let moves = stored.is_some_and(|stored| stored.project != project);
                    let place = access::project::place_of(view, project.as_deref().filter(|_| !moves)).await?;
                    let mut target = Target::of(Published::KIND, &id).at(place);
                    target.attributes =
                        json!({"connectors": workflow.connectors(), "steps": workflow.steps.len(), "moves": moves});
                    target.preview = vec![("Workflow".into(), workflow.name)];
                    if let Some(project) = project {
                        target.preview.push(("Project".into(), project));
                    }
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let keyring = keyring.clone();
                async move {
                    let args: PublishArgs = act::parse(args)?;
                    let workflow = parsed(&args.yaml)?;
                    let manifests = manifests(view, &workflow).await?;
                    let installed = manifests.iter().map(|(name, (manifest, _))| (name.as_str(), manifest)).collect();
                    let mut problems = check::problems(&workflow, &installed);
                    problems.extend(runs(view, &workflow).await?);
                    if !problems.is_empty() {
                        return Err(refused("flows.workflow_invalid", &problems));
                    }
                    let invalid = |_| Fault::invalid("flows.workflow_invalid", "the workflow is outside the canonical profile");
                    let digest = hex::encode(&workflow.digest().map_err(invalid)?);
                    let id = workflow_id(&workflow.name)
                        .ok_or_else(|| Fault::invalid("flows.workflow_invalid", "the workflow's name cannot be used"))?;
                    let source_id = source_id(&digest).ok_or_else(|| act::internal("a digest makes no id"))?;
                    let stored = view.get::<Published>(&id).await?;
                    let project = project(view, &args, stored.as_ref()).await?;
                    let mut versions = stored.as_ref().map(|stored| stored.versions.clone()).unwrap_or_default();
                    if versions.first().is_some_and(|version| version.digest == digest)
                        && stored.as_ref().is_some_and(|stored| stored.retired_at_ms.is_none() && stored.project == project)
                    {
                        return Err(Fault::conflict("request.state", "this version is in force already"));
                    }
                    let artifact = artifact_of(&workflow, &manifests, &keyring, stamp)?;
                    let row = VersionRow {
                        artifact: Some(artifact.digest.clone()),
                        digest: digest.clone(),
                        label: workflow.version.clone(),
                        at_ms: stamp.at_ms,
                        by: stamp.ctx.principal.id.clone(),
                    };
                    // A workflow that only moves to another project keeps its version.
                    if versions.first().is_none_or(|version| version.digest != row.digest) {
                        versions.insert(0, row);
                    }
                    versions.truncate(VERSIONS_MAX);
                    let trigger = workflow.trigger.as_ref().map(|trigger| (trigger.connector.clone(), trigger.event.clone()));
                    let doc = Published {
                        id: id.clone(),
                        digest: digest.clone(),
                        label: workflow.version.clone(),
                        description: workflow.description.clone(),
                        trigger: trigger.clone(),
                        versions,
                        retired_at_ms: None,
                        project,
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: doc.shown() };
                    if view.get::<Artifact>(&artifact.id).await?.is_none() {
                        plan.draft.put_new(&artifact).fact(published_fact(&artifact, stamp));
                    }
                    if view.get::<Source>(&source_id).await?.is_none() {
                        plan.draft.put_new(&Source { id: source_id, text: args.yaml });
                    }
                    let before = stored.as_ref().and_then(|stored| stored.trigger.clone());
                    if let Some(before) = before.filter(|before| Some(before) != trigger.as_ref()) {
                        starts(view, &mut plan, &before, &workflow.name, false).await?;
                    }
                    if let Some(trigger) = &trigger {
                        starts(view, &mut plan, trigger, &workflow.name, true).await?;
                    }
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft.fact(stamp.fact(
                        "flows.workflow.published",
                        &id,
                        (Published::KIND, &id),
                        json!({"digest": digest, "artifact": artifact.digest, "label": doc.label, "before": stored.as_ref().map(|stored| &stored.digest), "project": doc.project}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.workflow.retire",
            summary: "Retires a workflow; running runs go on",
            args: || schemars::schema_for!(RetireArgs).into(),
            writes: &["flows.workflow", "flows.trigger"],
            facts: &["flows.workflow.retired"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: RetireArgs = act::parse(args)?;
                    let doc = published(view, &args.workflow).await?;
                    let place = access::project::place_of(view, doc.project.as_deref()).await?;
                    let mut target = Target::of(Published::KIND, &doc.id).at(place);
                    target.preview = vec![("Retire workflow".into(), args.workflow)];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RetireArgs = act::parse(args)?;
                    let stored = published(view, &args.workflow).await?;
                    if stored.retired_at_ms.is_some() {
                        return Err(Fault::conflict(
                            "request.state",
                            "the workflow has been retired already",
                        ));
                    }
                    let doc = Published { retired_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: doc.shown() };
                    if let Some(trigger) = &doc.trigger {
                        starts(view, &mut plan, trigger, &args.workflow, false).await?;
                    }
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "flows.workflow.retired",
                        &doc.id,
                        (Published::KIND, &doc.id),
                        json!({"digest": doc.digest}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}
