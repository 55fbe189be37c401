//! The webhook that a business rule of the stand-in would send, signed as Standard Webhooks say
//! (<https://www.standardwebhooks.com>, scheme `v1`, HMAC-SHA256).
//!
//! A real instance has no signature of its own: its people put a static secret in a header. The integration
//! guide of this project asks for a script that signs, and the stand-in sends what that script would.
//!
//! The sandbox sends nothing itself. It hands out the parts, and the caller posts them: once, twice (a
//! duplicate), late (a replay) or with a byte changed (a forgery).

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Before the base64 of a signing secret.
pub const SECRET_PREFIX: &str = "whsec_";
/// Shortest and longest signing key in bytes, as Standard Webhooks recommend.
pub const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What the business rule reports. A rule on update also fires on the integration's own write-back: the
/// receiver must recognise `sys_updated_by` or run in circles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    /// `incident.created`
    #[serde(rename = "incident.created")]
    Created,
    /// `incident.updated`
    #[serde(rename = "incident.updated")]
    Updated,
}

impl WebhookEvent {
    /// The name in the body.
    pub fn name(self) -> &'static str {
        match self {
            WebhookEvent::Created => "incident.created",
            WebhookEvent::Updated => "incident.updated",
        }
    }
}

/// A webhook ready to be sent: `POST` these headers with exactly this body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The id, also in the header `webhook-id`. It stays the same when a delivery is repeated.
    pub id: String,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The raw body. The signature covers these bytes.
    pub body: String,
}

impl Webhook {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A signing key, read from `whsec_<base64>`.
#[derive(Clone)]
pub(crate) struct Signer(Vec<u8>);

impl Signer {
    /// `None` where the secret is not `whsec_` and the base64 of 24 to 64 bytes.
    pub fn parse(secret: &str) -> Option<Signer> {
        let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
        SECRET_BYTES.contains(&key.len()).then_some(Signer(key))
    }

    /// A webhook with its three headers, signed over `{id}.{timestamp}.{body}`.
    pub fn webhook(&self, id: String, at_ms: i64, body: String) -> Webhook {
        let timestamp = at_ms.div_euclid(1_000).to_string();
        // HMAC takes keys of any length, so there is no error to handle (RFC 2104 §2).
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [&id, ".", &timestamp, ".", &body] {
            mac.update(part.as_bytes());
        }
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", &id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Webhook { id, headers, body }
    }
}

#[cfg(test)]
mod tests {
    use super::Signer;

    /// The example of the Standard Webhooks specification, "Signature scheme".
    #[test]
    fn signature_agrees_with_the_specification() {
        let signer = Signer::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("secret");
        let webhook = signer.webhook(
            "msg_p5jXN8AQM9LWM0D4loKWxJek".into(),
            1_614_265_330_000,
            r#"{"test": 2432232314}"#.into(),
        );
        assert_eq!(
            webhook.header("webhook-signature"),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn other_secrets_are_refused() {
        for secret in ["", "whsec_", "whsec_!!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="] {
            assert!(Signer::parse(secret).is_none(), "{secret}");
        }
    }
}
