//! The tables of the stand-in instance, as data: which fields there are, what kind each is, who may write it.
//!
//! A real instance has hundreds of fields on `incident`; these are the ones that an integration touches. A
//! field that is not listed does not exist here: in a write it is ignored without a word, and in a query the
//! condition on it is ignored, both as the vendor's instances do.

/// What a field holds. Values are strings, always.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Text cut to this many characters on write, without a word.
    Text(usize),
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD HH:MM:SS`, UTC.
    DateTime,
    /// A value with a label. Values outside the list are stored as they are.
    Choice(&'static [(&'static str, &'static str)]),
    /// A value with a label; a value outside the list is stored empty.
    StrictChoice(&'static [(&'static str, &'static str)]),
    /// The `sys_id` of a record of this table.
    Reference(&'static str),
    /// A journal with this label: a write appends an entry to `sys_journal_field`, the record holds nothing.
    Journal(&'static str),
}

/// Who sets a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The client, within its rights.
    Client,
    /// The instance alone; a client's value is dropped.
    System,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub writer: Writer,
    /// The value of a new record that does not set the field.
    pub default: &'static str,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub name: &'static str,
    /// The field that stands for a record where it is referred to.
    pub display: &'static str,
    /// Whether clients may write it at all; otherwise 403.
    pub writable: bool,
    pub fields: &'static [Field],
}

impl Table {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, writer: Writer::Client, default: "" }
}

const fn with_default(name: &'static str, kind: Kind, default: &'static str) -> Field {
    Field { name, kind, writer: Writer::Client, default }
}

const fn system(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, writer: Writer::System, default: "" }
}

const ID: Kind = Kind::Text(32);
const LEVELS: &[(&str, &str)] = &[("1", "1 - High"), ("2", "2 - Medium"), ("3", "3 - Low")];
const PRIORITIES: &[(&str, &str)] = &[
    ("1", "1 - Critical"),
    ("2", "2 - High"),
    ("3", "3 - Moderate"),
    ("4", "4 - Low"),
    ("5", "5 - Planning"),
];
const STATES: &[(&str, &str)] = &[
    ("1", "New"),
    ("2", "In Progress"),
    ("3", "On Hold"),
    ("6", "Resolved"),
    ("7", "Closed"),
    ("8", "Canceled"),
];
const CATEGORIES: &[(&str, &str)] = &[
    ("inquiry", "Inquiry / Help"),
    ("software", "Software"),
    ("hardware", "Hardware"),
    ("network", "Network"),
    ("database", "Database"),
];
const CONTACT_TYPES: &[(&str, &str)] =
    &[("email", "Email"), ("phone", "Phone"), ("self-service", "Self-service"), ("walk-in", "Walk-in")];
const CLOSE_CODES: &[(&str, &str)] = &[
    ("Duplicate", "Duplicate"),
    ("Known error", "Known error"),
    ("No resolution provided", "No resolution provided"),
    ("Resolved by caller", "Resolved by caller"),
    ("Resolved by change", "Resolved by change"),
    ("Resolved by problem", "Resolved by problem"),
    ("Resolved by request", "Resolved by request"),
    ("Solution provided", "Solution provided"),
    ("Workaround provided", "Workaround provided"),
    ("User error", "User error"),
];

/// States in which the data policy demands `close_code` and `close_notes`.
pub(crate) const CLOSING_STATES: [&str; 2] = ["6", "7"];
/// States in which an incident is no longer active.
pub(crate) const INACTIVE_STATES: [&str; 2] = ["7", "8"];
pub(crate) const INCIDENT: &str = "incident";
pub(crate) const GROUP: &str = "sys_user_group";
pub(crate) const USER: &str = "sys_user";
pub(crate) const JOURNAL: &str = "sys_journal_field";

pub(crate) const TABLES: &[Table] = &[
    Table {
        name: INCIDENT,
        display: "number",
        writable: true,
        fields: &[
            system("sys_id", ID),
            system("number", Kind::Text(40)),
            system("sys_class_name", Kind::Text(80)),
            field("short_description", Kind::Text(160)),
            field("description", Kind::Text(4_000)),
            field("caller_id", Kind::Reference(USER)),
            system("opened_by", Kind::Reference(USER)),
            system("opened_at", Kind::DateTime),
            with_default("category", Kind::Choice(CATEGORIES), "inquiry"),
            field("subcategory", Kind::Text(40)),
            field("contact_type", Kind::Choice(CONTACT_TYPES)),
            with_default("impact", Kind::Choice(LEVELS), "3"),
            with_default("urgency", Kind::Choice(LEVELS), "3"),
            // The client may write it, and the rule that computes it writes over that.
            field("priority", Kind::Choice(PRIORITIES)),
            with_default("state", Kind::Choice(STATES), "1"),
            system("active", Kind::Boolean),
            field("assignment_group", Kind::Reference(GROUP)),
            field("assigned_to", Kind::Reference(USER)),
            field("work_notes", Kind::Journal("Work notes")),
            field("comments", Kind::Journal("Additional comments")),
            field("close_code", Kind::StrictChoice(CLOSE_CODES)),
            field("close_notes", Kind::Text(4_000)),
            system("resolved_at", Kind::DateTime),
            system("resolved_by", Kind::Reference(USER)),
            field("correlation_id", Kind::Text(100)),
            field("correlation_display", Kind::Text(100)),
            system("sys_created_on", Kind::DateTime),
            system("sys_created_by", Kind::Text(40)),
            system("sys_updated_on", Kind::DateTime),
            system("sys_updated_by", Kind::Text(40)),
            system("sys_mod_count", Kind::Integer),
        ],
    },
    Table {
        name: GROUP,
        display: "name",
        writable: true,
        fields: &[
            system("sys_id", ID),
            field("name", Kind::Text(80)),
            field("description", Kind::Text(1_000)),
            field("manager", Kind::Reference(USER)),
            with_default("active", Kind::Boolean, "true"),
            system("sys_created_on", Kind::DateTime),
            system("sys_created_by", Kind::Text(40)),
            system("sys_updated_on", Kind::DateTime),
            system("sys_updated_by", Kind::Text(40)),
            system("sys_mod_count", Kind::Integer),
        ],
    },
    Table {
        name: USER,
        display: "name",
        writable: true,
        fields: &[
            system("sys_id", ID),
            field("user_name", Kind::Text(40)),
            field("name", Kind::Text(151)),
            field("email", Kind::Text(100)),
            with_default("active", Kind::Boolean, "true"),
            system("sys_created_on", Kind::DateTime),
            system("sys_created_by", Kind::Text(40)),
            system("sys_updated_on", Kind::DateTime),
            system("sys_updated_by", Kind::Text(40)),
            system("sys_mod_count", Kind::Integer),
        ],
    },
    Table {
        name: JOURNAL,
        display: "value",
        writable: false,
        fields: &[
            system("sys_id", ID),
            system("name", Kind::Text(80)),
            system("element", Kind::Text(80)),
            system("element_id", ID),
            system("value", Kind::Text(usize::MAX)),
            system("sys_created_on", Kind::DateTime),
            system("sys_created_by", Kind::Text(40)),
        ],
    },
];

pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// `priority` of an impact and an urgency, the vendor's default lookup. Values outside the lists are
/// planning.
pub(crate) fn priority(impact: &str, urgency: &str) -> &'static str {
    match (impact, urgency) {
        ("1", "1") => "1",
        ("1", "2") | ("2", "1") => "2",
        ("1", "3") | ("2", "2") | ("3", "1") => "3",
        ("2", "3") | ("3", "2") => "4",
        _ => "5",
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, TABLES, Table, table};

    /// How many references lie behind one another; panics on a table that does not exist, and overflows its
    /// fuel on a cycle.
    fn depth(from: &Table, fuel: usize) -> usize {
        assert!(fuel > 0, "references of {} form a cycle", from.name);
        let targets = from.fields.iter().filter_map(|field| match field.kind {
            Kind::Reference(target) => Some(table(target).expect("the referenced table")),
            _ => None,
        });
        targets.map(|target| 1 + depth(target, fuel - 1)).max().unwrap_or(0)
    }

    #[test]
    fn references_end() {
        let depths: Vec<usize> = TABLES.iter().map(|from| depth(from, TABLES.len())).collect();
        assert_eq!(depths, [2, 1, 0, 0]);
    }

    #[test]
    fn every_table_has_its_display_field_and_no_field_twice() {
        for table in TABLES {
            assert!(table.field(table.display).is_some(), "{}", table.name);
            for (at, field) in table.fields.iter().enumerate() {
                assert!(table.fields[..at].iter().all(|other| other.name != field.name), "{}", field.name);
            }
        }
    }
}
