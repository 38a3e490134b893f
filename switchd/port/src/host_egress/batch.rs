//! Datagrams of a guest that follow each other to the same place leave in one system call.
//!
//! Within a burst, datagrams of one mapping to one remote end, of one length (the last may be shorter) and
//! with the same wishes (TTL, "don't fragment") are put together and handed to the kernel as one, which cuts
//! them again (UDP_SEGMENT): each goes out as the guest made it. Anything else that a guest sends as UDP sends
//! off first what waits, so datagrams of a mapping stay in order; the end of the burst does too, so nothing
//! waits for a datagram that may not come. Where the kernel refuses the whole, they go one by one.
//!
//! Bound: [`DATAGRAMS`], and what one UDP datagram holds.

use super::answers::Icmp;
use super::packet::Packet;
use super::table::{Body, Flow, FlowId};
use super::udp::{Outbound, Via, quotation, send};
use super::{HostEgress, Taken};
use crate::sys::socket::{self, SendOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// UDP_MAX_SEGMENTS of Linux before 6.6; later ones take twice as many.
const DATAGRAMS: usize = 64;
/// A datagram of 64 KiB less the larger headers.
const BYTES: usize = 65_535 - 48;

/// Those that wait.
pub struct Batch {
    pub flow: FlowId,
    pub guest: SocketAddr,
    pub remote: SocketAddr,
    /// The first one, for an ICMP error about it: what it said, and from the IP header on.
    pub packet: Packet,
    pub quote: Vec<u8>,
    pub bytes: Vec<u8>,
    /// Length of each, but perhaps the last.
    pub size: usize,
    pub count: usize,
    /// Bytes of their frames.
    pub frames: u64,
    /// The last one was shorter.
    closed: bool,
}

impl Batch {
    pub fn new(flow: FlowId, guest: SocketAddr, remote: SocketAddr, packet: Packet, spare: Spare) -> Batch {
        let Spare { quote, bytes } = spare;
        Batch { flow, guest, remote, packet, quote, bytes, size: 0, count: 0, frames: 0, closed: false }
    }

    /// Whether such a datagram can follow.
    pub fn takes(&self, guest: SocketAddr, remote: SocketAddr, packet: &Packet, len: usize) -> bool {
        !self.closed
            && self.count < DATAGRAMS
            && (1..=self.size).contains(&len)
            && self.bytes.len() + len <= BYTES
            && (self.guest, self.remote) == (guest, remote)
            && (self.packet.mac, self.packet.guest, self.packet.ttl, self.packet.dont_fragment)
                == (packet.mac, packet.guest, packet.ttl, packet.dont_fragment)
    }

    pub fn add(&mut self, payload: [&[u8]; 2], frame: u64) {
        let before = self.bytes.len();
        payload.iter().for_each(|part| self.bytes.extend_from_slice(part));
        let len = self.bytes.len() - before;
        if self.count == 0 {
            self.size = len;
        }
        self.closed = len < self.size || len == 0;
        self.count += 1;
        self.frames += frame;
    }

    /// The datagrams, one by one.
    pub fn each(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.count).map(|index| {
            let end = ((index + 1) * self.size).min(self.bytes.len());
            &self.bytes[index * self.size..end]
        })
    }

    pub fn spare(self) -> Spare {
        let Batch { mut quote, mut bytes, .. } = self;
        quote.clear();
        bytes.clear();
        Spare { quote, bytes }
    }
}

/// Memory for the next batch.
#[derive(Default)]
pub struct Spare {
    pub quote: Vec<u8>,
    pub bytes: Vec<u8>,
}

impl HostEgress {
    /// Sends what waits, and books it.
    pub(super) fn send_batch(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        let count = batch.count as u64;
        let Some(flow) = self.table.get_mut(batch.flow) else {
            self.flushed.refused += count;
            self.spare = batch.spare();
            return;
        };
        flow.packets += count;
        flow.bytes += batch.bytes.len() as u64;
        let Body::Udp(udp) = &flow.body else { return };
        let Via::Own(fd) = &udp.via else { return };
        let options = SendOptions { segment: Some(batch.size as u16), ttl: None };
        let together = count > 1 && socket::send_to(fd, [&batch.bytes, &[]], batch.remote, options).is_ok();
        if together {
            self.flushed.accepted += count;
            self.flushed.bytes += batch.frames;
            self.note_outside(batch.flow);
        } else {
            // One, or a whole that the kernel does not want. What became of each is told of each.
            for (index, payload) in batch.each().enumerate() {
                let quote =
                    if index == 0 { None } else { Some(quotation(batch.guest, batch.remote, payload)) };
                let quote = quote.as_deref().unwrap_or(&batch.quote);
                let (packet, frame) = (&batch.packet, batch.frames / count);
                let out = Outbound { packet, parts: [&[], &[]], quote, segment: None, frame };
                match self.send_own(batch.flow, batch.remote, [payload, &[]], &out) {
                    Taken::Full => self.flushed.full += 1,
                    Taken::Refused => self.flushed.refused += 1,
                    Taken::Declined(why) => self.flushed.declined.count(why),
                    Taken::Accepted | Taken::Held => {
                        self.flushed.accepted += 1;
                        self.flushed.bytes += frame;
                    }
                }
            }
        }
        self.spare = batch.spare();
    }

    /// Through the mapping's own socket.
    pub(super) fn send_own(
        &mut self,
        id: FlowId,
        remote: SocketAddr,
        payload: [&[u8]; 2],
        out: &Outbound<'_>,
    ) -> Taken {
        let sent = |engine: &Self| {
            let gone = || io::Error::from(io::ErrorKind::NotFound);
            let Some(Flow { body: Body::Udp(udp), .. }) = engine.table.get(id) else { return Err(gone()) };
            let Via::Own(fd) = &udp.via else { return Err(gone()) };
            send(fd.as_fd(), payload, remote, out.segment)
        };
        let Err(error) = sent(self) else {
            self.note_outside(id);
            return Taken::Accepted;
        };
        if let Some(taken) = self.send_failed(error, out) {
            return taken;
        }
        // Perhaps the error was that of an earlier packet, which the queue tells of.
        let told = self.udp_errors(id);
        let Err(error) = sent(self) else { return Taken::Accepted };
        self.counters.dropped_socket_error += 1;
        if let (Some(icmp), 0) = (Icmp::of_errno(error.raw_os_error().unwrap_or(0)), told) {
            self.tell(out.packet, icmp, out.quote);
        } else {
            self.udp_errors(id);
        }
        Taken::Refused
    }

    /// The kernel has chosen the mapping's outside port with its first packet.
    fn note_outside(&mut self, id: FlowId) {
        let Some(Flow { body: Body::Udp(udp), key, .. }) = self.table.get_mut(id) else { return };
        if let (None, Via::Own(fd)) = (udp.outside, &udp.via)
            && let Some(outside) = super::local_address(fd)
        {
            udp.outside = Some(outside.port());
            self.outside.insert((key.guest.is_ipv6(), outside.port()), id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_wire::MacAddr;

    fn packet() -> Packet {
        Packet {
            mac: MacAddr([2, 0, 0, 0, 0, 9]),
            guest: 0,
            source: [10, 7, 0, 20].into(),
            destination: [192, 0, 2, 1].into(),
            protocol: 17,
            ttl: 63,
            dont_fragment: true,
            l3: 14,
            l4: 34,
            len: 100,
            fragment: None,
        }
    }

    fn batch() -> Batch {
        let id = FlowId { index: 1, generation: 0 };
        Batch::new(id, guest(), remote(), packet(), Spare::default())
    }

    fn guest() -> SocketAddr {
        "10.7.0.20:4000".parse().unwrap()
    }

    fn remote() -> SocketAddr {
        "192.0.2.1:99".parse().unwrap()
    }

    #[test]
    fn equal_datagrams_follow_and_a_shorter_one_is_the_last() {
        let mut batch = batch();
        batch.add([b"ab", b"cd"], 46);
        batch.add([b"efgh", b""], 46);
        assert!(batch.takes(guest(), remote(), &packet(), 4) && batch.takes(guest(), remote(), &packet(), 1));
        assert!(
            !batch.takes(guest(), remote(), &packet(), 5) && !batch.takes(guest(), remote(), &packet(), 0)
        );
        batch.add([b"i", b""], 43);
        assert!(!batch.takes(guest(), remote(), &packet(), 1));
        assert_eq!(batch.each().collect::<Vec<_>>(), [&b"abcd"[..], b"efgh", b"i"]);
        assert_eq!((batch.count, batch.frames, batch.size), (3, 135, 4));
        let spare = batch.spare();
        assert!(spare.bytes.is_empty() && spare.bytes.capacity() >= 9);
    }

    #[test]
    fn what_differs_in_anything_does_not_follow() {
        let mut batch = batch();
        batch.add([b"abcd", b""], 46);
        let other: SocketAddr = "192.0.2.1:98".parse().unwrap();
        assert!(!batch.takes(guest(), other, &packet(), 4) && !batch.takes(other, remote(), &packet(), 4));
        for change in [
            |packet: &mut Packet| packet.ttl = 5,
            |packet: &mut Packet| packet.dont_fragment = false,
            |packet: &mut Packet| packet.mac.0[5] = 8,
        ] {
            let mut packet = packet();
            change(&mut packet);
            assert!(!batch.takes(guest(), remote(), &packet, 4));
        }
    }

    #[test]
    fn number_and_bytes_are_bounded_and_an_empty_datagram_is_alone() {
        let mut many = batch();
        many.add([b"x", b""], 60);
        while many.takes(guest(), remote(), &packet(), 1) {
            many.add([b"x", b""], 60);
        }
        assert_eq!(many.count, DATAGRAMS);
        let mut large = batch();
        large.add([&[0; 30_000], b""], 30_042);
        assert!(large.takes(guest(), remote(), &packet(), 30_000));
        large.add([&[0; 30_000], b""], 30_042);
        assert!(!large.takes(guest(), remote(), &packet(), 30_000));
        let mut empty = batch();
        empty.add([b"", b""], 42);
        assert!(!empty.takes(guest(), remote(), &packet(), 0));
        assert_eq!(empty.each().collect::<Vec<_>>(), [b""]);
    }
}
