//! Packets in, packets out: a dataplane with a rim that keeps what leaves, and the accounting held against
//! its invariants after every step.
#![allow(dead_code)]

use std::collections::HashMap;
use switchd_dataplane::{
    BondConfig, Cleared, ClearedRun, Dataplane, DataplaneNotice, Direction, DropReason, MemberState,
    MirrorId, NetworkConfig, NetworkId, PortConfig, PortId, Rim, Transmit, VidSet, VlanMode,
};
use switchd_wire::{Frame, MacAddr, NoTails};

pub const SECOND: u64 = 1_000_000_000;

/// Keeps what leaves and what mirrors were shown.
#[derive(Default)]
pub struct Recorder {
    pub sent: Vec<(PortId, Vec<u8>)>,
    pub mirrored: Vec<(MirrorId, PortId, Direction, Vec<u8>)>,
    /// What becomes of frames to a port; otherwise they are done.
    pub outcome: HashMap<PortId, Transmit>,
    /// Mirrors whose filter wants nothing.
    pub deaf: Vec<MirrorId>,
    /// Runs that were offered: how many frames of each are taken goes round with it.
    runs: usize,
    /// Frames and bytes taken in runs, to be settled.
    taken: HashMap<PortId, (u64, u64)>,
}

impl Rim for Recorder {
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let outcome = self.outcome.get(&port).copied().unwrap_or(Transmit::Done { segments: 1 });
        if !matches!(outcome, Transmit::Dropped(_)) {
            self.sent.push((port, cleared.frame().head().to_vec()));
        }
        outcome
    }

    fn transmit_run(&mut self, run: ClearedRun<'_>) -> usize {
        let port = run.port();
        assert!(!run.frames().is_empty());
        if self.outcome.contains_key(&port) {
            return 0;
        }
        self.runs += 1;
        let count = run.frames().len().min(self.runs % 5);
        for frame in &run.frames()[..count] {
            self.sent.push((port, frame.head().to_vec()));
            let taken = self.taken.entry(port).or_default();
            *taken = (taken.0 + 1, taken.1 + frame.len() as u64);
        }
        count
    }

    fn mirror(&mut self, mirror: MirrorId, port: PortId, direction: Direction, frame: &Frame) -> bool {
        self.mirrored.push((mirror, port, direction, frame.head().to_vec()));
        !self.deaf.contains(&mirror)
    }
}

pub struct World {
    pub dataplane: Dataplane,
    pub rim: Recorder,
    pub now: u64,
    pub ports: Vec<PortId>,
    pub networks: Vec<NetworkId>,
    /// Members of bonds, which stand outside the networks.
    pub members: Vec<PortId>,
}

impl World {
    pub fn new() -> World {
        World {
            dataplane: Dataplane::new(0x5eed),
            rim: Recorder::default(),
            now: SECOND,
            ports: Vec::new(),
            networks: Vec::new(),
            members: Vec::new(),
        }
    }

    /// One network with transparent ports.
    pub fn with_ports<const N: usize>() -> (World, NetworkId, [PortId; N]) {
        let mut world = World::new();
        let network = world.network(NetworkConfig::default());
        let ports = std::array::from_fn(|_| world.port(network, VlanMode::Transparent));
        (world, network, ports)
    }

    pub fn network(&mut self, config: NetworkConfig) -> NetworkId {
        let network = self.dataplane.add_network(config);
        self.networks.push(network);
        network
    }

    /// A port that is up.
    pub fn port(&mut self, network: NetworkId, vlan: VlanMode) -> PortId {
        self.port_with(network, PortConfig { vlan, ..PortConfig::default() })
    }

    pub fn port_with(&mut self, network: NetworkId, config: PortConfig) -> PortId {
        let port = self.dataplane.add_port(network, config);
        self.dataplane.set_link(port, true);
        self.ports.push(port);
        port
    }

    pub fn uplink(&mut self, own: &[MacAddr]) -> PortId {
        let port = self.dataplane.add_uplink(own.to_vec());
        self.dataplane.set_link(port, true);
        self.ports.push(port);
        port
    }

    /// A bond with members that are up and take part.
    pub fn bond(&mut self, config: BondConfig, members: u16) -> (PortId, Vec<PortId>) {
        let bond = self.dataplane.add_bond(Vec::new(), config, 1);
        self.ports.push(bond);
        let members: Vec<PortId> = (1..=members).map(|number| self.member(bond, number)).collect();
        (bond, members)
    }

    pub fn member(&mut self, bond: PortId, number: u16) -> PortId {
        let member = self.dataplane.add_member(bond, number).expect("there is room");
        self.members.push(member);
        self.dataplane.set_link(member, true);
        self.takes_part(member, true);
        member
    }

    pub fn takes_part(&mut self, member: PortId, yes: bool) {
        self.dataplane.set_member(member, MemberState { collecting: yes, distributing: yes });
    }

    /// Puts a frame in and returns what left, by port.
    pub fn inject(&mut self, port: PortId, bytes: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        self.burst(port, &[bytes.to_vec()])
    }

    pub fn burst(&mut self, port: PortId, burst: &[Vec<u8>]) -> Vec<(PortId, Vec<u8>)> {
        let mut frames: Vec<Frame> =
            burst.iter().map(|bytes| Frame::from_bytes(bytes).expect("fits a head")).collect();
        self.frames(port, &mut frames)
    }

    pub fn frames(&mut self, port: PortId, frames: &mut [Frame]) -> Vec<(PortId, Vec<u8>)> {
        self.dataplane.process(self.now, port, frames, &NoTails, &mut self.rim);
        let mut sent = std::mem::take(&mut self.rim.sent);
        sent.sort_by_key(|(port, _)| *port);
        let queued: Vec<PortId> = self
            .rim
            .outcome
            .iter()
            .filter(|(_, outcome)| **outcome == Transmit::Queued)
            .map(|(&port, _)| port)
            .collect();
        for (port, (frames, bytes)) in self.rim.taken.drain() {
            self.dataplane.settle(port, frames, bytes, 0, 0, 0);
        }
        for port in queued {
            let frames: Vec<&Vec<u8>> = sent.iter().filter(|(to, _)| *to == port).map(|(_, b)| b).collect();
            let bytes = frames.iter().map(|bytes| bytes.len() as u64).sum();
            self.dataplane.settle(port, frames.len() as u64, bytes, 0, 0, 0);
        }
        self.check();
        sent
    }

    /// The ports that a frame left by.
    pub fn reaches(&mut self, port: PortId, bytes: &[u8]) -> Vec<PortId> {
        self.inject(port, bytes).into_iter().map(|(port, _)| port).collect()
    }

    /// Puts a frame in that must be dropped at ingress, for this reason and no other.
    #[track_caller]
    pub fn drops(&mut self, port: PortId, bytes: &[u8], reason: DropReason) {
        let before = self.dataplane.port_counters(port).dropped_in;
        assert_eq!(self.inject(port, bytes), [], "nothing leaves");
        let mut expected = before;
        expected.count(reason, 1);
        let after = self.dataplane.port_counters(port).dropped_in;
        assert_eq!(
            after.nonzero().collect::<Vec<_>>(),
            expected.nonzero().collect::<Vec<_>>(),
            "not {}",
            reason.name()
        );
    }

    /// Puts a frame in that must be offered to `out` and dropped there.
    #[track_caller]
    pub fn drops_out(&mut self, port: PortId, bytes: &[u8], out: PortId, reason: DropReason) {
        let before = self.dataplane.port_counters(out).dropped_out.get(reason);
        let sent = self.inject(port, bytes);
        assert!(sent.iter().all(|(to, _)| *to != out), "nothing leaves there");
        assert_eq!(
            self.dataplane.port_counters(out).dropped_out.get(reason),
            before + 1,
            "{}",
            reason.name()
        );
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    pub fn notices(&mut self) -> Vec<DataplaneNotice> {
        self.dataplane.take_notices().collect()
    }

    /// The network's table as text: `address vid port`, sorted.
    pub fn rows(&self, network: NetworkId) -> Vec<(MacAddr, Option<u16>, PortId, bool)> {
        let rows = self.dataplane.fdb_rows(network, self.now);
        let mut rows: Vec<_> =
            rows.into_iter().map(|row| (row.mac, row.vid, row.port, row.is_static)).collect();
        rows.sort();
        rows
    }

    /// The invariants of `counters`.
    #[track_caller]
    pub fn check(&self) {
        for &port in &self.members {
            let c = self.dataplane.port_counters(port);
            let inwards = c.forwarded + c.flooded + c.trapped + c.dropped_in.total();
            assert_eq!(c.rx_frames, inwards, "inwards at {port:?}: {c:?}");
            assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "outwards at {port:?}: {c:?}");
        }
        let (mut ports_offered, mut networks_offered, mut learned) = (0, 0, 0);
        for &port in &self.ports {
            let c = self.dataplane.port_counters(port);
            assert_eq!(
                c.rx_frames,
                c.forwarded + c.flooded + c.trapped + c.dropped_in.total(),
                "inwards at {port:?}: {c:?}"
            );
            assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "outwards at {port:?}: {c:?}");
            ports_offered += c.offered - c.originated;
            learned += self.dataplane.addresses_behind(port);
        }
        let mut addresses = 0;
        for &network in &self.networks {
            let c = self.dataplane.network_counters(network);
            assert_eq!(c.offered, c.forwarded + c.fanout + c.originated, "{network:?}: {c:?}");
            networks_offered += c.offered;
            addresses += c.addresses;
        }
        assert_eq!(ports_offered, networks_offered, "what networks offer is what ports are offered");
        assert_eq!(addresses, learned, "addresses of networks are those behind ports");
    }
}

pub fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

/// An untagged frame of 60 bytes whose payload tells it apart.
pub fn frame(source: MacAddr, destination: MacAddr) -> Vec<u8> {
    let mut bytes = [destination.0, source.0].concat();
    bytes.extend([0x88, 0xb5]);
    bytes.extend((0..46).map(|byte| byte ^ source.0[5]));
    bytes
}

/// The frame with a tag behind its addresses.
pub fn tagged(bytes: &[u8], tci: u16) -> Vec<u8> {
    let tag = [0x81, 0x00, (tci >> 8) as u8, tci as u8];
    [&bytes[..12], &tag, &bytes[12..]].concat()
}

pub fn trunk(vids: &[u16], native: Option<u16>) -> VlanMode {
    VlanMode::Trunk { allowed: vids.iter().copied().collect::<VidSet>(), native }
}
