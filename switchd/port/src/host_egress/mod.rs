//! Egress host: guests' packets out through the host's own sockets, and back.
//!
//! The device behind the gateway of a NAT network whose egress is the host. A frame that the worker sends
//! to it is parsed, and its payload handed to a socket from where it lies, in the same call: there is no
//! queue towards the host. (Datagrams that can leave together do so at the end of the burst: see `batch`.) What sockets give becomes frames when the worker receives. No privilege is
//! needed, no address and no route of the host's changes.
//!
//! **Readiness.** All sockets are in one epoll set, which is the descriptor that the worker watches. They are
//! registered edge-triggered, once, and never touched again (but for the end); an event puts its flow into
//! the list of flows to serve, and a flow leaves that list only when its socket said that there is no more,
//! or when the guest's window is closed, whose opening puts it back. So nothing is lost when the worker's own
//! poll is edge-triggered too: [`crate::Received::more`] stands while the list is not empty. Answers to what was
//! just sent (acknowledgements, resets, ICMP errors) need no event: [`crate::Port::pending`] tells the worker.
//!
//! **Time** is read once in a burst; timers are a wheel behind a timerfd in the same set.
//!
//! **Bounds.** Flows in all and by guest (and by the descriptors of the process), fragments, answers; each
//! with its counter. What a connection holds is in the kernel's socket buffers, under the kernel's limits.
//! A new flow that finds no room is refused with RST or ICMP "administratively prohibited".
//!
//! **The gateway's own address, the host's loopback, link-local, multicast and the segment itself** are not
//! reachable through here: see `config`.
//!
//! What it asks of others: `connect` and socket calls in the sandbox, no more; listening sockets and ICMP
//! sockets come from the broker. A frame for a guest that never sent anything through the engine (a forward's
//! target) has the destination address zero: the gateway looks it up in its neighbour table.
//!
//! Left out: TCP fragments, protocols other than TCP, UDP and ICMP echo, IP options, IGMP and MLD.

mod answers;
mod batch;
pub mod config;
pub mod counters;
mod drive;
mod forward;
mod fragment;
mod icmp;
mod limiter;
mod packet;
mod setup;
mod splice;
mod table;
pub mod tcp;
mod udp;
mod wheel;

pub use config::{
    Filtering, Forward, HostEgressChange, HostEgressConfig, Limits, Proto, Subnet4, Subnet6, listen,
    open_icmp,
};
pub use counters::{HostEgressCounters, HostEgressNotice, HostFlow};

use crate::sys::socket::{BATCH, Datagram};
use crate::{Arena, Decline, Flushed};
use answers::{Answers, Icmp};
use batch::{Batch, Spare};
use forward::ForwardSlot;
use fragment::{Fragments, Reassembly};
use hashbrown::HashMap;
use icmp::Echo;
use limiter::Limiter;
use packet::{BadPacket, PROTOCOL_ICMP, PROTOCOL_ICMP6, Packet};
use rustix::event::epoll::EventFlags;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;
use switchd_wire::frame::FRAME_MAX;
use switchd_wire::parse::{PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::{Frame, Gso, MacAddr};
use table::{Body, FlowId, Table};
use udp::Outbound;
use wheel::Wheel;

/// As for taps: a burst's superframes are to be sent while they are in the cache.
const BYTE_BUDGET: usize = 256 * 1024;
/// Longest frame that is made: longer datagrams go out in fragments.
const FRAME_BYTES: usize = FRAME_MAX - 8;

/// Marks in the data of an epoll event: flows leave the highest bit free.
const TIMER: u64 = 1 << 63;
const FORWARD: u64 = 1 << 63 | 1 << 62;
const ECHO: u64 = 1 << 63 | 1 << 61;

fn token(id: FlowId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

fn forward_token(index: u32) -> u64 {
    FORWARD | u64::from(index)
}

/// Something that has frames to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    Flow(FlowId),
    Forward(u32),
    Echo(bool),
}

/// What became of a guest's packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Accepted,
    /// Counted when its batch is sent.
    Held,
    Full,
    Declined(Decline),
    /// By the host's stack.
    Refused,
}

/// Why a flow was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    Full,
    Quota,
    Descriptors,
    Socket,
}

/// How much of a burst is in use.
#[derive(Default)]
struct Filled {
    frames: usize,
    bytes: usize,
}

impl Filled {
    fn is_full(&self, frames: &[Frame]) -> bool {
        self.frames >= frames.len() || self.bytes >= BYTE_BUDGET
    }

    fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }
}

pub struct HostEgress {
    config: HostEgressConfig,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// When the timer rings.
    armed: Option<u64>,
    started: Instant,
    now: u64,
    /// The clock was read in this burst.
    awake: bool,
    table: Table,
    wheel: Wheel,
    ready: VecDeque<Item>,
    answers: Answers,
    errors: Limiter,
    echoes: Limiter,
    fragments: Fragments,
    forwards: Vec<Option<ForwardSlot>>,
    /// Targets of UDP forwards: what they send goes out by the forward's port.
    targets: HashMap<SocketAddr, u32, foldhash::quality::RandomState>,
    /// UDP mappings by family (IPv6?) and outside port; some may be gone.
    outside: HashMap<(bool, u16), FlowId, foldhash::quality::RandomState>,
    /// Clients of UDP forwards.
    clients: HashMap<(u32, SocketAddr), (FlowId, SocketAddr), foldhash::quality::RandomState>,
    /// Guests seen, for forwards.
    guests: HashMap<IpAddr, (MacAddr, u32), foldhash::quality::RandomState>,
    /// ICMP sockets, IPv4 and IPv6.
    echo: [Option<Echo>; 2],
    counters: HostEgressCounters,
    notices: Vec<HostEgressNotice>,
    /// When each kind of notice was told last.
    told: [Option<u64>; 3],
    secret: std::hash::RandomState,
    /// A forward could not accept for want of descriptors.
    starved: bool,
    /// Flows that the process's descriptors allow.
    descriptors: u64,
    /// Datagrams that leave together at the end of the burst at the latest.
    batch: Option<Batch>,
    spare: Spare,
    flushed: Flushed,
    due: Vec<u32>,
    datagrams: Box<[Datagram; BATCH]>,
}

impl HostEgress {
    fn wake_clock(&mut self) {
        if !self.awake {
            self.awake = true;
            self.now = self.started.elapsed().as_nanos() as u64;
        }
    }

    /// Puts a flow into the list of those to serve.
    fn wake(&mut self, id: FlowId) {
        if let Some(flow) = self.table.get_mut(id)
            && !flow.queued
        {
            flow.queued = true;
            self.ready.push_back(Item::Flow(id));
        }
    }

    fn take(&mut self, frame: &Frame, arena: &Arena) -> Taken {
        let packet = match Packet::parse(frame).and_then(|packet| {
            if !matches!(packet.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_ICMP | PROTOCOL_ICMP6) {
                return Err(BadPacket::Protocol);
            }
            if packet.fragment.is_none() {
                packet.verify(frame, arena)?;
            }
            Ok(packet)
        }) {
            Ok(packet) => packet,
            Err(bad) => {
                return self.decline(match bad {
                    BadPacket::Protocol => Decline::Protocol,
                    BadPacket::Malformed | BadPacket::Stale => Decline::Malformed,
                    BadPacket::Checksum => Decline::Checksum,
                });
            }
        };
        if !self.is_guest(packet.source) {
            return self.decline(Decline::Source);
        }
        // RFC 1812 5.3.1: we are the router of these packets.
        if packet.ttl <= 1 && !self.is_gateway(packet.destination) {
            let exceeded = if packet.source.is_ipv6() { Icmp::Raw(3, 0, 0) } else { Icmp::Raw(11, 0, 0) };
            self.tell(&packet, exceeded, packet.quote(frame));
            return self.decline(Decline::TtlExceeded);
        }
        let packet = Packet { ttl: packet.ttl.saturating_sub(1).max(1), ..packet };
        if let Some(piece) = packet.fragment {
            return self.take_fragment(&packet, piece, frame, arena);
        }
        if packet.protocol == PROTOCOL_TCP {
            return self.take_tcp(&packet, frame, arena);
        }
        let Ok(parts) = packet.parts(frame, arena, 0) else { return self.decline(Decline::Malformed) };
        let segment = (frame.vnet.gso == Gso::UdpL4).then_some(frame.vnet.gso_size);
        self.take_datagram(&packet, parts, packet.quote(frame), segment, frame.len() as u64)
    }

    fn take_datagram(
        &mut self,
        packet: &Packet,
        parts: [&[u8]; 2],
        quote: &[u8],
        segment: Option<u16>,
        frame: u64,
    ) -> Taken {
        match (packet.protocol, packet.source.is_ipv6()) {
            (PROTOCOL_UDP, _) => self.take_udp(&Outbound { packet, parts, quote, segment, frame }),
            (PROTOCOL_ICMP, false) | (PROTOCOL_ICMP6, true) => self.take_icmp(packet, parts, quote),
            _ => self.decline(Decline::Protocol),
        }
    }

    /// Counts what goes no further for a reason of ours.
    fn decline(&mut self, why: Decline) -> Taken {
        let counters = &mut self.counters;
        match why {
            Decline::Malformed => counters.dropped_malformed += 1,
            Decline::Checksum => counters.dropped_checksum += 1,
            Decline::Protocol => counters.dropped_protocol += 1,
            Decline::IcmpKind => counters.dropped_icmp += 1,
            Decline::Source => counters.refused_source += 1,
            Decline::Destination => counters.refused_destination += 1,
            Decline::Group => counters.dropped_group += 1,
            Decline::TtlExceeded => counters.ttl_exceeded += 1,
            Decline::NoFlow => counters.dropped_no_flow += 1,
            Decline::Full => counters.refused_full += 1,
            Decline::Quota => counters.refused_quota += 1,
            Decline::Descriptors => counters.refused_descriptors += 1,
            Decline::Socket => counters.refused_socket += 1,
            Decline::Fragment => counters.dropped_fragments += 1,
            Decline::EchoRate => counters.dropped_echo_rate += 1,
        }
        Taken::Declined(why)
    }

    fn take_fragment(
        &mut self,
        packet: &Packet,
        piece: packet::Piece,
        frame: &Frame,
        arena: &Arena,
    ) -> Taken {
        let wanted = matches!(packet.protocol, PROTOCOL_UDP | PROTOCOL_ICMP | PROTOCOL_ICMP6);
        let Ok(parts) = packet.parts(frame, arena, 0) else { return self.decline(Decline::Malformed) };
        if !wanted {
            return self.decline(Decline::Fragment);
        }
        let first_wait = self.fragments.oldest().is_none();
        let whole = self.fragments.take(self.now, packet, piece, parts);
        if first_wait && self.fragments.oldest().is_some() {
            self.arm();
        }
        let mut whole = match whole {
            Reassembly::Whole(whole) => whole,
            Reassembly::Waits => return Taken::Accepted,
            Reassembly::Dropped => return Taken::Declined(Decline::Fragment),
        };
        if packet.protocol == PROTOCOL_UDP {
            match packet::datagram(&whole, whole.len()) {
                Some(len) => whole.truncate(len),
                None => return self.decline(Decline::Malformed),
            }
        }
        let packet = Packet { fragment: None, len: whole.len(), ..*packet };
        let sum = match packet.protocol {
            PROTOCOL_ICMP => switchd_wire::checksum::Sum::new(),
            protocol => packet::pseudo(packet.source, packet.destination, protocol, whole.len()),
        };
        let none =
            packet.protocol == PROTOCOL_UDP && packet.source.is_ipv4() && whole.get(6..8) == Some(&[0, 0]);
        if !none && sum.over(&whole).checksum() != 0 {
            return self.decline(Decline::Checksum);
        }
        self.counters.reassembled += 1;
        let end = |address| SocketAddr::new(address, 0);
        let quote = Answers::quotation(
            end(packet.source),
            end(packet.destination),
            packet.protocol,
            &whole[..whole.len().min(1280)],
        );
        self.take_datagram(&packet, [&whole, &[]], &quote, None, frame.len() as u64)
    }

    fn event(&mut self, data: u64, flags: EventFlags) {
        if data & TIMER == 0 {
            let id = FlowId { index: data as u32, generation: (data >> 32) as u32 };
            let Some(flow) = self.table.get_mut(id) else { return };
            match &mut flow.body {
                Body::Tcp(tcp) => {
                    let socket = &tcp.socket;
                    let error = || crate::sys::socket::take_error(socket.as_ref()?.as_fd());
                    let verdict = tcp.conn.ready(self.now, splice::readiness(flags), error);
                    self.carry_out(id, verdict);
                }
                Body::Udp(_) => {
                    if flags.contains(EventFlags::ERR) {
                        self.udp_errors(id);
                    }
                    self.wake(id);
                }
                Body::Icmp(_) => {}
            }
        } else if data & FORWARD == FORWARD {
            self.forward_ready(data as u32);
        } else if data & ECHO == ECHO {
            let v6 = data & 1 != 0;
            if flags.contains(EventFlags::ERR) {
                self.echo_errors(v6);
            }
            if !self.ready.contains(&Item::Echo(v6)) {
                self.ready.push_back(Item::Echo(v6));
            }
        } else {
            self.armed = None;
        }
    }
}

fn local_address(fd: impl AsFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(fd).ok()?).ok()
}
