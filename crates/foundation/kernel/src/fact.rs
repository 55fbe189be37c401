//! The fact: one immutable statement that something happened, and the leaf it becomes in the tenant's log.
//!
//! A fact answers who, on whose behalf, what, on which resource, decided how under which policy, with what outcome.
//! It is at once the audit row, the outbox event and the raw material of evidence, so its form is frozen: a JSON
//! object of exactly the members below in canonical form ([`crate::json`]), hashed as stored, at most
//! [`LEAF_BYTES_MAX`] bytes. It carries no content: arguments appear as a salted commitment, people as pseudonymous
//! principal ids.
//!
//! | member | meaning |
//! |---|---|
//! | `v` | format version, 1 |
//! | `id` | identity of the fact, `fct_…`; the index in the log is not part of it |
//! | `at_ms` | when, by the clock of the installation |
//! | `origin` | the log it belongs to: `<installation>/<cell>/<tenant>/<epoch>` |
//! | `kind` | what happened, `flows.run.created` |
//! | `stream`, `stream_n` | the thing's own gapless count, so that an omitted fact leaves a gap |
//! | `causes` | ids of the facts that led to this one |
//! | `actor`, `on_behalf_of` | who acted, and for whom |
//! | `act` | the verb that was carried out |
//! | `resource` | full name of what it was done to |
//! | `decision`, `policy` | effect and id of the decision; digest of the policy bundles that made it |
//! | `assurance` | how the actor had proven who they are |
//! | `args_commitment` | commitment to the arguments ([`crate::commitment`]) |
//! | `outcome` | a small object of metadata |
//! | `trace` | id that joins the fact with logs and traces |
//!
//! Those who add a kind of fact add no member: what is particular goes into `outcome`.

mod leaf;

pub use leaf::{Leaf, LeafDecision, Outcome, read};

use crate::permit::Authority;
use crate::{Digest, Id, hex, json};
use serde_json::Value;

/// Largest leaf, in bytes.
pub const LEAF_BYTES_MAX: usize = 4096;
/// Most causes of one fact.
pub const CAUSES_MAX: usize = 16;

/// What a planner says of a fact. Who acted and under which decision is added from the changeset's origin, the
/// place in the log and in the stream by the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Identity, minted by the planner.
    pub id: Id,
    /// What happened; must be among the facts the verb declares.
    pub kind: &'static str,
    /// The stream it counts in, usually the id of the run or resource.
    pub stream: Id,
    /// Full name of the resource.
    pub resource: String,
    /// Facts that led to this one.
    pub causes: Vec<Id>,
    /// Metadata; integers, texts, lists and objects of those.
    pub outcome: Value,
    /// The erasable side row: seed and arguments of the commitment and whatever else may be shown later.
    pub aside: Option<Vec<u8>>,
}

/// Where a leaf stands, known only to the store.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The log's origin line.
    pub origin: &'a str,
    /// The fact's number in its stream, from 1.
    pub stream_n: u64,
    /// When.
    pub at_ms: i64,
}

/// Why a fact cannot become a leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Larger than [`LEAF_BYTES_MAX`].
    #[error("a fact is larger than {LEAF_BYTES_MAX} bytes")]
    TooLarge,
    /// More than [`CAUSES_MAX`] causes.
    #[error("a fact has more than {CAUSES_MAX} causes")]
    TooManyCauses,
    /// The outcome is outside the canonical profile or no object.
    #[error("a fact's outcome is not an object of the canonical JSON profile")]
    Outcome,
}

impl Fact {
    /// The leaf: canonical bytes, ready to be hashed and stored.
    pub fn leaf(
        &self,
        place: Place<'_>,
        authority: &Authority,
        args_commitment: Option<&Digest>,
    ) -> Result<Vec<u8>, LeafError> {
        if self.causes.len() > CAUSES_MAX {
            return Err(LeafError::TooManyCauses);
        }
        if !self.outcome.is_object() {
            return Err(LeafError::Outcome);
        }
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(b"{\"act\":");
        json::write_string(&mut out, &authority.act);
        out.extend_from_slice(b",\"actor\":");
        json::write_string(&mut out, authority.actor.as_str());
        out.extend_from_slice(b",\"args_commitment\":");
        optional(&mut out, args_commitment.map(|digest| hex::encode(digest)).as_deref());
        out.extend_from_slice(b",\"assurance\":");
        optional(&mut out, authority.assurance.as_deref());
        out.extend_from_slice(b",\"at_ms\":");
        json::write_integer(&mut out, place.at_ms);
        out.extend_from_slice(b",\"causes\":");
        ids(&mut out, &self.causes);
        out.extend_from_slice(b",\"decision\":");
        match &authority.decision {
            None => out.extend_from_slice(b"null"),
            Some(decision) => {
                out.extend_from_slice(b"{\"effect\":");
                json::write_string(&mut out, decision.effect.as_str());
                out.extend_from_slice(b",\"id\":");
                json::write_string(&mut out, decision.id.as_str());
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"id\":");
        json::write_string(&mut out, self.id.as_str());
        out.extend_from_slice(b",\"kind\":");
        json::write_string(&mut out, self.kind);
        out.extend_from_slice(b",\"on_behalf_of\":");
        ids(&mut out, &authority.on_behalf_of);
        out.extend_from_slice(b",\"origin\":");
        json::write_string(&mut out, place.origin);
        out.extend_from_slice(b",\"outcome\":");
        json::write_value(&mut out, &self.outcome, 1).map_err(|_| LeafError::Outcome)?;
        out.extend_from_slice(b",\"policy\":");
        optional(&mut out, authority.policy.as_deref());
        out.extend_from_slice(b",\"resource\":");
        json::write_string(&mut out, &self.resource);
        out.extend_from_slice(b",\"stream\":");
        json::write_string(&mut out, self.stream.as_str());
        out.extend_from_slice(b",\"stream_n\":");
        json::write_integer(&mut out, i64::try_from(place.stream_n).unwrap_or(i64::MAX));
        out.extend_from_slice(b",\"trace\":");
        json::write_string(&mut out, &authority.trace);
        out.extend_from_slice(b",\"v\":1}");
        if out.len() > LEAF_BYTES_MAX { Err(LeafError::TooLarge) } else { Ok(out) }
    }
}

fn optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.extend_from_slice(b"null"),
        Some(text) => json::write_string(out, text),
    }
}

fn ids(out: &mut Vec<u8>, ids: &[Id]) {
    out.push(b'[');
    for (n, id) in ids.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        json::write_string(out, id.as_str());
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permit::Decision;
    use crate::verdict::Effect;
    use serde_json::json;

    fn authority() -> Authority {
        Authority {
            actor: Id::parse("prn_a").unwrap(),
            on_behalf_of: vec![Id::parse("prn_b").unwrap()],
            act: "flows.run.start".into(),
            decision: Some(Decision { id: Id::parse("dec_1").unwrap(), effect: Effect::Allow }),
            policy: Some("ab".into()),
            assurance: None,
            trace: "t\"1".into(),
        }
    }

    fn fact(outcome: Value) -> Fact {
        Fact {
            id: Id::parse("fct_1").unwrap(),
            kind: "flows.run.created",
            stream: Id::parse("run_1").unwrap(),
            resource: "local/ten_a/flows.run/run_1".into(),
            causes: vec![],
            outcome,
            aside: None,
        }
    }

    const PLACE: Place<'static> = Place { origin: "writ.test/local/ten_a/1", stream_n: 1, at_ms: 5 };

    #[test]
    fn the_frozen_form() {
        let leaf = fact(json!({"steps": 3})).leaf(PLACE, &authority(), None).unwrap();
        assert_eq!(
            String::from_utf8(leaf.clone()).unwrap(),
            r#"{"act":"flows.run.start","actor":"prn_a","args_commitment":null,"assurance":null,"at_ms":5,"causes":[],"decision":{"effect":"ALLOW","id":"dec_1"},"id":"fct_1","kind":"flows.run.created","on_behalf_of":["prn_b"],"origin":"writ.test/local/ten_a/1","outcome":{"steps":3},"policy":"ab","resource":"local/ten_a/flows.run/run_1","stream":"run_1","stream_n":1,"trace":"t\"1","v":1}"#
        .replace("t\"1", "t\\\"1"));
        let read = read(&leaf).unwrap();
        assert_eq!((read.stream_n, &*read.trace, read.outcome.get()), (1, "t\"1", "{\"steps\":3}"));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let place = PLACE;
        assert_eq!(fact(json!([])).leaf(place, &authority(), None), Err(LeafError::Outcome));
        assert_eq!(fact(json!({"a": 0.5})).leaf(place, &authority(), None), Err(LeafError::Outcome));
        let large = json!({"a": "x".repeat(LEAF_BYTES_MAX)});
        assert_eq!(fact(large).leaf(place, &authority(), None), Err(LeafError::TooLarge));
        let mut many = fact(json!({}));
        many.causes = vec![Id::parse("fct_2").unwrap(); CAUSES_MAX + 1];
        assert_eq!(many.leaf(place, &authority(), None), Err(LeafError::TooManyCauses));
    }
}
