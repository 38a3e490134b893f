//! What the link machines are told of uplinks, links and networks with spanning tree.
//!
//! An uplink that is no bond speaks LLDP (a bond's members do, by themselves). A network with spanning tree
//! is a bridge, each of its ports a bridge port. The bridge's address is the first own one of its uplink, or
//! one made up for as long as this worker lives.

use super::bonds::bond_name;
use super::command::{Key, NeighborRow};
use super::links::Interface;
use super::run::Worker;
use super::table::{Place, PortSlot};
use std::hash::{BuildHasher, RandomState};
use switchd_dataplane::PortId;
use switchd_wire::MacAddr;

/// Made up, locally administered; the same for a network as long as the process lives.
fn made_up(network: &str) -> MacAddr {
    static KEYS: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    let [a, b, c, d, e, ..] = KEYS.get_or_init(RandomState::new).hash_one(network).to_be_bytes();
    MacAddr([0x02, a, b, c, d, e])
}

impl Worker {
    fn interface(&self, id: PortId) -> Option<Interface> {
        let PortSlot { name, place, facts, .. } = self.table.port(id)?;
        let mac = match place {
            Place::Guest { network, .. } => made_up(network),
            Place::Uplink { own, .. } => own.first().copied().unwrap_or_else(|| made_up(name)),
            Place::Member { .. } | Place::Station { .. } => return None,
        };
        let interface: Key = name.strip_prefix("uplink:").unwrap_or(name).into();
        let facts = match self.table.bond_of(name) {
            Some(bond) => self.bond_facts(&bond),
            None => *facts,
        };
        let up = self.dataplane.link(id);
        Some(Interface { port: id, interface, mac, up, facts })
    }

    /// After a port was added: an uplink speaks LLDP, a guest's port joins the network's spanning tree.
    pub(super) fn speak_on(&mut self, id: PortId) {
        let now = self.now();
        match self.table.port(id).map(|slot| slot.place.clone()) {
            Some(Place::Uplink { .. }) => {
                if let Some(interface) = self.interface(id) {
                    self.links.add_uplink(now, interface);
                    self.apply_links(now);
                }
            }
            Some(Place::Guest { network, .. }) => self.refresh_bridge(&network),
            _ => {}
        }
    }

    /// The link of a port, uplink or member changed.
    pub(super) fn tell_link(&mut self, id: PortId, up: bool) {
        let now = self.now();
        self.links.set_link(now, id, up);
        self.apply_links(now);
    }

    /// Timeouts of the machines and of the dataplane's bonds.
    pub(super) fn link_timers(&mut self, now: u64) {
        if self.links.next_timeout().is_some_and(|at| now >= at) {
            self.links.timeout(now);
            self.apply_links(now);
        }
        if self.dataplane.next_bond_timer().is_some_and(|at| now >= at) {
            self.dataplane.bond_timers(now);
            self.dispatch(now);
            self.tell_notices();
            self.apply_links(now);
        }
    }

    pub(super) fn next_link_timer(&self) -> Option<u64> {
        [self.links.next_timeout(), self.dataplane.next_bond_timer()].into_iter().flatten().min()
    }

    /// Bonds whose link came or went since the machines were told.
    pub(super) fn tell_bond_links(&mut self, now: u64) -> bool {
        let mut told = false;
        for (name, slot) in &mut self.table.bonds {
            let Some(&id) = self.table.port_names.get(&bond_name(name)) else { continue };
            let up = self.dataplane.link(id);
            if std::mem::replace(&mut slot.up, up) != up {
                self.links.set_link(now, id, up);
                told = true;
            }
        }
        told
    }

    /// Brings the machines up to what the network is now.
    pub(super) fn refresh_bridge(&mut self, network: &Key) {
        let Some(slot) = self.table.networks.get(network) else { return };
        let (id, rstp) = (slot.id, slot.config.rstp);
        if !rstp {
            self.drop_bridge(network);
            return;
        }
        let now = self.now();
        let members = self.table.members(network);
        let uplink = members.iter().find_map(|&port| match &self.table.port(port)?.place {
            Place::Uplink { own, .. } => own.first().copied(),
            _ => None,
        });
        if !self.table.bridges.contains_key(network) {
            let mac = uplink.unwrap_or_else(|| made_up(network));
            self.links.add_bridge(now, id, network.clone(), mac);
        }
        let known = self.table.bridges.insert(network.clone(), members.clone()).unwrap_or_default();
        for &port in known.iter().filter(|port| !members.contains(port)) {
            self.links.remove_bridge_port(now, id, port);
        }
        for &port in members.iter().filter(|port| !known.contains(port)) {
            if let Some(interface) = self.interface(port) {
                self.links.add_bridge_port(now, id, interface);
            }
        }
        self.apply_links(now);
    }

    pub(super) fn drop_bridge(&mut self, network: &Key) {
        let Some(slot) = self.table.networks.get(network) else { return };
        let id = slot.id;
        if self.table.bridges.remove(network).is_some() {
            let now = self.now();
            self.links.remove_bridge(now, id);
            self.apply_links(now);
        }
    }

    /// Before a port is removed.
    pub(super) fn leave_bridge(&mut self, network: &Key, port: PortId) {
        let Some(slot) = self.table.networks.get(network) else { return };
        let id = slot.id;
        let Some(known) = self.table.bridges.get_mut(network) else { return };
        let before = known.len();
        known.retain(|&known| known != port);
        if known.len() < before {
            let now = self.now();
            self.links.remove_bridge_port(now, id, port);
        }
    }

    pub(super) fn neighbor_rows(&self) -> Vec<NeighborRow> {
        let mut rows = self.links.neighbors();
        rows.sort_by(|a, b| a.port.cmp(&b.port));
        rows
    }
}
