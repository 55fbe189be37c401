//! Which arguments of an act a bundle shows.
//!
//! A fact commits to its arguments without saying them; the side row beside it can open the commitment field by field. A
//! bundle leaves the house, so by default it shows only what nobody minds: arguments whose schema is not marked
//! `"x-data": "personal"` or `"x-data": "content"` (ticket texts, prompts). Acts whose schema is not known show nothing.
//!
//! A domain marks a field where it declares it:
//!
//! ```text
//! #[schemars(extend("x-data" = "personal"))]
//! caller: String,
//! ```
//!
//! Secret arguments are not in the side row at all, so there is nothing to hide here.

use act::Verb;
use kernel::{commitment, hex, json};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Deepest value that can be shown: what is left of the canonical profile's depth inside the file.
const VALUE_DEPTH: usize = 5;

/// Which arguments are shown, by act.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disclosure {
    shown: BTreeMap<String, BTreeSet<String>>,
}

impl Disclosure {
    /// Shows nothing.
    pub fn nothing() -> Disclosure {
        Disclosure::default()
    }

    /// Shows the arguments of these acts that are not marked as personal or content.
    pub fn of<'a>(verbs: impl IntoIterator<Item = &'a Verb>) -> Disclosure {
        let shown = verbs.into_iter().map(|verb| {
            let schema = (verb.args)();
            let properties = schema["properties"].as_object().into_iter().flatten();
            let plain = properties.filter(|(_, schema)| !marked(schema)).map(|(name, _)| name.clone());
            (verb.act.to_owned(), plain.collect())
        });
        Disclosure { shown: shown.collect() }
    }

    /// Hides a field that would be shown.
    #[must_use]
    pub fn without(mut self, act: &str, field: &str) -> Disclosure {
        if let Some(fields) = self.shown.get_mut(act) {
            fields.remove(field);
        }
        self
    }

    /// Opens the commitment of a fact about `act` as far as may be, from its side row. `None`: the side row is of another
    /// form, or does not belong to this commitment.
    pub(crate) fn open(&self, act: &str, commitment: &str, aside: &[u8]) -> Option<Value> {
        let aside: Value = serde_json::from_slice(aside).ok()?;
        let seed = hex::decode32(aside.get("seed")?.as_str()?)?;
        let args = aside.get("args")?;
        let shown = self.shown.get(act);
        let fits = |field: &str| {
            let value = args.get(field)?;
            json::write_value(&mut Vec::new(), value, VALUE_DEPTH).ok()
        };
        let show = |field: &str| shown.is_some_and(|shown| shown.contains(field)) && fits(field).is_some();
        let fields = commitment::disclose(&seed, args, show).ok()?;
        commitment::open(&hex::decode32(commitment)?, &fields).ok()?;
        Some(fields)
    }
}

/// Whether a schema is marked as personal or content, itself or anything in it.
fn marked(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.get("x-data").is_some_and(|mark| mark == "personal" || mark == "content")
                || members.contains_key("$ref")
                || members.values().any(marked)
        }
        Value::Array(items) => items.iter().any(marked),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_are_found_wherever_they_stand() {
        for (schema, expected) in [
            (json!({"type": "string"}), false),
            (json!({"type": "string", "x-data": "public"}), false),
            (json!({"type": "string", "x-data": "personal"}), true),
            (json!({"type": "array", "items": {"x-data": "content"}}), true),
            (json!({"anyOf": [{"type": "null"}, {"x-data": "content"}]}), true),
            // What stands elsewhere is not followed, so it is not shown.
            (json!({"$ref": "#/$defs/Person"}), true),
        ] {
            assert_eq!(marked(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn opens_what_belongs_together_and_shows_what_it_may() {
        let args = json!({"number": "INC1", "caller": "Ann", "deep": {"a": {"b": {"c": {"d": {"e": 1}}}}}});
        let seed = [7; 32];
        let commitment = hex::encode(&commitment::commit(&seed, &args).unwrap());
        let aside = json!({"seed": hex::encode(&seed), "args": args, "decision": {}}).to_string();
        let shown =
            BTreeMap::from([("a.b.c".to_owned(), BTreeSet::from(["number".to_owned(), "deep".to_owned()]))]);
        let some = Disclosure { shown };
        let opened = some.open("a.b.c", &commitment, aside.as_bytes()).unwrap().to_string();
        assert!(opened.contains("INC1") && !opened.contains("Ann"), "{opened}");
        for (disclosure, act) in [(&some, "a.b.other"), (&Disclosure::nothing(), "a.b.c")] {
            let opened = disclosure.open(act, &commitment, aside.as_bytes()).unwrap().to_string();
            assert!(!opened.contains("INC1") && !opened.contains("Ann"), "{opened}");
        }
        let other = hex::encode(&[1; 32]);
        assert_eq!(some.open("a.b.c", &other, aside.as_bytes()), None, "another fact's side row");
        assert_eq!(some.open("a.b.c", &commitment, b"{}"), None);
        assert_eq!(some.without("a.b.c", "number").shown["a.b.c"].len(), 1);
    }
}
