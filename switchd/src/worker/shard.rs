//! Networks on their way from one worker to another.
//!
//! When a change joins networks that lived apart (they now share an uplink or a mirror), control moves one
//! side before it goes on. The move takes everything: tables with the ages of their addresses, devices,
//! mirrors with their rings, counters. Meanwhile frames wait in the kernel's queues.

use super::command::{CommandError, Key, NetworkConfig, Outcome, Shard};
use super::run::Worker;
use super::table::{MirrorSlot, Place, PortSlot, Target};
use switchd_dataplane::{FdbRow, NetworkCounters, PortCounters, PortId};

pub struct Contents {
    networks: Vec<Network>,
    ports: Vec<(PortSlot, PortCounters)>,
    mirrors: Vec<MirrorSlot>,
}

struct Network {
    name: Key,
    config: NetworkConfig,
    counters: NetworkCounters,
    rows: Vec<FdbRow<Key>>,
}

impl Worker {
    pub(super) fn take(&mut self, names: &[Key]) -> Result<Shard, CommandError> {
        let ids = self.members_alone(names)?;
        let mirrors = self.mirrors_of(names, &ids);
        let mirrors = mirrors.iter().filter_map(|name| self.lift_mirror(name)).collect();
        let mut networks = Vec::new();
        for name in names {
            let rows = self.fdb_rows(name)?;
            let id = self.table.network_id(name)?;
            let counters = self.dataplane.network_counters(id);
            let config = self.table.networks[name].config.clone();
            networks.push(Network { name: name.clone(), config, counters, rows });
        }
        let mut ports = Vec::new();
        for &id in &ids {
            let counters = self.dataplane.port_counters(id).clone();
            let device = self.detach_device(id);
            self.ready.retain(|&port| port != id);
            self.dataplane.remove_port(id);
            if let Some(mut slot) = self.table.remove_port(id) {
                slot.device = device;
                ports.push((slot, counters));
            }
        }
        for name in names {
            self.remove_network(name)?;
        }
        Ok(Shard(Box::new(Contents { networks, ports, mirrors })))
    }

    /// All ports of these networks; refused when an uplink among them serves a network that is to stay.
    fn members_alone(&self, names: &[Key]) -> Result<Vec<PortId>, CommandError> {
        let mut ids = Vec::new();
        for name in names {
            self.table.network_id(name)?;
            ids.extend(self.table.members(name));
        }
        ids.sort_unstable();
        ids.dedup();
        for &id in &ids {
            let Some(PortSlot { name, place: Place::Uplink { joined, .. }, .. }) = self.table.port(id) else {
                continue;
            };
            if let Some((other, _)) = joined.iter().find(|(network, _)| !names.contains(network)) {
                let text = format!("{name} also serves network {other}, which is to stay");
                return Err(CommandError::Refused(text));
            }
        }
        Ok(ids)
    }

    fn mirrors_of(&self, networks: &[Key], ids: &[PortId]) -> Vec<Key> {
        let ports: Vec<Key> = ids.iter().map(|&id| self.table.port_name(id)).collect();
        let moves = |mirror: &&MirrorSlot| {
            let target = matches!(&mirror.target, Target::Port(port) if ports.contains(port));
            target
                || mirror.networks.iter().any(|(network, _)| networks.contains(network))
                || mirror.ports.iter().any(|(port, _)| ports.contains(port))
        };
        self.table.mirrors.iter().flatten().filter(moves).map(|mirror| mirror.name.clone()).collect()
    }

    pub(super) fn put(&mut self, shard: Shard) -> Outcome {
        let Contents { networks, ports, mirrors } = *shard.0;
        for network in &networks {
            self.add_network(network.name.clone(), network.config.clone())?;
        }
        for (slot, counters) in ports {
            self.put_port(slot, counters)?;
        }
        let now = self.now();
        for network in networks {
            let id = self.table.network_id(&network.name)?;
            for row in network.rows {
                let Ok(port) = self.table.port_id(&row.port) else { continue };
                let FdbRow { mac, vid, is_static, age, .. } = row;
                self.dataplane.restore_address(id, FdbRow { mac, vid, port, is_static, age }, now);
            }
            self.dataplane.restore_network_counters(id, network.counters);
        }
        for mirror in mirrors {
            self.place_mirror(mirror)?;
        }
        Ok(())
    }

    fn put_port(&mut self, slot: PortSlot, counters: PortCounters) -> Outcome {
        let PortSlot { name, place, device, carrier, unreadable, kernel_drops, .. } = slot;
        let (place, joined) = match place {
            Place::Uplink { own, joined } => (Place::Uplink { own, joined: Vec::new() }, joined),
            guest => (guest, Vec::new()),
        };
        self.add_port(name.clone(), place, device)?;
        for (network, vid) in joined {
            self.join(network, &name, vid)?;
        }
        let id = self.table.port_id(&name)?;
        if let Some(slot) = self.table.port_mut(id) {
            (slot.carrier, slot.unreadable, slot.kernel_drops) = (carrier, unreadable, kernel_drops);
        }
        self.update_link(id);
        self.dataplane.restore_port_counters(id, counters);
        Ok(())
    }
}
