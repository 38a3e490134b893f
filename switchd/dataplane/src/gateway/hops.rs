//! What the road sent to stations: handled after the burst was sent, and sent on from the other end.

use super::{Act, Desk, Gateway, Hop, ROUNDS, side_of};
use crate::drops::DropReason;
use crate::egress::Egress;
use crate::manage::Dataplane;
use crate::rim::Rim;
use crate::table::NONE;
use switchd_nat::{AHEAD, Classified, Side};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, TailSource};

impl Dataplane {
    /// Handles what has arrived at stations, and what arrives at others because of it. `frames` is the burst.
    #[inline(never)]
    pub(crate) fn hop<R: Rim>(
        &mut self,
        now: u64,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        for _ in 0..ROUNDS {
            if self.gateways.hops.is_empty() {
                return;
            }
            let spare = std::mem::take(&mut self.gateways.spare);
            let mut hops = std::mem::replace(&mut self.gateways.hops, spare);
            for run in hops.chunk_by(|one, next| one.port == next.port) {
                self.at_station(now, run, frames, tails, rim);
            }
            hops.clear();
            self.gateways.spare = hops;
        }
        while let Some(hop) = self.gateways.hops.pop() {
            let counters = &mut self.counters[hop.port as usize];
            counters.offered += 1;
            counters.dropped_out.count(DropReason::GatewayLoop, 1);
        }
    }

    /// Frames that the device of a gateway's port gives, with egress host. One without a destination MAC is
    /// for a guest whom the device has not heard of: the gateway finds it. The frames are put in another
    /// order: those that wait for an answer are behind the others, and not counted before they set out.
    pub(crate) fn take_from_device<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let network = self.ports[port as usize].station >> 1;
        for burst in frames.chunks_mut(BURST) {
            let mut kept = 0;
            for at in 0..burst.len() {
                if burst[at].destination().is_zero() {
                    match self.direct(now, network, Side::Inside, &mut burst[at], tails) {
                        Act::Leave(_) => {}
                        Act::Drop(reason) => {
                            self.count_lost(&mut vec![(port, reason)]);
                            continue;
                        }
                        _ => continue,
                    }
                }
                burst.swap(kept, at);
                kept += 1;
            }
            self.leave_by(now, port, &mut burst[..kept], 0, rim);
            self.hop(now, &mut burst[..kept], tails, rim);
        }
    }

    /// Frames at one station.
    fn at_station<R: Rim>(
        &mut self,
        now: u64,
        hops: &[Hop],
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let port = hops[0].port;
        let station = self.ports[port as usize].station;
        let slot = (station >> 1) as usize;
        let Some(mut gateway) = self.gateways.list.get_mut(slot).and_then(Option::take) else {
            let counters = &mut self.counters[port as usize];
            counters.offered += hops.len() as u64;
            counters.dropped_out.count(DropReason::LinkDown, hops.len() as u64);
            return;
        };
        let side = side_of(station);
        let mut acts = std::mem::take(&mut self.gateways.acts);
        let mut lost = std::mem::take(&mut self.gateways.lost);
        let mtu = self.mtu_of(&gateway);
        // Frames are classified and prepared ahead of the one that is handled, so that the misses overlap.
        let mut classified = std::mem::take(&mut self.gateways.classified);
        classify(&gateway, side, &hops[..hops.len().min(2 * AHEAD)], frames, &mut classified);
        prepare(&gateway, &mut classified, 0..AHEAD);
        let mut desk = Desk {
            now,
            tails,
            born: &mut self.born,
            traps: &mut self.traps,
            notices: &mut self.notices,
            lost: &mut lost,
            mtu,
            by: NONE,
        };
        for (at, hop) in hops.iter().enumerate() {
            if let Some(hop) = hops.get(at + 2 * AHEAD) {
                classify(&gateway, side, std::slice::from_ref(hop), frames, &mut classified);
            }
            prepare(&gateway, &mut classified, at + AHEAD..at + AHEAD + 1);
            desk.by = if side == Side::Inside { hop.from } else { NONE };
            let frame = &mut frames[hop.frame as usize];
            let seen = classified.get(at);
            let act = match side {
                Side::Inside => gateway.arrive_inside(&mut desk, frame, hop.from, seen),
                Side::Outside => gateway.arrive_outside(&mut desk, frame, hop.from, seen),
            };
            if act == Act::Device {
                frame.guest = gateway.guests.number(hop.from);
            }
            acts.push(act);
        }
        classified.clear();
        self.gateways.classified = classified;
        gateway.outputs(&mut desk);
        gateway.released(&mut desk);
        if std::mem::take(&mut gateway.has_told) {
            gateway.tell(&mut desk);
        }
        self.gateways.timer = self.gateways.timer.min(gateway.next_timer());
        let leave = [gateway.port(Side::Inside), gateway.port(Side::Outside)];
        self.gateways.list[slot] = Some(gateway);
        for (hop, act) in hops.iter().zip(&acts) {
            self.book(now, hop, *act, leave, &mut frames[hop.frame as usize], rim);
        }
        self.count_lost(&mut lost);
        self.gateways.lost = lost;
        self.leave_in_runs(now, hops, &acts, leave, frames, rim);
        acts.clear();
        self.gateways.acts = acts;
    }

    /// Counts a frame at its station, and gives it to the device where there is one.
    fn book<R: Rim>(
        &mut self,
        now: u64,
        hop: &Hop,
        act: Act,
        leave: [u32; 2],
        frame: &mut Frame,
        rim: &mut R,
    ) {
        if act == Act::Device {
            let Dataplane { ports, counters, mirrors, bonds, .. } = self;
            Egress { ports, counters, mirrors, rim, bonds, now, from: hop.from }.offer_plain(frame, hop.port);
            return;
        }
        if hop.resumed {
            if let Act::Drop(reason) = act {
                self.count_lost(&mut vec![(leave[1], reason)]);
            }
            return;
        }
        let counters = &mut self.counters[hop.port as usize];
        counters.offered += 1;
        match act {
            Act::Drop(reason) => counters.dropped_out.count(reason, 1),
            _ => {
                counters.tx_frames += 1;
                counters.tx_bytes += frame.len() as u64;
            }
        }
    }

    /// Packets that one end took and the other one does not send.
    pub(super) fn count_lost(&mut self, lost: &mut Vec<(u32, DropReason)>) {
        for (port, reason) in lost.drain(..) {
            let Some(counters) = self.counters.get_mut(port as usize) else { continue };
            counters.rx_frames += 1;
            counters.dropped_in.count(reason, 1);
        }
    }

    /// Frames next to each other that leave by the same end go down the road together.
    fn leave_in_runs<R: Rim>(
        &mut self,
        now: u64,
        hops: &[Hop],
        acts: &[Act],
        leave: [u32; 2],
        frames: &mut [Frame],
        rim: &mut R,
    ) {
        let mut at = 0;
        while at < hops.len() {
            let Act::Leave(side) = acts[at] else {
                at += 1;
                continue;
            };
            let first = hops[at].frame as usize;
            let mut end = at + 1;
            while end < hops.len()
                && acts[end] == Act::Leave(side)
                && hops[end].frame as usize == first + end - at
            {
                end += 1;
            }
            let port = leave[usize::from(side == Side::Outside)];
            self.leave_by(now, port, &mut frames[first..first + end - at], first, rim);
            at = end;
        }
    }

    /// Sends frames from a station's port on.
    pub(super) fn leave_by<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        frames: &mut [Frame],
        first: usize,
        rim: &mut R,
    ) {
        let Some(here) = self.ports.get(port as usize).filter(|here| here.alive) else { return };
        if let Some(reason) = here.blocked {
            let counters = &mut self.counters[port as usize];
            counters.rx_frames += frames.len() as u64;
            counters.rx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            counters.dropped_in.count(reason, frames.len() as u64);
            return;
        }
        self.leave_station(now, port, frames, first, rim);
    }

    pub(super) fn mtu_of(&self, gateway: &Gateway) -> [usize; 2] {
        let mtu = |network: u32| {
            let network = self.networks.get(network as usize);
            network.map_or(usize::from(u16::MAX), |network| network.frame_max as usize - 14)
        };
        let segment = gateway.outside.as_ref().map_or(NONE, |outside| outside.config.segment.0);
        [mtu(gateway.network), mtu(segment)]
    }
}

/// Parses and hashes frames. A gateway without translation has no use for it.
#[inline]
fn classify(gateway: &Gateway, side: Side, hops: &[Hop], frames: &mut [Frame], into: &mut Vec<Classified>) {
    for hop in hops {
        let frame = &mut frames[hop.frame as usize];
        // A priority tag says nothing to a router.
        if frame.outer_tag().is_some_and(|tci| tci & 0xfff == 0) {
            frame.pop_tag();
        }
        if let Some(nat) = &gateway.nat {
            into.push(nat.classify(frame, side));
        }
    }
}

/// Finds the flows of those that there are.
#[inline]
fn prepare(gateway: &Gateway, classified: &mut [Classified], range: std::ops::Range<usize>) {
    let end = range.end.min(classified.len());
    if let (Some(nat), Some(seen)) = (&gateway.nat, classified.get_mut(range.start..end)) {
        nat.prepare(seen);
    }
}
