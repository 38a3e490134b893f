//! Options of RFC 2132 and later ones: their numbers and the values that have a form of their own.

use crate::dhcp::domain;
use std::net::Ipv4Addr;

/// Numbers, by the names of RFC 2132 unless said otherwise.
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOTFILE: u8 = 67;
    /// RFC 4039.
    pub const RAPID_COMMIT: u8 = 80;
    /// RFC 4702.
    pub const FQDN: u8 = 81;
    /// RFC 3046.
    pub const RELAY_AGENT: u8 = 82;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// RFC 3442.
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// A destination of option 121 (RFC 3442).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub destination: Ipv4Addr,
    /// Length of the destination's prefix, 0–32.
    pub len: u8,
    pub router: Ipv4Addr,
}

/// The mask of a prefix of `len` (at most 32) bits.
pub fn mask(len: u8) -> Ipv4Addr {
    switchd_wire::prefix::mask4(len).into()
}

pub fn addresses(list: &[Ipv4Addr]) -> Vec<u8> {
    list.iter().flat_map(|address| address.octets()).collect()
}

/// Whole addresses only; a rest is left.
pub fn read_addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.as_chunks::<4>().0.iter().map(|&octets| octets.into()).collect()
}

/// RFC 3442: width, the octets of the destination that it needs, router.
pub fn routes(list: &[Route]) -> Vec<u8> {
    let mut value = Vec::new();
    for route in list {
        let len = route.len.min(32);
        value.push(len);
        let destination = u32::from(route.destination) & u32::from(mask(len));
        value.extend_from_slice(&destination.to_be_bytes()[..usize::from(len.div_ceil(8))]);
        value.extend_from_slice(&route.router.octets());
    }
    value
}

/// `None`: malformed.
pub fn read_routes(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut list = Vec::new();
    while let Some((&len, rest)) = value.split_first() {
        let significant = usize::from(len.div_ceil(8));
        if len > 32 || rest.len() < significant + 4 {
            return None;
        }
        let mut destination = [0; 4];
        destination[..significant].copy_from_slice(&rest[..significant]);
        let router: [u8; 4] = rest[significant..significant + 4].try_into().ok()?;
        list.push(Route { destination: destination.into(), len, router: router.into() });
        value = &rest[significant + 4..];
    }
    Some(list)
}

/// RFC 3397, compressed across the list. Names that are none are left out.
pub fn search_list(domains: &[String]) -> Vec<u8> {
    let mut value = Vec::new();
    for name in domains {
        domain::push_compressed(name, &mut value);
    }
    value
}

/// The first label of the client's name: option 12, or 81 (RFC 4702).
pub fn client_name(message: &super::message::Message) -> Option<String> {
    if let Some(name) = message.option(code::HOST_NAME).and_then(host_label) {
        return Some(name);
    }
    let [flags, _, _, name @ ..] = message.option(code::FQDN)? else { return None };
    // The E bit: in the form of DNS.
    if flags & 4 != 0 {
        let (&len, rest) = name.split_first()?;
        return host_label(rest.get(..usize::from(len))?);
    }
    host_label(name)
}

/// The first label in lower case, if it is the name of a host (RFC 1123 2.1).
pub fn host_label(name: &[u8]) -> Option<String> {
    let end = name.iter().position(|byte| matches!(byte, 0 | b'.')).unwrap_or(name.len());
    let label = name[..end].to_ascii_lowercase();
    let allowed = label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let good =
        allowed && (1..=63).contains(&label.len()) && label[0] != b'-' && label[label.len() - 1] != b'-';
    good.then(|| String::from_utf8(label).expect("letters, digits and hyphens"))
}
