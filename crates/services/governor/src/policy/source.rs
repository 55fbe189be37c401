//! Policy while it is written: the same questions as at publication, asked where the author sits.
//!
//! A bundle exists only verified, and an author who writes has nothing signed yet. So the sources are signed here under a
//! key that nobody trusts, for a scope that nobody has, and go through publication as it is. What passes here can still be
//! refused there for its signature, its age or its scope, and for nothing else.

use super::bundle::{BundleError, Files, KeyRing, Manifest, bundle_build};
use super::cases::{Case, cases_run};
use super::engine::{SecondOpinion, Warm};
use super::lint::Problem;
use super::publish::{Published, publish_check};
use super::signer::Signer;
use super::{KeyRecord, bundle::Algorithm};

/// The scope of sources that are only looked at; no tenant's id has this form.
const DRAFT: &str = "draft";
/// The scalar of the key that nobody trusts.
const NOBODY: [u8; 32] = [1; 32];

/// Checks sources as publication would at `now_ms`.
///
/// # Errors
/// All problems of the first step that has any.
pub fn source_check(manifest: &Manifest, files: &Files, now_ms: i64) -> Result<Published, Vec<Problem>> {
    let refused = |error: BundleError| vec![Problem::new(error.code(), "bundle", None, error.to_string())];
    let unsigned = bundle_build(manifest, files).map_err(refused)?;
    // A constant that is a scalar.
    let signer = Signer::from_entropy(&NOBODY).ok_or_else(|| {
        vec![Problem::new("policy.failed", "bundle", None, "the sources cannot be looked at")]
    })?;
    let bytes = signer.sign(&unsigned, DRAFT).map_err(refused)?;
    let record =
        KeyRecord { scope: DRAFT.to_owned(), algorithm: Algorithm::Es256, key: signer.verifying_key() };
    publish_check(&bytes, &KeyRing::from([(signer.id(), record)]), DRAFT, None, now_ms)
}

/// Runs an author's cases, and asks the second evaluator about each. Describes every case that fails.
pub fn source_test(published: &Published, cases: &[Case]) -> Vec<String> {
    let mut failures = cases_run(&published.compiled, cases);
    let mut second = match SecondOpinion::new(&published.bundle) {
        Ok(second) => second,
        Err(problem) => return vec![problem.to_string()],
    };
    let mut warm = Warm::new();
    for case in cases {
        // One that cannot be prepared has been described above.
        let Ok(prepared) = case.input.prepare() else { continue };
        let verdict = published.compiled.explain(&prepared, &mut warm);
        if let Some(objection) = second.objection(&prepared, &verdict) {
            failures.push(format!("{}: the evaluators disagree: {objection}", case.name));
        }
    }
    failures
}
