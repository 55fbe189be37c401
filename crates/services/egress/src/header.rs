//! What a caller may say in the head of a request.
//!
//! Headers of a connector come from tenants, and some of them are not theirs to say: a second `Content-Length`
//! splits one request into two, `X-Forwarded-For` makes us vouch for a lie, `Host` picks another site behind
//! the address that was vetted. These names belong to this crate alone. Values are printable ASCII; line breaks
//! and NUL never reach the wire.
//!
//! Credentials are apart: `Authorization`, `Cookie` and the usual API-key headers are accepted only as a
//! [`SecretHeader`], which cannot be printed, compared, copied or serialised, and is wiped when dropped. What
//! this cannot promise: the copies that the HTTP writer and the kernel make on the way out are not wiped.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::error::Fault;

/// The most headers a request may carry, secret ones included.
pub const MAX_HEADERS: usize = 64;
/// The longest header value, in bytes.
pub const MAX_HEADER_VALUE_BYTES: usize = 8_192;
/// The most bytes all names and values may have together.
pub const MAX_HEADERS_BYTES: usize = 32_768;
/// The longest header name, in bytes.
const MAX_HEADER_NAME_BYTES: usize = 128;

/// Names that this crate or a proxy sets; a caller never does.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "alt-used",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "true-client-ip",
];
/// Families of such names.
const RESERVED_PREFIXES: &[&str] = &["proxy-", "sec-", "x-forwarded", "x-envoy-"];

/// Names that carry credentials: accepted as a [`SecretHeader`] only.
const CREDENTIALS: &[&str] = &[
    "api-key",
    "apikey",
    "authorization",
    "cookie",
    "private-token",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-api-token",
    "x-auth-token",
    "x-goog-api-key",
    "x-usertoken",
    "x-vault-token",
];

/// Plain headers that may follow a redirect to another origin. Everything else might be a credential.
const NEUTRAL: &[HeaderName] = &[header::ACCEPT, header::ACCEPT_LANGUAGE, header::USER_AGENT];

/// A header whose value is a secret.
///
/// It has no `Debug`, `Clone`, `PartialEq` or serialisation, and its memory is wiped when dropped.
pub struct SecretHeader {
    name: HeaderName,
    value: Zeroizing<Vec<u8>>,
}

impl SecretHeader {
    /// A secret header; takes the value over so that the caller keeps no copy.
    pub fn new(name: &str, value: impl Into<Zeroizing<Vec<u8>>>) -> Result<Self, Fault> {
        let value = value.into();
        let name = parse_name(name)?;
        check_value(&name, &value)?;
        Ok(Self { name, value })
    }

    /// `Authorization: Bearer <token>` (RFC 6750).
    pub fn bearer(token: &str) -> Result<Self, Fault> {
        let mut value = Zeroizing::new(Vec::with_capacity("Bearer ".len() + token.len()));
        value.extend_from_slice(b"Bearer ");
        value.extend_from_slice(token.as_bytes());
        Self::new("authorization", value)
    }

    /// The header's name, in lower case.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The value for the wire, in memory that is wiped once the HTTP writer lets go of it.
    fn wire_value(&self) -> Result<HeaderValue, Fault> {
        let owned = Bytes::from_owner(self.value.clone());
        let mut value = HeaderValue::from_maybe_shared(owned)
            .map_err(|_| refused(self.name.as_str(), "the value cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The checked headers of a request, apart by who may see them.
pub(crate) struct RequestHeaders {
    plain: HeaderMap,
}

impl RequestHeaders {
    /// Checks what the caller gave; see the head of this module for the rules.
    pub(crate) fn check(plain: &[(String, String)], secrets: &[SecretHeader]) -> Result<Self, Fault> {
        if plain.len() + secrets.len() > MAX_HEADERS {
            return Err(refused("", "too many headers"));
        }
        let mut total = 0;
        let mut checked = HeaderMap::with_capacity(plain.len());
        for (name, value) in plain {
            let name = parse_name(name)?;
            if CREDENTIALS.contains(&name.as_str()) {
                return Err(refused(name.as_str(), "a credential must be a secret header"));
            }
            check_value(&name, value.as_bytes())?;
            total += name.as_str().len() + value.len();
            let wire = HeaderValue::from_str(value)
                .map_err(|_| refused(name.as_str(), "the value cannot be sent"))?;
            if checked.insert(name.clone(), wire).is_some() {
                return Err(refused(name.as_str(), "it is given twice"));
            }
        }
        let mut seen: Vec<&HeaderName> = Vec::with_capacity(secrets.len());
        for secret in secrets {
            total += secret.name.as_str().len() + secret.value.len();
            if checked.contains_key(&secret.name) || seen.contains(&&secret.name) {
                return Err(refused(secret.name.as_str(), "it is given twice"));
            }
            seen.push(&secret.name);
        }
        if total > MAX_HEADERS_BYTES {
            return Err(refused("", "the headers are too long"));
        }
        Ok(Self { plain: checked })
    }

    /// The headers for the origin that the caller named.
    pub(crate) fn for_own_origin(&self, secrets: &[SecretHeader]) -> Result<HeaderMap, Fault> {
        let mut headers = self.plain.clone();
        for secret in secrets {
            headers.insert(secret.name.clone(), secret.wire_value()?);
        }
        Ok(headers)
    }

    /// The headers that may go to another origin after a redirect.
    pub(crate) fn for_other_origin(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in NEUTRAL {
            if let Some(value) = self.plain.get(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers
    }
}

fn parse_name(name: &str) -> Result<HeaderName, Fault> {
    if name.len() > MAX_HEADER_NAME_BYTES {
        return Err(refused(name, "the name is too long"));
    }
    let parsed =
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused(name, "the name is malformed"))?;
    let reserved = RESERVED.contains(&parsed.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| parsed.as_str().starts_with(prefix));
    // Servers behind a CGI-like interface read `_` as `-`, so `x_forwarded_for` would be a way around.
    if reserved || parsed.as_str().contains('_') {
        return Err(refused(parsed.as_str(), "callers may not set it"));
    }
    Ok(parsed)
}

fn check_value(name: &HeaderName, value: &[u8]) -> Result<(), Fault> {
    if value.len() > MAX_HEADER_VALUE_BYTES {
        return Err(refused(name.as_str(), "the value is too long"));
    }
    if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(refused(name.as_str(), "the value has bytes that are not printable ASCII"));
    }
    if value.first() == Some(&b' ') || value.last() == Some(&b' ') {
        return Err(refused(name.as_str(), "the value begins or ends with a space"));
    }
    Ok(())
}

/// A refusal that names the header safely, and never its value.
fn refused(name: &str, reason: &'static str) -> Fault {
    let name =
        name.bytes().filter(u8::is_ascii_graphic).take(MAX_HEADER_NAME_BYTES).map(char::from).collect();
    Fault::HeaderRefused { name, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn e08_plain_headers_one_by_one() {
        let long = "a".repeat(MAX_HEADER_VALUE_BYTES + 1);
        let long_name = "a".repeat(MAX_HEADER_NAME_BYTES + 1);
        let reserved = Some("callers may not set it");
        let credential = Some("a credential must be a secret header");
        let bytes = Some("the value has bytes that are not printable ASCII");
        let table: &[(&str, &str, Option<&str>)] = &[
            ("accept", "application/json", None),
            ("Content-Type", "application/json; charset=utf-8", None),
            ("Idempotency-Key", "run-1/step-2", None),
            ("x-empty", "", None),
            ("User-Agent", "connector/1", None),
            ("Host", "evil.example", reserved),
            ("host", "evil.example", reserved),
            ("Content-Length", "5", reserved),
            ("Transfer-Encoding", "chunked", reserved),
            ("Connection", "close", reserved),
            ("Keep-Alive", "1", reserved),
            ("TE", "trailers", reserved),
            ("Trailer", "x", reserved),
            ("Upgrade", "websocket", reserved),
            ("Expect", "100-continue", reserved),
            ("Accept-Encoding", "gzip", reserved),
            ("X-Forwarded-For", "127.0.0.1", reserved),
            ("x-forwarded-host", "h", reserved),
            ("X_Forwarded_For", "127.0.0.1", reserved),
            ("Content_Length", "5", reserved),
            ("Forwarded", "for=127.0.0.1", reserved),
            ("X-Real-IP", "127.0.0.1", reserved),
            ("Proxy-Authorization", "x", reserved),
            ("Proxy-Connection", "x", reserved),
            ("Sec-WebSocket-Key", "x", reserved),
            ("X-HTTP-Method-Override", "DELETE", reserved),
            ("X-Original-URL", "/admin", reserved),
            ("Authorization", "Bearer x", credential),
            ("Cookie", "a=b", credential),
            ("X-Api-Key", "x", credential),
            ("x-vault-token", "x", credential),
            ("x-a", "a\r\nx-b: c", bytes),
            ("x-a", "a\nb", bytes),
            ("x-a", "a\rb", bytes),
            ("x-a", "a\0b", bytes),
            ("x-a", "a\tb", bytes),
            ("x-a", "a\u{7f}b", bytes),
            ("x-a", "ü", bytes),
            ("x-a", " a", Some("the value begins or ends with a space")),
            ("x-a", "a ", Some("the value begins or ends with a space")),
            ("x-a", &long, Some("the value is too long")),
            ("", "a", Some("the name is malformed")),
            ("x a", "a", Some("the name is malformed")),
            ("x-a:", "a", Some("the name is malformed")),
            ("x-a\r\nx-b", "a", Some("the name is malformed")),
            ("x-ü", "a", Some("the name is malformed")),
            (&long_name, "a", Some("the name is too long")),
        ];
        for (name, value, expected) in table {
            let found = match RequestHeaders::check(&plain(&[(name, value)]), &[]) {
                Ok(_) => None,
                Err(Fault::HeaderRefused { reason, .. }) => Some(reason),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, *expected, "{name:?}: {value:?}");
        }
    }

    #[test]
    fn secret_headers_obey_the_same_rules() {
        for (name, value) in [
            ("host", "x"),
            ("proxy-authorization", "x"),
            ("x-forwarded-for", "x"),
            ("authorization", "a\r\nb: c"),
            ("authorization", "a\0"),
            ("x y", "a"),
        ] {
            assert!(SecretHeader::new(name, value.as_bytes().to_vec()).is_err(), "{name}: {value:?}");
        }
        assert!(SecretHeader::bearer("abc\n").is_err());
        let wire = SecretHeader::bearer("abc").unwrap().wire_value().unwrap();
        assert_eq!(wire.as_bytes(), b"Bearer abc");
        assert!(wire.is_sensitive());
    }

    #[test]
    fn the_set_is_bounded_and_without_doubles() {
        let check = |pairs: &[(&str, &str)], secrets: &[SecretHeader]| match RequestHeaders::check(
            &plain(pairs),
            secrets,
        ) {
            Ok(_) => "ok",
            Err(Fault::HeaderRefused { reason, .. }) => reason,
            Err(other) => panic!("{other}"),
        };
        let key = || SecretHeader::new("x-key", b"1".to_vec()).unwrap();
        assert_eq!(check(&[("x-a", "1"), ("x-b", "1")], &[key()]), "ok");
        assert_eq!(check(&[("x-a", "1"), ("X-A", "2")], &[]), "it is given twice");
        assert_eq!(check(&[("x-key", "1")], &[key()]), "it is given twice");
        assert_eq!(check(&[], &[key(), key()]), "it is given twice");
        let names: Vec<String> = (0..=MAX_HEADERS).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(check(&many, &[]), "too many headers");
        let value = "a".repeat(MAX_HEADER_VALUE_BYTES);
        let heavy: Vec<(&str, &str)> =
            names[..5].iter().map(|name| (name.as_str(), value.as_str())).collect();
        assert_eq!(check(&heavy, &[]), "the headers are too long");
    }

    #[test]
    fn another_origin_gets_neutral_headers_only() {
        let given = plain(&[
            ("accept", "text/plain"),
            ("user-agent", "u"),
            ("x-tenant-session", "s"),
            ("content-type", "c"),
        ]);
        let secrets = [SecretHeader::bearer("abc").unwrap()];
        let headers = RequestHeaders::check(&given, &secrets).unwrap();
        let own = headers.for_own_origin(&secrets).unwrap();
        assert_eq!(own.len(), 5);
        let mut other: Vec<String> = headers.for_other_origin().keys().map(ToString::to_string).collect();
        other.sort();
        assert_eq!(other, ["accept", "user-agent"]);
    }

    #[test]
    fn a_refusal_names_the_header_without_its_value_or_odd_bytes() {
        let fault = RequestHeaders::check(&plain(&[("x-a\r\n\u{1b}[31m", "hush")]), &[]).err().unwrap();
        let text = format!("{fault} {fault:?}");
        assert!(text.contains("x-a[31m") && !text.contains("hush"), "{text}");
        assert!(!text.contains(['\r', '\n', '\u{1b}']), "{text}");
    }

    /// Two traits with one function name: the call below compiles only while the type has neither of the
    /// implementations that the second one asks for.
    macro_rules! assert_lacks {
        ($type:ty, $bound:path) => {{
            trait Lacks<Marker> {
                fn here() {}
            }
            struct Has;
            impl<T: ?Sized> Lacks<()> for T {}
            impl<T: ?Sized + $bound> Lacks<Has> for T {}
            <$type as Lacks<_>>::here();
        }};
    }

    #[test]
    fn a_secret_cannot_be_printed_compared_or_copied() {
        assert_lacks!(SecretHeader, std::fmt::Debug);
        assert_lacks!(SecretHeader, std::fmt::Display);
        assert_lacks!(SecretHeader, Clone);
        assert_lacks!(SecretHeader, PartialEq);
    }
}
