//! Salted commitments: a fact says *which* arguments it speaks of without saying what they were.
//!
//! A fact stands for years and is shown to strangers; the arguments of an act may hold personal data and must be
//! erasable. So a leaf carries only a commitment: the root of a small tree over one salted hash per field. The
//! arguments and the seed of the salts lie beside the log in an erasable side row. Whoever holds the side row can
//! open one field, or all of them, to a verifier; once it is erased nobody can, and a dictionary attack meets 256
//! random bits per field.
//!
//! ```text
//! salt(path)  = SHA-256(0x03 ‖ seed ‖ path)
//! field(path) = SHA-256(0x02 ‖ salt ‖ len(path) as u16 big-endian ‖ path ‖ canonical(value))
//! commitment  = RFC 6962 tree head over the field hashes in order of their paths
//! ```

use crate::{Digest, hex, json, merkle, sha256};
use serde_json::{Value, json};

/// Most fields in one commitment.
pub const FIELDS_MAX: usize = 64;

/// The commitment to `args`, an object; anything else is committed to as the one field `value`.
pub fn commit(seed: &[u8; 32], args: &Value) -> Result<Digest, CommitmentError> {
    Ok(merkle::root_of(
        &fields(args)?
            .map(|(path, value)| field(&salt(seed, path), path, value))
            .collect::<Result<Vec<_>, _>>()?,
    ))
}

/// Why arguments cannot be committed to, or a disclosure does not open one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// More than [`FIELDS_MAX`] fields.
    #[error("more than {FIELDS_MAX} arguments")]
    TooMany,
    /// The value is outside the canonical profile.
    #[error("an argument is outside the canonical JSON profile")]
    Value(#[from] json::JsonError),
    /// The disclosure is malformed.
    #[error("the disclosure is malformed")]
    Malformed,
    /// The disclosed fields do not add up to the commitment.
    #[error("the disclosed arguments are not the ones committed to")]
    Mismatch,
}

fn fields(args: &Value) -> Result<impl Iterator<Item = (&str, &Value)>, CommitmentError> {
    let mut fields: Vec<(&str, &Value)> = match args {
        Value::Object(map) => map.iter().map(|(key, value)| (key.as_str(), value)).collect(),
        other => vec![("value", other)],
    };
    if fields.len() > FIELDS_MAX {
        return Err(CommitmentError::TooMany);
    }
    fields.sort_unstable_by_key(|(path, _)| path.as_bytes());
    Ok(fields.into_iter())
}

fn salt(seed: &[u8; 32], path: &str) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(33 + path.len());
    bytes.push(3);
    bytes.extend_from_slice(seed);
    bytes.extend_from_slice(path.as_bytes());
    sha256(&bytes)
}

fn field(salt: &[u8; 32], path: &str, value: &Value) -> Result<Digest, CommitmentError> {
    let length = u16::try_from(path.len()).map_err(|_| CommitmentError::Malformed)?;
    let mut bytes = Vec::with_capacity(64 + path.len());
    bytes.push(2);
    bytes.extend_from_slice(salt);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(path.as_bytes());
    json::write_value(&mut bytes, value, 0)?;
    Ok(sha256(&bytes))
}

/// A disclosure of the fields that `show` names; the others stay hidden behind their hashes.
///
/// The result is a list of `{"path", "salt", "value"}` and `{"hidden"}` in the order of the tree.
pub fn disclose(
    seed: &[u8; 32],
    args: &Value,
    show: impl Fn(&str) -> bool,
) -> Result<Value, CommitmentError> {
    fields(args)?
        .map(|(path, value)| {
            let salt = salt(seed, path);
            Ok(if show(path) {
                json!({"path": path, "salt": hex::encode(&salt), "value": value})
            } else {
                json!({"hidden": hex::encode(&field(&salt, path, value)?)})
            })
        })
        .collect()
}

/// Checks that `disclosure` opens `commitment`.
pub fn open(commitment: &Digest, disclosure: &Value) -> Result<(), CommitmentError> {
    let items = disclosure.as_array().ok_or(CommitmentError::Malformed)?;
    if items.len() > FIELDS_MAX {
        return Err(CommitmentError::TooMany);
    }
    let digest = |value: &Value| value.as_str().and_then(hex::decode32).ok_or(CommitmentError::Malformed);
    let hashes = items
        .iter()
        .map(|item| {
            let item = item.as_object().ok_or(CommitmentError::Malformed)?;
            match (item.len(), item.get("hidden"), item.get("path"), item.get("salt"), item.get("value")) {
                (1, Some(hidden), None, None, None) => digest(hidden),
                (3, None, Some(path), Some(salt), Some(value)) => {
                    field(&digest(salt)?, path.as_str().ok_or(CommitmentError::Malformed)?, value)
                }
                _ => Err(CommitmentError::Malformed),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if merkle::root_of(&hashes) == *commitment { Ok(()) } else { Err(CommitmentError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_whole_in_part_and_not_when_touched() {
        let args = json!({"number": "INC1", "group": "Access", "n": 3});
        let commitment = commit(&[7; 32], &args).unwrap();
        assert_ne!(commitment, commit(&[8; 32], &args).unwrap(), "another seed, another commitment");
        for show in [true, false] {
            assert_eq!(open(&commitment, &disclose(&[7; 32], &args, |_| show).unwrap()), Ok(()));
        }
        let part = disclose(&[7; 32], &args, |path| path == "group").unwrap();
        assert_eq!(open(&commitment, &part), Ok(()));
        assert!(!part.to_string().contains("INC1"));
        let touched = serde_json::from_str(&part.to_string().replace("Access", "Axcess")).unwrap();
        assert_eq!(open(&commitment, &touched), Err(CommitmentError::Mismatch));
        for bad in [json!({}), json!([1]), json!([{"hidden": "00"}]), json!([{"path": "a", "salt": "b"}])] {
            assert!(open(&commitment, &bad).is_err(), "{bad}");
        }
    }
}
