//! Loops and storms: what a guest can do to a network, and how long.

use std::time::{Duration, Instant};
use switchd_tests::frames::{BROADCAST, mac, marked};
use switchd_tests::links::plain;
use switchd_tests::{Daemon, Lab, Ovs, Probe, Space, eventually, holds_for};

/// A guest with two ports of the same network that bridges them.
fn looped(lab: &Lab, switch: &Daemon) -> Space {
    let guest = lab.space("loop");
    guest.ip(&["link", "add", "br0", "type", "bridge"]);
    for (port, tap) in [("l0", "eth0"), ("l1", "eth1")] {
        switch.ctl(&["port", "attach", "cell", port, "--tap", tap, "--netns", guest.name()]).ok();
        guest.ip(&["link", "set", tap, "master", "br0", "up"]);
    }
    guest
}

#[test]
fn a_loop_through_a_guest_is_cut_and_the_rest_goes_on() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    let guest = looped(&lab, &switch);
    a.reaches("10.1.0.2");
    let mut probe = Probe::start(&a, &b, "10.1.0.2", 1);
    let flooded = || ["l0", "l1"].iter().map(|port| switch.count(port, "flooded")).sum::<u64>();
    let shut = || -> Vec<&str> {
        let is_shut = |port: &&str| {
            let shown = switch.port(port);
            shown["state"] == "down" && shown["reason"].as_str().is_some_and(|text| text.contains("loop"))
        };
        ["l0", "l1"].into_iter().filter(is_shut).collect()
    };
    guest.ip(&["link", "set", "br0", "up"]);
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "round and round")]);
    let begun = Instant::now();
    let port =
        eventually(Duration::from_secs(5), || shut().first().copied().ok_or("no port is shut".to_owned()));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "the loop lived {took:?}");
    // The storm has ended: nothing circulates any more.
    std::thread::sleep(Duration::from_millis(300));
    let count = flooded();
    std::thread::sleep(Duration::from_millis(500));
    let rest = flooded() - count;
    eprintln!("{port} shut after {took:?}; {count} frames were flooded, {rest} in half a second after that");
    assert!(rest < 200, "the storm goes on: {rest} frames");
    assert_eq!(shut(), [port], "one of the two is enough");
    let stormy = probe.stretch();
    eprintln!("meanwhile, between two others: {stormy:?}");
    probe.stretch();
    let calm = probe.stretch();
    assert_eq!((calm.lost, calm.doubled), (0, 0), "{calm:?}");
    let events = switch.events("port.shut");
    assert!(events.iter().any(|event| event.contains(port) && event.contains("loop")), "{events:?}");
    // It can be opened while the loop is there, and is shut again; without it, it stays open.
    switch.do_(&format!("port set {port} admin=up"));
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "again")]);
    eventually(Duration::from_secs(8), || {
        if shut().is_empty() { Err("not shut again") } else { Ok(()) }.map_err(str::to_owned)
    });
    guest.ip(&["link", "set", "br0", "down"]);
    for port in ["l0", "l1"] {
        switch.do_(&format!("port set {port} admin=up"));
        switch.wait_port(port, "up");
    }
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "calm")]);
    holds_for(Duration::from_secs(1), || if shut().is_empty() { Ok(()) } else { Err("shut".into()) });
}

/// A storm from one guest, with the loop guard out of the way.
#[test]
fn a_storm_is_capped_and_others_go_on() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    let guest = looped(&lab, &switch);
    for port in ["l0", "l1"] {
        switch.do_(&format!("port set {port} loop-guard=off storm-limit=1000"));
    }
    a.reaches("10.1.0.2");
    guest.ip(&["link", "set", "br0", "up"]);
    a.send("eth0", &[marked(&BROADCAST, &mac(1), &[], "round and round")]);
    // Frames of a loop that nothing else would end.
    eventually(Duration::from_secs(5), || {
        let cut: u64 = ["l0", "l1"].iter().map(|port| switch.count(port, "in storm")).sum();
        if cut > 0 { Ok(()) } else { Err("nothing is cut".into()) }
    });
    let before = ["l0", "l1"].map(|port| switch.count(port, "flooded"));
    let begun = Instant::now();
    assert_eq!(a.pings("10.1.0.2", 50, "0.02").lost(), 0, "others suffer");
    let seconds = begun.elapsed().as_secs_f64();
    for (port, before) in ["l0", "l1"].into_iter().zip(before) {
        let rate = (switch.count(port, "flooded") - before) as f64 / seconds;
        eprintln!("{port} floods {rate:.0} frames a second of 1,000");
        assert!(rate < 1600.0, "{port} floods {rate:.0} frames a second");
    }
    let events = switch.events("port.storm");
    assert!((1..=8).contains(&events.len()), "told once in ten seconds: {events:?}");
    guest.ip(&["link", "set", "br0", "down"]);
}

/// What a busy guest floods in a second, with all guards as they are by default.
#[test]
fn ten_thousand_broadcasts_a_second_are_no_storm() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    let frames: Vec<_> = (0..30_000).map(|_| marked(&BROADCAST, &mac(1), &[], "busy")).collect();
    let seen = || (Instant::now(), switch.count("a", "flooded"));
    let rates: Vec<f64> = std::thread::scope(|scope| {
        let sender = scope.spawn(|| a.send_paced("eth0", &frames, Duration::from_secs(1) / 12_000));
        let (mut last, mut rates) = (seen(), Vec::new());
        while !sender.is_finished() {
            std::thread::sleep(Duration::from_millis(500));
            let now = seen();
            rates.push((now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64());
            last = now;
        }
        rates
    });
    eprintln!("broadcasts a second, each half a second: {rates:.0?}");
    assert_eq!(switch.count("a", "in storm"), 0);
    assert_eq!(switch.port("a")["state"], "up");
    assert!(switch.count("a", "flooded") >= 30_000);
}

const BPDU: &str = r#"
sendp(Dot3(dst="01:80:c2:00:00:00", src="02:00:00:00:00:99")/LLC(dsap=0x42, ssap=0x42, ctrl=3)/STP(), iface="eth0")
"#;

#[test]
fn a_guest_that_speaks_spanning_tree_is_shut() {
    let Some(lab) = Lab::open(&["scapy"]) else { return };
    let (host, a, b) = (lab.space("host"), lab.space("a"), lab.space("b"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create cell --kind isolated");
    switch.guest("cell", "a", &a, "10.1.0.1/24");
    switch.guest("cell", "b", &b, "10.1.0.2/24");
    a.reaches("10.1.0.2");
    a.scapy(BPDU, &[]);
    let shown = switch.wait_port("a", "down");
    let reason = shown["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("BPDU"), "{shown}");
    a.does_not_reach("10.1.0.2");
    let events = switch.events("port.shut");
    assert!(events.iter().any(|event| event.contains("BPDU")), "{events:?}");
    switch.do_("port set a admin=up");
    switch.wait_port("a", "up");
    a.reaches("10.1.0.2");
    // Without the guard it is dropped and counted.
    switch.do_("port set a bpdu-guard=off");
    let dropped = switch.count("a", "in reserved-group");
    a.scapy(BPDU, &[]);
    eventually(Duration::from_secs(3), || match switch.count("a", "in reserved-group") - dropped {
        1 => Ok(()),
        count => Err(format!("{count} dropped")),
    });
    assert_eq!(switch.port("a")["state"], "up");
}

/// A ring of two cables to a bridge of Open vSwitch, as an uplink and a guest's device.
#[test]
fn spanning_tree_keeps_a_ring_open_and_closes_it_when_a_cable_is_cut() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let (host, rack, out, a) = (lab.space("host"), lab.space("rack"), lab.space("out"), lab.space("a"));
    for (near, far) in [("m0", "p0"), ("m1", "p1")] {
        lab.wire((&host, near), (&rack, far));
        plain(&host, near);
    }
    lab.wire((&rack, "o0"), (&out, "eth0"));
    out.address("eth0", "10.9.0.2/24");
    plain(&out, "eth0");
    let ovs = Ovs::start(&lab, &rack, "ovs");
    ovs.vsctl(&["set", "bridge", "br0", "rstp_enable=true", "other_config:rstp-priority=4096"]);
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink m0");
    switch.do_("network set office rstp=on");
    switch.do_("port attach office ring --netdev m1");
    switch.guest("office", "a", &a, "10.9.0.1/24");
    for port in ["p0", "p1", "o0"] {
        ovs.port(port, &[]);
    }
    // Open vSwitch is the root, so one of our two ports is blocked.
    let blocked = || ["uplink:m0", "ring"].map(|port| switch.count(port, "in stp-blocked"));
    eventually(Duration::from_secs(15), || {
        let text = ovs.appctl(&["rstp/show"]);
        let events = switch.events("stp.role");
        match text.contains("This bridge is the root")
            && events.iter().any(|event| event.contains("alternate"))
        {
            true => Ok(()),
            false => Err(format!("{text}\n{events:?}")),
        }
    });
    a.reaches("10.9.0.2");
    let mut probe = Probe::start(&a, &out, "10.9.0.2", 1);
    // Broadcasts pass once: nothing goes round.
    let listener = switchd_tests::Sniffer::start(&out, "eth0");
    a.send("eth0", &[marked(&BROADCAST, &mac(5), &[], "once")]);
    listener.expect("once", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(listener.with("once").len(), 1, "a broadcast goes round");
    let quiet = probe.stretch();
    assert_eq!((quiet.lost, quiet.doubled), (0, 0), "{quiet:?}");
    eprintln!("blocked frames: {:?}", blocked());
    for (cut, rest) in [("m0", "ring"), ("m1", "uplink:m0")] {
        probe.stretch();
        host.ip(&["link", "set", cut, "down"]);
        eventually(Duration::from_secs(8), || match probe.stretch() {
            stretch if stretch.lost == 0 => Ok(()),
            stretch => Err(format!("{cut} cut: {stretch:?} by {rest}")),
        });
        host.ip(&["link", "set", cut, "up"]);
        std::thread::sleep(Duration::from_secs(2));
        let events = switch.events("stp.role");
        eventually(Duration::from_secs(8), || match probe.stretch() {
            stretch if stretch.lost == 0 && stretch.doubled == 0 => Ok(()),
            stretch => Err(format!("{cut} is back: {stretch:?}; {events:?}")),
        });
    }
    a.send("eth0", &[marked(&BROADCAST, &mac(5), &[], "afterwards")]);
    listener.expect("afterwards", 1);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(listener.with("afterwards").len(), 1, "a broadcast goes round");
}
