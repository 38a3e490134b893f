//! Link aggregation with Open vSwitch: negotiation, what passes, and where a bond can stand.

use std::time::{Duration, Instant};
use switchd_tests::links::{FAST, OUT, plain};
use switchd_tests::{Daemon, Lab, eventually};

/// Negotiates, with these settings at the rack switch and here, and lets traffic pass.
fn negotiates(rack_settings: &[&str], flags: &str) {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "iperf3"]) else { return };
    let mut settings = vec!["bond_mode=balance-tcp"];
    settings.extend(rack_settings);
    let rack = lab.rack(&settings);
    let switch = Daemon::start(&lab, &rack.host);
    let begun = Instant::now();
    switch.do_(&format!("bond create b0 --members m0,m1 --mode lacp {flags}"));
    let took = eventually(Duration::from_secs(20), || match switch.working("b0").len() {
        2 => Ok(begun.elapsed()),
        _ => Err(switch.bond("b0").to_string()),
    });
    eprintln!("negotiated with {rack_settings:?} {flags:?} in {took:?}");
    assert!(took < Duration::from_secs(6), "negotiated in {took:?}");
    rack.ovs.negotiated(&["p0", "p1"]);
    // Both ends tell the same of each other.
    let bond = switch.bond("b0");
    let theirs = rack.ovs.members();
    for (member, far) in [("m0", "p0"), ("m1", "p1")] {
        assert_eq!(theirs[far].fields["partner sys_id"], bond["actor_system"]["system"], "{bond}");
        assert_eq!(theirs[far].fields["actor sys_id"], bond["partner_system"]["system"], "{bond}");
        assert_eq!(theirs[far].fields["partner key"], bond["actor_system"]["key"].to_string(), "{bond}");
        assert_eq!(theirs[far].fields["actor key"], bond["partner_system"]["key"].to_string(), "{bond}");
        let link = switch.member("b0", member);
        assert_eq!(link["machines"]["mux"], "DISTRIBUTING", "{link}");
        assert_eq!(link["machines"]["receive"], "CURRENT", "{link}");
        let active = theirs[far].partner.contains("activity");
        assert_eq!(active, !flags.contains("passive"), "{theirs:?}");
    }
    let a = lab.space("a");
    switch.do_("network create office --kind bridged --uplink b0");
    switch.guest("office", "a", &a, "10.9.0.1/24");
    a.reaches(OUT);
    // Both members carry of many flows; on a busy machine a second of them may be few frames.
    let before = ["m0", "m1"].map(|member| switch.member_count("b0", member, "tx_frames"));
    eventually(Duration::from_secs(60), || {
        let rates = [a.tcp(&rack.out, OUT, 1, &["-P", "8"]), rack.out.tcp(&a, "10.9.0.1", 1, &["-P", "8"])];
        let after = ["m0", "m1"].map(|member| switch.member_count("b0", member, "tx_frames"));
        let sent = [after[0] - before[0], after[1] - before[1]];
        match rates.iter().all(|rate| *rate > 0.0) && sent.iter().all(|sent| *sent > 50) {
            true => Ok(()),
            false => Err(format!("{rates:?} bit/s, {sent:?} frames by the members")),
        }
    });
}

#[test]
fn with_an_active_partner_that_asks_for_the_fast_rate() {
    negotiates(&["lacp=active", "other_config:lacp-time=fast"], "");
}

#[test]
fn with_an_active_partner_that_asks_for_the_slow_rate() {
    negotiates(&["lacp=active", "other_config:lacp-time=slow"], "--rate slow");
}

#[test]
fn with_a_passive_partner_at_the_fast_rate() {
    negotiates(&["lacp=passive", "other_config:lacp-time=fast"], "");
}

#[test]
fn with_a_passive_partner_at_the_slow_rate() {
    negotiates(&["lacp=passive", "other_config:lacp-time=slow"], "");
}

#[test]
fn passive_with_an_active_partner() {
    negotiates(&["lacp=active", "other_config:lacp-time=fast"], "--lacp passive");
}

#[test]
fn networks_on_vlans_and_an_egress_share_a_bond() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "iperf3"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    let (out10, out20) = (lab.space("out10"), lab.space("out20"));
    for (space, far, tag, address) in
        [(&out10, "o10", "tag=10", "10.10.0.2/24"), (&out20, "o20", "tag=20", "10.20.0.2/24")]
    {
        lab.wire((&rack.rack, far), (space, "eth0"));
        rack.ovs.port(far, &[tag]);
        space.address("eth0", address);
        plain(space, "eth0");
    }
    let (b, c) = (lab.space("b"), lab.space("c"));
    switch.do_("network create red --kind bridged --uplink b0 --vlan 10");
    switch.do_("network create blue --kind bridged --uplink b0 --vlan 20");
    switch.guest("red", "b", &b, "10.10.0.1/24");
    switch.guest("blue", "c", &c, "10.20.0.1/24");
    b.reaches("10.10.0.2");
    c.reaches("10.20.0.2");
    a.reaches(OUT);
    assert!(b.tcp(&out10, "10.10.0.2", 1, &["-P", "4"]) > 1e6);
    // Another network's addresses are not there.
    b.ip(&["address", "add", "10.20.0.77/24", "dev", "eth0"]);
    b.does_not_reach("10.20.0.2");
    // A NAT network leaves by the bond too, on the VLAN of none and on one of them.
    rack.out.ip(&["address", "add", "198.51.100.1/32", "dev", "lo"]);
    switch.do_(
        "network create lab --kind nat --subnet 10.7.0.0/24 --egress b0 --address 10.9.0.50/24 --gateway 10.9.0.2",
    );
    let d = lab.space("d");
    switch.nat_guest("lab", "d", &d, "10.7.0.20/24", "10.7.0.1");
    d.reaches("198.51.100.1");
    assert!(d.tcp(&rack.out, "198.51.100.1", 1, &["-P", "4"]) > 1e6);
    assert_eq!(rack.out.pings("10.9.0.50", 3, "0.05").lost(), 0, "the outside address answers");
    // One member goes: all of them go on.
    rack.host.ip(&["link", "set", "m1", "down"]);
    switch.works("b0", &["m0"]);
    for (guest, to) in [(&a, OUT), (&b, "10.10.0.2"), (&c, "10.20.0.2"), (&d, "198.51.100.1")] {
        guest.reaches(to);
    }
    let bond = switch.bond("b0");
    for network in ["office", "red", "blue", "lab"] {
        assert!(bond["networks"].to_string().contains(network), "{bond}");
    }
}
