//! The form of a request, before anything is looked up.
//!
//! A loopback listener is not private: any web page that the operator has open can make the browser send requests to it,
//! under a name of its own that it lets resolve to 127.0.0.1. Such a request carries that name as Host, and the page's
//! origin as Origin. Both have to be names that this server answers to.
//!
//! A path has one spelling. Ids and the words of routes need no escapes, so a path with `%`, `;`, `\`, an empty segment,
//! or a segment that is or ends in a dot, is refused rather than repaired.

use super::header_once;
use super::problem::{Problem, Refusal};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};

/// Longest path and query together, in bytes.
pub const TARGET_BYTES_MAX: usize = 8192;

/// The names that this server answers to, in lower case, without port.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// The names of the configuration, and those of loopback if the listener is there.
    pub fn of(listen: std::net::SocketAddr, named: &[String]) -> Hosts {
        let mut names = named.to_vec();
        if listen.ip().is_loopback() {
            names.extend(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned));
        }
        Hosts(names)
    }

    /// Whether `authority`, a host with or without port, is one of them.
    fn answers_to(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port))
                if !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                host
            }
            _ => authority,
        };
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Checks Host, Origin and path.
pub fn check(hosts: &Hosts, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let host =
        header_once(headers, &HOST)?.ok_or_else(|| Refusal::Header.because("the header host is missing"))?;
    if !hosts.answers_to(host) {
        return Err(Refusal::Host.because("this server does not answer to that host"));
    }
    if let Some(origin) = header_once(headers, &ORIGIN)? {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !authority.is_some_and(|authority| hosts.answers_to(authority)) {
            return Err(Refusal::Host.because("requests from pages of another origin are not answered"));
        }
    }
    if uri.authority().is_some() || uri.scheme().is_some() || *method == Method::CONNECT {
        return Err(Refusal::Path.because("this is no proxy: the request names a path"));
    }
    let length = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if length > TARGET_BYTES_MAX {
        return Err(Refusal::Path.because(format!("path and query have at most {TARGET_BYTES_MAX} bytes")));
    }
    if !path_is_canonical(uri.path()) {
        return Err(Refusal::Path.because(
            "a path has segments of letters, digits and -._~:@, none of them empty or ending in a dot, and no escapes",
        ));
    }
    Ok(())
}

/// Whether the path has its one spelling.
pub fn path_is_canonical(path: &str) -> bool {
    let segment_ok = |segment: &str| {
        !segment.is_empty()
            && !segment.ends_with('.')
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte))
    };
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment_ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_a_path() {
        for (path, ok) in [
            ("/", true),
            ("/v1/keys", true),
            ("/v1/runs/run_0192f6c1-a.b", true),
            ("/v1/models/openai:small@1", true),
            ("", false),
            ("*", false),
            ("v1/keys", false),
            ("//v1/keys", false),
            ("/v1//keys", false),
            ("/v1/keys/", false),
            ("/v1/./keys", false),
            ("/v1/../keys", false),
            ("/v1/keys.", false),
            ("/v1/%2e/keys", false),
            ("/v1/%2E%2e/keys", false),
            ("/v1%2fkeys", false),
            ("/v1/keys;x=1", false),
            ("/v1/keys\\x", false),
            ("/v1/ke%79s", false),
            ("/v1/keys%00", false),
            ("/v1/kéys", false),
        ] {
            assert_eq!(path_is_canonical(path), ok, "{path}");
        }
    }

    #[test]
    fn hosts_are_compared_without_port_and_case() {
        let loopback = Hosts::of("127.0.0.1:8787".parse().unwrap(), &["writ.example".to_owned()]);
        let outside = Hosts::of("10.0.0.1:443".parse().unwrap(), &["writ.example".to_owned()]);
        for (host, at_loopback, at_outside) in [
            ("127.0.0.1:8787", true, false),
            ("LOCALHOST", true, false),
            ("[::1]:8787", true, false),
            ("[::1]", true, false),
            ("writ.example", true, true),
            ("Writ.Example:443", true, true),
            ("evil-writ.example", false, false),
            ("writ.example.evil.example", false, false),
            ("evil.example", false, false),
            ("localhost.", false, false),
            ("localhost:x", false, false),
            (":8787", false, false),
            ("", false, false),
        ] {
            assert_eq!(
                (loopback.answers_to(host), outside.answers_to(host)),
                (at_loopback, at_outside),
                "{host}"
            );
        }
    }
}
