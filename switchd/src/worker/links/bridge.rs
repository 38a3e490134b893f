//! Spanning tree on one network.

use super::{Interface, Output, Outputs};
use crate::worker::command::{Key, Notice};
use std::collections::BTreeMap;
use switchd_dataplane::{NetworkId, PortId};
use switchd_proto::rstp::{Config, DEFAULT_PRIORITY, Event, PORTS_MAX, PortConfig, Rstp};
use switchd_wire::MacAddr;

struct BridgePort {
    id: PortId,
    name: Key,
}

pub struct Bridge {
    network: NetworkId,
    name: Key,
    mac: MacAddr,
    rstp: Rstp,
    /// By the number that spanning tree knows a port by.
    ports: BTreeMap<u16, BridgePort>,
}

impl Bridge {
    pub fn new(network: NetworkId, name: Key, mac: MacAddr) -> Bridge {
        let rstp = Rstp::new(&Config { mac, priority: DEFAULT_PRIORITY });
        Bridge { network, name, mac, rstp, ports: BTreeMap::new() }
    }

    fn number(&self, port: PortId) -> Option<u16> {
        self.ports.iter().find(|(_, here)| here.id == port).map(|(number, _)| *number)
    }

    pub fn has(&self, port: PortId) -> bool {
        self.number(port).is_some()
    }

    /// A port that is there already is left as it is; more than the standard can count stay out, discarding.
    pub fn add(&mut self, now: u64, interface: &Interface, outputs: &mut Outputs) {
        if self.has(interface.port) {
            return;
        }
        let free = (1..=PORTS_MAX as u16).find(|number| !self.ports.contains_key(number));
        let Some(number) = free else {
            let (network, port) = (self.network, interface.port);
            outputs.push(Output::Stp { network, port, learning: false, forwarding: false });
            return;
        };
        self.ports.insert(number, BridgePort { id: interface.port, name: interface.interface.clone() });
        let config = PortConfig {
            number,
            mac: self.mac,
            up: interface.up,
            speed: interface.facts.speed,
            point_to_point: interface.facts.full_duplex,
            edge: false,
        };
        self.rstp.add_port(now, config);
        self.drain(outputs);
    }

    /// It forwards again: nobody looks after it any more.
    pub fn remove(&mut self, now: u64, port: PortId, outputs: &mut Outputs) {
        let Some(number) = self.number(port) else { return };
        self.rstp.remove_port(now, number);
        self.drain(outputs);
        self.ports.remove(&number);
        outputs.push(Output::Stp { network: self.network, port, learning: true, forwarding: true });
    }

    pub fn port_ids(&self) -> Vec<PortId> {
        self.ports.values().map(|port| port.id).collect()
    }

    pub fn set_link(&mut self, now: u64, port: PortId, up: bool, outputs: &mut Outputs) {
        if let Some(number) = self.number(port) {
            self.rstp.set_link(now, number, up);
            self.drain(outputs);
        }
    }

    /// Mbit/s, which the path cost follows from.
    pub fn set_speed(&mut self, now: u64, port: PortId, speed: u32, outputs: &mut Outputs) {
        if let Some(number) = self.number(port) {
            self.rstp.set_speed(now, number, speed);
            self.drain(outputs);
        }
    }

    pub fn bpdu(&mut self, now: u64, port: PortId, frame: &[u8], outputs: &mut Outputs) {
        if let Some(number) = self.number(port) {
            self.rstp.handle_frame(now, number, frame);
            self.drain(outputs);
        }
    }

    pub fn timeout(&mut self, now: u64, outputs: &mut Outputs) {
        self.rstp.handle_timeout(now);
        self.drain(outputs);
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.rstp.poll_timeout()
    }

    fn drain(&mut self, outputs: &mut Outputs) {
        let network = self.network;
        while let Some(event) = self.rstp.poll_event() {
            let id = |number: &u16| self.ports.get(number).map(|port| port.id);
            match &event {
                Event::State { port, learning, forwarding } => {
                    if let Some(port) = id(port) {
                        let (learning, forwarding) = (*learning, *forwarding);
                        outputs.push(Output::Stp { network, port, learning, forwarding });
                    }
                }
                Event::Flush { port } => {
                    if let Some(port) = id(port) {
                        outputs.push(Output::Flush { network, port });
                    }
                }
                Event::Role { .. } | Event::Root(_) | Event::TopologyChange { .. } => {}
            }
            self.tell(&event, outputs);
        }
        while let Some((number, frame)) = self.rstp.poll_transmit() {
            if let Some(port) = self.ports.get(&number) {
                outputs.push(Output::Bpdu { network, port: port.id, frame });
            }
        }
    }

    fn tell(&self, event: &Event, outputs: &mut Outputs) {
        let name = |number: &u16| self.ports.get(number).map_or("?", |port| &*port.name);
        let (kind, detail) = match event {
            Event::Role { port, from, to } => {
                ("stp.role", format!("{}: {} → {}", name(port), from.name(), to.name()))
            }
            Event::State { port, learning, forwarding } => {
                let state = match (learning, forwarding) {
                    (_, true) => "forwarding",
                    (true, false) => "learning",
                    (false, false) => "discarding",
                };
                ("stp.state", format!("{}: {state}", name(port)))
            }
            Event::Root(root) if *root == self.rstp.bridge_id() => {
                ("stp.root", "this bridge is the root".to_owned())
            }
            Event::Root(root) => {
                let (priority, address) = (root >> 48, MacAddr::from_u64(*root & 0xffff_ffff_ffff));
                ("stp.root", format!("the root is {address}, priority {priority}"))
            }
            Event::TopologyChange { port } => ("stp.topology-change", format!("seen at {}", name(port))),
            Event::Flush { .. } => return,
        };
        let object = format!("network {}", self.name);
        outputs.push(Output::Notice(Notice::Event { kind, object, detail }));
    }
}
