//! The third pass: each frame to its mirrors and to the ports that it is for.
//!
//! Frames of a guest that leave as they came, one after the other for the same port, are offered as a run (a third
//! less work a frame than one by one). The rim takes as many from its front as it can; the next one is offered by
//! itself, and what is left of the run after that.

use crate::config::StpState;
use crate::drops::DropReason;
use crate::egress::{Egress, set_tci};
use crate::gateway::Gateways;
use crate::guards::Guards;
use crate::ingress::{Admitted, Carry, Class};
use crate::lookup::Way;
use crate::manage::Dataplane;
use crate::notices::{DataplaneNotice, Notices};
use crate::process::{Horizon, Staged};
use crate::rim::{Direction, PortId, Rim};
use crate::storm::Verdict;
use crate::table::{NONE, Network, Port};
use switchd_wire::Frame;

impl Dataplane {
    /// `first` is the place of the first frame in its burst. Returns how many frames would flood, and those
    /// that are to be looked at once more, a bit each.
    pub(crate) fn send<R: Rim>(
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
        // Looked for once, however often the rim stops within it.
        let mut run = Run { out: NONE, end: 0 };
        // Frames up to here are offered one by one.
        let mut singles = 0;
        let mut next = 0;
        while next < frames.len() {
            let at = next;
            next += 1;
            if !SHARED && at >= singles && here.mirrors_rx == 0 {
                if at >= run.end {
                    run = run_of(&staged[..frames.len()], at, port, egress.ports);
                }
                if at < run.end {
                    let taken = egress.offer_run(&frames[at..run.end], run.out);
                    let counters = &mut networks[here.network as usize].counters;
                    counters.forwarded += taken as u64;
                    counters.offered += taken as u64;
                    forwarded += taken as u64;
                    if taken > 0 {
                        // The rim stopped at a frame that has to go by itself; behind it the run may go on.
                        next = at + taken;
                        singles = next + usize::from(next < run.end);
                        continue;
                    }
                    // A port that takes none now (a tap never does) is not asked again for each frame.
                    singles = run.end;
                }
            }
            let (frame, staged) = (&mut frames[at], &staged[at]);
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

/// Frames in a row, up to `end`, that go the short way to the port `out`.
struct Run {
    out: u32,
    end: usize,
}

/// The run that begins at `at`, for which `send_from` does nothing but offer the frames, one by one too; it ends
/// there if there is none.
#[inline]
fn run_of(staged: &[Staged], at: usize, port: u32, ports: &[Port]) -> Run {
    let none = Run { out: NONE, end: at };
    let Way::Port(out) = staged[at].way else { return none };
    if out == port || !ports[out as usize].express {
        return none;
    }
    let short = |staged: &&Staged| {
        staged.way == Way::Port(out)
            && staged.outcome.as_ref().is_ok_and(|admitted| admitted.class.is_plain())
    };
    Run { out, end: at + staged[at..].iter().take_while(short).count() }
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
