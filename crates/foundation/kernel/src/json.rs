//! The canonical JSON profile: what is hashed, signed and compared.
//!
//! It is RFC 8785 (JCS) narrowed until two independent implementations cannot disagree: object keys are printable
//! ASCII and sorted, there are no floating-point numbers, integers lie strictly between -2⁵³ and 2⁵³ (larger ones
//! travel as strings), nothing nests deeper than [`DEPTH_MAX`]. Inside this profile the canonical form is also
//! what `json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)` prints in Python, which is
//! what the second verifier relies on.
//!
//! [`canonical`] writes the form; [`check`] says whether bytes already are in it, in one pass and without building
//! a value, because the verifier does that for every leaf of a bundle.

use serde_json::Value;

/// Deepest nesting accepted.
pub const DEPTH_MAX: usize = 16;
const INTEGER_LIMIT: i64 = 1 << 53;

/// Why a value or a text is outside the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A number with a fraction or an exponent, or an integer of 2⁵³ or more.
    #[error("numbers are integers between -2^53 and 2^53; larger ones are written as strings")]
    Number,
    /// A key that is empty or not printable ASCII.
    #[error("object keys are printable ASCII and not empty")]
    Key,
    /// Nesting beyond [`DEPTH_MAX`].
    #[error("nested too deeply")]
    Depth,
    /// The bytes are not in canonical form; the offset of the first byte that is wrong.
    #[error("not canonical at byte {0}")]
    NotCanonical(usize),
}

/// Writes `value` in canonical form.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value, 0)?;
    Ok(out)
}

/// Appends `value` in canonical form to `out`; `depth` is how deep it will stand.
pub fn write_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), JsonError> {
    if depth > DEPTH_MAX {
        return Err(JsonError::Depth);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            let number = number
                .as_i64()
                .filter(|n| n.unsigned_abs() < INTEGER_LIMIT.unsigned_abs())
                .ok_or(JsonError::Number)?;
            write_integer(out, number);
        }
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_value(out, item, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // serde_json's map is sorted unless some dependency turns on `preserve_order`; sorting here makes the
            // form independent of that.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push(b'{');
            for (n, (key, item)) in entries.into_iter().enumerate() {
                if key.is_empty() || !key.bytes().all(key_byte) {
                    return Err(JsonError::Key);
                }
                if n > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                write_value(out, item, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn key_byte(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Appends a decimal integer.
pub fn write_integer(out: &mut Vec<u8>, number: i64) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{number}");
}

/// Appends a JSON string with exactly the escapes of RFC 8785 §3.2.2.2.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x08 => b"\\b",
            0x09 => b"\\t",
            0x0a => b"\\n",
            0x0c => b"\\f",
            0x0d => b"\\r",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain_from..at]);
        if escape.is_empty() {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        plain_from = at + 1;
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

/// Says whether `bytes` are exactly one value in canonical form.
pub fn check(bytes: &[u8]) -> Result<(), JsonError> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(JsonError::NotCanonical(0));
    }
    let mut scan = Scan::new(bytes);
    scan.value(0)?;
    if scan.at_end() { Ok(()) } else { scan.bad() }
}

/// Passes over canonical JSON. The bytes are UTF-8, which the caller has checked.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Nowhere in the bytes is a backslash or a control character, so a string ends at the next quote. Nearly every leaf is
    /// like that, and one look over all of it costs less than looking for three kinds of bytes in each of its strings.
    calm: bool,
}

/// A string that was passed over: the span between its quotes, and whether it is free of escapes.
pub(crate) struct Span {
    pub from: usize,
    pub to: usize,
    pub plain: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Scan<'a> {
        // Without a way out at the first such byte, so that the compiler looks at many at once.
        let calm = bytes.iter().fold(true, |calm, byte| calm & (*byte >= 0x20) & (*byte != b'\\'));
        Scan { bytes, at: 0, calm }
    }

    /// How many bytes have been passed.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn bad<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::NotCanonical(self.at))
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over exactly `text`. Its length is part of the type: comparing with a constant of known length is a few
    /// instructions instead of a call, and a leaf has forty of them.
    #[inline]
    pub(crate) fn literal<const N: usize>(&mut self, text: &[u8; N]) -> Result<(), JsonError> {
        if self.bytes[self.at..].first_chunk::<N>() == Some(text) {
            self.at += N;
            Ok(())
        } else {
            self.bad()
        }
    }

    /// Passes over a value that stands `depth` deep.
    pub(crate) fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::Depth);
        }
        match self.peek() {
            Some(b'n') => self.literal(b"null"),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.integer().map(|_| ()),
            Some(b'[') => {
                self.at += 1;
                if self.peek() == Some(b']') {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.value(depth + 1)?;
                    match self.peek() {
                        Some(b',') => self.at += 1,
                        Some(b']') => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return self.bad(),
                    }
                }
            }
            Some(b'{') => self.object(depth),
            _ => self.bad(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut previous: Option<(usize, usize)> = None;
        loop {
            let from = self.at;
            let span = self.string()?;
            let key = &self.bytes[span.from..span.to];
            if key.is_empty() || !key.iter().fold(true, |ok, byte| ok & key_byte(*byte)) {
                return Err(JsonError::Key);
            }
            if previous.is_some_and(|(a, b)| &self.bytes[a..b] >= key) {
                return Err(JsonError::NotCanonical(from));
            }
            previous = Some((span.from, span.to));
            self.literal(b":")?;
            self.value(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.bad(),
            }
        }
    }

    /// Passes over a string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Span, JsonError> {
        self.literal(b"\"")?;
        if !self.calm {
            return self.string_rest();
        }
        let from = self.at;
        self.at += quote(&self.bytes[from..]);
        self.literal(b"\"")?;
        Ok(Span { from, to: self.at - 1, plain: true })
    }

    /// Passes over what follows a string's first quote, looking at everything.
    fn string_rest(&mut self) -> Result<Span, JsonError> {
        let from = self.at;
        let mut plain = true;
        loop {
            self.at += unremarkable(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Span { from, to: self.at - 1, plain });
                }
                Some(b'\\') => {
                    plain = false;
                    let rest = &self.bytes[self.at + 1..];
                    match rest.first() {
                        Some(b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r') => self.at += 2,
                        Some(b'u') => {
                            // Only control characters without a short escape are written as \u00xx.
                            let [b'u', b'0', b'0', high @ (b'0' | b'1'), low, ..] = rest else {
                                return self.bad();
                            };
                            let low_value = match low {
                                b'0'..=b'9' => low - b'0',
                                b'a'..=b'f' => low - b'a' + 10,
                                _ => return self.bad(),
                            };
                            let value = (high - b'0') << 4 | low_value;
                            if matches!(value, 0x08 | 0x09 | 0x0a | 0x0c | 0x0d) {
                                return self.bad();
                            }
                            self.at += 6;
                        }
                        _ => return self.bad(),
                    }
                }
                _ => return self.bad(),
            }
        }
    }

    /// Passes over an integer and returns it.
    pub(crate) fn integer(&mut self) -> Result<i64, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let digits_from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let digits = &self.bytes[digits_from..self.at];
        let zero = digits == b"0";
        let negative = digits_from > from;
        if digits.is_empty() || digits.len() > 16 || (digits[0] == b'0' && (!zero || negative)) {
            return Err(JsonError::NotCanonical(from));
        }
        let value = digits.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        if value >= INTEGER_LIMIT {
            return Err(JsonError::Number);
        }
        Ok(if negative { -value } else { value })
    }
}

/// How many bytes from the start are no quote, eight at a time as in [`unremarkable`].
#[inline]
fn quote(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let other = u64::from_le_bytes(*word) ^ (ONES * 0x22);
        let hits = other.wrapping_sub(ONES) & !other & HIGHS;
        if hits != 0 {
            return n * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().position(|byte| *byte == b'"').unwrap_or(rest.len())
}

/// How many bytes from the start are neither a quote, a backslash nor a control character. Strings are most of a leaf, so
/// they are passed over eight bytes at a time: a byte of `x` is zero exactly where `(x - 1) & !x` first has its high bit set.
fn unremarkable(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let (words, _) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        // Above the first hit a borrow may mark a byte wrongly; the first hit itself is exact.
        let hits = (zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control) & HIGHS;
        if hits != 0 {
            return n * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let from = words.len() * 8;
    let rest = &bytes[from..];
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    from + rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_and_recognises() {
        for (value, text) in [
            (json!({"b": 1, "a": [true, null, -3]}), r#"{"a":[true,null,-3],"b":1}"#),
            (json!({"t": "é\n\u{1}\"\\\u{7f}/"}), "{\"t\":\"é\\n\\u0001\\\"\\\\\u{7f}/\"}"),
            (json!([]), "[]"),
            (json!({}), "{}"),
            (json!(0), "0"),
        ] {
            let written = canonical(&value).unwrap();
            assert_eq!(String::from_utf8(written.clone()).unwrap(), text);
            assert_eq!(check(&written), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_outside_the_profile() {
        assert_eq!(canonical(&json!(1.5)), Err(JsonError::Number));
        assert_eq!(canonical(&json!(1i64 << 53)), Err(JsonError::Number));
        assert_eq!(canonical(&json!(u64::MAX)), Err(JsonError::Number));
        assert_eq!(canonical(&json!(i64::MIN)), Err(JsonError::Number));
        assert_eq!(canonical(&json!({"é": 1})), Err(JsonError::Key));
        assert_eq!(canonical(&json!({"": 1})), Err(JsonError::Key));
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert_eq!(canonical(&deep), Err(JsonError::Depth));
    }

    #[test]
    fn what_a_string_may_hold_is_found_at_every_offset() {
        for (special, ok) in [
            ("\"", false),
            ("\n", false),
            ("\u{1f}", false),
            ("\\", false),
            (" ", true),
            ("\u{7f}", true),
            ("é", true),
            ("\u{80}", true),
            ("!", true),
            ("]", true),
            ("[", true),
            ("#", true),
        ] {
            for before in 0..20 {
                for after in 0..20 {
                    let text = format!("\"{}{special}{}\"", "a".repeat(before), "x".repeat(after));
                    assert_eq!(check(text.as_bytes()).is_ok(), ok, "{text:?}");
                    // Behind an escape, where every byte is looked at one by one.
                    let text = format!("[\"\\n\",{text}]");
                    assert_eq!(check(text.as_bytes()).is_ok(), ok, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn recognises_only_the_canonical_spelling() {
        for text in [
            "",
            " 1",
            "1 ",
            "01",
            "-0",
            "+1",
            "1.0",
            "1e3",
            "9007199254740992",
            "{\"b\":1,\"a\":2}",
            "{\"a\":1,\"a\":2}",
            "{\"a\" :1}",
            "{\"a\":1,}",
            "[1,]",
            "[1",
            "\"\\u0041\"",
            "\"\\u000a\"",
            "\"\\/\"",
            "\"\\u00e9\"",
            "\"\t\"",
            "\"a",
            "tru",
            "{\"é\":1}",
            "nulll",
            "{a:1}",
            "\"\\u001F\"",
            "[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        assert!(check(b"\"\xff\"").is_err());
    }
}
