//! Devices, namespaces and processes that come and go underneath.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;
use switchd_tests::command::{alive, kill};
use switchd_tests::peers::Ping;
use switchd_tests::{Background, Daemon, Lab, Space, eventually};

const SOON: Duration = Duration::from_secs(10);

/// Echo requests that go on while something else is broken.
fn pinging(space: &Space, to: &str) -> Background {
    space.background(&["ping", "-n", "-q", "-i", "0.01", to])
}

fn none_lost(pings: Background) {
    pings.signal(Signal::SIGINT);
    let ping = Ping::parse(&pings.finish(SOON).text()).expect("ping's summary");
    // The last answer may be under way when ping is stopped.
    assert!(ping.sent > 10 && ping.lost() <= 1, "others suffer: {ping:?}");
}

/// A port that is down, with a reason that says this.
fn down_because(switch: &Daemon, port: &str, words: &[&str]) {
    eventually(SOON, || {
        let shown = switch.port(port);
        let reason = shown["reason"].as_str().unwrap_or_default().to_lowercase();
        if shown["state"] == "down" && words.iter().any(|word| reason.contains(word)) {
            return Ok(());
        }
        Err(format!("{shown} should be down because of {words:?}"))
    });
}

fn identity(space: &Space) -> (Value, Value, Value) {
    let link = space.link("eth0");
    let changes = space.run(&["cat", "/sys/class/net/eth0/carrier_changes"]).text();
    (link["ifindex"].clone(), link["address"].clone(), changes.trim().into())
}

#[test]
fn a_link_that_goes_and_comes_is_followed() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.254");
    for _ in 0..3 {
        lan.ip(&["link", "set", "eth0", "down"]);
        switch.wait_port("uplink:up0", "down");
        assert_eq!(a.pings("10.1.0.2", 5, "0.02").lost(), 0, "others suffer");
        lan.ip(&["link", "set", "eth0", "up"]);
        switch.wait_port("uplink:up0", "up");
        a.reaches("10.1.0.254");
    }
    // The interface itself is deleted, and made again.
    host.ip(&["link", "delete", "up0"]);
    down_because(&switch, "uplink:up0", &["up0"]);
    let troubles = switch.json(&["status"])["troubles"].clone();
    assert!(troubles.to_string().contains("up0"), "{troubles}");
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    switch.wait_port("uplink:up0", "up");
    // The new interface of the LAN has another address.
    a.ip(&["neigh", "flush", "all"]);
    a.reaches("10.1.0.254");
}

#[test]
fn a_deleted_tap_comes_back() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b, c) = (lab.space("host"), lab.space("a"), lab.space("b"), lab.space("c"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    for (port, space, address) in
        [("a", &a, "10.1.0.1/24"), ("b", &b, "10.1.0.2/24"), ("c", &c, "10.1.0.3/24")]
    {
        switch.guest("cell", port, space, address);
    }
    b.reaches("10.1.0.1");
    let old = a.mac("eth0");
    // Frames come out of it and go into it when it goes.
    let (others, own) = (pinging(&b, "10.1.0.3"), [pinging(&a, "10.1.0.2"), pinging(&c, "10.1.0.1")]);
    std::thread::sleep(Duration::from_millis(300));
    a.ip(&["link", "delete", "eth0"]);
    eventually(SOON, || if a.has("eth0") { Ok(()) } else { Err("no new tap".into()) });
    switch.wait_port("a", "up");
    assert_eq!(b.pings("10.1.0.3", 10, "0.02").lost(), 0, "others suffer");
    none_lost(others);
    drop(own);
    switch.assert_accounting();
    assert_eq!(a.mac("eth0"), old, "the address of a tap is stable");
    a.address("eth0", "10.1.0.1/24");
    b.reaches("10.1.0.1");
}

#[test]
fn a_deleted_namespace_is_reported_and_picked_up_again() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, b, c) = (lab.space("host"), lab.space("b"), lab.space("c"));
    let a = lab.space("a");
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    for (port, space, address) in
        [("a", &a, "10.1.0.1/24"), ("b", &b, "10.1.0.2/24"), ("c", &c, "10.1.0.3/24")]
    {
        switch.guest("cell", port, space, address);
    }
    b.reaches("10.1.0.1");
    let old = a.mac("eth0");
    let name = a.name().to_owned();
    let (others, own) = (pinging(&b, "10.1.0.3"), pinging(&c, "10.1.0.1"));
    std::thread::sleep(Duration::from_millis(300));
    a.delete();
    down_because(&switch, "a", &["namespace"]);
    assert_eq!(b.pings("10.1.0.3", 10, "0.02").lost(), 0, "others suffer");
    none_lost(others);
    drop(own);
    switch.ctl(&["status"]).ok();
    let a = lab.space("a");
    assert_eq!(a.name(), name);
    switch.wait_port("a", "up");
    assert_eq!(a.mac("eth0"), old);
    a.address("eth0", "10.1.0.1/24");
    b.reaches("10.1.0.1");
    // The same after a restart, when the tap is one that was re-attached.
    let mut switch = switch;
    switch.stop().ok();
    switch.restart();
    b.reaches("10.1.0.1");
    a.delete();
    down_because(&switch, "a", &["namespace"]);
    let a = lab.space("a");
    switch.wait_port("a", "up");
    a.address("eth0", "10.1.0.1/24");
    b.reaches("10.1.0.1");
    assert_eq!(b.pings("10.1.0.3", 10, "0.02").lost(), 0);
    switch.do_("port detach a");
    assert!(!a.has("eth0"), "a detached tap is deleted");
}

#[test]
fn a_tap_of_somebody_else_is_not_taken_over() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    // Persistent, and nobody holds its queue.
    for space in [&host, &a] {
        space.ip(&["tuntap", "add", "dev", "vm7", "mode", "tap"]);
    }
    let (in_host, in_guest) = (host.link("vm7"), a.link("vm7"));
    switch
        .ctl(&["port", "attach", "cell", "x", "--tap", "vm7"])
        .fails(1, &["vm7", "did not make", "ip link delete vm7"]);
    switch
        .ctl(&["port", "attach", "cell", "x", "--tap", "vm7", "--netns", a.name()])
        .fails(1, &["vm7", "did not make"]);
    switch.ctl(&["port", "show", "x"]).fails(3, &["x"]);
    assert_eq!((host.link("vm7"), a.link("vm7")), (in_host, in_guest), "it was touched");
    // One that takes the place of ours while we are away is told, and left alone; ours comes when it has gone.
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    a.reaches("10.1.0.2");
    switch.stop().ok();
    a.ip(&["link", "delete", "eth0"]);
    a.ip(&["tuntap", "add", "dev", "eth0", "mode", "tap"]);
    let foreign = a.mac("eth0");
    switch.restart();
    down_because(&switch, "a", &["did not make"]);
    assert_eq!(a.mac("eth0"), foreign);
    switch.wait_port("b", "up");
    a.ip(&["link", "delete", "eth0"]);
    switch.wait_port("a", "up");
    a.address("eth0", "10.1.0.1/24");
    a.reaches("10.1.0.2");
}

#[test]
fn interfaces_outlive_both_processes() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (host, lan, a, b) = (lab.space("host"), lab.space("lan"), lab.space("a"), lab.space("b"));
    lab.wire((&host, "up0"), (&lan, "eth0"));
    lan.address("eth0", "10.1.0.254/24");
    let mut switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.guest("office", "a", &a, "10.1.0.1/24");
    switch.guest("office", "b", &b, "10.1.0.2/24");
    switch.do_("mirror create all --source network:office --to pcap:all.pcapng");
    let config = switch.do_("export").text();
    for round in 0..2 {
        a.reaches("10.1.0.254");
        let before = [&a, &b].map(identity);
        if round == 0 {
            switch.crash();
        } else {
            switch.stop().ok();
        }
        for (space, address) in [(&a, "10.1.0.1"), (&b, "10.1.0.2")] {
            let shown = space.ip(&["address", "show", "dev", "eth0"]).text();
            assert!(shown.contains(address), "the interface of a guest lost its address: {shown}");
        }
        switch.restart();
        for port in ["a", "b", "uplink:up0"] {
            switch.wait_port(port, "up");
        }
        let after = [&a, &b].map(identity);
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((&before.0, &before.1), (&after.0, &after.1), "the same interface, the same address");
        }
        assert_eq!(switch.do_("export").text(), config, "the same configuration");
        assert_eq!(switch.mirror("all")["state"], "running");
        a.reaches("10.1.0.2");
    }
    assert!(a.tcp(&b, "10.1.0.2", 1, &[]) > 50e6);
}

#[test]
fn the_dataplane_ends_with_its_broker() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    let mut switch = Daemon::start(&lab, &host);
    let (broker, dataplane) = (switch.pid(), switch.dataplane_pid());
    kill(broker, Signal::SIGKILL);
    eventually(Duration::from_secs(3), || match alive(dataplane) {
        true => Err("the dataplane outlives its broker".into()),
        false => Ok(()),
    });
    switch.unchecked();
}

#[test]
fn the_dataplane_has_no_privileges() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a) = (lab.space("host"), lab.space("a"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    let status = switch.json(&["status"]);
    let sandbox = status["sandbox"].to_string();
    for part in ["uid", "capabilities", "seccomp", "landlock"] {
        assert!(sandbox.contains(part), "{part} is missing in {sandbox}");
    }
    let pid = status["dataplane_pid"].as_u64().expect("a pid");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_once(':').expect("a field").1.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(field("Uid").iter().all(|uid| uid != "0"), "it runs as root: {:?}", field("Uid"));
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        assert!(u64::from_str_radix(&field(set)[0], 16) == Ok(0), "{set} is {:?}", field(set));
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
}
