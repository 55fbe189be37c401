//! The queue of waiting acts, and the routes to decide on them.
//!
//! People ask three things of a queue: what waits, what waits *for me*, and what has waited too long. The first is an
//! index. The other two are filters over it, so a page is read until it is full or [`SCAN_ROWS_MAX`] rows have been looked
//! at; then it ends early, and its cursor goes on from there. Nothing is passed over silently.

use super::separation::say_check;
use super::{Approval, Rules, shown};
use crate::Governor;
use crate::delegation;
use act::{Ctx, Fault, Param, QueryCtx, Route, page};
use futures::FutureExt as _;
use kernel::Id;
use serde_json::{Value, json};
use store::PAGE_MAX;
use store::key::Key;

/// Most rows that one page looks at.
const SCAN_ROWS_MAX: usize = 5 * PAGE_MAX;
/// Most delegations to one person that are looked at.
const DELEGATIONS_MAX: usize = 20;
const STATUSES: &[&str] = &["pending", "granted", "used", "denied", "expired", "void"];

/// What is asked for.
struct Filter {
    mine: bool,
    tier: Option<u8>,
    asked_by_ms: Option<i64>,
}

/// What the one who asks may decide with: their own tier, and those of people who are absent.
struct Hand {
    ctx: Ctx,
    /// In the whole tenant.
    own: Option<u8>,
    /// In projects.
    there: Vec<(Id, u8)>,
    delegated: Vec<(Id, u8)>,
}

impl Hand {
    async fn of(query: &QueryCtx<'_>, rules: &Rules) -> Result<Hand, Fault> {
        let ctx = query.ctx.clone();
        let own = rules.tier(&ctx.principal.roles);
        let there = ctx.principal.rights.projects.iter();
        let there = there
            .filter_map(|(project, role)| Some((project.clone(), rules.tier(std::slice::from_ref(role))?)));
        let there = there.collect();
        let mut delegated = Vec::new();
        if rules.delegate_tier_min.is_some_and(|least| own >= Some(least)) {
            let given = delegation::held_by(query.view, &ctx.principal.id, ctx.requested_at_ms).await?;
            for given in given.into_iter().take(DELEGATIONS_MAX) {
                let roles = delegation::roles_of(query.view, &given.from).await?;
                if let Some(tier) = roles.and_then(|roles| rules.tier(&roles)) {
                    delegated.push((given.from, tier));
                }
            }
        }
        Ok(Hand { ctx, own, there, delegated })
    }

    /// Whether a grant by this person would count now, as far as tiers and separation of duties go.
    fn may_grant(&self, approval: &Approval) -> bool {
        let now_ms = self.ctx.requested_at_ms;
        let fresh =
            |person: &Id| approval.grants.iter().all(|grant| grant.people().all(|other| other != person));
        let high = |tier: Option<u8>| tier.is_some_and(|tier| tier >= approval.tier);
        let there = self.there.iter().filter(|(project, _)| Some(project) == approval.project.as_ref());
        let own = self.own.max(there.map(|(_, tier)| *tier).max());
        fresh(&self.ctx.principal.id)
            && (high(own) && say_check(approval, &self.ctx, None, now_ms).is_ok()
                || self.delegated.iter().any(|(absent, tier)| {
                    high(Some(*tier))
                        && fresh(absent)
                        && say_check(approval, &self.ctx, Some(absent), now_ms).is_ok()
                }))
    }
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::invalid("request.invalid", message)
}

fn number<T: std::str::FromStr>(query: &QueryCtx<'_>, name: &str) -> Result<Option<T>, Fault> {
    query.param(name).map(|text| text.parse().map_err(|_| invalid(format!("{name} is a number")))).transpose()
}

async fn list(query: QueryCtx<'_>, rules: &Rules) -> Result<Value, Fault> {
    let status = query.param("status").unwrap_or("pending");
    if !STATUSES.contains(&status) {
        return Err(invalid(format!("status is one of {}", STATUSES.join(", "))));
    }
    let now_ms = query.ctx.requested_at_ms;
    let filter = Filter {
        mine: match query.param("mine") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(invalid("mine is true or false")),
        },
        tier: number(&query, "tier")?,
        asked_by_ms: number::<i64>(&query, "older_than_ms")?.map(|age_ms| now_ms.saturating_sub(age_ms)),
    };
    let mut range = page::range(&query, "status", Key::new().text(status).bytes(), false)?;
    // Of what is looked at, little may be asked for: as many as a page can look at.
    let limit = std::mem::replace(&mut range.limit, PAGE_MAX);
    let hand = Hand::of(&query, rules).await?;
    let (mut items, mut looked_at) = (Vec::new(), 0);
    loop {
        let found = query.view.list::<Approval>(range.clone()).await?;
        let last_page = found.len() < PAGE_MAX;
        for found in found {
            let approval = &found.stored.doc;
            // In order of age: whatever follows is younger still.
            if filter.asked_by_ms.is_some_and(|at_ms| approval.requested_at_ms > at_ms) {
                return Ok(json!({"items": items, "next": null}));
            }
            looked_at += 1;
            let mine = hand.may_grant(approval);
            if (!filter.mine || mine) && filter.tier.is_none_or(|tier| approval.tier == tier) {
                let mut item = shown(approval, rules, now_ms);
                item["mine"] = json!(mine);
                items.push(item);
            }
            if items.len() == limit || looked_at == SCAN_ROWS_MAX {
                let next = page::encode(&found.key, &approval.id);
                return Ok(json!({"items": items, "next": next}));
            }
            range.after = Some((found.key, approval.id.clone()));
        }
        if last_page {
            return Ok(json!({"items": items, "next": null}));
        }
    }
}

/// The routes.
pub fn routes(governor: &Governor) -> Vec<Route> {
    let (lists, shows) = (governor.clone(), governor.clone());
    vec![
        Route::get(
            "/v1/approvals",
            "approval_list",
            "List approvals of one status, oldest first",
            "governor.approval.read",
            move |query| {
                let rules = lists.approval_rules();
                async move { list(query, &rules).await }.boxed()
            },
        )
        .taking(&[
            Param { name: "status", summary: "pending (default), granted, used, denied, expired or void" },
            Param { name: "mine", summary: "true: only those that you may grant now" },
            Param { name: "tier", summary: "only those that need approvers of this tier" },
            Param { name: "older_than_ms", summary: "only those that were asked for at least so long ago" },
            page::AFTER,
            page::LIMIT,
        ]),
        Route::get(
            "/v1/approvals/{approval}",
            "approval_show",
            "Show an approval with what it is about",
            "governor.approval.read",
            move |query| {
                let rules = shows.approval_rules();
                async move {
                    let id = query.id("approval", "approval")?;
                    let approval = query
                        .view
                        .peek::<Approval>(&id)
                        .await?
                        .ok_or_else(|| Fault::not_found("approval"))?;
                    let mut value = shown(&approval, &rules, query.ctx.requested_at_ms);
                    value["mine"] = json!(Hand::of(&query, &rules).await?.may_grant(&approval));
                    Ok(value)
                }
                .boxed()
            },
        ),
        Route::post(
            "/v1/approvals/{approval}/grant",
            "approval_grant",
            "Grant a waiting act",
            "governor.approval.grant",
        ),
        Route::post(
            "/v1/approvals/{approval}/deny",
            "approval_deny",
            "Deny a waiting act",
            "governor.approval.deny",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{approval, ctx, id};
    use super::super::{GrantedBy, Status};
    use super::*;
    use act::PrincipalKind;

    #[test]
    fn what_waits_for_me() {
        let hand = |name: &str, own, delegated: &[(&str, u8)]| Hand {
            ctx: ctx(name, PrincipalKind::Person, &[]),
            own,
            there: Vec::new(),
            delegated: delegated.iter().map(|(name, tier)| (id(name), *tier)).collect(),
        };
        let high = Approval { tier: 2, ..approval() };
        let in_project = |name: &str| Approval { project: Some(id(name)), ..approval() };
        let there = Hand { there: vec![(id("prj_desk"), 1)], ..hand("prn_eve", None, &[]) };
        assert!(there.may_grant(&in_project("prj_desk")));
        assert!(!there.may_grant(&in_project("prj_other")) && !there.may_grant(&approval()));
        let mut by_bob = high.clone();
        by_bob.grants.push(GrantedBy {
            approver: id("prn_bob"),
            tier: 2,
            at_ms: 1,
            delegator: None,
            delegation: None,
        });
        for (name, hand, approval, mine) in [
            ("an approver", hand("prn_eve", Some(1), &[]), approval(), true),
            ("nobody's tier", hand("prn_eve", None, &[]), approval(), false),
            ("too low", hand("prn_eve", Some(1), &[]), high.clone(), false),
            ("for somebody absent", hand("prn_eve", Some(1), &[("prn_bob", 2)]), high.clone(), true),
            ("for the requester", hand("prn_eve", Some(1), &[("prn_ann", 2)]), high, false),
            ("who has granted already", hand("prn_eve", Some(1), &[("prn_bob", 2)]), by_bob.clone(), false),
            ("again", hand("prn_bob", Some(2), &[]), by_bob, false),
            ("one's own", hand("prn_ann", Some(2), &[]), approval(), false),
            (
                "decided",
                hand("prn_eve", Some(2), &[]),
                Approval { status: Status::Denied, ..approval() },
                false,
            ),
        ] {
            assert_eq!(hand.may_grant(&approval), mine, "{name}");
        }
    }
}
