//! What is printed: a table for people, JSON or YAML for programs.
//!
//! A table may leave out columns and cut prose, because a line has an end. It never cuts what somebody copies: an id, a
//! digest, a key, an address. `prn_0192f6c1…` looks like an id, is pasted into the next command, and names nothing; half a
//! secret that is shown once is lost for good.
//!
//! `writ run list | head -1` closes the pipe while we still write. That is the reader's good right and no failure: what is
//! left to print is dropped and the command ends as it would have ended. The macros of the standard library panic in that
//! case, so everything that prints goes through [`say`], [`told`] or [`note`]; a lint keeps it so.

use crate::exit::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use kernel::calendar;
use serde_json::Value;
use std::io::{self, Write};

/// Writes lines to standard output. A reader that has gone away is not an error.
pub fn say(text: &str) -> Result<(), Failure> {
    told(text).map(|_| ())
}

/// The same; `false` if nobody reads any more, for commands that would go on for ever.
pub fn told(text: &str) -> Result<bool, Failure> {
    Ok(write(&mut io::stdout().lock(), text)?)
}

/// Writes lines to standard error, as well as that goes.
pub fn note(text: &str) {
    // Where nobody reads what went wrong, there is nobody to tell that either; the exit code still says it.
    let _ = write(&mut io::stderr().lock(), text);
}

fn write(out: &mut dyn Write, text: &str) -> io::Result<bool> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people who paste it somewhere.
    Yaml,
}

/// Columns shown first, where a list's items have them.
const LEADING: &[&str] = &[
    "id",
    "webhook",
    "run",
    "level",
    "name",
    "role",
    "scope",
    "principal",
    "target",
    "state",
    "measure",
    "period",
    "amount",
    "spent",
    "held",
    "left",
    "ticket",
    "project",
    "status",
    "outcome",
    "act",
    "workflow",
    "model",
    "kind",
    "requester",
    "tier",
    "age_ms",
    "may_decide",
    "roles",
    "cost_micros",
    "cost_per_run_micros",
    "calls",
    "runs",
    "last_used_at_ms",
    "expires_at_ms",
    "requested_at_ms",
    "created_at_ms",
    "at_ms",
];
/// Most columns of a list.
const COLUMNS_MAX: usize = 8;
/// Longest prose in a cell, in characters. What has no white space in it is a name, and is shown whole.
const CELL_MAX: usize = 60;

/// Renders a value.
pub fn render(value: &Value, format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.to_string()))
        }
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| Failure::Other(error.to_string())),
        Format::Table => Ok(match (value, value["items"].as_array()) {
            // CSV and pages are files; they are written as they came, for whoever redirects them.
            (Value::String(text), _) => text.lines().map(clean).collect::<Vec<_>>().join("\n"),
            (_, Some(items)) => list(items),
            (_, None) => properties(value),
        }),
    }
}

fn list(items: &[Value]) -> String {
    let Some(first) = items.first().and_then(Value::as_object) else { return "(none)".into() };
    if first.get("fact").is_some_and(Value::is_object) {
        return facts(items);
    }
    let plain = |name: &str| first.get(name).is_some_and(|value| !value.is_object());
    let mut columns: Vec<&str> = LEADING.iter().copied().filter(|name| plain(name)).collect();
    columns.extend(first.keys().map(String::as_str).filter(|name| plain(name) && !LEADING.contains(name)));
    columns.truncate(COLUMNS_MAX);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| heading(name).to_uppercase()));
    for item in items {
        table.add_row(
            columns.iter().map(|name| time(name, &item[*name]).unwrap_or_else(|| cell(&item[*name]))),
        );
    }
    table.trim_fmt()
}

/// Facts have columns of their own: when, what, by whom, how it was decided, and of what its outcome speaks.
fn facts(items: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["AT", "KIND", "ACTOR", "DECISION", "STEP/CODE"]);
    for item in items {
        let outcome = &item["fact"]["outcome"];
        // A fact of a step names it, one that failed says why, and one that ended says how.
        let said = ["step", "code", "outcome", "status"].map(|name| outcome[name].as_str());
        let said = match said {
            [step, None, Some(ended), _] | [step, None, None, Some(ended)] => [step, Some(ended)],
            [step, code, _, _] => [step, code],
        };
        let said = said.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let at = time("at_ms", &item["at_ms"]).unwrap_or_else(|| cell(&item["at_ms"]));
        let said = if said.is_empty() { "-".to_owned() } else { cut(&said) };
        table.add_row([at, cell(&item["kind"]), cell(&item["actor"]), cell(&item["decision"]), said]);
    }
    table.trim_fmt()
}

fn properties(value: &Value) -> String {
    let Some(object) = value.as_object() else { return whole(value) };
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in object {
        table.add_row([heading(name).to_owned(), time(name, value).unwrap_or_else(|| whole(value))]);
    }
    table.trim_fmt()
}

/// What the API calls `requested_at_ms` is a date to people, and `requested_at`.
fn heading(name: &str) -> &str {
    if is_time(name) { name.trim_end_matches("_ms") } else { name }
}

fn is_time(name: &str) -> bool {
    ["at_ms", "until_ms"]
        .iter()
        .any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
}

/// A time in UTC, if that is what the member of this name holds.
fn time(name: &str, value: &Value) -> Option<String> {
    value.as_i64().filter(|at_ms| is_time(name) && *at_ms > 0).map(|at_ms| calendar::text(at_ms) + "Z")
}

/// A value in full. What people are shown before they decide comes line by line.
fn whole(value: &Value) -> String {
    let labelled =
        |item: &Value| Some(clean(&format!("{}: {}", item["label"].as_str()?, item["text"].as_str()?)));
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => cleaned(text),
        Value::Array(items) if !items.is_empty() => {
            match items.iter().map(labelled).collect::<Option<Vec<_>>>() {
                Some(lines) => lines.join("\n"),
                None => nested(value),
            }
        }
        Value::Object(members) if !members.is_empty() => nested(value),
        other => clean(&other.to_string()),
    }
}

/// A source or a report keeps its lines.
fn cleaned(text: &str) -> String {
    text.trim_end().lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// What has parts stands in one line as long as that is short.
fn nested(value: &Value) -> String {
    let line = value.to_string();
    if line.chars().count() <= CELL_MAX {
        return clean(&line);
    }
    // Plain data always serialises.
    cleaned(&serde_json::to_string_pretty(value).unwrap_or(line))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => cut(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            names(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>())
        }
        other => cut(&other.to_string()),
    }
}

fn cut(text: &str) -> String {
    let text = clean(text);
    if text.contains(' ') && text.chars().count() > CELL_MAX {
        text.chars().take(CELL_MAX - 1).chain(['…']).collect()
    } else {
        text
    }
}

/// As many names as fit, each of them whole, and how many more there are.
fn names(items: &[&str]) -> String {
    let mut line = String::new();
    for (at, item) in items.iter().enumerate() {
        let item = clean(item);
        if at > 0 && line.chars().count() + item.chars().count() > CELL_MAX {
            return format!("{line} +{} more", items.len() - at);
        }
        if at > 0 {
            line.push(',');
        }
        line.push_str(&item);
    }
    line
}

/// Takes out what could move the cursor or turn the direction of the line: names and texts come from anybody.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            let turns =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || turns { '·' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_dates_to_people_and_numbers_to_programs() {
        let run = json!({"id": "run_1", "at_ms": 1_795_232_472_123_i64, "lease_ms": 30_000, "float_ms": 2});
        for value in [json!({"items": [run]}), run] {
            let text = render(&value, Format::Table).unwrap();
            assert!(text.contains("2026-11-21 03:41:12Z") && text.contains("30000"), "{text}");
            assert!(!text.to_lowercase().contains(" at_ms") && !text.contains("1795232472123"), "{text}");
            assert!(render(&value, Format::Json).unwrap().contains("1795232472123"));
        }
        assert!(render(&json!({"expires_at_ms": null}), Format::Table).unwrap().ends_with("expires_at  -"));
    }

    #[test]
    fn facts_say_when_what_who_how_decided_and_of_what() {
        let fact = |kind: &str, decision: Value, outcome: Value| {
            json!({"index": 7, "kind": kind, "at_ms": 1_795_232_472_123_i64, "act": "flows.tool.call", "actor": "svc_flows",
                   "decision": decision, "fact": {"outcome": outcome}})
        };
        let items = json!({"items": [
            fact("flows.tool.intended", json!("ALLOW"), json!({"step": "fetch", "action": "incident.get"})),
            fact("flows.tool.finished", Value::Null, json!({"step": "fetch", "outcome": "failed", "code": "flows.throttled"})),
            fact("flows.run.finished", Value::Null, json!({"outcome": "done\u{1b}"})),
            fact("models.call.finished", Value::Null, json!({"call": "cal_1", "status": "answered"})),
            fact("flows.run.created", Value::Null, json!({})),
        ], "next": "5"});
        let text = render(&items, Format::Table).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let at = ["2026-11-21", "03:41:12Z"];
        let row = |rest: &[&'static str]| [&at[..], rest].concat();
        assert_eq!(rows[0], ["AT", "KIND", "ACTOR", "DECISION", "STEP/CODE"]);
        assert_eq!(rows[1], row(&["flows.tool.intended", "svc_flows", "ALLOW", "fetch"]));
        assert_eq!(rows[2], row(&["flows.tool.finished", "svc_flows", "-", "fetch", "flows.throttled"]));
        assert_eq!(rows[3], row(&["flows.run.finished", "svc_flows", "-", "done·"]));
        assert_eq!(rows[4], row(&["models.call.finished", "svc_flows", "-", "answered"]));
        assert_eq!(rows[5], row(&["flows.run.created", "svc_flows", "-", "-"]));
        assert!(!text.contains("flows.tool.call") && !text.contains("INDEX"));
    }

    #[test]
    fn d10_hostile_text_stays_in_its_cell() {
        let items = json!({"items": [{"id": "run_1", "name": "a\u{1b}[2Jb\nc\u{202e}d", "x": {"y": 1}}]});
        let text = render(&items, Format::Table).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("a·[2Jb·c·d"), "{text}");
        assert_eq!(render(&json!({"items": []}), Format::Table).unwrap(), "(none)");
    }

    #[test]
    fn what_is_copied_is_never_cut_and_prose_is() {
        let (digest, secret) = ("a".repeat(64), format!("key_{}.{}", "b".repeat(32), "c".repeat(64)));
        let people = vec!["prn_00000000000000000000000000000001"; 3];
        let items = json!({"items": [{
            "id": secret, "digest": digest, "text": "word ".repeat(40), "people": people, "x": [1, 2],
        }]});
        let text = render(&items, Format::Table).unwrap();
        assert!(text.contains(&digest) && text.contains(&secret), "{text}");
        assert!(
            text.contains("word w") && text.contains('…') && !text.contains(&"word ".repeat(13)),
            "{text}"
        );
        assert!(text.contains(&format!("{} +2 more", people[0])), "{text}");
        let made = render(&json!({"key": "key_1", "api_key": secret}), Format::Table).unwrap();
        assert!(made.contains(&secret), "{made}");
    }

    #[test]
    fn a_reader_that_has_gone_is_noticed_and_no_failure() {
        struct Gone(io::ErrorKind);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(!write(&mut Gone(io::ErrorKind::BrokenPipe), "x").unwrap());
        assert!(write(&mut Gone(io::ErrorKind::StorageFull), "x").is_err());
        assert!(write(&mut Vec::new(), "x").unwrap());
    }

    #[test]
    fn a_text_is_written_line_by_line() {
        let csv = json!("ticket,cost\r\nINC1\u{1b}[2J,0.5\r\n");
        assert_eq!(render(&csv, Format::Table).unwrap(), "ticket,cost\nINC1·[2J,0.5");
    }

    #[test]
    fn one_thing_is_shown_whole() {
        let digest = "a".repeat(64);
        let preview = json!([{"label": "Call", "text": "x\ny"}, {"label": "Group", "text": "Hardware"}]);
        let text =
            render(&json!({"digest": digest, "preview": preview, "none": null}), Format::Table).unwrap();
        assert!(
            text.contains(&digest) && text.contains("Call: x·y\n") && text.contains("Group: Hardware"),
            "{text}"
        );
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }

    #[test]
    fn programs_get_the_value_itself() {
        let value = json!({"items": [{"id": "a"}], "n": 3});
        assert_eq!(serde_json::from_str::<Value>(&render(&value, Format::Json).unwrap()).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&render(&value, Format::Yaml).unwrap()).unwrap(), value);
    }
}
