//! Members that fail, loudly and in silence, and what a bond does about it.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};
use switchd_tests::command::kill;
use switchd_tests::links::{FAST, OUT};
use switchd_tests::{Daemon, Lab, Probe, Setup, Space, Way, Wire, eventually, full, holds_for};

/// A cable is pulled at our end; a thousand datagrams a second and their echoes pass. Measured, so alone.
#[test]
fn a_pulled_cable_costs_a_few_milliseconds() {
    let Some(lab) = Lab::alone(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    let mut probe = Probe::start(&a, &rack.out, OUT, 1);
    let moves = switch.json(&["network", "show", "office"])["counters"]["fdb_moves"].clone();
    let mut worst = 0;
    for (member, rest) in [("m0", "m1"), ("m1", "m0"), ("m0", "m1"), ("m1", "m0")] {
        probe.stretch();
        rack.host.ip(&["link", "set", member, "down"]);
        switch.works("b0", &[rest]);
        switch.out_because("b0", member, "link down");
        std::thread::sleep(Duration::from_millis(400));
        let pulled = probe.stretch();
        rack.host.ip(&["link", "set", member, "up"]);
        switch.works("b0", &["m0", "m1"]);
        rack.ovs.negotiated(&["p0", "p1"]);
        let back = probe.stretch();
        eprintln!("{member} pulled: {pulled:?}, back: {back:?}");
        for stretch in [pulled, back] {
            assert!(stretch.lost <= 50, "{member}: {stretch:?}");
            assert_eq!((stretch.doubled, stretch.reordered), (0, 0), "{member}: {stretch:?}");
            worst = worst.max(stretch.lost);
        }
    }
    eprintln!("worst loss of four pulls: {worst} datagrams of 1,000 a second");
    // Members are nothing to the table of addresses: nothing had to be learned anew.
    assert_eq!(switch.json(&["network", "show", "office"])["counters"]["fdb_moves"], moves);
}

/// Seconds from now until it holds.
fn takes(mut holds: impl FnMut() -> bool) -> f64 {
    let begun = Instant::now();
    eventually(Duration::from_secs(15), || if holds() { Ok(()) } else { Err("still not".to_owned()) });
    begun.elapsed().as_secs_f64()
}

#[test]
fn a_silent_partner_is_off_after_the_short_timeout() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "nft"]) else { return };
    let rack = lab.lossy_rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    for (way, what) in [(Way::Both, "both ways"), (Way::Back, "from the rack"), (Way::There, "to the rack")] {
        rack.wires[0].lose(way, "drop");
        let ours = takes(|| switch.working("b0") == ["m1"]);
        eprintln!("silence {what}: our end is off after {ours:.1} s");
        assert!(ours <= 5.0, "silence {what}: off after {ours:.1} s");
        a.reaches(OUT);
        let reason = switch.member("b0", "m0")["reason"].as_str().unwrap_or_default().to_owned();
        let expected = if way == Way::There { "the partner does not hear us" } else { "no LACPDU for " };
        assert!(reason.contains(expected), "silence {what}: {reason:?}");
        rack.wires[0].heal();
        switch.works("b0", &["m0", "m1"]);
        rack.ovs.negotiated(&["p0", "p1"]);
    }
}

/// Two switchds, back to back over lossy wires. In the order in which they end.
struct Pair {
    left: Daemon,
    right: Daemon,
    wires: Vec<Wire>,
    a: Space,
    b: Space,
    one: Space,
    two: Space,
}

fn pair(lab: &Lab, lossy: bool) -> Pair {
    let (one, two) = (lab.space("one"), lab.space("two"));
    let mut wires = Vec::new();
    for (near, far) in [("m0", "p0"), ("m1", "p1")] {
        match lossy {
            true => wires.push(lab.lossy_wire(&format!("wire-{near}"), (&one, near), (&two, far))),
            false => lab.wire((&one, near), (&two, far)),
        }
    }
    let left = Setup::new(lab, &one, "left").start();
    let right = Setup::new(lab, &two, "right").start();
    left.do_("bond create b0 --members m0,m1 --mode lacp");
    right.do_("bond create b0 --members p0,p1 --mode lacp");
    let (a, b) = (lab.space("a"), lab.space("b"));
    for (switch, guest, address) in [(&left, &a, "10.9.0.1/24"), (&right, &b, "10.9.0.2/24")] {
        switch.do_("network create office --kind bridged --uplink b0");
        switch.guest("office", "g", guest, address);
    }
    left.works("b0", &["m0", "m1"]);
    right.works("b0", &["p0", "p1"]);
    a.reaches(OUT);
    Pair { left, right, wires, a, b, one, two }
}

/// Both ends are ours, so loss at either of them is ours. Measured, so alone.
#[test]
fn a_cable_pulled_at_either_end_costs_a_few_milliseconds() {
    let Some(lab) = Lab::alone(&[]) else { return };
    let pair = pair(&lab, false);
    let mut probe = Probe::start(&pair.a, &pair.b, OUT, 1);
    for (space, end) in [(&pair.one, "m0"), (&pair.two, "p1"), (&pair.two, "p0"), (&pair.one, "m1")] {
        probe.stretch();
        space.ip(&["link", "set", end, "down"]);
        eventually(Duration::from_secs(5), || {
            match pair.left.working("b0").len() + pair.right.working("b0").len() {
                2 => Ok(()),
                count => Err(format!("{count} members work")),
            }
        });
        std::thread::sleep(Duration::from_millis(400));
        let pulled = probe.stretch();
        space.ip(&["link", "set", end, "up"]);
        pair.left.works("b0", &["m0", "m1"]);
        pair.right.works("b0", &["p0", "p1"]);
        let back = probe.stretch();
        eprintln!("{end} pulled: {pulled:?}, back: {back:?}");
        for stretch in [pulled, back] {
            assert!(stretch.lost <= 50, "{end}: {stretch:?}");
            assert_eq!((stretch.doubled, stretch.reordered), (0, 0), "{end}: {stretch:?}");
        }
    }
}

#[test]
fn after_one_way_silence_both_ends_stop() {
    let Some(lab) = Lab::open(&["nft"]) else { return };
    let Pair { left, right, wires, a, b, .. } = &pair(&lab, true);
    let mut probe = Probe::start(a, b, OUT, 4);
    for way in [Way::There, Way::Back, Way::Both] {
        wires[0].lose(way, "drop");
        let both = takes(|| left.working("b0") == ["m1"] && right.working("b0") == ["p1"]);
        eprintln!("silence {way:?}: both ends are off after {both:.1} s");
        assert!(both <= 5.0, "silence {way:?}: {both:.1} s");
        probe.stretch();
        let after = probe.stretch();
        assert_eq!((after.lost, after.doubled), (0, 0), "once both are off nothing is lost: {after:?}");
        wires[0].heal();
        left.works("b0", &["m0", "m1"]);
        right.works("b0", &["p0", "p1"]);
        let back = probe.stretch();
        assert_eq!((back.doubled, back.reordered), (0, 0), "{back:?}");
    }
}

#[test]
fn a_bond_lives_with_the_loss_of_most_lacpdus() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "nft"]) else { return };
    let rack = lab.lossy_rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    let mut probe = Probe::start(&a, &rack.out, OUT, 4);
    for wire in &rack.wires {
        wire.lose(Way::Both, "ether type 0x8809 numgen random mod 100 < 60 drop");
    }
    // Members may go (four losses in a row) and come back meanwhile.
    std::thread::sleep(Duration::from_secs(if full() { 60 } else { 8 }));
    let stormy = probe.stretch();
    eprintln!("60% of LACPDUs lost: {stormy:?}, {} transitions", switch.events("bond.machine").len());
    assert_eq!(stormy.doubled, 0, "{stormy:?}");
    assert!(stormy.lost < stormy.sent, "nothing passed: {stormy:?}");
    rack.wires.iter().for_each(Wire::heal);
    switch.works("b0", &["m0", "m1"]);
    rack.ovs.negotiated(&["p0", "p1"]);
    probe.stretch();
    let healed = probe.stretch();
    assert_eq!((healed.lost, healed.doubled), (0, 0), "{healed:?}");
}

/// Resident memory in KiB and open descriptors of a process.
fn size(pid: u32) -> (u64, usize) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
    let memory = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    (memory, std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count())
}

#[test]
fn flaps_leave_no_growth() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    let count = if full() { 1000 } else { 200 };
    let flap = |count: u32| {
        let script = format!(
            "for i in $(seq {count}); do ip link set m0 down; sleep 0.01; ip link set m0 up; sleep 0.02; done"
        );
        let mut shell = rack.host.command(&["sh", "-c", &script]);
        switchd_tests::run(&mut shell, Duration::from_secs(30) + Duration::from_millis(300) * count).ok();
    };
    // What is made once is made now.
    flap(count / 4);
    let pids = [switch.pid(), switch.dataplane_pid()];
    let before = pids.map(size);
    let mut probe = Probe::start(&a, &rack.out, OUT, 4);
    flap(count);
    let flapping = probe.stretch();
    switch.works("b0", &["m0", "m1"]);
    rack.ovs.negotiated(&["p0", "p1"]);
    let after = pids.map(size);
    let events = switch.json(&["events"]).as_array().map_or(0, Vec::len);
    eprintln!("{count} flaps: {before:?} → {after:?}, {events} events kept, {flapping:?}");
    assert_eq!(pids, [switch.pid(), switch.dataplane_pid()], "a process died");
    for (before, after) in before.iter().zip(&after) {
        assert!(after.0 <= before.0 + 8192, "memory grew: {before:?} → {after:?} KiB");
        assert!(after.1 <= before.1 + 2, "descriptors grew: {before:?} → {after:?}");
    }
    assert!(events <= 10_000, "events have no bound: {events}");
    assert_eq!(flapping.doubled, 0, "{flapping:?}");
    probe.stretch();
    let calm = probe.stretch();
    assert_eq!((calm.lost, calm.doubled), (0, 0), "{calm:?}");
}

#[test]
fn a_killed_dataplane_leaves_the_partner_as_it_was() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, a) = rack.office(&lab, "");
    for _ in 0..3 {
        let counters = || {
            ["p0", "p1"].map(|member| {
                ["Link Expired", "Link Defaulted"].map(|name| rack.ovs.lacp_count(member, name))
            })
        };
        let (before, partners) = (counters(), partner_states(&rack.ovs.members()));
        let numbers = || -> Vec<u64> {
            let events = switch.json(&["events"]);
            events.as_array().into_iter().flatten().filter_map(|event| event["seq"].as_u64()).collect()
        };
        let last = numbers().into_iter().max().expect("events");
        let old = switch.dataplane_pid();
        kill(old, Signal::SIGKILL);
        eventually(Duration::from_secs(10), || match switch.json(&["status"])["dataplane_pid"].as_u64() {
            Some(pid) if pid != 0 && pid != u64::from(old) => Ok(()),
            _ => Err("no new dataplane".into()),
        });
        // The partner does not notice: not now, and not while timers begin anew.
        holds_for(Duration::from_secs(4), || {
            let members = rack.ovs.members();
            match members.values().all(switchd_tests::ovs::OvsMember::works) {
                true => Ok(()),
                false => Err(format!("{members:?}")),
            }
        });
        assert_eq!(counters(), before, "the partner lost a link");
        let first = numbers().into_iter().min().expect("events");
        assert!(first > last, "events begin with {first} again, after {last}");
        assert_eq!(partner_states(&rack.ovs.members()), partners);
        switch.works("b0", &["m0", "m1"]);
        a.reaches(OUT);
    }
    assert_eq!(switch.json(&["status"])["dataplane_restarts"], 3);
}

fn partner_states(
    members: &std::collections::BTreeMap<String, switchd_tests::ovs::OvsMember>,
) -> Vec<String> {
    members.values().map(|member| format!("{} | {}", member.actor, member.partner)).collect()
}

#[test]
fn a_deleted_member_comes_back() {
    let Some(lab) = Lab::open(&[]) else { return };
    let pair = pair(&lab, false);
    let mut probe = Probe::start(&pair.a, &pair.b, OUT, 4);
    pair.one.ip(&["link", "delete", "m1"]);
    for (switch, gone, rest) in [(&pair.left, "m1", "m0"), (&pair.right, "p1", "p0")] {
        switch.works("b0", &[rest]);
        switch.out_because("b0", gone, "there is none of that name");
        assert_eq!(switch.bond("b0")["state"], "up");
        let troubles = switch.json(&["status"])["troubles"].to_string();
        assert!(troubles.contains(gone), "{troubles}");
    }
    let gone = probe.stretch();
    eprintln!("a member deleted underneath: {gone:?}");
    assert!(gone.lost <= 100 && gone.doubled == 0, "{gone:?}");
    lab.wire((&pair.one, "m1"), (&pair.two, "p1"));
    pair.left.works("b0", &["m0", "m1"]);
    pair.right.works("b0", &["p0", "p1"]);
    for switch in [&pair.left, &pair.right] {
        eventually(Duration::from_secs(5), || match &switch.json(&["status"])["troubles"] {
            Value::Array(rows) if rows.is_empty() => Ok(()),
            rows => Err(rows.to_string()),
        });
    }
    let back = probe.stretch();
    assert_eq!(back.doubled, 0, "{back:?}");
}
