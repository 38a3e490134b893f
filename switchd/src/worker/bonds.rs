//! Bonds: commands about them, and what the machines must be told of their links.
//!
//! A bond stands in the table as an uplink without a device, `uplink:BOND`; its members and the link to the
//! other half of an MLAG pair stand as `member:IF`. The dataplane knows which ports belong together, the
//! machines decide which members take part.

use super::command::{Bond, BondSettings, BondSnapshot, CommandError, Key, LinkFacts, Member, Outcome};
use super::links::Interface;
use super::run::Worker;
use super::table::{Place, PortSlot};
use switchd_dataplane::PortId;
use switchd_wire::MacAddr;

/// What the table keeps of a bond.
pub struct BondSlot {
    pub settings: BondSettings,
    pub members: Vec<MemberSlot>,
    pub peer: Option<MemberSlot>,
    /// The link as the machines were told.
    pub up: bool,
}

#[derive(Clone)]
pub struct MemberSlot {
    pub interface: Key,
    pub number: u16,
    pub own: Vec<MacAddr>,
    pub facts: LinkFacts,
}

pub fn member_name(interface: &str) -> Key {
    format!("member:{interface}").into()
}

pub fn bond_name(bond: &str) -> Key {
    format!("uplink:{bond}").into()
}

fn refused(error: impl std::fmt::Display) -> CommandError {
    CommandError::Refused(error.to_string())
}

impl Worker {
    /// Changes nothing when it fails.
    pub(super) fn add_bond(&mut self, name: Key, bond: Bond) -> Outcome {
        let Bond { settings, members, peer, kept } = bond;
        let now = self.now();
        let port = bond_name(&name);
        if self.table.port_names.contains_key(&port) {
            return Err(CommandError::Exists(name));
        }
        self.links.add_bond(now, name.clone(), &settings, kept.as_deref());
        let (config, min_links) = (settings.config, settings.min_links);
        let slot = BondSlot { settings, members: Vec::new(), peer: None, up: false };
        self.table.bonds.insert(name.clone(), slot);
        let id = self.dataplane.add_bond(Vec::new(), config, min_links);
        let place = Place::Uplink { own: Vec::new(), joined: Vec::new() };
        self.table.insert_port(id, PortSlot::new(port.clone(), place, true));
        self.name_in_captures(id);
        let mut outcome = Ok(());
        for member in members {
            outcome = outcome.and_then(|()| self.add_member(&name, member));
        }
        if let Some(peer) = peer {
            outcome = outcome.and_then(|()| self.add_peer(&name, peer));
        }
        self.apply_links(now);
        if outcome.is_err() {
            let _ = self.remove_port(&port);
        }
        outcome
    }

    pub(super) fn set_bond(&mut self, name: &Key, settings: BondSettings) -> Outcome {
        let now = self.now();
        let unknown = || CommandError::Unknown(name.clone());
        let id = self.table.bond_port(name).ok_or_else(unknown)?;
        let slot = self.table.bonds.get_mut(name).ok_or_else(unknown)?;
        slot.settings = settings.clone();
        self.dataplane.set_bond(id, settings.config, settings.min_links);
        self.links.set_bond(now, name, &settings);
        self.apply_links(now);
        Ok(())
    }

    pub(super) fn add_member(&mut self, bond: &Key, member: Member) -> Outcome {
        let now = self.now();
        let id = self.table.bond_port(bond).ok_or_else(|| CommandError::Unknown(bond.clone()))?;
        let Member { interface, number, own, facts, carrier, device } = member;
        let name = member_name(&interface);
        if self.table.port_names.contains_key(&name) {
            return Err(CommandError::Exists(name));
        }
        let port = self.dataplane.add_member(id, number).map_err(refused)?;
        let mac = own.first().copied().unwrap_or(MacAddr::ZERO);
        let kept = MemberSlot { interface: interface.clone(), number, own, facts };
        let slot = PortSlot::new(name.clone(), Place::Member { bond: bond.clone(), is_peer: false }, carrier);
        self.table.insert_port(port, slot);
        if let Some(slot) = self.table.bonds.get_mut(bond) {
            slot.members.push(kept);
        }
        self.name_in_captures(port);
        let up = carrier && device.is_some();
        let interface = Interface { port, interface, mac, up, facts };
        let opened = self.open_device(port, device);
        if opened.is_err() {
            self.forget_member(bond, &name, port);
            return opened;
        }
        self.links.add_member(now, bond, number, interface);
        self.refresh_own(bond);
        self.tell_bond_speed(bond);
        self.apply_links(now);
        Ok(())
    }

    /// What the kernel says of an interface has changed: LACP, LLDP and spanning tree go by it.
    pub(super) fn set_facts(&mut self, port: &Key, facts: LinkFacts) -> Outcome {
        let (id, now) = (self.table.port_id(port)?, self.now());
        let Some(slot) = self.table.port_mut(id) else { return Ok(()) };
        slot.facts = facts;
        let bond = match &slot.place {
            Place::Member { bond, .. } => Some(bond.clone()),
            _ => None,
        };
        self.links.set_facts(now, id, facts);
        if let Some(bond) = bond {
            if let Some(slot) = self.table.bonds.get_mut(&bond) {
                let members = slot.members.iter_mut().chain(&mut slot.peer);
                let here = |member: &&mut MemberSlot| member_name(&member.interface) == *port;
                members.filter(here).for_each(|member| member.facts = facts);
            }
            self.tell_bond_speed(&bond);
        }
        self.apply_links(now);
        Ok(())
    }

    /// A bond is as fast as its members together, whether they work or not: a tree that changed its mind
    /// with each cable would be worse than one that goes by what is meant to be.
    pub(super) fn bond_facts(&self, bond: &Key) -> LinkFacts {
        let members = self.table.bonds.get(bond).map_or(&[][..], |slot| &slot.members);
        let speed = members.iter().fold(0u32, |sum, member| sum.saturating_add(member.facts.speed));
        LinkFacts { speed, ..LinkFacts::default() }
    }

    fn tell_bond_speed(&mut self, bond: &Key) {
        let now = self.now();
        if let Some(id) = self.table.bond_port(bond) {
            self.links.set_facts(now, id, self.bond_facts(bond));
        }
    }

    pub(super) fn remove_member(&mut self, bond: &Key, member: &Key) -> Outcome {
        let name =
            if self.table.port_names.contains_key(member) { member.clone() } else { member_name(member) };
        let id = self.table.port_id(&name)?;
        match self.table.port(id).map(|slot| &slot.place) {
            Some(Place::Member { bond: home, .. }) if home == bond => self.remove_port(&name),
            _ => Err(CommandError::Refused(format!("{name} is not a member of {bond}"))),
        }
    }

    /// The link to the other half of an MLAG pair.
    pub(super) fn add_peer(&mut self, bond: &Key, member: Member) -> Outcome {
        let id = self.table.bond_port(bond).ok_or_else(|| CommandError::Unknown(bond.clone()))?;
        let settings = self.table.bonds.get(bond).map(|slot| &slot.settings);
        let settings = settings.ok_or_else(|| CommandError::Unknown(bond.clone()))?;
        let (half, system) = (settings.half.unwrap_or(1), settings.system);
        let Member { interface, number, own, facts, carrier, device } = member;
        let name = member_name(&interface);
        if self.table.port_names.contains_key(&name) {
            return Err(CommandError::Exists(name));
        }
        let mac = own.first().copied().unwrap_or(MacAddr::ZERO);
        let port = self.dataplane.add_peer(id, half, mac, system).map_err(refused)?;
        let slot = PortSlot::new(name.clone(), Place::Member { bond: bond.clone(), is_peer: true }, carrier);
        self.table.insert_port(port, slot);
        if let Some(slot) = self.table.bonds.get_mut(bond) {
            slot.peer = Some(MemberSlot { interface, number, own, facts });
        }
        self.name_in_captures(port);
        let opened = self.open_device(port, device);
        if opened.is_err() {
            self.forget_member(bond, &name, port);
        }
        opened
    }

    fn forget_member(&mut self, bond: &Key, name: &Key, port: PortId) {
        self.table.remove_port(port);
        self.dataplane.remove_port(port);
        if let Some(slot) = self.table.bonds.get_mut(bond) {
            slot.members.retain(|member| member_name(&member.interface) != *name);
            slot.peer.take_if(|peer| member_name(&peer.interface) == *name);
        }
    }

    /// Before a port is removed: a member leaves its bond, a bond loses its members, an uplink is no longer
    /// spoken for.
    pub(super) fn leave_links(&mut self, name: &Key, id: PortId) {
        let now = self.now();
        match self.table.port(id).map(|slot| slot.place.clone()) {
            Some(Place::Member { bond, .. }) => {
                self.links.remove_member(now, &bond, id);
                if let Some(slot) = self.table.bonds.get_mut(&bond) {
                    slot.members.retain(|member| member_name(&member.interface) != *name);
                    slot.peer.take_if(|peer| member_name(&peer.interface) == *name);
                }
                self.refresh_own(&bond);
                self.tell_bond_speed(&bond);
            }
            Some(Place::Uplink { joined, .. }) => {
                if let Some(bond) = self.table.bond_of(name) {
                    for member in self.table.members_of(&bond) {
                        let member = self.table.port_name(member);
                        let _ = self.remove_port(&member);
                    }
                    self.links.remove_bond(now, &bond);
                    self.table.bonds.remove(&bond);
                } else {
                    self.links.remove_uplink(now, id);
                }
                joined.iter().for_each(|(network, _)| self.leave_bridge(network, id));
            }
            Some(Place::Guest { network, .. }) => self.leave_bridge(&network, id),
            Some(Place::Station { .. }) | None => {}
        }
        self.apply_links(now);
    }

    /// The addresses of all members are the bond's own.
    fn refresh_own(&mut self, bond: &Key) {
        let Some(id) = self.table.bond_port(bond) else { return };
        let Some(slot) = self.table.bonds.get(bond) else { return };
        let mut own: Vec<MacAddr> = slot.members.iter().flat_map(|member| member.own.clone()).collect();
        own.sort_unstable();
        own.dedup();
        self.dataplane.set_own(id, own.clone());
        if let Some(PortSlot { place: Place::Uplink { own: kept, .. }, .. }) = self.table.port_mut(id) {
            *kept = own;
        }
    }

    /// Addresses of a member's interface changed.
    pub(super) fn set_member_own(&mut self, bond: &Key, name: &Key, own: Vec<MacAddr>) {
        if let Some(slot) = self.table.bonds.get_mut(bond) {
            let members = slot.members.iter_mut();
            for member in members.filter(|member| member_name(&member.interface) == *name) {
                member.own.clone_from(&own);
            }
        }
        self.refresh_own(bond);
    }

    pub(super) fn bond_rows(&self) -> Vec<BondSnapshot> {
        let mut rows = self.links.bonds(self.now());
        for row in &mut rows {
            let Some(id) = self.table.bond_port(&row.name) else { continue };
            row.up = self.dataplane.link(id);
            row.peer = self.dataplane.peer_words(id);
        }
        rows
    }
}
