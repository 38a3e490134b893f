//! One address and one port of a packet replaced, all checksums with them (RFC 1624).
//!
//! A NEEDS_CSUM frame has the pseudo-header's sum, uncomplemented, in its checksum field: there only the
//! addresses count. A UDP checksum of 0 says "none" and stays (RFC 768); a sum that becomes 0 is written
//! 0xffff. A superframe is one packet: its header is repeated by whoever cuts it.

use crate::packet::{DCCP, ICMP, ICMP6, UDP_LITE, double, quad, word};
use switchd_wire::Frame;
use switchd_wire::checksum::Delta;
use switchd_wire::parse::{PROTOCOL_TCP, PROTOCOL_UDP};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Source,
    Destination,
}

#[inline]
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Where a protocol's checksum is, and whether it covers the addresses. `None`: it has none that is ours
/// to correct.
#[inline]
pub(crate) fn checksum_of(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        PROTOCOL_TCP => Some((16, true)),
        PROTOCOL_UDP | UDP_LITE | DCCP => Some((6, true)),
        ICMP => Some((2, false)),
        ICMP6 => Some((2, true)),
        _ => None,
    }
}

/// Where the port (or identifier) of an end is.
#[inline]
pub(crate) fn port_of(protocol: u8, end: End) -> Option<usize> {
    match (protocol, end) {
        (PROTOCOL_TCP | PROTOCOL_UDP, End::Source) => Some(0),
        (PROTOCOL_TCP | PROTOCOL_UDP, End::Destination) => Some(2),
        (ICMP | ICMP6, _) => Some(4),
        _ => None,
    }
}

/// Replaces an address in the IP header at `l3`, corrects the header's own checksum and returns what changed.
#[inline]
pub(crate) fn readdress(bytes: &mut [u8], l3: usize, v6: bool, end: End, address: u128) -> Delta {
    if v6 {
        return readdress6(bytes, l3, end, address);
    }
    let at = l3 + if end == End::Source { 12 } else { 16 };
    let (old, new) = (double(bytes, at), address as u32);
    bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
    let delta = Delta::new().replace_u32(old, new);
    let sum = delta.apply(word(bytes, l3 + 10));
    put(bytes, l3 + 10, sum);
    delta
}

fn readdress6(bytes: &mut [u8], l3: usize, end: End, address: u128) -> Delta {
    let at = l3 + if end == End::Source { 8 } else { 24 };
    let old = quad(bytes, at);
    bytes[at..at + 16].copy_from_slice(&address.to_be_bytes());
    (0..4).fold(Delta::new(), |delta, part| {
        delta.replace_u32((old >> (32 * part)) as u32, (address >> (32 * part)) as u32)
    })
}

/// Corrects the layer-4 checksum at `at`: `addresses` is what changed in the pseudo-header, `rest` includes it
/// and what changed behind.
#[inline]
pub(crate) fn correct(
    bytes: &mut [u8],
    at: usize,
    protocol: u8,
    unfinished: bool,
    addresses: Delta,
    rest: Delta,
) {
    let old = word(bytes, at);
    let new = if unfinished {
        addresses.apply_uncomplemented(old)
    } else if protocol != PROTOCOL_UDP {
        rest.apply(old)
    } else if old == 0 {
        0
    } else {
        match rest.apply(old) {
            0 => 0xffff,
            sum => sum,
        }
    };
    put(bytes, at, new);
}

/// The packet's headers, as they were classified.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub l3: usize,
    /// 0: none.
    pub l4: usize,
    pub protocol: u8,
    pub v6: bool,
}

/// Gives one end of a packet another address and, where the protocol has them and `port` is given, another
/// port.
#[inline]
pub(crate) fn rewrite(frame: &mut Frame, place: Place, end: End, address: u128, port: Option<u16>) {
    let Place { l3, l4, protocol, v6 } = place;
    let unfinished = frame.vnet.needs_csum && usize::from(frame.vnet.csum_start) == l4;
    let head = frame.head_mut();
    let addresses = readdress(head, l3, v6, end, address);
    if l4 == 0 {
        return;
    }
    let Some((offset, covers)) = checksum_of(protocol) else { return };
    let addresses = if covers { addresses } else { Delta::new() };
    let mut rest = addresses;
    if let (Some(port), Some(at)) = (port, port_of(protocol, end)) {
        let old = word(head, l4 + at);
        rest = rest.replace_u16(old, port);
        put(head, l4 + at, port);
    }
    correct(head, l4 + offset, protocol, unfinished, addresses, rest);
}

/// Replaces a word in place and returns what was there and what is.
pub(crate) fn replace(bytes: &mut [u8], at: usize, new: u16) -> (u16, u16) {
    let old = word(bytes, at);
    put(bytes, at, new);
    (old, new)
}
