//! UDP mappings: one socket of the host for each address and port of a guest.
//!
//! So the mapping is endpoint-independent (RFC 4787 4.1), and its outside port is the kernel's choice.
//! Filtering is ours (RFC 4787 5): each mapping remembers whom its guest has sent to, the last
//! [`PEERS_MAX`] of them. Outbound packets refresh a mapping, inbound ones do not (RFC 4787 4.3 REQ-6).
//!
//! Hairpinning (RFC 4787 6): a guest that sends to another one's outside port, at an address of the host,
//! reaches it by way of the host's stack, with its own outside port as the source. Filtering lets that in.
//!
//! A guest that is the target of a UDP forward sends from the forward's own port, to anybody. What a client
//! behind a forward is called towards the guest is kept as a flow of its own.
//!
//! TTL (where it is small) and "don't fragment" of a guest's packets are set on its socket, so traceroute and
//! path MTU discovery work; ICMP errors come by the socket's error queue and go on to the guest.

use super::answers::{Answers, Icmp};
use super::batch::Batch;
use super::config::{Filtering, admit_destination};
use super::packet::{self, Ends, Packet, UDP};
use super::table::{Body, Flow, FlowId, Key, Protocol};
use super::{Filled, HostEgress, Room, Taken};
use crate::sys::socket::{self, BATCH, Datagram, SendOptions};
use crate::{Arena, Decline};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::parse::PROTOCOL_UDP;
use switchd_wire::{Frame, MacAddr};

/// Remote ends that a mapping lets in; the one that was sent to longest ago gives way.
pub const PEERS_MAX: usize = 128;
/// A smaller TTL is somebody's probe and goes out as it is; others become the host's own.
const PROBE_TTL: u8 = 32;
/// Entries of an error queue in one turn.
const ERRORS: usize = 32;

pub struct UdpFlow {
    pub via: Via,
    /// Last used last.
    peers: Vec<SocketAddr>,
    ttl: Option<u8>,
    dont_fragment: Option<bool>,
    /// The kernel's choice, known after the first packet.
    pub outside: Option<u16>,
    /// Last packet of the guest.
    pub sent: u64,
}

pub enum Via {
    Own(OwnedFd),
    /// Through the forward's socket, to this client.
    Forward {
        client: SocketAddr,
        forward: u32,
    },
}

impl UdpFlow {
    pub fn new(via: Via, now: u64) -> UdpFlow {
        UdpFlow { via, peers: Vec::new(), ttl: None, dont_fragment: None, outside: None, sent: now }
    }

    fn remember(&mut self, peer: SocketAddr) {
        if self.peers.last() == Some(&peer) {
            return;
        }
        if let Some(at) = self.peers.iter().rposition(|&known| known == peer) {
            self.peers.remove(at);
        } else if self.peers.len() >= PEERS_MAX {
            self.peers.remove(0);
        }
        self.peers.push(peer);
    }

    fn lets_in(&self, peer: SocketAddr) -> bool {
        self.peers.iter().rev().any(|&known| known == peer)
    }

    /// Sets what this packet wants of the socket. An error costs no packet: the kernel's default serves.
    fn prepare(&mut self, packet: &Packet) {
        let Via::Own(fd) = &self.via else { return };
        let v6 = packet.source.is_ipv6();
        let ttl = (packet.ttl < PROBE_TTL).then_some(packet.ttl);
        if self.ttl != ttl {
            self.ttl = ttl;
            let (level, option) = if v6 {
                (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TTL)
            };
            let _ = socket::set(fd, level, option, ttl.map_or(-1, i32::from));
        }
        if self.dont_fragment != Some(packet.dont_fragment) && !v6 {
            self.dont_fragment = Some(packet.dont_fragment);
            let discover = if packet.dont_fragment { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
            let _ = socket::set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover);
        }
    }
}

/// A guest's datagram: whole, header first.
pub struct Outbound<'a> {
    pub packet: &'a Packet,
    pub parts: [&'a [u8]; 2],
    /// From the IP header on, for an ICMP error.
    pub quote: &'a [u8],
    /// Cut into datagrams of this length.
    pub segment: Option<u16>,
    /// Bytes of the frame that brought it.
    pub frame: u64,
}

impl HostEgress {
    pub(super) fn take_udp(&mut self, out: &Outbound<'_>) -> Taken {
        let packet = out.packet;
        let Some(header) = out.parts[0].first_chunk::<UDP>() else {
            return self.decline(Decline::Malformed);
        };
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let guest = SocketAddr::new(packet.source, port(0));
        let remote = SocketAddr::new(packet.destination, port(2));
        let payload = [&out.parts[0][UDP..], out.parts[1]];
        let len = payload[0].len() + payload[1].len();
        if let Some(batch) = &mut self.batch {
            if out.segment.is_none() && batch.takes(guest, remote, packet, len) {
                batch.add(payload, out.frame);
                return Taken::Held;
            }
            self.send_batch();
        }
        // A client that came through a forward.
        let through = Key { protocol: Protocol::Udp, guest, remote: Some(remote) };
        let now = self.now;
        if let Some(id) = self.table.find(&through)
            && let Some(flow) = self.table.get_mut(id)
            && let Body::Udp(udp) = &mut flow.body
            && let Via::Forward { client, forward } = udp.via
        {
            udp.sent = now;
            flow.used = now;
            flow.mac = packet.mac;
            flow.packets += 1;
            return self.send_through(forward, client, payload, out);
        }
        if let Err(why) = admit_destination(&self.config, packet.destination) {
            return self.refuse_destination(packet, out.quote, why);
        }
        if let Some(&forward) = self.targets.get(&guest)
            && let Some(to) = self.reachable_through(forward, remote)
        {
            return self.send_through(forward, to, payload, out);
        }
        let key = Key { protocol: Protocol::Udp, guest, remote: None };
        let id = match self.table.find(&key) {
            Some(id) => id,
            None => match self.open_udp(key, packet) {
                Ok(id) => id,
                Err(room) => {
                    self.tell(packet, Icmp::Prohibited, out.quote);
                    return self.refuse(room, packet.mac);
                }
            },
        };
        let Some(flow) = self.table.get_mut(id) else { return Taken::Refused };
        flow.used = now;
        flow.mac = packet.mac;
        let Body::Udp(udp) = &mut flow.body else { return Taken::Refused };
        udp.sent = now;
        udp.remember(remote);
        udp.prepare(packet);
        if out.segment.is_none() {
            let mut batch = Batch::new(id, guest, remote, *packet, std::mem::take(&mut self.spare));
            batch.quote.extend_from_slice(out.quote);
            batch.add(payload, out.frame);
            self.batch = Some(batch);
            return Taken::Held;
        }
        flow.packets += 1;
        flow.bytes += len as u64;
        self.send_own(id, remote, payload, out)
    }

    /// `None`: worth another try.
    pub(super) fn send_failed(&mut self, error: io::Error, out: &Outbound<'_>) -> Option<Taken> {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                self.counters.dropped_socket_full += 1;
                Some(Taken::Full)
            }
            Some(errno @ (libc::EACCES | libc::EPERM | libc::EINVAL)) => {
                self.counters.dropped_socket_error += 1;
                if errno != libc::EINVAL {
                    self.tell(out.packet, Icmp::Prohibited, out.quote);
                }
                Some(Taken::Refused)
            }
            _ => None,
        }
    }

    fn send_through(
        &mut self,
        forward: u32,
        to: SocketAddr,
        payload: [&[u8]; 2],
        out: &Outbound<'_>,
    ) -> Taken {
        let Some(Some(slot)) = self.forwards.get(forward as usize) else { return Taken::Refused };
        // An error of an earlier packet is told once and clears itself.
        let sent = send(slot.socket.as_fd(), payload, to, out.segment)
            .or_else(|_| send(slot.socket.as_fd(), payload, to, out.segment));
        match sent {
            Ok(()) => Taken::Accepted,
            Err(error) => self.send_failed(error, out).unwrap_or_else(|| {
                self.counters.dropped_socket_error += 1;
                Taken::Refused
            }),
        }
    }

    /// The address as the forward's socket wants it, if it is of a family that it can reach.
    fn reachable_through(&self, forward: u32, remote: SocketAddr) -> Option<SocketAddr> {
        let listen = self.forwards.get(forward as usize)?.as_ref()?.forward.listen;
        match (listen.ip(), remote.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(remote),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(v4)) => {
                Some(SocketAddr::new(v4.to_ipv6_mapped().into(), remote.port()))
            }
            _ => None,
        }
    }

    fn open_udp(&mut self, key: Key, packet: &Packet) -> Result<FlowId, Room> {
        self.room_for(packet.guest)?;
        let v6 = packet.source.is_ipv6();
        let made = socket::datagram(v6).and_then(|fd| {
            if v6 {
                socket::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
                // Fragments are made by the guest, if at all.
                socket::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
            } else {
                socket::set(&fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
            }
            // Older kernels give the datagrams one by one.
            let _ = socket::set(&fd, libc::SOL_UDP, libc::UDP_GRO, 1);
            let id = self.table.reserve();
            self.watch(&fd, super::token(id), false)?;
            Ok(fd)
        });
        let fd = made.map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Room::Descriptors,
            _ => Room::Socket,
        })?;
        self.note_guest(packet);
        Ok(self.add_udp(key, packet.guest, packet.mac, UdpFlow::new(Via::Own(fd), self.now)))
    }

    pub(super) fn add_udp(&mut self, key: Key, owner: u32, mac: MacAddr, udp: UdpFlow) -> FlowId {
        let id = self.table.insert(Flow {
            key,
            owner,
            mac,
            body: Body::Udp(Box::new(udp)),
            used: self.now,
            packets: 0,
            bytes: 0,
            queued: false,
        });
        self.counters.opened += 1;
        self.wheel.set(id.index, self.now + self.config.limits.udp.as_nanos() as u64);
        id
    }

    pub(super) fn udp_timer(&mut self, id: FlowId) {
        let Some(Flow { body: Body::Udp(udp), .. }) = self.table.get_mut(id) else { return };
        let until = udp.sent + self.config.limits.udp.as_nanos() as u64;
        if self.now >= until {
            self.table.remove(id);
            self.counters.closed += 1;
        } else {
            self.wheel.set(id.index, until);
        }
    }

    /// Receives datagrams of a mapping. True when there may be more.
    pub(super) fn serve_udp(
        &mut self,
        id: FlowId,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut Filled,
    ) -> bool {
        let Some(Flow { body: Body::Udp(udp), key, .. }) = self.table.get(id) else { return false };
        let Via::Own(fd) = &udp.via else { return false };
        let v6 = key.guest.is_ipv6();
        let before = HEAD_MAX - packet::headers(v6, PROTOCOL_UDP);
        let want = (frames.len() - filled.frames).min(BATCH);
        if want == 0 {
            return true;
        }
        let first = filled.frames;
        let landings = arena.landings(first, before).take(want);
        let count = match socket::receive_from(fd, landings, &mut self.datagrams) {
            Ok(count) => count,
            // An error is one of an earlier packet, told once: what lies behind it is still to be had.
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        };
        for index in 0..count {
            let datagram = self.datagrams[index];
            let Some(Flow { body: Body::Udp(udp), key, mac, .. }) = self.table.get(id) else { return false };
            let (mac, guest) = (*mac, key.guest);
            let Some(from) = datagram.from.filter(|_| !datagram.truncated) else {
                self.counters.dropped_inbound += 1;
                continue;
            };
            let open = self.config.filtering == Filtering::EndpointIndependent || udp.lets_in(from);
            if !open && !self.is_hairpin(id, from) {
                self.counters.dropped_filtered += 1;
                continue;
            }
            let ends = Ends { from_mac: self.config.gateway_mac, to_mac: mac, from, to: guest };
            self.deliver(&ends, datagram, first + index, frames, arena, filled);
            if let Some(flow) = self.table.get_mut(id) {
                flow.used = self.now;
                flow.packets += 1;
                flow.bytes += datagram.len as u64;
            }
        }
        count == want
    }

    /// Whether this is another mapping's outside end. If so, it is let in from now on.
    fn is_hairpin(&mut self, id: FlowId, from: SocketAddr) -> bool {
        let Some(&other) = self.outside.get(&(from.is_ipv6(), from.port())) else { return false };
        let Some(Flow { body: Body::Udp(there), .. }) = self.table.get(other) else { return false };
        if there.outside != Some(from.port()) || !is_of_host(from) {
            return false;
        }
        if let Some(Flow { body: Body::Udp(udp), .. }) = self.table.get_mut(id) {
            udp.remember(from);
        }
        true
    }

    /// Makes a frame of a datagram that landed in `slot`; one too long for the segment is cut.
    pub(super) fn deliver(
        &mut self,
        ends: &Ends,
        datagram: Datagram,
        slot: usize,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut Filled,
    ) {
        let headers = packet::headers(ends.from.is_ipv6(), PROTOCOL_UDP);
        let mtu = usize::from(self.config.mtu);
        let len = datagram.len;
        let segment = datagram.segment.map_or(len, usize::from).min(len);
        self.counters.bytes_in += len as u64;
        if segment + headers - packet::ETHERNET <= mtu && len + headers <= super::FRAME_BYTES {
            let frame = &mut frames[filled.frames];
            packet::udp(frame, arena, slot, ends, len, datagram.segment);
            filled.add(frame.len());
            return;
        }
        let landing = arena.landing(slot, HEAD_MAX - headers);
        for piece in landing[..len].chunks(segment.max(1)) {
            let mut header = [0; UDP];
            packet::write_udp(&mut header, ends, UDP + piece.len());
            let sum = switchd_wire::checksum::Sum::new().over(&header).over(piece).checksum();
            // 0 would mean that there is none (RFC 768).
            let sum = if sum == 0 { 0xffff } else { sum };
            header[6..8].copy_from_slice(&sum.to_be_bytes());
            if self.answers.whole_or_cut(ends, PROTOCOL_UDP, &[&header, piece], mtu) {
                self.counters.fragmented += 1;
            }
        }
    }

    /// Tells the guest what the error queue of its mapping holds. Returns how many it was told.
    pub(super) fn udp_errors(&mut self, id: FlowId) -> usize {
        let mut told = 0;
        let mut buffer = [0; 1280];
        for _ in 0..ERRORS {
            let Some(Flow { body: Body::Udp(udp), key, mac, owner, .. }) = self.table.get(id) else { break };
            let Via::Own(fd) = &udp.via else { break };
            let Ok(error) = socket::receive_error(fd, &mut buffer) else { break };
            let Some(to) = error.to else { continue };
            let (guest, whom) = (key.guest, (*mac, *owner));
            let payload = &buffer[..error.len];
            let quoted = quotation(guest, to, payload);
            told += usize::from(self.pass_error(&error, guest, whom, &quoted));
        }
        told
    }
}

/// A datagram that a guest sent, from its IP header on, made again.
pub(super) fn quotation(guest: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::with_capacity(UDP + payload.len());
    l4.extend_from_slice(&guest.port().to_be_bytes());
    l4.extend_from_slice(&to.port().to_be_bytes());
    l4.extend_from_slice(&((UDP + payload.len()) as u16).to_be_bytes());
    l4.extend_from_slice(&[0, 0]);
    l4.extend_from_slice(payload);
    Answers::quotation(guest, to, PROTOCOL_UDP, &l4)
}

/// Whether the host holds this address: only then its stack would also send from it.
fn is_of_host(address: SocketAddr) -> bool {
    let Ok(fd) = socket::datagram(address.is_ipv6()) else { return false };
    rustix::net::connect(&fd, &address).is_ok()
        && super::local_address(&fd).is_some_and(|local| local.ip() == address.ip())
}

/// Sends a datagram, or several; piece by piece where the kernel does not cut this.
pub(super) fn send(
    fd: BorrowedFd<'_>,
    payload: [&[u8]; 2],
    to: SocketAddr,
    segment: Option<u16>,
) -> io::Result<()> {
    let options = SendOptions { segment, ttl: None };
    let result = socket::send_to(fd, payload, to, options);
    let (Some(size), Err(error)) = (segment, &result) else { return result.map(drop) };
    if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) {
        return result.map(drop);
    }
    let whole = payload[0].len() + payload[1].len();
    let mut at = 0;
    while at < whole {
        let end = (at + usize::from(size)).min(whole);
        let middle = payload[0].len();
        let first = &payload[0][at.min(middle)..end.min(middle)];
        let second = &payload[1][at.saturating_sub(middle)..end.saturating_sub(middle)];
        let parts = if first.is_empty() { [second, &[][..]] } else { [first, second] };
        socket::send_to(fd, parts, to, SendOptions::default())?;
        at = end;
    }
    Ok(())
}
