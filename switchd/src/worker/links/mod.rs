//! Link protocols of the worker's ports: LACP and active-backup on bonds, LLDP, spanning tree.
//!
//! [`LinkMachines`] hosts the sans-I/O machines of `switchd-proto` and touches neither devices nor the
//! dataplane: what is to happen is taken from it with [`LinkMachines::poll_output`], and `apply` does it.
//! The clock is the worker's (nanoseconds). Callers: the worker's commands (bonds, links, networks), the
//! traps after each burst, and the timers.

mod apply;
mod backup;
mod bond;
mod bridge;
#[cfg(test)]
mod tests;

use super::command::{BondSettings, BondSnapshot, Key, LinkFacts, NeighborRow, Notice};
use bond::Bond;
use bridge::Bridge;
use std::collections::{BTreeMap, VecDeque};
use switchd_dataplane::{NetworkId, PortId, TrapKind, Trapped};
use switchd_proto::lldp::{self, Agent, Announcement};
use switchd_wire::MacAddr;

/// An interface that speaks link protocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    pub port: PortId,
    /// As the kernel names it, for LLDP.
    pub interface: Key,
    /// Source of our frames.
    pub mac: MacAddr,
    /// Carrier and a device.
    pub up: bool,
    pub facts: LinkFacts,
}

/// What the machines want done.
#[derive(Debug)]
pub enum Output {
    /// A whole frame, out of this port and no other.
    Send {
        port: PortId,
        frame: Vec<u8>,
    },
    /// A spanning tree's frame: it travels in the network's VLAN.
    Bpdu {
        network: NetworkId,
        port: PortId,
        frame: Vec<u8>,
    },
    /// A member's part in its bond.
    Member {
        port: PortId,
        collecting: bool,
        distributing: bool,
    },
    /// The active member of an active-backup bond is another one: upstream must learn (ARP, RARP).
    Announce {
        bond: Key,
    },
    /// Spanning tree: whether the port learns and forwards in this network.
    Stp {
        network: NetworkId,
        port: PortId,
        learning: bool,
        forwarding: bool,
    },
    /// Spanning tree: forget what was learned behind the port.
    Flush {
        network: NetworkId,
        port: PortId,
    },
    Notice(Notice),
}

/// What waits to be done. It is taken after every call, so it is as long as one call makes it.
#[derive(Default)]
pub struct Outputs(VecDeque<Output>);

impl Outputs {
    pub fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }
}

struct Speaker {
    interface: Interface,
    agent: Agent,
    /// Bond and number, of a member.
    member: Option<(Key, u16)>,
}

#[derive(Default)]
pub struct LinkMachines {
    bonds: BTreeMap<Key, Bond>,
    bridges: BTreeMap<NetworkId, Bridge>,
    speakers: BTreeMap<PortId, Speaker>,
    host: Host,
    outputs: Outputs,
    /// The earliest timer: the worker asks for it every turn.
    deadline: Option<u64>,
}

/// What LLDP says of this machine.
struct Host {
    name: String,
    description: String,
}

impl Default for Host {
    fn default() -> Host {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Host {
            name: name.unwrap_or_else(|| "localhost".to_owned()),
            description: format!("switchd {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

impl LinkMachines {
    /// `kept` is what [`Notice::Keep`] handed out last under the bond's name.
    pub fn add_bond(&mut self, now: u64, name: Key, settings: &BondSettings, kept: Option<&[u8]>) {
        self.bonds.insert(name.clone(), Bond::new(now, name, settings.clone(), kept));
    }

    pub fn set_bond(&mut self, now: u64, name: &Key, settings: &BondSettings) {
        if let Some(bond) = self.bonds.get_mut(name) {
            bond.set(now, settings.clone(), &mut self.outputs);
        }
        self.announce_members(now);
    }

    /// Members that were not removed before go with it.
    pub fn remove_bond(&mut self, now: u64, name: &Key) {
        let Some(bond) = self.bonds.get(name) else { return };
        for port in bond.numbers().into_iter().filter_map(|number| bond.port_of(number)).collect::<Vec<_>>() {
            self.remove_member(now, name, port);
        }
        self.bonds.remove(name);
    }

    /// For a move to another worker: the bond and its members are dropped without a word to partners, and
    /// what is returned goes to [`LinkMachines::add_bond`] there.
    pub fn take_bond(&mut self, name: &Key) -> Option<Vec<u8>> {
        let bond = self.bonds.remove(name)?;
        self.speakers.retain(|_, speaker| !matches!(&speaker.member, Some((home, _)) if home == name));
        bond.export()
    }

    /// `number` is counted from 1 and stable.
    pub fn add_member(&mut self, now: u64, bond: &Key, number: u16, interface: Interface) {
        let Some(home) = self.bonds.get_mut(bond) else { return };
        home.add(now, number, interface.clone(), &mut self.outputs);
        self.listen(now, interface, Some((bond.clone(), number)));
    }

    pub fn remove_member(&mut self, now: u64, bond: &Key, port: PortId) {
        let number = match self.speakers.get(&port) {
            Some(Speaker { member: Some((home, number)), .. }) if home == bond => *number,
            _ => return,
        };
        if let Some(home) = self.bonds.get_mut(bond) {
            home.remove(now, number, &mut self.outputs);
        }
        self.silence(port);
    }

    /// An uplink that is no member: LLDP only.
    pub fn add_uplink(&mut self, now: u64, interface: Interface) {
        self.listen(now, interface, None);
    }

    pub fn remove_uplink(&mut self, _now: u64, port: PortId) {
        self.silence(port);
    }

    fn listen(&mut self, now: u64, interface: Interface, member: Option<(Key, u16)>) {
        let port = interface.port;
        let mut speaker = Speaker {
            agent: Agent::new(interface.mac, self.announcement(&interface, member.as_ref())),
            interface,
            member,
        };
        speaker.agent.set_link(now, speaker.interface.up);
        self.speakers.insert(port, speaker);
        self.drain_agent(port);
    }

    /// The neighbours hear that we go.
    fn silence(&mut self, port: PortId) {
        if let Some(speaker) = self.speakers.remove(&port)
            && let Some(frame) = speaker.agent.shutdown()
        {
            self.outputs.push(Output::Send { port, frame });
        }
    }

    fn announcement(&self, interface: &Interface, member: Option<&(Key, u16)>) -> Announcement {
        let inside = |(bond, number): &(Key, u16)| {
            let carries = self.bonds.get(bond).is_some_and(|bond| bond.carries(*number));
            (u32::from(*number), carries)
        };
        Announcement {
            chassis: interface.mac,
            interface: interface.interface.to_string(),
            system_name: self.host.name.clone(),
            system_description: self.host.description.clone(),
            aggregation: member.map(inside),
            mtu: interface.facts.mtu,
        }
    }

    /// Members say in LLDP whether they are in the aggregate.
    fn announce_members(&mut self, now: u64) {
        let members: Vec<(PortId, Announcement)> = self
            .speakers
            .iter()
            .filter(|(_, speaker)| speaker.member.is_some())
            .map(|(port, speaker)| (*port, self.announcement(&speaker.interface, speaker.member.as_ref())))
            .collect();
        for (port, announcement) in members {
            if let Some(speaker) = self.speakers.get_mut(&port)
                && *speaker.agent.announcement() != announcement
            {
                speaker.agent.announce(now, announcement);
                self.drain_agent(port);
            }
        }
    }

    fn drain_agent(&mut self, port: PortId) {
        let Some(speaker) = self.speakers.get_mut(&port) else { return };
        while let Some(frame) = speaker.agent.poll_transmit() {
            self.outputs.push(Output::Send { port, frame });
        }
        while let Some(event) = speaker.agent.poll_event() {
            let object = match &speaker.member {
                Some(_) => format!("member:{}", speaker.interface.interface),
                None => format!("uplink:{}", speaker.interface.interface),
            };
            let (kind, verb, neighbor) = match event {
                lldp::Event::New(neighbor) => ("neighbor.new", "hears", neighbor),
                lldp::Event::Gone(neighbor) => ("neighbor.gone", "no longer hears", neighbor),
            };
            let name = &neighbor.pdu.system_name;
            let (chassis, port_id) = (neighbor.chassis(), neighbor.port());
            let detail = format!("{verb} {name} ({chassis}), port {port_id}");
            self.outputs.push(Output::Notice(Notice::Event { kind, object, detail }));
        }
    }

    /// Of a member, uplink or bridge port.
    pub fn set_link(&mut self, now: u64, port: PortId, up: bool) {
        for bridge in self.bridges.values_mut() {
            bridge.set_link(now, port, up, &mut self.outputs);
        }
        let Some(speaker) = self.speakers.get_mut(&port) else { return };
        speaker.interface.up = up;
        speaker.agent.set_link(now, up);
        self.drain_agent(port);
        self.tell_bond(now, port);
    }

    /// Speed or MTU of a member, uplink or bridge port are other ones.
    pub fn set_facts(&mut self, now: u64, port: PortId, facts: LinkFacts) {
        for bridge in self.bridges.values_mut() {
            bridge.set_speed(now, port, facts.speed, &mut self.outputs);
        }
        let Some(speaker) = self.speakers.get_mut(&port) else { return };
        speaker.interface.facts = facts;
        let (interface, member) = (speaker.interface.clone(), speaker.member.clone());
        let announcement = self.announcement(&interface, member.as_ref());
        if let Some(speaker) = self.speakers.get_mut(&port) {
            speaker.agent.announce(now, announcement);
        }
        self.drain_agent(port);
        self.tell_bond(now, port);
    }

    /// A member's bond goes by its interface.
    fn tell_bond(&mut self, now: u64, port: PortId) {
        let Some(speaker) = self.speakers.get(&port) else { return };
        let Some((bond, number)) = &speaker.member else { return };
        if let Some(bond) = self.bonds.get_mut(bond) {
            bond.set_link(now, *number, &speaker.interface, &mut self.outputs);
            self.announce_members(now);
        }
    }

    pub fn trapped(&mut self, now: u64, frame: &Trapped) {
        if frame.kind == TrapKind::Bpdu {
            self.bpdu(now, frame);
            return;
        }
        let Some(speaker) = self.speakers.get_mut(&frame.port) else { return };
        match frame.kind {
            TrapKind::Slow => {
                let Some((bond, number)) = speaker.member.clone() else { return };
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.slow(now, number, &frame.bytes, &mut self.outputs);
                    self.announce_members(now);
                }
            }
            TrapKind::Lldp => {
                speaker.agent.handle_frame(now, &frame.bytes);
                self.drain_agent(frame.port);
            }
            _ => {}
        }
    }

    /// An uplink that several networks stand on has its BPDUs heard by the network they were trapped for.
    fn bpdu(&mut self, now: u64, frame: &Trapped) {
        let here = |network: &NetworkId| frame.network.is_none_or(|wanted| wanted == *network);
        for (_, bridge) in self.bridges.iter_mut().filter(|(network, _)| here(network)) {
            bridge.bpdu(now, frame.port, &frame.bytes, &mut self.outputs);
        }
    }

    pub fn timeout(&mut self, now: u64) {
        let due = |at: Option<u64>| at.is_some_and(|at| now >= at);
        for bridge in self.bridges.values_mut().filter(|bridge| due(bridge.next_timeout())) {
            bridge.timeout(now, &mut self.outputs);
        }
        for bond in self.bonds.values_mut().filter(|bond| due(bond.next_timeout())) {
            bond.timeout(now, &mut self.outputs);
        }
        for port in self.speakers.keys().copied().collect::<Vec<_>>() {
            if let Some(speaker) = self.speakers.get_mut(&port)
                && due(speaker.agent.poll_timeout())
            {
                speaker.agent.handle_timeout(now);
                self.drain_agent(port);
            }
        }
        self.announce_members(now);
    }

    /// When [`LinkMachines::timeout`] wants to be called; right once all outputs were taken.
    pub fn next_timeout(&self) -> Option<u64> {
        self.deadline
    }

    /// Asked until there is nothing left, after every call.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.0.pop_front();
        if output.is_none() {
            self.deadline = self.earliest();
        }
        output
    }

    fn earliest(&self) -> Option<u64> {
        let bonds = self.bonds.values().filter_map(Bond::next_timeout);
        let bridges = self.bridges.values().filter_map(Bridge::next_timeout);
        let agents = self.speakers.values().filter_map(|speaker| speaker.agent.poll_timeout());
        bonds.chain(bridges).chain(agents).min()
    }

    pub fn bonds(&self, now: u64) -> Vec<BondSnapshot> {
        self.bonds.values().map(|bond| bond.snapshot(now)).collect()
    }

    pub fn neighbors(&self) -> Vec<NeighborRow> {
        let mut rows = Vec::new();
        for speaker in self.speakers.values() {
            let kind = if speaker.member.is_some() { "member" } else { "uplink" };
            let port: Key = format!("{kind}:{}", speaker.interface.interface).into();
            rows.extend(speaker.agent.neighbors().map(|neighbor| NeighborRow {
                port: port.clone(),
                chassis: neighbor.chassis(),
                port_id: neighbor.port(),
                port_description: neighbor.pdu.port_description.clone(),
                system_name: neighbor.pdu.system_name.clone(),
                system_description: neighbor.pdu.system_description.clone(),
                ttl: neighbor.pdu.ttl,
            }));
        }
        rows
    }

    /// Spanning tree on a network; `name` for events. The bridge's identifier is `mac`.
    pub fn add_bridge(&mut self, _now: u64, network: NetworkId, name: Key, mac: MacAddr) {
        self.bridges.insert(network, Bridge::new(network, name, mac));
    }

    /// Its ports forward again.
    pub fn remove_bridge(&mut self, now: u64, network: NetworkId) {
        let Some(mut bridge) = self.bridges.remove(&network) else { return };
        for port in bridge.port_ids() {
            bridge.remove(now, port, &mut self.outputs);
        }
    }

    /// A guest's port, an uplink or a bond of a network with spanning tree.
    pub fn add_bridge_port(&mut self, now: u64, network: NetworkId, interface: Interface) {
        if let Some(bridge) = self.bridges.get_mut(&network) {
            bridge.add(now, &interface, &mut self.outputs);
        }
    }

    pub fn remove_bridge_port(&mut self, now: u64, network: NetworkId, port: PortId) {
        if let Some(bridge) = self.bridges.get_mut(&network) {
            bridge.remove(now, port, &mut self.outputs);
        }
    }
}
