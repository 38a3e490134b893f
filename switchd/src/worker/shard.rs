//! Networks on their way from one worker to another.
//!
//! When a change joins networks that lived apart (they now share an uplink or a mirror), control moves one
//! side before it goes on. The move takes everything: tables with the ages of their addresses, devices,
//! mirrors with their rings, counters. Meanwhile frames wait in the kernel's queues.

use super::command::{CommandError, Key, NetworkConfig, Outcome, Shard};
use super::run::Worker;
use super::table::{MirrorSlot, NetworkSlot, Place, PortSlot, Target};
use switchd_dataplane::{NetworkExport, PortId, UplinkExport};

pub struct Contents {
    networks: Vec<Network>,
    uplinks: Vec<(PortSlot, UplinkExport)>,
    mirrors: Vec<MirrorSlot>,
}

struct Network {
    name: Key,
    config: NetworkConfig,
    uplink: Option<Key>,
    /// With the index that each had here.
    guests: Vec<(PortId, PortSlot)>,
    export: NetworkExport,
}

impl Worker {
    pub(super) fn take(&mut self, names: &[Key]) -> Result<Shard, CommandError> {
        let uplinks = self.uplinks_of(names)?;
        let mirrors = self.mirrors_of(names);
        let mirrors = mirrors.iter().filter_map(|name| self.lift_mirror(name)).collect();
        let now = self.now();
        let mut networks = Vec::new();
        for name in names {
            let members = self.table.members(name);
            let Some(slot) = self.table.networks.remove(name) else { continue };
            self.table.network_names.remove(&slot.id);
            let mut network = (Vec::new(), None);
            for id in members {
                match self.table.port(id).map(|slot| (&slot.place, &slot.name)) {
                    Some((Place::Uplink { .. }, uplink)) => network.1 = Some(uplink.clone()),
                    _ => network.0.extend(self.unplug(id).map(|slot| (id, slot))),
                }
            }
            let Some(export) = self.dataplane.export_network(slot.id, now) else { continue };
            let (guests, uplink) = network;
            networks.push(Network { name: slot.name, config: slot.config, uplink, guests, export });
        }
        let mut moved = Vec::new();
        for id in uplinks {
            if let (Some(slot), Some(export)) = (self.unplug(id), self.dataplane.export_uplink(id)) {
                moved.push((slot, export));
            }
        }
        Ok(Shard(Box::new(Contents { networks, uplinks: moved, mirrors })))
    }

    /// The uplinks of these networks; refused when one serves a network that is to stay.
    fn uplinks_of(&self, names: &[Key]) -> Result<Vec<PortId>, CommandError> {
        let mut uplinks = Vec::new();
        for name in names {
            self.table.network_id(name)?;
            for id in self.table.members(name) {
                let Some(PortSlot { name, place: Place::Uplink { joined, .. }, .. }) = self.table.port(id)
                else {
                    continue;
                };
                if let Some((other, _)) = joined.iter().find(|(network, _)| !names.contains(network)) {
                    let text = format!("{name} also serves network {other}, which is to stay");
                    return Err(CommandError::Refused(text));
                }
                uplinks.push(id);
            }
        }
        uplinks.sort_unstable();
        uplinks.dedup();
        Ok(uplinks)
    }

    fn mirrors_of(&self, names: &[Key]) -> Vec<Key> {
        let ports: Vec<Key> = names
            .iter()
            .flat_map(|name| self.table.members(name))
            .map(|id| self.table.port_name(id))
            .collect();
        let moves = |mirror: &&MirrorSlot| {
            let target = matches!(&mirror.target, Target::Port(port) if ports.contains(port));
            target
                || mirror.networks.iter().any(|(network, _)| names.contains(network))
                || mirror.ports.iter().any(|(port, _)| ports.contains(port))
        };
        self.table.mirrors.iter().flatten().filter(moves).map(|mirror| mirror.name.clone()).collect()
    }

    /// Takes a port out of the table with its device; the dataplane still knows it.
    fn unplug(&mut self, id: PortId) -> Option<PortSlot> {
        let device = self.detach_device(id);
        self.ready.retain(|&port| port != id);
        let mut slot = self.table.remove_port(id)?;
        slot.device = device;
        Some(slot)
    }

    fn plug(&mut self, id: PortId, mut slot: PortSlot) -> Outcome {
        let device = slot.device.take();
        slot.ready = false;
        self.table.insert_port(id, slot);
        self.name_in_captures(id);
        self.open_device(id, device)
    }

    pub(super) fn put(&mut self, shard: Shard) -> Outcome {
        let Contents { networks, uplinks, mirrors } = *shard.0;
        for (slot, export) in uplinks {
            let id = self.dataplane.import_uplink(export);
            self.plug(id, slot)?;
        }
        let now = self.now();
        for Network { name, config, uplink, guests, export } in networks {
            let uplink = uplink.map(|uplink| self.table.port_id(&uplink)).transpose()?;
            let imported = self.dataplane.import_network(export, uplink, now);
            let id = imported.network;
            self.table.network_names.insert(id, name.clone());
            self.table.networks.insert(name.clone(), NetworkSlot { name, config, id });
            for (old, slot) in guests {
                if let Some(&(_, new)) = imported.ports.iter().find(|(was, _)| *was == old) {
                    self.plug(new, slot)?;
                }
            }
        }
        for mirror in mirrors {
            self.place_mirror(mirror)?;
        }
        Ok(())
    }
}
