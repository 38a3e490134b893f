//! Commands, carried out between two bursts. One that cannot be carried out changes nothing.

use super::command::{
    Command, CommandError, Key, LinkFacts, Mirror, MirrorSnapshot, NetworkConfig, NetworkSnapshot, Outcome,
    PortConfig, PortSnapshot, Sink, Snapshot, Wanted,
};
use super::gateway::gateway_name;
use super::run::Worker;
use super::table::{MirrorSlot, NetworkSlot, Place, PortSlot, Target};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use std::os::fd::AsRawFd;
use std::time::Duration;
use switchd_dataplane::{FdbRow, MirrorConfig, PortId};
use switchd_port::{Offloads, Port};

fn refused(error: impl std::fmt::Display) -> CommandError {
    CommandError::Refused(error.to_string())
}

/// What the far end of a device takes unfinished.
fn offloads(place: &Place, device: &dyn Port) -> Offloads {
    match place {
        // No kernel knows how to cut or check what is behind the peer link's tag.
        Place::Member { is_peer: true, .. } => Offloads::default(),
        _ => device.offloads(),
    }
}

/// Of a capture's interface.
fn describe(slot: &PortSlot) -> String {
    match &slot.place {
        Place::Guest { network, .. } => format!("network {network}"),
        Place::Uplink { .. } => "uplink".to_owned(),
        Place::Member { bond, .. } => format!("bond {bond}"),
        Place::Station { home, .. } => format!("gateway of network {home}"),
    }
}

impl Worker {
    pub(super) fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::AddNetwork { name, config } => self.add_network(name, config),
            Command::SetNetwork { name, config } => self.set_network(&name, config),
            Command::RemoveNetwork { name } => self.remove_network(&name),
            Command::AddPort { name, network, config, device } => {
                self.add_port(name, Place::Guest { network, config }, LinkFacts::default(), device)
            }
            Command::SetPort { name, config } => self.set_port(&name, config),
            Command::AddUplink { name, own, facts, device } => {
                self.add_port(name, Place::Uplink { own, joined: Vec::new() }, facts, device)
            }
            Command::RemovePort { name } | Command::RemoveUplink { name } => self.remove_port(&name),
            Command::JoinUplink { network, uplink, vid } => self.join(network, &uplink, vid),
            Command::LeaveUplink { network, uplink } => self.leave(&network, &uplink),
            Command::SetDevice { port, device } => self.set_device(&port, device),
            Command::SetCarrier { port, carrier } => self.set_carrier(&port, carrier),
            Command::SetOwn { uplink, own } => self.set_own(&uplink, own),
            Command::SetFacts { port, facts } => self.set_facts(&port, facts),
            Command::AddMirror { name, mirror } => self.add_mirror(name, *mirror),
            Command::RemoveMirror { name } => self.remove_mirror(&name),
            Command::FdbAdd { network, mac, vid, port } => {
                let (network, port) = (self.table.network_id(&network)?, self.table.port_id(&port)?);
                self.dataplane.fdb_add(network, mac, vid, port).map_err(refused)
            }
            Command::FdbDelete { network, mac, vid } => {
                let id = self.table.network_id(&network)?;
                match self.dataplane.fdb_delete(id, mac, vid) {
                    true => Ok(()),
                    false => Err(CommandError::Unknown(mac.to_string().into())),
                }
            }
            Command::Fdb { network, reply } => {
                let rows = self.fdb_rows(&network)?;
                let _ = reply.send(rows);
                Ok(())
            }
            Command::Snapshot { reply } => {
                let snapshot = self.snapshot();
                let _ = reply.send(snapshot);
                Ok(())
            }
            Command::Originate { network, side, frames } => self.originate(&network, side, frames),
            Command::SetGateway { network, gateway } => {
                self.set_gateway(&network, gateway.map(|gateway| *gateway))
            }
            Command::SetHostEgress { network, device } => self.set_host_egress(&network, device),
            Command::ChangeHostEgress { network, change } => self.change_host_egress(&network, *change),
            Command::Flows { network, limit, reply } => {
                let rows = self.flows(&network, limit)?;
                let _ = reply.send(rows);
                Ok(())
            }
            Command::AddBond { name, bond } => self.add_bond(name, *bond),
            Command::SetBond { name, config } => self.set_bond(&name, config),
            Command::AddMember { bond, member } => self.add_member(&bond, *member),
            Command::RemoveMember { bond, member } => self.remove_member(&bond, &member),
            Command::Bonds { reply } => {
                let _ = reply.send(self.bond_rows());
                Ok(())
            }
            Command::Neighbors { reply } => {
                let _ = reply.send(self.neighbor_rows());
                Ok(())
            }
            Command::Take { networks, reply } => {
                let shard = self.take(&networks)?;
                let _ = reply.send(shard);
                Ok(())
            }
            Command::Put { shard } => self.put(*shard),
            Command::Stop => {
                self.stopping = true;
                Ok(())
            }
        }
    }

    pub(super) fn add_network(&mut self, name: Key, config: NetworkConfig) -> Outcome {
        if self.table.networks.contains_key(&name) {
            return Err(CommandError::Exists(name));
        }
        let id = self.dataplane.add_network(config.clone());
        self.table.network_names.insert(id, name.clone());
        self.table.networks.insert(name.clone(), NetworkSlot { name: name.clone(), config, id });
        self.refresh_bridge(&name);
        Ok(())
    }

    fn set_network(&mut self, name: &Key, config: NetworkConfig) -> Outcome {
        let id = self.table.network_id(name)?;
        self.dataplane.set_network(id, config.clone());
        if let Some(slot) = self.table.networks.get_mut(name) {
            slot.config = config;
        }
        self.refresh_bridge(name);
        Ok(())
    }

    pub(super) fn remove_network(&mut self, name: &Key) -> Outcome {
        let id = self.table.network_id(name)?;
        let own = self.table.port_id(&gateway_name(name)).ok();
        if let Some(&port) = self.table.members(name).iter().find(|&&port| Some(port) != own) {
            let port = self.table.port_name(port);
            return Err(CommandError::Refused(format!("network {name} still has port {port}")));
        }
        self.drop_bridge(name);
        self.remove_gateway(name);
        self.dataplane.remove_network(id);
        self.table.network_names.remove(&id);
        self.table.networks.remove(name);
        Ok(())
    }

    /// A guest's port or an uplink; an uplink's networks join it afterwards.
    pub(super) fn add_port(
        &mut self,
        name: Key,
        place: Place,
        facts: LinkFacts,
        device: Option<Box<dyn Port>>,
    ) -> Outcome {
        if self.table.port_names.contains_key(&name) {
            return Err(CommandError::Exists(name));
        }
        let id = match &place {
            Place::Guest { network, config } => {
                let network = self.table.network_id(network)?;
                self.dataplane.add_port(network, config.clone())
            }
            Place::Uplink { own, .. } => self.dataplane.add_uplink(own.clone()),
            Place::Member { bond, .. } => return Err(CommandError::Unknown(bond.clone())),
            Place::Station { home, .. } => return Err(CommandError::Unknown(home.clone())),
        };
        let mut slot = PortSlot::new(name, place, true);
        slot.facts = facts;
        self.table.insert_port(id, slot);
        self.name_in_captures(id);
        let opened = self.open_device(id, device);
        if opened.is_err() {
            self.table.remove_port(id);
            self.dataplane.remove_port(id);
            return opened;
        }
        self.speak_on(id);
        Ok(())
    }

    /// Captures name their interfaces after ports.
    pub(super) fn name_in_captures(&mut self, id: PortId) {
        let Some(Some(slot)) = self.table.ports.get(id.0 as usize) else { return };
        let place = describe(slot);
        for mirror in self.table.mirrors.iter_mut().flatten() {
            if let Target::Capture { ring, .. } = &mut mirror.target {
                ring.interface(id.0, &slot.name, &place);
            }
        }
    }

    fn set_port(&mut self, name: &Key, config: PortConfig) -> Outcome {
        let id = self.table.port_id(name)?;
        if let Some(Place::Station { home, .. }) = self.table.port(id).map(|slot| &slot.place) {
            return Err(refused(format_args!("{name} is set by the gateway of network {home}")));
        }
        self.dataplane.set_port(id, config.clone());
        if let Some(PortSlot { place: Place::Guest { config: kept, .. }, .. }) = self.table.port_mut(id) {
            *kept = config;
        }
        Ok(())
    }

    pub(super) fn remove_port(&mut self, name: &Key) -> Outcome {
        let id = self.table.port_id(name)?;
        if let Some(Place::Station { home, .. }) = self.table.port(id).map(|slot| &slot.place) {
            return Err(refused(format_args!("{name} goes with the gateway of network {home}")));
        }
        self.leave_links(name, id);
        self.close_device(id);
        self.ready.retain(|&port| port != id);
        self.table.remove_port(id);
        self.dataplane.remove_port(id);
        Ok(())
    }

    pub(super) fn join(&mut self, network: Key, uplink: &Key, vid: Option<u16>) -> Outcome {
        let (network_id, id) = (self.table.network_id(&network)?, self.table.port_id(uplink)?);
        self.dataplane.join_uplink(network_id, id, vid).map_err(refused)?;
        if let Some(PortSlot { place: Place::Uplink { joined, .. }, .. }) = self.table.port_mut(id) {
            joined.push((network.clone(), vid));
        }
        self.refresh_bridge(&network);
        Ok(())
    }

    fn leave(&mut self, network: &Key, uplink: &Key) -> Outcome {
        let (network_id, id) = (self.table.network_id(network)?, self.table.port_id(uplink)?);
        self.dataplane.leave_uplink(network_id, id);
        if let Some(PortSlot { place: Place::Uplink { joined, .. }, .. }) = self.table.port_mut(id) {
            joined.retain(|(home, _)| home != network);
        }
        self.refresh_bridge(network);
        Ok(())
    }

    fn set_own(&mut self, uplink: &Key, addresses: Vec<switchd_wire::MacAddr>) -> Outcome {
        let id = self.table.port_id(uplink)?;
        if let Some(Place::Member { bond, .. }) = self.table.port(id).map(|slot| slot.place.clone()) {
            self.set_member_own(&bond, uplink, addresses);
            return Ok(());
        }
        self.dataplane.set_own(id, addresses.clone());
        if let Some(PortSlot { place: Place::Uplink { own, .. }, .. }) = self.table.port_mut(id) {
            *own = addresses;
        }
        Ok(())
    }

    fn set_device(&mut self, port: &Key, device: Option<Box<dyn Port>>) -> Outcome {
        let id = self.table.port_id(port)?;
        self.close_device(id);
        if device.is_some() {
            // Whoever gives a port a device again wants it open.
            self.dataplane.reopen(id);
        }
        self.open_device(id, device)
    }

    fn set_carrier(&mut self, port: &Key, carrier: bool) -> Outcome {
        let id = self.table.port_id(port)?;
        if let Some(slot) = self.table.port_mut(id) {
            slot.carrier = carrier;
        }
        self.update_link(id);
        Ok(())
    }

    /// Watches a device and brings the port's link up. What already waits in it is read at once.
    pub(super) fn open_device(&mut self, id: PortId, device: Option<Box<dyn Port>>) -> Outcome {
        if let Some(device) = device {
            if let Some(descriptor) = device.descriptor() {
                self.poll
                    .registry()
                    .register(
                        &mut SourceFd(&descriptor.as_raw_fd()),
                        Token(id.0 as usize),
                        Interest::READABLE,
                    )
                    .map_err(|error| refused(format_args!("could not watch the device: {error}")))?;
            } else {
                self.unwatched.push(id);
            }
            if let Some(slot) = self.table.port_mut(id) {
                slot.offloads = offloads(&slot.place, device.as_ref());
                slot.device = Some(device);
            }
            self.mark_ready(id);
        }
        self.update_link(id);
        Ok(())
    }

    /// The far end came, went, or agreed on something else.
    pub(super) fn device_changed(&mut self, id: PortId) {
        let before = self.dataplane.link(id);
        if let Some(slot) = self.table.port_mut(id)
            && let Some(device) = &slot.device
        {
            slot.offloads = offloads(&slot.place, device.as_ref());
        }
        self.update_link(id);
        let after = self.dataplane.link(id);
        if before != after {
            let device = self.table.port(id).and_then(|slot| slot.device.as_ref());
            let why = device.and_then(|device| device.condition());
            let otherwise = if after { "a guest is there, and its queues run" } else { "the guest has gone" };
            let detail = why.unwrap_or_else(|| otherwise.to_owned());
            (self.notices)(super::command::Notice::Event {
                kind: if after { "port.guest-connected" } else { "port.guest-left" },
                object: format!("port {}", self.table.port_name(id)),
                detail,
            });
        }
    }

    /// Stops watching and drops the device. The broker holds a copy of the descriptor, so closing ours
    /// does not end the watch by itself.
    pub(super) fn close_device(&mut self, id: PortId) {
        if let Some(mut device) = self.detach_device(id) {
            let drops = device.kernel_drops();
            if let Some(slot) = self.table.port_mut(id) {
                slot.kernel_drops += drops;
            }
        }
        self.update_link(id);
    }

    pub(super) fn detach_device(&mut self, id: PortId) -> Option<Box<dyn Port>> {
        let slot = self.table.port_mut(id)?;
        slot.polled = false;
        let device = slot.device.take()?;
        self.unwatched.retain(|&port| port != id);
        self.polled.retain(|&port| port != id);
        if let Some(descriptor) = device.descriptor() {
            // A device that is gone may have left the watch already.
            let _ = self.poll.registry().deregister(&mut SourceFd(&descriptor.as_raw_fd()));
        }
        Some(device)
    }

    pub(super) fn update_link(&mut self, id: PortId) {
        let Some(slot) = self.table.port(id) else { return };
        if matches!(slot.place, Place::Station { .. }) {
            // A gateway answers with or without a device.
            return;
        }
        let up = slot.carrier && slot.device.as_ref().is_some_and(|device| device.carrier());
        self.dataplane.set_link(id, up);
        self.tell_link(id, up);
    }

    pub(super) fn add_mirror(&mut self, name: Key, mirror: Mirror) -> Outcome {
        let target = match mirror.to {
            Sink::Capture { ring, snaplen, segment } => Target::Capture { ring, snaplen, segment },
            Sink::Port(port) => Target::Port(port),
        };
        self.place_mirror(MirrorSlot {
            name,
            ports: mirror.ports,
            networks: mirror.networks,
            filter: mirror.filter,
            target,
            seen: 0,
            filtered: 0,
            copied: 0,
        })
    }

    pub(super) fn place_mirror(&mut self, mut slot: MirrorSlot) -> Outcome {
        if self.table.mirror_names.contains_key(&slot.name) {
            return Err(CommandError::Exists(slot.name));
        }
        let mut config = MirrorConfig { ports: Vec::new(), networks: Vec::new(), target: None };
        for (port, Wanted { rx, tx }) in &slot.ports {
            config.ports.push((self.table.port_id(port)?, *rx, *tx));
        }
        for (network, Wanted { rx, tx }) in &slot.networks {
            config.networks.push((self.table.network_id(network)?, *rx, *tx));
        }
        if let Target::Port(port) = &slot.target {
            config.target = Some(self.table.port_id(port)?);
        }
        let id = self.dataplane.add_mirror(config).map_err(refused)?;
        if let Target::Capture { ring, .. } = &mut slot.target {
            for (index, port) in self.table.ports.iter().enumerate() {
                if let Some(port) = port {
                    ring.interface(index as u32, &port.name, &describe(port));
                }
            }
        }
        self.table.insert_mirror(id, slot);
        Ok(())
    }

    fn remove_mirror(&mut self, name: &Key) -> Outcome {
        self.lift_mirror(name).map(drop).ok_or_else(|| CommandError::Unknown(name.clone()))
    }

    /// Dropping the slot of a capture closes its ring, after what it holds was handed over.
    pub(super) fn lift_mirror(&mut self, name: &Key) -> Option<MirrorSlot> {
        let (id, slot) = self.table.remove_mirror(name)?;
        self.dataplane.remove_mirror(id);
        Some(slot)
    }

    pub(super) fn fdb_rows(&self, network: &Key) -> Result<Vec<FdbRow<Key>>, CommandError> {
        let id = self.table.network_id(network)?;
        let rows = self.dataplane.fdb_rows(id, self.now());
        let named = |row: FdbRow| FdbRow {
            mac: row.mac,
            vid: row.vid,
            port: self.table.port_name(row.port),
            is_static: row.is_static,
            age: row.age,
        };
        Ok(rows.into_iter().map(named).collect())
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut snapshot = Snapshot {
            worker: self.options.index,
            frames: self.frames_seen,
            busy_cycles: self.busy_cycles,
            bursts: self.bursts,
            sleeps: self.sleeps,
            busy: Duration::from_nanos(self.busy_ns),
            gateways: self.gateway_snapshots(),
            service_frames_lost: self.service_frames_lost,
            ..Snapshot::default()
        };
        for (index, slot) in self.table.ports.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let id = PortId(index as u32);
            let kernel_drops = slot.device.as_mut().map_or(0, |device| device.kernel_drops());
            snapshot.ports.push(PortSnapshot {
                name: slot.name.clone(),
                link: self.dataplane.link(id),
                addresses: self.dataplane.addresses_behind(id),
                counters: self.dataplane.port_counters(id).clone(),
                kernel_drops: slot.kernel_drops + kernel_drops,
                unreadable: slot.unreadable,
                condition: slot.device.as_ref().and_then(|device| device.condition()),
            });
        }
        for slot in self.table.networks.values() {
            let ports = self.table.members(&slot.name).into_iter();
            snapshot.networks.push(NetworkSnapshot {
                name: slot.name.clone(),
                ports: ports.map(|id| self.table.port_name(id)).collect(),
                counters: self.dataplane.network_counters(slot.id),
            });
        }
        for slot in self.table.mirrors.iter().flatten() {
            snapshot.mirrors.push(MirrorSnapshot {
                name: slot.name.clone(),
                seen: slot.seen,
                filtered: slot.filtered,
                copied: slot.copied,
                lost: 0,
            });
        }
        snapshot
    }
}
