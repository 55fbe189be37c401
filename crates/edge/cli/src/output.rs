//! What is printed: a table for people, JSON or YAML for programs.

use crate::exit::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

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
    "run",
    "name",
    "status",
    "outcome",
    "act",
    "workflow",
    "model",
    "kind",
    "requester",
    "roles",
    "cost_micros",
    "cost_per_run_micros",
    "calls",
    "runs",
    "requested_at_ms",
    "created_at_ms",
    "at_ms",
];
/// Most columns of a list.
const COLUMNS_MAX: usize = 7;
/// Longest cell, in characters.
const CELL_MAX: usize = 60;

/// Renders a value.
pub fn render(value: &Value, format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| Failure::Other(error.to_string()))
        }
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| Failure::Other(error.to_string())),
        Format::Table => Ok(match value["items"].as_array() {
            Some(items) => list(items),
            None => properties(value),
        }),
    }
}

fn list(items: &[Value]) -> String {
    let Some(first) = items.first().and_then(Value::as_object) else { return "(none)".into() };
    let plain = |name: &str| first.get(name).is_some_and(|value| !value.is_object());
    let mut columns: Vec<&str> = LEADING.iter().copied().filter(|name| plain(name)).collect();
    columns.extend(first.keys().map(String::as_str).filter(|name| plain(name) && !LEADING.contains(name)));
    columns.truncate(COLUMNS_MAX);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| name.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|name| cell(&item[*name])));
    }
    table.trim_fmt()
}

fn properties(value: &Value) -> String {
    let Some(object) = value.as_object() else { return whole(value) };
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for (name, value) in object {
        table.add_row([name.clone(), whole(value)]);
    }
    table.trim_fmt()
}

/// A value in full. What people are shown before they decide comes line by line.
fn whole(value: &Value) -> String {
    let labelled =
        |item: &Value| Some(clean(&format!("{}: {}", item["label"].as_str()?, item["text"].as_str()?)));
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items) if !items.is_empty() => {
            match items.iter().map(labelled).collect::<Option<Vec<_>>>() {
                Some(lines) => lines.join("\n"),
                None => clean(&value.to_string()),
            }
        }
        other => clean(&other.to_string()),
    }
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    let text = clean(&text);
    if text.chars().count() > CELL_MAX {
        text.chars().take(CELL_MAX - 1).chain(['…']).collect()
    } else {
        text
    }
}

/// Takes out what could move the cursor or turn the direction of the line: names and texts come from anybody.
fn clean(text: &str) -> String {
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
    fn hostile_text_stays_in_its_cell() {
        let items = json!({"items": [{"id": "run_1", "name": "a\u{1b}[2Jb\nc\u{202e}d", "x": {"y": 1}}]});
        let text = render(&items, Format::Table).unwrap();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("a·[2Jb·c·d"), "{text}");
        assert_eq!(render(&json!({"items": []}), Format::Table).unwrap(), "(none)");
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
