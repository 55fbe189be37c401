//! Pages of lists: at most 200 rows, and a cursor to the next.
//!
//! A cursor is the key and id of the last row shown. It is not trusted: it is only a place to go on from within the
//! tenant and the prefix that the route has chosen itself.

use crate::{Fault, Param, QueryCtx};
use kernel::{Id, hex};
use serde_json::{Value, json};
use store::{Document, Found, PAGE_MAX, Range};

/// Rows of a page where nobody says otherwise.
const PAGE: usize = 50;

/// Query parameters of every list.
pub const PARAMS: [Param; 2] = [AFTER, LIMIT];
/// The cursor.
pub const AFTER: Param = Param { name: "after", summary: "Cursor of the page before, from `next`" };
/// The size.
pub const LIMIT: Param = Param { name: "limit", summary: "Rows, at most 200; 50 where nobody says" };

/// How many rows a list's query asks for.
pub fn limit(query: &QueryCtx<'_>) -> Result<usize, Fault> {
    match query.param("limit").map(str::parse) {
        None => Ok(PAGE),
        Some(Ok(limit @ 1..=PAGE_MAX)) => Ok(limit),
        Some(_) => Err(Fault::invalid("request.invalid", "limit is a number from 1 to 200")),
    }
}

/// The range that a list's query asks for.
pub fn range(
    query: &QueryCtx<'_>,
    index: &'static str,
    prefix: Vec<u8>,
    descending: bool,
) -> Result<Range, Fault> {
    let invalid = |message: &str| Fault::invalid("request.invalid", message.to_owned());
    let limit = limit(query)?;
    let after = match query.param("after") {
        None => None,
        Some(text) => Some(decode(text, &prefix).ok_or_else(|| invalid("after is no cursor of this list"))?),
    };
    Ok(Range { index, prefix, after, descending, limit })
}

/// A page: its items, and the cursor to the next if it is full. What is not to be shown (`None`) is left out: a page may be
/// shorter than asked for, and its cursor goes on behind all that was looked at.
pub fn page<T: Document, V: Into<Option<Value>>>(
    found: &[Found<T>],
    limit: usize,
    shown: impl Fn(&T) -> V,
) -> Value {
    let next =
        found.last().filter(|_| found.len() == limit).map(|last| encode(&last.key, last.stored.doc.id()));
    let items: Vec<Value> = found.iter().filter_map(|found| shown(&found.stored.doc).into()).collect();
    json!({"items": items, "next": next})
}

/// The page of an index that a query asks for.
///
/// # Errors
/// `request.invalid` for a cursor or a limit that is none; if storage cannot be read.
pub async fn list<T: Document, V: Into<Option<Value>>>(
    query: &QueryCtx<'_>,
    index: &'static str,
    prefix: Vec<u8>,
    descending: bool,
    shown: impl Fn(&T) -> V,
) -> Result<Value, Fault> {
    let range = range(query, index, prefix, descending)?;
    let limit = range.limit;
    Ok(page(&query.view.list::<T>(range).await?, limit, shown))
}

/// The cursor that leads behind a row.
pub fn encode(key: &[u8], id: &Id) -> String {
    format!("{}.{id}", hex::encode(key))
}

/// Where a cursor leads: index key and id of the row before, in a list of what begins with `prefix`.
pub fn decode(text: &str, prefix: &[u8]) -> Option<(Vec<u8>, Id)> {
    let (key, id) = text.split_once('.')?;
    // The number's own parser takes `+f` and `6B` as well, and a cursor has one spelling.
    let digits = key.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !digits || key.len() % 2 != 0 || key.len() > kernel::changeset::KEY_BYTES_MAX * 2 {
        return None;
    }
    let key: Vec<u8> = (0..key.len())
        .step_by(2)
        .map(|at| key.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect::<Option<_>>()?;
    key.starts_with(prefix).then_some(())?;
    Some((key, Id::parse(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_place_and_nowhere_else() {
        let id = Id::parse("run_a").unwrap();
        let text = encode(b"dead\0abc", &id);
        assert_eq!(decode(&text, b"dead\0"), Some((b"dead\0abc".to_vec(), id)));
        assert_eq!(decode(&text, b"live\0"), None);
        for bad in
            ["", ".", "zz.run_a", "6.run_a", "64.", "64", "64.Run A", "é6.run_a", "+f.run_a", "6B.run_a"]
        {
            assert_eq!(decode(bad, b""), None, "{bad}");
        }
    }
}
