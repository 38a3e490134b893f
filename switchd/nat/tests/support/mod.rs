//! Packets and a small world around a translator: a clock, guests, the outside.
#![allow(dead_code)] // Each test file uses its part.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use switchd_nat::{Filtering, Nat, NatConfig, NatDrop, Prefix4, Prefix6, Side, Timeouts, Verdict};
use switchd_wire::frame::{HEAD_MAX, StaleTail};
use switchd_wire::{Frame, MacAddr, Tail, TailSource, VnetHeader};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
/// Outside, inside and remote stations.
pub const X: &str = "192.0.2.1";
pub const A: &str = "10.0.0.2";
pub const B: &str = "10.0.0.3";
pub const R: &str = "198.51.100.7";
pub const S: &str = "203.0.113.9";
pub const X6: &str = "2001:db8::1";
pub const A6: &str = "fd00::2";
pub const B6: &str = "fd00::3";
pub const R6: &str = "2001:db8:1::7";

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// RFC 1071 4.1, word for word.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = octets(source);
    bytes.extend(octets(destination));
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Where a protocol has its checksum, and whether the pseudo-header is in it.
fn checksum(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        6 => Some((16, true)),
        17 | 136 => Some((6, true)),
        1 => Some((2, false)),
        58 => Some((2, true)),
        _ => None,
    }
}

/// An IP packet around layer-4 bytes, whose checksum is filled in.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, mut l4: Vec<u8>) -> Vec<u8> {
    if let Some((offset, covers)) = checksum(protocol) {
        l4[offset..offset + 2].fill(0);
        let pseudo = if covers { pseudo(source, destination, protocol, l4.len()) } else { Vec::new() };
        let mut sum = !sum(&[&pseudo, &l4]);
        if protocol == 17 && sum == 0 {
            sum = 0xffff;
        }
        l4[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    }
    raw(source, destination, protocol, 0, 0x4000, &l4)
}

/// An IPv4 packet with this identification and fragment field, or an IPv6 packet.
pub fn raw(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u16,
    field: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    if source.is_ipv4() {
        bytes.extend([0x45, 0]);
        bytes.extend(((20 + payload.len()) as u16).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(field.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend(octets(source));
        bytes.extend(octets(destination));
        let check = !sum(&[&bytes]);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(octets(source));
        bytes.extend(octets(destination));
    }
    bytes.extend_from_slice(payload);
    bytes
}

pub fn ether(packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    bytes.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    bytes.extend_from_slice(packet);
    bytes
}

pub fn udp_with(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend(((8 + payload.len()) as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend_from_slice(payload);
    ether(&packet(source.ip(), destination.ip(), 17, l4))
}

pub fn udp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    udp_with(source, destination, b"hello")
}

pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(source.port().to_be_bytes());
    l4.extend(destination.port().to_be_bytes());
    l4.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    l4.extend_from_slice(b"data");
    ether(&packet(source.ip(), destination.ip(), 6, l4))
}

/// ICMP of this type and code, with the four bytes behind the checksum.
pub fn icmp(source: IpAddr, destination: IpAddr, kind: [u8; 2], rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![kind[0], kind[1], 0, 0];
    l4.extend(rest);
    l4.extend_from_slice(payload);
    ether(&packet(source, destination, if source.is_ipv4() { 1 } else { 58 }, l4))
}

pub fn ping(source: &str, destination: &str, id: u16) -> Vec<u8> {
    let kind = if ip(source).is_ipv4() { 8 } else { 128 };
    let [high, low] = id.to_be_bytes();
    icmp(ip(source), ip(destination), [kind, 0], [high, low, 0, 1], b"are you there")
}

pub fn pong(source: &str, destination: &str, id: u16) -> Vec<u8> {
    let kind = if ip(source).is_ipv4() { 0 } else { 129 };
    let [high, low] = id.to_be_bytes();
    icmp(ip(source), ip(destination), [kind, 0], [high, low, 0, 1], b"are you there")
}

/// An error about a frame: what it quotes is the frame's packet, cut to 28 bytes behind the IP header.
pub fn error(source: &str, destination: &str, kind: [u8; 2], rest: [u8; 4], about: &[u8]) -> Vec<u8> {
    let quoted = &about[14..];
    let header = if quoted[0] >> 4 == 4 { usize::from(quoted[0] & 0xf) * 4 } else { 40 };
    icmp(ip(source), ip(destination), kind, rest, &quoted[..quoted.len().min(header + 28)])
}

/// What a packet says: both ends, with ports or ICMP identifiers.
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    ends_of(&frame[14..])
}

fn layer4(packet: &[u8]) -> (IpAddr, IpAddr, u8, usize) {
    if packet[0] >> 4 == 4 {
        let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (four(12), four(16), packet[9], usize::from(packet[0] & 0xf) * 4)
    } else {
        let six = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        (six(8), six(24), packet[6], 40)
    }
}

pub fn ends_of(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let (source, destination, protocol, l4) = layer4(packet);
    // A short fragment has none.
    let word =
        |at: usize| packet.get(l4 + at..l4 + at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    let (from, to) = match protocol {
        6 | 17 => (word(0), word(2)),
        1 | 58 => (word(4), word(4)),
        _ => (0, 0),
    };
    (SocketAddr::new(source, from), SocketAddr::new(destination, to))
}

/// The packet that an ICMP error quotes.
pub fn quoted(frame: &[u8]) -> &[u8] {
    let (.., l4) = layer4(&frame[14..]);
    &frame[14 + l4 + 8..]
}

/// Every checksum that can be checked is right.
pub fn assert_intact(frame: &[u8]) {
    let packet = &frame[14..];
    let (source, destination, protocol, l4) = layer4(packet);
    if source.is_ipv4() {
        assert_eq!(sum(&[&packet[..l4]]), 0xffff, "IPv4 header checksum");
        if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
            return;
        }
    }
    if let Some((offset, covers)) = checksum(protocol) {
        let body = &packet[l4..];
        if protocol == 17 && body[offset..offset + 2] == [0, 0] {
            return;
        }
        let pseudo = if covers { pseudo(source, destination, protocol, body.len()) } else { Vec::new() };
        assert_eq!(sum(&[&pseudo, body]), 0xffff, "checksum of protocol {protocol}");
    }
}

pub struct Bytes(pub Vec<u8>);

impl TailSource for Bytes {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let named = self.0.get(..tail.len as usize).ok_or(StaleTail)?;
        dst.copy_from_slice(named.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

pub fn frame_of(bytes: &[u8], vnet: VnetHeader) -> (Frame, Bytes) {
    let (head, tail) = bytes.split_at(bytes.len().min(HEAD_MAX));
    let mut frame = Frame::default();
    frame.receive_area()[..head.len()].copy_from_slice(head);
    frame.arrived(head.len(), Tail { len: tail.len() as u32, ..Tail::default() }, vnet);
    (frame, Bytes(tail.to_vec()))
}

pub fn bytes_of(frame: &Frame, tails: &Bytes) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.copy_out(tails, 0, &mut bytes).unwrap();
    bytes
}

pub fn mac_of(ip: IpAddr) -> MacAddr {
    let octets = octets(ip);
    MacAddr([2, 0, 0, 0, 1, octets[octets.len() - 1]])
}

pub struct World {
    pub nat: Nat,
    pub now: u64,
    /// Off: every frame goes the long way.
    pub prepares: bool,
}

pub fn config() -> NatConfig {
    NatConfig {
        inside: Prefix4 { address: "10.0.0.1".parse().unwrap(), len: 24 },
        inside6: Some(Prefix6 { address: "fd00::1".parse().unwrap(), len: 64 }),
        outside: vec![X.parse().unwrap()],
        outside6: Some(X6.parse().unwrap()),
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: Filtering::AddressAndPortDependent,
        timeouts: Timeouts::default(),
        flows: 100_000,
        quota: 50_000,
        mtu_outside: 1500,
        mtu_inside: 1500,
    }
}

impl World {
    pub fn new(config: NatConfig) -> World {
        // The clock of a machine that has been up for a while.
        World { nat: Nat::new(config, 42), now: 1_000_000_000_000, prepares: true }
    }

    pub fn plain() -> World {
        World::new(config())
    }

    /// Time goes on; everything that is over is forgotten.
    pub fn wait(&mut self, time: Duration) {
        self.now += time.as_nanos() as u64;
        self.nat.expire(self.now, usize::MAX >> 1);
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    fn pass(&mut self, side: Side, guest: u32, bytes: &[u8], vnet: VnetHeader) -> (Verdict, Vec<u8>) {
        let (mut frame, tails) = frame_of(bytes, vnet);
        let mut seen = self.nat.classify(&frame, side);
        if self.prepares {
            self.nat.prepare(std::slice::from_mut(&mut seen));
        }
        let verdict = match side {
            Side::Inside => {
                let mac = if bytes.len() > 34 { mac_of(ends_or_zero(bytes)) } else { MacAddr::ZERO };
                self.nat.outbound(self.now, guest, mac, &seen, &mut frame, &tails)
            }
            Side::Outside => self.nat.inbound(self.now, &seen, &mut frame, &tails),
        };
        (verdict, bytes_of(&frame, &tails))
    }

    /// A frame from the guest whose number is the last octet of its address.
    pub fn out(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let guest = u32::from(mac_of(ends_or_zero(bytes)).0[5]);
        self.pass(Side::Inside, guest, bytes, VnetHeader::default())
    }

    pub fn out_offloaded(&mut self, bytes: &[u8], vnet: VnetHeader) -> (Verdict, Vec<u8>) {
        self.pass(Side::Inside, 1, bytes, vnet)
    }

    pub fn back(&mut self, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        self.pass(Side::Outside, 0, bytes, VnetHeader::default())
    }

    /// A frame that must leave; returns its outside source.
    pub fn leaves(&mut self, bytes: &[u8]) -> SocketAddr {
        let (verdict, sent) = self.out(bytes);
        let (_, to) = ends(&sent);
        assert_eq!(verdict, Verdict::Forward { to: to.ip() });
        assert_intact(&sent);
        assert_eq!(ends(bytes).1.ip(), to.ip());
        ends(&sent).0
    }

    /// A frame from outside that must reach a guest; returns where.
    pub fn arrives(&mut self, bytes: &[u8]) -> SocketAddr {
        let (verdict, got) = self.back(bytes);
        let (_, to) = ends(&got);
        assert!(matches!(verdict, Verdict::Deliver { to: at, .. } if at == to.ip()), "{verdict:?}");
        assert_intact(&got);
        to
    }

    /// An ICMP error from outside that must reach a guest; returns it as the guest gets it.
    pub fn arrives_error(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (verdict, got) = self.back(bytes);
        let (_, to) = ends(&got);
        assert!(matches!(verdict, Verdict::Deliver { to: at, .. } if at == to.ip()), "{verdict:?}");
        assert_intact(&got);
        assert_eq!(ends_of(quoted(&got)).0.ip(), to.ip(), "the guest sees its own packet quoted");
        got
    }

    /// Why a frame from outside is dropped.
    pub fn refused(&mut self, bytes: &[u8]) -> NatDrop {
        match self.back(bytes) {
            (Verdict::Drop(reason), unchanged) => {
                assert_eq!(unchanged, bytes);
                reason
            }
            (verdict, _) => panic!("{verdict:?}"),
        }
    }

    /// Why a guest's frame is dropped.
    pub fn kept(&mut self, bytes: &[u8]) -> NatDrop {
        match self.out(bytes) {
            (Verdict::Drop(reason), _) => reason,
            (verdict, _) => panic!("{verdict:?}"),
        }
    }

    /// A connection from inside, opened all the way; returns its outside end.
    pub fn connect(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let outside = self.leaves(&tcp(from, to, SYN));
        assert_eq!(self.arrives(&tcp(to, outside, SYN | ACK)), from);
        assert_eq!(self.leaves(&tcp(from, to, ACK)), outside);
        outside
    }

    pub fn states(&self) -> Vec<&'static str> {
        self.nat.flows(self.now, 100).iter().map(|flow| flow.state).collect()
    }
}

fn ends_or_zero(frame: &[u8]) -> IpAddr {
    layer4(&frame[14..]).0
}
