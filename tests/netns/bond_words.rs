//! Why a member is out, in words; what is refused; what is told of transitions.

use std::time::Duration;
use switchd_tests::links::{FAST, OUT};
use switchd_tests::{Daemon, Lab, Ovs, eventually, holds_for};

#[test]
fn members_that_do_not_fit_say_why() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(&[]);
    // Two aggregates, each with a member that leads nowhere: Open vSwitch takes one alone for no aggregate.
    for (bond, port, spare) in [("bond5", "p0", "s0"), ("bond7", "p1", "s1")] {
        lab.wire((&rack.rack, spare), (&rack.rack, &format!("{spare}-end")));
        rack.ovs.vsctl(&[&["add-bond", "br0", bond, port, spare], FAST].concat());
    }
    let keys = |first: u16, second: u16| {
        for (port, key) in [("p0", first), ("s0", first), ("p1", second), ("s1", second)] {
            let key = format!("other_config:lacp-aggregation-key={key}");
            rack.ovs.vsctl(&["set", "interface", port, &key]);
        }
    };
    keys(5, 7);
    let switch = Daemon::start(&lab, &rack.host);
    switch.do_("bond create b0 --members m0,m1 --mode lacp");
    eventually(Duration::from_secs(10), || match switch.working("b0").len() {
        1 => Ok(()),
        _ => Err(switch.bond("b0").to_string()),
    });
    let (inside, outside, words) = match switch.working("b0") == ["m0"] {
        true => ("m0", "m1", "partner key 7 ≠ 5"),
        false => ("m1", "m0", "partner key 5 ≠ 7"),
    };
    switch.out_because("b0", outside, words);
    let events = switch.events("bond.member-up");
    assert!(events.iter().any(|event| event.contains(inside)), "{events:?}");
    // Too few of them: none carries anything, and the reason is another one.
    switch.do_("bond set b0 min-links=2");
    switch.out_because("b0", inside, "1 of at least 2 links are usable");
    eventually(Duration::from_secs(5), || match switch.bond("b0") {
        bond if bond["state"] == "down" => Ok(()),
        bond => Err(bond.to_string()),
    });
    keys(7, 7);
    switch.works("b0", &["m0", "m1"]);
    assert_eq!(switch.bond("b0")["state"], "up");
    // The transitions are told, and counted.
    for kind in ["bond.machine", "bond.partner", "bond.up", "bond.down", "bond.member-down"] {
        assert!(!switch.events(kind).is_empty(), "no {kind} among {}", switch.json(&["events"]));
    }
}

#[test]
fn two_passive_ends_do_not_meet() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(&["lacp=passive", "bond_mode=balance-tcp", "other_config:lacp-time=fast"]);
    let switch = Daemon::start(&lab, &rack.host);
    switch.do_("bond create b0 --members m0,m1 --mode lacp --lacp passive");
    holds_for(Duration::from_secs(4), || match switch.working("b0").is_empty() {
        true => Ok(()),
        false => Err(switch.bond("b0").to_string()),
    });
    switch.out_because("b0", "m0", "no LACPDU received");
    switch.do_("bond set b0 lacp=active");
    switch.works("b0", &["m0", "m1"]);
    rack.ovs.negotiated(&["p0", "p1"]);
}

#[test]
fn a_cable_back_into_the_same_system_is_never_aggregated() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = lab.space("host");
    lab.wire((&host, "m0"), (&host, "m1"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("bond create b0 --members m0,m1 --mode lacp");
    switch.out_because("b0", "m0", "looped back");
    switch.out_because("b0", "m1", "looped back");
    holds_for(Duration::from_secs(3), || match switch.working("b0").is_empty() {
        true => Ok(()),
        false => Err(switch.bond("b0").to_string()),
    });
}

/// A rack switch without LACP: with the fallback one member carries the bond, until a partner speaks.
#[test]
fn without_a_partner_the_fallback_uses_one_member() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let rack = lab.rack(&["bond_mode=active-backup", "lacp=off"]);
    let switch = Daemon::start(&lab, &rack.host);
    switch.do_("bond create b0 --members m0,m1 --mode lacp --fallback active-backup");
    switch.do_("network create office --kind bridged --uplink b0");
    let a = lab.space("a");
    switch.guest("office", "a", &a, "10.9.0.1/24");
    eventually(Duration::from_secs(12), || match switch.working("b0").len() {
        1 => Ok(()),
        _ => Err(switch.bond("b0").to_string()),
    });
    let (used, other) = if switch.working("b0") == ["m0"] { ("m0", "m1") } else { ("m1", "m0") };
    switch.out_because("b0", other, "another member carries the bond");
    // The rack switch has to use the same one; without LACP nobody tells it.
    rack.ovs.appctl(&["bond/set-active-member", "bond0", &used.replace('m', "p")]);
    a.reaches(OUT);
    rack.ovs.vsctl(&[
        "set",
        "port",
        "bond0",
        "bond_mode=balance-tcp",
        "lacp=active",
        "other_config:lacp-time=fast",
    ]);
    switch.works("b0", &["m0", "m1"]);
    rack.ovs.negotiated(&["p0", "p1"]);
    a.reaches(OUT);
}

/// Holds a tap and joins it to an interface, as a cable would.
const CABLE: &str = r#"
import fcntl, os, select, socket, struct, sys
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
wire.setsockopt(263, 23, 1)
wire.bind((sys.argv[2], 3))
print("ready", flush=True)
while True:
    for ready in select.select([tap, wire], [], [])[0]:
        try:
            if ready is wire:
                os.write(tap, wire.recv(65536))
            else:
                wire.send(os.read(tap, 65536))
        except OSError:
            pass
"#;

/// A veth always says 10 Gbit/s; a tap says what it is told to say.
#[test]
fn a_member_of_another_speed_is_out_until_it_runs_at_the_same() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool"]) else { return };
    let (host, rack) = (lab.space("host"), lab.space("rack"));
    lab.wire((&host, "h0"), (&rack, "p0"));
    lab.wire((&host, "m1"), (&rack, "p1"));
    host.ip(&["tuntap", "add", "m0", "mode", "tap"]);
    let speed = |speed: &str| host.run(&["ethtool", "-s", "m0", "speed", speed, "duplex", "full"]);
    speed("1000");
    let cable = host.background(&["python3", "-c", CABLE, "m0", "h0"]);
    eventually(Duration::from_secs(10), || match cable.stdout().starts_with("ready") {
        true => Ok(()),
        false => Err(cable.stderr()),
    });
    host.ip(&["link", "set", "m0", "up"]);
    let ovs = Ovs::start(&lab, &rack, "ovs");
    ovs.bond(&["p0", "p1"], FAST);
    let switch = Daemon::start(&lab, &host);
    switch.do_("bond create b0 --members m0 --mode lacp");
    switch.works("b0", &["m0"]);
    // A faster one comes. Open vSwitch forms one aggregate only and holds on to the first link, so it is right.
    switch.do_("bond set b0 members=m0,m1");
    eventually(Duration::from_secs(40), || {
        let reason = switch.member("b0", "m1")["reason"].clone();
        match reason.as_str().is_some_and(|words| words.starts_with("the partner uses other links")) {
            true => Ok(()),
            false => Err(switch.bond("b0").to_string()),
        }
    });
    switch.works("b0", &["m0"]);
    ovs.negotiated(&["p0"]);
    // One key for both: it takes both in, and the faster one is used.
    switch.do_("bond set b0 key=5");
    switch.works("b0", &["m1"]);
    switch.out_because("b0", "m0", "speed differs: 1000 ≠ 10000 Mbit/s");
    // Plugged in again, it runs as fast as the other one.
    host.ip(&["link", "set", "m0", "down"]);
    switch.out_because("b0", "m0", "link down");
    speed("10000");
    host.ip(&["link", "set", "m0", "up"]);
    switch.works("b0", &["m0", "m1"]);
    ovs.negotiated(&["p0", "p1"]);
}

#[test]
fn what_cannot_be_a_bond_is_refused() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, far) = (lab.space("host"), lab.space("far"));
    for (near, other) in [("m0", "p0"), ("m1", "p1"), ("m2", "p2")] {
        lab.wire((&host, near), (&far, other));
    }
    let switch = Daemon::start(&lab, &host);
    let create = |words: &str| {
        let mut all = vec!["bond", "create"];
        all.extend(words.split_whitespace());
        switch.ctl(&all)
    };
    create("b0 --members m0,m0 --mode lacp").fails(1, &["m0"]);
    create("m2 --members m0,m1 --mode lacp").fails(4, &["m2"]);
    switch.do_("bond create b0 --members m0,m1 --mode lacp");
    create("b1 --members m1,m2 --mode lacp").fails(4, &["m1", "b0"]);
    create("b1 --members b0,m2 --mode lacp").fails(4, &["b0"]);
    switch.ctl(&["network", "create", "n", "--kind", "bridged", "--uplink", "m0"]).fails(4, &["m0", "b0"]);
    create("b0 --members m2 --mode lacp").fails(4, &["b0"]);
    switch.ctl(&["bond", "show", "nobody"]).fails(3, &["nobody"]);
    switch.do_("network create office --kind bridged --uplink b0");
    switch.ctl(&["bond", "delete", "b0"]).fails(4, &["office"]);
    // One that is not there is refused by its name, and nothing of it stays.
    let refused = create("b2 --members m2,later --mode active-backup");
    assert!(refused.code != Some(0) && refused.stderr.contains("later"), "{refused:?}");
    switch.ctl(&["bond", "show", "b2"]).fails(3, &["b2"]);
}

#[test]
fn metrics_tell_of_members() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "curl"]) else { return };
    let rack = lab.rack(FAST);
    let (switch, _a) = rack.office(&lab, "");
    rack.host.ip(&["link", "set", "m0", "down"]);
    switch.works("b0", &["m1"]);
    let socket = switch.setup().socket();
    let text = rack
        .host
        .run(&["curl", "-s", "--unix-socket", socket.to_str().expect("plain"), "http://x/metrics"])
        .text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("b0") && !line.starts_with('#')).collect();
    let value = |member: &str, name: &str| {
        let line = lines.iter().find(|line| line.contains(member) && line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
    };
    for (member, expected) in [("m0", "0"), ("m1", "1")] {
        let told = value(&format!("\"{member}\""), "switchd_bond_member_distributing");
        assert_eq!(told.as_deref(), Some(expected), "{member} in {lines:#?}");
    }
    let events = switch.events("bond.member-down");
    assert!(events.iter().any(|event| event.contains("m0") && event.contains("link down")), "{events:?}");
}
