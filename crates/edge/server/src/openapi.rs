//! The contract, written from the table: OpenAPI 3.1.
//!
//! Nobody keeps this document by hand. Each route is an operation; a verb's argument schema, less the members that come
//! from the path, is its body; every operation may answer with a problem document. `contracts/openapi.json` is the result
//! for this version, and a test says when the two differ.

use crate::http::etag;
use act::{Auth, Call, Domain, Method, Route, Verb};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The document for these domains.
pub fn document(domains: &[Domain]) -> Value {
    let verbs: BTreeMap<&str, &Verb> =
        domains.iter().flat_map(|domain| &domain.verbs).map(|verb| (verb.act, verb)).collect();
    let mut schemas = Map::new();
    schemas.insert("Problem".into(), problem());
    schemas.insert("Waiting".into(), waiting());
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for domain in domains {
        for route in &domain.routes {
            let named = etag::record_of(domains, route).is_some();
            let operation = operation(domain.name, route, named, &verbs, &mut schemas);
            paths.entry(route.path).or_default().insert(method(route.method).to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "writ",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A governed AI factory: every consequential act is identified, decided, approved, executed once, recorded.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": domains.iter().filter(|domain| !domain.routes.is_empty()).map(|domain| json!({"name": domain.name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "bearerFormat": "key_<id>.<secret>"},
            },
            "headers": {
                "X-Request-Id": {"description": "The request's id", "schema": text()},
                "traceresponse": {
                    "description": "Trace and span in which the request was answered, as a W3C traceparent", "schema": text(),
                },
                "RateLimit": {
                    "description": "What is left to the caller: r requests, all back in t seconds", "schema": text(),
                },
                "RateLimit-Policy": {"description": "q requests in w seconds for each principal", "schema": text()},
                "ETag": {"description": "The state of this record, for If-Match and If-None-Match", "schema": text()},
            },
            "responses": {
                "Problem": {
                    "description": "Refused or failed; RFC 9457",
                    "headers": {
                        "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"},
                        "traceresponse": {"$ref": "#/components/headers/traceresponse"},
                        "RateLimit": {"$ref": "#/components/headers/RateLimit"},
                        "RateLimit-Policy": {"$ref": "#/components/headers/RateLimit-Policy"},
                        "Retry-After": {"description": "Seconds, where a retry makes sense", "schema": {"type": "integer"}},
                    },
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
                "Waiting": {
                    "description": "It waits for people; nothing has been done yet",
                    "headers": {"Location": {"description": "The approval", "schema": {"type": "string"}}},
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Waiting"}}},
                },
            },
        },
    })
}

fn text() -> Value {
    json!({"type": "string"})
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Delete => "delete",
    }
}

/// The names in braces of a path template.
pub fn path_params(template: &str) -> Vec<&str> {
    template.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect()
}

fn operation(
    tag: &str,
    route: &Route,
    named_record: bool,
    verbs: &BTreeMap<&str, &Verb>,
    schemas: &mut Map<String, Value>,
) -> Value {
    let named = path_params(route.path);
    let mut parameters: Vec<Value> = named
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": text()}))
        .collect();
    for param in route.query {
        parameters
            .push(json!({"name": param.name, "in": "query", "description": param.summary, "schema": text()}));
    }
    let header = |name: &str, description: &str| json!({"name": name, "in": "header", "description": description, "schema": text()});
    parameters.push(header("X-Request-Id", "Joins this request with logs and facts; made up if absent"));
    parameters
        .push(header("traceparent", "The caller's trace (W3C Trace Context); a new one begins if absent"));
    if route.auth == Auth::Principal {
        parameters.push(header("Writ-Tenant", "The tenant, where it is not the key's own"));
    }
    let mut operation = Map::new();
    let mut put = |name: &str, value: Value| operation.insert(name.to_owned(), value);
    put("operationId", json!(route.operation));
    put("summary", json!(route.summary));
    put("tags", json!([tag]));
    put("security", if route.auth == Auth::Principal { json!([{"key": []}]) } else { json!([]) });
    let known = route.auth == Auth::Principal;
    let ok = |description: &str, media: &str, schema: Value| {
        let mut content = Map::new();
        content.insert(media.to_owned(), json!({"schema": schema}));
        let mut headers = Map::new();
        let names = ["X-Request-Id", "traceresponse", "RateLimit-Policy"].into_iter();
        for name in names.chain(known.then_some("RateLimit")).chain(etag::tagged(route).then_some("ETag")) {
            headers.insert(name.to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
        }
        json!({"description": description, "headers": headers, "content": content})
    };
    let anything = || ok("Done", "application/json", json!({}));
    let mut responses = Map::new();
    match &route.call {
        Call::Verb(act) => {
            parameters.push(header(
                "Idempotency-Key",
                "Makes the act once-only: the same key and arguments give the same answer",
            ));
            if named_record {
                parameters.push(header(
                    "If-Match",
                    "Act only if the record is still as this entity tag says; * for: only if it is there",
                ));
                let mut failed = json!({"$ref": "#/components/responses/Problem"});
                failed["description"] = json!("The record is not as If-Match says; nothing was done");
                responses.insert("412".into(), failed);
            }
            if let Some(verb) = verbs.get(act) {
                put("description", json!(format!("{}. The act `{act}`.", verb.summary)));
                if let Some((schema, required)) = arguments(route, verb, &named, schemas) {
                    put(
                        "requestBody",
                        json!({"required": required, "content": {"application/json": {"schema": schema}}}),
                    );
                }
            }
            responses.insert("200".into(), anything());
            responses.insert("202".into(), json!({"$ref": "#/components/responses/Waiting"}));
        }
        Call::Query(permission, _) => {
            if !permission.is_empty() {
                put("description", json!(format!("Needs a role that may read `{permission}`.")));
            }
            if etag::tagged(route) {
                parameters.push(header(
                    "If-None-Match",
                    "Entity tags that the caller has; 304 if one of them is this",
                ));
                let headers = json!({"ETag": {"$ref": "#/components/headers/ETag"}});
                responses
                    .insert("304".into(), json!({"description": "As the caller has it", "headers": headers}));
            }
            responses.insert("200".into(), anything());
        }
        Call::Stream(permission, _) => {
            parameters.push(header("Last-Event-ID", "Goes on after this event"));
            put("description", json!(format!("Needs a role that may read `{permission}`.")));
            responses.insert("200".into(), ok("Events", "text/event-stream", text()));
        }
        Call::Receive(_) => {
            put("description", json!("The raw body is signed; the signature stands in headers."));
            put("requestBody", json!({"required": true, "content": {"*/*": {"schema": {}}}}));
            responses.insert("200".into(), anything());
            responses.insert("202".into(), json!({"$ref": "#/components/responses/Waiting"}));
        }
    }
    responses.insert("default".into(), json!({"$ref": "#/components/responses/Problem"}));
    put("parameters", json!(parameters));
    put("responses", Value::Object(responses));
    Value::Object(operation)
}

/// The body's schema, less what comes from the path, and whether a body is required. `None`: there is nothing to send.
fn arguments(
    route: &Route,
    verb: &Verb,
    from_path: &[&str],
    schemas: &mut Map<String, Value>,
) -> Option<(Value, bool)> {
    let mut schema = (verb.args)();
    let root = schema.as_object_mut()?;
    root.remove("$schema");
    root.remove("title");
    let inner = root.remove("$defs");
    let mut properties = 0;
    if let Some(members) = root.get_mut("properties").and_then(Value::as_object_mut) {
        members.retain(|name, _| !from_path.contains(&name.as_str()));
        properties = members.len();
    }
    let mut required = 0;
    if let Some(names) = root.get_mut("required").and_then(Value::as_array_mut) {
        names.retain(|name| !name.as_str().is_some_and(|name| from_path.contains(&name)));
        required = names.len();
    }
    if required == 0 {
        root.remove("required");
    }
    if properties == 0 && root.get("additionalProperties") == Some(&Value::Bool(false)) {
        return None;
    }
    // A reference counts from the root of the document it stands in, so definitions move to where this one has them.
    refs_move(&mut schema, route.operation);
    if let Some(Value::Object(inner)) = inner {
        for (name, mut value) in inner {
            refs_move(&mut value, route.operation);
            schemas.insert(format!("{}.{name}", route.operation), value);
        }
    }
    Some((schema, required > 0))
}

/// Depth is bounded by the schema's own, which is a type of this program.
fn refs_move(value: &mut Value, operation: &str) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(to)) = members.get_mut("$ref")
                && let Some(name) = to.strip_prefix("#/$defs/")
            {
                *to = format!("#/components/schemas/{operation}.{name}");
            }
            members.values_mut().for_each(|value| refs_move(value, operation));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| refs_move(value, operation)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "class", "request_id", "retryable"],
        "properties": {
            "type": {"type": "string", "description": "/errors/<code>"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What happened, for people"},
            "code": {"type": "string", "description": "Stable, for programs"},
            "class": {
                "type": "string",
                "enum": [
                    "invalid", "too_large", "unauthenticated", "denied", "step_up", "needs_approval", "not_found", "conflict",
                    "contention", "throttled", "upstream", "unavailable", "evidence", "internal",
                ],
            },
            "request_id": {"type": "string"},
            "retryable": {"type": "boolean"},
            "details": {"description": "Machine-readable particulars"},
        },
    })
}

fn waiting() -> Value {
    json!({
        "type": "object",
        "required": ["status", "approval", "expires_at_ms", "preview_digest"],
        "properties": {
            "status": {"const": "waiting"},
            "approval": {"type": "string"},
            "expires_at_ms": {"type": "integer", "format": "int64"},
            "preview_digest": {"type": "string", "description": "What a grant has to name"},
        },
    })
}
