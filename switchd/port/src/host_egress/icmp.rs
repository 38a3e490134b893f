//! Echo requests, through one ICMP socket for each family, and ICMP errors to guests.
//!
//! The socket comes from the broker (see [`super::open_icmp`]). All guests share it and its identifier:
//! each request gets a sequence number of ours, and a ring of [`RING`] entries leads from the answer back to
//! the guest's own identifier and number. An entry is overwritten after as many further requests; an answer
//! that comes later than the ICMP timeout (RFC 5508 3.2) finds none. A guest's identifier and destination
//! make a flow, which counts in its quota.

use super::answers::Icmp;
use super::config::{Unreachable, admit_destination};
use super::packet::{Ends, PROTOCOL_ICMP, PROTOCOL_ICMP6, Packet};
use super::table::{Body, Flow, FlowId, Key, Protocol};
use super::{HostEgress, Room, Taken};
use crate::Decline;
use crate::sys::socket::{self, BATCH, QueuedError, SendOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use switchd_wire::MacAddr;
use switchd_wire::checksum::Sum;

/// One for each sequence number.
const RING: usize = 1 << 16;
const HEADER: usize = 8;
/// Calls of the kernel in one turn, each for as many answers as there are buffers.
const ROUNDS: usize = 16;
/// The longest reply that is taken.
const REPLY_MAX: usize = 65_535;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST6: u8 = 128;
const ECHO_REPLY6: u8 = 129;

#[derive(Clone, Copy, Default)]
pub struct IcmpFlow {
    /// Last request of the guest.
    pub sent: u64,
}

/// Whose request was answered.
struct Asker {
    key: Key,
    mac: MacAddr,
    guest: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    flow: FlowId,
    number: u16,
    at: u64,
}

pub struct Echo {
    pub socket: OwnedFd,
    /// A raw socket: identifier and (IPv4) checksum are ours to write.
    raw: bool,
    ident: u16,
    next: u16,
    /// As long as the highest number used.
    ring: Vec<Option<Entry>>,
    buffers: Vec<Vec<u8>>,
}

impl Echo {
    pub fn new(socket: OwnedFd, ident: u16) -> io::Result<Echo> {
        let raw = rustix::net::sockopt::socket_type(&socket)? == rustix::net::SocketType::RAW;
        let v6 = super::local_address(&socket).is_some_and(|address| address.is_ipv6());
        // The errors of those requests go on to the guests.
        if v6 {
            socket::set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        } else {
            socket::set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        }
        Ok(Echo { socket, raw, ident, next: 0, ring: Vec::new(), buffers: vec![vec![0; REPLY_MAX]; 2] })
    }

    fn assign(&mut self, entry: Entry) -> u16 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let at = usize::from(number);
        if at >= self.ring.len() {
            self.ring.resize((at + 1).next_power_of_two().min(RING), None);
        }
        self.ring[at] = Some(entry);
        number
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl HostEgress {
    /// A guest's ICMP message. Errors of guests concern packets that we vouch for, and end here.
    pub(super) fn take_icmp(&mut self, packet: &Packet, parts: [&[u8]; 2], quote: &[u8]) -> Taken {
        let v6 = packet.source.is_ipv6();
        let Some(header) = parts[0].first_chunk::<HEADER>() else {
            return self.decline(Decline::Malformed);
        };
        if header[0] != if v6 { ECHO_REQUEST6 } else { ECHO_REQUEST } {
            return self.decline(Decline::IcmpKind);
        }
        if let Err(why) = admit_destination(&self.config, packet.destination) {
            return self.refuse_destination(packet, quote, why);
        }
        if self.echo[usize::from(v6)].is_none() {
            self.tell(packet, Icmp::Prohibited, quote);
            return self.decline(Decline::Socket);
        }
        if !self.echoes.take(self.now, packet.guest) {
            return self.decline(Decline::EchoRate);
        }
        let key = Key {
            protocol: Protocol::Icmp,
            guest: SocketAddr::new(packet.source, word(header, 4)),
            remote: Some(SocketAddr::new(packet.destination, 0)),
        };
        let id = match self.table.find(&key) {
            Some(id) => id,
            None => match self.open_icmp_flow(key, packet) {
                Ok(id) => id,
                Err(room) => {
                    self.tell(packet, Icmp::Prohibited, quote);
                    return self.refuse(room, packet.mac);
                }
            },
        };
        let now = self.now;
        if let Some(flow) = self.table.get_mut(id) {
            flow.used = now;
            flow.mac = packet.mac;
            flow.packets += 1;
            flow.bytes += (parts[0].len() + parts[1].len()) as u64;
            flow.body = Body::Icmp(IcmpFlow { sent: now });
        }
        let Some(echo) = &mut self.echo[usize::from(v6)] else { return Taken::Refused };
        let number = echo.assign(Entry { flow: id, number: word(header, 6), at: now });
        // The kernel writes identifier and checksum of a ping socket, and the checksum of ICMPv6.
        let mut first = parts[0].to_vec();
        first[2..4].fill(0);
        first[4..6].copy_from_slice(&echo.ident.to_be_bytes());
        first[6..8].copy_from_slice(&number.to_be_bytes());
        if echo.raw && !v6 {
            let sum = Sum::new().over(&first).over(parts[1]).checksum();
            first[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let options = SendOptions { segment: None, ttl: Some(packet.ttl.max(1)) };
        let to = SocketAddr::new(packet.destination, 0);
        for again in [true, false] {
            let Some(echo) = &self.echo[usize::from(v6)] else { break };
            match socket::send_to(&echo.socket, [&first, parts[1]], to, options) {
                Ok(_) => return Taken::Accepted,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => {
                    self.counters.dropped_socket_full += 1;
                    return Taken::Full;
                }
                Err(_) if again => self.echo_errors(v6),
                Err(error) => {
                    self.counters.dropped_socket_error += 1;
                    if let Some(icmp) = Icmp::of_errno(error.raw_os_error().unwrap_or(0)) {
                        self.tell(packet, icmp, quote);
                    }
                }
            }
        }
        Taken::Refused
    }

    fn open_icmp_flow(&mut self, key: Key, packet: &Packet) -> Result<FlowId, Room> {
        self.room_for(packet.guest)?;
        self.note_guest(packet);
        let id = self.table.insert(Flow {
            key,
            owner: packet.guest,
            mac: packet.mac,
            body: Body::Icmp(IcmpFlow { sent: self.now }),
            used: self.now,
            packets: 0,
            bytes: 0,
            queued: false,
        });
        self.counters.opened += 1;
        self.wheel.set(id.index, self.now + self.config.limits.icmp.as_nanos() as u64);
        Ok(id)
    }

    pub(super) fn icmp_timer(&mut self, id: FlowId) {
        let Some(Flow { body: Body::Icmp(icmp), .. }) = self.table.get(id) else { return };
        let until = icmp.sent + self.config.limits.icmp.as_nanos() as u64;
        if self.now >= until {
            self.table.remove(id);
            self.counters.closed += 1;
        } else {
            self.wheel.set(id.index, until);
        }
    }

    /// Turns answers into frames for the guests. True when there may be more. All guests' answers are in one
    /// queue of the kernel's, so one that floods is kept up with for the sake of the others.
    pub(super) fn serve_echo(&mut self, v6: bool) -> bool {
        (0..ROUNDS).all(|_| self.receive_echoes(v6))
    }

    fn receive_echoes(&mut self, v6: bool) -> bool {
        let Some(echo) = &mut self.echo[usize::from(v6)] else { return false };
        let mut buffers = std::mem::take(&mut echo.buffers);
        let want = buffers.len().min(BATCH);
        let landings = buffers.iter_mut().map(|buffer| &mut buffer[..]);
        let (count, again) = match socket::receive_from(&echo.socket, landings, &mut self.datagrams) {
            Ok(count) => (count, count == want),
            // An error is one of an earlier packet, told once.
            Err(error) => (0, error.kind() != io::ErrorKind::WouldBlock),
        };
        for (index, buffer) in buffers.iter().enumerate().take(count) {
            let datagram = self.datagrams[index];
            if let Some(from) = datagram.from.filter(|_| !datagram.truncated) {
                self.echo_reply(v6, from.ip(), &buffer[..datagram.len]);
            } else {
                self.counters.dropped_inbound += 1;
            }
        }
        if let Some(echo) = &mut self.echo[usize::from(v6)] {
            echo.buffers = buffers;
        }
        again
    }

    fn echo_reply(&mut self, v6: bool, from: IpAddr, bytes: &[u8]) {
        let Some(echo) = &self.echo[usize::from(v6)] else { return };
        // A raw IPv4 socket gives the IP header too.
        let skip =
            if echo.raw && !v6 { bytes.first().map_or(0, |byte| usize::from(byte & 0xf) * 4) } else { 0 };
        let reply = if v6 { ECHO_REPLY6 } else { ECHO_REPLY };
        let message = bytes.get(skip..).filter(|message| message.len() >= HEADER && message[0] == reply);
        let ours = |message: &&[u8]| !echo.raw || word(message, 4) == echo.ident;
        let Some((message, (flow, number))) = message
            .filter(ours)
            .and_then(|message| Some((message, self.expected(v6, word(message, 6), Some(from))?)))
        else {
            self.counters.dropped_inbound += 1;
            return;
        };
        let Asker { key, mac, .. } = flow;
        let mut answer = message.to_vec();
        answer[2..4].fill(0);
        answer[4..6].copy_from_slice(&key.guest.port().to_be_bytes());
        answer[6..8].copy_from_slice(&number.to_be_bytes());
        let ends = Ends {
            from_mac: self.config.gateway_mac,
            to_mac: mac,
            from: SocketAddr::new(from, 0),
            to: key.guest,
        };
        let protocol = if v6 { PROTOCOL_ICMP6 } else { PROTOCOL_ICMP };
        self.counters.bytes_in += answer.len() as u64;
        if self.answers.icmp(&ends, protocol, answer, usize::from(self.config.mtu)) {
            self.counters.fragmented += 1;
        }
    }

    /// Whose request had this number: key and MAC of the flow, and the guest's own number.
    fn expected(&mut self, v6: bool, number: u16, from: Option<IpAddr>) -> Option<(Asker, u16)> {
        let entry = (*self.echo[usize::from(v6)].as_ref()?.ring.get(usize::from(number))?)?;
        if self.now > entry.at + self.config.limits.icmp.as_nanos() as u64 {
            return None;
        }
        let flow = self.table.get_mut(entry.flow)?;
        if from.is_some_and(|from| flow.key.remote.map(|remote| remote.ip()) != Some(from)) {
            return None;
        }
        flow.used = self.now;
        flow.packets += 1;
        Some((Asker { key: flow.key, mac: flow.mac, guest: flow.owner }, entry.number))
    }

    /// Tells guests what the error queue of the ICMP socket holds.
    pub(super) fn echo_errors(&mut self, v6: bool) {
        let mut buffer = [0; 1280];
        for _ in 0..32 {
            let Some(echo) = &self.echo[usize::from(v6)] else { return };
            let Ok(error) = socket::receive_error(&echo.socket, &mut buffer) else { return };
            let (len, to) = (error.len, error.to.map(|to| to.ip()));
            if len < HEADER {
                continue;
            }
            let Some((Asker { key, mac, guest }, number)) = self.expected(v6, word(&buffer, 6), to) else {
                continue;
            };
            let Some(remote) = key.remote else { continue };
            let message = &mut buffer[..len];
            message[4..6].copy_from_slice(&key.guest.port().to_be_bytes());
            message[6..8].copy_from_slice(&number.to_be_bytes());
            let protocol = if v6 { PROTOCOL_ICMP6 } else { PROTOCOL_ICMP };
            let quoted = super::answers::Answers::quotation(key.guest, remote, protocol, message);
            self.pass_error(&error, key.guest, (mac, guest), &quoted);
        }
    }

    /// An error of the network or of the host's stack, for the guest whose packet is quoted. Whether it was
    /// told.
    pub(super) fn pass_error(
        &mut self,
        error: &QueuedError,
        to: SocketAddr,
        (mac, guest): (MacAddr, u32),
        quoted: &[u8],
    ) -> bool {
        const LOCAL: u8 = 1;
        const ICMP: u8 = 2;
        const ICMP6: u8 = 3;
        let v6 = to.is_ipv6();
        let icmp = match (error.origin, error.kind, error.code) {
            (LOCAL, ..) if error.errno == libc::EMSGSIZE => Icmp::TooBig(error.info),
            (LOCAL, ..) => match Icmp::of_errno(error.errno) {
                Some(icmp) => icmp,
                None => return false,
            },
            (ICMP, 3, 4) if !v6 => Icmp::TooBig(error.info),
            (ICMP, kind, code) if !v6 => Icmp::Raw(kind, code, 0),
            (ICMP6, 2, _) if v6 => Icmp::TooBig(error.info),
            (ICMP6, kind, code) if v6 => Icmp::Raw(kind, code, 0),
            _ => return false,
        };
        // Who says so: what the guest may see of the outside, else the gateway.
        let seen = error.offender.filter(|&offender| {
            offender.is_ipv6() == v6 && admit_destination(&self.config, offender).is_ok()
        });
        let gateway = self.gateway_end(v6);
        let from = seen.map_or(gateway, |offender| SocketAddr::new(offender, 0));
        let ends = Ends { from_mac: self.config.gateway_mac, to_mac: mac, from, to };
        self.say(guest, &ends, icmp, quoted);
        true
    }

    /// An ICMP error to a guest, unless it has had too many.
    pub(super) fn say(&mut self, guest: u32, ends: &Ends, icmp: Icmp, quoted: &[u8]) {
        if self.errors.take(self.now, guest) {
            self.counters.icmp_errors += 1;
            self.answers.icmp_error(ends, icmp, quoted);
        } else {
            self.counters.icmp_limited += 1;
        }
    }

    /// An ICMP error of the gateway about a guest's packet.
    pub(super) fn tell(&mut self, packet: &Packet, icmp: Icmp, quoted: &[u8]) {
        let ends = Ends {
            from_mac: self.config.gateway_mac,
            to_mac: packet.mac,
            from: self.gateway_end(packet.source.is_ipv6()),
            to: SocketAddr::new(packet.source, 0),
        };
        self.say(packet.guest, &ends, icmp, quoted);
    }

    pub(super) fn refuse_destination(&mut self, packet: &Packet, quoted: &[u8], why: Unreachable) -> Taken {
        match why {
            Unreachable::Silent => self.decline(Decline::Group),
            Unreachable::Refused => {
                // The gateway is a host that has no such port; what else is refused lies beyond it.
                let own = self.is_gateway(packet.destination);
                self.tell(packet, if own { Icmp::PortUnreachable } else { Icmp::Prohibited }, quoted);
                self.decline(Decline::Destination)
            }
        }
    }

    pub(super) fn gateway_end(&self, v6: bool) -> SocketAddr {
        let v4 = IpAddr::from(self.config.v4.gateway);
        let gateway = match self.config.v6 {
            Some(subnet) if v6 => subnet.gateway.into(),
            _ if v6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => v4,
        };
        debug_assert!(v6 || gateway != IpAddr::from(Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(gateway, 0)
    }
}
