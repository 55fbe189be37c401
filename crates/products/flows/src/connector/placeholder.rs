//! `{name}` in a manifest: a parameter in the place where it stands, encoded for that place.
//!
//! This is no template language on purpose: a manifest decides where parameters go, and a value must not be able to
//! leave its place. A sys_id of `../../sys_user` stays one path segment (and is refused as such), a note with a quote
//! stays one JSON text.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The placeholder that stands for the effect's marker.
pub const MARKER: &str = "marker";

/// Why placeholders cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// The text of the manifest is malformed.
    #[error("a placeholder is malformed: {0}")]
    Malformed(&'static str),
    /// A value cannot stand where it is asked for.
    #[error("the parameter {name} {reason}")]
    Value {
        /// The parameter.
        name: String,
        /// The end of the sentence.
        reason: &'static str,
    },
}

/// A piece of a manifest's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it stands.
    Text(String),
    /// `{name}`
    Value(String),
    /// `{+name}`: several path segments.
    Segments(String),
}

/// Splits a text into pieces. `{{` and `}}` stand for braces.
pub fn pieces(text: &str) -> Result<Vec<Piece>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            plain.push_str(&rest[..1]);
            rest = after;
            continue;
        }
        let inner = rest
            .strip_prefix('{')
            .ok_or(PlaceholderError::Malformed("a closing brace without an opening one"))?;
        let end =
            inner.find('}').ok_or(PlaceholderError::Malformed("an opening brace without a closing one"))?;
        let (name, segments) = match inner[..end].strip_prefix('+') {
            Some(name) => (name, true),
            None => (&inner[..end], false),
        };
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            return Err(PlaceholderError::Malformed("a name is lower-case letters, digits and underscores"));
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(if segments { Piece::Segments(name.to_owned()) } else { Piece::Value(name.to_owned()) });
        rest = &inner[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

/// Names of the placeholders in a tree of values.
pub fn names(tree: &Value) -> Result<BTreeSet<String>, PlaceholderError> {
    fn walk(tree: &Value, depth: usize, names: &mut BTreeSet<String>) -> Result<(), PlaceholderError> {
        if depth > kernel::json::DEPTH_MAX {
            return Err(PlaceholderError::Malformed("nested too deeply"));
        }
        match tree {
            Value::String(text) => {
                for piece in pieces(text)? {
                    match piece {
                        Piece::Text(_) => {}
                        Piece::Value(name) => {
                            names.insert(name);
                        }
                        Piece::Segments(_) => {
                            return Err(PlaceholderError::Malformed("{+name} may stand in a path only"));
                        }
                    }
                }
                Ok(())
            }
            Value::Array(items) => items.iter().try_for_each(|item| walk(item, depth + 1, names)),
            Value::Object(members) => members.values().try_for_each(|item| walk(item, depth + 1, names)),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }
    let mut found = BTreeSet::new();
    walk(tree, 0, &mut found)?;
    Ok(found)
}

/// The values that placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The parameters.
    pub params: &'a Map<String, Value>,
    /// The effect's marker, such as `[ref:af-7f3a91b2]`.
    pub marker: &'a str,
}

impl Values<'_> {
    fn get(&self, name: &str) -> Option<Value> {
        if name == MARKER {
            Some(Value::from(self.marker))
        } else {
            self.params.get(name).filter(|v| !v.is_null()).cloned()
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, PlaceholderError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(flag)) => Ok(Some(flag.to_string())),
            Some(Value::Array(_) | Value::Object(_) | Value::Null) => {
                Err(PlaceholderError::Value { name: name.to_owned(), reason: "is no text, number or flag" })
            }
        }
    }
}

/// Fills a tree of values. A text that is one placeholder takes the parameter's own type; a member or item in which a
/// parameter that was not given stands is left out.
pub fn fill(tree: &Value, values: Values<'_>) -> Result<Option<Value>, PlaceholderError> {
    Ok(match tree {
        Value::String(text) => match pieces(text)?.as_slice() {
            [Piece::Value(name)] => values.get(name),
            pieces => concat(pieces, |name| values.text(name))?.map(Value::from),
        },
        Value::Array(items) => {
            let mut filled = Vec::with_capacity(items.len());
            for item in items {
                filled.extend(fill(item, values)?);
            }
            Some(Value::Array(filled))
        }
        Value::Object(members) => {
            let mut filled = Map::new();
            for (key, item) in members {
                if let Some(value) = fill(item, values)? {
                    filled.insert(key.clone(), value);
                }
            }
            Some(Value::Object(filled))
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => Some(plain.clone()),
    })
}

fn concat(
    pieces: &[Piece],
    value: impl Fn(&str) -> Result<Option<String>, PlaceholderError>,
) -> Result<Option<String>, PlaceholderError> {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Value(name) | Piece::Segments(name) => match value(name)? {
                Some(text) => out.push_str(&text),
                None => return Ok(None),
            },
        }
    }
    Ok(Some(out))
}

/// Fills a text for a query: joined as it is, encoded as a whole by the caller.
pub fn fill_text(text: &str, values: Values<'_>) -> Result<Option<String>, PlaceholderError> {
    concat(&pieces(text)?, |name| values.text(name))
}

/// Fills a path: every value is percent-encoded (RFC 3986, all but unreserved), and none may be empty or consist of dots,
/// or it would climb.
pub fn fill_path(path: &str, values: Values<'_>) -> Result<String, PlaceholderError> {
    let mut out = String::new();
    for piece in pieces(path)? {
        let (name, several) = match piece {
            Piece::Text(text) => {
                out.push_str(&text);
                continue;
            }
            Piece::Value(name) => (name, false),
            Piece::Segments(name) => (name, true),
        };
        let bad = |reason| PlaceholderError::Value { name: name.clone(), reason };
        let value = values.text(&name)?.ok_or_else(|| bad("is needed in the path"))?;
        let segments: Vec<&str> = if several { value.split('/').collect() } else { vec![&value] };
        for (n, segment) in segments.iter().enumerate() {
            if segment.is_empty() || segment.bytes().all(|byte| byte == b'.') {
                return Err(bad("has a segment that is empty or made of dots"));
            }
            if n > 0 {
                out.push('/');
            }
            percent_encode(segment, &mut out);
        }
    }
    Ok(out)
}

/// Appends `text` with everything but unreserved characters percent-encoded.
pub fn percent_encode(text: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params() -> Map<String, Value> {
        let Value::Object(params) = json!({
            "id": "a1", "climb": "../../x", "dots": "..", "empty": "", "odd": "a/b?c#d%e é\n", "n": 3,
            "list": [1], "none": null, "path": "a b/c", "bad_path": "a/../b", "quote": "\"},{\"x\":\"",
        }) else {
            unreachable!()
        };
        params
    }

    #[test]
    fn i10_a_value_cannot_leave_its_path_segment() {
        let params = params();
        let values = Values { params: &params, marker: "[ref:x]" };
        for (path, expected) in [
            ("/t/{id}", Some("/t/a1")),
            ("/t/{id}/n/{n}", Some("/t/a1/n/3")),
            ("/t/{climb}", Some("/t/..%2F..%2Fx")),
            ("/t/{odd}", Some("/t/a%2Fb%3Fc%23d%25e%20%C3%A9%0A")),
            ("/t/{+path}", Some("/t/a%20b/c")),
            ("/t/{+bad_path}", None),
            ("/t/{+climb}", None),
            ("/t/{dots}", None),
            ("/t/{empty}", None),
            ("/t/{none}", None),
            ("/t/{missing}", None),
            ("/t/{list}", None),
            ("/t/{id", None),
            ("/t/id}", None),
            ("/t/{ID}", None),
            ("/t/{}", None),
        ] {
            assert_eq!(fill_path(path, values).ok().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_value_keeps_its_type_and_what_was_not_given_is_left_out() {
        let params = params();
        let values = Values { params: &params, marker: "[ref:x]" };
        let tree = json!({
            "a": "{n}", "b": "{id} {marker}", "c": "{none}", "d": "x {missing}", "e": ["{list}", "{none}", true],
            "f": "{quote}", "g": {"h": "{{id}}"},
        });
        let filled = fill(&tree, values).unwrap().unwrap();
        assert_eq!(
            filled,
            json!({"a": 3, "b": "a1 [ref:x]", "e": [[1], true], "f": "\"},{\"x\":\"", "g": {"h": "{id}"}})
        );
        assert!(fill(&json!("x{list}"), values).is_err());
        assert_eq!(
            names(&tree).unwrap().into_iter().collect::<Vec<_>>(),
            ["id", "list", "marker", "missing", "n", "none", "quote"]
        );
        assert!(names(&json!("{+path}")).is_err());
    }
}
