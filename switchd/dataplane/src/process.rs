//! The road itself: one straight function over a burst.
//!
//! Three passes, each in order of arrival.
//! 1. `stage` admits every frame (`ingress`) and hashes its addresses; `touch` then loads their buckets, so
//!    that the misses of a whole burst overlap. Neither changes a table or a byte of a frame.
//! 2. `route` learns and looks up: a frame sees what all frames before it have taught.
//! 3. `send` (a file of its own) shows the frame to its mirrors, changes tags and offers it to its ports. Frames
//!    between two ports never overtake each other.
//!
//! A source that was the previous frame's has been learned a moment ago; a destination that was the
//! previous frame's is where it was, unless the table changed in between. The clock is an argument, and
//! counters of the ingress port and its network are kept in registers over the burst.

use crate::config::StpState;
use crate::drops::DropReason;
use crate::guards;
use crate::ingress::{self, Admitted};
use crate::lookup::{self, Learning, Way};
use crate::manage::Dataplane;
use crate::rim::{PortId, Rim};
use crate::table::{NONE, Network, Role};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, TailSource};

/// Where frames that came over a peer link may not go, or may go alone.
#[derive(Clone, Copy)]
pub(crate) struct Horizon {
    pub skip: u32,
    pub only: u32,
}

impl Horizon {
    pub const OPEN: Horizon = Horizon { skip: NONE, only: NONE };
}

/// What is known of a frame between the passes.
#[derive(Clone, Copy)]
pub(crate) struct Staged {
    pub outcome: Result<Admitted, DropReason>,
    pub network: u32,
    pub way: Way,
}

impl Default for Staged {
    fn default() -> Self {
        Staged { outcome: Err(DropReason::Runt), network: NONE, way: Way::Flood }
    }
}

pub(crate) type Burst = [Staged; BURST];

impl Dataplane {
    /// Takes a burst that arrived at `port` to where it is to go. `now` is the monotonic clock in
    /// nanoseconds. The road reads heads only; tails are the rim's. Outcomes of frames that the rim queued are to be reported with [`Dataplane::settle`].
    /// Frames of a port that does not exist go nowhere and are not counted.
    pub fn process<R: Rim>(
        &mut self,
        now: u64,
        port: PortId,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let Some(here) = self.ports.get(port.0 as usize).filter(|here| here.alive) else { return };
        let (blocked, role) = (here.blocked, here.role);
        if let Some(reason) = blocked {
            if reason == DropReason::StpBlocked {
                return self.blocked_by_stp(now, port.0, frames, tails);
            }
            let counters = &mut self.counters[port.0 as usize];
            counters.rx_frames += frames.len() as u64;
            counters.rx_bytes += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            counters.dropped_in.count(reason, frames.len() as u64);
            return;
        }
        match role {
            Role::Member => return self.collect(now, port.0, frames, tails, rim),
            Role::Peer => return self.arrive_from_peer(now, port.0, frames, tails, rim),
            Role::Single | Role::Bond => {}
        }
        if self.ports[port.0 as usize].station != NONE {
            return self.take_from_device(now, port.0, frames, tails, rim);
        }
        self.walk(now, port.0, Horizon::OPEN, frames, tails, rim);
    }

    /// The three passes, for a port that is open and no member of anything.
    pub(crate) fn walk<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        horizon: Horizon,
        frames: &mut [Frame],
        tails: &impl TailSource,
        rim: &mut R,
    ) {
        let port = PortId(port);
        for burst in frames.chunks_mut(BURST) {
            self.stage(port.0, burst);
            self.touch(port.0, burst.len());
            self.route(now, port.0, burst.len());
            let (flooded, aside) = self.send(now, port.0, horizon, burst, 0, rim);
            if aside != 0 {
                self.aside(now, port.0, burst, aside, tails);
            }
            if !self.gateways.hops.is_empty() {
                self.hop(now, burst, tails, rim);
            }
            let moves = self.counters[port.0 as usize].mac_moves;
            if flooded > 0 || self.guards.ports[port.0 as usize].seen != moves {
                self.suspect(now, port.0, flooded, rim);
            }
        }
    }

    /// A port that spanning tree blocks learns, while it may, and takes BPDUs.
    #[inline(never)]
    fn blocked_by_stp(&mut self, now: u64, port: u32, frames: &mut [Frame], tails: &impl TailSource) {
        for burst in frames.chunks_mut(BURST) {
            self.stage(port, burst);
            if self.cold[port as usize].stp == StpState::Learning {
                self.route(now, port, burst.len());
            }
            let mut aside = 0;
            for (at, frame) in burst.iter().enumerate() {
                if guards::reserved(frame).is_some() {
                    aside |= 1 << at;
                } else {
                    let outcome = self.staged[at].outcome.as_ref();
                    let reason = outcome.err().copied().unwrap_or(DropReason::StpBlocked);
                    self.counters[port as usize].dropped_in.count(reason, 1);
                }
            }
            self.aside(now, port, burst, aside, tails);
        }
    }

    /// The network that a staged frame is in.
    pub(crate) fn staged_network(&self, at: usize) -> Option<u32> {
        Some(self.staged[at].network).filter(|&network| network != NONE)
    }

    /// Why a staged frame goes no further.
    pub(crate) fn staged_reason(&self, at: usize) -> DropReason {
        self.staged[at].outcome.as_ref().err().copied().unwrap_or(DropReason::ReservedGroup)
    }

    /// The way from a gateway's port on, for frames that the gateway sends; `first` is the place of the
    /// first of them in their burst.
    pub(crate) fn leave_station<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        frames: &mut [Frame],
        first: usize,
        rim: &mut R,
    ) {
        self.stage(port, frames);
        self.touch(port, frames.len());
        self.route(now, port, frames.len());
        let (_, aside) = self.send(now, port, Horizon::OPEN, frames, first, rim);
        // What a gateway is given to send may have any address.
        self.counters[port as usize].dropped_in.count(DropReason::ReservedGroup, aside.count_ones().into());
    }

    fn stage(&mut self, port: u32, frames: &mut [Frame]) {
        let here = &self.ports[port as usize];
        let networks = &self.networks;
        let mut bytes = 0;
        let staged = self.staged.iter_mut();
        if let Some(uplink) = here.uplink.as_deref() {
            for (frame, staged) in frames.iter_mut().zip(staged) {
                bytes += frame.len() as u64;
                (staged.network, staged.outcome) = match ingress::network_of(frame, uplink) {
                    Err(reason) => (NONE, Err(reason)),
                    Ok((id, pop)) => {
                        let network = &networks[id as usize];
                        let admitted = ingress::admit_from_uplink(frame, here, network, pop);
                        // Nothing is learned there.
                        match network.uplink_stp == StpState::Discarding && admitted.is_ok() {
                            true => (id, Err(DropReason::StpBlocked)),
                            false => (id, admitted),
                        }
                    }
                };
            }
        } else {
            let network = &networks[here.network as usize];
            let untagged = ingress::untagged(here);
            for (frame, staged) in frames.iter_mut().zip(staged) {
                bytes += frame.len() as u64;
                staged.network = here.network;
                // Told apart so that each way writes its own: half the cost of moving the result.
                match ingress::admit(frame, here, network, untagged) {
                    Ok(admitted) => staged.outcome = Ok(admitted),
                    Err(reason) => staged.outcome = Err(reason),
                }
            }
        }
        let counters = &mut self.counters[port as usize];
        counters.rx_frames += frames.len() as u64;
        counters.rx_bytes += bytes;
    }

    /// Brings the buckets of a burst into the cache. So little is done a frame here that the loads of some
    /// twenty frames are under way at the same time.
    fn touch(&self, port: u32, frames: usize) {
        let here = &self.ports[port as usize];
        let one = self.networks.get(here.network as usize);
        if one.is_some_and(|network| !network.fdb.is_large()) {
            return;
        }
        let mut touched = 0;
        for staged in &self.staged[..frames] {
            let Ok(admitted) = &staged.outcome else { continue };
            let fdb = &one.unwrap_or_else(|| &self.networks[staged.network as usize]).fdb;
            touched ^= fdb.touch(admitted.source_hash) ^ fdb.touch(admitted.destination_hash);
        }
        std::hint::black_box(touched);
    }

    fn route(&mut self, now: u64, port: u32, frames: usize) {
        let Dataplane { ports, counters, networks, notices, staged, .. } = self;
        let home = ports[port as usize].network;
        let mut learning = Learning { now, ports, counters, notices };
        let mut train = Train::default();
        if let Some(network) = networks.get_mut(home as usize) {
            let tick = network.clock.tick(now);
            for staged in staged[..frames].iter_mut() {
                route_one(network, staged, port, tick, &mut train, &mut learning);
            }
            return;
        }
        for staged in staged[..frames].iter_mut() {
            let Some(network) = networks.get_mut(staged.network as usize) else { continue };
            if train.network != staged.network {
                train = Train { network: staged.network, ..Train::default() };
            }
            let tick = network.clock.tick(now);
            route_one(network, staged, port, tick, &mut train, &mut learning);
        }
    }
}

/// Learns the source of one frame and looks up its destination.
#[inline(always)]
fn route_one(
    network: &mut Network,
    staged: &mut Staged,
    port: u32,
    tick: u16,
    train: &mut Train,
    learning: &mut Learning<'_>,
) {
    let Ok(admitted) = &staged.outcome else { return };
    if train.source != admitted.source {
        if lookup::known(&mut network.fdb, admitted, port, tick) {
            train.source = admitted.source;
        } else {
            lookup::learn(network, staged.network, admitted.source, port, learning);
            (train.source, train.destination) = (0, 0);
        }
    }
    if train.destination != admitted.destination {
        train.way = lookup::way(network, admitted, tick);
        train.destination = admitted.destination;
    } else if admitted.destination == 0 {
        train.way = Way::Flood;
    }
    staged.way = train.way;
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
