//! What policy says about an act: an effect and obligations, and how two verdicts become one.
//!
//! Several policies speak about one act: the platform's, then the tenant's. Their verdicts are merged, and the
//! merge can only ever make the outcome stricter: the stronger effect wins, route targets intersect, the higher
//! approver tier and the larger number of approvers win, the lower throttle wins, the reasons of the stricter verdict stay. The merge is
//! commutative, associative and idempotent (a property test says so), so the order of bundles decides nothing.
//!
//! No verdict at all is [`Verdict::deny`]: an undefined, slow, stale or panicking policy has said no.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What happens to the act, from mildest to strictest; the derived order is the precedence
/// DENY > STEP_UP > HITL > THROTTLE > ROUTE > ALLOW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Effect {
    /// The act may go ahead.
    Allow,
    /// It may go ahead, to one of the routes named.
    Route,
    /// It may go ahead within a rate.
    Throttle,
    /// A person has to approve it first.
    Hitl,
    /// The caller has to prove who they are again, more strongly.
    StepUp,
    /// It may not happen.
    Deny,
}

impl Effect {
    /// The spelling in facts, policies and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Allow => "ALLOW",
            Effect::Route => "ROUTE",
            Effect::Throttle => "THROTTLE",
            Effect::Hitl => "HITL",
            Effect::StepUp => "STEP_UP",
            Effect::Deny => "DENY",
        }
    }
}

/// What has to hold while the act goes ahead. The default asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Obligations {
    /// Where the act may go; `None` means anywhere. An empty set is a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<BTreeSet<String>>,
    /// The least tier an approver must have (0 = any approver).
    pub approver_tier: u8,
    /// How many different people must approve; meaningful from 1 on when the effect is HITL.
    pub approvals: u8,
    /// Most acts of this kind per principal and minute; `None` means unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
}

/// One policy's answer, or the merged answer of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The effect.
    pub effect: Effect,
    /// The obligations.
    pub obligations: Obligations,
    /// Stable reason codes, sorted and unique, such as `connector.write_outside_allowlist`.
    pub reasons: BTreeSet<String>,
}

impl Verdict {
    /// A verdict of `effect` with no obligations.
    pub fn of(effect: Effect, reason: &str) -> Verdict {
        Verdict { effect, obligations: Obligations::default(), reasons: BTreeSet::from([reason.to_owned()]) }
    }

    /// The answer of a policy that gave none.
    pub fn deny(reason: &str) -> Verdict {
        Verdict::of(Effect::Deny, reason)
    }

    /// Merges two verdicts into one that is at least as strict as each. Its reasons are those of the stricter one, or of
    /// both if they are alike: what an act would have been allowed on is no reason for its denial.
    pub fn merge(self, other: Verdict) -> Verdict {
        let (a_effect, b_effect) = (self.effect, other.effect);
        let (a_reasons, b_reasons) = (self.reasons, other.reasons);
        let (a, b) = (self.obligations, other.obligations);
        let routes = match (a.routes, b.routes) {
            (None, routes) | (routes, None) => routes,
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
        };
        let no_route = routes.as_ref().is_some_and(BTreeSet::is_empty);
        let effect = if no_route { Effect::Deny } else { a_effect.max(b_effect) };
        let mut reasons = BTreeSet::new();
        if no_route {
            reasons.insert("policy.no_route_left".to_owned());
        }
        for (of, its) in [(a_effect, a_reasons), (b_effect, b_reasons)] {
            if of == effect {
                reasons.extend(its);
            }
        }
        let per_minute = match (a.per_minute, b.per_minute) {
            (None, rate) | (rate, None) => rate,
            (Some(a), Some(b)) => Some(a.min(b)),
        };
        Verdict {
            effect,
            reasons,
            obligations: Obligations {
                routes,
                per_minute,
                approver_tier: a.approver_tier.max(b.approver_tier),
                approvals: a.approvals.max(b.approvals),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn effect() -> impl Strategy<Value = Effect> {
        prop::sample::select(vec![
            Effect::Allow,
            Effect::Route,
            Effect::Throttle,
            Effect::Hitl,
            Effect::StepUp,
            Effect::Deny,
        ])
    }

    prop_compose! {
        fn verdict()(
            effect in effect(),
            routes in prop::option::of(prop::collection::btree_set("[a-c]", 1..3)),
            approver_tier in 0u8..4, approvals in 0u8..3,
            per_minute in prop::option::of(0u32..5),
            reasons in prop::collection::btree_set("[x-z]", 0..3),
        ) -> Verdict {
            Verdict { effect, reasons, obligations: Obligations { routes, approver_tier, approvals, per_minute } }
        }
    }

    proptest! {
        #[test]
        fn order_of_policies_decides_nothing(a in verdict(), b in verdict(), c in verdict()) {
            prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
        }

        #[test]
        fn a_merge_is_never_milder(a in verdict(), b in verdict()) {
            let merged = a.clone().merge(b.clone());
            prop_assert!(merged.effect >= a.effect && merged.effect >= b.effect);
            prop_assert!(merged.obligations.approver_tier >= a.obligations.approver_tier);
            prop_assert!(merged.obligations.approvals >= b.obligations.approvals);
            if let Some(rate) = a.obligations.per_minute {
                prop_assert!(merged.obligations.per_minute.is_some_and(|merged| merged <= rate));
            }
            if let Some(routes) = &a.obligations.routes {
                prop_assert!(merged.obligations.routes.is_some_and(|merged| merged.is_subset(routes)));
            }
        }
    }

    #[test]
    fn disjoint_routes_deny() {
        let to = |route: &str| Verdict {
            effect: Effect::Route,
            obligations: Obligations { routes: Some(BTreeSet::from([route.into()])), ..Default::default() },
            reasons: BTreeSet::new(),
        };
        assert_eq!(to("eu").merge(to("us")).effect, Effect::Deny);
        assert_eq!(to("eu").merge(to("eu")).effect, Effect::Route);
    }
}
