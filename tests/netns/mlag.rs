//! Bonds across two devices: two rack switches that pass for one, and two switchds that do.

use std::time::Duration;
use switchd_tests::frames::{BROADCAST, mac, marked};
use switchd_tests::links::{FAST, OUT, plain};
use switchd_tests::{Daemon, Lab, Ovs, Probe, Setup, Sniffer, Space, eventually};

const ALL: [&str; 4] = ["m0", "m1", "m2", "m3"];

fn key(ovs: &Ovs, side: usize, key: u16) {
    let key = format!("other_config:lacp-aggregation-key={key}");
    ovs.vsctl(&["set", "interface", &format!("p{side}"), &key]);
}

/// Two instances of Open vSwitch present one system and key, two members each, and are joined by a cable.
#[test]
fn two_rack_switches_with_one_system_are_one_partner() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "iperf3"]) else { return };
    let (host, out, a) = (lab.space("host"), lab.space("out"), lab.space("a"));
    let racks = [lab.space("rack0"), lab.space("rack1")];
    lab.wire((&racks[0], "peer"), (&racks[1], "peer"));
    lab.wire((&racks[0], "o0"), (&out, "eth0"));
    out.address("eth0", &format!("{OUT}/24"));
    plain(&out, "eth0");
    let ovs = [0, 1].map(|number| {
        let ovs = Ovs::start(&lab, &racks[number], &format!("ovs{number}"));
        ovs.port("peer", &[]);
        for side in [0, 1] {
            let (member, far) = (format!("m{}", 2 * number + side), format!("p{side}"));
            lab.wire((&host, &member), (&racks[number], &far));
            plain(&host, &member);
        }
        ovs.bond(&["p0", "p1"], FAST);
        ovs.vsctl(&["set", "port", "bond0", "other_config:lacp-system-id=02:00:00:00:aa:aa"]);
        for side in [0, 1] {
            let id = format!("other_config:lacp-port-id={}", 2 * number + side + 1);
            key(&ovs, side, 77);
            ovs.vsctl(&["set", "interface", &format!("p{side}"), &id]);
        }
        ovs
    });
    ovs[0].port("o0", &[]);
    // What crosses their cable does not go back to the aggregate, as with any such pair.
    ovs[0].flow("in_port=peer,actions=output:o0");
    ovs[1].flow("in_port=peer,actions=drop");
    let switch = Daemon::start(&lab, &host);
    switch.do_("bond create b0 --members m0,m1,m2,m3 --mode lacp");
    switch.do_("network create office --kind bridged --uplink b0");
    switch.guest("office", "a", &a, "10.9.0.1/24");
    switch.works("b0", &ALL);
    let partner = &switch.bond("b0")["partner_system"];
    assert_eq!((partner["system"].as_str(), partner["key"].as_u64()), (Some("02:00:00:00:aa:aa"), Some(77)));
    // A broadcast leaves by one member, so it arrives once, whichever switch it came to.
    a.reaches(OUT);
    assert!(a.tcp(&out, OUT, 1, &["-P", "8"]) > 1e6);
    let listener = Sniffer::start(&out, "eth0");
    let frames: Vec<_> = (0..20)
        .map(|number| marked(&BROADCAST, &mac(100 + number), &[], &format!("once {number};")))
        .collect();
    a.send("eth0", &frames);
    for number in 0..20 {
        assert_eq!(listener.expect(&format!("once {number};"), 1).len(), 1);
    }
    let mut probe = Probe::start(&a, &out, OUT, 4);
    for (pulled, rest) in [(["m2", "m3"], ["m0", "m1"]), (["m0", "m1"], ["m2", "m3"])] {
        // What the cut off one gets for us goes by the other one, and it learns that from what comes.
        let cut_off = rest[0] == "m2";
        ovs[0].flow(if cut_off { "in_port=peer,actions=normal" } else { "in_port=peer,actions=output:o0" });
        ovs[1].flow(if cut_off { "in_port=peer,actions=normal" } else { "in_port=peer,actions=drop" });
        probe.stretch();
        for member in pulled {
            host.ip(&["link", "set", member, "down"]);
        }
        switch.works("b0", &rest);
        let lost = probe.stretch();
        eprintln!("{pulled:?} to one of two rack switches are pulled: {lost:?}");
        // How soon the cut off one sends by the other one is up to the rack switches.
        assert_eq!(lost.doubled, 0, "{lost:?}");
        a.reaches(OUT);
        for member in pulled {
            host.ip(&["link", "set", member, "up"]);
        }
        if cut_off {
            ovs[0].flow("in_port=peer,actions=output:o0");
            ovs[1].flow("in_port=peer,actions=drop");
        }
        switch.works("b0", &ALL);
    }
    // Another key at the second one: it is no longer the same partner, and the reason says so.
    ovs.iter().for_each(|ovs| ovs.flow("in_port=peer,actions=normal"));
    [0, 1].into_iter().for_each(|side| key(&ovs[1], side, 78));
    eventually(Duration::from_secs(10), || match switch.working("b0").len() {
        2 => Ok(()),
        _ => Err(switch.bond("b0").to_string()),
    });
    let out_of_it = if switch.working("b0") == ["m0", "m1"] { "m2" } else { "m0" };
    switch.out_because("b0", out_of_it, "partner key");
    // They are two switches now, and nobody told them where the guest is.
    ovs.iter().for_each(|ovs| _ = ovs.appctl(&["fdb/flush", "br0"]));
    a.reaches(OUT);
}

/// Two hosts, one bond: a switchd on each, a cable between them, and one rack switch. In the order in which they
/// end.
struct Pair {
    halves: [Daemon; 2],
    guests: [Space; 2],
    ovs: Ovs,
    out: Space,
    hosts: [Space; 2],
    _rack: Space,
}

const GUESTS: [&str; 2] = ["10.9.0.10", "10.9.0.11"];

fn pair(lab: &Lab) -> Pair {
    let (rack, out) = (lab.space("rack"), lab.space("out"));
    let hosts = [lab.space("host0"), lab.space("host1")];
    lab.wire((&hosts[0], "x0"), (&hosts[1], "x0"));
    for host in &hosts {
        host.ip(&["link", "set", "x0", "mtu", "1600"]);
    }
    for (host, far) in hosts.iter().zip(["p0", "p1"]) {
        lab.wire((host, "m0"), (&rack, far));
        plain(host, "m0");
    }
    lab.wire((&rack, "o0"), (&out, "eth0"));
    out.address("eth0", &format!("{OUT}/24"));
    plain(&out, "eth0");
    let ovs = Ovs::start(lab, &rack, "ovs");
    ovs.port("o0", &[]);
    ovs.bond(&["p0", "p1"], FAST);
    let guests = [lab.space("g0"), lab.space("g1")];
    let halves = [0, 1].map(|number| {
        let half = Setup::new(lab, &hosts[number], &format!("half{number}")).start();
        half.do_(&format!(
            "bond create b0 --members m0 --mode lacp --system-id 02:00:00:00:bb:bb --key 5 --peer x0 --peer-id {}",
            number + 1
        ));
        half.do_("network create office --kind bridged --uplink b0");
        half.guest("office", "g", &guests[number], &format!("{}/24", GUESTS[number]));
        half
    });
    let pair = Pair { halves, guests, ovs, out, hosts, _rack: rack };
    pair.whole();
    pair
}

impl Pair {
    /// Both halves work, and the rack switch sees one aggregate.
    #[track_caller]
    fn whole(&self) {
        for half in &self.halves {
            half.works("b0", &["m0"]);
        }
        self.ovs.negotiated(&["p0", "p1"]);
        let members = self.ovs.members();
        let keys = ["partner sys_id", "partner key"].map(|key| {
            assert_eq!(members["p0"].fields[key], members["p1"].fields[key], "{members:?}");
            members["p0"].fields[key].clone()
        });
        assert_eq!(keys, ["02:00:00:00:bb:bb".to_owned(), "5".to_owned()]);
        assert_ne!(members["p0"].fields["partner port_id"], members["p1"].fields["partner port_id"]);
    }

    /// Every guest and the outside reach each other.
    #[track_caller]
    fn all_reach(&self) {
        for guest in &self.guests {
            guest.reaches(OUT);
        }
        for address in GUESTS {
            self.out.reaches(address);
        }
        self.guests[0].reaches(GUESTS[1]);
        self.guests[1].reaches(GUESTS[0]);
    }
}

#[test]
fn a_pair_delivers_everything_once() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "iperf3"]) else { return };
    let pair = pair(&lab);
    pair.all_reach();
    let ends = [(&pair.guests[0], "eth0"), (&pair.guests[1], "eth0"), (&pair.out, "eth0")];
    let listeners = ends.map(|(space, name)| Sniffer::start(space, name));
    // Floods from each end, with many source addresses, so that the rack switch uses both members.
    for (from, (space, name)) in ends.iter().enumerate() {
        let frames: Vec<_> = (0..16u32)
            .map(|number| {
                let to = if number % 2 == 0 { BROADCAST } else { mac(0x9999) };
                marked(
                    &to,
                    &mac(0x100 * (from as u32 + 1) + number),
                    &[],
                    &format!("from {from} no {number};"),
                )
            })
            .collect();
        space.send_paced(name, &frames, Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_secs(1));
    for (at, listener) in listeners.iter().enumerate() {
        for from in (0..3).filter(|from| *from != at) {
            for number in 0..16 {
                let marker = format!("from {from} no {number};");
                assert_eq!(listener.with(&marker).len(), 1, "{marker} at end {at}");
            }
        }
        assert_eq!(listener.with(&format!("from {at} ")).len(), 0, "end {at} gets its own frames back");
    }
    assert!(pair.guests[0].tcp(&pair.guests[1], GUESTS[1], 1, &[]) > 1e6);
    assert!(pair.guests[1].tcp(&pair.out, OUT, 1, &["-P", "4"]) > 1e6);
    assert!(pair.out.tcp(&pair.guests[0], GUESTS[0], 1, &["-P", "4"]) > 1e6);
    for half in &pair.halves {
        let shown = half.bond("b0");
        assert!(shown["peer_state"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
    }
    // The cable between the halves can no longer take a whole frame with its tags.
    pair.hosts[0].ip(&["link", "set", "x0", "mtu", "1500"]);
    let dropped = |port: &str| pair.halves[0].count(port, "out too-long");
    let before = dropped("member:x0");
    let pings = pair.guests[0].background(&["ping", "-n", "-c", "3", "-i", "0.2", "-s", "1472", GUESTS[1]]);
    eventually(Duration::from_secs(10), || match dropped("member:x0") - before {
        0 => Err(pair.halves[0].json(&["port", "show", "member:x0"]).to_string()),
        _ => Ok(()),
    });
    drop(pings);
    pair.guests[0].reaches(GUESTS[1]);
}

#[test]
fn a_half_whose_cables_are_pulled_goes_on_through_the_other() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let pair = pair(&lab);
    pair.all_reach();
    let mut probes =
        [0, 1].map(|number| Probe::at_rate(&pair.out, &pair.guests[number], GUESTS[number], 1, 500));
    for number in [0, 1] {
        probes.iter_mut().for_each(|probe| _ = probe.stretch());
        pair.hosts[number].ip(&["link", "set", "m0", "down"]);
        pair.halves[number].works("b0", &[]);
        std::thread::sleep(Duration::from_millis(300));
        for (guest, probe) in probes.iter_mut().enumerate() {
            let pulled = probe.stretch();
            eprintln!("cable of half {number} pulled, guest {guest}: {pulled:?}");
            assert_eq!(pulled.doubled, 0, "guest {guest}: {pulled:?}");
            probe.recovers();
        }
        assert_eq!(pair.halves[number].bond("b0")["state"], "up", "the far half carries it");
        pair.all_reach();
        pair.hosts[number].ip(&["link", "set", "m0", "up"]);
        pair.whole();
        pair.all_reach();
    }
}

#[test]
fn the_death_of_a_half_leaves_the_other_working() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let mut pair = pair(&lab);
    pair.all_reach();
    for number in [0, 1] {
        let other = 1 - number;
        let mut probe = Probe::at_rate(&pair.out, &pair.guests[other], GUESTS[other], 1, 500);
        pair.halves[number].crash();
        // A host that dies takes its links down with it.
        pair.hosts[number].ip(&["link", "set", "m0", "down"]);
        std::thread::sleep(Duration::from_millis(1500));
        let died = probe.stretch();
        eprintln!("half {number} died, guest of the other: {died:?}");
        assert_eq!(died.doubled, 0, "{died:?}");
        probe.recovers();
        pair.halves[other].works("b0", &["m0"]);
        let events = pair.halves[other].events("bond.peer-down");
        assert!(!events.is_empty(), "{:?}", pair.halves[other].json(&["events"]));
        // It comes back into traffic.
        pair.hosts[number].ip(&["link", "set", "m0", "up"]);
        pair.halves[number].restart();
        pair.whole();
        let back = probe.stretch();
        eprintln!("half {number} came back: {back:?}");
        assert_eq!(back.doubled, 0, "{back:?}");
        drop(probe);
        // Its tap is a new one, if the old one went with it.
        let address = format!("{}/24", GUESTS[number]);
        pair.guests[number].attempt(&["ip", "address", "add", &address, "dev", "eth0"]);
        pair.guests[number].ip(&["link", "set", "eth0", "up"]);
        pair.all_reach();
    }
}

/// The dead half's links stay up: only silence tells of its death.
#[test]
fn a_half_that_falls_silent_is_given_up() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let mut pair = pair(&lab);
    pair.all_reach();
    let mut probe = Probe::at_rate(&pair.out, &pair.guests[1], GUESTS[1], 4, 500);
    pair.halves[0].crash();
    std::thread::sleep(Duration::from_millis(4500));
    let died = probe.stretch();
    eprintln!("half 0 fell silent: {died:?}");
    // The rack switch no longer sends to the dead half.
    probe.recovers();
    pair.halves[0].restart();
    pair.whole();
    let back = probe.stretch();
    assert_eq!(back.doubled, 0, "{back:?}");
}
