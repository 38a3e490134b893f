//! What is for the gateway itself: answered here, or handed to a service.
//!
//! To guests a gateway is a host that says what it does not do (port and protocol unreachable, RST). On the
//! outside it is silent about everything that no flow explains, but for echo requests.

use super::icmp::{self, Error};
use super::nd;
use super::outside::is_icmp;
use super::packet::{ICMP6, L3, Packet, is_link_local};
use super::{Act, Desk, Gateway};
use crate::config::Egress;
use crate::drops::DropReason;
use crate::rim::{NetworkId, PortId};
use crate::trap::{TrapKind, Trapped};
use std::net::IpAddr;
use switchd_nat::Side;
use switchd_wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use switchd_wire::parse::{PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::segmentation::{Scratch, segment};
use switchd_wire::{Fragment, Frame, Layers};

const DNS: u16 = 53;
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_CLIENT: u16 = 546;
const DHCP6_SERVER: u16 = 547;

/// The service that listens at a UDP port of this side; `own`: at our own address, not a group.
fn udp_service(side: Side, v6: bool, port: u16, own: bool) -> Option<TrapKind> {
    match (side, v6, port) {
        (Side::Inside, false, DHCP_SERVER) => Some(TrapKind::Dhcp),
        (Side::Inside, true, DHCP6_SERVER) => Some(TrapKind::Dhcp6),
        (Side::Inside, _, DNS) if own => Some(TrapKind::Dns),
        (Side::Outside, false, DHCP_CLIENT) => Some(TrapKind::DhcpClient),
        (Side::Outside, true, DHCP6_CLIENT) => Some(TrapKind::Outside6),
        _ => None,
    }
}

impl Gateway {
    /// A packet in a frame for a group.
    pub(super) fn group(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
    ) -> Act {
        let layers = packet.layers(frame);
        let v6 = packet.is_v6();
        let Some(l4) = layers.l4.map(usize::from).filter(|_| layers.fragment == Fragment::Whole) else {
            return Act::Taken;
        };
        if v6 && layers.protocol == ICMP6 {
            return self.icmp6(desk, side, frame, l4, from);
        }
        let port = layers.ports.filter(|_| layers.protocol == PROTOCOL_UDP);
        match port.and_then(|(_, to)| udp_service(side, v6, to, false)) {
            Some(TrapKind::Dhcp6) if self.config.v6.is_none() => Act::Taken,
            Some(kind) => self.trap(desk, kind, frame, from),
            None => Act::Taken,
        }
    }

    /// A DHCP client's question.
    pub(super) fn lease_wanted(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
    ) -> Option<Act> {
        let layers = packet.layers(frame);
        let asks = layers.protocol == PROTOCOL_UDP && layers.ports.is_some_and(|(_, to)| to == DHCP_SERVER);
        (asks && layers.fragment == Fragment::Whole).then(|| self.trap(desk, TrapKind::Dhcp, frame, from))
    }

    /// A DHCP server's answer to an address that we do not have yet.
    pub(super) fn lease_for_us(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
    ) -> Option<Act> {
        let layers = packet.layers(frame);
        let answer = layers.protocol == PROTOCOL_UDP && layers.ports == Some((DHCP_SERVER, DHCP_CLIENT));
        (answer && layers.fragment == Fragment::Whole)
            .then(|| self.trap(desk, TrapKind::DhcpClient, frame, from))
    }

    /// A packet to one of our own addresses.
    pub(super) fn local(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
    ) -> Act {
        let layers = packet.layers(frame);
        let gateway = side == Side::Outside || self.is_own(Side::Inside, packet.destination);
        let service = match (layers.ports, layers.l4) {
            (Some((_, to)), Some(_)) if gateway && layers.protocol == PROTOCOL_UDP => {
                udp_service(side, packet.is_v6(), to, true)
            }
            (Some((_, DNS)), Some(_)) if gateway && layers.protocol == PROTOCOL_TCP => {
                (side == Side::Inside).then_some(TrapKind::Dns)
            }
            _ => None,
        };
        if side == Side::Inside && !self.may_ask(packet, service) {
            return Act::Drop(DropReason::BadSourceAddress);
        }
        if is_icmp(packet, layers.protocol) {
            return self.icmp(desk, side, frame, packet, &layers, from);
        }
        if let Some(kind) = service.filter(|_| layers.fragment == Fragment::Whole) {
            return self.trap(desk, kind, frame, from);
        }
        if side == Side::Outside {
            return Act::Drop(DropReason::NatUnsolicited);
        }
        // Clients of a forward may bear our address there: the device knows them, and refuses the rest.
        if self.is_host() && matches!(layers.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            return Act::Device;
        }
        match layers.protocol {
            PROTOCOL_TCP => self.reset(desk, frame, packet, &layers),
            PROTOCOL_UDP => self.error(desk, side, Error::PortUnreachable, frame, packet),
            _ => self.error(desk, side, Error::ProtocolUnreachable, frame, packet),
        }
        Act::Drop(DropReason::NoService)
    }

    /// Whose questions are answered inside: guests' with an address of the subnet; for IPv6 also link-local
    /// ones; and DHCP from those who have none.
    fn may_ask(&self, packet: &Packet, service: Option<TrapKind>) -> bool {
        let guest = self.is_on_link(Side::Inside, packet.source) && !self.is_own(Side::Inside, packet.source);
        guest
            || packet.source.is_unspecified() && (packet.is_v6() || service == Some(TrapKind::Dhcp))
            // A relay speaks from an address of its own.
            || service == Some(TrapKind::Dhcp)
    }

    fn icmp(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        frame: &mut Frame,
        packet: &Packet,
        layers: &Layers,
        from: u32,
    ) -> Act {
        let mac = self.mac(side);
        if layers.fragment == Fragment::Later {
            let known =
                fragment_id(frame, packet).is_some_and(|id| self.echo.is_known(desk.now, packet.source, id));
            if !known {
                return Act::Drop(DropReason::NoService);
            }
            icmp::turn_around(frame, packet.is_v6(), None, mac);
            self.counters.echoes += 1;
            return Act::Leave(side);
        }
        let Some(l4) = layers.l4.map(usize::from) else { return Act::Drop(DropReason::BadPacket) };
        if !icmp::is_echo(frame, packet, l4) {
            return match packet.is_v6() {
                true => self.icmp6(desk, side, frame, l4, from),
                false if self.is_host() => Act::Device,
                false => Act::Taken,
            };
        }
        if let Err(reason) = Self::finish(desk, frame) {
            return Act::Drop(reason);
        }
        if layers.fragment == Fragment::First
            && let Some(id) = fragment_id(frame, packet)
        {
            self.echo.first(desk.now, packet.source, id);
        }
        icmp::turn_around(frame, packet.is_v6(), Some(l4), mac);
        self.counters.echoes += 1;
        Act::Leave(side)
    }

    /// Is it a later fragment of an echo request to us?
    pub(super) fn continues_echo(&self, now: u64, frame: &Frame, packet: &Packet) -> bool {
        packet.is_later(frame)
            && fragment_id(frame, packet).is_some_and(|id| self.echo.is_known(now, packet.source, id))
    }

    /// ICMPv6 other than an echo request, to us or to a group.
    fn icmp6(&mut self, desk: &mut Desk<'_>, side: Side, frame: &mut Frame, l4: usize, from: u32) -> Act {
        let kind = frame.head().get(l4).copied();
        match (kind, side) {
            (Some(nd::ROUTER_SOLICITATION), Side::Inside) if self.config.v6.is_some() => {
                self.trap(desk, TrapKind::RouterSolicit, frame, from)
            }
            (Some(nd::ROUTER_ADVERTISEMENT), Side::Outside) => {
                self.trap(desk, TrapKind::Outside6, frame, from)
            }
            (Some(nd::SOLICITATION | nd::ADVERTISEMENT), _) => {
                if Self::finish(desk, frame).is_ok() {
                    self.neighbor(desk, side, frame);
                }
                Act::Taken
            }
            // An error, perhaps about a connection of the device's.
            (Some(0..128), Side::Inside) if self.is_host() && frame.head()[0] & 1 == 0 => Act::Device,
            _ => Act::Taken,
        }
    }

    fn is_host(&self) -> bool {
        self.config.egress == Egress::Host
    }

    /// Hands a whole frame to a service.
    fn trap(&mut self, desk: &mut Desk<'_>, kind: TrapKind, frame: &mut Frame, from: u32) -> Act {
        let mut room = true;
        let network = Some(NetworkId(self.network));
        // One packet of a frame that is none, its checksum completed; the segments of a superframe.
        let done = segment(frame, &desk.tails, &mut Scratch::new(), |bytes| {
            room &= desk.traps.push(Trapped { kind, port: PortId(from), network, bytes: bytes.to_vec() });
        });
        match (done, room) {
            (Ok(_), true) => {
                self.counters.trapped += 1;
                Act::Taken
            }
            (Ok(_), false) => Act::Drop(DropReason::TrapFull),
            (Err(_), _) => Act::Drop(DropReason::BadOffload),
        }
    }

    /// RFC 9293 3.10.7.1: nobody listens there.
    fn reset(&mut self, desk: &mut Desk<'_>, frame: &Frame, packet: &Packet, layers: &Layers) {
        let Some(l4) = layers.l4.map(usize::from) else { return };
        let (Some(tcp), Some(payload)) = (frame.head().get(l4..l4 + 20), layers.payload) else { return };
        let flags = tcp[13];
        if flags & 4 != 0 || is_link_local(packet.source) && packet.source.is_ipv4() {
            return;
        }
        if !self.limiter.take(desk.now, desk.by) {
            self.counters.errors_limited += 1;
            return;
        }
        let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let l4_length = match packet.is_v6() {
            true => frame.head()[L3 + 4..L3 + 6].try_into().map_or(0, u16::from_be_bytes).into(),
            false => {
                let total: u16 = frame.head()[L3 + 2..L3 + 4].try_into().map_or(0, u16::from_be_bytes);
                usize::from(total).saturating_sub(packet.header)
            }
        };
        let ip_end = L3 + packet.header + l4_length;
        let length = ip_end.saturating_sub(usize::from(payload)) as u32
            + u32::from(flags & 1 != 0)
            + u32::from(flags & 2 != 0);
        let (sequence, acknowledged, flags) = match flags & 0x10 != 0 {
            true => (word(8), 0, 4),
            false => (0, word(4).wrapping_add(length), 0x14),
        };
        let mut reply = Vec::with_capacity(74);
        reply.extend_from_slice(&frame.source().0);
        reply.extend_from_slice(&self.mac(Side::Inside).0);
        reply.extend_from_slice(&frame.head()[12..14]);
        let mut segment = [tcp[2], tcp[3], tcp[0], tcp[1]].to_vec();
        segment.extend_from_slice(&u32::to_be_bytes(sequence));
        segment.extend_from_slice(&u32::to_be_bytes(acknowledged));
        segment.extend_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
        let sum = match (packet.destination, packet.source) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, icmp::TTL, PROTOCOL_TCP, 0, 0];
                ip.extend_from_slice(&from.octets());
                ip.extend_from_slice(&to.octets());
                let checksum = Sum::new().over(&ip).checksum();
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                reply.extend_from_slice(&ip);
                pseudo_v4(from.octets(), to.octets(), PROTOCOL_TCP, 20)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                reply.extend_from_slice(&[0x60, 0, 0, 0, 0, 20, PROTOCOL_TCP, icmp::TTL]);
                reply.extend_from_slice(&from.octets());
                reply.extend_from_slice(&to.octets());
                pseudo_v6(from.octets(), to.octets(), PROTOCOL_TCP, 20)
            }
            _ => return,
        };
        let checksum = sum.over(&segment).checksum();
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        reply.extend_from_slice(&segment);
        reply.resize(reply.len().max(60), 0);
        self.counters.resets += 1;
        self.say(desk, Side::Inside, reply);
    }
}

/// What all fragments of a datagram share.
fn fragment_id(frame: &Frame, packet: &Packet) -> Option<u32> {
    let ip = &frame.head()[L3..];
    if !packet.is_v6() {
        return Some(u32::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?])));
    }
    // Where the fragment header comes first, as it does where there is no routing header.
    let header = ip.get(40..48).filter(|_| ip[6] == 44)?;
    Some(u32::from_be_bytes(header[4..8].try_into().ok()?))
}
