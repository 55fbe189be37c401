//! Reads a request's body as JSON and refuses everything that two readers could understand differently.
//!
//! RFC 8259 leaves open what `{"role":"viewer","role":"admin"}` means: a proxy that checks the first and a program that
//! takes the second are how such bodies become attacks. So a repeated member is refused, as are depth beyond
//! [`DEPTH_MAX`], numbers that do not fit, lone surrogates, NUL in texts, a byte order mark, and anything after the value.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 32;

/// Reads one value. The error says what and where, never which content.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let refused = |error: serde_json::Error| {
        let place = format!("line {} column {}", error.line(), error.column());
        match error.classify() {
            // Our own refusals are data errors with a fixed text; serde_json's own name a kind of syntax.
            serde_json::error::Category::Data | serde_json::error::Category::Syntax => {
                let text = error.to_string();
                format!("{} at {place}", text.split(" at line ").next().unwrap_or("it is malformed"))
            }
            serde_json::error::Category::Eof => format!("it ends too early, at {place}"),
            serde_json::error::Category::Io => "it cannot be read".to_owned(),
        }
    };
    let value = Level(0).deserialize(&mut reader).map_err(refused)?;
    reader.end().map_err(refused)?;
    Ok(value)
}

/// A value at this depth.
struct Level(usize);

impl Level {
    fn below<E: Error>(&self) -> Result<usize, E> {
        if self.0 < DEPTH_MAX {
            Ok(self.0 + 1)
        } else {
            Err(E::custom(format_args!("it is nested deeper than {DEPTH_MAX}")))
        }
    }
}

fn text<E: Error>(text: &str) -> Result<String, E> {
    if text.contains('\0') { Err(E::custom("a text holds NUL")) } else { Ok(text.to_owned()) }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number does not fit"))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = from.next_element_seed(Level(below))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            let name = text(&name)?;
            let value = from.next_value_seed(Level(below))?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_has_one_meaning() {
        let text = r#"{"a":[1,-2,true,null,0.5,"\u00e9\ud83d\ude00"],"b":{"a":18446744073709551615}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert!(parse(deep.as_bytes()).is_ok());
    }

    #[test]
    fn refuses_the_rest() {
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        let deeper = "{\"a\":".repeat(100_000);
        for (bytes, expected) in [
            (r#"{"role":"viewer","role":"admin"}"#.as_bytes(), "repeated"),
            (r#"{"a":{"b":1,"\u0062":2}}"#.as_bytes(), "repeated"),
            (deep.as_bytes(), "deeper"),
            (deeper.as_bytes(), "deeper"),
            (br#"{"a":"\u0000"}"#, "NUL"),
            (br#"{"a\u0000":1}"#, "NUL"),
            (br#"{"a":"\ud800"}"#, "escape"),
            (br#"{"a":"\ud800\u0041"}"#, "surrogate"),
            (b"{\"a\":\"\xff\"}", "unicode"),
            (br#"{"a":1e400}"#, "number"),
            (br#"{"a":NaN}"#, "expected"),
            (b"\xef\xbb\xbf{}", "expected"),
            (b"{} {}", "trailing"),
            (b"{\"a\":1,}", "trailing"),
            (b"", "ends"),
            (b"{\"a\":", "ends"),
            (b"{'a':1}", "must be a string"),
            (b"// x\n{}", "expected"),
        ] {
            let refused = parse(bytes).unwrap_err();
            assert!(
                refused.contains(expected),
                "{refused}: {}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
            );
        }
    }

    #[test]
    fn an_error_never_shows_content() {
        for bytes in [
            r#"{"secret-canary":1,"secret-canary":2}"#,
            r#"{"a":"secret-canary\u0000"}"#,
            r#"{"a": secret-canary}"#,
        ] {
            let refused = parse(bytes.as_bytes()).unwrap_err();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }
}
