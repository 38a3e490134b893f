//! VLANs: access, trunk, native, transparent, and networks that share an uplink.

use switchd_tests::frames::{BROADCAST, mac, marked};
use switchd_tests::{Daemon, Lab, Setup, Sniffer, Space};

fn quiet(space: &Space) {
    space.ip(&["link", "set", "eth0", "up"]);
}

#[test]
fn tagged_tcp_goes_access_to_trunk_to_access() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, other) = (lab.space("host"), lab.space("other"));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| lab.space(name));
    lab.wire((&host, "t0"), (&other, "t0"));
    let one = Setup::new(&lab, &host, "one").start();
    let two = Setup::new(&lab, &other, "two").start();
    for (switch, ten, twenty) in [(&one, &a, &b), (&two, &c, &d)] {
        switch.do_("network create lab --kind isolated");
        for (port, space, vlan) in [("ten", ten, "access=10"), ("twenty", twenty, "access=20")] {
            switch.do_(&format!("port attach lab {port} --tap eth0 --netns {} --vlan {vlan}", space.name()));
        }
        switch.do_("port attach lab trunk --netdev t0 --vlan trunk=10,20");
    }
    for (space, address) in
        [(&a, "10.1.0.1/24"), (&b, "10.1.0.2/24"), (&c, "10.1.0.3/24"), (&d, "10.1.0.4/24")]
    {
        space.address("eth0", address);
    }
    a.reaches("10.1.0.3");
    b.reaches("10.1.0.4");
    a.does_not_reach("10.1.0.2");
    a.does_not_reach("10.1.0.4");
    assert!(a.tcp(&c, "10.1.0.3", 2, &[]) > 50e6, "superframes in a tag over a port that cuts them");
    assert!(d.tcp(&b, "10.1.0.2", 2, &[]) > 50e6);
    // On the wire between the switches all is tagged.
    let wire = Sniffer::start(&other, "t0");
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "on the wire")]);
    let seen = wire.expect("on the wire", 1);
    assert_eq!(seen[0][12..16], [0x81, 0, 0, 10]);
    assert!(one.count("trunk", "tx_frames") > 0);
    one.assert_accounting();
}

#[test]
fn transparent_ports_pass_tags_unchanged() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    for (port, space) in [("a", &a), ("b", &b)] {
        switch.guest("lab", port, space, "");
        quiet(space);
    }
    switch.wait_port("b", "up");
    let listener = Sniffer::start(&b, "eth0");
    let frames = [
        marked(&BROADCAST, &mac(1), &[77], "tag 1"),
        marked(&BROADCAST, &mac(1), &[0x2000 | 77], "tag 2"),
        marked(&BROADCAST, &mac(1), &[0xa000], "tag 3"),
        marked(&BROADCAST, &mac(1), &[77, 88], "tag 4"),
        marked(&BROADCAST, &mac(1), &[4094], "tag 5"),
    ];
    a.send("eth0", &frames);
    assert_eq!(listener.expect("tag", frames.len()), frames);
}

#[test]
fn networks_that_share_an_uplink_do_not_leak() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, far) = (lab.space("host"), lab.space("far"));
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| lab.space(name));
    lab.wire((&host, "up0"), (&far, "up0"));
    let here = Setup::new(&lab, &host, "here").start();
    let there = Setup::new(&lab, &far, "there").start();
    for switch in [&here, &there] {
        switch.do_("network create red --kind bridged --uplink up0 --vlan 100");
        switch.do_("network create blue --kind bridged --uplink up0 --vlan 200");
    }
    here.do_("network create plain --kind bridged --uplink up0");
    here.guest("red", "a", &a, "10.1.0.1/24");
    here.guest("blue", "b", &b, "10.1.0.2/24");
    here.guest("plain", "e", &e, "10.1.0.5/24");
    there.guest("red", "c", &c, "10.1.0.3/24");
    there.guest("blue", "d", &d, "10.1.0.4/24");
    a.reaches("10.1.0.3");
    b.reaches("10.1.0.4");
    assert!(a.tcp(&c, "10.1.0.3", 1, &[]) > 50e6 && d.tcp(&b, "10.1.0.2", 1, &[]) > 50e6);
    for target in ["10.1.0.2", "10.1.0.4", "10.1.0.5"] {
        a.does_not_reach(target);
    }
    e.does_not_reach("10.1.0.3");
    let listeners = [&b, &c, &d, &e].map(|space| Sniffer::start(space, "eth0"));
    let wire = Sniffer::start(&far, "up0");
    // Red's own, an inner tag with blue's VLAN, and plain's attempt at red.
    a.send(
        "eth0",
        &[marked(&BROADCAST, &mac(1), &[], "from red"), marked(&BROADCAST, &mac(1), &[200], "inner")],
    );
    e.send(
        "eth0",
        &[marked(&BROADCAST, &mac(5), &[100], "forged"), marked(&BROADCAST, &mac(5), &[0, 100], "forged")],
    );
    e.send("eth0", &[marked(&BROADCAST, &mac(5), &[300], "unclaimed")]);
    let [at_b, at_c, at_d, at_e] = &listeners;
    assert_eq!(at_c.expect("from red", 1), [marked(&BROADCAST, &mac(1), &[], "from red")]);
    assert_eq!(at_c.expect("inner", 1), [marked(&BROADCAST, &mac(1), &[200], "inner")]);
    assert_eq!(wire.expect("unclaimed", 1).len(), 1);
    for stranger in [at_b, at_d, at_e] {
        assert!(stranger.with("from red").is_empty() && stranger.with("inner").is_empty(), "red leaks");
    }
    assert!(at_c.with("forged").is_empty() && wire.with("forged").is_empty(), "plain speaks in red's VLAN");
    assert_eq!(here.count("uplink:up0", "out vlan-claimed"), 2);
    assert!(there.count("uplink:up0", "in no-network") >= 1, "nobody takes VLAN 300 there");
    here.ctl(&["network", "create", "again", "--kind", "bridged", "--uplink", "up0", "--vlan", "100"])
        .fails(4, &["100", "red"]);
    here.ctl(&["network", "create", "again", "--kind", "bridged", "--uplink", "up0"])
        .fails(4, &["up0", "plain"]);
    drop(wire);
}

#[test]
fn native_and_priority_tags_follow_the_ports_vlan() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.space(name));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    for (port, space, vlan) in
        [("a", &a, "access=10"), ("b", &b, "trunk=10,20,native=1"), ("c", &c, "access=1")]
    {
        switch.do_(&format!("port attach lab {port} --tap eth0 --netns {} --vlan {vlan}", space.name()));
        quiet(space);
    }
    switch.wait_port("c", "up");
    let [at_a, at_b, at_c] = [&a, &b, &c].map(|space| Sniffer::start(space, "eth0"));
    b.send("eth0", &[marked(&BROADCAST, &mac(2), &[], "native"), marked(&BROADCAST, &mac(2), &[10], "ten")]);
    b.send(
        "eth0",
        &[marked(&BROADCAST, &mac(2), &[0xc000], "priority"), marked(&BROADCAST, &mac(2), &[30], "foreign")],
    );
    a.send(
        "eth0",
        &[marked(&BROADCAST, &mac(1), &[20], "wrong"), marked(&BROADCAST, &mac(1), &[0xc000], "urgent")],
    );
    assert_eq!(at_c.expect("native", 1), [marked(&BROADCAST, &mac(2), &[], "native")]);
    at_c.expect("priority", 1);
    assert_eq!(at_a.expect("ten", 1)[0][12..14], [0x88, 0xb5], "untagged at an access port");
    assert_eq!(at_b.expect("urgent", 1)[0][12..16], [0x81, 0, 0xc0, 10], "the priority stays");
    for sniffer in [&at_a, &at_c] {
        assert!(sniffer.with("foreign").is_empty() && sniffer.with("wrong").is_empty());
    }
    assert!(at_a.with("native").is_empty() && at_b.with("wrong").is_empty());
    assert_eq!(switch.count("a", "in vlan-not-member"), 1);
    assert_eq!(switch.count("b", "in vlan-not-member"), 1);
    // A change of the VLAN takes effect at once.
    switch.do_("port set c vlan=access=10");
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "after")]);
    at_c.expect("after", 1);
    for bad in ["access=0", "access=4095", "trunk=", "trunk=10,native", "acces=1", "access=ten"] {
        switch.ctl(&["port", "set", "c", &format!("vlan={bad}")]).fails(1, &["vlan"]);
    }
}
