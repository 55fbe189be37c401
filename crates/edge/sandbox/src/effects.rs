//! What really happened to the stand-in, counted.
//!
//! A governed write that timed out *after* it took effect must not be sent again blindly. Whether a client
//! keeps to that cannot be seen in the client: it is seen here, where the effect lands. Every mutation that a
//! request applied is appended to one journal, under the same lock as the mutation itself, and
//! [`duplicates`](EffectJournal::duplicates) counts those that were applied more than once.
//!
//! A client makes a write recognisable by a marker in its text, `[ref:af-7f3a91]`, or on a create by
//! `correlation_id`. Two effects are the same effect when they carry the same markers. What carries none is
//! compared by its whole content, so that a client which forgets its markers does not thereby look clean.
//!
//! Seeds and edits made through the sandbox itself are not effects: only what a client caused is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::stamp;

/// Most effects kept. A mutation that would need one more is refused with 507.
pub const MAX_EFFECTS: usize = 200_000;
/// Most characters of a field's value that the journal shows; the digest covers all of it.
pub const EFFECT_VALUE_CHARS: usize = 1_024;
/// Longest marker recognised, in bytes, without its brackets.
pub const MAX_MARKER_BYTES: usize = 64;

/// The stand-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The ServiceNow Table API stand-in, `/api/now/`.
    ServiceNow,
    /// The model stand-ins, `/v1/` and `/openai/`.
    Model,
    /// The Slack stand-in, `/slack/api/`.
    Slack,
}

/// What kind of mutation an effect was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EffectKind {
    /// A record was inserted.
    Create,
    /// Fields of a record were written (see [`Effect::changed`]).
    Update,
    /// An entry was appended to a journal field.
    Note,
    /// A record was deleted.
    Delete,
}

/// One applied mutation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// Position in the journal, from 1.
    pub n: u64,
    /// Which stand-in.
    pub service: Service,
    /// The table, e.g. `incident`; for a note the table of the record that it is on.
    pub table: String,
    /// The record.
    pub sys_id: String,
    /// What was done.
    pub kind: EffectKind,
    /// The `[ref:…]` markers of the write, sorted, each once.
    pub markers: Vec<String>,
    /// `correlation_id` of the record after the write.
    pub correlation_id: String,
    /// The fields as accepted, values cut to [`EFFECT_VALUE_CHARS`]; a note's field is the journal's name.
    pub fields: BTreeMap<String, String>,
    /// SHA-256 over the accepted fields in full, in hex.
    pub digest: String,
    /// Whether the record was changed. An update that says what the record already says is accepted and
    /// changes nothing; it is journalled because a repeat is just that.
    pub changed: bool,
    /// When, in milliseconds UTC by the sandbox's clock.
    pub at_ms: i64,
}

/// How many mutations were applied, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records inserted.
    pub creates: u64,
    /// Updates that changed a record.
    pub updates: u64,
    /// Updates that changed nothing.
    pub updates_unchanged: u64,
    /// Journal entries appended.
    pub notes: u64,
    /// Of these, how many carry no marker.
    pub notes_unmarked: u64,
    /// Records deleted.
    pub deletes: u64,
}

/// How many mutations were applied again. A write applied three times counts two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Notes on one record and journal field with the same markers, or, unmarked, with the same text.
    pub notes: u64,
    /// Creates in one table with the same `correlation_id`, else the same markers, else the same content.
    pub creates: u64,
    /// Updates of one record with the same markers and the same content. Updates without a marker are left
    /// out: saying the same thing twice is harmless, and nothing tells a repeat from a second opinion.
    pub updates: u64,
}

impl Duplicates {
    /// All of them. Zero means that nothing was executed twice.
    pub fn total(self) -> u64 {
        self.notes + self.creates + self.updates
    }
}

/// A mutation on its way into the journal.
pub(crate) struct Draft<'a> {
    pub table: &'a str,
    pub sys_id: &'a str,
    pub kind: EffectKind,
    pub markers: Vec<String>,
    pub correlation_id: &'a str,
    pub fields: &'a BTreeMap<String, String>,
    pub changed: bool,
    pub at_ms: i64,
}

/// The journal of a ServiceNow stand-in. Append-only; the caller asks for [`room`](EffectJournal::room)
/// before it mutates, so that an effect is never lost.
#[derive(Default)]
pub(crate) struct EffectJournal {
    effects: Vec<Effect>,
}

impl EffectJournal {
    /// Whether `more` effects still fit.
    pub fn room(&self, more: usize) -> bool {
        self.effects.len() + more <= MAX_EFFECTS
    }

    pub fn push(&mut self, draft: Draft<'_>) {
        let fields = draft
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), value.chars().take(EFFECT_VALUE_CHARS).collect()))
            .collect();
        self.effects.push(Effect {
            n: self.effects.len() as u64 + 1,
            service: Service::ServiceNow,
            table: draft.table.to_owned(),
            sys_id: draft.sys_id.to_owned(),
            kind: draft.kind,
            markers: draft.markers,
            correlation_id: draft.correlation_id.to_owned(),
            fields,
            digest: digest(draft.fields),
            changed: draft.changed,
            at_ms: draft.at_ms,
        });
    }

    pub fn all(&self) -> &[Effect] {
        &self.effects
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for effect in &self.effects {
            match effect.kind {
                EffectKind::Create => counts.creates += 1,
                EffectKind::Update if effect.changed => counts.updates += 1,
                EffectKind::Update => counts.updates_unchanged += 1,
                EffectKind::Note => {
                    counts.notes += 1;
                    counts.notes_unmarked += u64::from(effect.markers.is_empty());
                }
                EffectKind::Delete => counts.deletes += 1,
            }
        }
        counts
    }

    pub fn duplicates(&self) -> Duplicates {
        let mut seen: HashMap<(EffectKind, &str, String), u64> = HashMap::new();
        for effect in &self.effects {
            if let Some(identity) = identity(effect) {
                *seen.entry((effect.kind, &effect.table, identity)).or_default() += 1;
            }
        }
        let mut duplicates = Duplicates::default();
        for ((kind, _, _), times) in seen {
            match kind {
                EffectKind::Create => duplicates.creates += times - 1,
                EffectKind::Update => duplicates.updates += times - 1,
                EffectKind::Note => duplicates.notes += times - 1,
                EffectKind::Delete => {}
            }
        }
        duplicates
    }
}

/// What makes two effects of one kind and table the same effect; `None` where a repeat is not a duplicate.
/// Parts are joined by a byte that none of them contains.
fn identity(effect: &Effect) -> Option<String> {
    let markers = effect.markers.join("\u{1}");
    match effect.kind {
        EffectKind::Create if !effect.correlation_id.is_empty() => {
            Some(format!("correlation\0{}", effect.correlation_id))
        }
        EffectKind::Create if !markers.is_empty() => Some(format!("marker\0{markers}")),
        EffectKind::Create => Some(format!("content\0{}", effect.digest)),
        EffectKind::Update if markers.is_empty() => None,
        EffectKind::Update => Some(format!("{}\0{markers}\0{}", effect.sys_id, effect.digest)),
        EffectKind::Note => {
            let element = effect.fields.keys().next().map(String::as_str).unwrap_or_default();
            let key = if markers.is_empty() { &effect.digest } else { &markers };
            Some(format!("{}\0{element}\0{key}", effect.sys_id))
        }
        EffectKind::Delete => None,
    }
}

fn digest(fields: &BTreeMap<String, String>) -> String {
    let mut hasher = Sha256::new();
    for (name, value) in fields {
        for part in [name, value] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    stamp::hex(&hasher.finalize())
}

/// The markers `[ref:…]` in some texts, sorted, each once. A marker is 1 to [`MAX_MARKER_BYTES`] letters,
/// digits and `-_.:`; anything else in brackets is plain text. A note may quote a marker out of a ticket, so
/// effects are compared by the whole list, not by any one marker of it.
pub(crate) fn markers<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    const OPENING: &str = "[ref:";
    let mut found = BTreeSet::new();
    for text in texts {
        let mut rest = text;
        while let Some(at) = rest.find(OPENING) {
            rest = &rest[at + OPENING.len()..];
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
            let length = rest.bytes().take_while(|byte| legal(*byte)).count();
            if (1..=MAX_MARKER_BYTES).contains(&length) && rest.as_bytes().get(length) == Some(&b']') {
                found.insert(rest[..length].to_owned());
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::markers;

    #[test]
    fn markers_are_parsed_from_hostile_text() {
        let long = format!("[ref:{}]", "a".repeat(65));
        for (text, expected) in [
            ("routed [ref:af-7f3a91]", &["af-7f3a91"][..]),
            ("[ref:b] and [ref:a] and [ref:b]", &["a", "b"]),
            ("[ref:]", &[]),
            ("[ref:open", &[]),
            ("[ref:has space]", &[]),
            ("[ref:[ref:inner]]", &["inner"]),
            ("[ref:über]", &[]),
            (&long, &[]),
        ] {
            assert_eq!(markers([text]), expected, "{text}");
        }
    }
}
