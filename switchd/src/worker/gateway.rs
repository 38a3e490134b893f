//! Gateways of NAT networks, by name: their ports are `gateway:NET` and, on the segment of an outside,
//! `egress:NET`. The dataplane makes and removes these ports; here they get names, and with egress host
//! the gateway's port gets a device, which is watched like any other.

use super::command::{
    CommandError, FlowRow, Gateway, GatewaySnapshot, Key, NeighborEntry, Notice, Outcome, Side,
};
use super::run::Worker;
use super::table::{Place, PortSlot};
use std::collections::HashMap;
use switchd_dataplane::gateway::Moved;
use switchd_dataplane::{Egress, GatewayConfig, PortId};
use switchd_nat::NatNotice;
use switchd_port::Port;
use switchd_port::host_egress::{HostEgress, HostEgressChange, HostEgressNotice, HostFlow};
use switchd_wire::MacAddr;

fn refused(error: impl std::fmt::Display) -> CommandError {
    CommandError::Refused(error.to_string())
}

pub(super) fn gateway_name(network: &str) -> Key {
    format!("gateway:{network}").into()
}

pub(super) fn egress_name(network: &str) -> Key {
    format!("egress:{network}").into()
}

/// A gateway on its way to another worker.
pub(super) struct MovedGateway {
    network: Key,
    segment: Option<Key>,
    moved: Moved,
    /// What translation calls the guests.
    guests: Vec<(Key, u32)>,
    device: Option<Box<dyn Port>>,
}

impl Worker {
    pub(super) fn set_gateway(&mut self, network: &Key, gateway: Option<Gateway>) -> Outcome {
        let id = self.table.network_id(network)?;
        let segment = gateway.as_ref().and_then(|gateway| gateway.segment.clone());
        let config = match gateway {
            Some(gateway) => Some(self.placed(gateway.config, segment.as_ref())?),
            None => None,
        };
        let now = self.now();
        self.dataplane.set_gateway(now, id, config).map_err(refused)?;
        self.name_stations(network, segment);
        self.dispatch(now);
        Ok(())
    }

    /// The configuration with the segment as the dataplane numbers it.
    fn placed(
        &self,
        mut config: GatewayConfig,
        segment: Option<&Key>,
    ) -> Result<GatewayConfig, CommandError> {
        if let Egress::Outside(outside) = &mut config.egress {
            let name = segment.ok_or_else(|| refused("the gateway's egress names no segment"))?;
            outside.segment = self.table.network_id(name)?;
        }
        Ok(config)
    }

    /// After a change: gives the stations their names, and forgets those that are gone.
    fn name_stations(&mut self, network: &Key, segment: Option<Key>) {
        let Ok(id) = self.table.network_id(network) else { return };
        let wanted = [
            (gateway_name(network), self.dataplane.gateway_port(id), Some(network.clone())),
            (egress_name(network), self.dataplane.outside_port(id), segment),
        ];
        // Indices are used again: what is stale goes before anything new is named.
        for (name, port, place) in &wanted {
            let Ok(old) = self.table.port_id(name) else { continue };
            let stays = Some(old) == *port
                && matches!(
                    self.table.port(old).map(|slot| &slot.place),
                    Some(Place::Station { network, .. }) if Some(network) == place.as_ref()
                );
            if !stays {
                self.forget_station(old);
            }
        }
        for (name, port, place) in wanted {
            let (Some(port), Some(place)) = (port, place) else { continue };
            if self.table.port_id(&name).is_err() {
                let place = Place::Station { network: place, home: network.clone() };
                self.table.insert_port(port, PortSlot::new(name, place, true));
                self.name_in_captures(port);
            }
        }
    }

    fn forget_station(&mut self, id: PortId) -> Option<Box<dyn Port>> {
        let device = self.detach_device(id);
        self.ready.retain(|&port| port != id);
        self.table.remove_port(id);
        device
    }

    /// Gives a gateway whose egress is the host its device, or takes it away.
    pub(super) fn set_host_egress(&mut self, network: &Key, device: Option<Box<dyn Port>>) -> Outcome {
        let port = self.table.port_id(&gateway_name(network))?;
        self.detach_device(port);
        self.open_device(port, device)
    }

    pub(super) fn change_host_egress(&mut self, network: &Key, change: HostEgressChange) -> Outcome {
        let port = self.table.port_id(&gateway_name(network))?;
        let device = self.table.port_mut(port).and_then(|slot| slot.device.as_mut());
        let engine = device.and_then(|device| device.as_host_egress());
        let engine = engine
            .ok_or_else(|| refused(format_args!("network {network} has no egress through the host")))?;
        engine.apply(change).map_err(refused)?;
        self.mark_ready(port);
        Ok(())
    }

    fn engine(&mut self, network: &Key) -> Option<&mut HostEgress> {
        let port = self.table.port_id(&gateway_name(network)).ok()?;
        self.table.port_mut(port)?.device.as_mut()?.as_host_egress()
    }

    /// What the engines of egress host have to tell.
    pub(super) fn tell_host_egress(&mut self) {
        for slot in self.table.ports.iter_mut().flatten() {
            let Place::Station { home, .. } = &slot.place else { continue };
            let Some(engine) = slot.device.as_mut().and_then(|device| device.as_host_egress()) else {
                continue;
            };
            for notice in engine.take_notices() {
                let (kind, detail) = match notice {
                    HostEgressNotice::Full { flows } => {
                        ("nat.full", format!("the network has {flows} flows, as many as it may"))
                    }
                    HostEgressNotice::Descriptors { limit } => (
                        "nat.full",
                        format!("the process may have {limit} descriptors, and flows need one each"),
                    ),
                    HostEgressNotice::Quota { guest, flows } => {
                        ("nat.quota", format!("guest {guest} has {flows} flows, as many as it may"))
                    }
                };
                (self.notices)(Notice::Event { kind, object: format!("network {home}"), detail });
            }
        }
    }

    /// Before a network goes.
    pub(super) fn remove_gateway(&mut self, network: &Key) {
        if self.table.port_id(&gateway_name(network)).is_ok() {
            let gone = self.set_gateway(network, None);
            debug_assert_eq!(gone, Ok(()));
        }
    }

    pub(super) fn flows(&mut self, network: &Key, limit: usize) -> Result<Vec<FlowRow>, CommandError> {
        let id = self.table.network_id(network)?;
        if let Some(flows) = self.engine(network).map(|engine| engine.flows(limit)) {
            let ports = self.ports_by_mac(network)?;
            return Ok(flows.into_iter().map(|flow| host_row(&ports, flow)).collect());
        }
        let flows = self.dataplane.flows(id, self.now(), limit);
        let ports = self.ports_by_mac(network)?;
        Ok(flows.into_iter().map(|flow| self.flow_row(&ports, &flow)).collect())
    }

    fn ports_by_mac(&self, network: &Key) -> Result<HashMap<MacAddr, Key>, CommandError> {
        Ok(self.fdb_rows(network)?.into_iter().map(|row| (row.mac, row.port)).collect())
    }

    fn flow_row(&self, ports: &HashMap<MacAddr, Key>, flow: &switchd_nat::Flow) -> FlowRow {
        let protocol = match flow.protocol {
            1 => "icmp",
            6 => "tcp",
            17 => "udp",
            47 => "gre",
            50 => "esp",
            58 => "icmp6",
            132 => "sctp",
            _ => "ip",
        };
        let place = |at: std::net::SocketAddr| match flow.protocol {
            1 | 6 | 17 | 58 | 132 => at.to_string(),
            _ => at.ip().to_string(),
        };
        FlowRow {
            protocol,
            inside: place(flow.inside),
            outside: place(flow.outside),
            remote: place(flow.remote),
            state: flow.state,
            port: self.port_of_flow(ports, flow),
            idle: flow.idle,
            expires: flow.expires,
            packets: flow.packets.into(),
            bytes: flow.bytes,
        }
    }

    /// Whose it is: of the guest that opened it, or of the one to which a forward led it.
    fn port_of_flow(&self, ports: &HashMap<MacAddr, Key>, flow: &switchd_nat::Flow) -> Option<Key> {
        let opener = flow.guest.and_then(|guest| Some(self.table.port(PortId(guest))?.name.clone()));
        opener.or_else(|| ports.get(&flow.mac?).cloned())
    }

    pub(super) fn gateway_snapshots(&mut self) -> Vec<GatewaySnapshot> {
        let mut snapshots = self.snapshots_of_gateways();
        for snapshot in &mut snapshots {
            snapshot.host = self.engine(&snapshot.network).map(|engine| engine.counters());
        }
        snapshots
    }

    fn snapshots_of_gateways(&self) -> Vec<GatewaySnapshot> {
        let snapshot = |slot: &super::table::NetworkSlot| {
            let row = self.dataplane.gateway_row(slot.id)?;
            let neighbors = row.neighbors.iter().map(|(side, row)| NeighborEntry {
                side: match side {
                    switchd_nat::Side::Inside => Side::Inside,
                    switchd_nat::Side::Outside => Side::Outside,
                },
                address: row.address,
                mac: row.mac,
                state: row.state,
            });
            Some(GatewaySnapshot {
                network: slot.name.clone(),
                counters: row.counters,
                nat: row.nat,
                host: None,
                neighbors: neighbors.collect(),
                neighbor_counters: row.neighbor_counters,
            })
        };
        self.table.networks.values().filter_map(snapshot).collect()
    }

    /// For a move: the gateways of these networks. Refused when an outside stands on a network that is to
    /// stay, or somebody else's outside on one of these.
    pub(super) fn gateways_alone(&self, names: &[Key]) -> Outcome {
        for slot in self.table.ports.iter().flatten() {
            let Place::Station { network, home } = &slot.place else { continue };
            if names.contains(network) != names.contains(home) {
                let text = format!("the egress of network {home} stands on network {network}: both move");
                return Err(CommandError::Refused(text));
            }
        }
        Ok(())
    }

    pub(super) fn lift_gateways(&mut self, names: &[Key]) -> Vec<MovedGateway> {
        let mut lifted = Vec::new();
        for network in names {
            let Ok(id) = self.table.network_id(network) else { continue };
            let (inside, outside) = (gateway_name(network), egress_name(network));
            let segment = self.table.port_id(&outside).ok().and_then(|port| self.table.port(port));
            let segment = segment.and_then(|slot| match &slot.place {
                Place::Station { network, .. } => Some(network.clone()),
                _ => None,
            });
            let device = self.table.port_id(&inside).ok().and_then(|port| self.forget_station(port));
            if let Ok(port) = self.table.port_id(&outside) {
                self.forget_station(port);
            }
            if let Some(moved) = self.dataplane.take_gateway(id) {
                let guests = moved.guests.iter().map(|&(port, number)| (self.table.port_name(port), number));
                let guests = guests.collect();
                lifted.push(MovedGateway { network: network.clone(), segment, moved, guests, device });
            }
        }
        lifted
    }

    pub(super) fn put_gateway(&mut self, gateway: MovedGateway) -> Outcome {
        let MovedGateway { network, segment, mut moved, guests, device } = gateway;
        let id = self.table.network_id(&network)?;
        let here =
            guests.into_iter().filter_map(|(name, number)| Some((self.table.port_id(&name).ok()?, number)));
        moved.guests = here.collect();
        moved.config = self.placed(moved.config, segment.as_ref())?;
        let now = self.now();
        self.dataplane.put_gateway(now, id, moved).map_err(refused)?;
        self.name_stations(&network, segment);
        match device {
            Some(device) => self.set_host_egress(&network, Some(device)),
            None => Ok(()),
        }
    }
}

fn host_row(ports: &HashMap<MacAddr, Key>, flow: HostFlow) -> FlowRow {
    let place = |at: Option<std::net::SocketAddr>| at.map_or_else(|| "*".to_owned(), |at| at.to_string());
    FlowRow {
        protocol: flow.protocol,
        inside: flow.inside.to_string(),
        outside: place(flow.outside),
        remote: place(flow.remote),
        state: flow.state,
        port: ports.get(&flow.mac).cloned(),
        idle: flow.idle,
        expires: flow.expires,
        packets: flow.packets,
        bytes: flow.bytes,
    }
}

/// What translation tells, as an event.
pub(super) fn nat_event(network: &Key, port: Option<Key>, notice: NatNotice) -> Notice {
    let (kind, detail) = match notice {
        NatNotice::Quota { refused, .. } => {
            let port = port.map_or_else(|| "a guest".to_owned(), |port| format!("port {port}"));
            ("nat.quota", format!("{port} has as many flows as it may; {refused} more were refused"))
        }
        NatNotice::TableFull { refused } => {
            ("nat.full", format!("the network has as many flows as it may; {refused} more were refused"))
        }
        NatNotice::NoPort { outside, refused } => {
            ("nat.no-port", format!("no port of {outside} is left; {refused} flows were refused"))
        }
    };
    Notice::Event { kind, object: format!("network {network}"), detail }
}
