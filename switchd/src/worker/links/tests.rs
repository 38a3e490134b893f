//! Two hosts of machines on a virtual clock, joined port by port.

use super::{Interface, LinkMachines, Output};
use crate::worker::command::{BondSettings, Key, LinkFacts, Notice};
use std::collections::{BTreeMap, VecDeque};
use switchd_dataplane::{BondConfig, BondMode, NetworkId, PortId, TrapKind, Trapped};
use switchd_wire::MacAddr;

const SECOND: u64 = 1_000_000_000;

fn settings(system: u8, mode: BondMode) -> BondSettings {
    BondSettings {
        config: BondConfig { mode, ..BondConfig::default() },
        active: true,
        fast: true,
        system: MacAddr([2, 0, 0, 0, 0, system]),
        system_priority: 0x8000,
        key: None,
        min_links: 1,
        prefer: None,
        fallback: false,
        half: None,
    }
}

fn interface(port: u32) -> Interface {
    Interface {
        port: PortId(port),
        interface: format!("eth{port}").into(),
        mac: MacAddr([2, 0, 0, 1, 0, port as u8]),
        up: true,
        facts: LinkFacts { speed: 10_000, ..LinkFacts::default() },
    }
}

struct World {
    now: u64,
    hosts: [LinkMachines; 2],
    wire: VecDeque<(usize, Trapped)>,
    /// Collecting and distributing, by host and port.
    members: BTreeMap<(usize, u32), (bool, bool)>,
    forwarding: BTreeMap<(usize, u32), bool>,
    announced: usize,
    events: Vec<(usize, &'static str, String)>,
    kept: Option<Vec<u8>>,
    frames: usize,
}

impl World {
    fn new() -> World {
        World {
            now: 0,
            hosts: [LinkMachines::default(), LinkMachines::default()],
            wire: VecDeque::new(),
            members: BTreeMap::new(),
            forwarding: BTreeMap::new(),
            announced: 0,
            events: Vec::new(),
            kept: None,
            frames: 0,
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].poll_output() {
            match output {
                Output::Send { port, frame } | Output::Bpdu { port, frame, .. } => {
                    self.frames += 1;
                    let kind = match frame[12..14] {
                        [0x88, 0x09] => TrapKind::Slow,
                        [0x88, 0xcc] => TrapKind::Lldp,
                        _ => TrapKind::Bpdu,
                    };
                    self.wire.push_back((1 - host, Trapped { kind, port, network: None, bytes: frame }));
                }
                Output::Member { port, collecting, distributing } => {
                    self.members.insert((host, port.0), (collecting, distributing));
                }
                Output::Announce { .. } => self.announced += 1,
                Output::Stp { port, forwarding, .. } => {
                    self.forwarding.insert((host, port.0), forwarding);
                }
                Output::Flush { .. } => {}
                Output::Notice(Notice::Event { kind, detail, .. }) => self.events.push((host, kind, detail)),
                Output::Notice(Notice::Keep { key, bytes }) => {
                    assert_eq!(key, "b0");
                    if host == 0 {
                        self.kept = Some(bytes);
                    }
                }
                Output::Notice(other) => panic!("{other:?}"),
            }
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let end = self.now + seconds * SECOND;
        loop {
            while let Some((host, trapped)) = self.wire.pop_front() {
                self.hosts[host].trapped(self.now, &trapped);
                self.drain(host);
            }
            let next = self.hosts.iter().filter_map(LinkMachines::next_timeout).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            for host in 0..2 {
                self.hosts[host].timeout(self.now);
                self.drain(host);
            }
        }
        self.now = end;
    }

    fn bond(&mut self, host: usize, settings: &BondSettings, kept: Option<&[u8]>) {
        let name: Key = "b0".into();
        self.hosts[host].add_bond(self.now, name.clone(), settings, kept);
        for port in [1, 2] {
            self.hosts[host].add_member(self.now, &name, port as u16, interface(port));
        }
        self.drain(host);
    }

    fn bonded() -> World {
        let mut world = World::new();
        world.bond(0, &settings(1, BondMode::Lacp), None);
        world.bond(1, &settings(2, BondMode::Lacp), None);
        world
    }

    fn link(&mut self, host: usize, port: u32, up: bool) {
        self.hosts[host].set_link(self.now, PortId(port), up);
        self.drain(host);
    }

    fn told(&self, kind: &str) -> usize {
        self.events.iter().filter(|(_, told, _)| *told == kind).count()
    }
}

#[test]
fn two_bonds_agree_and_say_so() {
    let mut world = World::bonded();
    world.run_for(3);
    assert!((0..2).all(|host| (1..=2).all(|port| world.members[&(host, port)] == (true, true))));
    assert_eq!((world.told("bond.member-up"), world.told("bond.up"), world.told("bond.partner")), (4, 2, 2));
    let row = &world.hosts[0].bonds(world.now)[0];
    assert!(row.up);
    assert_eq!(row.partner.as_ref().map(|(system, _)| system.as_str()), Some("02:00:00:00:00:02"));
    assert_eq!(row.members[0].actor, "activity timeout aggregation synchronized collecting distributing");
    assert!(row.members[0].machines.contains(&("mux".to_owned(), "DISTRIBUTING".to_owned())));
    assert_eq!(row.members[0].reason, None);
}

#[test]
fn a_pulled_member_is_out_at_once_with_its_reason() {
    let mut world = World::bonded();
    world.run_for(3);
    world.link(0, 1, false);
    assert_eq!(world.members[&(0, 1)], (false, false));
    assert_eq!(world.members[&(0, 2)], (true, true));
    assert!(world.events.contains(&(0, "bond.member-down", "eth1: out — link down".to_owned())));
    let row = &world.hosts[0].bonds(world.now)[0];
    assert!(row.up);
    assert_eq!(row.members[0].reason.as_deref(), Some("link down"));
    world.link(0, 2, false);
    assert!(!world.hosts[0].bonds(world.now)[0].up);
    assert_eq!(world.told("bond.down"), 1);
}

#[test]
fn a_member_whose_speed_becomes_another_one_is_out_with_its_reason() {
    let mut world = World::bonded();
    // Without a key that is set it follows from the speed.
    for host in 0..2 {
        let settings = BondSettings { key: None, ..settings(host as u8 + 1, BondMode::Lacp) };
        world.hosts[host].set_bond(world.now, &"b0".into(), &settings);
        world.drain(host);
    }
    world.run_for(6);
    assert_eq!(world.members[&(0, 2)], (true, true));
    let slow = LinkFacts { speed: 1000, ..interface(2).facts };
    world.hosts[0].set_facts(world.now, PortId(2), slow);
    world.drain(0);
    world.run_for(6);
    assert_eq!((world.members[&(0, 1)], world.members[&(0, 2)]), ((true, true), (false, false)));
    let reason = |world: &World| world.hosts[0].bonds(world.now)[0].members[1].reason.clone();
    assert_eq!(reason(&world).as_deref(), Some("speed differs: 1000 ≠ 10000 Mbit/s"));
    world.hosts[0].set_facts(world.now, PortId(2), interface(2).facts);
    world.drain(0);
    world.run_for(6);
    assert_eq!((world.members[&(0, 2)], reason(&world)), ((true, true), None));
}

#[test]
fn a_dataplane_that_died_is_followed_by_one_that_goes_on() {
    let mut world = World::bonded();
    world.run_for(10);
    let kept = world.kept.clone().expect("changes are kept");
    world.events.clear();
    world.members.clear();
    world.hosts[0] = LinkMachines::default();
    world.bond(0, &settings(1, BondMode::Lacp), Some(&kept));
    assert_eq!((world.members[&(0, 1)], world.members[&(0, 2)]), ((true, true), (true, true)));
    world.run_for(20);
    assert!(world.events.iter().all(|(host, kind, _)| *host == 0 || kind.starts_with("neighbor.")));
    assert!(!world.members.keys().any(|(host, _)| *host == 1));
}

#[test]
fn a_bond_moves_to_another_worker_without_a_word() {
    let mut world = World::bonded();
    world.run_for(10);
    let name: Key = "b0".into();
    let kept = world.hosts[0].take_bond(&name);
    assert!(world.hosts[0].poll_output().is_none());
    world.hosts[0] = LinkMachines::default();
    world.events.clear();
    world.bond(0, &settings(1, BondMode::Lacp), kept.as_deref());
    world.run_for(10);
    assert!(!world.events.iter().any(|(host, kind, _)| *host == 1 && kind.starts_with("bond.")));
}

#[test]
fn active_backup_follows_carrier_and_preference() {
    let mut world = World::new();
    let mut config = settings(1, BondMode::ActiveBackup);
    world.bond(0, &config, None);
    assert_eq!(world.members.get(&(0, 1)), Some(&(true, true)));
    assert_eq!(world.members.get(&(0, 2)), None);
    assert_eq!(world.announced, 1);
    world.link(0, 1, false);
    assert_eq!((world.members[&(0, 1)], world.members[&(0, 2)]), ((false, false), (true, true)));
    assert_eq!(world.announced, 2);
    world.link(0, 1, true);
    assert_eq!((world.members[&(0, 2)], world.announced), ((true, true), 2));
    config.prefer = Some("eth1".into());
    world.hosts[0].set_bond(world.now, &"b0".into(), &config);
    world.drain(0);
    assert_eq!((world.members[&(0, 1)], world.members[&(0, 2)]), ((true, true), (false, false)));
    let row = &world.hosts[0].bonds(world.now)[0];
    assert_eq!(row.members[1].reason.as_deref(), Some("standby: another member is active"));
    // No LACPDU is sent: what leaves is LLDP.
    assert!(world.wire.iter().all(|(_, trapped)| trapped.kind == TrapKind::Lldp));
}

#[test]
fn another_mode_begins_anew() {
    let mut world = World::bonded();
    world.run_for(3);
    world.hosts[0].set_bond(world.now, &"b0".into(), &settings(1, BondMode::ActiveBackup));
    world.drain(0);
    assert_eq!((world.members[&(0, 1)], world.members[&(0, 2)]), ((true, true), (false, false)));
    world.run_for(5);
    assert_eq!(world.members[&(1, 1)], (false, false), "the partner was told");
    world.hosts[0].set_bond(world.now, &"b0".into(), &settings(1, BondMode::Lacp));
    world.drain(0);
    world.run_for(5);
    assert!((0..2).all(|host| (1..=2).all(|port| world.members[&(host, port)] == (true, true))));
}

#[test]
fn a_removed_member_tells_its_partner_and_its_neighbour() {
    let mut world = World::bonded();
    world.run_for(3);
    assert_eq!(world.hosts[1].neighbors().len(), 2);
    world.hosts[0].remove_member(world.now, &"b0".into(), PortId(1));
    world.drain(0);
    world.run_for(0);
    assert_eq!(world.members[&(1, 1)], (false, false));
    assert_eq!(world.hosts[1].neighbors().len(), 1);
    world.hosts[0].remove_bond(world.now, &"b0".into());
    world.drain(0);
    world.run_for(0);
    assert_eq!(world.members[&(1, 2)], (false, false));
    assert_eq!(world.hosts[0].next_timeout(), None);
}

#[test]
fn uplinks_and_members_know_their_neighbours() {
    let mut world = World::bonded();
    for host in 0..2 {
        world.hosts[host].add_uplink(0, interface(7));
        world.drain(host);
    }
    world.run_for(5);
    let rows = world.hosts[0].neighbors();
    let ports: Vec<&str> = rows.iter().map(|row| &*row.port).collect();
    assert_eq!(ports, ["member:eth1", "member:eth2", "uplink:eth7"]);
    assert_eq!(
        (rows[2].port_id.as_str(), rows[2].chassis.as_str(), rows[2].ttl),
        ("eth7", "02:00:00:01:00:07", 120)
    );
    assert!(rows[2].system_description.starts_with("switchd "));
    world.hosts[1].remove_uplink(world.now, PortId(7));
    world.drain(1);
    world.run_for(0);
    assert_eq!(world.hosts[0].neighbors().len(), 2);
}

#[test]
fn an_idle_bond_sends_a_lacpdu_a_second_and_little_else() {
    let mut world = World::bonded();
    world.run_for(100);
    let before = world.frames;
    world.run_for(300);
    // Two members on two hosts: LACPDUs every second, LLDP every thirty.
    assert_eq!(world.frames - before, 4 * 300 + 4 * 10);
}

#[test]
fn spanning_tree_blocks_one_of_two_ways_and_goes_with_its_network() {
    let mut world = World::new();
    let network = NetworkId(3);
    for host in 0..2 {
        let mac = MacAddr([2, 0, 0, 0, 1, host as u8]);
        world.hosts[host].add_bridge(0, network, "n".into(), mac);
        for port in [1, 2] {
            world.hosts[host].add_bridge_port(0, network, interface(port));
        }
        world.drain(host);
    }
    assert!(world.forwarding.values().all(|forwarding| !forwarding));
    world.run_for(3);
    let open: Vec<_> =
        world.forwarding.iter().filter(|(_, forwarding)| **forwarding).map(|(key, _)| *key).collect();
    assert_eq!(open, [(0, 1), (0, 2), (1, 1)]);
    world.link(0, 1, false);
    world.link(1, 1, false);
    world.run_for(1);
    assert!(world.forwarding[&(1, 2)]);
    world.hosts[1].remove_bridge(world.now, network);
    world.drain(1);
    assert!(world.forwarding[&(1, 1)] && world.forwarding[&(1, 2)]);
    assert!(world.told("stp.root") >= 1 && world.told("stp.role") >= 4);
}
