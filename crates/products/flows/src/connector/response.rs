//! One HTTP reply in, an output or a reason out.
//!
//! Nothing is believed but what is there: a status that the manifest does not name is no success, a body that is cut or
//! no JSON is no success, and a field that does not read back as it was written is a failure, 200 or not.

use super::manifest::{Action, Response};
use super::placeholder::{self, Values};
use crate::template::{OUTPUT_BYTES_MAX, whole_numbers};
use serde_json::{Map, Value};

/// Deepest body that is read.
const DEPTH_MAX: usize = 32;

/// Why a reply is no success although it was one of the statuses that mean success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The body is no JSON, or has no result where the manifest says.
    #[error("the reply cannot be read")]
    Unreadable,
    /// Fields do not read back as they were written.
    #[error("fields do not read back as they were written: {}", .0.join(", "))]
    Dropped(
        /// Their names.
        Vec<String>,
    ),
    /// What the manifest extracts is larger than a step may keep.
    #[error("the output is larger than {OUTPUT_BYTES_MAX} bytes")]
    TooLarge,
}

/// Reads a reply's body: checks what was written and takes the output out of it.
pub fn read(
    action: &Action,
    params: &Map<String, Value>,
    body: &[u8],
) -> Result<Map<String, Value>, ResponseError> {
    let result = result(&action.response, body)?;
    check(action, params, &result)?;
    output(&action.response, &result)
}

/// The result in a body.
pub fn result(response: &Response, body: &[u8]) -> Result<Value, ResponseError> {
    if response.root.is_empty() && response.extract.is_empty() && response.check.is_empty() {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(body).map_err(|_| ResponseError::Unreadable)?;
    if !shallow(&value, 0) {
        return Err(ResponseError::Unreadable);
    }
    value.pointer(&response.root).cloned().ok_or(ResponseError::Unreadable)
}

fn shallow(value: &Value, depth: usize) -> bool {
    depth <= DEPTH_MAX
        && match value {
            Value::Array(items) => items.iter().all(|item| shallow(item, depth + 1)),
            Value::Object(members) => members.values().all(|item| shallow(item, depth + 1)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
}

/// Compares what was written with what is there.
pub fn check(action: &Action, params: &Map<String, Value>, result: &Value) -> Result<(), ResponseError> {
    let values = Values { params, marker: "" };
    let mut dropped = Vec::new();
    for (field, template) in &action.response.check {
        // What was not given was not written.
        let Ok(Some(wanted)) = placeholder::fill(&Value::from(template.as_str()), values) else { continue };
        if result.get(field).is_none_or(|found| !same(&wanted, found)) {
            dropped.push(field.clone());
        }
    }
    if dropped.is_empty() { Ok(()) } else { Err(ResponseError::Dropped(dropped)) }
}

/// Systems differ in how they write a value: `3` and `"3"` are the same, `true` and `"true"` too, and a reference may
/// come as an object with a `value`.
fn same(wanted: &Value, found: &Value) -> bool {
    fn text(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Null => Some(String::new()),
            Value::Object(members) => members.get("value").and_then(Value::as_str).map(str::to_owned),
            Value::Array(_) => None,
        }
    }
    wanted == found || (text(wanted).is_some() && text(wanted) == text(found))
}

/// Takes the output out of a result.
pub fn output(response: &Response, result: &Value) -> Result<Map<String, Value>, ResponseError> {
    let mut output = Map::new();
    for (name, pointer) in &response.extract {
        if let Some(value) = result.pointer(pointer) {
            output.insert(name.clone(), whole_numbers(value.clone()));
        }
    }
    // Plain data always serialises.
    let bytes = serde_json::to_vec(&output).map_or(usize::MAX, |bytes| bytes.len());
    if bytes > OUTPUT_BYTES_MAX { Err(ResponseError::TooLarge) } else { Ok(output) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action(response: Value) -> Action {
        serde_json::from_value(json!({
            "effect": "IDEMPOTENT", "method": "PATCH", "path": "/t", "params": {"type": "object"}, "response": response,
        }))
        .unwrap()
    }

    #[test]
    fn a_200_that_dropped_a_field_is_a_failure() {
        let action = action(json!({"status": [200], "root": "/result",
            "check": {"category": "{category}", "impact": "{impact}", "group": "{group}", "flag": "{flag}"},
            "extract": {"id": "/sys_id", "n": "/n", "gone": "/gone", "f": "/f"}}));
        let params: Map<String, Value> =
            serde_json::from_value(json!({"category": "network", "impact": 2, "group": "g1", "flag": true}))
                .unwrap();
        let reply = |result: Value| read(&action, &params, json!({"result": result}).to_string().as_bytes());
        assert_eq!(
            reply(
                json!({"category": "network", "impact": "2", "group": {"link": "x", "value": "g1"}, "flag": "true",
                "sys_id": "a", "n": 1, "f": 0.5})
            ),
            Ok(serde_json::from_value(json!({"id": "a", "n": 1, "f": "0.5"})).unwrap())
        );
        let dropped =
            |fields: &[&str]| Err(ResponseError::Dropped(fields.iter().map(|f| (*f).to_owned()).collect()));
        assert_eq!(
            reply(json!({"category": "inquiry", "impact": "2", "group": "g1", "flag": true})),
            dropped(&["category"])
        );
        assert_eq!(
            reply(json!({"category": "network", "impact": "2", "group": "", "flag": true})),
            dropped(&["group"])
        );
        assert_eq!(reply(json!({"category": "network", "group": "g1", "flag": true})), dropped(&["impact"]));
        let nothing = read(&action, &Map::new(), br#"{"result": {"sys_id": "a"}}"#).unwrap();
        assert_eq!(nothing["id"], "a");
    }

    #[test]
    fn what_cannot_be_read_is_no_success() {
        let strict = action(json!({"status": [200], "root": "/result", "extract": {"id": "/id"}}));
        let deep = format!("{{\"result\": {}1{}}}", "[".repeat(100), "]".repeat(100));
        for body in ["", "{\"result\":", "<html>", "{}", "[]", "{\"result\": 1} x", deep.as_str()] {
            assert_eq!(read(&strict, &Map::new(), body.as_bytes()), Err(ResponseError::Unreadable), "{body}");
        }
        let large = json!({"result": {"id": "x".repeat(OUTPUT_BYTES_MAX)}}).to_string();
        assert_eq!(read(&strict, &Map::new(), large.as_bytes()), Err(ResponseError::TooLarge));
        // An action that wants nothing of the body takes any.
        assert!(read(&action(json!({"status": [204]})), &Map::new(), b"").is_ok());
    }
}
