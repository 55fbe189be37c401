//! Rotation: a key gets a new secret, and the old one goes on for a while, so that whoever uses it can change over
//! without a moment in which neither works.
//!
//! Whoever brings the new secret can use the key from then on, so rotating is held to the rules of making a key: for
//! somebody else it takes level 1, and nobody rotates a key of somebody who may do more, or one that proves more, or for
//! longer, than they have proven. A key that has leaked is rotated with an overlap of 0: then the old secret is dead at
//! once. The secret before the old one is dead in any case.

use super::{Before, KeyDoc, KeyError, LEVEL_MAX, find, owner_of, secret_check};
use crate::rights::{self, Tables};
use act::{Assurance, Draw as _, Fault, Plan, Target, Verb, parse};
use futures::FutureExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::Document as _;

/// How long the old secret goes on unless somebody says otherwise: an hour, in milliseconds.
pub const OVERLAP_MS: i64 = 60 * 60 * 1000;
/// Longest time that the old secret goes on: 7 days, in milliseconds.
pub const OVERLAP_MS_MAX: i64 = 7 * 24 * 60 * 60 * 1000;

/// Arguments of `access.key.rotate`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The key's id.
    pub key: String,
    /// SHA-256 of the new secret's text in lower-case hexadecimal. The secret itself stays with whoever made it.
    pub secret_sha256: String,
    /// How long the old secret goes on, in milliseconds: an hour if absent, at most 7 days; 0 ends it at once.
    pub overlap_ms: Option<i64>,
}

/// Who may rotate: somebody who has proven `own` may bring the secret of a key of `level` that ends at `expires_at_ms`.
///
/// # Errors
/// The rule that is broken.
pub fn rotate_check(level: u8, expires_at_ms: Option<i64>, own: &Assurance) -> Result<(), KeyError> {
    if level == 0 {
        return Ok(());
    }
    if level > LEVEL_MAX || level > own.level {
        return Err(KeyError::Level1);
    }
    match (own.until_ms, expires_at_ms) {
        (None, _) => Ok(()),
        (Some(until_ms), Some(end_ms)) if end_ms <= until_ms => Ok(()),
        (Some(_), _) => Err(KeyError::Outlives),
    }
}

/// The verb.
pub(super) fn verb(tables: &Tables) -> Verb {
    let tables = tables.clone();
    Verb {
        act: "access.key.rotate",
        summary: "Gives an API key a new secret; the old one goes on for a while",
        args: || schemars::schema_for!(Rotate).into(),
        writes: &["access.key"],
        facts: &["access.key.rotated"],
        secret_args: &[],
        on_closed: None,
        can_wait: true,
        aim: Arc::new(|view, args, ctx| {
            async move {
                let args: Rotate = parse(args)?;
                let doc = find(view, &args.key).await?;
                let owner = owner_of(view, &doc).await?;
                let mut target = Target::of(KeyDoc::KIND, &doc.id);
                target.attributes = json!({
                    "own": doc.principal == ctx.principal.id, "assurance": doc.level, "kind": owner.kind.as_str(),
                });
                target.preview = vec![("Rotate key".into(), doc.name.clone()), ("Of".into(), owner.name)];
                Ok(target)
            }
            .boxed()
        }),
        plan: Arc::new(move |view, args, stamp| {
            let tables = tables.clone();
            async move {
                let args: Rotate = parse(args)?;
                secret_check(&args.secret_sha256)?;
                let overlap_ms = args.overlap_ms.unwrap_or(OVERLAP_MS);
                if !(0..=OVERLAP_MS_MAX).contains(&overlap_ms) {
                    return Err(Fault::invalid(
                        "request.invalid",
                        "overlap_ms is 0 to 604800000, which is 7 days",
                    ));
                }
                let stored = find(view, &args.key).await?;
                let owner = owner_of(view, &stored).await?;
                let owner = rights::resolve_in(view, &owner, Default::default()).await?;
                let maker = rights::maker(view, stamp).await?;
                rights::act_as(&maker, &tables(), &owner, &stored.limits)?;
                let ended = stored.expires_at_ms.is_some_and(|end_ms| end_ms <= stamp.at_ms);
                if stored.revoked_at_ms.is_some() || ended {
                    return Err(Fault::conflict(
                        "request.state",
                        "the key is revoked or has ended; make a new one",
                    ));
                }
                if stored.secret_sha256 == args.secret_sha256 {
                    return Err(Fault::conflict("request.state", "the key has this secret already"));
                }
                rotate_check(stored.level, stored.expires_at_ms, &stamp.ctx.assurance)?;
                let until_ms = stamp.at_ms.saturating_add(overlap_ms);
                let before = Before { secret_sha256: stored.secret_sha256.clone(), until_ms };
                let doc = KeyDoc {
                    secret_sha256: args.secret_sha256,
                    before: (overlap_ms > 0).then_some(before),
                    rotated_at_ms: Some(stamp.at_ms),
                    ..stored.doc.clone()
                };
                let outcome = json!({"key": doc.id, "before_until_ms": until_ms});
                let mut plan = Plan { draft: stamp.draft(), outcome };
                plan.draft.put_if(&stored, &doc).fact(stamp.fact(
                    "access.key.rotated",
                    &doc.principal,
                    (KeyDoc::KIND, &doc.id),
                    json!({"principal": doc.principal, "before_until_ms": until_ms}),
                ));
                Ok(plan)
            }
            .boxed()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_rotate_what() {
        let own = |level, until_ms| Assurance { method: "key".into(), level, at_ms: 0, until_ms };
        for (what, level, end_ms, own, expected) in [
            ("an ordinary key", 0, None, own(0, Some(5)), Ok(())),
            ("a strong one with an ordinary one", 1, Some(5), own(0, None), Err(KeyError::Level1)),
            ("a strong one with a lasting one", 1, Some(5), own(1, None), Ok(())),
            ("the root by itself", 1, None, own(1, None), Ok(())),
            ("the root with what it lent", 1, None, own(1, Some(5)), Err(KeyError::Outlives)),
            ("one that ends with one's own", 1, Some(5), own(1, Some(5)), Ok(())),
            ("one that ends later", 1, Some(6), own(1, Some(5)), Err(KeyError::Outlives)),
        ] {
            assert_eq!(rotate_check(level, end_ms, &own), expected, "{what}");
        }
    }
}
