//! A stand-in for the ServiceNow Table API, with its traps.
//!
//! The real service answers 200 to much that did not happen. A client that believes it, because a mock was
//! kinder, loses tickets in production. So the stand-in is unkind in the same places:
//!
//! - a field that the caller may not write is dropped, and the reply is a 200; so is an unknown field, a text
//!   past the field's length, and a reference to a group that does not exist (stored empty);
//! - `work_notes` and `comments` append: the record reads back "", and sending a PATCH again makes two notes;
//! - there is no ETag and no idempotency key; `sys_mod_count` moves only when something changed;
//! - `priority` is computed from impact and urgency, whatever was written;
//! - `state=6` without a known `close_code` and `close_notes` is a 403, and an unknown code reads as none;
//! - of a body with several records only the first is worked on;
//! - a query's condition on an unknown field is ignored, so a typing error returns everything;
//! - records are addressed by `sys_id` only, and all values are strings.
//!
//! Assumed, and not checked against a live instance: the wording of errors other than "No Record found",
//! "Invalid table" and the data policy's; 405 for a method that a resource lacks; that a group's name in raw
//! mode is not resolved; that a note alone moves `sys_mod_count`; that journal entries outlive their record.
//! Taken from recorded replies of real instances: the shape of the `Link` header, `close_code` outside the list
//! reading as missing, a chosen `sys_id` kept on insert.
//!
//! It does not evaluate scripts in queries, has no domain separation, no attachments and no ACL rules beyond
//! a list of protected fields, shows date-times in UTC, and knows only the fields of its own schema. Where a
//! bound of its own is reached it answers 507, which the real service does not.

mod batch;
pub(crate) mod oauth;
pub(crate) mod query;
mod render;
pub(crate) mod schema;
pub(crate) mod world;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use self::{
    oauth::Entry,
    query::{Query, compare},
    render::View,
    schema::Table,
    world::{Refusal, Row, World, Write, field_at, table_of},
};
use crate::{
    config::{Credentials, ServiceNowConfig},
    exchange::{self, Call, Reply},
};

/// Rows of a page where the caller names no limit, as the vendor's.
pub const DEFAULT_LIMIT: usize = 10_000;
/// Longest `sysparm_query` in bytes; longer is refused with 400.
pub const MAX_QUERY_BYTES: usize = 32 << 10;
/// Most names in `sysparm_fields`.
pub const MAX_FIELDS: usize = 256;

/// What a request is handled with, besides itself and the state.
pub(crate) struct Context<'a> {
    pub config: &'a ServiceNowConfig,
    pub credentials: &'a Credentials,
    pub base_url: &'a str,
    pub at_ms: i64,
    /// Fields that a fault swallows.
    pub dropped: &'a [String],
}

/// Whether the caller is the integration user, by password or by token.
pub(crate) fn authenticated(call: &Call, credentials: &Credentials, entry: &Entry, at_ms: i64) -> bool {
    let given = call.authorization("basic").and_then(|text| STANDARD.decode(text).ok());
    let given = given.and_then(|given| String::from_utf8(given).ok());
    let by_password = given
        .as_deref()
        .and_then(|given| given.split_once(':'))
        .is_some_and(|(user, password)| user == credentials.user_name && entry.password_known(password));
    let by_token = |token: &str| token == credentials.bearer_token || entry.token_known(token, at_ms);
    by_password || call.authorization("bearer").is_some_and(by_token)
}

/// 401, as the instance words it.
pub(crate) fn unauthenticated() -> Reply {
    let detail = "Required to provide Auth information";
    exchange::error(401, "User is not authenticated", detail)
        .header("www-authenticate", "BASIC realm=\"Service-now\"")
}

/// Answers an authenticated request.
pub(crate) fn handle(world: &mut World, context: &Context<'_>, call: &Call) -> Reply {
    let path = call.path.trim_end_matches('/');
    let versioned = path.strip_prefix("/api/now/").unwrap_or_default();
    let rest = ["v1/", "v2/"].iter().find_map(|version| versioned.strip_prefix(version)).unwrap_or(versioned);
    let segments: Vec<&str> = rest.split('/').collect();
    let result = match segments.as_slice() {
        ["table", table] => table_of(table).and_then(|table| collection(world, context, call, table)),
        ["table", table, sys_id] => {
            table_of(table).and_then(|table| record(world, context, call, table, sys_id))
        }
        ["batch"] if call.method == Method::POST => batch::handle(world, context, call),
        _ => {
            let detail = "Requested URI does not represent any resource";
            Ok(failure(400, detail, detail))
        }
    };
    result.unwrap_or_else(refusal)
}

/// Requests to a table.
fn collection(
    world: &mut World,
    context: &Context<'_>,
    call: &Call,
    table: &'static Table,
) -> Result<Reply, Refusal> {
    match call.method {
        Method::GET => list(world, context, call, table),
        Method::POST => {
            let input = first_record(call)?;
            let sys_id = world.record_create(table, &write(context, call, &input))?;
            let location = format!("{}/api/now/table/{}/{sys_id}", context.base_url, table.name);
            shown(world, context, call, table, &sys_id, 201).map(|reply| reply.header("location", location))
        }
        _ => Ok(method_not_allowed()),
    }
}

/// Requests to one record.
fn record(
    world: &mut World,
    context: &Context<'_>,
    call: &Call,
    table: &'static Table,
    sys_id: &str,
) -> Result<Reply, Refusal> {
    match call.method {
        Method::GET => shown(world, context, call, table, sys_id, 200),
        // PUT is PATCH here: fields that are not sent stay as they are.
        Method::PATCH | Method::PUT => {
            let input = first_record(call)?;
            world.record_update(table, sys_id, &write(context, call, &input))?;
            shown(world, context, call, table, sys_id, 200)
        }
        Method::DELETE => {
            world.record_delete(table, sys_id, context.at_ms)?;
            Ok(Reply::empty(204))
        }
        _ => Ok(method_not_allowed()),
    }
}

fn write<'a>(context: &'a Context<'_>, call: &Call, input: &'a Map<String, Value>) -> Write<'a> {
    Write {
        by: &context.credentials.user_name,
        at_ms: context.at_ms,
        input,
        display_input: call.flag("sysparm_input_display_value"),
        dropped: context.dropped,
        from_client: true,
    }
}

fn shown(
    world: &World,
    context: &Context<'_>,
    call: &Call,
    table: &Table,
    sys_id: &str,
    status: u16,
) -> Result<Reply, Refusal> {
    let row = world.rows(table).get(sys_id).ok_or(Refusal::NotFound)?;
    let view = view(call)?;
    Ok(Reply::json(status, &json!({"result": view.record(world, context.base_url, table, row)})))
}

fn view(call: &Call) -> Result<View, Refusal> {
    let view = View::of(call);
    match &view.fields {
        Some(fields) if fields.len() > MAX_FIELDS => {
            Err(Refusal::Unreadable("sysparm_fields names too many fields".into()))
        }
        _ => Ok(view),
    }
}

fn list(world: &World, context: &Context<'_>, call: &Call, table: &'static Table) -> Result<Reply, Refusal> {
    let text = call.parameter("sysparm_query").unwrap_or_default();
    if text.len() > MAX_QUERY_BYTES {
        return Err(Refusal::Unreadable("sysparm_query is too long".into()));
    }
    let query = Query::parse(text, |path| field_at(table, path).is_some())
        .map_err(|query::TooLong| Refusal::Unreadable("sysparm_query has too many conditions".into()))?;
    let view = view(call)?;
    let nothing = query.invalid && context.config.invalid_query_returns_no_rows;
    let mut rows: Vec<&Row> = world
        .rows(table)
        .all()
        .filter(|row| !nothing && query.matches(|path| world.value_at(table, row, path)))
        .collect();
    sort(world, table, &query, &mut rows);

    let number = |name: &str| call.parameter(name).and_then(|value| value.parse::<usize>().ok());
    let limit = number("sysparm_limit").filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    let offset = number("sysparm_offset").unwrap_or(0);
    let page: Vec<Value> = rows
        .iter()
        .skip(offset)
        .take(limit)
        .map(|row| view.record(world, context.base_url, table, row))
        .collect();
    let mut reply = Reply::json(200, &json!({"result": page}));
    if !call.flag("sysparm_no_count") {
        reply = reply.header("x-total-count", rows.len().to_string());
    }
    if !call.flag("sysparm_suppress_pagination_header") && !rows.is_empty() {
        reply = reply.header("link", links(context.base_url, call, rows.len(), limit, offset));
    }
    Ok(reply)
}

fn sort(world: &World, table: &Table, query: &Query, rows: &mut [&Row]) {
    rows.sort_by(|left, right| {
        let ordering = query.order.iter().map(|by| {
            let (Some((kind, left)), Some((_, right))) =
                (world.value_at(table, left, &by.field), world.value_at(table, right, &by.field))
            else {
                // Fields that do not exist were dropped from the query.
                return std::cmp::Ordering::Equal;
            };
            let ordering = compare(kind, &left.to_lowercase(), &right.to_lowercase());
            if by.descending { ordering.reverse() } else { ordering }
        });
        ordering.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
}

/// The `Link` header. As on real instances, the first page has a `prev` with a negative offset, and the last
/// page has no `next`.
fn links(base_url: &str, call: &Call, total: usize, limit: usize, offset: usize) -> String {
    let url = |offset: i128| {
        let kept = call.query.iter().filter(|(key, _)| key != "sysparm_limit" && key != "sysparm_offset");
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("sysparm_limit", &limit.to_string())
            .append_pair("sysparm_offset", &offset.to_string())
            .finish();
        format!("{base_url}{}?{query}", call.path)
    };
    let (total, limit, offset) = (total as i128, limit as i128, offset as i128);
    let mut links = vec![(0, "first"), (offset - limit, "prev")];
    if offset + limit < total {
        links.push((offset + limit, "next"));
    }
    links.push(((total - 1) / limit * limit, "last"));
    let links: Vec<String> =
        links.into_iter().map(|(offset, rel)| format!("<{}>;rel=\"{rel}\"", url(offset))).collect();
    links.join(",")
}

/// The record of a body. Of several only the first is worked on, and the rest are ignored without a word.
fn first_record(call: &Call) -> Result<Map<String, Value>, Refusal> {
    let unreadable = || Refusal::Unreadable("Exception while reading request".into());
    let body: Value = serde_json::from_slice(&call.body).map_err(|_| unreadable())?;
    let first = match body {
        Value::Array(records) => records.into_iter().next(),
        Value::Object(mut object) => match object.remove("records") {
            Some(Value::Array(records)) => records.into_iter().next(),
            Some(_) | None => Some(Value::Object(object)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    match first {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(unreadable()),
    }
}

fn failure(status: u16, message: &str, detail: &str) -> Reply {
    exchange::error(status, message, detail)
}

fn method_not_allowed() -> Reply {
    failure(405, "Method not supported", "Method not supported")
}

fn refusal(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::InvalidTable(name) => failure(400, &format!("Invalid table {name}"), ""),
        Refusal::Unreadable(detail) => failure(400, "Bad Request", &detail),
        Refusal::NotFound => {
            failure(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")
        }
        Refusal::Forbidden(detail) => failure(403, "Operation Failed", &detail),
        Refusal::Full(bound) => {
            failure(507, "Insufficient storage", &format!("this stand-in's bound on {bound} is reached"))
        }
    }
}
