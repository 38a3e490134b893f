//! What a worker owns, by the names that users give and by the indices of the dataplane.

use super::bonds::{BondSlot, bond_name};
use super::command::{CommandError, Key, LinkFacts, NetworkConfig, PortConfig, Wanted};
use std::collections::HashMap;
use switchd_capture::{filter::Program, ring::Producer};
use switchd_dataplane::{MirrorId, NetworkId, PortId};
use switchd_port::{Offloads, Port};
use switchd_wire::MacAddr;

/// Where a port stands.
#[derive(Clone)]
pub enum Place {
    Guest {
        network: Key,
        config: PortConfig,
    },
    Uplink {
        own: Vec<MacAddr>,
        joined: Vec<(Key, Option<u16>)>,
    },
    /// An end of a gateway. It stands on `network` and belongs to the NAT network `home`.
    Station {
        network: Key,
        home: Key,
    },
    /// A member of a bond, or the link to its other half.
    Member {
        bond: Key,
        is_peer: bool,
    },
}

pub struct PortSlot {
    pub name: Key,
    pub place: Place,
    pub device: Option<Box<dyn Port>>,
    pub offloads: Offloads,
    pub carrier: bool,
    pub facts: LinkFacts,
    /// It stopped at its budget, or was reported readable, and is on the ready list.
    pub ready: bool,
    /// It is on the list of ports that are looked at, until this time unless frames come.
    pub polled: bool,
    pub quiet_at: u64,
    /// Frames of this burst wait in the device's queue.
    pub queued: bool,
    pub unreadable: u64,
    /// Kernel drops of devices that the port had before.
    pub kernel_drops: u64,
}

impl PortSlot {
    /// Without a device.
    pub fn new(name: Key, place: Place, carrier: bool) -> PortSlot {
        PortSlot {
            name,
            place,
            device: None,
            offloads: Offloads::default(),
            carrier,
            facts: LinkFacts::default(),
            ready: false,
            polled: false,
            quiet_at: 0,
            queued: false,
            unreadable: 0,
            kernel_drops: 0,
        }
    }
}

pub struct NetworkSlot {
    pub name: Key,
    pub config: NetworkConfig,
    pub id: NetworkId,
}

#[expect(clippy::large_enum_variant, reason = "one a mirror")]
pub enum Target {
    Capture {
        ring: Producer,
        snaplen: u32,
        segment: bool,
    },
    /// The dataplane sends the copies.
    Port(Key),
}

pub struct MirrorSlot {
    pub name: Key,
    pub ports: Vec<(Key, Wanted)>,
    pub networks: Vec<(Key, Wanted)>,
    pub filter: Option<Program>,
    pub target: Target,
    pub seen: u64,
    pub filtered: u64,
    pub copied: u64,
}

#[derive(Default)]
pub struct Table {
    pub ports: Vec<Option<PortSlot>>,
    pub port_names: HashMap<Key, PortId>,
    pub networks: HashMap<Key, NetworkSlot>,
    pub network_names: HashMap<NetworkId, Key>,
    pub mirrors: Vec<Option<MirrorSlot>>,
    pub mirror_names: HashMap<Key, MirrorId>,
    pub bonds: HashMap<Key, BondSlot>,
    /// Networks on which spanning tree runs, and the ports that it was told of.
    pub bridges: HashMap<Key, Vec<PortId>>,
}

impl Table {
    pub fn port_id(&self, name: &Key) -> Result<PortId, CommandError> {
        self.port_names.get(name).copied().ok_or_else(|| CommandError::Unknown(name.clone()))
    }

    pub fn network_id(&self, name: &Key) -> Result<NetworkId, CommandError> {
        self.networks.get(name).map(|slot| slot.id).ok_or_else(|| CommandError::Unknown(name.clone()))
    }

    pub fn port(&self, id: PortId) -> Option<&PortSlot> {
        self.ports.get(id.0 as usize)?.as_ref()
    }

    pub fn port_mut(&mut self, id: PortId) -> Option<&mut PortSlot> {
        self.ports.get_mut(id.0 as usize)?.as_mut()
    }

    pub fn port_name(&self, id: PortId) -> Key {
        self.port(id).map_or_else(|| "?".into(), |slot| slot.name.clone())
    }

    pub fn insert_port(&mut self, id: PortId, slot: PortSlot) {
        let index = id.0 as usize;
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        self.port_names.insert(slot.name.clone(), id);
        self.ports[index] = Some(slot);
    }

    pub fn remove_port(&mut self, id: PortId) -> Option<PortSlot> {
        let slot = self.ports.get_mut(id.0 as usize)?.take()?;
        self.port_names.remove(&slot.name);
        Some(slot)
    }

    pub fn insert_mirror(&mut self, id: MirrorId, slot: MirrorSlot) {
        let index = usize::from(id.0);
        if self.mirrors.len() <= index {
            self.mirrors.resize_with(index + 1, || None);
        }
        self.mirror_names.insert(slot.name.clone(), id);
        self.mirrors[index] = Some(slot);
    }

    pub fn remove_mirror(&mut self, name: &Key) -> Option<(MirrorId, MirrorSlot)> {
        let id = self.mirror_names.remove(name)?;
        Some((id, self.mirrors.get_mut(usize::from(id.0))?.take()?))
    }

    /// The uplink that a bond is.
    pub fn bond_port(&self, bond: &Key) -> Option<PortId> {
        self.port_names.get(&bond_name(bond)).copied().filter(|_| self.bonds.contains_key(bond))
    }

    /// The bond that an uplink is.
    pub fn bond_of(&self, port: &Key) -> Option<Key> {
        let (bond, _) = self.bonds.get_key_value(port.strip_prefix("uplink:")?)?;
        Some(bond.clone())
    }

    /// The members of a bond, and the link to its other half.
    pub fn members_of(&self, bond: &Key) -> Vec<PortId> {
        let ids = self.ports.iter().enumerate();
        let stands =
            |slot: &PortSlot| matches!(&slot.place, Place::Member { bond: home, .. } if home == bond);
        ids.filter(|(_, slot)| slot.as_ref().is_some_and(stands))
            .map(|(index, _)| PortId(index as u32))
            .collect()
    }

    /// The ports of a network, uplinks included, in the order of their indices.
    pub fn members(&self, network: &Key) -> Vec<PortId> {
        let stands = |slot: &PortSlot| match &slot.place {
            Place::Guest { network: home, .. } | Place::Station { network: home, .. } => home == network,
            Place::Uplink { joined, .. } => joined.iter().any(|(home, _)| home == network),
            Place::Member { .. } => false,
        };
        let ids = self.ports.iter().enumerate();
        ids.filter(|(_, slot)| slot.as_ref().is_some_and(stands))
            .map(|(index, _)| PortId(index as u32))
            .collect()
    }
}
