//! Tools, and what people have agreed that each of them is.
//!
//! A connector that was looked at once is trusted ever after, and that is what a "rug pull" uses: version 1.0.1 of a manifest
//! comes along, `incident.update` now sends its work notes somewhere else, and every workflow goes on calling it by the
//! same name. So trust is not in the name. Each action of a manifest has a *definition digest* over everything that says
//! what a call of it is: name, description, parameters, method, path, what is sent, what is believed of the reply, the effect
//! class, the headers that go along. An installation remembers which definitions of a tool people have agreed to.
//!
//! - Installing a connector for the first time agrees to what it brings: that is what was shown and decided.
//! - A later version may bring new tools, and tools as they were. A tool whose definition differs is **changed**: nothing
//!   calls it, not even a run that is pinned to the version before, until somebody with the right has agreed to the very
//!   difference (`flows.tool.approve`, by digest; how many people that takes is policy's, by the riskier of the two effect
//!   classes).
//! - A tool that a version leaves out is remembered all the same. Left out once and brought back otherwise, it is changed and
//!   not new.
//! - A run that is pinned to a definition that was agreed to goes on with that one. Nobody is moved to another definition
//!   in the middle of a run.
//!
//! What this does not see: an address that begins to behave differently under the same definition.

use super::manifest::{Action, Effect, Manifest};
use super::record::{Connector, Version, connector_id, version_id};
use crate::workflow::diff::{self, Change};
use act::{Draw as _, Fault, Plan, Target, Verb};
use futures::FutureExt as _;
use kernel::{Id, hex, json as canonical, sha256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Document as _, Stored, View};

/// Most tools that an installation remembers, those left out by now among them.
pub const TOOLS_MAX: usize = 256;
/// Most definitions of one tool that are remembered as agreed to; the oldest is forgotten first.
pub const AGREED_MAX: usize = 8;
/// Most differences that an approver is shown one by one.
const SHOWN_MAX: usize = 40;
/// Longest side of a difference that an approver is shown, in characters.
const SIDE_CHARS_MAX: usize = 400;

/// A tool of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Digest of its definition in the version that is installed; `None`: that version has none of this name.
    pub installed: Option<String>,
    /// Definitions that were agreed to, newest last.
    pub agreed: Vec<Agreed>,
}

/// A definition that was agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Digest of the definition, in hexadecimal.
    pub definition: String,
    /// Digest of a connector version in which it stands.
    pub version: String,
    /// Since when, milliseconds UTC.
    pub at_ms: i64,
    /// Who installed it first, or asked for the change.
    pub by: Id,
}

/// What may be done with a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is what people have agreed to.
    Approved,
    /// The installed version says something else of it. Nothing calls it.
    Changed,
    /// The installed version has it no more.
    Gone,
}

impl Tool {
    /// What may be done with it.
    pub fn state(&self) -> State {
        match &self.installed {
            None => State::Gone,
            Some(digest) if self.knows(digest) => State::Approved,
            Some(_) => State::Changed,
        }
    }

    fn knows(&self, definition: &str) -> bool {
        self.agreed.iter().any(|agreed| agreed.definition == definition)
    }

    fn agree(&mut self, agreed: Agreed) {
        self.agreed.retain(|known| known.definition != agreed.definition);
        self.agreed.push(agreed);
        if self.agreed.len() > AGREED_MAX {
            self.agreed.remove(0);
        }
    }
}

/// Everything that says what a call of an action is, as a value.
fn definition(manifest: &Manifest, name: &str, action: &Action) -> Value {
    json!({
        "name": name, "headers": manifest.headers,
        // Plain data with text keys always becomes a value.
        "action": serde_json::to_value(action).unwrap_or_default(),
    })
}

/// Digest of an action's definition, in hexadecimal.
pub fn digest(manifest: &Manifest, name: &str, action: &Action) -> String {
    // A manifest that was read is inside the canonical profile; anything else agrees with no digest.
    let bytes = canonical::canonical(&definition(manifest, name, action)).unwrap_or_default();
    hex::encode(&sha256(&bytes))
}

/// The tools of an installation once this version is installed. `before`: the tools as they stood, and the version that
/// was installed, for installations from before tools were remembered.
pub fn after(
    before: Option<(Option<&BTreeMap<String, Tool>>, &Version, &Agreed)>,
    version: &Version,
    agreed: &Agreed,
) -> Result<BTreeMap<String, Tool>, Fault> {
    let mut tools = match before {
        None => BTreeMap::new(),
        Some((Some(tools), _, _)) => tools.clone(),
        Some((None, installed, agreed)) => after(None, installed, agreed)?,
    };
    for tool in tools.values_mut() {
        tool.installed = None;
    }
    for (name, action) in &version.manifest.actions {
        let definition = digest(&version.manifest, name, action);
        match tools.get_mut(name) {
            Some(tool) => tool.installed = Some(definition),
            None => {
                let agreed = Agreed {
                    definition: definition.clone(),
                    version: version.digest().to_owned(),
                    ..agreed.clone()
                };
                tools.insert(name.clone(), Tool { installed: Some(definition), agreed: vec![agreed] });
            }
        }
    }
    if tools.len() > TOOLS_MAX {
        let message = "more tools than an installation remembers; install it under another name";
        return Err(Fault::conflict("flows.manifest_invalid", message));
    }
    Ok(tools)
}

/// Whether an action of this version may be called: the tool is not in dispute, and this is a definition that people have
/// agreed to.
///
/// # Errors
/// `flows.tool_changed`.
pub fn check(connector: &Connector, manifest: &Manifest, name: &str, action: &Action) -> Result<(), Fault> {
    // Installed before tools were remembered: what is installed was agreed to, and every installation since is remembered.
    let Some(tools) = &connector.tools else { return Ok(()) };
    let changed = |why: &str| {
        let tool = format!("{}.{name}", connector.name());
        Fault::conflict(
            "flows.tool_changed",
            format!("the tool {tool} {why}: see `writ connector show {}`", connector.name()),
        )
    };
    let Some(tool) = tools.get(name) else { return Err(changed("is not known to the installation")) };
    if tool.state() == State::Changed {
        return Err(changed("has changed and nobody has agreed to the change"));
    }
    if !tool.knows(&digest(manifest, name, action)) {
        return Err(changed("is used in a definition that nobody has agreed to"));
    }
    Ok(())
}

/// The definition that was agreed to last, and the installed one, if the tool is changed.
async fn differing(
    view: &View,
    connector: &Connector,
    name: &str,
) -> Result<Option<(Defined, Defined)>, Fault> {
    let Some(tool) = connector.tools.as_ref().and_then(|tools| tools.get(name)) else { return Ok(None) };
    let (State::Changed, Some(agreed), Some(_)) = (tool.state(), tool.agreed.last(), &tool.installed) else {
        return Ok(None);
    };
    let (before, after) =
        (defined(view, &agreed.version, name).await?, defined(view, &connector.version, name).await?);
    Ok(before.zip(after))
}

/// An action as a version has it.
struct Defined {
    value: Value,
    effect: Effect,
}

async fn defined(view: &View, version: &str, name: &str) -> Result<Option<Defined>, Fault> {
    let Some(id) = version_id(version) else { return Ok(None) };
    let Some(version) = view.peek::<Version>(&id).await? else { return Ok(None) };
    let manifest = &version.manifest;
    let defined =
        |action: &Action| Defined { value: definition(manifest, name, action), effect: action.effect };
    Ok(manifest.action(name).map(defined))
}

/// What changed about a tool, for those who look.
pub(super) async fn changes(view: &View, connector: &Connector, name: &str) -> Result<Vec<Change>, Fault> {
    let found = differing(view, connector, name).await?;
    Ok(found.map(|(before, after)| diff::values(&before.value, &after.value)).unwrap_or_default())
}

/// Arguments of `flows.tool.approve`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveArgs {
    /// The connector.
    pub connector: String,
    /// The action whose definition has changed.
    pub action: String,
    /// Digest of the definition that is agreed to, as `writ connector show` names it.
    pub definition: String,
}

/// The installation, and the tool that has changed to just this definition.
async fn disputed(view: &View, args: &ApproveArgs) -> Result<(Stored<Connector>, Defined, Defined), Fault> {
    let missing = || Fault::not_found("connector");
    let id = connector_id(&args.connector).ok_or_else(missing)?;
    let stored =
        view.get::<Connector>(&id).await?.filter(|doc| doc.removed_at_ms.is_none()).ok_or_else(missing)?;
    let tool = stored
        .tools
        .as_ref()
        .and_then(|tools| tools.get(&args.action))
        .ok_or_else(|| Fault::not_found("tool"))?;
    let state = |message: &str| Fault::conflict("request.state", message);
    if tool.state() != State::Changed {
        return Err(state("the tool has not changed: there is nothing to agree to"));
    }
    if tool.installed.as_ref() != Some(&args.definition) {
        return Err(state("this is not the definition that is installed: look at the difference again"));
    }
    let (before, after) = differing(view, &stored, &args.action)
        .await?
        .ok_or_else(|| act::internal("a changed tool has no definition before"))?;
    Ok((stored, before, after))
}

/// Riskier effects are greater.
fn risk(effect: Effect) -> u8 {
    match effect {
        Effect::Read => 0,
        Effect::Idempotent => 1,
        Effect::Keyed => 2,
        Effect::Reconcilable => 3,
        Effect::Unsafe => 4,
    }
}

fn side(value: Option<&Value>) -> String {
    let Some(value) = value else { return "(nothing)".to_owned() };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SIDE_CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

/// The verb by which a changed definition is agreed to.
pub fn verb() -> Verb {
    Verb {
        act: "flows.tool.approve",
        summary: "Agrees to the changed definition of a tool, so that it may be called again",
        args: || schemars::schema_for!(ApproveArgs).into(),
        writes: &["flows.connector"],
        facts: &["flows.tool.approved"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, _| {
            async move {
                let args: ApproveArgs = act::parse(args)?;
                let (stored, before, after) = disputed(view, &args).await?;
                let effect =
                    if risk(before.effect) > risk(after.effect) { before.effect } else { after.effect };
                let mut target = Target::of(Connector::KIND, &stored.id);
                target.attributes = json!({
                    "connector": args.connector, "action": args.action, "effect_class": effect.as_str(),
                });
                target.preview = vec![
                    ("Tool".into(), format!("{}.{}", args.connector, args.action)),
                    ("Definition".into(), args.definition),
                ];
                let changes = diff::values(&before.value, &after.value);
                for change in changes.iter().take(SHOWN_MAX) {
                    let text = format!("{} → {}", side(change.before.as_ref()), side(change.after.as_ref()));
                    target.preview.push((change.place.clone(), text));
                }
                if changes.len() > SHOWN_MAX {
                    let more = format!(
                        "{} more: `writ connector show {}`",
                        changes.len() - SHOWN_MAX,
                        args.connector
                    );
                    target.preview.push(("And".into(), more));
                }
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: ApproveArgs = act::parse(args)?;
                let (stored, _, _) = disputed(view, &args).await?;
                let mut doc = stored.doc.clone();
                let agreed = Agreed {
                    definition: args.definition.clone(),
                    version: doc.version.clone(),
                    at_ms: stamp.at_ms,
                    by: stamp.ctx.principal.id.clone(),
                };
                let tool = doc.tools.as_mut().and_then(|tools| tools.get_mut(&args.action));
                let tool = tool.ok_or_else(|| Fault::not_found("tool"))?;
                let before = tool.agreed.last().map(|agreed| agreed.definition.clone());
                tool.agree(agreed);
                let outcome = json!({"connector": args.connector, "action": args.action, "definition": args.definition});
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                    "flows.tool.approved",
                    &doc.id,
                    (Connector::KIND, &doc.id),
                    json!({"action": args.action, "definition": args.definition, "before": before, "version": doc.version}),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Login;
    use super::*;

    fn version(change: impl FnOnce(&mut Value)) -> Version {
        let mut manifest = json!({
            "name": "m", "version": "1", "headers": {"accept": "application/json"},
            "actions": {
                "a.get": {"summary": "Get", "effect": "READ", "method": "GET", "path": "/a/{id}",
                    "params": {"type": "object", "additionalProperties": false, "properties": {"id": {"type": "string"}}},
                    "response": {"status": [200], "extract": {"id": "/id"}}},
                "b.get": {"effect": "READ", "method": "GET", "path": "/b",
                    "params": {"type": "object", "additionalProperties": false}, "response": {"status": [200]}},
            },
        });
        change(&mut manifest);
        Version::new(serde_json::from_value(manifest).unwrap(), "https://m.example".into(), Login::Nothing)
            .unwrap()
    }

    fn agreed() -> Agreed {
        Agreed {
            definition: String::new(),
            version: String::new(),
            at_ms: 1,
            by: Id::parse("prn_a").unwrap(),
        }
    }

    #[test]
    fn every_part_of_a_definition_counts_and_nothing_else() {
        let one = |version: &Version| digest(&version.manifest, "a.get", &version.manifest.actions["a.get"]);
        let base = one(&version(|_| {}));
        for (place, value) in [
            ("/actions/a.get/summary", json!("Get it")),
            ("/actions/a.get/path", json!("/other/{id}")),
            ("/actions/a.get/params/properties/id/type", json!("integer")),
            ("/actions/a.get/response/status", json!([201])),
            ("/actions/a.get/response/extract/id", json!("/other")),
            ("/headers/accept", json!("text/plain")),
        ] {
            let other = version(|manifest| *manifest.pointer_mut(place).unwrap() = value);
            assert_ne!(base, one(&other), "{place}");
        }
        for (place, value) in [("/version", json!("2")), ("/actions/b.get/path", json!("/c"))] {
            let other = version(|manifest| *manifest.pointer_mut(place).unwrap() = value);
            assert_eq!(base, one(&other), "{place}");
        }
    }

    #[test]
    fn a_tool_that_differs_is_changed_however_it_comes_back() {
        let first = version(|_| {});
        let tools = after(None, &first, &agreed()).unwrap();
        assert!(tools.values().all(|tool| tool.state() == State::Approved));
        let states = |tools: &BTreeMap<String, Tool>| {
            tools.iter().map(|(name, tool)| (name.clone(), tool.state())).collect::<Vec<_>>()
        };
        let next = |tools: &BTreeMap<String, Tool>, version: &Version| {
            after(Some((Some(tools), &first, &agreed())), version, &agreed()).unwrap()
        };
        let other = version(|manifest| manifest["actions"]["a.get"]["path"] = json!("/evil/{id}"));
        let changed = next(&tools, &other);
        assert_eq!(states(&changed), [("a.get".into(), State::Changed), ("b.get".into(), State::Approved)]);
        // Put back as it was, it is what was agreed to.
        assert_eq!(next(&changed, &first)["a.get"].state(), State::Approved);
        // Left out and brought back, it is no new tool.
        let without = version(|manifest| drop(manifest["actions"].as_object_mut().unwrap().remove("a.get")));
        let gone = next(&tools, &without);
        assert_eq!(gone["a.get"].state(), State::Gone);
        assert_eq!(next(&gone, &other)["a.get"].state(), State::Changed);
        // What was installed before tools were remembered was agreed to as it stood.
        let upgraded = after(Some((None, &first, &agreed())), &other, &agreed()).unwrap();
        assert_eq!(upgraded["a.get"].state(), State::Changed);
        // A tool that nobody knew comes with the installation.
        let more = version(|manifest| {
            let action = manifest["actions"]["b.get"].clone();
            manifest["actions"]["c.get"] = action;
        });
        assert_eq!(next(&tools, &more)["c.get"].state(), State::Approved);
    }

    #[test]
    fn agreements_are_bounded_and_the_newest_is_kept() {
        let mut tool = Tool { installed: Some("x".into()), agreed: Vec::new() };
        for n in 0..20 {
            tool.agree(Agreed { definition: n.to_string(), ..agreed() });
        }
        assert_eq!(tool.agreed.len(), AGREED_MAX);
        assert!(tool.knows("19") && !tool.knows("1"));
    }
}
