//! Installing and removing connectors.

use super::manifest::{self, Manifest};
use super::poll::{self, EVERY_MS_MAX, EVERY_MS_MIN};
use super::record::{Connector, Hook, Login, Version, base_url_check, connector_id};
use crate::Deps;
use crate::workflow::parse::Problem;
use act::{Draw as _, Fault, Plan, Target, Verb};
use custody::CredentialRef;
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Arguments of `flows.connector.install`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallArgs {
    /// The name that workflows use: lower-case letters, digits and dashes.
    pub name: String,
    /// The manifest, YAML.
    pub manifest: String,
    /// Where the system is, without a slash at the end.
    pub base_url: String,
    /// User for HTTP Basic, or the user that the token belongs to.
    pub user: Option<String>,
    /// Password for HTTP Basic, as `secret:<name>`.
    pub password: Option<String>,
    /// Bearer token, as `secret:<name>`.
    pub token: Option<String>,
    /// Signing secret of its deliveries, as `secret:<name>`; without one it receives none.
    pub webhook_secret: Option<String>,
    /// How often it is asked for what has changed, in milliseconds, from ten seconds to a day; without it, never.
    pub poll_every_ms: Option<i64>,
}

/// Arguments of `flows.connector.remove`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveArgs {
    /// The name it is installed under.
    pub connector: String,
}

/// Problems of an upload, as one fault.
pub(crate) fn refused(code: &str, problems: &[Problem]) -> Fault {
    let lines: Vec<String> =
        problems.iter().take(20).map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    Fault::invalid(code, lines.join("; ")).with(json!({"problems": lines}))
}

struct Checked {
    id: Id,
    manifest: Manifest,
    login: Login,
    webhook_secret: Option<CredentialRef>,
}

fn check(args: &InstallArgs, private_hosts: &[String]) -> Result<Checked, Fault> {
    let id = connector_id(&args.name).ok_or_else(|| {
        Fault::invalid("request.invalid", "a name has lower-case letters, digits and dashes")
    })?;
    let manifest =
        manifest::parse(&args.manifest).map_err(|problems| refused("flows.manifest_invalid", &problems))?;
    base_url_check(&args.base_url, private_hosts).map_err(|problem| refused("flows.base_url", &[problem]))?;
    let reference = |text: &String| {
        CredentialRef::parse(text)
            .map_err(|_| Fault::invalid("request.invalid", "a secret is named as secret:<name>"))
    };
    let login = match (&args.user, &args.password, &args.token) {
        (_, None, None) => Login::Nothing,
        (Some(user), Some(password), None) => {
            Login::Basic { user: user.clone(), password: reference(password)? }
        }
        (user, None, Some(token)) => Login::Bearer { token: reference(token)?, user: user.clone() },
        _ => return Err(Fault::invalid("request.invalid", "give user and password, or a token, or neither")),
    };
    if args.poll_every_ms.is_some_and(|every_ms| !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&every_ms)) {
        return Err(Fault::invalid("request.invalid", "poll_every_ms is ten seconds to a day"));
    }
    let webhook_secret = args.webhook_secret.as_ref().map(reference).transpose()?;
    // What it writes comes back as an event. Only by its user's name is that told from what others did; without it a
    // workflow that writes would start itself again and again.
    let heard = |event: &manifest::Event| match args.poll_every_ms {
        Some(_) if event.poll.is_some() => true,
        _ => webhook_secret.is_some() && event.author.is_some(),
    };
    if login.user().is_none() && manifest.writes() && manifest.events.values().any(heard) {
        return Err(Fault::invalid(
            "request.invalid",
            "a connector that writes and hears of changes needs a login and its user: without `user` it could not tell its own changes from those of others",
        ));
    }
    Ok(Checked { id, manifest, login, webhook_secret })
}

async fn installed(view: &View, name: &str) -> Result<Stored<Connector>, Fault> {
    let missing = || Fault::not_found("connector");
    view.get::<Connector>(&connector_id(name).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    let (for_aim, for_plan) = (deps.private_hosts.clone(), deps.private_hosts.clone());
    vec![
        poll::verb(),
        Verb {
            act: "flows.connector.install",
            summary: "Installs a connector, or a new version of it",
            args: || schemars::schema_for!(InstallArgs).into(),
            writes: &["flows.connector", "flows.connector_version", "flows.poll"],
            facts: &["flows.connector.installed"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(move |_, args, _| {
                let private_hosts = for_aim.clone();
                async move {
                    let args: InstallArgs = act::parse(args)?;
                    let checked = check(&args, &private_hosts)?;
                    let mut target = Target::of(Connector::KIND, &checked.id);
                    target.attributes = json!({"manifest": checked.manifest.name, "base_url": args.base_url});
                    target.preview = vec![
                        ("Connector".into(), args.name.clone()),
                        ("System".into(), format!("{} {}", checked.manifest.name, checked.manifest.version)),
                        ("Address".into(), args.base_url),
                    ];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let private_hosts = for_plan.clone();
                async move {
                    let args: InstallArgs = act::parse(args)?;
                    let checked = check(&args, &private_hosts)?;
                    let version = Version::new(checked.manifest, args.base_url, checked.login)
                        .map_err(|error| Fault::invalid("flows.manifest_invalid", error.to_string()))?;
                    let stored = view.get::<Connector>(&checked.id).await?;
                    // The hook's address outlives versions: the other system has been told it.
                    let earlier = stored.as_ref().and_then(|stored| stored.hook.as_ref()).map(|hook| hook.id.clone());
                    let hook = checked.webhook_secret.map(|secret| Hook { id: earlier.unwrap_or_else(|| stamp.id("hok")), secret });
                    let doc = Connector {
                        id: checked.id,
                        version: version.digest().to_owned(),
                        manifest: (version.manifest.name.clone(), version.manifest.version.clone()),
                        base_url: version.base_url.clone(),
                        hook,
                        poll_every_ms: args.poll_every_ms,
                        installed_at_ms: stamp.at_ms,
                        installed_by: stamp.ctx.principal.id.clone(),
                        removed_at_ms: None,
                    };
                    let mut plan = Plan { draft: stamp.draft(), outcome: doc.shown() };
                    if doc.poll_every_ms.is_some() {
                        // Switched on, or pointed at another system: what happened there before is nobody's event.
                        let goes_on = stored.as_ref().is_some_and(|before| {
                            before.removed_at_ms.is_none()
                                && before.poll_every_ms.is_some()
                                && before.base_url == doc.base_url
                        });
                        poll::begin(view, &mut plan, stamp, doc.name(), &version.manifest, goes_on).await?;
                    }
                    if view.get::<Version>(&version.id).await?.is_none() {
                        plan.draft.put_new(&version);
                    }
                    match &stored {
                        Some(stored) => plan.draft.put_if(stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    plan.draft.fact(stamp.fact(
                        "flows.connector.installed",
                        &doc.id,
                        (Connector::KIND, &doc.id),
                        json!({"version": doc.version, "manifest": doc.manifest.0, "manifest_version": doc.manifest.1,
                               "base_url": doc.base_url, "receives": doc.hook.is_some(), "poll_every_ms": doc.poll_every_ms}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
        Verb {
            act: "flows.connector.remove",
            summary: "Removes a connector; runs that need it stop at their next call",
            args: || schemars::schema_for!(RemoveArgs).into(),
            writes: &["flows.connector"],
            facts: &["flows.connector.removed"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(|view, args, _| {
                async move {
                    let args: RemoveArgs = act::parse(args)?;
                    let doc = installed(view, &args.connector).await?;
                    let mut target = Target::of(Connector::KIND, &doc.id);
                    target.preview = vec![("Remove connector".into(), args.connector)];
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(|view, args, stamp| {
                async move {
                    let args: RemoveArgs = act::parse(args)?;
                    let stored = installed(view, &args.connector).await?;
                    if stored.removed_at_ms.is_some() {
                        return Err(Fault::conflict(
                            "request.state",
                            "the connector has been removed already",
                        ));
                    }
                    let doc = Connector { removed_at_ms: Some(stamp.at_ms), ..stored.doc.clone() };
                    let mut plan = Plan { draft: stamp.draft(), outcome: doc.shown() };
                    plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                        "flows.connector.removed",
                        &doc.id,
                        (Connector::KIND, &doc.id),
                        json!({"version": doc.version}),
                    ));
                    Ok(plan)
                }
                .boxed()
            }),
        },
    ]
}
