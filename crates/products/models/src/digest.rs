//! Digests as text.

/// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    kernel::hex::encode(&kernel::sha256(bytes))
}
