//! The Batch API: several requests in one, answered one by one. Clients use it for deletes and updates of
//! many records, and for queries too long for a URL. Requests inside a batch act for the caller of the batch;
//! faults strike the batch as a whole. A batch inside a batch is left unserviced.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, handle as handle_one, world::Refusal, world::World};
use crate::exchange::{Call, Reply};

/// Most requests in one batch; the rest are left unserviced.
pub const MAX_BATCH: usize = 200;
/// Once the replies are this large, the rest are left unserviced.
pub const MAX_BATCH_REPLY_BYTES: usize = 32 << 20;

#[derive(Deserialize)]
struct Batch {
    batch_request_id: Value,
    #[serde(default)]
    rest_requests: Vec<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    id: String,
    method: String,
    url: String,
    #[serde(default)]
    body: String,
}

pub(super) fn handle(world: &mut World, context: &Context<'_>, call: &Call) -> Result<Reply, Refusal> {
    let batch: Batch = serde_json::from_slice(&call.body)
        .map_err(|_| Refusal::Unreadable("Exception while reading request".into()))?;
    let (mut serviced, mut unserviced, mut bytes) = (Vec::new(), Vec::new(), 0);
    for inner in batch.rest_requests {
        let method = Method::from_bytes(inner.method.as_bytes()).ok();
        let body = STANDARD.decode(&inner.body).ok();
        let nested =
            inner.url.split('?').next().is_some_and(|path| path.trim_end_matches('/').ends_with("/batch"));
        let room = serviced.len() < MAX_BATCH && bytes < MAX_BATCH_REPLY_BYTES;
        let (Some(method), Some(body), false, true) = (method, body, nested, room) else {
            unserviced.push(inner.id);
            continue;
        };
        let reply = handle_one(world, context, &Call::new(method, &inner.url, HeaderMap::new(), body.into()));
        bytes += reply.body.len();
        let headers: Vec<Value> =
            reply.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        serviced.push(json!({
            "id": inner.id,
            "status_code": reply.status,
            "status_text": http::StatusCode::from_u16(reply.status).ok().and_then(|s| s.canonical_reason()),
            "headers": headers,
            "body": STANDARD.encode(&reply.body),
            "execution_time": 0,
        }));
    }
    let id = match batch.batch_request_id {
        Value::String(id) => id,
        other => other.to_string(),
    };
    Ok(Reply::json(
        200,
        &json!({"batch_request_id": id, "serviced_requests": serviced, "unserviced_requests": unserviced}),
    ))
}
