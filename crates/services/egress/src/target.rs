//! A URL that means the same to everybody who reads it.
//!
//! Most ways around an address check are two parsers that disagree: one reads `http://a.example\@127.0.0.1/`
//! as the host `a.example`, the other as `127.0.0.1`; one takes `0x7f.1` for a name, the resolver takes it for
//! an address. So there is one parser (the `url` crate, WHATWG) behind a grammar that is much narrower than
//! what it would repair, and both must agree on host and port. A URL that needs repair is refused.
//!
//! Refused, each with its reason: anything but printable ASCII, backslash, fragment, userinfo, percent signs
//! in the authority, schemes other than `http` and `https`, an empty host or port, a trailing dot, names that
//! are not DNS host names, punycode that does not decode, IPv4 in any spelling but four plain decimal numbers,
//! scoped IPv6, `.` and `..` segments in the path, and more than [`MAX_URL_BYTES`].
//!
//! Not done here: whether the destination is allowed ([`crate::Allowlist`]) or its address harmless
//! ([`crate::classify_ip`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::Fault;

/// The longest URL accepted, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;
/// The longest DNS name in text form (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// The longest label of a DNS name (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;

/// The two schemes that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP/1.1; only where a rule says so.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant where none is written.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Splits a text behind its scheme and `://`.
    pub(crate) fn split(text: &str) -> Result<(Self, &str), &'static str> {
        if let Some(rest) = text.strip_prefix("https://") {
            Ok((Self::Https, rest))
        } else if let Some(rest) = text.strip_prefix("http://") {
            Ok((Self::Http, rest))
        } else {
            Err("the scheme must be https:// or http://, in lower case")
        }
    }
}

/// A host: a name to be resolved, or an address that needs no resolving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name in lower case, without trailing dot.
    Name(String),
    /// An address literal.
    Ip(IpAddr),
}

impl fmt::Display for Host {
    /// As in a URL: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl Host {
    /// Parses the host of a URL or a rule, in its only accepted spelling (letters may be upper case).
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("the host is empty");
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or("the brackets of the host are not closed")?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| "the host is not an IPv6 address")?;
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }
        if text.len() > MAX_NAME_BYTES {
            return Err("the host is too long");
        }
        if text.ends_with('.') {
            return Err("the host ends in a dot");
        }
        let name = text.to_ascii_lowercase();
        for label in name.split('.') {
            let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if label.is_empty() || label.len() > MAX_LABEL_BYTES || !plain {
                return Err("the host is not a DNS name");
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err("a label of the host begins or ends with a hyphen");
            }
        }
        // Resolvers take a name whose last label is a number for an IPv4 address in some spelling
        // (WHATWG: "ends in a number"); only the plain one is accepted.
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit());
        let hexadecimal =
            last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if numeric || hexadecimal {
            let ip: Ipv4Addr =
                name.parse().map_err(|_| "the host is an IPv4 address in a spelling that is refused")?;
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        Ok(Self::Name(name))
    }
}

/// Splits `host[:port]` and reads the port, if one is written.
pub(crate) fn split_authority(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let colon = if authority.starts_with('[') {
        let close = authority.find(']').ok_or("the brackets of the host are not closed")?;
        match &authority[close + 1..] {
            "" => None,
            rest if rest.starts_with(':') => Some(close + 1),
            _ => return Err("the host is followed by something that is no port"),
        }
    } else {
        authority.find(':')
    };
    let Some(colon) = colon else { return Ok((authority, None)) };
    let digits = &authority[colon + 1..];
    if digits.is_empty()
        || digits.len() > 5
        || digits.starts_with('0')
        || !digits.bytes().all(|b| b.is_ascii_digit())
    {
        return Err("the port is not a plain number from 1 to 65535");
    }
    let port = digits.parse().map_err(|_| "the port is not a plain number from 1 to 65535")?;
    Ok((&authority[..colon], Some(port)))
}

/// A parsed URL: where to connect, and what to ask for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: u16,
    /// Path and query as they go on the wire.
    path: http::uri::PathAndQuery,
    url: url::Url,
}

impl Target {
    /// Parses a URL under the grammar described at the head of this module.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Self::parse_inner(text).map_err(|reason| Fault::UrlInvalid { reason })
    }

    fn parse_inner(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_URL_BYTES {
            return Err("it is too long");
        }
        refuse_odd_bytes(text)?;
        if text.contains('#') {
            return Err("it has a fragment");
        }
        let (scheme, rest) = Scheme::split(text)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return Err("it carries a user name or password");
        }
        if authority.contains('%') {
            return Err("the host is percent-encoded or scoped");
        }
        let (host, port) = split_authority(authority)?;
        let host = Host::parse(host)?;
        let port = port.unwrap_or_else(|| scheme.default_port());
        let path = &tail[..tail.find('?').unwrap_or(tail.len())];
        if path.split('/').any(is_dot_segment) {
            return Err("the path has a `.` or `..` segment");
        }

        let url = url::Url::parse(text).map_err(|_| "it does not parse")?;
        // As it is sent: a byte that has to be written in percent becomes three.
        if url.as_str().len() > MAX_URL_BYTES {
            return Err("it is too long");
        }
        // Both readings must agree; a difference means that one of them can be lied to.
        if url.scheme() != scheme.name()
            || url.host_str() != Some(host.to_string().as_str())
            || url.port_or_known_default() != Some(port)
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return Err("it can be read in two ways");
        }
        let wire = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = wire.parse().map_err(|_| "the path cannot be sent")?;
        Ok(Self { scheme, host, port, path, url })
    }

    /// Reads the `Location` of a reply from this target (RFC 9110, section 10.2.2); its fragment is dropped.
    pub(crate) fn follow(&self, location: &str) -> Result<Self, Fault> {
        let odd = refuse_odd_bytes(location);
        let location = location.split('#').next().unwrap_or_default();
        if location.len() > MAX_URL_BYTES {
            return Err(Fault::UrlInvalid { reason: "it is too long" });
        }
        odd.map_err(|reason| Fault::UrlInvalid { reason })?;
        if has_scheme(location) {
            return Self::parse(location);
        }
        if location.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme.name()));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{}{location}", self.origin()));
        }
        let joined =
            self.url.join(location).map_err(|_| Fault::UrlInvalid { reason: "it does not parse" })?;
        Self::parse(joined.as_str())
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, written or implied.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query as they go on the wire. May hold personal data or secrets of the caller; not for logs.
    pub fn path(&self) -> &http::uri::PathAndQuery {
        &self.path
    }

    /// The value of the `Host` header (RFC 9112, section 3.2): the port only where it is not the default.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Scheme, host and port as text (RFC 6454).
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme.name(), self.authority())
    }

    /// Whether both stand for one scheme, host and port, so that credentials may go to both.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }
}

fn refuse_odd_bytes(text: &str) -> Result<(), &'static str> {
    for byte in text.bytes() {
        match byte {
            b'\\' => return Err("it has a backslash"),
            0x21..=0x7e => {}
            0x80.. => return Err("it is not ASCII"),
            _ => return Err("it has white space or control characters"),
        }
    }
    Ok(())
}

fn is_dot_segment(segment: &str) -> bool {
    // The longest spelling of `..` is `%2e%2e`.
    segment.len() <= 6 && matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

fn has_scheme(text: &str) -> bool {
    let Some(colon) = text.find(':') else { return false };
    let scheme = &text[..colon];
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_urls_and_what_they_mean() {
        // url, origin, path on the wire
        let table = [
            ("https://api.example.com", "https://api.example.com", "/"),
            ("https://api.example.com:443/a", "https://api.example.com", "/a"),
            ("https://API.Example.COM/A", "https://api.example.com", "/A"),
            (
                "https://api.example.com:8443/a/b?q=1&r=a%20b",
                "https://api.example.com:8443",
                "/a/b?q=1&r=a%20b",
            ),
            ("https://api.example.com?q=1", "https://api.example.com", "/?q=1"),
            ("http://api.example.com:80/", "http://api.example.com", "/"),
            ("http://api.example.com:443/", "http://api.example.com:443", "/"),
            ("https://93.184.216.34/", "https://93.184.216.34", "/"),
            ("https://[2001:4860:4860::8888]:8443/x", "https://[2001:4860:4860::8888]:8443", "/x"),
            ("https://[2001:4860:4860:0:0:0:0:8888]/", "https://[2001:4860:4860::8888]", "/"),
            ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example", "/"),
            ("https://a_b.example/", "https://a_b.example", "/"),
            ("https://localhost/", "https://localhost", "/"),
            ("https://h.example/a..b/...", "https://h.example", "/a..b/..."),
            (
                "https://h.example/q?x=http://evil.example/@y",
                "https://h.example",
                "/q?x=http://evil.example/@y",
            ),
            (
                "https://h.example/t?sysparm_query=a=1^b=2,c",
                "https://h.example",
                "/t?sysparm_query=a=1^b=2,c",
            ),
        ];
        for (text, origin, path) in table {
            let target = Target::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!((target.origin().as_str(), target.path().as_str()), (origin, path), "{text}");
        }
    }

    #[test]
    fn e03_e06_refused_urls_and_why() {
        let long = format!("https://h.example/{}", "a".repeat(MAX_URL_BYTES));
        let grows = format!("https://h.example/{}", ">".repeat(MAX_URL_BYTES / 2));
        let long_label = format!("https://{}.example/", "a".repeat(64));
        let long_name = format!("https://{}example/", "a.".repeat(130));
        let spelled = "the host is an IPv4 address in a spelling that is refused";
        let scheme = "the scheme must be https:// or http://, in lower case";
        let name = "the host is not a DNS name";
        let port = "the port is not a plain number from 1 to 65535";
        let table = [
            ("", scheme),
            ("h.example", scheme),
            ("//h.example/", scheme),
            ("HTTPS://h.example/", scheme),
            ("file:///etc/passwd", scheme),
            ("gopher://h.example/", scheme),
            ("ftp://h.example/", scheme),
            ("unix:/run/x.sock", scheme),
            ("data:text/plain,x", scheme),
            ("javascript:alert(1)", scheme),
            ("https:h.example", scheme),
            ("https:/h.example", scheme),
            ("https://", "the host is empty"),
            ("https:///h.example/", "the host is empty"),
            ("https://:443/", "the host is empty"),
            ("https://?q", "the host is empty"),
            ("https://user@h.example/", "it carries a user name or password"),
            ("https://user:pass@h.example/", "it carries a user name or password"),
            ("https://h.example@127.0.0.1/", "it carries a user name or password"),
            ("https://@h.example/", "it carries a user name or password"),
            ("https://h.example\\@127.0.0.1/", "it has a backslash"),
            ("https:\\\\h.example/", "it has a backslash"),
            ("https://h.example/a\\b", "it has a backslash"),
            ("https://h.example/\t", "it has white space or control characters"),
            ("https://h.ex\tample/", "it has white space or control characters"),
            ("https://h.example/\r\nHost: x", "it has white space or control characters"),
            ("https://h.example/\0", "it has white space or control characters"),
            ("https://h.example/\u{7f}", "it has white space or control characters"),
            (" https://h.example/", "it has white space or control characters"),
            ("https://h.example/a b", "it has white space or control characters"),
            ("https://h.example/#x", "it has a fragment"),
            ("https://h.example#@127.0.0.1/", "it has a fragment"),
            ("https://h。example/", "it is not ASCII"),
            ("https://127。0。0。1/", "it is not ASCII"),
            ("https://ｌocalhost/", "it is not ASCII"),
            ("https://h.example/ü", "it is not ASCII"),
            ("https://h.example./", "the host ends in a dot"),
            ("https://localhost./", "the host ends in a dot"),
            ("https://127.0.0.1./", "the host ends in a dot"),
            ("https://h..example/", name),
            ("https://.example/", name),
            ("https://h!.example/", name),
            ("https://*.example/", name),
            ("https://h,i.example/", name),
            ("https://-h.example/", "a label of the host begins or ends with a hyphen"),
            ("https://h-.example/", "a label of the host begins or ends with a hyphen"),
            (&long_label, name),
            (&long_name, "the host is too long"),
            ("https://%31%32%37.0.0.1/", "the host is percent-encoded or scoped"),
            ("https://[fe80::1%25eth0]/", "the host is percent-encoded or scoped"),
            ("https://xn--zzzzzzzz99999999/", "it does not parse"),
            ("https://2130706433/", spelled),
            ("https://0x7f.1/", spelled),
            ("https://0x7f000001/", spelled),
            ("https://127.1/", spelled),
            ("https://127.0.1/", spelled),
            ("https://0177.0.0.1/", spelled),
            ("https://127.0.0.01/", spelled),
            ("https://127.0.0.0x1/", spelled),
            ("https://1.2.3.256/", spelled),
            ("https://1.2.3.4.5/", spelled),
            ("https://a.b.99/", spelled),
            ("https://a.0x/", spelled),
            ("https://[::1/", "the brackets of the host are not closed"),
            ("https://[::1]x/", "the host is followed by something that is no port"),
            ("https://[127.0.0.1]/", "the host is not an IPv6 address"),
            ("https://[]/", "the host is not an IPv6 address"),
            ("https://[v1.x]/", "the host is not an IPv6 address"),
            ("https://::1/", port),
            ("https://h.example:/", port),
            ("https://h.example:0/", port),
            ("https://h.example:080/", port),
            ("https://h.example:65536/", port),
            ("https://h.example:+80/", port),
            ("https://h.example:80:81/", port),
            ("https://h.example:99999999999/", port),
            ("https://h.example/../x", "the path has a `.` or `..` segment"),
            ("https://h.example/a/./x", "the path has a `.` or `..` segment"),
            ("https://h.example/a/%2e%2E/x", "the path has a `.` or `..` segment"),
            ("https://h.example/a/.%2e", "the path has a `.` or `..` segment"),
            (&long, "it is too long"),
            (&grows, "it is too long"),
        ];
        for (text, expected) in table {
            match Target::parse(text) {
                Err(Fault::UrlInvalid { reason }) => assert_eq!(reason, expected, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_location_is_read_against_its_base_and_as_strictly() {
        let base = Target::parse("https://h.example:8443/a/b?q=1").unwrap();
        let table = [
            ("/x?y=1#frag", Some("https://h.example:8443/x?y=1")),
            ("c", Some("https://h.example:8443/a/c")),
            ("?r=2", Some("https://h.example:8443/a/b?r=2")),
            ("/login?next=https://o.example/", Some("https://h.example:8443/login?next=https://o.example/")),
            ("//o.example/x", Some("https://o.example/x")),
            ("http://o.example/x", Some("http://o.example/x")),
            ("https://o.example", Some("https://o.example/")),
            ("https://user@o.example/", None),
            ("//user@o.example/", None),
            ("file:///etc/passwd", None),
            ("gopher:x", None),
            ("\\\\o.example\\x", None),
            ("/\\o.example", None),
            ("https:o.example", None),
            ("https:///o.example/", None),
            ("/a\tb", None),
            ("/ü", None),
            ("/../x", None),
            ("https://127.1/", None),
        ];
        for (location, expected) in table {
            let found = base.follow(location).ok().map(|t| format!("{}{}", t.origin(), t.path()));
            assert_eq!(found.as_deref(), expected, "{location:?}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_or_port() {
        let base = Target::parse("https://h.example/a").unwrap();
        let table = [
            ("https://H.example:443/b", true),
            ("http://h.example:443/a", false),
            ("https://i.example/a", false),
            ("https://h.example:444/a", false),
        ];
        for (text, expected) in table {
            assert_eq!(base.same_origin(&Target::parse(text).unwrap()), expected, "{text}");
        }
    }

    proptest::proptest! {
        /// What is accepted says the same when it is written down and read again, and nothing panics.
        #[test]
        fn accepted_urls_are_stable(text in "(https?://)?[a-z0-9.:@%\\[\\]xX_-]{0,24}[/?#.]?[ -~\u{fe}]{0,12}") {
            if let Ok(target) = Target::parse(&text) {
                let again = Target::parse(&format!("{}{}", target.origin(), target.path())).unwrap();
                proptest::prop_assert!(again.same_origin(&target));
                proptest::prop_assert_eq!(again.path(), target.path());
            }
        }

        #[test]
        fn locations_never_panic(text in "\\PC{0,40}") {
            let base = Target::parse("https://h.example/a/b?q").unwrap();
            if let Ok(target) = base.follow(&text) {
                let again = format!("{}{}", target.origin(), target.path());
                proptest::prop_assert!(Target::parse(&again).is_ok(), "{}", again);
            }
        }
    }
}
