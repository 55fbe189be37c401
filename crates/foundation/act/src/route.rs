//! A row of the API: how an act or a read is reached over HTTP.
//!
//! A domain writes its table with one constructor a row, named by what the row does:
//!
//! ```text
//! Route::post("/v1/webhooks", "webhook_create", "Send the tenant's facts to an address", "notify.webhook.create"),
//! Route::get("/v1/webhooks", "webhook_list", "List the tenant's webhooks", READ, |query| list(query).boxed())
//!     .taking(&page::PARAMS),
//! ```
//!
//! What changes something names a verb and what reads names a permission; there is no third way, so that a row cannot
//! be written which acts without being decided. The rows are also the contract: OpenAPI and the command line are made
//! of them, so `operation` (noun first) becomes `writ webhook create` and `summary` its help.

use crate::{Ctx, Fault};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::View;

/// HTTP methods that routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Acts, or creates.
    Post,
    /// Replaces.
    Put,
    /// Removes.
    Delete,
}

/// Who may call a route at all, before policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// An identified principal.
    Principal,
    /// Anybody: health and the public description. Only reads that hold no tenant's data.
    Public,
    /// A sender that signs its raw body; the route's call verifies it.
    Signature,
}

/// What a read is given.
pub struct QueryCtx<'a> {
    /// Who asks.
    pub ctx: &'a Ctx,
    /// The tenant's records.
    pub view: &'a View,
    /// Path and query parameters, already checked against the route's declaration.
    pub params: &'a BTreeMap<String, String>,
}

impl QueryCtx<'_> {
    /// A parameter, if given.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    /// A path parameter that is an id of a thing named `what`; anything else is not found.
    pub fn id(&self, name: &str, what: &str) -> Result<kernel::Id, Fault> {
        self.param(name).and_then(|text| kernel::Id::parse(text).ok()).ok_or_else(|| Fault::not_found(what))
    }
}

/// A read.
pub type Query = Arc<dyn for<'a> Fn(QueryCtx<'a>) -> BoxFuture<'a, Result<Value, Fault>> + Send + Sync>;
/// Live JSON events: id, name, data. One without name and data is a mark: it says no more than that a client which comes
/// back goes on after its id.
pub type Events = BoxStream<'static, (String, String, Value)>;
/// Opens a live stream, resumed after an event id; a fault if it cannot begin where it was asked to.
pub type StreamSource =
    Arc<dyn Fn(Ctx, BTreeMap<String, String>) -> BoxFuture<'static, Result<Events, Fault>> + Send + Sync>;

/// What a route does.
#[derive(Clone)]
pub enum Call {
    /// Carries out the verb of this name; path parameters join the JSON body as arguments.
    Verb(&'static str),
    /// Reads. The text names the permission that a role must carry, `<domain>.<noun>.read`.
    Query(&'static str, Query),
    /// Streams server-sent events under the same kind of permission.
    Stream(&'static str, StreamSource),
    /// Receives a signed delivery: raw headers and body in, the verb and its arguments out.
    Receive(Receive),
}

/// Verifies a signed delivery and says which act it asks for.
pub type Receive = Arc<
    dyn for<'a> Fn(
            &'a BTreeMap<String, String>,
            &'a [(String, String)],
            &'a [u8],
        ) -> BoxFuture<'a, Result<Delivery, Fault>>
        + Send
        + Sync,
>;

/// A verified delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// On whose authority it is carried out.
    pub ctx: Ctx,
    /// The act.
    pub act: &'static str,
    /// Its arguments.
    pub args: Value,
}

/// A parameter of a route.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// Its name, as in the path template or the query string.
    pub name: &'static str,
    /// What it is, for the contract.
    pub summary: &'static str,
}

/// A row of the API.
#[derive(Clone)]
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path template, `/v1/runs/{run}/cancel`.
    pub path: &'static str,
    /// `run_cancel`: the operation id in the contract, noun first.
    pub operation: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Who may call it at all.
    pub auth: Auth,
    /// What it does.
    pub call: Call,
    /// Query parameters; path parameters are in the template.
    pub query: &'static [Param],
}

impl Route {
    fn new(
        method: Method,
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        call: Call,
    ) -> Route {
        Route { method, path, operation, summary, auth: Auth::Principal, call, query: &[] }
    }

    /// `POST`, which carries out the act of the name `act`.
    pub fn post(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        act: &'static str,
    ) -> Route {
        Route::new(Method::Post, path, operation, summary, Call::Verb(act))
    }

    /// `PUT`, which carries out the act of the name `act`.
    pub fn put(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        act: &'static str,
    ) -> Route {
        Route::new(Method::Put, path, operation, summary, Call::Verb(act))
    }

    /// `DELETE`, which carries out the act of the name `act`.
    pub fn delete(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        act: &'static str,
    ) -> Route {
        Route::new(Method::Delete, path, operation, summary, Call::Verb(act))
    }

    /// `GET`, which reads, for whoever has the permission `<domain>.<noun>.read`.
    pub fn get(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        permission: &'static str,
        query: impl for<'a> Fn(QueryCtx<'a>) -> BoxFuture<'a, Result<Value, Fault>> + Send + Sync + 'static,
    ) -> Route {
        Route::new(Method::Get, path, operation, summary, Call::Query(permission, Arc::new(query)))
    }

    /// `GET`, which reads what anybody may know: health, and the description of the API. It holds no tenant's data.
    pub fn public(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        query: impl for<'a> Fn(QueryCtx<'a>) -> BoxFuture<'a, Result<Value, Fault>> + Send + Sync + 'static,
    ) -> Route {
        let route = Route::get(path, operation, summary, "", query);
        Route { auth: Auth::Public, ..route }
    }

    /// `GET`, which goes on telling, as server-sent events.
    pub fn stream(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        permission: &'static str,
        source: StreamSource,
    ) -> Route {
        Route::new(Method::Get, path, operation, summary, Call::Stream(permission, source))
    }

    /// `POST` by a sender that signs its raw body instead of holding a key of ours.
    pub fn receive(
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        receive: Receive,
    ) -> Route {
        let route = Route::new(Method::Post, path, operation, summary, Call::Receive(receive));
        Route { auth: Auth::Signature, ..route }
    }

    /// The same, with these query parameters.
    pub fn taking(self, query: &'static [Param]) -> Route {
        Route { query, ..self }
    }
}
