//! Publishing and yanking artifacts.

use super::record::{Artifact, Yanked, offer, published};
use crate::Deps;
use act::{Draw as _, Fault, Plan, Target, Verb};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 400;

/// Arguments of `flows.artifact.publish`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishArgs {
    /// A connector's manifest: its text (YAML), or a signed artifact as `writ artifact sign` made it.
    pub manifest: String,
}

/// Arguments of `flows.artifact.yank`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YankArgs {
    /// The artifact, `art_…`.
    pub artifact: String,
    /// Why it should not be used any more.
    pub reason: String,
}

async fn stored(view: &View, id: &str) -> Result<Stored<Artifact>, Fault> {
    let missing = || Fault::not_found("artifact");
    let id = Id::parse(id).map_err(|_| missing())?;
    view.get::<Artifact>(&id).await?.ok_or_else(missing)
}

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    let (for_aim, for_plan) = (deps.custody.keyring().clone(), deps.custody.keyring().clone());
    let mut verbs = super::key::verbs();
    verbs.extend([
        Verb {
            act: "flows.artifact.publish",
            summary: "Takes a connector's manifest into the registry, under a signature, without installing it",
            args: || schemars::schema_for!(PublishArgs).into(),
            writes: &["flows.artifact"],
            facts: &["flows.artifact.published"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(move |view, args, _| {
                let keyring = for_aim.clone();
                async move {
                    let args: PublishArgs = act::parse(args)?;
                    let offer = offer(view, &keyring, &args.manifest).await?;
                    let (name, version) = (&offer.manifest.name, &offer.manifest.version);
                    let mut target = Target::of(Artifact::KIND, &super::record::artifact_id(super::Kind::Connector, name, version)?);
                    let key = offer.keyid(&keyring);
                    target.attributes = json!({"name": name, "version": version, "digest": offer.digest, "key": key});
                    target.preview = vec![
                        ("Publish".into(), format!("{name}@{version}")),
                        ("Digest".into(), offer.digest.clone()),
                        ("Signed by".into(), key),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let keyring = for_plan.clone();
                async move {
                    let args: PublishArgs = act::parse(args)?;
                    let offer = offer(view, &keyring, &args.manifest).await?;
                    if offer.known {
                        return Err(Fault::conflict("request.state", "this version is in the registry already"));
                    }
                    let artifact = offer.artifact(&keyring, stamp)?;
                    let mut plan = Plan { draft: stamp.draft(), outcome: artifact.shown() };
                    plan.draft.put_new(&artifact).fact(published(&artifact, stamp));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.artifact.yank",
            summary: "Says that a version should not be used any more; whoever has it goes on",
            args: || schemars::schema_for!(YankArgs).into(),
            writes: &["flows.artifact"],
            facts: &["flows.artifact.yanked"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: YankArgs = act::parse(args)?;
                    let artifact = stored(view, &args.artifact).await?;
                    let mut target = Target::of(Artifact::KIND, &artifact.id);
                    target.attributes = json!({"name": artifact.name, "version": artifact.version});
                    target.preview = vec![
                        ("Yank".into(), format!("{} {}@{}", artifact.kind.as_str(), artifact.name, artifact.version)),
                        ("Reason".into(), args.reason),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: YankArgs = act::parse(args)?;
                    let plain = (1..=REASON_BYTES_MAX).contains(&args.reason.len()) && !args.reason.chars().any(char::is_control);
                    if !plain {
                        return Err(Fault::invalid("request.invalid", "a reason is one line of 1 to 400 bytes"));
                    }
                    let before = stored(view, &args.artifact).await?;
                    if before.yanked.is_some() {
                        return Err(Fault::conflict("request.state", "the version has been yanked already"));
                    }
                    let yanked = Yanked { reason: args.reason, at_ms: stamp.at_ms, by: stamp.ctx.principal.id.clone() };
                    let doc = Artifact { yanked: Some(yanked), ..before.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: doc.shown() };
                    plan.draft.put_if(&before, &doc).fact(stamp.fact(
                        "flows.artifact.yanked",
                        &doc.id,
                        (Artifact::KIND, &doc.id),
                        json!({"name": doc.name, "version": doc.version, "digest": doc.digest}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]);
    verbs
}
