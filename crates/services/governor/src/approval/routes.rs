//! The queue of waiting acts, and deciding on them.

use super::{Approval, shown};
use act::{Auth, Call, Fault, Method, Param, Route};
use futures::FutureExt as _;
use serde_json::json;
use std::sync::Arc;
use store::key::Key;
use store::{PAGE_MAX, Range};

const STATUSES: &[&str] = &["pending", "granted", "used", "denied", "expired", "void"];

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route {
            method: Method::Get,
            path: "/v1/approvals",
            operation: "approval_list",
            summary: "List approvals of one status, oldest first",
            auth: Auth::Principal,
            call: Call::Query(
                "governor.approval.read",
                Arc::new(|query| {
                    async move {
                        let status = query.param("status").unwrap_or("pending");
                        if !STATUSES.contains(&status) {
                            let message = format!("status is one of {}", STATUSES.join(", "));
                            return Err(Fault::invalid("request.invalid", message));
                        }
                        let limit = query.param("limit").map_or(Ok(PAGE_MAX), str::parse);
                        let limit = limit.map_err(|_| Fault::invalid("request.invalid", "limit is a number"))?;
                        let mut range = Range::of("status", Key::new().text(status).bytes());
                        range.limit = limit;
                        let found = query.view.list::<Approval>(range).await?;
                        Ok(json!({"items": found.iter().map(|found| shown(&found.stored)).collect::<Vec<_>>()}))
                    }
                    .boxed()
                }),
            ),
            query: &[
                Param {
                    name: "status",
                    summary: "pending (default), granted, used, denied, expired or void",
                },
                Param { name: "limit", summary: "at most so many, 200 by default" },
            ],
        },
        Route {
            method: Method::Get,
            path: "/v1/approvals/{approval}",
            operation: "approval_show",
            summary: "Show an approval with what it is about",
            auth: Auth::Principal,
            call: Call::Query(
                "governor.approval.read",
                Arc::new(|query| {
                    async move {
                        let id = query.id("approval", "approval")?;
                        let approval = query
                            .view
                            .peek::<Approval>(&id)
                            .await?
                            .ok_or_else(|| Fault::not_found("approval"))?;
                        Ok(shown(&approval))
                    }
                    .boxed()
                }),
            ),
            query: &[],
        },
        Route {
            method: Method::Post,
            path: "/v1/approvals/{approval}/grant",
            operation: "approval_grant",
            summary: "Grant a waiting act",
            auth: Auth::Principal,
            call: Call::Verb("governor.approval.grant"),
            query: &[],
        },
        Route {
            method: Method::Post,
            path: "/v1/approvals/{approval}/deny",
            operation: "approval_deny",
            summary: "Deny a waiting act",
            auth: Auth::Principal,
            call: Call::Verb("governor.approval.deny"),
            query: &[],
        },
    ]
}
