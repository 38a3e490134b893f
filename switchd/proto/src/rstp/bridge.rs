//! The bridge: it feeds its ports' machines, runs them until none moves, and gathers what they want.

use super::port::{Port, PortStatus, path_cost};
use super::roles::Tree;
use super::{Config, Event, PortConfig, SECOND, information, roles, small, topology, transition, transmit};
use std::collections::{BTreeMap, VecDeque};
use switchd_wire::bpdu::{self, BadBpdu, Bpdu, Role as WireRole, bridge_id};

pub const PORTS_MAX: usize = 4095;
/// Frames that may wait to be taken; a host that asks after every call never has more than a few a port.
pub const TRANSMIT_MAX: usize = 8192;
const EVENTS_MAX: usize = 16_384;
/// Rounds of all machines after one input. They settle in a dozen; more would be a fault of ours.
const ROUNDS: usize = 200;

pub struct Rstp {
    ports: BTreeMap<u16, Port>,
    tree: Tree,
    /// The next tick of the port timers; there is none without an enabled port.
    tick: Option<u64>,
    transmit: VecDeque<(u16, Vec<u8>)>,
    events: VecDeque<Event>,
}

impl Rstp {
    pub fn new(config: &Config) -> Rstp {
        Rstp {
            ports: BTreeMap::new(),
            tree: Tree::new(bridge_id(config.priority, config.mac)),
            tick: None,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// False when the number is taken or out of range. A port discards until the tree has a place for it.
    pub fn add_port(&mut self, now: u64, config: PortConfig) -> bool {
        let number = config.number;
        let fits = (1..=PORTS_MAX as u16).contains(&number) && !self.ports.contains_key(&number);
        if fits {
            self.ports.insert(number, Port::new(config, self.tree.own));
            self.tell(Event::State { port: number, learning: false, forwarding: false });
            self.run(now);
        }
        fits
    }

    pub fn remove_port(&mut self, now: u64, number: u16) {
        if self.ports.remove(&number).is_some() {
            // The root port may be gone.
            self.ports.values_mut().for_each(|port| (port.reselect, port.selected) = (true, false));
            self.run(now);
        }
    }

    pub fn set_link(&mut self, now: u64, number: u16, up: bool) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        port.config.up = up;
        self.run(now);
    }

    /// Mbit/s, which the path cost follows from; 0: not known.
    pub fn set_speed(&mut self, now: u64, number: u16, speed: u32) {
        let Some(port) = self.ports.get_mut(&number).filter(|port| port.config.speed != speed) else {
            return;
        };
        port.config.speed = speed;
        port.path_cost = path_cost(speed);
        (port.reselect, port.selected) = (true, false);
        self.run(now);
    }

    pub fn handle_frame(&mut self, now: u64, number: u16, frame: &[u8]) {
        let own = self.tree.own.bridge;
        let Some(port) = self.ports.get_mut(&number) else { return };
        let bpdu = match bpdu::parse(frame) {
            Ok(bpdu) => bpdu,
            Err(bad) => {
                let index = BadBpdu::ALL.iter().position(|kind| *kind == bad).unwrap_or(0);
                port.counters.bad[index] += 1;
                return;
            }
        };
        port.counters.received += 1;
        if let Bpdu::Config(message) | Bpdu::Rst(message) = &bpdu
            && message.priority.bridge == own
            && message.priority.port == port.port_id
            && message.role() != WireRole::Root
        {
            // 14.4: a port does not listen to itself. It stays as it is, so a looped link forwards to itself
            // only what any hub would; the edge-loop guard is there for that.
            port.counters.own += 1;
            return;
        }
        port.msg = Some(bpdu);
        port.rcvd_bpdu = true;
        self.run(now);
    }

    pub fn handle_timeout(&mut self, now: u64) {
        while let Some(tick) = self.tick.filter(|tick| now >= *tick) {
            self.count_down();
            // After a long sleep the seconds that nobody saw are not made up for one by one.
            self.tick = Some(if now > tick + 60 * SECOND { now + SECOND } else { tick + SECOND });
            self.run(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<u64> {
        self.tick
    }

    /// Port number and whole frame.
    pub fn poll_transmit(&mut self) -> Option<(u16, Vec<u8>)> {
        self.transmit.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub fn port(&self, number: u16) -> Option<PortStatus> {
        let port = self.ports.get(&number)?;
        Some(PortStatus {
            role: port.role,
            learning: port.learning,
            forwarding: port.forwarding,
            edge: port.oper_edge,
            rapid: port.send_rstp,
            cost: port.path_cost,
            counters: port.counters,
        })
    }

    /// Identifier of the root (priority, then address), cost to it, and the port that leads there.
    pub fn root(&self) -> (u64, u32, Option<u16>) {
        let port = (self.tree.root_port != 0).then_some(self.tree.root_port);
        (self.tree.root.root, self.tree.root.cost, port)
    }

    pub fn bridge_id(&self) -> u64 {
        self.tree.own.bridge
    }

    /// Port Timers machine (13.30).
    fn count_down(&mut self) {
        for port in self.ports.values_mut() {
            for timer in [
                &mut port.edge_delay_while,
                &mut port.fd_while,
                &mut port.hello_when,
                &mut port.mdelay_while,
                &mut port.rb_while,
                &mut port.rcvd_info_while,
                &mut port.rr_while,
                &mut port.tc_while,
                &mut port.tx_count,
            ] {
                *timer = timer.saturating_sub(1);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn run(&mut self, now: u64) {
        let root = self.tree.root.root;
        let settled = (0..ROUNDS).any(|_| !self.round());
        debug_assert!(settled, "spanning tree does not settle");
        if self.tree.root.root != root {
            self.tell(Event::Root(self.tree.root.root));
        }
        let enabled = self.ports.values().any(Port::enabled);
        self.tick = if enabled { self.tick.or(Some(now + SECOND)) } else { None };
        for number in self.numbers() {
            let Some(port) = self.ports.get_mut(&number) else { continue };
            let frame = transmit::run(port);
            if let Some(frame) = frame {
                if self.transmit.len() < TRANSMIT_MAX {
                    self.transmit.push_back((number, frame));
                } else {
                    port.counters.tx_full += 1;
                }
            }
        }
    }

    fn numbers(&self) -> Vec<u16> {
        self.ports.keys().copied().collect()
    }

    /// Every machine of every port once; whether anything moved.
    fn round(&mut self) -> bool {
        let mut moved = false;
        for port in self.ports.values_mut() {
            moved |= small::receive(port);
            moved |= small::migrate(port);
            moved |= small::detect(port);
            moved |= information::run(port);
        }
        moved |= roles::run(&mut self.ports, &mut self.tree);
        for number in self.numbers() {
            moved |= transition::run(&mut self.ports, number, &self.tree);
            if let Some(port) = self.ports.get_mut(&number) {
                moved |= small::state(port);
            }
            let changed = topology::run(&mut self.ports, number, &self.tree);
            moved |= changed != topology::Moved::No;
            if changed == topology::Moved::Detected {
                self.tell(Event::TopologyChange { port: number });
            }
            self.tell_port(number);
        }
        moved
    }

    fn tell_port(&mut self, number: u16) {
        let Some(port) = self.ports.get_mut(&number) else { return };
        let flush = std::mem::take(&mut port.fdb_flush) && !port.oper_edge;
        let told = std::mem::replace(&mut port.told, (port.learning, port.forwarding, port.role));
        let (learning, forwarding, role) = port.told;
        if told.2 != role {
            self.tell(Event::Role { port: number, from: told.2, to: role });
        }
        if (told.0, told.1) != (learning, forwarding) {
            self.tell(Event::State { port: number, learning, forwarding });
        }
        if flush {
            self.tell(Event::Flush { port: number });
        }
    }
}
