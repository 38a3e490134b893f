//! Plans, step by step: two configurations in, words out.

use super::super::target::{Guest, Served, Tape, TapeFile, Team};
use super::*;
use crate::worker::command::{BondSettings, Gateway, PortConfig, Wanted};

fn net(uplink: Option<(&str, Option<u16>)>) -> Net {
    Net { uplink: uplink.map(|(name, vid)| (name.to_owned(), vid)), ..Net::default() }
}

fn tap(network: &str, name: &str) -> Guest {
    Guest {
        network: network.to_owned(),
        config: PortConfig::default(),
        backend: Backend::Tap { name: name.to_owned(), netns: None, mac: MacAddr([2, 0, 0, 0, 0, 1]) },
    }
}

fn tape(ports: &[&str], networks: &[&str], to: Option<&str>) -> Tape {
    let both = Wanted { rx: true, tx: true };
    Tape {
        ports: ports.iter().map(|&name| (name.to_owned(), both)).collect(),
        networks: networks.iter().map(|&name| (name.to_owned(), both)).collect(),
        to: match to {
            Some(port) => TapeTo::Port(port.to_owned()),
            None => TapeTo::File(TapeFile {
                path: "x.pcapng".to_owned(),
                rotate_size: None,
                rotate_time: None,
                rotate_count: None,
            }),
        },
        filter: None,
        snaplen: 262_144,
        segment: false,
    }
}

fn target(networks: &[(&str, Net)], ports: &[(&str, Guest)], mirrors: &[(&str, Tape)]) -> Target {
    Target {
        networks: networks.iter().map(|(name, net)| ((*name).to_owned(), net.clone())).collect(),
        ports: ports.iter().map(|(name, guest)| ((*name).to_owned(), guest.clone())).collect(),
        mirrors: mirrors.iter().map(|(name, tape)| ((*name).to_owned(), tape.clone())).collect(),
        bonds: BTreeMap::new(),
    }
}

fn at(places: &[(&str, usize)]) -> Places {
    places.iter().map(|&(name, worker)| (name.to_owned(), worker)).collect()
}

/// The steps in short.
fn words(steps: &[Step]) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::AddNetwork { name, worker, .. } => format!("+network {name} @{worker}"),
        Step::RemoveNetwork { name, .. } => format!("-network {name}"),
        Step::SetNetwork { name, .. } => format!("=network {name}"),
        Step::AddUplink { interface, worker, .. } => format!("+uplink {interface} @{worker}"),
        Step::RemoveUplink { interface, .. } => format!("-uplink {interface}"),
        Step::Join { network, interface, .. } => format!("join {network} {interface}"),
        Step::Leave { network, interface, .. } => format!("leave {network} {interface}"),
        Step::AddBond { name, worker, .. } => format!("+bond {name} @{worker}"),
        Step::RemoveBond { name, .. } => format!("-bond {name}"),
        Step::SetBond { name, .. } => format!("=bond {name}"),
        Step::AddMember { bond, interface, .. } => format!("+member {bond} {interface}"),
        Step::RemoveMember { bond, interface, .. } => format!("-member {bond} {interface}"),
        Step::SetGate { network, old, new } => {
            let change = match (old, new) {
                (None, _) => "+",
                (_, None) => "-",
                _ => "=",
            };
            format!("{change}gate {network}")
        }
        Step::Serve { network, new: Some(_), .. } => format!("serve {network}"),
        Step::Serve { network, new: None, .. } => format!("unserve {network}"),
        Step::AddPort { name, .. } => format!("+port {name}"),
        Step::RemovePort { name, .. } => format!("-port {name}"),
        Step::SetPort { name, .. } => format!("=port {name}"),
        Step::SetMtu { port, new, .. } => format!("mtu {port} {new}"),
        Step::FdbAdd { port, .. } => format!("+fdb {port}"),
        Step::FdbDelete { port, .. } => format!("-fdb {port}"),
        Step::AddMirror { name, .. } => format!("+mirror {name}"),
        Step::RemoveMirror { name, .. } => format!("-mirror {name}"),
        Step::Move { networks, from, to } => {
            format!("move {} {from}>{to}", networks.iter().cloned().collect::<Vec<_>>().join("+"))
        }
    };
    steps.iter().map(word).collect()
}

#[test]
fn what_did_not_change_is_in_no_step() {
    let all = target(
        &[("a", net(Some(("eth0", Some(10))))), ("b", net(None))],
        &[("p", tap("a", "t0")), ("q", tap("b", "t1"))],
        &[("m", tape(&["p"], &[], Some("q")))],
    );
    let (steps, places) = plan(&all, &all, &at(&[("a", 1), ("b", 1)]), 2);
    assert_eq!(steps, []);
    assert_eq!(places, at(&[("a", 1), ("b", 1)]));
}

#[test]
fn everything_is_built_from_the_network_upwards_and_torn_down_backwards() {
    let mut a = net(Some(("eth0", None)));
    a.statics.insert((MacAddr([2; 6]), None), "p".to_owned());
    let all = target(&[("a", a)], &[("p", tap("a", "t0"))], &[("m", tape(&["p"], &["a"], None))]);
    let (up, places) = plan(&Target::default(), &all, &Places::new(), 1);
    let order = ["+network a @0", "+uplink eth0 @0", "join a eth0", "+port p", "+fdb p", "+mirror m"];
    assert_eq!(words(&up), order);
    let (down, places) = plan(&all, &Target::default(), &places, 1);
    let back: Vec<Step> = up.into_iter().rev().map(Step::inverse).collect();
    assert_eq!(down, back);
    assert!(places.is_empty());
}

#[test]
fn a_port_on_another_network_is_made_again_with_its_entries_and_mirrors() {
    let mut a = net(None);
    a.statics.insert((MacAddr([2; 6]), None), "q".to_owned());
    let old = target(
        &[("a", a.clone()), ("b", net(None))],
        &[("p", tap("a", "t0")), ("q", tap("a", "t1"))],
        &[("m", tape(&["p"], &[], None)), ("n", tape(&["q"], &[], None))],
    );
    let mut new = old.clone();
    new.ports.insert("p".to_owned(), tap("b", "t0"));
    let (steps, _) = plan(&old, &new, &at(&[("a", 0), ("b", 0)]), 1);
    assert_eq!(words(&steps), ["-mirror m", "-port p", "+port p", "+mirror m"]);
}

#[test]
fn new_mtu_reaches_ports_and_the_uplink() {
    let old = target(&[("a", net(Some(("eth0", None))))], &[("p", tap("a", "t0"))], &[]);
    let mut new = old.clone();
    new.networks.get_mut("a").unwrap().config.mtu = 9000;
    let (steps, _) = plan(&old, &new, &at(&[("a", 0)]), 1);
    assert_eq!(words(&steps), ["=network a", "mtu uplink:eth0 9000", "mtu p 9000"]);
}

#[test]
fn networks_that_exchange_their_vlans_leave_before_they_join() {
    let old = target(
        &[
            ("a", net(Some(("eth0", Some(1))))),
            ("b", net(Some(("eth0", Some(2))))),
            ("c", net(Some(("eth0", None)))),
        ],
        &[],
        &[],
    );
    let mut new = old.clone();
    new.networks.insert("a".to_owned(), net(Some(("eth0", Some(2)))));
    new.networks.insert("b".to_owned(), net(Some(("eth0", Some(1)))));
    let (steps, _) = plan(&old, &new, &at(&[("a", 0), ("b", 0), ("c", 0)]), 1);
    assert_eq!(words(&steps), ["leave a eth0", "leave b eth0", "join a eth0", "join b eth0"]);
}

#[test]
fn an_uplink_that_nobody_stays_on_is_made_again_where_its_networks_are() {
    let old = target(&[("a", net(Some(("eth0", None)))), ("b", net(None))], &[], &[]);
    let new = target(&[("a", net(None)), ("b", net(Some(("eth0", None))))], &[], &[]);
    let (steps, _) = plan(&old, &new, &at(&[("a", 0), ("b", 1)]), 2);
    assert_eq!(words(&steps), ["leave a eth0", "-uplink eth0", "+uplink eth0 @1", "join b eth0"]);
}

#[test]
fn a_new_tie_moves_the_smaller_side_between_teardown_and_build() {
    let old = target(
        &[("a", net(None)), ("b", net(Some(("eth0", None)))), ("c", net(Some(("eth0", Some(5)))))],
        &[("p", tap("a", "t0")), ("q", tap("b", "t1")), ("r", tap("b", "t2"))],
        &[],
    );
    let mut new = old.clone();
    new.mirrors.insert("m".to_owned(), tape(&[], &["b"], Some("p")));
    let (steps, places) = plan(&old, &new, &at(&[("a", 0), ("b", 1), ("c", 1)]), 2);
    assert_eq!(words(&steps), ["move a 0>1", "+mirror m"]);
    assert_eq!(places, at(&[("a", 1), ("b", 1), ("c", 1)]));
}

#[test]
fn networks_that_share_an_uplink_move_together() {
    let old = target(
        &[("a", net(None)), ("b", net(Some(("eth0", None)))), ("c", net(Some(("eth0", Some(5)))))],
        &[("p", tap("a", "t0")), ("q", tap("a", "t1")), ("r", tap("a", "t2")), ("s", tap("b", "t3"))],
        &[],
    );
    let mut new = old.clone();
    new.mirrors.insert("m".to_owned(), tape(&["uplink:eth0"], &[], Some("p")));
    let (steps, _) = plan(&old, &new, &at(&[("a", 0), ("b", 1), ("c", 1)]), 2);
    assert_eq!(words(&steps), ["move b+c 1>0", "+mirror m"]);
}

#[test]
fn an_entry_without_a_vlan_takes_those_of_its_address_along() {
    let mac = MacAddr([2; 6]);
    let mut a = net(None);
    a.statics.insert((mac, None), "p".to_owned());
    a.statics.insert((mac, Some(10)), "q".to_owned());
    let old = target(&[("a", a)], &[("p", tap("a", "t0")), ("q", tap("a", "t1"))], &[]);
    let mut new = old.clone();
    new.networks.get_mut("a").unwrap().statics.remove(&(mac, None));
    let (steps, _) = plan(&old, &new, &at(&[("a", 0)]), 1);
    assert_eq!(words(&steps), ["-fdb p", "-fdb q", "+fdb q"]);
    let (steps, _) = plan(&new, &old, &at(&[("a", 0)]), 1);
    assert_eq!(words(&steps), ["+fdb p"]);
}

fn gate(segment: Option<&str>, domain: &str) -> Option<Box<Gate>> {
    use switchd_dataplane::{Egress, GatewayConfig, NetworkId, OutsideConfig};
    let v4 = switchd_nat::Prefix4 { address: [10, 7, 0, 1].into(), len: 24 };
    let mac = MacAddr([2, 0, 0, 0, 0, 7]);
    let nat = switchd_nat::NatConfig {
        inside: v4,
        inside6: None,
        outside: Vec::new(),
        outside6: None,
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: Default::default(),
        timeouts: Default::default(),
        flows: 1,
        quota: 1,
        mtu_outside: 1500,
        mtu_inside: 1500,
    };
    let outside =
        OutsideConfig { segment: NetworkId(0), mac, v4: None, gateway: None, v6: None, gateway6: None, nat };
    let egress = match segment {
        Some(_) => Egress::Outside(Box::new(outside)),
        None => Egress::Host,
    };
    let gateway =
        Gateway { config: GatewayConfig { mac, v4, v6: None, egress }, segment: segment.map(Into::into) };
    let served = Served {
        gateway_mac: mac,
        v4,
        v6: None,
        mtu: 1500,
        domain: domain.to_owned(),
        ports: Vec::new(),
        dhcp: None,
        dhcp6: Default::default(),
        outside: None,
        excluded: Vec::new(),
        resolvers: Vec::new(),
    };
    Some(Box::new(Gate { gateway, host: None, served }))
}

fn nat(segment: Option<&str>) -> Net {
    Net { gate: gate(segment, "lab"), ..net(None) }
}

fn team(members: &[&str]) -> Team {
    let settings = BondSettings {
        config: Default::default(),
        active: true,
        fast: true,
        system: MacAddr([2, 0, 0, 0, 0, 8]),
        system_priority: 32768,
        key: None,
        min_links: 1,
        prefer: None,
        fallback: false,
        half: None,
    };
    Team { settings, members: members.iter().map(|&name| name.to_owned()).collect(), peer: None }
}

fn with_bond(mut target: Target, team: Team) -> Target {
    target.bonds.insert("b0".to_owned(), team);
    target
}

/// The inverses of the steps, last one first, are the steps of the way back: in another order at most.
fn assert_undone(old: &Target, new: &Target, places: &Places) {
    let (there, after) = plan(old, new, places, 2);
    let (back, _) = plan(new, old, &after, 2);
    let undo: Vec<Step> = there.into_iter().rev().map(Step::inverse).collect();
    let sorted = |steps: &[Step]| {
        let mut words = words(steps);
        words.sort();
        words
    };
    assert_eq!(sorted(&undo), sorted(&back));
}

#[test]
fn a_nat_network_is_built_after_its_segment_and_served_last() {
    let segment = "egress:eth0";
    let all = target(
        &[("lab", nat(Some(segment))), (segment, net(Some(("eth0", None))))],
        &[("p", tap("lab", "t0"))],
        &[],
    );
    let (up, places) = plan(&Target::default(), &all, &Places::new(), 2);
    let order = [
        "+network egress:eth0 @0",
        "+network lab @0",
        "+uplink eth0 @0",
        "join egress:eth0 eth0",
        "+gate lab",
        "+port p",
        "serve lab",
    ];
    assert_eq!(words(&up), order);
    let (down, _) = plan(&all, &Target::default(), &places, 2);
    let order = [
        "unserve lab",
        "-port p",
        "-gate lab",
        "leave egress:eth0 eth0",
        "-uplink eth0",
        "-network egress:eth0",
        "-network lab",
    ];
    assert_eq!(words(&down), order);
}

#[test]
fn the_outside_end_moves_to_the_users_network_and_back_with_its_flows() {
    let segment = "egress:eth0";
    let hidden = target(&[("lab", nat(Some(segment))), (segment, net(Some(("eth0", None))))], &[], &[]);
    let own = target(&[("lab", nat(Some("office"))), ("office", net(Some(("eth0", None))))], &[], &[]);
    let places = at(&[("lab", 1), (segment, 1)]);
    let (steps, after) = plan(&hidden, &own, &places, 2);
    let order = [
        "leave egress:eth0 eth0",
        "+network office @1",
        "join office eth0",
        "=gate lab",
        "-network egress:eth0",
    ];
    assert_eq!(words(&steps), order);
    let (steps, _) = plan(&own, &hidden, &after, 2);
    let order = [
        "leave office eth0",
        "+network egress:eth0 @1",
        "join egress:eth0 eth0",
        "=gate lab",
        "-network office",
    ];
    assert_eq!(words(&steps), order);
    assert_undone(&hidden, &own, &places);
}

#[test]
fn what_the_services_offer_changes_without_the_gateway() {
    let old = target(&[("lab", nat(None))], &[], &[]);
    let mut new = old.clone();
    new.networks.get_mut("lab").unwrap().gate = gate(None, "example");
    let (steps, _) = plan(&old, &new, &at(&[("lab", 0)]), 1);
    assert_eq!(words(&steps), ["serve lab"]);
}

#[test]
fn a_gateway_moves_with_its_network() {
    // The bond does not move, so the network does.
    let bond = |networks: &[(&str, Net)], mirrors: &[(&str, Tape)]| {
        with_bond(target(networks, &[("p", tap("lab", "t0"))], mirrors), team(&["eth1"]))
    };
    let networks = [("lab", nat(None)), ("office", net(Some(("b0", None))))];
    let old = bond(&networks, &[]);
    let new = bond(&networks, &[("m", tape(&["uplink:b0"], &[], Some("p")))]);
    let places = at(&[("lab", 0), ("office", 1), ("bond:b0", 1)]);
    let (steps, _) = plan(&old, &new, &places, 2);
    assert_eq!(words(&steps), ["move lab 0>1", "+mirror m"]);
    let (steps, _) = plan(&new, &old, &at(&[("lab", 1), ("office", 1), ("bond:b0", 1)]), 2);
    assert_eq!(words(&steps), ["-mirror m"], "what is untied stays");
}

#[test]
fn a_gateway_moves_with_its_segment_and_one_whose_segment_changes_too_is_made_again() {
    let segment = "egress:eth0";
    let networks = [
        ("lab", nat(Some(segment))),
        (segment, net(Some(("eth0", None)))),
        ("office", net(Some(("b0", None)))),
    ];
    let tied = [("m", tape(&["uplink:b0"], &[], Some("p")))];
    let ports = [("p", tap("lab", "t0"))];
    let old = with_bond(target(&networks, &ports, &[]), team(&["eth1"]));
    let new = with_bond(target(&networks, &ports, &tied), team(&["eth1"]));
    let places = at(&[("lab", 0), (segment, 0), ("office", 1), ("bond:b0", 1)]);
    let (steps, _) = plan(&old, &new, &places, 2);
    assert_eq!(words(&steps), ["move egress:eth0+lab 0>1", "+mirror m"]);
    let other = "egress:eth0.7";
    let networks = [
        ("lab", nat(Some(other))),
        (other, net(Some(("eth0", Some(7))))),
        ("office", net(Some(("b0", None)))),
    ];
    let new = with_bond(target(&networks, &ports, &tied), team(&["eth1"]));
    let (steps, _) = plan(&old, &new, &places, 2);
    let order = [
        "-gate lab",
        "leave egress:eth0 eth0",
        "-uplink eth0",
        "-network egress:eth0",
        "move lab 0>1",
        "+network egress:eth0.7 @1",
        "+uplink eth0 @1",
        "join egress:eth0.7 eth0",
        "+gate lab",
        "+mirror m",
    ];
    assert_eq!(words(&steps), order);
}

#[test]
fn a_bond_stands_before_its_networks_and_without_any() {
    let all = with_bond(target(&[("a", net(Some(("b0", Some(5)))))], &[], &[]), team(&["eth1", "eth2"]));
    let (up, places) = plan(&Target::default(), &all, &Places::new(), 2);
    assert_eq!(words(&up), ["+network a @0", "+bond b0 @0", "join a b0"]);
    assert_eq!(places, at(&[("a", 0), ("bond:b0", 0)]));
    let alone = with_bond(Target::default(), team(&["eth1", "eth2"]));
    let (steps, places) = plan(&all, &alone, &places, 2);
    assert_eq!(
        words(&steps),
        ["leave a b0", "-network a", "mtu uplink:b0 68"],
        "the partner notices nothing"
    );
    let (steps, _) = plan(&alone, &all, &places, 2);
    assert_eq!(words(&steps), ["+network a @0", "mtu uplink:b0 1500", "join a b0"]);
}

#[test]
fn members_and_settings_change_while_the_bond_stands() {
    let old = with_bond(target(&[("a", net(Some(("b0", None))))], &[], &[]), team(&["eth1", "eth2"]));
    let mut other = team(&["eth2", "eth3"]);
    other.settings.fast = false;
    let new = with_bond(target(&[("a", net(Some(("b0", None))))], &[], &[]), other);
    let places = at(&[("a", 0), ("bond:b0", 0)]);
    let (steps, _) = plan(&old, &new, &places, 1);
    assert_eq!(words(&steps), ["-member b0 eth1", "+member b0 eth3", "=bond b0"]);
    assert_undone(&old, &new, &places);
}

#[test]
fn a_network_goes_from_its_interface_to_a_bond_of_it() {
    let old = target(&[("a", net(Some(("eth1", None))))], &[], &[]);
    let new = with_bond(target(&[("a", net(Some(("b0", None))))], &[], &[]), team(&["eth1"]));
    let (steps, _) = plan(&old, &new, &at(&[("a", 1)]), 2);
    assert_eq!(words(&steps), ["leave a eth1", "-uplink eth1", "+bond b0 @1", "join a b0"]);
}
