//! Which changes of a contract break whom.
//!
//! What a caller sends must go on being taken: an input may become wider, never narrower. What a caller reads must go on
//! being understood: an output may become narrower, never wider, and may gain members, because who reads JSON passes over
//! what it does not know. A schema that says nothing takes everything, and promises nothing.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Deepest schema that is compared; deeper, a change counts as a break.
const DEPTH_MAX: usize = 32;

/// Every change from `old` to `new` that breaks somebody, in words.
pub(super) fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Found { old, new, breaks: Vec::new(), compared: BTreeSet::new() };
    for (path, methods) in members(&old["paths"]) {
        for (method, operation) in members(methods) {
            let place = format!("{} {path}", method.to_uppercase());
            match new["paths"].get(path).and_then(|methods| methods.get(method)) {
                None => found.say(&place, "is gone"),
                Some(now) => found.operation(&place, operation, now),
            }
        }
    }
    // AsyncAPI: what is sent. Channels and operations by name, messages by what they carry.
    for part in ["channels", "operations"] {
        for (name, _) in members(&old[part]) {
            if new[part].get(name).is_none() {
                found.say(&format!("{part}/{name}"), "is gone");
            }
        }
    }
    for (name, message) in members(&old["components"]["messages"]) {
        let place = format!("message {name}");
        match new["components"]["messages"].get(name) {
            None => found.say(&place, "is gone"),
            Some(now) => {
                found.schema(&place, Side::Output, &message["payload"], &now["payload"], 0);
                found.schema(
                    &format!("{place} headers"),
                    Side::Output,
                    &message["headers"],
                    &now["headers"],
                    0,
                );
            }
        }
    }
    found.breaks
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Input,
    Output,
}

struct Found<'a> {
    old: &'a Value,
    new: &'a Value,
    breaks: Vec<String>,
    /// Pairs of schemas that have been compared, by where they are: a schema may hold itself, several times.
    compared: BTreeSet<(Side, *const Value, *const Value)>,
}

/// Follows references, a bounded number of them.
fn resolved<'a>(document: &'a Value, mut value: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        let to = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
        match to.and_then(|pointer| document.pointer(pointer)) {
            Some(next) => value = next,
            None => break,
        }
    }
    value
}

impl<'a> Found<'a> {
    fn say(&mut self, place: &str, what: impl AsRef<str>) {
        self.breaks.push(format!("{place} {}", what.as_ref()));
    }

    fn operation(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            let id = |value: &Value| value["operationId"].as_str().unwrap_or("nothing").to_owned();
            self.say(place, format!("was the operation {} and is {}", id(old), id(new)));
        }
        let open = |value: &Value| items(&value["security"]).next().is_none();
        if open(old) && !open(new) {
            self.say(place, "wants credentials now");
        }
        self.parameters(place, old, new);
        self.body(place, old, new);
        for (status, response) in members(&old["responses"]) {
            let here = format!("{place} {status}");
            match new["responses"].get(status) {
                None => self.say(&here, "is answered no more"),
                Some(now) => self.response(&here, response, now),
            }
        }
        // A success that nobody has heard of. Further refusals are what `default` is for.
        for (status, _) in members(&new["responses"]) {
            let success = status.starts_with('2');
            if success && old["responses"].get(status).is_none() {
                self.say(&format!("{place} {status}"), "is a success that was not there");
            }
        }
    }

    fn parameters(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let list = |document: &'a Value, value: &'a Value| -> Vec<&'a Value> {
            items(&value["parameters"]).map(|one| resolved(document, one)).collect()
        };
        let (before, after) = (list(self.old, old), list(self.new, new));
        let same = |a: &Value, b: &Value| a["in"] == b["in"] && a["name"] == b["name"];
        let name = |one: &Value| {
            format!("{} {}", one["in"].as_str().unwrap_or_default(), one["name"].as_str().unwrap_or_default())
        };
        for one in &before {
            let here = format!("{place} {}", name(one));
            match after.iter().find(|other| same(one, other)) {
                None => self.say(&here, "is taken no more"),
                Some(now) => {
                    if now["required"] == true && one["required"] != true {
                        self.say(&here, "is required now");
                    }
                    self.schema(&here, Side::Input, &one["schema"], &now["schema"], 0);
                }
            }
        }
        for one in after.iter().filter(|one| one["required"] == true) {
            if !before.iter().any(|other| same(one, other)) {
                self.say(&format!("{place} {}", name(one)), "is new and required");
            }
        }
    }

    fn body(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let (before, after) =
            (resolved(self.old, &old["requestBody"]), resolved(self.new, &new["requestBody"]));
        if after["required"] == true && before["required"] != true {
            self.say(place, "requires a body now");
        }
        for (media, content) in members(&before["content"]) {
            match after["content"].get(media) {
                None => self.say(place, format!("takes no {media} any more")),
                Some(now) => {
                    self.schema(&format!("{place} body"), Side::Input, &content["schema"], &now["schema"], 0);
                }
            }
        }
    }

    fn response(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        let (before, after) = (resolved(self.old, old), resolved(self.new, new));
        for (media, content) in members(&before["content"]) {
            match after["content"].get(media) {
                None => self.say(place, format!("is no {media} any more")),
                Some(now) => self.schema(place, Side::Output, &content["schema"], &now["schema"], 0),
            }
        }
        for (header, _) in members(&before["headers"]) {
            if after["headers"].get(header).is_none() {
                self.say(place, format!("has no header {header} any more"));
            }
        }
    }

    /// Compares two schemas, once.
    fn schema(&mut self, place: &str, side: Side, old: &'a Value, new: &'a Value, depth: usize) {
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        if !self.compared.insert((side, std::ptr::from_ref(old), std::ptr::from_ref(new))) {
            return;
        }
        if depth > DEPTH_MAX {
            self.say(place, "is described too deeply to be compared");
            return;
        }
        // An input that was not described took anything, and so has to go on; an output that was not promised nothing.
        let (narrow, wide) = match side {
            Side::Input => (old, new),
            Side::Output => (new, old),
        };
        if let Some(lacking) = kinds(narrow, wide) {
            let word = if side == Side::Input { "is taken no more" } else { "may come now" };
            self.say(place, format!("{lacking} {word}"));
            return;
        }
        if let Some(lacking) = choices(narrow, wide) {
            let word = if side == Side::Input { "is taken no more" } else { "may come now" };
            self.say(place, format!("the value {lacking} {word}"));
        }
        if side == Side::Input {
            self.bounds(place, old, new);
        }
        self.object(place, side, old, new, depth);
        if old["items"].is_object() && new["items"].is_object() {
            self.schema(&format!("{place}[]"), side, &old["items"], &new["items"], depth + 1);
        }
        // All of them hold: one that is gone promises less, one that is new wants more.
        let (parts, now) = (&old["allOf"], &new["allOf"]);
        for (at, part) in items(parts).enumerate() {
            match now.get(at) {
                Some(other) => self.schema(place, side, part, other, depth + 1),
                None if side == Side::Output => self.say(place, "promises less"),
                None => {}
            }
        }
        if side == Side::Input && items(now).count() > items(parts).count() {
            self.say(place, "wants more");
        }
        for word in ["oneOf", "anyOf"] {
            self.variants(place, side, (&old[word], &new[word]), depth);
        }
    }

    /// A limit on what is taken that is tighter than before.
    fn bounds(&mut self, place: &str, old: &Value, new: &Value) {
        let number = |value: &Value, name: &str| value[name].as_f64();
        for name in ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"] {
            let lower = match (number(old, name), number(new, name)) {
                (None, Some(_)) => true,
                (Some(before), Some(now)) => now < before,
                _ => false,
            };
            if lower {
                self.say(place, format!("has a lower {name}"));
            }
        }
        for name in ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"] {
            let higher = match (number(old, name), number(new, name)) {
                // What cannot be below zero is not bounded by it.
                (None, Some(now)) => now > 0.0 || name.ends_with("imum"),
                (Some(before), Some(now)) => now > before,
                _ => false,
            };
            if higher {
                self.say(place, format!("has a higher {name}"));
            }
        }
        for name in ["pattern", "format", "multipleOf"] {
            if !new[name].is_null() && old[name] != new[name] {
                self.say(place, format!("has another {name}"));
            }
        }
        if new["uniqueItems"] == true && old["uniqueItems"] != true {
            self.say(place, "takes no doubles any more");
        }
        let closed = |value: &Value| value["additionalProperties"] == false;
        if closed(new) && !closed(old) {
            self.say(place, "takes no other members any more");
        }
    }

    fn object(&mut self, place: &str, side: Side, old: &'a Value, new: &'a Value, depth: usize) {
        let required = |value: &Value, name: &str| items(&value["required"]).any(|required| required == name);
        for (name, property) in members(&old["properties"]) {
            let here = format!("{place}.{name}");
            match new["properties"].get(name) {
                None => self.say(&here, "is gone"),
                Some(now) => {
                    match side {
                        Side::Input if required(new, name) && !required(old, name) => {
                            self.say(&here, "is required now");
                        }
                        Side::Output if required(old, name) && !required(new, name) => {
                            self.say(&here, "may be absent now");
                        }
                        Side::Input | Side::Output => {}
                    }
                    self.schema(&here, side, property, now, depth + 1);
                }
            }
        }
        if side == Side::Input {
            for name in items(&new["required"]).filter_map(Value::as_str) {
                if old["properties"].get(name).is_none() {
                    self.say(&format!("{place}.{name}"), "is new and required");
                }
            }
        }
    }

    /// Each variant that may come has to fit one of those that are understood.
    fn variants(&mut self, place: &str, side: Side, (old, new): (&'a Value, &'a Value), depth: usize) {
        let (coming, understood) = match side {
            Side::Input => (old, new),
            Side::Output => (new, old),
        };
        if understood.is_null() {
            // Described otherwise now, or not at all: what narrows it is seen elsewhere.
            return;
        }
        for (at, variant) in items(coming).enumerate() {
            let fits = items(understood).any(|other| {
                let (before, after) = match side {
                    Side::Input => (variant, other),
                    Side::Output => (other, variant),
                };
                let compared = self.compared.clone();
                let mut tried = Found { old: self.old, new: self.new, breaks: Vec::new(), compared };
                tried.schema("", side, before, after, depth + 1);
                tried.breaks.is_empty()
            });
            if !fits {
                self.say(place, format!("variant {} of its kinds fits none any more", at + 1));
            }
        }
    }
}

/// A type of `narrow` that `wide` does not have.
fn kinds(narrow: &Value, wide: &Value) -> Option<String> {
    let types = |value: &Value| -> Option<BTreeSet<String>> {
        match &value["type"] {
            Value::String(one) => Some(BTreeSet::from([one.clone()])),
            Value::Array(all) => Some(all.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => None,
        }
    };
    let wide = types(wide)?;
    let Some(narrow) = types(narrow) else {
        return Some("something of any type".to_owned());
    };
    let fits = |kind: &&String| wide.contains(*kind) || (*kind == "integer" && wide.contains("number"));
    narrow.iter().find(|kind| !fits(kind)).map(|kind| format!("the type {kind}"))
}

/// A value of `narrow` that `wide` does not have.
fn choices(narrow: &Value, wide: &Value) -> Option<String> {
    let values = |value: &Value| -> Option<Vec<Value>> {
        if let Some(one) = value.get("const") {
            return Some(vec![one.clone()]);
        }
        value["enum"].as_array().cloned()
    };
    let wide = values(wide)?;
    match values(narrow) {
        None => Some("of any kind".to_owned()),
        Some(narrow) => narrow.iter().find(|value| !wide.contains(value)).map(Value::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "openapi": "3.1.0",
            "info": {"version": "1.0.0"},
            "paths": {"/v1/things/{thing}": {"post": {
                "operationId": "thing_make",
                "security": [],
                "parameters": [
                    {"name": "thing", "in": "path", "required": true, "schema": {"type": "string"}},
                    {"name": "state", "in": "query", "schema": {"type": "string", "enum": ["on", "off"]}},
                ],
                "requestBody": {"required": false, "content": {"application/json": {"schema": {
                    "type": "object", "additionalProperties": false, "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "maxLength": 80, "pattern": "^a"},
                        "note": {"type": ["string", "null"]},
                        "sort": {"$ref": "#/components/schemas/Sort"},
                        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                        "shape": {"oneOf": [{"const": "round"}, {"const": "square"}]},
                    },
                }}}},
                "responses": {
                    "200": {"description": "Done", "headers": {"ETag": {}}, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                    "default": {"$ref": "#/components/responses/Problem"},
                },
            }}},
            "components": {
                "schemas": {
                    "Sort": {"type": "string", "enum": ["a", "b"]},
                    "Thing": {
                        "type": "object", "required": ["id", "sort"],
                        "properties": {"id": {"type": "string"}, "sort": {"enum": ["x", "y"]}, "n": {"type": "integer"},
                                       "parent": {"$ref": "#/components/schemas/Thing"}},
                    },
                },
                "responses": {"Problem": {"content": {"application/problem+json": {"schema": {
                    "type": "object", "required": ["code"], "properties": {"code": {"type": "string"}},
                }}}}},
                "messages": {"created": {"payload": {"allOf": [
                    {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
                    {"properties": {"type": {"const": "created"}}},
                ]}}},
            },
            "channels": {"facts": {}},
            "operations": {"facts_send": {}},
        })
    }

    const POST: &str = "/paths/~1v1~1things~1{thing}/post";
    const BODY: &str = "/paths/~1v1~1things~1{thing}/post/requestBody/content/application~1json/schema";
    const THING: &str = "/components/schemas/Thing";

    #[test]
    fn what_breaks_and_what_does_not() {
        type Change = (&'static str, String, Option<Value>, Option<&'static str>);
        let body = |rest: &str| format!("{BODY}/{rest}");
        let post = |rest: &str| format!("{POST}/{rest}");
        let thing = |rest: &str| format!("{THING}/{rest}");
        let cases: Vec<Change> = vec![
            // What is put where (absent: taken away), and what is said of it (absent: nothing).
            ("path gone", "/paths/~1v1~1things~1{thing}".into(), None, Some("is gone")),
            ("method gone", POST.into(), None, Some("is gone")),
            ("path new", "/paths/~1v1~1more".into(), Some(json!({"get": {"operationId": "more"}})), None),
            (
                "operation renamed",
                post("operationId"),
                Some(json!("thing_do")),
                Some("was the operation thing_make"),
            ),
            ("summary", post("summary"), Some(json!("Words")), None),
            ("closed", post("security"), Some(json!([{"key": []}])), Some("wants credentials")),
            ("parameter gone", post("parameters/1"), None, Some("query state is taken no more")),
            (
                "parameter required",
                post("parameters/1/required"),
                Some(json!(true)),
                Some("query state is required now"),
            ),
            ("parameter new", post("parameters/2"), Some(json!({"name": "q", "in": "query"})), None),
            (
                "required parameter new",
                post("parameters/2"),
                Some(json!({"name": "q", "in": "query", "required": true})),
                Some("query q is new and required"),
            ),
            (
                "parameter's values fewer",
                post("parameters/1/schema/enum"),
                Some(json!(["on"])),
                Some("\"off\" is taken no more"),
            ),
            (
                "parameter's values more",
                post("parameters/1/schema/enum"),
                Some(json!(["on", "off", "x"])),
                None,
            ),
            (
                "parameter's type",
                post("parameters/0/schema/type"),
                Some(json!("integer")),
                Some("type string is taken no more"),
            ),
            ("body required", post("requestBody/required"), Some(json!(true)), Some("requires a body")),
            (
                "body of another sort",
                post("requestBody/content/application~1json"),
                None,
                Some("takes no application/json"),
            ),
            ("member gone", body("properties/note"), None, Some("body.note is gone")),
            ("member new", body("properties/more"), Some(json!({"type": "string"})), None),
            (
                "member required",
                body("required"),
                Some(json!(["name", "note"])),
                Some("body.note is required now"),
            ),
            ("member no longer required", body("required"), Some(json!([])), None),
            (
                "required member new",
                body("required"),
                Some(json!(["name", "more"])),
                Some("body.more is new and required"),
            ),
            (
                "type narrower",
                body("properties/note/type"),
                Some(json!("string")),
                Some("type null is taken no more"),
            ),
            ("type wider", body("properties/name/type"), Some(json!(["string", "null"])), None),
            ("type unsaid", body("properties/name/type"), None, None),
            (
                "values fewer by reference",
                "/components/schemas/Sort/enum".into(),
                Some(json!(["a"])),
                Some("\"b\" is taken no more"),
            ),
            (
                "values now counted",
                body("properties/name/enum"),
                Some(json!(["a"])),
                Some("of any kind is taken no more"),
            ),
            ("bound lower", body("properties/name/maxLength"), Some(json!(79)), Some("lower maxLength")),
            ("bound higher", body("properties/name/maxLength"), Some(json!(81)), None),
            ("bound new", body("properties/note/maxLength"), Some(json!(9)), Some("lower maxLength")),
            ("least number", body("properties/tags/minItems"), Some(json!(2)), Some("higher minItems")),
            ("least number of nothing", body("properties/note/minLength"), Some(json!(0)), None),
            ("pattern", body("properties/name/pattern"), Some(json!("^b")), Some("another pattern")),
            ("pattern gone", body("properties/name/pattern"), None, None),
            ("open", body("additionalProperties"), None, None),
            (
                "items",
                body("properties/tags/items/type"),
                Some(json!("integer")),
                Some("tags[] the type string"),
            ),
            (
                "variant gone",
                body("properties/shape/oneOf"),
                Some(json!([{"const": "round"}])),
                Some("variant 2"),
            ),
            (
                "variant new",
                body("properties/shape/oneOf"),
                Some(json!([{"const": "square"}, {"const": "round"}, {"const": "flat"}])),
                None,
            ),
            ("status gone", post("responses/200"), None, Some("200 is answered no more")),
            ("success new", post("responses/202"), Some(json!({})), Some("202 is a success")),
            ("refusal new", post("responses/412"), Some(json!({})), None),
            ("header gone", post("responses/200/headers/ETag"), None, Some("no header ETag")),
            (
                "answer of another sort",
                post("responses/200/content/application~1json"),
                None,
                Some("is no application/json"),
            ),
            ("answer's member gone", thing("properties/n"), None, Some("200.n is gone")),
            ("answer's member new", thing("properties/more"), Some(json!({"type": "string"})), None),
            (
                "answer's member may be absent",
                thing("required"),
                Some(json!(["id"])),
                Some("200.sort may be absent"),
            ),
            ("answer's member always there", thing("required"), Some(json!(["id", "sort", "n"])), None),
            (
                "answer's values more",
                thing("properties/sort/enum"),
                Some(json!(["x", "y", "z"])),
                Some("\"z\" may come now"),
            ),
            ("answer's values fewer", thing("properties/sort/enum"), Some(json!(["x"])), None),
            ("answer's values unsaid", thing("properties/sort/enum"), None, Some("of any kind may come now")),
            (
                "answer's type wider",
                thing("properties/n/type"),
                Some(json!(["integer", "null"])),
                Some("type null may come now"),
            ),
            (
                "answer's type another",
                thing("properties/n/type"),
                Some(json!("string")),
                Some("type string may come now"),
            ),
            (
                "problem's member gone",
                "/components/responses/Problem/content/application~1problem+json/schema/properties/code"
                    .into(),
                None,
                Some("default.code is gone"),
            ),
            ("message gone", "/components/messages/created".into(), None, Some("message created is gone")),
            (
                "message's member gone",
                "/components/messages/created/payload/allOf/0/properties/id".into(),
                None,
                Some("message created.id is gone"),
            ),
            ("channel gone", "/channels/facts".into(), None, Some("channels/facts is gone")),
            ("operation gone", "/operations/facts_send".into(), None, Some("operations/facts_send is gone")),
        ];
        assert_eq!(breaks(&base(), &base()), Vec::<String>::new());
        for (name, pointer, value, expected) in cases {
            let mut now = base();
            put(&mut now, &pointer, value);
            assert_ne!(now, base(), "{name} changes something");
            let said = breaks(&base(), &now);
            match expected {
                None => assert!(said.is_empty(), "{name}: {said:?}"),
                Some(text) => assert!(said.iter().any(|one| one.contains(text)), "{name}: {said:?}"),
            }
        }
    }

    fn put(document: &mut Value, pointer: &str, value: Option<Value>) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/").replace("~0", "~");
        match (document.pointer_mut(parent).unwrap(), value) {
            (Value::Object(members), Some(value)) => drop(members.insert(name, value)),
            (Value::Object(members), None) => drop(members.remove(&name)),
            (Value::Array(items), Some(value)) => items.push(value),
            (Value::Array(items), None) => drop(items.remove(name.parse().unwrap())),
            (other, _) => panic!("{pointer}: {other}"),
        }
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let mut old = base();
        put(&mut old, &format!("{THING}/properties/parent/description"), Some(json!("the one above")));
        assert!(breaks(&old, &base()).is_empty() && breaks(&base(), &old).is_empty());
    }
}
