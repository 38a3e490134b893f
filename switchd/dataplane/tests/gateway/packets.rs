//! Packets, built plainly and read by etherparse-free code of their own: checksums are recomputed.

use super::world::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_wire::MacAddr;
use switchd_wire::checksum::{Sum, pseudo_v4, pseudo_v6};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

#[derive(Clone)]
pub struct Ip {
    pub from_mac: MacAddr,
    pub to_mac: MacAddr,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub protocol: u8,
    pub id: u16,
    /// Flags and offset as in the header.
    pub fragment: u16,
}

pub const DF: u16 = 0x4000;
pub const MF: u16 = 0x2000;

/// From guest 1 through the gateway.
pub fn from_guest(destination: Ipv4Addr) -> Ip {
    Ip {
        from_mac: guest_mac(1),
        to_mac: GATEWAY_MAC,
        source: guest(1).into(),
        destination: destination.into(),
        ttl: 64,
        protocol: UDP,
        id: 0x1234,
        fragment: DF,
    }
}

pub fn from_guest6(destination: Ipv6Addr) -> Ip {
    Ip { source: guest6(1).into(), destination: destination.into(), ..from_guest(GATEWAY) }
}

/// From the router on the wire, for our outside address.
pub fn from_wire(source: Ipv4Addr) -> Ip {
    Ip {
        from_mac: ROUTER_MAC,
        to_mac: OUTSIDE_MAC,
        source: source.into(),
        destination: OUTSIDE.into(),
        ..from_guest(OUTSIDE)
    }
}

impl Ip {
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = [self.to_mac.0, self.from_mac.0].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend(((20 + payload.len()) as u16).to_be_bytes());
                frame.extend(self.id.to_be_bytes());
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([self.ttl, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                let checksum = Sum::new().over(&frame[14..34]).checksum();
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([self.protocol, self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("one version of IP"),
        }
        frame.extend(payload);
        frame
    }

    fn pseudo(&self, protocol: u8, length: usize) -> Sum {
        match (self.source, self.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => pseudo_v4(a.octets(), b.octets(), protocol, length as u32),
            (IpAddr::V6(a), IpAddr::V6(b)) => pseudo_v6(a.octets(), b.octets(), protocol, length as u32),
            _ => panic!("one version of IP"),
        }
    }

    pub fn udp(&self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let length = 8 + payload.len();
        let mut udp = Vec::new();
        for word in [from, to, length as u16, 0] {
            udp.extend(word.to_be_bytes());
        }
        udp.extend(payload);
        let checksum = self.pseudo(UDP, length).over(&udp).checksum();
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        Ip { protocol: UDP, ..self.clone() }.packet(&udp)
    }

    pub fn tcp(&self, from: u16, to: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(from.to_be_bytes());
        tcp.extend(to.to_be_bytes());
        tcp.extend([0, 0, 0, 100, 0, 0, 0, 200, 0x50, flags, 0xff, 0, 0, 0, 0, 0]);
        tcp.extend(payload);
        let checksum = self.pseudo(TCP, tcp.len()).over(&tcp).checksum();
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        Ip { protocol: TCP, ..self.clone() }.packet(&tcp)
    }

    fn echo_message(&self, payload: &[u8]) -> Vec<u8> {
        let v6 = self.source.is_ipv6();
        let mut echo = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 7, 0, 1];
        echo.extend(payload);
        let start = if v6 { self.pseudo(58, echo.len()) } else { Sum::new() };
        let checksum = start.over(&echo).checksum();
        echo[2..4].copy_from_slice(&checksum.to_be_bytes());
        echo
    }

    pub fn echo(&self, payload: &[u8]) -> Vec<u8> {
        let protocol = if self.source.is_ipv6() { 58 } else { 1 };
        Ip { protocol, ..self.clone() }.packet(&self.echo_message(payload))
    }

    /// An IPv4 echo request in fragments of `step` bytes.
    pub fn echo_fragments(&self, payload: &[u8], step: usize) -> Vec<Vec<u8>> {
        let message = self.echo_message(payload);
        let pieces = message.chunks(step);
        let count = pieces.len();
        pieces
            .enumerate()
            .map(|(at, piece)| {
                let more = if at + 1 < count { MF } else { 0 };
                let fragment = (at * step / 8) as u16 | more;
                Ip { protocol: 1, fragment, ..self.clone() }.packet(piece)
            })
            .collect()
    }
}

/// The packet's layer-4 part, its checksums found right.
#[track_caller]
pub fn layer4(bytes: &[u8]) -> (u8, Vec<u8>) {
    let ip = &bytes[14..];
    let (protocol, l4) = if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 15) * 4;
        assert_eq!(Sum::new().over(&ip[..header]).uncomplemented(), 0xffff, "header checksum");
        let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        (ip[9], ip[header..total].to_vec())
    } else {
        (ip[6], ip[40..40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]))].to_vec())
    };
    let sum = match (protocol, addresses(bytes)) {
        (1, _) => Sum::new(),
        (_, (IpAddr::V4(a), IpAddr::V4(b))) => pseudo_v4(a.octets(), b.octets(), protocol, l4.len() as u32),
        (_, (IpAddr::V6(a), IpAddr::V6(b))) => pseudo_v6(a.octets(), b.octets(), protocol, l4.len() as u32),
        _ => unreachable!(),
    };
    let fragment = ip[0] >> 4 == 4 && u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if !fragment {
        assert_eq!(sum.over(&l4).uncomplemented(), 0xffff, "layer-4 checksum");
    }
    (protocol, l4)
}

pub fn ttl(bytes: &[u8]) -> u8 {
    if bytes[14] >> 4 == 4 { bytes[22] } else { bytes[21] }
}

pub fn ports(l4: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]]))
}

/// An ICMP error: source and destination, type, code, second word, and the packet that it quotes.
#[track_caller]
pub fn error(bytes: &[u8]) -> (IpAddr, IpAddr, u8, u8, u32, Vec<u8>) {
    let (protocol, icmp) = layer4(bytes);
    assert!(protocol == 1 || protocol == 58, "ICMP");
    let (source, destination) = addresses(bytes);
    let word = u32::from_be_bytes(icmp[4..8].try_into().unwrap());
    (source, destination, icmp[0], icmp[1], word, icmp[8..].to_vec())
}
