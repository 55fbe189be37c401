//! The traps: one test each. A client that passes against this stand-in has met them.

use serde_json::{Value, json};

use crate::{
    play::{Play, path},
    servicenow::group,
};

#[tokio::test]
async fn a_note_is_appended_and_a_repeat_makes_two() {
    let play = Play::start().await;
    let incident = play.seed("one");
    for _ in 0..2 {
        let answer = play.patch(&incident, json!({"work_notes": "Routed. [ref:af-1]"})).await;
        // The record itself holds nothing.
        assert_eq!(answer.result()["work_notes"], "");
        play.advance_s(1);
    }
    play.patch(&incident, json!({"comments": "We are on it."})).await;

    let query =
        format!("sys_journal_field?sysparm_query=element_id={}%5Eelement=work_notes", incident.sys_id);
    let rows = play.get(&query).await.result();
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(
            [&row["value"], &row["name"], &row["sys_created_by"]],
            ["Routed. [ref:af-1]", "incident", "integration"]
        );
    }
    assert_ne!(rows[0]["sys_id"], rows[1]["sys_id"]);
    // Reconciliation: the marker finds the note.
    let marked = play.get("sys_journal_field?sysparm_query=valueLIKE[ref:af-1]").await;
    assert_eq!(marked.header("x-total-count"), Some("2"));

    // Shown, it is the joined text, newest first.
    let shown = play.get(&format!("incident/{}?sysparm_display_value=true", incident.sys_id)).await.result();
    assert_eq!(
        shown["work_notes"],
        "2026-11-21 03:41:13 - Integration User (Work notes)\nRouted. [ref:af-1]\n\n\
         2026-11-21 03:41:12 - Integration User (Work notes)\nRouted. [ref:af-1]\n\n"
    );
    assert!(shown["comments"].as_str().expect("text").contains("(Additional comments)\nWe are on it."));
    assert_eq!(play.sandbox.effects_duplicated(), 1);
}

#[tokio::test]
async fn an_empty_note_is_no_note() {
    let play = Play::start().await;
    let incident = play.seed("one");
    play.patch(&incident, json!({"work_notes": "", "comments": null})).await;
    assert_eq!(play.sandbox.notes(&incident.sys_id), []);
    assert_eq!(play.stored(&incident, "sys_mod_count"), "0");
}

#[tokio::test]
async fn of_several_records_only_the_first_is_worked_on() {
    let play = Play::start().await;
    for (body, first) in [
        (json!([{"short_description": "a"}, {"short_description": "b"}]), "a"),
        (json!({"records": [{"short_description": "c"}, {"short_description": "d"}]}), "c"),
    ] {
        let answer = play.instance("POST", "/api/now/table/incident", &body.to_string()).await;
        assert_eq!((answer.status, &answer.result()["short_description"]), (201, &json!(first)));
    }
    assert_eq!(play.sandbox.counts().creates, 2);
}

#[tokio::test]
async fn records_carry_no_etag_and_preconditions_are_ignored() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let answer = crate::client::send(
        play.sandbox.base_url(),
        "PATCH",
        &path(&incident),
        &[("authorization", crate::play::TOKEN), ("if-match", "\"stale\"")],
        br#"{"urgency": "1"}"#,
    )
    .await
    .expect("a reply");
    assert_eq!((answer.status, answer.header("etag")), (200, None));
    assert_eq!(play.stored(&incident, "urgency"), "1");
}

#[tokio::test]
async fn the_modification_count_moves_only_with_a_change() {
    let play = Play::start().await;
    let incident = play.seed("one");
    for (body, count, updated_by) in [
        (json!({}), "0", "service.desk"),
        (json!({"short_description": "one"}), "0", "service.desk"),
        (json!({"short_description": "two"}), "1", "integration"),
        (json!({"short_description": "two"}), "1", "integration"),
        (json!({"work_notes": "seen"}), "2", "integration"),
        // Computed anew to what it was: no change.
        (json!({"priority": "1"}), "2", "integration"),
    ] {
        play.advance_s(10);
        let record = play.patch(&incident, body.clone()).await.result();
        assert_eq!([&record["sys_mod_count"], &record["sys_updated_by"]], [count, updated_by], "{body}");
    }
    assert_eq!(play.stored(&incident, "sys_updated_on"), "2026-11-21 03:42:02");
}

#[tokio::test]
async fn priority_is_computed_whatever_was_written() {
    let play = Play::start().await;
    let incident = play.seed("one");
    for (body, priority) in [
        (json!({"priority": "1"}), "5"),
        (json!({"impact": "1", "urgency": "1", "priority": "4"}), "1"),
        (json!({"impact": "2"}), "2"),
        (json!({"urgency": "2"}), "3"),
        (json!({"urgency": "3"}), "4"),
        (json!({"impact": "none"}), "5"),
    ] {
        assert_eq!(play.patch(&incident, body.clone()).await.result()["priority"], priority, "{body}");
    }
}

#[tokio::test]
async fn resolving_demands_a_known_code_and_notes() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let policy =
        |fields: &str| format!("Data Policy Exception: The following fields are mandatory: {fields}");
    for (body, fields) in [
        (json!({"state": "6"}), "Resolution code, Resolution notes"),
        (json!({"state": "7", "close_notes": "done"}), "Resolution code"),
        (json!({"state": "6", "close_code": "User error"}), "Resolution notes"),
        // A code that the instance does not know is stored empty, and then it is missing.
        (
            json!({"state": "6", "close_code": "Closed/Resolved by Caller", "close_notes": "x"}),
            "Resolution code",
        ),
    ] {
        let mut body = body;
        body["work_notes"] = json!("must not appear");
        let answer = play.patch(&incident, body.clone()).await;
        let error = answer.json();
        assert_eq!((answer.status, &error["error"]["detail"]), (403, &json!(policy(fields))), "{body}");
    }
    assert_eq!(play.sandbox.effects(), []);
    assert_eq!(play.stored(&incident, "state"), "1");

    let done = json!({"state": 6, "close_code": "Solution provided", "close_notes": "rebooted"});
    let record = play.patch(&incident, done).await.result();
    assert_eq!(
        [&record["state"], &record["resolved_at"], &record["active"]],
        ["6", "2026-11-21 03:41:12", "true"]
    );
    let record = play.patch(&incident, json!({"state": "7"})).await.result();
    assert_eq!(record["active"], "false");
}

#[tokio::test]
async fn an_unresolvable_reference_is_stored_empty_with_200() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let storage = group(&play, "Storage");
    let nobody = "0".repeat(32);
    for (display_input, written, stored) in [
        ("false", storage.as_str(), storage.as_str()),
        ("false", "Storage", ""),
        ("true", "Storage", &storage),
        ("true", "storage", &storage),
        ("true", &storage, &storage),
        ("true", "Stroage", ""),
        ("false", &nobody, ""),
        ("true", "", ""),
    ] {
        let target = format!("{}?sysparm_input_display_value={display_input}", path(&incident));
        let answer = play.instance("PATCH", &target, &json!({"assignment_group": written}).to_string()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(play.stored(&incident, "assignment_group"), stored, "{display_input} {written}");
    }
}

#[tokio::test]
async fn what_may_not_be_written_is_dropped_with_200() {
    let play =
        Play::with(|config| config.servicenow.protected_fields = vec!["incident.assignment_group".into()])
            .await;
    let incident = play.seed("one");
    let before = play.sandbox.record("incident", &incident.sys_id);
    for body in [
        json!({"assignment_group": group(&play, "Access")}),
        json!({"sys_id": "0".repeat(32), "number": "INC1", "sys_mod_count": "9", "sys_updated_by": "x"}),
        json!({"no_such_field": "x"}),
        json!({"urgency": {"value": "1"}, "impact": ["1"]}),
    ] {
        assert_eq!(play.patch(&incident, body.clone()).await.status, 200, "{body}");
        assert_eq!(play.sandbox.record("incident", &incident.sys_id), before, "{body}");
    }
    assert_eq!(play.sandbox.effects(), []);
    // The rest of the same write is applied.
    play.patch(&incident, json!({"assignment_group": group(&play, "Access"), "urgency": "1"})).await;
    assert_eq!(
        (play.stored(&incident, "assignment_group"), play.stored(&incident, "urgency")),
        (String::new(), "1".to_owned())
    );
}

#[tokio::test]
async fn long_text_is_cut_with_200() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let record = play.patch(&incident, json!({"short_description": "ä".repeat(200)})).await.result();
    assert_eq!(record["short_description"], "ä".repeat(160));
}

#[tokio::test]
async fn a_condition_on_an_unknown_field_returns_everything() {
    for (returns_no_rows, found) in [(false, 2), (true, 0)] {
        let play =
            Play::with(|config| config.servicenow.invalid_query_returns_no_rows = returns_no_rows).await;
        play.seed("one");
        play.seed("two");
        let rows = play.get("incident?sysparm_query=numbr=INC0010001").await.result();
        assert_eq!(rows.as_array().map(Vec::len), Some(found));
    }
}

#[tokio::test]
async fn a_chosen_sys_id_is_kept_and_cannot_be_taken_twice() {
    let play = Play::start().await;
    let body = json!({"sys_id": "AAAABBBBCCCCDDDDEEEEFFFF00001111"}).to_string();
    let first = play.instance("POST", "/api/now/table/incident", &body).await;
    assert_eq!((first.status, &first.result()["sys_id"]), (201, &json!("AAAABBBBCCCCDDDDEEEEFFFF00001111")));
    assert_eq!(play.instance("POST", "/api/now/table/incident", &body).await.status, 403);
    assert_eq!(play.sandbox.counts().creates, 1);
}

#[tokio::test]
async fn labels_are_read_only_where_display_input_is_asked_for() {
    let play = Play::start().await;
    let incident = play.seed("one");
    for (display_input, stored) in [("true", "2"), ("false", "In Progress")] {
        let target = format!("{}?sysparm_input_display_value={display_input}", path(&incident));
        play.instance("PATCH", &target, r#"{"state": "In Progress"}"#).await;
        assert_eq!(play.stored(&incident, "state"), stored);
    }
}

#[tokio::test]
async fn a_person_may_be_faster() {
    let play = Play::start().await;
    let incident = play.seed("one");
    let fields: Value = json!({"assignment_group": "HR Support", "work_notes": "mine"});
    let fields = fields.as_object().expect("an object");
    play.sandbox.incident_edit(&incident.sys_id, "beth.anglin", fields).expect("edited");
    let record = play
        .get(&format!(
            "incident/{}?sysparm_display_value=true&sysparm_exclude_reference_link=true",
            incident.sys_id
        ))
        .await
        .result();
    assert_eq!(
        [&record["assignment_group"], &record["sys_mod_count"], &record["sys_updated_by"]],
        ["HR Support", "1", "beth.anglin"]
    );
    assert!(record["work_notes"].as_str().expect("text").contains("Beth Anglin (Work notes)\nmine"));
    // Not the client's doing.
    assert_eq!(play.sandbox.effects(), []);
}
