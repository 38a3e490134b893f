//! Frames that the engine makes itself, whole: resets, ICMP errors, echo replies, fragments.
//!
//! They wait in a queue of [`WAITING_MAX`] frames until the worker receives them; what does not fit is
//! dropped and counted.

use super::packet::{ETHERNET, Ends, IPV4, IPV6, PROTOCOL_ICMP, PROTOCOL_ICMP6, pseudo};
use crate::Arena;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use switchd_wire::checksum::Sum;
use switchd_wire::frame::{FRAME_MAX, HEAD_MAX};
use switchd_wire::{Frame, VnetHeader};

/// Frames that may wait. A datagram of 64 KiB is 45 fragments at an MTU of 1500.
pub const WAITING_MAX: usize = 1024;
/// An ICMP error is no longer than this (RFC 1812 4.3.2.3; RFC 4443 3.1 allows 1280).
const QUOTE_V4: usize = 576 - IPV4 - 8;
const QUOTE_V6: usize = 1280 - IPV6 - 8;

#[derive(Default)]
pub struct Answers {
    waiting: VecDeque<Vec<u8>>,
    pub dropped: u64,
    next_id: u32,
}

/// An ICMP error in IPv4 terms; IPv6 has its own numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp {
    NetUnreachable,
    HostUnreachable,
    PortUnreachable,
    Prohibited,
    /// With the MTU.
    TooBig(u32),
    /// As it came: type, code and the 32 bits behind the checksum.
    Raw(u8, u8, u32),
}

impl Icmp {
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Icmp::NetUnreachable => (3, 0, 0),
            Icmp::HostUnreachable => (3, 1, 0),
            Icmp::PortUnreachable => (3, 3, 0),
            Icmp::Prohibited => (3, 13, 0),
            Icmp::TooBig(mtu) => (3, 4, mtu & 0xffff),
            Icmp::Raw(kind, code, word) => (kind, code, word),
        }
    }

    fn v6(self) -> (u8, u8, u32) {
        match self {
            Icmp::NetUnreachable => (1, 0, 0),
            Icmp::HostUnreachable => (1, 3, 0),
            Icmp::PortUnreachable => (1, 4, 0),
            Icmp::Prohibited => (1, 1, 0),
            Icmp::TooBig(mtu) => (2, 0, mtu),
            Icmp::Raw(kind, code, word) => (kind, code, word),
        }
    }

    /// What a guest is told of an errno of a send or connect.
    pub fn of_errno(errno: i32) -> Option<Icmp> {
        match errno {
            libc::ENETUNREACH | libc::ENETDOWN => Some(Icmp::NetUnreachable),
            libc::EHOSTUNREACH | libc::ETIMEDOUT | libc::EHOSTDOWN => Some(Icmp::HostUnreachable),
            libc::EACCES | libc::EPERM => Some(Icmp::Prohibited),
            _ => None,
        }
    }
}

impl Answers {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, frame: Vec<u8>) {
        if self.waiting.len() >= WAITING_MAX || frame.len() > FRAME_MAX {
            self.dropped += 1;
        } else {
            self.waiting.push_back(frame);
        }
    }

    /// Moves the oldest one into `frame`. Returns its length.
    pub fn take(&mut self, frame: &mut Frame, arena: &mut Arena, slot: usize) -> Option<usize> {
        let bytes = self.waiting.pop_front()?;
        let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
        frame.receive_area()[..head.len()].copy_from_slice(head);
        if !tail.is_empty() {
            arena.slot(slot)[..tail.len()].copy_from_slice(tail);
        }
        let tail = arena.token(slot, tail.len());
        frame.arrived(head.len(), tail, VnetHeader::default());
        Some(bytes.len())
    }

    /// An ICMP error about `quoted`, a guest's packet from its IP header on. `ends`: from whom, to the guest.
    pub fn icmp_error(&mut self, ends: &Ends, error: Icmp, quoted: &[u8]) {
        let (protocol, (kind, code, word), most) = match ends.from.ip() {
            IpAddr::V4(_) => (PROTOCOL_ICMP, error.v4(), QUOTE_V4),
            IpAddr::V6(_) => (PROTOCOL_ICMP6, error.v6(), QUOTE_V6),
        };
        let quoted = &quoted[..quoted.len().min(most)];
        let mut message = Vec::with_capacity(8 + quoted.len());
        message.extend_from_slice(&[kind, code, 0, 0]);
        message.extend_from_slice(&word.to_be_bytes());
        message.extend_from_slice(quoted);
        self.icmp(ends, protocol, message, usize::MAX);
    }

    /// An ICMP message whose checksum field is zero, in as many fragments as the MTU asks for. Returns
    /// whether it was cut.
    pub fn icmp(&mut self, ends: &Ends, protocol: u8, mut message: Vec<u8>, mtu: usize) -> bool {
        let sum = match protocol {
            PROTOCOL_ICMP => Sum::new(),
            _ => pseudo(ends.from.ip(), ends.to.ip(), protocol, message.len()),
        };
        let sum = sum.over(&message).checksum();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.whole_or_cut(ends, protocol, &[&message], mtu)
    }

    /// A packet with finished checksums, given in pieces of which all but the last are multiples of 8 bytes
    /// long; in fragments where it is longer than the MTU (RFC 791 3.2, RFC 8200 4.5).
    pub fn whole_or_cut(&mut self, ends: &Ends, protocol: u8, parts: &[&[u8]], mtu: usize) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let ip = ends.ip_len();
        let room = mtu.min(65_535 + if ip == IPV6 { IPV6 } else { 0 });
        if ip + len <= room {
            let mut frame = vec![0; ETHERNET + ip];
            ends.write_ip(&mut frame, protocol, len, false);
            parts.iter().for_each(|part| frame.extend_from_slice(part));
            self.push(frame);
            return false;
        }
        let whole = parts.concat();
        let v6 = ip == IPV6;
        let extension = if v6 { 8 } else { 0 };
        // A piece is a multiple of 8 bytes; an MTU too small for one was refused with the configuration.
        let piece = (room.saturating_sub(ip + extension) & !7).max(8);
        self.next_id = self.next_id.wrapping_add(1);
        let id = self.next_id;
        let mut at = 0;
        while at < whole.len() {
            let end = (at + piece).min(whole.len());
            let more = end < whole.len();
            let mut frame = vec![0; ETHERNET + ip + extension];
            if v6 {
                ends.write_ip(&mut frame, 44, 8 + end - at, false);
                let header = &mut frame[ETHERNET + ip..];
                header[0] = protocol;
                header[2..4].copy_from_slice(&(at as u16 | u16::from(more)).to_be_bytes());
                header[4..8].copy_from_slice(&id.to_be_bytes());
            } else {
                ends.write_ip(&mut frame, protocol, end - at, false);
                let header = &mut frame[ETHERNET..ETHERNET + IPV4];
                header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
                let field = (at / 8) as u16 | if more { 0x2000 } else { 0 };
                header[6..8].copy_from_slice(&field.to_be_bytes());
                header[10..12].fill(0);
                let sum = Sum::new().over(header).checksum();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            frame.extend_from_slice(&whole[at..end]);
            self.push(frame);
            at = end;
        }
        true
    }

    /// The IP and layer-4 header of a packet that a guest sent, made again for a quotation.
    pub fn quotation(guest: SocketAddr, remote: SocketAddr, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let ends = Ends {
            from_mac: switchd_wire::MacAddr::ZERO,
            to_mac: switchd_wire::MacAddr::ZERO,
            from: guest,
            to: remote,
        };
        let mut packet = vec![0; ETHERNET + ends.ip_len()];
        ends.write_ip(&mut packet, protocol, l4.len(), true);
        packet.drain(..ETHERNET);
        packet.extend_from_slice(l4);
        packet
    }
}
