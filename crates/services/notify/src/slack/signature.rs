//! Slack's signature of requests (api.slack.com, "Verifying requests from Slack", version 0).
//!
//! `X-Slack-Signature: v0=` and the hexadecimal HMAC-SHA256, with the app's signing secret, of `v0:`, the value of
//! `X-Slack-Request-Timestamp`, `:` and the raw body: the bytes as they came, before anything decodes them.

use act::{Class, Coded};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// How far a request's time may be off, in milliseconds.
pub const SKEW_MS: i64 = 5 * 60 * 1000;
/// Shortest signing secret, in bytes. Slack's have 32.
pub const SECRET_BYTES_MIN: usize = 16;
const TIMESTAMP: &str = "x-slack-request-timestamp";
const SIGNATURE: &str = "x-slack-signature";
const HEADER_BYTES_MAX: usize = 128;

/// Why a request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is missing, doubled or malformed.
    #[error("the request needs exactly one x-slack-request-timestamp and x-slack-signature")]
    Headers,
    /// It does not fit.
    #[error("the request's signature does not fit")]
    Signature,
    /// It is too old, or of the future.
    #[error("the request's timestamp is more than five minutes off")]
    Stale,
}

impl Coded for SignatureError {
    fn code(&self) -> &'static str {
        match self {
            SignatureError::Headers => "slack.headers",
            SignatureError::Signature => "slack.signature",
            SignatureError::Stale => "slack.stale",
        }
    }
    fn class(&self) -> Class {
        Class::Unauthenticated
    }
}

/// The two headers of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed<'a> {
    /// Seconds since 1970, as text.
    pub timestamp: &'a str,
    /// `v0=…`
    pub signature: &'a str,
}

impl<'a> Signed<'a> {
    /// Reads the headers, each of which stands exactly once.
    pub fn read(headers: &'a [(String, String)]) -> Result<Signed<'a>, SignatureError> {
        let one = |name: &str| {
            let mut values = headers
                .iter()
                .filter(|(header, _)| header.eq_ignore_ascii_case(name))
                .map(|(_, value)| value);
            match (values.next(), values.next()) {
                (Some(value), None) if !value.is_empty() && value.len() <= HEADER_BYTES_MAX => {
                    Ok(value.as_str())
                }
                _ => Err(SignatureError::Headers),
            }
        };
        Ok(Signed { timestamp: one(TIMESTAMP)?, signature: one(SIGNATURE)? })
    }

    /// Checks signature and time, in constant time as far as the secret goes.
    pub fn verify(&self, secret: &[u8], body: &[u8], now_ms: i64) -> Result<(), SignatureError> {
        let digits = self.timestamp.len() <= 12 && self.timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let at_s: i64 = self.timestamp.parse().ok().filter(|_| digits).ok_or(SignatureError::Headers)?;
        let expected = sign(secret, self.timestamp, body).ok_or(SignatureError::Signature)?;
        if !bool::from(expected.as_bytes().ct_eq(self.signature.as_bytes())) {
            return Err(SignatureError::Signature);
        }
        // After the signature: an unsigned sender learns nothing about the clock.
        if now_ms.abs_diff(at_s.saturating_mul(1000)) > SKEW_MS.unsigned_abs() {
            Err(SignatureError::Stale)
        } else {
            Ok(())
        }
    }
}

/// The signature of a body; `None` for a secret that is too short to be one.
pub fn sign(secret: &[u8], timestamp: &str, body: &[u8]) -> Option<String> {
    if secret.len() < SECRET_BYTES_MIN {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(b"v0:");
    mac.update(timestamp.as_bytes());
    mac.update(b":");
    mac.update(body);
    let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("v0={digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"8f742231b10e8888abcd99yyyzzz85a5";
    const BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

    /// The example of Slack's documentation.
    #[test]
    fn it_agrees_with_the_documentation() {
        assert_eq!(
            sign(SECRET, "1531420618", BODY).as_deref(),
            Some("v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503")
        );
    }

    #[test]
    fn what_is_believed() {
        let good = sign(SECRET, "1000", b"payload=x").unwrap();
        let short = sign(b"0123456789abcdef", "1000", b"payload=x").unwrap();
        let upper = good.to_uppercase();
        let now_ms = 1_000_000;
        for (what, secret, timestamp, signature, body, now_ms, expected) in [
            ("good", SECRET, "1000", good.as_str(), &b"payload=x"[..], now_ms, Ok(())),
            ("at the edge", SECRET, "1000", &good, b"payload=x", now_ms + SKEW_MS, Ok(())),
            ("late", SECRET, "1000", &good, b"payload=x", now_ms + SKEW_MS + 1, Err(SignatureError::Stale)),
            ("early", SECRET, "1000", &good, b"payload=x", now_ms - SKEW_MS - 1, Err(SignatureError::Stale)),
            ("another body", SECRET, "1000", &good, b"payload=y", now_ms, Err(SignatureError::Signature)),
            ("another time", SECRET, "1001", &good, b"payload=x", now_ms, Err(SignatureError::Signature)),
            ("another secret", SECRET, "1000", &short, b"payload=x", now_ms, Err(SignatureError::Signature)),
            ("no secret", b"", "1000", &good, b"payload=x", now_ms, Err(SignatureError::Signature)),
            ("upper case", SECRET, "1000", &upper, b"payload=x", now_ms, Err(SignatureError::Signature)),
            ("cut", SECRET, "1000", &good[..40], b"payload=x", now_ms, Err(SignatureError::Signature)),
            (
                "another version",
                SECRET,
                "1000",
                "v1=00",
                b"payload=x",
                now_ms,
                Err(SignatureError::Signature),
            ),
            ("a signed time", SECRET, "+1000", &good, b"payload=x", now_ms, Err(SignatureError::Headers)),
            ("no number", SECRET, "soon", &good, b"payload=x", now_ms, Err(SignatureError::Headers)),
            (
                "a huge number",
                SECRET,
                "9999999999999",
                &good,
                b"payload=x",
                now_ms,
                Err(SignatureError::Headers),
            ),
        ] {
            assert_eq!(Signed { timestamp, signature }.verify(secret, body, now_ms), expected, "{what}");
        }
    }

    #[test]
    fn each_header_once() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let all = vec![header("X-Slack-Request-Timestamp", "1"), header("x-slack-signature", "v0=a")];
        assert_eq!(Signed::read(&all), Ok(Signed { timestamp: "1", signature: "v0=a" }));
        for n in 0..2 {
            let mut missing = all.clone();
            missing.remove(n);
            let mut doubled = all.clone();
            doubled.push(all[n].clone());
            let mut empty = all.clone();
            empty[n].1.clear();
            let mut long = all.clone();
            long[n].1 = "x".repeat(HEADER_BYTES_MAX + 1);
            for headers in [missing, doubled, empty, long] {
                assert_eq!(Signed::read(&headers), Err(SignatureError::Headers));
            }
        }
    }
}
