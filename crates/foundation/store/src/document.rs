//! The thin typed layer: documents with a version, on top of bytes.
//!
//! A stored body is `{"v": <version>, "doc": {…}}`. Inbound data is strict, stored data is lenient: a document written
//! by an older version is brought up by [`Document::upcast`], a pure function with a test per old shape; one written by
//! a newer version keeps the members that this version does not know when it is rewritten.

use crate::{ReadError, Row};
use kernel::Id;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A kind of record with a type.
pub trait Document: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind, `<domain>.<noun>`.
    const KIND: &'static str;
    /// Version of the body's form. Raised by every change of it, an added member included: only in a body of another
    /// version are members looked for that this one does not know.
    const VERSION: u32 = 1;

    /// The record's id.
    fn id(&self) -> &Id;

    /// Index entries (name, key).
    fn indexes(&self) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }

    /// Unique entries (name, key).
    fn uniques(&self) -> Vec<(&'static str, Vec<u8>)> {
        Vec::new()
    }

    /// Brings the body of an older version up to this one. `None`: that version is not known.
    fn upcast(version: u32, doc: Value) -> Option<Value> {
        let _ = (version, doc);
        None
    }
}

/// A document as read, with its revision.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// The document.
    pub doc: T,
    /// Its revision.
    pub rev: u64,
    /// Members that a newer version wrote and this one does not know.
    pub(crate) unknown: Option<serde_json::Map<String, Value>>,
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.doc
    }
}

/// A document found in a list, with the key it was found under.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// Its index key, for the cursor.
    pub key: Vec<u8>,
    /// The document.
    pub stored: Stored<T>,
}

#[derive(Deserialize)]
struct Body<'a> {
    v: u32,
    #[serde(borrow)]
    doc: &'a serde_json::value::RawValue,
}

#[derive(Serialize)]
struct BodyRef<'a, D> {
    v: u32,
    doc: &'a D,
}

/// Reads a row as a document.
pub fn decode<T: Document>(row: &Row) -> Result<Stored<T>, ReadError> {
    let read = || -> Option<Stored<T>> {
        let body: Body<'_> = serde_json::from_slice(&row.body).ok()?;
        if body.v == T::VERSION {
            return Some(Stored {
                doc: serde_json::from_str(body.doc.get()).ok()?,
                rev: row.rev,
                unknown: None,
            });
        }
        let value: Value = serde_json::from_str(body.doc.get()).ok()?;
        if body.v < T::VERSION {
            let doc = serde_json::from_value(T::upcast(body.v, value)?).ok()?;
            return Some(Stored { doc, rev: row.rev, unknown: None });
        }
        let doc: T = serde_json::from_value(value.clone()).ok()?;
        let Value::Object(mut unknown) = value else { return None };
        if let Ok(Value::Object(known)) = serde_json::to_value(&doc) {
            unknown.retain(|key, _| !known.contains_key(key));
        }
        Some(Stored { doc, rev: row.rev, unknown: Some(unknown) })
    };
    read().ok_or_else(|| ReadError::Unreadable { kind: T::KIND.to_owned(), id: row.id.to_string() })
}

pub(crate) fn encode<T: Document>(doc: &T, unknown: Option<&serde_json::Map<String, Value>>) -> Vec<u8> {
    // Documents are plain data with text keys; serialising one to JSON cannot fail.
    let body = match unknown {
        None => serde_json::to_vec(&BodyRef { v: T::VERSION, doc }),
        Some(unknown) => {
            let mut value = serde_json::to_value(doc).unwrap_or_default();
            if let Value::Object(map) = &mut value {
                map.extend(unknown.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            serde_json::to_vec(&BodyRef { v: T::VERSION, doc: &value })
        }
    };
    body.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Thing {
        id: Id,
        size: u32,
    }

    impl Document for Thing {
        const KIND: &'static str = "test.thing";
        const VERSION: u32 = 2;
        fn id(&self) -> &Id {
            &self.id
        }
        fn upcast(version: u32, mut doc: Value) -> Option<Value> {
            (version == 1).then(|| {
                let old = doc["length"].take();
                doc["size"] = old;
                doc
            })
        }
    }

    fn row(body: &str) -> Row {
        Row { id: Id::parse("thing_a").unwrap(), rev: 3, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn old_new_and_newer_shapes() {
        let new = decode::<Thing>(&row(r#"{"v":2,"doc":{"id":"thing_a","size":4}}"#)).unwrap();
        let old = decode::<Thing>(&row(r#"{"v":1,"doc":{"id":"thing_a","length":4}}"#)).unwrap();
        assert_eq!(new.doc, old.doc);
        let newer =
            decode::<Thing>(&row(r#"{"v":3,"doc":{"id":"thing_a","size":4,"colour":"red"}}"#)).unwrap();
        let rewritten = encode(&newer.doc, newer.unknown.as_ref());
        assert_eq!(
            serde_json::from_slice::<Value>(&rewritten).unwrap(),
            serde_json::json!({"v": 2, "doc": {"id": "thing_a", "size": 4, "colour": "red"}}),
        );
        for bad in
            ["", "{}", r#"{"v":0,"doc":{}}"#, r#"{"v":2,"doc":{"id":"thing_a"}}"#, r#"{"v":3,"doc":[]}"#]
        {
            assert!(decode::<Thing>(&row(bad)).is_err(), "{bad}");
        }
    }
}
