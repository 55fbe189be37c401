//! JSON Schemas written by tenants, made safe to compile and to run.
//!
//! A schema says which parameters an action takes and what an answer looks like. Its author is a tenant, so it is
//! bounded and closed in itself: no references (a `$ref` could make us read a file, fetch an address, or recurse), no
//! `format` that is asserted, and patterns that run in linear time.

use serde_json::Value;

/// Largest schema, in bytes of compact JSON.
pub const SCHEMA_BYTES_MAX: usize = 32 * 1024;
/// Deepest nesting of a schema.
pub const SCHEMA_DEPTH_MAX: usize = 12;
/// Bound of one compiled `pattern`, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Keywords that point somewhere, or change what pointing means.
const POINTING: [&str; 9] = [
    "$ref",
    "$id",
    "$anchor",
    "$defs",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
];
/// Keywords whose value is data, not a schema.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keywords whose value maps free names to schemas.
const NAMED: [&str; 3] = ["dependentSchemas", "patternProperties", "properties"];
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Compiles a schema of objects. The error is the end of a sentence that begins with "the schema".
pub fn compile(schema: &Value) -> Result<jsonschema::Validator, &'static str> {
    vet(schema)?;
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES_MAX))
        .build(schema)
        .map_err(|_| "is not valid draft 2020-12, or a pattern in it is too large or looks around")
}

/// Whether `value` conforms; the error says where it does not and never quotes it.
pub fn check(validator: &jsonschema::Validator, value: &Value) -> Result<(), String> {
    match validator.validate(value) {
        Ok(()) => Ok(()),
        Err(error) => {
            let place = error.instance_path().to_string();
            let rule: String = error.schema_path().to_string().chars().take(200).collect();
            let place = if place.is_empty() { "the value itself".to_owned() } else { place };
            Err(format!("{place} breaks {rule}"))
        }
    }
}

fn vet(schema: &Value) -> Result<(), &'static str> {
    let Some(root) = schema.as_object() else { return Err("is not an object") };
    if root.get("type").and_then(Value::as_str) != Some("object") {
        return Err("does not have the type `object`");
    }
    if root.get("$schema").is_some_and(|dialect| dialect.as_str() != Some(DIALECT)) {
        return Err("is not draft 2020-12");
    }
    walk(schema, 0, true)?;
    // The depth is known now, so writing it out cannot recurse far.
    if schema.to_string().len() > SCHEMA_BYTES_MAX { Err("is larger than 32 KiB") } else { Ok(()) }
}

fn walk(value: &Value, depth: usize, is_schema: bool) -> Result<(), &'static str> {
    if depth > SCHEMA_DEPTH_MAX {
        return Err("is nested deeper than 12 levels");
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1, is_schema)),
        Value::Object(members) => members.iter().try_for_each(|(key, item)| {
            if is_schema && POINTING.contains(&key.as_str()) {
                return Err("uses references, `$defs` or `$id`");
            }
            if is_schema && NAMED.contains(&key.as_str()) {
                return item
                    .as_object()
                    .into_iter()
                    .flatten()
                    .try_for_each(|(_, item)| walk(item, depth + 2, true));
            }
            walk(item, depth + 1, is_schema && !DATA.contains(&key.as_str()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_schemas_are_refused() {
        let object = |extra: Value| json!({"type": "object", "properties": {"a": extra}});
        let mut deep = json!({"type": "string"});
        for _ in 0..40 {
            deep = json!({"not": deep});
        }
        for (name, schema) in [
            ("not an object", json!(true)),
            ("of strings", json!({"type": "string"})),
            (
                "another dialect",
                json!({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}),
            ),
            ("remote", object(json!({"$ref": "https://schemas.example/x.json"}))),
            ("file", object(json!({"items": {"$ref": "file:///etc/passwd"}}))),
            ("circle", object(json!({"$ref": "#"}))),
            ("definitions", json!({"type": "object", "$defs": {"a": {}}})),
            ("deep", object(deep)),
            ("large", object(json!({"description": "x".repeat(SCHEMA_BYTES_MAX)}))),
            ("backtracking", object(json!({"type": "string", "pattern": r"(a)\1"}))),
            (
                "exploding pattern",
                object(json!({"type": "string", "pattern": "(((a{100}){100}){100}){100}"})),
            ),
            ("nonsense", object(json!({"type": "thing"}))),
        ] {
            assert!(compile(&schema).is_err(), "{name}");
        }
    }

    #[test]
    fn ordinary_schemas_work_and_errors_do_not_quote() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,3}$"}, "$ref": {"enum": [{"$ref": "x"}]}}});
        let validator = compile(&schema).unwrap();
        assert_eq!(check(&validator, &json!({"a": "abc"})), Ok(()));
        let error = check(&validator, &json!({"a": "hunter2-secret"})).unwrap_err();
        assert!(error.starts_with("/a breaks") && !error.contains("hunter2"), "{error}");
    }
}
