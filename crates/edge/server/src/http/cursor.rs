//! Cursors as callers see them: a place in a list, and whose list it is.
//!
//! A list says where its next page begins, and the caller brings that back. A place alone would be taken anywhere: the
//! cursor of another tenant, or of the list of workflows given to the list of runs, would silently begin somewhere in the
//! middle, and what comes before it would look as if it were not there. So a cursor carries a tag over the tenant, the
//! route and every other parameter of the list that it was given out for, and is refused by every other list.
//!
//! The tag is no signature and need be none: whoever makes one up arrives at a place of their own list, where
//! they could have gone page by page. What may be seen is decided by the read itself, as always.
//!
//! It works on the table: a query that takes `after` or `before` gets its cursors sealed, whatever stands in them. A new list has
//! nothing to do for it.

use super::input::Params;
use act::{Fault, Route};
use kernel::{TenantId, hex, sha256};
use serde_json::Value;

/// The parameters that bring a cursor back, of which a list has one.
const PLACES: [&str; 2] = ["after", "before"];
/// The parameter that may change from page to page.
const LIMIT: &str = "limit";
/// The member of a page that gives one out.
const NEXT: &str = "next";
/// Bytes of the tag: enough that no two lists have one by accident.
const TAG_BYTES: usize = 8;

/// The parameter that brings back what the route gives out, if it is a list.
fn paged(route: &Route) -> Option<&'static str> {
    PLACES.into_iter().find(|name| route.query.iter().any(|param| param.name == *name))
}

/// The tag of a place in one tenant's list.
fn tag(tenant: &TenantId, route: &Route, params: &Params, place: &str) -> String {
    let mut named = vec![tenant.as_str(), route.operation, place];
    for (name, value) in params.iter().filter(|(name, _)| !PLACES.contains(&name.as_str()) && *name != LIMIT)
    {
        named.extend([name.as_str(), value.as_str()]);
    }
    // Lengths first, so that no two lists of texts are the same bytes.
    let lengths: String = named.iter().map(|text| format!("{},", text.len())).collect();
    hex::encode(&sha256(format!("writ cursor\n{lengths}\n{}", named.concat()).as_bytes())[..TAG_BYTES])
}

/// Takes the tag off the cursor that a caller brings.
///
/// # Errors
/// `request.invalid` if this list of this tenant did not give it out.
pub(super) fn opened(tenant: &TenantId, route: &Route, mut params: Params) -> Result<Params, Fault> {
    if let Some(name) = paged(route)
        && let Some(cursor) = params.get(name)
    {
        let place = cursor
            .rsplit_once('.')
            .filter(|(place, brought)| *brought == tag(tenant, route, &params, place))
            .map(|(place, _)| place.to_owned())
            .ok_or_else(|| Fault::invalid("request.invalid", format!("{name} is no cursor of this list")))?;
        params.insert(name.to_owned(), place);
    }
    Ok(params)
}

/// Puts the tag onto the cursor that a page gives out.
pub(super) fn sealed(tenant: &TenantId, route: &Route, params: &Params, mut page: Value) -> Value {
    if paged(route).is_some()
        && let Some(Value::String(place)) = page.get_mut(NEXT)
    {
        place.push('.');
        let tag = tag(tenant, route, params, &place[..place.len() - 1]);
        place.push_str(&tag);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use act::{Auth, Call, Method, Param};
    use futures::FutureExt as _;
    use serde_json::json;
    use std::sync::Arc;

    fn route(operation: &'static str, query: &'static [Param]) -> Route {
        let read: act::Query = Arc::new(|_| async { Ok(json!({})) }.boxed());
        Route {
            method: Method::Get,
            path: "/v1/runs",
            operation,
            summary: "",
            auth: Auth::Principal,
            call: Call::Query("flows.run.read", read),
            query,
        }
    }

    fn params(rows: &[(&str, &str)]) -> Params {
        rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn b05_a_cursor_leads_back_into_its_own_list_alone() {
        const PAGED: &[Param] = &act::page::PARAMS;
        let (a, b) = (TenantId::parse("ten_a").unwrap(), TenantId::parse("ten_b").unwrap());
        let runs = route("run_list", PAGED);
        let dead = params(&[("state", "dead"), ("limit", "2")]);
        let page = sealed(&a, &runs, &dead, json!({"items": [], "next": "61.run_1"}));
        let next = page["next"].as_str().unwrap();
        let brought = |rows: &[(&str, &str)]| params(&[rows, &[("after", next)]].concat());
        let same = opened(&a, &runs, brought(&[("state", "dead"), ("limit", "7")])).unwrap();
        assert_eq!(same["after"], "61.run_1");
        for (what, tenant, route, params) in [
            ("another tenant's", &b, &runs, brought(&[("state", "dead")])),
            ("another list's", &a, &route("workflow_list", PAGED), brought(&[("state", "dead")])),
            ("another filter's", &a, &runs, brought(&[("state", "live")])),
            ("that of no filter", &a, &runs, brought(&[])),
            ("a place without a tag", &a, &runs, params(&[("state", "dead"), ("after", "61.run_1")])),
            ("a moved place", &a, &runs, params(&[("state", "dead"), ("after", &next.replace("61", "62"))])),
            ("nothing", &a, &runs, params(&[("state", "dead"), ("after", "")])),
        ] {
            assert_eq!(opened(tenant, route, params).unwrap_err().code, "request.invalid", "{what}");
        }
        // A route without pages is left as it is.
        let plain = route("run_show", &[]);
        let page = json!({"next": "classify"});
        assert_eq!(sealed(&a, &plain, &params(&[]), page.clone()), page);
        assert_eq!(sealed(&a, &runs, &dead, json!({"next": null})), json!({"next": null}));
    }
}
