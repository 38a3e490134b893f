//! From the outside's segment to a guest.

use super::icmp::Error;
use super::inside::{Arrival, arrival};
use super::packet::{self, ICMP, ICMP6, L3, Packet, decrement_ttl};
use super::send::Quote;
use super::{Act, Desk, Gateway, nd};
use crate::drops::DropReason;
use std::net::IpAddr;
use switchd_nat::{Classified, Side, Verdict};
use switchd_wire::Frame;

impl Gateway {
    /// A frame that came to the outside's MAC or to a group, by the segment's port `from`.
    pub(super) fn arrive_outside(
        &mut self,
        desk: &mut Desk<'_>,
        frame: &mut Frame,
        from: u32,
        classified: Option<&Classified>,
    ) -> Act {
        let packet = match arrival(frame) {
            Arrival::Packet(packet) => packet,
            Arrival::Arp => return self.arp(desk, Side::Outside, frame),
            Arrival::Done(act) => return act,
        };
        if frame.head()[0] & 1 != 0 {
            return self.group(desk, Side::Outside, frame, &packet, from);
        }
        let v6 = packet.is_v6();
        let routed_v6 = v6 && !self.translates_v6() && self.is_inside(packet.destination);
        if !self.is_own(Side::Outside, packet.destination) && !routed_v6 {
            // An offer may be sent to the address that is not ours yet (RFC 2131 4.1).
            return match self.lease_for_us(desk, frame, &packet, from) {
                Some(act) => act,
                None => Act::Drop(DropReason::NatNotOurs),
            };
        }
        // Neighbours speak with link-local addresses (RFC 4861), to ours.
        let link_local = v6 && packet::is_link_local(packet.source);
        let spoofed = self.is_own(Side::Outside, packet.source) || self.is_inside(packet.source);
        if !packet::is_station(packet.source) && !packet::is_link_local(packet.destination) || spoofed {
            return Act::Drop(DropReason::BadSourceAddress);
        }
        if link_local && routed_v6 {
            return Act::Drop(DropReason::BadSourceAddress);
        }
        // Neighbours' answers to the translated address are no flow's; their hop limit stays as it is.
        let discovery = v6 && !routed_v6 && is_discovery(frame, &packet);
        if discovery || v6 && !routed_v6 && !self.is_translated_v6(packet.destination) {
            return self.local(desk, Side::Outside, frame, &packet, from);
        }
        if self.continues_echo(desk.now, frame, &packet) {
            return self.local(desk, Side::Outside, frame, &packet, from);
        }
        let last = packet.ttl <= 1;
        let mtu = desk.mtu(Side::Inside);
        let too_long = packet.longest > mtu;
        let refused = last || too_long && packet.whole;
        let quote = refused.then(|| Quote::of(frame, &packet, desk.tails)).flatten();
        if !last {
            decrement_ttl(frame);
        }
        let verdict = match (self.nat.as_mut(), classified) {
            _ if routed_v6 => Verdict::Deliver { to: packet.destination, mac: None },
            (Some(nat), Some(classified)) => nat.inbound(desk.now, classified, frame, desk.tails),
            _ => Verdict::Local,
        };
        match verdict {
            Verdict::Deliver { .. } | Verdict::Hairpin { .. } if last => {
                self.error_about(desk, Side::Outside, Error::TimeExceeded, quote);
                Act::Drop(DropReason::TtlExceeded)
            }
            Verdict::Deliver { .. } | Verdict::Hairpin { .. } if refused => {
                self.error_about(desk, Side::Outside, Error::TooBig { mtu }, quote);
                Act::Drop(DropReason::TooBig)
            }
            Verdict::Deliver { to, mac } | Verdict::Hairpin { to, mac } => {
                let act = self.deliver(desk, Side::Inside, frame, to, mac, (routed_v6, too_long));
                if routed_v6 && act == Act::Drop(DropReason::Unreachable) {
                    self.error(desk, Side::Outside, Error::HostUnreachable, frame, &packet);
                }
                act
            }
            Verdict::Forward { .. } => Act::Drop(DropReason::NoRoute),
            Verdict::Held => Act::Taken,
            // A lease is renewed by answers to our address (RFC 2131 4.3.2), which no flow explains.
            Verdict::Drop(reason) => match self.lease_for_us(desk, frame, &packet, from) {
                Some(act) => act,
                None => Act::Drop(reason.into()),
            },
            Verdict::Local => self.local(desk, Side::Outside, frame, &packet, from),
        }
    }

    fn is_translated_v6(&self, destination: IpAddr) -> bool {
        let translated = self.outside.as_ref().and_then(|outside| outside.config.nat.outside6);
        translated.is_some_and(|address| IpAddr::V6(address) == destination)
    }

    /// Is it an address of the guests' subnet?
    fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.config.v4.contains(v4),
            IpAddr::V6(v6) => self.config.v6.is_some_and(|prefix| prefix.contains(v6)),
        }
    }
}

/// RFC 4861 4, which no router has passed on (7.1.1, 7.1.2).
fn is_discovery(frame: &Frame, packet: &Packet) -> bool {
    let head = frame.head();
    let kind = head.get(L3 + packet.header).copied().unwrap_or(0);
    packet.ttl == 255
        && head.get(L3 + 6) == Some(&ICMP6)
        && (nd::ROUTER_SOLICITATION..=nd::REDIRECT).contains(&kind)
}

/// Is it ICMP of its IP version?
pub(super) fn is_icmp(packet: &Packet, protocol: u8) -> bool {
    protocol == if packet.is_v6() { ICMP6 } else { ICMP }
}
