//! IPv6 neighbour discovery (RFC 4861) as a gateway speaks it. Router advertisements are a service's.

use std::net::Ipv6Addr;
use switchd_wire::datagram::{Link, icmp6, read_icmp6};
use switchd_wire::{Frame, MacAddr};

pub const ROUTER_SOLICITATION: u8 = 133;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
pub const REDIRECT: u8 = 137;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbor {
    Solicitation { source: Ipv6Addr, target: Ipv6Addr, mac: Option<MacAddr> },
    Advertisement { target: Ipv6Addr, mac: Option<MacAddr>, solicited: bool, overrides: bool },
}

/// RFC 4861 7.1.1 and 7.1.2: what fails a check is not looked at. The checksum is complete.
pub fn read(frame: &Frame) -> Option<Neighbor> {
    let message = read_icmp6(frame.head())?;
    let [kind, code, _, _, flags, _, _, _, rest @ ..] = message.body else { return None };
    let (target, options) = rest.split_first_chunk::<16>()?;
    let target = Ipv6Addr::from(*target);
    if message.hop_limit != 255 || *code != 0 || target.is_multicast() {
        return None;
    }
    match *kind {
        SOLICITATION => {
            let mac = option(options, SOURCE_LINK)?;
            let probe = message.source.is_unspecified();
            if probe && (mac.is_some() || message.destination != solicited_node(target)) {
                return None;
            }
            Some(Neighbor::Solicitation { source: message.source, target, mac })
        }
        ADVERTISEMENT => {
            let mac = option(options, TARGET_LINK)?;
            let solicited = flags & 0x40 != 0;
            if message.destination.is_multicast() && solicited {
                return None;
            }
            Some(Neighbor::Advertisement { target, mac, solicited, overrides: flags & 0x20 != 0 })
        }
        _ => None,
    }
}

/// The link-layer address of an option. `None`: the options are malformed.
fn option(mut options: &[u8], wanted: u8) -> Option<Option<MacAddr>> {
    let mut found = None;
    while let [kind, length, ..] = *options {
        let length = usize::from(length) * 8;
        if length == 0 || length > options.len() {
            return None;
        }
        if kind == wanted && length == 8 {
            let mac = MacAddr(options[2..8].try_into().expect("six octets"));
            found = (!mac.is_group() && !mac.is_zero()).then_some(mac);
        }
        options = &options[length..];
    }
    options.is_empty().then_some(found)
}

/// RFC 4291 2.7.1.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// RFC 2464 7.
fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// RFC 4291 appendix A: the link-local address that a MAC makes.
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

fn body(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, MacAddr)>) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    body.extend_from_slice(&target.octets());
    if let Some((kind, mac)) = option {
        body.extend_from_slice(&[kind, 1]);
        body.extend_from_slice(&mac.0);
    }
    body
}

/// Asks who has `target`: its holder alone, or everybody who may.
pub fn ask(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr, to: Option<MacAddr>) -> Option<Vec<u8>> {
    let group = solicited_node(target);
    let (link, destination) = match to {
        Some(to) => (to, target),
        None => (group_mac(group), group),
    };
    let link = Link { destination: link, source: mac };
    icmp6(link, source, destination, &body(SOLICITATION, 0, target, Some((SOURCE_LINK, mac))))
}

/// RFC 4862 5.4.2: does anybody use `address`?
pub fn probe(mac: MacAddr, address: Ipv6Addr) -> Option<Vec<u8>> {
    let group = solicited_node(address);
    let link = Link { destination: group_mac(group), source: mac };
    icmp6(link, Ipv6Addr::UNSPECIFIED, group, &body(SOLICITATION, 0, address, None))
}

/// Our answer to a solicitation (RFC 4861 7.2.4). One that came from nobody, because its sender is only
/// about to take the address (RFC 4862 5.4.3), is answered to all.
pub fn answer(
    mac: MacAddr,
    target: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: MacAddr,
    is_router: bool,
) -> Option<Vec<u8>> {
    let router = if is_router { 0x80 } else { 0 };
    let (destination, link, flags) = match to.is_unspecified() {
        true => (ALL_NODES, ALL_NODES_MAC, router | 0x20),
        false => (to, to_mac, router | 0x60),
    };
    let link = Link { destination: link, source: mac };
    icmp6(link, target, destination, &body(ADVERTISEMENT, flags, target, Some((TARGET_LINK, mac))))
}

/// RFC 4861 7.2.6: `address` is ours, whatever others remember.
pub fn announce(mac: MacAddr, address: Ipv6Addr, is_router: bool) -> Option<Vec<u8>> {
    answer(mac, address, Ipv6Addr::UNSPECIFIED, ALL_NODES_MAC, is_router)
}
