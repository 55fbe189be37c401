//! YAML from tenants, read as plain data and nothing else.
//!
//! YAML can do far more than a workflow needs: aliases that expand to gigabytes, tags that name types, merge keys,
//! several documents in one text, and words that silently turn into booleans. All of that is refused rather than
//! tamed. What is left is what JSON can say, and that is what [`parse`] returns; a digest is taken of the value, never
//! of the text, so comments and spelling do not matter.
//!
//! Numbers are whole: facts, effect keys and signatures know no floating point, so neither does what they describe.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Tagged;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use std::fmt;

/// Largest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 16;
/// Most values, containers included.
pub const NODES_MAX: usize = 8_192;
/// Longest message of an error: it may quote the text it is about.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a text is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Over [`TEXT_BYTES_MAX`].
    #[error("the text is larger than {TEXT_BYTES_MAX} bytes")]
    TooLarge,
    /// Anything else; the message says what and where.
    #[error("{0}")]
    Refused(String),
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(YamlError::TooLarge);
    }
    if text.starts_with('\u{feff}') {
        return Err(YamlError::Refused("the text starts with a byte order mark".into()));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 3,
            max_merge_keys: 0,
            max_total_scalar_bytes: TEXT_BYTES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let node: Tagged<Plain> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
        YamlError::Refused(message)
    })?;
    untagged(node).map_err(YamlError::Refused)
}

fn untagged(node: Tagged<Plain>) -> Result<Value, String> {
    match node.1 {
        None => Ok(node.0.0),
        Some(_) => Err("tags are not accepted".into()),
    }
}

/// A value that came without a tag, all the way down.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Plain, D::Error> {
        from.deserialize_any(PlainVisitor).map(Plain)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a whole number, true, false, null, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("numbers are whole; write a fraction as a quoted text"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(node) = seq.next_element_seed(NodeSeed)? {
            items.push(node);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<Tagged<String>>()? {
            if key.1.is_some() {
                return Err(A::Error::custom("tags are not accepted"));
            }
            let value = map.next_value_seed(NodeSeed)?;
            if members.insert(key.0, value).is_some() {
                return Err(A::Error::custom("a key is given twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

struct NodeSeed;

impl<'de> serde::de::DeserializeSeed<'de> for NodeSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let seed = std::marker::PhantomData::<Tagged<Plain>>;
        untagged(seed.deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_json_can_say() {
        let text = "# a comment\na: 1\nb: [x, 'y', true, null, -3]\nc:\n  d: |\n    two\n    lines\ne: \"1\"\nf: NO\nh: 2026-11-21\n";
        let expected = json!({
            "a": 1, "b": ["x", "y", true, null, -3], "c": {"d": "two\nlines\n"}, "e": "1", "f": "NO",
            "h": "2026-11-21",
        });
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("{\"a\": [1, {\"b\": null}]}").unwrap(), json!({"a": [1, {"b": null}]}));
    }

    #[test]
    fn c06_refuses_what_is_more_than_data() {
        let bomb = {
            let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
            for n in 1..12 {
                text.push_str(&format!(
                    "a{n}: &a{n} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n",
                    p = n - 1
                ));
            }
            text
        };
        let deep_flow = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
        let deep_block: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let many = format!("a: [{}]", "1, ".repeat(NODES_MAX));
        for (name, text) in [
            ("alias bomb", bomb.as_str()),
            ("an anchor", "a: &x 1\n"),
            ("recursive alias", "a: &x [*x]\n"),
            ("unknown tag", "a: !thing 1\n"),
            ("python tag", "a: !!python/object/apply:os.system [ls]\n"),
            ("core tag", "a: !!str 1\n"),
            ("binary tag", "a: !!binary aGVsbG8=\n"),
            ("tag on a list", "a: !!seq [1]\n"),
            ("tag on a key", "!!str a: 1\n"),
            ("tag at the top", "!!map {a: 1}\n"),
            ("duplicate keys", "a: 1\na: 2\n"),
            ("duplicate keys, spelled differently", "a: 1\n\"a\": 2\n"),
            ("merge key", "a: {<<: {b: 1}}\n"),
            ("two documents", "a: 1\n---\nb: 2\n"),
            ("a document after its end", "a: 1\n...\nb: 2\n"),
            ("byte order mark", "\u{feff}a: 1\n"),
            ("float", "a: 1.5\n"),
            ("exponent", "a: 1e3\n"),
            ("leading zero", "a: 010\n"),
            ("infinity", "a: .inf\n"),
            ("not a number", "a: .nan\n"),
            ("deep flow", deep_flow.as_str()),
            ("deep block", deep_block.as_str()),
            ("many nodes", many.as_str()),
            ("broken", "a: [1\n"),
            ("a list as a key", "[1, 2]: 3\n"),
        ] {
            let result = parse(text);
            assert!(result.is_err(), "{name}: {result:?}");
            let message = result.unwrap_err().to_string();
            assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "{name}: {message}");
        }
        assert_eq!(parse(&"#".repeat(TEXT_BYTES_MAX + 1)), Err(YamlError::TooLarge));
    }
}
