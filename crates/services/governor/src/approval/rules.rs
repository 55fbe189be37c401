//! The tables that code and policy share: what each built-in role permits and of which tier it is, and how long people are
//! waited for.
//!
//! They stand once, in the data of the platform's bundle (`writ.config`), because two tables drift: a role that policy
//! takes for tier 2 and code for tier 1 is a grant that one of them refuses for no reason that anybody can see. The
//! governor reads them when it takes a bundle into use. Without a bundle, or where a table is malformed, nobody has a tier.

use access::rights::Table;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest time that anything here may wait, 30 days.
const TIME_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1000;
/// Shortest.
const TIME_MS_MIN: i64 = 1000;
const HOUR_MS: i64 = 60 * 60 * 1000;
/// Most roles that are read.
const ROLES_MAX: usize = 256;
/// Most acts of a role that are read.
const ACTS_MAX: usize = 1_000;

/// Who is of which tier, and the times of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Acts and tier by role.
    table: Arc<Table>,
    /// The least tier of their own that a delegate needs; `None`: nobody decides for others.
    pub delegate_tier_min: Option<u8>,
    /// After how long those who were asked are reminded.
    pub remind_ms: i64,
    /// After how long the next tier is asked as well, and the one after it after as long again.
    pub escalate_ms: i64,
    /// After how long it expires.
    pub expire_ms: i64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            table: Arc::default(),
            delegate_tier_min: None,
            remind_ms: 4 * HOUR_MS,
            escalate_ms: 8 * HOUR_MS,
            expire_ms: 24 * HOUR_MS,
        }
    }
}

impl Rules {
    /// Reads `writ.config` of a bundle's data. What is missing or malformed is as in [`Rules::default`].
    pub fn read(data: &Value) -> Rules {
        let config = &data["writ"]["config"];
        let usual = Rules::default();
        let small = |value: &Value| value.as_u64().and_then(|number| u8::try_from(number).ok());
        let time = |name: &str, usual: i64| {
            config["approval_times"][name]
                .as_i64()
                .filter(|ms| (TIME_MS_MIN..=TIME_MS_MAX).contains(ms))
                .unwrap_or(usual)
        };
        let tiers = config["approver_tiers"].as_object().into_iter().flatten().take(ROLES_MAX);
        let acts_of = |acts: &Value| -> BTreeSet<String> {
            let acts = acts.as_array().into_iter().flatten().take(ACTS_MAX);
            acts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let roles = config["roles"].as_object().into_iter().flatten().take(ROLES_MAX);
        let table = Table {
            acts: roles.map(|(role, acts)| (role.clone(), acts_of(acts))).collect(),
            tiers: tiers.filter_map(|(role, tier)| Some((role.clone(), small(tier)?))).collect(),
        };
        Rules {
            table: Arc::new(table),
            delegate_tier_min: small(&config["delegates"]["own_tier_min"]),
            remind_ms: time("remind_ms", usual.remind_ms),
            escalate_ms: time("escalate_ms", usual.escalate_ms),
            expire_ms: time("expire_ms", usual.expire_ms),
        }
    }

    /// What built-in roles permit.
    pub fn table(&self) -> Arc<Table> {
        self.table.clone()
    }

    /// The tier of somebody with these roles; `None`: no approver at all, not even where any tier will do.
    pub fn tier(&self, roles: &[String]) -> Option<u8> {
        roles.iter().filter_map(|role| self.table.tiers.get(role)).max().copied()
    }

    /// The lowest tier above `tier`, if any role is of one.
    pub fn tier_above(&self, tier: u8) -> Option<u8> {
        self.table.tiers.values().copied().filter(|other| *other > tier).min()
    }

    /// The roles of a tier of at least `tier`, sorted.
    pub fn roles_from(&self, tier: u8) -> Vec<&str> {
        self.table.tiers.iter().filter(|(_, of)| **of >= tier).map(|(role, _)| role.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shipped() -> Rules {
        let text = include_str!("../../../../../contracts/policies/platform/data.json");
        Rules::read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_shipped_tables_are_read() {
        let rules = shipped();
        for (roles, tier) in [
            (&["approver"][..], Some(1)),
            (&["tenant_admin"], Some(2)),
            (&["platform_admin"], Some(2)),
            (&["approver", "tenant_admin"], Some(2)),
            (&["operator", "auditor", "service"], None),
            (&["emperor"], None),
            (&[], None),
        ] {
            let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
            assert_eq!(rules.tier(&roles), tier, "{roles:?}");
        }
        assert_eq!((rules.tier_above(0), rules.tier_above(1), rules.tier_above(2)), (Some(1), Some(2), None));
        assert_eq!(rules.roles_from(2), ["platform_admin", "tenant_admin"]);
        assert_eq!(rules.roles_from(3), Vec::<&str>::new());
        assert_eq!(rules.delegate_tier_min, Some(1));
        assert!(rules.remind_ms < rules.escalate_ms && rules.escalate_ms < rules.expire_ms);
    }

    #[test]
    fn what_is_malformed_gives_nobody_a_tier() {
        for data in [
            json!(null),
            json!({"writ": {"config": {"approver_tiers": ["approver"]}}}),
            json!({"writ": {"config": {"approver_tiers": {"approver": "1"}}}}),
            json!({"writ": {"config": {"approver_tiers": {"approver": -1, "x": 256, "y": 1.5}}}}),
            json!({"writ": {"config": {"approval_times": {"expire_ms": 0, "remind_ms": "soon", "escalate_ms": i64::MAX}}}}),
            json!({"writ": {"config": {"delegates": {"own_tier_min": "0"}}}}),
        ] {
            assert_eq!(Rules::read(&data), Rules::default(), "{data}");
        }
    }
}
