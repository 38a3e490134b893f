//! Switches, wires, guests and the clock.

use crate::random::Random;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Duration;
use switchd_dataplane::{
    Cleared, Dataplane, Direction, DropReason, MirrorId, NetworkConfig, NetworkId, PortConfig, PortId, Rim,
    Transmit, VlanMode,
};
use switchd_wire::Frame;
use switchd_wire::frame::NoTails;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const VLANS: [u16; 2] = [10, 20];
/// VLANs of the networks on the shared uplink; the third network is the untagged one.
const CLAIMS: [Option<u16>; 3] = [Some(100), Some(200), None];
const LEN: usize = 72;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Trunks,
    Uplinks,
}

struct Switch {
    dataplane: Dataplane,
    networks: Vec<NetworkId>,
    /// The far end of a port: a wire's number, or a guest.
    ends: HashMap<PortId, End>,
}

#[derive(Clone, Copy)]
enum End {
    Wire(usize),
    Guest(usize),
}

struct Wire {
    ends: [(usize, PortId); 2],
    up: bool,
    /// Frames on their way when it was cut are lost: they belong to an older generation.
    generation: u64,
    loss: u64,
    /// Nothing overtakes on a wire: the earliest next arrival at each end.
    free: [u64; 2],
}

struct Guest {
    switch: usize,
    port: PortId,
    mac: [u8; 6],
    /// VLAN of the access port, or the network on the uplink.
    class: usize,
    class_now: usize,
    up: bool,
}

struct Sent {
    sender: usize,
    /// `None`: must not arrive anywhere.
    class: Option<usize>,
    bytes: Vec<u8>,
    arrived: HashSet<usize>,
}

type Flight = (Reverse<u64>, Reverse<u64>, usize, usize, u64, Vec<u8>);

pub struct World {
    kind: Kind,
    random: Random,
    now: u64,
    switches: Vec<Switch>,
    wires: Vec<Wire>,
    guests: Vec<Guest>,
    /// By arrival time, then number: wire, end, generation, bytes.
    flights: BinaryHeap<Flight>,
    flown: u64,
    sent: Vec<Sent>,
    delivered: u64,
    calm: bool,
}

/// Takes what a switch sends; some of it is queued, and in a storm some queues are full.
struct Pipe<'a> {
    random: &'a mut Random,
    calm: bool,
    out: Vec<(PortId, Vec<u8>)>,
    settled: HashMap<PortId, (u64, u64, u64)>,
}

impl Rim for Pipe<'_> {
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let mut bytes = vec![0; cleared.frame().len()];
        cleared.frame().copy_out(&NoTails, 0, &mut bytes).expect("no tails here");
        let full = !self.calm && self.random.chance(2);
        if self.random.chance(50) {
            let settled = self.settled.entry(port).or_default();
            if full {
                settled.2 += 1;
            } else {
                settled.0 += 1;
                settled.1 += bytes.len() as u64;
                self.out.push((port, bytes));
            }
            return Transmit::Queued;
        }
        if full {
            return Transmit::Dropped(DropReason::QueueFull);
        }
        self.out.push((port, bytes));
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

fn trunk(vlans: &[u16]) -> PortConfig {
    let vlan = VlanMode::Trunk { allowed: vlans.iter().copied().collect(), native: None };
    PortConfig { vlan, ..PortConfig::default() }
}

fn access(class: usize) -> PortConfig {
    PortConfig { vlan: VlanMode::Access(VLANS[class]), ..PortConfig::default() }
}

impl World {
    pub fn new(kind: Kind, mut random: Random) -> World {
        let count = 2 + random.below(4);
        let mut world = World {
            kind,
            now: SECOND,
            switches: Vec::new(),
            wires: Vec::new(),
            guests: Vec::new(),
            flights: BinaryHeap::new(),
            flown: 0,
            sent: Vec::new(),
            delivered: 0,
            calm: false,
            random,
        };
        for number in 0..count {
            let seed = world.random.next();
            let mut dataplane = Dataplane::new(seed);
            let ageing = Duration::from_secs(10 + world.random.below(30) as u64);
            let config = NetworkConfig { ageing, ..NetworkConfig::default() };
            let networks = if kind == Kind::Uplinks && number > 0 { 3 } else { 1 };
            let networks = (0..networks).map(|_| dataplane.add_network(config.clone())).collect();
            world.switches.push(Switch { dataplane, networks, ends: HashMap::new() });
        }
        for number in 1..count {
            match kind {
                Kind::Trunks => world.join_by_trunk(number),
                Kind::Uplinks => world.join_by_uplink(number),
            }
        }
        for switch in 0..count {
            if kind == Kind::Trunks || switch > 0 {
                world.add_guests(switch);
            }
        }
        world
    }

    fn join_by_trunk(&mut self, number: usize) {
        let other = self.random.below(number);
        let ends = [other, number].map(|switch| {
            let network = self.switches[switch].networks[0];
            (switch, self.switches[switch].dataplane.add_port(network, trunk(&VLANS)))
        });
        self.add_wire(ends);
    }

    fn join_by_uplink(&mut self, number: usize) {
        let network = self.switches[0].networks[0];
        let far = self.switches[0].dataplane.add_port(network, PortConfig::default());
        let leaf = &mut self.switches[number];
        let uplink = leaf.dataplane.add_uplink(Vec::new());
        for (&network, vid) in leaf.networks.iter().zip(CLAIMS) {
            leaf.dataplane.join_uplink(network, uplink, vid).expect("a free VLAN");
        }
        self.add_wire([(0, far), (number, uplink)]);
    }

    fn add_wire(&mut self, ends: [(usize, PortId); 2]) {
        let number = self.wires.len();
        for (switch, port) in ends {
            self.switches[switch].ends.insert(port, End::Wire(number));
            self.switches[switch].dataplane.set_link(port, true);
        }
        let loss = self.random.below(10) as u64;
        self.wires.push(Wire { ends, up: true, generation: 0, loss, free: [0; 2] });
    }

    fn add_guests(&mut self, switch: usize) {
        for _ in 0..2 + self.random.below(4) {
            let number = self.guests.len();
            let class = self.random.below(if self.kind == Kind::Trunks { 2 } else { 3 });
            let here = &mut self.switches[switch];
            let port = match self.kind {
                Kind::Trunks => here.dataplane.add_port(here.networks[0], access(class)),
                Kind::Uplinks => here.dataplane.add_port(here.networks[class], PortConfig::default()),
            };
            here.dataplane.set_link(port, true);
            here.ends.insert(port, End::Guest(number));
            let mac = [2, 0, 0, 0, 1, number as u8];
            self.guests.push(Guest { switch, port, mac, class, class_now: class, up: true });
        }
    }

    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Everything at once, for that many steps.
    pub fn storm(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.below(100) {
                0..=69 => self.someone_sends(),
                70..=79 => self.someone_sends_nonsense(),
                80..=83 => self.flap_a_wire(),
                84..=88 => self.change_a_port(),
                89 => self.two_guests_change_places(),
                90..=91 => self.wait(20 * SECOND),
                _ => self.wait(20 * MS),
            }
        }
        self.pass(SECOND);
        self.check_counters();
    }

    fn wait(&mut self, limit: u64) {
        let time = self.random_time(limit);
        self.pass(time);
    }

    fn random_time(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    fn frame(&self, to: [u8; 6], from: [u8; 6], tags: &[u16]) -> Vec<u8> {
        let mut bytes = [to, from].concat();
        for tci in tags {
            bytes.extend([0x81, 0x00]);
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend([0x88, 0xb5]);
        bytes.resize(LEN - 8, 0x55);
        bytes.extend((self.sent.len() as u64).to_be_bytes());
        bytes
    }

    fn someone_sends(&mut self) {
        let sender = self.random.below(self.guests.len());
        let to = match self.random.below(10) {
            0 => [0xff; 6],
            1 => [2, 0, 0, 0, 9, 9],
            2 => [0x01, 0x00, 0x5e, 0, 0, 1],
            _ => self.guests[self.random.below(self.guests.len())].mac,
        };
        self.send(sender, to);
    }

    fn send(&mut self, sender: usize, to: [u8; 6]) -> usize {
        let Guest { mac, class_now, up, .. } = self.guests[sender];
        let bytes = self.frame(to, mac, &[]);
        self.enter(sender, bytes, up.then_some(class_now))
    }

    fn someone_sends_nonsense(&mut self) {
        let sender = self.random.below(self.guests.len());
        let Guest { mac, class_now, up, .. } = self.guests[sender];
        let to = [0xff; 6];
        let untagged_network = self.kind == Kind::Uplinks && CLAIMS[class_now].is_none();
        let (choice, octet) = (self.random.below(6), self.random.below(16) as u8);
        let claimed = CLAIMS[self.random.below(2)].unwrap_or(1);
        let (bytes, class) = match choice {
            0 => (self.frame(to, mac, &[4095]), None),
            1 => (self.frame(to, [0x03, 0, 0, 0, 0, 1], &[]), None),
            2 => (self.frame(to, [0; 6], &[]), None),
            3 => (self.frame([0x01, 0x80, 0xc2, 0, 0, octet], mac, &[]), None),
            // Another's VLAN: an access port refuses it, the untagged network keeps it off the uplink, and
            // inside a network of the uplink it is payload.
            4 if self.kind == Kind::Trunks => (self.frame(to, mac, &[VLANS[1 - class_now]]), None),
            4 => (self.frame(to, mac, &[claimed]), Some(class_now)),
            _ if untagged_network => (self.frame(to, mac, &[77]), Some(class_now)),
            _ => (vec![0; usize::from(octet).min(13)], None),
        };
        self.enter(sender, bytes, class.filter(|_| up));
    }

    /// Lets a guest's frame into its switch.
    fn enter(&mut self, sender: usize, bytes: Vec<u8>, class: Option<usize>) -> usize {
        let number = self.sent.len();
        self.sent.push(Sent { sender, class, bytes: bytes.clone(), arrived: HashSet::new() });
        let Guest { switch, port, .. } = self.guests[sender];
        self.process(switch, port, &bytes);
        number
    }

    fn process(&mut self, switch: usize, port: PortId, bytes: &[u8]) {
        let mut frames = [Frame::from_bytes(bytes).expect("short frames")];
        let mut pipe =
            Pipe { random: &mut self.random, calm: self.calm, out: Vec::new(), settled: HashMap::new() };
        let dataplane = &mut self.switches[switch].dataplane;
        dataplane.process(self.now, port, &mut frames, &NoTails, &mut pipe);
        let Pipe { out, settled, .. } = pipe;
        for (port, (accepted, bytes, full)) in settled {
            dataplane.settle(port, accepted, bytes, full, 0, 0);
        }
        for (out, bytes) in out {
            assert!(out != port, "a frame went back to where it came from");
            match self.switches[switch].ends[&out] {
                End::Guest(guest) => self.deliver(guest, &bytes),
                End::Wire(wire) => self.fly(wire, switch, bytes),
            }
        }
    }

    fn fly(&mut self, number: usize, from: usize, bytes: Vec<u8>) {
        let delay = 1 + self.random_time(5 * MS);
        let wire = &mut self.wires[number];
        if !wire.up || (!self.calm && self.random.chance(wire.loss)) {
            return;
        }
        let end = usize::from(wire.ends[0].0 == from);
        let arrival = (self.now + delay).max(wire.free[end]);
        wire.free[end] = arrival;
        self.flown += 1;
        self.flights.push((Reverse(arrival), Reverse(self.flown), number, end, wire.generation, bytes));
    }

    fn deliver(&mut self, guest: usize, bytes: &[u8]) {
        let mark = bytes.last_chunk::<8>().map(|mark| u64::from_be_bytes(*mark)).expect("long enough");
        let sent = &mut self.sent[mark as usize];
        let receiver = &self.guests[guest];
        assert!(guest != sent.sender, "guest {guest} got its own frame {mark}");
        assert!(receiver.up, "frame {mark} left by a port that is down");
        assert_eq!(Some(receiver.class_now), sent.class, "frame {mark} leaked to guest {guest}");
        assert!(sent.arrived.insert(guest), "frame {mark} arrived twice at guest {guest}");
        assert_eq!(bytes, sent.bytes, "frame {mark} was changed on its way to guest {guest}");
        self.delivered += 1;
    }

    /// Lets time pass: frames arrive in the order of their arrival times, addresses age.
    fn pass(&mut self, time: u64) {
        let end = self.now + time;
        let mut tick = self.now + SECOND;
        while self.now < end {
            let next = self.flights.peek().map_or(u64::MAX, |flight| flight.0.0).min(tick).min(end);
            self.now = self.now.max(next);
            while self.flights.peek().is_some_and(|flight| flight.0.0 <= self.now) {
                let (_, _, number, end, generation, bytes) = self.flights.pop().expect("just seen");
                let wire = &self.wires[number];
                if wire.up && wire.generation == generation {
                    let (switch, port) = wire.ends[end];
                    self.process(switch, port, &bytes);
                }
            }
            if self.now >= tick {
                self.switches.iter_mut().for_each(|switch| {
                    switch.dataplane.expire(self.now);
                });
                tick = self.now + SECOND;
            }
        }
    }

    fn flap_a_wire(&mut self) {
        let number = self.random.below(self.wires.len());
        let up = !self.wires[number].up;
        self.set_wire(number, up);
    }

    fn set_wire(&mut self, number: usize, up: bool) {
        let wire = &mut self.wires[number];
        if !up {
            wire.generation += 1;
        }
        wire.up = up;
        for (switch, port) in wire.ends {
            self.switches[switch].dataplane.set_link(port, up);
        }
    }

    fn change_a_port(&mut self) {
        let guest = self.random.below(self.guests.len());
        let class = self.guests[guest].class_now;
        let (mut up, mut class_now) = (true, class);
        let mut limit = None;
        match self.random.below(3) {
            0 => up = !self.guests[guest].up,
            1 if self.kind == Kind::Trunks => class_now = 1 - class,
            _ => limit = Some(self.random.below(2) as u32),
        }
        self.set_guest(guest, class_now, up, limit);
    }

    fn set_guest(&mut self, number: usize, class: usize, up: bool, mac_limit: Option<u32>) {
        let guest = &mut self.guests[number];
        (guest.class_now, guest.up) = (class, up);
        let config = if self.kind == Kind::Trunks { access(class) } else { PortConfig::default() };
        let config = PortConfig { admin_up: up, mac_limit, ..config };
        self.switches[guest.switch].dataplane.set_port(guest.port, config);
    }

    fn two_guests_change_places(&mut self) {
        let (one, two) = (self.random.below(self.guests.len()), self.random.below(self.guests.len()));
        let mac = self.guests[one].mac;
        self.guests[one].mac = std::mem::replace(&mut self.guests[two].mac, mac);
    }

    /// After the storm: everything as it was built, and each guest reaches each of its class exactly once.
    pub fn heal_and_check(&mut self) {
        self.calm = true;
        for wire in 0..self.wires.len() {
            self.set_wire(wire, true);
        }
        for guest in 0..self.guests.len() {
            self.set_guest(guest, self.guests[guest].class, true, None);
        }
        self.pass(SECOND);
        for guest in 0..self.guests.len() {
            let number = self.send(guest, [0xff; 6]);
            self.pass(100 * MS);
            let expected: HashSet<usize> = self.others(guest).collect();
            assert_eq!(self.sent[number].arrived, expected, "a broadcast of guest {guest}");
        }
        for guest in 0..self.guests.len() {
            for other in self.others(guest).collect::<Vec<_>>() {
                // What the other one has just sent has refreshed its address everywhere.
                self.send(other, [0xff; 6]);
                self.pass(100 * MS);
                let number = self.send(guest, self.guests[other].mac);
                self.pass(100 * MS);
                assert_eq!(self.sent[number].arrived, HashSet::from([other]), "from {guest} to {other}");
            }
        }
        self.check_counters();
    }

    fn others(&self, guest: usize) -> impl Iterator<Item = usize> + '_ {
        let class = self.guests[guest].class_now;
        (0..self.guests.len()).filter(move |&other| other != guest && self.guests[other].class_now == class)
    }

    fn check_counters(&self) {
        for (number, switch) in self.switches.iter().enumerate() {
            let mut offered = 0;
            for &port in switch.ends.keys() {
                let c = switch.dataplane.port_counters(port);
                let inwards = c.forwarded + c.flooded + c.trapped + c.dropped_in.total();
                assert_eq!(c.rx_frames, inwards, "inwards at {port:?} of switch {number}: {c:?}");
                assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "outwards at {port:?}: {c:?}");
                offered += c.offered;
            }
            let mut networks = 0;
            for &network in &switch.networks {
                let c = switch.dataplane.network_counters(network);
                assert_eq!(
                    c.offered,
                    c.forwarded + c.fanout + c.originated,
                    "{network:?} of switch {number}"
                );
                networks += c.offered;
            }
            assert_eq!(offered, networks, "what networks offered and ports were offered, switch {number}");
        }
    }
}
