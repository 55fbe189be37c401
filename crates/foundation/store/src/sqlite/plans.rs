//! What SQLite makes of the statements whose cost must not grow with the table: every one seeks, none sorts.

use super::{jobs, ledger, reads, schema};
use crate::Range;
use kernel::Id;
use rusqlite::Connection;

fn plan(db: &Connection, sql: &str) -> Vec<String> {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let count = statement.parameter_count();
    let rows = statement.query_map(rusqlite::params_from_iter(vec![None::<i64>; count]), |row| row.get(3));
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

fn database() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let db = schema::open_writer(&folder.path().join("writ.db"), None).unwrap();
    (folder, db)
}

#[test]
fn lists_seek_by_their_narrowest_bounds_and_never_sort() {
    let (_folder, db) = database();
    let start = "SEARCH x USING PRIMARY KEY (tenant=? AND kind=? AND name=?";
    let cursor = Some((b"k".to_vec(), Id::parse("rec_a").unwrap()));
    for (prefix, after, descending, bounds) in [
        (&b"k"[..], None, false, " AND key>? AND key<?)"),
        (b"k", None, true, " AND key>? AND key<?)"),
        (b"", None, false, " AND key>?)"),
        (b"", None, true, " AND key>?)"),
        (b"k", cursor.clone(), false, " AND (key,id)>(?,?) AND key<?)"),
        (b"k", cursor.clone(), true, " AND key>? AND (key,id)<(?,?))"),
        (b"", cursor.clone(), false, " AND (key,id)>(?,?))"),
        (b"", cursor, true, " AND key>? AND (key,id)<(?,?))"),
    ] {
        let range = Range { index: "i", prefix: prefix.to_vec(), after, descending, limit: 10 };
        let lines = plan(&db, &reads::list_sql(&range).0);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], format!("{start}{bounds}"), "{range:?}");
        assert!(
            lines[1].starts_with(
                "SEARCH r USING INDEX sqlite_autoindex_records_1 (tenant=? AND kind=? AND id=?)"
            )
        );
    }
}

#[test]
fn jobs_are_found_without_walking_over_others() {
    let (_folder, db) = database();
    for (sql, expected) in [
        (jobs::NEXT_SQL, vec!["SEARCH jobs USING INDEX jobs_turn (ready=? AND tenant>?)"]),
        (jobs::READY_SQL, vec!["SEARCH jobs USING COVERING INDEX jobs_due (ready=? AND due_ms<?)"]),
        (
            jobs::NEXT_DUE_SQL,
            vec![
                "SEARCH jobs USING COVERING INDEX jobs_due (ready=?)",
                "SEARCH jobs USING COVERING INDEX jobs_due (ready=?)",
            ],
        ),
        (
            jobs::LIST_SQL,
            vec![
                "SEARCH jobs USING INDEX jobs_turn (ready=? AND tenant=?)",
                "SEARCH jobs USING INDEX jobs_turn (ready=? AND tenant=?)",
            ],
        ),
    ] {
        let lines = plan(&db, sql);
        let searches: Vec<_> =
            lines.iter().filter(|line| line.contains("USING") && line.contains("INDEX")).collect();
        assert_eq!(searches, expected, "{sql}: {lines:?}");
        assert!(
            !lines.iter().any(|line| line.contains("TEMP B-TREE") || line.starts_with("SCAN jobs")),
            "{lines:?}"
        );
    }
}

#[test]
fn statements_and_holds_cost_what_they_return() {
    let (_folder, db) = database();
    for (sql, expected) in [
        (
            ledger::STATEMENT_SQL,
            vec![
                "SEARCH transfers USING INDEX transfers_debit (tenant=? AND debit=? AND n<?)",
                "SEARCH transfers USING INDEX transfers_credit (tenant=? AND credit=? AND n<?)",
            ],
        ),
        (ledger::DUE_SQL, vec!["SEARCH holds USING COVERING INDEX holds_due (expires_at_ms<?)"]),
        (
            ledger::ENDS_SQL,
            vec!["SEARCH transfers USING COVERING INDEX transfers_hold (tenant=? AND hold=?)"],
        ),
    ] {
        let lines = plan(&db, sql);
        let searches: Vec<_> =
            lines.iter().filter(|line| line.contains("USING") && line.contains("INDEX")).collect();
        assert_eq!(searches, expected, "{sql}: {lines:?}");
        assert!(
            !lines.iter().any(|line| line.starts_with("SCAN transfers") || line.starts_with("SCAN holds")),
            "{lines:?}"
        );
    }
}

/// The writer asks this of every new stream. Planned anew for each, it took a quarter of the writer's time.
#[test]
fn a_statement_is_planned_once_whatever_is_bound_to_it() {
    let (folder, writer) = database();
    let reader = schema::open_reader(&folder.path().join("writ.db")).unwrap();
    for db in [&writer, &reader] {
        let mut statement = db
            .prepare(
                "SELECT stream_n FROM facts WHERE tenant = ? AND stream = ? ORDER BY stream_n DESC LIMIT 1",
            )
            .unwrap();
        for stream in ["run_a", "run_b", "run_c"] {
            assert!(!statement.exists(["ten_a", stream]).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
