//! Active-backup: one member at a time, without a word from the other end.

use std::time::Duration;
use switchd_tests::links::{OUT, plain};
use switchd_tests::{Daemon, Lab, Ovs, Probe, Sniffer, eventually};

/// The rack switch has two plain ports: it learns where the guests are from what it receives.
#[test]
fn another_member_takes_over_and_upstream_learns_it_at_once() {
    let Some(lab) = Lab::open(&["ovs-vswitchd", "ethtool", "nft"]) else { return };
    let (host, rack, out, a) = (lab.space("host"), lab.space("rack"), lab.space("out"), lab.space("a"));
    for (near, far) in [("m0", "p0"), ("m1", "p1")] {
        lab.wire((&host, near), (&rack, far));
        plain(&host, near);
    }
    lab.wire((&rack, "o0"), (&out, "eth0"));
    out.address("eth0", &format!("{OUT}/24"));
    plain(&out, "eth0");
    let ovs = Ovs::start(&lab, &rack, "ovs");
    for port in ["o0", "p0", "p1"] {
        ovs.port(port, &[]);
    }
    let switch = Daemon::start(&lab, &host);
    switch.do_("bond create b0 --members m0,m1 --mode active-backup --prefer m1");
    switch.do_("network create office --kind bridged --uplink b0");
    switch.guest("office", "a", &a, "10.9.0.1/24");
    switch.works("b0", &["m1"]);
    switch.out_because("b0", "m0", "standby");
    a.reaches(OUT);
    // A guest that only listens: nothing but the announcement tells upstream where it is.
    let mut probe = Probe::start(&out, &a, "10.9.0.1", 1);
    let listeners = ["p0", "p1"].map(|port| Sniffer::start(&rack, port));
    let announced = |at: usize| {
        let guest = a.mac("eth0").replace(':', "");
        let rarp = |frame: &&Vec<u8>| {
            let source: String = frame[6..12].iter().map(|byte| format!("{byte:02x}")).collect();
            frame.get(12..14) == Some(&[0x80, 0x35]) && source == guest
        };
        listeners[at].frames().iter().filter(rarp).count()
    };
    for (event, used, at) in [("down", "m0", 0), ("up", "m1", 1)] {
        let before = announced(at);
        probe.stretch();
        host.ip(&["link", "set", "m1", event]);
        switch.works("b0", &[used]);
        eventually(Duration::from_secs(3), || match announced(at) > before {
            true => Ok(()),
            false => Err(format!("no RARP request left by {used}")),
        });
        let moved = probe.stretch();
        eprintln!("m1 {event}, {used} takes over: {moved:?}");
        assert_eq!(moved.doubled, 0, "m1 {event}: {moved:?}");
        // The other end of a cable that is plugged in takes a moment to see it, and is told again.
        probe.recovers();
        assert_eq!(switch.bond("b0")["state"], "up");
    }
    // Without a preference the one in use stays.
    switch.do_("bond set b0 prefer=");
    host.ip(&["link", "set", "m1", "down"]);
    switch.works("b0", &["m0"]);
    host.ip(&["link", "set", "m1", "up"]);
    eventually(Duration::from_secs(5), || match switch.member("b0", "m1")["carrier"] == true {
        true => Ok(()),
        false => Err("no carrier".into()),
    });
    std::thread::sleep(Duration::from_millis(300));
    switch.works("b0", &["m0"]);
    a.reaches(OUT);
    // Both pulled: the bond is down, and says so.
    for member in ["m0", "m1"] {
        host.ip(&["link", "set", member, "down"]);
    }
    switch.works("b0", &[]);
    eventually(Duration::from_secs(5), || match switch.bond("b0")["state"] == "down" {
        true => Ok(()),
        false => Err(switch.bond("b0").to_string()),
    });
    host.ip(&["link", "set", "m0", "up"]);
    switch.works("b0", &["m0"]);
    a.reaches(OUT);
}
