//! Bonds: members that come and go, what is kept for the next dataplane, what is shown.

use super::*;
use crate::broker::messages::Notice;
use crate::worker::command::{self, BondSnapshot, LinkFacts, MemberSnapshot};
use std::time::Duration;
use switchd_api::reply::ErrorCode;

const BOND: &str = r#"
[bond.b0]
members = ["eth0", "eth2"]
mode = "lacp"
[network.office]
kind = "bridged"
uplink = "b0"
vlan = 10
"#;

fn up(workers: usize) -> (World, Engine) {
    let world = World::new(workers);
    let mut engine = world.start(None);
    apply(&mut engine, BOND).unwrap();
    (world, engine)
}

fn link(name: &str, carrier: bool, gone: bool) -> Notice {
    Notice::Link { name: name.to_owned(), index: 3, up: true, carrier, mac: None, mtu: 1500, gone }
}

fn row(distributing: [bool; 2]) -> BondSnapshot {
    let member = |(interface, distributing): (&str, bool)| MemberSnapshot {
        interface: interface.to_owned(),
        carrier: true,
        collecting: distributing,
        distributing,
        reason: (!distributing).then(|| "no LACPDU for 3.0 s".to_owned()),
        ..MemberSnapshot::default()
    };
    BondSnapshot {
        name: "b0".into(),
        up: distributing.contains(&true),
        mode: switchd_dataplane::BondMode::Lacp,
        system: "02:00:00:00:00:01".to_owned(),
        key: 7,
        partner: None,
        members: ["eth0", "eth2"].into_iter().zip(distributing).map(member).collect(),
        peer: None,
    }
}

#[test]
fn a_bond_stands_with_its_members_and_its_networks() {
    let (world, engine) = up(1);
    let worker = world.state().workers[0].clone();
    assert_eq!(worker.bonds["b0"].members, BTreeMap::from([("eth0".into(), 1), ("eth2".into(), 2)]));
    assert_eq!(worker.ports["uplink:b0"].networks, BTreeMap::from([("office".to_owned(), Some(10))]));
    assert!(worker.ports["member:eth0"].device && worker.ports["member:eth2"].carrier);
    assert_eq!(world.state().netdevs["eth0"], "member");
    let ports: Vec<(String, String)> =
        engine.ports().unwrap().into_iter().map(|port| (port.name, port.backend)).collect();
    let expected = [("uplink:b0", "bond"), ("member:eth0", "member"), ("member:eth2", "member")];
    assert_eq!(ports, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert_eq!(engine.bond("b0").unwrap().networks, ["office"]);
}

#[test]
fn why_a_bond_is_down_is_said_in_words() {
    let (world, engine) = up(1);
    world.get().bond_rows = vec![row([false, false])];
    let why = "no member works (eth0: no LACPDU for 3.0 s; eth2: no LACPDU for 3.0 s)";
    assert_eq!(engine.bond("b0").unwrap().reason.unwrap(), why);
    assert_eq!(engine.network("office").unwrap().reason.unwrap(), format!("bond b0: {why}"));
    assert_eq!(engine.status().unwrap().bonds_up, 0);
    world.get().bond_rows = vec![row([true, false])];
    let bond = engine.bond("b0").unwrap();
    assert_eq!((bond.state, bond.reason), (State::Up, None));
    assert_eq!(bond.links[1].reason.as_deref(), Some("no LACPDU for 3.0 s"));
    assert_eq!(engine.network("office").unwrap().state, State::Up);
    assert_eq!((engine.status().unwrap().bonds, engine.status().unwrap().bonds_up), (1, 1));
}

#[test]
fn a_member_deleted_underneath_is_listed_and_comes_back() {
    let (world, mut engine) = up(1);
    world.get().state.interfaces.remove("eth2");
    engine.on_broker_notice(link("eth2", false, true));
    assert!(!world.state().workers[0].ports["member:eth2"].device);
    let troubles = engine.status().unwrap().troubles;
    assert_eq!((troubles.len(), troubles[0].object.as_str()), (1, "member eth2"));
    assert_eq!(engine.bond("b0").unwrap().links[1].reason.as_deref(), Some("interface eth2 is gone"));
    world.get().state.interfaces.insert("eth2".to_owned(), 1500);
    engine.on_broker_notice(link("eth2", true, false));
    assert!(world.state().workers[0].ports["member:eth2"].device);
    assert_eq!(engine.status().unwrap().troubles, []);
    assert_eq!(world.state().workers[0].bonds["b0"].members["eth2"], 2, "under its number");
}

#[test]
fn a_cable_that_is_pulled_is_told_to_the_worker() {
    let (world, mut engine) = up(1);
    engine.on_broker_notice(link("eth0", false, false));
    assert!(!world.state().workers[0].ports["member:eth0"].carrier);
    assert!(!engine.bond("b0").unwrap().links[0].carrier);
    engine.on_broker_notice(link("eth0", true, false));
    assert!(world.state().workers[0].ports["member:eth0"].carrier);
}

#[test]
fn what_the_kernel_says_of_a_member_is_told_to_the_worker_and_again_when_it_changes() {
    let (world, mut engine) = up(1);
    let facts = |world: &World| world.state().workers[0].ports["member:eth0"].facts;
    assert_eq!(facts(&world), LinkFacts { mtu: 1500, speed: 10_000, full_duplex: true });
    // Plugged again, it runs slower; then its MTU is set.
    world.get().speed = 1000;
    engine.on_broker_notice(link("eth0", false, false));
    assert_eq!(facts(&world).speed, 10_000, "without a link there is no speed");
    engine.on_broker_notice(link("eth0", true, false));
    assert_eq!(facts(&world).speed, 1000);
    let mut resized = link("eth0", true, false);
    if let Notice::Link { mtu, .. } = &mut resized {
        *mtu = 9000;
    }
    engine.on_broker_notice(resized);
    assert_eq!(facts(&world), LinkFacts { mtu: 9000, speed: 1000, full_duplex: true });
    // A driver that does not say says nothing new.
    world.get().speed = 0;
    engine.on_broker_notice(link("eth0", false, false));
    engine.on_broker_notice(link("eth0", true, false));
    assert_eq!(facts(&world).speed, 1000);
}

#[test]
fn a_start_without_a_member_brings_up_the_others() {
    let (world, engine) = up(1);
    drop(engine);
    world.get().state.interfaces.remove("eth0");
    let mut engine = world.start(None);
    assert_eq!(engine.status().unwrap().troubles[0].object, "member eth0");
    assert!(world.state().workers[0].ports["member:eth2"].device);
    world.get().state.interfaces.insert("eth0".to_owned(), 1500);
    engine.tick(world.pass(Duration::from_millis(100)));
    assert!(world.state().workers[0].ports["member:eth0"].device);
}

#[test]
fn a_missing_member_or_one_too_small_is_refused() {
    let world = World::new(1);
    let mut engine = world.start(None);
    let error = apply(&mut engine, &BOND.replace("eth2", "eth9")).unwrap_err();
    assert!(error.message.contains("member eth9"), "{}", error.message);
    let error = apply(&mut engine, &BOND.replace("vlan", "mtu = 9000\nvlan")).unwrap_err();
    assert!(error.message.contains("1500") && error.message.contains("9000"), "{}", error.message);
    assert!(world.state().workers[0].ports.is_empty() && world.state().netdevs.is_empty());
    apply(&mut engine, BOND).unwrap();
    let error = engine.set_network("office", &keys(&[("mtu", "9000")])).unwrap_err();
    assert!(error.message.contains("MTU 9000 is above that of eth0, 1500"), "{}", error.message);
}

#[test]
fn members_change_live_and_numbers_stay() {
    let (world, mut engine) = up(1);
    engine.set_bond("b0", &keys(&[("members", "eth2,eth1")])).unwrap();
    let bond = world.state().workers[0].bonds["b0"].clone();
    assert_eq!(bond.members, BTreeMap::from([("eth1".into(), 3), ("eth2".into(), 2)]));
    assert!(!world.state().netdevs.contains_key("eth0"), "it goes back to the host");
    engine.set_bond("b0", &keys(&[("rate", "slow")])).unwrap();
    assert!(!world.state().workers[0].bonds["b0"].settings.fast);
    // Also for the next dataplane, in whichever order they are written.
    engine.next_deadline();
    drop(engine);
    let _engine = world.start(None);
    assert_eq!(world.state().workers[0].bonds["b0"].members, bond.members);
}

#[test]
fn what_a_worker_keeps_is_there_after_a_crash_and_forgotten_with_the_bond() {
    let (world, mut engine) = up(1);
    engine.on_worker_notice(command::Notice::Keep { key: "b0".to_owned(), bytes: vec![1, 2, 3] });
    drop(engine);
    let mut engine = world.start(None);
    assert_eq!(world.state().workers[0].bonds["b0"].kept, Some(vec![1, 2, 3]));
    apply(&mut engine, "").unwrap();
    assert!(!world.get().kept.contains_key("bond:b0"));
    assert!(world.state().workers[0].ports.is_empty() && world.state().netdevs.is_empty());
    apply(&mut engine, BOND).unwrap();
    assert_eq!(world.state().workers[0].bonds["b0"].kept, None);
}

#[test]
fn the_systems_identifier_stays() {
    let (world, mut engine) = up(1);
    let system = world.state().workers[0].bonds["b0"].settings.system;
    drop(engine);
    engine = world.start(None);
    assert_eq!(world.state().workers[0].bonds["b0"].settings.system, system);
    engine.set_bond("b0", &keys(&[("system-id", "02:00:00:00:00:42")])).unwrap();
    assert_eq!(world.state().workers[0].bonds["b0"].settings.system.to_string(), "02:00:00:00:00:42");
}

#[test]
fn a_bond_in_use_is_not_deleted() {
    let (world, mut engine) = up(1);
    let error = engine.delete_bond("b0").unwrap_err();
    assert_eq!(error.message, "bond b0 is used by network office");
    engine.delete_network("office").unwrap();
    assert!(world.state().workers[0].bonds.contains_key("b0"));
    engine.delete_bond("b0").unwrap();
    assert!(world.state().workers[0].bonds.is_empty());
    assert_eq!(engine.delete_bond("b0").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_nat_network_goes_out_by_a_bond() {
    let (world, mut engine) = up(2);
    let nat = "[network.lab]\nkind = \"nat\"\nsubnet = \"10.7.0.0/24\"\negress = \"b0\"\naddress = \"192.0.2.9/24\"\n";
    apply(&mut engine, &format!("{BOND}{nat}")).unwrap();
    let state = world.state();
    let worker = state.workers.iter().find(|worker| worker.bonds.contains_key("b0")).unwrap();
    assert!(worker.gates.contains_key("lab"), "on the bond's worker");
    assert_eq!(worker.ports["uplink:b0"].networks["egress:b0"], None);
    assert_eq!(engine.bond("b0").unwrap().networks, ["lab", "office"]);
    assert_eq!(engine.delete_bond("b0").unwrap_err().message, "bond b0 is used by networks lab, office");
    world.get().bond_rows = vec![row([true, false])];
    let (kind, object) = ("bond.member-up", "bond b0".to_owned());
    engine.on_worker_notice(command::Notice::Event { kind, object, detail: "eth0".to_owned() });
    assert_eq!(world.get().outside_links, [("lab".to_owned(), true)]);
}

#[test]
fn a_port_that_a_guard_shut_stays_so_until_the_user_says_otherwise() {
    let (world, mut engine) = up(1);
    apply(&mut engine, &format!("{BOND}[port.p]\nnetwork = \"office\"\ntap = \"p.0\"\n")).unwrap();
    let reason = "a BPDU came from the guest".to_owned();
    engine.on_worker_notice(command::Notice::Shut { port: "p".into(), reason: reason.clone() });
    assert_eq!(super::reason(&engine, "p"), Some(reason));
    assert!(!world.state().workers[0].ports["p"].device);
    engine.tick(world.pass(Duration::from_secs(60)));
    assert!(!world.state().workers[0].ports["p"].device);
    engine.set_port("p", &keys(&[("admin", "up")])).unwrap();
    assert_eq!(super::reason(&engine, "p"), None);
    assert!(world.state().workers[0].ports["p"].device);
    assert!(kinds(&engine).contains(&"port.shut".to_owned()));
}

#[test]
fn numbers_of_events_go_on_after_a_crash() {
    let (world, engine) = up(1);
    let last = engine.events_since(None).last().unwrap().seq;
    drop(engine);
    let engine = world.start(None);
    assert!(engine.events_since(None).iter().all(|event| event.seq > last));
}
