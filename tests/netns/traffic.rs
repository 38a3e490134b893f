//! What passes between guests, the outside and the host, and what does not.

use std::time::Duration;
use switchd_tests::frames::{BROADCAST, EXPERIMENTAL, ethernet, mac, marked};
use switchd_tests::{Daemon, Lab, Setup, Sniffer, eventually, full};

#[test]
fn guests_on_a_bridged_network_reach_each_other_and_the_lan() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    b.reaches("10.1.0.254");
    lan.reaches("10.1.0.1");
    for (client, server, address) in
        [(&a, &b, "10.1.0.2"), (&b, &a, "10.1.0.1"), (&a, &lan, "10.1.0.254"), (&lan, &b, "10.1.0.2")]
    {
        let rate = client.tcp(server, address, 1, &[]);
        assert!(rate > 100e6, "{} to {address}: {rate} bit/s", client.name());
    }
    let uplink = switch.port("uplink:up0");
    assert_eq!(uplink["state"], "up", "{uplink}");
    assert!(switch.count("a", "rx_frames") > 100 && switch.count("uplink:up0", "tx_frames") > 100);
}

#[test]
fn an_isolated_network_leaks_nothing() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan) = (lab.space("host"), lab.space("lan"));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| lab.space(name));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    host.address("up0", "10.1.0.200/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    switch.guest("office", "c", &c, "10.1.0.3/24");
    switch.guest("office", "d", &d, "10.1.0.4/24");
    let outside =
        [(&lan, "eth0"), (&c, "eth0"), (&host, "up0")].map(|(space, name)| Sniffer::start(space, name));
    a.reaches("10.1.0.2");
    c.reaches("10.1.0.254");
    for target in ["10.1.0.3", "10.1.0.254", "10.1.0.200"] {
        a.does_not_reach(target);
    }
    d.does_not_reach("10.1.0.1");
    a.send(
        "eth0",
        &[
            marked(&BROADCAST, &mac(1), &[], "leak?"),
            marked(&mac(77), &mac(1), &[], "leak?"),
            marked(&mac(77), &mac(1), &[5], "leak?"),
            marked(&[1, 0, 0x5e, 0, 0, 9], &mac(1), &[], "leak?"),
        ],
    );
    assert!(a.tcp(&b, "10.1.0.2", 1, &[]) > 100e6);
    for sniffer in &outside {
        assert_eq!(sniffer.with("leak?"), Vec::<Vec<u8>>::new(), "the isolated network leaks");
        let guest = [a.mac("eth0"), b.mac("eth0")].map(|text| hex(&text));
        let own = |frame: &Vec<u8>| guest.iter().any(|mac| frame.get(6..12) == Some(&mac[..]));
        assert_eq!(sniffer.frames().into_iter().find(own), None, "a frame of an isolated guest is outside");
    }
}

fn hex(mac: &str) -> Vec<u8> {
    mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a MAC address")).collect()
}

#[test]
fn the_host_keeps_its_address_on_an_uplink() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan, a) = (lab.space("host"), lab.space("lan"), lab.space("a"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    host.address("up0", "10.1.0.200/24");
    lan.address("eth0", "10.1.0.254/24");
    lan.reaches("10.1.0.200");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    a.reaches("10.1.0.254");
    lan.reaches("10.1.0.200");
    assert!(lan.tcp(&host, "10.1.0.200", 1, &[]) > 100e6, "the host's own TCP suffers");
    // The host's frames are not the guests' business.
    let guest = Sniffer::start(&a, "eth0");
    assert_eq!(lan.pings("10.1.0.200", 20, "0.02").lost(), 0);
    let seen = guest.frames().into_iter().filter(|frame| frame[..6] == hex(&host.mac("up0"))[..]).count();
    assert_eq!(seen, 0, "the host's frames flood to a guest");
    // Where the host wants to talk to guests, it is a guest.
    switch.do_("port attach office self --tap self0");
    host.ip(&["address", "del", "10.1.0.200/24", "dev", "up0"]);
    host.address("self0", "10.1.0.201/24");
    a.reaches("10.1.0.201");
    host.ip(&["address", "del", "10.1.0.201/24", "dev", "self0"]);
    drop(switch);
    host.address("up0", "10.1.0.200/24");
    lan.reaches("10.1.0.200");
}

#[test]
fn a_veth_port_keeps_the_hosts_stack_off() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "va"), (&a, "eth0"));
    host.address("va", "10.1.0.200/24");
    a.address("eth0", "10.1.0.1/24");
    a.reaches("10.1.0.200");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.do_("port attach cell a --netdev va");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    a.does_not_reach("10.1.0.200");
    assert!(a.tcp(&b, "10.1.0.2", 1, &[]) > 50e6 && b.tcp(&a, "10.1.0.1", 1, &[]) > 50e6);
    switch.do_("port detach a");
    a.reaches("10.1.0.200");
}

#[test]
fn frames_arrive_byte_for_byte() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "");
    switch.guest("cell", "b", &b, "");
    a.ip(&["link", "set", "eth0", "up"]);
    b.ip(&["link", "set", "eth0", "up"]);
    switch.wait_port("b", "up");
    let listener = Sniffer::start(&b, "eth0");
    let mut frames = Vec::new();
    for length in [14, 15, 59, 60, 61, 255, 256, 257, 300, 1000, 1513, 1514] {
        let mut frame = ethernet(&mac(2), &mac(1), &[], EXPERIMENTAL, format!("bytes {length} ").as_bytes());
        frame.resize(length, 0);
        let old = frame.len().min(28);
        (old..length).for_each(|at| frame[at] = (at * 7) as u8);
        frames.push(frame);
    }
    a.send("eth0", &frames);
    let arrived = eventually(Duration::from_secs(5), || {
        let arrived: Vec<_> = listener.frames().into_iter().filter(|frame| frame[6..12] == mac(1)).collect();
        if arrived.len() >= frames.len() { Ok(arrived) } else { Err(format!("{} arrived", arrived.len())) }
    });
    assert_eq!(arrived, frames);
}

#[test]
fn what_a_bridge_never_forwards_is_counted_by_reason() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "");
    switch.guest("cell", "b", &b, "");
    a.ip(&["link", "set", "eth0", "mtu", "9000", "up"]);
    b.ip(&["link", "set", "eth0", "up"]);
    switch.wait_port("a", "up");
    let listener = Sniffer::start(&b, "eth0");
    let reserved = |last: u8| marked(&[0x01, 0x80, 0xc2, 0, 0, last], &mac(1), &[], "never");
    a.send("eth0", &(0..16).map(reserved).collect::<Vec<_>>());
    a.send(
        "eth0",
        &[marked(&BROADCAST, &[3, 0, 0, 0, 0, 1], &[], "never"), marked(&BROADCAST, &[0; 6], &[], "never")],
    );
    a.send(
        "eth0",
        &[marked(&BROADCAST, &mac(1), &[4095], "never"), marked(&BROADCAST, &mac(1), &[0x2fff], "never")],
    );
    a.send(
        "eth0",
        &[ethernet(&BROADCAST, &mac(1), &[], EXPERIMENTAL, &[b"never".to_vec(), vec![1; 1496]].concat())],
    );
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "always"), reserved(0x10)]);
    listener.expect("always", 1);
    let never = listener.expect("never", 1);
    assert_eq!(never, [reserved(0x10)], "only the group above the reserved ones is forwarded");
    for (reason, frames) in [("reserved-group", 16), ("bad-source", 2), ("reserved-vid", 2), ("too-long", 1)]
    {
        assert_eq!(switch.count("a", &format!("in {reason}")), frames, "{reason}");
    }
    let drops = switch.json(&["drops", "a"]);
    let row = |reason: &str| {
        drops.as_array().and_then(|rows| rows.iter().find(|row| row["reason"] == reason)).cloned()
    };
    assert_eq!(row("reserved-group").expect("a row")["frames"], 16, "{drops}");
    assert_eq!(row("bad-source").expect("a row")["direction"], "in");
    // A reflected address and a lonely guest.
    a.send("eth0", &[marked(&mac(1), &mac(1), &[], "never")]);
    eventually(Duration::from_secs(2), || match switch.count("a", "in same-port") {
        1 => Ok(()),
        count => Err(format!("{count} same-port")),
    });
}

/// From a tap and from a veth alike: what is shorter than a header the kernel itself refuses, what is longer than
/// the network allows is dropped and counted, however long, and others do not notice.
#[test]
fn frames_of_any_length_pass_or_are_counted() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, v, b, c) =
        (lab.space("host"), lab.space("a"), lab.space("v"), lab.space("b"), lab.space("c"));
    lab.wire((&host, "veth"), (&v, "eth0"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    for (port, space, address) in [("a", &a, ""), ("b", &b, "10.1.0.2/24"), ("c", &c, "10.1.0.3/24")] {
        switch.guest("cell", port, space, address);
    }
    switch.do_("port attach cell v --netdev veth");
    // Their own ends let through what the switch has to refuse.
    a.ip(&["link", "set", "eth0", "mtu", "65521", "up"]);
    v.ip(&["link", "set", "eth0", "mtu", "65535"]);
    host.ip(&["link", "set", "veth", "mtu", "65535"]);
    b.reaches("10.1.0.3");
    let pings = b.background(&["ping", "-n", "-q", "-i", "0.01", "10.1.0.3"]);
    let good = [14, 15, 17, 18, 59, 60, 1500, 1514];
    let long = [1515, 1518, 1519, 2000, 9014, 9230, 9231, 9300, 16000, 60000];
    for (number, (port, space)) in [("a", &a), ("v", &v)].into_iter().enumerate() {
        switch.wait_port(port, "up");
        let listener = Sniffer::start(&b, "eth0");
        let number = number as u32 + 1;
        let sized = |&length: &usize| {
            let mut frame = ethernet(&BROADCAST, &mac(number), &[], EXPERIMENTAL, b"sized");
            frame.resize(length, 0xa5);
            frame
        };
        let mut frames: Vec<_> = good.iter().chain(&long).map(sized).collect();
        // Runts that tell more than they bring: no tag, half a tag. A veth's receiving kernel drops them itself.
        let runts = if port == "a" { 2 } else { 0 };
        let runt = ethernet(&BROADCAST, &mac(number), &[], 0x8100, &[]);
        frames.extend([runt[..14].to_vec(), runt[..17].to_vec()]);
        space.send("eth0", &frames);
        let passed = eventually(Duration::from_secs(5), || {
            let passed: Vec<_> =
                listener.frames().into_iter().filter(|frame| frame[6..12] == mac(number)).collect();
            if passed.len() >= good.len() { Ok(passed) } else { Err(format!("{} passed", passed.len())) }
        });
        assert_eq!(passed.iter().map(Vec::len).collect::<Vec<_>>(), good, "{port}");
        assert!(passed == frames[..good.len()], "{port}: other bytes arrived");
        eventually(Duration::from_secs(5), || {
            let counts = ["too-long", "runt"].map(|reason| switch.count(port, &format!("in {reason}")));
            if counts == [long.len() as u64, runts] { Ok(()) } else { Err(format!("{port}: {counts:?}")) }
        });
        assert_eq!(switch.count(port, "rx_frames"), (good.len() + long.len()) as u64 + runts, "{port}");
    }
    pings.signal(nix::sys::signal::Signal::SIGINT);
    let ping =
        switchd_tests::peers::Ping::parse(&pings.finish(Duration::from_secs(10)).text()).expect("pings");
    assert!(ping.sent > 10 && ping.lost() <= 1, "others suffer: {ping:?}");
    switch.assert_accounting();
}

#[test]
fn jumbo_frames_pass_where_the_network_allows_them() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    for (space, name) in [(&host, "up0"), (&lan, "eth0")] {
        space.ip(&["link", "set", name, "mtu", "9000"]);
    }
    lan.address("eth0", "10.1.0.254/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0 --mtu 9000");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    assert_eq!(a.link("eth0")["mtu"], 9000, "a tap follows its network");
    a.reaches("10.1.0.2");
    for target in ["10.1.0.2", "10.1.0.254"] {
        a.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-M", "do", "-s", "8972", target]);
    }
    assert!(a.tcp(&b, "10.1.0.2", 1, &[]) > 100e6);
    switch.do_("network set office mtu=1500");
    assert_eq!(a.link("eth0")["mtu"], 1500);
    a.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.05", "-M", "do", "-s", "1472", "10.1.0.2"]);
    a.attempt(&["ping", "-n", "-q", "-c", "1", "-W", "1", "-M", "do", "-s", "1473", "10.1.0.2"])
        .fails(1, &[]);
    switch.ctl(&["network", "set", "office", "mtu=9217"]).fails(1, &["9217", "9216"]);
    switch.ctl(&["network", "set", "office", "mtu=67"]).fails(1, &["67", "68"]);
}

#[test]
fn offloads_may_be_off_at_either_end() {
    let Some(lab) = Lab::open(&["iperf3", "ethtool"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    a.reaches("10.1.0.254");
    for (on, off) in [(&a, &b), (&b, &a)] {
        off.run(&["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
        for (client, server, address) in
            [(&a, &b, "10.1.0.2"), (&b, &a, "10.1.0.1"), (&a, &lan, "10.1.0.254"), (&lan, &a, "10.1.0.1")]
        {
            let rate = client.tcp(server, address, 1, &[]);
            assert!(rate > 50e6, "{} to {address}, offloads off at {}: {rate}", client.name(), off.name());
            assert!(
                client.tcp(server, address, 1, &["-u", "-b", "50M", "-l", "1400"]) > 40e6,
                "UDP to {address}"
            );
        }
        off.run(&["ethtool", "-K", "eth0", "tx", "on", "tso", "on", "gso", "on", "gro", "on"]);
        on.reaches("10.1.0.254");
    }
}

#[test]
fn ipv6_and_its_offloads_pass() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    for (space, address) in [(&a, "fd01::1/64"), (&b, "fd01::2/64"), (&lan, "fd01::fe/64")] {
        space.run(&["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
        space.ip(&["-6", "address", "add", address, "dev", "eth0", "nodad"]);
    }
    a.reaches("fd01::2");
    a.reaches("fd01::fe");
    for (client, server, address) in [(&a, &b, "fd01::2"), (&a, &lan, "fd01::fe"), (&lan, &b, "fd01::2")] {
        assert!(client.tcp(server, address, 1, &["-6"]) > 100e6, "TCP to {address}");
    }
}

#[test]
fn several_workers_share_the_networks() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan) = (lab.space("host"), lab.space("lan"));
    let count: usize = if full() { 40 } else { 4 };
    let guests: Vec<_> = (0..2 * count).map(|number| lab.space(&format!("g{number}"))).collect();
    lab.wire((&host, "up0"), (&lan, "eth0"));
    let switch = Setup::new(&lab, &host, "switchd").with(&["--workers", "2"]).start();
    for network in 0..count {
        switch.do_(&format!("network create n{network} --kind isolated"));
        for side in 0..2 {
            let number = network * 2 + side;
            let address = format!("10.{network}.0.{}/24", side + 1);
            switch.guest(&format!("n{network}"), &format!("g{number}"), &guests[number], &address);
        }
    }
    for network in 0..count {
        guests[network * 2].reaches(&format!("10.{network}.0.2"));
    }
    let networks = switch.json(&["network", "list"]);
    let workers: std::collections::BTreeSet<_> =
        networks.as_array().expect("a list").iter().map(|network| network["worker"].as_u64()).collect();
    assert_eq!(workers.len(), 2, "networks on two workers: {networks}");
    // Networks that now share an uplink come together on one worker, with their traffic.
    for network in 0..count {
        switch.do_(&format!("network create b{network} --kind bridged --uplink up0 --vlan {}", 10 + network));
    }
    let networks = switch.json(&["network", "list"]);
    let bridged = networks.as_array().expect("a list").iter().filter(|network| network["kind"] == "bridged");
    let workers: std::collections::BTreeSet<_> = bridged.map(|network| network["worker"].as_u64()).collect();
    assert_eq!(workers.len(), 1, "networks of one uplink share a worker: {networks}");
    for network in 0..count {
        assert_eq!(guests[network * 2].pings(&format!("10.{network}.0.2"), 20, "0.01").lost(), 0);
    }
}
