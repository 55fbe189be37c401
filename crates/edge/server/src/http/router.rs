//! The router is the table: each row of each domain becomes one route, and there is no other.
//!
//! A handler never decides anything. It turns HTTP into a [`act::Ctx`] and arguments, and what comes back into HTTP:
//!
//! | what came back | answer |
//! |---|---|
//! | an outcome | 200 and the outcome as JSON; byte for byte the same when it is replayed under an idempotency key |
//! | it waits for people | 202, `Location` of the approval, `{"status":"waiting",…}` |
//! | a read's value | 200 as JSON; a text as `text/plain` |
//! | a refusal | [`super::problem`] |
//!
//! Everything that was created is named in the outcome, so 200 is the one success of acts; 201 would say less than the
//! body does.

use super::identify::{Presented, idempotency_key};
use super::input;
use super::problem::{Problem, Refusal};
use super::refused::{Asker, Source};
use super::{App, RequestId, refuse, stream};
use crate::tasks::TaskError;
use access::reads::may_read;
use act::{Auth, Call, Class, Ctx, Fault, Method, QueryCtx, Receive, Route};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use harness::{Done, Terms};
use kernel::TenantId;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::crash;

/// Mounts every route of every domain.
pub fn mount(app: &Arc<App>) -> Router {
    let routes = app.house.domains.iter().flat_map(|domain| &domain.routes);
    let mounted = routes.fold(Router::new(), |router, route| {
        let filter = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let (app, row) = (app.clone(), Arc::new(route.clone()));
        router.route(route.path, on(filter, move |request| handle(app.clone(), row.clone(), request)))
    });
    mounted
        .fallback(|| async { refuse(Refusal::Route.because("no route has this path")) })
        .method_not_allowed_fallback(|| async {
            refuse(Refusal::Method.because("the route does not have this method"))
        })
}

async fn handle(app: Arc<App>, route: Arc<Route>, request: Request) -> Response {
    let mut asker = Asker::stranger();
    let mut response = match carry_out(&app, &route, request, &mut asker).await {
        Ok(response) => response,
        Err(problem) => refuse(problem),
    };
    response.extensions_mut().insert(asker);
    response
}

async fn carry_out(
    app: &Arc<App>,
    route: &Route,
    request: Request,
    asker: &mut Asker,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    // Put there by `answer`, which every request passes.
    let id = parts.extensions.get::<RequestId>().cloned().unwrap_or_else(|| RequestId("req_unknown".into()));
    let path = input::path(&mut parts).await;
    match (&route.call, route.auth) {
        (Call::Receive(receive), _) => {
            asker.source = Source::Signature;
            input::query(parts.uri.query(), route.query)?;
            receive_one(app, &id, receive, &parts, path, body, asker).await
        }
        (Call::Query(_, query), Auth::Public) => {
            input::bodiless(&parts.headers)?;
            let params = joined(path, input::query(parts.uri.query(), route.query)?);
            let mut nobody = app.house.harness.service("edge", &TenantId::platform(), Vec::new(), &id.0);
            nobody.principal.roles.clear();
            read(app, &nobody, query, &params).await
        }
        // Whatever else a row says, it needs a principal.
        (call, _) => {
            let presented = Presented::read(&parts.headers)?;
            let ctx = presented.identify(app, &id).await?;
            *asker = Asker { tenant: ctx.tenant.clone(), source: Source::Key };
            let params = joined(path, input::query(parts.uri.query(), route.query)?);
            match call {
                Call::Verb(act) => {
                    let ctx = Ctx { idempotency_key: idempotency_key(&parts.headers)?, ..ctx };
                    // An act that takes more than most says so in its row.
                    let most = app.house.harness.args_bytes_max(act);
                    let more = if most > act::ARGS_BYTES_MAX { most } else { 0 };
                    let body = bytes(app, &parts.headers, body, more).await?;
                    let args = input::arguments(&parts.headers, &body, params)?;
                    act_on(app, ctx, act, args).await
                }
                Call::Query(permission, query) => {
                    input::bodiless(&parts.headers)?;
                    readable(&ctx, permission)?;
                    read(app, &ctx, query, &params).await
                }
                Call::Stream(permission, source) => {
                    input::bodiless(&parts.headers)?;
                    readable(&ctx, permission)?;
                    let params = stream::resumed(&parts.headers, params)?;
                    let events = source(ctx, params).await?;
                    stream::open(app, &id, presented, permission, events)
                }
                Call::Receive(_) => Err(act::internal("a delivery was taken for a call").into()),
            }
        }
    }
}

fn joined(mut path: input::Params, query: input::Params) -> input::Params {
    path.extend(query);
    path
}

/// A body of at most the configured size, or of `more` bytes where that is more.
async fn bytes(app: &App, headers: &HeaderMap, body: Body, more: usize) -> Result<bytes::Bytes, Problem> {
    let limits = &app.house.config.limits;
    input::body(headers, body, limits.body_bytes.max(more), Duration::from_millis(limits.body_read_ms)).await
}

/// Whether the caller may read under `permission`.
pub fn readable(ctx: &Ctx, permission: &str) -> Result<(), Fault> {
    if may_read(&ctx.principal.roles, permission) {
        Ok(())
    } else {
        Err(Fault::new(Class::Denied, "access.read_denied", "none of your roles may read this"))
    }
}

async fn read(app: &App, ctx: &Ctx, query: &act::Query, params: &input::Params) -> Result<Response, Problem> {
    let view = app.house.store.view(&ctx.tenant, ctx.requested_at_ms);
    let value = query(QueryCtx { ctx, view: &view, params }).await?;
    Ok(match value {
        Value::String(text) => with_type(Body::from(text), "text/plain; charset=utf-8"),
        value => as_json(&value),
    })
}

async fn receive_one(
    app: &Arc<App>,
    id: &RequestId,
    receive: &Receive,
    parts: &Parts,
    path: input::Params,
    body: Body,
    asker: &mut Asker,
) -> Result<Response, Problem> {
    let mut headers = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        let value = value
            .to_str()
            .map_err(|_| Refusal::Header.because(format!("the header {name} is not visible ASCII")))?;
        headers.push((name.as_str().to_owned(), value.to_owned()));
    }
    let body = bytes(app, &parts.headers, body, 0).await?;
    let delivery = receive(&path, &headers, &body).await?;
    asker.tenant = delivery.ctx.tenant.clone();
    let ctx = Ctx { trace: id.0.to_string(), ..delivery.ctx };
    crash::point("webhook.received");
    let answer = act_on(app, ctx, delivery.act, delivery.args).await?;
    crash::point("webhook.recorded");
    Ok(answer)
}

/// Carries out an act to its end, even if the caller hangs up.
async fn act_on(app: &Arc<App>, ctx: Ctx, act: &'static str, args: Value) -> Result<Response, Problem> {
    let harness = app.house.harness.clone();
    let work = async move {
        let done = harness.act(&ctx, act, args, Terms::default()).await?;
        Ok::<Response, Fault>(match done {
            Done::Outcome { value, replayed: _, held } => {
                harness.hand_over(held);
                as_json(&value)
            }
            Done::Waiting { approval, expires_at_ms, preview_digest } => {
                let body = json!({
                    "status": "waiting", "approval": approval, "expires_at_ms": expires_at_ms, "preview_digest": preview_digest,
                });
                let mut response = as_json(&body);
                *response.status_mut() = StatusCode::ACCEPTED;
                if let Ok(location) = HeaderValue::from_str(&format!("/v1/approvals/{approval}")) {
                    response.headers_mut().insert(LOCATION, location);
                }
                response
            }
        })
    };
    match app.acts.run(work).await {
        Ok(done) => Ok(done?),
        Err(TaskError::Full) => Err(Refusal::Overloaded.because("too many acts are under way")),
        Err(TaskError::Panicked) => Err(act::internal(format!("{act} panicked")).into()),
    }
}

fn as_json(value: &Value) -> Response {
    // A JSON value always serialises.
    with_type(Body::from(serde_json::to_vec(value).unwrap_or_default()), "application/json")
}

fn with_type(body: Body, content_type: &'static str) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
