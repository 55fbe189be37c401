//! How a record looks in a reply: raw, as displayed, or both; references with a link or without.

use serde_json::{Map, Value, json};

use super::{
    schema::{Kind, Table},
    world::{Row, World, field_at},
};
use crate::exchange::Call;

/// `sysparm_display_value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Display {
    /// `false`, the default: stored values.
    Raw,
    /// `true`: what a person sees. References are objects with a name, choices are labels.
    Shown,
    /// `all`: an object with both for every field.
    Both,
}

/// How the caller wants records.
pub(crate) struct View {
    pub display: Display,
    /// Whether references carry a link (`sysparm_exclude_reference_link` is not true).
    pub links: bool,
    /// `sysparm_fields`; all where absent. Unknown fields are left out of the reply.
    pub fields: Option<Vec<String>>,
}

impl View {
    pub fn of(call: &Call) -> View {
        let display = match call.parameter("sysparm_display_value").map(str::to_lowercase).as_deref() {
            Some("true") => Display::Shown,
            Some("all") => Display::Both,
            _ => Display::Raw,
        };
        let fields = call.parameter("sysparm_fields").filter(|fields| !fields.trim().is_empty());
        View {
            display,
            links: !call.flag("sysparm_exclude_reference_link"),
            fields: fields.map(|fields| fields.split(',').map(|field| field.trim().to_owned()).collect()),
        }
    }

    /// A record as JSON. `base_url` is where reference links point.
    pub fn record(&self, world: &World, base_url: &str, table: &Table, row: &Row) -> Value {
        let mut object = Map::new();
        let mut put = |path: &str| {
            if let (Some(kind), Some((_, raw))) = (field_at(table, path), world.value_at(table, row, path)) {
                object.insert(path.to_owned(), self.value(world, base_url, row, path, kind, raw));
            }
        };
        match &self.fields {
            Some(fields) => fields.iter().for_each(|field| put(field)),
            None => table.fields.iter().for_each(|field| put(field.name)),
        }
        Value::Object(object)
    }

    fn value(&self, world: &World, base_url: &str, row: &Row, path: &str, kind: Kind, raw: &str) -> Value {
        let shown = match kind {
            Kind::Choice(choices) | Kind::StrictChoice(choices) => choices
                .iter()
                .find(|(value, _)| *value == raw)
                .map_or_else(|| raw.to_owned(), |(_, label)| (*label).to_owned()),
            Kind::Reference(target) => world.display_of(target, raw).to_owned(),
            Kind::Journal(label) => world.journal_text(&row["sys_id"], path, label),
            Kind::Text(_) | Kind::Integer | Kind::Boolean | Kind::DateTime => raw.to_owned(),
        };
        let link = match kind {
            Kind::Reference(target) if self.links && !raw.is_empty() => {
                Some(format!("{base_url}/api/now/table/{target}/{raw}"))
            }
            _ => None,
        };
        match (self.display, link) {
            (Display::Raw, None) => json!(raw),
            (Display::Raw, Some(link)) => json!({"link": link, "value": raw}),
            (Display::Shown, None) => json!(shown),
            (Display::Shown, Some(link)) => json!({"display_value": shown, "link": link}),
            (Display::Both, None) => json!({"display_value": shown, "value": raw}),
            (Display::Both, Some(link)) => json!({"display_value": shown, "link": link, "value": raw}),
        }
    }
}
