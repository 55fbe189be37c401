//! Publication: everything that stands between an upload and the first decision under it.
//!
//! A policy that is wrong is cheapest to refuse here, with file and line in front of its author, and dearest at
//! three in the morning, when it denies every act of a tenant. So a bundle is opened, checked, compiled and then
//! asked about a handful of ordinary acts. It need not allow any of them; it has to answer, and regorus' machine and
//! interpreter have to agree on what it said.

use super::bundle::{self, Bundle, BundleError, KeyRing, Seen};
use super::engine::{Compiled, PolicyError, SecondOpinion, Warm};
use super::input::{INPUT_VERSION, PolicyInput};
use super::isolate::isolated;
use super::lint::{Problem, lost_problem};
use serde_json::{Value, json};

/// A bundle that may be stored and put into force.
#[derive(Debug, Clone)]
pub struct Published {
    /// The verified bundle.
    pub bundle: Bundle,
    /// The same, ready to decide.
    pub compiled: Compiled,
}

/// Does everything that an upload does: signature and contents for `scope`, not older than `last`, not past its
/// end at `now_ms`, rules within the language, a program, and an answer to every probe.
/// Takes the processor for a while; see [`crate::checking`] for where.
///
/// # Errors
/// All problems of the first step that has any, and of the first probe.
pub fn publish_check(
    bytes: &[u8],
    keys: &KeyRing,
    scope: &str,
    last: Option<&Seen>,
    now_ms: i64,
) -> Result<Published, Vec<Problem>> {
    let refused = |error: BundleError| vec![Problem::new(error.code(), "bundle", None, error.to_string())];
    let bundle = bundle::bundle_open(bytes, keys, scope).map_err(refused)?;
    bundle::rollback_check(last, &bundle).map_err(refused)?;
    bundle::expiry_check(&bundle, now_ms).map_err(refused)?;
    let compiled = Compiled::new(&bundle).map_err(|PolicyError { problems }| problems)?;
    probe(&bundle, &compiled, now_ms)?;
    Ok(Published { bundle, compiled })
}

/// Asks the policy about ordinary acts, on a thread that nobody depends on.
fn probe(bundle: &Bundle, compiled: &Compiled, now_ms: i64) -> Result<(), Vec<Problem>> {
    let (bundle, compiled) = (bundle.clone(), compiled.clone());
    let problems = isolated(move || {
        let mut second = match SecondOpinion::new(&bundle) {
            Ok(second) => second,
            Err(problem) => return vec![problem],
        };
        let mut warm = Warm::new();
        let mut problems = Vec::new();
        for input in probes(now_ms) {
            // A probe is within the limits of an input; a test says so.
            let Ok(prepared) = input.prepare() else { continue };
            let verdict = compiled.explain(&prepared, &mut warm);
            let at = format!("probe {}", input.action);
            if let Some(objection) = second.objection(&prepared, &verdict) {
                problems.push(Problem::new("policy.compile", &at, None, objection));
            }
            if let Err(refusal) = verdict {
                problems.push(Problem::new(refusal.code, &at, None, refusal.detail));
            }
            // One is enough to refuse the bundle, and each may take all the time that it is given.
            if !problems.is_empty() {
                break;
            }
        }
        problems
    })
    .unwrap_or_else(|lost| vec![lost_problem(lost)]);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Acts as they come: with every attribute, with none, unknown to everybody, approved and not.
fn probes(now_ms: i64) -> Vec<PolicyInput> {
    let rich = json!({
        "effect_class": "RECONCILABLE", "host": "service.example", "hosts_allowed": ["service.example"],
        "fields": ["category"], "connector": "con_example", "auto_approve": true, "confidence_milli": 900,
        "priority": 4, "sensitivity": "internal", "provider": "example", "model": "example-1", "tenant": "ten_probe",
        "requester": "pri_other", "approver_tier": 1,
    });
    let acts = [
        "flows.tool.call",
        "models.model.call",
        "flows.run.start",
        "governor.approval.grant",
        "probe.act.unknown",
    ];
    let mut inputs = Vec::new();
    for act in acts {
        for (attributes, approved) in [(json!({}), false), (rich.clone(), false), (rich.clone(), true)] {
            let approvals = if approved {
                json!([{"id": "apr_probe", "approver": "pri_other", "tier": 2, "granted_at_ms": now_ms}])
            } else {
                json!([])
            };
            let document: Value = json!({
                "version": INPUT_VERSION,
                "principal": {"id": "pri_probe", "kind": "person", "roles": ["operator"], "tenant": "ten_probe"},
                "action": act,
                "resource": {"kind": "probe", "id": "prb_probe", "attributes": attributes},
                "args": {"text": "probe", "number": 1, "list": [1, 2]},
                "context": {
                    "environment": "probe",
                    "assurance": {"level": 1, "method": "api_key", "proven_at_ms": now_ms},
                    "approved": approved,
                    "approvals": approvals,
                },
                "now_ms": now_ms,
            });
            // The document above is an input; a test says so for each.
            inputs.extend(serde_json::from_value::<PolicyInput>(document).ok());
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_probe_is_an_input() {
        let probes = super::probes(1);
        assert_eq!(probes.len(), 15);
        assert!(probes.iter().all(|probe| probe.prepare().is_ok()));
    }
}
