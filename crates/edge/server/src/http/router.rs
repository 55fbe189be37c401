//! The router is the table: each row of each domain becomes one route, and there is no other.
//!
//! A handler never decides anything. It turns HTTP into a [`act::Ctx`] and arguments, and what comes back into HTTP:
//!
//! | what came back | answer |
//! |---|---|
//! | an outcome | 200 and the outcome as JSON; byte for byte the same when it is replayed under an idempotency key |
//! | it waits for people | 202, `Location` of the approval, `{"status":"waiting",…}` |
//! | a read's value | 200 as JSON; a text as `text/plain`; of one record with its `ETag`, or 304 |
//! | a record that is no longer as the caller has seen it | 412 |
//! | a refusal | [`super::problem`] |
//!
//! Everything that was created is named in the outcome, so 200 is the one success of acts; 201 would say less than the
//! body does.

use super::etag::{self, Tags};
use super::identify::{Presented, idempotency_key};
use super::input;
use super::problem::{Problem, Refusal};
use super::rate::Standing;
use super::refused::{Asker, Source};
use super::request_id::RequestId;
use super::{App, cursor, refuse, stream};
use crate::tasks::TaskError;
use access::rights::{Reach, reach};
use act::{Auth, Call, Class, Ctx, Fault, Method, QueryCtx, Receive, Route};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use harness::{Done, Matching, Terms};
use kernel::{Id, TenantId};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::crash;
use tracing::Instrument as _;

/// A row as it is served.
struct Row {
    route: Route,
    /// Whether it reads one record.
    tagged: bool,
    /// The read of the record that its path names, for an act.
    record: Option<Route>,
}

/// What becomes known of a caller on the way, and is wanted also where the way ends early.
struct Seen {
    asker: Asker,
    standing: Option<Standing>,
}

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
        let (tagged, record) = (etag::tagged(route), etag::record_of(&app.house.domains, route).cloned());
        let (app, row) = (app.clone(), Arc::new(Row { route: route.clone(), tagged, record }));
        router.route(route.path, on(filter, move |request| handle(app.clone(), row.clone(), request)))
    });
    mounted
        .fallback(|| async { refuse(Refusal::Route.because("no route has this path")) })
        .method_not_allowed_fallback(|| async {
            refuse(Refusal::Method.because("the route does not have this method"))
        })
}

async fn handle(app: Arc<App>, row: Arc<Row>, request: Request) -> Response {
    let span = tracing::Span::current();
    span.record("http.route", row.route.path);
    span.record("otel.name", format!("{} {}", super::method_name(request.method()), row.route.path));
    let mut seen = Seen { asker: Asker::stranger(), standing: None };
    let mut response = match carry_out(&app, &row, request, &mut seen).await {
        Ok(response) => response,
        Err(problem) => refuse(problem),
    };
    response.extensions_mut().insert(seen.asker);
    if let Some(standing) = seen.standing {
        response.extensions_mut().insert(standing);
    }
    response
}

/// Takes one request out of a caller's bucket.
fn within_rate(app: &App, principal: &Id, seen: &mut Seen) -> Result<(), Problem> {
    let standing = app.rates.take(principal, app.house.harness.clock().monotonic_us());
    seen.standing = Some(standing);
    let Some(wait_ms) = standing.wait_ms else { return Ok(()) };
    let mut problem = Refusal::Rate.because("you have sent more requests than you may in a minute");
    problem.fault.retry_after_ms = Some(wait_ms);
    Err(problem)
}

async fn carry_out(
    app: &Arc<App>,
    row: &Row,
    request: Request,
    seen: &mut Seen,
) -> Result<Response, Problem> {
    let route = &row.route;
    let (mut parts, body) = request.into_parts();
    // Put there by `answer`, which every request passes.
    let id = parts.extensions.get::<RequestId>().cloned();
    let id = id.ok_or_else(|| act::internal("a request has no id"))?;
    let path = input::path(&mut parts).await;
    match (&route.call, route.auth) {
        (Call::Receive(receive), _) => {
            seen.asker.source = Source::Signature;
            input::query(parts.uri.query(), route.query)?;
            receive_one(app, &id, receive, &parts, path, body, seen).await
        }
        (Call::Query(_, query), Auth::Public) => {
            input::bodiless(&parts.headers)?;
            let params = joined(path, input::query(parts.uri.query(), route.query)?);
            let mut nobody =
                app.house.harness.service("edge", &TenantId::platform(), Vec::new(), &id.trace.text());
            nobody.principal.roles.clear();
            let (value, _) = read(app, &nobody, query, &params).await?;
            Ok(shown(&value))
        }
        // Whatever else a row says, it needs a principal.
        (call, _) => {
            let presented = Presented::read(&parts.headers)?;
            let ctx = presented.identify(app, &id).await?;
            seen.asker = Asker { tenant: ctx.tenant.clone(), source: Source::Key };
            within_rate(app, &ctx.principal.id, seen)?;
            let params = joined(path, input::query(parts.uri.query(), route.query)?);
            match call {
                Call::Verb(act) => {
                    if *act != evidence::epoch::OPEN {
                        app.house.gate.pass()?;
                    }
                    let ctx = Ctx { idempotency_key: idempotency_key(&parts.headers)?, ..ctx };
                    let seen = etag::if_match(&parts.headers, row.record.is_some())?;
                    // An act that takes more than most says so in its row.
                    let most = app.house.harness.args_bytes_max(act);
                    let more = if most > act::ARGS_BYTES_MAX { most } else { 0 };
                    let body = bytes(app, &parts.headers, body, more).await?;
                    let condition = match (seen, &row.record) {
                        (Some(tags), Some(record)) => {
                            Some(Condition::of(app, &ctx, record, &params, &tags).await?)
                        }
                        _ => None,
                    };
                    let args = input::arguments(&parts.headers, &body, params)?;
                    act_on(app, ctx, act, args, condition).await
                }
                Call::Query(permission, query) => {
                    input::bodiless(&parts.headers)?;
                    let seen = etag::if_none_match(&parts.headers)?.filter(|_| row.tagged);
                    readable(&ctx, permission)?;
                    let params = cursor::opened(&ctx.tenant, route, params)?;
                    let (value, first) = read(app, &ctx, query, &params).await?;
                    let value = cursor::sealed(&ctx.tenant, route, &params, value);
                    let mut response = shown(&value);
                    if let Some(first) = first.filter(|_| row.tagged) {
                        let tag = etag::tag(first.rev, value.to_string().as_bytes());
                        if seen.is_some_and(|seen| seen.has(&tag)) {
                            response = Response::new(Body::empty());
                            *response.status_mut() = StatusCode::NOT_MODIFIED;
                        }
                        if let Ok(tag) = HeaderValue::from_str(&tag) {
                            response.headers_mut().insert(ETAG, tag);
                        }
                    }
                    Ok(response)
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
    match reach(&ctx.principal, permission) {
        // What is not theirs the read itself leaves out.
        Reach::All | Reach::Projects(_) => Ok(()),
        Reach::None => {
            Err(Fault::new(Class::Denied, "access.read_denied", "none of your roles may read this"))
        }
    }
}

/// A read's value, and the record that it looked at first.
async fn read(
    app: &App,
    ctx: &Ctx,
    query: &act::Query,
    params: &input::Params,
) -> Result<(Value, Option<store::Read>), Fault> {
    let view = app.house.store.view(&ctx.tenant, ctx.requested_at_ms);
    let value = query(QueryCtx { ctx, view: &view, params }).await?;
    Ok((value, view.first()))
}

fn shown(value: &Value) -> Response {
    match value {
        Value::String(text) => with_type(Body::from(text.clone()), "text/plain; charset=utf-8"),
        value => as_json(value),
    }
}

/// An act's condition: the record that its path names, as the read of it finds it, and what the caller has seen.
struct Condition {
    matching: Matching,
    /// The record's present tag, for the answer to who has seen another.
    tag: String,
}

impl Condition {
    /// Who names a state has to be allowed to look at it, so this is a read like any other. It decides nothing: what is
    /// compared is what the commit finds.
    async fn of(
        app: &App,
        ctx: &Ctx,
        record: &Route,
        params: &input::Params,
        tags: &Tags,
    ) -> Result<Condition, Problem> {
        let Call::Query(permission, query) = &record.call else {
            return Err(act::internal("a record is read by something else than a query").into());
        };
        readable(ctx, permission)?;
        let (value, first) = read(app, ctx, query, params).await?;
        let first = first.ok_or_else(|| act::internal(format!("{} reads no record", record.operation)))?;
        let tag = etag::tag(first.rev, value.to_string().as_bytes());
        Ok(Condition { matching: Matching { kind: first.kind, id: first.id, revs: tags.revs() }, tag })
    }
}

async fn receive_one(
    app: &Arc<App>,
    id: &RequestId,
    receive: &Receive,
    parts: &Parts,
    path: input::Params,
    body: Body,
    seen: &mut Seen,
) -> Result<Response, Problem> {
    let mut headers = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        let value = value
            .to_str()
            .map_err(|_| Refusal::Header.because(format!("the header {name} is not visible ASCII")))?;
        headers.push((name.as_str().to_owned(), value.to_owned()));
    }
    app.house.gate.pass()?;
    let body = bytes(app, &parts.headers, body, 0).await?;
    let delivery = receive(&path, &headers, &body).await?;
    seen.asker.tenant = delivery.ctx.tenant.clone();
    within_rate(app, &delivery.ctx.principal.id, seen)?;
    let ctx = Ctx { trace: id.trace.text(), ..delivery.ctx };
    crash::point("webhook.received");
    let answer = act_on(app, ctx, delivery.act, delivery.args, None).await?;
    crash::point("webhook.recorded");
    Ok(answer)
}

/// Carries out an act to its end, even if the caller hangs up.
async fn act_on(
    app: &Arc<App>,
    ctx: Ctx,
    act: &'static str,
    args: Value,
    condition: Option<Condition>,
) -> Result<Response, Problem> {
    let (harness, house) = (app.house.harness.clone(), app.house.clone());
    let (matching, tag) = condition.map(|condition| (condition.matching, condition.tag)).unzip();
    let work = async move {
        let done = harness.act(&ctx, act, args, Terms { matching, ..Terms::default() }).await;
        if act == evidence::epoch::OPEN {
            // Whoever opened it finds everything open when they are answered; and what was answered with an error may have
            // happened all the same.
            crate::rounds::settle(&house).await;
        }
        Ok::<Response, Fault>(match done? {
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
    match app.acts.run(work.in_current_span()).await {
        Ok(Err(fault)) if fault.code == harness::PRECONDITION => Err(Problem::precondition(fault, tag)),
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
