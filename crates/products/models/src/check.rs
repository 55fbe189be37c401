//! The one gate between what a model said and what is done with it.
//!
//! An [`Answer`] may come from a model that was talked into something, from a provider that silently serves
//! another model, or from a machine in the middle. [`Checker::check`] returns a [`Checked`] only if
//!
//! 1. the reply names the pinned model or one of the versions accepted for it,
//! 2. the body is small, shallow, and has plain keys and whole numbers only,
//! 3. it conforms to the ask's schema, with the allow lists written in,
//! 4. every field with an allow list holds exactly one of its values,
//! 5. every other string has passed [`crate::hygiene::line`], and still conforms to the schema afterwards.
//!
//! Refused or made harmless: where a value decides something (a group, a priority, a model's name) a deviation is a
//! [`Violation`]. Where text only informs (a summary), links and invisible characters are taken out and reported in
//! [`Checked::neutralised`], because a ticket about a broken link rightly has a summary that mentions it, and a run
//! that fails for that would teach people to switch the check off.
//!
//! Rules for those who add to it: a violation never quotes the answer, since the answer is what we do not trust and
//! the message ends in logs; codes are stable and have a page each in `docs/errors/`.

mod schema;

use serde_json::Value;

use crate::{
    contract::{Answer, Ask, AskInvalid, Usage},
    hygiene,
};
pub use schema::{SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX, SCHEMA_EXPANDED_MAX};

/// Largest answer body, in bytes of compact JSON.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of an answer; the body itself is level 0.
pub const ANSWER_DEPTH_MAX: usize = 8;
/// Most values in an answer, containers included.
pub const ANSWER_NODES_MAX: usize = 1_000;
/// Longest object key of an answer, in bytes.
pub const KEY_BYTES_MAX: usize = 64;
/// Longest free text in an answer, in characters.
pub const TEXT_CHARS_MAX: usize = 2_000;
/// Integers of an answer lie strictly between minus this and this: beyond it JSON readers disagree.
pub const INTEGER_LIMIT: i64 = 1 << 53;

/// Why an answer may not be used, or cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The ask itself is out of its limits.
    #[error(transparent)]
    AskInvalid(#[from] AskInvalid),
    /// The ask's schema cannot be used: not a valid schema, too large, or with references that leave it or recur.
    #[error("the answer schema cannot be used: {0}")]
    SchemaInvalid(&'static str),
    /// The reply does not come from the pinned model.
    #[error("the reply does not name the pinned model or an accepted version of it")]
    PinMismatch {
        /// The name in the pin.
        pinned: String,
        /// The name in the reply: printable ASCII, cut to 80 characters.
        reported: String,
    },
    /// The body exceeds a bound.
    #[error("the answer exceeds a limit: {0}")]
    Oversized(&'static str),
    /// A key or a number that no schema makes acceptable.
    #[error("the answer is not plain JSON: {0}")]
    NotPlain(&'static str),
    /// The body does not conform to the schema.
    #[error("the answer breaks its schema at `{0}`")]
    SchemaViolation(
        /// Where in the *schema* the broken rule stands (JSON Pointer, cut to 200 bytes).
        String,
    ),
    /// A field with an allow list holds something else.
    #[error("field `{0}` holds a value that is not on its list")]
    ValueNotAllowed(
        /// The field, as the ask names it.
        String,
    ),
}

impl Violation {
    /// Stable code, part of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AskInvalid(_) => AskInvalid::CODE,
            Self::SchemaInvalid(_) => "model.schema_invalid",
            Self::PinMismatch { .. } => "model.pin_mismatch",
            Self::Oversized(_) => "model.oversized",
            Self::NotPlain(_) => "model.not_plain",
            Self::SchemaViolation(_) => "model.schema_violation",
            Self::ValueNotAllowed(_) => "model.value_not_allowed",
        }
    }
}

/// Something that was taken out of a free text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neutralised {
    /// The top-level field it stood in.
    pub field: String,
    /// Hidden characters removed.
    pub hidden: usize,
    /// Links, images and markup made harmless. More than 0 is worth a data-loss event.
    pub links: usize,
}

/// An answer that passed. Only [`Checker::check`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    answer: Answer,
    neutralised: Vec<Neutralised>,
}

impl Checked {
    /// The body, cleaned.
    pub fn body(&self) -> &Value {
        &self.answer.body
    }

    /// The model as reported, admitted by the pin.
    pub fn model(&self) -> &str {
        &self.answer.model
    }

    /// The provider's fingerprint, where there is one.
    pub fn fingerprint(&self) -> Option<&str> {
        self.answer.fingerprint.as_deref()
    }

    /// What the call used.
    pub fn usage(&self) -> Usage {
        self.answer.usage
    }

    /// SHA-256 of the reply as received.
    pub fn raw_digest(&self) -> &str {
        &self.answer.raw_digest
    }

    /// What was taken out, by field, in the order of the fields; empty if the answer was clean.
    pub fn neutralised(&self) -> &[Neutralised] {
        &self.neutralised
    }

    /// The body, cleaned, by value.
    pub fn into_body(self) -> Value {
        self.answer.body
    }
}

/// Checks one answer to `ask`. To check many answers to like asks, keep a [`Checker`].
pub fn answer_check(ask: &Ask, answer: &Answer) -> Result<Checked, Violation> {
    Checker::new(ask)?.check(answer)
}

/// The rules of one ask, compiled.
pub struct Checker {
    pin: crate::contract::Pin,
    allowed: std::collections::BTreeMap<String, Vec<String>>,
    /// Top-level fields whose values the schema itself lists; they are compared, not cleaned.
    listed: Vec<String>,
    validator: jsonschema::Validator,
}

impl Checker {
    /// Compiles the rules of `ask`. Nothing is ever fetched: a schema with a reference that leaves it is refused.
    pub fn new(ask: &Ask) -> Result<Self, Violation> {
        // The schema first: everything after it may then assume a bounded one.
        schema::vet(&ask.schema).map_err(Violation::SchemaInvalid)?;
        ask.validate()?;
        let schema = ask.answer_schema();
        let validator = schema::compile(&schema).map_err(Violation::SchemaInvalid)?;
        let is_listed = |property: &Value| property.get("enum").is_some() || property.get("const").is_some();
        let listed = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, property)| is_listed(property))
            .map(|(field, _)| field.clone())
            .collect();
        Ok(Self { pin: ask.model.clone(), allowed: ask.allowed.clone(), listed, validator })
    }

    /// Checks one answer.
    pub fn check(&self, answer: &Answer) -> Result<Checked, Violation> {
        if !self.pin.admits(&answer.model) {
            let reported = answer.model.chars().filter(char::is_ascii_graphic).take(80).collect();
            return Err(Violation::PinMismatch { pinned: self.pin.model.clone(), reported });
        }
        let mut size = Size::default();
        size.add(&answer.body, 0)?;
        // The allow lists come before the schema, which holds them too, so that the code names the real reason.
        for (field, values) in &self.allowed {
            let listed = match answer.body.get(field) {
                None => continue, // whether it may be absent is the schema's `required`
                Some(Value::String(value)) => values.contains(value),
                Some(_) => false,
            };
            if !listed {
                return Err(Violation::ValueNotAllowed(field.clone()));
            }
        }
        self.conforms(&answer.body)?;
        let mut answer = answer.clone();
        let mut neutralised = Vec::new();
        for (field, value) in answer.body.as_object_mut().into_iter().flatten() {
            if self.listed.contains(field) {
                continue;
            }
            let mut found = Neutralised { field: field.clone(), hidden: 0, links: 0 };
            text_clean(value, &mut found);
            if found.hidden + found.links > 0 {
                neutralised.push(found);
            }
        }
        // Cleaning can shorten a text below `minLength` or break a `pattern`.
        self.conforms(&answer.body)?;
        Ok(Checked { answer, neutralised })
    }

    fn conforms(&self, body: &Value) -> Result<(), Violation> {
        if !body.is_object() {
            return Err(Violation::SchemaViolation("/type".to_owned()));
        }
        self.validator.validate(body).map_err(|error| {
            let at = error.schema_path().to_string();
            Violation::SchemaViolation(hygiene::prefix(&at, 200).to_owned())
        })
    }
}

/// Cleans every string below `value`. The depth is bounded by [`Size`].
fn text_clean(value: &mut Value, found: &mut Neutralised) {
    match value {
        Value::String(text) => {
            let cleaned = hygiene::line(text);
            found.hidden += cleaned.hidden;
            found.links += cleaned.links;
            *text = cleaned.text;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| text_clean(item, found)),
        Value::Object(map) => map.values_mut().for_each(|item| text_clean(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Walks a body once and refuses what is too much of it. `bytes` is a lower bound of its compact JSON.
#[derive(Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn add(&mut self, value: &Value, depth: usize) -> Result<(), Violation> {
        if depth > ANSWER_DEPTH_MAX {
            return Err(Violation::Oversized("nested deeper than 8 levels"));
        }
        self.nodes += 1;
        if self.nodes > ANSWER_NODES_MAX {
            return Err(Violation::Oversized("more than 1000 values"));
        }
        self.bytes += 1;
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if number.as_i64().is_none_or(|number| number.unsigned_abs() >= INTEGER_LIMIT.unsigned_abs())
                {
                    return Err(Violation::NotPlain("a number is not an integer below 2^53"));
                }
            }
            Value::String(text) => {
                self.bytes += text.len();
                // The byte test is cheap and refuses what is far too long before its characters are counted.
                if text.len() > TEXT_CHARS_MAX * 4 || text.chars().count() > TEXT_CHARS_MAX {
                    return Err(Violation::Oversized("a text is longer than 2000 characters"));
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.add(item, depth + 1)?;
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    self.bytes += key.len();
                    let plain =
                        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
                    if !plain || key.len() > KEY_BYTES_MAX {
                        return Err(Violation::NotPlain("a key is not 1 to 64 printable ASCII characters"));
                    }
                    self.add(item, depth + 1)?;
                }
            }
        }
        if self.bytes > ANSWER_BYTES_MAX {
            return Err(Violation::Oversized("more than 64 KiB"));
        }
        Ok(())
    }
}
