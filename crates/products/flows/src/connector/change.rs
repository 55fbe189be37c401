//! Which change of which thing: telling what others did from what we did ourselves, where the one lies beneath the other.
//!
//! A system that is asked what has changed answers with things as they stand, and each says only who changed it last. Ann
//! sets a ticket to urgent (change 5), half a minute later our write-back adds its note (change 6), and whoever looks then
//! finds change 6, made by our own user. Left at that, Ann's change is never heard of.
//!
//! Where a system counts the changes of a thing by one, the numbers say more than the name does. A write of ours is told
//! by the other system which number it became ([`Wrote`], kept with its run), and the run knows by which change it was
//! started. So between the last change that is known and our own write there must be nothing but writes of ours; what is
//! left over is somebody else's, and becomes the event that it would have been: the same number, and nobody's name.
//!
//! | known last | found | our writes | what follows |
//! |---|---|---|---|
//! | 4 | 5 by Ann | | event 5 |
//! | 4 | 6 by us | 6 | event 5: it lies beneath ours |
//! | 4 | 6 by us | 5, 6 | nothing: both are ours |
//! | 4 | 7 by Ann | 6 | event 7: the thing as it stands, with whatever 5 was |
//! | nothing | 6 by us | 6, by a run that change 5 started | nothing |
//! | 4 | 6 by us | not recorded | nothing yet: ours by its name, and looked at again while its reply may still come |
//!
//! A system whose own rules change a thing once more for each write counts two where we wrote one. It looks as if somebody
//! had been there, and a run starts that finds nothing to do. If that run writes, it looks so again; so what lies beneath
//! the write of a run that answers such a change starts nothing: one run too many, never a loop.
//!
//! Events say where the number stands by `changes_at`. Without it a change is our own by its author alone.

use super::manifest::{Event, Manifest};
use crate::run::{RunDoc, Wrote};
use kernel::{hex, sha256};
use serde_json::{Map, Value};

/// Hexadecimal digits of the digest that names a thing.
const OBJECT_DIGITS: usize = 32;

/// A change of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Digest of connector and thing.
    pub object: String,
    /// Its number.
    pub count: i64,
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The change that a body tells of, if its event counts changes and everything that names one is there.
pub fn of(event: &Event, connector: &str, body: &Value) -> Option<Change> {
    let at = event.changes_at.as_ref()?;
    let parts = event.identity.iter().filter(|pointer| *pointer != at);
    let parts: Vec<String> = parts.map(|pointer| body.pointer(pointer).map(text)).collect::<Option<_>>()?;
    let count = text(body.pointer(at)?).parse().ok()?;
    let digest = hex::encode(&sha256(format!("{connector}\0{}", parts.join("\0")).as_bytes()));
    Some(Change { object: digest.get(..OBJECT_DIGITS)?.to_owned(), count })
}

/// Most writes that a run remembers; beyond, the oldest is forgotten, and what polling then takes for a foreign change starts
/// a run too many, never one too few. Each is an index entry of the run's record, beside three others.
pub const WROTE_MAX: usize = kernel::changeset::INDEXES_MAX - 4;

/// Keeps with a run what a write of it changed, as far as the reply says so: the manifest's write gives, under the same
/// names, what identifies an event.
pub fn note(run: &mut RunDoc, connector: &str, manifest: &Manifest, output: &Map<String, Value>) {
    let output = Value::Object(output.clone());
    for event in manifest.events.values() {
        let Some(change) = of(event, connector, &output) else { continue };
        if run.wrote.iter().any(|wrote| (&wrote.object, wrote.count) == (&change.object, change.count)) {
            continue;
        }
        let base = of(event, connector, &run.event).filter(|base| base.object == change.object);
        let overlaid = base.is_some() && is_nobodys(event, &run.event);
        if run.wrote.len() >= WROTE_MAX {
            run.wrote.remove(0);
        }
        run.wrote.push(Wrote {
            object: change.object,
            count: change.count,
            base: base.map(|base| base.count),
            overlaid,
        });
    }
}

/// The latest change beneath ours that is not ours. `known` is the last one that was heard of.
pub fn overlaid(writes: &[Wrote], known: Option<i64>, ours: i64) -> Option<i64> {
    let write = |count: i64| writes.iter().find(|wrote| wrote.count == count);
    let bases = writes.iter().filter_map(|wrote| wrote.base).filter(|base| *base < ours);
    let known = bases.chain(known).max()?;
    let mut lowest = write(ours)?;
    // As many steps as we have writes, at most.
    while let Some(beneath) = write(lowest.count.checked_sub(1)?).filter(|beneath| beneath.count > known) {
        lowest = beneath;
    }
    let beneath = lowest.count.checked_sub(1)?;
    (beneath > known && !lowest.overlaid).then_some(beneath)
}

/// Makes the event of our own change the event of the one beneath it.
pub fn beneath(event: &Event, body: &mut Value, count: i64) {
    if let Some(place) = event.changes_at.as_ref().and_then(|at| body.pointer_mut(at)) {
        *place = if place.is_string() { count.to_string().into() } else { count.into() };
    }
    if let Some(author) = event.author.as_ref().and_then(|author| body.pointer_mut(author)) {
        *author = "".into();
    }
}

/// Whether an event has no author's name: one that was found beneath a write of ours.
fn is_nobodys(event: &Event, body: &Value) -> bool {
    event.author.as_ref().and_then(|author| body.pointer(author)).and_then(Value::as_str) == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrote(count: i64, base: Option<i64>, overlaid: bool) -> Wrote {
        Wrote { object: "o".into(), count, base, overlaid }
    }

    #[test]
    fn what_lies_beneath_our_writes() {
        let plain = |count, base| wrote(count, base, false);
        for (what, writes, known, ours, expected) in [
            ("Ann's, beneath ours", vec![plain(6, None)], Some(4), 6, Some(5)),
            ("both ours", vec![plain(6, None), plain(5, None)], Some(4), 6, None),
            ("the latest of two", vec![plain(7, None)], Some(4), 7, Some(6)),
            ("beneath both of ours", vec![plain(7, None), plain(6, None)], Some(4), 7, Some(5)),
            ("between ours", vec![plain(7, None), plain(5, None)], Some(4), 7, Some(6)),
            ("the run was started by 5", vec![plain(6, Some(5))], None, 6, None),
            ("the run was started by 4", vec![plain(6, Some(4))], None, 6, Some(5)),
            ("heard of since", vec![plain(6, Some(4))], Some(5), 6, None),
            ("seen before", vec![plain(6, Some(4))], Some(6), 6, None),
            ("nobody knows what was before", vec![plain(6, None)], None, 6, None),
            ("not recorded", vec![plain(5, Some(4))], Some(4), 7, None),
            ("nothing recorded", vec![], Some(4), 6, None),
            ("a run on what was beneath", vec![wrote(8, Some(6), true)], Some(6), 8, None),
            ("the first of all", vec![plain(0, None)], Some(0), 0, None),
            ("as low as it goes", vec![plain(i64::MIN, None)], Some(i64::MIN), i64::MIN, None),
        ] {
            assert_eq!(overlaid(&writes, known, ours), expected, "{what}");
        }
    }

    #[test]
    fn a_change_is_named_by_what_identifies_it() {
        let event: Event = serde_json::from_value(json!({
            "identity": ["/id", "/n"], "author": "/by", "changes_at": "/n",
        }))
        .unwrap();
        let body = json!({"id": "a", "n": "5", "by": "ann"});
        let change = of(&event, "desk", &body).unwrap();
        assert_eq!(change.count, 5);
        assert_eq!(of(&event, "desk", &json!({"id": "a", "n": 6})).unwrap().object, change.object);
        assert_ne!(of(&event, "other", &body).unwrap().object, change.object);
        for bad in [json!({"id": "a"}), json!({"n": 1}), json!({"id": "a", "n": "five"}), json!([])] {
            assert_eq!(of(&event, "desk", &bad), None, "{bad}");
        }
        for (count, expected) in [(json!("6"), json!("5")), (json!(6), json!(5))] {
            let mut ours = json!({"id": "a", "n": count, "by": "us"});
            beneath(&event, &mut ours, 5);
            assert_eq!(ours, json!({"id": "a", "n": expected, "by": ""}));
            assert!(is_nobodys(&event, &ours) && !is_nobodys(&event, &body));
        }
        let uncounted = Event { changes_at: None, ..event };
        assert_eq!(of(&uncounted, "desk", &body), None);
    }
}
