//! The state of the stand-in instance and the rules by which it changes: rows, journals, effects.
//!
//! One [`World`] sits behind one lock, so a write, its journal entries and its place in the effect journal
//! happen together or not at all. Everything that could refuse a write is checked before the first change.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::schema::{self, Field, Kind, Table, Writer};
use crate::{
    config::{Config, FIRST_NUMBER},
    effects::{self, Draft, EffectJournal, EffectKind},
    stamp,
};

/// Most rows of one table.
pub const MAX_RECORDS: usize = 20_000;
/// Most entries in `sys_journal_field`.
pub const MAX_JOURNAL_ENTRIES: usize = 100_000;
/// Most bytes of all values held, effects included.
pub const MAX_STATE_BYTES: usize = 256 << 20;

/// A row: every field of its table, by name.
pub(crate) type Row = BTreeMap<&'static str, String>;

/// Why the instance refuses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such table: 400.
    InvalidTable(String),
    /// The request cannot be read: 400.
    Unreadable(String),
    /// No such record: 404.
    NotFound,
    /// A rule or a right forbids it: 403.
    Forbidden(String),
    /// A bound of the stand-in is reached: 507. A real instance has no such answer.
    Full(&'static str),
}

/// A write as it came in.
pub(crate) struct Write<'a> {
    /// `user_name` of who writes.
    pub by: &'a str,
    pub at_ms: i64,
    pub input: &'a Map<String, Value>,
    /// `sysparm_input_display_value`: names instead of ids, labels instead of values.
    pub display_input: bool,
    /// Fields that a fault swallows.
    pub dropped: &'a [String],
    /// Whether it came from a client: rights apply, and it is an effect.
    pub from_client: bool,
}

#[derive(Default)]
pub(crate) struct Rows {
    /// In order of insertion.
    by_position: BTreeMap<u64, Row>,
    positions: HashMap<String, u64>,
    inserted: u64,
}

impl Rows {
    pub fn get(&self, sys_id: &str) -> Option<&Row> {
        self.by_position.get(self.positions.get(sys_id)?)
    }

    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.by_position.values()
    }

    fn put(&mut self, row: Row) {
        let sys_id = row.get("sys_id").cloned().unwrap_or_default();
        let position = *self.positions.entry(sys_id).or_insert_with(|| {
            self.inserted += 1;
            self.inserted
        });
        self.by_position.insert(position, row);
    }

    fn remove(&mut self, sys_id: &str) -> Option<Row> {
        self.by_position.remove(&self.positions.remove(sys_id)?)
    }
}

pub(crate) struct World {
    tables: BTreeMap<&'static str, Rows>,
    /// `sys_id`s of journal entries by the record that they are on, oldest first.
    journals: HashMap<String, Vec<String>>,
    pub effects: EffectJournal,
    protected: BTreeSet<String>,
    next_number: u64,
    ids: String,
    next_id: u64,
    bytes: usize,
}

/// A write after all rules, not yet applied.
struct Prepared {
    row: Row,
    /// Journal field and text.
    notes: Vec<(&'static str, String)>,
    /// What was taken over, as stored.
    accepted: BTreeMap<String, String>,
    markers: Vec<String>,
}

impl World {
    /// An instance with the configured groups and people.
    pub fn new(config: &Config, at_ms: i64) -> Result<World, Refusal> {
        let servicenow = &config.servicenow;
        let mut world = World {
            tables: schema::TABLES.iter().map(|table| (table.name, Rows::default())).collect(),
            journals: HashMap::new(),
            effects: EffectJournal::default(),
            protected: servicenow.protected_fields.iter().cloned().collect(),
            next_number: FIRST_NUMBER,
            ids: servicenow.ids.clone(),
            next_id: 0,
            bytes: 0,
        };
        world.user_add(&config.credentials.user_name, &servicenow.integration_name, at_ms)?;
        for person in &servicenow.people {
            world.user_add(&person.user_name, &person.name, at_ms)?;
        }
        for group in &servicenow.groups {
            world.group_add(group, at_ms)?;
        }
        Ok(world)
    }

    fn user_add(&mut self, user_name: &str, name: &str, at_ms: i64) -> Result<String, Refusal> {
        let id = stamp::id_of(schema::USER, user_name);
        self.seed(schema::USER, at_ms, &[("sys_id", &id), ("user_name", user_name), ("name", name)])
    }

    /// Adds a group; its `sys_id` is a function of its name.
    pub fn group_add(&mut self, name: &str, at_ms: i64) -> Result<String, Refusal> {
        let id = stamp::id_of(schema::GROUP, name);
        self.seed(schema::GROUP, at_ms, &[("sys_id", &id), ("name", name)])
    }

    fn seed(&mut self, table: &str, at_ms: i64, fields: &[(&str, &str)]) -> Result<String, Refusal> {
        let input: Map<String, Value> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
        let write = Write {
            by: "system",
            at_ms,
            input: &input,
            display_input: false,
            dropped: &[],
            from_client: false,
        };
        self.record_create(table_of(table)?, &write)
    }

    pub fn rows(&self, table: &Table) -> &Rows {
        // Every table of the schema got its rows in `new`.
        &self.tables[table.name]
    }

    fn rows_mut(&mut self, table: &Table) -> &mut Rows {
        self.tables.entry(table.name).or_default()
    }

    /// A 32-digit id that has not been given out.
    pub fn next_id(&mut self, kind: &str) -> String {
        self.next_id += 1;
        stamp::id_of(kind, &format!("{}{}", self.ids, self.next_id))
    }

    /// The display value of the record that a reference names, or "".
    pub fn display_of(&self, table: &str, sys_id: &str) -> &str {
        schema::table(table)
            .and_then(|table| self.rows(table).get(sys_id)?.get(table.display))
            .map_or("", String::as_str)
    }

    /// The kind and raw value at a dotted path, e.g. `assignment_group.name`. `None` where there is no such
    /// field; an empty reference has empty fields behind it.
    pub fn value_at<'a>(&'a self, table: &Table, row: &'a Row, path: &str) -> Option<(Kind, &'a str)> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let field = table.field(name)?;
        let value = row.get(name).map_or("", String::as_str);
        let Some(rest) = rest else { return Some((field.kind, value)) };
        let Kind::Reference(target) = field.kind else { return None };
        let target = schema::table(target)?;
        // Tables refer to one another without a cycle (a test of the schema), so this is shallow.
        match self.rows(target).get(value) {
            Some(row) => self.value_at(target, row, rest),
            None => field_at(target, rest).map(|kind| (kind, "")),
        }
    }

    /// The entries of a record's journal field, newest first, as the instance shows them.
    pub fn journal_text(&self, sys_id: &str, element: &str, label: &str) -> String {
        let mut text = String::new();
        for entry in self.journal_entries(sys_id).rev().filter(|entry| entry["element"] == element) {
            let by = &entry["sys_created_by"];
            let name = self.display_of(schema::USER, &stamp::id_of(schema::USER, by));
            let name = if name.is_empty() { by } else { name };
            text.push_str(&format!("{} - {name} ({label})\n{}\n\n", entry["sys_created_on"], entry["value"]));
        }
        text
    }

    /// The journal entries on a record, oldest first. A journal row has all fields of its table.
    pub fn journal_entries(&self, sys_id: &str) -> impl DoubleEndedIterator<Item = &Row> {
        let entries = self.journals.get(sys_id).map(Vec::as_slice).unwrap_or_default();
        let rows = &self.tables[schema::JOURNAL];
        entries.iter().filter_map(move |id| rows.get(id))
    }

    /// Inserts a record and returns its `sys_id`.
    pub fn record_create(&mut self, table: &'static Table, write: &Write<'_>) -> Result<String, Refusal> {
        self.may_write(table, write)?;
        let sys_id = match write.input.get("sys_id").and_then(Value::as_str) {
            Some(id) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                id.to_owned()
            }
            _ => self.next_id(table.name),
        };
        if self.rows(table).get(&sys_id).is_some() {
            let detail = format!("Unique Key violation detected by database ({}: {sys_id})", table.name);
            return Err(Refusal::Forbidden(detail));
        }
        let mut row: Row = table.fields.iter().map(|field| (field.name, field.default.to_owned())).collect();
        let now = stamp::date_time(write.at_ms);
        let user = stamp::id_of(schema::USER, write.by);
        let mut set = |name: &'static str, value: &str| {
            if let Some(slot) = row.get_mut(name) {
                *slot = value.to_owned();
            }
        };
        set("sys_id", &sys_id);
        set("sys_class_name", table.name);
        set("opened_at", &now);
        set("opened_by", &user);
        for (on, by) in [("sys_created_on", "sys_created_by"), ("sys_updated_on", "sys_updated_by")] {
            set(on, &now);
            set(by, write.by);
        }
        set("sys_mod_count", "0");
        if table.name == schema::INCIDENT {
            set("number", &format!("INC{:07}", self.next_number));
        }
        let prepared = self.prepare(table, row, write)?;
        let effects = 1 + prepared.notes.len();
        self.check_room(table, &prepared, 1, if write.from_client { effects } else { 0 })?;

        if table.name == schema::INCIDENT {
            self.next_number += 1;
        }
        if write.from_client {
            self.record_effect(EffectKind::Create, table, &sys_id, &prepared, true, write.at_ms);
        }
        self.notes_append(table, &sys_id, &prepared, write);
        self.row_put(table, prepared.row);
        Ok(sys_id)
    }

    /// Updates a record. Writing what is already there is accepted and changes nothing.
    pub fn record_update(
        &mut self,
        table: &'static Table,
        sys_id: &str,
        write: &Write<'_>,
    ) -> Result<(), Refusal> {
        self.may_write(table, write)?;
        let current = self.rows(table).get(sys_id).ok_or(Refusal::NotFound)?.clone();
        let mut prepared = self.prepare(table, current.clone(), write)?;
        let changed = prepared.row != current;
        let effects = usize::from(!prepared.accepted.is_empty()) + prepared.notes.len();
        self.check_room(table, &prepared, 0, if write.from_client { effects } else { 0 })?;

        if changed || !prepared.notes.is_empty() {
            let count = current.get("sys_mod_count").and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
            prepared.row.insert("sys_mod_count", (count + 1).to_string());
            prepared.row.insert("sys_updated_on", stamp::date_time(write.at_ms));
            prepared.row.insert("sys_updated_by", write.by.to_owned());
        }
        if write.from_client && !prepared.accepted.is_empty() {
            self.record_effect(EffectKind::Update, table, sys_id, &prepared, changed, write.at_ms);
        }
        self.notes_append(table, sys_id, &prepared, write);
        self.row_put(table, prepared.row);
        Ok(())
    }

    /// Deletes a record. Its journal entries stay, as on a real instance without a cascade rule.
    pub fn record_delete(&mut self, table: &'static Table, sys_id: &str, at_ms: i64) -> Result<(), Refusal> {
        if !table.writable {
            return Err(no_right(table));
        }
        if !self.effects.room(1) {
            return Err(Refusal::Full("effects"));
        }
        let row = self.rows_mut(table).remove(sys_id).ok_or(Refusal::NotFound)?;
        self.bytes -= bytes_of(&row);
        self.effects.push(Draft {
            table: table.name,
            sys_id,
            kind: EffectKind::Delete,
            markers: Vec::new(),
            correlation_id: row.get("correlation_id").map_or("", String::as_str),
            fields: &BTreeMap::new(),
            changed: true,
            at_ms,
        });
        Ok(())
    }

    fn may_write(&self, table: &Table, write: &Write<'_>) -> Result<(), Refusal> {
        if table.writable || !write.from_client { Ok(()) } else { Err(no_right(table)) }
    }

    /// Takes the input over into `row`, field by field, then runs the rules of the table.
    fn prepare(&self, table: &'static Table, mut row: Row, write: &Write<'_>) -> Result<Prepared, Refusal> {
        let mut notes = Vec::new();
        let mut accepted = BTreeMap::new();
        let mut texts = Vec::new();
        for (name, value) in write.input {
            let Some((field, text)) = table.field(name).zip(scalar(value)) else { continue };
            if !self.may_set(table, field, write) {
                continue;
            }
            texts.push(text.clone());
            if let Kind::Journal(_) = field.kind {
                if !text.is_empty() {
                    notes.push((field.name, text));
                }
                continue;
            }
            let stored = self.stored(field, &text, write.display_input);
            accepted.insert(field.name.to_owned(), stored.clone());
            row.insert(field.name, stored);
        }
        if table.name == schema::INCIDENT {
            incident_rules(&mut row, write)?;
        }
        let markers = effects::markers(texts.iter().map(String::as_str));
        Ok(Prepared { row, notes, accepted, markers })
    }

    fn may_set(&self, table: &Table, field: &Field, write: &Write<'_>) -> bool {
        let protected = || self.protected.contains(&format!("{}.{}", table.name, field.name));
        field.writer == Writer::Client
            && !write.dropped.iter().any(|dropped| dropped == field.name)
            && !(write.from_client && protected())
    }

    /// What the instance stores for a text written into a field.
    fn stored(&self, field: &Field, text: &str, display_input: bool) -> String {
        let by_label = |choices: &[(&str, &str)]| {
            let label = choices.iter().find(|(_, label)| display_input && label.eq_ignore_ascii_case(text));
            label.map(|(value, _)| (*value).to_owned())
        };
        match field.kind {
            Kind::Text(limit) => text.chars().take(limit).collect(),
            Kind::Integer => text.trim().parse::<i64>().map(|n| n.to_string()).unwrap_or_default(),
            Kind::Boolean => matches!(text.to_lowercase().as_str(), "true" | "1").to_string(),
            Kind::DateTime => text.to_owned(),
            Kind::Choice(choices) => by_label(choices).unwrap_or_else(|| text.to_owned()),
            Kind::StrictChoice(choices) => by_label(choices)
                .or_else(|| choices.iter().any(|(value, _)| *value == text).then(|| text.to_owned()))
                .unwrap_or_default(),
            Kind::Reference(target) => self.resolve(target, text, display_input).unwrap_or_default(),
            // Journals do not get here: their text is appended, not stored.
            Kind::Journal(_) => String::new(),
        }
    }

    /// The `sys_id` that a written reference means. What cannot be resolved is stored empty, with a 200.
    fn resolve(&self, target: &str, text: &str, display_input: bool) -> Option<String> {
        let target = schema::table(target)?;
        let rows = self.rows(target);
        if rows.get(text).is_some() {
            return Some(text.to_owned());
        }
        let named = |row: &&Row| row.get(target.display).is_some_and(|name| name.eq_ignore_ascii_case(text));
        rows.all().find(|row| display_input && !text.is_empty() && named(row))?.get("sys_id").cloned()
    }

    fn check_room(
        &self,
        table: &Table,
        prepared: &Prepared,
        rows: usize,
        effects: usize,
    ) -> Result<(), Refusal> {
        let notes = prepared.notes.len();
        let note_bytes: usize = prepared.notes.iter().map(|(_, text)| text.len()).sum();
        // Once as a row, at most once more as an effect.
        let bytes = 2 * (bytes_of(&prepared.row) + note_bytes);
        if self.rows(table).positions.len() + rows > MAX_RECORDS {
            Err(Refusal::Full("records"))
        } else if self.tables[schema::JOURNAL].positions.len() + notes > MAX_JOURNAL_ENTRIES {
            Err(Refusal::Full("journal entries"))
        } else if !self.effects.room(effects) {
            Err(Refusal::Full("effects"))
        } else if self.bytes + bytes > MAX_STATE_BYTES {
            Err(Refusal::Full("bytes"))
        } else {
            Ok(())
        }
    }

    fn record_effect(
        &mut self,
        kind: EffectKind,
        table: &Table,
        sys_id: &str,
        prepared: &Prepared,
        changed: bool,
        at_ms: i64,
    ) {
        self.bytes += prepared.accepted.values().map(String::len).sum::<usize>();
        self.effects.push(Draft {
            table: table.name,
            sys_id,
            kind,
            markers: prepared.markers.clone(),
            correlation_id: prepared.row.get("correlation_id").map_or("", String::as_str),
            fields: &prepared.accepted,
            changed,
            at_ms,
        });
    }

    fn notes_append(&mut self, table: &'static Table, sys_id: &str, prepared: &Prepared, write: &Write<'_>) {
        for (element, text) in &prepared.notes {
            let id = self.next_id(schema::JOURNAL);
            let row = Row::from([
                ("sys_id", id.clone()),
                ("name", table.name.to_owned()),
                ("element", (*element).to_owned()),
                ("element_id", sys_id.to_owned()),
                ("value", text.clone()),
                ("sys_created_on", stamp::date_time(write.at_ms)),
                ("sys_created_by", write.by.to_owned()),
            ]);
            self.bytes += bytes_of(&row);
            self.tables.entry(schema::JOURNAL).or_default().put(row);
            self.journals.entry(sys_id.to_owned()).or_default().push(id);
            if write.from_client {
                self.bytes += text.len();
                self.effects.push(Draft {
                    table: table.name,
                    sys_id,
                    kind: EffectKind::Note,
                    markers: effects::markers([text.as_str()]),
                    correlation_id: prepared.row.get("correlation_id").map_or("", String::as_str),
                    fields: &BTreeMap::from([((*element).to_owned(), text.clone())]),
                    changed: true,
                    at_ms: write.at_ms,
                });
            }
        }
    }

    fn row_put(&mut self, table: &Table, row: Row) {
        let old = row.get("sys_id").and_then(|id| self.rows(table).get(id)).map_or(0, bytes_of);
        self.bytes = self.bytes + bytes_of(&row) - old;
        self.rows_mut(table).put(row);
    }
}

/// The business rules and the data policy of `incident`.
fn incident_rules(row: &mut Row, write: &Write<'_>) -> Result<(), Refusal> {
    let get = |row: &Row, name: &str| row.get(name).cloned().unwrap_or_default();
    // Whatever was written into `priority` is written over.
    row.insert("priority", schema::priority(&get(row, "impact"), &get(row, "urgency")).to_owned());
    let state = get(row, "state");
    row.insert("active", (!schema::INACTIVE_STATES.contains(&state.as_str())).to_string());
    if schema::CLOSING_STATES.contains(&state.as_str()) {
        let missing: Vec<&str> = [("close_code", "Resolution code"), ("close_notes", "Resolution notes")]
            .into_iter()
            .filter(|(name, _)| get(row, name).is_empty())
            .map(|(_, label)| label)
            .collect();
        if !missing.is_empty() {
            let fields = missing.join(", ");
            let detail = format!("Data Policy Exception: The following fields are mandatory: {fields}");
            return Err(Refusal::Forbidden(detail));
        }
        if get(row, "resolved_at").is_empty() {
            row.insert("resolved_at", stamp::date_time(write.at_ms));
            row.insert("resolved_by", stamp::id_of(schema::USER, write.by));
        }
    } else {
        row.insert("resolved_at", String::new());
        row.insert("resolved_by", String::new());
    }
    Ok(())
}

/// The table of that name.
pub(crate) fn table_of(name: &str) -> Result<&'static Table, Refusal> {
    schema::table(name).ok_or_else(|| Refusal::InvalidTable(name.to_owned()))
}

/// The kind of the field at a dotted path. As deep as the schema's references go, whatever the path.
pub(crate) fn field_at(table: &Table, path: &str) -> Option<Kind> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let kind = table.field(name)?.kind;
    match (rest, kind) {
        (None, _) => Some(kind),
        (Some(rest), Kind::Reference(target)) => field_at(schema::table(target)?, rest),
        (Some(_), _) => None,
    }
}

fn no_right(table: &Table) -> Refusal {
    Refusal::Forbidden(format!("ACL Exception: insert, update or delete on {} is not allowed", table.name))
}

/// A JSON value as the text that the instance reads; objects and arrays are not read, and dropped.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn bytes_of(row: &Row) -> usize {
    row.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use serde_json::json;

    use super::{MAX_JOURNAL_ENTRIES, MAX_STATE_BYTES, Refusal, Row, World, Write, table_of};
    use crate::{
        config::{Config, Credentials},
        effects::{Draft, EffectKind, MAX_EFFECTS},
        servicenow::schema,
    };

    fn world() -> World {
        let credentials = Credentials {
            user_name: "integration".into(),
            password: "x".into(),
            bearer_token: "x".into(),
            model_key: "x".into(),
            webhook_secret: "x".into(),
            control_token: "x".into(),
        };
        World::new(&Config::new(Arc::new(|| 0), credentials), 0).expect("a world")
    }

    /// At each bound a write is refused, and nothing of it happened.
    #[test]
    fn a_full_world_changes_nothing() {
        type Fill = (&'static str, fn(&mut World));
        let fill: [Fill; 3] = [
            ("effects", |world| {
                while world.effects.room(2) {
                    world.effects.push(Draft {
                        table: schema::INCIDENT,
                        sys_id: "",
                        kind: EffectKind::Update,
                        markers: Vec::new(),
                        correlation_id: "",
                        fields: &BTreeMap::new(),
                        changed: true,
                        at_ms: 0,
                    });
                }
                assert_eq!(world.effects.all().len(), MAX_EFFECTS - 1);
            }),
            ("journal entries", |world| {
                let rows = world.tables.entry(schema::JOURNAL).or_default();
                (0..MAX_JOURNAL_ENTRIES).for_each(|n| rows.put(Row::from([("sys_id", n.to_string())])));
            }),
            ("bytes", |world| world.bytes = MAX_STATE_BYTES),
        ];
        for (bound, fill) in fill {
            let mut world = world();
            let table = table_of(schema::INCIDENT).expect("the table");
            let write = |input| Write {
                by: "integration",
                at_ms: 0,
                input,
                display_input: false,
                dropped: &[],
                from_client: true,
            };
            let create = json!({"short_description": "one"});
            let sys_id = world
                .record_create(table, &write(create.as_object().expect("an object")))
                .expect("room for the first");
            fill(&mut world);
            let before = (world.rows(table).get(&sys_id).cloned(), world.effects.all().len());
            let update = json!({"urgency": "1", "work_notes": "x"});
            let write = write(update.as_object().expect("an object"));
            assert_eq!(world.record_update(table, &sys_id, &write), Err(Refusal::Full(bound)));
            assert_eq!(world.record_create(table, &write), Err(Refusal::Full(bound)));
            assert_eq!(
                (world.rows(table).get(&sys_id).cloned(), world.effects.all().len()),
                before,
                "{bound}"
            );
            assert_eq!(world.journal_entries(&sys_id).count(), 0);
        }
    }
}
