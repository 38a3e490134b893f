//! ICMP messages of our own: errors about packets that go no further, and echo replies.
//!
//! Errors quote as much of the packet as fits 576 bytes (RFC 1812 4.3.2.3) or 1280 (RFC 4443 2.4 c), and are
//! limited in their rate by token buckets (RFC 1812 4.3.2.8, RFC 4443 2.4 f): [`ERRORS`] for each guest's port
//! and for all of the outside, so that one guest's errors leave the others theirs. Whether one may be sent at
//! all, [`super::packet::Packet::may_be_answered`] says.

use super::packet::{ICMP, L3, Packet};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use switchd_wire::checksum::{Delta, Sum};
use switchd_wire::datagram::{Link, icmp6};
use switchd_wire::parse::ETHERTYPE_IPV4;
use switchd_wire::rate::{Bucket, Rate};
use switchd_wire::{Frame, MacAddr};

/// Errors a second to one guest, and how many may come at once. Choices; Linux has the same rate.
pub const ERRORS: Rate = Rate { second: 1000, burst: 100 };
const QUOTE_V4: usize = 576 - 28;
const QUOTE_V6: usize = 1280 - 48;
/// Of packets of our own (RFC 1700).
pub const TTL: u8 = 64;

/// A bucket for each sender. Bound: ports of a worker, which are fewer than their indices.
#[derive(Default)]
pub struct Limiter(HashMap<u32, Bucket>);

impl Limiter {
    /// `by`: the port that the packet came by, about which the error is.
    pub fn take(&mut self, now: u64, by: u32) -> bool {
        self.0.entry(by).or_insert(Bucket::full(now, ERRORS)).take(now, ERRORS)
    }
}

/// What is said about a packet, in either version of IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No route, or no address to leave by.
    NoRoute,
    /// The next hop is silent.
    HostUnreachable,
    ProtocolUnreachable,
    PortUnreachable,
    /// RFC 5508 REQ-8: no flow for it, for want of resources.
    Prohibited,
    /// The source is of a narrower scope than the destination.
    BeyondScope,
    TooBig {
        mtu: usize,
    },
    TimeExceeded,
}

impl Error {
    /// Type, code and the second word.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Error::NoRoute | Error::BeyondScope => (3, 0, 0),
            Error::HostUnreachable => (3, 1, 0),
            Error::ProtocolUnreachable => (3, 2, 0),
            Error::PortUnreachable => (3, 3, 0),
            Error::TooBig { mtu } => (3, 4, mtu as u32),
            Error::Prohibited => (3, 13, 0),
            Error::TimeExceeded => (11, 0, 0),
        }
    }

    fn v6(self) -> (u8, u8, u32) {
        match self {
            Error::NoRoute => (1, 0, 0),
            Error::Prohibited => (1, 1, 0),
            Error::BeyondScope => (1, 2, 0),
            Error::HostUnreachable => (1, 3, 0),
            Error::PortUnreachable => (1, 4, 0),
            Error::TooBig { mtu } => (2, 0, mtu as u32),
            Error::TimeExceeded => (3, 0, 0),
            // The next header field.
            Error::ProtocolUnreachable => (4, 1, 6),
        }
    }

    /// The whole frame of the error about `packet` (from its IP header on), to who sent it.
    pub fn about(self, packet: &[u8], link: Link, from: IpAddr, to: IpAddr) -> Option<Vec<u8>> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (kind, code, word) = self.v4();
                let quote = &packet[..packet.len().min(QUOTE_V4)];
                Some(error_v4(kind, code, word, quote, link, from, to))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (kind, code, word) = self.v6();
                let mut body = vec![kind, code, 0, 0];
                body.extend_from_slice(&word.to_be_bytes());
                body.extend_from_slice(&packet[..packet.len().min(QUOTE_V6)]);
                icmp6(link, from, to, &body)
            }
            _ => None,
        }
    }
}

fn error_v4(
    kind: u8,
    code: u8,
    word: u32,
    quote: &[u8],
    link: Link,
    from: Ipv4Addr,
    to: Ipv4Addr,
) -> Vec<u8> {
    let total = 28 + quote.len();
    let mut frame = Vec::with_capacity(L3 + total);
    frame.extend_from_slice(&link.destination.0);
    frame.extend_from_slice(&link.source.0);
    frame.extend_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    // Precedence 6 (RFC 1812 4.3.2.5).
    frame.extend_from_slice(&[0x45, 0xc0]);
    frame.extend_from_slice(&(total as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0, 0, TTL, ICMP, 0, 0]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    let checksum = Sum::new().over(&frame[L3..]).checksum();
    frame[L3 + 10..L3 + 12].copy_from_slice(&checksum.to_be_bytes());
    let icmp = frame.len();
    frame.extend_from_slice(&[kind, code, 0, 0]);
    frame.extend_from_slice(&word.to_be_bytes());
    frame.extend_from_slice(quote);
    let checksum = Sum::new().over(&frame[icmp..]).checksum();
    frame[icmp + 2..icmp + 4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Is it an echo request? `l4` is where the ICMP header begins.
pub fn is_echo(frame: &Frame, packet: &Packet, l4: usize) -> bool {
    frame.head().get(l4..l4 + 8).is_some_and(|icmp| icmp[0] == if packet.is_v6() { 128 } else { 8 })
}

/// Sends a packet back to where it came from, its addresses exchanged; of an echo request (its ICMP header
/// is at `l4`) the reply is made. Neither needs the payload: checksums change by what changed.
pub fn turn_around(frame: &mut Frame, is_v6: bool, l4: Option<usize>, mac: MacAddr) {
    let head = frame.head_mut();
    let back: [u8; 6] = head[6..12].try_into().expect("six octets");
    head[..6].copy_from_slice(&back);
    head[6..12].copy_from_slice(&mac.0);
    let ip = &mut head[L3..];
    if is_v6 {
        let (source, destination) = ip[8..40].split_at_mut(16);
        source.swap_with_slice(destination);
        ip[7] = TTL;
    } else {
        let (source, destination) = ip[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        let old = u16::from_be_bytes([ip[8], ip[9]]);
        ip[8] = TTL;
        let checksum = Delta::new()
            .replace_u16(old, u16::from_be_bytes([ip[8], ip[9]]))
            .apply(u16::from_be_bytes([ip[10], ip[11]]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    if let Some(l4) = l4 {
        // The pseudo-header of ICMPv6 sums to the same with its addresses exchanged.
        let reply = if is_v6 { 129 } else { 0 };
        let icmp = &mut head[l4..];
        let (old, new) = (u16::from_be_bytes([icmp[0], icmp[1]]), u16::from_be_bytes([reply, icmp[1]]));
        let checksum = Delta::new().replace_u16(old, new).apply(u16::from_be_bytes([icmp[2], icmp[3]]));
        icmp[0] = reply;
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1812_4_3_2_8_errors_are_limited_and_the_bucket_fills_again() {
        let mut limiter = Limiter::default();
        let now = 5_000_000_000;
        assert_eq!((0..1000).filter(|_| limiter.take(now, 3)).count() as u64, ERRORS.burst);
        assert!(limiter.take(now, 4), "another guest's are its own");
        assert_eq!((0..1000).filter(|_| limiter.take(now + 10_000_000, 3)).count(), 10);
        assert_eq!((0..1000).filter(|_| limiter.take(now + 60_000_000_000, 3)).count() as u64, ERRORS.burst);
    }
}
