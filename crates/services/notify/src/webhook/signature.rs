//! Signatures after Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`.
//!
//! A secret is written `whsec_` and base64 of 24 to 64 random bytes. While a secret is being changed there are two, and a
//! delivery carries a signature by each, so that a receiver may change its own at any moment of that time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use custody::Secret;
use hmac::{KeyInit as _, Mac as _};
use zeroize::Zeroizing;

/// What a written secret begins with.
pub const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret has.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key that a written secret stands for; `None` if it is none.
pub fn key(written: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let text = written.expose_text()?.strip_prefix(SECRET_PREFIX)?;
    let key = Zeroizing::new(BASE64.decode(text).ok()?);
    SECRET_BYTES.contains(&key.len()).then_some(key)
}

/// The value of `webhook-signature`: one `v1,…` for each key, the newest first.
pub fn signatures(keys: &[Zeroizing<Vec<u8>>], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let each = keys.iter().filter_map(|key| {
        // HMAC takes keys of any length.
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).ok()?;
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
    });
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[test]
    fn what_a_secret_looks_like() {
        let of = |bytes: usize| format!("{SECRET_PREFIX}{}", BASE64.encode(vec![7; bytes]));
        for (text, good) in [
            (of(24), true),
            (of(64), true),
            (of(23), false),
            (of(65), false),
            (of(24).replace("whsec_", "WHSEC_"), false),
            (of(24).replace("whsec_", ""), false),
            (format!("{}!", of(24)), false),
            (format!("{}\n", of(24)), false),
        ] {
            assert_eq!(key(&secret(&text)).is_some(), good, "{text:?}");
        }
    }

    #[test]
    fn the_example_of_the_specification() {
        // Secret, id, timestamp, payload and signature as its documentation of signatures has them.
        let key = key(&secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        let made =
            signatures(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_signs() {
        let keys = [Zeroizing::new(vec![1; 24]), Zeroizing::new(vec![2; 24])];
        let both = signatures(&keys, "fct_1", 7, b"{}");
        let one = |at: usize| signatures(&keys[at..=at], "fct_1", 7, b"{}");
        assert_eq!(both, format!("{} {}", one(0), one(1)));
        assert_ne!(one(0), one(1));
    }
}
