//! When what is due: remind those who were asked, ask the next tier as well, give up.
//!
//! ```text
//! requested ── remind ── escalate (the next tier is asked too) ── … ── EXPIRED
//! ```
//!
//! One timer per approval, whose job looks at the record and the clock and does what is due, so a timer that comes late
//! (the system was down for a night) does the one thing that matters now and not all that was missed. Widening never
//! lowers what is needed: it only puts the approval before more people. Nothing is ever granted by time.

use super::{Approval, Rules, Status};

/// What a timer finds to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing, before this time.
    Later(i64),
    /// Those who were asked are reminded.
    Remind,
    /// People of this tier are asked as well.
    Escalate(u8),
    /// Its time is over.
    Expire,
    /// Nothing any more: it has been decided.
    Nothing,
}

/// What is due at `now_ms`.
pub fn due(approval: &Approval, rules: &Rules, now_ms: i64) -> Due {
    if approval.status != Status::Pending {
        return Due::Nothing;
    }
    if now_ms >= approval.expires_at_ms {
        return Due::Expire;
    }
    if approval.escalate_at_ms.is_some_and(|at_ms| now_ms >= at_ms)
        && let Some(tier) = rules.tier_above(approval.asked_tier)
    {
        return Due::Escalate(tier);
    }
    if approval.remind_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
        return Due::Remind;
    }
    Due::Later(next_ms(approval, rules))
}

/// When the next thing is due, milliseconds UTC.
pub fn next_ms(approval: &Approval, rules: &Rules) -> i64 {
    let escalates = approval.escalate_at_ms.filter(|_| rules.tier_above(approval.asked_tier).is_some());
    [approval.remind_at_ms, escalates]
        .into_iter()
        .flatten()
        .fold(approval.expires_at_ms, |earliest, at_ms| earliest.min(at_ms))
}

/// The approval after those who were asked have been reminded.
pub fn reminded(approval: &Approval, now_ms: i64) -> Approval {
    Approval { remind_at_ms: None, reminded_at_ms: Some(now_ms), ..approval.clone() }
}

/// The approval after people of `tier` have been asked as well. A reminder that was still due is overtaken by that.
pub fn escalated(approval: &Approval, tier: u8, rules: &Rules, now_ms: i64) -> Approval {
    let next_ms = now_ms.saturating_add(rules.escalate_ms);
    Approval {
        asked_tier: tier,
        remind_at_ms: None,
        escalate_at_ms: rules.tier_above(tier).map(|_| next_ms),
        ..approval.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{approval, rules};
    use super::*;

    #[test]
    fn what_is_due_when() {
        let rules = rules();
        let fresh = approval();
        let reminded_ = reminded(&fresh, 120);
        let wide = escalated(&fresh, 2, &rules, 220);
        let lone = Approval { tier: 2, asked_tier: 2, ..approval() };
        for (name, approval, now_ms, expected) in [
            ("at once", &fresh, 0, Due::Later(100)),
            ("just before", &fresh, 99, Due::Later(100)),
            ("reminder", &fresh, 100, Due::Remind),
            ("reminded", &reminded_, 199, Due::Later(200)),
            ("escalation", &reminded_, 200, Due::Escalate(2)),
            ("down when the reminder was due", &fresh, 230, Due::Escalate(2)),
            ("down for good", &fresh, 1000, Due::Expire),
            ("widened, nobody above", &wide, 900, Due::Later(1000)),
            ("widened, over", &wide, 1000, Due::Expire),
            ("nobody above from the start", &lone, 250, Due::Remind),
            ("nobody above, reminded", &reminded(&lone, 100), 250, Due::Later(1000)),
        ] {
            assert_eq!(due(approval, &rules, now_ms), expected, "{name}");
        }
        for status in [Status::Granted, Status::Used, Status::Denied, Status::Expired, Status::Void] {
            let closed = Approval { status, ..fresh.clone() };
            assert_eq!(due(&closed, &rules, 5000), Due::Nothing, "{status:?}");
        }
    }

    #[test]
    fn widening_asks_more_people_and_needs_no_less() {
        let wide = escalated(&approval(), 2, &rules(), 220);
        assert_eq!((wide.tier, wide.asked_tier, wide.needed), (1, 2, approval().needed));
        assert_eq!(wide.status, Status::Pending);
    }
}
