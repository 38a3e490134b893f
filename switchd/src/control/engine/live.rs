//! What stands in the workers, as far as the engine must know it.

use super::means::Facts;
use super::target::{
    Backend, HostWay, Served, Tape, TapeTo, Team, member_interface, member_port, uplink_interface,
};
use crate::worker::command::Gateway;
use std::collections::{BTreeMap, BTreeSet};
use switchd_wire::MacAddr;

/// Room for the tags that a frame bears on the link between the halves of an MLAG pair.
pub const PEER_TAGS: u16 = 8;

#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The worker of each network.
    pub networks: BTreeMap<String, usize>,
    /// By interface.
    pub uplinks: BTreeMap<String, Uplink>,
    pub bonds: BTreeMap<String, Bond>,
    /// By NAT network.
    pub gates: BTreeMap<String, StandingGate>,
    pub served: BTreeMap<String, Served>,
    pub lent: Lent,
    pub ports: BTreeMap<String, Guest>,
    pub mirrors: BTreeMap<String, Tape>,
}

/// Addresses of interfaces that an outside end has (`mac=host`): NAT network → uplink and address.
pub type Lent = BTreeMap<String, (String, MacAddr)>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    pub worker: usize,
    pub networks: BTreeSet<String>,
    pub mtu: u16,
    /// `None`: there is no device.
    pub facts: Option<Facts>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bond {
    pub worker: usize,
    pub networks: BTreeSet<String>,
    pub mtu: u16,
    pub team: Team,
    /// Members by interface, and the peer link.
    pub links: BTreeMap<String, Link>,
}

/// A gateway and its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandingGate {
    pub gateway: Gateway,
    pub host: Option<HostWay>,
}

/// An interface of a bond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The member's number; 0 for the peer link.
    pub number: u16,
    /// `None`: there is no device.
    pub facts: Option<Facts>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    pub network: String,
    pub backend: Backend,
    pub mtu: u16,
    /// `None`: there is no device.
    pub facts: Option<Facts>,
}

impl Standing {
    /// Of a guest's port, an uplink's, a bond's or a member's.
    pub fn worker_of_port(&self, port: &str) -> Option<usize> {
        if let Some(guest) = self.ports.get(port) {
            return self.networks.get(&guest.network).copied();
        }
        if let Some(interface) = member_interface(port) {
            return Some(self.bond_of(interface)?.1.worker);
        }
        self.worker_of_uplink(uplink_interface(port)?)
    }

    pub fn worker_of_uplink(&self, name: &str) -> Option<usize> {
        let bond = self.bonds.get(name).map(|bond| bond.worker);
        bond.or_else(|| self.uplinks.get(name).map(|uplink| uplink.worker))
    }

    /// The networks on an interface or bond.
    pub fn networks_on(&self, uplink: &str) -> Option<&BTreeSet<String>> {
        let bond = self.bonds.get(uplink).map(|bond| &bond.networks);
        bond.or_else(|| self.uplinks.get(uplink).map(|uplink| &uplink.networks))
    }

    pub fn networks_on_mut(&mut self, uplink: &str) -> Option<&mut BTreeSet<String>> {
        match self.bonds.get_mut(uplink) {
            Some(bond) => Some(&mut bond.networks),
            None => self.uplinks.get_mut(uplink).map(|uplink| &mut uplink.networks),
        }
    }

    /// The bond that an interface is a member or the peer link of.
    pub fn bond_of(&self, interface: &str) -> Option<(&String, &Bond)> {
        self.bonds.iter().find(|(_, bond)| bond.links.contains_key(interface))
    }

    /// The interface or bond that a network is joined to.
    pub fn uplink_of(&self, network: &str) -> Option<String> {
        let uplinks = self.uplinks.iter().map(|(name, uplink)| (name, &uplink.networks));
        let bonds = self.bonds.iter().map(|(name, bond)| (name, &bond.networks));
        uplinks.chain(bonds).find(|(_, on)| on.contains(network)).map(|(name, _)| name.clone())
    }

    /// The ports whose interfaces an uplink consists of.
    pub fn ports_of_uplink(&self, uplink: &str) -> Vec<String> {
        match self.bonds.get(uplink) {
            Some(bond) => bond.team.members.iter().map(|interface| member_port(interface)).collect(),
            None => vec![super::target::uplink_port(uplink)],
        }
    }

    pub fn has_address(&self, port: &str, mac: MacAddr) -> bool {
        self.facts(port).is_some_and(|facts| facts.macs.contains(&mac))
    }

    /// The addresses that stand for an uplink's or member's interface itself.
    pub fn own_of(&self, port: &str) -> Vec<MacAddr> {
        let Some(facts) = self.facts(port) else { return Vec::new() };
        let uplink = match member_interface(port) {
            Some(interface) => self.bond_of(interface).map(|(name, _)| name.as_str()),
            None => uplink_interface(port),
        };
        let lent =
            |mac: &MacAddr| self.lent.values().any(|(on, other)| Some(on.as_str()) == uplink && other == mac);
        facts.macs.iter().filter(|mac| !lent(mac)).copied().collect()
    }

    fn link_mut(&mut self, interface: &str) -> Option<&mut Link> {
        self.bonds.values_mut().find_map(|bond| bond.links.get_mut(interface))
    }

    pub fn worker_of_tape(&self, tape: &Tape) -> Option<usize> {
        let target = match &tape.to {
            TapeTo::Port(port) => Some(port),
            TapeTo::File(_) => None,
        };
        let networks = tape.networks.iter().find_map(|(network, _)| self.networks.get(network).copied());
        let ports = tape.ports.iter().map(|(port, _)| port).chain(target);
        networks.or_else(|| ports.into_iter().find_map(|port| self.worker_of_port(port)))
    }

    pub fn facts(&self, port: &str) -> Option<&Facts> {
        if let Some(guest) = self.ports.get(port) {
            return guest.facts.as_ref();
        }
        if let Some(interface) = member_interface(port) {
            return self.bond_of(interface)?.1.links.get(interface)?.facts.as_ref();
        }
        self.uplinks.get(uplink_interface(port)?)?.facts.as_ref()
    }

    pub fn facts_mut(&mut self, port: &str) -> Option<&mut Option<Facts>> {
        if self.ports.contains_key(port) {
            return self.ports.get_mut(port).map(|guest| &mut guest.facts);
        }
        if let Some(interface) = member_interface(port) {
            return Some(&mut self.link_mut(interface)?.facts);
        }
        Some(&mut self.uplinks.get_mut(uplink_interface(port)?)?.facts)
    }

    /// The backend of a port, uplink or member, and the MTU that it is to have. A bond itself has no device.
    pub fn backend(&self, port: &str) -> Option<(Backend, u16)> {
        if let Some(guest) = self.ports.get(port) {
            return Some((guest.backend.clone(), guest.mtu));
        }
        if let Some(interface) = member_interface(port) {
            let (_, bond) = self.bond_of(interface)?;
            let mtu = match bond.team.peer.as_deref() == Some(interface) {
                true => bond.mtu.saturating_add(PEER_TAGS),
                false => bond.mtu,
            };
            return Some((Backend::Member { name: interface.to_owned() }, mtu));
        }
        let interface = uplink_interface(port)?;
        let uplink = self.uplinks.get(interface)?;
        Some((Backend::Uplink { name: interface.to_owned() }, uplink.mtu))
    }

    /// All ports, uplinks and members with their backends.
    pub fn backends(&self) -> Vec<(String, Backend)> {
        let guests = self.ports.iter().map(|(name, guest)| (name.clone(), guest.backend.clone()));
        let uplinks = self.uplinks.keys().map(|interface| {
            (super::target::uplink_port(interface), Backend::Uplink { name: interface.clone() })
        });
        let links = self.bonds.values().flat_map(|bond| bond.links.keys());
        let members =
            links.map(|interface| (member_port(interface), Backend::Member { name: interface.clone() }));
        guests.chain(uplinks).chain(members).collect()
    }

    /// What is known of an interface that is an uplink, or a member or peer link of a bond.
    pub fn facts_of_interface(&self, interface: &str) -> Option<&Facts> {
        let uplink = self.uplinks.get(interface).and_then(|uplink| uplink.facts.as_ref());
        uplink.or_else(|| self.bond_of(interface)?.1.links.get(interface)?.facts.as_ref())
    }

    /// What is known of an uplink, or of the first interface of a bond that is there.
    pub fn facts_of_uplink(&self, name: &str) -> Option<&Facts> {
        match self.bonds.get(name) {
            Some(bond) => bond.team.members.iter().find_map(|member| bond.links.get(member)?.facts.as_ref()),
            None => self.uplinks.get(name)?.facts.as_ref(),
        }
    }
}
