//! Networks on their way from one worker to another.
//!
//! When a change joins networks that lived apart (they now share an uplink or a mirror), control moves one
//! side before it goes on. The move takes everything: tables with the ages of their addresses, devices,
//! mirrors with their rings, counters. Meanwhile frames wait in the kernel's queues.

use super::bonds::{BondSlot, MemberSlot, member_name};
use super::command::Notice;
use super::command::{Bond, BondSettings, CommandError, Key, Member, NetworkConfig, Outcome, Shard};
use super::gateway::MovedGateway;
use super::run::Worker;
use super::table::{MirrorSlot, Place, PortSlot, Target};
use switchd_dataplane::{FdbRow, NetworkCounters, PortCounters, PortId};

pub struct Contents {
    networks: Vec<Network>,
    ports: Vec<Moved>,
    mirrors: Vec<MirrorSlot>,
    gateways: Vec<MovedGateway>,
}

struct Moved {
    slot: PortSlot,
    counters: PortCounters,
    /// By a guard.
    shut: bool,
    /// Of a port that is a bond.
    bond: Option<MovedBond>,
}

struct MovedBond {
    name: Key,
    settings: BondSettings,
    kept: Option<Vec<u8>>,
    members: Vec<MovedMember>,
}

struct MovedMember {
    member: MemberSlot,
    is_peer: bool,
    slot: PortSlot,
    counters: PortCounters,
}

struct Network {
    name: Key,
    config: NetworkConfig,
    counters: NetworkCounters,
    rows: Vec<FdbRow<Key>>,
}

impl Worker {
    pub(super) fn take(&mut self, names: &[Key]) -> Result<Shard, CommandError> {
        let mut ids = self.members_alone(names)?;
        self.gateways_alone(names)?;
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
        let gateways = self.lift_gateways(names);
        ids.retain(|&id| self.table.port(id).is_some());
        let mut ports = Vec::new();
        for &id in &ids {
            let name = self.table.port_name(id);
            let bond = self.lift_bond(&name);
            let shut = self.dataplane.is_shut(id);
            self.leave_links(&name, id);
            if let Some((slot, counters)) = self.lift_port(id) {
                ports.push(Moved { slot, counters, shut, bond });
            }
        }
        for name in names {
            self.remove_network(name)?;
        }
        Ok(Shard(Box::new(Contents { networks, ports, mirrors, gateways })))
    }

    fn lift_port(&mut self, id: PortId) -> Option<(PortSlot, PortCounters)> {
        let counters = self.dataplane.port_counters(id).clone();
        let device = self.detach_device(id);
        self.ready.retain(|&port| port != id);
        self.dataplane.remove_port(id);
        let mut slot = self.table.remove_port(id)?;
        slot.device = device;
        Some((slot, counters))
    }

    /// Takes a bond apart: its members with their devices, and what its machines were.
    fn lift_bond(&mut self, port: &Key) -> Option<MovedBond> {
        let name = self.table.bond_of(port)?;
        let BondSlot { settings, members, peer, .. } = self.table.bonds.remove(&name)?;
        let kept = self.links.take_bond(&name);
        let slots = members.into_iter().map(|member| (member_name(&member.interface), member, false));
        let peer = peer.into_iter().map(|peer| (member_name(&peer.interface), peer, true));
        let mut moved = Vec::new();
        for (port, member, is_peer) in slots.chain(peer) {
            let Ok(id) = self.table.port_id(&port) else { continue };
            if let Some((slot, counters)) = self.lift_port(id) {
                moved.push(MovedMember { member, is_peer, slot, counters });
            }
        }
        Some(MovedBond { name, settings, kept, members: moved })
    }

    fn put_bond(&mut self, bond: MovedBond) -> Outcome {
        let MovedBond { name, settings, kept, members } = bond;
        self.add_bond(name.clone(), Bond { settings, members: Vec::new(), peer: None, kept })?;
        for MovedMember { member, is_peer, slot, counters } in members {
            let MemberSlot { interface, number, own, facts } = member;
            let PortSlot { name: port, device, carrier, unreadable, kernel_drops, .. } = slot;
            let member = Member { interface, number, own, facts, carrier, device };
            match is_peer {
                true => self.add_peer(&name, member)?,
                false => self.add_member(&name, member)?,
            }
            let id = self.table.port_id(&port)?;
            if let Some(slot) = self.table.port_mut(id) {
                (slot.unreadable, slot.kernel_drops) = (unreadable, kernel_drops);
            }
            self.dataplane.restore_port_counters(id, counters);
        }
        Ok(())
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
        let mut ports: Vec<Key> = ids.iter().map(|&id| self.table.port_name(id)).collect();
        let bonds = ports.iter().filter_map(|port| self.table.bond_of(port));
        let members: Vec<PortId> = bonds.flat_map(|bond| self.table.members_of(&bond)).collect();
        ports.extend(members.into_iter().map(|id| self.table.port_name(id)));
        let moves = |mirror: &&MirrorSlot| {
            let target = matches!(&mirror.target, Target::Port(port) if ports.contains(port));
            target
                || mirror.networks.iter().any(|(network, _)| networks.contains(network))
                || mirror.ports.iter().any(|(port, _)| ports.contains(port))
        };
        self.table.mirrors.iter().flatten().filter(moves).map(|mirror| mirror.name.clone()).collect()
    }

    pub(super) fn put(&mut self, shard: Shard) -> Outcome {
        let Contents { networks, ports, mirrors, gateways } = *shard.0;
        for network in &networks {
            self.add_network(network.name.clone(), network.config.clone())?;
        }
        for port in ports {
            self.put_port(port)?;
        }
        for gateway in gateways {
            self.put_gateway(gateway)?;
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

    fn put_port(&mut self, moved: Moved) -> Outcome {
        let Moved { slot, counters, shut, bond } = moved;
        let PortSlot { name, place, device, carrier, facts, unreadable, kernel_drops, .. } = slot;
        let (place, joined) = match place {
            Place::Uplink { own, joined } => (Place::Uplink { own, joined: Vec::new() }, joined),
            guest => (guest, Vec::new()),
        };
        match bond {
            Some(bond) => self.put_bond(bond)?,
            None => {
                self.add_port(name.clone(), place, facts, None)?;
                let id = self.table.port_id(&name)?;
                // One device that cannot be watched here must not cost the rest of the shard.
                if let Err(error) = self.open_device(id, device) {
                    let error = std::io::Error::other(error.to_string());
                    (self.notices)(Notice::DeviceLost { port: name.clone(), error });
                }
            }
        }
        for (network, vid) in joined {
            self.join(network, &name, vid)?;
        }
        let id = self.table.port_id(&name)?;
        if let Some(slot) = self.table.port_mut(id) {
            (slot.carrier, slot.unreadable, slot.kernel_drops) = (carrier, unreadable, kernel_drops);
        }
        self.update_link(id);
        self.dataplane.restore_port_counters(id, counters);
        if shut {
            self.dataplane.restore_shut(id);
        }
        Ok(())
    }
}
