//! The form in which OPA hashes a structured file of a bundle.
//!
//! `.manifest` and `data.json` are not hashed by their bytes but by a walk over the parsed document (OPA,
//! `v1/bundle/hash.go`): object keys sorted by bytes, no white space, strings as Go writes them without HTML
//! escaping, and numbers in the very spelling of the file, so that `1` and `1.0` differ. That walk is what this
//! module writes; SHA-256 over it is the file's hash.
//!
//! Two deliberate refusals narrow the format: a repeated key (whose meaning depends on the reader) and a number
//! with an exponent or more than 32 characters (whose expansion can be a million digits).

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

const DEPTH_MAX: usize = 24;
const NUMBER_BYTES_MAX: usize = 32;

/// Writes the canonical walk of the JSON document `text`.
pub(super) fn walk(text: &str) -> Result<Vec<u8>, String> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut out = Vec::with_capacity(text.len());
    value(&mut out, raw.get(), 0)?;
    Ok(out)
}

fn value(out: &mut Vec<u8>, text: &str, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err("nested too deeply".into());
    }
    let explain = |error: serde_json::Error| error.to_string();
    match text.as_bytes().first() {
        Some(b'{') => {
            let mut members = serde_json::from_str::<Members<'_>>(text).map_err(explain)?.0;
            members.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(format!("the key {:?} stands twice in one object", pair[0].0));
            }
            out.push(b'{');
            for (at, (key, member)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                string(out, key);
                out.push(b':');
                value(out, member.get(), depth + 1)?;
            }
            out.push(b'}');
        }
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<&RawValue>>(text).map_err(explain)?;
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                value(out, item.get(), depth + 1)?;
            }
            out.push(b']');
        }
        Some(b'"') => string(out, &serde_json::from_str::<String>(text).map_err(explain)?),
        Some(b't' | b'f' | b'n') => out.extend_from_slice(text.as_bytes()),
        _ if text.len() <= NUMBER_BYTES_MAX && !text.contains(['e', 'E']) => {
            out.extend_from_slice(text.as_bytes())
        }
        _ => return Err("numbers have at most 32 characters and no exponent".into()),
    }
    Ok(())
}

/// A string as Go's `encoding/json` writes it with HTML escaping off.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for ch in text.chars() {
        match ch {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(ch)).as_bytes());
            }
            _ => out.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// An object's members in the order of the text, repeated keys and all.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::walk;

    #[test]
    fn writes_what_opa_hashes() {
        for (text, want) in [
            (r#" { "b" : [ 1 , 1.0, -0 ], "a" : { } } "#, r#"{"a":{},"b":[1,1.0,-0]}"#),
            (
                r#"{"c":123.45678911111111111111,"é":"α","Z":null,"\u0061b":true}"#,
                r#"{"Z":null,"ab":true,"c":123.45678911111111111111,"é":"α"}"#,
            ),
            (r#""<foo>&</foo>\/\u007f""#, "\"<foo>&</foo>/\u{7f}\""),
            (
                r#""\u0000\u0008\u0009\u000a\u000c\u000d\u001f\u2028\"\\""#,
                r#""\u0000\b\t\n\f\r\u001f\u2028\"\\""#,
            ),
            ("[]", "[]"),
            ("false", "false"),
        ] {
            assert_eq!(walk(text).map(|out| String::from_utf8(out).unwrap()).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_readers_disagree_about() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            "1e9",
            "1E400",
            "01",
            "1.",
            "nul",
            "",
            "[1,]",
            "{a:1}",
            r#""\ud800""#,
            "\"\u{1}\"",
            "1 2",
            "123456789012345678901234567890123",
            "\u{feff}{}",
            &deep,
        ] {
            assert!(walk(text).is_err(), "{text:.20}");
        }
    }
}
