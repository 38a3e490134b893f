//! Guards of guest ports, and frames for reserved addresses.
//!
//! Uplinks, bonds and members are never guarded: what comes from there is somebody else's to judge.
//!
//! - **BPDU guard**: a BPDU from a guest shuts its port. With the guard off it goes to spanning tree, where
//!   the network runs it, and is dropped otherwise.
//! - **Loop guard**: where a loop is plausible ([`FLOODS`] flooded frames from one port within [`WINDOW`], or
//!   [`MOVES`] addresses that moved to it) a probe leaves by that port, at most one in [`PROBE_PORT`] by a port
//!   and one in [`PROBE_NETWORK`] by a network. A guest that joins two of its ports sends it back: when it
//!   returns within [`PROBE_LIFE`] by a port of the same network, that port is shut. The pause between two
//!   probes of a network is there so that one of two ports is shut and not both. An idle network sends none.
//! - **Storm control**: see [`crate::storm`].
//!
//! A probe is a broadcast-like frame: destination [`PROBE_TO`], type 0x88B5 (IEEE 802 local experimental
//! 1), with a number that this daemon chose at random, the network, the port and the time. A guest that
//! sends one on can shut nobody's port but its own. Probes of other daemons pass as any frame does.
//!
//! A port that is shut drops what comes and goes (`guard-shut`) until it is set up again.

use crate::config::{PortConfig, StpState};
use crate::drops::DropReason;
use crate::egress::Egress;
use crate::manage::Dataplane;
use crate::notices::{DataplaneNotice, Shut};
use crate::rim::{NetworkId, PortId, Rim};
use crate::storm::Storm;
use crate::table::{NONE, Role};
use crate::trap::{TrapKind, Trapped};
use switchd_wire::secret::Secret;
use switchd_wire::{Frame, MacAddr, TailSource};

const MILLISECOND: u64 = 1_000_000;
pub const WINDOW: u64 = 100 * MILLISECOND;
/// A thousand a second: a twentieth of the storm limit.
pub const FLOODS: u32 = 100;
pub const MOVES: u64 = 20;
pub const PROBE_PORT: u64 = 1_000 * MILLISECOND;
pub const PROBE_NETWORK: u64 = 200 * MILLISECOND;
pub const PROBE_LIFE: u64 = 5_000 * MILLISECOND;
/// A locally administered group address.
pub const PROBE_TO: MacAddr = MacAddr([0x03, 0x73, 0x77, 0x64, 0x4c, 0x50]);
const PROBE_TYPE: [u8; 2] = [0x88, 0xb5];
/// Of [`Secret`].
const PROBES: u32 = u32::from_be_bytes(*b"prob");
const PROBE_NAME: &[u8; 8] = b"swd-loop";
/// Addresses, type, name, daemon, network, port, time, and padding to the least frame.
const PROBE_LEN: usize = 60;

/// What a frame for 01-80-C2-00-00-00…0F is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reserved {
    /// LACP, Marker and others (802.3 57A).
    Slow,
    Lldp,
    Bpdu,
    Other,
}

/// `None`: an ordinary frame.
#[inline]
pub(crate) fn reserved(frame: &Frame) -> Option<Reserved> {
    let head = frame.head();
    let &[1, 0x80, 0xc2, 0, 0, last @ 0..=15] = head.first_chunk::<6>()? else { return None };
    Some(match head.get(12..) {
        Some(&[0x88, 0x09, ..]) if last == 2 => Reserved::Slow,
        Some(&[0x88, 0xcc, ..]) => Reserved::Lldp,
        Some(&[0x81, 0, _, _, _, _, 0x42, 0x42, 0x03, ..] | &[_, _, 0x42, 0x42, 0x03, ..]) if last == 0 => {
            Reserved::Bpdu
        }
        _ => Reserved::Other,
    })
}

/// The bytes of a whole frame.
pub(crate) fn whole(frame: &Frame, tails: &impl TailSource) -> Option<Vec<u8>> {
    let mut bytes = vec![0; frame.len()];
    frame.copy_out(tails, 0, &mut bytes).ok().map(|()| bytes)
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Guard {
    pub storm: Storm,
    bpdu: bool,
    loops: bool,
    /// Flooded frames since `window` began, and moves to this port at that time.
    window: u64,
    floods: u32,
    moves: u64,
    /// Moves to this port when last looked.
    pub seen: u64,
    /// No probe before.
    probe_at: u64,
}

pub(crate) struct Guards {
    /// Of this daemon, in its probes.
    id: u64,
    pub ports: Vec<Guard>,
    /// No probe of a network before.
    networks: Vec<u64>,
}

impl Guards {
    pub fn new(seed: u64) -> Guards {
        // Guests see the number: it must not tell the key of the tables.
        let id = Secret::new(seed, PROBES).number();
        Guards { id, ports: Vec::new(), networks: Vec::new() }
    }

    /// A new port at this index.
    pub fn reset(&mut self, port: usize) {
        if self.ports.len() <= port {
            self.ports.resize(port + 1, Guard::default());
        }
        self.ports[port] = Guard::default();
    }

    pub fn set(&mut self, port: usize, config: &PortConfig) {
        let Some(guard) = self.ports.get_mut(port) else { return };
        if guard.storm.limit() != config.storm_limit.unwrap_or(0) {
            guard.storm = Storm::new(config);
        }
        (guard.bpdu, guard.loops) = (config.bpdu_guard, config.loop_guard);
    }

    /// Is this a probe of ours?
    #[inline]
    pub fn is_probe(&self, frame: &Frame) -> bool {
        frame.destination() == PROBE_TO && self.probe(frame.head()).is_some()
    }

    /// Network, port and time of a probe of ours.
    fn probe(&self, head: &[u8]) -> Option<(u32, u32, u64)> {
        let body = head.get(12..PROBE_LEN)?;
        let (kind, body) = body.split_first_chunk::<2>()?;
        let (name, body) = body.split_first_chunk::<8>()?;
        let (id, body) = body.split_first_chunk::<8>()?;
        let (network, body) = body.split_first_chunk::<4>()?;
        let (port, body) = body.split_first_chunk::<4>()?;
        let (time, _) = body.split_first_chunk::<8>()?;
        let ours = *kind == PROBE_TYPE && name == PROBE_NAME && u64::from_be_bytes(*id) == self.id;
        ours.then_some((u32::from_be_bytes(*network), u32::from_be_bytes(*port), u64::from_be_bytes(*time)))
    }

    fn write(&self, network: u32, port: u32, now: u64) -> Option<Frame> {
        let mut bytes = [0; PROBE_LEN];
        bytes[..6].copy_from_slice(&PROBE_TO.0);
        let [.., a, b, c, d] = self.id.to_be_bytes();
        bytes[6..12].copy_from_slice(&[0x02, 0x73, a, b, c, d]);
        bytes[12..14].copy_from_slice(&PROBE_TYPE);
        bytes[14..22].copy_from_slice(PROBE_NAME);
        bytes[22..30].copy_from_slice(&self.id.to_be_bytes());
        bytes[30..34].copy_from_slice(&network.to_be_bytes());
        bytes[34..38].copy_from_slice(&port.to_be_bytes());
        bytes[38..46].copy_from_slice(&now.to_be_bytes());
        Frame::from_bytes(&bytes)
    }
}

impl Dataplane {
    /// A frame of our own leaves by one port and no other: LACPDUs, LLDP, BPDUs, probes. It belongs to no
    /// network. Spanning tree does not hold it up. False when there is no such port.
    pub(crate) fn emit<R: Rim>(&mut self, now: u64, port: PortId, frame: &mut Frame, rim: &mut R) -> bool {
        if self.port(port).is_none() {
            return false;
        }
        let Dataplane { ports, counters, mirrors, bonds, .. } = self;
        Egress { ports, counters, mirrors, rim, bonds, now, from: NONE }.own(frame, port.0);
        true
    }

    /// Frames of a burst that were put aside (a bit each): reserved addresses, and probes of ours.
    #[inline(never)]
    pub(crate) fn aside(
        &mut self,
        now: u64,
        port: u32,
        frames: &[Frame],
        aside: u64,
        tails: &impl TailSource,
    ) {
        for at in (0..frames.len()).filter(|at| aside >> at & 1 != 0) {
            let outcome = match reserved(&frames[at]) {
                Some(kind) => self.reserved(port, at, kind, &frames[at], tails),
                None if self.guards.is_probe(&frames[at]) => {
                    self.probe_back(now, port, &frames[at]);
                    Ok(())
                }
                None => Err(self.staged_reason(at)),
            };
            let counters = &mut self.counters[port as usize];
            match outcome {
                Ok(()) => counters.trapped += 1,
                Err(reason) => counters.dropped_in.count(reason, 1),
            }
        }
    }

    fn reserved(
        &mut self,
        port: u32,
        at: usize,
        kind: Reserved,
        frame: &Frame,
        tails: &impl TailSource,
    ) -> Result<(), DropReason> {
        let here = &self.ports[port as usize];
        let network = match here.uplink.as_deref() {
            Some(uplink) => self.staged_network(at).unwrap_or(uplink.untagged),
            None => here.network,
        };
        let rstp = self.networks.get(network as usize).is_some_and(|network| network.rstp);
        let kind = match kind {
            Reserved::Lldp if here.uplink.is_some() => TrapKind::Lldp,
            Reserved::Bpdu if here.uplink.is_none() && self.guards.ports[port as usize].bpdu => {
                self.shut(PortId(port), Shut::Bpdu);
                return Err(DropReason::ReservedGroup);
            }
            Reserved::Bpdu if rstp => TrapKind::Bpdu,
            _ => return Err(self.staged_reason(at)),
        };
        let mut bytes = whole(frame, tails).ok_or(DropReason::BadOffload)?;
        if kind == TrapKind::Bpdu && bytes[12..14] == [0x81, 0] {
            bytes.drain(12..16);
        }
        let network = Some(NetworkId(network)).filter(|_| rstp);
        match self.traps.push(Trapped { kind, port: PortId(port), network, bytes }) {
            true => Ok(()),
            false => Err(DropReason::TrapFull),
        }
    }

    /// A probe came back. By an uplink it only ends here.
    fn probe_back(&mut self, now: u64, port: u32, frame: &Frame) {
        let Some((network, from, time)) = self.guards.probe(frame.head()) else { return };
        let here = &self.ports[port as usize];
        let ours = here.uplink.is_none() && here.role == Role::Single && here.network == network;
        if ours && self.guards.ports[port as usize].loops && now.saturating_sub(time) <= PROBE_LIFE {
            self.shut(PortId(port), Shut::Loop { from: PortId(from) });
        }
    }

    /// Shuts a guest's port until it is set up again.
    pub fn shut(&mut self, port: PortId, why: Shut) {
        let Some(here) = self.port(port) else { return };
        if here.uplink.is_some() || here.role != Role::Single || self.cold[port.0 as usize].shut {
            return;
        }
        self.cold[port.0 as usize].shut = true;
        self.flush_port(port.0);
        self.refresh_port(port.0);
        self.notices.tell(DataplaneNotice::Shut { port, why });
    }

    pub fn is_shut(&self, port: PortId) -> bool {
        self.port(port).is_some() && self.cold[port.0 as usize].shut
    }

    /// Opens a port that a guard shut.
    pub fn reopen(&mut self, port: PortId) {
        if self.is_shut(port) {
            self.cold[port.0 as usize].shut = false;
            self.refresh_port(port.0);
        }
    }

    /// For a port that moved here from another worker.
    pub fn restore_shut(&mut self, port: PortId) {
        if self.port(port).is_some() {
            self.cold[port.0 as usize].shut = true;
            self.refresh_port(port.0);
        }
    }

    /// After a burst of a guest's port that flooded frames or moved addresses: is a loop plausible?
    #[inline(never)]
    pub(crate) fn suspect<R: Rim>(&mut self, now: u64, port: u32, flooded: u64, rim: &mut R) {
        let network = self.ports[port as usize].network;
        let moves = self.counters[port as usize].mac_moves;
        let guard = &mut self.guards.ports[port as usize];
        if now.saturating_sub(guard.window) >= WINDOW {
            (guard.window, guard.floods, guard.moves) = (now, 0, guard.seen);
        }
        guard.seen = moves;
        guard.floods = guard.floods.saturating_add(flooded as u32);
        let plausible = guard.floods >= FLOODS || moves.saturating_sub(guard.moves) >= MOVES;
        if !guard.loops || !plausible || now < guard.probe_at {
            return;
        }
        let networks = &mut self.guards.networks;
        if networks.len() <= network as usize {
            networks.resize(network as usize + 1, 0);
        }
        if now < networks[network as usize] {
            return;
        }
        networks[network as usize] = now + PROBE_NETWORK;
        self.guards.ports[port as usize].probe_at = now + PROBE_PORT;
        if let Some(mut frame) = self.guards.write(network, port, now) {
            self.emit(now, PortId(port), &mut frame, rim);
        }
    }

    /// What spanning tree lets a port do in a network. What was learned there is forgotten when it is not to
    /// forward any more.
    pub fn set_stp(&mut self, network: NetworkId, port: PortId, state: StpState) {
        let Some(home) = self.network_mut(network) else { return };
        if !home.members.contains(&port.0) {
            return;
        }
        if home.uplink == port.0 {
            home.uplink_stp = state;
            self.rebuild(network.0);
        } else {
            self.cold[port.0 as usize].stp = state;
            self.refresh_port(port.0);
        }
        if state == StpState::Discarding {
            self.flush_in(network.0, Some(port.0));
        }
    }

    /// What spanning tree lets a port of the network do.
    pub fn stp(&self, network: NetworkId, port: PortId) -> StpState {
        match self.network(network) {
            Some(home) if home.uplink == port.0 => home.uplink_stp,
            Some(_) if self.port(port).is_some() => self.cold[port.0 as usize].stp,
            _ => StpState::Forwarding,
        }
    }

    /// Spanning tree runs no longer.
    pub(crate) fn forward_all(&mut self, network: NetworkId) {
        let Some(home) = self.network(network) else { return };
        for port in home.members.clone() {
            if self.stp(network, PortId(port)) != StpState::Forwarding {
                self.set_stp(network, PortId(port), StpState::Forwarding);
            }
        }
    }

    /// Forgets what a network has learned behind a port: a topology change (802.1Q-2022 13.33).
    pub fn flush(&mut self, network: NetworkId, port: PortId) {
        if self.network(network).is_some_and(|home| home.members.contains(&port.0)) {
            self.flush_in(network.0, Some(port.0));
        }
    }
}
