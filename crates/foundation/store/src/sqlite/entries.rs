//! Index and unique entries of records.
//!
//! A record keeps its own entries beside its body, encoded as one value. That is how an update knows what to take out
//! of the index without searching it, and how one that changes no key touches no index at all.

use kernel::Id;
use kernel::changeset::Put;
use rusqlite::{Connection, params};

/// The entries of a put: flag, name, key, each with its length. An entry that is named twice counts once.
pub(super) fn encode(put: &Put) -> Vec<u8> {
    let mut out = Vec::new();
    for (flag, entries) in [(0u8, &put.indexes), (1u8, &put.uniques)] {
        for (n, entry) in entries.iter().enumerate() {
            if entries[..n].contains(entry) {
                continue;
            }
            let (name, key) = entry;
            out.push(flag);
            // Names are short constants of the code and keys are at most KEY_BYTES_MAX, so both lengths fit.
            out.extend_from_slice(&(name.len() as u16).to_be_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&(key.len() as u16).to_be_bytes());
            out.extend_from_slice(key);
        }
    }
    out
}

type Entry<'a> = (bool, &'a str, &'a [u8]);

fn decode(mut bytes: &[u8]) -> Vec<Entry<'_>> {
    fn part<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        *bytes = rest;
        Some(part)
    }
    fn entry<'a>(bytes: &mut &'a [u8]) -> Option<Entry<'a>> {
        let (flag, rest) = bytes.split_first()?;
        *bytes = rest;
        Some((*flag == 1, std::str::from_utf8(part(bytes)?).ok()?, part(bytes)?))
    }
    std::iter::from_fn(|| entry(&mut bytes)).collect()
}

/// Takes out the entries that are in `old` and not in `new`.
pub(super) fn remove(
    db: &Connection,
    tenant: &str,
    kind: &str,
    id: &Id,
    old: &[u8],
    new: &[u8],
) -> rusqlite::Result<()> {
    each(old, new, |(unique, name, key)| {
        let sql = if unique {
            "DELETE FROM record_unique WHERE tenant = ? AND kind = ? AND name = ? AND key = ? AND id = ?"
        } else {
            "DELETE FROM record_index WHERE tenant = ? AND kind = ? AND name = ? AND key = ? AND id = ?"
        };
        db.prepare_cached(sql)?.execute(params![tenant, kind, name, key, id.as_str()])
    })
}

/// Puts in the entries that are in `new` and not in `old`.
pub(super) fn add(
    db: &Connection,
    tenant: &str,
    kind: &str,
    id: &Id,
    old: &[u8],
    new: &[u8],
) -> rusqlite::Result<()> {
    each(new, old, |(unique, name, key)| {
        let sql = if unique {
            "INSERT INTO record_unique (tenant, kind, name, key, id) VALUES (?, ?, ?, ?, ?)"
        } else {
            "INSERT INTO record_index (tenant, kind, name, key, id) VALUES (?, ?, ?, ?, ?)"
        };
        db.prepare_cached(sql)?.execute(params![tenant, kind, name, key, id.as_str()])
    })
}

/// Calls `with` for every entry of `some` that is not in `others`.
fn each(
    some: &[u8],
    others: &[u8],
    mut with: impl FnMut(Entry<'_>) -> rusqlite::Result<usize>,
) -> rusqlite::Result<()> {
    if some == others {
        return Ok(());
    }
    let others = decode(others);
    for entry in decode(some) {
        if !others.contains(&entry) {
            with(entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_once_each() {
        let long = "n".repeat(300);
        let long: &'static str = Box::leak(long.into_boxed_str());
        let put = Put {
            kind: "a.b",
            id: Id::parse("rec_a").unwrap(),
            rev: None,
            body: vec![],
            indexes: vec![
                ("by_x", vec![0, 1]),
                ("by_x", vec![0, 1]),
                ("by_y", vec![]),
                (long, vec![255; 512]),
            ],
            uniques: vec![("by_x", vec![0, 1])],
        };
        let encoded = encode(&put);
        let expected: Vec<Entry<'_>> = vec![
            (false, "by_x", &[0, 1]),
            (false, "by_y", &[]),
            (false, long, &[255; 512]),
            (true, "by_x", &[0, 1]),
        ];
        assert_eq!(decode(&encoded), expected);
        for cut in 0..encoded.len() {
            assert!(decode(&encoded[..cut]).len() < 4, "a cut value yields fewer entries and no panic");
        }
    }
}
