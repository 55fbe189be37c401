//! When a key was last used: to the hour, and never on the way of an act.
//!
//! Whoever tidies up wants to know which keys nobody uses. Writing that down at each use would make every read a write. So
//! the edge only notes it in memory ([`Seen::note`]); a round takes what is due and records it as one act for each tenant
//! (`access.key.note_use`); and a key that was recorded within the hour is not recorded again. The record is one of its
//! own, so that it collides with nobody who changes the key.

use super::KeyDoc;
use act::{Draw as _, Fault, Plan, Target, Verb, parse};
use futures::FutureExt as _;
use kernel::{Id, TenantId};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use store::Document;

/// How often the use of a key is recorded, at most: once an hour, in milliseconds.
pub const EVERY_MS: i64 = 60 * 60 * 1000;
/// Most keys noted at a time; the use of others is noted once there is room again.
pub const NOTED_MAX: usize = 10_000;
/// Most keys in one act.
pub const BATCH_MAX: usize = 100;

/// When a key was last used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenDoc {
    /// The key's id.
    pub id: Id,
    /// Milliseconds UTC.
    pub used_at_ms: i64,
}

impl Document for SeenDoc {
    const KIND: &'static str = "access.key_use";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// What is noted of a key.
#[derive(Debug, Clone, Copy)]
struct Note {
    used_at_ms: i64,
    /// When its use was recorded last; nobody knows after a start.
    recorded_at_ms: Option<i64>,
}

impl Note {
    fn due(&self) -> bool {
        self.recorded_at_ms.is_none_or(|at_ms| self.used_at_ms.saturating_sub(at_ms) >= EVERY_MS)
    }
}

/// Uses of keys that were noted. One per installation.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<(TenantId, Id), Note>>);

impl Seen {
    /// Notes that a key was used.
    pub fn note(&self, tenant: &TenantId, key: &Id, now_ms: i64) {
        let mut notes = self.0.lock();
        let room = notes.len() < NOTED_MAX;
        match notes.entry((tenant.clone(), key.clone())) {
            Entry::Occupied(mut note) => note.get_mut().used_at_ms = note.get().used_at_ms.max(now_ms),
            Entry::Vacant(place) if room => {
                place.insert(Note { used_at_ms: now_ms, recorded_at_ms: None });
            }
            Entry::Vacant(_) => {}
        }
    }

    /// What is to be recorded now, at most [`BATCH_MAX`] for each tenant. It counts as recorded; what could not be comes up
    /// again by [`Seen::put_back`]. What has not been used for an hour is forgotten.
    pub fn take(&self, now_ms: i64) -> BTreeMap<TenantId, Vec<Used>> {
        let mut notes = self.0.lock();
        let mut due: BTreeMap<TenantId, Vec<Used>> = BTreeMap::new();
        for ((tenant, key), note) in notes.iter_mut().filter(|(_, note)| note.due()) {
            let batch = due.entry(tenant.clone()).or_default();
            if batch.len() < BATCH_MAX {
                batch.push(Used { key: key.to_string(), at_ms: note.used_at_ms });
                note.recorded_at_ms = Some(note.used_at_ms);
            }
        }
        notes.retain(|_, note| note.due() || now_ms.saturating_sub(note.used_at_ms) < EVERY_MS);
        due
    }

    /// Takes back what could not be recorded.
    pub fn put_back(&self, tenant: &TenantId, batch: &[Used]) {
        let mut notes = self.0.lock();
        for used in batch {
            if let Ok(key) = Id::parse(&used.key)
                && let Some(note) = notes.get_mut(&(tenant.clone(), key))
            {
                note.recorded_at_ms = None;
            }
        }
    }
}

/// One use of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// The key.
    pub key: String,
    /// When, milliseconds UTC.
    pub at_ms: i64,
}

/// Arguments of `access.key.note_use`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoteUse {
    /// Which keys were used, and when.
    pub keys: Vec<Used>,
}

/// The verb.
pub(super) fn verb() -> Verb {
    Verb {
        act: "access.key.note_use",
        summary: "Records when keys were last used, to the hour",
        args: || schemars::schema_for!(NoteUse).into(),
        writes: &["access.key_use"],
        facts: &["access.key.used"],
        secret_args: &[],
        on_closed: None,
        can_wait: false,
        aim: Arc::new(|_, _, ctx| async move { Ok(Target::of("access.tenant", ctx.tenant.id())) }.boxed()),
        plan: Arc::new(|view, args, stamp| {
            async move {
                let args: NoteUse = parse(args)?;
                if args.keys.len() > BATCH_MAX {
                    return Err(Fault::invalid("request.invalid", "at most 100 keys at a time"));
                }
                let mut plan = Plan { draft: stamp.draft(), outcome: json!({}) };
                let mut recorded: Vec<Id> = Vec::new();
                for used in &args.keys {
                    let Ok(id) = Id::parse(&used.key) else { continue };
                    if recorded.contains(&id) || view.peek::<KeyDoc>(&id).await?.is_none() {
                        continue;
                    }
                    let doc = SeenDoc { id: id.clone(), used_at_ms: used.at_ms.min(stamp.at_ms) };
                    match view.get::<SeenDoc>(&id).await? {
                        Some(stored) if doc.used_at_ms.saturating_sub(stored.used_at_ms) < EVERY_MS => {
                            continue;
                        }
                        Some(stored) => plan.draft.put_if(&stored, &doc),
                        None => plan.draft.put_new(&doc),
                    };
                    recorded.push(id);
                }
                if recorded.is_empty() {
                    return Err(Fault::conflict("request.state", "these uses are recorded already"));
                }
                let tenant = stamp.ctx.tenant.id();
                let told = json!({"keys": recorded.len()});
                plan.draft.fact(stamp.fact("access.key.used", tenant, ("access.tenant", tenant), told));
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
    fn a_use_is_recorded_once_an_hour() {
        let (seen, tenant) = (Seen::default(), TenantId::parse("ten_a").unwrap());
        let key = |text: &str| Id::parse(text).unwrap();
        let taken = |now_ms: i64| -> Vec<(String, i64)> {
            let all = seen.take(now_ms).into_values().flatten();
            all.map(|used| (used.key, used.at_ms)).collect()
        };
        seen.note(&tenant, &key("key_a"), 1);
        seen.note(&tenant, &key("key_a"), 5);
        assert_eq!(taken(6), [("key_a".to_owned(), 5)]);
        seen.note(&tenant, &key("key_a"), 4 + EVERY_MS);
        seen.note(&tenant, &key("key_b"), 10);
        assert_eq!(taken(4 + EVERY_MS), [("key_b".to_owned(), 10)], "within the hour");
        seen.note(&tenant, &key("key_a"), 5 + EVERY_MS);
        let due = seen.take(5 + EVERY_MS);
        assert_eq!(due[&tenant], [Used { key: "key_a".into(), at_ms: 5 + EVERY_MS }]);
        assert!(taken(5 + EVERY_MS).is_empty());
        seen.put_back(&tenant, &due[&tenant]);
        assert_eq!(taken(6 + EVERY_MS).len(), 1, "what could not be recorded is tried again");
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let (seen, tenant) = (Seen::default(), TenantId::parse("ten_a").unwrap());
        for n in 0..NOTED_MAX + 10 {
            seen.note(&tenant, &Id::parse(&format!("key_{n}")).unwrap(), 1);
        }
        assert_eq!(seen.0.lock().len(), NOTED_MAX);
        assert_eq!(seen.take(2)[&tenant].len(), BATCH_MAX);
        for _ in 0..NOTED_MAX / BATCH_MAX {
            seen.take(2);
        }
        seen.take(1 + EVERY_MS);
        assert_eq!(seen.0.lock().len(), 0, "what nobody uses any more is forgotten");
    }
}
