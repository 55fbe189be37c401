//! Lower-case hexadecimal, the only spelling of digests in facts, bundles and the API.

/// Writes `bytes` as lower-case hexadecimal.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

/// Reads exactly 64 lower-case hexadecimal digits. Upper case, other lengths and other characters are `None`:
/// one value has one spelling.
pub fn decode32(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut out = [0u8; 32];
    for (slot, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *slot = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Whether `text` is exactly 64 lower-case hexadecimal digits: what [`decode32`] reads, for those who need no bytes.
pub fn is32(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() | (b'a'..=b'f').contains(&byte);
    // Every byte is looked at, so that the compiler looks at many at once.
    text.len() == 64 && text.bytes().fold(true, |ok, byte| ok & digit(byte))
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_value_has_one_spelling() {
        let bytes = crate::sha256(b"x");
        let text = super::encode(&bytes);
        assert_eq!(super::decode32(&text), Some(bytes));
        assert_eq!(super::decode32(&text.to_uppercase()), None);
        assert_eq!(super::decode32(&text[1..]), None);
        for at in 0..64 {
            for byte in 0..=127u8 {
                let mut touched = text.clone().into_bytes();
                touched[at] = byte;
                let touched = String::from_utf8(touched).unwrap();
                assert_eq!(super::is32(&touched), super::decode32(&touched).is_some(), "{touched}");
            }
        }
        assert!(!super::is32(&text[1..]));
    }
}
