//! Where one request may go, given with that request by its caller.
//!
//! There is no list for the whole process: a connector for one vendor must not reach another's hosts, so each
//! connector brings its own rules, and a list without rules refuses everything.
//!
//! A rule is a line of text, `https://*.service-now.com` or `http://stand-in.internal:8081`, and covers exactly
//! one scheme and one port; ports such as 22 or 6379 are reachable only where an operator writes them down.
//! Text can never grant private addresses. That takes [`Rule::allow_private`], a call that belongs only where
//! the operator's own configuration is read, never where a tenant's input is.

use std::net::IpAddr;

use crate::error::Fault;
use crate::target::{Host, Scheme, Target, split_authority};

/// The most rules one list may have.
pub const MAX_RULES: usize = 64;

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The text is not `scheme://host[:port]` in the narrow grammar of URLs.
    #[error("the rule is refused: {0}")]
    Invalid(&'static str),
    /// Private addresses were to be granted to every name under a suffix, whoever controls it.
    #[error("private addresses can be granted to an exact host only")]
    PrivateWildcard,
    /// The list has more than [`MAX_RULES`] rules.
    #[error("the allowlist has more than {MAX_RULES} rules")]
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(Host),
    /// Every name below this one, but not itself: `.example.com`, with its leading dot.
    Below(String),
}

/// One destination: a scheme, a host or all names below one, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    scheme: Scheme,
    pattern: Pattern,
    port: u16,
    private: bool,
}

impl Rule {
    /// Parses `scheme://host[:port]`; the host may be `*.suffix` with a suffix of two labels or more.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        if !text.is_ascii() || text.len() > crate::target::MAX_URL_BYTES {
            return Err(RuleError::Invalid("it is too long or not ASCII"));
        }
        let (scheme, authority) = Scheme::split(text).map_err(RuleError::Invalid)?;
        let (host, port) = split_authority(authority).map_err(RuleError::Invalid)?;
        let pattern = match host.strip_prefix("*.") {
            None => Pattern::Exact(Host::parse(host).map_err(RuleError::Invalid)?),
            Some(suffix) => match Host::parse(suffix).map_err(RuleError::Invalid)? {
                Host::Name(name) if name.contains('.') => Pattern::Below(format!(".{name}")),
                Host::Name(_) | Host::Ip(_) => {
                    return Err(RuleError::Invalid("a suffix needs two labels and cannot be an address"));
                }
            },
        };
        Ok(Self { scheme, pattern, port: port.unwrap_or_else(|| scheme.default_port()), private: false })
    }

    /// Lets this rule's host stand for a loopback or private address: for stand-ins and services of the house.
    ///
    /// **Operators only**: never call this on a rule that came from a tenant. Link-local addresses and
    /// metadata services stay refused. Fails for a suffix, whose names somebody else may control.
    pub fn allow_private(mut self) -> Result<Self, RuleError> {
        match self.pattern {
            Pattern::Exact(_) => {
                self.private = true;
                Ok(self)
            }
            Pattern::Below(_) => Err(RuleError::PrivateWildcard),
        }
    }

    fn covers(&self, target: &Target) -> bool {
        let host = match (&self.pattern, target.host()) {
            (Pattern::Exact(host), asked) => host == asked,
            (Pattern::Below(suffix), Host::Name(name)) => name.ends_with(suffix.as_str()),
            (Pattern::Below(_), Host::Ip(_)) => false,
        };
        host && self.scheme == target.scheme() && self.port == target.port()
    }
}

/// The destinations of one request. Empty by default, which refuses everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    rules: Vec<Rule>,
}

impl Allowlist {
    /// A list of these rules, at most [`MAX_RULES`].
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleError> {
        if rules.len() > MAX_RULES {
            return Err(RuleError::TooMany);
        }
        Ok(Self { rules })
    }

    /// A list parsed from rules as text, as they stand in a manifest.
    pub fn parse<'a>(rules: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let mut parsed = Vec::new();
        for text in rules {
            if parsed.len() == MAX_RULES {
                return Err(RuleError::TooMany);
            }
            parsed.push(Rule::parse(text)?);
        }
        Ok(Self { rules: parsed })
    }

    /// What is permitted at this target; an error if nothing is.
    pub(crate) fn permission(&self, target: &Target) -> Result<Permission, Fault> {
        let mut covering = self.rules.iter().filter(|rule| rule.covers(target)).peekable();
        if covering.peek().is_none() {
            return Err(Fault::DestinationRefused {
                scheme: target.scheme().name(),
                host: target.host().to_string(),
                port: target.port(),
            });
        }
        Ok(Permission { private: covering.any(|rule| rule.private) })
    }
}

/// What the allowlist permits at one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    private: bool,
}

impl Permission {
    /// Refuses the addresses unless every one of them may be connected to.
    ///
    /// All are judged, not only the one that would be used: a name with one private address among public ones
    /// is an attack or a mistake, and which one gets connected to would be chance.
    pub(crate) fn vet(self, addresses: &[IpAddr]) -> Result<(), Fault> {
        use crate::address::{IpClass, classify_ip};
        for ip in addresses {
            let class = classify_ip(*ip);
            if class != IpClass::Public && !(self.private && class.is_private()) {
                return Err(Fault::AddressRefused { class });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::IpClass;

    fn permission(rules: &[&str], url: &str) -> Result<Permission, Fault> {
        Allowlist::parse(rules.iter().copied()).unwrap().permission(&Target::parse(url).unwrap())
    }

    #[test]
    fn which_rule_covers_which_url() {
        // rule, url, covered
        let table = [
            ("https://a.example.com", "https://a.example.com/x", true),
            ("https://a.example.com", "https://A.EXAMPLE.COM/x", true),
            ("https://a.example.com", "https://b.example.com/", false),
            ("https://a.example.com", "https://x.a.example.com/", false),
            ("https://a.example.com", "https://a.example.com:8443/", false),
            ("https://a.example.com", "http://a.example.com/", false),
            ("https://a.example.com", "http://a.example.com:443/", false),
            ("https://a.example.com", "https://a.example.com:22/", false),
            ("https://a.example.com", "https://a.example.com:5432/", false),
            ("https://a.example.com:6379", "https://a.example.com:6379/", true),
            ("https://a.example.com:6379", "https://a.example.com/", false),
            ("http://a.example.com", "http://a.example.com/", true),
            ("http://a.example.com", "https://a.example.com/", false),
            ("https://*.example.com", "https://a.example.com/", true),
            ("https://*.example.com", "https://b.a.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("https://*.example.com", "https://evil-example.com/", false),
            ("https://*.example.com", "https://example.com.evil.org/", false),
            ("https://*.EXAMPLE.com", "https://a.example.com/", true),
            ("https://93.184.216.34", "https://93.184.216.34/", true),
            ("https://93.184.216.34", "https://93.184.216.35/", false),
            ("https://[2001:db8::1]:8443", "https://[2001:DB8:0::1]:8443/", true),
        ];
        for (rule, url, covered) in table {
            assert_eq!(permission(&[rule], url).is_ok(), covered, "{rule} for {url}");
        }
    }

    #[test]
    fn i07_an_empty_list_refuses_everything() {
        let refused = Allowlist::default().permission(&Target::parse("https://a.example.com/").unwrap());
        assert!(matches!(refused, Err(Fault::DestinationRefused { .. })));
    }

    #[test]
    fn texts_that_are_no_rules() {
        for text in [
            "",
            "a.example.com",
            "ftp://a.example.com",
            "https://",
            "https://*",
            "https://*.com",
            "https://*.0.0.1",
            "https://*.127.0.0.1",
            "https://a.*.example.com",
            "https://**.example.com",
            "https://a.example.com/",
            "https://a.example.com/path",
            "https://a.example.com:0",
            "https://a.example.com:x",
            "https://user@a.example.com",
            "https://a.example.com.",
            "https://127.1",
            "https://ü.example",
            "https://a.example.com?x",
        ] {
            assert!(Rule::parse(text).is_err(), "{text}");
        }
        assert_eq!(Allowlist::parse(vec!["https://a.example"; MAX_RULES + 1]), Err(RuleError::TooMany));
        let rule = Rule::parse("https://a.example").unwrap();
        assert_eq!(Allowlist::new(vec![rule; MAX_RULES + 1]), Err(RuleError::TooMany));
        let suffix = Rule::parse("https://*.example.com").unwrap();
        assert_eq!(suffix.allow_private(), Err(RuleError::PrivateWildcard));
    }

    #[test]
    fn addresses_are_judged_together_and_by_permission() {
        let public = Permission { private: false };
        let private = Permission { private: true };
        // addresses, refused without permission, refused with it
        type Row = (&'static [&'static str], Option<IpClass>, Option<IpClass>);
        let table: &[Row] = &[
            (&["93.184.216.34", "2001:4860:4860::8888"], None, None),
            (&["93.184.216.34", "127.0.0.1"], Some(IpClass::Loopback), None),
            (&["10.0.0.1", "93.184.216.34"], Some(IpClass::Private), None),
            (&["::1"], Some(IpClass::Loopback), None),
            (&["fd00::1"], Some(IpClass::UniqueLocal), None),
            (&["100.64.0.1"], Some(IpClass::Shared), None),
            (&["127.0.0.1", "169.254.169.254"], Some(IpClass::Loopback), Some(IpClass::LinkLocal)),
            (&["fd00:ec2::254"], Some(IpClass::Metadata), Some(IpClass::Metadata)),
            (&["0.0.0.0"], Some(IpClass::Unspecified), Some(IpClass::Unspecified)),
            (&["::ffff:127.0.0.1"], Some(IpClass::EmbedsV4), Some(IpClass::EmbedsV4)),
            (&["64:ff9b::7f00:1"], Some(IpClass::EmbedsV4), Some(IpClass::EmbedsV4)),
            (&["224.0.0.1"], Some(IpClass::Multicast), Some(IpClass::Multicast)),
            (&["240.0.0.1"], Some(IpClass::Reserved), Some(IpClass::Reserved)),
        ];
        for (addresses, without, with) in table {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            for (permission, expected) in [(public, without), (private, with)] {
                let found = match permission.vet(&addresses) {
                    Ok(()) => None,
                    Err(Fault::AddressRefused { class }) => Some(class),
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(found, *expected, "{addresses:?} {permission:?}");
            }
        }
    }

    #[test]
    fn permission_for_private_addresses_belongs_to_its_own_rule() {
        let house = Rule::parse("http://house.example:8081").unwrap().allow_private().unwrap();
        let vendor = Rule::parse("https://vendor.example").unwrap();
        let list = Allowlist::new(vec![house, vendor]).unwrap();
        let loopback: &[IpAddr] = &["127.0.0.1".parse().unwrap()];
        let at = |url: &str| list.permission(&Target::parse(url).unwrap()).unwrap().vet(loopback).is_ok();
        assert!(at("http://house.example:8081/"));
        assert!(!at("https://vendor.example/"));
    }
}
