//! Plans, step by step: two configurations in, words out.

use super::super::target::TapeFile;
use super::*;
use crate::worker::command::Wanted;

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
