//! Arguments: from a JSON value to a type, with errors that never repeat the value.
//!
//! A caller writes `{"value": "hunter2", "kind": "hunter2"}` because the wrong line was pasted. serde's own message is
//! ``unknown variant `hunter2`, expected one of `person`, …``, and with it the password stands in an answer, in a
//! terminal, in a log, in a ticket. So arguments are read by a deserializer of our own, whose error can be made only from
//! what *we* wrote: the names of members that a type declares and what it expects there. What the caller wrote has no way
//! into it, not even the name of a member that nobody knows.
//!
//! Rules for those who add a type of arguments:
//! - A `try_from` or a `deserialize_with` says what it expects and leaves out what it got: its text is shown as it is.
//! - Structs are read from objects only, never from lists.

use crate::Fault;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};
use std::fmt;

/// Longest message of a type's own that is shown, in characters.
const MESSAGE_MAX: usize = 200;

/// Reads typed arguments strictly.
///
/// # Errors
/// `request.invalid`, naming the member and what is expected there, and nothing that the caller wrote.
pub fn parse<A: DeserializeOwned>(args: &Value) -> Result<A, Fault> {
    A::deserialize(At(args))
        .map_err(|misfit| Fault::invalid("request.invalid", format!("the arguments do not fit: {misfit}")))
}

/// What does not fit, and where.
#[derive(Debug)]
struct Misfit {
    /// `models[2].call_micros`; empty for the arguments as a whole.
    path: String,
    what: String,
}

impl Misfit {
    fn new(what: String) -> Misfit {
        Misfit { path: String::new(), what }
    }

    /// The same, seen from one level up.
    fn under(mut self, step: &str) -> Misfit {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{joint}{}", self.path);
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

impl std::error::Error for Misfit {}

fn one_of(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Misfit {
        Misfit::new(message.to_string().chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect())
    }
    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Misfit {
        Misfit::new(format!("expected {expected}"))
    }
    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Misfit {
        Misfit::new(format!("expected {expected}"))
    }
    fn invalid_length(_: usize, expected: &dyn Expected) -> Misfit {
        Misfit::new(format!("expected {expected}"))
    }
    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Misfit {
        Misfit::new(format!("expected one of {}", one_of(expected)))
    }
    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Misfit {
        Misfit::new(match expected {
            [] => "it has a member, and there are none".to_owned(),
            names => format!("it has a member that is not known; known are {}", one_of(names)),
        })
    }
    fn missing_field(field: &'static str) -> Misfit {
        Misfit::new("it is missing".to_owned()).under(field)
    }
    fn duplicate_field(field: &'static str) -> Misfit {
        Misfit::new("it stands twice".to_owned()).under(field)
    }
}

/// A place in the arguments.
struct At<'de>(&'de Value);

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(Misfit::custom("expected a number of at most 64 bits")),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                let mut rest = Items { items: items.iter(), at: 0 };
                let value = visitor.visit_seq(&mut rest)?;
                match rest.items.next() {
                    None => Ok(value),
                    Some(_) => Err(Misfit::custom(format!("expected a list of {}", rest.at))),
                }
            }
            Value::Object(members) => visitor.visit_map(Members::of(members, &[])),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::of(members, fields)),
            _ => Err(Misfit::new("expected an object".to_owned())),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::String(text) => {
                BorrowedStrDeserializer::new(text).deserialize_enum(name, variants, visitor)
            }
            Value::Object(members) if members.len() == 1 => {
                MapAccessDeserializer::new(Members::of(members, variants))
                    .deserialize_enum(name, variants, visitor)
            }
            _ => Err(Misfit::new(format!("expected one of {}", one_of(variants)))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Value>,
    at: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = self.at;
        self.at += 1;
        seed.deserialize(At(item)).map(Some).map_err(|misfit| misfit.under(&format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'de> {
    members: serde_json::map::Iter<'de>,
    /// The names that the type declares; another name is never shown.
    declared: &'static [&'static str],
    value: Option<(&'static str, &'de Value)>,
}

impl<'de> Members<'de> {
    fn of(members: &'de Map<String, Value>, declared: &'static [&'static str]) -> Members<'de> {
        Members { members: members.iter(), declared, value: None }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        let shown = self.declared.iter().find(|declared| **declared == name.as_str());
        self.value = Some((shown.copied().unwrap_or("a member"), value));
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misfit> {
        // A visitor that asks for a value before its key is a bug of the visitor; it gets an error and no panic.
        let (name, value) = self.value.take().ok_or_else(|| Misfit::custom("a value without a key"))?;
        seed.deserialize(At(value)).map_err(|misfit| misfit.under(name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Shape {
        Round,
        Square { edge: u8 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Tagged {
        One { n: u8 },
        Two,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        price: i64,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Args {
        name: String,
        shape: Option<Shape>,
        tagged: Option<Tagged>,
        #[serde(default)]
        rows: Vec<Row>,
        #[serde(default)]
        by_name: BTreeMap<String, u8>,
        event: Option<Value>,
        pair: Option<(u8, u8)>,
        id: Option<kernel::Id>,
        ratio: Option<f64>,
    }

    const CANARY: &str = "canary-4711";

    #[test]
    fn what_fits_is_read_as_serde_reads_it() {
        let value = json!({
            "name": "a", "shape": {"square": {"edge": 3}}, "tagged": {"kind": "one", "n": 1}, "rows": [{"price": -1}],
            "by_name": {"x": 1}, "event": {"a": [1, -2, 0.5, null, true, "x", 18446744073709551615u64]}, "pair": [1, 2],
            "id": "run_a", "ratio": 1,
        });
        assert_eq!(parse::<Args>(&value).unwrap(), serde_json::from_value::<Args>(value).unwrap());
        let value =
            json!({"name": "a", "shape": "round", "tagged": {"kind": "two"}, "event": null, "pair": null});
        assert_eq!(parse::<Args>(&value).unwrap(), serde_json::from_value::<Args>(value).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_named_and_never_repeated() {
        for (change, expected) in [
            (json!({"name": 7}), "name: expected a string"),
            (json!({"name": [CANARY]}), "name: expected a string"),
            (json!({"name": null}), "name: expected a string"),
            (json!({"shape": CANARY}), "shape: expected one of `round`, `square`"),
            (json!({"shape": {CANARY: 1}}), "shape: expected one of `round`, `square`"),
            (json!({"shape": {"square": {"edge": CANARY}}}), "shape.square.a member: expected u8"),
            (json!({"shape": {"square": 1, CANARY: 2}}), "shape: expected one of"),
            (json!({"shape": [CANARY]}), "shape: expected one of"),
            (json!({"tagged": {"kind": CANARY}}), "tagged.a member: expected one of `one`, `two`"),
            (json!({"tagged": {"kind": "one", "n": CANARY}}), "tagged"),
            (json!({CANARY: 1}), "it has a member that is not known; known are `name`, `shape`"),
            (json!({"rows": [{"price": 1}, {"price": CANARY}]}), "rows[1].price: expected i64"),
            (json!({"rows": [{"price": 1, CANARY: 1}]}), "rows[0]: it has a member that is not known"),
            (json!({"rows": [{}]}), "rows[0].price: it is missing"),
            (json!({"rows": [[1]]}), "rows[0]: expected an object"),
            (json!({"rows": CANARY}), "rows: expected a sequence"),
            (json!({"by_name": {CANARY: CANARY}}), "by_name.a member: expected u8"),
            (json!({"by_name": {CANARY: 256}}), "by_name.a member: expected u8"),
            (json!({"pair": [1]}), "pair: expected a tuple of size 2"),
            (json!({"pair": [1, 2, CANARY]}), "pair: expected a list of 2"),
            (json!({"id": format!("{CANARY} ")}), "id: "),
            (json!({"ratio": CANARY}), "ratio: expected f64"),
        ] {
            let mut args = json!({"name": "a"});
            args.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let fault = parse::<Args>(&args).unwrap_err();
            assert_eq!(fault.code, "request.invalid");
            let message = fault.message.strip_prefix("the arguments do not fit: ").unwrap();
            assert!(message.starts_with(expected), "{args}: {message}");
            assert!(!format!("{fault:?}").contains(CANARY), "{args}: {fault:?}");
        }
        for (args, expected) in [
            (json!({}), "name: it is missing"),
            (json!([CANARY]), "expected an object"),
            (json!(CANARY), "expected an object"),
        ] {
            let message = parse::<Args>(&args).unwrap_err().message;
            assert!(message.ends_with(expected), "{message}");
        }
    }
}
