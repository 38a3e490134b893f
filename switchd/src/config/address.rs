//! The small grammars of NAT networks: subnets, addresses, ranges, forwards, domains.
//!
//! Like [`super::value`]: each returns the rule that was broken, as a sentence without the value. IPv6
//! addresses with ports stand in brackets.

use super::typed::{ForwardKey, mask4};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use switchd_nat::{Forward, Prefix4, Prefix6, Proto};

/// Decimal digits only, no leading zero.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// `A.B.C.D/LEN`, any host bits.
pub fn prefix4(text: &str) -> Result<Prefix4, String> {
    let rule = || "expected an address with the length of its prefix, as in 192.0.2.9/24".to_owned();
    let (address, len) = text.split_once('/').ok_or_else(rule)?;
    let address = address.parse().map_err(|_| rule())?;
    let len = number::<u8>(len).filter(|len| *len <= 32).ok_or_else(rule)?;
    Ok(Prefix4 { address, len })
}

/// `2001:db8::9/64`, any host bits.
pub fn prefix6(text: &str) -> Result<Prefix6, String> {
    let rule = || "expected an address with the length of its prefix, as in 2001:db8::9/64".to_owned();
    let (address, len) = text.split_once('/').ok_or_else(rule)?;
    let address = address.parse().map_err(|_| rule())?;
    let len = number::<u8>(len).filter(|len| *len <= 128).ok_or_else(rule)?;
    Ok(Prefix6 { address, len })
}

pub fn overlap4(one: Prefix4, other: Prefix4) -> bool {
    one.contains(other.address) || other.contains(one.address)
}

pub fn overlap6(one: Prefix6, other: Prefix6) -> bool {
    one.contains(other.address) || other.contains(one.address)
}

/// Neither the network's own address nor the broadcast address; every address of a /31 or /32.
pub fn is_host4(prefix: Prefix4, address: Ipv4Addr) -> bool {
    let host = address.to_bits() & !mask4(prefix.len);
    prefix.contains(address) && (prefix.len > 30 || (host != 0 && host != !mask4(prefix.len)))
}

/// The subnet of the guests, with its gateway's address. The error may tell what to write instead.
pub fn subnet4(text: &str) -> Result<Prefix4, (String, Option<String>)> {
    let prefix = prefix4(text).map_err(|_| ("expected a subnet like 10.7.0.0/24".to_owned(), None))?;
    let network = prefix.network();
    if !(8..=30).contains(&prefix.len) {
        return Err(("the length of a subnet is /8 to /30".to_owned(), None));
    }
    if network != prefix.address {
        let help = format!("write {network}/{}; the gateway is its first host address", prefix.len);
        return Err((format!("bits beyond /{} are set", prefix.len), Some(help)));
    }
    if !is_unicast4(network) || network.is_link_local() {
        let help = "use 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 (RFC 1918), or a part of them";
        return Err(("these addresses are no hosts'".to_owned(), Some(help.to_owned())));
    }
    Ok(Prefix4 { address: Ipv4Addr::from_bits(network.to_bits() + 1), len: prefix.len })
}

/// The same for IPv6. `len` are the lengths allowed.
pub fn subnet6(text: &str, len: std::ops::RangeInclusive<u8>) -> Result<Prefix6, (String, Option<String>)> {
    let prefix = prefix6(text).map_err(|_| ("expected a prefix like fd00:7::/64".to_owned(), None))?;
    let network = prefix.network();
    if !len.contains(&prefix.len) {
        let (rule, help) = match len.end() {
            64 => (
                "the length of a prefix is /64 (RFC 4862 5.5.3)".to_owned(),
                Some("other lengths need dhcp6 = \"stateful\"".to_owned()),
            ),
            end => (format!("the length of a prefix is /{} to /{end}", len.start()), None),
        };
        return Err((rule, help));
    }
    if network != prefix.address {
        let help = format!("write {network}/{}; the gateway is its first address", prefix.len);
        return Err((format!("bits beyond /{} are set", prefix.len), Some(help)));
    }
    if !is_unicast6(network) || network.is_unicast_link_local() {
        let help = "use a part of fd00::/8 (RFC 4193), or of what you were given";
        return Err(("these addresses are no hosts'".to_owned(), Some(help.to_owned())));
    }
    Ok(Prefix6 { address: Ipv6Addr::from_bits(network.to_bits() + 1), len: prefix.len })
}

/// An address that a host can have: not of this network (0/8), loopback, multicast or reserved.
pub fn is_unicast4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

pub fn is_unicast6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

pub fn host4(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr =
        text.parse().map_err(|_| "expected an IPv4 address, as in 192.0.2.9".to_owned())?;
    if is_unicast4(address) { Ok(address) } else { Err("this address is no host's".to_owned()) }
}

pub fn host6(text: &str) -> Result<Ipv6Addr, String> {
    let address: Ipv6Addr =
        text.parse().map_err(|_| "expected an IPv6 address, as in 2001:db8::9".to_owned())?;
    if is_unicast6(address) { Ok(address) } else { Err("this address is no host's".to_owned()) }
}

/// `A-B`, or `A` alone.
pub fn range4(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Ok(first), Ok(last)) = (host4(first), host4(last)) else {
        return Err("expected a range of addresses, as in 192.0.2.20-192.0.2.29".to_owned());
    };
    if first > last {
        return Err(format!("the range {first}-{last} goes backwards"));
    }
    Ok((first, last))
}

/// Of a name server: an address, or one with a port.
pub fn server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(address), _) if address.port() != 0 => address,
        (_, Ok(ip)) => SocketAddr::new(ip, 53),
        _ => {
            return Err("expected addresses separated by commas, as in 192.0.2.53,[2001:db8::53]:5353".into());
        }
    };
    let usable = match address.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    if usable { Ok(address) } else { Err("a name server has an address of its own".to_owned()) }
}

/// Letters, digits, hyphens and underscores in labels of at most 63 bytes, 253 together (RFC 1035 2.3.4).
/// In lower case, without a dot at the end.
pub fn domain(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("expected a domain: labels of a-z 0-9 - with dots between them, as in lab.example".into());
    }
    Ok(text.to_ascii_lowercase())
}

const KEY_FORM: &str = "expected [HOSTIP:]PROTO/PORT[-PORT] with PROTO tcp or udp, as in tcp/8080";

/// `[HOSTIP:]PROTO/PORT[-PORT]`
pub fn forward_key(text: &str) -> Result<ForwardKey, String> {
    let form = || KEY_FORM.to_owned();
    let (outside, rest) = match text.rsplit_once(':') {
        None => (None, text),
        Some((ip, rest)) => {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
            let ip: IpAddr = match bare {
                Some(six) => IpAddr::V6(six.parse().map_err(|_| form())?),
                None => IpAddr::V4(ip.parse().map_err(|_| form())?),
            };
            (Some(ip), rest)
        }
    };
    let (proto, ports) = rest.split_once('/').ok_or_else(form)?;
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        _ => return Err(form()),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text| number::<u16>(text).filter(|&port| port != 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err("a port is 1 to 65535".to_owned());
    };
    if first > last {
        return Err(format!("the range {first}-{last} goes backwards"));
    }
    Ok(ForwardKey { outside, proto, first, last })
}

/// `IP:PORT` of a guest. A range of ports leads to as many, beginning at PORT.
pub fn forward_to(key: &ForwardKey, text: &str) -> Result<Forward, String> {
    let to: SocketAddr =
        text.parse().map_err(|_| "expected IP:PORT of a guest, as in 10.7.0.20:80".to_owned())?;
    if to.port() == 0 {
        return Err("a port is 1 to 65535".to_owned());
    }
    if let Some(outside) = key.outside
        && outside.is_ipv4() != to.is_ipv4()
    {
        return Err("both ends are of IPv4, or both of IPv6".to_owned());
    }
    let count = key.last - key.first;
    if to.port().checked_add(count).is_none() {
        let (ports, last) = (u32::from(count) + 1, 65_535 - count);
        return Err(format!("{ports} ports from here go beyond 65535: begin at {last} or below"));
    }
    Ok(Forward { outside: key.outside, proto: key.proto, ports: key.first..=key.last, to })
}

impl ForwardKey {
    /// Some packet would match both. Without an address it is for every one of its family.
    pub fn overlaps(&self, other: &ForwardKey) -> bool {
        let same = match (self.outside, other.outside) {
            (Some(one), Some(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
            _ => true,
        };
        same && self.proto == other.proto && self.first <= other.last && other.first <= self.last
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
