//! Whole frames around a datagram, for what switchd itself says and hears: UDP over IPv4 and IPv6, ICMPv6;
//! and the ARP probe.
//!
//! Not for the road: these build and read owned bytes. Reading checks all that can be checked (lengths,
//! header and datagram checksums); what is tagged, fragmented, or behind IPv6 extension headers is refused.

use crate::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::mac::MacAddr;
use crate::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

pub const PROTOCOL_ICMP6: u8 = 58;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// The link addresses of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub destination: MacAddr,
    pub source: MacAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udp4<'a> {
    pub link: Link,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Udp6<'a> {
    pub link: Link,
    pub source: SocketAddrV6,
    pub destination: SocketAddrV6,
    pub payload: &'a [u8],
}

/// `body` begins with the ICMPv6 type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icmp6<'a> {
    pub link: Link,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
    pub body: &'a [u8],
}

fn ethernet(link: Link, ethertype: u16, capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + capacity);
    frame.extend_from_slice(&link.destination.0);
    frame.extend_from_slice(&link.source.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A checksum of 0 means "none" in UDP, so it is sent as its other form (RFC 768).
fn not_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// `None`: the payload is longer than an IPv4 packet holds.
pub fn udp4(link: Link, source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(IPV4 + UDP + payload.len()).ok()?;
    let length = total - IPV4 as u16;
    let mut frame = ethernet(link, ETHERTYPE_IPV4, usize::from(total));
    let mut header = [0u8; IPV4];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    // DF: an atomic datagram needs no identification (RFC 6864 4.1).
    header[6] = 0x40;
    header[8] = 64;
    header[9] = PROTOCOL_UDP;
    header[12..16].copy_from_slice(&source.ip().octets());
    header[16..20].copy_from_slice(&destination.ip().octets());
    let checksum = Sum::new().over(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&header);
    let pseudo = pseudo_v4(source.ip().octets(), destination.ip().octets(), PROTOCOL_UDP, u32::from(length));
    push_udp(&mut frame, source.port(), destination.port(), length, pseudo, payload);
    Some(frame)
}

/// `None`: the payload is longer than an IPv6 packet holds.
pub fn udp6(link: Link, source: SocketAddrV6, destination: SocketAddrV6, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(UDP + payload.len()).ok()?;
    let mut frame = ipv6(link, *source.ip(), *destination.ip(), PROTOCOL_UDP, 64, length);
    let (from, to) = (source.ip().octets(), destination.ip().octets());
    let pseudo = pseudo_v6(from, to, PROTOCOL_UDP, u32::from(length));
    push_udp(&mut frame, source.port(), destination.port(), length, pseudo, payload);
    Some(frame)
}

fn push_udp(frame: &mut Vec<u8>, from: u16, to: u16, length: u16, pseudo: Sum, payload: &[u8]) {
    let sum = pseudo.add_u16(from).add_u16(to).add_u16(length).over(payload);
    for number in [from, to, length, not_zero(sum.checksum())] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(payload);
}

fn ipv6(link: Link, from: Ipv6Addr, to: Ipv6Addr, protocol: u8, hop_limit: u8, length: u16) -> Vec<u8> {
    let mut frame = ethernet(link, ETHERTYPE_IPV6, IPV6 + usize::from(length));
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[protocol, hop_limit]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame
}

/// Neighbor discovery: hop limit 255 (RFC 4861). The checksum field of `body` is filled in. `None`: the
/// body is shorter than a header or longer than a packet.
pub fn icmp6(link: Link, from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(body.len()).ok().filter(|&length| length >= 4)?;
    let mut frame = ipv6(link, from, to, PROTOCOL_ICMP6, 255, length);
    let at = frame.len();
    frame.extend_from_slice(body);
    frame[at + 2..at + 4].fill(0);
    let pseudo = pseudo_v6(from.octets(), to.octets(), PROTOCOL_ICMP6, u32::from(length));
    let checksum = pseudo.over(&frame[at..]).checksum();
    frame[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    Some(frame)
}

/// RFC 5227 2.1.1: does anybody use `address`?
pub fn arp_probe(source: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(Link { destination: MacAddr::BROADCAST, source }, ETHERTYPE_ARP, 28);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&source.0);
    // No sender's address, so that nobody learns one; no target's MAC.
    frame.extend_from_slice(&[0; 4 + 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

/// The address that an ARP reply (RFC 826) says something of, and who has it.
pub fn read_arp_reply(frame: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let (_, arp) = link(frame, ETHERTYPE_ARP)?;
    let arp = arp.first_chunk::<28>().filter(|arp| arp.starts_with(&[0, 1, 8, 0, 6, 4, 0, 2]))?;
    let mac = MacAddr(arp[8..14].try_into().expect("six of them"));
    let address = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    (!mac.is_group() && !address.is_unspecified()).then_some((address, mac))
}

fn link(frame: &[u8], ethertype: u16) -> Option<(Link, &[u8])> {
    let (header, rest) = frame.split_first_chunk::<ETHERNET>()?;
    let mac = |at: usize| MacAddr(header[at..at + 6].try_into().expect("six of fourteen"));
    let link = Link { destination: mac(0), source: mac(6) };
    (word(header, 12)? == ethertype).then_some((link, rest))
}

/// Ports and payload of a UDP datagram whose pseudo-header sums to `pseudo`.
fn udp(datagram: &[u8], pseudo: impl Fn(u32) -> Sum, needs_checksum: bool) -> Option<(u16, u16, &[u8])> {
    let length = word(datagram, 4)?;
    let datagram = datagram.get(..usize::from(length))?;
    let payload = datagram.get(UDP..)?;
    let none = word(datagram, 6)? == 0;
    let good = pseudo(u32::from(length)).over(datagram).checksum() == 0;
    let accepted = if none { !needs_checksum } else { good };
    accepted.then_some((word(datagram, 0)?, word(datagram, 2)?, payload))
}

/// Reads a frame that holds a whole UDP datagram over IPv4.
pub fn read_udp4(frame: &[u8]) -> Option<Udp4<'_>> {
    let (link, packet) = link(frame, ETHERTYPE_IPV4)?;
    let first = *packet.first()?;
    let header_len = usize::from(first & 0xf) * 4;
    let header = packet.get(..header_len).filter(|header| header.len() >= IPV4 && first >> 4 == 4)?;
    let body = packet.get(header_len..usize::from(word(header, 2)?))?;
    let fragment = word(header, 6)? & 0x3fff != 0;
    if fragment || header[9] != PROTOCOL_UDP || Sum::new().over(header).checksum() != 0 {
        return None;
    }
    let address = |at: usize| -> [u8; 4] { header[at..at + 4].try_into().expect("the header has 20 bytes") };
    let pseudo = |length| pseudo_v4(address(12), address(16), PROTOCOL_UDP, length);
    let (from, to, payload) = udp(body, pseudo, false)?;
    Some(Udp4 {
        link,
        source: SocketAddrV4::new(address(12).into(), from),
        destination: SocketAddrV4::new(address(16).into(), to),
        payload,
    })
}

/// An IPv6 packet without extension headers.
struct Packet6<'a> {
    source: [u8; 16],
    destination: [u8; 16],
    hop_limit: u8,
    body: &'a [u8],
}

/// `None` also where the header is not followed by `protocol` at once.
fn read_ipv6(packet: &[u8], protocol: u8) -> Option<Packet6<'_>> {
    let header = packet.get(..IPV6).filter(|header| header[0] >> 4 == 6 && header[6] == protocol)?;
    let body = packet.get(IPV6..IPV6 + usize::from(word(header, 4)?))?;
    let address = |at: usize| header[at..at + 16].try_into().expect("the header has 40 bytes");
    Some(Packet6 { source: address(8), destination: address(24), hop_limit: header[7], body })
}

/// Reads a frame that holds a whole UDP datagram over IPv6.
pub fn read_udp6(frame: &[u8]) -> Option<Udp6<'_>> {
    let (link, packet) = link(frame, ETHERTYPE_IPV6)?;
    let Packet6 { source, destination, body, .. } = read_ipv6(packet, PROTOCOL_UDP)?;
    // RFC 8200 8.1: over IPv6 the checksum is not optional.
    let (from, to, payload) = udp(body, |length| pseudo_v6(source, destination, PROTOCOL_UDP, length), true)?;
    Some(Udp6 {
        link,
        source: SocketAddrV6::new(source.into(), from, 0, 0),
        destination: SocketAddrV6::new(destination.into(), to, 0, 0),
        payload,
    })
}

/// Reads a frame that holds an ICMPv6 message.
pub fn read_icmp6(frame: &[u8]) -> Option<Icmp6<'_>> {
    let (link, packet) = link(frame, ETHERTYPE_IPV6)?;
    let Packet6 { source, destination, hop_limit, body } = read_ipv6(packet, PROTOCOL_ICMP6)?;
    let length = u32::try_from(body.len()).ok().filter(|&length| length >= 4)?;
    let sum = pseudo_v6(source, destination, PROTOCOL_ICMP6, length).over(body);
    (sum.checksum() == 0).then_some(Icmp6 {
        link,
        source: source.into(),
        destination: destination.into(),
        hop_limit,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { destination: MacAddr([2, 0, 0, 0, 0, 1]), source: MacAddr([2, 0, 0, 0, 0, 2]) };

    #[test]
    fn what_is_built_reads_the_same_and_one_changed_bit_is_noticed() {
        let (from, to) = ("10.0.0.1:67".parse().unwrap(), "10.0.0.9:68".parse().unwrap());
        let frame = udp4(LINK, from, to, b"odd").unwrap();
        let view = Udp4 { link: LINK, source: from, destination: to, payload: b"odd" };
        assert_eq!(read_udp4(&frame), Some(view));
        for at in ETHERNET..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 4;
            assert_eq!(read_udp4(&bad), None, "byte {at}");
        }
        let (from, to) = ("[fe80::1]:547".parse().unwrap(), "[fe80::2]:546".parse().unwrap());
        let frame = udp6(LINK, from, to, b"payload").unwrap();
        let view = Udp6 { link: LINK, source: from, destination: to, payload: b"payload" };
        assert_eq!(read_udp6(&frame), Some(view));
        let (from, to) = ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
        let frame = icmp6(LINK, from, to, &[134, 0, 9, 9, 1, 2]).unwrap();
        let read = read_icmp6(&frame).unwrap();
        assert_eq!((read.hop_limit, read.body[0], read.body.len()), (255, 134, 6));
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        let (from, to) = ("10.0.0.1:67".parse().unwrap(), "10.0.0.9:68".parse().unwrap());
        let frame = udp4(LINK, from, to, b"payload").unwrap();
        let (from, to) = ("[fe80::1]:547".parse().unwrap(), "[fe80::2]:546".parse().unwrap());
        let frame6 = udp6(LINK, from, to, b"payload").unwrap();
        for len in 0..frame.len() {
            assert_eq!(read_udp4(&frame[..len]), None);
        }
        for len in 0..frame6.len() {
            assert_eq!(read_udp6(&frame6[..len]), None);
        }
    }
}
