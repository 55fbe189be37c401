//! Order-preserving index keys, encoded here rather than by the engines, so that both sort alike.
//!
//! A key is a sequence of parts. Texts end in 0x00 (they may not contain it), integers are eight bytes big-endian with
//! the sign bit flipped. Comparing keys as bytes then compares the parts in order.

/// Builds a key part by part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// An empty key: a prefix of every key.
    pub fn new() -> Key {
        Key::default()
    }

    /// Appends a text. A zero byte inside would end it early, so it is dropped.
    pub fn text(mut self, text: &str) -> Key {
        self.0.extend(text.bytes().filter(|byte| *byte != 0));
        self.0.push(0);
        self
    }

    /// Appends an integer.
    pub fn integer(mut self, number: i64) -> Key {
        self.0.extend_from_slice(&((number as u64) ^ (1 << 63)).to_be_bytes());
        self
    }

    /// The key's bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The least key that is greater than every key with this prefix; `None` if there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_parts() {
        let key = |text: &str, number| Key::new().text(text).integer(number).bytes();
        let mut parts = [("b", 1), ("a", i64::MAX), ("a", -5), ("ab", 0), ("a", i64::MIN), ("a", 3), ("", 9)];
        let mut keys: Vec<_> = parts.iter().map(|(text, number)| key(text, *number)).collect();
        parts.sort();
        keys.sort();
        assert_eq!(keys, parts.iter().map(|(text, number)| key(text, *number)).collect::<Vec<_>>());
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255]), None);
        assert_eq!(prefix_end(&[]), None);
    }
}
