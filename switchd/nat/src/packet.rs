//! What is known of a frame before it is translated: read once, kept in a small copy.
//!
//! The common frame (IPv4 without options, whole, TCP or UDP) is read here directly; all others go through
//! `wire::parse`. What the head does not hold completely is malformed: a TCP header with its checksum, the
//! eight bytes of UDP and ICMP. A first fragment shorter than that hides its ports on purpose (RFC 1858).

use crate::hash::{Hasher, Key};
use crate::index::NONE;
use crate::verdict::Side;
use switchd_wire::parse::{ETHERTYPE_IPV4, PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::{Fragment, Frame, Ip, parse};

pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const DCCP: u8 = 33;
pub(crate) const UDP_LITE: u8 = 136;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A whole packet with a flow's key.
    Flow,
    /// The same, but the first of several fragments.
    First,
    Later,
    IcmpError,
    /// ICMP that is neither error nor query: redirects, neighbour discovery, routers.
    IcmpOther,
    Malformed,
}

/// A frame's key, worked out once. It stays valid as long as the frame's headers are as they were.
#[derive(Clone, Copy, Debug)]
pub struct Classified {
    pub(crate) hash: u32,
    /// Where the flow probably is.
    pub(crate) slot: u32,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) l3: u16,
    /// 0: there is none (a later fragment).
    pub(crate) l4: u16,
    pub(crate) protocol: u8,
    pub(crate) flags: u8,
    pub(crate) v6: bool,
    pub(crate) kind: Kind,
    pub(crate) side: Side,
}

#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn double(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn quad(bytes: &[u8], at: usize) -> u128 {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(octets)
}

/// Source and destination of the IP header at `l3`.
#[inline]
pub(crate) fn addresses(head: &[u8], l3: usize, v6: bool) -> (u128, u128) {
    if v6 {
        (quad(head, l3 + 8), quad(head, l3 + 24))
    } else {
        (u128::from(double(head, l3 + 12)), u128::from(double(head, l3 + 16)))
    }
}

/// The identifier of an ICMP query and whether it asks; `None` for other kinds.
pub(crate) fn query(v6: bool, kind: u8) -> Option<bool> {
    match (v6, kind) {
        // Echo, timestamp, information, address mask (RFC 792, RFC 950).
        (false, 8 | 13 | 15 | 17) | (true, 128) => Some(true),
        (false, 0 | 14 | 16 | 18) | (true, 129) => Some(false),
        _ => None,
    }
}

/// Destination unreachable, time exceeded, parameter problem, packet too big. (Source quench is obsolete,
/// RFC 6633; a redirect is for the link that it was sent on.)
pub(crate) fn is_error(v6: bool, kind: u8) -> bool {
    if v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 11 | 12) }
}

impl Classified {
    /// Offsets of the fast way: Ethernet and IPv4 without options.
    const L3: usize = 14;
    const L4: usize = 34;

    #[inline]
    pub(crate) fn of(frame: &Frame, side: Side, hasher: &Hasher) -> Classified {
        let head = frame.head();
        let Some(first) = head.first_chunk::<42>() else { return Classified::slow(frame, side, hasher) };
        let protocol = first[23];
        let plain = word(first, 12) == ETHERTYPE_IPV4 && first[14] == 0x45 && word(first, 20) & 0x3fff == 0;
        let flags = match protocol {
            PROTOCOL_UDP => 0,
            PROTOCOL_TCP if head.len() >= Self::L4 + 20 => head[Self::L4 + 13],
            _ => return Classified::slow(frame, side, hasher),
        };
        if !plain {
            return Classified::slow(frame, side, hasher);
        }
        let (source, destination) = (double(first, 26), double(first, 30));
        let (from, to) = (word(first, Self::L4), word(first, Self::L4 + 2));
        let (local, remote, local_port, remote_port) = match side {
            Side::Inside => (source, destination, from, to),
            Side::Outside => (destination, source, to, from),
        };
        let ports = u32::from(local_port) << 16 | u32::from(remote_port);
        let rest = u32::from(protocol) << 8 | side as u32;
        Classified {
            hash: hasher.v4(local, remote, ports, rest),
            slot: NONE,
            local_port,
            remote_port,
            l3: Self::L3 as u16,
            l4: Self::L4 as u16,
            protocol,
            flags,
            v6: false,
            kind: Kind::Flow,
            side,
        }
    }

    #[inline(never)]
    fn slow(frame: &Frame, side: Side, hasher: &Hasher) -> Classified {
        let head = frame.head();
        let layers = parse(head);
        let mut seen = Classified {
            hash: 0,
            slot: NONE,
            local_port: 0,
            remote_port: 0,
            l3: layers.l3,
            l4: 0,
            protocol: layers.protocol,
            flags: 0,
            v6: layers.ip == Ip::V6,
            kind: Kind::Malformed,
            side,
        };
        if layers.ip == Ip::None {
            return seen;
        }
        if layers.fragment == Fragment::Later {
            seen.kind = Kind::Later;
            return seen;
        }
        let Some(l4) = layers.l4 else { return seen };
        let at = usize::from(l4);
        let needed = match layers.protocol {
            PROTOCOL_TCP => 20,
            PROTOCOL_UDP | UDP_LITE | DCCP | ICMP | ICMP6 => 8,
            _ => 0,
        };
        if head.len() < at + needed {
            return seen;
        }
        seen.l4 = l4;
        seen.kind = if layers.fragment == Fragment::First { Kind::First } else { Kind::Flow };
        let (from, to) = match layers.protocol {
            PROTOCOL_TCP => {
                seen.flags = head[at + 13];
                (word(head, at), word(head, at + 2))
            }
            PROTOCOL_UDP => (word(head, at), word(head, at + 2)),
            ICMP | ICMP6 if (layers.protocol == ICMP6) != seen.v6 => {
                seen.kind = Kind::Malformed;
                return seen;
            }
            ICMP | ICMP6 => match query(seen.v6, head[at]) {
                // A question from inside and its answer have one key; questions from outside another.
                Some(asks) => {
                    let id = word(head, at + 4);
                    let other = u16::from(asks != (side == Side::Inside));
                    if side == Side::Inside { (id, other) } else { (other, id) }
                }
                None => {
                    let error = is_error(seen.v6, head[at]) && seen.kind == Kind::Flow;
                    seen.kind = if error { Kind::IcmpError } else { Kind::IcmpOther };
                    return seen;
                }
            },
            _ => (0, 0),
        };
        (seen.local_port, seen.remote_port) = if side == Side::Inside { (from, to) } else { (to, from) };
        seen.hash = hasher.key(&seen.key(head));
        seen
    }

    /// The flow's key.
    #[inline]
    pub(crate) fn key(&self, head: &[u8]) -> Key {
        let (source, destination) = addresses(head, usize::from(self.l3), self.v6);
        let (local, remote) = match self.side {
            Side::Inside => (source, destination),
            Side::Outside => (destination, source),
        };
        Key {
            local,
            remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
            protocol: self.protocol,
            v6: self.v6,
            side: self.side,
        }
    }

    /// Does the frame still have the headers that were classified?
    #[inline]
    pub(crate) fn fits(&self, head: &[u8]) -> bool {
        let end = if self.l4 == 0 {
            usize::from(self.l3) + if self.v6 { 40 } else { 20 }
        } else {
            usize::from(self.l4)
                + match self.protocol {
                    PROTOCOL_TCP => 20,
                    PROTOCOL_UDP | UDP_LITE | DCCP | ICMP | ICMP6 => 8,
                    _ => 0,
                }
        };
        end <= head.len()
    }

    pub fn side(&self) -> Side {
        self.side
    }

    pub(crate) fn is_query(&self, head: &[u8]) -> bool {
        matches!(self.protocol, ICMP | ICMP6)
            && self.l4 != 0
            && query(self.v6, head[usize::from(self.l4)]) == Some(true)
    }
}
