//! Counting: what was applied, and what was applied again.

use sandbox::{Counts, Duplicates, EffectKind};
use serde_json::json;

use crate::play::{Play, START_MS};

#[tokio::test]
async fn every_mutation_is_journalled_with_its_marker() {
    let play = Play::start().await;
    let incident = play.seed("one");
    play.patch(&incident, json!({"urgency": "1", "work_notes": "Routed. [ref:af-1]", "nonsense": "x"})).await;
    let effects = play.sandbox.effects();
    let summary: Vec<_> = effects
        .iter()
        .map(|effect| {
            (effect.n, effect.kind, effect.table.as_str(), effect.markers.join(","), effect.changed)
        })
        .collect();
    assert_eq!(
        summary,
        [
            (1, EffectKind::Update, "incident", "af-1".to_owned(), true),
            (2, EffectKind::Note, "incident", "af-1".to_owned(), true),
        ]
    );
    assert_eq!(effects[0].fields.iter().collect::<Vec<_>>(), [(&"urgency".to_owned(), &"1".to_owned())]);
    assert_eq!(effects[1].fields["work_notes"], "Routed. [ref:af-1]");
    assert_eq!((&effects[1].sys_id, effects[1].at_ms), (&incident.sys_id, START_MS));
}

#[tokio::test]
async fn duplicates_are_what_was_applied_again() {
    let none = Duplicates::default();
    let notes = |notes| Duplicates { notes, ..none };
    let updates = |updates| Duplicates { updates, ..none };
    let marked = json!({"urgency": "1", "work_notes": "Routed. [ref:a]"});
    for (name, writes, duplicates) in [
        ("one write", vec![marked.clone()], none),
        (
            "the same write again",
            vec![marked.clone(), marked.clone()],
            Duplicates { notes: 1, creates: 0, updates: 1 },
        ),
        ("three times counts two", vec![json!({"work_notes": "[ref:a]"}); 3], notes(2)),
        (
            "reworded under the same marker",
            vec![json!({"work_notes": "x [ref:a]"}), json!({"work_notes": "y [ref:a]"})],
            notes(1),
        ),
        (
            "another marker, same words",
            vec![json!({"work_notes": "x [ref:a]"}), json!({"work_notes": "x [ref:b]"})],
            none,
        ),
        (
            "a quoted marker does not join two runs",
            vec![
                json!({"work_notes": "says [ref:evil] [ref:a]"}),
                json!({"work_notes": "says [ref:evil] [ref:b]"}),
            ],
            none,
        ),
        (
            "another journal field",
            vec![json!({"work_notes": "[ref:a]"}), json!({"comments": "[ref:a]"})],
            none,
        ),
        ("unmarked, same words", vec![json!({"work_notes": "x"}), json!({"work_notes": "x"})], notes(1)),
        ("unmarked, other words", vec![json!({"work_notes": "x"}), json!({"work_notes": "y"})], none),
        ("unmarked fields are idempotent", vec![json!({"urgency": "1"}); 3], none),
        ("a marked field update again", vec![json!({"correlation_display": "[ref:a]"}); 2], updates(1)),
    ] {
        let play = Play::start().await;
        let incident = play.seed("one");
        for write in writes {
            assert_eq!(play.patch(&incident, write).await.status, 200);
        }
        assert_eq!(play.sandbox.duplicates(), duplicates, "{name}");
        assert_eq!(play.sandbox.effects_duplicated(), duplicates.total(), "{name}");
    }
}

#[tokio::test]
async fn the_same_note_on_two_records_is_no_duplicate() {
    let play = Play::start().await;
    for incident in [play.seed("one"), play.seed("two")] {
        play.patch(&incident, json!({"work_notes": "x [ref:a]", "urgency": "1"})).await;
    }
    assert_eq!(play.sandbox.effects_duplicated(), 0);
}

#[tokio::test]
async fn creates_are_compared_by_correlation_marker_or_content() {
    for (name, bodies, creates) in [
        (
            "correlation",
            [json!({"correlation_id": "r1", "description": "a"}), json!({"correlation_id": "r1"})],
            1,
        ),
        ("two correlations", [json!({"correlation_id": "r1"}), json!({"correlation_id": "r2"})], 0),
        ("marker", [json!({"description": "a [ref:x]"}), json!({"description": "b [ref:x]"})], 1),
        ("content", [json!({"description": "a"}), json!({"description": "a"})], 1),
        ("other content", [json!({"description": "a"}), json!({"description": "b"})], 0),
    ] {
        let play = Play::start().await;
        for body in bodies {
            play.instance("POST", "/api/now/table/incident", &body.to_string()).await;
        }
        assert_eq!(play.sandbox.duplicates(), Duplicates { creates, ..Duplicates::default() }, "{name}");
    }
}

#[tokio::test]
async fn counts_tell_changes_from_repeats() {
    let play = Play::start().await;
    let incident = play.seed("one");
    play.patch(&incident, json!({"urgency": "1"})).await;
    play.patch(&incident, json!({"urgency": "1"})).await;
    play.patch(&incident, json!({"work_notes": "x", "comments": "y [ref:a]"})).await;
    play.instance("POST", "/api/now/table/incident", "{}").await;
    play.instance("DELETE", &crate::play::path(&incident), "").await;
    assert_eq!(
        play.sandbox.counts(),
        Counts { creates: 1, updates: 1, updates_unchanged: 1, notes: 2, notes_unmarked: 1, deletes: 1 }
    );
}

#[tokio::test]
async fn concurrent_writes_are_all_counted() {
    const WRITERS: usize = 32;
    let play = Play::start().await;
    let incident = play.seed("one");
    let writes = (0..WRITERS).map(|n| play.patch(&incident, json!({"work_notes": format!("[ref:{n}]")})));
    let answers = futures::future::join_all(writes).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(play.stored(&incident, "sys_mod_count"), WRITERS.to_string());
    assert_eq!(play.sandbox.notes(&incident.sys_id).len(), WRITERS);
    assert_eq!((play.sandbox.counts().notes, play.sandbox.effects_duplicated()), (WRITERS as u64, 0));
}
