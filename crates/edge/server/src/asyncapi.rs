//! The contract of events, written from the table: AsyncAPI 3.0.
//!
//! Nobody keeps this document by hand. Each kind of fact that a domain declares is a message; the two ways out, the live
//! stream and webhooks, are channels. A fact of a kind that no domain declares cannot be committed by a verb or a job, and
//! the test that carries every act out demands it of the rest. `contracts/asyncapi.json` is the result for this version.

use act::Domain;
use notify::event::MEDIA_TYPE;
use notify::webhook::record;
use serde_json::{Map, Value, json};

/// The document for these domains.
pub fn document(domains: &[Domain]) -> Value {
    let kinds: Vec<&str> = domains.iter().flat_map(|domain| domain.facts).copied().collect();
    let mut messages = Map::new();
    let (mut streamed, mut posted) = (Map::new(), Map::new());
    for kind in kinds {
        let message = json!({
            "name": kind, "title": kind.replace(['.', '_'], " "), "contentType": MEDIA_TYPE,
            "payload": {"allOf": [
                {"$ref": "#/components/schemas/Event"},
                {"type": "object", "properties": {"type": {"const": kind}}},
            ]},
        });
        streamed.insert(kind.to_owned(), json!({"$ref": format!("#/components/messages/{kind}")}));
        if record::posted(kind) {
            let mut signed = message.clone();
            signed["headers"] = json!({"$ref": "#/components/schemas/Signed"});
            posted.insert(kind.to_owned(), signed);
        }
        messages.insert(kind.to_owned(), message);
    }
    let channel = |address: Value, title: &str, description: &str, messages: Map<String, Value>| json!({"address": address, "title": title, "description": description, "messages": messages});
    let operation = |channel: &str, method: &str, summary: &str, description: &str| {
        json!({
            "action": "send", "channel": {"$ref": format!("#/channels/{channel}")}, "summary": summary,
            "description": description, "bindings": {"http": {"method": method, "bindingVersion": "0.3.0"}},
        })
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "writ",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every fact of a tenant as a CloudEvent, in the order of the tenant's log.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": MEDIA_TYPE,
        "channels": {
            "events": channel(
                json!("/v1/events"),
                "Live events",
                "Server-sent events. The id of an event is its index in the log; `Last-Event-ID` goes on after it, without \
                 a gap and without a repetition.",
                streamed,
            ),
            "webhook": channel(
                Value::Null,
                "Webhooks",
                "The address is the endpoint's (`webhook_create`). One at a time, in the order of the log, at least once: \
                 `webhook-id` says which are the same. Facts about deliveries are not delivered.",
                posted,
            ),
        },
        "operations": {
            "event_stream": operation("events", "GET", "Follow the tenant's facts", "Needs a role that may read `notify.event.read`."),
            "webhook_deliver": operation("webhook", "POST", "Send a fact to an endpoint", "Signed after Standard Webhooks. 2xx is taken; 410 disables the endpoint; anything else is tried again."),
        },
        "components": {"messages": messages, "schemas": {"Event": event(), "Fact": fact(), "Signed": signed()}},
    })
}

/// A CloudEvent as `notify::event` makes them.
fn event() -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "logindex", "data"],
        "additionalProperties": false,
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "pattern": "^fct_", "description": "The fact's id; the same wherever the fact is heard of"},
            "source": {"type": "string", "minLength": 1, "description": "The log: installation/cell/tenant/epoch"},
            "type": text(),
            "subject": {"type": "string", "description": "Full name of what it was done to"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "logindex": {"type": "string", "pattern": "^[0-9]+$", "description": "Index in the log"},
            "data": {"$ref": "#/components/schemas/Fact"},
        },
    })
}

/// A leaf, as `kernel::fact` writes them.
fn fact() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let maybe = |description: &str| json!({"type": ["string", "null"], "description": description});
    let ids =
        |description: &str| json!({"type": "array", "items": {"type": "string"}, "description": description});
    json!({
        "type": "object",
        "required": [
            "v", "id", "at_ms", "origin", "kind", "stream", "stream_n", "causes", "actor", "on_behalf_of", "act",
            "resource", "decision", "policy", "assurance", "args_commitment", "outcome", "trace",
        ],
        "additionalProperties": false,
        "properties": {
            "v": {"const": 1},
            "id": text("Identity of the fact"),
            "at_ms": {"type": "integer", "description": "When, milliseconds UTC"},
            "origin": text("The log it belongs to"),
            "kind": text("What happened"),
            "stream": text("The thing that it counts in"),
            "stream_n": {"type": "integer", "minimum": 1, "description": "Its number there, without gaps"},
            "causes": ids("Facts that led to it"),
            "actor": text("Who acted"),
            "on_behalf_of": ids("For whom, nearest first"),
            "act": text("The act"),
            "resource": text("Full name of what it was done to"),
            "decision": {
                "type": ["object", "null"],
                "required": ["effect", "id"],
                "properties": {
                    "effect": {"enum": ["ALLOW", "ROUTE", "THROTTLE", "HITL", "STEP_UP", "DENY"]},
                    "id": {"type": "string"},
                },
            },
            "policy": maybe("Digest of the policy that decided"),
            "assurance": maybe("How the actor had proven who they are"),
            "args_commitment": maybe("Salted commitment to the arguments"),
            "outcome": {"type": "object", "description": "Metadata, particular to the kind"},
            "trace": text("Joins facts, logs and traces"),
        },
    })
}

/// The headers of a delivery.
fn signed() -> Value {
    json!({
        "type": "object",
        "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
        "properties": {
            "webhook-id": {"type": "string", "description": "The fact's id; a repetition has the same"},
            "webhook-timestamp": {"type": "string", "pattern": "^[0-9]+$", "description": "Seconds since 1970 of this attempt"},
            "webhook-signature": {"type": "string", "description": "`v1,` and base64 of an HMAC-SHA256, one for each valid secret"},
        },
    })
}
