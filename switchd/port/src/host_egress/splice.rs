//! TCP connections between the engine's table, sockets and frames. The machine itself is in `tcp`.

use super::answers::{Answers, Icmp};
use super::config::{Unreachable, admit_destination};
use super::packet::{self, ETHERNET, Ends, IPV4, IPV6, Packet, TCP};
use super::table::{Body, Flow, FlowId, Key, Protocol};
use super::tcp::{ACK, Conn, Emit, End, RST, SYN, Segment, Socket, Tally, TcpFlow, Times, Verdict};
use super::{HostEgress, Room, Taken};
use crate::sys::socket;
use crate::{Arena, Decline};
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use switchd_wire::Frame;
use switchd_wire::checksum::Sum;
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::parse::PROTOCOL_TCP;

/// Bytes of one connection before another one has its turn.
const TURN: usize = 128 * 1024;

impl HostEgress {
    pub(super) fn take_tcp(&mut self, packet: &Packet, frame: &Frame, arena: &Arena) -> Taken {
        let header = &frame.head()[packet.l4..];
        let Some((segment, header_len)) = Segment::parse(header).filter(|&(_, len)| len <= packet.len) else {
            return self.decline(Decline::Malformed);
        };
        let Ok(payload) = packet.parts(frame, arena, header_len) else {
            return self.decline(Decline::Malformed);
        };
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let key = Key {
            protocol: Protocol::Tcp,
            guest: SocketAddr::new(packet.source, port(0)),
            remote: Some(SocketAddr::new(packet.destination, port(2))),
        };
        // At most one connection gives way to a new one of the same addresses.
        for _ in 0..2 {
            let Some(id) = self.table.find(&key) else { break };
            let (now, mut tally) = (self.now, Tally::default());
            let Some(flow) = self.table.get_mut(id) else { break };
            flow.used = now;
            flow.mac = packet.mac;
            flow.packets += 1;
            flow.bytes += packet.len as u64;
            let Body::Tcp(tcp) = &mut flow.body else { break };
            let verdict = match &mut tcp.socket {
                Some(socket) => tcp.conn.segment(now, &segment, payload, socket, &mut tally),
                None => tcp.conn.late(now, &segment),
            };
            self.count(&tally);
            match verdict {
                Verdict::Restart => self.end(id, End::ResetByGuest),
                Verdict::Reject { seq } => {
                    self.reset(packet, &key, Emit { seq, ..REJECTION });
                    return Taken::Accepted;
                }
                verdict => {
                    self.carry_out(id, verdict);
                    return Taken::Accepted;
                }
            }
        }
        if segment.flags & (SYN | ACK | RST) == SYN {
            return self.open_tcp(packet, frame, key, &segment);
        }
        if segment.flags & RST == 0
            && admit_destination(&self.config, packet.destination) != Err(Unreachable::Silent)
        {
            // RFC 9293 3.10.7.1.
            let emit = if segment.flags & ACK != 0 {
                Emit { seq: segment.ack, ..REJECTION }
            } else {
                let len = (payload[0].len() + payload[1].len()) as u32;
                let ack = segment.seq.wrapping_add(len + u32::from(segment.flags & 1));
                Emit { ack, flags: RST | ACK, ..REJECTION }
            };
            self.reset(packet, &key, emit);
        }
        self.decline(Decline::NoFlow)
    }

    pub(super) fn carry_out(&mut self, id: FlowId, verdict: Verdict) {
        match verdict {
            Verdict::Keep | Verdict::Restart | Verdict::Reject { .. } => {
                let flow = self.table.get(id).map(|flow| &flow.body);
                if matches!(flow, Some(Body::Tcp(tcp)) if tcp.conn.wants_turn()) {
                    self.wake(id);
                }
            }
            Verdict::Wait => {
                let bound = self.config.limits.flows;
                if let Some(Flow { body: Body::Tcp(tcp), .. }) = self.table.get_mut(id) {
                    if let Some(mut socket) = tcp.socket.take() {
                        // An error means that the connection is gone already.
                        let _ = tcp.conn.settle(&mut socket);
                    }
                    let deadline = tcp.conn.deadline();
                    if let Some(oldest) = self.table.retire(id, bound) {
                        self.end(oldest, End::Done);
                    }
                    self.wheel.set(id.index, deadline);
                    self.wake(id);
                }
            }
            Verdict::End(end) => self.end(id, end),
        }
    }

    fn open_tcp(&mut self, packet: &Packet, frame: &Frame, key: Key, syn: &Segment) -> Taken {
        let remote = SocketAddr::new(packet.destination, key.remote.map_or(0, |remote| remote.port()));
        if self.is_gateway(packet.destination) {
            self.reset_syn(packet, &key, syn);
            return self.decline(Decline::Destination);
        }
        if let Err(why) = admit_destination(&self.config, packet.destination) {
            return self.refuse_destination(packet, packet.quote(frame), why);
        }
        if let Err(room) = self.room_for(packet.guest) {
            self.reset_syn(packet, &key, syn);
            return self.refuse(room, packet.mac);
        }
        let v6 = packet.source.is_ipv6();
        let fd = match connecting(remote) {
            Ok(fd) => fd,
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    self.reset_syn(packet, &key, syn);
                    return self.refuse(Room::Descriptors, packet.mac);
                }
                self.counters.connect_failed += 1;
                match Icmp::of_errno(error.raw_os_error().unwrap_or(0)) {
                    Some(icmp) => self.tell(packet, icmp, packet.quote(frame)),
                    None => self.reset_syn(packet, &key, syn),
                }
                return Taken::Refused;
            }
        };
        let iss = self.initial_number(&key);
        let conn = Conn::from_guest(self.now, syn, iss, self.our_mss(v6), v6, self.times());
        match self.add_tcp(key, packet.guest, packet.mac, conn, fd, false) {
            Ok(_) => {
                self.note_guest(packet);
                Taken::Accepted
            }
            Err(_) => {
                self.reset_syn(packet, &key, syn);
                self.decline(Decline::Socket)
            }
        }
    }

    pub(super) fn add_tcp(
        &mut self,
        key: Key,
        owner: u32,
        mac: switchd_wire::MacAddr,
        conn: Conn,
        fd: OwnedFd,
        forwarded: bool,
    ) -> io::Result<FlowId> {
        let id = self.table.reserve();
        self.watch(&fd, super::token(id), true)?;
        let deadline = conn.deadline();
        let flow = Flow {
            key,
            owner,
            mac,
            body: Body::Tcp(Box::new(TcpFlow::new(conn, fd, forwarded))),
            used: self.now,
            packets: 1,
            bytes: 0,
            queued: false,
        };
        self.table.insert(flow);
        self.counters.opened += 1;
        self.wheel.set(id.index, deadline);
        Ok(id)
    }

    /// RFC 6528: the clock, and a secret function of the addresses.
    pub(super) fn initial_number(&self, key: &Key) -> u32 {
        use std::hash::BuildHasher;
        (self.secret.hash_one(key) as u32).wrapping_add((self.now / 4000) as u32)
    }

    /// What a guest may send in one segment: the MTU less the smallest headers.
    pub(super) fn our_mss(&self, v6: bool) -> u16 {
        self.config.mtu.saturating_sub((if v6 { IPV6 } else { IPV4 } + TCP) as u16)
    }

    pub(super) fn times(&self) -> Times {
        let limits = &self.config.limits;
        Times {
            established: limits.tcp_established.as_nanos() as u64,
            transitory: limits.tcp_transitory.as_nanos() as u64,
        }
    }

    /// Puts segments of a connection into frames. True when it has more to say.
    pub(super) fn serve_tcp(
        &mut self,
        id: FlowId,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut super::Filled,
    ) -> bool {
        let (mut turn, mut tally) = (0, Tally::default());
        let more = loop {
            if filled.is_full(frames) || turn >= TURN {
                break true;
            }
            let Some(flow) = self.table.get_mut(id) else { break false };
            let Body::Tcp(tcp) = &mut flow.body else { break false };
            let v6 = flow.key.guest.is_ipv6();
            let before = HEAD_MAX - packet::headers(v6, PROTOCOL_TCP);
            let slot = filled.frames;
            let landing = arena.landing(slot, before);
            match tcp.conn.next(self.now, tcp.socket.as_mut(), landing, &mut tally) {
                Ok(Some(emit)) => {
                    let ends = Ends {
                        from_mac: self.config.gateway_mac,
                        to_mac: flow.mac,
                        from: flow.key.remote.unwrap_or(flow.key.guest),
                        to: flow.key.guest,
                    };
                    let frame = &mut frames[slot];
                    let mss = tcp.conn.mss();
                    let arena = (emit.payload > 0).then_some((&mut *arena, slot));
                    packet::tcp(frame, arena, &ends, &emit, mss);
                    flow.used = self.now;
                    flow.packets += 1;
                    flow.bytes += frame.len() as u64;
                    turn += frame.len();
                    filled.add(frame.len());
                }
                Ok(None) => {
                    self.wheel.set(id.index, tcp.conn.deadline());
                    break false;
                }
                Err(end) => {
                    self.end(id, end);
                    break false;
                }
            }
        };
        self.count(&tally);
        more
    }

    /// Ends a connection and tells both sides what they are to know.
    pub(super) fn end(&mut self, id: FlowId, end: End) {
        let Some(flow) = self.table.remove(id) else { return };
        self.wheel.remove(id.index);
        self.counters.closed += 1;
        let Body::Tcp(mut tcp) = flow.body else { return };
        let ends = Ends {
            from_mac: self.config.gateway_mac,
            to_mac: flow.mac,
            from: flow.key.remote.unwrap_or(flow.key.guest),
            to: flow.key.guest,
        };
        match end {
            End::Done => {
                if let Some(socket) = &mut tcp.socket {
                    let _ = tcp.conn.settle(socket);
                }
            }
            End::ResetByGuest => {
                self.counters.reset_by_guest += 1;
                reset_remote(&tcp);
            }
            End::ResetByRemote => {
                self.counters.reset_by_remote += 1;
                self.answers.push(reset_frame(&ends, &tcp.conn.reset()));
            }
            End::Silent => {
                self.counters.guest_silent += 1;
                reset_remote(&tcp);
                self.answers.push(reset_frame(&ends, &tcp.conn.reset()));
            }
            End::Failed(errno) => {
                self.counters.connect_failed += 1;
                match Icmp::of_errno(errno) {
                    Some(icmp) => {
                        let mut l4 = [0; TCP];
                        l4[..2].copy_from_slice(&flow.key.guest.port().to_be_bytes());
                        l4[2..4].copy_from_slice(&ends.from.port().to_be_bytes());
                        l4[4..8].copy_from_slice(&tcp.conn.first_number().to_be_bytes());
                        let quoted = Answers::quotation(flow.key.guest, ends.from, PROTOCOL_TCP, &l4);
                        let ends = Ends { from: self.gateway_end(flow.key.guest.is_ipv6()), ..ends };
                        self.say(flow.owner, &ends, icmp, &quoted);
                    }
                    None => self.answers.push(reset_frame(&ends, &tcp.conn.reset())),
                }
            }
        }
    }

    fn reset(&mut self, packet: &Packet, key: &Key, emit: Emit) {
        let ends = Ends {
            from_mac: self.config.gateway_mac,
            to_mac: packet.mac,
            from: key.remote.unwrap_or(key.guest),
            to: key.guest,
        };
        self.answers.push(reset_frame(&ends, &emit));
    }

    fn reset_syn(&mut self, packet: &Packet, key: &Key, syn: &Segment) {
        let emit = Emit { ack: syn.seq.wrapping_add(1), flags: RST | ACK, ..REJECTION };
        self.reset(packet, key, emit);
    }

    fn count(&mut self, tally: &Tally) {
        let counters = &mut self.counters;
        counters.retransmits += tally.retransmits;
        counters.fast_retransmits += tally.fast_retransmits;
        counters.window_probes += tally.window_probes;
        counters.out_of_order += tally.out_of_order;
        counters.short_writes += tally.short_writes;
        counters.bytes_out += tally.bytes_out;
        counters.bytes_in += tally.bytes_in;
    }

    pub(super) fn tcp_timer(&mut self, id: FlowId) {
        let (now, mut tally) = (self.now, Tally::default());
        let Some(Flow { body: Body::Tcp(tcp), .. }) = self.table.get_mut(id) else { return };
        let verdict = tcp.conn.timer(now, &mut tally);
        let deadline = tcp.conn.deadline();
        self.count(&tally);
        self.wheel.set(id.index, deadline);
        self.carry_out(id, verdict);
    }
}

const REJECTION: Emit = Emit { seq: 0, ack: 0, flags: RST, window: 0, payload: 0, options: None };

fn reset_remote(tcp: &TcpFlow) {
    if let Some(socket) = &tcp.socket {
        socket::reset_on_close(socket.as_fd());
    }
}

/// A socket on its way to `remote`. Data goes out as the guest cut it, urgent data stays in line.
fn connecting(remote: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket::stream(remote.is_ipv6())?;
    prepare(&fd)?;
    match rustix::net::connect(&fd, &remote) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn prepare(fd: &OwnedFd) -> io::Result<()> {
    socket::set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    socket::set(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1)
}

/// A segment without payload as a whole frame.
fn reset_frame(ends: &Ends, emit: &Emit) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + ends.ip_len() + TCP];
    let l4 = ends.write_ip(&mut frame, PROTOCOL_TCP, TCP, true);
    let to = &mut frame[l4..];
    to[..2].copy_from_slice(&ends.from.port().to_be_bytes());
    to[2..4].copy_from_slice(&ends.to.port().to_be_bytes());
    to[4..8].copy_from_slice(&emit.seq.to_be_bytes());
    to[8..12].copy_from_slice(&emit.ack.to_be_bytes());
    to[12] = 5 << 4;
    to[13] = emit.flags;
    to[16..18].copy_from_slice(&ends.partial(PROTOCOL_TCP, TCP).to_be_bytes());
    let sum = Sum::new().over(to).checksum();
    to[16..18].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What epoll's flags mean to a connection.
pub(super) fn readiness(flags: rustix::event::epoll::EventFlags) -> super::tcp::Ready {
    use rustix::event::epoll::EventFlags;
    super::tcp::Ready {
        readable: flags.contains(EventFlags::IN),
        writable: flags.contains(EventFlags::OUT),
        hung_up: flags.intersects(EventFlags::RDHUP | EventFlags::HUP),
        error: flags.contains(EventFlags::ERR),
    }
}

/// The socket behind a connection, for `flow list`.
pub(super) fn local_address(socket: Option<&Socket>) -> Option<SocketAddr> {
    super::local_address(socket?.as_fd())
}
