//! A guest's packet as the engine sees it, and the headers of what goes back.
//!
//! Headers lie in the frame's head, payload in head and tail: it is handed to the socket from where it lies.
//! A checksum is verified unless the offload header vouches for it. Packets to guests carry unfinished
//! checksums (NEEDS_CSUM), so nothing is summed here but IPv4 headers.

use super::tcp::{Emit, SYN};
use crate::Arena;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use switchd_wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::{Fragment, Frame, Gso, Ip, MacAddr, VnetHeader, parse};

pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_ICMP6: u8 = 58;
pub const ETHERNET: usize = 14;
pub const IPV4: usize = 20;
pub const IPV6: usize = 40;
pub const TCP: usize = 20;
pub const UDP: usize = 8;
/// Of packets that we make.
const TTL: u8 = 64;

/// Why a frame is not a packet for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPacket {
    Protocol,
    Malformed,
    Checksum,
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub mac: MacAddr,
    /// Who sent it, as the gateway counts its guests: by port, whatever addresses they give themselves.
    pub guest: u32,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub dont_fragment: bool,
    /// First byte of the IP header.
    pub l3: usize,
    /// First byte behind the IP headers. For a later fragment: its data.
    pub l4: usize,
    /// Bytes from there to the end of the IP packet.
    pub len: usize,
    pub fragment: Option<Piece>,
}

/// What a fragment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub id: u32,
    pub offset: usize,
    pub more: bool,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Packet {
    pub fn parse(frame: &Frame) -> Result<Packet, BadPacket> {
        let head = frame.head();
        let layers = parse(head);
        let l3 = usize::from(layers.l3);
        let bad = BadPacket::Malformed;
        let (source, destination, ttl, end, dont_fragment): (IpAddr, IpAddr, u8, usize, bool);
        match layers.ip {
            Ip::None => {
                let ip = matches!(layers.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6);
                return Err(if ip { bad } else { BadPacket::Protocol });
            }
            Ip::V4 => {
                let header: &[u8; IPV4] = head.get(l3..).and_then(<[u8]>::first_chunk).ok_or(bad)?;
                let len = usize::from(header[0] & 0xf) * 4;
                if Sum::new().over(head.get(l3..l3 + len).ok_or(bad)?).checksum() != 0 {
                    return Err(BadPacket::Checksum);
                }
                source = Ipv4Addr::new(header[12], header[13], header[14], header[15]).into();
                destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]).into();
                ttl = header[8];
                end = l3 + usize::from(u16::from_be_bytes([header[2], header[3]]));
                dont_fragment = header[6] & 0x40 != 0;
            }
            Ip::V6 => {
                let header: &[u8; IPV6] = head.get(l3..).and_then(<[u8]>::first_chunk).ok_or(bad)?;
                let address = |at: usize| -> Ipv6Addr {
                    header[at..].first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |bytes| (*bytes).into())
                };
                (source, destination) = (address(8).into(), address(24).into());
                ttl = header[7];
                end = l3 + IPV6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
                dont_fragment = true;
            }
        }
        let (l4, fragment) = match layers.fragment {
            Fragment::Whole => (usize::from(layers.l4.ok_or(bad)?), None),
            _ => piece(head, l3, layers.ip).ok_or(bad)?,
        };
        if end > frame.len() || l4 > end || l4 > head.len() {
            return Err(bad);
        }
        let mac = frame.source();
        let protocol = layers.protocol;
        let mut len = end - l4;
        if protocol == PROTOCOL_UDP && fragment.is_none() && !frame.vnet.is_gso() {
            len = datagram(&head[l4..], len).ok_or(bad)?;
        }
        let guest = frame.guest;
        Ok(Packet { mac, guest, source, destination, protocol, ttl, dont_fragment, l3, l4, len, fragment })
    }

    /// The packet's bytes from `skip` behind the IP headers to its end, where they lie.
    pub fn parts<'a>(
        &self,
        frame: &'a Frame,
        arena: &'a Arena,
        skip: usize,
    ) -> Result<[&'a [u8]; 2], BadPacket> {
        let tail = arena.bytes(frame.tail).map_err(|_| BadPacket::Stale)?;
        let head = frame.head();
        let (from, end) = (self.l4 + skip.min(self.len), self.l4 + self.len);
        let in_head = &head[from.min(head.len())..end.min(head.len())];
        let in_tail = &tail
            [from.saturating_sub(head.len()).min(tail.len())..end.saturating_sub(head.len()).min(tail.len())];
        Ok([in_head, in_tail])
    }

    /// Holds the layer-4 checksum against the bytes, unless the offload header vouches for it.
    pub fn verify(&self, frame: &Frame, arena: &Arena) -> Result<(), BadPacket> {
        if frame.vnet.needs_csum || frame.vnet.data_valid || frame.vnet.is_gso() {
            return Ok(());
        }
        let parts = self.parts(frame, arena, 0)?;
        if self.protocol == PROTOCOL_UDP && self.source.is_ipv4() && word(parts[0], 6) == Some(0) {
            return Ok(());
        }
        let sum = match self.protocol {
            PROTOCOL_ICMP => Sum::new(),
            protocol => pseudo(self.source, self.destination, protocol, self.len),
        };
        if sum.over(parts[0]).over(parts[1]).checksum() == 0 { Ok(()) } else { Err(BadPacket::Checksum) }
    }

    /// The IP header and as much behind it as an ICMP error quotes (RFC 1812 4.3.2.3, RFC 4443 3.1).
    pub fn quote<'a>(&self, frame: &'a Frame) -> &'a [u8] {
        let head = &frame.head()[self.l3..];
        &head[..head.len().min(self.l4 - self.l3 + self.len)]
    }
}

/// Length of a datagram as it says itself (RFC 768): what lies behind it in the packet is not its payload.
pub fn datagram(l4: &[u8], available: usize) -> Option<usize> {
    word(l4, 4).map(usize::from).filter(|len| (UDP..=available).contains(len))
}

/// Start of a fragment's data, and what it says of itself.
fn piece(head: &[u8], l3: usize, ip: Ip) -> Option<(usize, Option<Piece>)> {
    if ip == Ip::V4 {
        let field = word(head, l3 + 6)?;
        let piece = Piece {
            id: u32::from(word(head, l3 + 4)?),
            offset: usize::from(field & 0x1fff) * 8,
            more: field & 0x2000 != 0,
        };
        return Some((l3 + usize::from(head[l3] & 0xf) * 4, Some(piece)));
    }
    // Only a fragment header directly behind the IPv6 header: what else stands before it is rare.
    if head.get(l3 + 6) != Some(&44) {
        return None;
    }
    let header: &[u8; 8] = head.get(l3 + IPV6..)?.first_chunk()?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    let piece = Piece {
        id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        offset: usize::from(field & !7),
        more: field & 1 != 0,
    };
    Some((l3 + IPV6 + 8, Some(piece)))
}

pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            pseudo_v4(source.octets(), destination.octets(), protocol, len as u32)
        }
        (source, destination) => {
            let wide = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            pseudo_v6(wide(source), wide(destination), protocol, len as u32)
        }
    }
}

/// The ends of a packet to a guest.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The gateway's.
    pub from_mac: MacAddr,
    /// The guest's; zero where it never sent anything: the gateway fills it in.
    pub to_mac: MacAddr,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Ends {
    pub fn ip_len(&self) -> usize {
        if self.from.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// Writes Ethernet and IP headers for `len` bytes behind them. Returns their length.
    pub fn write_ip(&self, to: &mut [u8], protocol: u8, len: usize, dont_fragment: bool) -> usize {
        to[..6].copy_from_slice(&self.to_mac.0);
        to[6..12].copy_from_slice(&self.from_mac.0);
        let ethertype = if self.from.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        to[12..14].copy_from_slice(&ethertype.to_be_bytes());
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = &mut to[ETHERNET..ETHERNET + IPV4];
                header.fill(0);
                header[0] = 0x45;
                header[2..4].copy_from_slice(&((IPV4 + len) as u16).to_be_bytes());
                // An atomic packet needs no identification (RFC 6864 4.1).
                header[6] = if dont_fragment { 0x40 } else { 0 };
                header[8] = TTL;
                header[9] = protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let sum = Sum::new().over(header).checksum();
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (source, destination) => {
                let header = &mut to[ETHERNET..ETHERNET + IPV6];
                header.fill(0);
                header[0] = 0x60;
                header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                header[6] = protocol;
                header[7] = TTL;
                if let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) {
                    header[8..24].copy_from_slice(&source.octets());
                    header[24..40].copy_from_slice(&destination.octets());
                }
            }
        }
        ETHERNET + self.ip_len()
    }

    /// The sum that a checksum field holds while it is to be completed.
    pub fn partial(&self, protocol: u8, len: usize) -> u16 {
        pseudo(self.from.ip(), self.to.ip(), protocol, len).uncomplemented()
    }
}

/// Bytes in front of the payload of a TCP segment or a datagram.
pub fn headers(v6: bool, protocol: u8) -> usize {
    ETHERNET + if v6 { IPV6 } else { IPV4 } + if protocol == PROTOCOL_TCP { TCP } else { UDP }
}

/// Makes the frame of a segment whose payload lies in the slot's landing, [`HEAD_MAX`] less the headers
/// before the slot. Without `arena` there is no payload.
pub fn tcp(frame: &mut Frame, arena: Option<(&mut Arena, usize)>, ends: &Ends, emit: &Emit, mss: u16) {
    let mut options = [0u8; 8];
    let mut options_len = 0;
    if let (Some((mss, shift)), true) = (emit.options, emit.flags & SYN != 0) {
        options[..2].copy_from_slice(&[2, 4]);
        options[2..4].copy_from_slice(&mss.to_be_bytes());
        options_len = 4;
        if let Some(shift) = shift {
            options[4..8].copy_from_slice(&[1, 3, 3, shift]);
            options_len = 8;
        }
    }
    let header = TCP + options_len;
    let len = header + emit.payload;
    let area = frame.receive_area();
    let l4 = ends.write_ip(area, PROTOCOL_TCP, len, true);
    let to = &mut area[l4..l4 + header];
    to[..2].copy_from_slice(&ends.from.port().to_be_bytes());
    to[2..4].copy_from_slice(&ends.to.port().to_be_bytes());
    to[4..8].copy_from_slice(&emit.seq.to_be_bytes());
    to[8..12].copy_from_slice(&emit.ack.to_be_bytes());
    to[12] = (header as u8 / 4) << 4;
    to[13] = emit.flags;
    to[14..16].copy_from_slice(&emit.window.to_be_bytes());
    to[16..18].copy_from_slice(&ends.partial(PROTOCOL_TCP, len).to_be_bytes());
    to[18..20].fill(0);
    to[TCP..].copy_from_slice(&options[..options_len]);
    let mut vnet =
        VnetHeader { needs_csum: true, csum_start: l4 as u16, csum_offset: 16, ..VnetHeader::default() };
    if emit.payload > usize::from(mss) {
        vnet.gso = if ends.from.is_ipv4() { Gso::TcpV4 } else { Gso::TcpV6 };
        vnet.gso_size = mss;
        vnet.hdr_len = (l4 + header) as u16;
    }
    land(frame, arena, l4 + header, emit.payload, vnet);
}

/// Makes the frame of datagrams that lie in the slot's landing; `segment` cuts them (UDP_GRO).
pub fn udp(
    frame: &mut Frame,
    arena: &mut Arena,
    slot: usize,
    ends: &Ends,
    payload: usize,
    segment: Option<u16>,
) {
    let len = UDP + payload;
    let area = frame.receive_area();
    let l4 = ends.write_ip(area, PROTOCOL_UDP, len, false);
    write_udp(&mut area[l4..], ends, len);
    let mut vnet =
        VnetHeader { needs_csum: true, csum_start: l4 as u16, csum_offset: 6, ..VnetHeader::default() };
    if let Some(size) = segment.filter(|&size| payload > usize::from(size)) {
        vnet.gso = Gso::UdpL4;
        vnet.gso_size = size;
        vnet.hdr_len = (l4 + UDP) as u16;
    }
    land(frame, Some((arena, slot)), l4 + UDP, payload, vnet);
}

/// A UDP header with an unfinished checksum.
pub fn write_udp(to: &mut [u8], ends: &Ends, len: usize) {
    to[..2].copy_from_slice(&ends.from.port().to_be_bytes());
    to[2..4].copy_from_slice(&ends.to.port().to_be_bytes());
    to[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    to[6..8].copy_from_slice(&ends.partial(PROTOCOL_UDP, len).to_be_bytes());
}

/// Moves the first bytes of the payload from the landing into the head; the rest is the tail.
fn land(
    frame: &mut Frame,
    arena: Option<(&mut Arena, usize)>,
    headers: usize,
    payload: usize,
    vnet: VnetHeader,
) {
    let before = HEAD_MAX - headers;
    let in_head = payload.min(before);
    let tail = match arena {
        Some((arena, slot)) => {
            let landing = arena.landing(slot, before);
            frame.receive_area()[headers..headers + in_head].copy_from_slice(&landing[..in_head]);
            arena.token(slot, payload - in_head)
        }
        None => switchd_wire::Tail::default(),
    };
    frame.arrived(headers + in_head, tail, vnet);
}
