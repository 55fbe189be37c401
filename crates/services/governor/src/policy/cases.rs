//! Policy tests as data: an input, and what the policy has to say about it.
//!
//! A policy ships with its cases, in JSON, so that whoever changes a rule sees which acts change sides. `expect`
//! names the effect and, where the case is about them, the exact reasons and obligations.

use super::engine::{Compiled, Warm};
use super::input::PolicyInput;
use kernel::verdict::Effect;
use serde::Deserialize;
use std::collections::BTreeSet;

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in words.
    pub name: String,
    /// The act.
    pub input: PolicyInput,
    /// The verdict.
    pub expect: Expect,
}

/// What a verdict has to be; what is absent may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The effect.
    pub effect: Effect,
    /// All reasons.
    pub reasons: Option<BTreeSet<String>>,
    /// The approvers' least tier.
    pub approver_tier: Option<u8>,
    /// The number of approvals.
    pub approvals: Option<u8>,
    /// The rate.
    pub per_minute: Option<u32>,
}

/// Runs cases and describes each that fails.
pub fn cases_run(compiled: &Compiled, cases: &[Case]) -> Vec<String> {
    let mut warm = Warm::new();
    let mut failures = Vec::new();
    for Case { name, input, expect } in cases {
        let explained = input.prepare().map_err(|error| error.to_string()).and_then(|prepared| {
            compiled.explain(&prepared, &mut warm).map_err(|refusal| refusal.to_string())
        });
        match explained {
            Err(refusal) => failures.push(format!("{name}: no verdict: {refusal}")),
            Ok(verdict) => {
                let o = &verdict.obligations;
                let as_expected = verdict.effect == expect.effect
                    && expect.reasons.as_ref().is_none_or(|reasons| *reasons == verdict.reasons)
                    && expect.approver_tier.is_none_or(|tier| tier == o.approver_tier)
                    && expect.approvals.is_none_or(|approvals| approvals == o.approvals)
                    && expect.per_minute.is_none_or(|rate| Some(rate) == o.per_minute);
                if !as_expected {
                    failures.push(format!("{name}: expected {expect:?}, got {verdict:?}"));
                }
            }
        }
    }
    failures
}
