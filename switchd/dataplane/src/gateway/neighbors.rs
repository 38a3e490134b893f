//! ARP and neighbour discovery at a gateway's ends: what we answer, learn and ask, and who else claims to
//! be us.
//!
//! An address of ours that another station uses (RFC 5227 2.4, RFC 4862 5.4) is told and defended, once in
//! [`DEFEND`]; we keep it: routers do not give up their addresses (2.4 c).
//!
//! Outside, everybody who asks is answered: routers ask in the name of any address that they have, also of one
//! behind the link. Inside, only guests with an address of the subnet. Neither learns what is not on the link.

use super::icmp::Error;
use super::packet::{L3, Packet};
use super::send::{Quote, address};
use super::{Act, Born, Desk, Gateway, Then, Waiting, arp, link_local, nd};
use crate::drops::DropReason;
use crate::notices::DataplaneNotice;
use crate::rim::{NetworkId, PortId};
use crate::table::NONE;
use crate::trap::{Origin, TrapKind, Trapped};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_nat::{Released, Side, Verdict};
use switchd_proto::neighbor::{Heard, Output};
use switchd_wire::frame::{HEAD_MAX, StaleTail};
use switchd_wire::{Frame, MacAddr, Tail, TailSource, VnetHeader};

/// RFC 5227 1.1: DEFEND_INTERVAL.
const DEFEND: u64 = 10_000_000_000;

impl Gateway {
    pub(super) fn arp(&mut self, desk: &mut Desk<'_>, side: Side, frame: &Frame) -> Act {
        let Some(arp) = arp::read(frame) else { return Act::Taken };
        let mac = self.mac(side);
        let sender = IpAddr::V4(arp.sender);
        if arp.sender_mac == mac {
            return Act::Taken;
        }
        if !arp.request && arp.target.is_unspecified() && frame.destination() == mac {
            self.probed(desk, frame);
        }
        if self.is_own(side, sender) {
            self.conflict(desk, side, sender, arp.sender_mac);
            return Act::Taken;
        }
        let known = !arp.sender.is_unspecified() && self.is_neighbor(side, sender);
        let asks_us = arp.request && self.is_own(side, IpAddr::V4(arp.target));
        if known {
            // RFC 826: who asks us is learned; what we know is brought up to date by every packet.
            let solicited = !arp.request && frame.destination() == mac;
            let heard = match asks_us {
                true => Heard::Asked,
                false => Heard::Answered { solicited, overrides: true },
            };
            self.end(side).neighbors.heard(desk.now, sender, Some(arp.sender_mac), heard);
            self.outputs(desk);
        }
        if asks_us && (known || arp.sender.is_unspecified() || side == Side::Outside) {
            self.say(desk, side, arp.reply(mac));
        }
        Act::Taken
    }

    /// RFC 5227 2.1.1: somebody has the address that was asked for. The services want to know it. There is
    /// no drop to count when they do not keep up: the frame has been heard here as well.
    fn probed(&mut self, desk: &mut Desk<'_>, frame: &Frame) {
        let (port, network) = (PortId(NONE), Some(NetworkId(self.network)));
        let bytes = frame.head().to_vec();
        if desk.traps.push(Trapped { kind: TrapKind::Probed, port, network, bytes }) {
            self.counters.trapped += 1;
        }
    }

    /// A solicitation or an advertisement, its checksum complete.
    pub(super) fn neighbor(&mut self, desk: &mut Desk<'_>, side: Side, frame: &Frame) {
        let mac = self.mac(side);
        match nd::read(frame) {
            Some(nd::Neighbor::Solicitation { source, target, mac: theirs }) => {
                if !self.is_own(side, IpAddr::V6(target)) {
                    return;
                }
                let known = self.is_neighbor(side, IpAddr::V6(source));
                if known && theirs.is_some() {
                    self.end(side).neighbors.heard(desk.now, source.into(), theirs, Heard::Asked);
                    self.outputs(desk);
                }
                let to = theirs.unwrap_or(frame.source());
                if (known || source.is_unspecified() || side == Side::Outside)
                    && let Some(bytes) = nd::answer(mac, target, source, to, side == Side::Inside)
                {
                    self.say(desk, side, bytes);
                }
            }
            Some(nd::Neighbor::Advertisement { target, mac: theirs, solicited, overrides }) => {
                let target = IpAddr::V6(target);
                if self.is_own(side, target) {
                    self.conflict(desk, side, target, theirs.unwrap_or(frame.source()));
                } else {
                    let heard = Heard::Answered { solicited, overrides };
                    self.end(side).neighbors.heard(desk.now, target, theirs, heard);
                    self.outputs(desk);
                }
            }
            None => {}
        }
    }

    fn conflict(&mut self, desk: &mut Desk<'_>, side: Side, address: IpAddr, mac: MacAddr) {
        self.counters.conflicts += 1;
        let at = &mut self.conflict_at[usize::from(side == Side::Outside)];
        if desk.now < *at {
            return;
        }
        *at = desk.now + DEFEND;
        let network = NetworkId(self.network);
        desk.notices.tell(DataplaneNotice::Conflict { network, address, mac });
        self.announce(desk, side, address);
    }

    /// Says to all that the address is ours.
    pub(super) fn announce(&mut self, desk: &mut Desk<'_>, side: Side, address: IpAddr) {
        let mac = self.mac(side);
        let bytes = match address {
            IpAddr::V4(v4) => Some(arp::announce(mac, v4)),
            IpAddr::V6(v6) => nd::announce(mac, v6, side == Side::Inside),
        };
        bytes.into_iter().for_each(|bytes| self.say(desk, side, bytes));
    }

    /// Asks whether anybody uses the address.
    pub(super) fn probe(&mut self, desk: &mut Desk<'_>, side: Side, address: IpAddr) {
        let mac = self.mac(side);
        let bytes = match address {
            IpAddr::V4(v4) => Some(arp::probe(mac, v4)),
            IpAddr::V6(v6) => nd::probe(mac, v6),
        };
        bytes.into_iter().for_each(|bytes| self.say(desk, side, bytes));
    }

    /// Does what the neighbour tables want done.
    pub(super) fn outputs(&mut self, desk: &mut Desk<'_>) {
        for side in [Side::Inside, Side::Outside] {
            if side == Side::Outside && self.outside.is_none() {
                return;
            }
            while let Some(output) = self.end(side).neighbors.poll_output() {
                match output {
                    Output::Solicit { address, to } => self.solicit(desk, side, address, to),
                    Output::Resolved { mac, packets, .. } => {
                        packets.into_iter().for_each(|packet| self.resolved(desk, side, packet, mac));
                    }
                    Output::Failed { packets, .. } => {
                        packets.into_iter().for_each(|packet| self.failed(desk, side, packet));
                    }
                }
            }
        }
    }

    fn solicit(&mut self, desk: &mut Desk<'_>, side: Side, target: IpAddr, to: Option<MacAddr>) {
        let mac = self.mac(side);
        let (v4, v6) = match (side, &self.outside) {
            (Side::Outside, Some(outside)) => (outside.config.v4.map(|own| own.address), outside.config.v6),
            _ => (Some(self.config.v4.address), self.config.v6),
        };
        let bytes = match target {
            IpAddr::V4(target) => Some(arp::ask(mac, v4.unwrap_or(Ipv4Addr::UNSPECIFIED), target, to)),
            IpAddr::V6(target) => {
                let own = v6.filter(|_| !target.is_unicast_link_local());
                let source: Ipv6Addr = own.map_or(link_local(mac), |own| own.address);
                nd::ask(mac, source, target, to)
            }
        };
        bytes.into_iter().for_each(|bytes| self.say(desk, side, bytes));
    }

    fn resolved(&mut self, desk: &mut Desk<'_>, side: Side, packet: Waiting, mac: MacAddr) {
        let Waiting { mut bytes, vnet, then } = packet;
        let origin = match then {
            Then::Again { from } => Origin::Resume(super::Resume { network: self.network, from }),
            Then::Send { .. } => {
                bytes[..6].copy_from_slice(&mac.0);
                bytes[6..12].copy_from_slice(&self.mac(side).0);
                self.origin(side)
            }
        };
        self.queue(desk, Born { origin, bytes, vnet });
    }

    /// A packet whose next hop does not answer: its sender, if it can be told, is a guest or (routed IPv6)
    /// beyond the outside.
    fn failed(&mut self, desk: &mut Desk<'_>, side: Side, packet: Waiting) {
        desk.lost.push((self.port(side), DropReason::Unreachable));
        let Waiting { bytes, then, .. } = packet;
        if let Then::Send { plain: false } = then {
            return;
        }
        let (frame, rest) = own(&bytes, packet.vnet);
        let Ok(read) = Packet::read(&frame) else { return };
        let to = if self.is_on_link(Side::Inside, read.source) { Side::Inside } else { Side::Outside };
        let quote = Quote::of(&frame, &read, &rest);
        let before = desk.by;
        desk.by = if let Then::Again { from } = then { from } else { NONE };
        self.error_about(desk, to, Error::HostUnreachable, quote);
        desk.by = before;
    }

    /// Fragments that had waited for their first one, on their way at last.
    pub(super) fn released(&mut self, desk: &mut Desk<'_>) {
        let Some(nat) = &mut self.nat else { return };
        for Released { side, verdict, bytes } in nat.released() {
            let (mut frame, rest) = own(&bytes, VnetHeader::default());
            let (to, mac, out) = match verdict {
                Verdict::Forward { to } => (self.next_hop(to), None, Side::Outside),
                Verdict::Deliver { to, mac } | Verdict::Hairpin { to, mac } => (Some(to), mac, Side::Inside),
                Verdict::Held | Verdict::Local => continue,
                Verdict::Drop(reason) => {
                    let other = if side == Side::Inside { Side::Outside } else { Side::Inside };
                    desk.lost.push((self.port(other), reason.into()));
                    continue;
                }
            };
            let Some(to) = to else {
                desk.lost.push((self.port(out), DropReason::NoRoute));
                continue;
            };
            let mut here = Desk {
                now: desk.now,
                tails: &rest,
                born: desk.born,
                traps: desk.traps,
                notices: desk.notices,
                lost: desk.lost,
                mtu: desk.mtu,
                by: desk.by,
            };
            let too_long = frame.len() - L3 > here.mtu(out);
            match self.deliver(&mut here, out, &mut frame, to, mac, (false, too_long)) {
                Act::Leave(side) => {
                    let whole = [frame.head(), rest.0].concat();
                    self.say(&mut here, side, whole);
                }
                Act::Drop(reason) => here.lost.push((self.port(out), reason)),
                Act::Taken | Act::Device => {}
            }
        }
    }

    /// Sends an owned frame whose link addresses are not known yet to where its destination is.
    pub(super) fn direct(&mut self, desk: &mut Desk<'_>, side: Side, frame: &mut Frame) -> Act {
        let packet = match Packet::read(frame) {
            Ok(packet) => packet,
            Err(reason) => return Act::Drop(reason),
        };
        address(frame, MacAddr::ZERO, self.mac(side));
        let next = match side {
            Side::Inside => Some(packet.destination),
            Side::Outside => self.next_hop(packet.destination),
        };
        match next {
            Some(next) => self.deliver(desk, side, frame, next, None, (false, false)),
            None => Act::Drop(DropReason::NoRoute),
        }
    }
}

/// The bytes behind a head that are ours.
struct Rest<'a>(&'a [u8]);

impl TailSource for Rest<'_> {
    fn copy_tail(&self, _: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        dst.copy_from_slice(self.0.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

/// A frame whose tail is the end of `bytes`.
fn own(bytes: &[u8], vnet: VnetHeader) -> (Frame, Rest<'_>) {
    let (head, rest) = bytes.split_at(bytes.len().min(HEAD_MAX));
    let mut frame = Frame::default();
    frame.receive_area()[..head.len()].copy_from_slice(head);
    frame.arrived(head.len(), Tail { len: rest.len() as u32, ..Tail::default() }, vnet);
    (frame, Rest(rest))
}
