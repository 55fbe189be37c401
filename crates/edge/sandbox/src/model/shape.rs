//! Fits a value to a JSON schema, as a provider's structured output does: the decoder cannot leave the
//! schema, so whatever the model "wanted" comes out in the right shape, right or wrong.
//!
//! Understood: `type`, `properties`, `required`, `enum`, `const`, `items`, `minimum`, `maximum`, `maxLength`.
//! Other keywords are ignored. A value that does not fit is replaced by the plainest one that does.

use serde_json::{Map, Value, json};

/// Deepest schema that is followed.
pub const MAX_SCHEMA_DEPTH: usize = 16;
/// Most elements of an array.
const MAX_ITEMS: usize = 64;

/// The schema is nested deeper than [`MAX_SCHEMA_DEPTH`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep;

/// A value of the schema, as near to `value` as the subset above allows. The null schema allows anything.
pub(super) fn fit(value: Value, schema: &Value) -> Result<Value, TooDeep> {
    fit_at(value, schema, 0)
}

fn fit_at(value: Value, schema: &Value, depth: usize) -> Result<Value, TooDeep> {
    if depth > MAX_SCHEMA_DEPTH {
        return Err(TooDeep);
    }
    if let Some(constant) = schema.get("const") {
        return Ok(constant.clone());
    }
    if let Some([first, rest @ ..]) = schema["enum"].as_array().map(Vec::as_slice) {
        return Ok(if value == *first || rest.contains(&value) { value } else { first.clone() });
    }
    Ok(match type_of(schema, &value) {
        Some("object") => {
            let given = if let Value::Object(object) = value { object } else { Map::new() };
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            let required = |name: &str| {
                schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name))
            };
            let mut object = Map::new();
            for (name, property) in properties {
                let found = given.get(name).cloned();
                if found.is_some() || required(name) {
                    let fitted = fit_at(found.unwrap_or(Value::Null), property, depth + 1)?;
                    object.insert(name.clone(), fitted);
                }
            }
            Value::Object(object)
        }
        Some("array") => {
            let given = if let Value::Array(items) = value { items } else { Vec::new() };
            let items = given.into_iter().take(MAX_ITEMS);
            Value::Array(
                items.map(|item| fit_at(item, &schema["items"], depth + 1)).collect::<Result<_, _>>()?,
            )
        }
        Some("string") => {
            let text = value.as_str().unwrap_or_default();
            let limit = schema["maxLength"].as_u64().map_or(usize::MAX, |limit| limit as usize);
            json!(text.chars().take(limit).collect::<String>())
        }
        Some("integer") => {
            let number = value.as_i64().or_else(|| value.as_f64().map(|n| n as i64)).unwrap_or(0);
            let number = number.max(schema["minimum"].as_i64().unwrap_or(i64::MIN));
            json!(number.min(schema["maximum"].as_i64().unwrap_or(i64::MAX)))
        }
        Some("number") => {
            let number = value.as_f64().unwrap_or(0.0).max(schema["minimum"].as_f64().unwrap_or(f64::MIN));
            json!(number.min(schema["maximum"].as_f64().unwrap_or(f64::MAX)))
        }
        Some("boolean") => json!(value.as_bool().unwrap_or(false)),
        Some("null") => Value::Null,
        Some(_) | None => value,
    })
}

/// The type that the schema asks for; of several the one that the value has, else the first.
fn type_of<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    let has = |name: &str| match value {
        Value::Object(_) => name == "object",
        Value::Array(_) => name == "array",
        Value::String(_) => name == "string",
        Value::Bool(_) => name == "boolean",
        Value::Null => name == "null",
        Value::Number(number) => name == "number" || (name == "integer" && number.is_i64()),
    };
    match &schema["type"] {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str);
            names.clone().find(|name| has(name)).or_else(|| names.next())
        }
        // A schema with properties and no type means an object.
        _ => schema.get("properties").map(|_| "object"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{MAX_SCHEMA_DEPTH, TooDeep, fit};

    #[test]
    fn values_are_fitted() {
        let groups = json!({"type": "string", "enum": ["Network", "Access"]});
        for (value, schema, fitted) in [
            (json!("Access"), groups.clone(), json!("Access")),
            (json!("Printers"), groups.clone(), json!("Network")),
            (json!(7), json!({"type": "string"}), json!("")),
            (json!("abcdef"), json!({"type": "string", "maxLength": 3}), json!("abc")),
            (json!(1.5), json!({"type": "number", "minimum": 0, "maximum": 1}), json!(1.0)),
            (json!(2.9), json!({"type": "integer"}), json!(2)),
            (json!("x"), json!({"type": ["integer", "null"]}), json!(0)),
            (json!(null), json!({"type": ["string", "null"]}), json!(null)),
            (json!([1, "a"]), json!({"type": "array", "items": {"type": "integer"}}), json!([1, 0])),
            (json!(1), json!({"const": "fixed"}), json!("fixed")),
            (
                json!({"group": "Access", "extra": 1}),
                json!({"type": "object", "required": ["group", "why"],
                       "properties": {"group": groups, "why": {"type": "string"}, "note": {"type": "string"}}}),
                json!({"group": "Access", "why": ""}),
            ),
            (json!({"anything": 1}), Value::Null, json!({"anything": 1})),
        ] {
            assert_eq!(fit(value.clone(), &schema), Ok(fitted), "{value} {schema}");
        }
    }

    #[test]
    fn schemas_are_followed_to_a_bound() {
        let nest = |depth: usize| {
            (0..depth).fold(
                json!({"type": "string"}),
                |inner, _| json!({"type": "object", "required": ["in"], "properties": {"in": inner}}),
            )
        };
        assert!(fit(json!({}), &nest(MAX_SCHEMA_DEPTH)).is_ok());
        assert_eq!(fit(json!({}), &nest(MAX_SCHEMA_DEPTH + 1)), Err(TooDeep));
    }
}
