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
#[repr(u8)]
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
///
/// Two words, which travel in registers: a struct of ten fields would be written in pieces and copied as
/// a whole, and the processor waits for that.
#[derive(Clone, Copy, Debug)]
pub struct Classified {
    /// Hash; above it the slot where the flow probably is.
    place: u64,
    /// Local port, remote port, l3, l4 (0: there is none, a later fragment), protocol, sort.
    rest: u64,
}

/// Kind in the lower bits, then [`Sort::V6`], [`Sort::OUTSIDE`] and [`Sort::PLAIN`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sort(u8);

impl Sort {
    const V6: u8 = 8;
    const OUTSIDE: u8 = 16;
    /// Read the fast way: all offsets are known.
    const PLAIN: u8 = 32;
    /// A whole IPv4 packet of TCP or UDP, from either side.
    pub const PLAIN_IN: Sort = Sort(Kind::Flow as u8 | Sort::PLAIN | Sort::OUTSIDE);
    pub const PLAIN_OUT: Sort = Sort(Kind::Flow as u8 | Sort::PLAIN);

    fn new(kind: Kind, v6: bool, side: Side) -> Sort {
        let v6 = if v6 { Sort::V6 } else { 0 };
        Sort(kind as u8 | v6 | if side == Side::Outside { Sort::OUTSIDE } else { 0 })
    }
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
#[inline(always)]
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

    #[inline(always)]
    pub(crate) fn of(frame: &Frame, side: Side, hasher: &Hasher) -> Classified {
        let head = frame.head();
        let Some(first) = head.first_chunk::<42>() else { return Classified::slow(frame, side, hasher) };
        let protocol = first[23];
        let plain = word(first, 12) == ETHERTYPE_IPV4
            && first[14] == 0x45
            && word(first, 20) & 0x3fff == 0
            && (protocol == PROTOCOL_UDP || protocol == PROTOCOL_TCP && head.len() >= Self::L4 + 20);
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
        let hash = hasher.v4(local, remote, ports, rest);
        let sort = if side == Side::Inside { Sort::PLAIN_OUT } else { Sort::PLAIN_IN };
        Classified::new(hash, (local_port, remote_port), (Self::L3 as u8, Self::L4 as u8), protocol, sort)
    }

    #[inline(always)]
    fn new(
        hash: u32,
        (local, remote): (u16, u16),
        (l3, l4): (u8, u8),
        protocol: u8,
        sort: Sort,
    ) -> Classified {
        let rest = u64::from(local)
            | u64::from(remote) << 16
            | u64::from(l3) << 32
            | u64::from(l4) << 40
            | u64::from(protocol) << 48
            | u64::from(sort.0) << 56;
        Classified { place: u64::from(hash) | u64::from(NONE) << 32, rest }
    }

    #[inline(always)]
    pub(crate) fn hash(&self) -> u32 {
        self.place as u32
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        (self.place >> 32) as u32
    }

    #[inline(always)]
    pub(crate) fn found(&mut self, slot: u32) {
        self.place = u64::from(self.hash()) | u64::from(slot) << 32;
    }

    #[inline(always)]
    pub(crate) fn local_port(&self) -> u16 {
        self.rest as u16
    }

    #[inline(always)]
    pub(crate) fn remote_port(&self) -> u16 {
        (self.rest >> 16) as u16
    }

    #[inline(always)]
    pub(crate) fn l3(&self) -> usize {
        usize::from((self.rest >> 32) as u8)
    }

    #[inline(always)]
    pub(crate) fn l4(&self) -> usize {
        usize::from((self.rest >> 40) as u8)
    }

    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        (self.rest >> 48) as u8
    }

    #[inline(always)]
    pub(crate) fn sort(&self) -> Sort {
        Sort((self.rest >> 56) as u8)
    }

    #[inline(never)]
    #[cold]
    fn slow(frame: &Frame, side: Side, hasher: &Hasher) -> Classified {
        let head = frame.head();
        let layers = parse(head);
        let v6 = layers.ip == Ip::V6;
        let (l3, protocol) = (layers.l3 as u8, layers.protocol);
        let without = |kind| Classified::new(0, (0, 0), (l3, 0), protocol, Sort::new(kind, v6, side));
        if layers.ip == Ip::None {
            return without(Kind::Malformed);
        }
        if layers.fragment == Fragment::Later {
            return without(Kind::Later);
        }
        let Some(l4) = layers.l4 else { return without(Kind::Malformed) };
        let at = usize::from(l4);
        // Of a head of 256 bytes, what begins behind the 255th is not whole anyway.
        if head.len() < at + needed(protocol) || l4 > 255 {
            return without(Kind::Malformed);
        }
        let mut kind = if layers.fragment == Fragment::First { Kind::First } else { Kind::Flow };
        let (from, to) = match protocol {
            PROTOCOL_TCP | PROTOCOL_UDP => (word(head, at), word(head, at + 2)),
            ICMP | ICMP6 if (protocol == ICMP6) != v6 => return without(Kind::Malformed),
            ICMP | ICMP6 => match query(v6, head[at]) {
                // A question from inside and its answer have one key; questions from outside another.
                Some(asks) => {
                    let id = word(head, at + 4);
                    let other = u16::from(asks != (side == Side::Inside));
                    if side == Side::Inside { (id, other) } else { (other, id) }
                }
                None => {
                    let error = is_error(v6, head[at]) && kind == Kind::Flow;
                    kind = if error { Kind::IcmpError } else { Kind::IcmpOther };
                    (0, 0)
                }
            },
            _ => (0, 0),
        };
        let ports = if side == Side::Inside { (from, to) } else { (to, from) };
        let sort = Sort::new(kind, v6, side);
        let unhashed = Classified::new(0, ports, (l3, l4 as u8), protocol, sort);
        let hash = hasher.key(&unhashed.key(head));
        Classified::new(hash, ports, (l3, l4 as u8), protocol, sort)
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.sort().0 & 7 {
            0 => Kind::Flow,
            1 => Kind::First,
            2 => Kind::Later,
            3 => Kind::IcmpError,
            4 => Kind::IcmpOther,
            _ => Kind::Malformed,
        }
    }

    #[inline]
    pub(crate) fn v6(&self) -> bool {
        self.sort().0 & Sort::V6 != 0
    }

    #[inline]
    pub fn side(&self) -> Side {
        if self.sort().0 & Sort::OUTSIDE == 0 { Side::Inside } else { Side::Outside }
    }

    /// The same frame, seen from outside.
    pub(crate) fn turned(self) -> Classified {
        Classified { rest: self.rest | u64::from(Sort::OUTSIDE) << 56, ..self }
    }

    /// The flags of a TCP segment; 0 for everything else.
    #[inline]
    pub(crate) fn flags(&self, head: &[u8]) -> u8 {
        if self.protocol() == PROTOCOL_TCP && self.l4() != 0 {
            head.get(self.l4() + 13).copied().unwrap_or(0)
        } else {
            0
        }
    }

    /// The flow's key.
    #[inline]
    pub(crate) fn key(&self, head: &[u8]) -> Key {
        let v6 = self.v6();
        let (source, destination) = addresses(head, self.l3(), v6);
        let side = self.side();
        let (local, remote) = match side {
            Side::Inside => (source, destination),
            Side::Outside => (destination, source),
        };
        Key {
            local,
            remote,
            local_port: self.local_port(),
            remote_port: self.remote_port(),
            protocol: self.protocol(),
            v6,
            side,
        }
    }

    /// Does the frame still hold the headers that were classified?
    #[inline]
    pub(crate) fn fits(&self, head: &[u8]) -> bool {
        let end = if self.l4() == 0 {
            self.l3() + if self.v6() { 40 } else { 20 }
        } else {
            self.l4() + needed(self.protocol())
        };
        end <= head.len()
    }

    pub(crate) fn is_query(&self, head: &[u8]) -> bool {
        matches!(self.protocol(), ICMP | ICMP6)
            && self.l4() != 0
            && query(self.v6(), head[self.l4()]) == Some(true)
    }
}

/// Bytes of a layer-4 header that must be there.
#[inline]
fn needed(protocol: u8) -> usize {
    match protocol {
        PROTOCOL_TCP => 20,
        PROTOCOL_UDP | UDP_LITE | DCCP | ICMP | ICMP6 => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_frame_is_two_words() {
        assert_eq!(size_of::<Classified>(), 16);
        for kind in [Kind::Flow, Kind::First, Kind::Later, Kind::IcmpError, Kind::IcmpOther, Kind::Malformed]
        {
            for (v6, side) in
                [(false, Side::Inside), (true, Side::Inside), (false, Side::Outside), (true, Side::Outside)]
            {
                let sort = Sort::new(kind, v6, side);
                let mut seen = Classified::new(7, (1, 2), (3, 4), 5, sort);
                assert_eq!((seen.hash(), seen.slot()), (7, NONE));
                seen.found(9);
                assert_eq!((seen.hash(), seen.slot(), seen.local_port(), seen.remote_port()), (7, 9, 1, 2));
                assert_eq!((seen.l3(), seen.l4(), seen.protocol()), (3, 4, 5));
                assert_eq!((seen.kind(), seen.v6(), seen.side()), (kind, v6, side));
            }
        }
    }
}
