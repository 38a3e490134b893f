//! NAT networks with an outside address of their own, on an uplink, a VLAN of it, a bond.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;
use switchd_tests::frames::{BROADCAST, ethernet};
use switchd_tests::internet::{LAB, PORT, SERVER};
use switchd_tests::{Background, Daemon, Internet, Lab, Setup, Sniffer, Space, eventually};

/// With servers outside.
fn begin(lab: &Lab) -> (Internet, Daemon, Space) {
    let mut internet = lab.internet();
    internet.start();
    let (switch, a) = internet.nat(lab, LAB);
    (internet, switch, a)
}

#[test]
fn guests_speak_as_the_outside_address() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch, a) = begin(&lab);
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    assert!(a.talk("udp", SERVER, PORT, &["3"]).lines().all(|line| line.starts_with("192.0.2.50 ")));
    assert_eq!(a.pings(SERVER, 10, "0.02").lost(), 0);
    assert_eq!(a.pings("10.7.0.1", 10, "0.02").lost(), 0, "the gateway answers");
    assert_eq!(internet.net.pings("192.0.2.50", 5, "0.05").lost(), 0, "the outside address answers");
    for more in [&[][..], &["-R"]] {
        assert!(a.tcp(&internet.net, "192.0.2.1", 1, more) > 100e6);
    }
    let words = a.talk("put", SERVER, PORT, &["3000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours, "what arrived is what was sent, and the answer came after the half-close");
    // The host goes on as before, and nothing of the inside is seen outside.
    assert!(internet.host.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "));
    let flows = switch.json(&["flow", "list", "lab"]);
    let icmp = flows.as_array().expect("a list").iter().filter(|flow| flow["protocol"] == "icmp").count();
    assert!(icmp >= 1, "{flows}");
    internet.net.ip(&["route", "add", "10.7.0.0/24", "via", "192.0.2.50"]);
    internet.net.does_not_reach("10.7.0.20");
}

#[test]
fn superframes_are_translated_whole() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch, a) = begin(&lab);
    let before = ["tx_frames", "tx_bytes"].map(|key| switch.count("egress:lab", key));
    let wire = Sniffer::start(&internet.net, "in0");
    a.tcp(&internet.net, "192.0.2.1", 1, &["-b", "300M"]);
    let whole = |frame: &&Vec<u8>| frame.len() > 20_000 && frame[26..30] == [192, 0, 2, 50];
    assert!(
        wire.frames().iter().filter(whole).count() > 10,
        "no frame of more than 20,000 bytes on the wire"
    );
    drop(wire);
    assert!(a.tcp(&internet.net, "192.0.2.1", 1, &["-R"]) > 100e6);
    let after = ["tx_frames", "tx_bytes"].map(|key| switch.count("egress:lab", key));
    assert!(after[1] - before[1] > 3000 * (after[0] - before[0]), "{before:?} {after:?}");
    assert_eq!(switch.count("uplink:up0", "tx_segments"), 0, "nothing is cut");
}

#[test]
fn pooling_is_paired() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut internet = lab.internet();
    internet.start();
    let (switch, a) = internet.nat(&lab, &format!("{LAB} --pool 192.0.2.60-192.0.2.62"));
    let more = ["b", "c", "d"].map(|name| lab.space(name));
    for (number, space) in more.iter().enumerate() {
        let name = ["b", "c", "d"][number];
        switch.nat_guest("lab", name, space, &format!("10.7.0.{}/24", 21 + number), "10.7.0.1");
        space.reaches(SERVER);
    }
    let mut seen = std::collections::BTreeSet::new();
    for space in [&a, &more[0], &more[1], &more[2]] {
        let own = space.talk("who", SERVER, PORT, &[]).split(' ').next().map(str::to_owned);
        for _ in 0..3 {
            assert_eq!(space.talk("who", SERVER, PORT, &[]).split(' ').next().map(str::to_owned), own);
            assert_eq!(space.talk("udp", SERVER, PORT, &["1"]).split(' ').next().map(str::to_owned), own);
        }
        seen.insert(own);
    }
    assert_eq!(seen.len(), 4, "four guests have four addresses: {seen:?}");
}

#[test]
fn forwards_and_floating_addresses_lead_in() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch, a) = begin(&lab);
    let b = lab.space("b");
    switch.nat_guest("lab", "b", &b, "10.7.0.21/24", "10.7.0.1");
    switch.do_("port set b reserve=10.7.0.21");
    switch.do_("forward add lab tcp/8080:10.7.0.20:80");
    switch.do_("forward add lab udp/9000-9009:10.7.0.20:7000");
    switch.do_("forward add lab tcp/9000-9009:10.7.0.20:7000");
    let _servers = [a.serve("10.7.0.20", 80), a.serve("10.7.0.20", 7000), a.serve("10.7.0.20", 7009)];
    let net = &internet.net;
    assert!(net.talk("who", "192.0.2.50", 8080, &[]).starts_with("192.0.2.1 "), "the client is seen");
    for port in [9000, 9009] {
        assert!(net.talk("who", "192.0.2.50", port, &[]).starts_with("192.0.2.1 "));
        assert!(
            net.talk("udp", "192.0.2.50", port, &["2"]).lines().all(|line| line.starts_with("192.0.2.1 "))
        );
    }
    let words = net.talk("put", "192.0.2.50", 8080, &["3000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours);
    let flows = switch.json(&["flow", "list", "lab"]);
    let forwarded: Vec<_> = flows
        .as_array()
        .expect("a list")
        .iter()
        .filter(|flow| flow["outside"].as_str().is_some_and(|outside| outside.starts_with("192.0.2.50:")))
        .collect();
    assert!(!forwarded.is_empty(), "{flows}");
    assert!(forwarded.iter().all(|flow| flow["port"] == "a"), "{flows}");
    // Taken: by a forward, by a range, by a floating address.
    switch.ctl(&["forward", "add", "lab", "tcp/8080:10.7.0.21:80"]).fails(4, &["8080"]);
    switch.ctl(&["forward", "add", "lab", "tcp/9005:10.7.0.21:80"]).fails(4, &["9005"]);
    switch.ctl(&["forward", "add", "lab", "tcp/65530-65540:10.7.0.21:80"]).fails(1, &["65530-65540"]);
    switch.do_("floating add lab 192.0.2.70 b");
    switch.ctl(&["floating", "add", "lab", "192.0.2.70", "a"]).fails(4, &["192.0.2.70"]);
    let _floating = b.serve("10.7.0.21", 7777);
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.70 "), "outwards by its own address");
    assert!(b.talk("udp", SERVER, PORT, &["1", "6000"]).starts_with("192.0.2.70 6000 "), "and its own port");
    assert!(net.talk("who", "192.0.2.70", 7777, &[]).starts_with("192.0.2.1 "), "and inwards");
    assert!(net.talk("udp", "192.0.2.70", 7777, &["1"]).starts_with("192.0.2.1 "));
    assert_eq!(net.pings("192.0.2.70", 3, "0.05").lost(), 0);
    let said = net.talk("connect", "192.0.2.70", 9, &[]);
    assert!(said.starts_with("ECONNREFUSED"), "its own stack refuses: {said}");
    switch.do_("floating delete 192.0.2.70");
    b.reaches(SERVER);
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    switch.do_("forward delete lab tcp/8080");
    assert_eq!(net.talk("connect", "192.0.2.50", 8080, &[]), "silence");
}

#[test]
fn one_guest_with_70_000_flows_leaves_its_neighbour_alone() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a) = begin(&lab);
    let b = lab.space("b");
    switch.nat_guest("lab", "b", &b, "10.7.0.21/24", "10.7.0.1");
    b.reaches(SERVER);
    switch.do_("network set lab flow-quota=5000");
    let flood = Background::start(&mut a.talk_command("flood", SERVER, 20000, &["70000"]));
    for _ in 0..5 {
        assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
        assert!(b.talk("udp", SERVER, PORT, &["1"]).starts_with("192.0.2.50 "));
        assert_eq!(b.pings(SERVER, 5, "0.02").lost(), 0);
    }
    flood.finish(Duration::from_secs(30)).ok();
    let network = switch.json(&["network", "show", "lab"]);
    let count = |key: &str| network["nat"]["translation"][key].as_u64().unwrap_or(0);
    assert!(network["nat"]["flows"].as_u64().is_some_and(|flows| (4990..6000).contains(&flows)), "{network}");
    assert!(count("nat-quota") > 10_000, "{network}");
    let told = switch.events("nat.").concat() + &switch.events("flow").concat();
    assert!(told.contains("quota") || told.contains("flows"), "{}", switch.json(&["events"]));
    assert_eq!(switch.json(&["flow", "list", "lab", "--limit", "50"]).as_array().map(Vec::len), Some(50));
}

#[test]
fn what_the_host_has_is_refused() {
    let Some(lab) = Lab::open(&[]) else { return };
    let internet = lab.internet();
    internet.host.ip(&["route", "add", "10.9.0.0/16", "via", "192.0.2.1"]);
    let switch = Daemon::start(&lab, &internet.host);
    let refused = |line: &str, code: i32, words: &[&str]| {
        let line = format!("network create lab --kind nat {line}");
        switch.ctl(&line.split_whitespace().collect::<Vec<_>>()).fails(code, words);
    };
    refused("--subnet 10.7.0.0/24 --egress up0 --address 192.0.2.100/24", 4, &["192.0.2.100", "up0"]);
    refused("--subnet 10.9.3.0/24 --egress host", 4, &["10.9.3.0/24", "10.9.0.0/16"]);
    refused("--subnet 192.0.2.0/25 --egress up0 --address 192.0.2.50/24", 4, &["192.0.2.0/2"]);
    switch.do_("network create one --kind nat --subnet 10.7.0.0/24 --egress up0 --address 192.0.2.50/24");
    refused("--subnet 10.7.0.128/25 --egress host", 4, &["10.7.0.128/25", "one"]);
    refused("--subnet 10.8.0.0/24 --egress up0 --address 192.0.2.50/24", 4, &["192.0.2.50", "one"]);
    refused("--subnet 10.8.0.0/24 --egress up0", 1, &["address"]);
    refused("--subnet 10.8.0.0/33 --egress host", 1, &["10.8.0.0/33"]);
    // What arises later is shown, and passes.
    internet.host.ip(&["address", "add", "192.0.2.50/32", "dev", "up0"]);
    eventually(Duration::from_secs(10), || match switch.json(&["status"])["troubles"].to_string() {
        text if text.contains("192.0.2.50") => Ok(()),
        text => Err(text),
    });
    internet.host.ip(&["address", "del", "192.0.2.50/32", "dev", "up0"]);
    eventually(Duration::from_secs(10), || match switch.json(&["status"])["troubles"].to_string() {
        text if text.contains("192.0.2.50") => Err(text),
        _ => Ok(()),
    });
}

#[test]
fn the_interfaces_own_mac_address_may_be_used() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut internet = lab.internet();
    internet.start();
    let (_switch, a) = internet.nat(&lab, &format!("{LAB} --mac host"));
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    let shown = internet.net.ip(&["neigh", "show", "192.0.2.50"]).text();
    assert!(shown.contains(&internet.host.mac("up0")), "{shown}");
    assert!(internet.host.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "), "the host goes on");
    assert_eq!(internet.net.pings("192.0.2.100", 5, "0.05").lost(), 0);
}

#[test]
fn two_nat_networks_and_a_bridged_one_share_an_uplink() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch, a) = begin(&lab);
    switch.do_("network create two --kind nat --subnet 10.8.0.0/24 --egress up0 --address 192.0.2.51/24 --gateway 192.0.2.1");
    switch.do_("network create office --kind bridged --uplink up0");
    let (b, c) = (lab.space("b"), lab.space("c"));
    switch.nat_guest("two", "b", &b, "10.8.0.20/24", "10.8.0.1");
    switch.guest("office", "c", &c, "192.0.2.30/24");
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    b.reaches(SERVER);
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.51 "));
    c.reaches("192.0.2.1");
    // By the bridged network, without leaving the host.
    a.reaches("192.0.2.30");
    assert!(a.tcp(&c, "192.0.2.30", 1, &[]) > 50e6);
    switch.do_("forward add lab tcp/8080:10.7.0.20:80");
    let _web = a.serve("10.7.0.20", 80);
    assert!(c.talk("who", "192.0.2.50", 8080, &[]).starts_with("192.0.2.30 "));
    assert!(b.talk("who", "192.0.2.50", 8080, &[]).starts_with("192.0.2.51 "), "from the other NAT network");
    b.does_not_reach("10.7.0.20");
    let names: Vec<_> = switch
        .json(&["network", "list"])
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    assert_eq!(names, ["lab", "office", "two"], "what we make for ourselves is not shown");
    // The bridged network goes, and the NAT networks stay.
    switch.do_("port detach c");
    switch.do_("network delete office");
    a.reaches(SERVER);
    b.reaches(SERVER);
    assert_eq!(internet.net.pings("192.0.2.51", 3, "0.05").lost(), 0);
}

/// A switch of another daemon outside, for what this kernel cannot do: VLANs, two links to one place.
/// The router `gw` has 192.0.2.1 on it, in a VLAN if one is given.
fn provider(lab: &Lab, net: &Space, links: &[&str], vlan: Option<u16>) -> (Daemon, Space) {
    let gw = lab.space("gw");
    let other = Setup::new(lab, net, "provider").start();
    other.do_("network create lan --kind isolated");
    let (tagged, access) = match vlan {
        Some(vid) => (format!(" --vlan trunk={vid}"), format!(" --vlan access={vid}")),
        None => Default::default(),
    };
    for link in links {
        other.do_(&format!("port attach lan {link} --netdev {link}{tagged}"));
    }
    other.do_(&format!("port attach lan gw --tap eth0 --netns {}{access}", gw.name()));
    gw.address("eth0", "192.0.2.1/24");
    (other, gw)
}

#[test]
fn the_outside_may_be_a_vlan_of_the_uplink() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, net, a) = (lab.space("host"), lab.space("net"), lab.space("a"));
    lab.wire((&host, "up0"), (&net, "in0"));
    let (_other, gw) = provider(&lab, &net, &["in0"], Some(30));
    let switch = Daemon::start(&lab, &host);
    switch.do_(&format!("{LAB} --vlan 30"));
    switch.nat_guest("lab", "a", &a, "10.7.0.20/24", "10.7.0.1");
    a.reaches("192.0.2.1");
    let _server = gw.serve("192.0.2.1", PORT);
    assert!(a.talk("who", "192.0.2.1", PORT, &[]).starts_with("192.0.2.50 "));
    assert!(a.tcp(&gw, "192.0.2.1", 1, &[]) > 20e6);
}

#[test]
fn the_outside_may_be_a_bond_whose_links_fail() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, net, a) = (lab.space("host"), lab.space("net"), lab.space("a"));
    lab.wire((&host, "up0"), (&net, "in0"));
    lab.wire((&host, "up1"), (&net, "in1"));
    let (_other, gw) = provider(&lab, &net, &["in0", "in1"], None);
    let switch = Daemon::start(&lab, &host);
    switch.do_("bond create bond0 --members up0,up1 --mode active-backup");
    switch.do_(&LAB.replace("up0", "bond0"));
    switch.nat_guest("lab", "a", &a, "10.7.0.20/24", "10.7.0.1");
    a.reaches("192.0.2.1");
    let _server = gw.serve("192.0.2.1", PORT);
    assert!(a.talk("who", "192.0.2.1", PORT, &[]).starts_with("192.0.2.50 "));
    assert!(a.tcp(&gw, "192.0.2.1", 1, &[]) > 20e6);
    for down in ["in0", "in1"] {
        net.ip(&["link", "set", down, "down"]);
        a.reaches("192.0.2.1");
        assert!(a.talk("who", "192.0.2.1", PORT, &[]).starts_with("192.0.2.50 "), "without {down}");
        net.ip(&["link", "set", down, "up"]);
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_dataplane_that_is_killed_is_back_with_its_networks() {
    let Some(lab) = Lab::open(&["udhcpc"]) else { return };
    let (_internet, switch, a) = begin(&lab);
    let b = lab.space("b");
    switch.guest("lab", "b", &b, "");
    b.ip(&["link", "set", "eth0", "up"]);
    b.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "2", "-s", "/bin/true"]);
    switch.do_("forward add lab tcp/8080:10.7.0.20:80");
    let before = switch.json(&["lease", "list", "lab"]);
    let pid = switch.dataplane_pid();
    switchd_tests::command::kill(pid, nix::sys::signal::Signal::SIGKILL);
    eventually(Duration::from_secs(5), || {
        let output = switch.ctl(&["status", "-o", "json"]);
        let text = output.text();
        if output.code == Some(0) && !text.contains(&format!("\"dataplane_pid\": {pid}")) {
            Ok(())
        } else {
            Err(text)
        }
    });
    a.reaches(SERVER);
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "), "new connections work");
    let _web = a.serve("10.7.0.20", 80);
    assert!(_internet.net.talk("who", "192.0.2.50", 8080, &[]).starts_with("192.0.2.1 "));
    let after = switch.json(&["lease", "list", "lab"]);
    let of = |list: &serde_json::Value| list[0]["address"].clone();
    assert_eq!(of(&before), of(&after), "{before} {after}");
}

#[test]
fn when_the_dataplane_was_killed_new_connections_work_at_once_and_old_ones_end() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a) = begin(&lab);
    let mut command = a.talk_command("many", SERVER, PORT, &["20"]);
    let mut old = Background::start(command.stdin(Stdio::piped()));
    let mut input = old.child().stdin.take().expect("its input");
    eventually(Duration::from_secs(20), || match old.stdout() {
        text if text.starts_with("20 ") || text.starts_with("20\n") => Ok(()),
        text => Err(format!("{text}{}", old.stderr())),
    });
    switchd_tests::command::kill(switch.dataplane_pid(), nix::sys::signal::Signal::SIGKILL);
    // The first try counts: what is sent while nobody reads the tap waits in it.
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "));
    assert!(a.talk("udp", SERVER, PORT, &["1"]).starts_with("192.0.2.50 "));
    // To the remote the old ones come from other ports now, and it knows of no such connections.
    let _ = input.write_all(b"\n");
    drop(input);
    let text = old.finish(Duration::from_secs(40)).text();
    let left = text.lines().nth(1).and_then(|line| line.parse::<usize>().ok());
    assert!(left.is_some_and(|left| left <= 1), "{text}");
}

#[test]
fn rfc4861_7_3_3_a_next_hop_that_changed_its_mac_without_a_word_is_found_again() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch, a) = begin(&lab);
    a.reaches(SERVER);
    let ours =
        switch.json(&["network", "show", "lab"])["nat"]["outside"]["mac"].as_str().expect("a MAC").to_owned();
    internet.net.ip(&["link", "set", "in0", "address", "02:11:22:33:44:55"]);
    // It does not need to ask for us, which would tell.
    internet.net.ip(&["neigh", "replace", "192.0.2.50", "lladdr", &ours, "dev", "in0", "nud", "permanent"]);
    // Far less than what RFC 4861's own constants give, with room for a slow machine.
    eventually(Duration::from_secs(20), || match a.pings(SERVER, 1, "1").received {
        0 => Err("still lost".into()),
        _ => Ok(()),
    });
}

#[test]
fn a_next_hop_that_moves_is_followed() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, _switch, a) = begin(&lab);
    internet.net.ip(&["link", "set", "in0", "down"]);
    internet.net.ip(&["link", "set", "in0", "address", "02:11:22:33:44:55"]);
    internet.net.ip(&["link", "set", "in0", "up"]);
    // As routers do that take over an address.
    let mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    let own = [&mac[..], &[192, 0, 2, 1]].concat();
    let announcement = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &[0; 6], &[192, 0, 2, 1]].concat();
    internet.net.send("in0", &[ethernet(&BROADCAST, &mac, &[], 0x0806, &announcement)]);
    a.reaches(SERVER);
}
