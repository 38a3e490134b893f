//! Neighbours by LLDP, with lldpd at the other end.

use std::time::Duration;
use switchd_tests::{Daemon, Lab, eventually};

#[test]
fn lldpd_and_the_daemon_see_each_other_on_uplinks_and_members() {
    let Some(lab) = Lab::open(&["lldpd", "lldpcli"]) else { return };
    let (host, far) = (lab.space("host"), lab.space("far"));
    for (near, other) in [("up0", "eth0"), ("m0", "eth1"), ("m1", "eth2")] {
        lab.wire((&host, near), (&far, other));
    }
    let socket = lab.folder().join("lldpd.socket");
    let socket = socket.to_str().expect("a plain path").to_owned();
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create office --kind bridged --uplink up0");
    switch.do_("bond create b0 --members m0,m1 --mode active-backup");
    switch.do_("network create other --kind bridged --uplink b0");
    let a = lab.space("a");
    switch.guest("office", "a", &a, "");
    a.ip(&["link", "set", "eth0", "up"]);
    let guest = switchd_tests::Sniffer::start(&a, "eth0");
    // It speaks when it begins, and then each 30 s.
    // In the foreground, with a socket and a folder of its own.
    let script =
        "mkdir -p /run/lldpd; mount -t tmpfs none /run/lldpd; exec lldpd -d -u $0 -S 'a rack switch'";
    let neighbour = far.background(&["unshare", "-m", "sh", "-c", script, &socket]);
    // We see it: on the uplink, and at each member of the bond.
    eventually(Duration::from_secs(15), || {
        let shown = switch.port("uplink:up0");
        let seen = shown["neighbors"].to_string();
        let port = seen.contains("eth0") || seen.contains(&far.mac("eth0"));
        match seen.contains("a rack switch") && port {
            true => Ok(()),
            false => Err(format!("{shown}\n{}", neighbour.stderr())),
        }
    });
    let wide = switch.ctl(&["port", "show", "uplink:up0"]).ok().text();
    assert!(wide.contains("a rack switch") || wide.contains("eth0"), "{wide}");
    for (member, other) in [("m0", "eth1"), ("m1", "eth2")] {
        eventually(Duration::from_secs(15), || {
            let seen = switch.member("b0", member)["neighbors"].to_string();
            match seen.contains(other) || seen.contains(&far.mac(other)) {
                true => Ok(()),
                false => Err(format!("{member}: {seen}")),
            }
        });
    }
    // It sees us.
    let ours = [("eth0", "up0"), ("eth1", "m0"), ("eth2", "m1")];
    eventually(Duration::from_secs(15), || {
        let seen = far.attempt(&["lldpcli", "-u", &socket, "-f", "keyvalue", "show", "neighbors"]).text();
        let all = ours.iter().all(|(far, near)| seen.contains(&format!("lldp.{far}.port.ifname={near}")));
        match all && seen.contains("switchd ") && seen.contains("chassis.Bridge.enabled=on") {
            true => Ok(()),
            false => Err(format!("lldpd sees {seen}")),
        }
    });
    // The largest frame is the interface's, at once when it changes (it counts a tag and the checksum).
    eventually(Duration::from_secs(10), || {
        let seen = far.attempt(&["lldpcli", "-u", &socket, "-f", "keyvalue", "show", "neighbors", "details"]);
        match ours.iter().all(|(far, _)| seen.text().contains(&format!("lldp.{far}.port.mfs=1522"))) {
            true => Ok(()),
            false => Err(format!("lldpd sees {}", seen.text())),
        }
    });
    for interface in ["up0", "m1"] {
        host.ip(&["link", "set", interface, "mtu", "9000"]);
    }
    eventually(Duration::from_secs(10), || {
        let seen = far.attempt(&["lldpcli", "-u", &socket, "-f", "keyvalue", "show", "neighbors", "details"]);
        let sizes = [("eth0", 9022), ("eth1", 1522), ("eth2", 9022)];
        match sizes.iter().all(|(far, size)| seen.text().contains(&format!("lldp.{far}.port.mfs={size}"))) {
            true => Ok(()),
            false => Err(format!("lldpd sees {}", seen.text())),
        }
    });
    // Guests hear nothing of it.
    let lldp = guest.frames().into_iter().filter(|frame| frame.get(12..14) == Some(&[0x88, 0xcc])).count();
    assert_eq!(lldp, 0, "LLDP reaches a guest");
    assert!(!switch.events("neighbor.new").is_empty());
    drop(neighbour);
}
