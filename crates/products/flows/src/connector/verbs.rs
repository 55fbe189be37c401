//! Installing and removing connectors.

use super::login::TOKEN_PATH;
use super::manifest;
use super::poll::{self, EVERY_MS_MAX, EVERY_MS_MIN};
use super::record::{Connector, Hook, Login, OauthClient, Version, base_url_check, connector_id, version_id};
use super::tool::{self, Agreed, State, Tool};
use crate::Deps;
use crate::artifact::record::{Offer, compare, offer, published};
use crate::workflow::parse::Problem;
use act::{Draw as _, Fault, Plan, Target, Verb};
use custody::credential::SecretDoc;
use custody::{CredentialRef, Keyring};
use futures::FutureExt as _;
use kernel::Id;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Longest client, scope and token path, in bytes.
pub const OAUTH_BYTES_MAX: usize = 256;

/// Arguments of `flows.connector.install`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallArgs {
    /// The name that workflows use: lower-case letters, digits and dashes.
    pub name: String,
    /// The manifest: its text (YAML), a signed artifact as `writ artifact sign` made it, or `name@version` of one in the
    /// registry.
    pub manifest: String,
    /// Where the system is, without a slash at the end.
    pub base_url: String,
    /// User for HTTP Basic, or the user that the token or client belongs to.
    pub user: Option<String>,
    /// Password for HTTP Basic, as `secret:<name>`.
    pub password: Option<String>,
    /// Bearer token, as `secret:<name>`.
    pub token: Option<String>,
    /// Client that fetches tokens by OAuth 2.0 client credentials.
    pub oauth_client_id: Option<String>,
    /// Its secret, as `secret:<name>`.
    pub oauth_client_secret: Option<String>,
    /// Where it fetches them, below the address; `/oauth_token.do` if not given.
    pub oauth_token_path: Option<String>,
    /// The scope that it asks for; none if not given.
    pub oauth_scope: Option<String>,
    /// Signing secret of its deliveries, as `secret:<name>`; without one it receives none.
    pub webhook_secret: Option<String>,
    /// How often it is asked for what has changed, in milliseconds, from ten seconds to a day; without it, never.
    pub poll_every_ms: Option<i64>,
    /// Installing again, no login is kept from before.
    #[serde(default)]
    pub no_login: bool,
    /// Installing again, no hook is kept from before.
    #[serde(default)]
    pub no_hook: bool,
    /// Whether an older version than the installed one may take its place.
    #[serde(default)]
    pub allow_older: bool,
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
    let line = |problem: &Problem| match problem.place.as_str() {
        "" => problem.message.clone(),
        place => format!("{place}: {}", problem.message),
    };
    let lines: Vec<String> = problems.iter().take(20).map(line).collect();
    Fault::invalid(code, lines.join("; ")).with(json!({"problems": lines}))
}

struct Checked {
    id: Id,
    offer: Offer,
    login: Login,
    webhook_secret: Option<CredentialRef>,
    /// The installation as it is, removed ones too.
    stored: Option<Stored<Connector>>,
    /// What is kept from before without having been said again.
    kept: Vec<&'static str>,
}

fn invalid(message: &str) -> Fault {
    Fault::invalid("request.invalid", message)
}

fn reference(text: &str) -> Result<CredentialRef, Fault> {
    CredentialRef::parse(text).map_err(|_| invalid("a secret is named as secret:<name>"))
}

/// A text that may stand in a form and a record: short and on one line.
fn plain(text: &str) -> bool {
    (1..=OAUTH_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The login that is asked for; `None`: none is.
fn login(args: &InstallArgs) -> Result<Option<Login>, Fault> {
    let oauth = [&args.oauth_client_id, &args.oauth_client_secret, &args.oauth_token_path, &args.oauth_scope];
    let oauth = oauth.iter().any(|arg| arg.is_some());
    match (&args.user, &args.password, &args.token, oauth) {
        (None, None, None, false) => Ok(None),
        (Some(user), Some(password), None, false) => {
            Ok(Some(Login::Basic { user: user.clone(), password: reference(password)? }))
        }
        (user, None, Some(token), false) => {
            Ok(Some(Login::Bearer { token: reference(token)?, user: user.clone() }))
        }
        (user, None, None, true) => {
            let (Some(id), Some(secret)) = (&args.oauth_client_id, &args.oauth_client_secret) else {
                return Err(invalid("give oauth_client_id and oauth_client_secret together"));
            };
            let path = args.oauth_token_path.as_deref().unwrap_or(TOKEN_PATH);
            let path_ok = path.starts_with('/')
                && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte))
                && !path.contains("..")
                && !path.contains("//");
            if !path_ok || !plain(path) || !plain(id) || !args.oauth_scope.as_deref().is_none_or(plain) {
                return Err(invalid(
                    "a token path is a path of letters, digits and -._~, and client and scope have 1 to 256 characters",
                ));
            }
            Ok(Some(Login::OauthClientCredentials(OauthClient {
                token_path: path.to_owned(),
                client_id: id.clone(),
                client_secret: reference(secret)?,
                scope: args.oauth_scope.clone(),
                user: user.clone(),
            })))
        }
        _ => Err(invalid("give user and password, or a token, or an OAuth client, or none of them")),
    }
}

async fn check(
    view: &View,
    args: &InstallArgs,
    private_hosts: &[String],
    keyring: &Keyring,
) -> Result<Checked, Fault> {
    let id = connector_id(&args.name)
        .ok_or_else(|| invalid("a name has lower-case letters, digits and dashes"))?;
    let offer = offer(view, keyring, &args.manifest).await?;
    let manifest = &offer.manifest;
    base_url_check(&args.base_url, private_hosts).map_err(|problem| refused("flows.base_url", &[problem]))?;
    if args.poll_every_ms.is_some_and(|every_ms| !(EVERY_MS_MIN..=EVERY_MS_MAX).contains(&every_ms)) {
        return Err(invalid("poll_every_ms is ten seconds to a day"));
    }
    let stored = view.get::<Connector>(&id).await?;
    if let Some((name, version)) = stored.as_ref().map(|stored| &stored.manifest)
        && *name == manifest.name
        && compare(&manifest.version, version).is_lt()
        && !args.allow_older
    {
        let message = format!(
            "{name}@{version} is installed and {} is older: say allow_older if that is meant",
            manifest.version
        );
        return Err(Fault::conflict("artifact.older", message));
    }
    let before = stored.as_ref().filter(|stored| stored.removed_at_ms.is_none());
    let mut kept = Vec::new();
    let login = match login(args)? {
        Some(_) if args.no_login => return Err(invalid("give a login or no_login, not both")),
        Some(login) => login,
        None => match before {
            Some(before) if !args.no_login => {
                let version =
                    version_id(&before.version).ok_or_else(|| act::internal("a version has no id"))?;
                let version = view.peek::<Version>(&version).await?;
                let version = version.ok_or_else(|| act::internal("an installed version is gone"))?;
                let origin =
                    |base_url: &str| egress::Target::parse(&format!("{base_url}/")).ok().map(|t| t.origin());
                if version.login != Login::Nothing {
                    // A password goes to the system that it was given for, and to no other by default.
                    if origin(&version.base_url) != origin(&args.base_url) {
                        return Err(Fault::conflict(
                            "flows.login_address",
                            "the address changes, so the login is not kept: say it again, or say no_login",
                        ));
                    }
                    kept.push("login");
                }
                version.login.clone()
            }
            _ => Login::Nothing,
        },
    };
    let webhook_secret = match (&args.webhook_secret, before.and_then(|before| before.hook.as_ref())) {
        (Some(_), _) if args.no_hook => return Err(invalid("give a webhook_secret or no_hook, not both")),
        (Some(secret), _) => Some(reference(secret)?),
        (None, Some(hook)) if !args.no_hook => {
            kept.push("hook");
            Some(hook.secret.clone())
        }
        (None, _) => None,
    };
    // What it writes comes back as an event. Only by its user's name is that told from what others did; without it a
    // workflow that writes would start itself again and again.
    let heard = |event: &manifest::Event| match args.poll_every_ms {
        Some(_) if event.poll.is_some() => true,
        _ => webhook_secret.is_some() && event.author.is_some(),
    };
    if login.user().is_none() && manifest.writes() && manifest.events.values().any(heard) {
        return Err(invalid(
            "a connector that writes and hears of changes needs a login and its user: without `user` it could not tell its own changes from those of others",
        ));
    }
    Ok(Checked { id, offer, login, webhook_secret, stored, kept })
}

/// The tools of the installation once `version` is installed by `by`.
async fn tools(
    view: &View,
    checked: &Checked,
    version: &Version,
    at_ms: i64,
    by: &Id,
) -> Result<BTreeMap<String, Tool>, Fault> {
    let agreed = |version: &str, at_ms: i64, by: &Id| Agreed {
        definition: String::new(),
        version: version.to_owned(),
        at_ms,
        by: by.clone(),
    };
    let now = agreed(version.digest(), at_ms, by);
    // A removal ends no agreement and no dispute: removed and installed again, a changed tool is changed.
    let Some(stored) = &checked.stored else { return tool::after(None, version, &now) };
    let id = version_id(&stored.version).ok_or_else(|| act::internal("an installation names no version"))?;
    let installed = view.peek::<Version>(&id).await?;
    let installed = installed.ok_or_else(|| act::internal("an installed version is gone"))?;
    let then = agreed(&stored.version, stored.installed_at_ms, &stored.installed_by);
    tool::after(Some((stored.tools.as_ref(), &installed, &then)), version, &now)
}

/// Names of the tools that nothing calls until somebody has agreed to their change.
fn changed(tools: &BTreeMap<String, Tool>) -> Vec<&String> {
    tools.iter().filter(|(_, tool)| tool.state() == State::Changed).map(|(name, _)| name).collect()
}

fn version_of(checked: &Checked, base_url: &str) -> Result<Version, Fault> {
    Version::new(checked.offer.manifest.clone(), base_url.to_owned(), checked.login.clone())
        .map_err(|error| Fault::invalid("flows.manifest_invalid", error.to_string()))
}

/// What is not wrong and will be, for the person who installs: secrets that cannot be opened.
async fn warnings(view: &View, login: &Login, hook: Option<&CredentialRef>) -> Result<Vec<String>, Fault> {
    let mut warnings = Vec::new();
    for reference in login.credential().into_iter().chain(hook) {
        let why = match view.peek::<SecretDoc>(reference.record()).await? {
            None => "is not stored",
            Some(secret) if secret.revoked_at_ms.is_some() => "has been revoked",
            Some(_) => continue,
        };
        warnings.push(format!(
            "{reference} {why}: calls fail until it is stored with `writ secret put --name {}`",
            reference.name()
        ));
    }
    Ok(warnings)
}

async fn installed(view: &View, name: &str) -> Result<Stored<Connector>, Fault> {
    let missing = || Fault::not_found("connector");
    view.get::<Connector>(&connector_id(name).ok_or_else(missing)?).await?.ok_or_else(missing)
}

/// The verbs.
pub fn verbs(deps: &Deps) -> Vec<Verb> {
    let (for_aim, for_plan) = (deps.private_hosts.clone(), deps.private_hosts.clone());
    let (keys_aim, keys_plan) = (deps.custody.keyring().clone(), deps.custody.keyring().clone());
    vec![
        poll::verb(),
        tool::verb(),
        Verb {
            act: "flows.connector.install",
            summary: "Installs a connector, or a new version of it",
            args: || schemars::schema_for!(InstallArgs).into(),
            writes: &["flows.connector", "flows.connector_version", "flows.poll", "flows.artifact"],
            facts: &["flows.connector.installed", "flows.artifact.published"],
            secret_args: &[],
            on_closed: None,
            can_wait: true,
            aim: Arc::new(move |view, args, ctx| {
                let (private_hosts, keyring) = (for_aim.clone(), keys_aim.clone());
                async move {
                    let args: InstallArgs = act::parse(args)?;
                    let checked = check(view, &args, &private_hosts, &keyring).await?;
                    let version = version_of(&checked, &args.base_url)?;
                    let tools = tools(view, &checked, &version, 0, &ctx.principal.id).await?;
                    let changed = changed(&tools);
                    let mut target = Target::of(Connector::KIND, &checked.id);
                    target.attributes = json!({
                        "manifest": checked.offer.manifest.name, "artifact": checked.offer.digest,
                        "signed_by": checked.offer.keyid(&keyring), "base_url": args.base_url, "login": checked.login.method(),
                        "tools_changed": changed,
                    });
                    let secret = checked.login.credential().map_or_else(String::new, |secret| format!(" with {secret}"));
                    let kept = if checked.kept.contains(&"login") { ", kept" } else { "" };
                    target.preview = vec![
                        ("Connector".into(), args.name.clone()),
                        ("System".into(), format!("{} {}", checked.offer.manifest.name, checked.offer.manifest.version)),
                        ("Digest".into(), checked.offer.digest.clone()),
                        ("Signed by".into(), checked.offer.keyid(&keyring)),
                        ("Address".into(), args.base_url),
                        ("Login".into(), format!("{}{secret}{kept}", checked.login.method())),
                    ];
                    if !changed.is_empty() {
                        let names: Vec<&str> = changed.iter().map(|name| name.as_str()).collect();
                        target.preview.push(("Tools that change, and stop until that is approved".into(), names.join(", ")));
                    }
                    Ok(target)
                }
                .boxed()
            }),
            plan: Arc::new(move |view, args, stamp| {
                let (private_hosts, keyring) = (for_plan.clone(), keys_plan.clone());
                async move {
                    let args: InstallArgs = act::parse(args)?;
                    let checked = check(view, &args, &private_hosts, &keyring).await?;
                    let warnings = warnings(view, &checked.login, checked.webhook_secret.as_ref()).await?;
                    let version = version_of(&checked, &args.base_url)?;
                    let tools = tools(view, &checked, &version, stamp.at_ms, &stamp.ctx.principal.id).await?;
                    let taken_in = if checked.offer.known { None } else { Some(checked.offer.artifact(&keyring, stamp)?) };
                    let (stored, kept) = (checked.stored, checked.kept);
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
                        artifact: Some(checked.offer.digest.clone()),
                        tools: Some(tools),
                    };
                    let changed = doc.tools.as_ref().map(changed).unwrap_or_default();
                    let mut outcome = doc.shown();
                    outcome["login"] = json!(version.login);
                    outcome["kept"] = json!(kept);
                    outcome["warnings"] = json!(warnings);
                    outcome["tools_changed"] = json!(changed);
                    let mut plan = Plan { draft: stamp.draft(), outcome };
                    if doc.poll_every_ms.is_some() {
                        // Switched on, or pointed at another system: what happened there before is nobody's event.
                        let goes_on = stored.as_ref().is_some_and(|before| {
                            before.removed_at_ms.is_none()
                                && before.poll_every_ms.is_some()
                                && before.base_url == doc.base_url
                        });
                        poll::begin(view, &mut plan, stamp, doc.name(), &version.manifest, goes_on).await?;
                    }
                    if let Some(artifact) = &taken_in {
                        plan.draft.put_new(artifact).fact(published(artifact, stamp));
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
                        json!({"version": doc.version, "artifact": doc.artifact, "manifest": doc.manifest.0, "manifest_version": doc.manifest.1,
                               "base_url": doc.base_url, "receives": doc.hook.is_some(), "poll_every_ms": doc.poll_every_ms,
                               "login": version.login.method(), "kept": kept, "tools_changed": changed}),
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
