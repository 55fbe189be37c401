//! Parameters in, one HTTP request out: pure, and complete but for the credentials.

use super::manifest::{Action, Manifest};
use super::placeholder::{self, PlaceholderError, Values, percent_encode};
use crate::schema;
use serde_json::{Map, Value};

/// Most further query parameters that `query_from` may give.
pub const QUERY_FROM_MAX: usize = 32;

/// Why no request can be made of these parameters. The same parameters fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// They do not conform to the action's schema; the message says where, not what.
    #[error("the parameters do not fit: {0}")]
    Params(String),
    /// A value cannot stand where the manifest puts it.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
}

/// A request without its credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Method.
    pub method: egress::Method,
    /// Absolute URL.
    pub url: String,
    /// Headers, without credentials.
    pub headers: Vec<(String, String)>,
    /// JSON body, already encoded; empty for none.
    pub body: Vec<u8>,
}

/// Leaves out what is null: a parameter that comes to null is not given.
pub fn given(params: &Map<String, Value>) -> Map<String, Value> {
    params
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Checks parameters against an action's schema.
pub fn params_check(action: &Action, params: &Map<String, Value>) -> Result<(), RequestError> {
    let validator =
        schema::compile(&action.params).map_err(|why| RequestError::Params(format!("the schema {why}")))?;
    // `params` becomes a value by a clone: it is small, and the validator wants one.
    schema::check(&validator, &Value::Object(params.clone())).map_err(RequestError::Params)
}

/// Makes the request. `base_url` has no slash at its end; `key` is the effect key.
pub fn prepare(
    manifest: &Manifest,
    action: &Action,
    base_url: &str,
    params: &Map<String, Value>,
    marker: &str,
    key: &str,
) -> Result<Prepared, RequestError> {
    params_check(action, params)?;
    let values = Values { params, marker };
    let mut url = format!("{base_url}{}", placeholder::fill_path(&action.path, values)?);
    let mut first = true;
    let mut pair = |name: &str, value: &str, url: &mut String| {
        url.push(if std::mem::take(&mut first) { '?' } else { '&' });
        percent_encode(name, url);
        url.push('=');
        percent_encode(value, url);
    };
    for (name, text) in &action.query {
        if let Some(value) = placeholder::fill_text(text, values)? {
            pair(name, &value, &mut url);
        }
    }
    if let Some(Value::Object(more)) = action.query_from.as_ref().and_then(|name| params.get(name)) {
        if more.len() > QUERY_FROM_MAX {
            return Err(RequestError::Params("there are more than 32 query parameters".into()));
        }
        for (name, value) in more {
            match value {
                Value::String(text) => pair(name, text, &mut url),
                Value::Number(number) => pair(name, &number.to_string(), &mut url),
                Value::Bool(flag) => pair(name, &flag.to_string(), &mut url),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(RequestError::Params("a query parameter is no text, number or flag".into()));
                }
            }
        }
    }
    let mut headers: Vec<_> =
        manifest.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut body = Vec::new();
    if let Some(template) = &action.body {
        let filled = placeholder::fill(template, values)?.unwrap_or_else(|| Value::Object(Map::new()));
        // A JSON value always serialises.
        body = serde_json::to_vec(&filled).unwrap_or_default();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    if let Some(name) = &action.key_header {
        headers.push((name.clone(), key.to_owned()));
    }
    Ok(Prepared { method: action.method.http(), url, headers, body })
}

/// The fields that a call with these parameters sets, of those the manifest lists: what policy is told.
pub fn fields_written(action: &Action, params: &Map<String, Value>, marker: &str) -> Vec<String> {
    let values = Values { params, marker };
    let body = action.body.as_ref().and_then(|body| placeholder::fill(body, values).ok().flatten());
    match body {
        Some(Value::Object(members)) => {
            // Whatever is in the body is written, whether the manifest lists it or not.
            let mut fields: Vec<String> = members.keys().cloned().collect();
            if fields.is_empty() {
                fields.clone_from(&action.writes);
            }
            fields
        }
        _ => action.writes.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn action(value: Value) -> Action {
        serde_json::from_value(value).unwrap()
    }

    fn manifest(action: &Action) -> Manifest {
        Manifest {
            name: "m".into(),
            version: "1".into(),
            description: String::new(),
            headers: [("accept".to_owned(), "application/json".to_owned())].into(),
            events: Default::default(),
            actions: [("a".to_owned(), action.clone())].into(),
        }
    }

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_request_is_what_the_manifest_says() {
        let action = action(json!({
            "effect": "KEYED", "method": "POST", "path": "/t/{id}", "query": {"a&b": "x={id}^y", "gone": "{missing}"},
            "query_from": "more", "body": {"note": "{note} {marker}", "missing": "{missing}", "fixed": true},
            "params": {"type": "object", "additionalProperties": false, "properties": {
                "id": {"type": "string"}, "note": {"type": "string"}, "missing": {"type": "string"}, "more": {"type": "object"}}},
            "key_header": "idempotency-key", "writes": ["note"], "response": {"status": [200]},
        }));
        let manifest = manifest(&action);
        let params = map(json!({"id": "1/2", "note": "a\"b", "more": {"q": "x&y=z", "n": 2}}));
        let prepared = prepare(&manifest, &action, "https://t.example", &params, "[ref:m]", "key1").unwrap();
        assert_eq!(prepared.url, "https://t.example/t/1%2F2?a%26b=x%3D1%2F2%5Ey&n=2&q=x%26y%3Dz");
        assert_eq!(
            serde_json::from_slice::<Value>(&prepared.body).unwrap(),
            json!({"note": "a\"b [ref:m]", "fixed": true})
        );
        assert!(prepared.headers.contains(&("idempotency-key".into(), "key1".into())));
        assert_eq!(fields_written(&action, &params, "m"), ["fixed", "note"]);
        for bad in
            [json!({"id": "1", "other": 1}), json!({"id": 7}), json!({"note": "x"}), json!({"id": ".."})]
        {
            assert!(
                prepare(&manifest, &action, "https://t.example", &map(bad.clone()), "", "").is_err(),
                "{bad}"
            );
        }
    }
}
