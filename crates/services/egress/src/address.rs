//! What kind of address is this? A pure, total answer for every IPv4 and IPv6 address.
//!
//! A name that a tenant controls may resolve to anything: `169.254.169.254` gives away cloud credentials,
//! `127.0.0.1` reaches our own database, and `64:ff9b::7f00:1` reaches it too, through a translator that
//! unpacks the IPv4 address inside. So nothing is *recognised as bad* here: an address is [`IpClass::Public`]
//! only if no special-purpose block of the IANA registries covers it (RFC 6890 and its updates), and an IPv6
//! address outside `2000::/3` is never public.
//!
//! Every prefix that embeds an IPv4 address has the class [`IpClass::EmbedsV4`] and is refused whatever is
//! embedded: judging the inner address would be right only if each translator on the path agreed with us. The
//! price: on an IPv6-only network behind DNS64, hosts that have IPv4 alone cannot be reached.
//!
//! To add a block: put a row into the table of its family, most specific first, and one row on each side of
//! its borders into the test.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of an address, as far as the question "may we connect to it" needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpClass {
    /// Globally reachable unicast: the only class that needs no permission.
    Public,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// RFC 1918: `10/8`, `172.16/12`, `192.168/16`.
    Private,
    /// RFC 4193 unique local addresses, `fc00::/7`.
    UniqueLocal,
    /// RFC 6598 shared space between a carrier and its customers, `100.64/10`.
    Shared,
    /// `169.254/16` and `fe80::/10`.
    LinkLocal,
    /// A cloud's instance metadata service outside the link-local block. Refused even where private
    /// addresses are permitted: it hands out credentials to whoever asks.
    Metadata,
    /// `0.0.0.0/8` and `::`; Linux connects both to itself.
    Unspecified,
    /// `224/4` and `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// RFC 5737, RFC 3849 and RFC 9637 examples.
    Documentation,
    /// RFC 2544 and RFC 5180 laboratory networks.
    Benchmarking,
    /// The deprecated site-local block `fec0::/10` (RFC 3879).
    SiteLocal,
    /// IPv4-mapped, IPv4-compatible, 6to4, NAT64, Teredo, ISATAP, and the 6to4 relays.
    EmbedsV4,
    /// Set aside for protocols or the future, or not handed out at all.
    Reserved,
}

impl IpClass {
    /// Whether an operator's permission for private addresses covers this class.
    ///
    /// Link-local is left out on purpose: nothing that we call lives there except metadata services.
    pub fn is_private(self) -> bool {
        match self {
            Self::Loopback | Self::Private | Self::UniqueLocal | Self::Shared => true,
            Self::Public
            | Self::LinkLocal
            | Self::Metadata
            | Self::Unspecified
            | Self::Multicast
            | Self::Broadcast
            | Self::Documentation
            | Self::Benchmarking
            | Self::SiteLocal
            | Self::EmbedsV4
            | Self::Reserved => false,
        }
    }

    /// The class as a word for messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::UniqueLocal => "unique-local",
            Self::Shared => "shared",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::SiteLocal => "site-local",
            Self::EmbedsV4 => "embeds-ipv4",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for IpClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IPv4 blocks, most specific first: network, prefix length, class.
const V4: &[(Ipv4Addr, u32, IpClass)] = &[
    (Ipv4Addr::new(255, 255, 255, 255), 32, IpClass::Broadcast),
    (Ipv4Addr::new(100, 100, 100, 200), 32, IpClass::Metadata), // Alibaba Cloud
    (Ipv4Addr::new(168, 63, 129, 16), 32, IpClass::Metadata),   // Azure's host, on an address of public space
    (Ipv4Addr::new(192, 0, 0, 192), 32, IpClass::Metadata),     // Oracle Cloud, first generation
    (Ipv4Addr::new(192, 0, 0, 0), 24, IpClass::Reserved),       // RFC 6890: IETF protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24, IpClass::Documentation),
    (Ipv4Addr::new(192, 88, 99, 0), 24, IpClass::EmbedsV4), // RFC 7526: anycast of 6to4 relays
    (Ipv4Addr::new(198, 51, 100, 0), 24, IpClass::Documentation),
    (Ipv4Addr::new(203, 0, 113, 0), 24, IpClass::Documentation),
    (Ipv4Addr::new(169, 254, 0, 0), 16, IpClass::LinkLocal),
    (Ipv4Addr::new(192, 168, 0, 0), 16, IpClass::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, IpClass::Benchmarking),
    (Ipv4Addr::new(172, 16, 0, 0), 12, IpClass::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, IpClass::Shared),
    (Ipv4Addr::new(0, 0, 0, 0), 8, IpClass::Unspecified),
    (Ipv4Addr::new(10, 0, 0, 0), 8, IpClass::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, IpClass::Loopback),
    (Ipv4Addr::new(224, 0, 0, 0), 4, IpClass::Multicast),
    (Ipv4Addr::new(240, 0, 0, 0), 4, IpClass::Reserved),
];

/// IPv6 blocks, most specific first. What no row covers is public inside `2000::/3` and reserved outside it.
const V6: &[(Ipv6Addr, u32, IpClass)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, IpClass::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, IpClass::Loopback),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, IpClass::Metadata), // AWS
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, IpClass::Metadata),  // Google Cloud
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 0), 96, IpClass::EmbedsV4),               // IPv4-compatible, RFC 4291
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, IpClass::EmbedsV4),          // IPv4-mapped, RFC 4291
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, IpClass::EmbedsV4),          // IPv4-translated, RFC 2765
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, IpClass::EmbedsV4),       // NAT64, RFC 6052
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, IpClass::EmbedsV4),       // local NAT64, RFC 8215
    (Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48, IpClass::Benchmarking),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, IpClass::EmbedsV4), // Teredo, RFC 4380
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, IpClass::Documentation),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, IpClass::Reserved), // IETF protocol assignments
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, IpClass::Documentation),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, IpClass::EmbedsV4), // 6to4, RFC 3056
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, IpClass::LinkLocal),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, IpClass::SiteLocal),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, IpClass::Multicast),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, IpClass::UniqueLocal),
];

/// The class of an address. Total: every address has exactly one.
pub fn classify_ip(ip: IpAddr) -> IpClass {
    match ip {
        IpAddr::V4(ip) => classify_v4(ip),
        IpAddr::V6(ip) => classify_v6(ip),
    }
}

fn classify_v4(ip: Ipv4Addr) -> IpClass {
    let bits = u32::from(ip);
    for &(network, prefix, class) in V4 {
        // Prefixes lie in 4..=32, so the shift is below the width.
        if (bits ^ u32::from(network)) >> (32 - prefix) == 0 {
            return class;
        }
    }
    IpClass::Public
}

fn classify_v6(ip: Ipv6Addr) -> IpClass {
    let bits = u128::from(ip);
    for &(network, prefix, class) in V6 {
        // Prefixes lie in 7..=128, so the shift is below the width.
        if (bits ^ u128::from(network)) >> (128 - prefix) == 0 {
            return class;
        }
    }
    // ISATAP (RFC 5214) puts its marker into the interface identifier, under any prefix.
    let segments = ip.segments();
    if matches!(segments[4], 0x0000 | 0x0200) && segments[5] == 0x5efe {
        return IpClass::EmbedsV4;
    }
    if segments[0] >> 13 == 0b001 { IpClass::Public } else { IpClass::Reserved }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e01_e02_every_block_at_both_of_its_borders() {
        use IpClass::*;
        let table: &[(&str, IpClass)] = &[
            ("0.0.0.0", Unspecified),
            ("0.255.255.255", Unspecified),
            ("1.0.0.0", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("93.184.216.34", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Shared),
            ("100.100.100.199", Shared),
            ("100.100.100.200", Metadata),
            ("100.127.255.255", Shared),
            ("100.128.0.0", Public),
            ("126.255.255.255", Public),
            ("127.0.0.0", Loopback),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("128.0.0.0", Public),
            ("168.63.129.15", Public),
            ("168.63.129.16", Metadata),
            ("169.253.255.255", Public),
            ("169.254.0.0", LinkLocal),
            ("169.254.169.254", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("169.255.0.0", Public),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("191.255.255.255", Public),
            ("192.0.0.0", Reserved),
            ("192.0.0.192", Metadata),
            ("192.0.0.255", Reserved),
            ("192.0.1.0", Public),
            ("192.0.2.0", Documentation),
            ("192.0.2.255", Documentation),
            ("192.0.3.0", Public),
            ("192.88.98.255", Public),
            ("192.88.99.1", EmbedsV4),
            ("192.88.100.0", Public),
            ("192.167.255.255", Public),
            ("192.168.0.0", Private),
            ("192.168.255.255", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.0", Benchmarking),
            ("198.19.255.255", Benchmarking),
            ("198.20.0.0", Public),
            ("198.51.99.255", Public),
            ("198.51.100.7", Documentation),
            ("198.51.101.0", Public),
            ("203.0.112.255", Public),
            ("203.0.113.0", Documentation),
            ("203.0.114.0", Public),
            ("223.255.255.255", Public),
            ("224.0.0.0", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.0", Reserved),
            ("255.255.255.254", Reserved),
            ("255.255.255.255", Broadcast),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", EmbedsV4),
            ("::127.0.0.1", EmbedsV4),
            ("::ffff:127.0.0.1", EmbedsV4),
            ("::ffff:8.8.8.8", EmbedsV4),
            ("::ffff:0:127.0.0.1", EmbedsV4),
            ("::1:0:0:0", Reserved),
            ("64:ff9b::7f00:1", EmbedsV4),
            ("64:ff9b::808:808", EmbedsV4),
            ("64:ff9b:0:0:0:1::", Reserved),
            ("64:ff9b:1::", EmbedsV4),
            ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", EmbedsV4),
            ("64:ff9b:2::", Reserved),
            ("100::1", Reserved),
            ("1fff:ffff::", Reserved),
            ("2000::1", Public),
            ("2001::1", EmbedsV4),
            ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", EmbedsV4),
            ("2001:1::1", Reserved),
            ("2001:2::1", Benchmarking),
            ("2001:2:1::1", Reserved),
            ("2001:20::1", Reserved),
            ("2001:1ff:ffff::", Reserved),
            ("2001:200::1", Public),
            ("2001:db7:ffff::", Public),
            ("2001:db8::1", Documentation),
            ("2001:db9::1", Public),
            ("2001:4860:4860::8888", Public),
            ("2001:4860:0:0:0:5efe:7f00:1", EmbedsV4),
            ("2001:4860:0:0:200:5efe:7f00:1", EmbedsV4),
            ("2001:4860:0:0:100:5efe:7f00:1", Public),
            ("2002::", EmbedsV4),
            ("2002:7f00:1::1", EmbedsV4),
            ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", EmbedsV4),
            ("2003::1", Public),
            ("3ffe:ffff::", Public),
            ("3fff::1", Documentation),
            ("3fff:fff:ffff::", Documentation),
            ("3fff:1000::", Public),
            ("4000::", Reserved),
            ("5f00::1", Reserved),
            ("fbff:ffff::", Reserved),
            ("fc00::", UniqueLocal),
            ("fd00:ec2::253", UniqueLocal),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fdff:ffff::", UniqueLocal),
            ("fe00::", Reserved),
            ("fe7f:ffff::", Reserved),
            ("fe80::1", LinkLocal),
            ("febf:ffff::", LinkLocal),
            ("fec0::", SiteLocal),
            ("feff:ffff::", SiteLocal),
            ("ff00::", Multicast),
            ("ff02::1", Multicast),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
        ];
        for (text, expected) in table {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(classify_ip(ip), *expected, "{text}");
        }
    }

    #[test]
    fn a_wider_row_never_hides_a_narrower_one() {
        for (index, (network, prefix, _)) in V4.iter().enumerate() {
            for (earlier, earlier_prefix, _) in &V4[..index] {
                let covers = earlier_prefix < prefix
                    && (u32::from(*network) ^ u32::from(*earlier)) >> (32 - earlier_prefix) == 0;
                assert!(!covers, "{earlier}/{earlier_prefix} hides {network}/{prefix}");
            }
        }
        for (index, (network, prefix, _)) in V6.iter().enumerate() {
            for (earlier, earlier_prefix, _) in &V6[..index] {
                let covers = earlier_prefix < prefix
                    && (u128::from(*network) ^ u128::from(*earlier)) >> (128 - earlier_prefix) == 0;
                assert!(!covers, "{earlier}/{earlier_prefix} hides {network}/{prefix}");
            }
        }
    }
}
