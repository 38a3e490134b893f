//! DNS over TCP at a gateway (RFC 7766): a small stack of smoltcp's, which sees IP packets only.
//!
//! Made when the first segment comes, dropped when nobody was there for a while. [`CONNECTIONS`] at a time,
//! which guests share as [`Shares`] says (a SYN beyond that is not answered), each with buffers of a few KiB and at most [`BACKLOG`] bytes of replies that wait; a connection that is
//! idle for [`IDLE`] is closed. Guests' link addresses are those that their packets came from.

use crate::services::shares::Shares;
use crate::worker::command::Key;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use switchd_nat::{Prefix4, Prefix6};
use switchd_wire::parse::{PROTOCOL_TCP, parse};
use switchd_wire::{Fragment, MacAddr};

pub const CONNECTIONS: usize = 32;
const RECEIVE: usize = 4096;
const SEND: usize = 16_384;
/// Replies of one connection that its guest has not taken yet; a largest message fits.
const BACKLOG: usize = 128 * 1024;
const IDLE: Duration = Duration::from_secs(10);
/// Guests whose link addresses are known; more than there can be connections.
const GUESTS: usize = 256;
const PORT: u16 = 53;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A connection: a socket of the set, in its n-th use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    slot: usize,
    use_number: u64,
}

struct Connection {
    handle: SocketHandle,
    use_number: u64,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// Queries whose answers are awaited.
    awaited: usize,
    open: bool,
}

/// Packets on their way in and out.
#[derive(Default)]
struct Wire {
    inwards: VecDeque<Vec<u8>>,
    outwards: Vec<Vec<u8>>,
    mtu: usize,
}

struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Out<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let done = f(&mut packet);
        self.0.push(packet);
        done
    }
}

impl Device for Wire {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Out<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Packet, Out<'_>)> {
        let packet = self.inwards.pop_front()?;
        Some((Packet(packet), Out(&mut self.outwards)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out<'_>> {
        Some(Out(&mut self.outwards))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

pub struct TcpServer {
    mac: MacAddr,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    wire: Wire,
    guests: HashMap<IpAddr, MacAddr>,
    /// The far ends of connections, with the ports that they came by.
    peers: HashMap<SocketAddr, Key>,
    shares: Shares,
    used: Instant,
    pub refused: u64,
}

/// What a poll brought.
#[derive(Default)]
pub struct Output {
    /// With the port of whoever asks.
    pub queries: Vec<(ConnectionId, Key, Vec<u8>)>,
    pub frames: Vec<Vec<u8>>,
}

impl TcpServer {
    pub fn new(
        mac: MacAddr,
        v4: Prefix4,
        v6: Option<Prefix6>,
        mtu: u16,
        now: Instant,
        seed: u64,
    ) -> TcpServer {
        let mut wire = Wire { mtu: usize::from(mtu), ..Wire::default() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, now);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(v4.address), v4.len));
            if let Some(v6) = v6 {
                let _ = addresses.push(IpCidr::new(IpAddress::Ipv6(v6.address), v6.len));
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..CONNECTIONS)
            .map(|_| {
                let mut socket =
                    Socket::new(SocketBuffer::new(vec![0; RECEIVE]), SocketBuffer::new(vec![0; SEND]));
                socket.set_timeout(Some(IDLE));
                socket.set_nagle_enabled(false);
                Connection {
                    handle: sockets.add(socket),
                    use_number: 0,
                    input: Vec::new(),
                    output: VecDeque::new(),
                    awaited: 0,
                    open: false,
                }
            })
            .collect();
        let mut server = TcpServer {
            mac,
            interface,
            sockets,
            connections,
            wire,
            guests: HashMap::new(),
            peers: HashMap::new(),
            shares: Shares::new(CONNECTIONS),
            used: now,
            refused: 0,
        };
        server.listen();
        server
    }

    fn listen(&mut self) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket>(connection.handle);
            if socket.state() == State::Closed {
                // Refused only for port 0 and for a socket that is open.
                let _ = socket.listen(PORT);
                connection.use_number += 1;
                connection.input.clear();
                connection.output.clear();
                (connection.awaited, connection.open) = (0, false);
            }
        }
    }

    /// Takes an Ethernet frame with an untagged IP packet, of the guest at `port`.
    pub fn take_frame(&mut self, frame: &[u8], port: &Key) {
        let Some((link, packet)) = frame.split_at_checked(14) else { return };
        let source = match link[12..14] {
            [0x08, 0x00] => packet.get(12..16).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from),
            [0x86, 0xdd] => packet.get(8..24).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(IpAddr::from),
            _ => None,
        };
        let (Some(source), Ok(mac)) = (source, link[6..12].try_into()) else { return };
        if !self.admit(frame, source, port) {
            return;
        }
        if !self.guests.contains_key(&source) && self.guests.len() >= GUESTS {
            self.guests.clear();
        }
        self.guests.insert(source, MacAddr(mac));
        self.wire.inwards.push_back(packet.to_vec());
    }

    /// Whether a segment may come in. One that begins a connection takes a place of its port's.
    fn admit(&mut self, frame: &[u8], source: IpAddr, port: &Key) -> bool {
        let layers = parse(frame);
        let (Some((from, _)), Some(l4)) = (layers.ports, layers.l4) else { return false };
        let whole = layers.fragment == Fragment::Whole && layers.protocol == PROTOCOL_TCP;
        let Some(&flags) = frame.get(usize::from(l4) + 13).filter(|_| whole) else { return false };
        let peer = SocketAddr::new(source, from);
        if flags & (SYN | ACK) != SYN || self.peers.contains_key(&peer) {
            return true;
        }
        let room = self.shares.take(port);
        if room {
            self.peers.insert(peer, port.clone());
        } else {
            self.refused += 1;
        }
        room
    }

    /// Gives back the places of connections that are over.
    fn settle(&mut self) {
        let sockets = &self.sockets;
        let remote = |connection: &Connection| {
            let end = sockets.get::<Socket>(connection.handle).remote_endpoint()?;
            Some(SocketAddr::new(end.addr.into(), end.port))
        };
        let open: HashSet<SocketAddr> = self.connections.iter().filter_map(remote).collect();
        let shares = &mut self.shares;
        self.peers.retain(|peer, port| {
            let stays = open.contains(peer);
            if !stays {
                shares.give_back(port);
            }
            stays
        });
    }

    pub fn poll(&mut self, now: Instant) -> Output {
        let mut output = Output::default();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for slot in 0..self.connections.len() {
            self.serve(slot, &mut output.queries);
        }
        self.listen();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.settle();
        if self.connections.iter().any(|connection| connection.open) {
            self.used = now;
        }
        for packet in std::mem::take(&mut self.wire.outwards) {
            output.frames.extend(self.frame(&packet));
        }
        output
    }

    fn serve(&mut self, slot: usize, queries: &mut Vec<(ConnectionId, Key, Vec<u8>)>) {
        let connection = &mut self.connections[slot];
        let socket = self.sockets.get_mut::<Socket>(connection.handle);
        connection.open = socket.is_active();
        let remote = socket.remote_endpoint().map(|end| SocketAddr::new(end.addr.into(), end.port));
        let Some(port) = remote.and_then(|remote| self.peers.get(&remote)).cloned() else { return };
        // Whoever does not take its answers is not read either.
        while socket.can_recv() && connection.output.len() < BACKLOG / 2 && connection.awaited < 64 {
            let read = socket.recv(|bytes| {
                connection.input.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if read.is_err() {
                break;
            }
            while let Some((&[high, low], rest)) = connection.input.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(query) = rest.get(..length) else { break };
                let id = ConnectionId { slot, use_number: connection.use_number };
                queries.push((id, port.clone(), query.to_vec()));
                connection.awaited += 1;
                connection.input.drain(..2 + length);
            }
        }
        while socket.can_send() && !connection.output.is_empty() {
            let (front, _) = connection.output.as_slices();
            match socket.send_slice(front) {
                Ok(sent) if sent > 0 => drop(connection.output.drain(..sent)),
                _ => break,
            }
        }
        let finished = connection.awaited == 0 && connection.output.is_empty();
        if finished && !socket.may_recv() && socket.may_send() {
            socket.close();
        }
    }

    /// An answer, or `None` when there is none to come. A connection that is over by now gets nothing.
    pub fn reply(&mut self, to: ConnectionId, message: Option<&[u8]>) {
        let Some(connection) = self.connections.get_mut(to.slot) else { return };
        if connection.use_number != to.use_number {
            return;
        }
        connection.awaited = connection.awaited.saturating_sub(1);
        let Some(message) = message else { return };
        match u16::try_from(message.len()) {
            Ok(length) if connection.output.len() + message.len() < BACKLOG => {
                connection.output.extend(length.to_be_bytes());
                connection.output.extend(message);
            }
            _ => {
                self.refused += 1;
                self.sockets.get_mut::<Socket>(connection.handle).abort();
            }
        }
    }

    fn frame(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let (to, ethertype) = match packet.first()? >> 4 {
            4 => (IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?), [0x08, 0x00]),
            _ => (IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?), [0x86, 0xdd]),
        };
        let guest = self.guests.get(&to)?;
        Some([&guest.0[..], &self.mac.0, &ethertype, packet].concat())
    }

    /// When to poll again, if nothing comes before.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        self.interface.poll_at(now, &self.sockets)
    }

    /// Nobody is or was there lately.
    pub fn is_idle(&self, now: Instant) -> bool {
        now > self.used + IDLE + IDLE
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
