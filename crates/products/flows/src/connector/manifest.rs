//! A connector's manifest: its actions as data, and what a repetition of each would do.
//!
//! ```yaml
//! actions:
//!   incident.update:
//!     effect: RECONCILABLE            # sent twice it would happen twice, but whether it happened can be found out
//!     method: PATCH
//!     path: /api/now/table/incident/{sys_id}
//!     params: {type: object, additionalProperties: false, required: [sys_id], properties: {…}}
//!     body: {category: "{category}", work_notes: "{work_note} {marker}"}
//!     writes: [category, work_notes]
//!     response: {status: [200], root: /result, check: {category: "{category}"}}
//!     reconcile: {action: journal.find, params: {sys_id: "{sys_id}", marker: "{marker}"}, found: /items/0}
//! ```
//!
//! To add a system: a manifest in `contracts/connectors/` and nothing else. If it needs code, the language is missing
//! something that the next system will need too.

use super::placeholder::{self, MARKER, Piece};
use crate::schema;
use crate::workflow::parse::{Problem, cut};
use crate::yaml;
use kernel::json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Most actions of one manifest.
pub const ACTIONS_MAX: usize = 64;
/// Most events of one manifest.
pub const EVENTS_MAX: usize = 32;
/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 48;
/// Most looks at whether an effect is there before it is caused again.
pub const SETTLES_MAX: usize = 4;
/// Longest wait between two looks.
pub const SETTLE_MS_MAX: i64 = 300_000;
/// Largest reply, in bytes, where the manifest says nothing.
pub const RESPONSE_BYTES: usize = 512 * 1024;
/// Largest reply that a manifest may ask for.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a repetition of a call would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Effect {
    /// Nothing: it only reads.
    Read,
    /// The same as once.
    Idempotent,
    /// The same as once, because the other side knows the key that is sent along.
    Keyed,
    /// It would happen twice, but whether it happened can be found out.
    Reconcilable,
    /// It would happen twice, and nobody could tell.
    Unsafe,
}

impl Effect {
    /// The spelling in manifests, facts and policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Read => "READ",
            Effect::Idempotent => "IDEMPOTENT",
            Effect::Keyed => "KEYED",
            Effect::Reconcilable => "RECONCILABLE",
            Effect::Unsafe => "UNSAFE",
        }
    }
}

/// HTTP methods of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they are HTTP's own words")]
pub enum HttpMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    /// The method for the outbound client.
    pub fn http(self) -> egress::Method {
        match self {
            HttpMethod::Get => egress::Method::GET,
            HttpMethod::Post => egress::Method::POST,
            HttpMethod::Put => egress::Method::PUT,
            HttpMethod::Patch => egress::Method::PATCH,
            HttpMethod::Delete => egress::Method::DELETE,
        }
    }
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the kind of system.
    pub name: String,
    /// Version of the manifest, for people and pins.
    pub version: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Headers of every request, without credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Events that it sends.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, Event>,
    /// What it can be asked to do.
    pub actions: BTreeMap<String, Action>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Where in the body the name of the event stands (RFC 6901), for systems that say it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_at: Option<String>,
    /// Where in the body the values stand that identify the change: the same values again are the same event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<String>,
    /// Where in the body stands who made the change. Where it is the installation's own user, it is our own echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Where the number of the change stands, for systems that count the changes of a thing by one; one of `identity`. With
    /// it a change of somebody else is found that lies beneath a write of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes_at: Option<String>,
    /// How to look for such events, beside their being sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<super::poll::Poll>,
}

/// An action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What a repetition would do.
    pub effect: Effect,
    /// HTTP method.
    pub method: HttpMethod,
    /// Path below the installation's base URL.
    pub path: String,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Name of a parameter that is an object of further query parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_from: Option<String>,
    /// JSON body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// JSON Schema of the parameters; `additionalProperties` is false.
    pub params: Value,
    /// Header that carries the effect key, for `KEYED` actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_header: Option<String>,
    /// Fields of the other system that it sets, as policy knows them: body members that are given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<String>,
    /// Parameters whose values are kept out of previews and transcripts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// What counts as success, and what is taken from it.
    pub response: Response,
    /// How to find out whether it happened, for `RECONCILABLE` actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<Reconcile>,
}

/// What counts as success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Statuses that mean success.
    pub status: Vec<u16>,
    /// Where in the body the result stands (RFC 6901).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root: String,
    /// Members of the result that must read back as they were written. What was not given is not checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub check: BTreeMap<String, String>,
    /// The output: names and where in the result their values stand. What is not there is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extract: BTreeMap<String, String>,
    /// Largest body.
    #[serde(default = "response_bytes", skip_serializing_if = "is_response_bytes")]
    pub bytes_max: usize,
}

fn response_bytes() -> usize {
    RESPONSE_BYTES
}

fn is_response_bytes(bytes: &usize) -> bool {
    *bytes == RESPONSE_BYTES
}

/// How to find out whether an effect is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// A `READ` action of the same manifest.
    pub action: String,
    /// Its parameters, by placeholders of the original ones and the marker.
    pub params: Map<String, Value>,
    /// Where in its output something stands exactly if the effect is there (RFC 6901).
    pub found: String,
    /// How long the other side may take to show an effect: waits before further looks, in milliseconds. Only after the
    /// last one is the effect caused again.
    #[serde(default = "settle_ms")]
    pub settle_ms: Vec<i64>,
    /// A `READ` action that shows the record, so that what was written is read back here too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBack>,
}

fn settle_ms() -> Vec<i64> {
    vec![3_000, 30_000]
}

/// A look at the record after an effect was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBack {
    /// A `READ` action whose result has the members that `response.check` names.
    pub action: String,
    /// Its parameters, by placeholders of the original ones.
    pub params: Map<String, Value>,
}

/// Reads a manifest's text and checks it.
pub fn parse(text: &str) -> Result<Manifest, Vec<Problem>> {
    let value = yaml::parse(text).map_err(|error| vec![Problem::at("", error.to_string())])?;
    let manifest: Manifest = serde_json::from_value(value)
        .map_err(|error| vec![Problem::at("", format!("It cannot be read: {error}."))])?;
    let problems = manifest.problems();
    if problems.is_empty() { Ok(manifest) } else { Err(cut(problems)) }
}

/// Whether a text may name a connector, event or action: dotted words of lower-case letters, digits, `_` and `-`.
pub fn name_ok(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(|word| {
            word.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
                && word
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
        })
}

fn pointer_ok(pointer: &str) -> bool {
    pointer.is_empty() || pointer.starts_with('/')
}

impl Manifest {
    /// Canonical form: what the digest is taken of.
    pub fn canonical(&self) -> Result<Vec<u8>, json::JsonError> {
        json::canonical(&serde_json::to_value(self).unwrap_or_default())
    }

    /// The action of this name.
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.actions.get(name)
    }

    /// Whether any of its actions changes something.
    pub fn writes(&self) -> bool {
        self.actions.values().any(|action| action.effect != Effect::Read)
    }

    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |place: &str, message: &str| problems.push(Problem::at(place, message));
        if !name_ok(&self.name) || self.name.contains('.') {
            say("name", "A name is lower-case letters, digits, `_` and `-`, at most 48.");
        }
        let version_ok = |v: &str| !v.is_empty() && v.len() <= 32 && v.bytes().all(|b| b.is_ascii_graphic());
        if !version_ok(&self.version) {
            say("version", "A version is 1 to 32 printable characters.");
        }
        if self.actions.is_empty() || self.actions.len() > ACTIONS_MAX {
            say("actions", "There are 1 to 64 actions.");
        }
        if self.events.len() > EVENTS_MAX {
            say("events", "There are at most 32 events.");
        }
        for (name, event) in &self.events {
            let pointers = event.identity.iter().chain(&event.author).chain(&event.name_at);
            if !name_ok(name) || event.identity.len() > 8 || !pointers.into_iter().all(|p| p.starts_with('/'))
            {
                say(&format!("events.{name}"), "Its name is malformed, or a place in it is no JSON pointer.");
            }
            if event
                .changes_at
                .as_ref()
                .is_some_and(|at| !event.identity.contains(at) || event.author.is_none())
            {
                let message = "changes_at is one of identity, and an event that has it names its author.";
                say(&format!("events.{name}"), message);
            }
            for message in event.poll.iter().flat_map(|poll| poll.problems(self)) {
                say(&format!("events.{name}"), &message);
            }
            if let Some(poll) = &event.poll
                && !event.author.as_ref().is_some_and(|author| poll.says(author))
            {
                let message = "An event that is polled names its author, and poll.event has a value there: without it our own changes would start runs.";
                say(&format!("events.{name}"), message);
            }
        }
        if let Err(message) = headers_ok(&self.headers) {
            say("headers", &message);
        }
        for (name, action) in &self.actions {
            let place = format!("actions.{name}");
            if !name_ok(name) {
                say(&place, "A name is dotted words of lower-case letters, digits, `_` and `-`, at most 48.");
            }
            for message in self.action_problems(action) {
                say(&place, &message);
            }
        }
        if let Err(error) = self.canonical() {
            say("", &format!("It has no canonical form: {error}."));
        }
        problems
    }

    fn action_problems(&self, action: &Action) -> Vec<String> {
        let mut problems = Vec::new();
        let mut say = |message: String| problems.push(message);
        let known = parameters(&action.params);
        if let Err(why) = schema::compile(&action.params) {
            say(format!("The schema of its parameters {why}."));
        }
        if action.params.get("additionalProperties") != Some(&Value::Bool(false)) {
            say("The schema of its parameters needs `additionalProperties: false`.".into());
        }
        let known_or_marker = |name: &str| known.contains(name) || name == MARKER;
        match placeholder::pieces(&action.path) {
            Err(error) => say(format!("The path: {error}.")),
            Ok(pieces) => {
                if !action.path.starts_with('/') || action.path.contains("//") || action.path.contains("..") {
                    say("The path starts with one `/` and holds neither `//` nor `..`.".into());
                }
                for piece in pieces {
                    match piece {
                        Piece::Text(text) if text.contains(['?', '#', '%', '\\']) || !text.is_ascii() => {
                            say("The path holds a character that does not belong into one.".into());
                        }
                        Piece::Value(name) | Piece::Segments(name) if !known.contains(name.as_str()) => {
                            say(format!("The path names the unknown parameter {name}."));
                        }
                        Piece::Text(_) | Piece::Value(_) | Piece::Segments(_) => {}
                    }
                }
            }
        }
        let mut trees: Vec<(&str, Value)> = vec![
            ("query", serde_json::to_value(&action.query).unwrap_or_default()),
            ("response.check", serde_json::to_value(&action.response.check).unwrap_or_default()),
        ];
        trees.extend(action.body.clone().map(|body| ("body", body)));
        if let Some(reconcile) = &action.reconcile {
            trees.push(("reconcile.params", Value::Object(reconcile.params.clone())));
            trees.extend(
                reconcile.read_back.iter().map(|r| ("reconcile.read_back", Value::Object(r.params.clone()))),
            );
        }
        let mut marked = action.key_header.is_some();
        for (what, tree) in &trees {
            match placeholder::names(tree) {
                Err(error) => say(format!("{what}: {error}.")),
                Ok(names) => {
                    marked |= names.contains(MARKER) && matches!(*what, "body" | "query");
                    for name in names.iter().filter(|name| !known_or_marker(name)) {
                        say(format!("{what} names the unknown parameter {name}."));
                    }
                }
            }
        }
        if action.query_from.as_ref().is_some_and(|name| !known.contains(name.as_str())) {
            say("query_from names an unknown parameter.".into());
        }
        for name in action.redact.iter().filter(|name| !known.contains(name.as_str())) {
            say(format!("redact names the unknown parameter {name}."));
        }
        if action.body.is_some() && matches!(action.method, HttpMethod::Get | HttpMethod::Delete) {
            say("GET and DELETE have no body.".into());
        }
        if action.effect == Effect::Read && (action.method != HttpMethod::Get || !action.writes.is_empty()) {
            say("An action of class READ is a GET and writes nothing.".into());
        }
        if action.effect != Effect::Read && action.method == HttpMethod::Get {
            say("A GET is of class READ.".into());
        }
        match (action.effect, &action.key_header, &action.reconcile) {
            (Effect::Keyed, None, _) => say("An action of class KEYED names its `key_header`.".into()),
            (Effect::Reconcilable, _, None) => {
                say("An action of class RECONCILABLE says how to `reconcile`.".into())
            }
            (Effect::Reconcilable, _, Some(_)) if !marked => {
                say("An action of class RECONCILABLE carries `{marker}` in its body or query.".into());
            }
            (Effect::Read | Effect::Idempotent | Effect::Unsafe, _, Some(_))
            | (Effect::Keyed, _, Some(_)) => {
                say("Only an action of class RECONCILABLE says how to `reconcile`.".into());
            }
            _ => {}
        }
        if let Some(header) = &action.key_header
            && let Err(message) = headers_ok(&BTreeMap::from([(header.clone(), "x".to_owned())]))
        {
            say(format!("key_header: {message}"));
        }
        let response = &action.response;
        if response.status.is_empty() || !response.status.iter().all(|status| (200..300).contains(status)) {
            say("response.status lists the statuses between 200 and 299 that mean success.".into());
        }
        if !pointer_ok(&response.root) || !response.extract.values().all(|pointer| pointer_ok(pointer)) {
            say("response.root and the places in response.extract are JSON pointers.".into());
        }
        if response.extract.len() > 64
            || !response.extract.keys().all(|name| name_ok(name) && !name.contains(['.', '-']))
        {
            say("response.extract has at most 64 names of lower-case letters, digits and `_`.".into());
        }
        if response.bytes_max == 0 || response.bytes_max > RESPONSE_BYTES_MAX {
            say(format!("response.bytes_max is 1 to {RESPONSE_BYTES_MAX}."));
        }
        if let Some(reconcile) = &action.reconcile {
            let looks = [
                Some((&reconcile.action, &reconcile.params)),
                reconcile.read_back.as_ref().map(|r| (&r.action, &r.params)),
            ];
            for (name, params) in looks.into_iter().flatten() {
                match self.actions.get(name) {
                    Some(read) if read.effect == Effect::Read => {
                        let takes = parameters(&read.params);
                        for param in params.keys().filter(|param| !takes.contains(param.as_str())) {
                            say(format!("reconcile gives {name} the unknown parameter {param}."));
                        }
                    }
                    _ => say(format!("reconcile names {name}, which is no action of class READ.")),
                }
            }
            if !reconcile.found.starts_with('/') {
                say("reconcile.found is a JSON pointer.".into());
            }
            let settles = &reconcile.settle_ms;
            if settles.len() > SETTLES_MAX || settles.iter().any(|ms| !(0..=SETTLE_MS_MAX).contains(ms)) {
                say("reconcile.settle_ms has at most 4 waits of at most five minutes.".into());
            }
        }
        problems
    }
}

/// Names of an action's parameters.
pub fn parameters(schema: &Value) -> BTreeSet<&str> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect()
}

/// Headers that a manifest may set: the outbound client's own rules decide, and credentials are not among them.
fn headers_ok(headers: &BTreeMap<String, String>) -> Result<(), String> {
    let allow = egress::Allowlist::parse(["https://headers.example"]).map_err(|error| error.to_string())?;
    let mut request = egress::Request::new(egress::Method::GET, "https://headers.example/", allow);
    request.headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    request.check().map(|_| ()).map_err(|error| format!("A header is refused: {}.", error.fault()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "name": "tickets", "version": "1",
            "headers": {"accept": "application/json"},
            "events": {"ticket.created": {"identity": ["/id"], "author": "/by", "name_at": "/event"}},
            "actions": {
                "ticket.get": {
                    "effect": "READ", "method": "GET", "path": "/t/{id}",
                    "params": {"type": "object", "additionalProperties": false, "properties": {"id": {"type": "string"}}},
                    "response": {"status": [200], "root": "/result", "extract": {"id": "/id", "all": ""}},
                },
                "note.find": {
                    "effect": "READ", "method": "GET", "path": "/n", "query": {"q": "id={id}^text={marker}"},
                    "params": {"type": "object", "additionalProperties": false,
                        "properties": {"id": {"type": "string"}, "text": {"type": "string"}}},
                    "response": {"status": [200], "extract": {"items": "/result"}},
                },
                "ticket.update": {
                    "effect": "RECONCILABLE", "method": "PATCH", "path": "/t/{id}",
                    "params": {"type": "object", "additionalProperties": false, "required": ["id"],
                        "properties": {"id": {"type": "string"}, "note": {"type": "string"}, "group": {"type": "string"}}},
                    "body": {"group": "{group}", "note": "{note} {marker}"}, "writes": ["group", "note"],
                    "redact": ["note"],
                    "response": {"status": [200], "check": {"group": "{group}"}},
                    "reconcile": {"action": "note.find", "params": {"id": "{id}", "text": "{marker}"}, "found": "/items/0",
                        "read_back": {"action": "ticket.get", "params": {"id": "{id}"}}},
                },
            },
        })
    }

    fn check(value: Value) -> Vec<Problem> {
        match serde_json::from_value::<Manifest>(value) {
            Ok(manifest) => manifest.problems(),
            Err(error) => vec![Problem::at("", error.to_string())],
        }
    }

    #[test]
    fn a_good_manifest_has_no_problem() {
        assert_eq!(check(good()), vec![]);
    }

    #[test]
    fn each_rule_is_kept() {
        let change = |pointer: &str, value: Value| {
            let mut manifest = good();
            *manifest.pointer_mut(pointer).unwrap() = value;
            manifest
        };
        let add = |pointer: &str, key: &str, value: Value| {
            let mut manifest = good();
            manifest.pointer_mut(pointer).unwrap()[key] = value;
            manifest
        };
        let (get, update) = ("/actions/ticket.get", "/actions/ticket.update");
        for (name, manifest) in [
            ("unknown member", add("", "secret", json!(1))),
            ("a name with a dot", change("/name", json!("a.b"))),
            ("no actions", change("/actions", json!({}))),
            ("a credential header", add("/headers", "authorization", json!("Bearer x"))),
            ("a reserved header", add("/headers", "host", json!("other.example"))),
            ("a header with a line break", add("/headers", "x-a", json!("a\r\nb: c"))),
            ("an event pointer", change("/events/ticket.created/author", json!("by"))),
            ("an open parameter schema", change(&format!("{get}/params/additionalProperties"), json!(true))),
            ("a reference in the schema", add(&format!("{get}/params"), "$ref", json!("https://x.example"))),
            ("a path that climbs", change(&format!("{get}/path"), json!("/t/../{id}"))),
            ("a path without slash", change(&format!("{get}/path"), json!("t/{id}"))),
            ("a path with a query", change(&format!("{get}/path"), json!("/t?x={id}"))),
            ("a network path", change(&format!("{get}/path"), json!("//other.example/{id}"))),
            ("an unknown parameter in the path", change(&format!("{get}/path"), json!("/t/{nope}"))),
            (
                "an unknown parameter in the body",
                change(&format!("{update}/body/note"), json!("{nope} {marker}")),
            ),
            ("a GET with a body", add(get, "body", json!({}))),
            ("a GET that is no READ", change(&format!("{get}/effect"), json!("IDEMPOTENT"))),
            ("a READ that is no GET", change(&format!("{get}/method"), json!("POST"))),
            ("a READ that writes", add(get, "writes", json!(["a"]))),
            ("KEYED without a key", change(&format!("{update}/effect"), json!("KEYED"))),
            ("RECONCILABLE without a marker", change(&format!("{update}/body/note"), json!("{note}"))),
            ("RECONCILABLE without a way", {
                let mut manifest = good();
                manifest["actions"]["ticket.update"].as_object_mut().unwrap().remove("reconcile");
                manifest
            }),
            ("UNSAFE that reconciles", change(&format!("{update}/effect"), json!("UNSAFE"))),
            ("reconciling by a write", change(&format!("{update}/reconcile/action"), json!("ticket.update"))),
            ("reconciling by nothing", change(&format!("{update}/reconcile/action"), json!("nope"))),
            (
                "reconciling with an unknown parameter",
                add(&format!("{update}/reconcile/params"), "x", json!("y")),
            ),
            (
                "settling for ever",
                add(&format!("{update}/reconcile"), "settle_ms", json!([i64::from(u32::MAX)])),
            ),
            ("success is a redirect", change(&format!("{get}/response/status"), json!([302]))),
            ("a huge reply", add(&format!("{get}/response"), "bytes_max", json!(RESPONSE_BYTES_MAX + 1))),
            ("redacting nothing", change(&format!("{update}/redact"), json!(["nope"]))),
        ] {
            assert!(!check(manifest).is_empty(), "{name}");
        }
    }
}
