//! What a gateway sends: a packet to its next hop, a packet that has to wait for it, an error.

use super::icmp::Error;
use super::packet::{L3, Packet};
use super::{Act, BORN_MAX, Born, Desk, Gateway, Then, Waiting, fragments};
use crate::drops::DropReason;
use std::net::IpAddr;
use switchd_nat::Side;
use switchd_proto::neighbor::{Find, Held};
use switchd_wire::datagram::Link;
use switchd_wire::{Frame, MacAddr, TailSource, VnetHeader, finish_checksum};

/// What an error says about its packet, taken while the packet was as it came.
pub(super) struct Quote {
    bytes: Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    mac: MacAddr,
}

/// More than any error quotes.
const QUOTE: usize = 1280;

impl Quote {
    /// `None`: nothing may be said about this packet.
    pub fn of(frame: &Frame, packet: &Packet, tails: &dyn TailSource) -> Option<Quote> {
        if !packet.may_be_answered(frame) {
            return None;
        }
        let mut bytes = vec![0; (frame.len() - L3).min(QUOTE)];
        frame.copy_out(&tails, L3, &mut bytes).ok()?;
        let (source, destination) = (packet.source, packet.destination);
        Some(Quote { bytes, source, destination, mac: frame.source() })
    }
}

impl Gateway {
    /// Queues a whole frame of our own, to leave by this end.
    pub(super) fn say(&mut self, desk: &mut Desk<'_>, side: Side, bytes: Vec<u8>) {
        let origin = self.origin(side);
        self.queue(desk, Born { origin, bytes, vnet: VnetHeader::default() });
    }

    pub(super) fn queue(&mut self, desk: &mut Desk<'_>, born: Born) {
        if desk.born.len() < BORN_MAX {
            desk.born.push(born);
        } else {
            self.counters.unsent += 1;
        }
    }

    /// Tells the sender of a packet that came in by this end.
    pub(super) fn error(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        error: Error,
        frame: &Frame,
        packet: &Packet,
    ) {
        let quote = Quote::of(frame, packet, desk.tails);
        self.error_about(desk, side, error, quote);
    }

    pub(super) fn error_about(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        error: Error,
        quote: Option<Quote>,
    ) {
        let Some(quote) = quote else { return };
        let Some(from) = self.speaker(side, quote.destination) else { return };
        if !self.limiter.take(desk.now, desk.by) {
            self.counters.errors_limited += 1;
            return;
        }
        let link = Link { destination: quote.mac, source: self.mac(side) };
        if let Some(bytes) = error.about(&quote.bytes, link, from, quote.source) {
            self.counters.errors += 1;
            self.say(desk, side, bytes);
        }
    }

    /// The address under which we speak of a packet to `destination`.
    fn speaker(&self, side: Side, destination: IpAddr) -> Option<IpAddr> {
        if self.is_own(side, destination) {
            return Some(destination);
        }
        let v4 = destination.is_ipv4();
        match (side, &self.outside) {
            (Side::Inside, _) if v4 => Some(self.config.v4.address.into()),
            (Side::Inside, _) => Some(self.config.v6?.address.into()),
            (Side::Outside, Some(outside)) if v4 => Some(outside.config.v4?.address.into()),
            (Side::Outside, Some(outside)) => Some(outside.config.v6?.address.into()),
            (Side::Outside, None) => None,
        }
    }

    /// Sends a packet that is as it is to be, but for its link addresses, to a station on that side's link.
    /// `too_long`: it is to be cut first.
    pub(super) fn deliver(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        frame: &mut Frame,
        to: IpAddr,
        mac: Option<MacAddr>,
        (plain, too_long): (bool, bool),
    ) -> Act {
        let found = match mac {
            Some(mac) => Find::Known(mac),
            None => self.end(side).neighbors.find(desk.now, to),
        };
        match found {
            Find::Known(mac) if too_long => self.send_cut(desk, side, frame, mac),
            Find::Known(mac) => {
                address(frame, mac, self.mac(side));
                Act::Leave(side)
            }
            Find::Unknown => self.wait(desk, side, to, frame, Then::Send { plain }),
            Find::Unreachable => Act::Drop(DropReason::Unreachable),
        }
    }

    /// Cuts a packet to the MTU of that side. A TCP superframe gets smaller segments instead.
    pub(super) fn send_cut(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        frame: &mut Frame,
        mac: MacAddr,
    ) -> Act {
        let mtu = desk.mtu(side);
        address(frame, mac, self.mac(side));
        let headers = usize::from(frame.vnet.hdr_len).saturating_sub(L3);
        let tcp = matches!(frame.vnet.gso, switchd_wire::Gso::TcpV4 | switchd_wire::Gso::TcpV6);
        if tcp && mtu > headers {
            frame.vnet.gso_size = (mtu - headers) as u16;
            return Act::Leave(side);
        }
        let pieces = fragments::cut(frame, desk.tails, mtu);
        if pieces.is_empty() {
            return Act::Drop(DropReason::TooBig);
        }
        self.counters.fragmented += 1;
        pieces.into_iter().for_each(|bytes| self.say(desk, side, bytes));
        Act::Taken
    }

    /// Keeps a copy of a packet until the next hop's MAC is known.
    pub(super) fn wait(
        &mut self,
        desk: &mut Desk<'_>,
        side: Side,
        to: IpAddr,
        frame: &mut Frame,
        then: Then,
    ) -> Act {
        let mut bytes = vec![0; frame.len()];
        if frame.copy_out(&desk.tails, 0, &mut bytes).is_err() {
            return Act::Drop(DropReason::BadOffload);
        }
        let (size, waiting) = (bytes.len(), Waiting { bytes, vnet: frame.vnet, then });
        match self.end(side).neighbors.hold(desk.now, to, waiting, size, desk.by) {
            Held::Waits => Act::Taken,
            Held::Replaced(_) => {
                desk.lost.push((self.port(side), DropReason::NeighborFull));
                Act::Taken
            }
            Held::Refused(_) => Act::Drop(DropReason::NeighborFull),
        }
    }

    /// Completes what the sender left to be completed, for those who read it.
    pub(super) fn finish(desk: &Desk<'_>, frame: &mut Frame) -> Result<(), DropReason> {
        finish_checksum(frame, &desk.tails).map_err(|_| DropReason::BadOffload)
    }
}

/// Writes the link addresses.
#[inline]
pub(super) fn address(frame: &mut Frame, to: MacAddr, from: MacAddr) {
    if let Some(head) = frame.head_mut().first_chunk_mut::<12>() {
        head[..6].copy_from_slice(&to.0);
        head[6..].copy_from_slice(&from.0);
    }
}
