//! The road itself: one straight function over a burst.
//!
//! Two passes. The first admits every frame (`ingress`), hashes its addresses and touches their buckets, so
//! that the loads of a whole burst overlap; it changes no table and no byte of a frame. The second takes
//! the frames in order of arrival: mirrors, learning, lookup, egress. So frames between two ports never
//! overtake each other, and a frame sees what all frames before it have taught.
//!
//! Two shortcuts for trains of frames: a source that was the previous frame's has been learned a moment
//! ago; a destination that was the previous frame's is where it was, unless the table changed in between.
//! The clock is an argument, and counters of the ingress port are kept in registers over the burst.

use crate::drops::DropReason;
use crate::egress::{Egress, set_tci};
use crate::fdb;
use crate::ingress::{self, Admitted, Carry};
use crate::lookup::{self, Learning, Way};
use crate::manage::Dataplane;
use crate::rim::{Direction, PortId, Rim};
use crate::table::{NONE, Network, Port};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, TailSource};

/// What the first pass found out about a frame.
#[derive(Clone, Copy)]
pub(crate) struct Staged {
    network: u32,
    outcome: Result<Admitted, DropReason>,
}

pub(crate) const UNSTAGED: Staged = Staged { network: NONE, outcome: Err(DropReason::Runt) };

impl Dataplane {
    /// Takes a burst that arrived at `port` to where it is to go. `now` is the monotonic clock in
    /// nanoseconds. Outcomes of frames that the rim queued are to be reported with [`Dataplane::settle`].
    /// Frames of a port that does not exist go nowhere and are not counted.
    pub fn process<R: Rim>(
        &mut self,
        now: u64,
        port: PortId,
        frames: &mut [Frame],
        _tails: &impl TailSource,
        rim: &mut R,
    ) {
        let Some(here) = self.ports.get(port.0 as usize).filter(|here| here.alive) else { return };
        if let Some(reason) = here.blocked {
            let counters = &mut self.counters[port.0 as usize];
            counters.rx_frames += frames.len() as u64;
            counters.rx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            counters.dropped_in.count(reason, frames.len() as u64);
            return;
        }
        for burst in frames.chunks_mut(BURST) {
            self.stage(port.0, burst);
            self.forward(now, port.0, burst, rim);
        }
    }

    /// Pass 1.
    fn stage(&mut self, port: u32, frames: &mut [Frame]) {
        let here = &self.ports[port as usize];
        let networks = &self.networks;
        let mut bytes = 0;
        let mut touched = 0;
        let staged = self.staged.iter_mut();
        if let Some(uplink) = here.uplink.as_deref() {
            for (frame, staged) in frames.iter_mut().zip(staged) {
                bytes += frame.len() as u64;
                *staged = match ingress::network_of(frame, uplink) {
                    Err(reason) => Staged { network: NONE, outcome: Err(reason) },
                    Ok((id, pop)) => {
                        let network = &networks[id as usize];
                        let outcome = ingress::admit_from_uplink(frame, here, network, pop);
                        touched ^= touch(network, &outcome);
                        Staged { network: id, outcome }
                    }
                };
            }
        } else {
            let network = &networks[here.network as usize];
            for (frame, staged) in frames.iter_mut().zip(staged) {
                bytes += frame.len() as u64;
                staged.network = here.network;
                staged.outcome = ingress::admit(frame, here, network);
                touched ^= touch(network, &staged.outcome);
            }
        }
        std::hint::black_box(touched);
        let counters = &mut self.counters[port as usize];
        counters.rx_frames += frames.len() as u64;
        counters.rx_bytes += bytes;
    }

    /// Pass 2.
    fn forward<R: Rim>(&mut self, now: u64, port: u32, frames: &mut [Frame], rim: &mut R) {
        let tick = fdb::tick(now);
        let Dataplane { ports, counters, networks, mirrors, notices, staged, .. } = self;
        let mut train = Train::default();
        for (frame, staged) in frames.iter_mut().zip(staged.iter()) {
            let watched = watchers(&ports[port as usize], networks, staged.network);
            if watched != 0 {
                mirrors.show(watched, port, Direction::Rx, frame, rim, counters, ports);
            }
            let admitted = match &staged.outcome {
                Ok(admitted) => admitted,
                Err(reason) => {
                    counters[port as usize].dropped_in.count(*reason, 1);
                    continue;
                }
            };
            let network = &mut networks[staged.network as usize];
            if train.network != staged.network {
                train = Train { network: staged.network, ..Train::default() };
            }
            if train.source != admitted.source {
                if lookup::known(&mut network.fdb, admitted, port, tick) {
                    train.source = admitted.source;
                } else {
                    let mut learning = Learning { now, ports, counters, notices };
                    lookup::learn(network, staged.network, admitted.source, port, &mut learning);
                    (train.source, train.destination) = (0, 0);
                }
            }
            if train.destination != admitted.destination || train.destination == 0 {
                train.way = lookup::way(network, admitted, tick);
                train.destination = admitted.destination;
            }
            let mut class = admitted.class;
            if admitted.pop {
                frame.pop_tag();
            }
            if class.carry == Carry::Priority {
                set_tci(frame, class.tci);
                class.carry = Carry::Tagged;
            }
            let mut egress = Egress { ports, counters, mirrors, rim };
            match train.way {
                Way::Port(out) if out == port => {
                    counters[port as usize].dropped_in.count(DropReason::SamePort, 1);
                }
                Way::Port(out) => {
                    egress.offer(frame, &mut class, network, out);
                    counters[port as usize].forwarded += 1;
                    network.counters.forwarded += 1;
                    network.counters.offered += 1;
                }
                Way::Flood => {
                    let mut fanout = 0;
                    for &out in &network.flood {
                        if out != port && egress.ports[out as usize].is_member(class.fid) {
                            egress.offer(frame, &mut class, network, out);
                            fanout += 1;
                        }
                    }
                    if fanout == 0 {
                        counters[port as usize].dropped_in.count(DropReason::NoReceiver, 1);
                        continue;
                    }
                    counters[port as usize].flooded += 1;
                    network.counters.flooded += 1;
                    network.counters.fanout += fanout;
                    network.counters.offered += fanout;
                }
            }
        }
    }
}

/// The previous frame's addresses and what was found for them.
struct Train {
    network: u32,
    source: u64,
    destination: u64,
    way: Way,
}

impl Default for Train {
    fn default() -> Self {
        Train { network: NONE, source: 0, destination: 0, way: Way::Flood }
    }
}

#[inline(always)]
fn touch(network: &Network, outcome: &Result<Admitted, DropReason>) -> u64 {
    match outcome {
        Ok(admitted) => {
            network.fdb.touch(admitted.source_hash) ^ network.fdb.touch(admitted.destination_hash)
        }
        Err(_) => 0,
    }
}

/// The mirrors that want to see what enters by a port.
#[inline(always)]
fn watchers(port: &Port, networks: &[Network], network: u32) -> u32 {
    match port.network {
        NONE => port.mirrors_rx | networks.get(network as usize).map_or(0, |network| network.mirrors_rx),
        _ => port.mirrors_rx,
    }
}
