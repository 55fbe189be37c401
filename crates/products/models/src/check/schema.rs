//! Schemas written by workflow authors, made safe to compile and to run.
//!
//! A schema is a small program, and its author is a tenant. What could go wrong: a `$ref` that makes us fetch an
//! address or read a file; definitions that refer to each other for ever, or that double at each of thirty levels;
//! a regular expression that takes exponential time on a text the attacker chooses. So references stay inside
//! `$defs`, may not recur, and their expansion is counted; nothing is fetched; patterns run on an engine with
//! linear time.

use std::collections::BTreeMap;

use serde_json::Value;

/// Largest schema, in bytes of compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a schema.
pub const SCHEMA_DEPTH_MAX: usize = 24;
/// Most values a schema may have once every reference is replaced by what it refers to.
pub const SCHEMA_EXPANDED_MAX: u64 = 20_000;
/// Approximate bound of one compiled `pattern`, in bytes.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Keywords that would change what a reference means or point out of the schema.
const FORBIDDEN: [&str; 8] = [
    "$id",
    "id",
    "$anchor",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
];
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Where a reference may point: the name of a definition.
fn reference_target(reference: &str) -> Option<&str> {
    let name = reference.strip_prefix("#/$defs/")?;
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    plain.then_some(name)
}

/// Says whether `schema` is bounded and closed in itself. Reasons are the end of a sentence.
pub(super) fn vet(schema: &Value) -> Result<(), &'static str> {
    let Some(root) = schema.as_object() else { return Err("it is not an object") };
    if root.get("$schema").is_some_and(|dialect| dialect.as_str() != Some(DIALECT)) {
        return Err("its `$schema` is not draft 2020-12");
    }
    if root.get("type").and_then(Value::as_str) != Some("object") {
        return Err("its `type` is not `object`");
    }
    depth_check(schema, 0)?;
    // The depth is known now, so writing it out cannot recurse far.
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err("it is larger than 64 KiB");
    }
    let mut own = Walk::default();
    for (key, value) in root {
        if key != "$defs" && key != "$schema" {
            own.enter(key, value, !DATA.contains(&key.as_str()))?;
        }
    }
    let mut definitions = BTreeMap::new();
    if let Some(defs) = root.get("$defs") {
        let Some(defs) = defs.as_object() else { return Err("its `$defs` is not an object") };
        for (name, definition) in defs {
            let mut walk = Walk::default();
            walk.schema(definition)?;
            definitions.insert(name.as_str(), walk);
        }
    }
    let mut costs = BTreeMap::new();
    let total = expanded(&own, &definitions, &mut costs, 0)?;
    if total > SCHEMA_EXPANDED_MAX { Err("its references expand to more than 20000 values") } else { Ok(()) }
}

/// Compiles a vetted schema. Formats are not asserted, as 2020-12 has it.
pub(super) fn compile(schema: &Value) -> Result<jsonschema::Validator, &'static str> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
        .build(schema)
        .map_err(
            |_| "it is not a valid draft 2020-12 schema, or a pattern in it is too large or looks around",
        )
}

fn depth_check(value: &Value, depth: usize) -> Result<(), &'static str> {
    if depth > SCHEMA_DEPTH_MAX {
        return Err("it is nested deeper than 24 levels");
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| depth_check(item, depth + 1)),
        Value::Object(map) => map.values().try_for_each(|item| depth_check(item, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Keywords whose value is data: a `$ref` in there is a string like any other.
const DATA: [&str; 4] = ["enum", "const", "default", "examples"];
/// Keywords whose value maps free names to schemas: a property may be called `$id`.
const NAMED: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "definitions"];

/// Values and references of one definition.
#[derive(Default)]
struct Walk<'a> {
    nodes: u64,
    references: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    /// A place where a schema stands.
    fn schema(&mut self, value: &'a Value) -> Result<(), &'static str> {
        self.nodes += 1;
        match value {
            Value::Object(map) => map.iter().try_for_each(|(key, item)| {
                if key == "$defs" || key == "$schema" {
                    return Err("`$defs` and `$schema` may only stand at its top");
                }
                self.enter(key, item, !DATA.contains(&key.as_str()))
            }),
            Value::Array(items) => items.iter().try_for_each(|item| self.schema(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    /// One keyword and its value.
    fn enter(&mut self, keyword: &str, value: &'a Value, holds_schema: bool) -> Result<(), &'static str> {
        if FORBIDDEN.contains(&keyword) {
            return Err("it uses `$id`, anchors or dynamic references");
        }
        if keyword == "$ref" {
            self.nodes += 1;
            let target = value.as_str().and_then(reference_target);
            self.references.push(target.ok_or("a `$ref` does not point to a definition in its own `$defs`")?);
            return Ok(());
        }
        if NAMED.contains(&keyword) {
            self.nodes += 1;
            return value.as_object().into_iter().flatten().try_for_each(|(_, item)| self.schema(item));
        }
        if holds_schema { self.schema(value) } else { Ok(()) }
    }
}

/// How many values `walk` has once its references are expanded. `costs` holds what is known; `None` in it marks a
/// definition that is being expanded, which is how a loop shows.
fn expanded<'a>(
    walk: &Walk<'a>,
    definitions: &BTreeMap<&'a str, Walk<'a>>,
    costs: &mut BTreeMap<&'a str, Option<u64>>,
    depth: usize,
) -> Result<u64, &'static str> {
    if depth > SCHEMA_DEPTH_MAX {
        return Err("its references are nested deeper than 24 levels");
    }
    let mut total = walk.nodes;
    for name in &walk.references {
        let cost = match costs.get(name) {
            Some(Some(cost)) => *cost,
            Some(None) => return Err("its definitions refer to each other in a circle"),
            None => {
                let Some(definition) = definitions.get(name) else {
                    return Err("a `$ref` names no definition");
                };
                costs.insert(name, None);
                let cost = expanded(definition, definitions, costs, depth + 1)?;
                costs.insert(name, Some(cost));
                cost
            }
        };
        total = total.saturating_add(cost);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_that_leave_themselves_recur_or_explode_are_refused() {
        let object = |extra: Value| {
            let mut schema = json!({"type": "object", "properties": {"a": extra}});
            schema["$defs"] = json!({"s": {"type": "string"}});
            schema
        };
        for (name, schema) in [
            ("not an object", json!(true)),
            ("not of objects", json!({"type": "string"})),
            (
                "other dialect",
                json!({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}),
            ),
            ("remote", object(json!({"$ref": "https://schemas.example/x.json"}))),
            ("file", object(json!({"$ref": "file:///etc/passwd"}))),
            ("relative", object(json!({"$ref": "x.json"}))),
            ("root", object(json!({"$ref": "#"}))),
            ("pointer", object(json!({"$ref": "#/properties/a"}))),
            ("unknown", object(json!({"$ref": "#/$defs/none"}))),
            ("not text", object(json!({"$ref": 1}))),
            ("dynamic", object(json!({"$dynamicRef": "#s"}))),
            ("base", object(json!({"$id": "https://schemas.example/"}))),
            ("deep remote", object(json!({"items": {"anyOf": [{"not": {"$ref": "//x.example"}}]}}))),
            (
                "circle",
                json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}},
                "$defs": {"x": {"allOf": [{"$ref": "#/$defs/y"}]}, "y": {"$ref": "#/$defs/x"}}}),
            ),
        ] {
            assert!(vet(&schema).is_err(), "{name}");
        }
        let mut defs = serde_json::Map::new();
        for n in 0..20 {
            let next = format!("#/$defs/d{}", n + 1);
            defs.insert(format!("d{n}"), json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
        }
        defs.insert("d20".to_owned(), json!({"type": "string"}));
        let doubling = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs});
        assert_eq!(vet(&doubling), Err("its references expand to more than 20000 values"));

        let mut deep = json!({"type": "string"});
        for _ in 0..200 {
            deep = json!({"not": deep});
        }
        assert_eq!(vet(&object(deep)), Err("it is nested deeper than 24 levels"));
    }

    #[test]
    fn ordinary_schemas_are_accepted() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "$schema": DIALECT, "properties": {"a": {"$ref": "#/$defs/s"}, "$id": {}},
                "$defs": {"s": {"type": "string", "pattern": "^[a-z]+$"}}}),
            json!({"type": "object", "properties": {"a": {"enum": [{"$ref": "https://not.a.reference"}]}}}),
        ] {
            assert_eq!(vet(&schema), Ok(()), "{schema}");
            assert!(compile(&schema).is_ok(), "{schema}");
        }
    }

    #[test]
    fn patterns_that_cannot_run_in_linear_time_are_refused() {
        for pattern in [r"(a)\1", r"(?=a)b", r"(((a{100}){100}){100}){100}", "("] {
            let schema =
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}});
            assert!(compile(&schema).is_err(), "{pattern}");
        }
    }
}
