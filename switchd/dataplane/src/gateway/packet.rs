//! An IP packet as a router looks at it: addresses, lengths, time to live.
//!
//! [`Packet::read`] makes the checks of RFC 1812 5.2.2 (version, header length, header checksum, total length)
//! and of RFC 8200 3. What lies behind the IP header is read when somebody needs it ([`Packet::layers`]).

use crate::drops::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_wire::checksum::Sum;
use switchd_wire::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use switchd_wire::{Fragment, Frame, Layers, parse};

/// Where the IP header begins: gateways take untagged frames only.
pub const L3: usize = 14;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// IPv4: behind the options; IPv6: behind the fixed header.
    pub header: usize,
    /// Length of the whole packet as it would be on a wire: of the longest segment.
    pub longest: usize,
    /// Not to be fragmented on its way; so is all of IPv6.
    pub whole: bool,
    /// IPv4's flags and offset: not the first fragment.
    later: bool,
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Packet {
    #[inline]
    pub fn read(frame: &Frame) -> Result<Packet, DropReason> {
        let head = frame.head();
        match head.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]])) {
            Some(ETHERTYPE_IPV4) => Packet::v4(frame, &head[L3..]),
            Some(ETHERTYPE_IPV6) => Packet::v6(frame, &head[L3..]),
            _ => Err(DropReason::BadPacket),
        }
    }

    #[inline]
    fn v4(frame: &Frame, ip: &[u8]) -> Result<Packet, DropReason> {
        let fixed = ip.first_chunk::<20>().ok_or(DropReason::BadPacket)?;
        let header = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(word(fixed, 2));
        if fixed[0] >> 4 != 4 || header < 20 || total < header || total > frame.len() - L3 {
            return Err(DropReason::BadPacket);
        }
        let is_right = match header {
            20 => sum_is_right(fixed),
            _ => ip.get(..header).is_some_and(|ip| Sum::new().over(ip).uncomplemented() == 0xffff),
        };
        if !is_right {
            return Err(DropReason::BadPacket);
        }
        let address =
            |at: usize| IpAddr::V4(Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]));
        Ok(Packet {
            source: address(12),
            destination: address(16),
            ttl: fixed[8],
            header,
            longest: longest(frame, total),
            whole: fixed[6] & 0x40 != 0,
            later: word(fixed, 6) & 0x1fff != 0,
        })
    }

    fn v6(frame: &Frame, ip: &[u8]) -> Result<Packet, DropReason> {
        let fixed = ip.first_chunk::<40>().ok_or(DropReason::BadPacket)?;
        let total = 40 + usize::from(word(fixed, 4));
        if fixed[0] >> 4 != 6 || total > frame.len() - L3 {
            return Err(DropReason::BadPacket);
        }
        let address = |at: usize| {
            let octets: [u8; 16] = fixed[at..at + 16].try_into().expect("sixteen of forty");
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        Ok(Packet {
            source: address(8),
            destination: address(24),
            ttl: fixed[7],
            header: 40,
            longest: longest(frame, total),
            whole: true,
            later: false,
        })
    }

    pub fn is_v6(&self) -> bool {
        self.destination.is_ipv6()
    }

    /// A fragment other than the first?
    pub fn is_later(&self, frame: &Frame) -> bool {
        let ip = &frame.head()[L3..];
        self.later || self.is_v6() && ip[6] == 44 && ip.len() >= 44 && word(ip, 42) & 0xfff8 != 0
    }

    pub fn layers(&self, frame: &Frame) -> Layers {
        parse(frame.head())
    }

    /// May an ICMP error be sent about it (RFC 1122 3.2.2, RFC 4443 2.4 e)? Not about ICMP errors, later
    /// fragments, groups, and what does not say who sent it.
    pub fn may_be_answered(&self, frame: &Frame) -> bool {
        if frame.head()[0] & 1 != 0 || self.later || !is_station(self.source) {
            return false;
        }
        let layers = self.layers(frame);
        if layers.fragment == Fragment::Later || is_group(self.destination) {
            return false;
        }
        let kind = layers.l4.and_then(|l4| frame.head().get(usize::from(l4)));
        match layers.protocol {
            ICMP => matches!(kind, Some(0 | 8 | 13..=18)),
            // RFC 4443 2.1: errors are below 128; 137 is Redirect.
            ICMP6 => kind.is_some_and(|&kind| kind >= 128 && kind != 137),
            _ => true,
        }
    }
}

/// Is the checksum of a header without options right?
#[inline]
fn sum_is_right(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// What an MTU bounds.
#[inline]
fn longest(frame: &Frame, total: usize) -> usize {
    if frame.vnet.is_gso() {
        let headers = usize::from(frame.vnet.hdr_len).saturating_sub(L3);
        return total.min(headers + usize::from(frame.vnet.gso_size));
    }
    total
}

/// One less to live. The caller has seen that there is one.
#[inline]
pub fn decrement_ttl(frame: &mut Frame) {
    let ip = &mut frame.head_mut()[L3..];
    if ip[0] >> 4 == 6 {
        ip[7] -= 1;
        return;
    }
    ip[8] -= 1;
    // RFC 1624: the field grows by what was taken from the word before it, and carries around.
    let sum = u32::from(word(ip, 10)) + 0x100;
    let sum = (sum + u32::from(sum >= 0xffff)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Can it be one station's address (RFC 1122 3.2.1.3, RFC 1812 5.3.7, RFC 4291 2.5)?
#[inline]
pub fn is_station(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast(),
    }
}

pub fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// RFC 3927 2.7, RFC 4291 2.5.6: not to be forwarded.
#[inline]
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        bytes.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1]);
        let checksum = Sum::new().over(&bytes[L3..]).checksum();
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend([0; 26]);
        Frame::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn rfc1812_5_2_2_what_contradicts_itself_is_refused() {
        assert!(Packet::read(&frame()).is_ok());
        for (at, value) in [(14, 0x44), (14, 0x65), (16, 0xff), (17, 19), (25, 0), (22, 63)] {
            let mut frame = frame();
            frame.head_mut()[at] = value;
            assert_eq!(Packet::read(&frame).unwrap_err(), DropReason::BadPacket, "byte {at} = {value}");
        }
    }

    #[test]
    fn rfc1812_5_3_1_the_checksum_follows_the_time_to_live() {
        let mut frame = frame();
        for ttl in (1..64).rev() {
            decrement_ttl(&mut frame);
            assert_eq!(Packet::read(&frame).map(|packet| packet.ttl), Ok(ttl));
        }
    }
}
