//! The plan carried out on a little model that allows nothing a switch could not do.

use super::testing::{desired, name, pair};
use super::{Step, changes, parse_toml, plan};
use proptest::prelude::*;
use std::collections::BTreeSet;
use switchd_api::model::{Desired, NetworkSpec};

fn exists(model: &Desired, reference: &str) -> bool {
    match reference.split_once(':').unwrap() {
        ("network", name) => model.network.contains_key(name),
        ("bond", name) => model.bond.contains_key(name),
        ("port", name) => match name.strip_prefix("uplink:") {
            Some(ifname) => model
                .network
                .values()
                .any(|spec| spec.uplink.as_deref() == Some(ifname) || spec.egress.as_deref() == Some(ifname)),
            None => model.port.contains_key(name),
        },
        _ => true,
    }
}

/// Carries one step out, and complains about what is out of order.
fn carry_out(model: &mut Desired, step: &Step) {
    match step.clone() {
        Step::DeleteMirror { name, spec } => assert_eq!(model.mirror.remove(&name), Some(spec)),
        Step::DeleteStatic { network, key, port } => {
            assert_eq!(model.network.get_mut(&network).unwrap().fdb.remove(&key), Some(port));
        }
        Step::DetachPort { name, spec, .. } => assert_eq!(model.port.remove(&name), Some(spec)),
        Step::DeleteBond { name, spec } => assert_eq!(model.bond.remove(&name), Some(spec)),
        Step::CreateBond { name, spec } => assert_eq!(model.bond.insert(name, spec), None),
        Step::SetBond { name, old, new } => {
            assert_eq!(model.bond.insert(name, new.clone()), Some(old.clone()));
            assert_eq!(old.peer, new.peer, "not possible in place");
        }
        Step::DeleteNetwork { name, spec, .. } => {
            assert!(model.port.values().all(|port| port.network != name));
            assert_eq!(model.network.remove(&name), Some(spec));
        }
        Step::CreateNetwork { name, spec } => {
            let taken = |other: &NetworkSpec| {
                other.uplink.is_some() && (&other.uplink, other.vlan) == (&spec.uplink, spec.vlan)
            };
            assert!(!model.network.values().any(taken), "VLAN still taken");
            assert!(spec.fdb.is_empty());
            assert_eq!(model.network.insert(name, spec), None);
        }
        Step::SetNetwork { name, old, new } => {
            let spec = model.network.get_mut(&name).unwrap();
            let fdb = std::mem::take(&mut spec.fdb);
            assert_eq!(*spec, *old);
            assert_eq!((old.kind, &old.uplink, old.vlan), (new.kind, &new.uplink, new.vlan));
            *spec = NetworkSpec { fdb, ..*new };
        }
        Step::AttachPort { name, spec } => {
            assert_eq!(model.port.insert(name, spec), None);
        }
        Step::SetPort { name, old, new } => {
            assert_eq!(model.port.insert(name, new.clone()), Some(old.clone()));
            let same = switchd_api::model::PortSpec {
                vlan: old.vlan.clone(),
                admin: old.admin,
                mac_limit: old.mac_limit,
                reserve: old.reserve.clone(),
                storm_limit: old.storm_limit.clone(),
                bpdu_guard: old.bpdu_guard.clone(),
                loop_guard: old.loop_guard.clone(),
                ..new
            };
            assert_eq!(same, old, "not possible in place");
        }
        Step::AddStatic { network, key, port } => {
            assert_eq!(model.network.get_mut(&network).unwrap().fdb.insert(key, port), None);
        }
        Step::CreateMirror { name, spec } => assert_eq!(model.mirror.insert(name, spec), None),
    }
    // References and exclusive things, after each step. `check` has them all.
    for spec in model.mirror.values() {
        assert!(spec.source.iter().chain([&spec.to]).all(|text| exists(model, text)), "after {step:?}");
    }
    // A floating address names a port that may come later, and its reserved address.
    let mut bare = model.clone();
    bare.network.values_mut().for_each(|spec| spec.floating.clear());
    bare.port.values_mut().for_each(|spec| spec.reserve = None);
    assert!(super::testing::check(&bare), "after {step:?}: {model:?}");
}

fn carry_out_all(old: &Desired, new: &Desired) -> Vec<Step> {
    let steps = plan(old, new);
    let mut model = old.clone();
    steps.iter().for_each(|step| carry_out(&mut model, step));
    assert_eq!(&model, new);
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_steps_lead_from_old_to_new_and_every_state_between_is_sound(old in desired(), new in desired()) {
        let steps = carry_out_all(&old, &new);
        prop_assert_eq!(steps.is_empty(), old == new);
        // Everything that differs is told, and nothing is told of what is equal and untouched.
        let told: BTreeSet<String> = changes(&steps).into_iter().map(|change| change.object).collect();
        for port in old.port.keys().chain(new.port.keys()) {
            if old.port.get(port) != new.port.get(port) {
                let object = format!("port {port}");
                prop_assert!(told.contains(&object), "not told");
            }
        }
        for bond in old.bond.keys().chain(new.bond.keys()) {
            let differs = old.bond.get(bond) != new.bond.get(bond);
            prop_assert_eq!(differs, told.contains(&format!("bond {bond}")));
        }
        for network in old.network.keys().chain(new.network.keys()) {
            // One that stands on a bond that comes or goes is told too: it is made anew.
            if old.network.get(network) != new.network.get(network) {
                let object = format!("network {network}");
                prop_assert!(told.contains(&object), "not told");
            }
        }
    }

    #[test]
    fn the_same_for_two_that_have_much_in_common((old, new) in pair()) {
        let steps = carry_out_all(&old, &new);
        prop_assert_eq!(steps.is_empty(), old == new);
    }

    #[test]
    fn nothing_to_do_is_no_step(same in desired()) {
        prop_assert!(plan(&same, &same).is_empty());
    }
}

const BASE: &str = r#"
[network.lab]
kind = "isolated"
[network.lab.fdb]
"02:00:00:00:00:01" = "vm1"
[network.office]
kind = "bridged"
uplink = "eth0"
vlan = 20
[port.vm1]
network = "lab"
tap = "vm1"
[port.vm2]
network = "lab"
tap = "vm2"
[port.pc]
network = "office"
netdev = "eth1"
[mirror.all]
source = ["network:lab"]
to = "pcap:lab.pcapng"
[mirror.watch]
source = ["port:vm1"]
to = "port:pc"
"#;

fn base() -> Desired {
    parse_toml(BASE, "base", std::path::Path::new("/captures")).unwrap()
}

/// `- mirror all`, `+ network lab`, `~ port vm1`, `-fdb lab`: one word and name a step.
fn short(steps: &[Step]) -> Vec<String> {
    let line = |step: &Step| match step {
        Step::DeleteMirror { name, .. } => format!("- mirror {name}"),
        Step::DeleteStatic { network, port, .. } => format!("- fdb {network} {port}"),
        Step::DetachPort { name, returns, .. } => {
            format!("- port {name}{}", if *returns { " returns" } else { "" })
        }
        Step::DeleteNetwork { name, returns, .. } => {
            format!("- network {name}{}", if *returns { " returns" } else { "" })
        }
        Step::DeleteBond { name, .. } => format!("- bond {name}"),
        Step::CreateBond { name, .. } => format!("+ bond {name}"),
        Step::SetBond { name, .. } => format!("~ bond {name}"),
        Step::CreateNetwork { name, .. } => format!("+ network {name}"),
        Step::SetNetwork { name, .. } => format!("~ network {name}"),
        Step::AttachPort { name, .. } => format!("+ port {name}"),
        Step::SetPort { name, .. } => format!("~ port {name}"),
        Step::AddStatic { network, port, .. } => format!("+ fdb {network} {port}"),
        Step::CreateMirror { name, .. } => format!("+ mirror {name}"),
    };
    steps.iter().map(line).collect()
}

fn steps_of(change: impl FnOnce(&mut Desired)) -> Vec<String> {
    let mut new = base();
    change(&mut new);
    short(&carry_out_all(&base(), &new))
}

#[test]
fn what_can_be_changed_in_place_is() {
    let steps = steps_of(|new| {
        let lab = new.network.get_mut("lab").unwrap();
        (lab.mtu, lab.ageing, lab.mac_limit) = (Some(9000), Some(10), Some(5));
        let vm1 = new.port.get_mut("vm1").unwrap();
        vm1.admin = switchd_api::model::Admin::Down;
        vm1.vlan = Some("access=10".into());
    });
    assert_eq!(steps, ["~ network lab", "~ port vm1"]);
}

#[test]
fn a_static_entry_alone_touches_nothing_else() {
    let steps = steps_of(|new| {
        let fdb = &mut new.network.get_mut("lab").unwrap().fdb;
        fdb.insert("02:00:00:00:00:01".into(), "vm2".into());
    });
    assert_eq!(steps, ["- fdb lab vm1", "+ fdb lab vm2"]);
}

#[test]
fn a_new_network_on_the_uplink_leaves_the_old_one_alone() {
    let steps = steps_of(|new| {
        let spec = NetworkSpec { vlan: Some(30), ..new.network["office"].clone() };
        new.network.insert(name("guests"), spec);
    });
    assert_eq!(steps, ["+ network guests"]);
}

#[test]
fn another_vlan_makes_the_network_anew_with_its_ports_and_their_mirrors_only() {
    let steps = steps_of(|new| new.network.get_mut("office").unwrap().vlan = Some(30));
    assert_eq!(
        steps,
        [
            "- mirror watch",
            "- port pc returns",
            "- network office returns",
            "+ network office",
            "+ port pc",
            "+ mirror watch"
        ]
    );
}

#[test]
fn a_mirror_of_an_uplink_follows_it_only_when_the_last_network_leaves() {
    let mut old = base();
    old.mirror.get_mut("watch").unwrap().source = vec!["port:uplink:eth0".into()];
    old.mirror.get_mut("watch").unwrap().to = "port:vm1".into();
    let mut new = old.clone();
    new.network.get_mut("office").unwrap().vlan = Some(30);
    let steps = short(&carry_out_all(&old, &new));
    assert!(steps.contains(&"- mirror watch".to_owned()), "{steps:?}");
    let other = NetworkSpec { vlan: Some(40), ..old.network["office"].clone() };
    for desired in [&mut old, &mut new] {
        desired.network.insert(name("other"), other.clone());
    }
    let steps = short(&carry_out_all(&old, &new));
    assert!(!steps.contains(&"- mirror watch".to_owned()), "{steps:?}");
}

#[test]
fn a_port_with_another_tap_takes_its_static_entries_and_mirrors_along() {
    let steps = steps_of(|new| new.port.get_mut("vm1").unwrap().tap = Some("other".into()));
    assert_eq!(
        steps,
        [
            "- mirror watch",
            "- fdb lab vm1",
            "- port vm1 returns",
            "+ port vm1",
            "+ fdb lab vm1",
            "+ mirror watch"
        ]
    );
}

#[test]
fn two_ports_can_swap_their_interfaces() {
    let steps = steps_of(|new| {
        new.port.get_mut("vm1").unwrap().tap = Some("vm2".into());
        new.port.get_mut("vm2").unwrap().tap = Some("vm1".into());
    });
    assert_eq!(steps.iter().filter(|step| step.contains("port vm")).count(), 4);
}

#[test]
fn everything_to_nothing_and_back() {
    let gone = short(&carry_out_all(&base(), &Desired::default()));
    assert_eq!(gone.first().unwrap(), "- mirror all");
    assert_eq!(gone.last().unwrap(), "- network office");
    let back = short(&carry_out_all(&Desired::default(), &base()));
    assert_eq!((back[0].as_str(), back.last().unwrap().as_str()), ("+ network lab", "+ mirror watch"));
}

#[test]
fn changes_are_told_in_words() {
    let mut new = base();
    let lab = new.network.get_mut("lab").unwrap();
    lab.mtu = Some(9000);
    lab.fdb.insert("02:00:00:00:00:02".into(), "vm2".into());
    new.port.get_mut("vm1").unwrap().netns = Some("guest".into());
    new.port.remove("vm2");
    new.network.get_mut("lab").unwrap().fdb.remove("02:00:00:00:00:02");
    new.mirror.remove("watch");
    new.network.insert(name("new"), NetworkSpec { fdb: Default::default(), ..new.network["lab"].clone() });
    let lines: Vec<String> = changes(&plan(&base(), &new))
        .into_iter()
        .map(|change| format!("{} {}: {}", change.action, change.object, change.details.join("; ")))
        .collect();
    assert_eq!(
        lines,
        [
            "change network lab: mtu: default → 9000",
            "create network new: kind: isolated; mtu: 9000",
            "change port vm1: netns: default → guest; made anew: its traffic is interrupted",
            "delete port vm2: ",
            "delete mirror watch: ",
        ]
    );
    let mut new = base();
    let fdb = &mut new.network.get_mut("lab").unwrap().fdb;
    fdb.clear();
    fdb.insert("02:00:00:00:00:02@7".into(), "vm2".into());
    let change = &changes(&plan(&base(), &new))[0];
    assert_eq!(change.details, ["fdb 02:00:00:00:00:01: vm1 → none", "fdb 02:00:00:00:00:02@7: none → vm2"]);
}

const NAT: &str = r#"
[network.lab]
kind = "nat"
subnet = "10.7.0.0/24"
egress = "bond0"
address = "192.0.2.9/24"
forward."tcp/8080" = "10.7.0.20:80"
[network.office]
kind = "bridged"
uplink = "bond0"
vlan = 20
[network.plain]
kind = "bridged"
uplink = "eth5"
[bond.bond0]
members = ["eth0", "eth1"]
mode = "lacp"
[port.vm1]
network = "lab"
tap = "vm1"
[mirror.watch]
source = ["bond:bond0"]
to = "pcap:bond.pcapng"
"#;

fn nat() -> Desired {
    parse_toml(NAT, "nat", std::path::Path::new("/captures")).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn a_nat_network_and_a_bond_change_in_place() {
    let mut new = nat();
    let lab = new.network.get_mut("lab").unwrap();
    lab.subnet = Some("10.8.0.0/24".into());
    lab.forward = [("tcp/8080".to_owned(), "10.8.0.20:80".to_owned())].into();
    lab.egress = Some("host".into());
    lab.address = None;
    let bond = new.bond.get_mut("bond0").unwrap();
    bond.members.push("eth2".into());
    bond.rate = Some("slow".into());
    let steps = carry_out_all(&nat(), &new);
    assert_eq!(short(&steps), ["~ bond bond0", "~ network lab"]);
    let change = changes(&steps);
    assert_eq!((change[0].object.as_str(), change[1].object.as_str()), ("network lab", "bond bond0"));
    assert_eq!(change[1].details, ["members: eth0,eth1 → eth0,eth1,eth2", "rate: default → slow"]);
    let forward = "forward tcp/8080: 10.7.0.20:80 → 10.8.0.20:80";
    assert!(change[0].details.iter().any(|detail| detail == forward), "{change:?}");
}

#[test]
fn networks_follow_a_bond_that_is_made_anew() {
    let mut new = nat();
    let bond = new.bond.get_mut("bond0").unwrap();
    (bond.peer, bond.peer_id) = (Some("eth3".into()), Some(1));
    bond.system_id = Some("02:00:00:00:00:01".into());
    let mut wanted = vec![
        "- mirror watch",
        "- port vm1 returns",
        "- network lab returns",
        "- network office returns",
        "- bond bond0",
        "+ bond bond0",
        "+ network lab",
        "+ network office",
        "+ port vm1",
        "+ mirror watch",
    ];
    assert_eq!(short(&carry_out_all(&nat(), &new)), wanted);
    // What was an interface's name is a bond's now.
    let mut old = nat();
    old.mirror.clear();
    old.bond.clear();
    let mut new = nat();
    new.mirror.clear();
    wanted.retain(|step| !step.contains("mirror") && *step != "- bond bond0");
    assert_eq!(short(&carry_out_all(&old, &new)), wanted);
}
