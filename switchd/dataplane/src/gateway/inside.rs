//! From the guests to wherever it is: the router's forwarding rules (RFC 1812 5.2), outwards.
//!
//! The next hop is looked for before the translation: a packet that has to wait for it waits as its sender
//! sent it, and so an error can quote it.

use super::icmp::Error;
use super::packet::{self, Packet, decrement_ttl};
use super::send::Quote;
use super::{Act, Desk, Gateway, Then, is_subnet_itself};
use crate::config::Egress;
use crate::drops::DropReason;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_nat::{Classified, NatDrop, Side, Verdict};
use switchd_proto::neighbor::Find;
use switchd_wire::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_C, TPID_S};
use switchd_wire::{Frame, MacAddr};

/// What an arriving frame is to a router.
pub(super) enum Arrival {
    Packet(Packet),
    Arp,
    /// Nothing further.
    Done(Act),
}

/// The part that both ends share.
#[inline]
pub(super) fn arrival(frame: &Frame) -> Arrival {
    let group = frame.head()[0] & 1 != 0;
    let ethertype = frame.head().get(12..14).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => match Packet::read(frame) {
            Ok(packet) => Arrival::Packet(packet),
            Err(_) if group => Arrival::Done(Act::Taken),
            Err(reason) => Arrival::Done(Act::Drop(reason)),
        },
        ETHERTYPE_ARP => Arrival::Arp,
        _ if group => Arrival::Done(Act::Taken),
        TPID_C | TPID_S => Arrival::Done(Act::Drop(DropReason::VlanNotMember)),
        _ => Arrival::Done(Act::Drop(DropReason::NotForGateway)),
    }
}

impl Gateway {
    /// A frame of the guest at port `from`.
    pub(super) fn arrive_inside(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        from: u32,
        classified: Option<&Classified>,
    ) -> Act {
        let packet = match arrival(frame) {
            Arrival::Packet(packet) => packet,
            Arrival::Arp => return self.arp(desk, Side::Inside, frame),
            Arrival::Done(act) => return act,
        };
        if frame.head()[0] & 1 != 0 {
            return self.group(desk, Side::Inside, frame, &packet, from);
        }
        if self.is_own(Side::Inside, packet.destination) {
            return self.local(desk, Side::Inside, frame, &packet, from);
        }
        let checked = match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.check_v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.check_v6(desk, frame, &packet, source, destination)
            }
            _ => Err(DropReason::BadPacket),
        };
        if let Err(reason) = checked {
            // A DHCP client may know our MAC and nothing else.
            let everybody = packet.destination == IpAddr::V4(Ipv4Addr::BROADCAST);
            let wanted = everybody.then(|| self.lease_wanted(desk, frame, &packet, from)).flatten();
            return wanted.unwrap_or(Act::Drop(reason));
        }
        if self.is_on_link(Side::Inside, packet.destination) {
            return self.back_inside(desk, frame, &packet);
        }
        match self.config.egress {
            Egress::Host => Act::Device,
            Egress::Outside(_) => self.route_out(desk, frame, &packet, from, classified),
        }
    }

    /// RFC 1812 5.3.7 and 5.3.8: who may send through us, and where to.
    #[inline]
    fn check_v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Result<(), DropReason> {
        let subnet = self.config.v4;
        if !packet::is_station(destination.into())
            || destination.is_link_local()
            || is_subnet_itself(subnet, destination)
        {
            return Err(DropReason::BadDestination);
        }
        let stranger = !subnet.contains(source) || is_subnet_itself(subnet, source);
        if stranger || source == subnet.address { Err(DropReason::BadSourceAddress) } else { Ok(()) }
    }

    fn check_v6(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &Frame,
        packet: &Packet,
        source: Ipv6Addr,
        destination: Ipv6Addr,
    ) -> Result<(), DropReason> {
        let Some(prefix) = self.config.v6 else { return Err(DropReason::NoRoute) };
        if !packet::is_station(destination.into()) || packet::is_link_local(destination.into()) {
            return Err(DropReason::BadDestination);
        }
        if source.is_unicast_link_local() {
            self.error(desk, Side::Inside, Error::BeyondScope, frame, packet);
            return Err(DropReason::BadSourceAddress);
        }
        match prefix.contains(source) && source != prefix.address {
            true => Ok(()),
            false => Err(DropReason::BadSourceAddress),
        }
    }

    /// From guest to guest by way of us.
    fn back_inside(&mut self, desk: &mut Desk<'_>, frame: &mut Frame, packet: &Packet) -> Act {
        if packet.ttl <= 1 {
            self.error(desk, Side::Inside, Error::TimeExceeded, frame, packet);
            return Act::Drop(DropReason::TtlExceeded);
        }
        decrement_ttl(frame);
        let act = self.deliver(desk, Side::Inside, frame, packet.destination, None, (true, false));
        if act == Act::Drop(DropReason::Unreachable) {
            self.error(desk, Side::Inside, Error::HostUnreachable, frame, packet);
        }
        act
    }

    /// The next hop on the outside.
    #[inline]
    pub(super) fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.is_on_link(Side::Outside, destination) {
            return Some(destination);
        }
        let outside = &self.outside.as_ref()?.config;
        match destination {
            IpAddr::V4(_) => outside.v4.and(outside.gateway).map(IpAddr::V4),
            // Routed, no address but the link-local one is needed (RFC 4861 has routers speak with those).
            IpAddr::V6(_) => outside.gateway6.map(IpAddr::V6),
        }
    }

    fn route_out(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
        classified: Option<&Classified>,
    ) -> Act {
        if self.is_own(Side::Outside, packet.destination) {
            return self.own_outside(desk, frame, packet, from, classified);
        }
        let Some(next) = self.next_hop(packet.destination) else {
            self.error(desk, Side::Inside, Error::NoRoute, frame, packet);
            return Act::Drop(DropReason::NoRoute);
        };
        if let (IpAddr::V4(next), Some(Some(prefix))) = (next, self.outside.as_ref().map(|o| o.config.v4))
            && is_subnet_itself(prefix, next)
        {
            return Act::Drop(DropReason::BadDestination);
        }
        if packet.ttl <= 1 {
            self.error(desk, Side::Inside, Error::TimeExceeded, frame, packet);
            return Act::Drop(DropReason::TtlExceeded);
        }
        let mtu = desk.mtu(Side::Outside);
        let too_long = packet.longest > mtu;
        if too_long && packet.whole {
            self.error(desk, Side::Inside, Error::TooBig { mtu }, frame, packet);
            return Act::Drop(DropReason::TooBig);
        }
        let mac = match self.end(Side::Outside).neighbors.find(desk.now, next) {
            Find::Known(mac) => mac,
            Find::Unknown => return self.wait(desk, Side::Outside, next, frame, Then::Again { from }),
            Find::Unreachable => {
                self.error(desk, Side::Inside, Error::HostUnreachable, frame, packet);
                return Act::Drop(DropReason::Unreachable);
            }
        };
        decrement_ttl(frame);
        match self.translate_out(desk, frame, packet, from, classified) {
            Verdict::Forward { .. } if too_long => self.send_cut(desk, Side::Outside, frame, mac),
            Verdict::Forward { .. } => {
                super::send::address(frame, mac, self.mac(Side::Outside));
                Act::Leave(Side::Outside)
            }
            Verdict::Deliver { to, mac } | Verdict::Hairpin { to, mac } => {
                self.deliver(desk, Side::Inside, frame, to, mac, (false, false))
            }
            Verdict::Held => Act::Taken,
            Verdict::Local => Act::Drop(DropReason::NoService),
            Verdict::Drop(reason) => self.not_translated(desk, frame, packet, reason),
        }
    }

    /// To one of our outside addresses: to another guest, or to us.
    fn own_outside(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
        classified: Option<&Classified>,
    ) -> Act {
        if self.continues_echo(desk.now, frame, packet) {
            return self.local(desk, Side::Inside, frame, packet, from);
        }
        // A packet for us may have come to its end here; whether it is, translation tells, which changes it.
        let last = packet.ttl <= 1;
        let quote = last.then(|| Quote::of(frame, packet, desk.tails)).flatten();
        if !last {
            decrement_ttl(frame);
        }
        match self.translate_out(desk, frame, packet, from, classified) {
            Verdict::Deliver { .. } | Verdict::Hairpin { .. } | Verdict::Forward { .. } if last => {
                self.error_about(desk, Side::Inside, Error::TimeExceeded, quote);
                Act::Drop(DropReason::TtlExceeded)
            }
            Verdict::Deliver { to, mac } | Verdict::Hairpin { to, mac } => {
                self.deliver(desk, Side::Inside, frame, to, mac, (false, false))
            }
            Verdict::Forward { .. } => Act::Drop(DropReason::NoRoute),
            Verdict::Local => self.local(desk, Side::Inside, frame, packet, from),
            Verdict::Held => Act::Taken,
            Verdict::Drop(reason) => self.not_translated(desk, frame, packet, reason),
        }
    }

    /// IPv6 without an outside address to translate to is routed.
    #[inline]
    fn translate_out(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        packet: &Packet,
        from: u32,
        classified: Option<&Classified>,
    ) -> Verdict {
        let mac = guest_mac(frame);
        let translated = !packet.is_v6() || self.translates_v6();
        if let (Some(nat), Some(classified), true) = (self.nat.as_mut(), classified, translated) {
            let guest = self.guests.number(from);
            return nat.outbound(desk.now, guest, mac, classified, frame, desk.tails);
        }
        match self.is_own(Side::Outside, packet.destination) {
            true => Verdict::Local,
            false => Verdict::Forward { to: packet.destination },
        }
    }

    pub(super) fn translates_v6(&self) -> bool {
        self.outside.as_ref().is_some_and(|outside| outside.config.nat.outside6.is_some())
    }

    /// RFC 5508 REQ-8: who gets no flow for want of resources is told.
    fn not_translated(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &Frame,
        packet: &Packet,
        reason: NatDrop,
    ) -> Act {
        if matches!(reason, NatDrop::Quota | NatDrop::TableFull | NatDrop::NoPort) {
            self.has_told = true;
            self.error(desk, Side::Inside, Error::Prohibited, frame, packet);
        }
        Act::Drop(reason.into())
    }
}

fn guest_mac(frame: &Frame) -> MacAddr {
    frame.source()
}
