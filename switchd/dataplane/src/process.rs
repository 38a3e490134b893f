//! The road itself: one straight function over a burst.
//!
//! Three passes, each in order of arrival.
//! 1. `stage` admits every frame (`ingress`) and hashes its addresses; `touch` then loads their buckets, so
//!    that the misses of a whole burst overlap. Neither changes a table or a byte of a frame.
//! 2. `route` learns and looks up: a frame sees what all frames before it have taught.
//! 3. `send` shows the frame to its mirrors, changes tags and offers it to its ports. Frames between two
//!    ports never overtake each other.
//!
//! A source that was the previous frame's has been learned a moment ago; a destination that was the
//! previous frame's is where it was, unless the table changed in between. The clock is an argument, and
//! counters of the ingress port and its network are kept in registers over the burst.

use crate::config::StpState;
use crate::drops::DropReason;
use crate::egress::{Egress, set_tci};
use crate::gateway::Gateways;
use crate::guards::{self, Guards};
use crate::ingress::{self, Admitted, Carry, Class};
use crate::lookup::{self, Learning, Way};
use crate::manage::Dataplane;
use crate::notices::{DataplaneNotice, Notices};
use crate::rim::{Direction, PortId, Rim};
use crate::storm::Verdict;
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
    outcome: Result<Admitted, DropReason>,
    network: u32,
    way: Way,
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

    /// `first` is the place of the first frame in its burst. Returns how many frames would flood, and those
    /// that are to be looked at once more, a bit each.
    fn send<R: Rim>(
        &mut self,
        now: u64,
        port: u32,
        horizon: Horizon,
        frames: &mut [Frame],
        first: usize,
        rim: &mut R,
    ) -> (u64, u64) {
        // Told apart so that guests' frames do not pay for what only uplinks have.
        match self.ports[port as usize].uplink {
            None => self.send_from::<R, false>(now, port, Horizon::OPEN, frames, first, rim),
            Some(_) => self.send_from::<R, true>(now, port, horizon, frames, first, rim),
        }
    }

    fn send_from<R: Rim, const SHARED: bool>(
        &mut self,
        now: u64,
        port: u32,
        horizon: Horizon,
        frames: &mut [Frame],
        first: usize,
        rim: &mut R,
    ) -> (u64, u64) {
        let Dataplane {
            ports, counters, networks, mirrors, staged, bonds, guards, notices, gateways, ..
        } = self;
        let here = &ports[port as usize];
        let (mut forwarded, mut flooded) = (0, 0);
        let (mut floods, mut aside) = (0, 0);
        let mut egress = Egress { ports, counters, mirrors, rim, bonds, now, from: port };
        for (at, (frame, staged)) in frames.iter_mut().zip(staged.iter()).enumerate() {
            let mut watched = here.mirrors_rx;
            if SHARED {
                watched |= networks.get(staged.network as usize).map_or(0, |network| network.mirrors_rx);
            }
            if watched != 0 {
                egress.show(watched, port, Direction::Rx, frame);
            }
            let admitted = match &staged.outcome {
                Ok(admitted) => admitted,
                Err(DropReason::ReservedGroup | DropReason::NoNetwork) => {
                    aside |= 1 << at;
                    continue;
                }
                Err(reason) => {
                    egress.counters[port as usize].dropped_in.count(*reason, 1);
                    continue;
                }
            };
            let network = &mut networks[staged.network as usize];
            if SHARED && network.uplink_stp != StpState::Forwarding {
                egress.counters[port as usize].dropped_in.count(DropReason::StpBlocked, 1);
                continue;
            }
            let way = if !SHARED || horizon.only == NONE { staged.way } else { Way::Port(horizon.only) };
            match way {
                Way::Port(out) if out == port => {
                    egress.counters[port as usize].dropped_in.count(DropReason::SamePort, 1);
                }
                Way::Port(out) if SHARED && out == horizon.skip => {
                    egress.counters[port as usize].dropped_in.count(DropReason::SplitHorizon, 1);
                }
                Way::Port(out) => {
                    network.counters.forwarded += 1;
                    network.counters.offered += 1;
                    forwarded += 1;
                    let mut class = admitted.class;
                    if !class.is_plain() {
                        class = enter(frame, admitted);
                    }
                    if class.is_plain() && egress.ports[out as usize].express {
                        egress.offer_plain(frame, out);
                    } else if egress.ports[out as usize].is_open_station() {
                        egress.show(egress.ports[out as usize].mirrors_tx, out, Direction::Tx, frame);
                        gateways.arrive(first + at, out, port);
                    } else {
                        egress.offer(frame, &mut class, network, out);
                    }
                }
                Way::Flood if guards.is_probe(frame) => aside |= 1 << at,
                Way::Flood if !SHARED && !pass(guards, notices, now, port) => {
                    floods += 1;
                    egress.counters[port as usize].dropped_in.count(DropReason::Storm, 1);
                }
                Way::Flood => match flood(&mut egress, frame, admitted, network, port, horizon.skip)
                    + group(&mut egress, frame, admitted, network, port, first + at, gateways)
                {
                    0 => egress.counters[port as usize].dropped_in.count(DropReason::NoReceiver, 1),
                    fanout => {
                        network.counters.flooded += 1;
                        network.counters.fanout += fanout;
                        network.counters.offered += fanout;
                        flooded += 1;
                    }
                },
            }
        }
        counters[port as usize].forwarded += forwarded;
        counters[port as usize].flooded += flooded;
        (if SHARED { 0 } else { flooded + floods }, aside)
    }
}

/// May a guest's port flood one more frame?
#[inline]
fn pass(guards: &mut Guards, notices: &mut Notices, now: u64, port: u32) -> bool {
    let storm = &mut guards.ports[port as usize].storm;
    match storm.judge(now) {
        Verdict::Pass => true,
        Verdict::Cut => false,
        Verdict::Began => {
            notices.tell(DataplaneNotice::Storm { port: PortId(port), limit: storm.limit() });
            false
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

/// Takes the uplink's tag off, and makes a priority tag the VLAN's: what the mirrors saw is over.
fn enter(frame: &mut Frame, admitted: &Admitted) -> Class {
    if admitted.class.pops() {
        frame.pop_tag();
    }
    match admitted.class.carry() {
        Carry::Priority => {
            set_tci(frame, admitted.class.tci());
            admitted.class.carried(Carry::Tagged)
        }
        carry => admitted.class.carried(carry),
    }
}

/// Offers a frame to every other port that is up and a member of its VLAN; returns how many these are.
#[inline(never)]
fn flood<R: Rim>(
    egress: &mut Egress<'_, R>,
    frame: &mut Frame,
    admitted: &Admitted,
    network: &Network,
    port: u32,
    skip: u32,
) -> u64 {
    let mut class = enter(frame, admitted);
    let mut fanout = 0;
    for &out in &network.flood {
        let to = &egress.ports[out as usize];
        if out == port || out == skip || !to.is_member(class.fid()) {
            continue;
        }
        if class.is_plain() && to.express {
            egress.offer_plain(frame, out);
        } else {
            egress.offer(frame, &mut class, network, out);
        }
        fanout += 1;
    }
    fanout
}

/// Offers a frame for a group to the network's gateways; returns how many these are.
#[inline]
fn group<R: Rim>(
    egress: &mut Egress<'_, R>,
    frame: &mut Frame,
    admitted: &Admitted,
    network: &Network,
    port: u32,
    at: usize,
    gateways: &mut Gateways,
) -> u64 {
    // They stand outside of the network's named VLANs.
    if network.stations.is_empty() || admitted.destination != 0 || admitted.class.fid() != 0 {
        return 0;
    }
    let mut fanout = 0;
    for &out in network.stations.iter().filter(|&&out| out != port) {
        egress.show(egress.ports[out as usize].mirrors_tx, out, Direction::Tx, frame);
        gateways.arrive(at, out, port);
        fanout += 1;
    }
    fanout
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
